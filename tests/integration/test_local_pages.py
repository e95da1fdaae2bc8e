"""A web page that is open on this machine can neither read nor change anything in the local stack."""

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from urllib.parse import urlencode

import boto3
import pytest
import requests
from botocore.exceptions import ClientError

from local.aws import access_key
from local.private_file import private_file
from local.stack import DEMO_KEY, _restore
from tests.integration.conftest import SITE
from tests.stack import Stack

EVIL = "https://evil.example"


@pytest.fixture
def stack() -> Iterator[Stack]:
    """AWS's clients use HTTP here, as those of other processes do."""
    with Stack(background=False) as stack:
        yield stack


def servers(stack: Stack) -> dict[str, str]:
    assert stack.aws
    return {"gateway": stack.url, "AWS": stack.aws.url, **{vendor.name: vendor.url for vendor in stack.vendors}}


def list_secrets(stack: Stack, headers: Mapping[str, str], query: str = "") -> requests.Response:
    """As a page would send it that has read how AWS's protocol works."""
    assert stack.aws
    sent = {"X-Amz-Target": "secretsmanager.ListSecrets", "Content-Type": "application/x-amz-json-1.1", **headers}
    return requests.post(f"{stack.aws.url}/{query}", data="{}", headers=sent, timeout=10)


def signed(key: str) -> dict[str, str]:
    scope = f"{key}/20260101/eu-west-1/secretsmanager/aws4_request"
    return {"Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"}


# ---------------------------------------------------------------- of all servers

METHODS = ("GET", "POST", "OPTIONS")
PAGES: dict[str, dict[str, str]] = {
    "another website": {"Origin": EVIL},
    "a page without an origin (a file, a sandboxed frame)": {"Origin": "null"},
    "an empty origin": {"Origin": ""},
    "another port of this machine": {"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-site"},
    "an image of another website": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    "a script of another port": {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    "a name that leads here now (DNS rebinding)": {"Host": "evil.example:3000", "Sec-Fetch-Site": "same-origin"},
    "such a name, with its own origin": {"Host": "evil.example", "Origin": "http://evil.example"},
    "a name that begins like ours": {"Host": "localhost.evil.example"},
    "a name that ends like ours": {"Host": "evil-localhost"},
    "an address that leads here, too": {"Host": "0.0.0.0:3000"},
    "a name with a dot behind it": {"Host": "localhost.:3000"},
    "no name": {"Host": ""},
}


def test_a_page_of_another_origin_gets_nothing_from_any_server(stack: Stack) -> None:
    preflight = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
        "Access-Control-Request-Private-Network": "true",
    }
    for (name, url), (page, headers), method in product(servers(stack).items(), PAGES.items(), METHODS):
        path = {"gateway": "/operations", "AWS": "/moto-api/data.json"}.get(name, "/_state")
        known = signed(access_key()) if name == "AWS" else {"Authorization": f"Bearer {DEMO_KEY}"}
        sent = {**(preflight if method == "OPTIONS" else known), **headers}
        answer = requests.request(method, url + path, headers=sent, data="{}", timeout=10)
        assert answer.status_code == 403, (name, page, method)
        assert answer.headers["Content-Type"] == "application/json"
        assert not [header for header in answer.headers if header.startswith("Access-Control-")]
        assert answer.json().keys() == {"message"}


def test_a_page_of_another_origin_orders_no_fault_and_makes_no_record(stack: Stack) -> None:
    """As a form or `fetch` with mode `no-cors` sends it: no preflight, and the page need not read the response."""
    sent = {"Origin": EVIL, "Content-Type": "text/plain", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    fault = requests.post(f"{stack.illu.url}/_faults", data='{"kind": "error_after"}', headers=sent, timeout=10)
    with_key = {**sent, "Authorization": f"Bearer {DEMO_KEY}"}
    made = requests.post(f"{stack.url}/sites", data=json.dumps(SITE), headers=with_key, timeout=10)
    assert (fault.status_code, made.status_code) == (403, 403)
    assert stack.illu._faults == []
    assert stack.illu.sites == []


def test_a_web_socket_is_refused(stack: Stack) -> None:
    for url in servers(stack).values():
        host, port = url.removeprefix("http://").split(":")
        head = (
            f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: {EVIL}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        )
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(f"{head}\r\n".encode())
            assert connection.recv(12) == b"HTTP/1.1 403"


def test_programs_of_this_machine_and_of_its_containers_are_answered(stack: Stack) -> None:
    known = {"Authorization": f"Bearer {DEMO_KEY}"}
    names = ("127.0.0.1", "localhost", "LOCALHOST", "[::1]", "host.docker.internal")
    for name, port in product(names, ("", ":3000", ":49152")):
        sent = {"Host": name + port}
        assert requests.get(f"{stack.illu.url}/_state", headers=sent, timeout=10).status_code == 200
        assert requests.get(f"{stack.url}/operations", headers=sent | known, timeout=10).status_code == 200
        assert list_secrets(stack, {**sent, **signed(access_key())}).status_code == 200


def test_the_console_may_ask_the_gateway_that_it_comes_from(stack: Stack) -> None:
    sent = {"Authorization": f"Bearer {DEMO_KEY}", "Sec-Fetch-Site": "same-origin"}
    for host in (stack.url.removeprefix("http://"), "localhost:3000"):
        own = {**sent, "Host": host, "Origin": f"http://{host}"}
        assert requests.get(f"{stack.url}/operations", headers=own, timeout=10).status_code == 200
        other = {**own, "Origin": f"https://{host}"}
        assert requests.get(f"{stack.url}/operations", headers=other, timeout=10).status_code == 403


def test_a_link_in_a_page_leads_to_the_gateway_but_sends_nothing(stack: Stack) -> None:
    visit = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert requests.get(f"{stack.url}/operations", headers=visit, timeout=10).status_code == 401
    assert requests.post(f"{stack.url}/sites", headers=visit, timeout=10).status_code == 403


# ---------------------------------------------------------------- the embedded AWS


def test_aws_is_only_for_the_access_key_of_this_start(stack: Stack) -> None:
    assert access_key() == stack.environment["AWS_ACCESS_KEY_ID"]
    assert len(access_key()) > 32
    presigned = {"X-Amz-Credential": f"{access_key()}/20260101/eu-west-1/secretsmanager/aws4_request"}
    wrong_header_wins = {**signed("local"), "Content-Type": "application/x-amz-json-1.1"}
    for headers, query, status in (
        (signed(access_key()), "", 200),
        ({}, f"?{urlencode(presigned)}", 200),
        ({}, "", 403),
        (signed("local"), "", 403),
        (signed("testing"), "", 403),
        (signed(f"{access_key()}0"), "", 403),
        (signed(""), "", 403),
        ({"Authorization": f"Bearer {access_key()}"}, "", 403),
        ({"Authorization": f"AWS {access_key()}:0"}, "", 403),
        ({}, f"?AWSAccessKeyId={access_key()}", 403),
        ({}, "?X-Amz-Credential=local/20260101/eu-west-1/secretsmanager/aws4_request", 403),
        (wrong_header_wins, f"?{urlencode(presigned)}", 403),
    ):
        assert list_secrets(stack, headers, query).status_code == status, (headers, query)


def test_what_moto_offers_without_credentials_needs_the_access_key(stack: Stack) -> None:
    assert stack.aws
    paths = ("/moto-api/", "/moto-api/data.json", "/moto-api/reset", "/latest/meta-data/", "/")
    for path, method in product(paths, ("GET", "POST")):
        assert requests.request(method, stack.aws.url + path, timeout=10).status_code == 403
    assert boto3.client("secretsmanager").list_secrets()["SecretList"]


@pytest.mark.usefixtures("stack")
def test_aws_says_what_is_wrong_in_each_protocol() -> None:
    session = boto3.Session("AKIAIOSFODNN7EXAMPLE", "wrong")
    for ask in (session.client("secretsmanager").list_secrets, session.client("cloudformation").list_stacks):
        with pytest.raises(ClientError, match=r"InvalidClientTokenId.*has printed"):
            ask()


def test_aws_lets_no_page_read_its_responses(stack: Stack) -> None:
    answer = list_secrets(stack, signed(access_key()))
    assert not [header for header in answer.headers if header.startswith("Access-Control-")]


# ---------------------------------------------------------------- while it starts


def test_a_request_that_comes_too_early_or_too_late_is_asked_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = []
    stack = Stack(background=False)

    def asking(function: Callable[..., None]) -> Callable[..., None]:
        def ask(*arguments: object) -> None:
            function(*arguments)
            answer = requests.post(f"{stack.url}/sites", json=SITE, timeout=10)
            answers.append((answer.status_code, answer.headers.get("Retry-After")))

        return ask

    monkeypatch.setattr(stack.gateway, "start", asking(stack.gateway.start))
    monkeypatch.setattr(stack, "_deploy", asking(stack._deploy))
    monkeypatch.setattr("local.stack._restore", asking(_restore))
    with stack:
        assert answers == [(503, "1")] * 2
    assert answers == [(503, "1")] * 3


def test_what_is_kept_for_other_programs_is_its_owners_only(tmp_path: Path) -> None:
    file, elsewhere = tmp_path / "new" / "key", tmp_path / "elsewhere"
    elsewhere.touch(mode=0o644)
    with private_file(file, "a"):
        pass
    file.symlink_to(elsewhere)
    with private_file(file, "b"):
        assert (file.read_text(), oct(file.stat().st_mode & 0o777), file.is_symlink()) == ("b", "0o600", False)
        assert oct(file.parent.stat().st_mode & 0o777) == "0o700"
    assert not file.exists()
    assert elsewhere.read_text() == ""

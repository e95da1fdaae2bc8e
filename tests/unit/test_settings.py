"""A tenant's settings: which addresses of vendors are taken."""

import json
from urllib.parse import urlsplit

import pytest
from pydantic import ValidationError

from crm_bridge.settings import parse_tenant
from crm_bridge.vendors.izzitup import IzzitUpSettings

HERE = frozenset({"127.0.0.1", "localhost"})


def izzitup(base_url: str, local_hosts: frozenset[str] = frozenset()) -> str:
    document = json.dumps({"izzitup": {"base_url": base_url, "user": "u", "password": "p"}})
    settings = parse_tenant(document, local_hosts)
    return settings.require(IzzitUpSettings).base_url


@pytest.mark.parametrize(
    "base_url",
    ["https://status.acme.example", "https://acme.example:8443/status/", "https://8.8.8.8", "https://[2a00:1450::1]/"],
)
def test_an_address_is_scheme_host_and_path(base_url: str) -> None:
    assert izzitup(base_url) == base_url.rstrip("/")


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:4000/izzitup", "http://localhost", "https://127.0.0.1"])
def test_an_address_of_this_machine_is_taken_by_the_local_stack_only(base_url: str) -> None:
    assert izzitup(base_url, HERE) == base_url
    assert izzitup(base_url, frozenset({urlsplit(base_url).netloc})) == base_url
    for local_hosts in (frozenset[str](), frozenset({"127.0.0.1:1", "localhost:1"})):
        with pytest.raises(ValidationError, match="base_url"):
            izzitup(base_url, local_hosts)


PRIVATE = [
    *("127.0.0.1:9001", "127.9.9.9", "169.254.169.254", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1"),
    *("0.0.0.0", "0", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "127.1", "127.0.1"),  # noqa: S104
    *("2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "10.1"),
    *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]"),
    *("[64:ff9b::169.254.169.254]", "[64:ff9b:1::a00:1]", "[2002:7f00:1::]", "[fd00:ec2::254]", "[fe80::1]"),
    *("localhost", "localhost.", "LOCALHOST", "vendor.localhost", "vendor.localhost."),
    *("127.0.0.1.", "%31%32%37.0.0.1", "127.0.0.1\\.acme.example", "[::1%25lo]", "[v1.x]"),
]


@pytest.mark.parametrize("host", PRIVATE)
def test_an_address_that_is_not_public_is_refused_in_every_notation(host: str) -> None:
    for document in (
        {"izzitup": {"base_url": f"https://{host}/status", "user": "u", "password": "p"}},
        {"illu": {"base_url": f"https://{host}", "org_id": 1, "api_key": "k"}},
        {"webhook": {"url": f"https://{host}/?a=b", "secret": "whsec_" + "b2s0" * 8}},
    ):
        for local_hosts in (frozenset[str](), frozenset({"host.docker.internal"})):
            with pytest.raises(ValidationError, match="url"):
                parse_tenant(json.dumps(document), local_hosts)


@pytest.mark.parametrize(
    "base_url",
    [
        "https://acme.example/?",
        "https://acme.example#",
        "https://acme.example/status?key=1",
        "https://acme.example/status#top",
        "https://user@acme.example",
        "https://@acme.example",
        "https://acme.example/a b",
        "https://acme.example/ü",
        "https://acme.example/\n",
        "https:///status",
        "https://",
        "acme.example",
        "https://user:password@acme.example",
        "http://127.0.0.1.acme.example",
        "http://acme.example",
        "ftp://acme.example",
        "//acme.example",
        "https://acme..example",
        "https://.acme.example",
        f"https://{'a' * 64}.example",
        f"https://{'a.' * 126}example",
        "https://acme.example:0",
        "https://acme.example:65536",
        "https://u:pass\u2100word@acme.example",
    ],
)
def test_any_other_address_is_refused_and_not_repeated(base_url: str) -> None:
    with pytest.raises(ValidationError, match="base_url") as raised:
        izzitup(base_url)
    assert "acme" not in str(raised.value)


@pytest.mark.parametrize(
    "host", ["a_b-c.example.", f"{'a' * 63}.example", "acme.example:65535", "[2001:4860:4860::8888]:8443"]
)
def test_a_host_that_can_be_looked_up_is_taken(host: str) -> None:
    assert izzitup(f"https://{host}/a") == f"https://{host}/a"

"""Webhooks: what is told of an operation, how it is signed, and where it may be sent."""

import base64
import json
import socket
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from crm_bridge import aws
from crm_bridge.engine.policy import KEEP_ATTEMPTS
from crm_bridge.errors import Event, NotDoneError
from crm_bridge.outbound import public_addresses as public
from crm_bridge.outbound.breaker import FAILURES
from crm_bridge.outbound.public_addresses import is_public
from crm_bridge.outbound.transport import Deadline, Transport
from crm_bridge.settings import parse_tenant
from crm_bridge.storage.locks import Locks
from crm_bridge.storage.operation import Attempt, Operation, State, operation_id
from crm_bridge.vendors.webhook import WebhookSettings, signature
from crm_bridge.webhooks import WebhookEvent, webhook
from crm_bridge.words import LONGEST

SECRET = f"whsec_{base64.b64encode(b'hush-hush' * 3).decode()}"
URL = "https://acme.example/told"


def settled(**changes: object) -> Operation:
    last = Attempt(at=1_795_000_060, event=Event.DONE)
    return Operation(
        operation_id=operation_id("acme", "create_site", "C-1"),
        tenant="acme",
        flow="create_site",
        function="create_site",
        event_key="C-1",
        state=State.SUCCEEDED,
        attempts=(Attempt(at=1_795_000_000, event=Event.NOT_DONE, reason="busy", status=503), last),
        last_attempt=last,
        fingerprint="",
        result='{"site_id": 4711, "name": "Büro"}',
        lease="a1",
        created_at=1_795_000_000,
        updated_at=1_795_000_060,
        notifies=True,
    ).model_copy(update=changes)


# ---------------------------------------------------------------- what is told


def test_fits_into_the_table_when_every_attempt_has_the_longest_words() -> None:
    """An item has at most 400 KB. It is written in the transaction that settles the operation: that would never end."""
    attempt = Attempt(at=1_795_000_000, event=Event.MAYBE_DONE, reason="\N{GRINNING FACE}" * LONGEST, status=500)
    made = webhook(settled(attempts=(attempt,) * KEEP_ATTEMPTS, last_attempt=attempt))
    assert len((made.payload or "").encode()) < 300_000


def test_tells_what_the_api_shows_and_when_it_settled() -> None:
    operation = settled()
    told = WebhookEvent.model_validate_json(webhook(operation).payload or "")
    assert (told.type, told.timestamp) == ("operation.succeeded", "2026-11-18T11:07:40+00:00")
    assert told.data == operation.to_response()
    assert told.data["result"] == {"site_id": 4711, "name": "Büro"}
    assert "payload" not in told.data


def test_is_an_operation_of_the_same_tenant_that_is_due_at_once_and_tells_of_itself_to_nobody() -> None:
    made = webhook(settled())
    assert (made.tenant, made.flow, made.state, made.due_at) == ("acme", "webhook", State.WAITING, 1_795_000_060)
    assert not made.notifies
    assert made.operation_id == operation_id("acme", "webhook", made.event_key)


def test_has_one_name_for_each_time_that_an_operation_settles() -> None:
    times = [
        settled(),
        settled(state=State.NEEDS_REVIEW),
        settled(lease="a2"),
        settled(operation_id=operation_id("acme", "create_site", "C-2")),
        settled(operation_id=operation_id("umbrella", "create_site", "C-1"), tenant="umbrella"),
    ]
    names = [webhook(one).event_key for one in times]
    assert len(set(names)) == len(times)
    assert webhook(settled()) == webhook(settled())
    assert not [name for name in names if "." in name]  # it would blur what is signed


# ---------------------------------------------------------------- how it is signed


def test_signs_as_the_published_example_does() -> None:
    """https://github.com/standard-webhooks/standard-webhooks, "sign function works" of its libraries' tests"""
    made = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


# ---------------------------------------------------------------- the settings


def whsec(size: int) -> str:
    return "whsec_" + base64.b64encode(b"\xff" * size).decode()


@pytest.mark.parametrize("url", [URL, "https://acme.example:8443/a/b?token=x", "https://acme.example"])
def test_takes_an_address(url: str) -> None:
    assert WebhookSettings.model_validate({"url": url, "secret": SECRET}).url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://acme.example/told",
        "ftp://acme.example/",
        "acme.example",
        "https://",
        "https:///told",
        "https://user@acme.example/",
        "https://user:hush-hush@acme.example/",
        "https://acme.example/#part",
        "https://acme.example/a b",
        "https://acme.example/\r\nwebhook-id: 1",
        "https://büro.example/",
        "http://127.0.0.1.acme.example/",
        "",
    ],
)
def test_refuses_an_address_that_cannot_be_right(url: str) -> None:
    with pytest.raises(ValidationError, match=r"webhook\.url") as raised:
        parse_tenant(json.dumps({"webhook": {"url": url, "secret": SECRET}}))
    assert "hush-hush" not in str(raised.value)


@pytest.mark.parametrize("size", [24, 32, 64])
def test_takes_a_secret(size: int) -> None:
    settings = WebhookSettings.model_validate({"url": URL, "secret": whsec(size), "previous_secret": whsec(size)})
    assert settings.secret.get_secret_value() == whsec(size)


@pytest.mark.parametrize(
    "secret",
    [
        whsec(23),
        whsec(65),
        whsec(32).removeprefix("whsec_"),
        whsec(32).replace("whsec_", "whsk_"),
        whsec(32)[:-1],
        whsec(32).replace("/", "_"),
        f" {whsec(32)}",
        "whsec_",
        "",
    ],
)
def test_refuses_a_secret_that_the_standard_does_not_allow(secret: str) -> None:
    for name in ("secret", "previous_secret"):
        with pytest.raises(ValidationError) as raised:
            WebhookSettings.model_validate({"url": URL, "secret": SECRET, name: secret})
        assert name in str(raised.value)
        assert len(secret) < 10 or secret not in str(raised.value)


def test_shows_neither_its_address_nor_its_secrets() -> None:
    tenant = parse_tenant(json.dumps({"webhook": {"url": URL, "secret": SECRET, "previous_secret": SECRET}}))
    assert URL not in repr(tenant)
    assert SECRET not in repr(tenant) + tenant.model_dump_json()


# ---------------------------------------------------------------- where it may be sent

PUBLIC = ["8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e"]
NOT_PUBLIC = [
    *("127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.1.2.3"),
    *("192.0.2.1", "198.18.0.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("::1", "::", "fe80::1", "fe80::1%2", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1"),
    # IPv4 in IPv6: mapped, compatible, translated, NAT64, NAT64 of one's own, 6to4, Teredo
    *("::ffff:10.0.0.1", "::ffff:8.8.8.8", "::10.0.0.1", "::ffff:0:10.0.0.1", "64:ff9b::10.0.0.1"),
    *("64:ff9b:1::10.0.0.1", "2002:a00:1::1", "2001:0:a00:1::1"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_may_lead_to_a_private_one_is_not_public(address: str) -> None:
    assert not is_public(address)


class Network:
    """Names with the addresses that each look-up finds, and what was connected to; nothing can be."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *found: list[str]) -> None:
        self.found = list(found)
        self.connected: list[str] = []
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)
        monkeypatch.setattr(public, "create_connection", self._connect)

    def _look_up(self, _host: str, port: int, *_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.found.pop(0)]

    def _connect(self, where: tuple[str, int], *_: object) -> socket.socket:
        self.connected.append(where[0])
        raise ConnectionRefusedError


def call(url: str = URL, transport: Transport | None = None) -> NotDoneError:
    with pytest.raises(NotDoneError) as raised:
        (transport or Transport()).call(
            "acme", "POST", url, deadline=Deadline(20), headers={}, body=b"{}", max_response=None
        )
    return raised.value


def test_connects_to_the_very_addresses_that_were_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, ["2606:4700:4700::1111", "8.8.8.8"], ["127.0.0.1"])
    call()
    assert network.connected == ["2606:4700:4700::1111", "8.8.8.8"]
    assert network.found == [["127.0.0.1"]]  # nobody looked again


@pytest.mark.parametrize("found", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::ffff:169.254.169.254"]])
def test_connects_to_nothing_when_one_address_is_not_public(monkeypatch: pytest.MonkeyPatch, found: list[str]) -> None:
    network = Network(monkeypatch, found)
    assert "NotPublicError" in call().message
    assert network.connected == []


def test_looks_again_at_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, ["8.8.8.8"], ["127.0.0.1"])
    transport = Transport()
    call(transport=transport)
    assert "NotPublicError" in call(transport=transport).message
    assert network.connected == ["8.8.8.8"]


def test_connects_to_nothing_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, ["8.8.8.8"])
    call("http://acme.example/told")
    assert (network.connected, network.found) == ([], [["8.8.8.8"]])


def test_an_address_may_be_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("8.8.8.8", "[2606:4700:4700::1111]"):
        network = Network(monkeypatch, [host.strip("[]")])
        call(f"https://{host}/told")
        assert network.connected == [host.strip("[]")]


def test_an_address_that_is_not_public_is_left_alone_like_a_vendor_that_is_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Network(monkeypatch, *[["127.0.0.1"]] * (FAILURES + 1))
    transport = Transport()
    messages = [call(transport=transport).message for _ in range(FAILURES + 1)]
    assert "is down" in messages[-1]
    assert len(network.found) == 1


# ---------------------------------------------------------------- where nobody wants to be told any more


@pytest.fixture
def locks(stores: Mapping[str, str]) -> Locks:
    return Locks(aws.client("dynamodb"), stores["Locks"])


def test_what_was_refused_once_stays_refused_for_that_tenant(locks: Locks) -> None:
    assert not locks.has_refused("acme", "webhook", "v1")
    for version in ("v1", "v2", "v1"):
        locks.refuse("acme", "webhook", version)
    assert [locks.has_refused("acme", "webhook", version) for version in ("v1", "v2", "v3")] == [True, True, False]
    assert not locks.has_refused("umbrella", "webhook", "v1")
    assert not locks.has_refused("acme", "another", "v1")

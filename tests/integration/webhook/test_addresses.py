"""Webhooks go to public addresses only, with TLS."""

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509

from crm_bridge.errors import NotDoneError
from crm_bridge.outbound import public_addresses as public
from crm_bridge.outbound.response import VendorResponse
from crm_bridge.outbound.transport import Deadline, Transport
from local.server import HOST
from local.stack import LOCAL_HOSTS
from local.vendors.webhook import ReceiverSimulator
from tests.integration.conftest import Crm
from tests.integration.sockets import Vendor, answers, self_signed, trust
from tests.integration.webhook.conftest import accepted, set_webhook, settled, webhooks, work

# ---------------------------------------------------------------- never to a private address


@pytest.mark.parametrize(
    "address",
    [
        *("https://127.0.0.1:{port}/", "https://localhost:{port}/", "https://2130706433:{port}/"),
        *("https://[::1]:{port}/", "https://[::ffff:127.0.0.1]:{port}/"),
        *("http://127.0.0.1:{port}/", "http://localhost:{port}/"),
    ],
)
def test_nothing_connects_to_this_machine_but_to_what_is_listed(
    notified: Crm, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    notified.stack.open_hosts = frozenset({urlsplit(notified.stack.illu.url).netloc})
    # The settings take it, as if the address had been found by a look-up.
    monkeypatch.setenv("LOCAL_HOSTS", ",".join([*LOCAL_HOSTS, "2130706433", "::1", "::ffff:127.0.0.1"]))
    with closing(Vendor(answers(204))) as private:
        set_webhook(notified, url=address.format(port=private.port))
        accepted(notified)
        work(notified)
        assert private.connections == 0
    (operation,) = webhooks(notified)
    assert operation["state"] == "waiting"
    assert "could not be reached" in operation["last_attempt"]["reason"]


def test_the_receiver_is_open_to_the_local_stack_only(notified: Crm, receiver: ReceiverSimulator) -> None:
    assert Transport().on_this_machine == frozenset()
    notified.stack.open_hosts = frozenset({urlsplit(notified.stack.illu.url).netloc})
    settled(notified)
    assert receiver.seen == []


# ---------------------------------------------------------------- TLS, although the address is chosen before


class Internet:
    """`vendor.example` is a server on loopback, and loopback is public."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certified: str = "vendor.example") -> None:
        tls, trusted = self_signed(tmp_path, x509.DNSName(certified))
        self.vendor = Vendor(answers(204), tls=tls)
        self.asked: list[str] = []
        real = socket.getaddrinfo

        def look_up(host: str, *arguments: Any, **options: Any) -> Any:
            self.asked.append(host)
            return real(HOST if host == "vendor.example" else host, *arguments, **options)

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        monkeypatch.setattr(public, "is_public", lambda address: ipaddress.ip_address(address).is_loopback)
        self.transport = Transport()
        trust(self.transport._public, trusted, monkeypatch)

    def call(self) -> VendorResponse:
        return self.transport.call(
            "acme",
            "POST",
            f"https://vendor.example:{self.vendor.port}/hook",
            deadline=Deadline(20),
            headers={"webhook-id": "1"},
            body=b"{}",
            max_response=None,
        )


@pytest.fixture
def internet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Internet]:
    internet = Internet(tmp_path, monkeypatch)
    yield internet
    internet.vendor.close()


def test_the_certificate_is_checked_against_the_name_and_the_name_is_looked_up_once(internet: Internet) -> None:
    assert internet.call().status == 204
    assert internet.asked == ["vendor.example", HOST]  # then the address itself, which asks nobody
    assert internet.vendor.headers()["host"] == f"vendor.example:{internet.vendor.port}"


def test_nothing_is_sent_when_the_certificate_is_for_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    internet = Internet(tmp_path, monkeypatch, certified="another.example")
    with pytest.raises(NotDoneError, match="SSLError"):
        internet.call()
    internet.vendor.close()
    assert internet.vendor.requests == []

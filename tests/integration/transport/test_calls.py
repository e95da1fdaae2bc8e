"""Failed calls and what may have happened: the decision that everything rests on, over real sockets on loopback.

What a response means once it was read is in unit/test_vendor_response.py.
"""

import gzip
import ipaddress
import json
import logging
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from crm_bridge.errors import (
    AddressMovedError,
    ContractBrokenError,
    MaybeDoneError,
    NotDoneError,
    RefusedError,
    SignInRefusedError,
    TryLaterError,
    VendorError,
)
from crm_bridge.outbound.breaker import Breaker
from crm_bridge.outbound.transport import MAX_RESPONSE, Transport, changing_nothing
from local.server import HOST
from tests.integration.sockets import (
    QUERY,
    Behaviour,
    Connection,
    Vendors,
    answers,
    closes,
    head,
    resets,
    says,
    self_signed,
    stays_silent,
    trust,
)
from tests.integration.transport.conftest import BODY, HEADERS, SECRETS, SOON, Bridge, no_hang


def test_answer_when_the_vendor_did_it(bridge: Bridge, vendors: Vendors) -> None:
    behaviours = (
        answers(201, b'{"site_id": 1}'),
        answers(201, gzip.compress(b'{"site_id": 1}'), b"Content-Encoding: gzip"),
        says(head(201, b"Transfer-Encoding: chunked") + b'5\r\n{"sit\r\n9\r\ne_id": 1}\r\n0\r\n\r\n'),
        says(head(201) + b'{"site_id": 1}'),
    )
    vendor = vendors(*behaviours)
    for number in range(len(behaviours)):
        answer = bridge.call(vendor.url)
        assert (answer.status, answer.json()) == (201, {"site_id": 1})
        assert vendor.requests[number].startswith(f"POST /sites?{QUERY} HTTP/1.1\r\n".encode())
        assert json.loads(vendor.requests[number].partition(b"\r\n\r\n")[2]) == BODY
        headers = vendor.headers(number)
        assert headers["authorization"] == HEADERS["Authorization"]
        assert headers["content-type"] == headers["accept"] == "application/json"


@pytest.mark.parametrize("behaviour", [answers(201), closes], ids=["answered", "failed"])
def test_tells_how_long_a_vendor_took_and_nothing_else_of_the_call(
    bridge: Bridge, vendors: Vendors, capsys: pytest.CaptureFixture[str], behaviour: Behaviour
) -> None:
    times = iter((100.0, 101.5))
    breaker = Breaker(time.monotonic)
    bridge.transport = Transport(lambda: next(times), breaker=breaker, on_this_machine=frozenset({HOST}))
    with suppress(VendorError):
        bridge.call(vendors(behaviour).url)
    logged = json.loads(capsys.readouterr().out)
    del logged["_aws"]
    assert logged == {"VendorLatency": [1500.0], "vendor": "acme"}


# ------------------------------------------------------------------ surely not done


@contextmanager
def refusing_port() -> Iterator[int]:
    with socket.socket() as bound:  # and not listening
        bound.bind((HOST, 0))
        yield bound.getsockname()[1]


@contextmanager
def silent_port() -> Iterator[int]:
    """A port whose queue of connections is full: whoever else wants to connect hears nothing."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((HOST, 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_not_done_when_nothing_listens_but_maybe_done_without_a_body_that_would_tell(bridge: Bridge) -> None:
    """Only a body tells whether a request left. One without it asks for nothing that would matter."""
    with refusing_port() as port:
        for method, error in (("POST", NotDoneError), ("GET", MaybeDoneError)):
            with pytest.raises(error) as caught:
                bridge.call(f"http://{HOST}:{port}/sites?{QUERY}", method=method)
            logged = "".join([repr(caught.value), *traceback.format_exception(caught.value)])
            assert not [secret for secret in SECRETS if secret in logged]


def test_not_done_when_the_name_does_not_resolve(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def getaddrinfo(host: str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(NotDoneError):
        bridge.call("https://vendor.invalid/")
    assert asked == ["vendor.invalid"]


def test_not_done_when_connecting_takes_too_long(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    with silent_port() as port:
        with no_hang(), pytest.raises(NotDoneError, match="TimeoutError"):
            bridge.call(f"http://{HOST}:{port}/", seconds=SOON)
        monkeypatch.setattr("crm_bridge.outbound.transport.CONNECT_TIMEOUT", 0.5)
        with no_hang(), pytest.raises(NotDoneError, match="ConnectTimeout"):
            bridge.call(f"http://{HOST}:{port}/")


def test_nothing_is_sent_when_the_connection_stands_after_the_deadline(
    bridge: Bridge, vendors: Vendors, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor = vendors(answers(201))
    resolved = threading.Event()
    getaddrinfo = socket.getaddrinfo

    def slow(*args: Any, **options: Any) -> Any:
        resolved.wait(30)
        return getaddrinfo(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", slow)
        with no_hang(), pytest.raises(NotDoneError, match="TimeoutError"):
            bridge.call(vendor.url, seconds=SOON)
        assert vendor.connections == 0
        resolved.set()
        vendor.wait_until_left()
    assert vendor.requests == []
    assert bridge.call(vendor.url).status == 201


@contextmanager
def port_without_tls() -> Iterator[int]:
    """Answers whatever comes, as an HTTP server does with a TLS greeting that it cannot read."""

    def answer_greeting() -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(head(400, b"Connection: close"))

    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=answer_greeting, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_not_done_when_the_vendor_speaks_no_tls_or_does_not_answer_the_handshake(bridge: Bridge) -> None:
    with port_without_tls() as port, pytest.raises(NotDoneError, match="SSLError"):
        bridge.call(f"https://{HOST}:{port}/")
    with socket.create_server((HOST, 0)) as listener, no_hang(), pytest.raises(NotDoneError):
        bridge.call(f"https://{HOST}:{listener.getsockname()[1]}/", seconds=SOON)


@pytest.mark.parametrize("name", [x509.IPAddress(ipaddress.ip_address(HOST)), x509.DNSName("vendor.example")])
def test_not_done_when_the_certificate_is_not_trusted_or_for_another_host(
    bridge: Bridge, vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: x509.GeneralName
) -> None:
    tls, trusted = self_signed(tmp_path, name)
    vendor = vendors(answers(201), tls=tls)
    with pytest.raises(NotDoneError, match="SSLError"):
        bridge.call(vendor.url)
    assert vendor.requests == []
    trust(bridge.transport._adapter, trusted, monkeypatch)
    if isinstance(name, x509.IPAddress):
        assert bridge.call(vendor.url).status == 201
        return
    with pytest.raises(NotDoneError, match="SSLError"):
        bridge.call(vendor.url)
    assert vendor.requests == []


@pytest.mark.parametrize("seconds", [0.49, 0, -5])
def test_not_done_when_too_little_time_is_left(bridge: Bridge, vendors: Vendors, seconds: float) -> None:
    vendor = vendors(answers(201))
    with pytest.raises(NotDoneError):
        bridge.call(vendor.url, seconds=seconds)
    assert vendor.connections == 0


# ------------------------------------------------------------------ what a response of a real server means

LATER = b'{"message": "Later"}'
STATUSES: tuple[tuple[Behaviour, type[VendorError], str, float | None], ...] = (
    (answers(103, b""), ContractBrokenError, " 103", None),
    (answers(204, b""), ContractBrokenError, " 204", None),
    (answers(304, b""), ContractBrokenError, " 304", None),
    (answers(400, b"No"), RefusedError, " 400: No", None),
    (answers(401, LATER, b'WWW-Authenticate: Basic realm="acme"'), SignInRefusedError, " 401: Later", None),
    (answers(429, LATER), TryLaterError, " 429: Later", None),
    (answers(429, LATER, b"Retry-After:  7 "), TryLaterError, " 429: Later", 7),
    (answers(429, LATER, b"Retry-After: \xb2\xb3"), TryLaterError, " 429: Later", None),
    (answers(500, b"Internal Server Error"), MaybeDoneError, " 500: Internal Server Error", None),
    (answers(502, b"<html><h1>502</h1></html>", b"Content-Type: text/html"), MaybeDoneError, " 502", None),
    (answers(503, LATER), MaybeDoneError, " 503: Later", None),
    (answers(503, LATER, b"Retry-After: 0"), TryLaterError, " 503: Later", 0),
)


def test_the_status_of_a_real_response_decides(bridge: Bridge, vendors: Vendors) -> None:
    for behaviour, error, words, seconds in STATUSES:
        caught = bridge.fails(error, vendors(behaviour), case=words)
        assert caught.retry_after == seconds, words
        assert caught.message == f"acme answered{words}"


def test_no_redirect_is_followed(bridge: Bridge, vendors: Vendors) -> None:
    target = vendors(answers(201))
    place = f"{HOST}:{target.port}"
    for status in (301, 302, 303, 307, 308):
        moved = status in (301, 307, 308)
        for location in (f"http://{place}/sites".encode(), b"http://[", b"/B\xfcro", b"https://B\xfcro.example/", b""):
            is_address = moved and location.startswith((b"http://1", b"/"))
            kind = AddressMovedError if is_address else ContractBrokenError
            error = bridge.fails(kind, vendors(answers(status, b"Moved", b"Location: " + location)), case=location)
            if is_address and place.encode() in location:
                named = f"the address has moved to {place}. Correct its base_url"
                assert error.message == f"acme answered {status}: {named}"
    vendor = vendors(answers(308, b"", b"Location: https://u:s3cret@login.acme.example/Moi-Avenue?next=%2Fsites"))
    with pytest.raises(AddressMovedError, match=r"to login\.acme\.example\."), changing_nothing():
        bridge.call(vendor.url, method="GET")
    assert target.connections == 0


# ------------------------------------------------------------------ maybe done


def endless_chunks(connection: Connection) -> None:
    connection.send(head(201, b"Transfer-Encoding: chunked"))
    while True:  # until the bridge has had enough
        connection.send(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")


CHUNKED, GZIP = b"Transfer-Encoding: chunked", b"Content-Encoding: gzip"
LOST: dict[str, Behaviour] = {
    "closed": closes,
    "reset": resets,
    "cut before the body": says(head(201, b"Content-Length: 14")),
    "cut in the body": says(head(201, b"Content-Length: 14") + b'{"site'),
    "cut in a chunk": says(head(201, CHUNKED) + b'6\r\n{"site'),
    "cut before the last chunk": says(head(201, CHUNKED) + b'e\r\n{"site_id": 1}\r\n'),
    "cut in gzip": says(head(201, GZIP, b"Content-Length: 99") + gzip.compress(b'{"site_id": 1}')[:-9]),
    "nothing": says(b""),
    "blank": says(b"\r\n\r\n"),
    "only a body": says(b"{}"),
    "SMTP": says(b"220 smtp.example ESMTP\r\n"),
    "HTTP/2": says(b"HTTP/2 201 Created\r\n\r\n{}"),
    "status 1000": says(b"HTTP/1.1 1000 Whatever\r\n\r\n{}"),
    "two lengths": says(head(201, b"Content-Length: 2", b"Content-Length: 3") + b"{}"),
    "200 headers": says(head(201, *(b"X-%d: 1" % number for number in range(200))) + b"{}"),
    "long header": says(head(201, b"X: " + b"x" * 70_000) + b"{}"),
    "no chunk": says(head(201, CHUNKED) + b"what\r\n{}\r\n0\r\n\r\n"),
    "no gzip": says(head(201, GZIP, b"Content-Length: 2") + b"{}"),
    "too large": answers(201, b"x" * (MAX_RESPONSE + 1)),
    "gzip bomb": answers(201, gzip.compress(bytes(50_000_000)), GZIP),
    "too large without length": says(head(201) + b"x" * (MAX_RESPONSE + 1)),
    "endless": endless_chunks,
}


def test_maybe_done_when_no_whole_answer_comes_back(bridge: Bridge, vendors: Vendors) -> None:
    for name, behaviour in LOST.items():
        assert bridge.fails(MaybeDoneError, vendors(behaviour), case=name).status is None, name


def test_contract_broken_when_what_came_passes_for_an_answer_and_is_none(bridge: Bridge, vendors: Vendors) -> None:
    """Cut in the headers, it passes for a 201 without headers, so it takes the body to see that something is wrong."""
    for data in (b"HTTP/1.1 201 Crea", b"HTTP/1.1 201 Created\r\nContent-Le", head(201) + b"<html>"):
        answer = bridge.call(vendors(says(data)).url)
        with pytest.raises(ContractBrokenError):
            answer.json()


def test_maybe_done_when_no_answer_comes_in_time(
    bridge: Bridge, vendors: Vendors, monkeypatch: pytest.MonkeyPatch
) -> None:
    with no_hang():
        assert "TimeoutError" in bridge.fails(MaybeDoneError, vendors(stays_silent), seconds=SOON).message
    monkeypatch.setattr("crm_bridge.outbound.transport.READ_TIMEOUT", 0.5)
    with no_hang():
        assert "ReadTimeout" in bridge.fails(MaybeDoneError, vendors(stays_silent)).message


def test_answer_when_it_is_just_not_too_large(bridge: Bridge, vendors: Vendors) -> None:
    vendor = vendors(answers(201, b"x" * 100), answers(201, b"x" * MAX_RESPONSE))
    assert len(bridge.call(vendor.url, max_response=100).body) == 100
    assert len(bridge.call(vendor.url).body) == MAX_RESPONSE


# ------------------------------------------------------------------ nothing is given away, nothing comes along


def test_log_shows_nothing_of_the_request_when_the_headers_are_malformed(
    bridge: Bridge, vendors: Vendors, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    bridge.call(vendors(says(head(201, b"no colon") + b"{}")).url)
    assert not [secret for secret in SECRETS if secret in caplog.text]


def test_cookie_is_not_sent_when_an_answer_set_one(bridge: Bridge, vendors: Vendors) -> None:
    cookies = (b"Set-Cookie: session=1; Path=/", b"Set-Cookie: other=2; Domain=127.0.0.1; Path=/")
    vendor = vendors(
        answers(201, b"{}", *cookies), answers(302, b"", b"Location: /", *cookies), answers(401, b"", *cookies), closes
    )
    for _ in range(4):
        with suppress(VendorError):
            bridge.call(vendor.url)
    assert len(vendor.requests) == 4
    assert not [number for number in range(4) if "cookie" in vendor.headers(number)]


def test_neither_netrc_nor_a_proxy_of_the_machine_is_heeded(
    bridge: Bridge, vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor, proxy = vendors(answers(201)), vendors(answers(201))
    for name in (".netrc", "_netrc"):
        (tmp_path / name).write_text(f"machine {HOST} login someone password else\n")
        (tmp_path / name).chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://{HOST}:{proxy.port}")
        monkeypatch.setenv(name.upper(), f"http://{HOST}:{proxy.port}")
    bridge.call(vendor.url)
    assert vendor.headers()["authorization"] == HEADERS["Authorization"]
    assert (len(vendor.requests), proxy.connections) == (1, 0)

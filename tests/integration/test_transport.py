"""What may have happened when a call fails: the decision that everything rests on, over real sockets on loopback."""

import gzip
import ipaddress
import json
import logging
import math
import socket
import ssl
import struct
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3.connection
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from requests.adapters import BaseAdapter
from werkzeug.wrappers import Response

from crm_bridge.breaker import Breaker
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
from crm_bridge.transport import (
    MAX_ANSWER,
    MAX_IDLE,
    MAX_WORDS,
    Answer,
    Deadline,
    Transport,
    _idle,
    changing_nothing,
    expect,
)
from local.server import HOST, Server

SOON = 1.25
"""Seconds of a deadline that a test waits for. Half of them are for connecting, and half for the answer."""
NO_HANG = 3.0
"""Seconds after which a call with that deadline surely hangs."""
DRIPS, PAUSE = 17, 0.2
"""A dripping vendor takes longer than NO_HANG in all, but never long enough between two bytes to be cut off for it."""

KEY = 's3cret"key\\1'
HEADERS = {"Authorization": f"Bearer {KEY}"}
QUERY = "name=Wanjiru-Kamau"
BODY = {"address": "Moi-Avenue-12"}


# ------------------------------------------------------------------ the vendor


class Connection:
    """The vendor's end of one connection."""

    def __init__(self, sock: socket.socket, stopping: threading.Event) -> None:
        self._socket = sock
        self._stopping = stopping

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def wait(self, seconds: float) -> None:
        self._stopping.wait(seconds)

    def end(self) -> None:
        with suppress(OSError):  # the other side was quicker
            self._socket.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def request(self) -> bytes:
        """One whole request; empty if none comes any more."""
        data = b""
        while True:
            head, end, body = data.partition(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
            if end and len(body) >= length:
                return data
            piece = self._socket.recv(65536)
            if not piece:
                return b""
            data += piece


type Behaviour = Callable[[Connection], None]


class Vendor:
    """A bare socket that reads whole requests, keeps them, and then behaves as no decent server would.

    The first of `behaviours` answers the first request, and so on; the last one answers all that follow.
    """

    def __init__(self, *behaviours: Behaviour, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._behaviours = behaviours
        self._tls = tls
        self._stopping = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((HOST, 0))
        self._listener.settimeout(0.02)
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{HOST}:{self.port}/sites?{QUERY}"

    def headers(self, number: int = 0) -> dict[str, str]:
        """The headers of a request that came, names in lower case."""
        head = self.requests[number].partition(b"\r\n\r\n")[0].decode()
        pairs = (line.split(": ", 1) for line in head.split("\r\n")[1:])
        return {name.lower(): value for name, value in pairs}

    def wait_until_left(self) -> None:
        """Until somebody was connected, and nobody is any more."""
        give_up_at = time.monotonic() + 10
        while not self._threads or any(thread.is_alive() for thread in self._threads):
            assert time.monotonic() < give_up_at
            time.sleep(0.02)

    def close(self) -> None:
        self._stopping.set()
        self._accepting.join()
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.connections += 1
            self._sockets.append(sock)
            thread = threading.Thread(target=self._talk, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _talk(self, sock: socket.socket) -> None:
        with sock, suppress(OSError), ExitStack() as stack:
            if self._tls:
                sock = stack.enter_context(self._tls.wrap_socket(sock, server_side=True))
                self._sockets.append(sock)
            connection = Connection(sock, self._stopping)
            while request := connection.request():
                self.requests.append(request)
                self._behaviours[min(len(self.requests), len(self._behaviours)) - 1](connection)


def says(data: bytes, *, then_ends: bool = True) -> Behaviour:
    def behave(connection: Connection) -> None:
        connection.send(data)
        if then_ends:
            connection.end()

    return behave


def answers(status: int, body: bytes = b"{}", *headers: bytes) -> Behaviour:
    """A well-formed answer, after which the connection stays open."""
    return says(_head(status, b"Content-Length: %d" % len(body), *headers) + body, then_ends=False)


def drips(start: bytes, piece: bytes) -> Behaviour:
    def behave(connection: Connection) -> None:
        connection.send(start)
        for _ in range(DRIPS):
            connection.wait(PAUSE)
            connection.send(piece)
        connection.end()

    return behave


def stays_silent(connection: Connection) -> None:
    connection.wait(30)


def closes(connection: Connection) -> None:
    connection.end()


def resets(connection: Connection) -> None:
    connection.reset()


def _head(status: int, *headers: bytes) -> bytes:
    return b"\r\n".join((b"HTTP/1.1 %d Whatever" % status, *headers, b"", b""))


class Vendors(ExitStack):
    def __call__(self, *behaviours: Behaviour, tls: ssl.SSLContext | None = None) -> Vendor:
        vendor = Vendor(*behaviours, tls=tls)
        self.callback(vendor.close)
        return vendor


@pytest.fixture
def vendors() -> Iterator[Vendors]:
    with Vendors() as stack:
        yield stack


# ------------------------------------------------------------------ the bridge


@dataclass
class Bridge:
    """The caller: every call is one that creates something, and counts as done with 201 only."""

    transport: Transport

    def call(self, url: str, *, seconds: float = 20, method: str = "POST", max_answer: int = MAX_ANSWER) -> Answer:
        answer = self.transport.call(
            "acme",
            method,
            url,
            deadline=Deadline(seconds),
            headers=HEADERS,
            body=BODY if method == "POST" else None,
            secrets=(KEY,),
            max_answer=max_answer,
        )
        expect(answer, 201)
        return answer

    def fails[E: VendorError](self, error: type[E], vendor: Vendor, *, seconds: float = 20) -> E:
        """The error of a call that fails with just this kind, after one request and no other."""
        with pytest.raises(error) as caught:
            self.call(vendor.url, seconds=seconds)
        assert type(caught.value) is error
        assert len(vendor.requests) == 1
        return caught.value


@pytest.fixture
def bridge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bridge]:
    monkeypatch.setattr("crm_bridge.transport.SHORTEST_CALL", 0.5)  # so that tests need not wait for long
    transport = Transport(on_this_machine=frozenset({HOST}))
    yield Bridge(transport)
    transport._adapter.close()


@contextmanager
def no_hang() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < NO_HANG


@pytest.mark.parametrize(
    "behaviour",
    [
        answers(201, b'{"site_id": 1}'),
        answers(201, gzip.compress(b'{"site_id": 1}'), b"Content-Encoding: gzip"),
        says(_head(201, b"Transfer-Encoding: chunked") + b'5\r\n{"sit\r\n9\r\ne_id": 1}\r\n0\r\n\r\n'),
        says(_head(201) + b'{"site_id": 1}'),
    ],
    ids=["at once", "gzip", "in chunks", "until the end"],
)
def test_answer_when_the_vendor_did_it(bridge: Bridge, vendors: Vendors, behaviour: Behaviour) -> None:
    vendor = vendors(behaviour)

    answer = bridge.call(vendor.url)

    assert (answer.status, answer.json()) == (201, {"site_id": 1})
    assert vendor.requests[0].startswith(f"POST /sites?{QUERY} HTTP/1.1\r\n".encode())
    assert json.loads(vendor.requests[0].partition(b"\r\n\r\n")[2]) == BODY
    assert vendor.headers()["authorization"] == HEADERS["Authorization"]
    assert vendor.headers()["content-type"] == vendor.headers()["accept"] == "application/json"


@pytest.mark.parametrize("behaviour", [answers(201), closes], ids=["answered", "failed"])
def test_tells_how_long_a_vendor_took_and_nothing_else_of_the_call(
    vendors: Vendors, capsys: pytest.CaptureFixture[str], behaviour: Behaviour
) -> None:
    times = iter((100.0, 101.5))
    bridge = Bridge(Transport(lambda: next(times), breaker=Breaker(time.monotonic), on_this_machine=frozenset({HOST})))
    with suppress(VendorError):
        bridge.call(vendors(behaviour).url)
    bridge.transport._adapter.close()
    told = json.loads(capsys.readouterr().out)
    del told["_aws"]
    assert told == {"VendorLatency": [1500.0], "vendor": "acme"}


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


def test_not_done_when_nothing_listens(bridge: Bridge) -> None:
    with refusing_port() as port, pytest.raises(NotDoneError):
        bridge.call(f"http://{HOST}:{port}/")


def test_not_done_when_the_name_does_not_resolve(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def getaddrinfo(host: str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    with pytest.raises(NotDoneError):
        bridge.call("https://vendor.invalid/")
    assert asked == ["vendor.invalid"]


def test_not_done_when_connecting_takes_too_long(bridge: Bridge) -> None:
    with silent_port() as port, no_hang(), pytest.raises(NotDoneError, match="TimeoutError"):
        bridge.call(f"http://{HOST}:{port}/", seconds=SOON)


def test_not_done_when_connecting_takes_longer_than_it_may(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crm_bridge.transport.CONNECT_TIMEOUT", 0.5)

    with silent_port() as port, no_hang(), pytest.raises(NotDoneError, match="ConnectTimeout"):
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
                connection.sendall(_head(400, b"Connection: close"))

    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=answer_greeting, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_not_done_when_the_vendor_speaks_no_tls(bridge: Bridge) -> None:
    with port_without_tls() as port, pytest.raises(NotDoneError, match="SSLError"):
        bridge.call(f"https://{HOST}:{port}/")


def test_not_done_when_the_tls_handshake_gets_no_answer(bridge: Bridge) -> None:
    with socket.create_server((HOST, 0)) as listener, no_hang(), pytest.raises(NotDoneError):
        bridge.call(f"https://{HOST}:{listener.getsockname()[1]}/", seconds=SOON)


def self_signed(directory: Path, name: x509.GeneralName) -> tuple[ssl.SSLContext, Path]:
    """A server's side of TLS, and the file that a caller would have to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a vendor")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    trusted, secret = directory / "certificate.pem", directory / "key.pem"
    trusted.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, secret)
    return context, trusted


def trust(adapter: BaseAdapter, authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "send", partial(adapter.send, verify=str(authority)))


def test_not_done_when_the_certificate_is_not_trusted(
    bridge: Bridge, vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, trusted = self_signed(tmp_path, x509.IPAddress(ipaddress.ip_address(HOST)))
    vendor = vendors(answers(201), tls=tls)

    with pytest.raises(NotDoneError, match="SSLError"):
        bridge.call(vendor.url)
    assert vendor.requests == []

    trust(bridge.transport._adapter, trusted, monkeypatch)
    assert bridge.call(vendor.url).status == 201


def test_not_done_when_the_certificate_is_for_another_host(
    bridge: Bridge, vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, trusted = self_signed(tmp_path, x509.DNSName("vendor.example"))
    vendor = vendors(answers(201), tls=tls)
    trust(bridge.transport._adapter, trusted, monkeypatch)

    with pytest.raises(NotDoneError, match="SSLError"):
        bridge.call(vendor.url)
    assert vendor.requests == []


@pytest.mark.parametrize("seconds", [0.49, 0, -5])
def test_not_done_when_too_little_time_is_left(bridge: Bridge, vendors: Vendors, seconds: float) -> None:
    vendor = vendors(answers(201))

    with pytest.raises(NotDoneError):
        bridge.call(vendor.url, seconds=seconds)
    assert vendor.connections == 0


def test_not_done_when_the_vendor_is_asked_too_often(bridge: Bridge, vendors: Vendors) -> None:
    error = bridge.fails(TryLaterError, vendors(answers(429, b'{"message": "Later"}')))

    assert (error.status, error.message, error.retry_after) == (429, "acme answered 429: Later", None)


def test_maybe_done_when_a_503_names_no_time_to_come_back(bridge: Bridge, vendors: Vendors) -> None:
    """A proxy says so too, after what is behind it has worked and died."""
    error = bridge.fails(MaybeDoneError, vendors(answers(503, b'{"message": "Later"}')))

    assert (error.status, error.message) == (503, "acme answered 503: Later")


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("value", "seconds"), [(b"0", 0), (b"120", 120), (b"  7 ", 7)])
def test_wait_is_told_when_retry_after_is_seconds(
    bridge: Bridge, vendors: Vendors, status: int, value: bytes, seconds: float
) -> None:
    error = bridge.fails(TryLaterError, vendors(answers(status, b"{}", b"Retry-After: " + value)))

    assert error.retry_after == seconds


@pytest.mark.parametrize("status", [429, 503])
def test_wait_is_told_when_retry_after_is_a_date(bridge: Bridge, vendors: Vendors, status: int) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True)
    error = bridge.fails(TryLaterError, vendors(answers(status, b"{}", f"Retry-After: {date}".encode())))

    assert error.retry_after == pytest.approx(600, abs=30)


@pytest.mark.parametrize(
    "date", [b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994"]
)
def test_wait_is_zero_when_the_date_has_passed(bridge: Bridge, vendors: Vendors, date: bytes) -> None:
    assert bridge.fails(TryLaterError, vendors(answers(503, b"{}", b"Retry-After: " + date))).retry_after == 0


@pytest.mark.parametrize(
    "value",
    [
        b"-1",
        b"abc",
        b"",
        b"1.5",
        b"1e9",
        b"nan",
        b"inf",
        b"0x10",
        b"\xb2\xb3",  # digits beyond ASCII, for which int() raises
        "٣٤".encode(),
        b"Mon,",
        b"Mon, 32 Jan 2026 99:00:00 GMT",
        b"Mon, 01 Jan 2026 00:00:00 +9999",
        pytest.param(b"9" * 5000 + b" Jan 2026 00:00:00 GMT", id="a day of 5000 digits"),
        pytest.param(b"Mon, 01 Jan 99999999999999999999 00:00:00 GMT", id="huge year"),
        pytest.param(b"Mon, 01 Jan 2026 99999999999999999999:00:00 GMT", id="huge hour"),
        pytest.param(b"Mon, 01 Jan 2026 00:00:00 +99999999999999999999", id="huge zone"),
    ],
)
def test_no_wait_is_told_when_retry_after_is_nonsense(bridge: Bridge, vendors: Vendors, value: bytes) -> None:
    assert bridge.fails(TryLaterError, vendors(answers(429, b"{}", b"Retry-After: " + value))).retry_after is None


@pytest.mark.parametrize("value", [b"9" * 500, b"Fri, 31 Dec 9999 23:59:59 GMT"], ids=["seconds", "date"])
def test_wait_is_finite_when_retry_after_is_huge(bridge: Bridge, vendors: Vendors, value: bytes) -> None:
    error = bridge.fails(TryLaterError, vendors(answers(429, b"{}", b"Retry-After: " + value)))

    assert error.retry_after is not None
    assert 1e8 < error.retry_after < math.inf


def test_sign_in_refused_when_401(bridge: Bridge, vendors: Vendors) -> None:
    vendor = vendors(answers(401, b'{"message": "Unauthorized"}', b'WWW-Authenticate: Basic realm="acme"'))

    error = bridge.fails(SignInRefusedError, vendor)

    assert isinstance(error, NotDoneError)
    assert (error.status, error.message) == (401, "acme answered 401: Unauthorized")


# ------------------------------------------------------------------ maybe done


@pytest.mark.parametrize("behaviour", [closes, resets])
def test_maybe_done_when_the_connection_ends_after_the_request(
    bridge: Bridge, vendors: Vendors, behaviour: Behaviour
) -> None:
    assert bridge.fails(MaybeDoneError, vendors(behaviour)).status is None


def test_maybe_done_when_no_answer_comes_in_time(bridge: Bridge, vendors: Vendors) -> None:
    vendor = vendors(stays_silent)

    with no_hang():
        error = bridge.fails(MaybeDoneError, vendor, seconds=SOON)
    assert "TimeoutError" in error.message


def test_maybe_done_when_the_answer_takes_longer_than_it_may(
    bridge: Bridge, vendors: Vendors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crm_bridge.transport.READ_TIMEOUT", 0.5)

    with no_hang():
        assert "ReadTimeout" in bridge.fails(MaybeDoneError, vendors(stays_silent)).message


@pytest.mark.parametrize(
    "data",
    [
        _head(201, b"Content-Length: 14"),
        _head(201, b"Content-Length: 14") + b'{"site',
        _head(201, b"Transfer-Encoding: chunked") + b'6\r\n{"site',
        _head(201, b"Transfer-Encoding: chunked") + b'e\r\n{"site_id": 1}\r\n',
        _head(201, b"Content-Encoding: gzip", b"Content-Length: 99") + gzip.compress(b'{"site_id": 1}')[:-9],
    ],
    ids=["before the body", "body", "chunk", "last chunk", "gzip"],
)
def test_maybe_done_when_the_connection_ends_in_the_middle(bridge: Bridge, vendors: Vendors, data: bytes) -> None:
    bridge.fails(MaybeDoneError, vendors(says(data)))


@pytest.mark.parametrize("data", [b"HTTP/1.1 201 Crea", b"HTTP/1.1 201 Created\r\nContent-Le"])
def test_contract_broken_when_the_connection_ends_in_the_headers(bridge: Bridge, vendors: Vendors, data: bytes) -> None:
    """What came passes for a 201 without headers, so it takes the body to see that something is wrong."""
    answer = bridge.call(vendors(says(data)).url)

    with pytest.raises(ContractBrokenError):
        answer.json()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"{}",
        b"220 smtp.example ESMTP\r\n",
        b"HTTP/2 201 Created\r\n\r\n{}",
        b"HTTP/1.1 1000 Whatever\r\n\r\n{}",
        _head(201, b"Content-Length: 2", b"Content-Length: 3") + b"{}",
        _head(201, *(b"X-%d: 1" % number for number in range(200))) + b"{}",
        _head(201, b"X: " + b"x" * 70_000) + b"{}",
        _head(201, b"Transfer-Encoding: chunked") + b"what\r\n{}\r\n0\r\n\r\n",
        _head(201, b"Content-Encoding: gzip", b"Content-Length: 2") + b"{}",
    ],
    ids=[
        "nothing",
        "blank",
        "only a body",
        "SMTP",
        "HTTP/2",
        "status 1000",
        "two lengths",
        "200 headers",
        "long header",
        "no chunk",
        "no gzip",
    ],
)
def test_maybe_done_when_the_answer_is_not_http(bridge: Bridge, vendors: Vendors, data: bytes) -> None:
    bridge.fails(MaybeDoneError, vendors(says(data)))


def endless_chunks(connection: Connection) -> None:
    connection.send(_head(201, b"Transfer-Encoding: chunked"))
    while True:  # until the bridge has had enough
        connection.send(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")


@pytest.mark.parametrize(
    "behaviour",
    [
        answers(201, b"x" * (MAX_ANSWER + 1)),
        answers(201, gzip.compress(bytes(50_000_000)), b"Content-Encoding: gzip"),
        says(_head(201) + b"x" * (MAX_ANSWER + 1)),
        endless_chunks,
    ],
    ids=["plain", "gzip bomb", "without length", "endless"],
)
def test_maybe_done_when_the_answer_is_too_large(bridge: Bridge, vendors: Vendors, behaviour: Behaviour) -> None:
    bridge.fails(MaybeDoneError, vendors(behaviour))


def test_answer_when_it_is_just_not_too_large(bridge: Bridge, vendors: Vendors) -> None:
    vendor = vendors(answers(201, b"x" * 100), answers(201, b"x" * MAX_ANSWER))

    assert len(bridge.call(vendor.url, max_answer=100).body) == 100
    assert len(bridge.call(vendor.url).body) == MAX_ANSWER


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        pytest.param(_head(201, b"Transfer-Encoding: chunked"), b"1\r\nx\r\n", id="chunks"),
        pytest.param(_head(201, b"Content-Length: 1000"), b"x", id="body"),
        pytest.param(_head(201, b"Transfer-Encoding: chunked") + b"fff\r\n", b"x", id="inside a chunk"),
        pytest.param(_head(201), b"x", id="body without length"),
        pytest.param(_head(302, b"Location: /", b"Content-Length: 1000"), b"x", id="redirect"),
        pytest.param(b"HTTP/1.1 201 Created\r\nX-Slow: ", b"x", id="headers"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", id="100 Continue"),
    ],
)
def test_maybe_done_at_the_deadline_when_the_answer_drips(
    bridge: Bridge, vendors: Vendors, start: bytes, piece: bytes
) -> None:
    vendor = vendors(drips(start, piece))

    with no_hang():
        bridge.fails(MaybeDoneError, vendor, seconds=SOON)


def drips_for_ever(start: bytes) -> Behaviour:
    def behave(connection: Connection) -> None:
        connection.send(start)
        while True:
            connection.wait(0.01)
            connection.send(b"1")

    return behave


def _threads() -> int:
    """How many threads of `_within` have something to do."""
    return sum(thread.name == "vendor call" for thread in threading.enumerate()) - len(_idle)


def _wait_until(is_true: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


@pytest.mark.parametrize("is_used_again", [False, True])
@pytest.mark.parametrize(
    "behaviour",
    [
        drips_for_ever(_head(201, b"Content-Length: 1000000000") + b"["),
        drips_for_ever(_head(201) + b"["),
        drips_for_ever(b"HTTP/1.1 2"),
        drips_for_ever(_head(201, b"Transfer-Encoding: chunked") + b"3b9aca00\r\n"),
        stays_silent,
    ],
    ids=["body", "body without an end", "status", "chunk", "silence"],
)
def test_the_connection_is_cut_at_the_deadline_and_its_thread_ends(
    bridge: Bridge, vendors: Vendors, behaviour: Behaviour, is_used_again: bool
) -> None:
    _wait_until(lambda: _threads() == 0)
    before = [answers(201)] if is_used_again else []
    vendor = vendors(*before, behaviour, answers(201))
    for _ in before:
        bridge.call(vendor.url)
    with pytest.raises(MaybeDoneError, match="TimeoutError"):
        bridge.call(vendor.url, seconds=SOON)
    _wait_until(lambda: _threads() == 0)
    if behaviour is not stays_silent:
        vendor.wait_until_left()  # it saw the end, and would have gone on for ever
    assert bridge.call(vendor.url).status == 201
    assert (vendor.connections, len(vendor.requests)) == (2, 2 + len(before))


@pytest.mark.parametrize("is_public", [False, True])
def test_a_tls_handshake_is_cut_at_the_deadline(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch, is_public: bool
) -> None:
    _wait_until(lambda: _threads() == 0)
    if is_public:
        bridge.transport.on_this_machine = frozenset()
        monkeypatch.setattr("crm_bridge.public.is_public", lambda _: True)
    ended = threading.Event()

    def drip_records(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"\x16\x03\x03\x40\x00")  # a handshake record of 16 KB is to come
            with suppress(OSError):
                while True:
                    connection.sendall(b"\0")
                    time.sleep(0.01)
        ended.set()

    with socket.create_server((HOST, 0)) as listener:
        threading.Thread(target=drip_records, args=(listener,), daemon=True).start()
        with pytest.raises(NotDoneError, match="TimeoutError"):
            bridge.call(f"https://{HOST}:{listener.getsockname()[1]}/", seconds=SOON)
        assert ended.wait(30)
    _wait_until(lambda: _threads() == 0)


def test_no_further_address_is_tried_after_the_deadline(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    _wait_until(lambda: _threads() == 0)
    bridge.transport.on_this_machine = frozenset()
    tried: list[str] = []
    hold = threading.Event()

    def connect(where: tuple[str, int], *_: object) -> socket.socket:
        tried.append(where[0])
        hold.wait(30)
        raise ConnectionRefusedError

    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"8.8.{n}.8", 443)) for n in range(200)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr("crm_bridge.public.create_connection", connect)
    with pytest.raises(NotDoneError, match="TimeoutError"):
        bridge.call("https://vendor.example/", seconds=SOON)
    hold.set()
    _wait_until(lambda: _threads() == 0)
    assert tried == ["8.8.0.8"]


@pytest.mark.parametrize("status", [408, 500, 502, 504, 507, 599])
def test_maybe_done_when_the_vendor_fails(bridge: Bridge, vendors: Vendors, status: int) -> None:
    error = bridge.fails(MaybeDoneError, vendors(answers(status, b"Internal Server Error")))

    assert (error.status, error.message) == (status, f"acme answered {status}: Internal Server Error")


def test_maybe_done_when_a_proxy_answers_for_the_vendor(bridge: Bridge, vendors: Vendors) -> None:
    page = b"<html><head><title>502 Bad Gateway</title></head></html>"
    error = bridge.fails(MaybeDoneError, vendors(answers(502, page, b"Content-Type: text/html")))

    assert error.message == "acme answered 502"


def test_maybe_done_when_a_request_without_body_cannot_be_sent(bridge: Bridge) -> None:
    """Only a body tells whether a request left. One without it asks for nothing that would matter."""
    with refusing_port() as port, pytest.raises(MaybeDoneError):
        bridge.call(f"http://{HOST}:{port}/", method="GET")


@pytest.mark.parametrize("status", [302, 303])
def test_contract_broken_when_the_vendor_redirects_after_it_may_have_worked(
    bridge: Bridge, vendors: Vendors, status: int
) -> None:
    target = vendors(answers(201))
    location = f"Location: http://{HOST}:{target.port}/sites".encode()
    error = bridge.fails(ContractBrokenError, vendors(answers(status, b"Moved", location)))

    assert error.status == status
    assert target.connections == 0


@pytest.mark.parametrize("status", [301, 307, 308])
def test_not_done_when_the_address_has_moved(bridge: Bridge, vendors: Vendors, status: int) -> None:
    target = vendors(answers(201))
    location = f"Location: http://{HOST}:{target.port}/sites".encode()
    error = bridge.fails(AddressMovedError, vendors(answers(status, b"Moved", location)))

    assert isinstance(error, NotDoneError)
    assert error.status == status
    assert error.message == (
        f"acme answered {status}: the address has moved to {HOST}:{target.port}. Correct its base_url"
    )
    assert target.connections == 0


@pytest.mark.parametrize(
    ("location", "place"),
    [
        (b"https://api.acme.example/v1/sites", "to api.acme.example"),
        (b"https://API.Acme.example:8443/", "to api.acme.example:8443"),
        (b"//api.acme.example/v1", "to api.acme.example"),
        (b"/v1/sites/", "to another path on the same host"),
        (b"../sites/", "to another path on the same host"),
        (b"?session=s3cret", "to another path on the same host"),
        (b"https://u:s3cret@api.acme.example/Moi-Avenue?key=s3cret#s3cret", "to api.acme.example"),
        (b"https://[2001:db8::1]/v1", "to 2001:db8::1"),
    ],
)
def test_only_the_host_is_shown_when_the_address_has_moved(
    bridge: Bridge, vendors: Vendors, location: bytes, place: str
) -> None:
    error = bridge.fails(AddressMovedError, vendors(answers(308, b"Moved", b"Location: " + location)))

    assert error.message == f"acme answered 308: the address has moved {place}. Correct its base_url"


def test_secret_is_masked_when_a_redirect_repeats_it_as_a_host() -> None:
    answer = Answer("acme", 307, {"Location": "https://s3cret.login.example/"}, b"", ("s3cret",))
    with pytest.raises(AddressMovedError) as caught:
        expect(answer, 201)

    assert caught.value.message == "acme answered 307: the address has moved to ***.login.example. Correct its base_url"


@pytest.mark.parametrize("status", [301, 307, 308])
def test_not_done_when_a_question_is_redirected(bridge: Bridge, vendors: Vendors, status: int) -> None:
    vendor = vendors(answers(status, b"", b"Location: https://login.acme.example/?next=%2Fsites"))
    with pytest.raises(AddressMovedError) as caught, changing_nothing():
        bridge.call(vendor.url, method="GET")

    assert "to login.acme.example." in caught.value.message


@pytest.mark.parametrize("status", [301, 307, 308])
@pytest.mark.parametrize(
    "headers",
    [
        (),
        (b"Location:",),
        (b"Location: http://[",),
        (b"Location: http://a:99999/",),
        (b"Location: ftp://acme.example/",),
        (b"Location: https://B\xfcro.example/",),
        (b"Content-Location: /sites/7",),
    ],
    ids=["none", "empty", "malformed", "port", "ftp", "latin-1", "content location"],
)
def test_contract_broken_when_a_redirect_names_no_address(
    bridge: Bridge, vendors: Vendors, status: int, headers: tuple[bytes, ...]
) -> None:
    """Such a response is not a redirect: Google's uploads return 308 without a Location after part of the work."""
    bridge.fails(ContractBrokenError, vendors(answers(status, b"", *headers)))


@pytest.mark.parametrize("status", [300, 304, 305, 306, 309])
def test_contract_broken_when_another_3xx_names_an_address(bridge: Bridge, vendors: Vendors, status: int) -> None:
    bridge.fails(ContractBrokenError, vendors(answers(status, b"", b"Location: https://acme.example/sites")))


@pytest.mark.parametrize("location", [b"/elsewhere", b"", b"//", b"http://a:b:c/", b"ftp://x/", b"http://*.x/"])
def test_contract_broken_when_the_redirect_leads_nowhere(bridge: Bridge, vendors: Vendors, location: bytes) -> None:
    bridge.fails(ContractBrokenError, vendors(answers(302, b"", b"Location: " + location)))


@pytest.mark.parametrize("location", [b"http://[", b"//[", f"http://{HOST}:99999/".encode(), b"/B\xfcro"])
def test_contract_broken_when_the_redirect_is_malformed(bridge: Bridge, vendors: Vendors, location: bytes) -> None:
    bridge.fails(ContractBrokenError, vendors(answers(302, b"", b"Location: " + location)))


@pytest.mark.parametrize("status", [103, 200, 202, 204, 206, 304])
def test_contract_broken_when_the_status_is_not_the_documented_one(
    bridge: Bridge, vendors: Vendors, status: int
) -> None:
    error = bridge.fails(ContractBrokenError, vendors(answers(status, b"")))

    assert isinstance(error, MaybeDoneError)
    assert (error.status, error.message) == (status, f"acme answered {status}")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"created",
        b"<html></html>",
        b'{"site_id": 1',
        b'{"site_id": 1}{}',
        b"\xff\xfe\xfd",
        pytest.param(b"[" * 60_000, id="nested too deeply"),
        pytest.param(b"9" * 5000, id="a number of 5000 digits"),
    ],
)
def test_contract_broken_when_the_body_is_not_json(bridge: Bridge, vendors: Vendors, body: bytes) -> None:
    answer = bridge.call(vendors(answers(201, body, b"Content-Type: application/json")).url)

    with pytest.raises(ContractBrokenError) as caught:
        answer.json()
    assert (caught.value.status, caught.value.message) == (201, "acme answered 201 with a body that is not JSON")


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize("status", [400, 402, 404, 405, 409, 410, 413, 415, 418, 422, 451])
def test_refused_when_the_vendor_says_no(bridge: Bridge, vendors: Vendors, status: int) -> None:
    error = bridge.fails(RefusedError, vendors(answers(status, b'{"message": "No such site"}')))

    assert (error.vendor, error.status, error.message) == ("acme", status, f"acme answered {status}: No such site")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"message": "Name is taken", "error": "conflict"}', "Name is taken"),
        (b'{"error": "Name is taken", "detail": "d"}', "Name is taken"),
        (b'{"detail": "Name is taken", "code": 7}', "Name is taken"),
        (b'{"message": "", "error": null, "detail": "Name is taken"}', "Name is taken"),
        (b'{"error": {"code": 7, "message": "Name is taken"}}', "Name is taken"),
        ('{"errors": ["Ungültig", {"message": "Zu lang"}]}'.encode(), "Ungültig; Zu lang"),
        (b'["Name is taken"]', "Name is taken"),
        (b'"Name is taken"', "Name is taken"),
        (b"  Name is taken\r\n", "Name is taken"),
        (b"Name is t\xe4ken", "Name is t\ufffdken"),
        (b"{Name is taken", "{Name is taken"),
    ],
)
def test_vendors_words_are_told_when_it_refuses(bridge: Bridge, vendors: Vendors, body: bytes, words: str) -> None:
    error = bridge.fails(RefusedError, vendors(answers(422, body)))

    assert error.message == f"acme answered 422: {words}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \r\n",
        b"{}",
        b"[]",
        b"null",
        b'""',
        b'{"error": {"code": 7}}',
        b'{"sent": {"address": "Moi-Avenue-12"}}',
        b"<!DOCTYPE html><html><body>Forbidden</body></html>",
        b"<?xml version='1.0'?><error>Forbidden</error>",
        b"Forbidden<br>",
    ],
)
def test_only_the_status_is_told_when_there_are_no_words(bridge: Bridge, vendors: Vendors, body: bytes) -> None:
    assert bridge.fails(RefusedError, vendors(answers(400, body))).message == "acme answered 400"


@pytest.mark.parametrize(
    ("opening", "closing", "depth"),
    [(b"[", b"]", 100), (b"[", b"]", 30_000), (b'{"a":', b"}", 100), (b'{"a":', b"}", 10_000)],
)
def test_refused_when_its_json_is_nested_deeply(
    bridge: Bridge, vendors: Vendors, opening: bytes, closing: bytes, depth: int
) -> None:
    bridge.fails(RefusedError, vendors(answers(400, opening * depth + b"1" + closing * depth)))


@pytest.mark.parametrize("body", [b"x" * 5000, json.dumps({"message": "x" * 5000}).encode()], ids=["text", "JSON"])
def test_words_are_cut_when_they_are_too_many(bridge: Bridge, vendors: Vendors, body: bytes) -> None:
    error = bridge.fails(RefusedError, vendors(answers(400, body)))

    assert error.message == "acme answered 400: " + "x" * MAX_WORDS


def test_words_can_be_stored_when_the_vendor_cut_a_character_in_half(bridge: Bridge, vendors: Vendors) -> None:
    error = bridge.fails(RefusedError, vendors(answers(422, rb'{"message": "Too long: Shop \ud83d"}')))

    assert error.message.encode().startswith(b"acme answered 422: Too long: Shop ")


# ------------------------------------------------------------------ nothing is given away


@pytest.mark.parametrize(
    "body",
    [
        f"Bad header 'Bearer {KEY}'".encode(),
        f"Bad header 'Bearer {json.dumps(KEY)[1:-1]}', not JSON".encode(),
        json.dumps({"message": f"Bad header 'Bearer {KEY}'"}).encode(),
        json.dumps({"errors": [{"detail": f"Bearer {KEY}"}]}).encode(),
        f"{'x' * (MAX_WORDS - 5)}{KEY}".encode(),
    ],
    ids=["text", "escaped", "message", "deep", "at the cut"],
)
def test_secret_is_masked_when_the_vendor_repeats_it(bridge: Bridge, vendors: Vendors, body: bytes) -> None:
    error = bridge.fails(RefusedError, vendors(answers(400, body)))

    assert "***" in error.message
    assert "s3c" not in error.message + repr(error)


FAILURES: dict[str, Behaviour] = {
    "closed": closes,
    "silent": stays_silent,
    "cut": says(_head(201, b"Content-Length: 14") + b"{"),
    "no http": says(b"hello\r\n\r\n"),
    "two lengths": says(_head(201, b"Content-Length: 2", b"Content-Length: 3") + b"{}"),
    "too large": answers(201, b"x" * (MAX_ANSWER + 1)),
    "redirect": answers(302, b"", b"Location: /elsewhere"),
    "moved": answers(308, b"", b"Location: https://u:s3cret@acme.example/Moi-Avenue?name=Wanjiru"),
    "refused": answers(400, b"No"),
    "failed": answers(500, b"Oh"),
    "wrong status": answers(200),
}
TOLD_TO_NOBODY = ("Wanjiru", "s3cret", "Bearer", "Moi-Avenue")


@pytest.mark.parametrize("failure", FAILURES)
def test_error_shows_nothing_of_the_request_when_a_call_fails(bridge: Bridge, vendors: Vendors, failure: str) -> None:
    with pytest.raises(VendorError) as caught:
        bridge.call(vendors(FAILURES[failure]).url, seconds=SOON)

    shown = f"{caught.value} {caught.value!r} {caught.value.message}"
    assert not [secret for secret in TOLD_TO_NOBODY if secret in shown]


def test_error_shows_nothing_of_the_request_when_nothing_listens(bridge: Bridge) -> None:
    with refusing_port() as port, pytest.raises(VendorError) as caught:
        bridge.call(f"http://{HOST}:{port}/sites?{QUERY}")

    shown = f"{caught.value} {caught.value!r}"
    assert not [secret for secret in TOLD_TO_NOBODY if secret in shown]


def test_traceback_shows_nothing_of_the_request_when_nothing_listens(bridge: Bridge) -> None:
    with refusing_port() as port, pytest.raises(VendorError) as caught:
        bridge.call(f"http://{HOST}:{port}/sites?{QUERY}")

    told = "".join(traceback.format_exception(caught.value))
    assert not [secret for secret in TOLD_TO_NOBODY if secret in told]


def test_answer_shows_nothing_when_it_is_printed(bridge: Bridge, vendors: Vendors) -> None:
    answer = bridge.call(vendors(answers(201, f'"Wanjiru, Bearer {KEY}"'.encode(), b"X-Echo: Moi-Avenue-12")).url)

    assert repr(answer) == str(answer) == "Answer(vendor='acme', status=201)"


def test_log_shows_nothing_of_the_request_when_the_headers_are_malformed(
    bridge: Bridge, vendors: Vendors, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    bridge.call(vendors(says(_head(201, b"no colon") + b"{}")).url)

    assert not [secret for secret in TOLD_TO_NOBODY if secret in caplog.text]


# ------------------------------------------------------------------ nothing comes along


def test_cookie_is_not_sent_when_an_answer_set_one(bridge: Bridge, vendors: Vendors) -> None:
    cookies = (b"Set-Cookie: session=1; Path=/", b"Set-Cookie: other=2; Domain=127.0.0.1; Path=/")
    vendor = vendors(
        answers(201, b"{}", *cookies), answers(302, b"", b"Location: /", *cookies), answers(401, b"", *cookies), closes
    )

    for _ in range(3):
        with suppress(VendorError):
            bridge.call(vendor.url)
    with pytest.raises(MaybeDoneError):
        bridge.call(vendor.url)

    assert len(vendor.requests) == 4
    assert not [number for number in range(4) if "cookie" in vendor.headers(number)]


def test_key_is_sent_when_netrc_has_another(
    bridge: Bridge, vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".netrc", "_netrc"):
        (tmp_path / name).write_text(f"machine {HOST} login someone password else\n")
        (tmp_path / name).chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    vendor = vendors(answers(201))

    bridge.call(vendor.url)

    assert vendor.headers()["authorization"] == HEADERS["Authorization"]


def test_vendor_is_called_directly_when_the_machine_has_a_proxy(
    bridge: Bridge, vendors: Vendors, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor, proxy = vendors(answers(201)), vendors(answers(201))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://{HOST}:{proxy.port}")
        monkeypatch.setenv(name.upper(), f"http://{HOST}:{proxy.port}")

    bridge.call(vendor.url)

    assert (len(vendor.requests), proxy.connections) == (1, 0)


# ------------------------------------------------------------------ connections that rest


@pytest.fixture
def freeze(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that freezes this process for some seconds: only the wall clock moves on."""
    frozen = [0.0]
    clock = SimpleNamespace(monotonic=time.monotonic, time=lambda: time.time() + sum(frozen))
    monkeypatch.setattr("crm_bridge.transport.time", clock)
    return frozen.append


def test_connection_is_used_again_when_the_function_was_frozen_shortly(
    bridge: Bridge, vendors: Vendors, freeze: Callable[[float], None]
) -> None:
    vendor = vendors(answers(201))

    bridge.call(vendor.url)
    freeze(MAX_IDLE - 1)
    bridge.call(vendor.url)

    assert (len(vendor.requests), vendor.connections) == (2, 1)


@pytest.mark.parametrize("seconds", [MAX_IDLE + 1, 60, -60], ids=["just too long", "a minute", "clock set back"])
def test_connection_is_not_used_again_when_the_function_was_frozen_for_long(
    bridge: Bridge, vendors: Vendors, freeze: Callable[[float], None], seconds: float
) -> None:
    vendor = vendors(answers(201))

    bridge.call(vendor.url)
    freeze(seconds)
    bridge.call(vendor.url)

    assert (len(vendor.requests), vendor.connections) == (2, 2)


def test_no_dead_connection_is_used_for_a_post_when_the_function_was_frozen_for_a_minute(
    bridge: Bridge, vendors: Vendors, freeze: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vendor, or a NAT on the way, has forgotten the connection, and nothing has told this side."""
    vendor = vendors(says(_head(201, b"Content-Length: 2") + b"{}"), answers(201))
    bridge.call(vendor.url)
    time.sleep(0.1)
    monkeypatch.setattr(urllib3.connection.HTTPConnection, "is_connected", True)

    freeze(60)

    assert bridge.call(vendor.url).status == 201
    assert len(vendor.requests) == 2


def test_connection_is_not_used_again_when_only_another_host_was_called(
    bridge: Bridge, vendors: Vendors, freeze: Callable[[float], None]
) -> None:
    vendor, other = vendors(answers(201)), vendors(answers(201))

    bridge.call(vendor.url)
    freeze(MAX_IDLE - 1)
    bridge.call(other.url)
    freeze(MAX_IDLE - 1)
    bridge.call(vendor.url)

    assert (len(vendor.requests), vendor.connections) == (2, 2)


@pytest.mark.parametrize(
    "failure",
    [says(_head(201, b"Content-Length: 9") + b"{"), answers(201, b"x" * (4 * MAX_ANSWER))],
    ids=["cut", "too large"],
)
def test_connection_is_not_used_again_when_its_answer_was_not_read(
    bridge: Bridge, vendors: Vendors, failure: Behaviour
) -> None:
    vendor = vendors(failure, answers(201, b"[1]"))

    with pytest.raises(MaybeDoneError):
        bridge.call(vendor.url)

    assert bridge.call(vendor.url).json() == [1]
    assert vendor.connections == 2


def test_answer_when_the_vendor_closed_the_resting_connection(bridge: Bridge, vendors: Vendors) -> None:
    vendor = vendors(says(_head(201, b"Content-Length: 2") + b"{}"), answers(201))

    bridge.call(vendor.url)
    time.sleep(0.1)  # until the end of the connection is here
    bridge.call(vendor.url)

    assert (len(vendor.requests), vendor.connections) == (2, 2)


def test_answer_when_the_vendor_restarted(bridge: Bridge) -> None:
    server = Server("acme", Response("{}", 201))
    server.start()
    try:
        bridge.call(server.url)
        server.stop()
        with pytest.raises(NotDoneError):
            bridge.call(server.url)
        server.start()
        assert bridge.call(server.url).status == 201
    finally:
        server.stop()


def test_maybe_done_when_the_resting_connection_ends_as_the_request_leaves(
    bridge: Bridge, vendors: Vendors, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor = vendors(says(_head(201, b"Content-Length: 2") + b"{}"), answers(201))
    bridge.call(vendor.url)
    time.sleep(0.1)
    monkeypatch.setattr(urllib3.connection.HTTPConnection, "is_connected", True)  # the end came just after this look

    with pytest.raises(MaybeDoneError):
        bridge.call(vendor.url)
    assert len(vendor.requests) == 1

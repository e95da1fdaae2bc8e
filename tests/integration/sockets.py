"""A vendor that is a bare socket and behaves as no decent server would, and certificates of its own. No tests."""

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from requests.adapters import BaseAdapter

from local.server import HOST

DRIPS, PAUSE = 17, 0.2
"""A dripping vendor takes longer than a test waits in all, but never long enough between two bytes to be cut off."""
QUERY = "name=Wanjiru-Kamau"


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
    return says(head(status, b"Content-Length: %d" % len(body), *headers) + body, then_ends=False)


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


def head(status: int, *headers: bytes) -> bytes:
    return b"\r\n".join((b"HTTP/1.1 %d Whatever" % status, *headers, b"", b""))


class Vendors(ExitStack):
    def __call__(self, *behaviours: Behaviour, tls: ssl.SSLContext | None = None) -> Vendor:
        vendor = Vendor(*behaviours, tls=tls)
        self.callback(vendor.close)
        return vendor


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

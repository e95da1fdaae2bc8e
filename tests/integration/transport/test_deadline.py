"""A call ends at its deadline, and so do its connection and its thread, however the vendor goes on."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from crm_bridge.errors import MaybeDoneError, NotDoneError
from crm_bridge.outbound.transport import _idle
from local.server import HOST
from tests.integration.sockets import Behaviour, Connection, Vendors, answers, drips, head, stays_silent
from tests.integration.transport.conftest import SOON, Bridge, no_hang

CHUNKED = b"Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        pytest.param(head(201, CHUNKED), b"1\r\nx\r\n", id="chunks"),
        pytest.param(head(201, b"Content-Length: 1000"), b"x", id="body"),
        pytest.param(head(201, CHUNKED) + b"fff\r\n", b"x", id="inside a chunk"),
        pytest.param(head(201), b"x", id="body without length"),
        pytest.param(head(302, b"Location: /", b"Content-Length: 1000"), b"x", id="redirect"),
        pytest.param(b"HTTP/1.1 201 Created\r\nX-Slow: ", b"x", id="headers"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", id="100 Continue"),
    ],
)
def test_maybe_done_at_the_deadline_when_the_answer_drips(
    bridge: Bridge, vendors: Vendors, start: bytes, piece: bytes
) -> None:
    with no_hang():
        bridge.fails(MaybeDoneError, vendors(drips(start, piece)), seconds=SOON)


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
        drips_for_ever(head(201, b"Content-Length: 1000000000") + b"["),
        drips_for_ever(head(201) + b"["),
        drips_for_ever(b"HTTP/1.1 2"),
        drips_for_ever(head(201, CHUNKED) + b"3b9aca00\r\n"),
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
        monkeypatch.setattr("crm_bridge.outbound.public_addresses.is_public", lambda _: True)
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
    monkeypatch.setattr("crm_bridge.outbound.public_addresses.create_connection", connect)
    with pytest.raises(NotDoneError, match="TimeoutError"):
        bridge.call("https://vendor.example/", seconds=SOON)
    hold.set()
    _wait_until(lambda: _threads() == 0)
    assert tried == ["8.8.0.8"]

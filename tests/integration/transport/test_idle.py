"""Connections that were not used for a while: which are used again, and that none is that may be dead."""

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import urllib3.connection
from werkzeug.wrappers import Response

from crm_bridge.errors import MaybeDoneError, NotDoneError
from crm_bridge.outbound.response import VendorResponse, expect
from crm_bridge.outbound.transport import MAX_IDLE, MAX_RESPONSE, Deadline, Transport
from local.server import HOST, Server
from tests.integration.sockets import Behaviour, Vendors, answers, head, says

ENDS = says(head(201, b"Content-Length: 2") + b"{}")
"""A response, after which the vendor ends the connection."""


@pytest.fixture
def call() -> Iterator[Callable[[str], VendorResponse]]:
    """Creates something at an address, always by the same transport."""
    transport = Transport(on_this_machine=frozenset({HOST}))

    def call(url: str) -> VendorResponse:
        answer = transport.call("acme", "POST", url, deadline=Deadline(20), headers={}, body={})
        expect(answer, 201)
        return answer

    yield call
    transport._adapter.close()


type Call = Callable[[str], VendorResponse]


@pytest.fixture
def freeze(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that freezes this process for some seconds: only the wall clock moves on."""
    frozen = [0.0]
    clock = SimpleNamespace(monotonic=time.monotonic, time=lambda: time.time() + sum(frozen))
    monkeypatch.setattr("crm_bridge.outbound.transport.time", clock)
    return frozen.append


@pytest.mark.parametrize(
    ("seconds", "connections"),
    [(MAX_IDLE - 1, 1), (MAX_IDLE + 1, 2), (60, 2), (-60, 2)],
    ids=["shortly", "just too long", "a minute", "clock set back"],
)
def test_connection_is_used_again_only_when_the_function_was_frozen_shortly(
    call: Call, vendors: Vendors, freeze: Callable[[float], None], seconds: float, connections: int
) -> None:
    vendor = vendors(answers(201))
    call(vendor.url)
    freeze(seconds)
    call(vendor.url)
    assert (len(vendor.requests), vendor.connections) == (2, connections)


def test_no_dead_connection_is_used_for_a_post_when_the_function_was_frozen_for_a_minute(
    call: Call, vendors: Vendors, freeze: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vendor, or a NAT on the way, has forgotten the connection, and this side does not know it."""
    vendor = vendors(ENDS, answers(201))
    call(vendor.url)
    time.sleep(0.1)
    monkeypatch.setattr(urllib3.connection.HTTPConnection, "is_connected", True)
    freeze(60)
    assert call(vendor.url).status == 201
    assert len(vendor.requests) == 2


def test_connection_is_not_used_again_when_only_another_host_was_called(
    call: Call, vendors: Vendors, freeze: Callable[[float], None]
) -> None:
    vendor, other = vendors(answers(201)), vendors(answers(201))
    for one in (vendor, other, vendor):
        call(one.url)
        freeze(MAX_IDLE - 1)
    assert (len(vendor.requests), vendor.connections) == (2, 2)


@pytest.mark.parametrize(
    "failure",
    [says(head(201, b"Content-Length: 9") + b"{"), answers(201, b"x" * (4 * MAX_RESPONSE))],
    ids=["cut", "too large"],
)
def test_connection_is_not_used_again_when_its_answer_was_not_read(
    call: Call, vendors: Vendors, failure: Behaviour
) -> None:
    vendor = vendors(failure, answers(201, b"[1]"))
    with pytest.raises(MaybeDoneError):
        call(vendor.url)
    assert call(vendor.url).json() == [1]
    assert vendor.connections == 2


def test_answer_when_the_vendor_closed_the_resting_connection_or_restarted(call: Call, vendors: Vendors) -> None:
    vendor = vendors(ENDS, answers(201))
    call(vendor.url)
    time.sleep(0.1)  # until the end of the connection is here
    call(vendor.url)
    assert (len(vendor.requests), vendor.connections) == (2, 2)
    server = Server("acme", Response("{}", 201))
    server.start()
    try:
        call(server.url)
        server.stop()
        with pytest.raises(NotDoneError):
            call(server.url)
        server.start()
        assert call(server.url).status == 201
    finally:
        server.stop()


def test_maybe_done_when_the_resting_connection_ends_as_the_request_leaves(
    call: Call, vendors: Vendors, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor = vendors(ENDS, answers(201))
    call(vendor.url)
    time.sleep(0.1)
    monkeypatch.setattr(urllib3.connection.HTTPConnection, "is_connected", True)  # the end came just after this look
    with pytest.raises(MaybeDoneError):
        call(vendor.url)
    assert len(vendor.requests) == 1

"""What a call sends and makes of its answer, without a network: an adapter under the session plays the vendor."""

import io
import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import urllib3
from requests.adapters import BaseAdapter

from crm_bridge.errors import (
    MaybeDoneError,
    NotDoneError,
    VendorError,
)
from crm_bridge.outbound.breaker import FAILURES, Breaker
from crm_bridge.outbound.response import VendorResponse, expect
from crm_bridge.outbound.transport import (
    CONNECT_TIMEOUT,
    MAX_IDLE,
    MAX_RESPONSE,
    READ_TIMEOUT,
    SHORTEST_CALL,
    Deadline,
    Pace,
    Scope,
    Transport,
    _Body,
    _idle,
    _within,
)
from tests.unit.conftest import Clock

URL = "https://shop.example:8443/orders?name=Wanjiru"
HOST = "shop.example:8443"


class Wire(BaseAdapter):
    """Answers in the vendor's place, and keeps what it was sent. A request leaves when its body is read."""

    def __init__(self, status: int = 200, body: bytes = b"{}", headers: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.status, self.body, self.headers = status, body, dict(headers or {})
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None
        self.requests: list[requests.PreparedRequest] = []
        self.sent: list[bytes | None] = []
        self.options: list[dict[str, Any]] = []
        self.closed = 0
        self.raw = io.BytesIO()

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        self.requests.append(request)
        self.options.append(options)
        self.before()
        body: Any = request.body
        self.sent.append(None if body is None else body.read())
        self.after()
        response = requests.Response()
        response.status_code, response.url, response.request = self.status, str(request.url), request
        response.headers.update(self.headers)
        self.raw = io.BytesIO(self.body)
        response.raw = urllib3.HTTPResponse(self.raw, preload_content=False)
        return response

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def transport(wire: Wire, clock: Clock) -> Transport:
    transport = Transport(clock, clock.move)
    transport._public = wire
    return transport


def call(
    transport: Transport, url: str = URL, *, seconds: float = 20, vendor: str = "shop", **options: Any
) -> VendorResponse:
    options = {"headers": {"Authorization": "Bearer k"}, "body": {"number": 1}, **options}
    return transport.call(vendor, "POST", url, deadline=Deadline(seconds), **options)


# ---------------------------------------------------------------- what is sent


def test_sends_json_with_the_callers_headers_and_within_the_timeouts(transport: Transport, wire: Wire) -> None:
    answer = call(transport, body={"number": 1, "note": "Büro"})
    (request,), (options,) = wire.requests, wire.options
    assert (request.method, request.url, wire.sent) == ("POST", URL, [b'{"number": 1, "note": "B\\u00fcro"}'])
    assert request.headers["Authorization"] == "Bearer k"
    assert request.headers["Accept"] == request.headers["Content-Type"] == "application/json"
    assert request.headers["User-Agent"] == "crm-bridge"
    assert request.headers["Accept-Encoding"] == "gzip"
    assert request.headers["Content-Length"] == str(len(wire.sent[0] or b""))
    assert (options["timeout"], options["stream"], options.get("verify", True)) == (
        (CONNECT_TIMEOUT, READ_TIMEOUT),
        True,
        True,
    )
    assert (answer.vendor, answer.status, answer.body) == ("shop", 200, b"{}")


@pytest.mark.parametrize(
    ("options", "sent", "kind"),
    [
        ({"body": b'{"a":1}'}, b'{"a":1}', "application/json"),
        ({"body": []}, b"[]", "application/json"),
        ({"body": None, "form": {"a": "b c", "d": "&"}}, b"a=b+c&d=%26", "application/x-www-form-urlencoded"),
        ({"body": None, "form": {}}, None, "application/x-www-form-urlencoded"),
        ({"body": None}, None, None),
    ],
)
def test_sends_what_it_is_given_in_its_own_form(
    transport: Transport, wire: Wire, options: dict[str, Any], sent: bytes | None, kind: str | None
) -> None:
    call(transport, **options)
    assert (wire.sent, wire.requests[0].headers.get("Content-Type")) == ([sent], kind)


def test_sends_nothing_that_json_does_not_know(transport: Transport, wire: Wire) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        call(transport, body={"number": float("nan")})
    assert wire.requests == []


def test_a_body_is_read_in_the_pieces_that_are_asked_for() -> None:
    body = _Body(b"abcdef")
    assert (body.read(2), body.read(), body.read()) == (b"ab", b"cdef", b"")


# ---------------------------------------------------------------- the deadline


@pytest.mark.parametrize("seconds", [SHORTEST_CALL, SHORTEST_CALL + 0.001])
def test_is_begun_when_just_enough_time_is_left(transport: Transport, wire: Wire, clock: Clock, seconds: float) -> None:
    transport.call("shop", "GET", URL, deadline=Deadline(seconds, clock), headers={})
    assert len(wire.requests) == 1


def test_is_not_begun_when_too_little_time_is_left(transport: Transport, wire: Wire, clock: Clock) -> None:
    with pytest.raises(NotDoneError, match="no time was left to call shop") as raised:
        transport.call("shop", "GET", URL, deadline=Deadline(SHORTEST_CALL - 0.001, clock), headers={})
    assert (wire.requests, raised.value.vendor) == ([], "shop")


def test_the_wait_for_its_turn_counts(transport: Transport, wire: Wire, clock: Clock) -> None:
    pace = Pace("shop acme", calls=1, seconds=60)
    for _ in range(2):
        transport.call("shop", "GET", URL, deadline=Deadline(100, clock), headers={}, pace=pace)
    assert (len(wire.requests), clock.now) == (2, 1_795_000_060)
    with pytest.raises(NotDoneError, match="shop takes no more calls"):
        transport.call("shop", "GET", URL, deadline=Deadline(60, clock), headers={}, pace=pace)
    assert len(wire.requests) == 2


def test_what_has_not_left_at_the_deadline_never_leaves(transport: Transport, wire: Wire) -> None:
    """As when looking up the vendor's name takes for ever."""
    held = threading.Event()
    ended = threading.Event()

    def hold() -> None:
        held.wait(30)

    wire.before = hold
    read = wire.send

    def send(*args: Any, **options: Any) -> Any:
        try:
            return read(*args, **options)
        finally:
            ended.set()

    wire.send = send  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crm_bridge.outbound.transport.SHORTEST_CALL", 0)
        with pytest.raises(NotDoneError, match=r"could not be reached \(TimeoutError\)"):
            call(transport, seconds=0.05)
    held.set()
    assert ended.wait(30)
    assert wire.sent == []


def test_a_deadline_counts_down(clock: Clock) -> None:
    deadline = Deadline(21, clock)
    clock.move(20)
    assert deadline.remaining() == 1
    clock.move(2)
    assert deadline.remaining() == -1


def test_a_call_does_not_keep_the_function_from_ending(transport: Transport, wire: Wire) -> None:
    threads: list[threading.Thread] = []
    wire.after = lambda: threads.append(threading.current_thread())
    call(transport)
    assert threads[0].daemon


def test_a_thread_that_is_through_makes_the_next_call_whatever_became_of_its_own(
    transport: Transport, wire: Wire
) -> None:
    threads: list[threading.Thread] = []
    wire.after = lambda: threads.append(threading.current_thread())
    for failure in (None, requests.ReadTimeout(), None):
        if failure:
            wire.before = lost(failure)
            with pytest.raises(NotDoneError):
                call(transport)
            wire.before = lambda: None
        else:
            call(transport)
    assert threads[0] is threads[1] is not threading.current_thread()


def test_nothing_of_a_call_stays_with_the_thread_that_made_it() -> None:
    class Thing:
        """An answer, which holds a customer's data."""

    answer = weakref.ref(_within(10, Thing))
    for _ in range(1000):
        if answer() is None:
            return
        time.sleep(0.01)
    pytest.fail("it is still there")


def test_a_thread_that_hangs_is_left_alone_until_it_is_through(transport: Transport, wire: Wire) -> None:
    threads: list[threading.Thread] = []
    held = threading.Event()

    def hang() -> None:
        threads.append(threading.current_thread())
        held.wait(30)

    wire.before = hang
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crm_bridge.outbound.transport.SHORTEST_CALL", 0)
        with pytest.raises(NotDoneError):
            call(transport, seconds=0.05)
    wire.before = lambda: threads.append(threading.current_thread())
    call(transport)
    assert threads[0] is not threads[1]
    idle = len(_idle)
    held.set()
    for _ in range(3000):
        if len(_idle) > idle:
            return
        time.sleep(0.01)
    pytest.fail("the thread was lost")


# ---------------------------------------------------------------- what may have happened


def lost(error: Exception) -> Callable[[], None]:
    def lose() -> None:
        raise error

    return lose


LOST = [
    requests.ConnectionError("https://shop.example/?name=Wanjiru"),
    requests.ReadTimeout(),
    urllib3.exceptions.ProtocolError("Wanjiru"),
    TimeoutError(),
]


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
def test_not_done_when_it_failed_before_it_left(transport: Transport, wire: Wire, error: Exception) -> None:
    wire.before = lost(error)
    with pytest.raises(NotDoneError) as raised:
        call(transport)
    assert (raised.value.message, raised.value.vendor) == (
        f"shop could not be reached ({type(error).__name__})",
        "shop",
    )


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
def test_maybe_done_when_it_failed_after_it_left(transport: Transport, wire: Wire, error: Exception) -> None:
    wire.after = lost(error)
    with pytest.raises(MaybeDoneError) as raised:
        call(transport)
    assert (raised.value.message, raised.value.vendor) == (
        f"the response of shop was lost ({type(error).__name__})",
        "shop",
    )


def test_maybe_done_when_it_has_no_body_that_would_tell(transport: Transport, wire: Wire) -> None:
    wire.before = lost(requests.ConnectionError())
    with pytest.raises(MaybeDoneError):
        call(transport, body=None)


def test_a_defect_of_the_bridge_is_not_taken_for_a_failure_of_the_vendor(transport: Transport, wire: Wire) -> None:
    wire.before = lost(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        call(transport)


# ---------------------------------------------------------------- a vendor that is down


def fails(transport: Transport, url: str = URL) -> str:
    with pytest.raises(VendorError) as raised:
        expect(call(transport, url), 200)
    return raised.value.message


@pytest.mark.parametrize("status", [500, 503])
def test_a_vendor_that_answers_with_failures_is_left_alone(transport: Transport, wire: Wire, status: int) -> None:
    wire.status = status
    for _ in range(FAILURES):
        assert not transport.is_down("shop", "")
        fails(transport)
    assert transport.is_down("shop", "")
    assert transport.retry_at("shop", "") > transport.retry_at("another", "") == 0
    assert not transport.is_down("another", "")
    assert "is down" in fails(transport)
    assert len(wire.requests) == FAILURES


def test_a_vendor_that_cannot_be_reached_is_left_alone_at_that_host_only(transport: Transport, wire: Wire) -> None:
    wire.before = lost(requests.ConnectionError())
    for _ in range(FAILURES):
        fails(transport)
    assert "shop is down" in fails(transport)
    assert transport.is_down("shop", "")
    wire.before = lambda: None
    assert call(transport, "https://shop.example:9443/").status == 200


@pytest.mark.parametrize("status", [200, 404, 429, 499])
def test_a_vendor_that_answers_is_not_down(transport: Transport, wire: Wire, status: int) -> None:
    for _ in range(FAILURES - 1):
        wire.status = 500
        call(transport)
    wire.status = status
    call(transport)
    wire.status = 500
    for _ in range(FAILURES - 1):
        call(transport)
    assert not transport.is_down("shop", "")


def test_what_another_has_seen_counts(clock: Clock) -> None:
    breaker = Breaker(clock)
    for _ in range(FAILURES):
        breaker.failed("shop", HOST, "")
    transport = Transport(clock, breaker=breaker)
    assert transport.is_down("shop", "")
    assert fails(transport) == "shop is down, so it was not tried"


def test_what_fails_for_one_tenant_or_is_used_up_by_it_is_not_anothers(transport: Transport, wire: Wire) -> None:
    acme, umbrella = transport.of(Scope("acme", "1")), transport.of(Scope("umbrella", "1"))
    wire.status = 500
    for _ in range(FAILURES):
        call(acme)
    assert "is down" in fails(acme)
    assert acme.is_down("shop", "acme")
    wire.status = 200
    assert call(umbrella).status == 200
    assert "is down" in fails(acme)


# ---------------------------------------------------------------- how much is read


@pytest.mark.parametrize("size", [0, MAX_RESPONSE - 1, MAX_RESPONSE])
def test_an_answer_is_read_whole(transport: Transport, wire: Wire, size: int) -> None:
    wire.body = bytes(size)
    assert call(transport).body == bytes(size)


@pytest.mark.parametrize(("size", "limit"), [(MAX_RESPONSE + 1, MAX_RESPONSE), (200_001, 200_000)])
def test_maybe_done_when_the_answer_is_too_large(transport: Transport, wire: Wire, size: int, limit: int) -> None:
    wire.body = bytes(size)
    with pytest.raises(MaybeDoneError):
        call(transport, max_response=limit)
    wire.body = bytes(limit)
    assert len(call(transport, max_response=limit).body) == limit


def test_an_answer_that_is_not_wanted_is_not_read(transport: Transport, wire: Wire) -> None:
    wire.body = bytes(1000)
    assert call(transport, max_response=None).body == b""
    assert wire.raw.closed or wire.raw.tell() == 0


# ---------------------------------------------------------------- connections


def test_connections_are_dropped_when_one_rested_for_too_long(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    frozen = SimpleNamespace(monotonic=lambda: 0.0, time=clock)
    monkeypatch.setattr("crm_bridge.outbound.transport.time", frozen)
    transport, wire, public = Transport(clock), Wire(), Wire()
    transport._adapter = wire
    transport._public = public
    closed = []
    for url, pause in (
        (URL, 0),
        (URL, MAX_IDLE),
        (URL, MAX_IDLE + 0.1),
        (URL, 1),
        ("https://a.example/", 100),
        (URL, 1),
        (URL, -3600),
    ):
        clock.move(pause)
        transport.call("shop", "GET", url, deadline=Deadline(20, clock), headers={})
        closed.append((wire.closed, public.closed))
    # The other host was not called before. The last call follows a clock that was set back.
    assert closed == [(0, 0), (0, 0), (1, 1), (1, 1), (1, 1), (2, 2), (3, 3)]


def test_every_call_is_to_a_public_address_but_to_hosts_on_this_machine(clock: Clock) -> None:
    transport, wire, public = Transport(clock), Wire(), Wire()
    transport._adapter = wire
    transport._public = public
    call(transport)
    assert (len(wire.requests), len(public.requests)) == (0, 1)
    transport.on_this_machine = frozenset({HOST})
    call(transport)
    call(transport, "https://shop.example:1/")
    assert (len(wire.requests), len(public.requests)) == (1, 2)
    transport.on_this_machine = frozenset({"shop.example"})
    call(transport, "https://shop.example:1/")
    call(transport, "https://shop.example.test/")
    assert (len(wire.requests), len(public.requests)) == (2, 3)


def test_urllib3_logs_no_url_from_the_first_transport_on() -> None:
    logger = logging.getLogger("urllib3")
    logger.setLevel(logging.NOTSET)
    Transport()
    assert [logger.isEnabledFor(level) for level in (logging.ERROR, logging.CRITICAL)] == [False, True]
    assert logging.getLogger("another").isEnabledFor(logging.ERROR)

"""What the transport measures and notes of a call."""

import json

import pytest
import requests

from crm_bridge.errors import Event, NotDoneError
from crm_bridge.outbound.calls import Calls
from crm_bridge.outbound.transport import Deadline, Scope, Transport
from crm_bridge.storage.exchanges import Exchange
from tests.unit.conftest import Clock
from tests.unit.test_transport import URL, Wire

SECRET = "s3cret-of-acme"
NOTED = {"path": "/orders", "shows_bodies": True, "secrets": (SECRET,)}


@pytest.fixture
def wire(clock: Clock) -> Wire:
    wire = Wire(body=b'{"id": 7}')
    wire.before = lambda: clock.move(1.23456)
    return wire


@pytest.fixture
def calls(clock: Clock) -> Calls:
    return Calls(clock)


@pytest.fixture
def transport(wire: Wire, calls: Calls, clock: Clock) -> Transport:
    transport = Transport(clock, clock.move)
    transport._public = wire
    return transport.of(Scope("acme", "1"), calls)


def call(transport: Transport, method: str = "POST", **options: object) -> None:
    body = None if method == "GET" else {"number": 1, "key": SECRET}
    given = {**NOTED, "body": body, **options}
    transport.call("shop", method, URL, deadline=Deadline(20), headers={}, **given)  # type: ignore[arg-type]


def noted(calls: Calls) -> Exchange:
    exchange = calls.exchange(1, Event.DONE, bodies=True)
    assert exchange
    return exchange


def test_notes_what_was_called_and_how_long_it_took(transport: Transport, calls: Calls, clock: Clock) -> None:
    begun = int(clock.now * 1000)
    call(transport)
    ((at, *others),) = noted(calls).calls
    assert (round(at - begun, -1), others) == (0, ["POST", "/orders", 200, None, 1235])


def test_measures_how_long_it_took(transport: Transport, capsys: pytest.CaptureFixture[str]) -> None:
    call(transport)
    line = json.loads(capsys.readouterr().out)
    assert (line["VendorLatency"], line["vendor"]) == ([1234.6], "shop")
    (kind,) = line["_aws"]["CloudWatchMetrics"][0]["Metrics"]
    assert kind == {"Name": "VendorLatency", "Unit": "Milliseconds"}


def test_notes_both_bodies_without_secrets(transport: Transport, calls: Calls) -> None:
    call(transport)
    assert (noted(calls).request, noted(calls).response) == ('{"number": 1, "key": "***"}', '{"id": 7}')


@pytest.mark.parametrize("options", [{"shows_bodies": False}, {"path": ""}])
def test_notes_no_body_and_no_path_that_may_not_be_shown(
    transport: Transport, calls: Calls, options: dict[str, object]
) -> None:
    given = {name: value for name, value in {**NOTED, **options}.items() if value}
    transport.call(
        "shop",
        "POST",
        URL,
        deadline=Deadline(20),
        headers={},
        body={"number": 1},
        **given,  # type: ignore[arg-type]
    )
    exchange = noted(calls)
    assert [one.path for one in exchange.calls] == [given.get("path", "")]
    assert (exchange.request is None, exchange.response is None) == 2 * ("shows_bodies" not in given,)


@pytest.mark.parametrize(
    ("method", "status", "is_shown"),
    [("GET", 200, False), ("GET", 399, False), ("GET", 400, True), ("POST", 200, True), ("POST", 400, True)],
)
def test_what_a_look_up_found_is_not_noted(
    transport: Transport, wire: Wire, calls: Calls, method: str, status: int, *, is_shown: bool
) -> None:
    wire.status = status
    call(transport, method)
    assert (noted(calls).response is not None) is is_shown


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_notes_the_kind_of_error_when_no_response_came(
    transport: Transport, wire: Wire, calls: Calls, method: str
) -> None:
    def fail() -> None:
        raise requests.ConnectTimeout

    wire.before = fail
    with pytest.raises(Exception, match="ConnectTimeout"):
        call(transport, method)
    (seen,) = noted(calls).calls
    assert (seen.status, seen.error, noted(calls).response) == (None, "ConnectTimeout", None)
    assert (noted(calls).request is None) is (method == "GET")


def test_notes_an_error_of_the_bridge_itself(transport: Transport, wire: Wire, calls: Calls) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    wire.before = fail
    with pytest.raises(ZeroDivisionError):
        call(transport)
    (seen,) = noted(calls).calls
    assert (seen.status, seen.error) == (None, "Error")


def test_notes_nothing_of_a_call_that_was_not_begun(transport: Transport, calls: Calls) -> None:
    with pytest.raises(NotDoneError):
        transport.call("shop", "POST", URL, deadline=Deadline(0), headers={})
    assert calls.exchange(1, Event.NOT_DONE, bodies=True) is None


def test_nothing_is_noted_where_nobody_asks(wire: Wire, clock: Clock) -> None:
    transport = Transport(clock, clock.move)
    transport._public = wire
    call(transport)
    assert len(wire.requests) == 1

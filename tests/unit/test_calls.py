"""The notes about the calls of an attempt, and what of them may be stored."""

from typing import Any

import pytest

from crm_bridge.errors import Event
from crm_bridge.outbound.calls import MOST_CALLS, Calls
from crm_bridge.outbound.response import LARGEST_BODY, MASKED_BODY, VendorResponse, shown_body
from crm_bridge.storage.exchanges import MOST_EXCHANGES, Call, Exchanges
from crm_bridge.storage.operation import State
from tests.unit.operations.conftest import operation

SECRET = "s3cret-of-acme"


def response(body: bytes) -> VendorResponse:
    return VendorResponse("shop", 500, {"Content-Type": "application/json"}, body, (SECRET,))


def noted(*paths: str, request: bytes | None = None, body: bytes | None = None) -> Calls:
    calls = Calls(lambda: 1000.5)
    for path in paths:
        answer = None if body is None else response(body)
        calls.add("POST", path, 500, 250, secrets=(SECRET,), request=request, response=answer)
    return calls


def test_a_call_shows_when_it_began_and_no_query() -> None:
    exchange = noted("/orders?token=abc").exchange(1001, Event.MAYBE_DONE, bodies=True)
    assert exchange
    assert exchange.calls == (Call(1_000_250, "POST", "/orders", 500, None, 250),)
    assert (exchange.request, exchange.response) == (None, None)


def test_the_kind_of_error_stands_for_a_status_that_never_came() -> None:
    calls = Calls(lambda: 1000)
    calls.add("GET", "", "ReadTimeout", 0, secrets=(), request=None, response=None)
    exchange = calls.exchange(1000, Event.NOT_DONE, bodies=True)
    assert exchange
    assert exchange.calls == (Call(1_000_000, "GET", "", None, "ReadTimeout", 0),)


def test_nothing_is_stored_when_nobody_was_called() -> None:
    assert Calls(lambda: 1000).exchange(1000, Event.NOT_DONE, bodies=True) is None


def test_only_the_latest_calls_are_stored_and_the_others_counted() -> None:
    paths = [f"/{number}" for number in range(MOST_CALLS + 3)]
    exchange = noted(*paths).exchange(1001, Event.DONE, bodies=False)
    assert exchange
    assert [call.path for call in exchange.calls] == paths[3:]
    assert exchange.left_out == 3


def test_bodies_are_masked_and_only_stored_when_they_are_asked_for() -> None:
    calls = noted("/a", request=f'{{"key": "{SECRET}"}}'.encode(), body=f"<p>{SECRET}</p>\x1b[2J".encode())
    exchange = calls.exchange(1001, Event.MAYBE_DONE, bodies=True)
    assert exchange
    assert (exchange.request, exchange.response) == ('{"key": "***"}', "<p>***</p>[2J")
    without = calls.exchange(1001, Event.DONE, bodies=False)
    assert without
    assert (without.request, without.response) == (None, None)
    assert "key" not in repr(exchange)
    assert "<p>" not in repr(exchange)


def test_bodies_that_cannot_be_read_are_stored_as_far_as_they_can() -> None:
    exchange = noted("/a", request=b"\xff{", body=b'\xff"').exchange(1001, Event.MAYBE_DONE, bodies=True)
    assert exchange
    assert (exchange.request, exchange.response) == ("\ufffd{", '\ufffd"')


@pytest.mark.parametrize("letter", ["\U0001f600", '"', "\\", "\n", "\ud83d"], ids=ascii)
def test_the_attempts_of_an_operation_fit_into_an_item_of_the_table(letter: str) -> None:
    body = (letter * MASKED_BODY).encode(errors="surrogatepass")
    paths = ["/services/restapi/json/Contact/update"] * MOST_CALLS
    exchange = noted(*paths, request=body, body=body).exchange(1001, Event.MAYBE_DONE, bodies=True)
    assert exchange
    client: Any = None
    put: Any = Exchanges(client, "table").put(operation(state=State.WAITING, exchanges=1), exchange, 2000)
    stored: str = put["Update"]["ExpressionAttributeValues"][":exchange"]["S"]
    assert len(stored.encode()) * MOST_EXCHANGES < 200_000


@pytest.mark.parametrize("secret", [SECRET, "x" * 40, "k" * 3000])
def test_no_part_of_a_secret_is_left_at_any_cut(secret: str) -> None:
    for around in (LARGEST_BODY, MASKED_BODY):
        for before in range(around - len(secret) - 2, around + 2, max(1, len(secret) // 7)):
            shown = shown_body("-" * max(0, before) + secret + "-" * MASKED_BODY, (secret,))
            assert secret[:6] not in shown
            assert len(shown) <= LARGEST_BODY


def test_no_part_of_a_secret_is_left_when_a_response_is_nothing_else() -> None:
    secret = "k" * 1500 + "!"
    assert set(shown_body(secret * 100, (secret,))) <= {"*"}

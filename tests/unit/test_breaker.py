"""A vendor that fails again and again is left alone, but for one call at a time that finds out whether that is over."""

import pytest

from crm_bridge.breaker import FAILURES, LONGEST_PAUSE, SHORTEST_PAUSE, WINDOW, Breaker
from crm_bridge.errors import NotDoneError
from tests.unit.conftest import Clock

HOST = "api.shop.example"


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock)


def admitted(breaker: Breaker, host: str = HOST) -> bool:
    try:
        breaker.admit("shop", host)
    except NotDoneError:
        return False
    return True


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        assert admitted(breaker)
        breaker.failed("shop", HOST)


def test_opens_after_so_many_failures_in_a_row_and_tells_once(
    breaker: Breaker, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(breaker, FAILURES)
    assert not admitted(breaker)
    assert breaker.is_down("shop")
    assert admitted(breaker, "another.example")
    assert not breaker.is_down("another")
    breaker.failed("shop", HOST)  # a call that was begun before
    assert capsys.readouterr().out.count('"VendorDown":[1.0]}') == 1


def test_stays_closed_when_a_call_works_in_between(breaker: Breaker) -> None:
    fail(breaker, FAILURES - 1)
    assert not breaker.is_down("shop")
    breaker.worked(HOST)
    fail(breaker, FAILURES - 1)
    assert admitted(breaker)


def test_stays_closed_when_the_failures_are_far_apart(breaker: Breaker, clock: Clock) -> None:
    for _ in range(3 * FAILURES):
        fail(breaker, 1)
        clock.move(WINDOW + 1)
    assert admitted(breaker)


def test_says_when_to_come_again(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    clock.move(10)
    with pytest.raises(NotDoneError) as raised:
        breaker.admit("shop", HOST)
    assert raised.value.retry_after == SHORTEST_PAUSE - 10


def test_lets_one_through_at_a_time_after_ever_longer_pauses(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    pauses = []
    for _ in range(6):
        began = clock.now
        while not admitted(breaker):
            clock.move(1)
        pauses.append(clock.now - began)
        assert not admitted(breaker)  # while that one is on its way
        breaker.failed("shop", HOST)
    assert pauses == [SHORTEST_PAUSE, 60, 120, 240, LONGEST_PAUSE, LONGEST_PAUSE]


def test_lets_everybody_through_once_a_call_worked(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    clock.move(SHORTEST_PAUSE)
    assert admitted(breaker)
    breaker.worked(HOST)
    assert not breaker.is_down("shop")
    assert [admitted(breaker) for _ in range(3)] == [True] * 3
    fail(breaker, FAILURES - 1)
    assert admitted(breaker)


def test_lets_another_through_when_the_one_that_finds_out_never_comes_back(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    clock.move(SHORTEST_PAUSE)
    assert admitted(breaker)
    clock.move(LONGEST_PAUSE)
    assert admitted(breaker)


def test_tells_until_when_calls_are_held_back(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, FAILURES - 1)
    assert breaker.held_until("shop") == 0
    fail(breaker, 1)
    assert breaker.held_until("shop") == clock() + SHORTEST_PAUSE
    assert breaker.held_until("another") == 0
    clock.move(SHORTEST_PAUSE)
    assert admitted(breaker)
    assert breaker.held_until("shop") == clock() + LONGEST_PAUSE
    breaker.worked(HOST)
    assert breaker.held_until("shop") == 0

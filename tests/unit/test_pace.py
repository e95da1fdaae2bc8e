"""The pace: no more calls than agreed in any stretch of time, and none that would begin too late for its deadline."""

import random

import pytest

from crm_bridge.errors import NotDoneError
from crm_bridge.outbound.transport import SHORTEST_CALL, Deadline, Pace, Transport
from tests.unit.conftest import Clock

THREE_A_MINUTE = Pace("revio acme", calls=3, seconds=60)
PLENTY = 1e9
"""Seconds of a deadline that is never over."""


class Calls:
    """Calls one after the other. Sleeping moves the clock, and nothing else does."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.slept: list[float] = []
        self.begun: list[float] = []
        self.transport = Transport(clock, self._sleep)

    def begin(self, pace: Pace = THREE_A_MINUTE, *, within: float = PLENTY) -> None:
        self.transport._wait_for(pace, "revio", Deadline(within, self.clock))
        self.begun.append(self.clock.now)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.move(seconds)


@pytest.fixture
def calls(clock: Clock) -> Calls:
    return Calls(clock)


def test_nothing_waits_as_long_as_there_are_calls_left(calls: Calls) -> None:
    for _ in range(3):
        calls.begin()
    assert calls.slept == []


@pytest.mark.parametrize(("passed", "wait"), [(0, 60), (10, 50), (59.5, 0.5), (60, 0), (1000, 0)])
def test_the_next_call_waits_until_the_first_is_long_enough_ago(calls: Calls, passed: float, wait: float) -> None:
    for _ in range(3):
        calls.begin()
    calls.clock.move(passed)
    calls.begin()
    assert calls.slept == pytest.approx([wait] if wait else [])


def test_every_call_waits_for_the_one_so_many_before_it(calls: Calls) -> None:
    started = calls.clock.now
    for pause in (0, 5, 10, 0, 0, 0):
        calls.clock.move(pause)
        calls.begin()
    assert [at - started for at in calls.begun] == pytest.approx([0, 5, 15, 60, 65, 75])


@pytest.mark.parametrize(("number", "seconds"), [(1, 1.0), (2, 1.0), (7, 3.0), (500, 60.0)])
def test_no_stretch_of_time_has_more_calls_than_agreed(calls: Calls, number: int, seconds: float) -> None:
    pace, pauses = Pace("revio acme", number, seconds), random.Random(7)
    for _ in range(3 * number):
        calls.clock.move(pauses.uniform(0, seconds / number))
        calls.begin(pace)
    stretches = zip(calls.begun, calls.begun[number:], strict=False)
    assert min(last - first for first, last in stretches) >= seconds - 1e-3
    # And not fewer either: whoever waits begins as soon as may be.
    assert calls.begun[-1] - calls.begun[0] < 3 * (seconds + seconds / number)


def test_another_account_does_not_wait(calls: Calls) -> None:
    for _ in range(3):
        calls.begin()
    calls.begin(Pace("revio umbrella", calls=3, seconds=60))
    assert calls.slept == []


def test_the_same_pace_is_one_whoever_made_it(calls: Calls) -> None:
    for _ in range(4):
        calls.begin(Pace("revio acme", calls=3, seconds=60))
    assert calls.slept == [60]


def test_every_transport_counts_for_itself(clock: Clock) -> None:
    """One account may be called by many execution environments, so a vendor's own limit is what counts in the end."""
    for calls in (Calls(clock), Calls(clock)):
        for _ in range(3):
            calls.begin()
        assert calls.slept == []


# ---------------------------------------------------------------- the deadline


@pytest.mark.parametrize("spare", [0, 0.001, 30])
def test_waits_when_enough_is_left_for_the_call_after_it(calls: Calls, spare: float) -> None:
    for _ in range(3):
        calls.begin()
    calls.begin(within=60 + SHORTEST_CALL + spare)
    assert calls.slept == [60]


@pytest.mark.parametrize("within", [60 + SHORTEST_CALL - 0.001, 60, SHORTEST_CALL, 1, 0, -1])
def test_is_not_done_at_once_when_its_turn_comes_too_late(calls: Calls, within: float) -> None:
    for _ in range(3):
        calls.begin()
    calls.clock.move(0)
    with pytest.raises(NotDoneError) as raised:
        calls.begin(within=within)
    assert calls.slept == []
    assert raised.value.retry_after == 60
    assert raised.value.vendor == "revio"


def test_a_call_that_was_not_begun_takes_no_turn(calls: Calls) -> None:
    for _ in range(3):
        calls.begin()
    for _ in range(10):
        with pytest.raises(NotDoneError):
            calls.begin(within=20)
    calls.begin()
    assert calls.slept == [60]


@pytest.mark.timeout(20)
def test_calls_that_come_while_one_sleeps_get_the_turns_after_it(clock: Clock) -> None:
    """They are told their turns at once, so that each can see whether it comes in time."""
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) < 3:
            transport._wait_for(pace, "revio", Deadline(PLENTY, clock))

    transport, pace = Transport(clock, sleep), Pace("revio acme", calls=1, seconds=10)
    for _ in range(2):
        transport._wait_for(pace, "revio", Deadline(PLENTY, clock))
    assert waits == [10, 20, 30]
    with pytest.raises(NotDoneError) as raised:
        transport._wait_for(pace, "revio", Deadline(40, clock))
    assert raised.value.retry_after == 40

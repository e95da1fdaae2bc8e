"""An operation that waits for another one, and is woken by its end."""

import pytest

from crm_bridge.engine import POLICY
from crm_bridge.errors import NotDoneError, RefusedError, StorageError
from crm_bridge.operations import State, operation_id
from tests.unit.engine.conftest import Bench, failing, hit, park, raising, waits


@pytest.mark.parametrize("end", ["done", "found", "refused", "adopted", "abandoned"])
def test_what_waits_is_due_as_soon_as_the_other_one_has_ended(unknown: Bench, end: str) -> None:
    waiting = waits(unknown)
    assert (waiting.state, waiting.due_at) == (State.WAITING, int(unknown.clock.now) + POLICY.retry_delays[0])
    assert unknown.stored().waiters == {waiting.operation_id}
    unknown.clock.move(5)
    match end:
        case "done":
            unknown.clock.move(unknown.shop.search_lag)
            waiting = waits(unknown, "much later")
            unknown.redeliver()
        case "found":
            unknown.shop.hits = [hit(101, unknown.clock)]
            unknown.redeliver()
        case "refused":
            unknown.engine.resend(park(unknown), by="ops")
            unknown.shop.answers = [failing(RefusedError)]
            unknown.redeliver()
        case "adopted":
            unknown.adopt(park(unknown), "101", by="ops")
        case "abandoned":
            unknown.engine.abandon(park(unknown), by="ops")
    assert unknown.stored().state in (State.SUCCEEDED, State.REJECTED)
    assert unknown.stored(waiting.natural_key) == waiting.model_copy(update={"due_at": int(unknown.clock.now)})


def test_what_waits_is_woken_when_its_note_was_left_while_the_other_one_was_being_sent(bench: Bench) -> None:
    def wait() -> None:
        bench.shop.during = lambda: None
        waits(bench)

    bench.shop.during = wait
    bench.run()
    assert bench.stored("later").due_at == int(bench.clock.now)
    assert bench.linked() == ["101"]


def test_is_due_at_once_when_the_other_one_ended_before_the_note_was_left(bench: Bench) -> None:
    bench.run()
    assert (waits(bench).state, waits(bench).due_at) == (State.WAITING, int(bench.clock.now))
    assert bench.stored().waiters == frozenset()


@pytest.mark.parametrize("missing", ["rejected", "gone"])
def test_waits_for_its_own_next_try_when_nobody_will_wake_it(bench: Bench, missing: str) -> None:
    if missing == "rejected":
        bench.shop.answers = [failing(RefusedError)]
        bench.run()
    assert waits(bench).due_at == int(bench.clock.now) + POLICY.retry_delays[0]


def test_more_than_enough_wait_for_their_own_next_try(unknown: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crm_bridge.operations.MOST_WAITERS", 2)
    for number in ("a", "b", "c"):
        waits(unknown, number)
    unknown.clock.move(5)
    unknown.adopt(park(unknown), "101", by="ops")
    ahead = [(unknown.stored(number).due_at or 0) - int(unknown.clock.now) for number in ("a", "b", "c")]
    assert ahead == [0, 0, POLICY.retry_delays[0] - 5]


def test_the_end_of_the_other_one_stands_when_nobody_can_be_woken(
    unknown: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = waits(unknown)
    monkeypatch.setattr(unknown.tables.operations, "wake", raising(StorageError("throttled")))
    unknown.adopt(park(unknown), "101", by="ops")
    assert unknown.stored().state is State.SUCCEEDED
    assert unknown.stored("later") == waiting


def test_what_waits_twice_is_noted_once(unknown: Bench) -> None:
    waits(unknown)
    unknown.wait_until_due("later")
    unknown.flow.waits_for = operation_id("acme", "orders", "1")
    unknown.redeliver("later")
    unknown.flow.waits_for = None
    assert unknown.stored().waiters == {unknown.stored("later").operation_id}
    assert unknown.stored("later").tries == 2


def test_nobody_is_woken_while_the_other_one_goes_on(unknown: Bench) -> None:
    waiting = waits(unknown)
    unknown.shop.hits = failing(NotDoneError)
    unknown.wait_until_due()
    unknown.redeliver()
    assert unknown.stored().state is State.UNKNOWN
    park(unknown)
    assert unknown.stored("later").due_at == waiting.due_at
    assert unknown.stored().waiters == {waiting.operation_id}

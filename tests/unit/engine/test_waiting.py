"""An operation that waits for another one, and is woken by its end."""

import json
from typing import Any

import pytest

from crm_bridge.engine import POLICY
from crm_bridge.errors import Event, NotDoneError, RefusedError, StorageError
from crm_bridge.storage.operation import Operation, State, operation_id
from tests.unit.engine.conftest import Bench, end_with, failing, hit, park, raising, waits
from tests.unit.engine.test_queues import with_queues


@pytest.mark.parametrize("end", ["done", "found", "refused", "linked", "discarded"])
def test_what_waits_is_due_as_soon_as_the_other_one_has_ended(unconfirmed: Bench, end: str) -> None:
    waiting = waits(unconfirmed)
    assert (waiting.state, waiting.due_at) == (State.WAITING, int(unconfirmed.clock.now) + POLICY.retry_delays[0])
    assert unconfirmed.stored().waiters == {waiting.operation_id}
    unconfirmed.clock.move(5)
    match end:
        case "done":
            unconfirmed.clock.move(unconfirmed.shop.search_lag)
            waiting = waits(unconfirmed, "much later")
            unconfirmed.retry()
        case "found":
            unconfirmed.shop.hits = [hit(101, unconfirmed.clock)]
            unconfirmed.retry()
        case "refused":
            unconfirmed.engine.request_retry(park(unconfirmed), by="ops")
            unconfirmed.shop.answers = [failing(RefusedError)]
            unconfirmed.retry()
        case "linked":
            unconfirmed.link_existing(park(unconfirmed), "101", by="ops")
        case "discarded":
            unconfirmed.discard(park(unconfirmed), by="ops")
    assert unconfirmed.stored().state in (State.SUCCEEDED, State.REJECTED)
    assert unconfirmed.stored(waiting.event_key) == waiting.model_copy(update={"due_at": int(unconfirmed.clock.now)})


def test_what_waits_is_handed_over_at_once_when_the_other_one_has_ended(bench: Bench) -> None:
    bench.run()
    sqs = with_queues(bench, "orders")
    waiting = waits(bench)
    assert [json.loads(one["MessageBody"])["operation_id"] for one in sqs.sent] == [waiting.operation_id]


def test_what_the_flow_adds_is_written_also_when_the_note_could_not_be_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    class Release:
        def writes(self, settled: Operation, event: Event) -> Any:
            asked.append((settled.state, event))
            return [bench.tables.operations.put(settled.model_copy(update={"operation_id": "op_released"}))]

        def adapts(self, event: Event, there: object) -> bool:
            raise AssertionError((event, there))

    bench.run()
    end_with(bench, monkeypatch, Release())
    assert waits(bench).state is State.WAITING
    assert asked == 2 * [(State.WAITING, Event.NOT_DONE)]  # with the note, and without
    assert bench.tables.operations.get("op_released")


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


def test_waits_for_its_own_next_try_when_the_other_one_cannot_be_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run()
    monkeypatch.setattr(bench.tables.operations, "get", raising(StorageError("throttled")))
    bench.shop.waits_for = operation_id("acme", "orders", "1")
    outcome = bench.run("later")
    monkeypatch.undo()
    assert bench.stored("later") == outcome.operation
    assert outcome.operation.due_at == int(bench.clock.now) + POLICY.retry_delays[0]


def test_more_than_enough_wait_for_their_own_next_try(unconfirmed: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crm_bridge.storage.operations.MOST_WAITERS", 2)
    for number in ("a", "b", "c"):
        waits(unconfirmed, number)
    unconfirmed.clock.move(5)
    unconfirmed.link_existing(park(unconfirmed), "101", by="ops")
    ahead = [(unconfirmed.stored(number).due_at or 0) - int(unconfirmed.clock.now) for number in ("a", "b", "c")]
    assert ahead == [0, 0, POLICY.retry_delays[0] - 5]


def test_the_end_of_the_other_one_stands_when_nobody_can_be_woken(
    unconfirmed: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = waits(unconfirmed)
    monkeypatch.setattr(unconfirmed.tables.operations, "wake", raising(StorageError("throttled")))
    unconfirmed.link_existing(park(unconfirmed), "101", by="ops")
    assert unconfirmed.stored().state is State.SUCCEEDED
    assert unconfirmed.stored("later") == waiting


def test_what_waits_twice_is_noted_once(unconfirmed: Bench) -> None:
    waits(unconfirmed)
    unconfirmed.wait_until_due("later")
    unconfirmed.shop.waits_for = operation_id("acme", "orders", "1")
    unconfirmed.retry("later")
    unconfirmed.shop.waits_for = None
    assert unconfirmed.stored().waiters == {unconfirmed.stored("later").operation_id}
    assert unconfirmed.stored("later").tries == 2


def test_nobody_is_woken_while_the_other_one_goes_on(unconfirmed: Bench) -> None:
    waiting = waits(unconfirmed)
    unconfirmed.shop.hits = failing(NotDoneError)
    unconfirmed.wait_until_due()
    unconfirmed.retry()
    assert unconfirmed.stored().state is State.UNCONFIRMED
    park(unconfirmed)
    assert unconfirmed.stored("later").due_at == waiting.due_at
    assert unconfirmed.stored().waiters == {waiting.operation_id}

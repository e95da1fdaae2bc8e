"""A person does not wait for the time of the next attempt."""

import json
from io import StringIO

import pytest

from crm_bridge.engine import POLICY
from crm_bridge.errors import ConflictError, Event, MaybeDoneError, NotDoneError, StorageError, TryLaterError
from crm_bridge.storage.operation import Attempt, State
from tests.unit.engine.conftest import Bench, failing, hit, raising
from tests.unit.engine.test_log import lines
from tests.unit.engine.test_queues import with_queues


@pytest.fixture
def waiting(bench: Bench) -> Bench:
    """An order that was surely not done, and is not due yet."""
    bench.shop.answers = [failing(NotDoneError)]
    bench.run()
    return bench


@pytest.mark.parametrize("due_in", [None, 0, 7])
def test_only_the_time_and_the_history_change(waiting: Bench, due_in: int | None) -> None:
    waiting.clock.move(5)
    before, now = waiting.stored(), int(waiting.clock.now)
    due_at = None if due_in is None else now + due_in
    due = waiting.engine.make_due(before, by="Ada", due_at=due_at)
    attempt = Attempt(at=now, event=Event.MADE_DUE, reason="by Ada")
    expected = {"due_at": now + (due_in or 0), "attempts": (*before.attempts, attempt)}
    assert due == waiting.stored() == before.model_copy(update=expected)
    waiting.wait_until_due()
    waiting.retry()
    assert (waiting.stored().state, waiting.linked()) == (State.SUCCEEDED, ["102"])


def test_an_attempt_is_used_up_as_at_its_own_time(waiting: Bench) -> None:
    for _ in range(POLICY.last_try - 1):
        waiting.shop.answers = [failing(NotDoneError)]
        waiting.engine.make_due(waiting.stored(), by="Ada")
        waiting.retry()
    assert waiting.stored().state is State.NEEDS_REVIEW


@pytest.mark.parametrize("error", [MaybeDoneError, TryLaterError])
def test_what_may_be_done_is_looked_for_and_not_sent_before_the_search_lag_is_over(
    bench: Bench, error: type[NotDoneError]
) -> None:
    bench.shop.answers = [failing(error)]
    bench.run()
    bench.engine.make_due(bench.stored(), by="Ada")
    bench.retry()
    assert (bench.shop.looks, len(bench.shop.sent)) == (1, 1)
    due_at = bench.stored().due_at
    assert due_at is not None
    assert due_at >= bench.clock.now + bench.shop.search_lag
    bench.engine.make_due(bench.stored(), by="Ada")
    bench.shop.hits = [hit(101, bench.clock)]
    bench.retry()
    assert (bench.stored().state, bench.linked(), len(bench.shop.sent)) == (State.SUCCEEDED, ["101"], 1)


def test_nothing_changes_while_a_function_sends_it(waiting: Bench) -> None:
    before = waiting.stored()
    waiting.wait_until_due()
    refused: list[ConflictError] = []

    def retry_by_hand() -> None:
        for seen in (before, waiting.stored()):  # as it was read before, and as it is now
            with pytest.raises(ConflictError) as caught:
                waiting.engine.make_due(seen, by="Ada")
            refused.append(caught.value)

    waiting.shop.during = retry_by_hand
    waiting.retry()
    assert ["changed meanwhile" in refused[0].detail, "its state is sending" in refused[1].detail] == [True, True]
    assert [one.event for one in waiting.stored().attempts] == [Event.NOT_DONE, Event.DONE]


def test_nothing_changes_while_a_change_that_came_first_holds_it(waiting: Bench) -> None:
    held = waiting.stored().model_copy(update={"held": frozenset({"op_1"})})
    with pytest.raises(ConflictError, match="waits for a change"):
        waiting.engine.make_due(held, by="Ada")


def test_nothing_changes_when_the_storage_fails(waiting: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    before = waiting.stored()
    monkeypatch.setattr(waiting.tables.operations, "hasten", raising(StorageError("gone")))
    with pytest.raises(StorageError):
        waiting.engine.make_due(before, by="Ada")
    assert waiting.stored() == before


def test_the_defects_before_it_still_count(waiting: Bench) -> None:
    defects = tuple(Attempt(at=1, event=Event.DEFECT) for _ in range(POLICY.most_defects - 1))
    stored = waiting.stored()
    waiting.tables.operations.save(stored.model_copy(update={"attempts": defects}), over=State.WAITING)
    waiting.engine.make_due(waiting.stored(), by="Ada")
    waiting.shop.during = raising(ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        waiting.retry()
    assert waiting.stored().state is State.NEEDS_REVIEW


def test_put_on_its_queue_and_logged(waiting: Bench, log: StringIO) -> None:
    sqs = with_queues(waiting, "orders")
    due = waiting.engine.make_due(waiting.stored(), by="Ada")
    assert [json.loads(one["MessageBody"])["operation_id"] for one in sqs.sent] == [due.operation_id]
    (line,) = lines(log, "resolved")
    assert (line["event"], line["state"]) == ("made due", "waiting")

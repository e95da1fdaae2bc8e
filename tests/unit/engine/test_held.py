"""An event that a change of another operation holds."""

import pytest

from crm_bridge.errors import Event, RefusedError, RunningError
from crm_bridge.storage.operation import Operation, State
from crm_bridge.storage.operations import Claim
from tests.unit.engine.conftest import PAYLOAD, Bench, failing


def held(bench: Bench, state: State, **changes: object) -> Operation:
    """What another operation holds, as it stands in the table."""
    bench.run()
    there = bench.stored().model_copy(update={"state": state, "held": frozenset({"op_change"}), **changes})
    return bench.tables.operations.save(there, over=bench.stored().state)


@pytest.mark.parametrize("later", [True, False])
def test_waits_when_what_was_done_before_is_held(bench: Bench, *, later: bool) -> None:
    there = held(bench, State.SUCCEEDED, reserved="77#op_change")
    outcome = bench.run(later=later)
    assert (outcome.operation.state, outcome.ran) == (State.WAITING, False)
    stored = bench.stored()
    assert (stored.held, stored.reserved, stored.tries) == (there.held, there.reserved, 0)
    assert (stored.payload, stored.result, stored.first_sent_at) == (PAYLOAD, None, None)
    assert [attempt.event for attempt in stored.attempts] == [Event.DONE, Event.ACCEPTED]
    assert len(bench.shop.sent) == 1
    assert bench.run().operation == stored


def test_waits_when_what_was_refused_before_is_held(bench: Bench) -> None:
    bench.shop.answers = [failing(RefusedError)]
    held(bench, State.REJECTED)
    assert bench.run().operation.state is State.WAITING
    assert len(bench.shop.sent) == 1


def test_is_not_retried_while_it_is_held(bench: Bench) -> None:
    held(bench, State.SUCCEEDED)
    bench.run()
    bench.clock.move(100_000)
    assert bench.retry() is None
    free = bench.stored().model_copy(update={"held": frozenset()})
    bench.tables.operations.save(free, over=State.WAITING)
    bench.retry()
    assert (bench.stored().state, len(bench.shop.sent)) == (State.SUCCEEDED, 2)


def test_is_to_be_asked_for_again_when_it_is_let_go_in_the_very_moment(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = held(bench, State.SUCCEEDED)
    queue = bench.tables.operations.queue

    def overtaken(operation: Operation, behind: Operation) -> Claim:
        free = there.model_copy(update={"state": State.REJECTED, "held": frozenset()})
        bench.tables.operations.save(free, over=State.SUCCEEDED)
        return queue(operation, behind)

    monkeypatch.setattr(bench.tables.operations, "queue", overtaken)
    with pytest.raises(RunningError):
        bench.run()
    assert bench.run().operation.state is State.SUCCEEDED


def test_says_when_to_ask_again_when_it_is_let_go_in_the_very_moment(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = held(bench, State.SUCCEEDED)
    free = there.model_copy(update={"held": frozenset()})
    monkeypatch.setattr(bench.tables.operations, "queue", lambda *_: Claim(False, free))
    with pytest.raises(RunningError) as raised:
        bench.run()
    assert raised.value.headers == {"Retry-After": "1"}
    assert raised.value.operation_id == there.operation_id
    assert "being changed" in raised.value.detail


def test_what_another_request_has_just_put_in_its_place_is_returned(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = held(bench, State.SUCCEEDED).model_copy(update={"state": State.WAITING})
    monkeypatch.setattr(bench.tables.operations, "queue", lambda *_: Claim(False, there))
    outcome = bench.run()
    assert (outcome.operation, outcome.ran) == (there, False)

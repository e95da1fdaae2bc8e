"""An event that is stored without anybody waiting for its result."""

from typing import Any

import pytest

from crm_bridge.engine import HANDED_OVER
from crm_bridge.errors import Event, RefusedError, RunningError
from crm_bridge.outbound.transport import Deadline
from crm_bridge.storage.operation import State, operation_id
from crm_bridge.storage.operations import Claim
from tests.unit.engine.conftest import PAYLOAD, Bench, Order, failing
from tests.unit.engine.test_held import held


def accept(bench: Bench, number: str = "1", *, note: str = "as ordered", **options: Any) -> Claim:
    options = {"notifies": False, **options}
    deadline = Deadline(21, bench.clock)
    return bench.engine.accept(bench.flow, Order(number=number, note=note), tenant="acme", deadline=deadline, **options)


@pytest.mark.parametrize(("mapping", "notifies"), [(None, False), ("crm 1", True)])
def test_stored_as_waiting_and_nothing_is_sent_or_read_of_the_vendor(
    bench: Bench, mapping: str | None, *, notifies: bool
) -> None:
    claim = accept(bench, mapping=mapping, notifies=notifies)
    stored, now = bench.stored(), int(bench.clock.now)
    assert claim == Claim(True, stored)
    assert (stored.operation_id, stored.event_key) == (operation_id("acme", "orders", "1"), "1")
    assert (stored.tenant, stored.flow, stored.function) == ("acme", "orders", "orders")
    assert (stored.state, stored.payload, stored.tries) == (State.WAITING, PAYLOAD, 0)
    assert (stored.mapping, stored.notifies) == (mapping, notifies)
    assert (stored.created_at, stored.updated_at, stored.first_sent_at, stored.sent_to) == (now, now, None, None)
    assert stored.lease
    assert (bench.shop.sent, bench.shop.asked) == ([], [])


def test_lent_to_its_message_when_there_are_queues(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.engine._settling, "_queues", object())
    claim = accept(bench)
    until = int(bench.clock.now) + HANDED_OVER
    assert (claim.operation.due_at, claim.operation.lent_until) == (until, until)


def test_not_won_when_it_was_stored_before_whatever_became_of_it(bench: Bench) -> None:
    first = accept(bench)
    assert accept(bench) == Claim(False, first.operation)
    bench.retry()
    assert bench.stored().state is State.SUCCEEDED
    assert accept(bench) == Claim(False, bench.stored())
    assert len(bench.shop.sent) == 1


def test_stored_anew_when_it_was_rejected(bench: Bench) -> None:
    bench.shop.answers = [failing(RefusedError)]
    bench.run()
    claim = accept(bench, note="corrected")
    assert (claim.won, claim.operation.state) == (True, State.WAITING)
    assert bench.stored().fingerprint == claim.operation.fingerprint
    assert [attempt.event for attempt in claim.operation.attempts] == [Event.REFUSED]
    bench.retry()
    assert [order.note for order in bench.shop.sent] == ["as ordered", "corrected"]


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.REJECTED])
def test_stored_behind_the_change_when_what_has_ended_is_held(bench: Bench, state: State) -> None:
    there = held(bench, state)
    claim = accept(bench)
    assert (claim.won, claim.operation.state, claim.operation.held) == (True, State.WAITING, there.held)
    assert bench.stored() == claim.operation
    assert accept(bench) == Claim(False, claim.operation)


def test_to_be_asked_for_again_when_it_is_released_in_the_very_moment(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = held(bench, State.SUCCEEDED)
    queue = bench.tables.operations.queue

    def overtaken(*arguments: Any) -> Claim:
        free = there.model_copy(update={"held": frozenset()})
        bench.tables.operations.save(free, over=State.SUCCEEDED)
        return queue(*arguments)

    monkeypatch.setattr(bench.tables.operations, "queue", overtaken)
    with pytest.raises(RunningError) as raised:
        accept(bench)
    assert raised.value.headers == {"Retry-After": "1"}
    assert raised.value.operation_id == there.operation_id
    assert "being changed" in raised.value.detail


def test_the_flow_knows_the_deadline(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def key(flow: Any, command: Order) -> str:
        return f"{command.number} within {flow.context.deadline.remaining():.0f} s"

    monkeypatch.setattr(bench.flow, "key", key)
    assert accept(bench).operation.event_key == "1 within 21 s"

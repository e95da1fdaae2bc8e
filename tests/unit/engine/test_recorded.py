"""Records that were made before there was a bridge."""

import pytest

from crm_bridge.errors import ConflictError, Event
from crm_bridge.storage.links import Identity
from crm_bridge.storage.operation import Attempt, Operation, State, fingerprint, operation_id
from tests.unit.engine.conftest import Bench, recorded


def test_what_was_made_before_is_recorded_as_done_and_linked_and_never_sent(bench: Bench) -> None:
    operation, is_new = recorded(bench)
    assert is_new
    assert bench.linked() == ["7"]
    now = int(bench.clock())
    assert (
        bench.stored()
        == operation
        == Operation(
            operation_id=operation_id("acme", "orders", "1"),
            tenant="acme",
            flow="orders",
            function="orders",
            event_key="1",
            state=State.SUCCEEDED,
            fingerprint=fingerprint('{"receipt":7}'),
            result='{"receipt":7}',
            links=((Identity("crm", "order", "1"), Identity("shop", "receipt", "7")),),
            lease=operation.lease,
            created_at=now,
            updated_at=now,
            attempts=(Attempt(at=now, event=Event.LINKED, reason="by ops"),),
            last_attempt=Attempt(at=now, event=Event.LINKED, reason="by ops"),
        )
    )
    assert operation.lease
    outcome = bench.run()
    assert (outcome.operation, outcome.ran, bench.shop.sent) == (operation, False, [])


def test_what_is_known_already_is_told_and_not_recorded_over(bench: Bench) -> None:
    bench.run()
    before = bench.stored()
    assert recorded(bench) == (before, False)
    assert bench.stored() == before
    assert bench.linked() == ["101"]


def test_what_is_linked_to_something_else_is_not_recorded(bench: Bench) -> None:
    recorded(bench)
    with pytest.raises(ConflictError, match="linked to something else already") as refused:
        recorded(bench, number="2")
    assert refused.value.__cause__ is None
    assert bench.tables.operations.get(operation_id("acme", "orders", "2")) is None

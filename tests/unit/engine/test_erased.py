"""What stays of an event whose data were erased."""

import pytest

from crm_bridge.engine import KEEP
from crm_bridge.errors import (
    ConflictError,
    ErasedError,
    Event,
    LinkTakenError,
    MaybeDoneError,
    NotDoneError,
    RefusedError,
    VendorError,
)
from crm_bridge.storage.operation import Operation, State, operation_id
from tests.unit.engine.conftest import Bench, failing, with_exchange


def test_of_an_erased_event_only_its_id_and_its_state_stay(bench: Bench) -> None:
    bench.run()
    bench.engine.erase(bench.stored(), by="ops")
    stored = bench.stored()
    blank = Operation(
        operation_id=stored.operation_id,
        tenant="acme",
        flow="orders",
        function="orders",
        event_key="(erased)",
        state=State.SUCCEEDED,
        fingerprint="",
        tries=1,
        lease=stored.lease,
        created_at=stored.created_at,
        updated_at=stored.updated_at,
        first_sent_at=stored.first_sent_at,
        expires_at=int(bench.clock.now) + KEEP,
        attempts=stored.attempts,
        last_attempt=stored.last_attempt,
    )
    assert stored == blank
    assert [(one.event, one.reason) for one in stored.attempts] == [(Event.ERASED, "by ops")]
    assert bench.linked() == []


def test_an_erased_event_is_not_sent_again(bench: Bench) -> None:
    bench.run()
    bench.engine.erase(bench.stored(), by="ops")
    for note in ("as ordered", "changed"):
        with pytest.raises(ErasedError, match="data were erased") as raised:
            bench.run(note=note)
        assert raised.value.operation_id == bench.stored().operation_id
    assert len(bench.shop.sent) == 1


@pytest.mark.parametrize(
    ("state", "said"), [(State.SUCCEEDED, "Somebody else was quicker"), (State.REJECTED, "changed meanwhile")]
)
def test_nothing_is_erased_when_somebody_has_changed_the_operation(bench: Bench, state: State, said: str) -> None:
    if state is State.REJECTED:
        bench.shop.answers = [failing(RefusedError)]
    bench.run()
    there = bench.stored()
    before = there.model_copy(update={"lease": "another"})
    with pytest.raises(ConflictError, match=said):
        bench.engine.erase(before, by="ops")
    assert bench.stored() == there


def test_an_erased_event_has_a_new_lease_and_no_mapping(bench: Bench) -> None:
    """Whoever has read it before can change it no longer."""
    bench.run(mapping="crm 1")
    before = bench.stored()
    assert before.mapping == "crm 1"
    in_table = before.model_copy(update={"payload": "{}"})
    bench.tables.operations.save(in_table, over=State.SUCCEEDED)
    bench.engine.erase(bench.stored(), by="ops")
    after = bench.stored()
    assert (after.payload, after.mapping) == (None, None)
    assert after.lease
    assert after.lease != before.lease


def test_a_refused_event_is_erased_whole_and_may_come_again(bench: Bench) -> None:
    bench.shop.answers = [failing(RefusedError)]
    bench.run()
    bench.engine.erase(bench.stored(), by="ops")
    assert bench.tables.operations.get(operation_id("acme", "orders", "1")) is None
    assert bench.run().operation.state is State.SUCCEEDED


def test_the_kept_payload_of_a_linked_record_is_erased(linked: Bench) -> None:
    before = linked.stored()
    assert linked.tables.operations.kept_payload(before)
    linked.engine.erase(before, by="ops")
    assert linked.tables.operations.kept_payload(before) is None


def test_says_so_when_the_link_of_an_event_that_is_erased_is_being_changed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(*_: object, **__: object) -> Operation:
        raise LinkTakenError

    bench.run()
    monkeypatch.setattr(bench.tables.operations, "save", taken)
    with pytest.raises(ConflictError, match="link was changed meanwhile"):
        bench.engine.erase(bench.stored(), by="ops")


@pytest.mark.parametrize("error", [NotDoneError, MaybeDoneError])
def test_an_event_that_has_not_ended_is_not_erased(bench: Bench, error: type[VendorError]) -> None:
    bench.shop.answers = [failing(error)]
    bench.run()
    before = bench.stored()
    with pytest.raises(ConflictError, match="has ended"):
        bench.engine.erase(before, by="ops")
    assert bench.stored() == before


def test_what_a_person_has_to_decide_is_not_erased(in_review: Bench) -> None:
    with pytest.raises(ConflictError, match="its state is needs_review"):
        in_review.engine.erase(in_review.stored(), by="ops")


@pytest.mark.parametrize("change", [{"held": frozenset({"op_2"})}, {"holds": ("op_2",)}, {"reserved": "77#op_2"}])
def test_what_is_being_changed_is_not_erased(bench: Bench, change: dict[str, object]) -> None:
    bench.run()
    with pytest.raises(ConflictError):
        bench.engine.erase(bench.stored().model_copy(update=change), by="ops")


def test_what_was_sent_again_meanwhile_is_not_erased(bench: Bench) -> None:
    bench.shop.answers = [failing(RefusedError)]
    bench.run()
    seen = bench.stored()
    bench.run()
    with pytest.raises(ConflictError):
        bench.engine.erase(seen, by="ops")
    assert bench.linked() == ["102"]


def test_the_calls_of_an_erased_event_are_gone(bench: Bench) -> None:
    bench.run()
    before = with_exchange(bench)
    bench.engine.erase(before, by="ops")
    assert bench.stored().exchanges is None
    assert bench.tables.operations.exchanges.of(before, int(bench.clock.now)) == []

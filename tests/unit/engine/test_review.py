"""The decisions of a person about an operation that needs review."""

from typing import Any

import pytest
from pydantic import ValidationError

from crm_bridge.engine import POLICY
from crm_bridge.errors import (
    CannotLookError,
    ConflictError,
    Event,
    FieldError,
    InvalidError,
    MaybeDoneError,
    NoSuchRecordError,
    OvertakenError,
    StorageError,
    UnconfirmedError,
)
from crm_bridge.outbound.transport import Deadline
from crm_bridge.storage.operation import Operation, State
from tests.unit.engine.conftest import Bench, Marks, Receipt, failing, hit, kept_until, raising, with_exchange


def test_succeeds_with_links_when_a_person_links_the_record(in_review: Bench) -> None:
    in_review.link_existing(in_review.stored(), "101", by="ops")
    stored = in_review.stored()
    assert stored.state is State.SUCCEEDED
    assert stored.payload is None
    assert in_review.linked() == ["101"]
    assert (stored.attempts[-1].event, stored.attempts[-1].reason) == (Event.LINKED, "by ops")
    assert in_review.run().operation.result == '{"receipt":101}'
    assert len(in_review.shop.sent) == 1


def test_is_sent_anew_when_a_person_says_so(in_review: Bench) -> None:
    in_review.engine.request_retry(in_review.stored(), by="ops")
    in_review.retry()
    assert in_review.stored().state is State.SUCCEEDED
    assert in_review.stored().tries == 1
    assert in_review.linked() == ["102"]


def test_is_looked_for_again_when_what_a_person_retried_is_lost_too(in_review: Bench) -> None:
    in_review.engine.request_retry(in_review.stored(), by="ops")
    in_review.shop.answers = [failing(MaybeDoneError)]
    in_review.retry()
    in_review.shop.hits = [hit(102, in_review.clock)]
    in_review.wait_until_due()
    in_review.retry()
    assert in_review.linked() == ["102"]
    assert len(in_review.shop.sent) == 2


def test_is_rejected_and_may_be_sent_again_when_a_person_discards_it(in_review: Bench) -> None:
    in_review.discard(in_review.stored(), by="ops")
    stored = in_review.stored()
    assert (stored.state, stored.payload) == (State.REJECTED, None)
    assert stored.expires_at is not None
    assert in_review.run().operation.state is State.SUCCEEDED


def test_is_not_linked_when_the_record_belongs_to_another_event(in_review: Bench) -> None:
    in_review.run("other")
    with pytest.raises(ConflictError):
        in_review.link_existing(in_review.stored(), "102", by="ops")
    assert in_review.stored().state is State.NEEDS_REVIEW
    assert in_review.linked("other") == ["102"]


def test_only_the_first_decision_counts_when_two_persons_decide(in_review: Bench) -> None:
    seen_by_both = in_review.stored()
    in_review.link_existing(seen_by_both, "101", by="one")
    with pytest.raises(ConflictError):
        in_review.link_existing(seen_by_both, "999", by="two")
    with pytest.raises(ConflictError):
        in_review.discard(seen_by_both, by="two")
    assert in_review.linked() == ["101"]


def test_cannot_be_decided_when_it_is_not_in_review(unconfirmed: Bench) -> None:
    with pytest.raises(ConflictError):
        unconfirmed.engine.request_retry(unconfirmed.stored(), by="ops")
    done = unconfirmed.run("other").operation
    with pytest.raises(ConflictError):
        unconfirmed.link_existing(done, "1", by="ops")
    assert unconfirmed.stored().state is State.UNCONFIRMED


def test_nothing_can_be_linked_to_an_event_that_makes_no_record(in_review: Bench) -> None:
    before = in_review.stored()
    in_review.let_repeat()
    with pytest.raises(ConflictError, match="makes no record"):
        in_review.link_existing(before, "101", by="ops")
    assert in_review.stored() == before


def test_an_id_of_no_record_is_named_in_the_error(in_review: Bench) -> None:
    in_review.shop.verified = failing(NoSuchRecordError)
    for confirmed in (False, True):
        with pytest.raises(InvalidError, match="because") as raised:
            in_review.link_existing(in_review.stored(), "101", by="ops", confirmed=confirmed)
        assert raised.value.fields == (FieldError("id", "is not the id of a record"),)


def test_what_the_flow_adds_is_written_when_a_person_discards(
    in_review: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    class Release:
        def writes(self, settled: Operation, event: Event) -> Any:
            asked.append((settled.state, event))
            return [in_review.tables.operations.put(settled.model_copy(update={"operation_id": "op_released"}))]

    def discarded(flow: Any, operation: Operation) -> Any:
        asked.append((flow.context.tenant, flow.context.deadline.remaining(), operation))
        return Release()

    before = in_review.stored()
    monkeypatch.setattr(in_review.flow, "discarded", discarded, raising=False)
    in_review.discard(before)
    assert asked == [("acme", 21, before), (State.REJECTED, Event.DISCARDED)]
    assert in_review.tables.operations.get("op_released")


def test_says_why_a_decision_does_not_count(in_review: Bench) -> None:
    seen = in_review.stored()
    in_review.run("other")
    with pytest.raises(ConflictError, match="linked to something else"):
        in_review.link_existing(seen, "102", by="ops")
    in_review.discard(seen, by="one")
    with pytest.raises(ConflictError, match="Another decision came first: the state is rejected now"):
        in_review.engine.request_retry(seen, by="two")
    for decide in (in_review.engine.request_retry, in_review.discard):
        with pytest.raises(ConflictError, match="its state is rejected"):
            decide(in_review.stored(), by="two")
    with pytest.raises(ConflictError, match="its state is rejected"):
        in_review.link_existing(in_review.stored(), "101", by="two")
    assert not [asked for asked in in_review.shop.asked if "101" in asked]


def test_says_so_when_what_is_written_with_a_decision_is_being_changed(
    in_review: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(*_: object, **__: object) -> Operation:
        raise OvertakenError([None])

    monkeypatch.setattr(in_review.tables.operations, "save", overtaken)
    with pytest.raises(ConflictError, match="changed meanwhile"):
        in_review.discard(in_review.stored(), by="ops")
    assert in_review.stored().state is State.NEEDS_REVIEW


def test_needs_review_again_when_the_bridge_fails_on_what_a_person_let_begin_anew(in_review: Bench) -> None:
    in_review.engine.request_retry(in_review.stored(), by="ops")
    in_review.flow.command = Receipt  # type: ignore[assignment]  # which its payload is none of
    for _ in range(POLICY.most_defects):
        assert in_review.stored().state is not State.NEEDS_REVIEW
        in_review.wait_until_due()
        with pytest.raises(ValidationError):
            in_review.retry()
    assert in_review.stored().state is State.NEEDS_REVIEW


def test_what_is_sent_again_can_be_due_later(bench: Bench) -> None:
    bench.shop.answers = [failing(CannotLookError)]
    bench.run()
    later = int(bench.clock()) + 500
    assert bench.engine.request_retry(bench.stored(), by="ops", due_at=later).due_at == later
    assert bench.stored().due_at == later


def test_an_id_is_verified_unless_the_person_has_confirmed_it(
    in_review: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_review.shop.verified = "it has another name"
    seen: list[float] = []
    existing = in_review.flow.existing  # type: ignore[union-attr]

    def bound(flow: Any, command: Any, record_id: str) -> Any:
        seen.append(flow.context.deadline.remaining())
        return existing(flow, command, record_id)

    monkeypatch.setattr(in_review.flow, "existing", bound)
    deadline = Deadline(21, in_review.clock)
    with pytest.raises(UnconfirmedError):
        in_review.engine.link_existing(in_review.flow, in_review.stored(), "101", by="ops", deadline=deadline)
    assert seen == [21]


def test_the_calls_of_an_event_are_gone_when_a_person_discards_it(in_review: Bench) -> None:
    before = with_exchange(in_review)
    in_review.discard(before)
    assert in_review.stored().exchanges is None
    assert in_review.tables.operations.exchanges.of(before, int(in_review.clock.now)) == []


def test_the_payload_of_what_a_person_links_is_kept_for_as_long_as_the_operation_could_be_unlinked(
    in_review: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    until = kept_until(in_review, monkeypatch)
    in_review.link_existing(in_review.stored(), "101", by="ops")
    assert until == [int(in_review.clock.now) + POLICY.keep]


def test_says_so_when_what_ends_with_a_decision_changes_again_and_again(
    in_review: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Restless(Marks):
        def adapts(self, event: Event, there: object) -> bool:  # noqa: ARG002
            return True

    monkeypatch.setattr(in_review.flow, "discarded", lambda *_: Restless(), raising=False)
    monkeypatch.setattr(in_review.tables.operations, "save", raising(OvertakenError([None])))
    with pytest.raises(StorageError, match="Too many changes of the same operations"):
        in_review.discard(in_review.stored(), by="ops")
    assert in_review.stored().state is State.NEEDS_REVIEW

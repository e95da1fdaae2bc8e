"""The decisions of a person about a parked operation."""

import pytest
from pydantic import ValidationError

from crm_bridge.engine import POLICY
from crm_bridge.errors import CannotLookError, ConflictError, Event, MaybeDoneError
from crm_bridge.operations import State
from tests.unit.engine.conftest import Bench, Receipt, failing, hit


def test_succeeds_with_links_when_a_person_adopts_the_record(parked: Bench) -> None:
    parked.adopt(parked.stored(), "101", by="ops")
    stored = parked.stored()
    assert stored.state is State.SUCCEEDED
    assert stored.payload is None
    assert parked.linked() == ["101"]
    assert (stored.attempts[-1].event, stored.attempts[-1].reason) == (Event.ADOPTED, "by ops")
    assert parked.run().operation.answer == '{"receipt":101}'
    assert len(parked.shop.sent) == 1


def test_is_sent_anew_when_a_person_says_so(parked: Bench) -> None:
    parked.engine.resend(parked.stored(), by="ops")
    parked.redeliver()
    assert parked.stored().state is State.SUCCEEDED
    assert parked.stored().tries == 1
    assert parked.linked() == ["102"]


def test_is_looked_for_again_when_what_a_person_resent_is_lost_too(parked: Bench) -> None:
    parked.engine.resend(parked.stored(), by="ops")
    parked.shop.answers = [failing(MaybeDoneError)]
    parked.redeliver()
    parked.shop.hits = [hit(102, parked.clock)]
    parked.wait_until_due()
    parked.redeliver()
    assert parked.linked() == ["102"]
    assert len(parked.shop.sent) == 2


def test_is_rejected_and_may_be_sent_again_when_a_person_abandons_it(parked: Bench) -> None:
    parked.engine.abandon(parked.stored(), by="ops")
    stored = parked.stored()
    assert (stored.state, stored.payload) == (State.REJECTED, None)
    assert stored.expires_at is not None
    assert parked.run().operation.state is State.SUCCEEDED


def test_is_not_adopted_when_the_record_belongs_to_another_event(parked: Bench) -> None:
    parked.run("other")
    with pytest.raises(ConflictError):
        parked.adopt(parked.stored(), "102", by="ops")
    assert parked.stored().state is State.PARKED
    assert parked.linked("other") == ["102"]


def test_only_the_first_decision_counts_when_two_persons_decide(parked: Bench) -> None:
    seen_by_both = parked.stored()
    parked.adopt(seen_by_both, "101", by="one")
    with pytest.raises(ConflictError):
        parked.adopt(seen_by_both, "999", by="two")
    with pytest.raises(ConflictError):
        parked.engine.abandon(seen_by_both, by="two")
    assert parked.linked() == ["101"]


def test_cannot_be_decided_when_it_is_not_parked(unknown: Bench) -> None:
    with pytest.raises(ConflictError):
        unknown.engine.resend(unknown.stored(), by="ops")
    done = unknown.run("other").operation
    with pytest.raises(ConflictError):
        unknown.adopt(done, "1", by="ops")
    assert unknown.stored().state is State.UNKNOWN


def test_says_why_a_decision_does_not_count(parked: Bench) -> None:
    seen = parked.stored()
    parked.run("other")
    with pytest.raises(ConflictError, match="linked to something else"):
        parked.adopt(seen, "102", by="ops")
    parked.engine.abandon(seen, by="one")
    with pytest.raises(ConflictError, match="Somebody else was quicker: it is rejected now"):
        parked.engine.resend(seen, by="two")
    for decide in (parked.engine.resend, parked.engine.abandon):
        with pytest.raises(ConflictError, match="this one is rejected"):
            decide(parked.stored(), by="two")
    with pytest.raises(ConflictError, match="this one is rejected"):
        parked.adopt(parked.stored(), "101", by="two")
    assert not [asked for asked in parked.flow.asked if "101" in asked]


def test_is_parked_again_when_the_bridge_fails_on_what_a_person_let_begin_anew(parked: Bench) -> None:
    parked.engine.resend(parked.stored(), by="ops")
    parked.flow.command = Receipt  # type: ignore[assignment]  # which its payload is none of
    for _ in range(POLICY.most_defects):
        assert parked.stored().state is not State.PARKED
        parked.wait_until_due()
        with pytest.raises(ValidationError):
            parked.redeliver()
    assert parked.stored().state is State.PARKED


def test_what_is_sent_again_can_be_due_later(bench: Bench) -> None:
    bench.shop.answers = [failing(CannotLookError)]
    bench.run()
    later = int(bench.clock()) + 500
    assert bench.engine.resend(bench.stored(), by="ops", due_at=later).due_at == later
    assert bench.stored().due_at == later

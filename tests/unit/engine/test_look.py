"""An operation in doubt is looked up at the vendor before it is sent again."""

from datetime import UTC, datetime
from typing import Any

import pytest

from crm_bridge.engine import POLICY
from crm_bridge.errors import (
    CannotLookError,
    ContractBrokenError,
    Event,
    IncompleteSearchError,
    MaybeDoneError,
    NotDoneError,
    RefusedError,
    SignInRefusedError,
    StorageError,
    VendorError,
)
from crm_bridge.flow import Match
from crm_bridge.storage.links import Identity, Link
from crm_bridge.storage.operation import Candidate, State
from tests.unit.engine.conftest import Bench, Order, Receipt, failing, hit, kept_until, raising


def test_links_the_record_when_exactly_one_fits(unconfirmed: Bench) -> None:
    unconfirmed.shop.hits = [hit(101, unconfirmed.clock)]
    outcome = unconfirmed.retry()
    assert outcome is not None
    assert outcome.operation.state is State.SUCCEEDED
    assert outcome.operation.result == '{"receipt":101}'
    assert unconfirmed.linked() == ["101"]
    assert len(unconfirmed.shop.sent) == 1


def test_links_the_record_when_the_vendor_does_not_say_how_old_it_is(unconfirmed: Bench) -> None:
    unconfirmed.shop.hits = [Match(Receipt(receipt=101))]
    unconfirmed.retry()
    assert unconfirmed.linked() == ["101"]


def test_needs_review_when_several_records_fit(unconfirmed: Bench) -> None:
    unconfirmed.shop.hits = [hit(101, unconfirmed.clock), hit(102, unconfirmed.clock)]
    unconfirmed.retry()
    assert unconfirmed.stored().state is State.NEEDS_REVIEW
    assert unconfirmed.linked() == []
    assert len(unconfirmed.shop.sent) == 1


def test_links_the_certain_record_when_others_only_may_be_the_one(unconfirmed: Bench) -> None:
    unconfirmed.shop.hits = [hit(101, unconfirmed.clock), Match(Receipt(receipt=7), certain=False)]
    unconfirmed.retry()
    assert unconfirmed.linked() == ["101"]


def test_needs_review_when_a_record_only_may_be_the_one_in_two_looks(unconfirmed: Bench) -> None:
    unconfirmed.shop.hits = [Match(Receipt(receipt=7), certain=False)]
    unconfirmed.clock.move(unconfirmed.shop.search_lag)
    unconfirmed.retry()
    waiting = unconfirmed.stored()
    assert (waiting.state, waiting.due_at) == (State.UNCONFIRMED, unconfirmed.clock.now + unconfirmed.shop.search_lag)
    unconfirmed.wait_until_due()
    unconfirmed.retry()
    assert unconfirmed.stored().state is State.NEEDS_REVIEW
    assert len(unconfirmed.shop.sent) == 1


def test_is_sent_again_when_the_record_that_may_be_the_one_is_linked_to_another_meanwhile(unconfirmed: Bench) -> None:
    unconfirmed.shop.hits = [Match(Receipt(receipt=102), certain=False)]
    unconfirmed.clock.move(unconfirmed.shop.search_lag)
    unconfirmed.retry()
    assert unconfirmed.run("other").operation.result == '{"receipt":102}'
    unconfirmed.wait_until_due()
    unconfirmed.retry()
    assert (unconfirmed.linked(), unconfirmed.stored().candidates) == (["103"], None)


def test_waits_out_the_search_lag_when_a_record_only_may_be_the_one(unconfirmed: Bench) -> None:
    """Its own may not be shown yet, and the other may be linked by then."""
    unconfirmed.shop.hits = [Match(Receipt(receipt=7), certain=False)]
    unconfirmed.retry()
    waiting = unconfirmed.stored()
    assert (waiting.state, waiting.attempts[-1].event) == (State.UNCONFIRMED, Event.NOT_FOUND_YET)
    assert waiting.due_at == (waiting.unconfirmed_since or 0) + unconfirmed.shop.search_lag
    unconfirmed.shop.hits.append(hit(101, unconfirmed.clock))
    unconfirmed.wait_until_due()
    unconfirmed.retry()
    assert (unconfirmed.linked(), len(unconfirmed.shop.sent)) == (["101"], 1)


def test_what_was_found_counts_when_the_vendor_may_not_show_everything(unconfirmed: Bench) -> None:
    unconfirmed.shop.not_shown = failing(IncompleteSearchError)  # type: ignore[assignment]
    unconfirmed.shop.hits = [hit(101, unconfirmed.clock)]
    unconfirmed.retry()
    assert (unconfirmed.linked(), len(unconfirmed.shop.sent)) == (["101"], 1)


def test_needs_review_when_all_that_is_shown_is_anothers_and_there_may_be_more(unconfirmed: Bench) -> None:
    unconfirmed.run("other")
    unconfirmed.shop.not_shown = failing(IncompleteSearchError)  # type: ignore[assignment]
    unconfirmed.shop.hits = [hit(102, unconfirmed.clock)]
    unconfirmed.clock.move(unconfirmed.shop.search_lag)
    unconfirmed.retry()
    assert (unconfirmed.stored().state, unconfirmed.stored().attempts[-1].reason) == (State.NEEDS_REVIEW, "because")
    assert len(unconfirmed.shop.sent) == 2


def test_keeps_the_records_for_the_person_who_decides_the_likeliest_first(unconfirmed: Bench) -> None:
    made_at = datetime.fromtimestamp(unconfirmed.clock.now, UTC)
    unconfirmed.shop.hits = [
        Match(Receipt(receipt=1), certain=False, id="1", name="A"),
        Match(Receipt(receipt=2), made_at, False, "2", "B" * 900),
        Match(Receipt(receipt=3), certain=True, id="3", name="C"),
        Match(Receipt(receipt=4), certain=True, id="4", name="D"),
        *(Match(Receipt(receipt=5 + more), certain=False, id=str(5 + more)) for more in range(20)),
    ]
    unconfirmed.clock.move(unconfirmed.shop.search_lag)
    unconfirmed.look_twice()
    stored = unconfirmed.stored()
    assert stored.attempts[-1].reason == "24 records at the vendor may be this event's"
    assert stored.candidates is not None
    assert len(stored.candidates) == POLICY.most_candidates
    assert stored.candidates[:3] == (
        Candidate(id="3", name="C"),
        Candidate(id="4", name="D"),
        Candidate(id="2", name="B" * POLICY.longest_name, created_at=made_at.isoformat()),
    )
    assert stored.candidates_response(names=False)[0] == {"id": "3", "created_at": None}
    assert stored.candidates_response(names=True)[0] == {"id": "3", "created_at": None, "name": "C"}
    assert "candidates" not in stored.to_response()


@pytest.mark.parametrize("decide", ["link", "retry", "discard"])
def test_keeps_the_records_no_longer_than_until_a_person_decided(unconfirmed: Bench, decide: str) -> None:
    unconfirmed.shop.hits = [Match(Receipt(receipt=7), certain=False, id="7", name="A")]
    unconfirmed.clock.move(unconfirmed.shop.search_lag)
    unconfirmed.look_twice()
    in_review = unconfirmed.stored()
    assert in_review.candidates
    if decide == "link":
        unconfirmed.engine.link_existing(unconfirmed.flow, in_review, "7", by="ops", deadline=unconfirmed.deadline)
    else:
        decision = unconfirmed.engine.request_retry if decide == "retry" else unconfirmed.discard
        decision(in_review, by="ops")
    assert unconfirmed.stored().candidates is None


def test_of_more_records_than_are_compared_the_rest_is_left_to_a_person(unconfirmed: Bench) -> None:
    unconfirmed.run("other")
    unconfirmed.shop.hits = [Match(Receipt(receipt=102), certain=False)] * (POLICY.most_compared + 1)
    unconfirmed.clock.move(unconfirmed.shop.search_lag)
    unconfirmed.look_twice()
    assert unconfirmed.stored().attempts[-1].reason == "1 record at the vendor may be this event's"


def test_needs_review_when_the_vendor_cannot_be_asked(unconfirmed: Bench) -> None:
    unconfirmed.shop.hits = failing(CannotLookError)
    unconfirmed.retry()
    stored = unconfirmed.stored()
    assert stored.state is State.NEEDS_REVIEW
    assert stored.attempts[-1].event is Event.IN_DOUBT
    assert len(unconfirmed.shop.sent) == 1


@pytest.mark.parametrize("error", [NotDoneError, MaybeDoneError, RefusedError, ContractBrokenError, SignInRefusedError])
def test_stays_unknown_when_the_look_fails(unconfirmed: Bench, error: type[VendorError]) -> None:
    unconfirmed.shop.hits = failing(error)
    unconfirmed.retry()
    stored = unconfirmed.stored()
    assert stored.state is State.UNCONFIRMED
    assert stored.attempts[-1].event is Event.LOOK_FAILED
    assert stored.due_at == unconfirmed.clock.now + POLICY.retry_delays[1]
    assert len(unconfirmed.shop.sent) == 1


def test_stays_unknown_when_the_links_cannot_be_read(unconfirmed: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    unconfirmed.shop.hits = [hit(101, unconfirmed.clock), hit(102, unconfirmed.clock)]
    monkeypatch.setattr(unconfirmed.tables.links, "taken", raising(StorageError("down")))
    unconfirmed.retry()
    assert unconfirmed.stored().state is State.UNCONFIRMED
    assert len(unconfirmed.shop.sent) == 1


def test_looks_again_after_the_search_lag_and_then_sends_once_more(unconfirmed: Bench) -> None:
    lost_at = unconfirmed.stored().unconfirmed_since
    assert lost_at is not None
    unconfirmed.retry()
    waiting = unconfirmed.stored()
    assert waiting.state is State.UNCONFIRMED
    assert waiting.due_at == lost_at + unconfirmed.shop.search_lag
    assert len(unconfirmed.shop.sent) == 1
    unconfirmed.wait_until_due()
    unconfirmed.retry()
    assert unconfirmed.shop.looks == 2
    assert len(unconfirmed.shop.sent) == 2
    assert unconfirmed.stored().state is State.SUCCEEDED


def test_links_the_record_when_it_shows_up_within_the_search_lag(unconfirmed: Bench) -> None:
    unconfirmed.retry()
    unconfirmed.shop.hits = [hit(101, unconfirmed.clock)]
    unconfirmed.wait_until_due()
    unconfirmed.retry()
    assert unconfirmed.linked() == ["101"]
    assert len(unconfirmed.shop.sent) == 1


def test_looks_again_when_the_second_sending_is_lost_too(unconfirmed: Bench) -> None:
    unconfirmed.retry()
    unconfirmed.wait_until_due()
    unconfirmed.shop.answers = [failing(MaybeDoneError)]
    unconfirmed.retry()
    stored = unconfirmed.stored()
    assert stored.state is State.UNCONFIRMED
    assert stored.unconfirmed_since == unconfirmed.clock.now  # the lag counts from the last sending
    unconfirmed.shop.hits = [hit(102, unconfirmed.clock)]
    unconfirmed.wait_until_due()
    unconfirmed.retry()
    assert unconfirmed.linked() == ["102"]
    assert len(unconfirmed.shop.sent) == 2


def test_does_not_link_a_record_that_is_older_than_the_first_attempt(unconfirmed: Bench) -> None:
    unconfirmed.shop.hits = [
        hit(99, unconfirmed.clock, ago=unconfirmed.clock.now - unconfirmed.stored().created_at + POLICY.clock_skew + 1)
    ]
    unconfirmed.clock.move(unconfirmed.shop.search_lag)
    unconfirmed.retry()
    assert unconfirmed.linked() == ["102"]  # sent once more, since none of what it found could be ours
    assert len(unconfirmed.shop.sent) == 2


def test_links_a_record_when_the_vendors_clock_is_a_little_behind(unconfirmed: Bench) -> None:
    unconfirmed.shop.hits = [
        hit(101, unconfirmed.clock, ago=unconfirmed.clock.now - unconfirmed.stored().created_at + POLICY.clock_skew - 1)
    ]
    unconfirmed.retry()
    assert unconfirmed.linked() == ["101"]


def test_does_not_link_the_record_of_a_namesake(unconfirmed: Bench) -> None:
    other = unconfirmed.run("other")
    assert other.operation.result == '{"receipt":102}'
    unconfirmed.shop.hits = [hit(102, unconfirmed.clock)]
    unconfirmed.clock.move(unconfirmed.shop.search_lag)
    unconfirmed.retry()
    assert unconfirmed.linked("other") == ["102"]
    assert unconfirmed.linked() == ["103"]


def test_asks_nothing_before_it_links_the_only_record_that_is_possible(
    unconfirmed: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unconfirmed.tables.links, "taken", raising(AssertionError("asked")))
    unconfirmed.shop.hits = [hit(101, unconfirmed.clock)]
    unconfirmed.retry()
    assert unconfirmed.linked() == ["101"]


def test_looks_again_when_another_operation_links_the_record_first(
    unconfirmed: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    unconfirmed.run("other")
    unconfirmed.run("third")
    unconfirmed.shop.hits = [hit(102, unconfirmed.clock), hit(103, unconfirmed.clock)]
    monkeypatch.setattr(
        unconfirmed.tables.links, "taken", lambda *_: [False, True]
    )  # as if the first was free a moment ago
    unconfirmed.retry()
    assert unconfirmed.stored().state is State.UNCONFIRMED
    assert unconfirmed.linked("other") == ["102"]
    assert unconfirmed.linked() == []


def test_looks_before_it_sends_when_a_sending_after_a_doubt_was_surely_not_done(unconfirmed: Bench) -> None:
    """The first sending may still be done late, and the wait for the second is long enough for that."""
    unconfirmed.clock.move(unconfirmed.shop.search_lag)
    unconfirmed.shop.answers = [failing(NotDoneError)]
    unconfirmed.retry()
    assert unconfirmed.stored().state is State.WAITING
    unconfirmed.shop.hits = [hit(101, unconfirmed.clock)]
    unconfirmed.wait_until_due()
    unconfirmed.retry()
    assert unconfirmed.linked() == ["101"]
    assert len(unconfirmed.shop.sent) == 2


def test_needs_review_when_it_is_refused_after_a_doubt(unconfirmed: Bench) -> None:
    """The refusal may be about what the first sending made."""
    unconfirmed.clock.move(unconfirmed.shop.search_lag)
    unconfirmed.shop.answers = [failing(RefusedError, status=409)]
    unconfirmed.retry()
    stored = unconfirmed.stored()
    assert stored.state is State.NEEDS_REVIEW
    assert stored.attempts[-1].event is Event.IN_DOUBT
    assert stored.payload is not None


def test_needs_review_when_it_was_sent_to_an_account_that_the_tenant_no_longer_names(unconfirmed: Bench) -> None:
    unconfirmed.shop.destination = "https://shop.example/2"
    unconfirmed.clock.move(unconfirmed.shop.search_lag)
    unconfirmed.retry()
    assert unconfirmed.stored().state is State.NEEDS_REVIEW
    assert unconfirmed.shop.looks == 0
    assert len(unconfirmed.shop.sent) == 1


def test_looks_where_it_was_sent_last_when_the_account_was_corrected_before(bench: Bench) -> None:
    bench.shop.answers = [failing(SignInRefusedError), failing(MaybeDoneError)]
    bench.run()
    bench.shop.destination = "https://shop.example/2"
    bench.wait_until_due()
    bench.retry()
    assert bench.stored().state is State.UNCONFIRMED
    bench.shop.hits = [hit(102, bench.clock)]
    bench.wait_until_due()
    bench.retry()
    assert bench.linked() == ["102"]


@pytest.mark.parametrize(("found", "told"), [(2, "2 records"), (3, "3 records")])
def test_says_how_many_records_fit_when_a_person_has_to_decide(unconfirmed: Bench, found: int, told: str) -> None:
    unconfirmed.shop.hits = [hit(100 + number, unconfirmed.clock) for number in range(found)]
    outcome = unconfirmed.retry()
    assert outcome is not None
    assert outcome.error is not None
    assert (outcome.error.vendor, outcome.error.message[:9]) == ("orders", told)
    assert unconfirmed.stored().attempts[-1].event is Event.IN_DOUBT


def test_needs_review_after_the_search_lag_when_the_vendor_shows_nothing_that_would_prove_it(
    unconfirmed: Bench,
) -> None:
    unconfirmed.shop.hits = failing(IncompleteSearchError)
    unconfirmed.retry()
    waiting = unconfirmed.stored()
    assert (waiting.state, waiting.attempts[-1].event) == (State.UNCONFIRMED, Event.NOT_FOUND_YET)
    assert waiting.due_at == (waiting.unconfirmed_since or 0) + unconfirmed.shop.search_lag
    unconfirmed.wait_until_due()
    unconfirmed.retry()
    stored = unconfirmed.stored()
    assert (stored.state, stored.attempts[-1].reason) == (State.NEEDS_REVIEW, "because")
    assert len(unconfirmed.shop.sent) == 1


def test_an_operation_in_doubt_that_was_sent_to_an_account_no_longer_named_says_so(unconfirmed: Bench) -> None:
    unconfirmed.shop.destination = "https://shop.example/2"
    outcome = unconfirmed.retry()
    assert outcome is not None
    assert outcome.error is not None
    assert (outcome.error.vendor, outcome.error.message) == (
        "shop",
        "it was sent to an account that the tenant no longer names",
    )


def test_the_search_lag_counts_from_the_moment_of_the_doubt(unconfirmed: Bench) -> None:
    lost_at = unconfirmed.stored().unconfirmed_since or 0
    unconfirmed.clock.now = lost_at + unconfirmed.shop.search_lag - 1
    unconfirmed.retry()
    assert unconfirmed.stored().state is State.UNCONFIRMED
    assert len(unconfirmed.shop.sent) == 1
    unconfirmed.wait_until_due()
    unconfirmed.retry()
    assert len(unconfirmed.shop.sent) == 2
    assert unconfirmed.clock.now == lost_at + unconfirmed.shop.search_lag
    assert unconfirmed.shop.asked[-1] == ("vendor", "acme", unconfirmed.deadline)


def test_a_record_is_linked_that_this_very_event_has_linked_already(unconfirmed: Bench) -> None:
    """As when a saving was thought to be lost."""
    unconfirmed.shop.hits = [hit(101, unconfirmed.clock)]
    link = Link(Identity("crm", "order", "1"), Identity("shop", "receipt", "101"))
    writes = [*unconfirmed.tables.links.puts("acme", [link], unconfirmed.stored().operation_id, unconfirmed.clock.now)]
    unconfirmed.tables.links.write(writes)
    unconfirmed.retry()
    assert unconfirmed.stored().state is State.SUCCEEDED


def test_is_asked_about_with_its_own_command(unconfirmed: Bench) -> None:
    unconfirmed.retry()
    assert ("find", Order(number="1")) in unconfirmed.shop.asked
    assert unconfirmed.shop.asked[-2] == ("vendor", "acme", unconfirmed.deadline)


def test_says_that_another_event_was_quicker_to_link_the_record(
    unconfirmed: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    unconfirmed.run("other")
    unconfirmed.run("third")
    unconfirmed.shop.hits = [hit(102, unconfirmed.clock), hit(103, unconfirmed.clock)]
    monkeypatch.setattr(unconfirmed.tables.links, "taken", lambda *_: [False, True])
    unconfirmed.retry()
    attempt = unconfirmed.stored().attempts[-1]
    assert (attempt.event, attempt.reason) == (
        Event.LOOK_FAILED,
        "the record that was found was linked by another event",
    )
    assert unconfirmed.stored().due_at == unconfirmed.clock.now + POLICY.retry_delays[1]


def test_needs_review_when_several_records_fit_although_this_very_event_has_linked_one(unconfirmed: Bench) -> None:
    link = Link(Identity("crm", "order", "1"), Identity("shop", "receipt", "101"))
    unconfirmed.tables.links.write(
        [*unconfirmed.tables.links.puts("acme", [link], unconfirmed.stored().operation_id, 1)]
    )
    unconfirmed.shop.hits = [hit(101, unconfirmed.clock), hit(102, unconfirmed.clock)]
    unconfirmed.retry()
    assert unconfirmed.stored().state is State.NEEDS_REVIEW


def test_the_flow_knows_the_operation_that_it_looks_for(unconfirmed: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def find(flow: Any, *_: object) -> list[Match[Receipt]]:
        seen.append(flow.context.operation.operation_id)
        return []

    monkeypatch.setattr(unconfirmed.flow, "find", find)
    unconfirmed.retry()
    assert seen == [unconfirmed.stored().operation_id]


def test_the_payload_of_what_was_found_is_kept_for_as_long_as_the_operation_could_be_unlinked(
    unconfirmed: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    until = kept_until(unconfirmed, monkeypatch)
    unconfirmed.shop.hits = [hit(101, unconfirmed.clock)]
    unconfirmed.retry()
    assert until == [int(unconfirmed.clock.now) + POLICY.keep]

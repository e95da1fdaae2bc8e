"""An operation in doubt is looked up at the vendor before it is sent again."""

from datetime import UTC, datetime

import pytest

from crm_bridge.engine import POLICY, Hit
from crm_bridge.errors import (
    CannotLookError,
    ContractBrokenError,
    Event,
    MaybeDoneError,
    NotDoneError,
    NotShownError,
    RefusedError,
    SignInRefusedError,
    StorageError,
    VendorError,
)
from crm_bridge.links import Identity, Link
from crm_bridge.operations import Candidate, State
from tests.unit.engine.conftest import Bench, Order, Receipt, failing, hit, raising


def test_adopts_the_record_when_exactly_one_fits(unknown: Bench) -> None:
    unknown.shop.hits = [hit(101, unknown.clock)]
    outcome = unknown.redeliver()
    assert outcome is not None
    assert outcome.operation.state is State.SUCCEEDED
    assert outcome.operation.answer == '{"receipt":101}'
    assert unknown.linked() == ["101"]
    assert len(unknown.shop.sent) == 1


def test_adopts_the_record_when_the_vendor_does_not_say_how_old_it_is(unknown: Bench) -> None:
    unknown.shop.hits = [Hit(Receipt(receipt=101))]
    unknown.redeliver()
    assert unknown.linked() == ["101"]


def test_is_parked_when_several_records_fit(unknown: Bench) -> None:
    unknown.shop.hits = [hit(101, unknown.clock), hit(102, unknown.clock)]
    unknown.redeliver()
    assert unknown.stored().state is State.PARKED
    assert unknown.linked() == []
    assert len(unknown.shop.sent) == 1


def test_adopts_the_certain_record_when_others_only_may_be_the_one(unknown: Bench) -> None:
    unknown.shop.hits = [hit(101, unknown.clock), Hit(Receipt(receipt=7), certain=False)]
    unknown.redeliver()
    assert unknown.linked() == ["101"]


def test_is_parked_when_a_record_only_may_be_the_one_in_two_looks(unknown: Bench) -> None:
    unknown.shop.hits = [Hit(Receipt(receipt=7), certain=False)]
    unknown.clock.move(unknown.shop.search_lag)
    unknown.redeliver()
    waiting = unknown.stored()
    assert (waiting.state, waiting.due_at) == (State.UNKNOWN, unknown.clock.now + unknown.shop.search_lag)
    unknown.wait_until_due()
    unknown.redeliver()
    assert unknown.stored().state is State.PARKED
    assert len(unknown.shop.sent) == 1


def test_is_sent_again_when_the_record_that_may_be_the_one_is_linked_to_another_meanwhile(unknown: Bench) -> None:
    unknown.shop.hits = [Hit(Receipt(receipt=102), certain=False)]
    unknown.clock.move(unknown.shop.search_lag)
    unknown.redeliver()
    assert unknown.run("other").operation.answer == '{"receipt":102}'
    unknown.wait_until_due()
    unknown.redeliver()
    assert (unknown.linked(), unknown.stored().candidates) == (["103"], None)


def test_waits_out_the_search_lag_when_a_record_only_may_be_the_one(unknown: Bench) -> None:
    """Its own may not be shown yet, and the other may be linked by then."""
    unknown.shop.hits = [Hit(Receipt(receipt=7), certain=False)]
    unknown.redeliver()
    waiting = unknown.stored()
    assert (waiting.state, waiting.attempts[-1].event) == (State.UNKNOWN, Event.NOT_FOUND_YET)
    assert waiting.due_at == (waiting.unknown_since or 0) + unknown.shop.search_lag
    unknown.shop.hits.append(hit(101, unknown.clock))
    unknown.wait_until_due()
    unknown.redeliver()
    assert (unknown.linked(), len(unknown.shop.sent)) == (["101"], 1)


def test_what_was_found_counts_when_the_vendor_may_not_show_everything(unknown: Bench) -> None:
    unknown.shop.not_shown = failing(NotShownError)  # type: ignore[assignment]
    unknown.shop.hits = [hit(101, unknown.clock)]
    unknown.redeliver()
    assert (unknown.linked(), len(unknown.shop.sent)) == (["101"], 1)


def test_is_parked_when_all_that_is_shown_is_anothers_and_there_may_be_more(unknown: Bench) -> None:
    unknown.run("other")
    unknown.shop.not_shown = failing(NotShownError)  # type: ignore[assignment]
    unknown.shop.hits = [hit(102, unknown.clock)]
    unknown.clock.move(unknown.shop.search_lag)
    unknown.redeliver()
    assert (unknown.stored().state, unknown.stored().attempts[-1].reason) == (State.PARKED, "because")
    assert len(unknown.shop.sent) == 2


def test_keeps_the_records_for_the_person_who_decides_the_likeliest_first(unknown: Bench) -> None:
    made_at = datetime.fromtimestamp(unknown.clock.now, UTC)
    unknown.shop.hits = [
        Hit(Receipt(receipt=1), certain=False, id="1", name="A"),
        Hit(Receipt(receipt=2), made_at, False, "2", "B" * 900),
        Hit(Receipt(receipt=3), certain=True, id="3", name="C"),
        Hit(Receipt(receipt=4), certain=True, id="4", name="D"),
        *(Hit(Receipt(receipt=5 + more), certain=False, id=str(5 + more)) for more in range(20)),
    ]
    unknown.clock.move(unknown.shop.search_lag)
    unknown.look_twice()
    stored = unknown.stored()
    assert stored.attempts[-1].reason == "24 records at the vendor may be this event's"
    assert stored.candidates is not None
    assert len(stored.candidates) == POLICY.most_candidates
    assert stored.candidates[:3] == (
        Candidate(id="3", name="C"),
        Candidate(id="4", name="D"),
        Candidate(id="2", name="B" * POLICY.longest_name, created_at=made_at.isoformat()),
    )
    assert stored.shown_candidates(names=False)[0] == {"id": "3", "created_at": None}
    assert stored.shown_candidates(names=True)[0] == {"id": "3", "created_at": None, "name": "C"}
    assert "candidates" not in stored.shown()


@pytest.mark.parametrize("decide", ["adopt", "resend", "abandon"])
def test_keeps_the_records_no_longer_than_until_a_person_decided(unknown: Bench, decide: str) -> None:
    unknown.shop.hits = [Hit(Receipt(receipt=7), certain=False, id="7", name="A")]
    unknown.clock.move(unknown.shop.search_lag)
    unknown.look_twice()
    parked = unknown.stored()
    assert parked.candidates
    if decide == "adopt":
        unknown.engine.adopt(unknown.flow, parked, "7", by="ops", deadline=unknown.deadline)
    else:
        getattr(unknown.engine, decide)(parked, by="ops")
    assert unknown.stored().candidates is None


def test_of_more_records_than_are_compared_the_rest_is_left_to_a_person(unknown: Bench) -> None:
    unknown.run("other")
    unknown.shop.hits = [Hit(Receipt(receipt=102), certain=False)] * (POLICY.most_compared + 1)
    unknown.clock.move(unknown.shop.search_lag)
    unknown.look_twice()
    assert unknown.stored().attempts[-1].reason == "1 record at the vendor may be this event's"


def test_is_parked_when_the_vendor_cannot_be_asked(unknown: Bench) -> None:
    unknown.shop.hits = failing(CannotLookError)
    unknown.redeliver()
    stored = unknown.stored()
    assert stored.state is State.PARKED
    assert stored.attempts[-1].event is Event.IN_DOUBT
    assert len(unknown.shop.sent) == 1


@pytest.mark.parametrize("error", [NotDoneError, MaybeDoneError, RefusedError, ContractBrokenError, SignInRefusedError])
def test_stays_unknown_when_the_look_fails(unknown: Bench, error: type[VendorError]) -> None:
    unknown.shop.hits = failing(error)
    unknown.redeliver()
    stored = unknown.stored()
    assert stored.state is State.UNKNOWN
    assert stored.attempts[-1].event is Event.LOOK_FAILED
    assert stored.due_at == unknown.clock.now + POLICY.retry_delays[1]
    assert len(unknown.shop.sent) == 1


def test_stays_unknown_when_the_links_cannot_be_read(unknown: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown.shop.hits = [hit(101, unknown.clock)]
    monkeypatch.setattr(unknown.tables.links, "taken", raising(StorageError("down")))
    unknown.redeliver()
    assert unknown.stored().state is State.UNKNOWN
    assert len(unknown.shop.sent) == 1


def test_looks_again_after_the_search_lag_and_then_sends_once_more(unknown: Bench) -> None:
    lost_at = unknown.stored().unknown_since
    assert lost_at is not None
    unknown.redeliver()
    waiting = unknown.stored()
    assert waiting.state is State.UNKNOWN
    assert waiting.due_at == lost_at + unknown.shop.search_lag
    assert len(unknown.shop.sent) == 1
    unknown.wait_until_due()
    unknown.redeliver()
    assert unknown.shop.looks == 2
    assert len(unknown.shop.sent) == 2
    assert unknown.stored().state is State.SUCCEEDED


def test_adopts_the_record_when_it_shows_up_within_the_search_lag(unknown: Bench) -> None:
    unknown.redeliver()
    unknown.shop.hits = [hit(101, unknown.clock)]
    unknown.wait_until_due()
    unknown.redeliver()
    assert unknown.linked() == ["101"]
    assert len(unknown.shop.sent) == 1


def test_looks_again_when_the_second_sending_is_lost_too(unknown: Bench) -> None:
    unknown.redeliver()
    unknown.wait_until_due()
    unknown.shop.answers = [failing(MaybeDoneError)]
    unknown.redeliver()
    stored = unknown.stored()
    assert stored.state is State.UNKNOWN
    assert stored.unknown_since == unknown.clock.now  # the lag counts from the last sending
    unknown.shop.hits = [hit(102, unknown.clock)]
    unknown.wait_until_due()
    unknown.redeliver()
    assert unknown.linked() == ["102"]
    assert len(unknown.shop.sent) == 2


def test_does_not_adopt_a_record_that_is_older_than_the_first_attempt(unknown: Bench) -> None:
    unknown.shop.hits = [
        hit(99, unknown.clock, ago=unknown.clock.now - unknown.stored().created_at + POLICY.clock_skew + 1)
    ]
    unknown.clock.move(unknown.shop.search_lag)
    unknown.redeliver()
    assert unknown.linked() == ["102"]  # sent once more, since none of what it found could be ours
    assert len(unknown.shop.sent) == 2


def test_adopts_a_record_when_the_vendors_clock_is_a_little_behind(unknown: Bench) -> None:
    unknown.shop.hits = [
        hit(101, unknown.clock, ago=unknown.clock.now - unknown.stored().created_at + POLICY.clock_skew - 1)
    ]
    unknown.redeliver()
    assert unknown.linked() == ["101"]


def test_does_not_adopt_the_record_of_a_namesake(unknown: Bench) -> None:
    other = unknown.run("other")
    assert other.operation.answer == '{"receipt":102}'
    unknown.shop.hits = [hit(102, unknown.clock)]
    unknown.clock.move(unknown.shop.search_lag)
    unknown.redeliver()
    assert unknown.linked("other") == ["102"]
    assert unknown.linked() == ["103"]


def test_looks_again_when_another_operation_adopts_the_record_first(
    unknown: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown.run("other")
    unknown.shop.hits = [hit(102, unknown.clock)]
    monkeypatch.setattr(
        unknown.tables.links, "taken", lambda _, groups, __: [False] * len(groups)
    )  # as if it was free a moment ago
    unknown.redeliver()
    assert unknown.stored().state is State.UNKNOWN
    assert unknown.linked("other") == ["102"]
    assert unknown.linked() == []


def test_looks_before_it_sends_when_a_sending_after_a_doubt_was_surely_not_done(unknown: Bench) -> None:
    """The first sending may still be done late, and the wait for the second is long enough for that."""
    unknown.clock.move(unknown.shop.search_lag)
    unknown.shop.answers = [failing(NotDoneError)]
    unknown.redeliver()
    assert unknown.stored().state is State.WAITING
    unknown.shop.hits = [hit(101, unknown.clock)]
    unknown.wait_until_due()
    unknown.redeliver()
    assert unknown.linked() == ["101"]
    assert len(unknown.shop.sent) == 2


def test_is_parked_when_it_is_refused_after_a_doubt(unknown: Bench) -> None:
    """The refusal may be about what the first sending made."""
    unknown.clock.move(unknown.shop.search_lag)
    unknown.shop.answers = [failing(RefusedError, status=409)]
    unknown.redeliver()
    stored = unknown.stored()
    assert stored.state is State.PARKED
    assert stored.attempts[-1].event is Event.IN_DOUBT
    assert stored.payload is not None


def test_is_parked_when_it_was_sent_to_an_account_that_the_tenant_no_longer_names(unknown: Bench) -> None:
    unknown.shop.destination = "https://shop.example/2"
    unknown.clock.move(unknown.shop.search_lag)
    unknown.redeliver()
    assert unknown.stored().state is State.PARKED
    assert unknown.shop.looks == 0
    assert len(unknown.shop.sent) == 1


def test_looks_where_it_was_sent_last_when_the_account_was_corrected_before(bench: Bench) -> None:
    bench.shop.answers = [failing(SignInRefusedError), failing(MaybeDoneError)]
    bench.run()
    bench.shop.destination = "https://shop.example/2"
    bench.wait_until_due()
    bench.redeliver()
    assert bench.stored().state is State.UNKNOWN
    bench.shop.hits = [hit(102, bench.clock)]
    bench.wait_until_due()
    bench.redeliver()
    assert bench.linked() == ["102"]


@pytest.mark.parametrize(("found", "told"), [(2, "2 records"), (3, "3 records")])
def test_says_how_many_records_fit_when_a_person_has_to_decide(unknown: Bench, found: int, told: str) -> None:
    unknown.shop.hits = [hit(100 + number, unknown.clock) for number in range(found)]
    outcome = unknown.redeliver()
    assert outcome is not None
    assert outcome.error is not None
    assert (outcome.error.vendor, outcome.error.message[:9]) == ("orders", told)
    assert unknown.stored().attempts[-1].event is Event.IN_DOUBT


def test_is_parked_after_the_search_lag_when_the_vendor_shows_nothing_that_would_prove_it(unknown: Bench) -> None:
    unknown.shop.hits = failing(NotShownError)
    unknown.redeliver()
    waiting = unknown.stored()
    assert (waiting.state, waiting.attempts[-1].event) == (State.UNKNOWN, Event.NOT_FOUND_YET)
    assert waiting.due_at == (waiting.unknown_since or 0) + unknown.shop.search_lag
    unknown.wait_until_due()
    unknown.redeliver()
    stored = unknown.stored()
    assert (stored.state, stored.attempts[-1].reason) == (State.PARKED, "because")
    assert len(unknown.shop.sent) == 1


def test_an_operation_in_doubt_that_was_sent_to_an_account_no_longer_named_says_so(unknown: Bench) -> None:
    unknown.shop.destination = "https://shop.example/2"
    outcome = unknown.redeliver()
    assert outcome is not None
    assert outcome.error is not None
    assert (outcome.error.vendor, outcome.error.message) == (
        "orders",
        "it was sent to an account that the tenant no longer names",
    )


def test_the_search_lag_counts_from_the_moment_of_the_doubt(unknown: Bench) -> None:
    lost_at = unknown.stored().unknown_since or 0
    unknown.clock.now = lost_at + unknown.shop.search_lag - 1
    unknown.redeliver()
    assert unknown.stored().state is State.UNKNOWN
    assert len(unknown.shop.sent) == 1
    unknown.wait_until_due()
    unknown.redeliver()
    assert len(unknown.shop.sent) == 2
    assert unknown.clock.now == lost_at + unknown.shop.search_lag
    assert unknown.flow.asked[-1] == ("vendor", "acme", "acme", unknown.deadline)


def test_a_record_is_adopted_that_this_very_event_has_linked_already(unknown: Bench) -> None:
    """As when a saving was thought to be lost."""
    unknown.shop.hits = [hit(101, unknown.clock)]
    link = Link(Identity("crm", "order", "1"), Identity("shop", "receipt", "101"))
    writes = [*unknown.tables.links.puts("acme", [link], unknown.stored().operation_id, unknown.clock.now)]
    unknown.tables.links.write(writes)
    unknown.redeliver()
    assert unknown.stored().state is State.SUCCEEDED


def test_is_asked_about_with_its_own_command(unknown: Bench) -> None:
    unknown.redeliver()
    assert ("find", Order(number="1")) in unknown.flow.asked
    assert unknown.flow.asked[-2] == ("vendor", "acme", "acme", unknown.deadline)


def test_says_that_another_event_was_quicker_to_adopt_the_record(
    unknown: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown.run("other")
    unknown.shop.hits = [hit(102, unknown.clock)]
    monkeypatch.setattr(unknown.tables.links, "taken", lambda _, groups, __: [False] * len(groups))
    unknown.redeliver()
    attempt = unknown.stored().attempts[-1]
    assert (attempt.event, attempt.reason) == (Event.LOOK_FAILED, "the record was adopted by another event")
    assert unknown.stored().due_at == unknown.clock.now + POLICY.retry_delays[1]

"""An operation that the vendor asked to send later."""

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
    TryLaterError,
    VendorError,
)
from crm_bridge.flow import Match
from crm_bridge.storage.operation import State
from tests.unit.engine.conftest import Bench, Receipt, failing, hit


@pytest.fixture
def deferred(bench: Bench) -> Bench:
    """An operation whose vendor said 429, or 503 with Retry-After, and that is due."""
    bench.shop.answers = [failing(TryLaterError, status=503, retry_after=40)]
    bench.run()
    assert (bench.stored().state, bench.stored().due_at) == (State.WAITING, bench.clock.now + 40)
    bench.wait_until_due()
    return bench


def test_links_what_the_vendor_did_although_it_asked_to_send_it_later(deferred: Bench) -> None:
    deferred.shop.hits = [hit(101, deferred.clock)]
    deferred.retry()
    assert (deferred.linked(), len(deferred.shop.sent)) == (["101"], 1)


def test_is_sent_again_once_a_look_after_the_search_lag_found_nothing(deferred: Bench) -> None:
    """Before, its record may be there and not be shown, and a second sending would make another."""
    asked_at = deferred.stored().deferred_at or 0
    deferred.retry()
    waiting = deferred.stored()
    assert (waiting.state, waiting.due_at) == (State.WAITING, asked_at + deferred.shop.search_lag)
    assert waiting.attempts[-1].event is Event.NOT_DONE
    assert len(deferred.shop.sent) == 1
    deferred.wait_until_due()
    deferred.retry()
    assert (deferred.linked(), len(deferred.shop.sent), deferred.shop.looks) == (["102"], 2, 2)
    assert deferred.stored().deferred_at is None


@pytest.mark.parametrize("error", [CannotLookError, IncompleteSearchError])
def test_is_sent_again_when_the_vendor_cannot_be_asked_but_only_asked_for_time(
    deferred: Bench, error: type[VendorError]
) -> None:
    deferred.shop.hits = failing(error)
    deferred.clock.move(deferred.shop.search_lag)
    deferred.retry()
    assert (deferred.linked(), len(deferred.shop.sent)) == (["102"], 2)


@pytest.mark.parametrize(
    "error", [NotDoneError, MaybeDoneError, RefusedError, ContractBrokenError, SignInRefusedError, TryLaterError]
)
def test_waits_as_before_when_the_look_fails(deferred: Bench, error: type[VendorError]) -> None:
    asked_at = deferred.stored().deferred_at
    deferred.shop.hits = failing(error)
    deferred.retry()
    stored = deferred.stored()
    assert (stored.state, stored.unconfirmed_since, stored.deferred_at) == (State.WAITING, None, asked_at)
    assert stored.due_at == deferred.clock.now + POLICY.retry_delays[1]
    assert len(deferred.shop.sent) == 1


def test_needs_review_when_a_record_may_be_what_the_vendor_did_although_it_asked_for_time(deferred: Bench) -> None:
    deferred.shop.hits = [Match(Receipt(receipt=7), certain=False, id="7")]
    deferred.retry()
    assert deferred.stored().state is State.WAITING
    deferred.wait_until_due()
    deferred.retry()
    assert (deferred.stored().state, len(deferred.shop.sent)) == (State.NEEDS_REVIEW, 1)


def test_is_looked_for_until_a_look_succeeds_whatever_fails_in_between(deferred: Bench) -> None:
    deferred.shop.hits = failing(NotDoneError)
    deferred.retry()
    deferred.wait_until_due()
    deferred.retry()
    deferred.shop.hits = [hit(101, deferred.clock)]
    deferred.wait_until_due()
    deferred.retry()
    assert (deferred.linked(), len(deferred.shop.sent)) == (["101"], 1)


def test_is_rejected_when_it_is_refused_after_a_look_found_nothing(deferred: Bench) -> None:
    deferred.clock.move(deferred.shop.search_lag)
    deferred.shop.answers = [failing(RefusedError, status=400)]
    deferred.retry()
    assert deferred.stored().state is State.REJECTED


def test_does_not_give_way_to_another_when_the_vendor_asked_for_time(deferred: Bench) -> None:
    """What takes its place would be sent without a look."""
    outcome = deferred.run(note="newer", over_undone=True)
    assert (outcome.ran, len(deferred.shop.sent)) == (False, 1)


def test_is_not_looked_for_when_the_vendor_asked_for_time_and_it_may_be_repeated(bench: Bench) -> None:
    bench.let_repeat()
    bench.shop.answers = [failing(TryLaterError)]
    bench.run()
    assert bench.stored().deferred_at is None
    bench.wait_until_due()
    bench.retry()
    assert (len(bench.shop.sent), bench.shop.looks) == (2, 0)


@pytest.mark.parametrize(
    ("anew", "linked", "sent"), [(False, ["101"], POLICY.last_try), (True, ["112"], POLICY.last_try + 1)]
)
def test_is_looked_for_when_it_is_taken_up_again_without_a_persons_look(
    bench: Bench, anew: bool, linked: list[str], sent: int
) -> None:
    bench.shop.search_lag = 0
    bench.shop.answers = [failing(TryLaterError) for _ in range(POLICY.last_try)]
    bench.run()
    while bench.stored().state is not State.NEEDS_REVIEW:
        bench.wait_until_due()
        bench.retry()
    bench.engine.request_retry(bench.stored(), by="ops", anew=anew)
    bench.shop.hits = [hit(101, bench.clock)]
    bench.retry()
    assert (bench.linked(), len(bench.shop.sent)) == (linked, sent)

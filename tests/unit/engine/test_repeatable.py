"""Commands that are harmless to repeat: sent again without a look-up."""

import pytest

from crm_bridge.errors import (
    ContractBrokenError,
    HalfDoneError,
    MaybeDoneError,
    NeedlessError,
    NotDoneError,
    RefusedError,
    VendorError,
)
from crm_bridge.storage.operation import State
from tests.unit.engine.conftest import Bench, Killed, failing, kill


@pytest.mark.parametrize("answer", [NotDoneError, MaybeDoneError, ContractBrokenError])
def test_is_sent_again_without_a_look_when_it_may_be_repeated(bench: Bench, answer: type[VendorError]) -> None:
    bench.let_repeat()
    bench.shop.answers = [failing(answer)]
    bench.run()
    bench.wait_until_due()
    bench.retry()
    assert bench.stored().state is State.SUCCEEDED
    assert (len(bench.shop.sent), bench.shop.looks) == (2, 0)
    assert bench.shop.asked[-1] == ("vendor", "acme", bench.deadline)


@pytest.mark.parametrize(
    ("first", "then", "state"),
    [
        (NotDoneError, RefusedError, State.REJECTED),
        (MaybeDoneError, RefusedError, State.NEEDS_REVIEW),
        (MaybeDoneError, NeedlessError, State.REJECTED),
        (HalfDoneError, RefusedError, State.NEEDS_REVIEW),
    ],
)
def test_needs_review_when_what_may_be_repeated_is_refused_after_a_doubt(
    bench: Bench, first: type[VendorError], then: type[VendorError], state: State
) -> None:
    bench.let_repeat()
    bench.shop.answers = [failing(first), failing(then)]
    bench.run()
    bench.wait_until_due()
    bench.retry()
    assert bench.stored().state is state


def test_needs_review_when_what_may_be_repeated_is_refused_after_its_sender_has_died(bench: Bench) -> None:
    bench.let_repeat()
    bench.shop.during = kill
    with pytest.raises(Killed):
        bench.run()
    bench.shop.during = lambda: None
    bench.wait_until_due()
    bench.shop.answers = [failing(RefusedError)]
    bench.retry()
    assert bench.stored().state is State.NEEDS_REVIEW


def test_stays_in_doubt_when_what_may_be_repeated_is_surely_not_done_later(bench: Bench) -> None:
    bench.let_repeat()
    bench.shop.answers = [failing(MaybeDoneError), failing(NotDoneError), failing(RefusedError)]
    bench.run()
    for _ in range(2):
        bench.wait_until_due()
        bench.retry()
    assert bench.stored().state is State.NEEDS_REVIEW


def test_is_not_sent_to_another_account_when_it_is_about_what_is_there(bench: Bench) -> None:
    bench.let_repeat()
    bench.shop.answers = [failing(NotDoneError)]
    bench.run()
    bench.shop.destination = "https://shop.example/2"
    bench.wait_until_due()
    bench.retry()
    assert bench.stored().state is State.NEEDS_REVIEW
    assert len(bench.shop.sent) == 1


def test_goes_to_the_account_that_there_is_when_a_person_lets_it_begin_anew(bench: Bench) -> None:
    bench.let_repeat()
    bench.shop.answers = [failing(NotDoneError)]
    bench.run()
    bench.shop.destination = "https://shop.example/2"
    bench.wait_until_due()
    bench.retry()
    bench.engine.request_retry(bench.stored(), by="a test")
    bench.retry()
    assert bench.stored().state is State.SUCCEEDED


def test_says_that_it_is_about_an_account_that_is_no_longer_named(bench: Bench) -> None:
    bench.let_repeat()
    bench.run(later=True)
    bench.shop.destination = "https://shop.example/2"
    outcome = bench.retry()
    assert outcome is not None
    assert outcome.error is not None
    assert (outcome.error.vendor, outcome.error.message) == (
        "shop",
        "it is about an account that the tenant no longer names",
    )


def test_is_sent_to_another_account_when_it_makes_something_and_was_surely_not_done(bench: Bench) -> None:
    bench.run(later=True)
    bench.shop.destination = "https://shop.example/2"
    bench.retry()
    assert (bench.stored().state, bench.stored().sent_to) == (State.SUCCEEDED, "https://shop.example/2")

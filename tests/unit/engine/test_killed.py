"""A function that is killed while it sends."""

import pytest

from crm_bridge.engine import POLICY
from crm_bridge.errors import CannotLookError, Event, MaybeDoneError, NotDoneError
from crm_bridge.storage.operation import State
from operations.retrying import is_safe
from tests.unit.engine.conftest import Bench, Killed, failing, hit, kill


def test_looks_before_it_sends_when_the_function_was_killed_while_sending(bench: Bench) -> None:
    bench.shop.during = kill
    with pytest.raises(Killed):
        bench.run()
    assert bench.stored().state is State.SENDING
    bench.shop.during = lambda: None
    bench.shop.hits = [hit(101, bench.clock)]
    assert bench.retry() is None  # its lease holds
    bench.wait_until_due()
    bench.retry()
    assert bench.linked() == ["101"]
    assert len(bench.shop.sent) == 1
    died, found = bench.stored().attempts
    assert (died.event, died.reason) == (Event.LEASE_EXPIRED, "whoever was sending it has died")
    assert (found.event, found.reason) == (Event.FOUND, "")


def test_waits_out_the_search_lag_from_the_end_of_the_lease_when_the_function_was_killed(bench: Bench) -> None:
    bench.shop.during = kill
    with pytest.raises(Killed):
        bench.run()
    bench.shop.during = lambda: None
    bench.wait_until_due()
    bench.retry()
    assert bench.stored().due_at == bench.clock.now + bench.shop.search_lag
    assert len(bench.shop.sent) == 1
    bench.wait_until_due()
    bench.retry()
    assert (bench.stored().state, len(bench.shop.sent)) == (State.SUCCEEDED, 2)


def test_knows_its_own_record_when_a_worker_was_killed_at_the_first_sending(bench: Bench) -> None:
    """Accepted for later, first sent by a worker: the record is younger than that sending, not than the next look."""
    bench.run(later=True)
    bench.clock.move(1000)
    bench.shop.during = kill
    with pytest.raises(Killed):
        bench.retry()
    made = hit(101, bench.clock)
    bench.shop.during = lambda: None
    bench.shop.hits = [made]
    bench.wait_until_due()
    bench.clock.move(5000)
    bench.retry()
    assert bench.linked() == ["101"]
    assert len(bench.shop.sent) == 1


def test_does_not_link_a_record_from_between_its_acceptance_and_its_first_sending(bench: Bench) -> None:
    bench.run(later=True)
    made_by_somebody_else = hit(7, bench.clock)
    bench.clock.move(POLICY.clock_skew + 1000)
    bench.shop.during = kill
    with pytest.raises(Killed):
        bench.retry()
    bench.shop.during = lambda: None
    bench.shop.hits = [made_by_somebody_else]
    bench.wait_until_due()
    bench.retry()
    assert bench.stored().state is State.UNCONFIRMED
    assert bench.linked() == []


def test_needs_review_when_every_try_ends_in_a_crash(bench: Bench) -> None:
    bench.shop.search_lag = 0
    bench.shop.during = kill
    with pytest.raises(Killed):
        bench.run()
    for _ in range(POLICY.last_try - 1):
        bench.wait_until_due()
        with pytest.raises(Killed):
            bench.retry()
    bench.wait_until_due()
    bench.retry()
    assert bench.stored().state is State.NEEDS_REVIEW


def test_is_looked_for_when_its_function_was_killed_after_a_person_let_it_begin_anew(bench: Bench) -> None:
    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    bench.shop.answers = [failing(MaybeDoneError)]
    bench.shop.hits = failing(CannotLookError)
    bench.run()
    bench.wait_until_due()
    bench.retry()
    bench.engine.request_retry(bench.stored(), by="a test")
    bench.shop.during, bench.shop.hits = kill, [hit(102, bench.clock)]
    with pytest.raises(Killed):
        bench.retry()
    bench.wait_until_due()
    bench.retry()
    assert bench.stored().attempts[-1].event is Event.FOUND


def test_may_be_done_when_the_function_was_killed_at_its_last_try(bench: Bench) -> None:
    """So a retry of all that were surely not done leaves it alone."""
    bench.shop.answers = [failing(NotDoneError) for _ in range(POLICY.last_try - 1)]
    bench.run()
    for _ in range(POLICY.last_try - 2):
        bench.wait_until_due()
        bench.retry()
    bench.wait_until_due()
    bench.shop.during = kill
    with pytest.raises(Killed):
        bench.retry()
    bench.wait_until_due()
    bench.retry()
    assert bench.stored().state is State.NEEDS_REVIEW
    assert bench.stored().unconfirmed_since == int(bench.clock.now)
    assert not is_safe(bench.stored())

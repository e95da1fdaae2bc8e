"""Errors of the bridge itself: three, then a person."""

import pytest
from pydantic import ValidationError

from crm_bridge.engine import POLICY
from crm_bridge.errors import Event, PoisonError
from crm_bridge.outbound.transport import Deadline
from crm_bridge.storage.operation import State
from tests.unit.engine.conftest import Bench, Receipt, raising


def test_is_looked_for_and_sent_again_when_the_bridge_failed_once(bench: Bench) -> None:
    bench.run(later=True)
    bench.shop.during = raising(ZeroDivisionError("a defect"))
    with pytest.raises(ZeroDivisionError):
        bench.retry()
    stored = bench.stored()
    assert (stored.state, stored.due_at) == (State.UNCONFIRMED, bench.clock.now + POLICY.retry_delays[0])
    assert stored.last_attempt is not None
    assert (stored.last_attempt.event, stored.last_attempt.reason) == (
        Event.DEFECT,
        "the bridge failed (ZeroDivisionError)",
    )
    bench.shop.during = lambda: None
    bench.clock.move(bench.shop.search_lag)
    bench.retry()
    assert (bench.stored().state, bench.shop.looks, len(bench.shop.sent)) == (State.SUCCEEDED, 1, 2)


def test_needs_review_and_its_messages_go_on_failing_when_the_bridge_failed_three_times(bench: Bench) -> None:
    bench.run(later=True)
    broken = bench.stored().model_copy(update={"payload": '{"of": "an older version"}'})
    bench.tables.operations.save(broken, over=State.WAITING)
    for _ in range(POLICY.most_defects):
        assert bench.stored().state is not State.NEEDS_REVIEW
        bench.wait_until_due()
        with pytest.raises(ValidationError):
            bench.retry()
    stored = bench.stored()
    assert stored.state is State.NEEDS_REVIEW
    assert [a.event for a in stored.attempts[-4:]] == [Event.DEFECT] * POLICY.most_defects + [Event.OUT_OF_ATTEMPTS]
    with pytest.raises(PoisonError):
        bench.retry()
    bench.engine.request_retry(stored, by="support")
    with pytest.raises(ValidationError):
        bench.retry()
    assert bench.stored().state is State.UNCONFIRMED  # a person gave it three more
    in_review = bench.stored().model_copy(update={"state": State.NEEDS_REVIEW})
    bench.tables.operations.save(in_review, over=State.UNCONFIRMED)
    assert bench.retry() is None


def test_needs_review_again_when_it_failed_as_often_after_a_person_let_it_begin_anew(bench: Bench) -> None:
    bench.run(later=True)
    bench.flow.command = Receipt  # type: ignore[assignment]  # which its payload is none of
    for _ in range(2):
        for failures in range(POLICY.most_defects):
            assert bench.stored().state is (State.UNCONFIRMED if failures else State.WAITING)
            bench.wait_until_due()
            with pytest.raises(ValidationError):
                bench.retry()
        assert bench.stored().state is State.NEEDS_REVIEW
        with pytest.raises(PoisonError):
            bench.retry()
        bench.engine.request_retry(bench.stored(), by="support")


def test_a_flow_that_the_function_does_not_know_is_a_defect(bench: Bench) -> None:
    bench.run(later=True)
    named = bench.stored().operation_id
    with pytest.raises(KeyError):
        bench.engine.retry({}, named, tenant="acme", deadline=Deadline(21, bench.clock))
    assert (bench.stored().state, bench.stored().attempts[-1].event) == (State.UNCONFIRMED, Event.DEFECT)

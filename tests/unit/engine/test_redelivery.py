"""An operation that is due, or lent to a message, is sent again."""

import math

import pytest

from crm_bridge.engine import POLICY, Outcome
from crm_bridge.errors import Event, MissingError, NotDoneError, RefusedError, SignInRefusedError, StorageError
from crm_bridge.outbound.transport import AFTER_DEADLINE
from crm_bridge.storage.operation import Attempt, State
from tests.unit.engine.conftest import LEASE, Bench, failing, raising


def test_is_rejected_and_keeps_its_payload_when_it_is_refused_after_the_caller_was_told_202(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.run(later=True)
    bench.shop.answers = [failing(RefusedError)]
    bench.retry()
    stored = bench.stored()
    assert stored.state is State.REJECTED
    assert stored.payload is not None
    assert "RefusedLater" in capsys.readouterr().out


def test_is_sent_again_without_a_look_when_it_was_waiting(bench: Bench) -> None:
    bench.shop.answers = [failing(NotDoneError)]
    bench.run()
    bench.wait_until_due()
    outcome = bench.retry()
    assert outcome is not None
    assert outcome.operation.state is State.SUCCEEDED
    assert bench.shop.looks == 0
    assert bench.linked() == ["102"]


def test_does_nothing_when_it_is_not_due_yet(bench: Bench) -> None:
    bench.shop.answers = [failing(NotDoneError)]
    bench.run()
    bench.wait_until_due()
    bench.clock.move(-1)
    assert bench.retry() is None
    assert len(bench.shop.sent) == 1


def test_does_nothing_when_it_is_finished_or_gone(bench: Bench) -> None:
    bench.run()
    bench.clock.move(10**6)
    assert bench.retry() is None
    assert bench.retry("never heard of") is None
    assert len(bench.shop.sent) == 1


def test_is_sent_once_when_two_workers_take_the_same_operation(bench: Bench) -> None:
    bench.shop.answers = [failing(NotDoneError)]
    bench.run()
    bench.wait_until_due()
    bench.shop.during = lambda: second.append(bench.retry())
    second: list[Outcome | None] = []
    first = bench.retry()
    assert first is not None
    assert second == [None]
    assert len(bench.shop.sent) == 2  # the one that was not done, and this one


def test_needs_review_when_all_attempts_failed_and_each_waited_longer(bench: Bench) -> None:
    bench.shop.answers = [failing(NotDoneError) for _ in range(POLICY.last_try + 5)]
    bench.run()
    waits = []
    while bench.stored().state is State.WAITING:
        began = bench.clock.now
        bench.wait_until_due()
        waits.append(int(bench.clock.now - began))
        bench.retry()
    assert waits == list(POLICY.retry_delays)
    stored = bench.stored()
    assert stored.state is State.NEEDS_REVIEW
    assert stored.due_at is None
    assert stored.payload is not None  # whoever decides may want to send it again
    assert [a.event for a in stored.attempts] == [Event.NOT_DONE] * POLICY.last_try + [Event.OUT_OF_ATTEMPTS]


def test_waits_without_doubt_when_the_secret_cannot_be_read_at_retry(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.shop.answers = [failing(NotDoneError)]
    bench.run()
    bench.wait_until_due()
    with monkeypatch.context() as patch:
        patch.setattr(bench.tables.tenants, "get", raising(StorageError("Secrets Manager is down")))
        outcome = bench.retry()
    assert outcome is not None
    assert outcome.operation.state is State.WAITING  # nothing was sent, so nothing is in doubt
    bench.wait_until_due()
    bench.retry()
    assert bench.stored().state is State.SUCCEEDED


def test_waits_when_what_it_refers_to_is_missing_and_the_caller_is_gone(bench: Bench) -> None:
    bench.shop.answers = [failing(MissingError), failing(MissingError)]
    assert bench.run("told").operation.state is State.REJECTED
    bench.run("gone", later=True)
    outcome = bench.retry("gone")
    assert outcome is not None
    assert isinstance(outcome.error, MissingError)
    assert (bench.stored("gone").state, bench.stored("gone").attempts[-1].reason) == (State.WAITING, "because")
    assert bench.stored("gone").payload is not None


def test_is_sent_before_its_time_by_whom_it_was_lent_to_and_by_nobody_else(bench: Bench) -> None:
    bench.run(later=True)
    ((due,),) = bench.tables.operations.due(bench.stored().shard, int(bench.clock.now))
    lent_until = due.due_at + 900
    assert bench.tables.operations.lend(due, lent_until, due.due_at + 60)
    assert not bench.tables.operations.lend(due, lent_until, due.due_at + 60)
    for other in (None, due.due_at, lent_until - 1, lent_until + 1):
        assert bench.retry(lent_until=other) is None
    assert bench.retry(lent_until=lent_until) is not None
    assert len(bench.shop.sent) == 1


def test_a_message_that_comes_twice_takes_nothing_from_whom_it_was_claimed_by(bench: Bench) -> None:
    bench.run(later=True)
    ((due,),) = bench.tables.operations.due(bench.stored().shard, int(bench.clock.now))
    lease_end = math.ceil(bench.clock.now + 21 + AFTER_DEADLINE)  # the same second
    bench.tables.operations.lend(due, lease_end, lease_end)
    again: list[Outcome | None] = []
    bench.shop.during = lambda: again.append(bench.retry(lent_until=lease_end))
    bench.retry(lent_until=lease_end)
    assert (again, len(bench.shop.sent)) == ([None], 1)


def test_is_held_for_as_long_as_a_request_is_when_it_is_retried(bench: Bench) -> None:
    bench.run(later=True)
    seen: list[int | None] = []
    bench.shop.during = lambda: seen.append(bench.stored().due_at)
    bench.retry()
    assert seen == [bench.clock.now + LEASE]


def test_needs_review_by_its_last_try_and_not_before(bench: Bench) -> None:
    bench.run(later=True)
    bench.shop.answers = [failing(NotDoneError), failing(NotDoneError)]
    for tries, state in ((POLICY.last_try - 2, State.WAITING), (POLICY.last_try - 1, State.NEEDS_REVIEW)):
        stored = bench.stored().model_copy(update={"tries": tries, "due_at": int(bench.clock.now)})
        bench.tables.operations.save(stored, over=State.WAITING)
        bench.retry()
        assert bench.stored().state is state
    assert bench.stored().due_at is None


def test_is_sent_by_its_last_try_and_not_after_it(bench: Bench) -> None:
    for number, tries in (("1", POLICY.last_try - 1), ("2", POLICY.last_try)):
        bench.run(number, later=True)
        stored = bench.stored(number).model_copy(update={"tries": tries})
        bench.tables.operations.save(stored, over=State.WAITING)
        bench.retry(number)
    assert (bench.stored("1").state, bench.stored("2").state) == (State.SUCCEEDED, State.NEEDS_REVIEW)
    assert bench.stored("2").attempts == (Attempt(at=int(bench.clock.now), event=Event.OUT_OF_ATTEMPTS),)
    assert [order.number for order in bench.shop.sent] == ["1"]


def test_is_left_to_its_lease_when_the_storage_fails_while_it_is_carried(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run(later=True)
    monkeypatch.setattr(bench.flow, "links", raising(StorageError("down")))
    with pytest.raises(StorageError):
        bench.retry()
    assert (bench.stored().state, bench.stored().attempts) == (State.SENDING, ())


def test_is_not_done_when_the_secret_cannot_be_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run(later=True)
    monkeypatch.setattr(bench.tables.tenants, "get", raising(StorageError("Secrets Manager is down")))
    outcome = bench.retry()
    assert outcome is not None
    assert outcome.error is not None
    assert (outcome.error.vendor, outcome.error.message) == ("shop", "Secrets Manager is down")


def test_uses_the_client_of_the_new_secret_when_sign_in_is_refused_twice(bench: Bench) -> None:
    bench.run("before")
    bench.tables.put_secret("acme", '{"illu": {"org_id": 88, "api_key": "illu-key-2"}}')
    bench.shop.answers = [failing(SignInRefusedError), failing(SignInRefusedError)]
    assert bench.run().operation.state is State.WAITING
    assert bench.shop.keys_seen[-2:] == ["illu-key-1", "illu-key-2"]
    assert bench.shop.asked[-1] == ("vendor", "acme", bench.deadline)

"""What a failed sending leaves behind."""

import pytest

from crm_bridge.engine import KEEP_ATTEMPTS, POLICY, Outcome
from crm_bridge.errors import (
    Event,
    NotConfiguredError,
    NotDoneError,
    RefusedError,
    SignInRefusedError,
)
from crm_bridge.storage.operation import State
from tests.unit.engine.conftest import Bench, failing


def test_waits_when_surely_not_done(bench: Bench) -> None:
    bench.shop.answers = [failing(NotDoneError, status=503)]
    outcome = bench.run()
    assert outcome.operation.state is State.WAITING
    assert outcome.operation.due_at == bench.clock.now + POLICY.retry_delays[0]
    assert outcome.operation.payload is not None
    attempt = outcome.operation.attempts[-1]
    assert (attempt.event, attempt.reason, attempt.status) == (Event.NOT_DONE, "because", 503)


@pytest.mark.parametrize(("jitter", "wait"), [(0.0, 24), (0.5, 30), (1.0, 36)])
def test_spreads_the_wait_by_a_fifth(bench: Bench, jitter: float, wait: int) -> None:
    bench.engine = bench.new_engine(jitter=lambda: jitter)
    bench.shop.answers = [failing(NotDoneError)]
    assert bench.run().operation.due_at == bench.clock.now + wait


def test_is_rejected_when_the_vendor_refuses(bench: Bench) -> None:
    bench.shop.answers = [failing(RefusedError, status=422)]
    outcome = bench.run()
    stored = bench.stored()
    assert outcome.operation == stored
    assert stored.state is State.REJECTED
    assert stored.payload is None
    assert stored.due_at is None
    assert stored.expires_at == bench.clock.now + 90 * 86_400
    assert bench.linked() == []


def test_may_be_sent_again_when_it_was_rejected(bench: Bench) -> None:
    bench.shop.answers = [failing(RefusedError)]
    bench.run(note="wrong")
    outcome = bench.run(note="corrected")
    assert outcome.ran
    assert outcome.operation.state is State.SUCCEEDED
    assert [order.note for order in bench.shop.sent] == ["wrong", "corrected"]
    assert [attempt.event for attempt in bench.stored().attempts] == [Event.REFUSED, Event.DONE]
    assert bench.stored().expires_at is None


def test_reads_the_secret_again_and_repeats_when_sign_in_is_refused_after_a_rotation(bench: Bench) -> None:
    bench.run("before")  # the old secret is cached from here on
    bench.tables.put_secret("acme", '{"illu": {"org_id": 88, "api_key": "illu-key-2"}}')
    bench.shop.answers = [failing(SignInRefusedError)]
    outcome = bench.run("1")
    assert outcome.operation.state is State.SUCCEEDED
    assert bench.shop.keys_seen[-1] == "illu-key-2"
    assert outcome.operation.tries == 1


def test_waits_when_sign_in_is_refused_with_the_newest_secret(bench: Bench) -> None:
    bench.shop.answers = [failing(SignInRefusedError, status=401)]
    assert bench.run().operation.state is State.WAITING
    assert len(bench.shop.sent) == 1


def test_tells_what_is_known_when_the_settings_are_broken_meanwhile(bench: Bench) -> None:
    bench.run()
    bench.shop.answers = [failing(RefusedError)]
    bench.run("refused")
    bench.tables.put_secret("acme", "{}")
    bench.tables.tenants.get("acme", "orders", fresh=True)
    assert bench.run() == Outcome(bench.stored(), ran=False)
    assert bench.run(note="changed").changed
    for number in ("new", "refused"):
        with pytest.raises(NotConfiguredError):
            bench.run(number)


def test_keeps_the_newest_attempts_when_a_refused_event_is_sent_over_and_over(bench: Bench) -> None:
    for _ in range(KEEP_ATTEMPTS + 3):
        bench.shop.answers = [failing(RefusedError)]
        bench.run()
    bench.run()
    attempts = bench.stored().attempts
    assert len(attempts) == KEEP_ATTEMPTS
    assert attempts[-1].event is Event.DONE

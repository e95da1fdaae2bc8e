"""Operations of a vendor whose breaker is open."""

from dataclasses import replace

import pytest

from crm_bridge.engine import POLICY
from crm_bridge.errors import Event, MaybeDoneError, NotDoneError, VendorError
from crm_bridge.outbound.breaker import FAILURES
from crm_bridge.storage.operation import State
from tests.unit.engine.conftest import Bench, failing, hit


def down(retry_after: float = 10) -> VendorError:
    return failing(NotDoneError, retry_after=retry_after)


@pytest.fixture
def outage(bench: Bench) -> None:
    for _ in range(FAILURES):
        bench.breaker.failed("shop", "shop.example", "acme")


@pytest.mark.usefixtures("outage")
def test_to_be_held_back_is_not_a_try_and_is_told_once(bench: Bench) -> None:
    bench.shop.answers = [down() for _ in range(3 * POLICY.last_try)]
    bench.run()
    for _ in range(3 * POLICY.last_try - 1):
        bench.wait_until_due()
        bench.retry()
    stored = bench.stored()
    assert (stored.state, stored.tries) == (State.WAITING, 0)
    assert [attempt.event for attempt in stored.attempts] == [Event.NOT_DONE]
    bench.wait_until_due()
    bench.retry()
    assert bench.stored().state is State.SUCCEEDED


def test_a_try_before_the_outage_counts_and_is_told(bench: Bench, request: pytest.FixtureRequest) -> None:
    bench.shop.answers = [NotDoneError("429", vendor="shop"), down(), down()]
    bench.run()
    request.getfixturevalue("outage")
    for _ in range(2):
        bench.wait_until_due()
        bench.retry()
    assert [attempt.event for attempt in bench.stored().attempts] == [Event.NOT_DONE] * 2
    assert bench.stored().tries == 1


@pytest.mark.usefixtures("outage")
def test_is_not_held_back_for_ever(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    patience = 6 * 3600
    monkeypatch.setattr(bench.engine, "_policy", replace(POLICY, patience=patience))
    bench.shop.answers = [down() for _ in range(1000)]
    began = bench.clock.now
    bench.run()
    while bench.stored().state is State.WAITING:
        bench.wait_until_due()
        bench.retry()
    stored = bench.stored()
    assert stored.state is State.NEEDS_REVIEW
    assert [attempt.event for attempt in stored.attempts] == [Event.NOT_DONE, Event.OUT_OF_ATTEMPTS]
    assert patience < bench.clock.now - began <= patience + 2 * POLICY.longest_hold
    bench.engine.request_retry(stored, by="support")
    bench.retry()
    assert bench.stored().state is State.WAITING  # and all begins anew


@pytest.mark.usefixtures("outage")
def test_stays_in_doubt_while_it_is_held_back(bench: Bench) -> None:
    bench.shop.answers = [failing(MaybeDoneError)]
    bench.shop.hits = down()
    bench.run()
    bench.wait_until_due()
    bench.retry()
    stored = bench.stored()
    assert (stored.state, stored.tries, len(bench.shop.sent)) == (State.UNCONFIRMED, 0, 1)
    bench.shop.hits = [hit(7, bench.clock)]
    bench.wait_until_due()
    bench.retry()
    assert (bench.stored().state, len(bench.shop.sent)) == (State.SUCCEEDED, 1)

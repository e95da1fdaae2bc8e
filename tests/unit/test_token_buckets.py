"""How many requests an API key may send: a bucket of tokens for each key."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from crm_bridge import token_buckets
from crm_bridge.token_buckets import TokenBuckets
from tests.clock import Clock


def taken(buckets: TokenBuckets, key: str, times: int) -> int:
    """Return how many of so many requests got a token."""
    return sum(buckets.take(key) == 0 for _ in range(times))


def test_a_burst_is_let_through_and_then_so_many_a_second(clock: Clock) -> None:
    buckets = TokenBuckets(10, 100, clock)
    assert taken(buckets, "a", 1000) == 100
    clock.move(1)
    assert taken(buckets, "a", 1000) == 10
    clock.move(3600)
    assert taken(buckets, "a", 1000) == 100


@pytest.mark.parametrize("rate", [1, 3, 10, 7.5])
def test_a_token_is_there_after_the_time_that_is_said_and_no_sooner(clock: Clock, rate: float) -> None:
    buckets = TokenBuckets(rate, 5, clock)
    taken(buckets, "a", 5)
    wait = buckets.take("a")
    assert 0 < wait <= 1 / rate
    clock.move(wait / 2)
    assert buckets.take("a") > 0
    clock.move(wait / 2 + 1e-6)
    assert buckets.take("a") == 0


def test_a_refused_request_takes_nothing(clock: Clock) -> None:
    buckets = TokenBuckets(10, 1, clock)
    assert taken(buckets, "a", 100_000) == 1
    clock.move(0.1 + 1e-6)
    assert buckets.take("a") == 0


def test_a_key_takes_nothing_from_another(clock: Clock) -> None:
    buckets = TokenBuckets(10, 5, clock)
    assert taken(buckets, "a", 100) == 5
    assert taken(buckets, "b", 100) == 5


def test_the_number_of_buckets_is_bounded_and_the_key_that_sends_keeps_its_own(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_buckets, "MOST", 3)
    buckets = TokenBuckets(10, 5, clock)
    taken(buckets, "loop", 5)
    for number in range(20):
        assert buckets.take(f"k{number}") == 0
        assert buckets.take("loop") > 0
    assert len(buckets._buckets) == 3


def test_a_clock_that_is_set_back_neither_fills_nor_locks_a_bucket(clock: Clock) -> None:
    buckets = TokenBuckets(10, 5, clock)
    taken(buckets, "a", 5)
    clock.move(-3600)
    assert buckets.take("a") > 0
    clock.move(0.1 + 1e-6)
    assert buckets.take("a") == 0


def test_threads_together_get_no_more_than_the_burst(clock: Clock) -> None:
    buckets = TokenBuckets(10, 100, clock)
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: taken(buckets, "a", 50), range(8))) == 100

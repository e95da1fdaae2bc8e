"""A vendor that fails again and again is left alone, but for one call at a time that finds out whether that is over."""

import pytest

from crm_bridge.errors import NotDoneError
from crm_bridge.outbound.breaker import FAILURES, LONGEST_PAUSE, SEVERAL, SHORTEST_PAUSE, WINDOW, Breaker
from tests.clock import Clock

HOST, ACME = "api.shop.example", "acme"


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock)


def admitted(breaker: Breaker, host: str = HOST, tenant: str = ACME) -> bool:
    try:
        breaker.admit("shop", host, tenant)
    except NotDoneError:
        return False
    return True


def fail(breaker: Breaker, times: int, tenant: str = ACME) -> None:
    for _ in range(times):
        assert admitted(breaker, tenant=tenant)
        breaker.failed("shop", HOST, tenant)


def test_opens_after_so_many_failures_in_a_row_and_tells_once(
    breaker: Breaker, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(breaker, FAILURES)
    assert not admitted(breaker)
    assert breaker.is_down("shop", ACME)
    assert admitted(breaker, "another.example")
    assert not breaker.is_down("another", ACME)
    breaker.failed("shop", HOST, ACME)  # a call that was begun before
    assert capsys.readouterr().out.count('"VendorDown":[1.0]}') == 1


def test_stays_closed_when_a_call_works_in_between(breaker: Breaker) -> None:
    fail(breaker, FAILURES - 1)
    assert not breaker.is_down("shop", ACME)
    breaker.worked(HOST, ACME)
    fail(breaker, FAILURES - 1)
    assert admitted(breaker)


def test_stays_closed_when_the_failures_are_far_apart(breaker: Breaker, clock: Clock) -> None:
    for _ in range(3 * FAILURES):
        fail(breaker, 1)
        clock.move(WINDOW + 1)
    assert admitted(breaker)


def test_says_when_to_come_again(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    clock.move(10)
    with pytest.raises(NotDoneError) as raised:
        breaker.admit("shop", HOST, ACME)
    assert raised.value.retry_after == SHORTEST_PAUSE - 10


def test_lets_one_through_at_a_time_after_ever_longer_pauses(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    pauses = []
    for _ in range(6):
        began = clock.now
        while not admitted(breaker):
            clock.move(1)
        pauses.append(clock.now - began)
        assert not admitted(breaker)  # while that one is on its way
        breaker.failed("shop", HOST, ACME)
    assert pauses == [SHORTEST_PAUSE, 60, 120, 240, LONGEST_PAUSE, LONGEST_PAUSE]


def test_lets_everybody_through_once_a_call_worked(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    clock.move(SHORTEST_PAUSE)
    assert admitted(breaker)
    breaker.worked(HOST, ACME)
    assert not breaker.is_down("shop", ACME)
    assert [admitted(breaker) for _ in range(3)] == [True] * 3
    fail(breaker, FAILURES - 1)
    assert admitted(breaker)


def test_lets_another_through_when_the_one_that_finds_out_never_comes_back(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    clock.move(SHORTEST_PAUSE)
    assert admitted(breaker)
    clock.move(LONGEST_PAUSE)
    assert admitted(breaker)


def test_tells_until_when_calls_wait(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, FAILURES - 1)
    assert breaker.retry_at("shop", ACME) == 0
    fail(breaker, 1)
    assert breaker.retry_at("shop", ACME) == clock() + SHORTEST_PAUSE
    assert breaker.retry_at("another", ACME) == 0
    clock.move(SHORTEST_PAUSE)
    assert admitted(breaker)
    assert breaker.retry_at("shop", ACME) == clock() + LONGEST_PAUSE
    breaker.worked(HOST, ACME)
    assert breaker.retry_at("shop", ACME) == 0


# ---------------------------------------------------------------- several tenants


def test_what_fails_for_one_tenant_is_not_down_for_another(breaker: Breaker) -> None:
    fail(breaker, FAILURES)
    assert not admitted(breaker)
    assert not breaker.is_down("shop", "umbrella")
    assert breaker.retry_at("shop", "umbrella") == 0
    assert all(admitted(breaker, tenant="umbrella") for _ in range(3 * FAILURES))


def test_one_whose_calls_work_does_not_let_another_through(breaker: Breaker) -> None:
    fail(breaker, FAILURES)
    breaker.worked(HOST, "umbrella")
    assert not admitted(breaker)


def test_fewer_than_several_tenants_hold_nobody_else_back(breaker: Breaker) -> None:
    for number in range(SEVERAL - 1):
        fail(breaker, FAILURES, f"t-{number}")
    assert admitted(breaker, tenant="umbrella")


def test_is_down_for_everybody_when_several_tenants_fail_and_nobody_succeeds(breaker: Breaker, clock: Clock) -> None:
    for number in range(SEVERAL):
        fail(breaker, FAILURES, f"t-{number}")
        clock.move(1)
    assert not admitted(breaker, tenant="umbrella")
    assert admitted(breaker, host="another.example", tenant="umbrella")
    assert breaker.is_down("shop", "umbrella")
    clock.move(SHORTEST_PAUSE - SEVERAL)  # when the first of them may find out
    assert admitted(breaker, tenant="umbrella")
    assert not admitted(breaker, tenant="umbrella")
    breaker.worked(HOST, "umbrella")
    assert all(admitted(breaker, tenant=tenant) for tenant in ("t-0", "t-1", "umbrella", "initech"))


def test_several_whose_calls_fail_hold_nobody_back_whose_calls_work(breaker: Breaker) -> None:
    """Their addresses may be wrong, or the vendor may have closed their accounts."""
    for _ in range(20):
        for number in range(SEVERAL):
            if admitted(breaker, tenant=f"t-{number}"):
                breaker.failed("shop", HOST, f"t-{number}")
            assert admitted(breaker, tenant="umbrella")
            breaker.worked(HOST, "umbrella")

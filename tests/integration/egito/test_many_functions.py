"""One token of Egito for all functions, however many begin at once, and whatever becomes of the one that asks."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from crm_bridge.errors import NotDoneError, SignInPausedError, SignInRefusedError
from crm_bridge.outbound import oauth
from crm_bridge.outbound.oauth import Grant, Login
from crm_bridge.outbound.transport import Deadline
from crm_bridge.storage.documents import Change
from crm_bridge.vendors.egito import VENDOR
from local.vendors.simulator import Kind
from tests.clock import Clock
from tests.integration.egito.conftest import LIFE, Function, Start
from tests.stack import Stack
from tests.variants import IS_LONG

MANY = 20 if IS_LONG else 8
"""Functions that run at the same time."""
ROUNDS = 4 if IS_LONG else 2


@pytest.fixture
def functions(start: Start) -> list[Function]:
    return [start() for _ in range(MANY)]


def at_once[T](functions: Sequence[Function], work: Callable[[Function], T]) -> list[T]:
    """Return what `work` returns in each of them, begun at the same moment."""
    barrier = Barrier(len(functions))

    def run(function: Function) -> T:
        barrier.wait()
        return work(function)

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(run, functions))


def all_let_in(functions: Sequence[Function], login: str = "login", **changes: object) -> bool:
    return at_once(functions, lambda function: function.staff(login, **changes)) == [3] * len(functions)


# ---------------------------------------------------------------- at once


@pytest.mark.usefixtures("eager_switches")
def test_one_token_is_asked_for_when_many_functions_begin_at_once(stack: Stack, functions: list[Function]) -> None:
    for number in range(1, ROUNDS + 1):
        assert all_let_in(functions, f"login {number}")
        assert len(stack.egito.token_requests) == number


@pytest.mark.usefixtures("eager_switches")
def test_one_token_is_asked_for_when_it_is_about_to_end(stack: Stack, clock: Clock, functions: list[Function]) -> None:
    assert all_let_in(functions)
    for number in range(1, ROUNDS + 1):
        clock.move(LIFE - 60.001)
        assert all_let_in(functions)
        assert len(stack.egito.token_requests) == number
        clock.move(0.001)
        assert all_let_in(functions)
        assert stack.egito.token_requests == ["password", *["refresh_token"] * number]


@pytest.mark.usefixtures("eager_switches")
def test_no_storm_of_token_requests_when_the_same_token_comes_until_it_ends(
    stack: Stack, clock: Clock, functions: list[Function]
) -> None:
    stack.egito.refresh_tokens = False
    assert all_let_in(functions)
    ends_at = clock() + LIFE
    for before_its_end in (60, 1, 0.001):
        clock.now = ends_at - before_its_end
        assert all_let_in(functions)
        assert stack.egito.token_requests == ["password"] * 2
    assert 401 not in [seen.status for seen in stack.egito.seen]
    clock.now = ends_at
    assert all_let_in(functions)
    assert stack.egito.token_requests == ["password"] * 3


@pytest.mark.usefixtures("eager_switches")
@pytest.mark.parametrize("refresh_tokens", [True, False])
def test_one_token_is_asked_for_when_it_was_revoked(
    stack: Stack, clock: Clock, functions: list[Function], refresh_tokens: bool
) -> None:
    """Or when it has ended."""
    stack.egito.refresh_tokens = refresh_tokens
    assert all_let_in(functions)
    for number in range(1, 2 * ROUNDS, 2):
        clock.move(31)
        stack.egito.revoke()
        assert all_let_in(functions)
        clock.move(LIFE + 1)
        assert all_let_in(functions)
        renewals = ["refresh_token" if refresh_tokens else "password"] * (number + 1)
        assert stack.egito.token_requests == ["password", *renewals]


@pytest.mark.usefixtures("eager_switches")
def test_every_call_is_done_when_time_passes_meanwhile(stack: Stack, clock: Clock, functions: list[Function]) -> None:
    def work(function: Function) -> list[int]:
        found = []
        for number in range(3):
            if function is functions[0] and number == 1:
                clock.move(LIFE + 1)
            found.append(function.staff())
        return found

    for number in range(1, ROUNDS + 1):
        assert at_once(functions, work) == [[3] * 3] * MANY
        assert stack.egito.token_requests == ["password", *["refresh_token"] * number]


def test_password_is_used_when_the_refresh_token_was_forgotten(stack: Stack, clock: Clock, start: Start) -> None:
    function = start()
    function.staff()
    stack.egito.revoke(refresh_too=True)
    assert function.staff() == 3
    assert stack.egito.token_requests == ["password", "refresh_token", "password"]
    clock.move(LIFE)
    assert function.staff() == 3
    assert stack.egito.token_requests[3:] == ["refresh_token"]


def test_every_login_has_tokens_of_its_own(stack: Stack, start: Start) -> None:
    function = start()
    stack.egito.users["other@demo"] = "another"
    assert function.staff("one") == function.staff("two", username="other@demo", password="another") == 3
    assert len(set(stack.egito.access_tokens)) == 2
    stack.egito.grants.pop(("other@demo", stack.egito.api_id))
    stack.egito.users.pop("other@demo")
    with pytest.raises(SignInPausedError):
        function.staff("two", username="other@demo", password="another")
    assert function.staff("one") == 3


# ---------------------------------------------------------------- when none comes


@pytest.mark.parametrize(
    "kind", [Kind.ERROR_BEFORE, Kind.ERROR_AFTER, Kind.CLOSE_BEFORE, Kind.CLOSE_AFTER, Kind.HTML, Kind.TOO_MANY]
)
def test_the_old_token_is_used_when_it_cannot_be_renewed_early(
    stack: Stack, clock: Clock, start: Start, kind: Kind
) -> None:
    stack.egito.refresh_tokens = False
    first, second = start(), start()
    first.staff()
    clock.move(LIFE - 40)
    stack.egito.fail_token(kind, times=2)

    assert [first.staff(), second.staff(), first.staff()] == [3, 3, 3]
    assert len(stack.egito.token_requests) == 2  # not with every call
    for passed, requests in ((11, 3), (30, 4)):
        clock.move(passed)
        assert [second.staff(), first.staff()] == [3, 3]
        assert len(stack.egito.token_requests) == requests


def test_another_asks_when_whoever_was_asking_has_died(stack: Stack, clock: Clock, start: Start) -> None:
    class KilledError(BaseException):
        pass

    def die(_refresh_token: str | None, _deadline: Deadline) -> Grant:
        raise KilledError

    first, second = start(), start()
    with pytest.raises(KilledError):
        first.tokens.get(Login("login", VENDOR, die), Deadline(20))

    clock.move(oauth.TURN / 1000 - 0.001)
    with pytest.raises(NotDoneError, match="another function is signing in to Egito"):
        second.client(seconds=10).records("User")
    assert stack.egito.token_requests == []
    clock.move(0.001)
    assert second.staff() == 3
    assert stack.egito.token_requests == ["password"]


def test_the_old_token_is_used_when_whoever_was_renewing_it_has_died(stack: Stack, clock: Clock, start: Start) -> None:
    first, second = start(), start()
    first.staff()
    clock.move(LIFE - 50)
    kept = first.documents.get("login")
    asking = {**kept.content, "asking_until": int(clock() * 1000) + oauth.TURN}
    assert first.documents.write({"login": Change(kept, asking)})

    assert [second.staff(), first.staff()] == [3, 3]
    assert stack.egito.token_requests == ["password"]
    clock.move(oauth.TURN / 1000)
    assert [second.staff(), first.staff()] == [3, 3]
    assert stack.egito.token_requests == ["password", "refresh_token"]


@pytest.mark.parametrize("refresh_tokens", [True, False])
def test_few_tokens_are_asked_for_when_none_is_ever_accepted(
    stack: Stack, clock: Clock, start: Start, refresh_tokens: bool
) -> None:
    stack.egito.token_in, stack.egito.refresh_tokens = "query", refresh_tokens  # the settings say header
    both = start(), start()
    for calls, requests in ((6, 2), (2, 3)):
        for number in range(calls):
            with pytest.raises(SignInRefusedError) as caught:
                both[number % 2].staff()
            assert not isinstance(caught.value, SignInPausedError)
        assert len(stack.egito.token_requests) == requests
        clock.move(31)
    stack.egito.token_in = "header"
    assert [function.staff() for function in both] == [3, 3]


def test_a_call_waits_when_the_token_was_revoked_twice_in_a_row(stack: Stack, clock: Clock, start: Start) -> None:
    function = start()
    function.staff()
    stack.egito.revoke()
    function.staff()
    stack.egito.revoke()
    with pytest.raises(SignInRefusedError) as caught:
        function.staff()
    assert isinstance(caught.value, NotDoneError)
    assert len(stack.egito.token_requests) == 2
    clock.move(31)
    assert function.staff() == 3

"""The cache of a vendor's responses: what is in it for how long, and what never is."""

import pytest

from crm_bridge.cache import MOST, Cache
from crm_bridge.errors import NotDoneError
from crm_bridge.outbound.transport import Scope
from tests.clock import Clock

ACME = Scope("acme", "1")


class Vendor:
    """Returns a new response every time, which differs from a cached one."""

    def __init__(self) -> None:
        self.reads = 0

    def __call__(self) -> str:
        self.reads += 1
        return f"answer {self.reads}"


@pytest.fixture
def cache(clock: Clock) -> Cache:
    return Cache(clock)


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


@pytest.mark.parametrize(
    ("passed", "recalled"), [(0, "answer 1"), (60, "answer 1"), (60.1, "answer 2"), (1e6, "answer 2")]
)
def test_is_read_again_once_it_is_too_old(
    cache: Cache, vendor: Vendor, clock: Clock, passed: float, recalled: str
) -> None:
    assert cache.get_or_load(ACME, "names", vendor, max_age=60) == "answer 1"
    clock.move(passed)
    assert cache.get_or_load(ACME, "names", vendor, max_age=60) == recalled


def test_each_caller_says_how_old_it_may_be(cache: Cache, vendor: Vendor, clock: Clock) -> None:
    cache.get_or_load(ACME, "names", vendor, max_age=60)
    clock.move(30)
    assert cache.get_or_load(ACME, "names", vendor, max_age=60) == "answer 1"
    assert cache.get_or_load(ACME, "names", vendor, max_age=10) == "answer 2"
    assert cache.get_or_load(ACME, "names", vendor, max_age=60) == "answer 2"


def test_its_age_counts_from_when_it_was_read_last(cache: Cache, vendor: Vendor, clock: Clock) -> None:
    for _ in range(3):
        clock.move(61)
        cache.get_or_load(ACME, "names", vendor, max_age=60)
    clock.move(59)
    assert cache.get_or_load(ACME, "names", vendor, max_age=60) == "answer 3"


def test_is_read_again_when_the_clock_was_set_back(cache: Cache, vendor: Vendor, clock: Clock) -> None:
    cache.get_or_load(ACME, "names", vendor, max_age=60)
    clock.move(-3600)
    assert cache.get_or_load(ACME, "names", vendor, max_age=60) == "answer 2"


def test_what_has_different_keys_is_kept_apart(cache: Cache, vendor: Vendor) -> None:
    keys = (("a", "system"), ("a", "entity_type"), ("b", "system"), "a")
    for _ in range(2):
        assert [cache.get_or_load(ACME, key, vendor, max_age=60) for key in keys] == [
            f"answer {n}" for n in (1, 2, 3, 4)
        ]


@pytest.mark.parametrize("nothing", [None, [], "", 0, False])
def test_remembers_that_there_was_nothing(cache: Cache, nothing: object) -> None:
    cache.get_or_load(ACME, "names", lambda: nothing, max_age=60)
    assert cache.get_or_load(ACME, "names", lambda: "something", max_age=60) == nothing


def test_a_failure_is_not_remembered_and_takes_nothing_away(cache: Cache, vendor: Vendor, clock: Clock) -> None:
    def fail() -> str:
        raise NotDoneError("no answer", vendor="illu")

    with pytest.raises(NotDoneError):
        cache.get_or_load(ACME, "names", fail, max_age=60)
    assert cache.get_or_load(ACME, "names", vendor, max_age=60) == "answer 1"
    clock.move(30)
    with pytest.raises(NotDoneError):
        cache.get_or_load(ACME, "names", fail, max_age=10)
    assert cache.get_or_load(ACME, "names", fail, max_age=60) == "answer 1"


def test_two_memories_know_nothing_of_each_other(clock: Clock, vendor: Vendor) -> None:
    assert [Cache(clock).get_or_load(ACME, "names", vendor, max_age=60) for _ in range(2)] == ["answer 1", "answer 2"]


def test_is_known_only_to_the_tenant_with_the_same_version_of_its_secret(cache: Cache, vendor: Vendor) -> None:
    scopes = (ACME, Scope("umbrella", "1"), Scope("acme", "2"))
    for _ in range(2):
        recalled = [cache.get_or_load(scope, "names", vendor, max_age=60) for scope in scopes]
        assert recalled == ["answer 1", "answer 2", "answer 3"]


def test_forgets_the_oldest_when_there_are_too_many(cache: Cache, vendor: Vendor) -> None:
    cache.get_or_load(ACME, "first", vendor, max_age=60)
    for number in range(MOST - 1):
        cache.get_or_load(ACME, number, vendor, max_age=60)
    assert cache.get_or_load(ACME, "first", vendor, max_age=60) == "answer 1"
    cache.get_or_load(ACME, "one more", vendor, max_age=60)
    assert cache.get_or_load(ACME, "first", vendor, max_age=60) != "answer 1"

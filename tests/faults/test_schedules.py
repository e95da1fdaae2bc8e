"""Some of the random schedules, and whether a promise that is broken would be noticed."""

from collections.abc import Callable, Iterator

import pytest

from crm_bridge.engine import Engine
from tests.faults.events import create_site, save_prospect
from tests.faults.matrix import BY_FAULT
from tests.faults.schedules import Schedule, play

SCHEDULES = 30
"""Each seed plays at least so many."""


@pytest.fixture(autouse=True)
def _leave() -> Iterator[None]:
    yield
    Schedule.worlds.leave()


@pytest.mark.parametrize(("seed", "flow"), [(1, ""), (2, ""), (3, "_record")])
def test_no_event_has_two_effects_or_none_whatever_happens(seed: int, flow: str) -> None:
    assert play(seed, SCHEDULES, flow=flow)["schedules"] >= SCHEDULES


@pytest.mark.parametrize(
    ("name", "broken", "noticed"),
    [
        ("_look", Engine._send, "create_site has 2 effects, not 1"),  # sends again without a look
        ("retry", lambda *_, **__: None, "create_site is unconfirmed"),
    ],
)
def test_a_broken_bridge_is_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str, broken: Callable[..., object], noticed: str
) -> None:
    monkeypatch.setattr(Engine, name, broken)
    schedule = Schedule()
    # The first call that it fits is the claim.
    schedule.begin("", None, [(1, create_site)], 1, later=False, faults=[(BY_FAULT["closed, done"], 2)])
    with pytest.raises(AssertionError, match=noticed):
        schedule.teardown()


def test_a_function_is_killed_at_a_call_to_aws_when_a_schedule_says_so() -> None:
    schedule = Schedule()
    schedule.begin("", None, [(1, create_site)], 1, later=False, faults=[(BY_FAULT["killed after"], 1)])
    schedule.teardown()
    assert [plan.hit and plan.hit.service for plan in schedule.plans] == ["DynamoDB"]


def test_an_older_save_makes_a_whole_record_when_a_later_one_may_have_been_applied() -> None:
    """The later one was killed, so its fields count as applied; it made no record, and Egito wants a name in it."""
    schedule = Schedule()
    schedule.begin("", None, [(1, save_prospect)], callers=2, later=True, faults=[])
    schedule.send(0, 1, later=False, faults=[(BY_FAULT["429, done"], 1), (BY_FAULT["killed before"], 6)])
    schedule.two_workers()
    schedule.teardown()
    assert all(plan.hit for plan in schedule.plans)

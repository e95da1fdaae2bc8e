"""A slice of the fault matrix, races on two DynamoDBs that share no code, and whether a broken bridge is noticed."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crm_bridge.engine import Engine
from crm_bridge.operations import Claim, Operation, Operations, _item
from tests.faults import peer
from tests.faults.events import KINDS
from tests.faults.harness import World
from tests.faults.matrix import BY_FAULT, BY_KIND, FIRST, Cell, Worlds, calls, run
from tests.integration.ministack import ministack

AT_THE_WRITE = ("closed, done", "killed after", "handled twice at once")
AT_THE_END = ("killed before",)
"""Of the call that settles the operation."""
RACERS = 4


@pytest.fixture
def worlds() -> Iterator[Worlds]:
    worlds = Worlds(always_cold=True)
    yield worlds
    worlds.leave()


def cell(fault: str, kind: str = "create_site", call: str = "", nth: int = 1) -> Cell:
    return Cell(kind, "", FIRST, call or BY_KIND[kind](1).writes, nth, fault)


@pytest.mark.parametrize("kind", [make(1).kind for make in KINDS])
def test_there_is_one_effect_in_the_end_when_a_call_fails(worlds: Worlds, kind: str) -> None:
    settle, nth = calls(worlds.world(World), kind, "", FIRST)[-1]
    cells = [cell(fault, kind) for fault in AT_THE_WRITE] + [cell(fault, kind, settle, nth) for fault in AT_THE_END]
    results = [run(one, worlds) for one in cells]
    assert [result for result in results if result.verdict != "once"] == []


@pytest.mark.parametrize("kind", ["create_site", "create_job", "save prospect"])
def test_a_person_decides_when_the_vendor_cannot_be_asked(worlds: Worlds, kind: str) -> None:
    in_doubt, sure = (
        Cell(kind, "cannot be asked", FIRST, BY_KIND[kind](1).writes, 1, fault) for fault in ("closed, done", "429")
    )
    assert run(in_doubt, worlds).verdict == "a person decided"
    assert run(sure, worlds).verdict == "once"


def test_a_write_that_was_long_on_its_way_unties_nothing_that_was_tied_since(worlds: Worlds) -> None:
    late = cell("handled twice at once", "key_link change", "DynamoDB TransactWriteItems operations+links")
    assert run(late, worlds).verdict == "once"


# ---------------------------------------------------------------------- whether it would be noticed


def _wins(operations: Operations, operation: Operation, **_: object) -> Claim:
    """Stores without asking what is there."""
    operations._client.put_item(TableName=operations._table, Item=_item(operation))
    return Claim(won=True, operation=operation)


@pytest.mark.parametrize(
    ("owner", "name", "broken", "fault"),
    [
        (Engine, "_look", Engine._send, "closed, done"),  # sends again without a look
        (Operations, "create", _wins, "handled twice at once"),
    ],
)
def test_two_effects_are_noticed(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, broken: Callable[..., object], fault: str
) -> None:
    monkeypatch.setattr(owner, name, broken)
    result = run(cell(fault), worlds)
    assert result.effects > 1
    assert result.verdict == "WRONG"


def test_an_event_that_is_lost_is_noticed(worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.faults.harness.Stack.deliver_due", lambda _: None)
    result = run(cell("429"), worlds)
    assert (result.effects, result.verdict) == (0, "WRONG")
    assert "create_site is waiting" in result.wrong


def test_the_usual_construction_makes_duplicates_and_is_judged_by_the_same_measure(worlds: Worlds) -> None:
    kind = peer.create_site(1).kind
    expected = {"closed, done": "DUPLICATE", "429": "once", "connection refused": "once", "down for hours": "LOST"}
    assert {fault: run(cell(fault, kind), worlds).verdict for fault in expected} == expected


@pytest.mark.parametrize("kind", ["create_site", peer.create_site(1).kind])
def test_a_fault_that_did_not_happen_shows_nothing(worlds: Worlds, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr("tests.faults.matrix.MOST_TRIES", 1)
    assert run(cell("429", kind, nth=9), worlds).verdict == "WRONG"


# ---------------------------------------------------------------------- races


@pytest.fixture(params=["embedded", "ministack"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads take turns as often as they can
    if request.param == "embedded":
        with World() as world:
            yield world
    else:
        with ministack(tmp_path) as url, World(aws_endpoint=url) as world:
            yield world
    sys.setswitchinterval(before)


def test_there_is_one_effect_when_the_same_comes_several_times_at_once(world: World) -> None:
    for make in KINDS:
        world.begin()
        event = make(world.take_in())
        world.prepare(event)
        sent = world.send(event, callers=RACERS)
        world.settle()
        assert all(one.is_accepted for one in sent), event.kind
        assert world.check() == []


def test_there_is_one_effect_when_two_workers_get_the_same_message(world: World) -> None:
    for make in KINDS:
        world.begin()
        event = make(world.take_in())
        world.prepare(event)
        world.inject(BY_FAULT["503"], event.writes)
        world.send(event)
        world.pass_time(60, deliver=False)
        assert world.deliver_to_both()
        world.settle()
        assert world.check() == []

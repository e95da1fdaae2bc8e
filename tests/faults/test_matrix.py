"""A slice of the fault matrix, races on two DynamoDBs that share no code, and whether a broken bridge is noticed."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import requests

from crm_bridge.engine import Engine
from crm_bridge.storage.operation import Operation
from crm_bridge.storage.operation_reader import as_item
from crm_bridge.storage.operations import Claim, Operations
from tests.faults import durable, peer
from tests.faults.checks import broken_rules
from tests.faults.events import KINDS, Event
from tests.faults.harness import World
from tests.faults.matrix import (
    BY_FAULT,
    BY_KIND,
    FIRST,
    PEERS,
    Cell,
    Result,
    Worlds,
    _row,
    calls,
    markdown,
    run,
)
from tests.integration.ministack import ministack
from tests.variants import IS_LONG, some

AT_THE_WRITE = ("closed, done", "killed after", "handled twice at once")
AT_THE_END = ("killed before",)
"""Of the call that settles the operation."""
RACERS = 4
OF_THE_PEERS = pytest.mark.skipif(not IS_LONG, reason="`make long` tries the peers")
type Make = Callable[[int], Event]


@pytest.fixture
def worlds() -> Iterator[Worlds]:
    worlds = Worlds(always_cold=True, aws_without_http=True)
    yield worlds
    worlds.leave()


@pytest.fixture
def peers() -> Iterator[Worlds]:
    """Worlds of the peers, which have tables of their own."""
    peers = Worlds(always_cold=True)
    yield peers
    peers.leave()


def cell(fault: str, kind: str = "create_site", call: str = "", nth: int = 1) -> Cell:
    return Cell(kind, "", FIRST, call or BY_KIND[kind](1).writes, nth, fault)


@pytest.mark.parametrize("kind", [make(1).kind for make in KINDS])
def test_there_is_one_effect_in_the_end_when_a_call_fails(worlds: Worlds, kind: str) -> None:
    settle, nth = calls(worlds.world(World), kind, "", FIRST)[-1]
    cells = [cell(fault, kind) for fault in AT_THE_WRITE] + [cell(fault, kind, settle, nth) for fault in AT_THE_END]
    results = [run(one, worlds) for one in cells]
    assert [result for result in results if result.verdict != "once"] == []


STORED, HANDED_OVER = "DynamoDB PutItem operations", "SQS SendMessageBatch"


@pytest.mark.parametrize(
    ("call", "nth", "fault"),
    [
        (STORED, 1, "killed before"),
        (STORED, 1, "killed after"),
        (STORED, 2, "killed after"),
        (STORED, 1, "closed, done"),
        (HANDED_OVER, 1, "killed before"),
        (HANDED_OVER, 1, "killed after"),
        (HANDED_OVER, 1, "closed, not done"),
        (HANDED_OVER, 1, "closed, done"),
    ],
)
def test_no_event_of_a_list_is_lost_or_sent_twice_when_its_acceptance_fails(
    worlds: Worlds, call: str, nth: int, fault: str
) -> None:
    assert run(cell(fault, "events of a source", call, nth), worlds).verdict == "once"


@pytest.mark.parametrize("kind", ["create_site", "create_job", "save prospect"])
def test_a_person_decides_when_the_vendor_cannot_be_asked(worlds: Worlds, kind: str) -> None:
    in_doubt, sure = (
        Cell(kind, "cannot be asked", FIRST, BY_KIND[kind](1).writes, 1, fault) for fault in ("closed, done", "429")
    )
    assert run(in_doubt, worlds).verdict == "a person decided"
    assert run(sure, worlds).verdict == "once"


def test_a_write_that_was_long_on_its_way_unties_nothing_that_was_tied_since(worlds: Worlds) -> None:
    late = cell("handled twice at once", "key_link change", "DynamoDB TransactWriteItems operations+locks+links")
    assert run(late, worlds).verdict == "once"


# ---------------------------------------------------------------------- whether it would be noticed


def _wins(operations: Operations, operation: Operation, **_: object) -> Claim:
    """Stores without asking what is there."""
    operations._client.put_item(TableName=operations._table, Item=as_item(operation))
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
    assert any(wrong.startswith("create_site is waiting") for wrong in result.wrong)


@OF_THE_PEERS
def test_the_usual_construction_makes_duplicates_and_is_judged_by_the_same_measure(peers: Worlds) -> None:
    kind = peer.create_site(1).kind
    expected = {"closed, done": "DUPLICATE", "429": "once", "connection refused": "once", "down for hours": "LOST"}
    assert {fault: run(cell(fault, kind), peers).verdict for fault in expected} == expected


RETRIED = {
    "closed, done": ("DUPLICATE", 2),
    "killed before": ("once", 1),
    "429": ("once", 1),
    "down for hours": ("LOST", 0),
    "handled twice at once": ("once", 1),
}
NOT_RETRIED = {
    "closed, done": ("LOST", 1),  # the site is there, but nobody learns its id
    "killed before": ("LOST", 0),
    "429": ("LOST", 0),
    "down for hours": ("LOST", 0),
    "handled twice at once": ("once", 1),
}


@OF_THE_PEERS
@pytest.mark.parametrize(
    ("make", "expected"), some(zip(durable.KINDS, [RETRIED, RETRIED, NOT_RETRIED], strict=True), most=2)
)
def test_durable_functions_are_judged_by_the_same_measure(
    peers: Worlds, make: Callable[[int], Event], expected: dict[str, tuple[str, int]]
) -> None:
    results = {fault: run(cell(fault, make(1).kind), peers) for fault in expected}
    assert {fault: (result.verdict, result.effects) for fault, result in results.items()} == expected


@OF_THE_PEERS
@pytest.mark.parametrize(
    ("make", "expected"), some(zip(durable.KINDS, ["DUPLICATE", "DUPLICATE", "LOST"], strict=True), most=2)
)
def test_a_durable_function_loses_its_result_when_the_checkpoint_of_it_is_lost(
    peers: Worlds, make: Callable[[int], Event], expected: str
) -> None:
    kind = make(1).kind
    (checkpoint,) = [name for name, _ in calls(peers.world(PEERS[kind]), kind, "", FIRST) if "SUCCEED" in name]
    assert run(cell("closed, not done", kind, checkpoint), peers).verdict == expected
    assert run(cell("closed once, done", kind, checkpoint), peers).verdict == "once"


def test_a_request_gets_the_execution_of_its_name_when_there_is_one() -> None:
    with durable.DurableWorld() as world:
        world.begin()
        event = durable.KINDS[0](world.take_in())
        url = world.stack.url + event.path(world.stack)
        assert isinstance(event.body, dict)
        first, again, other = (
            requests.post(url, json=body, timeout=60)
            for body in (event.body, event.body, event.body | {"name": "Another shop"})
        )
        assert (first.status_code, again.status_code, other.status_code) == (201, 201, 409)
        assert first.json() == again.json()
        assert event.held(world.stack) == event.wanted
        assert [call.name for _, call in world.seen].count("illu POST /orgs/{}/sites") == 1


def test_a_request_is_answered_503_when_its_execution_takes_longer_than_the_api_waits() -> None:
    with durable.DurableWorld() as world:
        world.begin()
        event = durable.KINDS[0](world.take_in())
        world.inject(BY_FAULT["down for hours"], event.writes)
        (sent,) = world.send(event)
        assert (sent.statuses[0], sent.statuses[-1]) == (503, 500)
        assert world.moved > durable.GATEWAY_TIMEOUT


@pytest.mark.parametrize("kind", ["create_site", peer.create_site(1).kind, durable.KINDS[0](1).kind])
def test_a_fault_that_did_not_happen_shows_nothing(peers: Worlds, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr("tests.faults.matrix.MOST_TRIES", 1)
    assert run(cell("429", kind, nth=9), peers).verdict == "WRONG"


def test_the_table_has_a_column_for_each_peer() -> None:
    text = markdown([Result(cell("429", kind), 1, "", 1, 1, 0, ()) for kind in ("create_site", *PEERS)])
    header, _, *rows = text.split("\n\n")[0].splitlines()
    assert header == _row("fault", "CRM Bridge", *(kind.removeprefix("peer: ") for kind in PEERS))
    assert _row("429", *["1 of 1, 1 min"] * (1 + len(PEERS))) in rows
    assert all(row.count("|") == header.count("|") for row in rows)


# ---------------------------------------------------------------------- races


@pytest.fixture(params=["embedded", "ministack"])
def world_and_kinds(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[World, Sequence[Make]]]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads take turns as often as they can
    if request.param == "embedded":
        with World(aws_without_http=True) as world:
            yield world, KINDS
    else:
        with ministack(tmp_path) as url, World(aws_endpoint=url) as world:
            yield world, some(KINDS)
    sys.setswitchinterval(before)


def test_there_is_one_effect_when_the_same_comes_several_times_at_once(
    world_and_kinds: tuple[World, Sequence[Make]],
) -> None:
    world, kinds = world_and_kinds
    for make in kinds:
        world.begin()
        event = make(world.take_in())
        world.prepare(event)
        sent = world.send(event, callers=RACERS)
        world.settle()
        assert all(one.is_accepted for one in sent), event.kind
        assert broken_rules(world) == []


def test_there_is_one_effect_when_two_workers_get_the_same_message(
    world_and_kinds: tuple[World, Sequence[Make]],
) -> None:
    world, kinds = world_and_kinds
    for make in kinds:
        world.begin()
        event = make(world.take_in())
        world.prepare(event)
        world.inject(BY_FAULT["503"], event.writes)
        world.send(event)
        world.pass_time(60, deliver=False)
        assert world.deliver_to_both()
        world.settle()
        assert broken_rules(world) == []

"""Round trips and DynamoDB's units of each kind of event, counted where our requests arrive at AWS and the vendors."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from bench.report import Table
from crm_bridge.storage.operation import Operation
from docs import costs
from local.events import function_of
from tests.faults.events import KINDS, Event
from tests.faults.faults import FAULTS
from tests.faults.harness import World
from tests.units import Meter

HOUR = 3600
ANSWER_LOST = next(fault for fault in FAULTS if fault.name == "closed, done")


@dataclass(frozen=True)
class Trips:
    """The counts of one kind of event: when it is new, when it is repeated, and of the retry after a lost response, an
    hour later: by a function that has done nothing since, so that what it kept is too old, and by one that has just had
    another such event.

    The units are in the same order. Those of a retry are without the dispatcher's.
    """

    kind: str
    new: int
    repeated: int
    retried_cold: int
    retried_warm: int
    writes: Sequence[Mapping[str, float]]
    reads: Sequence[Mapping[str, float]]


def measure() -> list[Trips]:
    """Return the counts of a function that has had such an event before: key, settings and connections are cached."""
    with World() as world:
        assert world.stack.aws
        meter = Meter(world.stack.aws.answers)
        world.stack.aws.answers = meter
        world.begin()
        world.take_in()
        return [_of(world, meter, kind) for kind in KINDS]


def tables(counts: Iterable[Trips]) -> list[Table]:
    """Return the tables of docs/performance.md. `other tables` are those that only few flows write."""
    places = ("Operations", "Operations/due", "Operations/listing", "Links")
    trips, units = [], []
    for one in counts:
        trips.append([one.kind, *map(str, (one.new, one.repeated, one.retried_cold, one.retried_warm))])
        new, repeated = (sum(of.values()) for of in one.writes[:2])
        by_place = [one.writes[0].get(place, 0) for place in places]
        reads = sum(one.reads[0].values())
        cost = costs.EVENTS * (costs.usd("dynamodb_write", new) + costs.usd("dynamodb_read", reads))
        numbers = [*by_place, new - sum(by_place), new, reads]
        units.append([one.kind, *(f"{number:g}" for number in numbers), f"{cost:.2f}", f"{repeated:g}"])
    return [
        Table(
            "Round trips of each flow, also of the retry after a lost response",
            ("CRM Bridge", "new", "repeated", "retried, caches cold", "retried, caches warm"),
            trips,
        ),
        Table(
            "DynamoDB's units of each flow, new events",
            ("CRM Bridge", *places, "other tables", "writes", "reads", "US$", "repeated: writes"),
            units,
        ),
    ]


def _of(world: World, meter: Meter, kind: Callable[[int], Event]) -> Trips:
    first, event, other, *lost = (_prepared(world, kind) for _ in range(5))
    _accepted(world, first)  # which fills the caches
    world.stack.move_clock(2)  # until the turn after it is free, else the next one asks for it again and again
    counted = [_counted(world, meter, partial(_accepted, world, event)) for _ in ("new", "repeated")]
    for one, warming in zip(lost, (None, other), strict=True):
        counted.append(_retried(world, meter, one, warming))
    writes, reads = [one[1] for one in counted], [one[2] for one in counted]
    new, repeated, cold, warm = (one[0] for one in counted)
    return Trips(event.kind, new, repeated, cold, warm, writes, reads)


def _retried(
    world: World, meter: Meter, lost: Event, warming: Event | None
) -> tuple[int, Mapping[str, float], Mapping[str, float]]:
    """Count the retry of an event whose response is lost, after another event if there is one."""
    known = {operation.operation_id for operation in world.operations()}
    world.inject(ANSWER_LOST, lost.writes)
    world.send(lost)
    due = [one for one in world.operations() if one.due_at and one.operation_id not in known]
    world.stack.move_clock(HOUR)
    if warming:
        _accepted(world, warming)
        world.stack.move_clock(2)
    counts = _counted(world, meter, lambda: _retry(world, due))
    world.settle()
    return counts


def _accepted(world: World, event: Event) -> None:
    """Send it. A refused event makes fewer calls than one that is done, so its count would say nothing."""
    (sent,) = world.send(event)
    assert sent.is_accepted, (event.kind, sent)


def _counted(
    world: World, meter: Meter, what: Callable[[], object]
) -> tuple[int, Mapping[str, float], Mapping[str, float]]:
    before = len(world.seen)
    meter.begin()
    what()
    return len(world.seen) - before, dict(meter.writes), dict(meter.reads)


def _retry(world: World, due: Iterable[Operation]) -> None:
    for operation in sorted(due, key=lambda one: one.flow):  # so that it is the same each time
        record = {
            "messageId": "m-1",
            "body": json.dumps({"operation_id": operation.operation_id, "tenant": operation.tenant}),
        }
        world.stack.invoke(function_of(operation.function), {"Records": [record]})


def _prepared(world: World, kind: Callable[[int], Event]) -> Event:
    event = kind(world.next_number())
    world.prepare(event)
    return event

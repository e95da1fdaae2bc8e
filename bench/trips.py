"""Round trips, and DynamoDB's units: of every request of our functions to AWS or a vendor, as it arrives over HTTP."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from bench.units import Meter
from crm_bridge.operations import Operation
from tests.faults.events import KINDS, Event
from tests.faults.faults import FAULTS
from tests.faults.harness import World

HOUR = 3600
ANSWER_LOST = next(fault for fault in FAULTS if fault.name == "closed, done")


@dataclass(frozen=True)
class Trips:
    """Of one kind of event: when it is new, when it comes again, and of the retry after an answer was lost.

    The units are in the same order; those of a retry are without the dispatcher's, which lends it to a message.
    """

    kind: str
    new: int
    repeated: int
    retried: int
    writes: Sequence[Mapping[str, float]]
    reads: Sequence[Mapping[str, float]]


def measure() -> list[Trips]:
    """Of a function that has had such an event before, so that key, settings and connections are there."""
    with World() as world:
        assert world.stack.aws
        meter = Meter(world.stack.aws.answers)
        world.stack.aws.answers = meter
        world.begin()
        world.take_in()
        return [_of(world, meter, kind) for kind in KINDS]


def _of(world: World, meter: Meter, kind: Callable[[int], Event]) -> Trips:
    world.send(_prepared(world, kind))
    event = _prepared(world, kind)
    counted = [_counted(world, meter, partial(world.send, event)) for _ in ("new", "repeated")]
    event = _prepared(world, kind)
    known = {operation.operation_id for operation in world.operations()}
    world.inject(ANSWER_LOST, event.writes)
    world.send(event)
    world.stack.move_clock(HOUR)
    due = [one for one in world.operations() if one.due_at and one.operation_id not in known]
    counted.append(_counted(world, meter, lambda: _retry(world, due)))
    world.settle()
    new, repeated, retried = (one[0] for one in counted)
    writes, reads = [one[1] for one in counted], [one[2] for one in counted]
    return Trips(event.kind, new, repeated, retried, writes, reads)


def _counted(
    world: World, meter: Meter, what: Callable[[], object]
) -> tuple[int, Mapping[str, float], Mapping[str, float]]:
    before = len(world.seen)
    meter.begin()
    what()
    return len(world.seen) - before, dict(meter.writes), dict(meter.reads)


def _retry(world: World, due: Iterable[Operation]) -> None:
    for operation in due:
        function = operation.function.title().replace("_", "") + "Function"
        record = {
            "messageId": "m-1",
            "body": json.dumps({"operation_id": operation.operation_id, "tenant": operation.tenant}),
        }
        world.stack.invoke(function, {"Records": [record]})


def _prepared(world: World, kind: Callable[[int], Event]) -> Event:
    event = kind(world.next_number())
    world.prepare(event)
    return event

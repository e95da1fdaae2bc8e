"""Round trips: every request of our functions to AWS or a vendor, as it arrives there over HTTP."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from crm_bridge.operations import Operation
from tests.faults.events import KINDS, Event
from tests.faults.faults import FAULTS
from tests.faults.harness import World

HOUR = 3600
ANSWER_LOST = next(fault for fault in FAULTS if fault.name == "closed, done")


@dataclass(frozen=True)
class Trips:
    """Of one kind of event: when it is new, when it comes again, and of the redelivery after an answer was lost."""

    kind: str
    new: int
    repeated: int
    redelivered: int


def measure() -> list[Trips]:
    """Of a function that has had such an event before, so that key, settings and connections are there."""
    with World() as world:
        world.begin()
        world.take_in()
        return [_of(world, kind) for kind in KINDS]


def _of(world: World, kind: Callable[[int], Event]) -> Trips:
    world.send(_prepared(world, kind))
    event = _prepared(world, kind)
    new, repeated = _counted(world, partial(world.send, event)), _counted(world, partial(world.send, event))
    event = _prepared(world, kind)
    known = {operation.operation_id for operation in world.operations()}
    world.inject(ANSWER_LOST, event.writes)
    world.send(event)
    world.stack.move_clock(HOUR)
    due = [one for one in world.operations() if one.due_at and one.operation_id not in known]
    redelivered = _counted(world, lambda: _redeliver(world, due))
    world.settle()
    return Trips(event.kind, new, repeated, redelivered)


def _counted(world: World, what: Callable[[], object]) -> int:
    before = len(world.seen)
    what()
    return len(world.seen) - before


def _redeliver(world: World, due: Iterable[Operation]) -> None:
    for operation in due:
        function = operation.flow.title().replace("_", "") + "Function"
        record = {"messageId": "m-1", "body": json.dumps({"operation_id": operation.operation_id})}
        world.stack.invoke(function, {"Records": [record]})


def _prepared(world: World, kind: Callable[[int], Event]) -> Event:
    event = kind(world.next_number())
    world.prepare(event)
    return event

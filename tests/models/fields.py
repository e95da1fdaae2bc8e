"""Changes of single fields of a record that can only be saved whole: read it, change some fields, save all of it.

Events 1, 2, 3 were requested in this order, and each sets its own value in some fields. What a save sends may be done,
lost, or land late; a function may be killed before any step. How a turn is handed on, and which notes that takes, is
the subject of `turns`; here a turn is a lock that is free again when what was sent in it has surely landed.
`RULES` are what the protocol rests on; `without` leaves some of them out.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.models.search import Found, search

RULES = {
    "one turn": "changes of different fields of a record take the same turn",
    "read in the turn": "the record is read after the turn has come",
    "keep the turn": "what may be on its way keeps the turn until that is surely over",
    "a time for each field": "what was applied last is noted for each field, and not for the record",
    "only newer fields": "an older change leaves out the fields to which a later one was applied",
}

WAITING, DONE = "waiting", "done"
type Values = tuple[int, ...]
"""Of each field the event that set it; 0 at first."""


class Function(NamedTuple):
    event: int
    at: str
    read: Values = ()
    """The record as it was read."""


class State(NamedTuple):
    ops: tuple[str, ...]
    turns: tuple[int, ...]
    """Of the record, or without a rule of each event's own: 0, the event that has it, or the negative of one whose
    function is gone, and whose save may still land."""
    applied: Values
    record: Values
    on_the_way: tuple[tuple[int, Values], ...]
    """Saves that may still land, each with its event."""
    functions: tuple[Function, ...]
    kills: int
    losses: int


def fields(
    events: Sequence[frozenset[int]], *, kills: int = 0, losses: int = 0, without: frozenset[str] = frozenset()
) -> Found:
    """`events`: the fields that each one sets."""
    nothing = (0,) * (max(max(event) for event in events) + 1)
    start = State((WAITING,) * len(events), (0,) * (len(events) + 1), nothing, nothing, (), (), kills, losses)

    def at_the_end(state: State) -> str | None:
        newest = tuple(max(n for n, of in enumerate(events, 1) if field in of) for field in range(len(nothing)))
        return None if state.record == newest else f"the record is {state.record}, not {newest}"

    return search(start, lambda state: _steps(state, events, without), never=lambda _: None, at_the_end=at_the_end)


def _steps(state: State, events: Sequence[frozenset[int]], without: frozenset[str]) -> Iterator[tuple[str, State]]:
    for function in state.functions:
        if state.kills:
            turn, killed = _turn_of(function, without), state._replace(kills=state.kills - 1)
            has_it = function.at in ("read", "save", "settle", "maybe")
            yield (
                f"{function.event} is killed",
                _gone(_with_turn(killed, turn, -function.event) if has_it else killed, function),
            )
        yield from _does(state, function, events[function.event - 1], without)
    for number, (event, record) in enumerate(state.on_the_way):
        rest = state.on_the_way[:number] + state.on_the_way[number + 1 :]
        yield f"{event} lands late", state._replace(on_the_way=rest, record=record)
    running = {function.event for function in state.functions}
    for event, op in enumerate(state.ops, 1):
        if op == WAITING and event not in running:
            begins = Function(event, "turn" if "read in the turn" not in without else "read first")
            yield f"{event} is sent", state._replace(functions=tuple(sorted((*state.functions, begins))))
    on_its_way = {event for event, _ in state.on_the_way}
    for turn, holder in enumerate(state.turns):
        if holder < 0 and -holder not in on_its_way:
            yield f"the turn of {-holder} is over", _with_turn(state, turn, 0)


def _does(state: State, me: Function, mine: frozenset[int], without: frozenset[str]) -> Iterator[tuple[str, State]]:
    turn = _turn_of(me, without)
    match me.at:
        case "read first":
            yield f"{me.event} reads", _at(state, me, "turn", state.record)
        case "turn" if not state.turns[turn]:
            then = "save" if me.read else "read"
            yield f"{me.event} has the turn", _at(_with_turn(state, turn, me.event), me, then, me.read)
        case "read":
            yield f"{me.event} reads", _at(state, me, "save", state.record)
        case "save":
            fresh = _fresh(state, me.event, mine, without)
            saved = tuple(me.event if field in fresh else value for field, value in enumerate(me.read))
            yield f"{me.event} is saved", _at(state._replace(record=saved), me, "settle")
            if state.losses:
                rare = state._replace(losses=state.losses - 1)
                yield f"{me.event} is lost", _at(rare, me, "maybe")
                late = rare._replace(on_the_way=(*rare.on_the_way, (me.event, saved)))
                yield f"{me.event} is late", _at(late, me, "maybe")
        case "settle" | "maybe":
            fresh = _fresh(state, me.event, mine, without)
            applied = tuple(max(me.event, at) if field in fresh else at for field, at in enumerate(state.applied))
            ended = _gone(state, me)._replace(applied=applied)
            if me.at == "settle":
                ops = (*state.ops[: me.event - 1], DONE, *state.ops[me.event :])
                ended = ended._replace(ops=ops)
            keeps = me.at == "maybe" and "keep the turn" not in without
            yield f"{me.event} settles: {me.at}", _with_turn(ended, turn, -me.event if keeps else 0)


def _turn_of(me: Function, without: frozenset[str]) -> int:
    return me.event if "one turn" in without else 0


def _fresh(state: State, event: int, mine: frozenset[int], without: frozenset[str]) -> frozenset[int]:
    """Return the fields of an event to which nothing later was applied."""
    if "only newer fields" in without:
        return mine
    if "a time for each field" in without:
        return mine if max(state.applied) <= event else frozenset()
    return frozenset(field for field in mine if state.applied[field] <= event)


def _at(state: State, me: Function, step: str, read: Values = ()) -> State:
    gone = _gone(state, me)
    return gone._replace(functions=tuple(sorted((*gone.functions, Function(me.event, step, read)))))


def _gone(state: State, me: Function) -> State:
    functions = list(state.functions)
    functions.remove(me)
    return state._replace(functions=tuple(functions))


def _with_turn(state: State, turn: int, holder: int) -> State:
    return state._replace(turns=(*state.turns[:turn], holder, *state.turns[turn + 1 :]))

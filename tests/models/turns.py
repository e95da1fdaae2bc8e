"""Changes of one thing, in their order: a turn, a note of who has it, and an end that is settled in one transaction.

Events 1, 2, 3 happened in this order, and each sets its own value. Each call to DynamoDB and to the vendor is a step,
and a function may be killed before any. What was sent may be done, lost, refused, or land late, but before the turn is
over.
`RULES` are what the protocol rests on; `without` leaves some of them out.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tests.models.search import Found, search, unused

RULES = {
    "note": "whoever takes the turn leaves a note in the row",
    "wait for the note": "an older one waits while the note of a newer one is there that is not finished",
    "note what may be done": "what may have been done counts as applied",
    "note after a doubt": "so it does when a later sending of it was surely not done",
    "keep the turn": "what may be on its way keeps the turn until that is surely over",
    "kill is a doubt": "what was being sent when its function died may have been done",
    "ask a person": "a refusal after a doubt goes to a person",
    "end in one": "the end of the turn is in the transaction that settles",
}

ABSENT, SENDING, WAITING, DONE, OLDER, REJECTED, PARKED = (
    "absent",
    "sending",
    "waiting",
    "done",
    "older",
    "no",
    "needs_review",
)
FINISHED = (DONE, OLDER, REJECTED, PARKED)


class Op(NamedTuple):
    state: str = ABSENT
    lease: int = 0
    expired: bool = False
    doubt: bool = False


class Row(NamedTuple):
    holder: int = 0
    busy: bool = False
    applied: int = 0
    notes: frozenset[int] = frozenset()


class Function(NamedTuple):
    event: int
    at: str
    lease: int = 0
    worker: bool = False


class State(NamedTuple):
    ops: tuple[Op, ...]
    row: Row
    functions: tuple[Function, ...]
    landed: int
    """What the vendor has; and the newest that it ever had."""
    newest: int
    on_the_way: tuple[int, ...]
    kills: int
    losses: int


def turns(
    callers: Mapping[int, int], *, kills: int = 0, losses: int = 0, without: frozenset[str] = frozenset()
) -> Found:
    """`callers`: how often each event is sent. `losses` also counts refusals, which are as rare."""
    events = max(callers)
    start = State(
        ops=(Op(),) * events,
        row=Row(),
        functions=tuple(Function(event, "claim") for event, times in sorted(callers.items()) for _ in range(times)),
        landed=0,
        newest=0,
        on_the_way=(),
        kills=kills,
        losses=losses,
    )
    return search(start, lambda state: _steps(state, without), never=_never, at_the_end=_at_the_end)


def _never(state: State) -> str | None:
    return "an older one landed after a newer one" if state.landed < state.newest else None


def _at_the_end(state: State) -> str | None:
    accepted = [event for event, op in enumerate(state.ops, 1) if op.state != ABSENT]
    if any(state.ops[event - 1].state not in FINISHED for event in accepted):
        return "one is never finished"
    if state.row.notes:
        return "a note is left over"
    if any(state.ops[event - 1].state == PARKED for event in accepted):
        return None  # a person looks at the vendor
    kept = [event for event in accepted if state.ops[event - 1].state != REJECTED]
    if kept and state.landed != max(kept):
        return "the last value is not the newest's"
    return None


def _steps(state: State, without: frozenset[str]) -> Iterator[tuple[str, State]]:
    for function in sorted(set(state.functions)):
        if state.kills and function.lease:
            yield (
                f"{function.event} is killed before it does: {function.at}",
                _gone(state._replace(kills=state.kills - 1), function),
            )
        yield from _does(state, function, without)
    for number, event in enumerate(state.on_the_way):
        rest = state.on_the_way[:number] + state.on_the_way[number + 1 :]
        yield f"{event} lands late", _lands(state._replace(on_the_way=rest), event)
    yield from _time_passes(state)


def _does(state: State, me: Function, without: frozenset[str]) -> Iterator[tuple[str, State]]:
    event, op, row = me.event, state.ops[me.event - 1], state.row
    mine = op.state == SENDING and op.lease == me.lease and not op.expired
    match me.at:
        case "claim":
            lease = _unused(state)
            doubt = op.doubt or (op.state == SENDING and "kill is a doubt" not in without)
            is_due = op.state == WAITING or (op.state == SENDING and op.expired)
            if is_due if me.worker else op.state == ABSENT:
                claimed = _with(state, event, Op(SENDING, lease, doubt=doubt))
                yield f"{event} is claimed", _at(claimed, me, "turn", lease)
            else:
                yield f"{event} is known", _gone(state, me)
        case "turn" if not row.busy:
            notes = row.notes if "note" in without else row.notes | {event}
            yield (
                f"{event} takes the turn",
                _at(state._replace(row=Row(me.lease, True, row.applied, notes)), me, "read"),
            )
        case "turn" if mine:
            yield f"{event} does not get the turn", _ended(state, me, WAITING, row)
        case "read":
            newer = {note for note in row.notes if note > event and state.ops[note - 1].state not in FINISHED}
            if row.applied > event:
                yield from _settles(state, me, OLDER, without)
            elif newer and "wait for the note" not in without:
                yield from _settles(state, me, WAITING, without)
            else:
                yield f"{event} has the turn", _at(state, me, "send")
        case "send":
            yield f"{event} is done", _at(_lands(state, event), me, "settle")
            if state.losses:
                rare = state._replace(losses=state.losses - 1)
                yield f"{event} is done, the answer is lost", _at(_lands(rare, event), me, "maybe")
                yield f"{event} is lost", _at(rare, me, "maybe")
                late = rare._replace(on_the_way=(*rare.on_the_way, event))
                yield f"{event} is late", _at(late, me, "maybe")
                yield f"{event} is refused", _at(rare, me, "refused")
                yield f"{event} is surely not done", _at(rare, me, "not done")
        case "settle":
            yield from _settles(state, me, DONE, without)
        case "maybe":
            yield from _settles(state, me, "maybe", without)
        case "refused":
            asks = op.doubt and "ask a person" not in without
            yield from _settles(state, me, PARKED if asks else REJECTED, without)
        case "not done":
            yield from _settles(state, me, WAITING, without)
        case "end":  # only if it is not in the transaction
            yield f"{event} ends the turn", _gone(state._replace(row=_end(state, me, DONE, without)), me)


def _settles(state: State, me: Function, outcome: str, without: frozenset[str]) -> Iterator[tuple[str, State]]:
    op, row = state.ops[me.event - 1], state.row
    if op.state != SENDING or op.lease != me.lease or op.expired or row.holder != me.lease:
        yield f"{me.event} was overtaken", _gone(state, me)
    elif outcome == DONE and "end in one" in without:
        yield f"{me.event} settles first", _at(_with(state, me.event, Op(DONE)), me, "end")
    else:
        yield f"{me.event} settles: {outcome}", _ended(state, me, outcome, _end(state, me, outcome, without))


def _end(state: State, me: Function, outcome: str, without: frozenset[str]) -> Row:
    """The row after the turn."""
    op, row = state.ops[me.event - 1], state.row
    counts = (
        outcome == DONE
        or (outcome == "maybe" and "note what may be done" not in without)
        or (outcome in (WAITING, PARKED) and op.doubt and "note after a doubt" not in without)
    )
    return Row(
        me.lease,
        outcome == "maybe" and "keep the turn" not in without,
        max(row.applied, me.event) if counts and row.applied <= me.event else row.applied,
        row.notes - {me.event},
    )


def _ended(state: State, me: Function, outcome: str, row: Row) -> State:
    doubt = state.ops[me.event - 1].doubt or outcome == "maybe"
    op = Op(WAITING, doubt=doubt) if outcome in (WAITING, "maybe") else Op(outcome)
    return _gone(_with(state._replace(row=row), me.event, op), me)


def _time_passes(state: State) -> Iterator[tuple[str, State]]:
    """Past the leases of those who are dead; what was on its way has landed by then. Then due work is taken up."""
    if state.on_the_way:
        return
    alive = {function.lease for function in state.functions}
    ops = tuple(op._replace(expired=True) if op.state == SENDING and op.lease not in alive else op for op in state.ops)
    row = state.row._replace(busy=False) if state.row.holder not in alive else state.row
    if (ops, row) != (state.ops, state.row):
        yield "the leases of the dead expire", state._replace(ops=ops, row=row)
    for event, op in enumerate(state.ops, 1):
        due = op.state == WAITING or (op.state == SENDING and op.expired)
        if due and not any(function.worker and function.event == event for function in state.functions):
            worker = Function(event, "claim", worker=True)
            yield f"{event} is due", state._replace(functions=tuple(sorted((*state.functions, worker))))


def _lands(state: State, event: int) -> State:
    return state._replace(landed=event, newest=max(state.newest, event))


def _with(state: State, event: int, op: Op) -> State:
    return state._replace(ops=(*state.ops[: event - 1], op, *state.ops[event:]))


def _at(state: State, me: Function, step: str, lease: int = 0) -> State:
    moved = me._replace(at=step, lease=lease or me.lease)
    return _gone(state, me)._replace(functions=tuple(sorted((*_gone(state, me).functions, moved))))


def _gone(state: State, me: Function) -> State:
    functions = list(state.functions)
    functions.remove(me)
    return state._replace(functions=tuple(functions))


def _unused(state: State) -> int:
    return unused((op.lease for op in state.ops), (function.lease for function in state.functions), (state.row.holder,))

"""Saves of one person: one id, one record of each kind, and nobody is a prospect again who has become a member.

Events 1, 2, 3 arrived in this order; each is a save of a prospect ("P") or of a member ("M"). A save reads what is
known of the person, and one transaction then stores the person, claims the save and takes the turn. A record that is
made is settled in the transaction that settles its save, unless the prospect's record has to be closed after it. Each
call to DynamoDB (a transaction is one) and to Egito is a step, and a function may be killed before any. A call to Egito
may be done, lost, surely not done, or land late, but before the lease is over. `RULES` are what the protocol rests on;
`without` leaves some of them out. What holds of turns in general is in `turns`, of single fields in `fields`.
"""

from collections.abc import Iterator
from typing import NamedTuple

from tests.models.search import Found, search, unused

RULES = {
    "one id": "a new person is stored only if nobody else of this name was stored since it was read",
    "as read": "a save is claimed with its turn only if the person's row is as it was read",
    "at once": "the row and the records are read as they are at one time",
    "read in the turn": "a save that takes its turn later reads the records again",
    "claim the record": "a record is claimed before it is made",
    "look first": "a record that may have been made is looked for before it is made",
    "prospect since ever": "the time of a prospect's type is the beginning of time",
    "wait for the member": "a prospect's save counts for the member whose record is on its way",
    "wait for the prospect": "a conversion waits for a prospect's record that is on its way",
    "ask for the member": "a prospect's record that waited is not made if a member's is there or on its way",
    "take over": "a member's new record has what a later save has said in the prospect's record",
}

ABSENT, SENDING, WAITING, UNCONFIRMED, DONE, REJECTED = (
    "absent",
    "sending",
    "waiting",
    "unconfirmed",
    "done",
    "rejected",
)
HALF_DONE = "half done"
"""Unconfirmed, and nothing is on its way that could land when the turn is over."""
LEAD, CONTACT = 0, 1


class Op(NamedTuple):
    """A save."""

    state: str = ABSENT
    lease: int = 0
    expired: bool = False


class Record(NamedTuple):
    """The operation that makes a record with the values of the save `event`."""

    state: str = ABSENT
    lease: int = 0
    expired: bool = False
    event: int = 0


class Row(NamedTuple):
    """`value` and `kind`: when that happened which was applied last to the fields, and to the person's type."""

    holder: int = 0
    busy: bool = False
    value: int = 0
    kind: int = 0
    notes: frozenset[int] = frozenset()


class Theirs(NamedTuple):
    """Records of one kind at Egito: how many, what they say, the newest that they ever said, and if one is closed."""

    number: int = 0
    value: int = 0
    newest: int = 0
    closed: bool = False


class Function(NamedTuple):
    """It runs a save; or, if `record` is set, the operation of a record."""

    event: int
    at: str
    lease: int = 0
    record: int = -1
    person: bool = False
    row: Row | None = None
    records: tuple[Record, ...] | None = None
    kind: int = -1
    """The record that it makes."""


class State(NamedTuple):
    people: int
    ops: tuple[Op, ...]
    records: tuple[Record, ...]
    row: Row
    functions: tuple[Function, ...]
    egito: tuple[Theirs, ...]
    on_the_way: tuple[tuple[str, int, int], ...]
    kills: int
    losses: int


def people(
    saves: str, *, callers: int = 1, kills: int = 0, losses: int = 0, without: frozenset[str] = frozenset()
) -> Found:
    """`callers`: how often the first save is sent."""
    events = list(range(1, len(saves) + 1))
    start = State(
        people=0,
        ops=(Op(),) * len(saves),
        records=(Record(), Record()),
        row=Row(),
        functions=tuple(
            sorted(Function(event, "read") for event in events for _ in range(callers if event == 1 else 1))
        ),
        egito=(Theirs(), Theirs()),
        on_the_way=(),
        kills=kills,
        losses=losses,
    )
    model = _Model(saves, without)
    return search(start, model.steps, never=_never, at_the_end=model.at_the_end)


def _never(state: State) -> str | None:
    if state.people > 1:
        return "two ids of one person"
    for theirs in state.egito:
        if theirs.number > 1:
            return "two records of one person"
        if theirs.value < theirs.newest and state.ops[theirs.newest - 1].state == DONE:
            return "an older save landed after a newer one was done"
    return None


class _Model:
    def __init__(self, saves: str, without: frozenset[str]) -> None:
        self.saves = saves
        self.without = without

    def is_member(self, event: int) -> bool:
        return self.saves[event - 1] == "M"

    def kind_at(self, event: int) -> int:
        """When the save's type happened."""
        return event if self.is_member(event) or "prospect since ever" in self.without else 0

    def at_the_end(self, state: State) -> str | None:
        accepted = [event for event, op in enumerate(state.ops, 1) if op.state != ABSENT]
        if any(state.ops[event - 1].state != DONE for event in accepted):
            return "one is never finished"
        if state.row.notes:
            return "a note is left over"
        if not accepted:
            return None
        lead, contact = state.egito
        if any(self.is_member(event) for event in accepted):
            if contact.number != 1 or contact.value != max(accepted):
                return "the member's record does not have the newest values"
            if lead.number and not lead.closed:
                return "the prospect's record is still open"
        elif lead.number != 1 or lead.value != max(accepted):
            return "the prospect's record does not have the newest values"
        for record, theirs in zip(state.records, state.egito, strict=True):
            if (record.state == DONE) != bool(theirs.number):
                return "a record is not known"
        return None

    # ------------------------------------------------------------------ steps

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        for me in sorted(set(state.functions), key=repr):
            if state.kills and me.lease:
                yield f"{_name(me)} is killed before: {me.at}", _gone(state._replace(kills=state.kills - 1), me)
            for label, then in self.record(state, me) if me.record >= 0 else self.save(state, me):
                yield f"{_name(me)} {label}", then
        for number, (what, kind, event) in enumerate(state.on_the_way):
            rest = state.on_the_way[:number] + state.on_the_way[number + 1 :]
            yield f"late: {what} {event}", _lands(state._replace(on_the_way=rest), what, kind, event)
        yield from _time_passes(state)

    def save(self, state: State, me: Function) -> Iterator[tuple[str, State]]:
        event, op, row = me.event, state.ops[me.event - 1], state.row
        match me.at:
            case "read" if "at once" in self.without:
                seen = {"records": state.records, "person": state.people > 0}
                yield "reads the records", _at(state, me, "read the row", **seen)
            case "read the row":
                yield "reads the row", _at(state, me, "claim", row=row)
            case "read":
                seen = {"row": row, "records": state.records, "person": state.people > 0}
                yield "reads", _at(state, me, "claim", **seen)
            case "claim" if op.state != ABSENT:
                yield "is known", _gone(state, me)
            case "claim" if me.person != (state.people > 0) and "one id" not in self.without:
                yield "reads again", _at(state, me, "read", row=None, records=None, person=False)
            case "claim":
                lease = _unused(state)
                claimed = state._replace(
                    people=state.people + (not me.person), ops=_put(state.ops, event - 1, Op(SENDING, lease))
                )
                read = me.row
                assert read is not None
                is_as_read = (read.holder, read.notes) == (row.holder, row.notes)
                if not read.busy and (is_as_read or "as read" in self.without):
                    turn = read._replace(holder=lease, busy=True, notes=row.notes | {event})
                    taken = claimed._replace(row=turn)
                    yield "is claimed with its turn", _at(taken, me, "decide", lease=lease, row=turn)
                else:
                    yield "is claimed", _at(claimed, me, "turn", lease=lease, row=None)
            case "claim again":
                if op.state in (WAITING, UNCONFIRMED) or (op.state == SENDING and op.expired):
                    lease = _unused(state)
                    claimed = state._replace(ops=_put(state.ops, event - 1, Op(SENDING, lease)))
                    yield "is claimed again", _at(claimed, me, "turn", lease=lease)
                else:
                    yield "is not due", _gone(state, me)
            case "turn" if not row.busy:
                turn = row._replace(holder=me.lease, busy=True, notes=row.notes | {event})
                reads = me.records is None or "read in the turn" not in self.without
                step = "read the records" if reads else "decide"
                yield "takes the turn", _at(state._replace(row=turn), me, step, row=turn)
            case "turn":
                yield from self.ends(state, me, WAITING)
            case "read the records":
                yield "reads the records", _at(state, me, "decide", records=state.records)
            case "decide":
                yield from self.decides(state, me)
            case "claim the record":
                yield from self.claims_record(state, me)
            case "create":
                for label, then, is_known in _sent(state, "create", me.kind, state.records[me.kind].event):
                    yield label, _at(then, me, "settle the record" if is_known else "maybe made")
                if state.losses:
                    yield "is told to try later", _at(state._replace(losses=state.losses - 1), me, "not made")
            case "settle the record":
                if not self.is_mine(state, me):
                    yield "has lost the record's lease", _at(state, me, "later", kind=me.kind)
                else:
                    done = state._replace(records=_put(state.records, me.kind, Record(DONE)))
                    records = _put(me.records or (), me.kind, Record(DONE))
                    if me.kind == CONTACT and records[LEAD].state not in (ABSENT, REJECTED):
                        yield "settles the record", _at(done, me, "close", records=records)
                    elif self.has_turn(state, me):
                        yield "settles the record and the save", self.ended(done, me, DONE)
                    else:
                        yield "settles the record, its own turn is over", _gone(done, me)
            case "maybe made":
                if self.is_mine(state, me):
                    unsure = state.records[me.kind]._replace(state=UNCONFIRMED, lease=0)
                    state = state._replace(records=_put(state.records, me.kind, unsure))
                yield "does not know if it is made", _at(state, me, "half done")
            case "not made":
                if self.is_mine(state, me):
                    waits = state.records[me.kind]._replace(state=WAITING, lease=0)
                    state = state._replace(records=_put(state.records, me.kind, waits))
                yield "lets the record wait", _at(state, me, "later")
            case "update":
                for label, then, is_known in _sent(state, "update", me.kind, event):
                    step = "close" if me.kind == CONTACT else "done"
                    yield label, _at(then, me, step if is_known else "maybe done")
            case "close":
                lead = (me.records or ())[LEAD]
                is_finished = lead.state in (ABSENT, DONE, REJECTED)
                if not is_finished:
                    lead = state.records[LEAD]
                if lead.state in (SENDING, UNCONFIRMED) and "wait for the prospect" not in self.without:
                    yield from self.ends(state, me, WAITING)
                elif lead.state != DONE:
                    yield "has nothing to close", _at(state, me, "done")
                else:
                    for label, then, is_known in _sent(state, "close", LEAD, event):
                        yield label, _at(then, me, "done" if is_known else "maybe done")
            case "done":
                yield from self.ends(state, me, DONE)
            case "later":
                yield from self.ends(state, me, WAITING)
            case "half done":
                yield from self.ends(state, me, HALF_DONE)
            case "maybe done":
                yield from self.ends(state, me, UNCONFIRMED)

    def decides(self, state: State, me: Function) -> Iterator[tuple[str, State]]:
        """By the row as it was when the turn was taken, and by the records as they were read."""
        event, row, records = me.event, me.row, me.records
        assert row is not None
        assert records is not None
        value, kind = row.value <= event, row.kind <= self.kind_at(event)
        newer = [note for note in row.notes if note > event and state.ops[note - 1].state != DONE]
        has_member = records[CONTACT].state not in (ABSENT, REJECTED) and "wait for the member" not in self.without
        if newer and (value or kind):
            yield from self.ends(state, me, WAITING)
        elif not (value or kind):
            yield "is older", _at(state, me, "close" if has_member else "done")
        else:
            is_prospect = not self.is_member(event) and kind and not has_member
            target = LEAD if is_prospect else CONTACT
            if records[target].state != DONE:
                yield "has no record", _at(state, me, "claim the record", kind=target)
            elif value:
                yield "has a record", _at(state, me, "update", kind=target)
            else:
                yield "has nothing new", _at(state, me, "close" if target == CONTACT else "done")

    def claims_record(self, state: State, me: Function) -> Iterator[tuple[str, State]]:
        there = state.records[me.kind]
        is_undone = there.state in (ABSENT, WAITING, REJECTED)
        if is_undone or "claim the record" in self.without:
            assert me.row is not None
            is_there = me.kind == CONTACT and (me.records or ())[LEAD].state == DONE and "take over" not in self.without
            values = max(me.event, me.row.value) if is_there else me.event
            sending = Record(SENDING, me.lease, event=values)
            yield "claims the record", _at(state._replace(records=_put(state.records, me.kind, sending)), me, "create")
        elif there.state == DONE:
            seen = _put(me.records or (), me.kind, there)
            yield "finds the record", _at(state, me, "decide", records=seen)
        else:
            yield from self.ends(state, me, WAITING)

    def record(self, state: State, me: Function) -> Iterator[tuple[str, State]]:
        """The operation of a record that was in doubt."""
        there = state.records[me.record]
        match me.at:
            case "claim again":
                if there.state in (WAITING, UNCONFIRMED) or (there.state == SENDING and there.expired):
                    lease = _unused(state)
                    mine = Record(SENDING, lease, event=there.event)
                    claimed = state._replace(records=_put(state.records, me.record, mine))
                    step = "ask" if there.state == WAITING or "look first" in self.without else "look"
                    yield "is claimed again", _at(claimed, me, step, lease=lease)
                else:
                    yield "is not due", _gone(state, me)
            case "look":
                yield "is looked for", _at(state, me, "settle" if state.egito[me.record].number else "ask")
            case "ask":
                has_member = state.records[CONTACT].state not in (ABSENT, REJECTED)
                if me.record == LEAD and has_member and "ask for the member" not in self.without:
                    refused = state._replace(records=_put(state.records, me.record, Record(REJECTED)))
                    yield "is not needed", _gone(refused if self.is_mine(state, me) else state, me)
                else:
                    yield "is needed", _at(state, me, "create")
            case "create":
                for label, then, is_known in _sent(state, "create", me.record, there.event):
                    yield label, _at(then, me, "settle" if is_known else "maybe")
            case "settle":
                settled = state._replace(records=_put(state.records, me.record, Record(DONE)))
                yield "is settled", _gone(settled if self.is_mine(state, me) else state, me)
            case "maybe":
                unsure = Record(UNCONFIRMED, event=there.event)
                unsettled = state._replace(records=_put(state.records, me.record, unsure))
                yield "is in doubt", _gone(unsettled if self.is_mine(state, me) else state, me)

    def is_mine(self, state: State, me: Function) -> bool:
        record = state.records[me.record if me.record >= 0 else me.kind]
        return (record.state, record.lease, record.expired) == (SENDING, me.lease, False)

    def has_turn(self, state: State, me: Function) -> bool:
        op = state.ops[me.event - 1]
        return (op.state, op.lease, op.expired, state.row.holder) == (SENDING, me.lease, False, me.lease)

    def ends(self, state: State, me: Function, outcome: str) -> Iterator[tuple[str, State]]:
        op = state.ops[me.event - 1]
        if (op.state, op.lease, op.expired) != (SENDING, me.lease, False):
            yield "was overtaken", _gone(state, me)
        elif me.row is None:  # it never had the turn
            yield f"settles: {outcome}", _gone(state._replace(ops=_put(state.ops, me.event - 1, Op(outcome))), me)
        elif not self.has_turn(state, me):
            yield "was overtaken", _gone(state, me)
        else:
            yield f"settles: {outcome}", self.ended(state, me, outcome)

    def ended(self, state: State, me: Function, outcome: str) -> State:
        """The save is settled and its turn ends, in one transaction."""
        row, event = state.row, me.event
        applied = outcome in (DONE, UNCONFIRMED, HALF_DONE)
        op = Op(UNCONFIRMED if outcome == HALF_DONE else outcome)
        after = Row(
            me.lease,
            outcome == UNCONFIRMED,
            max(row.value, event) if applied else row.value,
            max(row.kind, self.kind_at(event)) if applied else row.kind,
            row.notes - {event},
        )
        return _gone(state._replace(row=after, ops=_put(state.ops, event - 1, op)), me)


def _sent(state: State, what: str, kind: int, event: int) -> Iterator[tuple[str, State, bool]]:
    """A call to Egito, and whether its response is known."""
    yield f"does: {what}", _lands(state, what, kind, event), True
    if state.losses:
        rare = state._replace(losses=state.losses - 1)
        yield f"does: {what}, and the response is lost", _lands(rare, what, kind, event), False
        yield f"loses: {what}", rare, False
        yield f"is late: {what}", rare._replace(on_the_way=(*rare.on_the_way, (what, kind, event))), False


def _lands(state: State, what: str, kind: int, event: int) -> State:
    theirs = state.egito[kind]
    if what == "close":
        after = theirs._replace(closed=True)
    elif what == "create":
        after = Theirs(theirs.number + 1, event, max(theirs.newest, event), theirs.closed)
    else:
        after = theirs._replace(value=event, newest=max(theirs.newest, event))
    return state._replace(egito=_put(state.egito, kind, after))


def _time_passes(state: State) -> Iterator[tuple[str, State]]:
    """Past the leases of those who are dead; what was on its way has landed by then. Then due work is taken up."""
    if state.on_the_way:
        return
    alive = {function.lease for function in state.functions}
    ops = tuple(op._replace(expired=True) if op.state == SENDING and op.lease not in alive else op for op in state.ops)
    records = tuple(
        one._replace(expired=True) if one.state == SENDING and one.lease not in alive else one for one in state.records
    )
    row = state.row._replace(busy=False) if state.row.holder not in alive else state.row
    if (ops, records, row) != (state.ops, state.records, state.row):
        yield "the leases of the dead expire", state._replace(ops=ops, records=records, row=row)
    for event, op in enumerate(state.ops, 1):
        due = op.state in (WAITING, UNCONFIRMED) or (op.state == SENDING and op.expired)
        if due and not any(one.record < 0 and one.event == event and one.at != "read" for one in state.functions):
            yield f"{event} is due", _with(state, Function(event, "claim again"))
    for kind, record in enumerate(state.records):
        due = record.state in (WAITING, UNCONFIRMED) or (record.state == SENDING and record.expired)
        if due and not any(one.record == kind for one in state.functions):
            yield f"record {kind} is due", _with(state, Function(record.event, "claim again", record=kind))


def _name(me: Function) -> str:
    return f"record {me.record}" if me.record >= 0 else str(me.event)


def _put[T](values: tuple[T, ...], number: int, value: T) -> tuple[T, ...]:
    return (*values[:number], value, *values[number + 1 :])


def _with(state: State, function: Function) -> State:
    return state._replace(functions=tuple(sorted((*state.functions, function), key=repr)))


def _at(state: State, me: Function, step: str, **changes: object) -> State:
    return _with(_gone(state, me), me._replace(at=step, **changes))  # type: ignore[arg-type]


def _gone(state: State, me: Function) -> State:
    functions = list(state.functions)
    functions.remove(me)
    return state._replace(functions=tuple(functions))


def _unused(state: State) -> int:
    return unused(
        (op.lease for op in state.ops),
        (record.lease for record in state.records),
        (function.lease for function in state.functions),
        (function.row.holder for function in state.functions if function.row),
        (state.row.holder,),
    )

"""A key link is changed or deleted while requests for the same pairs come: which of them has it in the end.

Pairs are "A" and "B", each with the event of its own that `POST` makes; key links are numbers. A change is of one key
link and gives it a new pair, or none, which is its deletion. Each call to DynamoDB (a transaction is one) and to Rev.io
is a step, and a function may be killed before any. A call to Rev.io may be done, lost, refused, or land late, but
before the turn is over. `RULES` are what the protocol rests on; `without` leaves some of them out.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.models.search import Found, search, unused

RULES = {
    "hold": "a change holds the event that has the key link, as soon as it is accepted",
    "hold while it waits": "an event that is held is not sent",
    "reserve": "a change reserves the event of the new pair",
    "reserve for one": "an event is reserved for the changes of one key link at a time",
    "note": "a change notes itself in the key link's row, as soon as it is accepted",
    "found: no note": "what a new request finds is not its answer while a change of it is noted",
    "found: no end since": "nor if a change of it ended after the request had begun to look",
    "found: say so": "a new request that finds one says so in its row, and a change that did not see it asks again",
    "earlier ones first": "a change waits for an earlier event that may have made the key link",
    "release": "a change that is refused lets go what it held",
}

ABSENT, SENDING, WAITING, UNKNOWN, DONE, REJECTED, PARKED = (
    "absent",
    "sending",
    "waiting",
    "unconfirmed",
    "done",
    "no",
    "needs_review",
)
OPEN = (SENDING, WAITING, UNKNOWN)


class Event(NamedTuple):
    """Of a pair. `held` are the numbers of changes, `reserved` is one; `tied` is the key link that its links name."""

    state: str = ABSENT
    answer: int = 0
    tied: int = 0
    held: frozenset[int] = frozenset()
    reserved: int = 0
    doubt: bool = False
    lease: int = 0
    expired: bool = False
    asked: int = 0
    made: int = 0
    """How many key links it has made since it was asked for."""


class Change(NamedTuple):
    key_link: int
    pair: str
    """Empty for a deletion."""
    state: str = ABSENT
    doubt: bool = False
    lease: int = 0
    expired: bool = False
    asked: int = 0


class Row(NamedTuple):
    """Of a key link. `found_by` is the pair whose event found it last."""

    holder: int = 0
    busy: bool = False
    applied: int = 0
    notes: frozenset[int] = frozenset()
    found_by: str = ""


class Function(NamedTuple):
    """`of` is a pair, or the number of a change. `sees` is what it has read: pairs, or a key link."""

    of: str | int
    at: str
    lease: int = 0
    worker: bool = False
    sees: tuple[str | int, ...] = ()
    overtaken: bool = False
    """Whether a change of what it found has ended since it began to look."""


class State(NamedTuple):
    there: frozenset[tuple[int, str]]
    """What Rev.io has."""
    events: tuple[tuple[str, Event], ...]
    changes: tuple[Change, ...]
    rows: tuple[Row, ...]
    functions: tuple[Function, ...]
    on_the_way: tuple[tuple[str, int, str], ...]
    told: frozenset[tuple[str, int]]
    """Pairs whose request came when all changes had been accepted, and the key link that it was answered with."""
    late: frozenset[str]
    """Pairs that were asked for when all changes had been accepted."""
    clock: int
    last: int
    """The number of the newest key link."""
    kills: int
    losses: int
    decided: bool = False
    """Whether a person has."""


class Model(NamedTuple):
    without: frozenset[str]
    later: bool
    ordered: bool

    def has(self, rule: str) -> bool:
        return rule not in self.without


def held(
    changes: Sequence[tuple[int, str]],
    posts: str,
    *,
    ours: str = "A",
    theirs: str = "",
    later: bool = False,
    ordered: bool = False,
    kills: int = 0,
    losses: int = 0,
    without: frozenset[str] = frozenset(),
) -> Found:
    """`changes` are of key links to new pairs; `posts` are the pairs that are sent.

    `ours` are the pairs of the key links 1, 2, ... that our events have, `theirs` of those that somebody made at
    Rev.io. `later`: changes are accepted first, and sent by a worker. `ordered`: requests come when all changes are
    accepted.
    """
    pairs = sorted({*posts, *ours, *theirs, *(pair for _, pair in changes if pair)})
    there = frozenset(enumerate(ours + theirs, 1))
    start = State(
        there=there,
        events=tuple(
            (pair, Event(DONE, ours.index(pair) + 1, ours.index(pair) + 1) if pair in ours else Event())
            for pair in pairs
        ),
        changes=tuple(Change(key_link, pair) for key_link, pair in changes),
        rows=(Row(),) * max(len(there), *(key_link for key_link, _ in changes)),
        functions=tuple(
            sorted(
                [Function(pair, "ask") for pair in posts] + [Function(n, "ask") for n in range(1, len(changes) + 1)],
                key=str,
            )
        ),
        on_the_way=(),
        told=frozenset(),
        late=frozenset(),
        clock=0,
        last=len(there),
        kills=kills,
        losses=losses,
    )
    model = Model(without, later, ordered)
    return search(start, lambda state: _steps(state, model), never=_never, at_the_end=_at_the_end)


def _never(state: State) -> str | None:
    if any(event.made > 1 for _, event in state.events):
        return "an event was done twice"
    pairs = [pair for _, pair in state.there]
    return "two key links of one pair" if len(set(pairs)) < len(pairs) else None


def _at_the_end(state: State) -> str | None:
    events = dict(state.events)
    if any(event.state in OPEN for event in events.values()) or any(change.state in OPEN for change in state.changes):
        return "one is never finished"
    if any(event.held or event.reserved for event in events.values()):
        return "one is still held"
    if any(row.notes for row in state.rows):
        return "a note is left over"
    if state.decided:
        return None  # a person looked at the vendor
    for pair, event in events.items():
        has = sorted(key_link for key_link, of in state.there if of == pair)
        if event.state == DONE and has != [event.answer]:
            return f"the event of {pair} says {event.answer}, and Rev.io has {has}"
        if event.state == DONE and event.tied != event.answer:
            return f"the links of {pair} name {event.tied}, not {event.answer}"
        if event.state != DONE and event.tied:
            return f"the links of {pair} still name {event.tied}"
        if pair in state.late and event.state != DONE:
            return f"{pair} was asked for after the changes, and is not there"
    for pair, answer in state.told:
        if events[pair].answer != answer:
            return f"{pair} was answered with {answer}, which has gone since"
    return None


def _steps(state: State, model: Model) -> Iterator[tuple[str, State]]:
    for function in dict.fromkeys(state.functions):
        if state.kills and function.lease:
            yield (
                f"{_name(function)} is killed before it does: {function.at}",
                _gone(state._replace(kills=state.kills - 1), function),
            )
        yield from _post(state, function, model) if isinstance(function.of, str) else _change(state, function, model)
    for number, (what, key_link, pair) in enumerate(state.on_the_way):
        rest = state._replace(on_the_way=state.on_the_way[:number] + state.on_the_way[number + 1 :])
        yield (
            f"{what} {key_link or ''} {pair} lands late",
            _done(rest, key_link, pair) if key_link else _made(rest, pair),
        )
    yield from _time_passes(state)
    yield from _a_person(state)


# ---------------------------------------------------------------------- a request for a pair


def _post(state: State, me: Function, model: Model) -> Iterator[tuple[str, State]]:
    assert isinstance(me.of, str)
    pair, event = me.of, dict(state.events)[me.of]
    mine = event.state == SENDING and event.lease == me.lease and not event.expired
    match me.at:
        case "ask":
            if not model.ordered or all(change.state != ABSENT for change in state.changes):
                comes_after = {pair} if model.ordered and model.later else set()
                asked = state._replace(clock=state.clock + 1, late=state.late | comes_after)
                yield f"{pair} is asked for", _at(asked, me, "claim", sees=(asked.clock,))
        case "claim" if me.worker:
            due = event.state in (WAITING, UNKNOWN) or (event.state == SENDING and event.expired)
            if due and not (event.held and model.has("hold while it waits")):
                doubt = event.doubt or event.state != WAITING
                yield f"{pair} is claimed again", _looks(state, me, event._replace(doubt=doubt))
            else:
                yield f"{pair} is not due", _gone(state, me)
        case "claim":
            (asked_at,) = me.sees
            assert isinstance(asked_at, int)
            if event.held and event.state not in OPEN:
                waits = event._replace(state=WAITING, answer=0, doubt=False, asked=asked_at, made=0)
                yield f"{pair} waits behind a change", _gone(_with(state, pair, waits), me)
            elif event.state in (ABSENT, REJECTED):
                yield f"{pair} is claimed", _looks(state, me, event._replace(asked=asked_at, doubt=False, made=0))
            elif event.state == DONE:
                told = {(pair, event.answer)} if pair in state.late else set()
                yield f"{pair} is answered: {event.answer}", _gone(state._replace(told=state.told | told), me)
            else:
                yield f"{pair} is known: {event.state}", _gone(state, me)
        case "look":
            for found in [one for one, of in sorted(state.there) if of == pair] or [0]:
                step = "found" if found else "create"
                yield f"{pair} finds {found or 'nothing'}", _at(state, me, step, sees=(found,))
        case "create":
            new = state.last + 1
            yield f"{pair} becomes {new}", _at(_made(state, pair), me, "made", sees=(new,))
            if state.losses:
                rare = state._replace(losses=state.losses - 1)
                yield f"{pair} becomes {new}, the answer is lost", _at(_made(rare, pair), me, "maybe")
                late = rare._replace(on_the_way=(*rare.on_the_way, ("create", 0, pair)))
                yield f"{pair} is late", _at(late, me, "maybe")
        case "found" | "made" if mine:
            (key_link,) = me.sees
            assert isinstance(key_link, int)
            if me.at == "found" and not _may_have(state, key_link, event, me, model):
                to = event._replace(state=UNKNOWN if event.doubt else WAITING)
                yield f"{pair} must not have {key_link} and waits", _gone(_with(state, pair, to), me)
                return
            has = event._replace(state=DONE, answer=key_link, tied=key_link, doubt=False)
            settled = _with(state, pair, has)
            if me.at == "found" and key_link <= len(state.rows) and model.has("found: say so"):
                settled = _row(settled, key_link, state.rows[key_link - 1]._replace(found_by=pair))
            if not me.worker and pair in state.late:
                settled = settled._replace(told=state.told | {(pair, key_link)})
            yield f"{pair} settles with {key_link}", _gone(settled, me)
        case "maybe" if mine:
            yield f"{pair} is in doubt", _gone(_with(state, pair, event._replace(state=UNKNOWN, doubt=True)), me)
        case "found" | "made" | "maybe":
            yield f"{pair} was overtaken", _gone(state, me)


def _may_have(state: State, key_link: int, event: Event, me: Function, model: Model) -> bool:
    if key_link > len(state.rows):
        return True
    row = state.rows[key_link - 1]
    if model.has("found: no note") and (
        row.busy or any(state.changes[note - 1].asked <= event.asked for note in row.notes)
    ):
        return False
    return not (model.has("found: no end since") and me.overtaken)


def _looks(state: State, me: Function, event: Event) -> State:
    assert isinstance(me.of, str)
    lease = _unused(state)
    claimed = _with(state, me.of, event._replace(state=SENDING, lease=lease, expired=False))
    return _at(claimed, me._replace(overtaken=False), "look", lease=lease, sees=())


# ---------------------------------------------------------------------- a change


def _change(state: State, me: Function, model: Model) -> Iterator[tuple[str, State]]:
    assert isinstance(me.of, int)
    number, change = me.of, state.changes[me.of - 1]
    row = state.rows[change.key_link - 1]
    mine = change.state == SENDING and change.lease == me.lease and not change.expired
    match me.at:
        case "ask" if change.key_link in dict(state.there):
            changes = _set(state.changes, number, change._replace(asked=state.clock + 1))
            asked = state._replace(clock=state.clock + 1, changes=changes)
            yield f"change {number} is asked for", _at(asked, me, "see, to accept" if model.later else "see, to claim")
        case "claim":
            if change.state in (WAITING, UNKNOWN) or (change.state == SENDING and change.expired):
                lease = _unused(state)
                doubt = change.doubt or change.state == SENDING
                claimed = _changed(
                    state, number, change._replace(state=SENDING, lease=lease, expired=False, doubt=doubt)
                )
                yield f"change {number} is claimed again", _at(claimed, me, "see", lease=lease)
            else:
                yield f"change {number} is not due", _gone(state, me)
        case "see, to accept" | "see, to claim" | "see":
            tied = tuple(pair for pair, event in state.events if event.tied == change.key_link)
            yield (
                f"change {number} sees {''.join(tied) or 'nobody'}",
                _at(state, me, me.at.replace("see", "mark"), sees=tied),
            )
        case "mark, to accept" | "mark, to claim" | "mark":
            if me.at == "mark" and not mine:
                yield f"change {number} was overtaken", _gone(state, me)
            elif model.has("found: say so") and row.found_by and row.found_by not in me.sees:
                yield f"change {number} sees again", _at(state, me, me.at.replace("mark", "see"))
            else:
                yield from _marks(state, me, model)
        case "begin" if mine:
            # It has held what has the key link. Nobody has it: then it is asked what it says.
            events = dict(state.events)
            known = any(
                events[str(pair)].state == DONE and events[str(pair)].answer == change.key_link for pair in me.sees
            )
            is_open = any(events[str(pair)].state in OPEN and not events[str(pair)].held for pair in me.sees)
            if change.pair or not known or is_open:
                pair = dict(state.there).get(change.key_link, "")
                yield f"change {number} reads {pair or 'nothing'}", _at(state, me, "check", sees=(pair,))
            else:
                yield f"change {number} goes on", _at(state, me, "call", sees=())
        case "check" if mine:
            yield from _checks(state, me, model)
        case "search" if mine:
            others = [key_link for key_link, of in state.there if of == change.pair and key_link != change.key_link]
            yield f"change {number} finds {others}", _at(state, me, "refused" if others else "call", sees=())
        case "call":
            if not mine:
                yield f"change {number} was overtaken", _gone(state, me)
                return
            what = "change" if change.pair else "delete"
            done = _done(state, change.key_link, change.pair)
            yield f"change {number} is done", _at(done, me, "settle", sees=())
            if state.losses:
                rare, done = state._replace(losses=state.losses - 1), done._replace(losses=state.losses - 1)
                yield f"change {number} is done, the answer is lost", _at(done, me, "maybe")
                yield f"change {number} is lost", _at(rare, me, "maybe")
                late = rare._replace(on_the_way=(*rare.on_the_way, (what, change.key_link, change.pair)))
                yield f"change {number} is late", _at(late, me, "maybe")
                yield f"change {number} is refused", _at(rare, me, "refused")
                yield f"change {number} is surely not done", _at(rare, me, "not done")
        case "settle" | "maybe" | "not done" | "refused" | "begin" | "check" | "search":
            if not mine or row.holder != me.lease:
                yield f"change {number} was overtaken", _gone(state, me)
            else:
                yield f"change {number} settles: {me.at}", _gone(_settled(state, me, me.at, model), me)


def _marks(state: State, me: Function, model: Model) -> Iterator[tuple[str, State]]:
    """One transaction: the change itself, its note, its turn, what it holds and reserves."""
    assert isinstance(me.of, int)
    number, change = me.of, state.changes[me.of - 1]
    row = state.rows[change.key_link - 1]
    accept = me.at == "mark, to accept"
    lease = me.lease or (0 if accept else _unused(state))
    marked = _changed(state, number, change._replace(state=WAITING if accept else SENDING, lease=lease, expired=False))
    notes = row.notes | {number} if model.has("note") else row.notes
    marked = _row(marked, change.key_link, row._replace(notes=notes))
    holding = marked
    for pair in me.sees:
        event = dict(state.events)[str(pair)]
        if _holdable(event, change.key_link) and model.has("hold"):
            holding = _with(holding, str(pair), event._replace(held=event.held | {number}))
    waits = False
    if change.pair:
        event = dict(holding.events)[change.pair]
        of = state.changes[event.reserved - 1].key_link if event.reserved else change.key_link
        free = of == change.key_link and not (accept and event.reserved)
        is_open = event.state in OPEN and not event.held
        if not model.has("reserve"):
            pass
        elif (free or not model.has("reserve for one")) and not is_open:
            reserved = event._replace(held=event.held | {number}, reserved=number)
            holding = _with(holding, change.pair, reserved)
        else:
            waits = True
    if accept:
        yield f"change {number} is accepted", _gone(holding, me)
        return
    newer = {note for note in row.notes if state.changes[note - 1].asked > change.asked}
    if row.busy:  # accepted without its turn; it waits for that, and sees again
        yield f"change {number} is claimed without its turn", _gone(_waits(holding, number), me)
    elif row.applied > change.asked:
        took = _row(holding, change.key_link, holding.rows[change.key_link - 1]._replace(holder=lease, busy=True))
        late = me._replace(lease=lease)
        yield f"change {number} is too old", _gone(_settled(_swap(took, me, late), late, "superseded", model), late)
    elif waits or newer:
        yield f"change {number} waits for its turn", _gone(_waits(holding, number), me)
    else:
        took = _row(holding, change.key_link, holding.rows[change.key_link - 1]._replace(holder=lease, busy=True))
        yield f"change {number} has its turn", _at(took, me, "begin", lease=lease, sees=me.sees)


def _holdable(event: Event, key_link: int) -> bool:
    return (event.state == DONE and event.answer == key_link) or (event.state == WAITING and bool(event.held))


def _checks(state: State, me: Function, model: Model) -> Iterator[tuple[str, State]]:
    """What the key link says, and the event that may say so."""
    assert isinstance(me.of, int)
    number, change, (pair,) = me.of, state.changes[me.of - 1], me.sees
    event = dict(state.events).get(str(pair), Event())
    if not pair:
        yield f"change {number}: it is gone", _at(state, me, "refused" if change.pair else "settle", sees=())
    elif event.state == DONE and event.answer == change.key_link and number not in event.held and model.has("hold"):
        row = state.rows[change.key_link - 1]._replace(busy=False)
        yield f"change {number} sees again", _at(_row(state, change.key_link, row), me, "see", sees=())
    elif (
        model.has("earlier ones first")
        and event.asked < change.asked
        and (event.state in (SENDING, UNKNOWN) or (event.state == WAITING and event.doubt))
        and number not in event.held
    ):
        yield f"change {number} waits for {pair}", _at(state, me, "not done", sees=())
    elif not change.pair:
        yield f"change {number} goes on", _at(state, me, "call", sees=())
    elif pair == change.pair:
        yield f"change {number}: it says so already", _at(state, me, "settle", sees=())
    else:
        yield f"change {number} goes on", _at(state, me, "search", sees=())


def _waits(state: State, number: int) -> State:
    return _changed(state, number, state.changes[number - 1]._replace(state=WAITING))


def _settled(state: State, me: Function, outcome: str, model: Model) -> State:
    assert isinstance(me.of, int)
    number, change = me.of, state.changes[me.of - 1]
    row = state.rows[change.key_link - 1]
    is_over = outcome in ("settle", "superseded") or (outcome == "refused" and not change.doubt)
    counts = outcome in ("settle", "maybe") or (outcome != "superseded" and change.doubt)
    row = row._replace(
        busy=outcome == "maybe",
        applied=max(row.applied, change.asked) if counts else row.applied,
        notes=row.notes - {number} if is_over else row.notes,
        found_by="" if outcome == "settle" else row.found_by,
    )
    states = {"settle": DONE, "superseded": REJECTED, "maybe": UNKNOWN, "not done": WAITING}
    to = states.get(outcome, PARKED if change.doubt else REJECTED)
    state = _row(state, change.key_link, row)
    state = _changed(state, number, change._replace(state=to, doubt=change.doubt or outcome == "maybe", lease=0))
    if outcome == "settle":
        state = _replaced(state, number, change)
        functions = [
            function._replace(overtaken=True)
            if function.at == "found" and function.sees == (change.key_link,)
            else function
            for function in state.functions
        ]
        state = state._replace(functions=tuple(functions))
    elif is_over and model.has("release"):
        state = _released(state, number)
    return state


def _replaced(state: State, number: int, change: Change) -> State:
    """The events when the change is done: who had the key link no longer has it, and who was reserved for it has it."""
    for pair, event in state.events:
        to = event._replace(tied=0) if event.tied == change.key_link else event
        if pair == change.pair:
            if event.reserved == number:
                to = to._replace(state=DONE, answer=change.key_link, tied=change.key_link, doubt=False, reserved=0)
        elif to.state == DONE and to.answer == change.key_link and number in to.held:
            to = to._replace(state=REJECTED, answer=0)
        elif to.state == DONE and to.answer == change.key_link:
            to = event  # nobody knew of it
        if to.reserved == number:
            to = to._replace(reserved=0)
        overtaken = {
            other
            for other, one in enumerate(state.changes, 1)
            if one.key_link == change.key_link and one.asked < change.asked
        }
        state = _with(state, pair, to._replace(held=to.held - {number} - (overtaken if number in to.held else set())))
    return state


def _released(state: State, number: int) -> State:
    for pair, event in state.events:
        reserved = 0 if event.reserved == number else event.reserved
        state = _with(state, pair, event._replace(held=event.held - {number}, reserved=reserved))
    return state


def _a_person(state: State) -> Iterator[tuple[str, State]]:
    for number, change in enumerate(state.changes, 1):
        if change.state == PARKED:
            row = state.rows[change.key_link - 1]
            let = _released(_row(state, change.key_link, row._replace(notes=row.notes - {number})), number)
            discarded = _changed(let, number, change._replace(state=REJECTED))
            yield f"a person discards change {number}", discarded._replace(decided=True)
            again = _changed(state, number, change._replace(state=WAITING, doubt=False))
            yield f"a person retries change {number}", again._replace(decided=True)


# ---------------------------------------------------------------------- Rev.io, time, and small things


def _done(state: State, key_link: int, pair: str) -> State:
    """What there is after a change, or after a deletion if `pair` is empty. What is gone is not changed."""
    rest = frozenset((one, of) for one, of in state.there if one != key_link)
    return state._replace(there=rest | {(key_link, pair)} if pair and rest != state.there else rest)


def _made(state: State, pair: str) -> State:
    event = dict(state.events)[pair]
    made = _with(state, pair, event._replace(made=event.made + 1))
    return made._replace(there=state.there | {(state.last + 1, pair)}, last=state.last + 1)


def _time_passes(state: State) -> Iterator[tuple[str, State]]:
    """Past the leases of those who are dead; what was on its way has landed by then. Then due work is taken up."""
    if state.on_the_way:
        return
    alive = {function.lease for function in state.functions} - {0}
    events = tuple(
        (pair, one._replace(expired=True) if one.state == SENDING and one.lease not in alive else one)
        for pair, one in state.events
    )
    changes = tuple(
        one._replace(expired=True) if one.state == SENDING and one.lease not in alive else one for one in state.changes
    )
    rows = tuple(row._replace(busy=False) if row.holder not in alive else row for row in state.rows)
    if (events, changes, rows) != (state.events, state.changes, state.rows):
        yield "the leases of the dead expire", state._replace(events=events, changes=changes, rows=rows)
    all_ops: list[tuple[str | int, Event | Change]] = [*state.events, *enumerate(state.changes, 1)]
    for of, op in all_ops:
        due = op.state in (WAITING, UNKNOWN) or (op.state == SENDING and op.expired)
        if due and not any(function.worker and function.of == of for function in state.functions):
            yield f"{_name(Function(of, ''))} is due", _add(state, Function(of, "claim", worker=True))


def _name(function: Function) -> str:
    return function.of if isinstance(function.of, str) else f"change {function.of}"


def _with(state: State, pair: str, event: Event) -> State:
    return state._replace(events=tuple((one, event if one == pair else there) for one, there in state.events))


def _changed(state: State, number: int, change: Change) -> State:
    return state._replace(changes=_set(state.changes, number, change))


def _row(state: State, key_link: int, row: Row) -> State:
    return state._replace(rows=_set(state.rows, key_link, row))


def _set[T](items: tuple[T, ...], number: int, item: T) -> tuple[T, ...]:
    return (*items[: number - 1], item, *items[number:])


def _add(state: State, function: Function) -> State:
    return state._replace(functions=tuple(sorted((*state.functions, function), key=str)))


def _swap(state: State, one: Function, other: Function) -> State:
    return _add(_gone(state, one), other)


def _at(state: State, me: Function, step: str, *, lease: int = 0, sees: tuple[str | int, ...] | None = None) -> State:
    moved = me._replace(at=step, lease=lease or me.lease, sees=me.sees if sees is None else sees)
    return _swap(state, me, moved)


def _gone(state: State, me: Function) -> State:
    functions = list(state.functions)
    functions.remove(me)
    return state._replace(functions=tuple(functions))


def _unused(state: State) -> int:
    return unused(
        (event.lease for _, event in state.events if event.state == SENDING),
        (change.lease for change in state.changes if change.state == SENDING),
        (function.lease for function in state.functions),
        (row.holder for row in state.rows),
    )

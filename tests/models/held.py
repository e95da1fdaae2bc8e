"""A key link is changed or deleted while requests for the same pairs come: which of them has it in the end.

Pairs are "A" and "B", each with the event of its own that `POST` makes; key links are numbers. A change is of one key
link and gives it a new pair, or none, which is its deletion. Each call to DynamoDB (a transaction is one) and to Rev.io
is a step, and a function may be killed before any. A call to Rev.io may be done, lost, refused, or land late, but
before the turn is over. `RULES` are what the protocol rests on; `without` leaves some of them out.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.models.key_link_state import (
    ABSENT,
    DONE,
    OPEN,
    PARKED,
    REJECTED,
    SENDING,
    UNKNOWN,
    WAITING,
    Change,
    Event,
    Function,
    Row,
    State,
    added,
    at_step,
    ended,
    key_link_changed,
    key_link_made,
    name_of,
    replaced_at,
    swapped,
    unused_lease,
    with_change,
    with_event,
    with_row,
)
from tests.models.search import Found, search

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
                f"{name_of(function)} is killed before it does: {function.at}",
                ended(state._replace(kills=state.kills - 1), function),
            )
        yield from _post(state, function, model) if isinstance(function.of, str) else _change(state, function, model)
    for number, (what, key_link, pair) in enumerate(state.on_the_way):
        rest = state._replace(on_the_way=state.on_the_way[:number] + state.on_the_way[number + 1 :])
        yield (
            f"{what} {key_link or ''} {pair} lands late",
            key_link_changed(rest, key_link, pair) if key_link else key_link_made(rest, pair),
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
                yield f"{pair} is asked for", at_step(asked, me, "claim", sees=(asked.clock,))
        case "claim" if me.worker:
            due = event.state in (WAITING, UNKNOWN) or (event.state == SENDING and event.expired)
            if due and not (event.held and model.has("hold while it waits")):
                doubt = event.doubt or event.state != WAITING
                yield f"{pair} is claimed again", _looks(state, me, event._replace(doubt=doubt))
            else:
                yield f"{pair} is not due", ended(state, me)
        case "claim":
            (asked_at,) = me.sees
            assert isinstance(asked_at, int)
            if event.held and event.state not in OPEN:
                waits = event._replace(state=WAITING, answer=0, doubt=False, asked=asked_at, made=0)
                yield f"{pair} waits behind a change", ended(with_event(state, pair, waits), me)
            elif event.state in (ABSENT, REJECTED):
                yield f"{pair} is claimed", _looks(state, me, event._replace(asked=asked_at, doubt=False, made=0))
            elif event.state == DONE:
                told = {(pair, event.answer)} if pair in state.late else set()
                yield (
                    f"{pair} is answered: {event.answer}",
                    ended(state._replace(told=state.told | told), me),
                )
            else:
                yield f"{pair} is known: {event.state}", ended(state, me)
        case "look":
            for found in [one for one, of in sorted(state.there) if of == pair] or [0]:
                step = "found" if found else "create"
                yield f"{pair} finds {found or 'nothing'}", at_step(state, me, step, sees=(found,))
        case "create":
            new = state.last + 1
            yield f"{pair} becomes {new}", at_step(key_link_made(state, pair), me, "made", sees=(new,))
            if state.losses:
                rare = state._replace(losses=state.losses - 1)
                yield f"{pair} becomes {new}, the answer is lost", at_step(key_link_made(rare, pair), me, "maybe")
                late = rare._replace(on_the_way=(*rare.on_the_way, ("create", 0, pair)))
                yield f"{pair} is late", at_step(late, me, "maybe")
        case "found" | "made" if mine:
            (key_link,) = me.sees
            assert isinstance(key_link, int)
            if me.at == "found" and not _may_have(state, key_link, event, me, model):
                to = event._replace(state=UNKNOWN if event.doubt else WAITING)
                yield f"{pair} must not have {key_link} and waits", ended(with_event(state, pair, to), me)
                return
            has = event._replace(state=DONE, answer=key_link, tied=key_link, doubt=False)
            settled = with_event(state, pair, has)
            if me.at == "found" and key_link <= len(state.rows) and model.has("found: say so"):
                settled = with_row(settled, key_link, state.rows[key_link - 1]._replace(found_by=pair))
            if not me.worker and pair in state.late:
                settled = settled._replace(told=state.told | {(pair, key_link)})
            yield f"{pair} settles with {key_link}", ended(settled, me)
        case "maybe" if mine:
            yield (
                f"{pair} is in doubt",
                ended(with_event(state, pair, event._replace(state=UNKNOWN, doubt=True)), me),
            )
        case "found" | "made" | "maybe":
            yield f"{pair} was overtaken", ended(state, me)


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
    lease = unused_lease(state)
    claimed = with_event(state, me.of, event._replace(state=SENDING, lease=lease, expired=False))
    return at_step(claimed, me._replace(overtaken=False), "look", lease=lease, sees=())


# ---------------------------------------------------------------------- a change


def _change(state: State, me: Function, model: Model) -> Iterator[tuple[str, State]]:
    assert isinstance(me.of, int)
    number, change = me.of, state.changes[me.of - 1]
    row = state.rows[change.key_link - 1]
    mine = change.state == SENDING and change.lease == me.lease and not change.expired
    match me.at:
        case "ask" if change.key_link in dict(state.there):
            changes = replaced_at(state.changes, number, change._replace(asked=state.clock + 1))
            asked = state._replace(clock=state.clock + 1, changes=changes)
            yield (
                f"change {number} is asked for",
                at_step(asked, me, "see, to accept" if model.later else "see, to claim"),
            )
        case "claim":
            if change.state in (WAITING, UNKNOWN) or (change.state == SENDING and change.expired):
                lease = unused_lease(state)
                doubt = change.doubt or change.state == SENDING
                claimed = with_change(
                    state, number, change._replace(state=SENDING, lease=lease, expired=False, doubt=doubt)
                )
                yield f"change {number} is claimed again", at_step(claimed, me, "see", lease=lease)
            else:
                yield f"change {number} is not due", ended(state, me)
        case "see, to accept" | "see, to claim" | "see":
            tied = tuple(pair for pair, event in state.events if event.tied == change.key_link)
            yield (
                f"change {number} sees {''.join(tied) or 'nobody'}",
                at_step(state, me, me.at.replace("see", "mark"), sees=tied),
            )
        case "mark, to accept" | "mark, to claim" | "mark":
            if me.at == "mark" and not mine:
                yield f"change {number} was overtaken", ended(state, me)
            elif model.has("found: say so") and row.found_by and row.found_by not in me.sees:
                yield f"change {number} sees again", at_step(state, me, me.at.replace("mark", "see"))
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
                yield f"change {number} reads {pair or 'nothing'}", at_step(state, me, "check", sees=(pair,))
            else:
                yield f"change {number} goes on", at_step(state, me, "call", sees=())
        case "check" if mine:
            yield from _checks(state, me, model)
        case "search" if mine:
            others = [key_link for key_link, of in state.there if of == change.pair and key_link != change.key_link]
            yield f"change {number} finds {others}", at_step(state, me, "refused" if others else "call", sees=())
        case "call":
            if not mine:
                yield f"change {number} was overtaken", ended(state, me)
                return
            what = "change" if change.pair else "delete"
            done = key_link_changed(state, change.key_link, change.pair)
            yield f"change {number} is done", at_step(done, me, "settle", sees=())
            if state.losses:
                rare, done = state._replace(losses=state.losses - 1), done._replace(losses=state.losses - 1)
                yield f"change {number} is done, the answer is lost", at_step(done, me, "maybe")
                yield f"change {number} is lost", at_step(rare, me, "maybe")
                late = rare._replace(on_the_way=(*rare.on_the_way, (what, change.key_link, change.pair)))
                yield f"change {number} is late", at_step(late, me, "maybe")
                yield f"change {number} is refused", at_step(rare, me, "refused")
                yield f"change {number} is surely not done", at_step(rare, me, "not done")
        case "settle" | "maybe" | "not done" | "refused" | "begin" | "check" | "search":
            if not mine or row.holder != me.lease:
                yield f"change {number} was overtaken", ended(state, me)
            else:
                yield f"change {number} settles: {me.at}", ended(_settled(state, me, me.at, model), me)


def _marks(state: State, me: Function, model: Model) -> Iterator[tuple[str, State]]:
    """One transaction: the change itself, its note, its turn, what it holds and reserves."""
    assert isinstance(me.of, int)
    number, change = me.of, state.changes[me.of - 1]
    row = state.rows[change.key_link - 1]
    accept = me.at == "mark, to accept"
    lease = me.lease or (0 if accept else unused_lease(state))
    marked = with_change(
        state, number, change._replace(state=WAITING if accept else SENDING, lease=lease, expired=False)
    )
    notes = row.notes | {number} if model.has("note") else row.notes
    marked = with_row(marked, change.key_link, row._replace(notes=notes))
    holding = marked
    for pair in me.sees:
        event = dict(state.events)[str(pair)]
        if _holdable(event, change.key_link) and model.has("hold"):
            holding = with_event(holding, str(pair), event._replace(held=event.held | {number}))
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
            holding = with_event(holding, change.pair, reserved)
        else:
            waits = True
    if accept:
        yield f"change {number} is accepted", ended(holding, me)
        return
    newer = {note for note in row.notes if state.changes[note - 1].asked > change.asked}
    waiting = with_change(holding, number, holding.changes[number - 1]._replace(state=WAITING))
    took = with_row(holding, change.key_link, holding.rows[change.key_link - 1]._replace(holder=lease, busy=True))
    if row.busy:  # accepted without its turn; it waits for that, and sees again
        yield f"change {number} is claimed without its turn", ended(waiting, me)
    elif row.applied > change.asked:
        late = me._replace(lease=lease)
        too_late = _settled(swapped(took, me, late), late, "superseded", model)
        yield f"change {number} is too old", ended(too_late, late)
    elif waits or newer:
        yield f"change {number} waits for its turn", ended(waiting, me)
    else:
        yield f"change {number} has its turn", at_step(took, me, "begin", lease=lease, sees=me.sees)


def _holdable(event: Event, key_link: int) -> bool:
    return (event.state == DONE and event.answer == key_link) or (event.state == WAITING and bool(event.held))


def _checks(state: State, me: Function, model: Model) -> Iterator[tuple[str, State]]:
    """What the key link says, and the event that may say so."""
    assert isinstance(me.of, int)
    number, change, (pair,) = me.of, state.changes[me.of - 1], me.sees
    event = dict(state.events).get(str(pair), Event())
    if not pair:
        yield f"change {number}: it is gone", at_step(state, me, "refused" if change.pair else "settle", sees=())
    elif event.state == DONE and event.answer == change.key_link and number not in event.held and model.has("hold"):
        row = state.rows[change.key_link - 1]._replace(busy=False)
        yield f"change {number} sees again", at_step(with_row(state, change.key_link, row), me, "see", sees=())
    elif (
        model.has("earlier ones first")
        and event.asked < change.asked
        and (event.state in (SENDING, UNKNOWN) or (event.state == WAITING and event.doubt))
        and number not in event.held
    ):
        yield f"change {number} waits for {pair}", at_step(state, me, "not done", sees=())
    elif not change.pair:
        yield f"change {number} goes on", at_step(state, me, "call", sees=())
    elif pair == change.pair:
        yield f"change {number}: it says so already", at_step(state, me, "settle", sees=())
    else:
        yield f"change {number} goes on", at_step(state, me, "search", sees=())


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
    state = with_row(state, change.key_link, row)
    state = with_change(state, number, change._replace(state=to, doubt=change.doubt or outcome == "maybe", lease=0))
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
        state = with_event(
            state, pair, to._replace(held=to.held - {number} - (overtaken if number in to.held else set()))
        )
    return state


def _released(state: State, number: int) -> State:
    for pair, event in state.events:
        reserved = 0 if event.reserved == number else event.reserved
        state = with_event(state, pair, event._replace(held=event.held - {number}, reserved=reserved))
    return state


def _a_person(state: State) -> Iterator[tuple[str, State]]:
    for number, change in enumerate(state.changes, 1):
        if change.state == PARKED:
            row = state.rows[change.key_link - 1]
            let = _released(with_row(state, change.key_link, row._replace(notes=row.notes - {number})), number)
            discarded = with_change(let, number, change._replace(state=REJECTED))
            yield f"a person discards change {number}", discarded._replace(decided=True)
            again = with_change(state, number, change._replace(state=WAITING, doubt=False))
            yield f"a person retries change {number}", again._replace(decided=True)


# ---------------------------------------------------------------------- time


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
            yield f"{name_of(Function(of, ''))} is due", added(state, Function(of, "claim", worker=True))

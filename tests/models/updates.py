"""Later payloads of the event that makes a record at Egito, each of which becomes a change of that record.

The CRM changes its record and sends payloads 1, 2, 3 in this order; they arrive in any order, and some of them twice.
Each has a value; a later payload may have the value of an earlier one. What is sent may be done, lost, or land late,
the first payload may be refused, and a function may be killed. The record may have been made by an event of another
key. How a turn is handed on is the subject of `turns`, and single fields are that of `fields`; here a record is one
value. `without` leaves some of the rules out.
"""

from collections.abc import Iterator
from typing import NamedTuple

from tests.models.search import Found, search

RULES = {
    "an event for each payload": "a change is named by the time of its payload, and not by its value",
    "the sender's time": "payloads are ordered by when the CRM changed its record, and not by when they arrived",
    "the time of the new record": "a payload that is older than the one which made the record is left out",
    "after the new record": "a change is sent only after the new record's event has succeeded",
    "instead of the new record": "a change makes the record if the new record's event was refused",
    "a record of another key": "the first payload changes the record that an event of another key has made",
    "the time of another key": "it is left out if it is older than the payload that made the record",
    "what was applied": "a change that is older than the one applied last is left out",
    "keep the turn": "what may be on its way keeps the turn until that is surely over",
}

NONE, WAITING, UNCONFIRMED, SUCCEEDED, REJECTED = "none", "waiting", "unconfirmed", "succeeded", "rejected"


class State(NamedTuple):
    deliveries: tuple[int, ...]
    """Payloads that are still to arrive."""
    new: str = NONE
    """The state of the new record's event."""
    made_by: int = 0
    """The payload of the new record's event."""
    other: int = 0
    """The payload of the event of another key that made the record; 0 is none."""
    changes: tuple[tuple[int, str], ...] = ()
    """Each change that was recorded, with its state, in the order in which they arrived."""
    record: int = 0
    """The payload that the record at Egito has; 0 is no record."""
    applied: int = 0
    """The place in the order of what was applied last."""
    late: int = 0
    """A change that has the turn, because it may still land."""
    refusals: int = 0
    losses: int = 0
    kills: int = 0


def updates(
    values: str,
    deliveries: tuple[int, ...],
    *,
    other: int = 0,
    refusals: int = 0,
    losses: int = 0,
    kills: int = 0,
    without: frozenset[str] = frozenset(),
) -> Found:
    """`values` has one letter for each payload, in the order of the CRM; `deliveries` are the payloads that arrive.

    `other` is the payload of which an event of another key has made the record before.
    """

    def at_the_end(state: State) -> str | None:
        has = values[state.record - 1] if state.record else "nothing"
        return None if has == values[-1] else f"the record has {has}, not {values[-1]}"

    start = State(deliveries, other=other, record=other, refusals=refusals, losses=losses, kills=kills)
    return search(start, lambda state: _steps(state, values, without), never=lambda _: None, at_the_end=at_the_end)


def _steps(state: State, values: str, without: frozenset[str]) -> Iterator[tuple[str, State]]:
    for number, payload in enumerate(state.deliveries):
        rest = state.deliveries[:number] + state.deliveries[number + 1 :]
        yield f"{payload} arrives", _arrived(state._replace(deliveries=rest), payload, values, without)
    yield from _of_another(state, without) if state.other else _new_record(state)
    if state.late:
        yield f"{state.late} lands late", state._replace(record=state.late, late=0)
        yield f"{state.late} never lands", state._replace(late=0)
        if "keep the turn" not in without:
            return
    for payload, its_state in state.changes:
        if its_state == WAITING:
            yield from _change(state, payload, without)


def _arrived(state: State, payload: int, values: str, without: frozenset[str]) -> State:
    if state.new in (NONE, REJECTED):
        return state._replace(new=WAITING, made_by=payload)
    known = [state.made_by, *(one for one, _ in state.changes)]
    is_known = payload in known
    if "an event for each payload" in without:
        is_known = values[payload - 1] in [values[one - 1] for one in known]
    return state if is_known else state._replace(changes=(*state.changes, (payload, WAITING)))


def _new_record(state: State) -> Iterator[tuple[str, State]]:
    if state.new == WAITING:
        yield f"a record is made of {state.made_by}", state._replace(new=SUCCEEDED, record=state.made_by)
        if state.refusals and state.made_by == 1:
            yield "1 is refused", state._replace(new=REJECTED, refusals=state.refusals - 1)
        if state.losses:
            lost = state._replace(new=UNCONFIRMED, losses=state.losses - 1)
            yield f"the response to {state.made_by} is lost", lost._replace(record=state.made_by)
            yield f"{state.made_by} is lost", lost
    elif state.new == UNCONFIRMED:
        yield "the record is looked up", state._replace(new=SUCCEEDED if state.record else WAITING)


def _of_another(state: State, without: frozenset[str]) -> Iterator[tuple[str, State]]:
    """Where the record is there: the new record's event waits until its payload has changed it."""
    if state.new != WAITING:
        return
    its_change = dict(state.changes).get(state.made_by)
    is_older = state.made_by < state.other and "the time of another key" not in without
    if is_older or its_change == SUCCEEDED or "a record of another key" in without:
        yield f"{state.made_by} finds a record", state._replace(new=SUCCEEDED)
    elif its_change is None:
        changes = (*state.changes, (state.made_by, WAITING))
        yield f"{state.made_by} becomes a change", state._replace(changes=changes)


def _change(state: State, payload: int, without: frozenset[str]) -> Iterator[tuple[str, State]]:
    if state.new == REJECTED:
        if "instead of the new record" in without:
            yield f"{payload} has no record", _settled(state, payload)
        else:
            yield f"{payload} makes the record", state._replace(new=WAITING, made_by=payload)
        return
    is_first = state.other > 0 and payload == state.made_by
    if state.new != SUCCEEDED and not is_first:
        if "after the new record" in without:
            yield f"{payload} finds no record", _settled(state, payload)
        return
    place = _place(state, payload, without)
    floor = 0
    if "the time of the new record" not in without and not is_first:
        its_own, others = _place(state, state.made_by, without), state.other
        floor = its_own if "the time of another key" in without else max(its_own, others)
    if place < floor or (place < state.applied and "what was applied" not in without):
        yield f"{payload} is older", _settled(state, payload)
        return
    saved = state._replace(record=payload)
    yield f"{payload} is applied", _settled(saved, payload)._replace(applied=max(place, state.applied))
    if state.kills:
        yield f"{payload} is applied, and its function killed", saved._replace(kills=state.kills - 1)
    if state.losses and not state.late:
        yield f"{payload} is lost", state._replace(losses=state.losses - 1, late=payload)


def _place(state: State, payload: int, without: frozenset[str]) -> int:
    """Return where a payload comes in the order."""
    if "the sender's time" not in without:
        return payload
    arrived = [state.made_by, *(one for one, _ in state.changes)]
    return arrived.index(payload) + 1


def _settled(state: State, payload: int) -> State:
    changes = tuple((one, SUCCEEDED if one == payload else its_state) for one, its_state in state.changes)
    return state._replace(changes=changes)

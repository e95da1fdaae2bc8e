"""The state of the model in `held`: key links, their events, changes and functions, and how a step changes it."""

from typing import NamedTuple

from tests.models.search import unused

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


def key_link_changed(state: State, key_link: int, pair: str) -> State:
    """What there is after a change, or after a deletion if `pair` is empty. What is gone is not changed."""
    rest = frozenset((one, of) for one, of in state.there if one != key_link)
    return state._replace(there=rest | {(key_link, pair)} if pair and rest != state.there else rest)


def key_link_made(state: State, pair: str) -> State:
    event = dict(state.events)[pair]
    made = with_event(state, pair, event._replace(made=event.made + 1))
    return made._replace(there=state.there | {(state.last + 1, pair)}, last=state.last + 1)


def name_of(function: Function) -> str:
    return function.of if isinstance(function.of, str) else f"change {function.of}"


def with_event(state: State, pair: str, event: Event) -> State:
    return state._replace(events=tuple((one, event if one == pair else there) for one, there in state.events))


def with_change(state: State, number: int, change: Change) -> State:
    return state._replace(changes=replaced_at(state.changes, number, change))


def with_row(state: State, key_link: int, row: Row) -> State:
    return state._replace(rows=replaced_at(state.rows, key_link, row))


def replaced_at[T](items: tuple[T, ...], number: int, item: T) -> tuple[T, ...]:
    return (*items[: number - 1], item, *items[number:])


def added(state: State, function: Function) -> State:
    return state._replace(functions=tuple(sorted((*state.functions, function), key=str)))


def swapped(state: State, one: Function, other: Function) -> State:
    return added(ended(state, one), other)


def at_step(
    state: State, me: Function, step: str, *, lease: int = 0, sees: tuple[str | int, ...] | None = None
) -> State:
    moved = me._replace(at=step, lease=lease or me.lease, sees=me.sees if sees is None else sees)
    return swapped(state, me, moved)


def ended(state: State, me: Function) -> State:
    functions = list(state.functions)
    functions.remove(me)
    return state._replace(functions=tuple(functions))


def unused_lease(state: State) -> int:
    return unused(
        (event.lease for _, event in state.events if event.state == SENDING),
        (change.lease for change in state.changes if change.state == SENDING),
        (function.lease for function in state.functions),
        (row.holder for row in state.rows),
    )

"""A search through every state of a small model: every order of steps, every kill, every answer that gets lost.

A model is a start, a function that gives the steps that are possible in a state, and what must never be the case.
States are plain values that can be hashed, so two ways into the same state are searched once.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from itertools import count

MOST_STATES = 3_000_000


@dataclass(frozen=True)
class Found:
    """How many states there are, and what is wrong in one of them, with the shortest way into it; `wrong` is None if
    nothing is."""

    states: int
    wrong: str | None = None
    way: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n  ".join([f"{self.wrong or 'nothing is wrong'} ({self.states:,} states)", *self.way])


def search[S: Hashable](
    start: S,
    steps: Callable[[S], Iterable[tuple[str, S]]],
    *,
    never: Callable[[S], str | None],
    at_the_end: Callable[[S], str | None],
) -> Found:
    """The first state in which `never` says something, or `at_the_end` where no step is left.

    If there is none: a state out of which no end can be reached any more, however lucky everybody is.
    """
    came_from: dict[S, tuple[S, str] | None] = {start: None}
    before: dict[S, list[S]] = {}
    ends: list[S] = []
    queue = deque([start])
    while queue:
        state = queue.popleft()
        following = [(label, then) for label, then in steps(state) if then != state]
        wrong = never(state) or (None if following else at_the_end(state))
        if wrong:
            return Found(len(came_from), wrong, _way(came_from, state))
        if not following:
            ends.append(state)
        for label, then in following:
            before.setdefault(then, []).append(state)
            if then not in came_from:
                came_from[then] = (state, label)
                queue.append(then)
        if len(came_from) > MOST_STATES:
            raise AssertionError(f"more than {MOST_STATES:,} states: make the instance smaller")
    can_end = set(ends)
    while ends:
        new = [state for state in before.get(ends.pop(), ()) if state not in can_end]
        can_end.update(new)
        ends += new
    for state in came_from:  # in the order in which they were found, so the nearest comes first
        if state not in can_end:
            return Found(len(came_from), "it can never end", _way(came_from, state))
    return Found(len(came_from))


def _way[S: Hashable](came_from: dict[S, tuple[S, str] | None], state: S) -> tuple[str, ...]:
    labels = []
    while step := came_from[state]:
        state, label = step
        labels.append(label)
    return tuple(reversed(labels))


def unused(*used: Iterable[int]) -> int:
    """The smallest number from 1 that stands nowhere, so that leases do not make the same states look different."""
    taken = {number for numbers in used for number in numbers}
    return next(number for number in count(1) if number not in taken)

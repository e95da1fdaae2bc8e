"""Caches what was read from a vendor and changes rarely, for a while, in one execution environment."""

from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crm_bridge.outbound.transport import Scope

MOST = 1000
"""Things that are remembered; then the oldest is forgotten."""


def keep_newest[K, V](known: dict[K, V], key: K, value: V, most: int) -> None:
    """Put a value last, and drop the first of more than `most`. Threads may share the dictionary."""
    known.pop(key, None)  # so that the newest comes last
    known[key] = value
    if len(known) > most:
        with suppress(StopIteration, KeyError, RuntimeError):  # another thread was quicker
            del known[next(iter(known))]


class Cache:
    """Threads may share it; two that ask at once may both read."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[tuple[Scope, Hashable], tuple[float, Any]] = {}

    def get_or_load[T](self, scope: "Scope", what: Hashable, read: Callable[[], T], *, max_age: float) -> T:
        """Return what `read` gave at most `max_age` seconds ago, or gives now. An error that it raises is not cached.

        Only the same tenant recalls it, and only with the same version of its secret.
        """
        key = scope, what
        if key in self._known:
            read_at, known = self._known[key]
            if 0 <= self._clock() - read_at <= max_age:
                remembered: T = known
                return remembered
        began = self._clock()
        fresh = read()
        keep_newest(self._known, key, (began, fresh), MOST)
        return fresh

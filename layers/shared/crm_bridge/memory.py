"""What was read from a vendor and changes rarely, remembered for a while by one execution environment."""

from collections.abc import Callable, Hashable
from typing import Any


class Memory:
    """Threads may share it; two that ask at once may both read."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[Hashable, tuple[float, Any]] = {}

    def recall[T](self, key: Hashable, read: Callable[[], T], *, max_age: float) -> T:
        """What `read` gave at most `max_age` seconds ago, or gives now. Whatever it raises is not remembered."""
        if key in self._known:
            read_at, known = self._known[key]
            if 0 <= self._clock() - read_at <= max_age:
                remembered: T = known
                return remembered
        began = self._clock()
        fresh = read()
        self._known[key] = began, fresh
        return fresh

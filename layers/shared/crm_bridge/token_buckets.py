"""Limits the requests of each API key to one execution environment of a function: a bucket of tokens for each key.

Every environment has buckets of its own, so N environments let N times as much through. A shared count would cost each
request a write.
"""

from collections.abc import Callable
from threading import Lock

MOST = 1000
"""Buckets; then the one that was used longest ago is dropped, and counts as full if its key comes again."""


class TokenBuckets:
    """Each bucket holds up to `burst` tokens and gets `rate` a second; a request takes one. Threads may share it."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        self._lock = Lock()

    def take(self, key: str) -> float:
        """Take a token and return 0; if there is none, return the seconds until there is one."""
        with self._lock:
            now = self._clock()
            tokens, at = self._buckets.pop(key, (self._burst, now))
            tokens = min(self._burst, tokens + max(0, now - at) * self._rate)
            wait = 0 if tokens >= 1 else (1 - tokens) / self._rate
            self._buckets[key] = (tokens if wait else tokens - 1, now)  # the last in order is the last that was used
            if len(self._buckets) > MOST:
                del self._buckets[next(iter(self._buckets))]
            return wait

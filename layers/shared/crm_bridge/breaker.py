"""Which vendors are down, so that no event's time is spent on finding out what is known already.

It knows what its own execution environment has seen, which costs nothing; the others find out for themselves.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from crm_bridge.errors import NotDoneError
from crm_bridge.telemetry import count, logger

FAILURES = 5
"""So many calls in a row without a result, and a vendor is down."""
WINDOW = 300.0
"""Seconds after which a failure is forgotten: one event that fails again and again is not yet a vendor that is down."""
SHORTEST_PAUSE, LONGEST_PAUSE = 30.0, 300.0
"""Seconds between two calls that find out whether it is over; each pause is twice the one before."""


@dataclass
class _Failing:
    vendor: str
    times: int = 0
    last: float = 0.0
    retry_at: float = 0.0


class Breaker:
    """One per execution environment; threads may share it. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failing: dict[str, _Failing] = {}

    def admit(self, vendor: str, host: str) -> None:
        """Raises NotDoneError instead of a call that would be in vain. Whoever is let through tells how it went."""
        with self._lock:
            failing = self._failing.get(host)
            if failing is None or failing.times < FAILURES:
                return
            now = self._clock()
            if now < failing.retry_at:
                raise NotDoneError(
                    f"{vendor} is down, so it was not tried", vendor=vendor, retry_after=failing.retry_at - now
                )
            failing.retry_at = now + LONGEST_PAUSE  # this one finds out, and nobody else until it has

    def is_down(self, vendor: str) -> bool:
        """Whether it is at any of its hosts, so that what was not done is not held against an event."""
        with self._lock:
            return any(one.vendor == vendor and one.times >= FAILURES for one in self._failing.values())

    def held_until(self, vendor: str) -> float:
        """When a call to it is let through again, by this clock; 0 if it is not down."""
        with self._lock:
            failing = [one for one in self._failing.values() if one.vendor == vendor and one.times >= FAILURES]
            return max((one.retry_at for one in failing), default=0.0)

    def failed(self, vendor: str, host: str) -> None:
        """A call brought no answer, or one that says that the vendor is not well (5xx)."""
        with self._lock:
            now = self._clock()
            failing = self._failing.setdefault(host, _Failing(vendor))
            if failing.times < FAILURES and now - failing.last > WINDOW:
                failing.times = 0
            failing.times += 1
            failing.last = now
            failing.retry_at = now + min(SHORTEST_PAUSE * 2 ** max(0, failing.times - FAILURES), LONGEST_PAUSE)
            has_opened = failing.times == FAILURES
        if has_opened:
            logger().warning("vendor down", extra={"vendor": vendor})
            count("VendorDown", vendor=vendor)

    def worked(self, host: str) -> None:
        with self._lock:
            self._failing.pop(host, None)

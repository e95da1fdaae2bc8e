"""Stops calls to a vendor that is down for a tenant, so that no event's time is spent on finding that out again.

A vendor may be down for one tenant only, or a tenant's address may be wrong. So failures count for each tenant and
host. Only when several tenants fail at a host, and nobody succeeds, everybody is held back from it.

It knows what its own execution environment has seen, which costs nothing; the others find out for themselves.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from crm_bridge.errors import NotDoneError
from crm_bridge.telemetry import count, logger

FAILURES = 5
"""So many calls in a row without a result, and a vendor is down."""
SEVERAL = 3
"""If a host is down for this number of tenants, it is down for all. Two may have the same mistake in their settings."""
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

    @property
    def is_down(self) -> bool:
        return self.times >= FAILURES


class Breaker:
    """One per execution environment; threads may share it. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failing: dict[str, dict[str, _Failing]] = {}
        """By host and tenant."""
        self._since: dict[str, set[str]] = {}
        """The tenants that have failed at a host since anybody's last success there."""

    def admit(self, vendor: str, host: str, tenant: str) -> None:
        """Raises NotDoneError instead of a call that would be in vain. Whoever is let through tells how it went."""
        with self._lock:
            failing = self._failing.get(host, {}).get(tenant)
            if failing is None or not failing.is_down:
                if not self._is_down_for_all(host):
                    return
                retry_at = min(one.retry_at for one in self._failing[host].values() if one.is_down)
                failing = self._failing[host][tenant] = _Failing(vendor, FAILURES, self._clock(), retry_at)
            now = self._clock()
            if now < failing.retry_at:
                raise NotDoneError(
                    f"{vendor} is down, so it was not tried", vendor=vendor, retry_after=failing.retry_at - now
                )
            failing.retry_at = now + LONGEST_PAUSE  # this one finds out, and none of the tenant's others until it has

    def is_down(self, vendor: str, tenant: str) -> bool:
        """Return whether it is down at any of its hosts, so that a failed attempt does not count."""
        with self._lock:
            return any(self._down(vendor, tenant))

    def retry_at(self, vendor: str, tenant: str) -> float:
        """Return when a call is let through again, by this clock; 0 if it is not down."""
        with self._lock:
            return max((one.retry_at for one in self._down(vendor, tenant)), default=0.0)

    def failed(self, vendor: str, host: str, tenant: str) -> None:
        """Count a call that brought no response, or a 5xx."""
        with self._lock:
            now = self._clock()
            failing = self._failing.setdefault(host, {}).setdefault(tenant, _Failing(vendor))
            if not failing.is_down and now - failing.last > WINDOW:
                failing.times = 0
            failing.times += 1
            failing.last = now
            failing.retry_at = now + min(SHORTEST_PAUSE * 2 ** max(0, failing.times - FAILURES), LONGEST_PAUSE)
            self._since.setdefault(host, set()).add(tenant)
            has_opened = failing.times == FAILURES
        if has_opened:
            logger().warning("vendor down", extra={"vendor": vendor})
            count("VendorDown", vendor=vendor)

    def worked(self, host: str, tenant: str) -> None:
        """Note a success. A host that was down for everybody is down for nobody any more."""
        with self._lock:
            if self._is_down_for_all(host):
                del self._failing[host]
            else:
                self._failing.get(host, {}).pop(tenant, None)
            self._since.pop(host, None)

    def _is_down_for_all(self, host: str) -> bool:
        since = self._since.get(host, ())
        return sum(one.is_down and tenant in since for tenant, one in self._failing.get(host, {}).items()) >= SEVERAL

    def _down(self, vendor: str, tenant: str) -> list[_Failing]:
        found = (by_tenant[tenant] for by_tenant in self._failing.values() if tenant in by_tenant)
        return [one for one in found if one.vendor == vendor and one.is_down]

"""Summarizes a tenant's operations: from the newest of each state, without a count of all."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from crm_bridge.storage.operation import OperationSummary, State, as_time
from operations.flows import flows
from operations.models import Deployment, HourSummary, Summary, VendorSummary

READ = 500
"""Operations of each state that are read, in the order of the list; the cost does not grow with the table."""
HOURS = 24
HOUR = 3600
UNSETTLED = (State.WAITING, State.UNCONFIRMED)


def summary(
    newest: Mapping[State, Sequence[OperationSummary]],
    more: Mapping[State, bool],
    now: int,
    scopes: Iterable[str],
    here: Deployment,
) -> Summary:
    """Return the summary of `newest`, up to READ operations of each state; `more` says of which there are more."""
    everything = [one for some in newest.values() for one in some]
    return {
        **here,
        "at": as_time(now),
        "states": {
            state: {"count": len(some), "more": more[state], "flows": _sorted(Counter(one.flow for one in some))}
            for state, some in newest.items()
        },
        "hours": _hours(everything, now),
        "vendors": [
            _vendor(vendor, [one for one in everything if one.flow in flows]) for vendor, flows in _flows_of().items()
        ],
        "scopes": sorted(scopes),
    }


def _flows_of() -> dict[str, set[str]]:
    """Return the flows to each vendor."""
    found: dict[str, set[str]] = {}
    for name, flow in flows().items():
        found.setdefault(flow.vendor.name, set()).add(name)
    return found


def _hours(operations: Sequence[OperationSummary], now: int) -> list[HourSummary]:
    """Return how many changed last in each of the last hours, by their present state; the oldest hour first."""
    this_hour = now // HOUR
    counts: dict[int, Counter[State]] = {}
    for one in operations:
        counts.setdefault(one.updated_at // HOUR, Counter())[one.state] += 1
    return [
        {"hour": datetime.fromtimestamp(hour * HOUR, UTC).isoformat(), "states": _sorted(counts.get(hour, Counter()))}
        for hour in range(this_hour - HOURS + 1, this_hour + 1)
    ]


def _vendor(vendor: str, operations: Sequence[OperationSummary]) -> VendorSummary:
    """Return whether a vendor responds, as the outcomes of the tenant's events tell; nobody is asked."""
    worked = [one.updated_at for one in operations if one.state is State.SUCCEEDED]
    failing = [one for one in operations if one.state in UNSETTLED and one.last_attempt]
    last = max(failing, key=lambda one: one.updated_at, default=None)
    last_worked = max(worked, default=None)
    is_failing = last is not None and (last_worked is None or last.updated_at >= last_worked)
    return {
        "vendor": vendor,
        "state": "failing" if is_failing else "responding" if worked else "nothing known",
        "last_success": as_time(last_worked),
        "last_failure": as_time(last.updated_at) if last else None,
        "reason": last.last_attempt.reason if last and last.last_attempt else None,
        "unsettled": len(failing),
        "next_attempt": as_time(min((one.due_at for one in failing if one.due_at), default=None)),
    }


def _sorted[K: str](counts: Counter[K]) -> dict[K, int]:
    return dict(sorted(counts.items()))

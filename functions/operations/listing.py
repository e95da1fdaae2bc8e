"""A page of a tenant's operations in several states, one state after the other."""

from collections.abc import Sequence

from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import OperationSummary, State


def page_of(
    tenant: str, states: Sequence[State], *, flow: str | None, since: int, limit: int, after: str | None
) -> tuple[list[OperationSummary], str | None]:
    """Return a page, and where the list goes on; `after` is that of the page before. Raises StorageError."""
    place = None
    if after:
        state, changed_at, last = after.split(".")
        states = states[states.index(State(state)) :] if state in states else []
        place = last, int(changed_at)
    found: list[OperationSummary] = []
    for one in states:
        some, place = runtime().operations.listed(
            tenant, one, flow=flow, limit=limit - len(found), after=place, since=since
        )
        found += some
        if len(found) == limit and not place:
            place = found[-1].place
        if place:
            return found, f"{one}.{place[1]}.{place[0]}"
    return found, None

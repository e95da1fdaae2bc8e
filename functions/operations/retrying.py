"""Retries by hand: one operation, or all that match, a page at a time. Nothing is sent here."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from crm_bridge.errors import ConflictError, Event
from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import Operation, OperationSummary, State

RETRIED = (State.WAITING, State.UNCONFIRMED, State.NEEDS_REVIEW)
MOST_RETRIED = 100
"""Operations that one request looks at, so that it ends in time however many match."""


class Retried(NamedTuple):
    """The result for a page: `due` are due from now on (with `dry_run`: would be), `left` are left to a person."""

    due: list[Operation]
    left: int


def retry(operation: Operation, *, by: str) -> Operation:
    """Let an operation be sent at once, and return it.

    One that needs review begins anew, because a person found that the vendor has not done it; one that waits is looked
    up first if it may be done. Raises ConflictError, StorageError.
    """
    if operation.state is State.NEEDS_REVIEW:
        return runtime().engine.request_retry(operation, by=by)
    return runtime().engine.make_due(operation, by=by)


def retry_all(page: Sequence[OperationSummary], *, by: str, dry_run: bool) -> Retried:
    """Make all of a page due that wait for a later time, and of those in review what was surely not done.

    The dispatcher puts them on their queues in the fair share of the tenant. Raises StorageError; what was made due
    before that is due.
    """
    whole = runtime().operations.many([one.operation_id for one in page])
    there = [whole[one.operation_id] for one in page if one.operation_id in whole]
    now = int(runtime().clock())
    waiting = [one for one in there if is_safe(one) and is_for_later(one, now)]
    left = sum(one.state is State.NEEDS_REVIEW and not is_safe(one) for one in there)
    return Retried([one for one in waiting if dry_run or make_due(one, by=by, due_at=now)], left)


def make_due(operation: Operation, *, by: str, due_at: int) -> bool:
    """Return whether an operation is due at `due_at` from now on; False if somebody was quicker. Raises StorageError"""
    engine = runtime().engine
    try:
        if operation.state is not State.NEEDS_REVIEW:
            return engine.make_due(operation, by=by, due_at=due_at) is not operation
        engine.request_retry(operation, by=by, due_at=due_at, anew=False)
    except ConflictError:
        return False
    return True


def is_for_later(operation: Operation, now: int) -> bool:
    """Return whether a retry would change anything: it is not due, not on a queue, and not held by a change."""
    if operation.state is State.NEEDS_REVIEW:
        return True
    return operation.lent_until is None and not operation.held and (operation.due_at or 0) > now


def is_safe(operation: Operation) -> bool:
    """Return whether a retry needs no look by a person; what is unconfirmed the bridge looks up itself."""
    if operation.state is not State.NEEDS_REVIEW:
        return operation.state in RETRIED
    last = operation.last_attempt
    return operation.unconfirmed_since is None and last is not None and last.event is Event.OUT_OF_ATTEMPTS


def says(text: str | None) -> Callable[[OperationSummary], bool]:
    """Return whether the event key of an operation, or the reason of its last attempt, has this text, in any case."""
    wanted = (text or "").casefold()

    def matches(one: OperationSummary) -> bool:
        reason = one.last_attempt.reason if one.last_attempt else ""
        return wanted in one.event_key.casefold() or wanted in reason.casefold()

    return matches

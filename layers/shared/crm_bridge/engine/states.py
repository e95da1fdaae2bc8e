"""The states of an operation, and which one follows which: data only."""

from crm_bridge.errors import Event
from crm_bridge.storage.operation import State

TRANSITIONS: dict[tuple[State | None, Event], State] = {
    (None, Event.ACCEPTED): State.WAITING,
    (None, Event.CLAIMED): State.SENDING,
    (None, Event.LINKED): State.SUCCEEDED,
    (None, Event.RESERVED): State.REJECTED,
    (State.REJECTED, Event.ACCEPTED): State.WAITING,
    (State.SUCCEEDED, Event.ACCEPTED): State.WAITING,
    (State.REJECTED, Event.CLAIMED): State.SENDING,
    (State.REJECTED, Event.FOUND): State.SUCCEEDED,
    (State.WAITING, Event.FOUND): State.SUCCEEDED,
    (State.SUCCEEDED, Event.FOUND): State.SUCCEEDED,
    (State.WAITING, Event.RETRIED): State.SENDING,
    (State.UNCONFIRMED, Event.RETRIED): State.SENDING,
    (State.WAITING, Event.MADE_DUE): State.WAITING,
    (State.UNCONFIRMED, Event.MADE_DUE): State.UNCONFIRMED,
    (State.SENDING, Event.LEASE_EXPIRED): State.UNCONFIRMED,
    (State.SENDING, Event.DONE): State.SUCCEEDED,
    (State.SENDING, Event.FOUND): State.SUCCEEDED,
    (State.SENDING, Event.REFUSED): State.REJECTED,
    (State.SENDING, Event.NOT_DONE): State.WAITING,
    (State.SENDING, Event.MAYBE_DONE): State.UNCONFIRMED,
    (State.SENDING, Event.NOT_FOUND_YET): State.UNCONFIRMED,
    (State.SENDING, Event.LOOK_FAILED): State.UNCONFIRMED,
    (State.SENDING, Event.DEFECT): State.UNCONFIRMED,
    (State.SENDING, Event.IN_DOUBT): State.NEEDS_REVIEW,
    (State.SENDING, Event.LINK_TAKEN): State.NEEDS_REVIEW,
    (State.SENDING, Event.OUT_OF_ATTEMPTS): State.NEEDS_REVIEW,
    (State.NEEDS_REVIEW, Event.LINKED): State.SUCCEEDED,
    (State.NEEDS_REVIEW, Event.RETRY_REQUESTED): State.WAITING,
    (State.NEEDS_REVIEW, Event.DISCARDED): State.REJECTED,
    (State.SUCCEEDED, Event.WITHDRAWN): State.REJECTED,
    (State.SUCCEEDED, Event.UNLINKED): State.NEEDS_REVIEW,
    (State.SUCCEEDED, Event.ERASED): State.SUCCEEDED,
}
"""The next state by state and event; the state None means "not stored yet". Nothing else can happen."""

REPLACEABLE = frozenset(state for state, event in TRANSITIONS if state and event is Event.CLAIMED)
"""States in which a new request for the same event replaces the operation."""
DUE = frozenset(state for state, event in TRANSITIONS if state and event in (Event.RETRIED, Event.LEASE_EXPIRED))
"""States in which the bridge itself continues an operation at its `due_at`."""

UNLINKABLE = frozenset({Event.LINKED, Event.FOUND})
"""An operation whose last event is one of these has a record that it did not make, so a person may unlink it."""

HELD_BACK = frozenset({Event.NOT_DONE, Event.MAYBE_DONE, Event.LOOK_FAILED})
"""These events do not use up an attempt while the breaker is open."""

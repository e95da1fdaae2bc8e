"""What happens next to an operation, and what is stored of it.

Nothing here reads a clock, draws a random number, logs, or calls a table or a vendor: what `decide` returns depends on
its arguments alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import NamedTuple

from pydantic import BaseModel

from crm_bridge.engine.policy import Policy
from crm_bridge.engine.record import stored_links, with_attempt
from crm_bridge.engine.states import DUE, HELD_BACK, TRANSITIONS
from crm_bridge.errors import (
    CannotLookError,
    Event,
    IncompleteSearchError,
    MissingError,
    NeedlessError,
    NotYetError,
    RefusedError,
    SeveralFoundError,
    TryLaterError,
    VendorError,
)
from crm_bridge.flow import Match
from crm_bridge.storage.exchanges import Exchange
from crm_bridge.storage.links import Link
from crm_bridge.storage.operation import Candidate, Operation, State
from crm_bridge.words import plain


class Next(Enum):
    """What the engine does after a decision."""

    SEND = "send"
    LOOK = "look"
    LINK = "link"
    """Link the record `Decision.match` of the look-up, so that the operation has succeeded."""
    STORE = "store"
    """Write the operation. This attempt is over."""


@dataclass(frozen=True)
class Claimed:
    """The bridge has claimed the operation again. `repeatable`: to send it twice is harmless (`Flow.is_repeatable`)."""

    repeatable: bool


@dataclass(frozen=True)
class Succeeded:
    """The vendor has done it (the event DONE), or has had the record already (FOUND).

    `result` is what is stored of the result, `links` are the links that follow from it.
    """

    event: Event
    result: str
    links: tuple[Link, ...] = ()


@dataclass(frozen=True)
class SendFailed:
    """The sending ended in an error. `is_down`: the breaker of the vendor is open."""

    error: VendorError
    is_down: bool = False
    repeatable: bool = False


@dataclass(frozen=True)
class LookFailed:
    """The look-up ended in an error; None if it was the bridge's own storage that failed."""

    error: VendorError | None = None
    is_down: bool = False


@dataclass(frozen=True)
class Looked:
    """The look-up returned these records (`possible_matches`).

    `taken` says of the first records, one by one, whether something else is linked to them. `search_lag` is the time in
    seconds after which a look-up is sure to find a new record. `not_shown` is the error in which the look-up ended if
    there may be records that it does not return.
    """

    matches: Sequence[Match[BaseModel]]
    taken: Sequence[bool]
    search_lag: int
    not_shown: IncompleteSearchError | None = None


@dataclass(frozen=True)
class NotSettled:
    """The success could not be written, because another event has changed what belongs to it.

    `is_taken`: another operation holds one of the `links`; else what the flow writes with it is not as it was read.
    """

    event: Event
    links: tuple[Link, ...] = ()
    is_taken: bool = False


@dataclass(frozen=True)
class Broken:
    """The bridge itself failed with an error of the class `name`."""

    name: str


type Happened = Claimed | Succeeded | SendFailed | LookFailed | Looked | NotSettled | Broken


@dataclass(frozen=True)
class Decision:
    """What is next, and the operation as it is from now on.

    `event` is what is written of this attempt, with these `links`. `notify`: the tenant is sent a webhook. `error` is
    for the caller. `with_ending`: what the flow writes at the end of its operation is written too. `waits_for` is the
    operation that has to wake this one. `payload_until` is the time until which the payload is stored in an item of its
    own. `match` is the position of the record to link. `exchange` is what the engine adds: the calls of this attempt,
    which are stored until `exchange_until`.
    """

    next: Next
    operation: Operation
    event: Event | None = None
    links: tuple[Link, ...] = ()
    notify: bool = False
    error: VendorError | None = None
    with_ending: bool = False
    waits_for: str | None = None
    payload_until: int | None = None
    match: int | None = None
    exchange: Exchange | None = None
    exchange_until: int = 0


class _Terms(NamedTuple):
    """What a decision depends on besides the operation and what happened."""

    now: int
    policy: Policy
    chance: float


def decide(operation: Operation, happened: Happened, now: int, policy: Policy, chance: float) -> Decision:
    """Return what follows for an operation that this caller holds (state `sending`).

    `now` is in epoch seconds; `chance` is a random number from 0 to 1 that spreads the delays.
    """
    terms = _Terms(now, policy, chance)
    match happened:
        case Claimed():
            return _claimed(operation, happened, terms)
        case Succeeded():
            return _succeeded(operation, happened, terms)
        case SendFailed():
            return _send_failed(operation, happened, terms)
        case LookFailed():
            return _look_failed(operation, happened, terms)
        case Looked():
            return _looked(operation, happened, terms)
        case NotSettled():
            return _not_settled(operation, happened, terms)
        case Broken():
            reason = f"the bridge failed ({happened.name})"
            return _failed(operation, Event.DEFECT, terms, reason=reason)


def _claimed(operation: Operation, claimed: Claimed, terms: _Terms) -> Decision:
    now, policy = terms.now, terms.policy
    has_died = operation.was is State.SENDING
    if has_died:
        operation = with_attempt(operation, Event.LEASE_EXPIRED, now, "whoever was sending it has died")
        operation = operation.model_copy(update={"unconfirmed_since": now})  # its request may have been under way
    if is_used_up(operation, policy):
        return _failed(operation, Event.OUT_OF_ATTEMPTS, terms)
    is_safe = claimed.repeatable or (_only_waited(operation) and operation.deferred_at is None)
    return Decision(Next.SEND if is_safe else Next.LOOK, operation)


def is_used_up(operation: Operation, policy: Policy) -> bool:
    """Return whether it was claimed once more than there are attempts, because its sender died at the last one."""
    return operation.tries > policy.last_try


def _succeeded(operation: Operation, done: Succeeded, terms: _Terms) -> Decision:
    now, policy = terms.now, terms.policy
    changes = {
        "state": TRANSITIONS[State.SENDING, done.event],
        "result": done.result,
        "payload": None,
        "candidates": None,
        "links": stored_links(done.links),
        "due_at": None,
        "updated_at": now,
        "expires_at": None if done.links else now + policy.keep,
    }
    changed = with_attempt(operation, done.event, now).model_copy(update=changes)
    # A person may unlink a record that was found, and then the payload is needed again.
    payload_until = now + policy.keep if done.event is Event.FOUND else None
    return Decision(
        Next.STORE,
        changed,
        done.event,
        done.links,
        notify=_notifies(changed),
        with_ending=True,
        payload_until=payload_until,
    )


def _send_failed(operation: Operation, failed: SendFailed, terms: _Terms) -> Decision:
    error, event = failed.error, failed.error.event
    if isinstance(error, MissingError):
        if operation.was is not None:  # a caller that got 202 does not send it again, so the event waits
            event = Event.NOT_DONE
    elif isinstance(error, RefusedError):
        # An earlier sending may have been done, and be the very reason: only a person can tell.
        if operation.unconfirmed_since is not None and not isinstance(error, NeedlessError):
            event = Event.IN_DOUBT
    elif isinstance(error, TryLaterError):
        operation = operation.model_copy(update={"deferred_at": None if failed.repeatable else terms.now})
    return _failed(operation, event, terms, error=error, is_down=failed.is_down, with_ending=True)


def _look_failed(operation: Operation, failed: LookFailed, terms: _Terms) -> Decision:
    """Wait for the next look-up, or ask a person if the vendor cannot be asked.

    An operation that the vendor only asked to send later is not in doubt, and a failed look-up does not change that: it
    waits as before, and is sent if the vendor cannot be asked.
    """
    error, only_waited = failed.error, _only_waited(operation)
    if isinstance(error, CannotLookError):
        if only_waited:
            return Decision(Next.SEND, operation)
        return _failed(operation, error.event, terms, error=error)
    event = Event.NOT_DONE if only_waited else Event.LOOK_FAILED  # by a refusal too: nothing is known
    return _failed(operation, event, terms, error=error, is_down=failed.is_down)


def _looked(operation: Operation, looked: Looked, terms: _Terms) -> Decision:
    """Link the record, wait for the vendor's search, send once more, or ask a person."""
    now, policy = terms.now, terms.policy
    only_waited = _only_waited(operation)
    taken = {position for position, is_taken in enumerate(looked.taken) if is_taken}
    fitting = [position for position in range(len(looked.matches)) if position not in taken]
    certain = [position for position in fitting if looked.matches[position].certain]
    if len(certain) == 1:
        return Decision(Next.LINK, operation, match=certain[0])
    visible_at = (operation.unconfirmed_since or operation.deferred_at or operation.updated_at) + looked.search_lag
    is_visible, were_there = now >= visible_at, operation.candidates is not None
    candidates = candidates_of([looked.matches[position] for position in fitting], policy) if fitting else None
    operation = operation.model_copy(update={"candidates": candidates})
    if fitting and (certain or (is_visible and were_there)):
        may_be = "1 record" if len(fitting) == 1 else f"{len(fitting)} records"
        unclear = SeveralFoundError(f"{may_be} at the vendor may be this event's", vendor=operation.flow)
        return _failed(operation, unclear.event, terms, error=unclear)
    if fitting or not is_visible:  # ours may not be shown yet, and another event may still link what is shown
        event, reason = (Event.NOT_DONE, "it is looked for once more") if only_waited else (Event.NOT_FOUND_YET, "")
        due_at = now + looked.search_lag if is_visible else visible_at
        return _failed(operation, event, terms, reason=reason, due_at=due_at)
    if looked.not_shown and not only_waited:
        return _failed(operation, looked.not_shown.event, terms, error=looked.not_shown)
    return Decision(Next.SEND, operation.model_copy(update={"deferred_at": None}))


def _not_settled(operation: Operation, failed: NotSettled, terms: _Terms) -> Decision:
    if failed.event is Event.FOUND:  # the next look-up finds what is left; what was never in doubt is not in doubt now
        event = Event.NOT_DONE if operation.unconfirmed_since is None else Event.LOOK_FAILED
        reason = "was linked by another event" if failed.is_taken else "is being changed by another event"
        return _failed(operation, event, terms, reason=f"the record that was found {reason}")
    if not failed.is_taken:
        reason = "its turn was over before it could be settled; it is sent again, which does no harm"
        return _failed(operation, Event.MAYBE_DONE, terms, reason=reason, with_ending=True)
    made = ", ".join(f"{link.right.system} {link.right.entity} {link.right.id}" for link in failed.links)
    reason = f"{made} cannot be linked: it is linked already"
    return _failed(operation, Event.LINK_TAKEN, terms, reason=reason)


def _failed(
    operation: Operation,
    event: Event,
    terms: _Terms,
    *,
    error: VendorError | None = None,
    reason: str = "",
    is_down: bool = False,
    due_at: int | None = None,
    with_ending: bool = False,
) -> Decision:
    """Store an attempt that did not succeed, and when the next one is due (at `due_at`, if that is given)."""
    now, policy = terms.now, terms.policy
    is_held_back = is_down and event in HELD_BACK
    if error and is_held_back:
        operation = _without_attempt(operation, error)
    changed = with_attempt(operation, event, now, error.message if error else reason, error.status if error else None)
    state = TRANSITIONS[State.SENDING, event]
    if state in DUE and _is_hopeless(changed, terms, is_held_back=is_held_back):
        changed = with_attempt(changed, Event.OUT_OF_ATTEMPTS, now)
        state = TRANSITIONS[State.SENDING, Event.OUT_OF_ATTEMPTS]
    changes: dict[str, object] = {"state": state, "due_at": None, "updated_at": now}
    if state in DUE:
        changes["due_at"] = due_at or now + _delay(operation, error, terms, is_held_back=is_held_back)
    if event in (Event.MAYBE_DONE, Event.DEFECT):
        changes["unconfirmed_since"] = now
    if state is State.REJECTED:
        changes["expires_at"] = now + policy.keep
        if operation.was is None:  # else the caller got 202 and is gone, and a person needs to know what was refused
            changes["payload"] = None
    changed = changed.model_copy(update=changes)
    waits_for = error.waits_for if isinstance(error, NotYetError) and state is State.WAITING else None
    return Decision(
        Next.STORE,
        changed,
        event,
        notify=_notifies(changed),
        error=error,
        with_ending=with_ending,
        waits_for=waits_for,
    )


def _notifies(changed: Operation) -> bool:
    """Return whether the tenant is sent a webhook: a person is needed, or the caller did not wait for the end."""
    is_news = changed.state is State.NEEDS_REVIEW or (changed.state not in DUE and changed.was is not None)
    return changed.notifies and is_news


def _delay(operation: Operation, error: VendorError | None, terms: _Terms, *, is_held_back: bool) -> int:
    """Return the seconds until the next attempt: the plan, or the vendor's Retry-After if that is longer."""
    now, policy = terms.now, terms.policy
    if is_held_back:
        planned = min(max(_age(operation, now) / 2, policy.shortest_hold), policy.longest_hold)
    else:
        planned = policy.retry_delays[operation.tries - 1]
    spread = 1 - policy.spread + 2 * policy.spread * terms.chance
    retry_after = (error.retry_after if error else None) or 0
    return max(round(planned * spread), math.ceil(min(retry_after, policy.longest_wait)))


def _is_hopeless(operation: Operation, terms: _Terms, *, is_held_back: bool) -> bool:
    if is_held_back:
        return _age(operation, terms.now) > terms.policy.patience
    return operation.tries >= terms.policy.last_try or has_failed_too_often(operation, terms.policy)


def has_failed_too_often(operation: Operation, policy: Policy) -> bool:
    """Return whether the bridge itself failed on it `most_defects` times since a person last decided about it."""
    events = [attempt.event for attempt in operation.attempts]
    if Event.RETRY_REQUESTED in events:
        events = events[len(events) - events[::-1].index(Event.RETRY_REQUESTED) :]
    return events.count(Event.DEFECT) >= policy.most_defects


def _without_attempt(operation: Operation, error: VendorError) -> Operation:
    """Return it without the present attempt; and of several that failed with the same message only the last is kept."""
    attempts = operation.attempts
    if attempts and attempts[-1].reason == error.message:
        attempts = attempts[:-1]
    return operation.model_copy(update={"tries": operation.tries - 1, "attempts": attempts})


def _only_waited(operation: Operation) -> bool:
    """Return whether it waited and was never in doubt: the vendor has not done it, or at least said so."""
    return operation.was is State.WAITING and operation.unconfirmed_since is None


def _age(operation: Operation, now: int) -> int:
    return now - (operation.first_sent_at or operation.created_at)


def queued(claimed: Operation, there: Operation, now: int, policy: Policy) -> Operation:
    """Return `claimed` as it waits in the place of `there`, which has ended and is held by a change that came first."""
    changes = {
        "state": TRANSITIONS[there.state, Event.ACCEPTED],
        "tries": 0,
        "due_at": now + policy.retry_delays[0],
        "lent_until": None,
        "first_sent_at": None,
        "attempts": there.attempts,
        "held": there.held,
        "reserved": there.reserved,
    }
    waiting = claimed.model_copy(update=changes)
    return with_attempt(waiting, Event.ACCEPTED, now, "it waits for a change that came first")


def possible_matches[R](operation: Operation, found: Sequence[Match[R]], policy: Policy) -> list[Match[R]]:
    """Return the records that are not older than our first attempt, those that are certain first."""
    earliest = (operation.first_sent_at or operation.created_at) - policy.clock_skew
    young = [one for one in found if one.created_at is None or _at_the_latest(one.created_at, policy) >= earliest]
    return sorted(young, key=lambda one: not one.certain)


def _at_the_latest(created_at: datetime, policy: Policy) -> float:
    """Return the latest moment that this may mean, in epoch seconds."""
    if created_at.tzinfo:
        return created_at.timestamp()
    return created_at.replace(tzinfo=UTC).timestamp() + policy.no_zone


def candidates_of(records: Sequence[Match[BaseModel]], policy: Policy) -> tuple[Candidate, ...]:
    """Return the records that are stored for a person; if there are many, those that were surely made since."""
    known = sorted((one for one in records if one.id), key=lambda one: (not one.certain, one.created_at is None))
    return tuple(
        Candidate(
            id=one.id,
            name=plain(one.name, policy.longest_name),
            created_at=one.created_at.isoformat() if one.created_at else None,
        )
        for one in known[: policy.most_candidates]
    )

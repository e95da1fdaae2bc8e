"""`decide` as a table: an operation, what happened to it, and the whole decision, compared by equality."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from crm_bridge.engine import POLICY
from crm_bridge.engine.decide import (
    Broken,
    Claimed,
    Decision,
    Happened,
    LookFailed,
    Next,
    NotSettled,
    SendFailed,
    Succeeded,
    decide,
    has_failed_too_often,
    is_used_up,
)
from crm_bridge.errors import (
    Event,
    NotDoneError,
    VendorError,
)
from crm_bridge.storage.links import Link
from crm_bridge.storage.operation import Attempt, Operation, State
from tests.unit.engine.decisions import (
    A_CANDIDATE,
    BILL,
    BROKEN,
    CANNOT_LOOK,
    HALF_DONE,
    KEPT,
    LAST,
    LATER,
    LINK,
    MAYBE_DONE,
    MISSING,
    NEEDLESS,
    NO_RECORD,
    NO_SIGN_IN,
    NOT_DONE,
    NOT_YET,
    NOW,
    REFUSED,
    REJECTED,
    TOLD,
    TOO_MANY,
    UNKNOWN,
    UNKNOWN_AGAIN,
    USED_UP,
    WAITS,
    WAITS_AGAIN,
    Row,
    again,
    attempt,
    attempts,
    check,
    failed,
    failure,
    in_doubt,
    next_is,
    noted,
    sending,
    stored,
)

# ---------------------------------------------------------------- claimed again

DIED = attempt(Event.LEASE_EXPIRED, "whoever was sending it has died")


def dead(**changes: object) -> Operation:
    """Return an operation whose sender was killed, with that noted."""
    died = again(State.SENDING, **changes)
    return died.model_copy(update={"attempts": (DIED,), "last_attempt": DIED})


CLAIMED: dict[str, Row] = {
    "it only waited": (again(), Claimed(False), next_is(Next.SEND, again())),
    "it only waited, and is repeatable": (again(), Claimed(True), next_is(Next.SEND, again())),
    "the vendor asked for time": (
        again(deferred_at=NOW - 40),
        Claimed(False),
        next_is(Next.LOOK, again(deferred_at=NOW - 40)),
    ),
    "it is in doubt": (in_doubt(), Claimed(False), next_is(Next.LOOK, in_doubt())),
    "it is in doubt, and is repeatable": (in_doubt(), Claimed(True), next_is(Next.SEND, in_doubt())),
    "it waits after a doubt": (
        again(unconfirmed_since=NOW - 60),
        Claimed(False),
        next_is(Next.LOOK, again(unconfirmed_since=NOW - 60)),
    ),
    "it is unknown without a time": (
        again(State.UNCONFIRMED),
        Claimed(False),
        next_is(Next.LOOK, again(State.UNCONFIRMED)),
    ),
    "its sender has died": (
        again(State.SENDING),
        Claimed(False),
        next_is(Next.LOOK, dead(unconfirmed_since=NOW)),
    ),
    "its sender has died, and it is repeatable": (
        again(State.SENDING, unconfirmed_since=NOW - 60),
        Claimed(True),
        next_is(Next.SEND, dead(unconfirmed_since=NOW)),
    ),
    "it is its last try": (again(tries=LAST), Claimed(False), next_is(Next.SEND, again(tries=LAST))),
    "it has no try left": (
        again(tries=TOO_MANY),
        Claimed(False),
        stored(Event.OUT_OF_ATTEMPTS, noted(again(tries=TOO_MANY), USED_UP, state=State.NEEDS_REVIEW)),
    ),
    "its sender has died at the last try": (
        again(State.SENDING, tries=TOO_MANY, notifies=True),
        Claimed(True),
        stored(
            Event.OUT_OF_ATTEMPTS,
            noted(
                again(State.SENDING, tries=TOO_MANY, notifies=True, unconfirmed_since=NOW),
                DIED,
                USED_UP,
                state=State.NEEDS_REVIEW,
            ),
            notify=True,
        ),
    ),
}


@pytest.mark.parametrize(("operation", "happened", "expected"), CLAIMED.values(), ids=CLAIMED.keys())
def test_what_follows_a_claim(operation: Operation, happened: Happened, expected: Decision) -> None:
    check(operation, happened, expected)
    is_over = expected.next is Next.STORE
    assert is_used_up(operation, POLICY) is is_over


# ---------------------------------------------------------------- succeeded


@pytest.mark.parametrize(
    "operation",
    [
        sending(),
        sending(notifies=True),
        again(notifies=True),
        again(),
        in_doubt(candidates=A_CANDIDATE, attempts=attempts(Event.MAYBE_DONE)),
    ],
    ids=["request", "request, told", "again, told", "again", "after a doubt"],
)
@pytest.mark.parametrize("links", [(), (LINK,), (LINK, BILL)], ids=len)
@pytest.mark.parametrize("event", [Event.DONE, Event.FOUND])
def test_what_follows_a_success(operation: Operation, event: Event, links: tuple[Link, ...]) -> None:
    changes = {
        "state": State.SUCCEEDED,
        "result": '{"receipt":7}',
        "payload": None,
        "candidates": None,
        "links": tuple((link.left, link.right) for link in links),
        "expires_at": None if links else KEPT,
    }
    expected = stored(
        event,
        noted(operation, attempt(event), **changes),
        links=links,
        notify=operation.notifies and operation.was is not None,
        with_ending=True,
        payload_until=KEPT if event is Event.FOUND else None,
    )
    check(operation, Succeeded(event, '{"receipt":7}', links), expected)


# ---------------------------------------------------------------- the sending failed


def not_sent(operation: Operation, event: Event, error: VendorError, *, notify: bool = False, **changes: Any) -> Row:
    expected = stored(event, failed(operation, event, error, **changes), error=error, with_ending=True, notify=notify)
    return operation, SendFailed(error), expected


NOT_SENT: dict[str, Row] = {
    "surely not done": not_sent(sending(), Event.NOT_DONE, NOT_DONE, **WAITS),
    "surely not done, told": not_sent(again(**TOLD), Event.NOT_DONE, NOT_DONE, **WAITS_AGAIN),
    "surely not done after a doubt": not_sent(in_doubt(), Event.NOT_DONE, NOT_DONE, **WAITS_AGAIN),
    "the sign-in was refused": not_sent(sending(), Event.NOT_DONE, NO_SIGN_IN, **WAITS),
    "maybe done": not_sent(sending(), Event.MAYBE_DONE, MAYBE_DONE, **UNKNOWN),
    "maybe done once more": not_sent(in_doubt(), Event.MAYBE_DONE, MAYBE_DONE, **UNKNOWN_AGAIN),
    "the response makes no sense": not_sent(sending(), Event.MAYBE_DONE, BROKEN, **UNKNOWN),
    "half done": not_sent(sending(), Event.MAYBE_DONE, HALF_DONE, **UNKNOWN),
    "refused": not_sent(sending(), Event.REFUSED, REFUSED, payload=None, **REJECTED),
    "refused, told": not_sent(sending(**TOLD), Event.REFUSED, REFUSED, payload=None, **REJECTED),
    "refused later": not_sent(again(), Event.REFUSED, REFUSED, **REJECTED),
    "refused later, told": not_sent(again(**TOLD), Event.REFUSED, REFUSED, notify=True, **REJECTED),
    "refused after a doubt": not_sent(in_doubt(), Event.IN_DOUBT, REFUSED, state=State.NEEDS_REVIEW),
    "refused after a doubt, told": not_sent(
        in_doubt(**TOLD), Event.IN_DOUBT, REFUSED, notify=True, state=State.NEEDS_REVIEW
    ),
    "no such record after a doubt": not_sent(in_doubt(), Event.IN_DOUBT, NO_RECORD, state=State.NEEDS_REVIEW),
    "needless after a doubt": not_sent(in_doubt(), Event.REFUSED, NEEDLESS, **REJECTED),
    "something is missing": not_sent(sending(), Event.REFUSED, MISSING, payload=None, **REJECTED),
    "something is missing later": not_sent(again(), Event.NOT_DONE, MISSING, **WAITS_AGAIN),
    "something is missing after a doubt": not_sent(in_doubt(), Event.NOT_DONE, MISSING, **WAITS_AGAIN),
    "the vendor asks for time": not_sent(sending(), Event.NOT_DONE, LATER, deferred_at=NOW, **WAITS),
    "the account is no longer named": not_sent(again(), Event.IN_DOUBT, CANNOT_LOOK, state=State.NEEDS_REVIEW),
    "the vendor asks a repeatable command for time": (
        again(deferred_at=NOW - 40),
        SendFailed(LATER, repeatable=True),
        stored(
            Event.NOT_DONE,
            failed(again(), Event.NOT_DONE, LATER, **WAITS_AGAIN),
            error=LATER,
            with_ending=True,
        ),
    ),
    "another one comes first": (
        sending(),
        SendFailed(NOT_YET),
        stored(
            Event.NOT_DONE,
            failed(sending(), Event.NOT_DONE, NOT_YET, **WAITS),
            error=NOT_YET,
            with_ending=True,
            waits_for="op_2",
        ),
    ),
    "another one comes first at the last try": (
        again(tries=LAST),
        SendFailed(NOT_YET),
        stored(
            Event.NOT_DONE,
            noted(again(tries=LAST), attempt(Event.NOT_DONE, "because"), USED_UP, state=State.NEEDS_REVIEW),
            error=NOT_YET,
            with_ending=True,
        ),
    ),
}


@pytest.mark.parametrize(("operation", "happened", "expected"), NOT_SENT.values(), ids=NOT_SENT.keys())
def test_what_follows_a_failed_sending(operation: Operation, happened: Happened, expected: Decision) -> None:
    check(operation, happened, expected)


@pytest.mark.parametrize("tries", range(1, LAST))
@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.8), (0.25, 0.9), (0.5, 1.0), (1.0, 1.2)])
def test_each_delay_is_longer_and_spread_by_a_fifth(tries: int, chance: float, share: float) -> None:
    operation, due_at = again(tries=tries), NOW + round(POLICY.retry_delays[tries - 1] * share)
    changed = failed(operation, Event.NOT_DONE, NOT_DONE, state=State.WAITING, due_at=due_at)
    expected = stored(Event.NOT_DONE, changed, error=NOT_DONE, with_ending=True)
    check(operation, SendFailed(NOT_DONE), expected, chance=chance)


@pytest.mark.parametrize(
    ("retry_after", "delay"),
    [(None, 30), (0, 30), (29.5, 30), (30.2, 31), (600.5, 601), (86_399.5, 86_400), (86_401, 86_400), (1e9, 86_400)],
)
def test_a_longer_retry_after_is_followed_up_to_a_day(retry_after: float | None, delay: int) -> None:
    error = failure(NotDoneError, retry_after=retry_after)
    changed = failed(sending(), Event.NOT_DONE, error, state=State.WAITING, due_at=NOW + delay)
    check(sending(), SendFailed(error), stored(Event.NOT_DONE, changed, error=error, with_ending=True))


@pytest.mark.parametrize(("retry_after", "delay"), [(10, 45), (44.2, 45), (299.5, 300), (1e9, 86_400)])
def test_a_longer_retry_after_is_followed_while_the_breaker_is_open(retry_after: float, delay: int) -> None:
    error = failure(NotDoneError, retry_after=retry_after)
    changed = failed(again(), Event.NOT_DONE, error, state=State.WAITING, due_at=NOW + delay, tries=1)
    expected = stored(Event.NOT_DONE, changed, error=error, with_ending=True)
    check(again(), SendFailed(error, is_down=True), expected)


def test_a_retry_after_is_the_delay_if_the_plan_is_shorter_than_a_second() -> None:
    impatient = replace(POLICY, retry_delays=(0, 0))
    decision = decide(sending(), SendFailed(NOT_DONE), NOW, impatient, 0.5)
    assert decision.operation.due_at == NOW


@pytest.mark.parametrize(
    ("operation", "error", "event"),
    [
        (again(tries=LAST), NOT_DONE, Event.NOT_DONE),
        (again(tries=LAST, **TOLD), NOT_DONE, Event.NOT_DONE),
        (in_doubt(tries=LAST), MAYBE_DONE, Event.MAYBE_DONE),
        (again(attempts=attempts(*[Event.DEFECT] * 3)), NOT_DONE, Event.NOT_DONE),
    ],
    ids=["not done", "not done, told", "maybe done", "three defects"],
)
def test_a_person_decides_after_the_last_try(operation: Operation, error: VendorError, event: Event) -> None:
    changes = {"unconfirmed_since": NOW} if event is Event.MAYBE_DONE else {}
    changed = noted(operation, attempt(event, "because", error.status), USED_UP, state=State.NEEDS_REVIEW, **changes)
    expected = stored(event, changed, error=error, with_ending=True, notify=operation.notifies)
    check(operation, SendFailed(error), expected)


# ---------------------------------------------------------------- while the breaker is open

DOWN = failure(NotDoneError, retry_after=10)


@pytest.mark.parametrize(
    ("age", "chance", "delay"),
    [
        (0, 0.5, 30),
        (59, 0.5, 30),
        (61, 0.5, 30),
        (64, 0.5, 32),
        (100, 0.5, 50),
        (100, 1.0, 60),
        (7198, 0.5, 3599),
        (7200, 0.5, 3600),
        (9000, 0.5, 3600),
        (POLICY.patience, 0.0, 2880),
    ],
)
@pytest.mark.parametrize("sent", [True, False])
def test_is_held_back_for_half_of_its_age_and_no_try_is_used(age: int, chance: float, delay: int, sent: bool) -> None:
    accepted_at, first_sent_at = (NOW - age - 5, NOW - age) if sent else (NOW - age, None)
    operation = again(created_at=accepted_at, first_sent_at=first_sent_at)
    changed = failed(operation, Event.NOT_DONE, DOWN, state=State.WAITING, due_at=NOW + delay, tries=1)
    expected = stored(Event.NOT_DONE, changed, error=DOWN, with_ending=True)
    check(operation, SendFailed(DOWN, is_down=True), expected, chance=chance)


def held_back(operation: Operation, kept: Sequence[Attempt], event: Event, **changes: object) -> Operation:
    before = operation.model_copy(update={"attempts": tuple(kept), "tries": operation.tries - 1})
    return noted(before, attempt(event, "because"), **changes)


SAME, OTHER = attempts(Event.NOT_DONE, reason="because"), attempts(Event.NOT_DONE, reason="429")
HELD: dict[str, Row] = {
    "the same error before": (
        again(attempts=OTHER + OTHER + SAME),
        SendFailed(DOWN, is_down=True),
        stored(
            Event.NOT_DONE,
            held_back(again(), OTHER + OTHER, Event.NOT_DONE, state=State.WAITING, due_at=NOW + 45),
            error=DOWN,
            with_ending=True,
        ),
    ),
    "another error before": (
        again(attempts=SAME + OTHER),
        SendFailed(DOWN, is_down=True),
        stored(
            Event.NOT_DONE,
            held_back(again(), SAME + OTHER, Event.NOT_DONE, state=State.WAITING, due_at=NOW + 45),
            error=DOWN,
            with_ending=True,
        ),
    ),
    "the last try is none": (
        again(tries=LAST),
        SendFailed(DOWN, is_down=True),
        stored(
            Event.NOT_DONE,
            held_back(again(tries=LAST), (), Event.NOT_DONE, state=State.WAITING, due_at=NOW + 45),
            error=DOWN,
            with_ending=True,
        ),
    ),
    "maybe done": (
        again(),
        SendFailed(MAYBE_DONE, is_down=True),
        stored(
            Event.MAYBE_DONE,
            held_back(again(), (), Event.MAYBE_DONE, state=State.UNCONFIRMED, due_at=NOW + 45, unconfirmed_since=NOW),
            error=MAYBE_DONE,
            with_ending=True,
        ),
    ),
    "the look-up": (
        in_doubt(),
        LookFailed(DOWN, is_down=True),
        stored(
            Event.LOOK_FAILED,
            held_back(in_doubt(), (), Event.LOOK_FAILED, state=State.UNCONFIRMED, due_at=NOW + 45),
            error=DOWN,
        ),
    ),
    "a refusal uses a try": (
        again(attempts=SAME),
        SendFailed(REFUSED, is_down=True),
        stored(
            Event.REFUSED,
            failed(again(attempts=SAME), Event.REFUSED, REFUSED, **REJECTED),
            error=REFUSED,
            with_ending=True,
        ),
    ),
    "for too long": (
        again(first_sent_at=NOW - POLICY.patience - 1),
        SendFailed(DOWN, is_down=True),
        stored(
            Event.NOT_DONE,
            noted(
                again(first_sent_at=NOW - POLICY.patience - 1, tries=1),
                attempt(Event.NOT_DONE, "because"),
                USED_UP,
                state=State.NEEDS_REVIEW,
            ),
            error=DOWN,
            with_ending=True,
        ),
    ),
}


@pytest.mark.parametrize(("operation", "happened", "expected"), HELD.values(), ids=HELD.keys())
def test_what_follows_while_the_breaker_is_open(operation: Operation, happened: Happened, expected: Decision) -> None:
    check(operation, happened, expected)


# ---------------------------------------------------------------- the bridge failed


DEFECT = attempt(Event.DEFECT, "the bridge failed (KeyError)")


@pytest.mark.parametrize(
    ("before", "is_in_review"),
    [
        ((), False),
        ((Event.DEFECT,), False),
        ((Event.DEFECT, Event.DEFECT), True),
        ((Event.DEFECT, Event.NOT_DONE, Event.DEFECT), True),
        ((Event.DEFECT, Event.DEFECT, Event.RETRY_REQUESTED), False),
        ((Event.DEFECT, Event.DEFECT, Event.RETRY_REQUESTED, Event.DEFECT), False),
        ((Event.RETRY_REQUESTED, Event.DEFECT, Event.DEFECT), True),
        ((Event.RETRY_REQUESTED, Event.DEFECT, Event.RETRY_REQUESTED, Event.DEFECT), False),
    ],
    ids=str,
)
def test_a_person_decides_after_three_defects_since_the_last_decision(
    before: tuple[Event, ...], is_in_review: bool
) -> None:
    operation = again(attempts=attempts(*before), tries=3)
    if is_in_review:
        changed = noted(operation, DEFECT, USED_UP, state=State.NEEDS_REVIEW, unconfirmed_since=NOW)
    else:
        changed = noted(operation, DEFECT, state=State.UNCONFIRMED, due_at=NOW + 600, unconfirmed_since=NOW)
    check(operation, Broken("KeyError"), stored(Event.DEFECT, changed))
    assert has_failed_too_often(changed, POLICY) is is_in_review


# ---------------------------------------------------------------- it could not be settled


def not_settled(operation: Operation, happened: NotSettled, event: Event, reason: str, **changes: object) -> Row:
    with_ending = event is Event.MAYBE_DONE
    return (
        operation,
        happened,
        stored(event, noted(operation, attempt(event, reason), **changes), with_ending=with_ending),
    )


OVER = "its turn was over before it could be settled; it is sent again, which does no harm"
CHANGED = "the record that was found is being changed by another event"
LINKED = "the record that was found was linked by another event"
NOT_SETTLED: dict[str, Row] = {
    "done, overtaken": not_settled(sending(), NotSettled(Event.DONE), Event.MAYBE_DONE, OVER, **UNKNOWN),
    "found, overtaken": not_settled(again(), NotSettled(Event.FOUND), Event.NOT_DONE, CHANGED, **WAITS_AGAIN),
    "found after a doubt, overtaken": not_settled(
        in_doubt(), NotSettled(Event.FOUND), Event.LOOK_FAILED, CHANGED, state=State.UNCONFIRMED, due_at=NOW + 120
    ),
    "found, and linked to another": not_settled(
        in_doubt(),
        NotSettled(Event.FOUND, (LINK,), is_taken=True),
        Event.LOOK_FAILED,
        LINKED,
        state=State.UNCONFIRMED,
        due_at=NOW + 120,
    ),
    "found without a doubt, and linked to another": not_settled(
        again(), NotSettled(Event.FOUND, (LINK,), is_taken=True), Event.NOT_DONE, LINKED, **WAITS_AGAIN
    ),
    "done, and linked to another": not_settled(
        sending(),
        NotSettled(Event.DONE, (LINK, BILL), is_taken=True),
        Event.LINK_TAKEN,
        "shop receipt 7, shop bill 8 cannot be linked: it is linked already",
        state=State.NEEDS_REVIEW,
    ),
}


@pytest.mark.parametrize(("operation", "happened", "expected"), NOT_SETTLED.values(), ids=NOT_SETTLED.keys())
def test_what_follows_if_it_cannot_be_settled(operation: Operation, happened: Happened, expected: Decision) -> None:
    check(operation, happened, expected)

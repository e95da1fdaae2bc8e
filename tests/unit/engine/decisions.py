"""Operations and errors for the tables of `decide`, and the comparison of a whole decision."""

from typing import Any

from crm_bridge.engine import POLICY
from crm_bridge.engine.decide import (
    Decision,
    Happened,
    Next,
    decide,
)
from crm_bridge.errors import (
    CannotLookError,
    ContractBrokenError,
    Event,
    HalfDoneError,
    IncompleteSearchError,
    MaybeDoneError,
    MissingError,
    NeedlessError,
    NoSuchRecordError,
    NotDoneError,
    NotYetError,
    RefusedError,
    SignInRefusedError,
    TryLaterError,
    VendorError,
)
from crm_bridge.storage.links import Identity, Link
from crm_bridge.storage.operation import Attempt, Candidate, Operation, State

NOW = 1_795_000_000
LAST, TOO_MANY = POLICY.last_try, POLICY.last_try + 1
KEPT = NOW + POLICY.keep
LINK = Link(Identity("crm", "order", "1"), Identity("shop", "receipt", "7"))
BILL = Link(Identity("crm", "order", "1"), Identity("shop", "bill", "8"))
A_CANDIDATE = (Candidate(id="9", name="A"),)


def sending(**changes: object) -> Operation:
    """Return an operation that a request sends for the first time; with `was`, one that was claimed again."""
    return Operation(
        operation_id="op_1",
        tenant="acme",
        flow="orders",
        function="orders",
        event_key="1",
        state=State.SENDING,
        fingerprint="f",
        payload="{}",
        tries=1,
        lease="l",
        due_at=NOW + 30,
        created_at=NOW - 100,
        updated_at=NOW - 20,
        first_sent_at=NOW - 90,
    ).model_copy(update=changes)


def again(was: State = State.WAITING, **changes: object) -> Operation:
    """Return an operation that was claimed again, at its second try."""
    return sending(was=was, **{"tries": 2, **changes})


def in_doubt(**changes: object) -> Operation:
    """Return an operation that was claimed again, and whose first sending may have been done."""
    return again(State.UNCONFIRMED, **{"unconfirmed_since": NOW - 60, **changes})


def noted(operation: Operation, *attempts: Attempt, **changes: object) -> Operation:
    """Return the operation with these attempts more and these changes, settled now."""
    notes = {"attempts": operation.attempts + attempts, "last_attempt": attempts[-1], "updated_at": NOW}
    return operation.model_copy(update={"due_at": None, **notes, **changes})


def attempt(event: Event, reason: str = "", status: int | None = None) -> Attempt:
    return Attempt(at=NOW, event=event, reason=reason, status=status)


def attempts(*events: Event, reason: str = "") -> tuple[Attempt, ...]:
    return tuple(Attempt(at=NOW - 50, event=event, reason=reason) for event in events)


def failure(kind: type[VendorError], **details: Any) -> VendorError:
    return kind("because", vendor="shop", **details)


def next_is(step: Next, operation: Operation) -> Decision:
    return Decision(step, operation)


def stored(event: Event, operation: Operation, **more: Any) -> Decision:
    return Decision(Next.STORE, operation, event, **more)


def check(operation: Operation, happened: Happened, expected: Decision, *, chance: float = 0.5) -> None:
    before = operation.model_copy(deep=True)
    assert decide(operation, happened, NOW, POLICY, chance) == expected
    assert operation == before


type Row = tuple[Operation, Happened, Decision]


def failed(operation: Operation, event: Event, error: VendorError, **changes: Any) -> Operation:
    """Return the operation after one attempt that ended in the error."""
    return noted(operation, attempt(event, "because", error.status), **changes)


USED_UP = attempt(Event.OUT_OF_ATTEMPTS)
NOT_DONE, MAYBE_DONE, REFUSED = failure(NotDoneError, status=503), failure(MaybeDoneError), failure(RefusedError)
BROKEN, HALF_DONE = failure(ContractBrokenError, status=200), failure(HalfDoneError)
MISSING, NEEDLESS, NO_RECORD = failure(MissingError), failure(NeedlessError), failure(NoSuchRecordError, status=404)
LATER, NO_SIGN_IN = failure(TryLaterError, status=429), failure(SignInRefusedError, status=401)
NOT_YET = NotYetError("because", vendor="shop", waits_for="op_2")
CANNOT_LOOK, NOT_SHOWN = failure(CannotLookError), failure(IncompleteSearchError)

WAITS: dict[str, Any] = {"state": State.WAITING, "due_at": NOW + 30}
WAITS_AGAIN: dict[str, Any] = {"state": State.WAITING, "due_at": NOW + 120}
UNKNOWN: dict[str, Any] = {"state": State.UNCONFIRMED, "due_at": NOW + 30, "unconfirmed_since": NOW}
UNKNOWN_AGAIN: dict[str, Any] = {"state": State.UNCONFIRMED, "due_at": NOW + 120, "unconfirmed_since": NOW}
REJECTED: dict[str, Any] = {"state": State.REJECTED, "expires_at": KEPT}
TOLD: dict[str, Any] = {"notifies": True}

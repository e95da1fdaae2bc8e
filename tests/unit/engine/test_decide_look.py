"""`decide` after a look-up, as tables; and which of the records are stored for a person."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import BaseModel

from crm_bridge.engine import POLICY
from crm_bridge.engine.decide import (
    Decision,
    Happened,
    Looked,
    LookFailed,
    Next,
    candidates_of,
    decide,
    possible_matches,
    queued,
)
from crm_bridge.errors import (
    Event,
    IncompleteSearchError,
    SeveralFoundError,
    VendorError,
)
from crm_bridge.flow import Match
from crm_bridge.storage.operation import Candidate, Operation, State
from tests.unit.engine.decisions import (
    A_CANDIDATE,
    BROKEN,
    CANNOT_LOOK,
    LAST,
    LATER,
    MAYBE_DONE,
    MISSING,
    NO_SIGN_IN,
    NOT_DONE,
    NOT_SHOWN,
    NOT_YET,
    NOW,
    REFUSED,
    USED_UP,
    WAITS_AGAIN,
    Row,
    again,
    attempt,
    attempts,
    check,
    failed,
    in_doubt,
    next_is,
    noted,
    sending,
    stored,
)


class Receipt(BaseModel):
    receipt: int


LAG = 120
VISIBLE = NOW - LAG
"""The latest time of a doubt for which the vendor's search shows everything by now."""


def record(
    receipt: int = 7, *, certain: bool = True, created_at: datetime | None = None, name: str = ""
) -> Match[Receipt]:
    return Match(Receipt(receipt=receipt), created_at, certain, str(receipt), name)


CERTAIN, CERTAIN_TOO, UNCERTAIN, UNCERTAIN_TOO = (
    record(7),
    record(8),
    record(9, certain=False),
    record(10, certain=False),
)
NAMELESS = Match(Receipt(receipt=11), certain=False)
SHOWN: dict[int, Candidate] = {receipt: Candidate(id=str(receipt), name="") for receipt in (7, 8, 9, 10)}


def looked(*matches: Match[Receipt], taken: Sequence[bool] = (), not_shown: VendorError | None = None) -> Looked:
    assert not_shown is None or isinstance(not_shown, IncompleteSearchError)
    return Looked(matches, taken or [False] * len(matches), LAG, not_shown)


def linked(operation: Operation, happened: Happened, match: int) -> Row:
    return operation, happened, Decision(Next.LINK, operation, match=match)


def waits(
    operation: Operation, happened: Happened, event: Event, *, due_at: int, reason: str = "", **changes: object
) -> Row:
    state = State.WAITING if event is Event.NOT_DONE else State.UNCONFIRMED
    changed = noted(operation, attempt(event, reason), state=state, due_at=due_at, **changes)
    return operation, happened, stored(event, changed)


def sent(operation: Operation, happened: Happened) -> Row:
    return (
        operation,
        happened,
        next_is(Next.SEND, operation.model_copy(update={"candidates": None, "deferred_at": None})),
    )


EARLY, LATE = in_doubt(unconfirmed_since=VISIBLE + 1), in_doubt(unconfirmed_since=VISIBLE)
BEFORE: dict[str, Any] = {"candidates": A_CANDIDATE}
DEFERRED, DEFERRED_LATE = again(deferred_at=VISIBLE + 1), again(deferred_at=VISIBLE)
ONCE_MORE = "it is looked for once more"

LOOKED: dict[str, Row] = {
    "one certain record": linked(LATE, looked(CERTAIN), 0),
    "one certain record, early": linked(EARLY, looked(CERTAIN), 0),
    "one certain record and others": linked(LATE, looked(CERTAIN, UNCERTAIN, UNCERTAIN_TOO), 0),
    "one certain record that is not linked to another": linked(
        LATE, looked(CERTAIN, CERTAIN_TOO, UNCERTAIN, taken=[True, False, False]), 1
    ),
    "one certain record, with candidates from before": linked(again(**BEFORE), looked(CERTAIN), 0),
    "one certain record after the vendor asked for time": linked(DEFERRED, looked(CERTAIN), 0),
    "one certain record, and there may be others": linked(LATE, looked(CERTAIN, not_shown=NOT_SHOWN), 0),
    "nothing, early": waits(EARLY, looked(), Event.NOT_FOUND_YET, due_at=NOW + 1),
    "nothing, early, with candidates from before": waits(
        in_doubt(unconfirmed_since=VISIBLE + 1, **BEFORE),
        looked(),
        Event.NOT_FOUND_YET,
        due_at=NOW + 1,
        candidates=None,
    ),
    "nothing": sent(LATE, looked()),
    "nothing, with candidates from before": sent(in_doubt(unconfirmed_since=VISIBLE, **BEFORE), looked()),
    "nothing, early after the vendor asked for time": waits(
        DEFERRED, looked(), Event.NOT_DONE, due_at=NOW + 1, reason=ONCE_MORE
    ),
    "nothing after the vendor asked for time": sent(DEFERRED_LATE, looked()),
    "the doubt counts, not the request for time": waits(
        in_doubt(unconfirmed_since=VISIBLE + 1, deferred_at=VISIBLE - 500),
        looked(),
        Event.NOT_FOUND_YET,
        due_at=NOW + 1,
    ),
    "without a doubt its last change counts, early": waits(
        again(State.UNCONFIRMED, updated_at=VISIBLE + 1), looked(), Event.NOT_FOUND_YET, due_at=NOW + 1
    ),
    "without a doubt its last change counts": sent(again(State.UNCONFIRMED, updated_at=VISIBLE), looked()),
    "all are linked to others": sent(LATE, looked(CERTAIN, UNCERTAIN, taken=[True, True])),
    "all are linked to others, early": waits(EARLY, looked(CERTAIN, taken=[True]), Event.NOT_FOUND_YET, due_at=NOW + 1),
    "an uncertain record, early": waits(
        EARLY, looked(UNCERTAIN), Event.NOT_FOUND_YET, due_at=NOW + 1, candidates=(SHOWN[9],)
    ),
    "an uncertain record, early, with candidates from before": waits(
        in_doubt(unconfirmed_since=VISIBLE + 1, **BEFORE),
        looked(UNCERTAIN),
        Event.NOT_FOUND_YET,
        due_at=NOW + 1,
        candidates=(SHOWN[9],),
    ),
    "an uncertain record for the first time": waits(
        LATE, looked(UNCERTAIN), Event.NOT_FOUND_YET, due_at=NOW + LAG, candidates=(SHOWN[9],)
    ),
    "an uncertain record for the first time, and there may be others": waits(
        LATE, looked(UNCERTAIN, not_shown=NOT_SHOWN), Event.NOT_FOUND_YET, due_at=NOW + LAG, candidates=(SHOWN[9],)
    ),
    "an uncertain record after the vendor asked for time": waits(
        DEFERRED_LATE, looked(UNCERTAIN), Event.NOT_DONE, due_at=NOW + LAG, reason=ONCE_MORE, candidates=(SHOWN[9],)
    ),
    "an uncertain record without an id for the first time": waits(
        LATE, looked(NAMELESS), Event.NOT_FOUND_YET, due_at=NOW + LAG, candidates=()
    ),
    "a record beyond those whose links were read": waits(
        LATE,
        looked(UNCERTAIN, UNCERTAIN_TOO, taken=[True]),
        Event.NOT_FOUND_YET,
        due_at=NOW + LAG,
        candidates=(SHOWN[10],),
    ),
    "nothing, and there may be some, early": waits(
        EARLY, looked(not_shown=NOT_SHOWN), Event.NOT_FOUND_YET, due_at=NOW + 1
    ),
    "nothing, and there may be some": (
        LATE,
        looked(not_shown=NOT_SHOWN),
        stored(Event.IN_DOUBT, failed(LATE, Event.IN_DOUBT, NOT_SHOWN, state=State.NEEDS_REVIEW), error=NOT_SHOWN),
    ),
    "nothing, and there may be some, after the vendor asked for time": sent(DEFERRED_LATE, looked(not_shown=NOT_SHOWN)),
    "it may not wait any longer": (
        in_doubt(unconfirmed_since=VISIBLE + 1, tries=LAST, notifies=True),
        looked(),
        stored(
            Event.NOT_FOUND_YET,
            noted(
                in_doubt(unconfirmed_since=VISIBLE + 1, tries=LAST, notifies=True),
                attempt(Event.NOT_FOUND_YET),
                USED_UP,
                state=State.NEEDS_REVIEW,
            ),
            notify=True,
        ),
    ),
}


@pytest.mark.parametrize(("operation", "happened", "expected"), LOOKED.values(), ids=LOOKED.keys())
def test_what_follows_a_look_up(operation: Operation, happened: Happened, expected: Decision) -> None:
    check(operation, happened, expected)


@pytest.mark.parametrize(
    ("operation", "happened", "told", "candidates"),
    [
        (LATE, looked(CERTAIN, CERTAIN_TOO), "2 records", (7, 8)),
        (EARLY, looked(CERTAIN, CERTAIN_TOO, UNCERTAIN), "3 records", (7, 8, 9)),
        (DEFERRED, looked(CERTAIN, CERTAIN_TOO), "2 records", (7, 8)),
        (LATE.model_copy(update=BEFORE), looked(UNCERTAIN), "1 record", (9,)),
        (LATE.model_copy(update=BEFORE), looked(UNCERTAIN, UNCERTAIN_TOO), "2 records", (9, 10)),
        (LATE.model_copy(update=BEFORE), looked(CERTAIN, UNCERTAIN, taken=[True, False]), "1 record", (9,)),
        (LATE.model_copy(update={"candidates": ()}), looked(UNCERTAIN), "1 record", (9,)),
        (DEFERRED_LATE.model_copy(update=BEFORE), looked(UNCERTAIN), "1 record", (9,)),
    ],
)
def test_a_person_decides_if_it_is_not_clear_which_record_it_is(
    operation: Operation, happened: Happened, told: str, candidates: Sequence[int]
) -> None:
    decision = decide(operation, happened, NOW, POLICY, 0.5)
    reason = f"{told} at the vendor may be this event's"
    shown = tuple(SHOWN[receipt] for receipt in candidates)
    changed = noted(operation, attempt(Event.IN_DOUBT, reason), state=State.NEEDS_REVIEW, candidates=shown)
    assert replace(decision, error=None) == stored(Event.IN_DOUBT, changed)
    error = decision.error
    assert isinstance(error, SeveralFoundError)
    assert (error.message, error.vendor, error.status) == (reason, "orders", None)


# ---------------------------------------------------------------- the look-up failed


def look_failed(operation: Operation, error: VendorError | None, event: Event, **changes: Any) -> Row:
    note = attempt(event, "because", error.status) if error else attempt(event)
    return operation, LookFailed(error), stored(event, noted(operation, note, **changes), error=error)


IN_DOUBT_AGAIN: dict[str, Any] = {"state": State.UNCONFIRMED, "due_at": NOW + 120}
LOOK_FAILED: dict[str, Row] = {
    "cannot look": look_failed(LATE, CANNOT_LOOK, Event.IN_DOUBT, state=State.NEEDS_REVIEW),
    "nothing is shown": look_failed(LATE, NOT_SHOWN, Event.IN_DOUBT, state=State.NEEDS_REVIEW),
    "cannot look after the vendor asked for time": (DEFERRED, LookFailed(CANNOT_LOOK), next_is(Next.SEND, DEFERRED)),
    "nothing is shown after the vendor asked for time": (DEFERRED, LookFailed(NOT_SHOWN), next_is(Next.SEND, DEFERRED)),
    "cannot look after a doubt before": look_failed(
        again(unconfirmed_since=VISIBLE), CANNOT_LOOK, Event.IN_DOUBT, state=State.NEEDS_REVIEW
    ),
    "the storage failed": look_failed(LATE, None, Event.LOOK_FAILED, **IN_DOUBT_AGAIN),
    "the storage failed after the vendor asked for time": look_failed(DEFERRED, None, Event.NOT_DONE, **WAITS_AGAIN),
    "another one comes first": (
        DEFERRED,
        LookFailed(NOT_YET),
        stored(
            Event.NOT_DONE, failed(DEFERRED, Event.NOT_DONE, NOT_YET, **WAITS_AGAIN), error=NOT_YET, waits_for="op_2"
        ),
    ),
    "another one comes first after a doubt": look_failed(LATE, NOT_YET, Event.LOOK_FAILED, **IN_DOUBT_AGAIN),
    **{
        f"{type(error).__name__} after a doubt": look_failed(LATE, error, Event.LOOK_FAILED, **IN_DOUBT_AGAIN)
        for error in (NOT_DONE, MAYBE_DONE, REFUSED, BROKEN, NO_SIGN_IN, LATER, MISSING)
    },
    **{
        f"{type(error).__name__} after the vendor asked for time": look_failed(
            DEFERRED, error, Event.NOT_DONE, **WAITS_AGAIN
        )
        for error in (NOT_DONE, MAYBE_DONE, REFUSED, BROKEN, NO_SIGN_IN, LATER, MISSING)
    },
}


@pytest.mark.parametrize(("operation", "happened", "expected"), LOOK_FAILED.values(), ids=LOOK_FAILED.keys())
def test_what_follows_a_failed_look_up(operation: Operation, happened: Happened, expected: Decision) -> None:
    check(operation, happened, expected)


# ---------------------------------------------------------------- which records may be its own


def at(seconds: float, zone: timezone | None = UTC) -> datetime:
    return (
        datetime.fromtimestamp(seconds, UTC).astimezone(zone)
        if zone
        else datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
    )


EARLIEST = NOW - 90 - POLICY.clock_skew


@pytest.mark.parametrize(
    ("created_at", "is_possible"),
    [
        (None, True),
        (at(EARLIEST), True),
        (at(EARLIEST - 1), False),
        (at(EARLIEST, timezone(timedelta(hours=14))), True),
        (at(EARLIEST - 1, timezone(timedelta(hours=-12))), False),
        (at(EARLIEST - 36 * 3600, None), True),
        (at(EARLIEST - 36 * 3600 - 1, None), False),
    ],
    ids=str,
)
def test_a_record_is_possible_if_it_is_not_older_than_clocks_and_zones_allow(
    created_at: datetime | None, is_possible: bool
) -> None:
    found = [record(created_at=created_at)]
    assert possible_matches(again(), found, POLICY) == (found if is_possible else [])


def test_a_time_without_a_zone_is_read_as_utc_wherever_the_function_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    too_old = record(created_at=at(EARLIEST - 36 * 3600 - 1, None))
    try:
        with monkeypatch.context() as patch:
            patch.setenv("TZ", "America/New_York")
            time.tzset()
            assert possible_matches(again(), [too_old], POLICY) == []
    finally:
        time.tzset()


def test_its_acceptance_counts_if_it_was_never_sent() -> None:
    young, old = (
        record(created_at=at(NOW - 100 - POLICY.clock_skew)),
        record(created_at=at(NOW - 101 - POLICY.clock_skew)),
    )
    assert possible_matches(again(first_sent_at=None), [young, old], POLICY) == [young]


def test_certain_records_come_first_in_the_vendors_order() -> None:
    found = [UNCERTAIN, CERTAIN, UNCERTAIN_TOO, CERTAIN_TOO]
    assert possible_matches(again(), found, POLICY) == [CERTAIN, CERTAIN_TOO, UNCERTAIN, UNCERTAIN_TOO]


# ---------------------------------------------------------------- what is stored for a person


def test_the_likeliest_records_are_stored_first_and_with_a_short_name() -> None:
    made_at = at(NOW)
    dated, named = record(1, certain=False, created_at=made_at), record(3, name="B" * 201)
    found = [UNCERTAIN, dated, NAMELESS, named, record(4, created_at=made_at), CERTAIN]
    assert candidates_of(found, POLICY) == (
        Candidate(id="4", name="", created_at=made_at.isoformat()),
        Candidate(id="3", name="B" * 200),
        SHOWN[7],
        Candidate(id="1", name="", created_at=made_at.isoformat()),
        SHOWN[9],
    )


def test_no_more_than_ten_records_are_stored() -> None:
    found = [record(number) for number in range(12)]
    assert [candidate.id for candidate in candidates_of(found, POLICY)] == [str(number) for number in range(10)]


# ---------------------------------------------------------------- held by a change


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.REJECTED])
def test_an_event_waits_in_the_place_of_one_that_a_change_holds(state: State) -> None:
    there = sending(
        state=state, attempts=attempts(Event.DONE), held=frozenset({"op_2"}), reserved="77#op_2", result="{}", tries=4
    )
    claimed = sending(lease="new", payload='{"new": true}', due_at=NOW + 60, lent_until=NOW + 60, tries=1)
    reason = "it waits for a change that came first"
    assert queued(claimed, there, NOW, POLICY) == noted(
        claimed.model_copy(update={"attempts": there.attempts}),
        attempt(Event.ACCEPTED, reason),
        state=State.WAITING,
        tries=0,
        due_at=NOW + 30,
        lent_until=None,
        first_sent_at=None,
        held=there.held,
        reserved=there.reserved,
        updated_at=claimed.updated_at,
    )

"""Dates that systems write where they know none, and dates that look like one and are real."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import BaseModel, ValidationError

from connector_receiver.models import PersonSave
from create_job.models import NewJob
from status_update.models import NewStatus, StatusChange

PERSON = {"firstname": "Ada", "lastname": "Nowak", "userStatus": "ACTIVE", "userType": "PROSPECT"}
JOB = {"ticket_id": "T-1", "name": "Leak", "site_id": 1}
SENTINELS = {
    "0001-01-01": ".NET's DateTime.MinValue",
    "1582-10-15": "the first Gregorian day",
    "1601-01-01": "Windows FILETIME",
    "1753-01-01": "SQL Server's datetime",
    "1858-11-17": "VMS",
    "1899-12-30": "OLE Automation, Excel and Access",
    "1899-12-31": "Excel's day 1, of those that know its leap year bug",
    "1900-01-01": "Excel, SQL Server's smalldatetime",
}
LATE = {"1904-01-01": "classic Mac OS", "1970-01-01": "Unix", "1980-01-01": "MS-DOS", "1999-12-31": "the day before"}


def refusal(model: type[BaseModel], members: dict[str, object]) -> str:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(members)
    (error,) = refused.value.errors()
    return f"{error['loc'][0]} {error['msg'].removeprefix('Value error, ')}"


@pytest.mark.parametrize("day", [*SENTINELS, "9999-12-31", "2079-06-06", "2100-01-01"])
def test_a_sentinel_is_refused_when_it_is_a_birth_date(day: str) -> None:
    said = refusal(PersonSave, {**PERSON, "birthdate": day})
    assert said == "birthdate must be after 1900-01-01 and not in the future; leave it out if it is not known"


def test_a_birth_date_is_accepted_when_somebody_could_be_born_then() -> None:
    today = datetime.now(UTC).date()
    for day in ("1900-01-02", "1904-01-01", "1970-01-01", "1980-01-01", "2000-01-01", str(today), "", " ", None):
        sent = PersonSave.model_validate({**PERSON, "birthdate": day})
        assert sent.birthdate == (day and day.strip())
    refusal(PersonSave, {**PERSON, "birthdate": str(today + timedelta(days=2))})


@pytest.mark.parametrize("field", ["trialStartDate", "trialEndDate"])
def test_a_sentinel_is_refused_when_it_is_a_day_of_a_trial(field: str) -> None:
    for day in (*SENTINELS, *LATE):
        assert refusal(PersonSave, {**PERSON, field: day}).startswith(f"{field} must not be before 2000;")
    for day in ("2000-01-01", "2026-11-30", "9999-12-31", ""):  # a trial may have no end
        PersonSave.model_validate({**PERSON, field: day})


@pytest.mark.parametrize("day", [*SENTINELS, *LATE])
def test_a_sentinel_is_refused_when_it_is_the_time_of_a_status(day: str) -> None:
    for time in ("T00:00:00Z", "T00:00:00.0000000Z", " 00:00:00+00:00", "T00:00:00-05:00", "T23:59:59Z"):
        said = refusal(NewStatus, {"status": "outage", "occurred_at": day + time})
        assert said == "occurred_at must not be before 2000; leave it out if it is not known"


def test_a_time_of_a_status_is_accepted_when_it_is_from_2000_in_utc() -> None:
    for time in ("2000-01-01T00:00:00Z", "1999-12-31T20:00:00-05:00"):
        assert NewStatus.model_validate({"status": "outage", "occurred_at": time}).occurred_at
    refusal(NewStatus, {"status": "outage", "occurred_at": "2000-01-01T00:00:00+01:00"})
    assert NewStatus.model_validate({"status": "outage", "occurred_at": None}).occurred_at is None


@pytest.mark.parametrize("day", [*SENTINELS, *LATE])
def test_a_sentinel_is_refused_when_a_job_is_due_then(day: str) -> None:
    for due in (day, f"{day}T00:00:00", f"{day}T00:00:00Z", f"{day}T00:00:00.0000000+02:00"):
        assert refusal(NewJob, {**JOB, "due_date": due}) == (
            "due_date must not be before 2000; leave it out if there is none"
        )
    for due in ("2026-11-30", "9999-12-31T23:59:59Z"):
        assert NewJob.model_validate({**JOB, "due_date": due}).due_date == due


def _update(occurred: str, arrived: str) -> int:
    members = {"service": "2", "status": 5, "occurred_at": occurred, "arrived_at": arrived}
    return StatusChange.model_validate(members).order


def test_statuses_are_in_the_order_of_their_times_then_of_their_arrival() -> None:
    in_order = [
        ("2026-11-30T08:00:00Z", "2026-11-30T08:00:09Z"),
        ("2026-11-30T08:00:01Z", "2026-11-30T08:00:02.000001Z"),
        ("2026-11-30T09:00:01+01:00", "2026-11-30T08:00:02.000002Z"),
        ("2026-11-30T08:00:01Z", "2026-12-01T00:00:00Z"),
        ("2026-11-30T08:00:01.000001Z", "2026-11-30T08:00:01.000001Z"),
        ("2026-11-30T08:05:00Z", "2026-11-30T08:01:00Z"),  # ahead, so it counts as of its arrival
        ("2026-11-30T08:04:00Z", "2026-11-30T08:01:01Z"),
    ]
    orders = [_update(*one) for one in in_order]
    assert orders == sorted(set(orders))
    assert len(str(_update("9999-12-30T00:00:00Z", "9999-12-30T00:00:00Z"))) <= 38  # DynamoDB's digits


def test_notes_have_no_control_characters_but_line_breaks() -> None:
    for text in ("a\x00b", "a\x07", "\x1b[31m", "a\x7fb", "a\x85b"):
        assert re.search("control characters", refusal(NewJob, {**JOB, "notes": text}))
    for accepted in ("", "a\tb\r\nc", "Ä 👩", None):
        assert NewJob.model_validate({**JOB, "notes": accepted}).notes == accepted

"""Times at which something happened in a CRM, as callers send them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator

from crm_bridge.errors import FieldError, InvalidError
from crm_bridge.fields import FIRST_YEAR, Schema

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AHEAD = timedelta(minutes=5)
"""So far a CRM's clock may be ahead of ours; what is further on is a mistake."""


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time that there is in UTC") from None


def _plausible(value: datetime) -> datetime:
    if value.year < FIRST_YEAR:
        raise ValueError(f"must not be before {FIRST_YEAR}; leave it out if it is not known")
    return value


def _written_out(value: object) -> object:
    # A number may be seconds or milliseconds; to guess wrong is to ignore news as older, or to refuse what is not.
    if not isinstance(value, datetime) and not (isinstance(value, str) and re.match("[0-9]{4}-", value)):
        raise ValueError("must be a time as in ISO 8601, with a zone: 2026-11-30T08:00:00Z")
    return value


type Time = Annotated[
    AwareDatetime,
    BeforeValidator(_written_out),
    Schema(),
    AfterValidator(_utc),
    Schema(),
    AfterValidator(_plausible),
    Schema(pattern="^[2-9]"),
]


def microseconds(time: datetime) -> int:
    """Return a time in epoch microseconds."""
    return (time - EPOCH) // timedelta(microseconds=1)


def expect_past(name: str, time: datetime, now: datetime) -> None:
    """Raise InvalidError, which names the field, if the time is in the future."""
    if time > now + AHEAD:
        raise InvalidError.of(FieldError(name, f"is in the future; here it is {now:%Y-%m-%dT%H:%M:%SZ}"))

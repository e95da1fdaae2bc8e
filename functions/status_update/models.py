"""What status_update takes and gives."""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from crm_bridge.clients.izzitup import ServiceStatus
from crm_bridge.fields import LONGEST_ID, Text, text_of_whole_number

_STATUSES = {key: status for status in ServiceStatus for key in (status.name.lower(), str(int(status)))}


def _status(value: object) -> object:
    known = _STATUSES.get(str(value).strip().lower()) if isinstance(value, str | int) else None
    if known is None:
        raise ValueError("must be operational, impaired or outage, or 5, 6 or 7")
    return known


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time that there is in UTC") from None


def _written_out(value: object) -> object:
    # A number may be seconds or milliseconds; to guess wrong is to ignore news as older, or to refuse what is not.
    if not isinstance(value, datetime) and not (isinstance(value, str) and re.match("[0-9]{4}-", value)):
        raise ValueError("must be a time as in ISO 8601, with a zone: 2026-11-30T08:00:00Z")
    return value


type Time = Annotated[AwareDatetime, BeforeValidator(_written_out), AfterValidator(_utc)]


type Service = Annotated[Text, BeforeValidator(text_of_whole_number), Field(max_length=LONGEST_ID)]
"""The id, key or name of a service."""


class NewStatus(BaseModel):
    """What is sent of a service."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    status: Annotated[ServiceStatus, BeforeValidator(_status), PlainSerializer(lambda status: status.name.lower())]
    occurred_at: Time | None = None
    """When it became so; without it, when it arrives here."""


class UpdateStatus(NewStatus):
    """The status that a service had from a time on."""

    service: Service
    occurred_at: Time
    counts_from: Time
    """The same, but not later than it arrived: a clock that is ahead must not hold back what follows."""


class UpdatedStatus(BaseModel):
    """The service as IzzitUp answered it, with its status by name; or `ignored`, and why."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str
    occurred_at: AwareDatetime

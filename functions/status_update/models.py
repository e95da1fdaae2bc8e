"""The requests, the command and the responses of status_update."""

from typing import Annotated, Literal, NotRequired, TypedDict

from pydantic import AwareDatetime, BeforeValidator, Field, PlainSerializer

from crm_bridge import Command, Result
from crm_bridge.fields import LONGEST_ID, Schema, Text, or_schema, text_of_whole_number
from crm_bridge.times import Time, microseconds
from crm_bridge.vendors.izzitup import ServiceStatus

_STATUSES = {key: status for status in ServiceStatus for key in (status.name.lower(), str(int(status)))}


def _status(value: object) -> object:
    known = _STATUSES.get(str(value).strip().lower()) if isinstance(value, str | int) else None
    if known is None:
        raise ValueError("must be operational, impaired or outage, or 5, 6 or 7")
    return known


def _status_schema(_: object) -> dict[str, object]:
    text = {"type": "string", "enum": ["operational", "impaired", "outage", "5", "6", "7"]}
    return {"anyOf": [text, {"type": "integer", "enum": [5, 6, 7]}]}


type Service = Annotated[
    Text,
    BeforeValidator(text_of_whole_number),
    Schema(or_schema({"type": "integer"})),
    Field(max_length=LONGEST_ID),
]
"""The id, key or name of a service."""


class NewStatus(Command):
    """What is sent of a service."""

    status: Annotated[
        ServiceStatus,
        BeforeValidator(_status),
        Schema(_status_schema),
        PlainSerializer(lambda status: status.name.lower()),
    ]
    occurred_at: Time | None = None
    """When it became so; without it, when it arrives here."""


class ServiceStatusSent(NewStatus):
    """The status that a service had from a time on, as a source says it: without the time, a repetition is another."""

    service: Service
    occurred_at: Time


class StatusChange(ServiceStatusSent):
    """The status that a service had from a time on."""

    arrived_at: Time
    """By the bridge's clock. It orders statuses of one time, and limits the effect of a clock that is ahead."""

    @property
    def order(self) -> int:
        """Number that is larger for a later status: later `occurred_at`, of two at one time the later arrival.

        A time that is ahead counts as the time of arrival, so that it does not hold back what follows.
        """
        at = min(self.occurred_at, self.arrived_at)
        return microseconds(at) * 10**17 + microseconds(self.arrived_at)


class StatusUpdated(Result):
    """The service as IzzitUp returned it, with its status by name; or `ignored`, and why."""

    id: str
    occurred_at: AwareDatetime
    status_name: Annotated[
        Literal["operational", "impaired", "outage"] | None, Field(exclude_if=lambda value: value is None)
    ] = None
    """Missing if it was ignored."""
    ignored: Annotated[Literal["older"] | None, Field(exclude_if=lambda value: value is None)] = None
    """Only there if something newer was applied already, and nothing was changed."""


class StatusPageService(TypedDict):
    """All members are text, as IzzitUp gives them."""

    id: str
    status: str
    status_name: Literal["operational", "impaired", "outage"] | None
    hidden: str
    name: NotRequired[str]
    key: NotRequired[str]
    description: NotRequired[str]
    url: NotRequired[str]
    curl: NotRequired[str]
    created: NotRequired[str]
    updated: NotRequired[str]


class Services(TypedDict):
    services: list[StatusPageService]

"""The requests and responses of operations."""

import re
from typing import Annotated, Literal, NotRequired, Self, TypedDict

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)

from crm_bridge.fields import (
    AnyId,
    Id,
    Input,
    JsonSchema,
    Schema,
    Text,
    composed,
    without_unseen,
    without_unseen_schema,
)
from crm_bridge.responses import Candidate, Exchange, LinkedRecord, Operation, OperationId, OperationSummary, Time
from crm_bridge.storage.changed_operations import CHANGED
from crm_bridge.storage.links import Identity
from crm_bridge.storage.operation import State
from operations.flows import flows

_NULL: JsonValue = {"type": "null"}
NAMES_WHAT_IS_LINKED: dict[str, JsonValue] = {
    "oneOf": [
        {"required": ["id"], "properties": {"action": {"const": "link"}, "id": {"not": _NULL}}},
        {
            "properties": {
                "action": {"enum": ["retry", "discard", "unlink"]},
                "id": _NULL,
                "confirmed": {"not": {"enum": [True, 1, "1", "true"]}},
            }
        },
    ]
}
"""The rules of the model's validator, as JSON Schema."""


class Resolution(Input):
    """What a person decided about an operation."""

    model_config = ConfigDict(json_schema_extra=NAMES_WHAT_IS_LINKED)

    action: Literal["link", "retry", "discard", "unlink"]
    id: Id | None = None
    """The vendor's id of the record that is to be linked."""
    confirmed: bool = False
    """With link: a person has compared the id a second time, because the vendor cannot verify it."""

    @model_validator(mode="after")
    def _names_what_is_linked(self) -> Self:
        if (self.action == "link") is (self.id is None):
            raise ValueError("give the vendor's id with link, and with nothing else")
        if self.confirmed and self.action != "link":
            raise ValueError("give confirmed with link, and with nothing else")
        return self


PLACE = rf"^({'|'.join([*State, CHANGED])})\.[0-9]{{1,10}}\.op_[0-9a-f]{{32}}$"


def _place(value: str) -> str:
    if not re.fullmatch(PLACE, value):
        raise ValueError("give what stood under next in the response before")
    return value


def _place_in_states(value: str) -> str:
    if value.startswith(f"{CHANGED}."):
        raise ValueError("belongs to a list with changed")
    return _place(value)


def _flow(value: str) -> str:
    if value not in flows():
        raise ValueError(f"must be one of {', '.join(sorted(flows()))}")
    return value


def _flow_names(schema: JsonSchema) -> JsonSchema:
    return {**schema, "enum": sorted(flows())}


TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})$"


def _written_out(value: object) -> object:
    # A number may be seconds or milliseconds.
    if not isinstance(value, str) or not re.fullmatch(TIME, value):
        raise ValueError("must be a time as in ISO 8601, with a zone: 2026-11-30T08:00:00Z")
    return value


FlowName = Annotated[str, AfterValidator(_flow), Schema(_flow_names)]
Since = Annotated[AwareDatetime, BeforeValidator(_written_out), Schema(pattern=TIME)]
Place = Annotated[str, AfterValidator(_place), Schema(pattern=PLACE)]


class Listing(Input):
    """What `GET /operations` may ask for."""

    id: (
        Annotated[
            str,
            Field(min_length=1, max_length=1000),
            BeforeValidator(composed),
            Schema(),
            BeforeValidator(without_unseen),
            Schema(without_unseen_schema),
        ]
        | None
    ) = None
    """Of the operation, of what it is about, or of what it is linked to."""
    state: State | None = None
    flow: FlowName | None = None
    since: Since | None = None
    """Leaves out what changed last before this time; with `changed`, whose event came last before it."""
    changed: bool = False
    """Only those whose event came again with a different payload that was not applied; that which came last is first.
    """
    limit: Annotated[int, Field(ge=1, le=100)] = 50
    after: Place | None = None


class RetryAll(Input):
    """Which operations are retried."""

    state: Literal["waiting", "unconfirmed", "needs_review"] | None = None
    """All three if it is left out."""
    flow: FlowName | None = None
    since: Since | None = None
    """Leaves out what changed last before this time."""
    text: Annotated[str, Field(max_length=200)] | None = None
    """In the event key, or in the reason of the last attempt, in whatever case."""
    after: Annotated[str, AfterValidator(_place_in_states), Schema(pattern=PLACE.replace(f"|{CHANGED}", ""))] | None = (
        None
    )
    """`next` of the response before."""
    dry_run: bool = False
    """Only say which ones."""


class LinkSearch(Input):
    """The record whose links are asked for."""

    system: Text
    """In whatever case: `crm`, `illu`."""
    entity: Text
    """In whatever case: `customer`, `site`."""
    id: AnyId

    @property
    def identity(self) -> Identity:
        return Identity(self.system.casefold(), self.entity.casefold(), self.id)


# ---------------------------------------------------------------------- responses


class OperationPage(TypedDict):
    operations: list[OperationSummary]
    next: str | None
    """For `after`; null at the end."""


class RetryPage(TypedDict):
    dry_run: bool
    operations: list[OperationSummary]
    """Those that are due from now on; with `dry_run` those that would be. What is due already, or on its queue, is not
    among them."""
    left_to_a_person: int
    """Those that need review and may have been done."""
    next: str | None
    """For `after`; null at the end. There may be more also if this page has none."""


class OperationDetails(Operation):
    """An operation for the person who decides about it."""

    candidates: list[Candidate]
    """While it needs review: up to ten records at the vendor that may be this event's."""
    exchanges: list[Exchange]
    payload: NotRequired[JsonValue]
    """As long as it is kept, and only for a key with the scope `operations:payload`."""


class StateSummary(TypedDict):
    count: int
    more: bool
    """Whether there are more than were counted."""
    flows: dict[str, int]


class HourSummary(TypedDict):
    hour: Time
    """When it begins."""
    states: dict[State, int]
    """How many operations changed last in it, by the state in which they are now."""


class VendorSummary(TypedDict):
    vendor: str
    """`webhook` is the tenant's own system."""
    state: Literal["responding", "failing", "nothing known"]
    """As far as the tenant's operations tell; nobody is asked."""
    last_success: Time | None
    last_failure: Time | None
    """Of what is still waiting or unconfirmed."""
    reason: str | None
    unsettled: int
    """How many are waiting or unconfirmed after an attempt."""
    next_attempt: Time | None
    """When the bridge takes up the first of them again."""


class Deployment(TypedDict):
    """Where the bridge runs, and for whom it answers."""

    tenant: str
    stage: str
    """As in the names of the stack and of its secrets."""
    region: str


class Summary(Deployment):
    """How a tenant's operations stand."""

    at: Time
    states: dict[State, StateSummary]
    hours: list[HourSummary]
    """The last 24, the oldest first."""
    vendors: list[VendorSummary]
    scopes: list[str]
    """What the key that asks may do."""


class Link(LinkedRecord):
    """A record that belongs to the one that was asked for."""

    operation_id: OperationId
    linked_at: Time


class Links(TypedDict):
    links: list[Link]

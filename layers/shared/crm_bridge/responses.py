"""Bodies of responses and webhooks: the types of what the code returns, of which docs/openapi.json is made.

They are TypedDicts, because the bodies are made as dictionaries: mypy compares the two, and nothing is built for it.
"""

from typing import Annotated, Literal, NotRequired, TypedDict

from pydantic import Field, JsonValue, WithJsonSchema

from crm_bridge.errors import Event
from crm_bridge.storage.operation import State
from crm_bridge.storage.requests import RequestState

OPERATION_ID = "^op_[0-9a-f]{32}$"
type OperationId = Annotated[str, Field(pattern=OPERATION_ID)]
REQUEST_ID = "^req_[0-9a-f]{32}$"
type RequestId = Annotated[str, Field(pattern=REQUEST_ID)]
Time = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""ISO 8601 in UTC."""


# ---------------------------------------------------------------------- of an event


class Processed(TypedDict):
    """In every response to an event, besides its result."""

    operation_id: OperationId
    changed: NotRequired[Literal[True]]
    """Only there if the event was accepted before with a different payload."""
    applied: NotRequired[bool]
    """Only there if `changed`: whether this payload changes what the first one made. If so, `operation_id` and `state`
    are those of that change; if not, it was not sent."""
    not_applied: NotRequired[str]
    """Only there if it is not `applied`: why, and what to do."""
    warnings: NotRequired[list[str]]


class Accepted(Processed):
    """The event is stored, and not settled yet. Do not send another one."""

    state: Literal["waiting", "unconfirmed", "needs_review", "sending"]
    """The first two go on by themselves, at `due_at`; `needs_review` waits for a person."""
    due_at: Time | None
    reason: NotRequired[str]
    """Why it is not settled; missing if `changed`."""


# ---------------------------------------------------------------------- of operations


class Attempt(TypedDict):
    """One thing that was tried for an operation."""

    at: Time
    event: Event
    reason: str
    vendor_status: int | None
    """The vendor's HTTP status, if it gave one."""


class Changed(TypedDict):
    """That an event came again with a different payload, which was not applied."""

    at: Time
    """When it did last."""
    times: int
    """How often a payload came that differed from the one before."""


class Call(TypedDict):
    """One request to a vendor."""

    at: Time
    """When it began."""
    method: str
    path: str
    """Below the vendor's address, without the query."""
    status: int | None
    error: str | None
    """The kind of error, if no whole response came."""
    milliseconds: int


class Exchange(TypedDict):
    """The calls between the bridge and a vendor in one attempt."""

    at: Time
    """As in `attempts`."""
    event: Event
    calls: list[Call]
    """The latest ten, the oldest first."""
    left_out: int
    """How many came before them."""
    request: NotRequired[str | None]
    """The body of the last call of a failed attempt, its secrets masked, cut at 2,048 characters; only for a key with
    the scope `operations:payload`."""
    response: NotRequired[str | None]
    """The response, in the same way."""


class OperationSummary(TypedDict):
    """An operation in a list."""

    operation_id: OperationId
    flow: str
    event_key: str
    """What makes the event itself unique."""
    state: State
    last_attempt: Attempt | None
    due_at: Time | None
    created_at: Time
    updated_at: Time
    changed: NotRequired[Changed]
    """Only there if it is so, and not in a list of operations in one state."""


class InvalidField(TypedDict):
    field: str
    message: str


class RequestSummary(TypedDict):
    """A request that was refused, or an event in quarantine."""

    id: RequestId
    state: RequestState
    received_at: Time
    route: str
    sender: str
    """The API key's label, or the source's name."""
    ids: list[str]
    """Those that it carried."""
    status: int
    """The response to its caller; of an event in quarantine, what it would have been without quarantine."""
    problem: str
    """The kind of problem, as at the end of a problem's `type`."""
    errors: list[InvalidField]
    request_id: str
    """By which the log knows it."""
    operation_id: str | None
    """The operation that it was about, or that it became when it was sent again."""


class LinkedRecord(TypedDict):
    """The id of a record in a system."""

    system: str
    entity: str
    id: str


class Operation(OperationSummary):
    """An operation with its attempts, its result and its links."""

    attempts: list[Attempt]
    mapping: str | None
    """What made the command out of what the CRM sent, if it was a mapping."""
    result: dict[str, JsonValue] | None
    links: list[Annotated[list[LinkedRecord], Field(min_length=2, max_length=2)]]


class Candidate(TypedDict):
    """A record at the vendor that may be what an operation made."""

    id: str
    created_at: str | None
    """As the vendor shows it; without a zone if it gives none."""
    name: NotRequired[str]
    """As the vendor shows it, cut at 200 characters; only for a key with the scope `operations:payload`."""


# ---------------------------------------------------------------------- of mappings


class ShownSample(TypedDict):
    """A payload, and what a mapping shall make of it."""

    name: str
    payload: NotRequired[JsonValue]
    """This and `command` only for a key with the scope `operations:payload`."""
    command: NotRequired[dict[str, JsonValue]]


class ShownMapping(TypedDict):
    """A mapping as it is stored."""

    name: str
    """The flow's, or the source's and the number of the entry in its `events`: `hubspot/0`."""
    flow: str
    when: str | None
    """Which events of a source it is for."""
    is_readable: bool
    """False if this function may not read the settings that it is in; then all that follows is unknown."""
    version: str | None
    """As operations show it; null if there is none."""
    expression: str | None
    stored_at: Time | None
    """Null if it is unknown: only the command line writes it down."""
    samples: list[ShownSample]


class MappingDifference(TypedDict):
    """A member of the command that comes out otherwise."""

    field: str
    active: NotRequired[JsonValue]
    """As the stored mapping makes it, or a sample expects it; null if it is not there. Of a sample only for a key with
    the scope `operations:payload`, as `tried`."""
    tried: NotRequired[JsonValue]


class CheckedSample(TypedDict):
    """What the mapping makes of a sample."""

    name: str
    is_as_expected: bool
    errors: list[InvalidField]
    differences: list[MappingDifference]


class MappingTrial(TypedDict):
    """What a mapping makes of a payload. Nothing was stored or sent."""

    name: str | None
    """The mapping, as in `mappings`; null if no entry of the source is for this event, so that it would be ignored."""
    flow: str | None
    version: str | None
    """`tried` for an expression that was only tried."""
    command: dict[str, JsonValue] | None
    """Null if the expression fails."""
    is_valid: bool
    errors: list[InvalidField]
    """The members of the command that are wrong or unknown, or the function that fails and its place."""
    not_read: list[str]
    """Members of the payload that no expression reads, at most 50."""
    differences: list[MappingDifference]
    """From what the stored mapping makes of the same payload."""
    samples: list[CheckedSample]


class Mappings(TypedDict):
    """The mappings that the tenant has, and the result of a trial."""

    mappings: list[ShownMapping]
    used_after: int
    """Seconds after which every function uses a version that was stored."""
    trial: MappingTrial | None


class SettledOperation(TypedDict):
    """The webhook about an operation whose caller received 202."""

    type: Literal["operation.succeeded", "operation.rejected", "operation.needs_review"]
    timestamp: Time
    data: Operation


# ---------------------------------------------------------------------- of what went wrong


class ExplainedMapping(TypedDict):
    """What came in and what the mapping made of it, as kinds of values."""

    label: str
    expression: str | None
    received: JsonValue
    yielded: JsonValue


class Problem(TypedDict):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    """What to do. It never repeats what was sent, unless in the words of a vendor."""
    retryable: bool
    """Whether the same request may get another response later."""
    request_id: str
    """As in the header `X-Request-Id`: by it the request is found in the bridge's log."""
    doc_url: Annotated[str, Field(json_schema_extra={"format": "uri-reference"})]
    """What the type means and what to do, in this documentation."""
    operation_id: NotRequired[OperationId]
    errors: NotRequired[list[InvalidField]]
    mapping: NotRequired[ExplainedMapping]

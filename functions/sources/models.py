"""The parameters and responses of the routes of requests."""

from typing import Annotated, NotRequired, TypedDict

from pydantic import AwareDatetime, Field, JsonValue

from crm_bridge.fields import Input
from crm_bridge.responses import RequestSummary, Time
from crm_bridge.storage.requests import RequestState

PLACE = "^[0-9a-f]{32}$"


class RequestListing(Input):
    """What `GET /requests` may ask for."""

    id: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """Of the request, or one that it carried."""
    state: RequestState | None = None
    status: Annotated[int, Field(ge=400, le=599)] | None = None
    route: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """As `POST /jobs`."""
    since: Annotated[AwareDatetime | None, Field(alias="from")] = None
    until: Annotated[AwareDatetime | None, Field(alias="to")] = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50
    after: Annotated[str, Field(pattern=PLACE)] | None = None


class RequestPage(TypedDict):
    requests: list[RequestSummary]
    next: str | None
    """For `after`; null at the end."""


class RequestDetails(RequestSummary):
    """A request for the person who looks into it."""

    shape: JsonValue
    """The body with kinds in place of values; null if it could not be read."""
    mapping: str | None
    """What did not make a valid command of an event."""
    event_key: str | None
    """What names an event at its source."""
    changed_by: str | None
    """Who sent it again or discarded it."""
    expires_at: Time
    payload: NotRequired[JsonValue]
    """Of an event in quarantine, and only for a key with the scope `operations:payload`."""


class TakenIn(TypedDict):
    """What the bridge made of the events of a request."""

    stored: int
    repeated: int
    """They were there before, or are in the request twice."""
    quarantined: int
    ignored: int
    """The source has no entry for them."""

"""What the API answers, as models, where the functions make it of dictionaries.

Members that may be missing have a default; those of a vendor, which the bridge passes on as they come, are allowed.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from connector_receiver.models import LeadSource
from create_job.models import CreatedJob
from create_site.models import CreatedSite
from crm_bridge.errors import Event
from crm_bridge.operations import State
from crm_bridge.vendors.egito_settings import StaffMember
from key_link.models import StoredKeyLink
from status_update.models import UpdatedStatus

OPERATION_ID = "^op_[0-9a-f]{32}$"
type OperationId = Annotated[str, Field(pattern=OPERATION_ID)]


class Shown(BaseModel):
    """A document of the bridge's own."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Answer(Shown):
    """Of every event."""

    operation_id: OperationId


class SiteAnswer(CreatedSite, Answer):
    """The ids, and the operation. The response that made the site also has illu's own members, as they came."""

    changed: Literal[True] = True
    """Only there if the event was processed before with a different payload, and this one was not sent."""
    warnings: tuple[str, ...] = ()


class JobAnswer(CreatedJob, Answer):
    """The ids, and the operation. The response that made the job also has illu's own members, as they came."""

    changed: Literal[True] = True
    """Only there if the event was processed before with a different payload, and this one was not sent."""
    warnings: tuple[str, ...] = ()


class KeyLinkAnswer(StoredKeyLink, Answer):
    """Rev.io's own members as they came, the names that belong to its ids, and the operation."""


class StatusAnswer(UpdatedStatus, Answer):
    """The service as IzzitUp answered it, and the operation."""


class Accepted(Answer):
    """It is kept, and not settled yet: do not send another."""

    state: Literal["waiting", "unconfirmed", "needs_review", "sending"]
    """The first two go on by themselves, at `due_at`; `needs_review` waits for a person."""
    due_at: datetime | None
    reason: str = ""
    """Why it is not settled; missing if `changed`."""
    changed: Literal[True] = True
    """Only there if the event was accepted before with a different payload, and this one was not."""
    warnings: tuple[str, ...] = ()


class PersonAnswer(Answer):
    """What became of a save."""

    result: Literal["INFO", "WARNING"]
    message: str
    """A sentence for the club's staff."""
    recordID: str = Field(pattern="^p_[0-9a-f]{32}$")  # noqa: N815 - the Connector's name for our id
    warnings: tuple[str, ...] = ()


class AcceptedPerson(PersonAnswer, Accepted):
    """It is kept, and saved as soon as Egito takes it."""

    result: Literal["WARNING"]


class LeadSourceAnswer(LeadSource, Shown):
    """The lead source as it is now."""

    result: Literal["INFO"]
    message: str
    active: bool
    operation_id: OperationId = ""
    """Missing if it was there already, or is kept by the bridge alone."""
    changed: Literal[True] = True
    """Only there if it was made before with a name that is written in another way."""
    warnings: tuple[str, ...] = ()


class AcceptedLeadSource(Accepted):
    """It is kept, and saved as soon as Egito takes it."""

    result: Literal["WARNING"]
    message: str


class KeyLinkPage(Shown):
    key_links: list[StoredKeyLink]
    page: int
    page_size: int
    has_more: bool


class Named(Shown):
    id: int
    name: str


class Systems(Shown):
    systems: list[Named]


class EntityTypes(Shown):
    entity_types: list[Named]


class Service(Shown):
    """All members are text, as IzzitUp gives them."""

    id: str
    status: str
    status_name: Literal["operational", "impaired", "outage"] | None
    hidden: str
    name: str = ""
    key: str = ""
    description: str = ""
    url: str = ""
    curl: str = ""
    created: str = ""
    updated: str = ""


class Services(Shown):
    services: list[Service]


class Staff(Shown):
    staff: list[StaffMember]


class KeptLeadSource(LeadSource):
    active: bool


class LeadSources(Shown):
    leadSources: list[KeptLeadSource]  # noqa: N815 - as the Connector writes it


class TurnUpClub(Shown):
    clubID: str  # noqa: N815
    connectorID: str | None  # noqa: N815


class TurnUp(Shown):
    clientID: str  # noqa: N815
    scheme: str
    host: str | None
    user: str
    clubs: list[TurnUpClub]


class ComparedMap(Shown):
    """Names only; no value is shown."""

    entity: str
    compared: bool
    missing: list[str]
    """Fields that Egito's record lacks."""
    notMapped: list[str]  # noqa: N815
    """Fields of the record that nothing is sent to."""


class Maps(Shown):
    prospect: ComparedMap
    member: ComparedMap


class Counted(Shown):
    count: int | None
    reason: str = ""
    """Why it could not be counted."""


class Checked(Shown):
    """What the turn-up settled, and whether the maps fit."""

    turnUp: TurnUp  # noqa: N815
    maps: Maps
    staff: Counted
    leadSources: Counted  # noqa: N815


class ShownAttempt(Shown):
    at: AwareDatetime
    event: Event
    reason: str
    vendor_status: int | None
    """The vendor's HTTP status, if it gave one."""


class ListedOperation(Shown):
    operation_id: OperationId
    flow: str
    event_key: str
    """What makes the event itself unique."""
    state: State
    last_attempt: ShownAttempt | None
    due_at: AwareDatetime | None
    created_at: AwareDatetime
    updated_at: AwareDatetime


class OperationPage(Shown):
    operations: list[ListedOperation]
    next: str | None
    """For `after`; null at the end."""


class StateSummary(Shown):
    count: int
    more: bool
    """Whether there are more than were counted."""
    flows: dict[str, int]


class Hour(Shown):
    hour: AwareDatetime
    """When it begins."""
    states: dict[State, int]
    """How many operations changed last in it, by the state in which they are now."""


class VendorSummary(Shown):
    vendor: Literal["illu", "Rev.io", "IzzitUp", "Egito", "webhook"]
    """The last is the tenant's own system."""
    state: Literal["answering", "failing", "nothing known"]
    """As far as the tenant's operations tell; nobody is asked."""
    last_success: AwareDatetime | None
    last_failure: AwareDatetime | None
    """Of what is still waiting or unconfirmed."""
    reason: str | None
    unsettled: int
    """How many are waiting or unconfirmed."""


class Summary(Shown):
    at: AwareDatetime
    states: dict[State, StateSummary]
    hours: list[Hour]
    """The last 24, the oldest first."""
    vendors: list[VendorSummary]
    scopes: list[str]
    """What the key that asks may do."""


class LinkedIdentity(Shown):
    system: str
    entity: str
    id: str


class ShownOperation(ListedOperation):
    attempts: list[ShownAttempt]
    mapping: str | None
    """What made the command out of what the CRM sent, if it was a mapping."""
    result: dict[str, JsonValue] | None
    links: list[Annotated[list[LinkedIdentity], Field(min_length=2, max_length=2)]]


class ShownCandidate(Shown):
    id: str
    created_at: str | None
    """As the vendor shows it; without a zone if it gives none."""
    name: str = ""
    """As the vendor shows it, cut at 200 characters; only for a key with the scope `operations:payload`."""


class ShownOperationWithPayload(ShownOperation):
    candidates: list[ShownCandidate]
    """While it needs review: up to ten records at the vendor that may be this event's, for the person who decides."""
    payload: JsonValue = None
    """As long as it is kept, and only for a key with the scope `operations:payload`."""


class LinkedPartner(LinkedIdentity):
    operation_id: OperationId
    linked_at: AwareDatetime


class Partners(Shown):
    links: list[LinkedPartner]


class Told(Shown):
    """What became of an operation whose caller was answered 202."""

    type: Literal["operation.succeeded", "operation.rejected", "operation.needs_review"]
    timestamp: AwareDatetime
    data: ShownOperation


class WrongField(Shown):
    field: str
    message: str


class ExplainedMapping(Shown):
    """What came in and what was made of it, as kinds of values."""

    label: str
    expression: str | None
    received: JsonValue
    yielded: JsonValue


class Problem(Shown):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    """What to do. It never repeats what was sent, unless in the words of a vendor."""
    retryable: bool
    """Whether the same request may be answered otherwise later."""
    operation_id: OperationId = ""
    errors: tuple[WrongField, ...] = ()
    mapping: ExplainedMapping | None = None


class ConnectorProblem(Problem):
    """A problem as the Connector's routes tell it."""

    result: Literal["ERROR"]
    message: str
    """A sentence for the club's staff."""
    recordID: str = ""  # noqa: N815


class GatewayMessage(Shown):
    """API Gateway's own answer, when no function was asked, or none answered."""

    message: str

"""The responses of connector_receiver, with the Connector's names; docs/openapi.json is made of them."""

# ruff: noqa: N815

from typing import Annotated, Literal, NotRequired, TypedDict

from pydantic import Field

from connector_receiver.models import PERSON_ID, LeadSource
from crm_bridge.responses import Accepted, OperationId, Problem, Processed
from crm_bridge.vendors.egito_settings import StaffMember


class PersonSaved(Processed):
    """What became of a save."""

    result: Literal["INFO", "WARNING"]
    message: str
    """A sentence for the club's staff."""
    recordID: Annotated[str, Field(pattern=PERSON_ID)]


class PersonAccepted(Accepted):
    """The save is stored, and sent as soon as Egito takes it."""

    result: Literal["WARNING"]
    message: str
    """A sentence for the club's staff."""
    recordID: Annotated[str, Field(pattern=PERSON_ID)]


class LeadSourceSaved(TypedDict):
    """The lead source as it is now."""

    id: str
    name: str
    active: bool
    result: Literal["INFO"]
    message: str
    operation_id: NotRequired[OperationId]
    """Missing if it was there already, or is kept by the bridge alone."""
    changed: NotRequired[Literal[True]]
    """Only there if it was made before with a name that is written in another way."""
    applied: NotRequired[bool]
    """Only there if `changed`; false."""
    not_applied: NotRequired[str]
    """Only there if `changed`: why this name was not applied, and what to do."""
    warnings: NotRequired[list[str]]


class LeadSourceAccepted(Accepted):
    """The lead source is stored, and sent as soon as Egito takes it."""

    result: Literal["WARNING"]
    message: str


class LeadSources(TypedDict):
    leadSources: list[LeadSource]


class Staff(TypedDict):
    staff: list[StaffMember]


class ClubIds(TypedDict):
    clubID: str
    connectorID: str | None


class ConnectorClient(TypedDict):
    """How the Connector signs in, and for which clubs."""

    clientID: str
    scheme: str
    host: str | None
    user: str
    clubs: list[ClubIds]


class MapCheck(TypedDict):
    """Names only; no value is shown."""

    entity: str
    compared: bool
    missing: list[str]
    """Fields that Egito's record lacks."""
    notMapped: list[str]
    """Fields of the record that nothing is sent to."""


class MapChecks(TypedDict):
    prospect: MapCheck
    member: MapCheck


class Count(TypedDict):
    count: int | None
    reason: NotRequired[str]
    """Why it could not be counted."""


class ConnectorCheck(TypedDict):
    """The settings of the Connector, and whether the maps fit."""

    turnUp: ConnectorClient
    maps: MapChecks
    staff: Count
    leadSources: Count


class ConnectorProblem(Problem):
    """A problem as the Connector's routes return it."""

    result: Literal["ERROR"]
    message: str
    """A sentence for the club's staff."""
    recordID: NotRequired[str]

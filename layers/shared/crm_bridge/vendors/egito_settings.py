"""Settings of Egito: how to reach it, and what its entities and fields are called."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from crm_bridge.settings import LoginSecret, Prompt, Settings, VendorUrl


def _egito_user(value: str) -> str:
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", value) or value.casefold().endswith(".pl"):
        raise ValueError("must be the login and the application's name, without .pl: login@firma")
    return value


type EgitoName = Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_.]{0,99}$")]
type Scalar = str | int | bool | None


class FieldMap(Settings):
    """The field at Egito, and its values there. A value that is not listed is sent unchanged."""

    field: EgitoName
    """The field at Egito."""
    values: dict[str, Scalar] = {}
    """By the Connector's value: the value at Egito."""


def _field_map(value: object) -> object:
    return {"field": value} if isinstance(value, str) else value


def _known_fields(value: dict[str, FieldMap]) -> dict[str, FieldMap]:
    if unknown := sorted(set(value) - set(PERSON_FIELDS)):
        raise ValueError(f"{', '.join(unknown)} is no field of a person; those are {', '.join(PERSON_FIELDS)}")
    return value


PERSON_FIELDS: Mapping[str, str] = {
    "firstname": "firstName",
    "lastname": "lastName",
    "userType": "type",
    "userStatus": "status",
    "birthdate": "birthDate",
    "gender": "gender",
    "address1": "street",
    "address2": "street2",
    "city": "city",
    "zipcode": "zipCode",
    "state": "region",
    "country": "country",
    "email": "email",
    "mobile": "mobile",
    "homePhone": "phone",
    "workPhone": "workPhone",
    "company": "company",
    "trialStartDate": "trialStart",
    "trialEndDate": "trialEnd",
    "leadOwner": "ownerId",
    "leadSource": "source",
}
"""What the Connector sends of a person, and the field at Egito that it goes to unless a tenant says otherwise.

Egito's names are examples: its public pages print none. `GET /connector/clubs/{club_id}/check` compares them with a
real record. Source of the Connector's names: see docs/vendors/egito.md.
"""

type PersonMap = Annotated[
    dict[str, Annotated[FieldMap, BeforeValidator(_field_map, json_schema_input_type=str | FieldMap)]],
    AfterValidator(_known_fields),
    Field(min_length=1, json_schema_extra={"propertyNames": {"enum": [*PERSON_FIELDS]}}),
]


class PeopleMap(Settings):
    """The records at Egito of prospects, or of members."""

    entity: EgitoName = "Contact"
    """The entity at Egito. If members have another entity than prospects, a member gets a record of its own; if both
    have the same, the record's type changes."""
    fields: PersonMap = {name: FieldMap(field=field) for name, field in PERSON_FIELDS.items()}
    """From the Connector's field to Egito's: a name, or `field` and `values`. A field that is not in it is not sent."""
    defaults: dict[EgitoName, Scalar] = {}
    """Values of other fields of a new record."""
    reference: EgitoName | None = None
    """The field for the bridge's id of the person. By it the bridge finds a record whose response was lost. Without it,
    a person decides about such a record."""
    on_conversion: dict[EgitoName, Scalar] = {}
    """If prospects have another entity than members: values that a prospect's record gets when the person becomes a
    member."""

    def compared(self, record: Mapping[str, object], *others: str) -> tuple[list[str], list[str]]:
        """Return the fields of this map, and `others`, that a record lacks; and those of the record in neither."""
        mapped = {target.field for target in self.fields.values()}
        wanted = mapped | self.defaults.keys() | self.on_conversion.keys() | {*others}
        wanted |= {self.reference} if self.reference else set()
        return sorted(wanted - record.keys()), sorted(record.keys() - wanted - {"id"})


class StaffMember(Settings):
    """A user of Egito who may own a lead."""

    id: Annotated[str, Field(min_length=1, max_length=200)]
    """The id at Egito."""
    email: str | None = None
    """The Connector finds the owner of a lead by it."""
    name: str | None = None
    """Shown to the club's staff."""


class StaffMap(Settings):
    """Where the staff list comes from: an entity at Egito, if it shows one, or else a list here."""

    entity: EgitoName = "User"
    """The entity at Egito."""
    email: EgitoName = "email"
    """The field that has the e-mail address."""
    name: tuple[EgitoName, ...] = ("name",)
    """The fields that make up the name."""
    people: tuple[StaffMember, ...] | None = None
    """The staff. Egito is not asked then."""


class LeadSourceMap(Settings):
    """Where the lead sources are stored: in a dictionary of Egito, or else in the bridge."""

    dictionary: EgitoName | None = None
    """Type of the dictionary. People are then saved with the id of an entry, else with the lead source's name."""
    writable: bool = False
    """Whether the dictionary takes new entries through the API; Egito's pages do not say."""


class RecordMap(Settings):
    """Settings of one entity for a CRM's own events (`/records/{entity}`)."""

    reference: EgitoName | None = None
    """A text field at Egito that nothing else uses. It gets the event key of a new record. By it the bridge finds a
    record whose response was lost. Without it, a person decides about such a record."""
    update: Literal["ignore", "apply"] = "ignore"
    """Whether an event that comes again with other fields is applied. With `apply` they change the record, if the event
    has an `external_id` and `changed_at`; a payload that is older than what was applied is left out."""


class Paging(Settings):
    """How a list is asked for page by page. Egito documents no paging, so none is used unless it is named here."""

    page: EgitoName
    """The parameter that has the number of the page."""
    size: EgitoName
    """The parameter that has the number of records of a page."""
    first: int = Field(default=1, ge=0, le=1)
    """The number of the first page."""
    page_size: int = Field(default=100, ge=1, le=1000)
    """Records of a page."""


class EgitoSettings(Settings):
    """How to reach a tenant's Egito, and where its records and fields are. Source: https://egito.pl/pomoc/api"""

    model_config = ConfigDict(title="Egito (people of clubs)")
    block = "egito"

    base_url: Annotated[VendorUrl, Prompt("Address, https://NAME.egito.pl")]
    """`https://NAME.egito.pl`"""
    api_id: Annotated[str, Field(min_length=1, max_length=200), Prompt("Id of the API's client")]
    """Of a key set of its own: in Egito, Settings, Integrations and data, API."""
    api_secret: Annotated[LoginSecret, Prompt("Its secret")]
    """Of the same key set."""
    username: Annotated[str, AfterValidator(_egito_user), Prompt("User, as login@firma")]
    """The login and the application's name without `.pl`: `login@firma`. The bridge has this user's rights, so give
    the user only those that are needed."""
    password: Annotated[LoginSecret, Prompt("Password")]
    """Of the same user."""
    token_parameters: Literal["query", "body"] = "query"  # noqa: S105 - where they stand
    """The place of the credentials in a request for a token. Egito documents the query."""
    token_in: Literal["header", "query"] = "header"  # noqa: S105 - where it stands
    """The place of the token in a call. Egito does not document it."""
    body_format: Literal["json", "form"] = "json"
    """How a record is sent; both are documented."""
    paging: Paging | None = None
    """The names of the parameters for pages, if lists come in pages."""
    lists_everything: bool = False
    """Whether a list is sure to be complete, so that a record that is not in it does not exist."""
    search_lag: int = Field(default=120, ge=30, le=86_400)
    """Seconds after which a new record is sure to be in a list."""
    prospects: PeopleMap = PeopleMap()
    """The records at Egito of prospects."""
    members: PeopleMap = PeopleMap()
    """The records at Egito of members."""
    staff: StaffMap = StaffMap()
    """Where the staff list comes from."""
    lead_sources: LeadSourceMap = LeadSourceMap()
    """Where the lead sources are stored."""
    records: dict[EgitoName, RecordMap] = {name: RecordMap() for name in ("Account", "Contact", "Opportunity")}
    """By entity: the records that an API key with the scope `records` may read and write. The list replaces the
    default one, which has the entities on Egito's page; `{}` allows none."""

    @model_validator(mode="after")
    def _tell_prospects_from_members(self) -> Self:
        if self.prospects.entity == self.members.entity and self.prospects.on_conversion:
            raise ValueError("on_conversion is for prospects that are another entity than members")
        return self

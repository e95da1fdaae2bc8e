"""The requests of the Connector, and the commands and results of its flows.

What the Connector sends has the Connector's own tag names. Source: "Connector API Guide", see docs/vendors/egito.md.
"""

import re
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    StringConstraints,
)
from pydantic.alias_generators import to_camel

from crm_bridge import Command
from crm_bridge.fields import (
    FIRST_YEAR,
    Id,
    Input,
    Schema,
    Text,
    composed,
    or_schema,
    printable,
    printable_schema,
    text_of_whole_number,
)
from crm_bridge.vendors.egito_settings import PERSON_FIELDS

if TYPE_CHECKING:
    from connector_receiver.snapshots import Snapshot

LAST_SENTINEL = date(1900, 1, 1)
"""Systems that know no date of birth write one up to this, or one in the future: .NET 0001-01-01 and 9999-12-31,
SQL Server 1753-01-01 and 1900-01-01, Excel 1899-12-30. 1970-01-01 is accepted, because people were born that day."""


PERSON_ID = "^p_[0-9a-f]{32}$"
"""Our id of a person. The handler demands it."""


class UserType(StrEnum):
    PROSPECT = "PROSPECT"
    MEMBER = "MEMBER"
    EX_MEMBER = "EX-MEMBER"


_USER_TYPES = {re.sub("[^A-Z]", "", kind): kind for kind in UserType}


def _user_type(value: object) -> UserType:
    kind = _USER_TYPES.get(re.sub("[^A-Z]", "", value.upper())) if isinstance(value, str) else None
    if kind is None:
        raise ValueError(f"must be one of {', '.join(UserType)}")
    return kind


def _gender(value: str) -> str:
    if value not in ("M", "F", ""):
        raise ValueError("must be M or F")
    return value


def _country(value: str) -> str:
    if not re.fullmatch("([A-Z]{2})?", value):
        raise ValueError("must be two letters, as in PL")
    return value


def _none_if_empty(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _upper(value: object) -> object:
    return value.strip().upper() if isinstance(value, str) else value


def _day(value: str) -> str:
    if value and not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise ValueError("must be a date as in 1990-12-31")
    if value:
        try:
            date.fromisoformat(value)
        except ValueError:
            raise ValueError("must be a date that there is, as in 1990-12-31") from None
    return value


def _day_schema(_: object) -> dict[str, object]:
    return {"anyOf": [{"type": "string", "format": "date"}, {"const": ""}]}


def _birthday(value: str) -> str:
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)  # somewhere it is the next day already
    if value and not LAST_SENTINEL < date.fromisoformat(value) <= tomorrow:
        raise ValueError(f"must be after {LAST_SENTINEL} and not in the future; leave it out if it is not known")
    return value


def _trial_day(value: str) -> str:
    if value and date.fromisoformat(value).year < FIRST_YEAR:
        raise ValueError(f"must not be before {FIRST_YEAR}; leave it out if it is not known")
    return value


type Given = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=1000),
    BeforeValidator(composed),
    Schema(),
    BeforeValidator(text_of_whole_number),
    Schema(or_schema({"type": "integer"})),
    AfterValidator(printable),
    Schema(printable_schema),
]
"""Text that may be empty: then what was there is to be emptied. Left out, or null, it stays as it is."""
type Birthday = Annotated[
    Given,
    AfterValidator(_day),
    Schema(_day_schema),
    AfterValidator(_birthday),
    Schema(pattern="^($|20|19(?!00-01-01))", description="Not in the future."),
]
type TrialDay = Annotated[
    Given, AfterValidator(_day), Schema(_day_schema), AfterValidator(_trial_day), Schema(pattern="^($|[2-9])")
]
type PersonId = Annotated[
    Id | None,
    BeforeValidator(_none_if_empty),
    Schema(lambda _: {"anyOf": [{"type": "string", "pattern": PERSON_ID}, {"const": ""}, {"type": "null"}]}),
]
type ConnectorId = Annotated[Id | None, BeforeValidator(_none_if_empty), Schema(or_schema({"const": ""}))]
type Gender = Annotated[
    str,
    AfterValidator(_gender),
    Schema(lambda _: {"enum": ["M", "F", ""]}),
    BeforeValidator(_upper),
    Schema(),
]
type Country = Annotated[
    str, AfterValidator(_country), Schema(pattern="^([A-Z]{2})?$"), BeforeValidator(_upper), Schema()
]


class PersonSave(Input):
    """A prospect or a member, as the Connector sends one."""

    model_config = ConfigDict(alias_generator=to_camel)

    record_id: PersonId = Field(default=None, alias="recordID")
    """Ours, if the Connector was told it before."""
    uuid: ConnectorId = None
    """The Connector's own."""
    identifier: str | None = None
    client_id: str | None = Field(default=None, alias="clientID")
    club_id: str | None = Field(default=None, alias="clubID")
    firstname: Text
    lastname: Text
    user_status: Annotated[Literal["ACTIVE", "INACTIVE"], BeforeValidator(_upper), Schema()]
    user_type: Annotated[UserType, BeforeValidator(_user_type), Schema()]
    birthdate: Birthday | None = None
    gender: Gender | None = None
    address1: Given | None = None
    address2: Given | None = None
    city: Given | None = None
    zipcode: Given | None = None
    state: Given | None = None
    country: Country | None = None
    """ISO 3166, two letters."""
    email: Given | None = None
    mobile: Given | None = None
    home_phone: Given | None = None
    work_phone: Given | None = None
    company: Given | None = None
    trial_start_date: TrialDay | None = None
    trial_end_date: TrialDay | None = None
    lead_owner: Given | None = None
    """The id or the address of a staff member."""
    lead_source: Given | None = None
    """The id or the name of a lead source."""

    def fields(self) -> dict[str, str]:
        """Return the fields that were given, by the Connector's names."""
        given = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return {name: given[name] for name in PERSON_FIELDS if name in given}


class LeadSourceSave(Input):
    """A lead source, as the Connector sends one."""

    model_config = ConfigDict(alias_generator=to_camel)

    record_id: str | None = Field(default=None, alias="recordID")
    identifier: str | None = None
    client_id: str | None = Field(default=None, alias="clientID")
    club_id: str | None = Field(default=None, alias="clubID")
    name: Annotated[Text, Field(max_length=100)]
    active: bool | None = None


class Check(Input):
    """What `GET …/check` may ask for: records at Egito with which the maps are compared."""

    prospect: Id | None = None
    member: Id | None = None


class PersonToSave(Command):
    """A save of a person, which arrived at a time (epoch microseconds)."""

    club_id: str
    person_id: str
    fields: dict[str, str]
    arrived_at: int
    has_namesake: bool = False
    """Whether a person decides first if it is the one of the same name that is known."""
    _snapshot: "Snapshot | None" = PrivateAttr(default=None)
    """The reading of the person when it arrived; it is no part of the event."""

    def with_snapshot(self, snapshot: "Snapshot") -> Self:
        """Return it, to be claimed together with its `snapshot`."""
        command = self.model_copy()
        command._snapshot = snapshot  # noqa: SLF001 - its own
        return command

    @property
    def snapshot(self) -> "Snapshot | None":
        return self._snapshot


class NewPersonRecord(Command):
    """A person's record that there shall be at Egito."""

    person_id: str
    account: str
    """The Egito that it is in: another one's ids are other people."""
    entity: str
    fields: dict[str, JsonValue]
    has_namesake: bool = False


class NewLeadSource(Command):
    """An entry that there shall be in Egito's dictionary."""

    dictionary: str
    name: str


class LeadSourceName(Command):
    """A new name of an entry of Egito's dictionary, from a time on (epoch microseconds)."""

    dictionary: str
    id: str
    name: str
    asked_at: int


class Saved(BaseModel):
    """The response to a save. `result` and `message` end up in the Connector's log, before the club's staff."""

    model_config = ConfigDict(frozen=True)

    result: Literal["INFO", "WARNING"]
    message: str
    recordID: str  # noqa: N815 - the Connector's name for our id
    created: bool = False


class PersonRecord(BaseModel):
    """A person's record at Egito."""

    model_config = ConfigDict(frozen=True)

    entity: str
    id: str


class SharedRecord(PersonRecord):
    """A record that a person chose for somebody, and that may be linked to somebody else of the same name."""


class LeadSource(BaseModel):
    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    id: str
    name: str
    active: bool = True

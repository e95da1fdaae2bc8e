"""What key_link takes and gives."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from crm_bridge.fields import Id, Number, Text

LONGEST_NAME = 100
"""Bytes; with it, and `LONGEST_ID`, every key of our tables stays within DynamoDB's limits."""


def _short(value: str) -> str:
    if len(value.encode()) > LONGEST_NAME:
        raise ValueError(f"must have at most {LONGEST_NAME} bytes")
    return value


type Name = Annotated[Text, AfterValidator(_short)]


class KeyLink(BaseModel):
    """That a record of Rev.io is known in another system under another id."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    system: Name
    """As Rev.io names it, in whatever case: SALESFORCE."""
    entity_type: Name
    """The same: CUSTOMER."""
    internal_id: Number
    """Rev.io's id of the record."""
    external_id: Id
    """The other system's."""


class CarryKeyLink(BaseModel):
    """A key link that there shall be; or, with `id`, what that one shall be from now on: `link`, or gone."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    link: KeyLink | None
    id: Number | None = None
    asked_at: int = 0
    """When it was asked for (epoch microseconds), so that an earlier change does not undo it."""


class StoredKeyLink(BaseModel):
    """Rev.io's own members as they came, and the names that belong to its ids."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: int
    system: str | None
    entity_type: str | None
    internal_id: int
    external_id: str


class DeletedKeyLink(BaseModel):
    model_config = ConfigDict(frozen=True)

    id: int
    deleted: bool = True


class KeyLinkSearch(BaseModel):
    """What `GET /key-links` may ask for."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    external_id: Id | None = None
    internal_id: Number | None = None
    system: Name | None = None
    entity_type: Name | None = None
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    page_size: Annotated[int, Field(ge=1, le=500)] = 100

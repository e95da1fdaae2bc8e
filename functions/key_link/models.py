"""What key_link takes and gives."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from crm_bridge.fields import Id, Number, Text

LONGEST_NAME = 50
"""Characters; with it, and `LONGEST_ID`, every key of our tables stays within DynamoDB's limits."""

type Name = Annotated[Text, Field(max_length=LONGEST_NAME)]


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


class StoreKeyLink(KeyLink):
    """A key link that there shall be: a new one, or `id` changed to be it."""

    id: Number | None = None


class StoredKeyLink(BaseModel):
    """Rev.io's own members as they came, and the names that belong to its ids."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: int
    system: str | None
    entity_type: str | None
    internal_id: int
    external_id: str


class KeyLinkSearch(BaseModel):
    """What `GET /key-links` may ask for."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    external_id: Id | None = None
    internal_id: Number | None = None
    system: Name | None = None
    entity_type: Name | None = None
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    page_size: Annotated[int, Field(ge=1, le=500)] = 100

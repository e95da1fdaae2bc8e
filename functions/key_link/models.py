"""The requests, commands, results and responses of key_link."""

from typing import Annotated, TypedDict

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from crm_bridge import Command, Result
from crm_bridge.fields import Id, Input, Number, Schema, Text

LONGEST_NAME = 100
"""Bytes; with it, and `LONGEST_ID`, every key of our tables stays within DynamoDB's limits."""


def _short(value: str) -> str:
    if len(value.encode()) > LONGEST_NAME:
        raise ValueError(f"must have at most {LONGEST_NAME} bytes")
    return value


type Name = Annotated[
    Text, AfterValidator(_short), Schema(maxLength=LONGEST_NAME, description="The limit is in bytes.")
]


class KeyLink(Command):
    """That a record of Rev.io is known in another system under another id."""

    system: Name
    """As Rev.io names it, in whatever case: SALESFORCE."""
    entity_type: Name
    """The same: CUSTOMER."""
    internal_id: Number
    """Rev.io's id of the record."""
    external_id: Id
    """The other system's."""


class NewKeyLink(Command):
    """A key link that there shall be."""

    link: KeyLink
    asked_at: int = 0
    """When it was asked for (epoch microseconds)."""


class KeyLinkDeletion(Command):
    """A key link that there shall not be from now on."""

    id: Number
    asked_at: int
    """When it was asked for (epoch microseconds), so that an earlier change does not undo it."""


class KeyLinkChange(KeyLinkDeletion):
    """What a key link shall be from now on."""

    link: KeyLink


class StoredKeyLink(Result):
    """Rev.io's own members as they came, and the names that belong to its ids."""

    id: int
    system: str | None
    entity_type: str | None
    internal_id: int
    external_id: str


class DeletedKeyLink(BaseModel):
    """The key link is gone."""

    model_config = ConfigDict(frozen=True)

    id: int
    deleted: bool = True


class KeyLinkSearch(Input):
    """What `GET /key-links` may ask for."""

    external_id: Id | None = None
    internal_id: Number | None = None
    system: Name | None = None
    entity_type: Name | None = None
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    page_size: Annotated[int, Field(ge=1, le=500)] = 100


class KeyLinkPage(TypedDict):
    key_links: list[StoredKeyLink]
    page: int
    page_size: int
    has_more: bool


class NamedId(TypedDict):
    """Rev.io's id of a system or entity type."""

    id: int
    name: str


class Systems(TypedDict):
    systems: list[NamedId]


class EntityTypes(TypedDict):
    entity_types: list[NamedId]

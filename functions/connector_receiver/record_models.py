"""The records of Egito as callers send and get them, and the commands that change them.

Names of entities and fields are Egito's own, which its public pages do not list: docs/vendors/egito.md.
"""

from datetime import timedelta
from typing import Annotated, Literal, TypedDict

from pydantic import AfterValidator, Field, JsonValue, PlainSerializer, SerializationInfo

from crm_bridge import Command, Result
from crm_bridge.fields import COMPARED, Id, Input, Schema
from crm_bridge.times import EPOCH, Time
from crm_bridge.vendors.egito_settings import EgitoName

MOST_FIELDS = 200
MOST_CHANGED = 100
"""Each changed field has its own time in one DynamoDB expression, which may have 4 KB:
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html"""
LARGEST_PAGE = 200


def _without_id(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if "id" in value:
        raise ValueError("must not have id, which Egito gives; it stands in the address")
    return value


def _unless_compared(value: int, info: SerializationInfo) -> int:
    return 0 if info.context == COMPARED else value


_NO_ID = Schema(**{"not": {"required": ["id"]}})
type Fields = Annotated[
    dict[EgitoName, JsonValue], Field(min_length=1, max_length=MOST_FIELDS), AfterValidator(_without_id), _NO_ID
]
type ChangedFields = Annotated[
    dict[EgitoName, JsonValue], Field(min_length=1, max_length=MOST_CHANGED), AfterValidator(_without_id), _NO_ID
]


class RecordCreation(Command):
    """A new record. What makes the event unique is the header `Idempotency-Key`, or else `external_id`."""

    external_id: Id | None = None
    """The record's id in the CRM. It is linked to the one that Egito gives."""
    changed_at: Time | None = None
    """When the CRM last changed the record. A later payload of the same event is applied by it, if the tenant's
    `egito.records` says so. A `PUT` counts from its arrival, so if the CRM's clock is ahead, a payload goes before a
    `PUT` that arrives in the time by which it is ahead, at most five minutes."""
    fields: Fields


class RecordUpdate(Command):
    """The fields that change; all others stay as they are."""

    fields: ChangedFields


class RecordPage(Input):
    """Which part of a list is wanted."""

    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    page_size: Annotated[int, Field(ge=1, le=LARGEST_PAGE)] = 100


class NewRecord(Command):
    """A record to create at Egito. `key` makes the event unique."""

    entity: str
    key: str
    external_id: str | None = None
    changed_at: Time | None = None
    fields: dict[str, JsonValue]


class RecordChange(Command):
    """New values of some of a record's fields."""

    entity: str
    id: str = ""
    """Egito's id of the record; empty if the event that makes the record of the `external_id` comes first."""
    external_id: str | None = None
    """The CRM's id, if the change is the payload of an event that would have made the record."""
    fields: dict[str, JsonValue]
    asked_at: int
    """When it was asked for, or when the CRM made it, if there is an `external_id` (epoch microseconds)."""
    arrived_at: Annotated[int, PlainSerializer(_unless_compared)] = 0
    """When it arrived (epoch microseconds). It is no part of the event."""

    @property
    def order(self) -> int:
        """Return the place of this change among those of the record: by its time, then by its arrival."""
        return self.asked_at * 10**17 + self.arrived_at

    @property
    def new_record(self) -> NewRecord:
        """Return the event that this change is a later payload of, with this payload."""
        changed_at = EPOCH + timedelta(microseconds=self.asked_at)
        key = self.external_id or ""
        return NewRecord(entity=self.entity, key=key, external_id=key, changed_at=changed_at, fields=self.fields)


class RecordDeletion(Command):
    """A record to delete. `asked_at` is in epoch microseconds."""

    entity: str
    id: str
    asked_at: int


class StoredRecord(Result):
    """A record at Egito. Its fields are not kept in the bridge."""

    system: str
    """The host of this Egito, under which links name the record."""
    entity: str
    id: str
    changed_at: Annotated[Time | None, Field(exclude_if=lambda value: value is None)] = None
    """As the event that made it said."""


Ignored = Annotated[Literal["older"] | None, Field(exclude_if=lambda value: value is None)]


class ExistingRecord(StoredRecord):
    """A record that another event has made, and linked. `changed_at` is that of the latest payload of the two."""

    ignored: Ignored = None
    """Only there if this payload is older than the one that made the record, so that it changed nothing."""


class ChangedRecord(StoredRecord):
    """The record as changed; or `ignored`, and why."""

    ignored: Ignored = None
    """Only there if all of these fields were changed by a later request already, and nothing was changed."""


class EgitoRecord(TypedDict):
    """A record as Egito has it now."""

    entity: str
    id: str | None
    """None in a list whose records have no usable id."""
    fields: dict[str, JsonValue]


class RecordList(TypedDict):
    """A part of an entity's records."""

    records: list[EgitoRecord]
    page: int
    page_size: int
    has_more: bool


class DictionaryEntry(TypedDict):
    id: str
    name: str


class DictionaryEntries(TypedDict):
    """The values that a field may have."""

    type: str
    entries: list[DictionaryEntry]

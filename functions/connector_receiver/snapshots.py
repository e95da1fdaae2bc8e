"""Reads all of a person at once before a save is claimed, and claims the save in one transaction.

The transaction stores the person if that is new or changed, claims the save, and takes the person's turn. The turn is
taken only if nobody has had it since the row was read. So the records, which were read at once with the row, are what
they would be if they were read in the turn. `tests/models/people.py` is the model of this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from connector_receiver.lead_sources import document_key
from connector_receiver.models import PersonToSave, UserType
from connector_receiver.people import Recognised
from connector_receiver.person_records import making_id
from crm_bridge import Context
from crm_bridge.engine import REPLACEABLE
from crm_bridge.errors import OvertakenError
from crm_bridge.sequence import Turn, Turns
from crm_bridge.services import Services
from crm_bridge.storage.documents import Document
from crm_bridge.storage.dynamodb import Reading
from crm_bridge.storage.links import joined
from crm_bridge.storage.locks import Lock
from crm_bridge.storage.operation import Operation
from crm_bridge.storage.operations import Claim
from crm_bridge.vendors.egito import VENDOR
from crm_bridge.vendors.egito_settings import EgitoSettings

CLUB = "club"
"""The name of the club's fields, which every save sets besides its own."""


def row_of_person(person_id: str) -> str:
    """Return the name of the turns at a person's records."""
    return joined("connector person", person_id)


def turns_of_person(context: Context, person_id: str) -> Turns:
    """Return the turns at a person's records: one change at a time."""
    return Turns(context, row_of_person(person_id), VENDOR)


def times_of(command: PersonToSave) -> Mapping[str, int]:
    """Return the time of each field that a save sets (epoch microseconds)."""
    times = dict.fromkeys([*command.fields, CLUB], command.arrived_at)
    if command.fields["userType"] == UserType.PROSPECT:
        times["userType"] = 0  # nobody becomes a prospect again who was a member
    return times


@dataclass
class Snapshot:
    """All that was read of a person besides who it is.

    `operations` are those that make the records, by their ids. All of it counts as long as `turn` is not over.
    """

    row: Lock = field(default_factory=lambda: Lock("", 0))
    operations: Mapping[str, Operation | None] = field(default_factory=dict)
    lead_sources: Document | None = None
    turn: Turn | None = None
    recognised: Recognised | None = None

    def claim(self, context: Context, command: PersonToSave, operation: Operation, *, later: bool) -> Claim | None:
        """Store the person, claim or accept the save, and take the turn if it is free and the save is not for `later`.

        Raises OvertakenError if somebody has changed the person since; StorageError.
        """
        writes = list(self.recognised.writes(operation.operation_id)) if self.recognised else []
        turns = turns_of_person(context, command.person_id)
        taking = None if later else turns.taking(times_of(command), self.row, operation)
        while True:
            along = [*writes, *([taking[0]] if taking else [])]
            if not along:
                return None
            try:
                claim = context.operations.create(operation, over=REPLACEABLE, along=along)
            except OvertakenError as overtaken:
                if any(item is not None for item in overtaken.there[: len(writes)]):
                    raise
                taking = None  # somebody has had the turn since
                continue
            if taking and claim.won:
                context.ending = self.turn = taking[1]
            return claim


@dataclass
class SnapshotReader:
    """Reads all that a save of a person needs. `settings`: None if the tenant has none for Egito."""

    services: Services
    tenant: str
    settings: EgitoSettings | None
    has_lead_source: bool
    """Whether the save names one."""

    def __post_init__(self) -> None:
        key = document_key(self.tenant)
        self.lead_sources = [self.services.people.reading(key)] if self.has_lead_source else []

    def readings(self, person_id: str) -> Sequence[Reading[Any]]:
        """Return what is to be read at once with a person."""
        self._row = self.services.locks.reading(self.tenant, row_of_person(person_id))
        self._operations = {one: self.services.operations.reading(one) for one in self._making(person_id)}
        return [self._row, *self._operations.values()]

    def snapshot(self, recognised: Recognised) -> Snapshot:
        """Return what was read of the person that `readings` was called for last."""
        return self._snapshot(row=self._row.value, recognised=recognised)

    def read(self, person_id: str) -> Snapshot:
        """Read what a save needs that has the turn already."""
        self.readings(person_id)
        self.services.people.read_at_once(*self._operations.values(), *self.lead_sources)
        return self._snapshot()

    def _snapshot(self, **others: Any) -> Snapshot:
        operations = {one: reading.value for one, reading in self._operations.items()}
        return Snapshot(
            operations=operations, lead_sources=next((one.value for one in self.lead_sources), None), **others
        )

    def _making(self, person_id: str) -> Sequence[str]:
        """Return the ids of the operations that make the person's records."""
        if self.settings is None:
            return []
        maps, account = (self.settings.prospects, self.settings.members), self.settings.base_url
        return list(dict.fromkeys(making_id(self.tenant, person_id, account, one.entity) for one in maps))

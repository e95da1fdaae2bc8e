"""create_person_record: a person's record is made at Egito, and linked to the person."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from urllib.parse import urlsplit

from connector_receiver.models import NewPersonRecord, PersonRecord, SharedRecord
from connector_receiver.people import identity
from crm_bridge import Cardinality, Context, Create, Identity, Link, Match, Update
from crm_bridge.engine import DUE
from crm_bridge.errors import (
    CannotLookError,
    Event,
    FieldError,
    IncompleteSearchError,
    InvalidError,
    RefusedError,
    SeveralFoundError,
)
from crm_bridge.fields import may_have_become
from crm_bridge.storage.links import joined
from crm_bridge.storage.operation import Operation, State
from crm_bridge.vendors.egito import VENDOR, Egito, usable_id
from crm_bridge.vendors.egito_settings import EgitoSettings, PeopleMap

NOT_WHOLE = "Egito's list does not show it, and may not be whole (lists_everything)"
_NAMES = ("firstname", "lastname")


class CreatePersonRecord(
    Create[NewPersonRecord, Egito, PersonRecord], name="create_person_record", function="connector_receiver"
):
    update = Update("yes", "A person's record is changed by the saves of the person.")
    key_parts = ("person_id", "system", "entity")

    def key(self, command: NewPersonRecord) -> str:
        return joined(command.person_id, *kind(command.account, command.entity))

    def send(self, command: NewPersonRecord, vendor: Egito) -> PersonRecord:
        operation = self.context.operation
        has_waited = operation is None or operation.was is not None  # else the save has just asked, in its turn
        is_prospects = command.entity == vendor.settings.prospects.entity
        if is_prospects and has_waited and Records(self.context, vendor, command.person_id).has_become_a_member():
            # what it says goes into the member's record
            raise RefusedError("the person is a member by now, and needs no prospect's record", vendor=VENDOR)
        if command.has_namesake and not _is_decided(operation):
            raise SeveralFoundError(
                "somebody of this name is known in this club. Link the record of that person if it is the same one; "
                "else retry, and a new record is made",
                vendor=VENDOR,
            )
        return PersonRecord(entity=command.entity, id=vendor.create(command.entity, command.fields))

    def find(self, command: NewPersonRecord, vendor: Egito) -> Iterator[Match[PersonRecord]]:
        """Those that carry the person's id, if the tenant has a field for it; or of the name, what may be left of the
        id. Without a field for it Egito cannot be asked."""
        maps, field = _maps(command, vendor.settings), _reference(command, vendor.settings)
        if field is None:
            raise CannotLookError("Egito has no field for the bridge's id of a person (reference)", vendor=VENDOR)
        names = {
            one.fields[part].field for one in maps for part in _NAMES if part in one.fields
        } & command.fields.keys()
        for record in vendor.records(command.entity):
            record_id = usable_id(record)
            texts = {member: str(record.get(member) or "") for member in (*names, field)}
            certain = texts[field] == command.person_id
            altered = all(may_have_become(str(command.fields[member] or ""), text) for member, text in texts.items())
            if record_id and (certain or altered):
                shown = " ".join(filter(None, (texts[name] for name in sorted(names))))
                yield Match(PersonRecord(entity=command.entity, id=record_id), None, certain, record_id, shown)
        if not vendor.settings.lists_everything:
            raise IncompleteSearchError(NOT_WHOLE, vendor=VENDOR)

    def existing(self, command: NewPersonRecord, record_id: str) -> PersonRecord:
        record = SharedRecord if command.has_namesake else PersonRecord
        return record(entity=command.entity, id=record_id)

    def verify(self, command: NewPersonRecord, result: PersonRecord, vendor: Egito) -> str | None:
        """Raises InvalidError if it is another person's: unless the question was whether a namesake is this person,
        since then it may be."""
        record = vendor.record(command.entity, result.id)
        field = _reference(command, vendor.settings)
        if field is None:
            return "Egito has no field for the bridge's id of a person (reference)"
        theirs = str(record.get(field) or "")
        if theirs == command.person_id:
            return None
        is_others = theirs and not command.person_id.casefold().startswith(theirs.strip().casefold())
        if is_others and not isinstance(result, SharedRecord):
            raise InvalidError(
                "Egito's record with this id carries another person's id.",
                fields=[FieldError("id", "is the id of another person's record")],
            )
        return "Egito's record with this id does not carry the bridge's id of this person"

    def links(self, command: NewPersonRecord, result: PersonRecord) -> Sequence[Link]:
        record = Identity(*kind(command.account, command.entity), result.id)
        cardinality = Cardinality.MANY_TO_ONE if isinstance(result, SharedRecord) else Cardinality.ONE_TO_ONE
        return [Link(identity(command.person_id), record, cardinality)]


def kind(account: str, entity: str) -> tuple[str, str]:
    """Return system and entity of a record in the links. The system is this Egito: in another the same id is somebody
    else."""
    return urlsplit(account).netloc.casefold(), entity.casefold()


def making_id(tenant: str, person_id: str, account: str, entity: str) -> str:
    """Return the id of the operation that makes a person's record."""
    return CreatePersonRecord.operation_id(tenant, joined(person_id, *kind(account, entity)))


@dataclass
class Records:
    """A person's records, as the operations that make them say. `read` are those that were read, by their ids.

    Only a save that has the person's turn begins a record; what has begun goes on without it.
    """

    context: Context
    egito: Egito
    person_id: str
    read: dict[str, Operation | None] = field(default_factory=dict)

    def making(self, entity: str) -> Operation | None:
        """Return the operation that makes the record, or has made it. Raises StorageError."""
        operation_id = self._id(entity)
        if operation_id not in self.read:
            self.read[operation_id] = self.context.operations.get(operation_id)
        return self.read[operation_id]

    def making_by_now(self, entity: str) -> Operation | None:
        """Return the same, read again if it may have changed since. Raises StorageError."""
        making = self.making(entity)
        if making and making.state not in (State.SUCCEEDED, State.REJECTED):
            del self.read[self._id(entity)]
        return self.making(entity)

    def made(self, entity: str) -> None:
        """Forget the reading of a record that has been made since."""
        self.read.pop(self._id(entity), None)

    def id(self, entity: str) -> str | None:
        """Return the id of the record, if it is made. Raises StorageError."""
        return _made(self.making(entity))

    def has_become_a_member(self) -> bool:
        """Return whether a member's record is there or on its way, where members are another entity than prospects: so
        also if the save that converts has only got half way. Raises StorageError."""
        entity = self.egito.settings.members.entity
        if entity == self.egito.settings.prospects.entity:
            return False
        making = self.making(entity)
        is_made = _made(making) is not None
        return is_made or (making is not None and making.state in DUE | {State.NEEDS_REVIEW})

    def is_undecided(self) -> bool:
        """Return whether a person who was asked about has no record yet, and may still get one. Raises StorageError."""
        settings = self.egito.settings
        makings = [self.making(entity) for entity in (settings.prospects.entity, settings.members.entity)]
        return not any(making and making.state in (State.SUCCEEDED, State.REJECTED) for making in makings)

    def _id(self, entity: str) -> str:
        return making_id(self.context.tenant, self.person_id, self.egito.destination, entity)


def _made(making: Operation | None) -> str | None:
    if making is None or making.state is not State.SUCCEEDED or making.result is None:
        return None
    return PersonRecord.model_validate_json(making.result).id


def _is_decided(making: Operation | None) -> bool:
    """Return whether a person was asked about a namesake, and has decided that a new record is to be made.

    "Retry all" also retries what has failed for other reasons, before anybody was asked.
    """
    events = [attempt.event for attempt in making.attempts] if making else []
    return any(
        before in (SeveralFoundError.event, Event.UNLINKED) and event is Event.RETRY_REQUESTED
        for before, event in pairwise(events)
    )


def _maps(command: NewPersonRecord, settings: EgitoSettings) -> list[PeopleMap]:
    return [one for one in (settings.prospects, settings.members) if one.entity == command.entity]


def _reference(command: NewPersonRecord, settings: EgitoSettings) -> str | None:
    """Return the field of the record that carries the person's id, if the tenant has one for it."""
    return next((one.reference for one in _maps(command, settings) if one.reference in command.fields), None)

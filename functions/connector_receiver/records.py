"""create_record, change_record, delete_record: a CRM's own records at Egito, of any entity that the tenant allows.

Source: https://egito.pl/api/, which names the methods; docs/vendors/egito.md says what is assumed.
"""

from collections.abc import Iterator, Sequence, Set
from datetime import UTC, datetime

from connector_receiver.people import PERSON
from connector_receiver.person_records import NOT_WHOLE, kind
from connector_receiver.record_models import (
    MOST_CHANGED,
    ChangedRecord,
    ExistingRecord,
    NewRecord,
    RecordChange,
    RecordCreation,
    RecordDeletion,
    RecordUpdate,
    StoredRecord,
)
from connector_receiver.snapshots import turns_of_person
from crm_bridge import Change, Context, Create, Identity, Link, Match, Need, Update
from crm_bridge.errors import (
    CannotLookError,
    Event,
    FieldError,
    IncompleteSearchError,
    InvalidError,
    NeedlessError,
    NoSuchRecordError,
    NotDoneError,
    RefusedError,
)
from crm_bridge.fields import compared, may_have_become
from crm_bridge.ids import canonical
from crm_bridge.sequence import Turns
from crm_bridge.storage.links import joined
from crm_bridge.storage.operation import State, fingerprint
from crm_bridge.times import microseconds
from crm_bridge.vendors.egito import VENDOR, Egito, Record, usable_id
from crm_bridge.vendors.egito_settings import EgitoSettings

BY_PUT = "Change the record by PUT /records/{entity}/{id}."
NO_REFERENCE = "Egito has no field for the event's key (egito.records)"
DELETED = "deleted"
"""The name of a deletion in a record's row. A change has its fields there, each with a dot before its name."""


class CreateRecord(Create[NewRecord, Egito, StoredRecord], name="create_record", function="connector_receiver"):
    """A later payload of the event becomes a change of the record (`ChangeRecord`), if the tenant wants that."""

    update = Update(
        "if set",
        "It changes the record if egito.records has update: apply for the entity, and the event an external_id and "
        "changed_at. Otherwise PUT /records/{entity}/{id} changes it.",
    )
    event_route, event_model = "POST /records/{entity}", RecordCreation
    key_parts = ("entity", "key")

    def key(self, command: NewRecord) -> str:
        return joined(command.entity, command.key)

    def send(self, command: NewRecord, vendor: Egito) -> StoredRecord | Match[StoredRecord]:
        if command.external_id:
            ours, theirs = in_crm(command.entity, command.external_id), kind(vendor.destination, command.entity)
            if there := self.context.links.one(self.context.tenant, ours, *theirs):
                return Match(self._existing(command, ours, there, vendor))
        reference = _reference(command.entity, vendor)
        fields = command.fields | ({reference: command.key} if reference else {})
        return self._stored(command, vendor.create(command.entity, fields))

    def find(self, command: NewRecord, vendor: Egito) -> Iterator[Match[StoredRecord]]:
        """Those that carry the event's key, if the tenant has a field for it, are this event's.

        Without one, a person decides: nothing tells this event's record from another one with the same fields.
        """
        reference = _reference(command.entity, vendor)
        for record in vendor.records(command.entity):
            record_id = usable_id(record)
            if record_id and _may_be_its(record, command, reference):
                certain = reference is not None and _text(record.get(reference)) == command.key
                yield Match(self._stored(command, record_id), None, certain, record_id, f"{command.entity} {record_id}")
        if reference is None:
            raise IncompleteSearchError(NO_REFERENCE, vendor=VENDOR)
        if not vendor.settings.lists_everything:
            raise IncompleteSearchError(NOT_WHOLE, vendor=VENDOR)

    def existing(self, command: NewRecord, record_id: str) -> StoredRecord:
        return self._stored(command, record_id)

    def verify(self, command: NewRecord, result: StoredRecord, vendor: Egito) -> str | None:
        record, reference = vendor.record(command.entity, result.id), _reference(command.entity, vendor)
        if reference is None:
            raise CannotLookError(NO_REFERENCE, vendor=VENDOR)
        theirs = _text(record.get(reference))
        if theirs == command.key:
            return None
        if theirs and not may_have_become(command.key, theirs):
            raise InvalidError(
                "Egito's record with this id carries another event's key.",
                fields=[FieldError("id", "is the id of another event's record")],
            )
        return "Egito's record with this id does not carry the event's key"

    def links(self, command: NewRecord, result: StoredRecord) -> Sequence[Link]:
        if command.external_id is None or isinstance(result, ExistingRecord):
            return ()
        record = Identity(result.system, command.entity.casefold(), result.id)
        return [Link(in_crm(command.entity, command.external_id), record)]

    def _existing(self, command: NewRecord, ours: Identity, record: Identity, vendor: Egito) -> ExistingRecord:
        """Return the record that another event has made, changed by this payload if the tenant wants that.

        Raises NotYetError until the change is made, and what else `Context.require` raises.
        """
        as_of = self._as_of(ours, record)
        existing = ExistingRecord(system=record.system, entity=command.entity, id=record.id, changed_at=as_of)
        operation = self.context.operation
        assert operation
        change = change_of(command, vendor.settings, arrived_at=operation.created_at * 1_000_000, record_id=record.id)
        if isinstance(change, str):
            return existing
        if as_of and command.changed_at and command.changed_at < as_of:
            return existing.model_copy(update={"ignored": "older"})
        self.context.require(Need(ChangeRecord, "the change of the record that there is", command=change))
        return existing.model_copy(update={"changed_at": command.changed_at})

    def _as_of(self, ours: Identity, record: Identity) -> datetime | None:
        """Return how old the payload is that made a record; None if a person or an import has linked it."""
        partners = self.context.links.of(self.context.tenant, ours)
        made_by = next((partner.operation_id for partner in partners if partner.identity.is_same(record)), "")
        operation = self.context.operations.get(made_by) if made_by else None
        if operation is None or operation.flow != self.name or operation.result is None:
            return None
        made = StoredRecord.model_validate_json(operation.result)
        return made.changed_at or datetime.fromtimestamp(operation.created_at, UTC)

    def _stored(self, command: NewRecord, record_id: str) -> StoredRecord:
        system, _ = kind(self.context.settings.require(EgitoSettings).base_url, command.entity)
        return StoredRecord(system=system, entity=command.entity, id=record_id, changed_at=command.changed_at)


class ChangeRecord(Change[RecordChange, Egito, ChangedRecord], name="change_record", function="connector_receiver"):
    """One change of a record at a time. Of each field, the last change that was asked for counts.

    A change that is a later payload of the event that makes the record comes after that; and one that is older than the
    payload that made it is left out. `tests/models/updates.py` is a model of this.
    """

    event_route, event_model = "PUT /records/{entity}/{id}", RecordUpdate
    update = Update("yes", "Each request is an event of its own. Of each field, the last change counts.")
    key_parts = ("entity", "id", "asked_at", "fingerprint")

    def key(self, command: RecordChange) -> str:
        if command.external_id is None:
            return joined(command.entity, command.id, str(command.asked_at))
        said = fingerprint(compared(command))[:16]  # the CRM may have changed it twice at the same time, as it says
        return joined(command.entity, command.external_id, str(command.asked_at), said)

    def send(self, command: RecordChange, vendor: Egito) -> ChangedRecord:
        system, entity = kind(vendor.destination, command.entity)
        if command.id:
            return self._change(command, Identity(system, entity, command.id), vendor)
        made, as_of = self._made(command)
        if made.system != system:
            raise NeedlessError("the record was made at another Egito than the tenant names now", vendor=VENDOR)
        if command.asked_at < as_of:
            return ChangedRecord(system=system, entity=command.entity, id=made.id, ignored="older")
        return self._change(command, Identity(system, entity, made.id), vendor)

    def _made(self, command: RecordChange) -> tuple[StoredRecord, int]:
        """Return the record of which this is a later payload, and how old the payload that made it is (epoch
        microseconds); if that event was refused, this payload makes the record.

        Raises NotDoneError while that event is not done, RefusedError, NeedlessError.
        """
        need = Need(CreateRecord, "the record", command=command.new_record, since=command.asked_at)
        operation_id = need.operation_id(self.context.tenant)
        there = self.context.operations.get(operation_id)
        if there is None or there.state is not State.SUCCEEDED:
            self.context.require(need, read={operation_id: there})
            there = self.context.operations.get(operation_id)
        if there is None or there.state is not State.SUCCEEDED:
            raise NotDoneError("the record is being made", vendor=VENDOR)
        if there.result is None:
            raise NeedlessError("the data of the record's event were erased", vendor=VENDOR)
        made = StoredRecord.model_validate_json(there.result)
        return made, microseconds(made.changed_at) if made.changed_at else there.created_at * 1_000_000

    def _change(self, command: RecordChange, record: Identity, vendor: Egito) -> ChangedRecord:
        changed = ChangedRecord(system=record.system, entity=command.entity, id=record.id)
        turns, prefix = _turns(self.context, record)
        places = {f"{prefix}.{name}": name for name in command.fields}

        def work(fresh: Set[str]) -> ChangedRecord:
            changes = {name: command.fields[name] for place, name in places.items() if place in fresh}
            vendor.update(command.entity, record.id, changes)
            return changed

        done = turns.apply_each(dict.fromkeys(places, command.order), work)
        return done or changed.model_copy(update={"ignored": "older"})


class DeleteRecord(Change[RecordDeletion, Egito, StoredRecord], name="delete_record", function="connector_receiver"):
    update = Update("yes", "Each request is an event of its own. A record can be deleted once.")
    success = 204
    key_parts = ("entity", "id", "asked_at")

    def key(self, command: RecordDeletion) -> str:
        return joined(command.entity, command.id, str(command.asked_at))

    def send(self, command: RecordDeletion, vendor: Egito) -> StoredRecord:
        record = Identity(*kind(vendor.destination, command.entity), command.id)
        deleted = StoredRecord(system=record.system, entity=command.entity, id=command.id)
        turns, prefix = _turns(self.context, record)
        what = f"{prefix}{DELETED}"

        def work() -> StoredRecord:
            try:
                vendor.delete_record(command.entity, command.id)
            except RefusedError as error:
                # Egito also refuses what the user has no right to: a refusal alone does not say that it is gone.
                if not _is_missing(command, vendor):
                    raise
                if not (self._may_have_deleted_it() or turns.may_be_applied(what)):
                    raise NoSuchRecordError(error.message, vendor=VENDOR, status=error.status) from None
            self._unlink(command, record)
            return deleted

        return turns.apply(what, command.asked_at, work) or deleted

    def _may_have_deleted_it(self) -> bool:
        """Return whether an earlier call of this event may have deleted it, also one of which Egito said that it was
        not done."""
        operation = self.context.operation
        if operation is None:
            return False
        return operation.unconfirmed_since is not None or any(one.event is Event.NOT_DONE for one in operation.attempts)

    def _unlink(self, command: RecordDeletion, record: Identity) -> None:
        """Unlink it, so that the CRM can create it again. If the function is killed before that, the retry does it."""
        links, tenant = self.context.links, self.context.tenant
        for partner in links.of(tenant, record):
            is_ours = (partner.identity.system, partner.identity.entity) == ("crm", command.entity.casefold())
            pairs = [(partner.identity, record)] if is_ours else []
            if releases := links.releases(tenant, pairs, partner.operation_id):
                links.write(releases)


def _is_missing(command: RecordDeletion, vendor: Egito) -> bool:
    try:
        vendor.record(command.entity, command.id)
    except NoSuchRecordError:
        return True
    return False


def change_of(
    command: NewRecord, settings: EgitoSettings, *, arrived_at: int, record_id: str = ""
) -> RecordChange | str:
    """Return the change that a payload is if there is a record of its event already; or why it would not be applied.

    It arrived at `arrived_at` (epoch microseconds). `record_id` is Egito's, of a record that another event has made.
    """
    its_map = settings.records.get(command.entity)
    if its_map is None or its_map.update != "apply":
        return CreateRecord.update.text
    if command.external_id != command.key:
        return f"Only an event whose key is its external_id is applied as a change. {BY_PUT}"
    if command.changed_at is None:
        return f"Without changed_at the bridge does not know which payload is the later one. Send changed_at. {BY_PUT}"
    if len(command.fields) > MOST_CHANGED:
        return f"A change has at most {MOST_CHANGED} fields. {BY_PUT}"
    return RecordChange(
        entity=command.entity,
        id=record_id,
        external_id=command.external_id,
        fields=command.fields,
        asked_at=microseconds(command.changed_at),
        arrived_at=arrived_at,
    )


def in_crm(entity: str, external_id: str) -> Identity:
    """Return a record of the CRM as links name it."""
    return Identity("crm", entity.casefold(), external_id)


def _reference(entity: str, vendor: Egito) -> str | None:
    """Return the field that carries the event's key, if the tenant has one for it."""
    its_map = vendor.settings.records.get(entity)
    return its_map.reference if its_map else None


def _may_be_its(record: Record, command: NewRecord, reference: str | None) -> bool:
    """Return whether a record may be the one that the command made, whatever Egito made of its texts.

    A record that carries no key may be this one whose key was not kept, but only if its texts fit.
    """
    if reference and (key := _text(record.get(reference))).strip():
        return may_have_become(command.key, key)
    texts = {name: value for name, value in command.fields.items() if isinstance(value, str)}
    return all(may_have_become(text, _text(record.get(name))) for name, text in texts.items())


def turns_of_record(record: Identity) -> str:
    """Return the name of the turns at a record that is no person's."""
    return joined("record", record.system, record.entity, canonical(record.id))


def _turns(context: Context, record: Identity) -> tuple[Turns, str]:
    """Return the turns at a record, and what tells the record from others that share them.

    Those at the person whose record it is, so that no save of the Connector comes between.
    """
    people = [
        partner.identity.id
        for partner in context.links.of(context.tenant, record)
        if (partner.identity.system, partner.identity.entity) == PERSON
    ]
    if people:
        return turns_of_person(context, min(people)), joined(record.entity, canonical(record.id))
    return Turns(context, turns_of_record(record), VENDOR), ""


def _text(value: object) -> str:
    return "" if value is None else str(value)

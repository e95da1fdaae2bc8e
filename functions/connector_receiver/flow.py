"""The decisions of connector_receiver: which record a person is at Egito, what goes into it, what counts if late."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import ClassVar
from urllib.parse import urlsplit

from connector_receiver.lead_sources import MAX_AGE as LEAD_SOURCES_MAX_AGE
from connector_receiver.lead_sources import LeadSources, plain
from connector_receiver.models import (
    ChangeLeadSource,
    ConnectorCommand,
    CreatedRecord,
    CreateLeadSource,
    CreateRecord,
    LeadSource,
    Saved,
    SavePerson,
    SharedRecord,
    UserType,
)
from connector_receiver.people import identity
from crm_bridge.accounts import Accounts, Turns
from crm_bridge.documents import Documents
from crm_bridge.engine import DUE, Engine, Hit, Task
from crm_bridge.errors import (
    CannotLookError,
    ConflictError,
    ContractBrokenError,
    ErasedError,
    Event,
    FieldError,
    HalfDoneError,
    InvalidError,
    NeedlessError,
    NoSuchRecordError,
    NotDoneError,
    NotShownError,
    RefusedError,
    RunningError,
    SeveralFoundError,
    SignInRefusedError,
    UnavailableError,
)
from crm_bridge.fields import may_have_become
from crm_bridge.links import Cardinality, Identity, Link, Links, joined
from crm_bridge.memory import Memory
from crm_bridge.oauth import Tokens
from crm_bridge.operations import Operation, Operations, State, fingerprint, operation_id
from crm_bridge.settings import Tenant
from crm_bridge.transport import Deadline, Scope, Transport
from crm_bridge.vendors.connector_settings import ConnectorSettings
from crm_bridge.vendors.egito import VENDOR, Egito, usable_id
from crm_bridge.vendors.egito_settings import EgitoSettings, PeopleMap, StaffMember

CLUB = "club"
"""What a save says besides its fields."""
STAFF_MAX_AGE, STAFF_MIN_AGE = 300.0, 10.0
"""Seconds for which the staff that is remembered is believed, and for which somebody is believed not to be in it."""
AFTER_THE_RECORD = 5
"""Seconds after which a save follows the making of its record."""

_NAMES = ("firstname", "lastname")
_NOT_WHOLE = "Egito's list does not show it, and may not be whole (lists_everything)"

type Result = Saved | CreatedRecord | LeadSource
type Values = dict[str, str | int | bool | None]


@dataclass(frozen=True)
class Held:
    """What the bridge itself holds of people, tokens and lead sources."""

    links: Links
    operations: Operations
    engine: Engine
    accounts: Accounts
    documents: Documents
    tokens: Tokens
    memory: Memory
    clock: Callable[[], float]


@dataclass
class Receiver:
    """Egito for one tenant within one deadline, as its settings describe it."""

    flow: "ConnectorFlow"
    egito: Egito
    settings: EgitoSettings
    connector: ConnectorSettings
    scope: Scope
    deadline: Deadline
    task: Task = field(default_factory=Task)

    @property
    def tenant(self) -> str:
        return self.scope.tenant

    @property
    def destination(self) -> str:
        return self.egito.destination

    @property
    def search_lag(self) -> int:
        return self.egito.search_lag

    @property
    def lead_sources(self) -> LeadSources:
        held = self.flow.held
        kind = self.settings.lead_sources.dictionary
        return LeadSources(self.egito, kind, held.documents, held.memory, self.scope)

    def staff(self, max_age: float = 0) -> list[StaffMember]:
        where = self.settings.staff
        if where.people is not None:
            return list(where.people)
        key = (self.destination, "staff", where)
        return self.flow.held.memory.recall(self.scope, key, self.egito.staff, max_age=max_age)

    # ------------------------------------------------------------------ people

    def save(self, command: SavePerson) -> Saved:
        """One save of a person at a time; and of what is late, only what nothing later said."""
        times = dict.fromkeys([*command.fields, CLUB], command.arrived_at)
        if command.fields["userType"] == UserType.PROSPECT:
            times["userType"] = 0  # nobody becomes a prospect again who was a member
        turns = self._turns(joined("connector person", command.person_id))
        saved = turns.apply_each(
            times, lambda fresh: self._save(command, fresh), task=self.task, deadline=self.deadline
        )
        if saved:
            return saved
        if self._has_become_a_member(command.person_id):
            self._convert(command.person_id)  # the prospect's record may have come into being only now
        _, lacks = self._values(self.settings.members, command.fields)
        message = "Not needed: a later save of this person has come first."
        if lacks:
            message = f"{message[:-1]}, but {' and '.join(lacks)}."
        return Saved(result="WARNING" if lacks else "INFO", message=message, recordID=command.person_id)

    def _turns(self, name: str) -> Turns:
        held = self.flow.held
        return Turns(held.accounts, held.operations, held.clock, self.tenant, name, VENDOR)

    def _save(self, command: SavePerson, fresh: Set[str]) -> Saved:
        kind = command.fields["userType"]
        is_prospect = (
            kind == UserType.PROSPECT and "userType" in fresh and not self._has_become_a_member(command.person_id)
        )
        its_map = self.settings.prospects if is_prospect else self.settings.members
        # Of what a later save said, too: that it lacks an owner is true of this save as well.
        values, lacks = self._values(its_map, command.fields)
        club = self.connector.clubs.get(command.club_id)
        of_club = club.fields if club else {}

        def without(names: Set[str]) -> Values:
            left_out = {its_map.fields[name].field for name in names if name in its_map.fields}
            return {name: value for name, value in values.items() if name not in left_out}

        not_said = {"userType"} if kind == UserType.PROSPECT and not is_prospect else set()
        record_id = self._record(command.person_id, its_map.entity)
        created = False
        if record_id is None:
            # All of it: a later save may have been sent, but it is in no record yet, and Egito wants a whole one.
            whole = {**without(not_said), **of_club}
            new = {**its_map.defaults, **self._from_prospect(command.person_id, its_map), **whole}
            record_id, created = self._created(command, its_map, new)
        if not created:
            changed = without(not_said | (command.fields.keys() - fresh))
            self._updated(its_map.entity, record_id, {**changed, **(of_club if CLUB in fresh else {})})
        if not is_prospect:
            self._convert(command.person_id)
        if kind == UserType.PROSPECT and not is_prospect:
            lacks.append("as the member that this person is by now")
        if lacks:
            told = f"Saved, but {' and '.join(lacks)}."
            return Saved(result="WARNING", message=told, recordID=command.person_id, created=created)
        message = f"Saved as a new {kind.lower()}." if created else "Saved."
        return Saved(result="INFO", message=message, recordID=command.person_id, created=created)

    def _has_become_a_member(self, person_id: str) -> bool:
        """Where members are another entity: also if the save that converts has only got half way."""
        entity = self.settings.members.entity
        if entity == self.settings.prospects.entity:
            return False
        return self._record(person_id, entity) is not None or self._being_made(person_id, entity) is not None

    def is_undecided(self, person_id: str) -> bool:
        """Whether a person who was asked about has no record yet, and may still get one."""
        entities = {self.settings.prospects.entity, self.settings.members.entity}
        makings = [self._making(self._creation(person_id, entity)) for entity in entities]
        return not any(making and making.state in (State.SUCCEEDED, State.REJECTED) for making in makings)

    def _being_made(self, person_id: str, entity: str) -> Operation | None:
        """The operation that makes the person's record, if it is on its way."""
        operation = self._making(self._creation(person_id, entity))
        return operation if operation and operation.state in DUE | {State.NEEDS_REVIEW} else None

    def _creation(self, person_id: str, entity: str) -> CreateRecord:
        return CreateRecord(person_id=person_id, account=self.destination, entity=entity, fields={})

    def _making(self, create: CreateRecord) -> Operation | None:
        key = self.flow.key(ConnectorCommand(create))
        return self.flow.held.operations.get(operation_id(self.tenant, self.flow.name, key))

    def _values(self, its_map: PeopleMap, fields: Mapping[str, str]) -> tuple[Values, list[str]]:
        """What goes to Egito, by its names; and what does not."""
        values: Values = {}
        lacks = []
        for name, text in fields.items():
            target = its_map.fields.get(name)
            if target is None:
                continue
            value: str | int | bool | None = text
            if text and name == "leadOwner":
                value = self._owner(text)
                lacks += [] if value else ["without its owner, whom the staff list does not have"]
            elif text and name == "leadSource":
                value = self._lead_source(text)
                lacks += [] if value else ["without its lead source, which Egito does not have"]
            if value is not None:
                values[target.field] = target.values.get(str(value), value)
        return values, lacks

    def _owner(self, given: str) -> str | None:
        for max_age in (STAFF_MAX_AGE, STAFF_MIN_AGE):  # there may be somebody new
            for one in self._if_shown(partial(self.staff, max_age)):
                if one.id == given or (one.email or "").casefold() == given.casefold():
                    return one.id
        return None

    def _lead_source(self, given: str) -> str | None:
        sources = self.lead_sources
        meant = next(iter(self._if_shown(lambda: [sources.meant(given)])), None)
        if meant is None or sources.dictionary is None:
            return meant.name if meant else None
        for max_age in (LEAD_SOURCES_MAX_AGE, 0):  # it may have been made a moment ago
            entries = self._if_shown(partial(sources.entries, max_age))
            if meant.id in [entry.id for entry in entries]:
                return meant.id
            for entry in entries:
                if plain(entry.name) == plain(meant.name):
                    return entry.id
        return None

    @staticmethod
    def _if_shown[T](question: Callable[[], list[T]]) -> list[T]:
        """Nothing, if Egito does not show this to the bridge: a person is saved without it all the same."""
        try:
            return question()
        except (RefusedError, ContractBrokenError):
            return []
        except SignInRefusedError as error:
            if error.status != HTTPStatus.FORBIDDEN:
                raise
            return []

    def _record(self, person_id: str, entity: str) -> str | None:
        link = self.flow.held.links.one(self.tenant, identity(person_id), *_kind(self.destination, entity))
        return link.id if link else None

    def _from_prospect(self, person_id: str, its_map: PeopleMap) -> Values:
        """What a member's new record takes over from the prospect's."""
        prospects = self.settings.prospects
        record_id = self._record(person_id, prospects.entity) if its_map.entity != prospects.entity else None
        if record_id is None:
            return {}
        try:
            record = self.egito.record(prospects.entity, record_id)
        except NoSuchRecordError:  # somebody has deleted it
            return {}
        except ContractBrokenError as error:  # nothing was to be done so far
            raise NotDoneError(error.message, vendor=VENDOR, status=error.status) from None
        taken: Values = {}
        for name in prospects.fields.keys() & its_map.fields.keys() - {"userType"}:
            source, target = prospects.fields[name], its_map.fields[name]
            value = record.get(source.field)
            if isinstance(value, str | int | bool) and value != "":
                ours = {str(theirs): ours for ours, theirs in source.values.items()}.get(str(value), value)
                taken[target.field] = target.values.get(str(ours), ours)
        return taken

    def _convert(self, person_id: str) -> None:
        prospects = self.settings.prospects
        if not prospects.on_conversion:
            return
        record_id = self._record(person_id, prospects.entity)
        if record_id is None:
            making = self._being_made(person_id, prospects.entity)
            if making and making.state in (State.SENDING, State.UNCONFIRMED):
                wait = max(0, (making.due_at or 0) - int(self.flow.held.clock())) + AFTER_THE_RECORD
                raise NotDoneError("the prospect's record is on its way", vendor=VENDOR, retry_after=wait)
        else:
            with suppress(NoSuchRecordError):  # somebody has deleted it
                self.egito.update(prospects.entity, record_id, prospects.on_conversion)

    def _updated(self, entity: str, record_id: str, values: Mapping[str, object]) -> None:
        try:
            self.egito.update(entity, record_id, values)
        except NoSuchRecordError as error:
            raise RefusedError(f"Egito no longer shows this person's record: {error.message}", vendor=VENDOR) from None

    def _created(self, command: SavePerson, its_map: PeopleMap, values: Values) -> tuple[str, bool]:
        """The id of the person's record, made by an operation of its own; and whether it was made just now."""
        create = CreateRecord(
            person_id=command.person_id, account=self.destination, entity=its_map.entity, fields=dict(values)
        )
        if its_map.reference:
            create.fields[its_map.reference] = command.person_id
        held, flow = self.flow.held, self.flow
        known = self._making(create)
        if command.has_namesake and not _is_decided(known):
            create = create.model_copy(update={"has_namesake": True})
        wrapped = ConnectorCommand(create)
        if known and known.state in DUE and not known.is_undone:
            # It is looked after by itself, but this save would wait for it.
            held.engine.retry(
                flow, known.operation_id, tenant=self.tenant, deadline=self.deadline, lent_until=known.lent_until
            )
        discarded = known and known.state is State.REJECTED and known.attempts[-1].event is Event.DISCARDED
        if known and discarded and (known.updated_at + 1) * 1_000_000 > command.arrived_at:
            raise NeedlessError("it was decided that there shall be no record; send it again", vendor=VENDOR)
        try:
            outcome = held.engine.run(flow, wrapped, tenant=self.tenant, deadline=self.deadline, over_undone=True)
        except (RunningError, UnavailableError):
            raise NotDoneError("the person's record is being made", vendor=VENDOR) from None
        except ErasedError:
            raise RefusedError("the data of this person were erased", vendor=VENDOR) from None
        operation = outcome.operation
        if operation.state is State.SUCCEEDED and operation.result:
            return CreatedRecord.model_validate_json(operation.result).id, outcome.carried
        why = outcome.error.message if outcome.error else f"the person's record is not there yet ({operation.state})"
        if operation.state is State.REJECTED:
            raise RefusedError(why, vendor=VENDOR, status=outcome.error.status if outcome.error else None)
        wait = max(0, (operation.due_at or 0) - int(held.clock())) + AFTER_THE_RECORD
        is_in_doubt = outcome.carried and operation.state is State.UNCONFIRMED  # it may have been made of this save
        raise (HalfDoneError if is_in_doubt else NotDoneError)(why, vendor=VENDOR, retry_after=wait)

    def create_record(self, create: CreateRecord) -> CreatedRecord:
        is_member = create.entity == self.settings.prospects.entity and self._has_become_a_member(create.person_id)
        if is_member:  # it waited, and what it says goes into the member's record
            raise RefusedError("the person is a member by now, and needs no prospect's record", vendor=VENDOR)
        if create.has_namesake and not _is_decided(self._making(create)):
            raise SeveralFoundError(
                "somebody of this name is known in this club. Link the record of that person if it is the same one; "
                "else retry, and a new record is made",
                vendor=VENDOR,
            )
        return CreatedRecord(entity=create.entity, id=self.egito.create(create.entity, create.fields))

    # ------------------------------------------------------------------ lead sources

    def create_lead_source(self, command: CreateLeadSource) -> LeadSource | Hit[Result]:
        if there := self.lead_sources.in_dictionary(command.name):
            return Hit(there)
        return LeadSource(id=self.egito.create_entry(command.dictionary, command.name), name=command.name)

    def change_lead_source(self, command: ChangeLeadSource) -> LeadSource:
        def work() -> LeadSource:
            entry = next((one for one in self.lead_sources.entries() if one.id == command.id), None)
            if entry is None:
                raise NoSuchRecordError("Egito no longer has this lead source", vendor=VENDOR)
            if entry.name != command.name:
                self.egito.update_entry(command.dictionary, entry, command.name)
            return LeadSource(id=command.id, name=command.name)

        turns = self._turns(joined("lead source", self.destination, command.id))
        changed = turns.apply("name", command.asked_at, work, task=self.task, deadline=self.deadline)
        return changed or LeadSource(id=command.id, name=command.name)


@dataclass(frozen=True)
class ConnectorFlow:
    held: Held
    name: ClassVar[str] = "connector_receiver"
    command: ClassVar[type[ConnectorCommand]] = ConnectorCommand

    def vendor(self, tenant: str, settings: Tenant, transport: Transport, deadline: Deadline) -> Receiver:  # noqa: ARG002
        egito = Egito.for_tenant(settings, transport, deadline, self.held)
        connector = settings.require(ConnectorSettings)
        return Receiver(self, egito, egito.settings, connector, transport.scope, deadline)

    def key(self, command: ConnectorCommand) -> str:
        match command.root:
            case SavePerson() as save:
                said = fingerprint(save.model_dump_json())[:8]  # two may arrive in the same microsecond
                return joined("save", save.person_id, str(save.arrived_at), said)
            case CreateRecord() as create:
                return joined("record", create.person_id, *_kind(create.account, create.entity))
            case CreateLeadSource() as create:
                return joined("lead source", create.dictionary, plain(create.name))
            case ChangeLeadSource() as change:
                return joined("change of lead source", change.id, str(change.asked_at))

    def repeatable(self, command: ConnectorCommand) -> bool:
        return isinstance(command.root, SavePerson | ChangeLeadSource)

    def send(self, command: ConnectorCommand, vendor: Receiver) -> Result | Hit[Result]:
        match command.root:
            case SavePerson() as save:
                return vendor.save(save)
            case CreateRecord() as create:
                return vendor.create_record(create)
            case CreateLeadSource() as create:
                return vendor.create_lead_source(create)
            case ChangeLeadSource() as change:
                return vendor.change_lead_source(change)

    def find(self, command: ConnectorCommand, vendor: Receiver) -> Iterator[Hit[Result]]:
        match command.root:
            case CreateRecord() as create:
                yield from _records(create, vendor)
            case CreateLeadSource() as create:
                yield from _lead_sources(create, vendor)
        if not vendor.settings.lists_everything:
            raise NotShownError(_NOT_WHOLE, vendor=VENDOR)

    def link_existing(self, tenant: str, command: ConnectorCommand, vendor_id: str) -> Result:  # noqa: ARG002
        match command.root:
            case CreateRecord() as create:
                record = SharedRecord if create.has_namesake else CreatedRecord
                return record(entity=create.entity, id=vendor_id)
            case CreateLeadSource() as create:
                return LeadSource(id=vendor_id, name=create.name)
        raise ConflictError("A save is no record that could be linked. Send it again, or discard it.")

    def verify(self, command: ConnectorCommand, result: Result, vendor: Receiver) -> str | None:
        match command.root, result:
            case CreateRecord() as create, CreatedRecord() as created:
                return _differs(create, created, vendor)
            case CreateLeadSource() as create, LeadSource() as source:
                there = next((one for one in vendor.lead_sources.entries() if one.id == source.id), None)
                if there is not None:
                    return None if plain(there.name) == plain(create.name) else "Egito's entry has another name"
                if not vendor.settings.lists_everything:
                    return _NOT_WHOLE
                raise InvalidError(
                    "Egito's dictionary has no entry with this id.",
                    fields=[FieldError("id", "is not the id of a lead source")],
                )
        return None

    def links(self, command: ConnectorCommand, result: Result) -> Sequence[Link]:
        match command.root, result:
            case CreateRecord() as create, CreatedRecord() as created:
                record = Identity(*_kind(create.account, create.entity), created.id)
                cardinality = Cardinality.MANY_TO_ONE if isinstance(result, SharedRecord) else Cardinality.ONE_TO_ONE
                return [Link(identity(create.person_id), record, cardinality)]
        return ()


def _kind(account: str, entity: str) -> tuple[str, str]:
    """System and entity of a record in the links. The system is this Egito: in another the same id is somebody else."""
    return urlsplit(account).netloc.casefold(), entity.casefold()


def _is_decided(making: Operation | None) -> bool:
    """Whether a person has decided that a new record is to be made."""
    return making is not None and any(attempt.event is Event.RETRY_REQUESTED for attempt in making.attempts)


def _maps(create: CreateRecord, vendor: Receiver) -> list[PeopleMap]:
    return [one for one in (vendor.settings.prospects, vendor.settings.members) if one.entity == create.entity]


def _reference(create: CreateRecord, vendor: Receiver) -> str | None:
    """The field of the record that carries the person's id, if the tenant has one for it."""
    return next((one.reference for one in _maps(create, vendor) if one.reference in create.fields), None)


def _differs(create: CreateRecord, created: CreatedRecord, vendor: Receiver) -> str | None:
    """Why it is not sure that Egito's record with this id is this person's; None if it is.

    Raises InvalidError if there is none, or if it is another person's: unless the question was whether a namesake is
    this person, since then it may be.
    """
    try:
        record = vendor.egito.record(create.entity, created.id)
    except NoSuchRecordError as error:
        raise InvalidError(error.message, fields=[FieldError("id", "is not the id of a record")]) from None
    field = _reference(create, vendor)
    if field is None:
        return "Egito has no field for the bridge's id of a person (reference)"
    theirs = str(record.get(field) or "")
    if theirs == create.person_id:
        return None
    is_others = theirs and not create.person_id.casefold().startswith(theirs.strip().casefold())
    if is_others and not isinstance(created, SharedRecord):
        raise InvalidError(
            "Egito's record with this id carries another person's id.",
            fields=[FieldError("id", "is the id of another person's record")],
        )
    return "Egito's record with this id does not carry the bridge's id of this person"


def _records(create: CreateRecord, vendor: Receiver) -> Iterator[Hit[Result]]:
    """Those that carry the person's id, if the tenant has a field for it; or of the name, what may be left of the id.

    Without a field for it Egito cannot be asked.
    """
    maps, field = _maps(create, vendor), _reference(create, vendor)
    if field is None:
        raise CannotLookError("Egito has no field for the bridge's id of a person (reference)", vendor=VENDOR)
    names = {one.fields[part].field for one in maps for part in _NAMES if part in one.fields} & create.fields.keys()
    for record in vendor.egito.records(create.entity):
        record_id = usable_id(record)
        texts = {member: str(record.get(member) or "") for member in (*names, field)}
        certain = texts[field] == create.person_id
        altered = all(may_have_become(str(create.fields[member] or ""), text) for member, text in texts.items())
        if record_id and (certain or altered):
            shown = " ".join(filter(None, (texts[name] for name in sorted(names))))
            yield Hit(CreatedRecord(entity=create.entity, id=record_id), None, certain, record_id, shown)


def _lead_sources(create: CreateLeadSource, vendor: Receiver) -> Iterator[Hit[Result]]:
    there = vendor.lead_sources.in_dictionary(create.name)
    if there:
        yield Hit(there)
    for entry in vendor.lead_sources.entries(AFTER_THE_RECORD) if not there else ():
        if may_have_become(create.name, entry.name):
            yield Hit(LeadSource(id=entry.id, name=entry.name), None, False, entry.id, entry.name)

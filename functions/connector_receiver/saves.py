"""save_person: what the Connector says of a prospect or a member goes into the person's record at Egito."""

from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from http import HTTPStatus

from connector_receiver.lead_sources import MAX_AGE as LEAD_SOURCES_MAX_AGE
from connector_receiver.lead_sources import plain
from connector_receiver.models import NewPersonRecord, PersonToSave, Saved, UserType
from connector_receiver.person_records import CreatePersonRecord, Records
from connector_receiver.receiver import Receiver
from connector_receiver.snapshots import CLUB, Snapshot, SnapshotReader, times_of, turns_of_person
from crm_bridge import Change, Context, Need, Update
from crm_bridge.errors import (
    ContractBrokenError,
    HalfDoneError,
    NoSuchRecordError,
    NotDoneError,
    NotYetError,
    RefusedError,
    SignInRefusedError,
)
from crm_bridge.storage.links import joined
from crm_bridge.storage.operation import Operation, State, fingerprint
from crm_bridge.storage.operations import Claim
from crm_bridge.vendors.egito import VENDOR, Egito
from crm_bridge.vendors.egito_settings import EgitoSettings, PeopleMap

STAFF_MAX_AGE, STAFF_MIN_AGE = 300.0, 10.0
"""Seconds for which the staff that is remembered is believed, and for which somebody is believed not to be in it."""
AFTER_THE_RECORD = 5
"""Seconds after which a save follows the making of its record."""

type Values = dict[str, str | int | bool | None]


class SavePerson(Change[PersonToSave, Egito, Saved], name="save_person", function="connector_receiver"):
    update = Update("yes", "Each save is an event of its own. Of each field, the save that arrived last counts.")
    key_parts = ("person_id", "arrived_at", "fingerprint")

    def key(self, command: PersonToSave) -> str:
        said = fingerprint(command.model_dump_json())[:8]  # two may arrive in the same microsecond
        return joined(command.person_id, str(command.arrived_at), said)

    def claim(self, command: PersonToSave, operation: Operation, *, later: bool) -> Claim | None:
        return command.snapshot.claim(self.context, command, operation, later=later) if command.snapshot else None

    def send(self, command: PersonToSave, vendor: Egito) -> Saved:
        return _Save(Receiver(self.context, vendor), command).run()


@dataclass
class _Save:
    """One save of a person."""

    _receiver: Receiver
    _command: PersonToSave

    @property
    def context(self) -> Context:
        return self._receiver.context

    @property
    def egito(self) -> Egito:
        return self._receiver.egito

    @property
    def _settings(self) -> EgitoSettings:
        return self._receiver.settings

    @cached_property
    def _snapshot(self) -> Snapshot:
        """Return what is there in the turn: read with the claim that took it, or else now."""
        snapshot = self._command.snapshot
        if snapshot and snapshot.turn and snapshot.turn is self.context.ending and not snapshot.turn.is_over:
            return snapshot
        has_lead_source = bool(self._command.fields.get("leadSource"))
        reader = SnapshotReader(self.context.services, self.context.tenant, self._settings, has_lead_source)
        return reader.read(self._command.person_id)

    @cached_property
    def _records(self) -> Records:
        return Records(self.context, self.egito, self._command.person_id, dict(self._snapshot.operations))

    def run(self) -> Saved:
        """Apply one save of a person at a time; of a late one, only fields that no later save has set."""
        command = self._command
        saved = turns_of_person(self.context, command.person_id).apply_each(
            times_of(command), lambda fresh: self._save(command, fresh)
        )
        if saved:
            return saved
        if self._records.has_become_a_member():
            self._convert()  # the prospect's record may have come into being only now
        _, lacks = self._values(self._settings.members, command.fields)
        message = "Not needed: a later save of this person has come first."
        if lacks:
            message = f"{message[:-1]}, but {' and '.join(lacks)}."
        return Saved(result="WARNING" if lacks else "INFO", message=message, recordID=command.person_id)

    def _save(self, command: PersonToSave, fresh: Set[str]) -> Saved:
        kind = command.fields["userType"]
        is_prospect = kind == UserType.PROSPECT and "userType" in fresh and not self._records.has_become_a_member()
        its_map = self._settings.prospects if is_prospect else self._settings.members
        # Of what a later save said, too: that it lacks an owner is true of this save as well.
        values, lacks = self._values(its_map, command.fields)
        club = self._receiver.connector.clubs.get(command.club_id)
        of_club = club.fields if club else {}

        def without(names: Set[str]) -> Values:
            left_out = {its_map.fields[name].field for name in names if name in its_map.fields}
            return {name: value for name, value in values.items() if name not in left_out}

        not_said = {"userType"} if kind == UserType.PROSPECT and not is_prospect else set()
        record_id = self._records.id(its_map.entity)
        created = False
        if record_id is None:
            # All of it, because Egito wants a whole record. What a later save said is in the prospect's, if anywhere.
            there = self._from_prospect(its_map, of_club)
            newer = {**without(not_said | (command.fields.keys() - fresh)), **(of_club if CLUB in fresh else {})}
            older = {
                name: value for name, value in {**without(not_said | fresh), **of_club}.items() if name not in there
            }
            taken_over = {name: value for name, value in there.items() if value != ""}
            new = {**its_map.defaults, **older, **taken_over, **newer}
            record_id, created = self._created(command, its_map, new)
        if not created:
            changed = without(not_said | (command.fields.keys() - fresh))
            self._updated(its_map.entity, record_id, {**changed, **(of_club if CLUB in fresh else {})})
        if not is_prospect:
            self._convert()
        if kind == UserType.PROSPECT and not is_prospect:
            lacks.append("as the member that this person is by now")
        if lacks:
            told = f"Saved, but {' and '.join(lacks)}."
            return Saved(result="WARNING", message=told, recordID=command.person_id, created=created)
        message = f"Saved as a new {kind.lower()}." if created else "Saved."
        return Saved(result="INFO", message=message, recordID=command.person_id, created=created)

    def _values(self, its_map: PeopleMap, fields: Mapping[str, str]) -> tuple[Values, list[str]]:
        """Return the values that go to Egito, by its names, and the names of those that do not."""
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
            for one in self._if_shown(partial(self._receiver.staff, max_age)):
                if one.id == given or (one.email or "").casefold() == given.casefold():
                    return one.id
        return None

    def _lead_source(self, given: str) -> str | None:
        sources = self._receiver.lead_sources
        meant = next(iter(self._if_shown(lambda: [sources.find(given, self._snapshot.lead_sources)])), None)
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
        """Return the list; an empty one if Egito does not show it to the bridge: a person is saved without it."""
        try:
            return question()
        except (RefusedError, ContractBrokenError):
            return []
        except SignInRefusedError as error:
            if error.status != HTTPStatus.FORBIDDEN:
                raise
            return []

    def _from_prospect(self, its_map: PeopleMap, of_club: Values) -> Values:
        """Return the values of the prospect's record that a member's new one has fields for."""
        prospects = self._settings.prospects
        record_id = self._records.id(prospects.entity) if its_map.entity != prospects.entity else None
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
            if isinstance(value, str | int | bool):
                ours = {str(theirs): ours for ours, theirs in source.values.items()}.get(str(value), value)
                taken[target.field] = target.values.get(str(ours), ours)
        for name in of_club:
            value = record.get(name)
            if isinstance(value, str | int | bool):
                taken[name] = value
        return taken

    def _convert(self) -> None:
        prospects = self._settings.prospects
        if not prospects.on_conversion:
            return
        # Whoever goes on making it now sees that the member's record is there, or has it on the way already.
        making = self._records.making_by_now(prospects.entity)
        record_id = self._records.id(prospects.entity)
        if record_id is None:
            if making and making.state in (State.SENDING, State.UNCONFIRMED):
                self.context.wait_for(making, "the prospect's record is on its way")
        else:
            with suppress(NoSuchRecordError):  # somebody has deleted it
                self.egito.update(prospects.entity, record_id, prospects.on_conversion)

    def _is_last(self, its_map: PeopleMap) -> bool:
        """Return whether nothing is left to be done at Egito once there is a new record."""
        prospects = self._settings.prospects
        if its_map.entity == prospects.entity:
            return its_map is prospects or not prospects.on_conversion
        return not prospects.on_conversion or self._records.making(prospects.entity) is None

    def _updated(self, entity: str, record_id: str, values: Mapping[str, object]) -> None:
        try:
            self.egito.update(entity, record_id, values)
        except NoSuchRecordError as error:
            raise RefusedError(f"Egito no longer shows this person's record: {error.message}", vendor=VENDOR) from None

    def _created(self, command: PersonToSave, its_map: PeopleMap, values: Values) -> tuple[str, bool]:
        """Return the id of the person's record, made by an event of its own; and whether it was made just now."""
        new = NewPersonRecord(
            person_id=command.person_id,
            account=self.egito.destination,
            entity=its_map.entity,
            fields={**values, **({its_map.reference: command.person_id} if its_map.reference else {})},
            has_namesake=command.has_namesake,
        )
        need = Need(CreatePersonRecord, "the person's record", new, since=command.arrived_at, replaces=True)
        try:
            made = self.context.require(need, read=self._records.read, is_last=self._is_last(its_map))
        except NotYetError as error:
            if error.is_in_doubt:  # it may have been made of this save
                raise HalfDoneError(error.message, vendor=VENDOR, retry_after=AFTER_THE_RECORD) from None
            raise
        except RefusedError as error:  # to the club's staff the record is the save
            raise error.__cause__ or error from None
        self._records.made(its_map.entity)
        return made.result.id, made.is_new

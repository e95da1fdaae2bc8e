"""The decisions of key_link: which event it is, how a key link is found, made, changed and deleted, what it links."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from crm_bridge.accounts import Accounts, Note, read_account
from crm_bridge.engine import DUE, REPLACEABLE, Ending, Hit, Task
from crm_bridge.errors import (
    CannotLookError,
    ConflictError,
    Event,
    FieldError,
    InvalidError,
    NoSuchRecordError,
    NotDoneError,
    OpposedError,
    RefusedError,
    WrongFieldError,
)
from crm_bridge.ids import canonical, forms
from crm_bridge.links import Cardinality, Identity, Link, Ties, joined
from crm_bridge.memory import Memory
from crm_bridge.operations import Claim, Operation, State, operation_id
from crm_bridge.settings import Tenant
from crm_bridge.transport import Deadline, Scope, Transport
from crm_bridge.vendors.revio import VENDOR, NameKind, Revio, RevioKeyLink, RevioNamed, RevioSettings, key_link_of
from key_link.change import CLOCK_SKEW, Change, Held, Target, key_link_id, row_name
from key_link.models import CarryKeyLink, DeletedKeyLink, KeyLink, KeyLinkSearch, StoredKeyLink

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

SYSTEM = "revio"
NAMES_MAX_AGE = 3600.0
NAMES_MIN_AGE = 10.0
"""Seconds for which the names that are remembered are believed, and for which one is believed not to be there."""
SHOWN_NAMES = 50
MOST_COMPARED = 100
"""Of so many key links of one record it is found out whether they are linked."""


@dataclass(frozen=True)
class Criteria:
    """What Rev.io is asked for, what its answers must then have (it may compare loosely), and the names of that."""

    search: Mapping[str, str]
    exact: Mapping[str, object]
    names: Mapping[str, str]

    def fit(self, record: RevioKeyLink | StoredKeyLink) -> bool:
        return all(
            canonical(str(getattr(record, member))) == canonical(str(value)) for member, value in self.exact.items()
        )

    def searches(self) -> list[Mapping[str, str]]:
        """One for each form in which Rev.io may have the external id."""
        wanted = self.search.get("external_id")
        return [{**self.search, "external_id": form} for form in forms(wanted)] if wanted else [self.search]

    def may_fit(self, record: RevioKeyLink) -> bool:
        """Whatever Rev.io may have made of the text in it."""
        return all(getattr(record, name) == value for name, value in self.exact.items() if isinstance(value, int))

    def stored(self, key_link_id: int) -> StoredKeyLink:
        """Nothing is asked for it: what was done must not fail any more."""
        return StoredKeyLink.model_validate({"id": key_link_id, **self.names, **self.exact})


@dataclass
class KeyLinks:
    """Rev.io for one tenant within one deadline."""

    flow: "KeyLinkFlow"
    revio: Revio
    scope: Scope
    deadline: Deadline
    task: Task = field(default_factory=Task)

    @property
    def tenant(self) -> str:
        return self.scope.tenant

    @property
    def destination(self) -> str:
        return self.revio.destination

    @property
    def search_lag(self) -> int:
        return self.revio.search_lag

    def names(self, kind: NameKind, max_age: float = NAMES_MAX_AGE) -> list[RevioNamed]:
        what = (self.destination, kind)
        return self.flow.memory.recall(self.scope, what, lambda: self.revio.names(kind), max_age=max_age)

    def get(self, key_link_id: int) -> StoredKeyLink:
        """Raises NoSuchRecordError."""
        return self._shown(self.revio.key_link(key_link_id))

    def page(self, wanted: KeyLinkSearch) -> tuple[list[StoredKeyLink], bool]:
        """One page, without what does not fit exactly, and whether there are more."""
        criteria = self._criteria(wanted)
        inferred = {"internal_id": str(wanted.internal_id)} if wanted.internal_id is not None else {}
        for search in criteria.searches():
            try:
                found = self.revio.page_of_key_links({**search, **inferred}, wanted.page, wanted.page_size)
            except RefusedError:  # only the names and the external id are documented as searchable
                found = self.revio.page_of_key_links(search, wanted.page, wanted.page_size)
            shown = [self._shown(record) for record in found.key_links if criteria.fit(record)]
            if shown or found.has_more:
                break
        return shown, found.has_more

    def found(self, link: KeyLink, asked_at: int) -> StoredKeyLink | None:
        """The key link that says this already, as the result of the operation that asks for it.

        It is settled only if no change of that key link is on its way, or has ended since this began to look.
        """
        since = self._now()
        stored = self.stored(link)
        if stored:
            self._ends_as_found(asked_at, since)
        return stored

    def _ends_as_found(self, asked_at: int, since: int) -> None:
        self.task.ending = Finding(self.flow.held.accounts, self.flow.held.clock, self.tenant, asked_at, since)

    def _now(self) -> int:
        """Epoch milliseconds."""
        return int(self.flow.held.clock() * 1000)

    def stored(self, link: KeyLink) -> StoredKeyLink | None:
        """The key link that says this already. Several would say the same, so the first will do.

        It is read once more by its id: what a search finds may have been changed or deleted a moment ago.
        """
        criteria = self._criteria(link)
        for found in (one for search in criteria.searches() for one in self.revio.key_links(search)):
            if criteria.fit(found) and (record := self._still(found.id, criteria)):
                return self._shown(record)
        return None

    def made_of(self, link: KeyLink, asked_at: int) -> Iterator[Hit[StoredKeyLink | DeletedKeyLink]]:
        """The key link that says this; or else those that may be what Rev.io made of it, and are linked to no event.

        Rev.io's own ids are not altered, so a key link is recognised by them. Raises CannotLookError.
        """
        criteria, compared, since = self._criteria(link), 0, self._now()
        try:
            for found in self.revio.key_links_of(link.internal_id, criteria.search):
                if criteria.fit(found):
                    if exact := self._still(found.id, criteria):
                        self._ends_as_found(asked_at, since)
                        yield Hit(self._shown(exact), exact.created_at)
                        return
                elif criteria.may_fit(found):
                    compared += 1
                    if compared > MOST_COMPARED or not self._is_linked(found.id):
                        yield Hit(self._shown(found), found.created_at, False, str(found.id), found.external_id)
        except CannotLookError:
            stored = self.found(link, asked_at)
            if stored is None:
                raise
            yield Hit(stored)

    def _still(self, key_link_id: int, criteria: Criteria) -> RevioKeyLink | None:
        """The key link as it is now: what a search finds may have been changed or deleted a moment ago."""
        with suppress(NoSuchRecordError):
            record = self.revio.key_link(key_link_id)
            return record if criteria.fit(record) else None
        return None

    def _is_linked(self, key_link_id: int) -> bool:
        return bool(self.flow.held.links.of(self.tenant, _identity(key_link_id)))

    def differs(self, link: KeyLink, key_link_id: int) -> str | None:
        """What of the external id differs at Rev.io; None if the key link with this id says just this.

        Raises InvalidError if there is none, or if it is of another record, system or entity type.
        """
        criteria = self._criteria(link)
        try:
            record = self.revio.key_link(key_link_id)
        except NoSuchRecordError as error:
            raise InvalidError(error.message, fields=[FieldError("id", "is not the id of a key link")]) from None
        if criteria.fit(record):
            return None
        unalterable = {name: value for name, value in criteria.exact.items() if name != "external_id"}
        if not replace(criteria, exact=unalterable).fit(record):
            raise InvalidError(
                "Rev.io's key link with this id is of another internal id, system or entity type.",
                fields=[FieldError("id", "is the id of another pair's key link")],
            )
        return "Rev.io's key link with this id has another external id"

    def create(self, link: KeyLink) -> StoredKeyLink:
        criteria = self._criteria(link)
        return criteria.stored(self.revio.create_key_link(criteria.exact))

    def claim(self, command: CarryKeyLink, operation: Operation, *, later: bool) -> Claim:
        """See `engine.Claiming`."""
        if command.id is None:
            return self.flow.held.operations.create(operation, over=REPLACEABLE)
        change = self.flow.change(self.tenant, command, self.task)
        return change.claim(operation, later=later)

    def change(self, key_link_id: int, command: CarryKeyLink, link: KeyLink) -> StoredKeyLink:
        """Raises NoSuchRecordError, OpposedError, NeedlessError."""
        with self._in_turn(command) as change:
            criteria, record = self._criteria(link), self.revio.record(key_link_id)
            before = key_link_of(record)
            is_same = criteria.fit(before) and before.external_id == link.external_id
            if not is_same:  # else it was changed before, and only the rest is left to do
                self._wait_for_others(change, before)
                others = [self._shown_to(change, criteria), self.stored(link)]
                other = next((one.id for one in others if one and one.id != key_link_id), None)
                if other is not None:
                    raise OpposedError(f"Rev.io's key link {other} says this already", vendor=VENDOR)
                self.revio.change_key_link(key_link_id, record, criteria.exact)
            change.result = criteria.stored(key_link_id)
            return change.result

    def delete(self, key_link_id: int, command: CarryKeyLink) -> DeletedKeyLink:
        """Also what is gone already, so that repeating it is safe."""
        with self._in_turn(command) as change, suppress(NoSuchRecordError):
            if not change.is_known:
                self._wait_for_others(change, self.revio.key_link(key_link_id))
            self.revio.delete_key_link(key_link_id)
        return DeletedKeyLink(id=key_link_id)

    @contextmanager
    def _in_turn(self, command: CarryKeyLink) -> Iterator[Change]:
        """One change of a key link at a time, and the last one that was asked for counts."""
        change = self.task.ending
        if not isinstance(change, Change):
            change = self.flow.change(self.tenant, command, self.task)
        change.begin(self.deadline)
        assert change.turn
        with change.turn.during(self.task):
            yield change

    def _wait_for_others(self, change: Change, before: RevioKeyLink) -> None:
        """Raises NotDoneError while an earlier event that says what there is now may still find it, or has made it."""
        shown = self._shown(before)
        event = operation_id(self.tenant, KeyLinkFlow.name, _pair(shown))
        if event in change.holds:
            return
        there = self.flow.held.operations.get(event)
        if there is None:
            return
        if there.state is State.SUCCEEDED and there.result and key_link_id(there.result) == shown.id:
            change.mark()  # it has it by now
        elif there.state in (State.SENDING, State.UNCONFIRMED) or (
            there.state in DUE and there.unconfirmed_since is not None
        ):
            asked = CarryKeyLink.model_validate_json(there.payload or "{}").asked_at
            if asked < change.asked_at:
                raise NotDoneError("an event that says the same is on its way, and comes first", vendor=VENDOR)

    def _shown_to(self, change: Change, criteria: Criteria) -> StoredKeyLink | None:
        """The key link that the new pair's event was answered with, if it still says so: a search may be behind."""
        event = change.seen.get(change.target.operation_id) if change.target else None
        if event and event.result and key_link_id(event.result) != change.key_link_id:
            with suppress(NoSuchRecordError):
                record = self.revio.key_link(key_link_id(event.result))
                return self._shown(record) if criteria.fit(record) else None
        return None

    def _criteria(self, wanted: KeyLink | KeyLinkSearch) -> Criteria:
        """Raises WrongFieldError."""
        search: dict[str, str] = {}
        exact: dict[str, object] = {}
        names: dict[str, str] = {}
        if wanted.system is not None:
            system = self._named("system", wanted.system)
            search["system_name"] = names["system"] = system.name
            exact["integration_system_id"] = system.id
        if wanted.entity_type is not None:
            entity_type = self._named("entity_type", wanted.entity_type)
            search["entity_type_name"] = names["entity_type"] = entity_type.name
            exact["integration_entity_type_id"] = entity_type.id
        if wanted.internal_id is not None:
            exact["internal_id"] = wanted.internal_id
        if wanted.external_id is not None:
            search["external_id"] = wanted.external_id
            exact["external_id"] = wanted.external_id
        return Criteria(search, exact, names)

    def _named(self, kind: NameKind, name: str) -> RevioNamed:
        """Raises WrongFieldError, which lists the names that there are."""
        for max_age in (NAMES_MAX_AGE, NAMES_MIN_AGE):  # Rev.io may have got a new one
            named = self.names(kind, max_age)
            hits = [one for one in named if one.name.casefold() == name.casefold()]
            if len(hits) == 1:
                return hits[0]
        there_are = ", ".join(one.name for one in named[:SHOWN_NAMES]) or "none at all"
        message = f"Rev.io has {'several' if hits else 'none'} of this name; there are {there_are}"
        raise WrongFieldError(message, vendor=VENDOR, field=kind)

    def _shown(self, record: RevioKeyLink) -> StoredKeyLink:
        systems = {system.id: system.name for system in self.names("system")}
        entity_types = {entity_type.id: entity_type.name for entity_type in self.names("entity_type")}
        names = {
            "system": systems.get(record.integration_system_id),
            "entity_type": entity_types.get(record.integration_entity_type_id),
        }
        return StoredKeyLink.model_validate({**names, **record.model_dump(mode="json")})


@dataclass
class Finding:
    """The end of an operation that found its key link at Rev.io instead of making one (see `engine.Ending`)."""

    accounts: Accounts
    clock: Callable[[], float]
    tenant: str
    asked_at: int
    since: int
    """When it began to look (epoch milliseconds)."""
    notes: frozenset[Note] = frozenset()

    def writes(self, settled: Operation, event: Event) -> "Sequence[TransactWriteItemTypeDef]":
        if event is not Event.FOUND or settled.result is None:
            return ()
        row = self.accounts.finding(
            self.tenant,
            row_name(key_link_id(settled.result)),
            settled.operation_id,
            since=self.since - CLOCK_SKEW,
            now=int(self.clock() * 1000),
            notes=self.notes,
        )
        return [{"Update": row}]

    def adapts(self, event: Event, there: Sequence[Mapping[str, Any] | None]) -> bool:  # noqa: ARG002
        """If all changes that are noted were asked for later, and none has begun: they wait for this one."""
        (item,) = there
        row = read_account(item) if item else None
        if row is None or row.notes == self.notes or row.ended >= self.since - CLOCK_SKEW:
            return False
        self.notes = row.notes
        return all(note.at > self.asked_at for note in row.notes) and row.busy_until <= self.clock() * 1000


@dataclass(frozen=True)
class KeyLinkFlow:
    memory: Memory
    held: Held
    name: ClassVar[str] = "key_link"
    command: ClassVar[type[CarryKeyLink]] = CarryKeyLink

    def vendor(self, tenant: str, settings: Tenant, transport: Transport, deadline: Deadline) -> KeyLinks:  # noqa: ARG002
        revio = Revio(settings.require(RevioSettings), transport, deadline)
        return KeyLinks(self, revio, transport.scope, deadline)

    def key(self, command: CarryKeyLink) -> str:
        link = command.link
        if command.id is not None or link is None:
            return joined("key link", str(command.id), str(command.asked_at))
        return _pair(link)

    def repeatable(self, command: CarryKeyLink) -> bool:
        return command.id is not None

    def send(
        self, command: CarryKeyLink, vendor: KeyLinks
    ) -> StoredKeyLink | DeletedKeyLink | Hit[StoredKeyLink | DeletedKeyLink]:
        match command:
            case CarryKeyLink(id=None, link=KeyLink() as link):
                stored = vendor.found(link, command.asked_at)
                return Hit(stored) if stored else vendor.create(link)
            case CarryKeyLink(id=int() as key_link_id, link=KeyLink() as link):
                return vendor.change(key_link_id, command, link)
            case CarryKeyLink(id=int() as key_link_id):
                return vendor.delete(key_link_id, command)
        raise AssertionError("neither a key link nor the id of one")

    def find(self, command: CarryKeyLink, vendor: KeyLinks) -> Iterable[Hit[StoredKeyLink | DeletedKeyLink]]:
        return vendor.made_of(command.link, command.asked_at) if command.link else ()

    def change(self, tenant: str, command: CarryKeyLink, task: Task) -> Change:
        assert command.id is not None
        key_link_id, target = command.id, None
        if command.link:
            made = CarryKeyLink(link=command.link)
            event = operation_id(tenant, self.name, self.key(made))
            target = Target(event, self.key(made), partial(self.links, made))

        def ties(one: int) -> Mapping[str, Ties]:
            return self.held.links.ties(tenant, _identity(one))

        return Change(self.held, tenant, self.name, key_link_id, ties, command.asked_at, target, task)

    def discarded(self, operation: Operation) -> Ending:
        """See `engine.Discarding`: what a change holds is let go."""
        command = self.command.model_validate_json(operation.payload or "")
        if command.id is None:
            return Finding(self.held.accounts, self.held.clock, operation.tenant, 0, 0)
        return self.change(operation.tenant, command, Task(operation))

    def link_existing(self, tenant: str, command: CarryKeyLink, vendor_id: str) -> StoredKeyLink:  # noqa: ARG002
        if command.id is not None or command.link is None:
            raise ConflictError("A change makes no record that could be linked. Send it again, or discard it.")
        if not re.fullmatch("[1-9][0-9]{0,17}", vendor_id):
            raise InvalidError(
                "Give the key link's id, which is a number.", fields=[FieldError("id", "must be a number")]
            )
        return StoredKeyLink.model_validate({**command.link.model_dump(), "id": int(vendor_id)})

    def verify(self, command: CarryKeyLink, result: StoredKeyLink | DeletedKeyLink, vendor: KeyLinks) -> str | None:
        return vendor.differs(command.link, result.id) if command.link else None

    def links(self, command: CarryKeyLink, result: StoredKeyLink | DeletedKeyLink) -> Sequence[Link]:
        if command.id is not None or command.link is None:
            return ()  # the event of the pair holds them
        entity_type = command.link.entity_type.casefold()
        key_link = _identity(result.id)
        external = Identity(command.link.system.casefold(), entity_type, command.link.external_id)
        internal = Identity(SYSTEM, entity_type, str(command.link.internal_id))
        return [
            Link(left, right, Cardinality.MANY_TO_MANY)
            for left, right in ((external, internal), (external, key_link), (internal, key_link))
        ]


def _identity(key_link_id: int) -> Identity:
    return Identity(SYSTEM, "key_link", str(key_link_id))


def _pair(link: KeyLink | StoredKeyLink) -> str:
    """The event key of the event that says this."""
    system, entity_type = (link.system or "").casefold(), (link.entity_type or "").casefold()
    return joined(system, entity_type, str(link.internal_id), link.external_id)

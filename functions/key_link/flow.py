"""The decisions of key_link: which event it is, how a key link is found, made, changed and deleted, what it links."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar

from crm_bridge.accounts import Accounts, Turns
from crm_bridge.clients.revio import VENDOR, NameKind, RevioClient, RevioKeyLink, RevioNamed, revio_client
from crm_bridge.engine import DUE, Engine, Hit
from crm_bridge.errors import (
    CannotLookError,
    ConflictError,
    FieldError,
    InvalidError,
    MaybeDoneError,
    NoSuchRecordError,
    NotDoneError,
    OpposedError,
    RefusedError,
    RunningError,
    WrongFieldError,
)
from crm_bridge.links import Cardinality, Identity, Link, Links, joined
from crm_bridge.memory import Memory
from crm_bridge.operations import Operation, Operations, State, operation_id
from crm_bridge.settings import Tenant
from crm_bridge.transport import Deadline, Transport
from key_link.models import CarryKeyLink, DeletedKeyLink, KeyLink, KeyLinkSearch, StoredKeyLink

SYSTEM = "revio"
NAMES_MAX_AGE = 3600.0
NAMES_MIN_AGE = 10.0
"""Seconds for which the names that are remembered are believed, and for which one is believed not to be there."""
SHOWN_NAMES = 50
MOST_COMPARED = 100
"""Of so many key links of one record it is found out whether they are linked."""


@dataclass(frozen=True)
class Held:
    """What the bridge itself holds of key links, and has to let go of when one is changed or deleted."""

    links: Links
    operations: Operations
    engine: Engine
    accounts: Accounts
    clock: Callable[[], float]

    def let_go(self, tenant: str, key_link_id: int, *, why: str) -> None:
        """Let the events that had this key link be sent again, and untie what it tied. Raises StorageError.

        This comes after Rev.io did it. If it is cut off, the change is carried again, and does the rest.
        """
        for event, ties in self.links.ties(tenant, _identity(key_link_id)).items():
            operation = self.operations.get(event)
            if operation and operation.answer and _id_in(operation.answer) == key_link_id:
                self.engine.withdraw(operation, by=why)
            if not self.operations.write_unless_succeeded(event, [*ties.own, *ties.others]):
                self.links.write(ties.own)  # the same event has another key link by now, and its partners with it


@dataclass(frozen=True)
class Criteria:
    """What Rev.io is asked for, what its answers must then have (it may compare loosely), and the names of that."""

    search: Mapping[str, str]
    exact: Mapping[str, object]
    names: Mapping[str, str]

    def fit(self, record: RevioKeyLink | StoredKeyLink) -> bool:
        return all(getattr(record, member) == value for member, value in self.exact.items())

    def may_fit(self, record: RevioKeyLink) -> bool:
        """Whatever Rev.io may have made of the text in it."""
        return all(getattr(record, name) == value for name, value in self.exact.items() if isinstance(value, int))

    def stored(self, key_link_id: int) -> StoredKeyLink:
        """Nothing is asked for it: what was done must not fail any more."""
        return StoredKeyLink.model_validate({"id": key_link_id, **self.names, **self.exact})


@dataclass(frozen=True)
class KeyLinks:
    """Rev.io for one tenant within one deadline."""

    flow: "KeyLinkFlow"
    revio: RevioClient
    tenant: str
    deadline: Deadline

    @property
    def destination(self) -> str:
        return self.revio.destination

    @property
    def search_lag(self) -> int:
        return self.revio.search_lag

    def names(self, kind: NameKind, max_age: float = NAMES_MAX_AGE) -> list[RevioNamed]:
        return self.flow.memory.recall((self.destination, kind), lambda: self.revio.names(kind), max_age=max_age)

    def get(self, key_link_id: int) -> StoredKeyLink:
        """Raises NoSuchRecordError."""
        return self._shown(self.revio.key_link(key_link_id))

    def page(self, wanted: KeyLinkSearch) -> tuple[list[StoredKeyLink], bool]:
        """One page, without what does not fit exactly, and whether there are more."""
        criteria = self._criteria(wanted)
        try:
            inferred = {"internal_id": str(wanted.internal_id)} if wanted.internal_id is not None else {}
            found = self.revio.page_of_key_links({**criteria.search, **inferred}, wanted.page, wanted.page_size)
        except RefusedError:  # only the names and the external id are documented as searchable
            found = self.revio.page_of_key_links(criteria.search, wanted.page, wanted.page_size)
        return [self._shown(record) for record in found.key_links if criteria.fit(record)], found.has_more

    def stored(self, link: KeyLink) -> StoredKeyLink | None:
        """The key link that says this already. Several would say the same, so the first will do.

        It is read once more by its id: what a search finds may have been changed or deleted a moment ago.
        """
        criteria = self._criteria(link)
        for found in self.revio.key_links(criteria.search):
            if criteria.fit(found) and (record := self._still(found.id, criteria)):
                return self._shown(record)
        return None

    def made_of(self, link: KeyLink) -> Iterator[Hit[StoredKeyLink | DeletedKeyLink]]:
        """The key link that says this; or else those that may be what Rev.io made of it, and are linked to no event.

        Rev.io's own ids are not altered, so a key link is recognised by them. Raises CannotLookError.
        """
        criteria, compared = self._criteria(link), 0
        try:
            for found in self.revio.key_links_of(link.internal_id, criteria.search):
                if criteria.fit(found):
                    if exact := self._still(found.id, criteria):
                        yield Hit(self._shown(exact), exact.created_at)
                        return
                elif criteria.may_fit(found):
                    compared += 1
                    if compared > MOST_COMPARED or not self._is_linked(found.id):
                        yield Hit(self._shown(found), found.created_at, False, str(found.id), found.external_id)
        except CannotLookError:
            stored = self.stored(link)
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

    def create(self, link: KeyLink) -> StoredKeyLink:
        criteria = self._criteria(link)
        return criteria.stored(self.revio.create_key_link(criteria.exact))

    def change(self, key_link_id: int, link: KeyLink, asked_at: int) -> StoredKeyLink:
        """Raises NoSuchRecordError, OpposedError."""

        def work() -> StoredKeyLink:
            criteria, before = self._criteria(link), self.get(key_link_id)
            if not criteria.fit(before):  # else it was changed before, and only the rest is left to do
                self._wait_for(before, {State.SENDING, State.UNKNOWN})
                self._wait_for(link, DUE)
                others = [self.stored(link), self._shown_to(link)]
                other = next((one.id for one in others if one and one.id != key_link_id), None)
                if other is not None:
                    raise OpposedError(f"Rev.io's key link {other} says this already", vendor=VENDOR)
                self.revio.change_key_link(key_link_id, criteria.exact)
                self._expect_untouched(before)
            self.flow.held.let_go(self.tenant, key_link_id, why=f"a change of key link {key_link_id}")
            return self._recorded(link, criteria.stored(key_link_id))

        # Two key links must not become the same at the same time, so the pair has its turns as well.
        pair = Turns(self.flow.held.accounts, self.flow.held.clock, self.tenant, f"{SYSTEM} {_pair(link)}", VENDOR)
        changed = pair.apply("pair", 0, lambda: self._in_turn(key_link_id, asked_at, work), deadline=self.deadline)
        assert changed  # nothing comes after 0
        return changed

    def delete(self, key_link_id: int, asked_at: int) -> DeletedKeyLink:
        """Also what is gone already, so that repeating it is safe."""

        def work() -> DeletedKeyLink:
            with suppress(NoSuchRecordError):
                before = self.get(key_link_id)
                self._wait_for(before, {State.SENDING, State.UNKNOWN})
                self.revio.delete_key_link(key_link_id)
                self._expect_untouched(before)
            self.flow.held.let_go(self.tenant, key_link_id, why=f"the deletion of key link {key_link_id}")
            return DeletedKeyLink(id=key_link_id)

        return self._in_turn(key_link_id, asked_at, work)

    def _wait_for(self, link: KeyLink | StoredKeyLink, states: Set[State]) -> None:
        """Raises NotDoneError while the event that says this may still find the key link, or make another."""
        event = self._event(link)
        if event and event.state in states:
            raise NotDoneError("an event that says the same is on its way, and comes first", vendor=VENDOR)

    def _expect_untouched(self, before: StoredKeyLink) -> None:
        """Raises MaybeDoneError if an event that came in between may have found what was there before."""
        event = self._event(before)
        if event and event.state is State.SENDING:
            raise MaybeDoneError("an event that came in between may have found it", vendor=VENDOR)

    def _event(self, link: KeyLink | StoredKeyLink) -> Operation | None:
        """The operation by which there is a key link that says this, if the bridge knows of it."""
        return self.flow.held.operations.get(operation_id(self.tenant, KeyLinkFlow.name, _pair(link)))

    def _shown_to(self, link: KeyLink) -> StoredKeyLink | None:
        """The key link that this pair's event was answered with, if Rev.io still has it: its search may be behind."""
        event, criteria = self._event(link), self._criteria(link)
        if event and event.answer:
            with suppress(NoSuchRecordError):
                record = self.revio.key_link(_id_in(event.answer))
                return self._shown(record) if criteria.fit(record) else None
        return None

    def _in_turn[T](self, key_link_id: int, asked_at: int, work: Callable[[], T]) -> T:
        """One change of a key link at a time, and the last one that was asked for counts."""
        held = self.flow.held
        turns = Turns(held.accounts, held.clock, self.tenant, f"{SYSTEM} key_link {key_link_id}", VENDOR)
        done = turns.apply("change", asked_at, work, deadline=self.deadline)
        if done is None:
            raise OpposedError("the key link was changed or deleted by a later request", vendor=VENDOR)
        return done

    def _recorded(self, link: KeyLink, stored: StoredKeyLink) -> StoredKeyLink:
        """Let the event of this pair have this key link, as if it had found it: so it is linked, and not made again."""
        held, event = self.flow.held, self._event(link)
        if event and event.answer and _id_in(event.answer) != stored.id and not self._shown_to(link):
            held.let_go(self.tenant, _id_in(event.answer), why=f"a change of key link {stored.id}")
        flow, command = replace(self.flow, known=stored), CarryKeyLink(link=link)
        try:
            held.engine.run(flow, command, tenant=self.tenant, deadline=self.deadline)
        except RunningError:
            raise MaybeDoneError("the same key link is being made right now", vendor=VENDOR) from None
        return stored

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


@dataclass(frozen=True)
class KeyLinkFlow:
    memory: Memory
    held: Held
    known: StoredKeyLink | None = None
    """The key link that an event is sure to have, so that Rev.io need not be asked."""
    name: ClassVar[str] = "key_link"
    command: ClassVar[type[CarryKeyLink]] = CarryKeyLink

    def vendor(self, tenant: str, settings: Tenant, transport: Transport, deadline: Deadline) -> KeyLinks:
        return KeyLinks(self, revio_client(settings, transport, deadline), tenant, deadline)

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
                stored = self.known or vendor.stored(link)
                return Hit(stored) if stored else vendor.create(link)
            case CarryKeyLink(id=int() as key_link_id, link=KeyLink() as link):
                return vendor.change(key_link_id, link, command.asked_at)
            case CarryKeyLink(id=int() as key_link_id):
                return vendor.delete(key_link_id, command.asked_at)
        raise AssertionError("neither a key link nor the id of one")

    def find(self, command: CarryKeyLink, vendor: KeyLinks) -> Iterable[Hit[StoredKeyLink | DeletedKeyLink]]:
        return vendor.made_of(command.link) if command.link else ()

    def adopt(self, tenant: str, command: CarryKeyLink, vendor_id: str) -> StoredKeyLink:  # noqa: ARG002
        if command.id is not None or command.link is None:
            raise ConflictError("A change makes no record that could be adopted. Send it again, or abandon it.")
        if not re.fullmatch("[1-9][0-9]{0,17}", vendor_id):
            raise InvalidError(
                "Give the key link's id, which is a number.", fields=[FieldError("id", "must be a number")]
            )
        return StoredKeyLink.model_validate({**command.link.model_dump(), "id": int(vendor_id)})

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
    """The natural key of the event that says this."""
    system, entity_type = (link.system or "").casefold(), (link.entity_type or "").casefold()
    return joined(system, entity_type, str(link.internal_id), link.external_id)


def _id_in(answer: str) -> int:
    return StoredKeyLink.model_validate_json(answer).id

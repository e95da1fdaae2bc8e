"""The decisions of key_link: which event it is, how a key link is found, made and changed, what it links."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from crm_bridge.clients.revio import (
    VENDOR,
    NameKind,
    RevioClient,
    RevioKeyLink,
    RevioNamed,
    revio_client,
)
from crm_bridge.engine import Engine, Hit
from crm_bridge.errors import FieldError, InvalidError, NoSuchRecordError, RefusedError, WrongFieldError
from crm_bridge.links import Cardinality, Identity, Link, Links, joined
from crm_bridge.memory import Memory
from crm_bridge.operations import Operations, State, operation_id
from crm_bridge.tenants import Tenant
from crm_bridge.transport import Deadline, Transport
from key_link.models import KeyLink, KeyLinkSearch, StoredKeyLink, StoreKeyLink

NAMES_MAX_AGE = 3600.0
NAMES_MIN_AGE = 10.0
"""Seconds for which the names that are remembered are believed, and for which one is believed not to be there."""
SHOWN_NAMES = 50


@dataclass(frozen=True)
class Held:
    """What the bridge itself holds of key links, and must let go of when one is changed or deleted."""

    links: Links
    operations: Operations
    engine: Engine

    def reopen(self, tenant: str, key_link_id: int, *, by: str, but: str = "") -> None:
        """Let the events that made this key link be sent again, because it will not be theirs any longer.

        This comes before the change, so that no event is answered from the store that is not true at Rev.io. At the
        worst an event is sent again for nothing, and finds its key link there. Raises StorageError.
        """
        for partner in self.links.of(tenant, _identity(key_link_id)):
            operation = self.operations.get(partner.operation_id) if partner.operation_id != but else None
            if operation and operation.state is State.SUCCEEDED:
                self.engine.withdraw(operation, by=by)

    def forget(self, tenant: str, key_link_id: int) -> None:
        """Untie what this key link tied. This comes after the change. Raises StorageError."""
        self.links.forget(tenant, _identity(key_link_id))


@dataclass(frozen=True)
class KeyLinks:
    """Rev.io for one tenant within one deadline, with the names that it has, and what is held of its key links."""

    revio: RevioClient
    memory: Memory
    held: Held
    tenant: str

    @property
    def destination(self) -> str:
        return self.revio.destination

    @property
    def search_lag(self) -> int:
        return self.revio.search_lag

    def names(self, kind: NameKind, max_age: float = NAMES_MAX_AGE) -> list[RevioNamed]:
        return self.memory.recall((self.destination, kind), lambda: self.revio.names(kind), max_age=max_age)

    def get(self, key_link_id: int) -> StoredKeyLink:
        """Raises NoSuchRecordError."""
        return self._shown(self.revio.key_link(key_link_id))

    def page(self, wanted: KeyLinkSearch) -> tuple[list[StoredKeyLink], bool]:
        """One page, without what does not fit exactly, and whether there are more."""
        search, exact = self._criteria(wanted)
        try:
            inferred = {"internal_id": str(wanted.internal_id)} if wanted.internal_id is not None else {}
            found = self.revio.page_of_key_links({**search, **inferred}, wanted.page, wanted.page_size)
        except RefusedError:  # only the names and the external id are documented as searchable
            found = self.revio.page_of_key_links(search, wanted.page, wanted.page_size)
        return [self._shown(record) for record in found.key_links if _is(record, exact)], found.has_more

    def stored(self, command: KeyLink) -> StoredKeyLink | None:
        """The key link that says this already. Several would say the same, so the first will do."""
        search, exact = self._criteria(command)
        record = next((record for record in self.revio.key_links(search) if _is(record, exact)), None)
        return self._shown(record) if record else None

    def create(self, command: KeyLink) -> StoredKeyLink:
        _, members = self._criteria(command)
        return self._shown(RevioKeyLink.model_validate({**members, "id": self.revio.create_key_link(members)}))

    def change(self, key_link_id: int, command: KeyLink) -> StoredKeyLink:
        _, members = self._criteria(command)
        own = operation_id(self.tenant, KeyLinkFlow.name, natural_key(command))
        self.held.reopen(self.tenant, key_link_id, by=f"a change of key link {key_link_id}", but=own)
        self.revio.change_key_link(key_link_id, members)
        self.held.forget(self.tenant, key_link_id)
        return self._shown(RevioKeyLink.model_validate({**members, "id": key_link_id}))

    def delete(self, key_link_id: int, *, by: str) -> None:
        """Also what is gone already, so that repeating it is safe."""
        why = f"{by}, who deleted key link {key_link_id}"
        self.held.reopen(self.tenant, key_link_id, by=why)
        with suppress(NoSuchRecordError):
            self.revio.delete_key_link(key_link_id)
        self.held.reopen(self.tenant, key_link_id, by=why)  # an event may have found it just before
        self.held.forget(self.tenant, key_link_id)

    def _criteria(self, wanted: KeyLink | KeyLinkSearch) -> tuple[dict[str, str], dict[str, object]]:
        """What Rev.io is asked for, and what its answers must then have: it may compare loosely.

        Of a whole key link the latter are its members at Rev.io. Raises WrongFieldError.
        """
        search: dict[str, str] = {}
        exact: dict[str, object] = {}
        if wanted.system is not None:
            system = self._named("system", wanted.system)
            search["system_name"], exact["integration_system_id"] = system.name, system.id
        if wanted.entity_type is not None:
            entity_type = self._named("entity_type", wanted.entity_type)
            search["entity_type_name"], exact["integration_entity_type_id"] = entity_type.name, entity_type.id
        if wanted.internal_id is not None:
            exact["internal_id"] = wanted.internal_id
        if wanted.external_id is not None:
            search["external_id"] = wanted.external_id
            exact["external_id"] = wanted.external_id
        return search, exact

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
    name: ClassVar[str] = "key_link"
    command: ClassVar[type[StoreKeyLink]] = StoreKeyLink

    def vendor(self, tenant: str, settings: Tenant, transport: Transport, deadline: Deadline) -> KeyLinks:
        return KeyLinks(revio_client(settings, transport, deadline), self.memory, self.held, tenant)

    def key(self, command: StoreKeyLink) -> str:
        return natural_key(command)

    def send(self, command: StoreKeyLink, vendor: KeyLinks) -> StoredKeyLink | Hit[StoredKeyLink]:
        if command.id is not None:
            return vendor.change(command.id, command)
        stored = vendor.stored(command)
        return Hit(stored) if stored else vendor.create(command)

    def find(self, command: StoreKeyLink, vendor: KeyLinks) -> Sequence[Hit[StoredKeyLink]]:
        if command.id is not None:
            return ()  # changing it twice is changing it once, so there is nothing to look for
        stored = vendor.stored(command)
        return [Hit(stored)] if stored else ()

    def adopt(self, tenant: str, command: StoreKeyLink, vendor_id: str) -> StoredKeyLink:  # noqa: ARG002
        if not re.fullmatch("[1-9][0-9]{0,17}", vendor_id):
            raise InvalidError(
                "Give the key link's id, which is a number.", fields=[FieldError("id", "must be a number")]
            )
        return StoredKeyLink.model_validate({**command.model_dump(), "id": int(vendor_id)})

    def links(self, command: StoreKeyLink, result: StoredKeyLink) -> Sequence[Link]:
        entity_type = command.entity_type.casefold()
        key_link = _identity(result.id)
        external = Identity(command.system.casefold(), entity_type, command.external_id)
        internal = Identity(VENDOR, entity_type, str(command.internal_id))
        return [
            Link(left, right, Cardinality.MANY_TO_MANY)
            for left, right in ((external, internal), (external, key_link), (internal, key_link))
        ]


def natural_key(command: KeyLink) -> str:
    return joined(
        command.system.casefold(), command.entity_type.casefold(), str(command.internal_id), command.external_id
    )


def _identity(key_link_id: int) -> Identity:
    return Identity(VENDOR, "key_link", str(key_link_id))


def _is(record: RevioKeyLink, exact: Mapping[str, object]) -> bool:
    return all(getattr(record, member) == value for member, value in exact.items())

"""Lead sources: one list, of what Egito's dictionary has and of what the bridge keeps besides.

The bridge keeps what the dictionary cannot take: new ones, other names, and which are no longer in use.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from connector_receiver.models import LeadSource
from crm_bridge.cache import Cache
from crm_bridge.errors import StorageError
from crm_bridge.fields import normalized
from crm_bridge.outbound.transport import Scope
from crm_bridge.storage.documents import Change, Document, Documents
from crm_bridge.storage.links import joined
from crm_bridge.vendors.egito import Egito, EgitoEntry

MAX_AGE = 300.0
"""Seconds for which a remembered dictionary is believed. What it lacks may have been made a moment ago."""
MOST_TRIES = 30
OURS = "ls_"
"""The prefix of the ids of the bridge's own lead sources."""


@dataclass(frozen=True)
class LeadSources:
    """A tenant's. Raises VendorError, StorageError."""

    egito: Egito
    dictionary: str | None
    documents: Documents
    cache: Cache
    scope: Scope

    def entries(self, max_age: float = 0) -> list[EgitoEntry]:
        """Return the dictionary's entries; none if there is no dictionary."""
        kind = self.dictionary
        if kind is None:
            return []
        key = (self.egito.destination, "dictionary", kind)
        return self.cache.get_or_load(self.scope, key, lambda: self.egito.dictionary(kind), max_age=max_age)

    def all(self, max_age: float = 0, read: Document | None = None) -> list[LeadSource]:
        """Return all lead sources. `read`: the bridge's document, if it was just read."""
        return self._merged(self.entries(max_age), (read or self.documents.get(self._key)).content)

    def in_dictionary(self, name: str) -> LeadSource | None:
        """Return the entry of the dictionary with this name."""
        entries = self.entries()
        ids = {entry.id for entry in entries}
        known = [one for one in self._merged(entries, self.documents.get(self._key).content) if one.id in ids]
        return matching(known, name, by_id=False)

    def find(self, given: str, read: Document | None = None) -> LeadSource | None:
        """Return the one with this id, else with this name. `read`: the bridge's document, if it was just read."""
        for max_age in (MAX_AGE, 0):
            if found := matching(self.all(max_age, read if max_age else None), given):
                return found
        return None

    def add(self, name: str) -> tuple[LeadSource, bool]:
        """Return the one with this name, which the bridge stores unless it exists; and whether it is new."""
        entries = self.entries()
        for _ in range(MOST_TRIES):
            document = self.documents.get(self._key)
            if there := matching(self._merged(entries, document.content), name, by_id=False):
                return there, False
            new = LeadSource(id=f"{OURS}{uuid.uuid4().hex[:12]}", name=name)
            kept = {**document.content, new.id: {"name": name, "active": True}}
            if self.documents.write({self._key: Change(document, kept)}):
                return new, True
        raise StorageError("Too many changes of lead sources at once. Send the same request again.")

    def keep(self, lead_source: LeadSource, *, name_is_egitos: bool) -> None:
        """Store the name and the state of a lead source that the list shows, where Egito cannot store them."""
        there = [entry.name for entry in self.entries(MAX_AGE) if entry.id == lead_source.id]
        is_egitos = name_is_egitos or there == [lead_source.name]
        for _ in range(MOST_TRIES):
            document = self.documents.get(self._key)
            told = {"name": None if is_egitos else lead_source.name, "active": lead_source.active}
            place = self._place(lead_source.id)
            if document.content.get(place) == told:
                return
            if self.documents.write({self._key: Change(document, {**document.content, place: told})}):
                return
        raise StorageError("Too many changes of lead sources at once. Send the same request again.")

    @property
    def _key(self) -> str:
        return document_key(self.scope.tenant)

    def _place(self, lead_source_id: str) -> str:
        """Return its key in the document. An entry's key names this Egito: in another the same id is another entry."""
        is_ours = lead_source_id.startswith(OURS)
        return lead_source_id if is_ours else joined(self.egito.destination, lead_source_id)

    def _merged(self, entries: list[EgitoEntry], kept: Mapping[str, Any]) -> list[LeadSource]:
        ours = {one: told for one, told in kept.items() if one.startswith(OURS)}
        egitos = {entry.id: {"name": entry.name, "active": True} for entry in entries}
        for one, told in egitos.items():
            told |= {name: value for name, value in kept.get(self._place(one), {}).items() if value is not None}
        return [LeadSource(id=one, **told) for one, told in (egitos | ours).items()]


def document_key(tenant: str) -> str:
    """Return the key of the document in which the bridge keeps a tenant's lead sources."""
    return joined(tenant, "lead sources")


def matching(lead_sources: list[LeadSource], given: str, *, by_id: bool = True) -> LeadSource | None:
    """Return the one with this id, unless `by_id` is false, else the one with this name; None if there is none."""
    wanted = plain(given)
    by_ids = [one for one in lead_sources if by_id and one.id == given.strip()]
    by_name = [one for one in lead_sources if plain(one.name) == wanted]
    return next(iter(by_ids + by_name), None)


def plain(name: str) -> str:
    """Return a name as it is compared: without case, spaces around it, and differences in how accents are written."""
    return normalized(normalized(name).casefold()).strip()

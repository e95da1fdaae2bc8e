"""Reads key links at Rev.io: the names of systems and entity types, searches, and the key link of an event's ids."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from crm_bridge import Context
from crm_bridge.errors import FieldError, InvalidError, NoSuchRecordError, RefusedError, WrongFieldError
from crm_bridge.ids import canonical, forms
from crm_bridge.vendors.revio import VENDOR, NameKind, Revio, RevioKeyLink, RevioNamed
from key_link.change import identity
from key_link.models import KeyLink, KeyLinkSearch, StoredKeyLink

NAMES_MAX_AGE = 3600.0
NAMES_MIN_AGE = 10.0
"""Seconds for which the names that are remembered are believed, and for which one is believed not to be there."""
SHOWN_NAMES = 50
KINDS: tuple[NameKind, NameKind] = ("system", "entity_type")


@dataclass(frozen=True)
class Criteria:
    """The parameters of a search, the values that a result must have (Rev.io may compare loosely), and their names."""

    search: Mapping[str, str]
    exact: Mapping[str, object]
    names: Mapping[str, str]

    def fit(self, record: RevioKeyLink | StoredKeyLink) -> bool:
        return all(
            canonical(str(getattr(record, member))) == canonical(str(value)) for member, value in self.exact.items()
        )

    def searches(self) -> list[Mapping[str, str]]:
        """Return one search for each form in which Rev.io may have the external id."""
        wanted = self.search.get("external_id")
        return [{**self.search, "external_id": form} for form in forms(wanted)] if wanted else [self.search]

    def may_fit(self, record: RevioKeyLink) -> bool:
        """Return whether it may be the one, whatever Rev.io has made of its text."""
        return all(getattr(record, name) == value for name, value in self.exact.items() if isinstance(value, int))

    def stored(self, key_link_id: int) -> StoredKeyLink:
        """Nothing is asked for it: what was done must not fail any more."""
        return StoredKeyLink.model_validate({"id": key_link_id, **self.names, **self.exact})


@dataclass(frozen=True)
class KeyLinks:
    """The key links of one tenant's account, within one run."""

    context: Context
    revio: Revio

    def names(self, kind: NameKind, max_age: float = NAMES_MAX_AGE) -> list[RevioNamed]:
        what = (self.revio.destination, kind)
        return self.context.services.cache.get_or_load(
            self.context.scope, what, lambda: self.revio.names(kind), max_age=max_age
        )

    def get(self, key_link_id: int) -> StoredKeyLink:
        """Raises NoSuchRecordError."""
        return self.to_stored(self.revio.key_link(key_link_id))

    def page(self, wanted: KeyLinkSearch) -> tuple[list[StoredKeyLink], bool]:
        """Return one page, without what does not fit exactly, and whether there are more."""
        criteria = self.criteria(wanted)
        inferred = {"internal_id": str(wanted.internal_id)} if wanted.internal_id is not None else {}
        for search in criteria.searches():
            try:
                found, has_more = self.revio.page_of_key_links({**search, **inferred}, wanted.page, wanted.page_size)
            except RefusedError:  # only the names and the external id are documented as searchable
                found, has_more = self.revio.page_of_key_links(search, wanted.page, wanted.page_size)
            fitting = [self.to_stored(record) for record in found if criteria.fit(record)]
            if fitting or has_more:
                break
        return fitting, has_more

    def stored(self, link: KeyLink) -> StoredKeyLink | None:
        """Return the key link that says this already. Several would say the same, so the first will do.

        It is read once more by its id: what a search finds may have been changed or deleted a moment ago.
        """
        criteria = self.criteria(link)
        for found in (one for search in criteria.searches() for one in self.revio.key_links(search)):
            if criteria.fit(found) and (record := self.reread(found.id, criteria)):
                return self.to_stored(record)
        return None

    def reread(self, key_link_id: int, criteria: Criteria) -> RevioKeyLink | None:
        """Return the key link as it is now: what a search finds may have been changed or deleted a moment ago."""
        with suppress(NoSuchRecordError):
            record = self.revio.key_link(key_link_id)
            return record if criteria.fit(record) else None
        return None

    def is_linked(self, key_link_id: int) -> bool:
        return bool(self.context.links.of(self.context.tenant, identity(key_link_id)))

    def differs(self, link: KeyLink, key_link_id: int) -> str | None:
        """Return what of the external id differs at Rev.io; None if the key link with this id says just this.

        Raises NoSuchRecordError; InvalidError if it is of another record, system or entity type.
        """
        criteria, record = self.criteria(link), self.revio.key_link(key_link_id)
        if criteria.fit(record):
            return None
        unalterable = {name: value for name, value in criteria.exact.items() if name != "external_id"}
        if not replace(criteria, exact=unalterable).fit(record):
            raise InvalidError(
                "Rev.io's key link with this id is of another internal id, system or entity type.",
                fields=[FieldError("id", "is the id of another pair's key link")],
            )
        return "Rev.io's key link with this id has another external id"

    def criteria(self, wanted: KeyLink | KeyLinkSearch) -> Criteria:
        """Raises WrongFieldError."""
        search: dict[str, str] = {}
        exact: dict[str, object] = {}
        names: dict[str, str] = {}
        for kind in KINDS:
            if (name := getattr(wanted, kind)) is not None:
                named = self._by_name(kind, name)
                search[f"{kind}_name"] = names[kind] = named.name
                exact[f"integration_{kind}_id"] = named.id
        if wanted.internal_id is not None:
            exact["internal_id"] = wanted.internal_id
        if wanted.external_id is not None:
            search["external_id"] = wanted.external_id
            exact["external_id"] = wanted.external_id
        return Criteria(search, exact, names)

    def _by_name(self, kind: NameKind, name: str) -> RevioNamed:
        """Raises WrongFieldError, which lists the names that there are."""
        for max_age in (NAMES_MAX_AGE, NAMES_MIN_AGE):  # Rev.io may have got a new one
            named = self.names(kind, max_age)
            hits = [one for one in named if one.name.casefold() == name.casefold()]
            if len(hits) == 1:
                return hits[0]
        there_are = ", ".join(one.name for one in named[:SHOWN_NAMES]) or "none at all"
        message = f"Rev.io has {'several' if hits else 'none'} of this name; there are {there_are}"
        raise WrongFieldError(message, vendor=VENDOR, field=kind)

    def to_stored(self, record: RevioKeyLink) -> StoredKeyLink:
        systems, entity_types = ({one.id: one.name for one in self.names(kind)} for kind in KINDS)
        names = {
            "system": systems.get(record.integration_system_id),
            "entity_type": entity_types.get(record.integration_entity_type_id),
        }
        return StoredKeyLink.model_validate({**names, **record.model_dump(mode="json")})

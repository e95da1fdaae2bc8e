"""The mappings in a tenant's document: found by name, run on their samples, and stamped with the time of storing."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import JsonValue

from cli.command import WrongInputError
from crm_bridge.errors import FieldError
from crm_bridge.mapping import PayloadMapping
from crm_bridge.settings import Tenant
from crm_bridge.trial import Checked, Target, check_samples
from operations.mappings import targets
from sources.trying import target_of

SAYS = ("built_in", "version", "expression", "when", "flow")
"""Members of a mapping; another value of one makes another version."""
STORED_AT, SAMPLES = "stored_at", "samples"


@dataclass(frozen=True)
class StoredMapping:
    """A mapping of a flow's own route, or an entry of a source."""

    name: str
    """As the API names it: `create_site`, `hubspot/0`."""
    target: Target
    mapping: PayloadMapping
    place: tuple[str | int, ...]
    """Where it is in the tenant's document."""
    when: str | None = None

    def checked(self) -> list[Checked]:
        """Return what it makes of its samples."""
        return check_samples(self.target, self.mapping)


def stored_mappings(tenant: Tenant) -> dict[str, StoredMapping]:
    """Return all mappings of a tenant by their names."""
    found = {}
    for name, target in targets().items():
        if mapping := tenant.mappings.of(target.function):
            found[name] = StoredMapping(name, target, mapping, ("mappings", target.function))
    now = datetime.now(UTC).timestamp()
    for source, settings in tenant.all_sources().items():
        for number, entry in enumerate(settings.events):
            if at := target_of(source, settings, number, now):
                name = f"{source}/{number}"
                found[name] = StoredMapping(name, at, entry.mapping, ("sources", source, "events", number), entry.when)
    return found


def find_mapping(tenant: str, there: Mapping[str, StoredMapping], wanted: str) -> StoredMapping:
    """Return a mapping by its name, or by source and flow if that is one only. Raises WrongInputError."""
    source, _, flow = wanted.partition("/")
    alike = [one for one in there.values() if one.place[:2] == ("sources", source) and one.target.flow == flow]
    if wanted in there or len(alike) == 1:
        return there.get(wanted) or alike[0]
    if not there:
        raise WrongInputError(f"{tenant} has no mapping.")
    raise WrongInputError(f"{tenant} has no mapping {wanted}. There are {', '.join(there)}.")


def entry_of(document: Any, place: tuple[str | int, ...]) -> dict[str, Any]:
    """Return what is at a place in a document; nothing is an empty object, which is put there."""
    for part in place:
        document = document.setdefault(part, {}) if isinstance(document, dict) else document[part]
    found: dict[str, Any] = document
    return found


# ---------------------------------------------------------------------- samples


def run_samples(tenant: Tenant, document: str, *, accept: bool) -> tuple[str, list[FieldError]]:
    """Return the document, in which with `accept` what is made of samples now is what is expected; and what was new.

    Raises WrongInputError if a sample comes out otherwise, or as no valid command, which cannot be accepted.
    """
    changed: list[FieldError] = []
    failed: list[FieldError] = []
    whole = json.loads(document)
    for stored in stored_mappings(tenant).values():
        for sample in stored.checked():
            place = f"{stored.name}, sample {sample.name}"
            failed += [FieldError(f"{place}, {one.field}", one.message) for one in sample.errors]
            changed += [
                FieldError(f"{place}, {one.field}", f"expected {_text(one.before)}, made {_text(one.after)}")
                for one in sample.differences
            ]
            if sample.differences and accept:
                entry_of(whole, (*stored.place, SAMPLES, sample.name))["command"] = sample.made
    if failed:
        raise WrongInputError("A sample is no valid command any more. Nothing was stored.", (*failed, *changed))
    if changed and not accept:
        raise WrongInputError(
            "The results of samples differ. Nothing was stored. To expect the new results, give --accept.",
            tuple(changed),
        )
    return (_written(whole, document) if changed else document), changed


def with_samples(document: str, before: str) -> str:
    """Return a document in which a mapping that says nothing of samples keeps those that it had.

    So whoever stores a file does not lose what the file does not have. `"samples": {}` removes them.
    """
    whole, old = json.loads(document), dict(_entries(json.loads(before)))
    for place, entry in _entries(whole):
        alike = [one for known, one in old.items() if known[0] == place[0] and one.get("flow") == entry.get("flow")]
        same = [one for one in alike if one.get("when") == entry.get("when")]
        found = next(iter(same), old.get(place) if old.get(place) in alike else None)
        if SAMPLES not in entry and found and found.get(SAMPLES):
            entry[SAMPLES] = found[SAMPLES]
    return _written(whole, document)


def _written(whole: object, document: str) -> str:
    """Return a document that was changed; white space at its end is kept, for it makes another version of a secret."""
    return json.dumps(whole, indent=2, ensure_ascii=False) + document[len(document.rstrip()) :]


def _text(value: JsonValue) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)


# ---------------------------------------------------------------------- the time of storing


def stamped(document: str, before: str, now: datetime) -> str:
    """Return a document in which each mapping has the time at which this version of it was stored."""
    whole = json.loads(document)
    stamps = {_version(place[0], entry): entry.get(STORED_AT) for place, entry in _entries(json.loads(before))}
    for place, entry in _entries(whole):
        entry.pop(STORED_AT, None)
        stamp = stamps.get(_version(place[0], entry), now.isoformat(timespec="seconds"))
        if stamp is not None:  # else it was stored by hand, or by an earlier command line
            entry[STORED_AT] = stamp
    return _written(whole, document)


def without_stamps(document: str) -> str:
    """Return a document as somebody writes it."""
    whole = json.loads(document)
    for _, entry in _entries(whole):
        entry.pop(STORED_AT, None)
    return json.dumps(whole, indent=2, ensure_ascii=False)


def _entries(document: Any) -> Iterator[tuple[tuple[str, int], dict[str, Any]]]:
    """Yield the mappings in a document: where each belongs, with its number there, and the mapping itself."""
    for function, mapping in (document.get("mappings") or {}).items():
        if isinstance(mapping, dict):
            yield (f"mappings.{function}", 0), mapping
    for source, settings in (document.get("sources") or {}).items():
        for number, entry in enumerate(settings.get("events", ())):
            yield (f"sources.{source}", number), entry


def _version(place: str, entry: Mapping[str, Any]) -> tuple[object, ...]:
    return place, *(entry.get(name) for name in SAYS)

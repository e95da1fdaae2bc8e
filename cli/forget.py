"""`crm-bridge forget`: erase the bridge's data about one customer, ticket or person. Nothing is changed at a vendor.

docs/privacy.md lists where the bridge keeps data, and for how long.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import batched
from typing import Annotated, Any

import typer

from cli.bridge import Bridge
from cli.command import DryRun, Name, WrongInputError, Yes
from cli.progress import progress_of
from cli.prompts import confirm
from connector_receiver.people import People
from connector_receiver.person_records import CreatePersonRecord, kind
from connector_receiver.records import ChangeRecord, CreateRecord, DeleteRecord, in_crm, turns_of_record
from connector_receiver.saves import SavePerson
from crm_bridge.engine import KEEP, REPLACEABLE
from crm_bridge.ids import canonical
from crm_bridge.storage.links import Identity, joined, parted
from crm_bridge.storage.operation import Operation, State, operation_id
from crm_bridge.storage.requests import StoredRequest
from crm_bridge.webhooks import FLOW as WEBHOOK
from operations.flows import flows, searched_kinds
from operations.handler import FIRST_LOOKED_AT

PERSON = ("connector", "person")
PAIRS = 20
"""Links that are deleted at once: DynamoDB reads at most 100 items by their keys, and a pair may be 4."""
DAY = 24 * 3600


@dataclass
class _Found:
    """The data about one id: `ids` belong to it, `others` are linked to it and stay."""

    ids: list[Identity] = field(default_factory=list)
    others: list[Identity] = field(default_factory=list)
    links: dict[str, list[tuple[Identity, Identity]]] = field(default_factory=dict)
    """By the operation that made them."""
    operations: dict[str, Operation] = field(default_factory=dict)
    """In an order in which each is found by those before it."""
    records: list[Identity] = field(default_factory=list)
    """Those that are no CRM's: also Egito's records that are deleted by now, to which no link leads."""
    requests: list[StoredRequest] = field(default_factory=list)
    """Requests that carried one of the ids."""

    @property
    def people(self) -> list[str]:
        return [one.id for one in self.ids if (one.system, one.entity) == PERSON]

    def report(self, tenant: str) -> dict[str, Any]:
        return {
            "tenant": tenant,
            "ids": list(map(_name, self.ids)),
            "operations": len(self.operations),
            "links": sum(map(len, self.links.values())),
            "people": len(self.people),
            "requests": len(self.requests),
            "stays_at_vendors": [_name(one) for one in self.ids if one.system not in ("crm", "connector", "intouch")],
            "linked_and_not_erased": list(map(_name, self.others)),
        }


def forget(
    bridge: Bridge,
    name: Name,
    wanted: Annotated[
        str,
        typer.Argument(metavar="ID", help="The CRM's or a vendor's id; or with its kind, as crm/customer/C-1001."),
    ],
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Erase what the bridge keeps about a customer, a ticket or a person, for instance because they ask for it.

    The records at the vendors stay: the report lists them. Let the CRM stop sending events about them first.
    """
    output, found = bridge.output, _find(bridge, name, wanted)
    unfinished = [one for one in found.operations.values() if one.state not in REPLACEABLE | {State.SUCCEEDED}]
    report = found.report(name)
    if not (found.operations or found.links or found.people or found.requests):
        bridge.expect_tenant(name)
        raise WrongInputError(f'No data found for "{wanted}". Give SYSTEM/ENTITY/ID, for instance crm/customer/C-1001.')
    output.table(
        ("where", "what", "number"),
        [
            ("operations", ", ".join(sorted({one.flow for one in found.operations.values()})), report["operations"]),
            ("links", ", ".join(report["ids"]), report["links"]),
            ("people", "hashes of names, e-mails and mobiles", report["people"]),
            ("requests", "refused, or in quarantine", report["requests"]),
        ],
    )
    if found.others:
        output.line(f"Linked, and not erased: {', '.join(report['linked_and_not_erased'])}.")
    if unfinished:
        raise WrongInputError(
            f"Nothing was erased: {', '.join(one.operation_id for one in unfinished)} "
            "are not finished. Wait until they are, or decide about each: "
            f"`{output.command('operations resolve OPERATION ...')}`."
        )
    if dry_run:
        output.document({**report, "dry_run": True})
        return
    if not yes:
        confirm("Erase this? It cannot be undone.")
    _erase(bridge, name, found)
    output.document(report)
    output.line(
        f"Erased. For {KEEP // DAY} days the bridge keeps a hash of each event's id, so that a late repetition is not "
        "sent again. Backups of the tables keep the data for up to 35 days."
    )
    if vendors := report["stays_at_vendors"]:
        output.line(f"These records stay at the vendors. Erase them there: {', '.join(vendors)}.")


def _name(one: Identity) -> str:
    return f"{one.system}/{one.entity}/{one.id}"


def _find(bridge: Bridge, tenant: str, wanted: str) -> _Found:
    """Return the data about the id `wanted`. Raises WrongInputError if several records have it."""
    parts = wanted.split("/", 2)
    its_kind = (parts[0].casefold(), parts[1].casefold()) if len(parts) == 3 else None
    record = parts[-1] if its_kind else wanted
    starts = [Identity(*one, record) for one in ([its_kind] if its_kind else [*searched_kinds(), PERSON])]
    linked = [one for one in starts if bridge.runtime.links.of(tenant, one)]
    if len(linked) > 1:
        raise WrongInputError(f"Several records have this id. Give one of {', '.join(map(_name, linked))}.")
    found = _Found()
    _follow(bridge, tenant, linked or (starts if its_kind else []), found)
    of_kind = [flow for flow, declared in flows().items() if its_kind in (None, declared.about)]
    ids = list(dict.fromkeys((*found.links, *(operation_id(tenant, flow, record) for flow in of_kind))))
    operations = bridge.runtime.operations.many(ids)
    ours = [it for one in ids if (it := operations.get(one)) and it.tenant == tenant and not it.is_erased]
    found.operations = {one.operation_id: one for one in ours}
    for more in (_of_records, _of_people, _webhooks):
        for one in [*more(bridge, tenant, found)]:
            found.operations[one.operation_id] = one
    carried = dict.fromkeys((record, *(one.id for one in found.ids)))
    requests = [one for carried_id in carried for one in bridge.runtime.requests.of(tenant, carried_id)]
    found.requests = list({one.id: one for one in requests}.values())
    return found


def _follow(bridge: Bridge, tenant: str, starts: Sequence[Identity], found: _Found) -> None:
    """Collect what belongs to `starts`: of a customer its site and the site's jobs, but of a job not its site.

    A record belongs to another if it can be linked to one of that kind only.
    """
    links = bridge.runtime.links
    found.ids += starts
    for one in found.ids:  # which grows meanwhile
        for partner in links.of(tenant, one):
            other = partner.identity
            found.links.setdefault(partner.operation_id, []).append((one, other))
            if other in found.ids or other in found.others:
                continue
            only = links.one(tenant, other, one.system, one.entity)
            belongs = only is not None and canonical(only.id) == canonical(one.id)
            (found.ids if belongs else found.others).append(other)


def _of_records(bridge: Bridge, tenant: str, found: _Found) -> Iterator[Operation]:
    """Return the operations of Egito's records: no link leads to their changes, nor to a deleted record."""
    ours = [one for one in found.ids if one.system == "crm"]
    found.records = [one for one in found.ids if one.system != "crm"]
    for operation in _with_entity(bridge, tenant, CreateRecord.name, ours):
        linked = [one for pair in operation.links for one in pair]
        if any(mine.is_same(one) for mine in ours for one in [*linked, *_named(operation)]):
            yield operation
            found.records += [one for one in linked if one.system != "crm" and one not in found.records]
    for flow in (ChangeRecord.name, DeleteRecord.name):
        for operation in _with_entity(bridge, tenant, flow, [*found.records, *ours]):
            entity, record_id, *more = parted(operation.event_key)
            record = Identity(*kind(operation.sent_to or "", entity), record_id)
            if len(more) > 1:  # a later payload of the event that makes the record
                record = in_crm(entity, record_id)
            if any(record.is_same(one) for one in [*found.records, *ours]):
                yield operation


def _with_entity(bridge: Bridge, tenant: str, flow: str, records: Sequence[Identity]) -> Iterator[Operation]:
    """Return a flow's operations of the entities of these records, which are the first part of an event key."""
    entities = {one.entity for one in records}
    summaries = bridge.listed(tenant, FIRST_LOOKED_AT, flow) if entities else ()
    ids = [one.operation_id for one in summaries if parted(one.event_key)[0].casefold() in entities]
    yield from bridge.runtime.operations.many(ids).values()


def _named(operation: Operation) -> Iterator[Identity]:
    """Return the record in the CRM as a new record's event names it: by its key, and in its payload."""
    entity, key = parted(operation.event_key)
    yield in_crm(entity, key)
    if operation.payload and (external_id := json.loads(operation.payload)["external_id"]):
        yield in_crm(entity, external_id)


def _of_people(bridge: Bridge, tenant: str, found: _Found) -> Iterator[Operation]:
    """Return the saves of a person, to which no link leads."""
    people = tuple(f"{joined(person)}#" for person in found.people)
    for flow in (SavePerson.name, CreatePersonRecord.name):
        yield from _that_begin(bridge, tenant, flow, people)


def _webhooks(bridge: Bridge, tenant: str, found: _Found) -> Iterator[Operation]:
    """Return the webhooks about what was found."""
    yield from _that_begin(bridge, tenant, WEBHOOK, tuple(f"{one}_" for one in found.operations))


def _that_begin(bridge: Bridge, tenant: str, flow: str, beginnings: tuple[str, ...]) -> Iterator[Operation]:
    """Return a flow's operations whose event keys begin with one of these."""
    summaries = bridge.listed(tenant, FIRST_LOOKED_AT, flow) if beginnings else ()
    ids = [one.operation_id for one in summaries if one.event_key.startswith(beginnings)]
    yield from bridge.runtime.operations.many(ids).values()


def _erase(bridge: Bridge, tenant: str, found: _Found) -> None:
    """Erase it. Raises WrongInputError if something is being sent; the same command resumes.

    What leads to the rest is erased last. So the same command finds all that is left after it was interrupted.
    """
    runtime = bridge.runtime
    with progress_of(bridge.output, "erasing", len(found.operations) + len(found.people)) as progress:
        for person in found.people:
            if not runtime.locks.erase(tenant, joined("connector person", person), now=int(runtime.clock() * 1000)):
                raise WrongInputError("A save of this person is being sent. Run the same command again in a minute.")
            People(runtime.people, runtime.links, tenant, "", runtime.clock).erase(person)
            progress.advance("people")
        for request in found.requests:
            runtime.requests.erase(request)
        for record in found.records:
            if not runtime.locks.erase(tenant, turns_of_record(record), now=int(runtime.clock() * 1000)):
                raise WrongInputError("A change of this record is being sent. Run the same command again in a minute.")
        for operation in reversed(found.operations.values()):
            runtime.engine.erase(operation, by=bridge.user)
            progress.advance("operations")
        for linked_by, pairs in reversed(found.links.items()):
            for some in batched(reversed(pairs), PAIRS, strict=False):
                if writes := runtime.links.releases(tenant, some, linked_by):
                    runtime.links.write(writes)

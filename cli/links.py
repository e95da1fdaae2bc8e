"""`crm-bridge links`: which id belongs to which; found, exported and imported."""

import csv
import json
import re
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ConfigDict

from cli.bridge import Bridge
from cli.cells import escaped, opened
from cli.command import DryRun, File, Name, NotAllWellError, Yes, command
from cli.output import visible
from cli.progress import progress_of
from cli.prompts import confirm
from cli.rows import rows
from create_job.flow import CreateJob
from create_job.models import JobCreated
from create_site.flow import CreateSite
from create_site.models import SiteCreated
from crm_bridge import Flow
from crm_bridge.errors import ConflictError, NotFoundError
from crm_bridge.fields import Id
from crm_bridge.ids import canonical
from crm_bridge.inbound.api import validated
from crm_bridge.storage.dynamodb import deserialize, guarded, serialize
from crm_bridge.storage.links import Cardinality, Identity, Link, joined
from crm_bridge.storage.operation import Operation
from operations.models import LinkSearch

COLUMNS = ("system", "entity", "id", "partner_system", "partner_entity", "partner_id", "operation_id", "linked_at")

app = typer.Typer(help="Links: which id belongs to which.", no_args_is_help=True)


@dataclass(frozen=True)
class StoredLink:
    """A link as it is stored, from one of its two ends."""

    left: Identity
    right: Identity
    operation_id: str
    linked_at: int

    def cells(self) -> tuple[object, ...]:
        left, right = self.left, self.right
        ends = (left.system, left.entity, left.id, right.system, right.entity, right.id)
        return *ends, self.operation_id, self.linked_at

    def document(self) -> dict[str, object]:
        return dict(zip(COLUMNS, self.cells(), strict=True))


class LinkRow(BaseModel):
    """A line of a file of links; only its ends count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: Id
    entity: Id
    id: Id
    partner_system: Id
    partner_entity: Id
    partner_id: Id
    operation_id: str = ""
    linked_at: str = ""

    def ends(self) -> tuple[Identity, Identity]:
        """Return both ends, in whichever order the file has them: the CRM's first, and a job before its site."""
        left = Identity(self.system.casefold(), self.entity.casefold(), self.id)
        right = Identity(self.partner_system.casefold(), self.partner_entity.casefold(), self.partner_id)
        kinds = (left.system, left.entity), (right.system, right.entity)
        return (left, right) if kinds in _KINDS else (right, left)


CUSTOMER, TICKET, SITE, JOB = ("crm", "customer"), ("crm", "ticket"), ("illu", "site"), ("illu", "job")
_KINDS = {(CUSTOMER, SITE), (TICKET, JOB), (JOB, SITE)}


@command(app)
def find(
    bridge: Bridge,
    name: Name,
    system: Annotated[str, typer.Argument(help="The system of the record: crm, illu, revio, salesforce, ...")],
    entity: Annotated[str, typer.Argument(help="The kind of record: customer, ticket, site, job, key_link, ...")],
    record: Annotated[str, typer.Argument(metavar="ID", help="The id of the record in that system.")],
) -> None:
    """Find the records that a record is linked to."""
    identity = validated(LinkSearch, {"system": system, "entity": entity, "id": record}).identity
    partners = bridge.runtime.links.of(name, identity)
    if not partners:
        bridge.expect_tenant(name)
        raise NotFoundError(f"{system} {entity} {record} has no links.")
    found = [StoredLink(identity, one.identity, one.operation_id, int(one.linked_at.timestamp())) for one in partners]
    bridge.output.document([one.document() for one in found])
    bridge.output.table(("system", "entity", "id", "operation"), [one.cells()[3:7] for one in found])


@command(app)
def export(
    bridge: Bridge,
    name: Name,
    file: Annotated[Path, typer.Argument(help="The file to write; - for standard output.")] = Path("-"),
) -> None:
    """Export all links of a tenant as CSV, each once. The whole table of links is read."""
    found = list(stored(bridge, name))
    if not found:
        bridge.expect_tenant(name)
    if bridge.output.as_json:
        bridge.output.document([one.document() for one in found])
        return
    with nullcontext(sys.stdout) if str(file) == "-" else opened(file) as target:
        safe = visible if target.isatty() else str
        writer = csv.writer(target, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((safe(escaped(cell)) for cell in one.cells()) for one in found)
    bridge.output.notice(f"Links written: {len(found):,}.")


@command(app, "import")
def import_links(bridge: Bridge, name: Name, file: File, dry_run: DryRun = False, yes: Yes = False) -> None:
    """Import links of customers and tickets that are sites and jobs at illu already, so that they are not made again.

    The file has the form of `links export`. Nothing is sent. Key links are found at Rev.io by `import key-links`.
    """
    output = bridge.output
    wrong, records = _read(file)
    bridge.expect_tenant(name)
    known = bridge.runtime.operations.many([one.operation_id(name) for one in records])
    new = [one for one in records if one.operation_id(name) not in known]
    for one in records:
        operation = known.get(one.operation_id(name))
        if operation and not one.is_result_of(operation):
            wrong[one.line] = f"{one.event_key} has another result or is not finished: {operation.state}"
    for line, problem in sorted(wrong.items()):
        output.line(f"line {line}: {problem}", style="red")
    counts = {"new": len(new), "known_already": len(records) - len(new)}
    report = {**counts, "wrong": [{"line": line, "detail": problem} for line, problem in wrong.items()]}
    output.line(f"{len(new):,} new, {counts['known_already']:,} known already, {len(wrong):,} invalid.")
    refused: list[dict[str, object]] = []
    if dry_run or not new:
        output.document({"dry_run": dry_run, **report, "written": 0})
    else:
        if not yes:
            confirm(f"Write {len(new):,} links?")
        with progress_of(output, "links", len(new)) as progress:
            for one in new:
                try:
                    one.store(bridge, name)
                    progress.advance("written")
                except ConflictError as error:
                    refused.append({"line": one.line, "detail": error.detail})
                    output.line(f"line {one.line}: {error.detail}", style="red")
                    progress.advance("refused")
        output.document({"dry_run": False, **report, "written": len(new) - len(refused), "refused": refused})
        output.line(f"{len(new) - len(refused):,} written.")
    if wrong or refused:
        raise NotAllWellError


def stored(bridge: Bridge, tenant: str) -> Iterator[StoredLink]:
    """Return every link once, although both directions are stored. Raises StorageError."""
    pages = bridge.dynamodb.get_paginator("scan").paginate(
        TableName=bridge.links_table,
        FilterExpression="begins_with(#identity, :tenant)",
        ExpressionAttributeNames={"#identity": "identity"},
        ExpressionAttributeValues=serialize({":tenant": joined(tenant, "")}),
    )
    with guarded():
        estimate = bridge.dynamodb.describe_table(TableName=bridge.links_table)["Table"]["ItemCount"]
        items = []
        with progress_of(bridge.output, "reading links", estimate) as progress:
            for page in pages:
                items += [deserialize(item) for item in page["Items"]]
                progress.advance("read", page["ScannedCount"])
    # The key has an id's canonical form, and the link in the other direction the form in which it was sent.
    partners = [Identity(*(str(item[f"partner_{part}"]) for part in ("system", "entity", "id"))) for item in items]
    original = {replace(one, id=canonical(one.id)): one.id for one in partners}
    both = []
    for item, partner in zip(items, partners, strict=True):
        parts = [part.replace("%23", "#").replace("%25", "%") for part in str(item["identity"]).split("#")]
        one = Identity(*parts[1:])
        one = replace(one, id=original.get(one, one.id))
        both.append(StoredLink(one, partner, str(item["operation_id"]), int(str(item["linked_at"]))))
    yield from sorted((one for one in both if _is_first(one.left, one.right)), key=lambda one: one.cells()[:6])


def _is_first(left: Identity, right: Identity) -> bool:
    """Return which end of a link comes first: the CRM's, a job before its site, else the first in the alphabet."""
    kinds = (left.system, left.entity), (right.system, right.entity)
    if kinds in _KINDS or kinds[::-1] in _KINDS:
        return kinds in _KINDS
    return (left.system, left.entity, left.id) < (right.system, right.entity, right.id)


# ---------------------------------------------------------------------- import


@dataclass(frozen=True)
class _Record:
    """A record that was made at illu before, as its event would have made it."""

    line: int
    flow: type[Flow[Any, Any, Any]]
    event_key: str
    result: SiteCreated | JobCreated
    links: tuple[Link, ...]

    def operation_id(self, tenant: str) -> str:
        return self.flow.operation_id(tenant, self.event_key)

    def is_result_of(self, operation: Operation) -> bool:
        result: dict[str, Any] = json.loads(operation.result) if operation.result else {}
        member = "site_id" if isinstance(self.result, SiteCreated) else "job_id"
        return str(result.get(member, "")) == self.links[0].right.id

    def store(self, bridge: Bridge, tenant: str) -> None:
        """Store the operation as done, with its links. Raises ConflictError."""
        operation, is_new = bridge.runtime.engine.record(
            self.flow, self.event_key, self.result, self.links, tenant=tenant, by=bridge.user
        )
        if not is_new and not self.is_result_of(operation):
            raise ConflictError(f"{self.event_key} has another result.")


def _read(file: Path) -> tuple[dict[int, str], list[_Record]]:
    """Return the problems by line, and the records of the other lines."""
    wrong: dict[int, str] = {}
    read: list[tuple[int, Identity, Identity]] = []
    for row in rows(file, LinkRow):
        if row.value is None:
            wrong |= {row.line: row.problem} if row.errors else {}
            continue
        left, right = row.value.ends()
        if ((left.system, left.entity), (right.system, right.entity)) not in _KINDS:
            wrong[row.line] = f"{left.system} {left.entity} and {right.system} {right.entity} cannot be imported"
        elif not re.fullmatch("[1-9][0-9]{0,17}", right.id) and right.entity == "site":
            wrong[row.line] = "a site's id must be a number"
        else:
            read.append((row.line, left, right))
    site_of = {canonical(left.id): right for _, left, right in read if (left.system, left.entity) == JOB}
    records: list[_Record] = []
    for line, left, right in read:
        site = site_of.get(canonical(right.id))
        if (left.system, left.entity) == CUSTOMER:
            created = SiteCreated(site_id=int(right.id), customer_id=left.id)
            records.append(_Record(line, CreateSite, left.id, created, (Link(left, right),)))
        elif (left.system, left.entity) == TICKET and site is None:
            wrong[line] = f"no line links the job {right.id} to a site"
        elif (left.system, left.entity) == TICKET and site:
            job = JobCreated(job_id=right.id, ticket_id=left.id, site_id=int(site.id))
            links = (Link(left, right), Link(right, site, Cardinality.MANY_TO_ONE))
            records.append(_Record(line, CreateJob, left.id, job, links))
    return wrong, records

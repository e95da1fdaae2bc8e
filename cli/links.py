"""`crm-bridge links`: which id belongs to which; found, and moved out and in."""

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

from cli.asking import confirm
from cli.bridge import Bridge
from cli.cells import escaped, opened
from cli.command import Name, NotAllWellError, Yes, command
from cli.output import visible
from cli.progress import progress_of
from cli.rows import rows
from create_job.flow import CreateJob
from create_job.models import JobCreated
from create_site.flow import CreateSite
from create_site.models import SiteCreated
from crm_bridge import Flow
from crm_bridge.api import validated
from crm_bridge.dynamodb import deserialize, guarded, serialize
from crm_bridge.errors import ConflictError, NotFoundError
from crm_bridge.fields import Id
from crm_bridge.ids import canonical
from crm_bridge.links import Cardinality, Identity, Link, joined
from crm_bridge.operations import Operation
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
        """In whichever order the file has them: the CRM's first, and a job before its site."""
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
    system: Annotated[str, typer.Argument(help="As crm, illu, revio, salesforce.")],
    entity: Annotated[str, typer.Argument(help="As customer, ticket, site, job, key_link.")],
    record: Annotated[str, typer.Argument(metavar="ID")],
) -> None:
    """What a record is linked to."""
    identity = validated(LinkSearch, {"system": system, "entity": entity, "id": record}).identity
    partners = bridge.runtime.links.of(name, identity)
    if not partners:
        raise NotFoundError(f"{system} {entity} {record} is linked to nothing.")
    found = [StoredLink(identity, one.identity, one.operation_id, int(one.linked_at.timestamp())) for one in partners]
    bridge.output.document([dict(zip(COLUMNS, one.cells(), strict=True)) for one in found])
    bridge.output.table(
        ("system", "entity", "id", "operation"), [(*one.cells()[3:6], one.operation_id) for one in found]
    )


@command(app)
def export(
    bridge: Bridge,
    name: Name,
    file: Annotated[Path | None, typer.Argument(help="A file that is written; else standard output.")] = None,
) -> None:
    """All links of a tenant as CSV, each once. It reads the whole table of links."""
    found = list(stored(bridge, name))
    if bridge.output.as_json:
        bridge.output.document([dict(zip(COLUMNS, one.cells(), strict=True)) for one in found])
        return
    with opened(file) if file else nullcontext(sys.stdout) as target:
        shown = visible if target.isatty() else str
        writer = csv.writer(target, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((shown(escaped(cell)) for cell in one.cells()) for one in found)
    bridge.output.notice(f"Links written: {len(found):,}.")


@command(app, "import")
def import_links(
    bridge: Bridge,
    name: Name,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="As `links export` writes it.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the file and show what would be done.")] = False,
    yes: Yes = False,
) -> None:
    """Write down which customers and tickets are sites and jobs at illu already, so that they are not made again.

    Nothing is sent. Key links are found at Rev.io by `import key-links`.
    """
    output = bridge.output
    wrong, made = _read(file)
    known = bridge.runtime.operations.many([one.operation_id(name) for one in made])
    new = [one for one in made if one.operation_id(name) not in known]
    for one in made:
        there = known.get(one.operation_id(name))
        if there and _id_in(there, one) != one.links[0].right.id:
            wrong.append((one.line, f"{one.event_key} is something else already, or on its way: {there.state}"))
    for line, why in sorted(wrong):
        output.line(f"line {line}: {why}", style="red")
    plan = {
        "new": len(new),
        "known_already": len(made) - len(new),
        "wrong": [{"line": n, "detail": d} for n, d in wrong],
    }
    output.line(f"{len(new):,} new, {len(made) - len(new):,} known already, {len(wrong):,} wrong.")
    if dry_run or not new:
        output.document({"dry_run": dry_run, **plan, "written": 0})
        if wrong:
            raise NotAllWellError
        return
    if not yes:
        confirm(f"Write {len(new):,} links?")
    refused: list[dict[str, object]] = []
    with progress_of(output, "links", len(new)) as progress:
        for one in new:
            try:
                there, is_new = bridge.runtime.engine.record(
                    one.flow, one.event_key, one.result, one.links, tenant=name, by=bridge.user
                )
                if not is_new and _id_in(there, one) != one.links[0].right.id:
                    raise ConflictError(f"{one.event_key} is something else already.")
                progress.advance("written")
            except ConflictError as error:
                refused.append({"line": one.line, "detail": error.detail})
                output.line(f"line {one.line}: {error.detail}", style="red")
                progress.advance("refused")
    output.document({"dry_run": False, **plan, "written": len(new) - len(refused), "refused": refused})
    output.line(f"{len(new) - len(refused):,} written.")
    if wrong or refused:
        raise NotAllWellError


def stored(bridge: Bridge, tenant: str) -> Iterator[StoredLink]:
    """Every link once, although both directions are stored. Raises StorageError."""
    pages = bridge.dynamodb.get_paginator("scan").paginate(
        TableName=bridge.links_table,
        FilterExpression="begins_with(#identity, :tenant)",
        ExpressionAttributeNames={"#identity": "identity"},
        ExpressionAttributeValues=serialize({":tenant": joined(tenant, "")}),
    )
    with guarded():
        items = [deserialize(item) for page in pages for item in page["Items"]]
    # The key has an id's canonical form, and the link in the other direction how it was written.
    written = {
        Identity(str(item["partner_system"]), str(item["partner_entity"]), canonical(str(item["partner_id"]))): str(
            item["partner_id"]
        )
        for item in items
    }
    both = [
        StoredLink(
            replace(one := Identity(*_parted(str(item["identity"]))[1:]), id=written.get(one, one.id)),
            Identity(str(item["partner_system"]), str(item["partner_entity"]), str(item["partner_id"])),
            str(item["operation_id"]),
            int(str(item["linked_at"])),
        )
        for item in items
    ]
    yield from sorted((one for one in both if _is_first(one.left, one.right)), key=lambda one: one.cells()[:6])


def _is_first(left: Identity, right: Identity) -> bool:
    """Which end of a link is told first: the CRM's, a job before its site, else by the alphabet."""
    kinds = (left.system, left.entity), (right.system, right.entity)
    if kinds in _KINDS or kinds[::-1] in _KINDS:
        return kinds in _KINDS
    return (left.system, left.entity, left.id) < (right.system, right.entity, right.id)


def _parted(key: str) -> list[str]:
    """The parts that were `joined`."""
    return [part.replace("%23", "#").replace("%25", "%") for part in key.split("#")]


# ---------------------------------------------------------------------- import


@dataclass(frozen=True)
class _Made:
    """What was made before there was a bridge, as its event would have made it."""

    line: int
    flow: type[Flow[Any, Any, Any]]
    event_key: str
    result: SiteCreated | JobCreated
    links: tuple[Link, ...]

    def operation_id(self, tenant: str) -> str:
        return self.flow.operation_id(tenant, self.event_key)


def _read(file: Path) -> tuple[list[tuple[int, str]], list[_Made]]:
    """What is wrong, by line; and what the other lines say."""
    wrong: list[tuple[int, str]] = []
    read: list[tuple[int, Identity, Identity]] = []
    for row in rows(file, LinkRow):
        if row.said is None and not row.errors:
            continue
        if row.said is None:
            wrong.append((row.line, "; ".join(f"{error.field}: {error.message}" for error in row.errors)))
            continue
        left, right = row.said.ends()
        if ((left.system, left.entity), (right.system, right.entity)) not in _KINDS:
            wrong.append((row.line, f"{left.system} {left.entity} and {right.system} {right.entity} are not imported"))
        elif not re.fullmatch("[1-9][0-9]{0,17}", right.id) and right.entity == "site":
            wrong.append((row.line, "a site's id is a number"))
        else:
            read.append((row.line, left, right))
    site_of = {canonical(left.id): right for _, left, right in read if (left.system, left.entity) == JOB}
    made: list[_Made] = []
    for line, left, right in read:
        match (left.system, left.entity):
            case ("crm", "customer"):
                site = SiteCreated(site_id=int(right.id), customer_id=left.id)
                made.append(_Made(line, CreateSite, left.id, site, (Link(left, right),)))
            case ("crm", "ticket"):
                at = site_of.get(canonical(right.id))
                if at is None:
                    wrong.append((line, f"no line says at which site the job {right.id} is"))
                    continue
                job = JobCreated(job_id=right.id, ticket_id=left.id, site_id=int(at.id))
                links = (Link(left, right), Link(right, at, Cardinality.MANY_TO_ONE))
                made.append(_Made(line, CreateJob, left.id, job, links))
    return wrong, made


def _id_in(operation: Operation, made: _Made) -> str:
    answer: dict[str, Any] = json.loads(operation.result) if operation.result else {}
    return str(answer.get("site_id" if isinstance(made.result, SiteCreated) else "job_id", ""))

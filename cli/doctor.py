"""`crm-bridge doctor`: whether a tenant's events would arrive, found out without changing anything anywhere."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import partial
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError
from rich.status import Status

from cli.bridge import Bridge
from cli.command import NotAllWellError
from cli.output import moment
from cli.tenants import SCOPES, SCOPES_OF, SHORT_HASH, Name
from connector_receiver.flow import Receiver
from connector_receiver.handler import compared
from connector_receiver.handler import flow as connector_receiver
from create_job.handler import flow as create_job
from create_site.flow import CreateSiteFlow
from crm_bridge.clients.egito import Record
from crm_bridge.errors import (
    AddressMovedError,
    CannotLookError,
    NotConfiguredError,
    RefusedError,
    SignInRefusedError,
    StorageError,
    VendorError,
)
from crm_bridge.operations import SHARDS, State
from crm_bridge.public import is_public
from crm_bridge.settings import Tenant, has_callback, joined, split
from crm_bridge.transport import Deadline
from key_link.flow import KeyLinks
from key_link.handler import flow as key_link
from status_update.handler import flow as status_update

CLOCK_TOLERANCE = 30
"""Seconds by which this machine may be off; AWS refuses what is signed five minutes off."""
DUE_TOLERANCE = 300
"""Seconds after which the dispatcher should have taken up what is due."""
EXPIRES_SOON = 30 * 86_400
"""Seconds before an API key expires from which on there is a warning."""
PATIENCE = 25.0
"""Seconds for one vendor."""
NOBODY = "crm-bridge doctor"
"""A name that is looked for at illu, which nobody has."""


class Result(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class Finding:
    about: str
    check: str
    result: Result
    detail: str = ""
    what_to_do: str = ""


def doctor(bridge: Bridge, name: Name) -> None:
    """Check a tenant from end to end. Nothing is changed, here or at a vendor."""
    findings = []
    with Status("Checking ...", console=bridge.output.notices) as status:
        try:
            for finding in _findings(bridge, name):
                findings.append(finding)
                status.update(f"Checking ... {len(findings)} done")
        except StorageError as error:
            findings.append(Finding("bridge", "storage", Result.FAILED, error.detail, "The rest was not checked."))
    bridge.output.document([asdict(finding) for finding in findings])
    bridge.output.table(
        ("about", "check", "result", "detail"),
        [(finding.about, finding.check, finding.result, finding.detail) for finding in findings],
    )
    for finding in findings:
        if finding.what_to_do:
            bridge.output.line(f"{finding.about}, {finding.check}: {finding.what_to_do}", style="bold")
    failed = sum(finding.result is Result.FAILED for finding in findings)
    warnings = sum(finding.result is Result.WARNING for finding in findings)
    if failed or warnings:
        bridge.output.line(f"\n{failed} failed, {warnings} to look at.", style="bold red" if failed else "yellow")
    else:
        bridge.output.line("\nAll is well.", style="green")
    if failed:
        raise NotAllWellError


def _findings(bridge: Bridge, tenant: str) -> Iterator[Finding]:
    yield _clock(bridge)
    yield _tables(bridge)
    yield from _queues(bridge)
    yield _backlog(bridge)
    try:
        settings = bridge.tenant(tenant)
    except NotConfiguredError as error:
        yield Finding(tenant, "settings", Result.FAILED, error.detail, f"See `crm-bridge tenant add {tenant}`.")
        return
    yield _secrets(bridge, tenant)
    used = ", ".join(sorted(block for block in SCOPES_OF if getattr(settings, block)))
    yield Finding(tenant, "settings", Result.OK if used else Result.FAILED, used or "no vendor is named")
    yield from _keys(bridge, tenant, settings)
    yield _parked(bridge, tenant)
    if settings.illu:
        yield from _illu(bridge, tenant)
    if settings.revio:
        yield from _revio(bridge, tenant)
    if settings.izzitup:
        yield _izzitup(bridge, tenant)
    if settings.egito:
        yield from _egito(bridge, tenant, settings)
    if settings.callback:
        yield _callback(bridge, settings.callback.url)


# ---------------------------------------------------------------------- the bridge itself


def _clock(bridge: Bridge) -> Finding:
    sent = time.time()
    told = bridge.secrets.list_secrets(MaxResults=1)["ResponseMetadata"]["HTTPHeaders"].get("date")
    if told is None:
        return Finding("bridge", "clock", Result.NOT_CHECKED, "AWS did not say what time it is")
    off = sent - parsedate_to_datetime(told).astimezone(UTC).timestamp()
    if abs(off) <= CLOCK_TOLERANCE:
        return Finding("bridge", "clock", Result.OK, "this machine's and AWS's agree")
    return Finding("bridge", "clock", Result.WARNING, f"this machine is {off:+.0f} s off", "Set this machine's clock.")


def _tables(bridge: Bridge) -> Finding:
    wrong = []
    for table in bridge.tables():
        try:
            status = bridge.dynamodb.describe_table(TableName=table)["Table"].get("TableStatus", "unknown")
        except ClientError as error:
            status = error.response["Error"]["Code"]
        if status != "ACTIVE":
            wrong.append(f"{table}: {status}")
    if wrong:
        return Finding("bridge", "tables", Result.FAILED, "; ".join(wrong), "Look at the stack's events.")
    return Finding("bridge", "tables", Result.OK, f"all {len(bridge.tables())} are active")


def _queues(bridge: Bridge) -> Iterator[Finding]:
    waiting: dict[str, int] = {}
    sources: dict[str, str | None] = {}
    missing: dict[str, str] = {}
    for flow, url in bridge.queue_urls().items():
        try:
            waiting[flow], sources[flow] = _messages(bridge, url)
        except (ClientError, BotoCoreError) as error:
            missing[flow] = type(error).__name__
    if missing:
        detail = ", ".join(f"{flow}: {why}" for flow, why in missing.items())
        yield Finding("bridge", "queues", Result.FAILED, detail, "Look at the stack's events.")
    else:
        yield Finding("bridge", "queues", Result.OK, f"{sum(waiting.values())} messages on {len(waiting)}")
    if lacking := sorted(flow for flow, arn in sources.items() if arn is None):
        detail = f"no dead-letter queue for {', '.join(lacking)}"
        yield Finding("bridge", "dead letters", Result.WARNING, detail, "Look at the stack's events.")
    elif letters := sum(_dead_letters(bridge, arn) for arn in {*sources.values()} if arn):
        yield Finding("bridge", "dead letters", Result.WARNING, f"{letters}", "See docs/runbook/dead-letters.md.")
    elif sources:
        yield Finding("bridge", "dead letters", Result.OK, "none")


def _messages(bridge: Bridge, url: str) -> tuple[int, str | None]:
    """Return about how many messages a queue has, and the ARN of its dead-letter queue, if it has one."""
    attributes = bridge.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    count = int(attributes["ApproximateNumberOfMessages"])
    if "RedrivePolicy" not in attributes:
        return count, None
    return count, str(json.loads(attributes["RedrivePolicy"])["deadLetterTargetArn"])


def _dead_letters(bridge: Bridge, arn: str) -> int:
    """Return about how many messages a dead-letter queue has."""
    url = bridge.sqs.get_queue_url(QueueName=arn.rpartition(":")[2])["QueueUrl"]
    attributes = bridge.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    return int(attributes["Attributes"]["ApproximateNumberOfMessages"])


def _backlog(bridge: Bridge) -> Finding:
    before = int(bridge.runtime.clock()) - DUE_TOLERANCE
    late = [due for shard in SHARDS for due in next(bridge.runtime.operations.due(shard, before), ())]
    if not late:
        return Finding("bridge", "backlog", Result.OK, "nothing is overdue")
    oldest = (before + DUE_TOLERANCE - min(due.due_at for due in late)) // 60
    detail = f"{len(late)} operations or more are overdue, one for {oldest} minutes"
    return Finding("bridge", "backlog", Result.WARNING, detail, "See docs/runbook/oldest-due.md.")


# ---------------------------------------------------------------------- the tenant


def _secrets(bridge: Bridge, tenant: str) -> Finding:
    parts = bridge.parts(tenant)
    wanted = split(joined(parts.values()))
    if wrong := sorted(part for part in parts if has_callback(parts[part]) != has_callback(wanted[part])):
        detail = f"{', '.join(wrong)}: whether there is a callback is not what the callback's secret says"
        what = f"A change was interrupted. Finish it: `crm-bridge tenant show {tenant}`, then `tenant set` it again."
        return Finding(tenant, "secrets", Result.FAILED, detail, what)
    return Finding(tenant, "secrets", Result.OK, ", ".join(parts))


def _keys(bridge: Bridge, tenant: str, settings: Tenant) -> Iterator[Finding]:
    now = bridge.runtime.clock()
    keys = [
        key
        for key in bridge.runtime.keys.of(tenant)
        if not key.disabled and (not key.expires_at or key.expires_at > now)
    ]
    what = f"crm-bridge tenant key add {tenant}"
    if not keys:
        yield Finding(tenant, "API keys", Result.FAILED, "there is none that is valid", f"Make one: `{what}`.")
        return
    allowed = frozenset[str]().union(*(key.scopes for key in keys))
    wanted = {scope for block, scopes in SCOPES_OF.items() if getattr(settings, block) for scope in scopes}
    if missing := sorted(wanted - allowed):
        detail = f"none may {', '.join(missing)}"
        yield Finding(tenant, "API keys", Result.WARNING, detail, f"Make one: `{what} --scope {missing[0]}`.")
    else:
        forever = sum(key.expires_at is None for key in keys)
        detail = f"{len(keys)} valid" + (f", {forever} of which never expires" if forever else "")
        yield Finding(tenant, "API keys", Result.OK, detail)
    for key in keys:
        check = f"API key {key.key_hash[:SHORT_HASH]}"
        if key.expires_at and key.expires_at <= now + EXPIRES_SOON:
            detail = f"{key.label} expires on {moment(key.expires_at)}"
            renew = "Make another, let its user change to it, then revoke this one: docs/rotate-keys.md."
            yield Finding(tenant, check, Result.WARNING, detail, renew)
        if unknown := sorted(key.scopes - SCOPES):
            detail = f"{key.label} has a scope that allows nothing: {', '.join(unknown)}"
            renew = f"Make another: `{what} --scope ...` (--help lists the scopes). Then revoke this one."
            yield Finding(tenant, check, Result.WARNING, detail, renew)


def _parked(bridge: Bridge, tenant: str) -> Finding:
    parked, more = bridge.runtime.operations.listed(tenant, State.PARKED, flow=None, limit=100, after=None)
    if not parked:
        return Finding(tenant, "parked operations", Result.OK, "none")
    detail = f"{len(parked)}{' or more' if more else ''} wait for a person"
    what = f"`crm-bridge operations list {tenant} --state parked` shows them."
    return Finding(tenant, "parked operations", Result.WARNING, detail, what)


# ---------------------------------------------------------------------- the vendors


def _asked[T](about: str, check: str, question: Callable[[], T], answer: Callable[[T], str]) -> Finding:
    try:
        return Finding(about, check, Result.OK, answer(question()))
    except CannotLookError as error:
        return Finding(about, check, Result.NOT_CHECKED, error.message)
    except AddressMovedError as error:
        return Finding(about, check, Result.FAILED, error.message, "Correct the address with `crm-bridge tenant set`.")
    except SignInRefusedError as error:
        what = "Correct the credentials with `crm-bridge tenant set`; they may have been changed at the vendor."
        return Finding(about, check, Result.FAILED, error.message, what)
    except RefusedError as error:
        what = "It answers and takes the credentials, but refuses this. Check the settings and the account's rights."
        return Finding(about, check, Result.FAILED, error.message, what)
    except VendorError as error:
        what = "Is the address right, and the vendor up? Events are kept meanwhile."
        return Finding(about, check, Result.FAILED, error.message, what)
    except NotConfiguredError as error:
        return Finding(about, check, Result.FAILED, error.detail)


def _illu(bridge: Bridge, tenant: str) -> Iterator[Finding]:
    """illu documents no call that changes nothing, so it is asked only where the tenant names a list."""
    engine, sites = bridge.runtime.engine, CreateSiteFlow()
    yield _asked(
        "illu",
        "list of sites",
        lambda: engine.signed_in(sites, tenant, Deadline(PATIENCE), lambda illu: illu.list_sites(name=NOBODY)),
        lambda _: "signed in, and the list is whole",
    )
    yield _asked(
        "illu",
        "list of jobs",
        lambda: engine.signed_in(create_job(), tenant, Deadline(PATIENCE), lambda s: s.illu.list_jobs(name=NOBODY)),
        lambda _: "signed in, and the list is whole",
    )


def _revio(bridge: Bridge, tenant: str) -> Iterator[Finding]:
    def ask[T](question: Callable[[KeyLinks], T]) -> Callable[[], T]:
        return lambda: bridge.runtime.engine.signed_in(key_link(), tenant, Deadline(PATIENCE), question)

    yield _asked("Rev.io", "SystemStatus", ask(lambda links: links.revio.system_status()), lambda _: "signed in")
    yield _asked(
        "Rev.io",
        "systems",
        ask(lambda links: links.names("system", max_age=0)),
        lambda named: ", ".join(system.name for system in named) or "there are none",
    )


def _izzitup(bridge: Bridge, tenant: str) -> Finding:
    """Its list needs no login, and every call that does changes a status."""
    return _asked(
        "IzzitUp",
        "services",
        lambda: bridge.runtime.engine.signed_in(
            status_update(), tenant, Deadline(PATIENCE), lambda statuses: statuses.services(max_age=0)
        ),
        lambda services: f"{len(services)} services; the login is only tried with the first change",
    )


def _egito(bridge: Bridge, tenant: str, settings: Tenant) -> Iterator[Finding]:
    def ask[T](question: Callable[[Receiver], T]) -> Callable[[], T]:
        return lambda: bridge.runtime.engine.signed_in(connector_receiver(), tenant, Deadline(PATIENCE), question)

    if settings.connector is None:
        yield Finding("Egito", "clubs", Result.FAILED, "there is no connector block", "Add it: see configuration.md.")
        return
    clubs = ", ".join(f"{ours} is {club.connector_id}" for ours, club in settings.connector.clubs.items())
    yield Finding("Egito", "clubs", Result.OK, clubs)
    yield _asked("Egito", "token", ask(lambda receiver: receiver.egito.sign_in()), lambda _: "signed in")
    assert settings.egito
    kind = settings.egito.lead_sources.dictionary
    if kind:
        yield _asked(
            "Egito",
            f"dictionary {kind}",
            ask(lambda receiver: receiver.egito.dictionary(kind)),
            lambda entries: f"{len(entries)} lead sources",
        )
    yield _asked("Egito", "staff", ask(lambda receiver: receiver.staff()), lambda staff: f"{len(staff)} people")
    maps = {"prospects": settings.egito.prospects, "members": settings.egito.members}
    for people, its_map in maps.items():
        try:
            records = ask(partial(_records, its_map.entity))()
        except VendorError as error:
            yield Finding("Egito", f"field map of {people}", Result.FAILED, error.message)
            continue
        if not records:
            detail = f"there is no {its_map.entity} to compare with"
            yield Finding("Egito", f"field map of {people}", Result.NOT_CHECKED, detail)
            continue
        missing, _ = compared(settings.connector, its_map, records[0])
        if missing:
            detail = f"a {its_map.entity} lacks {', '.join(missing)}"
            what = f"Correct egito.{people}, or ask Egito what the fields are called."
            yield Finding("Egito", f"field map of {people}", Result.WARNING, detail, what)
        else:
            yield Finding("Egito", f"field map of {people}", Result.OK, f"a {its_map.entity} has all of its fields")


def _records(entity: str, receiver: Receiver) -> list[Record]:
    return receiver.egito.records(entity)


def _callback(bridge: Bridge, url: str) -> Finding:
    host = urlsplit(url).hostname or ""
    if host in bridge.local_hosts:
        return Finding("callback", "address", Result.NOT_CHECKED, "it is on this machine")
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)}
    except OSError:
        return Finding("callback", "address", Result.FAILED, "its name cannot be looked up", "Correct callback.url.")
    if not all(is_public(address) for address in addresses):
        what = "Nothing is sent to an address that is not public."
        return Finding("callback", "address", Result.FAILED, "it is not public", what)
    return Finding("callback", "address", Result.OK, "it is public; nothing was sent to it")

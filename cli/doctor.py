"""`crm-bridge doctor`: whether a tenant's events would arrive, found out without changing anything anywhere."""

import json
import time
from collections.abc import Iterator
from datetime import UTC
from email.utils import parsedate_to_datetime

from botocore.exceptions import BotoCoreError, ClientError
from rich.status import Status

from cli.bridge import Bridge
from cli.command import Name, NotAllWellError
from cli.keys import SCOPES, SHORT_HASH, used_scopes
from cli.output import moment
from crm_bridge.errors import NotConfiguredError, StorageError
from crm_bridge.operations import SHARDS, State
from crm_bridge.outbound.findings import Finding, Result
from crm_bridge.outbound.vendor import PATIENCE
from crm_bridge.settings import Tenant
from crm_bridge.tenant_parts import has_webhook, joined, split
from crm_bridge.transport import Deadline, Scope
from crm_bridge.vendors import REGISTRY, Entry

CLOCK_TOLERANCE = 30
"""Seconds by which this machine may be off; AWS refuses what is signed five minutes off."""
DUE_TOLERANCE = 300
"""Seconds after which the dispatcher should have taken up what is due."""
EXPIRES_SOON = 30 * 86_400
"""Seconds before an API key expires from which on there is a warning."""


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
    bridge.output.document([finding._asdict() for finding in findings])
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
    used = [entry for entry in REGISTRY if settings.of(entry.vendor().settings_model)]
    named = ", ".join(sorted(entry.part for entry in used if entry.is_for_callers))
    yield Finding(tenant, "settings", Result.OK if named else Result.FAILED, named or "no vendor is named")
    yield from _keys(bridge, tenant, settings)
    yield _in_review(bridge, tenant)
    for entry in used:
        yield from _vendor(bridge, tenant, entry)


def _vendor(bridge: Bridge, tenant: str, entry: Entry) -> Iterator[Finding]:
    """Check a vendor with the part of the settings that its functions read."""
    runtime = bridge.runtime
    try:
        settings = runtime.engine.tenants.get(tenant, entry.functions[0], fresh=True)
        transport = runtime.transport.of(Scope(tenant, settings.version))
        vendor = entry.vendor().for_tenant(settings, transport, Deadline(PATIENCE), runtime)
    except NotConfiguredError as error:
        yield Finding(entry.vendor().name, "settings", Result.FAILED, error.detail)
    else:
        yield from vendor.check()


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
    if wrong := sorted(part for part in parts if has_webhook(parts[part]) != has_webhook(wanted[part])):
        detail = f"{', '.join(wrong)}: whether there is a webhook is not what the webhook's secret says"
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
    if missing := sorted(used_scopes(settings) - allowed):
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


def _in_review(bridge: Bridge, tenant: str) -> Finding:
    in_review, more = bridge.runtime.operations.listed(tenant, State.NEEDS_REVIEW, flow=None, limit=100, after=None)
    if not in_review:
        return Finding(tenant, "operations that need review", Result.OK, "none")
    detail = f"{len(in_review)}{' or more' if more else ''} wait for a person"
    what = f"`crm-bridge operations list {tenant} --state needs_review` shows them."
    return Finding(tenant, "operations that need review", Result.WARNING, detail, what)

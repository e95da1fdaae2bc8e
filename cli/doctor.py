"""`crm-bridge doctor`: checks that a tenant's events would arrive, without changing anything."""

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError
from rich.status import Status

from cli.bridge import Bridge
from cli.command import Name, NotAllWellError
from cli.keys import SCOPES, SHORT_HASH, used_scopes
from cli.output import moment
from crm_bridge.errors import NotConfiguredError, StorageError
from crm_bridge.outbound.findings import Finding, Result
from crm_bridge.outbound.transport import Deadline, Scope
from crm_bridge.outbound.vendor import PATIENCE
from crm_bridge.settings import Tenant
from crm_bridge.sources import SourceSettings
from crm_bridge.storage.operation import SHARDS, State
from crm_bridge.storage.requests import RequestState
from crm_bridge.tenant_parts import has_webhook, joined, split
from crm_bridge.vendors import REGISTRY, Entry
from operations.flows import flows
from sources.models import RequestListing
from sources.requests import find

MESSAGES: Final = "ApproximateNumberOfMessages"
CLOCK_TOLERANCE = 30
"""Seconds by which this machine may be off; AWS refuses what is signed five minutes off."""
DUE_TOLERANCE = 300
"""Seconds after which the dispatcher should have taken up what is due."""
EXPIRES_SOON = 30 * 86_400
"""Seconds before an API key expires from which on there is a warning."""


STACK_EVENTS = "Look at the stack's events."


def doctor(bridge: Bridge, name: Name) -> None:
    """Check a tenant from end to end. Nothing is changed, neither here nor at a vendor."""
    output, findings = bridge.output, []
    with Status("Checking ...", console=output.notices) as status:
        if output.as_json:
            status.stop()
        try:
            for finding in _findings(bridge, name):
                findings.append(finding)
                status.update(f"Checking ... {len(findings)} done")
        except StorageError as error:
            findings.append(Finding("bridge", "storage", Result.FAILED, error.detail, "The rest was not checked."))
    output.document([finding._asdict() for finding in findings])
    output.table(("about", "check", "result", "detail"), [finding[:4] for finding in findings], head=3)
    for finding in findings:
        if finding.what_to_do:
            output.line(f"{finding.about}, {finding.check}: {finding.what_to_do}", style="bold")
    counts = Counter(finding.result for finding in findings)
    failed, warnings = counts[Result.FAILED], counts[Result.WARNING]
    if failed or warnings:
        output.line(f"\nFailed: {failed}. Warnings: {warnings}.", style="bold red" if failed else "yellow")
    else:
        output.line("\nAll is well.", style="green")
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
        add = bridge.output.command(f"tenant add {tenant}")
        yield Finding(tenant, "settings", Result.FAILED, error.detail, f"See `{add}`.")
        return
    yield _secrets(bridge, tenant)
    used = [entry for entry in REGISTRY if settings.of(entry.vendor().settings_model)]
    named = ", ".join(sorted(entry.part for entry in used if entry.is_for_callers))
    yield _found(tenant, "settings", named, "" if named else "no vendor is named", result=Result.FAILED)
    yield from _keys(bridge, tenant, settings)
    yield _in_review(bridge, tenant)
    if sources := settings.all_sources():
        yield _sources(sources, used)
        yield _quarantine(bridge, tenant)
    for entry in used:
        yield from _vendor(bridge, tenant, entry)


def _found(
    about: str, check: str, ok: str, problem: str, what_to_do: str = "", *, result: Result = Result.WARNING
) -> Finding:
    """Return a finding with this `result` if there is a problem; else an OK one with the detail `ok`."""
    return Finding(about, check, result, problem, what_to_do) if problem else Finding(about, check, Result.OK, ok)


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
    before = time.time()
    date = bridge.secrets.list_secrets(MaxResults=1)["ResponseMetadata"]["HTTPHeaders"].get("date")
    if date is None:
        return Finding("bridge", "clock", Result.NOT_CHECKED, "AWS's response has no date")
    off = before - parsedate_to_datetime(date).astimezone(UTC).timestamp()
    problem = f"this machine is {off:+.0f} s off" if abs(off) > CLOCK_TOLERANCE else ""
    return _found("bridge", "clock", "this machine and AWS agree", problem, "Set this machine's clock.")


def _tables(bridge: Bridge) -> Finding:
    wrong = []
    for table in bridge.tables():
        try:
            status = bridge.dynamodb.describe_table(TableName=table)["Table"].get("TableStatus", "unknown")
        except ClientError as error:
            status = error.response["Error"]["Code"]
        if status != "ACTIVE":
            wrong.append(f"{table}: {status}")
    ok = f"all {len(bridge.tables())} are active"
    return _found("bridge", "tables", ok, "; ".join(wrong), STACK_EVENTS, result=Result.FAILED)


def _queues(bridge: Bridge) -> Iterator[Finding]:
    waiting: dict[str, int] = {}
    dead_letters: dict[str, str | None] = {}
    missing: list[str] = []
    for function, url in bridge.queue_urls().items():
        try:
            attributes = bridge.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        except (ClientError, BotoCoreError) as error:
            missing.append(f"{function}: {type(error).__name__}")
        else:
            waiting[function] = int(attributes[MESSAGES])
            dead_letters[function] = json.loads(attributes.get("RedrivePolicy", "{}")).get("deadLetterTargetArn")
    ok = f"{sum(waiting.values())} messages on {len(waiting)}"
    yield _found("bridge", "queues", ok, ", ".join(missing), STACK_EVENTS, result=Result.FAILED)
    if lacking := ", ".join(sorted(function for function, arn in dead_letters.items() if arn is None)):
        yield Finding("bridge", "dead letters", Result.WARNING, f"no dead-letter queue for {lacking}", STACK_EVENTS)
    elif dead_letters:
        count = sum(_messages(bridge, arn) for arn in {*dead_letters.values()} if arn)
        yield _found("bridge", "dead letters", "none", str(count or ""), "See docs/runbook/dead-letters.md.")


def _messages(bridge: Bridge, arn: str) -> int:
    """Return about how many messages a queue has."""
    url = bridge.sqs.get_queue_url(QueueName=arn.rpartition(":")[2])["QueueUrl"]
    return int(bridge.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[MESSAGES])["Attributes"][MESSAGES])


def _backlog(bridge: Bridge) -> Finding:
    now = int(bridge.runtime.clock())
    late = [due for shard in SHARDS for due in next(bridge.runtime.operations.due(shard, now - DUE_TOLERANCE), ())]
    oldest = max((now - due.due_at for due in late), default=0) // 60
    problem = f"{len(late)} operations or more are overdue, one for {oldest} minutes" if late else ""
    return _found("bridge", "backlog", "nothing is overdue", problem, "See docs/runbook/oldest-due.md.")


# ---------------------------------------------------------------------- the tenant


def _secrets(bridge: Bridge, tenant: str) -> Finding:
    parts = bridge.parts(tenant)
    wanted = split(joined(parts.values()))
    wrong = ", ".join(sorted(part for part in parts if has_webhook(parts[part]) != has_webhook(wanted[part])))
    problem = f"{wrong}: has_webhook does not agree with the webhook's secret" if wrong else ""
    show = bridge.output.command(f"tenant show {tenant}")
    what = f"A change was interrupted. Finish it: `{show}`, then `tenant set` it again."
    return _found(tenant, "secrets", ", ".join(parts), problem, what, result=Result.FAILED)


def _keys(bridge: Bridge, tenant: str, settings: Tenant) -> Iterator[Finding]:
    now = bridge.runtime.clock()
    keys = [key for key in bridge.runtime.keys.of(tenant) if not key.disabled]
    keys = [key for key in keys if not key.expires_at or key.expires_at > now]
    add = f"tenant key add {tenant}"
    if not keys:
        yield Finding(
            tenant, "API keys", Result.FAILED, "no key is valid", f"Make one: `{bridge.output.command(add)}`."
        )
        return
    allowed = frozenset[str]().union(*(key.scopes for key in keys))
    missing = sorted(used_scopes(settings) - allowed)
    forever = sum(key.expires_at is None for key in keys)
    ok = f"{len(keys)} valid" + (f", {forever} of which never expires" if forever else "")
    problem = f"no key has the scope {', '.join(missing)}" if missing else ""
    with_scope = bridge.output.command(f"{add} --scope {(missing or [''])[0]}")
    yield _found(tenant, "API keys", ok, problem, f"Make one: `{with_scope}`.")
    for key in keys:
        check = f"API key {key.key_hash[:SHORT_HASH]}"
        if key.expires_at and key.expires_at <= now + EXPIRES_SOON:
            detail = f"{key.label} expires on {moment(key.expires_at)}"
            renew = "Make another, let its user change to it, then revoke this one: docs/rotate-keys.md."
            yield Finding(tenant, check, Result.WARNING, detail, renew)
        if unknown := sorted(key.scopes - SCOPES):
            detail = f"{key.label} has a scope that allows nothing: {', '.join(unknown)}"
            with_scope = bridge.output.command(f"{add} --scope ...")
            renew = f"Make another: `{with_scope}` (--help lists the scopes). Then revoke this one."
            yield Finding(tenant, check, Result.WARNING, detail, renew)


def _in_review(bridge: Bridge, tenant: str) -> Finding:
    in_review, more = bridge.runtime.operations.listed(tenant, State.NEEDS_REVIEW, flow=None, limit=100, after=None)
    problem = f"{len(in_review)}{' or more' if more else ''} wait for a person" if in_review else ""
    what = f"`{bridge.output.command(f'operations list {tenant} --state needs_review')}` shows them."
    return _found(tenant, "needs review", "none", problem, what)


def _sources(sources: Mapping[str, SourceSettings], used: Sequence[Entry]) -> Finding:
    reached = {function for entry in used for function in entry.functions}
    named = {event.flow for source in sources.values() for event in source.events}
    lacking = ", ".join(sorted(flow for flow in named if flows()[flow].function not in reached))
    problem = f"the settings have no vendor for {lacking}, so their events would wait" if lacking else ""
    ok = ", ".join(f"{name} ({source.preset})" for name, source in sorted(sources.items()))
    return _found("sources", "settings", ok, problem, "Add the vendor's block.", result=Result.FAILED)


def _quarantine(bridge: Bridge, tenant: str) -> Finding:
    listing = RequestListing(state=RequestState.QUARANTINED, limit=100)
    found, more = find(tenant, listing)
    problem = f"{len(found)}{' or more' if more else ''} wait for a person" if found else ""
    what = f"`{bridge.output.command(f'requests {tenant} --state quarantined')}` shows them."
    return _found("sources", "events in quarantine", "none", problem, what)

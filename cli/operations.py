"""`crm-bridge operations`: the state of an event, why it waits, and the decisions of a person."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any

import typer

from cli.bridge import Bridge
from cli.command import DryRun, Name, WrongInputError, Yes, command
from cli.exchanges import print_exchanges
from cli.flows import flow_names
from cli.output import Output, moment
from cli.progress import progress_of
from cli.prompts import confirm, confirm_id
from crm_bridge.engine import UNLINKABLE
from crm_bridge.errors import NotFoundError, UnconfirmedError
from crm_bridge.outbound.transport import Deadline
from crm_bridge.storage.exchanges import Exchange
from crm_bridge.storage.operation import Operation, OperationSummary, State
from operations.flows import flow_of
from operations.handler import FIRST_LOOKED_AT, known_by
from operations.retrying import RETRIED, is_safe, make_due
from operations.retrying import retry as retry_one

COLUMNS = ("state", "flow", "event key", "last attempt", "due", "changed", "operation")
CHANGED_COLUMNS = ("state", "flow", "event key", "not applied", "last", "operation")
VERIFYING = 30.0
"""Seconds that a vendor has to verify an id."""

app = typer.Typer(help="Operations: look at them, decide about them.", no_args_is_help=True)


class Action(StrEnum):
    LINK = "link"
    RETRY = "retry"
    DISCARD = "discard"
    UNLINK = "unlink"


CONSEQUENCES = {
    Action.LINK: "{event} is linked with the vendor's record {id}. Nothing is sent.",
    Action.RETRY: "{event} is sent to the vendor again. If the vendor has done it already, there will be a duplicate.",
    Action.DISCARD: "{event} is not sent, and its payload is deleted. The CRM may send it again.",
    Action.UNLINK: "The links of {event} are deleted, and it waits for a decision again. Nothing is sent. The vendor's "
    "record stays, and so does a record that was made by the link, such as a job at that site.",
}
SENT_EARLY = "{event} is sent at once instead of at its time. The bridge first looks for what may be done."


StateOption = Annotated[State | None, typer.Option("--state", help="Only those in this state.")]
FlowOption = Annotated[str | None, typer.Option("--flow", help="Only those of this flow.", **flow_names())]
ReasonOption = Annotated[
    str | None, typer.Option("--reason", help="Only those with this text in the reason of their last attempt.")
]
Payload = Annotated[
    bool,
    typer.Option(
        "--payload",
        help="Also what the CRM sent, the names of candidates, and requests and responses of failed attempts.",
    ),
]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="At most this many.")]


@command(app, "list")
def list_operations(
    bridge: Bridge,
    name: Name,
    state: StateOption = None,
    flow: FlowOption = None,
    reason: ReasonOption = None,
    changed: Annotated[
        bool,
        typer.Option("--changed", help="Only those whose event came again with a different payload, not applied."),
    ] = False,
    limit: LimitOption = 50,
) -> None:
    """List a tenant's operations: those that need a person first, then those that were changed last."""
    states = [state] if state else FIRST_LOOKED_AT
    if changed:
        operations = list(islice(_with_reason(bridge.listed_changed(name, states, flow), reason), limit))
        documents = [one.summary_response() for one in operations]
        columns, cells = list(CHANGED_COLUMNS), [*map(_changed_row, operations)]
    else:
        found = list(islice(_with_reason(bridge.listed(name, states, flow), reason), limit))
        documents = [one.to_response() for one in found]
        columns, cells = list(COLUMNS), [*map(_row, found)]
    number = len(documents)
    if not number:
        bridge.expect_tenant(name)
    bridge.output.document(documents)
    bridge.output.table(columns, cells, head=3)
    if not number:
        bridge.output.line("No operations found.")
    if number == limit:
        bridge.output.line(f"There may be more; --limit shows them. These are the first {limit}.")


@command(app)
def show(
    bridge: Bridge,
    name: Name,
    wanted: Annotated[
        str, typer.Argument(metavar="ID", help="An operation's id, or a customer's, ticket's, ... at the CRM.")
    ],
    payload: Payload = False,
) -> None:
    """Show an event's history, its result, its links, and what can be done now."""
    _ = bridge.runtime  # what is below asks for it by itself
    found = known_by(name, wanted)
    if not found:
        bridge.expect_tenant(name)
        listing = bridge.output.command(f"operations list {name}")
        raise NotFoundError(f"{name} has no operation {wanted}. `{listing}` lists the operations.")
    found.sort(key=lambda one: one.created_at)
    exchanges = exchanges_of(bridge, found)
    bridge.output.document([document(one, exchanges, payload=payload) for one in found])
    for one in found:
        print_operation(bridge.output, one, exchanges, payload=payload)


@command(app)
def resolve(
    bridge: Bridge,
    wanted: Annotated[
        str,
        typer.Argument(
            metavar="OPERATION",
            help="The id of an operation: for retry of one that waits or needs review, for unlink of a linked one.",
        ),
    ],
    action: Annotated[Action, typer.Argument(help="The decision.")],
    vendor_id: Annotated[str | None, typer.Option("--id", help="With link: the vendor's id of the record.")] = None,
    confirmed: Annotated[
        bool, typer.Option("--confirmed", help="With link: take the id even if the vendor cannot verify it.")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Decide about an operation that needs review: link, retry or discard; or unlink one that was linked.

    `retry` also sends one at once that waits for its time. The id that `link` is given is verified at the vendor. Where
    that is not possible it has to be typed twice.
    """
    if (action is Action.LINK) is (vendor_id is None):
        raise WrongInputError("The decision link needs --id, and no other decision takes it.")
    if confirmed and action is not Action.LINK:
        raise WrongInputError("Only the decision link takes --confirmed.")
    operation = bridge.operation(wanted)
    if action is Action.UNLINK and not _is_unlinkable(operation):
        raise WrongInputError("Only a record that a person or a look-up linked can be unlinked.")
    waits = action is Action.RETRY and operation.state in RETRIED
    if action is not Action.UNLINK and operation.state is not State.NEEDS_REVIEW and not waits:
        raise WrongInputError(f"Only an operation that needs review can be resolved; its state is {operation.state}.")
    is_early = waits and operation.state is not State.NEEDS_REVIEW
    consequence = (SENT_EARLY if is_early else CONSEQUENCES[action]).format(
        id=vendor_id, event=f"{operation.flow} {operation.event_key}"
    )
    if dry_run:
        bridge.output.document({"operation_id": wanted, "would": consequence})
        bridge.output.line(consequence)
        return
    if not yes:
        bridge.output.notice(consequence)
        confirm("Do it?")
    resolved = _resolved(bridge, operation, action, vendor_id or "", confirmed=confirmed)
    bridge.output.document(resolved.to_response())
    bridge.output.line(f"Done: its state is {resolved.state}.")


def _resolved(bridge: Bridge, operation: Operation, action: Action, vendor_id: str, *, confirmed: bool) -> Operation:
    engine, user, deadline = bridge.runtime.engine, bridge.user, Deadline(VERIFYING)
    match action:
        case Action.RETRY:
            return retry_one(operation, by=user)
        case Action.DISCARD:
            return engine.discard(flow_of(operation), operation, by=user, deadline=deadline)
        case Action.UNLINK:
            return engine.unlink(operation, by=user)
    try:
        return engine.link_existing(
            flow_of(operation), operation, vendor_id, by=user, deadline=deadline, confirmed=confirmed
        )
    except UnconfirmedError as doubt:
        bridge.output.notice(doubt.detail)
        confirm_id(vendor_id)
    return _resolved(bridge, operation, action, vendor_id, confirmed=True)


@command(app)
def retry(
    bridge: Bridge,
    name: Name,
    state: StateOption = None,
    flow: FlowOption = None,
    reason: ReasonOption = None,
    limit: LimitOption = 10_000,
    rate: Annotated[int, typer.Option(min=1, help="At most this many a minute.")] = 60,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Make waiting operations due now, for instance once credentials are corrected.

    If an operation may be done already, the vendor is asked first, as always. Of those that need review, only those
    that were surely not done are retried; `resolve` decides about the others.
    """
    if state not in (None, *RETRIED):
        raise WrongInputError("Only an operation that is waiting, unconfirmed or in review can be retried.")
    listed = bridge.listed(name, [state] if state else RETRIED, flow)
    summaries = list(islice(_with_reason(listed, reason), limit))
    if not summaries:
        bridge.expect_tenant(name)
    whole = bridge.runtime.operations.many([one.operation_id for one in summaries])
    found = [whole[one.operation_id] for one in summaries if one.operation_id in whole]
    chosen = [one for one in found if is_safe(one)]
    minutes = len(chosen) / rate
    report = {"operations": len(chosen), "left_to_a_person": len(found) - len(chosen), "minutes": round(minutes, 1)}
    if dry_run:
        bridge.output.table(COLUMNS, map(_row, chosen), head=3)
    within = f"{len(chosen):,} operations, {rate:,} a minute, so within {max(1, round(minutes)):,} min."
    bridge.output.line(within if chosen else "No operations found that can be retried.")
    if len(found) > len(chosen):
        bridge.output.line(
            f"{len(found) - len(chosen):,} more may have been done: `operations resolve` decides about each."
        )
    if dry_run or not chosen:
        bridge.output.document({"dry_run": True, **report} if dry_run else {**report, "retried": 0})
        return
    if not yes:
        confirm("Retry them?")
    begun = int(bridge.runtime.clock())
    retried = 0
    with progress_of(bridge.output, "operations", len(chosen)) as progress:
        for number, one in enumerate(chosen):
            due_at = begun + number * 60 // rate
            is_due = make_due(one, by=bridge.user, due_at=due_at)
            retried += is_due
            progress.advance("due" if is_due else "left alone")
    bridge.output.document({**report, "retried": retried})
    listing = bridge.output.command(f"operations list {name}")
    bridge.output.line(f"{retried:,} are due from now on. `{listing}` shows their states.")


def _is_unlinkable(operation: Operation) -> bool:
    last = operation.last_attempt
    return operation.state is State.SUCCEEDED and last is not None and last.event in UNLINKABLE


def _with_reason[O: OperationSummary](listed: Iterable[O], reason: str | None) -> Iterator[O]:
    for one in listed:
        if has_reason(one, reason):
            yield one


def has_reason(one: OperationSummary, reason: str | None) -> bool:
    """Return whether the reason of the last attempt has this text, in capitals or not; True without a text."""
    return reason is None or (one.last_attempt is not None and reason.casefold() in one.last_attempt.reason.casefold())


def _row(one: OperationSummary) -> tuple[object, ...]:
    last = one.last_attempt
    attempt = f"{last.event}{': ' if last.reason else ''}{last.reason}" if last else ""
    times = moment(one.due_at), moment(one.updated_at)
    return one.state, one.flow, one.event_key, attempt, *times, one.operation_id


def _changed_row(one: Operation) -> tuple[object, ...]:
    return one.state, one.flow, one.event_key, one.changed_times, moment(one.changed_at), one.operation_id


type ExchangesOf = Mapping[str, Sequence[Exchange]]
"""By the operation's id."""


def exchanges_of(bridge: Bridge, found: Iterable[Operation]) -> ExchangesOf:
    """Return the calls to the vendor that are kept of each operation. Raises StorageError."""
    now = int(bridge.runtime.clock())
    return {one.operation_id: bridge.runtime.operations.exchanges.of(one, now) for one in found}


def document(operation: Operation, exchanges: ExchangesOf, *, payload: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        **operation.to_response(),
        "candidates": operation.candidates_response(names=payload),
        "exchanges": [one.to_response(bodies=payload) for one in exchanges[operation.operation_id]],
    }
    if payload:
        shown["payload"] = json.loads(operation.payload) if operation.payload else None
    return shown


def _not_applied(operation: Operation) -> str | None:
    """Return what is known of later payloads of the event, and what to do about them; None if none differed."""
    if not operation.changed_at:
        return None
    times = f"{operation.changed_times} times, last " if (operation.changed_times or 1) > 1 else ""
    return f"a different payload came {times}{moment(operation.changed_at)}. {flow_of(operation).update.text}"


def print_operation(output: Output, operation: Operation, exchanges: ExchangesOf, *, payload: bool) -> None:
    output.line()
    output.pairs(
        {
            "operation": operation.operation_id,
            "tenant": operation.tenant,
            "event": f"{operation.flow} {operation.event_key}",
            "state": operation.state,
            "due": moment(operation.due_at),
            "mapping": operation.mapping,
            "not applied": _not_applied(operation),
        }
    )
    rows: list[tuple[object, ...]] = [(moment(operation.created_at), "accepted", "", "")]
    rows += [(moment(one.at), one.event, one.reason, one.status) for one in operation.attempts]
    output.table(("when", "what", "reason", "status"), rows)
    print_exchanges(output, exchanges[operation.operation_id], bodies=payload)
    if operation.result:
        output.line(f"result  {operation.result}")
    for left, right in operation.links:
        output.line(f"link    {left.system} {left.entity} {left.id}  =  {right.system} {right.entity} {right.id}")
    if payload:
        output.line(f"payload {operation.payload or 'is not kept'}")
    if operation.candidates:
        hint = "" if payload else "; --payload shows their names"
        output.line(f"These records at the vendor may be this event's{hint}:")
        columns = ("id", "created_at", *(["name"] if payload else []))
        candidates = operation.candidates_response(names=payload)
        output.table(
            [column.removesuffix("_at") for column in columns],
            [[one.get(column) for column in columns] for one in candidates],
        )
    decide = f"operations resolve {operation.operation_id}"
    if operation.state in (State.WAITING, State.UNCONFIRMED):
        next_step = (
            "send it" if operation.state is State.WAITING else "look at the vendor, and send only what is not there,"
        )
        output.line(f"The bridge takes it up again by itself. To let it {next_step} at once:", style="bold")
        output.line(f"  {output.command(f'{decide} retry')}")
    if operation.state is State.NEEDS_REVIEW:
        output.line("It waits for a person. Look at the vendor, then one of:", style="bold")
        for choice in ("link --id THE-VENDORS-ID", "retry", "discard"):
            output.line(f"  {output.command(f'{decide} {choice}')}")
    if _is_unlinkable(operation):
        output.line("If the link is wrong:", style="bold")
        output.line(f"  {output.command(f'{decide} unlink')}")

"""`crm-bridge operations`: the state of an event, why it waits, and the decisions of a person."""

import json
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any

import typer

from cli.bridge import Bridge
from cli.command import DryRun, Name, WrongInputError, Yes, command
from cli.exchanges import print_exchanges
from cli.output import moment
from cli.prompts import confirm, confirm_id
from crm_bridge.engine import UNLINKABLE
from crm_bridge.errors import NotFoundError, UnconfirmedError
from crm_bridge.outbound.transport import Deadline
from crm_bridge.storage.exchanges import Exchange
from crm_bridge.storage.operation import Operation, OperationSummary, State, operation_id
from operations.flows import flow_of, flows
from operations.handler import FIRST_LOOKED_AT
from operations.retrying import RETRIED, is_safe, make_due
from operations.retrying import retry as retry_one

COLUMNS = ("state", "flow", "event key", "last attempt", "due", "changed", "operation")
VERIFYING = 30.0
"""Seconds that a vendor has to verify an id."""

app = typer.Typer(help="Operations: look at them, decide about them.", no_args_is_help=True)


class Action(StrEnum):
    LINK = "link"
    RETRY = "retry"
    DISCARD = "discard"
    UNLINK = "unlink"


CONSEQUENCES = {
    Action.LINK: "The vendor's record {id} is written down as what {event} became. Nothing is sent.",
    Action.RETRY: "{event} is sent to the vendor again. If the vendor has done it already, it will be there twice.",
    Action.DISCARD: "{event} is given up: it is not sent, and what the CRM sent is deleted. The CRM may send it again.",
    Action.UNLINK: "The links of {event} are deleted, and it waits for a decision again. Nothing is sent. The vendor's "
    "record stays, and so does what used the link, such as a job at that site.",
}
SENT_EARLY = "{event} is sent at once instead of at its time. What may be done is looked for first."


def _flow(name: str) -> str:
    if name not in flows():
        raise typer.BadParameter(f"the flows are {', '.join(sorted(flows()))}")
    return name


StateOption = Annotated[State | None, typer.Option("--state", help="Only those in this state.")]
FlowOption = Annotated[
    str | None, typer.Option("--flow", help="Only those of this flow.", parser=_flow, metavar="FLOW")
]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Only those whose last attempt has this reason.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="At most this many.")]


@command(app, "list")
def list_operations(
    bridge: Bridge,
    name: Name,
    state: StateOption = None,
    flow: FlowOption = None,
    reason: ReasonOption = None,
    limit: LimitOption = 50,
) -> None:
    """A tenant's operations. What needs a person comes first, then what was changed last."""
    found = list(islice(_found(bridge, name, [state] if state else FIRST_LOOKED_AT, flow, reason), limit))
    bridge.output.document([one.to_response() for one in found])
    bridge.output.table(COLUMNS, map(_row, found), head=3)
    if not found:
        bridge.output.line("There is none.")
    if len(found) == limit:
        bridge.output.line(f"There may be more; --limit shows them. These are the first {limit}.")


@command(app)
def show(
    bridge: Bridge,
    name: Name,
    wanted: Annotated[
        str, typer.Argument(metavar="ID", help="An operation's id, or a customer's, ticket's, ... at the CRM.")
    ],
    payload: Annotated[
        bool,
        typer.Option(
            "--payload",
            help="Also what the CRM sent, the names of candidates, and requests and responses of failed attempts.",
        ),
    ] = False,
) -> None:
    """An event's history, its result, its links, and what can be done now."""
    ids = [wanted, *(operation_id(name, flow, wanted) for flow in flows())]
    found = [one for one in bridge.runtime.operations.many(ids).values() if one.tenant == name]
    if not found:
        raise NotFoundError(
            f"{name} has no operation {wanted}. `crm-bridge operations list {name}` shows those that there are."
        )
    found.sort(key=lambda one: one.created_at)
    now = int(bridge.runtime.clock())
    exchanges = {one.operation_id: bridge.runtime.operations.exchanges.of(one, now) for one in found}
    bridge.output.document([_document(one, exchanges[one.operation_id], payload=payload) for one in found])
    for one in found:
        _print(bridge, one, exchanges[one.operation_id], payload=payload)


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
        raise WrongInputError("Give the vendor's id with link (--id), and with nothing else.")
    if confirmed and action is not Action.LINK:
        raise WrongInputError("Give --confirmed with link, and with nothing else.")
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
    """Make operations that wait due now, for instance once credentials are corrected.

    What may be done already is looked for first, as always. Of what needs review only what was surely not done is
    retried; see `resolve` for the rest.
    """
    if state not in (None, *RETRIED):
        raise WrongInputError("Only an operation that is waiting, unconfirmed or in review can be retried.")
    summaries = list(islice(_found(bridge, name, [state] if state else RETRIED, flow, reason), limit))
    whole = bridge.runtime.operations.many([one.operation_id for one in summaries])
    found = [whole[one.operation_id] for one in summaries if one.operation_id in whole]
    chosen = [one for one in found if is_safe(one)]
    minutes = len(chosen) / rate
    report = {"operations": len(chosen), "left_to_a_person": len(found) - len(chosen), "minutes": round(minutes, 1)}
    if dry_run:
        bridge.output.table(COLUMNS, map(_row, chosen), head=3)
    bridge.output.line(f"{len(chosen):,} operations, {rate:,} a minute, so within {max(1, round(minutes)):,} min.")
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
    retried = sum(
        make_due(one, by=bridge.user, due_at=begun + number * 60 // rate) for number, one in enumerate(chosen)
    )
    bridge.output.document({**report, "retried": retried})
    bridge.output.line(f"{retried:,} are due from now on. `crm-bridge operations list {name}` shows their states.")


def _is_unlinkable(operation: Operation) -> bool:
    last = operation.last_attempt
    return operation.state is State.SUCCEEDED and last is not None and last.event in UNLINKABLE


def _found(
    bridge: Bridge, tenant: str, states: Sequence[State], flow: str | None, reason: str | None
) -> Iterator[OperationSummary]:
    for one in bridge.listed(tenant, states, flow):
        if reason is None or (one.last_attempt and reason.casefold() in one.last_attempt.reason.casefold()):
            yield one


def _row(one: OperationSummary) -> tuple[object, ...]:
    last = one.last_attempt
    attempt = f"{last.event}{': ' if last.reason else ''}{last.reason}" if last else ""
    times = moment(one.due_at), moment(one.updated_at)
    return one.state, one.flow, one.event_key, attempt, *times, one.operation_id


def _document(operation: Operation, exchanges: Sequence[Exchange], *, payload: bool) -> dict[str, Any]:
    document: dict[str, Any] = {**operation.to_response()} | {
        "candidates": operation.candidates_response(names=payload),
        "exchanges": [one.to_response(bodies=payload) for one in exchanges],
    }
    if payload:
        document["payload"] = json.loads(operation.payload) if operation.payload else None
    return document


def _print(bridge: Bridge, operation: Operation, exchanges: Sequence[Exchange], *, payload: bool) -> None:
    output = bridge.output
    output.line()
    output.pairs(
        {
            "operation": operation.operation_id,
            "event": f"{operation.flow} {operation.event_key}",
            "state": operation.state,
            "due": moment(operation.due_at),
            "mapping": operation.mapping,
        }
    )
    rows: list[tuple[object, ...]] = [(moment(operation.created_at), "accepted", "", "")]
    rows += [(moment(one.at), one.event, one.reason, one.status) for one in operation.attempts]
    output.table(("when", "what", "reason", "status"), rows)
    print_exchanges(output, exchanges, bodies=payload)
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
    if operation.state in (State.WAITING, State.UNCONFIRMED):
        output.line("The bridge takes it up again by itself. To send it at once:", style="bold")
        output.line(f"  crm-bridge operations resolve {operation.operation_id} retry")
    if operation.state is State.NEEDS_REVIEW:
        output.line("It waits for a person. Look at the vendor, then one of:", style="bold")
        for choice in ("link --id THE-VENDORS-ID", "retry", "discard"):
            output.line(f"  crm-bridge operations resolve {operation.operation_id} {choice}")
    if _is_unlinkable(operation):
        output.line("If the link is wrong:", style="bold")
        output.line(f"  crm-bridge operations resolve {operation.operation_id} unlink")

"""`crm-bridge operations`: what became of an event, what waits and why; and how a person decides."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from cli.asking import confirm, confirm_id
from cli.bridge import Bridge
from cli.command import Name, WrongInputError, Yes, command
from cli.output import moment, visible
from crm_bridge.engine import UNLINKABLE
from crm_bridge.errors import ConflictError, Event, NotFoundError, UnconfirmedError
from crm_bridge.operations import Operation, OperationSummary, State, operation_id
from crm_bridge.transport import Deadline
from operations.flows import flow_of, flows
from operations.handler import FIRST_LOOKED_AT
from operations.summary import READ

NOT_FINISHED = (State.NEEDS_REVIEW, State.UNCONFIRMED, State.WAITING, State.SENDING)
PAGE = 100
SHOWN = 12
"""Rows that `watch` has room for."""
COLUMNS = ("state", "flow", "event key", "last attempt", "due", "changed")
EVERY = 5.0
"""Seconds between two looks of `watch`."""
CANDIDATES_WITHOUT_NAMES = "These records at the vendor may be this event's; --payload shows their names:"
VERIFYING = 30.0
"""Seconds that a vendor has to verify an id."""

app = typer.Typer(help="Operations: look at them, watch them, decide about them.", no_args_is_help=True)


class Action(StrEnum):
    LINK = "link"
    RETRY = "retry"
    DISCARD = "discard"
    UNLINK = "unlink"


StateOption = Annotated[State | None, typer.Option("--state", help="Only those in this state.")]


def _flow(name: str) -> str:
    if name not in flows():
        raise typer.BadParameter(f"the flows are {', '.join(sorted(flows()))}")
    return name


FlowOption = Annotated[
    str | None, typer.Option("--flow", help="Only those of this flow.", parser=_flow, metavar="FLOW")
]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Only those whose last attempt tells this.")]


@command(app, "list")
def list_operations(
    bridge: Bridge,
    name: Name,
    state: StateOption = None,
    flow: FlowOption = None,
    reason: ReasonOption = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
) -> None:
    """A tenant's operations. What needs a person comes first, then what was changed last."""
    states = [state] if state else list(FIRST_LOOKED_AT)
    found = list(islice(_found(bridge, name, states, flow, reason), limit))
    bridge.output.document([one.to_response() for one in found])
    bridge.output.table(COLUMNS, map(_row, found))
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
        bool, typer.Option("--payload", help="Also what the CRM sent, and the names of candidates.")
    ] = False,
) -> None:
    """What became of an event: its time line, its result, its links, and what can be done now."""
    found = _named(bridge, name, wanted)
    bridge.output.document([_shown(one, payload=payload) for one in found])
    for one in found:
        _tell(bridge, one, payload=payload)


@command(app)
def watch(
    bridge: Bridge,
    name: Name,
    times: Annotated[int | None, typer.Option(min=1, help="End after so many looks.")] = None,
) -> None:
    """A tenant's operations as they go on, until Ctrl-C."""
    with Live(console=bridge.output.screen, refresh_per_second=4, transient=False, auto_refresh=False) as live:
        look = 0
        while True:
            counts, newest = _overview(bridge, name)
            if bridge.output.as_json:
                sys.stdout.write(
                    json.dumps({"counts": counts, "not_finished": [one.to_response() for one in newest]}) + "\n"
                )
                sys.stdout.flush()
            else:
                live.update(_picture(counts, newest), refresh=True)
            look += 1
            if look == times:
                return
            time.sleep(EVERY)


@command(app)
def resolve(
    bridge: Bridge,
    wanted: Annotated[
        str,
        typer.Argument(
            metavar="OPERATION", help="The id of an operation that needs review; with unlink, of one that is linked."
        ),
    ],
    action: Annotated[Action, typer.Argument(help="What is to become of it.")],
    vendor_id: Annotated[str | None, typer.Option("--id", help="With link: the vendor's id of the record.")] = None,
    confirmed: Annotated[
        bool, typer.Option("--confirmed", help="With link: take the id even if the vendor cannot verify it.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    yes: Yes = False,
) -> None:
    """Decide about an operation that needs review: link, retry or discard; or unlink one that was linked.

    The id that `link` is given is verified at the vendor. Where that is not possible it has to be typed twice.
    """
    if (action is Action.LINK) is (vendor_id is None):
        raise WrongInputError("Give the vendor's id with link (--id), and with nothing else.")
    if confirmed and action is not Action.LINK:
        raise WrongInputError("Give --confirmed with link, and with nothing else.")
    in_review = bridge.operation(wanted)
    if action is Action.UNLINK:
        if not _is_unlinkable(in_review):
            raise WrongInputError("Only a record that a person or a look-up linked can be unlinked.")
    elif in_review.state is not State.NEEDS_REVIEW:
        raise WrongInputError(f"Only an operation that needs review can be resolved; its state is {in_review.state}.")
    what = _consequence(in_review, action, vendor_id)
    if dry_run:
        bridge.output.document({"operation_id": wanted, "would": what})
        bridge.output.line(what)
        return
    if not yes:
        bridge.output.notice(what)
        confirm("Do it?")
    engine, flow = bridge.runtime.engine, flow_of(in_review)
    match action:
        case Action.LINK:

            def link_existing(*, confirmed: bool) -> Operation:
                deadline = Deadline(VERIFYING)
                return engine.link_existing(
                    flow, in_review, vendor_id or "", by=bridge.user, deadline=deadline, confirmed=confirmed
                )

            try:
                resolved = link_existing(confirmed=confirmed)
            except UnconfirmedError as doubt:
                bridge.output.notice(doubt.detail)
                confirm_id(vendor_id or "")
                resolved = link_existing(confirmed=True)
        case Action.RETRY:
            resolved = engine.request_retry(in_review, by=bridge.user)
        case Action.DISCARD:
            resolved = engine.discard(flow, in_review, by=bridge.user, deadline=Deadline(VERIFYING))
        case Action.UNLINK:
            resolved = engine.unlink(in_review, by=bridge.user)
    bridge.output.document(resolved.to_response())
    bridge.output.line(f"Done: its state is {resolved.state}.")


@command(app)
def retry(
    bridge: Bridge,
    name: Name,
    state: StateOption = None,
    flow: FlowOption = None,
    reason: ReasonOption = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 10_000,
    rate: Annotated[int, typer.Option(min=1, help="So many a minute.")] = 60,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    yes: Yes = False,
) -> None:
    """Let the bridge go on now with what waits, for instance once credentials are corrected.

    What may be done already is looked for first, as always. Of what needs review only that is taken up which was surely
    not done; see `resolve` for the rest.
    """
    if state not in (None, State.WAITING, State.UNCONFIRMED, State.NEEDS_REVIEW):
        raise WrongInputError("Only an operation that is waiting, unconfirmed or in review can be taken up again.")
    states = [state] if state else [State.WAITING, State.UNCONFIRMED, State.NEEDS_REVIEW]
    summaries = list(islice(_found(bridge, name, states, flow, reason), limit))
    whole = bridge.runtime.operations.many([one.operation_id for one in summaries])
    found = [whole[one.operation_id] for one in summaries if one.operation_id in whole]
    chosen = [one for one in found if _is_safe(one)]
    minutes = len(chosen) / rate
    plan = {"operations": len(chosen), "left_to_a_person": len(found) - len(chosen), "minutes": round(minutes, 1)}
    if dry_run:
        bridge.output.document({"dry_run": True, **plan})
        bridge.output.table(COLUMNS, map(_row, chosen))
    bridge.output.line(f"{len(chosen):,} operations, {rate:,} a minute, so within {max(1, round(minutes)):,} min.")
    if len(found) > len(chosen):
        bridge.output.line(
            f"{len(found) - len(chosen):,} more may have been done: `operations resolve` decides about each."
        )
    if dry_run or not chosen:
        if not dry_run:
            bridge.output.document({**plan, "taken_up": 0})
        return
    if not yes:
        confirm("Take them up?")
    begun = int(bridge.runtime.clock())
    taken = sum(_taken_up(bridge, one, begun + number * 60 // rate) for number, one in enumerate(chosen))
    bridge.output.document({**plan, "taken_up": taken})
    bridge.output.line(f"{taken:,} are due from now on. `crm-bridge operations watch {name}` shows how they go on.")


def _taken_up(bridge: Bridge, operation: Operation, due_at: int) -> bool:
    """False if it is on its way already, or somebody has decided about it."""
    if operation.state is State.NEEDS_REVIEW:
        try:
            bridge.runtime.engine.request_retry(operation, by=bridge.user, due_at=due_at, anew=False)
        except ConflictError:
            return False
        return True
    return bridge.runtime.operations.hasten(operation, due_at)


def _is_unlinkable(operation: Operation) -> bool:
    last = operation.last_attempt
    return operation.state is State.SUCCEEDED and last is not None and last.event in UNLINKABLE


def _is_safe(operation: Operation) -> bool:
    """Return whether a retry needs no look by a person; what is unconfirmed the bridge looks up itself."""
    if operation.state is not State.NEEDS_REVIEW:
        return operation.state in (State.WAITING, State.UNCONFIRMED)
    last = operation.last_attempt
    return operation.unconfirmed_since is None and last is not None and last.event is Event.OUT_OF_ATTEMPTS


def _found(
    bridge: Bridge, tenant: str, states: Sequence[State], flow: str | None, reason: str | None
) -> Iterator[OperationSummary]:
    for state in states:
        after = None
        while True:
            some, after = bridge.runtime.operations.listed(tenant, state, flow=flow, limit=PAGE, after=after)
            for one in some:
                if reason is None or (one.last_attempt and reason.casefold() in one.last_attempt.reason.casefold()):
                    yield one
            if after is None:
                break


def _named(bridge: Bridge, tenant: str, wanted: str) -> list[Operation]:
    """The operation with this id, or those whose event the CRM knows by it. Raises NotFoundError."""
    ids = [wanted, *(operation_id(tenant, flow, wanted) for flow in flows())]
    found = [one for one in bridge.runtime.operations.many(ids).values() if one.tenant == tenant]
    if not found:
        raise NotFoundError(
            f"{tenant} has no operation {wanted}. `crm-bridge operations list {tenant}` shows those that there are."
        )
    return sorted(found, key=lambda one: one.created_at)


def _row(one: OperationSummary) -> tuple[object, ...]:
    last = one.last_attempt
    said = f"{last.event}{': ' if last.reason else ''}{last.reason}" if last else ""
    return one.state, one.flow, one.event_key, said, moment(one.due_at), moment(one.updated_at)


def _shown(operation: Operation, *, payload: bool) -> dict[str, Any]:
    shown = operation.to_response() | {"candidates": operation.candidates_response(names=payload)}
    if payload:
        shown["payload"] = json.loads(operation.payload) if operation.payload else None
    return shown


def _tell(bridge: Bridge, operation: Operation, *, payload: bool) -> None:
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
    output.table(("when", "what", "reason", "vendor's status"), rows)
    if operation.result:
        output.line(f"result  {operation.result}")
    for left, right in operation.links:
        output.line(f"link    {left.system} {left.entity} {left.id}  =  {right.system} {right.entity} {right.id}")
    if payload:
        output.line(f"payload {operation.payload or 'is not kept'}")
    if operation.candidates:
        output.line("These records at the vendor may be this event's:" if payload else CANDIDATES_WITHOUT_NAMES)
        columns = ("id", "created", *(["name"] if payload else []))
        shown = operation.candidates_response(names=payload)
        output.table(columns, [(one["id"], one["created_at"], *([one["name"]] if payload else [])) for one in shown])
    if operation.state is State.NEEDS_REVIEW:
        output.line("It waits for a person. Look at the vendor, then one of:", style="bold")
        for action in (Action.LINK, Action.RETRY, Action.DISCARD):
            given = " --id THE-VENDORS-ID" if action is Action.LINK else ""
            output.line(f"  crm-bridge operations resolve {operation.operation_id} {action}{given}")
    if _is_unlinkable(operation):
        output.line("If the link is wrong:", style="bold")
        output.line(f"  crm-bridge operations resolve {operation.operation_id} {Action.UNLINK}")


def _consequence(operation: Operation, action: Action, vendor_id: str | None) -> str:
    event = f"{operation.flow} {operation.event_key}"
    match action:
        case Action.LINK:
            return f"The vendor's record {vendor_id} is written down as what {event} became. Nothing is sent."
        case Action.RETRY:
            return f"{event} is sent to the vendor again. If the vendor has done it already, it will be there twice."
        case Action.DISCARD:
            return f"{event} is given up: it is not sent, and what the CRM sent is deleted. The CRM may send it anew."
        case Action.UNLINK:
            return (
                f"The links of {event} are deleted, and it waits for a decision again. Nothing is sent. The vendor's "
                "record stays, and so does what used the link, such as a job at that site."
            )


def _overview(bridge: Bridge, tenant: str) -> tuple[dict[str, str], list[OperationSummary]]:
    """How many there are of each state, as far as one look tells, and the newest that are not finished."""
    counts: dict[str, str] = {}
    newest: list[OperationSummary] = []
    for state in FIRST_LOOKED_AT:
        some, after = bridge.runtime.operations.listed(tenant, state, flow=None, limit=READ, after=None)
        counts[state.value] = f"{len(some)}{'+' if after else ''}"
        if state in NOT_FINISHED:
            newest += some[:SHOWN]
    return counts, newest[:SHOWN]


def _picture(counts: dict[str, str], newest: Sequence[OperationSummary]) -> Group:
    said = "   ".join(f"{number} {state}" for state, number in counts.items())
    lines = [Text(said, style="bold"), Text(f"at {moment(int(time.time()))}", style="dim"), Text()]
    lines += [Text("  ".join(visible(str(cell)) for cell in _row(one)[:5])) for one in newest]
    return Group(*lines)

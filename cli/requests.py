"""`crm-bridge requests`: requests that were refused, events in quarantine, and what is decided about those."""

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from cli.bridge import Bridge
from cli.command import Name, WrongInputError, Yes
from cli.output import Output, moment
from cli.prompts import confirm
from crm_bridge.errors import InvalidError, NotFoundError
from crm_bridge.outbound.transport import Deadline
from crm_bridge.storage.requests import RequestState, StoredRequest
from sources.models import RequestListing
from sources.requests import details, discard, find, resend

SENDING = 30.0
"""Seconds that there are to accept an event."""
PAGE = 100


class Action(StrEnum):
    RESEND = "resend"
    DISCARD = "discard"


CONSEQUENCES = {
    Action.RESEND: "The source's present settings map this event again, and it is sent to the vendor.",
    Action.DISCARD: "This event is not sent, and its payload is deleted. It does not come back when it is repeated.",
}


def requests(
    bridge: Bridge,
    name: Name,
    wanted: Annotated[
        str | None, typer.Argument(metavar="ID", help="A request's id, or one that it carried: a ticket's, ...")
    ] = None,
    action: Annotated[Action | None, typer.Argument(help="The decision on an event in quarantine.")] = None,
    state: Annotated[RequestState | None, typer.Option("--state", help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most this many.")] = 50,
    payload: Annotated[bool, typer.Option("--payload", help="Also what the source sent, while in quarantine.")] = False,
    yes: Yes = False,
) -> None:
    """List requests that were refused, and events in quarantine. With an ID, show one, or decide about it."""
    _ = bridge.runtime  # what is below asks for it by itself
    if action:
        _act(bridge, _one(bridge, name, wanted or ""), action, yes=yes)
        return
    found, more = _found(name, RequestListing(id=wanted, state=state, limit=min(limit, PAGE)), limit)
    if not found:
        bridge.expect_tenant(name)
    bridge.output.document([document(one, payload=payload) if wanted else one.to_response() for one in found])
    if wanted and len(found) == 1:
        print_request(bridge.output, found[0], payload=payload)
        return
    bridge.output.table(("received", "request", "state", "ids"), map(_row, found))
    if not found:
        bridge.output.line("No requests found. Requests that were accepted are operations.")
    if more:
        bridge.output.line(f"There are more; --limit shows them. These are the latest {len(found)}.")


def _row(one: StoredRequest) -> tuple[object, ...]:
    """Return what fits into 80 columns."""
    state = f"{one.state} {one.status}" if one.state is RequestState.REFUSED else one.state
    return moment(one.received_at)[: len("2026-11-30 14:00")], one.id, state, ", ".join(one.ids)


def _found(tenant: str, listing: RequestListing, limit: int) -> tuple[list[StoredRequest], bool]:
    """Return at most `limit` requests, and whether there are more."""
    found: list[StoredRequest] = []
    while True:
        page, after = find(tenant, listing)
        found += page
        if after is None or len(found) >= limit:
            return found[:limit], after is not None or len(found) > limit
        listing = listing.model_copy(update={"after": after})


def _one(bridge: Bridge, tenant: str, wanted: str) -> StoredRequest:
    """Return the request with this id, or the only event in quarantine that carried it."""
    quarantined = RequestState.QUARANTINED
    found, _ = find(tenant, RequestListing(id=wanted)) if wanted else ([], None)
    found = [one for one in found if one.id == wanted] or [one for one in found if one.state is quarantined] or found
    if not found:
        bridge.expect_tenant(tenant)
        listing = bridge.output.command(f"requests {tenant}")
        raise NotFoundError(f"{tenant} has no request {wanted}. `{listing}` lists them.")
    if len(found) > 1:
        raise WrongInputError(f"Several requests carried this id. Give one of {', '.join(one.id for one in found)}.")
    return found[0]


def _act(bridge: Bridge, request: StoredRequest, action: Action, *, yes: bool) -> None:
    if not yes:
        bridge.output.notice(CONSEQUENCES[action])
        confirm("Do it?")
    if action is Action.DISCARD:
        ended = discard(request, by=bridge.user)
    else:
        try:
            ended = resend(request, Deadline(SENDING), by=bridge.user)
        except InvalidError as error:
            raise WrongInputError(error.detail, error.fields) from None
    bridge.output.document(details(ended))
    done = f"Accepted. `{bridge.output.command(f'show {ended.operation_id}')}` shows its result."
    bridge.output.line("Discarded." if action is Action.DISCARD else done)


def document(request: StoredRequest, *, payload: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {**details(request)}
    if payload:
        shown["payload"] = json.loads(request.payload) if request.payload else None
    return shown


def print_request(output: Output, request: StoredRequest, *, payload: bool) -> None:
    output.pairs(
        {
            "request": request.id,
            "tenant": request.tenant,
            "state": request.state,
            "received": moment(request.received_at),
            "route": request.route,
            "from": request.sender,
            "ids": ", ".join(request.ids),
            "problem": f"{request.status} {request.problem}",
            "mapping": request.mapping,
            "event": request.event_key,
            "operation": request.operation_id,
            "by": request.changed_by,
            "kept until": moment(request.expires_at),
            "log": request.request_id,
        }
    )
    output.table(("field", "what is wrong"), [(error.field, error.message) for error in request.errors])
    if request.shape:
        output.line("The body, with types in place of values:")
        output.line(f"  {request.shape}")
    if payload:
        output.line(f"payload {request.payload or 'is not kept'}")
    if request.state is RequestState.QUARANTINED:
        output.line("It waits for a person. Correct the source's expression, then one of:", style="bold")
        for choice in Action:
            output.line(f"  {output.command(f'requests {request.tenant} {request.id} {choice}')}")

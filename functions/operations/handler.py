"""Entry of operations: look at operations, resolve one, look a link up; the console.

A vendor is called only to verify the id of a record that a person links.
"""

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from crm_bridge import responses
from crm_bridge.errors import FieldError, InvalidError, NotFoundError
from crm_bridge.inbound.api import JsonResponse, LambdaContext, Request, respond, validated
from crm_bridge.responses import OPERATION_ID
from crm_bridge.runtime import runtime
from crm_bridge.storage.api_keys import PAYLOAD_SCOPE, READ_SCOPE, RESOLVE_SCOPE
from crm_bridge.storage.changed_operations import CHANGED
from crm_bridge.storage.links import Identity
from crm_bridge.storage.operation import Operation, OperationSummary, State, operation_id
from crm_bridge.telemetry import add_to_log, logger
from crm_bridge.vendors import PART_OF
from operations.console import page
from operations.flows import flow_of, flows, searched_kinds
from operations.listing import page_of
from operations.mappings import try_mapping
from operations.models import (
    Deployment,
    Link,
    Links,
    LinkSearch,
    Listing,
    OperationDetails,
    OperationPage,
    Resolution,
    RetryAll,
    RetryPage,
    Summary,
)
from operations.retrying import MOST_RETRIED, RETRIED, retry, retry_all, says
from operations.summary import READ, summary

SETTINGS_OF = ("create_site", "key_link", "connector_receiver")
"""Functions whose settings it may read, to verify ids. The first that a tenant has say how long to keep requests."""
FIRST_LOOKED_AT = (State.NEEDS_REVIEW, State.UNCONFIRMED, State.WAITING, State.SENDING, State.REJECTED, State.SUCCEEDED)
"""The order of the states in a list: what needs a person comes first."""


def _list_operations(request: Request) -> JsonResponse[OperationPage]:
    """List operations: those on their way, and those that are stuck

    Without `state` what needs a person comes first. A change shows up a moment later. `id` searches instead. `changed`
    lists the events whose later payload was not applied.
    """
    listing = request.query_as(Listing)
    since = int(listing.since.timestamp()) if listing.since else 0
    if listing.id is not None:
        known = [
            one
            for one in sorted(known_by(request.caller.tenant, listing.id), key=lambda one: one.updated_at, reverse=True)
            if listing.state in (None, one.state)
            and listing.flow in (None, one.flow)
            and ((one.changed_at or 0) >= max(since, 1) if listing.changed else one.updated_at >= since)
        ][: listing.limit]
        return JsonResponse(200, {"operations": [one.summary_response() for one in known], "next": None})
    if listing.changed:
        return _list_changed(request, listing, since)
    if listing.after and listing.after.startswith(f"{CHANGED}."):
        raise InvalidError.of(FieldError("after", "belongs to a list with changed"))
    found, going_on = page_of(
        request.caller.tenant,
        [listing.state] if listing.state else FIRST_LOOKED_AT,
        flow=listing.flow,
        since=since,
        limit=listing.limit,
        after=listing.after,
    )
    return JsonResponse(200, {"operations": [operation.to_response() for operation in found], "next": going_on})


def _list_changed(request: Request, listing: Listing, since: int) -> JsonResponse[OperationPage]:
    """Return a page of the events whose later payload was not applied."""
    place = listing.after.split(".") if listing.after else None
    if place and place[0] != CHANGED:
        raise InvalidError.of(FieldError("after", "belongs to a list without changed"))
    found, after = runtime().operations.listed_changed(
        request.caller.tenant,
        flow=listing.flow,
        limit=listing.limit,
        after=(place[2], int(place[1])) if place else None,
        since=since,
    )
    shown = [one.summary_response() for one in found if listing.state in (None, one.state)]
    return JsonResponse(200, {"operations": shown, "next": f"{CHANGED}.{after[1]}.{after[0]}" if after else None})


def known_by(tenant: str, record: str) -> list[Operation]:
    """Return the operations with this id, those whose event key it is, and those that linked a record with this id."""
    ids = {operation_id(tenant, flow, record) for flow in flows()}
    if re.fullmatch(OPERATION_ID, record):
        ids.add(record)
    named = record.split("/", 2)
    places = [(*named[:2], named[2].strip())] if len(named) == 3 else [(*kind, record) for kind in searched_kinds()]
    for system, entity, known_as in places:
        partners = runtime().links.of(tenant, Identity(system.casefold(), entity.casefold(), known_as))
        ids |= {partner.operation_id for partner in partners}
    return [one for one in runtime().operations.many(sorted(ids)).values() if one.tenant == tenant]


def _summarize_operations(request: Request) -> JsonResponse[Summary]:
    """How everything stands

    Out of the first 500 operations of each state in the order of the list, so it costs the same however many there are.
    """
    newest, more = {}, {}
    for state in FIRST_LOOKED_AT:
        newest[state], after = runtime().operations.listed(
            request.caller.tenant, state, flow=None, limit=READ, after=None
        )
        more[state] = after is not None
    here: Deployment = {
        "tenant": request.caller.tenant,
        "stage": os.environ["SECRET_PREFIX"].split("/")[1],
        "region": runtime().dynamodb.meta.region_name,
    }
    return JsonResponse(200, summary(newest, more, int(runtime().clock()), request.caller.scopes, here))


def _get_operation(request: Request) -> JsonResponse[OperationDetails]:
    """Get what became of an event

    `exchanges` are the calls to the vendor in the latest attempts, the latest first: those that failed for 30 days or
    more, those that succeeded as long as the tenant's `keep_exchanges_days` say.
    """
    operation = _operation(request)
    may_see_payload = PAYLOAD_SCOPE in request.caller.scopes
    exchanges = runtime().operations.exchanges.of(operation, int(runtime().clock()))
    shown: OperationDetails = {
        **operation.to_response(),  # type: ignore[typeddict-item]  # for mypy it may have a payload already
        "candidates": operation.candidates_response(names=may_see_payload),
        "exchanges": [one.to_response(bodies=may_see_payload) for one in exchanges],
    }
    if may_see_payload:
        shown["payload"] = json.loads(operation.payload) if operation.payload else None
        if operation.payload or shown["candidates"] or exchanges:
            logger().info("payload read", extra={"operation_id": operation.operation_id})
    return JsonResponse(200, shown)


def _resolve_operation(request: Request) -> JsonResponse[responses.Operation]:
    """Decide what needs review, or undo a link

    `link`: the vendor has it, under this id, which is verified at the vendor. 422 if it is not the right one; also if
    it cannot be verified, until `confirmed` is true; 503 if the vendor does not respond. `retry`: the vendor does not
    have it; or one that is waiting or unconfirmed is not to wait for its time, and is looked up first if it may be
    done. `discard`: it is not to be done. `unlink`: the link that a person or a look-up made is wrong; it is
    deleted, and the operation needs review again. 409 if the operation is in no state for this, or the id is linked
    to something else.
    """
    resolution = request.parse(Resolution)
    operation, engine, by = _operation(request), runtime().engine, request.caller.label
    add_to_log(operation_id=operation.operation_id)
    match resolution.action:
        case "link":
            resolved = engine.link_existing(
                flow_of(operation),
                operation,
                resolution.id or "",
                by=by,
                deadline=request.deadline,
                confirmed=resolution.confirmed,
            )
        case "retry":
            resolved = retry(operation, by=by)
        case "discard":
            resolved = engine.discard(flow_of(operation), operation, by=by, deadline=request.deadline)
        case "unlink":
            resolved = engine.unlink(operation, by=by)
    return JsonResponse(200, resolved.to_response())


def _retry_operations(request: Request) -> JsonResponse[RetryPage]:
    """Retry all that match

    For instance after an outage. Waiting and unconfirmed operations are due from now on instead of at their time, and
    those in review that were surely not done. One request looks at 100 operations: go on with `after` while there is
    `next`. With `dry_run` nothing is changed. The bridge sends in the fair share of the tenant, and looks up first what
    may be done.
    """
    wanted = request.parse(RetryAll)
    found, going_on = page_of(
        request.caller.tenant,
        [State(wanted.state)] if wanted.state else RETRIED,
        flow=wanted.flow,
        since=int(wanted.since.timestamp()) if wanted.since else 0,
        limit=MOST_RETRIED,
        after=wanted.after,
    )
    matching = [one for one in found if says(wanted.text)(one)]
    retried = retry_all(matching, by=request.caller.label, dry_run=wanted.dry_run)
    return JsonResponse(
        200,
        {
            "dry_run": wanted.dry_run,
            "operations": [OperationSummary.to_response(one) for one in retried.due],
            "left_to_a_person": retried.left,
            "next": going_on,
        },
    )


def _operation(request: Request) -> Operation:
    wanted = request.path["id"]
    operation = runtime().operations.get(wanted) if re.fullmatch(OPERATION_ID, wanted) else None
    if operation is None or operation.tenant != request.caller.tenant:
        raise NotFoundError("There is no operation with this id.")
    return operation


def _get_links(request: Request) -> JsonResponse[Links]:
    """Which id belongs to which

    `/links/crm/customer/C-1001` gives the customer's site. An id with `/` is found by `GET /links`.
    """
    return _links(request, validated(LinkSearch, request.path))


def _search_links(request: Request) -> JsonResponse[Links]:
    """Which id belongs to which, also of ids with `/`

    The same as `GET /links/{system}/{entity}/{id}`. API Gateway decodes `%2F` in an address before it looks for the
    route.
    """
    return _links(request, request.query_as(LinkSearch))


def _links(request: Request, search: LinkSearch) -> JsonResponse[Links]:
    partners = runtime().links.of(request.caller.tenant, search.identity)
    if not partners:
        raise NotFoundError("This id is linked to nothing.")
    links: list[Link] = [
        {
            **partner.identity.to_response(),
            "operation_id": partner.operation_id,
            "linked_at": partner.linked_at.isoformat(),
        }
        for partner in partners
    ]
    return JsonResponse(200, {"links": links})


def _try_mapping(request: Request) -> JsonResponse[responses.Mappings]:
    """Show what a mapping makes of a payload

    Nothing is stored or sent. Without a payload the tenant's mappings are only listed. An expression that is given is
    tried in place of the tenant's own, and compared with it. Of a mapping whose settings this function may not read,
    only what is given is known.
    """
    readable = frozenset(PART_OF[function] for function in SETTINGS_OF)
    return try_mapping(request, readable=readable, shows=PAYLOAD_SCOPE in request.caller.scopes)


ROUTES = {
    "GET /operations": _list_operations,
    "GET /operations/summary": _summarize_operations,
    "GET /operations/{id}": _get_operation,
    "POST /operations/retry": _retry_operations,
    "POST /operations/{id}/resolve": _resolve_operation,
    "POST /mappings/try": _try_mapping,
    "GET /links": _search_links,
    "GET /links/{system}/{entity}/{id}": _get_links,
}
"""The docstring of a handler is what docs/openapi.json says of its route, and its name the `operationId`."""
SCOPES = {
    **dict.fromkeys(ROUTES, READ_SCOPE),
    **dict.fromkeys(("POST /operations/retry", "POST /operations/{id}/resolve"), RESOLVE_SCOPE),
}


def lambda_handler(event: Mapping[str, Any], context: LambdaContext) -> Mapping[str, object]:
    if event.get("routeKey") == "GET /console":
        return page(context.aws_request_id)
    return respond(
        event, context, ROUTES, function="operations", scopes=SCOPES, keys=runtime().keys, settings_of=SETTINGS_OF
    )

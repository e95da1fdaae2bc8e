"""Shows the requests that were refused, and ends the quarantine of events."""

import json
import re

from crm_bridge.errors import ConflictError, FieldError, InvalidError, NotFoundError
from crm_bridge.inbound.api import JsonResponse, Request
from crm_bridge.outbound.transport import Deadline
from crm_bridge.responses import REQUEST_ID
from crm_bridge.runtime import runtime
from crm_bridge.storage.api_keys import PAYLOAD_SCOPE, READ_SCOPE, RESOLVE_SCOPE
from crm_bridge.storage.operation import as_time
from crm_bridge.storage.requests import RequestState, StoredRequest, place_in_time
from crm_bridge.telemetry import add_to_log, logger
from crm_bridge.vendors import SOURCES
from sources.flows import command_of
from sources.models import RequestDetails, RequestListing, RequestPage

MOST_FOUND = 100
"""The most requests with an id that are looked at."""
EARLIEST, LATEST = "0", "g"
"""Before and after all places in time."""


def _list_requests(request: Request) -> JsonResponse[RequestPage]:
    """Requests that were refused, and events in quarantine

    The newest first. A page may have fewer than `limit`: go on while there is `next`. `id` searches instead.
    """
    listing = request.query_as(RequestListing)
    found, after = find(request.caller.tenant, listing)
    return JsonResponse(200, {"requests": [one.to_response() for one in found], "next": after})


def find(tenant: str, listing: RequestListing) -> tuple[list[StoredRequest], str | None]:
    """Return a page of a tenant's requests, and where the list goes on. Raises InvalidError."""
    if listing.since and listing.until and listing.since > listing.until:
        wrong = FieldError("to", "must not be before from")
        raise InvalidError("Correct the fields named in errors.", fields=[wrong])
    names = ("state", "status", "route")
    filters = {name: value for name in names if (value := getattr(listing, name)) is not None}
    first = place_in_time(listing.since.timestamp()) if listing.since else EARLIEST
    last = place_in_time(listing.until.timestamp()) if listing.until else LATEST
    requests = runtime().requests
    if listing.id is None:
        filters |= {"state": listing.state.value} if listing.state else {}
        return requests.listed(
            tenant, limit=listing.limit, first=first, last=last, filters=filters, after=listing.after
        )
    if re.fullmatch(REQUEST_ID, listing.id):
        one = requests.get(tenant, listing.id)
        known = [one] if one else []
    else:
        known = requests.of(tenant, listing.id, limit=MOST_FOUND)
    fitting = [
        one
        for one in known
        if first <= one.at < last and all(getattr(one, name) == value for name, value in filters.items())
    ]
    return fitting[: listing.limit], None


def _get_request(request: Request) -> JsonResponse[RequestDetails]:
    """One request that was refused, or one event in quarantine"""
    stored = _stored(request)
    shown = details(stored)
    if stored.payload and PAYLOAD_SCOPE in request.caller.scopes:
        shown["payload"] = json.loads(stored.payload)
        logger().info("payload read", extra={"quarantined": stored.id})
    return JsonResponse(200, shown)


def _resend_request(request: Request) -> JsonResponse[RequestDetails]:
    """Send an event in quarantine again

    The source's present settings map it again, and it is accepted as if it had just come in. 409 if it is not in
    quarantine, 422 if it is still not valid.
    """
    sent = resend(_stored(request), request.deadline, by=request.caller.label)
    return JsonResponse(200, details(sent))


def _discard_request(request: Request) -> JsonResponse[RequestDetails]:
    """Discard an event in quarantine

    Its payload is deleted, and it does not come back when its source repeats it. 409 if it is not in quarantine.
    """
    return JsonResponse(200, details(discard(_stored(request), by=request.caller.label)))


def resend(quarantined: StoredRequest, deadline: Deadline, *, by: str) -> StoredRequest:
    """Accept an event in quarantine, as the source's present settings map it; return the request.

    It is accepted first, so that it is not lost if the function dies in between. Raises ConflictError, InvalidError,
    NotConfiguredError, StorageError.
    """
    payload, tenant, source = _payload(quarantined), quarantined.tenant, quarantined.sender
    part = runtime().tenants.get(tenant, SOURCES, fresh=True)  # a mapping that was just mended counts at once
    settings = part.all_sources().get(source)
    if settings is None:
        raise ConflictError(f"The tenant no longer has a source {source}. Add it again, or discard the event.")
    mapped = command_of(settings, source, json.loads(payload), runtime().clock())
    if mapped is None:
        raise InvalidError(
            f"No entry of the source {source} fits this event. Correct its events, or discard the event."
        )
    claim = runtime().engine.accept(
        mapped.flow,
        mapped.command,
        tenant=tenant,
        deadline=deadline,
        notifies=part.has_webhook,
        mapping=mapped.mapping,
    )
    operation_id = claim.operation.operation_id
    add_to_log(operation_id=operation_id)
    if claim.won:
        runtime().engine.hand_over(claim.operation)
    return _ended(quarantined, RequestState.SENT, by, operation_id)


def discard(quarantined: StoredRequest, *, by: str) -> StoredRequest:
    """End the quarantine of an event that shall not be sent; return the request. Raises ConflictError, StorageError."""
    _payload(quarantined)
    return _ended(quarantined, RequestState.DISCARDED, by)


def details(stored: StoredRequest) -> RequestDetails:
    return {
        **stored.to_response(),  # type: ignore[typeddict-item]  # for mypy it may have a payload already
        "shape": json.loads(stored.shape) if stored.shape else None,
        "mapping": stored.mapping,
        "event_key": stored.event_key,
        "changed_by": stored.changed_by,
        "expires_at": as_time(stored.expires_at),
    }


def _payload(quarantined: StoredRequest) -> str:
    """Return the payload. Raises ConflictError if it is not in quarantine."""
    if quarantined.state is not RequestState.QUARANTINED or quarantined.payload is None:
        raise ConflictError(f"Only an event in quarantine can be sent or discarded; its state is {quarantined.state}.")
    return quarantined.payload


def _ended(quarantined: StoredRequest, state: RequestState, by: str, operation_id: str | None = None) -> StoredRequest:
    if not runtime().requests.change(quarantined, state, by, operation_id):
        raise ConflictError("Another decision came first. Look at the request again.")
    logger().info("quarantine ended", extra={"quarantined": quarantined.id, "state": state})
    changes = {"state": state, "changed_by": by, "operation_id": operation_id, "payload": None}
    return quarantined.model_copy(update=changes)


def _stored(request: Request) -> StoredRequest:
    wanted = request.path["id"]
    found = runtime().requests.get(request.caller.tenant, wanted) if re.fullmatch(REQUEST_ID, wanted) else None
    if found is None:
        raise NotFoundError("There is no request with this id.")
    return found


ROUTES = {
    "GET /requests": _list_requests,
    "GET /requests/{id}": _get_request,
    "POST /requests/{id}/resend": _resend_request,
    "POST /requests/{id}/discard": _discard_request,
}
SCOPES = {
    **dict.fromkeys(ROUTES, READ_SCOPE),
    **dict.fromkeys(("POST /requests/{id}/resend", "POST /requests/{id}/discard"), RESOLVE_SCOPE),
}

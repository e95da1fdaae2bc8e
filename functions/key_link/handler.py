"""Entry of key_link: HTTP and queue events in, responses out."""

import re

from crm_bridge import Function
from crm_bridge.errors import NotFoundError
from crm_bridge.inbound.api import Request, Response, ask, receive, run, to_response
from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import State
from crm_bridge.vendors.revio import NameKind
from key_link.flow import ChangeKeyLink, CreateKeyLink, DeleteKeyLink
from key_link.key_links import KeyLinks
from key_link.models import KeyLink, KeyLinkChange, KeyLinkDeletion, KeyLinkSearch, NewKeyLink


def _create(request: Request) -> Response:
    asked_at = runtime().clock.microseconds()
    link, mapping = receive(request, CreateKeyLink.function, KeyLink)
    command = NewKeyLink(link=link, asked_at=asked_at)
    return to_response(run(request, CreateKeyLink, command, mapping), CreateKeyLink)


def _change(request: Request) -> Response:
    key_link_id, asked_at = _id(request), runtime().clock.microseconds()
    link, mapping = receive(request, ChangeKeyLink.function, KeyLink)
    command = KeyLinkChange(id=key_link_id, link=link, asked_at=asked_at)
    return to_response(run(request, ChangeKeyLink, command, mapping), ChangeKeyLink)


def _delete(request: Request) -> Response:
    outcome = run(request, DeleteKeyLink, KeyLinkDeletion(id=_id(request), asked_at=runtime().clock.microseconds()))
    is_done = outcome.operation.state is State.SUCCEEDED
    return Response(204, None) if is_done else to_response(outcome, DeleteKeyLink)


def _get(request: Request) -> Response:
    key_link_id = _id(request)
    found = ask(request, CreateKeyLink, lambda flow, revio: KeyLinks(flow.context, revio).get(key_link_id))
    return Response(200, found.model_dump(mode="json"))


def _search(request: Request) -> Response:
    wanted = request.query_as(KeyLinkSearch)
    found, has_more = ask(request, CreateKeyLink, lambda flow, revio: KeyLinks(flow.context, revio).page(wanted))
    shown = [key_link.model_dump(mode="json") for key_link in found]
    return Response(200, {"key_links": shown, "page": wanted.page, "page_size": wanted.page_size, "has_more": has_more})


def _names(request: Request, kind: NameKind) -> list[dict[str, object]]:
    names = ask(request, CreateKeyLink, lambda flow, revio: KeyLinks(flow.context, revio).names(kind))
    return [{"id": named.id, "name": named.name} for named in names]


def _id(request: Request) -> int:
    if not re.fullmatch("[1-9][0-9]{0,17}", request.path["id"]):
        raise NotFoundError("There is no key link with this id: ids are numbers.")
    return int(request.path["id"])


ROUTES = {
    "GET /key-links": _search,
    "POST /key-links": _create,
    "GET /key-links/{id}": _get,
    "PUT /key-links/{id}": _change,
    "DELETE /key-links/{id}": _delete,
    "GET /key-links/systems": lambda request: Response(200, {"systems": _names(request, "system")}),
    "GET /key-links/entity-types": lambda request: Response(200, {"entity_types": _names(request, "entity_type")}),
}


lambda_handler = Function("key_link", CreateKeyLink, ChangeKeyLink, DeleteKeyLink, routes=ROUTES)

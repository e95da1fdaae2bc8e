"""Entry of key_link: HTTP and queue events in, answers out."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from crm_bridge.api import Context, Request, Response, carry, received, respond, told
from crm_bridge.errors import NotFoundError
from crm_bridge.operations import State
from crm_bridge.runtime import runtime
from crm_bridge.vendors.revio import NameKind
from crm_bridge.worker import consume
from key_link.change import Held
from key_link.flow import KeyLinkFlow, KeyLinks
from key_link.models import CarryKeyLink, KeyLink, KeyLinkSearch


def flow() -> KeyLinkFlow:
    made = runtime()
    return KeyLinkFlow(made.memory, Held(made.links, made.operations, made.engine, made.accounts, made.clock))


def _ask[T](request: Request, question: Callable[[KeyLinks], T]) -> T:
    return runtime().engine.signed_in(flow(), request.caller.tenant, request.deadline, question)


def _create(request: Request) -> Response:
    asked_at = _now()
    link, mapping = received(runtime().engine, flow(), request, KeyLink)
    outcome = carry(runtime().engine, flow(), request, CarryKeyLink(link=link, asked_at=asked_at), mapping)
    return told(replace(outcome, changed=False))  # all that a key link says is in its event key


def _change(request: Request) -> Response:
    key_link_id, asked_at = _id(request), _now()
    link, mapping = received(runtime().engine, flow(), request, KeyLink)
    command = CarryKeyLink(id=key_link_id, link=link, asked_at=asked_at)
    return told(carry(runtime().engine, flow(), request, command, mapping), done=200)


def _delete(request: Request) -> Response:
    outcome = carry(runtime().engine, flow(), request, CarryKeyLink(id=_id(request), link=None, asked_at=_now()))
    return Response(204, None) if outcome.operation.state is State.SUCCEEDED else told(outcome)


def _get(request: Request) -> Response:
    key_link_id = _id(request)
    return Response(200, _ask(request, lambda key_links: key_links.get(key_link_id)).model_dump(mode="json"))


def _search(request: Request) -> Response:
    wanted = request.query_as(KeyLinkSearch)
    found, has_more = _ask(request, lambda key_links: key_links.page(wanted))
    shown = [key_link.model_dump(mode="json") for key_link in found]
    return Response(200, {"key_links": shown, "page": wanted.page, "page_size": wanted.page_size, "has_more": has_more})


def _names(request: Request, kind: NameKind) -> list[dict[str, object]]:
    names = _ask(request, lambda key_links: key_links.names(kind))
    return [{"id": named.id, "name": named.name} for named in names]


def _id(request: Request) -> int:
    if not re.fullmatch("[1-9][0-9]{0,17}", request.path["id"]):
        raise NotFoundError("There is no key link with this id: ids are numbers.")
    return int(request.path["id"])


def _now() -> int:
    return int(runtime().clock() * 1_000_000)


ROUTES = {
    "GET /key-links": _search,
    "POST /key-links": _create,
    "GET /key-links/{id}": _get,
    "PUT /key-links/{id}": _change,
    "DELETE /key-links/{id}": _delete,
    "GET /key-links/systems": lambda request: Response(200, {"systems": _names(request, "system")}),
    "GET /key-links/entity-types": lambda request: Response(200, {"entity_types": _names(request, "entity_type")}),
}


def lambda_handler(event: Mapping[str, Any], context: Context) -> Mapping[str, object]:
    if "Records" in event:
        return consume(event, context, runtime().engine, flow())
    return respond(event, context, ROUTES, function=KeyLinkFlow.name, keys=runtime().keys)

"""The OpenAPI 3.1 document, put together. https://spec.openapis.org/oas/v3.1.1.html"""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import groupby
from operator import attrgetter
from typing import Any

from pydantic import BaseModel

from connector_receiver import record_routes
from connector_receiver.responses import ConnectorProblem
from crm_bridge import __version__, errors
from crm_bridge.errors import ProblemError
from crm_bridge.inbound.api import JSON, PROBLEM_TYPE, REQUEST_ID
from crm_bridge.responses import Problem, Processed, SettledOperation
from crm_bridge.vendors import REGISTRY
from local.events import load_event
from local.template import TEMPLATE, ApiRoute, bundle_template
from openapi import problems
from openapi.recorded import Recorded, recorded
from openapi.routes import (
    ASKED,
    FROM_THE_GATEWAY,
    HEADERS,
    IDEMPOTENCY_KEY,
    PAGES,
    PARAMETERS,
    PREFER,
    ROUTES,
    SECURITY,
    STATUSES,
    WEBHOOK_HEADERS,
    WEBHOOK_RESPONSES,
    XML_ROOTS,
    GatewayMessage,
    Route,
    Schema,
)
from openapi.schemas import REF, components
from operations.flows import flows
from operations.handler import SCOPES
from sources import requests as stored_requests

ROOT = TEMPLATE.parent
DOCUMENT = ROOT / "docs" / "openapi.json"
XML = "application/xml"
OF_ALL = ("Cache-Control", "X-Content-Type-Options", REQUEST_ID)
"""Headers of every response."""
PROBLEM, PROBLEM_XML = "application/problem+json", "application/problem+xml"
WEBHOOK = "webhook"
"""The recorded webhook, beside the answers."""

type Node = dict[str, Any]
"""A part of the document."""


def text() -> str:
    """Return what `docs/openapi.json` has to be."""
    written = json.dumps(document(), indent=1, ensure_ascii=False)
    return re.sub("[\U00010000-\U0010ffff]", lambda rare: json.dumps(rare[0])[1:-1], written) + "\n"


def document() -> Node:
    template = bundle_template()
    keys = {
        name.strip(): _key_header(name.strip()) for name in template.parameters["ApiKeyHeaders"]["Default"].split(",")
    }
    schemes = {**SECURITY, **keys}
    paths: Node = {}
    for where in template.routes:
        if f"{where.method} {where.path}" in PAGES:
            continue
        said = ROUTES[f"{where.method} {where.path}"]
        paths.setdefault(where.path, {})[where.method.lower()] = _operation(where, said)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "CRM Bridge",
            "version": __version__,
            "summary": project["description"],
            "description": "Sending an event again is always safe. These are the types of what api.md describes.",
            "license": {"name": project["license"], "identifier": project["license"]},
        },
        "externalDocs": {"description": "The same in words", "url": "api.md"},
        "servers": [
            {"url": "http://127.0.0.1:3000", "description": "`make run`"},
            {
                "url": "https://{api}.execute-api.{region}.amazonaws.com",
                "description": "What `sam deploy` prints",
                "variables": {"api": {"default": "api"}, "region": {"default": "eu-west-1"}},
            },
        ],
        "security": [{name: []} for name in schemes],
        "tags": [{"name": tag} for tag in (*dict.fromkeys(map(_tag, template.routes)), WEBHOOK)],
        "paths": paths,
        "webhooks": {"operationSettled": {"post": _webhook()}},
        "components": {"schemas": _schemas(), "responses": _problems(), "securitySchemes": schemes},
    }


@cache
def _schemas() -> Node:
    """Return those of all bodies. The members of what is asked in an address are parameters."""
    asked = {route.body for route in ROUTES.values() if route.body}
    bodies = {(route, body) for route in ROUTES.values() for body in (route.result, route.accepted) if body}
    results = {body for route, body in bodies if _has_result(route, body)}
    returned = {body for route, body in bodies if not _has_result(route, body)}
    schemas = components(asked, {*returned, Problem, ConnectorProblem, GatewayMessage, SettledOperation})
    made = components((), {*results, Processed})
    for result in results:
        name = _response_name(result)
        schemas[name] = _with(made[result.__name__], made["Processed"]) | {"title": name}
    schemas |= {f"{model.__name__}{status}": _problem_schema(model, status, kinds) for model, status, kinds in _kinds()}
    for key, route in ROUTES.items():
        if route.body:
            for name, description in _fields(key).items():
                schemas[route.body.__name__]["properties"].get(name, {})["description"] = description
    for model, root in XML_ROOTS.items():
        schemas[model.__name__]["xml"] = {"name": root}
    return dict(sorted(schemas.items()))


def _has_result(route: Route, body: type) -> bool:
    """Whether the body of a response is the result that a flow stores, and besides it what every event has."""
    return bool(route.accepted) and issubclass(body, BaseModel)


def _response_name(result: type) -> str:
    """Return its own, if no route returns it alone."""
    is_returned_alone = any(route.result is result and not route.accepted for route in ROUTES.values())
    return f"{result.__name__}Response" if is_returned_alone else result.__name__


def _with(schema: Node, more: Node) -> Node:
    properties = {**schema["properties"], **more["properties"]}
    return {**schema, "properties": properties, "required": [*schema["required"], *more["required"]]}


def _key_header(name: str) -> Node:
    return {"type": "apiKey", "in": "header", "name": name, "description": "The API key."}


def _tag(route: ApiRoute) -> str:
    return bundle_template().functions[route.function].handler.partition(".")[0]


def _operation(where: ApiRoute, route: Route) -> Node:
    examples = examples_of(f"{where.method} {where.path}")
    operation: Node = {"operationId": route.name, "tags": [_tag(where)], "summary": route.summary}
    scopes = SCOPES | record_routes.SCOPES | stored_requests.SCOPES
    needed = f"Needs the scope `{scopes.get(f'{where.method} {where.path}', _tag(where))}`."
    text = " ".join(filter(None, [route.description, _of_update(f"{where.method} {where.path}")]))
    operation["description"] = text if route.by_proof else f"{text} {needed}".strip()
    if route.by_proof:
        operation["security"] = []
    parameters = [*_in_path(where.path, examples), *_in_query(route)]
    if route.takes_key:
        description, schema = IDEMPOTENCY_KEY
        parameters.append({"name": "Idempotency-Key", "in": "header", "description": description, "schema": schema})
    if route.accepted:
        prefer = {"name": "Prefer", "in": "header", "description": PREFER, "schema": {"type": "string"}}
        parameters.append(prefer)
    if parameters:
        operation["parameters"] = parameters
    if route.body:
        operation["requestBody"] = _body(where.path, route, examples, is_mapped=_tag(where) in _mapped())
    name = "ConnectorProblem" if speaks_xml(where.path) else "Problem"
    made = {status: _response(where.path, route, status, examples) for status in route.statuses}
    if route.accepted:
        made[202] = _response(where.path, route, 202, examples)
    shared = route.all_problems(where.path)
    made |= {status: {"$ref": f"#/components/responses/{name}{status}"} for status in shared}
    operation["responses"] = {str(status): made[status] for status in sorted(made)}
    return operation


def _of_update(key: str) -> str:
    """Return what becomes of a later payload of the event that this route takes; empty if it takes none."""
    texts = [flow.update.text for flow in flows().values() if flow.event_route == key]
    return f"With a different payload: {texts[0]}" if texts else ""


def speaks_xml(path: str) -> bool:
    return path.startswith("/connector/")


def _in_path(path: str, examples: Iterable[Recorded]) -> Iterable[Node]:
    for segments, name in re.findall(r"(?=(?:/|^)([^/]+/\{(\w+)\}))", path):
        description, schema = PARAMETERS[segments]
        values = dict.fromkeys(load_event(*one.name)["pathParameters"][name] for one in examples if one.status < 300)
        shown = {f"example{number}": {"value": _typed(value, schema)} for number, value in enumerate(values, 1)}
        found = {"examples": shown} if shown else {}
        yield {"name": name, "in": "path", "required": True, "description": description, "schema": schema, **found}


def _typed(value: str, schema: Schema) -> str | int:
    return int(value) if schema.get("type") == "integer" else value


def _in_query(route: Route) -> Iterable[Node]:
    if route.query is None:
        return
    schema = components({route.query}, set())[route.query.__name__]
    for name, member in schema["properties"].items():
        # There is no null in an address.
        wanted = next((one for one in member.get("anyOf", []) if one.get("type") != "null"), member)
        required = {"required": True} if name in schema.get("required", ()) else {}
        yield {"name": name, "in": "query", "schema": wanted, **required}


def _mapped() -> set[str]:
    """Return the functions for whose events a tenant may have a mapping."""
    return {function for entry in REGISTRY if entry.has_mappings for function in entry.functions}


def _body(path: str, route: Route, examples: Iterable[Recorded], *, is_mapped: bool) -> Node:
    assert route.body
    schema = {"$ref": REF + route.body.__name__}
    content: Node = {JSON: {"schema": schema}}
    if speaks_xml(path):
        content[XML] = {"schema": schema}
    for one in examples:
        event = load_event(*one.name)
        kind = event["headers"]["content-type"]
        # What a mapping takes, or is refused, is no example of the schema.
        if one.status < 400 and "upya" not in one.name[1]:
            value = json.loads(event["body"]) if kind == JSON else event["body"]
            content[kind].setdefault("examples", {})[one.name[1]] = {"value": value}
    made = {"required": True, "content": content}
    if route.accepted and is_mapped:
        made["description"] = "If the tenant has a mapping for it: whatever JSON the mapping takes."
    return made


def _response(path: str, route: Route, status: int, examples: Iterable[Recorded]) -> Node:
    body = route.accepted if status == 202 else route.result
    description = STATUSES[status] if route.accepted else ASKED
    made: Node = {"description": description, "headers": _headers(*OF_ALL, *(["Location"] * (status == 202)))}
    if body:
        name = _response_name(body) if _has_result(route, body) else body.__name__
        made["content"] = {JSON: {"schema": {"$ref": REF + name}}}
        if speaks_xml(path):
            made["content"][XML] = {}
        if route.by_proof and status == 200:
            made["content"]["text/xml"] = {}
        for one in examples:
            if one.status == status:
                made["content"][one.media_type].setdefault("examples", {})[one.name[1]] = {"value": one.body}
        if "operation_id" in _schemas()[name]["properties"]:
            link = {"operationId": "getOperation", "parameters": {"id": "$response.body#/operation_id"}}
            made["links"] = {"operation": link}
    return made


def _headers(*names: str, required: bool = True) -> Node:
    return {name: {"description": HEADERS[name][0], "required": required, "schema": HEADERS[name][1]} for name in names}


def _kinds() -> Iterator[tuple[type, int, list[type[ProblemError]]]]:
    """Yield the kinds of problems that there are for a status: on the Connector's routes, and on the others."""
    for status, group in groupby(problems.kinds(), attrgetter("status")):
        kinds = list(group)
        yield ConnectorProblem, status, kinds
        yield Problem, status, [kind for kind in kinds if kind is not errors.NotXmlError]


def _problems() -> Node:
    """Return the responses that several routes share."""
    made = {f"{model.__name__}{status}": _problem(model, status, kinds) for model, status, kinds in _kinds()}
    for one in (one for one in recorded() if one.status >= 400):
        model = ConnectorProblem if speaks_xml(load_event(*one.name)["rawPath"]) else Problem
        content = made[f"{model.__name__}{one.status}"]["content"][one.media_type]
        content.setdefault("examples", {})["_".join(one.name)] = {"value": one.body}
    return dict(sorted(made.items()))


def _problem_schema(model: type, status: int, kinds: list[type[ProblemError]]) -> Node:
    """Generators of clients give up on a `const` here, and on an `enum` of booleans."""
    members: Node = {
        "type": {"enum": [PROBLEM_TYPE + kind.kind for kind in kinds]},
        "title": {"enum": [kind.title for kind in kinds]},
        "status": {"enum": [status]},
    }
    retryable = {kind.retryable for kind in kinds}
    if len(retryable) == 1:
        members["retryable"] = {"type": "boolean", "const": retryable.pop()}
    return {"allOf": [{"$ref": REF + model.__name__}, {"properties": members}]}


def _problem(model: type, status: int, kinds: list[type[ProblemError]]) -> Node:
    content: Node = {PROBLEM: {"schema": {"$ref": f"{REF}{model.__name__}{status}"}}}
    if model is ConnectorProblem:
        content[PROBLEM_XML] = {}
    if status in FROM_THE_GATEWAY:
        content[JSON] = {"schema": {"$ref": REF + GatewayMessage.__name__}}
    headers = _headers(*OF_ALL, required=status not in FROM_THE_GATEWAY)
    headers |= _headers("WWW-Authenticate") if status == 401 else {}
    if any(kind.retryable for kind in kinds):
        headers |= _headers("Retry-After", required=status not in FROM_THE_GATEWAY)
    return {"description": STATUSES[status], "headers": headers, "content": content}


def _webhook() -> Node:
    parameters = [
        {"name": name, "in": "header", "required": True, "description": description, "schema": schema}
        for name, (description, schema) in WEBHOOK_HEADERS.items()
    ]
    example = next(one.body for one in recorded() if one.event == WEBHOOK)
    content = {"schema": {"$ref": REF + SettledOperation.__name__}, "examples": {WEBHOOK: {"value": example}}}
    return {
        "operationId": "operationSettled",
        "tags": [WEBHOOK],
        "summary": "The result of an event that got 202",
        "description": "Sent to the address in the tenant's `webhook`, as Standard Webhooks 1.0 says.",
        "security": [],
        "parameters": parameters,
        "requestBody": {"required": True, "content": {JSON: content}},
        "responses": {status: {"description": description} for status, description in WEBHOOK_RESPONSES.items()},
    }


def examples_of(route: str) -> list[Recorded]:
    """Return what was recorded of a route such as `POST /sites`."""
    return _by_route().get(route, [])


@cache
def _by_route() -> Mapping[str, list[Recorded]]:
    found: dict[str, list[Recorded]] = {}
    for one in recorded():
        if one.event != WEBHOOK:
            found.setdefault(load_event(*one.name)["routeKey"], []).append(one)
    return found


def _fields(key: str) -> Mapping[str, str]:
    """Return what the table in the route's section of docs/api.md says of each field."""
    api = (ROOT / "docs" / "api.md").read_text()
    section = api.partition(f"\n## `{key}`")[2].partition("\n## ")[0]
    found: dict[str, str] = {}
    for names, said in re.findall(r"^\| (`\w+`(?:(?:, | or )`\w+`)*) \| (.+) \|$", section, re.MULTILINE):
        found |= dict.fromkeys(re.findall(r"`(\w+)`", names), said)
    return found

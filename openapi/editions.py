"""Editions of docs/openapi.json for programs that do not understand all of it."""

import copy
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from crm_bridge.inbound.api import JSON
from openapi.document import DOCUMENT, document, speaks_xml
from openapi.schemas import REF

CLIENTS = DOCUMENT.with_name("openapi-clients.json")
FLAT = DOCUMENT.with_name("openapi-3.0.json")

type Node = dict[str, Any]


# ---------------------------------------------------------------------- for generators of clients


def clients_text() -> str:
    """Return what docs/openapi-clients.json has to be: the same without XML and examples, which no generator reads."""
    made = document()
    for node in _nodes(made):
        content = node.get("content")
        if isinstance(content, dict):
            node["content"] = {kind: _without_examples(body) for kind, body in content.items() if "xml" not in kind}
        for parameter in node.get("parameters", ()):
            if isinstance(parameter, dict):
                parameter.pop("examples", None)
    return _text(made)


def _without_examples(content: Node) -> Node:
    return {name: value for name, value in content.items() if name != "examples"}


def _nodes(node: object) -> Iterator[Node]:
    if isinstance(node, dict):
        yield node
        for member in node.values():
            yield from _nodes(member)
    elif isinstance(node, list):
        for member in node:
            yield from _nodes(member)


# ---------------------------------------------------------------------- flat, in OpenAPI 3.0


DEPTH = 2
"""Objects within each other that a body may have at most: an object with a list of objects."""
ABOUT = (
    "Plain types only, for low-code platforms such as Salesforce External Services: no alternatives, no XML, an id in "
    "every body, no response without a body. Enumerations are in the descriptions, and what has no plain type is left "
    "out. A problem is application/problem+json, whose members openapi.json describes."
)


LEFT_OUT = frozenset({"getRecord", "listRecords"})
"""Operations that return nothing but fields of any type."""


class _NoPlainTypeError(Exception):
    pass


def flat_text() -> str:
    """Return what docs/openapi-3.0.json has to be.

    Operations are left out that return no body, need what has no plain type, or belong to the InTouch Connector.
    """
    return _text(_Flat(document()).document())


class _Flat:
    def __init__(self, whole: Node) -> None:
        self._whole = whole
        self._schemas: Node = {}
        self._is_request = False

    def document(self) -> Node:
        paths: Node = {}
        for path, operations in self._whole["paths"].items():
            for method, operation in operations.items():
                if (
                    not speaks_xml(path)
                    and operation["operationId"] not in LEFT_OUT
                    and (made := self._operation(operation))
                ):
                    paths.setdefault(path, {})[method] = made
        info = {name: value for name, value in self._whole["info"].items() if name in ("title", "version")}
        return {
            "openapi": "3.0.3",
            "info": {**info, "description": ABOUT, "license": {"name": self._whole["info"]["license"]["name"]}},
            "servers": self._whole["servers"][1:],
            "security": [{"bearer": []}],
            "paths": paths,
            "components": {
                "schemas": dict(sorted(self._schemas.items())),
                "securitySchemes": {"bearer": self._whole["components"]["securitySchemes"]["bearer"]},
            },
        }

    def _operation(self, operation: Node) -> Node | None:
        """Return None if it cannot be said in plain types."""
        made: Node = {name: operation[name] for name in ("operationId", "tags", "summary", "description")}
        before = dict(self._schemas)
        try:
            if "parameters" in operation:
                made["parameters"] = [self._parameter(one) for one in operation["parameters"]]
            if body := operation.get("requestBody"):
                made["requestBody"] = {"required": True, "content": self._content(body, operation, "Request")}
            made["responses"] = {
                status: {
                    "description": response["description"],
                    "content": self._content(response, operation, f"Response{status}"),
                }
                for status, response in operation["responses"].items()
                if status < "300"
            }
        except _NoPlainTypeError:
            self._schemas = before
            return None
        made["responses"]["default"] = {
            "description": "A problem: `detail` says what to do, `retryable` whether later."
        }
        return made

    def _parameter(self, parameter: Node) -> Node:
        kept: Node = {name: parameter[name] for name in ("name", "in", "required", "description") if name in parameter}
        return {**kept, "schema": self._plain(parameter["schema"], "", DEPTH)}

    def _content(self, node: Node, operation: Node, kind: str) -> Node:
        if JSON not in node.get("content", {}):
            raise _NoPlainTypeError
        self._is_request = kind == "Request"
        name = operation["operationId"][0].upper() + operation["operationId"][1:] + kind
        return {JSON: {"schema": self._plain(node["content"][JSON]["schema"], name, 0)}}

    def _plain(self, schema: Node, name: str, depth: int) -> Node:
        """Return a schema in plain types; an object is a component of its own. Raises _NoPlainTypeError."""
        schema, is_nullable = self._resolved(schema)
        kind, values = schema.get("type"), schema.get("enum", [])
        kind = kind or (_type_of(schema["const"]) if "const" in schema else _type_of(values[0]) if values else None)
        made: Node = {"type": kind}
        if kind == "object":
            if is_nullable and not self._is_request:  # a request may leave it out
                raise _NoPlainTypeError
            return {"$ref": REF + self._object(schema, name, depth)}
        if kind == "array":
            if self._resolved(schema.get("items", {}))[0].get("type") == "array":
                raise _NoPlainTypeError
            made["items"] = self._plain(schema.get("items", {}), f"{name}Item", depth)
        elif kind not in ("string", "integer", "number", "boolean"):
            raise _NoPlainTypeError
        if schema.get("format") in ("date", "date-time"):
            made["format"] = schema["format"]
        if is_nullable:
            made["nullable"] = True
        text = re.sub(r"\[(.+?)\]\(.+?\)", r"\1", schema.get("description", "")).removesuffix(".")
        texts = filter(None, (text, f"One of {', '.join(map(str, values))}" if values else ""))
        if text := ". ".join(texts):
            made["description"] = f"{text}."
        return made

    def _object(self, schema: Node, name: str, depth: int) -> str:
        """Return the name of the component. A member without a plain type is left out, unless it is required."""
        if depth >= DEPTH or not schema.get("properties"):
            raise _NoPlainTypeError
        members, required = {}, set(schema.get("required", ()))
        for member, inner in schema["properties"].items():
            try:
                members[member] = self._plain(inner, name + re.sub("(?:^|_)(.)", _upper, member), depth + 1)
            except _NoPlainTypeError:
                if self._is_request and member in required:
                    raise
                required.discard(member)
        if not members:
            raise _NoPlainTypeError
        order = [member for member in members if member in required]
        made = {"type": "object", "properties": members, **({"required": order} if order else {})}
        title = str(schema.get("title", name))
        if self._schemas.setdefault(title, made) != made:  # another depth has left out other members
            title = name
            self._schemas[title] = made
        return title

    def _resolved(self, schema: Node) -> tuple[Node, bool]:
        """Return the plainest of a schema's alternatives with its own description, and whether it may be null."""
        own, is_nullable = {name: schema[name] for name in ("description",) if name in schema}, False
        while "$ref" in schema or "anyOf" in schema:
            if "$ref" in schema:
                schema = self._whole["components"]["schemas"][schema["$ref"].removeprefix(REF)]
                continue
            others = [one for one in schema["anyOf"] if one.get("type") != "null"]
            is_nullable |= len(others) < len(schema["anyOf"])
            if all("type" not in one and "$ref" not in one and "const" not in one for one in others):
                schema = {**schema, "anyOf": None}
                break
            schema = others[0]
        kept = {name: value for name, value in schema.items() if name != "anyOf"}
        return copy.deepcopy({**kept, **own}), is_nullable


def _upper(found: re.Match[str]) -> str:
    return found[1].upper()


def _type_of(value: object) -> str | None:
    return {bool: "boolean", int: "integer", str: "string"}.get(type(value))


def _text(made: Mapping[str, object]) -> str:
    return json.dumps(made, indent=1) + "\n"

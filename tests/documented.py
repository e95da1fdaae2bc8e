"""The responses that docs/openapi.json allows a function."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import jsonschema_rs

from openapi.document import DOCUMENT


@cache
def closed() -> dict[str, Any]:
    """The document with nothing allowed in an answer that it does not name, but where a vendor's members come along."""
    document: dict[str, Any] = json.loads(DOCUMENT.read_text())
    for schema in document["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return document


def nodes(node: object) -> Iterator[dict[str, Any]]:
    """Yield every object of a document."""
    if isinstance(node, dict):
        yield node
    for member in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(member)


def deviations(route: str, answer: Mapping[str, Any]) -> Iterator[str]:
    """Return what in a function's response to API Gateway the document does not allow."""
    method, _, path = route.partition(" ")
    status, headers = str(answer["statusCode"]), answer["headers"]
    responses = closed()["paths"][path][method.lower()]["responses"]
    if status not in responses:
        yield f"{route} answered {status}"
        return
    response = _resolved(responses[status])
    for name, header in response["headers"].items():
        if header["required"] and name not in headers:
            yield f"{route} answered {status} without {name}"
    kind = headers.get("Content-Type", "").partition(";")[0]
    content = response.get("content", {})
    if not content and not answer["body"]:
        return
    if kind not in content:
        yield f"{route} answered {status} with {kind}"
    elif "schema" in content[kind]:
        for error in validator(json.dumps(content[kind]["schema"])).iter_errors(json.loads(answer["body"])):
            yield f"{route} answered {status} with {error.message} at {error.instance_path}"


@cache
def validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    """Of a part of the document, which may refer to other parts."""
    whole = {**json.loads(schema), "components": closed()["components"]}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)


def _resolved(response: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in response:
        return response
    shared: dict[str, Any] = closed()["components"]["responses"][response["$ref"].rpartition("/")[2]]
    return shared

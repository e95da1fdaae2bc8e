"""Calls as they pass: which service and action each is, what it needs, and the taps that let faults happen to them."""

import json
import os
import re
import socket
import uuid
from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from werkzeug.exceptions import ClientDisconnected
from werkzeug.wrappers import Request, Response

from local.server import cut
from tests.faults import child
from tests.faults.faults import Act, Call, Fault

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from tests.faults.harness import World

_SERVICES = {"DynamoDB_20120810": "DynamoDB", "secretsmanager": "SecretsManager", "AmazonSQS": "SQS"}
_CHECKPOINT = re.compile("/2025-12-01/durable-executions/.+/checkpoint")


class Tap:
    """In front of a server: tells the world of each request, and does to it what the world wants."""

    def __init__(self, world: "World", service: str, app: "WSGIApplication") -> None:
        self._world = world
        self._service = service
        self._app = app

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        request = Request(environ)
        try:
            content = request.get_data()
        except ClientDisconnected:  # it was killed for another call, at the same time
            return Response()(environ, start_response)
        environ["wsgi.input"] = BytesIO(content)
        call = call_of(self._service, request.method, request.path, dict(request.headers), content)
        with self._world.responding():
            return self._answer(environ, start_response, call)

    def _answer(self, environ: "WSGIEnvironment", start_response: "StartResponse", call: Call) -> Iterable[bytes]:
        fault = self._world.arrived(call)
        if fault is None:
            return self._app(environ, start_response)
        if fault.done:
            Response.from_app(self._app, environ, buffered=True).close()
        self._world.do(fault, call)
        match fault.act:
            case Act.AGAIN | Act.ASK:
                return self._app(environ, start_response)
            case Act.ANSWER:
                return Response(fault.body, fault.status, fault.headers)(environ, start_response)
        cut(environ["werkzeug.socket"])
        return Response()(environ, start_response)


def call_of(service: str, method: str, path: str, headers: Mapping[str, str], content: bytes) -> Call:
    by_name = {name.lower(): value for name, value in headers.items()}
    target = by_name.get("x-amz-target", "")
    agent = re.search(rf"{child.NAME}-(\d+)", by_name.get("user-agent", ""))
    pid = int(agent[1]) if agent else None
    if _CHECKPOINT.fullmatch(path):
        actions = "+".join(update["Action"] for update in json.loads(content).get("Updates", ()))
        return Call("Lambda", f"CheckpointDurableExecution {actions}", by_name["amz-sdk-invocation-id"], pid)
    if not target:
        return Call(service, f"{method} {re.sub('/[0-9]+(?=/|$)', '/{}', path)}", uuid.uuid4().hex, pid)
    service, _, action = target.partition(".")
    asked = json.loads(content)
    tables = [asked.get("TableName"), *asked.get("RequestItems", ())]
    tables += [part["TableName"] for item in asked.get("TransactItems", ()) for part in item.values()]
    names = {name: variable.removesuffix("_TABLE").lower() for variable, name in os.environ.items()}
    about = "+".join(dict.fromkeys(names.get(table, "?") for table in tables if table))
    what = " ".join(filter(None, (action, about, asked.get("IndexName"))))
    return Call(
        _SERVICES[service], what, by_name["amz-sdk-invocation-id"], pid, _needs(_SERVICES[service], action, asked)
    )


_ITEM_ACTIONS = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
    "Get": "GetItem",
}


def _needs(service: str, action: str, asked: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    """Source: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazondynamodb.html"""
    match service, action:
        case "DynamoDB", "TransactWriteItems" | "TransactGetItems":  # are no actions of their own
            parts = [(kind, part) for item in asked["TransactItems"] for kind, part in item.items()]
            return frozenset((f"dynamodb:{_ITEM_ACTIONS[kind]}", part["TableName"]) for kind, part in parts)
        case "DynamoDB", _:
            index = f"/index/{asked['IndexName']}" if "IndexName" in asked else ""
            tables = [asked["TableName"]] if "TableName" in asked else asked["RequestItems"]
            return frozenset((f"dynamodb:{action}", table + index) for table in tables)
        case "SQS", _:
            return frozenset({(f"sqs:{action.removesuffix('Batch')}", asked.get("QueueUrl", ""))})
        case _:
            return frozenset({(f"secretsmanager:{action}", asked.get("SecretId", ""))})


def headers_of(request: Any) -> dict[str, str]:
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()}


def detoured(url: str, fault: Fault | None) -> str:
    if fault is None:
        return url
    parts = urlsplit(url)
    detour = urlsplit(fault.detour.format(netloc=parts.netloc))
    return parts._replace(scheme=detour.scheme, netloc=detour.netloc).geturl()


def refusing_invalid_names(real: Callable[..., Any]) -> Callable[..., Any]:
    """Names that there cannot be are not even asked for, so that no name server is needed."""

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(host, str) and host.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *arguments, **options)

    return getaddrinfo

"""A world with faults: the bundle, its vendors and its callers, and every network call in between at hand to break.

Calls are real HTTP to the real handlers, and from them to the embedded AWS and to the simulators. Time is moved on.
"""

import json
import os
import re
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from io import BytesIO
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Self
from unittest.mock import patch
from urllib.parse import quote, urlsplit

import boto3
import botocore.endpoint
import botocore.httpsession
import requests
from botocore.config import Config
from werkzeug.exceptions import ClientDisconnected
from werkzeug.wrappers import Request, Response

import local.gateway
import local.stack
from crm_bridge import dynamodb, transport
from crm_bridge.dynamodb import deserialize
from crm_bridge.engine import DUE
from crm_bridge.errors import Event as Happening
from crm_bridge.operations import LISTING_INDEX, Operation, OperationSummary, State
from crm_bridge.runtime import runtime
from local.gateway import FunctionFailedError, invoke
from local.server import Server, cut
from local.stack import SCOPES, Stack
from local.template import Function
from tests.faults import child
from tests.faults.events import Event, tenant
from tests.faults.faults import Act, Call, Fault, Span

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from mypy_boto3_dynamodb import DynamoDBClient

FUNCTION_TIMEOUT = 22
"""Seconds instead of 29: a call waits 3 s for a turn or a token that another has, and not 11 s."""
READ_TIMEOUT = 0.5
"""Seconds instead of 20 for a vendor and 1.5 for AWS, in a world where a timeout is due."""
PATIENCE, PAUSE = 6, 60
"""So often a caller sends what was not accepted, and so many seconds lie in between."""
HOURS = 3 * 3600
"""Seconds of an outage."""
MOST_ROUNDS = 60
_SERVICES = {"DynamoDB_20120810": "DynamoDB", "secretsmanager": "SecretsManager", "AmazonSQS": "SQS"}
_NOT_THE_BUNDLES = (
    f"Query operations {LISTING_INDEX}",
    "ReceiveMessage",
    "DeleteMessage",
    "GetQueueUrl",
    "CreateSecret",
    "PutSecretValue",
)
"""What this module and the queue pollers ask of AWS."""


@dataclass
class Sent:
    """An event as its caller sent it. `told` are the statuses that came back."""

    event: Event
    path: str
    told: list[int] = field(default_factory=list)

    @property
    def is_accepted(self) -> bool:
        return self.told[-1] < 300


@dataclass
class Plan:
    """A fault that is to come: at the `nth` call of this name, or at the first that it fits."""

    fault: Fault
    name: str | None
    nth: int
    hit: Call | None = None
    hit_at: float = 0
    ids: set[str] = field(default_factory=set)

    def hits(self, call: Call, now: float) -> bool:
        if self.hit:
            match self.fault.span:
                case Span.ATTEMPT:
                    return False
                case Span.CALL:
                    return call.id == self.hit.id
                case Span.INVOCATION:
                    return call.service == self.hit.service
                case Span.HOURS:
                    return call.service == self.hit.service and now < self.hit_at + HOURS
        if not self.fault.fits(call) or self.name not in (None, call.name) or call.id in self.ids:
            return False
        if self.fault.act is Act.KILL and call.pid is None:
            return False
        self.ids.add(call.id)
        self.hit, self.hit_at = (call, now) if len(self.ids) == self.nth else (None, 0)
        return self.hit is not None


class World:
    """From `with` to its end. What happens to one tenant in it leaves no trace with another: see `take_in`."""

    def __init__(self, *, aws_endpoint: str | None = None, always_cold: bool = False) -> None:
        """`always_cold`: every invocation has a new execution environment, as the one of a child process is."""
        self.stack = self.made(aws_endpoint)
        self.seen: list[tuple[str, Call]] = []
        """The calls of the bundle, and in which function."""
        self.sent: list[Sent] = []
        self.operators = 0
        """How often a person had to decide."""
        self.moved = 0.0
        """Seconds by which the time was moved on."""
        self.tenant = ""
        self._key = ""
        self._always_cold = always_cold
        self._tenants = 0
        self._plans: list[Plan] = []
        self._ids: set[str] = set()
        self._plan_lock = threading.Lock()
        self._children: dict[int, ForkServerProcess] = {}
        self._running: tuple[Function, Mapping[str, Any]] | None = None
        self._exits = ExitStack()
        self._faults = ExitStack()
        self._session = requests.Session()
        self._session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=32))
        self._dynamodb: DynamoDBClient

    def made(self, aws_endpoint: str | None) -> Stack:
        return Stack(background=False, aws_endpoint=aws_endpoint)

    def __enter__(self) -> Self:
        with ExitStack() as exits:
            for vendor in self.stack.vendors:
                self._tap(vendor.name, vendor._server)
            if self.stack.aws:
                self._tap("AWS", self.stack.aws._server)
            exits.enter_context(patch.object(local.gateway, "invoke", self._invoke))
            exits.enter_context(patch.object(local.stack, "invoke", self._invoke))
            # The AWS client pauses for up to seconds between its attempts.
            exits.enter_context(patch.object(botocore.endpoint, "time", SimpleNamespace(sleep=lambda _: None)))
            exits.enter_context(self._session)
            exits.enter_context(self.stack)
            exits.callback(self.heal)
            self._dynamodb = boto3.client("dynamodb")
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.close()

    # ------------------------------------------------------------------ what is done to it

    def take_in(self, settings: Callable[[Stack, dict[str, Any]], None] = lambda *_: None) -> int:
        """Go on with a tenant that is new; `settings` may change its document, and the simulators. Gives its number."""
        self.heal()
        self._tenants += 1
        self.tenant = f"tenant-{self._tenants}"
        document = tenant(self.stack)
        settings(self.stack, document)
        self.stack.put_secret(self.tenant, json.dumps(document))
        self._key = self.stack.add_key(self.tenant, SCOPES, "a caller")
        self.seen, self.sent, self.operators, self.moved = [], [], 0, 0.0
        return self._tenants

    def heal(self) -> None:
        """Forget the faults that are still to come."""
        with self._plan_lock:
            self._plans.clear()
        self._faults.close()

    def prepare(self, event: Event) -> None:
        """Arrange what it needs, and send what comes before it, in peace."""
        event.arrange(self.stack)
        for earlier in event.before:
            self.prepare(earlier)
            told = self._request(earlier.method, earlier.path(self.stack), earlier.body)
            assert told == 201, (told, earlier.kind)
            self.settle()

    def send(self, event: Event) -> Sent:
        """The event, as a CRM sends it: again and again while it is told that it was not accepted."""
        sent = Sent(event, event.path(self.stack))
        self.sent.append(sent)
        for attempt in range(PATIENCE):
            if attempt:
                self.pass_time(PAUSE)
            sent.told.append(self._request(event.method, sent.path, event.body))
            if sent.told[-1] < 400 or sent.told[-1] not in (409, 429, *range(500, 600)):
                break
        return sent

    def inject(self, fault: Fault, name: str | None = None, nth: int = 1) -> Plan:
        """Let the `nth` call of this name from now on fail, or the next one that this can happen to."""
        plan = Plan(fault, name, nth)
        if fault.act is Act.TIMEOUT:
            shorter = dynamodb.AWS_CONFIG.merge(Config(read_timeout=READ_TIMEOUT))
            self._faults.enter_context(patch.object(dynamodb, "AWS_CONFIG", shorter))
            self._faults.enter_context(patch.object(transport, "READ_TIMEOUT", READ_TIMEOUT))
        if fault.act is Act.DETOUR:
            self._faults.enter_context(patch.object(requests.Session, "request", self._vendor_request()))
            self._faults.enter_context(patch.object(botocore.httpsession.URLLib3Session, "send", self._aws_send()))
            self._faults.enter_context(patch.object(socket, "getaddrinfo", _resolved(socket.getaddrinfo)))
        with self._plan_lock:
            self._plans.append(plan)
        self.start_cold()
        return plan

    def start_cold(self) -> None:
        """The next invocation begins in a new execution environment, which remembers nothing."""
        runtime.cache_clear()
        child.begin_at(self.stack._ahead)

    def pass_time(self, seconds: float, *, deliver: bool = True) -> None:
        self.moved += seconds
        self.stack.move_clock(seconds)
        if deliver:
            with suppress(FunctionFailedError):  # the dispatcher was killed; its next run comes
                self.stack.deliver_due()

    def deliver_to_both(self) -> int:
        """Give the message of whatever is due to two workers at once. Gives how many messages these were."""
        now = time.time() + self.stack._ahead
        due = [one for one in self.operations() if one.state in DUE and (one.due_at or 0) <= now]
        for operation in due:
            function = operation.flow.title().replace("_", "") + "Function"
            record = {"messageId": "m-1", "body": json.dumps({"operation_id": operation.operation_id})}
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(self.stack.invoke, [function] * 2, [{"Records": [record]}] * 2))
        return len(due)

    def settle(self) -> None:
        """Move time on until nothing is left to do by itself, and let a person decide upon what is parked."""
        for _ in range(MOST_ROUNDS):
            operations = self.operations()
            parked = [one for one in operations if one.state is State.PARKED]
            if parked:
                self.resolve(parked)
            waiting = [one.due_at or 0 for one in operations if one.state in DUE | {State.SENDING}]
            if not waiting and not parked:
                return
            # The dispatcher runs once a minute.
            ahead = min(waiting, default=0) - (time.time() + self.stack._ahead)
            self.pass_time(60 * max(1, -(-ahead // 60)))

    def resolve(self, parked: Iterable[OperationSummary]) -> None:
        """What a person does who looks at the vendor: adopt what is there, else send it again."""
        for operation in [self.operation(one.operation_id) for one in parked]:
            self.operators += 1
            there = self._made_at_the_vendor(operation)
            body = {"action": "adopt", "id": there} if there else {"action": "resend"}
            told = self._request("POST", f"/operations/{operation.operation_id}/resolve", body)
            assert told == 200, (told, operation.natural_key, body)

    def check(self) -> list[str]:
        """What is not as it must be, once all is settled."""
        wrong = [f"{one.flow} is {one.state}" for one in self.operations() if not is_finished(one)]
        for sent in self.sent:
            event, held = sent.event, sent.event.held(self.stack)
            if not sent.is_accepted:
                wrong.append(f"{event.kind} was not accepted ({sent.told})")
            if len(held) > len(event.wanted):
                wrong.append(f"{event.kind} has {len(held)} effects, not {len(event.wanted)}")
            elif held != event.wanted:
                wrong.append(f"{event.kind} left {held}")
            wrong += [f"{one} is not linked to {other}" for one, other in self._loose_ends(event)]
            wrong += [f"{one} is still linked" for one in event.untied if self._linked(one)]
        return wrong

    def operations(self) -> list[OperationSummary]:
        """All of the tenant."""
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=os.environ["OPERATIONS_TABLE"],
            IndexName=LISTING_INDEX,
            KeyConditionExpression="tenant = :tenant",
            ExpressionAttributeValues={":tenant": {"S": self.tenant}},
        )
        return [OperationSummary.model_validate(deserialize(item)) for page in pages for item in page["Items"]]

    def operation(self, operation_id: str) -> Operation:
        """Asked for in a way that the bundle does not, so that no fault hits it."""
        table, key = os.environ["OPERATIONS_TABLE"], {"operation_id": {"S": operation_id}}
        (item,) = self._dynamodb.batch_get_item(RequestItems={table: {"Keys": [key], "ConsistentRead": True}})[
            "Responses"
        ][table]
        return Operation.model_validate(deserialize(item))

    # ------------------------------------------------------------------ its callers

    def _request(self, method: str, path: str, body: object) -> int:
        headers = {"Authorization": f"Bearer {self._key}"}
        return self._session.request(method, self.stack.url + path, json=body, headers=headers, timeout=120).status_code

    def _linked(self, identity: str) -> set[str]:
        path = "/".join(quote(part, safe="") for part in identity.split("/"))
        answer = self._session.get(
            f"{self.stack.url}/links/{path}", headers={"Authorization": f"Bearer {self._key}"}, timeout=60
        )
        return {"/".join((link["system"], link["entity"], link["id"])) for link in answer.json().get("links", [])}

    def _loose_ends(self, event: Event) -> list[tuple[str, str]]:
        return [
            (one, other)
            for group in event.ties(self.stack)
            for one in group
            for other in group
            if one != other and other not in self._linked(one)
        ]

    def _made_at_the_vendor(self, operation: Operation) -> str | None:
        """The id of the record that this operation made, as a person would find it; None if there is none."""
        payload = json.loads(operation.payload or "{}")
        egito = self.stack.egito
        match operation.flow, payload.get("kind"):
            case "create_site", _:
                return _one(self.stack.illu.sites, "name", payload["name"], "site_id")
            case "create_job", _:
                return _one(self.stack.illu.jobs, "name", payload["name"], "job_id")
            case "connector_receiver", "create_record":
                record = payload["fields"]["lastName"]
                return _one(egito.records[payload["entity"]], "lastName", record, "id")
            case "connector_receiver", "create_lead_source":
                return _one(egito.dictionaries[payload["dictionary"]], "name", payload["name"], "id")
        return None

    # ------------------------------------------------------------------ its functions

    def _invoke(self, function: Function, event: Mapping[str, Any]) -> Any:
        function = replace(function, timeout=min(function.timeout, FUNCTION_TIMEOUT))
        self._running = function, event
        if self._always_cold:
            self.start_cold()
        try:
            if any(plan.fault.act is Act.KILL and not plan.hit for plan in self._plans):
                return self._invoke_in_child(function, event)
            return invoke(function, event)
        finally:
            with self._plan_lock:
                over = [plan for plan in self._plans if plan.hit and plan.fault.span is Span.INVOCATION]
                self._plans = [plan for plan in self._plans if plan not in over]

    def _invoke_in_child(self, function: Function, event: Mapping[str, Any]) -> Any:
        process, pipe = child.begin()
        assert process.pid
        self._children[process.pid] = process
        with pipe:
            return child.handled(process, pipe, function, event, self.stack._ahead)

    # ------------------------------------------------------------------ its network

    def _tap(self, service: str, server: Server) -> None:
        server._app = _Tap(self, service, server._app)

    def arrived(self, call: Call, *, before_it_leaves: bool = False) -> Fault | None:
        """What is to happen to this call. A detour is taken at the caller's end, all else at the other."""
        if call.what.startswith(_NOT_THE_BUNDLES):
            return None
        with self._plan_lock:
            if call.id not in self._ids and not before_it_leaves:
                self._ids.add(call.id)
                self.seen.append((self._running[0].name if self._running else "", call))
            for plan in self._plans:
                if (plan.fault.act is Act.DETOUR) is before_it_leaves and plan.hits(call, self.moved):
                    return plan.fault
        return None

    def do(self, fault: Fault, call: Call) -> None:
        """What this fault does besides what it lets be answered."""
        match fault.act:
            case Act.TIMEOUT:
                time.sleep(1.5 * READ_TIMEOUT)
            case Act.AGAIN if self._running:
                with suppress(FunctionFailedError):
                    invoke(*self._running)
            case Act.ASK:
                for sent in self.sent:
                    self._request(sent.event.method, sent.path, sent.event.body)
            case Act.KILL:
                assert call.pid
                os.kill(call.pid, signal.SIGKILL)
                wait([self._children[call.pid].sentinel])

    def _vendor_request(self) -> Callable[..., requests.Response]:
        real = requests.Session.request
        services = {urlsplit(vendor.url).netloc: vendor.name for vendor in self.stack.vendors}

        def request(session: requests.Session, method: str, url: str, **options: Any) -> requests.Response:
            service = services.get(urlsplit(url).netloc)  # None: it is a caller of the bundle
            call = _call(service, method, urlsplit(url).path, {}, b"") if service else None
            fault = self.arrived(call, before_it_leaves=True) if call else None
            return real(session, method, _detoured(url, fault), **options)

        return request

    def _aws_send(self) -> Callable[..., Any]:
        real = botocore.httpsession.URLLib3Session.send

        def send(session: Any, request: Any) -> Any:
            headers = {
                name: value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()
            }
            call = _call("AWS", request.method, "/", headers, request.body or b"")
            request.url = _detoured(request.url, self.arrived(call, before_it_leaves=True))
            return real(session, request)

        return send


class _Tap:
    """In front of a server: tells the world of each request, and does to it what the world wants."""

    def __init__(self, world: World, service: str, app: "WSGIApplication") -> None:
        self._world = world
        self._service = service
        self._app = app

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        request = Request(environ)
        try:
            content = request.get_data()
        except ClientDisconnected:  # it was killed for another call, at the same time
            return ()
        environ["wsgi.input"] = BytesIO(content)
        call = _call(self._service, request.method, request.path, dict(request.headers), content)
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


def _call(service: str, method: str, path: str, headers: Mapping[str, str | bytes], content: bytes) -> Call:
    told = {name.lower(): value.decode() if isinstance(value, bytes) else value for name, value in headers.items()}
    target = told.get("x-amz-target", "")
    agent = re.search(rf"{child.NAME}-(\d+)", told.get("user-agent", ""))
    pid = int(agent[1]) if agent else None
    if not target:
        return Call(service, f"{method} {re.sub('/[0-9]+(?=/|$)', '/{}', path)}", uuid.uuid4().hex, pid)
    service, _, action = target.partition(".")
    asked = json.loads(content)
    tables = [asked.get("TableName"), *asked.get("RequestItems", ())]
    tables += [part["TableName"] for item in asked.get("TransactItems", ()) for part in item.values()]
    names = {name: variable.removesuffix("_TABLE").lower() for variable, name in os.environ.items()}
    about = "+".join(dict.fromkeys(names.get(table, "?") for table in tables if table))
    what = " ".join(filter(None, (action, about, asked.get("IndexName"))))
    return Call(_SERVICES[service], what, told["amz-sdk-invocation-id"], pid)


def _detoured(url: str, fault: Fault | None) -> str:
    if fault is None:
        return url
    parts = urlsplit(url)
    detour = urlsplit(fault.detour.format(netloc=parts.netloc))
    return parts._replace(scheme=detour.scheme, netloc=detour.netloc).geturl()


def _resolved(real: Callable[..., Any]) -> Callable[..., Any]:
    """Names that there cannot be are not even asked for, so that no name server is needed."""

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(host, str) and host.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *arguments, **options)

    return getaddrinfo


def is_finished(operation: OperationSummary) -> bool:
    """Also what was withdrawn after it had succeeded, and a change that a later one has made needless."""
    last = operation.last_attempt
    return operation.state is State.SUCCEEDED or (
        last is not None and (last.event is Happening.WITHDRAWN or "by a later request" in last.reason)
    )


def _one(records: Iterable[Mapping[str, object]], member: str, value: object, id_member: str) -> str | None:
    return next((str(record[id_member]) for record in records if record.get(member) == value), None)

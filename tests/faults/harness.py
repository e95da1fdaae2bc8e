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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
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
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError
from moto.core.models import DEFAULT_ACCOUNT_ID as ACCOUNT
from moto.dynamodb.models import dynamodb_backends
from urllib3 import HTTPResponse
from werkzeug.exceptions import ClientDisconnected
from werkzeug.test import create_environ
from werkzeug.wrappers import Request, Response

import local.gateway
import local.stack
from crm_bridge import aws
from crm_bridge.engine import DUE
from crm_bridge.errors import Event as Happening
from crm_bridge.outbound import transport
from crm_bridge.runtime import runtime
from crm_bridge.storage.dynamodb import deserialize
from crm_bridge.storage.operation import Operation, State
from dispatcher import handler as dispatcher
from local.gateway import FunctionFailedError, invoke
from local.server import Server, cut
from local.stack import SCOPES, SOURCE_SECRET
from local.template import Function
from local.vendors.alterations import as_sent
from tests.faults import child
from tests.faults.events import Event, tenant
from tests.faults.faults import AWS, Act, Call, Fault, Span
from tests.memory_aws import MemoryAws
from tests.stack import Stack
from tests.versions import quick_versions

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

FUNCTION_TIMEOUT = 20
"""Seconds instead of 29: a call waits 1 s for a turn or a token that another has, and not 11 s."""
READ_TIMEOUT = 0.5
"""Seconds instead of 20 for a vendor and 1.5 for AWS, in a world where a timeout is due."""
PATIENCE, PAUSE = 17, 60
"""So often a caller sends what was not accepted, and so many seconds lie in between: longer than an operation belongs
to its message (LENT), which is said to be running meanwhile even if its worker was killed before it took it up."""
HOURS = 3 * 3600
"""Seconds of an outage."""
MOST_ROUNDS = 60
_SERVICES = {"DynamoDB_20120810": "DynamoDB", "secretsmanager": "SecretsManager", "AmazonSQS": "SQS"}
_CHECKPOINT = re.compile("/2025-12-01/durable-executions/.+/checkpoint")
_NOT_THE_BUNDLES = (
    "Scan",
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

    tenant: str
    event: Event
    path: str
    told: list[int] = field(default_factory=list)
    later: bool = False

    @property
    def is_accepted(self) -> bool:
        return self.told[-1] < 300

    @property
    def is_to_be_sent(self) -> bool:
        return not self.told or self.told[-1] in (409, 429, *range(500, 600))


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
    """From `with` to its end. What happens to one tenant in it leaves no trace with another: see `begin`."""

    def __init__(
        self, *, aws_endpoint: str | None = None, always_cold: bool = False, aws_without_http: bool = False
    ) -> None:
        """`always_cold`: every invocation has a new execution environment, as the one of a child process is.

        `aws_without_http`: what functions in this process ask of the embedded AWS comes to it without a connection,
        and its DynamoDB is in memory, which takes a quarter of the time.
        """
        self.stack = self.made(aws_endpoint)
        if aws_without_http:
            self.stack.aws = MemoryAws()
        self.seen: list[tuple[str, Call]] = []
        """The calls of the bundle, and in which function."""
        self.sent: list[Sent] = []
        self.operators = 0
        """How often a person had to decide."""
        self.moved = 0.0
        """Seconds by which the time was moved on."""
        self.tenant = ""
        """The newest, whose events are sent; `tenants` are all since `begin`, each with its API key."""
        self.tenants: dict[str, str] = {}
        self._always_cold = always_cold
        self._aws_without_http = aws_without_http
        self._number = 0
        self._plans: list[Plan] = []
        self._ids: set[str] = set()
        self._plan_lock = threading.Lock()
        self._answering = 0
        self._answered = threading.Condition()
        self._children: dict[int, ForkServerProcess] = {}
        self._running: tuple[Function, Mapping[str, Any]] | None = None
        self._exits = ExitStack()
        self._faults = ExitStack()
        self._session = requests.Session()
        self._session.trust_env = False
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
            # Making one takes longer than most events; what a cold start has to forget is not in there.
            for makes in (aws, boto3):
                exits.enter_context(patch.object(makes, "client", cache(makes.client)))
            exits.enter_context(quick_versions())
            if isinstance(self.stack.aws, MemoryAws):
                exits.enter_context(self.stack.aws.shortcuts())
            if self._aws_without_http:
                exits.enter_context(patch.object(botocore.httpsession.URLLib3Session, "send", self._aws_answer))
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

    def begin(self) -> None:
        """Anew, with no tenant, and without a trace of those that there were."""
        self._wait_for_answers()
        self.heal()
        self._empty_tables()
        self.tenants = {}
        self.seen, self.sent, self.operators, self.moved = [], [], 0, 0.0

    @contextmanager
    def responding(self) -> Iterator[None]:
        """While a call is at AWS or a vendor, which goes on after whoever made it was killed."""
        with self._answered:
            self._answering += 1
        try:
            yield
        finally:
            with self._answered:
                self._answering -= 1
                self._answered.notify_all()

    def _wait_for_answers(self) -> None:
        with self._answered:
            assert self._answered.wait_for(lambda: not self._answering, timeout=60)

    def _empty_tables(self) -> None:
        """To look for something takes the longer, the more there is."""
        names = [os.environ[f"{table}_TABLE"] for table in ("OPERATIONS", "LINKS", "PEOPLE", "LOCKS", "REQUESTS")]
        if isinstance(self.stack.aws, MemoryAws):
            self.stack.aws.memory.empty(*names)
        elif self.stack.aws:
            for name in names:
                _tables()[name].items.clear()

    def take_in(self, settings: Callable[[Stack, dict[str, Any]], None] = lambda *_: None) -> int:
        """A tenant that is new; `settings` may change its document, and the simulators. Gives its number."""
        number = self.next_number()
        self.tenant = f"tenant-{number}"
        document = tenant(self.stack)
        settings(self.stack, document)
        self.stack.put_secret(self.tenant, json.dumps(document))
        self.tenants[self.tenant] = self.stack.add_key(self.tenant, SCOPES, "a caller")
        return number

    def next_number(self) -> int:
        """For an event or a tenant that nothing else in this world is mistaken for."""
        self._number += 1
        return self._number

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
            told = self._request(self.tenant, earlier.method, earlier.path(self.stack), earlier.body)
            assert told in (201, 202), (told, earlier.kind)  # on a busy machine it may have to wait for a turn
            self.settle()

    def send(self, event: Event, tenant: str = "", callers: int = 1, *, later: bool = False) -> list[Sent]:
        """The event, as a CRM sends it: again and again while it is told that it was not accepted.

        Time passes only while none of the `callers` waits for an answer, as no function outlives its timeout.
        """
        path = next((sent.path for sent in self.sent if sent.event is event), None) or event.path(self.stack)
        all_sent = [Sent(tenant or self.tenant, event, path, later=later) for _ in range(callers)]
        self.sent += all_sent
        for attempt in range(PATIENCE):
            left = [sent for sent in all_sent if sent.is_to_be_sent]
            if attempt and left:
                self.pass_time(PAUSE)
            with ThreadPoolExecutor(callers) as pool:
                list(pool.map(self._send_once, left))
        return all_sent

    def _send_once(self, sent: Sent) -> None:
        sent.told.append(self._request(sent.tenant, sent.event.method, sent.path, sent.event.body, later=sent.later))

    def inject(self, fault: Fault, name: str | None = None, nth: int = 1) -> Plan:
        """Let the `nth` call of this name from now on fail, or the next one that this can happen to."""
        plan = Plan(fault, name, nth)
        if fault.act is Act.TIMEOUT and not self._aws_without_http:
            shorter = aws.CONFIG.merge(Config(read_timeout=READ_TIMEOUT))
            self._faults.enter_context(patch.object(aws, "CONFIG", shorter))
        if fault.act is Act.TIMEOUT:
            self._faults.enter_context(patch.object(transport, "READ_TIMEOUT", READ_TIMEOUT))
        if fault.act is Act.DETOUR:
            self._faults.enter_context(patch.object(requests.adapters.HTTPAdapter, "send", self._vendor_send()))
            if not self._aws_without_http:
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
        self._wait_for_answers()
        self.moved += seconds
        self.stack.move_clock(seconds)
        if deliver:
            shards = sorted({one.shard for one in self._due()})
            # It would ask of all, which takes most of the time of all this.
            with patch.object(dispatcher, "SHARDS", shards), suppress(FunctionFailedError):
                self.stack.deliver_due()  # if the dispatcher is killed, its next run comes

    def deliver_to_both(self) -> int:
        """Give the message of whatever is due to two workers at once. Gives how many messages these were."""
        due = self._due()
        for operation in due:
            function = operation.function.title().replace("_", "") + "Function"
            record = {
                "messageId": "m-1",
                "body": json.dumps({"operation_id": operation.operation_id, "tenant": operation.tenant}),
            }
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(self._work, [function] * 2, [{"Records": [record]}] * 2))
        return len(due)

    def _work(self, function: str, event: Mapping[str, object]) -> None:
        with suppress(FunctionFailedError):  # it was killed
            self.stack.invoke(function, event)

    def _due(self) -> list[Operation]:
        now = time.time() + self.stack._ahead
        return [one for one in self.operations() if one.due_at is not None and one.due_at <= now]

    def settle(self) -> None:
        """Move time on until nothing is left to do by itself, and let a person decide upon what needs review."""
        for _ in range(MOST_ROUNDS):
            operations = self.operations()
            in_review = [one for one in operations if one.state is State.NEEDS_REVIEW]
            if in_review:
                self.resolve(in_review)
            waiting = [one.due_at or 0 for one in operations if one.state in DUE | {State.SENDING}]
            if not waiting and not in_review:
                return
            # The dispatcher runs once a minute.
            ahead = min(waiting, default=0) - (time.time() + self.stack._ahead)
            self.pass_time(60 * max(1, -(-ahead // 60)))

    def resolve(self, in_review: Iterable[Operation]) -> None:
        """What a person does who looks at the vendor: link what is there, else send it again."""
        for operation in in_review:
            self.operators += 1
            there = self._made_at_the_vendor(operation)
            body = {"action": "link", "id": there, "confirmed": True} if there else {"action": "retry"}
            told = self._request(operation.tenant, "POST", f"/operations/{operation.operation_id}/resolve", body)
            assert told == 200, (told, operation.event_key, body)

    def too_many(self) -> list[str]:
        """Events that have more effects than they may have at any time."""
        return [
            f"{sent.event.kind} has {len(held)} effects, not {len(sent.event.wanted)}"
            for sent in self._last_sent()
            if sent.event.wanted and len(held := sent.event.held(self.stack)) > len(sent.event.wanted)
        ]

    def unaccepted(self) -> list[Sent]:
        """Of each event that no caller was told to be accepted, how it was sent last."""
        accepted = {id(sent.event) for sent in self.sent if sent.is_accepted}
        return [sent for sent in self._last_sent() if id(sent.event) not in accepted]

    def check(self) -> list[str]:
        """What is not as it must be, once all is settled."""
        now = int(time.time() + self.stack._ahead)
        wrong = [_unfinished(one, now) for one in self.operations() if not is_finished(one)]
        wrong += [f"{sent.event.kind} was not accepted ({sent.told})" for sent in self.unaccepted()]
        for sent in self._last_sent():
            event, held = sent.event, sent.event.held(self.stack)
            if len(held) > len(event.wanted):
                wrong.append(f"{event.kind} has {len(held)} effects, not {len(event.wanted)}")
            elif held != event.wanted:
                wrong.append(f"{event.kind} left {held}")
            wrong += [f"{one} is not linked to {other}" for one, other in self._loose_ends(sent)]
            wrong += [f"{one} is still linked" for one in event.untied if self._linked(sent.tenant, one)]
        return wrong

    def _last_sent(self) -> list[Sent]:
        """Each event once."""
        return list({id(sent.event): sent for sent in self.sent}.values())

    def operations(self) -> list[Operation]:
        """All of these tenants, read in a way that the bundle does not, so that no fault hits it."""
        items = [item for item in self._operation_items() if "state" in item]  # the others are kept payloads
        found = [Operation.model_validate(deserialize(item)) for item in items]
        return [one for one in found if one.tenant in self.tenants]

    def _operation_items(self) -> "Sequence[Mapping[str, AttributeValueTypeDef]]":
        table = os.environ["OPERATIONS_TABLE"]
        if isinstance(self.stack.aws, MemoryAws):
            with self.stack.aws._dynamodb:
                return self.stack.aws.memory.items(table)
        if self.stack.aws:  # asked for over HTTP, this would take a quarter of the time of a schedule
            with self.stack.aws._dynamodb:
                return [item.to_json()["Attributes"] for item in _tables()[table].all_items()]
        pages = self._dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
        return [item for page in pages for item in page["Items"]]

    # ------------------------------------------------------------------ its callers

    def _request(self, tenant: str, method: str, path: str, body: object, *, later: bool = False) -> int:
        return self._answer(tenant, method, path, body, later=later).status_code

    def _answer(
        self, tenant: str, method: str, path: str, body: object = None, *, later: bool = False
    ) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.tenants[tenant]}"}
        if path.startswith("/in/"):
            path, headers = path.replace("{tenant}", tenant), {"x-api-key": SOURCE_SECRET}
        if later:
            headers["Prefer"] = "respond-async"
        return self._session.request(method, self.stack.url + path, json=body, headers=headers, timeout=120)

    def _linked(self, tenant: str, identity: str) -> set[str]:
        path = "/".join(quote(part, safe="") for part in identity.split("/"))
        answer = self._answer(tenant, "GET", f"/links/{path}")
        assert answer.status_code in (200, 404), answer.status_code
        return {"/".join((link["system"], link["entity"], link["id"])) for link in answer.json().get("links", [])}

    def _loose_ends(self, sent: Sent) -> list[tuple[str, str]]:
        return [
            (one, other)
            for group in sent.event.ties(self.stack)
            for one in group
            for other in sorted({*group} - {one} - self._linked(sent.tenant, one))
        ]

    def _made_at_the_vendor(self, operation: Operation) -> str | None:
        """The id of the record that this operation made, as a person would find it; None if there is none."""
        payload = json.loads(operation.payload or "{}")
        egito = self.stack.egito
        match operation.flow:
            case "create_site":
                return _one(self.stack.illu.sites, "name", payload["name"], "site_id")
            case "create_key_link":
                link = payload["link"]
                of_it = [one for one in self.stack.revio.key_links if one["internal_id"] == link["internal_id"]]
                return _one(of_it, "external_id", link["external_id"], "integration_key_link_id")
            case "create_job":
                return _one(self.stack.illu.jobs, "name", payload["name"], "job_id")
            case "create_person_record":
                record = payload["fields"]["lastName"]
                return _one(egito.records[payload["entity"]], "lastName", record, "id")
            case "create_record":
                named = "name" if payload["entity"] == "Order" else "lastName"
                return _one(egito.records[payload["entity"]], named, payload["fields"][named], "id")
            case "create_lead_source":
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
            case Act.TIMEOUT if not (self._aws_without_http and call.service in AWS):
                time.sleep(1.5 * READ_TIMEOUT)
            case Act.AGAIN:
                self._handle_again()
            case Act.ASK:
                for sent in self.sent:
                    self._request(sent.tenant, sent.event.method, sent.path, sent.event.body)
            case Act.KILL:
                assert call.pid
                os.kill(call.pid, signal.SIGKILL)
                wait([self._children[call.pid].sentinel])

    def _handle_again(self) -> None:
        """Let another worker handle the same request, or the same message, from begin to end."""
        if self._running:
            with suppress(FunctionFailedError):
                invoke(*self._running)

    def _aws_answer(self, request: Any) -> Any:
        """In the place of `URLLib3Session.send`, also for what its servers and connections would do."""
        assert self.stack.aws
        call = _call("AWS", request.method, "/", _headers(request), request.body or b"")
        fault = self.arrived(call, before_it_leaves=True) or self.arrived(call)
        if fault and fault.act is Act.DETOUR:
            raise EndpointConnectionError(endpoint_url=request.url)
        if fault is None or fault.done:
            answer = self._asked_of_aws(request)
        if fault:
            self.do(fault, call)
            match fault.act:
                case Act.AGAIN | Act.ASK:
                    answer = self._asked_of_aws(request)
                case Act.ANSWER:
                    answer = Response(fault.body, fault.status, fault.headers)
                case Act.TIMEOUT:
                    raise ReadTimeoutError(endpoint_url=request.url)
                case _:
                    raise ConnectionClosedError(endpoint_url=request.url)
        body = HTTPResponse(BytesIO(answer.get_data()), preload_content=False)
        headers = HTTPHeaders()
        for name, value in answer.headers:
            headers[name] = value
        return AWSResponse(request.url, answer.status_code, headers, body)

    def _asked_of_aws(self, request: Any) -> Response:
        assert self.stack.aws
        environ = create_environ(
            "/", request.url, method=request.method, headers=_headers(request), data=request.body or b""
        )
        return Response.from_app(self.stack.aws._answer, environ, buffered=True)

    def _vendor_send(self) -> Callable[..., requests.Response]:
        real = requests.adapters.HTTPAdapter.send
        services = {urlsplit(vendor.url).netloc: vendor.name for vendor in self.stack.vendors}

        def send(adapter: Any, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            url = urlsplit(str(request.url))
            if service := services.get(url.netloc):  # else it is a caller of the bundle
                call = _call(service, str(request.method), url.path, {}, b"")
                request.url = _detoured(str(request.url), self.arrived(call, before_it_leaves=True))
            return real(adapter, request, **options)

        return send

    def _aws_send(self) -> Callable[..., Any]:
        real = botocore.httpsession.URLLib3Session.send

        def send(session: Any, request: Any) -> Any:
            path = urlsplit(request.url).path
            call = _call("AWS", request.method, path, _headers(request), request.body or b"")
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
            return Response()(environ, start_response)
        environ["wsgi.input"] = BytesIO(content)
        call = _call(self._service, request.method, request.path, dict(request.headers), content)
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


def _call(service: str, method: str, path: str, headers: Mapping[str, str], content: bytes) -> Call:
    told = {name.lower(): value for name, value in headers.items()}
    target = told.get("x-amz-target", "")
    agent = re.search(rf"{child.NAME}-(\d+)", told.get("user-agent", ""))
    pid = int(agent[1]) if agent else None
    if _CHECKPOINT.fullmatch(path):
        actions = "+".join(update["Action"] for update in json.loads(content).get("Updates", ()))
        return Call("Lambda", f"CheckpointDurableExecution {actions}", told["amz-sdk-invocation-id"], pid)
    if not target:
        return Call(service, f"{method} {re.sub('/[0-9]+(?=/|$)', '/{}', path)}", uuid.uuid4().hex, pid)
    service, _, action = target.partition(".")
    asked = json.loads(content)
    tables = [asked.get("TableName"), *asked.get("RequestItems", ())]
    tables += [part["TableName"] for item in asked.get("TransactItems", ()) for part in item.values()]
    names = {name: variable.removesuffix("_TABLE").lower() for variable, name in os.environ.items()}
    about = "+".join(dict.fromkeys(names.get(table, "?") for table in tables if table))
    what = " ".join(filter(None, (action, about, asked.get("IndexName"))))
    return Call(_SERVICES[service], what, told["amz-sdk-invocation-id"], pid, _needs(_SERVICES[service], action, asked))


_ITEM_ACTIONS = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
}


def _needs(service: str, action: str, asked: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    """Source: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazondynamodb.html"""
    match service, action:
        case "DynamoDB", "TransactWriteItems":  # is no action of its own
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


def _tables() -> dict[str, Any]:
    """Those of the embedded DynamoDB, by name."""
    tables: dict[str, Any] = dynamodb_backends[ACCOUNT][os.environ["AWS_DEFAULT_REGION"]].tables
    return tables


def _headers(request: Any) -> dict[str, str]:
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()}


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


def is_finished(operation: Operation) -> bool:
    """Also what was withdrawn after it had succeeded, and a change that a later one has made needless."""
    last = operation.last_attempt
    return operation.state is State.SUCCEEDED or (
        last is not None and (last.event is Happening.WITHDRAWN or "by a later request" in last.reason)
    )


def _unfinished(operation: Operation, now: int) -> str:
    """In one line, for whoever asks why it did not end; `now` in epoch seconds of the world."""
    times = {
        name: None if at is None else at - now
        for name in ("first_sent_at", "updated_at", "due_at", "lent_until")
        for at in [getattr(operation, name)]
    }
    attempts = [f"{one.at - now}: {one.event} {one.reason}" for one in operation.attempts]
    return f"{operation.flow} is {operation.state} (seconds from now: {times}; attempts: {attempts})"


def _one(records: Iterable[Mapping[str, object]], member: str, value: object, id_member: str) -> str | None:
    """By what was sent: a person sees through what the vendor made of it."""
    return next((str(record[id_member]) for record in records if as_sent(record.get(member)) == value), None)

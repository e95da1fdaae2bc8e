"""A world with faults: the bundle, its vendors and its callers, and every network call in between at hand to break.

Calls are real HTTP to the real handlers, and from them to the embedded AWS and to the simulators. Time is moved on.
"""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from urllib.parse import urlsplit

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
from werkzeug.test import create_environ
from werkzeug.wrappers import Response

import local.gateway
import local.stack
from crm_bridge import aws
from crm_bridge.engine import DUE
from crm_bridge.outbound import transport
from crm_bridge.runtime import runtime
from crm_bridge.storage.dynamodb import deserialize
from crm_bridge.storage.operation import Operation, State
from dispatcher import handler as dispatcher
from local.gateway import FunctionFailedError, invoke
from local.server import Server
from local.stack import SCOPES, SOURCE_SECRET
from local.template import Function
from tests.faults import child
from tests.faults.checks import made_at_the_vendor
from tests.faults.events import Event, tenant
from tests.faults.faults import AWS, Act, Call, Fault, Plan, Span
from tests.faults.wire import Tap, call_of, detoured, headers_of, refusing_invalid_names
from tests.memory_aws import MemoryAws
from tests.stack import Stack
from tests.versions import quick_versions

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

FUNCTION_TIMEOUT = 20
"""Seconds instead of 29: a call waits 1 s for a turn or a token that another has, and not 11 s."""
READ_TIMEOUT = 0.5
"""Seconds instead of 20 for a vendor and 1.5 for AWS, in a world where a timeout is due."""
PATIENCE, PAUSE = 17, 60
"""So often a caller sends what was not accepted, and so many seconds lie in between: longer than an operation belongs
to its message (LENT), which is said to be running meanwhile even if its worker was killed before it took it up."""
MOST_ROUNDS = 60
_NOT_THE_BUNDLES = (
    "Scan",
    "ReceiveMessage",
    "DeleteMessage",
    "GetQueueUrl",
    "CreateSecret",
    "PutSecretValue",
)
"""Calls to AWS of this module and the queue pollers."""


@dataclass
class Sent:
    """An event as its caller sent it. `statuses` are those that came back."""

    tenant: str
    event: Event
    path: str
    statuses: list[int] = field(default_factory=list)
    later: bool = False

    @property
    def is_accepted(self) -> bool:
        return self.statuses[-1] < 300

    @property
    def is_to_be_sent(self) -> bool:
        return not self.statuses or self.statuses[-1] in (409, 429, *range(500, 600))


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
            status = self._request(self.tenant, earlier.method, earlier.path(self.stack), earlier.body)
            assert status in (201, 202), (status, earlier.kind)  # on a busy machine it may have to wait for a turn
            self.settle()

    def send(self, event: Event, tenant: str = "", callers: int = 1, *, later: bool = False) -> list[Sent]:
        """The event, as a CRM sends it: again and again while the response says that it was not accepted.

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
        sent.statuses.append(
            self._request(sent.tenant, sent.event.method, sent.path, sent.event.body, later=sent.later)
        )

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
            self._faults.enter_context(patch.object(socket, "getaddrinfo", refusing_invalid_names(socket.getaddrinfo)))
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
            for one in in_review:
                assert self.resolve(one) == 200, one.event_key
            waiting = [one.due_at or 0 for one in operations if one.state in DUE | {State.SENDING}]
            if not waiting and not in_review:
                return
            # The dispatcher runs once a minute.
            ahead = min(waiting, default=0) - (time.time() + self.stack._ahead)
            self.pass_time(60 * max(1, -(-ahead // 60)))

    def resolve(self, operation: Operation) -> int:
        """Do what a person does who looks at the vendor: link what is there, else send it again. What waits is sent at
        once. Return the status."""
        body: dict[str, object] = {"action": "retry"}
        if operation.state is State.NEEDS_REVIEW:
            self.operators += 1
            there = made_at_the_vendor(self, operation)
            body = {"action": "link", "id": there, "confirmed": True} if there else body
        return self._request(operation.tenant, "POST", f"/operations/{operation.operation_id}/resolve", body)

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
        return self.answer(tenant, method, path, body, later=later).status_code

    def answer(
        self, tenant: str, method: str, path: str, body: object = None, *, later: bool = False
    ) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.tenants[tenant]}"}
        if path.startswith("/in/"):
            path, headers = path.replace("{tenant}", tenant), {"x-api-key": SOURCE_SECRET}
        if later:
            headers["Prefer"] = "respond-async"
        return self._session.request(method, self.stack.url + path, json=body, headers=headers, timeout=120)

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
        server._app = Tap(self, service, server._app)

    def arrived(self, call: Call, *, before_it_leaves: bool = False) -> Fault | None:
        """Return the fault of this call. A detour is taken at the caller's end, all else at the other."""
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
        """Do what this fault does besides its response."""
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
        call = call_of("AWS", request.method, "/", headers_of(request), request.body or b"")
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
            "/", request.url, method=request.method, headers=headers_of(request), data=request.body or b""
        )
        return Response.from_app(self.stack.aws._answer, environ, buffered=True)

    def _vendor_send(self) -> Callable[..., requests.Response]:
        real = requests.adapters.HTTPAdapter.send
        services = {urlsplit(vendor.url).netloc: vendor.name for vendor in self.stack.vendors}

        def send(adapter: Any, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            url = urlsplit(str(request.url))
            if service := services.get(url.netloc):  # else it is a caller of the bundle
                call = call_of(service, str(request.method), url.path, {}, b"")
                request.url = detoured(str(request.url), self.arrived(call, before_it_leaves=True))
            return real(adapter, request, **options)

        return send

    def _aws_send(self) -> Callable[..., Any]:
        real = botocore.httpsession.URLLib3Session.send

        def send(session: Any, request: Any) -> Any:
            path = urlsplit(request.url).path
            call = call_of("AWS", request.method, path, headers_of(request), request.body or b"")
            request.url = detoured(request.url, self.arrived(call, before_it_leaves=True))
            return real(session, request)

        return send


def _tables() -> dict[str, Any]:
    """Those of the embedded DynamoDB, by name."""
    tables: dict[str, Any] = dynamodb_backends[ACCOUNT][os.environ["AWS_DEFAULT_REGION"]].tables
    return tables

"""Integration tests run the bundle as it is: requests in, real handlers, HTTP to simulated vendors, embedded AWS.

AWS is asked over HTTP too where that matters: in dynamodb, test_local, test_second_opinion and faults.
"""

import json
import math
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import requests
from boto3.dynamodb.types import TypeDeserializer
from typer.testing import CliRunner

from cli.__main__ import app
from crm_bridge import aws
from crm_bridge.errors import NotConfiguredError
from crm_bridge.runtime import Runtime, runtime
from crm_bridge.tenant_parts import PARTS
from local.gateway import invoke
from local.stack import LOCAL_STACK
from local.template import Function
from local.vendors.simulator import Kind, Simulator
from tests.documented import deviations
from tests.memory_aws import quick_stack
from tests.stack import Stack
from tests.wire import session

ROUNDS = int(os.environ.get("ROUNDS", "2"))
"""How often the races of twenty are run."""

type Method = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"]
"""Of a request to the bridge."""

SITE: dict[str, Any] = {
    "customer_id": "C-1001",
    "name": "Shop 12, Kitale",
    "latitude": 1.0157,
    "longitude": 35.0062,
    "address": "Moi Ave 12",
}


class Crm:
    """A CRM that calls the bridge."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.session = session(stack.gateway)
        self.headers = {"Authorization": f"Bearer {stack.api_key}"}

    def with_key(self, *scopes: str, tenant: str = "demo") -> "Crm":
        """Return another caller over the same connection, with a key of its own."""
        other = copy(self)
        other.headers = {"Authorization": f"Bearer {self.stack.add_key(tenant, frozenset(scopes), 'Ann')}"}
        return other

    def send(self, method: Method, path: str, body: object = None, **options: Any) -> requests.Response:
        """Send a body as JSON, or `data` as it is, with more `headers`."""
        headers = {**self.headers, **options.pop("headers", {})}
        return self.session.request(method, self.stack.url + path, json=body, headers=headers, timeout=60, **options)

    def post(self, path: str, body: object = None, **options: Any) -> requests.Response:
        return self.send("POST", path, body, **options)

    def put(self, path: str, body: object, **options: Any) -> requests.Response:
        return self.send("PUT", path, body, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.send("GET", path, **options)

    def create_site(self, **changes: object) -> requests.Response:
        return self.post("/sites", {**SITE, **changes})

    def round_trips(self) -> Counter[str]:
        """Return how often AWS (but for SQS) was called, by action, and illu."""
        assert self.stack.aws
        calls = {name.partition(".")[2]: count for name, count in self.stack.aws.calls.items() if "SQS" not in name}
        return Counter(calls) + Counter(illu=len(self.stack.illu.seen))

    def stored(self) -> str:
        """Return all that is in the bridge's tables, as JSON."""
        client = aws.client("dynamodb")
        tables = client.list_tables()["TableNames"]
        return json.dumps({table: client.scan(TableName=table)["Items"] for table in tables}, ensure_ascii=False)

    def settle(self, accepted: requests.Response) -> dict[str, Any]:
        """Move time on, at most for 40 minutes, until an operation that was answered with 202 is settled."""
        passed = 0
        while passed <= 40:
            operation: dict[str, Any] = self.get(accepted.headers["Location"]).json()
            if operation["state"] in ("succeeded", "rejected", "needs_review"):
                return operation
            due_at = datetime.fromisoformat(operation["due_at"]).timestamp()
            minutes = max(1, math.ceil((due_at - runtime().clock()) / 60))  # the dispatcher runs once in each
            self.stack.deliver_due(after=60 * minutes)
            passed += minutes
        raise AssertionError(f"not settled: {operation}")


def change_settings(stack: Stack, tenant: str = "demo", *, at_once: bool = False, **blocks: object) -> None:
    """Store the demo tenant's settings under this name, with changes. A setting or a block that is None is left out.

    With `at_once` every function has read them.
    """
    document = json.loads(stack.demo_tenant())
    for name, block in blocks.items():
        settings = {**document.get(name, {}), **block} if isinstance(block, dict) else block
        document[name] = _without_none(settings) if isinstance(settings, dict) else settings
    stack.put_secret(tenant, json.dumps(_without_none(document)))
    for part in PARTS if at_once else ():
        with suppress(NotConfiguredError):
            runtime().tenants.get(tenant, part, fresh=True)


def cold(stack: Stack) -> Runtime:
    """Let what comes next run in a new execution environment."""
    runtime.cache_clear()
    stack.move_clock(0)
    return runtime()


def _without_none(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def without_site_list(stack: Stack) -> None:
    """Leave illu without a list of sites, so that a person decides after a lost response."""
    change_settings(stack, illu={"site_list_path": None})


def age(seconds: float) -> None:
    """Make what functions remember of tenants' settings older."""
    store = runtime().tenants._secrets.store
    for key, kept in store.items():
        store[key] = kept._replace(ttl=kept.ttl - timedelta(seconds=seconds))


@pytest.fixture(autouse=True)
def every_answer_is_documented(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test is about: no answer may be anything but what docs/openapi.json says."""
    found: list[str] = []

    def invoked(function: Function, event: Mapping[str, Any]) -> Any:
        answer = invoke(function, event)
        if "routeKey" in event:
            found.extend(deviations(event["routeKey"], answer))
        return answer

    for module in ("gateway", "stack"):
        monkeypatch.setattr(f"local.{module}.invoke", invoked)
    yield
    assert not found


@pytest.fixture
def stack() -> Iterator[Stack]:
    with quick_stack() as stack:
        yield stack


@pytest.fixture
def crm(stack: Stack) -> Iterator[Crm]:
    crm = Crm(stack)
    with crm.session:
        yield crm


def rows(table: str) -> list[dict[str, Any]]:
    """Return all items of the table that this environment variable names."""
    plain = TypeDeserializer().deserialize
    items = aws.client("dynamodb").scan(TableName=os.environ[table])["Items"]
    return [{name: plain(value) for name, value in item.items()} for item in items]


@contextmanager
def failing(
    vendor: Simulator, kind: Kind, *, method: Literal["GET", "POST"] = "POST", seconds: float = 90, delay: float = 0.3
) -> Iterator[None]:
    """The next call fails in this way. With REFUSE, every call does until the end of the block, whatever time that is.

    `seconds` are those of Retry-After, `delay` is how late the response to DELAY comes.
    """
    if kind is not Kind.REFUSE:
        vendor.fail(kind, method=method, seconds=delay if kind is Kind.DELAY else seconds)
        yield
        return
    vendor.stop()
    try:
        yield
    finally:
        vendor.start()


@dataclass(frozen=True)
class CommandResult:
    """The output of a command, and the code with which it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class CommandLine:
    """`crm-bridge` in this process, on the stack that is there."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def __call__(self, *arguments: str, input: str | None = None) -> CommandResult:  # noqa: A002 - as it is called for processes
        environment = {"CRM_BRIDGE_STACK": LOCAL_STACK, "COLUMNS": "80"}
        result = CliRunner().invoke(app, [*arguments], input=input, env=environment)
        self._stack.move_clock(0)  # a command has a runtime of its own, which knows nothing of a time moved on
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return CommandResult(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def cli(stack: Stack) -> CommandLine:
    return CommandLine(stack)


@pytest.fixture
def waiting_moves_the_clock(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait for a turn or a token moves the clock on, instead of using up the test's time."""
    for module in ("sequence", "outbound.oauth"):
        monkeypatch.setattr(f"crm_bridge.{module}.time", SimpleNamespace(sleep=stack.move_clock))


@pytest.fixture(autouse=True)
def quick_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many calls to Rev.io in a minute as it takes, in one go: a part of them in each part of it takes real time."""
    monkeypatch.setattr("crm_bridge.vendors.revio.PARTS", 1)


@pytest.fixture
def quick_spacing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardly a pause between two calls to IzzitUp, where a test is about something else."""
    monkeypatch.setattr("status_update.flow.SPACING", 0.01)


@pytest.fixture
def eager_switches() -> Iterator[None]:
    """Threads that take turns as often as they can, so that races are run and not only allowed."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)

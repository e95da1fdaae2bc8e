"""Looking at operations: the list and its pages, one by itself, who may see what, and what a person may decide."""

import hashlib
import itertools
import json
from typing import Any
from urllib.parse import urlencode

import pytest
import requests

from crm_bridge.errors import Event
from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import Attempt, Operation, State, operation_id
from local.vendors.simulator import Kind
from operations.flows import flows
from tests.integration.conftest import SITE, Crm
from tests.integration.sources.conftest import Sender

FIRST = 1_795_000_000


ORDER = ["needs_review", "unconfirmed", "waiting", "sending", "rejected", "succeeded"]


FLOWS = ("create_site", "create_job", "create_key_link", "status_update")


JOB: dict[str, Any] = {"ticket_id": "T-501", "site_id": 4711, "name": "Meter does not count"}


KEY_LINK: dict[str, Any] = {
    "system": "Salesforce",
    "entity_type": "Customer",
    "internal_id": 1015,
    "external_id": "001XX0000ABCDEF",
}


STATUS: dict[str, Any] = {"service": "MAIL", "status": "outage", "occurred_at": "2024-05-05T12:00:00Z"}


COMMANDS: dict[str, dict[str, Any]] = {
    "create_site": SITE,
    "create_job": JOB,
    "create_key_link": {"link": KEY_LINK},
    "status_update": {**STATUS, "arrived_at": STATUS["occurred_at"]},
}


def store(
    key: str,
    state: State = State.NEEDS_REVIEW,
    flow: str = "create_site",
    *,
    at: int = FIRST,
    tenant: str = "demo",
    payload: dict[str, Any] | None = None,
    due_at: int | None = None,
) -> str:
    """An operation as if it had come to this state at this time. Gives its id."""
    text = json.dumps(payload) if payload else None
    last = Attempt(at=at, event=Event.IN_DOUBT, reason="who knows")
    operation = Operation(
        operation_id=operation_id(tenant, flow, key),
        tenant=tenant,
        flow=flow,
        function=flows()[flow].function,
        event_key=key,
        state=state,
        attempts=(Attempt(at=at - 5, event=Event.NOT_DONE, reason="busy", status=503), last),
        last_attempt=last,
        fingerprint=hashlib.sha256((text or "").encode()).hexdigest(),
        payload=text,
        lease="a lease",
        due_at=due_at,
        created_at=at - 10,
        updated_at=at,
    )
    assert runtime().operations.create(operation, over=[State.REJECTED]).won
    return operation.operation_id


def listed(crm: Crm, **query: object) -> requests.Response:
    return crm.get(f"/operations?{urlencode(query)}" if query else "/operations")


def ids(answer: requests.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [operation["operation_id"] for operation in answer.json()["operations"]]


def pages(crm: Crm, **query: object) -> list[list[str]]:
    """All pages, following `next` until there is none."""
    found, after = [], None
    for _ in range(200):
        answer = listed(crm, **query, **({"after": after} if after else {}))
        found.append(ids(answer))
        after = answer.json()["next"]
        if after is None:
            return found
    raise AssertionError("the pages have no end")


@pytest.fixture
def umbrella(crm: Crm) -> Crm:
    """Another tenant."""
    crm.stack.put_secret("umbrella", crm.stack.demo_tenant())
    return crm.with_key("create_site", "operations:read", "operations:resolve", tenant="umbrella")


@pytest.fixture
def many(crm: Crm) -> list[str]:
    """25 operations in all states and of all flows; their ids in the order in which they must be listed."""
    made = []
    for number, (state, flow) in enumerate(itertools.islice(itertools.cycle(itertools.product(State, FLOWS)), 25)):
        at = FIRST + 7 * number % 25  # so that what was stored last is not what was changed last
        due_at = at + 60 if state in (State.SENDING, State.WAITING, State.UNCONFIRMED) else None
        order = -at if due_at is None else due_at
        made.append((ORDER.index(state), order, store(str(number), state, flow, at=at, due_at=due_at)))
    assert crm.stack.aws
    return [operation for _, _, operation in sorted(made)]


def chosen(many: list[str], **members: str) -> list[str]:
    """Those of which the records say this."""
    records = [runtime().operations.get(one) for one in many]
    return [one.operation_id for one in records if one and members.items() <= one.model_dump(mode="json").items()]


def read(operation: str) -> Operation:
    found = runtime().operations.get(operation)
    assert found
    return found


def waiting(crm: Crm, *customers: str) -> list[str]:
    """Operations that illu has surely not done, so that nothing is to be looked for."""
    crm.stack.illu.fail(Kind.MOVED, times=len(customers))
    return [str(crm.create_site(customer_id=one).json()["operation_id"]) for one in customers]


def resolve(crm: Crm, operation: str, **decision: object) -> requests.Response:
    return crm.post(f"/operations/{operation}/resolve", decision)


def found(crm: Crm, record: str) -> list[str]:
    answer = crm.get(f"/operations?{urlencode({'id': record})}")
    assert answer.status_code == 200
    assert answer.json()["next"] is None
    return [one["event_key"] for one in answer.json()["operations"]]


def summarized(crm: Crm) -> dict[str, Any]:
    answer = crm.get("/operations/summary")
    assert answer.status_code == 200
    summary: dict[str, Any] = answer.json()
    return summary


def vendors(crm: Crm) -> dict[str, tuple[str, int]]:
    return {one["vendor"]: (one["state"], one["unsettled"]) for one in summarized(crm)["vendors"]}


@pytest.fixture
def sender(crm: Crm) -> Sender:
    return Sender(crm)

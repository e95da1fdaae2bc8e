"""Webhooks end to end: who is notified of what, once, also when the receiver is down, gone or not on the Internet."""

import json
from typing import Any

import pytest
import requests

from local.stack import WEBHOOK_KEY, WEBHOOK_TENANT
from local.vendors.webhook import ReceiverSimulator
from tests.integration.conftest import SITE, Crm, cold
from tests.stack import Stack

LATER = {"Prefer": "respond-async"}


HOUR = 3600


@pytest.fixture
def receiver(stack: Stack) -> ReceiverSimulator:
    return stack.receiver


@pytest.fixture
def notified(crm: Crm) -> Crm:
    """A CRM whose tenant is notified."""
    crm.headers = {"Authorization": f"Bearer {WEBHOOK_KEY}"}
    return crm


def set_webhook(crm: Crm, **settings: object) -> None:
    """The tenant's secret has these settings from now on, and every function knows; without any, no webhook."""
    document = json.loads(crm.stack.webhook_tenant())
    document["webhook"] |= settings
    if not settings:
        del document["webhook"]
    crm.stack.put_secret(WEBHOOK_TENANT, json.dumps(document))
    cold(crm.stack)


def accepted(crm: Crm, customer_id: str = "C-1001") -> requests.Response:
    answer = crm.post("/sites", {**SITE, "customer_id": customer_id}, headers=LATER)
    assert answer.status_code == 202
    return answer


def settled(crm: Crm, customer_id: str = "C-1001") -> None:
    """Let an event be accepted, and done in the background."""
    accepted(crm, customer_id)
    work(crm)


def work(crm: Crm, *, seconds: float = 60, times: int = 3) -> None:
    for _ in range(times):
        crm.stack.deliver_due(after=seconds)


def events(receiver: ReceiverSimulator) -> list[tuple[str, str]]:
    return [(notified["type"], notified["data"]["event_key"]) for notified in receiver.received.values()]


def webhooks(crm: Crm) -> list[dict[str, Any]]:
    """The operations that tell of others."""
    found: list[dict[str, Any]] = crm.get("/operations?flow=webhook").json()["operations"]
    return found


def in_review(crm: Crm) -> str:
    """The id of an operation that needs review at once: illu gives an id that is linked to another customer."""
    assert crm.create_site(customer_id="C-1").status_code == 201
    crm.stack.illu.next_id = 4711
    answer = crm.create_site(customer_id="C-2")
    assert (answer.status_code, answer.json()["state"]) == (202, "needs_review")
    for crm.stack.illu.next_id in range(4991, 5000):
        crm.stack.illu.add_site(**{name: SITE[name] for name in ("name", "latitude", "longitude", "address")})
    operation: str = answer.json()["operation_id"]
    return operation

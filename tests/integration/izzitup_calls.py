"""Calls of status_update, and the secrets of its tenants. No tests."""

import json
from typing import Any
from urllib.parse import quote

import requests

from local.vendors.izzitup import IzzitUpSimulator
from tests.integration.conftest import Crm, cold
from tests.stack import Stack

SECRET = "hush-hush"
"""In every password here; the log of every test is searched for it."""
WRONG = f"{SECRET}-wrong"
USER = "ops-bot"


def at(minute: int) -> str:
    return f"2024-05-05T12:{minute:02}:00Z"


def put(crm: Crm, service: str, body: object, **headers: str) -> requests.Response:
    return crm.put(f"/services/{quote(service, safe='')}/status", body, headers=headers)


def set_status(
    crm: Crm, service: str = "MAIL", status: object = "outage", *, minute: int = 0, **headers: str
) -> requests.Response:
    return put(crm, service, {"status": status, "occurred_at": at(minute)}, **headers)


def in_the_end(crm: Crm, response: requests.Response) -> dict[str, Any]:
    """The operation behind any response, settled."""
    response.headers.setdefault("Location", f"/operations/{response.json()['operation_id']}")
    return crm.settle(response)


def posts(page: IzzitUpSimulator) -> int:
    return sum(seen.method == "POST" for seen in page.seen)


def tenant(stack: Stack, **izzitup: str) -> str:
    """The demo tenant's secret with other members in its izzitup block."""
    document = json.loads(stack.demo_tenant())
    document["izzitup"] |= izzitup
    return json.dumps(document)


def use_password(stack: Stack, password: str) -> None:
    """The tenant's secret has this password from now on, and no function remembers another one."""
    stack.put_secret("demo", tenant(stack, password=password))
    cold(stack)


def other_tenant(crm: Crm) -> Crm:
    """The CRM of another tenant, whose login at the same IzzitUp is its own."""
    crm.stack.izzitup.users["other-bot"] = "another password"
    crm.stack.izzitup.allowed.add("other-bot")
    crm.stack.put_secret("other", tenant(crm.stack, user="other-bot", password="another password"))
    return crm.with_key("status_update", tenant="other")


def pass_days(stack: Stack, *, days: int = 8) -> None:
    """After eight days all retries are through."""
    for _ in range(days * 2):
        stack.deliver_due(after=12 * 3600)

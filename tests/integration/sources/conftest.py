"""Requests of senders that cannot shape them: in, split, mapped, stored, and each event has one effect."""

import json
from typing import Any

import pytest
import requests

from crm_bridge.runtime import runtime
from tests.integration.conftest import Crm

SECRET = "a-secret-of-the-senders-own"


EXPRESSION = "{customer_id: id, name: name, latitude: lat, longitude: lon, address: address}"


SOURCE: dict[str, Any] = {
    "preset": "in-house",
    "secrets": [SECRET],
    "key": ["kind", "id"],
    "events": [{"when": "kind == 'company'", "flow": "create_site", "version": "1", "expression": EXPRESSION}],
}


def company(number: int, **changes: object) -> dict[str, object]:
    place = {"lat": 1 + number / 100, "lon": 35.0, "address": "Moi Ave 12"}
    return {"kind": "company", "id": f"C-{number}", "name": f"Shop {number}", **place, **changes}


class Sender:
    """A source of the demo tenant."""

    def __init__(self, crm: Crm) -> None:
        self.crm = crm
        self.use()

    def use(self, source: dict[str, Any] = SOURCE, tenant: str = "demo", **document: object) -> None:
        """From now on the tenant has this source."""
        demo = json.loads(self.crm.stack.demo_tenant())
        self.crm.stack.put_secret(tenant, json.dumps({**demo, "sources": {"crm": source}, **document}))
        runtime().tenants.get(tenant, "sources", fresh=True)

    def post(self, *, path: str = "/in/demo/crm", **options: Any) -> requests.Response:
        return self.crm.session.post(self.crm.stack.url + path, timeout=60, **options)

    def send(self, *events: object, secret: str = SECRET, path: str = "/in/demo/crm") -> requests.Response:
        return self.post(path=path, json=list(events), headers={"x-api-key": secret})

    def quarantined(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.crm.get("/requests?state=quarantined").json()["requests"]
        return found

    @property
    def sites(self) -> list[Any]:
        return self.crm.stack.illu.sites


@pytest.fixture
def sender(crm: Crm) -> Sender:
    return Sender(crm)


def body_of(response: requests.Response) -> dict[str, object]:
    """Return a problem without the id of its request."""
    return {name: value for name, value in response.json().items() if name != "request_id"}


def counts(response: requests.Response) -> tuple[int, ...]:
    assert response.status_code == 200, response.text
    answer = response.json()
    return tuple(answer[name] for name in ("stored", "repeated", "quarantined", "ignored"))

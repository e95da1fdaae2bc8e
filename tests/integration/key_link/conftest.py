"""key_link from the CRM's call to Rev.io and back, over real HTTP."""

from collections import Counter
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
import requests
from werkzeug.wrappers import Request, Response

from crm_bridge.runtime import runtime
from local.stack import SCOPES
from local.vendors.revio import Record, RevioAccount
from local.vendors.simulator import Kind
from tests.integration.conftest import Crm, change_settings
from tests.stack import Stack

type Identity = tuple[str, str, str]


EXTERNAL = "001XX0000ABCDEF"


KEY_LINK: dict[str, Any] = {
    "system": "SALESFORCE",
    "entity_type": "CUSTOMER",
    "internal_id": 1015,
    "external_id": EXTERNAL,
}


OTHER: dict[str, Any] = {**KEY_LINK, "internal_id": 2044, "external_id": "001XX0000UVWXYZ"}
"""Another pair of ids."""


MEMBERS = {"integration_system_id": 4, "integration_entity_type_id": 2, "internal_id": 1015, "external_id": EXTERNAL}
"""The key link as Rev.io's demo account numbers it."""


KINDS = [kind for kind in Kind if kind not in (Kind.DELAY, Kind.REFUSE)]


ENTITY_TYPES = [
    *("Agent", "Bill", "Contact", "Customer", "Service_Product", "Credit"),
    *("Charge", "Service", "Payment", "Product", "Address", "Inventory_Item"),
]


NO_RECORD = "No record has this internal_id"


def link_up(crm: Crm, **changes: object) -> requests.Response:
    body = {name: value for name, value in {**KEY_LINK, **changes}.items() if value is not None}
    return crm.post("/key-links", body)


def put(crm: Crm, key_link_id: object, body: object = OTHER, **headers: str) -> requests.Response:
    return crm.put(f"/key-links/{key_link_id}", body, headers=headers)


def delete(crm: Crm, key_link_id: object, **headers: str) -> requests.Response:
    return crm.send("DELETE", f"/key-links/{key_link_id}", headers=headers)


def states(crm: Crm) -> Counter[str]:
    """How many operations are in each state."""
    every = ("sending", "succeeded", "rejected", "waiting", "unconfirmed", "needs_review")
    listed = {state: crm.get(f"/operations?state={state}").json()["operations"] for state in every}
    return Counter({state: len(found) for state, found in listed.items() if found})


def forget_names() -> None:
    """As if they had been read long ago."""
    runtime().cache._known.clear()


def stale(monkeypatch: pytest.MonkeyPatch, stack: Stack) -> None:
    """From now on Rev.io's collection shows its key links as they are now, whatever becomes of them."""
    revio, before = stack.revio, [dict(record) for record in stack.revio.key_links]
    fresh = revio._list

    def listed(request: Request, account: RevioAccount, resource: str) -> Response:
        now: list[Record] = account.key_links
        account.key_links = before
        try:
            return fresh(request, account, resource)
        finally:
            account.key_links = now

    monkeypatch.setattr(revio, "_list", listed)


def external(body: dict[str, Any] = KEY_LINK) -> Identity:
    return str(body["system"]).lower(), str(body["entity_type"]).lower(), str(body["external_id"])


def internal(body: dict[str, Any] = KEY_LINK) -> Identity:
    return "revio", str(body["entity_type"]).lower(), str(body["internal_id"])


def key_link(key_link_id: int) -> Identity:
    return "revio", "key_link", str(key_link_id)


def linked(crm: Crm, identity: Identity) -> set[Identity]:
    links = crm.get("/links/" + "/".join(quote(part, safe="") for part in identity)).json().get("links", [])
    return {(link["system"], link["entity"], link["id"]) for link in links}


def assert_tied(crm: Crm, key_link_id: int, body: dict[str, Any] = KEY_LINK) -> None:
    """Each of the three ids leads to the two others, and to nothing else."""
    tied = {external(body), internal(body), key_link(key_link_id)}
    assert {one: linked(crm, one) for one in tied} == {one: tied - {one} for one in tied}


def assert_untied(crm: Crm, *identities: Identity) -> None:
    assert {one: linked(crm, one) for one in identities} == {one: set() for one in identities}


def change_tenant(stack: Stack, **settings: object) -> None:
    """Members of the tenant's revio block; the function knows them at once."""
    change_settings(stack, revio=settings, at_once=True)


def names_requested(stack: Stack) -> list[str]:
    """The requests for names that arrived."""
    return [seen.path for seen in stack.revio.seen if "KeyLink" not in seen.path]


def wrong_fields(answer: requests.Response) -> dict[str, str]:
    return {error["field"]: error["message"] for error in answer.json()["errors"]}


def seconds_until(due_at: str) -> float:
    return datetime.fromisoformat(due_at).timestamp() - runtime().clock()


def found(crm: Crm, query: str) -> list[int]:
    answer = crm.get(f"/key-links?{query}")
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()["key_links"]]


@pytest.fixture
def linked_up(crm: Crm) -> Crm:
    """A CRM whose customer has the key link 77."""
    assert link_up(crm).json()["id"] == 77
    return crm


@pytest.fixture
def other_tenant(crm: Crm) -> Crm:
    """The CRM of another tenant, whose account at Rev.io counts from 500."""
    account = RevioAccount("other", password="other-password", next_id=500)
    crm.stack.revio.accounts.append(account)
    revio = {"client_code": account.client_code, "password": account.password}
    change_settings(crm.stack, "other", revio=revio)
    return crm.with_key(*SCOPES, tenant="other")


@pytest.fixture
def turns_by_the_stack(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait for a turn moves the clock on."""
    monkeypatch.setattr("crm_bridge.sequence.time", SimpleNamespace(sleep=stack.move_clock))


@pytest.fixture
def quick_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that waits for a turn asks often."""
    monkeypatch.setattr("crm_bridge.sequence.LONGEST_PAUSE", 0.2)


@pytest.fixture
def paced_by_the_stack(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pace of our calls goes by the clock that tests move on, and waiting for a turn moves it on for everybody."""
    transport = runtime().engine._transport
    monkeypatch.setattr(transport, "_clock", runtime().clock)
    monkeypatch.setattr(transport, "_sleep", stack.move_clock)


LOST = [Kind.UNAVAILABLE, Kind.CLOSE_BEFORE, Kind.CLOSE_AFTER]
"""Not done; maybe done, and not; maybe done, and done."""

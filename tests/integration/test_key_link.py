"""key_link from the CRM's call to Rev.io and back, over real HTTP."""

import base64
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from functools import partial
from threading import Event
from types import SimpleNamespace
from typing import Any, Literal
from urllib.parse import quote

import boto3
import pytest
import requests
from botocore.exceptions import EndpointConnectionError
from werkzeug.wrappers import Request, Response

from crm_bridge.errors import NotConfiguredError
from crm_bridge.runtime import runtime
from crm_bridge.vendors.revio import Revio, RevioKeyLink
from local.stack import SCOPES
from local.vendors.alterations import ALTERATIONS
from local.vendors.revio import Record, RevioAccount
from local.vendors.simulator import Kind
from tests.integration.conftest import ROUNDS, Crm
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
    url = f"{crm.stack.url}/key-links/{key_link_id}"
    return crm.session.put(url, json=body, headers={**crm.headers, **headers}, timeout=60)


def delete(crm: Crm, key_link_id: object, **headers: str) -> requests.Response:
    url = f"{crm.stack.url}/key-links/{key_link_id}"
    return crm.session.delete(url, headers={**crm.headers, **headers}, timeout=60)


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
    tenant = json.loads(stack.demo_tenant())
    tenant["revio"] |= settings
    stack.put_secret("demo", json.dumps(tenant))
    runtime().engine.tenants.get("demo", "key_link", fresh=True)


def told_names(stack: Stack) -> list[str]:
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
def other_tenant(stack: Stack) -> Iterator[Crm]:
    """The CRM of another tenant, whose account at Rev.io counts from 500."""
    account = RevioAccount("other", password="other-password", next_id=500)
    stack.revio.accounts.append(account)
    tenant = json.loads(stack.demo_tenant())
    tenant["revio"] |= {"client_code": account.client_code, "password": account.password}
    stack.put_secret("other", json.dumps(tenant))
    crm = Crm(stack)
    crm.headers = {"Authorization": f"Bearer {stack.add_key('other', SCOPES, 'other')}"}
    with crm.session:
        yield crm


@pytest.fixture
def turns_by_the_stack(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a turn moves the clock on for everybody."""
    monkeypatch.setattr("crm_bridge.sequence.time", SimpleNamespace(sleep=stack.move_clock))


@pytest.fixture
def quick_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a turn asks often."""
    monkeypatch.setattr("crm_bridge.sequence.LONGEST_PAUSE", 0.2)


@pytest.fixture
def paced_by_the_stack(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pace of our calls goes by the clock that tests move on, and waiting for a turn moves it on for everybody."""
    transport = runtime().engine._transport
    monkeypatch.setattr(transport, "_clock", runtime().clock)
    monkeypatch.setattr(transport, "_sleep", stack.move_clock)


# ---------------------------------------------------------------- done


def test_becomes_a_key_link_at_revio_when_it_is_new(crm: Crm) -> None:
    answer = link_up(crm)
    assert answer.status_code == 201
    body = answer.json()
    assert body.pop("operation_id").startswith("op_")
    assert body == {**KEY_LINK, **MEMBERS, "id": 77}
    (stored,) = crm.stack.revio.key_links
    assert stored.items() >= MEMBERS.items()


def test_names_may_have_any_case(crm: Crm) -> None:
    for number, (system, entity_type) in enumerate((("salesforce", "customer"), ("SalesForce", "cusTomer"))):
        body = {**KEY_LINK, "internal_id": 1015 + number, "external_id": f"001-{number}"}
        answer = link_up(crm, **{**body, "system": system, "entity_type": entity_type})
        assert answer.status_code == 201
        assert answer.json().items() >= body.items()  # as Rev.io writes them
        assert_tied(crm, 77 + number, body)


def test_is_answered_from_the_store_when_it_is_repeated(linked_up: Crm) -> None:
    first, sent = link_up(linked_up).json(), len(linked_up.stack.revio.seen)
    for changes in ({}, {"system": "salesforce"}, {"entity_type": "Customer"}):
        again = link_up(linked_up, **changes)
        assert (again.status_code, again.json()) == (200, first)
        assert "warnings" not in again.json()
    assert (len(linked_up.stack.revio.key_links), len(linked_up.stack.revio.seen)) == (1, sent)


def test_is_the_one_that_somebody_else_made_at_revio_when_there_is_one(crm: Crm) -> None:
    crm.stack.revio.account.add_key_link(4, 2, 1015, EXTERNAL)
    answer = link_up(crm)
    assert (answer.status_code, answer.json()["id"]) == (200, 77)
    assert answer.json().items() >= KEY_LINK.items()
    assert len(crm.stack.revio.key_links) == 1
    assert_tied(crm, 77)


def test_links_all_three_ids_in_all_directions(linked_up: Crm) -> None:
    assert_tied(linked_up, 77)
    assert linked(linked_up, ("SALESFORCE", "CUSTOMER", EXTERNAL)) == {("revio", "customer", "1015"), key_link(77)}


def test_one_record_may_have_several_external_ids_and_the_other_way_round(linked_up: Crm) -> None:
    second = link_up(linked_up, external_id="001-second")
    third = link_up(linked_up, internal_id=2044)
    fourth = link_up(linked_up, system="HUBSPOT")
    assert [answer.status_code for answer in (second, third, fourth)] == [201, 201, 201]
    assert linked(linked_up, internal()) >= {external(), ("salesforce", "customer", "001-second"), key_link(78)}
    assert linked(linked_up, external()) == {internal(), ("revio", "customer", "2044"), key_link(77), key_link(79)}
    assert linked(linked_up, ("hubspot", "customer", EXTERNAL)) == {internal(), key_link(80)}


def test_every_entity_type_can_be_linked(crm: Crm) -> None:
    for number, entity_type in enumerate(ENTITY_TYPES):
        assert link_up(crm, entity_type=entity_type).status_code == 201
        entity_type_id = crm.stack.revio.key_links[-1]["integration_entity_type_id"]
        assert isinstance(entity_type_id, int)
        assert crm.stack.revio.account.entity_types[entity_type_id] == entity_type.upper()
        assert_tied(crm, 77 + number, {**KEY_LINK, "entity_type": entity_type})
    assert len(crm.stack.revio.key_links) == 12


def test_asks_nothing_more_of_revio_once_it_was_made(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    revio = crm.stack.revio
    create = revio._create

    def created(request: Request, account: RevioAccount) -> Response:
        answer = create(request, account)
        crm.stack.move_clock(4000)  # the names are old by now, and what is asked from here on fails
        account.systems, account.entity_types = {}, {}
        return answer

    monkeypatch.setattr(revio, "_create", created)
    answer = link_up(crm)
    assert (answer.status_code, answer.json()["id"]) == (201, 77)
    assert answer.json().items() >= KEY_LINK.items()
    assert (revio.seen[-1].method, len(revio.key_links)) == ("POST", 1)
    assert_tied(crm, 77)


def test_the_tenants_mapping_makes_what_is_posted_and_what_is_put(crm: Crm) -> None:
    expression = "{system: sys, entity_type: 'CUSTOMER', internal_id: to_number(no), external_id: ref}"
    mappings = {"key_link": {"version": "kl-1", "expression": expression}}
    crm.stack.put_secret("demo", json.dumps({**json.loads(crm.stack.demo_tenant()), "mappings": mappings}))
    runtime().engine.tenants.get("demo", "key_link", fresh=True)
    made = crm.post("/key-links", {"sys": "SALESFORCE", "no": "1015", "ref": EXTERNAL})
    assert (made.status_code, made.json()["id"]) == (201, 77)
    changed = put(crm, 77, {"sys": "SALESFORCE", "no": "2044", "ref": OTHER["external_id"]})
    assert changed.status_code == 200
    assert_tied(crm, 77, OTHER)
    assert crm.get(f"/operations/{changed.json()['operation_id']}").json()["mapping"] == "kl-1"
    wrong = put(crm, 77, OTHER)
    assert wrong.status_code == 422
    assert "kl-1" in wrong.json()["detail"]
    assert delete(crm, 77).status_code == 204
    assert_untied(crm, external(OTHER), internal(OTHER), key_link(77))


def test_is_accepted_at_once_when_the_caller_prefers_that(crm: Crm) -> None:
    accepted = crm.post("/key-links", KEY_LINK, headers={"Prefer": "respond-async"})
    assert (accepted.status_code, crm.stack.revio.seen) == (202, [])
    assert crm.settle(accepted)["state"] == "succeeded"
    assert_tied(crm, 77)
    assert link_up(crm).status_code == 200


# ---------------------------------------------------------------- names


def test_ids_of_names_are_the_tenants_own(crm: Crm) -> None:
    crm.stack.revio.account.systems = {4: "QUICKBOOKS", 31: "SALESFORCE"}
    crm.stack.revio.account.entity_types = {2: "AGENT", 9: "CUSTOMER"}
    assert link_up(crm).status_code == 201
    (stored,) = crm.stack.revio.key_links
    assert (stored["integration_system_id"], stored["integration_entity_type_id"]) == (31, 9)


@pytest.mark.parametrize(
    ("field", "there_are"), [("system", "SALESFORCE, QUICKBOOKS, HUBSPOT"), ("entity_type", "AGENT, CUSTOMER, BILL")]
)
def test_is_422_and_lists_the_names_when_revio_has_none_of_this_name(
    linked_up: Crm, field: str, there_are: str
) -> None:
    wrong = {**OTHER, field: "NETSUITE"}
    for answer in (
        link_up(linked_up, **wrong),
        put(linked_up, 77, wrong),
        linked_up.get(f"/key-links?{field}=NETSUITE"),
    ):
        assert answer.status_code == 422
        assert set(wrong_fields(answer)) == {field}
        assert there_are in wrong_fields(answer)[field]
    assert [record["external_id"] for record in linked_up.stack.revio.key_links] == [EXTERNAL]
    assert_tied(linked_up, 77)


@pytest.mark.parametrize("field", ["system", "entity_type"])
def test_is_422_when_revio_has_two_of_this_name(crm: Crm, field: str) -> None:
    account = crm.stack.revio.account
    (account.systems if field == "system" else account.entity_types)[40] = str(KEY_LINK[field]).title()
    answer = link_up(crm)
    assert answer.status_code == 422
    assert "several" in wrong_fields(answer)[field]
    assert crm.stack.revio.key_links == []


def test_a_system_that_revio_gets_later_is_found_without_a_restart(linked_up: Crm) -> None:
    assert link_up(linked_up, system="NETSUITE").status_code == 422
    linked_up.stack.revio.account.systems[12] = "NETSUITE"
    linked_up.stack.move_clock(11)
    assert link_up(linked_up, system="NETSUITE").status_code == 201
    assert linked_up.stack.revio.key_links[-1]["integration_system_id"] == 12


def test_names_are_read_once_and_not_again_for_each_request(linked_up: Crm) -> None:
    assert sorted(told_names(linked_up.stack)) == ["/v1/IntegrationEntityType", "/v1/IntegrationSystem"]
    linked_up.stack.move_clock(3000)
    for number in range(3):
        assert link_up(linked_up, external_id=f"001-{number}").status_code == 201
    linked_up.get("/key-links/77")
    linked_up.get("/key-links/systems")
    assert len(told_names(linked_up.stack)) == 2


def test_a_name_that_does_not_exist_does_not_make_us_ask_each_time(linked_up: Crm) -> None:
    for number in range(5):
        assert link_up(linked_up, system="NETSUITE", external_id=f"001-{number}").status_code == 422
    assert told_names(linked_up.stack).count("/v1/IntegrationSystem") <= 2


# ---------------------------------------------------------------- exactly the same


def test_a_longer_id_or_one_in_other_case_is_not_taken_for_ours(crm: Crm) -> None:
    crm.stack.revio.match = "contains"
    account = crm.stack.revio.account
    for similar in (f"{EXTERNAL}1", f"x{EXTERNAL}", EXTERNAL.lower()):
        account.add_key_link(4, 2, 1015, similar)
    account.add_key_link(4, 2, 10_150, EXTERNAL)
    account.add_key_link(7, 2, 1015, EXTERNAL)
    account.add_key_link(4, 3, 1015, EXTERNAL)
    answer = link_up(crm)
    assert (answer.status_code, answer.json()["id"]) == (201, 83)
    assert found(crm, f"external_id={EXTERNAL}&system=salesforce&entity_type=customer&internal_id=1015") == [83]


def test_names_that_contain_one_another_are_told_apart(crm: Crm) -> None:
    crm.stack.revio.match = "contains"
    account = crm.stack.revio.account
    account.systems = {3: "SALESFORCE SANDBOX", 4: "SALESFORCE"}
    account.add_key_link(3, 2, 1015, EXTERNAL)
    account.add_key_link(4, 11, 1015, EXTERNAL)
    assert link_up(crm, entity_type="SERVICE").json()["integration_entity_type_id"] == 8  # not SERVICE_PRODUCT
    assert link_up(crm).json()["integration_system_id"] == 4


@pytest.mark.parametrize("has_more", ["more", "several_pages"])
@pytest.mark.parametrize(("largest_page", "others"), [(1, 3), (2, 3), (2, 4)])
def test_is_found_on_the_last_page(
    crm: Crm, has_more: Literal["more", "several_pages"], largest_page: int, others: int
) -> None:
    revio = crm.stack.revio
    revio.match, revio.has_more, revio.largest_page = "contains", has_more, largest_page
    for number in range(others):
        revio.account.add_key_link(4, 2, 1015, f"{EXTERNAL}-{number}")
    there = revio.account.add_key_link(4, 2, 1015, EXTERNAL)
    answer = link_up(crm)
    assert (answer.status_code, answer.json()["id"]) == (200, there["integration_key_link_id"])
    assert len(revio.key_links) == others + 1
    assert link_up(crm, internal_id=2044).status_code == 201  # and that all were read without a hit ends too


def test_ids_that_differ_only_in_case_get_a_key_link_each(crm: Crm) -> None:
    crm.stack.revio.fail(Kind.CLOSE_AFTER, times=2)
    accepted = [link_up(crm, external_id=one) for one in ("001a", "001A")]
    assert [crm.settle(answer)["result"]["id"] for answer in accepted] == [77, 78]
    assert [record["external_id"] for record in crm.stack.revio.key_links] == ["001a", "001A"]


@pytest.mark.parametrize("became", ["changed", "deleted"])
def test_what_a_search_still_shows_is_not_taken_for_what_is_there(
    crm: Crm, monkeypatch: pytest.MonkeyPatch, became: str
) -> None:
    account = crm.stack.revio.account
    account.add_key_link(4, 2, 1015, EXTERNAL)
    account.add_key_link(4, 2, 2044, "another")
    stale(monkeypatch, crm.stack)
    if became == "deleted":
        del account.key_links[0]
    else:
        account.key_links[0] = {**account.key_links[0], "external_id": "changed at Rev.io"}
    assert put(crm, 78, KEY_LINK).status_code == 200  # what only seems to be there does not oppose it
    assert_tied(crm, 78)
    assert delete(crm, 78).status_code == 204
    answer = link_up(crm)
    assert (answer.status_code, answer.json()["id"]) == (201, 79)
    assert_tied(crm, 79)


def test_what_a_search_still_shows_is_not_linked_after_a_lost_answer(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    account = crm.stack.revio.account
    account.add_key_link(4, 2, 1015, EXTERNAL)
    stale(monkeypatch, crm.stack)
    account.key_links.clear()
    crm.stack.revio.fail(Kind.CLOSE_BEFORE)
    operation = crm.settle(link_up(crm))
    assert (operation["state"], operation["attempts"][-1]["event"]) == ("succeeded", "done")
    assert operation["result"]["id"] == 78
    assert_tied(crm, 78)


# ---------------------------------------------------------------- what is not documented

SWITCHES: list[dict[str, Any]] = [
    {"match": "contains"},
    {"key_field": "key_link_id"},
    {"key_field": "id"},
    {"key_field": None},
    {"key_field": None, "empty_answers": True, "numbers_as_text": True},
    {"has_more": "several_pages", "largest_page": 1},
    {"numbers_as_text": True},
    *({"error_shape": shape} for shape in ("message", "error", "errors", "error_message", "text", "empty")),
    *({"error_shape": shape, "errors_with_200": True} for shape in ("message", "errors", "text", "empty")),
    {"no_such_record": 404},
    {"no_such_record": 404, "error_shape": "empty"},
    {"refuses_duplicates": True},
    {"empty_answers": True},
    {"refuses_unknown_search": True},
    {"refuses_unknown_search": True, "errors_with_200": True, "error_shape": "empty"},
]


def assert_whole_life(crm: Crm) -> None:
    """Made, found, changed and deleted; and what is left of it too."""
    account = crm.stack.revio.account
    first = account.next_id
    made = link_up(crm)
    assert (made.status_code, made.json()["id"]) == (201, first)
    assert link_up(crm).status_code == 200
    account.add_key_link(4, 2, 3000, "somebody else's")
    assert found(crm, f"external_id={EXTERNAL}") == [first]
    assert found(crm, "internal_id=1015") == [first]
    assert found(crm, f"internal_id=1015&external_id={EXTERNAL}&system=SALESFORCE") == [first]
    assert crm.get(f"/key-links/{first}").json().items() >= {**KEY_LINK, "id": first}.items()
    changed = put(crm, first)
    assert (changed.status_code, changed.json()["id"]) == (200, first)
    assert crm.get(f"/key-links/{first}").json().items() >= {**OTHER, "id": first}.items()
    assert_tied(crm, first, OTHER)
    assert delete(crm, first).status_code == 204
    assert [record["external_id"] for record in crm.stack.revio.key_links] == ["somebody else's"]
    assert crm.get(f"/key-links/{first}").status_code == 404
    assert link_up(crm).json()["id"] == first + 2
    assert delete(crm, first + 2).status_code == 204
    account.key_links.clear()


def switched(crm: Crm) -> Iterator[dict[str, Any]]:
    """Rev.io after each of the switches, with names that are to be read again."""
    revio = crm.stack.revio
    for switches in SWITCHES:
        before = {switch: getattr(revio, switch) for switch in switches}
        for switch, value in switches.items():
            setattr(revio, switch, value)
        forget_names()
        crm.stack.move_clock(61)  # Rev.io counts calls by the minute, and so do we
        yield switches
        for switch, value in before.items():
            setattr(revio, switch, value)


@pytest.mark.usefixtures("paced_by_the_stack")
def test_works_however_revio_reads_its_own_pages(crm: Crm) -> None:
    for switches in switched(crm):
        try:
            assert_whole_life(crm)
        except AssertionError:
            print(switches)  # noqa: T201 - which of them it was
            raise


@pytest.mark.usefixtures("paced_by_the_stack")
@pytest.mark.parametrize("call", ["POST", "PUT"])
def test_is_refused_in_revios_words_when_the_internal_record_does_not_exist(linked_up: Crm, call: str) -> None:
    key_links = linked_up.stack.revio.key_links
    for number, switches in enumerate(switched(linked_up)):
        before = [dict(record) for record in key_links]
        body = {**OTHER, "internal_id": 5, "external_id": f"001-{number}"}
        answer = link_up(linked_up, **body) if call == "POST" else put(linked_up, 77, body)
        assert answer.status_code == 422, switches
        shape = switches.get("error_shape")
        silent = shape == "empty" or (shape == "text" and "errors_with_200" in switches)
        assert (NO_RECORD in answer.json()["detail"]) is not silent, switches
        assert "Rev.io answered" in answer.json()["detail"]
        assert answer.json()["retryable"] is False
        assert key_links == before
        corrected = {**body, "internal_id": 2044}
        assert (link_up(linked_up, **corrected) if call == "POST" else put(linked_up, 77, corrected)).ok, switches
    assert states(linked_up)["rejected"] >= len(SWITCHES)


def test_ok_false_is_a_refusal_whatever_the_status_is(linked_up: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    revio = linked_up.stack.revio
    done = revio.respond
    for status in (200, 201):

        def refuse(request: Request, status: int = status) -> Response:
            if request.method == "GET":
                return done(request)
            return Response(json.dumps({"ok": False, "message": "Not today"}), status, mimetype="application/json")

        monkeypatch.setattr(revio, "respond", refuse)
        for answer in (link_up(linked_up, **OTHER), put(linked_up, 77), delete(linked_up, 77)):
            assert (answer.status_code, answer.json()["retryable"]) == (422, False)
            assert f"Rev.io answered {status}, ok: false: Not today" in answer.json()["detail"]
            assert linked_up.get(f"/operations/{answer.json()['operation_id']}").json()["state"] == "rejected"
        assert_tied(linked_up, 77)
        assert link_up(linked_up).json()["id"] == 77
    monkeypatch.setattr(revio, "respond", done)
    assert link_up(linked_up, **OTHER).status_code == 201


def test_asks_for_the_plural_when_the_tenant_says_so(crm: Crm) -> None:
    change_tenant(crm.stack, plural_paths=True)
    assert_whole_life(crm)
    assert {seen.path.split("/")[2] for seen in crm.stack.revio.seen} == {
        "IntegrationSystems",
        "IntegrationEntityTypes",
        "IntegrationKeyLinks",
    }


@pytest.mark.parametrize("wrong", ["base_url", "plural_paths"])
def test_is_not_believed_to_be_gone_when_only_the_address_is_wrong(
    linked_up: Crm, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    revio = linked_up.stack.revio
    if wrong == "base_url":
        change_tenant(linked_up.stack, base_url=f"{revio.url}/v2")
    else:
        done = revio.respond

        def singular(request: Request) -> Response:
            return Response("{}", 404) if "IntegrationKeyLinks" in request.path else done(request)

        monkeypatch.setattr(revio, "respond", singular)
        change_tenant(linked_up.stack, plural_paths=True)
    shown = linked_up.get("/key-links/77")
    assert (shown.status_code, shown.json()["retryable"]) == (503, True)
    assert "plural_paths" in shown.json()["detail"]
    assert linked_up.get("/key-links").status_code == 503
    deleted, changed, made = delete(linked_up, 77), put(linked_up, 77), link_up(linked_up, **OTHER)
    for answer in (deleted, changed, made):
        assert (answer.status_code, answer.json()["state"]) == (202, "waiting")
        reason = "it waits for a change" if answer is made else "base_url"
        assert reason in answer.json()["reason"]
    assert_tied(linked_up, 77)
    linked_up.stack.move_clock(60)
    linked_up.stack.deliver_due()
    assert_tied(linked_up, 77)
    change_tenant(linked_up.stack)
    settled = [linked_up.settle(answer)["state"] for answer in (deleted, changed, made)]
    assert settled[2] == "succeeded"
    assert sorted(settled[:2]) == ["rejected", "succeeded"]  # whichever was sent first
    assert [record["external_id"] for record in revio.key_links] == [OTHER["external_id"]]
    told = link_up(linked_up, **OTHER).json()["id"]
    assert told == revio.key_links[0]["integration_key_link_id"]
    assert_tied(linked_up, told, OTHER)
    assert_untied(linked_up, external(), internal())


def test_sends_the_subscription_key_when_the_tenant_has_one(crm: Crm) -> None:
    crm.stack.revio.account.subscription_key = "subscription-1"
    refused = link_up(crm)
    assert refused.status_code == 202
    change_tenant(crm.stack, subscription_key="subscription-1")
    assert crm.settle(refused)["state"] == "succeeded"
    assert delete(crm, 77).status_code == 204


# ---------------------------------------------------------------- what Rev.io may do


@pytest.mark.parametrize("failing", ["POST", "GET", "GET of names"])
def test_there_is_one_key_link_in_the_end_whatever_revio_does(crm: Crm, failing: str) -> None:
    for number, kind in enumerate(KINDS):
        body = {**KEY_LINK, "internal_id": 1015 + number, "external_id": f"001-{number}"}
        forget_names()
        if failing != "GET of names":
            crm.get("/key-links/systems")
            crm.get("/key-links/entity-types")
        crm.stack.revio.fail(kind, seconds=90, method="POST" if failing == "POST" else "GET")
        answer = link_up(crm, **body)
        if kind is Kind.WRONG_STATUS:
            assert answer.status_code == (502 if failing == "POST" else 201)  # 200 is what a GET shall answer
        else:
            assert answer.status_code == 202, kind
            # What was only asked left nothing in doubt.
            assert failing == "POST" or answer.json()["state"] == "waiting", kind
        repeated = link_up(crm, **body)
        assert repeated.status_code == (200 if answer.status_code == 201 else 202), kind
        if repeated.status_code == 202:
            assert crm.settle(repeated)["state"] == "succeeded", kind
        assert link_up(crm, **body).json()["id"] == 77 + number
        assert len(crm.stack.revio.key_links) == number + 1
        assert_tied(crm, 77 + number, body)


def test_there_is_one_key_link_when_the_look_up_fails_as_well(crm: Crm) -> None:
    for number, kind in enumerate(KINDS):
        body = {**KEY_LINK, "internal_id": 1015 + number, "external_id": f"001-{number}"}
        forget_names()
        crm.get("/key-links/systems")
        crm.get("/key-links/entity-types")
        crm.stack.revio.fail(Kind.CLOSE_AFTER)
        accepted = link_up(crm, **body)
        crm.stack.revio.fail(kind, times=2, seconds=90, method="GET")
        assert crm.settle(accepted)["state"] == "succeeded", kind
        crm.stack.revio.heal()
        assert len(crm.stack.revio.key_links) == number + 1
        assert_tied(crm, 77 + number, body)


def test_waits_and_succeeds_when_revio_cannot_be_reached(crm: Crm) -> None:
    crm.stack.revio.fail(Kind.REFUSE, seconds=1)
    accepted = link_up(crm)
    assert (accepted.status_code, accepted.json()["state"]) == (202, "waiting")
    time.sleep(1.5)
    assert crm.settle(accepted)["state"] == "succeeded"
    assert_tied(crm, 77)


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_there_is_one_key_link_when_the_answer_comes_too_late(
    crm: Crm, monkeypatch: pytest.MonkeyPatch, method: Literal["POST", "GET"]
) -> None:
    monkeypatch.setattr("crm_bridge.outbound.transport.READ_TIMEOUT", 0.4)
    crm.stack.revio.fail(Kind.DELAY, seconds=1, method=method)
    accepted = link_up(crm)
    assert (accepted.status_code, accepted.json()["state"]) == (202, "unconfirmed" if method == "POST" else "waiting")
    time.sleep(1)
    assert crm.settle(accepted)["state"] == "succeeded"
    assert len(crm.stack.revio.key_links) == 1
    assert_tied(crm, 77)


@pytest.mark.parametrize(("lag", "believed"), [(20, 30), (100, 120), (500, 600)])
def test_there_is_one_key_link_when_revio_shows_it_later_than_it_made_it(crm: Crm, lag: int, believed: int) -> None:
    change_tenant(crm.stack, search_lag=believed)
    crm.stack.revio.search_lag = lag
    crm.stack.revio.fail(Kind.CLOSE_AFTER)
    accepted = link_up(crm)
    assert (accepted.status_code, accepted.json()["state"]) == (202, "unconfirmed")
    for _ in range(100):
        crm.stack.move_clock(10)
        crm.stack.deliver_due()
        operation = crm.get(accepted.headers["Location"]).json()
        if operation["state"] != "unconfirmed":
            break
    assert operation["state"] == "succeeded"
    assert operation["attempts"][-1]["event"] == "found"
    assert len(crm.stack.revio.key_links) == 1


def test_is_found_at_the_first_look_when_revio_shows_it(crm: Crm) -> None:
    change_tenant(crm.stack, search_lag=600)
    crm.stack.revio.fail(Kind.CLOSE_AFTER)
    accepted = link_up(crm)
    crm.stack.move_clock(40)
    crm.stack.deliver_due()
    assert crm.get(accepted.headers["Location"]).json()["state"] == "succeeded"


def test_is_sent_again_when_a_lost_request_was_surely_not_done(crm: Crm) -> None:
    crm.stack.revio.fail(Kind.CLOSE_BEFORE)
    operation = crm.settle(link_up(crm))
    assert [attempt["event"] for attempt in operation["attempts"]][-1] == "done"
    assert len(crm.stack.revio.key_links) == 1


@pytest.mark.parametrize("refused", ["POST", "GET"])
@pytest.mark.parametrize("says_when", [True, False])
def test_waits_for_a_minute_when_revio_has_had_enough_calls(crm: Crm, refused: str, says_when: bool) -> None:
    crm.stack.revio.says_when = says_when
    crm.stack.revio.calls_per_minute = 4 if refused == "POST" else 3  # the names take two, the searches two
    accepted = link_up(crm)
    assert (accepted.status_code, accepted.json()["state"]) == (202, "waiting")
    assert "429" in accepted.json()["reason"]
    assert 55 < seconds_until(accepted.json()["due_at"]) < 120
    assert crm.settle(accepted)["state"] == "succeeded"
    assert len(crm.stack.revio.key_links) == 1


@pytest.mark.parametrize("says_when", [True, False])
def test_a_reader_is_told_when_to_ask_again_when_revio_has_had_enough_calls(linked_up: Crm, says_when: bool) -> None:
    linked_up.stack.revio.says_when = says_when
    linked_up.stack.revio.calls_per_minute = 1
    for answer in (linked_up.get("/key-links"), linked_up.get("/key-links/77")):
        assert (answer.status_code, answer.json()["retryable"]) == (503, True)
        assert 55 <= int(answer.headers["Retry-After"]) <= 60
    for accepted in (put(linked_up, 77), delete(linked_up, 77)):
        assert (accepted.status_code, accepted.json()["state"]) == (202, "waiting")
        assert "429" in accepted.json()["reason"]
        assert 55 < seconds_until(accepted.json()["due_at"]) < 120
    assert_tied(linked_up, 77)


@pytest.mark.usefixtures("paced_by_the_stack")
@pytest.mark.parametrize("calls_per_minute", [10, 13])
def test_never_calls_more_often_than_the_tenant_allows(
    crm: Crm, calls_per_minute: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crm_bridge.vendors.revio.PARTS", 10)  # as it is
    change_tenant(crm.stack, calls_per_minute=calls_per_minute)
    answers = [link_up(crm, external_id=f"001-{number}") for number in range(8)]
    answers += [put(crm, 77, OTHER), delete(crm, 78)]
    assert [answer.status_code for answer in answers] == [201] * 8 + [200, 204]
    expected = [OTHER["external_id"], *(f"001-{number}" for number in range(2, 8))]
    assert sorted(str(record["external_id"]) for record in crm.stack.revio.key_links) == sorted(expected)
    assert_tied(crm, 77, OTHER)
    calls = crm.stack.revio.account.calls
    # They are begun a minute apart; on their way each takes its few milliseconds.
    assert all(later - call > 59 for call, later in zip(calls, calls[calls_per_minute:], strict=False))


def test_a_pace_below_ten_calls_a_minute_is_no_valid_secret(linked_up: Crm) -> None:
    with pytest.raises(NotConfiguredError, match=r"revio\.calls_per_minute"):
        change_tenant(linked_up.stack, calls_per_minute=9)
    for answer in (link_up(linked_up), put(linked_up, 77), delete(linked_up, 77), linked_up.get("/key-links/77")):
        assert (answer.status_code, answer.json()["retryable"]) == (503, True)
        assert "revio.calls_per_minute" in answer.json()["detail"]
    change_tenant(linked_up.stack, calls_per_minute=10)
    assert link_up(linked_up).json()["id"] == 77


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_waits_when_the_days_calls_are_used_up(linked_up: Crm, method: str) -> None:
    linked_up.stack.revio.calls_per_day = len(linked_up.stack.revio.account.calls)
    shown = linked_up.get("/key-links/77")
    assert (shown.status_code, shown.json()["retryable"]) == (503, True)
    accepted = {
        "POST": lambda: link_up(linked_up, **OTHER),
        "PUT": lambda: put(linked_up, 77),
        "DELETE": lambda: delete(linked_up, 77),
    }[method]()
    assert (accepted.status_code, accepted.json()["state"]) == (202, "waiting")
    assert "quota" in accepted.json()["reason"]
    linked_up.stack.move_clock(60)
    linked_up.stack.deliver_due()
    assert linked_up.get(accepted.headers["Location"]).json()["state"] == "waiting"
    assert_tied(linked_up, 77)
    linked_up.stack.revio.calls_per_day = 150_000
    assert linked_up.settle(accepted)["state"] == "succeeded"
    if method == "DELETE":
        assert linked_up.stack.revio.key_links == []
        assert_untied(linked_up, external(), internal(), key_link(77))
    else:
        assert_tied(linked_up, 78 if method == "POST" else 77, OTHER)


# ---------------------------------------------------------------- reading


@pytest.fixture
def five(crm: Crm) -> Crm:
    """A CRM whose account at Rev.io has five key links."""
    for system_id, entity_type_id, internal_id, external_id in (
        (4, 2, 1015, "A"),
        (4, 2, 1015, "B"),
        (7, 2, 1015, "A"),
        (4, 4, 1015, "A"),
        (4, 2, 2044, "A"),
    ):
        crm.stack.revio.account.add_key_link(system_id, entity_type_id, internal_id, external_id)
    return crm


@pytest.mark.parametrize("refuses_unknown_search", [False, True])
def test_key_links_are_found_by_each_filter(five: Crm, refuses_unknown_search: bool) -> None:
    five.stack.revio.refuses_unknown_search = refuses_unknown_search
    for query, ids in (
        ("", [77, 78, 79, 80, 81]),
        ("external_id=A", [77, 79, 80, 81]),
        ("external_id=a", []),
        ("internal_id=1015", [77, 78, 79, 80]),
        ("system=quickbooks", [79]),
        ("entity_type=Contact", [80]),
        ("external_id=A&internal_id=1015", [77, 79, 80]),
        ("external_id=A&system=SALESFORCE", [77, 80, 81]),
        ("system=SALESFORCE&entity_type=CUSTOMER", [77, 78, 81]),
        ("system=SALESFORCE&entity_type=CUSTOMER&internal_id=1015&external_id=A", [77]),
        ("system=HUBSPOT", []),
    ):
        assert found(five, query) == ids, query


def test_a_key_link_is_shown_with_its_names_and_all_that_revio_says(five: Crm) -> None:
    (record,) = [one for one in five.stack.revio.key_links if one["integration_key_link_id"] == 79]
    shown = {"system": "QUICKBOOKS", "entity_type": "CUSTOMER", "id": 79, **record}
    answer = five.get("/key-links/79")
    assert (answer.status_code, answer.json()) == (200, shown)
    assert five.get("/key-links?system=QUICKBOOKS").json() == {
        "key_links": [shown],
        "page": 1,
        "page_size": 100,
        "has_more": False,
    }


def test_a_key_link_whose_names_are_gone_is_shown_without_them(five: Crm) -> None:
    five.stack.revio.account.systems = {4: "SALESFORCE"}
    answer = five.get("/key-links/79")
    assert (answer.status_code, answer.json()["system"], answer.json()["entity_type"]) == (200, None, "CUSTOMER")


@pytest.mark.parametrize("has_more", ["more", "several_pages"])
def test_pages_show_every_key_link_once(five: Crm, has_more: Literal["more", "several_pages"]) -> None:
    five.stack.revio.has_more = has_more
    for page_size, largest_page in ((1, 500), (2, 500), (5, 500), (500, 500), (100, 2)):
        five.stack.revio.largest_page = largest_page
        ids, page, more = [], 0, True
        while more:
            page += 1
            assert page < 10
            answer = five.get(f"/key-links?page={page}&page_size={page_size}").json()
            assert (answer["page"], answer["page_size"]) == (page, page_size)
            ids += [one["id"] for one in answer["key_links"]]
            more = answer["has_more"]
        assert ids == [77, 78, 79, 80, 81], (page_size, largest_page)


def test_a_bad_parameter_is_422_and_named(crm: Crm) -> None:
    for query, field in (
        ("page=0", "page"),
        ("page=-1", "page"),
        ("page=x", "page"),
        ("page=1000001", "page"),
        ("page_size=0", "page_size"),
        ("page_size=501", "page_size"),
        ("colour=red", "colour"),
        ("search.external_id=A", "search.external_id"),
        ("internal_id=abc", "internal_id"),
        ("internal_id=0", "internal_id"),
        ("internal_id=1.5", "internal_id"),
        ("external_id=", "external_id"),
        (f"external_id={'x' * 201}", "external_id"),
        (f"system={'x' * 101}", "system"),
        (f"entity_type={quote('é' * 51)}", "entity_type"),
    ):
        answer = crm.get(f"/key-links?{query}")
        assert answer.status_code == 422, query
        assert set(wrong_fields(answer)) == {field}
    assert crm.stack.revio.seen == []


def test_is_404_when_there_is_no_such_key_link(linked_up: Crm) -> None:
    for key_link_id in ("78", str(10**17), "0", "-1", "077", "abc", "1.5", "\uff17\uff17", "9" * 40):
        for answer in (linked_up.get(f"/key-links/{key_link_id}"), put(linked_up, key_link_id)):
            assert (answer.status_code, answer.json()["retryable"]) == (404, False), key_link_id
        if key_link_id not in ("78", str(10**17)):
            assert delete(linked_up, key_link_id).status_code == 404, key_link_id
    assert [record["external_id"] for record in linked_up.stack.revio.key_links] == [EXTERNAL]
    assert link_up(linked_up).json()["id"] == 77
    assert_tied(linked_up, 77)
    assert states(linked_up) == {"succeeded": 1, "rejected": 2}  # those two ids could have been there


def test_shows_the_names_that_revio_has(crm: Crm) -> None:
    crm.stack.revio.largest_page = 5
    systems = crm.get("/key-links/systems")
    assert (systems.status_code, systems.json()) == (
        200,
        {
            "systems": [
                {"id": 4, "name": "SALESFORCE"},
                {"id": 7, "name": "QUICKBOOKS"},
                {"id": 9, "name": "HUBSPOT"},
            ]
        },
    )
    entity_types = crm.get("/key-links/entity-types").json()["entity_types"]
    assert {"id": 2, "name": "CUSTOMER"} in entity_types
    assert sorted(one["name"] for one in entity_types) == sorted(name.upper() for name in ENTITY_TYPES)


def test_another_tenants_key_links_are_not_shown(linked_up: Crm, other_tenant: Crm) -> None:
    assert link_up(other_tenant).json()["id"] == 500
    assert (found(linked_up, ""), found(other_tenant, "")) == ([77], [500])
    assert linked_up.get("/key-links/500").status_code == 404
    assert_tied(linked_up, 77)
    assert_tied(other_tenant, 500)


# ---------------------------------------------------------------- changed


def test_is_changed_at_revio_and_keeps_what_is_not_ours(linked_up: Crm) -> None:
    before = dict(linked_up.stack.revio.key_links[0])
    answer = put(linked_up, 77)
    assert answer.status_code == 200
    assert answer.json().items() >= {**OTHER, "id": 77}.items()
    (after,) = linked_up.stack.revio.key_links
    assert after == {**before, "internal_id": 2044, "external_id": OTHER["external_id"]}
    assert {after["created_by"], after["created_date"]} == {"bridge", before["created_date"]}


def test_links_follow_a_change(crm: Crm) -> None:
    changed: list[dict[str, object]] = [
        {},
        {"external_id": "001-new"},
        {"internal_id": 2044},
        {"system": "HUBSPOT"},
        {"entity_type": "AGENT"},
        OTHER,
        {"system": "hubspot", "entity_type": "agent", "internal_id": 2044, "external_id": "001-new"},
    ]
    for number, changes in enumerate(changed):
        key_link_id, body = 77 + number, {**KEY_LINK, **changes}
        assert link_up(crm).json()["id"] == key_link_id
        assert put(crm, key_link_id, body).status_code == 200
        assert_tied(crm, key_link_id, body)
        assert_untied(crm, *({external(), internal()} - {external(body), internal(body)}))
        assert crm.get(f"/key-links/{key_link_id}").json()["external_id"] == body["external_id"]
        assert link_up(crm, **body).json()["id"] == key_link_id
        assert len(crm.stack.revio.key_links) == 1
        assert delete(crm, key_link_id).status_code == 204
        assert_untied(crm, external(body), internal(body), key_link(key_link_id))


def test_both_pairs_are_known_after_a_change(linked_up: Crm) -> None:
    put(linked_up, 77)
    new = link_up(linked_up, **OTHER)
    assert (new.status_code, new.json()["id"], new.json().get("warnings")) == (200, 77, None)
    old = link_up(linked_up)
    assert (old.status_code, old.json()["id"]) == (201, 78)
    assert_tied(linked_up, 77, OTHER)
    assert_tied(linked_up, 78)


def test_changing_it_twice_is_changing_it_once(linked_up: Crm) -> None:
    first, again = put(linked_up, 77), put(linked_up, 77)
    assert (first.status_code, again.status_code) == (200, 200)
    bodies = [first.json(), again.json()]
    ids = {body.pop("operation_id") for body in bodies}
    assert len(ids) == 2  # each is a change of its own
    assert bodies[0] == bodies[1]
    assert_tied(linked_up, 77, OTHER)
    assert_untied(linked_up, external(), internal())


def test_may_be_changed_there_and_back(linked_up: Crm) -> None:
    for body in (OTHER, KEY_LINK, OTHER, KEY_LINK):
        assert put(linked_up, 77, body).status_code == 200
        assert_tied(linked_up, 77, body)
    assert_untied(linked_up, external(OTHER), internal(OTHER))
    assert len(linked_up.stack.revio.key_links) == 1


def test_may_be_changed_when_it_was_made_at_revio(crm: Crm) -> None:
    crm.stack.revio.account.add_key_link(4, 2, 1015, EXTERNAL)
    assert put(crm, 77).status_code == 200
    assert_tied(crm, 77, OTHER)


@pytest.mark.parametrize("made", ["by us", "at Rev.io"])
def test_is_409_when_another_key_link_says_this_already(linked_up: Crm, made: str) -> None:
    if made == "by us":
        assert link_up(linked_up, **OTHER).json()["id"] == 78
    else:
        linked_up.stack.revio.account.add_key_link(4, 2, OTHER["internal_id"], OTHER["external_id"])
    answer = put(linked_up, 77)
    assert answer.status_code == 409
    assert [record["external_id"] for record in linked_up.stack.revio.key_links] == [EXTERNAL, OTHER["external_id"]]
    assert (link_up(linked_up).json()["id"], link_up(linked_up, **OTHER).json()["id"]) == (77, 78)
    assert_tied(linked_up, 77)
    assert_tied(linked_up, 78, OTHER)
    assert delete(linked_up, 78).status_code == 204
    assert put(linked_up, 77).status_code == 200
    assert_tied(linked_up, 77, OTHER)


def test_is_409_when_another_key_link_that_revio_does_not_show_yet_says_this(linked_up: Crm) -> None:
    linked_up.stack.revio.search_lag = 20
    assert link_up(linked_up, **OTHER).json()["id"] == 78
    answer = put(linked_up, 77)
    assert [record["external_id"] for record in linked_up.stack.revio.key_links] == [EXTERNAL, OTHER["external_id"]]
    assert answer.status_code == 409
    assert_tied(linked_up, 77)
    assert_tied(linked_up, 78, OTHER)


@pytest.mark.parametrize("call", ["PUT", "DELETE"])
def test_one_that_is_changed_or_deleted_while_a_new_request_finds_it_is_not_its_answer_for_good(
    crm: Crm, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    crm.stack.revio.account.add_key_link(4, 2, 1015, EXTERNAL)
    read = Revio.key_link
    meanwhile: list[requests.Response] = []
    begun: list[int] = []

    def slow(client: Revio, key_link_id: int) -> RevioKeyLink:
        record = read(client, key_link_id)
        begun.append(key_link_id)
        if len(begun) == 1:
            meanwhile.append(put(crm, 77) if call == "PUT" else delete(crm, 77))
        return record

    monkeypatch.setattr(Revio, "key_link", slow)
    assert link_up(crm).json()["id"] == 77
    if meanwhile[0].status_code == 202:
        crm.settle(meanwhile[0])
    answer = link_up(crm)
    assert (answer.status_code, answer.json()["id"]) == (201, 78)
    assert_tied(crm, 78)
    assert linked(crm, key_link(77)) == ({external(OTHER), internal(OTHER)} if call == "PUT" else set())


@pytest.mark.parametrize("call", [put, delete])
def test_one_that_a_new_request_finds_in_the_moment_before_it_is_changed_is_not_its_answer(
    crm: Crm, monkeypatch: pytest.MonkeyPatch, call: Callable[[Crm, object], requests.Response]
) -> None:
    crm.stack.revio.account.add_key_link(4, 2, 1015, EXTERNAL)
    name = "change_key_link" if call is put else "delete_key_link"
    read, really_do = Revio.key_link, getattr(Revio, name)
    asked, found, told = Event(), Event(), Event()
    with ThreadPoolExecutor(1) as pool:

        def slow(client: Revio, key_link_id: int) -> RevioKeyLink:
            record = read(client, key_link_id)
            if asked.is_set():  # it is the new request that asks
                found.set()
                assert told.wait(10)
            return record

        def overtaken(client: Revio, *arguments: Any) -> None:
            asked.set()
            making.append(pool.submit(link_up, crm))
            assert found.wait(10)
            really_do(client, *arguments)

        making: list[Future[requests.Response]] = []
        with monkeypatch.context() as patch:
            patch.setattr(Revio, "key_link", slow)
            patch.setattr(Revio, name, overtaken)
            changed = call(crm, 77)
            told.set()
            made = making[0].result()
    assert changed.status_code == (200 if call is put else 204)
    assert (made.status_code, made.json()["state"]) == (202, "waiting")
    assert crm.settle(made)["result"]["id"] == 78
    answer = link_up(crm)
    assert (answer.status_code, answer.json()["id"]) == (200, 78)
    assert_tied(crm, 78)


def test_the_store_has_no_stale_answer_for_a_pair_that_another_key_link_got(linked_up: Crm) -> None:
    assert link_up(linked_up, **OTHER).json()["id"] == 78
    linked_up.stack.revio.key_links[1]["external_id"] = "changed at Rev.io"
    assert put(linked_up, 77).status_code == 200  # Rev.io has no other of this pair
    assert_tied(linked_up, 77, OTHER)
    assert_untied(linked_up, key_link(78), external(), internal())
    assert link_up(linked_up, **OTHER).json()["id"] == 77
    assert link_up(linked_up).json()["id"] == 79


@pytest.mark.parametrize("kind", [Kind.UNAVAILABLE, Kind.CLOSE_BEFORE, Kind.CLOSE_AFTER])
def test_a_new_key_link_that_is_on_its_way_comes_before_a_change_to_the_same_pair(linked_up: Crm, kind: Kind) -> None:
    linked_up.stack.revio.fail(kind, seconds=90)
    accepted = link_up(linked_up, **OTHER)
    assert accepted.status_code == 202
    changed = put(linked_up, 77)
    assert (changed.status_code, changed.json()["state"]) == (202, "waiting")
    made = linked_up.settle(accepted)
    assert (made["state"], made["result"]["id"]) == ("succeeded", 78)
    assert linked_up.settle(changed)["state"] == "rejected"
    assert len(linked_up.stack.revio.key_links) == 2
    assert_tied(linked_up, 77)
    assert_tied(linked_up, 78, OTHER)
    assert link_up(linked_up, **OTHER).json()["id"] == 78
    assert link_up(linked_up).json()["id"] == 77


@pytest.mark.parametrize("change", [put, delete])
def test_a_change_of_a_key_link_whose_event_is_in_doubt_waits_for_it(crm: Crm, change: Any) -> None:
    crm.stack.revio.fail(Kind.CLOSE_AFTER)
    accepted = link_up(crm)
    changed = change(crm, 77)
    assert (changed.status_code, changed.json()["state"]) == (202, "waiting")
    assert "found" in [attempt["event"] for attempt in crm.settle(accepted)["attempts"]]
    assert crm.settle(changed)["state"] == "succeeded"
    assert len(crm.stack.revio.key_links) == (1 if change is put else 0)


def test_a_waiting_change_is_not_sent_to_another_account(linked_up: Crm, other_tenant: Crm) -> None:
    link_up(other_tenant)
    linked_up.stack.revio.fail(Kind.UNAVAILABLE, method="DELETE")
    accepted = delete(linked_up, 77)
    assert accepted.status_code == 202
    change_tenant(linked_up.stack, client_code="other", password="other-password")
    assert linked_up.settle(accepted)["state"] == "needs_review"
    assert len(linked_up.stack.revio.accounts[1].key_links) == 1


def test_only_one_of_two_key_links_is_changed_to_a_pair_when_both_are_at_once(linked_up: Crm) -> None:
    assert link_up(linked_up, external_id="E-2").json()["id"] == 78
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda key_link_id: put(linked_up, key_link_id), (77, 78)))
    first, second = sorted(answers, key=lambda answer: answer.status_code)
    assert first.status_code == 200
    assert second.status_code in (202, 409)  # it waits, if it came while the other one was being changed
    if second.status_code == 202:
        assert linked_up.settle(second)["state"] == "rejected"
    same = [record for record in linked_up.stack.revio.key_links if record["external_id"] == OTHER["external_id"]]
    assert len(same) == 1


@pytest.mark.parametrize("kind", [Kind.UNAVAILABLE, Kind.CLOSE_BEFORE, Kind.CLOSE_AFTER])
def test_a_change_that_is_on_its_way_and_a_new_key_link_of_the_same_pair_end_in_one_each(
    linked_up: Crm, kind: Kind
) -> None:
    linked_up.stack.revio.fail(kind, seconds=90, method="PUT")
    accepted = put(linked_up, 77)
    assert accepted.status_code == 202
    made = link_up(linked_up, **OTHER)
    assert (made.status_code, made.json()["state"]) == (202, "waiting")
    assert linked_up.settle(accepted)["state"] == "succeeded"
    settled = linked_up.settle(made)
    assert (settled["state"], settled["result"]["id"], settled["attempts"][-1]["event"]) == ("succeeded", 77, "found")
    assert_tied(linked_up, 77, OTHER)
    assert link_up(linked_up, **OTHER).json()["id"] == 77
    assert link_up(linked_up).json()["id"] == 78
    assert_tied(linked_up, 78)
    assert len(linked_up.stack.revio.key_links) == 2


def test_a_change_that_meets_its_pair_being_made_right_now_waits(
    linked_up: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new key link is sent in the very moment between the change's search and its end."""
    monkeypatch.setattr("crm_bridge.outbound.transport.READ_TIMEOUT", 5)
    revio = linked_up.stack.revio
    revio.fail(Kind.DELAY, seconds=0.6)
    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(partial(link_up, linked_up, **OTHER))
        time.sleep(0.2)
        changed = put(linked_up, 77)
        made = making.result()
    assert (made.status_code, made.json()["id"]) == (201, 78)
    assert changed.status_code in (202, 409)  # if its turn comes late enough, it finds the new one
    if changed.status_code == 202:
        assert linked_up.settle(changed)["state"] == "rejected"
    same = [record for record in revio.key_links if record["external_id"] == OTHER["external_id"]]
    assert [record["integration_key_link_id"] for record in same] == [78]
    assert_tied(linked_up, 78, OTHER)


def test_another_tenants_key_link_cannot_be_changed_or_deleted(linked_up: Crm, other_tenant: Crm) -> None:
    assert link_up(other_tenant).json()["id"] == 500
    theirs = linked_up.stack.revio.accounts[1].key_links
    before = [dict(record) for record in theirs]
    assert put(linked_up, 500).status_code == 404
    assert delete(linked_up, 500).status_code == 204  # it is not there for this tenant
    assert theirs == before
    assert_tied(other_tenant, 500)
    assert link_up(other_tenant).json()["id"] == 500
    assert_tied(linked_up, 77)


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_is_changed_in_the_end_whatever_revio_does(crm: Crm, method: Literal["PUT", "GET"]) -> None:
    for number, kind in enumerate(KINDS):
        before = {**KEY_LINK, "internal_id": 1100 + number, "external_id": f"001-before-{number}"}
        after = {**KEY_LINK, "internal_id": 1200 + number, "external_id": f"001-after-{number}"}
        key_link_id = link_up(crm, **before).json()["id"]
        crm.stack.revio.fail(kind, seconds=90, method=method)
        answer = put(crm, key_link_id, after)
        if kind is Kind.WRONG_STATUS:  # 200 is right here
            assert answer.status_code == 200
        else:
            assert answer.status_code == 202, kind
            assert_tied(crm, key_link_id, before)  # nothing is withdrawn before Rev.io surely did it
            settled = crm.settle(answer)
            assert (settled["state"], settled["result"]["id"]) == ("succeeded", key_link_id), kind
        (record,) = [one for one in crm.stack.revio.key_links if one["integration_key_link_id"] == key_link_id]
        assert (record["internal_id"], record["external_id"]) == (after["internal_id"], after["external_id"])
        assert_tied(crm, key_link_id, after)
        assert_untied(crm, external(before), internal(before))
        assert link_up(crm, **after).json()["id"] == key_link_id
        again = link_up(crm, **before)
        assert again.status_code == 201, kind
        assert_tied(crm, again.json()["id"], before)
    assert states(crm).keys() <= {"succeeded", "rejected"}


def test_may_be_changed_later_when_the_caller_prefers_that(linked_up: Crm) -> None:
    accepted = put(linked_up, 77, OTHER, Prefer="respond-async")
    assert accepted.status_code == 202
    assert_tied(linked_up, 77)  # it still says so
    assert linked_up.settle(accepted)["state"] == "succeeded"
    assert_tied(linked_up, 77, OTHER)
    assert_untied(linked_up, external(), internal())
    assert link_up(linked_up).json()["id"] == 78


def test_nothing_changes_when_revio_refuses_the_change(linked_up: Crm) -> None:
    answer = put(linked_up, 77, {**KEY_LINK, "internal_id": 5})
    assert answer.status_code == 422
    assert NO_RECORD in answer.json()["detail"]
    assert_tied(linked_up, 77)
    assert_untied(linked_up, ("revio", "customer", "5"))
    again = link_up(linked_up)
    assert (again.status_code, again.json()["id"]) == (200, 77)
    assert_tied(linked_up, 77)
    assert len(linked_up.stack.revio.key_links) == 1
    operation = linked_up.get(f"/operations/{answer.json()['operation_id']}").json()
    assert (operation["state"], operation["flow"]) == ("rejected", "change_key_link")
    assert states(linked_up) == {"succeeded": 1, "rejected": 1}


LOST = [Kind.UNAVAILABLE, Kind.CLOSE_BEFORE, Kind.CLOSE_AFTER]
"""Not done; maybe done, and not; maybe done, and done."""


@pytest.mark.usefixtures("turns_by_the_stack")
@pytest.mark.parametrize("kind", LOST)
def test_a_later_change_is_not_undone_by_an_earlier_one_that_settles_after_it(linked_up: Crm, kind: Kind) -> None:
    linked_up.stack.revio.fail(kind, seconds=90, method="PUT")
    earlier = put(linked_up, 77)
    assert earlier.status_code == 202
    latest = {**KEY_LINK, "external_id": "001-latest"}
    assert put(linked_up, 77, latest).status_code == 200
    settled = linked_up.settle(earlier)
    assert linked_up.stack.revio.key_links[0]["external_id"] == "001-latest"
    assert_tied(linked_up, 77, latest)
    assert_untied(linked_up, external(), external(OTHER), internal(OTHER))
    assert link_up(linked_up, **latest).json()["id"] == 77
    assert [link_up(linked_up).json()["id"], link_up(linked_up, **OTHER).json()["id"]] == [78, 79]
    assert "later request" in settled["attempts"][-1]["reason"]
    assert settled["state"] == "rejected"


@pytest.mark.usefixtures("turns_by_the_stack")
@pytest.mark.parametrize("kind", LOST)
def test_a_deleted_key_link_does_not_come_back_when_a_change_of_it_settles_later(linked_up: Crm, kind: Kind) -> None:
    linked_up.stack.revio.fail(kind, seconds=90, method="PUT")
    earlier = put(linked_up, 77)
    assert earlier.status_code == 202
    assert delete(linked_up, 77).status_code == 204
    settled = linked_up.settle(earlier)
    assert linked_up.stack.revio.key_links == []
    assert_untied(linked_up, external(), internal(), external(OTHER), internal(OTHER), key_link(77))
    assert [link_up(linked_up).json()["id"], link_up(linked_up, **OTHER).json()["id"]] == [78, 79]
    assert settled["state"] == "rejected"


def test_a_later_change_waits_for_its_turn_when_an_earlier_one_may_still_be_on_its_way(
    linked_up: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crm_bridge.sequence.time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setattr("crm_bridge.sequence.SHORTEST_CALL", 60)  # no time to wait at all
    linked_up.stack.revio.fail(Kind.CLOSE_BEFORE, method="PUT")
    earlier = put(linked_up, 77)
    latest = {**KEY_LINK, "external_id": "001-latest"}
    waiting = put(linked_up, 77, latest)
    assert (waiting.status_code, waiting.json()["state"]) == (202, "waiting")
    assert "other changes come first" in waiting.json()["reason"]
    linked_up.settle(earlier)
    assert linked_up.settle(waiting)["state"] == "succeeded"
    assert_tied(linked_up, 77, latest)
    assert linked_up.stack.revio.key_links[0]["external_id"] == "001-latest"


def test_a_change_that_is_refused_when_it_is_sent_again_is_rejected(linked_up: Crm) -> None:
    linked_up.stack.revio.fail(Kind.UNAVAILABLE, seconds=90, method="PUT")
    accepted = put(linked_up, 77)
    before = linked_up.stack.revio.key_links.pop()
    settled = linked_up.settle(accepted)
    assert_tied(linked_up, 77)
    linked_up.stack.revio.key_links.append(before)
    assert link_up(linked_up).json()["id"] == 77
    assert settled["attempts"][-1]["vendor_status"] == 404
    assert settled["state"] == "rejected"


def test_changes_that_were_only_accepted_count_in_their_order(linked_up: Crm) -> None:
    bodies = [{**KEY_LINK, "external_id": f"001-{number}"} for number in range(3)]
    accepted = [put(linked_up, 77, body, Prefer="respond-async") for body in bodies]
    assert [answer.status_code for answer in accepted] == [202, 202, 202]
    assert len({answer.json()["operation_id"] for answer in accepted}) == 3
    settled = [linked_up.settle(answer)["state"] for answer in accepted]
    assert settled[-1] == "succeeded"
    assert set(settled) <= {"succeeded", "rejected"}
    assert linked_up.stack.revio.key_links[0]["external_id"] == "001-2"
    assert_tied(linked_up, 77, bodies[2])
    assert_untied(linked_up, external(), *map(external, bodies[:2]))


def test_a_change_that_was_accepted_before_a_newer_one_was_done_is_rejected(linked_up: Crm) -> None:
    accepted = put(linked_up, 77, OTHER, Prefer="respond-async")
    latest = {**KEY_LINK, "external_id": "001-latest"}
    assert put(linked_up, 77, latest).status_code == 200
    settled = linked_up.settle(accepted)
    assert (settled["state"], settled["attempts"][-1]["event"]) == ("rejected", "refused")
    assert "changed or deleted by a later request" in settled["attempts"][-1]["reason"]
    assert_tied(linked_up, 77, latest)


def test_a_new_key_link_of_the_old_pair_is_made_when_the_lost_change_has_settled(linked_up: Crm) -> None:
    linked_up.stack.revio.fail(Kind.CLOSE_AFTER, method="PUT")
    accepted = put(linked_up, 77)
    again = link_up(linked_up)
    assert (again.status_code, len(linked_up.stack.revio.key_links)) == (202, 1)
    assert linked_up.settle(accepted)["state"] == "succeeded"
    assert_tied(linked_up, 77, OTHER)
    assert linked_up.settle(again)["state"] == "succeeded"
    assert (link_up(linked_up).status_code, len(linked_up.stack.revio.key_links)) == (200, 2)
    assert_tied(linked_up, 77, OTHER)
    assert_tied(linked_up, 78)


# ---------------------------------------------------------------- deleted


def test_is_gone_at_revio_and_with_us_when_it_is_deleted(linked_up: Crm) -> None:
    link_up(linked_up, **OTHER)
    for _ in range(2):
        answer = delete(linked_up, 77)
        assert (answer.status_code, answer.content) == (204, b"")
    assert [record["integration_key_link_id"] for record in linked_up.stack.revio.key_links] == [78]
    assert_untied(linked_up, external(), internal(), key_link(77))
    assert_tied(linked_up, 78, OTHER)
    again = link_up(linked_up)
    assert (again.status_code, again.json()["id"]) == (201, 79)
    assert_tied(linked_up, 79)


def test_is_204_when_there_never_was_such_a_key_link(crm: Crm) -> None:
    answer = delete(crm, 4711)
    assert (answer.status_code, answer.content) == (204, b"")


def test_links_that_another_key_link_has_too_outlive_it(linked_up: Crm) -> None:
    link_up(linked_up, external_id="001-second")
    link_up(linked_up, internal_id=2044)
    delete(linked_up, 77)
    assert linked(linked_up, internal()) == {("salesforce", "customer", "001-second"), key_link(78)}
    assert linked(linked_up, external()) == {("revio", "customer", "2044"), key_link(79)}


def test_is_deleted_after_a_change_too(linked_up: Crm) -> None:
    put(linked_up, 77)
    assert delete(linked_up, 77).status_code == 204
    assert linked_up.stack.revio.key_links == []
    assert_untied(linked_up, external(), internal(), external(OTHER), internal(OTHER), key_link(77))
    assert [link_up(linked_up).status_code, link_up(linked_up, **OTHER).status_code] == [201, 201]


def test_is_deleted_in_the_end_whatever_revio_does(crm: Crm) -> None:
    for number, kind in enumerate(KINDS):
        body = {**KEY_LINK, "internal_id": 1100 + number, "external_id": f"001-{number}"}
        key_link_id = link_up(crm, **body).json()["id"]
        crm.stack.revio.fail(kind, seconds=90, method="DELETE")
        answer = delete(crm, key_link_id)
        if kind is Kind.WRONG_STATUS:  # 200 is right here
            assert (answer.status_code, answer.content) == (204, b"")
        else:
            assert answer.status_code == 202, kind
            assert_tied(crm, key_link_id, body)  # nothing is withdrawn before Rev.io surely did it
            settled = crm.settle(answer)
            assert (settled["state"], settled["result"]) == ("succeeded", {"id": key_link_id, "deleted": True}), kind
        assert [one for one in crm.stack.revio.key_links if one["integration_key_link_id"] == key_link_id] == []
        assert_untied(crm, external(body), internal(body), key_link(key_link_id))
        assert link_up(crm, **body).status_code == 201
    assert states(crm).keys() <= {"succeeded", "rejected"}


def test_nothing_is_lost_when_revio_is_down(linked_up: Crm) -> None:
    link_up(linked_up, **OTHER)
    linked_up.stack.revio.stop()
    deleted, changed = delete(linked_up, 77), put(linked_up, 78, {**OTHER, "internal_id": 3000})
    assert [answer.status_code for answer in (deleted, changed)] == [202, 202]
    assert deleted.json()["state"] in ("waiting", "unconfirmed")  # as the connection may have been open
    assert changed.json()["state"] == "waiting"
    linked_up.stack.revio.start()
    assert_tied(linked_up, 77)
    assert_tied(linked_up, 78, OTHER)
    assert [linked_up.settle(answer)["state"] for answer in (deleted, changed)] == ["succeeded"] * 2
    assert_untied(linked_up, external(), internal(), key_link(77))
    assert_tied(linked_up, 78, {**OTHER, "internal_id": 3000})
    assert link_up(linked_up).json()["id"] == 79


def test_may_be_deleted_later_when_the_caller_prefers_that(linked_up: Crm) -> None:
    accepted = delete(linked_up, 77, Prefer="respond-async")
    assert (accepted.status_code, accepted.json()["state"]) == (202, "waiting")
    assert_tied(linked_up, 77)
    assert linked_up.settle(accepted)["state"] == "succeeded"
    assert linked_up.stack.revio.key_links == []
    assert_untied(linked_up, external(), internal(), key_link(77))
    assert link_up(linked_up).json()["id"] == 78


def test_a_deletion_that_was_accepted_before_a_newer_change_was_done_is_rejected(linked_up: Crm) -> None:
    accepted = delete(linked_up, 77, Prefer="respond-async")
    assert put(linked_up, 77).status_code == 200
    assert linked_up.settle(accepted)["state"] == "rejected"
    assert_tied(linked_up, 77, OTHER)
    assert len(linked_up.stack.revio.key_links) == 1


@pytest.mark.usefixtures("turns_by_the_stack")
@pytest.mark.parametrize("kind", LOST)
def test_a_new_key_link_keeps_its_links_when_the_deletion_of_the_one_before_settles_later(
    linked_up: Crm, kind: Kind
) -> None:
    linked_up.stack.revio.fail(kind, seconds=90, method="DELETE")
    accepted = delete(linked_up, 77)
    assert accepted.status_code == 202
    assert delete(linked_up, 77).status_code == 204
    assert (link_up(linked_up).json()["id"], len(linked_up.stack.revio.key_links)) == (78, 1)
    settled = linked_up.settle(accepted)
    assert delete(linked_up, 77).status_code == 204
    assert_tied(linked_up, 78)
    again = link_up(linked_up)
    assert (again.status_code, again.json()["id"]) == (200, 78)
    assert len(linked_up.stack.revio.key_links) == 1
    assert settled["state"] == "rejected"


def test_a_new_key_link_keeps_its_links_when_a_lost_deletion_at_revio_settles(linked_up: Crm) -> None:
    """The pair's operation has the successor already, and the links of both are there."""
    linked_up.stack.revio.key_links.clear()
    linked_up.stack.revio.account.add_key_link(4, 2, 1015, EXTERNAL)
    assert put(linked_up, 78, KEY_LINK).status_code == 200
    assert_tied(linked_up, 78)
    assert_untied(linked_up, key_link(77))
    assert delete(linked_up, 77).status_code == 204
    assert_tied(linked_up, 78)
    assert link_up(linked_up).json()["id"] == 78


# ---------------------------------------------------------------- changed at Rev.io directly


@pytest.mark.parametrize("happened", ["changed", "deleted"])
def test_is_made_again_when_it_was_lost_at_revio_and_is_deleted_here(linked_up: Crm, happened: str) -> None:
    if happened == "changed":
        linked_up.stack.revio.key_links[0]["external_id"] = "changed at Rev.io"
    else:
        linked_up.stack.revio.key_links.clear()
    assert delete(linked_up, 77).status_code == 204
    answer = link_up(linked_up)
    assert (answer.status_code, answer.json()["id"]) == (201, 78)
    assert [record["external_id"] for record in linked_up.stack.revio.key_links] == [EXTERNAL]
    assert_tied(linked_up, 78)


def test_is_404_when_it_was_deleted_at_revio_and_is_changed_here(linked_up: Crm) -> None:
    linked_up.stack.revio.key_links.clear()
    answer = put(linked_up, 77)
    assert (answer.status_code, answer.json()["retryable"]) == (404, False)
    assert linked_up.get(f"/operations/{answer.json()['operation_id']}").json()["state"] == "rejected"
    assert_tied(linked_up, 77)  # a change that is refused leaves everything as it is
    assert link_up(linked_up).json()["id"] == 77
    assert delete(linked_up, 77).status_code == 204
    assert link_up(linked_up).json()["id"] == 78
    assert_tied(linked_up, 78)


def test_a_change_at_revio_is_undone_by_the_same_change_as_before(linked_up: Crm) -> None:
    put(linked_up, 77)
    linked_up.stack.revio.key_links[0]["external_id"] = "changed at Rev.io"
    assert put(linked_up, 77).status_code == 200
    assert linked_up.stack.revio.key_links[0]["external_id"] == OTHER["external_id"]


# ---------------------------------------------------------------- bad input

WRONG: list[object] = [None, "", " \t", True, {}, ["x"], 1.5]
"""For every field; None is a field that is missing."""


BAD: list[tuple[dict[str, Any], str]] = [
    *(({name: value}, name) for name in KEY_LINK for value in WRONG),
    *(({name: value}, name) for name in ("system", "entity_type") for value in ("x" * 101, "é" * 51, 4)),
    *(({"internal_id": value}, "internal_id") for value in (0, -1, 10**30, 2**63, "abc", "1 015")),
    ({"external_id": "x" * 201}, "external_id"),
    ({"external_id": "x" * 1000}, "external_id"),
    ({"external_id": "a\u0000b"}, "external_id"),
    ({"colour": "red"}, "colour"),
    ({"id": 77}, "id"),
    ({"asked_at": 1}, "asked_at"),
]


def test_bad_input_is_422_and_names_the_field(crm: Crm) -> None:
    for changes, field in BAD:
        body = {name: value for name, value in {**KEY_LINK, **changes}.items() if value is not None}
        for answer in (crm.post("/key-links", body), put(crm, 77, body)):
            assert answer.status_code == 422, changes
            assert field in wrong_fields(answer), changes
    for wrong in ([KEY_LINK], [], "x", 1):
        assert (crm.post("/key-links", wrong).status_code, put(crm, 77, wrong).status_code) == (422, 422)
    assert crm.stack.revio.seen == []
    assert crm.get("/operations").json()["operations"] == []
    assert states(crm) == {}


def test_the_longest_names_and_ids_are_taken(crm: Crm) -> None:
    account = crm.stack.revio.account
    account.systems[31], account.entity_types[31] = "é" * 50, "票" * 33 + "x"
    body = {"system": "é" * 50, "entity_type": "票" * 33 + "x", "internal_id": 9_999_999, "external_id": "🎫" * 200}
    assert link_up(crm, **body).json()["id"] == 77
    assert_tied(crm, 77, body)
    assert put(crm, 77, OTHER).status_code == 200
    assert put(crm, 77, body).status_code == 200
    assert_tied(crm, 77, body)
    assert delete(crm, 77).status_code == 204
    assert_untied(crm, external(body), internal(body), key_link(77))


def test_any_external_id_makes_one_key_link_and_is_found_again(crm: Crm) -> None:
    texts = ("A B", "A/B", "A#1", "100%", "A%2FB", "a&b=c", "a+b", "?x", "=", "Büro-7", "票", "🎫" * 200, "'\"\\", 1001)
    for key_link_id, external_id in enumerate(texts, 77):
        crm.stack.revio.fail(Kind.CLOSE_AFTER)
        operation = crm.settle(link_up(crm, external_id=external_id))
        assert (operation["state"], operation["attempts"][-1]["event"]) == ("succeeded", "found"), external_id
        assert link_up(crm, external_id=external_id).json()["external_id"] == str(external_id)
        assert [record["external_id"] for record in crm.stack.revio.key_links] == [str(external_id)]
        assert found(crm, f"external_id={quote(str(external_id), safe='')}") == [key_link_id]
        if "/" not in str(external_id):  # the local gateway takes no encoded slash in a path
            assert_tied(crm, key_link_id, {**KEY_LINK, "external_id": external_id})
        assert delete(crm, key_link_id).status_code == 204
        assert_untied(crm, internal(), key_link(key_link_id))


# ---------------------------------------------------------------- credentials


def test_waits_and_succeeds_with_the_right_secret_when_revio_refuses_the_login(crm: Crm) -> None:
    crm.stack.revio.account.password = "changed"
    accepted = link_up(crm)
    assert (accepted.status_code, accepted.json()["state"]) == (202, "waiting")
    assert crm.get("/key-links/77").status_code == 503
    crm.stack.put_secret("demo", crm.stack.demo_tenant())
    assert crm.settle(accepted)["state"] == "succeeded"
    assert_tied(crm, 77)


def test_uses_a_new_secret_at_once_when_revio_refuses_the_old_one(linked_up: Crm) -> None:
    linked_up.stack.revio.account.password = "changed"
    linked_up.stack.put_secret("demo", linked_up.stack.demo_tenant())
    assert link_up(linked_up, **OTHER).status_code == 201


def test_waits_when_revio_refuses_the_login_once(crm: Crm) -> None:
    crm.stack.revio.fail(Kind.BAD_KEY)
    accepted = link_up(crm)
    assert (accepted.status_code, accepted.json()["state"]) == (202, "waiting")
    assert crm.settle(accepted)["state"] == "succeeded"


def test_is_503_when_the_tenant_has_no_account_at_revio(linked_up: Crm) -> None:
    sent = len(linked_up.stack.revio.seen)
    linked_up.stack.put_secret("demo", "{}")
    runtime().engine.tenants.get("demo", "key_link", fresh=True)
    paths = ("/key-links", "/key-links/77", "/key-links/systems", "/key-links/entity-types")
    answers = [link_up(linked_up, **OTHER), *map(linked_up.get, paths)]
    assert link_up(linked_up).status_code == 200  # what is known is told all the same
    answers += [put(linked_up, 77), delete(linked_up, 77)]
    assert [answer.status_code for answer in answers] == [503] * 7
    assert all("revio block" in answer.json()["detail"] and answer.json()["retryable"] for answer in answers)
    assert len(linked_up.stack.revio.seen) == sent
    change_tenant(linked_up.stack)
    assert link_up(linked_up).json()["id"] == 77
    assert_tied(linked_up, 77)


@pytest.mark.parametrize("how", ["not JSON", "deleted", "no answer"])
def test_is_503_even_for_what_is_known_when_the_tenants_secret_cannot_be_read(linked_up: Crm, how: str) -> None:
    failing = pytest.MonkeyPatch()
    sent, tenants = len(linked_up.stack.revio.seen), runtime().engine.tenants
    if how == "not JSON":
        linked_up.stack.put_secret("demo", "{")
    elif how == "deleted":
        boto3.client("secretsmanager").delete_secret(
            SecretId=os.environ["SECRET_PREFIX"] + "revio/demo", ForceDeleteWithoutRecovery=True
        )
    else:

        def fail(*_: object, **__: object) -> None:
            raise EndpointConnectionError(endpoint_url="https://secretsmanager")

        failing.setattr(tenants._secrets.client, "get_secret_value", fail)
    tenants._secrets.store.clear()
    for answer in (
        link_up(linked_up),
        link_up(linked_up, **OTHER),
        put(linked_up, 77),
        delete(linked_up, 77),
        linked_up.get("/key-links/77"),
    ):
        assert (answer.status_code, answer.json()["retryable"]) == (503, True)
    failing.undo()
    linked_up.stack.put_secret("demo", linked_up.stack.demo_tenant())
    tenants._secrets.store.clear()
    assert len(linked_up.stack.revio.seen) == sent
    assert states(linked_up) == {"succeeded": 1}
    assert link_up(linked_up).json()["id"] == 77
    assert_tied(linked_up, 77)


def _stored() -> str:
    client = boto3.client("dynamodb")
    return json.dumps([client.scan(TableName=table) for table in client.list_tables()["TableNames"]], default=str)


@pytest.mark.usefixtures("turns_by_the_stack")
@pytest.mark.parametrize(
    ("status", "shape"),
    [
        *((status, "message") for status in (200, 400, 401, 403, 404, 409, 429, 500, 503)),
        *((status, shape) for status in (200, 400, 401, 500) for shape in ("errors", "text")),
        (400, "error"),
    ],
)
def test_secrets_are_never_shown_or_stored_when_revio_repeats_them(
    crm: Crm, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], status: int, shape: str
) -> None:
    account = crm.stack.revio.account
    account.password, account.subscription_key = 'pass"wörd/1', "subscription-1"
    change_tenant(crm.stack, subscription_key=account.subscription_key)
    assert link_up(crm).status_code == 201
    login = base64.b64encode(f"bridge@acme:{account.password}".encode()).decode()
    secrets = (account.password, login, account.subscription_key)

    def repeat(request: Request) -> Response:
        key = request.headers["Ocp-Apim-Subscription-Key"]
        text = f"no: {request.headers['Authorization']} is bridge@acme:{account.password} with {key}"
        body = text if shape == "text" else json.dumps({"ok": False, shape: [text] if shape == "errors" else text})
        return Response(body, status, mimetype="text/plain" if shape == "text" else "application/json")

    monkeypatch.setattr(crm.stack.revio, "respond", repeat)
    answers = [
        link_up(crm, **OTHER),
        put(crm, 77, {**KEY_LINK, "internal_id": 3000}),
        delete(crm, 77),
        crm.get("/key-links/77"),
        crm.get("/key-links?internal_id=1015"),
    ]
    crm.stack.move_clock(90)
    crm.stack.deliver_due()
    answers += [crm.get("/operations"), crm.get("/key-links/systems")]
    answers += [crm.get(f"/operations/{one['operation_id']}") for one in answers[-2].json()["operations"]]
    shown = "".join(answer.text + str(answer.headers) for answer in answers) + _stored() + "".join(capfd.readouterr())
    assert len(answers) > 8
    for secret in secrets:
        assert secret not in shown
        assert json.dumps(secret)[1:-1] not in shown
        assert json.dumps(secret, ensure_ascii=False)[1:-1] not in shown


# ---------------------------------------------------------------- the wire, and races


def _round_trips(crm: Crm) -> Counter[str]:
    assert crm.stack.aws
    calls = Counter({name.partition(".")[2]: count for name, count in crm.stack.aws.calls.items() if "SQS" not in name})
    return calls + Counter({"revio": len(crm.stack.revio.seen)})


@pytest.mark.parametrize(("external_id", "asked"), [("A-2044", 1), ("001XX0000UVWXYZ", 2)])
def test_takes_four_round_trips_when_new_and_one_when_repeated(linked_up: Crm, external_id: str, asked: int) -> None:
    """One more where Rev.io may have the other form of a Salesforce id."""
    other, before = {**OTHER, "external_id": external_id}, _round_trips(linked_up)
    link_up(linked_up, **other)
    new = _round_trips(linked_up)
    assert new - before == Counter({"PutItem": 1, "revio": asked + 1, "TransactWriteItems": 1})
    link_up(linked_up, **other)
    assert _round_trips(linked_up) - new == Counter({"PutItem": 1})


@pytest.mark.parametrize(("external_id", "asked"), [("A-2044", 1), ("001XX0000UVWXYZ", 2)])
def test_takes_six_round_trips_when_it_is_changed_and_four_when_it_is_deleted(
    linked_up: Crm, external_id: str, asked: int
) -> None:
    """One more where Rev.io may have the other form of a Salesforce id."""
    before = _round_trips(linked_up)
    assert put(linked_up, 77, {**OTHER, "external_id": external_id}).status_code == 200
    changed = _round_trips(linked_up)
    assert changed - before == Counter({"Query": 1, "revio": asked + 2, "TransactWriteItems": 2})
    assert delete(linked_up, 77).status_code == 204
    assert _round_trips(linked_up) - changed == Counter({"Query": 1, "revio": 1, "TransactWriteItems": 2})


def settle_all(crm: Crm) -> None:
    """Of those whose turn did not come within the deadline, on a machine that is busy."""
    for _ in range(5):
        crm.stack.move_clock(600)
        crm.stack.deliver_due()


def _at_once(call: Callable[[], requests.Response], pool: ThreadPoolExecutor) -> Counter[int]:
    return Counter(answer.status_code for answer in pool.map(lambda _: call(), range(20)))


@pytest.mark.usefixtures("eager_switches")
def test_twenty_identical_requests_at_once_make_one_key_link_round_after_round(crm: Crm) -> None:
    with ThreadPoolExecutor(20) as pool:
        for number in range(ROUNDS):
            statuses = _at_once(partial(link_up, crm, external_id=f"001-{number}"), pool)
            assert statuses[201] == 1, statuses
            assert statuses[200] + statuses[409] == 19, statuses
            assert len(crm.stack.revio.key_links) == number + 1
    assert Counter(record["external_id"] for record in crm.stack.revio.key_links).most_common(1)[0][1] == 1


@pytest.mark.usefixtures("eager_switches", "quick_turns")
def test_twenty_identical_changes_and_deletions_at_once_are_one(linked_up: Crm) -> None:
    with ThreadPoolExecutor(20) as pool:
        for body in (OTHER, KEY_LINK):
            statuses = _at_once(partial(put, linked_up, 77, body), pool)
            assert statuses.keys() <= {200, 202, 409}, statuses
            settle_all(linked_up)
            assert_tied(linked_up, 77, body)
        assert len(linked_up.stack.revio.key_links) == 1
        statuses = _at_once(partial(delete, linked_up, 77), pool)
        assert statuses.keys() <= {204, 202, 409}, statuses
        settle_all(linked_up)
    assert linked_up.stack.revio.key_links == []
    assert_untied(linked_up, external(), internal(), external(OTHER), internal(OTHER), key_link(77))
    assert states(linked_up).keys() <= {"succeeded", "rejected"}


@pytest.mark.usefixtures("eager_switches", "quick_turns")
def test_the_links_are_those_of_the_change_that_counts_when_several_come_at_once(crm: Crm) -> None:
    with ThreadPoolExecutor(6) as pool:
        for number in range(5):
            key_link_id = link_up(crm).json()["id"]
            bodies = [{**KEY_LINK, "internal_id": 2000 + n, "external_id": f"001-{number}-{n}"} for n in range(6)]
            answers = list(pool.map(partial(put, crm, key_link_id), bodies))
            assert {answer.status_code for answer in answers} <= {200, 202, 409}, [answer.text for answer in answers]
            for answer in answers:
                if answer.status_code == 202:  # a newer one came first
                    crm.settle(answer)
            (record,) = crm.stack.revio.key_links
            (counts,) = [body for body in bodies if body["external_id"] == record["external_id"]]
            assert_tied(crm, key_link_id, counts)
            again = link_up(crm, **counts)
            assert again.json().get("id") == key_link_id, (again.status_code, again.text)
            others = [KEY_LINK, *(body for body in bodies if body is not counts)]
            assert_untied(crm, *(external(body) for body in others))
            made = [link_up(crm, **body) for body in others]
            assert [answer.status_code for answer in made] == [201] * len(others)
            for body, answer in zip(others, made, strict=True):
                assert key_link(answer.json()["id"]) in linked(crm, external(body))
            for answer in made:
                assert delete(crm, answer.json()["id"]).status_code == 204
            assert_tied(crm, key_link_id, counts)
            assert delete(crm, key_link_id).status_code == 204


@pytest.mark.usefixtures("eager_switches", "quick_turns")
def test_making_changing_and_deleting_at_once_leaves_what_revio_has(crm: Crm) -> None:
    with ThreadPoolExecutor(6) as pool:
        for number in range(10):
            here = {**KEY_LINK, "external_id": f"001-{number}"}
            there = {**KEY_LINK, "internal_id": 2044, "external_id": f"002-{number}"}
            first = link_up(crm, **here).json()["id"]
            calls: list[Callable[[], requests.Response]] = [
                partial(put, crm, first, there),
                partial(link_up, crm, **there),
                partial(link_up, crm, **here),
                partial(put, crm, first, here),
                partial(delete, crm, first),
                partial(link_up, crm, **there),
            ]
            answers = [future.result() for future in [pool.submit(call) for call in calls]]
            assert {answer.status_code for answer in answers} <= {200, 201, 202, 204, 404, 409}
            for answer in answers:
                if answer.status_code == 202:
                    crm.settle(answer)
            for body in (here, there):
                told = link_up(crm, **body).json()["id"]
                assert told in [
                    one["integration_key_link_id"]
                    for one in crm.stack.revio.key_links
                    if one["external_id"] == body["external_id"]
                ]
                assert linked(crm, external(body)) == {internal(body), key_link(told)}
                assert linked(crm, key_link(told)) == {internal(body), external(body)}
    assert states(crm).keys() <= {"succeeded", "rejected"}


# ---------------------------------------------------------------- what Rev.io may store


LONG = "A\u00e9 1  b\u2019s & <i>c \U0001f3ea " + 40 * "x"


@pytest.mark.parametrize("match", ["exact", "contains"])
@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_there_is_one_key_link_whatever_revio_makes_of_the_id(
    crm: Crm, alteration: str, match: Literal["exact", "contains"]
) -> None:
    crm.stack.revio.match, crm.stack.revio.alterations = match, (ALTERATIONS[alteration],)
    crm.stack.revio.fail(Kind.CLOSE_AFTER)
    accepted = link_up(crm, external_id=LONG)
    as_it_was = alteration in ("stripped", "invisible dropped")
    operation = crm.settle(accepted)
    assert operation["state"] == ("succeeded" if as_it_was else "needs_review")
    assert len(crm.stack.revio.key_links) == 1
    if not as_it_was:
        decision = {"action": "link", "id": "77", "confirmed": True}
        assert crm.post(f"{accepted.headers['Location']}/resolve", decision).json()["state"] == "succeeded"


@pytest.mark.parametrize("refused", [False, True])
def test_a_key_link_of_another_event_or_record_is_no_candidate(crm: Crm, refused: bool) -> None:
    crm.stack.revio.refuses_unknown_search = refused
    assert link_up(crm, external_id="A").status_code == 201
    for members in ((7, 2, 1015), (4, 1, 1015), (4, 2, 1016)):
        crm.stack.revio.account.add_key_link(*members, "B")
    crm.stack.revio.fail(Kind.CLOSE_BEFORE)
    assert crm.settle(link_up(crm, external_id="C"))["state"] == "succeeded"
    assert [record["external_id"] for record in crm.stack.revio.key_links] == ["A", "B", "B", "B", "C"]


def test_a_key_link_that_was_there_the_day_before_is_no_candidate(crm: Crm) -> None:
    crm.stack.revio.account.add_key_link(4, 2, 1015, "made by hand")
    crm.stack.move_clock(37 * 3600)  # its time has no zone
    crm.stack.revio.fail(Kind.CLOSE_BEFORE)
    assert crm.settle(link_up(crm))["state"] == "succeeded"
    assert len(crm.stack.revio.key_links) == 2


def test_a_person_sees_which_key_links_may_be_the_one(crm: Crm) -> None:
    crm.stack.revio.account.add_key_link(4, 2, 1015, "made by hand")
    crm.stack.revio.fail(Kind.CLOSE_BEFORE)
    accepted = link_up(crm)
    assert crm.settle(accepted)["state"] == "needs_review"
    assert [one["id"] for one in crm.get(accepted.headers["Location"]).json()["candidates"]] == ["77"]


@pytest.mark.parametrize("kind", [Kind.TOO_MANY_AFTER, Kind.UNAVAILABLE_AFTER])
def test_there_is_one_key_link_when_a_proxy_asks_to_send_later_what_revio_has_done_and_altered(
    crm: Crm, kind: Kind
) -> None:
    crm.stack.revio.alterations = (ALTERATIONS["upper case"],)
    crm.stack.revio.search_lag = 29
    crm.stack.revio.fail(kind, seconds=1)
    assert crm.settle(link_up(crm, external_id="abc"))["state"] == "needs_review"
    assert len(crm.stack.revio.key_links) == 1


def test_does_not_look_through_more_key_links_than_it_has_time_for(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crm_bridge.vendors.revio.MOST_PAGES", 2)
    monkeypatch.setattr(crm.stack.revio, "largest_page", 1)
    crm.stack.revio.refuses_unknown_search = True
    for number in range(3):
        crm.stack.revio.account.add_key_link(4, 2, 2000 + number, "B")
    crm.stack.revio.fail(Kind.CLOSE_BEFORE)
    operation = crm.settle(link_up(crm))
    assert (operation["state"], "too many key links" in operation["attempts"][-1]["reason"]) == ("needs_review", True)
    crm.stack.revio.fail(Kind.CLOSE_AFTER)
    assert crm.settle(link_up(crm, external_id="D"))["state"] == "succeeded"  # the search by its own id shows it

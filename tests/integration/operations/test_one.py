"""One operation, links, the search, and the summary."""

from urllib.parse import quote

import pytest

from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import State
from local.vendors.simulator import Kind
from tests.integration.conftest import SITE, Crm
from tests.integration.operations.conftest import (
    FIRST,
    JOB,
    KEY_LINK,
    ORDER,
    found,
    store,
    summarized,
    vendors,
)

# ---------------------------------------------------------------- one operation


def test_shows_both_ends_of_every_link_once_it_succeeded(crm: Crm) -> None:
    site = crm.create_site().json()["operation_id"]
    job = crm.post("/jobs", JOB).json()["operation_id"]
    customer, at_illu = {"system": "crm", "entity": "customer", "id": "C-1001"}, {"system": "illu", "entity": "site"}
    assert crm.get(f"/operations/{site}").json()["links"] == [[customer, {**at_illu, "id": "4711"}]]
    made = {"system": "illu", "entity": "job", "id": "801"}
    ticket = {"system": "crm", "entity": "ticket", "id": "T-501"}
    assert crm.get(f"/operations/{job}").json()["links"] == [[ticket, made], [made, {**at_illu, "id": "4711"}]]


def test_shows_no_link_when_it_failed(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crm.stack.illu, "longest_name", 5)
    refused = crm.create_site()
    assert refused.status_code == 422
    shown = crm.get(f"/operations/{refused.json()['operation_id']}").json()
    assert (shown["state"], shown["links"], shown["result"]) == ("rejected", [], None)


def test_shows_no_link_when_what_was_made_is_linked_to_something_else(crm: Crm) -> None:
    crm.create_site()
    crm.stack.illu.next_id = 4711  # illu gives one id twice
    accepted = crm.create_site(customer_id="C-1002")
    shown = crm.get(f"/operations/{accepted.json()['operation_id']}").json()
    assert (shown["state"], shown["links"]) == ("needs_review", [])
    assert shown["last_attempt"]["event"] == "link taken"


def test_shows_no_link_while_it_is_on_its_way(crm: Crm) -> None:
    crm.stack.illu.fail(Kind.CLOSE_AFTER)
    accepted = crm.create_site()
    assert crm.get(accepted.headers["Location"]).json()["links"] == []
    assert len(crm.settle(accepted)["links"]) == 1


def test_shows_the_payload_only_to_a_key_with_the_scope_and_none_after_success(crm: Crm) -> None:
    reader = crm.with_key("operations:read", "operations:resolve", "operations:payload")
    crm.stack.illu.fail(Kind.UNAVAILABLE)
    accepted = crm.create_site()
    location = accepted.headers["Location"]
    assert reader.get(location).json()["payload"] == SITE
    without = crm.get(location)
    assert "payload" not in without.json()
    assert "Moi Ave" not in without.text
    crm.settle(accepted)
    after = reader.get(location).json()
    assert (after["state"], after["payload"]) == ("succeeded", None)


ODD_IDS = [
    *("op_", "x", "op_" + "0" * 31, "op_" + "0" * 33, "OP_" + "0" * 32, "op_" + "A" * 32, "op_" + "g" * 32),
    *("op_%00", "%23", "a b", "...", "%F0%9F%8E%AB", "op_" + "0" * 32, "op_" + "0" * 32 + "%0A", "x" * 5000),
]


def test_is_404_when_there_is_no_such_operation(crm: Crm) -> None:
    for odd in ODD_IDS:
        for answer in (crm.get(f"/operations/{odd}"), crm.post(f"/operations/{odd}/resolve", {"action": "discard"})):
            assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json"), odd
            assert answer.json()["detail"] == "There is no operation with this id."


def test_anothers_operation_is_404_and_cannot_be_resolved(crm: Crm, umbrella: Crm) -> None:
    mine = store("C-1", payload=SITE)
    assert crm.get(f"/operations/{mine}").status_code == 200
    assert umbrella.get(f"/operations/{mine}").status_code == 404
    for decision in ({"action": "link", "id": "1"}, *({"action": one} for one in ("discard", "retry", "unlink"))):
        assert umbrella.post(f"/operations/{mine}/resolve", decision).status_code == 404
    assert crm.get(f"/operations/{mine}").json()["state"] == "needs_review"


# ---------------------------------------------------------------- links


def test_a_links_system_and_entity_may_be_in_any_case_and_its_id_may_not(crm: Crm) -> None:
    crm.create_site(customer_id="c-Äb")
    assert crm.post("/key-links", KEY_LINK).status_code == 201
    for system, entity in (("crm", "customer"), ("CRM", "Customer"), ("cRm", "CUSTOMER")):
        (link,) = crm.get(f"/links/{system}/{entity}/{quote('c-Äb')}").json()["links"]
        assert (link["system"], link["entity"], link["id"]) == ("illu", "site", "4711")
    for system, entity in (("salesforce", "customer"), ("Salesforce", "Customer"), ("SALESFORCE", "CUSTOMER")):
        assert len(crm.get(f"/links/{system}/{entity}/001XX0000ABCDEF").json()["links"]) == 2
    for path in (quote("crm/customer/c-äb"), quote("crm/customer/C-ÄB"), "salesforce/customer/001xx0000abcdef"):
        assert crm.get(f"/links/{path}").status_code == 404


# ---------------------------------------------------------------- search


def test_an_operation_is_found_by_every_id_that_somebody_knows_it_by(crm: Crm) -> None:
    site = crm.create_site().json()
    job = crm.post("/jobs", {"ticket_id": "T-501", "name": "Meter", "customer_id": SITE["customer_id"]}).json()
    key_link = crm.post("/key-links", KEY_LINK).json()
    crm.create_site(customer_id="C-other")
    assert found(crm, site["operation_id"]) == found(crm, str(SITE["customer_id"])) == [SITE["customer_id"]]
    assert sorted(found(crm, str(site["site_id"]))) == [SITE["customer_id"], "T-501"]
    assert found(crm, str(job["job_id"])) == found(crm, "T-501") == ["T-501"]
    pair = found(crm, str(key_link["id"]))
    assert len(pair) == 1
    assert found(crm, "1015") == found(crm, "SalesForce/Customer/001XX0000ABCDEF") == pair
    for nobody in ("001XX0000ABCDEF", "op_none", "a/b/c/d", "//", "€" * 1000):
        assert found(crm, nobody) == []


def test_what_is_another_tenants_is_not_found(crm: Crm, umbrella: Crm) -> None:
    site = crm.create_site().json()
    for record in (site["operation_id"], str(SITE["customer_id"]), str(site["site_id"])):
        assert found(umbrella, record) == []


def test_a_search_can_be_narrowed(crm: Crm) -> None:
    crm.create_site()
    crm.post("/jobs", {"ticket_id": "T-501", "name": "Meter", "customer_id": SITE["customer_id"]})
    for narrowed, count in (("", 2), ("&flow=create_job", 1), ("&state=needs_review", 0), ("&limit=1", 1)):
        assert len(crm.get(f"/operations?id=4711{narrowed}").json()["operations"]) == count


@pytest.mark.parametrize("query", ["id=", f"id={'x' * 1001}"])
def test_what_is_no_id_is_not_searched_for(crm: Crm, query: str) -> None:
    assert crm.get(f"/operations?{query}").status_code == 422


# ---------------------------------------------------------------- how everything stands


def test_nothing_is_known_before_the_first_event(crm: Crm) -> None:
    summary = summarized(crm)
    assert {state: one["count"] for state, one in summary["states"].items()} == dict.fromkeys(ORDER, 0)
    assert len(summary["hours"]) == 24
    assert (summary["tenant"], summary["stage"], summary["region"]) == ("demo", "dev", "eu-west-1")
    assert {one["state"] for one in summary["vendors"]} == {"nothing known"}


def test_counts_by_state_and_flow_and_by_the_hour(crm: Crm) -> None:
    crm.stack.move_clock(-2 * 3600)
    crm.create_site(customer_id="C-1")
    crm.stack.move_clock(2 * 3600)
    crm.create_site(customer_id="C-2")
    crm.post("/key-links", KEY_LINK)
    crm.stack.illu.fail(Kind.TOO_MANY)
    crm.create_site(customer_id="C-3")
    store("old", State.NEEDS_REVIEW, at=int(runtime().clock()) - 30 * 3600)
    store("theirs", State.NEEDS_REVIEW, tenant="demo-upya", at=int(runtime().clock()))
    summary = summarized(crm)
    assert summary["states"]["succeeded"] == {
        "count": 3,
        "more": False,
        "flows": {"create_key_link": 1, "create_site": 2},
    }
    assert summary["states"]["waiting"]["count"] == summary["states"]["needs_review"]["count"] == 1
    assert [hour["states"] for hour in summary["hours"][-3:]] == [
        {"succeeded": 1},
        {},
        {"waiting": 1, "succeeded": 2},
    ]
    assert summary["hours"][-1]["hour"] <= summary["at"] < summary["hours"][-1]["hour"].replace(":00:00", ":59:60")


def test_says_that_there_are_more_than_it_has_looked_at(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operations.handler.READ", 2)
    for number in range(3):
        store(str(number), State.NEEDS_REVIEW, at=FIRST + number)
    assert summarized(crm)["states"]["needs_review"] == {"count": 2, "more": True, "flows": {"create_site": 2}}


def test_a_vendor_fails_from_the_first_event_that_is_not_settled_until_one_succeeds(crm: Crm) -> None:
    crm.create_site(customer_id="C-1")
    assert vendors(crm)["illu"] == ("responding", 0)
    assert [one["next_attempt"] for one in summarized(crm)["vendors"]] == [None] * 5
    crm.stack.move_clock(10)
    crm.stack.illu.fail(Kind.TOO_MANY, times=2)
    crm.create_site(customer_id="C-2")
    assert vendors(crm)["illu"] == ("failing", 1)
    (illu,) = [one for one in summarized(crm)["vendors"] if one["vendor"] == "illu"]
    assert illu["reason"].startswith("illu answered 429")
    assert illu["last_success"] < illu["last_failure"]
    crm.stack.move_clock(10)
    crm.create_site(customer_id="C-3")
    assert vendors(crm)["illu"] == ("failing", 2)
    crm.stack.move_clock(10)
    crm.create_site(customer_id="C-4")
    assert vendors(crm)["illu"] == ("responding", 2)
    waiting = [one["due_at"] for one in crm.get("/operations?state=waiting").json()["operations"]]
    (illu,) = [one for one in summarized(crm)["vendors"] if one["vendor"] == "illu"]
    assert (len(waiting), illu["next_attempt"]) == (2, min(waiting))
    assert vendors(crm)["Rev.io"] == ("nothing known", 0)


def test_the_summary_says_what_the_key_may_do(crm: Crm) -> None:
    caller = crm.with_key("operations:read", "create_site")
    assert summarized(caller)["scopes"] == ["create_site", "operations:read"]

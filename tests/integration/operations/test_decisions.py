"""A person's decisions about an operation."""

from typing import Any

import pytest

from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import State
from tests.integration.conftest import SITE, Crm
from tests.integration.operations.conftest import (
    COMMANDS,
    FLOWS,
    JOB,
    KEY_LINK,
    ids,
    listed,
    resolve,
    store,
)

# ---------------------------------------------------------------- what a person decides


def in_review(flow: str) -> str:
    """An operation of this flow with its real command, which would be sent again."""
    return store(f"the {flow}", flow=flow, payload=COMMANDS[flow], at=int(runtime().clock()))


def links_of(crm: Crm, path: str) -> set[tuple[str, str, str]]:
    links = crm.get(f"/links/{path}").json().get("links", [])
    return {(link["system"], link["entity"], link["id"]) for link in links}


ADOPTED: dict[str, tuple[dict[str, Any], dict[str, set[tuple[str, str, str]]]]] = {
    "create_site": (
        {"site_id": 4712, "customer_id": "C-1001"},
        {"crm/customer/C-1001": {("illu", "site", "4712")}, "illu/site/4712": {("crm", "customer", "C-1001")}},
    ),
    "create_job": (
        {"job_id": "4712", "ticket_id": "T-501", "site_id": 4711},
        {"crm/ticket/T-501": {("illu", "job", "4712")}, "illu/site/4711": {("illu", "job", "4712")}},
    ),
    "create_key_link": (
        {**KEY_LINK, "id": 4712},
        {
            "salesforce/customer/001XX0000ABCDEF": {("revio", "customer", "1015"), ("revio", "key_link", "4712")},
            "revio/customer/1015": {("salesforce", "customer", "001XX0000ABCDEF"), ("revio", "key_link", "4712")},
            "revio/key_link/4712": {("salesforce", "customer", "001XX0000ABCDEF"), ("revio", "customer", "1015")},
        },
    ),
}


def made_by_hand(crm: Crm, flow: str, number: int = 4712) -> dict[str, Any]:
    """The vendor's record of this flow's command, with this id, as somebody made it there."""
    illu, revio = crm.stack.illu, crm.stack.revio.account
    illu.next_id = illu.next_job_id = revio.next_id = number
    match flow:
        case "create_site":
            return illu.add_site(**{name: SITE[name] for name in ("name", "latitude", "longitude", "address")})
        case "create_job":
            job = {**JOB, "job_id": number, "notes": "Bring a ladder [CRM ticket T-501]", "created_at": illu._now()}
            illu.jobs.append(job)
            return job
    return revio.add_key_link(4, 2, 1015, "001XX0000ABCDEF")


@pytest.mark.parametrize("flow", list(ADOPTED))
def test_what_a_person_links_succeeds_and_is_linked(crm: Crm, flow: str) -> None:
    operation, (answer, links) = in_review(flow), ADOPTED[flow]
    made_by_hand(crm, flow)
    resolved = resolve(crm, operation, action="link", id="4712")
    assert resolved.status_code == 200
    shown = resolved.json()
    assert (shown["state"], shown["result"], shown["due_at"]) == ("succeeded", answer, None)
    assert (shown["last_attempt"]["event"], shown["last_attempt"]["reason"]) == ("linked", "by demo")
    for path, partners in links.items():
        assert links_of(crm, path) == partners
        system, entity, identity = path.split("/")
        end = {"system": system, "entity": entity, "id": identity}
        assert sum(end in link for link in shown["links"]) == len(partners)
    assert crm.get(f"/operations/{operation}").json() == shown | {"candidates": [], "exchanges": []}
    assert {call.method for call in (*crm.stack.illu.seen, *crm.stack.revio.seen)} == {"GET"}


def test_what_cannot_be_linked_stays_in_review(crm: Crm) -> None:
    wrong: dict[str, tuple[int, list[object]]] = {
        "create_site": (422, [None, "site 1", "0", "-1", "9" * 19, "٤", 0, "1" * 201]),
        "create_job": (422, [None, " ", "1" * 201, "not-a-job"]),
        "create_key_link": (422, [None, "abc", "007", "1.0", "999999"]),
        "status_update": (409, ["2"]),
    }
    for flow, (status, ids_sent) in wrong.items():
        operation = in_review(flow)
        for sent in ids_sent:
            decision = {} if sent is None else {"id": sent, "confirmed": True}
            assert resolve(crm, operation, action="link", **decision).status_code == status, (flow, sent)
        shown = crm.get(f"/operations/{operation}").json()
        assert (shown["state"], shown["links"], len(shown["attempts"])) == ("needs_review", [], 2)


def test_a_job_of_a_customer_without_a_site_cannot_be_linked(crm: Crm) -> None:
    job = {"ticket_id": "T-501", "customer_id": "C-1001", "name": JOB["name"]}
    operation = store("T-501", flow="create_job", payload=job)
    assert resolve(crm, operation, action="link", id="801").status_code == 409
    crm.create_site()
    made_by_hand(crm, "create_job", 801)
    assert resolve(crm, operation, action="link", id="801").json()["result"]["site_id"] == 4711


def test_an_id_that_is_linked_already_cannot_be_linked(crm: Crm) -> None:
    crm.create_site(customer_id="C-1")
    operation = in_review("create_site")
    assert resolve(crm, operation, action="link", id="4711").status_code == 409
    assert crm.get(f"/operations/{operation}").json()["state"] == "needs_review"
    assert links_of(crm, "crm/customer/C-1001") == set()


def effects(crm: Crm) -> dict[str, int]:
    """The records at the vendors, by flow."""
    stack = crm.stack
    return {
        "create_site": len(stack.illu.sites),
        "create_job": len(stack.illu.jobs),
        "create_key_link": len(stack.revio.account.key_links),
        "status_update": int(stack.izzitup.status_of("2") == "7"),
    }


@pytest.mark.parametrize("flow", FLOWS)
def test_what_a_person_sends_again_is_sent_once(crm: Crm, flow: str) -> None:
    if flow == "create_job":
        crm.create_site(customer_id="of the job")
    operation, before = in_review(flow), effects(crm)
    resolved = resolve(crm, operation, action="retry").json()
    assert (resolved["state"], resolved["last_attempt"]["event"]) == ("waiting", "retry requested")
    assert effects(crm) == before
    crm.stack.deliver_due()
    assert crm.get(f"/operations/{operation}").json()["state"] == "succeeded"
    assert effects(crm) == {**before, flow: before[flow] + 1}
    for decision in ({"action": "retry"}, {"action": "discard"}, {"action": "link", "id": "1"}):
        assert resolve(crm, operation, **decision).status_code == 409
    crm.stack.deliver_due()
    assert effects(crm) == {**before, flow: before[flow] + 1}


def test_what_a_person_discards_is_not_done_any_more(crm: Crm) -> None:
    reader = crm.with_key("operations:read", "operations:resolve", "operations:payload")
    before, discarded = effects(crm), set()
    for flow in FLOWS:
        operation = in_review(flow)
        assert reader.get(f"/operations/{operation}").json()["payload"] == COMMANDS[flow]
        resolved = resolve(reader, operation, action="discard").json()
        assert (resolved["state"], resolved["links"], resolved["due_at"]) == ("rejected", [], None)
        assert (resolved["last_attempt"]["event"], resolved["last_attempt"]["reason"]) == ("discarded", "by Ann")
        assert reader.get(f"/operations/{operation}").json()["payload"] is None
        discarded.add(operation)
    crm.stack.deliver_due(after=3600)
    assert effects(crm) == before
    assert set(ids(listed(crm, state="rejected"))) == discarded


def test_only_what_needs_review_can_be_resolved(crm: Crm) -> None:
    decisions = ({"action": "link", "id": "1"}, {"action": "retry"}, {"action": "discard"})
    for state in (state for state in State if state is not State.NEEDS_REVIEW):
        operation = store(state, state, payload=SITE)
        waits = state in (State.WAITING, State.UNCONFIRMED)
        for decision in (one for one in decisions if not (waits and one["action"] == "retry")):
            answer = resolve(crm, operation, **decision)
            assert answer.status_code == 409
            assert f"its state is {state}" in answer.json()["detail"]
        shown = crm.get(f"/operations/{operation}").json()
        assert (shown["state"], len(shown["attempts"])) == (state, 2)

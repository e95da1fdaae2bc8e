"""The flows that rest on more than the engine's writes, on ministack instead of moto: it checks expressions harder."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from local.events import load_event
from local.vendors.egito import CLUB
from local.vendors.simulator import Kind
from tests.integration.conftest import SITE, Crm
from tests.integration.ministack import ministack
from tests.stack import Stack

KEY_LINK = {"system": "SALESFORCE", "entity_type": "CUSTOMER", "internal_id": 1015, "external_id": "001XX0000ABCDEF"}


@pytest.fixture
def crm(tmp_path: Path) -> Iterator[Crm]:
    with ministack(tmp_path) as url, Stack(aws_endpoint=url, background=False) as stack:
        crm = Crm(stack)
        with crm.session:
            yield crm


def call(crm: Crm, method: str, path: str, body: object = None) -> requests.Response:
    return crm.session.request(method, crm.stack.url + path, json=body, headers=crm.headers, timeout=60)


def test_key_links_statuses_and_lists_are_the_same_on_another_dynamodb(crm: Crm) -> None:
    assert call(crm, "POST", "/key-links", KEY_LINK).status_code == 201
    assert call(crm, "POST", "/key-links", KEY_LINK).status_code == 200
    assert call(crm, "PUT", "/key-links/77", {**KEY_LINK, "internal_id": 1016}).status_code == 200
    assert {link["id"] for link in crm.get("/links/revio/key_link/77").json()["links"]} == {"1016", "001XX0000ABCDEF"}
    assert call(crm, "POST", "/key-links", KEY_LINK).json()["id"] == 78
    for _ in range(2):
        assert call(crm, "DELETE", "/key-links/77").status_code == 204
    assert crm.get("/links/revio/key_link/77").status_code == 404
    assert {link["id"] for link in crm.get("/links/revio/key_link/78").json()["links"]} == {"1015", "001XX0000ABCDEF"}

    outage = {"status": "outage", "occurred_at": "2024-05-05T10:00:00Z"}
    late = {"status": "impaired", "occurred_at": "2024-05-05T09:00:00Z"}
    assert call(crm, "PUT", "/services/MAIL/status", outage).status_code == 200
    assert call(crm, "PUT", "/services/2/status", late).json()["ignored"] == "older"
    crm.stack.izzitup.users = {"somebody": "else"}
    for _ in range(2):
        assert call(crm, "PUT", "/services/MAIL/status", {"status": "operational"}).status_code == 202
    assert crm.stack.izzitup.failed_sign_ins == 1

    found, going_on = [], ""
    while going_on is not None:
        page = crm.get(f"/operations?limit=1{going_on and f'&after={going_on}'}").json()
        found += [operation["operation_id"] for operation in page["operations"]]
        going_on = page["next"]
    whole = [operation["operation_id"] for operation in crm.get("/operations").json()["operations"]]
    assert len(set(found)) == len(found) == 9
    assert sorted(found) == sorted(whole)
    for flow in ("create_key_link", "change_key_link", "delete_key_link"):
        found = crm.get(f"/operations?flow={flow}&state=succeeded").json()["operations"]
        assert {operation["flow"] for operation in found} == {flow}


def test_links_are_undone_and_jobs_woken_the_same_on_another_dynamodb(crm: Crm) -> None:
    crm.stack.illu.fail(Kind.CLOSE_AFTER)
    site = crm.create_site()
    jobs = [
        crm.post("/jobs", {"ticket_id": f"T-{number}", "name": "Meter", "customer_id": SITE["customer_id"]})
        for number in range(3)
    ]
    assert [job.json()["state"] for job in jobs] == ["waiting"] * 3
    assert crm.settle(site)["last_attempt"]["event"] == "found"
    crm.stack.deliver_due(after=60)
    assert [crm.get(job.headers["Location"]).json()["state"] for job in jobs] == ["succeeded"] * 3

    path = f"{site.headers['Location']}/resolve"
    assert crm.post(path, {"action": "unlink"}).json()["state"] == "needs_review"
    assert crm.get("/links/crm/customer/C-1001").status_code == 404
    assert {link["entity"] for link in crm.get("/links/illu/site/4711").json()["links"]} == {"job"}
    assert crm.post(path, {"action": "link", "id": "4711"}).json()["state"] == "succeeded"
    assert crm.get("/links/crm/customer/C-1001").status_code == 200


def test_people_tokens_and_lead_sources_are_the_same_on_another_dynamodb(crm: Crm) -> None:
    club = f"/connector/clubs/{CLUB}"
    ada = {**json.loads(load_event("connector_receiver", "prospect")["body"]), "leadSource": "Website"}
    del ada["uuid"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: call(crm, "POST", f"{club}/prospects", ada), range(8)))
    assert {answer.status_code for answer in answers} <= {200, 201, 202}
    for answer in answers:
        if answer.status_code == 202:
            assert crm.settle(answer)["state"] == "succeeded"
    (record_id,) = {answer.json()["recordID"] for answer in answers}
    assert crm.stack.egito.token_requests == ["password"]
    named = {**ada, "lastname": "Kowalska", "email": "ada@mail.example", "uuid": "u-1"}
    crm.stack.egito.revoke()
    assert call(crm, "PUT", f"{club}/members/{record_id}", {**named, "userType": "MEMBER"}).status_code == 200
    again = call(crm, "POST", f"{club}/prospects", {**named, "uuid": "u-1"}).json()
    assert (again["recordID"], again["result"]) == (record_id, "WARNING")
    (record,) = crm.stack.egito.records["Contact"]
    assert (record["lastName"], record["type"]) == ("Kowalska", "MEMBER")
    assert len(crm.stack.egito.token_requests) == 2
    assert [call(crm, "POST", f"{club}/lead-sources", {"name": "Fair"}).status_code for _ in range(2)] == [201, 200]

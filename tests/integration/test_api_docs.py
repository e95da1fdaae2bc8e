"""docs/api.md shows what is answered, word for word but for times."""

import json
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import requests

from local.events import load_event
from local.stack import UPYA_KEY
from local.template import TEMPLATE
from local.vendors.egito import CLUB
from local.vendors.simulator import Kind
from tests.integration.conftest import Crm
from tests.integration.record_calls import change_tenant

SECTIONS = re.split(r"^## ", (TEMPLATE.parent / "docs/api.md").read_text(), flags=re.MULTILINE)
EXAMPLES = {
    section.partition("\n")[0]: [json.loads(shown) for shown in re.findall(r"```json\n(.*?)\n```", section, re.DOTALL)]
    for section in SECTIONS
}
KEY_LINK = {"system": "salesforce", "entity_type": "customer", "internal_id": 1015, "external_id": "001XX0000ABCDEF"}


def shown(section: str) -> list[Any]:
    (found,) = [examples for title, examples in EXAMPLES.items() if title.startswith(section)]
    return found


def without_times(value: Any) -> Any:
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(\+00:00|Z)", "TIME", json.dumps(value))
    text = re.sub(r'"request_id": "[0-9a-f-]{36}"', '"request_id": "ID"', text)
    return json.loads(re.sub(r"\.\d{10}\.op_", ".TIME.op_", text))


def body(answer: requests.Response) -> Any:
    return without_times(answer.json())


def has(answer: Any, example: Any) -> bool:
    """Lists may have more elements, and their elements more members, than is worth showing."""
    if isinstance(example, list):
        return all(any(within(element, wanted) for element in answer) for wanted in example)
    return bool(answer == example)


def within(answer: Any, example: Any) -> bool:
    if isinstance(example, dict):
        return all(name in answer and has(answer[name], value) for name, value in example.items())
    return bool(answer == example)


def test_the_examples_of_sites_operations_links_and_problems_are_what_is_answered(crm: Crm) -> None:
    crm.stack.illu.fail(Kind.UNAVAILABLE)
    accepted = crm.create_site()
    listed = crm.get("/operations?limit=1")
    made, waiting = without_times(shown("`POST /sites`"))
    assert body(accepted) == waiting
    assert [body(listed)] == without_times(shown("`GET /operations`"))
    crm.settle(accepted)
    assert body(crm.create_site()) == {name: made[name] for name in ("site_id", "customer_id", "operation_id")}
    assert [body(crm.get("/links/crm/customer/C-1001"))] == without_times(shown("`GET /links/{system}"))
    assert [body(crm.create_site(latitude=91))] == without_times(shown("Problems"))
    operation = body(crm.get(accepted.headers["Location"]))
    calls, example = without_times(shown("`GET /operations/{id}`"))
    assert set(operation) == set(example)
    assert operation["links"] == example["links"]
    assert set(operation["attempts"][0]) == set(example["attempts"][0])
    assert example["result"] == operation["result"]
    assert set(operation["exchanges"][0]) == set(calls["exchanges"][0]) - {"request", "response"}
    assert set(operation["exchanges"][0]["calls"][0]) == set(calls["exchanges"][0]["calls"][0])


def test_the_example_of_a_trial_is_what_is_answered(crm: Crm) -> None:
    answer = crm.post("/mappings/try", json.loads(load_event("operations", "try_mapping")["body"]))
    assert [answer.json()] == shown("`POST /mappings/try`")


def test_the_example_of_a_new_site_is_what_is_answered(crm: Crm) -> None:
    made, _ = without_times(shown("`POST /sites`"))
    assert body(crm.create_site()) == made


def test_the_examples_of_key_links_are_what_is_answered(crm: Crm) -> None:
    assert [crm.post("/key-links", KEY_LINK).json()] == shown("`POST /key-links`")
    for path, section in (
        ("/key-links", "`GET /key-links`"),
        ("/key-links/systems", "`GET /key-links/systems`"),
        ("/key-links/entity-types", "`GET /key-links/entity-types`"),
    ):
        (example,) = shown(section)
        answer = crm.get(path).json()
        assert set(answer) == set(example)
        assert within(answer, example)


def test_the_examples_of_services_are_what_is_answered(crm: Crm) -> None:
    (example,) = shown("`GET /services`")
    assert within(crm.get("/services").json(), example)
    (example,) = without_times(shown("`PUT /services"))
    sent = {"status": "outage", "occurred_at": "2024-05-05T10:00:00Z"}
    answer = crm.put("/services/MAIL/status", sent)
    assert within(body(answer), {name: value for name, value in example.items() if name != "operation_id"})


def test_the_examples_of_the_connector_are_what_is_answered(crm: Crm) -> None:
    club = f"/connector/clubs/{CLUB}"
    saved, warned, refused = shown("`POST /connector/clubs/{club_id}/prospects`")
    ada: dict[str, Any] = json.loads(load_event("connector_receiver", "prospect")["body"])
    first = crm.post(f"{club}/prospects", ada).json()
    second = crm.post(f"{club}/prospects", {**ada, "leadOwner": "nobody@club.example"}).json()
    for answer, example in ((first, saved), (second, warned)):
        assert {**answer, "recordID": "", "operation_id": ""} == {**example, "recordID": "", "operation_id": ""}
    del ada["userStatus"]
    assert body(crm.post(f"{club}/prospects", ada)) == without_times(refused)
    person = first["recordID"]
    linked = crm.get(f"/links/connector/person/{person}").json()["links"]
    assert {(link["system"], link["entity"]) for link in linked} == {
        (urlsplit(crm.stack.egito.url).netloc, "contact"),
        ("intouch", "person"),
    }
    assert crm.get(f"/links/intouch/person/{ada['uuid']}").json()["links"][0]["id"] == person
    for path in ("staff", "lead-sources"):
        (example,) = shown(f"`GET /connector/clubs/{{club_id}}/{path}`")
        assert within(crm.get(f"{club}/{path}").json(), example)
    record = crm.stack.egito.records["Contact"][0]["id"]
    assert [crm.get(f"{club}/check?prospect={record}").json()] == shown("`GET /connector/clubs/{club_id}/check`")
    (example,) = shown("`POST /connector/clubs/{club_id}/lead-sources`")
    made = crm.post(f"{club}/lead-sources", {"name": "Facebook"}).json()
    assert {**made, "id": ""} == {**example, "id": ""}


def test_the_examples_of_records_are_what_is_answered(crm: Crm) -> None:
    sent = {"external_id": "L-7001", "fields": {"firstName": "Iga", "lastName": "Lis"}}
    change = {"fields": {"phone": "600 300 401"}}
    host, record = urlsplit(crm.stack.egito.url).netloc, f"{crm.stack.url}/records/Lead/5001"
    for section, answer in (
        ("`POST /records/{entity}`", crm.post("/records/Lead", sent)),
        ("`GET /records/{entity}`", crm.get("/records/Lead?page_size=1")),
        ("`GET /records/{entity}/{id}`", crm.get("/records/Lead/5001")),
        ("`PUT /records/{entity}/{id}`", crm.session.put(record, json=change, headers=crm.headers, timeout=30)),
        ("`GET /dictionaries/{type}`", crm.get("/dictionaries/industry")),
    ):
        example, *_ = shown(section)
        answered = json.loads(answer.text.replace(host, "acme.egito.pl"))
        if section.startswith("`PUT"):  # the time of a change is in its id
            answered["operation_id"] = example["operation_id"]
        for record in answered.get("records", [answered]):  # a record has more fields than are worth showing
            if "fields" in record:
                record["fields"] = {name: record["fields"][name] for name in ("firstName", "lastName", "phone")}
        assert answered == example
    assert crm.get("/links/crm/lead/L-7001").json()["links"][0]["id"] == "5001"
    change_tenant(crm.stack, records={"Lead": {"reference": "externalId", "update": "apply"}})
    later = {**sent, "changed_at": datetime.now(UTC).isoformat(), "fields": {"lastName": "Lisowska"}}
    applied = json.loads(crm.post("/records/Lead", later).text.replace(host, "acme.egito.pl"))
    _, example = shown("`POST /records/{entity}`")
    assert applied | {"operation_id": ""} == example | {"operation_id": ""}


def test_the_example_of_a_mapping_is_what_is_answered(crm: Crm) -> None:
    (example,) = shown("Payload mapping")
    sent = {"clientNumber": "K-1", "profile": {"firstName": "Ann"}}
    answer = crm.post("/sites", sent, headers={"Authorization": f"Bearer {UPYA_KEY}"}).json()
    assert answer["mapping"]["received"] == example["mapping"]["received"]
    assert set(answer) == set(example)
    assert has(answer["errors"], example["errors"])

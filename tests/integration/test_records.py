"""Egito's records from a CRM's request to Egito and back: made once, read, listed, and nobody else's."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from connector_receiver import record_routes
from crm_bridge.runtime import runtime
from local.stack import SCOPES
from local.vendors.alterations import ALTERATIONS
from local.vendors.egito import CLUB, EgitoSimulator
from local.vendors.simulator import Kind
from tests.integration.conftest import ROUNDS, Crm, rows
from tests.integration.egito.conftest import Wire
from tests.integration.record_calls import (
    JAN,
    call,
    change,
    change_tenant,
    create,
    created,
    delete,
    linked,
    records,
    resolve,
    system,
    the_record,
    without_reference,
)
from tests.variants import some

CALLS: list[Callable[[Crm], requests.Response]] = [
    create,
    lambda crm: change(crm, "5001", {"phone": "1"}),
    lambda crm: delete(crm, "5001"),
    lambda crm: crm.get("/records/Contact"),
    lambda crm: crm.get("/records/Contact/5001"),
    lambda crm: crm.get("/dictionaries/industry"),
]
"""One for each route."""
WRITES = CALLS[:3]


# ---------------------------------------------------------------- made once


def test_a_record_is_made_and_linked_both_ways(crm: Crm) -> None:
    answer = create(crm)
    assert answer.status_code == 201
    made = answer.json()
    assert {**made, "operation_id": ""} == {
        "system": system(crm.stack),
        "entity": "Contact",
        "id": "5001",
        "operation_id": "",
    }
    record = the_record(crm.stack)
    assert {name: record[name] for name in JAN} == JAN
    assert record["externalId"] == "A-1"
    assert linked(crm, "crm", "contact", "A-1") == [f"{system(crm.stack)}/contact/5001"]
    assert linked(crm, system(crm.stack), "contact", "5001") == ["crm/contact/A-1"]


@pytest.mark.parametrize(("key", "external_id"), [("K-1", None), (None, "A-1"), ("K-1", "A-1")])
def test_the_same_event_again_makes_nothing(crm: Crm, key: str | None, external_id: str | None) -> None:
    first = create(crm, key=key, external_id=external_id)
    again = create(crm, key=key, external_id=external_id)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert the_record(crm.stack)["externalId"] == (key or external_id)


@pytest.mark.parametrize(
    ("quoted", "key"),
    [
        ('"8e03978e-40d5-43dd-bc93-6894a57f9324"', "8e03978e-40d5-43dd-bc93-6894a57f9324"),  # the draft's own example
        (r'"a\"b"', 'a"b'),
        (r'"a\\b"', r"a\b"),
        (r'"a\\\"b"', r"a\"b"),
        ('"K 1"', "K 1"),
    ],
)
def test_the_key_is_the_same_with_quotes_and_without(crm: Crm, quoted: str, key: str) -> None:
    """Source of the escapes: https://www.rfc-editor.org/rfc/rfc9651#section-3.3.3"""
    assert create(crm, key=quoted).status_code == 201
    assert create(crm, key=key).status_code == 200
    assert the_record(crm.stack)["externalId"] == key


def test_events_of_two_keys_are_two_records(crm: Crm) -> None:
    assert created(crm, key="K-1", external_id=None) != created(crm, key="K-2", external_id=None)
    assert len(records(crm.stack)) == 2


def test_another_key_for_what_is_linked_already_makes_no_second_record(crm: Crm) -> None:
    first = created(crm, key="K-1")
    again = create(crm, key="K-2")
    assert (again.status_code, again.json()["id"]) == (200, first)
    assert len(records(crm.stack)) == 1


def test_an_entity_is_part_of_the_key(crm: Crm) -> None:
    created(crm, key="K-1")
    assert create(crm, {"lastName": "Lis"}, "Lead", key="K-1").status_code == 201


def test_the_same_event_with_another_payload_is_not_sent(crm: Crm) -> None:
    created(crm)
    again = create(crm, {**JAN, "phone": "2"})
    assert (again.status_code, again.json()["changed"]) == (200, True)
    assert the_record(crm.stack)["phone"] == JAN["phone"]


@pytest.mark.usefixtures("eager_switches")
def test_twenty_identical_requests_at_once_make_one_record_round_after_round(crm: Crm) -> None:
    with ThreadPoolExecutor(20) as pool:
        for number in range(ROUNDS):
            external_id = f"A-{number}"
            answers = list(pool.map(lambda _, one=external_id: create(crm, external_id=one), range(20)))
            statuses = Counter(answer.status_code for answer in answers)
            assert statuses[201] == 1, statuses
            assert statuses[200] + statuses[409] == 19, statuses
            assert len(records(crm.stack)) == number + 1


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"fields": JAN}, ["external_id"]),
        ({"external_id": "A-1"}, ["fields"]),
        ({"external_id": "A-1", "fields": {}}, ["fields"]),
        ({"external_id": "A-1", "fields": {"id": 7, "lastName": "Lis"}}, ["fields"]),
        ({"external_id": "A-1", "fields": {"last name": "Lis"}}, ["fields.last name.[key]"]),
        ({"external_id": "A-1", "fields": {f"f{number}": "" for number in range(201)}}, ["fields"]),
        ({"external_id": "undefined", "fields": JAN}, ["external_id"]),
        ({"external_id": 201 * "A", "fields": JAN}, ["external_id"]),
        ({"external_id": "A-1", "fields": JAN, "entity": "Contact"}, ["entity"]),
    ],
)
def test_is_422_and_nothing_is_sent_when_a_body_is_wrong(crm: Crm, body: object, wrong: list[str]) -> None:
    answer = call(crm, "POST", "/records/Contact", body)
    assert (answer.status_code, [error["field"] for error in answer.json()["errors"]]) == (422, wrong)
    assert (crm.stack.egito.seen, rows("OPERATIONS_TABLE")) == ([], [])


@pytest.mark.parametrize("key", ["", '""', "null", 201 * "K", "a\u00adb"])
def test_is_422_when_the_idempotency_key_is_none(crm: Crm, key: str) -> None:
    headers = {"Idempotency_Key": key.encode().decode("latin-1")}
    answer = call(crm, "POST", "/records/Contact", {"external_id": "A-1", "fields": JAN}, **headers)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "Idempotency-Key")
    assert records(crm.stack) == []


@pytest.mark.parametrize("route", range(5))
@pytest.mark.parametrize("entity", ["User", "contact", "SelectDictionary", "Contact%20"])
def test_is_404_when_the_tenant_does_not_allow_the_entity(crm: Crm, entity: str, route: int) -> None:
    path = f"/records/{entity}"
    answers = [
        lambda: call(crm, "POST", path, {"external_id": "A-1", "fields": JAN}),
        lambda: call(crm, "PUT", f"{path}/7", {"fields": JAN}),
        lambda: call(crm, "DELETE", f"{path}/7"),
        lambda: call(crm, "GET", path),
        lambda: call(crm, "GET", f"{path}/7"),
    ]
    answer = answers[route]()
    assert answer.status_code == 404
    assert "egito.records" in answer.json()["detail"]
    assert crm.stack.egito.seen == []


def test_is_404_when_a_record_is_not_there(crm: Crm) -> None:
    for answer in (crm.get("/records/Contact/7"), change(crm, "7", {"phone": "1"}), delete(crm, "7")):
        assert (answer.status_code, "Object not found" in answer.json()["detail"]) == (404, True)


@pytest.mark.parametrize("name", ["a%20b", "1st", "in%2Fdustry", 101 * "a"])
def test_is_404_when_a_dictionary_s_type_is_no_name(crm: Crm, name: str) -> None:
    assert crm.get(f"/dictionaries/{name}").status_code == 404
    assert crm.stack.egito.seen == []


@pytest.mark.parametrize("status", [200, 400, 422])
@pytest.mark.parametrize(
    ("shape", "errors"),
    [
        ("objects", [{"field": "lastName", "message": "may not be empty"}]),
        ("default_messages", [{"field": "lastName", "message": "may not be empty"}]),
        ("strings", None),  # which do not say what is the field
    ],
)
def test_egito_s_errors_are_those_of_the_problem(crm: Crm, shape: Any, errors: object, status: int) -> None:
    crm.stack.egito.error_shape, crm.stack.egito.error_status = shape, status
    record_id = str(crm.stack.egito.add("Contact", lastName="Lis")["id"])
    for answer in (create(crm, {"firstName": "Jan"}), change(crm, record_id, {"lastName": ""})):
        problem = answer.json()
        assert (answer.status_code, problem["type"]) == (422, "urn:crm-bridge:problem:refused-by-vendor")
        assert problem["detail"] == "Egito: lastName: may not be empty"
        assert problem.get("errors") == errors
    assert the_record(crm.stack)["lastName"] == "Lis"


# ---------------------------------------------------------------- a response was lost


@pytest.mark.parametrize("kind", [Kind.CLOSE_AFTER, Kind.ERROR_AFTER, Kind.CLOSE_BEFORE, Kind.ERROR_BEFORE])
def test_a_record_whose_response_was_lost_is_found_by_its_reference_or_made(crm: Crm, kind: Kind) -> None:
    """Somebody has made a record by hand: it has no reference, and is not taken for this one."""
    crm.stack.egito.add("Contact", lastName="Wrona", firstName="Ola")
    crm.stack.egito.fail(kind)
    accepted = create(crm, key="K-1")
    assert (accepted.status_code, accepted.json()["state"]) == (202, "unconfirmed")

    assert crm.settle(accepted)["state"] == "succeeded"

    (_, ours) = records(crm.stack)
    assert (ours["lastName"], ours["externalId"]) == ("Lis", "K-1")
    assert linked(crm, "crm", "contact", "A-1") == [f"{system(crm.stack)}/contact/{ours['id']}"]
    assert create(crm, key="K-1").json()["id"] == str(ours["id"])


@pytest.mark.parametrize("kind", [Kind.CLOSE_AFTER, Kind.CLOSE_BEFORE])
def test_a_person_decides_when_there_is_no_reference(crm: Crm, kind: Kind) -> None:
    """Nothing tells this record from another one, so that it is neither linked nor sent again."""
    without_reference(crm.stack)
    crm.stack.egito.fail(kind)
    operation = crm.settle(create(crm))
    assert operation["state"] == "needs_review"
    assert len(records(crm.stack)) == (1 if kind is Kind.CLOSE_AFTER else 0)


def test_a_person_links_what_was_found_when_there_is_no_reference(crm: Crm) -> None:
    without_reference(crm.stack)
    crm.stack.egito.fail(Kind.CLOSE_AFTER)
    operation = crm.settle(create(crm))["operation_id"]
    shown = crm.get(f"/operations/{operation}").json()
    assert [candidate["id"] for candidate in shown["candidates"]] == ["5001"]
    decision: dict[str, Any] = {"action": "link", "id": "5001"}
    unconfirmed = resolve(crm, operation, **decision)
    assert (unconfirmed.status_code, unconfirmed.json()["errors"][0]["field"]) == (422, "confirmed")
    assert resolve(crm, operation, **decision, confirmed=True).status_code == 200
    assert linked(crm, "crm", "contact", "A-1") == [f"{system(crm.stack)}/contact/5001"]


def test_the_record_that_a_person_names_is_verified_by_its_reference(crm: Crm) -> None:
    change_tenant(crm.stack, lists_everything=False)
    crm.stack.egito.list_limit = 0
    crm.stack.egito.fail(Kind.CLOSE_AFTER)
    operation = crm.settle(create(crm))["operation_id"]
    anothers = str(crm.stack.egito.add("Contact", lastName="Lis", externalId="A-2")["id"])
    nobodys = str(crm.stack.egito.add("Contact", lastName="Lis")["id"])
    for record_id, field in ((anothers, "id"), ("404", "id"), (nobodys, "confirmed")):
        answer = resolve(crm, operation, action="link", id=record_id)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field), record_id
    assert resolve(crm, operation, action="link", id="5001").status_code == 200
    assert linked(crm, "crm", "contact", "A-1") == [f"{system(crm.stack)}/contact/5001"]


KEY = (
    "Zam\N{LATIN SMALL LETTER O WITH ACUTE}wienie \N{GRINNING FACE} <b>7</b>  d\N{RIGHT SINGLE QUOTATION MARK}Arc & "
    + 30 * "x"
)


@pytest.mark.parametrize("alteration", some(list(ALTERATIONS)))
def test_no_second_record_is_made_when_egito_alters_what_it_stores(crm: Crm, alteration: str) -> None:
    crm.stack.egito.alterations = [ALTERATIONS[alteration]]
    crm.stack.egito.fail(Kind.CLOSE_AFTER)
    accepted = create(crm, {**JAN, "lastName": "L\N{GRINNING FACE}s"}, external_id=KEY)
    assert crm.settle(accepted)["state"] in ("succeeded", "needs_review")
    assert len(records(crm.stack)) == 1


# ---------------------------------------------------------------- on the wire


@pytest.mark.parametrize(("body_format", "kind"), [("json", "application/json"), ("form", "application/x-www-form")])
def test_egito_gets_json_or_a_form(crm: Crm, monkeypatch: pytest.MonkeyPatch, body_format: str, kind: str) -> None:
    change_tenant(crm.stack, body_format=body_format)
    wire = Wire(crm.stack.egito, monkeypatch)
    record_id = created(crm)
    assert change(crm, record_id, {"city": "Żory & co"}).status_code == 200
    written = [str(asked.kind) for asked in wire.asked if "/Contact/" in asked.path and asked.body]
    assert [one.startswith(kind) for one in written] == [True, True]
    assert the_record(crm.stack) | JAN | {"city": "Żory & co"} == the_record(crm.stack)
    assert delete(crm, record_id).status_code == 204
    assert records(crm.stack) == []


@pytest.mark.parametrize("route", range(len(CALLS)))
def test_a_response_is_json_whatever_is_accepted(crm: Crm, route: int) -> None:
    crm.headers["Accept"] = "application/xml"
    created(crm)
    for answer in (CALLS[route](crm), crm.get("/records/User")):
        assert not answer.content or answer.headers["Content-Type"] in ("application/json", "application/problem+json")


# ---------------------------------------------------------------- reading


@pytest.fixture(params=[None, {"page": "page", "size": "size"}, {"page": "p", "size": "s", "page_size": 1000}])
def five(crm: Crm, request: pytest.FixtureRequest) -> Crm:
    """An Egito with five contacts, with and without pages."""
    if request.param:
        change_tenant(crm.stack, paging=request.param)
        crm.stack.egito.page_parameters = request.param["page"], request.param["size"]
    for number in range(5):
        crm.stack.egito.add("Contact", lastName=f"Lis {number}")
    return crm


@pytest.mark.parametrize(
    ("query", "numbers", "has_more"),
    [
        ("", [0, 1, 2, 3, 4], False),
        ("?page_size=2", [0, 1], True),
        ("?page=2&page_size=2", [2, 3], True),
        ("?page=3&page_size=2", [4], False),
        ("?page=4&page_size=2", [], False),
    ],
)
def test_a_list_comes_in_pages(five: Crm, query: str, numbers: list[int], *, has_more: bool) -> None:
    answer = five.get(f"/records/Contact{query}").json()
    assert [record["fields"]["lastName"] for record in answer["records"]] == [f"Lis {number}" for number in numbers]
    assert {record["entity"] for record in answer["records"]} <= {"Contact"}
    assert all(record["id"] and "id" not in record["fields"] for record in answer["records"])
    assert answer["has_more"] is has_more


@pytest.mark.parametrize("query", ["page=0", "page_size=0", "page_size=201", "page=a", "filter=x"])
def test_is_422_when_a_page_is_none(crm: Crm, query: str) -> None:
    answer = crm.get(f"/records/Contact?{query}")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, query.partition("=")[0])


def test_is_422_when_records_are_more_than_can_be_returned(five: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_routes, "LARGEST_RESPONSE", 2000)
    answer = five.get("/records/Contact")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "page_size")
    assert five.get("/records/Contact?page_size=1").status_code == 200


def test_nothing_that_was_read_is_kept_or_logged(crm: Crm, capsys: pytest.CaptureFixture[str]) -> None:
    secrets = ("Tajemnica", "ul. Cicha 4", "Nowy Targ", "+48 999")
    record = crm.stack.egito.add("Contact", lastName=secrets[0], street=secrets[1])
    crm.stack.egito.dictionaries["industry"].append({"id": 99, "name": secrets[2]})
    assert secrets[0] in crm.get("/records/Contact").text
    assert secrets[1] in crm.get(f"/records/Contact/{record['id']}").text
    assert secrets[2] in crm.get("/dictionaries/industry").text
    assert change(crm, str(record["id"]), {"phone": secrets[3]}).status_code == 200
    assert create(crm, {"lastName": secrets[0]}).status_code == 201
    stored, logged = crm.stored(), capsys.readouterr()
    assert [secret for secret in secrets if secret in stored] == []
    assert [secret for secret in secrets if secret in logged.out + logged.err] == []


# ---------------------------------------------------------------- whose records


@pytest.fixture
def other(crm: Crm) -> Iterator[Crm]:
    """The CRM of another tenant, with an Egito of its own."""
    egito = EgitoSimulator()
    egito.start()
    change_tenant(crm.stack, "other", base_url=egito.url)
    yield crm.with_key(*SCOPES, tenant="other")
    egito.stop()


def test_another_tenant_s_key_reads_and_changes_nothing(crm: Crm, other: Crm) -> None:
    record_id = created(crm)
    before = dict(the_record(crm.stack))
    for answer in (
        other.get(f"/records/Contact/{record_id}"),
        change(other, record_id, {"phone": "1"}),
        delete(other, record_id),
        other.get("/links/crm/contact/A-1"),
    ):
        assert answer.status_code == 404
    assert other.get("/records/Contact").json()["records"] == []
    assert create(other).status_code == 201
    assert delete(other, "5001").status_code == 204
    assert the_record(crm.stack) == before
    assert linked(crm, "crm", "contact", "A-1") == [f"{system(crm.stack)}/contact/{record_id}"]
    assert create(crm).status_code == 200


@pytest.mark.parametrize("route", range(len(CALLS)))
def test_is_403_when_the_key_lacks_the_scope(crm: Crm, route: int) -> None:
    assert CALLS[route](crm.with_key(*SCOPES - {"records"})).status_code == 403
    assert (crm.stack.egito.seen, rows("OPERATIONS_TABLE")) == ([], [])


def test_the_scope_of_records_is_not_the_connector_s(crm: Crm) -> None:
    caller = crm.with_key("records")
    assert create(caller).status_code == 201
    assert caller.get(f"/connector/clubs/{CLUB}/staff").status_code == 403


@pytest.mark.parametrize("route", range(len(WRITES)))
def test_is_503_and_nothing_is_kept_when_the_tenant_has_no_egito(crm: Crm, route: int) -> None:
    crm.stack.put_secret("demo", "{}")
    runtime().engine.tenants.get("demo", "connector_receiver", fresh=True)
    assert WRITES[route](crm).status_code == 503
    assert rows("OPERATIONS_TABLE") == []


def test_a_key_that_egito_returns_as_a_number_is_recognised(crm: Crm) -> None:
    crm.stack.egito.fail(Kind.CLOSE_AFTER)
    accepted = create(crm, key="12345")
    the_record(crm.stack)["externalId"] = 12345
    settled = crm.settle(accepted)
    assert (settled["state"], settled["result"]["id"]) == ("succeeded", str(the_record(crm.stack)["id"]))

"""The bridge's data about a customer, a ticket or a person are erased, and all of a tenant's."""

import json
import os
import re
import time
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from crm_bridge.engine import KEEP
from crm_bridge.engine.review import Review
from crm_bridge.errors import StorageError
from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import Operation
from crm_bridge.tenants import SECRET_MAX_AGE
from local.stack import DEMO_TENANT
from local.vendors.simulator import Kind
from tests.integration.conftest import SITE, CommandLine, Crm, cold
from tests.integration.connector.conftest import ADA, save, saved
from tests.integration.operations.conftest import JOB, KEY_LINK
from tests.integration.record_calls import ASYNC, change, create, created, delete, system

CUSTOMER = str(SITE["customer_id"])
TICKET = str(JOB["ticket_id"])
PERSONAL = (*map(str, (SITE["name"], SITE["address"])), CUSTOMER, TICKET, *map(str, (JOB["name"], JOB.get("notes"))))


def a_customer_with_a_job(crm: Crm) -> None:
    assert crm.create_site().status_code == 201
    assert crm.post("/jobs", JOB).status_code == 201


def test_all_that_belongs_to_a_customer_is_erased(crm: Crm, cli: CommandLine) -> None:
    a_customer_with_a_job(crm)
    result = cli("forget", "demo", CUSTOMER, "--yes", "--json")
    assert result.code == 0, result
    assert result.json == {
        "tenant": "demo",
        "ids": [f"crm/customer/{CUSTOMER}", "illu/site/4711", "illu/job/801", f"crm/ticket/{TICKET}"],
        "operations": 2,
        "links": result.json["links"],
        "people": 0,
        "requests": 0,
        "stays_at_vendors": ["illu/site/4711", "illu/job/801"],
        "linked_and_not_erased": [],
    }
    stored = crm.stored()
    assert [text for text in PERSONAL if text in stored] == []
    assert cli("forget", "demo", CUSTOMER, "--yes").code == 2
    assert crm.get(f"/links/crm/customer/{CUSTOMER}").status_code == 404
    assert cli("forget", "demo", CUSTOMER, "--yes", "--json").json["requests"] == 1  # that somebody looked for it


def test_an_event_that_comes_again_after_it_was_erased_is_not_sent(crm: Crm, cli: CommandLine) -> None:
    a_customer_with_a_job(crm)
    assert cli("forget", "demo", CUSTOMER, "--yes").code == 0
    for again in (crm.create_site(), crm.create_site(name="Another"), crm.post("/jobs", JOB)):
        assert again.status_code == 410
        assert (again.json()["type"], again.json()["retryable"]) == ("urn:crm-bridge:problem:erased", False)
    place = {name: SITE[name] for name in ("name", "latitude", "longitude", "address")}
    other = crm.post("/jobs", {"ticket_id": "T-9", "name": "Meter", "customer_id": CUSTOMER, "site": place})
    assert (other.status_code, "erased" in other.json()["detail"]) == (422, True)
    assert (len(crm.stack.illu.sites), len(crm.stack.illu.jobs)) == (1, 1)


def test_nothing_is_left_of_an_erased_event_after_ninety_days(crm: Crm, cli: CommandLine) -> None:
    a_customer_with_a_job(crm)
    assert cli("forget", "demo", CUSTOMER, "--yes").code == 0
    now = runtime().clock()
    for item in json.loads(crm.stored())[os.environ["OPERATIONS_TABLE"]]:
        assert int(item["expires_at"]["N"]) == pytest.approx(now + KEEP, abs=60)


def test_a_ticket_is_erased_without_its_customer(crm: Crm, cli: CommandLine) -> None:
    a_customer_with_a_job(crm)
    result = cli("forget", "demo", f"crm/ticket/{TICKET}", "--yes", "--json")
    assert result.json["linked_and_not_erased"] == ["illu/site/4711"]
    assert TICKET not in crm.stored()
    assert crm.get(f"/links/crm/customer/{CUSTOMER}").json()["links"][0]["id"] == "4711"
    assert crm.create_site().status_code == 200


def test_what_was_refused_is_erased_and_may_come_again(
    crm: Crm, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    crm.stack.illu.fail(Kind.UNAVAILABLE)
    accepted = crm.create_site()
    monkeypatch.setattr(crm.stack.illu, "longest_name", 5)
    assert crm.settle(accepted)["state"] == "rejected"
    assert SITE["name"] in crm.stored()  # the payload of what was accepted is kept for whoever asks
    assert cli("forget", "demo", CUSTOMER, "--yes").code == 0
    assert CUSTOMER not in crm.stored()
    assert crm.create_site(name="Shop").status_code == 201


def test_nothing_is_erased_while_an_event_has_not_ended(crm: Crm, cli: CommandLine) -> None:
    a_customer_with_a_job(crm)
    crm.stack.illu.fail(Kind.UNAVAILABLE)
    waiting = crm.create_site(customer_id="C-2").json()["operation_id"]
    result = cli("forget", "demo", "C-2", "--yes")
    assert (result.code, waiting in result.err) == (2, True)
    assert "C-2" in crm.stored()


def test_a_person_is_erased_with_saves_and_hashes(crm: Crm, cli: CommandLine) -> None:
    other = saved(crm, firstname="Grace", email="g@example.org", mobile="1", uuid="u-2")
    person = saved(crm)
    result = cli("forget", "demo", f"connector/person/{person}", "--yes", "--json")
    assert (result.code, result.json["people"]) == (0, 1)
    assert person not in crm.stored()
    assert other in crm.stored()
    assert save(crm, person).status_code == 404
    assert saved(crm) != person  # somebody new


def test_a_webhook_about_a_save_that_was_not_delivered_is_erased_with_the_person(crm: Crm, cli: CommandLine) -> None:
    document = {**json.loads(crm.stack.demo_tenant()), "webhook": json.loads(crm.stack.webhook_tenant())["webhook"]}
    crm.stack.put_secret(DEMO_TENANT, json.dumps(document))
    cold(crm.stack)
    person = saved(crm)
    crm.stack.receiver.refuses_with = 410
    crm.headers |= ASYNC
    assert save(crm, person, city="Gdynia").status_code == 202
    crm.stack.deliver()
    assert crm.get("/operations?flow=webhook").json()["operations"][0]["state"] == "rejected"
    forget = ("forget", "demo", f"connector/person/{person}", "--yes")
    assert cli(*forget).code == 0
    assert person not in crm.stored()


@pytest.mark.parametrize("erased", [1, 2, 3])
def test_the_same_command_erases_the_rest_when_it_was_interrupted(
    crm: Crm, cli: CommandLine, monkeypatch: pytest.MonkeyPatch, erased: int
) -> None:
    """The customer's site leads to its jobs."""
    a_customer_with_a_job(crm)
    for number in (1, 2):
        assert crm.post("/jobs", {**JOB, "ticket_id": f"{TICKET}-{number}"}).status_code == 201
    erase = Review.erase
    done: list[Operation] = []

    def interrupted(review: Review, ended: Operation, *, by: str) -> None:
        if len(done) == erased:
            raise StorageError("no")
        done.append(ended)
        erase(review, ended, by=by)

    monkeypatch.setattr(Review, "erase", interrupted)
    assert cli("forget", "demo", CUSTOMER, "--yes").code == 3
    monkeypatch.undo()
    assert cli("forget", "demo", CUSTOMER, "--yes").code == 0
    stored = crm.stored()
    assert [text for text in PERSONAL if text in stored] == []


def a_changed_record(crm: Crm, external_id: str, *, key: str | None = None) -> str:
    """The id of a record of Egito that was made, and changed at once and from the queue."""
    record_id = created(crm, {"lastName": "Lis", "notes": f"of {external_id}"}, external_id=external_id, key=key)
    assert change(crm, record_id, {"phone": "1"}).status_code == 200
    later = change(crm, record_id, {"phone": "2"}, **ASYNC)
    crm.stack.deliver()
    assert crm.get(later.headers["Location"]).json()["state"] == "succeeded"
    return record_id


@pytest.mark.parametrize("key", [None, "8e03978e"])
@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_record_of_egito_is_erased_with_its_changes_and_its_deletion(
    crm: Crm, cli: CommandLine, key: str | None, *, is_deleted: bool
) -> None:
    other, record_id = a_changed_record(crm, "A-2"), a_changed_record(crm, "A-1", key=key)
    if is_deleted:
        assert delete(crm, record_id).status_code == 204
    result = cli("forget", "demo", "crm/contact/A-1", "--yes", "--json")
    assert (result.code, result.json["operations"]) == (0, 4 if is_deleted else 3), result
    stored = crm.stored()
    # As words: a number of four digits may be a part of a hash or of a time.
    assert [text for text in ("A-1", record_id, "8e03978e") if re.search(rf"\b{text}\b", stored)] == []
    assert ("A-2" in stored, other in stored) == (True, True)
    assert create(crm, external_id="A-1", key=key).status_code == 410
    assert change(crm, other, {"phone": "3"}).status_code == 200


def test_a_record_of_egito_is_erased_by_egito_s_id_too(crm: Crm, cli: CommandLine) -> None:
    record_id = a_changed_record(crm, "A-1")
    result = cli("forget", "demo", f"{system(crm.stack)}/contact/{record_id}", "--yes", "--json")
    assert (result.code, result.json["operations"]) == (0, 3)
    assert "A-1" not in crm.stored()


def test_a_record_that_egito_refused_later_is_erased(crm: Crm, cli: CommandLine) -> None:
    crm.stack.egito.fail(Kind.UNAVAILABLE)
    accepted = create(crm, {"firstName": "Jan"}, external_id="A-1", key="8e03978e")
    assert crm.settle(accepted)["state"] == "rejected"
    assert "Jan" in crm.stored()
    assert cli("forget", "demo", "crm/contact/A-1", "--yes").code == 0
    assert [text for text in ("A-1", "Jan", "8e03978e") if text in crm.stored()] == []


def test_a_dry_run_erases_nothing(crm: Crm, cli: CommandLine) -> None:
    a_customer_with_a_job(crm)
    before = crm.stored()
    assert cli("forget", "demo", CUSTOMER, "--dry-run").code == 0
    assert crm.stored() == before


@pytest.mark.parametrize("wanted", ["C-404", "crm/customer/C-404", "a/b/c/d", "", "op_0"])
def test_an_unknown_id_is_said_to_be_unknown(cli: CommandLine, wanted: str) -> None:
    result = cli("forget", "demo", wanted, "--yes")
    assert (result.code, "No data found" in result.err) == (2, True)


def test_an_id_of_two_records_has_to_be_given_with_its_kind(crm: Crm, cli: CommandLine) -> None:
    crm.create_site(customer_id="X-1")
    crm.post("/jobs", {**JOB, "ticket_id": "X-1"})
    result = cli("forget", "demo", "X-1", "--yes")
    assert (result.code, "crm/customer/X-1, crm/ticket/X-1" in result.err) == (2, True)


def test_another_tenants_data_stay(crm: Crm, cli: CommandLine) -> None:
    a_customer_with_a_job(crm)
    result = cli("forget", "demo-upya", CUSTOMER, "--yes")
    assert result.code == 2
    assert CUSTOMER in crm.stored()


def test_an_event_whose_key_looks_erased_is_an_event(crm: Crm) -> None:
    assert crm.create_site(customer_id="(erased)").status_code == 201
    assert crm.create_site(customer_id="(erased)").status_code == 200


def test_a_forgotten_key_link_is_not_made_again_and_another_is(crm: Crm, cli: CommandLine) -> None:
    assert crm.post("/key-links", KEY_LINK).status_code == 201
    assert cli("forget", "demo", f"salesforce/customer/{KEY_LINK['external_id']}", "--yes").code == 0
    assert KEY_LINK["external_id"] not in crm.stored()
    assert crm.post("/key-links", KEY_LINK).status_code == 410
    assert crm.post("/key-links", {**KEY_LINK, "external_id": "001-other"}).status_code == 201


# ---------------------------------------------------------------- a whole tenant


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr("cli.tenants.time", SimpleNamespace(sleep=waited.append))
    return waited


def everything(crm: Crm) -> None:
    a_customer_with_a_job(crm)
    saved(crm)
    assert crm.create_site(name=None).status_code == 422
    crm.stack.illu.fail(Kind.UNAVAILABLE)
    crm.create_site(customer_id="C-2")
    crm.post("/key-links", {"system": "SALESFORCE", "entity_type": "CUSTOMER", "internal_id": 1015, "external_id": "X"})


def test_a_purged_tenant_leaves_nothing(crm: Crm, cli: CommandLine, waits: list[float]) -> None:
    everything(crm)
    result = cli("tenant", "remove", DEMO_TENANT, "--purge", "--force", "--yes", "--json")
    assert result.code == 0, result
    assert sum(waits) == SECRET_MAX_AGE
    assert all(number for number in result.json["erased"].values()), result.json
    stored: dict[str, list[Any]] = json.loads(crm.stored())
    left = json.dumps(stored)
    ours = (*PERSONAL, *map(str, ADA.values()), f'"{DEMO_TENANT}"', f'"{DEMO_TENANT}#')
    assert [text for text in ours if text in left] == []
    assert stored[os.environ["API_KEYS_TABLE"]]  # the other tenants' stay
    assert crm.create_site().status_code == 401


def test_a_tenant_can_be_purged_after_it_was_removed(crm: Crm, cli: CommandLine, waits: list[float]) -> None:
    a_customer_with_a_job(crm)
    assert cli("tenant", "remove", DEMO_TENANT, "--yes").code == 0
    assert CUSTOMER in crm.stored()
    assert cli("tenant", "remove", DEMO_TENANT, "--purge", "--yes").code == 0
    assert waits == []  # its keys were revoked before
    assert CUSTOMER not in crm.stored()


def is_being_sent(operation: str, *, until: int) -> None:
    boto3.resource("dynamodb").Table(os.environ["OPERATIONS_TABLE"]).update_item(
        Key={"operation_id": operation},
        UpdateExpression="SET #state = :sending, due_at = :until",
        ExpressionAttributeNames={"#state": "state"},
        ExpressionAttributeValues={":sending": "sending", ":until": until},
    )


def test_what_is_being_sent_stays_until_its_lease_is_over(crm: Crm, cli: CommandLine, waits: list[float]) -> None:
    operation, now = crm.create_site().json()["operation_id"], int(time.time())
    is_being_sent(operation, until=now + 300)
    purge = ("tenant", "remove", DEMO_TENANT, "--purge", "--force", "--yes")
    assert cli(*purge).code == 0
    assert operation in crm.stored()
    is_being_sent(operation, until=now - 1)
    assert cli(*purge).code == 0
    assert operation not in crm.stored()
    assert sum(waits) == SECRET_MAX_AGE

"""Egito's records are changed and deleted: each field by the last request, one change at a time, and once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import sleep
from typing import Any

import pytest
import requests

from crm_bridge.errors import NotDoneError
from crm_bridge.outbound.queues import Message
from crm_bridge.runtime import runtime
from crm_bridge.vendors.egito import VENDOR, Egito
from local.vendors.simulator import Kind
from tests.integration.conftest import Crm, rows
from tests.integration.connector import conftest as people
from tests.integration.record_calls import (
    ASYNC,
    JAN,
    change,
    change_tenant,
    create,
    created,
    delete,
    linked,
    records,
    system,
    the_record,
)

LOST = [Kind.CLOSE_AFTER, Kind.ERROR_AFTER, Kind.CLOSE_BEFORE, Kind.UNAVAILABLE]


def process(crm: Crm, accepted: requests.Response) -> dict[str, Any]:
    """Let one operation be sent now, and no other; and show it."""
    operation = runtime().operations.get(accepted.json()["operation_id"])
    assert operation
    message = Message(operation.operation_id, "demo", operation.lent_until or 0)
    crm.stack.invoke("ConnectorReceiverFunction", {"Records": [{"messageId": "m-1", "body": message.body()}]})
    shown: dict[str, Any] = crm.get(accepted.headers["Location"]).json()
    return shown


# ---------------------------------------------------------------- changes


def test_only_the_given_fields_change_although_egito_blanks_the_others(crm: Crm) -> None:
    record_id = created(crm)
    before = dict(the_record(crm.stack))
    answer = change(crm, record_id, {"phone": "2", "city": None})
    assert {**answer.json(), "operation_id": ""} == {
        "system": system(crm.stack),
        "entity": "Contact",
        "id": record_id,
        "operation_id": "",
    }
    assert the_record(crm.stack) == {**before, "phone": "2", "city": ""}


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [({}, "fields"), ({"id": "7"}, "fields"), ({f"f{number}": "" for number in range(101)}, "fields")],
)
def test_is_422_and_nothing_is_sent_when_a_change_is_wrong(crm: Crm, fields: dict[str, Any], wrong: str) -> None:
    answer = change(crm, "5001", fields)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, wrong)
    assert (crm.stack.egito.seen, rows("OPERATIONS_TABLE")) == ([], [])


def test_as_many_fields_change_as_a_request_may_have(crm: Crm) -> None:
    record_id = created(crm)
    fields = {f"f{number}": str(number) for number in range(99)}
    assert change(crm, record_id, {**fields, "phone": "2"}).status_code == 200
    assert the_record(crm.stack)["phone"] == "2"


def test_the_later_of_two_changes_counts_for_each_field_in_whatever_order_they_come(crm: Crm) -> None:
    record_id = created(crm)
    older = change(crm, record_id, {"phone": "older", "city": "older"}, **ASYNC)
    oldest_phone = change(crm, record_id, {"phone": "not the last"}, **ASYNC)
    assert (older.status_code, oldest_phone.status_code) == (202, 202)
    newer = change(crm, record_id, {"phone": "newer"}, **ASYNC)

    assert process(crm, newer)["state"] == "succeeded"
    late = [process(crm, one) for one in (older, oldest_phone)]

    assert [one["state"] for one in late] == ["succeeded", "succeeded"]
    assert [one["result"].get("ignored") for one in late] == [None, "older"]
    record = the_record(crm.stack)
    assert (record["phone"], record["city"]) == ("newer", "older")


@pytest.mark.parametrize("kind", LOST)
def test_a_change_whose_response_was_lost_is_made_in_the_end(crm: Crm, kind: Kind) -> None:
    record_id = created(crm)
    crm.stack.egito.fail(kind)
    accepted = change(crm, record_id, {"phone": "2"})
    assert accepted.status_code == 202
    assert crm.settle(accepted)["state"] == "succeeded"
    assert the_record(crm.stack) | JAN | {"phone": "2"} == the_record(crm.stack)


def a_person_with_a_record(crm: Crm) -> tuple[str, str]:
    """The ids of a person whom the Connector knows, and of the record at Egito."""
    person = people.saved(crm)
    return person, str(the_record(crm.stack)["id"])


def test_neither_a_change_nor_a_save_of_the_connector_at_the_same_time_is_lost(crm: Crm) -> None:
    """The change has read the record, and writes it late; without a turn it would write the old mobile back."""
    person, record_id = a_person_with_a_record(crm)
    crm.stack.egito.fail(Kind.DELAY, seconds=1)
    with ThreadPoolExecutor(2) as pool:
        changed = pool.submit(change, crm, record_id, {"phone": "2"})
        sleep(0.4)
        saved = pool.submit(people.save, crm, person, mobile="600 100 299")
        assert (changed.result().status_code, saved.result().status_code) == (200, 200)
    record = the_record(crm.stack)
    assert (record["phone"], record["mobile"]) == ("2", "600 100 299")


def test_a_later_change_of_another_record_of_the_same_person_is_no_later_change(crm: Crm) -> None:
    change_tenant(crm.stack, **people.LEAD_AND_CONTACT)
    person = people.saved(crm)
    people.saved(crm, person, userType="MEMBER")
    lead, contact = (str(the_record(crm.stack, entity)["id"]) for entity in ("Lead", "Contact"))
    of_contact = change(crm, contact, {"phone": "of the contact"}, **ASYNC)
    assert change(crm, lead, {"phone": "of the lead"}, "Lead").status_code == 200
    assert process(crm, of_contact)["result"].get("ignored") is None
    assert the_record(crm.stack)["phone"] == "of the contact"


def test_an_id_goes_to_egito_as_it_was_given(crm: Crm) -> None:
    """Links know a GUID in either form; Egito may not."""
    record = crm.stack.egito.add("Contact", lastName="Lis")
    record["id"] = "0FA08E73-266C-300F-4521-56ED913C7C28"
    assert crm.get(f"/records/Contact/{record['id']}").json()["id"] == record["id"]
    assert change(crm, str(record["id"]), {"phone": "2"}).status_code == 200
    assert delete(crm, str(record["id"])).status_code == 204


# ---------------------------------------------------------------- deletions


def test_a_record_is_deleted_once_however_often_it_is_asked_for(crm: Crm) -> None:
    record_id = created(crm)
    for _ in range(2):
        answer = delete(crm, record_id)
        assert (answer.status_code, answer.content) == (204, b"")
    assert records(crm.stack) == []
    assert crm.get(f"/records/Contact/{record_id}").status_code == 404
    assert linked(crm, "crm", "contact", "A-1") == []
    assert linked(crm, system(crm.stack), "contact", record_id) == []


@pytest.mark.parametrize("kind", LOST)
def test_a_record_is_deleted_once_when_the_response_was_lost(crm: Crm, kind: Kind) -> None:
    record_id, others = created(crm), str(crm.stack.egito.add("Contact", lastName="Wrona")["id"])
    crm.stack.egito.fail(kind)
    accepted = delete(crm, record_id)
    assert accepted.status_code == 202
    assert crm.settle(accepted)["state"] == "succeeded"
    assert [str(record["id"]) for record in records(crm.stack)] == [others]
    assert linked(crm, "crm", "contact", "A-1") == []
    assert delete(crm, record_id).status_code == 204


@pytest.mark.parametrize("also_get", [False, True])
def test_a_deletion_that_egito_refuses_is_not_taken_for_done(crm: Crm, *, also_get: bool) -> None:
    record_id = created(crm)
    crm.stack.egito.forbidden |= {("Contact", "delete")} | ({("Contact", "get")} if also_get else set())
    answer = delete(crm, record_id)
    assert (answer.status_code, answer.json()["detail"]) == (404 if also_get else 422, "Egito: Access denied")
    assert len(records(crm.stack)) == 1
    assert linked(crm, "crm", "contact", "A-1") == [f"{system(crm.stack)}/contact/{record_id}"]


def test_a_deletion_that_egito_refuses_after_a_lost_response_is_not_taken_for_done(crm: Crm) -> None:
    record_id = created(crm)
    crm.stack.egito.fail(Kind.ERROR_BEFORE)
    accepted = delete(crm, record_id)
    crm.stack.egito.forbidden.add(("Contact", "delete"))
    assert crm.settle(accepted)["state"] != "succeeded"
    assert len(records(crm.stack)) == 1
    assert linked(crm, "crm", "contact", "A-1") == [f"{system(crm.stack)}/contact/{record_id}"]


@pytest.mark.parametrize("key", [None, "K-1"])
def test_after_a_deletion_the_same_event_makes_nothing_and_another_of_the_same_record_does(
    crm: Crm, key: str | None
) -> None:
    first = created(crm, key=key)
    assert delete(crm, first).status_code == 204

    again = create(crm, key=key)
    assert (again.status_code, records(crm.stack)) == (200, [])

    second = created(crm, key="K-2")
    assert second != first
    assert linked(crm, "crm", "contact", "A-1") == [f"{system(crm.stack)}/contact/{second}"]


def test_a_late_deletion_leaves_the_link_of_the_record_that_was_made_again(crm: Crm) -> None:
    first = created(crm, key="K-1")
    late = delete(crm, first, **ASYNC)
    assert delete(crm, first).status_code == 204
    second = created(crm, key="K-2")
    assert process(crm, late)["state"] == "succeeded"
    assert linked(crm, "crm", "contact", "A-1") == [f"{system(crm.stack)}/contact/{second}"]
    assert len(records(crm.stack)) == 1


class Killed(BaseException):
    """Ends a function where it stands."""


@pytest.fixture
def killed(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> tuple[str, requests.Response]:
    """A record whose deletion was killed after Egito had made it, and the response that accepted it."""
    record_id = created(crm)
    accepted = delete(crm, record_id, **ASYNC)
    really_delete: Callable[..., None] = Egito.delete_record

    def killed(*arguments: Any) -> None:
        really_delete(*arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Egito, "delete_record", killed)
        with pytest.raises(Killed):
            process(crm, accepted)
    assert linked(crm, "crm", "contact", "A-1") != []
    crm.stack.move_clock(60)  # until its lease and its turn are over
    return record_id, accepted


def test_a_deletion_that_was_killed_before_it_unlinked_is_finished(
    crm: Crm, killed: tuple[str, requests.Response]
) -> None:
    assert crm.settle(killed[1])["state"] == "succeeded"
    assert (records(crm.stack), linked(crm, "crm", "contact", "A-1")) == ([], [])


def test_a_deletion_is_done_when_the_one_before_it_was_killed(crm: Crm, killed: tuple[str, requests.Response]) -> None:
    record_id, accepted = killed
    assert delete(crm, record_id).status_code == 204
    assert linked(crm, "crm", "contact", "A-1") == []
    assert crm.settle(accepted)["state"] == "succeeded"


def test_a_deletion_is_done_when_egito_made_it_and_said_that_it_was_too_busy(
    crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_id = created(crm)
    really_delete: Callable[..., None] = Egito.delete_record

    def busy(*arguments: Any) -> None:
        really_delete(*arguments)
        raise NotDoneError("Egito answered 429", vendor=VENDOR, status=429)

    with monkeypatch.context() as patch:
        patch.setattr(Egito, "delete_record", busy)
        accepted = delete(crm, record_id)
    assert crm.settle(accepted)["state"] == "succeeded"
    assert linked(crm, "crm", "contact", "A-1") == []

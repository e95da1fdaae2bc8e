"""A later payload of the event that makes a record at Egito changes that record, if the tenant wants it."""

import itertools
import random
from typing import Any

import pytest
import requests

from crm_bridge.runtime import runtime
from local.vendors.simulator import Kind
from tests.integration.conftest import CommandLine, Crm, rows
from tests.integration.record_calls import (
    ASYNC,
    JAN,
    call,
    change,
    change_tenant,
    records,
    resolve,
    system,
    the_record,
)
from tests.integration.test_record_changes import LOST, process

REFERENCE = {"reference": "externalId"}
OLDER = "A later change of the same record came first."


@pytest.fixture
def applies(crm: Crm) -> Crm:
    """The bridge of a tenant that wants later payloads to be applied."""
    change_tenant(crm.stack, records={"Contact": {**REFERENCE, "update": "apply"}})
    return crm


def at(minute: int) -> str:
    return f"2026-01-01T08:{minute:02}:00Z"


def send(crm: Crm, phone: str, minute: int | None, *, later: bool = False, **more: object) -> requests.Response:
    """Send a payload of A-1's event, which the CRM changed at this minute. With `later` nobody waits for it."""
    body = {"external_id": "A-1", "fields": {**JAN, "phone": phone, **more}}
    body |= {"changed_at": at(minute)} if minute else {}
    return call(crm, "POST", "/records/Contact", body, **(ASYNC if later else {}))


def phone(crm: Crm) -> object:
    return the_record(crm.stack)["phone"]


def test_a_later_payload_changes_the_record_and_the_caller_reads_it(applies: Crm) -> None:
    made = send(applies, "1", 1)
    assert (made.status_code, made.json()["changed_at"]) == (201, at(1))
    response = send(applies, "2", 2)
    assert response.status_code == 200
    assert {**response.json(), "operation_id": ""} == {
        "system": system(applies.stack),
        "entity": "Contact",
        "id": made.json()["id"],
        "operation_id": "",
        "changed": True,
        "applied": True,
    }
    assert response.json()["operation_id"] != made.json()["operation_id"]
    assert phone(applies) == "2"
    assert applies.get("/operations?changed=true").json()["operations"] == []


def test_each_payload_is_applied_once(applies: Crm) -> None:
    send(applies, "1", 1)
    first, again = send(applies, "2", 2), send(applies, "2", 2)
    assert again.json() == first.json()
    assert len([one for one in applies.stack.egito.seen if "update" in one.path]) == 1


def test_a_payload_that_returns_to_an_earlier_one_is_applied(applies: Crm) -> None:
    for minute, value in enumerate(["a", "b", "a", "b", "a"], 1):
        send(applies, value, minute)
        assert phone(applies) == value


@pytest.mark.parametrize("order", [*itertools.permutations((1, 2, 3))])
def test_the_latest_payload_counts_in_whatever_order_they_come_and_come_again(
    applies: Crm, order: tuple[int, ...]
) -> None:
    for minute in (*order, *order):
        send(applies, str(minute), minute)
    assert phone(applies) == "3"


def test_an_older_payload_is_left_out_and_the_caller_reads_it(applies: Crm) -> None:
    send(applies, "2", 2)
    before_the_first = send(applies, "1", 1)
    send(applies, "4", 4)
    between = send(applies, "3", 3)
    for response in (before_the_first, between):
        assert response.status_code == 200
        shown = {name: response.json()[name] for name in ("ignored", "changed", "applied", "not_applied")}
        assert shown == {"ignored": "older", "changed": True, "applied": False, "not_applied": OLDER}
    assert phone(applies) == "4"


def test_only_fields_that_nothing_later_said_are_changed_by_an_older_payload(applies: Crm) -> None:
    send(applies, "1", 1)
    send(applies, "3", 3)
    response = send(applies, "2", 2, mobile="600")
    assert response.json()["applied"] is True
    assert (phone(applies), the_record(applies.stack)["mobile"]) == ("3", "600")


def test_two_payloads_of_one_time_are_both_applied_and_each_once(applies: Crm) -> None:
    send(applies, "1", 1)
    send(applies, "2", 2)
    send(applies, "3", 2)
    assert phone(applies) == "3"
    send(applies, "2", 2)
    assert phone(applies) == "3"


def test_it_waits_for_the_first_payload_and_comes_right_after_it(applies: Crm) -> None:
    assert send(applies, "1", 1, later=True).status_code == 202
    accepted = send(applies, "2", 2)
    assert (accepted.status_code, accepted.json()["applied"], accepted.json()["state"]) == (202, True, "waiting")
    assert records(applies.stack) == []
    assert applies.settle(accepted)["state"] == "succeeded"
    assert phone(applies) == "2"


def test_the_latest_counts_also_of_payloads_that_all_waited(applies: Crm) -> None:
    first = send(applies, "1", 1, later=True)
    later = [send(applies, str(minute), minute, later=True) for minute in (3, 2, 4)]
    assert process(applies, first)["state"] == "succeeded"
    for one in (later[2], later[0], later[1]):
        assert process(applies, one)["state"] == "succeeded"
    assert phone(applies) == "4"


def test_it_makes_the_record_if_the_first_payload_was_refused(applies: Crm) -> None:
    first = send(applies, "1", 1, lastName="", later=True)
    accepted = send(applies, "2", 2, later=True)
    assert process(applies, first)["state"] == "rejected"
    assert process(applies, accepted)["state"] == "succeeded"
    assert phone(applies) == "2"
    assert send(applies, "1", 1, lastName="").json()["ignored"] == "older"
    assert phone(applies) == "2"


def test_it_is_rejected_if_a_person_has_discarded_the_first_payload_since(applies: Crm) -> None:
    change_tenant(applies.stack, records={"Contact": {"update": "apply"}})  # so that a person has to decide
    applies.stack.egito.fail(Kind.CLOSE_BEFORE)
    first = send(applies, "1", 1)
    accepted = send(applies, "2", 2, later=True)
    assert applies.settle(first)["state"] == "needs_review"
    assert applies.get(accepted.headers["Location"]).json()["state"] == "waiting"
    assert resolve(applies, first.json()["operation_id"], action="discard").status_code == 200
    shown = applies.settle(accepted)
    assert (shown["state"], "discarded" in shown["last_attempt"]["reason"]) == ("rejected", True)


@pytest.mark.parametrize("kind", LOST)
def test_a_change_whose_response_was_lost_is_made_in_the_end(applies: Crm, kind: Kind) -> None:
    send(applies, "1", 1)
    applies.stack.egito.fail(kind)
    accepted = send(applies, "2", 2)
    assert accepted.status_code == 202
    assert send(applies, "1", 1).json()["id"]  # a late repetition of the first
    assert applies.settle(accepted)["state"] == "succeeded"
    assert phone(applies) == "2"


@pytest.mark.parametrize("kind", LOST)
def test_the_latest_counts_when_the_response_to_the_first_was_lost(applies: Crm, kind: Kind) -> None:
    applies.stack.egito.fail(kind)
    first = send(applies, "1", 1)
    accepted = send(applies, "2", 2)
    assert (first.status_code, accepted.status_code) == (202, 202)
    assert applies.settle(accepted)["state"] == "succeeded"
    assert applies.settle(first)["state"] == "succeeded"
    assert phone(applies) == "2"


def test_a_change_by_its_own_route_and_a_later_payload_are_in_order(applies: Crm) -> None:
    made = send(applies, "1", 1).json()
    assert change(applies, made["id"], {"phone": "by PUT, now"}).status_code == 200
    assert send(applies, "2", 2, city="Gdynia").json()["applied"] is True
    assert (phone(applies), the_record(applies.stack)["city"]) == ("by PUT, now", "Gdynia")


def test_a_record_whose_event_had_no_time_is_as_old_as_its_event(applies: Crm) -> None:
    send(applies, "1", None)
    assert send(applies, "2", 2).json()["ignored"] == "older"
    body = {"external_id": "A-1", "changed_at": "2099-01-01T00:00:00Z", "fields": JAN}
    wrong = call(applies, "POST", "/records/Contact", body)
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "changed_at")


def test_it_is_not_applied_and_says_why_when_the_tenant_does_not_want_it(crm: Crm) -> None:
    send(crm, "1", 1)
    response = send(crm, "2", 2).json()
    assert (response["applied"], "update: apply" in response["not_applied"]) == (False, True)
    assert phone(crm) == "1"
    (listed,) = crm.get("/operations?changed=true").json()["operations"]
    assert listed["flow"] == "create_record"


@pytest.mark.parametrize("before", ["ignore", "apply"])
def test_the_same_payload_has_no_second_effect_when_the_tenant_changes_its_mind(crm: Crm, before: str) -> None:
    after = {"ignore": "apply", "apply": "ignore"}[before]
    change_tenant(crm.stack, records={"Contact": {**REFERENCE, "update": before}})
    made = send(crm, "1", 1)
    change_tenant(crm.stack, records={"Contact": {**REFERENCE, "update": after}})
    the_record(crm.stack)["phone"] = "by hand"
    assert send(crm, "1", 1).json() == made.json()
    assert phone(crm) == "by hand"


def test_a_payload_of_which_only_changed_at_differs_from_the_first_is_applied(applies: Crm) -> None:
    for minute, number in enumerate(["1", "2", "1"], start=1):
        send(applies, number, minute)
    assert phone(applies) == "1"


@pytest.mark.parametrize(
    ("changes", "headers", "says"),
    [
        ({}, {}, "changed_at"),
        ({"changed_at": at(2)}, {"Idempotency_Key": "K-1"}, "external_id"),
        ({"changed_at": at(2), "fields": {f"f{number}": "" for number in range(101)}}, {}, "at most 100"),
    ],
)
def test_it_is_not_applied_and_says_why_when_that_would_not_be_safe(
    applies: Crm, changes: dict[str, Any], headers: dict[str, str], says: str
) -> None:
    first = {"external_id": "A-1", "fields": JAN}
    assert call(applies, "POST", "/records/Contact", first, **headers).status_code == 201
    response = call(applies, "POST", "/records/Contact", {**first, "fields": {"phone": "2"}, **changes}, **headers)
    assert (response.status_code, response.json()["applied"]) == (200, False)
    assert says in response.json()["not_applied"]
    assert phone(applies) == JAN["phone"]
    assert len(applies.get("/operations?changed=true").json()["operations"]) == 1


def test_it_is_not_applied_at_another_egito(applies: Crm) -> None:
    send(applies, "1", 1)
    moved = applies.stack.egito.url.replace("127.0.0.1", "localhost")
    change_tenant(applies.stack, records={"Contact": {"update": "apply"}}, base_url=moved)
    response = send(applies, "2", 2)
    assert (response.status_code, phone(applies)) == (409, "1")


def test_its_payload_goes_once_it_is_done_and_all_of_it_when_it_is_forgotten(applies: Crm, cli: CommandLine) -> None:
    send(applies, "600 700 800", 1)
    send(applies, "600 700 801", 2)
    assert "600 700" not in applies.stored()
    operations = [row for row in rows("OPERATIONS_TABLE") if row.get("flow") == "change_record"]
    assert [row["event_key"].startswith("Contact#A-1#") for row in operations] == [True]
    cli("forget", "demo", "crm/contact/A-1", "--yes")
    assert "A-1" not in applies.stored()


@pytest.mark.parametrize("seed", range(5))
def test_the_latest_counts_in_the_end_in_any_order_with_any_failures(applies: Crm, seed: int) -> None:
    chance = random.Random(seed)
    minutes = [*range(1, 6), *chance.choices(range(1, 6), k=4)]
    chance.shuffle(minutes)
    accepted = []
    for minute in minutes:
        if chance.random() < 0.5:
            applies.stack.egito.fail(chance.choice([*LOST, Kind.TOO_MANY]))
        answer = send(applies, str(minute % 3), minute, later=chance.random() < 0.3)
        assert answer.status_code in (200, 201, 202), answer.text
        accepted.append(answer)
    for _ in range(72):
        states = {applies.get(one.headers["Location"]).json()["state"] for one in accepted if one.status_code == 202}
        if states <= {"succeeded"}:
            break
        applies.stack.deliver_due(after=3600)
    assert states <= {"succeeded"}
    assert phone(applies) == "2"
    assert runtime().operations.listed_changed("demo", flow=None, limit=10, after=None) == ([], None)


@pytest.mark.parametrize("minute", [2, 3])
def test_the_payload_that_arrived_last_counts_of_two_of_one_time(applies: Crm, minute: int) -> None:
    send(applies, "1", 1)
    applies.stack.egito.fail(Kind.UNAVAILABLE, method="POST")
    assert send(applies, "2", 2).status_code == 202
    assert send(applies, "3", minute).status_code == 200
    for _ in range(3):
        applies.stack.deliver_due(after=200)
    assert phone(applies) == "3"


@pytest.fixture
def of_another(applies: Crm) -> Crm:
    """The record of A-1 was made by an event with a key of its own, which the CRM changed at minute 3."""
    body = {"external_id": "A-1", "fields": {**JAN, "phone": "3"}, "changed_at": at(3)}
    assert call(applies, "POST", "/records/Contact", body, Idempotency_Key="K-1").status_code == 201
    return applies


def deliver(crm: Crm, operation: str) -> dict[str, Any]:
    """Deliver what is due until this operation is over, and return it."""
    for _ in range(8):
        crm.stack.deliver_due()
        found: dict[str, Any] = crm.get(operation).json()
        if found["state"] in ("succeeded", "rejected", "needs_review"):
            break
        crm.stack.move_clock(3600)
    return found


def test_the_first_payload_changes_a_record_that_another_event_has_made(of_another: Crm) -> None:
    for _ in range(2):
        response = send(of_another, "4", 4)
        assert (response.status_code, response.json()["applied"]) == (200, True)
    assert phone(of_another) == "4"
    assert send(of_another, "0", 1).json()["ignored"] == "older"
    assert send(of_another, "5", 5).json()["applied"]
    assert phone(of_another) == "5"
    assert len([one for one in of_another.stack.egito.seen if "update" in one.path]) == 2


def test_so_does_the_first_payload_if_nobody_waits_for_it(of_another: Crm) -> None:
    accepted = send(of_another, "4", 4, later=True)
    assert accepted.status_code == 202
    assert deliver(of_another, accepted.headers["Location"])["state"] == "succeeded"
    assert phone(of_another) == "4"
    again = send(of_another, "4", 4)
    assert (again.status_code, again.json()["applied"]) == (200, True)
    assert len([one for one in of_another.stack.egito.seen if "update" in one.path]) == 1


@pytest.mark.parametrize("kind", [*LOST, Kind.TOO_MANY])
@pytest.mark.parametrize("later", [False, True])
def test_so_does_the_first_payload_if_egito_did_not_respond(of_another: Crm, kind: Kind, *, later: bool) -> None:
    of_another.stack.egito.fail(kind)
    accepted = send(of_another, "4", 4, later=later)
    assert accepted.status_code in (200, 202)
    if accepted.status_code == 202:
        assert deliver(of_another, accepted.headers["Location"])["state"] == "succeeded"
    assert phone(of_another) == "4"
    assert send(of_another, "4", 4).json()["applied"]


@pytest.mark.parametrize("later", [False, True])
def test_the_first_payload_is_left_out_if_it_is_older_than_the_one_that_made_the_record(
    of_another: Crm, *, later: bool
) -> None:
    response = send(of_another, "1", 1, later=later)
    if later:
        assert deliver(of_another, response.headers["Location"])["state"] == "succeeded"
        response = send(of_another, "1", 1)
    body = response.json()
    assert (body["applied"], body["ignored"], body["not_applied"]) == (False, "older", OLDER)
    assert send(of_another, "2", 2).json()["ignored"] == "older"
    assert phone(of_another) == "3"
    assert send(of_another, "4", 4).json()["applied"]
    assert phone(of_another) == "4"


def test_the_first_payload_is_rejected_if_egito_refuses_the_change(of_another: Crm) -> None:
    accepted = send(of_another, "4", 4, later=True, lastName="")
    operation = deliver(of_another, accepted.headers["Location"])
    assert (operation["state"], phone(of_another)) == ("rejected", "3")
    assert send(of_another, "5", 5).json()["applied"]
    assert phone(of_another) == "5"


def test_a_later_payload_is_applied_if_egito_refuses_the_change_of_the_first(of_another: Crm) -> None:
    first, later = send(of_another, "4", 4, later=True, lastName=""), send(of_another, "5", 5, later=True)
    assert deliver(of_another, later.headers["Location"])["state"] == "succeeded"
    assert (deliver(of_another, first.headers["Location"])["state"], phone(of_another)) == ("succeeded", "5")


def test_a_payload_without_a_time_makes_nothing_of_what_another_event_has_made(of_another: Crm) -> None:
    accepted = send(of_another, "4", None, later=True)
    assert deliver(of_another, accepted.headers["Location"])["state"] == "succeeded"
    assert phone(of_another) == "3"

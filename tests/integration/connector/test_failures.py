"""Faults of Egito, refusals, altered texts, and many saves at once."""

from functools import partial
from typing import Any, Literal

import pytest

from crm_bridge.vendors.egito_settings import PERSON_FIELDS
from local.vendors.alterations import ALTERATIONS
from local.vendors.egito import EgitoSimulator
from local.vendors.simulator import Kind
from tests.integration.conftest import Crm, failing
from tests.integration.connector.conftest import (
    EVERYTHING,
    EVERYTHING_ELSE,
    KINDS,
    LEAD_AND_CONTACT,
    LEFT_OUT,
    WITHOUT_REFERENCE,
    add_lead_source,
    all_saved,
    at_once,
    calls,
    change_tenant,
    fields_of,
    in_review,
    in_the_end,
    outcome,
    resolve,
    save,
    saved,
    states,
    the_record,
)

# ---------------------------------------------------------------- at once


@pytest.mark.usefixtures("eager_switches")
@pytest.mark.parametrize("has_uuid", [True, False], ids=["with the Connector's id", "without any id"])
def test_one_record_is_made_when_twenty_save_the_same_new_person(
    crm: Crm, egito: EgitoSimulator, has_uuid: bool
) -> None:
    for number in (1, 2):
        ids = {"uuid": f"u-{number}"} if has_uuid else {}
        answers = at_once([partial(save, crm, firstname=f"Ada {number}", **ids)] * 20)
        assert all_saved(crm, answers)
        assert [answer.status_code for answer in answers].count(201) <= 1
        (record_id,) = {answer.json()["recordID"] for answer in answers}
        made = egito.records["Contact"]
        assert (len(made), made[-1]["externalId"], made[-1]["firstName"]) == (number, record_id, f"Ada {number}")


@pytest.mark.usefixtures("eager_switches")
def test_twenty_people_of_one_name_are_twenty(crm: Crm, egito: EgitoSimulator) -> None:
    answers = at_once([partial(save, crm, uuid=f"u-{number}") for number in range(20)])
    assert all_saved(crm, answers)
    record_ids = {answer.json()["recordID"] for answer in answers}
    assert (len(record_ids), {record["externalId"] for record in egito.records["Contact"]}) == (20, record_ids)


@pytest.mark.usefixtures("eager_switches")
def test_what_arrived_last_counts_when_ten_save_at_once(crm: Crm, egito: EgitoSimulator) -> None:
    record_id = saved(crm, city="none yet")
    answers = at_once([partial(save, crm, record_id, city=f"city {number}") for number in range(10)])
    assert all_saved(crm, answers)
    keys = [crm.get(f"/operations/{answer.json()['operation_id']}").json()["event_key"] for answer in answers]
    arrived_at = [int(key.split("#")[1]) for key in keys]
    assert the_record(egito)["city"] == f"city {arrived_at.index(max(arrived_at))}"


@pytest.mark.usefixtures("eager_switches")
def test_one_contact_is_made_when_twenty_convert_the_same_lead(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    record_id = saved(crm, city="Kraków")
    assert all_saved(crm, at_once([partial(save, crm, record_id, userType="MEMBER")] * 20))
    assert the_record(egito)["city"] == "Kraków"
    assert the_record(egito, "Lead")["notes"] == "won"


# ---------------------------------------------------------------- what fails on the way


def seconds(kind: Kind) -> float:
    return 0.1 if kind is Kind.DELAY else 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_one_record_with_all_of_it_is_there_in_the_end_when_the_first_save_failed(
    crm: Crm, egito: EgitoSimulator, kind: Kind, method: Literal["POST", "GET"]
) -> None:
    egito.fail(kind, method=method, seconds=seconds(kind))
    answer = save(crm, **EVERYTHING)  # its owner and its lead source take a GET
    assert answer.status_code in (201, 202)
    assert in_the_end(crm, answer)["state"] == "succeeded"
    assert fields_of(the_record(egito), PERSON_FIELDS) == EVERYTHING
    assert the_record(egito)["externalId"] == answer.json()["recordID"]
    assert states(crm) == {"succeeded": 2}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_the_record_has_the_last_data_in_the_end_when_an_update_failed(
    crm: Crm, egito: EgitoSimulator, kind: Kind, method: Literal["POST", "GET"]
) -> None:
    record_id = saved(crm, **EVERYTHING)
    egito.fail(kind, method=method, seconds=seconds(kind))
    answer = save(crm, record_id, **EVERYTHING_ELSE)
    assert answer.status_code in (200, 202)
    assert in_the_end(crm, answer)["state"] == "succeeded"
    assert fields_of(the_record(egito), PERSON_FIELDS) == EVERYTHING_ELSE
    assert states(crm) == {"succeeded": 3}


def test_is_saved_later_when_egito_cannot_be_reached(crm: Crm, egito: EgitoSimulator) -> None:
    with failing(egito, Kind.REFUSE):
        accepted = save(crm)
    assert outcome(accepted) == (202, "WARNING")
    assert crm.settle(accepted)["state"] == "succeeded"
    assert the_record(egito)["externalId"] == accepted.json()["recordID"]


@pytest.mark.parametrize("kind", [Kind.CLOSE_AFTER, Kind.ERROR_AFTER])
@pytest.mark.parametrize("lists_everything", [True, False])
def test_a_lost_answer_is_found_by_the_reference(
    crm: Crm, egito: EgitoSimulator, kind: Kind, lists_everything: bool
) -> None:
    egito.search_lag = 20
    change_tenant(crm.stack, lists_everything=lists_everything)
    egito.add("Contact", lastName="Nowak", firstName="Ada", email="ada@mail.example")  # a namesake without reference
    egito.fail(kind)
    accepted = save(crm)
    assert outcome(accepted) == (202, "WARNING")
    assert crm.settle(accepted)["state"] == "succeeded"
    assert (calls(egito, "create"), len(egito.records["Contact"])) == (1, 2)
    assert egito.records["Contact"][1]["externalId"] == accepted.json()["recordID"]


def test_a_lost_answer_is_looked_for_until_egitos_list_must_show_it(crm: Crm, egito: EgitoSimulator) -> None:
    egito.search_lag = 100
    change_tenant(crm.stack, lists_everything=False, search_lag=120)
    egito.fail(Kind.CLOSE_AFTER)
    save(crm)
    for _ in range(20):
        crm.stack.deliver_due(after=60)
    assert (states(crm), len(egito.records["Contact"])) == ({"succeeded": 2}, 1)


def test_a_save_waits_for_a_person_when_there_is_no_reference(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **WITHOUT_REFERENCE)
    egito.fail(Kind.CLOSE_AFTER)
    accepted = save(crm, city="Kraków")
    operation = crm.get(f"/operations/{in_review(crm)}").json()
    assert "reference" in operation["last_attempt"]["reason"]
    assert states(crm) == {"needs_review": 1, "waiting": 1}
    later = save(crm, city="Gdańsk")
    assert (outcome(later), later.json()["recordID"]) == ((202, "WARNING"), accepted.json()["recordID"])
    assert calls(egito, "create") == 1


def test_needs_review_when_the_list_does_not_show_it_and_may_not_be_whole(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, lists_everything=False)
    egito.fail(Kind.CLOSE_BEFORE)
    save(crm)
    operation = crm.get(f"/operations/{in_review(crm)}").json()
    assert "lists_everything" in operation["last_attempt"]["reason"]
    assert egito.records["Contact"] == []


def test_the_save_follows_when_a_person_links_the_record(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **WITHOUT_REFERENCE)
    egito.fail(Kind.CLOSE_AFTER)
    first = save(crm, uuid="u-1", city="Kraków")
    operation_id = in_review(crm)
    second = save(crm, uuid="u-1", city="Gdańsk")
    assert resolve(crm, operation_id, "link", the_record(egito)["id"]).json()["state"] == "succeeded"
    assert [crm.settle(answer)["state"] for answer in (first, second)] == ["succeeded"] * 2
    assert the_record(egito)["city"] == "Gdańsk"
    assert saved(crm, uuid="u-1", city="Gdynia") == first.json()["recordID"]
    assert (the_record(egito)["city"], calls(egito, "create")) == ("Gdynia", 1)


def test_a_record_is_not_linked_when_it_is_somebody_elses(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **WITHOUT_REFERENCE)
    saved(crm, uuid="u-1")
    egito.fail(Kind.CLOSE_BEFORE)
    save(crm, uuid="u-2", firstname="Eva")
    answer = resolve(crm, in_review(crm), "link", the_record(egito)["id"])
    assert answer.status_code == 409
    assert states(crm) == {"succeeded": 2, "needs_review": 1, "waiting": 1}


def test_the_save_follows_when_a_person_retries_it(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **WITHOUT_REFERENCE)
    egito.fail(Kind.CLOSE_BEFORE)
    first = save(crm, uuid="u-1", city="Kraków")
    operation_id = in_review(crm)
    second = save(crm, uuid="u-1", city="Gdańsk")
    assert resolve(crm, operation_id, "retry").json()["state"] == "waiting"
    assert [crm.settle(answer)["state"] for answer in (first, second)] == ["succeeded"] * 2
    assert (the_record(egito)["city"], states(crm)) == ("Gdańsk", {"succeeded": 3})


def test_the_save_is_refused_when_a_person_discards_it_and_may_be_sent_again(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **WITHOUT_REFERENCE)
    egito.fail(Kind.CLOSE_BEFORE)
    accepted = save(crm, uuid="u-1")
    assert resolve(crm, in_review(crm), "discard").json()["state"] == "rejected"
    operation = crm.settle(accepted)
    assert (operation["state"], egito.records["Contact"]) == ("rejected", [])
    assert "a person discarded the person's record" in operation["last_attempt"]["reason"]
    crm.stack.move_clock(1)
    again = save(crm, uuid="u-1", city="Kraków")
    assert (outcome(again), again.json()["recordID"]) == ((201, "INFO"), accepted.json()["recordID"])
    assert the_record(egito)["city"] == "Kraków"


# ---------------------------------------------------------------- what Egito refuses


@pytest.mark.parametrize("shape", ["strings", "objects", "default_messages"])
@pytest.mark.parametrize("status", [200, 400, 422])
def test_tells_egitos_words_and_the_id_when_egito_refuses(
    crm: Crm, egito: EgitoSimulator, shape: Literal["strings", "objects", "default_messages"], status: int
) -> None:
    egito.required["Contact"] = ("lastName", "gender")
    egito.error_shape, egito.error_status = shape, status
    refused = save(crm)
    assert outcome(refused) == (422, "ERROR")
    assert "gender: may not be empty" in refused.json()["message"]
    assert "gender: may not be empty" in refused.json()["detail"]
    assert "errors" not in refused.json()  # the field's name is Egito's, and the Connector's may be another
    record_id = refused.json()["recordID"]
    assert (egito.records["Contact"], states(crm)) == ([], {"rejected": 2})
    corrected = save(crm, record_id, gender="F")
    assert (outcome(corrected), corrected.json()["recordID"]) == ((201, "INFO"), record_id)
    emptied = save(crm, record_id, gender="")
    assert (outcome(emptied), emptied.json()["recordID"]) == ((422, "ERROR"), record_id)
    assert "gender: may not be empty" in emptied.json()["message"]
    assert the_record(egito)["gender"] == "F"


def test_a_refused_save_does_not_keep_an_older_one_from_counting(crm: Crm, egito: EgitoSimulator) -> None:
    record_id = saved(crm, gender="F")
    egito.required["Contact"] = ("lastName", "gender")
    egito.fail(Kind.UNAVAILABLE, method="GET")
    waiting = save(crm, record_id, city="Kraków")
    assert outcome(save(crm, record_id, city="Gdańsk", gender="")) == (422, "ERROR")
    assert crm.settle(waiting)["state"] == "succeeded"
    assert the_record(egito)["city"] == "Kraków"


def test_tells_of_the_field_when_a_value_is_too_long_for_egito(crm: Crm, egito: EgitoSimulator) -> None:
    answer = save(crm, company="x" * 256)
    assert outcome(answer) == (422, "ERROR")
    assert "company: size must be between 0 and 255" in answer.json()["message"]
    assert egito.records["Contact"] == []


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("errors", "Object not found"),
        ("404", "no longer shows this person"),
        ("null", "no longer shows this person"),
        ("empty", "no longer shows this person"),
    ],
)
def test_says_so_when_the_record_was_deleted_by_hand(
    crm: Crm, egito: EgitoSimulator, missing: Literal["errors", "404", "null", "empty"], words: str
) -> None:
    egito.missing_record = missing
    record_id = saved(crm)
    egito.records["Contact"].clear()
    answer = save(crm, record_id, city="Kraków")
    assert (outcome(answer), answer.json()["recordID"]) == ((422, "ERROR"), record_id)
    assert words in answer.json()["message"]
    assert egito.records["Contact"] == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"firstname": LEFT_OUT}, "firstname"),
        ({"lastname": " "}, "lastname"),
        ({"userType": "GUEST"}, "userType"),
        ({"userStatus": "GONE"}, "userStatus"),
        ({"userStatus": LEFT_OUT}, "userStatus"),
        ({"birthdate": "31.12.1990"}, "birthdate"),
        ({"birthdate": "1990-02-30"}, "birthdate"),
        ({"trialEndDate": "2024-13-01"}, "trialEndDate"),
        ({"gender": "X"}, "gender"),
        ({"country": "Poland"}, "country"),
        ({"company": "x" * 1001}, "company"),
        ({"nickname": "Ady"}, "nickname"),
    ],
)
def test_names_the_field_and_not_its_value_when_it_is_invalid(
    crm: Crm, egito: EgitoSimulator, changes: dict[str, Any], field: str
) -> None:
    answer = save(crm, **changes)
    assert outcome(answer) == (422, "ERROR")
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert field in answer.json()["message"]
    assert not [value for value in changes.values() if str(value).strip() and f"{value}" in answer.text]
    assert egito.seen == []


# ---------------------------------------------------------------- what Egito may store


@pytest.mark.parametrize("kind", [Kind.CLOSE_AFTER, Kind.UNAVAILABLE_AFTER])
@pytest.mark.parametrize("alteration", ["upper case", "cut at 20 bytes", "emptied"])
def test_there_is_one_record_whatever_egito_makes_of_its_texts(
    crm: Crm, egito: EgitoSimulator, alteration: str, kind: Kind
) -> None:
    egito.alterations = (ALTERATIONS[alteration],)
    egito.fail(kind, seconds=1)
    answer = save(crm, lastname="Zieli\u0144ska-\u0141ukasz \U0001f3cb of the long name")
    assert answer.status_code == 202
    operation = in_review(crm)
    [candidate] = crm.get(f"/operations/{operation}").json()["candidates"]
    assert candidate["id"] == str(the_record(egito)["id"])
    assert resolve(crm, operation, "link", candidate["id"]).status_code == 200
    assert in_the_end(crm, answer)["state"] == "succeeded"
    assert len(egito.records["Contact"]) == 1


def test_a_record_of_another_person_is_no_candidate(crm: Crm, egito: EgitoSimulator) -> None:
    for members in (
        {"firstName": "Ada", "lastName": "Nowak", "externalId": f"p_{'0' * 32}"},  # of another person
        {"firstName": "Adam", "lastName": "Nowak"},
        {"firstName": "Ada", "lastName": "Kowalska"},
    ):
        egito.add("Contact", **members)
    egito.fail(Kind.CLOSE_BEFORE)
    assert in_the_end(crm, save(crm))["state"] == "succeeded"
    assert len(egito.records["Contact"]) == 4


def test_a_namesake_without_an_id_is_put_before_a_person(crm: Crm, egito: EgitoSimulator) -> None:
    """Egito tells no time of a record, and may have dropped the field."""
    egito.add("Contact", firstName="ADA", lastName="Nowak")
    egito.fail(Kind.CLOSE_BEFORE)
    save(crm)
    assert in_review(crm)
    assert len(egito.records["Contact"]) == 1


@pytest.mark.parametrize("kind", [Kind.CLOSE_AFTER, Kind.TOO_MANY_AFTER])
def test_there_is_one_lead_source_whatever_egito_makes_of_its_name(crm: Crm, egito: EgitoSimulator, kind: Kind) -> None:
    egito.alterations = (ALTERATIONS["cut at an emoji"],)
    egito.fail(kind, seconds=1)
    add_lead_source(crm, "Fair \U0001f3cb 2026")
    assert in_review(crm)
    assert [entry["name"] for entry in egito.dictionaries["leadSource"]] == ["Website", "Walk-in", "Fair "]


def test_lead_sources_that_differ_in_spaces_are_two(crm: Crm, egito: EgitoSimulator) -> None:
    egito.dictionaries["leadSource"].append({"id": 90, "name": "Fair 1"})
    egito.fail(Kind.CLOSE_AFTER)
    answer = add_lead_source(crm, "Fair  1")
    assert in_the_end(crm, answer)["result"]["name"] == "Fair  1"
    assert len(egito.dictionaries["leadSource"]) == 4

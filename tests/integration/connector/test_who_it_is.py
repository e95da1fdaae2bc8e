"""A person who is saved again is recognised."""

import json
import unicodedata
from functools import partial
from typing import Any

import pytest

from connector_receiver import people
from crm_bridge.errors import Event
from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import Attempt, State
from local.stack import SCOPES
from local.vendors.egito import CLIENT, CONNECTOR_CLUB, EgitoSimulator
from local.vendors.simulator import Kind
from tests.integration.conftest import Crm, change_settings
from tests.integration.connector.conftest import (
    ADA,
    CLUBS,
    EVERYTHING,
    EVERYTHING_ELSE,
    LEFT_OUT,
    OTHER_CLUB,
    at_once,
    change_tenant,
    in_review,
    in_the_end,
    operations,
    outcome,
    resolve,
    rows,
    save,
    saved,
    tenant,
    the_record,
)

# ---------------------------------------------------------------- who it is


def test_is_known_by_our_id_in_the_address_or_in_the_body(crm: Crm, egito: EgitoSimulator) -> None:
    record_id = saved(crm)
    other = {"firstname": "Eva", "lastname": "Lis", "email": "eva@mail.example", "mobile": "1"}
    assert saved(crm, record_id, **other, city="Kraków") == record_id
    assert the_record(egito)["city"] == "Kraków"
    assert saved(crm, recordID=record_id, city="Gdańsk") == record_id
    assert (the_record(egito)["city"], the_record(egito)["firstName"]) == ("Gdańsk", "Ada")
    assert saved(crm, record_id, recordID=record_id, city="Gdynia") == record_id
    assert the_record(egito)["city"] == "Gdynia"


def test_is_known_by_the_connectors_id_in_the_address_or_in_the_body(crm: Crm, egito: EgitoSimulator) -> None:
    record_id = saved(crm, uuid="u-1")
    other = {"firstname": "Eva", "lastname": "Lis", "email": "eva@mail.example", "mobile": "1"}
    assert saved(crm, uuid="u-1", **other) == record_id
    assert the_record(egito)["firstName"] == "Eva"
    assert saved(crm, "u-1", city="Gdańsk") == record_id
    assert (the_record(egito)["city"], the_record(egito)["firstName"]) == ("Gdańsk", "Ada")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="name, e-mail and mobile"),
        pytest.param({"mobile": LEFT_OUT}, id="name and e-mail"),
        pytest.param({"mobile": "+48 999 999 999"}, id="name and e-mail, another mobile"),
        pytest.param({"email": LEFT_OUT}, id="name and mobile"),
        pytest.param({"email": "another@mail.example"}, id="name and mobile, another e-mail"),
        pytest.param({"uuid": "u-1"}, id="name, e-mail and mobile, and the Connector's id that is new"),
    ],
)
def test_is_known_by_what_it_has_in_common(crm: Crm, egito: EgitoSimulator, changes: dict[str, Any]) -> None:
    record_id = saved(crm)
    answer = save(crm, **changes, city="Kraków")
    assert (outcome(answer), answer.json()["recordID"]) == ((200, "INFO"), record_id)
    assert the_record(egito)["city"] == "Kraków"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"firstname": "ADA", "lastname": "nowak", "email": "Ada@Mail.EXAMPLE"}, id="case"),
        pytest.param({"firstname": "  Ada ", "lastname": "No wak", "email": " ada@mail.example "}, id="spaces"),
        pytest.param({"email": LEFT_OUT, "mobile": "(+48) 601-234/567."}, id="punctuation"),
        pytest.param({"email": LEFT_OUT, "mobile": "48601234567"}, id="digits only"),
        pytest.param({"firstname": "\uff21\uff44\uff41", "email": "\uff41da@mail.example"}, id="full width"),
        pytest.param({"email": LEFT_OUT, "mobile": "+٤٨ ٦٠١ ٢٣٤ ٥٦٧"}, id="other digits"),
        pytest.param({"email": LEFT_OUT, "mobile": "0048 601 234 567"}, id="00 for the plus"),
        pytest.param({"email": LEFT_OUT, "mobile": "601-234-567"}, id="without its country"),
        pytest.param({"firstname": "A&#100;a\u00ad", "lastname": "No\u200bwak"}, id="escaped and invisible characters"),
    ],
)
def test_is_known_when_only_the_writing_differs(crm: Crm, egito: EgitoSimulator, changes: dict[str, Any]) -> None:
    assert saved(crm, **changes) == saved(crm)
    assert len(egito.records["Contact"]) == 1


def test_is_known_when_an_accent_is_written_in_another_way(crm: Crm) -> None:
    name, email = "Łucja Żółć", "żółć@mail.example"
    one, two = (
        saved(crm, firstname=unicodedata.normalize(form, name), email=unicodedata.normalize(form, email))
        for form in ("NFC", "NFD")
    )
    assert one == two
    assert saved(crm, firstname="Straße") == saved(crm, firstname="STRASSE")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"firstname": "Eva"}, id="another first name"),
        pytest.param({"lastname": "Lis"}, id="another last name"),
        pytest.param({"email": "eva@mail.example", "mobile": "1"}, id="another e-mail and mobile"),
        pytest.param({"uuid": "u-2"}, id="another id of the Connector's"),
        pytest.param({"uuid": "u-2", "email": LEFT_OUT, "mobile": LEFT_OUT}, id="another id and name alone"),
    ],
)
def test_is_somebody_else_when_too_little_is_the_same(crm: Crm, egito: EgitoSimulator, changes: dict[str, Any]) -> None:
    record_id = saved(crm, uuid="u-1")
    answer = save(crm, **changes)
    assert outcome(answer) == (201, "INFO")
    assert answer.json()["recordID"] != record_id
    assert len(egito.records["Contact"]) == 2


@pytest.mark.parametrize(
    "nothing", [{"email": "", "mobile": ""}, {"email": LEFT_OUT, "mobile": LEFT_OUT}, {"email": None, "mobile": " "}]
)
def test_two_without_address_and_number_are_two_people_and_both_are_reported(
    crm: Crm, egito: EgitoSimulator, nothing: dict[str, Any]
) -> None:
    first, second = save(crm, **nothing), save(crm, **nothing)
    assert [outcome(answer) for answer in (first, second)] == [(201, "INFO"), (201, "WARNING")]
    assert "Sent again without this recordID, it becomes another record" in first.json()["message"]
    assert "Somebody of this name is known in this club" in second.json()["message"]
    assert first.json()["recordID"] != second.json()["recordID"]
    assert len(egito.records["Contact"]) == 2
    assert save(crm, first.json()["recordID"], **nothing).json()["message"] == "Saved."


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param({"email": LEFT_OUT, "mobile": LEFT_OUT}, {}, id="e-mail and mobile came later"),
        pytest.param({}, {"email": LEFT_OUT, "mobile": LEFT_OUT}, id="name alone"),
        pytest.param({"email": LEFT_OUT}, {"mobile": LEFT_OUT}, id="e-mail after mobile"),
    ],
)
def test_is_a_new_person_with_a_warning_when_nothing_tells_it_from_a_namesake(
    crm: Crm, egito: EgitoSimulator, first: dict[str, Any], second: dict[str, Any]
) -> None:
    record_id = saved(crm, **first)
    answer = save(crm, **second)
    assert outcome(answer) == (201, "WARNING")
    assert "Somebody of this name is known in this club" in answer.json()["message"]
    assert answer.json()["recordID"] != record_id
    assert len(egito.records["Contact"]) == 2


def test_is_a_new_person_with_a_warning_when_too_many_have_the_name(
    crm: Crm, egito: EgitoSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people, "MOST_NAMESAKES", 3)
    for number in range(3):
        saved(crm, email=f"{number}@mail.example", mobile=LEFT_OUT)
    answers = [save(crm), save(crm)]
    assert [outcome(answer) for answer in answers] == [(201, "WARNING")] * 2
    assert all("Too many people of this name" in answer.json()["message"] for answer in answers)
    assert len(egito.records["Contact"]) == 5
    record_id = answers[0].json()["recordID"]
    assert saved(crm, record_id, city="Kraków") == record_id


NAME_ALONE: dict[str, Any] = {"email": LEFT_OUT, "mobile": LEFT_OUT}


@pytest.fixture
def asking(crm: Crm) -> str:
    """Ada's recordID, at a tenant that has people asked about namesakes."""
    change_settings(crm.stack, connector={"ask_about_namesakes": True}, at_once=True)
    return saved(crm)


def test_a_person_is_asked_once_about_a_namesake_when_the_tenant_wants_it(
    crm: Crm, egito: EgitoSimulator, asking: str
) -> None:
    answer = save(crm, **NAME_ALONE)
    assert outcome(answer) == (202, "WARNING")
    assert "Somebody of this name is known in this club" in answer.json()["message"]
    question = crm.get(f"/operations/{in_review(crm)}").json()["attempts"][-1]["reason"]
    assert "somebody of this name is known in this club" in question
    again = save(crm, **NAME_ALONE)
    assert outcome(again) == (202, "WARNING")
    assert again.json()["recordID"] == answer.json()["recordID"] != asking
    assert len(operations(crm, "needs_review")) == 1
    assert len(egito.records["Contact"]) == 1


def test_the_save_goes_to_the_namesakes_record_when_a_person_links_it(
    crm: Crm, egito: EgitoSimulator, asking: str
) -> None:
    answer = save(crm, **NAME_ALONE, city="Kraków")
    assert resolve(crm, in_review(crm), "link", the_record(egito)["id"]).status_code == 200
    assert in_the_end(crm, answer)["state"] == "succeeded"
    assert (the_record(egito)["city"], the_record(egito)["email"]) == ("Kraków", ADA["email"])
    assert saved(crm, answer.json()["recordID"], city="Gdynia") == answer.json()["recordID"]
    assert saved(crm, asking, zipcode="30-001") == asking
    assert (the_record(egito)["city"], the_record(egito)["zipCode"]) == ("Gdynia", "30-001")


def test_a_new_record_is_made_when_a_person_says_that_the_namesake_is_somebody_else(
    crm: Crm, egito: EgitoSimulator, asking: str
) -> None:
    answer = save(crm, **NAME_ALONE, city="Kraków")
    assert resolve(crm, in_review(crm), "retry").status_code == 200
    assert in_the_end(crm, answer)["state"] == "succeeded"
    assert len(egito.records["Contact"]) == 2
    assert saved(crm, answer.json()["recordID"], city="Gdynia") == answer.json()["recordID"]
    assert [record["city"] for record in egito.records["Contact"]] == ["", "Gdynia"]
    another = save(crm, **NAME_ALONE)  # a new question
    assert another.json()["recordID"] not in (asking, answer.json()["recordID"])
    assert len(operations(crm, "needs_review")) == 1


@pytest.mark.usefixtures("asking")
def test_a_person_who_undid_the_link_of_a_namesake_is_not_asked_again(crm: Crm, egito: EgitoSimulator) -> None:
    answer = save(crm, **NAME_ALONE, city="Kraków")
    operation = in_review(crm)
    assert resolve(crm, operation, "link", the_record(egito)["id"]).status_code == 200
    assert in_the_end(crm, answer)["state"] == "succeeded"
    crm.send("POST", f"/operations/{operation}/resolve", {"action": "unlink"}).raise_for_status()
    assert resolve(crm, operation, "retry").status_code == 200
    for _ in range(3):
        crm.stack.deliver_due(after=60)
    found = crm.get(f"/operations/{operation}").json()
    assert (found["state"], len(egito.records["Contact"])) == ("succeeded", 2), [
        one["event"] for one in found["attempts"]
    ]


@pytest.mark.usefixtures("asking")
def test_a_person_is_still_asked_when_all_that_failed_before_are_retried(crm: Crm, egito: EgitoSimulator) -> None:
    save(crm, **NAME_ALONE)
    asked = runtime().operations.get(in_review(crm))
    assert asked
    last = Attempt(at=asked.updated_at, event=Event.OUT_OF_ATTEMPTS)
    not_asked = {"attempts": (Attempt(at=asked.updated_at, event=Event.NOT_DONE), last), "last_attempt": last}
    runtime().operations.save(asked.model_copy(update=not_asked), over=State.NEEDS_REVIEW)
    retried = crm.send("POST", "/operations/retry", {"state": "needs_review", "dry_run": False})
    assert [one["operation_id"] for one in retried.json()["operations"]] == [asked.operation_id]
    crm.stack.deliver_due()
    assert in_review(crm) == asked.operation_id
    question = crm.get(f"/operations/{asked.operation_id}").json()["attempts"][-1]["reason"]
    assert "somebody of this name is known in this club" in question
    assert len(egito.records["Contact"]) == 1


def test_nobody_is_asked_when_something_tells_a_namesake_apart(crm: Crm, egito: EgitoSimulator, asking: str) -> None:
    assert outcome(save(crm, email="other@mail.example", mobile="602 000 000")) == (201, "INFO")
    assert saved(crm, mobile=LEFT_OUT) == asking
    assert outcome(save(crm, lastname="Lis", **NAME_ALONE)) == (201, "INFO")
    assert len(egito.records["Contact"]) == 3


@pytest.mark.parametrize("kind", ["PROSPECT", "MEMBER"])
def test_every_save_tells_what_it_lacks_when_several_come_at_once(crm: Crm, kind: str) -> None:
    record_id = saved(crm, userType=kind)
    lacking = {"userType": kind, "leadOwner": "nobody@club.example", "leadSource": "Nowhere"}
    answers = at_once([partial(save, crm, record_id, **lacking)] * 6)
    assert {outcome(answer) for answer in answers} == {(200, "WARNING")}
    assert all("without its owner" in answer.json()["message"] for answer in answers)
    assert all("without its lead source" in answer.json()["message"] for answer in answers)


@pytest.mark.parametrize("kind", ["PROSPECT", "MEMBER"])
def test_an_overtaken_save_tells_what_it_lacks(crm: Crm, egito: EgitoSimulator, kind: str) -> None:
    record_id = saved(crm, userType=kind)
    egito.fail(Kind.UNAVAILABLE, seconds=1)
    late = save(crm, record_id, userType=kind, leadOwner="nobody@club.example", city="Gdynia")
    assert late.status_code == 202
    assert outcome(save(crm, record_id, userType=kind, leadOwner="8", city="Kraków")) == (200, "INFO")
    answer = in_the_end(crm, late)["result"]
    assert (answer["result"], "without its owner" in answer["message"]) == ("WARNING", True)
    assert (the_record(egito)["ownerId"], the_record(egito)["city"]) == ("8", "Kraków")


def test_is_a_new_person_with_a_warning_when_two_fit(crm: Crm, egito: EgitoSimulator) -> None:
    both = {saved(crm, uuid="u-1"), saved(crm, uuid="u-2")}
    answer = save(crm)
    assert outcome(answer) == (201, "WARNING")
    assert "Several people" in answer.json()["message"]
    assert answer.json()["recordID"] not in both
    assert len(egito.records["Contact"]) == len(both) + 1
    assert saved(crm) == answer.json()["recordID"]  # sent again, it is not yet another one


def test_is_a_new_person_with_a_warning_when_two_fit_that_the_connector_never_named(crm: Crm) -> None:
    ada = saved(crm, mobile="1")
    other = saved(crm, email="other@mail.example")
    saved(crm, other, mobile="2")
    answer = save(crm, uuid="u-1", mobile="3")
    assert outcome(answer) == (201, "WARNING")
    assert answer.json()["recordID"] not in (ada, other)
    again = save(crm, uuid="u-1", mobile="3")
    assert (outcome(again), again.json()["recordID"]) == ((200, "INFO"), answer.json()["recordID"])


def test_the_better_match_counts_when_several_match_a_little(crm: Crm) -> None:
    by_both = saved(crm, uuid="u-1")
    saved(crm, uuid="u-2", mobile="1")
    saved(crm, uuid="u-3", email="other@mail.example")
    assert saved(crm) == by_both


def test_is_bound_to_the_connectors_id_when_it_comes_later(crm: Crm, egito: EgitoSimulator) -> None:
    record_id = saved(crm)
    assert saved(crm, record_id, uuid="u-1") == record_id
    assert saved(crm, uuid="u-1", firstname="Eva", email="eva@mail.example") == record_id
    assert the_record(egito)["firstName"] == "Eva"


def test_our_id_counts_when_the_connectors_belongs_to_somebody_else(crm: Crm, egito: EgitoSimulator) -> None:
    ada, eva = saved(crm, uuid="u-1"), saved(crm, uuid="u-2", firstname="Eva", email="eva@mail.example")
    assert saved(crm, ada, uuid="u-2", city="Kraków") == ada
    assert [record["city"] for record in egito.records["Contact"]] == ["Kraków", ""]
    assert saved(crm, "u-2", firstname="Eva", email="eva@mail.example") == eva
    assert saved(crm, "u-1") == ada


def test_is_unknown_when_the_id_is_of_another_tenants_person(crm: Crm, egito: EgitoSimulator) -> None:
    crm.stack.put_secret("other", tenant(crm.stack))
    key = crm.stack.add_key("other", SCOPES, "another customer")
    theirs = saved(crm, key=key, uuid="u-1")
    before = dict(the_record(egito))
    for answer in (save(crm, theirs, city="Kraków"), save(crm, recordID=theirs, city="Kraków")):
        assert outcome(answer) == (404, "ERROR")
    assert the_record(egito) == before
    assert saved(crm, uuid="u-1") != theirs
    assert saved(crm, theirs, key=key) == theirs


def test_is_unknown_when_no_such_id_was_given(crm: Crm, egito: EgitoSimulator) -> None:
    unknown = f"p_{'0' * 32}"
    for answer in (save(crm, unknown), save(crm, recordID=unknown), save(crm, unknown, uuid="u-1")):
        assert outcome(answer) == (404, "ERROR")
    assert (egito.records["Contact"], rows("PEOPLE_TABLE")) == ([], [])


@pytest.mark.parametrize("record_id", ["5001", "p_1", f"p_{'G' * 32}", f"P_{'0' * 32}", f"p_{'0' * 33}"])
def test_is_invalid_when_our_id_is_malformed(crm: Crm, egito: EgitoSimulator, record_id: str) -> None:
    answer = save(crm, recordID=record_id)
    assert outcome(answer) == (422, "ERROR")
    assert [error["field"] for error in answer.json()["errors"]] == ["recordID"]
    assert record_id not in answer.text
    assert egito.seen == []


def test_is_invalid_when_address_and_body_name_two_people(crm: Crm) -> None:
    ada, eva = saved(crm, uuid="u-1"), saved(crm, uuid="u-2", firstname="Eva")
    for answer, field in ((save(crm, ada, recordID=eva), "recordID"), (save(crm, "u-1", uuid="u-2"), "uuid")):
        assert outcome(answer) == (422, "ERROR")
        assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_is_invalid_when_it_names_another_customer_or_club(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, clubs=CLUBS)
    for field, value in (("clientID", "c-8"), ("clubID", OTHER_CLUB), ("clubID", "nowhere")):
        answer = save(crm, **{field: value})
        assert outcome(answer) == (422, "ERROR")
        assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert egito.records["Contact"] == []
    assert outcome(save(crm, clientID=CLIENT, clubID=CONNECTOR_CLUB)) == (201, "INFO")


def test_keeps_its_id_when_it_moves_to_another_club(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, clubs=CLUBS)
    record_id = saved(crm)
    assert the_record(egito)["club"] == "Centre"
    assert saved(crm, record_id, club=OTHER_CLUB) == record_id
    assert the_record(egito)["club"] == "Harbour"
    assert saved(crm, club=OTHER_CLUB) == record_id
    assert saved(crm) != record_id  # the first club has nobody of this name any more


def test_the_same_name_and_address_in_another_club_is_somebody_else(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, clubs=CLUBS)
    assert saved(crm) != saved(crm, club=OTHER_CLUB)
    assert [record["club"] for record in egito.records["Contact"]] == ["Centre", "Harbour"]


@pytest.mark.parametrize(
    "changes",
    [
        {"lastname": "Lis"},
        {"email": "ada@post.example", "mobile": LEFT_OUT},
        {"mobile": "+48 700 000 000", "email": LEFT_OUT},
    ],
    ids=["name", "e-mail", "mobile"],
)
def test_is_found_under_what_is_new_and_not_under_what_was(crm: Crm, changes: dict[str, Any]) -> None:
    # Either is all by which it can be recognised.
    before: dict[str, Any] = {name: LEFT_OUT for name, value in changes.items() if value is LEFT_OUT}
    record_id = saved(crm, **before)
    assert saved(crm, record_id, **changes) == record_id
    assert saved(crm, **changes) == record_id
    assert saved(crm, **before) != record_id
    assert saved(crm, **changes) == record_id


def test_is_not_found_under_what_was_emptied(crm: Crm) -> None:
    record_id = saved(crm, mobile=LEFT_OUT)
    saved(crm, record_id, email="", mobile=LEFT_OUT)
    assert saved(crm, mobile=LEFT_OUT) != record_id


def test_names_and_addresses_stand_in_no_table_but_in_a_payload_that_expires(crm: Crm, egito: EgitoSimulator) -> None:
    zofia = {**EVERYTHING, "firstname": "Zofia", "email": "zofia@mail.example"}  # "ada" may stand in any hash
    wanda = {**EVERYTHING_ELSE, "firstname": "Wanda", "email": "wanda@post.example"}
    egito.fail(Kind.CLOSE_AFTER)
    accepted = save(crm, uuid="u-1", **zofia)
    crm.settle(accepted)
    record_id = accepted.json()["recordID"]
    saved(crm, record_id, **wanda)
    egito.required["Contact"] = ("lastName", "notes")
    assert outcome(save(crm, **zofia)) == (422, "ERROR")
    tables = {name: rows(name) for name in ("PEOPLE_TABLE", "LOCKS_TABLE", "LINKS_TABLE", "OPERATIONS_TABLE")}
    kept = [row for row in tables["OPERATIONS_TABLE"] if "state" not in row]  # for an unlink of what was found; calls
    assert {row["operation_id"].partition("#")[2] for row in kept} == {"payload", "failed"}
    assert all(row["expires_at"] < runtime().clock() + 91 * 86400 for row in kept)
    tables["OPERATIONS_TABLE"] = [row for row in tables["OPERATIONS_TABLE"] if row not in kept]
    assert {row["state"] for row in tables["OPERATIONS_TABLE"]} == {"succeeded", "rejected"}
    texts = {name: json.dumps(found, default=str, ensure_ascii=False).casefold() for name, found in tables.items()}
    assert not [name for name, text in texts.items() if record_id not in text]  # it was looked where people are
    names = ("firstname", "lastname", "email", "mobile", "homePhone", "address1", "company", "birthdate")
    sought = [str(person[name]).casefold() for person in (zofia, wanda) for name in names]
    sought += ["48601234567", "48602000111", "zofianowak", "wandanowakowska"]
    assert not [(name, one) for name, text in texts.items() for one in sought if one in text]

"""The InTouch Connector saves people, and its set-up is checked."""

from typing import Any, Literal

import pytest
import requests

from crm_bridge.vendors.egito_settings import PERSON_FIELDS
from local.stack import SCOPES
from local.vendors.egito import CLIENT, CLUB, CONNECTOR_CLUB, EgitoSimulator
from local.vendors.simulator import Kind, json_response
from tests.connector import CallFailedError, Connector, Language, Person
from tests.integration.conftest import Crm
from tests.integration.connector.conftest import (
    ADA,
    EVERYTHING,
    EVERYTHING_ELSE,
    LEAD_AND_CONTACT,
    LEFT_OUT,
    call,
    calls,
    change_tenant,
    connector,
    fields_of,
    in_the_end,
    outcome,
    save,
    saved,
    the_record,
)
from tests.stack import Stack

# ---------------------------------------------------------------- saved


def test_makes_a_record_and_tells_its_id_when_a_prospect_is_new(crm: Crm, egito: EgitoSimulator) -> None:
    answer = save(crm)
    assert answer.status_code == 201
    body = answer.json()
    assert body.pop("operation_id").startswith("op_")
    record_id = body.pop("recordID")
    assert body == {"result": "INFO", "message": "Saved as a new prospect."}
    record = the_record(egito)
    assert fields_of(record, ADA) == ADA
    assert (record["club"], record["externalId"]) == ("Centre", record_id)


def test_every_field_arrives_where_the_map_says_when_it_is_new(crm: Crm, egito: EgitoSimulator) -> None:
    assert EVERYTHING.keys() == PERSON_FIELDS.keys()
    assert outcome(save(crm, **EVERYTHING)) == (201, "INFO")
    assert fields_of(the_record(egito), PERSON_FIELDS) == EVERYTHING


def test_every_field_arrives_where_the_map_says_when_it_has_changed(crm: Crm, egito: EgitoSimulator) -> None:
    assert not [name for name, value in EVERYTHING.items() if EVERYTHING_ELSE[name] == value]
    record_id = saved(crm, **EVERYTHING)
    assert outcome(save(crm, record_id, **EVERYTHING_ELSE)) == (200, "INFO")
    assert fields_of(the_record(egito), PERSON_FIELDS) == EVERYTHING_ELSE


def test_only_the_field_that_was_sent_changes(crm: Crm, egito: EgitoSimulator) -> None:
    record_id = saved(crm, **EVERYTHING)
    before = {**the_record(egito), "notes": "likes to swim"}
    egito.records["Contact"][0]["notes"] = "likes to swim"
    saved(crm, record_id, city="Gdańsk")
    assert the_record(egito) == {**before, "city": "Gdańsk"}


def test_fields_and_their_values_are_called_as_the_tenant_says(crm: Crm, egito: EgitoSimulator) -> None:
    fields = {"firstname": "lastName", "gender": {"field": "notes", "values": {"F": "pani", "M": "pan"}}}
    change_tenant(crm.stack, prospects={"fields": fields, "reference": "externalId"})
    record_id = saved(crm, gender="F")
    sent = {name: value for name, value in the_record(egito).items() if value}
    assert sent == {"id": 5001, "lastName": "Ada", "notes": "pani", "club": "Centre", "externalId": record_id}


def test_defaults_are_set_where_nothing_was_sent_and_only_in_new_records(crm: Crm, egito: EgitoSimulator) -> None:
    people = {"reference": "externalId", "defaults": {"notes": "by the bridge", "country": "PL", "gender": "F"}}
    change_tenant(crm.stack, prospects=people, members=people)
    record_id = saved(crm, country="DE")
    record = the_record(egito)
    assert (record["notes"], record["country"], record["gender"]) == ("by the bridge", "DE", "F")
    record |= {"notes": "", "gender": "M"}
    saved(crm, record_id, city="Kraków")
    record = the_record(egito)
    assert (record["notes"], record["country"], record["gender"], record["city"]) == ("", "DE", "M", "Kraków")


def test_is_not_written_again_when_nothing_changed(crm: Crm, egito: EgitoSimulator) -> None:
    first = save(crm, uuid="u-1", **EVERYTHING)
    again = save(crm, uuid="u-1", **EVERYTHING)
    assert (outcome(again), again.json()["recordID"]) == ((200, "INFO"), first.json()["recordID"])
    assert (len(egito.records["Contact"]), calls(egito, "create"), calls(egito, "update")) == (1, 1, 0)


def test_what_is_left_out_or_null_stays_and_what_is_empty_is_emptied(crm: Crm, egito: EgitoSimulator) -> None:
    record_id = saved(crm, **EVERYTHING)
    optional = EVERYTHING.keys() - {"firstname", "lastname", "userType", "userStatus"}
    saved(crm, record_id, email=LEFT_OUT, mobile=LEFT_OUT)
    assert fields_of(the_record(egito), optional) == {name: EVERYTHING[name] for name in optional}
    nulls: dict[str, Any] = dict.fromkeys(optional)
    saved(crm, record_id, **nulls)
    assert fields_of(the_record(egito), optional) == {name: EVERYTHING[name] for name in optional}
    assert outcome(save(crm, record_id, **dict.fromkeys(optional, ""))) == (200, "INFO")
    assert fields_of(the_record(egito), optional) == dict.fromkeys(optional, "")


@pytest.mark.parametrize("kind", ["PROSPECT", "MEMBER"])
def test_a_status_is_sent_when_it_is_inactive(crm: Crm, egito: EgitoSimulator, kind: str) -> None:
    record_id = saved(crm, userType=kind)
    saved(crm, record_id, userType=kind, userStatus="inactive")
    assert the_record(egito)["status"] == "INACTIVE"
    saved(crm, record_id, userType=kind)
    assert the_record(egito)["status"] == "ACTIVE"


def test_is_accepted_at_once_when_the_caller_prefers_that(crm: Crm, egito: EgitoSimulator) -> None:
    accepted = crm.post(f"/connector/clubs/{CLUB}/prospects", ADA, headers={"Prefer": "respond-async"})
    assert (outcome(accepted), egito.seen) == ((202, "WARNING"), [])
    assert crm.settle(accepted)["state"] == "succeeded"
    assert the_record(egito)["externalId"] == accepted.json()["recordID"]


@pytest.mark.parametrize("body_format", ["json", "form"])
@pytest.mark.parametrize("token_in", ["header", "query"])
def test_is_saved_whichever_way_egito_is_called(
    crm: Crm, egito: EgitoSimulator, body_format: str, token_in: Literal["header", "query"]
) -> None:
    egito.token_in = token_in
    change_tenant(crm.stack, body_format=body_format, token_in=token_in, token_parameters="body")
    record_id = saved(crm, **EVERYTHING)
    saved(crm, record_id, **EVERYTHING_ELSE)
    assert fields_of(the_record(egito), PERSON_FIELDS) == EVERYTHING_ELSE


@pytest.mark.parametrize("ids", ["number", "text"])
@pytest.mark.parametrize("answers_only_id", [True, False])
def test_is_saved_whatever_egitos_answers_look_like(
    crm: Crm, egito: EgitoSimulator, ids: Literal["number", "text"], answers_only_id: bool
) -> None:
    egito.ids, egito.answers_only_id = ids, answers_only_id
    record_id = saved(crm)
    saved(crm, record_id, city="Kraków")
    assert (the_record(egito)["city"], the_record(egito)["lastName"]) == ("Kraków", "Nowak")


@pytest.mark.parametrize("shape", ["data", "entity", "rows", "nested"])
def test_a_change_arrives_when_egitos_record_is_in_a_wrapper(
    crm: Crm, egito: EgitoSimulator, shape: Literal["data", "entity", "rows", "nested"]
) -> None:
    egito.record_shape = shape
    record_id = saved(crm)
    answer = save(crm, record_id, city="Kraków")
    assert outcome(answer) == (200, "INFO")
    assert (the_record(egito)["city"], the_record(egito)["lastName"]) == ("Kraków", "Nowak")


def test_a_change_waits_when_egitos_record_is_in_a_shape_that_is_not_understood(
    crm: Crm, egito: EgitoSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_id = saved(crm)
    with monkeypatch.context() as patch:
        patch.setattr(egito, "_shown", lambda _entity, record: json_response({"payload": record}))
        answer = save(crm, record_id, city="Kraków")
        assert outcome(answer) == (202, "WARNING")
        assert "has an unknown form" in answer.json()["reason"]
    assert in_the_end(crm, answer)["state"] == "succeeded"
    assert the_record(egito)["city"] == "Kraków"


def test_a_token_that_was_revoked_is_replaced(crm: Crm, egito: EgitoSimulator) -> None:
    record_id = saved(crm)
    egito.revoke(refresh_too=True)
    assert outcome(save(crm, record_id, city="Kraków")) == (200, "INFO")
    assert the_record(egito)["city"] == "Kraków"


@pytest.mark.parametrize("kind", [Kind.UNAVAILABLE, Kind.CLOSE_AFTER, Kind.ERROR_BEFORE, Kind.HTML])
def test_is_saved_later_when_no_token_could_be_had(crm: Crm, egito: EgitoSimulator, kind: Kind) -> None:
    egito.fail_token(kind)
    accepted = save(crm)
    assert outcome(accepted) == (202, "WARNING")
    assert crm.settle(accepted)["state"] == "succeeded"
    assert the_record(egito)["externalId"] == accepted.json()["recordID"]


# ---------------------------------------------------------------- the Connector itself


@pytest.mark.parametrize("language", ["json", "xml"])
def test_the_connector_saves_a_person_from_the_first_visit_to_the_end(
    stack: Stack, egito: EgitoSimulator, language: Language
) -> None:
    theirs = connector(stack, language)
    fields = {name: str(value) for name, value in ADA.items()}
    ada = Person("u-1", fields, owner_email="OLA@club.example", lead_source_name="walk-in")
    assert [theirs.save(ada).result, ada.record_id] == ["INFO", the_record(egito)["externalId"]]
    assert (the_record(egito)["ownerId"], the_record(egito)["source"]) == ("9", "2")
    ada.fields |= {"userType": "MEMBER", "company": "Acme & Sons <Ltd>"}
    assert theirs.save(ada).result == "INFO"
    ada.fields["birthdate"] = "yesterday"
    failed = theirs.save(ada)
    assert (failed.status, failed.result) == (422, "ERROR")
    assert "birthdate" in failed.message
    ada.fields["birthdate"] = ""
    assert theirs.save(ada, by_id=False).result == "INFO"
    assert (the_record(egito)["type"], the_record(egito)["company"]) == ("MEMBER", "Acme & Sons <Ltd>")
    assert [line.result for line in theirs.log] == ["INFO", "INFO", "ERROR", "INFO"]


@pytest.mark.parametrize("language", ["json", "xml"])
def test_the_connector_saves_a_person_whose_lead_source_it_has_just_made(
    stack: Stack, egito: EgitoSimulator, language: Language
) -> None:
    theirs = connector(stack, language)
    fields = {name: str(value) for name, value in ADA.items()}
    answer = theirs.save(Person("u-1", fields, lead_source_name="Facebook"))
    assert (answer.status, answer.result) == (201, "INFO")
    assert the_record(egito)["source"] == str(egito.dictionaries["leadSource"][-1]["id"])


# ---------------------------------------------------------------- who may, and the set-up


def test_basic_credentials_are_the_key_whoever_the_user_is(crm: Crm, egito: EgitoSimulator) -> None:
    url = f"{crm.stack.url}/connector/clubs/{CLUB}/prospects"
    for user in (CLIENT, "connector"):
        answer = requests.post(url, json=ADA, auth=(user, crm.stack.api_key), timeout=60)
        assert answer.status_code in (200, 201)
    refused = requests.post(url, json=ADA, auth=(CLIENT, "crmb_wrong"), timeout=60)
    assert outcome(refused) == (401, "ERROR")
    assert len(egito.records["Contact"]) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/prospects"),
        ("PUT", "/prospects/u-1"),
        ("POST", "/members"),
        ("PUT", "/members/u-1"),
        ("GET", "/staff"),
        ("GET", "/lead-sources"),
        ("POST", "/lead-sources"),
        ("PUT", "/lead-sources/1"),
        ("GET", "/check"),
    ],
)
def test_is_for_keys_with_its_scope_and_for_clubs_of_the_tenant(
    crm: Crm, egito: EgitoSimulator, method: Literal["GET", "POST", "PUT"], path: str
) -> None:
    body = None if method == "GET" else {"name": "Radio"} if "lead-sources" in path else ADA
    key = crm.stack.add_key("demo", SCOPES - {"connector_receiver"}, "another flow's")
    assert outcome(call(crm, method, path, body, key=key)) == (403, "ERROR")
    assert outcome(call(crm, method, path, body, club="nowhere")) == (404, "ERROR")
    assert egito.seen == []
    assert call(crm, method, path, body, club=CONNECTOR_CLUB).status_code in (200, 201)


def test_a_club_is_the_same_by_either_id(crm: Crm, egito: EgitoSimulator) -> None:
    assert saved(crm) == saved(crm, club=CONNECTOR_CLUB)
    assert the_record(egito)["club"] == "Centre"


def test_the_check_tells_the_turn_up_and_what_it_could_see(crm: Crm) -> None:
    response = call(crm, "GET", "/check")
    assert response.status_code == 200
    assert response.json() == {
        "turnUp": {
            "clientID": CLIENT,
            "scheme": "https",
            "host": None,
            "user": "connector",
            "clubs": [{"clubID": CLUB, "connectorID": CONNECTOR_CLUB}],
        },
        "maps": {
            kind: {"entity": "Contact", "compared": False, "missing": [], "notMapped": []}
            for kind in ("prospect", "member")
        },
        "staff": {"count": 3},
        "leadSources": {"count": 2},
    }


def test_the_check_names_the_fields_that_do_not_fit_and_shows_no_values(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **{**LEAD_AND_CONTACT, "members": {"defaults": {"tier": "gold"}, "reference": "guid"}})
    egito.fields["Contact"] = (*(name for name in egito.fields["Contact"] if name != "gender"), "vatNumber")
    lead = egito.add("Lead", lastName="Topsecret", notes="Topsecret")
    contact = egito.add("Contact", lastName="Topsecret", vatNumber="Topsecret")
    response = call(crm, "GET", f"/check?prospect={lead['id']}&member={contact['id']}")
    assert response.status_code == 200
    prospects, members = response.json()["maps"]["prospect"], response.json()["maps"]["member"]
    assert (prospects["entity"], prospects["compared"], prospects["missing"]) == ("Lead", True, [])
    assert prospects["notMapped"] == []
    assert (members["entity"], members["compared"]) == ("Contact", True)
    assert members["missing"] == ["gender", "guid", "tier"]
    assert members["notMapped"] == ["externalId", "notes", "vatNumber"]
    assert "topsecret" not in response.text.casefold()


def test_the_check_minds_the_fields_of_the_clubs(crm: Crm, egito: EgitoSimulator) -> None:
    clubs: dict[str, Any] = {CLUB: {"connector_id": CONNECTOR_CLUB, "fields": {"club": "Centre", "clubb": "x"}}}
    change_tenant(crm.stack, clubs=clubs)
    contact = egito.add("Contact", lastName="Nowak")
    response = call(crm, "GET", f"/check?member={contact['id']}").json()["maps"]["member"]
    assert (response["missing"], response["notMapped"]) == (["clubb"], ["notes"])


def test_the_check_says_why_when_egito_shows_no_staff(crm: Crm, egito: EgitoSimulator) -> None:
    egito.forbidden = {("User", "list"), ("SelectDictionary", "list")}
    response = call(crm, "GET", "/check").json()
    assert response["staff"] == response["leadSources"] == {"count": None, "reason": "Egito: Access denied"}


@pytest.mark.parametrize("missing", ["errors", "404", "null", "empty"])
def test_the_check_finds_no_record_when_there_is_none(
    crm: Crm, egito: EgitoSimulator, missing: Literal["errors", "404", "null", "empty"]
) -> None:
    egito.missing_record = missing
    answer = call(crm, "GET", "/check?prospect=999")
    assert outcome(answer) == (404, "ERROR")
    assert "Contact 999" in answer.json()["message"]


def test_lists_fail_when_egito_does_not_answer(crm: Crm, egito: EgitoSimulator) -> None:
    egito.fail(Kind.UNAVAILABLE, times=2, method="GET")
    assert outcome(call(crm, "GET", "/staff")) == (503, "ERROR")
    theirs = Connector(crm.stack.url, CLUB, user=CLIENT, password=crm.stack.api_key, attempts=1)
    with pytest.raises(CallFailedError):
        theirs.fetch_lead_sources()

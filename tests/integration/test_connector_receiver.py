"""connector_receiver from the Connector's call to Egito and back, over real HTTP."""

import json
import os
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal

import boto3
import pytest
import requests
from werkzeug.wrappers import Request, Response

from connector_receiver import people
from crm_bridge.runtime import runtime
from crm_bridge.vendors.egito_settings import PERSON_FIELDS
from local.stack import SCOPES
from local.vendors.alterations import ALTERATIONS
from local.vendors.egito import CLIENT, CLUB, CONNECTOR_CLUB, EgitoSimulator, Record
from local.vendors.simulator import Kind, json_response
from tests.connector import CallFailedError, Connector, Language, Person
from tests.integration.conftest import Crm
from tests.stack import Stack

LEFT_OUT = object()
"""Stands for a field that is not sent at all; None is sent as null."""
ADA: dict[str, Any] = {
    "firstname": "Ada",
    "lastname": "Nowak",
    "userType": "PROSPECT",
    "userStatus": "ACTIVE",
    "email": "ada@mail.example",
    "mobile": "+48 601 234 567",
}
EVERYTHING: dict[str, Any] = {
    **ADA,
    "birthdate": "1990-12-31",
    "gender": "F",
    "address1": "ul. Długa 7",
    "address2": "m. 12",
    "city": "Kraków",
    "zipcode": "30-001",
    "state": "Małopolskie",
    "country": "PL",
    "homePhone": "12 345 67 89",
    "workPhone": "12 987 65 43",
    "company": "Acme & Sons <Ltd>",
    "trialStartDate": "2024-05-01",
    "trialEndDate": "2024-05-31",
    "leadOwner": "8",
    "leadSource": "2",
}
EVERYTHING_ELSE: dict[str, Any] = {
    "firstname": "Adela",
    "lastname": "Nowakowska",
    "userType": "MEMBER",
    "userStatus": "INACTIVE",
    "email": "adela@post.example",
    "mobile": "+48 602 000 111",
    "birthdate": "1991-01-30",
    "gender": "M",
    "address1": "ul. Krótka 8",
    "address2": "m. 13",
    "city": "Gdańsk",
    "zipcode": "80-001",
    "state": "Pomorskie",
    "country": "DE",
    "homePhone": "58 111 22 33",
    "workPhone": "58 444 55 66",
    "company": "Bravo",
    "trialStartDate": "2024-06-01",
    "trialEndDate": "2024-06-30",
    "leadOwner": "9",
    "leadSource": "1",
}
OTHER_CLUB = "k-4"
CLUBS: dict[str, Any] = {
    CLUB: {"connector_id": CONNECTOR_CLUB, "fields": {"club": "Centre"}},
    OTHER_CLUB: {"connector_id": "2c8f3a", "fields": {"club": "Harbour"}},
}
WITHOUT_REFERENCE: dict[str, Any] = {"prospects": {"entity": "Contact"}, "members": {"entity": "Contact"}}
LEAD_AND_CONTACT: dict[str, Any] = {
    "prospects": {"entity": "Lead", "reference": "externalId", "on_conversion": {"notes": "won"}},
    "members": {"entity": "Contact", "reference": "externalId"},
}
STATES = ("sending", "succeeded", "rejected", "waiting", "unconfirmed", "needs_review")
KINDS = [kind for kind in Kind if kind is not Kind.REFUSE]


@pytest.fixture
def egito(stack: Stack) -> EgitoSimulator:
    return stack.egito


def change_tenant(stack: Stack, *, clubs: dict[str, Any] | None = None, **egito: object) -> None:
    """Members of the tenant's egito block, and its clubs; the function knows them at once."""
    stack.put_secret("demo", tenant(stack, clubs=clubs, **egito))
    runtime().engine.tenants.get("demo", "connector_receiver", fresh=True)


def tenant(stack: Stack, *, clubs: dict[str, Any] | None = None, **egito: object) -> str:
    document = json.loads(stack.demo_tenant())
    document["egito"] |= egito
    document["connector"] |= {"clubs": clubs} if clubs else {}
    return json.dumps(document)


def call(
    crm: Crm,
    method: Literal["GET", "POST", "PUT"],
    path: str,
    body: object = None,
    *,
    club: str = CLUB,
    key: str | None = None,
) -> requests.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else crm.headers
    url = f"{crm.stack.url}/connector/clubs/{club}{path}"
    return crm.session.request(method, url, json=body, headers=headers, timeout=60)


def save(
    crm: Crm, at: str | None = None, *, club: str = CLUB, key: str | None = None, **changes: object
) -> requests.Response:
    """Ada with changes, sent as a new record, or to the one with the id `at`."""
    body = {name: value for name, value in {**ADA, **changes}.items() if value is not LEFT_OUT}
    path = "/prospects" if body["userType"] == "PROSPECT" else "/members"
    return call(crm, *(("PUT", f"{path}/{at}") if at else ("POST", path)), body, club=club, key=key)


def saved(crm: Crm, at: str | None = None, *, club: str = CLUB, key: str | None = None, **changes: object) -> str:
    """The recordID that such a save gives."""
    answer = save(crm, at, club=club, key=key, **changes)
    assert answer.status_code in (200, 201), answer.text
    record_id: str = answer.json()["recordID"]
    return record_id


def outcome(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["result"]


def the_record(egito: EgitoSimulator, entity: str = "Contact") -> Record:
    """The only one that there is."""
    (record,) = egito.records[entity]
    return record


def calls(egito: EgitoSimulator, method: str) -> int:
    """How often it was called at any entity."""
    return sum(seen.path.endswith(f"/{method}") for seen in egito.seen)


def states(crm: Crm) -> Counter[str]:
    """How many operations are in each state."""
    return Counter({state: len(found) for state in STATES if (found := operations(crm, state))})


def operations(crm: Crm, state: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = crm.get(f"/operations?state={state}&limit=100").json()["operations"]
    return found


def in_the_end(crm: Crm, answer: requests.Response) -> dict[str, Any]:
    """The operation behind any answer, settled."""
    answer.headers.setdefault("Location", f"/operations/{answer.json()['operation_id']}")
    return crm.settle(answer)


def in_review(crm: Crm) -> str:
    """The id of the operation that, some time later, a person has to decide about."""
    for _ in range(10):
        if found := operations(crm, "needs_review"):
            (operation,) = found
            return str(operation["operation_id"])
        crm.stack.move_clock(60)
        crm.stack.deliver_due()
    raise AssertionError(f"nothing needs review: {states(crm)}")


def resolve(crm: Crm, operation_id: str, action: str, vendor_id: object = None) -> requests.Response:
    named = {"id": vendor_id, "confirmed": True} if vendor_id else {}
    return crm.post(f"/operations/{operation_id}/resolve", {"action": action, **named})


def rows(table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = boto3.resource("dynamodb").Table(os.environ[table]).scan()["Items"]
    return found


def lead_sources(crm: Crm) -> list[tuple[str, str, bool]]:
    answer = call(crm, "GET", "/lead-sources")
    assert answer.status_code == 200, answer.text
    return [(one["id"], one["name"], one["active"]) for one in answer.json()["leadSources"]]


def add_lead_source(crm: Crm, name: str) -> requests.Response:
    return call(crm, "POST", "/lead-sources", {"name": name})


def change_lead_source(crm: Crm, lead_source_id: str, name: str, **more: object) -> requests.Response:
    return call(crm, "PUT", f"/lead-sources/{lead_source_id}", {"name": name, **more})


def connector(stack: Stack, language: Language = "json", *, club: str = CONNECTOR_CLUB) -> Connector:
    return Connector(stack.url, club, user=CLIENT, password=stack.api_key, language=language)


def at_once[T](works: Sequence[Callable[[], T]]) -> list[T]:
    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result() for future in [pool.submit(work) for work in works]]


def all_saved(crm: Crm, answers: Iterable[requests.Response]) -> bool:
    """Whether all of them are, at once or after a while."""
    answers = list(answers)
    later = [crm.settle(answer)["state"] for answer in answers if answer.status_code == 202]
    return {answer.status_code for answer in answers} <= {200, 201, 202} and set(later) <= {"succeeded"}


def fields_of(record: Record, names: Iterable[str]) -> dict[str, Any]:
    return {name: record[PERSON_FIELDS[name]] for name in names}


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
        assert "in a shape that is not understood" in answer.json()["reason"]
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
        pytest.param({"uuid": "u-1"}, id="name, e-mail and mobile, and the Connector's id that was not told before"),
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
def test_two_without_address_and_number_are_two_people_and_both_are_told(
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
    document = json.loads(crm.stack.demo_tenant())
    document["connector"] |= {"ask_about_namesakes": True}
    crm.stack.put_secret("demo", json.dumps(document))
    runtime().engine.tenants.get("demo", "connector_receiver", fresh=True)
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


def test_is_bound_to_the_connectors_id_when_it_is_told_later(crm: Crm, egito: EgitoSimulator) -> None:
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
    (kept,) = (row for row in tables["OPERATIONS_TABLE"] if "state" not in row)  # for an unlink of what was found
    assert (kept["operation_id"][-8:], kept["expires_at"] < runtime().clock() + 91 * 86400) == ("#payload", True)
    tables["OPERATIONS_TABLE"].remove(kept)
    assert {row["state"] for row in tables["OPERATIONS_TABLE"]} == {"succeeded", "rejected"}
    texts = {name: json.dumps(found, default=str, ensure_ascii=False).casefold() for name, found in tables.items()}
    assert not [name for name, text in texts.items() if record_id not in text]  # it was looked where people are
    names = ("firstname", "lastname", "email", "mobile", "homePhone", "address1", "company", "birthdate")
    sought = [str(person[name]).casefold() for person in (zofia, wanda) for name in names]
    sought += ["48601234567", "48602000111", "zofianowak", "wandanowakowska"]
    assert not [(name, one) for name, text in texts.items() for one in sought if one in text]


# ---------------------------------------------------------------- in which order


def test_is_made_when_an_update_comes_before_the_create(crm: Crm, egito: EgitoSimulator) -> None:
    updated = save(crm, "u-1", city="Kraków")
    assert outcome(updated) == (201, "INFO")
    created = save(crm, uuid="u-1", company="Acme")
    assert (outcome(created), created.json()["recordID"]) == ((200, "INFO"), updated.json()["recordID"])
    assert (the_record(egito)["city"], the_record(egito)["company"]) == ("Kraków", "Acme")


@pytest.mark.parametrize("settings", [{}, LEAD_AND_CONTACT], ids=["one entity", "Lead and Contact"])
@pytest.mark.parametrize("kind", ["MEMBER", "EX-MEMBER"])
def test_stays_a_member_when_the_prospect_comes_after_it(
    crm: Crm, egito: EgitoSimulator, kind: str, settings: dict[str, Any]
) -> None:
    change_tenant(crm.stack, **settings)
    record_id = saved(crm, uuid="u-1", userType=kind)
    late = save(crm, uuid="u-1", city="Kraków")
    assert (outcome(late), late.json()["recordID"]) == ((200, "WARNING"), record_id)
    assert "member" in late.json()["message"]
    assert (the_record(egito)["type"], the_record(egito)["city"]) == (kind, "Kraków")
    assert egito.records["Lead"] == []


def test_keeps_id_and_record_when_a_prospect_becomes_a_member_and_leaves(crm: Crm, egito: EgitoSimulator) -> None:
    record_id = saved(crm, city="Kraków")
    for kind in ("MEMBER", "EX-MEMBER", "MEMBER"):
        answer = save(crm, record_id, userType=kind)
        assert (outcome(answer), answer.json()["recordID"]) == ((200, "INFO"), record_id)
        assert (the_record(egito)["type"], the_record(egito)["city"]) == (kind, "Kraków")


@pytest.mark.parametrize("written", ["EX-MEMBER", "ex-member", "EX_MEMBER", "ExMember", "Ex Member"])
def test_an_ex_member_is_one_however_it_is_written(crm: Crm, egito: EgitoSimulator, written: str) -> None:
    assert outcome(save(crm, userType=written)) == (201, "INFO")
    assert the_record(egito)["type"] == "EX-MEMBER"


def test_adds_only_what_a_later_save_did_not_have_when_it_waited(crm: Crm, egito: EgitoSimulator) -> None:
    record_id = saved(crm)
    egito.fail(Kind.UNAVAILABLE, method="GET")
    waiting = save(crm, record_id, city="Kraków", company="Acme")
    assert outcome(waiting) == (202, "WARNING")
    assert outcome(save(crm, record_id, city="Gdańsk", zipcode="80-001")) == (200, "INFO")
    assert crm.settle(waiting)["state"] == "succeeded"
    record = the_record(egito)
    assert (record["city"], record["zipCode"], record["company"]) == ("Gdańsk", "80-001", "Acme")


def test_is_not_needed_when_a_later_save_had_all_of_it(crm: Crm, egito: EgitoSimulator) -> None:
    record_id = saved(crm, userType="MEMBER")
    egito.fail(Kind.UNAVAILABLE, method="GET")
    waiting = save(crm, record_id, userType="MEMBER", city="Kraków")
    saved(crm, record_id, userType="MEMBER", city="Gdańsk")
    operation = crm.settle(waiting)
    assert (operation["state"], operation["result"]["recordID"]) == ("succeeded", record_id)
    assert "later save" in operation["result"]["message"]
    assert the_record(egito)["city"] == "Gdańsk"


@pytest.mark.parametrize("kind", [Kind.CLOSE_AFTER, Kind.ERROR_AFTER, Kind.CLOSE_BEFORE])
def test_the_later_save_counts_when_the_answer_of_the_earlier_was_lost(
    crm: Crm, egito: EgitoSimulator, kind: Kind
) -> None:
    record_id = saved(crm)
    egito.fail(kind)
    earlier = save(crm, record_id, city="Kraków", company="Acme")
    assert outcome(earlier) == (202, "WARNING")
    crm.stack.move_clock(60)  # until what was sent is surely over
    saved(crm, record_id, city="Gdańsk")
    assert crm.settle(earlier)["state"] == "succeeded"
    assert (the_record(egito)["city"], the_record(egito)["company"]) == ("Gdańsk", "Acme")


def test_the_last_save_counts_when_the_first_waits_for_its_record(crm: Crm, egito: EgitoSimulator) -> None:
    egito.fail(Kind.UNAVAILABLE)
    waiting = [save(crm, uuid="u-1", city=city) for city in ("Kraków", "Gdańsk", "Gdynia")]
    waiting.append(save(crm, uuid="u-1", company="Acme"))
    assert outcome(waiting[0]) == (202, "WARNING")
    assert len({answer.json()["recordID"] for answer in waiting}) == 1
    assert all_saved(crm, waiting)
    assert (the_record(egito)["city"], the_record(egito)["company"]) == ("Gdynia", "Acme")


def test_stays_a_member_when_the_prospects_save_waited(crm: Crm, egito: EgitoSimulator) -> None:
    record_id = saved(crm)
    egito.fail(Kind.UNAVAILABLE, method="GET")
    waiting = save(crm, record_id, city="Kraków")
    saved(crm, record_id, userType="MEMBER")
    assert crm.settle(waiting)["state"] == "succeeded"
    assert (the_record(egito)["type"], the_record(egito)["city"]) == ("MEMBER", "Kraków")


def test_a_save_that_waited_does_not_move_its_person_back_to_the_earlier_club(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, clubs=CLUBS)
    record_id = saved(crm)
    egito.fail(Kind.UNAVAILABLE, method="GET")
    waiting = save(crm, record_id, company="Acme")
    saved(crm, record_id, club=OTHER_CLUB)
    assert crm.settle(waiting)["state"] == "succeeded"
    assert (the_record(egito)["company"], the_record(egito)["club"]) == ("Acme", "Harbour")


# ---------------------------------------------------------------- two entities


def test_a_member_takes_over_what_the_lead_had_when_it_is_converted(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    record_id = saved(crm, **EVERYTHING)
    assert egito.records["Contact"] == []
    lead = dict(the_record(egito, "Lead"))
    assert fields_of(lead, PERSON_FIELDS) == EVERYTHING
    sent = {"userType": "MEMBER", "city": "Gdańsk", "company": ""}
    answer = save(crm, record_id, **sent)
    assert answer.status_code == 201  # a record that was not there before
    assert (answer.json()["result"], answer.json()["recordID"]) == ("INFO", record_id)
    contact = the_record(egito)
    assert fields_of(contact, PERSON_FIELDS) == {**EVERYTHING, **sent}
    assert (contact["club"], contact["externalId"], contact["notes"]) == ("Centre", record_id, "")
    assert the_record(egito, "Lead") == {**lead, "notes": "won"}


def test_a_member_is_converted_once(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    record_id = saved(crm)
    assert {saved(crm, record_id, userType="MEMBER", city=city) for city in ("Kraków", "Gdańsk")} == {record_id}
    assert saved(crm, record_id, userType="EX-MEMBER") == record_id
    assert (len(egito.records["Lead"]), len(egito.records["Contact"])) == (1, 1)
    assert (the_record(egito)["city"], the_record(egito)["type"]) == ("Gdańsk", "EX-MEMBER")
    # Three times something changed at the Contact or the Lead: the conversion, the other city, the other type.
    assert (calls(egito, "create"), calls(egito, "update")) == (2, 3)


def test_defaults_do_not_hide_what_the_lead_had(crm: Crm, egito: EgitoSimulator) -> None:
    members = {
        "entity": "Contact",
        "reference": "externalId",
        "defaults": {"city": "Warszawa", "region": "Mazowieckie"},
    }
    change_tenant(crm.stack, **{**LEAD_AND_CONTACT, "members": members})
    record_id = saved(crm, city="Kraków")
    saved(crm, record_id, userType="MEMBER")
    assert (the_record(egito)["city"], the_record(egito)["region"]) == ("Kraków", "Mazowieckie")


@pytest.mark.parametrize("kind", [Kind.UNAVAILABLE, Kind.CLOSE_AFTER, Kind.ERROR_BEFORE])
def test_a_conversion_is_completed_when_it_failed_half_way(crm: Crm, egito: EgitoSimulator, kind: Kind) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    record_id = saved(crm, city="Kraków")
    egito.fail(kind)
    converted = save(crm, record_id, userType="MEMBER")
    assert (outcome(converted), converted.json()["recordID"]) == ((202, "WARNING"), record_id)
    assert crm.settle(converted)["state"] == "succeeded"
    assert (the_record(egito)["city"], the_record(egito)["type"]) == ("Kraków", "MEMBER")
    assert the_record(egito, "Lead")["notes"] == "won"


def test_a_lead_is_converted_when_it_was_made_after_the_member(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    egito.fail(Kind.UNAVAILABLE)
    prospect = save(crm, uuid="u-1", city="Kraków")
    member = save(crm, uuid="u-1", userType="MEMBER", city="Gdańsk")
    assert (prospect.status_code, member.status_code) == (202, 201)
    assert crm.settle(prospect)["state"] == "succeeded"
    crm.stack.move_clock(3600)
    crm.stack.deliver_due()
    assert the_record(egito)["city"] == "Gdańsk"
    assert [lead["notes"] for lead in egito.records["Lead"]] in ([], ["won"])


def test_a_late_conversion_takes_over_what_a_later_save_said(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT, clubs=CLUBS)
    late = {"uuid": "u-1", "userType": "MEMBER", "city": "Kraków", "company": "Acme", "zipcode": "30-001"}
    accepted = crm.post(f"/connector/clubs/{CLUB}/members", {**ADA, **late}, headers={"Prefer": "respond-async"})
    saved(crm, club=OTHER_CLUB, uuid="u-1", city="Gdańsk", company="")
    assert crm.settle(accepted)["state"] == "succeeded"
    contact = the_record(egito)
    assert (contact["city"], contact["company"], contact["club"]) == ("Gdańsk", "", "Harbour")
    assert (contact["zipCode"], contact["type"]) == ("30-001", "MEMBER")
    assert the_record(egito, "Lead")["notes"] == "won"


def test_a_member_is_saved_when_the_converted_lead_was_deleted_by_hand(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    record_id = saved(crm)
    saved(crm, record_id, userType="MEMBER")
    egito.records["Lead"].clear()
    answer = save(crm, record_id, userType="MEMBER", city="Kraków")
    assert (the_record(egito)["city"], answer.status_code) == ("Kraków", 200)


def test_a_member_is_made_when_the_lead_was_deleted_by_hand(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    record_id = saved(crm)
    egito.records["Lead"].clear()
    answer = save(crm, record_id, userType="MEMBER")
    assert (answer.status_code, answer.json()["recordID"]) == (201, record_id)
    assert the_record(egito)["lastName"] == "Nowak"


# ---------------------------------------------------------------- staff


def test_lists_the_staff_with_ids_and_addresses(crm: Crm) -> None:
    answer = call(crm, "GET", "/staff")
    assert answer.status_code == 200
    assert answer.json() == {
        "staff": [
            {"id": "7", "email": "maja@club.example", "name": "Maja Nowak"},
            {"id": "8", "email": "piotr@club.example", "name": "Piotr Zieliński"},
            {"id": "9", "email": "ola@club.example", "name": "Ola Wrona"},
        ]
    }


@pytest.mark.parametrize("owner", ["9", 9, "ola@club.example", "OLA@Club.Example", " ola@club.example "])
def test_an_owner_is_set_by_id_or_address(crm: Crm, egito: EgitoSimulator, owner: object) -> None:
    assert outcome(save(crm, leadOwner=owner)) == (201, "INFO")
    assert the_record(egito)["ownerId"] == "9"


def test_is_saved_with_a_warning_and_keeps_its_owner_when_the_owner_is_unknown(crm: Crm, egito: EgitoSimulator) -> None:
    new = save(crm, leadOwner="nobody@club.example")
    assert outcome(new) == (201, "WARNING")
    assert "owner" in new.json()["message"]
    assert the_record(egito)["ownerId"] == ""
    record_id = new.json()["recordID"]
    saved(crm, record_id, leadOwner="9")
    again = save(crm, record_id, leadOwner="nobody@club.example", city="Kraków")
    assert outcome(again) == (200, "WARNING")
    assert (the_record(egito)["ownerId"], the_record(egito)["city"]) == ("9", "Kraków")


@pytest.mark.parametrize("status", [200, 400, 403, 422])
def test_is_saved_with_a_warning_when_egito_shows_no_staff(crm: Crm, egito: EgitoSimulator, status: int) -> None:
    egito.forbidden, egito.error_status = {("User", "list")}, status
    answer = save(crm, leadOwner="9", city="Kraków")
    assert outcome(answer) == (201, "WARNING")
    assert (the_record(egito)["ownerId"], the_record(egito)["city"]) == ("", "Kraków")


def test_an_owner_is_known_ten_seconds_after_it_was_hired(crm: Crm, egito: EgitoSimulator) -> None:
    assert outcome(save(crm, leadOwner="eva@club.example")) == (201, "WARNING")
    egito.add("User", name="Eva Lis", email="eva@club.example")
    crm.stack.move_clock(11)
    assert outcome(save(crm, leadOwner="eva@club.example")) == (200, "INFO")
    assert the_record(egito)["ownerId"] == "5002"


def test_the_staff_is_the_tenants_own_when_its_settings_list_it(crm: Crm, egito: EgitoSimulator) -> None:
    egito.forbidden = {("User", "list")}
    person = {"id": "70", "email": "Eva@club.example", "name": "Eva Lis"}
    change_tenant(crm.stack, staff={"people": [person]})
    assert call(crm, "GET", "/staff").json() == {"staff": [person]}
    assert outcome(save(crm, leadOwner="eva@CLUB.example")) == (201, "INFO")
    assert the_record(egito)["ownerId"] == "70"
    assert outcome(save(crm, leadOwner="9")) == (200, "WARNING")
    assert the_record(egito)["ownerId"] == "70"


# ---------------------------------------------------------------- lead sources


@pytest.mark.parametrize("given", ["2", "Walk-in", "walk-IN", " Walk-in "])
def test_a_lead_source_is_set_by_id_or_name(crm: Crm, egito: EgitoSimulator, given: str) -> None:
    assert outcome(save(crm, leadSource=given)) == (201, "INFO")
    assert the_record(egito)["source"] == "2"


def test_is_saved_with_a_warning_and_keeps_its_lead_source_when_that_is_unknown(
    crm: Crm, egito: EgitoSimulator
) -> None:
    new = save(crm, leadSource="Rumour", leadOwner="nobody@club.example")
    assert outcome(new) == (201, "WARNING")
    assert "lead source" in new.json()["message"]
    assert "owner" in new.json()["message"]
    record_id = new.json()["recordID"]
    saved(crm, record_id, leadSource="2")
    assert outcome(save(crm, record_id, leadSource="Rumour", city="Kraków")) == (200, "WARNING")
    assert (the_record(egito)["source"], the_record(egito)["city"]) == ("2", "Kraków")


@pytest.mark.parametrize("status", [200, 400, 403, 422])
def test_is_saved_with_a_warning_when_egito_shows_no_dictionary(crm: Crm, egito: EgitoSimulator, status: int) -> None:
    egito.forbidden, egito.error_status = {("SelectDictionary", "list")}, status
    assert outcome(save(crm, leadSource="2", city="Kraków")) == (201, "WARNING")
    assert (the_record(egito)["source"], the_record(egito)["city"]) == ("", "Kraków")


def test_lists_what_the_dictionary_has(crm: Crm) -> None:
    assert lead_sources(crm) == [("1", "Website", True), ("2", "Walk-in", True)]


LEAD_SOURCES = {
    "writable": {"dictionary": "leadSource", "writable": True},
    "not writable": {"dictionary": "leadSource"},
    "no dictionary": {},
}
KEPT_IN = pytest.mark.parametrize("where", LEAD_SOURCES.values(), ids=LEAD_SOURCES.keys())


@KEPT_IN
def test_a_lead_source_is_made_once_however_its_name_is_written(
    crm: Crm, egito: EgitoSimulator, where: dict[str, Any]
) -> None:
    egito.dictionary_writable = "writable" in where
    change_tenant(crm.stack, lead_sources=where)
    before = lead_sources(crm)
    new = add_lead_source(crm, "Facebook")
    assert outcome(new) == (201, "INFO")
    lead_source_id = new.json()["id"]
    assert lead_sources(crm) == [*before, (lead_source_id, "Facebook", True)]
    for name in ("Facebook", "FACEBOOK", " facebook "):
        again = add_lead_source(crm, name)
        assert (outcome(again), again.json()["id"]) == ((200, "INFO"), lead_source_id)
    assert lead_sources(crm) == [*before, (lead_source_id, "Facebook", True)]
    entries = [entry["name"] for entry in egito.dictionaries["leadSource"]]
    assert entries == ["Website", "Walk-in", *(["Facebook"] if "writable" in where else [])]


@KEPT_IN
def test_a_lead_source_is_renamed_and_put_out_of_use(crm: Crm, egito: EgitoSimulator, where: dict[str, Any]) -> None:
    egito.dictionary_writable = "writable" in where
    change_tenant(crm.stack, lead_sources=where)
    lead_source_id = add_lead_source(crm, "Facebok").json()["id"]
    others = [one for one in lead_sources(crm) if one[0] != lead_source_id]
    for name, active in (("Facebook", True), ("facebook", False), ("Facebook", True)):
        answer = change_lead_source(crm, lead_source_id, name, active=active)
        assert outcome(answer) == (200, "INFO")
        assert (answer.json()["id"], answer.json()["name"], answer.json()["active"]) == (lead_source_id, name, active)
        assert lead_sources(crm) == [*others, (lead_source_id, name, active)]


@pytest.mark.parametrize("where", ["writable", "not writable"])
def test_an_entry_of_the_dictionary_is_renamed_where_it_can_be(crm: Crm, egito: EgitoSimulator, where: str) -> None:
    egito.dictionary_writable = where == "writable"
    change_tenant(crm.stack, lead_sources=LEAD_SOURCES[where])
    assert outcome(change_lead_source(crm, "1", "Web", active=False)) == (200, "INFO")
    assert lead_sources(crm) == [("1", "Web", False), ("2", "Walk-in", True)]
    assert egito.dictionaries["leadSource"][0]["name"] == ("Web" if where == "writable" else "Website")
    assert outcome(save(crm, leadSource="web")) == (201, "INFO")
    assert the_record(egito)["source"] == "1"


def test_a_lead_source_may_have_the_name_that_another_had(crm: Crm) -> None:
    first = add_lead_source(crm, "Facebook").json()["id"]
    assert outcome(change_lead_source(crm, first, "Social media")) == (200, "INFO")
    crm.stack.move_clock(60)
    second = add_lead_source(crm, "Facebook")
    assert outcome(second) == (201, "INFO")
    assert lead_sources(crm)[2:] == [(first, "Social media", True), (second.json()["id"], "Facebook", True)]


def test_a_lead_source_is_known_whose_name_egito_writes_with_a_combining_accent(
    crm: Crm, egito: EgitoSimulator
) -> None:
    egito.dictionaries["leadSource"].append({"id": 30, "name": unicodedata.normalize("NFD", "Znajomość")})
    there = add_lead_source(crm, "Znajomość")
    assert (outcome(there), there.json()["id"]) == ((200, "INFO"), "30")
    assert outcome(save(crm, leadSource="znajomość")) == (201, "INFO")
    assert the_record(egito)["source"] == "30"


@KEPT_IN
def test_a_lead_source_is_not_renamed_when_the_name_is_taken(
    crm: Crm, egito: EgitoSimulator, where: dict[str, Any]
) -> None:
    egito.dictionary_writable = "writable" in where
    change_tenant(crm.stack, lead_sources=where)
    ids = [add_lead_source(crm, name).json()["id"] for name in ("Facebook", "Poster")]
    before = lead_sources(crm)
    answer = change_lead_source(crm, ids[1], "FACEBOOK")
    assert outcome(answer) == (422, "ERROR")
    assert [error["field"] for error in answer.json()["errors"]] == ["name"]
    unknown = change_lead_source(crm, "999", "Radio")
    assert outcome(unknown) == (404, "ERROR")
    assert lead_sources(crm) == before


@pytest.mark.usefixtures("eager_switches")
@KEPT_IN
def test_one_lead_source_is_made_when_twenty_ask_for_it_at_once(
    crm: Crm, egito: EgitoSimulator, where: dict[str, Any]
) -> None:
    egito.dictionary_writable = "writable" in where
    change_tenant(crm.stack, lead_sources=where)
    before = lead_sources(crm)
    answers = at_once([partial(add_lead_source, crm, "Facebook")] * 20)
    # Whoever asks while another is making it is to ask again.
    assert {answer.status_code for answer in answers} <= {200, 201, 409}
    (made,) = {answer.json()["id"] for answer in answers if answer.status_code != 409}
    assert [answer.status_code for answer in answers].count(201) == 1
    assert lead_sources(crm) == [*before, (made, "Facebook", True)]
    assert add_lead_source(crm, "Facebook").json()["id"] == made


def test_a_lead_source_is_not_made_twice_when_egitos_list_lags(crm: Crm, egito: EgitoSimulator) -> None:
    egito.search_lag = 20
    ids = [add_lead_source(crm, name).json()["id"] for name in ("Facebook", "facebook")]
    assert ids[0] == ids[1]
    assert len(egito.dictionaries["leadSource"]) == 3


def test_a_lead_source_is_made_anew_when_somebody_has_deleted_it(crm: Crm, egito: EgitoSimulator) -> None:
    first = add_lead_source(crm, "Facebook").json()["id"]
    egito.dictionaries["leadSource"].pop()
    crm.stack.move_clock(60)
    second = add_lead_source(crm, "Facebook")
    assert outcome(second) == (201, "INFO")
    assert second.json()["id"] != first
    assert lead_sources(crm)[2:] == [(second.json()["id"], "Facebook", True)]


@pytest.mark.parametrize("kind", [Kind.CLOSE_AFTER, Kind.ERROR_BEFORE, Kind.UNAVAILABLE, Kind.HTML])
def test_a_lead_source_is_made_once_when_its_answer_was_lost(crm: Crm, egito: EgitoSimulator, kind: Kind) -> None:
    egito.fail(kind)
    accepted = add_lead_source(crm, "Facebook")
    assert outcome(accepted) == (202, "WARNING")
    assert crm.settle(accepted)["result"]["name"] == "Facebook"
    assert [entry["name"] for entry in egito.dictionaries["leadSource"]] == ["Website", "Walk-in", "Facebook"]


def test_a_lead_source_is_accepted_while_egito_is_down_and_made_once_it_is_back(
    crm: Crm, egito: EgitoSimulator
) -> None:
    egito.fail(Kind.UNAVAILABLE, method="GET", times=2)
    accepted = add_lead_source(crm, "Facebook")
    assert outcome(accepted) == (202, "WARNING")
    assert len(egito.dictionaries["leadSource"]) == 2
    assert crm.settle(accepted)["state"] == "succeeded"
    assert outcome(add_lead_source(crm, "facebook")) == (200, "INFO")
    assert [entry["name"] for entry in egito.dictionaries["leadSource"]] == ["Website", "Walk-in", "Facebook"]


def test_a_lead_source_that_was_made_before_is_not_told_while_nobody_can_say_what_it_is_called_now(
    crm: Crm, egito: EgitoSimulator
) -> None:
    add_lead_source(crm, "Facebook")
    egito.fail(Kind.UNAVAILABLE, method="GET")
    assert add_lead_source(crm, "Facebook").status_code == 503


def test_a_lead_source_that_egito_does_not_have_is_not_sent_to_it(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, lead_sources=LEAD_SOURCES["not writable"])
    kept = add_lead_source(crm, "Facebook").json()["id"]
    assert outcome(save(crm, leadSource=kept)) == (201, "WARNING")
    assert the_record(egito)["source"] == ""


def test_the_name_is_sent_when_the_bridge_itself_keeps_the_lead_sources(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, lead_sources={})
    kept = add_lead_source(crm, "Facebook").json()["id"]
    assert outcome(save(crm, leadSource=kept)) == (201, "INFO")
    assert the_record(egito)["source"] == "Facebook"
    assert outcome(save(crm, leadSource="FACEBOOK")) == (200, "INFO")
    assert the_record(egito)["source"] == "Facebook"


def test_a_lead_source_can_be_used_as_soon_as_it_was_made(crm: Crm, egito: EgitoSimulator) -> None:
    made = add_lead_source(crm, "Facebook").json()["id"]
    assert outcome(save(crm, leadSource=made)) == (201, "INFO")
    assert the_record(egito)["source"] == made


def test_a_lead_sources_new_name_can_be_used_as_soon_as_it_was_given(crm: Crm, egito: EgitoSimulator) -> None:
    change_lead_source(crm, "2", "Passer-by")
    assert outcome(save(crm, leadSource="Passer-by")) == (201, "INFO")
    assert the_record(egito)["source"] == "2"


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
    egito.fail(Kind.REFUSE, seconds=1)
    accepted = save(crm)
    assert outcome(accepted) == (202, "WARNING")
    time.sleep(1.2)
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
        crm.stack.move_clock(60)
        crm.stack.deliver_due()
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
    told = call(crm, "GET", "/check")
    assert told.status_code == 200
    assert told.json() == {
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
    told = call(crm, "GET", f"/check?prospect={lead['id']}&member={contact['id']}")
    assert told.status_code == 200
    prospects, members = told.json()["maps"]["prospect"], told.json()["maps"]["member"]
    assert (prospects["entity"], prospects["compared"], prospects["missing"]) == ("Lead", True, [])
    assert prospects["notMapped"] == []
    assert (members["entity"], members["compared"]) == ("Contact", True)
    assert members["missing"] == ["gender", "guid", "tier"]
    assert members["notMapped"] == ["externalId", "notes", "vatNumber"]
    assert "topsecret" not in told.text.casefold()


def test_the_check_minds_the_fields_of_the_clubs(crm: Crm, egito: EgitoSimulator) -> None:
    clubs: dict[str, Any] = {CLUB: {"connector_id": CONNECTOR_CLUB, "fields": {"club": "Centre", "clubb": "x"}}}
    change_tenant(crm.stack, clubs=clubs)
    contact = egito.add("Contact", lastName="Nowak")
    told = call(crm, "GET", f"/check?member={contact['id']}").json()["maps"]["member"]
    assert (told["missing"], told["notMapped"]) == (["clubb"], ["notes"])


def test_the_check_says_why_when_egito_shows_no_staff(crm: Crm, egito: EgitoSimulator) -> None:
    egito.forbidden = {("User", "list"), ("SelectDictionary", "list")}
    told = call(crm, "GET", "/check").json()
    assert told["staff"] == told["leadSources"] == {"count": None, "reason": "Egito: Access denied"}


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


# ---------------------------------------------------------------------- what went wrong in between


def test_a_person_is_saved_again_when_a_wrong_password_was_corrected(crm: Crm, egito: EgitoSimulator) -> None:
    saved(crm)
    egito.users["bridge@demo"] = "another"
    egito.revoke(refresh_too=True)
    assert save(crm, city="Kraków").status_code == 202
    crm.stack.put_secret("demo", crm.stack.demo_tenant())
    crm.stack.move_clock(301)
    assert outcome(save(crm, city="Kraków", company="Acme")) == (200, "INFO")
    crm.stack.deliver_due()
    assert (the_record(egito)["city"], the_record(egito)["company"]) == ("Kraków", "Acme")
    assert states(crm).keys() == {"succeeded"}


def test_a_stranger_is_not_overwritten_when_the_tenant_moves_to_another_egito(crm: Crm, egito: EgitoSimulator) -> None:
    record_id = saved(crm)
    other = EgitoSimulator(clock=crm.stack._clock)
    other.start()
    try:
        other.add("Contact", firstName="Stranger", lastName="X")
        assert other.records["Contact"][0]["id"] == the_record(egito)["id"]
        change_tenant(crm.stack, base_url=other.url)
        assert saved(crm, city="Kraków") == record_id
        assert [record["firstName"] for record in other.records["Contact"]] == ["Stranger", "Ada"]
    finally:
        other.stop()


def test_the_turn_ends_when_something_unexpected_happens(
    crm: Crm, egito: EgitoSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(crm)

    def broken(*_: object) -> None:
        raise LookupError

    with monkeypatch.context() as patched:
        patched.setattr("crm_bridge.vendors.egito.Egito.update", broken)
        assert save(crm, city="Kraków").status_code == 500
    assert outcome(save(crm, city="Gdańsk")) == (200, "INFO")
    assert the_record(egito)["city"] == "Gdańsk"


@pytest.mark.parametrize("staff", [{"id": None}, {"id": ""}, {"id": "x" * 201}, {"email": 5, "id": True}])
def test_staff_without_an_id_is_no_staff(crm: Crm, egito: EgitoSimulator, staff: dict[str, object]) -> None:
    egito.records["User"].append({"name": "Nobody", "email": "nobody@club.example", **staff})
    assert [one["id"] for one in call(crm, "GET", "/staff").json()["staff"]] == ["7", "8", "9"]
    assert outcome(save(crm, leadOwner="nobody@club.example")) == (201, "WARNING")


def test_an_entry_without_an_id_is_no_lead_source(crm: Crm, egito: EgitoSimulator) -> None:
    egito.dictionaries["leadSource"].insert(0, {"id": None, "name": "-- choose --"})
    assert lead_sources(crm) == [("1", "Website", True), ("2", "Walk-in", True)]
    assert outcome(save(crm, leadSource="Walk-in")) == (201, "INFO")


def test_a_late_save_of_another_club_does_not_bring_the_person_back(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, clubs=CLUBS)
    record_id = saved(crm, uuid="u-1")
    egito.fail(Kind.UNAVAILABLE, method="GET")
    late = save(crm, record_id, uuid="u-1")
    assert late.status_code == 202
    saved(crm, record_id, club=OTHER_CLUB, uuid="u-1")
    assert in_the_end(crm, late)["state"] == "succeeded"
    assert the_record(egito)["club"] == "Harbour"


def test_a_prospects_deleted_record_does_not_hold_up_the_member(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    record_id = saved(crm)
    egito.records["Lead"].clear()
    assert saved(crm, record_id, userType="MEMBER") == record_id
    assert outcome(save(crm, record_id, userType="MEMBER", city="Kraków")) == (200, "INFO")
    assert the_record(egito)["city"] == "Kraków"


def test_what_comes_after_half_a_conversion_reaches_the_member(
    crm: Crm, egito: EgitoSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    record_id = saved(crm)

    answer = egito.respond

    def down_at_the_lead(request: Request) -> Response:
        down = request.path.endswith("/Lead/update")
        return Response("", 503, {"Retry-After": "1"}) if down else answer(request)

    monkeypatch.setattr(egito, "respond", down_at_the_lead)
    late = save(crm, record_id, userType="MEMBER", city="B")
    assert late.status_code == 202
    monkeypatch.setattr(egito, "respond", answer)
    assert save(crm, record_id, city="C").status_code == 200
    assert the_record(egito)["type"] == "MEMBER"
    assert in_the_end(crm, late)["state"] == "succeeded"
    assert the_record(egito)["city"] == "C"
    assert the_record(egito)["type"] == "MEMBER"
    assert the_record(egito, "Lead")["notes"] == "won"


def test_a_new_save_does_not_wait_for_an_old_one_after_an_outage(crm: Crm, egito: EgitoSimulator) -> None:
    egito.fail(Kind.MOVED)  # surely not done
    first = save(crm, uuid="u-1", city="Old")
    assert first.status_code == 202
    assert outcome(save(crm, uuid="u-1", city="New")) == (201, "INFO")
    assert in_the_end(crm, first)["state"] == "succeeded"
    assert the_record(egito)["city"] == "New"


def test_the_list_is_given_its_time_before_a_person_is_asked(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, lists_everything=False, search_lag=300)
    egito.search_lag = 200
    egito.fail(Kind.CLOSE_AFTER)
    answer = save(crm)
    assert in_the_end(crm, answer)["state"] == "succeeded"
    assert len(egito.records["Contact"]) == 1


def test_the_same_save_without_an_id_makes_one_person_though_two_others_fit(crm: Crm, egito: EgitoSimulator) -> None:
    first, second = saved(crm, email="a@mail.example"), saved(crm, email="b@mail.example", mobile="1")
    saved(crm, second, email="a@mail.example", mobile="+48 601 234 567")
    third = saved(crm, email="a@mail.example")
    assert third not in (first, second)
    assert saved(crm, email="a@mail.example") == third
    assert len(egito.records["Contact"]) == 3


def test_entries_are_not_doubled_when_the_list_may_not_be_whole(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, lists_everything=False)
    egito.list_limit = 2
    ids = set()
    for _ in range(3):
        ids.add(add_lead_source(crm, "Facebook").json()["id"])
        crm.stack.move_clock(200)
    assert len(ids) == 1
    assert len(egito.dictionaries["leadSource"]) == 3


@pytest.mark.parametrize("alteration", sorted(set(ALTERATIONS) - {"emptied"}))
def test_a_lead_source_is_made_once_whatever_egito_makes_of_its_name(
    crm: Crm, egito: EgitoSimulator, alteration: str
) -> None:
    egito.alterations = (ALTERATIONS[alteration],)
    name = "A\u00e9 1  b\u2019s & <i>c \U0001f3ea " + 40 * "x"
    before = len(egito.dictionaries["leadSource"])
    first = add_lead_source(crm, name)
    again = add_lead_source(crm, name)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["id"] == first.json()["id"]
    assert len(egito.dictionaries["leadSource"]) == before + 1


def test_a_name_is_free_again_when_its_lead_source_was_renamed(crm: Crm, egito: EgitoSimulator) -> None:
    first = add_lead_source(crm, "Summer").json()["id"]
    change_lead_source(crm, first, "Spring")
    second = add_lead_source(crm, "Summer").json()
    assert (second["name"], second["id"] != first) == ("Summer", True)
    assert [entry["name"] for entry in egito.dictionaries["leadSource"]][2:] == ["Spring", "Summer"]


def test_a_lead_source_of_before_the_dictionary_is_made_in_it(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, lead_sources={})
    ours = add_lead_source(crm, "Fair").json()["id"]
    change_tenant(crm.stack)
    made = add_lead_source(crm, "Fair").json()["id"]
    assert made != ours
    assert outcome(save(crm, leadSource=ours)) == (201, "INFO")
    assert the_record(egito)["source"] == made


def test_a_lead_source_may_come_out_of_use(crm: Crm) -> None:
    made = call(crm, "POST", "/lead-sources", {"name": "Fair", "active": False}).json()
    assert made["active"] is False
    assert change_lead_source(crm, made["id"], "Trade fair").json()["active"] is False
    assert call(crm, "POST", "/lead-sources", {"name": "Trade fair", "active": True}).json()["active"] is True
    assert (made["id"], "Trade fair", True) in lead_sources(crm)


def test_a_lead_whose_answer_was_lost_is_converted_though_the_member_came_first(
    crm: Crm, egito: EgitoSimulator
) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    egito.search_lag = 25
    egito.fail(Kind.CLOSE_AFTER)
    lead = save(crm, uuid="u-1")
    member = save(crm, uuid="u-1", userType="MEMBER")
    assert all_saved(crm, [lead, member])
    assert the_record(egito, "Lead")["notes"] == "won"
    assert the_record(egito)["type"] == "MEMBER"


def test_what_a_prospect_says_reaches_the_member_whose_record_is_on_its_way(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    record_id = saved(crm)
    egito.fail(Kind.CLOSE_BEFORE)
    member = save(crm, record_id, userType="MEMBER", city="B")
    later = save(crm, record_id, city="C")
    assert all_saved(crm, [member, later])
    assert (the_record(egito)["city"], the_record(egito)["type"]) == ("C", "MEMBER")


@pytest.mark.parametrize("theirs", ["Fair", "Rad"])  # the second may be what a vendor makes of ours
def test_lead_sources_are_made_again_when_the_tenant_moves_to_another_egito(crm: Crm, theirs: str) -> None:
    change_tenant(crm.stack, lists_everything=False)
    first = add_lead_source(crm, "Radio").json()["id"]
    change_lead_source(crm, first, "Radio", active=False)
    other = EgitoSimulator(clock=crm.stack._clock)
    other.start()
    try:
        other.dictionaries["leadSource"].append({"id": int(first), "name": theirs})
        other.next_id = int(first) + 1
        change_tenant(crm.stack, base_url=other.url)
        assert add_lead_source(crm, "Radio").status_code == 201
        assert (first, theirs, True) in lead_sources(crm)
        assert [entry["name"] for entry in other.dictionaries["leadSource"]][2:] == [theirs, "Radio"]
    finally:
        other.stop()


def test_a_name_follows_egito_when_only_its_use_was_changed(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, lead_sources={"dictionary": "leadSource", "writable": False})
    change_lead_source(crm, "1", "Website", active=False)
    egito.dictionaries["leadSource"][0]["name"] = "Our site"
    assert ("1", "Our site", False) in lead_sources(crm)


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

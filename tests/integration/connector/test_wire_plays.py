"""The Connector plays: it fetches lists, saves people and updates them, in both languages; also with lost answers."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from crm_bridge.vendors.egito_settings import PERSON_FIELDS
from local.vendors.egito import EgitoSimulator
from local.vendors.simulator import Kind
from tests.connector import CallFailedError, Connector, Language
from tests.integration.conftest import Crm
from tests.integration.connector_calls import LANGUAGES, MANDATORY, ada, connector, contacts, expect_sentence, settle
from tests.stack import Stack
from tests.variants import some


@pytest.fixture
def egito(stack: Stack) -> EgitoSimulator:
    return stack.egito


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> Language:
    chosen: Language = request.param
    return chosen


@pytest.fixture
def intouch(stack: Stack, session: requests.Session, language: Language) -> Connector:
    return connector(stack, session, language)


# ---------------------------------------------------------------- lists


def test_the_connector_gets_the_staff_or_the_reason_why_not(intouch: Connector, egito: EgitoSimulator) -> None:
    egito.fail(Kind.ERROR_BEFORE, times=9, method="GET")
    with pytest.raises(CallFailedError) as failed:
        intouch.fetch_staff()
    assert (failed.value.answer.status, failed.value.answer.result) == (503, "ERROR")
    expect_sentence(failed.value.answer.message)
    egito.heal()
    egito.add("User", name="Żaneta <Ö> & O'Brien", email="z@club.example")
    got = [(member.id, member.email, member.name) for member in intouch.fetch_staff()]
    assert got == [(str(user["id"]), user["email"], user["name"]) for user in egito.records["User"]]
    assert len(got) == 4


def test_the_connector_gets_empty_lists_when_egito_has_nothing(intouch: Connector, egito: EgitoSimulator) -> None:
    egito.records["User"].clear()
    egito.dictionaries.clear()
    assert (intouch.fetch_staff(), intouch.fetch_lead_sources()) == ([], [])


def test_a_missing_lead_source_is_created_once(
    stack: Stack, session: requests.Session, intouch: Connector, egito: EgitoSimulator, language: Language
) -> None:
    assert [source.name for source in intouch.fetch_lead_sources()] == ["Website", "Walk-in"]
    new = intouch.lead_source("Fair & Friends <2024>")
    assert [str(entry["id"]) for entry in egito.dictionaries["leadSource"]] == ["1", "2", new]
    assert [source.id for source in intouch.fetch_lead_sources()] == ["1", "2", new]
    assert intouch.lead_source(" fair & friends <2024> ") == new
    assert intouch.lead_source("WEBSITE") == "1"
    both = [connector(stack, session, language) for _ in range(2)]
    for one in both:
        one.fetch_lead_sources()
    assert len({one.lead_source(name) for one, name in zip(both, ("Leaflet", " LEAFLET"), strict=True)}) == 1
    with LossySession(1) as lossy:
        connector(stack, lossy, language).lead_source("Radio")
    names = [entry["name"] for entry in egito.dictionaries["leadSource"]]
    assert names == ["Website", "Walk-in", "Fair & Friends <2024>", "Leaflet", "Radio"]


def test_a_lead_source_gets_another_name_and_is_out_of_use(intouch: Connector, egito: EgitoSimulator) -> None:
    changed = intouch.update_lead_source("2", name="Reception", active=False)
    assert (changed.id, changed.name, changed.active) == ("2", "Reception", False)
    assert [(one.name, one.active) for one in intouch.fetch_lead_sources()] == [("Website", True), ("Reception", False)]
    assert [entry["name"] for entry in egito.dictionaries["leadSource"]] == ["Website", "Reception"]


# ---------------------------------------------------------------- people


def test_a_prospect_arrives_field_for_field(intouch: Connector, stack: Stack) -> None:
    fields = {
        "birthdate": "1990-12-31",
        "gender": "F",
        "address1": "Łąkowa 5 <b> & 'c' \"d\"",
        "address2": "2nd floor",
        "city": "Kraków",
        "zipcode": "30-002",
        "state": "Małopolska",
        "country": "PL",
        "email": "ada@example.org",
        "mobile": "+48 600 000 001",
        "homePhone": "12 000 00 01",
        "workPhone": "(12) 000/00.02 x7",
        "company": "Ada & Co.",
        "trialStartDate": "2024-01-01",
        "trialEndDate": "2024-01-31",
    }
    person = ada(**fields)
    person.owner_email, person.lead_source_name = " MAJA@Club.Example ", "walk-IN"
    answer = intouch.save(person)
    assert (answer.status, answer.result, answer.record_id) == (201, "INFO", person.record_id)
    (record,) = contacts(stack)
    sent = {**MANDATORY, **fields, "leadOwner": "7", "leadSource": "2"}
    assert sent.keys() == PERSON_FIELDS.keys()
    assert {name: record[theirs] for name, theirs in PERSON_FIELDS.items()} == sent
    assert (record["externalId"], record["club"]) == (person.record_id, "Centre")
    assert [(line.result, line.who, line.status) for line in intouch.log] == [("INFO", person.uuid, 201)]

    refused = intouch.save(ada(birthdate="31.12.1990"))
    assert (refused.status, refused.result, intouch.log[-1].result) == (422, "ERROR", "ERROR")
    assert "birthdate" in intouch.log[-1].text
    expect_sentence(intouch.log[-1].text)
    assert contacts(stack) == [record]


def test_a_prospect_is_saved_without_an_owner_or_a_lead_source_that_is_unknown(
    stack: Stack, session: requests.Session, language: Language
) -> None:
    """With a warning, unless the Connector itself leaves it out."""
    nobody, sent = ada(lastname="Lis"), ada(lastname="Sowa")
    nobody.owner_email = sent.owner_email = "nobody@club.example"
    saves = (
        (False, nobody, "INFO", ()),
        (True, sent, "WARNING", ("owner",)),
        (False, ada(leadSource="ls_nothing", leadOwner="nobody"), "WARNING", ("owner", "lead source")),
    )
    for sends_unknown_owner, person, result, words in saves:
        intouch = connector(stack, session, language, sends_unknown_owner=sends_unknown_owner)
        answer = intouch.save(person)
        assert (answer.status, answer.result) == (201, result)
        assert [word for word in words if word not in answer.message] == []
        expect_sentence(answer.message or "-")
        record = contacts(stack)[-1]
        assert (record["lastName"], record["ownerId"], record["source"]) == (person.fields["lastname"], "", "")


def test_one_record_follows_a_person_from_prospect_to_ex_member(intouch: Connector, stack: Stack) -> None:
    def expect(status: int, result: str, **expected: str) -> None:
        assert (answer.status, answer.result, person.record_id) == (status, result, first)
        (record,) = contacts(stack)
        assert {name: record[name] for name in expected} == expected

    person = ada(city="Opole", company="Ada & Co.", email="ada@example.org")
    answer = intouch.save(person)
    first = person.record_id
    person.fields = {**MANDATORY, "lastname": "Nowak-Lis", "company": ""}
    answer = intouch.save(person)
    expect(200, "INFO", lastName="Nowak-Lis", city="Opole", company="", email="ada@example.org")
    person.fields["lastname"] = "Lis"
    answer = intouch.save(person, by_id=False)
    assert answer.record_id == first
    expect(200, "INFO", lastName="Lis")
    for kind in ("MEMBER", "EX-MEMBER"):
        person.fields["userType"] = kind
        answer = intouch.save(person)
        expect(200, "INFO", type=kind)
    person.fields |= {"userType": "PROSPECT", "city": "Gdynia"}
    answer = intouch.save(person)
    expect(200, "WARNING", type="EX-MEMBER", city="Gdynia")

    answer = intouch.save(ada(userType="MEMBER", userStatus="INACTIVE", email="eva@example.org"))
    assert (answer.status, answer.result) == (201, "INFO")
    assert [(one["type"], one["status"]) for one in contacts(stack)][1:] == [("MEMBER", "INACTIVE")]


# ---------------------------------------------------------------- lost answers


class LossySession(requests.Session):
    """Everything arrives, but the answers to the first `losses` saves do not come back."""

    def __init__(self, losses: int) -> None:
        super().__init__()
        self.losses = losses

    def request(self, method: str | bytes, *args: Any, **options: Any) -> requests.Response:
        answer = super().request(method, *args, **options)
        if method != "GET" and self.losses:
            self.losses -= 1
            raise requests.ConnectionError("the answer was lost")
        return answer


def test_one_record_when_the_bridges_answers_are_lost(stack: Stack, language: Language) -> None:
    """Also when all are, and it is sent again on another day."""
    for number, losses in enumerate((1, 2, 3), start=1):
        with LossySession(losses) as session:
            intouch = connector(stack, session, language)
            person = ada(lastname=f"Lis {number}", email=f"ada{number}@example.org")
            answer = intouch.save(person)
            if losses == 3:
                assert (answer.status, answer.result, person.record_id) == (0, "ERROR", None)
                stack.move_clock(86_400)
                answer = intouch.save(person)
            assert (answer.status, answer.result, session.losses) == (200, "INFO", 0)
        assert (len(contacts(stack)), contacts(stack)[-1]["externalId"]) == (number, person.record_id)


EGITOS_LOSSES = [
    (kind, losses, language)
    for losses in (0, 1)
    for language in LANGUAGES
    for kind in (Kind.CLOSE_BEFORE, Kind.CLOSE_AFTER, Kind.ERROR_AFTER, Kind.UNAVAILABLE)
]


@pytest.mark.parametrize(("kind", "losses", "language"), some(EGITOS_LOSSES))
def test_one_record_when_egitos_answer_is_lost(crm: Crm, language: Language, kind: Kind, losses: int) -> None:
    stack = crm.stack
    stack.egito.fail(kind)
    with LossySession(losses) as session:
        intouch = connector(stack, session, language)
        person = ada(city="Opole")
        accepted = intouch.save(person)
        # Sent once more by the Connector, it may be done by then if Egito surely had not done it.
        expected = {"INFO", "WARNING"} if losses and kind is Kind.UNAVAILABLE else {"WARNING"}
        assert (accepted.status // 100, accepted.result in expected) == (2, True)
        expect_sentence(accepted.message)
        settle(crm)
        assert [(row["externalId"], row["city"]) for row in contacts(stack)] == [(person.record_id, "Opole")]
        person.fields["city"] = "Gdynia"
        assert intouch.save(person).result == "INFO"
    assert [(row["externalId"], row["city"]) for row in contacts(stack)] == [(person.record_id, "Gdynia")]

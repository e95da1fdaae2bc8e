"""How the Connector and connector_receiver talk: JSON and XML over real HTTP, what is taken, and what is refused."""

import json
import os
import unicodedata
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import uuid4
from xml.etree import ElementTree as ET

import boto3
import pytest
import requests
from defusedxml.ElementTree import fromstring
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from connector_receiver import wire
from crm_bridge.vendors.egito_settings import PERSON_FIELDS
from local.stack import CLIENT, CLUB, CONNECTOR_CLUB, SCOPES, Stack
from local.vendors.connector import CallFailedError, Connector, Language, Person
from local.vendors.egito import EgitoSimulator
from local.vendors.simulator import Kind
from tests.integration.conftest import Crm

JSON, XML = "application/json", "application/xml"
LANGUAGES: tuple[Language, ...] = ("json", "xml")
PEOPLE = int(os.environ.get("PEOPLE", "300"))
"""That are made up and sent; `make people` takes a thousand."""
EACH_LANGUAGE = pytest.mark.parametrize("language", LANGUAGES)
MANDATORY = {"firstname": "Ada", "lastname": "Nowak", "userStatus": "ACTIVE", "userType": "PROSPECT"}
TAGS = "".join(f"<{name}>{text}</{name}>" for name, text in MANDATORY.items())
PERSON = f"<user><userInfo>{TAGS}</userInfo></user>"
JAVA_ACCEPTS = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"
"""What Java's HttpURLConnection asks for unless it is told otherwise; the Connector is written in Java."""


@pytest.fixture
def egito(stack: Stack) -> EgitoSimulator:
    return stack.egito


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def connector(stack: Stack, session: requests.Session, language: Language, **options: Any) -> Connector:
    return Connector(
        stack.url, CLUB, user=CLIENT, password=stack.api_key, language=language, session=session, **options
    )


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> Language:
    chosen: Language = request.param
    return chosen


@pytest.fixture
def intouch(stack: Stack, session: requests.Session, language: Language) -> Connector:
    return connector(stack, session, language)


def ada(**changes: str) -> Person:
    return Person(str(uuid4()), {**MANDATORY, **changes})


def send(
    crm: Crm,
    body: str | bytes | Mapping[str, object] | None = None,
    kind: str | None = None,
    *,
    method: str = "POST",
    path: str = "/prospects",
    club: str = CLUB,
    **headers: str | None,
) -> requests.Response:
    """A mapping goes as JSON, a text as XML, unless `kind` says otherwise. A header of None is not sent."""
    is_json = isinstance(body, Mapping)
    content = json.dumps(body).encode() if is_json else body.encode() if isinstance(body, str) else body
    told = {"Content-Type": None if body is None else kind or (JSON if is_json else XML)}
    wanted = {**crm.headers, **told, **headers}
    url = f"{crm.stack.url}/connector/clubs/{club}{path}"
    return crm.session.request(method, url, data=content, headers=wanted, timeout=60)


@dataclass(frozen=True)
class Told:
    """What an answer says to the Connector, in whichever language."""

    language: str
    message: str
    fields: list[str] = field(default_factory=list)
    """Those that are named in `errors`."""
    record_id: str | None = None


def told(answer: requests.Response, result: str) -> Told:
    kind, _, charset = answer.headers["Content-Type"].partition("; charset=")
    subtype = kind.removeprefix("application/problem+" if answer.status_code >= 400 else "application/")
    if subtype == "xml":
        assert charset == "utf-8"
        root = fromstring(answer.content)
        assert root.tag == ("problem" if answer.status_code >= 400 else "response")
        said, message, record_id = (root.findtext(name) for name in ("result", "message", "recordID"))
        fields = [error.findtext("field") or "" for error in root.iter("error")]
    else:
        assert subtype == "json"
        body = answer.json()
        said, message, record_id = (body.get(name) for name in ("result", "message", "recordID"))
        fields = [error["field"] for error in body.get("errors", ())]
    assert said == result, answer.text
    expect_sentence(message or "")
    return Told(subtype, message or "", fields, record_id)


def expect_sentence(message: str) -> None:
    assert message
    assert message == message.strip()
    assert len(message.splitlines()) == 1, repr(message)
    assert len(message) <= 300
    assert not {"<", ">"} & set(message), message
    for trace in ("Traceback", "Error(", "Exception", ".py", "line 1, in"):
        assert trace not in message


def refused(answer: requests.Response, status: int, language: str | None = None) -> Told:
    assert answer.status_code == status, answer.text[:500]
    said = told(answer, "ERROR")
    assert language in (None, said.language)
    return said


def rows(table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = boto3.resource("dynamodb").Table(os.environ[table]).scan()["Items"]
    return found


def contacts(stack: Stack) -> list[dict[str, object]]:
    return stack.egito.records["Contact"]


def expect_untouched(stack: Stack, case: str = "") -> None:
    """Egito was not called, nobody else either, and the bridge keeps nothing."""
    assert [vendor.seen for vendor in stack.vendors] == [[]] * len(stack.vendors), case
    assert [rows(table) for table in ("OPERATIONS_TABLE", "LINKS_TABLE", "PEOPLE_TABLE")] == [[], [], []], case


def settle(crm: Crm) -> None:
    """Let time pass until all that was accepted is over."""
    for _ in range(40):
        states = {row["state"] for row in rows("OPERATIONS_TABLE") if "state" in row}
        if states <= {"succeeded", "rejected", "needs_review"}:
            return
        crm.stack.move_clock(60)
        crm.stack.deliver_due()
    raise AssertionError(f"not settled: {rows('OPERATIONS_TABLE')}")


# ---------------------------------------------------------------- the Connector plays: lists


def test_the_connector_gets_the_staff_that_egito_has(intouch: Connector, egito: EgitoSimulator) -> None:
    egito.add("User", name="Żaneta <Ö> & O'Brien", email="z@club.example")
    got = [(member.id, member.email, member.name) for member in intouch.fetch_staff()]
    assert got == [(str(user["id"]), user["email"], user["name"]) for user in egito.records["User"]]


def test_the_connector_gets_empty_lists_when_egito_has_nothing(intouch: Connector, egito: EgitoSimulator) -> None:
    egito.records["User"].clear()
    egito.dictionaries.clear()
    assert (intouch.fetch_staff(), intouch.fetch_lead_sources()) == ([], [])


def test_a_missing_lead_source_is_created_once(intouch: Connector, egito: EgitoSimulator) -> None:
    assert [source.name for source in intouch.fetch_lead_sources()] == ["Website", "Walk-in"]
    new = intouch.lead_source("Fair & Friends <2024>")
    assert [str(entry["id"]) for entry in egito.dictionaries["leadSource"]] == ["1", "2", new]
    assert [source.id for source in intouch.fetch_lead_sources()] == ["1", "2", new]
    assert intouch.lead_source(" fair & friends <2024> ") == new
    assert intouch.lead_source("WEBSITE") == "1"


def test_a_lead_source_is_not_created_twice_when_two_connectors_miss_it(
    stack: Stack, session: requests.Session, language: Language
) -> None:
    both = [connector(stack, session, language) for _ in range(2)]
    for one in both:
        one.fetch_lead_sources()
    assert len({one.lead_source(name) for one, name in zip(both, ("Fair", " FAIR"), strict=True)}) == 1
    assert [entry["name"] for entry in stack.egito.dictionaries["leadSource"]] == ["Website", "Walk-in", "Fair"]


def test_a_lead_source_gets_another_name_and_is_out_of_use(intouch: Connector, egito: EgitoSimulator) -> None:
    changed = intouch.update_lead_source("2", name="Reception", active=False)
    assert (changed.id, changed.name, changed.active) == ("2", "Reception", False)
    assert [(one.name, one.active) for one in intouch.fetch_lead_sources()] == [("Website", True), ("Reception", False)]
    assert [entry["name"] for entry in egito.dictionaries["leadSource"]] == ["Website", "Reception"]


def test_the_connector_is_told_why_when_it_cannot_have_a_list(intouch: Connector, egito: EgitoSimulator) -> None:
    egito.fail(Kind.ERROR_BEFORE, times=9, method="GET")
    with pytest.raises(CallFailedError) as failed:
        intouch.fetch_staff()
    assert (failed.value.answer.status, failed.value.answer.result) == (503, "ERROR")
    expect_sentence(failed.value.answer.message)
    egito.heal()
    assert len(intouch.fetch_staff()) == 3


# ---------------------------------------------------------------- the Connector plays: people


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


def test_a_prospect_has_no_owner_when_the_connector_leaves_an_unknown_one_out(intouch: Connector, stack: Stack) -> None:
    person = ada()
    person.owner_email = "nobody@club.example"
    assert (intouch.save(person).result, contacts(stack)[0]["ownerId"]) == ("INFO", "")


def test_a_prospect_is_saved_with_a_warning_when_its_owner_is_unknown(
    stack: Stack, session: requests.Session, language: Language
) -> None:
    intouch = connector(stack, session, language, sends_unknown_owner=True)
    person = ada()
    person.owner_email = "nobody@club.example"
    answer = intouch.save(person)
    assert (answer.status, answer.result) == (201, "WARNING")
    assert "owner" in answer.message
    expect_sentence(answer.message)
    (record,) = contacts(stack)
    assert (record["lastName"], record["ownerId"]) == ("Nowak", "")


def test_a_prospect_is_saved_with_a_warning_when_its_lead_source_is_unknown(intouch: Connector, stack: Stack) -> None:
    answer = intouch.save(ada(leadSource="ls_nothing", leadOwner="nobody"))
    assert answer.result == "WARNING"
    assert "owner" in answer.message
    assert "lead source" in answer.message
    (record,) = contacts(stack)
    assert (record["ownerId"], record["source"]) == ("", "")


def test_an_update_changes_what_it_has_and_empties_what_is_empty(intouch: Connector, stack: Stack) -> None:
    person = ada(city="Opole", company="Ada & Co.", email="ada@example.org")
    intouch.save(person)
    first = person.record_id
    person.fields = {**MANDATORY, "lastname": "Nowak-Lis", "company": ""}
    answer = intouch.save(person)
    assert (answer.status, answer.result, person.record_id) == (200, "INFO", first)
    (record,) = contacts(stack)
    names = ("lastName", "city", "company", "email")
    assert [record[name] for name in names] == ["Nowak-Lis", "Opole", "", "ada@example.org"]


def test_an_update_finds_its_record_when_only_the_uuid_is_sent(intouch: Connector, stack: Stack) -> None:
    person = ada()
    first = intouch.save(person).record_id
    person.fields["lastname"] = "Lis"
    answer = intouch.save(person, by_id=False)
    assert (answer.status, answer.record_id) == (200, first)
    assert [record["lastName"] for record in contacts(stack)] == ["Lis"]


def test_a_prospect_becomes_a_member_and_an_ex_member_and_stays_one_record(intouch: Connector, stack: Stack) -> None:
    person = ada(email="ada@example.org")
    first = intouch.save(person).record_id
    for kind in ("MEMBER", "EX-MEMBER"):
        person.fields["userType"] = kind
        answer = intouch.save(person)
        assert (answer.status, answer.result, answer.record_id) == (200, "INFO", first)
        assert [record["type"] for record in contacts(stack)] == [kind]
    person.fields |= {"userType": "PROSPECT", "city": "Opole"}
    answer = intouch.save(person)
    assert (answer.result, answer.record_id) == ("WARNING", first)
    assert [(record["type"], record["city"]) for record in contacts(stack)] == [("EX-MEMBER", "Opole")]


def test_a_member_who_was_never_a_prospect_is_saved(intouch: Connector, stack: Stack) -> None:
    answer = intouch.save(ada(userType="MEMBER", userStatus="INACTIVE"))
    assert (answer.status, answer.result) == (201, "INFO")
    assert [(record["type"], record["status"]) for record in contacts(stack)] == [("MEMBER", "INACTIVE")]


def test_the_log_says_why_when_a_person_is_refused(intouch: Connector, stack: Stack) -> None:
    answer = intouch.save(ada(birthdate="31.12.1990"))
    assert (answer.status, answer.result, intouch.log[0].result) == (422, "ERROR", "ERROR")
    assert "birthdate" in intouch.log[0].text
    expect_sentence(intouch.log[0].text)
    assert contacts(stack) == []


# ---------------------------------------------------------------- the Connector plays: lost answers


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


@pytest.mark.parametrize("losses", [1, 2])
def test_one_record_when_the_bridges_answers_are_lost(stack: Stack, language: Language, losses: int) -> None:
    with LossySession(losses) as session:
        intouch = connector(stack, session, language)
        person = ada(email="ada@example.org")
        answer = intouch.save(person)
        assert (answer.status, answer.result, session.losses) == (200, "INFO", 0)
    (record,) = contacts(stack)
    assert record["externalId"] == person.record_id


def test_one_record_when_all_answers_are_lost_and_it_is_sent_on_another_day(stack: Stack, language: Language) -> None:
    with LossySession(3) as session:
        intouch = connector(stack, session, language)
        person = ada()
        lost = intouch.save(person)
        assert (lost.status, lost.result, person.record_id) == (0, "ERROR", None)
        stack.move_clock(86_400)
        assert intouch.save(person).status == 200
    assert [record["externalId"] for record in contacts(stack)] == [person.record_id]


def test_one_lead_source_when_the_bridges_answer_is_lost(stack: Stack, language: Language) -> None:
    with LossySession(1) as session:
        new = connector(stack, session, language).lead_source("Fair")
    entries = [(str(entry["id"]), entry["name"]) for entry in stack.egito.dictionaries["leadSource"]]
    assert entries == [("1", "Website"), ("2", "Walk-in"), (new, "Fair")]


@pytest.mark.parametrize("kind", [Kind.CLOSE_BEFORE, Kind.CLOSE_AFTER, Kind.ERROR_AFTER, Kind.UNAVAILABLE])
@pytest.mark.parametrize("losses", [0, 1])
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


# ---------------------------------------------------------------- a thousand people


@dataclass(frozen=True)
class Sent:
    """A person, how it is sent, what Egito is to have of it, and by which fields it must be refused."""

    language: Language
    limit: int | None
    """Of Egito's texts."""
    body: dict[str, object]
    wanted: dict[str, str]
    """By our names; nothing else than empty texts besides."""
    wrong: frozenset[str]
    warned: bool


LETTERS = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff")
"""Whatever both JSON and XML can hold, but control characters."""
NAMES = (
    *(
        "Zoë",
        "Zoe\u0308",
        "\uff2a\uff4fhn",
        "Łukasz",
        "Đặng Thị Hà",
        "Dạ\u0302\u0323ng",
        "O'Brien",
        "d\u2019Arc",
        "Smith-Jones",
    ),
    *(
        "محمد",
        "می\u200cخ",
        "שרה\u200f",
        "\u202eevil\u202c",
        "山田\u3000太郎",
        "김민수",
        "ธนพร",
        "\u1100\u1161\u11a8",
    ),
    *(
        "👩\u200d👧\u200d👦",
        "🇵🇱",
        "👍🏽",
        "\U0001d56c\U0001d589",
        "<script>alert(1)</script>",
        "&amp;",
        "Tom & Jerry",
        '"quoted"',
        "]]>",
    ),
    *("<!-- -->", "%41", "\\u0041", "null", "0", "true", "=1+1", "'; DROP TABLE", "a\u00a0b", "\u200b", "Z̴̢͝a̷l̶g̷o̶"),
    *(
        "  Ada  ",
        "\u2003Ada\u2003",
        "Ada\tMaria",
        "Ada\nMaria",
        "Ada\r\nMaria",
        "\ufeffAda",
        "ﬁ",
        "İi",
        "ß",
        "\U0001fffe",
    ),
)
LONG = st.builds(
    lambda letter, length: letter * length,
    st.sampled_from(["x", "é", "e\u0301", "\U0001d518", "字", "<", "&"]),
    st.integers(200, 1000),
)
TOO_LONG = st.builds(
    lambda letter, length: letter * length, st.sampled_from(["x", "e\u0301", "字"]), st.integers(1001, 3000)
)
NAME = st.one_of(
    st.sampled_from(NAMES), st.sampled_from(NAMES), st.text(LETTERS, min_size=1, max_size=30).filter(str.strip), LONG
)
PHONES = ("+48 600-000-001", "0048600", "call after 6", "٠١٢٣", "(12) 3/4.5 x6", "+", "☎ 12", "1" * 200, "600000001")
MAYBE = ("", " ", "\u3000")
GOOD: dict[str, st.SearchStrategy[str]] = {
    "birthdate": st.sampled_from(["1990-12-31", "2000-02-29", "1970-01-01", "1900-01-02", " 1990-01-01 ", *MAYBE]),
    "gender": st.sampled_from(["M", "F", "f", " m ", *MAYBE]),
    "country": st.sampled_from(["PL", "de", " gb ", "XX", *MAYBE]),
    "email": st.one_of(st.sampled_from(["ada@example.org", "żółw@пример.рф", "no address", '"a b"@c', *MAYBE]), NAME),
    **dict.fromkeys(("mobile", "homePhone", "workPhone"), st.sampled_from([*PHONES, *MAYBE])),
    **dict.fromkeys(("trialStartDate", "trialEndDate"), st.sampled_from(["2024-01-31", *MAYBE])),
    **dict.fromkeys(
        ("address1", "address2", "city", "zipcode", "state", "company"), st.one_of(NAME, st.sampled_from(MAYBE))
    ),
}
MANDATORY_GOOD = {
    "firstname": NAME,
    "lastname": NAME,
    "userStatus": st.sampled_from(["ACTIVE", "INACTIVE", "active", " Inactive "]),
    "userType": st.sampled_from(["PROSPECT", "MEMBER", "EX-MEMBER", "prospect", "Ex-Member", "EX MEMBER"]),
}
LEADS = {
    "leadOwner": {"7": "7", "MAJA@club.example": "7", " piotr@club.example ": "8", "x@club.example": "", "": ""},
    "leadSource": {"1": "1", "WEBSITE": "1", " walk-in ": "2", "Fair": "", "": ""},
}
BAD_DATES = (
    "31.12.1990",
    "1990-2-3",
    "1990-02-30",
    "1990-12-31T00:00:00Z",
    "0000-01-01",
    "0001-01-01",
    "1900-01-01",
    "١٩٩٠-١٢-٣١",
    "19901231",
    "x",
)
CONTROL = st.sampled_from(["a\0b", "\x1b[31m", "a\x07", "\x01"])
BAD: dict[str, st.SearchStrategy[object]] = {
    **dict.fromkeys(("birthdate", "trialStartDate", "trialEndDate"), st.sampled_from(BAD_DATES)),
    "gender": st.sampled_from(["X", "female", "MF", "0", "👩"]),
    "country": st.sampled_from(["POL", "P", "P1", "Poland", "ÄÖ", "🇵🇱"]),
    "userStatus": st.sampled_from(["MAYBE", "", "0", "IN ACTIVE"]),
    "userType": st.sampled_from(["GUEST", "", "STAFF", "PROSPECTS", "会员"]),
    "firstname": st.one_of(TOO_LONG, CONTROL, st.sampled_from(["", " ", "\u2003\u3000"])),
    "lastname": st.one_of(TOO_LONG, CONTROL, st.sampled_from(["", "\t\n"])),
    **dict.fromkeys(("address1", "city", "email", "mobile", "company"), st.one_of(TOO_LONG, CONTROL)),
    "nickname": st.just("Addie"),
}
BAD_JSON: dict[str, st.SearchStrategy[object]] = {
    "firstname": st.sampled_from([12, 1.5, True, None, ["Ada"], {"first": "Ada"}]),
    "city": st.sampled_from([1.5, True, ["Opole"], {}]),
    "mobile": st.sampled_from([1e300, False, [600], {"number": 600}]),
    "birthdate": st.sampled_from([19901231, 0, True, []]),
    "userType": st.sampled_from([1, None, [], {}]),
    "country": st.sampled_from([48, False, ["PL"]]),
}


@st.composite
def people(draw: st.DrawFn, language: Language, spoiled: int, limit: int | None) -> Sent:
    """With up to `spoiled` fields that must be refused."""
    texts = {name: draw(values) for name, values in MANDATORY_GOOD.items()}
    texts |= draw(st.fixed_dictionaries({}, optional=GOOD))
    wanted = {name: _kept(name, text, language) for name, text in texts.items()}
    body: dict[str, object] = dict(texts)
    warned = False
    for name, meanings in LEADS.items():
        if draw(st.integers(0, 3)) == 0:
            body[name] = given_text = draw(st.sampled_from(sorted(meanings)))
            wanted[name] = meanings[given_text]
            warned |= bool(given_text) and not wanted[name]
    if language == "json":
        for name in ("mobile", "zipcode", "company"):
            if draw(st.integers(0, 9)) == 0:
                body[name] = number = draw(st.sampled_from([None, 0, -7, 600000001, 10**40]))
                wanted[name] = "" if number is None else str(number)
    wrong = set()
    for _ in range(spoiled):
        bad = BAD | BAD_JSON if language == "json" and draw(st.booleans()) else BAD
        name = draw(st.sampled_from(sorted(bad)))
        if name in MANDATORY and draw(st.integers(0, 3)) == 0:
            body.pop(name, None)
        else:
            body[name] = draw(bad[name])
        wrong.add(name)
    return Sent(language, limit, body, wanted, frozenset(wrong), warned)


def _kept(name: str, text: str, language: Language) -> str:
    if language == "xml":  # every line ends with a line feed there
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = unicodedata.normalize("NFC", text).strip()
    if name in ("gender", "country", "userStatus", "userType"):
        text = text.upper()
    return text.replace(" ", "-") if name == "userType" else text


def _document(body: Mapping[str, object]) -> bytes:
    root = ET.Element("user")
    info = ET.SubElement(root, "userInfo")
    for name, value in body.items():
        ET.SubElement(info, name).text = str(value)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


@EACH_LANGUAGE
@pytest.mark.parametrize(
    ("batch", "spoiled", "limit"),
    [(1, 0, None), (2, 0, None), (3, 0, 255), (4, 1, None), (5, 2, None)],
    ids=["whole", "whole too", "for short fields", "with a wrong field", "with two"],
)
def test_each_of_many_people_arrives_as_sent_or_is_refused_with_a_reason(
    crm: Crm, language: Language, batch: int, spoiled: int, limit: int | None
) -> None:
    """The embedded DynamoDB copies all that it holds for each transaction, so ten times anew. See `make people`."""
    stack = crm.stack
    numbers, outcomes = count(), Counter[str]()

    @seed(batch)
    @settings(
        max_examples=PEOPLE // 10,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(people(language, spoiled, limit))
    def saved_or_refused(sent: Sent) -> None:
        stack.egito.max_length = sent.limit
        body = {"uuid": f"person-{next(numbers)}", **sent.body}
        records, calls = list(contacts(stack)), len(stack.egito.seen)
        as_json = sent.language == "json"
        answer = send(crm, json.dumps(body) if as_json else _document(body), JSON if as_json else XML)
        too_long = {name for name, text in sent.wanted.items() if sent.limit and len(text) > sent.limit}
        if sent.wrong or too_long:
            assert answer.status_code in (400, 422), (answer.text, body)
            said = refused(answer, answer.status_code, sent.language)
            if answer.status_code == 422:
                assert {name for name in sent.wrong if name in said.message and name in said.fields} == sent.wrong
                if not sent.wrong:
                    assert any(PERSON_FIELDS[name] in said.message for name in too_long)
            else:
                assert not as_json
                assert any(not character.isprintable() for name in sent.wrong for character in str(body.get(name)))
            assert contacts(stack) == records
            assert not sent.wrong or len(stack.egito.seen) == calls
            outcomes["refused"] += 1
        else:
            assert answer.status_code == 201, (answer.text, body)
            said = told(answer, "WARNING" if sent.warned else "INFO")
            assert said.language == sent.language
            *before, record = contacts(stack)
            assert before == records
            assert record["externalId"] == said.record_id
            expected = {theirs: sent.wanted.get(name, "") for name, theirs in PERSON_FIELDS.items()}
            assert {theirs: record[theirs] for theirs in expected} == expected
            outcomes["arrived"] += 1

    saved_or_refused()
    everybody, some = PEOPLE // 10, PEOPLE // 100
    both = {"arrived": some, "refused": some}
    least = {"refused": everybody} if spoiled else both if limit else {"arrived": everybody}
    assert all(outcomes[outcome] >= times for outcome, times in least.items()), outcomes


# ---------------------------------------------------------------- XML


def with_name(name: str, before: str = "") -> str:
    return f"{before}<user><userInfo>{TAGS.replace('Nowak', name)}</userInfo></user>"


def with_more(tags: str, provider: str = "") -> str:
    provider = f"<providerInfo>{provider}</providerInfo>" if provider else ""
    return f"<user>{provider}<userInfo>{TAGS}{tags}</userInfo></user>"


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
HOSTILE = {
    "billion laughs": with_name("&l9;", f'<!DOCTYPE user [<!ENTITY l0 "ha">{LAUGHS}]>'),
    "quadratic blow-up": with_name("&a;" * 5000, f'<!DOCTYPE user [<!ENTITY a "{"a" * 50_000}">]>'),
    "external entity": with_name("&x;", '<!DOCTYPE user [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
    "external entity over HTTP": with_name("&x;", '<!DOCTYPE user [<!ENTITY x SYSTEM "URL/x">]>'),
    "public entity": with_name("&x;", '<!DOCTYPE user [<!ENTITY x PUBLIC "-//X//EN" "URL/x">]>'),
    "external DTD": with_name("Nowak", '<!DOCTYPE user SYSTEM "URL/user.dtd">'),
    "public DTD": with_name("Nowak", '<!DOCTYPE user PUBLIC "-//X//EN" "URL/user.dtd">'),
    "parameter entity": with_name("Nowak", '<!DOCTYPE user [<!ENTITY % p SYSTEM "URL/p">%p;]>'),
    "nested parameter entities": with_name(
        "&x;", "<!DOCTYPE user [<!ENTITY % a '<!ENTITY x SYSTEM \"file:///etc/passwd\">'>%a;]>"
    ),
    "DOCTYPE alone": with_name("Nowak", "<!DOCTYPE user>"),
    "DOCTYPE with an attribute list": with_name("Nowak", '<!DOCTYPE user [<!ATTLIST user a CDATA "b">]>'),
    "an entity that nobody declared": with_name("&oacute;"),
    "an endless document": "<a>" * 20_000,
    "two roots": PERSON + PERSON,
    "text after the root": PERSON + "Ada",
    "two declarations": '<?xml version="1.0"?>' * 2 + PERSON,
    "a declaration that comes late": ' <?xml version="1.0"?>' + PERSON,
    "no XML at all": "firstname=Ada&lastname=Nowak",
    "JSON": json.dumps(MANDATORY),
    "nothing": "",
    "blanks": " \n ",
    "only a comment": "<!-- Ada -->",
    "a tag that is not closed": PERSON.removesuffix("</user>"),
    "tags that cross": "<user><firstname><lastname></firstname></lastname></user>",
    "an ampersand": with_name("A & B"),
    "an attribute twice": with_name("Nowak").replace("<user>", '<user a="1" a="2">'),
    "a prefix that nobody declared": "<it:user>" + TAGS + "</it:user>",
    "a control character": with_name("a\x01b"),
    "a control character as a reference": with_name("&#1;"),
    "half a character as a reference": with_name("&#xD800;"),
    "a character that is none": with_name("\uffff"),
}
UNREADABLE = {
    "invalid UTF-8": with_name("NAME").encode().replace(b"NAME", b"\xff\xfe\xfa"),
    "half a surrogate pair": with_name("NAME").encode().replace(b"NAME", b"\xed\xa0\x80"),
    "an overlong NUL": with_name("NAME").encode().replace(b"NAME", b"\xc0\x80"),
    "bytes that are not what the declaration says": with_name("Żółć", '<?xml version="1.0" encoding="UTF-8"?>').encode(
        "windows-1250"
    ),
    "capitals that are valid UTF-8 by chance": with_name("SPÓŁKA").encode("windows-1250"),
    "an encoding that there is not": b'<?xml version="1.0" encoding="x-nothing"?>' + PERSON.encode(),
    "an encoding that is no text": b'<?xml version="1.0" encoding="zlib"?>' + PERSON.encode(),
    "UTF-7": b'<?xml version="1.0" encoding="UTF-7"?>' + PERSON.encode(),
    "a picture": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "NULs": b"\0" * 1000,
}


def test_what_is_no_harmless_xml_is_refused_and_nothing_is_fetched(crm: Crm) -> None:
    documents = {**{name: text.encode() for name, text in HOSTILE.items()}, **UNREADABLE}
    for name, document in documents.items():
        said = refused(send(crm, document.replace(b"URL", crm.stack.illu.url.encode())), 400, "xml")
        assert said.fields == [], name
        assert ("document type" in said.message) == (b"<!DOCTYPE" in document), name
        assert "root:" not in said.message
        expect_untouched(crm.stack, name)


def test_xml_of_the_wrong_shape_is_refused_and_the_tag_is_named(crm: Crm) -> None:
    include = '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" parse="text" href="URL/x"/>'
    documents = {
        "an unknown tag": (with_more("<nickname>A</nickname>"), ["nickname"]),
        "an unknown tag of the provider": (with_more("", "<secret>A</secret>"), ["secret"]),
        "an unknown tag in another namespace": (with_more('<x:nickname xmlns:x="urn:x">A</x:nickname>'), ["nickname"]),
        "another case": (with_more("<City>Opole</City>"), ["City"]),
        "a tag twice": (with_more("<firstname>Eva</firstname>"), ["firstname"]),
        "a tag twice, once with a namespace": (with_more('<city>A</city><city xmlns="urn:x">B</city>'), ["city"]),
        "a tag twice, in both wrappers": (with_more("<city>A</city>", "<city>A</city>"), ["city"]),
        "an element in place of text": (with_more("<city><name>Opole</name></city>"), ["city"]),
        "an element within text": (with_more("<city>O<b>po</b>le</city>"), ["city"]),
        "XInclude": (with_more(include), ["include"]),
        "XInclude in place of text": (with_more(f"<city>{include}</city>"), ["city"]),
        "XInclude of a file": (with_more(f"<city>{include}</city>").replace("URL/x", "file:///etc/passwd"), ["city"]),
        "18,000 elements in one another": ("<user>" + "<a>" * 18_000 + "</a>" * 18_000 + "</user>", ["a"]),
        "another client": (with_more("", "<clientID>c-8</clientID>"), ["clientID"]),
        "another club": (with_more("", "<clubID>k-4</clubID>"), ["clubID"]),
        "another client and club": (with_more("", "<clientID>x</clientID><clubID>y</clubID>"), ["clientID", "clubID"]),
        "an empty client and club": (with_more("", "<clientID/><clubID/>"), ["clientID", "clubID"]),
        "a recordID that is none of ours": (with_more("", "<recordID>5001</recordID>"), ["recordID"]),
        "no fields": ("<user/>", list(MANDATORY)),
        "fields without text": (
            "<user><userInfo>" + "".join(f"<{n}/>" for n in MANDATORY) + "</userInfo></user>",
            [*MANDATORY],
        ),
        "fields as attributes": ('<user firstname="Ada" lastname="Nowak"/>', list(MANDATORY)),
    }
    for name, (document, fields) in documents.items():
        said = refused(send(crm, document.replace("URL", crm.stack.illu.url)), 422, "xml")
        assert said.fields == fields, name
        assert all(field in said.message for field in fields[:3]), name
        expect_untouched(crm.stack, name)


def test_xml_that_is_too_large_is_refused_unread(crm: Crm) -> None:
    documents = {
        "20,000 elements in one another": "<user>" + "<a>" * 20_000 + "</a>" * 20_000 + "</user>",
        "a huge attribute": f'<user a="{"x" * 200_000}"/>',
        "many attributes": f"<user {' '.join(f'a{n}="1"' for n in range(20_000))}/>",
        "a huge text": with_name("x" * 200_000),
        "a huge comment": with_name(f"<!--{'x' * 200_000}-->"),
    }
    for name, document in documents.items():
        said = refused(send(crm, document), 413, "xml")
        assert "bytes" in said.message, name
        expect_untouched(crm.stack, name)


def test_a_huge_attribute_does_no_harm_when_the_body_is_small_enough(crm: Crm) -> None:
    assert send(crm, PERSON.replace("<user>", f'<user a="{"x" * 100_000}">')).status_code == 201
    assert [record["lastName"] for record in contacts(crm.stack)] == ["Nowak"]


def test_xml_is_read_right_however_it_is_written(crm: Crm) -> None:
    def encoded(encoding: str, name: str, declared: str | None = None) -> bytes:
        return with_name(name, f'<?xml version="1.0" encoding="{declared or encoding}"?>').encode(encoding)

    namespace = "http://www.intouchfollowup.com/api/2011-11"
    prefixed = with_name("Lis").replace("</", "\0").replace("<", "<it:").replace("\0", "</it:")
    documents: dict[str, tuple[str | bytes, str]] = {
        "UTF-8 without a declaration": (with_name("Żółć 👩"), "Żółć 👩"),
        "UTF-8 with a mark": (encoded("utf-8-sig", "Żółć", "UTF-8"), "Żółć"),
        "UTF-16": (encoded("utf-16", "Żółć 👩", "UTF-16"), "Żółć 👩"),
        "UTF-16, big end first": (b"\xfe\xff" + encoded("utf-16-be", "Żółć", "UTF-16"), "Żółć"),
        "UTF-16 without a mark": (encoded("utf-16-le", "Nowak", "UTF-16"), "Nowak"),
        "ISO-8859-1": (encoded("ISO-8859-1", "Müller-Ñé"), "Müller-Ñé"),
        "ISO-8859-2": (encoded("ISO-8859-2", "Żółć"), "Żółć"),
        "windows-1250": (encoded("windows-1250", "Żółć"), "Żółć"),
        "UTF-8 that .NET calls UTF-16": (encoded("utf-8", "Żółć", "utf-16"), "Żółć"),
        "UTF-8 that is declared as ISO-8859-2": (encoded("utf-8", "Kraków", "ISO-8859-2"), "Kraków"),
        "UTF-32": (encoded("utf-32", "Żółć"), "Żółć"),
        "US-ASCII": (encoded("US-ASCII", "Lis &#x17B;"), "Lis Ż"),
        "CDATA": (with_name("<![CDATA[<b> & ]]>]]<![CDATA[>]]>"), "<b> & ]]>"),
        "an empty CDATA": (with_name("<![CDATA[]]>Lis"), "Lis"),
        "a comment within text": (with_name("Li<!-- <lastname>X</lastname> -->s"), "Lis"),
        "a comment in front": (with_name("Lis", "<!-- hello -->"), "Lis"),
        "references": (with_name("&lt;&amp;&gt;&quot;&apos;&#x141;&#128105;"), "<&>\"'Ł👩"),
        "a processing instruction": (with_name("Li<?php exit() ?>s", '<?xml-stylesheet href="URL/x.xsl"?>'), "Lis"),
        "a default namespace": (with_name("Lis").replace("<user>", f'<user xmlns="{namespace}">'), "Lis"),
        "a prefix": (prefixed.replace("<it:user>", f'<it:user xmlns:it="{namespace}">'), "Lis"),
        "a schema's address": (
            PERSON.replace(
                "<user>",
                '<user xmlns:i="http://www.w3.org/2001/XMLSchema-instance" i:noNamespaceSchemaLocation="URL/x.xsd">',
            ),
            "Nowak",
        ),
        "line ends and blanks": (PERSON.replace("<", "\r\n\t <"), "Nowak"),
        "no wrappers": (f"<user>{TAGS}</user>", "Nowak"),
        "another root": (f"<prospect>{TAGS}</prospect>", "Nowak"),
        "our ids": (with_more("", f"<clientID>{CLIENT}</clientID><clubID>{CLUB}</clubID>"), "Nowak"),
        "the Connector's club": (with_more("", f"<clubID>{CONNECTOR_CLUB}</clubID>"), "Nowak"),
        "a standalone document": (with_name("Lis", '<?xml version="1.0" standalone="yes"?>'), "Lis"),
    }
    names = [expected for _, expected in documents.values()]
    for number, (name, (document, expected)) in enumerate(documents.items(), start=1):
        content = document.encode() if isinstance(document, str) else document
        kind = (XML, "text/xml", "application/vnd.club+xml", "Application/XML; charset=utf-8")[number % 4]
        answer = send(crm, content.replace(b"URL", crm.stack.illu.url.encode()), kind)
        result = "WARNING" if expected in names[: number - 1] else "INFO"  # of the same name, and with nothing else
        assert (answer.status_code, told(answer, result).language) == (201, "xml"), name
        assert len(contacts(crm.stack)) == number, name
        assert contacts(crm.stack)[-1]["lastName"] == expected, name
    assert crm.stack.illu.seen == []


def test_an_empty_tag_empties_and_a_missing_tag_keeps(crm: Crm) -> None:
    ids = "<uuid>u-1</uuid>"
    send(crm, with_more("<city>Opole</city><company>Lis</company><email>a@b.c</email>", ids))
    assert send(crm, with_more("<city/><company>  </company>", ids)).status_code == 200
    (record,) = contacts(crm.stack)
    assert (record["city"], record["company"], record["email"]) == ("", "", "a@b.c")


def test_null_keeps_what_egito_has_in_both_languages(crm: Crm) -> None:
    kept = {"email": "a@b.c", "mobile": "600000001", "birthdate": "1990-12-31", "trialStartDate": "2024-01-01"}
    send(crm, {**MANDATORY, **kept, "uuid": "u-1"})
    before = dict(contacts(crm.stack)[0])
    nils = "".join(f'<{name} i:nil="{nil}"/>' for name, nil in zip(kept, ("true", "1", "true", "1"), strict=True))
    document = with_more(nils, "<uuid>u-1</uuid>").replace(
        "<user>", '<user xmlns:i="http://www.w3.org/2001/XMLSchema-instance">'
    )
    assert send(crm, document).status_code == 200
    assert send(crm, {**MANDATORY, **dict.fromkeys(kept), "uuid": "u-1"}).status_code == 200
    assert contacts(crm.stack) == [before]


@pytest.mark.parametrize("named", ["iso-8859-2", "windows-1250"])
def test_the_charset_of_the_content_type_counts_when_the_declaration_lies(crm: Crm, named: str) -> None:
    """Source: https://www.rfc-editor.org/rfc/rfc7303#section-3"""
    for declared, encoding, charset in (("UTF-8", named, named), (named, "utf-8", "utf-8"), ("utf-16", named, named)):
        document = with_name("Kraków-Żółć", f'<?xml version="1.0" encoding="{declared}"?>').encode(encoding)
        assert send(crm, document, f"application/xml; charset={charset}").status_code == 201
        assert contacts(crm.stack)[-1]["lastName"] == "Kraków-Żółć"


def test_the_charset_of_the_content_type_counts_when_the_document_declares_none(crm: Crm) -> None:
    """Source: https://www.rfc-editor.org/rfc/rfc7303#section-3"""
    answer = send(crm, with_name("Müller").encode("iso-8859-1"), "application/xml; charset=iso-8859-1")
    assert answer.status_code == 201
    assert contacts(crm.stack)[0]["lastName"] == "Müller"


# ---------------------------------------------------------------- JSON


def test_what_is_no_json_is_refused(crm: Crm) -> None:
    person = json.dumps(MANDATORY)
    bodies: dict[str, tuple[bytes, int]] = {
        "nothing": (b"", 400),
        "blanks": (b" \n", 400),
        "half a body": (person[:-1].encode(), 400),
        "two objects": ((person * 2).encode(), 400),
        "single quotes": (person.replace('"', "'").encode(), 400),
        "NaN": (person.replace('"Ada"', "NaN").encode(), 400),
        "Infinity": (person.replace('"Ada"', "-Infinity").encode(), 400),
        "a huge number": (person.replace('"Ada"', "9" * 10_000).encode(), 400),
        "half a surrogate pair": (person.replace("Ada", "\\ud800").encode(), 400),
        "a raw control character": (person.replace("Ada", "a\x01b").encode(), 400),
        "invalid UTF-8": (person.encode().replace(b"Ada", b"\xff"), 400),
        "windows-1250": (person.replace("Ada", "Żółć").encode("windows-1250"), 400),
        "XML": (PERSON.encode(), 400),
        "endless nesting": (b"[" * 100_000, 400),
        "an array": (f"[{person}]".encode(), 422),
        "an empty array": (b"[]", 422),
        "a text": (b'"Ada"', 422),
        "a number": (b"5", 422),
        "null": (b"null", 422),
        "nothing in it": (b"{}", 422),
    }
    for name, (body, status) in bodies.items():
        refused(send(crm, body, JSON), status, "json")
        expect_untouched(crm.stack, name)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "iso-8859-2"])
def test_json_is_read_right_however_it_is_encoded(crm: Crm, encoding: str) -> None:
    body = json.dumps({**MANDATORY, "lastname": "Żółć"}, ensure_ascii=False).encode(encoding)
    named = "; charset=iso-8859-2" if encoding.startswith("iso") else ""
    assert send(crm, body, f"application/json{named}").status_code == 201
    assert contacts(crm.stack)[0]["lastName"] == "Żółć"


def test_json_with_a_wrong_member_is_refused_and_the_member_is_named(crm: Crm) -> None:
    members: dict[str, object] = {
        "nickname": "A",
        "userInfo": MANDATORY,
        "__proto__": {},
        "user_type": "PROSPECT",
        "record_id": "x",
        "recordID": "5001",
        "uuid": "x" * 201,
        "clientID": "c-8",
        "clubID": "k-4",
        "city": {"name": "Opole"},
        "firstname": None,
        "lastname": "a\u0000b",
        "zipcode": 30.5,
        "birthdate": "1990-02-30",
    }
    for name, value in members.items():
        said = refused(send(crm, {**MANDATORY, name: value}), 422, "json")
        assert said.fields[0].split(".")[0] == name
        assert name in said.message
        expect_untouched(crm.stack, name)


def test_json_with_a_member_twice_is_refused(crm: Crm) -> None:
    body = json.dumps(MANDATORY).replace('"lastname"', '"firstname": "Eva", "lastname"')
    assert refused(send(crm, body, JSON), 422, "json").fields == ["firstname"]
    expect_untouched(crm.stack)


# ---------------------------------------------------------------- both: sizes, kinds, keys, clubs


def test_five_megabytes_are_refused_in_the_callers_language(crm: Crm) -> None:
    size = 5 * 1024 * 1024
    refused(send(crm, {**MANDATORY, "city": "x" * size}), 413, "json")
    refused(send(crm, with_name("x" * size)), 413, "xml")
    refused(send(crm, with_name("x" * size), Accept=JSON), 413, "json")
    refused(send(crm, {"name": "x" * size}, path="/lead-sources"), 413, "json")
    expect_untouched(crm.stack)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "text/html", "nonsense", "xml"])
def test_another_content_type_is_refused(crm: Crm, kind: str) -> None:
    refused(send(crm, PERSON, kind), 415, "json")
    refused(send(crm, PERSON, kind, Accept=XML), 415, "xml")
    expect_untouched(crm.stack)


def test_whoever_sends_another_content_type_is_told_of_both_languages(crm: Crm) -> None:
    said = refused(send(crm, PERSON, "text/plain", Accept=XML), 415)
    assert JSON in said.message
    assert XML in said.message


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


@EACH_LANGUAGE
def test_callers_without_a_valid_key_are_refused_in_their_language(crm: Crm, language: Language) -> None:
    body: str | Mapping[str, object] = MANDATORY if language == "json" else PERSON
    key = crm.stack.api_key
    credentials = {
        "an unknown key": "Bearer crmb_nobody",
        "an empty key": "Bearer ",
        "a key in another case": f"Bearer {key.upper()}",
        "another password": basic(CLIENT, "crmb_nobody"),
        "no password": basic(CLIENT, ""),
        "the key as the user": basic(key, ""),
        "something that is not base64": "Basic !!!",
        "something that is no text": "Basic " + b64encode(b"\xff\xfe:\xff").decode(),
    }
    for name, authorization in credentials.items():
        answer = send(crm, body, Authorization=authorization)
        refused(answer, 401, language)
        assert answer.headers["WWW-Authenticate"], name
        listed = send(crm, method="GET", path="/staff", Authorization=authorization, Accept=f"application/{language}")
        refused(listed, 401, language)
    expect_untouched(crm.stack)


@EACH_LANGUAGE
@pytest.mark.parametrize("authorization", [None, "Digest crmb_key"])
def test_callers_without_any_key_are_told_how_to_send_one(
    crm: Crm, language: Language, authorization: str | None
) -> None:
    body: str | Mapping[str, object] = MANDATORY if language == "json" else PERSON
    answer = send(crm, body, Authorization=authorization)
    assert answer.status_code == 401
    assert "Bearer" in refused(answer, 401, language).message


def test_a_key_without_the_scope_is_refused(crm: Crm) -> None:
    key = crm.stack.add_key("demo", SCOPES - {"connector_receiver"}, "others")
    said = refused(send(crm, PERSON, Authorization=f"Bearer {key}"), 403, "xml")
    assert "connector_receiver" in said.message
    expect_untouched(crm.stack)


@pytest.mark.parametrize("user", [CLIENT, "connector", "", "someone else", "Ä"])
def test_basic_lets_in_any_user_with_the_key_as_password(crm: Crm, user: str) -> None:
    assert send(crm, PERSON, Authorization=basic(user, crm.stack.api_key)).status_code == 201


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_bearer_lets_in_with_the_key(crm: Crm, scheme: str) -> None:
    assert send(crm, PERSON, Authorization=f"{scheme} {crm.stack.api_key}").status_code == 201


@EACH_LANGUAGE
def test_a_club_of_another_tenant_is_404(crm: Crm, language: Language) -> None:
    stack = crm.stack
    document = json.loads(stack.demo_tenant())
    document["connector"] |= {"client_id": "c-8", "clubs": {"k-9": {"connector_id": "9f"}}}
    stack.put_secret("other", json.dumps(document))
    other = f"Bearer {stack.add_key('other', SCOPES, 'other')}"
    body: str | Mapping[str, object] = MANDATORY if language == "json" else PERSON
    accept = f"application/{language}"
    for club, key in (("k-9", None), ("9f", None), (CLUB, other), (CONNECTOR_CLUB, other), ("nothing", None)):
        authorization = key or crm.headers["Authorization"]
        refused(send(crm, body, club=club, Authorization=authorization), 404, language)
        refused(send(crm, body, club=club, path="/prospects/x", method="PUT", Authorization=authorization), 404)
        for path in ("/staff", "/lead-sources", "/check"):
            listed = send(crm, method="GET", club=club, path=path, Authorization=authorization, Accept=accept)
            refused(listed, 404, language)
    expect_untouched(stack)
    assert send(crm, body, club="k-9", Authorization=other).status_code == 201


@EACH_LANGUAGE
@pytest.mark.parametrize("block", ["connector", "egito"])
def test_is_503_and_says_what_to_add_when_the_tenant_lacks_a_block(crm: Crm, language: Language, block: str) -> None:
    document = json.loads(crm.stack.demo_tenant())
    del document[block]
    crm.stack.put_secret("other", json.dumps(document))
    key = f"Bearer {crm.stack.add_key('other', SCOPES, 'other')}"
    body: str | Mapping[str, object] = MANDATORY if language == "json" else PERSON
    answers = [send(crm, body, Authorization=key)]
    accept = f"application/{language}"
    answers += [
        send(crm, method="GET", path=path, Authorization=key, Accept=accept) for path in ("/staff", "/lead-sources")
    ]
    for answer in answers:
        assert f"{block} block" in refused(answer, 503, language).message
    assert crm.stack.egito.seen == []


# ---------------------------------------------------------------- which language is answered


@pytest.mark.parametrize("path", ["/staff", "/lead-sources", "/check"])
def test_a_get_is_answered_in_the_language_asked_for(crm: Crm, path: str) -> None:
    in_json = {accept: send(crm, method="GET", path=path, Accept=accept) for accept in (JSON, "*/*", None)}
    assert {answer.headers["Content-Type"] for answer in in_json.values()} == {JSON}
    for accept in (XML, "text/xml", "application/xml;q=0.9, */*;q=0.1"):
        answer = send(crm, method="GET", path=path, Accept=accept)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/xml; charset=utf-8")
        root = fromstring(answer.content)
        assert root.tag == "response"
        assert _texts(in_json[JSON].json()) == [element.text or "" for element in root.iter() if not len(element)]


def _texts(value: object) -> list[str]:
    """The leaves, as XML writes them; an empty list writes nothing."""
    if isinstance(value, dict):
        return [text for member in value.values() for text in _texts(member)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)]


def test_a_save_is_answered_in_the_language_asked_for_else_in_its_own(crm: Crm) -> None:
    cases: tuple[tuple[str | Mapping[str, object], str | None, str], ...] = (
        *((PERSON, accept, "xml") for accept in (XML, "text/xml", "*/*", None)),
        *((PERSON, accept, "json") for accept in (JSON, "application/json, */*")),
        *((MANDATORY, accept, "json") for accept in (JSON, "*/*", None)),
        *((MANDATORY, accept, "xml") for accept in (XML, "text/xml, */*")),
    )
    for number, (body, accept, language) in enumerate(cases):
        result = "WARNING" if number else "INFO"  # the same four fields again
        assert told(send(crm, body, Accept=accept), result).language == language, (body, accept)
        wrong = body.replace("ACTIVE", "X") if isinstance(body, str) else {**body, "userStatus": "X"}
        assert refused(send(crm, wrong, Accept=accept), 422).language == language, (body, accept)


@pytest.mark.parametrize("accept", [JAVA_ACCEPTS, "*/*;q=0.8", "text/plain, application/xml", "text/html, */*"])
def test_xml_is_answered_in_xml_when_nobody_asks_for_json(crm: Crm, accept: str) -> None:
    assert told(send(crm, PERSON, Accept=accept), "INFO").language == "xml"


@pytest.mark.parametrize(
    "name", ["می\u200cخ", "👩\u200d👧", "שרה\u200f", "Jean\u00a0Luc", "山田\u3000太郎", "co\u00adop"]
)
def test_a_name_is_the_same_in_xml_as_in_json(crm: Crm, name: str) -> None:
    crm.stack.egito.add("User", name=name, email="z@club.example")
    answer = send(crm, method="GET", path="/staff", Accept=XML)
    assert [element.text for element in fromstring(answer.content).iter("name")][-1] == name


# ---------------------------------------------------------------- ids


@EACH_LANGUAGE
def test_is_422_when_the_id_in_the_address_is_not_that_of_the_body(crm: Crm, language: Language) -> None:
    ours, other = (send(crm, {**MANDATORY, "uuid": uuid}).json()["recordID"] for uuid in ("u-1", "u-2"))
    before, calls = [dict(record) for record in contacts(crm.stack)], len(crm.stack.egito.seen)
    cases = ((ours, "recordID", other), (ours, "recordID", "p_" + "0" * 32), ("u-1", "uuid", "u-2"))
    for in_address, name, in_body in cases:
        body: str | Mapping[str, object] = {**MANDATORY, "lastname": "Lis", name: in_body}
        if language == "xml":
            body = with_more("", f"<{name}>{in_body}</{name}>").replace("Nowak", "Lis")
        for kind in ("prospects", "members"):
            said = refused(send(crm, body, method="PUT", path=f"/{kind}/{in_address}"), 422, language)
            assert said.fields == [name]
            assert name in said.message
    assert (contacts(crm.stack), len(crm.stack.egito.seen)) == (before, calls)


def test_an_id_in_the_address_may_be_ours_or_the_connectors(crm: Crm) -> None:
    ours = send(crm, {**MANDATORY, "uuid": "u-1"}).json()["recordID"]
    for number, (in_address, ids) in enumerate(
        ((ours, {}), ("u-1", {}), (ours, {"recordID": ours}), (ours, {"uuid": "u-1"}), ("u-1", {"uuid": "u-1"}))
    ):
        body = {**MANDATORY, "lastname": f"Lis{number}", **ids}
        assert told(send(crm, body, method="PUT", path=f"/prospects/{in_address}"), "INFO").record_id == ours
        assert [record["lastName"] for record in contacts(crm.stack)] == [f"Lis{number}"]


@EACH_LANGUAGE
@pytest.mark.parametrize("blank", ["", "  "])
def test_an_empty_id_counts_as_none(crm: Crm, language: Language, blank: str) -> None:
    body: str | Mapping[str, object] = {**MANDATORY, "recordID": blank, "uuid": blank}
    if language == "xml":
        body = with_more("", f"<recordID>{blank}</recordID><uuid>{blank}</uuid>")
    answers = [send(crm, body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert (
        len({told(answer, result).record_id for answer, result in zip(answers, ("INFO", "WARNING"), strict=True)}) == 2
    )


@EACH_LANGUAGE
def test_is_404_when_nobody_has_the_record_id(crm: Crm, language: Language) -> None:
    unknown = "p_" + "0" * 32
    body: str | Mapping[str, object] = MANDATORY if language == "json" else PERSON
    said = refused(send(crm, body, method="PUT", path=f"/prospects/{unknown}"), 404, language)
    assert "recordID" in said.message
    expect_untouched(crm.stack)


@pytest.mark.parametrize("in_address", ["x" * 201, "x" * 3000, "a%00b", "%20", "a%1Bb"])
def test_what_can_be_no_uuid_in_the_address_is_422(crm: Crm, in_address: str) -> None:
    said = refused(send(crm, MANDATORY, method="PUT", path=f"/prospects/{in_address}"), 422)
    assert said.fields == ["uuid"]
    expect_untouched(crm.stack)


@EACH_LANGUAGE
def test_is_422_when_a_lead_source_is_wrong(crm: Crm, language: Language) -> None:
    cases: tuple[tuple[dict[str, str], str], ...] = (
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "Fair", "active": "perhaps"}, "active"),
        ({"name": "Fair", "color": "red"}, "color"),
        ({"name": "Fair", "clubID": "k-4"}, "clubID"),
    )
    for members, name in cases:
        tags = "".join(f"<{tag}>{text}</{tag}>" for tag, text in members.items())
        body: str | Mapping[str, object] = members if language == "json" else f"<leadSource>{tags}</leadSource>"
        for method, path in (("POST", "/lead-sources"), ("PUT", "/lead-sources/1")):
            said = refused(send(crm, body, method=method, path=path), 422, language)
            assert (said.fields, name in said.message) == ([name], True)
    expect_untouched(crm.stack)


# ---------------------------------------------------------------- messages

WORDS = {
    "markup": "<b>bad</b>",
    "an entity": "a & b",
    "quotes": '"it\'s"',
    "right to left": "شارع\u200f",
    "no character": "a\ufffeb\uffff",
    "an escape": "a\x1b[31mb",
    "a NUL": "a\0b",
    "C1": "a\x9bb",
    "too much": "word " * 500,
}


@EACH_LANGUAGE
@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_whatever_egito_says_is_told_in_one_harmless_line(crm: Crm, language: Language, words: str) -> None:
    crm.stack.egito.required["Contact"] = (words,)
    body: str | Mapping[str, object] = MANDATORY if language == "json" else PERSON
    said = refused(send(crm, body), 422, language)
    assert said.message.startswith("Not saved. Egito")
    assert contacts(crm.stack) == []


@EACH_LANGUAGE
@pytest.mark.parametrize("words", ["one\ntwo", "one\r\ntwo"])
def test_what_egito_says_in_several_lines_is_told_in_one(crm: Crm, language: Language, words: str) -> None:
    crm.stack.egito.required["Contact"] = (words,)
    body: str | Mapping[str, object] = MANDATORY if language == "json" else PERSON
    said = refused(send(crm, body), 422, language)
    assert "one" in said.message
    assert "two" in said.message


@pytest.mark.parametrize("words", ["a\x1b[31mb", "a\0b", "a\x9bb"])
def test_a_message_has_no_control_characters(crm: Crm, words: str) -> None:
    crm.stack.egito.required["Contact"] = (words,)
    message = refused(send(crm, MANDATORY), 422, "json").message
    assert not [character for character in message if unicodedata.category(character) == "Cc"]


@pytest.mark.parametrize("name", ["<b>bold</b>", "two\nlines", "x" * 1000])
def test_a_message_stays_a_line_without_markup_when_an_unknown_member_has_an_odd_name(crm: Crm, name: str) -> None:
    message = refused(send(crm, {**MANDATORY, name: "x"}), 422, "json").message
    assert "is not known here" in message


@EACH_LANGUAGE
def test_the_message_names_every_mandatory_field_that_is_missing(crm: Crm, language: Language) -> None:
    message = refused(send(crm, {} if language == "json" else "<user/>"), 422, language).message
    assert [name for name in MANDATORY if name not in message] == []


@EACH_LANGUAGE
def test_the_message_is_a_whole_sentence_when_a_field_is_unknown(crm: Crm, language: Language) -> None:
    body: str | Mapping[str, object] = {**MANDATORY, "nickname": "A"}
    message = refused(send(crm, body if language == "json" else with_more("<nickname/>")), 422, language).message
    assert message.endswith((".", "…"))


@EACH_LANGUAGE
def test_the_message_of_a_defect_tells_nothing_of_it(
    crm: Crm, language: Language, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("<boom> in handler.py")

    monkeypatch.setattr(wire, "read", broken)
    body: str | Mapping[str, object] = MANDATORY if language == "json" else PERSON
    assert "boom" not in refused(send(crm, body), 500, language).message


@pytest.mark.parametrize("kind", [Kind.HTML, Kind.BAD_KEY, Kind.TOO_MANY, Kind.ERROR_BEFORE, Kind.WRONG_STATUS])
@EACH_LANGUAGE
def test_whatever_egito_answers_is_told_in_a_sentence(crm: Crm, language: Language, kind: Kind) -> None:
    crm.stack.egito.fail(kind, times=5)
    body: str | Mapping[str, object] = MANDATORY if language == "json" else PERSON
    answer = send(crm, body)
    said = told(answer, "INFO" if kind is Kind.WRONG_STATUS else "WARNING")
    assert (said.language, answer.status_code) == (language, 201 if kind is Kind.WRONG_STATUS else 202)
    crm.stack.egito.fail(kind, times=5, method="GET")
    listed = send(crm, method="GET", path="/staff", Accept=f"application/{language}")
    if kind is not Kind.WRONG_STATUS:
        refused(listed, 503, language)

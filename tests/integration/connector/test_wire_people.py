"""Made-up people in JSON and XML: each arrives at Egito as sent, or is refused and the wrong fields are named."""

import json
import os
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from xml.etree import ElementTree as ET

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from crm_bridge.vendors.egito_settings import PERSON_FIELDS
from tests.connector import Language
from tests.integration.conftest import Crm
from tests.integration.connector_calls import JSON, LANGUAGES, MANDATORY, XML, contacts, refused, send, summary

PEOPLE = int(os.environ.get("PEOPLE", "120"))
"""That are made up and sent, in eight parts; `make long` takes a thousand."""


@dataclass(frozen=True)
class Sent:
    """A person, how it is sent, what Egito is to have of it, and by which fields it must be refused."""

    body: dict[str, object]
    wanted: dict[str, str]
    """By our names; nothing else than empty texts besides."""
    wrong: frozenset[str]
    warned: bool


LETTERS = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff")
"""Whatever both JSON and XML can hold, but control characters."""
NAMES = (
    *("Zoë", "Zoe\u0308", "\uff2a\uff4fhn", "Łukasz", "Đặng Thị Hà", "Dạ\u0302\u0323ng", "O'Brien", "d\u2019Arc"),
    *("Smith-Jones", "محمد", "می\u200cخ", "שרה\u200f", "\u202eevil\u202c", "山田\u3000太郎", "김민수", "ธนพร"),
    *("\u1100\u1161\u11a8", "👩\u200d👧\u200d👦", "🇵🇱", "👍🏽", "\U0001d56c\U0001d589", "<script>alert(1)</script>"),
    *("&amp;", "Tom & Jerry", '"quoted"', "]]>", "<!-- -->", "%41", "\\u0041", "null", "0", "true", "=1+1"),
    *("'; DROP TABLE", "a\u00a0b", "\u200b", "Z̴̢͝a̷l̶g̷o̶", "  Ada  ", "\u2003Ada\u2003", "Ada\tMaria", "Ada\nMaria"),
    *("Ada\r\nMaria", "\ufeffAda", "ﬁ", "İi", "ß", "\U0001fffe"),
)


def long(least: int, most: int, *letters: str) -> st.SearchStrategy[str]:
    return st.builds(lambda letter, length: letter * length, st.sampled_from(letters), st.integers(least, most))


TOO_LONG = long(1001, 3000, "x", "e\u0301", "字")
NAME = st.one_of(
    *[st.sampled_from(NAMES)] * 2,
    st.text(LETTERS, min_size=1, max_size=30).filter(str.strip),
    long(200, 1000, "x", "é", "e\u0301", "\U0001d518", "字", "<", "&"),
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
    **dict.fromkeys(("address1", "address2", "city", "zipcode", "state"), st.one_of(NAME, st.sampled_from(MAYBE))),
    "company": st.one_of(NAME, st.sampled_from(MAYBE)),
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
    *("31.12.1990", "1990-2-3", "1990-02-30", "1990-12-31T00:00:00Z", "0000-01-01", "0001-01-01", "1900-01-01"),
    *("١٩٩٠-١٢-٣١", "19901231", "x"),
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
def people(draw: st.DrawFn, language: Language, spoiled: int) -> Sent:
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
    return Sent(body, wanted, frozenset(wrong), warned)


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


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("batch", "spoiled", "limit"),
    [(1, 0, None), (3, 0, 255), (4, 1, None), (5, 2, None)],
    ids=["whole", "for short fields", "with a wrong field", "with two"],
)
def test_each_of_many_people_arrives_as_sent_or_is_refused_with_a_reason(
    crm: Crm, language: Language, batch: int, spoiled: int, limit: int | None
) -> None:
    """`limit` is that of Egito's texts."""
    crm.stack.egito.max_length = limit
    numbers, outcomes = count(), Counter[str]()

    @seed(batch)
    @settings(
        max_examples=PEOPLE // 8,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(people(language, spoiled))
    def saved_or_refused(sent: Sent) -> None:
        body = {"uuid": f"person-{next(numbers)}", **sent.body}
        records, calls = list(contacts(crm.stack)), len(crm.stack.egito.seen)
        content, kind = (json.dumps(body), JSON) if language == "json" else (_document(body), XML)
        answer = send(crm, content, kind)
        too_long = {name for name, text in sent.wanted.items() if limit and len(text) > limit}
        if not sent.wrong and not too_long:
            assert answer.status_code == 201, (answer.text, body)
            said = summary(answer, "WARNING" if sent.warned else "INFO")
            assert said.language == language
            *before, record = contacts(crm.stack)
            assert before == records
            expected = {theirs: sent.wanted.get(name, "") for name, theirs in PERSON_FIELDS.items()}
            assert {theirs: record[theirs] for theirs in expected} == expected
            assert record["externalId"] == said.record_id
            outcomes["arrived"] += 1
            return
        assert answer.status_code in (400, 422), (answer.text, body)
        said = refused(answer, answer.status_code, language)
        if answer.status_code == 400:
            assert language == "xml"
            assert any(not character.isprintable() for name in sent.wrong for character in str(body.get(name)))
        else:
            assert {name for name in sent.wrong if name in said.message and name in said.fields} == sent.wrong
            assert sent.wrong or any(PERSON_FIELDS[name] in said.message for name in too_long)
        assert contacts(crm.stack) == records
        assert not sent.wrong or len(crm.stack.egito.seen) == calls
        outcomes["refused"] += 1

    saved_or_refused()
    everybody, some = PEOPLE // 8, PEOPLE // 80
    both = {"arrived": some, "refused": some}
    least = {"refused": everybody} if spoiled else both if limit else {"arrived": everybody}
    assert all(outcomes[outcome] >= times for outcome, times in least.items()), outcomes

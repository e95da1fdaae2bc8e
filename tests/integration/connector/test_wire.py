"""How connector_receiver responds in JSON and XML: to whom, about whose club, in which language, in which words."""

import json
import unicodedata

import pytest
from defusedxml.ElementTree import fromstring

from connector_receiver import wire
from local.stack import SCOPES
from local.vendors.egito import CLIENT, CLUB, CONNECTOR_CLUB
from local.vendors.simulator import Kind
from tests.integration.conftest import Crm
from tests.integration.connector_calls import (
    JSON,
    LANGUAGES,
    MANDATORY,
    PERSON,
    XML,
    Body,
    basic,
    body,
    contacts,
    expect_untouched,
    read,
    refused,
    send,
    summary,
    tags,
    with_name,
)

JAVA_ACCEPTS = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"
"""The headers that Java's HttpURLConnection sends by default; the Connector is written in Java."""
LISTS = ("/staff", "/lead-sources")


# ---------------------------------------------------------------- sizes, kinds, keys, clubs


def test_five_megabytes_are_refused_in_the_callers_language(crm: Crm) -> None:
    size = 5 * 1024 * 1024
    refused(send(crm, body("json", city="x" * size)), 413, "json")
    refused(send(crm, with_name("x" * size)), 413, "xml")
    refused(send(crm, with_name("x" * size), Accept=JSON), 413, "json")
    refused(send(crm, {"name": "x" * size}, path="/lead-sources"), 413, "json")
    expect_untouched(crm.stack)


def test_another_content_type_is_refused_and_both_languages_are_named(crm: Crm) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "text/html", "nonsense", "xml"):
        for accept, language in ((None, "json"), (XML, "xml")):
            said = refused(send(crm, PERSON, kind, Accept=accept), 415, language, kind)
            assert (JSON in said.message, XML in said.message) == (True, True)
    expect_untouched(crm.stack)


def test_callers_without_a_valid_key_are_refused_in_their_language(crm: Crm) -> None:
    key = crm.stack.api_key
    credentials = {
        "an unknown key": "Bearer crmb_nobody",
        "an empty key": "Bearer ",
        "a key in another case": f"Bearer {key.upper()}",
        "another password": basic(CLIENT, "crmb_nobody"),
        "no password": basic(CLIENT, ""),
        "the key as the user": basic(key, ""),
        "something that is not base64": "Basic !!!",
        "something that is no text": "Basic //46/w==",
        "none": None,
        "another scheme": "Digest crmb_key",
    }
    for language in LANGUAGES:
        for name, authorization in credentials.items():
            response = send(crm, body(language), Authorization=authorization)
            said = refused(response, 401, language, name)
            assert response.headers["WWW-Authenticate"], name
            assert "Bearer" in said.message or name not in ("none", "another scheme")
            refused(read(crm, "/staff", f"application/{language}", Authorization=authorization), 401, language, name)
    others = crm.stack.add_key("demo", SCOPES - {"connector_receiver"}, "others")
    said = refused(send(crm, PERSON, Authorization=f"Bearer {others}"), 403, "xml")
    assert "connector_receiver" in said.message
    expect_untouched(crm.stack)


def test_a_key_lets_in_after_bearer_in_any_case_and_as_the_password_of_any_user(crm: Crm) -> None:
    key = crm.stack.api_key
    users = (CLIENT, "connector", "", "someone else", "Ä")
    ways = [basic(user, key) for user in users] + [f"{scheme} {key}" for scheme in ("Bearer", "bearer", "BEARER")]
    assert {send(crm, PERSON, Authorization=way).status_code for way in ways} == {201}


def other_tenant(crm: Crm, **blocks: object) -> str:
    """The authorization of a tenant whose secret is the demo tenant's with these blocks; one of None is left out."""
    document = {**json.loads(crm.stack.demo_tenant()), **blocks}
    crm.stack.put_secret("other", json.dumps({name: block for name, block in document.items() if block is not None}))
    return f"Bearer {crm.stack.add_key('other', SCOPES, 'other')}"


def test_a_club_of_another_tenant_is_404(crm: Crm) -> None:
    connector = json.loads(crm.stack.demo_tenant())["connector"]
    clubs = {"client_id": "c-8", "clubs": {"k-9": {"connector_id": "9f"}}}
    other, ours = other_tenant(crm, connector=connector | clubs), crm.headers["Authorization"]
    for language in LANGUAGES:
        for club, key in (("k-9", ours), ("9f", ours), (CLUB, other), (CONNECTOR_CLUB, other), ("nothing", ours)):
            asked = {"club": club, "Authorization": key}
            refused(send(crm, body(language), **asked), 404, language, club)
            refused(send(crm, body(language), path="/prospects/x", method="PUT", **asked), 404, language, club)
            for path in (*LISTS, "/check"):
                refused(read(crm, path, f"application/{language}", **asked), 404, language, (club, path))
    expect_untouched(crm.stack)
    assert send(crm, PERSON, club="k-9", Authorization=other).status_code == 201


@pytest.mark.parametrize("block", ["connector", "egito"])
def test_is_503_and_says_what_to_add_when_the_tenant_lacks_a_block(crm: Crm, block: str) -> None:
    key = other_tenant(crm, **{block: None})
    for language in LANGUAGES:
        responses = [read(crm, path, f"application/{language}", Authorization=key) for path in LISTS]
        for response in (send(crm, body(language), Authorization=key), *responses):
            assert f"{block} block" in refused(response, 503, language).message
    assert crm.stack.egito.seen == []


# ---------------------------------------------------------------- in which language


def test_a_list_is_in_the_language_asked_for(crm: Crm) -> None:
    for path in (*LISTS, "/check"):
        in_json = {accept: read(crm, path, accept) for accept in (JSON, "*/*", None)}
        assert {response.headers["Content-Type"] for response in in_json.values()} == {JSON}
        for accept in (XML, "text/xml", "application/xml;q=0.9, */*;q=0.1"):
            response = read(crm, path, accept)
            assert (response.status_code, response.headers["Content-Type"]) == (200, "application/xml; charset=utf-8")
            root = fromstring(response.content)
            assert root.tag == "response"
            assert _texts(in_json[JSON].json()) == [element.text or "" for element in root.iter() if not len(element)]


def _texts(value: object) -> list[str]:
    """The leaves, as XML writes them; an empty list writes nothing."""
    if isinstance(value, dict):
        return [text for member in value.values() for text in _texts(member)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)]


def test_a_save_is_in_the_language_asked_for_else_in_its_own(crm: Crm) -> None:
    any_language = (JAVA_ACCEPTS, "*/*;q=0.8", "text/plain, application/xml", "text/html, */*")
    cases: tuple[tuple[Body, str | None, str], ...] = (
        *((PERSON, accept, "xml") for accept in (XML, "text/xml", "*/*", None, *any_language)),
        *((PERSON, accept, "json") for accept in (JSON, "application/json, */*", "application/json; q=1")),
        *((MANDATORY, accept, "json") for accept in (JSON, "*/*", None)),
        *((MANDATORY, accept, "xml") for accept in (XML, "text/xml, */*")),
    )
    for number, (content, accept, language) in enumerate(cases):
        result = "WARNING" if number else "INFO"  # the same four fields again
        assert summary(send(crm, content, Accept=accept), result).language == language, (content, accept)
        wrong = content.replace("ACTIVE", "X") if isinstance(content, str) else {**content, "userStatus": "X"}
        assert refused(send(crm, wrong, Accept=accept), 422).language == language, (content, accept)


def test_a_name_is_the_same_in_xml_as_in_json(crm: Crm) -> None:
    names = ["می\u200cخ", "👩\u200d👧", "שרה\u200f", "Jean\u00a0Luc", "山田\u3000太郎", "co\u00adop"]
    for name in names:
        crm.stack.egito.add("User", name=name, email="z@club.example")
    root = fromstring(read(crm, "/staff", XML).content)
    assert [element.text for element in root.iter("name")][-len(names) :] == names
    assert [member["name"] for member in read(crm, "/staff", JSON).json()["staff"]][-len(names) :] == names


# ---------------------------------------------------------------- ids


def test_is_422_when_the_id_in_the_address_is_not_that_of_the_body(crm: Crm) -> None:
    ours, other = (send(crm, body("json", uuid=uuid)).json()["recordID"] for uuid in ("u-1", "u-2"))
    before, calls = [dict(record) for record in contacts(crm.stack)], len(crm.stack.egito.seen)
    cases = ((ours, "recordID", other), (ours, "recordID", "p_" + "0" * 32), ("u-1", "uuid", "u-2"))
    for language in LANGUAGES:
        for in_address, name, in_body in cases:
            content = body(language, lastname="Lis", **{name: in_body})
            for kind in ("prospects", "members"):
                said = refused(send(crm, content, method="PUT", path=f"/{kind}/{in_address}"), 422, language)
                assert (said.fields, name in said.message) == ([name], True)
    assert (contacts(crm.stack), len(crm.stack.egito.seen)) == (before, calls)


def test_an_id_in_the_address_may_be_ours_or_the_connectors(crm: Crm) -> None:
    ours = send(crm, body("json", uuid="u-1")).json()["recordID"]
    cases: tuple[tuple[str, dict[str, str]], ...]
    cases = ((ours, {}), ("u-1", {}), (ours, {"recordID": ours}), (ours, {"uuid": "u-1"}), ("u-1", {"uuid": "u-1"}))
    for number, (in_address, ids) in enumerate(cases):
        content = body("json", lastname=f"Lis{number}", **ids)
        assert summary(send(crm, content, method="PUT", path=f"/prospects/{in_address}"), "INFO").record_id == ours
        assert [record["lastName"] for record in contacts(crm.stack)] == [f"Lis{number}"]


def test_an_empty_id_counts_as_none(crm: Crm) -> None:
    contents = [body(language, recordID=blank, uuid=blank) for language in LANGUAGES for blank in ("", "  ")]
    responses = [send(crm, content) for content in contents]
    assert {response.status_code for response in responses} == {201}
    results = ("INFO", *["WARNING"] * (len(responses) - 1))  # the same four fields again
    ids = {summary(response, result).record_id for response, result in zip(responses, results, strict=True)}
    assert len(ids) == len(responses)


def test_an_id_that_nobody_has_is_404_and_one_that_cannot_be_is_422(crm: Crm) -> None:
    for language in LANGUAGES:
        said = refused(send(crm, body(language), method="PUT", path=f"/prospects/p_{'0' * 32}"), 404, language)
        assert "recordID" in said.message
    for in_address in ("x" * 201, "x" * 3000, "a%00b", "%20", "a%1Bb"):
        said = refused(send(crm, MANDATORY, method="PUT", path=f"/prospects/{in_address}"), 422, case=in_address)
        assert said.fields == ["uuid"]
    expect_untouched(crm.stack)


def test_is_422_when_a_lead_source_is_wrong(crm: Crm) -> None:
    cases: tuple[tuple[dict[str, str], str], ...] = (
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "Fair", "active": "perhaps"}, "active"),
        ({"name": "Fair", "color": "red"}, "color"),
        ({"name": "Fair", "clubID": "k-4"}, "clubID"),
    )
    for members, name in cases:
        contents: tuple[Body, Body] = (members, f"<leadSource>{tags(members)}</leadSource>")
        for language, content in zip(LANGUAGES, contents, strict=True):
            for method, path in (("POST", "/lead-sources"), ("PUT", "/lead-sources/1")):
                said = refused(send(crm, content, method=method, path=path), 422, language, members)
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
    "two lines": "one\ntwo",
    "two lines of Windows": "one\r\ntwo",
}


def test_whatever_egito_says_is_reported_in_one_harmless_line(crm: Crm) -> None:
    for name, words in WORDS.items():
        crm.stack.egito.required["Contact"] = (words,)
        for language in LANGUAGES:
            message = refused(send(crm, body(language)), 422, language, name).message
            assert message.startswith("Not saved. Egito"), name
            assert not [character for character in message if unicodedata.category(character) == "Cc"], name
            assert ("one" in message and "two" in message) or not name.startswith("two lines")
    assert contacts(crm.stack) == []


def test_the_message_is_a_whole_sentence_that_names_what_is_wrong(crm: Crm) -> None:
    for language in LANGUAGES:
        nothing: Body = {} if language == "json" else "<user/>"
        message = refused(send(crm, nothing), 422, language).message
        assert [name for name in MANDATORY if name not in message] == []
        unknown = refused(send(crm, body(language, nickname="A")), 422, language).message
        assert unknown == "Not saved: Unknown field nickname."
    for name in ("<b>bold</b>", "two\nlines", "x" * 1000):
        message = refused(send(crm, body("json", **{name: "x"})), 422, "json").message
        assert message == "Not saved: Unknown field."


def test_the_message_of_a_defect_tells_nothing_of_it(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("<boom> in handler.py")

    monkeypatch.setattr(wire, "read", broken)
    for language in LANGUAGES:
        assert "boom" not in refused(send(crm, body(language)), 500, language).message


@pytest.mark.parametrize("kind", [Kind.HTML, Kind.BAD_KEY, Kind.TOO_MANY, Kind.ERROR_BEFORE, Kind.WRONG_STATUS])
def test_whatever_egito_answers_is_reported_in_a_sentence(crm: Crm, kind: Kind) -> None:
    is_done = kind is Kind.WRONG_STATUS
    for number, language in enumerate(LANGUAGES):
        crm.stack.move_clock(3600)  # the breaker is closed again
        crm.stack.egito.fail(kind, times=5)
        response = send(crm, body(language, lastname=f"Lis{number}"))
        said = summary(response, "INFO" if is_done else "WARNING")
        assert (said.language, response.status_code) == (language, 201 if is_done else 202)
        crm.stack.egito.heal()
        crm.stack.egito.fail(kind, times=5, method="GET")
        listed = read(crm, "/staff", f"application/{language}")
        assert listed.status_code == (200 if is_done else 503)
        if not is_done:
            refused(listed, 503, language)
        crm.stack.egito.heal()

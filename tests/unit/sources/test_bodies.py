"""Bodies of every format become JSON, or one of the documented errors; the work is linear in what came in."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from crm_bridge.errors import (
    InvalidError,
    NotJsonError,
    NotXmlError,
    ProblemError,
    TooLargeError,
    UnauthenticatedError,
    UnsupportedMediaTypeError,
)
from crm_bridge.sources import PRESETS, Incoming, SourceSettings, receive
from crm_bridge.sources.bodies import MOST_FIELDS, MOST_LEVELS, Format
from crm_bridge.sources.incoming import MAX_BODY, MOST_EVENTS
from local.source_requests import prove
from tests.steps import steps

NOW = 1_795_000_000.0
SECRET = "whsec_" + "c2VjcmV0IG9mIGEgc2VuZGVy" + "MDEy"
EVENTS = [{"flow": "create_site", "version": "1", "expression": "{customer_id: id}"}]
IN_HOUSE = SourceSettings.model_validate({"preset": "in-house", "secrets": [SECRET], "events": EVENTS})
CLOUD = SourceSettings.model_validate({"preset": "cloudevents", "secrets": [SECRET], "events": EVENTS})
KINDS: dict[Format, str] = {
    "json": "application/json",
    "form": "application/x-www-form-urlencoded",
    "multipart": "multipart/form-data; boundary=edge",
    "xml": "application/xml",
}
DOCUMENTED = (InvalidError, NotJsonError, NotXmlError, TooLargeError, UnauthenticatedError, UnsupportedMediaTypeError)
TYPED = {"@type": "T", "c": ""}
XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'


def request(body: bytes, kind: str, source: SourceSettings = IN_HOUSE, **headers: str) -> Incoming:
    return prove(source, Incoming("POST", {"content-type": kind, **headers}, {}, body), NOW)


def payloads(body: str | bytes, kind: str, source: SourceSettings = IN_HOUSE, **headers: str) -> list[JsonValue]:
    content = body.encode() if isinstance(body, str) else body
    return [event.payload for event in receive(source, request(content, kind, source, **headers), NOW)]


def refused(body: str | bytes, kind: str, source: SourceSettings = IN_HOUSE, **headers: str) -> ProblemError:
    with pytest.raises(ProblemError) as problem:
        payloads(body, kind, source, **headers)
    assert isinstance(problem.value, DOCUMENTED)
    return problem.value


def multipart(*fields: tuple[str, str]) -> str:
    parts = (f'--edge\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields)
    return "".join(parts) + "--edge--\r\n"


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        ('{"a": 1}', "application/json", {"a": 1}),
        ('{"a": 1}', "", {"a": 1}),
        ('\ufeff{"a": "ż"}', "application/vnd.acme+json; charset=utf-8", {"a": "ż"}),
        ("a=1&b=%C5%BC+x&c=&d", KINDS["form"], {"a": "1", "b": "ż x", "c": "", "d": ""}),
        ("a=ż", KINDS["form"], {"a": "ż"}),
        (multipart(("a", "1"), ("b", "ż\r\n--x")), KINDS["multipart"], {"a": "1", "b": "ż\r\n--x"}),
        ("before\r\n" + multipart(("a", "")) + "after", 'multipart/form-data; boundary="edge"', {"a": ""}),
        ("<r><a>1</a><b>ż</b><b/></r>", "text/xml", {"a": "1", "b": ["ż", ""]}),
        (f'<r {XSI}><a xsi:nil="true"/><b xsi:type="x:T"><c/></b></r>', "text/xml", {"a": None, "b": TYPED}),
    ],
)  # fmt: skip
def test_body_becomes_json(body: str, kind: str, expected: JsonValue) -> None:
    assert payloads(body, kind) == [expected]


@pytest.mark.parametrize(
    ("body", "kind", "error"),
    [
        ("", "application/json", NotJsonError),
        (" ", "application/json", NotJsonError),
        ('{"a": NaN}', "application/json", NotJsonError),
        ('{"a": 1', "application/json", NotJsonError),
        ("[" * 300 + "]" * 300, "application/json", NotJsonError),
        ('{"a": 1, "a": 2}', "application/json", InvalidError),
        ('[{"b": {"a": 1, "a": 2}}]', "application/json", InvalidError),
        ("7", "application/json", InvalidError),
        ('{"a": 1}', "text/plain", UnsupportedMediaTypeError),
        ('{"a": 1}', "application/octet-stream", UnsupportedMediaTypeError),
        ("a=1&a=2", KINDS["form"], InvalidError),
        ("a=%FF", KINDS["form"], InvalidError),
        (b"a=\xff", KINDS["form"], InvalidError),
        ("&".join(f"a{n}=" for n in range(MOST_FIELDS + 1)), KINDS["form"], InvalidError),
        (multipart(("a", "1"), ("a", "2")), KINDS["multipart"], InvalidError),
        (multipart(("a", "1")), "multipart/form-data", InvalidError),
        (multipart(("a", "1")).removesuffix("--\r\n"), KINDS["multipart"], InvalidError),
        ("", KINDS["multipart"], InvalidError),
        ("--edge\r\n\r\nx\r\n--edge--", KINDS["multipart"], InvalidError),
        (multipart(('f"; filename="f.txt', "1")), KINDS["multipart"], InvalidError),
        (multipart(('f"; x="' + "x" * 1000, "1")), KINDS["multipart"], InvalidError),
        (multipart(("a", "1")).replace("1", "\xff").encode("latin-1"), KINDS["multipart"], InvalidError),
        (multipart(*((f"a{n}", "") for n in range(MOST_FIELDS + 1))), KINDS["multipart"], InvalidError),
        ("<r>", "text/xml", NotXmlError),
        ("", "text/xml", NotXmlError),
        ('<!DOCTYPE r [<!ENTITY a "b">]><r>&a;</r>', "text/xml", NotXmlError),
        ("<r>\xff</r>".encode("latin-1"), "text/xml; charset=utf-8", NotXmlError),
        (f'<r {XSI}><a xsi:nil="maybe"/></r>', "text/xml", InvalidError),
        ("<r>" * (MOST_LEVELS + 2) + "</r>" * (MOST_LEVELS + 2), "text/xml", InvalidError),
        ("<r>text</r>", "text/xml", InvalidError),
        (b" " * (MAX_BODY + 1), "application/json", TooLargeError),
        (json.dumps([0] * (MOST_EVENTS + 1)), "application/json", TooLargeError),
    ],
)  # fmt: skip
def test_body_is_refused_when_it_is_not_what_it_says(body: str | bytes, kind: str, error: type[ProblemError]) -> None:
    assert type(refused(body, kind)) is error


def test_no_value_of_a_body_is_repeated_in_an_error() -> None:
    word = "Testowa"
    bodies = {
        "application/json": f'{{"a": "{word}" {word}}}',
        KINDS["form"]: f"a={word}&a={word}%FF",
        KINDS["multipart"]: multipart(("a", word), ("a", word)),
        "text/xml": f"<r><a>{word}</a>&{word};</r>",
    }
    for kind, body in bodies.items():
        problem = refused(body, kind)
        assert word not in problem.detail + repr(problem.fields)


def test_neither_headers_nor_payload_are_shown_by_repr() -> None:
    incoming = request(b'{"a": "Testowa"}', "application/json")
    [event] = receive(IN_HOUSE, incoming, NOW)
    assert "Testowa" not in repr(event) + repr(incoming)
    assert SECRET not in repr(incoming)


def test_members_of_a_list_that_are_no_objects_are_events_of_their_own() -> None:
    assert payloads('[{"id": 1}, null, "x", 7]', "application/json") == [{"id": 1}, None, "x", 7]


# ---------------------------------------------------------------- CloudEvents


EVENT = {"specversion": "1.0", "id": "e-1", "source": "/crm", "type": "created"}
BINARY = {"ce-specversion": "1.0", "ce-id": "e-1", "ce-source": "/crm", "ce-type": "created"}


@pytest.mark.parametrize(
    ("kind", "body", "more"),
    [
        ("application/json", '{"id": 7}', {"datacontenttype": "application/json", "data": {"id": 7}}),
        ("", '{"id": 7}', {"data": {"id": 7}}),
        ("", "", {}),
        ("text/plain", "Zażółć", {"datacontenttype": "text/plain", "data": "Zażółć"}),
        ("image/png", b"\x00\xff", {"datacontenttype": "image/png", "data_base64": "AP8="}),
    ],
)
def test_binary_event_has_its_data(kind: str, body: str | bytes, more: dict[str, Any]) -> None:
    assert payloads(body, kind, CLOUD, **BINARY) == [{**EVENT, **more}]


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ('"a%20\\"b\\""', 'a "b"'),
        ("100%", "100%"),
        ("a b", "a b"),
    ],
)
def test_value_of_a_header_is_decoded_once(header: str, value: str) -> None:
    """https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/http-protocol-binding.md#3132-http-header-values"""
    [event] = payloads("", "", CLOUD, **BINARY, **{"ce-subject": header})
    assert event == {**EVENT, "subject": value}


def test_header_is_ignored_when_it_is_no_attribute() -> None:
    odd = {"ce-data": "x", "ce-data_base64": "eA==", "ce-datacontenttype": "text/html"}
    assert payloads("", "", CLOUD, **BINARY, **odd) == [EVENT]


def test_value_of_a_header_is_refused_when_it_is_not_utf_8() -> None:
    assert isinstance(refused("", "", CLOUD, **{**BINARY, "ce-subject": "%FF"}), InvalidError)


@pytest.mark.parametrize("missing", BINARY)
def test_binary_event_is_refused_when_a_required_attribute_is_missing(missing: str) -> None:
    headers = {name: value for name, value in BINARY.items() if name != missing}
    assert isinstance(refused("{}", "application/json", CLOUD, **headers), UnsupportedMediaTypeError)


@pytest.mark.parametrize(
    ("kind", "body", "count"),
    [
        ("application/cloudevents+json", json.dumps(EVENT), 1),
        ("Application/CloudEvents+JSON; charset=utf-8", json.dumps(EVENT), 1),
        ("application/cloudevents-batch+json", "[]", 0),
        ("application/cloudevents-batch+json", json.dumps([EVENT] * 100), 100),
        ("application/cloudevents+json", json.dumps([EVENT]), InvalidError),
        ("application/cloudevents-batch+json", json.dumps(EVENT), InvalidError),
        ("application/cloudevents+avro", "", UnsupportedMediaTypeError),
        ("application/cloudevents-batch+xml", "", UnsupportedMediaTypeError),
        ("application/cloudevents", json.dumps(EVENT), UnsupportedMediaTypeError),
    ],
)
def test_structured_events_are_read_by_their_content_type(kind: str, body: str, count: Any) -> None:
    if isinstance(count, int):
        assert payloads(body, kind, CLOUD) == [EVENT] * count
    else:
        assert type(refused(body, kind, CLOUD)) is count


# ---------------------------------------------------------------- anything at all


def source_of(preset: str) -> SourceSettings:
    needed = {"hubspot-app": {"proof": "v1"}, "hubspot-workflow": {"proof": "header"}}.get(preset, {})
    used = PRESETS[preset].proofs[needed.get("proof") or next(iter(PRESETS[preset].proofs))]
    values = {"user": "bridge", "organization_id": "00DX00000000001", "url": "https://bridge.example/in/acme/crm"}
    settings = {name: value for name, value in values.items() if name in used.needs}
    return SourceSettings.model_validate(
        {"preset": preset, "secrets": [SECRET], "events": EVENTS, **needed, **settings}
    )


SOURCES = {preset: source_of(preset) for preset in PRESETS}
CONTENT_TYPES = st.sampled_from(
    [
        *KINDS.values(),
        *("", "text/plain", "text/xml; charset=utf-16", "application/json; charset=latin-1"),
        *("application/cloudevents+json", "application/cloudevents-batch+json", 'multipart/form-data; boundary="'),
    ]
)
PIECES = st.sampled_from(
    [
        *(
            b"{",
            b"}",
            b"[",
            b"]",
            b'"',
            b":",
            b",",
            b"1e999",
            b"\\ud800",
            b"null",
            b"\xff",
            b"\x00",
            b"\r\n",
            b"--edge",
        ),
        *(b"--", b'Content-Disposition: form-data; name="a"', b"; filename=x", b"a=1", b"&", b"%", b"%FF", b"<a>"),
        *(b"</a>", b"<?xml version='1.0' encoding='utf-16'?>", b"<!DOCTYPE a>", b"<![CDATA[", b"]]>", b"xsi:nil='1'"),
        *(b'"ids"', b'"data"', b'"affected_values"', b"<Body><notifications><Notification/></notifications></Body>"),
    ]
)
BODIES = st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=30).map(b"".join))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize("preset", PRESETS)
@given(
    body=BODIES, kind=CONTENT_TYPES, headers=st.dictionaries(st.sampled_from([*BINARY, "ce-x"]), st.text(max_size=9))
)
def test_a_body_of_any_bytes_is_events_or_a_documented_error(
    preset: str, body: bytes, kind: str, headers: dict[str, str]
) -> None:
    source = SOURCES[preset]
    try:
        signed = request(body, kind, source, **{**PRESETS[preset].sample_headers, **headers, "content-type": kind})
        events = receive(source, signed, NOW)
    except DOCUMENTED:
        return
    assert all(event.key for event in events)


@pytest.mark.parametrize("preset", ["hubspot-app", "zoho-notification", "upya", "dataverse", "pipedrive-v2", "shopify"])
@given(
    value=VALUES, name=st.sampled_from(["ids", "affected_values", "data", "meta", "objectId", "portalId", "occurredAt"])
)
def test_a_member_of_any_value_is_an_event_or_a_documented_error(preset: str, value: JsonValue, name: str) -> None:
    sample = json.loads(PRESETS[preset].sample)
    sample = sample[0] if isinstance(sample, list) else sample
    source = SOURCES[preset]
    try:
        body = json.dumps({**sample, name: value}).encode()
        signed = request(body, "application/json", source, **PRESETS[preset].sample_headers)
        events = receive(source, signed, NOW)
    except DOCUMENTED:
        return
    assert all(0 < len(event.key) <= 500 for event in events)


LONG: dict[str, Callable[[int], tuple[str, bytes]]] = {
    "list": lambda size: ("application/json", b"[" + b"0," * size + b"0]"),
    "open brackets": lambda size: ("application/json", b"[" * size),
    "open quotes": lambda size: ("application/json", b'{"a":"\\' * size),
    "members": lambda size: ("application/json", b"{" + b'"a":0,' * size + b'"b":0}'),
    "digits": lambda size: ("application/json", b'{"a":' + b"1" * size + b"}"),
    "fields": lambda size: (KINDS["form"], b"a=%20&" * size),
    "percents": lambda size: (KINDS["form"], b"a=" + b"%" * size),
    "edges": lambda size: (KINDS["multipart"], b"\r\n--edge" * size),
    "names": lambda size: (KINDS["multipart"], b'--edge\r\n;name="' * size + b"\r\n--edge--"),
    "dashes": lambda size: (KINDS["multipart"], b"\r\n--edg" * size),
    "elements": lambda size: ("text/xml", b"<r>" + b"<a/>" * size + b"</r>"),
    "open elements": lambda size: ("text/xml", b"<a>" * size),
    "nested elements": lambda size: ("text/xml", b"<a>" * size + b"</a>" * size),
    "attributes": lambda size: ("text/xml", b"<a " + b"".join(b'b%d="" ' % n for n in range(size)) + b"/>"),
    "declaration": lambda size: ("text/xml", b"<?xml " + b" encoding " * size),
    "references": lambda size: ("text/xml", b"<r>" + b"&#65;" * size + b"</r>"),
    "cloud headers": lambda size: ("application/cloudevents+json", b'{"a":' * size),
}


@pytest.mark.parametrize("name", LONG)
def test_ten_times_the_body_is_at_most_ten_times_the_work(name: str) -> None:
    def work(size: int) -> int:
        kind, body = LONG[name](size)
        source = CLOUD if "cloudevents" in kind else IN_HOUSE
        incoming = request(body, kind, source)

        def run() -> None:
            with suppress(*DOCUMENTED):
                receive(source, incoming, NOW)

        return steps(run)

    assert work(2000) <= 12 * work(200) + 500


@pytest.mark.parametrize(
    "body",
    [
        {**{f"m{number}": 1 for number in range(60_000)}, "ids": [*range(500)]},
        {"ids": ["1"] * 500, "affected_values": [{"record_id": "1", "values": {"Note": "x" * 500_000}}]},
        {"ids": [*range(140_000)], **{f"m{number}": 1 for number in range(900)}},
    ],
    ids=["shared members", "one record again and again", "ids"],
)
def test_what_events_share_is_not_multiplied_by_their_number(body: dict[str, Any]) -> None:
    preset = {"preset": "zoho-notification", "secrets": [SECRET], "events": EVENTS, "key": ["id"]}
    source = SourceSettings.model_validate(preset)
    incoming = request(json.dumps(body).encode(), "application/json", source)
    with pytest.raises(TooLargeError):
        receive(source, incoming, NOW)


def test_the_longest_body_is_answered_whatever_it_is_made_of() -> None:
    """Recursion without a limit would end the process."""
    for make in LONG.values():
        kind, piece = make(1)
        kind, body = make(MAX_BODY // (len(piece) + 10))
        source = CLOUD if "cloudevents" in kind else IN_HOUSE
        with suppress(*DOCUMENTED):
            receive(source, request(body[:MAX_BODY], kind, source), NOW)

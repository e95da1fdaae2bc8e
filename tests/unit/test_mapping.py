"""Payload mapping: what is made of a CRM's JSON, what is refused of a tenant's expression, and what is not shown."""

import json
from contextlib import suppress
from copy import deepcopy

import pytest
from pydantic import JsonValue, ValidationError

from crm_bridge.errors import InvalidError
from crm_bridge.mapping import BUILT_IN_VERSION, PayloadMapping, mappings_model
from crm_bridge.settings import parse_tenant
from tests.upya import CLIENT, TICKET

RECORDS = {"create_job": TICKET, "create_site": CLIENT}
COMMANDS: dict[str, dict[str, JsonValue]] = {
    "create_job": {
        "ticket_id": "64f0c0ffee",
        "customer_id": "C-1001",
        "name": "Meter does not count",
        "notes": "Upya ticket TCK-501, contract K-77",
    },
    "create_site": {
        "customer_id": "C-1001",
        "name": "Achieng Odhiambo",
        "address": "Kibomet, Kitale, Trans Nzoia, Kenya",
    },
}
UPYA = PayloadMapping(built_in="upya")

both_flows = pytest.mark.parametrize("flow", list(RECORDS))


def own(expression: str, version: str = "3") -> PayloadMapping:
    return PayloadMapping(expression=expression, version=version)


def refusal(**mapping: object) -> str:
    """How a tenant with this mapping of its tickets is refused."""
    with pytest.raises(ValidationError) as raised:
        parse_tenant(json.dumps({"mappings": {"create_job": mapping}}))
    return str(raised.value)


# ---------------------------------------------------------------- Upya


@both_flows
@pytest.mark.parametrize("listed", [False, True], ids=["alone", "list of one"])
def test_makes_a_command_of_an_upya_record_as_it_comes(flow: str, listed: bool) -> None:
    record = RECORDS[flow]
    assert UPYA.apply(flow, [record] if listed else record) == COMMANDS[flow]


@both_flows
@pytest.mark.parametrize(
    "payload",
    ["two records", [], "a record", "", 5, 0, True, None, ["a record"], [5], [None], [[]], ["a", "b"]],
    ids=json.dumps,
)
def test_says_to_send_one_record_when_it_is_sent_anything_else(flow: str, payload: JsonValue) -> None:
    sent: JsonValue = [RECORDS[flow], RECORDS[flow]] if payload == "two records" else payload
    with pytest.raises(InvalidError, match="send one record"):
        UPYA.apply(flow, sent)


@pytest.mark.parametrize(
    ("flow", "left_out", "member", "left"),
    [
        ("create_job", "ticketNumber", "notes", "contract K-77"),
        ("create_job", "contractNumber", "notes", "Upya ticket TCK-501"),
        ("create_site", "profile.firstName", "name", "Odhiambo"),
        ("create_site", "profile.lastName", "name", "Achieng"),
        ("create_site", "profile.village", "address", "Kitale, Trans Nzoia, Kenya"),
        ("create_site", "profile.region", "address", "Kibomet, Kitale, Kenya"),
    ],
)
@pytest.mark.parametrize("absent", ["absent", None, ""])
def test_goes_without_the_part_that_a_record_lacks(
    flow: str, left_out: str, member: str, left: str, absent: str | None
) -> None:
    record = deepcopy(RECORDS[flow])
    *outer, name = left_out.split(".")
    holder = record[outer[0]] if outer else record
    if absent == "absent":
        del holder[name]
    else:
        holder[name] = absent
    assert UPYA.apply(flow, record) == {**COMMANDS[flow], member: left}


@pytest.mark.parametrize("value", [None, ""])
@pytest.mark.parametrize(("member", "of"), [("customer_id", "clientNumber"), ("name", "title")])
def test_leaves_a_member_out_when_it_is_null_or_empty(value: str | None, member: str, of: str) -> None:
    expected = {name: made for name, made in COMMANDS["create_job"].items() if name != member}
    assert UPYA.apply("create_job", {**TICKET, of: value}) == expected


def test_leaves_out_what_all_its_parts_are_missing_of() -> None:
    assert UPYA.apply("create_site", {"clientNumber": "C-1"}) == {"customer_id": "C-1"}
    assert UPYA.apply("create_site", {"clientNumber": "C-1", "profile": None}) == {"customer_id": "C-1"}
    assert UPYA.apply("create_job", {"ticketId": "T-1"}) == {"ticket_id": "T-1"}


def test_takes_numbers_for_the_numbers_of_a_ticket() -> None:
    made = UPYA.apply("create_job", {**TICKET, "ticketNumber": 501, "contractNumber": 77})
    assert made["notes"] == "Upya ticket 501, contract 77"


# ---------------------------------------------------------------- the tenant's own


def test_an_own_expression_is_all_there_is_when_nothing_is_built_in() -> None:
    assert own("{ticket_id: id, name: what.title}").apply("create_job", {"id": 7, "what": {"title": "Leak"}}) == {
        "ticket_id": 7,
        "name": "Leak",
    }


def test_an_own_expression_comes_on_top_of_what_is_built_in() -> None:
    mapping = PayloadMapping(
        built_in="upya", version="3", expression="{name: join(': ', [ticketNumber, title]), assigned_user_id: `7`}"
    )
    assert mapping.apply("create_job", TICKET) == {
        **COMMANDS["create_job"],
        "name": "TCK-501: Meter does not count",
        "assigned_user_id": 7,
    }


@pytest.mark.parametrize("nothing", ["`null`", "''", "missing"])
def test_what_is_built_in_stays_when_the_own_expression_gives_nothing(nothing: str) -> None:
    mapping = PayloadMapping(built_in="upya", version="3", expression=f"{{name: {nothing}}}")
    assert mapping.apply("create_job", TICKET) == COMMANDS["create_job"]


def test_keeps_what_is_neither_null_nor_empty_text() -> None:
    payload: JsonValue = {"a": 0, "b": False, "c": [], "d": {}, "e": " ", "f": 0.0}
    assert own("@").apply("create_job", payload) == payload


@pytest.mark.parametrize("expression", ["items", "id", "*", "missing", "length(@)", "`true`", "''"])
def test_says_to_send_one_record_when_the_own_expression_yields_no_object(expression: str) -> None:
    with pytest.raises(InvalidError, match="send one record"):
        own(expression).apply("create_job", {"id": 7, "items": []})


@pytest.mark.parametrize(
    ("expression", "payload"),
    [
        ("{name: join(' ', words)}", {"words": [4711, 4712]}),
        ("{name: join(' ', words)}", {"words": "Wanjiru"}),
        ("{name: join(' ', words)}", {}),
        ("{name: sum(words)}", {"words": ["Wanjiru"]}),
        ("{name: sort_by(words, &key)}", {"words": [{"key": 4711}, {"key": "Wanjiru"}]}),
        ("{name: merge(words)}", {"words": "Wanjiru"}),
        # These fail in Python below JMESPath.
        ("{name: contains(words, key)}", {"words": "Wanjiru", "key": 4711}),
        ("{name: contains(words, key)}", {"words": "Wanjiru"}),
        ("{name: ceil(words)}", {"words": float("inf")}),
        ("{name: floor(to_number(words))}", {"words": "1e999"}),
        ("{name: to_number(words)}", {"words": "nan"}),
        ("{name: {first: [sum(words)]}}", {"words": [1e308, 1e308]}),
    ],
)
def test_an_expression_that_fails_on_what_was_sent_is_invalid_and_shows_no_value(
    expression: str, payload: JsonValue
) -> None:
    with pytest.raises(InvalidError, match="mapping 3") as raised:
        own(expression).apply("create_job", payload)
    shown = raised.value.detail + json.dumps(raised.value.extensions)
    assert "Wanjiru" not in shown
    assert "471" not in shown
    assert raised.value.extensions["mapping"]["expression"] == expression  # type: ignore[index]


# ---------------------------------------------------------------- what is said of it


def test_the_label_names_what_made_a_command() -> None:
    assert UPYA.label == f"upya {BUILT_IN_VERSION}"
    assert own("@", version="2026-11-20").label == "2026-11-20"
    both = PayloadMapping(built_in="upya", version="7", expression="{a: b}")
    assert both.label == f"upya {BUILT_IN_VERSION} + 7"


def test_is_explained_in_kinds_and_never_in_values() -> None:
    payload: JsonValue = {
        "text": "Wanjiru",
        "empty": "",
        "whole": 4711,
        "broken": 47.11,
        "flag": True,
        "nothing": None,
        "inside": {"deep": ["Kamau", 4712]},
        "none": [],
        "many": ["Kamau"] * 500,
    }
    explained = own("{name: text}").explained(payload, {"name": "Wanjiru", "tag_ids": [4711]})
    assert explained == {
        "label": "3",
        "expression": "{name: text}",
        "received": {
            "text": "text",
            "empty": "text",
            "whole": "number",
            "broken": "number",
            "flag": "true or false",
            "nothing": "null",
            "inside": {"deep": ["text", "number"]},
            "none": [],
            "many": ["text"] * 3,
        },
        "yielded": {"name": "text", "tag_ids": ["number"]},
    }


@pytest.mark.parametrize(("payload", "kind"), [("Wanjiru", "text"), (5, "number"), (None, "null"), ([], [])])
def test_what_is_no_object_is_explained_too(payload: JsonValue, kind: object) -> None:
    explained = own("{name: text}").explained(payload)
    assert (explained["received"], explained["yielded"]) == (kind, "null")


def test_what_is_built_in_is_explained_without_an_expression() -> None:
    assert UPYA.explained({})["expression"] is None


# ---------------------------------------------------------------- what a tenant may write


@pytest.mark.parametrize(
    "expression",
    [
        "{ticket_id: id}",
        "@",
        "*",
        "[0].{ticket_id: id}",
        "{name: not_null(a)}",
        "{name: not_null(a, b, c, d)}",
        "merge(@, {site: place})",
        "merge(@, a, b, c)",
        "{name: join(' ', [a, b][?@])}",
        "{tag_ids: map(&to_number(@), tags)}",
        "{name: sort_by(rows, &weight)[-1].title || title}",
        "{name: (title)}",
        "{name: rows[?kind == 'main'] | [0].title}",
        '{"name": "the title"}',
        "{name: !closed && title}",
        # Parts of a list.
        "{tag_ids: tags[:3]}",
        "{tag_ids: tags[1:3]}",
        "{tag_ids: tags[::2]}",
        "{name: join(', ', sort(words)[-2:])}",
    ],
)
def test_takes_any_expression_of_jmespath(expression: str) -> None:
    mapping = parse_tenant(json.dumps({"mappings": {"create_job": {"version": "1", "expression": expression}}}))
    assert mapping.mappings.of("create_job") == own(expression, version="1")


@pytest.mark.parametrize(
    "expression",
    [
        "{ticket_id: id",
        "ticket_id: id",
        "{ticket_id: }",
        "{ticket_id: 'id}",
        "{ticket_id: `}",
        "a..b",
        "a[",
        "[?",
        "a &&",
        "$.id",
        " ",
        "\n",
        "join(' ', a",
    ],
)
def test_refuses_what_is_no_expression(expression: str) -> None:
    assert "mappings.create_job" in refusal(version="1", expression=expression)


@pytest.mark.parametrize("expression", ["(" * 2_000, "||".join("a" * 2_000)], ids=["to be read", "to be gone through"])
def test_refuses_an_expression_that_is_nested_too_deeply(expression: str) -> None:
    refused = ""
    with suppress(RecursionError):  # pytest takes minutes to show one
        refused = refusal(version="1", expression=expression)
    assert "mappings.create_job" in refused


@pytest.mark.parametrize(
    "expression",
    [
        "upcase(name)",
        "{name: upcase(name)}",
        "{name: closed && upcase(name)}",
        "{name: title || upcase(name)}",
        "{name: !upcase(name)}",
        "{name: upcase(name) == 'A'}",
        "{name: sort_by(rows, &upcase(key))[0]}",
        "{name: map(&{a: [upcase(@)]}, rows)}",
        "{name: rows[?upcase(key) == 'A']}",
        "{name: rows[*].upcase(key)}",
        "{name: rows[].upcase(key)}",
        "{name: places.*.upcase(key)}",
        "{name: rows | upcase(@)}",
        "{name: join(' ', upcase(words))}",
        "{name: words[0].upcase(@)}",
        "[upcase(name)]",
        "{name: Join(' ', words)}",
    ],
)
def test_refuses_a_function_that_does_not_exist_wherever_it_stands(expression: str) -> None:
    called = "Join()" if "Join" in expression else "upcase()"
    assert f"calls {called}, which JMESPath does not have" in refusal(version="1", expression=expression)


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("join(words)", 1),
        ("join(' ', a, b)", 3),
        ("length()", 0),
        ("length(a, b)", 2),
        ("sort_by(rows)", 1),
        ("merge()", 0),
        ("not_null()", 0),
    ],
)
@pytest.mark.parametrize("where", ["{name: CALL}", "{name: a && CALL}", "{name: map(&CALL, rows)}"])
def test_refuses_a_call_with_too_few_or_too_many_arguments(call: str, arguments: int, where: str) -> None:
    refused = refusal(version="1", expression=where.replace("CALL", call))
    assert f"{call.partition('(')[0]}() with {arguments} arguments" in refused


@pytest.mark.parametrize(
    ("mapping", "why"),
    [
        ({}, "give an expression, a built_in, or both"),
        ({"version": "1"}, "give an expression, a built_in, or both"),
        ({"expression": "@"}, "give version with an expression"),
        ({"built_in": "upya", "version": "1"}, "give version with an expression"),
        ({"built_in": "upya", "expression": "@"}, "give version with an expression"),
        ({"built_in": "salesforce"}, "built_in"),
        ({"version": "", "expression": "@"}, "version"),
        ({"version": "1" * 51, "expression": "@"}, "version"),
        ({"version": "1", "expression": ""}, "expression"),
        ({"version": "1", "expression": "a" * 10_001}, "expression"),
        ({"version": 1, "expression": "@"}, "version"),
        ({"built_in": "upya", "label": "1"}, "label"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_refuses_a_mapping_that_is_not_whole(mapping: dict[str, object], why: str) -> None:
    assert why in refusal(**mapping)


@pytest.mark.parametrize("flow", ["create_jobs", "connector_receiver", "upya"])
def test_refuses_a_mapping_of_a_flow_that_it_does_not_know(flow: str) -> None:
    with pytest.raises(ValidationError, match=flow):
        parse_tenant(json.dumps({"mappings": {flow: {"version": "1", "expression": "@"}}}))


@pytest.mark.parametrize("flow", ["key_link", "status_update"])
@pytest.mark.parametrize("more", [{}, {"version": "1", "expression": "@"}])
def test_refuses_what_is_built_in_for_other_flows_only(flow: str, more: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match=f"upya has no record that is built in for {flow}"):
        parse_tenant(json.dumps({"mappings": {flow: {"built_in": "upya", **more}}}))


def test_a_flow_has_its_own_mapping_or_none() -> None:
    mappings = mappings_model().model_validate({"create_job": UPYA})
    assert mappings.of("create_job") == UPYA
    assert mappings.of("create_site") is None
    assert mappings.of("connector_receiver") is None
    assert parse_tenant("{}").mappings.of("create_job") is None


def test_a_refused_mapping_does_not_show_what_else_the_secret_holds() -> None:
    document = {"illu": {"org_id": 88, "api_key": "hush-hush"}, "mappings": {"create_job": {"expression": "hush-hush"}}}
    with pytest.raises(ValidationError) as raised:
        parse_tenant(json.dumps(document))
    assert "hush-hush" not in str(raised.value)

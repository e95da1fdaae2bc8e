"""The parts of a payload that a JMESPath expression does not read, and where it fails."""

from typing import Any

import jmespath
import pytest

from crm_bridge.tracing import Failure, Trace

PAYLOAD: dict[str, Any] = {
    "number": "C-1",
    "profile": {"first": "Ann", "last": "O", "gender": "f"},
    "items": [{"price": 1, "label": "a"}, {"price": 2, "label": "b"}],
    "none": None,
}


def unread(*expressions: str) -> list[str]:
    trace = Trace(PAYLOAD)
    for expression in expressions:
        assert not isinstance(trace.run(expression), Failure)
    return trace.unread()


def failure(expression: str) -> Failure:
    failed = Trace(PAYLOAD).run(expression)
    assert isinstance(failed, Failure)
    return failed


@pytest.mark.parametrize(
    ("expression", "left"),
    [
        ("{a: number}", ["profile", "items", "none"]),
        ("{a: profile.first}", ["number", "profile.last", "profile.gender", "items", "none"]),
        ("{a: profile}", ["number", "items", "none"]),
        ("{a: items[].price}", ["number", "profile", "items[].label", "none"]),
        ("{a: items[?price > `1`].label | [0]}", ["number", "profile", "items[].label", "none"]),
        ("to_array(@) | [0].{a: number, b: profile, c: items, d: none}", []),
    ],
)
def test_a_member_is_unread_when_no_expression_names_it(expression: str, left: list[str]) -> None:
    assert unread(expression) == left


def test_a_member_is_read_when_any_of_several_expressions_reads_it() -> None:
    assert unread("{a: number}", "{b: profile, c: items}") == ["none"]


@pytest.mark.parametrize(
    ("expression", "reason", "written"),
    [
        ("{a: number, b: join(' ', [profile.middle])}", "join() takes list of texts, and got null", "join("),
        ("{a: join(' ', [number]), b: join(' ', [none])}", "join() takes list of texts, and got null", "join(' ', [no"),
        ("{a: join(' ', [to_string(abs(number))])}", "abs() takes number, and got text", "abs("),
        ("items[?ceil(label) > `1`].{a: to_string(label)}", "ceil() takes number, and got text", "ceil("),
        ("items[?price > `0`].{a: abs(label)}", "abs() takes number, and got text", "abs(label"),
        ("items[?abs(price) > `0`].{a: abs(label)}", "abs() takes number, and got text", "abs(label"),
        ("sort_by(items, &abs(label))", "abs() takes number, and got text", "abs("),
    ],
)  # fmt: skip
def test_the_function_that_fails_is_named_with_its_place(expression: str, reason: str, written: str) -> None:
    failed = failure(expression)
    assert failed.reason == reason
    assert failed.offset is not None
    assert expression[failed.offset :].startswith(written)


@pytest.mark.parametrize(("expression", "offset"), [("{a: number", 10), ("{a: #}", 4), ("", 0), ("a[", 2)])
def test_what_is_no_expression_is_named_with_the_place_where_it_ends_to_be_one(expression: str, offset: int) -> None:
    assert failure(expression) == Failure("it is no JMESPath expression", offset)


def test_no_value_of_the_payload_is_repeated() -> None:
    assert "secret" not in str(Trace({"a": "secret"}).run("abs(a)"))


def test_deep_payloads_are_searched_to_a_depth_only() -> None:
    deep: Any = {}
    for _ in range(400):
        deep = {"a": deep}
    trace = Trace(deep)
    trace.run("b")
    assert trace.unread() == ["a"]


@pytest.mark.parametrize(
    "expression",
    [
        " | ".join(["[@, @]"] * 40),
        "[`1`] | " + " | ".join(["[@, @][]"] * 60),
        " | ".join(["[@, @]"] * 15) + " | to_string(@)",
        "{s: join('', [number, number])} | [@] | " + " | ".join(["[].[s, s][].{s: join('-', [@, @])}"] * 60),
        f"join('{'-' * 2000}', to_array(range))",
        " | ".join(["{a: @, b: @}"] * 60),
        f"many[?contains(to_string(`{[*range(1000)]}`), 'b')]",
        *(f"many[?{name}(`{[*range(1000)]}`) > `0`]" for name in ("sum", "avg", "max", "min")),
        f"many[?contains(`{[[]] * 1000}`, `1`)]",
        f"many[?`{[[]] * 500}` == `{[[]] * 500}`]",
        f"many[?starts_with('{'x' * 2000}', 'y')]",
    ],
)
def test_an_expression_that_takes_more_and_more_is_stopped(expression: str) -> None:
    payload: Any = {**PAYLOAD, "many": [{"many": [*range(50)]}] * 3000, "range": [*map(str, range(5000))]}
    failed = Trace(payload).run(expression)
    assert isinstance(failed, Failure)
    assert failed.reason.endswith("takes too many steps")


def test_an_expression_has_enough_steps_for_the_largest_body() -> None:
    payload: Any = {"items": [{"id": str(number), "price": number} for number in range(4000)]}
    found = Trace(payload).run("{ids: items[].id, dear: items[?price > `3000`].{id: id, price: price}, all: @}")
    assert isinstance(found, dict)


@pytest.mark.parametrize(
    "expression", ["{a: `NaN`}", "{a: `1e999`}", "{a: [to_number('-inf')]}", "sum([`1e308`, `1e308`])"]
)
def test_a_number_that_json_does_not_have_is_named(expression: str) -> None:
    assert failure(expression) == Failure("yields a number that is not finite")


@pytest.mark.parametrize(
    ("expression", "found"), [("`1` == `true`", False), ("'a' < 'b'", True), ("`[1]` != `[2]`", True), ("a == b", True)]
)
def test_a_comparison_yields_what_it_yields_without_a_trace(expression: str, found: object) -> None:
    assert Trace({}).run(expression) == jmespath.search(expression, {}) == found

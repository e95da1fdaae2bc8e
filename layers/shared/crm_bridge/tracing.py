"""A JMESPath expression on a payload: what it yields, which function of it fails, and what it does not read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathTypeError
from jmespath.lexer import Lexer
from jmespath.visitor import TreeInterpreter
from pydantic import JsonValue

from crm_bridge.mapping import FAILURES

BUDGET = 1_000_000
"""Steps of an expression on one payload: nodes that are evaluated, and members and characters that are put together.
An expression that is tried may be any, such as one that doubles a list again and again.
"""
MOST_LEVELS = 50
"""Objects within each other that are searched for members which are not read."""
KINDS = {
    "array": "list",
    "array-number": "list of numbers",
    "array-string": "list of texts",
    "boolean": "true or false",
    "int": "number",
    "float": "number",
    "list": "list",
    "NoneType": "null",
    "bool": "true or false",
    "dict": "object",
    "str": "text",
    "string": "text",
}
"""JMESPath's and Python's names of types, in the words of JSON."""

type Node = Mapping[str, Any]
_BUILD = {
    "filter_projection",
    "flatten",
    "function_expression",
    "multi_select_dict",
    "multi_select_list",
    "projection",
    "slice",
    "value_projection",
}
"""Nodes whose value is put together."""


class TooLongError(ValueError):
    """An expression takes more steps than there are."""


@dataclass(frozen=True)
class Failure:
    """Why an expression fails, without any value. `offset` is where in it, in characters, if that is known."""

    reason: str
    offset: int | None = None


class _Interpreter(TreeInterpreter):  # type: ignore[misc] # the library has no types
    def __init__(self) -> None:
        super().__init__()
        self.read: dict[tuple[int, str], object] = {}
        """The objects of which a member was read, by their identity and the member's name. They are kept, so that no
        other object gets their identity."""
        self.failed: Node | None = None
        """The call of a function that failed."""
        self._left = BUDGET

    def visit(self, node: Node, *arguments: Any, **options: Any) -> Any:
        self._spend(1)
        found = super().visit(node, *arguments, **options)
        if node["type"] in _BUILD:
            self._spend_on(found)
        return found

    def _spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise TooLongError

    def _spend_on(self, value: object) -> None:
        """Spend what it takes to write a value out, in which the same list may be many times."""
        parts = [value]
        while parts:
            part = parts.pop()
            self._spend(1 + len(part) if isinstance(part, str) else 1)
            if isinstance(part, dict):
                parts += part.values()
            elif isinstance(part, list):
                self._spend(len(part))
                parts += part

    def run(self, parsed: Node, payload: JsonValue) -> Any:
        self.failed = None
        return self.visit(parsed, payload)

    def visit_field(self, node: Node, value: object) -> object:
        if isinstance(value, dict):
            self.read[id(value), node["value"]] = value
        return super().visit_field(node, value)

    def visit_function_expression(self, node: Node, value: object) -> object:
        try:
            arguments = [self.visit(child, value) for child in node["children"]]
            match node["value"], arguments:
                case "join", [str(separator), list(texts)]:
                    self._spend(len(separator) * len(texts))
            return self._functions.call_function(node["value"], arguments)
        except FAILURES:
            self.failed = self.failed or node  # the innermost fails first
            raise


class Trace:
    """Expressions on one payload; `unread` is about all of them."""

    def __init__(self, payload: JsonValue) -> None:
        self.payload = payload
        self._interpreter = _Interpreter()

    def run(self, expression: str) -> JsonValue | Failure:
        """Return what an expression yields, or why it fails."""
        try:
            parsed = jmespath.compile(expression).parsed
        except FAILURES as error:
            offset = getattr(error, "lex_position", getattr(error, "lexer_position", None))
            return Failure("it is no JMESPath expression", offset if isinstance(offset, int) else len(expression))
        try:
            yielded: JsonValue = self._interpreter.run(parsed, self.payload)
        except FAILURES as error:
            failed = self._interpreter.failed
            name = f"{failed['value']}() " if failed else ""
            return Failure(f"{name}{_reason(error)}", _offset(expression, parsed, failed))
        return yielded

    def unread(self) -> list[str]:
        """Return the members of the payload that no expression reads, as `profile.gender` and `items[].price`.

        A member that was read and none of whose own members were is taken for used as a whole.
        """
        return list(dict.fromkeys(_unread(self.payload, "", self._interpreter.read, MOST_LEVELS)[1]))


def _reason(error: Exception) -> str:
    if isinstance(error, TooLongError):
        return "takes too many steps"
    if isinstance(error, JMESPathTypeError):
        expected = " or ".join(dict.fromkeys(KINDS.get(one, one) for one in error.expected_types))
        return f"takes {expected}, and got {KINDS.get(error.actual_type, error.actual_type)}"
    return f"fails ({type(error).__name__})"


def _offset(expression: str, parsed: Node, failed: Node | None) -> int | None:
    """Return where a call of a function begins: the calls are in the order of their names."""
    tokens = list(Lexer().tokenize(expression))
    names = [
        one["start"] for one, after in pairwise(tokens)
        if one["type"] == "unquoted_identifier" and after["type"] == "lparen"
    ]  # fmt: skip
    calls = list(_calls(parsed))
    places = [place for place, call in zip(names, calls, strict=False) if call is failed]
    return places[0] if len(names) == len(calls) and places else None


def _calls(node: Node) -> Iterator[Node]:
    """Yield the calls of functions in the order in which they are written."""
    if node["type"] == "function_expression":
        yield node
    children: Sequence[Any] = node["children"]
    if node["type"] == "filter_projection":  # the condition stands before what follows it
        children = [children[0], children[2], children[1]]
    for child in children:
        if isinstance(child, dict):  # a slice has plain numbers
            yield from _calls(child)


def _unread(
    value: JsonValue, place: str, read: Mapping[tuple[int, str], object], levels: int
) -> tuple[bool, list[str]]:
    """Return whether anything within a value was read, and the places in it that were not."""
    found: list[str] = []
    was_read = False
    if levels and isinstance(value, list):
        for element in value:
            inner_read, inner = _unread(element, f"{place}[]", read, levels - 1)
            was_read |= inner_read
            found += inner
    elif levels and isinstance(value, dict):
        for name, member in value.items():
            path = f"{place}.{name}" if place else name
            inner_read, inner = _unread(member, path, read, levels - 1)
            if inner_read:
                found += inner
            elif (id(value), name) not in read:
                found.append(path)
            was_read |= inner_read or (id(value), name) in read
    return was_read, found

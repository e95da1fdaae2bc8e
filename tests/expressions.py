"""DynamoDB's expressions: conditions and updates, evaluated on an item. Whatever is not known here is an error."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from typing import Any

from moto.dynamodb.parsing.reserved_keywords import ReservedKeywords

type Value = Any
"""An attribute's value with its type, as DynamoDB writes it: `{"S": "a"}`."""
type Item = dict[str, Value]

TOKEN = re.compile(r"\s*(<>|<=|>=|[=<>(),+.]|[#:]?\w+)")
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


@cache
def _reserved() -> frozenset[str]:
    return frozenset(ReservedKeywords.get_reserved_keywords())


@cache
def _tokens(text: str) -> tuple[str, ...]:
    tokens = TOKEN.findall(text)
    if "".join(tokens) != re.sub(r"\s", "", text):
        raise ValueError(text)
    return tuple(tokens)


class Expression:
    """A condition or an update, evaluated as it is read. Whatever it does not know is a KeyError or a ValueError."""

    def __init__(self, text: str, names: Mapping[str, str], values: Mapping[str, Value], item: Item) -> None:
        self._tokens = list(_tokens(text))
        self._names, self._values, self._item = names, values, item

    def condition(self) -> bool:
        holds = self._any()
        if self._tokens:
            raise ValueError(self._tokens)
        return holds

    def changed(self) -> Item:
        """The item after `SET ... REMOVE ... ADD ... DELETE ...`; the last two change sets, and ADD numbers as well."""
        item = dict(self._item)
        clause = ""
        while self._tokens:
            if self._next().upper() in ("SET", "REMOVE", "ADD", "DELETE"):
                clause = self._taken.upper()
            elif not clause or self._taken != ",":
                raise ValueError(self._taken)
            path = self._path(self._next())
            before = _at(self._item, path)
            if clause == "SET":
                self._expect("=")
                _put(item, path, self._sum())
            elif clause == "REMOVE":
                _put(item, path, None)
            else:
                _put(item, path, _changed(clause, before, self._operand()))
        return item

    def _sum(self) -> Value:
        first = self._operand()
        if self._peek() != "+":
            return first
        self._next()
        return {"N": str(Decimal(first["N"]) + Decimal(self._operand()["N"]))}

    def _any(self) -> bool:
        holds = self._all()
        while self._peek().upper() == "OR":
            self._next()
            holds = self._all() or holds
        return holds

    def _all(self) -> bool:
        holds = self._one()
        while self._peek().upper() == "AND":
            self._next()
            holds = self._one() and holds
        return holds

    def _one(self) -> bool:
        token = self._peek()
        if token == "(":
            self._next()
            holds = self._any()
            self._expect(")")
            return holds
        if token.upper() == "NOT":
            self._next()
            return not self._one()
        if token in ("attribute_not_exists", "attribute_exists", "begins_with", "contains"):
            self._next()
            self._expect("(")
            if token.startswith("attribute"):
                there = _at(self._item, self._path(self._next())) is not None
                holds = there is (token == "attribute_exists")
            else:
                left, right = self._pair()
                starts = token == "begins_with"
                holds = left is not None and (
                    str(left["S"]).startswith(right["S"]) if starts else plain(right) in plain(left)
                )
            self._expect(")")
            return holds
        left = self._maybe()
        if (operator := self._next().upper()) == "IN":
            self._expect("(")
            others = [self._operand()]
            while self._next() == ",":
                others.append(self._operand())
            return left in others
        right = self._operand()
        if operator == "BETWEEN":
            self._expect("AND")
            last = self._operand()
            if plain(right) > plain(last):
                raise ValueError("BETWEEN")
            return left is not None and plain(right) <= plain(left) <= plain(last)
        if left is None:
            return operator == "<>"
        return _COMPARISONS[operator](plain(left), plain(right))

    def _operand(self) -> Value:
        if self._peek() == "if_not_exists":
            self._next()
            self._expect("(")
            there, other = self._pair()
            self._expect(")")
            return there or other
        if self._peek() == "list_append":
            self._next()
            self._expect("(")
            first, second = self._pair()
            self._expect(")")
            return {"L": [*(first or {})["L"], *second["L"]]}
        value = self._maybe()
        if value is None:
            raise ValueError(self._taken)
        return value

    def _pair(self) -> tuple[Value | None, Value]:
        left = self._operand() if self._peek() == "if_not_exists" else self._maybe()
        self._expect(",")
        return left, self._operand()

    def _maybe(self) -> Value | None:
        token = self._next()
        if token == "size":
            self._expect("(")
            sized = self._maybe()
            self._expect(")")
            return sized and {"N": str(len(plain(sized)))}
        if token.startswith(":"):
            return self._values[token]
        return _at(self._item, self._path(token))

    def _path(self, token: str) -> list[str]:
        names = [self._name(token)]
        while self._peek() == ".":
            self._next()
            names.append(self._name(self._next()))
        return names

    def _name(self, token: str) -> str:
        if token.startswith("#"):
            return self._names[token]
        if token.upper() in _reserved():
            raise ValueError(f"{token} is a reserved word of DynamoDB")
        if not token.isidentifier():
            raise ValueError(token)
        return token

    def _peek(self) -> str:
        return self._tokens[0] if self._tokens else ""

    def _next(self) -> str:
        self._taken = self._tokens.pop(0) if self._tokens else ""
        return self._taken

    def _expect(self, token: str) -> None:
        if self._next() != token:
            raise ValueError(self._taken)


def plain(value: Value) -> Any:
    ((kind, plain),) = value.items()
    return Decimal(plain) if kind == "N" else frozenset(plain) if kind == "SS" else plain


def _at(item: Mapping[str, Value], path: list[str]) -> Value | None:
    value = item.get(path[0])
    for name in path[1:]:
        value = value["M"].get(name) if value and "M" in value else None
    return value


def _put(item: Item, path: list[str], value: Value | None) -> None:
    """Also inside of a map, whose copy takes its place. None removes what is there."""
    name, *rest = path
    if rest:
        inner = dict(item[name]["M"])  # DynamoDB refuses a path that leads nowhere as well
        _put(inner, rest, value)
        value = {"M": inner}
    if value is None:
        item.pop(name, None)
    else:
        item[name] = value


def _changed(clause: str, before: Value | None, by: Value) -> Value | None:
    if "N" in by and clause == "ADD":
        return {"N": str(Decimal(before["N"] if before else 0) + Decimal(by["N"]))}
    there = set(before["SS"]) if before else set()
    after = there | set(by["SS"]) if clause == "ADD" else there - set(by["SS"])
    return {"SS": sorted(after)} if after else None

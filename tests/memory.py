"""DynamoDB and Secrets Manager in memory, as far as the bundle uses them, and much faster than moto.

The tests of the tables are run on it and on moto, so what the engine is tested with is what the tables are tested with.
With LONG=1 the integration tests compare each of its responses with moto's. Arguments are checked by botocore's own
model of the service.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError, ParamValidationError
from botocore.model import ServiceModel
from botocore.session import get_session
from botocore.validate import ParamValidator
from moto.dynamodb.parsing.reserved_keywords import ReservedKeywords

type Value = Any
"""An attribute's value with its type, as DynamoDB writes it: `{"S": "a"}`."""
type Item = dict[str, Value]

_TOKEN = re.compile(r"\s*(<>|<=|>=|[=<>(),+.]|[#:]?\w+)")
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


@cache
def _model() -> ServiceModel:
    return get_session().get_service_model("dynamodb")


@cache
def _reserved() -> frozenset[str]:
    return frozenset(ReservedKeywords.get_reserved_keywords())


class _CanceledError(ClientError):
    pass


def _invalid(operation: str, why: str) -> ClientError:
    return ClientError({"Error": {"Code": "ValidationException", "Message": why}}, operation)


@dataclass(frozen=True)
class _Index:
    keys: tuple[str, ...]
    shown: frozenset[str] | None
    """Attributes besides all keys; None is all."""


@dataclass
class _Table:
    keys: tuple[str, ...]
    indexes: dict[str, _Index]
    items: dict[tuple[str, ...], Item] = field(default_factory=dict)

    def key(self, item: Mapping[str, Value]) -> tuple[str, ...]:
        return tuple(str(item[name]["S"]) for name in self.keys)

    def key_of(self, item: Mapping[str, Value], *others: str) -> Item:
        return {name: item[name] for name in (*others, *self.keys)}


class _Expression:
    """A condition or an update, evaluated as it is read. Whatever it does not know is a KeyError or a ValueError."""

    def __init__(self, text: str, names: Mapping[str, str], values: Mapping[str, Value], item: Item) -> None:
        self._tokens = _TOKEN.findall(text)
        if "".join(self._tokens) != re.sub(r"\s", "", text):
            raise ValueError(text)
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
                    str(left["S"]).startswith(right["S"]) if starts else _plain(right) in _plain(left)
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
            if _plain(right) > _plain(last):
                raise ValueError("BETWEEN")
            return left is not None and _plain(right) <= _plain(left) <= _plain(last)
        if left is None:
            return operator == "<>"
        return _COMPARISONS[operator](_plain(left), _plain(right))

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
            return sized and {"N": str(len(_plain(sized)))}
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


def _plain(value: Value) -> Any:
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


class MemoryDynamoDb:
    """A client of DynamoDB. `resources` are the tables of a CloudFormation template, by the names that they get."""

    exceptions = SimpleNamespace(TransactionCanceledException=_CanceledError)

    def __init__(self, resources: Mapping[str, Mapping[str, Any]]) -> None:
        def keys(schema: list[dict[str, str]]) -> tuple[str, ...]:
            return tuple(key["AttributeName"] for key in schema)

        self._tables = {
            name: _Table(
                keys(properties["KeySchema"]),
                {
                    index["IndexName"]: _Index(
                        keys(index["KeySchema"]),
                        None
                        if index["Projection"]["ProjectionType"] == "ALL"
                        else frozenset(index["Projection"].get("NonKeyAttributes", ())),
                    )
                    for index in properties.get("GlobalSecondaryIndexes", [])
                },
            )
            for name, properties in resources.items()
        }
        self.actions: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "GetItem": self._get,
            "PutItem": self._put,
            "UpdateItem": self._update,
            "DeleteItem": self._delete,
            "Query": self._query,
            "Scan": self._scan,
            "BatchGetItem": self._batch_get,
            "BatchWriteItem": self._batch_write,
            "TransactWriteItems": self._transact,
        }
        """By DynamoDB's names."""

    def empty(self, *names: str) -> None:
        """Of these tables, or all."""
        for name in names or self._tables:
            self._tables[name].items.clear()

    def items(self, name: str) -> list[Item]:
        return list(self._tables[name].items.values())

    def get_item(self, **arguments: object) -> object:
        return self._make_api_call("GetItem", arguments)

    def put_item(self, **arguments: object) -> object:
        return self._make_api_call("PutItem", arguments)

    def update_item(self, **arguments: object) -> object:
        return self._make_api_call("UpdateItem", arguments)

    def query(self, **arguments: object) -> object:
        return self._make_api_call("Query", arguments)

    def batch_get_item(self, **arguments: object) -> object:
        return self._make_api_call("BatchGetItem", arguments)

    def transact_write_items(self, **arguments: object) -> object:
        return self._make_api_call("TransactWriteItems", arguments)

    def get_paginator(self, name: str) -> "MemoryDynamoDb":
        assert name == "query"
        return self

    def paginate(self, **arguments: object) -> Iterator[Any]:
        page: Any = self.query(**arguments)
        yield page
        while "LastEvaluatedKey" in page:
            page = self.query(**arguments, ExclusiveStartKey=page["LastEvaluatedKey"])
            yield page

    def _make_api_call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Raises ParamValidationError and ClientError."""
        shape = _model().operation_model(name).input_shape
        assert shape is not None
        report = ParamValidator().validate(arguments, shape)
        if report.has_errors():
            raise ParamValidationError(report=report.generate_report())
        return self.act(name, arguments)

    def act(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """For arguments whose types were checked. Raises ClientError."""
        shape = _model().operation_model(name).input_shape
        assert shape is not None
        for argument, value in arguments.items():
            allowed = getattr(shape.members[argument], "enum", None)
            if allowed and value not in allowed:
                raise _invalid(name, f"{argument} {value}")
        try:
            return self.actions[name](arguments)
        except (KeyError, ValueError) as error:
            raise _invalid(name, repr(error)) from error

    def _get(self, asked: dict[str, Any]) -> dict[str, Any]:
        table = self._tables[asked["TableName"]]
        item = table.items.get(_exact(table, asked["Key"]))
        return {"Item": item} if item else {}

    def _put(self, asked: dict[str, Any]) -> dict[str, Any]:
        table = self._tables[asked["TableName"]]
        key = table.key(asked["Item"])
        before = self._checked("PutItem", asked, table.items.get(key))
        table.items[key] = asked["Item"]
        return {"Attributes": before} if before and asked.get("ReturnValues") == "ALL_OLD" else {}

    def _update(self, asked: dict[str, Any]) -> dict[str, Any]:
        table = self._tables[asked["TableName"]]
        key = _exact(table, asked["Key"])
        before = self._checked("UpdateItem", asked, table.items.get(key), "UpdateExpression")
        change = _Expression(asked["UpdateExpression"], *_aliases(asked), before or dict(asked["Key"]))
        table.items[key] = change.changed()
        return {"Attributes": table.items[key]} if asked.get("ReturnValues") == "ALL_NEW" else {}

    def _delete(self, asked: dict[str, Any]) -> dict[str, Any]:
        table = self._tables[asked["TableName"]]
        key = _exact(table, asked["Key"])
        before = self._checked("DeleteItem", asked, table.items.get(key))
        table.items.pop(key, None)
        return {"Attributes": before} if before and asked.get("ReturnValues") == "ALL_OLD" else {}

    def _batch_write(self, asked: dict[str, Any]) -> dict[str, Any]:
        for name, writes in asked["RequestItems"].items():
            table = self._tables[name]
            for write in writes:
                if "PutRequest" in write:
                    table.items[table.key(write["PutRequest"]["Item"])] = write["PutRequest"]["Item"]
                else:
                    table.items.pop(_exact(table, write["DeleteRequest"]["Key"]), None)
        return {"UnprocessedItems": {}}

    def _batch_get(self, asked: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, list[Item]] = {}
        for name, request in asked["RequestItems"].items():
            table = self._tables[name]
            keys = [_exact(table, key) for key in request["Keys"]]
            if len(set(keys)) < len(keys) or len(keys) > 100:
                raise ValueError("duplicates, or too many")
            found[name] = [table.items[key] for key in keys if key in table.items]
        return {"Responses": found, "UnprocessedKeys": {}}

    def _transact(self, asked: dict[str, Any]) -> dict[str, Any]:
        writes = [write for one in asked["TransactItems"] for write in one.items()]
        tables = [self._tables[write["TableName"]] for _, write in writes]
        keys = [
            table.key(write["Item"]) if kind == "Put" else _exact(table, write["Key"])
            for table, (kind, write) in zip(tables, writes, strict=True)
        ]
        if len({(id(table), key) for table, key in zip(tables, keys, strict=True)}) < len(keys):
            raise ValueError("one item twice")
        reasons: list[object] = []
        for table, key, (kind, write) in zip(tables, keys, writes, strict=True):
            try:
                self._checked("", write, table.items.get(key), *(["UpdateExpression"] if kind == "Update" else []))
                reasons.append({"Code": "None"})
            except ClientError as error:
                if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                    raise
                response: Any = error.response
                there = {"Item": response["Item"]} if "Item" in response else {}
                reasons.append({"Code": "ConditionalCheckFailed", **there})
        if any(reason != {"Code": "None"} for reason in reasons):
            details: Any = {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": reasons}
            raise _CanceledError(details, "TransactWriteItems")
        for table, key, (kind, write) in zip(tables, keys, writes, strict=True):
            if kind == "Put":
                table.items[key] = write["Item"]
            elif kind == "Delete":
                table.items.pop(key, None)
            elif kind == "Update":
                before = table.items.get(key) or dict(write["Key"])
                table.items[key] = _Expression(write["UpdateExpression"], *_aliases(write), before).changed()
        return {}

    def _query(self, asked: dict[str, Any]) -> dict[str, Any]:
        table = self._tables[asked["TableName"]]
        index = table.indexes[asked["IndexName"]] if "IndexName" in asked else _Index(table.keys, None)
        keys = index.keys
        names, values = _aliases(asked)
        _check_aliases(asked, "KeyConditionExpression", "FilterExpression", "ProjectionExpression")
        found = [
            item
            for item in table.items.values()
            if all(key in item for key in keys)
            and _Expression(asked["KeyConditionExpression"], names, values, item).condition()
        ]

        def order(item: Mapping[str, Value]) -> tuple[object, ...]:
            return (*(_plain(item[key]) for key in keys), table.key(item))

        found.sort(key=order, reverse=not asked.get("ScanIndexForward", True))
        if start := asked.get("ExclusiveStartKey"):
            if set(start) != {*keys, *table.keys}:
                raise ValueError("ExclusiveStartKey")
            after = order(start)
            forward = asked.get("ScanIndexForward", True)
            found = [item for item in found if (order(item) > after if forward else order(item) < after)]
        if index.shown is not None:
            shown = {*keys, *table.keys, *index.shown}
            found = [{name: value for name, value in item.items() if name in shown} for item in found]
        return _page(table, asked, found, keys)

    def _scan(self, asked: dict[str, Any]) -> dict[str, Any]:
        """One page, or from where another ended; in no order that means anything, as with DynamoDB."""
        if unknown := set(asked) & {"Segment", "TotalSegments", "IndexName"}:
            raise ValueError(unknown)
        table = self._tables[asked["TableName"]]
        _check_aliases(asked, "FilterExpression", "ProjectionExpression")
        found = list(table.items.values())
        if start := asked.get("ExclusiveStartKey"):
            found = found[1 + list(table.items).index(_exact(table, start)) :]
        return _page(table, asked, found, ())

    def _checked(self, name: str, asked: dict[str, Any], there: Item | None, *others: str) -> Item | None:
        """What is there, if the condition holds."""
        _check_aliases(asked, "ConditionExpression", *others)
        condition = asked.get("ConditionExpression")
        if condition and not _Expression(condition, *_aliases(asked), there or {}).condition():
            details: Any = {"Error": {"Code": "ConditionalCheckFailedException"}}
            if there and asked.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD":
                details["Item"] = there
            raise ClientError(details, name)
        return there


def _page(table: _Table, asked: dict[str, Any], found: list[Item], keys: tuple[str, ...]) -> dict[str, Any]:
    names, values = _aliases(asked)
    limit = asked.get("Limit", len(found) + 1)
    read = found[:limit]
    items = [
        item
        for item in read
        if "FilterExpression" not in asked or _Expression(asked["FilterExpression"], names, values, item).condition()
    ]
    if projected := asked.get("ProjectionExpression"):
        wanted = [names.get(name.strip(), name.strip()) for name in projected.split(",")]
        items = [{name: item[name] for name in wanted if name in item} for item in items]
    page: dict[str, Any] = {"Items": items, "Count": len(items), "ScannedCount": len(read)}
    if len(read) == limit:
        page["LastEvaluatedKey"] = table.key_of(read[-1], *keys)
    return page


def _aliases(asked: dict[str, Any]) -> tuple[dict[str, str], dict[str, Value]]:
    return asked.get("ExpressionAttributeNames", {}), asked.get("ExpressionAttributeValues", {})


def _check_aliases(asked: dict[str, Any], *expressions: str) -> None:
    """DynamoDB refuses names and values that no expression uses."""
    used = {token for name in expressions for token in _TOKEN.findall(asked.get(name, ""))}
    names, values = _aliases(asked)
    if unused := {*names, *values} - used:
        raise ValueError(unused)


def _exact(table: _Table, key: Mapping[str, Value]) -> tuple[str, ...]:
    if set(key) != set(table.keys):
        raise ValueError("the key does not match the schema")
    return table.key(key)


class MemorySecrets:
    """A client of Secrets Manager."""

    exceptions = SimpleNamespace(ResourceExistsException=KeyError)

    def __init__(self) -> None:
        self._documents: dict[str, str] = {}

    def create_secret(self, *, Name: str, SecretString: str) -> None:  # noqa: N803 - AWS's names
        self._documents[Name] = SecretString

    def get_secret_value(self, *, SecretId: str) -> dict[str, str]:  # noqa: N803
        if SecretId not in self._documents:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException"}}, "GetSecretValue")
        return {"SecretString": self._documents[SecretId]}

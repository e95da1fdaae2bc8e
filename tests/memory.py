"""DynamoDB and Secrets Manager in memory, as far as the bundle uses them, and much faster than moto.

The tests of the tables are run on it and on moto, so what the engine is tested with is what the tables are tested with.
With LONG=1 the integration tests compare each of its responses with moto's. Arguments are checked by botocore's own
model of the service.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError, ParamValidationError
from botocore.model import ServiceModel
from botocore.session import get_session
from botocore.validate import ParamValidator

from tests.expressions import TOKEN, Expression, Item, Value, plain


@cache
def _model() -> ServiceModel:
    return get_session().get_service_model("dynamodb")


@cache
def _check(name: str) -> Callable[[Any], bool]:
    """Whether a value fits a shape of the model, in a tenth of botocore's time, which is asked where it may not fit."""
    shape: Any = _model().shape_for(name)
    least = shape.metadata.get("min", 0)
    match shape.type_name:
        case "structure":
            members = {member: inner.name for member, inner in shape.members.items()}
            required = frozenset(shape.required_members)
            return lambda value: (
                type(value) is dict
                and required <= value.keys()
                and all(member in members and _check(members[member])(inner) for member, inner in value.items())
            )
        case "map":
            of_value = shape.value.name
            return lambda value: (
                type(value) is dict
                and len(value) >= least
                and all(type(key) is str and key and _check(of_value)(inner) for key, inner in value.items())
            )
        case "list":
            of_member = shape.member.name
            return lambda value: (
                type(value) is list and len(value) >= least and all(_check(of_member)(inner) for inner in value)
            )
        case "string":
            return lambda value: isinstance(value, str) and len(value) >= least
        case "integer":
            return lambda value: type(value) is int and value >= least
        case "boolean":
            return lambda value: type(value) is bool
        case _:
            return lambda _: False


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
            "TransactGetItems": self._transact_get,
            "TransactWriteItems": self._transact,
        }
        """By DynamoDB's names."""

    def has(self, names: Iterable[str]) -> bool:
        """Return whether it has all of these tables."""
        return self._tables.keys() >= set(names)

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

    def batch_write_item(self, **arguments: object) -> object:
        return self._make_api_call("BatchWriteItem", arguments)

    def transact_get_items(self, **arguments: object) -> object:
        return self._make_api_call("TransactGetItems", arguments)

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
        if not _check(shape.name)(arguments):
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

    def _transact_get(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"Responses": [self._get(one["Get"]) for one in asked["TransactItems"]]}

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
        change = Expression(asked["UpdateExpression"], *_aliases(asked), before or dict(asked["Key"]))
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
                table.items[key] = Expression(write["UpdateExpression"], *_aliases(write), before).changed()
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
            and Expression(asked["KeyConditionExpression"], names, values, item).condition()
        ]

        def order(item: Mapping[str, Value]) -> tuple[object, ...]:
            return (*(plain(item[key]) for key in keys), table.key(item))

        found.sort(key=order, reverse=not asked.get("ScanIndexForward", True))
        if start := asked.get("ExclusiveStartKey"):
            if set(start) != {*keys, *table.keys}:
                raise ValueError("ExclusiveStartKey")
            if not Expression(asked["KeyConditionExpression"], names, values, start).condition():
                raise ValueError("the starting key is outside of the query")  # as on AWS; moto takes it
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
        if condition and not Expression(condition, *_aliases(asked), there or {}).condition():
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
        if "FilterExpression" not in asked or Expression(asked["FilterExpression"], names, values, item).condition()
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
    used = {token for name in expressions for token in TOKEN.findall(asked.get(name, ""))}
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

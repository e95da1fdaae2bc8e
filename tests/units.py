"""DynamoDB's write and read units of each request, by table and index, from the sizes of its items.

moto reports one unit for every request, so they are counted where the requests arrive, by AWS's rules: a write is
charged for the larger of the item before and after it, in full KB, twice in a transaction; an index is charged for the
change of what it stores, as much within a transaction as outside one, and nothing if that stays the same.

Sources: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
https://github.com/nubo-db/dynoxide/issues/176 and /pull/188 (measured against DynamoDB in August 2026)
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import ceil
from typing import TYPE_CHECKING, Any

from moto.core.models import DEFAULT_ACCOUNT_ID as ACCOUNT
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType

from local.aws import DYNAMODB

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

KB = 1024
TABLES = ("OPERATIONS", "LINKS", "API_KEYS", "LOCKS", "PEOPLE", "TOKENS", "REQUESTS")

type Item = Mapping[str, Mapping[str, Any]]
"""As DynamoDB writes it: each value with its type."""


@dataclass(frozen=True)
class Index:
    """Of a table; `projected` are the attributes that it holds, None for all."""

    name: str
    keys: Sequence[str]
    projected: frozenset[str] | None

    def stored(self, item: Item | None) -> Item | None:
        """Return what it holds of an item of its table; None if the item is not in it."""
        if item is None or not all(key in item for key in self.keys):
            return None
        return {name: value for name, value in item.items() if self.projected is None or name in self.projected}


def size(item: Item) -> int:
    """Return an item's size in bytes, as DynamoDB counts it."""
    return sum(len(name.encode()) + _size(value) for name, value in item.items())


def _size(value: Mapping[str, Any]) -> int:
    ((kind, plain),) = value.items()
    match kind:
        case "S":
            return len(plain.encode())
        case "N":
            return (len(plain.lstrip("-0.").replace(".", "")) + 1) // 2 + 1
        case "SS":
            return sum(len(one.encode()) for one in plain)
        case "L":
            return 3 + sum(1 + _size(one) for one in plain)
        case "M":
            return 3 + sum(1 + len(name.encode()) + _size(one) for name, one in plain.items())
        case "BOOL" | "NULL":
            return 1
    raise ValueError(kind)


def written(before: Item | None, after: Item | None, *, in_transaction: bool = False) -> int:
    """Return the units of one write of a table. What fails, deletes or only checks is charged for what was there."""
    return max([1, *(ceil(size(one) / KB) for one in (before, after) if one)]) * (2 if in_transaction else 1)


def index_written(index: Index, before: Item | None, after: Item | None) -> int:
    """Return the units that a write of the table costs in this index: a new key is a deletion and an insertion."""
    old, new = index.stored(before), index.stored(after)
    if old == new:
        return 0
    if old and new and all(old[key] == new[key] for key in index.keys):
        return max(ceil(size(old) / KB), ceil(size(new) / KB))
    return sum(ceil(size(one) / KB) for one in (old, new) if one)


class Meter:
    """Stands before the embedded AWS. `writes` and `reads` are the units since `begin`, by table or `Table/index`."""

    def __init__(self, behind: "WSGIApplication") -> None:
        self.behind = behind
        self.begin()

    def begin(self) -> None:
        self.writes: defaultdict[str, float] = defaultdict(float)
        self.reads: defaultdict[str, float] = defaultdict(float)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if not target.startswith(DYNAMODB):
            return self.behind(environ, start_response)
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        environ["wsgi.input"] = BytesIO(body)
        action, asked = target.removeprefix(DYNAMODB), json.loads(body)
        if action in ("GetItem", "BatchGetItem", "TransactGetItems", "Query"):
            response = b"".join(self.behind(environ, start_response))
            self._count_reads(action, asked, json.loads(response))
            return [response]
        touched = [_Touched(*write) for write in _writes(action, asked)]
        response = b"".join(self.behind(environ, start_response))
        for one in touched:
            self._count_write(one, in_transaction=action == "TransactWriteItems")
        return [response]

    def _count_write(self, one: "_Touched", *, in_transaction: bool) -> None:
        name, after = _named(one.table), one.now()
        self.writes[name] += written(one.before, after, in_transaction=in_transaction)
        for index in _indexes(one.table):
            self.writes[f"{name}/{index.name}"] += index_written(index, one.before, after)

    def _count_reads(self, action: str, asked: Mapping[str, Any], returned: Mapping[str, Any]) -> None:
        if action == "BatchGetItem":
            for table, request in asked["RequestItems"].items():
                found = returned["Responses"].get(table, [])
                absent = len(request["Keys"]) - len(found)
                units = sum(max(1, ceil(size(item) / (4 * KB))) for item in found) + absent
                self.reads[_named(table)] += units if request.get("ConsistentRead") else units / 2
            return
        if action == "TransactGetItems":  # in a transaction each takes twice as many units
            for one, found in zip(asked["TransactItems"], returned.get("Responses", ()), strict=False):
                units = 2 * max(1, ceil(size(found.get("Item", {})) / (4 * KB)))
                self.reads[_named(one["Get"]["TableName"])] += units
            return
        items = returned["Items"] if action == "Query" else [returned["Item"]] if "Item" in returned else []
        units = max(1, ceil(sum(size(item) for item in items) / (4 * KB)))
        place = "/".join([_named(asked["TableName"]), *filter(None, [asked.get("IndexName")])])
        self.reads[place] += units if asked.get("ConsistentRead") else units / 2


class _Touched:
    """An item that a request writes, deletes or checks, as it is before it."""

    def __init__(self, table: str, key: Item) -> None:
        self.table, self._key = table, key
        self.before = self.now()

    def now(self) -> Item | None:
        table: Any = _table(self.table)
        first, second = DynamoType(self._key[table.hash_key_attr]), None  # type: ignore[arg-type]
        if table.range_key_attr:
            second = DynamoType(self._key[table.range_key_attr])  # type: ignore[arg-type]
        found = table.get_item(first, second)
        return found.to_json()["Attributes"] if found else None


def _writes(action: str, asked: Mapping[str, Any]) -> Iterable[tuple[str, Item]]:
    if action == "TransactWriteItems":
        for one in asked["TransactItems"]:
            for write in one.values():
                yield write["TableName"], write.get("Key") or write["Item"]
    elif action in ("PutItem", "UpdateItem", "DeleteItem"):
        yield asked["TableName"], asked.get("Key") or asked["Item"]


def _table(name: str) -> Any:
    return dynamodb_backends[ACCOUNT][os.environ["AWS_DEFAULT_REGION"]].tables[name]


def _named(table: str) -> str:
    """Return its name in the template, without `Table` at the end."""
    (variable,) = (name for name in TABLES if os.environ[f"{name}_TABLE"] == table)
    return variable.title().replace("_", "")


def _indexes(table: str) -> Iterable[Index]:
    there = _table(table)
    own = [key["AttributeName"] for key in there.schema]
    for index in there.global_indexes:
        keys = [key["AttributeName"] for key in index.schema]
        projection = index.projection
        held = frozenset([*own, *keys, *projection.get("NonKeyAttributes", [])])
        yield Index(index.name, keys, None if projection["ProjectionType"] == "ALL" else held)

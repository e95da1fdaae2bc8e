"""Reads the operation table: by id, and by its two indexes."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from crm_bridge.storage.dynamodb import Item, Reading, deserialize, guarded, read_many, serialize

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import (
        AttributeValueTypeDef,
        QueryInputTypeDef,
    )

from crm_bridge.storage.exchanges import Exchanges
from crm_bridge.storage.operation import LISTED, LISTING_SHARDS, SHARDS, Operation, OperationSummary, State, shard_of

DUE_INDEX = "due"
DUE_PAGE = 250
MOST_DUE = 2000
"""Entries of one tenant that `due` reads in each shard, so that a run does not grow with a tenant's backlog."""
LISTING_INDEX = "listing"
LISTING_BATCH = 1000
MOST_QUERIES = 10
"""Queries for one page after the first of each shard, if few of the operations are in this state and of this flow."""
PERSON = "!"
"""Under this in place of its tenant the due index holds what needs a person. It sorts before all names."""
LATEST = 9_999_999_999
"""Epoch seconds; times in the keys of both indexes have ten digits."""


class Due(NamedTuple):
    """An operation that is to be taken up, by which function, and since when (epoch seconds)."""

    operation_id: str
    tenant: str
    function: str
    due_at: int


type _Place = tuple[float, int]
"""The place of an entry among those of all partitions: a time, and the partition's number."""
_END: _Place = (math.inf, 0)


class _Partition:
    """A partition of an index, as far as it was read for one page."""

    def __init__(self, number: int, query: "QueryInputTypeDef") -> None:
        self.query = query
        self.reached: _Place = (-math.inf, number)
        """The place of the last entry that was read."""
        self.last: tuple[str, int] | None = None
        """The id of that entry's operation, and the time in its sort key."""

    def end(self) -> None:
        """There are no more entries."""
        self.reached, self.last = _END, None


class Index(NamedTuple):
    """An index whose entries of one kind are spread over partitions and sorted by a prefix and a time."""

    name: str
    key: str
    sort: str
    partitions: Sequence[str]
    prefix: str
    newest_first: bool
    earliest: int = 0
    """The time before which entries are left out."""

    def place(self, operation_id: str, at: int) -> _Place:
        """Return where an entry comes: by time, then by partition. Within a partition DynamoDB's own order counts."""
        return (-at if self.newest_first else at), int(operation_id[-1], 16) % len(self.partitions)

    def bounds(self, number: int, after: tuple[str, int] | None) -> tuple[int, int]:
        """Return the first and the last time of this partition's entries that may come behind `after`.

        Of those with the same time some come before it if its partition is a later one.
        """
        if after is None:
            return 0, LATEST
        (_, its_number), at = self.place(*after), after[1]
        if number == its_number:
            return 0, LATEST  # it goes on behind the very entry
        if self.newest_first:
            return 0, at if number > its_number else at - 1
        return at if number > its_number else at + 1, LATEST


class OperationReader:
    """Reads of the operation table and its indexes. Threads may share it."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table
        self.exchanges = Exchanges(client, table)

    def get(self, operation_id: str) -> Operation | None:
        """Raises StorageError."""
        with guarded():
            response = self._client.get_item(TableName=self._table, Key=key_of(operation_id), ConsistentRead=True)
        return as_operation(response["Item"]) if "Item" in response else None

    def reading(self, operation_id: str) -> Reading[Operation | None]:
        """Return what `get` reads, for `read_at_once`."""
        return Reading(self._table, key_of(operation_id), _operation_or_none)

    def many(self, operation_ids: Sequence[str]) -> dict[str, Operation]:
        """Return those that exist, by their ids. Raises StorageError."""
        found = map(as_operation, read_many(self._client, self._table, map(key_of, dict.fromkeys(operation_ids))))
        return {operation.operation_id: operation for operation in found}

    def listed(
        self, tenant: str, state: State, *, flow: str | None, limit: int, after: tuple[str, int] | None, since: int = 0
    ) -> tuple[list[OperationSummary], tuple[str, int] | None]:
        """Return a page of a tenant's operations in one state; and where to go on, if there may be more.

        Those that are settled come with the latest changed first, the others with the first due first. `after` is the
        id of the one before, and when it changed or is due. Those that changed last before `since` are left out. The
        indexes show a change a moment later, what changes between two pages may be on both or on neither, and a page
        may be short. Raises StorageError.
        """
        wanted = {"flow": flow} if flow else {}
        if state in LISTED:
            keys = [f"{tenant}#{shard}" for shard in LISTING_SHARDS]
            index = Index(LISTING_INDEX, "listed", "standing", keys, f"{state}#", newest_first=True, earliest=since)
            entries, going_on = self._page(index, wanted, limit, after)
            return [OperationSummary.model_validate(entry) for entry in entries], going_on
        index = Index(DUE_INDEX, "due_shard", "due", SHARDS, f"{tenant}#", newest_first=False)
        entries, going_on = self._page(index, {**wanted, "state": state.value}, limit, after)
        ids = [str(entry["operation_id"]) for entry in entries]
        there = self.many(ids)
        listed = [there[one] for one in ids if one in there and there[one].state is state]
        return [one.summary for one in listed if one.updated_at >= since], going_on

    def _page(
        self, index: Index, wanted: Mapping[str, str], limit: int, after: tuple[str, int] | None
    ) -> tuple[list[dict[str, object]], tuple[str, int] | None]:
        """Merge the partitions of an index from `after` on. Each is read as far as the page needs it, and no further.

        `limit` entries of each partition are enough, unless entries are left out because they are not `wanted`.
        """
        partitions = [self._partition(index, number, wanted, limit, after) for number in range(len(index.partitions))]
        found: list[tuple[_Place, dict[str, object]]] = []
        for queries in count():
            behind = min(partitions, key=lambda one: one.reached)
            sure = [entry for place, entry in found if place <= behind.reached]
            if behind.reached == _END or len(sure) >= limit or queries == len(partitions) + MOST_QUERIES:
                break
            found = sorted([*found, *self._read(index, behind)], key=lambda one: one[0])
        if len(sure) > limit or (len(sure) == limit and behind.last):
            last = sure[limit - 1]
            return sure[:limit], (str(last["operation_id"]), time_of(last[index.sort]))
        return sure, behind.last

    def _partition(
        self, index: Index, number: int, wanted: Mapping[str, str], limit: int, after: tuple[str, int] | None
    ) -> _Partition:
        first, last = index.bounds(number, after)
        first = max(first, index.earliest)
        values = {
            ":key": index.partitions[number],
            ":first": f"{index.prefix}{first:010}",
            ":last": f"{index.prefix}{last:010}",
            **{f":{name}": value for name, value in wanted.items()},
        }
        query: QueryInputTypeDef = {
            "TableName": self._table,
            "IndexName": index.name,
            "KeyConditionExpression": f"{index.key} = :key AND {index.sort} BETWEEN :first AND :last",
            "ExpressionAttributeValues": serialize(values),
            "ScanIndexForward": not index.newest_first,
            "Limit": limit,
        }
        if wanted:
            query["FilterExpression"] = " AND ".join(f"#{name} = :{name}" for name in wanted)
            query["ExpressionAttributeNames"] = {f"#{name}": name for name in wanted}
        if after and index.place(*after)[1] == number:
            operation_id, at = after
            place = {index.key: index.partitions[number], index.sort: f"{index.prefix}{at:010}"}
            query["ExclusiveStartKey"] = serialize({**place, "operation_id": operation_id})
            if at < first:  # `earliest` is later than on the page before; DynamoDB takes no place out of bounds
                last = at
        partition = _Partition(number, query)
        if first > last:
            partition.end()
        return partition

    def _read(self, index: Index, partition: _Partition) -> list[tuple[_Place, dict[str, object]]]:
        """Return the next entries of a partition, each with its place."""
        with guarded():
            response = self._client.query(**partition.query)
        entries = [deserialize(item) for item in response["Items"]]
        if "LastEvaluatedKey" in response:
            partition.query |= {"ExclusiveStartKey": response["LastEvaluatedKey"], "Limit": LISTING_BATCH}
            last = deserialize(response["LastEvaluatedKey"])
            partition.last = (str(last["operation_id"]), time_of(last[index.sort]))
            partition.reached = index.place(*partition.last)
        else:
            partition.end()
        return [(index.place(str(entry["operation_id"]), time_of(entry[index.sort])), entry) for entry in entries]

    def due(self, shard: str, now: int) -> Iterator[Sequence[Due]]:
        """Return what is due in one shard, a page at a time: tenant after tenant, the oldest of each first.

        At most about MOST_DUE of one tenant; what is not due yet is skipped. Raises StorageError.
        """
        query: QueryInputTypeDef = {
            "TableName": self._table,
            "IndexName": DUE_INDEX,
            "KeyConditionExpression": "due_shard = :shard AND due > :after",
            "Limit": DUE_PAGE,
        }
        after, read = f"{PERSON}~", Counter[str]()
        while True:
            query["ExpressionAttributeValues"] = serialize({":shard": shard, ":after": after})
            with guarded():
                response = self._client.query(**query)
            found = [_as_due(item) for item in response["Items"]]
            read.update(one.tenant for one in found)
            yield [one for one in found if one.due_at <= now]
            if "LastEvaluatedKey" not in response:
                return
            if found[-1].due_at > now or read[found[-1].tenant] >= MOST_DUE:
                after = f"{found[-1].tenant}#~"  # behind all times
                query.pop("ExclusiveStartKey", None)
            else:
                query["ExclusiveStartKey"] = response["LastEvaluatedKey"]

    def oldest_in_review(self, shard: str) -> int | None:
        """Return since when the oldest operation of one shard has needed a person; None if there is none.

        In epoch seconds, for all tenants. Raises StorageError.
        """
        with guarded():
            response = self._client.query(
                TableName=self._table,
                IndexName=DUE_INDEX,
                KeyConditionExpression="due_shard = :shard AND begins_with(due, :person)",
                ExpressionAttributeValues=serialize({":shard": shard, ":person": PERSON}),
                Limit=1,
            )
        return next((time_of(deserialize(item)["due"]) for item in response["Items"]), None)

    def lent(self, shard: str, tenant: str, now: int, until: int) -> Counter[str]:
        """Return how many operations of a tenant in one shard are lent, at most `until`, by function.

        Of a tenant with more than 1 MB of entries that are due by then, some 5,000, it is at least so many.
        Raises StorageError.
        """
        values = {":shard": shard, ":first": timed(tenant, now + 1), ":last": timed(tenant, until)}
        with guarded():
            response = self._client.query(
                TableName=self._table,
                IndexName=DUE_INDEX,
                KeyConditionExpression="due_shard = :shard AND due BETWEEN :first AND :last",
                FilterExpression="attribute_exists(lent_until)",
                ExpressionAttributeValues=serialize(values),
            )
        return Counter(_as_due(item).function for item in response["Items"])


def key_of(operation_id: str) -> "dict[str, AttributeValueTypeDef]":
    return {"operation_id": {"S": operation_id}}


def timed(name: str, at: int) -> str:
    """Return a sort key: a tenant or a state, and a time."""
    return f"{name}#{at:010}"


def time_of(sort_key: object) -> int:
    return int(str(sort_key).rpartition("#")[2])


def _as_due(item: "Mapping[str, AttributeValueTypeDef]") -> Due:
    entry = {name: str(value) for name, value in deserialize(item).items()}
    tenant, _, due_at = entry["due"].rpartition("#")
    return Due(entry["operation_id"], tenant, entry["function"], int(due_at))


def _operation_or_none(item: Item) -> Operation | None:
    return as_operation(item) if item else None


def as_operation(item: "Mapping[str, AttributeValueTypeDef]") -> Operation:
    return Operation.model_validate(deserialize(item))


def as_item(operation: Operation) -> "dict[str, AttributeValueTypeDef]":
    item = operation.model_dump(mode="json", exclude_none=True)
    for name in ("waiters", "held"):
        item[name] = set(getattr(operation, name)) or None  # a list is no set to DynamoDB, and there is no empty set
    if operation.state in LISTED:
        item["listed"] = f"{operation.tenant}#{shard_of(operation.operation_id, LISTING_SHARDS)}"
        item["standing"] = timed(operation.state, operation.updated_at)
    if operation.state is State.NEEDS_REVIEW:
        item["due_shard"] = operation.shard
        item["due"] = timed(PERSON, operation.updated_at)
    elif operation.due_at is not None:
        item["due_shard"] = operation.shard
        item["due"] = timed(operation.tenant, operation.due_at)
    return serialize(item)

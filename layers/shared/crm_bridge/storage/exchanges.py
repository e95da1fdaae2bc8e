"""Stores what was sent to a vendor in the attempts of an operation, and what came back, for the person who asks why.

They are in items of their own in the operation table, so that the operation stays small and they expire by themselves:
one item for the attempts that failed, and one for those that succeeded, which may be kept for another time.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from crm_bridge.errors import Event
from crm_bridge.storage.dynamodb import deserialize, read_many, serialize
from crm_bridge.storage.operation import Operation, State, as_time

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef, TransactWriteItemTypeDef

    from crm_bridge import responses

MOST_EXCHANGES = 10
"""The attempts of an operation whose exchanges are stored in each of its items: the latest. Each has at most 2,048
characters of the request, as many of the response, and a line for each of ten calls; an item of DynamoDB may have
400 KB, and each write costs by its size."""
FAILED, SUCCEEDED = "#failed", "#succeeded"
"""The ends of the items' ids. No operation has such an id."""


class Call(NamedTuple):
    """One request to a vendor. It shows no query and no host."""

    at: int
    """When it began, in epoch milliseconds."""
    method: str
    path: str
    status: int | None
    error: str | None
    """If no whole response came: the kind of error."""
    milliseconds: int


@dataclass(frozen=True)
class Exchange:
    """The calls between the bridge and a vendor in one attempt."""

    at: int
    """Epoch seconds at which the attempt was over."""
    event: Event
    calls: tuple[Call, ...]
    """The latest, the oldest first."""
    left_out: int = 0
    """How many calls came before these."""
    request: str | None = field(default=None, repr=False)
    """The body of the last call, if the attempt failed: without secrets, and cut."""
    response: str | None = field(default=None, repr=False)
    """The body that came back, in the same way."""

    def to_response(self, *, bodies: bool) -> "responses.Exchange":
        shown: responses.Exchange = {
            "at": as_time(self.at),
            "event": self.event,
            "calls": [
                {
                    "at": as_time(call.at // 1000),
                    "method": call.method,
                    "path": call.path,
                    "status": call.status,
                    "error": call.error,
                    "milliseconds": call.milliseconds,
                }
                for call in self.calls
            ],
            "left_out": self.left_out,
        }
        return {**shown, "request": self.request, "response": self.response} if bodies else shown


class Exchanges:
    """Those of all operations. Threads may share it."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def put(self, settled: Operation, exchange: Exchange, expires_at: int) -> "TransactWriteItemTypeDef":
        """Return the write that stores the exchange of an attempt, for the transaction that settles it.

        It replaces the oldest of MOST_EXCHANGES: `settled.exchanges` counts them, this one included.
        """
        slot = f"exchange{(settled.exchanges or 0) % MOST_EXCHANGES}"
        ending = SUCCEEDED if settled.state is State.SUCCEEDED else FAILED
        values = {
            ":exchange": json.dumps(asdict(exchange), ensure_ascii=False),
            ":tenant": settled.tenant,
            ":expires_at": expires_at,
        }
        return {
            "Update": {
                "TableName": self._table,
                "Key": _key(settled, ending),
                "UpdateExpression": f"SET {slot} = :exchange, tenant = :tenant, expires_at = :expires_at",
                "ExpressionAttributeValues": serialize(values),
            }
        }

    def drops(self, operation: Operation) -> "list[TransactWriteItemTypeDef]":
        """Return the writes that delete all exchanges of an operation."""
        keys = [_key(operation, ending) for ending in (FAILED, SUCCEEDED)]
        return [{"Delete": {"TableName": self._table, "Key": key}} for key in keys]

    def of(self, operation: Operation, now: int) -> list[Exchange]:
        """Return the exchanges of an operation, the latest first. Raises StorageError."""
        if not operation.exchanges:
            return []
        keys = [_key(operation, ending) for ending in (FAILED, SUCCEEDED)]
        found = read_many(self._client, self._table, keys, consistent=False)
        return sorted(_stored(map(deserialize, found), now), key=lambda one: one.at, reverse=True)


def _stored(items: Iterable[Mapping[str, object]], now: int) -> list[Exchange]:
    """Return what is in these items. DynamoDB deletes an item up to some days after it has expired."""
    texts = [
        str(value)
        for item in items
        if int(str(item["expires_at"])) > now
        for name, value in item.items()
        if name.startswith("exchange")
    ]
    return [_as_exchange(json.loads(text)) for text in texts]


def _as_exchange(stored: dict[str, Any]) -> Exchange:
    calls = tuple([Call(*call) for call in stored["calls"]])
    return Exchange(**{**stored, "event": Event(stored["event"]), "calls": calls})


def _key(operation: Operation, ending: str) -> "dict[str, AttributeValueTypeDef]":
    return {"operation_id": {"S": f"{operation.operation_id}{ending}"}}

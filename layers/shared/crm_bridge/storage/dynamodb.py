"""DynamoDB as the tables of the bridge use it: values in and out, and its failures as StorageError."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import batched
from time import sleep
from typing import TYPE_CHECKING, Any, cast

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.exceptions import BotoCoreError, ClientError

from crm_bridge.errors import StorageError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

type Item = Mapping[str, AttributeValueTypeDef]

MOST_READ = 100
"""Items that DynamoDB gives at once by their keys."""
_PASSING_REASONS = {"None", "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}


class _Deserializer(TypeDeserializer):
    """boto3's, with integers for numbers: a person who adds a key by hand may give a time a fraction."""

    def deserialize(self, value: Any) -> Any:
        return value["S"] if "S" in value else super().deserialize(value)

    def _deserialize_n(self, value: str) -> int:
        return int(Decimal(value))


_STORED = frozenset({"NULL", "BOOL", "N", "S", "SS", "L", "M"})
_serializer, _deserializer = TypeSerializer(), _Deserializer()


def serialize(item: Mapping[str, object]) -> "dict[str, AttributeValueTypeDef]":
    """Return a table item made of plain values, without those that are None.

    Raises TypeError for what no table holds: fractions, bytes, empty sets and sets of anything but texts. It names no
    value. In a list or an object only fractions are noticed, since all of those come from JSON.
    """
    made: dict[str, Any] = {}
    for name, value in item.items():
        if value is None:
            continue
        if isinstance(value, str):  # most values are
            made[name] = {"S": value}
            continue
        try:
            made[name] = _serializer.serialize(value)
        except TypeError:  # its text repeats the value
            raise TypeError(f"no table holds {name} ({type(value).__name__})") from None
        if not _STORED.issuperset(made[name]):
            raise TypeError(f"no table holds {name} ({type(value).__name__})")
    return made


def deserialize(item: "Mapping[str, AttributeValueTypeDef]") -> dict[str, object]:
    return {name: _deserializer.deserialize(value) for name, value in item.items()}


def existing(error: ClientError) -> "dict[str, AttributeValueTypeDef]":
    """Return the item that made a condition fail, if the write asked for it; raise `error` if it was something else."""
    if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
        raise error
    return cast("dict[str, AttributeValueTypeDef]", error.response.get("Item", {}))


def reasons_of(error: ClientError) -> "Sequence[Mapping[str, Any]]":
    """Return why each write of a transaction failed, of which at least one did for its condition; else raise `error`.

    By the error's code, not by its class: a client makes its error classes at first use, and two threads may make two.
    """
    response: Mapping[str, Any] = error.response
    reasons: Sequence[Mapping[str, Any]] = response.get("CancellationReasons", ())
    if not any(reason.get("Code") == "ConditionalCheckFailed" for reason in reasons):
        raise error
    return reasons


@contextmanager
def guarded() -> Iterator[None]:
    """Turns what AWS calls raise into StorageError. Conditional failures must be caught inside."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        # The message of an AWS error can repeat a key or a value; its code cannot.
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        raise StorageError(f"The bridge's storage did not respond ({code}). Send the same request again.") from error


def through_conflicts[T](call: Callable[[], T]) -> T:
    """Repeat a write that met another transaction or a throttle inside one: the AWS client does not do it by itself."""
    for attempt in range(6):
        try:
            return call()
        except ClientError as error:
            if not _is_passing(error):
                raise
        sleep(random.uniform(0, 0.05 * 2**attempt))
    return call()


@dataclass
class Reading[T]:
    """An item that is read together with others. `value` is what `parse` makes of it; an absent item is empty."""

    table: str
    key: "Item"
    parse: Callable[["Item"], T]
    item: "Item" = field(default_factory=dict, repr=False)

    @property
    def value(self) -> T:
        return self.parse(self.item)


def read_at_once(client: "DynamoDBClient", readings: Sequence[Reading[Any]]) -> None:
    """Read these items as they are at one and the same time, in one round trip. Raises StorageError."""
    gets: Sequence[Any] = [{"Get": {"TableName": one.table, "Key": one.key}} for one in readings]
    with guarded():
        response = through_conflicts(lambda: client.transact_get_items(TransactItems=gets))
    for one, found in zip(readings, response["Responses"], strict=True):
        one.item = found.get("Item", {})


def read_many(
    client: "DynamoDBClient", table: str, keys: "Iterable[Item]", *, consistent: bool = True
) -> "Iterator[Item]":
    """Yield the items with these keys that there are, in any order. Raises StorageError."""
    for some in batched(keys, MOST_READ, strict=False):
        left: Any = some
        while left:
            with guarded():
                response = client.batch_get_item(RequestItems={table: {"Keys": left, "ConsistentRead": consistent}})
            yield from response["Responses"].get(table, ())
            unprocessed: Any = response.get("UnprocessedKeys", {})
            before, left = left, unprocessed.get(table, {}).get("Keys", ())
            if len(left) == len(before):
                raise StorageError("The bridge's storage is throttled. Send the same request again.")


def _is_passing(error: ClientError) -> bool:
    code = error.response["Error"]["Code"]
    reasons = {reason.get("Code", "None") for reason in error.response.get("CancellationReasons", [])}
    return code == "TransactionConflictException" or (
        code == "TransactionCanceledException" and reasons <= _PASSING_REASONS
    )

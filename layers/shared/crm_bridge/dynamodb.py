"""DynamoDB as the tables of the bridge use it: values in and out, and its failures as StorageError."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from time import sleep
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import BotoCoreError, ClientError

from crm_bridge.errors import StorageError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

_PASSING_REASONS = {"None", "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}


def serialize(item: Mapping[str, object]) -> "dict[str, AttributeValueTypeDef]":
    """A table item out of plain values; what is None is left out. Sets are of texts."""
    return {name: _typed(value) for name, value in item.items() if value is not None}


def _typed(value: object) -> "AttributeValueTypeDef":
    """Source: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_AttributeValue.html"""
    match value:
        case str():
            return {"S": value}
        case bool():  # before int, which it is as well
            return {"BOOL": value}
        case int():
            return {"N": str(value)}
        case None:
            return {"NULL": True}
        case set() | frozenset():
            return {"SS": sorted(value)}
        case list() | tuple():
            return {"L": [_typed(part) for part in value]}
        case dict():
            return {"M": {name: _typed(part) for name, part in value.items()}}
    raise TypeError(f"no table holds a {type(value).__name__}")


def deserialize(item: "Mapping[str, AttributeValueTypeDef]") -> dict[str, object]:
    return {name: _plain(value) for name, value in item.items()}


def _plain(typed: Mapping[str, Any]) -> object:
    ((kind, value),) = typed.items()
    match kind:
        case "S" | "BOOL":
            return value
        case "N":
            return int(Decimal(value))  # whoever adds a key by hand may give a time a fraction
        case "NULL":
            return None
        case "SS":
            return set(value)
        case "L":
            return [_plain(part) for part in value]
        case "M":
            return deserialize(value)
    raise TypeError(f"the bridge stores no {kind}")


def existing(error: ClientError) -> "dict[str, AttributeValueTypeDef]":
    """The item that made a condition fail, if the write asked for it; raises `error` if it was something else."""
    if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
        raise error
    return cast("dict[str, AttributeValueTypeDef]", error.response.get("Item", {}))


@contextmanager
def guarded() -> Iterator[None]:
    """Turns what AWS calls raise into StorageError. Conditional failures must be caught inside."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        # The message of an AWS error can repeat a key or a value; its code cannot.
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        raise StorageError(f"The bridge's storage did not answer ({code}). Send the same request again.") from error


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


def _is_passing(error: ClientError) -> bool:
    code = error.response["Error"]["Code"]
    reasons = {reason.get("Code", "None") for reason in error.response.get("CancellationReasons", [])}
    return code == "TransactionConflictException" or (
        code == "TransactionCanceledException" and reasons <= _PASSING_REASONS
    )

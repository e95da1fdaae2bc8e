"""DynamoDB as the tables of the bridge use it: values in and out, its client, and its failures as StorageError."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from time import sleep
from typing import TYPE_CHECKING, cast

import boto3
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from crm_bridge.errors import StorageError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

# At the worst (three tries, each timing out) 8 s: within what a request keeps back to settle its operation.
AWS_CONFIG = Config(
    connect_timeout=1, read_timeout=1.5, tcp_keepalive=True, retries={"mode": "standard", "total_max_attempts": 3}
)

_PASSING_REASONS = {"None", "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}

_serializer = TypeSerializer()
_deserializer = TypeDeserializer()


def client() -> "DynamoDBClient":
    return boto3.client("dynamodb", config=AWS_CONFIG)


def serialize(item: Mapping[str, object]) -> "dict[str, AttributeValueTypeDef]":
    """A table item out of plain values; what is None is left out."""
    return {name: _serializer.serialize(value) for name, value in item.items() if value is not None}


def deserialize(item: "Mapping[str, AttributeValueTypeDef]") -> dict[str, object]:
    return {name: _plain(_deserializer.deserialize(value)) for name, value in item.items()}


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return int(value)
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return value


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

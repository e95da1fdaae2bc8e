"""Documents: small records that several functions change: read one, decide, write it if nobody else has meanwhile."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

from botocore.exceptions import ClientError

from crm_bridge.storage.dynamodb import (
    Item,
    Reading,
    deserialize,
    guarded,
    read_at_once,
    reasons_of,
    serialize,
    through_conflicts,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef, TransactWriteItemTypeDef


class _Condition(TypedDict):
    ConditionExpression: str
    ExpressionAttributeNames: dict[str, str]
    ExpressionAttributeValues: "NotRequired[dict[str, AttributeValueTypeDef]]"
    ReturnValuesOnConditionCheckFailure: Literal["ALL_OLD"]


@dataclass(frozen=True)
class Document:
    """`version` counts the writes; 0 is "not there yet". `content` holds what a JSON object without fractions can."""

    version: int = 0
    content: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Change:
    """The content that follows the version that was read; None deletes it.

    The table drops it some time after `expires_at` (epoch seconds).
    """

    read: Document
    content: Mapping[str, Any] | None = field(repr=False)
    expires_at: int | None = None


class Documents:
    """A table of documents. One instance per execution environment; threads may share it. Raises StorageError."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def get(self, key: str) -> Document:
        with guarded():
            answer = self._client.get_item(TableName=self._table, Key=_key(key), ConsistentRead=True)
        return _document(answer.get("Item", {}))

    def reading(self, key: str) -> Reading[Document]:
        """Return what `get` reads, for `read_at_once`."""
        return Reading(self._table, _key(key), _document)

    def read_at_once(self, *readings: Reading[Any]) -> None:
        """Read items of any tables as they are at one and the same time."""
        read_at_once(self._client, readings)

    def write(self, changes: Mapping[str, Change], others: "Sequence[TransactWriteItemTypeDef]" = ()) -> bool:
        """Write all of it and `others`, or nothing: return False if somebody else has written one of them."""
        writer = uuid.uuid4().hex
        puts = self.writes(changes, writer)
        with guarded():
            try:
                through_conflicts(lambda: self._client.transact_write_items(TransactItems=[*puts, *others]))
            except ClientError as error:
                # A write whose response was lost is repeated by the AWS client, and fails on its own first success.
                return any(reason.get("Item", {}).get("writer") == {"S": writer} for reason in reasons_of(error))
        return True

    def writes(self, changes: Mapping[str, Change], writer: str) -> "list[TransactWriteItemTypeDef]":
        """Return the writes of `changes`, for a transaction; `writer` stands in them for whoever makes it."""
        return [self._write(key, change, writer) for key, change in changes.items()]

    def removing(self, key: str, member: str, writer: str) -> "TransactWriteItemTypeDef":
        """Return the write that takes a member out of a document, whoever wrote the others. It fails without one."""
        return {
            "Update": {
                "TableName": self._table,
                "Key": _key(key),
                "UpdateExpression": "SET #version = #version + :one, writer = :writer REMOVE content.#member",
                "ConditionExpression": "attribute_exists(#version)",
                "ExpressionAttributeNames": {"#version": "version", "#member": member},
                "ExpressionAttributeValues": serialize({":one": 1, ":writer": writer}),
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        }

    def _write(self, key: str, change: Change, writer: str) -> "TransactWriteItemTypeDef":
        unchanged: _Condition = {
            # A version that was read must still be there, or what somebody has erased would come back.
            "ConditionExpression": "#version = :read" if change.read.version else "attribute_not_exists(#version)",
            "ExpressionAttributeNames": {"#version": "version"},
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if change.read.version:
            unchanged["ExpressionAttributeValues"] = serialize({":read": change.read.version})
        if change.content is None:
            return {"Delete": {"TableName": self._table, "Key": _key(key), **unchanged}}
        item = {
            "document": key,
            "version": change.read.version + 1,
            "content": change.content,
            "writer": writer,
            "expires_at": change.expires_at,
        }
        return {"Put": {"TableName": self._table, "Item": serialize(item), **unchanged}}


def _document(stored: Item) -> Document:
    item = deserialize(stored)
    return Document(int(str(item["version"])), item["content"]) if item else Document()  # type: ignore[arg-type]


def _key(key: str) -> dict[str, Any]:
    return serialize({"document": key})

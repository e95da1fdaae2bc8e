"""Operations whose event came again with a different payload that was not applied: notes it, and lists them.

An operation is in the listing index once, by its state. So an item of its own stands there for such an operation, whose
sort key begins with CHANGED in place of a state. It has no more than the operation's id, tenant and flow.
"""

from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from crm_bridge.storage.dynamodb import guarded, reasons_of, serialize, through_conflicts
from crm_bridge.storage.operation import LISTING_SHARDS, Operation, shard_of
from crm_bridge.storage.operation_reader import LISTING_INDEX, Index, OperationReader, key_of, timed

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

CHANGED = "changed"
_PREFIX = f"{CHANGED}#"
"""Before an operation's id: the id of its item here. The id's last digit decides about the partition of both."""


class ChangedOperations(OperationReader):
    """Reads and writes of the payloads that were not applied. Threads may share it."""

    def note_changed(self, operation: Operation, fingerprint: str, now: int, *, listed_until: int) -> None:
        """Store that the event came with a payload of this fingerprint, which is not the operation's.

        One write. Nothing is written if the payload before had the same fingerprint, or if the operation is another one
        by now. The list has it until then (epoch seconds). Raises StorageError.
        """
        update: TransactWriteItemTypeDef = {
            "Update": {
                "TableName": self._table,
                "Key": key_of(operation.operation_id),
                "UpdateExpression": "SET changed_at = :now, changed_fingerprint = :new ADD changed_times :one",
                "ConditionExpression": "fingerprint = :first "
                "AND (attribute_not_exists(changed_fingerprint) OR changed_fingerprint <> :new)",
                "ExpressionAttributeValues": serialize(
                    {":now": now, ":new": fingerprint, ":one": 1, ":first": operation.fingerprint}
                ),
            }
        }
        item = {
            "tenant": operation.tenant,
            "flow": operation.flow,
            "listed": f"{operation.tenant}#{shard_of(operation.operation_id, LISTING_SHARDS)}",
            "standing": timed(CHANGED, now),
            "expires_at": listed_until,
        }
        put: TransactWriteItemTypeDef = {
            "Put": {"TableName": self._table, "Item": {**key_of(_PREFIX + operation.operation_id), **serialize(item)}}
        }
        with guarded():
            try:
                through_conflicts(lambda: self._client.transact_write_items(TransactItems=[update, put]))
            except ClientError as error:
                reasons_of(error)

    def drop_changed(self, operation: Operation) -> "TransactWriteItemTypeDef":
        """Return the write that takes an operation out of this list."""
        return {"Delete": {"TableName": self._table, "Key": key_of(_PREFIX + operation.operation_id)}}

    def listed_changed(
        self, tenant: str, *, flow: str | None, limit: int, after: tuple[str, int] | None, since: int = 0
    ) -> tuple[list[Operation], tuple[str, int] | None]:
        """Return a page of a tenant's operations of which a payload was not applied, and where to go on.

        Those whose event came last come first. `after` is the id of the one before, and when its event came; those
        whose event came last before `since` are left out. A page may be short. Raises StorageError.
        """
        keys = [f"{tenant}#{shard}" for shard in LISTING_SHARDS]
        index = Index(LISTING_INDEX, "listed", "standing", keys, f"{CHANGED}#", newest_first=True, earliest=since)
        entries, going_on = self._page(
            index, {"flow": flow} if flow else {}, limit, (_PREFIX + after[0], after[1]) if after else None
        )
        ids = [str(entry["operation_id"]).removeprefix(_PREFIX) for entry in entries]
        there = self.many(ids)
        # Of one that was sent anew, or whose data were erased, nothing is left to apply.
        found = [there[one] for one in ids if one in there and there[one].changed_at is not None]
        return found, (going_on[0].removeprefix(_PREFIX), going_on[1]) if going_on else None

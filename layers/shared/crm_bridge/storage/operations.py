"""Writes the operation table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from botocore.exceptions import ClientError

from crm_bridge.errors import LinkTakenError, OvertakenError, StorageError
from crm_bridge.storage.dynamodb import deserialize, existing, guarded, reasons_of, serialize, through_conflicts

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import (
        AttributeValueTypeDef,
        PutTypeDef,
        TransactWriteItemTypeDef,
    )

from crm_bridge.storage.changed_operations import ChangedOperations
from crm_bridge.storage.operation import Operation, State
from crm_bridge.storage.operation_reader import Due, as_item, as_operation, key_of, timed

MOST_WAITERS = 20
"""Operations that one operation wakes when it has ended; more than these wait for their own next attempt."""
MOST_NOTED = MOST_WAITERS + 10
"""Times that an operation is saved if a waiter, or a payload that differs, is noted meanwhile."""


@dataclass(frozen=True)
class Claim:
    """`won`: the caller holds the lease of `operation`. Else `operation` is what the table holds instead."""

    won: bool
    operation: Operation


class _Condition(TypedDict):
    ConditionExpression: str
    ExpressionAttributeNames: dict[str, str]
    ExpressionAttributeValues: "dict[str, AttributeValueTypeDef]"
    ReturnValuesOnConditionCheckFailure: Literal["ALL_OLD"]


class Operations(ChangedOperations):
    """The operation table. One instance per execution environment; threads may share it.

    A conditional write whose response got lost is repeated by the AWS client, and then fails on its own first success.
    Every method therefore compares the lease that it wrote before it believes to have lost.
    """

    def create(
        self,
        operation: Operation,
        *,
        over: Iterable[State],
        over_undone: bool = False,
        along: "Sequence[TransactWriteItemTypeDef]" = (),
    ) -> Claim:
        """Store a new operation unless there is one already that is in none of the states `over`, or is held.

        With `over_undone` one that waits may be there as well, if it was surely never done. One round trip either way.
        The attempts of an operation that it replaces are kept, unless other writes go `along` in one transaction.
        Raises OvertakenError, StorageError.
        """
        states = _values(over)
        condition = (
            f"attribute_not_exists(operation_id) OR (#state IN ({', '.join(states)}) AND attribute_not_exists(held))"
        )
        if over_undone:
            condition += (
                " OR (#state = :waiting AND attribute_not_exists(unconfirmed_since) "
                "AND attribute_not_exists(deferred_at))"
            )
            states[":waiting"] = State.WAITING.value
        put: PutTypeDef = {
            "TableName": self._table,
            "Item": as_item(operation),
            "ConditionExpression": condition,
            "ExpressionAttributeNames": {"#state": "state"},
            "ExpressionAttributeValues": serialize(states),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if along:
            item = self._write_all({"Put": put}, along)
            there = as_operation(item) if item else operation
            return Claim(there.lease == operation.lease, there)
        with guarded():
            try:
                response = through_conflicts(lambda: self._client.put_item(**put, ReturnValues="ALL_OLD"))
            except ClientError as error:
                there = as_operation(existing(error))
                return Claim(there.lease == operation.lease, there)
        if "Attributes" in response:
            replaced = as_operation(response["Attributes"])
            kept = {"attempts": replaced.attempts, "exchanges": replaced.exchanges}
            operation = operation.model_copy(update=kept)
        return Claim(True, operation)

    def claim(
        self,
        operation_id: str,
        *,
        lease: str,
        now: int,
        until: int,
        states: Iterable[State],
        tenant: str,
        lent_until: int | None = None,
    ) -> Claim | None:
        """Take over a tenant's operation in one of `states` that is due now, or lent to the caller until `lent_until`.

        None: there is none with this id. Raises StorageError.
        """
        accepted = _values(states)
        values: dict[str, object] = {
            ":sending": State.SENDING.value,
            ":lease": lease,
            ":until": until,
            ":one": 1,
            ":now": now,
            ":tenant": tenant,
            ":due": timed(tenant, until),
            ":lent": lent_until or 0,
        }
        with guarded():
            try:
                response = through_conflicts(
                    lambda: self._client.update_item(
                        TableName=self._table,
                        Key=key_of(operation_id),
                        UpdateExpression="SET #was = #state, #state = :sending, #lease = :lease, due_at = :until, "
                        "due = :due, tries = tries + :one, updated_at = :now, "
                        "first_sent_at = if_not_exists(first_sent_at, :now) REMOVE lent_until",
                        ConditionExpression=f"#state IN ({', '.join(accepted)}) "
                        "AND (due_at <= :now OR lent_until = :lent) AND attribute_not_exists(held) "
                        "AND tenant = :tenant",
                        ExpressionAttributeNames={"#state": "state", "#was": "was", "#lease": "lease"},
                        ExpressionAttributeValues=serialize({**values, **accepted}),
                        ReturnValues="ALL_NEW",
                        ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    )
                )
            except ClientError as error:
                item = existing(error)
                if not item:
                    return None
                there = as_operation(item)
                return Claim(there.lease == lease, there)
        return Claim(True, as_operation(response["Attributes"]))

    def note_account(self, operation: Operation, account: str) -> None:
        """Store where an operation is about to be sent; its caller holds the lease. Raises StorageError."""
        with guarded():
            self._client.update_item(
                TableName=self._table,
                Key=key_of(operation.operation_id),
                UpdateExpression="SET sent_to = :account",
                ConditionExpression="#lease = :lease AND #state = :sending",
                ExpressionAttributeNames={"#lease": "lease", "#state": "state"},
                ExpressionAttributeValues=serialize(
                    {":account": account, ":lease": operation.lease, ":sending": State.SENDING.value}
                ),
            )

    def queue(self, operation: Operation, behind: Operation) -> Claim:
        """Store an operation in the place of one that is held, so that it waits for the same. Raises StorageError."""
        replaced = self.replaced(behind, operation)["Put"]
        with guarded():
            try:
                through_conflicts(lambda: self._client.put_item(**replaced))
            except ClientError as error:
                item = existing(error)
                there = as_operation(item) if item else behind
                return Claim(there.lease == operation.lease, there)
        return Claim(True, operation)

    def put(self, operation: Operation) -> "TransactWriteItemTypeDef":
        """The write that stores a new operation, for the transaction that settles another one."""
        return {"Put": {"TableName": self._table, "Item": as_item(operation)}}

    def replaced(self, there: Operation, after: Operation) -> "TransactWriteItemTypeDef":
        """The write that puts `after` in the place of `there`, if nobody has changed that since."""
        put: PutTypeDef = {"TableName": self._table, "Item": as_item(after), **_unchanged(there)}
        return {"Put": put}

    def delete(self, there: Operation) -> "TransactWriteItemTypeDef":
        """The write that deletes `there`, if nobody has changed that since."""
        return {"Delete": {"TableName": self._table, "Key": key_of(there.operation_id), **_unchanged(there)}}

    def update(
        self, operation_id: str, expression: str, condition: str, values: Mapping[str, object]
    ) -> "TransactWriteItemTypeDef":
        """Return the write that changes a part of an operation; names that DynamoDB reserves have a `#`."""
        names = {
            f"#{name}": name
            for name in ("state", "result", "function", "lease")
            if f"#{name}" in expression + condition
        }
        return {
            "Update": {
                "TableName": self._table,
                "Key": key_of(operation_id),
                "UpdateExpression": expression,
                "ConditionExpression": condition,
                "ExpressionAttributeNames": names,
                "ExpressionAttributeValues": serialize(values),
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        }

    def save(
        self,
        operation: Operation,
        writes: "Sequence[TransactWriteItemTypeDef]" = (),
        *,
        over: State | None = State.SENDING,
        lease: str | None = None,
        along: "Sequence[TransactWriteItemTypeDef]" = (),
    ) -> Operation:
        """Write what became of an operation, and its links and whatever else follows, in one transaction.

        It must still be in the state `over`, and under the lease that `operation` has (or under `lease`, if that is
        given because `operation` has a new one); `over=None`: there must be none yet. `along` are writes whose
        conditions are not about links.

        Returns what the table holds afterwards: `operation`, with all its waiters, or what another holder of the lease
        made of it. Raises LinkTakenError, OvertakenError, StorageError; then nothing was written.
        """
        lease = lease or operation.lease
        for _ in range(MOST_NOTED):
            there = self._saved(operation, writes, along, over, lease)
            is_ours = over is not None and (there.lease, there.state) == (lease, over)
            if not is_ours or (noted := operation.with_notes_of(there)) == operation:
                return there
            operation = noted  # something was added since it was read
        raise StorageError("The operation changes again and again. Send the same request again.")

    def _saved(
        self,
        operation: Operation,
        writes: "Sequence[TransactWriteItemTypeDef]",
        along: "Sequence[TransactWriteItemTypeDef]",
        over: State | None,
        lease: str | None,
    ) -> Operation:
        item = self._write_all(self._settled(operation, over, lease), along, writes)
        if item is None:
            return operation
        if not item:
            raise StorageError("The operation is no longer stored. Send the same request again.")
        return as_operation(item)

    def settled(self, operation: Operation) -> "TransactWriteItemTypeDef":
        """The write that `save` makes of an operation that is being sent, for the transaction that settles another."""
        return self._settled(operation, State.SENDING, operation.lease)

    def _settled(self, operation: Operation, over: State | None, lease: str | None) -> "TransactWriteItemTypeDef":
        put: TransactWriteItemTypeDef = {
            "Put": {
                "TableName": self._table,
                "Item": as_item(operation),
                "ConditionExpression": "attribute_not_exists(operation_id)",
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        }
        if over:
            waiters, times = len(operation.waiters), operation.changed_times  # numbers that never become smaller
            same = "size(waiters) = :waiters" if waiters else "attribute_not_exists(waiters)"
            if operation.fingerprint:  # else it is erased, with all that is known of payloads
                same += f" AND {'changed_times = :times' if times else 'attribute_not_exists(changed_times)'}"
            values = {":lease": lease, ":over": over.value, ":waiters": waiters or None, ":times": times}
            put["Put"] |= {
                "ConditionExpression": f"#lease = :lease AND #state = :over AND {same}",
                "ExpressionAttributeNames": {"#lease": "lease", "#state": "state"},
                "ExpressionAttributeValues": serialize(values),
            }
        return put

    def _write_all(
        self,
        put: "TransactWriteItemTypeDef",
        along: "Sequence[TransactWriteItemTypeDef]",
        writes: "Sequence[TransactWriteItemTypeDef]" = (),
    ) -> "Mapping[str, Any] | None":
        """All in one transaction; or what is there instead of what `put` wants to replace.

        Without others `put` is written by itself, for half of the units. If the response to that is lost, the AWS
        client's repetition finds what the first one wrote.
        """
        with guarded():
            if not (along or writes):
                try:
                    through_conflicts(lambda: self._client.put_item(**put["Put"]))
                except ClientError as error:
                    return existing(error)
                return None
            try:
                through_conflicts(lambda: self._client.transact_write_items(TransactItems=[put, *along, *writes]))
            except ClientError as error:
                reasons = reasons_of(error)
                failed = [reason.get("Code") == "ConditionalCheckFailed" for reason in reasons]
                if failed[0]:
                    there_now: Mapping[str, Any] = reasons[0].get("Item", {})
                    return there_now
                of_along = slice(1, 1 + len(along))
                if any(failed[of_along]):
                    there = zip(reasons[of_along], failed[of_along], strict=True)
                    raise OvertakenError(
                        [reason.get("Item", {}) if fails else None for reason, fails in there]
                    ) from error
                raise LinkTakenError("another operation holds this link") from error
        return None

    def keep_payload(self, operation: Operation, expires_at: int) -> "TransactWriteItemTypeDef":
        """The write that keeps the payload of an operation that has succeeded, in an item of its own that expires."""
        item = {"payload": operation.payload, "tenant": operation.tenant, "expires_at": expires_at}
        return {"Put": {"TableName": self._table, "Item": {**key_of(_kept(operation)), **serialize(item)}}}

    def erase(self, there: Operation) -> None:
        """Delete an operation, what is kept of its payload, and its exchanges.

        Raises OvertakenError if it was changed since; StorageError.
        """
        with guarded():
            try:
                writes = [
                    self.delete(there),
                    self.drop_payload(there),
                    self.drop_changed(there),
                    *self.exchanges.drops(there),
                ]
                self._client.transact_write_items(TransactItems=writes)
            except ClientError as error:
                raise OvertakenError([reasons_of(error)[0].get("Item", {})]) from None

    def kept_payload(self, operation: Operation) -> str | None:
        """Return what `keep_payload` wrote; None if there is nothing, or no longer. Raises StorageError."""
        with guarded():
            response = self._client.get_item(TableName=self._table, Key=key_of(_kept(operation)), ConsistentRead=True)
        return str(deserialize(response["Item"])["payload"]) if "Item" in response else None

    def drop_payload(self, operation: Operation) -> "TransactWriteItemTypeDef":
        """The write that deletes what `keep_payload` wrote."""
        return {"Delete": {"TableName": self._table, "Key": key_of(_kept(operation))}}

    def note_waiter(self, operation_id: str, waiter: str) -> "TransactWriteItemTypeDef":
        """The write that makes `waiter` one of those that this operation wakes.

        It fails, and with it its transaction, if the operation is not on its way, or if enough others wait for it.
        """
        states = _values((State.SENDING, State.WAITING, State.UNCONFIRMED, State.NEEDS_REVIEW))
        return {
            "Update": {
                "TableName": self._table,
                "Key": key_of(operation_id),
                "UpdateExpression": "ADD waiters :waiter",
                "ConditionExpression": f"#state IN ({', '.join(states)}) "
                "AND (attribute_not_exists(waiters) OR size(waiters) < :most)",
                "ExpressionAttributeNames": {"#state": "state"},
                "ExpressionAttributeValues": serialize({**states, ":waiter": {waiter}, ":most": MOST_WAITERS}),
            }
        }

    def wake(
        self, operation_id: str, tenant: str, now: int, *, due_at: int, lent_until: int | None
    ) -> Operation | None:
        """Make a tenant's operation due that waits for a later time than now, unless it is on a queue.

        Return it if it was made due, lent to whoever sends its message if that is asked for. Raises StorageError.
        """
        lend = ", lent_until = :lent" if lent_until else ""
        with guarded():
            try:
                response = through_conflicts(
                    lambda: self._client.update_item(
                        TableName=self._table,
                        Key=key_of(operation_id),
                        UpdateExpression=f"SET due_at = :due_at, due = :due{lend}",
                        ConditionExpression="#state = :waiting AND due_at > :now AND attribute_not_exists(lent_until) "
                        "AND tenant = :tenant",
                        ExpressionAttributeNames={"#state": "state"},
                        ExpressionAttributeValues=serialize(
                            {
                                ":now": now,
                                ":due_at": due_at,
                                ":due": timed(tenant, due_at),
                                ":tenant": tenant,
                                ":waiting": State.WAITING.value,
                                ":lent": lent_until,
                            }
                        ),
                        ReturnValues="ALL_NEW",
                    )
                )
            except ClientError as error:
                existing(error)
                return None
        return as_operation(response["Attributes"])

    def lend(self, due: Due, until: int, sent_by: int) -> bool:
        """Lend it to a message that is sent by `sent_by` and lives `until`; False if it is not due any more.

        It is due again at `sent_by`, unless `extend` says that there is a message. So it waits no longer than that if
        whoever lent it dies before it has sent the message, or if the response of this call was lost: then this is
        False, or raises StorageError, although it is lent.

        A message that is taken up after its lending is over does no harm. `claim` takes an operation only if it is due,
        or if its `lent_until` is the message's; it removes `lent_until`, and a later lending has a later one. So what
        such a message finds was lent again, is being sent or has ended, and nothing is done; or it is due, and is sent
        once. Raises StorageError.
        """
        return self._move(due, due.due_at, "SET due_at = :to, due = :due, lent_until = :until", sent_by, until=until)

    def extend(self, due: Due, until: int, sent_by: int) -> bool:
        """There is a message that lives `until`: it is due again only then. Raises StorageError.

        False if the message was taken up already, or the operation was lent to another one since.
        """
        return self._move(due, sent_by, "SET due_at = :to, due = :due", until, until=until, lent=True)

    def take_back(self, due: Due, until: int, sent_by: int) -> bool:
        """It was lent `until`, but there is no message, so it is due as before. Raises StorageError."""
        change = "SET due_at = :to, due = :due REMOVE lent_until"
        return self._move(due, sent_by, change, due.due_at, until=until, lent=True)

    def hasten(self, there: Operation, after: Operation) -> bool:
        """Let what waits be due when `after` is, with its attempts. Raises StorageError.

        Return False if it has changed meanwhile, or is on a queue.
        """
        due_at, lend = after.due_at or 0, ", lent_until = :lent" if after.lent_until else ""
        values: dict[str, object] = {
            ":attempts": [one.model_dump(mode="json", exclude_none=True) for one in after.attempts],
            ":to": due_at,
            ":due": timed(there.tenant, due_at),
            ":lent": after.lent_until,
            ":then": there.due_at or 0,
            ":state": there.state.value,
            ":lease": there.lease or "",
        }
        unchanged = "#state = :state AND #lease = :lease AND due_at = :then AND attribute_not_exists(held)"
        update = self.update(
            there.operation_id,
            f"SET due_at = :to, due = :due, attempts = :attempts{lend}",
            f"{unchanged} AND attribute_not_exists(lent_until)",
            values,
        )["Update"]
        with guarded():
            try:
                through_conflicts(lambda: self._client.update_item(**update))
            except ClientError as error:
                item = existing(error)
                return bool(item) and as_operation(item).attempts == after.attempts
        return True

    def _move(self, due: Due, then: int, change: str, to: int, *, until: int, lent: bool = False) -> bool:
        """Change when an operation is due that is due at `then`, and that is `lent` until `until`."""
        values: dict[str, object] = {":to": to, ":due": timed(due.tenant, to), ":then": then}
        if lent or ":until" in change:
            values[":until"] = until
        with guarded():
            try:
                self._client.update_item(
                    TableName=self._table,
                    Key=key_of(due.operation_id),
                    UpdateExpression=change,
                    ConditionExpression="due_at = :then" + (" AND lent_until = :until" if lent else ""),
                    ExpressionAttributeValues=serialize(values),
                )
            except ClientError as error:
                existing(error)
                return False
        return True


def _kept(operation: Operation) -> str:
    """The id of the item that keeps an operation's payload. No operation has such an id."""
    return f"{operation.operation_id}#payload"


def _unchanged(there: Operation) -> _Condition:
    """The condition that an operation is in the same state, under the same lease, and held by the same ones."""
    parts, values = (
        ["#state = :there"],
        {":there": there.state.value, ":lease": there.lease, ":held": there.held or None},
    )
    parts.append("#lease = :lease" if there.lease else "attribute_not_exists(#lease)")
    parts.append("held = :held" if there.held else "attribute_not_exists(held)")
    return {
        "ConditionExpression": " AND ".join(parts),
        "ExpressionAttributeNames": {"#state": "state", "#lease": "lease"},
        "ExpressionAttributeValues": serialize(values),
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def _values(states: Iterable[State]) -> dict[str, object]:
    return {f":state{number}": state.value for number, state in enumerate(states)}

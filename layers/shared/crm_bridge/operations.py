"""The operation record and its table. What a state means and which one follows is the engine's business."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import batched, count
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict, overload

from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict

from crm_bridge.dynamodb import deserialize, existing, guarded, serialize, through_conflicts
from crm_bridge.errors import Event, LinkTakenError, OvertakenError, StorageError
from crm_bridge.ids import canonical_key
from crm_bridge.links import Identity

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import (
        AttributeValueTypeDef,
        PutTypeDef,
        QueryInputTypeDef,
        TransactWriteItemTypeDef,
    )

    from crm_bridge import responses

DUE_INDEX = "due"
DUE_PAGE = 250
MOST_DUE = 2000
"""Entries of one tenant that `due` reads in each shard, so that a run does not grow with a tenant's backlog."""
LISTING_INDEX = "listing"
LISTING_BATCH = 1000
BATCH = 100
"""So many items DynamoDB gives at once by their keys."""
MOST_QUERIES = 10
"""Queries for one page after the first of each shard, if few of the operations are in this state and of this flow."""
MOST_WAITERS = 20
"""Operations that one operation wakes when it has ended; more than these wait for their own next attempt."""
SHARDS = "01234567"
"""Partitions of the due index. A new event writes two entries, and a partition takes 1,000 writes in a second."""
LISTING_SHARDS = "0123"
"""Partitions of the listing index for each tenant. A new event writes one entry."""
ERASED = "(erased)"
"""What the lists show in place of the event key of an operation whose data were erased."""
PERSON = "!"
"""Under this in place of its tenant the due index holds what needs a person. It sorts before all names."""
LATEST = 9_999_999_999
"""Epoch seconds; times in the keys of both indexes have ten digits."""


class State(StrEnum):
    SENDING = "sending"
    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    WAITING = "waiting"
    UNCONFIRMED = "unconfirmed"
    NEEDS_REVIEW = "needs_review"


LISTED = frozenset({State.SUCCEEDED, State.REJECTED, State.NEEDS_REVIEW})
"""States that the listing index holds. It is written when an operation settles; the others are in the due index."""


class Attempt(BaseModel):
    """One thing that was tried for an operation, for the person who asks why."""

    model_config = ConfigDict(frozen=True)

    at: int
    """Epoch seconds at which it was over."""
    event: Event
    reason: str = ""
    status: int | None = None
    """The vendor's HTTP status, if it gave one."""

    def to_response(self) -> "responses.Attempt":
        return {"at": as_time(self.at), "event": self.event, "reason": self.reason, "vendor_status": self.status}


class Candidate(BaseModel):
    """A record at the vendor that may be what an operation made, for the person who decides."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    """As the vendor shows it, cut. It may be a customer's, so it is protected as the payload is."""
    created_at: str | None = None
    """As the vendor shows it, in ISO 8601; without a zone if the vendor gives none."""

    def to_response(self, *, name: bool) -> "responses.Candidate":
        shown: responses.Candidate = {"id": self.id, "created_at": self.created_at}
        return {**shown, "name": self.name} if name else shown


class OperationSummary(BaseModel):
    """What a list of operations shows. All times are epoch seconds. The listing index projects exactly this."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    operation_id: str
    flow: str
    event_key: str
    state: State
    last_attempt: Attempt | None = None
    due_at: int | None = None
    created_at: int
    updated_at: int

    @property
    def place(self) -> tuple[str, int]:
        """Where a list goes on behind it, see `Operations.listed`."""
        return self.operation_id, self.updated_at if self.state in LISTED else self.due_at or 0

    def to_response(self) -> "responses.OperationSummary":
        """Return it as an element of a list."""
        return {
            "operation_id": self.operation_id,
            "flow": self.flow,
            "event_key": self.event_key,
            "state": self.state,
            "last_attempt": self.last_attempt.to_response() if self.last_attempt else None,
            "due_at": as_time(self.due_at),
            "created_at": as_time(self.created_at),
            "updated_at": as_time(self.updated_at),
        }


class Operation(OperationSummary):
    """One command on its way.

    `lease` is the token of whoever claimed it last. `due_at` is when the bridge must look at the operation again; while
    it is being sent, that is when its lease expires. `lent_until` is set while it belongs to a message on a queue, and
    only the message that names the same time may take it up before it is due.
    `was` is the state out of which it was claimed. `first_sent_at` bounds what a look-up may link; `unconfirmed_since`,
    once set, says that a sending may have been done, and bounds how long the vendor's search may lag behind.
    `deferred_at` is when the vendor last asked to send it later, if no look-up since has found that nothing was done.
    `candidates` are the records at the vendor from which a person chooses. `sent_to` is where it went, so that it is
    not looked for elsewhere. `mapping` names what made the payload out of what the CRM sent; `links` are those that it
    holds. `notifies` says that its tenant is told when it settles; see `webhooks`. `waiters` are the operations that
    wait for its end. `held` are the operations that this one waits for whatever its state is, and `holds` those that
    wait for it; `reserved` is for what it was made or is kept.
    """

    tenant: str
    function: str
    """The Lambda function that sends it, which knows its flow."""
    fingerprint: str
    payload: str | None = None
    result: str | None = None
    attempts: tuple[Attempt, ...] = ()
    tries: int = 0
    lease: str | None = None
    was: State | None = None
    lent_until: int | None = None
    first_sent_at: int | None = None
    unconfirmed_since: int | None = None
    deferred_at: int | None = None
    candidates: tuple[Candidate, ...] | None = None
    sent_to: str | None = None
    mapping: str | None = None
    links: tuple[tuple[Identity, Identity], ...] = ()
    held: frozenset[str] = frozenset()
    holds: tuple[str, ...] = ()
    reserved: str | None = None
    expires_at: int | None = None
    notifies: bool = False
    waiters: frozenset[str] = frozenset()

    @property
    def shard(self) -> str:
        """The partition of the due index in which it is while it is unfinished."""
        return _shard(self.operation_id, SHARDS)

    @property
    def summary(self) -> OperationSummary:
        return OperationSummary.model_construct(**{name: getattr(self, name) for name in OperationSummary.model_fields})

    @property
    def is_erased(self) -> bool:
        """Whether only the id and the state are left of it, see `Engine.erase`."""
        # An event may have any key, but then it has a fingerprint; the event of a reserved pair has none, but its key.
        return self.event_key == ERASED and not self.fingerprint

    @property
    def is_undone(self) -> bool:
        """Whether it waits and was surely never done."""
        return self.state is State.WAITING and self.unconfirmed_since is None and self.deferred_at is None

    def candidates_response(self, *, names: bool) -> "list[responses.Candidate]":
        return [candidate.to_response(name=names) for candidate in self.candidates or ()]

    def to_response(self) -> "responses.Operation":
        """Return it without its payload, which not everybody may see."""
        return {
            **super().to_response(),
            "attempts": [attempt.to_response() for attempt in self.attempts],
            "mapping": self.mapping,
            "result": json.loads(self.result) if self.result else None,
            "links": [[end.to_response() for end in link] for link in self.links],
        }


class Due(NamedTuple):
    """An operation that is to be taken up, by which function, and since when (epoch seconds)."""

    operation_id: str
    tenant: str
    function: str
    due_at: int


type _Place = tuple[float, int]
"""Where an entry comes among those of all partitions: a time, and the partition's number."""
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


class _Index(NamedTuple):
    """An index whose entries of one kind are spread over partitions and sorted by a prefix and a time."""

    name: str
    key: str
    sort: str
    partitions: Sequence[str]
    prefix: str
    newest_first: bool

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


def operation_id(tenant: str, flow: str, event_key: str) -> str:
    """The id under which an event is known: the same event gives the same id, in whichever function it arrives.

    The same is what has the same ids, in whatever form.
    """
    digest = hashlib.sha256(f"{tenant}\0{flow}\0{canonical_key(event_key)}".encode()).hexdigest()
    return f"op_{digest[:32]}"


@overload
def as_time(seconds: int) -> str: ...
@overload
def as_time(seconds: None) -> None: ...
@overload
def as_time(seconds: int | None) -> str | None: ...
def as_time(seconds: int | None) -> str | None:
    """Return epoch seconds as the API shows them: ISO 8601 in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


def fingerprint(payload: str) -> str:
    return hashlib.sha256(payload.encode()).hexdigest()


@dataclass(frozen=True)
class Claim:
    """`won`: the caller holds the lease of `operation`. Else `operation` is what the table holds instead."""

    won: bool
    operation: Operation


class Operations:
    """The operation table. One instance per execution environment; threads may share it.

    A conditional write whose answer got lost is repeated by the AWS client, and then fails on its own first success.
    Every method therefore compares the lease that it wrote before it believes to have lost.
    """

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def get(self, operation_id: str) -> Operation | None:
        """Raises StorageError."""
        with guarded():
            answer = self._client.get_item(TableName=self._table, Key=_key(operation_id), ConsistentRead=True)
        return as_operation(answer["Item"]) if "Item" in answer else None

    def many(self, operation_ids: Sequence[str]) -> dict[str, Operation]:
        """Those of them that there are, by their ids. Raises StorageError."""
        found = {}
        for some in batched(dict.fromkeys(operation_ids), BATCH, strict=False):
            keys: Sequence[Mapping[str, Any]] = [_key(one) for one in some]
            while keys:
                with guarded():
                    answer = self._client.batch_get_item(
                        RequestItems={self._table: {"Keys": keys, "ConsistentRead": True}}
                    )
                for item in answer["Responses"].get(self._table, ()):
                    operation = as_operation(item)
                    found[operation.operation_id] = operation
                unprocessed = answer["UnprocessedKeys"]
                left = unprocessed[self._table]["Keys"] if self._table in unprocessed else ()
                if len(left) == len(keys):
                    raise StorageError("The bridge's storage is throttled. Send the same request again.")
                keys = left
        return found

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
            "Item": _item(operation),
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
                answer = through_conflicts(lambda: self._client.put_item(**put, ReturnValues="ALL_OLD"))
            except ClientError as error:
                there = as_operation(existing(error))
                return Claim(there.lease == operation.lease, there)
        if "Attributes" in answer:
            replaced = as_operation(answer["Attributes"])
            operation = operation.model_copy(update={"attempts": replaced.attempts})
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
            ":due": _timed(tenant, until),
            ":lent": lent_until or 0,
        }
        with guarded():
            try:
                answer = through_conflicts(
                    lambda: self._client.update_item(
                        TableName=self._table,
                        Key=_key(operation_id),
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
        return Claim(True, as_operation(answer["Attributes"]))

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
        return {"Put": {"TableName": self._table, "Item": _item(operation)}}

    def replaced(self, there: Operation, after: Operation) -> "TransactWriteItemTypeDef":
        """The write that puts `after` in the place of `there`, if nobody has changed that since."""
        put: PutTypeDef = {"TableName": self._table, "Item": _item(after), **_unchanged(there)}
        return {"Put": put}

    def delete(self, there: Operation) -> "TransactWriteItemTypeDef":
        """The write that deletes `there`, if nobody has changed that since."""
        return {"Delete": {"TableName": self._table, "Key": _key(there.operation_id), **_unchanged(there)}}

    def update(
        self, operation_id: str, expression: str, condition: str, values: Mapping[str, object]
    ) -> "TransactWriteItemTypeDef":
        """Return the write that changes a part of an operation; names that DynamoDB reserves have a `#`."""
        names = {f"#{name}": name for name in ("state", "result", "function") if f"#{name}" in expression + condition}
        return {
            "Update": {
                "TableName": self._table,
                "Key": _key(operation_id),
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
        for _ in range(MOST_WAITERS):
            there = self._saved(operation, writes, along, over, lease)
            is_ours = over is not None and (there.lease, there.state) == (lease, over)
            if not is_ours or len(there.waiters) <= len(operation.waiters):
                return there
            operation = operation.model_copy(update={"waiters": there.waiters})  # one was added since it was read
        return self._saved(operation, writes, along, over, lease)

    def _saved(
        self,
        operation: Operation,
        writes: "Sequence[TransactWriteItemTypeDef]",
        along: "Sequence[TransactWriteItemTypeDef]",
        over: State | None,
        lease: str | None,
    ) -> Operation:
        put: TransactWriteItemTypeDef = {
            "Put": {
                "TableName": self._table,
                "Item": _item(operation),
                "ConditionExpression": "attribute_not_exists(operation_id)",
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        }
        if over:
            waiters = len(operation.waiters)  # none is ever taken out, so their number says whether they are the same
            same = "size(waiters) = :waiters" if waiters else "attribute_not_exists(waiters)"
            put["Put"] |= {
                "ConditionExpression": f"#lease = :lease AND #state = :over AND {same}",
                "ExpressionAttributeNames": {"#lease": "lease", "#state": "state"},
                "ExpressionAttributeValues": serialize(
                    {":lease": lease, ":over": over.value, ":waiters": waiters or None}
                ),
            }
        item = self._write_all(put, along, writes)
        return as_operation(item) if item else operation

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
            except self._client.exceptions.TransactionCanceledException as error:
                reasons = error.response["CancellationReasons"]
                failed = [reason.get("Code") == "ConditionalCheckFailed" for reason in reasons]
                if failed[0]:
                    return reasons[0].get("Item", {})
                of_along = slice(1, 1 + len(along))
                if any(failed[of_along]):
                    there = zip(reasons[of_along], failed[of_along], strict=True)
                    raise OvertakenError(
                        [reason.get("Item", {}) if fails else None for reason, fails in there]
                    ) from error
                if any(failed):
                    raise LinkTakenError("another operation holds this link") from error
                raise
        return None

    def keep_payload(self, operation: Operation, expires_at: int) -> "TransactWriteItemTypeDef":
        """The write that keeps the payload of an operation that has succeeded, in an item of its own that expires."""
        item = {"payload": operation.payload, "tenant": operation.tenant, "expires_at": expires_at}
        return {"Put": {"TableName": self._table, "Item": {**_key(_kept(operation)), **serialize(item)}}}

    def erase(self, there: Operation) -> None:
        """Delete an operation and what is kept of its payload.

        Raises OvertakenError if it was changed since; StorageError.
        """
        with guarded():
            try:
                self._client.transact_write_items(TransactItems=[self.delete(there), self.drop_payload(there)])
            except self._client.exceptions.TransactionCanceledException as error:
                reasons = error.response["CancellationReasons"]
                if reasons[0].get("Code") != "ConditionalCheckFailed":
                    raise
                raise OvertakenError([reasons[0].get("Item", {})]) from None

    def kept_payload(self, operation: Operation) -> str | None:
        """Return what `keep_payload` wrote; None if there is nothing, or no longer. Raises StorageError."""
        with guarded():
            answer = self._client.get_item(TableName=self._table, Key=_key(_kept(operation)), ConsistentRead=True)
        return str(deserialize(answer["Item"])["payload"]) if "Item" in answer else None

    def drop_payload(self, operation: Operation) -> "TransactWriteItemTypeDef":
        """The write that deletes what `keep_payload` wrote."""
        return {"Delete": {"TableName": self._table, "Key": _key(_kept(operation))}}

    def note_waiter(self, operation_id: str, waiter: str) -> "TransactWriteItemTypeDef":
        """The write that makes `waiter` one of those that this operation wakes.

        It fails, and with it its transaction, if the operation is not on its way, or if enough others wait for it.
        """
        states = _values((State.SENDING, State.WAITING, State.UNCONFIRMED, State.NEEDS_REVIEW))
        return {
            "Update": {
                "TableName": self._table,
                "Key": _key(operation_id),
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
                answer = through_conflicts(
                    lambda: self._client.update_item(
                        TableName=self._table,
                        Key=_key(operation_id),
                        UpdateExpression=f"SET due_at = :due_at, due = :due{lend}",
                        ConditionExpression="#state = :waiting AND due_at > :now AND attribute_not_exists(lent_until) "
                        "AND tenant = :tenant",
                        ExpressionAttributeNames={"#state": "state"},
                        ExpressionAttributeValues=serialize(
                            {
                                ":now": now,
                                ":due_at": due_at,
                                ":due": _timed(tenant, due_at),
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
        return as_operation(answer["Attributes"])

    def listed(
        self, tenant: str, state: State, *, flow: str | None, limit: int, after: tuple[str, int] | None
    ) -> tuple[list[OperationSummary], tuple[str, int] | None]:
        """Return a page of a tenant's operations in one state; and where to go on, if there may be more.

        Those that are settled come with the latest changed first, the others with the first due first. `after` is the
        id of the one before, and when it changed or is due. The indexes show a change a moment later, what changes
        between two pages may be on both or on neither, and a page may be short. Raises StorageError.
        """
        wanted = {"flow": flow} if flow else {}
        if state in LISTED:
            keys = [f"{tenant}#{shard}" for shard in LISTING_SHARDS]
            index = _Index(LISTING_INDEX, "listed", "standing", keys, f"{state}#", newest_first=True)
            entries, going_on = self._page(index, wanted, limit, after)
            return [OperationSummary.model_validate(entry) for entry in entries], going_on
        index = _Index(DUE_INDEX, "due_shard", "due", SHARDS, f"{tenant}#", newest_first=False)
        entries, going_on = self._page(index, {**wanted, "state": state.value}, limit, after)
        ids = [str(entry["operation_id"]) for entry in entries]
        there = self.many(ids)
        return [there[one].summary for one in ids if one in there and there[one].state is state], going_on

    def _page(
        self, index: _Index, wanted: Mapping[str, str], limit: int, after: tuple[str, int] | None
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
            return sure[:limit], (str(last["operation_id"]), _time_of(last[index.sort]))
        return sure, behind.last

    def _partition(
        self, index: _Index, number: int, wanted: Mapping[str, str], limit: int, after: tuple[str, int] | None
    ) -> _Partition:
        first, last = index.bounds(number, after)
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
        partition = _Partition(number, query)
        if first > last:
            partition.end()
        return partition

    def _read(self, index: _Index, partition: _Partition) -> list[tuple[_Place, dict[str, object]]]:
        """Return the next entries of a partition, each with its place."""
        with guarded():
            answer = self._client.query(**partition.query)
        entries = [deserialize(item) for item in answer["Items"]]
        if "LastEvaluatedKey" in answer:
            partition.query |= {"ExclusiveStartKey": answer["LastEvaluatedKey"], "Limit": LISTING_BATCH}
            last = deserialize(answer["LastEvaluatedKey"])
            partition.last = (str(last["operation_id"]), _time_of(last[index.sort]))
            partition.reached = index.place(*partition.last)
        else:
            partition.end()
        return [(index.place(str(entry["operation_id"]), _time_of(entry[index.sort])), entry) for entry in entries]

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
                answer = self._client.query(**query)
            found = [_as_due(item) for item in answer["Items"]]
            read.update(one.tenant for one in found)
            yield [one for one in found if one.due_at <= now]
            if "LastEvaluatedKey" not in answer:
                return
            if found[-1].due_at > now or read[found[-1].tenant] >= MOST_DUE:
                after = f"{found[-1].tenant}#~"  # behind all times
                query.pop("ExclusiveStartKey", None)
            else:
                query["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def oldest_in_review(self, shard: str) -> int | None:
        """Since when the oldest operation of one shard has needed a person; None if there is none.

        In epoch seconds, for all tenants. Raises StorageError.
        """
        with guarded():
            answer = self._client.query(
                TableName=self._table,
                IndexName=DUE_INDEX,
                KeyConditionExpression="due_shard = :shard AND begins_with(due, :person)",
                ExpressionAttributeValues=serialize({":shard": shard, ":person": PERSON}),
                Limit=1,
            )
        return next((_time_of(deserialize(item)["due"]) for item in answer["Items"]), None)

    def lent(self, shard: str, tenant: str, now: int, until: int) -> Counter[str]:
        """Return how many operations of a tenant in one shard are lent, at most `until`, by function.

        Of a tenant with more than 1 MB of entries that are due by then, some 5,000, it is at least so many.
        Raises StorageError.
        """
        values = {":shard": shard, ":first": _timed(tenant, now + 1), ":last": _timed(tenant, until)}
        with guarded():
            answer = self._client.query(
                TableName=self._table,
                IndexName=DUE_INDEX,
                KeyConditionExpression="due_shard = :shard AND due BETWEEN :first AND :last",
                FilterExpression="attribute_exists(lent_until)",
                ExpressionAttributeValues=serialize(values),
            )
        return Counter(_as_due(item).function for item in answer["Items"])

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

    def hasten(self, operation: Operation, due_at: int) -> bool:
        """Let what waits be due then, instead of when it is; False if it has changed meanwhile, or is on a queue.

        Raises StorageError.
        """
        with guarded():
            try:
                self._client.update_item(
                    TableName=self._table,
                    Key=_key(operation.operation_id),
                    UpdateExpression="SET due_at = :to, due = :due",
                    ConditionExpression="due_at = :then AND #state = :state AND attribute_not_exists(lent_until)",
                    ExpressionAttributeNames={"#state": "state"},
                    ExpressionAttributeValues=serialize(
                        {
                            ":to": due_at,
                            ":due": _timed(operation.tenant, due_at),
                            ":then": operation.due_at or 0,
                            ":state": operation.state.value,
                        }
                    ),
                )
            except ClientError as error:
                existing(error)
                return False
        return True

    def _move(self, due: Due, then: int, change: str, to: int, *, until: int, lent: bool = False) -> bool:
        """Change when an operation is due that is due at `then`, and that is `lent` until `until`."""
        values: dict[str, object] = {":to": to, ":due": _timed(due.tenant, to), ":then": then}
        if lent or ":until" in change:
            values[":until"] = until
        with guarded():
            try:
                self._client.update_item(
                    TableName=self._table,
                    Key=_key(due.operation_id),
                    UpdateExpression=change,
                    ConditionExpression="due_at = :then" + (" AND lent_until = :until" if lent else ""),
                    ExpressionAttributeValues=serialize(values),
                )
            except ClientError as error:
                existing(error)
                return False
        return True


def _key(operation_id: str) -> "dict[str, AttributeValueTypeDef]":
    return {"operation_id": {"S": operation_id}}


def _kept(operation: Operation) -> str:
    """The id of the item that keeps an operation's payload. No operation has such an id."""
    return f"{operation.operation_id}#payload"


def standing(state: State, updated_at: int) -> str:
    """Sorts a tenant's operations in the listing index by state and time."""
    return _timed(state, updated_at)


def _timed(name: str, at: int) -> str:
    """A sort key: a tenant or a state, and a time."""
    return f"{name}#{at:010}"


def _time_of(sort_key: object) -> int:
    return int(str(sort_key).rpartition("#")[2])


def _shard(operation_id: str, shards: str) -> str:
    return shards[int(operation_id[-1], 16) % len(shards)]


def _as_due(item: "Mapping[str, AttributeValueTypeDef]") -> Due:
    entry = {name: str(value) for name, value in deserialize(item).items()}
    tenant, _, due_at = entry["due"].rpartition("#")
    return Due(entry["operation_id"], tenant, entry["function"], int(due_at))


class _Condition(TypedDict):
    ConditionExpression: str
    ExpressionAttributeNames: dict[str, str]
    ExpressionAttributeValues: "dict[str, AttributeValueTypeDef]"
    ReturnValuesOnConditionCheckFailure: Literal["ALL_OLD"]


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


def _item(operation: Operation) -> "dict[str, AttributeValueTypeDef]":
    item = operation.model_dump(mode="json", exclude_none=True)
    for name in ("waiters", "held"):
        item[name] = set(getattr(operation, name)) or None  # a list is no set to DynamoDB, and there is no empty set
    if operation.state in LISTED:
        item["listed"] = f"{operation.tenant}#{_shard(operation.operation_id, LISTING_SHARDS)}"
        item["standing"] = standing(operation.state, operation.updated_at)
    if operation.state is State.NEEDS_REVIEW:
        item["due_shard"] = operation.shard
        item["due"] = _timed(PERSON, operation.updated_at)
    elif operation.due_at is not None:
        item["due_shard"] = operation.shard
        item["due"] = _timed(operation.tenant, operation.due_at)
    return serialize(item)


def as_operation(item: "Mapping[str, AttributeValueTypeDef]") -> Operation:
    return Operation.model_validate(deserialize(item))

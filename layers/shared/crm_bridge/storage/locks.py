"""Locks: what all functions must know of something at a vendor that takes one change at a time.

One row says whose turn it is, what was applied last, and which sign-in the vendor refused. So changes are made one
after the other and in their order, and a password that was refused is not tried again, however many functions run. The
same holds for an address at which nobody wants to be told any more.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Self, cast

from botocore.exceptions import ClientError

from crm_bridge.storage.dynamodb import Reading, deserialize, existing, guarded, serialize, through_conflicts
from crm_bridge.storage.links import joined, parted

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef, UpdateTypeDef


class Note(NamedTuple):
    """Says that an operation is to apply something to `what` that happened or was asked for `at` (epoch microseconds).

    It is left with the turn, and taken away when the end of the turn is settled. So it stays if a function is killed.
    """

    operation_id: str
    at: int
    what: str

    def __str__(self) -> str:
        return joined(self.operation_id, str(self.at), self.what)

    @classmethod
    def read(cls, text: str) -> Self:
        operation_id, at, what = parted(text)
        return cls(operation_id, int(at), what)


@dataclass(frozen=True)
class Lock:
    """`holder` has the turn until `busy_until` (epoch milliseconds)."""

    holder: str
    busy_until: int
    refused: frozenset[str] = frozenset()
    """Stand for the credentials that the vendor refused, ever: a function may remember old ones for a while."""
    applied: Mapping[str, int] = field(default_factory=dict)
    """To what something was applied, and when that happened which was applied last (epoch microseconds)."""
    notes: frozenset[Note] = frozenset()
    found_by: str | None = None
    """The operation that found last what is changed here."""
    ended: int = 0
    """When a change was done last (epoch milliseconds)."""


class Locks:
    """The account table. One instance per execution environment; threads may share it. Its methods raise StorageError.

    The AWS client repeats a write whose response was lost, which may fail on its own first success; hence the holder.
    """

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def take_turn(
        self,
        tenant: str,
        name: str,
        *,
        holder: str,
        now: int,
        until: int,
        sign_in: str,
        notes: frozenset[Note] = frozenset(),
    ) -> Lock:
        """Give `holder` the turn, unless another has it or these credentials were refused: the response tells."""
        values: dict[str, object] = {
            ":holder": holder,
            ":until": until,
            ":now": now,
            ":nothing": {},
            ":sign_in": sign_in,
            ":notes": _texts(notes) or None,
        }
        with guarded():
            try:
                response = through_conflicts(
                    lambda: self._client.update_item(
                        TableName=self._table,
                        Key=_key(tenant, name),
                        UpdateExpression="SET holder = :holder, busy_until = :until, "
                        "applied = if_not_exists(applied, :nothing)" + (" ADD notes :notes" if notes else ""),
                        ConditionExpression="(attribute_not_exists(busy_until) OR busy_until <= :now) "
                        "AND NOT contains(refused, :sign_in)",
                        ExpressionAttributeValues=serialize(values),
                        ReturnValues="ALL_NEW",
                        ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    )
                )
            except ClientError as error:
                return read_lock(existing(error))
        return read_lock(response["Attributes"])

    def end_turn(
        self,
        tenant: str,
        name: str,
        holder: str,
        free_at: int,
        applied: Mapping[str, int] = MappingProxyType({}),
        notes: frozenset[Note] = frozenset(),
        *,
        refused: str | None = None,
    ) -> bool:
        """Let others take the turn from `free_at` on, and note what came of this one. False: it was over before."""
        update = self.ending(tenant, name, holder, free_at, applied, notes, refused=refused)
        with guarded():
            try:
                through_conflicts(lambda: self._client.update_item(**update))
            except ClientError as error:
                existing(error)
                return False
        return True

    def ending(
        self,
        tenant: str,
        name: str,
        holder: str,
        free_at: int,
        applied: Mapping[str, int],
        notes: frozenset[Note],
        *,
        refused: str | None = None,
        ended: int | None = None,
    ) -> "UpdateTypeDef":
        """Return the write that ends a turn and takes these notes away, for the transaction that settles."""
        changes, more = ["busy_until = :free_at"], ""
        values: dict[str, object] = {":holder": holder, ":free_at": free_at}
        names = {"#holder": "holder"}
        for number, (what, at) in enumerate(applied.items()):
            changes.append(f"applied.#to{number} = :at{number}")
            names[f"#to{number}"], values[f":at{number}"] = what, at
        if ended is not None:
            changes.append("ended = :ended")
            more += " REMOVE found_by"
            values[":ended"] = ended
        if refused:
            more += " ADD refused :refused"
            values[":refused"] = {refused}
        if notes:
            more += " DELETE notes :notes"
            values[":notes"] = _texts(notes)
        return {
            "TableName": self._table,
            "Key": _key(tenant, name),
            "UpdateExpression": f"SET {', '.join(changes)}{more}",
            "ConditionExpression": "#holder = :holder",
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": serialize(values),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }

    def reading(self, tenant: str, name: str) -> Reading[Lock]:
        """Return the row, for `read_at_once`; where there is none, it has no holder."""
        return Reading(self._table, _key(tenant, name), read_lock)

    # -------------------------------------------------------- writes for transactions in which more is marked

    def taking(
        self, tenant: str, name: str, notes: frozenset[Note], read: Lock, *, holder: str, until: int
    ) -> "UpdateTypeDef":
        """Return the write that gives `holder` the turn if nobody has had it since the row was `read`, nor ended it.

        Each turn has a holder of its own, and its end takes its notes away.
        """
        values: dict[str, object] = {":holder": holder, ":until": until, ":nothing": {}, ":notes": _texts(notes)}
        values |= {":was": read.holder or None, ":noted": _texts(read.notes) or None}
        return {
            "TableName": self._table,
            "Key": _key(tenant, name),
            "UpdateExpression": "SET holder = :holder, busy_until = :until, "
            "applied = if_not_exists(applied, :nothing) ADD notes :notes",
            "ConditionExpression": f"{'holder = :was' if read.holder else 'attribute_not_exists(holder)'} "
            f"AND {'notes = :noted' if read.notes else 'attribute_not_exists(notes)'}",
            "ExpressionAttributeValues": serialize(values),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }

    def beginning(
        self,
        tenant: str,
        name: str,
        note: Note,
        finders: Set[str],
        *,
        holder: str,
        now: int,
        until: int,
        others: frozenset[Note],
    ) -> "UpdateTypeDef":
        """Return the write that gives `holder` the turn for `note`, if it is free and nothing later was applied.

        No notes but `others` may be there, and nobody but `finders` may have found what is to be changed.
        """
        values: dict[str, object] = {":holder": holder, ":until": until, ":now": now, ":at": note.at, ":nothing": {}}
        values |= {":notes": _texts({note}), ":mine": _texts({note})}
        conditions = ["(attribute_not_exists(busy_until) OR busy_until <= :now)"]
        conditions.append("(attribute_not_exists(applied.#what) OR applied.#what <= :at)")
        if others:
            values |= {":others": _texts(others), ":all": _texts(others | {note})}
        conditions.append(
            f"(attribute_not_exists(notes) OR notes = :mine{' OR notes = :others OR notes = :all' if others else ''})"
        )
        return self._marking(
            tenant, name, "holder = :holder, busy_until = :until, ", conditions, values, finders, note.what
        )

    def noting(
        self, tenant: str, name: str, note: Note, finders: Set[str], *, holder: str | None = None
    ) -> "UpdateTypeDef":
        """Return the write that leaves `note`, if nobody but `finders` has found what is to be changed; for a `holder`,
        if it still has the turn."""
        values: dict[str, object] = {":notes": _texts({note}), ":nothing": {}}
        conditions = []
        if holder is not None:
            values[":holder"] = holder
            conditions.append("holder = :holder")
        return self._marking(tenant, name, "", conditions, values, finders)

    def _marking(
        self,
        tenant: str,
        name: str,
        changes: str,
        conditions: list[str],
        values: dict[str, object],
        finders: Set[str],
        what: str | None = None,
    ) -> "UpdateTypeDef":
        known = {f":finder{number}": finder for number, finder in enumerate(sorted(finders))}
        by = f" OR found_by IN ({', '.join(known)})" if known else ""
        conditions = [*conditions, f"(attribute_not_exists(found_by){by})"]
        update: UpdateTypeDef = {
            "TableName": self._table,
            "Key": _key(tenant, name),
            "UpdateExpression": f"SET {changes}applied = if_not_exists(applied, :nothing) ADD notes :notes",
            "ConditionExpression": " AND ".join(conditions),
            "ExpressionAttributeValues": serialize({**values, **known}),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if what:
            update["ExpressionAttributeNames"] = {"#what": what}
        return update

    def forgetting(self, tenant: str, name: str, note: Note) -> "UpdateTypeDef":
        """Return the write that takes `note` away where there is no turn that ends."""
        return {
            "TableName": self._table,
            "Key": _key(tenant, name),
            "UpdateExpression": "DELETE notes :notes",
            "ExpressionAttributeValues": serialize({":notes": _texts({note})}),
        }

    def finding(
        self, tenant: str, name: str, operation_id: str, *, since: int, now: int, notes: frozenset[Note]
    ) -> "UpdateTypeDef":
        """Return the write that says who has found something, if nobody changes it, and nobody has `since`.

        Only `notes` may be there. All times are in epoch milliseconds.
        """
        values: dict[str, object] = {":operation": operation_id, ":since": since, ":now": now}
        values[":notes"] = _texts(notes) or None
        return {
            "TableName": self._table,
            "Key": _key(tenant, name),
            "UpdateExpression": "SET found_by = :operation",
            "ConditionExpression": "(attribute_not_exists(busy_until) OR busy_until <= :now) "
            "AND (attribute_not_exists(ended) OR ended < :since) "
            f"AND {'notes = :notes' if notes else 'attribute_not_exists(notes)'}",
            "ExpressionAttributeValues": serialize(values),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }

    def erase(self, tenant: str, name: str, *, now: int) -> bool:
        """Delete what is kept of `name`; False if somebody has the turn. `now` is in epoch milliseconds."""
        with guarded():
            try:
                self._client.delete_item(
                    TableName=self._table,
                    Key=_key(tenant, name),
                    ConditionExpression="attribute_not_exists(busy_until) OR busy_until <= :now",
                    ExpressionAttributeValues=serialize({":now": now}),
                )
            except ClientError as error:
                existing(error)
                return False
        return True

    def has_refused(self, tenant: str, name: str, what: str) -> bool:
        """Return whether `what` was refused, ever, where nobody takes turns."""
        with guarded():
            response = self._client.get_item(TableName=self._table, Key=_key(tenant, name), ConsistentRead=True)
        return what in cast("set[str]", deserialize(response.get("Item", {})).get("refused", ()))

    def refuse(self, tenant: str, name: str, what: str) -> None:
        with guarded():
            self._client.update_item(
                TableName=self._table,
                Key=_key(tenant, name),
                UpdateExpression="ADD refused :refused",
                ExpressionAttributeValues=serialize({":refused": {what}}),
            )


def _key(tenant: str, name: str) -> "dict[str, AttributeValueTypeDef]":
    return serialize({"lock": joined(tenant, name)})


def read_lock(item: "Mapping[str, AttributeValueTypeDef]") -> Lock:
    plain = deserialize(item)
    return Lock(
        holder=str(plain.get("holder", "")),
        busy_until=int(str(plain.get("busy_until", 0))),
        refused=frozenset(cast("set[str]", plain.get("refused", ()))),
        applied=cast("dict[str, int]", plain.get("applied", {})),
        notes=frozenset(Note.read(text) for text in cast("set[str]", plain.get("notes", ()))),
        found_by=cast("str | None", plain.get("found_by")),
        ended=int(str(plain.get("ended", 0))),
    )


def _texts(notes: Set[Note]) -> set[str]:
    return {str(note) for note in notes}

"""Accounts: what all functions must know of something at a vendor that takes one change at a time.

One row says whose turn it is, what was applied last, and which sign-in the vendor refused. So changes are made one
after the other and in their order, and a password that was refused is not tried again, however many functions run. The
same holds for an address at which nobody wants to be told any more.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Self, cast

from botocore.exceptions import ClientError

from crm_bridge.dynamodb import deserialize, existing, guarded, serialize, through_conflicts
from crm_bridge.errors import (
    Event,
    HalfDoneError,
    MaybeDoneError,
    NotDoneError,
    SignInPausedError,
    SignInRefusedError,
    StorageError,
    UnavailableError,
    VendorError,
)
from crm_bridge.links import joined
from crm_bridge.operations import Operation, Operations, State
from crm_bridge.transport import AFTER_DEADLINE, SHORTEST_CALL

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef, TransactWriteItemTypeDef, UpdateTypeDef

    from crm_bridge.engine import Context


NO_SIGN_IN = "none"
"""Of turns whose sign-in is looked after elsewhere."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two questions whether the turn has come; each pause is longer than the one before."""
FINISHED = frozenset({State.SUCCEEDED, State.REJECTED})
"""What needs review is not: a person may send it again, or say that it shall not be done."""


class Note(NamedTuple):
    """That an operation is to apply something to `what` that happened or was asked for `at` (epoch microseconds).

    It is left with the turn, and taken away when the end of the turn is settled. So it stays if a function is killed.
    """

    operation_id: str
    at: int
    what: str

    def __str__(self) -> str:
        return joined(self.operation_id, str(self.at), self.what)

    @classmethod
    def read(cls, text: str) -> Self:
        operation_id, at, what = text.split("#")
        return cls(operation_id, int(at), what.replace("%23", "#").replace("%25", "%"))


@dataclass(frozen=True)
class Account:
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


@dataclass
class Turn:
    """A turn that somebody has, and how it ends: in the transaction that settles the operation. See `engine.Ending`."""

    turns: "Turns"
    account: Account
    notes: frozenset[Note]
    """Its own, and those of operations that are finished."""
    fresh: Mapping[str, int] = field(default_factory=dict)
    """To what it may be applied, and when that happened."""
    is_on_its_way: bool = False
    """Whether something that was sent may still arrive."""
    keeps_notes: bool = False
    is_over: bool = False

    def writes(self, settled: Operation, event: Event) -> "Sequence[TransactWriteItemTypeDef]":  # noqa: ARG002
        return self.ends(settled)

    def ends(self, settled: Operation, *, is_done: bool = False) -> "Sequence[TransactWriteItemTypeDef]":
        """The write that ends it. `is_done` tells whoever finds what was changed (see `Accounts.finding`)."""
        if self.is_over:
            return ()
        counts = settled.state is State.SUCCEEDED or settled.unconfirmed_since is not None
        ended = int(self.turns.clock() * 1000) if is_done else None
        return [{"Update": self.turns.accounts.ending(*self._end(counts), ended=ended)}]

    def adapts(self, event: Event, there: object) -> bool:  # noqa: ARG002 - whatever it is
        """Nothing is written of a turn that was over: its note stays until the operation has another."""
        self.is_over = True
        return event is not Event.DONE

    def wait_for_newer(self) -> None:
        """Raises NotYetError while a newer one is not finished whose function has had the turn and was killed."""
        turns = self.turns
        newer = [note for note in self.account.notes - self.notes if note.at > self.fresh.get(note.what, note.at)]
        for operation_id in {note.operation_id for note in newer}:
            operation = turns.operations.get(operation_id)
            if operation and operation.state not in FINISHED:
                turns.context.wait_for(operation, "a newer one is on its way, and comes first")
        self.notes |= frozenset(newer)

    @contextmanager
    def during(self, sign_in: str = NO_SIGN_IN) -> Iterator[None]:
        """Around what it is for: notes what may still arrive, and ends it where there is nothing that settles it."""
        try:
            yield
        except SignInRefusedError as error:  # it may be tried again at once, with other credentials
            is_paused = isinstance(error, SignInPausedError) and sign_in != NO_SIGN_IN
            self.end(refused=sign_in if is_paused else None)
            raise
        except MaybeDoneError as error:
            self.is_on_its_way = error.is_on_its_way
            if error.is_on_its_way:
                error.message += "; it is sent again, which does no harm"
            raise
        except UnavailableError as error:
            raise HalfDoneError(error.detail, vendor=self.turns.vendor) from error
        except VendorError:
            raise
        except Exception:
            self.end(is_defect=True)
            raise

    def end(self, *, refused: str | None = None, is_defect: bool = False) -> None:
        """End it now, because there is more to come, or nothing that could be settled."""
        if self.is_over:
            return
        self.is_over = True
        operation = self.turns.context.operation
        counts = is_defect or (operation is not None and operation.unconfirmed_since is not None)
        with suppress(StorageError):  # then it ends by itself
            self.turns.accounts.end_turn(*self._end(counts), refused=refused)

    def _end(self, counts: bool) -> tuple[str, str, str, int, Mapping[str, int], frozenset[Note]]:
        turns = self.turns
        free_at = self.account.busy_until if self.is_on_its_way else int((turns.clock() + turns.spacing) * 1000)
        applied = self.fresh if counts else {}
        notes = frozenset() if self.keeps_notes else self.notes
        return turns.tenant, turns.name, self.account.holder, free_at, applied, notes


@dataclass(frozen=True)
class Turns:
    """The turns at one thing at a vendor. `spacing`: seconds from the end of one to the begin of the next."""

    context: "Context"
    name: str
    vendor: str
    spacing: float = 0.0

    @property
    def accounts(self) -> "Accounts":
        return self.context.services.accounts

    @property
    def operations(self) -> Operations:
        return self.context.operations

    @property
    def clock(self) -> Callable[[], float]:
        return self.context.clock

    @property
    def tenant(self) -> str:
        return self.context.tenant

    def apply[T](self, what: str, occurred_at: int, work: Callable[[], T], *, sign_in: str = NO_SIGN_IN) -> T | None:
        """The same as `apply_each`, of one thing."""
        return self.apply_each({what: occurred_at}, lambda _: work(), sign_in=sign_in)

    def apply_each[T](
        self, times: Mapping[str, int], work: Callable[[Set[str]], T], *, sign_in: str = NO_SIGN_IN
    ) -> T | None:
        """What `work` gives when its turn has come. It gets those of `times` that nothing later was applied to.

        None if there are none of them. `times` are in epoch microseconds. The turn ends when the operation of the run
        is settled. `work` must be something that can be done twice without harm.
        `sign_in` stands for the credentials. Raises NotDoneError if the turn does not come in time, or a newer one that
        is not finished comes first, SignInPausedError if these credentials were refused before, StorageError, and what
        `work` raises.
        """
        if isinstance(self.context.ending, Turn):  # it was at something else
            self.context.ending.end()
        turn = self.begin(times, sign_in=sign_in)
        if not turn.fresh:
            return None
        turn.wait_for_newer()
        with turn.during(sign_in):
            return work(turn.fresh.keys())

    def begin(self, times: Mapping[str, int], *, sign_in: str = NO_SIGN_IN) -> Turn:
        """A turn, which ends with the operation of the run. Raises NotDoneError, SignInPausedError, StorageError."""
        operation = self.context.operation
        assert operation
        mine = frozenset(Note(operation.operation_id, at, what) for what, at in times.items())
        account = self._take(mine, sign_in)
        fresh = {what: at for what, at in times.items() if account.applied.get(what, 0) <= at}
        self.context.ending = turn = Turn(self, account, mine, fresh)
        return turn

    def _take(self, notes: frozenset[Note], sign_in: str) -> "Account":
        holder, deadline = uuid.uuid4().hex, self.context.deadline
        longest = SHORTEST_PAUSE
        while True:
            now = self.clock()
            until = now + deadline.remaining() + AFTER_DEADLINE
            account = self.accounts.take_turn(
                self.tenant,
                self.name,
                holder=holder,
                now=int(now * 1000),
                until=int(until * 1000),
                sign_in=sign_in,
                notes=notes,
            )
            if account.holder == holder:
                return account
            if sign_in in account.refused:
                raise SignInPausedError(
                    f"{self.vendor} refused this login. It is not used again until the tenant's secret changes",
                    vendor=self.vendor,
                )
            # Whoever has the turn mostly ends it long before its time.
            longest = min(2 * longest, LONGEST_PAUSE)
            pause = min(max(SHORTEST_PAUSE, account.busy_until / 1000 - now), longest)
            if deadline.remaining() - pause < 2 * SHORTEST_CALL:
                raise NotDoneError("others are being carried first", vendor=self.vendor)
            time.sleep(pause)


class Accounts:
    """The account table. One instance per execution environment; threads may share it. Its methods raise StorageError.

    A write whose answer got lost is repeated by the AWS client and may fail on its own first success; hence the holder.
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
    ) -> Account:
        """Give `holder` the turn, unless another has it or these credentials were refused: the answer tells."""
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
                answer = through_conflicts(
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
                return read_account(existing(error))
        return read_account(answer["Attributes"])

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
        """The write that ends a turn, for the transaction that settles its operation; it takes these notes away."""
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

    # -------------------------------------------------------- writes for transactions in which more is marked

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
        """The write that gives `holder` the turn for `note`, if it is free and nothing later was applied.

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
        """The write that leaves `note`, if nobody but `finders` has found what is to be changed; for a `holder`, if it
        still has the turn."""
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
        """The write that takes `note` away where there is no turn that ends."""
        return {
            "TableName": self._table,
            "Key": _key(tenant, name),
            "UpdateExpression": "DELETE notes :notes",
            "ExpressionAttributeValues": serialize({":notes": _texts({note})}),
        }

    def finding(
        self, tenant: str, name: str, operation_id: str, *, since: int, now: int, notes: frozenset[Note]
    ) -> "UpdateTypeDef":
        """The write that says who has found something, if nobody changes it, and nobody has `since`.

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
        """Whether `what` was refused, ever, where nobody takes turns."""
        with guarded():
            answer = self._client.get_item(TableName=self._table, Key=_key(tenant, name), ConsistentRead=True)
        return what in cast("set[str]", deserialize(answer.get("Item", {})).get("refused", ()))

    def refuse(self, tenant: str, name: str, what: str) -> None:
        with guarded():
            self._client.update_item(
                TableName=self._table,
                Key=_key(tenant, name),
                UpdateExpression="ADD refused :refused",
                ExpressionAttributeValues=serialize({":refused": {what}}),
            )


def _key(tenant: str, name: str) -> "dict[str, AttributeValueTypeDef]":
    return serialize({"account": joined(tenant, name)})


def read_account(item: "Mapping[str, AttributeValueTypeDef]") -> Account:
    plain = deserialize(item)
    return Account(
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

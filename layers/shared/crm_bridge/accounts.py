"""Accounts: what all functions must know of something at a vendor that takes one change at a time.

One row says whose turn it is, what was applied last, and which sign-in the vendor refused. So changes are made one
after the other and in their order, and a password that was refused is not tried again, however many functions run. The
same holds for an address at which nobody wants to be told any more.
"""

import time
import uuid
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from botocore.exceptions import ClientError

from crm_bridge.dynamodb import deserialize, existing, guarded, serialize
from crm_bridge.errors import (
    ContractBrokenError,
    MaybeDoneError,
    NotDoneError,
    SignInPausedError,
    StorageError,
    VendorError,
)
from crm_bridge.links import joined
from crm_bridge.transport import AFTER_DEADLINE, SHORTEST_CALL, Deadline

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef


NO_SIGN_IN = "none"
"""Of turns whose sign-in is looked after elsewhere."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two questions whether the turn has come; each pause is longer than the one before."""


@dataclass(frozen=True)
class Account:
    """`holder` has the turn until `busy_until` (epoch milliseconds)."""

    holder: str
    busy_until: int
    refused: frozenset[str] = frozenset()
    """Stand for the credentials that the vendor refused, ever: a function may remember old ones for a while."""
    applied: Mapping[str, int] = field(default_factory=dict)
    """To what something was applied, and when that happened which was applied last (epoch microseconds)."""


@dataclass(frozen=True)
class Turns:
    """The turns at one thing at a vendor. `spacing`: seconds from the end of one to the begin of the next."""

    accounts: "Accounts"
    clock: Callable[[], float]
    tenant: str
    name: str
    vendor: str
    spacing: float = 0.0

    def apply[T](
        self, what: str, occurred_at: int, work: Callable[[], T], *, deadline: Deadline, sign_in: str = NO_SIGN_IN
    ) -> T | None:
        """The same as `apply_each`, of one thing."""
        return self.apply_each({what: occurred_at}, lambda _: work(), deadline=deadline, sign_in=sign_in)

    def apply_each[T](
        self, times: Mapping[str, int], work: Callable[[Set[str]], T], *, deadline: Deadline, sign_in: str = NO_SIGN_IN
    ) -> T | None:
        """What `work` gives when its turn has come. It gets those of `times` that nothing later was applied to.

        None if there are none of them. `times` are in epoch microseconds.
        `work` must be something that can be done twice without harm, so it is never in doubt.
        `sign_in` stands for the credentials. Raises NotDoneError if the turn does not come in time, SignInPausedError
        if these credentials were refused before, StorageError, and what `work` raises.
        """
        account = self._take(deadline, sign_in)
        fresh = {what: at for what, at in times.items() if account.applied.get(what, 0) <= at}
        if not fresh:
            self._end(account)
            return None
        try:
            done = work(fresh.keys())
        except VendorError as error:
            with suppress(StorageError):  # then the turn ends by itself, and what went wrong is still to be told
                self._end_failed(account, error, fresh, sign_in)
            if isinstance(error, MaybeDoneError) and not isinstance(error, ContractBrokenError):
                message = f"{error.message}; it is sent again, which does no harm"
                raise NotDoneError(message, vendor=self.vendor, status=error.status) from None
            raise
        except Exception:
            with suppress(StorageError):
                self._end(account)
            raise
        if not self._end(account, applied=fresh):
            raise NotDoneError("its turn was over before it was done", vendor=self.vendor)
        return done

    def _take(self, deadline: Deadline, sign_in: str) -> "Account":
        holder = uuid.uuid4().hex
        longest = SHORTEST_PAUSE
        while True:
            now = self.clock()
            until = now + deadline.remaining() + AFTER_DEADLINE
            account = self.accounts.take_turn(
                self.tenant, self.name, holder=holder, now=int(now * 1000), until=int(until * 1000), sign_in=sign_in
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

    def _end_failed(self, account: "Account", error: VendorError, applied: Mapping[str, int], sign_in: str) -> None:
        if isinstance(error, SignInPausedError) and sign_in != NO_SIGN_IN:
            self._end(account, refused=sign_in)
        elif not isinstance(error, MaybeDoneError):
            self._end(account)
        elif isinstance(error, ContractBrokenError):
            self._end(account, applied=applied)  # it may have been, so nothing older may follow
        else:  # and what was sent may still be on its way, so nobody may follow until that is surely over
            self._end(account, applied=applied, free_at=account.busy_until)

    def _end(
        self,
        account: "Account",
        *,
        applied: Mapping[str, int] | None = None,
        refused: str | None = None,
        free_at: int = 0,
    ) -> bool:
        free_at = free_at or int((self.clock() + self.spacing) * 1000)
        return self.accounts.end_turn(
            self.tenant, self.name, holder=account.holder, free_at=free_at, applied=applied, refused=refused
        )


class Accounts:
    """The account table. One instance per execution environment; threads may share it. Its methods raise StorageError.

    A write whose answer got lost is repeated by the AWS client and may fail on its own first success; hence the holder.
    """

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def take_turn(self, tenant: str, name: str, *, holder: str, now: int, until: int, sign_in: str) -> Account:
        """Give `holder` the turn, unless another has it or these credentials were refused: the answer tells."""
        with guarded():
            try:
                answer = self._client.update_item(
                    TableName=self._table,
                    Key=_key(tenant, name),
                    UpdateExpression="SET holder = :holder, busy_until = :until, "
                    "applied = if_not_exists(applied, :nothing)",
                    ConditionExpression="(attribute_not_exists(busy_until) OR busy_until <= :now) "
                    "AND NOT contains(refused, :sign_in)",
                    ExpressionAttributeValues=serialize(
                        {":holder": holder, ":until": until, ":now": now, ":nothing": {}, ":sign_in": sign_in}
                    ),
                    ReturnValues="ALL_NEW",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except ClientError as error:
                return _account(existing(error))
        return _account(answer["Attributes"])

    def end_turn(
        self,
        tenant: str,
        name: str,
        *,
        holder: str,
        free_at: int,
        applied: Mapping[str, int] | None = None,
        refused: str | None = None,
    ) -> bool:
        """Let others take the turn from `free_at` on, and note what came of this one. False: it was over before."""
        changes, additions = ["busy_until = :free_at"], ""
        values: dict[str, object] = {":holder": holder, ":free_at": free_at}
        names = {"#holder": "holder"}
        for number, (what, at) in enumerate((applied or {}).items()):
            changes.append(f"applied.#to{number} = :at{number}")
            names[f"#to{number}"], values[f":at{number}"] = what, at
        if refused:
            additions = " ADD refused :refused"
            values[":refused"] = {refused}
        with guarded():
            try:
                self._client.update_item(
                    TableName=self._table,
                    Key=_key(tenant, name),
                    UpdateExpression=f"SET {', '.join(changes)}{additions}",
                    ConditionExpression="#holder = :holder",
                    ExpressionAttributeNames=names,
                    ExpressionAttributeValues=serialize(values),
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


def _account(item: "Mapping[str, AttributeValueTypeDef]") -> Account:
    plain = deserialize(item)
    return Account(
        holder=str(plain["holder"]),
        busy_until=int(str(plain["busy_until"])),
        refused=frozenset(cast("set[str]", plain.get("refused", ()))),
        applied=cast("dict[str, int]", plain["applied"]),
    )

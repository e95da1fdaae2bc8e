"""Accounts: what all functions must know of a tenant's account at a vendor before they call it.

One row says whose turn it is to call, which sign-in the vendor refused, and what was applied last. So calls are made
one after the other, and a password that was refused is not tried again, however many functions run.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from botocore.exceptions import ClientError

from crm_bridge.dynamodb import deserialize, existing, guarded, serialize
from crm_bridge.links import joined

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef


@dataclass(frozen=True)
class Account:
    """`holder` has the turn until `busy_until` (epoch milliseconds)."""

    holder: str
    busy_until: int
    refused: str | None = None
    """Stands for the credentials that the vendor refused."""
    applied: "Mapping[str, int]" = field(default_factory=dict)
    """To what something was applied, and when that happened which was applied last (epoch microseconds)."""


class Accounts:
    """The account table. One instance per execution environment; threads may share it. Its methods raise StorageError.

    A write whose answer got lost is repeated by the AWS client and may fail on its own first success; hence the holder.
    """

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def take_turn(self, tenant: str, vendor: str, *, holder: str, now: int, until: int, sign_in: str) -> Account:
        """Give `holder` the turn, unless another has it or these credentials were refused: the answer tells."""
        with guarded():
            try:
                answer = self._client.update_item(
                    TableName=self._table,
                    Key=_key(tenant, vendor),
                    UpdateExpression="SET holder = :holder, busy_until = :until, "
                    "applied = if_not_exists(applied, :nothing)",
                    ConditionExpression="(attribute_not_exists(busy_until) OR busy_until <= :now) "
                    "AND (attribute_not_exists(refused) OR refused <> :sign_in)",
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
        vendor: str,
        *,
        holder: str,
        free_at: int,
        applied: tuple[str, int] | None = None,
        refused: str | None = None,
    ) -> bool:
        """Let others take the turn from `free_at` on, and note what came of this one. False: it was over before."""
        changes = ["busy_until = :free_at"]
        values: dict[str, object] = {":holder": holder, ":free_at": free_at}
        names = {"#holder": "holder"}
        if applied:
            changes.append("applied.#to = :at")
            names["#to"], values[":at"] = applied
        if refused:
            changes.append("refused = :refused")
            values[":refused"] = refused
        with guarded():
            try:
                self._client.update_item(
                    TableName=self._table,
                    Key=_key(tenant, vendor),
                    UpdateExpression=f"SET {', '.join(changes)}",
                    ConditionExpression="#holder = :holder",
                    ExpressionAttributeNames=names,
                    ExpressionAttributeValues=serialize(values),
                )
            except ClientError as error:
                existing(error)
                return False
        return True


def _key(tenant: str, vendor: str) -> "dict[str, AttributeValueTypeDef]":
    return serialize({"account": joined(tenant, vendor)})


def _account(item: "Mapping[str, AttributeValueTypeDef]") -> Account:
    plain = deserialize(item)
    applied = cast("dict[str, int]", plain["applied"])
    refused = plain.get("refused")
    return Account(
        str(plain["holder"]), int(str(plain["busy_until"])), str(refused) if refused else None, dict(applied)
    )

"""Delete all data of a tenant out of the bridge's tables, for `crm-bridge tenant remove --purge`."""

from itertools import batched
from typing import TYPE_CHECKING

from cli.bridge import Bridge
from cli.progress import progress_of
from crm_bridge.storage.dynamodb import guarded, serialize
from crm_bridge.storage.operation import State

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef, WriteRequestUnionTypeDef

BATCH = 25
"""Items that one BatchWriteItem takes."""


def purge(bridge: Bridge, tenant: str) -> dict[str, int]:
    """Delete all items of a tenant, and return how many there were in each table.

    Operations that are being sent at the moment stay. Raises StorageError.
    """
    now = int(bridge.runtime.clock())
    return {table: _purged(bridge, table, tenant, now) for table in bridge.tables()}


def _purged(bridge: Bridge, table: str, tenant: str, now: int) -> int:
    with guarded():
        described = bridge.dynamodb.describe_table(TableName=table)["Table"]
    names = [key["AttributeName"] for key in described["KeySchema"]]
    is_by_tenant = names[0] in ("operation_id", "key_hash")  # the others have the tenant in front of their key
    values: dict[str, object] = {":tenant": tenant if is_by_tenant else f"{tenant}#"}
    condition = "#of = :tenant" if is_by_tenant else "begins_with(#of, :tenant)"
    attributes = {"#of": "tenant" if is_by_tenant else names[0]}
    if names[0] == "operation_id":
        condition += " AND (attribute_not_exists(#state) OR #state <> :sending OR due_at <= :now)"
        attributes["#state"] = "state"
        values |= {":sending": State.SENDING.value, ":now": now}
    pages = bridge.dynamodb.get_paginator("scan").paginate(
        TableName=table,
        ConsistentRead=True,
        FilterExpression=condition,
        ExpressionAttributeNames={**attributes, **{f"#key{number}": name for number, name in enumerate(names)}},
        ExpressionAttributeValues=serialize(values),
        ProjectionExpression=", ".join(f"#key{number}" for number in range(len(names))),
    )
    deleted = 0
    with guarded(), progress_of(bridge.output, f"reading {table}", described["ItemCount"]) as progress:
        for page in pages:
            for some in batched(page["Items"], BATCH, strict=False):
                _delete(bridge, table, some)
                deleted += len(some)
            progress.advance("read", page["ScannedCount"])
    return deleted


def _delete(bridge: Bridge, table: str, keys: "tuple[dict[str, AttributeValueTypeDef], ...]") -> None:
    left: list[WriteRequestUnionTypeDef] = [{"DeleteRequest": {"Key": key}} for key in keys]
    while left:
        left = [*bridge.dynamodb.batch_write_item(RequestItems={table: left})["UnprocessedItems"].get(table, ())]

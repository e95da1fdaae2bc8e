"""The due index, and the time to live."""

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import pytest

from crm_bridge.storage.dynamodb import deserialize, serialize
from local.template import Template

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import (
        TimeToLiveSpecificationTypeDef,
    )
from tests.integration.dynamodb.conftest import Tables, new_key

# ------------------------------------------------------------------ the due index, and the time to live


def test_index_shows_what_it_projects_tenant_after_tenant_and_the_oldest_first(tables: Tables) -> None:
    shard, keys = new_key(), [new_key() for _ in range(4)]
    due = dict(zip(keys, ["acme-2#0000000001", "acme#0000000900", "acme#0000002000", "zoe#0000000001"], strict=True))
    projected = {"flow": "create_site", "function": "create_site", "state": "waiting", "lent_until": 7}
    for key in keys:
        tables.put_operation(
            {"operation_id": key, "due_shard": shard, "due": due[key], "result": "{}", "due_at": 1, **projected}
        )
    shown = [{"operation_id": key, "due_shard": shard, "due": due[key], **projected} for key in keys]
    assert tables.due(shard, "!") == [shown[1], shown[2], shown[0], shown[3]]
    assert tables.due(shard, "acme#~") == [shown[0], shown[3]]
    assert tables.due(shard, "zoe#~") == []


def test_index_is_read_between_two_keys_and_goes_on_behind_an_entry_that_is_gone(tables: Tables) -> None:
    listed, keys = new_key(), [new_key() for _ in range(5)]
    for number, key in enumerate(keys):
        flow = ("create_site", "create_job")[number % 2]
        item = {"operation_id": key, "listed": listed, "standing": f"needs_review#000000000{number}", "flow": flow}
        tables.put_operation(item)

    def read(**more: object) -> list[str]:
        values = {
            ":key": listed,
            ":first": "needs_review#0000000001",
            ":last": "needs_review#0000000003",
            ":flow": "create_site",
        }
        asked: dict[str, object] = {
            "TableName": tables.operations,
            "IndexName": "listing",
            "KeyConditionExpression": "listed = :key AND standing BETWEEN :first AND :last",
            "FilterExpression": "#flow = :flow",
            "ExpressionAttributeNames": {"#flow": "flow"},
            "ExpressionAttributeValues": serialize(values),
            "ScanIndexForward": False,
            **more,
        }
        answer = tables.client.query(**asked)  # type: ignore[arg-type]
        return [str(deserialize(item)["operation_id"]) for item in answer["Items"]]

    assert read() == [keys[2]]
    place = {"listed": listed, "standing": "needs_review#0000000003", "operation_id": keys[3]}
    tables.client.delete_item(TableName=tables.operations, Key=serialize({"operation_id": keys[3]}))
    assert read(ExclusiveStartKey=serialize(place)) == [keys[2]]
    assert (
        read(ExclusiveStartKey=serialize({**place, "standing": "needs_review#0000000002", "operation_id": keys[2]}))
        == []
    )


def test_index_shows_an_item_only_from_when_it_is_given_a_due_time(tables: Tables) -> None:
    shard, key = new_key(), new_key()
    tables.put_operation({"operation_id": key, "flow": "create_site"})
    assert tables.due(shard, "!") == []

    def make_due(at: int) -> None:
        tables.client.update_item(
            TableName=tables.operations,
            Key=serialize({"operation_id": key}),
            UpdateExpression="SET due_shard = :shard, due = :due",
            ExpressionAttributeValues=serialize({":shard": shard, ":due": f"acme#{at:010}"}),
        )

    make_due(10)
    assert [item["due"] for item in tables.due(shard, "!")] == ["acme#0000000010"]
    make_due(20)
    assert [item["due"] for item in tables.due(shard, "!")] == ["acme#0000000020"]


def remove_due_time(tables: Tables, key: str) -> None:
    tables.client.update_item(
        TableName=tables.operations,
        Key=serialize({"operation_id": key}),
        UpdateExpression="REMOVE due_shard, due",
    )


def replace(tables: Tables, key: str) -> None:
    tables.put_operation({"operation_id": key, "flow": "create_site"})


def replace_in_transaction(tables: Tables, key: str) -> None:
    item = serialize({"operation_id": key, "flow": "create_site"})
    tables.client.transact_write_items(TransactItems=[{"Put": {"TableName": tables.operations, "Item": item}}])


@pytest.mark.parametrize("write", [remove_due_time, replace, replace_in_transaction])
def test_index_drops_an_item_when_its_due_time_is_gone(tables: Tables, write: Callable[[Tables, str], None]) -> None:
    shard, key = new_key(), new_key()
    tables.put_operation({"operation_id": key, "due_shard": shard, "due": "acme#0000000010", "flow": "create_site"})
    assert [item["operation_id"] for item in tables.due(shard, "!")] == [key]
    write(tables, key)
    assert tables.due(shard, "!") == []
    assert tables.operation(key) == {"operation_id": key, "flow": "create_site"}


def test_time_to_live_is_expires_at_when_it_is_set_as_the_template_says(tables: Tables) -> None:
    # CloudFormation sets it at AWS; that of neither endpoint does, so it is set here.
    resources = cast(
        "dict[str, dict[str, dict[str, TimeToLiveSpecificationTypeDef]]]", Template().stores({})["Resources"]
    )
    specification = resources["OperationsTable"]["Properties"]["TimeToLiveSpecification"]
    tables.client.update_time_to_live(TableName=tables.operations, TimeToLiveSpecification=specification)
    answer = tables.client.describe_time_to_live(TableName=tables.operations)
    assert answer["TimeToLiveDescription"] == {"AttributeName": "expires_at", "TimeToLiveStatus": "ENABLED"}

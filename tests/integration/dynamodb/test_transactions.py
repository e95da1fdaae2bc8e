"""Transactions under a race."""

from functools import partial
from typing import TYPE_CHECKING, cast

import pytest

from crm_bridge.storage.dynamodb import deserialize, serialize, through_conflicts

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import (
        AttributeValueTypeDef,
        TransactWriteItemTypeDef,
    )
from tests.integration.dynamodb.conftest import RACERS, ROUNDS, Item, Outcome, Tables, new_key, race, winner_of

# ------------------------------------------------------------------ transactions


def shared_link(key: str) -> dict[str, str]:
    return {"identity": f"{key}#site", "partner": "customer"}


def own_link(key: str, racer: int) -> dict[str, str]:
    return {"identity": f"{key}#customer{racer}", "partner": "site"}


def settlement(tables: Tables, key: str, racer: int) -> "list[TransactWriteItemTypeDef]":
    """An operation, a link row that no other racer writes, and one that all of them write."""
    return [
        put_in_transaction(tables.operations, "operation_id", {"operation_id": key, "racer": racer}),
        put_in_transaction(tables.links, "partner", {**own_link(key, racer), "racer": racer}),
        put_in_transaction(tables.links, "partner", {**shared_link(key), "racer": racer}),
    ]


def put_in_transaction(table: str, key_attribute: str, item: Item) -> "TransactWriteItemTypeDef":
    return {
        "Put": {
            "TableName": table,
            "Item": serialize(item),
            "ConditionExpression": f"attribute_not_exists({key_attribute})",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
    }


def settle_if_absent(tables: Tables, key: str, racer: int) -> Outcome:
    puts = settlement(tables, key, racer)
    try:
        through_conflicts(lambda: tables.client.transact_write_items(TransactItems=puts))
    except tables.client.exceptions.TransactionCanceledException as error:
        reasons = error.response["CancellationReasons"]
        assert [reason.get("Code") for reason in reasons] == [
            "ConditionalCheckFailed",
            "None",
            "ConditionalCheckFailed",
        ]
        held, link = (deserialize(cast("dict[str, AttributeValueTypeDef]", reasons[n]["Item"])) for n in (0, 2))
        assert link == {**shared_link(key), "racer": held["racer"]}
        return Outcome(False, held)
    return Outcome(True, {"operation_id": key, "racer": racer})


@pytest.mark.usefixtures("restless_threads")
def test_one_transaction_wins_and_nothing_else_is_written_when_twenty_race(tables: Tables) -> None:
    for key in [new_key() for _ in range(ROUNDS)]:
        winner = winner_of(race(partial(settle_if_absent, tables, key)))
        assert tables.operation(key) == {"operation_id": key, "racer": winner}
        rows = tables.link_rows([shared_link(key), *(own_link(key, racer) for racer in range(RACERS))])
        expected = [{**own_link(key, winner), "racer": winner}, {**shared_link(key), "racer": winner}]
        assert sorted(rows, key=lambda row: str(row["identity"])) == expected


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_transaction_writes_nothing_when_one_condition_is_false(tables: Tables, failing: int) -> None:
    key = new_key()
    puts = settlement(tables, key, 1)
    tables.client.transact_write_items(TransactItems=[puts[failing]])
    with pytest.raises(tables.client.exceptions.TransactionCanceledException) as caught:
        tables.client.transact_write_items(TransactItems=puts)
    reasons = caught.value.response["CancellationReasons"]
    expected = ["ConditionalCheckFailed" if number == failing else "None" for number in range(3)]
    assert [reason.get("Code") for reason in reasons] == expected
    assert reasons[failing]["Item"] == puts[failing]["Put"]["Item"]
    assert (tables.operation(key) is not None) == (failing == 0)
    links = [own_link(key, 1), shared_link(key)]
    assert [len(tables.link_rows([link])) for link in links] == [failing == 1, failing == 2]

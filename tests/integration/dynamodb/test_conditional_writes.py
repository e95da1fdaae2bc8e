"""Conditional writes under a race."""

from functools import partial
from typing import TYPE_CHECKING, cast

import pytest
from botocore.exceptions import ClientError

from crm_bridge.storage.dynamodb import deserialize, serialize

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import (
        AttributeValueTypeDef,
    )
from tests.integration.dynamodb.conftest import RACERS, ROUNDS, Item, Outcome, Tables, new_key, race, winner_of

# ------------------------------------------------------------------ races


def put_if_absent(tables: Tables, key: str, racer: int) -> Outcome:
    item = {"operation_id": key, "racer": racer}
    try:
        tables.client.put_item(
            TableName=tables.operations,
            Item=serialize(item),
            ConditionExpression="attribute_not_exists(operation_id)",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    except ClientError as error:
        return Outcome(False, in_the_way(error))
    return Outcome(True, item)


def update_if_waiting(tables: Tables, key: str, racer: int) -> Outcome:
    try:
        answer = tables.client.update_item(
            TableName=tables.operations,
            Key=serialize({"operation_id": key}),
            UpdateExpression="SET #state = :sending, racer = :racer",
            ConditionExpression="#state = :waiting",
            ExpressionAttributeNames={"#state": "state"},
            ExpressionAttributeValues=serialize({":sending": "sending", ":waiting": "waiting", ":racer": racer}),
            ReturnValues="ALL_NEW",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    except ClientError as error:
        return Outcome(False, in_the_way(error))
    return Outcome(True, deserialize(answer["Attributes"]))


def in_the_way(error: ClientError) -> Item:
    """The item that a condition was false for, as the error tells it; empty if there was none."""
    assert error.response["Error"]["Code"] == "ConditionalCheckFailedException"
    return deserialize(cast("dict[str, AttributeValueTypeDef]", error.response.get("Item", {})))


# ------------------------------------------------------------------ conditional writes


def test_put_fails_with_the_first_item_when_there_must_be_none(tables: Tables) -> None:
    key = new_key()
    assert put_if_absent(tables, key, 1).won
    assert put_if_absent(tables, key, 2) == Outcome(False, {"operation_id": key, "racer": 1})
    assert tables.operation(key) == {"operation_id": key, "racer": 1}


def test_update_fails_with_the_stored_item_when_its_condition_is_false(tables: Tables) -> None:
    key = new_key()
    tables.put_operation({"operation_id": key, "state": "waiting"})
    first = {"operation_id": key, "state": "sending", "racer": 1}
    assert update_if_waiting(tables, key, 1) == Outcome(True, first)
    assert update_if_waiting(tables, key, 2) == Outcome(False, first)
    assert tables.operation(key) == first


def test_update_fails_without_an_item_when_there_is_none(tables: Tables) -> None:
    key = new_key()
    assert update_if_waiting(tables, key, 1) == Outcome(False, {})
    assert tables.operation(key) is None


def test_put_returns_what_it_replaced_when_there_was_an_item(tables: Tables) -> None:
    key = new_key()
    answers = [
        tables.client.put_item(
            TableName=tables.operations,
            Item=serialize({"operation_id": key, "version": version}),
            ConditionExpression="attribute_not_exists(operation_id) OR version IN (:one)",
            ExpressionAttributeValues=serialize({":one": 1}),
            ReturnValues="ALL_OLD",
        )
        for version in (1, 2)
    ]
    assert "Attributes" not in answers[0]
    assert deserialize(answers[1]["Attributes"]) == {"operation_id": key, "version": 1}
    assert tables.operation(key) == {"operation_id": key, "version": 2}


@pytest.mark.usefixtures("restless_threads")
def test_one_put_wins_when_twenty_race(tables: Tables) -> None:
    for key in [new_key() for _ in range(ROUNDS)]:
        winner = winner_of(race(partial(put_if_absent, tables, key)))
        assert tables.operation(key) == {"operation_id": key, "racer": winner}


@pytest.mark.usefixtures("restless_threads")
def test_one_update_wins_when_twenty_race(tables: Tables) -> None:
    for key in [new_key() for _ in range(ROUNDS)]:
        tables.put_operation({"operation_id": key, "state": "waiting"})
        winner = winner_of(race(partial(update_if_waiting, tables, key)))
        assert tables.operation(key) == {"operation_id": key, "state": "sending", "racer": winner}


@pytest.mark.usefixtures("restless_threads")
def test_no_increment_is_lost_when_twenty_race(tables: Tables) -> None:
    def increment(key: str, _: int) -> int:
        answer = tables.client.update_item(
            TableName=tables.operations,
            Key=serialize({"operation_id": key}),
            UpdateExpression="SET n = n + :one",
            ExpressionAttributeValues=serialize({":one": 1}),
            ReturnValues="ALL_NEW",
        )
        return int(answer["Attributes"]["n"]["N"])

    for key in [new_key() for _ in range(ROUNDS)]:
        tables.put_operation({"operation_id": key, "n": 0})
        assert sorted(race(partial(increment, key))) == list(range(1, RACERS + 1))
        assert tables.operation(key) == {"operation_id": key, "n": RACERS}


def test_update_reads_the_old_values_when_it_sets_what_it_reads(tables: Tables) -> None:
    key = new_key()
    tables.put_operation({"operation_id": key, "state": "waiting"})

    def update(state: str, now: int) -> Item:
        answer = tables.client.update_item(
            TableName=tables.operations,
            Key=serialize({"operation_id": key}),
            UpdateExpression="SET #was = #state, #state = :new, first_sent_at = if_not_exists(first_sent_at, :now)",
            ExpressionAttributeNames={"#state": "state", "#was": "was"},
            ExpressionAttributeValues=serialize({":new": state, ":now": now}),
            ReturnValues="ALL_NEW",
        )
        return deserialize(answer["Attributes"])

    first = {"operation_id": key, "was": "waiting", "state": "sending", "first_sent_at": 1}
    assert update("sending", 1) == first
    assert update("unconfirmed", 2) == {**first, "was": "sending", "state": "unconfirmed"}
    assert tables.operation(key) == {**first, "was": "sending", "state": "unconfirmed"}

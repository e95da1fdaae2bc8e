"""What the engine rests on in DynamoDB, asked of the embedded server and of ministack, which share no code."""

import json
import os
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from crm_bridge.errors import LinkTakenError
from crm_bridge.storage.dynamodb import deserialize, serialize, through_conflicts
from crm_bridge.storage.links import Identity, Link, Links
from crm_bridge.storage.operation import Operation, State, operation_id
from crm_bridge.storage.operations import Claim, Operations
from local.aws import EmbeddedAws, access_key
from local.template import Template
from tests.integration.ministack import ministack

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import (
        AttributeValueTypeDef,
        TimeToLiveSpecificationTypeDef,
        TransactWriteItemTypeDef,
    )

RACERS = 20
ROUNDS = int(os.environ.get("ROUNDS", "2"))
# Nothing is sent twice: a repeated write would meet its own first success, and here it matters who won.
ONCE = Config(read_timeout=30, retries={"total_max_attempts": 1}, max_pool_connections=RACERS + 5)

type Item = Mapping[str, object]


@dataclass(frozen=True)
class Tables:
    client: "DynamoDBClient"
    operations: str
    links: str

    def operation(self, key: str) -> Item | None:
        answer = self.client.get_item(
            TableName=self.operations, Key=serialize({"operation_id": key}), ConsistentRead=True
        )
        return deserialize(answer["Item"]) if "Item" in answer else None

    def put_operation(self, item: Item) -> None:
        self.client.put_item(TableName=self.operations, Item=serialize(item))

    def link_rows(self, keys: Sequence[Mapping[str, str]]) -> list[Item]:
        """Those of `keys` that the link table holds."""
        answer = self.client.batch_get_item(
            RequestItems={self.links: {"Keys": [serialize(key) for key in keys], "ConsistentRead": True}}
        )
        assert not answer["UnprocessedKeys"]
        return [deserialize(item) for item in answer["Responses"][self.links]]

    def due(self, shard: str, after: str) -> list[Item]:
        answer = self.client.query(
            TableName=self.operations,
            IndexName="due",
            KeyConditionExpression="due_shard = :shard AND due > :after",
            ExpressionAttributeValues=serialize({":shard": shard, ":after": after}),
        )
        return [deserialize(item) for item in answer["Items"]]


# ------------------------------------------------------------------ the two endpoints


@contextmanager
def embedded(_: Path) -> Iterator[str]:
    aws = EmbeddedAws()
    aws.start()
    try:
        yield aws.url
    finally:
        aws.stop()


@pytest.fixture(scope="module", params=[embedded, ministack], ids=["embedded", "ministack"])
def tables(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tables]:
    endpoint = request.param
    with endpoint(tmp_path_factory.mktemp("aws")) as url, pytest.MonkeyPatch.context() as environment:
        for name in os.environ:
            if name.startswith("AWS_") or name.lower().endswith("_proxy"):
                environment.delenv(name)
        environment.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        environment.setenv("AWS_ACCESS_KEY_ID", access_key())
        environment.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        environment.setattr(boto3, "DEFAULT_SESSION", None)
        template = Template().stores({"operations": {"Ref": "OperationsTable"}, "links": {"Ref": "LinksTable"}})
        names = _deployed(url, template)
        # ministack waits for its connections to be closed before it ends
        with closing(boto3.client("dynamodb", endpoint_url=url, config=ONCE)) as client:
            yield Tables(client, names["operations"], names["links"])


def _deployed(url: str, template: Item) -> dict[str, str]:
    """The outputs of `template`."""
    with closing(boto3.client("cloudformation", endpoint_url=url, config=ONCE)) as cloudformation:
        cloudformation.create_stack(StackName="conformance", TemplateBody=json.dumps(template))
        cloudformation.get_waiter("stack_create_complete").wait(
            StackName="conformance", WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )
        stack = cloudformation.describe_stacks(StackName="conformance")["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


# ------------------------------------------------------------------ races


@pytest.fixture
def restless_threads() -> Iterator[None]:
    """Threads of this process, the embedded server's among them, take turns 500 times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


def race[T](attempt: Callable[[int], T]) -> list[T]:
    """What `attempt` returned to each racer; they all start at once."""
    start = threading.Barrier(RACERS, timeout=30)

    def run(racer: int) -> T:
        start.wait()
        return attempt(racer)

    with ThreadPoolExecutor(RACERS) as threads:
        return list(threads.map(run, range(RACERS)))


@dataclass(frozen=True)
class Outcome:
    won: bool
    held: Item
    """What the table holds, as the racer was told."""


def winner_of(outcomes: Sequence[Outcome]) -> int:
    """The only one who won, and whose item all the others were shown."""
    winners = [racer for racer, outcome in enumerate(outcomes) if outcome.won]
    assert len(winners) == 1
    assert [outcome.held["racer"] for outcome in outcomes] == winners * RACERS
    return winners[0]


def new_key() -> str:
    return uuid.uuid4().hex


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


# ------------------------------------------------------------------ the bridge's own tables


@pytest.fixture
def operations(tables: Tables) -> Operations:
    return Operations(tables.client, tables.operations)


@pytest.fixture
def links(tables: Tables) -> Links:
    return Links(tables.client, tables.links)


TENANT = "demo"
FLOW = "create_site"


def sending(customer: str, *, lease: str = "first") -> Operation:
    return Operation(
        operation_id=operation_id(TENANT, FLOW, customer),
        tenant=TENANT,
        flow=FLOW,
        function=FLOW,
        event_key=customer,
        state=State.SENDING,
        fingerprint="f" * 64,
        payload=json.dumps({"customer_id": customer, "sent_by": lease}),
        tries=1,
        lease=lease,
        due_at=1030,
        created_at=1000,
        updated_at=1000,
        first_sent_at=1000,
    )


def succeeded(operation: Operation) -> Operation:
    changes = {"state": State.SUCCEEDED, "result": "{}", "payload": None, "due_at": None, "updated_at": 1001}
    return operation.model_copy(update=changes)


def site_link(customer: str, site: str) -> Link:
    return Link(Identity("crm", "customer", customer), Identity("illu", "site", site))


@pytest.mark.usefixtures("restless_threads")
def test_one_create_wins_and_the_others_get_its_record_when_twenty_race(operations: Operations) -> None:
    def create(customer: str, racer: int) -> Claim:
        return operations.create(sending(customer, lease=f"racer{racer}"), over={State.REJECTED})

    for customer in [new_key() for _ in range(ROUNDS)]:
        claims = race(partial(create, customer))
        winners = [racer for racer, claim in enumerate(claims) if claim.won]
        assert len(winners) == 1
        assert {claim.operation for claim in claims} == {sending(customer, lease=f"racer{winners[0]}")}
        assert operations.get(claims[0].operation.operation_id) == claims[0].operation


@pytest.mark.usefixtures("restless_threads")
def test_one_claim_wins_and_the_others_get_its_record_when_twenty_race(operations: Operations) -> None:
    def claim(operation_id: str, racer: int) -> Claim | None:
        return operations.claim(
            operation_id, lease=f"racer{racer}", now=1030, until=1060, states={State.WAITING}, tenant=TENANT
        )

    for customer in [new_key() for _ in range(ROUNDS)]:
        due = sending(customer).model_copy(update={"state": State.WAITING})
        operations.create(due, over={State.REJECTED})
        claims = [claim for claim in race(partial(claim, due.operation_id)) if claim]
        winners = [racer for racer, claim in enumerate(claims) if claim.won]
        assert (len(claims), len(winners)) == (RACERS, 1)
        changes = {"lease": f"racer{winners[0]}", "was": State.WAITING, "tries": 2, "due_at": 1060, "updated_at": 1030}
        assert {claim.operation for claim in claims} == {sending(customer).model_copy(update=changes)}
        assert operations.get(due.operation_id) == claims[0].operation


def test_claim_is_none_when_there_is_no_such_operation(operations: Operations) -> None:
    taken = operations.claim(new_key(), lease="any", now=1030, until=1060, states={State.SENDING}, tenant=TENANT)
    assert taken is None


def test_save_returns_the_stored_record_when_it_is_repeated(operations: Operations, links: Links) -> None:
    customer, site = new_key(), new_key()
    held = sending(customer)
    operations.create(held, over={State.REJECTED})
    done = succeeded(held)
    puts = list(links.puts(TENANT, [site_link(customer, site)], held.operation_id, 1001))
    assert operations.save(done, puts) == done
    assert operations.save(done, puts) == done
    assert operations.get(held.operation_id) == done
    assert [partner.operation_id for partner in links.of(TENANT, Identity("illu", "site", site))] == [held.operation_id]


def test_save_writes_nothing_and_returns_the_new_holders_record_when_the_lease_was_taken(
    operations: Operations, links: Links
) -> None:
    customer, site = new_key(), new_key()
    held = sending(customer)
    operations.create(held, over={State.REJECTED})
    taken = operations.claim(
        held.operation_id, lease="second", now=1030, until=1060, states={State.SENDING}, tenant=TENANT
    )
    assert taken
    assert taken.won
    puts = list(links.puts(TENANT, [site_link(customer, site)], held.operation_id, 1031))
    assert operations.save(succeeded(held), puts) == taken.operation
    assert operations.get(held.operation_id) == taken.operation
    assert links.of(TENANT, Identity("illu", "site", site)) == []


@pytest.mark.usefixtures("restless_threads")
def test_one_save_links_a_site_and_nothing_of_the_others_is_written_when_twenty_race(
    operations: Operations, links: Links
) -> None:
    def save(site: str, racer: int) -> Operation | None:
        """The operation if it was saved."""
        link = site_link(f"{site}-{racer}", site)
        held = sending(link.left.id)
        operations.create(held, over={State.REJECTED})
        try:
            return operations.save(succeeded(held), list(links.puts(TENANT, [link], held.operation_id, 1001)))
        except LinkTakenError:
            return None

    for site in [new_key() for _ in range(ROUNDS)]:
        saved = race(partial(save, site))
        winners = [racer for racer, operation in enumerate(saved) if operation]
        assert len(winners) == 1
        for racer in range(RACERS):
            customer, won = f"{site}-{racer}", racer in winners
            held = sending(customer)
            assert operations.get(held.operation_id) == (succeeded(held) if won else held)
            partners = [partner.identity for partner in links.of(TENANT, Identity("crm", "customer", customer))]
            assert partners == ([Identity("illu", "site", site)] if won else [])
        winner = Identity("crm", "customer", f"{site}-{winners[0]}")
        assert [partner.identity for partner in links.of(TENANT, Identity("illu", "site", site))] == [winner]

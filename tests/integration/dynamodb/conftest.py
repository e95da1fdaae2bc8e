"""DynamoDB's guarantees on which the engine rests, asked of two emulators that share no code."""

import json
import os
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.config import Config

from crm_bridge.storage.dynamodb import deserialize, serialize
from crm_bridge.storage.links import Links
from crm_bridge.storage.operation import Operation, State, operation_id
from crm_bridge.storage.operations import Operations
from local.aws import EmbeddedAws, access_key
from local.template import Template
from tests.integration.ministack import ministack

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


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


@pytest.fixture
def restless_threads() -> Iterator[None]:
    """Threads of this process, the embedded server's among them, take turns 500 times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


def race[T](attempt: Callable[[int], T]) -> list[T]:
    """Return what `attempt` returned to each racer; they all start at once."""
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
    """The item in the table, as the racer's response has it."""


def winner_of(outcomes: Sequence[Outcome]) -> int:
    """The only one who won, and whose item all the others were shown."""
    winners = [racer for racer, outcome in enumerate(outcomes) if outcome.won]
    assert len(winners) == 1
    assert [outcome.held["racer"] for outcome in outcomes] == winners * RACERS
    return winners[0]


def new_key() -> str:
    return uuid.uuid4().hex


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

"""The stack on tables that were restored from a backup: the steps of docs/restore.md.

With moto only: ministack refuses to restore a table with indexes ("Some AttributeDefinitions are not used").
"""

import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import boto3
import pytest

from crm_bridge.runtime import runtime
from local.stack import LOCAL_STACK
from tests.integration.conftest import SITE, Crm
from tests.stack import Stack

if TYPE_CHECKING:
    from mypy_boto3_cloudformation.type_defs import ParameterTypeDef

SUFFIX = "-20261129"
TABLES = ("OPERATIONS_TABLE", "LINKS_TABLE", "API_KEYS_TABLE", "LOCKS_TABLE", "PEOPLE_TABLE", "REQUESTS_TABLE")


@pytest.fixture
def stack() -> Iterator[Stack]:
    """Its DynamoDB is moto's, which can restore tables."""
    with Stack(background=False, aws_over_http=False) as stack:
        yield stack


def restore() -> None:
    """Copy all tables as they are now."""
    dynamodb = boto3.client("dynamodb")
    for name in TABLES:
        table = os.environ[name]
        dynamodb.restore_table_to_point_in_time(
            SourceTableName=table, TargetTableName=table + SUFFIX, UseLatestRestorableTime=True
        )


def copy_newer(at: int) -> None:
    """Copy what was written to operations and links since `at`, as step 4 does."""
    dynamodb = boto3.client("dynamodb")
    for name, written in (("OPERATIONS_TABLE", "updated_at"), ("LINKS_TABLE", "linked_at")):
        table = os.environ[name]
        newer = dynamodb.scan(
            TableName=table,
            FilterExpression="#at >= :at",
            ExpressionAttributeNames={"#at": written},
            ExpressionAttributeValues={":at": {"N": str(at)}},
        )
        for item in newer["Items"]:
            dynamodb.put_item(TableName=table + SUFFIX, Item=item)


def use_restored(stack: Stack) -> None:
    """Deploy with TableSuffix, and let the functions have what CloudFormation makes of it."""
    cloudformation = boto3.client("cloudformation")
    parameter: ParameterTypeDef = {"ParameterKey": "TableSuffix", "ParameterValue": SUFFIX}
    template: object = cloudformation.get_template(StackName=LOCAL_STACK)["TemplateBody"]
    body = template if isinstance(template, str) else json.dumps(template)
    cloudformation.update_stack(StackName=LOCAL_STACK, TemplateBody=body, Parameters=[parameter])
    (deployed,) = cloudformation.describe_stacks(StackName=LOCAL_STACK)["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in deployed["Outputs"]}
    os.environ |= {name: outputs[name.title().replace("_", "")] for name in (*TABLES, "TOKENS_TABLE")}
    runtime.cache_clear()
    stack._open_runtime()


def counts() -> list[int]:
    """Return how many items each of the stack's own tables has."""
    dynamodb = boto3.client("dynamodb")
    return [dynamodb.scan(TableName=os.environ[name].removesuffix(SUFFIX), Select="COUNT")["Count"] for name in TABLES]


def test_what_was_restored_is_known_and_goes_on_when_the_stack_is_deployed_with_the_suffix(crm: Crm) -> None:
    created = crm.create_site()
    waiting = crm.post("/sites", {**SITE, "customer_id": "C-2", "name": "B"}, headers={"Prefer": "respond-async"})
    assert (created.status_code, waiting.status_code) == (201, 202)
    restore()
    lost = crm.create_site(customer_id="C-3", name="C")
    assert lost.status_code == 201
    before = counts()
    tokens = os.environ["TOKENS_TABLE"]

    use_restored(crm.stack)

    assert [os.environ[name][-len(SUFFIX) :] for name in TABLES] == [SUFFIX] * len(TABLES)
    assert os.environ["TOKENS_TABLE"] == tokens
    repeated = crm.create_site()
    kept = ("site_id", "customer_id", "operation_id")
    assert (repeated.status_code, repeated.json()) == (200, {name: created.json()[name] for name in kept})
    assert crm.get("/links/crm/customer/C-1001").status_code == 200
    assert crm.get("/links/crm/customer/C-3").status_code == 404  # written after the second that was restored
    assert len(crm.stack.illu.sites) == 2
    assert crm.settle(waiting)["state"] == "succeeded"
    assert len(crm.get("/operations").json()["operations"]) == 2
    assert counts() == before  # nothing is written to the old tables any more


@pytest.mark.parametrize(("is_copied", "sites"), [(True, 2), (False, 3)])
def test_an_event_that_settled_after_that_second_is_sent_once_more_unless_its_items_are_copied(
    crm: Crm, is_copied: bool, sites: int
) -> None:
    waiting = crm.post("/sites", {**SITE, "customer_id": "C-2", "name": "B"}, headers={"Prefer": "respond-async"})
    restore()
    crm.stack.move_clock(60)
    at = int(crm.stack._clock())
    assert crm.settle(waiting)["state"] == "succeeded"
    assert crm.create_site(customer_id="C-3", name="C").status_code == 201
    if is_copied:
        copy_newer(at)

    use_restored(crm.stack)

    crm.stack.deliver_due(after=1200)
    assert len(crm.stack.illu.sites) == sites
    assert crm.settle(waiting)["state"] == "succeeded"
    assert crm.get("/links/crm/customer/C-3").status_code == (200 if is_copied else 404)

"""An event on which the bridge itself fails: its operation needs review, its message becomes a dead letter."""

import json
import os
from typing import TYPE_CHECKING

import boto3
import pytest

from crm_bridge.engine import POLICY
from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import Operation
from tests.integration.conftest import SITE, Crm

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


@pytest.fixture
def sqs(crm: Crm) -> "SQSClient":
    """Its messages come back at once when they were not deleted, instead of after a minute."""
    assert crm.stack.url
    client = boto3.client("sqs")
    client.set_queue_attributes(QueueUrl=os.environ["CREATE_SITE_QUEUE_URL"], Attributes={"VisibilityTimeout": "0"})
    return client


def dead_letters(sqs: "SQSClient") -> list[str]:
    source = os.environ["CREATE_SITE_QUEUE_URL"]
    attributes = sqs.get_queue_attributes(QueueUrl=source, AttributeNames=["RedrivePolicy"])["Attributes"]
    name = json.loads(attributes["RedrivePolicy"])["deadLetterTargetArn"].rpartition(":")[2]
    queue = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    received = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
    return [str(json.loads(message["Body"]).get("operation_id")) for message in received]


def unreadable(crm: Crm) -> Operation:
    """An accepted event whose payload this version cannot read."""
    accepted = crm.post("/sites", SITE, headers={"Prefer": "respond-async"})
    operation = runtime().operations.get(accepted.json()["operation_id"])
    assert operation is not None
    broken = operation.model_copy(update={"payload": '{"of": "another version"}'})
    assert runtime().operations.save(broken, over=operation.state) == broken
    return broken


def carried(crm: Crm, operation: Operation) -> Operation:
    for _ in range(POLICY.most_defects):
        crm.stack.deliver_due(after=3600)
    now = runtime().operations.get(operation.operation_id)
    assert now is not None
    return now


def test_needs_review_with_its_reason_and_its_message_is_a_dead_letter(crm: Crm, sqs: "SQSClient") -> None:
    operation = unreadable(crm)
    assert crm.create_site(customer_id="C-2", name="Another").status_code == 201  # the others are sent
    assert carried(crm, operation).state == "needs_review"
    shown = crm.get(f"/operations/{operation.operation_id}").json()
    reasons = [attempt["reason"] for attempt in shown["attempts"]]
    assert reasons[: POLICY.most_defects] == ["the bridge failed (ValidationError)"] * POLICY.most_defects
    assert dead_letters(sqs) == [operation.operation_id]
    assert len(crm.stack.illu.sites) == 1


def test_can_be_resolved_when_the_bridge_is_mended(crm: Crm, sqs: "SQSClient") -> None:
    operation = unreadable(crm)
    in_review = carried(crm, operation)
    mended = in_review.model_copy(update={"payload": json.dumps(SITE)})
    runtime().operations.save(mended, over=in_review.state)
    retried = crm.post(f"/operations/{operation.operation_id}/resolve", {"action": "retry"})
    assert retried.status_code == 200
    crm.stack.deliver_due()
    assert crm.get(f"/operations/{operation.operation_id}").json()["state"] == "succeeded"
    assert len(crm.stack.illu.sites) == 1
    assert dead_letters(sqs) == [operation.operation_id]  # kept for whoever looks


def test_a_message_that_names_no_operation_is_a_dead_letter(crm: Crm, sqs: "SQSClient") -> None:
    sqs.send_message(
        QueueUrl=os.environ["CREATE_SITE_QUEUE_URL"],
        MessageBody='{"operation": "without an id"}',
        MessageGroupId="any",
        MessageDeduplicationId="any",
    )
    crm.stack.deliver_due()
    assert dead_letters(sqs) == ["None"]

"""Entry of dispatcher: puts every operation that is due on its flow's queue.

It changes nothing itself: whoever takes a message off the queue claims the operation first, so a message too many
finds nothing to do.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import batched
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from crm_bridge.api import Context
from crm_bridge.errors import StorageError
from crm_bridge.operations import SHARDS
from crm_bridge.runtime import runtime
from crm_bridge.telemetry import bind_log, count, logger

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

PER_SHARD = 100
SQS_BATCH = 10


def lambda_handler(event: Mapping[str, Any], context: Context) -> Mapping[str, object]:  # noqa: ARG001
    bind_log(flow="dispatcher", request_id=context.aws_request_id)
    dispatched: Counter[str] = Counter()
    for shard in SHARDS:
        try:
            due = runtime().operations.due(shard, int(runtime().clock()), PER_SHARD)
        except StorageError:  # the other shards need not wait for this one
            count("NotDispatched", flow="unknown")
            logger().warning("shard not read", extra={"shard": shard})
            continue
        by_flow: dict[str, list[str]] = {}
        for operation_id, flow in due:
            by_flow.setdefault(flow, []).append(operation_id)
        for flow, operation_ids in by_flow.items():
            dispatched[flow] += _enqueue(flow, operation_ids)
    logger().info("dispatched", extra={"dispatched": dispatched})
    return dispatched


def _enqueue(flow: str, operation_ids: Sequence[str]) -> int:
    """How many the queue took. Those that it did not take are still due, so the next run sends them."""
    taken = 0
    for batch in batched(operation_ids, SQS_BATCH, strict=False):
        entries: list[SendMessageBatchRequestEntryTypeDef] = [
            {"Id": str(number), "MessageBody": json.dumps({"operation_id": operation_id})}
            for number, operation_id in enumerate(batch)
        ]
        try:
            queue = os.environ[f"{flow.upper()}_QUEUE_URL"]
            taken += len(runtime().sqs.send_message_batch(QueueUrl=queue, Entries=entries).get("Successful", []))
        except (KeyError, ClientError, BotoCoreError) as error:  # one flow's queue must not stop the others
            logger().warning("queue not reached", extra={"queue_of": flow, "error": type(error).__name__})
    if taken < len(operation_ids):
        count("NotDispatched", flow=flow)
    return taken

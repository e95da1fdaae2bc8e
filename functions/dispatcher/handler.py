"""Entry of dispatcher: puts every operation that is due on its flow's queue.

It changes nothing itself: whoever takes a message off the queue claims the operation first, so a message too many
finds nothing to do.
"""

import json
import os
from collections.abc import Mapping, Sequence
from itertools import batched
from typing import TYPE_CHECKING, Any

from crm_bridge.api import Context
from crm_bridge.operations import SHARDS
from crm_bridge.runtime import runtime
from crm_bridge.telemetry import bind_log, count, logger

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

PER_SHARD = 100
SQS_BATCH = 10


def lambda_handler(event: Mapping[str, Any], context: Context) -> Mapping[str, object]:  # noqa: ARG001
    bind_log(flow="dispatcher", request_id=context.aws_request_id)
    due: dict[str, list[str]] = {}
    for shard in SHARDS:
        for operation_id, flow in runtime().operations.due(shard, int(runtime().clock()), PER_SHARD):
            due.setdefault(flow, []).append(operation_id)
    for flow, operation_ids in due.items():
        _enqueue(flow, operation_ids)
    counts = {flow: len(operation_ids) for flow, operation_ids in due.items()}
    logger().info("dispatched", extra={"due": counts})
    return counts


def _enqueue(flow: str, operation_ids: Sequence[str]) -> None:
    queue = os.environ[f"{flow.upper()}_QUEUE_URL"]
    for batch in batched(operation_ids, SQS_BATCH, strict=False):
        entries: list[SendMessageBatchRequestEntryTypeDef] = [
            {"Id": str(number), "MessageBody": json.dumps({"operation_id": operation_id})}
            for number, operation_id in enumerate(batch)
        ]
        failed = runtime().sqs.send_message_batch(QueueUrl=queue, Entries=entries).get("Failed", [])
        if failed:  # still due, so the next run sends them
            count("NotDispatched", flow=flow)
            logger().warning(
                "not dispatched", extra={"count": len(failed), "codes": sorted({f["Code"] for f in failed})}
            )

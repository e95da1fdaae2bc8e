"""The queue entry: due operations in, each redelivered; what fails goes back to the queue, the rest does not."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from crm_bridge.api import Context
from crm_bridge.engine import Engine, Flow, Vendor
from crm_bridge.errors import UnavailableError
from crm_bridge.telemetry import add_to_log, bind_log, count, log_defect, logger
from crm_bridge.transport import RESERVE, Deadline


def consume[C: BaseModel, V: Vendor, R: BaseModel](
    event: Mapping[str, Any], context: Context, engine: Engine, flow: Flow[C, V, R]
) -> dict[str, object]:
    """Redeliver the operations that an SQS event names: `{"operation_id": …, "lent_until": …}` in each body.

    `lent_until` is how long the dispatcher lent it to this message; without it only what is due by itself is carried.
    The answer names the messages that failed, so that only they come again.

    Source: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
    """
    failed = [
        record["messageId"] for record in event["Records"] if not _is_redelivered(record["body"], context, engine, flow)
    ]
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}


def _is_redelivered[C: BaseModel, V: Vendor, R: BaseModel](
    body: str, context: Context, engine: Engine, flow: Flow[C, V, R]
) -> bool:
    bind_log(flow=flow.name, request_id=context.aws_request_id)
    try:
        message = json.loads(body)
        operation_id = message["operation_id"]
        add_to_log(operation_id=operation_id)
        deadline = Deadline(context.get_remaining_time_in_millis() / 1000 - RESERVE)
        if engine.redeliver(flow, operation_id, deadline=deadline, lent_until=message.get("lent_until")) is None:
            logger().info("not due")
    except UnavailableError as error:
        logger().warning("storage unavailable", extra={"error": type(error).__name__})
        return False
    except Exception as error:  # noqa: BLE001 - one message must not make the others of its batch come again
        log_defect(error)
        count("Defects")
        return False
    return True

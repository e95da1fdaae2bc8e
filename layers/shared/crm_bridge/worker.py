"""The queue entry: due operations in, each redelivered; what fails goes back to the queue, the rest does not."""

import json
from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from pydantic import BaseModel

from crm_bridge.api import Context
from crm_bridge.engine import Engine, Flow, Vendor
from crm_bridge.errors import UnavailableError
from crm_bridge.telemetry import bind_log, count, log_defect, logger
from crm_bridge.transport import RESERVE, Deadline


def consume[C: BaseModel, V: Vendor, R: BaseModel](
    event: Mapping[str, Any], context: Context, engine: Engine, flow: Flow[C, V, R]
) -> PartialItemFailureResponse:
    """Redeliver the operations that an SQS event names: `{"operation_id": …, "lent_until": …}` in each body.

    `lent_until` is how long the dispatcher lent it to this message; without it only what is due by itself is carried.

    Source: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
    """

    def redeliver(record: Mapping[str, Any]) -> None:
        message = json.loads(record["body"])
        operation_id = message["operation_id"]
        bind_log(flow=flow.name, request_id=context.aws_request_id, operation_id=operation_id)
        deadline = Deadline(context.get_remaining_time_in_millis() / 1000 - RESERVE)
        try:
            if engine.redeliver(flow, operation_id, deadline=deadline, lent_until=message.get("lent_until")) is None:
                logger().info("not due")
        except UnavailableError as error:
            logger().warning("storage unavailable", extra={"error": type(error).__name__})
            raise
        except Exception as error:  # told here, where its operation is known; Powertools hands the message back
            log_defect(error)
            count("Defects")
            raise

    return process_partial_response(
        event=dict(event),
        record_handler=redeliver,
        processor=BatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False),
        context=context,  # type: ignore[arg-type]
    )

"""The queue entry: due operations in, each retried; the messages that failed come again, the others do not."""

import json
from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from crm_bridge.engine import Engine
from crm_bridge.errors import BridgeError, UnavailableError
from crm_bridge.flow import Flow
from crm_bridge.inbound.api import LambdaContext, deadline_of
from crm_bridge.telemetry import add_to_log, bind_log, logger, report_defect


class MessageFailedError(BridgeError):
    """The message comes again. The error has no text and no cause, because the processor formats what it collects."""


def consume(
    event: Mapping[str, Any],
    context: LambdaContext,
    engine: Engine,
    function: str,
    flows: Mapping[str, type[Flow[Any, Any, Any]]],
) -> Mapping[str, object]:
    """Retry the operations of an SQS event, whose bodies are `{"operation_id": …, "tenant": …, "lent_until": …}`.

    `lent_until` is how long the dispatcher lent it to this message; without it only what is due by itself is sent.
    The response names the messages that failed, so that only they come again.

    Source: https://docs.aws.amazon.com/powertools/python/latest/utilities/batch/#processing-messages-from-sqs
    """

    def retry(record: SQSRecord) -> None:  # the processor passes the message by this name
        bind_log(flow=function, request_id=context.aws_request_id)
        try:
            message = json.loads(record.body)
            operation_id, tenant = message["operation_id"], message["tenant"]
            add_to_log(operation_id=operation_id)
            deadline, lent_until = deadline_of(context), message.get("lent_until")
            if engine.retry(flows, operation_id, tenant=tenant, deadline=deadline, lent_until=lent_until) is None:
                logger().info("not due")
        except UnavailableError as error:
            logger().warning("storage unavailable", extra={"exception_name": type(error).__name__})
            raise MessageFailedError from None
        except Exception as error:  # noqa: BLE001 - one message must not make the others of its batch come again
            report_defect(error)
            raise MessageFailedError from None

    # A new one each time: a processor keeps the messages of its last batch, and two threads would mix theirs.
    processor = BatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False)
    return process_partial_response(dict(event), retry, processor)

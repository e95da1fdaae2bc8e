"""Logs and metrics, by Powertools: ids, states, times and kinds of errors; never a payload, a secret or a URL.

Both are written to standard output, one JSON object per line. Keys that are bound to the log belong to one thread and
are dropped at its next `bind_log`.

`inject_lambda_context` and `append_keys` are not used: the first logs the whole event, API key included, where
POWERTOOLS_LOGGER_LOG_EVENT is set, and both keep their keys per process, so that two threads mix them.
"""

import json
import logging
import os
import sys
from functools import cache
from http import HTTPStatus
from threading import Lock, local
from typing import Any, Literal

from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter
from aws_lambda_powertools.metrics.base import SingleMetric

_SERVICE = "crm_bridge"
_making = Lock()
_of_thread = local()
"""`has_result`: whether this thread's log has a line `operation` since its keys were bound."""
# ASCII: half of a surrogate pair can't be written in UTF-8, and its line would be lost.
_to_json = json.JSONEncoder(default=str, separators=(",", ":")).encode


class _Formatter(LambdaPowertoolsFormatter):
    """Powertools' line without the text of an exception, which may repeat what was sent.

    What stays of it: `exception_name`, and in `stack_trace` its module and where it was raised, innermost last.
    """

    def serialize(self, log: Any) -> str:
        log.pop("exception", None)
        log.pop("exception_notes", None)
        if trace := log.get("stack_trace"):
            frames = [f"{frame['file']}:{frame['line']} {frame['function']}" for frame in trace["frames"]]
            log["stack_trace"] = {"module": trace["module"], "frames": frames}
        return _to_json(log)


@cache
def logger() -> Logger:
    """Return the logger of this process. It logs from the level LOG_LEVEL on, by default INFO."""
    with _making:  # two threads may be the first; without this, each would add a handler
        formatter = _Formatter(json_deserializer=str, utc=True, use_rfc3339=True)
        made = Logger(_SERVICE, level=os.environ.get("LOG_LEVEL") or "INFO", logger_formatter=formatter)
        # Every byte is billed, these are on each line, and its message says as much.
        made.remove_keys(["location", "service"])
        logging.getLogger(_SERVICE).propagate = False  # Lambda's own handler would write each line again
        return made


def bind_log(**keys: str) -> None:
    """Begin the log of one event: `keys` are on all further lines of this thread, and earlier keys are dropped."""
    logger().thread_safe_clear_keys()
    _of_thread.has_result = False
    add_to_log(**keys)


def add_to_log(**keys: str) -> None:
    logger().thread_safe_append_keys(**keys)


def log_result(event: str, state: str, tries: int, vendor_status: int | None) -> None:
    """Log what became of an operation."""
    logger().info("operation", extra={"event": event, "state": state, "try": tries, "vendor_status": vendor_status})
    _of_thread.has_result = True


def log_response(status: int) -> None:
    """Log what a request was answered, unless its operation's line has said so: that it went well."""
    if status >= HTTPStatus.BAD_REQUEST or not getattr(_of_thread, "has_result", False):
        logger().info("answered", extra={"status": status})


def log_defect(error: BaseException) -> None:
    """Log an exception that nobody expected: its kind and place, never its text."""
    logger().error("defect", exc_info=error)


def report_defect(error: BaseException) -> None:
    """Log an exception that nobody expected, and count it."""
    log_defect(error)
    count("Defects")


def count(metric: str, **dimensions: str) -> None:
    """Add one to a metric. Every combination of dimensions is billed as a metric of its own: keep them few."""
    measure(metric, 1, "Count", **dimensions)


def measure(metric: str, value: float, unit: Literal["Count", "Milliseconds", "Seconds"], **dimensions: str) -> None:
    """Write one value in CloudWatch's embedded metric format, at once and in one write.

    `Metrics` would keep it until the end of the invocation, and lose it if the function is killed before; and with
    several sets of dimensions it writes every metric under each of them. `single_metric` prints its line and the line's
    end in two writes, which threads mix; hence its class.

    The namespace is in POWERTOOLS_METRICS_NAMESPACE, so that the stages of one account are kept apart. Without a
    namespace no metrics are collected, and none are written. POWERTOOLS_SERVICE_NAME must not be set: it would be one
    more dimension, which no alarm has.
    Source: https://docs.aws.amazon.com/powertools/python/latest/core/metrics/#single-metric-with-a-different-dimension
    """
    if os.environ.get("POWERTOOLS_METRICS_NAMESPACE"):
        single = SingleMetric()
        single.add_metric(metric, unit, value)
        for name, of in dimensions.items():
            single.add_dimension(name, of)
        sys.stdout.write(_to_json(single.serialize_metric_set()) + "\n")

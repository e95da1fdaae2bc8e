"""Logs and metrics. What is logged are ids, states, times and kinds of errors; never a payload, a secret or a URL.

Both go to standard output, where Lambda takes them up: logs as one JSON object per line, metrics in CloudWatch's
embedded format. Keys that are bound to the log belong to one thread and are dropped at its next `bind_log`.
"""

import os
import traceback
from functools import cache

from aws_lambda_powertools.logging import Logger
from aws_lambda_powertools.metrics import MetricUnit, single_metric


@cache
def logger() -> Logger:
    return Logger(service="crm-bridge", utc=True)


def bind_log(**keys: str) -> None:
    """Begin one event's log: `keys` are on every line from here on, and those of the event before are gone."""
    logger().thread_safe_clear_keys()
    add_to_log(**keys)


def add_to_log(**keys: str) -> None:
    logger().thread_safe_append_keys(**keys)


def log_defect(error: BaseException) -> None:
    """An exception that nobody expected. Its text may repeat what was sent, so only its kind and place are told."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    logger().error("defect", extra={"error": type(error).__name__, "places": places})


def count(metric: str, **dimensions: str) -> None:
    """Add one to a metric. Every combination of dimensions is billed as a metric of its own: keep them few."""
    measure(metric, 1, MetricUnit.Count, **dimensions)


def measure(metric: str, value: float, unit: MetricUnit, **dimensions: str) -> None:
    """The namespace is in POWERTOOLS_METRICS_NAMESPACE, so that the stages of one account are kept apart.

    The command line says with POWERTOOLS_METRICS_DISABLED that there is nobody to take them up.
    """
    if os.environ.get("POWERTOOLS_METRICS_DISABLED") == "true":
        return
    with single_metric(name=metric, unit=unit, value=value) as line:
        for name, of in dimensions.items():
            line.add_dimension(name=name, value=of)

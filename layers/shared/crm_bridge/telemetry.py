"""Logs and metrics. What is logged are ids, states, times and kinds of errors; never a payload, a secret or a URL.

Both go to standard output, where Lambda takes them up, as one JSON object per line. Keys that are bound to the log
belong to one thread and are dropped at its next `bind_log`.
"""

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from functools import cache
from typing import Literal

_keys: ContextVar[Mapping[str, str]] = ContextVar("keys")
_OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({})))
_in_json = json.JSONEncoder(default=str, separators=(",", ":")).encode


class _Line(logging.Formatter):
    """A record with what is bound to the log and what it has of its own (`extra`), under the names given there."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        line = {"level": record.levelname, "message": record.getMessage(), "timestamp": self.formatTime(record)}
        if trace := os.environ.get("_X_AMZN_TRACE_ID"):
            line["xray_trace_id"] = trace.partition(";")[0].removeprefix("Root=")
        extra = {name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD}
        told = {**line, **_keys.get({}), **extra}
        return _in_json({name: value for name, value in told.items() if value is not None})


@cache
def logger() -> logging.Logger:
    """Tells what is at least of LOG_LEVEL, by default INFO."""
    ours = logging.getLogger("crm_bridge")
    ours.setLevel((os.environ.get("LOG_LEVEL") or "INFO").upper())
    ours.propagate = False  # Lambda's own handler would tell it once more
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Line())
    ours.handlers = [handler]  # two threads may be the first
    return ours


def bind_log(**keys: str) -> None:
    """Begin one event's log: `keys` are on every line from here on, and those of the event before are gone."""
    _keys.set(keys)


def add_to_log(**keys: str) -> None:
    _keys.set({**_keys.get({}), **keys})


def log_defect(error: BaseException) -> None:
    """An exception that nobody expected. Its text may repeat what was sent, so only its kind and place are told."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    logger().error("defect", extra={"error": type(error).__name__, "places": places})


def count(metric: str, **dimensions: str) -> None:
    """Add one to a metric. Every combination of dimensions is billed as a metric of its own: keep them few."""
    measure(metric, 1, "Count", **dimensions)


def measure(metric: str, value: float, unit: Literal["Count", "Milliseconds", "Seconds"], **dimensions: str) -> None:
    """Tell one value, in CloudWatch's embedded metric format.

    The namespace is in METRICS_NAMESPACE, so that the stages of one account are kept apart; where there is none, nobody
    takes metrics up, and none are told.
    Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    if namespace := os.environ.get("METRICS_NAMESPACE"):
        described = {
            "Namespace": namespace,
            "Dimensions": [list(dimensions)],
            "Metrics": [{"Name": metric, "Unit": unit}],
        }
        about = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [described]}
        sys.stdout.write(_in_json({"_aws": about, metric: value, **dimensions}) + "\n")

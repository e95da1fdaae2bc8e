"""Clients of AWS, made by boto3 in its default session."""

from typing import Any

import boto3
from botocore.config import Config

# In the worst case (three attempts, each timing out) 8 s: within the time that a request reserves for settling.
CONFIG = Config(
    connect_timeout=1,
    read_timeout=1.5,
    tcp_keepalive=True,
    retries={"mode": "standard", "total_max_attempts": 3},
    parameter_validation=False,  # the tests validate, and AWS does
    user_agent="crm-bridge",  # otherwise botocore describes the machine and its configuration for each request
)


def client(service: str) -> Any:
    """Return a new client of `dynamodb`, `secretsmanager` or `sqs`; the layer has the data of no other service."""
    return boto3.client(service, config=CONFIG)  # type: ignore[call-overload]

"""Clients of AWS, by botocore alone: boto3 would make the same ones, after an import that every cold start pays for."""

from functools import cache
from typing import Any

from botocore.config import Config
from botocore.session import Session

# At the worst (three tries, each timing out) 8 s: within what a request keeps back to settle its operation.
CONFIG = Config(
    connect_timeout=1,
    read_timeout=1.5,
    tcp_keepalive=True,
    retries={"mode": "standard", "total_max_attempts": 3},
    parameter_validation=False,  # the tests do it, and AWS does
    user_agent="crm-bridge",  # else botocore describes machine and configuration anew for each request
)


@cache
def session() -> Session:
    """The one of this process. Whoever wants another profile or region says so to it before the first client."""
    return Session()


def client(service: str) -> Any:
    """A new client of `dynamodb`, `secretsmanager` or `sqs`; the layer knows no other service."""
    return session().create_client(service, config=CONFIG)

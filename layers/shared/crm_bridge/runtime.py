"""The services of a function: built once per execution environment from its environment variables, at first use."""

import gc
import os
import random
import time
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

from crm_bridge import aws
from crm_bridge.engine import Engine
from crm_bridge.outbound.breaker import Breaker
from crm_bridge.outbound.public_addresses import local_hosts
from crm_bridge.outbound.queues import Queues
from crm_bridge.outbound.transport import Transport
from crm_bridge.storage.api_keys import ApiKeys
from crm_bridge.storage.links import Links
from crm_bridge.storage.operations import Operations
from crm_bridge.tenants import Tenants
from crm_bridge.token_buckets import TokenBuckets

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

    from crm_bridge.cache import Cache
    from crm_bridge.outbound.oauth import Tokens
    from crm_bridge.storage.documents import Documents
    from crm_bridge.storage.locks import Locks
    from crm_bridge.storage.requests import Requests


class Clock:
    """Epoch seconds. `ahead` is how far a test or the demo has moved the time on."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead

    def microseconds(self) -> int:
        """Return the epoch time at which a request came, by which changes are ordered."""
        return int(self() * 1_000_000)


@dataclass(frozen=True)
class Runtime:
    """Services that only some functions use are imported at first use: no other cold start waits for them."""

    clock: Clock
    dynamodb: "DynamoDBClient"
    operations: Operations
    links: Links
    keys: ApiKeys
    tenants: Tenants
    transport: Transport
    queues: Queues

    @cached_property
    def engine(self) -> Engine:
        # The command line's environment has no workers: what it makes due waits for the dispatcher.
        queues = self.queues if self.queues.workers else None
        return Engine(self, self.tenants, self.transport, queues=queues)

    @cached_property
    def cache(self) -> "Cache":
        from crm_bridge.cache import Cache

        return Cache(self.clock)

    @cached_property
    def locks(self) -> "Locks":
        from crm_bridge.storage.locks import Locks

        return Locks(self.dynamodb, os.environ["LOCKS_TABLE"])

    @cached_property
    def source_buckets(self) -> TokenBuckets:
        """Limits how many requests a source may send, as `keys` does for an API key."""
        return _buckets(self.clock)

    @cached_property
    def requests(self) -> "Requests":
        from crm_bridge.storage.requests import Requests

        return Requests(self.dynamodb, os.environ["REQUESTS_TABLE"], self.clock)

    @cached_property
    def people(self) -> "Documents":
        return self._documents(os.environ["PEOPLE_TABLE"])

    @cached_property
    def tokens(self) -> "Tokens":
        from crm_bridge.outbound.oauth import Tokens

        return Tokens(self._documents(os.environ["TOKENS_TABLE"]), self.clock)

    def _documents(self, table: str) -> "Documents":
        from crm_bridge.storage.documents import Documents

        return Documents(self.dynamodb, table)


def _buckets(clock: Clock) -> TokenBuckets:
    return TokenBuckets(float(os.environ["KEY_RATE"]), int(os.environ["KEY_BURST"]), clock)


@cache
def runtime() -> Runtime:
    """Return the services. Raises KeyError with the name of a missing variable (`Globals` in template.yaml)."""
    clock = Clock()
    client = aws.client("dynamodb")
    operations = Operations(client, os.environ["OPERATIONS_TABLE"])
    links = Links(client, os.environ["LINKS_TABLE"])
    key_headers = tuple(name.strip().lower() for name in os.environ["API_KEY_HEADERS"].split(",") if name.strip())
    tenants = Tenants(aws.client("secretsmanager"), os.environ["SECRET_PREFIX"])
    transport = Transport(breaker=Breaker(clock), on_this_machine=local_hosts())
    queues = Queues(lambda: aws.client("sqs"), os.environ)
    if not gc.isenabled():
        gc.freeze()  # nor is it looked through later
        gc.enable()
    made = Runtime(
        clock=clock,
        dynamodb=client,
        operations=operations,
        links=links,
        keys=ApiKeys(client, os.environ["API_KEYS_TABLE"], key_headers, _buckets(clock), clock),
        tenants=tenants,
        transport=transport,
        queues=queues,
    )
    _ = made.engine  # made by one thread, for all
    return made


def begin_anew() -> None:
    """Seed the random numbers, and drop the services: each copy of a snapshot makes its own."""
    random.seed()
    runtime.cache_clear()


if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
    # The only thing that happens at import, because the snapshot is taken right after it.
    # Source: https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html
    from snapshot_restore_py import register_after_restore, register_before_snapshot

    # What is made once is made quickly ever after. It asks nobody, so neither secret nor connection is in the snapshot.
    register_before_snapshot(runtime)
    register_after_restore(begin_anew)

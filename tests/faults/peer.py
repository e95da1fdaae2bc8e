"""The usual construction, as a peer: Powertools' idempotency around a plain POST to the same illu, for the same caller.

It is configured as its documentation recommends: a key out of the event, the handler decorated, so that the record of a
run that died expires with the function's timeout, records kept for a day, and an error raised for whatever is no
success, so that the record is dropped and the caller's next request is sent. The timeouts are the bridge's own.
Source: https://docs.aws.amazon.com/powertools/python/latest/utilities/idempotency/
"""

import datetime
import json
import os
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Self

import boto3
import requests
from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig, idempotent

from crm_bridge import aws
from crm_bridge.outbound import transport
from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import Operation
from local.gateway import Gateway
from local.template import ApiRoute, Function
from tests.faults import events
from tests.faults.harness import World
from tests.stack import Stack

FUNCTION = Function("Peer", f"{__name__}.lambda_handler", 29, {})
_DAY = 24 * 3600


def lambda_handler(event: Mapping[str, Any], context: Any) -> Any:
    return _handler()(event, context)


@cache
def _handler() -> Callable[[Mapping[str, Any], Any], Any]:
    _follow_the_moved_clock()
    store = DynamoDBPersistenceLayer(table_name=os.environ["PEER_TABLE"], boto_config=aws.CONFIG)
    config = IdempotencyConfig(
        event_key_jmespath="powertools_json(body).customer_id",
        raise_on_no_idempotency_key=True,
        expires_after_seconds=_DAY,
    )

    @idempotent(config=config, persistence_store=store)
    def create_site(event: Mapping[str, Any], _: Any) -> dict[str, object]:
        answer = post_site(json.loads(event["body"]))
        return {"statusCode": 201, "headers": {"Content-Type": "application/json"}, "body": answer.text}

    handler: Callable[[Mapping[str, Any], Any], Any] = create_site
    return handler


def post_site(customer: Mapping[str, object]) -> requests.Response:
    """The response of illu to this customer's site. Raise requests.RequestException if it is no success."""
    illu = json.loads(os.environ["PEER_ILLU"])
    answer = requests.post(
        f"{illu['base_url']}/orgs/{illu['org_id']}/sites",
        json={name: value for name, value in customer.items() if name != "customer_id"},
        headers={
            "Authorization": f"Bearer {illu['api_key']}",
            "User-Agent": transport.USER_AGENT,  # by which the harness knows whose call it is
        },
        timeout=(transport.CONNECT_TIMEOUT, transport.READ_TIMEOUT),
    )
    answer.raise_for_status()
    return answer


def illu_settings(stack: Stack) -> str:
    """The value of PEER_ILLU, which `post_site` reads."""
    return json.dumps(json.loads(stack.demo_tenant())["illu"])


def _follow_the_moved_clock() -> None:
    """Powertools asks `datetime` for the time; here that is the time of the world."""

    class Moved(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Self:
            return super().now(tz) + datetime.timedelta(seconds=runtime().clock.ahead)

    follows = SimpleNamespace(**{**vars(datetime), "datetime": Moved})
    for module in ("base", "persistence.base", "persistence.datarecord", "persistence.dynamodb"):
        import_module(f"aws_lambda_powertools.utilities.idempotency.{module}").dt = follows  # type: ignore[attr-defined]


def create_site(number: int) -> events.Event:
    """The same event, for the peer, which keeps no links."""
    ours = events.create_site(number)
    return events.Event(
        "peer: Powertools idempotency", ours.writes, ours.method, lambda _: "/peer", ours.body, ours.held, ours.wanted
    )


class PeerWorld(World):
    """The peer in the place of the bridge."""

    def made(self, aws_endpoint: str | None) -> Stack:
        stack = super().made(aws_endpoint)
        stack.gateway = Gateway([ApiRoute("POST", "/peer", FUNCTION.name)], {FUNCTION.name: FUNCTION})
        return stack

    def __enter__(self) -> Self:
        super().__enter__()
        os.environ["PEER_TABLE"] = "peer"
        os.environ["PEER_ILLU"] = illu_settings(self.stack)
        boto3.client("dynamodb").create_table(
            TableName="peer",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        return self

    def start_cold(self) -> None:
        _handler.cache_clear()
        super().start_cold()

    def operations(self) -> list[Operation]:
        """It has none: what is not done when its caller gives up is lost."""
        return []

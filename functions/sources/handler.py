"""Entry of sources: requests of senders in, their events accepted; requests that were refused, and the quarantine."""

from collections.abc import Mapping
from typing import Any

from crm_bridge.inbound.api import LambdaContext, respond
from crm_bridge.runtime import runtime
from sources import requests, trying
from sources.intake import ROUTE, take_in

ROUTES = requests.ROUTES | trying.ROUTES
SCOPES = requests.SCOPES | trying.SCOPES


def lambda_handler(event: Mapping[str, Any], context: LambdaContext) -> Mapping[str, object]:
    if event.get("routeKey") == ROUTE:
        return take_in(event, context)
    return respond(event, context, ROUTES, function="sources", scopes=SCOPES, keys=runtime().keys)

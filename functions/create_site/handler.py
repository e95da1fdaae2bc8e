"""Entry of create_site: HTTP and queue events in, answers out."""

from collections.abc import Mapping
from typing import Any

from create_site.flow import CreateSiteFlow
from crm_bridge.api import Context, Request, Response, respond, run_flow
from crm_bridge.runtime import runtime
from crm_bridge.worker import consume

FLOW = CreateSiteFlow()


def _create(request: Request) -> Response:
    return run_flow(runtime().engine, FLOW, request)


ROUTES = {"POST /sites": _create}


def lambda_handler(event: Mapping[str, Any], context: Context) -> Mapping[str, object]:
    if "Records" in event:
        return consume(event, context, runtime().engine, FLOW)
    return respond(event, context, ROUTES, function=FLOW.name, keys=runtime().keys)

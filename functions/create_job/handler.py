"""Entry of create_job: HTTP and queue events in, answers out."""

from collections.abc import Mapping
from typing import Any

from create_job.flow import CreateJobFlow, CustomerSites
from crm_bridge.api import Context, Request, Response, respond, run_flow
from crm_bridge.runtime import runtime
from crm_bridge.worker import consume


def flow() -> CreateJobFlow:
    return CreateJobFlow(CustomerSites(runtime().links, runtime().operations, runtime().engine))


def _create(request: Request) -> Response:
    return run_flow(runtime().engine, flow(), request)


ROUTES = {"POST /jobs": _create}


def lambda_handler(event: Mapping[str, Any], context: Context) -> Mapping[str, object]:
    if "Records" in event:
        return consume(event, context, runtime().engine, flow())
    return respond(event, context, ROUTES, function="create_job", keys=runtime().keys)

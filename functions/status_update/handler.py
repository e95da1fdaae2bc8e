"""Entry of status_update: HTTP and queue events in, answers out."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from crm_bridge.api import Context, Request, Response, carry, received, respond, told, validated
from crm_bridge.errors import FieldError, InvalidError
from crm_bridge.runtime import runtime
from crm_bridge.vendors.izzitup import ServiceStatus
from crm_bridge.worker import consume
from status_update.flow import StatusUpdateFlow
from status_update.models import NewStatus, UpdateStatus

AHEAD = timedelta(minutes=5)
"""So far a CRM's clock may be ahead of ours; what is further on is a mistake."""


def flow() -> StatusUpdateFlow:
    return StatusUpdateFlow(runtime().memory, runtime().accounts, runtime().operations, runtime().clock)


def _list(request: Request) -> Response:
    services = runtime().engine.signed_in(
        flow(), request.caller.tenant, request.deadline, lambda statuses: statuses.services(max_age=0)
    )
    names = {str(int(status)): status.name.lower() for status in ServiceStatus}
    shown = [
        {**service.model_dump(exclude_none=True), "status_name": names.get(service.status)}
        for service in services
        if service.hidden != "1"
    ]
    return Response(200, {"services": shown})


def _update(request: Request) -> Response:
    now = datetime.fromtimestamp(runtime().clock(), UTC)
    sent, mapping = received(runtime().engine, flow(), request, NewStatus)
    if sent.occurred_at and sent.occurred_at > now + AHEAD:
        raise InvalidError(
            "Correct the fields named in errors.",
            fields=[FieldError("occurred_at", f"is in the future; here it is {now:%Y-%m-%dT%H:%M:%SZ}")],
        )
    command = validated(
        UpdateStatus,
        {
            "service": request.path["service"],
            "status": int(sent.status),
            "occurred_at": sent.occurred_at or now,
            "arrived_at": now,
        },
    )
    outcome = carry(runtime().engine, flow(), request, command, mapping)
    return told(replace(outcome, changed=False), done=200)  # all that a status says is in its event key


ROUTES = {"GET /services": _list, "PUT /services/{service}/status": _update}


def lambda_handler(event: Mapping[str, Any], context: Context) -> Mapping[str, object]:
    if "Records" in event:
        return consume(event, context, runtime().engine, flow())
    return respond(event, context, ROUTES, function=StatusUpdateFlow.name, keys=runtime().keys)

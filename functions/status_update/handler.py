"""Entry of status_update: HTTP and queue events in, responses out."""

from datetime import UTC, datetime, timedelta

from crm_bridge import Function
from crm_bridge.errors import FieldError, InvalidError
from crm_bridge.inbound.api import Request, Response, ask, receive, run, to_response, validated
from crm_bridge.runtime import runtime
from status_update.flow import UpdateStatus
from status_update.models import NewStatus, StatusChange

AHEAD = timedelta(minutes=5)
"""So far a CRM's clock may be ahead of ours; what is further on is a mistake."""


def _list(request: Request) -> Response:
    shown = [
        {**service.model_dump(exclude_none=True), "status_name": service.status_name}
        for service in ask(request, UpdateStatus, UpdateStatus.services)
        if service.hidden != "1"
    ]
    return Response(200, {"services": shown})


def _update(request: Request) -> Response:
    now = datetime.fromtimestamp(runtime().clock(), UTC)
    sent, mapping = receive(request, UpdateStatus.function, NewStatus)
    if sent.occurred_at and sent.occurred_at > now + AHEAD:
        raise InvalidError(
            "Correct the fields named in errors.",
            fields=[FieldError("occurred_at", f"is in the future; here it is {now:%Y-%m-%dT%H:%M:%SZ}")],
        )
    command = validated(
        StatusChange,
        {
            "service": request.path["service"],
            "status": int(sent.status),
            "occurred_at": sent.occurred_at or now,
            "arrived_at": now,
        },
    )
    return to_response(run(request, UpdateStatus, command, mapping), UpdateStatus)


ROUTES = {"GET /services": _list, "PUT /services/{service}/status": _update}

lambda_handler = Function("status_update", UpdateStatus, routes=ROUTES)

"""Entry of status_update: HTTP and queue events in, responses out."""

from datetime import UTC, datetime

from crm_bridge import Function
from crm_bridge.inbound.api import Request, Response, ask, receive, run, to_response, validated
from crm_bridge.runtime import runtime
from status_update.flow import UpdateStatus, change_of
from status_update.models import NewStatus, ServiceStatusSent


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
    members = {"service": request.path["service"], "status": int(sent.status), "occurred_at": sent.occurred_at or now}
    command = change_of(validated(ServiceStatusSent, members), now)
    return to_response(run(request, UpdateStatus, command, mapping), UpdateStatus)


ROUTES = {"GET /services": _list, "PUT /services/{service}/status": _update}

lambda_handler = Function("status_update", UpdateStatus, routes=ROUTES)

"""Keeps the authenticated requests that were refused, so that their senders and support can find them afterwards."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import JsonValue

from crm_bridge.errors import (
    MOST_ERRORS,
    FieldError,
    RefusedByVendorError,
    RunningError,
    StorageError,
    TooManyRequestsError,
    UnavailableError,
)
from crm_bridge.mapping import shape_of
from crm_bridge.runtime import runtime
from crm_bridge.settings import KEEP_REQUESTS_DAYS
from crm_bridge.storage.requests import RequestState, ids_in, shape_as_json
from crm_bridge.telemetry import count, logger, report_defect

if TYPE_CHECKING:
    from crm_bridge.inbound.api import LambdaContext, Response

NOT_KEPT = frozenset({TooManyRequestsError.kind, RunningError.kind})
"""Their callers send the same again, and are throttled so that they cost little, or have an operation."""
LEAST_TIME = 10_000
"""Milliseconds that must be left: in the worst case a write takes 8 s."""


def keep_refused(
    response: "Response",
    context: "LambdaContext",
    *,
    tenant: str,
    route: str,
    sender: str,
    body: JsonValue,
    ids: Iterable[str] = (),
    settings_of: Sequence[str],
) -> None:
    """Store a request that was refused with this response. Never raises: nothing changes for its caller.

    `body` is the JSON of the request, None if it could not be read; `ids` are those in the path.
    """
    problem = response.body if isinstance(response.body, Mapping) else {}
    kind = str(problem.get("type", "")).rpartition(":")[2]
    if kind in NOT_KEPT:
        return
    try:
        if context.get_remaining_time_in_millis() < LEAST_TIME:
            raise StorageError("no time was left")
        if days := days_kept(tenant, settings_of):
            refused = runtime().requests.new(
                tenant,
                RequestState.REFUSED,
                days,
                route=route,
                sender=sender,
                ids=ids_in(body, ids),
                status=response.status,
                problem=kind,
                errors=_errors(problem),
                shape=shape_as_json(shape_of(body)) if body is not None else None,
                request_id=context.aws_request_id,
                operation_id=problem.get("operation_id"),
            )
            runtime().requests.keep(refused)
    except UnavailableError:
        logger().warning("request not kept")
        count("RequestsNotKept")
    except Exception as error:  # noqa: BLE001 - the entry: its caller gets the response all the same
        report_defect(error)


def days_kept(tenant: str, settings_of: Sequence[str]) -> int:
    """Return for how many days the tenant wants requests to be kept, as the first part says that there is.

    Raises StorageError.
    """
    for function in settings_of:
        if settings := runtime().tenants.find(tenant, function):
            return settings.keep_requests_days
    return KEEP_REQUESTS_DAYS


def _errors(problem: Mapping[str, object]) -> tuple[FieldError, ...]:
    """Return the fields in error. A vendor's words are left out, since they may repeat what was sent."""
    errors = problem.get("errors")
    if not isinstance(errors, list):
        return ()
    is_vendors = str(problem.get("type", "")).endswith(f":{RefusedByVendorError.kind}")
    return tuple(
        FieldError(error["field"], "was refused by the vendor" if is_vendors else error["message"])
        for error in errors[:MOST_ERRORS]
    )

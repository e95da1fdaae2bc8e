"""The HTTP entry: API Gateway's event in, authenticated and parsed, the route's answer or a problem document out.

API Gateway has matched the route already and names it in `routeKey`, so there is nothing left to route but a table.
"""

import base64
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import pydantic_core
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2
from pydantic import BaseModel, JsonValue, ValidationError

from crm_bridge.engine import Outcome
from crm_bridge.errors import (
    LONGEST_FIELD,
    MOST_ERRORS,
    BrokenContractError,
    ConflictError,
    ContractBrokenError,
    Event,
    FieldError,
    ForbiddenError,
    InternalError,
    InvalidError,
    MissingError,
    NeedlessError,
    NoSuchRecordError,
    NotFoundError,
    NotJsonError,
    OpposedError,
    ProblemError,
    RefusedByVendorError,
    RefusedError,
    RunningError,
    TooLargeError,
    UnavailableError,
    UnsupportedMediaTypeError,
    VendorError,
    WrongFieldError,
)
from crm_bridge.flow import Flow
from crm_bridge.inbound.unknown_fields import known_fields, unknown_field
from crm_bridge.mapping import PayloadMapping
from crm_bridge.media import CharsetError, charset, media_type, text_of
from crm_bridge.outbound.transport import RESERVE, Deadline
from crm_bridge.runtime import runtime
from crm_bridge.storage.api_keys import ApiKeys, Caller
from crm_bridge.storage.operation import State, as_time
from crm_bridge.telemetry import add_to_log, bind_log, log_response, report_defect
from crm_bridge.tenants import MAPPING_MAX_AGE

MAX_BODY = 128 * 1024
JSON = "application/json"
CHANGED = "Already processed with a different payload. This one was not sent."
OLDER = "A later change of the same record came first."
PROBLEM_TYPE = "urn:crm-bridge:problem:"
REQUEST_ID = "X-Request-Id"
"""The header of every response: Lambda's id of the request, which the log has as `request_id`."""
DOC_URL = "docs/problems.md#"
"""Before a problem's type: its place in the documentation, relative to the repository, which has no other address."""


class LambdaContext(Protocol):
    """The part of Lambda's context object that the bridge uses."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int: ...


@dataclass(frozen=True)
class Request:
    """One authenticated request. Its repr shows neither its body nor its headers."""

    caller: Caller
    deadline: Deadline
    path: Mapping[str, str] = field(repr=False)
    """The route's parameters, decoded."""
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    query: Mapping[str, str] = field(repr=False, default_factory=dict)
    _parsed: list[JsonValue] = field(init=False, repr=False, default_factory=list)
    """The body once it was read."""

    @property
    def parsed(self) -> JsonValue:
        """Return the body's JSON if a route has read it; else None."""
        return self._parsed[0] if self._parsed else None

    @property
    def wants_later(self) -> bool:
        """Return whether the caller would rather have a 202 at once than wait for the vendor (RFC 7240)."""
        preferences = self.headers.get("prefer", "").lower().split(",")
        return "respond-async" in [preference.split(";")[0].strip() for preference in preferences]

    def parse[M: BaseModel](self, model: type[M]) -> M:
        """Return the body as `model`. Raises the ProblemError that says what is wrong with it, field by field."""
        parsed = self.json()
        if not isinstance(parsed, dict):
            raise InvalidError("Send one JSON object.", fields=[FieldError("", "must be an object")])
        return validated(model, parsed)

    def query_as[M: BaseModel](self, model: type[M]) -> M:
        """Return the parameters after the `?` as `model`. Raises InvalidError."""
        return validated(model, self.query)

    def json(self) -> JsonValue:
        """Return the body. Raises TooLargeError, UnsupportedMediaTypeError, NotJsonError, InvalidError."""
        if not self._parsed:
            self._parsed.append(self._read())
        return self._parsed[0]

    def _read(self) -> JsonValue:
        if len(self.body) > MAX_BODY:
            raise TooLargeError(f"Send at most {MAX_BODY} bytes.")
        kind = media_type(self.headers.get("content-type", "")) or JSON
        if kind != JSON and not kind.endswith("+json"):
            raise UnsupportedMediaTypeError(f"Send the body as JSON, with the header 'Content-Type: {JSON}'.")
        if not self.body.strip():
            raise NotJsonError("The body is empty. Send a JSON object.")
        try:
            return json_value(text_of(self.body, charset(self.headers.get("content-type", ""))))
        except CharsetError as error:
            raise NotJsonError(f"The body cannot be read as JSON in UTF-8: {error}.") from None


def mapped[M: BaseModel](payload: JsonValue, model: type[M], flow: str, mapping: PayloadMapping) -> M:
    """Return what `mapping` makes of a payload, as `model`. Raises InvalidError."""
    yielded = mapping.apply(flow, payload)
    try:
        return validated(model, yielded)
    except InvalidError as error:
        raise InvalidError(
            f"The tenant's mapping {mapping.label} made no valid command of the payload. Correct one of them.",
            fields=error.fields,
            extensions={"mapping": mapping.explained(payload, yielded)},
        ) from None


def json_value(text: str) -> JsonValue:
    """Return the JSON in a text. Raises NotJsonError, and InvalidError for duplicate members and infinite numbers."""
    try:
        parsed: JsonValue = pydantic_core.from_json(text, allow_inf_nan=False)
        # Whole numbers are not looked at here, and some would take long.
        json.loads(text, object_pairs_hook=once, parse_int=str, parse_float=_finite)
    except ValueError as error:
        raise NotJsonError(f"The body cannot be read as JSON in UTF-8: {error}.") from None
    return parsed


def _finite(number: str) -> float:
    """Return a number of JSON. Raises InvalidError if it is too large, as 1e999: it would be written as Infinity."""
    value = float(number)
    if math.isinf(value):
        raise InvalidError("A number in the body is too large. Send numbers of at most 1.7e308.")
    return value


def once(members: Sequence[tuple[str, object]]) -> dict[str, object]:
    """Return an object's members. Raises InvalidError for duplicates, of which JSON parsers keep the first or the last.

    An `object_pairs_hook`. Source: https://www.rfc-editor.org/rfc/rfc8259#section-4
    """
    found = dict(members)
    if len(found) < len(members):
        times = Counter(name for name, _ in members)
        twice = sorted(name for name in found if times[name] > 1)[:MOST_ERRORS]
        raise InvalidError.of(*[FieldError(name, "appears more than once") for name in twice])
    return found


def validated[M: BaseModel](model: type[M], members: Mapping[str, object], context: str | None = None) -> M:
    """Raises InvalidError, which names the wrong fields, at most MOST_ERRORS of them, and repeats no value."""
    try:
        return model.model_validate(members, context=context)
    except ValidationError as error:
        more = error.error_count() - MOST_ERRORS
        detail = "Correct the fields named in errors." + (f" {more} more are wrong." if more > 0 else "")
        raise InvalidError(detail, fields=_field_errors(error, model)) from None


def _field_errors(error: ValidationError, model: type[BaseModel]) -> list[FieldError]:
    found: list[FieldError] = []
    is_known_told = False
    for detail in error.errors(include_url=False)[:MOST_ERRORS]:
        name = ".".join(str(part) for part in detail["loc"])[:LONGEST_FIELD]
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            known = known_fields(model, detail["loc"][:-1])
            message = unknown_field(str(detail["loc"][-1])[:LONGEST_FIELD], known)
            if len(detail["loc"]) == 1 and not is_known_told and not message.endswith("?"):
                message += f"; known are {', '.join(known)}"
                is_known_told = True
        elif detail["type"] == "missing" or detail["input"] is None:  # null is the same as left out
            message = "is required"
        found.append(FieldError(name, message))
    return found


@dataclass(frozen=True)
class Response:
    """`body` is sent as JSON, or as it is if it is text; None is no body at all."""

    status: int
    body: Mapping[str, object] | str | None = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JsonResponse[B: Mapping[str, object]](Response):
    """A response whose body has a type. docs/openapi.json is made of it."""

    body: B = field(repr=False)


type Route = Callable[[Request], Response]
type Language = Callable[[str, Mapping[str, str], Response], Response]
"""Puts a response, a problem as well, into what the caller of this route with these headers (names in lower case)
understands."""


def respond(
    event: Mapping[str, Any],
    context: LambdaContext,
    routes: Mapping[str, Route],
    *,
    function: str,
    keys: ApiKeys,
    scopes: Mapping[str, str] | None = None,
    language: Language | None = None,
    settings_of: Sequence[str] = (),
) -> dict[str, object]:
    """Answer an API Gateway HTTP API event (payload format 2.0). Never raises: what fails becomes a problem document.

    `function` is its name in the log, and the scope that a key needs for a route that `scopes` does not name.
    `settings_of` are the functions whose part of the tenant's settings this one may read; by default its own.
    An authenticated request that is refused is kept, see `refusals`.

    Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
    """
    proxied = APIGatewayProxyEventV2(dict(event))
    route = str(proxied.get("routeKey"))
    request_id = context.aws_request_id
    bind_log(flow=function, request_id=request_id, route=route)
    headers = proxied.headers  # their names in lower case
    request: Request | None = None

    def routed() -> Response:
        nonlocal request
        request = _request(proxied, context, headers, keys)
        keys.take_token(request.caller)
        scope = (scopes or {}).get(route, function)
        if scope not in request.caller.scopes:
            raise ForbiddenError(f"This API key lacks the scope {scope}.")
        if route not in routes:
            raise NotFoundError(f"There is no route {route}.")
        return routes[route](request)

    response = answered(routed, request_id)
    if request is not None and 400 <= response.status < 500:
        from crm_bridge.inbound.refusals import keep_refused

        keep_refused(
            response,
            context,
            tenant=request.caller.tenant,
            route=route,
            sender=request.caller.label,
            body=request.parsed,
            ids=request.path.values(),
            settings_of=settings_of or (function,),
        )
    log_response(response.status)
    return as_lambda(language(route, headers, response) if language else response, request_id)


def answered(make: Callable[[], Response], request_id: str) -> Response:
    """Return the response that `make` returns, or the problem document of what it raises. Never raises."""
    try:
        response = make()
    except ProblemError as problem:
        response = to_problem(problem)
    except VendorError as error:
        response = to_problem(_as_problem(error))
    except Exception as error:  # noqa: BLE001 - the entry: nothing may leave the function unanswered
        report_defect(error)
        response = to_problem(
            InternalError("The bridge failed. An accepted event is kept. It is safe to send it again.")
        )
    if isinstance(response.body, Mapping) and "doc_url" in response.body:
        return replace(response, body={**response.body, "request_id": request_id})
    return response


def _request(
    event: APIGatewayProxyEventV2, context: LambdaContext, headers: Mapping[str, str], keys: ApiKeys
) -> Request:
    """Return the request, whose caller is known then. Raises UnauthenticatedError, StorageError."""
    caller = keys.caller(headers)
    add_to_log(tenant=caller.tenant, api_key=caller.label)
    return Request(
        caller=caller,
        deadline=deadline_of(context),
        path=event.path_parameters,
        headers=headers,
        body=body_of(event),
        query=event.query_string_parameters,
    )


def deadline_of(context: LambdaContext) -> Deadline:
    return Deadline(context.get_remaining_time_in_millis() / 1000 - RESERVE)


def body_of(event: APIGatewayProxyEventV2) -> bytes:
    """Return the body. `decoded_body` fails on what is not UTF-8, and `json_body` takes NaN."""
    body = event.body or ""
    return base64.b64decode(body) if event.is_base64_encoded else body.encode()


def receive[M: BaseModel](request: Request, function: str, model: type[M]) -> tuple[M, str | None]:
    """Return what the caller sent as `model`, and the name of the mapping that made it, if the tenant has one.

    A mapping is at most MAPPING_MAX_AGE old. What it makes nothing valid of is taken as it is, if that is valid and the
    mapping says nothing else: so a sender of the flow's own payloads works beside it. Raises ProblemError.
    """
    request.json()  # what is no JSON is none for every tenant
    tenant, tenants = request.caller.tenant, runtime().tenants
    if tenants.get(tenant, function).mappings.of(function) is None:
        try:
            return request.parse(model), None
        except InvalidError:
            if tenants.get(tenant, function, max_age=MAPPING_MAX_AGE).mappings.of(function) is None:
                raise  # else the first one was stored since
    found = tenants.get(tenant, function, max_age=MAPPING_MAX_AGE).mappings.of(function)
    if found is None:
        return request.parse(model), None
    try:
        return mapped(request.json(), model, function, found), found.label
    except InvalidError as problem:
        if not found.contradicts(function, request.json()):
            with suppress(InvalidError):
                return request.parse(model), None
        raise problem


def run[C: BaseModel](
    request: Request,
    flow: type[Flow[C, Any, Any]],
    command: C,
    mapping: str | None = None,
    *,
    notes_changed: bool = True,
) -> Outcome:
    """Run a flow for the caller of a request; see `Engine.run`."""
    return runtime().engine.run(
        flow,
        command,
        tenant=request.caller.tenant,
        deadline=request.deadline,
        later=request.wants_later,
        mapping=mapping,
        notes_changed=notes_changed,
    )


def ask[F: Flow[Any, Any, Any], T](request: Request, flow: type[F], question: Callable[[F, Any], T]) -> T:
    """Return the response of a vendor to a question that changes nothing. It gets the flow, and the vendor's client.

    Raises VendorError, NotConfiguredError.
    """
    run = runtime().engine.bind(flow, request.caller.tenant, request.deadline)
    return runtime().engine.ask(run, lambda vendor: question(run, vendor))


def to_response(outcome: Outcome, flow: type[Flow[Any, Any, Any]]) -> Response:
    """Return the response to a caller. Raises ProblemError."""
    operation, error = outcome.operation, outcome.error
    if error and (operation.state is State.REJECTED or isinstance(error, ContractBrokenError)):
        raise _as_problem(error, operation.operation_id)
    known = outcome.result if operation.state is State.SUCCEEDED else None
    body = {**json.loads(known or operation.result or "{}"), "operation_id": operation.operation_id}
    if outcome.changed:
        body |= _changed(outcome, flow, is_older="ignored" in body)
    if operation.state is State.SUCCEEDED:
        is_done_now = outcome.ran and operation.attempts[-1].event is Event.DONE
        return Response(flow.success if is_done_now else 200, body)
    if operation.state is State.SENDING and operation.notifies:
        # The write that settled it got no response. If it was made, nobody is told any more; so it is no 202.
        raise RunningError(
            "The bridge does not know whether the outcome was stored. Send it again after the time in Retry-After.",
            headers={"Retry-After": "2"},
            operation_id=operation.operation_id,
        )
    body |= {"state": operation.state, "due_at": as_time(operation.due_at)}
    if operation.attempts and not outcome.changed:  # the vendor's words may repeat what somebody else sent
        body["reason"] = operation.attempts[-1].reason
    return Response(202, body, {"Location": f"/operations/{operation.operation_id}"})


def _changed(outcome: Outcome, flow: type[Flow[Any, Any, Any]], *, is_older: bool) -> dict[str, object]:
    """Return the members of a response to an event that came with a different payload than before."""
    if outcome.applied and not is_older:
        return {"changed": True, "applied": True}
    why = OLDER if is_older else outcome.not_applied or flow.update.text
    return {"changed": True, "applied": False, "not_applied": why, "warnings": [CHANGED]}


_PROBLEMS: tuple[tuple[type[VendorError], type[ProblemError]], ...] = (
    (ContractBrokenError, BrokenContractError),
    (MissingError, ConflictError),
    (OpposedError, ConflictError),
    (NeedlessError, ConflictError),
    (NoSuchRecordError, NotFoundError),
    (WrongFieldError, InvalidError),
    (RefusedError, RefusedByVendorError),
    (VendorError, UnavailableError),
)
"""The problem for a caller who waits for a vendor, by the vendor's error; the first that fits counts."""


def _as_problem(error: VendorError, operation_id: str | None = None) -> ProblemError:
    kind = next(problem for cause, problem in _PROBLEMS if isinstance(error, cause))
    detail = error.message.removesuffix(".")
    if operation_id and kind is BrokenContractError:
        detail += ". The event is kept, and the bridge goes on with it by itself."
    elif kind in (BrokenContractError, UnavailableError):
        detail += ". Send the same request again."
    headers = {"Retry-After": str(math.ceil(error.retry_after))} if error.retry_after else None
    fields = error.fields if isinstance(error, RefusedError) else ()
    return kind(detail, fields=fields, headers=headers, operation_id=operation_id)


def to_problem(problem: ProblemError) -> Response:
    """Return the response of a problem. Source: https://www.rfc-editor.org/rfc/rfc9457"""
    body: dict[str, object] = {
        "type": PROBLEM_TYPE + problem.kind,
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "retryable": problem.retryable,
        "doc_url": DOC_URL + problem.kind,
    }
    if problem.operation_id:
        body["operation_id"] = problem.operation_id
    body |= problem.extensions
    if problem.fields:
        body["errors"] = [error.to_response() for error in problem.fields]
    headers = {"Retry-After": str(problem.retry_after), **problem.headers} if problem.retryable else problem.headers
    return Response(problem.status, body, {**headers, "Content-Type": "application/problem+json"})


def as_lambda(response: Response, request_id: str) -> dict[str, object]:
    kind = {} if response.body is None else {"Content-Type": JSON}
    of_all = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", REQUEST_ID: request_id}
    return {
        "statusCode": response.status,
        "headers": {**kind, **of_all, **response.headers},
        "body": response.body if isinstance(response.body, str) else json.dumps(response.body) if response.body else "",
        "isBase64Encoded": False,
    }

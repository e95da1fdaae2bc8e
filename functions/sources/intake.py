"""Takes in a request of a source: proves it, makes commands of its events, stores each, and answers.

Each event is stored by itself, so what was stored before a failure is stored: the sender's repetition finds it. An
event that is not valid goes into quarantine and does not keep the others out.
"""

import hashlib
import json
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple

from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2
from pydantic import JsonValue

from crm_bridge.errors import (
    InternalError,
    InvalidError,
    NotConfiguredError,
    ProblemError,
    RunningError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
)
from crm_bridge.inbound.api import (
    LambdaContext,
    Response,
    answered,
    as_lambda,
    body_of,
    deadline_of,
    to_problem,
)
from crm_bridge.inbound.refusals import keep_refused
from crm_bridge.mapping import shape_of
from crm_bridge.outbound.transport import Deadline
from crm_bridge.runtime import runtime
from crm_bridge.settings import Tenant
from crm_bridge.sources import (
    Incoming,
    SourceEvent,
    SourceSettings,
    answer,
    content_hash,
    receive,
    try_again,
    unauthenticated,
)
from crm_bridge.sources.incoming import MAX_BODY
from crm_bridge.storage.operation import Operation
from crm_bridge.storage.requests import RequestState, ids_in, shape_as_json
from crm_bridge.telemetry import add_to_log, bind_log, count, log_response, logger, report_defect
from crm_bridge.tenants import MAPPING_MAX_AGE
from crm_bridge.vendors import SOURCES
from sources.flows import Mapped, command_of

ROUTE = "POST /in/{tenant}/{source}"
NAME = re.compile("[a-z0-9][a-z0-9-]{0,62}")
AT_ONCE = 10
"""Events that are stored at the same time: as many connections as the AWS client keeps."""
LARGEST_PAYLOAD = 300_000
"""Bytes of an event in quarantine: an item of DynamoDB has at most 400 KB."""


class Kept(StrEnum):
    STORED = "stored"
    REPEATED = "repeated"
    QUARANTINED = "quarantined"
    IGNORED = "ignored"


type Job = Callable[[], Operation | Kept]
"""Stores one event. Returns the operation of one that is new."""


class Invalid(NamedTuple):
    event: SourceEvent
    problem: ProblemError


@dataclass(frozen=True)
class Source:
    """A source of a tenant, whose proof held, during one request."""

    tenant: str
    name: str
    settings: SourceSettings
    part: Tenant
    context: LambdaContext
    deadline: Deadline


def take_in(event: Mapping[str, Any], context: LambdaContext) -> Mapping[str, object]:
    """Answer a request of a sender. Never raises."""
    bind_log(flow=SOURCES, request_id=context.aws_request_id, route=ROUTE)
    request_id = context.aws_request_id
    response = answered(lambda: _taken_in(APIGatewayProxyEventV2(dict(event)), context), request_id)
    log_response(response.status)
    return as_lambda(response, request_id)


def _taken_in(event: APIGatewayProxyEventV2, context: LambdaContext) -> Response:
    incoming = Incoming("POST", event.headers, event.query_string_parameters, body_of(event), _fingerprint(event))
    if len(incoming.body) > MAX_BODY:  # also of whoever does not exist
        raise TooLargeError(f"Send at most {MAX_BODY} bytes.")
    source = _source(event.path_parameters, context)
    unreadable: list[Invalid] = []
    events: list[SourceEvent] = []
    try:
        events = receive(source.settings, incoming, runtime().clock())
    except UnauthenticatedError:
        count("SourceRefused", reason="proof")
        raise unauthenticated() from None
    except ProblemError as problem:  # the sender has proved itself, and may drop what is refused
        if source.settings.proof_used().is_in_body:
            return _refused(source, problem, None)
        unreadable = [Invalid(_unread(incoming.body), problem)]
    add_to_log(tenant=source.tenant, source=source.name)
    if runtime().source_buckets.take(f"{source.tenant}#{source.name}"):
        return try_again(source.settings)
    return _accepted(source, unreadable or [_prepared(source, one) for one in events])


def _fingerprint(event: APIGatewayProxyEventV2) -> str:
    """Return the SHA-256 fingerprint of the client's certificate; empty without mutual TLS.

    Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-mutual-tls.html
    """
    certificate = event.request_context.authentication
    try:
        der = ssl.PEM_cert_to_DER_cert(certificate.client_cert_pem.strip()) if certificate else b""
    except (KeyError, ValueError):
        return ""
    return hashlib.sha256(der).hexdigest() if der else ""


def _unread(body: bytes) -> SourceEvent:
    """Return a body that cannot be split into events as one event, for a person who looks at it."""
    return SourceEvent(hashlib.sha256(body).hexdigest(), body.decode(errors="replace"))


def _source(path: Mapping[str, str], context: LambdaContext) -> Source:
    """Return the source that a path names. Raises UnauthenticatedError, and UnavailableError without a name."""
    tenant, name = path["tenant"], path["source"]
    try:
        part = runtime().tenants.find(tenant, SOURCES, max_age=MAPPING_MAX_AGE) if NAME.fullmatch(tenant) else None
    except NotConfiguredError:  # whose text has the name of the secret
        logger().error("the settings of sources are not valid", extra={"tenant": tenant})
        raise UnavailableError("The event could not be accepted. Send the same request again.") from None
    settings = part.all_sources().get(name) if part else None
    if part is None or settings is None:
        count("SourceRefused", reason="unknown")
        raise unauthenticated()
    return Source(tenant, name, settings, part, context, deadline_of(context))


def _refused(source: Source, problem: ProblemError, body: JsonValue) -> Response:
    response = to_problem(problem)
    keep_refused(
        response,
        source.context,
        tenant=source.tenant,
        route=ROUTE,
        sender=source.name,
        body=body,
        settings_of=(SOURCES,),
    )
    return response


# ---------------------------------------------------------------------- events


def _accepted(source: Source, events: Sequence[Mapped | Invalid | None]) -> Response:
    """Store the events of a request, and return the response to it; None is one that no entry of the settings fits."""
    quarantines = source.settings.invalid == "quarantine" and source.part.keep_requests_days > 0
    refused: list[Invalid] = []
    of_one: dict[str, list[Job]] = {}
    jobs: list[list[Job]] = []
    for event in events:
        match event:
            case None:
                jobs.append([lambda: Kept.IGNORED])
            case Mapped(flow, command):
                one = flow.operation_id(source.tenant, flow().key(command))
                of_one.setdefault(one, []).append(partial(_store, source, event))
            case invalid if quarantines and len(_payload(invalid.event)) <= LARGEST_PAYLOAD:
                jobs.append([partial(_quarantine, source, invalid)])
            case invalid:
                refused.append(invalid)
    # Of several payloads of one event the first counts, as if each had come by itself.
    jobs += of_one.values()
    kept = [one for some in _in_parallel(source, jobs) for one in some]
    stored = [one for one in kept if isinstance(one, Operation)]
    runtime().engine.hand_over(*stored)
    counts = {state.value: kept.count(state) for state in Kept} | {"stored": len(stored)}
    logger().info("received", extra={**counts, "refused": len(refused), "failed": kept.count(None)})
    if None in kept:
        return try_again(source.settings)
    if refused:
        return _refused(source, refused[0].problem, refused[0].event.payload)
    return answer(source.settings, counts)


def _prepared(source: Source, event: SourceEvent) -> Mapped | Invalid | None:
    """Return the command of an event, or what is wrong with it; None if no entry of the settings fits it."""
    try:
        return command_of(source.settings, source.name, event.payload, runtime().clock())
    except InvalidError as problem:
        return Invalid(event, problem)
    except Exception as error:  # noqa: BLE001 - one event must not keep the others out
        report_defect(error)
        return Invalid(event, InternalError("The bridge failed on this event."))


def _in_parallel(source: Source, jobs: Sequence[Sequence[Job]]) -> list[Sequence[Operation | Kept | None]]:
    """Return what the jobs did, those of one event in their order; None if one failed, or if no time was left for it.

    The jobs that follow one that failed are left out.
    """

    def done(job: Job) -> Operation | Kept | None:
        if source.deadline.remaining() <= 0:
            return None
        try:
            return job()
        except (UnavailableError, RunningError):
            return None
        except Exception as error:  # noqa: BLE001 - one event must not keep the others out
            report_defect(error)
            return None

    def run(of_one: Sequence[Job]) -> list[Operation | Kept | None]:
        kept: list[Operation | Kept | None] = []
        for job in of_one:
            kept.append(done(job))
            if kept[-1] is None:
                break
        return kept

    if len(jobs) <= 1:
        return [run(job) for job in jobs]
    with ThreadPoolExecutor(min(AT_ONCE, len(jobs)), initializer=_bind, initargs=(source,)) as threads:
        return list(threads.map(run, jobs))


def _bind(source: Source) -> None:
    """Begin a thread's log."""
    bind_log(flow=SOURCES, request_id=source.context.aws_request_id, tenant=source.tenant, source=source.name)


def _store(source: Source, one: Mapped) -> Operation | Kept:
    """Store an event as waiting, and return its operation if it is new. Raises RunningError, StorageError."""
    claim = runtime().engine.accept(
        one.flow,
        one.command,
        tenant=source.tenant,
        deadline=source.deadline,
        notifies=source.part.has_webhook,
        mapping=one.mapping,
    )
    return claim.operation if claim.won else Kept.REPEATED


def _quarantine(source: Source, invalid: Invalid) -> Kept:
    """Store an event that is not valid, with its payload. Raises StorageError."""
    event, problem = invalid
    mapping = problem.extensions.get("mapping")
    quarantined = runtime().requests.new(
        source.tenant,
        RequestState.QUARANTINED,
        source.part.keep_requests_days,
        route=ROUTE,
        sender=source.name,
        ids=ids_in(event.payload),
        status=problem.status,
        problem=problem.kind,
        errors=problem.fields,
        shape=shape_as_json(shape_of(event.payload)),
        request_id=source.context.aws_request_id,
        mapping=f"{source.name} {mapping['label']}" if isinstance(mapping, dict) else None,
        event_key=event.key,
        content_hash=content_hash(source.settings, event.payload),
        payload=_payload(event),
    )
    if not runtime().requests.quarantine(quarantined):
        return Kept.REPEATED
    logger().warning("quarantined", extra={"quarantined": quarantined.id, "fields": len(problem.fields)})
    count("NeedsReview", reason="quarantined")
    return Kept.QUARANTINED


def _payload(event: SourceEvent) -> str:
    return json.dumps(event.payload, separators=(",", ":"))

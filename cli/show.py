"""`crm-bridge show`: what is known by an id, whatever it is the id of."""

import re
from dataclasses import dataclass, field
from typing import Annotated

import typer
from botocore.exceptions import ClientError

from cli import operations, requests
from cli.bridge import REFUSED, Bridge
from cli.command import WrongInputError
from cli.operations import Payload
from cli.output import moment
from cli.progress import progress_of
from crm_bridge.errors import NotFoundError, StorageError
from crm_bridge.inbound.api import validated
from crm_bridge.responses import OPERATION_ID
from crm_bridge.storage.operation import Operation
from crm_bridge.storage.requests import StoredRequest
from operations.handler import known_by
from sources.models import RequestListing
from sources.requests import EARLIEST, LATEST, find

MOST_TENANTS = 500
"""Tenants in which an id is searched for. Each takes about ten reads."""
HTTP_REQUEST_ID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
"""The form of the header X-Request-Id."""
MOST_REQUESTS = 50

Tenant = Annotated[str | None, typer.Option("--tenant", help="Only look in this tenant. Else in all of them.")]


@dataclass
class _Found:
    """`tenants` are those that were looked in, and `refused` those that the AWS credentials may not read."""

    operations: list[Operation] = field(default_factory=list)
    requests: list[StoredRequest] = field(default_factory=list)
    tenants: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def show(
    bridge: Bridge,
    wanted: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="The id of an operation, of a record in a CRM or at a vendor, or of a request."
        ),
    ],
    tenant: Tenant = None,
    payload: Payload = False,
) -> None:
    """Show everything that has an id: of an operation, a customer, a ticket, a site, a request, ...

    An operation's id says which tenant it is of. Any other id is searched for in all tenants, without --tenant. A
    record of another kind is found as SYSTEM/ENTITY/ID.
    """
    found = _Found()
    if re.fullmatch(OPERATION_ID, wanted):
        operation = bridge.operation(wanted)
        found.operations = [operation] if tenant in (None, operation.tenant) else []
    else:
        validated(RequestListing, {"id": wanted})
        _search(bridge, wanted, [tenant] if tenant else _all_tenants(bridge), found)
    if found.refused:
        bridge.output.notice(f"AWS does not let you read {', '.join(found.refused)}.", style="yellow")
    if not found.operations and not found.requests:
        if tenant:
            bridge.expect_tenant(tenant)
        where = tenant or (found.tenants[0] if len(found.tenants) == 1 else f"{len(found.tenants)} tenants")
        raise NotFoundError(f'No events found for "{wanted}" in {where}.')
    exchanges = operations.exchanges_of(bridge, found.operations)
    bridge.output.document(
        {
            "operations": [
                {"tenant": one.tenant, **operations.document(one, exchanges, payload=payload)}
                for one in found.operations
            ],
            "requests": [{"tenant": one.tenant, **requests.document(one, payload=payload)} for one in found.requests],
        }
    )
    _print(bridge, found, exchanges, payload=payload)


def _all_tenants(bridge: Bridge) -> list[str]:
    try:
        tenants = bridge.tenants()
    except ClientError as error:
        if error.response["Error"]["Code"] not in REFUSED:
            raise
        raise WrongInputError("AWS does not let you list the tenants. Name one with --tenant.") from None
    if len(tenants) > MOST_TENANTS:
        raise WrongInputError(f"There are {len(tenants):,} tenants. Name one with --tenant.")
    return tenants


def _search(bridge: Bridge, wanted: str, tenants: list[str], found: _Found) -> None:
    """Add what is known by the id in these tenants. Raises StorageError."""
    _ = bridge.runtime  # what is below asks for it by itself
    with progress_of(bridge.output, "tenants", len(tenants)) as progress:
        for tenant in tenants:
            try:
                found.operations += known_by(tenant, wanted)
                found.requests += _requests(bridge, tenant, wanted)
                found.tenants.append(tenant)
            except StorageError as error:
                cause = error.__cause__
                if not isinstance(cause, ClientError) or cause.response["Error"]["Code"] not in REFUSED:
                    raise
                found.refused.append(tenant)
            progress.advance("searched")
    found.operations.sort(key=lambda one: one.created_at)


def _requests(bridge: Bridge, tenant: str, wanted: str) -> list[StoredRequest]:
    known, _ = find(tenant, RequestListing(id=wanted, limit=MOST_REQUESTS))
    if known or not re.fullmatch(HTTP_REQUEST_ID, wanted):
        return known
    by_header, _ = bridge.runtime.requests.listed(
        tenant, limit=MOST_REQUESTS, first=EARLIEST, last=LATEST, filters={"request_id": wanted}, after=None
    )
    return by_header


def _print(bridge: Bridge, found: _Found, exchanges: operations.ExchangesOf, *, payload: bool) -> None:
    """Print all of it if there is one thing; else a list, with the command that shows each."""
    output = bridge.output
    if len(found.operations) + len(found.requests) == 1:
        for operation in found.operations:
            operations.print_operation(output, operation, exchanges, payload=payload)
        for request in found.requests:
            requests.print_request(output, request, payload=payload)
        return
    rows = [(one.tenant, one.state, f"{one.flow} {one.event_key}", one.operation_id) for one in found.operations]
    output.table(("tenant", "state", "event", "operation"), rows, head=3)
    refused = [(one.tenant, one.state, moment(one.received_at), one.id) for one in found.requests]
    output.table(("tenant", "state", "received", "request"), refused, head=3)
    output.line(f"`{output.command('show ID')}` shows one of them, by its id in the last column.")

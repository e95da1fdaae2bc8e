"""`crm-bridge tenant key`: the API keys of a tenant."""

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from cli.bridge import Bridge
from cli.command import Name, WrongInputError, command
from cli.output import moment
from crm_bridge.operations import as_time
from crm_bridge.settings import Tenant
from crm_bridge.tenants import KEY_MAX_AGE, hash_api_key, new_api_key
from crm_bridge.vendors import REGISTRY

SCOPES = frozenset(function for entry in REGISTRY if entry.is_for_callers for function in entry.functions) | {
    *("operations:read", "operations:resolve", "operations:payload"),
}
SHORT_HASH = 12
"""So much of a key's hash names it: enough to tell a tenant's keys apart."""
EXPIRES = "365d"
"""How long a key works by default."""

app = typer.Typer(help="The API keys of a tenant.", no_args_is_help=True)

Scopes = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        help="What the key may do; several may be given: a flow (create_site, ...), operations:read to look at "
        "operations and links, operations:resolve to decide, operations:payload to see also what was sent. Without it: "
        "the flows that the tenant uses, which is what its CRM needs.",
    ),
]
Label = Annotated[str, typer.Option(help="Whose key it is. It is in the logs.")]
Expires = Annotated[str, typer.Option(help="Until when the key works: 90d, a day as 2027-06-30, or never.")]


@command(app, "add")
def add_key(bridge: Bridge, name: Name, scope: Scopes = None, label: Label = "CRM", expires: Expires = EXPIRES) -> None:
    """Make an API key. It is shown once; only its hash is stored.

    Give each person who looks after operations a key of their own, not the CRM's:
    --label "Ada, support" --scope operations:read --scope operations:resolve
    """
    store_key(bridge, name, scopes_of_key(scope, bridge.tenant(name)), label, expiry_of_key(expires), bridge.arn)


@command(app, "list")
def list_keys(bridge: Bridge, name: Name) -> None:
    """A tenant's API keys, by the beginnings of their hashes."""
    found = bridge.runtime.keys.of(name)
    now = bridge.runtime.clock()
    shown = [
        {
            "key": key.key_hash[:SHORT_HASH],
            "label": key.label,
            "scopes": sorted(key.scopes),
            "created_at": as_time(key.created_at),
            "created_by": key.created_by,
            "expires_at": as_time(key.expires_at),
            "state": "revoked" if key.disabled else "expired" if key.expires_at and key.expires_at <= now else "valid",
        }
        for key in found
    ]
    bridge.output.document(shown)
    rows = [
        (
            row["key"],
            row["label"],
            " ".join(sorted(key.scopes)),
            moment(key.created_at),
            key.created_by.rpartition("/")[2],
            _day(key.expires_at),
            row["state"],
        )
        for row, key in zip(shown, found, strict=True)
    ]
    bridge.output.table(("key", "label", "scopes", "created", "by", "expires", "state"), rows)


@command(app)
def revoke(
    bridge: Bridge,
    name: Name,
    key: Annotated[str, typer.Argument(help="The key, or the beginning of its hash as `key list` shows it.")],
) -> None:
    """Make an API key useless, for ever."""
    found = [
        one
        for one in bridge.runtime.keys.of(name)
        if one.key_hash == hash_api_key(key) or (len(key) >= SHORT_HASH and one.key_hash.startswith(key))
    ]
    if len(found) != 1:
        raise WrongInputError(
            f"{name} has {'several keys' if found else 'no key'} of this name. See `tenant key list`."
        )
    bridge.runtime.keys.revoke(found[0])
    bridge.output.document({"key": found[0].key_hash[:SHORT_HASH], "label": found[0].label})
    bridge.output.line(f"Revoked: {found[0].label}. It may work for {KEY_MAX_AGE:.0f} seconds more.")


def store_key(
    bridge: Bridge, tenant: str, scopes: frozenset[str], label: str, expires_at: int | None, made_by: str
) -> None:
    key = new_api_key()
    bridge.runtime.keys.add(key, tenant, scopes, label, expires_at=expires_at, created_by=made_by)
    bridge.output.document(
        {
            "tenant": tenant,
            "key": key,
            "scopes": sorted(scopes),
            "label": label,
            "expires_at": as_time(expires_at),
            "created_by": made_by,
        }
    )
    until = "never expires" if expires_at is None else f"expires on {_day(expires_at)}"
    bridge.output.line(f"Its API key is shown only now. It may {', '.join(sorted(scopes))}, and {until}:")
    bridge.output.line()
    bridge.output.line(f"  {key}", style="bold")
    bridge.output.line()


def _day(expires_at: int | None) -> str:
    """The day in UTC on which a key expires, or `never`."""
    return moment(expires_at).partition(" ")[0] or "never"


def expiry_of_key(expires: str) -> int | None:
    """Return epoch seconds, None for `never`. Raises WrongInputError."""
    if expires == "never":
        return None
    now = time.time()
    if days := re.fullmatch("([1-9][0-9]{0,4})d", expires):
        return int(now + timedelta(days=int(days[1])).total_seconds())
    try:
        at = datetime.fromisoformat(expires)
    except ValueError:
        raise WrongInputError("--expires takes a number of days, as 90d, a day, as 2027-06-30, or never.") from None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    if at.timestamp() <= now:
        raise WrongInputError("--expires lies in the past.")
    return int(at.timestamp())


def scopes_of_key(given: Sequence[str] | None, settings: Tenant) -> frozenset[str]:
    if given:
        if unknown := sorted(set(given) - SCOPES):
            raise WrongInputError(f"There is no scope {', '.join(unknown)}; there are {', '.join(sorted(SCOPES))}.")
        return frozenset(given)
    used = used_scopes(settings)
    if not used:
        raise WrongInputError("The settings name no vendor with a flow, so say with --scope what the key may do.")
    return used


def used_scopes(settings: Tenant) -> frozenset[str]:
    """Return the functions for the vendors that a tenant uses, and that callers send events to."""
    return frozenset(
        function
        for entry in REGISTRY
        if entry.is_for_callers and settings.of(entry.vendor().settings_model)
        for function in entry.functions
    )

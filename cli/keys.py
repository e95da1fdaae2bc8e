"""`crm-bridge tenant key`: the API keys of a tenant."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from cli.bridge import Bridge
from cli.command import Name, WrongInputError, command
from cli.output import moment
from crm_bridge.settings import Tenant
from crm_bridge.storage.api_keys import (
    KEY_MAX_AGE,
    PAYLOAD_SCOPE,
    READ_SCOPE,
    RESOLVE_SCOPE,
    ApiKey,
    hash_api_key,
    new_api_key,
)
from crm_bridge.storage.operation import as_time
from crm_bridge.vendors import REGISTRY, scopes

SCOPES = scopes() | {READ_SCOPE, RESOLVE_SCOPE, PAYLOAD_SCOPE}
SHORT_HASH = 12
"""Characters of a key's hash that name it: enough to distinguish a tenant's keys."""
EXPIRES = "365d"
"""How long a key works by default."""

app = typer.Typer(help="The API keys of a tenant.", no_args_is_help=True)

Scopes = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        help="A scope of the key: a function (create_site, ...), operations:read to look at "
        "operations and links, operations:resolve to decide, operations:payload to see also what was sent. By "
        "default the flows that the tenant uses, which is what its CRM needs.",
    ),
]
Label = Annotated[str, typer.Option(help="Who uses the key. It is in the logs.")]
Expires = Annotated[str, typer.Option(help="When the key expires: in 90d, on a day as 2027-06-30, or never.")]


@command(app, "add")
def add_key(bridge: Bridge, name: Name, scope: Scopes = None, label: Label = "CRM", expires: Expires = EXPIRES) -> None:
    """Make an API key. It is shown once; only its hash is stored.

    Give each person who looks after operations a key of their own, not the CRM's:
    --label "Ada, support" --scope operations:read --scope operations:resolve
    """
    NewKey.checked(bridge, scope, label, expires, bridge.tenant(name)).store(bridge, name)


@command(app, "list")
def list_keys(bridge: Bridge, name: Name) -> None:
    """List a tenant's API keys, by the beginnings of their hashes."""
    now = bridge.runtime.clock()
    documents, rows = [], []
    for key in bridge.runtime.keys.of(name):
        state = "revoked" if key.disabled else "expired" if key.expires_at and key.expires_at <= now else "valid"
        document = {"key": key.key_hash[:SHORT_HASH], **_document(key), "created_at": as_time(key.created_at)}
        documents.append({**document, "state": state})
        made = moment(key.created_at), key.created_by.rpartition("/")[2], _day(key.expires_at)
        rows.append((document["key"], key.label, " ".join(sorted(key.scopes)), *made, state))
    if not documents:
        bridge.expect_tenant(name)
    bridge.output.document(documents)
    bridge.output.table(("key", "label", "scopes", "created", "by", "expires", "state"), rows)


@command(app)
def revoke(
    bridge: Bridge,
    name: Name,
    key: Annotated[str, typer.Argument(help="The key, or the beginning of its hash as `key list` shows it.")],
) -> None:
    """Revoke an API key for good."""
    found = [
        one
        for one in bridge.runtime.keys.of(name)
        if one.key_hash == hash_api_key(key) or (len(key) >= SHORT_HASH and one.key_hash.startswith(key))
    ]
    if len(found) != 1:
        bridge.expect_tenant(name)
        raise WrongInputError(
            f"{name} has {'several keys' if found else 'no key'} with this hash. "
            f"`{bridge.output.command(f'tenant key list {name}')}` lists its keys."
        )
    bridge.runtime.keys.revoke(found[0])
    bridge.output.document({"key": found[0].key_hash[:SHORT_HASH], "label": found[0].label})
    bridge.output.line(f"Revoked: {found[0].label}. It may work for {KEY_MAX_AGE:.0f} seconds more.")


@dataclass(frozen=True)
class NewKey:
    """An API key that is to be made: all that can be wrong with it is checked before anything is stored."""

    scopes: frozenset[str]
    label: str
    expires_at: int | None
    created_by: str

    @classmethod
    def checked(
        cls, bridge: Bridge, scopes: Sequence[str] | None, label: str, expires: str, settings: Tenant
    ) -> "NewKey":
        """Raises WrongInputError."""
        return cls(_checked_scopes(scopes, settings), label, expiry_of_key(expires), bridge.arn)

    def store(self, bridge: Bridge, tenant: str) -> None:
        key = new_api_key()
        bridge.runtime.keys.add(
            key, tenant, self.scopes, self.label, expires_at=self.expires_at, created_by=self.created_by
        )
        bridge.output.document({"tenant": tenant, "key": key, **_document(self)})
        until = "never expires" if self.expires_at is None else f"expires on {_day(self.expires_at)}"
        bridge.output.line(f"Its API key is shown only now. It may {', '.join(sorted(self.scopes))}, and {until}:")
        bridge.output.line(f"\n  {key}\n", style="bold")


def _document(key: NewKey | ApiKey) -> dict[str, object]:
    return {
        "scopes": sorted(key.scopes),
        "label": key.label,
        "expires_at": as_time(key.expires_at),
        "created_by": key.created_by,
    }


def _day(expires_at: int | None) -> str:
    """Return the day in UTC on which a key expires, or `never`."""
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


def _checked_scopes(scopes: Sequence[str] | None, settings: Tenant) -> frozenset[str]:
    if unknown := sorted(set(scopes or ()) - SCOPES):
        raise WrongInputError(f"Unknown scope {', '.join(unknown)}. The scopes are {', '.join(sorted(SCOPES))}.")
    if not (found := frozenset(scopes or used_scopes(settings))):
        raise WrongInputError(
            "The settings have no vendor, so the key would allow nothing. Add a vendor's block, or give --scope."
        )
    return found


def used_scopes(settings: Tenant) -> frozenset[str]:
    """Return the functions for the vendors that a tenant uses, and that callers send events to."""
    return frozenset(
        function
        for entry in REGISTRY
        if entry.is_for_callers and settings.of(entry.vendor().settings_model)
        for function in entry.functions
    )

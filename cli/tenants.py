"""`crm-bridge tenant`: a tenant's settings, one document that is stored as several secrets, and its API keys."""

import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from cli.asking import asked_tenant, confirm
from cli.bridge import Bridge
from cli.command import WrongInputError, command
from cli.output import moment, visible
from cli.purge import purge as purge_tables
from crm_bridge.errors import FieldError
from crm_bridge.operations import State, as_time
from crm_bridge.settings import BLOCKS, EMPTY, Tenant, has_callback, joined, parse_tenant, split
from crm_bridge.tenants import KEY_MAX_AGE, SECRET_MAX_AGE, hash_api_key, new_api_key

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager.type_defs import CreateSecretRequestTypeDef

SCOPES_OF = {
    "illu": ("create_site", "create_job"),
    "revio": ("key_link",),
    "izzitup": ("status_update",),
    "egito": ("connector_receiver",),
}
"""The flows that a key may call whose tenant has this block."""
SCOPES = frozenset(scope for scopes in SCOPES_OF.values() for scope in scopes) | {
    *("operations:read", "operations:resolve", "operations:payload"),
}
MASK = "**********"
SHORT_HASH = 12
"""So much of a key's hash names it: enough to tell a tenant's keys apart."""
UNFINISHED = (State.SENDING, State.WAITING, State.UNKNOWN, State.PARKED)

EXPIRES = "365d"
"""How long a key works by default."""

app = typer.Typer(help="Tenants: their settings and their API keys.", no_args_is_help=True)
keys = typer.Typer(help="The API keys of a tenant.", no_args_is_help=True)
app.add_typer(keys, name="key")

Name = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's name.")]
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
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@command(app)
def add(
    bridge: Bridge,
    name: Name,
    file: Annotated[
        Path | None, typer.Option(help="The settings as JSON, - for standard input. Else you are asked.")
    ] = None,
    scope: Scopes = None,
    label: Label = "CRM",
    expires: Expires = EXPIRES,
    kms_key_id: Annotated[str | None, typer.Option(help="The KMS key that encrypts the secrets.")] = None,
) -> None:
    """Turn a tenant up: check its settings, store them as its secrets, make its first API key."""
    if not re.fullmatch("[a-z0-9][a-z0-9-]{0,62}", name):
        raise WrongInputError("Name a tenant with a-z, 0-9 and -, at most 63 of them.")
    document = _read(file) if file else asked_tenant(bridge.output)
    settings = _valid(bridge, document)
    if all(text.strip() == EMPTY for text in split(document).values()):
        raise WrongInputError("There is nothing to store: name a vendor, or a callback.")
    # Before anything is stored, because each of these can fail.
    scopes, expires_at, made_by = _scopes(scope, settings), _expiry(expires), bridge.arn
    if bridge.parts(name):
        raise WrongInputError(f"There is a tenant {name} already. Change it with `crm-bridge tenant set {name}`.")
    _store(bridge, name, document, {}, kms_key_id)
    bridge.output.line(f"The tenant {name} is stored: {', '.join(sorted(settings.model_fields_set))}.")
    _add_key(bridge, name, scopes, label, expires_at, made_by)


@command(app, "list")
def list_tenants(bridge: Bridge) -> None:
    """The tenants of this bridge."""
    prefixes = [bridge.secret_name(part, "") for part in BLOCKS]
    pages = bridge.secrets.get_paginator("list_secrets").paginate(Filters=[{"Key": "name", "Values": prefixes}])
    names = sorted(
        {
            secret["Name"].removeprefix(prefix)
            for page in pages
            for secret in page["SecretList"]
            for prefix in prefixes
            if secret["Name"].startswith(prefix)
        }
    )
    bridge.output.document(names)
    for name in names:
        bridge.output.line(name)


@command(app)
def show(bridge: Bridge, name: Name) -> None:
    """A tenant's settings. What is secret is masked."""
    shown = masked(bridge.tenant(name))
    bridge.output.document(shown)
    bridge.output.line(json.dumps(shown, indent=2, ensure_ascii=False))


@command(app, "set")
def set_settings(
    bridge: Bridge,
    name: Name,
    changes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SETTING=VALUE]...",
            help="illu.search_lag=60. You are asked for a setting without =VALUE, and it is not shown; a secret is "
            "only accepted like this.",
        ),
    ] = None,
    file: Annotated[Path | None, typer.Option(help="All settings anew, as JSON; - for standard input.")] = None,
    unset: Annotated[list[str] | None, typer.Option(help="A setting that is to go; several may be given.")] = None,
    yes: Yes = False,
) -> None:
    """Change a tenant's settings. They are checked first, and count at the latest five minutes later."""
    if bool(file) is bool(changes or unset):
        raise WrongInputError("Give either --file, or settings to change.")
    refuse_secrets(changes or [])
    parts = _stored(bridge, name)
    try:
        before = joined(parts.values())
    except ValueError:
        if not file:  # the other vendors' settings would be emptied
            raise WrongInputError(
                f"A secret of {name} is not JSON. Nothing was stored. Give all settings with --file."
            ) from None
        before = EMPTY
    document = _read(file) if file else _changed(before, changes or [], unset or [])
    settings = _valid(bridge, document)
    rows = sorted(_differences(_masked_if_valid(bridge, before), masked(settings), before, document))
    rows = rows or _unfinished(parts, document)
    if not rows:
        bridge.output.document({"tenant": name, "changed": []})
        bridge.output.line("Nothing would change.")
        return
    bridge.output.table(("setting", "before", "after"), rows)
    if not yes:
        confirm(f"Store this for {name}?")
    # What is new for this tenant is encrypted with the same key as what there is.
    key = bridge.secrets.describe_secret(SecretId=bridge.secret_name(next(iter(parts)), name)).get("KmsKeyId")
    _store(bridge, name, document, parts, key)
    bridge.output.document({"tenant": name, "changed": [row[0] for row in rows]})
    bridge.output.line(f"Stored. Check it with `crm-bridge doctor {name}`.")


@command(app)
def remove(
    bridge: Bridge,
    name: Name,
    yes: Yes = False,
    force: Annotated[bool, typer.Option(help="Although some of its operations are not finished.")] = False,
    recovery_days: Annotated[int, typer.Option(min=7, max=30, help="So long the secrets can be restored.")] = 30,
    purge: Annotated[bool, typer.Option("--purge", help="Also erase its operations, links, people and keys.")] = False,
) -> None:
    """Remove a tenant: revoke its keys, delete its secrets. Its operations and links stay, in case it comes back.

    With --purge all of its data are erased, and nothing can be restored but from a backup.
    """
    parts = list(BLOCKS) if purge else list(_stored(bridge, name))  # a tenant may be purged after it was removed
    unfinished = [
        operation
        for state in UNFINISHED
        for operation in bridge.runtime.operations.listed(name, state, flow=None, limit=100, after=None)[0]
    ]
    if unfinished and not force:
        raise WrongInputError(
            f"Operations of {name} are not finished ({len(unfinished)}), and never would be. "
            f"See `crm-bridge operations list {name}`, or give --force."
        )
    if not yes:
        confirm(
            f"Erase all data of {name}? It cannot be undone."
            if purge
            else f"Revoke all keys of {name}, and delete its secrets?"
        )
    revoked = [key for key in bridge.runtime.keys.of(name) if not key.disabled]
    for key in revoked:
        bridge.runtime.keys.revoke(key)
    # The webhook's secret last, so that the webhook tells what vendors have done meanwhile.
    secrets = [bridge.secret_name(part, name) for part in BLOCKS if part in parts]
    if purge:
        for secret in secrets:  # AWS takes also a name that does not exist
            bridge.secrets.delete_secret(SecretId=secret, ForceDeleteWithoutRecovery=True)
        _purge(bridge, name, wait=bool(revoked))
        return
    for secret in secrets:
        bridge.secrets.delete_secret(SecretId=secret, RecoveryWindowInDays=recovery_days)
    bridge.output.document({"tenant": name, "revoked_keys": len(revoked), "recovery_days": recovery_days})
    bridge.output.line(
        f"{name} is gone, and so are its keys ({len(revoked)}). Its secrets can be restored for {recovery_days} days:"
    )
    for secret in secrets:
        bridge.output.line(f"  aws secretsmanager restore-secret --secret-id {secret}")


def _purge(bridge: Bridge, tenant: str, *, wait: bool) -> None:
    """Functions may believe a revoked key, and use the settings that they have read, for some time."""
    if wait:
        bridge.output.notice(f"Waiting {SECRET_MAX_AGE} s, until no function uses the keys and settings any more.")
        time.sleep(SECRET_MAX_AGE)
    erased = purge_tables(bridge, tenant)
    bridge.output.document({"tenant": tenant, "erased": erased})
    bridge.output.table(("table", "items erased"), list(erased.items()))
    bridge.output.line(
        "The secrets cannot be restored. Backups of the tables keep the data for up to 35 days, and the records at the "
        "vendors stay."
    )


@command(keys, "add")
def add_key(bridge: Bridge, name: Name, scope: Scopes = None, label: Label = "CRM", expires: Expires = EXPIRES) -> None:
    """Make an API key. It is shown once; only its hash is stored.

    Give each person who looks after operations a key of their own, not the CRM's:
    --label "Ada, support" --scope operations:read --scope operations:resolve
    """
    _add_key(bridge, name, _scopes(scope, bridge.tenant(name)), label, _expiry(expires), bridge.arn)


@command(keys, "list")
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


@command(keys)
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


def _add_key(
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


def _expiry(expires: str) -> int | None:
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


def _scopes(given: Sequence[str] | None, settings: Tenant) -> frozenset[str]:
    if given:
        if unknown := sorted(set(given) - SCOPES):
            raise WrongInputError(f"There is no scope {', '.join(unknown)}; there are {', '.join(sorted(SCOPES))}.")
        return frozenset(given)
    used = {scope for block, scopes in SCOPES_OF.items() if getattr(settings, block) for scope in scopes}
    if not used:
        raise WrongInputError("The settings name no vendor with a flow, so say with --scope what the key may do.")
    return frozenset(used)


def masked(settings: Tenant) -> dict[str, Any]:
    """What was set, without what is secret. A callback's address may hold a token, so only its host is shown."""
    shown: dict[str, Any] = settings.model_dump(mode="json", exclude_unset=True)
    if settings.callback:
        host = re.match("[a-z]+://[^/]*", settings.callback.url)
        shown["callback"]["url"] = f"{host[0] if host else ''}/{MASK}"
    return shown


def _stored(bridge: Bridge, tenant: str) -> dict[str, str]:
    parts = bridge.parts(tenant)
    if not parts:
        raise WrongInputError(f"There is no tenant {tenant}. `crm-bridge tenant list` shows those that there are.")
    return parts


def _store(bridge: Bridge, tenant: str, document: str, there: Mapping[str, str], kms_key_id: str | None) -> None:
    """Write those parts that differ from what is `there`, in the order of `split`. If that is interrupted, each part is
    the old or the new one, and the same command goes on.
    """
    for part, text in split(document).items():
        name = bridge.secret_name(part, tenant)
        if part in there:
            if there[part] != text:
                bridge.secrets.put_secret_value(SecretId=name, SecretString=text)
        elif text.strip() != EMPTY:
            secret: CreateSecretRequestTypeDef = {"Name": name, "SecretString": text}
            if kms_key_id:
                secret["KmsKeyId"] = kms_key_id
            bridge.secrets.create_secret(**secret)


def _unfinished(parts: Mapping[str, str], document: str) -> list[tuple[str, object, object]]:
    """Return what a command that was interrupted has left undone: whether a part says that there is a callback."""
    wanted = split(document)
    marks = {part: (has_callback(text), has_callback(wanted[part])) for part, text in parts.items()}
    return [(f"has_callback of {part}", *mark) for part, mark in sorted(marks.items()) if mark[0] != mark[1]]


def _read(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WrongInputError(f"{file} cannot be read ({type(error).__name__}).") from None


def _valid(bridge: Bridge, document: str) -> Tenant:
    """Raises WrongInputError, which names what is wrong, and repeats nothing of it."""
    try:
        return parse_tenant(document, bridge.local_hosts)
    except ValidationError as error:
        raise WrongInputError("The settings are not valid. Nothing was stored.", field_errors(error)) from None


def _masked_if_valid(bridge: Bridge, document: str) -> dict[str, Any]:
    """What is stored may have been valid in an earlier version only; then it is shown as if nothing was set."""
    try:
        return masked(_valid(bridge, document))
    except WrongInputError:
        return {}


def field_errors(error: ValidationError) -> tuple[FieldError, ...]:
    return tuple(
        FieldError(
            ".".join(str(part) for part in detail["loc"]) or "the document", detail["msg"].removeprefix("Value error, ")
        )
        for detail in error.errors(include_url=False, include_input=False, include_context=False)
    )


def refuse_secrets(changes: Sequence[str]) -> None:
    """Raise WrongInputError if one of `changes` has a secret as its value, also within a block that is JSON."""
    for change in changes:
        setting, has_value, value = change.partition("=")
        given = _flat(_as_json(value), setting) if has_value else {}
        if secrets := sorted(name for name, part in given.items() if name in secret_settings() and part is not None):
            raise WrongInputError(
                f"{', '.join(secrets)}: an argument stays in the shell's history, and others on this machine see it. "
                "Leave =VALUE out, and you are asked for it; or give all settings with --file. Nothing was stored."
            )


@cache
def secret_settings() -> frozenset[str]:
    """Return the names of all secrets, as illu.api_key, and of the callback's address, which may hold a token."""
    schema = Tenant.model_json_schema()

    def secrets(part: Mapping[str, Any], name: str) -> Iterator[str]:
        if reference := part.get("$ref"):
            part = schema["$defs"][reference.rpartition("/")[2]]
        if part.get("format") == "password":
            yield name
        for option in part.get("anyOf", ()):
            yield from secrets(option, name)
        for member, inner in part.get("properties", {}).items():
            yield from secrets(inner, f"{name}.{member}".strip("."))

    return frozenset(secrets(schema, "")) | {"callback.url"}


def _changed(before: str, changes: Sequence[str], unset: Sequence[str]) -> str:
    document: dict[str, Any] = json.loads(before)
    for change in changes:
        setting, has_value, value = change.partition("=")
        if not has_value:
            value = (
                typer.prompt(visible(setting), hide_input=True)
                if sys.stdin.isatty()
                else sys.stdin.readline().rstrip("\n")
            )
        block, last = _place(document, setting)
        block[last] = _as_json(value)
    for setting in unset:
        block, last = _place(document, setting)
        if last not in block:
            raise WrongInputError(f"{setting} is not set.")
        del block[last]
    return json.dumps(document, indent=2, ensure_ascii=False)


def _place(document: dict[str, Any], setting: str) -> tuple[dict[str, Any], str]:
    *blocks, last = setting.split(".")
    place = document
    for block in blocks:
        place = place.setdefault(block, {})
        if not isinstance(place, dict):
            raise WrongInputError(f"{setting} lies within something that has no settings of its own.")
    return place, last


def _as_json(value: str) -> object:
    """Numbers, true, false, null, lists and objects are what they look like; all else is text."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def _differences(
    before: Mapping[str, Any], after: Mapping[str, Any], stored: str, document: str
) -> list[tuple[str, object, object]]:
    """What changes, by setting. Of what is masked only that it does."""
    old, new = _flat(before), _flat(after)
    old_values, new_values = _flat(json.loads(stored)), _flat(json.loads(document))
    return [
        (setting, old.get(setting, ""), new.get(setting, ""))
        for setting in old.keys() | new.keys()
        if old.get(setting) != new.get(setting) or old_values.get(setting) != new_values.get(setting)
    ]


def _flat(value: Any, name: str = "") -> dict[str, object]:
    if not isinstance(value, dict):
        return {name: value}
    return {
        inner: part
        for key, member in value.items()
        for inner, part in _flat(member, f"{name}.{key}".strip(".")).items()
    }

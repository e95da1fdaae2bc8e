"""`crm-bridge tenant`: a tenant's settings, one document that is stored as several secrets, and its API keys."""

import json
import re
import time
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from cli.bridge import Bridge
from cli.command import Accept, Name, WrongInputError, Yes, command
from cli.keys import EXPIRES, Expires, Label, NewKey, Scopes
from cli.keys import app as keys
from cli.output import Output
from cli.progress import progress_of
from cli.prompts import confirm, prompt_for_tenant
from cli.purge import purge as purge_tables
from cli.settings import changed, read_document, refuse_secrets, schema_of_tenants, valid
from cli.stored_mappings import run_samples, stamped
from cli.storing import Before, change_settings, check_sizes, write
from crm_bridge.storage.operation import State
from crm_bridge.tenant_parts import EMPTY, PARTS, joined, split
from crm_bridge.tenants import SECRET_MAX_AGE

UNFINISHED = (State.SENDING, State.WAITING, State.UNCONFIRMED, State.NEEDS_REVIEW)
MOST_COUNTED = 400

app = typer.Typer(help="Tenants: their settings and their API keys.", no_args_is_help=True)
app.add_typer(keys, name="key")


@command(app)
def add(
    bridge: Bridge,
    name: Name,
    file: Annotated[
        Path | None, typer.Option(help="The settings as JSON, - for standard input. Without it you are asked.")
    ] = None,
    scope: Scopes = None,
    label: Label = "CRM",
    expires: Expires = EXPIRES,
    kms_key_id: Annotated[str | None, typer.Option(help="The KMS key that encrypts the secrets.")] = None,
) -> None:
    """Onboard a tenant: check its settings, store them as its secrets, make its first API key."""
    if not re.fullmatch("[a-z0-9][a-z0-9-]{0,62}", name):
        raise WrongInputError(
            "The name of a tenant has at most 63 letters a-z, digits and -, and does not begin with -."
        )
    document = read_document(file) if file else prompt_for_tenant(bridge.output)
    settings = valid(bridge, document)
    if all(text.strip() == EMPTY for text in split(document).values()):
        raise WrongInputError("The settings have no vendor and no webhook. Nothing was stored.")
    key = NewKey.checked(bridge, scope, label, expires, settings)  # before anything is stored
    if bridge.parts(name):
        change = bridge.output.command(f"tenant set {name}")
        raise WrongInputError(f"The tenant {name} exists already. Change it with `{change}`.")
    _ = bridge.runtime  # flows are made of it
    run_samples(settings, document, accept=False)
    document = stamped(document, EMPTY, datetime.now(UTC))
    check_sizes(document)
    write(bridge, name, document, {}, kms_key_id)
    bridge.output.line(f"The tenant {name} is stored: {', '.join(sorted(settings.model_fields_set))}.")
    key.store(bridge, name)


@command(app, "list")
def list_tenants(bridge: Bridge) -> None:
    """List the tenants of this bridge."""
    names = bridge.tenants()
    bridge.output.document(names)
    for name in names:
        bridge.output.line(name)


@command(app)
def show(bridge: Bridge, name: Name) -> None:
    """Show a tenant's settings. Secrets are masked."""
    settings = bridge.tenant(name).shown()
    bridge.output.document(settings)
    bridge.output.line(json.dumps(settings, indent=2, ensure_ascii=False))


@command(app)
def schema(_: Bridge) -> None:
    """Print the JSON Schema of a tenant's document, with which an editor completes and checks it."""
    Output(as_json=True).document(schema_of_tenants())  # also without --json: its lines must not be wrapped


@command(app, "set")
def set_settings(
    bridge: Bridge,
    name: Name,
    changes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SETTING=VALUE",
            help="A setting and its value: illu.search_lag=60. Give a secret without its value: the command asks "
            "for it and does not show it.",
        ),
    ] = None,
    file: Annotated[Path | None, typer.Option(help="All settings, as JSON; - for standard input.")] = None,
    unset: Annotated[list[str] | None, typer.Option(help="A setting to remove.")] = None,
    accept: Accept = False,
    yes: Yes = False,
) -> None:
    """Change a tenant's settings. They are checked first, and mappings are run on their samples."""
    if bool(file) is bool(changes or unset):
        raise WrongInputError("Give either --file, or settings to change.")
    refuse_secrets(changes or [])
    parts = bridge.existing_parts(name)
    try:
        before = joined(parts.values())
    except ValueError:
        if not file:  # the other vendors' settings would be emptied
            raise WrongInputError(
                f"A secret of {name} is not JSON. Nothing was stored. Give all settings with --file."
            ) from None
        before = EMPTY
    document = read_document(file) if file else changed(before, changes or [], unset or [])
    change_settings(bridge, Before(name, parts, before), document, accept=accept, yes=yes)


@command(app)
def remove(
    bridge: Bridge,
    name: Name,
    yes: Yes = False,
    force: Annotated[bool, typer.Option(help="Even if some of its operations are not finished.")] = False,
    recovery_days: Annotated[int, typer.Option(min=7, max=30, help="Days for which the secrets can be restored.")] = 30,
    purge: Annotated[bool, typer.Option("--purge", help="Also erase its operations, links, people and keys.")] = False,
) -> None:
    """Remove a tenant: revoke its keys, delete its secrets. Its operations and links stay, in case it comes back.

    With --purge all of its data are erased, and nothing can be restored but from a backup.
    """
    parts = list(PARTS) if purge else list(bridge.existing_parts(name))  # a tenant may be purged after it was removed
    unfinished = list(islice(bridge.listed(name, UNFINISHED), MOST_COUNTED))
    if unfinished and not force:
        more = " or more" if len(unfinished) == MOST_COUNTED else ""
        raise WrongInputError(
            f"{name} has operations that are not finished ({len(unfinished)}{more}), and never would be. "
            f"See `{bridge.output.command(f'operations list {name}')}`, or give --force."
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
    secrets = [bridge.secret_name(part, name) for part in PARTS if part in parts]
    if purge:
        for secret in secrets:  # AWS takes also a name that does not exist
            bridge.secrets.delete_secret(SecretId=secret, ForceDeleteWithoutRecovery=True)
        _purge(bridge, name, wait=bool(revoked))
        return
    for secret in secrets:
        bridge.secrets.delete_secret(SecretId=secret, RecoveryWindowInDays=recovery_days)
    bridge.output.document({"tenant": name, "revoked_keys": len(revoked), "recovery_days": recovery_days})
    bridge.output.line(
        f"Removed {name}, and revoked its keys ({len(revoked)}). Its secrets can be restored for {recovery_days} days:"
    )
    for secret in secrets:
        bridge.output.line(f"  aws secretsmanager restore-secret --secret-id {secret}")


def _purge(bridge: Bridge, tenant: str, *, wait: bool) -> None:
    """Erase all data, once no function has the keys and settings in its cache any more."""
    if wait:
        bridge.output.notice("Waiting until no function uses the keys and settings any more.")
        with progress_of(bridge.output, "seconds", SECRET_MAX_AGE) as progress:
            for _ in range(SECRET_MAX_AGE):
                time.sleep(1)
                progress.advance("waited")
    erased = purge_tables(bridge, tenant)
    bridge.output.document({"tenant": tenant, "erased": erased})
    bridge.output.table(("table", "items erased"), list(erased.items()))
    bridge.output.line(
        "The secrets cannot be restored. Backups of the tables keep the data for up to 35 days, and the records at the "
        "vendors stay."
    )

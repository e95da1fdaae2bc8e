"""Stores a tenant's settings: checked, shown as a difference, confirmed, and written as its secrets."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from cli.bridge import Bridge
from cli.command import WrongInputError
from cli.prompts import confirm
from cli.settings import differences, shown_if_valid, valid
from cli.stored_mappings import run_samples, stamped, with_samples, without_stamps
from crm_bridge.tenant_parts import EMPTY, has_webhook, split
from crm_bridge.tenants import MAPPING_MAX_AGE, MISSING_MAX_AGE, SECRET_MAX_AGE
from crm_bridge.vendors import SOURCES

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager.type_defs import CreateSecretRequestTypeDef

LARGEST_SECRET = 65_536
"""Bytes. Source: https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html"""


class Before(NamedTuple):
    """A tenant's settings before a change."""

    tenant: str
    parts: Mapping[str, str]
    """The texts of its secrets."""
    document: str


def change_settings(bridge: Bridge, before: Before, document: str, *, accept: bool, yes: bool) -> bool:
    """Check settings, show what changes, ask, and store them. Return whether there was something to store.

    Raises WrongInputError if they are not valid, or a sample comes out otherwise and `accept` does not take that.
    """
    valid(bridge, document)
    document = with_samples(document, before.document)
    settings = valid(bridge, document)
    _ = bridge.runtime  # flows are made of it
    document, accepted = run_samples(settings, document, accept=accept)
    rows = sorted(
        differences(
            shown_if_valid(bridge, before.document),
            valid(bridge, document).shown(),
            without_stamps(before.document),
            without_stamps(document),
        )
    )
    rows = rows or _unfinished(before.parts, document)
    if not rows:
        bridge.output.document({"tenant": before.tenant, "changed": []})
        bridge.output.line("Nothing would change.")
        return False
    document = stamped(document, before.document, datetime.now(UTC))
    check_sizes(document)
    shown = [(place, *("not set" if value == "" else value for value in values)) for place, *values in rows]
    bridge.output.table(("setting", "before", "after"), shown)
    for one in accepted:
        bridge.output.line(f"Accepted: {one.field}: {one.message}")
    if not yes:
        confirm(f"Store this for {before.tenant}?")
    # What is new for this tenant is encrypted with the same key as what there is.
    name = bridge.secret_name(next(iter(before.parts)), before.tenant)
    write(bridge, before.tenant, document, before.parts, bridge.secrets.describe_secret(SecretId=name).get("KmsKeyId"))
    names = [row[0] for row in rows]
    within = used_within(names, before)
    bridge.output.document({"tenant": before.tenant, "changed": names, "used_everywhere_after": within})
    check = bridge.output.command(f"doctor {before.tenant}")
    bridge.output.line(f"Stored. Every function uses it within {within} s. Check it: `{check}`.")
    return True


def used_within(changed: Iterable[str], before: Before) -> int:
    """Return the seconds after which every function uses changed settings.

    A tenant's first mapping of a function is used within MAPPING_MAX_AGE too, but for payloads that are valid without.
    """
    mapped = json.loads(before.document).get("mappings") or {}
    return max(_within(setting.split("."), mapped, before) for setting in changed)


def _within(setting: list[str], mapped: Mapping[str, object], before: Before) -> int:
    match setting:
        case ["sources", *_]:
            return MAPPING_MAX_AGE if SOURCES in before.parts else int(MISSING_MAX_AGE)
        case ["mappings", function, *_] if function in mapped:
            return MAPPING_MAX_AGE
    return SECRET_MAX_AGE


def check_sizes(document: str) -> None:
    """Raise WrongInputError if a secret would be larger than AWS takes."""
    for part, text in split(document).items():
        if (size := len(text.encode())) > LARGEST_SECRET:
            raise WrongInputError(
                f"The settings of {part} have {size:,} bytes, and a secret takes {LARGEST_SECRET:,}. Nothing was "
                "stored. Remove samples, or make them smaller."
            )


def write(bridge: Bridge, tenant: str, document: str, there: Mapping[str, str], kms_key_id: str | None) -> None:
    """Write the parts that differ from those `there`, in the order of `split`. If that is interrupted, each part is the
    old or the new one, and the same command resumes.
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
    """Return the marks of a webhook in other parts that an interrupted command has not changed."""
    wanted = split(document)
    marks = {part: (has_webhook(text), has_webhook(wanted[part])) for part, text in parts.items()}
    return [(f"has_webhook of {part}", *mark) for part, mark in sorted(marks.items()) if mark[0] != mark[1]]

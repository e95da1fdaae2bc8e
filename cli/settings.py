"""A tenant's document in the command line: read, checked, changed setting by setting, and shown without secrets."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError

from cli.bridge import Bridge
from cli.command import WrongInputError
from cli.output import visible
from crm_bridge.errors import FieldError
from crm_bridge.settings import Tenant, parse_tenant, tenant_model
from crm_bridge.sources import SourceSettings
from operations.flows import flows


def read_document(file: Path) -> str:
    """Return the text of a file in UTF-8, without a byte order mark; `-` is standard input. Raises WrongInputError."""
    try:
        if str(file) == "-":
            return sys.stdin.buffer.read().decode("utf-8-sig")
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise WrongInputError(f"Cannot read {file} as UTF-8 ({type(error).__name__}).") from None


def valid(bridge: Bridge, document: str) -> Tenant:
    """Return the settings in a document. Raises WrongInputError, which names the fields and repeats no values."""
    try:
        tenant = parse_tenant(document, bridge.local_hosts)
        fields = tuple(unreached(tenant.all_sources()))
    except ValidationError as error:
        fields = field_errors(error)
    if fields:
        raise WrongInputError("The settings are not valid. Nothing was stored.", fields)
    return tenant


def unreached(sources: Mapping[str, SourceSettings]) -> Iterator[FieldError]:
    """Yield the entries of sources whose flow no source reaches."""
    reached = sorted(name for name, flow in flows().items() if flow.from_source)
    for source, settings in sources.items():
        for number, event in enumerate(settings.events):
            if event.flow not in reached:
                field = f"sources.{source}.events.{number}.flow"
                yield FieldError(field, f"must be a flow that a source reaches: {', '.join(reached)}")


def shown_if_valid(bridge: Bridge, document: str) -> dict[str, Any]:
    """Return settings with secrets masked; nothing if they are invalid, as those of an earlier version may be."""
    try:
        return valid(bridge, document).shown()
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
        values = _flat(_as_json(value), setting) if has_value else {}
        if secrets := sorted(name for name, part in values.items() if part is not None and _is_secret(name)):
            raise WrongInputError(
                f"{', '.join(secrets)}: an argument stays in the shell's history, and others on this machine see it. "
                "Leave =VALUE out, and you are asked for it; or give all settings with --file. Nothing was stored."
            )


def schema_of_tenants() -> dict[str, Any]:
    """Return the JSON Schema of a tenant's document. Source: https://json-schema.org/draft/2020-12"""
    schema = tenant_model().model_json_schema()
    del schema["properties"]["has_webhook"]  # the command line writes it into the parts
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


@cache
def secret_settings() -> frozenset[str]:
    """Return the names of all settings that are not shown: secrets, as illu.api_key, and addresses with a token.

    A `*` stands for a name that the tenant chooses.
    """
    schema = tenant_model().model_json_schema()

    def secrets(part: Mapping[str, Any], name: str) -> Iterator[str]:
        if part.get("writeOnly"):
            yield name
        if reference := part.get("$ref"):
            yield from secrets(schema["$defs"][reference.rpartition("/")[2]], name)
        for option in part.get("anyOf", ()):
            yield from secrets(option, name)
        for member, inner in part.get("properties", {}).items():
            yield from secrets(inner, f"{name}.{member}".strip("."))
        for inner in part.get("patternProperties", {}).values():
            yield from secrets(inner, f"{name}.*")
        if items := part.get("items"):
            yield from secrets(items, name)

    return frozenset(secrets(schema, ""))


def _is_secret(setting: str) -> bool:
    return any(fnmatchcase(setting, name) for name in secret_settings())


def changed(before: str, changes: Sequence[str], unset: Sequence[str]) -> str:
    """Return the document with other settings. A value that is not given is asked for, or read from standard input."""
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
            raise WrongInputError(f"{setting} is within a value that has no settings.")
    return place, last


def _as_json(value: str) -> object:
    """Return the value of JSON; any other text as it is."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def differences(
    before: Mapping[str, Any], after: Mapping[str, Any], stored: str, document: str
) -> list[tuple[str, object, object]]:
    """Return the settings that change, before and after; a secret's values are masked."""
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

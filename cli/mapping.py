"""`crm-bridge mapping`: a tenant's mappings: tried on payloads, compared, and stored with samples that test them."""

import json
import time
from collections.abc import Mapping, Sequence
from difflib import unified_diff
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import JsonValue

from cli.bridge import Bridge
from cli.command import Accept, Name, NotAllWellError, WrongInputError, Yes, command
from cli.events import read_event
from cli.output import moment
from cli.settings import read_document
from cli.stored_mappings import SAMPLES, StoredMapping, entry_of, find_mapping, stored_mappings
from cli.storing import Before, change_settings
from crm_bridge.errors import InvalidError
from crm_bridge.mapping import PayloadMapping
from crm_bridge.tenant_parts import joined
from crm_bridge.tenants import MAPPING_MAX_AGE, SECRET_MAX_AGE
from crm_bridge.trial import TRIED, Difference, Trial, tried
from crm_bridge.vendors import PART_OF, SOURCES
from operations.mappings import targets

app = typer.Typer(help="Mappings: try, compare and store what makes commands of a CRM's payload.", no_args_is_help=True)

WHICH = "A flow: create_site, ...; or a source and the entry's number: crm/0"
Wanted = Annotated[str, typer.Argument(metavar="MAPPING", help=WHICH)]
Expression = Annotated[Path, typer.Argument(help="The JMESPath expression; - for standard input.")]


# ---------------------------------------------------------------------- try


@command(app, "try")
def try_mapping(
    bridge: Bridge,
    first: Annotated[
        str,
        typer.Argument(
            metavar="TENANT", help="The tenant whose mapping is tried. With --expression it may be left out."
        ),
    ],
    second: Annotated[str, typer.Argument(metavar="MAPPING", help=WHICH)],
    third: Annotated[
        str | None, typer.Argument(metavar="FILE", help="A payload as the CRM sends it, as JSON; - for standard input.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(hidden=True)] = None,
    expression: Annotated[Path | None, typer.Option(help="Try the JMESPath expression in this file.")] = None,
) -> None:
    """Show what a mapping makes of a payload. Nothing is stored or sent.

    With both a tenant and --expression, the expression takes the place of the tenant's own, and is compared with it.
    """
    *before, wanted, name = [first, second] if third is None else [first, second, third]
    tenant, file = before[0] if before else tenant, Path(name)
    if tenant is None and expression is None:
        raise WrongInputError("Give a tenant before the mapping, or --expression, or both.")
    payload = read_event(file)
    there = stored_mappings(bridge.tenant(tenant)) if tenant else {}
    stored = there.get(wanted) if wanted in targets() else find_mapping(tenant or "No tenant", there, wanted)
    if stored is None and expression is None:
        raise WrongInputError(f"{tenant} has no mapping for {wanted}. Give --expression to try one.")
    target = stored.target if stored else targets()[wanted]
    mapping = _tried(expression, stored) if expression else stored and stored.mapping
    assert mapping
    result = Trial(target, mapping, payload)
    if isinstance(payload, list) and result.errors:
        raise WrongInputError(f"{file} has a list, of which no valid command is made. Give one element of it.")
    active = Trial(target, stored.mapping, payload) if stored and expression else None
    changed = result.differences(active.made) if active else []
    stored_at = _stored_at(bridge, tenant, stored) if tenant and stored else None
    used_after = _used_after(bridge, tenant, stored) if tenant and stored else 0
    bridge.output.document(
        {
            "flow": target.flow,
            "mapping": mapping.label,
            "command": result.made,
            "valid": not result.errors,
            "errors": [{"field": one.field, "message": one.message} for one in result.errors],
            "not_read": list(result.unread),
            "differences": [{"field": name, "stored": old, "tried": new} for name, old, new in changed],
            "stored_at": stored_at and moment(stored_at),
            "used_everywhere_since": stored_at and moment(stored_at + used_after),
        }
    )
    _print_trial(bridge, result, changed, label=mapping.label, compared=active is not None)
    if stored_at and stored:
        bridge.output.line(_age(stored, stored_at, used_after))
    if result.errors:
        raise NotAllWellError


def _tried(file: Path, stored: StoredMapping | None) -> PayloadMapping:
    """Return a mapping with the expression in a file in place of the stored one. Raises WrongInputError."""
    try:
        return tried(read_document(file), stored.mapping if stored else None)
    except InvalidError as error:
        raise WrongInputError(error.detail, tuple(error.fields)) from None


def _print_trial(bridge: Bridge, result: Trial, changed: Sequence[Difference], *, label: str, compared: bool) -> None:
    output = bridge.output
    if result.made is not None:
        output.line(f"The mapping {label} makes:")
        output.line(json.dumps(result.made, indent=2, ensure_ascii=False))
    if result.errors:
        output.line(
            "That is not valid:" if result.made is not None else f"The mapping {label} fails:", style="bold red"
        )
        for one in result.errors:
            output.line(f"  {one.field}: {one.message}")
    if changed:
        output.table(("field", "stored", TRIED), [(name, _cell(old), _cell(new)) for name, old, new in changed])
    elif compared and result.made is not None:
        output.line("The stored mapping makes the same.")
    if result.unread:
        output.line(f"Not read: {', '.join(result.unread)}")


def _cell(value: JsonValue) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# ---------------------------------------------------------------------- show


@command(app)
def show(
    bridge: Bridge,
    name: Name,
    wanted: Annotated[str | None, typer.Argument(metavar="MAPPING", help="Only this one: create_site, crm/0")] = None,
    samples: Annotated[bool, typer.Option("--samples", help="Also the payloads of its samples.")] = False,
) -> None:
    """Show the stored mappings, since when they are active, and whether their samples come out as expected."""
    there = stored_mappings(bridge.tenant(name))
    chosen = [find_mapping(name, there, wanted)] if wanted else list(there.values())
    times = {one.name: _stored_at(bridge, name, one) for one in chosen}
    bridge.output.document([_document(one, times[one.name], samples=samples) for one in chosen])
    if wanted:
        age = _age(chosen[0], times[chosen[0].name], _used_after(bridge, name, chosen[0]))
        _show_one(bridge, chosen[0], age, samples=samples)
        return
    bridge.output.table(
        ("mapping", "version", "active since", "samples"),
        [(one.name, one.mapping.label, moment(times[one.name]), _samples(one)) for one in chosen],
    )
    if not chosen:
        bridge.output.line(f"{name} has no mapping.")


def _document(one: StoredMapping, stored_at: int, *, samples: bool) -> dict[str, Any]:
    return {
        "mapping": one.name,
        "flow": one.target.flow,
        "when": one.when,
        "version": one.mapping.label,
        "built_in": one.mapping.built_in,
        "expression": one.mapping.expression,
        "stored_at": moment(stored_at),
        "samples": [
            {
                "name": sample.name,
                "as_expected": sample.is_as_expected,
                **({"payload": one.mapping.samples[sample.name].payload} if samples else {}),
            }
            for sample in one.checked()
        ],
    }


def _show_one(bridge: Bridge, one: StoredMapping, age: str, *, samples: bool) -> None:
    output, mapping = bridge.output, one.mapping
    output.pairs(
        {
            "mapping": one.name,
            "flow": one.target.flow,
            "when": one.when,
            "version": mapping.label,
            "samples": _samples(one),
        }
    )
    output.line(age)
    if mapping.expression:
        output.line(mapping.expression)
    for name, sample in mapping.samples.items() if samples else ():
        output.line(f"Sample {name}: {json.dumps(sample.payload, ensure_ascii=False)}")
        output.line(f"  makes {json.dumps(sample.command, ensure_ascii=False)}")


def _samples(one: StoredMapping) -> str:
    checked = one.checked()
    wrong = [sample.name for sample in checked if not sample.is_as_expected]
    if wrong:
        return f"not as expected: {', '.join(wrong)}"
    return f"{len(checked)} as expected" if checked else "none"


def _stored_at(bridge: Bridge, tenant: str, stored: StoredMapping) -> int:
    """Return when this version was stored; if that is not written down, when any of the settings in its secret were."""
    if stored.mapping.stored_at:
        return int(stored.mapping.stored_at.timestamp())
    secret = bridge.secrets.describe_secret(SecretId=bridge.secret_name(_part(stored), tenant))
    return int(secret["LastChangedDate"].timestamp())


def _part(stored: StoredMapping) -> str:
    return SOURCES if stored.place[0] == SOURCES else PART_OF[stored.target.function]


def _used_after(bridge: Bridge, tenant: str, stored: StoredMapping) -> int:
    """Return the seconds after which every function uses it. A function without a mapping looks for one less often."""
    if stored.place[0] == SOURCES:
        return MAPPING_MAX_AGE
    try:
        _previous(bridge, tenant, stored)
    except WrongInputError:
        return SECRET_MAX_AGE
    return MAPPING_MAX_AGE


def _age(stored: StoredMapping, stored_at: int, used_after: int) -> str:
    """Functions keep a mapping for a moment, so one that was just stored is not yet used by all of them."""
    is_used = stored_at + used_after <= time.time()
    used = "Every function uses it." if is_used else f"Every function uses it {used_after} s later at the latest."
    what = f"Version {stored.mapping.label} of {stored.name} was" if stored.mapping.stored_at else "The settings were"
    return f"{what} stored at {moment(stored_at)}.\n{used}"


# ---------------------------------------------------------------------- diff


@command(app)
def diff(
    bridge: Bridge,
    name: Name,
    wanted: Wanted,
    file: Annotated[
        Path | None, typer.Argument(help="The expression to compare with. Else the version before is compared.")
    ] = None,
) -> None:
    """Show what differs between the stored version and a file, or the version before; and how the samples come out."""
    stored = find_mapping(name, stored_mappings(bridge.tenant(name)), wanted)
    if file:
        old, new = stored.mapping, _tried(file, stored)
    else:
        old, new = _previous(bridge, name, stored), stored.mapping
    after = StoredMapping(stored.name, stored.target, new, stored.place)
    lines = _diff(old, new)
    wrong = [
        {
            "name": one.name,
            "errors": [error.message for error in one.errors],
            "fields": [d.field for d in one.differences],
        }
        for one in after.checked()
        if not one.is_as_expected
    ]
    bridge.output.document(
        {"mapping": stored.name, "before": old.label, "after": new.label, "lines": lines, "samples": wrong}
    )
    for line in lines or ["The expressions are the same."]:
        bridge.output.line(line)
    if wrong:
        _print_samples(bridge, after)
        raise NotAllWellError


def _previous(bridge: Bridge, tenant: str, stored: StoredMapping) -> PayloadMapping:
    """Return the mapping of the version of the secret before this one. Raises WrongInputError if there was none."""
    secrets = bridge.secrets
    try:
        text = secrets.get_secret_value(SecretId=bridge.secret_name(_part(stored), tenant), VersionStage="AWSPREVIOUS")[
            "SecretString"
        ]
        entry: Any = json.loads(text)
        for part in stored.place:
            entry = entry[part]
        return PayloadMapping.model_validate(
            {key: entry[key] for key in ("built_in", "version", "expression") if key in entry}
        )
    except (secrets.exceptions.ResourceNotFoundException, LookupError, TypeError, ValueError):
        raise WrongInputError(f"No version of {stored.name} before this one is kept. Give a file.") from None


def _diff(old: PayloadMapping, new: PayloadMapping) -> list[str]:
    before, after = ((one.expression or "").strip().splitlines() for one in (old, new))
    return list(unified_diff(before, after, f"version {old.label}", f"version {new.label}", lineterm=""))


def _print_samples(bridge: Bridge, one: StoredMapping) -> None:
    bridge.output.line("The results of these samples differ:", style="bold red")
    for sample in one.checked():
        for error in sample.errors:
            bridge.output.line(f"  {sample.name}, {error.field}: {error.message}")
        for field, expected, made in sample.differences:
            bridge.output.line(f"  {sample.name}, {field}: expected {json.dumps(expected)}, made {json.dumps(made)}")


# ---------------------------------------------------------------------- set, and samples


@command(app, "set")
def set_mapping(
    bridge: Bridge,
    name: Name,
    wanted: Wanted,
    file: Expression,
    version: Annotated[str | None, typer.Option(help="Its name. Else a number is counted up.")] = None,
    accept: Accept = False,
    yes: Yes = False,
) -> None:
    """Store another expression, if the samples come out as expected. Functions use it within seconds."""
    before, there = _opened(bridge, name)
    stored = there.get(wanted) if wanted in targets() else find_mapping(name, there, wanted)
    expression = _tried(file, stored).expression
    place = stored.place if stored else ("mappings", targets()[wanted].function)
    if stored and expression == (stored.mapping.expression or "").strip() and version in (None, stored.mapping.version):
        version = stored.mapping.version
    document = json.loads(before.document)
    entry_of(document, place).update(expression=expression, version=version or _next(stored))
    change_settings(bridge, before, json.dumps(document, ensure_ascii=False), accept=accept, yes=yes)


def _next(stored: StoredMapping | None) -> str:
    now = stored.mapping.version if stored else None
    if now is None:
        return "1"
    if not now.isdecimal():
        raise WrongInputError(f"The version {now} is no number that can be counted up. Give --version.")
    return str(int(now) + 1)


@command(app, "add-sample")
def add_sample(
    bridge: Bridge,
    name: Name,
    wanted: Wanted,
    sample: Annotated[str, typer.Argument(help="Its name: a-z, 0-9 and -")],
    file: Annotated[Path, typer.Argument(help="The payload, as JSON; - for standard input. Use data that is made up.")],
    yes: Yes = False,
) -> None:
    """Keep a payload, and what the stored mapping makes of it: a new version must make the same."""
    payload = read_event(file)
    before, there = _opened(bridge, name)
    stored = find_mapping(name, there, wanted)
    result = Trial(stored.target, stored.mapping, payload)
    if result.errors or result.made is None:
        raise WrongInputError("The mapping makes no valid command of it. Nothing was stored.", tuple(result.errors))
    document = json.loads(before.document)
    samples = entry_of(document, stored.place).setdefault(SAMPLES, {})
    samples[sample] = {"payload": payload, "command": result.made}
    _store_samples(bridge, before, document, result.made, yes=yes)


@command(app, "remove-sample")
def remove_sample(
    bridge: Bridge,
    name: Name,
    wanted: Wanted,
    sample: Annotated[str, typer.Argument(help="Its name.")],
    yes: Yes = False,
) -> None:
    """Remove a sample of a mapping."""
    before, there = _opened(bridge, name)
    stored = find_mapping(name, there, wanted)
    if sample not in stored.mapping.samples:
        raise WrongInputError(f"{stored.name} has no sample {sample}.")
    document = json.loads(before.document)
    del entry_of(document, stored.place)[SAMPLES][sample]
    _store_samples(bridge, before, document, None, yes=yes)


def _opened(bridge: Bridge, tenant: str) -> tuple[Before, Mapping[str, StoredMapping]]:
    parts = bridge.existing_parts(tenant)
    return Before(tenant, parts, joined(parts.values())), stored_mappings(bridge.tenant(tenant))


def _store_samples(
    bridge: Bridge, before: Before, document: Any, made: Mapping[str, JsonValue] | None, *, yes: bool
) -> None:
    if made is not None:
        bridge.output.line("The stored mapping makes:")
        bridge.output.line(json.dumps(made, indent=2, ensure_ascii=False))
    change_settings(bridge, before, json.dumps(document, ensure_ascii=False), accept=False, yes=yes)

"""`crm-bridge mapping`: try what a tenant's mapping makes of a payload. Nothing is stored or sent."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import JsonValue, ValidationError

from cli.bridge import Bridge
from cli.command import NotAllWellError, WrongInputError, command
from cli.events import read_event
from cli.output import moment
from cli.settings import field_errors, read_document
from crm_bridge.errors import FieldError, InvalidError
from crm_bridge.flow import Flow
from crm_bridge.inbound.api import validated
from crm_bridge.mapping import PayloadMapping, mappings_model
from crm_bridge.tenants import SECRET_MAX_AGE
from crm_bridge.tracing import Failure, Trace
from crm_bridge.vendors import PART_OF
from operations.flows import flows

TRIED = "tried"
"""The version of an expression that is only tried."""
MOST_UNREAD = 50
SHOWN = 50
"""Characters of an expression, from the place where it fails."""

app = typer.Typer(help="Mappings: try what they make of a CRM's payload.", no_args_is_help=True)


def _mapped_flow(name: str) -> type[Flow[Any, Any, Any]]:
    mapped = mappings_model().model_fields
    there = {one: flow for one, flow in flows().items() if flow.event_route and flow.function in mapped}
    if name not in there:
        raise typer.BadParameter(f"the flows with mappings are {', '.join(sorted(there))}")
    return there[name]


@command(app, "try")
def try_mapping(
    bridge: Bridge,
    flow: Annotated[Any, typer.Argument(metavar="FLOW", parser=_mapped_flow, help="The flow: create_site, ...")],
    file: Annotated[Path, typer.Argument(help="What the CRM sends, as JSON; - for standard input.")],
    tenant: Annotated[str | None, typer.Option(help="Try the mapping of this tenant.")] = None,
    expression: Annotated[Path | None, typer.Option(help="Try the JMESPath expression in this file.")] = None,
) -> None:
    """What a mapping makes of a payload. Nothing is stored or sent.

    With both --tenant and --expression, the expression takes the place of the tenant's own, and is compared with it.
    """
    if tenant is None and expression is None:
        raise WrongInputError("Give --tenant, --expression, or both.")
    payload = read_event(file)
    stored = bridge.tenant(tenant).mappings.of(flow.function) if tenant else None
    if stored is None and expression is None:
        raise WrongInputError(f"{tenant} has no mapping for {flow.function}. Give --expression to try one.")
    mapping = _tried(read_document(expression), stored) if expression else stored
    assert mapping
    result = _Result(flow, mapping, payload)
    before = _Result(flow, stored, payload) if stored and expression else None
    changed = result.differences(before) if before else []
    stored_at = _stored_at(bridge, tenant, flow.function) if tenant and stored else None
    bridge.output.document(
        {
            "flow": flow.name,
            "mapping": mapping.label,
            "command": result.made,
            "valid": not result.errors,
            "errors": [{"field": one.field, "message": one.message} for one in result.errors],
            "not_read": result.unread,
            "differences": [{"field": name, "stored": old, "tried": new} for name, old, new in changed],
            "stored_at": stored_at and moment(stored_at),
            "used_everywhere_since": stored_at and moment(stored_at + SECRET_MAX_AGE),
        }
    )
    _print(bridge, result, changed, label=mapping.label, compared=before is not None)
    if stored_at:
        _print_age(bridge, stored_at)
    if result.errors:
        raise NotAllWellError


def _tried(expression: str, stored: PayloadMapping | None) -> PayloadMapping:
    """Return a mapping with this expression in place of the stored one. Raises WrongInputError."""
    parsed = Trace(None).run(expression.strip())
    if isinstance(parsed, Failure) and parsed.reason.startswith("it is no"):
        raise WrongInputError(f"The expression fails: {parsed.reason}.", _place(expression.strip(), parsed.offset))
    try:
        return PayloadMapping(
            built_in=stored.built_in if stored else None, version=TRIED, expression=expression.strip()
        )
    except ValidationError as error:
        wrong = "; ".join(one.message for one in field_errors(error))
        raise WrongInputError(f"The expression cannot be used: it {wrong}.") from None


class _Result:
    """What a mapping makes of a payload."""

    def __init__(self, flow: type[Flow[Any, Any, Any]], mapping: PayloadMapping, payload: JsonValue) -> None:
        trace = Trace(payload)
        self.made, self.errors = _run(flow, mapping, trace)
        """What the flow gets, and None if an expression fails; what is wrong."""
        self.unread = trace.unread()[:MOST_UNREAD] if self.made is not None else []

    def differences(self, before: "_Result") -> list[tuple[str, JsonValue, JsonValue]]:
        """Return the members that differ, with both values."""
        old: Mapping[str, JsonValue] = before.made or {}
        new: Mapping[str, JsonValue] = self.made or {}
        names = dict.fromkeys([*old, *new] if new else [])
        return [(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]


def _run(
    flow: type[Flow[Any, Any, Any]], mapping: PayloadMapping, trace: Trace
) -> tuple[dict[str, JsonValue] | None, tuple[FieldError, ...]]:
    for expression in mapping.expressions(flow.function):
        yielded = trace.run(expression)
        if isinstance(yielded, Failure):
            return None, (FieldError("the expression", yielded.reason), *_place(expression, yielded.offset))
        if not isinstance(yielded, dict):
            return None, (FieldError("the expression", "yields no object"),)
    made = mapping.apply(flow.function, trace.payload)
    try:
        validated(flow.event_model, made)
    except InvalidError as error:
        return made, error.fields
    return made, ()


def _place(expression: str, offset: int | None) -> tuple[FieldError, ...]:
    """Return where that is in the expression, and what is written there; nothing if it is not known."""
    if offset is None:
        return ()
    line, begin = expression.count("\n", 0, offset) + 1, expression.rfind("\n", 0, offset) + 1
    written = expression[offset : offset + SHOWN].partition("\n")[0] or "the end"
    return (FieldError(f"line {line}, column {offset - begin + 1}", written),)


def _print(
    bridge: Bridge, result: _Result, changed: list[tuple[str, JsonValue, JsonValue]], *, label: str, compared: bool
) -> None:
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


def _stored_at(bridge: Bridge, tenant: str, function: str) -> int:
    secret = bridge.secrets.describe_secret(SecretId=bridge.secret_name(PART_OF[function], tenant))
    return int(secret["LastChangedDate"].timestamp())


def _print_age(bridge: Bridge, stored_at: int) -> None:
    """Functions keep settings for a while, so a mapping that was just stored is not yet used by all of them."""
    is_used = stored_at + SECRET_MAX_AGE <= time.time()
    used = (
        "Every function uses them." if is_used else f"Every function uses them {SECRET_MAX_AGE} s later at the latest."
    )
    bridge.output.line(f"The tenant's settings were stored at {moment(stored_at)}.\n{used}")

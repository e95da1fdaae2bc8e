"""Tries a mapping on a payload, for the people who write mappings. Nothing is stored or sent."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel, JsonValue, ValidationError

from crm_bridge import responses
from crm_bridge.errors import FieldError, InvalidError
from crm_bridge.inbound.api import validated
from crm_bridge.mapping import PayloadMapping, as_json
from crm_bridge.telemetry import logger
from crm_bridge.tenants import MAPPING_MAX_AGE
from crm_bridge.tracing import Failure, Trace

TRIED = "tried"
"""The version of an expression that is only tried."""
MOST_UNREAD = 50
LARGEST_MADE = 500_000
"""Bytes of a command as JSON in ASCII, as it is in a response: with those of five samples and what differs, less than
the 6 MB that Lambda takes."""
SHOWN = 50
"""Characters of an expression, from the place where it fails."""


class Difference(NamedTuple):
    """A member of a command that has one value before, and another one after; None is not there."""

    field: str
    before: JsonValue
    after: JsonValue


@dataclass(frozen=True)
class Target:
    """The flow that a mapping makes commands for."""

    flow: str
    function: str
    model: type[BaseModel]
    """What the mapping makes."""
    complete: Callable[[Any], object] | None = None
    """Makes the command of that, if it is something else. Raises InvalidError."""
    elsewhere: Callable[[JsonValue], str | None] | None = None
    """Says where a payload goes, if that is not here; None if it is."""


class Trial:
    """The result of a mapping on a payload."""

    def __init__(self, target: Target, mapping: PayloadMapping, payload: JsonValue) -> None:
        trace = Trace(payload)
        self.made, self.errors = _run(target, mapping, trace)
        """The members of the flow's command, None if an expression fails; and what is wrong."""
        if target.elsewhere and (goes := target.elsewhere(payload)):
            self.errors = (FieldError("when", f"this event goes {goes}"), *self.errors)
        self.unread: Sequence[str] = trace.unread()[:MOST_UNREAD] if self.made is not None else ()
        """Members of the payload that no expression reads."""

    def differences(self, before: Mapping[str, JsonValue] | None) -> list[Difference]:
        """Return the members that differ from another command; none if there is none."""
        old, new = before or {}, self.made or {}
        return [
            Difference(name, old.get(name), new.get(name))
            for name in dict.fromkeys([*old, *new])
            if self.made is not None and as_json(old.get(name)) != as_json(new.get(name))
        ]


class Checked(NamedTuple):
    """The result of a sample. It is as expected if there are neither `errors` nor `differences`."""

    name: str
    made: Mapping[str, JsonValue] | None
    errors: Sequence[FieldError]
    differences: Sequence[Difference]

    @property
    def is_as_expected(self) -> bool:
        return not self.errors and not self.differences


def check_samples(target: Target, mapping: PayloadMapping) -> list[Checked]:
    """Return what a mapping makes of its samples."""
    found = []
    for name, sample in mapping.samples.items():
        trial = Trial(target, mapping, sample.payload)
        found.append(Checked(name, trial.made, trial.errors, trial.differences(sample.command)))
    return found


def tried(expression: str, stored: PayloadMapping | None) -> PayloadMapping:
    """Return a mapping with this expression in place of the stored one. Raises InvalidError."""
    expression = expression.strip()
    parsed = Trace(None).run(expression)
    if isinstance(parsed, Failure) and parsed.reason.startswith("it is no"):
        raise InvalidError(f"The expression fails: {parsed.reason}.", fields=_place(expression, parsed.offset))
    try:
        return PayloadMapping(
            built_in=stored.built_in if stored else None,
            version=TRIED,
            expression=expression,
            samples=stored.samples if stored else {},
        )
    except ValidationError as error:
        wrong = "; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors(include_url=False))
        raise InvalidError(f"The expression cannot be used: it {wrong}.") from None


def no_trial(name: str | None = None, flow: str | None = None) -> responses.MappingTrial:
    """Return the response for a payload of which nothing is made."""
    return {
        "name": name,
        "flow": flow,
        "version": None,
        "command": None,
        "is_valid": False,
        "errors": [],
        "not_read": [],
        "differences": [],
        "samples": [],
    }


def try_out(
    name: str, target: Target, stored: PayloadMapping | None, expression: str | None, payload: JsonValue, *, shows: bool
) -> responses.MappingTrial:
    """Return what an expression, or else the stored mapping, makes of a payload, for a response.

    `shows` says whether the values of samples are shown. Without it an expression that was sent is not run on them,
    because how it comes out tells their values.
    """
    found = no_trial(name, target.flow)
    try:
        mapping = tried(expression, stored) if expression else stored
    except InvalidError as error:
        fields = error.fields or (FieldError("the expression", error.detail),)
        return {**found, "errors": [one.to_response() for one in fields]}
    if mapping is None:
        missing = FieldError("the expression", "is missing: there is no mapping yet")
        return {**found, "errors": [missing.to_response()]}
    trial = Trial(target, mapping, payload)
    before = Trial(target, stored, payload).made if stored and expression else None
    return {
        **found,
        "version": mapping.label,
        "command": trial.made,
        "is_valid": not trial.errors,
        "errors": [one.to_response() for one in trial.errors],
        "not_read": list(trial.unread),
        "differences": _compared(trial.differences(before)) if before is not None else [],
        "samples": [
            {
                "name": one.name,
                "is_as_expected": one.is_as_expected,
                "errors": [wrong.to_response() for wrong in one.errors],
                "differences": _compared(one.differences, shows=shows),
            }
            for one in (check_samples(target, mapping) if shows or not expression else ())
        ],
    }


def mappings_response(
    mappings: Sequence[responses.ShownMapping], trial: responses.MappingTrial | None
) -> responses.Mappings:
    """Return the response with a tenant's mappings and the result of a trial, and log whose samples it shows."""
    with_samples = [one["name"] for one in mappings if any("payload" in sample for sample in one["samples"])]
    if with_samples:
        logger().info("payload read", extra={"samples": with_samples})
    return {"mappings": [*mappings], "used_after": MAPPING_MAX_AGE, "trial": trial}


def shown_mapping(
    name: str,
    flow: str,
    mapping: PayloadMapping | None,
    *,
    shows: bool,
    when: str | None = None,
    is_readable: bool = True,
) -> responses.ShownMapping:
    """Return a stored mapping for a response. `shows` says whether the values of its samples are shown."""
    return {
        "name": name,
        "flow": flow,
        "when": when,
        "is_readable": is_readable,
        "version": mapping.label if mapping else None,
        "expression": mapping.expression if mapping else None,
        "stored_at": mapping.stored_at.isoformat() if mapping and mapping.stored_at else None,
        "samples": [
            {"name": name, "payload": one.payload, "command": one.command} if shows else {"name": name}
            for name, one in (mapping.samples if mapping else {}).items()
        ],
    }


def _compared(differences: Sequence[Difference], *, shows: bool = True) -> list[responses.MappingDifference]:
    return [
        {"field": one.field, "active": one.before, "tried": one.after} if shows else {"field": one.field}
        for one in differences
    ]


def _run(
    target: Target, mapping: PayloadMapping, trace: Trace
) -> tuple[dict[str, JsonValue] | None, tuple[FieldError, ...]]:
    for expression in mapping.expressions(target.function):
        yielded = trace.run(expression)
        if isinstance(yielded, Failure):
            return None, (FieldError("the expression", yielded.reason), *_place(expression, yielded.offset))
        if not isinstance(yielded, dict):
            return None, (FieldError("the expression", "yields no object"),)
        if len(json.dumps(yielded)) > LARGEST_MADE:
            return None, (FieldError("the expression", "yields too much"),)
    made = mapping.apply(target.function, trace.payload)
    try:
        command = validated(target.model, made)
        if target.complete:
            target.complete(command)
    except InvalidError as error:
        return made, tuple(error.fields) or (FieldError("", error.detail),)
    return made, ()


def _place(expression: str, offset: int | None) -> tuple[FieldError, ...]:
    """Return where that is in the expression, and what is written there; nothing if it is not known."""
    if offset is None:
        return ()
    line, begin = expression.count("\n", 0, offset) + 1, expression.rfind("\n", 0, offset) + 1
    written = expression[offset : offset + SHOWN].partition("\n")[0] or "the end"
    return (FieldError(f"line {line}, column {offset - begin + 1}", written),)

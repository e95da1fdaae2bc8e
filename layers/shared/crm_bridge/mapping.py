"""Payload mapping: makes a flow's command out of the JSON of a CRM that cannot shape its payload.

A mapping is a JMESPath expression (https://jmespath.org/specification.html) over what the CRM sends. The records of
Upya are built in, as far as they are known: see docs/vendors/illu.md.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Self, cast

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions
from pydantic import (
    AwareDatetime,
    Field,
    JsonValue,
    PlainSerializer,
    create_model,
    model_validator,
)

from crm_bridge.errors import FieldError, InvalidError
from crm_bridge.fields import DocumentPart
from crm_bridge.vendors import REGISTRY

# A list with one record is taken for the record. A list with more yields nothing: one request is one event.
_ONE = "to_array(@) | length(@) == `1` && type([0]) == 'object' && [0]"
_BUILT_IN = {
    ("upya", "create_site"): _ONE
    + """.{
        customer_id: clientNumber,
        name: join(' ', [profile.firstName, profile.lastName][?@]),
        address: join(', ', [profile.village, profile.district, profile.region, profile.country][?@])
    }""",
    ("upya", "create_job"): _ONE
    + """.{
        ticket_id: ticketId,
        customer_id: clientNumber,
        name: title,
        notes: join(', ', [
            ticketNumber && join(' ', ['Upya ticket', to_string(ticketNumber)]),
            contractNumber && join(' ', ['contract', to_string(contractNumber)])
        ][?@])
    }""",
}
"""By CRM and flow."""
FAILURES = (JMESPathError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""The errors that the JMESPath library raises: not only its own."""
MAPPINGS = "The mappings of a tenant, by flow."
BUILT_IN_VERSION = "1"
"""Of all that is built in; a change to one of them counts it up."""
MASK = "**********"
"""Shown instead of a secret, as pydantic does."""
LONGEST_EXPRESSION = 10_000
MOST_SAMPLES, LARGEST_SAMPLE = 5, 4000
"""Samples of a mapping, and characters of one as JSON: they are in the tenant's secret, which has 64 KB."""

_MASKED = PlainSerializer(lambda _: MASK, return_type=str)
"""Of customer data: it is stored as it is, and not shown with the settings."""


class Sample(DocumentPart):
    """A payload, and the command that a mapping must make of it. A version that makes another one is not stored."""

    payload: Annotated[JsonValue, _MASKED] = Field(repr=False)
    """The sender's payload; for a source, one event."""
    command: Annotated[dict[str, JsonValue], _MASKED] = Field(repr=False)
    """The command that the expression yields."""

    @model_validator(mode="after")
    def _is_small(self) -> Self:
        if len(as_json([self.payload, self.command])) > LARGEST_SAMPLE:
            raise ValueError(f"must have at most {LARGEST_SAMPLE} characters as JSON: leave out what is not mapped")
        return self


type Samples = Annotated[
    dict[Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")], Sample], Field(max_length=MOST_SAMPLES)
]
"""By name."""


class PayloadMapping(DocumentPart):
    """One flow's mapping: the built-in one for a CRM, the tenant's own expression, or both.

    Members of the own expression replace built-in ones of the same name. A member that is null or empty text counts as
    missing.
    """

    built_in: Literal["upya"] | None = None
    """A CRM whose records the bridge knows."""
    version: str | None = Field(default=None, min_length=1, max_length=50)
    """The tenant's name for this version of its expression. Every operation has the version that made it."""
    expression: str | None = Field(default=None, min_length=1, max_length=LONGEST_EXPRESSION)
    """A JMESPath expression that yields an object. Its members replace those of `built_in` with the same name."""
    samples: Samples = {}  # noqa: RUF012 - pydantic copies it; ruff does not see the base class
    """By name: payloads, each with the command that the mapping must make of it."""
    stored_at: AwareDatetime | None = Field(default=None, exclude=True)
    """Written by the command line: when this version was stored."""

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        if not self.built_in and not self.expression:
            raise ValueError("give an expression, a built_in, or both")
        if (self.expression is None) is not (self.version is None):
            raise ValueError("give version with an expression, and only then")
        if self.expression is not None:
            checked_expression(self.expression)
        return self

    @property
    def label(self) -> str:
        built_in = f"{self.built_in} {BUILT_IN_VERSION}" if self.built_in else None
        return " + ".join(filter(None, (built_in, self.version)))

    def apply(self, flow: str, payload: JsonValue) -> dict[str, JsonValue]:
        """Return what the flow's command is to be made of. Raises InvalidError."""
        members: dict[str, JsonValue] = {}
        for expression in self.expressions(flow):
            try:
                yielded = jmespath.search(expression, payload)
                check_finite(yielded)
            except NotFiniteError as error:
                raise self.failed(str(error), payload) from None
            except FAILURES as error:
                # Its text can repeat what the CRM sent.
                raise self.failed(f"fails on what was sent ({type(error).__name__})", payload) from None
            if not isinstance(yielded, dict):
                raise self.failed("yields no object for what was sent; send one record in a request", payload)
            members |= {name: value for name, value in yielded.items() if value not in (None, "")}
        return members

    def contradicts(self, flow: str, payload: JsonValue) -> bool:
        """Return whether it fails on a payload, or makes another value of a member that the payload has itself.

        Such a payload must not be taken as it is: the same event would have two keys.
        """
        try:
            made = self.apply(flow, payload)
        except InvalidError:
            return True
        own = payload if isinstance(payload, dict) else {}
        return any(name in own and own[name] != value for name, value in made.items())

    def expressions(self, flow: str) -> list[str]:
        """Return what makes a flow's command: what is built in, then the own expression."""
        return [one for one in (_BUILT_IN.get((self.built_in or "", flow)), self.expression) if one]

    def failed(self, why: str, payload: JsonValue) -> InvalidError:
        return InvalidError(
            f"Correct the tenant's mapping {self.label}, or what is sent: it {why}.",
            fields=[FieldError("the expression", why)],
            extensions={"mapping": self.explained(payload)},
        )

    def explained(self, payload: JsonValue, yielded: JsonValue = None) -> dict[str, object]:
        """Return what went in and what came out, as kinds of values: the values are the CRM's own."""
        return {
            "label": self.label,
            "expression": self.expression,
            "received": shape_of(payload),
            "yielded": shape_of(yielded),
        }


class Mappings(DocumentPart):
    """The mappings of a tenant. `mappings_model` has a field for each function that may have one."""

    @model_validator(mode="after")
    def _are_there(self) -> Self:
        for flow, mapping in self:
            if mapping and mapping.built_in and (mapping.built_in, flow) not in _BUILT_IN:
                raise ValueError(f"{mapping.built_in} has no record that is built in for {flow}")
        return self

    def of(self, flow: str) -> PayloadMapping | None:
        mapping: PayloadMapping | None = getattr(self, flow, None)
        return mapping


@cache
def mappings_model() -> type[Mappings]:
    fields: dict[str, Any] = {
        function: (PayloadMapping | None, Field(default=None, description=f"The mapping of the function {function}."))
        for entry in REGISTRY
        if entry.has_mappings
        for function in entry.functions
    }
    return cast("type[Mappings]", create_model("Mappings", __base__=Mappings, __doc__=MAPPINGS, **fields))


def checked_expression(expression: str) -> str:
    """Return it. Raises ValueError if it is no JMESPath expression, or calls a function that does not exist.

    JMESPath itself would notice that only when the function is called.
    """
    try:
        compiled = jmespath.compile(expression)
        functions = list(_functions(compiled.parsed))
    except FAILURES as error:
        raise ValueError(f"is no JMESPath expression: {type(error).__name__}") from None
    for name, arguments in functions:
        signature = Functions.FUNCTION_TABLE.get(name, {}).get("signature")
        if signature is None:
            raise ValueError(f"calls {name}(), which JMESPath does not have")
        variadic = bool(signature) and signature[-1].get("variadic", False)
        if arguments < len(signature) or (arguments > len(signature) and not variadic):
            raise ValueError(f"calls {name}() with {arguments} arguments")
    return expression


def _functions(node: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    if node["type"] == "function_expression":
        yield node["value"], len(node["children"])
    for child in node["children"]:
        if isinstance(child, dict):  # a slice has plain numbers
            yield from _functions(child)


class NotFiniteError(ValueError):
    """A value has a number that JSON does not have."""


def check_finite(value: JsonValue) -> None:
    """Raise NotFiniteError if a value has an infinite number or NaN in it, which JSON does not have.

    `to_number('nan')` yields one, and so does a sum that is too large. Raises RecursionError for endless nesting.
    """
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise NotFiniteError("yields a number that is not finite") from None


def as_json(value: object) -> str:
    """Return a value as compact JSON: equal values have the same text, and `1` is not `true`."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def shape_of(value: JsonValue) -> object:
    """Return the same structure with kinds in place of values."""
    if isinstance(value, dict):
        return {name: shape_of(member) for name, member in value.items()}
    if isinstance(value, list):
        return [shape_of(member) for member in value[:3]]
    return {str: "text", bool: "true or false", int: "number", float: "number"}.get(type(value), "null")

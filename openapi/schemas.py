"""JSON Schema of the models, with what their validators demand besides types.

pydantic cannot know what a validator written in Python demands. `VALIDATORS` and `RULES` say it, and a validator that
is in neither is an error: a schema that promises too much would be untrue.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from connector_receiver import models as connector
from connector_receiver.handler import OUR_ID
from create_job import models as job
from crm_bridge import fields
from crm_bridge.ids import PLACEHOLDERS, TEMPLATES, UNSEEN, filled_in
from key_link import models as key_link
from operations import models as operations
from status_update import models as status

REF = "#/components/schemas/"
_CONTROL = r"\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f"
_LIMITS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
"""What pydantic leaves in its own words where a validator stands before a number."""
NUMBERS_AS_TEXT = {
    "Number": "^[1-9][0-9]{0,17}$",
    "Latitude": r"^-?(90(\.0+)?|[0-8]?[0-9](\.[0-9]+)?)$",
    "Longitude": r"^-?(180(\.0+)?|(1[0-7][0-9]|[0-9]{1,2})(\.[0-9]+)?)$",
}
"""CRMs write numbers as text, too; within the same limits, which a pattern has to say."""


def _as_it_is(schema: JsonSchemaValue) -> JsonSchemaValue:
    return schema


def _with(**more: object) -> Callable[[JsonSchemaValue], JsonSchemaValue]:
    return lambda schema: {**schema, **more}


def _or(*others: JsonSchemaValue) -> Callable[[JsonSchemaValue], JsonSchemaValue]:
    return lambda schema: {"anyOf": [schema, *others]}


def _printable(schema: JsonSchemaValue) -> JsonSchemaValue:
    """Text that must not be empty is trimmed first, so it must not be blank either."""
    pattern = rf"^[^{_CONTROL}]*[^\s{_CONTROL}][^{_CONTROL}]*$" if schema.get("minLength") else rf"^[^{_CONTROL}]*$"
    return {**schema, "pattern": pattern}


def _without_unseen(schema: JsonSchemaValue) -> JsonSchemaValue:
    """At its ends they are taken off. ECMA-262 has other escapes than Python."""
    unseen = re.sub(r"\\U([0-9a-f]{8})", lambda escaped: chr(int(escaped[1], 16)), UNSEEN.replace(r"\x", r"\u00"))
    return {**schema, "pattern": f"^[^{unseen}]*$"}


def _filled_in(schema: JsonSchemaValue) -> JsonSchemaValue:
    words = [re.sub("[a-z]", lambda letter: f"[{letter[0]}{letter[0].upper()}]", word) for word in sorted(PLACEHOLDERS)]
    words = [word.replace("(", r"\(").replace(")", r"\)") for word in words]
    empty = [r"([Uu][Rr][Nn]:[Uu]{2}[Ii][Dd]:)?[{(]?0{8}-?(0{4}-?){3}0{12}[)}]?", "0{15}[Aa]{3}"]
    return {**schema, "not": {"pattern": rf"^\s*({'|'.join([*words, *empty, TEMPLATES])})\s*$"}}


VALIDATORS: Mapping[Callable[..., object], Callable[[JsonSchemaValue], JsonSchemaValue]] = {
    fields.composed: _as_it_is,
    fields.text_of_whole_number: _or({"type": "integer"}),
    fields.printable: _printable,
    fields.without_unseen: _without_unseen,
    fields.without_zeros: _as_it_is,
    filled_in: _filled_in,
    fields._not_a_boolean: _as_it_is,  # in JSON a boolean is no number anyway
    key_link._short: _with(maxLength=key_link.LONGEST_NAME, description="The limit is in bytes."),
    job._iso: lambda _: {
        "type": "string",
        "pattern": "^[2-9]",
        "anyOf": [{"format": "date"}, {"format": "date-time"}],
    },
    job._without_brackets: _with(pattern=r"^[^\[\]]*$"),
    job._storable: _as_it_is,
    operations._place: _with(
        pattern=r"^(sending|succeeded|rejected|waiting|unconfirmed|needs_review)\.[0-9]{1,10}\.op_[0-9a-f]{32}$"
    ),
    status._status: lambda _: {"enum": ["operational", "impaired", "outage", 5, 6, 7, "5", "6", "7"]},
    status._utc: _as_it_is,
    status._plausible: _with(pattern="^[2-9]"),
    status._written_out: _as_it_is,
    connector._none_if_empty: _or({"const": ""}),
    connector._upper: _as_it_is,
    connector._user_type: _as_it_is,
    connector._gender: lambda _: {"enum": ["M", "F", ""]},
    connector._country: _with(pattern="^([A-Z]{2})?$"),
    connector._birthday: _with(pattern="^($|20|19(?!00-01-01))", description="Not in the future."),
    connector._trial_day: _with(pattern="^($|[2-9])"),
    connector._day: lambda _: {"anyOf": [{"type": "string", "format": "date"}, {"const": ""}]},
}
"""What each validator makes of the schema of what it is around."""

_NULL, _GIVEN = {"type": "null"}, {"not": {"type": "null"}}
RULES: Mapping[type[BaseModel], JsonSchemaValue] = {
    job.CreateJob: {
        "oneOf": [
            {"required": ["customer_id"], "properties": {"customer_id": _GIVEN, "site_id": _NULL}},
            {"required": ["site_id"], "properties": {"site_id": _GIVEN, "customer_id": _NULL, "site": _NULL}},
        ]
    },
    operations.Resolution: {
        "oneOf": [
            {"required": ["id"], "properties": {"action": {"const": "link"}, "id": _GIVEN}},
            {
                "properties": {
                    "action": {"enum": ["retry", "discard", "unlink"]},
                    "id": _NULL,
                    "confirmed": {"enum": [False, 0, "0", "false"]},
                }
            },
        ]
    },
    connector.PersonSave: {
        "allOf": [
            {
                "properties": {
                    "recordID": {"anyOf": [{"type": "string", "pattern": f"^{OUR_ID}$"}, {"const": ""}, _NULL]}
                }
            }
        ]
    },
}
"""What is demanded of whole models, by their validators or their handlers."""


class UnexplainedValidatorError(Exception):
    def __init__(self, validator: object) -> None:
        super().__init__(f"say in {__name__} what {validator} demands")


class _Generator(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the names say as much
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Of what is asked for, the defaults that mean something. An answer has none."""
        if self.mode == "serialization" or schema.get("default") is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def bool_schema(self, schema: core_schema.BoolSchema) -> JsonSchemaValue:
        """XML has only text, and writes it in either way: https://www.w3.org/TR/xmlschema-2/#boolean"""
        made = super().bool_schema(schema)
        return {"anyOf": [made, {"enum": [0, 1, "0", "1", "true", "false"]}]} if self.mode == "validation" else made

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        return self._explained(schema)

    def function_after_schema(self, schema: core_schema.AfterValidatorFunctionSchema) -> JsonSchemaValue:
        return self._explained(schema)

    def _explained(
        self, schema: core_schema.BeforeValidatorFunctionSchema | core_schema.AfterValidatorFunctionSchema
    ) -> JsonSchemaValue:
        inner = self.generate_inner(schema["schema"])
        validator = schema["function"]["function"]
        if self.mode == "serialization" or isinstance(validator, partial):  # pydantic's own, which explain themselves
            return inner
        owner = next((model for model in RULES if validator in vars(model).values()), None)
        if owner is not None:
            return inner
        if validator not in VALIDATORS:
            raise UnexplainedValidatorError(validator)
        return VALIDATORS[validator](inner)


def components(asked: set[type[BaseModel]], answered: set[type[BaseModel]]) -> dict[str, JsonSchemaValue]:
    """The schemas of all these models, by name. Raises UnexplainedValidatorError."""
    wanted = [(model, "validation") for model in asked] + [(model, "serialization") for model in answered]
    _, made = models_json_schema(
        sorted(wanted, key=lambda pair: pair[0].__name__),  # type: ignore[arg-type]
        ref_template=f"{REF}{{model}}",
        schema_generator=_Generator,
    )
    schemas: dict[str, JsonSchemaValue] = made["$defs"]
    for model in asked & RULES.keys():
        schemas[model.__name__] |= RULES[model]
    for name in NUMBERS_AS_TEXT.keys() & schemas.keys():
        number = {_LIMITS.get(keyword, keyword): value for keyword, value in schemas[name].items()}
        schemas[name] = {"anyOf": [number, {"type": "string", "pattern": NUMBERS_AS_TEXT[name]}]}
    return dict(sorted(schemas.items()))

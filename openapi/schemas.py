"""JSON Schema of the models. Their validators bring along what they demand (`crm_bridge.fields.Schema`)."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

REF = "#/components/schemas/"


class UnexplainedValidatorError(Exception):
    def __init__(self, validator: object) -> None:
        super().__init__(f"put a Schema behind {validator}: what it demands")


class _Generator(GenerateJsonSchema):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._explained: set[int] = set()

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the names say as much
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Of what is asked for, the defaults that mean something. A response has none."""
        if self.mode == "serialization" or schema.get("default") is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def bool_schema(self, schema: core_schema.BoolSchema) -> JsonSchemaValue:
        """XML has only text, and writes it in either way: https://www.w3.org/TR/xmlschema-2/#boolean"""
        made = super().bool_schema(schema)
        others = [{"type": "integer", "enum": [0, 1]}, {"type": "string", "enum": ["0", "1", "true", "false"]}]
        return {"anyOf": [made, *others]} if self.mode == "validation" else made

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        self._expect_explained(schema)
        return super().function_before_schema(schema)

    def function_after_schema(self, schema: core_schema.AfterValidatorFunctionSchema) -> JsonSchemaValue:
        self._expect_explained(schema)
        return super().function_after_schema(schema)

    def _expect_explained(self, schema: Any) -> None:
        """A schema that promises too much would be untrue. A response is not validated."""
        if self.mode == "serialization" or id(schema) in self._explained:
            return
        explanations = _explanations(schema)
        for one in _validators(schema):
            self._explained.add(id(one))
            validator, inner = one["function"]["function"], one["schema"]
            if inner["type"] == "model" and "json_schema_extra" in inner["cls"].model_config:
                continue  # it is the validator of a whole model
            if not isinstance(validator, partial):  # pydantic's own explain themselves
                explanations -= 1
            if explanations < 0:
                raise UnexplainedValidatorError(validator)


def _explanations(schema: Any) -> int:
    """pydantic keeps each Schema of an `Annotated` with the outermost of its validators."""
    return len(schema.get("metadata", {}).get("pydantic_js_annotation_functions", ()))


def _validators(schema: Any) -> Iterator[Any]:
    """Yield the validators of the same `Annotated`, the outermost first."""
    yield schema
    inner = schema["schema"]
    if inner["type"] in ("function-before", "function-after") and not _explanations(inner):
        yield from _validators(inner)


def components(asked: Iterable[type[BaseModel]], returned: Iterable[type]) -> dict[str, JsonSchemaValue]:
    """Return the schemas of all these types, by name. Raises UnexplainedValidatorError."""
    # A TypedDict has the config of the model that it is in, so the docstrings of its members are read here.
    members: Any = {one.__name__: (one, ...) for one in returned}
    bodies = create_model("Bodies", __config__=ConfigDict(use_attribute_docstrings=True), **members)
    models = sorted(asked, key=lambda model: model.__name__)
    _, made = models_json_schema(
        [*((model, "validation") for model in models), (bodies, "serialization")],
        ref_template=f"{REF}{{model}}",
        schema_generator=_Generator,
    )
    del made["$defs"][bodies.__name__]
    return dict(sorted(made["$defs"].items()))

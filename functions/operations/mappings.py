"""Tries mappings of the flows' own routes, for the console. Those of sources are tried by the function `sources`."""

from functools import cache
from typing import Annotated

from pydantic import ConfigDict, Field, JsonValue

from crm_bridge.errors import FieldError, InvalidError, NoSettingsError
from crm_bridge.fields import Input, JsonSchema, Schema
from crm_bridge.inbound.api import JsonResponse, Request
from crm_bridge.mapping import LONGEST_EXPRESSION, PayloadMapping, mappings_model
from crm_bridge.responses import Mappings
from crm_bridge.runtime import runtime
from crm_bridge.tenants import MAPPING_MAX_AGE
from crm_bridge.trial import Target, mappings_response, shown_mapping, try_out
from crm_bridge.vendors import PART_OF
from operations.flows import flows


def _enumerated(schema: JsonSchema) -> JsonSchema:
    return {**schema, "enum": list(targets())}


class MappingQuestion(Input):
    """A payload that a mapping is tried on. Without one the mappings are only listed."""

    model_config = ConfigDict(defer_build=True)

    flow: Annotated[str, Field(max_length=50), Schema(_enumerated)] | None = None
    """As `create_site`; required with a payload."""
    payload: JsonValue = None
    """What the sender sends."""
    expression: Annotated[str, Field(max_length=LONGEST_EXPRESSION)] | None = None
    """Tried in place of the tenant's own."""


@cache
def targets() -> dict[str, Target]:
    """Return the flows that a tenant's `mappings` make commands for, by their names: the first one of each function."""
    mapped = mappings_model().model_fields
    first = {flow.function: (name, flow) for name, flow in reversed(flows().items()) if flow.event_route}
    return {
        name: Target(name, function, flow.event_model)
        for function, (name, flow) in reversed(first.items())
        if function in mapped
    }


def try_mapping(request: Request, *, readable: frozenset[str], shows: bool) -> JsonResponse[Mappings]:
    """Return the response to a question about the tenant's mappings.

    `readable` are the parts of a tenant's document that this function may read; `shows` says whether the caller may
    see the values of samples.
    """
    asked = request.parse(MappingQuestion)
    there = targets()
    if asked.flow is not None and asked.flow not in there:
        raise InvalidError.of(FieldError("flow", f"must be one of {', '.join(there)}"))
    mappings, known = [], {}
    for name, target in there.items():
        is_readable = PART_OF[target.function] in readable
        known[name] = _stored(request.caller.tenant, target.function) if is_readable else None
        mappings.append(shown_mapping(name, name, known[name], shows=shows, is_readable=is_readable))
    trial = None
    if "payload" in asked.model_fields_set and asked.flow is not None:
        trial = try_out(asked.flow, there[asked.flow], known[asked.flow], asked.expression, asked.payload, shows=shows)
    return JsonResponse(200, mappings_response(mappings, trial))


def _stored(tenant: str, function: str) -> PayloadMapping | None:
    """Return a mapping as functions use it now. Raises NotConfiguredError, StorageError."""
    try:
        return runtime().tenants.get(tenant, function, max_age=MAPPING_MAX_AGE).mappings.of(function)
    except NoSettingsError:  # the tenant does not use this vendor
        return None

"""Tries the expressions of sources, for the console."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field, JsonValue

from crm_bridge.errors import InvalidError, NotFoundError
from crm_bridge.fields import Input
from crm_bridge.inbound.api import JsonResponse, Request
from crm_bridge.mapping import LONGEST_EXPRESSION
from crm_bridge.responses import Mappings, MappingTrial
from crm_bridge.runtime import runtime
from crm_bridge.sources import SourceSettings
from crm_bridge.storage.api_keys import PAYLOAD_SCOPE, READ_SCOPE
from crm_bridge.tenants import MAPPING_MAX_AGE
from crm_bridge.vendors import SOURCES
from sources.flows import fitting, reached

if TYPE_CHECKING:
    from crm_bridge.trial import Target


class SourceQuestion(Input):
    """An event that a source's expressions are tried on. Without one the entries of all sources are only listed."""

    model_config = ConfigDict(defer_build=True)

    source: Annotated[str, Field(max_length=63)] | None = None
    """Its name; required with a payload."""
    entry: Annotated[int, Field(ge=0, lt=50)] | None = None
    """The number of the entry in `events`, from 0; without it the first one that fits."""
    payload: JsonValue = None
    """One event, as the sender sends it."""
    expression: Annotated[str, Field(max_length=LONGEST_EXPRESSION)] | None = None
    """Tried in place of the entry's own."""


def _try_source(request: Request) -> JsonResponse[Mappings]:
    """Show what a source's expression makes of an event

    Nothing is stored or sent. Without a payload the entries of all sources are only listed. An expression that is given
    is tried in place of the entry's own, and compared with it.
    """
    from crm_bridge.trial import mappings_response, shown_mapping  # the function's cold start does not wait for it

    asked = request.parse(SourceQuestion)
    part = runtime().tenants.find(request.caller.tenant, SOURCES, max_age=MAPPING_MAX_AGE)
    sources = part.all_sources() if part else {}
    shows = PAYLOAD_SCOPE in request.caller.scopes
    mappings = [
        shown_mapping(f"{name}/{number}", one.flow, one.mapping, shows=shows, when=one.when)
        for name, settings in sources.items()
        for number, one in enumerate(settings.events)
    ]
    trial = None
    if "payload" in asked.model_fields_set and asked.source is not None:
        settings = sources.get(asked.source)
        if settings is None or (asked.entry or 0) >= len(settings.events):
            what = "source of this name" if settings is None else "entry of this number in the source"
            raise NotFoundError(f"This tenant has no {what}. Without a payload, all are listed.")
        trial = _trial(asked, asked.source, settings, shows=shows)
    return JsonResponse(200, mappings_response(mappings, trial))


def _trial(asked: SourceQuestion, source: str, settings: SourceSettings, *, shows: bool) -> MappingTrial:
    from crm_bridge.trial import no_trial, try_out

    ignored = no_trial()
    try:
        fits = fitting(settings, asked.payload)
    except InvalidError as error:
        return {**ignored, "errors": [{"field": "when", "message": error.detail}]}
    number = fits if asked.entry is None else asked.entry
    if number is None:
        return ignored
    target = target_of(source, settings, number, runtime().clock())
    if target is None:
        return {**ignored, "errors": [{"field": "flow", "message": "no source reaches this flow"}]}
    route = settings.events[number]
    return try_out(f"{source}/{number}", target, route.mapping, asked.expression, asked.payload, shows=shows)


def target_of(source: str, settings: SourceSettings, number: int, now: float) -> "Target | None":
    """Return what an entry of a source makes commands for; None if no source reaches its flow."""
    from crm_bridge.trial import Target

    found = reached(settings.events[number].flow)
    if found is None:
        return None
    flow, from_source = found
    to_command = from_source.to_command

    def complete(sent: Any) -> object:
        return to_command(sent, now) if to_command else sent

    def elsewhere(payload: JsonValue) -> str | None:
        try:
            fits = fitting(settings, payload)
        except InvalidError as error:
            return f"nowhere: {error.detail}"
        if fits == number:
            return None
        return "to no entry, so it is ignored" if fits is None else f"to the entry {source}/{fits}"

    return Target(flow.name, flow.function, from_source.sent or flow.command, complete, elsewhere)


ROUTES = {"POST /sources/try": _try_source}
SCOPES = dict.fromkeys(ROUTES, READ_SCOPE)

"""Makes commands of the events of sources."""

from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

from pydantic import BaseModel, JsonValue

from crm_bridge import Flow, FromSource
from crm_bridge.errors import InvalidError
from crm_bridge.inbound.api import mapped
from crm_bridge.sources import EventRoute, SourceSettings
from crm_bridge.vendors import called_functions

type AnyFlow = type[Flow[Any, Any, Any]]


@dataclass(frozen=True)
class Mapped:
    """An event as a command of a flow, and what made it."""

    flow: AnyFlow
    command: BaseModel = field(repr=False)
    mapping: str


def command_of(settings: SourceSettings, source: str, payload: JsonValue, now: float) -> Mapped | None:
    """Return the command that the source's settings make of an event; None if no entry fits. Raises InvalidError."""
    number = fitting(settings, payload)
    if number is None:
        return None
    route = settings.events[number]
    found = reached(route.flow)
    if found is None:
        raise InvalidError(f"A source cannot send to the flow {route.flow}. Correct the events of the source {source}.")
    flow, from_source = found
    command = mapped(payload, from_source.sent or flow.command, flow.function, route.mapping)
    if from_source.to_command:
        command = from_source.to_command(command, now)
    return Mapped(flow, command, label(source, route))


def fitting(settings: SourceSettings, payload: JsonValue) -> int | None:
    """Return the number of the entry that an event goes to; None if no entry fits. Raises InvalidError."""
    return next((number for number, one in enumerate(settings.events) if one.fits(payload)), None)


def label(source: str, route: EventRoute) -> str:
    return f"{source} {route.version}"


@cache
def reached(name: str) -> tuple[AnyFlow, FromSource] | None:
    """Return the flow with this name, if sources reach it. Its function is imported, which mostly has the same name."""
    for function in sorted(called_functions(), key=lambda function: (function != name, function)):
        flows: dict[str, AnyFlow] = import_module(f"{function}.handler").lambda_handler.flows
        if name in flows:
            from_source = flows[name].from_source
            return (flows[name], from_source) if from_source else None
    return None

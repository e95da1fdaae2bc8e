"""All flows by their names, for an operation of which only the name of its flow is known."""

from functools import cache
from importlib import import_module
from typing import Any

from crm_bridge import Flow, Function, Kind
from crm_bridge.storage.operation import Operation
from crm_bridge.vendors import REGISTRY


def flow_of(operation: Operation) -> type[Flow[Any, Any, Any]]:
    """Return the flow of an operation. Only its function is imported."""
    return _entry(operation.function).flows[operation.flow]


@cache
def flows() -> dict[str, type[Flow[Any, Any, Any]]]:
    """Return the flows of all functions by their names."""
    functions = (function for entry in REGISTRY for function in entry.functions)
    return {name: flow for function in functions for name, flow in _entry(function).flows.items()}


def searched_kinds() -> tuple[Kind, ...]:
    """Return the kinds of records whose ids are looked for. Any other record is found as `system/entity/id`."""
    return tuple(dict.fromkeys(kind for flow in flows().values() for kind in flow.kinds))


def _entry(function: str) -> Function:
    entry: Function = import_module(f"{function}.handler").lambda_handler
    return entry

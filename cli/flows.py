"""Arguments and options that name a flow. The shell completes them."""

from collections.abc import Callable
from typing import Any

import typer

from crm_bridge import Flow
from operations.flows import flows


def flow_names(fits: Callable[[type[Flow[Any, Any, Any]]], object] = bool) -> dict[str, Any]:
    """Return what Typer needs to know of a parameter that takes the name of a flow which `fits`."""

    def names() -> list[str]:
        return sorted(name for name, flow in flows().items() if fits(flow))

    def checked(name: str) -> str:
        if name not in names():
            raise typer.BadParameter(f"Choose one of {', '.join(names())}.")
        return name

    return {"metavar": "FLOW", "parser": checked, "autocompletion": names}

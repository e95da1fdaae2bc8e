"""The events in `events/<flow>/<case>.json`, for the demo, the tests and `sam local invoke` alike."""

import json
from pathlib import Path
from typing import Any

EVENTS = Path(__file__).parent.parent / "events"


def function_of(flow: str) -> str:
    """Return the name in template.yaml of the function for a folder in `events/`."""
    return flow.title().replace("_", "") + "Function"


def load_event(flow: str, case: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((EVENTS / flow / f"{case}.json").read_text())
    return event

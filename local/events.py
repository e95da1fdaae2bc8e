"""The events in `events/<flow>/<case>.json`, for the demo, the tests and `sam local invoke` alike."""

import json
from pathlib import Path
from typing import Any

EVENTS = Path(__file__).parent.parent / "events"
FUNCTIONS = {
    "create_site": "CreateSiteFunction",
    "create_job": "CreateJobFunction",
    "key_link": "KeyLinkFunction",
    "status_update": "StatusUpdateFunction",
    "connector_receiver": "ConnectorReceiverFunction",
    "operations": "OperationsFunction",
}
"""The function in template.yaml that takes a flow's events."""


def load_event(flow: str, case: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((EVENTS / flow / f"{case}.json").read_text())
    return event

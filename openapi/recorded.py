"""The real responses of the local stack to the events in events/: the examples of the document.

`python -m tests.record_responses` writes them again; tests/integration/test_events.py says whether they are still true.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "recorded.json"
REQUEST_ID = "6f1c8a52-3f0e-4c8b-9d3e-0b7a51f2c9d4"
"""In the examples, in place of the id that each request gets."""
SIMULATOR, EGITO = r"\b127\.0\.0\.1:[0-9]+", "acme.egito.pl"
"""The host under which links name Egito's records: the simulator's has another port each time."""


@dataclass(frozen=True)
class Recorded:
    event: str
    """`create_site/new`, which may have been answered twice: with 201, and with 202 when the vendor was down."""
    status: int
    media_type: str
    body: Any
    """Parsed, if it is JSON."""

    @property
    def name(self) -> tuple[str, str]:
        """Flow and case."""
        flow, _, case = self.event.partition("/")
        return flow, case


def as_recorded(event: str, response: Mapping[str, Any]) -> Recorded:
    """A function's answer to API Gateway."""
    kind = response["headers"].get("Content-Type", "").partition(";")[0]
    text = re.sub(SIMULATOR, EGITO, response["body"]).replace(response["headers"]["X-Request-Id"], REQUEST_ID)
    return Recorded(event, response["statusCode"], kind, json.loads(text) if kind.endswith("json") else text)


@cache
def recorded() -> list[Recorded]:
    return [Recorded(**one) for one in json.loads(RECORDED.read_text())]


def write(found: list[Recorded]) -> None:
    RECORDED.write_text(json.dumps([asdict(one) for one in found], indent=1, ensure_ascii=False) + "\n")

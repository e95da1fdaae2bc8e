"""What every test gets: an environment without the developer's AWS settings, and the events in `events/`."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crm_bridge.runtime import runtime

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in os.environ:
        if name.startswith(("AWS_", "POWERTOOLS_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    yield
    runtime.cache_clear()


def load_event(flow: str, case: str) -> dict[str, Any]:
    """`events/<flow>/<case>.json`"""
    event: dict[str, Any] = json.loads((ROOT / "events" / flow / f"{case}.json").read_text())
    return event

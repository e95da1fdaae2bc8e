"""How much work of its own the bridge does for one event: nothing is read, parsed or made twice."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import create_site
import crm_bridge
from local.events import load_event
from local.gateway import invoke
from tests.stack import Stack

OURS = tuple(f"{Path(package.__file__ or '').parents[1]}/" for package in (crm_bridge, create_site))
MOST_CALLS = 233
"""Calls of the bridge's own functions, properties and generators, of which each number with a fraction takes one: 389
when flows were not yet bound to a run."""


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the calls of the bridge's own functions in this thread."""
    calls: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            calls[frame.f_code.co_qualname] += 1

    sys.setprofile(profile)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def test_nothing_is_read_parsed_or_made_twice_for_a_new_site(stack: Stack) -> None:
    function, event = stack.template.functions["CreateSiteFunction"], load_event("create_site", "new")
    assert invoke(function, event)["statusCode"] == 201
    event = {**event, "body": json.dumps({**json.loads(event["body"]), "customer_id": "C-2"})}
    with counted() as calls:
        assert invoke(function, event)["statusCode"] == 201
    once = (
        "Request._read",
        "VendorResponse._parsed",
        "Vendor.__init__",
        "Engine.run",
        "Settling._settle",
        "Transport.call",
    )
    assert {name: calls[name] for name in once} == dict.fromkeys(once, 1)
    assert calls["_Secrets._get"] == 0  # the settings are in memory
    assert sum(calls.values()) <= MOST_CALLS

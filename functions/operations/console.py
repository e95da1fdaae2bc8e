"""The console: one static page, which asks the API with the key that somebody types into it."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from crm_bridge.vendors import called_functions
from operations.flows import flows

VENDORS = "{/* by flow */}"
"""In the page: takes the name of each flow's vendor."""
OWN = "your own system"


@cache
def page() -> Mapping[str, object]:
    """The response to `GET /console`. Nothing runs in the page, or is loaded or asked by it, but what stands in it.

    Source: https://www.w3.org/TR/CSP3/
    """
    text = Path(__file__).with_name("console.html").read_text(encoding="utf-8")
    text = text.replace(VENDORS, json.dumps(_vendors()))
    policy = (
        f"default-src 'none'; script-src {_hash(text, 'script')}; style-src {_hash(text, 'style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "statusCode": 200,
        "headers": {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "Strict-Transport-Security": "max-age=63072000",
            "X-Content-Type-Options": "nosniff",
        },
        "body": text,
        "isBase64Encoded": False,
    }


def _vendors() -> dict[str, str]:
    """Return where the events of each flow go."""
    called = called_functions()
    return {name: flow.vendor.name if flow.function in called else OWN for name, flow in flows().items()}


def _hash(text: str, tag: str) -> str:
    """What a browser computes of the only element with this tag before it heeds it."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

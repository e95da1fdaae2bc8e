"""The console: one static page, which asks the API with the key that somebody types into it.

Its parts are in `page/`: markup, style, and a script for each subject. Here they become one file.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from crm_bridge.inbound.api import REQUEST_ID
from crm_bridge.vendors import called_functions
from operations.flows import flows

PAGE = Path(__file__).with_name("page")
STYLE = "console.css"
SCRIPTS = (
    "parts.js",
    "session.js",
    "overview.js",
    "list.js",
    "bulk.js",
    "attempts.js",
    "operation.js",
    "mapping.js",
    "main.js",
)
FLOWS = "{/* by name */}"
"""In the script: takes what the page knows of each flow."""
OWN = "your own system"


def page(request_id: str) -> Mapping[str, object]:
    """Return the response to `GET /console`. The page runs and loads nothing but what is in it.

    Source: https://www.w3.org/TR/CSP3/
    """
    text, headers = _page()
    headers = {**headers, REQUEST_ID: request_id}
    return {"statusCode": 200, "headers": headers, "body": text, "isBase64Encoded": False}


@cache
def _page() -> tuple[str, Mapping[str, str]]:
    style = _read(STYLE)
    script = f'"use strict";\n(() => {{\n{"".join(map(_read, SCRIPTS))}}})();\n'.replace(FLOWS, json.dumps(_flows()))
    text = _read("console.html").replace("/* style */", style).replace("/* script */", script)
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "Strict-Transport-Security": "max-age=63072000",
        "X-Content-Type-Options": "nosniff",
    }


def _read(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


def _flows() -> dict[str, dict[str, object]]:
    """Return of each flow its vendor and route, whether a repeat is harmless, what the parts of its keys are, and what
    becomes of a later payload."""
    called = called_functions()
    return {
        name: {
            "vendor": flow.vendor.name if flow.function in called else OWN,
            "repeatable": flow.is_repeatable,
            "key": flow.key_parts,
            "route": flow.event_route,
            "update": flow.update.text,
        }
        for name, flow in flows().items()
    }


def _hash(content: str) -> str:
    """Return the hash that a browser computes of an element with this content before it runs or applies it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

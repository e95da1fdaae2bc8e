"""An example call of each operation, and what it looks like in curl, Python and JavaScript and for Postman."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from operator import attrgetter
from typing import Any
from urllib.parse import parse_qsl

from crm_bridge.inbound.api import JSON
from local.events import load_event
from openapi.document import DOCUMENT, document, examples_of

POSTMAN = DOCUMENT.with_name("postman.json")
URL, KEY = "CRM_BRIDGE_URL", "CRM_BRIDGE_API_KEY"
"""The environment variables of the snippets."""

type Node = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """One operation with the example that succeeded, as `events/` has it; without values if there is none yet."""

    route: str
    operation: Mapping[str, Any]
    path: str
    """With what was asked, as in `/operations?limit=10`."""
    body: object = None
    """Sent as JSON; None is no body."""
    key: str | None = None
    """The header `Idempotency-Key`, if the example has it."""

    @property
    def method(self) -> str:
        return self.route.partition(" ")[0]

    @property
    def tag(self) -> str:
        return str(self.operation["tags"][0])

    @property
    def snippets(self) -> Mapping[str, str]:
        """Return the call by the name of a language."""
        return {"curl": self._curl(), "Python": self._python(), "JavaScript": self._javascript()}

    def _curl(self) -> str:
        lines = [f'curl -sS -X {self.method} "${URL}"{shlex.quote(self.path)}', f'-H "Authorization: Bearer ${KEY}"']
        if self.key is not None:
            lines.append(f"-H {shlex.quote(f'Idempotency-Key: {self.key}')}")
        if self.body is not None:
            lines += [f"-H 'Content-Type: {JSON}'", f"-d {shlex.quote(json.dumps(self.body, ensure_ascii=False))}"]
        return " \\\n  ".join(lines)

    def _python(self) -> str:
        body = _python(self.body).replace("\n", "\n    ")
        return "\n".join(
            [
                "import os",
                "",
                "import requests",
                "",
                f"response = requests.{self.method.lower()}(",
                f'    os.environ["{URL}"] + {json.dumps(self.path)},',
                "    headers={",
                f'        "Authorization": f"Bearer {{os.environ[\'{KEY}\']}}",',
                *([f'        "Idempotency-Key": {json.dumps(self.key)},'] if self.key is not None else []),
                "    },",
                *([f"    json={body},"] if self.body is not None else []),
                "    timeout=30,",
                ")",
                "print(response.status_code, response.text)",
            ]
        )

    def _javascript(self) -> str:
        kind = [f'    "Content-Type": "{JSON}",'] if self.body is not None else []
        if self.key is not None:
            kind.append(f'    "Idempotency-Key": {json.dumps(self.key)},')
        body = json.dumps(self.body, indent=2, ensure_ascii=False).replace("\n", "\n  ")
        return "\n".join(
            [
                f"const response = await fetch(process.env.{URL} + {json.dumps(self.path)}, {{",
                f'  method: "{self.method}",',
                "  headers: {",
                f"    Authorization: `Bearer ${{process.env.{KEY}}}`,",
                *kind,
                "  },",
                *([f"  body: JSON.stringify({body}),"] if self.body is not None else []),
                "});",
                "console.log(response.status, await response.text());",
            ]
        )


@cache
def calls() -> Sequence[Call]:
    """Return a call of each operation, in the order of their functions and paths."""
    made = (
        _call(f"{method.upper()} {path}", operation)
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
    )
    return sorted(made, key=lambda call: (call.tag, call.route.partition(" ")[2], call.method))


def _call(route: str, operation: Mapping[str, Any]) -> Call:
    events = [load_event(*one.name) for one in sorted(examples_of(route), key=attrgetter("status"))]
    event = next((one for one in events if one["headers"].get("content-type", JSON) == JSON), None)
    if event is None:  # nothing was recorded of it yet
        return Call(route, operation, route.partition(" ")[2], {} if "requestBody" in operation else None)
    query = f"?{event['rawQueryString']}" if event.get("rawQueryString") else ""
    body = json.loads(event["body"]) if event.get("body") else None
    return Call(route, operation, event["rawPath"] + query, body, event["headers"].get("idempotency-key"))


def _python(body: object) -> str:
    text = json.dumps(body, indent=4, ensure_ascii=False)
    return re.sub(
        r"(?<=: )(true|false|null)(?=,?$)", lambda found: repr(json.loads(found[0])), text, flags=re.MULTILINE
    )


# ---------------------------------------------------------------------- Postman


def postman_text() -> str:
    """Return what docs/postman.json has to be: a collection with a folder for each function, which Bruno imports too.

    Source: https://schema.postman.com/collection/json/v2.1.0/draft-07/docs/index.html
    """
    folders = [{"name": tag, "item": [_item(one) for one in of]} for tag, of in groupby(calls(), attrgetter("tag"))]
    made = {
        "info": {
            "name": "CRM Bridge",
            "description": "Set the variable `api_key`, and `base_url` to what `sam deploy` prints.",
            "schema": "https://schema.getpostman.com/json/collection/v2.1.0/collection.json",
        },
        "auth": {"type": "bearer", "bearer": [{"key": "token", "value": "{{api_key}}", "type": "string"}]},
        "variable": [{"key": "base_url", "value": "http://127.0.0.1:3000"}, {"key": "api_key", "value": ""}],
        "item": folders,
    }
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def _item(call: Call) -> Node:
    path, _, query = call.path.partition("?")
    url: Node = {
        "raw": "{{base_url}}" + call.path,
        "host": ["{{base_url}}"],
        "path": path.strip("/").split("/"),
        "query": [{"key": name, "value": value} for name, value in parse_qsl(query)],
    }
    request: Node = {"method": call.method, "url": url, "description": call.operation["description"]}
    if call.body is not None:
        text = json.dumps(call.body, indent=2, ensure_ascii=False)
        request["header"] = [{"key": "Content-Type", "value": JSON}]
        if call.key is not None:
            request["header"].append({"key": "Idempotency-Key", "value": call.key})
        request["body"] = {"mode": "raw", "raw": text, "options": {"raw": {"language": "json"}}}
    return {"name": call.operation["summary"], "request": request}

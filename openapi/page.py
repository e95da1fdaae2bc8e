"""docs/reference.html: each operation with its parameters, fields, responses, and calls in three languages.

One page that loads nothing, and runs nothing.
"""

import re
from collections.abc import Iterator, Mapping
from html import escape
from itertools import groupby
from operator import attrgetter
from typing import Any

from openapi.calls import KEY, URL, Call, calls
from openapi.document import DOCUMENT, document
from openapi.schemas import REF

PAGE = DOCUMENT.with_name("reference.html")
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; }
h2 { border-top: 1px solid #8886; padding-top: 1.5rem; }
h3 { margin-top: 2.5rem; overflow-wrap: anywhere; }
h3 code, nav code { font-weight: bold; }
table { border-collapse: collapse; width: 100%; }
td, th { border-bottom: 1px solid #8884; padding: .3rem .6rem .3rem 0; text-align: left; vertical-align: top; }
pre { background: #8881; overflow-x: auto; padding: .8rem; }
code { font-size: .9em; }
summary { cursor: pointer; }
"""


def text() -> str:
    """Return what docs/reference.html has to be."""
    groups = [(tag, list(of)) for tag, of in groupby(calls(), attrgetter("tag"))]
    links = "".join(
        f"<li>{_code(tag)}<ul>"
        + "".join(
            f'<li><a href="#{one.operation["operationId"]}">{escape(one.operation["summary"])}</a></li>' for one in of
        )
        + "</ul></li>"
        for tag, of in groups
    )
    sections = "\n".join(f"<h2>{_code(tag)}</h2>\n" + "\n".join(map(_section, of)) for tag, of in groups)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>CRM Bridge: API reference</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>CRM Bridge: API reference</h1>
<p>Made of <a href="openapi.json">openapi.json</a> by <code>make openapi</code>. The calls need two variables:
<code>{URL}</code> and <code>{KEY}</code>. <code>make run</code> prints both; on AWS the first is what
<code>sam deploy</code> prints. The values in the calls are those of the demo.</p>
<nav><ul>{links}</ul></nav>
{sections}
</body>
</html>
"""


def _section(call: Call) -> str:
    operation = call.operation
    parts = [
        f'<h3 id="{operation["operationId"]}"><code>{escape(call.route)}</code></h3>',
        f"<p><b>{escape(operation['summary'])}.</b> {_words(operation['description'])}</p>",
        _table("Parameters", ("name", "in", "", ""), map(_parameter, operation.get("parameters", ()))),
        _table("Fields of the body", ("name", "type", "", ""), _fields(operation)),
        _table("Responses", ("status", "", ""), map(_response, operation["responses"].items())),
        *(
            f"<details><summary>{name}</summary><pre><code>{escape(code)}</code></pre></details>"
            for name, code in call.snippets.items()
        ),
    ]
    return "\n".join(part for part in parts if part)


def _table(title: str, columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """Return nothing if there are no rows. The cells are HTML."""
    lines = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    head = "".join(f"<th>{column}</th>" for column in columns)
    return f"<h4>{title}</h4>\n<table><tr>{head}</tr>\n{'\n'.join(lines)}\n</table>" if lines else ""


def _parameter(parameter: Mapping[str, Any]) -> tuple[str, ...]:
    required = "required" if parameter.get("required") else ""
    return _code(parameter["name"]), parameter["in"], required, _words(parameter.get("description", ""))


def _fields(operation: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    if "requestBody" not in operation:
        return
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = _schema(reference)
    for name, member in schema["properties"].items():
        required = "required" if name in schema.get("required", ()) else ""
        yield _code(name), escape(" or ".join(_types(member))), required, _words(member.get("description", ""))


def _response(entry: tuple[str, Mapping[str, Any]]) -> tuple[str, ...]:
    status, response = entry
    if "$ref" in response:
        response = document()["components"]["responses"][response["$ref"].rpartition("/")[2]]
    schemas = {content["schema"]["$ref"].rpartition("/")[2] for content in _described(response)}
    return status, _words(response["description"]), ", ".join(map(_code, sorted(schemas)))


def _described(response: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (content for content in response.get("content", {}).values() if "schema" in content)


def _types(schema: Mapping[str, Any]) -> list[str]:
    """Return the JSON types that a value may have, but null."""
    if "$ref" in schema:
        return _types(_schema(schema["$ref"]))
    if "anyOf" in schema:
        return list(dict.fromkeys(kind for one in schema["anyOf"] for kind in _types(one))) or ["string"]
    return [] if schema.get("type") == "null" else [schema["type"]] if "type" in schema else []


def _schema(reference: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = document()["components"]["schemas"][reference.removeprefix(REF)]
    return found


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _words(text: str) -> str:
    """Return a line of Markdown as HTML. Its links, which are to places in docs/api.md, become their words."""
    text = re.sub(r"\[(.+?)\]\(.+?\)", r"\1", text)
    return re.sub("`(.+?)`", r"<code>\1</code>", escape(text, quote=False))

"""docs/settings.md: every setting of a tenant, out of the settings' models. `python -m docs` writes it.

The examples are the values in docs/tenant.json, which is a valid document with every setting in it.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cli.settings import schema_of_tenants

PAGE = Path(__file__).parent / "settings.md"
EXAMPLE = Path(__file__).parent / "tenant.json"
_INTRODUCTION = """\
# Settings

Every setting of a tenant: its name, what it takes, its default, what it means, and an example.
[Configuration](configuration.md) explains how settings work together. [tenant.json](tenant.json) is one document with
all of them, and `crm-bridge tenant schema` prints the JSON Schema. `python -m docs` writes this page.

A block that the tenant does not use is left out. An unknown setting is refused.
"""
_TYPES = {
    "string": "text",
    "integer": "whole number",
    "boolean": "`true` or `false`",
    "object": "object",
    "array": "list",
}
_ADDRESSES = frozenset({"VendorUrl", "WebhookUrl", "SignedUrl"})
_NAMES_OF_EGITO = "EgitoName"
_LONGEST = 60
"""Characters of a default or an example that a table shows."""

type Schema = Mapping[str, Any]


def content() -> str:
    """Return what docs/settings.md has to be."""
    return _INTRODUCTION + "".join(section(part) for part in parts())


class Part(NamedTuple):
    """An object of the document, and its places. A `*` is a name that the tenant chooses, or a number."""

    places: list[str]
    schema: Schema
    examples: list[Any]


def parts() -> list[Part]:
    """Return each object of the document once, those within it right after it."""
    schema = schema_of_tenants()
    definitions, example = schema["$defs"], json.loads(EXAMPLE.read_text())
    blocks = {name: part for name, part in schema["properties"].items() if any(objects(name, part, [], definitions))}
    others = {name: part for name, part in schema["properties"].items() if name not in blocks}
    found = {"": Part([], {"properties": others, "description": "At the top of the document."}, [example])}
    names = sorted(blocks, key=lambda name: name == "mappings")  # after all vendors
    waiting = [(name, blocks[name], [example[name]] if name in example else []) for name in names]
    while waiting:
        place, block, values = waiting.pop(0)
        for inner, part, examples in objects(place, block, values, definitions):
            if part["title"] in found:
                found[part["title"]].places.append(inner)
                continue
            found[part["title"]] = Part([inner], part, examples)
            waiting[:0] = [
                (f"{inner}.{name}", setting, [one[name] for one in examples if isinstance(one, dict) and name in one])
                for name, setting in part["properties"].items()
            ]
    return [*found.values()]


def objects(
    place: str, part: Schema, examples: list[Any], definitions: Schema
) -> Iterator[tuple[str, Schema, list[Any]]]:
    """Yield the objects with named settings that a part is, or holds by names or in a list."""
    if reference := part.get("$ref"):
        name = reference.rpartition("/")[2]
        yield from objects(place, {"title": name, **definitions[name]}, examples, definitions)
    elif "properties" in part:
        yield place, part, examples
    for option in part.get("anyOf", ()):
        yield from objects(place, option, examples, definitions)
    inner = [*part.get("patternProperties", {}).values()]
    inner += [held for held in (part.get("additionalProperties"), part.get("items")) if isinstance(held, dict)]
    for held in inner:
        below = [value for one in examples for value in (one.values() if isinstance(one, dict) else one)]
        yield from objects(f"{place}.*", held, below, definitions)


def section(part: Part) -> str:
    """Return the heading and the table of one object."""
    definitions = schema_of_tenants()["$defs"]
    heading = ", ".join(f"`{place}`" for place in part.places) or "The document"
    lines = ["", f"## {heading}", ""]
    if meaning := _meaning(part.schema, definitions):
        lines += [meaning, ""]
    lines += ["| setting | takes | meaning and example |", "|---|---|---|"]
    for name, setting in part.schema["properties"].items():
        examples = [one[name] for one in part.examples if isinstance(one, dict) and name in one]
        is_required = name in part.schema.get("required", ())
        takes = f"{kind(setting, definitions)}; {'required' if is_required else _default(setting)}"
        meaning = f"{_meaning(setting, definitions).rstrip('.')}. Example: {''.join(map(_shown, examples[:1]))}"
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in (f'`{name}`', takes, meaning))} |")
    return "\n".join(lines) + "\n"


def _meaning(part: Schema, definitions: Schema) -> str:
    """Return the description of a part, or else of the object that it refers to, in one line and without its source."""
    if "description" in part:
        return " ".join(str(part["description"]).split()).partition(" Source: ")[0]
    references = [one["$ref"] for one in (part, *part.get("anyOf", ())) if "$ref" in one]
    return _meaning(definitions[references[0].rpartition("/")[2]], definitions) if references else ""


def kind(setting: Schema, definitions: Schema) -> str:
    """Return in words what a setting takes."""
    if reference := setting.get("$ref"):
        name = reference.rpartition("/")[2]
        if name in _ADDRESSES:
            return "secret address" if definitions[name].get("writeOnly") or setting.get("writeOnly") else "address"
        if name == _NAMES_OF_EGITO:
            return "name at Egito"
        return kind(definitions[name], definitions)
    options = [kind(one, definitions) for one in setting.get("anyOf", ()) if one.get("type") != "null"]
    if options:
        return " or ".join(dict.fromkeys(options))
    if "const" in setting:
        return f"`{setting['const']}`"
    if "enum" in setting:
        values = [f"`{value}`" if value.strip(", ") else f"`{json.dumps(value)}`" for value in setting["enum"]]
        return ", ".join(values) if len(values) <= 6 else "one of those in [Connect a sender](connect/index.md)"
    if setting.get("writeOnly"):
        return "secret text"
    lowest, highest = setting.get("minimum"), setting.get("maximum")
    if lowest is not None:
        return f"{lowest:,} to {highest:,}"
    return _TYPES.get(setting.get("type", ""), "any value")


def _default(setting: Schema) -> str:
    return "optional" if setting.get("default") in (None, {}) else f"default {_shown(setting['default'])}"


def _shown(value: object) -> str:
    written = json.dumps(value, ensure_ascii=False)
    return f"`{written}`" if len(written) <= _LONGEST else "[tenant.json](tenant.json)"

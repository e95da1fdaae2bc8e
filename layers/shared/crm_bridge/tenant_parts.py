"""The parts of a tenant's document, each of which is a secret: how it is split, and put together again."""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from crm_bridge.vendors import PART_OF, REGISTRY, SOURCES

PARTS = (*(entry.part for entry in REGISTRY), SOURCES)
EMPTY = "{}"
"""The text of a part without settings."""
OF_ALL = ("keep_requests_days", "keep_exchanges_days")
"""Settings that every part repeats, so that no function has to read another's secret for them."""
WEBHOOK = "webhook"
"""The part that other parts say about whether it is there."""


@cache
def blocks_of() -> Mapping[str, tuple[str, ...]]:
    """Return the blocks of each part."""
    of_vendors = {entry.part: tuple(model.block for model in entry.vendor().blocks()) for entry in REGISTRY}
    return {**of_vendors, SOURCES: (SOURCES,)}


def split(document: str) -> dict[str, str]:
    """Return the parts of a tenant's document, in the order in which they must be written; one without settings is
    EMPTY.

    Several secrets cannot be written at once. As long as a vendor's part says that there is a webhook, the webhook's is
    there: it is the first to be written, and the last to be emptied. All else that belongs together is in one part.
    White space at the end is kept, for it makes another version of a secret. Raises ValueError if it is no JSON object.
    """
    whole: Any = json.loads(document)
    if not isinstance(whole, dict):
        raise ValueError("a tenant's settings are a JSON object")
    mappings = whole.get("mappings") or {}
    has_webhook = whole.get(WEBHOOK) is not None
    space = document[len(document.rstrip()) :]
    parts = {}
    for part, blocks in blocks_of().items():
        content = {block: whole[block] for block in blocks if whole.get(block) is not None}
        mapped = {flow: mapping for flow, mapping in mappings.items() if PART_OF.get(flow) == part}
        content |= {"mappings": mapped} if mapped else {}
        if content and has_webhook and part != WEBHOOK:
            content["has_webhook"] = True
        if content:
            content |= {name: whole[name] for name in OF_ALL if whole.get(name) is not None}
        parts[part] = (json.dumps(content, indent=2, ensure_ascii=False) if content else EMPTY) + space
    webhook = parts.pop(WEBHOOK)
    return {WEBHOOK: webhook, **parts} if has_webhook else {**parts, WEBHOOK: webhook}


def has_webhook(part: str) -> bool:
    """Return whether a part says that there is a webhook. Raises ValueError if it is no JSON."""
    return bool(json.loads(part).get("has_webhook"))


def joined(parts: Iterable[str]) -> str:
    """Return the document that `split` made these of. Raises ValueError if one is no JSON."""
    whole: dict[str, Any] = {}
    mappings: dict[str, Any] = {}
    for part in parts:
        content: dict[str, Any] = json.loads(part)
        content.pop("has_webhook", None)
        mappings |= content.pop("mappings", {})
        whole |= content
    return json.dumps({**whole, "mappings": mappings} if mappings else whole, indent=2, ensure_ascii=False)

"""docs/connect: every sender has its page, and what the page says to set works for what it says arrives.

    REWRITE=1 pytest tests/unit/sources/test_connect_docs.py

writes the table of presets again.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from crm_bridge.inbound.api import validated
from crm_bridge.sources import PRESETS, Incoming, SourceSettings, receive
from local.source_requests import prove
from operations.flows import flows

DOCS = Path(__file__).parents[3] / "docs/connect"
INDEX = DOCS / "index.md"
PAGES = {path.stem: path.read_text() for path in sorted(DOCS.glob("*.md")) if path != INDEX}
NOW = 1_795_000_000.0
AS_IT_COMES = [page for page in PAGES if page not in ("shopify", "github", "salesforce-outbound", "zoho")]
"""Pages of senders whose request is the event itself, in JSON."""
SECTIONS = ["Settings", "What arrives", "What it repeats", "See that it works", "Not possible, not documented"]


def blocks(page: str) -> list[Any]:
    return [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", PAGES[page], re.DOTALL | re.MULTILINE)]


def sources(page: str) -> dict[str, SourceSettings]:
    """Return the sources in the settings of a page, by their names."""
    return {
        name: SourceSettings.model_validate(source)
        for block in blocks(page)
        for name, source in block.get("sources", {}).items()
    }


def arriving(page: str) -> list[Any]:
    """Return the events of which a page says that they arrive."""
    return [block for block in blocks(page) if "sources" not in block]


def page_of(preset: str) -> str:
    pages = [page for page in PAGES if any(source.preset == preset for source in sources(page).values())]
    pages += [page for page, text in PAGES.items() if f"`{preset}`" in text and page not in pages]
    return pages[0]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_sender_has_its_page(preset: str) -> None:
    assert PRESETS[preset].source_page in PAGES[page_of(preset)]


@pytest.mark.parametrize("page", PAGES)
def test_page_has_the_same_sections_as_all_others_and_is_short(page: str) -> None:
    found = re.findall(r"^## (.+)$", PAGES[page], re.MULTILINE)
    assert [section for section in found if section in SECTIONS] == SECTIONS
    assert found[0].startswith("In ")
    assert len(PAGES[page].splitlines()) < 90


@pytest.mark.parametrize("page", PAGES)
def test_what_arrives_becomes_a_valid_command_by_the_settings_of_the_page(page: str) -> None:
    arrived = arriving(page)
    assert arrived
    for source in sources(page).values():
        routes = [(route, event) for event in arrived for route in source.events if route.fits(event)]
        assert routes
        for route, event in routes:
            flow = flows()[route.flow]
            command: BaseModel = validated(flow.command, route.mapping.apply(route.flow, event))
            assert flow().key(command)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in ("shopify", "github", "salesforce-outbound", "zoho")]
)
def test_what_arrives_is_what_the_preset_makes_of_a_request(page: str) -> None:
    for source in sources(page).values():
        for event in arriving(page):
            headers = {**source.preset_class().sample_headers, "content-type": "application/json", "x-timestamp": ""}
            if source.preset == "cloudevents":
                headers["content-type"] = "application/cloudevents+json"
            request = prove(source, Incoming("POST", headers, {}, json.dumps(event).encode()), NOW)
            assert [found.payload for found in receive(source, request, NOW)] == [event]


@pytest.mark.parametrize("page", PAGES)
def test_key_of_what_arrives_is_no_hash_when_the_page_names_its_parts(page: str) -> None:
    for source in sources(page).values():
        if source.key is None:
            continue
        for event in arriving(page):
            headers = {"content-type": "application/json"}
            request = prove(source, Incoming("POST", headers, {}, json.dumps(event).encode()), NOW)
            [found] = receive(source, request, NOW)
            if any(route.fits(event) for route in source.events):
                assert len(found.key.split("|")) == len(source.key)


def presets() -> str:
    rows = ["| preset | sender | proofs | answers | event key |", "|---|---|---|---|---|"]
    for name, preset in PRESETS.items():
        key = ", ".join(f"`{part.removesuffix(" || ''")}`" for part in preset.key) or "a hash"
        key = key.replace(" || ", "` or `")
        proofs = ", ".join(f"`{proof}`" for proof in preset.proofs)
        answers = ", ".join(f"`{answer}`" for answer in preset.answers)
        rows.append(f"| `{name}` | [{preset.title}]({page_of(name)}.md) | {proofs} | {answers} | {key} |")
    return "\n".join(rows)


def test_index_has_every_preset() -> None:
    text = INDEX.read_text()
    found = re.search(r"(<!-- presets -->\n\n)(.*?)(\n\n<!-- end -->)", text, re.DOTALL)
    assert found
    if "REWRITE" in os.environ:
        INDEX.write_text(text.replace(found[0], found[1] + presets() + found[3]))
        return
    assert found[2] == presets()

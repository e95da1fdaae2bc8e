"""Pages that `python -m docs` writes are as it would write them, and complete."""

import re
from types import ModuleType

import pytest
from pydantic import BaseModel

from crm_bridge.settings import parse_tenant, tenant_model
from crm_bridge.sources import EventRoute, SourceSettings
from crm_bridge.vendors import vendors
from docs import command_reference, decision_index, settings_reference
from docs.settings_reference import EXAMPLE, parts, section


@pytest.mark.parametrize("page", [settings_reference, command_reference, decision_index])
def test_page_is_up_to_date(page: ModuleType) -> None:
    assert page.PAGE.read_text() == page.content(), "run `make pages`, and commit what it writes"


def test_the_document_with_all_settings_is_valid() -> None:
    parse_tenant(EXAMPLE.read_text())


def test_every_setting_has_a_meaning_and_an_example() -> None:
    rows = [row for part in parts() for row in section(part).splitlines() if row.startswith("| `")]
    assert len(rows) > 80
    assert [row for row in rows if not re.fullmatch(r"\| `\w+` \| .+; .+ \| .{10,}\. Example: \S.* \|", row)] == []


def test_every_block_has_its_section_with_every_setting() -> None:
    document, *others = parts()
    tables = {place: part.schema["properties"].keys() for part in others for place in part.places}
    models: dict[str, type[BaseModel]] = {"sources.*": SourceSettings, "sources.*.events.*": EventRoute}
    models |= {model.block: model for vendor in vendors() for model in vendor.blocks()}
    for block, model in models.items():
        assert tables[block] == model.model_fields.keys()
    blocks = {place.partition(".")[0] for place in tables}
    assert blocks | {*document.schema["properties"]} == tenant_model().model_fields.keys() - {"has_webhook"}


def test_every_command_has_its_section_and_every_exit_code_is_explained() -> None:
    text = command_reference.content()
    for command in ("doctor", "tenant key add", "operations resolve", "links import", "requests"):
        assert f"\n## `crm-bridge {command}`\n" in text
    for code, meaning in command_reference.exit_codes():
        assert f"| {code.value} | {meaning} |" in text
    assert text.count("`--stack VALUE`") == 1


def test_decisions_are_numbered_without_a_gap_and_each_has_a_date() -> None:
    files = sorted(decision_index.FOLDER.glob("[0-9]*.md"))
    assert [int(file.name[:4]) for file in files] == [*range(1, len(files) + 1)]
    dates = [file.read_text().splitlines()[2][:10] for file in files]
    assert dates == sorted(dates)

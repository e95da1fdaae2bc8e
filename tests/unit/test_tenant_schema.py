"""The JSON Schema of a tenant's document takes what the bridge takes, by a validator that is not ours."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from cli.settings import schema_of_tenants, secret_settings
from crm_bridge.settings import parse_tenant
from crm_bridge.vendors import vendors
from local.stack import LOCAL_HOSTS
from local.template import TEMPLATE
from tests.stack import Stack

ROOT = TEMPLATE.parent
SCHEMA = schema_of_tenants()
ILLU = {"org_id": 88, "api_key": "hush-hush"}
EGITO = {
    "base_url": "https://a.egito.pl",
    "api_id": "a",
    "api_secret": "hush-hush",
    "username": "login@firma",
    "password": "hush-hush",
}


def wrong(document: object) -> list[str]:
    """Return the places in a document that the schema refuses."""
    return sorted(".".join(map(str, error.path)) for error in Draft202012Validator(SCHEMA).iter_errors(document))


def of_the_docs() -> Iterator[tuple[str, dict[str, Any]]]:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for number, block in enumerate(re.findall(r"```json\n(.*?)```", page.read_text(), re.DOTALL)):
            document = json.loads(block) if block.lstrip().startswith("{") and "..." not in block[:2] else None
            if isinstance(document, dict) and document.keys() & {vendor.settings_model.block for vendor in vendors()}:
                yield f"{page.relative_to(ROOT)} {number}", document


DOCUMENTS = dict(of_the_docs())


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_of_the_docs_is_valid(name: str) -> None:
    assert wrong(DOCUMENTS[name]) == []
    parse_tenant(json.dumps(DOCUMENTS[name]), LOCAL_HOSTS)


def test_the_docs_show_documents() -> None:
    assert {name.partition(" ")[0] for name in DOCUMENTS} >= {"docs/configuration.md", "docs/deploy.md"}


def test_the_demos_tenants_are_valid() -> None:
    stack = Stack(background=False)  # which is not started: its simulators have addresses of no ports
    for document in (stack.demo_tenant(), stack.upya_tenant(), stack.webhook_tenant()):
        assert wrong(json.loads(document)) == []


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"ilu": ILLU}, ""),
        ({"illu": {"org_id": 88}}, "illu"),
        ({"illu": {**ILLU, "org_id": 0}}, "illu.org_id"),
        ({"illu": {**ILLU, "search_lag": 29}}, "illu.search_lag"),
        ({"egito": {**EGITO, "members": {"fields": {"noSuchField": "x"}}}}, "egito.members.fields"),
        ({"egito": {**EGITO, "token_in": "body"}}, "egito.token_in"),
        ({"mappings": {"create_site": {"built_in": "other"}}}, "mappings.create_site"),
    ],
)
def test_what_the_bridge_refuses_the_schema_refuses(document: dict[str, Any], place: str) -> None:
    found = wrong(document)
    assert len(found) == 1
    assert found[0] in place
    with pytest.raises(ValidationError):
        parse_tenant(json.dumps(document))


@pytest.mark.parametrize("target", ["lastName", {"field": "lastName", "values": {"M": 1}}])
def test_a_field_map_takes_a_name_or_an_object(target: object) -> None:
    document = {"egito": {**EGITO, "members": {"fields": {"lastname": target}}}}
    assert wrong(document) == []
    parse_tenant(json.dumps(document))


def test_every_block_has_a_title_and_its_settings_have_descriptions() -> None:
    for vendor in vendors():
        for model in vendor.blocks():
            part = SCHEMA["$defs"][model.__name__]
            assert part["title"] == model.model_config["title"]
            assert part["description"]
            assert [name for name, one in part["properties"].items() if "description" in one]
    assert SCHEMA["$defs"]["IlluSettings"]["properties"]["org_id"]["description"].startswith("The numeric")


def test_secrets_are_write_only() -> None:
    assert SCHEMA["$defs"]["IlluSettings"]["properties"]["job_reference"].get("writeOnly") is None
    assert {"illu.api_key", "egito.api_secret", "webhook.url"} < secret_settings()


def test_what_the_command_line_writes_by_itself_is_not_offered() -> None:
    assert "has_webhook" not in SCHEMA["properties"]


def test_the_page_of_the_settings_names_the_command() -> None:
    assert "crm-bridge tenant schema" in Path(ROOT / "docs/configuration.md").read_text()

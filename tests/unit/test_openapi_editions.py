"""The other editions of docs/openapi.json say nothing that the first one does not."""

import json
import re
from typing import Any

import pytest
from openapi_schema_validator import OAS30Validator
from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator

from local.events import load_event
from openapi.calls import calls
from openapi.document import DOCUMENT, examples_of
from openapi.editions import CLIENTS, FLAT
from openapi.page import PAGE
from tests.documented import nodes, validator

JSON = "application/json"

WHOLE: dict[str, Any] = json.loads(DOCUMENT.read_text())
SMALL: dict[str, Any] = json.loads(FLAT.read_text())
PLAIN: dict[str, dict[str, Any]] = {
    f"{method.upper()} {path}": operation
    for path, methods in SMALL["paths"].items()
    for method, operation in methods.items()
}


# ---------------------------------------------------------------- for generators of clients


def test_the_edition_for_generators_is_the_whole_but_xml_and_examples() -> None:
    made = json.loads(CLIENTS.read_text())
    OpenAPIV31SpecValidator(made).validate()
    assert made["paths"].keys() == WHOLE["paths"].keys()
    assert made["components"]["schemas"] == WHOLE["components"]["schemas"]
    assert "xml" not in "".join(kind for node in nodes(made) for kind in node.get("content", ()))


# ---------------------------------------------------------------- flat


def test_the_flat_edition_is_valid_openapi_3_0_by_a_validator_of_others() -> None:
    OpenAPIV30SpecValidator(SMALL).validate()


def test_the_flat_edition_has_plain_types_only() -> None:
    for schema in (node for part in (SMALL["paths"], SMALL["components"]["schemas"]) for node in nodes(part)):
        assert (
            not {"oneOf", "anyOf", "allOf", "enum", "const", "not", "pattern", "additionalProperties"} & schema.keys()
        )
        assert not isinstance(schema.get("type"), list)
    assert {kind for node in nodes(SMALL["paths"]) for kind in node.get("content", ())} == {JSON}


def test_the_flat_edition_has_a_body_in_each_response_that_is_no_problem() -> None:
    for operation in PLAIN.values():
        for status, response in operation["responses"].items():
            assert status == "default" or response["content"][JSON]["schema"]["$ref"]


def test_the_flat_edition_has_two_levels_at_most() -> None:
    def depth(name: str) -> int:
        text = json.dumps(SMALL["components"]["schemas"][name])
        return 1 + max(map(depth, re.findall(r'"#/components/schemas/(\w+)"', text)), default=0)

    assert max(map(depth, SMALL["components"]["schemas"])) == 2


def test_the_flat_edition_leaves_out_what_has_no_plain_types_and_nothing_else() -> None:
    every = {f"{method.upper()} {path}" for path, methods in WHOLE["paths"].items() for method in methods}
    assert {one for one in every - PLAIN.keys() if "/connector/" not in one} == {
        "DELETE /key-links/{id}",  # 204 has no body
        "DELETE /records/{entity}/{id}",
        "GET /records/{entity}",  # fields of any type
        "GET /records/{entity}/{id}",
        "POST /in/{tenant}/{source}",  # a body of the sender's own
        "POST /records/{entity}",
        "PUT /records/{entity}/{id}",
    }


@pytest.mark.parametrize("route", PLAIN)
def test_what_is_sent_and_returned_fits_the_flat_edition_too(route: str) -> None:
    """As far as a request has only what that edition names."""

    def errors(schema: dict[str, Any], value: object) -> list[str]:
        checked = OAS30Validator({**schema, "components": SMALL["components"]})
        return [error.message for error in checked.iter_errors(value)]

    for one in examples_of(route):
        if one.status >= 300:
            continue
        described = PLAIN[route]["responses"][str(one.status)]["content"][JSON]["schema"]
        assert errors(described, one.body) == []
        body = json.loads(load_event(*one.name).get("body") or "null")
        if body is None or "upya" in one.event:
            continue
        schema = PLAIN[route]["requestBody"]["content"][JSON]["schema"]
        known = SMALL["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"]
        kept = {name: value for name, value in body.items() if name in known}
        numbers = {name: value for name, value in kept.items() if known[name].get("type") != "string"}
        texts = {name: str(value) for name, value in kept.items() if name not in numbers}
        assert errors(schema, numbers | texts) == []
        method, _, path = route.partition(" ")
        whole = WHOLE["paths"][path][method.lower()]["requestBody"]["content"][JSON]["schema"]
        assert validator(json.dumps(whole)).is_valid(numbers | texts)


# ---------------------------------------------------------------- calls


def test_each_operation_has_its_calls_on_the_page_and_in_the_collection() -> None:
    page, collection = PAGE.read_text(), json.loads(DOCUMENT.with_name("postman.json").read_text())
    assert len(calls()) == sum(map(len, WHOLE["paths"].values()))
    for call in calls():
        assert page.count(f'<h3 id="{call.operation["operationId"]}">') == 1
    assert page.count("<details>") == 3 * len(calls())
    assert sum(len(folder["item"]) for folder in collection["item"]) == len(calls())


def test_the_page_runs_nothing_and_loads_nothing() -> None:
    assert not re.search(r"<script|<link|<img|<iframe|src=|url\(|@import", PAGE.read_text())

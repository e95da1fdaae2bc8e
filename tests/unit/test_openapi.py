"""docs/openapi.json is up to date, valid, and true as far as that shows without a stack.

That what is answered is in it, every integration test says (tests/integration/conftest.py), and `make fuzz`.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import AfterValidator, BaseModel, BeforeValidator, create_model, model_validator
from pydantic.alias_generators import to_camel

from create_site.models import SiteCreated
from crm_bridge.fields import Schema
from crm_bridge.inbound.api import PROBLEM_TYPE
from crm_bridge.responses import Processed
from local.events import EVENTS, load_event
from local.template import Template
from openapi.__main__ import FILES
from openapi.document import DOCUMENT, ROOT
from openapi.problems import kinds as problem_kinds
from openapi.recorded import recorded
from openapi.routes import PAGES
from openapi.schemas import UnexplainedValidatorError, components
from operations.handler import ROUTES
from tests.documented import nodes, validator

SPECIFICATION: dict[str, Any] = json.loads(DOCUMENT.read_text())
OPERATIONS: dict[str, dict[str, Any]] = {
    f"{method.upper()} {path}": operation
    for path, methods in SPECIFICATION["paths"].items()
    for method, operation in methods.items()
}
JSON = "application/json"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_is_what_the_models_routes_and_answers_make_of_it(file: Path) -> None:
    assert file.read_text() == FILES[file](), f"run `make openapi`, and commit docs/{file.name}"


def test_it_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(SPECIFICATION).validate()


def test_its_routes_are_those_of_the_template_and_of_the_docs(template: Template) -> None:
    sections = re.findall(r"^## `(\w+ /.+?)`", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    routes = {f"{route.method} {route.path}" for route in template.routes}
    assert set(OPERATIONS) == routes - {*PAGES}
    assert routes == set(sections)


def contents() -> list[dict[str, Any]]:
    """Everything with a schema and examples, wherever it is."""
    return [node for node in nodes(SPECIFICATION) if node.keys() >= {"schema", "examples"}]


def test_every_example_fits_its_schema() -> None:
    tried = 0
    for content in contents():
        for name, example in content["examples"].items():
            if isinstance(example["value"], str) and example["value"].startswith("<"):
                continue  # XML, of which the schema says the names
            assert not [
                error.message for error in validator(json.dumps(content["schema"])).iter_errors(example["value"])
            ], name
            tried += 1
    assert tried > 70


def test_every_recorded_answer_is_an_example() -> None:
    shown = json.dumps([content["examples"] for content in contents()])
    assert all(json.dumps(one.body) in shown for one in recorded() if one.media_type.endswith("json"))


@pytest.mark.parametrize("event", sorted(EVENTS.rglob("invalid.json")), ids=lambda path: path.parent.name)
def test_an_invalid_event_does_not_fit_the_schema(event: Path) -> None:
    sent = load_event(event.parent.name, event.stem)
    schema = OPERATIONS[sent["routeKey"]]["requestBody"]["content"][JSON]["schema"]
    assert not validator(json.dumps(schema)).is_valid(json.loads(sent["body"]))


JOB = {"ticket_id": "T-1", "name": "Leak"}
SITE = {"customer_id": "C-1", "name": "Shop", "latitude": 1, "longitude": 35.5, "address": "Moi Ave 12"}
PERSON = {"firstname": "Ada", "lastname": "Nowak", "userStatus": "ACTIVE", "userType": "MEMBER"}


@pytest.mark.parametrize(
    ("route", "body", "fits"),
    [
        ("POST /sites", SITE, True),
        ("POST /sites", {**SITE, "customer_id": 17, "latitude": "-89.5"}, True),
        ("POST /sites", {**SITE, "latitude": 90.1}, False),
        ("POST /sites", {**SITE, "latitude": "91"}, False),
        ("POST /sites", {**SITE, "longitude": "180.5"}, False),
        ("POST /sites", {**SITE, "name": "  "}, False),
        ("POST /sites", {**SITE, "name": "a\x00b"}, False),
        ("POST /sites", {**SITE, "customer_id": 1.5}, False),
        ("POST /sites", {**SITE, "extra": 1}, False),
        ("POST /jobs", {**JOB, "customer_id": "C-1", "due_date": "2026-11-30"}, True),
        ("POST /jobs", {**JOB, "site_id": "4711", "customer_id": None}, True),
        ("POST /jobs", {**JOB, "site_id": 0}, False),
        ("POST /jobs", JOB, False),
        ("POST /jobs", {**JOB, "customer_id": "C-1", "site_id": 4711}, False),
        ("POST /jobs", {**JOB, "site_id": 4711, "site": {k: SITE[k] for k in SITE if k != "customer_id"}}, False),
        ("POST /jobs", {**JOB, "customer_id": "C-1", "ticket_id": "T[1]"}, False),
        ("POST /jobs", {**JOB, "customer_id": "C-1", "due_date": "tomorrow"}, False),
        ("POST /jobs", {**JOB, "customer_id": "C-1", "due_date": "0001-01-01T00:00:00"}, False),
        ("POST /jobs", {**JOB, "customer_id": "C-1", "notes": "a\x00b"}, False),
        ("POST /jobs", {**JOB, "customer_id": "C-1", "notes": "a\nb"}, True),
        ("PUT /services/{service}/status", {"status": "outage", "occurred_at": "2026-11-22T10:00:00Z"}, True),
        ("PUT /services/{service}/status", {"status": 5}, True),
        ("PUT /services/{service}/status", {"status": "7"}, True),
        ("PUT /services/{service}/status", {"status": "8"}, False),
        ("PUT /services/{service}/status", {"status": 5, "occurred_at": 1_714_910_400}, False),
        ("PUT /services/{service}/status", {"status": 5, "occurred_at": "2026-11-22T10:00:00"}, False),
        ("PUT /services/{service}/status", {"status": 5, "occurred_at": "1970-01-01T00:00:00Z"}, False),
        ("PUT /services/{service}/status", {"status": 5, "occurred_at": "2000-01-01T00:00:00Z"}, True),
        ("PUT /services/{service}/status", {"status": "broken"}, False),
        ("POST /operations/{id}/resolve", {"action": "link", "id": "4711"}, True),
        ("POST /operations/{id}/resolve", {"action": "retry"}, True),
        ("POST /operations/{id}/resolve", {"action": "link"}, False),
        ("POST /operations/{id}/resolve", {"action": "discard", "id": "4711"}, False),
        ("POST /operations/{id}/resolve", {"action": "link", "id": "4711", "confirmed": True}, True),
        ("POST /operations/{id}/resolve", {"action": "unlink"}, True),
        ("POST /operations/{id}/resolve", {"action": "unlink", "confirmed": True}, False),
        ("POST /operations/{id}/resolve", {"action": "unlink", "id": "4711"}, False),
        ("POST /connector/clubs/{club_id}/members", {**PERSON, "birthdate": "", "country": "PL", "uuid": ""}, True),
        ("POST /connector/clubs/{club_id}/members", {**PERSON, "birthdate": "1990-02-30"}, False),
        ("POST /connector/clubs/{club_id}/members", {**PERSON, "birthdate": "1900-01-01"}, False),
        ("POST /connector/clubs/{club_id}/members", {**PERSON, "birthdate": "0001-01-01"}, False),
        ("POST /connector/clubs/{club_id}/members", {**PERSON, "birthdate": "1900-01-02"}, True),
        ("POST /connector/clubs/{club_id}/members", {**PERSON, "birthdate": "1970-01-01"}, True),
        ("POST /connector/clubs/{club_id}/members", {**PERSON, "trialStartDate": "1900-01-01"}, False),
        ("POST /connector/clubs/{club_id}/members", {**PERSON, "trialEndDate": "9999-12-31"}, True),
        ("POST /connector/clubs/{club_id}/members", {**PERSON, "country": "Poland"}, False),
        ("POST /connector/clubs/{club_id}/members", {**PERSON, "recordID": "17"}, False),
    ],
)
def test_the_schemas_say_what_the_models_demand(route: str, body: object, fits: bool) -> None:
    schema = OPERATIONS[route]["requestBody"]["content"][JSON]["schema"]
    assert validator(json.dumps(schema)).is_valid(body) is fits


def secret_demand(value: str) -> str:
    return value


type Explained = Annotated[str, AfterValidator(secret_demand), Schema(minLength=2)]


@pytest.mark.parametrize(
    "field",
    [
        Annotated[str, AfterValidator(secret_demand)],
        Annotated[str, BeforeValidator(secret_demand), AfterValidator(str.strip), Schema()],
        Annotated[Explained, AfterValidator(secret_demand)],
        Annotated[list[Annotated[str, AfterValidator(secret_demand)]], AfterValidator(list), Schema()],
    ],
)
def test_a_validator_that_nobody_explained_is_an_error(field: Any) -> None:
    with pytest.raises(UnexplainedValidatorError, match="secret_demand"):
        components({create_model("Model", field=field)}, set())


def test_the_validator_of_a_model_that_nobody_explained_is_an_error() -> None:
    class Model(BaseModel):
        field: str

        @model_validator(mode="after")
        def _secret_demand(self) -> Self:
            return self

    with pytest.raises(UnexplainedValidatorError, match="_secret_demand"):
        components({Model}, set())


def test_a_validator_brings_its_schema_along_where_it_validates_and_not_in_a_response() -> None:
    model = create_model("Model", field=Annotated[Explained, AfterValidator(secret_demand), Schema(pattern="^a")])
    assert components({model}, set())["Explained"] == {"type": "string", "minLength": 2}
    asked = model.model_json_schema()["properties"]["field"]
    assert asked == {"$ref": "#/$defs/Explained", "pattern": "^a"}
    answered = model.model_json_schema(mode="serialization")
    assert answered["$defs"]["Explained"] == {"type": "string"}
    assert "pattern" not in answered["properties"]["field"]


def test_a_response_to_an_event_is_its_flow_s_result_and_what_every_event_has() -> None:
    schemas = SPECIFICATION["components"]["schemas"]
    made = schemas["SiteCreated"]
    assert {*SiteCreated.model_fields, *Processed.__annotations__} == set(made["properties"])
    assert set(made["required"]) == {"site_id", "customer_id", "operation_id"}
    assert made["additionalProperties"] is True
    # A key link is also returned alone, without an operation.
    assert "operation_id" not in schemas["StoredKeyLink"]["properties"]
    assert "operation_id" in schemas["StoredKeyLinkResponse"]["required"]


def test_a_route_of_operations_is_described_by_its_handler() -> None:
    for key, handler in ROUTES.items():
        summary, _, description = (handler.__doc__ or "").partition("\n")
        assert OPERATIONS[key]["summary"] == summary
        assert OPERATIONS[key]["description"].startswith(" ".join(description.split()))
        assert OPERATIONS[key]["operationId"] == to_camel(handler.__name__.strip("_"))


def test_the_members_of_a_response_have_the_descriptions_that_stand_below_them() -> None:
    attempt = SPECIFICATION["components"]["schemas"]["Attempt"]["properties"]
    assert attempt["vendor_status"]["description"] == "The vendor's HTTP status, if it gave one."


def enums(node: Any) -> Iterator[list[object]]:
    if isinstance(node, dict):
        if isinstance(node.get("enum"), list):
            yield node["enum"]
        for name, member in node.items():
            if name not in ("examples", "not"):
                yield from enums(member)
    elif isinstance(node, list):
        for member in node:
            yield from enums(member)


def test_generators_of_clients_can_read_it() -> None:
    """openapi-python-client leaves out a route with an enum of several types, and a response with an unnamed schema."""
    found = list(enums(SPECIFICATION))
    assert len(found) > 60
    assert not [values for values in found if {type(value) for value in values} not in ({str}, {int})]
    for responses in (SPECIFICATION["components"]["responses"], *(one["responses"] for one in OPERATIONS.values())):
        for response in responses.values():
            for content in response.get("content", {}).values():
                assert list(content.get("schema", {"$ref": ""})) == ["$ref"]


def test_every_kind_of_problem_is_in_it() -> None:
    kinds = list(problem_kinds())
    assert len(kinds) >= 14
    for kind in kinds:
        schema = SPECIFICATION["components"]["schemas"][f"ConnectorProblem{kind.status}"]
        assert PROBLEM_TYPE + kind.kind in schema["allOf"][1]["properties"]["type"]["enum"]


def test_nothing_that_runs_on_aws_knows_of_it() -> None:
    for folder in ("functions", "layers"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not re.search(r"^\s*(from|import) openapi\b", path.read_text(), re.MULTILINE), path

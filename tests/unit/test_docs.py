"""The docs name everything there is, and nothing that is not."""

import re
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from crm_bridge import Flow, errors
from crm_bridge.engine import TRANSITIONS
from crm_bridge.errors import ProblemError
from crm_bridge.mapping import PayloadMapping
from crm_bridge.settings import parse_tenant
from crm_bridge.vendors.egito_settings import PERSON_FIELDS, PeopleMap
from docs import costs
from local.__main__ import parser
from local.template import TEMPLATE
from local.vendors.simulator import Kind
from operations.flows import flows

ROOT = TEMPLATE.parent
API = (ROOT / "docs/api.md").read_text()
CONFIGURATION = (ROOT / "docs/configuration.md").read_text()
BUILD = (ROOT / "docs/build.md").read_text()
EGITO = (ROOT / "docs/vendors/egito.md").read_text()
LOCAL_STACK = (ROOT / "docs/local-stack.md").read_text()
METRICS = (ROOT / "docs/logs-and-metrics.md").read_text()
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
SOURCE: dict[str, Any] = yaml_parse(TEMPLATE.read_text())
VARIABLES: dict[str, Any] = SOURCE["Globals"]["Function"]["Environment"]["Variables"]


def state_diagram() -> str:
    """`TRANSITIONS` as a Mermaid picture."""
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f"    {before or '[*]'} --> {after}: {event}" for (before, event), after in TRANSITIONS.items()]
    return "\n".join([*lines, "    succeeded --> [*]", "```"])


def test_the_picture_of_the_states_is_drawn_from_the_table() -> None:
    assert state_diagram() in ARCHITECTURE


def test_every_problem_is_in_the_table_with_its_status() -> None:
    listed = set(re.findall(r"^\| (\d{3}) \| `([\w-]+)` \|", API, re.MULTILINE))
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ProblemError)]
    assert listed == {(str(kind.status), kind.kind) for kind in kinds if kind is not ProblemError}


def test_every_flow_says_what_becomes_of_a_later_payload() -> None:
    listed = re.findall(r"^\| `(\w+)` \| (no|if set|yes) \| (.+) \|$", API, re.MULTILINE)
    assert listed == [(name, flow.update.applied, flow.update.text) for name, flow in sorted(flows().items())]
    assert [name for name, flow in flows().items() if flow.update is Flow.update] == []


def test_every_route_has_its_section() -> None:
    routes = {
        f"{event['Properties']['Method']} {event['Properties']['Path']}"
        for resource in SOURCE["Resources"].values()
        for event in resource.get("Properties", {}).get("Events", {}).values()
        if event["Type"] == "HttpApi"
    }
    assert routes == set(re.findall(r"^## `(.+?)`", API, re.MULTILINE))


def test_every_field_of_a_person_is_shown_with_its_field_at_egito() -> None:
    for theirs, egitos in PERSON_FIELDS.items():
        assert f"| `{theirs}` | `{egitos}` |" in EGITO
    for name in PeopleMap.model_fields:
        assert f"| `{name}` |" in EGITO


def test_every_member_of_a_mapping_is_in_the_table() -> None:
    for name in PayloadMapping.model_fields:
        assert f"| `{name}` |" in CONFIGURATION


def test_the_costs_are_reckoned_from_the_prices() -> None:
    page = (ROOT / "docs/costs.md").read_text()
    for table in costs.tables():
        assert table in page
    assert f"{costs.FACTS['looked_up']:%-d %B %Y}" in page
    assert costs.FACTS["region"] in page


def test_the_tenants_that_are_shown_are_valid() -> None:
    documents = re.findall(r"```json\n(.*?)```", CONFIGURATION, re.DOTALL)
    assert len(documents) >= 2
    for document in documents:
        parse_tenant(document)


def test_every_parameter_of_the_stack_is_in_the_table_with_its_default() -> None:
    for name, parameter in SOURCE["Parameters"].items():
        row = re.search(rf"^\| `{name}` \| `?([^|`]*)`? \|", CONFIGURATION, re.MULTILINE)
        assert row, name
        assert row[1].strip() == str(parameter["Default"])


def test_every_variable_is_named() -> None:
    own = [
        resource["Properties"].get("Environment", {}).get("Variables", {})
        for resource in SOURCE["Resources"].values()
        if "Function" in resource["Type"]
    ]
    assert own
    for name in {*VARIABLES, *chain(*own)}:
        assert f"`{name}`" in BUILD


def test_every_variable_that_the_code_reads_is_set_by_the_template() -> None:
    code = "".join(path.read_text() for root in ("functions", "layers") for path in (ROOT / root).rglob("*.py"))
    read = set(re.findall(r"os\.environ(?:\.get\(|\[)\"(\w+)\"", code))
    assert len(read) >= 8
    elsewhere = {"_X_AMZN_TRACE_ID", "LOCAL_HOSTS"}  # Lambda's own; and what must not be set on AWS
    assert {name for name in read if not name.startswith("AWS_")} - elsewhere <= set(VARIABLES)


def test_every_metric_is_named_with_its_dimensions() -> None:
    code = "".join(path.read_text() for root in ("functions", "layers") for path in (ROOT / root).rglob("*.py"))
    emitted = re.findall(r"\b(?:count|measure)\(\s*\"(\w+)\"([^\n]*)", code)
    assert len(emitted) >= 9
    for metric, arguments in emitted:
        dimensions = ", ".join(f"`{name}`" for name in re.findall(r"\b(\w+)=", arguments)) or "none"
        assert re.search(rf"^\| `{metric}` \| {dimensions} \|", METRICS, re.MULTILINE), metric


def test_every_option_and_every_fault_of_the_local_stack_is_named() -> None:
    options = {option for action in parser()._actions for option in action.option_strings if option.startswith("--")}
    assert options >= {"--port", "--tenant", "--no-vendors"}
    for option in options - {"--help"}:
        assert f"| `{option}" in LOCAL_STACK
    for kind in Kind:
        assert f"`{kind}`" in LOCAL_STACK


def test_the_samconfig_sets_only_parameters_that_there_are() -> None:
    config = tomllib.loads((ROOT / "samconfig.toml").read_text())
    for environment in ("default", "dev", "prod"):
        overrides = config[environment]["deploy"]["parameters"]["parameter_overrides"]
        assert {pair.partition("=")[0] for pair in overrides.split()} <= set(SOURCE["Parameters"])


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
        *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")),
    ],
)
def test_every_link_to_a_file_leads_somewhere(document: str) -> None:
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / Path(document).parent / target).exists(), target


def test_the_readme_names_every_flow_and_the_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    for flow in ("create_site", "create_job", "key_link", "status_update", "connector_receiver", "webhook"):
        assert f"`{flow}`" in readme
    for command in ("make demo", "make test", "make run"):
        assert command in readme


def test_the_site_is_built_so_that_warnings_count() -> None:
    """With --quiet, mkdocs drops its warnings before --strict counts them, and a dead link builds."""
    (command,) = re.findall(r"^\t.*mkdocs build.*$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert "--strict" in command
    assert "--quiet" not in command

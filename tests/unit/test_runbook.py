"""Every alarm has its page, and what the pages send a person to is there."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from local.template import TEMPLATE

ROOT = TEMPLATE.parent
RESOURCES: dict[str, dict[str, Any]] = yaml_parse(TEMPLATE.read_text())["Resources"]
ALARMS = {name: resource["Properties"] for name, resource in RESOURCES.items() if "Alarm" in resource["Type"]}
INDEX = ROOT / "docs/runbook/index.md"
PAGES = sorted(set(INDEX.parent.glob("*.md")) - {INDEX})
SECTIONS = ["What it means", "What to look at", "What to do", "When it ends"]
CODE = "".join(path.read_text() for root in ("functions", "layers") for path in (ROOT / root).rglob("*.py"))

WITH_EVERY_LINE = {"route", "flow", "message", "level", "request_id", "tenant", "api_key", "operation_id"}
OF_DEFECTS = {"exception_name", "stack_trace"}
OF_METRICS = {"VendorLatency", "SignInRefused", "vendor"}
OF_LAMBDA = {"@timestamp", "@message", "@logStream", "@type", "@duration", "@maxMemoryUsed", "@memorySize"}


def queries() -> list[tuple[str, str]]:
    found = []
    for document in [*PAGES, ROOT / "docs/rotate-keys.md", ROOT / "docs/troubleshooting.md"]:
        blocks = re.findall(r"^ *```text\n(.*?)^ *```", document.read_text(), re.DOTALL | re.MULTILINE)
        found += [(document.name, block) for block in blocks]
    body = json.loads(RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"])
    asked = [one["properties"]["query"] for one in body["widgets"] if one["type"] == "log"]
    return found + [("dashboard", query.partition(" | ")[2]) for query in asked]


def test_every_alarm_names_a_page_that_names_it() -> None:
    assert len(ALARMS) >= 12
    for name, alarm in ALARMS.items():
        page = re.search(r"Runbook: (docs/runbook/[\w-]+\.md)$", alarm["AlarmDescription"])
        assert page, name
        assert f"`{name}`" in (ROOT / page[1]).read_text().split("## What it means")[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_is_of_an_alarm_is_listed_and_says_the_four_things(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"`(\w+Alarm)`", text.split("## What it means")[0])
    assert named
    assert set(named) <= set(ALARMS)
    assert f"({page.name})" in INDEX.read_text()
    assert re.findall(r"^## (.+)", text, re.MULTILINE) == SECTIONS
    looking = text.split("## What to look at")[1].split("## What to do")[0]
    assert "Dashboard:" in looking
    assert "```text" in looking
    assert "curl " in text or "aws " in text


def test_every_widget_that_is_named_is_on_the_dashboard() -> None:
    titles = set(re.findall(r'"title": "([^"]+)"', str(RESOURCES["Dashboard"]["Properties"]["DashboardBody"])))
    assert len(titles) == 11
    named = set()
    for page in PAGES:
        for item in re.findall(r"^\* Dashboard:(.*?)(?=^\S|^$)", page.read_text(), re.DOTALL | re.MULTILINE):
            named |= {" ".join(title.split()) for title in re.findall(r"\*([^*]+)\*", item)}
    assert len(named) >= 8
    assert named <= titles


@pytest.mark.parametrize(("page", "query"), queries())
def test_a_query_asks_for_what_is_logged(page: str, query: str) -> None:  # noqa: ARG001 - in the test's name
    messages = set(re.findall(r"logger\(\)\.\w+\(\s*\"([\w ]+)\"", CODE))
    members = {
        name for extra in re.findall(r"extra=\{(.*?)\}", CODE, re.DOTALL) for name in re.findall(r'"(\w+)":', extra)
    }
    for line in query.splitlines():
        for asked in re.findall(r"message (?:= |in \[)([^\]]*)", line.split(" and ")[0]):
            assert set(re.findall(r"'([^']+)'", asked)) <= messages
    named_here = {
        name for names in re.findall(r"\bas (\w+(?:, \w+)*)$", query, re.MULTILINE) for name in names.split(", ")
    }
    named_here |= set(re.findall(r"\bas (\w+)", query))
    words = re.sub(r"'[^']*'|/[^/\n]*/|\bas \w+", "", query)
    words = re.sub(
        r"\b(fields|filter|parse|sort|asc|desc|limit|stats|count|count_distinct|sum|max|pct|bin|by|and|or|in|like|ispresent|5m)\b|[\d(),|*=>\[\]/]",
        " ",
        words,
    )
    asked_for = {word.split(".")[0] for word in words.split() if word.strip(".")}
    assert asked_for <= WITH_EVERY_LINE | OF_DEFECTS | OF_METRICS | OF_LAMBDA | members | named_here


def test_every_name_that_begins_with_the_stacks_is_of_a_resource() -> None:
    named = {name for page in PAGES for name in re.findall(r"\$STACK-(\w[\w-]*)", page.read_text())}
    assert named == {"LogGroup", "dead-letters", "DispatcherFunction"}
    queue = RESOURCES["DeadLetterQueue"]["Properties"]["QueueName"]["Fn::Sub"]
    assert queue == "${AWS::StackName}-dead-letters.fifo"
    assert named - {"dead-letters"} <= set(RESOURCES)

"""docs/glossary.md has every state, event, decision and problem type; the words that they replaced are gone."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from crm_bridge.errors import Event, ProblemError
from crm_bridge.storage.operation import State
from operations.flows import flows
from operations.models import Resolution

ROOT = Path(__file__).parents[2]
GLOSSARY = (ROOT / "docs/glossary.md").read_text()
REPLACED = re.compile(
    r"\b(parked|parks|in_review|redeliver\w*|adopt(s|ed|ing)?|abandon(s|ed|ing)?|natural[ _]keys?"
    r"|callbacks?)\b",
    re.IGNORECASE,
)
"""Words that no reader meets any more: `needs_review`, retry, link, discard, event key and webhook took their place."""
HISTORY = {"docs/mutants.md"}


def section(title: str) -> set[str]:
    """Return the words that a section of the glossary explains."""
    text = GLOSSARY.partition(f"## {title}\n")[2].partition("\n## ")[0]
    return {row[1] for row in re.finditer(r"^\| `([^`]+)` \|", text, re.MULTILINE)}


def problems(of: type[ProblemError] = ProblemError) -> Iterator[type[ProblemError]]:
    for one in of.__subclasses__():
        yield one
        yield from problems(one)


def test_every_flow_is_explained_with_its_function() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", GLOSSARY, re.MULTILINE)
    assert rows == [(name, flow.function) for name, flow in flows().items()]


def test_every_state_is_explained() -> None:
    assert section("States of an operation") == {*State}


def test_every_event_of_an_attempt_is_explained() -> None:
    assert section("What can happen to an operation") == {*Event}


def test_every_decision_is_explained() -> None:
    assert section("Decisions in a review") == {*get_args(Resolution.model_fields["action"].annotation)}


def test_every_problem_type_is_explained_with_its_status() -> None:
    rows = {row[1]: int(row[2]) for row in re.finditer(r"^\| `([a-z-]+)` \| (\d{3}) \|", GLOSSARY, re.MULTILINE)}
    assert rows == {one.kind: one.status for one in problems()}


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Return the lines of a page; of a module its docstrings, and every other text in it."""
    if path.suffix != ".py":
        yield from enumerate(path.read_text().splitlines(), 1)
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


PAGES = [
    path.relative_to(ROOT).as_posix()
    for folder, kinds in {
        "docs": ("*.md",),
        "functions": ("*.py", "*.html"),
        "layers/shared/crm_bridge": ("*.py",),
        "cli": ("*.py",),
        "local": ("*.py",),
        "openapi": ("*.py",),
        ".": ("README.md", "template.yaml"),
    }.items()
    for kind in kinds
    for path in sorted((ROOT / folder).rglob(kind) if folder != "." else (ROOT / folder).glob(kind))
]


@pytest.mark.parametrize("page", [page for page in PAGES if page not in HISTORY])
def test_no_replaced_word_is_left(page: str) -> None:
    assert [(line, found[0]) for line, text in texts(ROOT / page) for found in REPLACED.finditer(text)] == []

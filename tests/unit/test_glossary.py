"""docs/glossary.md has every state, event, decision and problem type; pages and messages are in plain words."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from crm_bridge.errors import Event, ProblemError
from crm_bridge.storage.operation import State
from docs.readability import sentences, syllables
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


LONGEST_SENTENCE = 45
INVERTED = re.compile(r"[\"'(]*(What|Whatever|Whichever|Whoever|So much)\b(?!.*\?$)")
"""A sentence that begins so has to be read to its end to find its subject. A question may."""
RECORDS = "docs/decisions/"
"""Says what was decided on a day, in the words of that day."""
WRITTEN = [page for page in PAGES if page.endswith(".md") and not page.startswith(RECORDS)] + [
    "CONTRIBUTING.md",
    "SECURITY.md",
]
MODULES = [page for page in PAGES if page.endswith(".py")]


@pytest.mark.parametrize("page", WRITTEN)
def test_no_sentence_of_a_page_is_inverted_or_longer_than_people_can_follow(page: str) -> None:
    found = list(sentences((ROOT / page).read_text()))
    assert [(one.line, one.text) for one in found if INVERTED.match(one.text)] == []
    assert [(one.line, one.text) for one in found if len(one.words) > LONGEST_SENTENCE] == []


def functions(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Return the first sentence of each function's docstring, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (text := ast.get_docstring(node)):
            yield node.lineno, text.partition(". ")[0]


def messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Return the sentences of texts that end as one does and are no docstring."""
    docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node not in docstrings)
    for node in constants:
        if isinstance(node.value, str) and node.value.rstrip().endswith("."):
            yield from ((node.lineno, one.text) for one in sentences(node.value))


@pytest.mark.parametrize("page", MODULES)
def test_docstrings_of_functions_and_messages_begin_with_their_subject_or_verb(page: str) -> None:
    tree = ast.parse((ROOT / page).read_text())
    assert [(line, text) for line, text in [*functions(tree), *messages(tree)] if INVERTED.match(text)] == []


PAGE = """# What a heading says

One [link](https://example.org/What) and `code`. Another
sentence, with **weight**.

| What | a table |
|---|---|

```bash
What is run
```

* An item: a colon and; a semicolon end nothing
* Another. `x` begins one

<!-- What is hidden -->
"""


def test_headings_tables_code_and_addresses_are_not_measured() -> None:
    assert [(one.line, one.text) for one in sentences(PAGE)] == [
        (3, "One link and Code."),
        (3, "Another sentence, with weight."),
        (13, "An item: a colon and; a semicolon end nothing"),
        (14, "Another."),
        (14, "Code begins one"),
    ]


def test_syllables_are_counted_as_they_are_spoken() -> None:
    counts = {"any": 2, "rule": 1, "rules": 1, "changes": 2, "tables": 2, "deleted": 3, "used": 1, "API": 3, "by": 1}
    assert {word: syllables(word) for word in counts} == counts

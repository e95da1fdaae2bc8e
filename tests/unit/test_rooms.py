"""Which module may import which, and how large a file may be. See docs/architecture.md."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = {
    "layers/shared": "",
    "functions": "",
    "cli": "cli.",
    "local": "local.",
    "openapi": "openapi.",
    "bench": "bench.",
}
MOST_LINES = 500
OUTSIDE = ("cli", "local", "openapi", "bench", "tests")
"""Packages that nothing on AWS imports."""


@cache
def modules() -> dict[str, Path]:
    """Return the product's modules by their names."""
    found = {}
    for place, prefix in PLACES.items():
        for path in sorted((ROOT / place).rglob("*.py")):
            if "peers" not in path.parts:
                name = prefix + ".".join(path.relative_to(ROOT / place).with_suffix("").parts)
                found[name.removesuffix(".__init__")] = path
    return found


def imported(path: Path, *, at_once: bool) -> Iterator[str]:
    """Yield what a module imports; `at_once` leaves out what only types or a function need."""

    def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
        for node in body:
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                continue
            yield node
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield from statements([one for one in ast.iter_child_nodes(node) if isinstance(one, ast.stmt)])

    tree = ast.parse(path.read_text())
    for node in statements(tree.body) if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in modules() else node.module


def is_ours(name: str) -> bool:
    return name in modules()


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: {one for one in imported(path, at_once=True) if is_ours(one)} for name, path in modules().items()}
    graph["crm_bridge"] = set()  # the door is imported by functions, and imports what is behind it
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_imports_point_inward() -> None:
    functions = {path.name for path in (ROOT / "functions").iterdir() if path.is_dir()}
    wrong = []
    for name, path in modules().items():
        room = name.split(".")[1] if name.startswith("crm_bridge.") else ""
        for one in imported(path, at_once=False):
            top, _, rest = one.partition(".")
            inner = rest.partition(".")[0]
            on_aws = name.partition(".")[0] == "crm_bridge" or name.partition(".")[0] in functions
            if (
                (name.startswith("crm_bridge") and top in functions)
                or (on_aws and top in OUTSIDE)
                or (not on_aws and top == "tests")
                or (room in ("storage", "outbound") and top == "crm_bridge" and inner in ("engine", "inbound", "flow"))
                or (room == "engine" and top == "crm_bridge" and inner in ("inbound", "runtime", "function"))
            ):
                wrong.append(f"{name} imports {one}")
    assert wrong == []


def test_no_file_is_too_long_to_be_read_at_once() -> None:
    long = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert {name: lines for name, lines in long.items() if lines > MOST_LINES} == {}


def test_these_rules_find_something() -> None:
    assert len(modules()) > 100
    assert "crm_bridge.engine.decide" in imported(modules()["crm_bridge.engine.engine"], at_once=True)

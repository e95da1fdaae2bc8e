"""A vendor and a flow are added with at most six files, and nothing else in the bundle names them.

docs/add-a-flow.md is this as a tutorial.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.extending.bundle import BLOCK, ENTRY, PARAMETER, ROOT, lay_out, new_files, run

PAGE = (ROOT / "docs/add-a-flow.md").read_text()
PRODUCT = ("bench", "cli", "functions", "layers", "local", "openapi")
VENDOR = "izzitup"
OWN = {
    "functions/status_update/flow.py",
    "functions/status_update/models.py",
    "layers/shared/crm_bridge/vendors/__init__.py",
    "layers/shared/crm_bridge/vendors/izzitup.py",
    "local/demo.py",
    "local/demo.yaml",
    "local/vendors/izzitup.py",
    "template.yaml",
}
"""The files that name a vendor: its function, registration, class, chapter of the demo, simulator and block."""
TEMPLATE_TESTS = ("test_template.py", "test_template_permissions.py", "test_template_alarms.py", "test_vendor.py")
CHOSEN = (
    "not valid_cloudformation and not every_value_of_every_parameter"
    " and (not imports_no_vendor_but_its_own or create_organization)"
)
"""The slowest of them say nothing about one function more."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    lay_out(folder)
    written = run(folder, "-m", "openapi")
    assert written.returncode == 0, written.stdout + written.stderr
    return folder


def test_at_most_six_files_are_touched() -> None:
    changed = {"layers/shared/crm_bridge/vendors/__init__.py", "template.yaml"}
    assert len(new_files().keys() | changed) <= 6


@pytest.mark.timeout(900)
def test_the_new_flow_works_and_is_in_every_list(bundle: Path) -> None:
    finished = run(bundle, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--tb=short", "tests/extending/story.py")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert re.search(r"^9 passed", finished.stdout, re.MULTILINE), finished.stdout


def test_the_new_route_is_in_the_document(bundle: Path) -> None:
    paths = json.loads((bundle / "docs/openapi.json").read_text())["paths"]
    route = paths["/organizations"]["post"]
    assert (route["operationId"], route["tags"]) == ("createOrganization", ["create_organization"])
    assert {"200", "201", "202", "422"} <= route["responses"].keys()


@pytest.mark.timeout(900)
def test_the_template_has_all_that_the_new_function_needs(bundle: Path) -> None:
    """Its roles, variables, alarms, queue and secret, as the bundle's own tests want them of every function."""
    files = [f"tests/unit/{name}" for name in TEMPLATE_TESTS]
    finished = run(bundle, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--tb=short", "-k", CHOSEN, *files)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def named_in() -> Iterator[str]:
    """Yield the product's files that name the vendor. JSON is written by programs."""
    for path in [ROOT / "template.yaml", *(path for root in PRODUCT for path in (ROOT / root).rglob("*"))]:
        if path.suffix in (".py", ".html", ".yaml") and VENDOR in path.read_text().casefold():
            yield path.relative_to(ROOT).as_posix()


def test_no_file_but_a_vendors_own_names_it() -> None:
    assert set(named_in()) == OWN
    assert len(OWN) <= 8


def test_the_tutorial_shows_the_files_as_they_are() -> None:
    blocks = re.findall(r"^```(?:python|yaml|text) title=\"(.+?)\"\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    shown = dict(blocks)
    assert len(shown) == len(blocks)
    expected = new_files() | {
        "layers/shared/crm_bridge/vendors/__init__.py": ENTRY,
        "template.yaml: the parameter": PARAMETER,
        "template.yaml: the function and its queue": BLOCK.read_text(),
    }
    assert shown == expected

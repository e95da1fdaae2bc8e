"""A client that openapi-python-client makes out of docs/openapi-clients.json: whole, without a warning, and in use.

Source: https://github.com/openapi-generators/openapi-python-client
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from openapi.document import ROOT
from openapi.editions import CLIENTS
from tests.stack import Stack

BIN = ROOT / ".venv-clients/bin"
DOCUMENT = json.loads(CLIENTS.read_text())
USE = """
import sys
from bridge.api.create_site import create_site
from bridge.api.operations import get_operation, list_operations
from bridge.client import AuthenticatedClient
from bridge.models import NewSite, OperationDetails, Problem401, Problem422, SiteCreated

url, key = sys.argv[1:]
site = {"customer_id": "C-1", "name": "Shop", "latitude": 1.0157, "longitude": 35.0062, "address": "Moi Ave 12"}
with AuthenticatedClient(base_url=url, token=key) as client:
    made = create_site.sync(client=client, body=NewSite.from_dict(site))
    assert isinstance(made, SiteCreated), made
    again = create_site.sync_detailed(client=client, body=NewSite.from_dict(site))
    assert (again.status_code, again.parsed.site_id) == (200, made.site_id)
    assert again.headers["X-Request-Id"]
    wrong = create_site.sync(client=client, body=NewSite.from_dict({**site, "latitude": 91}))
    assert isinstance(wrong, Problem422), wrong
    assert wrong.errors[0].field == "latitude"
    assert wrong.doc_url == "docs/problems.md#invalid"
    assert isinstance(get_operation.sync(made.operation_id, client=client), OperationDetails)
    assert [one.operation_id for one in list_operations.sync(client=client).operations] == [made.operation_id]
with AuthenticatedClient(base_url=url, token="none") as client:
    assert isinstance(list_operations.sync(client=client), Problem401)
print("used")
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (BIN / "openapi-python-client").exists():
        pytest.fail("`make clients` sets the generator up")
    made = tmp_path_factory.mktemp("client") / "bridge"
    options = {"--path": CLIENTS, "--meta": "none", "--output-path": made}
    command = [
        BIN / "openapi-python-client",
        "generate",
        "--fail-on-warning",
        *(x for one in options.items() for x in one),
    ]
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    ran = subprocess.run(
        [*map(str, command)], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said[:2000]
    assert "warning" not in said.lower(), said[:2000]
    return made


def test_every_operation_and_every_model_of_an_error_is_generated_without_a_warning(package: Path) -> None:
    operations = {
        operation["operationId"].lower() for methods in DOCUMENT["paths"].values() for operation in methods.values()
    }
    assert {path.stem.replace("_", "") for path in package.glob("api/*/*.py")} - {"init"} == operations
    models = {path.stem.replace("_", "") for path in package.glob("models/*.py")}
    errors = {name.lower() for name in DOCUMENT["components"]["schemas"] if "Problem" in name}
    assert len(errors) > 20
    assert errors <= models


def test_the_generated_client_can_be_used(package: Path) -> None:
    with Stack(background=False) as stack:
        ran = subprocess.run(
            [BIN / "python", "-c", USE, stack.url, stack.api_key],
            cwd=package.parent,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert ran.stdout == "used\n", ran.stderr[-2000:]

"""The command line out of its wheel, in a new environment and an empty home, away from the checkout."""

import json
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from local.template import TEMPLATE

ROOT = TEMPLATE.parent
UV = Path(sys.executable).with_name("uv")
EXPRESSION = "{customer_id: number, name: name, latitude: lat, longitude: lon, address: street}"
CUSTOMER = {"number": "C-2001", "name": "Mill, Nakuru", "lat": -0.3, "lon": 36.08, "street": "Mill Rd 2"}


def uv(*arguments: object) -> None:
    finished = subprocess.run([UV, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert finished.returncode == 0, finished.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    uv("build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`crm-bridge`, installed with the versions that everything else is tested with."""
    environment = tmp_path_factory.mktemp("environment")
    uv("venv", "--quiet", "--allow-existing", "--python", sys.executable, environment)
    uv("pip", "install", "--quiet", "--python", environment, "--constraint", ROOT / "requirements/dev.txt", wheel)
    return environment / "bin" / "crm-bridge"


def version_of(wheel: Path) -> str:
    return wheel.name.split("-")[1]


def run(program: Path, home: Path, *arguments: str) -> str:
    """Return what it prints. It has nothing but an empty home, and no variables of this process."""
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "COLUMNS": "80"}
    finished = subprocess.run(
        [program, *arguments], cwd=home, env=environment, capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_one_package_is_installed_when_the_wheel_is(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = {Path(name).parts[0] for name in archive.namelist()}
    assert names == {"crm_bridge_cli", f"crm_bridge-{version_of(wheel)}.dist-info"}


def test_the_command_line_works_when_only_the_wheel_is_there(wheel: Path, program: Path, tmp_path: Path) -> None:
    (tmp_path / "customer.json").write_text(json.dumps(CUSTOMER))
    (tmp_path / "site.jmes").write_text(EXPRESSION)
    tried = run(
        program, tmp_path, "mapping", "try", "create_site", "customer.json", "--expression", "site.jmes", "--json"
    )
    assert json.loads(tried)["valid"] is True
    assert run(program, tmp_path, "--version") == f"crm-bridge {version_of(wheel)}\n"
    assert "operations" in run(program, tmp_path, "--help")
    assert "CRM_BRIDGE_API_KEY" in run(program, tmp_path, "send", "--help")
    assert '"$schema"' in run(program, tmp_path, "tenant", "schema")


def test_no_other_program_finds_the_modules_when_the_wheel_is_installed(program: Path) -> None:
    found = "import importlib.util as it; print([one for one in ('cli', 'webhook', 'crm_bridge') if it.find_spec(one)])"
    python = program.with_name("python")
    assert subprocess.check_output([python, "-I", "-c", found], text=True, timeout=60) == "[]\n"

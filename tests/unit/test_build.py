"""The output of `make build` of functions/: complete with any `cp`, and checked before anybody deploys it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from local import artifacts
from local.artifacts import missing_handlers
from local.template import TEMPLATE

ROOT = TEMPLATE.parent
SOURCE: dict[str, Any] = yaml_parse(TEMPLATE.read_text())
HANDLERS: dict[str, str] = {
    name: resource["Properties"]["Handler"]
    for name, resource in SOURCE["Resources"].items()
    if resource["Type"] == "AWS::Serverless::Function"
}
BSD_CP = f"""\
#!{sys.executable}
# `cp -R` of macOS: if a folder's name ends with a slash, its contents are copied and not the folder.
# Source: https://man.freebsd.org/cgi/man.cgi?cp(1)
import shutil, sys
from pathlib import Path
*sources, target = [argument for argument in sys.argv[1:] if argument != "-R"]
for source in sources:
    into = Path(target) if source.endswith("/") else Path(target) / Path(source).name
    shutil.copytree(source, into, dirs_exist_ok=True) if Path(source).is_dir() else shutil.copy2(source, into)
"""


def write_template(build: Path, handlers: dict[str, str]) -> None:
    """As `sam build` writes it: each function's code is in the folder of its name."""
    resources = {
        name: {"Type": "AWS::Serverless::Function", "Properties": {"Handler": handler, "CodeUri": name}}
        for name, handler in handlers.items()
    }
    (build / "template.yaml").write_text(json.dumps({"Resources": resources}))


@pytest.fixture(params=["GNU", "BSD"])
def built(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """All functions, built by their Makefile with the `cp` of Linux or of macOS."""
    build, programs = tmp_path / "build", tmp_path / "bin"
    programs.mkdir()
    if request.param == "BSD":
        (programs / "cp").write_text(BSD_CP)
        (programs / "cp").chmod(0o755)
    for name in HANDLERS:
        (build / name).mkdir(parents=True)
        subprocess.run(
            ["make", f"build-{name}", f"ARTIFACTS_DIR={build / name}", "PYTHON=true"],
            cwd=ROOT / "functions",
            env={"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
            check=True,
            timeout=60,
        )
    write_template(build, HANDLERS)
    return build


def run(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["artifacts", str(build)])
    artifacts.main()


def test_every_handler_is_in_its_artifact_when_built_with_either_cp(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {path.name for path in (ROOT / "functions").iterdir() if path.is_dir() and path.name != "__pycache__"}
    for name in HANDLERS:
        assert {path.name for path in (built / name).iterdir()} == folders
    run(built, monkeypatch)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A complete build of two functions."""
    for name in ("KeyLinkFunction", "WebhookFunction"):
        shutil.copytree(ROOT / "functions", tmp_path / name)
    write_template(tmp_path, {name: HANDLERS[name] for name in ("KeyLinkFunction", "WebhookFunction")})
    return tmp_path


@pytest.mark.parametrize("left_out", ["", "key_link", "key_link/handler.py"])
def test_a_build_fails_when_a_handler_is_missing(copied: Path, left_out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_handlers(copied) == []
    function = copied / "KeyLinkFunction"
    (function / left_out).rename(copied / "elsewhere")
    missing = function / "key_link/handler.py"
    with pytest.raises(SystemExit, match=f"KeyLinkFunction: there is no {missing} for the handler"):
        run(copied, monkeypatch)


@pytest.mark.parametrize(
    "code",
    ["", "def handler(): ...", "class C:\n    def lambda_handler(self): ...", "# def lambda_handler(): ..."],
    ids=["empty", "another name", "a method", "a comment"],
)
def test_the_build_fails_when_the_file_does_not_define_the_function(
    copied: Path, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copied / "WebhookFunction/webhook/handler.py").write_text(code)
    with pytest.raises(SystemExit, match=r"WebhookFunction: .*handler\.py does not define lambda_handler"):
        run(copied, monkeypatch)


def test_every_missing_handler_is_named_when_there_are_several(copied: Path) -> None:
    for name in ("KeyLinkFunction", "WebhookFunction"):
        shutil.rmtree(copied / name)
    assert [message.partition(":")[0] for message in missing_handlers(copied)] == [
        "KeyLinkFunction",
        "WebhookFunction",
    ]

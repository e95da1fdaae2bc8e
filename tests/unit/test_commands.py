"""The commands in the docs: they can be read by a shell, and do what is said as far as that shows without AWS."""

import re
import shlex
import subprocess
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse
from typer.testing import CliRunner

from cli.__main__ import app
from create_site.models import NewSite
from crm_bridge.settings import parse_tenant
from crm_bridge.vendors.illu import IlluSettings
from local.template import TEMPLATE

ROOT = TEMPLATE.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
DEPLOY = (ROOT / "docs/deploy.md").read_text()
TEMPLATE_SOURCE: dict[str, Any] = yaml_parse(TEMPLATE.read_text())


def shell_blocks(text: str) -> list[str]:
    return [
        dedent(block)
        for block in re.findall(r"^ *```bash(?: title=\"[^\"]+\")?\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.stem)
def test_every_command_can_be_read_by_a_shell(document: Path) -> None:
    for block in shell_blocks(document.read_text()):
        checked = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, timeout=60)
        assert checked.returncode == 0, checked.stderr


def test_every_target_of_make_that_is_named_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        named = re.findall(r"(?:^|`|\$ )make ([a-z][a-z-]*)", document.read_text(), re.MULTILINE)
        assert set(named) <= targets, document


def test_every_output_that_is_asked_for_is_one_of_the_stack() -> None:
    for document in DOCUMENTS:
        assert set(re.findall(r"\$\(output (\w+)\)", document.read_text())) <= set(TEMPLATE_SOURCE["Outputs"])


def test_the_tenant_of_the_deployment_is_valid() -> None:
    (shown,) = re.findall(r"```json\n(.*?)```", DEPLOY, re.DOTALL)
    assert parse_tenant(shown).of(IlluSettings)


def test_every_command_of_the_command_line_is_one() -> None:
    """With the options that it has."""
    for document in DOCUMENTS:
        for block in shell_blocks(document.read_text()):
            for line in re.findall(r"^crm-bridge (.*)$", block.replace("\\\n", " "), re.MULTILINE):
                words = [word for word in shlex.split(line, comments=True) if word != "|"]
                shown = CliRunner().invoke(app, [*words, "--help"])
                assert shown.exit_code == 0, f"{document.name}: {line}"
                known = set(re.findall(r"--[a-z-]+", shown.output))
                assert {word for word in words if word.startswith("--")} <= known, f"{document.name}: {line}"


def test_the_first_call_is_a_valid_customer() -> None:
    (body,) = re.findall(r'"\$URL/sites".* -d \'(.*?)\'', DEPLOY, re.DOTALL)
    assert NewSite.model_validate_json(body).customer_id == "C-1001"

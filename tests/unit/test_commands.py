"""The commands in the docs: they can be read by a shell, and do what is said as far as that shows without AWS."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from create_site.models import CreateSite
from crm_bridge.settings import parse_tenant
from crm_bridge.tenants import hash_api_key
from local.stack import SCOPES
from local.template import TEMPLATE

ROOT = TEMPLATE.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DEPLOY = (ROOT / "docs/deploy.md").read_text()
TEMPLATE_SOURCE: dict[str, Any] = yaml_parse(TEMPLATE.read_text())


def shell_blocks(text: str) -> list[str]:
    return [dedent(block) for block in re.findall(r"^ *```bash\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)]


def run(script: str, folder: Path, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    """`script` where `aws` is a program that writes down what it is told to do."""
    recorder = f"import json, sys; open({str(folder / 'aws.json')!r}, 'w').write(json.dumps(sys.argv[1:]))"
    aws = folder / "aws"
    aws.write_text(f'#!/bin/sh\nexec {sys.executable} -c {shlex.quote(recorder)} "$@"\n')
    aws.chmod(0o755)
    env = {"PATH": f"{folder}:/usr/bin:/bin", "API_KEYS_TABLE": "api-keys"}
    return subprocess.run(
        ["bash", "-euc", script], cwd=ROOT, env=env, input=stdin, capture_output=True, text=True, timeout=60
    )


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


def test_the_secret_that_is_made_is_the_one_that_functions_read() -> None:
    prefix = TEMPLATE_SOURCE["Globals"]["Function"]["Environment"]["Variables"]["SECRET_PREFIX"]
    assert "crm-bridge/${Stage}/" in str(prefix)
    assert set(re.findall(r"--(?:name|secret-id) (crm-bridge/\S+)", DEPLOY)) == {"crm-bridge/dev/acme"}


def test_the_key_that_is_made_is_found_by_its_hash(tmp_path: Path) -> None:
    (block,) = [block for block in shell_blocks(DEPLOY) if "put-item" in block]
    made = run(block, tmp_path)
    key = made.stdout.strip()
    assert re.fullmatch(r"crmb_[\w-]{43}", key), made.stderr
    told = json.loads((tmp_path / "aws.json").read_text())
    assert told[:4] == ["dynamodb", "put-item", "--table-name", "api-keys"]
    item = json.loads(told[told.index("--item") + 1])
    assert item["key_hash"] == {"S": hash_api_key(key)}
    assert item["tenant"] == {"S": "acme"}
    assert set(item["scopes"]["SS"]) <= SCOPES
    listed = re.findall(
        r"^\| `(\w+)` \| (?:S|N|SS|BOOL) \|", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE
    )
    assert set(item) == set(listed) - {"expires_at", "disabled"}


def test_the_key_that_is_disabled_is_found_by_its_hash(tmp_path: Path) -> None:
    (block,) = [b for b in shell_blocks((ROOT / "docs/rotate-keys.md").read_text()) if "OLD_KEY" in b]
    assert run(f"OLD_KEY=crmb_old\n{block}", tmp_path).returncode == 0
    told = json.loads((tmp_path / "aws.json").read_text())
    assert json.loads(told[told.index("--key") + 1]) == {"key_hash": {"S": hash_api_key("crmb_old")}}
    assert told[told.index("--update-expression") + 1] == "SET disabled = :true"
    assert json.loads(told[told.index("--expression-attribute-values") + 1]) == {":true": {"BOOL": True}}


def test_a_tenant_is_checked_without_showing_its_values(tmp_path: Path) -> None:
    (block,) = [block for block in shell_blocks(DEPLOY) if "parse_tenant" in block]
    check = block.replace(".venv/bin/python", sys.executable).replace("<acme.json", "")
    (shown,) = re.findall(r"```json\n(.*?)```", DEPLOY, re.DOTALL)
    parse_tenant(shown)
    assert run(check, tmp_path, shown).stdout == "valid\n"
    refused = run(check, tmp_path, '{"illu": {"org_id": "s3cret", "api_key": "s3cret", "key": "s3cret"}}')
    assert refused.returncode != 0
    assert "illu.org_id" in refused.stderr
    assert "s3cret" not in refused.stdout + refused.stderr


def test_the_first_call_is_a_valid_customer() -> None:
    (body,) = re.findall(r'"\$URL/sites".* -d \'(.*?)\'', DEPLOY, re.DOTALL)
    assert CreateSite.model_validate_json(body).customer_id == "C-1001"

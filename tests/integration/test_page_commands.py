"""The commands and requests that pages show without what they print (see tests/code_blocks.py)."""

import json
import os
import re
import shlex
import subprocess
from types import SimpleNamespace

import pytest

from local.vendors.simulator import Kind
from tests.code_blocks import played
from tests.integration.conftest import CommandLine, Crm, change_settings

COMMANDS = played("test_a_command_of_a_page_works")
REQUESTS = played("test_a_request_of_a_page_is_answered")
A_HASH = "4c2e008ca1e3"
"""How pages show the beginning of a key's hash."""


@pytest.fixture
def acme(crm: Crm, cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Crm:
    """The CRM of the tenant acme, whose customer C-1001 and ticket T-501 are at illu."""
    monkeypatch.setattr("cli.tenants.time", SimpleNamespace(sleep=lambda _: None))
    illu = {"base_url": crm.stack.illu.url, "org_id": 88, "api_key": "illu-demo-key"}
    added = cli("tenant", "add", "acme", "--file", "-", input=json.dumps({"illu": illu}))
    crm.headers["Authorization"] = f"Bearer {re.findall(r'crmb_[\w-]{43}', added.out + added.err)[0]}"
    assert crm.create_site().status_code == 201
    assert crm.post("/jobs", {"ticket_id": "T-501", "customer_id": "C-1001", "name": "Meter"}).status_code == 201
    return crm


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("page", COMMANDS)
def test_a_command_of_a_page_works(cli: CommandLine, page: str) -> None:
    for command in "\n".join(COMMANDS[page]).replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(command)
        assert program == "crm-bridge"
        if A_HASH in arguments:
            hashes = re.findall(r"^ ([0-9a-f]{12}) ", cli("tenant", "key", "list", "acme").out, re.MULTILINE)
            arguments[arguments.index(A_HASH)] = hashes[0]
        answer = ["--yes"] if {"forget", "remove", "set"} & {*arguments} and "--dry-run" not in arguments else []
        said = cli(*arguments, *answer, input="illu-demo-key\n")  # which `set` asks for
        assert said.code == 0, f"{command}: {said.out}{said.err}"


@pytest.mark.parametrize("page", REQUESTS)
def test_a_request_of_a_page_is_answered(crm: Crm, page: str) -> None:
    environment = {**os.environ, "URL": crm.stack.url, "KEY": crm.stack.api_key}
    in_review = an_operation_in_review(crm)
    for request in re.findall(r"^curl (?:[^\n\\]|\\\n)*", "\n".join(REQUESTS[page]), re.MULTILINE):
        typed = request.replace("https://api.example.com", crm.stack.url).replace("op_…", in_review)
        command = ["bash", "-c", f"{typed} -w '\\n%{{http_code}}'"]
        answered = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
        body, _, status = answered.stdout.rpartition("\n")
        is_refused_unverified = '"field":"confirmed"' in body.replace(" ", "")
        assert int(status) < 300 or is_refused_unverified, (request, answered.stdout)


def an_operation_in_review(crm: Crm) -> str:
    """Return the id of an operation whose response was lost at an illu without a list."""
    change_settings(crm.stack, crm.stack.tenant_name, illu={"site_list_path": None}, at_once=True)
    crm.stack.illu.fail(Kind.CLOSE_AFTER)
    accepted = crm.create_site()
    assert crm.settle(accepted)["state"] == "needs_review"
    return str(accepted.json()["operation_id"])

"""Every command that takes a tenant names one that does not exist, instead of showing an empty list."""

from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from cli.__main__ import app
from docs.command_reference import commands
from local.stack import LOCAL_STACK
from local.vendors.simulator import Kind
from tests.integration.conftest import CommandLine, Crm

ARGUMENTS = {
    "doctor": "nobody",
    "forget": "nobody C-1001",
    "import jobs": "nobody tickets.jsonl",
    "import key-links": "nobody key-links.csv",
    "import sites": "nobody customers.csv",
    "links check": "nobody",
    "links export": "nobody",
    "links find": "nobody crm customer C-1001",
    "links import": "nobody links.csv",
    "mapping add-sample": "nobody create_site one payload.json",
    "mapping diff": "nobody create_site",
    "mapping remove-sample": "nobody create_site one",
    "mapping set": "nobody create_site expression.jmes",
    "mapping show": "nobody",
    "operations list": "nobody",
    "operations retry": "nobody --yes",
    "operations show": "nobody C-1001",
    "requests": "nobody",
    "tail": "nobody",
    "tenant key add": "nobody",
    "tenant key list": "nobody",
    "tenant key revoke": "nobody 0123456789ab",
    "tenant remove": "nobody --yes",
    "tenant set": "nobody illu.search_lag=60 --yes",
    "tenant show": "nobody",
}
"""By command. `tenant add` is not here: it makes the tenant."""
MORE = (
    "operations list nobody --changed",
    "requests nobody C-1001 resend --yes",
    "show C-1001 --tenant nobody",
    "mapping try nobody create_site payload.json",
)
FILES = {
    "customers.csv": "customer_id,name,address,latitude,longitude\nC-1,Duka,Moi Ave 41,1.0,35.0\n",
    "tickets.jsonl": '{"ticket_id": "T-1", "customer_id": "C-1", "title": "No signal", "description": "Since noon"}\n',
    "key-links.csv": "customer_id,system_name,entity_type,account_id\n4711,salesforce,account,A-1\n",
    "links.csv": "system,entity,id,partner_system,partner_entity,partner_id\ncrm,customer,C-1,illu,site,4711\n",
    "payload.json": "{}",
    "expression.jmes": "@",
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)


def test_every_command_that_takes_a_tenant_is_tried() -> None:
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    found = {
        name.removeprefix("crm-bridge ")
        for name, _, parameters in commands(root, "crm-bridge")
        if any(one.name == "name" for one in parameters)
    }
    assert found - {"tenant add"} == set(ARGUMENTS)


@pytest.mark.usefixtures("files", "crm")
@pytest.mark.parametrize("arguments", [*(f"{name} {rest}" for name, rest in ARGUMENTS.items()), *MORE])
def test_a_tenant_that_does_not_exist_is_named_when_a_command_is_given_one(arguments: str, cli: CommandLine) -> None:
    told = cli(*arguments.split())
    assert "There is no tenant nobody" in told.out + told.err
    assert told.code in (1, 2)


def test_a_suggested_command_names_the_same_bridge_when_it_was_named_by_options(crm: Crm, cli: CommandLine) -> None:
    told = cli("operations", "list", "nobody", "--stack", LOCAL_STACK, "--region", "eu-west-1")
    assert f"`crm-bridge tenant list --stack {LOCAL_STACK} --region eu-west-1`" in told.err.replace("\n", " ")
    assert "`crm-bridge tenant list`" in cli("operations", "list", "nobody").err  # whoever has set the variables
    crm.stack.illu.fail(Kind.MOVED)
    waiting = str(crm.create_site(customer_id="C-2").json()["operation_id"])
    shown = cli("operations", "show", "demo", waiting, "--stack", LOCAL_STACK).out
    assert f"  crm-bridge operations resolve {waiting} retry --stack {LOCAL_STACK}\n" in shown

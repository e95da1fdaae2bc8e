"""The command line turns tenants up and down, and their keys."""

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
import typer

from cli import asking
from local.stack import DEMO_TENANT, Stack
from tests.integration.conftest import SITE, CommandLine, Crm

ILLU_KEY = "illu-demo-key"


@pytest.fixture
def acme(stack: Stack, tmp_path: Path) -> Path:
    """The settings of a tenant whose illu is the simulator."""
    file = tmp_path / "acme.json"
    file.write_text(json.dumps({"illu": {"base_url": stack.illu.url, "org_id": 88, "api_key": ILLU_KEY}}))
    return file


def stored(tenant: str) -> dict[str, Any]:
    secret = boto3.client("secretsmanager").get_secret_value(SecretId=f"crm-bridge/dev/{tenant}")
    document: dict[str, Any] = json.loads(secret["SecretString"])
    return document


def create_site(stack: Stack, key: str) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    return requests.post(f"{stack.url}/sites", json=SITE, headers=headers, timeout=60).status_code


def test_an_added_tenants_first_key_works_and_is_shown_once(stack: Stack, cli: CommandLine, acme: Path) -> None:
    added = cli("tenant", "add", "acme", "--file", str(acme), "--json")
    assert added.code == 0
    key = added.json["key"]
    assert added.json["scopes"] == ["create_job", "create_site", "operations"]
    assert create_site(stack, key) == 201
    assert [site["name"] for site in stack.illu.sites] == [SITE["name"]]
    listed = cli("tenant", "key", "list", "acme", "--json")
    assert [one["state"] for one in listed.json] == ["valid"]
    assert key not in listed.out + cli("tenant", "show", "acme").out
    assert cli("tenant", "list").out.split() == ["acme", "demo", "demo-told", "demo-upya"]


def test_a_tenant_can_be_read_from_standard_input(cli: CommandLine, acme: Path) -> None:
    assert cli("tenant", "add", "acme", "--file", "-", input=acme.read_text()).code == 0
    assert stored("acme")["illu"]["org_id"] == 88


def test_an_invalid_tenant_is_not_stored_and_its_values_are_not_repeated(cli: CommandLine) -> None:
    document = json.dumps({"illu": {"org_id": -4, "apikey": "hunter2hunter2"}})
    told = cli("tenant", "add", "acme", "--file", "-", "--json", input=document)
    assert told.code == 2
    assert told.out == ""
    problem = json.loads(told.err)
    assert {error["field"] for error in problem["errors"]} == {"illu.org_id", "illu.api_key", "illu.apikey"}
    assert "hunter2" not in told.err
    assert "acme" not in cli("tenant", "list").out


@pytest.mark.parametrize("name", ["Acme", "a/b", "", "a" * 64, "-a"])
def test_a_tenant_needs_a_name_that_every_key_can_hold(cli: CommandLine, acme: Path, name: str) -> None:
    assert cli("tenant", "add", "--file", str(acme), "--", name).code == 2


def test_a_tenant_is_not_added_twice(cli: CommandLine, acme: Path) -> None:
    told = cli("tenant", "add", DEMO_TENANT, "--file", str(acme))
    assert told.code == 2
    assert "tenant set demo" in told.err
    assert "revio" in stored(DEMO_TENANT)


def test_whoever_gives_no_file_is_asked_and_asked_again_for_what_is_not_valid(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["none", "key-1", "88", "key-2"])
    monkeypatch.setattr(typer, "prompt", lambda *_, **__: next(answers))
    uses = iter([True, False, False, False, False, True])
    monkeypatch.setattr(typer, "confirm", lambda *_, **__: next(uses))
    monkeypatch.setitem(asking.BLOCKS["callback"][2], "url", lambda: "https://hooks.acme.example/told")
    told = cli("tenant", "add", "acme")
    assert told.code == 0, told.err
    assert "org_id: Input should be a valid integer" in told.err
    assert stored("acme")["illu"] == {"org_id": "88", "api_key": "key-2"}
    assert stored("acme")["callback"]["secret"].startswith("whsec_")


def test_nothing_is_stored_when_the_questions_end_early(cli: CommandLine) -> None:
    told = cli("tenant", "add", "acme", input="y\n88\n")
    assert told.code == 2
    assert "acme" not in cli("tenant", "list").out


def test_secrets_and_a_callbacks_address_are_masked(cli: CommandLine) -> None:
    told = cli("tenant", "show", "demo-told", "--json")
    assert told.json["illu"]["api_key"] == told.json["revio"]["password"] == "**********"
    assert told.json["callback"]["url"].endswith("/**********")
    document = stored("demo-told")
    for secret in (document["illu"]["api_key"], document["callback"]["secret"], document["callback"]["url"]):
        assert secret not in told.out


def test_settings_are_changed_checked_and_shown_masked(cli: CommandLine, acme: Path) -> None:
    cli("tenant", "add", "acme", "--file", str(acme))
    told = cli("tenant", "set", "acme", "illu.search_lag=60", "--yes")
    assert told.code == 0
    assert stored("acme")["illu"]["search_lag"] == 60
    told = cli("tenant", "set", "acme", "illu.api_key", "--yes", input="a-new-key\n")
    assert told.code == 0
    assert "a-new-key" not in told.out + told.err
    assert stored("acme")["illu"]["api_key"] == "a-new-key"
    assert cli("tenant", "set", "acme", "--unset", "illu.search_lag", "--yes", "--json").json == {
        "tenant": "acme",
        "changed": ["illu.search_lag"],
    }
    assert "search_lag" not in stored("acme")["illu"]


@pytest.mark.parametrize(
    "change", [["illu.search_lag=1"], ["illu.no_such=1"], ["--unset", "illu.org_id"], ["--unset", "illu.none"], []]
)
def test_what_would_not_be_valid_is_not_stored(cli: CommandLine, acme: Path, change: list[str]) -> None:
    cli("tenant", "add", "acme", "--file", str(acme))
    before = stored("acme")
    assert cli("tenant", "set", "acme", *change, "--yes").code == 2
    assert stored("acme") == before


def test_nothing_is_changed_when_nobody_says_yes(cli: CommandLine, acme: Path) -> None:
    cli("tenant", "add", "acme", "--file", str(acme))
    told = cli("tenant", "set", "acme", "illu.search_lag=60", input="")
    assert told.code == 2
    assert "--yes" in told.err
    assert "search_lag" not in stored("acme")["illu"]


def test_a_revoked_key_is_refused_and_another_works(stack: Stack, cli: CommandLine, acme: Path) -> None:
    first = cli("tenant", "add", "acme", "--file", str(acme), "--json").json["key"]
    second = cli("tenant", "key", "add", "acme", "--label", "new", "--expires", "90d", "--json").json
    listed = {one["label"]: one for one in cli("tenant", "key", "list", "acme", "--json").json}
    assert listed.keys() == {"CRM", "new"}
    assert listed["new"]["expires_at"] == second["expires_at"]
    assert cli("tenant", "key", "revoke", "acme", listed["CRM"]["key"]).code == 0
    assert create_site(stack, first) == 401
    assert create_site(stack, second["key"]) == 201
    states = {one["label"]: one["state"] for one in cli("tenant", "key", "list", "acme", "--json").json}
    assert states == {"CRM": "revoked", "new": "valid"}


def test_a_key_can_be_revoked_by_itself_but_not_another_tenants(cli: CommandLine, acme: Path, crm: Crm) -> None:
    key = cli("tenant", "add", "acme", "--file", str(acme), "--json").json["key"]
    assert cli("tenant", "key", "revoke", "acme", crm.stack.api_key).code == 2
    assert crm.create_site().status_code == 201
    assert cli("tenant", "key", "revoke", "acme", key).code == 0


@pytest.mark.parametrize(
    "option",
    [["--scope", "everything"], ["--expires", "soon"], ["--expires", "2020-01-01"]],
    ids=lambda option: option[1],
)
def test_no_key_is_made_of_what_makes_no_sense(cli: CommandLine, option: list[str]) -> None:
    before = cli("tenant", "key", "list", "demo", "--json").json
    assert cli("tenant", "key", "add", "demo", *option).code == 2
    assert cli("tenant", "key", "list", "demo", "--json").json == before


def test_a_removed_tenants_keys_are_refused_and_its_secret_is_gone(stack: Stack, cli: CommandLine, acme: Path) -> None:
    key = cli("tenant", "add", "acme", "--file", str(acme), "--json").json["key"]
    assert create_site(stack, key) == 201
    assert cli("tenant", "remove", "acme").code == 2
    stack.move_clock(0)
    assert cli("tenant", "remove", "acme", "--yes", "--json").json["revoked_keys"] == 1
    assert create_site(stack, key) == 401
    assert cli("tenant", "show", "acme").code == 2
    assert cli("tenant", "remove", "acme", "--yes").code == 2


def test_a_tenant_whose_operations_are_not_finished_is_not_removed(crm: Crm, cli: CommandLine) -> None:
    crm.post("/sites", SITE, headers={"Prefer": "respond-async"})
    told = cli("tenant", "remove", "demo", "--yes")
    assert told.code == 2
    assert "not finished" in told.err
    assert stored("demo")
    assert cli("tenant", "remove", "demo", "--yes", "--force").code == 0


def test_what_a_stack_lacks_is_named(cli: CommandLine) -> None:
    told = cli("tenant", "list", "--stack", "no-such")
    assert told.code == 3
    assert "no-such" in told.err
    assert cli("tenant", "list", "--local", "--port", "1").code == 3

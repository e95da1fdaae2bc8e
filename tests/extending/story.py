"""The story of the new flow: run in a copy of the bundle that has it (see `test_extending`), and nowhere else."""

import json

import pytest

from crm_bridge.settings import parse_tenant
from crm_bridge.vendors import PART_OF, vendors
from local.vendors.simulator import Kind
from local.vendors.zendesk import ZendeskSimulator
from operations import console
from tests.integration.conftest import CommandLine, Crm
from tests.stack import Stack

pytest_plugins = ["tests.integration.conftest"]

ACME = {"company_id": "7001", "name": "Acme", "domains": ["acme.example"]}
ACCEPTED = 202


@pytest.fixture
def zendesk(stack: Stack) -> ZendeskSimulator:
    return stack.simulator(ZendeskSimulator)


def created(zendesk: ZendeskSimulator) -> list[object]:
    return [one["external_id"] for one in zendesk.organizations]


def test_created_once_however_often_it_is_sent(crm: Crm, zendesk: ZendeskSimulator) -> None:
    first, again = crm.post("/organizations", ACME), crm.post("/organizations", ACME)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"] == 35_436
    assert first.json()["operation_id"] == again.json()["operation_id"]
    assert zendesk.organizations[0].items() > {"external_id": "7001", "name": "Acme"}.items()
    assert zendesk.organizations[0]["domain_names"] == ["acme.example"]
    links = crm.get("/links/hubspot/company/7001").json()["links"]
    assert [(one["system"], one["entity"], one["id"]) for one in links] == [("zendesk", "organization", "35436")]
    assert crm.post("/organizations", {**ACME, "company_id": "7002"}).status_code == 422  # the name is taken
    assert created(zendesk) == ["7001"]


@pytest.mark.parametrize("lag", [0, 20])
def test_found_and_linked_when_the_response_was_lost(crm: Crm, zendesk: ZendeskSimulator, lag: int) -> None:
    zendesk.search_lag = lag
    zendesk.fail(Kind.CLOSE_AFTER)
    accepted = crm.post("/organizations", ACME)
    assert accepted.status_code == ACCEPTED
    operation = crm.settle(accepted)
    assert (operation["state"], operation["attempts"][-1]["event"]) == ("succeeded", "found")
    assert operation["result"]["id"] == 35_436
    assert created(zendesk) == ["7001"]


def test_sent_again_when_zendesk_has_not_done_it(crm: Crm, zendesk: ZendeskSimulator) -> None:
    zendesk.fail(Kind.CLOSE_BEFORE)
    assert crm.settle(crm.post("/organizations", ACME))["state"] == "succeeded"
    assert created(zendesk) == ["7001"]


def test_a_person_decides_when_what_is_found_has_another_external_id(crm: Crm, zendesk: ZendeskSimulator) -> None:
    zendesk.fail(Kind.CLOSE_AFTER)
    accepted = crm.post("/organizations", {**ACME, "company_id": "acme-1"})
    zendesk.organizations[0]["external_id"] = "ACME-1"
    operation = crm.settle(accepted)
    assert operation["state"] == "needs_review"
    assert [one["id"] for one in operation["candidates"]] == ["35436"]


def test_a_person_decides_when_zendesk_cannot_be_asked(crm: Crm, zendesk: ZendeskSimulator) -> None:
    assert crm.post("/organizations", {**ACME, "company_id": "7000", "name": "Other"}).status_code == 201
    zendesk.pages = 2
    zendesk.fail(Kind.CLOSE_AFTER)
    accepted = crm.post("/organizations", ACME)
    operation = crm.settle(accepted)
    assert (operation["state"], operation["attempts"][-1]["event"]) == ("needs_review", "in doubt")
    resolve = f"{accepted.headers['Location']}/resolve"
    for wrong in ("35436", "99", "no number"):  # another company's, none, and nothing that Zendesk has
        assert crm.post(resolve, {"action": "link", "id": wrong}).status_code in (404, 409, 422), wrong
    decided = crm.post(resolve, {"action": "link", "id": "35437"})
    assert (decided.status_code, decided.json()["state"]) == (200, "succeeded")
    assert crm.get("/links/zendesk/organization/35437").json()["links"][0]["id"] == "7001"
    assert created(zendesk) == ["7000", "7001"]


def test_it_is_in_every_list(crm: Crm, stack: Stack) -> None:
    crm.post("/organizations", ACME)
    operations = crm.get("/operations?flow=create_organization").json()["operations"]
    assert [one["event_key"] for one in operations] == ["7001"]
    for known_by in ("7001", "35436"):  # the company's id and the organization's, without their kinds
        assert len(crm.get(f"/operations?id={known_by}").json()["operations"]) == 1
    summary = {one["vendor"]: one["state"] for one in crm.get("/operations/summary").json()["vendors"]}
    assert summary["Zendesk"] == "responding"
    assert '"create_organization": {"vendor": "Zendesk"' in str(console.page("")["body"])
    assert json.loads(stack.demo_tenant())["zendesk"]["search_lag"] == 30
    mapping = {"create_organization": {"version": "1", "expression": "{company_id: id}"}}
    assert parse_tenant(json.dumps({"mappings": mapping})).mappings.of("create_organization")


def test_the_command_line_knows_it(
    cli: CommandLine, zendesk: ZendeskSimulator, tmp_path_factory: pytest.TempPathFactory
) -> None:
    result = cli("doctor", "demo", "--json")
    findings = [one for one in result.json if one["about"] == "Zendesk"]
    assert [(one["check"], one["result"]) for one in findings] == [("search for organizations", "ok")]
    (queues,) = (one["detail"] for one in result.json if one["check"] == "queues")
    assert queues == f"0 messages on {len(PART_OF)}"
    added = cli("tenant", "key", "add", "demo", "--scope", "create_organization", "--json")
    assert added.json["scopes"] == ["create_organization"]
    schema = cli("tenant", "schema").json
    settings = schema["$defs"]["ZendeskSettings"]["properties"]
    assert set(settings) == {"base_url", "email", "api_token", "search_lag"}
    file = tmp_path_factory.mktemp("import") / "organizations.jsonl"
    file.write_text(json.dumps(ACME))
    assert cli("import", "organizations", "demo", str(file), "--yes").code == 0
    assert created(zendesk) == ["7001"]
    assert cli("forget", "demo", "hubspot/company/7001", "--yes").code == 0


def test_onboarding_asks_for_its_settings_and_gives_its_scope(cli: CommandLine, zendesk: ZendeskSimulator) -> None:
    blocks = [block.block for vendor in vendors() for block in vendor.blocks()]
    answers = {"zendesk": f"y\nhttps://acme.zendesk.com\n{zendesk.email}\n{zendesk.api_token}\n"}
    result = cli("tenant", "add", "acme", input="".join(answers.get(block, "n\n") for block in blocks))
    assert result.code == 0, result.err
    assert "Does it use Zendesk (organizations)?" in result.err
    assert zendesk.api_token not in result.out + result.err
    assert cli("tenant", "key", "list", "acme", "--json").json[0]["scopes"] == ["create_organization"]
    settings = {"base_url": "https://acme.zendesk.com", "email": zendesk.email, "api_token": "**********"}
    assert cli("tenant", "show", "acme", "--json").json["zendesk"] == settings

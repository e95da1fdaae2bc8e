"""The command line turns tenants up and down, and their keys."""

import json
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
import typer
from botocore.exceptions import ClientError

from cli import keys
from cli.bridge import Bridge
from cli.stored_mappings import without_stamps
from connector_receiver import record_routes
from crm_bridge.storage.api_keys import PAYLOAD_SCOPE
from crm_bridge.tenant_parts import PARTS, joined
from crm_bridge.tenants import SECRET_MAX_AGE
from local.stack import DEMO_TENANT
from operations import handler as operations
from tests.integration.conftest import SITE, CommandLine, Crm
from tests.stack import Stack

ILLU_KEY = "illu-demo-key"


@pytest.fixture
def acme(stack: Stack, tmp_path: Path) -> Path:
    """The settings of a tenant whose illu is the simulator."""
    file = tmp_path / "acme.json"
    file.write_text(json.dumps({"illu": {"base_url": stack.illu.url, "org_id": 88, "api_key": ILLU_KEY}}))
    return file


def parts(tenant: str) -> dict[str, str]:
    """The texts of a tenant's secrets, by part."""
    secrets = boto3.client("secretsmanager")
    found = {}
    for part in PARTS:
        with suppress(secrets.exceptions.ResourceNotFoundException):
            found[part] = secrets.get_secret_value(SecretId=f"crm-bridge/dev/{part}/{tenant}")["SecretString"]
    return found


def stored(tenant: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(joined(parts(tenant).values()))
    return document


def create_site(stack: Stack, key: str) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    return requests.post(f"{stack.url}/sites", json=SITE, headers=headers, timeout=60).status_code


def test_an_added_tenants_first_key_works_and_is_shown_once(stack: Stack, cli: CommandLine, acme: Path) -> None:
    added = cli("tenant", "add", "acme", "--file", str(acme), "--json")
    assert added.code == 0
    key = added.json["key"]
    assert added.json["scopes"] == ["create_job", "create_site"]
    assert create_site(stack, key) == 201
    assert [site["name"] for site in stack.illu.sites] == [SITE["name"]]
    listed = cli("tenant", "key", "list", "acme", "--json")
    assert [one["state"] for one in listed.json] == ["valid"]
    assert key not in listed.out + cli("tenant", "show", "acme").out
    assert cli("tenant", "list").out.split() == ["acme", "demo", "demo-upya", "demo-webhook"]


def call(stack: Stack, key: str, method: str, path: str, body: object = None) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    return requests.request(method, stack.url + path, json=body, headers=headers, timeout=60).status_code


def test_the_crms_key_may_neither_look_nor_decide_and_a_persons_key_may(
    stack: Stack, cli: CommandLine, acme: Path
) -> None:
    key = cli("tenant", "add", "acme", "--file", str(acme), "--json").json["key"]
    resolve = f"/operations/op_{'0' * 32}/resolve"
    for method, path in (("GET", "/operations"), ("GET", "/links/crm/customer/C-1001"), ("POST", resolve)):
        assert call(stack, key, method, path, {"action": "discard"} if method == "POST" else None) == 403
    scopes = ("--scope", "operations:read", "--scope", "operations:resolve")
    person = cli("tenant", "key", "add", "acme", "--label", "Ada, support", *scopes, "--json").json["key"]
    assert call(stack, person, "GET", "/operations") == 200
    assert call(stack, person, "POST", resolve, {"action": "discard"}) == 404
    assert create_site(stack, person) == 403


def test_the_command_line_knows_every_scope_that_a_function_asks_for(stack: Stack) -> None:
    flows = {function.package for function in stack.template.functions.values()} - {"operations", "webhook", "sources"}
    asked = {*operations.SCOPES.values(), PAYLOAD_SCOPE, record_routes.SCOPE} | (flows - {"dispatcher"})
    assert asked == keys.SCOPES


@pytest.mark.parametrize(("given", "days"), [([], 365), (["--expires", "7d"], 7), (["--expires", "never"], None)])
@pytest.mark.parametrize("command", ["tenant add", "tenant key add"])
def test_a_key_expires_after_a_year_or_when_it_is_said(
    cli: CommandLine, acme: Path, command: str, given: list[str], days: int | None
) -> None:
    tenant = ["acme", "--file", str(acme)] if command == "tenant add" else ["demo"]
    made = cli(*command.split(), *tenant, *given, "--json").json
    if days is None:
        assert made["expires_at"] is None
    else:
        left = datetime.fromisoformat(made["expires_at"]).timestamp() - time.time()
        assert abs(left - days * 86_400) < 600
    listed = [one for one in cli("tenant", "key", "list", tenant[0], "--json").json if one["label"] == "CRM"]
    assert [one["expires_at"] for one in listed] == [made["expires_at"]]
    said = cli("tenant", "key", "add", "demo", *given).out
    assert ("and never expires:" if days is None else "and expires on 20") in said


def test_who_made_a_key_is_stored_and_listed(cli: CommandLine, acme: Path) -> None:
    arn = boto3.client("sts").get_caller_identity()["Arn"]
    assert cli("tenant", "add", "acme", "--file", str(acme), "--json").json["created_by"] == arn
    assert [one["created_by"] for one in cli("tenant", "key", "list", "acme", "--json").json] == [arn]
    assert arn.rpartition("/")[2] in cli("tenant", "key", "list", "acme").out


def test_nothing_is_stored_when_aws_does_not_say_who_makes_the_key(
    cli: CommandLine, acme: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Bridge) -> str:
        raise ClientError({"Error": {"Code": "ExpiredToken", "Message": "sign in"}}, "GetCallerIdentity")

    monkeypatch.setattr(Bridge, "arn", property(refused))
    assert cli("tenant", "add", "acme", "--file", str(acme)).code == 3
    assert "acme" not in cli("tenant", "list").out


@pytest.mark.parametrize(
    "settings", [{}, {"webhook": {"url": "https://acme.example/hook", "secret": "whsec_" + "A" * 32}}]
)
def test_a_key_that_could_call_nothing_is_not_made(cli: CommandLine, settings: dict[str, object]) -> None:
    result = cli("tenant", "add", "acme", "--file", "-", input=json.dumps(settings))
    assert result.code == 2
    assert "--scope" in result.err or not settings
    assert "acme" not in cli("tenant", "list").out


def test_a_tenant_can_be_read_from_standard_input(cli: CommandLine, acme: Path) -> None:
    assert cli("tenant", "add", "acme", "--file", "-", input=acme.read_text()).code == 0
    assert stored("acme")["illu"]["org_id"] == 88


def test_an_invalid_tenant_is_not_stored_and_its_values_are_not_repeated(cli: CommandLine) -> None:
    document = json.dumps({"illu": {"org_id": -4, "apikey": "hunter2hunter2"}})
    result = cli("tenant", "add", "acme", "--file", "-", "--json", input=document)
    assert result.code == 2
    assert result.out == ""
    problem = json.loads(result.err)
    assert {error["field"] for error in problem["errors"]} == {"illu.org_id", "illu.api_key", "illu.apikey"}
    assert "hunter2" not in result.err
    assert "acme" not in cli("tenant", "list").out


@pytest.mark.parametrize("name", ["Acme", "a/b", "", "a" * 64, "-a"])
def test_a_tenant_needs_a_name_that_every_key_can_hold(cli: CommandLine, acme: Path, name: str) -> None:
    assert cli("tenant", "add", "--file", str(acme), "--", name).code == 2


def test_a_tenant_is_not_added_twice(cli: CommandLine, acme: Path) -> None:
    result = cli("tenant", "add", DEMO_TENANT, "--file", str(acme))
    assert result.code == 2
    assert "tenant set demo" in result.err
    assert "revio" in stored(DEMO_TENANT)


def test_whoever_gives_no_file_is_asked_and_asked_again_for_what_is_not_valid(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["none", "key-1", "88", "key-2", "https://hooks.acme.example/hook"])
    monkeypatch.setattr(typer, "prompt", lambda *_, **__: next(answers))
    uses = iter([True, False, False, False, False, True])
    monkeypatch.setattr(typer, "confirm", lambda *_, **__: next(uses))
    result = cli("tenant", "add", "acme")
    assert result.code == 0, result.err
    assert "org_id: Input should be a valid integer" in result.err
    assert stored("acme")["illu"] == {"org_id": "88", "api_key": "key-2"}
    assert stored("acme")["webhook"]["secret"].startswith("whsec_")


def test_nothing_is_stored_when_the_questions_end_early(cli: CommandLine) -> None:
    result = cli("tenant", "add", "acme", input="y\n88\n")
    assert result.code == 2
    assert "acme" not in cli("tenant", "list").out


def test_secrets_and_a_webhooks_address_are_masked(cli: CommandLine) -> None:
    result = cli("tenant", "show", "demo-webhook", "--json")
    assert result.json["illu"]["api_key"] == result.json["revio"]["password"] == "**********"
    assert result.json["webhook"]["url"].endswith("/**********")
    document = stored("demo-webhook")
    for secret in (document["illu"]["api_key"], document["webhook"]["secret"], document["webhook"]["url"]):
        assert secret not in result.out


def test_settings_are_changed_checked_and_shown_masked(cli: CommandLine, acme: Path) -> None:
    cli("tenant", "add", "acme", "--file", str(acme))
    result = cli("tenant", "set", "acme", "illu.search_lag=60", "--yes")
    assert result.code == 0
    assert stored("acme")["illu"]["search_lag"] == 60
    result = cli("tenant", "set", "acme", "illu.api_key", "--yes", input="a-new-key\n")
    assert result.code == 0
    assert "a-new-key" not in result.out + result.err
    assert stored("acme")["illu"]["api_key"] == "a-new-key"
    assert cli("tenant", "set", "acme", "--unset", "illu.search_lag", "--yes", "--json").json == {
        "tenant": "acme",
        "changed": ["illu.search_lag"],
        "used_everywhere_after": SECRET_MAX_AGE,
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
    result = cli("tenant", "set", "acme", "illu.search_lag=60", input="")
    assert result.code == 2
    assert "--yes" in result.err
    assert "search_lag" not in stored("acme")["illu"]


# ---------------------------------------------------------------------- one document, several secrets

WEBHOOK = {"url": "https://hooks.acme.example/t?token=x", "secret": "whsec_" + "b2s0" * 8}


SET_WEBHOOK = ["tenant", "set", "acme", *(f"webhook.{name}" for name in WEBHOOK), "--yes"]
TYPED = "".join(f"{value}\n" for value in WEBHOOK.values())
"""The questions that follow."""


def test_each_secret_has_its_vendor_and_no_other(cli: CommandLine, stack: Stack) -> None:
    document = json.loads(stack.webhook_tenant())
    document["mappings"] = {"create_job": {"built_in": "upya"}}
    assert cli("tenant", "add", "acme", "--file", "-", input=json.dumps(document)).code == 0
    found = {part: json.loads(text) for part, text in parts("acme").items()}
    assert {part: sorted(content) for part, content in found.items()} == {
        "webhook": ["webhook"],
        "illu": ["has_webhook", "illu", "mappings"],
        "revio": ["has_webhook", "revio"],
        "izzitup": ["has_webhook", "izzitup"],
        "egito": ["connector", "egito", "has_webhook"],
    }
    assert _written("acme") == document


def _written(tenant: str) -> Any:
    """Return what is stored, without what the command line adds."""
    return json.loads(without_stamps(json.dumps(stored(tenant))))


def test_a_vendor_that_is_not_used_has_no_secret(cli: CommandLine, acme: Path) -> None:
    cli("tenant", "add", "acme", "--file", str(acme))
    assert parts("acme").keys() == {"illu"}
    assert cli(*SET_WEBHOOK, input=TYPED).code == 0
    assert parts("acme").keys() == {"illu", "webhook"}
    assert cli("tenant", "set", "acme", "--unset", "webhook", "--yes").code == 0
    assert (parts("acme")["webhook"], "has_webhook" in parts("acme")["illu"]) == ("{}", False)
    assert cli(*SET_WEBHOOK, input=TYPED).code == 0
    assert stored("acme")["webhook"] == WEBHOOK


def test_no_setting_is_changed_while_another_secret_is_not_json(cli: CommandLine, stack: Stack) -> None:
    cli("tenant", "add", "acme", "--file", "-", input=stack.demo_tenant())
    boto3.client("secretsmanager").put_secret_value(SecretId="crm-bridge/dev/revio/acme", SecretString="{oops")
    before = parts("acme")
    for change in (["illu.search_lag=60"], ["--unset", "illu.search_lag"], ["egito.lists_everything=true"]):
        result = cli("tenant", "set", "acme", *change, "--yes")
        assert (result.code, "--file" in result.err) == (2, True)
        assert parts("acme") == before
    assert cli("tenant", "set", "acme", "--file", "-", "--yes", input=stack.demo_tenant()).code == 0
    assert _written("acme") == json.loads(stack.demo_tenant())


def test_what_is_new_for_a_tenant_is_encrypted_with_its_key(cli: CommandLine, acme: Path) -> None:
    cli("tenant", "add", "acme", "--file", str(acme), "--kms-key-id", "alias/ours")
    cli(*SET_WEBHOOK, input=TYPED)
    described = boto3.client("secretsmanager").describe_secret(SecretId="crm-bridge/dev/webhook/acme")
    assert described["KmsKeyId"] == "alias/ours"


@pytest.mark.parametrize("removes", [False, True], ids=["add", "remove"])
@pytest.mark.parametrize("writes", [1, 2, 3])
def test_no_vendor_says_that_there_is_a_webhook_without_its_secret_wherever_a_change_ends(
    cli: CommandLine, stack: Stack, monkeypatch: pytest.MonkeyPatch, writes: int, removes: bool
) -> None:
    cli("tenant", "add", "acme", "--file", "-", input=stack.demo_tenant())
    change = SET_WEBHOOK
    if removes:
        assert cli(*change, input=TYPED).code == 0
        change = ["tenant", "set", "acme", "--unset", "webhook", "--yes"]
    done: list[str] = []
    make: Any = boto3.client

    def client(service: str, *arguments: Any, **options: Any) -> Any:
        if service != "secretsmanager":
            return make(service, *arguments, **options)
        session: Any = boto3.DEFAULT_SESSION
        made = session.client(service, *arguments, **options)  # a new one, which ends with the test
        for action in ("PutSecretValue", "CreateSecret"):
            made.meta.events.register(f"before-call.secrets-manager.{action}", count)
        return made

    def count(**_: Any) -> None:
        if len(done) == writes:
            raise KeyboardInterrupt
        done.append("written")

    with monkeypatch.context() as patched:
        patched.setattr(boto3, "client", client)
        assert cli(*change, input=TYPED).code != 0
    assert len(done) == writes
    found = parts("acme")
    says = {part for part in found if "has_webhook" in found[part]}
    assert not says or json.loads(found["webhook"])
    assert [part for part in found if part != "webhook" and WEBHOOK["secret"] in found[part]] == []
    assert "secrets" in cli("doctor", "acme").out
    assert cli(*change, input=TYPED).code == 0  # the same command goes on
    assert ("webhook" in stored("acme")) is not removes
    assert len({("has_webhook" in text) for part, text in parts("acme").items() if part != "webhook"}) == 1


def test_a_private_address_is_refused_for_a_stack_on_aws(
    cli: CommandLine, acme: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOCAL_HOSTS")
    added = cli("tenant", "add", "acme", "--file", str(acme))
    assert added.code == 2
    assert "illu.base_url: must be an https address" in added.err
    assert parts("acme") == {}
    result = cli("tenant", "set", "demo", "izzitup.base_url=https://169.254.169.254", "--yes")
    assert result.code == 2
    assert "must be a public address" in result.err


def test_what_is_no_longer_valid_can_be_corrected(
    cli: CommandLine, acme: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("tenant", "add", "acme", "--file", str(acme))
    monkeypatch.delenv("LOCAL_HOSTS")
    assert cli("tenant", "show", "acme").code != 0
    assert cli("tenant", "set", "acme", "illu.base_url=https://illu.example", "--yes").code == 0
    assert cli("tenant", "show", "acme").code == 0


# ---------------------------------------------------------------------- keys


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
    [["--scope", "everything"], ["--scope", "operations"], ["--expires", "soon"], ["--expires", "2020-01-01"]],
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
    result = cli("tenant", "remove", "demo", "--yes")
    assert result.code == 2
    assert "not finished" in result.err
    assert stored("demo")
    assert cli("tenant", "remove", "demo", "--yes", "--force").code == 0


def test_what_a_stack_lacks_is_named(cli: CommandLine) -> None:
    result = cli("tenant", "list", "--stack", "no-such")
    assert result.code == 3
    assert "no-such" in result.err
    assert cli("tenant", "list", "--local", "--port", "1").code == 3

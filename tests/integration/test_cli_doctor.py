"""The doctor finds what keeps a tenant's events from arriving, and changes nothing."""

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from crm_bridge.runtime import runtime
from local.vendors.simulator import Kind
from tests.integration.conftest import SITE, CommandLine, Crm
from tests.stack import Stack


@pytest.fixture
def stack() -> Iterator[Stack]:
    """Tables of moto, since these tests change and delete some."""
    with Stack(background=False, aws_over_http=False) as stack:
        yield stack


def results(cli: CommandLine, tenant: str = "demo") -> dict[str, str]:
    result = cli("doctor", tenant, "--json")
    found = {f"{one['about']} {one['check']}": one["result"] for one in result.json}
    assert result.code == ("failed" in found.values())
    return found


def test_all_is_well_with_the_demo_tenant(cli: CommandLine, stack: Stack) -> None:
    found = results(cli)
    assert set(found.values()) == {"ok", "not checked"}
    assert {check for check, result in found.items() if result == "not checked"} == {
        "Egito field map of members",
        "Egito field map of prospects",
    }
    everybody = (stack.illu, stack.revio, stack.izzitup, stack.egito)
    assert {seen.method for vendor in everybody for seen in vendor.seen if "/oauth/token" not in seen.path} == {"GET"}
    result = cli("doctor", "demo")
    assert result.code == 0
    assert "All is well." in result.out


def illu_has_another_key(stack: Stack) -> None:
    stack.illu.api_key = "another"


def revio_has_another_password(stack: Stack) -> None:
    stack.revio.account.password = "another"


def izzitup_is_down(stack: Stack) -> None:
    stack.izzitup.fail(Kind.ERROR_BEFORE, times=3, method="GET")


def egito_has_another_password(stack: Stack) -> None:
    stack.egito.users = dict.fromkeys(stack.egito.users, "another")


def the_key_is_revoked(_: Stack) -> None:
    for key in runtime().keys.of("demo"):
        runtime().keys.revoke(key)


def a_table_is_gone(_: Stack) -> None:
    delete_table("PeopleTable")


def the_operations_are_gone(_: Stack) -> None:
    delete_table("OperationsTable")


def delete_table(output: str) -> None:
    boto3.client("dynamodb").update_table(TableName=tables()[output], DeletionProtectionEnabled=False)
    boto3.client("dynamodb").delete_table(TableName=tables()[output])


def tables() -> dict[str, str]:
    (described,) = boto3.client("cloudformation").describe_stacks(StackName="crm-bridge-local")["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}


@pytest.mark.parametrize(
    ("happens", "check"),
    [
        (illu_has_another_key, "illu list of sites"),
        (revio_has_another_password, "Rev.io SystemStatus"),
        (izzitup_is_down, "IzzitUp services"),
        (egito_has_another_password, "Egito token"),
        (the_key_is_revoked, "demo API keys"),
        (a_table_is_gone, "bridge tables"),
        (the_operations_are_gone, "bridge tables"),
        (the_operations_are_gone, "bridge storage"),
    ],
)
def test_what_is_wrong_is_found(stack: Stack, cli: CommandLine, happens: Callable[[Stack], None], check: str) -> None:
    happens(stack)
    assert results(cli)[check] == "failed"


def test_what_waits_for_a_person_or_for_too_long_is_reported(crm: Crm, cli: CommandLine) -> None:
    crm.post("/sites", SITE, headers={"Prefer": "respond-async"})
    crm.stack.move_clock(-3600)
    assert crm.post("/sites", {**SITE, "customer_id": "C-2"}, headers={"Prefer": "respond-async"}).status_code == 202
    found = results(cli)
    assert found["bridge backlog"] == "warning"
    assert found["demo needs review"] == "ok"


def test_a_key_that_expires_soon_or_allows_nothing_is_reported(stack: Stack, cli: CommandLine) -> None:
    day, now = 86_400, int(time.time())
    for label, scopes, days in (
        ("late", {"create_site"}, 31),
        ("soon", {"create_site"}, 29),
        ("old", {"operations"}, 365),
        ("gone", {"create_site"}, -1),
    ):
        stack.add_key("demo", frozenset(scopes), label, expires_at=now + days * day)
    revoked = stack.add_key("demo", frozenset({"create_site"}), "revoked", expires_at=now + day)
    assert cli("tenant", "key", "revoke", "demo", revoked).code == 0
    first, *result = [one for one in cli("doctor", "demo", "--json").json if one["check"].startswith("API key")]
    assert (first["result"], first["detail"]) == ("ok", "4 valid, 1 of which never expires")
    names = {one["label"]: one["key"] for one in cli("tenant", "key", "list", "demo", "--json").json}
    assert {(one["result"], one["check"], one["detail"].partition(" expires on ")[0]) for one in result} == {
        ("warning", f"API key {names['soon']}", "soon"),
        ("warning", f"API key {names['old']}", "old has a scope that allows nothing: operations"),
    }
    assert all("rotate-keys" in one["what_to_do"] or "--scope" in one["what_to_do"] for one in result)


def test_a_clock_that_is_off_is_reported(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr("cli.doctor.time", SimpleNamespace(time=lambda: real() - 90))
    assert results(cli)["bridge clock"] == "warning"
    assert re.search(r"this machine is -(89|90|91) s off", cli("doctor", "demo").out)


def test_dead_letters_are_reported(cli: CommandLine) -> None:
    sqs = boto3.client("sqs")
    (url,) = (url for url in sqs.list_queues()["QueueUrls"] if "dead-letters" in url)
    sqs.send_message(QueueUrl=url, MessageBody="{}", MessageGroupId="any", MessageDeduplicationId="any")
    (found,) = (one for one in cli("doctor", "demo", "--json").json if one["check"] == "dead letters")
    assert (found["result"], found["detail"]) == ("warning", "1")  # one queue for all flows, counted once


def test_what_a_tenant_names_no_list_for_is_not_called_well(stack: Stack, cli: CommandLine) -> None:
    document = json.loads(stack.demo_tenant())
    illu = {name: value for name, value in document["illu"].items() if not name.endswith("_list_path")}
    stack.put_secret("plain", json.dumps({"illu": illu}))
    found = results(cli, "plain")
    assert found["illu list of sites"] == found["illu list of jobs"] == "not checked"
    assert found["plain API keys"] == "failed"


def test_a_field_map_is_compared_with_a_real_record(stack: Stack, cli: CommandLine) -> None:
    document = json.loads(stack.demo_tenant())
    document["egito"]["members"]["fields"] = {"firstname": "noSuchField"}
    stack.put_secret("demo", json.dumps(document))
    stack.egito.add("Contact", firstName="Ada", externalId="x", club="Centre")
    found = results(cli)
    assert found["Egito field map of members"] == "warning"
    assert "Ada" not in cli("doctor", "demo").out


@pytest.mark.parametrize(("records", "result"), [({"Contact": {}}, "not checked"), ({}, "failed")])
def test_a_connector_that_is_not_set_up_fails_only_when_egito_would_be_of_no_use(
    stack: Stack, cli: CommandLine, records: dict[str, object], result: str
) -> None:
    document = json.loads(stack.demo_tenant())
    del document["connector"]
    document["egito"]["records"] = records
    stack.put_secret("demo", json.dumps(document))
    found = results(cli)
    assert (found["Egito connector"], found["Egito token"]) == (result, "ok")
    assert ("failed" in found.values()) is (result == "failed")


def test_a_tenant_that_is_not_there_fails(cli: CommandLine) -> None:
    assert results(cli, "nobody")["nobody settings"] == "failed"


@pytest.mark.parametrize(
    ("host", "result"),
    [("127.0.0.1", "not checked"), ("private.example", "failed"), ("no-such-host.invalid", "failed")],
)
def test_a_webhooks_address_must_be_public(
    stack: Stack, cli: CommandLine, host: str, result: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def look_up(host: str, *arguments: Any, **options: Any) -> Any:
        return real("10.0.0.1" if host == "private.example" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    document = json.loads(stack.webhook_tenant())
    document["webhook"]["url"] = f"https://{host}/hook"
    stack.put_secret("demo-webhook", json.dumps(document))
    assert results(cli, "demo-webhook")["webhook address"] == result

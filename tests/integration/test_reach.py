"""How far a tenant's settings and a vendor's responses reach: to no machine of ours, and into nothing that is kept."""

import json
import socket
from collections.abc import Mapping
from contextlib import closing
from html import unescape
from typing import Any
from urllib.parse import unquote

import boto3
import pytest

from local.stack import LOCAL_HOSTS
from tests.cases import CASES
from tests.integration.conftest import Crm, change_settings
from tests.integration.sockets import Vendor, answers
from tests.integration.test_events import invoke
from tests.stack import Stack

EVENTS = [
    ("illu", "create_site/new"),
    ("illu", "create_job/with_site"),
    ("revio", "key_link/new"),
    ("revio", "key_link/systems"),
    ("izzitup", "status_update/by_key"),
    ("egito", "connector_receiver/prospect"),  # which asks for a token first
]
HOSTS = ["127.0.0.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "localhost", "localhost.", "vendor.example"]


def looked_up(monkeypatch: pytest.MonkeyPatch, **addresses: str) -> None:
    real = socket.getaddrinfo

    def look_up(host: str, *arguments: Any, **options: Any) -> Any:
        return real(addresses.get(host.replace(".", "_"), host), *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.parametrize("host", HOSTS)
def test_no_vendor_is_called_at_an_address_of_this_machine(
    stack: Stack, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up(monkeypatch, vendor_example="127.0.0.1")
    # The settings take it, as if it had been stored by other means. What is connected to is another question.
    monkeypatch.setenv("LOCAL_HOSTS", ",".join([*LOCAL_HOSTS, host.strip("[]"), "vendor.example"]))
    stack.open_hosts = frozenset()
    stack.move_clock(0)
    with closing(Vendor(answers(200))) as private:
        for scheme in ("https", "http"):
            address = {"base_url": f"{scheme}://{host}:{private.port}"}
            change_settings(stack, illu=address, revio=address, izzitup=address, egito=address, at_once=True)
            for vendor, event in EVENTS:
                answer: Any = invoke(stack, event)
                assert answer["statusCode"] >= 202, (vendor, event)
        assert private.connections == 0


def test_a_tenant_whose_address_is_not_public_is_not_configured_on_aws(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOCAL_HOSTS")
    for vendor, event in EVENTS:
        answer: Any = invoke(stack, event)
        assert answer["statusCode"] == 503, (vendor, event)
        assert "base_url" in answer["body"]
    assert not [vendor.name for vendor in stack.vendors if vendor.seen]


# ---------------------------------------------------------------------- what a vendor repeats


def secrets_of(stack: Stack) -> set[str]:
    document = json.loads(stack.demo_tenant())
    names = ("api_key", "api_secret", "password")
    found = {str(block[name]) for block in document.values() for name in names if name in block}
    kept: Any = boto3.resource("dynamodb").Table(str(stack.environment["TOKENS_TABLE"])).scan()["Items"]
    tokens = {str(value) for item in kept for name, value in item["content"].items() if name.endswith("_token")}
    assert len(found) == 5
    assert tokens
    return found | tokens


def tables(stack: Stack) -> Mapping[str, str]:
    names = {name: value for name, value in stack.environment.items() if name.endswith("_TABLE")}
    del names["TOKENS_TABLE"]
    return names


def test_no_secret_that_a_vendor_repeats_is_stored_or_returned(crm: Crm) -> None:
    stack = crm.stack
    for vendor in stack.vendors:
        vendor.repeats_requests = True
    repeated, done = [], 0
    for event, _, _ in CASES:
        answer: Any = invoke(stack, event)
        done += answer["statusCode"] < 300  # some vendors do not take back the member that they have added
        repeated.append(answer.get("body") or "")
    assert done > len(CASES) / 2
    dynamodb = boto3.resource("dynamodb")
    stored = [repr(dynamodb.Table(name).scan()["Items"]) for name in tables(stack).values()]
    for text in (*repeated, *stored):
        for written in (text, unquote(text), unescape(text), text.replace("\\", "")):
            assert [secret for secret in secrets_of(stack) if secret in written] == []


def test_a_record_is_written_back_as_it_was_although_it_repeats_a_secret(crm: Crm) -> None:
    stack = crm.stack
    made: Any = invoke(stack, "connector_receiver/prospect")
    assert made["statusCode"] == 201
    contact = stack.egito.records["Contact"][-1]
    contact["note"] = f"the key is {stack.egito.api_secret}"
    changed: Any = invoke(stack, "connector_receiver/prospect_change")
    assert changed["statusCode"] == 200
    assert stack.egito.records["Contact"][-1]["note"] == f"the key is {stack.egito.api_secret}"

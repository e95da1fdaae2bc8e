"""`crm-bridge show` finds what is known by any id, in all tenants that may be read."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cli import show
from cli.bridge import Bridge
from crm_bridge.storage.dynamodb import guarded
from crm_bridge.storage.links import Links
from crm_bridge.storage.operation import operation_id
from local.vendors.simulator import Kind
from tests.integration.conftest import SITE, CommandLine, Crm
from tests.integration.sources.conftest import Sender, company

SITE_ID = operation_id("demo", "create_site", str(SITE["customer_id"]))


def denied(operation: str) -> ClientError:
    return ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, operation)


@pytest.mark.parametrize("wanted", [SITE_ID, "C-1001", "4711", "crm/customer/C-1001", "ILLU/site/4711"])
def test_an_operation_is_shown_when_any_of_its_ids_is_given(crm: Crm, cli: CommandLine, wanted: str) -> None:
    crm.create_site()
    (found,) = cli("show", wanted, "--json").json["operations"]
    assert (found["operation_id"], found["tenant"], found["state"]) == (SITE_ID, "demo", "succeeded")
    shown = cli("show", wanted).out
    assert SITE_ID in shown
    assert "crm customer C-1001  =  illu site 4711" in shown
    assert SITE["address"] not in shown


def test_the_payload_is_shown_when_it_is_asked_for(crm: Crm, cli: CommandLine) -> None:
    crm.stack.illu.fail(Kind.MOVED)
    crm.create_site()
    assert "Moi Ave" not in cli("show", "C-1001").out
    assert "Moi Ave" in cli("show", "C-1001", "--payload").out
    assert cli("show", "C-1001", "--payload", "--json").json["operations"][0]["payload"]["address"] == SITE["address"]


def test_a_request_is_shown_when_an_id_of_it_is_given(crm: Crm, cli: CommandLine) -> None:
    Sender(crm).send({**company(2), "lat": None})
    (listed,) = cli("requests", "demo", "--json").json
    refused = crm.post("/sites", {"customer_id": "C-7"})
    by_header = refused.headers["X-Request-Id"]
    for wanted, state in ((listed["id"], "quarantined"), ("C-2", "quarantined"), (by_header, "refused")):
        (found,) = cli("show", wanted, "--json").json["requests"]
        assert (found["tenant"], found["state"]) == ("demo", state)
        assert found["id"] in cli("show", wanted).out
    assert f"crm-bridge requests demo {listed['id']} resend" in cli("show", "C-2").out


def test_all_are_listed_when_an_id_is_known_by_several_tenants(crm: Crm, cli: CommandLine) -> None:
    crm.create_site()
    crm.with_key("create_site", tenant="demo-webhook").create_site()
    other = operation_id("demo-webhook", "create_site", "C-1001")
    listed = cli("show", "C-1001").out
    assert all(text in listed for text in (SITE_ID, other, "demo-webhook"))  # no id is folded
    (found,) = cli("show", "C-1001", "--tenant", "demo-webhook", "--json").json["operations"]
    assert found["operation_id"] == other


@pytest.mark.parametrize(
    "arguments",
    [
        *(["C-404"], ["C-404", "--tenant", "demo"], ["op_" + "0" * 32], [SITE_ID, "--tenant", "demo-upya"]),
        *([one] for one in ("//", "crm/customer/ ", "#", " ", "x" * 1001, "😀" * 999)),
    ],
)
def test_nothing_is_shown_when_nothing_is_known_by_the_id(crm: Crm, cli: CommandLine, arguments: list[str]) -> None:
    crm.create_site()
    shown = cli("show", *arguments)
    assert (shown.code, shown.out) == (2, "")
    assert shown.err.count("\n") <= 2


def test_a_tenant_is_asked_for_when_they_may_not_be_listed(
    crm: Crm, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    crm.create_site()

    def refuse(_: Bridge) -> list[str]:
        raise denied("ListSecrets")

    monkeypatch.setattr(Bridge, "tenants", refuse)
    refused = cli("show", "C-1001")
    assert (refused.code, refused.err) == (2, "AWS does not let you list the tenants. Name one with --tenant.\n")
    assert cli("show", SITE_ID).code == 0
    assert cli("show", "C-1001", "--tenant", "demo").code == 0


def test_a_tenant_is_asked_for_when_there_are_too_many(
    crm: Crm, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    crm.create_site()
    monkeypatch.setattr(show, "MOST_TENANTS", 2)
    refused = cli("show", "C-1001", "--json")
    assert refused.code == 2
    assert json.loads(refused.err)["error"] == "There are 3 tenants. Name one with --tenant."


def test_the_others_are_searched_when_one_tenant_may_not_be_read(
    crm: Crm, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    crm.create_site()
    of = Links.of

    def only_demo(self: Links, tenant: str, *arguments: Any) -> Any:
        if tenant != "demo":
            with guarded():
                raise denied("Query")
        return of(self, tenant, *arguments)

    monkeypatch.setattr(Links, "of", only_demo)
    shown = cli("show", "C-1001")
    assert (shown.code, SITE_ID in shown.out) == (0, True)
    assert shown.err == "AWS does not let you read demo-upya, demo-webhook.\n"

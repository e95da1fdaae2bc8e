"""Events that came again with a different payload that was not applied: the caller's response, and the list."""

import itertools
from typing import Any

import pytest

from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import operation_id
from tests.integration.conftest import SITE, CommandLine, Crm
from tests.integration.operations.conftest import FIRST, found, ids, listed, pages, store
from tests.integration.sources.conftest import Sender, company, counts

WHY = "illu documents no call that changes a site. Change the site at illu."


def moved(crm: Crm, customer: str, address: str = "Moi Ave 13") -> dict[str, Any]:
    answer = crm.create_site(customer_id=customer, address=address)
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    return body


def test_the_caller_reads_that_it_is_not_applied_and_what_to_do(crm: Crm) -> None:
    made = crm.create_site().json()
    response = moved(crm, str(SITE["customer_id"]))
    assert {name: response[name] for name in response.keys() - {"warnings"}} == {
        "site_id": made["site_id"],
        "customer_id": made["customer_id"],
        "operation_id": made["operation_id"],
        "changed": True,
        "applied": False,
        "not_applied": WHY,
    }
    assert [site["address"] for site in crm.stack.illu.sites] == [SITE["address"]]


def test_it_is_listed_afterwards_and_never_its_payload(crm: Crm) -> None:
    for customer in ("C-1", "C-2", "C-3"):
        crm.create_site(customer_id=customer)
    assert ids(listed(crm, changed="true")) == []
    crm.stack.move_clock(60)
    moved(crm, "C-1")
    crm.stack.move_clock(60)
    moved(crm, "C-3")
    moved(crm, "C-3")
    answer = listed(crm, changed="true")
    shown = answer.json()["operations"]
    assert [(one["event_key"], one["changed"]["times"]) for one in shown] == [("C-3", 1), ("C-1", 1)]
    assert "Moi Ave" not in answer.text
    one = crm.get(f"/operations/{shown[0]['operation_id']}").json()
    assert one["changed"] == shown[0]["changed"]
    assert "fingerprint" not in str(one)


def test_the_list_can_be_narrowed_and_an_id_found_in_it(crm: Crm) -> None:
    for customer in ("C-1", "C-2"):
        crm.create_site(customer_id=customer)
    moved(crm, "C-1")
    assert len(ids(listed(crm, changed="true", flow="create_site"))) == 1
    for other in ({"flow": "create_job"}, {"state": "waiting"}, {"since": "2100-01-01T00:00:00Z"}, {"id": "C-2"}):
        assert ids(listed(crm, changed="true", **other)) == [], other
    assert ids(listed(crm, changed="true", id="C-1")) == [operation_id("demo", "create_site", "C-1")]
    assert found(crm, "C-2") == ["C-2"]


def test_the_pages_give_every_one_once_and_in_order_also_of_one_second(crm: Crm) -> None:
    made = []
    for number in range(12):
        made.append(store(str(number), flow=("create_site", "create_job")[number % 2]))
        operation = runtime().operations.get(made[-1])
        assert operation
        runtime().operations.note_changed(operation, "f" * 64, FIRST + number // 4, listed_until=2**40)
    for limit in (1, 2, 5, 100):
        whole = list(itertools.chain(*pages(crm, limit=limit, changed="true")))
        assert [made.index(one) // 4 for one in whole] == [2] * 4 + [1] * 4 + [0] * 4
        assert sorted(whole) == sorted(made)
        sites = list(itertools.chain(*pages(crm, limit=limit, changed="true", flow="create_site")))
        assert sorted(sites) == sorted(made[::2])


def test_a_place_of_the_other_list_is_422(crm: Crm) -> None:
    operation = operation_id("demo", "create_site", "C-1")
    for query in ({"changed": "true", "after": f"succeeded.{FIRST}.{operation}"}, {"after": f"changed.1.{operation}"}):
        answer = listed(crm, **query)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "after")


def test_nobody_sees_another_tenant_s(crm: Crm, umbrella: Crm) -> None:
    crm.create_site(customer_id="C-1")
    moved(crm, "C-1")
    assert ids(listed(umbrella, changed="true")) == []


@pytest.mark.parametrize("is_settled", [True, False])
def test_an_event_of_a_source_whose_sender_reads_no_response_is_listed(sender: Sender, is_settled: bool) -> None:
    assert counts(sender.send(company(1), company(2))) == (2, 0, 0, 0)
    if is_settled:
        sender.crm.stack.deliver()
    assert counts(sender.send(company(1, address="Moi Ave 13"), company(2))) == (0, 2, 0, 0)
    if not is_settled:
        sender.crm.stack.deliver()
    (one,) = listed(sender.crm, changed="true").json()["operations"]
    assert (one["event_key"], one["state"], one["changed"]["times"]) == ("C-1", "succeeded", 1)
    assert [site["address"] for site in sender.sites] == ["Moi Ave 12", "Moi Ave 12"]


def test_the_command_line_lists_it_and_says_what_to_do(crm: Crm, cli: CommandLine) -> None:
    for customer in ("C-1", "C-2"):
        crm.create_site(customer_id=customer)
    assert "No operations found." in cli("operations", "list", "demo", "--changed").out
    moved(crm, "C-1")
    (one,) = cli("operations", "list", "demo", "--changed", "--json").json
    assert (one["event_key"], one["changed"]["times"]) == ("C-1", 1)
    assert cli("operations", "list", "demo", "--changed", "--flow", "create_job", "--json").json == []
    assert cli("operations", "list", "demo", "--changed", "--state", "waiting", "--json").json == []
    assert "C-1" in cli("operations", "list", "demo", "--changed").out
    shown = " ".join(cli("operations", "show", "demo", "C-1").out.split())
    assert "a different payload came" in shown
    assert WHY in shown
    assert "not applied" not in cli("operations", "show", "demo", "C-2").out

"""A person links the vendor's record, which is verified where the vendor can be asked; and undoes a wrong link."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import requests

from crm_bridge.engine import KEEP
from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import operation_id
from local.vendors.simulator import Kind
from tests.integration.conftest import SITE, CommandLine, Crm, change_settings, without_site_list
from tests.integration.connector.conftest import WITHOUT_REFERENCE, change_tenant, save, the_record
from tests.integration.connector.conftest import in_review as reviewed_record
from tests.integration.operations.conftest import COMMANDS, FLOWS, JOB, store
from tests.integration.operations.test_decisions import in_review, made_by_hand

SITE_ID = operation_id("demo", "create_site", str(SITE["customer_id"]))
PLACE = {name: SITE[name] for name in ("name", "latitude", "longitude", "address")}


def resolve(crm: Crm, operation: str, **decision: object) -> requests.Response:
    return crm.post(f"/operations/{operation}/resolve", decision)


def link_existing(crm: Crm, operation: str, number: object = 4712, **more: object) -> requests.Response:
    return resolve(crm, operation, action="link", id=str(number), **more)


def linked_site(crm: Crm) -> str:
    """An operation whose site, made by hand, a person has linked."""
    operation = in_review("create_site")
    made_by_hand(crm, "create_site")
    assert link_existing(crm, operation).json()["state"] == "succeeded"
    return operation


def is_untouched(crm: Crm, operation: str) -> bool:
    shown = crm.get(f"/operations/{operation}").json()
    return (shown["state"], shown["links"], len(shown["attempts"])) == ("needs_review", [], 2)


def fields(answer: requests.Response) -> list[str]:
    return [error["field"] for error in answer.json().get("errors", [])]


# ---------------------------------------------------------------- the vendor says that it is another one


def elsewhere(crm: Crm) -> None:
    crm.stack.illu.sites[-1]["latitude"] = 1.1


def at_another_site(crm: Crm) -> None:
    crm.stack.illu.jobs[-1]["site_id"] = 4999


def of_another(member: str, value: object) -> Callable[[Crm], None]:
    return lambda crm: crm.stack.revio.account.key_links[-1].update({member: value})


WRONG: dict[str, tuple[str, Callable[[Crm], None]]] = {
    "a site at another position": ("create_site", elsewhere),
    "a job at another site": ("create_job", at_another_site),
    "a key link of another internal id": ("create_key_link", of_another("internal_id", 1016)),
    "a key link of another system": ("create_key_link", of_another("integration_system_id", 7)),
    "a key link of another entity type": ("create_key_link", of_another("integration_entity_type_id", 1)),
}


@pytest.mark.parametrize("wrong", list(WRONG))
def test_is_422_and_stays_in_review_when_the_id_is_anothers(crm: Crm, wrong: str) -> None:
    flow, change = WRONG[wrong]
    operation = in_review(flow)
    made_by_hand(crm, flow)
    change(crm)
    for more in ({}, {"confirmed": True}):
        answer = link_existing(crm, operation, **more)
        assert (answer.status_code, fields(answer)) == (422, ["id"])
    assert is_untouched(crm, operation)


@pytest.mark.parametrize("flow", ["create_site", "create_job", "create_key_link"])
def test_is_422_when_the_vendor_has_no_such_record(crm: Crm, flow: str) -> None:
    paths = {"site_list_path": "/orgs/{org_id}/sites", "job_list_path": "/orgs/{org_id}/jobs"}
    change_settings(crm.stack, illu=paths, at_once=True)
    operation = in_review(flow)
    for more in ({}, {"confirmed": True}):
        answer = link_existing(crm, operation, 999999, **more)
        assert (answer.status_code, fields(answer)) == (422, ["id"])
    assert is_untouched(crm, operation)


# ---------------------------------------------------------------- only a person can say


def another_name(crm: Crm) -> None:
    crm.stack.illu.sites[-1]["name"] = "Shop 12"


def other_notes(crm: Crm) -> None:
    crm.stack.illu.jobs[-1]["notes"] = None


ALTERED: dict[str, tuple[str, Callable[[Crm], None]]] = {
    "a site's name": ("create_site", another_name),
    "a job's notes": ("create_job", other_notes),
    "an external id": ("create_key_link", of_another("external_id", "001XX00")),
}


@pytest.mark.parametrize("altered", list(ALTERED))
def test_is_linked_after_a_confirmation_when_the_vendor_may_have_altered_it(crm: Crm, altered: str) -> None:
    flow, change = ALTERED[altered]
    operation = in_review(flow)
    made_by_hand(crm, flow)
    change(crm)
    for more in ({}, {"confirmed": False}):
        answer = link_existing(crm, operation, **more)
        assert (answer.status_code, fields(answer)) == (422, ["confirmed"])
        assert answer.json()["type"] == "urn:crm-bridge:problem:invalid"
    assert is_untouched(crm, operation)
    assert link_existing(crm, operation, confirmed=True).json()["state"] == "succeeded"


@pytest.mark.parametrize(
    "settings",
    [
        {"site_list_path": None, "job_list_path": None},
        {"site_list_path": "/orgs/{org_id}/sites?name={name}", "job_list_path": "/orgs/{org_id}/jobs?name={name}"},
        {"site_list_path": "/orgs/{org_id}/none", "job_list_path": "/orgs/{org_id}/none"},
    ],
    ids=["no list", "a list by name", "a list that is refused"],
)
@pytest.mark.parametrize("flow", ["create_site", "create_job"])
def test_is_linked_after_a_confirmation_when_illu_cannot_be_asked(
    crm: Crm, flow: str, settings: dict[str, object]
) -> None:
    change_settings(crm.stack, illu=settings, at_once=True)
    operation = in_review(flow)
    answer = link_existing(crm, operation)
    assert (answer.status_code, fields(answer)) == (422, ["confirmed"])
    for odd in ("not-a-job", "0", "4712.0", "site 4712"):
        answer = link_existing(crm, operation, odd, confirmed=True)
        assert (answer.status_code, fields(answer)) == (422, ["id"]), odd
    assert is_untouched(crm, operation)
    assert link_existing(crm, operation, confirmed=True).json()["state"] == "succeeded"


def test_a_record_that_a_list_by_name_shows_needs_no_confirmation(crm: Crm) -> None:
    change_settings(crm.stack, illu={"site_list_path": "/orgs/{org_id}/sites?name={name}"}, at_once=True)
    operation = in_review("create_site")
    made_by_hand(crm, "create_site")
    assert link_existing(crm, operation).json()["state"] == "succeeded"


def test_an_id_of_a_job_that_is_no_number_is_taken_when_illus_list_has_it(crm: Crm) -> None:
    operation = in_review("create_job")
    made_by_hand(crm, "create_job")["job_id"] = "J-17"
    assert link_existing(crm, operation, "J-17").json()["result"]["job_id"] == "J-17"


def test_the_id_as_illus_list_writes_it_counts_and_not_another_one(crm: Crm) -> None:
    operation = in_review("create_job")
    made_by_hand(crm, "create_job")
    for odd in ("04712", "4712.0", "+4712", "4 712"):
        assert link_existing(crm, operation, odd, confirmed=True).status_code == 422, odd
    assert link_existing(crm, operation, " 4712 ").json()["result"]["job_id"] == "4712"


# ---------------------------------------------------------------- a person's record at Egito


def test_a_record_that_carries_the_persons_id_is_linked(crm: Crm) -> None:
    egito = crm.stack.egito
    change_tenant(crm.stack, lists_everything=False)
    egito.fail(Kind.CLOSE_BEFORE)
    person = save(crm).json()["recordID"]
    operation = reviewed_record(crm)
    (mine, other, none) = (
        egito.add("Contact", lastName="Nowak", externalId=reference) for reference in (person, "p_other", "")
    )
    refused = link_existing(crm, operation, other["id"], confirmed=True)
    assert (refused.status_code, fields(refused)) == (422, ["id"])
    assert fields(link_existing(crm, operation, none["id"])) == ["confirmed"]
    assert fields(link_existing(crm, operation, 99999, confirmed=True)) == ["id"]
    assert link_existing(crm, operation, mine["id"]).json()["state"] == "succeeded"


def test_a_record_that_carries_the_persons_id_cut_off_needs_a_confirmation(crm: Crm) -> None:
    egito = crm.stack.egito
    change_tenant(crm.stack, lists_everything=False)
    egito.fail(Kind.CLOSE_BEFORE)
    person = save(crm).json()["recordID"]
    operation = reviewed_record(crm)
    cut = egito.add("Contact", lastName="Nowak", externalId=person[:10].upper())
    assert fields(link_existing(crm, operation, cut["id"])) == ["confirmed"]
    assert link_existing(crm, operation, cut["id"], confirmed=True).json()["state"] == "succeeded"


def test_a_record_without_a_reference_is_linked_after_a_confirmation_if_it_is_there(crm: Crm) -> None:
    egito = crm.stack.egito
    change_tenant(crm.stack, **WITHOUT_REFERENCE)
    egito.fail(Kind.CLOSE_AFTER)
    save(crm)
    operation = reviewed_record(crm)
    assert fields(link_existing(crm, operation, the_record(egito)["id"])) == ["confirmed"]
    assert fields(link_existing(crm, operation, 99999, confirmed=True)) == ["id"]
    assert link_existing(crm, operation, the_record(egito)["id"], confirmed=True).json()["state"] == "succeeded"


# ---------------------------------------------------------------- the vendor does not answer


def test_is_503_with_retry_after_and_nothing_is_changed_when_the_vendor_is_down(crm: Crm) -> None:
    for flow, vendor in (("create_site", "illu"), ("create_job", "illu"), ("create_key_link", "revio")):
        operation = in_review(flow)
        simulator = getattr(crm.stack, vendor)
        for kind in (Kind.UNAVAILABLE, Kind.CLOSE_BEFORE, Kind.CLOSE_AFTER, Kind.TOO_MANY):
            simulator.fail(kind, method="GET")
            answer = link_existing(crm, operation, confirmed=True)
            assert (answer.status_code, answer.json()["retryable"]) == (503, True), (flow, kind)
            assert int(answer.headers["Retry-After"]) >= 30
            simulator.heal()
        assert is_untouched(crm, operation)


def test_is_503_when_the_tenant_no_longer_uses_the_vendor(crm: Crm) -> None:
    operation = in_review("create_site")
    crm.stack.put_secret("demo", "{}")
    runtime().engine.tenants.get("demo", "create_site", fresh=True)
    answer = link_existing(crm, operation, confirmed=True)
    assert (answer.status_code, "illu block" in answer.json()["detail"]) == (503, True)
    assert is_untouched(crm, operation)


def test_a_key_that_was_changed_is_read_again(crm: Crm) -> None:
    operation = in_review("create_site")
    made_by_hand(crm, "create_site")
    assert crm.create_site(customer_id="reads the secret").status_code == 201
    crm.stack.illu.api_key = "illu-key-2"
    crm.stack.put_secret("demo", crm.stack.demo_tenant())
    assert link_existing(crm, operation).json()["state"] == "succeeded"


# ---------------------------------------------------------------- unlink


@pytest.mark.parametrize("flow", ["create_site", "create_job", "create_key_link"])
def test_a_wrong_link_is_undone_with_a_trace_and_the_right_one_made(crm: Crm, flow: str) -> None:
    operation = in_review(flow)
    made_by_hand(crm, flow, 4712)
    linked = link_existing(crm, operation).json()
    unlinked = resolve(crm, operation, action="unlink")
    assert unlinked.status_code == 200
    shown = unlinked.json()
    assert (shown["state"], shown["links"], shown["result"], shown["due_at"]) == ("needs_review", [], None, None)
    trace = shown["last_attempt"]
    assert (trace["event"], trace["reason"].split(";")[0]) == ("unlinked", "by demo")
    assert "4712" in trace["reason"]
    assert [one["event"] for one in shown["attempts"][-2:]] == ["linked", "unlinked"]
    for left, right in linked["links"]:
        for end in (left, right):
            path = f"/links/{end['system']}/{end['entity']}/{end['id']}"
            assert crm.get(path).status_code == 404, path
    made_by_hand(crm, flow, 4713)
    again = link_existing(crm, operation, 4713).json()
    assert (again["state"], len(again["links"])) == ("succeeded", len(linked["links"]))


@pytest.mark.parametrize("flow", ["create_site", "create_job", "create_key_link"])
def test_what_was_unlinked_is_sent_when_a_person_says_so(crm: Crm, flow: str) -> None:
    if flow == "create_job":
        crm.stack.illu.add_site(**PLACE)
    operation = in_review(flow)
    made_by_hand(crm, flow, 4712)
    link_existing(crm, operation)
    resolve(crm, operation, action="unlink")
    crm.stack.revio.account.key_links.clear()
    assert resolve(crm, operation, action="retry").json()["state"] == "waiting"
    crm.stack.deliver_due()
    assert crm.get(f"/operations/{operation}").json()["last_attempt"]["event"] == "done"


def test_what_was_found_by_itself_is_unlinked_too(crm: Crm) -> None:
    crm.stack.illu.fail(Kind.CLOSE_AFTER)
    found = crm.settle(crm.create_site())
    assert found["last_attempt"]["event"] == "found"
    assert resolve(crm, SITE_ID, action="unlink").json()["state"] == "needs_review"
    assert crm.get("/links/crm/customer/C-1001").status_code == 404
    repeated = crm.create_site()
    assert (repeated.status_code, repeated.json()["state"]) == (202, "needs_review")
    assert len(crm.stack.illu.sites) == 1


def test_what_used_the_link_stays_as_it_is(crm: Crm) -> None:
    crm.stack.illu.fail(Kind.CLOSE_AFTER)
    crm.settle(crm.create_site())
    job = crm.post("/jobs", {"ticket_id": "T-1", "name": "Meter", "customer_id": SITE["customer_id"]}).json()
    resolve(crm, SITE_ID, action="unlink")
    stays = crm.get(f"/operations/{job['operation_id']}").json()
    assert (stays["state"], stays["result"]["site_id"]) == ("succeeded", 4711)
    (link,) = crm.get("/links/illu/site/4711").json()["links"]
    assert (link["entity"], link["operation_id"]) == ("job", job["operation_id"])
    waits = crm.post("/jobs", {"ticket_id": "T-2", "name": "Meter", "customer_id": SITE["customer_id"]})
    assert (waits.status_code, "not there yet (needs_review)" in waits.json()["reason"]) == (202, True)


def test_what_the_bridge_made_itself_is_not_unlinked(crm: Crm) -> None:
    made = crm.create_site().json()
    answer = resolve(crm, made["operation_id"], action="unlink")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:crm-bridge:problem:conflict")
    assert crm.get("/links/crm/customer/C-1001").status_code == 200


def test_what_the_crm_sent_is_kept_for_the_decision_that_follows_and_expires(crm: Crm) -> None:
    operation = linked_site(crm)
    table = runtime().operations
    key = {"operation_id": {"S": f"{operation}#payload"}}
    item = table._client.get_item(TableName=table._table, Key=key)["Item"]
    assert json.loads(item["payload"]["S"]) == COMMANDS["create_site"]
    assert abs(int(item["expires_at"]["N"]) - runtime().clock() - KEEP) < 60
    table._client.delete_item(TableName=table._table, Key=key)  # as DynamoDB does when it has expired
    resolve(crm, operation, action="unlink")
    for decision in ({"action": "retry"}, {"action": "link", "id": "4712"}):
        answer = resolve(crm, operation, **decision)
        assert (answer.status_code, "no longer kept" in answer.json()["detail"]) == (409, True)
    assert resolve(crm, operation, action="discard").json()["state"] == "rejected"
    again = crm.create_site()
    assert again.status_code == 201


def test_no_list_and_no_id_shows_what_is_kept(crm: Crm) -> None:
    operation = linked_site(crm)
    assert [one["operation_id"] for one in crm.get("/operations").json()["operations"]] == [operation]
    assert crm.get(f"/operations/{operation}%23payload").status_code == 404
    assert crm.get(f"/operations?id={operation}%23payload").json()["operations"] == []


@pytest.mark.parametrize("flow", [flow for flow in FLOWS if flow != "status_update"])
def test_the_link_of_one_customer_is_free_for_another_after_unlinking(crm: Crm, flow: str) -> None:
    operation = in_review(flow)
    made_by_hand(crm, flow)
    link_existing(crm, operation)
    payload: dict[str, Any] = {
        "create_site": {**SITE, "customer_id": "C-other"},
        "create_job": {**JOB, "ticket_id": "T-other"},
        "create_key_link": {"link": {**COMMANDS["create_key_link"]["link"], "external_id": "another"}},
    }[flow]
    other = store("other", flow=flow, payload=payload, at=int(runtime().clock()))
    if flow != "create_key_link":  # of which a record may have several
        assert link_existing(crm, other, confirmed=True).status_code == 409
    resolve(crm, operation, action="unlink")
    assert link_existing(crm, other, confirmed=True).json()["state"] == "succeeded"


# ---------------------------------------------------------------- the command line


def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.prompts.sys", type("Sys", (), {"stdin": type("In", (), {"isatty": lambda _: True})()}))


def test_the_command_line_needs_no_second_id_when_the_vendor_verifies_it(crm: Crm, cli: CommandLine) -> None:
    operation = in_review("create_site")
    made_by_hand(crm, "create_site")
    said = cli("operations", "resolve", operation, "link", "--id", "4712", "--yes")
    assert (said.code, "its state is succeeded" in said.out) == (0, True)


@pytest.mark.parametrize(("typed", "code"), [("4712\n", 0), ("4713\n", 2), ("\n\n", 2)])
def test_the_command_line_asks_for_the_id_a_second_time_when_it_cannot_be_verified(
    crm: Crm, cli: CommandLine, monkeypatch: pytest.MonkeyPatch, typed: str, code: int
) -> None:
    without_site_list(crm.stack)
    operation = in_review("create_site")
    terminal(monkeypatch)
    said = cli("operations", "resolve", operation, "link", "--id", "4712", "--yes", input=typed)
    assert ("Cannot verify the id" in said.err, said.code) == (True, code)
    assert crm.get(f"/operations/{operation}").json()["state"] == ("needs_review" if code else "succeeded")


def test_a_script_says_that_the_id_is_confirmed(crm: Crm, cli: CommandLine) -> None:
    without_site_list(crm.stack)
    operation = in_review("create_site")
    linking = ("operations", "resolve", operation, "link", "--id", "4712", "--yes")
    said = cli(*linking)
    assert (said.code, "--confirmed" in said.err) == (2, True)
    assert is_untouched(crm, operation)
    assert cli(*linking, "--confirmed").code == 0


def test_the_command_line_undoes_a_link(crm: Crm, cli: CommandLine) -> None:
    operation = linked_site(crm)
    assert f"operations resolve {operation} unlink" in cli("operations", "show", "demo", operation).out
    dry = cli("operations", "resolve", operation, "unlink", "--dry-run")
    assert "stays, and so does a record that was made by the link" in dry.out
    assert cli("operations", "resolve", operation, "unlink", "--yes", "--json").json["state"] == "needs_review"
    assert cli("operations", "resolve", operation, "unlink", "--yes").code == 2
    assert cli("operations", "resolve", operation, "retry", "--confirmed", "--yes").code == 2


def test_what_is_imported_can_be_unlinked_and_then_only_given_up(crm: Crm, cli: CommandLine, tmp_path: Any) -> None:
    file = tmp_path / "links.csv"
    file.write_text("system,entity,id,partner_system,partner_entity,partner_id\ncrm,customer,C-1001,illu,site,4999\n")
    assert cli("links", "import", "demo", str(file), "--yes").code == 0
    assert cli("operations", "resolve", SITE_ID, "unlink", "--yes").code == 0
    said = cli("operations", "resolve", SITE_ID, "retry", "--yes")
    assert (said.code, "no longer kept" in said.err) == (2, True)
    assert cli("operations", "resolve", SITE_ID, "discard", "--yes").code == 0
    assert crm.create_site().json()["site_id"] == 4711

"""The requests and responses of an attempt: what of them is stored, who may see it, and for how long."""

import json
import os
from typing import Any

import pytest

from crm_bridge.outbound.response import LARGEST_BODY
from crm_bridge.runtime import runtime
from crm_bridge.storage.exchanges import MOST_EXCHANGES
from local.vendors.simulator import Kind
from tests.integration.conftest import SITE, CommandLine, Crm, change_settings, without_site_list
from tests.integration.operations.conftest import JOB, STATUS, resolve

DAY = 24 * 3600


def shown(crm: Crm, operation: str) -> list[dict[str, Any]]:
    answer = crm.get(f"/operations/{operation}")
    assert answer.status_code == 200
    found: list[dict[str, Any]] = answer.json()["exchanges"]
    return found


def failed(crm: Crm, kind: Kind = Kind.ERROR_BEFORE, **changes: object) -> str:
    crm.stack.illu.fail(kind)
    return str(crm.create_site(**changes).json()["operation_id"])


def support(crm: Crm) -> Crm:
    return crm.with_key("operations:read", "operations:resolve", "operations:payload")


def keep_exchanges(crm: Crm, days: int) -> None:
    change_settings(crm.stack, keep_exchanges_days=days)


def items(crm: Crm) -> list[dict[str, Any]]:
    stored: list[dict[str, Any]] = json.loads(crm.stored())[os.environ["OPERATIONS_TABLE"]]
    return [item for item in stored if "#" in item["operation_id"]["S"]]


def test_a_failed_attempt_shows_its_call_and_the_bodies_only_with_the_scope(crm: Crm) -> None:
    operation = failed(crm)
    (exchange,) = shown(crm, operation)
    (call,) = exchange["calls"]
    assert (call["method"], call["path"], call["status"], call["error"]) == ("POST", "/orgs/88/sites", 500, None)
    assert call["milliseconds"] >= 0
    assert (exchange["event"], exchange["left_out"]) == ("maybe done", 0)
    assert exchange["at"] == crm.get(f"/operations/{operation}").json()["attempts"][-1]["at"]
    assert exchange.keys() == {"at", "event", "calls", "left_out"}
    (whole,) = shown(support(crm), operation)
    assert json.loads(whole["request"])["name"] == SITE["name"]
    assert whole["response"]


def test_a_lost_response_shows_the_kind_of_error(crm: Crm) -> None:
    (exchange,) = shown(support(crm), failed(crm, Kind.CLOSE_AFTER))
    (call,) = exchange["calls"]
    assert (call["status"], call["error"]) == (None, "ConnectionError")
    assert (exchange["response"], SITE["name"] in exchange["request"]) == (None, True)


def test_the_look_up_of_an_attempt_is_among_its_calls_and_the_latest_comes_first(crm: Crm) -> None:
    operation = failed(crm)
    crm.stack.illu.fail(Kind.ERROR_BEFORE, method="GET")
    crm.stack.deliver_due(after=600)
    latest, first = shown(crm, operation)
    assert [call["method"] for call in latest["calls"]] == ["GET"]
    assert "?" not in latest["calls"][0]["path"]
    assert [call["method"] for call in first["calls"]] == ["POST"]
    assert latest["event"] == "look failed"


def test_a_success_stores_nothing_by_default(crm: Crm) -> None:
    operation = crm.create_site().json()["operation_id"]
    assert shown(crm, operation) == []
    assert items(crm) == []


def test_a_success_stores_its_calls_without_bodies_for_the_days_that_the_tenant_says(crm: Crm) -> None:
    keep_exchanges(crm, 7)
    operation = crm.create_site().json()["operation_id"]
    (exchange,) = shown(support(crm), operation)
    assert [call["status"] for call in exchange["calls"]] == [201]
    assert (exchange["event"], exchange["request"], exchange["response"]) == ("done", None, None)
    (item,) = items(crm)
    assert int(item["expires_at"]["N"]) == pytest.approx(runtime().clock() + 7 * DAY, abs=60)
    crm.stack.move_clock(7 * DAY + 1)  # DynamoDB deletes an item some time after it has expired
    assert shown(crm, operation) == []


@pytest.mark.parametrize(("days", "kept"), [(0, 30), (7, 30), (60, 60)])
def test_failed_attempts_are_stored_for_thirty_days_at_least(crm: Crm, days: int, kept: int) -> None:
    keep_exchanges(crm, days)
    failed(crm)
    (item,) = items(crm)
    assert int(item["expires_at"]["N"]) == pytest.approx(runtime().clock() + kept * DAY, abs=60)
    assert item["tenant"] == {"S": "demo"}  # by which a purge finds it


def test_the_calls_of_failed_attempts_outlive_the_success(crm: Crm) -> None:
    crm.stack.illu.fail(Kind.UNAVAILABLE)
    accepted = crm.create_site()
    assert crm.settle(accepted)["state"] == "succeeded"
    assert [one["event"] for one in shown(crm, accepted.json()["operation_id"])] == ["not done"]


def test_only_the_latest_ten_attempts_are_stored(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crm.stack.illu, "longest_name", 5)
    for _ in range(MOST_EXCHANGES + 2):
        crm.stack.move_clock(60)
        operation = crm.create_site().json()["operation_id"]
    attempts = crm.get(f"/operations/{operation}").json()["attempts"]
    assert len(attempts) == MOST_EXCHANGES + 2
    assert [one["at"] for one in shown(crm, operation)] == [one["at"] for one in attempts[:1:-1]]


def test_no_secret_is_stored_with_a_response_that_repeats_it_and_a_long_one_is_cut(
    crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = json.loads(crm.stack.demo_tenant())["illu"]["api_key"]
    escaped = "".join(f"\\u{ord(one):04x}" if one == "-" else one for one in key)
    answer = f"key {key} or {escaped} of this request; " + "x" * 10_000
    monkeypatch.setattr("crm_bridge.outbound.response.VendorResponse.readable_text", lambda _: answer)
    operation = failed(crm)
    assert key not in crm.stored()
    assert escaped not in crm.stored()
    (exchange,) = shown(support(crm), operation)
    assert exchange["response"].startswith("key *** or *** of this request; xxx")
    assert len(exchange["response"]) == LARGEST_BODY


def test_nothing_of_izzitups_bodies_is_stored_because_they_repeat_the_password(crm: Crm) -> None:
    crm.stack.izzitup.fail(Kind.ERROR_BEFORE)
    answer = crm.put("/services/MAIL/status", {"status": "outage", "occurred_at": STATUS["occurred_at"]})
    (exchange,) = shown(support(crm), answer.json()["operation_id"])
    assert exchange["calls"]
    assert (exchange["request"], exchange["response"]) == (None, None)
    assert json.loads(crm.stack.demo_tenant())["izzitup"]["password"] not in crm.stored()


def test_what_a_customer_is_called_in_them_is_erased_with_the_customer(crm: Crm, cli: CommandLine) -> None:
    crm.stack.illu.fail(Kind.UNAVAILABLE)
    assert crm.settle(crm.create_site())["state"] == "succeeded"
    crm.stack.illu.fail(Kind.UNAVAILABLE)
    assert crm.settle(crm.post("/jobs", JOB))["state"] == "succeeded"
    assert SITE["name"] in crm.stored()
    assert len(items(crm)) >= 2
    assert cli("forget", "demo", str(SITE["customer_id"]), "--yes").code == 0
    for text in (SITE["name"], SITE["address"], JOB["name"]):
        assert text not in crm.stored()
    assert [item for item in items(crm) if "#payload" not in item["operation_id"]["S"]] == []


def test_what_was_refused_is_erased_with_its_calls(crm: Crm, cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crm.stack.illu, "longest_name", 5)
    assert crm.create_site().status_code == 422
    assert SITE["name"] in crm.stored()
    assert cli("forget", "demo", str(SITE["customer_id"]), "--yes").code == 0
    assert SITE["name"] not in crm.stored()


def test_a_discarded_event_leaves_no_request_behind(crm: Crm) -> None:
    without_site_list(crm.stack)
    crm.stack.illu.fail(Kind.CLOSE_AFTER)
    accepted = crm.create_site()
    assert crm.settle(accepted)["state"] == "needs_review"
    assert SITE["name"] in crm.stored()
    operation = accepted.json()["operation_id"]
    assert resolve(crm, operation, action="discard").status_code == 200
    assert (items(crm), shown(crm, operation)) == ([], [])


def test_neither_log_nor_lists_have_what_was_sent_or_came_back(crm: Crm, capsys: pytest.CaptureFixture[str]) -> None:
    operation = failed(crm)
    assert shown(support(crm), operation)[0]["request"]
    log = capsys.readouterr()
    assert SITE["name"] not in log.out + log.err
    assert SITE["name"] not in crm.get("/operations").text


def test_the_command_line_shows_the_calls_and_the_bodies_when_asked_for(crm: Crm, cli: CommandLine) -> None:
    failed(crm)
    printed = cli("operations", "show", "demo", str(SITE["customer_id"])).out
    assert "POST /orgs/88/sites: 500, " in printed
    assert "--payload shows what was sent and what came back" in printed
    assert SITE["address"] not in printed
    assert (
        SITE["address"]
        in cli("operations", "show", "demo", str(SITE["customer_id"]), "--payload").out.partition("payload ")[0]
    )


def use_illu(crm: Crm, **settings: object) -> None:
    change_settings(crm.stack, illu=settings, at_once=True)


def test_records_of_other_customers_that_a_look_up_finds_are_not_stored(crm: Crm, cli: CommandLine) -> None:
    use_illu(crm, search_lag=3000)
    assert crm.create_site(customer_id="A", name="Anna Wekesa", address="Hill Lane 1").status_code == 201
    operation = failed(crm, customer_id="B", latitude=50.0, longitude=20.0)
    crm.stack.deliver_due(after=61)
    assert [one["event"] for one in shown(support(crm), operation)] == ["not found yet", "maybe done"]
    assert cli("forget", "demo", "A", "--yes").code == 0
    assert "Anna Wekesa" not in crm.stored()


def test_a_customers_name_in_a_look_ups_address_is_not_shown(crm: Crm) -> None:
    use_illu(crm, site_list_path="/orgs/{org_id}/sites/named/{name}")
    operation = failed(crm, name="Anna Wekesa")
    crm.stack.deliver_due(after=61)
    paths = [call["path"] for one in shown(crm, operation) for call in one["calls"]]
    assert "/orgs/{org_id}/sites/named/{name}" in paths
    assert "Anna" not in json.dumps(paths)

"""`crm-bridge requests`, and what the other commands know of requests and sources."""

import json
from typing import Any

import pytest

from crm_bridge.runtime import runtime
from tests.integration.conftest import CommandLine, Crm, rows
from tests.integration.sources.conftest import EXPRESSION, SECRET, SOURCE, Sender, company


@pytest.fixture
def sender(crm: Crm) -> Sender:
    return Sender(crm)


@pytest.fixture
def bad(sender: Sender) -> dict[str, Any]:
    """One event in quarantine, whose latitude has another name."""
    sender.send({**company(2), "lat": None, "position": {"lat": 1.02}})
    (found,) = sender.quarantined()
    return found


def test_a_bad_event_is_found_by_its_id(bad: dict[str, Any], cli: CommandLine) -> None:
    listed = cli("requests", "demo", "--json").json
    assert [one["id"] for one in listed] == [bad["id"]]
    shown = cli("requests", "demo", "C-2")
    assert "latitude" in shown.out
    assert bad["id"] in shown.out
    assert f"crm-bridge requests demo {bad['id']} resend" in shown.out
    assert "1.02" not in shown.out
    assert cli("requests", "demo", "C-2", "--payload", "--json").json[0]["payload"]["position"] == {"lat": 1.02}


def test_a_mended_event_is_sent_again(bad: dict[str, Any], cli: CommandLine, sender: Sender) -> None:
    refused = cli("requests", "demo", bad["id"], "resend", "--yes")
    assert (refused.code, "latitude" in refused.err) == (2, True)
    mended = {**SOURCE["events"][0], "version": "2", "expression": EXPRESSION.replace("lat,", "lat || position.lat,")}
    sender.use({**SOURCE, "events": [mended]})
    sent = cli("requests", "demo", "C-2", "resend", "--yes", "--json")
    assert (sent.code, sent.json["state"]) == (0, "sent"), sent.err
    sender.crm.stack.deliver_due()
    assert len(sender.sites) == 1
    assert cli("requests", "demo", bad["id"], "discard", "--yes").code == 2


def test_an_event_is_discarded(bad: dict[str, Any], cli: CommandLine) -> None:
    assert cli("requests", "demo", bad["id"], "discard", "--yes", "--json").json["state"] == "discarded"
    assert cli("requests", "demo", "--state", "quarantined", "--json").json == []


def test_unknown_requests_are_said_to_be_unknown(sender: Sender, cli: CommandLine) -> None:
    assert "No requests found" in cli("requests", "demo", "C-404").out
    assert cli("requests", "demo", "C-404", "resend", "--yes").code == 2
    assert sender.quarantined() == []


def test_forget_erases_requests_that_carried_the_id(bad: dict[str, Any], cli: CommandLine, crm: Crm) -> None:
    crm.post("/sites", {"customer_id": "C-3"})
    assert cli("forget", "demo", "crm/customer/C-2", "--yes", "--json").json["requests"] == 1
    assert [one["ids"] for one in crm.get("/requests").json()["requests"]] == [["C-3"]]
    assert "C-2" not in json.dumps(rows("REQUESTS_TABLE"), default=str)
    assert crm.get(f"/requests/{bad['id']}").status_code == 404


def test_purge_erases_all_of_a_tenant_s_requests_and_no_other_s(
    bad: dict[str, Any], cli: CommandLine, crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.tenants.time.sleep", lambda _: None)
    assert bad
    crm.with_key("create_site", tenant="demo-upya").post("/sites", {})
    assert cli("tenant", "remove", "demo", "--purge", "--yes", "--force").code == 0
    left = rows("REQUESTS_TABLE")
    assert {str(row["place"]).partition("#")[0] for row in left} == {"demo-upya"}


def test_a_source_is_checked_when_it_is_stored(cli: CommandLine, sender: Sender) -> None:
    document = json.loads(sender.crm.stack.demo_tenant())
    wrong = {**SOURCE, "events": [{**SOURCE["events"][0], "flow": "save_person"}]}
    text = json.dumps({**document, "sources": {"crm": wrong}})
    stored = cli("tenant", "set", "demo", "--file", "-", "--yes", input=text)
    assert (stored.code, "sources.crm.events.0.flow" in stored.err) == (2, True)
    shown = cli("tenant", "show", "demo")
    assert (shown.code, SECRET in shown.out) == (0, False)


@pytest.mark.parametrize(
    "change", ['sources.crm.secrets=["0123456789abcdef0123"]', 'sources={"a":{"secrets":["0123456789abcdef"]}}']
)
def test_a_source_s_secret_is_no_argument(cli: CommandLine, sender: Sender, change: str) -> None:
    refused = cli("tenant", "set", "demo", change, "--yes")
    assert (refused.code, "secrets" in refused.err, "0123456789abcdef" in refused.err) == (2, True, False)
    assert (
        runtime().tenants.get("demo", "sources", fresh=True).all_sources()["crm"].secrets[0].get_secret_value()
        == SECRET
    )
    assert sender.quarantined() == []


def test_doctor_knows_sources(bad: dict[str, Any], cli: CommandLine) -> None:
    findings = {(one["about"], one["check"]): one for one in cli("doctor", "demo", "--json").json}
    assert findings["sources", "settings"]["detail"] == "crm (in-house)"
    assert findings["sources", "events in quarantine"]["detail"].startswith("1 wait")
    assert bad

"""An event that is not valid waits in quarantine for a person."""

import json

import pytest

from crm_bridge.errors import StorageError
from crm_bridge.storage.requests import Requests
from tests.integration.conftest import rows
from tests.integration.sources.conftest import EXPRESSION, SOURCE, Sender, company, counts

# ---------------------------------------------------------------------- quarantine


def test_a_bad_event_is_in_quarantine_once_and_its_neighbours_are_sent(sender: Sender) -> None:
    bad = company(2, lat="north")
    assert counts(sender.send(company(1), bad, company(3))) == (2, 0, 1, 0)
    assert counts(sender.send(company(1), bad, company(3))) == (0, 3, 0, 0)
    sender.crm.stack.deliver()
    assert len(sender.sites) == 2
    (found,) = sender.quarantined()
    assert (found["sender"], found["status"], found["problem"], found["ids"]) == ("crm", 422, "invalid", ["C-2"])
    assert [error["field"] for error in found["errors"]] == ["latitude"]
    assert sender.crm.get("/requests?id=C-2").json()["requests"] == [found]


def test_a_mended_mapping_lets_an_event_out_of_quarantine(sender: Sender) -> None:
    sender.send({**company(2), "lat": None, "position": {"lat": 1.02}})
    (found,) = sender.quarantined()
    path = f"/requests/{found['id']}/resend"
    still = sender.crm.post(path)
    assert still.status_code == 422
    mended = {**SOURCE["events"][0], "expression": EXPRESSION.replace("lat,", "lat || position.lat,"), "version": "2"}
    sender.use({**SOURCE, "events": [mended]})
    sent = sender.crm.post(path)
    assert (sent.status_code, sent.json()["state"]) == (200, "sent"), sent.text
    sender.crm.stack.deliver()
    assert [site["latitude"] for site in sender.sites] == [1.02]
    operation = sender.crm.get(f"/operations/{sent.json()['operation_id']}").json()
    assert (operation["state"], operation["mapping"]) == ("succeeded", "crm 2")
    assert sender.crm.post(path).status_code == 409
    assert "payload" not in json.dumps(rows("REQUESTS_TABLE"), default=str)
    assert counts(sender.send({**company(2), "lat": None, "position": {"lat": 1.02}})) == (0, 1, 0, 0)
    sender.crm.stack.deliver()
    assert len(sender.sites) == 1


def test_a_discarded_event_does_not_come_back(sender: Sender) -> None:
    bad = company(2, lat="north")
    sender.send(bad)
    (found,) = sender.quarantined()
    assert sender.crm.post(f"/requests/{found['id']}/discard").json()["state"] == "discarded"
    assert counts(sender.send(bad)) == (0, 1, 0, 0)
    assert sender.quarantined() == []
    assert sender.crm.post(f"/requests/{found['id']}/resend").status_code == 409


@pytest.mark.parametrize("decision", ["", "discard"])
def test_a_correction_is_in_quarantine_too_when_it_is_not_valid_either(sender: Sender, decision: str) -> None:
    """It comes under the same key, for instance in the same second, and it is kept nowhere else."""
    sender.send(company(2, lat="north"))
    (first,) = sender.quarantined()
    if decision:
        assert sender.crm.post(f"/requests/{first['id']}/{decision}").status_code == 200
    corrected = company(2, lat="1,02")
    assert [counts(sender.send(corrected)), counts(sender.send(corrected))] == [(0, 0, 1, 0), (0, 1, 0, 0)]
    assert counts(sender.send(company(2, lat="north"))) == (0, 1, 0, 0)
    assert len(sender.quarantined()) == (1 if decision else 2)


def test_the_payload_is_shown_to_those_who_may_see_it(sender: Sender) -> None:
    sender.send(company(2, lat="north"))
    (found,) = sender.quarantined()
    path = f"/requests/{found['id']}"
    shown = sender.crm.get(path).json()
    assert "payload" not in shown
    assert shown["shape"]["lat"] == "text"
    assert "north" not in json.dumps(shown)
    sender.crm = sender.crm.with_key("operations:read", "operations:payload")
    assert sender.crm.get(path).json()["payload"] == company(2, lat="north")
    assert sender.crm.post(f"{path}/discard").status_code == 403


@pytest.mark.parametrize("how", [{"invalid": "refuse"}, {}])
def test_a_bad_event_is_refused_when_it_may_not_be_kept(sender: Sender, how: dict[str, str]) -> None:
    """Also with keep_requests_days 0: what may not be kept must not be answered as if it were accepted."""
    sender.use({**SOURCE, **how}, keep_requests_days=30 if how else 0)
    answer = sender.send(company(1), company(2, lat="north"))
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "latitude")
    sender.crm.stack.deliver()
    assert len(sender.sites) == 1
    kept = sender.crm.get("/requests").json()["requests"]
    assert [one["state"] for one in kept] == (["refused"] if how else [])


def test_a_quarantine_that_cannot_be_stored_lets_the_sender_repeat(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quarantine(*_: object) -> None:
        raise StorageError("no")

    monkeypatch.setattr(Requests, "quarantine", quarantine)
    assert sender.send(company(1), company(2, lat="north")).status_code == 503
    monkeypatch.undo()
    assert counts(sender.send(company(1), company(2, lat="north"))) == (0, 1, 1, 0)


def test_another_tenant_s_requests_are_not_there(sender: Sender) -> None:
    sender.send(company(2, lat="north"))
    (found,) = sender.quarantined()
    scopes = ("operations:read", "operations:resolve", "operations:payload")
    sender.crm = sender.crm.with_key(*scopes, tenant="demo-upya")
    assert sender.quarantined() == []
    assert sender.crm.get("/requests?id=C-2").json()["requests"] == []
    request = f"/requests/{found['id']}"
    assert sender.crm.get(request).status_code == 404
    assert [sender.crm.post(f"{request}/{action}").status_code for action in ("resend", "discard")] == [404, 404]

"""Requests that were refused are kept, and found."""

import json
import re

import pytest
import requests

from crm_bridge.errors import StorageError
from crm_bridge.runtime import runtime
from crm_bridge.sources import PRESETS
from crm_bridge.storage.requests import Requests
from tests.integration.conftest import change_settings, rows
from tests.integration.sources.conftest import SECRET, SOURCE, Sender, body_of, company, counts

# ---------------------------------------------------------------------- what was refused


def test_a_refused_request_is_found_by_the_id_that_it_carried(sender: Sender) -> None:
    answer = sender.crm.post("/jobs", {"ticket_id": "T-9", "customer_id": "C-404", "name": "Meter", "due_date": "soon"})
    assert answer.status_code == 422
    (found,) = sender.crm.get("/requests?id=T-9").json()["requests"]
    assert (found["route"], found["status"], found["state"]) == ("POST /jobs", 422, "refused")
    assert [error["field"] for error in found["errors"]] == ["due_date"]
    assert set(found["ids"]) == {"T-9", "C-404"}
    shown = sender.crm.get(f"/requests/{found['id']}").json()
    assert shown["shape"] == {"ticket_id": "text", "customer_id": "text", "name": "text", "due_date": "text"}
    assert "soon" not in json.dumps(rows("REQUESTS_TABLE"), default=str)


def test_requests_are_filtered_and_paged(sender: Sender) -> None:
    for number in range(3):
        sender.crm.post("/sites", {"customer_id": f"C-{number}"})
    sender.crm.get("/operations/op_0")
    page = sender.crm.get("/requests?route=POST%20/sites&limit=2").json()
    assert [one["ids"] for one in page["requests"]] == [["C-2"], ["C-1"]]
    rest = sender.crm.get(f"/requests?route=POST%20/sites&limit=2&after={page['next']}").json()
    assert ([one["ids"] for one in rest["requests"]], rest["next"]) == ([["C-0"]], None)
    assert [one["route"] for one in sender.crm.get("/requests?status=404").json()["requests"]] == [
        "GET /operations/{id}"
    ]
    assert sender.crm.get("/requests?to=2020-01-01T00:00:00Z").json()["requests"] == []
    assert len(sender.crm.get("/requests?from=2020-01-01T00:00:00Z&limit=9").json()["requests"]) == 4
    turned = sender.crm.get("/requests?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z")
    assert (turned.status_code, turned.json()["errors"]) == (
        422,
        [{"field": "to", "message": "must not be before from"}],
    )


def test_an_accepted_event_takes_no_write_of_requests(sender: Sender) -> None:
    sender.send(company(1))
    sender.crm.create_site(customer_id="C-8")
    assert rows("REQUESTS_TABLE") == []


def test_a_caller_notices_nothing_when_its_refusal_cannot_be_kept(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sender.crm.post("/sites", {"customer_id": "C-1"})

    def keep(*_: object) -> None:
        raise StorageError("no")

    monkeypatch.setattr(Requests, "keep", keep)
    answer = sender.crm.post("/sites", {"customer_id": "C-1"})
    assert (answer.status_code, body_of(answer)) == (expected.status_code, body_of(expected))


def test_who_is_throttled_or_unknown_leaves_nothing(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime().keys._buckets, "take", lambda _: 1.0)
    assert sender.crm.post("/sites", {}).status_code == 429
    sender.crm.headers = {"Authorization": "Bearer crmb_nobody"}
    assert sender.crm.post("/sites", {}).status_code == 401
    assert rows("REQUESTS_TABLE") == []


def test_requests_expire_when_the_tenant_says(sender: Sender) -> None:
    for days in (90, 1):
        change_settings(sender.crm.stack, keep_requests_days=days, at_once=True)
        sender.crm.post("/sites", {})
        (one,) = [row for row in rows("REQUESTS_TABLE") if row["expires_at"] - row["received_at"] == days * 86400]
        assert one["state"] == "refused"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b'[{"kind": "company", "name": "\xff"}]'),
        ("application/json", b"{not json"),
        ("application/xml", b"<a/>"),
        ("text/plain", b"\x00\x01"),
    ],
)
def test_a_body_that_cannot_be_read_is_in_quarantine_once(sender: Sender, kind: str, body: bytes) -> None:
    """Its sender has proved itself, and may drop what is refused, or close the webhook for it."""

    def send() -> requests.Response:
        return sender.post(data=body, headers={"x-api-key": SECRET, "Content-Type": kind})

    assert [counts(send()), counts(send())] == [(0, 0, 1, 0), (0, 1, 0, 0)]
    (kept,) = sender.quarantined()
    assert kept["status"] in (400, 415, 422)
    again = sender.crm.post(f"/requests/{kept['id']}/resend", {})
    assert again.status_code == 422, again.text
    assert sender.crm.post(f"/requests/{kept['id']}/discard", {}).status_code == 200
    assert sender.sites == []
    sender.use({**SOURCE, "invalid": "refuse"})
    assert send().status_code == kept["status"]


def test_a_body_that_has_the_secret_in_it_is_not_stored_when_it_cannot_be_split(sender: Sender) -> None:
    sender.use({**{name: value for name, value in SOURCE.items() if name != "key"}, "preset": "zoho-notification"})
    body = {"token": SECRET, "ids": [str(number) for number in range(501)], "module": "Leads"}
    refused = sender.post(json=body)
    assert 400 < refused.status_code < 500
    assert refused.status_code != 401
    (kept,) = rows("REQUESTS_TABLE")
    assert kept["state"] == "refused"
    assert SECRET not in str(kept)


def test_a_session_of_salesforce_is_not_stored_when_there_are_too_many_notifications(sender: Sender) -> None:
    preset = PRESETS["salesforce-outbound"]
    source = {name: value for name, value in SOURCE.items() if name != "key"}
    sender.use({**source, "preset": preset.name, "organization_id": "00DX00000000001"})
    sample = preset.sample.replace(b'<SessionId xsi:nil="true"/>', b"<SessionId>a-session</SessionId>")
    (notification,) = re.findall(b"<Notification>.*</Notification>", sample, re.DOTALL)
    body = sample.replace(notification, 501 * notification)
    refused = sender.post(path=f"/in/demo/crm?key={SECRET}", data=body, headers=preset.sample_headers)
    assert 400 < refused.status_code < 500
    assert refused.status_code != 401
    (kept,) = rows("REQUESTS_TABLE")
    assert kept["state"] == "refused"
    assert "a-session" not in str(kept)

"""Which outcomes the tenant's own system receives, how it verifies them, and what is kept."""

import json
import os
from typing import Any

import boto3
import pytest
import requests

from crm_bridge.outbound.response import VendorResponse
from crm_bridge.outbound.transport import Deadline, Transport
from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import operation_id
from crm_bridge.vendors.webhook import Webhook, WebhookSettings
from local.stack import LOCAL_HOSTS, WEBHOOK_TENANT
from local.template import TEMPLATE
from local.vendors.simulator import Kind
from local.vendors.webhook import ReceiverSimulator
from tests.integration.conftest import Crm
from tests.integration.webhook.conftest import (
    HOUR,
    LATER,
    accepted,
    events,
    in_review,
    set_webhook,
    settled,
    webhooks,
    work,
)

# ---------------------------------------------------------------- notified


def test_a_webhook_has_what_the_api_shows_when_an_event_succeeded(notified: Crm, receiver: ReceiverSimulator) -> None:
    location = accepted(notified).headers["Location"]
    assert receiver.received == {}
    work(notified)
    shown = notified.get(location).json()
    assert (shown.pop("candidates"), shown.pop("exchanges")) == ([], [])  # are for the person who decides
    ((webhook_id, event),) = receiver.received.items()
    assert event == {"type": "operation.succeeded", "timestamp": shown["updated_at"], "data": shown}
    assert shown["result"]["site_id"] == 4711
    assert receiver.attempts == [webhook_id]
    (operation,) = webhooks(notified)
    assert (operation["state"], operation["event_key"]) == ("succeeded", webhook_id)
    assert notified.get(f"/operations/{operation['operation_id']}").json()["result"] == {"status": 204}


def test_is_notified_when_what_was_accepted_is_refused(
    notified: Crm, receiver: ReceiverSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notified.stack.illu, "longest_name", 5)
    settled(notified)
    ((event,),) = ([*receiver.received.values()],)
    assert (event["type"], event["data"]["state"], event["data"]["result"]) == ("operation.rejected", "rejected", None)
    assert event["data"]["last_attempt"]["event"] == "refused"


def test_is_notified_when_a_response_was_lost_and_the_record_is_found(
    notified: Crm, receiver: ReceiverSimulator
) -> None:
    notified.stack.illu.fail(Kind.CLOSE_AFTER)
    assert notified.create_site().status_code == 202
    work(notified)
    assert events(receiver) == [("operation.succeeded", "C-1001")]
    assert [event["data"]["last_attempt"]["event"] for event in receiver.received.values()] == ["found"]


@pytest.mark.parametrize(
    ("decision", "event"),
    [({"action": "link", "id": "4999"}, "operation.succeeded"), ({"action": "discard"}, "operation.rejected")],
)
def test_is_notified_that_a_person_is_asked_and_what_the_person_decided(
    notified: Crm, receiver: ReceiverSimulator, decision: dict[str, str], event: str
) -> None:
    operation = in_review(notified)
    work(notified)
    assert events(receiver) == [("operation.needs_review", "C-2")]
    assert notified.post(f"/operations/{operation}/resolve", decision).status_code == 200
    work(notified)
    assert events(receiver) == [("operation.needs_review", "C-2"), (event, "C-2")]


def test_is_notified_of_the_outcome_when_a_person_retried_it(notified: Crm, receiver: ReceiverSimulator) -> None:
    operation = in_review(notified)
    notified.stack.illu.next_id = 4800
    assert notified.post(f"/operations/{operation}/resolve", {"action": "retry"}).status_code == 200
    work(notified)
    assert sorted(events(receiver)) == [("operation.needs_review", "C-2"), ("operation.succeeded", "C-2")]


def test_is_notified_each_time_when_an_event_settles_twice(
    notified: Crm, receiver: ReceiverSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(notified.stack.illu, "longest_name", 5)
        for _ in range(2):  # what was rejected may be sent again
            accepted(notified)
            work(notified)
    settled(notified)
    assert [event for event, _ in events(receiver)] == ["operation.rejected"] * 2 + ["operation.succeeded"]


def test_is_notified_of_every_flow(notified: Crm, receiver: ReceiverSimulator) -> None:
    accepted(notified)
    work(notified, times=1)
    link = {"system": "salesforce", "entity_type": "customer", "internal_id": 1015, "external_id": "001XX0000ABCDEF"}
    notified.post("/jobs", {"ticket_id": "T-1", "customer_id": "C-1001", "name": "Meter"}, headers=LATER)
    notified.post("/key-links", link, headers=LATER)
    notified.put("/services/MAIL/status", {"status": "outage"}, headers=LATER)
    work(notified)
    flows = [(event["data"]["flow"], event["data"]["state"]) for event in receiver.received.values()]
    assert sorted(flows) == [
        (flow, "succeeded") for flow in ("create_job", "create_key_link", "create_site", "status_update")
    ]


# ---------------------------------------------------------------- not notified


def test_a_result_that_the_caller_has_got_is_not_notified(
    notified: Crm, receiver: ReceiverSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert notified.create_site().status_code == 201
    assert notified.create_site().status_code == 200
    monkeypatch.setattr(notified.stack.illu, "longest_name", 5)
    assert notified.create_site(customer_id="C-2").status_code == 422
    work(notified)
    assert (receiver.seen, webhooks(notified)) == ([], [])


def test_is_not_notified_that_a_key_link_was_taken_back(notified: Crm, receiver: ReceiverSimulator) -> None:
    link = {"system": "salesforce", "entity_type": "customer", "internal_id": 1015, "external_id": "001XX0000ABCDEF"}
    notified.post("/key-links", link, headers=LATER)
    work(notified)
    notified.send("DELETE", "/key-links/77").raise_for_status()
    work(notified)
    assert [event["type"] for event in receiver.received.values()] == ["operation.succeeded"]


def test_nobody_is_notified_when_the_tenant_names_no_address(crm: Crm, receiver: ReceiverSimulator) -> None:
    accepted(crm)
    work(crm)
    assert crm.stack.illu.sites
    assert (receiver.seen, webhooks(crm)) == ([], [])


def test_nobody_is_notified_of_what_was_accepted_before_the_tenant_named_an_address(
    notified: Crm, receiver: ReceiverSimulator
) -> None:
    set_webhook(notified)
    accepted(notified, "before")
    set_webhook(notified, url=receiver.webhook_url)
    settled(notified, "after")
    assert events(receiver) == [("operation.succeeded", "after")]


def test_nobody_is_notified_any_more_when_the_tenant_has_removed_its_address(
    notified: Crm, receiver: ReceiverSimulator
) -> None:
    accepted(notified)
    set_webhook(notified)
    work(notified)
    assert receiver.seen == []
    (operation,) = webhooks(notified)
    assert operation["state"] == "rejected"
    assert "names no webhook address" in operation["last_attempt"]["reason"]


def test_another_tenant_does_not_see_a_webhook(notified: Crm) -> None:
    settled(notified)
    (operation,) = webhooks(notified)
    notified.headers = {"Authorization": f"Bearer {notified.stack.api_key}"}
    assert notified.get(f"/operations/{operation['operation_id']}").status_code == 404


# ---------------------------------------------------------------- who believes it


def test_only_what_is_signed_now_with_its_secret_is_believed(notified: Crm, receiver: ReceiverSimulator) -> None:
    """The receiver that the other tests rest on: one wrong thing at a time."""
    (key,) = receiver.secrets
    settings = WebhookSettings.model_validate({"url": receiver.webhook_url, "secret": key}, context=LOCAL_HOSTS)
    signed: dict[str, str] = {}

    class Recorded(Transport):
        def call(self, *_: Any, headers: dict[str, str], **__: Any) -> VendorResponse:  # type: ignore[override]
            signed.update(headers)
            return VendorResponse("", 204, {}, b"", ())

    body = b'{"type": "operation.succeeded", "data": {"event_key": "C-1"}}'
    Webhook(settings, Recorded(), Deadline(20), runtime().clock).notify("op_1", body)

    def send(body: bytes = body, **changes: str) -> int:
        headers = {**signed, **{name.replace("_", "-"): value for name, value in changes.items()}}
        return requests.post(receiver.webhook_url, data=body, headers=headers, timeout=30).status_code

    before = str(int(signed["webhook-timestamp"]) - 1)
    for answered in (
        send(body + b" "),
        send(webhook_id="op_2"),
        send(webhook_timestamp=before),
        send(webhook_timestamp=""),
        send(webhook_signature="v1,"),
        send(webhook_signature=signed["webhook-signature"].replace("v1,", "v2,")),
    ):
        assert answered == 401
    assert send() == 204
    notified.stack.move_clock(301)
    assert send() == 401


@pytest.mark.parametrize("believed", [0, 1])
def test_both_secrets_sign_while_the_receiver_goes_from_one_to_the_other(
    notified: Crm, receiver: ReceiverSimulator, believed: int
) -> None:
    secrets = [receiver.secrets[0], "whsec_" + "YW5vdGhlci1zZWNyZXQtaHVzaC1odXNo"]
    set_webhook(notified, secret=secrets[1], previous_secret=secrets[0])
    receiver.secrets = [secrets[believed]]
    settled(notified)
    assert len(receiver.received) == 1


def test_is_notified_when_a_wrong_secret_was_corrected(notified: Crm, receiver: ReceiverSimulator) -> None:
    set_webhook(notified, secret="whsec_" + "YW5vdGhlci1zZWNyZXQtaHVzaC1odXNo")
    settled(notified)
    assert (receiver.received, [seen.status for seen in receiver.seen]) == ({}, [401, 401])
    set_webhook(notified, secret=receiver.secrets[0])
    work(notified, seconds=HOUR)
    assert events(receiver) == [("operation.succeeded", "C-1001")]


# ---------------------------------------------------------------- what is kept, and the docs


def test_a_webhooks_operation_keeps_no_payload_and_expires(notified: Crm) -> None:
    settled(notified)
    table = boto3.resource("dynamodb").Table(os.environ["OPERATIONS_TABLE"])
    (row,) = (row for row in table.scan()["Items"] if row["flow"] == "webhook")
    assert "payload" not in row
    assert "expires_at" in row


def test_the_example_in_the_docs_is_what_is_sent(notified: Crm, receiver: ReceiverSimulator) -> None:
    section = (TEMPLATE.parent / "docs/api.md").read_text().partition("\n## Webhooks")[2].partition("\n## ")[0]
    example = json.loads(section.partition("```json\n")[2].partition("\n```")[0])
    notified.stack.illu.fail(Kind.UNAVAILABLE)
    assert notified.create_site().status_code == 202
    work(notified)
    (event,) = receiver.received.values()
    assert set(event) == set(example)
    assert set(event["data"]) == set(example["data"])
    assert event["type"] == example["type"]
    assert event["data"]["operation_id"] == operation_id(WEBHOOK_TENANT, "create_site", "C-1001")
    for name in ("flow", "event_key", "state", "result", "links"):
        assert event["data"][name] == example["data"][name]

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
from tests.integration.webhook.conftest import HOUR, LATER, accepted, events, in_review, set_webhook, webhooks, work

# ---------------------------------------------------------------- what is told


def test_is_told_what_the_api_shows_when_what_was_accepted_succeeded(told: Crm, receiver: ReceiverSimulator) -> None:
    location = accepted(told).headers["Location"]
    assert receiver.received == {}
    work(told)
    shown = told.get(location).json()
    assert (shown.pop("candidates"), shown.pop("exchanges")) == ([], [])  # are for the person who decides
    ((webhook_id, event),) = receiver.received.items()
    assert event == {"type": "operation.succeeded", "timestamp": shown["updated_at"], "data": shown}
    assert shown["result"]["site_id"] == 4711
    assert receiver.attempts == [webhook_id]
    (operation,) = webhooks(told)
    assert (operation["state"], operation["event_key"]) == ("succeeded", webhook_id)
    assert told.get(f"/operations/{operation['operation_id']}").json()["result"] == {"status": 204}


def test_is_told_when_what_was_accepted_is_refused(
    told: Crm, receiver: ReceiverSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(told.stack.illu, "longest_name", 5)
    accepted(told)
    work(told)
    ((event,),) = ([*receiver.received.values()],)
    assert (event["type"], event["data"]["state"], event["data"]["result"]) == ("operation.rejected", "rejected", None)
    assert event["data"]["last_attempt"]["event"] == "refused"


def test_is_told_when_an_answer_was_lost_and_what_it_did_is_found(told: Crm, receiver: ReceiverSimulator) -> None:
    told.stack.illu.fail(Kind.CLOSE_AFTER)
    assert told.create_site().status_code == 202
    work(told)
    assert events(receiver) == [("operation.succeeded", "C-1001")]
    assert [event["data"]["last_attempt"]["event"] for event in receiver.received.values()] == ["found"]


@pytest.mark.parametrize(
    ("decision", "event"),
    [({"action": "link", "id": "4999"}, "operation.succeeded"), ({"action": "discard"}, "operation.rejected")],
)
def test_is_told_that_a_person_is_asked_and_what_the_person_decided(
    told: Crm, receiver: ReceiverSimulator, decision: dict[str, str], event: str
) -> None:
    operation = in_review(told)
    work(told)
    assert events(receiver) == [("operation.needs_review", "C-2")]
    assert told.post(f"/operations/{operation}/resolve", decision).status_code == 200
    work(told)
    assert events(receiver) == [("operation.needs_review", "C-2"), (event, "C-2")]


def test_is_told_what_came_of_it_when_a_person_let_it_be_sent_again(told: Crm, receiver: ReceiverSimulator) -> None:
    operation = in_review(told)
    told.stack.illu.next_id = 4800
    assert told.post(f"/operations/{operation}/resolve", {"action": "retry"}).status_code == 200
    work(told)
    assert sorted(events(receiver)) == [("operation.needs_review", "C-2"), ("operation.succeeded", "C-2")]


def test_is_told_each_time_when_an_event_settles_twice(
    told: Crm, receiver: ReceiverSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(told.stack.illu, "longest_name", 5)
        for _ in range(2):  # what was rejected may be sent again
            accepted(told)
            work(told)
    accepted(told)
    work(told)
    assert [event for event, _ in events(receiver)] == ["operation.rejected"] * 2 + ["operation.succeeded"]


def test_is_told_of_every_flow(told: Crm, receiver: ReceiverSimulator) -> None:
    accepted(told)
    work(told, times=1)
    link = {"system": "salesforce", "entity_type": "customer", "internal_id": 1015, "external_id": "001XX0000ABCDEF"}
    told.post("/jobs", {"ticket_id": "T-1", "customer_id": "C-1001", "name": "Meter"}, headers=LATER)
    told.post("/key-links", link, headers=LATER)
    status = told.stack.url + "/services/MAIL/status"
    told.session.put(status, json={"status": "outage"}, headers={**told.headers, **LATER}, timeout=60)
    work(told)
    flows = [(event["data"]["flow"], event["data"]["state"]) for event in receiver.received.values()]
    assert sorted(flows) == [
        (flow, "succeeded") for flow in ("create_job", "create_key_link", "create_site", "status_update")
    ]


# ---------------------------------------------------------------- what is not told


def test_is_not_told_what_the_caller_was_key_link_id(
    told: Crm, receiver: ReceiverSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told.create_site().status_code == 201
    assert told.create_site().status_code == 200
    monkeypatch.setattr(told.stack.illu, "longest_name", 5)
    assert told.create_site(customer_id="C-2").status_code == 422
    work(told)
    assert (receiver.seen, webhooks(told)) == ([], [])


def test_is_not_told_that_a_key_link_was_taken_back(told: Crm, receiver: ReceiverSimulator) -> None:
    link = {"system": "salesforce", "entity_type": "customer", "internal_id": 1015, "external_id": "001XX0000ABCDEF"}
    told.post("/key-links", link, headers=LATER)
    work(told)
    told.session.delete(f"{told.stack.url}/key-links/77", headers=told.headers, timeout=60).raise_for_status()
    work(told)
    assert [event["type"] for event in receiver.received.values()] == ["operation.succeeded"]


def test_nobody_is_told_when_the_tenant_names_no_address(crm: Crm, receiver: ReceiverSimulator) -> None:
    accepted(crm)
    work(crm)
    assert crm.stack.illu.sites
    assert (receiver.seen, webhooks(crm)) == ([], [])


def test_nobody_is_told_of_what_was_accepted_before_the_tenant_named_an_address(
    told: Crm, receiver: ReceiverSimulator
) -> None:
    set_webhook(told)
    accepted(told, "before")
    set_webhook(told, url=receiver.webhook_url)
    accepted(told, "after")
    work(told)
    assert events(receiver) == [("operation.succeeded", "after")]


def test_nobody_is_told_any_more_when_the_tenant_has_removed_its_address(
    told: Crm, receiver: ReceiverSimulator
) -> None:
    accepted(told)
    set_webhook(told)
    work(told)
    assert receiver.seen == []
    (operation,) = webhooks(told)
    assert operation["state"] == "rejected"
    assert "names no webhook address" in operation["last_attempt"]["reason"]


def test_another_tenant_does_not_see_what_was_told(told: Crm) -> None:
    accepted(told)
    work(told)
    (operation,) = webhooks(told)
    told.headers = {"Authorization": f"Bearer {told.stack.api_key}"}
    assert told.get(f"/operations/{operation['operation_id']}").status_code == 404


# ---------------------------------------------------------------- who believes it


def test_only_what_is_signed_now_with_its_secret_is_believed(told: Crm, receiver: ReceiverSimulator) -> None:
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
    told.stack.move_clock(301)
    assert send() == 401


@pytest.mark.parametrize("believed", [0, 1])
def test_both_secrets_sign_while_the_receiver_goes_from_one_to_the_other(
    told: Crm, receiver: ReceiverSimulator, believed: int
) -> None:
    secrets = [receiver.secrets[0], "whsec_" + "YW5vdGhlci1zZWNyZXQtaHVzaC1odXNo"]
    set_webhook(told, secret=secrets[1], previous_secret=secrets[0])
    receiver.secrets = [secrets[believed]]
    accepted(told)
    work(told)
    assert len(receiver.received) == 1


def test_is_told_when_a_wrong_secret_was_corrected(told: Crm, receiver: ReceiverSimulator) -> None:
    set_webhook(told, secret="whsec_" + "YW5vdGhlci1zZWNyZXQtaHVzaC1odXNo")
    accepted(told)
    work(told)
    assert (receiver.received, [seen.status for seen in receiver.seen]) == ({}, [401, 401])
    set_webhook(told, secret=receiver.secrets[0])
    work(told, seconds=HOUR)
    assert events(receiver) == [("operation.succeeded", "C-1001")]


# ---------------------------------------------------------------- what is kept, and the docs


def test_what_told_keeps_no_payload_and_expires(told: Crm) -> None:
    accepted(told)
    work(told)
    table = boto3.resource("dynamodb").Table(os.environ["OPERATIONS_TABLE"])
    (row,) = (row for row in table.scan()["Items"] if row["flow"] == "webhook")
    assert "payload" not in row
    assert "expires_at" in row


def test_the_example_in_the_docs_is_what_is_told(told: Crm, receiver: ReceiverSimulator) -> None:
    section = (TEMPLATE.parent / "docs/api.md").read_text().partition("\n## Webhooks")[2].partition("\n## ")[0]
    example = json.loads(section.partition("```json\n")[2].partition("\n```")[0])
    told.stack.illu.fail(Kind.UNAVAILABLE)
    assert told.create_site().status_code == 202
    work(told)
    (event,) = receiver.received.values()
    assert set(event) == set(example)
    assert set(event["data"]) == set(example["data"])
    assert event["type"] == example["type"]
    assert event["data"]["operation_id"] == operation_id(WEBHOOK_TENANT, "create_site", "C-1001")
    for name in ("flow", "event_key", "state", "result", "links"):
        assert event["data"][name] == example["data"][name]

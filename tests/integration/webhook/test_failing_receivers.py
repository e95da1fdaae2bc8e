"""Receivers that fail, or are gone."""

import os
from collections.abc import Callable
from contextlib import closing

import pytest

from local.server import HOST
from local.vendors.simulator import Kind
from local.vendors.webhook import ReceiverSimulator
from tests.integration.conftest import Crm
from tests.integration.sockets import Vendor, answers
from tests.integration.webhook.conftest import HOUR, accepted, cold, events, set_webhook, webhooks, work

# ---------------------------------------------------------------- a receiver that fails


FAILURES: dict[str, Callable[[ReceiverSimulator], None]] = {
    **{
        kind.value: lambda receiver, kind=kind: receiver.fail(kind, times=100)  # type: ignore[misc]
        for kind in (Kind.UNAVAILABLE, Kind.TOO_MANY, Kind.ERROR_BEFORE, Kind.CLOSE_BEFORE, Kind.HTML)
    },
    **{
        str(status): lambda receiver, status=status: setattr(receiver, "refuses_with", status)  # type: ignore[misc]
        for status in (301, 302, 307, 308, 400, 401, 403, 404, 405, 422, 451, 501)
    },
}


OF_EACH_KIND = (Kind.UNAVAILABLE, Kind.TOO_MANY, Kind.CLOSE_BEFORE, Kind.HTML, "307", "401", "404")


@pytest.mark.parametrize("failure", FAILURES if os.environ.get("LONG") else OF_EACH_KIND)
def test_is_told_once_when_the_receiver_failed_for_hours(told: Crm, receiver: ReceiverSimulator, failure: str) -> None:
    FAILURES[failure](receiver)
    accepted(told)
    work(told)
    (operation,) = webhooks(told)
    assert operation["state"] == "waiting"
    work(told, seconds=HOUR / 2, times=6)
    assert len(receiver.seen) > 2
    assert {seen.path for seen in receiver.seen} == {"/webhooks"}  # no redirect was followed
    assert receiver.received == {}
    receiver.heal()
    receiver.refuses_with = None
    work(told, seconds=HOUR, times=6)
    assert events(receiver) == [("operation.succeeded", "C-1001")]
    assert receiver.attempts == [operation["event_key"]]
    assert told.get(f"/operations/{operation['operation_id']}").json()["state"] == "succeeded"


@pytest.mark.parametrize("kind", [Kind.CLOSE_AFTER, Kind.ERROR_AFTER])
def test_is_told_again_under_the_same_id_when_its_answer_was_lost(
    told: Crm, receiver: ReceiverSimulator, kind: Kind
) -> None:
    receiver.fail(kind, times=2)
    accepted(told)
    work(told, seconds=HOUR / 4, times=4)
    assert len(receiver.attempts) == 3
    assert len(set(receiver.attempts)) == len(receiver.received) == 1
    assert [operation["state"] for operation in webhooks(told)] == ["succeeded"]


def test_is_told_when_nothing_listened(told: Crm, receiver: ReceiverSimulator) -> None:
    receiver.stop()
    accepted(told)
    work(told)
    receiver.start()
    work(told, seconds=HOUR)
    assert events(receiver) == [("operation.succeeded", "C-1001")]


def test_waits_as_long_as_the_receiver_asks_for(told: Crm, receiver: ReceiverSimulator) -> None:
    receiver.fail(Kind.TOO_MANY, seconds=HOUR)
    accepted(told)
    work(told, seconds=HOUR / 4, times=4)  # the first of them is when it is told for the first time
    assert len(receiver.seen) == 1
    work(told, seconds=HOUR / 4, times=6)
    assert events(receiver) == [("operation.succeeded", "C-1001")]


def test_what_the_receiver_says_is_neither_read_nor_kept(told: Crm) -> None:
    with closing(Vendor(answers(200, b"x" * 10_000_000))) as chatty:
        set_webhook(told, url=f"http://{HOST}:{chatty.port}/webhooks")
        accepted(told)
        work(told)
        assert len(chatty.requests) == 1
    assert [operation["state"] for operation in webhooks(told)] == ["succeeded"]


def test_a_person_is_asked_when_all_tries_failed_and_can_let_it_be_told_again(
    told: Crm, receiver: ReceiverSimulator
) -> None:
    receiver.refuses_with = 500
    accepted(told)
    work(told, seconds=25 * HOUR, times=16)
    (operation,) = webhooks(told)
    assert (operation["state"], operation["last_attempt"]["event"]) == ("needs_review", "out of attempts")
    receiver.refuses_with = None
    linked = told.post(f"/operations/{operation['operation_id']}/resolve", {"action": "link", "id": "1"})
    assert linked.status_code == 409
    told.post(f"/operations/{operation['operation_id']}/resolve", {"action": "retry"}).raise_for_status()
    work(told)
    assert receiver.attempts == [operation["event_key"]]


# ---------------------------------------------------------------- a receiver that is gone


def test_nothing_more_is_sent_to_a_receiver_that_is_gone(
    told: Crm, receiver: ReceiverSimulator, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.refuses_with = 410
    for customer in ("C-1", "C-2"):
        accepted(told, customer)
    work(told)
    cold(told)
    accepted(told, "C-3")
    work(told, seconds=HOUR)
    assert len(receiver.seen) == 1
    assert [operation["state"] for operation in webhooks(told)] == ["rejected"] * 3
    assert capsys.readouterr().out.count("WebhookStopped") == 2  # the metric's name is twice in its line


def test_is_told_again_when_the_settings_of_a_receiver_that_was_gone_change(
    told: Crm, receiver: ReceiverSimulator
) -> None:
    receiver.refuses_with = 410
    accepted(told, "C-1")
    work(told)
    receiver.refuses_with = None
    set_webhook(told, url=f"{receiver.webhook_url}?again")
    accepted(told, "C-2")
    work(told)
    assert events(receiver) == [("operation.succeeded", "C-2")]


def test_another_tenants_receiver_is_not_gone(told: Crm, receiver: ReceiverSimulator) -> None:
    receiver.refuses_with = 410
    accepted(told)
    work(told)
    receiver.refuses_with = None
    told.stack.put_secret("umbrella", told.stack.webhook_tenant())
    key = told.stack.add_key("umbrella", frozenset({"create_site"}), "umbrella")
    told.headers = {"Authorization": f"Bearer {key}"}
    accepted(told, "theirs")
    work(told)
    assert events(receiver) == [("operation.succeeded", "theirs")]

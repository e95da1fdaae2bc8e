"""Receivers that fail, or are gone."""

import os
from collections.abc import Callable
from contextlib import closing

import pytest

from local.server import HOST
from local.vendors.simulator import Kind
from local.vendors.webhook import ReceiverSimulator
from tests.integration.conftest import Crm, cold
from tests.integration.sockets import Vendor, answers
from tests.integration.webhook.conftest import HOUR, accepted, events, set_webhook, settled, webhooks, work

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
def test_is_notified_once_when_a_receiver_failed_for_hours(
    notified: Crm, receiver: ReceiverSimulator, failure: str
) -> None:
    FAILURES[failure](receiver)
    settled(notified)
    (operation,) = webhooks(notified)
    assert operation["state"] == "waiting"
    work(notified, seconds=HOUR / 2, times=6)
    assert len(receiver.seen) > 2
    assert {seen.path for seen in receiver.seen} == {"/webhooks"}  # no redirect was followed
    assert receiver.received == {}
    receiver.heal()
    receiver.refuses_with = None
    work(notified, seconds=HOUR, times=6)
    assert events(receiver) == [("operation.succeeded", "C-1001")]
    assert receiver.attempts == [operation["event_key"]]
    assert notified.get(f"/operations/{operation['operation_id']}").json()["state"] == "succeeded"


@pytest.mark.parametrize("kind", [Kind.CLOSE_AFTER, Kind.ERROR_AFTER])
def test_is_notified_again_under_the_same_id_when_its_answer_was_lost(
    notified: Crm, receiver: ReceiverSimulator, kind: Kind
) -> None:
    receiver.fail(kind, times=2)
    accepted(notified)
    work(notified, seconds=HOUR / 4, times=4)
    assert len(receiver.attempts) == 3
    assert len(set(receiver.attempts)) == len(receiver.received) == 1
    assert [operation["state"] for operation in webhooks(notified)] == ["succeeded"]


def test_is_notified_when_nothing_listened(notified: Crm, receiver: ReceiverSimulator) -> None:
    receiver.stop()
    settled(notified)
    receiver.start()
    work(notified, seconds=HOUR)
    assert events(receiver) == [("operation.succeeded", "C-1001")]


def test_waits_as_long_as_the_receiver_asks_for(notified: Crm, receiver: ReceiverSimulator) -> None:
    receiver.fail(Kind.TOO_MANY, seconds=HOUR)
    accepted(notified)
    work(notified, seconds=HOUR / 4, times=4)  # the first of them is its first attempt
    assert len(receiver.seen) == 1
    work(notified, seconds=HOUR / 4, times=6)
    assert events(receiver) == [("operation.succeeded", "C-1001")]


def test_what_the_receiver_says_is_neither_read_nor_kept(notified: Crm) -> None:
    with closing(Vendor(answers(200, b"x" * 10_000_000))) as chatty:
        set_webhook(notified, url=f"http://{HOST}:{chatty.port}/webhooks")
        accepted(notified)
        work(notified)
        assert len(chatty.requests) == 1
    assert [operation["state"] for operation in webhooks(notified)] == ["succeeded"]


def test_a_person_is_asked_when_all_tries_failed_and_can_let_it_be_notified_again(
    notified: Crm, receiver: ReceiverSimulator
) -> None:
    receiver.refuses_with = 500
    accepted(notified)
    work(notified, seconds=25 * HOUR, times=16)
    (operation,) = webhooks(notified)
    assert (operation["state"], operation["last_attempt"]["event"]) == ("needs_review", "out of attempts")
    receiver.refuses_with = None
    linked = notified.post(f"/operations/{operation['operation_id']}/resolve", {"action": "link", "id": "1"})
    assert linked.status_code == 409
    notified.post(f"/operations/{operation['operation_id']}/resolve", {"action": "retry"}).raise_for_status()
    work(notified)
    assert receiver.attempts == [operation["event_key"]]


# ---------------------------------------------------------------- a receiver that is gone


def test_nothing_more_is_sent_to_a_receiver_that_is_gone(
    notified: Crm, receiver: ReceiverSimulator, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.refuses_with = 410
    for customer in ("C-1", "C-2"):
        accepted(notified, customer)
    work(notified)
    cold(notified.stack)
    accepted(notified, "C-3")
    work(notified, seconds=HOUR)
    assert len(receiver.seen) == 1
    assert [operation["state"] for operation in webhooks(notified)] == ["rejected"] * 3
    assert capsys.readouterr().out.count("WebhookStopped") == 2  # the metric's name is twice in its line


def test_is_notified_again_when_the_settings_of_a_receiver_that_was_gone_change(
    notified: Crm, receiver: ReceiverSimulator
) -> None:
    receiver.refuses_with = 410
    settled(notified, "C-1")
    receiver.refuses_with = None
    set_webhook(notified, url=f"{receiver.webhook_url}?again")
    settled(notified, "C-2")
    assert events(receiver) == [("operation.succeeded", "C-2")]


def test_another_tenants_receiver_is_not_gone(notified: Crm, receiver: ReceiverSimulator) -> None:
    receiver.refuses_with = 410
    settled(notified)
    receiver.refuses_with = None
    notified.stack.put_secret("umbrella", notified.stack.webhook_tenant())
    accepted(notified.with_key("create_site", tenant="umbrella"), "theirs")
    work(notified)
    assert events(receiver) == [("operation.succeeded", "theirs")]

"""A webhook is neither lost nor made twice."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from crm_bridge.outbound.response import VendorResponse
from crm_bridge.runtime import runtime
from crm_bridge.vendors.webhook import Webhook
from local.vendors.webhook import ReceiverSimulator
from tests.integration.conftest import Crm
from tests.integration.webhook.conftest import accepted, events, in_review, webhooks, work

# ---------------------------------------------------------------- neither lost nor made twice


class KilledError(BaseException):
    """Ends a function like a kill: nothing of ours catches it."""


def settling(monkeypatch: pytest.MonkeyPatch, *, written: bool) -> list[str]:
    """The next transaction's answer is lost, and so are those of its repetitions; it was `written` or not."""
    lost: list[str] = []
    client = runtime().operations._client
    real = client._make_api_call  # type: ignore[attr-defined]

    def call(name: str, arguments: dict[str, Any]) -> Any:
        if name != "TransactWriteItems" or lost:
            return real(name, arguments)
        lost.append(name)
        if written:
            real(name, arguments)
        raise ReadTimeoutError(endpoint_url="https://dynamodb.example")

    monkeypatch.setattr(client, "_make_api_call", call)
    return lost


@pytest.mark.parametrize("written", [True, False])
def test_is_notified_once_when_nobody_knows_whether_it_was_settled(
    notified: Crm, receiver: ReceiverSimulator, monkeypatch: pytest.MonkeyPatch, *, written: bool
) -> None:
    accepted(notified)
    lost = settling(monkeypatch, written=written)
    work(notified, times=6)
    assert lost
    assert len(notified.stack.illu.sites) == 1
    assert events(receiver) == [("operation.succeeded", "C-1001")]
    assert len(receiver.attempts) == 1


@pytest.mark.parametrize("written", [True, False])
def test_is_not_answered_202_when_nobody_knows_whether_there_is_something_to_tell(
    notified: Crm, receiver: ReceiverSimulator, monkeypatch: pytest.MonkeyPatch, *, written: bool
) -> None:
    settling(monkeypatch, written=written)
    answer = notified.create_site()
    assert (answer.status_code, answer.headers["Retry-After"]) == (409, "2")
    work(notified)
    assert notified.create_site().status_code == 200
    assert events(receiver) == ([] if written else [("operation.succeeded", "C-1001")])
    assert len(notified.stack.illu.sites) == 1


@pytest.mark.parametrize("heard", [True, False])
def test_is_notified_under_the_same_id_when_its_sender_was_killed(
    notified: Crm, receiver: ReceiverSimulator, monkeypatch: pytest.MonkeyPatch, *, heard: bool
) -> None:
    real = Webhook.notify

    def notify(client: Webhook, webhook_id: str, body: bytes) -> VendorResponse:
        if heard:
            real(client, webhook_id, body)
        raise KilledError

    accepted(notified)
    with monkeypatch.context() as patched:
        patched.setattr(Webhook, "notify", notify)
        with pytest.raises(KilledError):
            notified.stack.deliver_due()
    assert len(receiver.attempts) == int(heard)
    work(notified)
    assert events(receiver) == [("operation.succeeded", "C-1001")]
    assert (len(receiver.attempts), len(set(receiver.attempts))) == (1 + heard, 1)


def test_is_notified_of_the_one_decision_when_two_people_decide_at_once(
    notified: Crm,
    receiver: ReceiverSimulator,
    eager_switches: None,  # noqa: ARG001 - it works by being there
) -> None:
    operation = in_review(notified)
    work(notified)

    def decide(number: int) -> int:
        decision = {"action": "link", "id": str(4990 + number)} if number else {"action": "discard"}
        return notified.post(f"/operations/{operation}/resolve", decision).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(decide, range(8)))
    assert statuses == [200] + [409] * 7
    work(notified)
    decided = notified.get(f"/operations/{operation}").json()["state"]
    assert [event for event, _ in events(receiver)] == ["operation.needs_review", f"operation.{decided}"]


def test_each_of_many_is_notified_once_when_the_queue_brings_everything_twice(
    notified: Crm, receiver: ReceiverSimulator
) -> None:
    for number in range(12):
        accepted(notified, f"C-{number}")
    for _ in range(6):
        notified.stack.move_clock(60)
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(notified.stack.deliver_due) for _ in range(2)]:
                done.result()
    assert sorted(events(receiver)) == sorted(("operation.succeeded", f"C-{number}") for number in range(12))
    assert len(receiver.attempts) == 12


def test_a_webhook_is_stored_with_the_operation_that_it_is_about_and_with_nothing_else(notified: Crm) -> None:
    accepted(notified)
    aws = notified.stack.aws
    assert aws
    before = aws.calls.copy()
    (queue,) = (queue for queue in notified.stack._queues if queue.function.package == "create_site")
    assert queue.deliver(wait=0)
    made = aws.calls - before
    assert made["DynamoDB_20120810.TransactWriteItems"] == 1
    assert made["DynamoDB_20120810.PutItem"] == 0
    assert [operation["state"] for operation in webhooks(notified)] == ["waiting"]

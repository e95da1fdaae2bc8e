"""An operation that is due at once goes to its queue at once; if not, the dispatcher puts it there."""

import json
from collections.abc import Collection, Sequence
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from crm_bridge.engine import HANDED_OVER
from crm_bridge.outbound.queues import Message, Queues
from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import operation_id
from local.stack import WEBHOOK_KEY
from local.template import TEMPLATE
from local.vendors.simulator import Kind
from tests.integration.conftest import SITE, Crm

ROOT = TEMPLATE.parent
LATER = {"Prefer": "respond-async"}
JOB = {"ticket_id": "T-1", "customer_id": SITE["customer_id"], "name": "Router without light"}

_send = Queues.send


class KilledError(BaseException):
    """The function dies here: no handler of the bridge sees it."""


def accept(crm: Crm) -> str:
    answer = crm.post("/sites", SITE, headers=LATER)
    assert answer.status_code == 202
    return str(answer.json()["operation_id"])


def state(crm: Crm, operation: str) -> str:
    return str(crm.get(f"/operations/{operation}").json()["state"])


def pass_time(crm: Crm, minutes: int) -> None:
    for _ in range(minutes):
        crm.stack.deliver_due(after=60)


def sent(crm: Crm) -> int:
    """How many sites illu was asked to make."""
    return sum(call.method == "POST" for call in crm.stack.illu.seen)


def test_what_is_accepted_is_sent_without_the_dispatcher(crm: Crm) -> None:
    operation = accept(crm)
    crm.stack.deliver()
    assert state(crm, operation) == "succeeded"
    pass_time(crm, 20)
    assert (len(crm.stack.illu.sites), sent(crm)) == (1, 1)


def test_the_tenant_is_notified_without_the_dispatcher(crm: Crm) -> None:
    crm.headers = {"Authorization": f"Bearer {WEBHOOK_KEY}"}
    accept(crm)
    crm.stack.deliver()
    assert len(crm.stack.receiver.received) == 1
    pass_time(crm, 20)
    assert len(crm.stack.receiver.seen) == 1


def test_a_job_follows_its_site_without_the_dispatcher(crm: Crm) -> None:
    crm.stack.illu.fail(Kind.TOO_MANY, times=1)
    assert crm.create_site().status_code == 202
    job = crm.post("/jobs", JOB, headers=LATER).json()["operation_id"]
    crm.stack.deliver()  # it finds that it has to wait
    assert state(crm, job) == "waiting"
    pass_time(crm, 1)
    crm.stack.deliver()
    assert state(crm, job) == "succeeded"
    assert len(crm.stack.illu.jobs) == 1


def test_what_a_person_sends_again_is_sent_without_the_dispatcher(crm: Crm) -> None:
    assert crm.create_site(customer_id="C-1").status_code == 201
    made = crm.stack.illu.next_id
    crm.stack.illu.next_id = 4711  # which is linked to C-1
    operation = crm.create_site(customer_id="C-2").json()["operation_id"]
    assert state(crm, operation) == "needs_review"
    crm.stack.illu.next_id = made + 1
    answer = crm.post(f"/operations/{operation}/resolve", {"action": "retry"})
    assert answer.status_code == 200
    crm.stack.deliver()
    assert state(crm, operation) == "succeeded"


def fails(self: Queues, function: str, messages: Sequence[Message]) -> Collection[str]:
    """SQS does not answer, whether it has taken the message or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(self.client, "send_message_batch", _raise(ReadTimeoutError(endpoint_url="queue")))
        return _send(self, function, messages)


def fails_after(self: Queues, function: str, messages: Sequence[Message]) -> Collection[str]:
    _send(self, function, messages)
    return fails(self, function, messages)


def _raise(error: Exception) -> Any:
    def raising(**_: object) -> None:
        raise error

    return raising


@pytest.mark.parametrize("send", [fails, fails_after])
def test_the_caller_gets_the_same_response_when_sqs_does_not_answer(
    crm: Crm, monkeypatch: pytest.MonkeyPatch, send: Any
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Queues, "send", send)
        operation = accept(crm)
    pass_time(crm, 2)
    assert state(crm, operation) == "succeeded"
    pass_time(crm, 20)
    assert (len(crm.stack.illu.sites), sent(crm)) == (1, 1)


@pytest.mark.parametrize("taken", [False, True])
def test_it_is_sent_once_when_the_function_dies_as_it_hands_it_over(
    crm: Crm, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    def dies(self: Queues, function: str, messages: Sequence[Message]) -> Collection[str]:
        if taken:
            _send(self, function, messages)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Queues, "send", dies)
        event = json.loads((ROOT / "events/create_site/new.json").read_text())
        event["headers"]["prefer"] = "respond-async"
        with pytest.raises(KilledError):
            crm.stack.invoke("CreateSiteFunction", event)
    operation = operation_id("demo", "create_site", json.loads(event["body"])["customer_id"])
    pass_time(crm, 2)
    assert state(crm, operation) == "succeeded"
    pass_time(crm, 20)
    assert (len(crm.stack.illu.sites), sent(crm)) == (1, 1)


@pytest.mark.parametrize("seconds", [HANDED_OVER - 1, HANDED_OVER, HANDED_OVER + 1, 900, 3600])
def test_a_message_that_comes_late_is_good_for_one_sending(crm: Crm, seconds: int) -> None:
    """Beside the dispatcher's message, if its lending is over by then."""
    accept(crm)
    crm.stack.move_clock(seconds)
    crm.stack.invoke("DispatcherFunction", {})
    crm.stack.deliver()
    pass_time(crm, 20)
    assert (len(crm.stack.illu.sites), sent(crm)) == (1, 1)


def test_a_message_for_what_was_accepted_before_does_not_send_what_waits_for_its_next_try(crm: Crm) -> None:
    crm.stack.illu.fail(Kind.TOO_MANY, seconds=3600)
    operation = accept(crm)
    stored = runtime().operations.get(operation)
    assert stored
    assert stored.lent_until
    crm.stack.deliver()
    before = sent(crm)
    assert state(crm, operation) == "waiting"
    late = Message(operation, "demo", stored.lent_until)
    crm.stack.invoke(
        "CreateSiteFunction", {"Records": [{"messageId": "late", "body": late.body(), "eventSource": "aws:sqs"}]}
    )
    assert sent(crm) == before

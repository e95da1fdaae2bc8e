"""What is due at once is handed over to its queue."""

import json
from collections.abc import Sequence
from io import StringIO
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from crm_bridge.engine import HANDED_OVER
from crm_bridge.errors import CannotLookError, NotDoneError
from crm_bridge.outbound.queues import Queues
from crm_bridge.storage.operation import State, operation_id
from tests.unit.engine.conftest import Bench, failing, raising


class Sqs:
    """Takes what it is sent, and remembers it."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.takes = True

    def send_message_batch(self, *, QueueUrl: str, Entries: Sequence[dict[str, Any]]) -> object:  # noqa: N803
        if not self.takes:
            return {"Failed": [{"Id": entry["Id"], "Code": "InternalError"} for entry in Entries]}
        self.sent += [{"queue": QueueUrl, **entry} for entry in Entries]
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}


def with_queues(bench: Bench, flow: str) -> Sqs:
    sqs: Any = Sqs()
    queues = Queues(lambda: sqs, {f"{flow.upper()}_QUEUE_URL": "there", f"{flow.upper()}_WORKERS": "3"})
    bench.engine = bench.new_engine(queues=queues)
    handed_over: Sqs = sqs
    return handed_over


def test_what_is_accepted_is_lent_to_the_message_that_is_sent(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    sqs = with_queues(bench, "orders")
    outcome = bench.run(later=True)
    until = int(bench.clock.now) + HANDED_OVER
    assert (outcome.operation.state, outcome.operation.due_at) == (State.WAITING, until)
    (message,) = sqs.sent
    assert "not handed over" not in caplog.messages
    named = operation_id("acme", "orders", "1")
    body = {"operation_id": named, "tenant": "acme", "lent_until": until}
    assert json.loads(message["MessageBody"]) == body
    assert message["MessageDeduplicationId"] == f"{named}#{until}"
    assert message["MessageGroupId"] in ("acme#0", "acme#1")
    assert bench.retry(lent_until=until)
    assert bench.stored().state is State.SUCCEEDED


def test_what_its_queue_does_not_take_is_due_after_a_minute_and_the_log_says_so(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    sqs = with_queues(bench, "orders")
    sqs.takes = False
    assert bench.run(later=True).operation.state is State.WAITING
    assert "not handed over" in caplog.messages
    bench.clock.move(HANDED_OVER)
    assert bench.retry()
    assert bench.stored().state is State.SUCCEEDED


def test_a_webhook_is_lent_to_its_message(told: Bench) -> None:
    sqs = with_queues(told, "webhook")
    told.shop.answers = [failing(NotDoneError)]
    told.run()
    told.wait_until_due()
    told.retry()
    until = int(told.clock.now) + HANDED_OVER
    (message,) = sqs.sent
    assert json.loads(message["MessageBody"])["lent_until"] == until
    sent = told.tables.operations.get(json.loads(message["MessageBody"])["operation_id"])
    assert sent
    assert (sent.due_at, sent.lent_until) == (until, until)


def test_what_has_no_queue_waits_for_the_dispatcher(bench: Bench) -> None:
    sqs = with_queues(bench, "parcels")
    assert bench.run(later=True).operation.state is State.WAITING
    assert sqs.sent == []
    bench.clock.move(HANDED_OVER)
    assert bench.retry()
    assert bench.stored().state is State.SUCCEEDED


def test_what_a_person_decides_is_handed_over(told: Bench) -> None:
    told.shop.answers = [failing(CannotLookError)]
    told.run()
    sqs = with_queues(told, "orders")
    told.engine.request_retry(told.stored(), by="ops")
    assert [json.loads(one["MessageBody"])["operation_id"] for one in sqs.sent] == [told.stored().operation_id]


def test_the_webhook_about_what_a_person_decides_is_handed_over(told: Bench) -> None:
    told.run(later=True)
    told.tables.operations.save(told.stored().model_copy(update={"state": State.NEEDS_REVIEW}), over=State.WAITING)
    sqs = with_queues(told, "webhook")
    told.discard(told.stored())
    (message,) = sqs.sent
    sent = told.tables.operations.get(json.loads(message["MessageBody"])["operation_id"])
    assert sent
    assert sent.function == "webhook"


def test_what_is_sent_at_once_is_lent_to_nobody(bench: Bench) -> None:
    sqs = with_queues(bench, "orders")
    seen: list[int | None] = []
    bench.shop.during = lambda: seen.append(bench.stored().lent_until)
    bench.run()
    assert (seen, sqs.sent) == ([None], [])


def test_the_log_says_why_a_queue_could_not_be_reached(bench: Bench, log: StringIO) -> None:
    sqs = with_queues(bench, "orders")
    sqs.send_message_batch = raising(EndpointConnectionError(endpoint_url="x"))  # type: ignore[method-assign]
    assert bench.run(later=True).operation.state is State.WAITING
    written = [json.loads(line) for line in log.getvalue().splitlines()]
    (line,) = [one for one in written if one["message"] == "not handed over"]
    assert line["exception_name"] == "EndpointConnectionError"

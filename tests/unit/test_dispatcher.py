"""The dispatcher with a backlog that no single run can work through, with the operation table in memory."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import batched, count
from types import SimpleNamespace
from typing import Any

import pytest

from crm_bridge.operations import DUE_PAGE, SHARDS, Due, Operation, State, operation_id
from dispatcher.handler import RESERVE, lambda_handler
from tests.faults.outage import MINUTE, MemoryOperations
from tests.unit.conftest import Clock

BACKLOG = 100_000
TIMEOUT = 60.0
"""Seconds that a run has (template.yaml)."""
LENDING = 0.006
"""Seconds that it takes to lend one and to say that it was sent, with eight of them at once."""


class Backlog(MemoryOperations):
    """So many operations, all due, whose lending takes its time."""

    def __init__(self, now: int) -> None:
        super().__init__()
        self.asked = count()
        self.lent = 0
        for number in range(BACKLOG):
            new = Operation(
                operation_id=operation_id("acme", "create_site", str(number)),
                tenant="acme",
                flow="create_site",
                natural_key=str(number),
                state=State.WAITING,
                fingerprint="",
                due_at=now - number % MINUTE,
                created_at=now,
                updated_at=now,
            )
            self.items[new.operation_id] = new

    def due(self, shard: str, now: int) -> Iterator[Sequence[Due]]:
        for page in super().due(shard, now):
            yield from batched(page, DUE_PAGE, strict=False)

    def lend(self, due: Due, until: int, sent_by: int) -> bool:
        self.lent = next(self.asked) + 1
        return super().lend(due, until, sent_by)


class Queue:
    """How many messages there are for each operation."""

    def __init__(self) -> None:
        self.messages: Counter[str] = Counter()

    def send_message_batch(self, *, QueueUrl: str, Entries: Sequence[Mapping[str, str]]) -> Mapping[str, Any]:  # noqa: ARG002, N803
        self.messages.update(json.loads(entry["MessageBody"])["operation_id"] for entry in Entries)
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}


class Run:
    """One invocation: what it lends takes its time."""

    aws_request_id = "r-1"

    def __init__(self, operations: Backlog) -> None:
        self._operations = operations
        self._before = operations.lent

    def get_remaining_time_in_millis(self) -> int:
        return round(1000 * (TIMEOUT - LENDING * (self._operations.lent - self._before)))


def test_100_000_due_operations_are_put_on_their_queue_once_each_by_runs_that_end_in_time(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREATE_SITE_QUEUE_URL", "a-queue")
    operations, queue = Backlog(int(clock())), Queue()
    runtime = SimpleNamespace(clock=clock, operations=operations, sqs=queue)
    monkeypatch.setattr("dispatcher.handler.runtime", lambda: runtime)
    sent = [0]
    while sent[-1] < BACKLOG:
        run = Run(operations)
        lambda_handler({}, run)
        sent.append(queue.messages.total())
        assert sent[-1] > sent[-2]
        assert run.get_remaining_time_in_millis() > 0
        clock.now += MINUTE
    assert len(sent) - 1 == math.ceil(BACKLOG * LENDING / (TIMEOUT - RESERVE))
    assert not any(page for shard in SHARDS for page in operations.due(shard, int(clock())))
    assert set(queue.messages) == set(operations.items)
    assert set(queue.messages.values()) == {1}

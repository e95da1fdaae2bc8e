"""The dispatcher: what is due gets onto its flow's queue, whatever else is wrong."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import batched
from typing import Any, cast
from unittest.mock import patch

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError

from crm_bridge.engine import HANDED_OVER
from crm_bridge.errors import QueueError, StorageError
from crm_bridge.outbound.queues import Queues
from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import Operation, State, operation_id
from crm_bridge.storage.operation_reader import Due
from crm_bridge.storage.operations import Operations
from dispatcher.handler import LENT, lambda_handler
from local.vendors.simulator import Kind
from tests.integration.conftest import SITE, Crm

DUE = int(os.environ.get("DUE", "300"))
"""So many operations are due at once in the test of a backlog."""


class Hurried:
    """The context of a function whose time is over after so many questions for it."""

    aws_request_id = "hurried"

    def __init__(self, invocations: int) -> None:
        self._each = self._left = invocations

    def begin(self) -> None:
        self._left = self._each

    def get_remaining_time_in_millis(self) -> int:
        self._left -= 10  # operations that a batch has
        return 60_000 if self._left >= 0 else 0


def _raise(error: Exception) -> Any:
    def raising(**_: object) -> None:
        raise error

    return raising


def dispatch(crm: Crm) -> Mapping[str, int]:
    return cast("Mapping[str, int]", crm.stack.invoke("DispatcherFunction", {}))


def messages() -> int:
    """How many wait on create_site's queue."""
    attributes = boto3.client("sqs").get_queue_attributes(
        QueueUrl=os.environ["CREATE_SITE_QUEUE_URL"], AttributeNames=["ApproximateNumberOfMessages"]
    )
    return int(attributes["Attributes"]["ApproximateNumberOfMessages"])


def _stored(number: int) -> None:
    """So many operations of create_site, due, all since the same second."""
    now = int(runtime().clock()) - 1
    for batch in batched(range(number), 25, strict=False):
        puts: list[Any] = []
        for one in batch:
            stored = Operation(
                operation_id=operation_id("demo", "create_site", f"C-{one}"),
                tenant="demo",
                flow="create_site",
                function="create_site",
                event_key=f"C-{one}",
                state=State.WAITING,
                fingerprint="",
                due_at=now,
                created_at=now,
                updated_at=now,
            )
            puts.append({"PutRequest": {"Item": runtime().operations.put(stored)["Put"]["Item"]}})
        boto3.client("dynamodb").batch_write_item(RequestItems={os.environ["OPERATIONS_TABLE"]: puts})


def _due(crm: Crm, customers: int) -> None:
    """Operations of so many customers, waiting and due, because SQS was down when they were accepted."""
    with patch.object(Queues, "send", side_effect=QueueError("down")):
        for number in range(customers):
            site = {**SITE, "customer_id": f"C-{number}", "name": f"Shop {number}"}
            assert crm.post("/sites", site, headers={"Prefer": "respond-async"}).status_code == 202
    crm.stack.move_clock(HANDED_OVER + 1)


def test_dispatches_all_that_is_due_and_nothing_else(crm: Crm) -> None:
    _due(crm, 25)
    crm.stack.illu.fail(Kind.TOO_MANY, seconds=3600)
    assert crm.create_site(customer_id="later").status_code == 202
    assert dispatch(crm) == {"create_site": 25}
    crm.stack.deliver_due()
    assert len(crm.stack.illu.sites) == 25
    assert dispatch(crm) == {}


def test_tells_how_long_the_oldest_has_been_due(crm: Crm, capsys: pytest.CaptureFixture[str]) -> None:
    dispatch(crm)
    assert '"OldestDueAge":[0.0]}' in capsys.readouterr().out
    _due(crm, 2)
    crm.stack.move_clock(400)
    _due(crm, 2)
    dispatch(crm)
    (age,) = re.findall(r'"OldestDueAge":\[(\d+)\.0\]}', capsys.readouterr().out)
    assert HANDED_OVER + 400 <= int(age) < HANDED_OVER + 430


def test_tells_nobody_twice_of_what_is_on_its_queue_until_the_message_has_expired(crm: Crm) -> None:
    _due(crm, 5)
    assert dispatch(crm) == {"create_site": 5}
    assert dispatch(crm) == {}
    crm.stack.move_clock(LENT - 60)
    assert dispatch(crm) == {}
    crm.stack.move_clock(60)
    assert dispatch(crm) == {"create_site": 5}


class _KilledError(BaseException):
    """The function dies here: no handler of the bridge sees it."""


def minutes_until_sent(crm: Crm) -> int:
    """Simulated minutes, with the dispatcher and the workers in each, until there is a site."""
    for minute in range(30):
        if crm.stack.illu.sites:
            return minute
        crm.stack.deliver_due(after=60)
    raise AssertionError("not within half an hour")


def lend_without_a_response(self: Operations, due: Due, until: int, *more: int) -> bool:
    """It is lent, and nobody hears of it."""
    _LEND(self, due, until, *more)
    raise StorageError("no response")


def lend_twice(self: Operations, due: Due, until: int, *more: int) -> Any:
    """The response is lost, and the AWS client's repetition fails on its own success."""
    _LEND(self, due, until, *more)
    return _LEND(self, due, until, *more)


_LEND: Any = Operations.lend


@pytest.mark.parametrize("lend", [lend_without_a_response, lend_twice])
def test_waits_two_minutes_at_most_when_the_response_to_its_lending_is_lost(
    crm: Crm, monkeypatch: pytest.MonkeyPatch, lend: Any
) -> None:
    _due(crm, 1)
    with monkeypatch.context() as changed:
        changed.setattr(Operations, "lend", lend)
        assert dispatch(crm) == {}
    assert minutes_until_sent(crm) <= 2
    assert len(crm.stack.illu.seen) == 1


@pytest.mark.parametrize("taken", [False, True])
def test_waits_two_minutes_at_most_when_the_dispatcher_dies_after_it_has_lent(
    crm: Crm, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    _due(crm, 1)
    real: Any = runtime().queues.client.send_message_batch

    def die(**batch: Any) -> None:
        if taken:
            real(**batch)
        raise _KilledError

    with monkeypatch.context() as changed:
        changed.setattr(runtime().queues.client, "send_message_batch", die)
        with pytest.raises(_KilledError):
            dispatch(crm)
    assert minutes_until_sent(crm) <= (1 if taken else 2)
    crm.stack.deliver_due(after=LENT)
    assert len(crm.stack.illu.seen) == 1


@pytest.mark.parametrize("again", [True, False])
def test_is_sent_once_when_nobody_could_write_down_that_the_queue_has_it(
    crm: Crm, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Two messages then name it, and whichever comes late finds nothing to do."""
    _due(crm, 1)
    with monkeypatch.context() as changed:
        changed.setattr(Operations, "extend", lambda *_: _raise(StorageError("no response"))())
        assert dispatch(crm) == {"create_site": 1}
    crm.stack.move_clock(60)
    if again:
        assert dispatch(crm) == {"create_site": 1}
        assert messages() == 2
    crm.stack.deliver_due()
    assert (len(crm.stack.illu.sites), len(crm.stack.illu.seen)) == (1, 1)


def test_is_sent_once_when_a_slow_run_is_overtaken_by_the_next(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch outlives its own lending, as in https://github.com/langwatch/langwatch/pull/7037."""
    _due(crm, 1)
    real: Any = runtime().queues.client.send_message_batch

    def slow(**batch: Any) -> Any:
        monkeypatch.setattr(runtime().queues.client, "send_message_batch", real)
        crm.stack.move_clock(61)
        assert dispatch(crm) == {"create_site": 1}
        return real(**batch)

    monkeypatch.setattr(runtime().queues.client, "send_message_batch", slow)
    dispatch(crm)
    crm.stack.deliver_due()
    assert (len(crm.stack.illu.sites), len(crm.stack.illu.seen)) == (1, 1)
    crm.stack.move_clock(LENT)
    assert dispatch(crm) == {}


def test_what_waits_on_a_long_queue_is_not_sent_to_it_again(crm: Crm) -> None:
    _due(crm, 3)
    assert dispatch(crm) == {"create_site": 3}
    for _ in range(LENT // 60 - 1):
        crm.stack.move_clock(60)
        assert dispatch(crm) == {}
    assert messages() == 3


def test_carries_an_operation_once_when_it_is_on_the_queue_twice(crm: Crm) -> None:
    _due(crm, 1)
    dispatch(crm)
    crm.stack.move_clock(LENT)
    dispatch(crm)
    crm.stack.deliver_due()
    assert len(crm.stack.illu.sites) == 1
    assert len(crm.stack.illu.seen) == 1


def test_one_of_two_that_run_at_once_dispatches_each_operation(crm: Crm) -> None:
    _due(crm, 30)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: Counter(dispatch(crm)), range(4)))
    assert sum(answers, Counter[str]()) == {"create_site": 30}
    assert messages() == 30


def test_an_operation_stays_due_when_its_queue_does_not_take_it(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    _due(crm, 12)
    real: Any = runtime().queues.client.send_message_batch

    def half(**batch: Any) -> Any:
        failed = [{"Id": entry["Id"], "SenderFault": False, "Code": "InternalError"} for entry in batch["Entries"][::2]]
        taken = batch["Entries"][1::2]
        return (real(QueueUrl=batch["QueueUrl"], Entries=taken) if taken else {}) | {"Failed": failed}

    with monkeypatch.context() as changed:
        changed.setattr(runtime().queues.client, "send_message_batch", half)
        sent = dispatch(crm)["create_site"]
    assert 0 <= sent < 12
    with monkeypatch.context() as changed:
        changed.setattr(
            runtime().queues.client, "send_message_batch", _raise(EndpointConnectionError(endpoint_url="queue"))
        )
        assert dispatch(crm) == {}
    assert dispatch(crm) == {"create_site": 12 - sent}
    crm.stack.deliver_due()
    assert len(crm.stack.illu.sites) == 12


def test_the_rest_is_dispatched_by_the_next_runs_when_there_is_more_than_one_can_do(
    crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crm_bridge.storage.operation_reader.DUE_PAGE", 20)
    _stored(DUE)
    context = Hurried(invocations=DUE // 5)
    runs, sent = 0, 0
    while sent < DUE:
        sent += sum(cast("Mapping[str, int]", lambda_handler({}, context)).values())
        runs += 1
        context.begin()
        assert runs <= 10
    assert runs > 1
    assert (sent, messages()) == (DUE, DUE)
    assert dispatch(crm) == {}


def test_dispatches_the_others_when_one_belongs_to_a_flow_without_a_queue(
    crm: Crm, capsys: pytest.CaptureFixture[str]
) -> None:
    _due(crm, 3)
    now = int(runtime().clock()) - 1
    orphan = Operation(
        operation_id=operation_id("demo", "gone", "1"),
        tenant="demo",
        flow="gone",
        function="gone",
        event_key="1",
        state=State.WAITING,
        fingerprint="",
        due_at=now,
        created_at=now,
        updated_at=now,
    )
    runtime().operations.create(orphan, over=[State.REJECTED])
    assert dispatch(crm) == {"create_site": 3}
    assert '"NotDispatched":[1.0]}' in capsys.readouterr().out


def test_dispatches_the_others_when_a_shard_cannot_be_read(
    crm: Crm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _due(crm, 20)
    real = Operations.due
    stored = runtime().operations.many([operation_id("demo", "create_site", f"C-{number}") for number in range(20)])
    unread = stored[operation_id("demo", "create_site", "C-0")].shard
    hidden = sum(one.shard == unread for one in stored.values())

    def due(self: Operations, shard: str, now: int) -> Iterator[Sequence[Due]]:
        if shard == unread:
            raise StorageError("throttled")
        return real(self, shard, now)

    with monkeypatch.context() as changed:
        changed.setattr(Operations, "due", due)
        assert dispatch(crm) == {"create_site": 20 - hidden}
    assert hidden >= 1
    assert "OldestDueAge" not in capsys.readouterr().out  # nobody knows, and what is missing raises the alarm

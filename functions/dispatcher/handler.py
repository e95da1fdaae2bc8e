"""Entry of dispatcher: puts every operation that is due on its flow's queue.

It lends an operation to its message before it sends that: only for as long as the run can last, and once the queue has
taken the message for as long as that lives. So no operation is on a queue twice, unless a write fails; a run that ends
early leaves the rest to the next one, and what it had lent without sending a message is due again within a minute.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import batched
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from crm_bridge.api import Context
from crm_bridge.errors import StorageError
from crm_bridge.operations import SHARDS, Due
from crm_bridge.runtime import runtime
from crm_bridge.telemetry import bind_log, count, logger, measure

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

LENT = 900
"""Seconds for which an operation belongs to its message: as long as the queues keep one (template.yaml)."""
LONGEST_RUN = 60
"""Seconds after which a run sends no message any more: the function's timeout (template.yaml)."""
RESERVE = 5.0
"""Seconds at the end of its time in which it begins nothing more."""
SHARDS_AT_ONCE = 8
SQS_BATCH = 10


@dataclass
class Dispatched:
    """What came of one shard: how many of each flow were put on its queue, and of which flows some were left.

    `oldest` is since when the first of what was found due has been so; None if it was not read or nothing was due.
    """

    sent: Counter[str] = field(default_factory=Counter)
    left: set[str] = field(default_factory=set)
    errors: set[str] = field(default_factory=set)
    oldest: int | None = None
    is_read: bool = True


def lambda_handler(event: Mapping[str, Any], context: Context) -> Mapping[str, object]:  # noqa: ARG001
    bind_log(flow="dispatcher", request_id=context.aws_request_id)
    now = int(runtime().clock())
    _ = runtime().sqs  # made by one thread, for all

    def has_time() -> bool:
        return context.get_remaining_time_in_millis() > RESERVE * 1000

    with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
        shards = list(pool.map(partial(_dispatch, now, has_time), SHARDS))
    sent: Counter[str] = sum((shard.sent for shard in shards), Counter())
    for flow in sorted(set[str]().union(*(shard.left for shard in shards))):
        count("NotDispatched", flow=flow)
    if all(shard.is_read for shard in shards):  # what is not told raises the alarm as well
        oldest = min((shard.oldest for shard in shards if shard.oldest is not None), default=now)
        measure("OldestDueAge", now - oldest, "Seconds")
    errors = sorted(set[str]().union(*(shard.errors for shard in shards)))
    is_through = has_time()
    logger().info("dispatched", extra={"dispatched": sent, "errors": errors, "is_through": is_through})
    return sent


def _dispatch(now: int, has_time: Callable[[], bool], shard: str) -> Dispatched:
    done = Dispatched()
    try:
        for page in runtime().operations.due(shard, now):
            if page and done.oldest is None:  # the oldest comes first
                done.oldest = page[0].due_at
            by_flow: dict[str, list[Due]] = {}
            for due in page:
                by_flow.setdefault(due.function, []).append(due)
            for flow, of_flow in by_flow.items():
                for batch in batched(of_flow, SQS_BATCH, strict=False):
                    if not has_time():
                        return done
                    _enqueue(flow, batch, now, done)
    except StorageError:  # the other shards need not wait for this one
        done.is_read = False
        done.left.add("unknown")
        done.errors.add(f"shard {shard} not read")
    return done


def _body(due: Due, until: int) -> str:
    return json.dumps({"operation_id": due.operation_id, "tenant": due.tenant, "lent_until": until})


def _enqueue(flow: str, batch: Sequence[Due], now: int, done: Dispatched) -> None:
    """Those that the queue does not take are due as before, so the next run sends them."""
    queue = os.environ.get(f"{flow.upper()}_QUEUE_URL")
    if queue is None:
        done.left.add(flow)
        done.errors.add(f"{flow} has no queue")
        return
    until, sent_by, lent = now + LENT, now + LONGEST_RUN, []
    for due in batch:
        try:
            if runtime().operations.lend(due, until, sent_by):
                lent.append(due)
        except StorageError:
            done.left.add(flow)
            done.errors.add(f"{flow} not lent")
    if not lent:
        return
    entries: list[SendMessageBatchRequestEntryTypeDef] = [
        {"Id": str(number), "MessageBody": _body(due, until)} for number, due in enumerate(lent)
    ]
    taken: set[str] = set()
    try:
        answer = runtime().sqs.send_message_batch(QueueUrl=queue, Entries=entries)
        taken = {success["Id"] for success in answer.get("Successful", [])}
    except (ClientError, BotoCoreError) as error:  # one flow's queue must not stop the others
        done.errors.add(f"queue of {flow}: {type(error).__name__}")
    done.sent[flow] += len(taken)
    for number, due in enumerate(lent):
        settle = runtime().operations.extend if str(number) in taken else runtime().operations.take_back
        if str(number) not in taken:
            done.left.add(flow)
        with suppress(StorageError):  # then it is due a minute later; if there is a message, that does no harm
            settle(due, until, sent_by)

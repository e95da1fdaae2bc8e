"""Entry of dispatcher: puts operations that are due on their function's queue, in fair shares by tenant.

It lends an operation to its message before it sends that: only for as long as the run can last, and once the queue has
taken the message for as long as that lives. So no operation is on a queue twice, unless a write fails; a run that ends
early leaves the rest to the next one, and what it had lent without sending a message is due again within a minute.

A tenant has at most its share of a queue, what was lent to it before included, and tenants take turns, one operation
each. So a tenant below its share gets its oldest operation onto the queue in the first run after it is due, before the
second one of any other, whatever others have.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import batched, chain, islice, product, zip_longest
from typing import Any

from crm_bridge.errors import QueueError, StorageError
from crm_bridge.inbound.api import LambdaContext
from crm_bridge.outbound.queues import BATCH, Message
from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import SHARDS
from crm_bridge.storage.operation_reader import Due
from crm_bridge.telemetry import bind_log, count, logger, measure

LENT = 900
"""Seconds for which an operation belongs to its message: as long as the queues keep one (template.yaml)."""
LONGEST_RUN = 60
"""Seconds after which a run sends no message any more: the function's timeout (template.yaml)."""
RESERVE = 5.0
"""Seconds at the end of its time in which it begins nothing more."""
AT_ONCE = 8
"""Calls of DynamoDB at once; its client has ten connections."""
PER_WORKER = 250
"""Operations on a queue for each of its workers: about two minutes of work, so that none is idle until the next run."""
SMALLEST_SHARE = 10
"""Operations that a tenant may have on a queue, however many tenants there are."""
MOST_COUNTED = 1000
"""Tenants of which a run counts what is lent, some five seconds' work. Of more it would use up the run's time."""


@dataclass
class Run:
    """One run, and its outcome by function: operations put on the queue, and functions of which some were left."""

    now: int
    has_time: Callable[[], bool]
    calls: ThreadPoolExecutor
    sent: Counter[str] = field(default_factory=Counter)
    left: set[str] = field(default_factory=set)
    errors: set[str] = field(default_factory=set)


def lambda_handler(event: Mapping[str, Any], context: LambdaContext) -> Mapping[str, object]:  # noqa: ARG001
    bind_log(flow="dispatcher", request_id=context.aws_request_id)
    now = int(runtime().clock())
    _ = runtime().queues.client  # made by one thread, for all

    def has_time() -> bool:
        return context.get_remaining_time_in_millis() > RESERVE * 1000

    with ThreadPoolExecutor(AT_ONCE) as calls:
        run = Run(now, has_time, calls)
        due = list(chain(*calls.map(partial(_read, run), SHARDS)))
        if not run.left:  # if a shard was not read nobody knows; the missing metric raises the alarm as well
            oldest = min((one.due_at for one in due), default=now)
            measure("OldestDueAge", now - oldest, "Seconds")
        with suppress(StorageError):  # the next run tells it
            in_review = calls.map(runtime().operations.oldest_in_review, SHARDS)
            oldest = min((since for since in in_review if since is not None), default=now)
            measure("OldestReviewAge", now - oldest, "Seconds")
        by_function = _by_function(due)
        lent = _lent(run, sorted({one.tenant for one in due})[:MOST_COUNTED])
        with ThreadPoolExecutor(len(by_function) or 1) as senders:
            list(senders.map(lambda function: _dispatch(run, function, by_function[function], lent), by_function))
    for function in sorted(run.left):
        count("NotDispatched", flow=function)
    sent = +run.sent  # without the functions of which none was taken
    logger().info("dispatched", extra={"dispatched": sent, "errors": sorted(run.errors), "is_through": has_time()})
    return sent


def _read(run: Run, shard: str) -> Sequence[Due]:
    found: list[Due] = []
    try:
        for page in runtime().operations.due(shard, run.now):
            found += page
    except StorageError:  # the other shards need not wait for this one
        run.left.add("unknown")
        run.errors.add(f"shard {shard} not read")
    return found


def _by_function(due: Iterable[Due]) -> dict[str, dict[str, deque[Due]]]:
    """Return what is due of each tenant, the oldest first, by function and tenant."""
    found: dict[str, dict[str, deque[Due]]] = {}
    for one in sorted(due, key=lambda one: one.due_at):
        found.setdefault(one.function, {}).setdefault(one.tenant, deque()).append(one)
    return found


def _lent(run: Run, tenants: Sequence[str]) -> dict[str, Counter[str]]:
    """Count what is lent to messages, of each tenant by function. What cannot be read counts as nothing."""

    def lent(tenant: str, shard: str) -> Counter[str]:
        try:
            return runtime().operations.lent(shard, tenant, run.now, run.now + LENT)
        except StorageError:
            run.errors.add(f"lent of shard {shard} not read")
            return Counter()

    counts: dict[str, Counter[str]] = {tenant: Counter() for tenant in tenants}
    pairs = list(product(tenants, SHARDS))
    for (tenant, _), some in zip(pairs, run.calls.map(lambda pair: lent(*pair), pairs), strict=True):
        counts[tenant].update(some)
    return counts


def _dispatch(run: Run, function: str, due: Mapping[str, deque[Due]], lent: Mapping[str, Counter[str]]) -> None:
    """Put what is due of each tenant on the queue, up to its share."""
    queues = runtime().queues
    if function not in queues:
        run.left.add(function)
        run.errors.add(f"{function} has no queue")
        return
    share = max(SMALLEST_SHARE, PER_WORKER * queues.workers[function] // len(due))
    rooms = {tenant: max(0, share - lent[tenant][function] if tenant in lent else share) for tenant in due}
    chosen = [list(islice(of_tenant, rooms[tenant])) for tenant, of_tenant in due.items()]
    in_turns = (one for turn in zip_longest(*chosen) for one in turn if one)
    for batch in batched(in_turns, BATCH, strict=False):  # one after the other, so that the order is kept
        if not run.has_time():
            return
        _enqueue(run, batch)


def _enqueue(run: Run, batch: Sequence[Due]) -> None:
    """Lend a batch and put it on its queue. The next run sends what the queue did not take."""
    function, until, sent_by = batch[0].function, run.now + LENT, run.now + LONGEST_RUN

    def lend(due: Due) -> bool:
        try:
            return runtime().operations.lend(due, until, sent_by)
        except StorageError:
            run.left.add(function)
            run.errors.add(f"{function} not lent")
            return False

    lent = [due for due, is_lent in zip(batch, run.calls.map(lend, batch), strict=True) if is_lent]
    if not lent:
        return
    taken: Collection[str] = ()
    try:
        taken = runtime().queues.send(function, [Message(due.operation_id, due.tenant, until) for due in lent])
    except QueueError as error:  # one function's queue must not stop the others
        run.errors.add(f"queue of {function}: {error}")
    run.sent[function] += len(taken)
    if len(taken) < len(lent):
        run.left.add(function)

    def settle(due: Due) -> None:
        change = runtime().operations.extend if due.operation_id in taken else runtime().operations.take_back
        with suppress(StorageError):  # then it is due a minute later; if there is a message, that does no harm
            change(due, until, sent_by)

    list(run.calls.map(settle, lent))

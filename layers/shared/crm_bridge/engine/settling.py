"""Writes the end of an attempt: the operation, its links, the webhook and what the flow adds, in one transaction."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import batched
from typing import TYPE_CHECKING, TypedDict

from crm_bridge.engine.context import Ending
from crm_bridge.engine.decide import Decision
from crm_bridge.engine.policy import HANDED_OVER, MOST_ENDINGS
from crm_bridge.engine.states import DUE
from crm_bridge.errors import Event, LinkTakenError, OvertakenError, QueueError, StorageError
from crm_bridge.outbound.queues import BATCH, Message, Queues
from crm_bridge.storage.links import Links
from crm_bridge.storage.operation import Operation, State
from crm_bridge.storage.operations import Operations
from crm_bridge.telemetry import count, log_result, logger
from crm_bridge.webhooks import webhook

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef


class DueTimes(TypedDict):
    due_at: int
    lent_until: int | None


class Settling:
    """Writes what became of operations, and hands over those that are due. Threads may share it."""

    def __init__(self, operations: Operations, links: Links, queues: Queues | None, clock: Callable[[], float]) -> None:
        self._operations = operations
        self._links = links
        self._queues = queues
        self._clock = clock

    def settle(self, held: Operation, decision: Decision, ending: Ending | None = None) -> Operation:
        """Write the operation of `decision` in the place of `held`, and return what the table has afterwards.

        That is the new operation; or what a later holder of the lease wrote; or `held` if the storage failed: then it
        is continued when its lease is over. Raises OvertakenError, LinkTakenError.
        """
        changed = decision.operation
        if changed.state is State.REJECTED and held.was is not None:
            count("RefusedLater", flow=held.flow)  # the caller got 202, so nobody sees the refusal in a response
        if decision.waits_for is None:
            return self._settle(held, decision, ending)
        return self._settle_as_waiter(held, decision, decision.waits_for, ending)

    def _settle(
        self,
        held: Operation,
        decision: Decision,
        ending: Ending | None = None,
        note: "Sequence[TransactWriteItemTypeDef]" = (),
    ) -> Operation:
        changed, event, links = decision.operation, decision.event, decision.links
        assert event
        writes = [*note, *self._links.puts(held.tenant, links, held.operation_id, changed.updated_at)]
        if decision.payload_until:
            writes.append(self._operations.keep_payload(held, decision.payload_until))
        news = self.news(changed) if decision.notify else None
        if news:
            writes.append(self._operations.put(news))
        try:
            stored = self.write(changed, event, writes, ending)
        except StorageError:
            stored = held
        if stored is held or stored.lease != held.lease:
            # A person who has to decide later needs the ids that would be lost here.
            ids = [f"{link.right.system} {link.right.entity} {link.right.id}" for link in links]
            logger().error("not settled", extra={"event": event, "state": changed.state, "made": ids})
            count("NotSettled", flow=held.flow)
            return stored
        log_result(event, stored.state, stored.tries, changed.attempts[-1].status)
        count("Operations", flow=stored.flow, state=stored.state)
        if stored.state is State.NEEDS_REVIEW:
            count("NeedsReview", reason=changed.attempts[-1].event)
        self.hand_over(news)
        self.wake_waiters(stored)
        return stored

    def _settle_as_waiter(
        self, held: Operation, decision: Decision, waits_for: str, ending: Ending | None
    ) -> Operation:
        """Do what `_settle` does, and note in the operation `waits_for` that it has to wake this one when it has ended.

        One transaction writes both, so whatever ends the other operation sees either a waiter that is stored as
        waiting, or none; and if the other one has ended already, its state shows that here. The waking is a write after
        that end. It is not in the transaction that settles, because a waiter that is on a queue or being sent would
        make that transaction fail. If the function dies before it, the waiter is sent at its own next attempt, as it
        would be without a note.
        """
        try:
            return self._settle(
                held, decision, ending, note=[self._operations.note_waiter(waits_for, held.operation_id)]
            )
        except LinkTakenError:  # it has ended meanwhile, or enough others wait for it
            with suppress(StorageError):
                ended = self._operations.get(waits_for)
                if ended and ended.state is State.SUCCEEDED:
                    due = decision.operation.model_copy(update=self.at_once(int(self._clock())))
                    decision = replace(decision, operation=due)
            saved = self._settle(held, decision, ending)
            self.hand_over(saved)
            return saved

    def write(
        self,
        changed: Operation,
        event: Event,
        writes: "Sequence[TransactWriteItemTypeDef]",
        ending: Ending | None,
        *,
        over: State = State.SENDING,
        lease: str | None = None,
    ) -> Operation:
        """Save the operation with these writes and those of `ending`; again with other ones if it adapts them.

        Raises OvertakenError, LinkTakenError, StorageError.
        """
        for _ in range(MOST_ENDINGS):
            try:
                along = ending.writes(changed, event) if ending else ()
                return self._operations.save(changed, writes, over=over, along=along, lease=lease)
            except OvertakenError as overtaken:
                if ending is None or not ending.adapts(event, overtaken.there):
                    raise
        raise StorageError("What ends with it changes again and again.")

    def news(self, settled: Operation) -> Operation:
        """Return the operation that sends the tenant a webhook about `settled`."""
        return webhook(settled).model_copy(update=self.at_once(settled.updated_at))

    def wake_waiters(self, ended: Operation) -> None:
        """Make the operations due that wait for this one, if it has ended: at most MOST_WAITERS writes.

        If a write fails, its waiter is sent at its own next attempt.
        """
        if ended.state in DUE or ended.state is State.NEEDS_REVIEW:
            return
        for waiter in sorted(ended.waiters):
            now = int(self._clock())
            with suppress(StorageError):
                self.hand_over(self._operations.wake(waiter, ended.tenant, now, **self.at_once(now)))

    def at_once(self, now: int) -> DueTimes:
        """Return the times of an operation that is due now, and that `hand_over` puts on its queue."""
        handed_over = now + HANDED_OVER if self._queues else None
        return {"due_at": handed_over or now, "lent_until": handed_over}

    def hand_over(self, *operations: Operation | None) -> None:
        """Put each on its function's queue, if it was written with the times of `at_once`; ten of a function in a call.

        If that fails, or the function dies before it, the operation is due when HANDED_OVER is over, and the dispatcher
        finds it. A message that arrives later than that does no more harm than one of the dispatcher's
        (`Operations.lend`).
        """
        queues = self._queues
        if queues is None:
            return
        messages = defaultdict[str, list[Message]](list)
        for one in operations:
            if one and one.lent_until is not None and one.function in queues:
                messages[one.function].append(Message(one.operation_id, one.tenant, one.lent_until))
        for function, of_function in messages.items():
            for some in batched(of_function, BATCH, strict=False):
                try:
                    if len(queues.send(function, some)) < len(some):
                        logger().warning("not handed over")
                except QueueError as error:
                    logger().warning("not handed over", extra={"exception_name": str(error)})

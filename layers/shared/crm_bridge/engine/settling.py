"""Writes the end of an attempt: the operation, its links, the webhook and what the flow adds, in one transaction."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import batched
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from crm_bridge.engine.decide import Decision
from crm_bridge.engine.policy import HANDED_OVER, MOST_ENDINGS
from crm_bridge.engine.states import DUE
from crm_bridge.errors import Event, LinkTakenError, OvertakenError, QueueError, StorageError
from crm_bridge.outbound.queues import BATCH, Message, Queues
from crm_bridge.storage.links import Links
from crm_bridge.storage.operation import Operation, State
from crm_bridge.storage.operations import Operations
from crm_bridge.telemetry import add_to_log, count, log_result, logger
from crm_bridge.webhooks import webhook

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef


class DueTimes(TypedDict):
    due_at: int
    lent_until: int | None


class Ending(Protocol):
    """What a flow writes in the transaction that settles its operation."""

    def writes(self, settled: Operation, event: Event) -> "Sequence[TransactWriteItemTypeDef]": ...

    def adapts(self, event: Event, there: Sequence[Mapping[str, Any] | None]) -> bool:
        """Return whether it has other writes for the items that the tables have instead (see OvertakenError)."""


@dataclass(frozen=True)
class Unsettled:
    """The end of an event that was done, and that is still to be written. `alone` writes it by itself."""

    settling: "Settling"
    held: Operation
    decision: Decision
    alone: Callable[[], object]

    def writes(self) -> "Sequence[TransactWriteItemTypeDef]":
        return self.settling.writes(self.held, self.decision)

    def is_written(self) -> None:
        add_to_log(operation_id=self.held.operation_id)
        self.settling.is_settled(self.decision.operation, self.decision)


@dataclass
class Together:
    """The end of an event and of one that it required, in one transaction.

    If the other one's part cannot be written, that is settled by itself, and this event is not done yet.
    """

    other: Unsettled
    ending: Ending | None
    is_over: bool = False
    """Whether the other one is settled."""
    _own: int = 0

    def writes(self, settled: Operation, event: Event) -> "Sequence[TransactWriteItemTypeDef]":
        own = self.ending.writes(settled, event) if self.ending else ()
        self._own = len(own)
        return [*own, *(() if self.is_over else self.other.writes())]

    def adapts(self, event: Event, there: Sequence[Mapping[str, Any] | None]) -> bool:
        own, others = there[: self._own], there[self._own :]
        if any(item is not None for item in others):
            self.end_other()
        if any(item is not None for item in own):
            return self.ending is not None and self.ending.adapts(event, own)
        return event is not Event.DONE

    def end(self, *, is_written: bool) -> None:
        """After the event was settled, or could not be."""
        if not is_written:
            self.end_other()
        elif not self.is_over:
            self.is_over = True
            self.other.is_written()

    def end_other(self) -> None:
        if not self.is_over:
            self.is_over = True
            self.other.alone()


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
        news = self.news(changed) if decision.notify else None
        writes = [*note, *self._follow(held, decision, news)]
        try:
            stored = self.write(changed, event, writes, ending)
        except StorageError:
            stored = held
        is_settled = stored is not held and stored.lease == held.lease
        if isinstance(ending, Together):
            ending.end(is_written=is_settled)
            add_to_log(operation_id=held.operation_id)
        if not is_settled:
            # A person who has to decide later needs the ids that would be lost here.
            ids = [f"{link.right.system} {link.right.entity} {link.right.id}" for link in links]
            logger().error("not settled", extra={"event": event, "state": changed.state, "made": ids})
            count("NotSettled", flow=held.flow)
            return stored
        self.is_settled(stored, decision)
        self.hand_over(news)
        return stored

    def _follow(self, held: Operation, decision: Decision, news: Operation | None) -> "list[TransactWriteItemTypeDef]":
        """Return what is written with the operation: its links, its payload, its calls, and the webhook."""
        changed = decision.operation
        writes = [*self._links.puts(held.tenant, decision.links, held.operation_id, changed.updated_at)]
        if decision.payload_until:
            writes.append(self._operations.keep_payload(held, decision.payload_until))
        if decision.exchange:
            writes.append(self._operations.exchanges.put(changed, decision.exchange, decision.exchange_until))
        if news:
            writes.append(self._operations.put(news))
        return writes

    def writes(self, held: Operation, decision: Decision) -> "Sequence[TransactWriteItemTypeDef]":
        """Return all that settles an operation of which nobody is told, for the transaction that settles another."""
        return [self._operations.settled(decision.operation), *self._follow(held, decision, None)]

    def is_settled(self, stored: Operation, decision: Decision) -> None:
        """Log and count what was written, and wake those that have waited for it."""
        attempt = decision.operation.attempts[-1]
        assert decision.event
        log_result(decision.event, stored.state, stored.tries, attempt.status)
        count("Operations", flow=stored.flow, state=stored.state)
        if stored.state is State.NEEDS_REVIEW:
            count("NeedsReview", reason=attempt.event)
        self.wake_waiters(stored)

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
        raise StorageError("The operations that end with it change again and again.")

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

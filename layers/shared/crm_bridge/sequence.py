"""Changes of one thing at a vendor are made one after the other; of what is late, only what is newer counts."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crm_bridge.errors import (
    Event,
    HalfDoneError,
    MaybeDoneError,
    NotDoneError,
    SignInPausedError,
    SignInRefusedError,
    StorageError,
    UnavailableError,
    VendorError,
)
from crm_bridge.outbound.transport import AFTER_DEADLINE, SHORTEST_CALL
from crm_bridge.storage.operation import Operation, State

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

    from crm_bridge.engine import Context
from crm_bridge.storage.locks import Lock, Locks, Note

NO_SIGN_IN = "none"
"""Of turns whose sign-in is looked after elsewhere."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two questions whether the turn has come; each pause is longer than the one before."""
FINISHED = frozenset({State.SUCCEEDED, State.REJECTED})
"""What needs review is not: a person may send it again, or say that it shall not be done."""


@dataclass
class Turn:
    """A turn that somebody has, and how it ends: in the transaction that settles the operation. See `engine.Ending`."""

    turns: "Turns"
    lock: Lock
    notes: frozenset[Note]
    """Its own, and those of operations that are finished."""
    fresh: Mapping[str, int] = field(default_factory=dict)
    """To what it may be applied, and when that happened."""
    is_on_its_way: bool = False
    """Whether something that was sent may still arrive."""
    keeps_notes: bool = False
    is_over: bool = False

    def writes(self, settled: Operation, event: Event) -> "Sequence[TransactWriteItemTypeDef]":  # noqa: ARG002
        return self.ends(settled)

    def ends(self, settled: Operation, *, is_done: bool = False) -> "Sequence[TransactWriteItemTypeDef]":
        """Return the write that ends it. `is_done` tells whoever finds what was changed (see `Locks.finding`)."""
        if self.is_over:
            return ()
        counts = settled.state is State.SUCCEEDED or settled.unconfirmed_since is not None
        ended = int(self.turns.clock() * 1000) if is_done else None
        return [{"Update": self.turns.locks.ending(*self._end(counts), ended=ended)}]

    def adapts(self, event: Event, there: object) -> bool:  # noqa: ARG002 - whatever it is
        """Nothing is written of a turn that was over: its note stays until the operation has another."""
        self.is_over = True
        return event is not Event.DONE

    def wait_for_newer(self) -> None:
        """Raises NotYetError while a newer one is not finished whose function has had the turn and was killed."""
        turns = self.turns
        newer = [note for note in self.lock.notes - self.notes if note.at > self.fresh.get(note.what, note.at)]
        for operation_id in {note.operation_id for note in newer}:
            operation = turns.context.operations.get(operation_id)
            if operation and operation.state not in FINISHED:
                turns.context.wait_for(operation, "a newer one is on its way, and comes first")
        self.notes |= frozenset(newer)

    @contextmanager
    def during(self, sign_in: str = NO_SIGN_IN) -> Iterator[None]:
        """Note, around the work, what may still arrive; end the turn where nothing settles it."""
        try:
            yield
        except SignInRefusedError as error:  # it may be tried again at once, with other credentials
            is_paused = isinstance(error, SignInPausedError) and sign_in != NO_SIGN_IN
            self.end(refused=sign_in if is_paused else None)
            raise
        except MaybeDoneError as error:
            self.is_on_its_way = error.is_on_its_way
            if error.is_on_its_way:
                error.message += "; it is sent again, which does no harm"
            raise
        except UnavailableError as error:
            raise HalfDoneError(error.detail, vendor=self.turns.vendor) from error
        except VendorError:
            raise
        except Exception:
            self.end(is_defect=True)
            raise

    def end(self, *, refused: str | None = None, is_defect: bool = False) -> None:
        """End it now, because there is more to come, or nothing that could be settled."""
        if self.is_over:
            return
        self.is_over = True
        operation = self.turns.context.operation
        counts = is_defect or (operation is not None and operation.unconfirmed_since is not None)
        with suppress(StorageError):  # then it ends by itself
            self.turns.locks.end_turn(*self._end(counts), refused=refused)

    def _end(self, counts: bool) -> tuple[str, str, str, int, Mapping[str, int], frozenset[Note]]:
        turns = self.turns
        free_at = self.lock.busy_until if self.is_on_its_way else int((turns.clock() + turns.spacing) * 1000)
        applied = self.fresh if counts else {}
        notes = frozenset() if self.keeps_notes else self.notes
        return turns.tenant, turns.name, self.lock.holder, free_at, applied, notes


@dataclass(frozen=True)
class Turns:
    """The turns at one thing at a vendor. `spacing`: seconds from the end of one to the begin of the next."""

    context: "Context"
    name: str
    vendor: str
    spacing: float = 0.0

    @property
    def locks(self) -> "Locks":
        return self.context.services.locks

    @property
    def clock(self) -> Callable[[], float]:
        return self.context.clock

    @property
    def tenant(self) -> str:
        return self.context.tenant

    def apply[T](self, what: str, occurred_at: int, work: Callable[[], T], *, sign_in: str = NO_SIGN_IN) -> T | None:
        """Return the same as `apply_each`, of one thing."""
        return self.apply_each({what: occurred_at}, lambda _: work(), sign_in=sign_in)

    def apply_each[T](
        self, times: Mapping[str, int], work: Callable[[Set[str]], T], *, sign_in: str = NO_SIGN_IN
    ) -> T | None:
        """Return what `work` gives when its turn has come. It gets those of `times` that nothing later was applied to.

        None if there are none of them. `times` are in epoch microseconds. The turn ends when the operation of the run
        is settled. `work` must be something that can be done twice without harm.
        `sign_in` stands for the credentials. Raises NotDoneError if the turn does not come in time, or a newer one that
        is not finished comes first, SignInPausedError if these credentials were refused before, StorageError, and what
        `work` raises.
        """
        turn = self.context.ending
        if not isinstance(turn, Turn) or turn.turns.name != self.name or turn.is_over:
            if isinstance(turn, Turn):  # it was at something else
                turn.end()
            turn = self.begin(times, sign_in=sign_in)
        if not turn.fresh:
            return None
        turn.wait_for_newer()
        with turn.during(sign_in):
            return work(turn.fresh.keys())

    def may_be_applied(self, what: str) -> bool:
        """Return whether another run has applied anything to `what` before the turn that this one has, or was killed
        while it did so."""
        turn = self.context.ending
        if not isinstance(turn, Turn):
            return False
        return what in turn.lock.applied or any(note.what == what for note in turn.lock.notes - turn.notes)

    def begin(self, times: Mapping[str, int], *, sign_in: str = NO_SIGN_IN) -> Turn:
        """Return a turn that ends with the run's operation. Raises NotDoneError, SignInPausedError, StorageError."""
        operation = self.context.operation
        assert operation
        mine = _notes(operation, times)
        turn = self._turn(self._take(mine, sign_in), mine, times)
        self.context.ending = turn
        return turn

    def taking(
        self, times: Mapping[str, int], read: Lock, operation: Operation
    ) -> "tuple[TransactWriteItemTypeDef, Turn] | None":
        """Return the write that takes the turn for an operation that it claims, and the turn; None if another has it.

        The write fails if another has had the turn since the row was `read`.
        """
        if read.busy_until > self.clock() * 1000:
            return None
        mine, holder, until = _notes(operation, times), operation.lease or "", (operation.due_at or 0) * 1000
        write = self.locks.taking(self.tenant, self.name, mine, read, holder=holder, until=until)
        lock = Lock(holder, until, applied=read.applied, notes=read.notes | mine)
        return {"Update": write}, self._turn(lock, mine, times)

    def _turn(self, lock: Lock, mine: frozenset[Note], times: Mapping[str, int]) -> Turn:
        fresh = {what: at for what, at in times.items() if lock.applied.get(what, 0) <= at}
        return Turn(self, lock, mine, fresh)

    def _take(self, notes: frozenset[Note], sign_in: str) -> "Lock":
        holder, deadline = uuid.uuid4().hex, self.context.deadline
        longest = SHORTEST_PAUSE
        while True:
            now = self.clock()
            until = now + deadline.remaining() + AFTER_DEADLINE
            lock = self.locks.take_turn(
                self.tenant,
                self.name,
                holder=holder,
                now=int(now * 1000),
                until=int(until * 1000),
                sign_in=sign_in,
                notes=notes,
            )
            if lock.holder == holder:
                return lock
            if sign_in in lock.refused:
                raise SignInPausedError(
                    f"{self.vendor} refused this login. It is not used again until the tenant's secret changes",
                    vendor=self.vendor,
                )
            # Whoever has the turn mostly ends it long before its time.
            longest = min(2 * longest, LONGEST_PAUSE)
            pause = min(max(SHORTEST_PAUSE, lock.busy_until / 1000 - now), longest)
            if deadline.remaining() - pause < 2 * SHORTEST_CALL:
                raise NotDoneError("other changes come first", vendor=self.vendor)
            time.sleep(pause)


def _notes(operation: Operation, times: Mapping[str, int]) -> frozenset[Note]:
    return frozenset(Note(operation.operation_id, at, what) for what, at in times.items())

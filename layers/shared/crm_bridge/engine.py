"""The engine: carries one operation to its vendor with one effect, whatever fails on the way.

It is the only place that knows the states and what follows what. A flow tells it how to name an event, how to send it,
how to find out whether it is there already, and what to link; see `Flow`.
"""

import math
import random
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, runtime_checkable

from pydantic import BaseModel

from crm_bridge.callbacks import callback
from crm_bridge.errors import (
    CannotLookError,
    ConflictError,
    ContractBrokenError,
    ErasedError,
    Event,
    FieldError,
    LinkTakenError,
    MissingError,
    NeedlessError,
    NotDoneError,
    NotShownError,
    NotYetError,
    OvertakenError,
    PoisonError,
    QueueError,
    RefusedError,
    RunningError,
    SeveralFoundError,
    SignInRefusedError,
    StorageError,
    TryLaterError,
    UnavailableError,
    UnconfirmedError,
    VendorError,
)
from crm_bridge.fields import compared
from crm_bridge.links import Identity, Link, Links
from crm_bridge.operations import (
    ERASED,
    Attempt,
    Candidate,
    Claim,
    Operation,
    Operations,
    State,
    fingerprint,
    operation_id,
)
from crm_bridge.queues import Message, Queues
from crm_bridge.settings import Tenant
from crm_bridge.telemetry import add_to_log, count, log_result, logger
from crm_bridge.tenants import Tenants
from crm_bridge.transport import AFTER_DEADLINE, Deadline, Scope, Transport
from crm_bridge.words import plain, plain_json

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

TRANSITIONS: dict[tuple[State | None, Event], State] = {
    (None, Event.ACCEPTED): State.WAITING,
    (None, Event.CLAIMED): State.SENDING,
    (None, Event.ADOPTED): State.SUCCEEDED,
    (None, Event.RESERVED): State.REJECTED,
    (State.REJECTED, Event.ACCEPTED): State.WAITING,
    (State.SUCCEEDED, Event.ACCEPTED): State.WAITING,
    (State.REJECTED, Event.CLAIMED): State.SENDING,
    (State.REJECTED, Event.FOUND): State.SUCCEEDED,
    (State.WAITING, Event.FOUND): State.SUCCEEDED,
    (State.SUCCEEDED, Event.FOUND): State.SUCCEEDED,
    (State.WAITING, Event.REDELIVERED): State.SENDING,
    (State.UNKNOWN, Event.REDELIVERED): State.SENDING,
    (State.SENDING, Event.LEASE_EXPIRED): State.UNKNOWN,
    (State.SENDING, Event.DONE): State.SUCCEEDED,
    (State.SENDING, Event.FOUND): State.SUCCEEDED,
    (State.SENDING, Event.REFUSED): State.REJECTED,
    (State.SENDING, Event.NOT_DONE): State.WAITING,
    (State.SENDING, Event.MAYBE_DONE): State.UNKNOWN,
    (State.SENDING, Event.NOT_FOUND_YET): State.UNKNOWN,
    (State.SENDING, Event.LOOK_FAILED): State.UNKNOWN,
    (State.SENDING, Event.DEFECT): State.UNKNOWN,
    (State.SENDING, Event.IN_DOUBT): State.PARKED,
    (State.SENDING, Event.LINK_TAKEN): State.PARKED,
    (State.SENDING, Event.OUT_OF_ATTEMPTS): State.PARKED,
    (State.PARKED, Event.ADOPTED): State.SUCCEEDED,
    (State.PARKED, Event.RESENT): State.WAITING,
    (State.PARKED, Event.ABANDONED): State.REJECTED,
    (State.SUCCEEDED, Event.WITHDRAWN): State.REJECTED,
    (State.SUCCEEDED, Event.UNLINKED): State.PARKED,
    (State.SUCCEEDED, Event.ERASED): State.SUCCEEDED,
}
"""Which state follows which, and upon what; `None` is "not stored yet". Whatever is not in here does not happen."""

REPLACEABLE = frozenset(state for state, event in TRANSITIONS if state and event is Event.CLAIMED)
"""States that a new request for the same event may replace."""
DUE = frozenset(state for state, event in TRANSITIONS if state and event in (Event.REDELIVERED, Event.LEASE_EXPIRED))
"""States out of which the bridge takes an operation up again by itself, at its `due_at`."""

UNLINKABLE = frozenset({Event.ADOPTED, Event.FOUND})
"""An operation that ended with one of these has a record that it did not make itself, so a person may unlink it."""

HELD_BACK = frozenset({Event.NOT_DONE, Event.MAYBE_DONE, Event.LOOK_FAILED})
"""What comes to this while the vendor is down is no try of its own."""

MINUTE, HOUR = 60, 3600
REDELIVERY = (30, 2 * MINUTE, 10 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 10 * HOUR, 14 * HOUR, 24 * HOUR)
"""Seconds from the first try to the second, and so on, give or take a fifth. After the last a person decides."""
LAST_TRY = len(REDELIVERY) + 1
PATIENCE = sum(REDELIVERY)
SHORTEST_HOLD, LONGEST_HOLD = 30, HOUR
"""Seconds until what was held back, because the vendor is down, is due again: half of its age, within these."""
HANDED_OVER = 60
"""Seconds for which an operation that is due at once belongs to the message that says so. If there is none, or nobody
has taken it by then, the dispatcher finds the operation due."""
MOST_ENDINGS = 10
"""So often what is written along with the end of an operation may have changed since it was read."""
MOST_DEFECTS = 3
"""So often the bridge itself may fail on an operation, before a person is asked."""
LONGEST_WAIT = 24 * HOUR
"""Seconds; a vendor's Retry-After is honoured up to this."""
CLOCK_SKEW = 300
"""Seconds by which a vendor's clock may be behind ours before its new record looks older than our first attempt."""
NO_ZONE = 36 * HOUR
"""Seconds by which a time without a zone may be later than it looks in UTC: 12 hours, and a day if it is a date."""
MOST_COMPARED = 1000
"""Of so many records at the vendor it is found out whether they are linked; of the rest a person may."""
MOST_CANDIDATES, LONGEST_NAME = 10, 200
"""So many are kept for the person who decides, and so many characters of a name."""
KEEP_ATTEMPTS = 40
"""The newest ones; an operation's record must stay far below the 400 KB that the table takes."""
KEEP = 90 * 24 * HOUR
"""Seconds for which an operation that is over and linked nothing is kept for whoever asks; and the payload of one that
may be unlinked, for the decision that follows."""


@dataclass(frozen=True)
class Hit[ResultT]:
    """A record at the vendor that a command may have made. `created_at` is None where the vendor does not say.

    One is `certain` if it says exactly what the command says: then it is adopted, and if it was made by another event
    that says the same, that event makes it again. Any other may be ours in an altered form: it is never adopted, but
    keeps the command from being sent again. `id` and `name` are what a person finds it by at the vendor.
    """

    result: ResultT
    created_at: datetime | None = None
    certain: bool = True
    id: str = ""
    name: str = ""


class Vendor(Protocol):
    """What the engine needs of any vendor's client."""

    @property
    def destination(self) -> str:
        """The account at the vendor that is written to, without a secret."""

    @property
    def search_lag(self) -> int:
        """Seconds after which a new record is sure to be found by a look-up."""


class Ending(Protocol):
    """What a flow writes in the transaction that settles its operation."""

    def writes(self, settled: Operation, event: Event) -> "Sequence[TransactWriteItemTypeDef]": ...

    def adapts(self, event: Event, there: Sequence[Mapping[str, Any] | None]) -> bool:
        """Whether it has other writes for what the tables have instead (see OvertakenError)."""


@dataclass
class Task:
    """An operation as the flow sees it that carries it, and what is written along with its end."""

    operation: Operation | None = None
    ending: Ending | None = None


@runtime_checkable
class Tasked(Protocol):
    """A vendor's client of a flow that needs to know of its task."""

    task: Task


@runtime_checkable
class Claiming(Tasked, Protocol):
    """One whose flow writes something along with the claim of an operation, or with its acceptance."""

    def claim(self, command: Any, operation: Operation, *, later: bool) -> Claim:
        """As `Operations.create` over what is REPLACEABLE. Raises StorageError."""


@runtime_checkable
class Abandoning(Protocol):
    """A flow that has something to end when a person decides that an operation shall not be done."""

    def abandoned(self, operation: Operation) -> Ending: ...


class Flow[CommandT: BaseModel, VendorT: Vendor, ResultT: BaseModel](Protocol):
    """One kind of event. It decides nothing about states, repeats or storage."""

    @property
    def name(self) -> str: ...

    @property
    def command(self) -> type[CommandT]: ...

    def vendor(self, tenant: str, settings: Tenant, transport: Transport, deadline: Deadline) -> VendorT:
        """The client of this tenant's vendor. Raises NotConfiguredError."""

    def key(self, command: CommandT) -> str:
        """The natural key: what makes the event itself unique within tenant and flow."""

    def repeatable(self, command: CommandT) -> bool:
        """Whether it sets something that is there already, so that to do it twice is to do it once.

        Then it is never looked for, only sent again; and it is not carried to another account, where the same id is
        something else.
        """

    def send(self, command: CommandT, vendor: VendorT) -> ResultT | Hit[ResultT]:
        """One creating call, not repeated; or, where the vendor can be asked first, what makes it needless.

        Raises VendorError.
        """

    def find(self, command: CommandT, vendor: VendorT) -> Iterable[Hit[ResultT]]:
        """All that the vendor holds and that this command could have made, also where the vendor altered the texts.

        Raises VendorError, CannotLookError; NotShownError after the last hit, if there may be others.
        """

    def adopt(self, tenant: str, command: CommandT, vendor_id: str) -> ResultT:
        """The result if the vendor's record with this id is what the command made.

        Raises InvalidError, ConflictError.
        """

    def verify(self, command: CommandT, result: ResultT, vendor: VendorT) -> str | None:
        """Ask the vendor whether the record that a person named is the one that `result` says.

        Return None if it is; or what differs that a vendor may alter as it stores it, so that only a person can say.
        Raises InvalidError if there is no such record, or if it is another site's, pair's or person's;
        CannotLookError if the vendor cannot be asked; any other VendorError if it did not answer.
        """

    def links(self, command: CommandT, result: ResultT) -> Sequence[Link]:
        """What is tied together once `result` is there."""


@dataclass(frozen=True)
class Outcome:
    """What a request or a redelivery came to. `carried` if this very call did the work.

    `result` is the whole result as JSON, if this call got it from the vendor; the operation keeps the ids in it only.
    `changed` if the same event was accepted before with another payload, so that this one was not sent.
    """

    operation: Operation
    carried: bool
    error: VendorError | None = None
    result: str | None = field(default=None, repr=False)
    changed: bool = False


class _When(TypedDict):
    due_at: int
    lent_until: int | None


class Engine:
    """Runs operations. One instance per execution environment; threads may share it."""

    def __init__(
        self,
        operations: Operations,
        links: Links,
        tenants: Tenants,
        transport: Transport,
        *,
        queues: Queues | None = None,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Without `queues` whatever is due waits for the dispatcher."""
        self._operations = operations
        self._links = links
        self.tenants = tenants
        self._transport = transport
        self._queues = queues
        self._clock = clock
        self._jitter = jitter

    def run[C: BaseModel, V: Vendor, R: BaseModel](
        self,
        flow: Flow[C, V, R],
        command: C,
        *,
        tenant: str,
        deadline: Deadline,
        later: bool = False,
        mapping: str | None = None,
        over_undone: bool = False,
    ) -> Outcome:
        """Carry a command that a caller sent, or tell what became of the same event before.

        `later` only accepts it, and it is carried from its queue. `mapping` names what made the command.
        `over_undone` puts it in the place of one that waits and was surely never done.

        Raises RunningError while another call carries it, and UnavailableError if it could not be accepted; then
        nothing was sent.
        """
        payload, said = command.model_dump_json(), fingerprint(compared(command))
        new_id = operation_id(tenant, flow.name, flow.key(command))
        add_to_log(operation_id=new_id)
        try:
            settings = self.tenants.get(tenant, flow.name)
            vendor = self._vendor(flow, tenant, settings, deadline)
        except UnavailableError:
            # What could not be sent is not accepted. What is known already is told all the same.
            known = self._operations.get(new_id)
            if known is None or known.state in REPLACEABLE:
                raise
            return self._known(known, said)
        now = self._now()
        claimed = Operation(
            operation_id=new_id,
            tenant=tenant,
            flow=flow.name,
            natural_key=flow.key(command),
            state=TRANSITIONS[None, Event.ACCEPTED if later else Event.CLAIMED],
            fingerprint=said,
            payload=payload,
            tries=0 if later else 1,
            lease=uuid.uuid4().hex,
            **self._at_once(now) if later else _When(due_at=self._lease_end(now, deadline), lent_until=None),
            created_at=now,
            updated_at=now,
            first_sent_at=None if later else now,
            sent_to=vendor.destination,
            mapping=mapping,
            is_told=settings.has_callback,
        )
        task = Task()
        if isinstance(vendor, Claiming):
            vendor.task = task
            claim = vendor.claim(command, claimed, later=later)
        else:
            claim = self._operations.create(claimed, over=REPLACEABLE, over_undone=over_undone)
        if not claim.won and _is_held(claim.operation):
            claim = self._queued(claimed, claim.operation, now)
            later = claim.won
        if not claim.won:
            return self._known(claim.operation, claimed.fingerprint)
        if later:
            self._hand_over(claim.operation)
            return Outcome(claim.operation, carried=False)
        return self._send(flow, command, claim.operation, deadline, task)

    def redeliver[C: BaseModel, V: Vendor, R: BaseModel](
        self, flow: Flow[C, V, R], operation_id: str, *, tenant: str, deadline: Deadline, lent_until: int | None = None
    ) -> Outcome | None:
        """Take up a tenant's operation that is due, or lent to the caller until `lent_until`; None if it is neither.

        Raises StorageError; then it stays due, at the latest when its lease is over. Raises whatever the bridge itself
        fails with, and goes on doing so once that has parked the operation.
        """
        now = self._now()
        claim = self._operations.claim(
            operation_id,
            lease=uuid.uuid4().hex,
            now=now,
            until=self._lease_end(now, deadline),
            states=DUE,
            tenant=tenant,
            lent_until=lent_until,
        )
        if claim is None:
            return None
        operation = claim.operation
        if not claim.won:
            if operation.state is State.PARKED and _defects(operation) >= MOST_DEFECTS:
                raise PoisonError
            return None
        add_to_log(tenant=operation.tenant)
        try:
            return self._carry(flow, operation, now, deadline)
        except UnavailableError:
            raise
        except Exception as error:
            self._unsuccessful(operation, Event.DEFECT, reason=f"the bridge failed ({type(error).__name__})")
            raise

    def _carry[C: BaseModel, V: Vendor, R: BaseModel](
        self, flow: Flow[C, V, R], operation: Operation, now: int, deadline: Deadline
    ) -> Outcome:
        if operation.was is State.SENDING:
            operation = _noted(operation, Event.LEASE_EXPIRED, now, "whoever was sending it has died")
        if operation.tries > LAST_TRY:
            return self._unsuccessful(operation, Event.OUT_OF_ATTEMPTS)
        command = flow.command.model_validate_json(operation.payload or "")
        if operation.was is State.SENDING:
            operation = operation.model_copy(update={"unknown_since": now})  # its request may be on its way until now
        if flow.repeatable(command) or (_only_waited(operation) and operation.deferred_at is None):
            return self._send(flow, command, operation, deadline)
        return self._look(flow, command, operation, deadline)

    def adopt[C: BaseModel, V: Vendor, R: BaseModel](
        self,
        flow: Flow[C, V, R],
        parked: Operation,
        vendor_id: str,
        *,
        by: str,
        deadline: Deadline,
        confirmed: bool = False,
    ) -> Operation:
        """A person found that the vendor has done it. The vendor is asked, where it can be, whether that is so.

        Raises UnconfirmedError if that could not be verified, unless the person has `confirmed` it; InvalidError,
        ConflictError; VendorError if the vendor did not answer; StorageError. Then nothing was changed.
        """
        if parked.state is not State.PARKED:
            raise _not_parked(parked)
        command = flow.command.model_validate_json(_payload(parked))
        result = flow.adopt(parked.tenant, command, vendor_id)
        links = flow.links(command, result)
        doubt = self._doubt(flow, command, result, parked, deadline)
        if doubt and not confirmed:
            raise UnconfirmedError(
                f"{doubt}. Look at the record at the vendor once more, then confirm its id.",
                fields=[FieldError("confirmed", "must be true, because the id could not be verified")],
            )
        changes = {"answer": _ids(result), "payload": None, "links": _ends(links)}
        return self._resolved(parked, Event.ADOPTED, by, changes, links)

    def _doubt[C: BaseModel, V: Vendor, R: BaseModel](
        self, flow: Flow[C, V, R], command: C, result: R, parked: Operation, deadline: Deadline
    ) -> str | None:
        """Return why it is not sure that `result` is the right record; None if it is.

        Raises InvalidError if it is surely not, VendorError if the vendor did not answer.
        """

        def verify(vendor: V) -> str | None:
            if _is_elsewhere(parked, vendor):
                raise CannotLookError("it was sent to an account that the tenant no longer names", vendor=flow.name)
            return flow.verify(command, result, vendor)

        try:
            return self.signed_in(flow, parked.tenant, deadline, verify)
        except (CannotLookError, RefusedError, ContractBrokenError) as error:
            return f"Cannot verify the id at the vendor: {error.message}"
        except VendorError as error:
            error.retry_after = max(error.retry_after or 0, SHORTEST_HOLD)
            raise

    def unlink(self, linked: Operation, *, by: str) -> Operation:
        """A person found that the link is wrong: it is deleted, and the operation waits for a decision again.

        Only for a record that a person or a look-up linked. The vendor's record stays, and so does what used the link,
        such as a job that was made at the site meanwhile. Raises ConflictError, StorageError.
        """
        last = linked.attempts[-1].event if linked.attempts else None
        if linked.state is not State.SUCCEEDED or last not in UNLINKABLE:
            raise ConflictError("Only a record that a person or a look-up linked can be unlinked.")
        was = ", ".join(f"{right.system} {right.entity} {right.id}" for _, right in linked.links)
        changes = {
            "answer": None,
            "payload": self._operations.kept_payload(linked),
            "links": (),
            "expires_at": None,
            "lease": uuid.uuid4().hex,  # so that what is decided next is another news to a callback's receiver
        }
        writes = [
            *self._links.releases(linked.tenant, linked.links, linked.operation_id),
            self._operations.drop_payload(linked),
        ]
        return self._resolved(linked, Event.UNLINKED, f"{by}; it was {was}" if was else by, changes, writes=writes)

    def erase(self, ended: Operation, *, by: str) -> None:
        """Erase what is kept of an operation that has ended, and its links.

        Of one that has succeeded its id and its state stay for KEEP, so that a late repetition of the event is not sent
        again. Raises ConflictError if it has not ended, or is being changed; StorageError.
        """
        if ended.state not in REPLACEABLE | {State.SUCCEEDED} or ended.held or ended.holds or ended.reserved:
            raise ConflictError(f"Only an operation that has ended can be erased; this one is {ended.state}.")
        if ended.state in REPLACEABLE:
            try:
                self._operations.erase(ended)
            except OvertakenError:
                raise ConflictError("The operation was changed meanwhile. Look at it again.") from None
            return
        changes = {
            "natural_key": ERASED,
            "fingerprint": "",
            "payload": None,
            "answer": None,
            "sent_to": None,
            "mapping": None,
            "links": (),
            "expires_at": self._now() + KEEP,
            "lease": uuid.uuid4().hex,
        }
        writes = [
            *self._links.releases(ended.tenant, ended.links, ended.operation_id),
            self._operations.drop_payload(ended),
        ]
        without_history = ended.model_copy(update={"attempts": ()})
        self._resolved(without_history, Event.ERASED, by, changes, writes=writes)

    def resend(self, parked: Operation, *, by: str, due_at: int | None = None, anew: bool = True) -> Operation:
        """A person found that the vendor has not done it: all begins anew, now or when it is said.

        Not `anew`: nobody looked at the vendor, so the bridge looks first if it would have before.
        Raises ConflictError, StorageError.
        """
        if parked.state is State.PARKED:
            _payload(parked)
        changes: dict[str, object] = {"due_at": due_at} if due_at else {**self._at_once(self._now())}
        changes["tries"] = 0
        if anew:
            changes |= dict.fromkeys(("first_sent_at", "unknown_since", "deferred_at", "sent_to"))
        return self._resolved(parked, Event.RESENT, by, changes)

    def abandon(self, parked: Operation, *, by: str, flow: object = None) -> Operation:
        """A person decided that it shall not be done. Raises ConflictError, StorageError."""
        if parked.state is not State.PARKED:
            raise _not_parked(parked)
        changes = {"payload": None, "expires_at": self._now() + KEEP}
        ending = flow.abandoned(parked) if isinstance(flow, Abandoning) else None
        return self._resolved(parked, Event.ABANDONED, by, changes, ending=ending)

    def record(
        self, flow: str, natural_key: str, result: BaseModel, links: Sequence[Link], *, tenant: str, by: str
    ) -> tuple[Operation, bool]:
        """Write down what was made before there was a bridge, so that its event is not carried; nothing is sent.

        Gives the operation, and whether it is this one: what there is already is not touched.
        Raises ConflictError if an id is linked to something else; StorageError.
        """
        now = self._now()
        answer = _ids(result)
        operation = Operation(
            operation_id=operation_id(tenant, flow, natural_key),
            tenant=tenant,
            flow=flow,
            natural_key=natural_key,
            state=TRANSITIONS[None, Event.ADOPTED],
            fingerprint=fingerprint(answer),
            answer=answer,
            links=_ends(links),
            lease=uuid.uuid4().hex,
            created_at=now,
            updated_at=now,
        )
        operation = _noted(operation, Event.ADOPTED, now, f"by {by}")
        try:
            stored = self._operations.save(
                operation, [*self._links.puts(tenant, links, operation.operation_id, now)], over=None
            )
        except LinkTakenError:
            raise ConflictError("That id is linked to something else already.") from None
        return stored, stored.lease == operation.lease

    def withdraw(self, done: Operation, *, by: str) -> None:
        """What it made has been taken back, so the same event may be sent again. Raises StorageError."""
        changes = {"answer": None, "links": (), "expires_at": self._now() + KEEP}
        with suppress(ConflictError):  # somebody else has taken it back just now
            self._resolved(done, Event.WITHDRAWN, by, changes)

    def _resolved(
        self,
        operation: Operation,
        event: Event,
        by: str,
        changes: Mapping[str, object],
        links: Sequence[Link] = (),
        *,
        writes: "Sequence[TransactWriteItemTypeDef]" = (),
        ending: Ending | None = None,
    ) -> Operation:
        state = TRANSITIONS.get((operation.state, event))
        if state is None:
            raise _not_parked(operation)
        now = self._now()
        resolved = _noted(operation, event, now, f"by {by}").model_copy(
            update={**changes, "state": state, "updated_at": now, "candidates": None}
        )
        writes = [*writes, *self._links.puts(operation.tenant, links, operation.operation_id, now)]
        if event is Event.ADOPTED:
            writes.append(self._operations.keep_payload(operation, now + KEEP))
        news = self._news(resolved) if event in (Event.ADOPTED, Event.ABANDONED, Event.UNLINKED) else None
        if news:
            writes.append(self._operations.put(news))
        try:
            stored = self._ended(resolved, event, writes, ending, over=operation.state, lease=operation.lease)
        except LinkTakenError:
            if event is Event.UNLINKED:
                raise ConflictError("The link was changed meanwhile. Look at the operation again.") from None
            raise ConflictError("That id is linked to something else already.") from None
        if stored != resolved.model_copy(update={"waiters": stored.waiters}):
            raise ConflictError(f"Somebody else was quicker: it is {stored.state} now.")
        self._hand_over(news)
        self._hand_over(stored)
        self._wake_waiters(stored)
        logger().info("resolved", extra={"event": event, "state": stored.state})
        count("Operations", flow=stored.flow, state=stored.state)
        return stored

    def _queued(self, claimed: Operation, there: Operation, now: int) -> Claim:
        """Accept it in the place of what was done or refused before, and is held by a change that is on its way."""
        changes = {
            "state": TRANSITIONS[there.state, Event.ACCEPTED],
            "tries": 0,
            "due_at": now + REDELIVERY[0],
            "lent_until": None,
            "first_sent_at": None,
            "attempts": there.attempts,
            "held": there.held,
            "reserved": there.reserved,
        }
        waiting = _noted(
            claimed.model_copy(update=changes), Event.ACCEPTED, now, "it waits for a change that came first"
        )
        claim = self._operations.queue(waiting, there)
        if claim.won or claim.operation.state not in REPLACEABLE | {State.SUCCEEDED}:
            return claim
        raise RunningError(  # what held it has just ended
            "The same event is being changed right now. Ask again after the time in Retry-After.",
            headers={"Retry-After": "1"},
            operation_id=claimed.operation_id,
        )

    def _known(self, operation: Operation, fingerprint: str) -> Outcome:
        if operation.is_erased:
            raise ErasedError(
                "This event was processed, and its data were erased since. It was not sent.",
                operation_id=operation.operation_id,
            )
        if operation.state is State.SENDING:
            raise RunningError(
                "The same event is being carried right now. Ask again after the time in Retry-After.",
                headers={"Retry-After": str(max(1, min(2, (operation.due_at or 0) - self._now())))},
                operation_id=operation.operation_id,
            )
        return Outcome(operation, carried=False, changed=operation.fingerprint != fingerprint)

    def _send[C: BaseModel, V: Vendor, R: BaseModel](
        self, flow: Flow[C, V, R], command: C, operation: Operation, deadline: Deadline, task: Task | None = None
    ) -> Outcome:
        task = task or Task()

        def send(vendor: V) -> R | Hit[R]:
            nonlocal operation
            operation = task.operation or operation
            if flow.repeatable(command) and _is_elsewhere(operation, vendor):
                raise CannotLookError("it is about an account that the tenant no longer names", vendor=flow.name)
            operation = task.operation = operation.model_copy(update={"sent_to": vendor.destination})
            if isinstance(vendor, Tasked):
                vendor.task = task
            try:
                return flow.send(command, vendor)
            finally:
                operation = task.operation
                add_to_log(operation_id=operation.operation_id)  # it may have carried another operation in between

        try:
            sent = self.signed_in(flow, operation.tenant, deadline, send)
        except MissingError as error:
            # A caller that is still there sends it again. One that was told 202 does not, so the event waits.
            event = error.event if operation.was is None else Event.NOT_DONE
            return self._unsuccessful(operation, event, error, task=task)
        except RefusedError as error:
            # An earlier sending may have been done, and be the very reason: only a person can tell.
            is_clear = operation.unknown_since is None or isinstance(error, NeedlessError)
            return self._unsuccessful(operation, error.event if is_clear else Event.IN_DOUBT, error, task=task)
        except TryLaterError as error:
            deferred_at = None if flow.repeatable(command) else self._now()
            operation = operation.model_copy(update={"deferred_at": deferred_at})
            return self._unsuccessful(operation, error.event, error, task=task)
        except VendorError as error:
            return self._unsuccessful(operation, error.event, error, task=task)
        if isinstance(sent, Hit):
            return self._succeed(flow, command, operation, Event.FOUND, sent.result, task)
        return self._succeed(flow, command, operation, Event.DONE, sent, task)

    def _look[C: BaseModel, V: Vendor, R: BaseModel](
        self, flow: Flow[C, V, R], command: C, operation: Operation, deadline: Deadline
    ) -> Outcome:
        """Adopt what is there, wait for the vendor's search, send once more, or ask a person.

        An operation that the vendor only asked to send later is not in doubt, and a look that fails does not put it in
        doubt: it waits as before. If the vendor cannot be asked, it is sent.
        """
        only_waited, task = _only_waited(operation), Task(operation)

        def find(vendor: V) -> tuple[Sequence[Hit[R]], int, NotShownError | None]:
            if isinstance(vendor, Tasked):
                vendor.task = task
            if _is_elsewhere(operation, vendor):
                raise CannotLookError("it was sent to an account that the tenant no longer names", vendor=flow.name)
            found: list[Hit[R]] = []
            try:
                for one in flow.find(command, vendor):
                    found.append(one)  # noqa: PERF402 - what was found before it ends in an error counts too
            except NotShownError as error:
                return found, vendor.search_lag, error
            return found, vendor.search_lag, None

        try:
            hits, search_lag, not_shown = self.signed_in(flow, operation.tenant, deadline, find)
            fitting = self._fitting(flow, command, operation, hits)
        except CannotLookError as error:
            if only_waited:
                return self._send(flow, command, operation, deadline)
            return self._unsuccessful(operation, error.event, error)
        except (VendorError, UnavailableError) as error:  # the question failed, by a refusal too: nothing is known
            failed = error if isinstance(error, VendorError) else None
            return self._unsuccessful(operation, Event.NOT_DONE if only_waited else Event.LOOK_FAILED, failed)
        certain = [hit for hit in fitting if hit.certain]
        if len(certain) == 1:
            return self._succeed(flow, command, operation, Event.FOUND, certain[0].result, task)
        now = self._now()
        visible_at = (operation.unknown_since or operation.deferred_at or operation.updated_at) + search_lag
        is_visible, were_there = now >= visible_at, operation.candidates is not None
        operation = operation.model_copy(update={"candidates": _candidates(fitting) if fitting else None})
        if fitting and (certain or (is_visible and were_there)):
            may_be = "1 record" if len(fitting) == 1 else f"{len(fitting)} records"
            unclear = SeveralFoundError(f"{may_be} at the vendor may be this event's", vendor=flow.name)
            return self._unsuccessful(operation, unclear.event, unclear)
        if fitting or not is_visible:  # ours may not be shown yet, and another event may still link what is shown
            event, reason = (Event.NOT_DONE, "it is looked for once more") if only_waited else (Event.NOT_FOUND_YET, "")
            due_at = now + search_lag if is_visible else visible_at
            return self._unsuccessful(operation, event, reason=reason, due_at=due_at)
        if not_shown and not only_waited:
            return self._unsuccessful(operation, not_shown.event, not_shown)
        return self._send(flow, command, operation.model_copy(update={"deferred_at": None}), deadline)

    def _fitting[C: BaseModel, V: Vendor, R: BaseModel](
        self, flow: Flow[C, V, R], command: C, operation: Operation, hits: Sequence[Hit[R]]
    ) -> list[Hit[R]]:
        """Without what was there before we first sent, and without what is linked to something else (a namesake)."""
        earliest = (operation.first_sent_at or operation.created_at) - CLOCK_SKEW
        young = [hit for hit in hits if hit.created_at is None or _at_the_latest(hit.created_at) >= earliest]
        young.sort(key=lambda hit: not hit.certain)
        links = [flow.links(command, hit.result) for hit in young[:MOST_COMPARED]]
        taken = self._links.taken(operation.tenant, links, operation.operation_id)
        return [hit for hit, is_taken in zip(young, taken, strict=False) if not is_taken] + young[MOST_COMPARED:]

    def signed_in[C: BaseModel, V: Vendor, R: BaseModel, T](
        self, flow: Flow[C, V, R], tenant: str, deadline: Deadline, call: Callable[[V], T]
    ) -> T:
        """`call`, and once more with credentials read afresh if the vendor refuses them: they may just have changed.

        Raises VendorError.
        """
        try:
            settings = self.tenants.get(tenant, flow.name)
            try:
                return call(self._vendor(flow, tenant, settings, deadline))
            except SignInRefusedError:
                fresh = self.tenants.get(tenant, flow.name, fresh=True)
                if fresh == settings:
                    raise
            return call(self._vendor(flow, tenant, fresh, deadline))
        except SignInRefusedError as error:
            count("SignInRefused", vendor=error.vendor)
            raise
        except UnavailableError as error:
            raise NotDoneError(error.detail, vendor=flow.name) from error

    def _succeed[C: BaseModel, V: Vendor, R: BaseModel](
        self, flow: Flow[C, V, R], command: C, operation: Operation, event: Event, result: R, task: Task
    ) -> Outcome:
        links = flow.links(command, result)
        now = self._now()
        done = _noted(operation, event, now).model_copy(
            update={
                "state": TRANSITIONS[State.SENDING, event],
                "answer": _ids(result),
                "payload": None,
                "candidates": None,
                "links": _ends(links),
                "due_at": None,
                "updated_at": now,
                "expires_at": None if links else now + KEEP,
            }
        )
        try:
            saved = self._saved(operation, done, event, links, task=task)
            is_ours = saved.answer == done.answer  # else a later holder of the lease has settled it
            return Outcome(saved, carried=True, result=plain_json(result.model_dump_json()) if is_ours else None)
        except OvertakenError:
            if event is Event.DONE:
                message = "its turn was over before it could be settled; it is sent again, which does no harm"
                return self._unsuccessful(operation, Event.MAYBE_DONE, reason=message, task=task)
            failed = Event.NOT_DONE if operation.unknown_since is None else Event.LOOK_FAILED
            return self._unsuccessful(operation, failed, reason="what was found is being changed by another event")
        except LinkTakenError:
            if event is Event.FOUND:  # another operation adopted it just now; what is left is found at the next look
                return self._unsuccessful(
                    operation, Event.LOOK_FAILED, reason="the record was adopted by another event"
                )
            made = ", ".join(f"{link.right.system} {link.right.entity} {link.right.id}" for link in links)
            return self._unsuccessful(
                operation, Event.LINK_TAKEN, reason=f"{made} cannot be linked: it is linked already"
            )

    def _unsuccessful(
        self,
        operation: Operation,
        event: Event,
        error: VendorError | None = None,
        *,
        reason: str = "",
        due_at: int | None = None,
        task: Task | None = None,
    ) -> Outcome:
        now = self._now()
        is_down = event in HELD_BACK and error is not None and self._transport.is_down(error.vendor, operation.tenant)
        if error and is_down:
            operation = _untried(operation, error)
        noted = _noted(operation, event, now, error.message if error else reason, error.status if error else None)
        state = TRANSITIONS[State.SENDING, event]
        if state in DUE and _is_hopeless(noted, now, is_down=is_down):
            noted = _noted(noted, Event.OUT_OF_ATTEMPTS, now)
            state = TRANSITIONS[State.SENDING, Event.OUT_OF_ATTEMPTS]
        changes: dict[str, object] = {"state": state, "due_at": None, "updated_at": now}
        if state in DUE:
            changes["due_at"] = due_at or now + self._wait(operation, error, now, is_down=is_down)
        if event in (Event.MAYBE_DONE, Event.DEFECT):
            changes["unknown_since"] = now
        if state is State.REJECTED:
            changes["expires_at"] = now + KEEP
            if operation.was is None:
                changes["payload"] = None
            else:  # the caller was told 202 and is gone, so whoever is told next needs to know what was refused
                count("RefusedLater", flow=operation.flow)
        changed = noted.model_copy(update=changes)
        if isinstance(error, NotYetError) and state is State.WAITING:
            saved = self._saved_as_waiter(operation, changed, error.waits_for)
        else:
            saved = self._saved(operation, changed, event, task=task)
        return Outcome(saved, carried=True, error=error)

    def _saved_as_waiter(self, held: Operation, changed: Operation, waits_for: str) -> Operation:
        """The same as `_saved`, and the operation that `changed` waits for is asked to wake it when it has ended.

        One transaction writes both, so whatever ends the other one sees either a waiter that is stored as waiting, or
        none; and if it has ended already, its state says so here. The waking itself is a write after that end. It is
        not in the transaction that settles, because a waiter that is on a queue or being sent would make that fail. If
        the function dies before it, the waiter's own next attempt comes, as it would without a note.
        """
        try:
            return self._saved(
                held, changed, Event.NOT_DONE, writes=[self._operations.note_waiter(waits_for, held.operation_id)]
            )
        except LinkTakenError:  # it has ended meanwhile, or enough others wait for it
            with suppress(StorageError):
                ended = self._operations.get(waits_for)
                if ended and ended.state is State.SUCCEEDED:
                    changed = changed.model_copy(update=self._at_once(self._now()))
            saved = self._saved(held, changed, Event.NOT_DONE)
            self._hand_over(saved)
            return saved

    def _wake_waiters(self, ended: Operation) -> None:
        """At most MOST_WAITERS writes. One that fails leaves its waiter to its own next attempt."""
        if ended.state in DUE or ended.state is State.PARKED:
            return
        for waiter in sorted(ended.waiters):
            now = self._now()
            with suppress(StorageError):
                self._hand_over(self._operations.wake(waiter, ended.tenant, now, **self._at_once(now)))

    def _saved(
        self,
        held: Operation,
        changed: Operation,
        event: Event,
        links: Sequence[Link] = (),
        *,
        writes: "Sequence[TransactWriteItemTypeDef]" = (),
        task: Task | None = None,
    ) -> Operation:
        """What the table holds afterwards: `changed`, what a later holder wrote, or `held`, to heal by its lease.

        Raises OvertakenError, LinkTakenError.
        """
        writes = [*writes, *self._links.puts(held.tenant, links, held.operation_id, changed.updated_at)]
        if event is Event.FOUND:
            writes.append(self._operations.keep_payload(held, changed.updated_at + KEEP))
        # A caller that is still there is answered with it.
        news = self._news(changed) if changed.state is State.PARKED or (changed.state not in DUE and held.was) else None
        if news:
            writes.append(self._operations.put(news))
        try:
            stored = self._ended(changed, event, writes, task.ending if task else None)
        except StorageError:
            stored = held
        if stored is held or stored.lease != held.lease:
            # Whoever has to decide in the end needs the ids that would be lost here.
            ids = [f"{link.right.system} {link.right.entity} {link.right.id}" for link in links]
            logger().error("not settled", extra={"event": event, "state": changed.state, "made": ids})
            count("NotSettled", flow=held.flow)
            return stored
        log_result(event, stored.state, stored.tries, changed.attempts[-1].status)
        count("Operations", flow=stored.flow, state=stored.state)
        if stored.state is State.PARKED:
            count("Parked", reason=changed.attempts[-1].event)
        self._hand_over(news)
        self._wake_waiters(stored)
        return stored

    def _ended(
        self,
        changed: Operation,
        event: Event,
        writes: "Sequence[TransactWriteItemTypeDef]",
        ending: Ending | None,
        over: State = State.SENDING,
        lease: str | None = None,
    ) -> Operation:
        for _ in range(MOST_ENDINGS):
            try:
                along = ending.writes(changed, event) if ending else ()
                return self._operations.save(changed, writes, over=over, along=along, lease=lease)
            except OvertakenError as overtaken:
                if ending is None or not ending.adapts(event, overtaken.there):
                    raise
        raise StorageError("What ends with it changes again and again.")

    def _news(self, settled: Operation) -> Operation | None:
        """The operation that tells the tenant of `settled`, if it is to be told."""
        if not settled.is_told:
            return None
        return callback(settled).model_copy(update=self._at_once(settled.updated_at))

    def _at_once(self, now: int) -> _When:
        """What is written of an operation that is due now, for `_hand_over`."""
        handed_over = now + HANDED_OVER if self._queues else None
        return {"due_at": handed_over or now, "lent_until": handed_over}

    def _hand_over(self, operation: Operation | None) -> None:
        """Put it on its function's queue, if it was written with `_at_once`.

        If that fails, or the function dies before it, it is due when HANDED_OVER is over, and the dispatcher finds it.
        If the message comes later than that, it does no more harm than one of the dispatcher's (`Operations.lend`).
        """
        queues = self._queues
        if operation is None or operation.lent_until is None or queues is None or operation.flow not in queues:
            return
        message = Message(operation.operation_id, operation.tenant, operation.lent_until)
        try:
            if not queues.send(operation.flow, [message]):
                logger().warning("not handed over")
        except QueueError as error:
            logger().warning("not handed over", extra={"exception_name": str(error)})

    def _wait(self, operation: Operation, error: VendorError | None, now: int, *, is_down: bool) -> int:
        if is_down:
            planned = min(max(_age(operation, now) / 2, SHORTEST_HOLD), LONGEST_HOLD)
        else:
            planned = REDELIVERY[operation.tries - 1]
        retry_after = error.retry_after if error else None
        return max(round(planned * (0.8 + 0.4 * self._jitter())), math.ceil(min(retry_after or 0, LONGEST_WAIT)))

    def _vendor[V: Vendor](self, flow: Flow[Any, V, Any], tenant: str, settings: Tenant, deadline: Deadline) -> V:
        """Raises NotConfiguredError."""
        return flow.vendor(tenant, settings, self._transport.of(Scope(tenant, settings.version)), deadline)

    def _lease_end(self, now: int, deadline: Deadline) -> int:
        return math.ceil(now + deadline.remaining() + AFTER_DEADLINE)

    def _now(self) -> int:
        return int(self._clock())


def _ids(result: BaseModel) -> str:
    """Return what is stored of a result: the members that its flow declares, and none that the vendor added.

    Those may be a customer's name or address, which the bridge does not keep.
    """
    return plain_json(result.model_dump_json(exclude=set(result.model_extra or ())))


def _ends(links: Sequence[Link]) -> tuple[tuple[Identity, Identity], ...]:
    return tuple((link.left, link.right) for link in links)


def _only_waited(operation: Operation) -> bool:
    """Whether it waited and was never in doubt: the vendor has not done it, or at least said so."""
    return operation.was is State.WAITING and operation.unknown_since is None


def _at_the_latest(created_at: datetime) -> float:
    """Epoch seconds of the latest moment that this may mean."""
    return created_at.timestamp() if created_at.tzinfo else created_at.replace(tzinfo=UTC).timestamp() + NO_ZONE


def _candidates[R](hits: Sequence[Hit[R]]) -> tuple[Candidate, ...]:
    """Those of `hits` that are kept for a person: of many, those that surely were made since."""
    known = sorted((hit for hit in hits if hit.id), key=lambda hit: (not hit.certain, hit.created_at is None))
    return tuple(
        Candidate(
            id=hit.id,
            name=plain(hit.name, LONGEST_NAME),
            created_at=hit.created_at.isoformat() if hit.created_at else None,
        )
        for hit in known[:MOST_CANDIDATES]
    )


def _is_held(operation: Operation) -> bool:
    return bool(operation.held) and operation.state in REPLACEABLE | {State.SUCCEEDED}


def _is_elsewhere(operation: Operation, vendor: Vendor) -> bool:
    """Whether it went, or was to go, to another account. What a person let begin anew goes to the one that there is."""
    return operation.sent_to not in (None, vendor.destination)


def _age(operation: Operation, now: int) -> int:
    return now - (operation.first_sent_at or operation.created_at)


def _untried(operation: Operation, error: VendorError) -> Operation:
    """It counts as no try, and of several that failed alike only the last is told."""
    attempts = operation.attempts
    if attempts and attempts[-1].reason == error.message:
        attempts = attempts[:-1]
    return operation.model_copy(update={"tries": operation.tries - 1, "attempts": attempts})


def _is_hopeless(operation: Operation, now: int, *, is_down: bool) -> bool:
    if is_down:
        return _age(operation, now) > PATIENCE
    return operation.tries >= LAST_TRY or _defects(operation) >= MOST_DEFECTS


def _defects(operation: Operation) -> int:
    """How often the bridge itself failed on it, since a person last decided about it."""
    events = [attempt.event for attempt in operation.attempts]
    if Event.RESENT in events:
        events = events[len(events) - events[::-1].index(Event.RESENT) :]
    return events.count(Event.DEFECT)


def _payload(parked: Operation) -> str:
    """Raises ConflictError if it is no longer kept."""
    if parked.payload is None:
        raise ConflictError(
            "What the CRM sent is no longer kept, so this can neither be sent nor linked. Abandon it, then let the CRM "
            "send the event again."
        )
    return parked.payload


def _not_parked(operation: Operation) -> ConflictError:
    return ConflictError(f"Only a parked operation can be resolved; this one is {operation.state}.")


def _noted(operation: Operation, event: Event, now: int, reason: str = "", status: int | None = None) -> Operation:
    attempt = Attempt(at=now, event=event, reason=reason, status=status)
    attempts = (*operation.attempts[1 - KEEP_ATTEMPTS :], attempt)
    return operation.model_copy(update={"attempts": attempts, "last_attempt": attempt})

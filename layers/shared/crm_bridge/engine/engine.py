"""Claims an operation, sends it, looks it up at the vendor, and does what `decide` says.

A flow says how to name an event, how to send it, how to find out whether the vendor has it, and what to link; see
`Flow`.
"""

import math
import random
import time
import uuid
from collections.abc import Callable, Sequence

from pydantic import BaseModel

from crm_bridge.engine.credentials import Credentials
from crm_bridge.engine.decide import (
    Broken,
    Claimed,
    Decision,
    Happened,
    Looked,
    LookFailed,
    Next,
    NotSettled,
    SendFailed,
    Succeeded,
    decide,
    has_failed_too_often,
    is_used_up,
    possible_matches,
    queued,
)
from crm_bridge.engine.flow import Claiming, Flow, Hit, Outcome, Task, Tasked, Vendor
from crm_bridge.engine.policy import POLICY, Policy
from crm_bridge.engine.record import is_elsewhere, stored_result
from crm_bridge.engine.review import Review
from crm_bridge.engine.settling import DueTimes, Settling
from crm_bridge.engine.states import DUE, REPLACEABLE, TRANSITIONS
from crm_bridge.errors import (
    CannotLookError,
    ErasedError,
    Event,
    LinkTakenError,
    NotShownError,
    OvertakenError,
    PoisonError,
    RunningError,
    UnavailableError,
    VendorError,
)
from crm_bridge.fields import compared
from crm_bridge.links import Links
from crm_bridge.operations import Claim, Operation, Operations, State, fingerprint, operation_id
from crm_bridge.queues import Queues
from crm_bridge.telemetry import add_to_log
from crm_bridge.tenants import Tenants
from crm_bridge.transport import AFTER_DEADLINE, Deadline, Transport
from crm_bridge.words import plain_json


class Engine:
    """Runs operations. One instance per execution environment; threads may share it.

    `link_existing`, `request_retry`, `discard`, `unlink`, `record`, `withdraw` and `erase` are the methods of `Review`,
    and `signed_in` is the one of `Credentials`.
    """

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
        policy: Policy = POLICY,
    ) -> None:
        """Without `queues` the dispatcher finds what is due."""
        self._operations = operations
        self._links = links
        self.tenants = tenants
        self._transport = transport
        self._clock = clock
        self._jitter = jitter
        self._policy = policy
        self._credentials = Credentials(tenants, transport)
        self._settling = Settling(operations, links, queues, clock)
        review = Review(operations, links, self._settling, self._credentials, clock, policy)
        self.signed_in = self._credentials.signed_in
        self.link_existing, self.request_retry, self.discard, self.unlink = (
            review.link_existing,
            review.request_retry,
            review.discard,
            review.unlink,
        )
        self.record, self.withdraw, self.erase = review.record, review.withdraw, review.erase

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
        """Send a command that a caller sent, or return what became of the same event before.

        With `later` it is only accepted, and is sent from its queue. `mapping` names what made the command.
        With `over_undone` it replaces an operation that waits and was surely never done.

        Raises RunningError while another call sends it, and UnavailableError if it could not be accepted; then nothing
        was sent.
        """
        payload, digest = command.model_dump_json(), fingerprint(compared(command))
        new_id = operation_id(tenant, flow.name, flow.key(command))
        add_to_log(operation_id=new_id)
        try:
            settings = self.tenants.get(tenant, flow.name)
            vendor = self._credentials.client(flow, tenant, settings, deadline)
        except UnavailableError:
            # What could not be sent is not accepted. What became of the event before is returned all the same.
            known = self._operations.get(new_id)
            if known is None or known.state in REPLACEABLE:
                raise
            return self._known(known, digest)
        now = self._now()
        claimed = Operation(
            operation_id=new_id,
            tenant=tenant,
            flow=flow.name,
            event_key=flow.key(command),
            state=TRANSITIONS[None, Event.ACCEPTED if later else Event.CLAIMED],
            fingerprint=digest,
            payload=payload,
            tries=0 if later else 1,
            lease=uuid.uuid4().hex,
            **self._settling.at_once(now)
            if later
            else DueTimes(due_at=self._lease_end(now, deadline), lent_until=None),
            created_at=now,
            updated_at=now,
            first_sent_at=None if later else now,
            sent_to=vendor.destination,
            mapping=mapping,
            notifies=settings.has_webhook,
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
            self._settling.hand_over(claim.operation)
            return Outcome(claim.operation, carried=False)
        return self._send(flow, command, claim.operation, deadline, task)

    def retry[C: BaseModel, V: Vendor, R: BaseModel](
        self, flow: Flow[C, V, R], operation_id: str, *, tenant: str, deadline: Deadline, lent_until: int | None = None
    ) -> Outcome | None:
        """Continue a tenant's operation that is due, or lent to the caller until `lent_until`; None if it is neither.

        Raises StorageError; then it stays due, at the latest when its lease is over. Raises the error with which the
        bridge itself fails, and PoisonError once the operation needed review for that.
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
            if operation.state is State.NEEDS_REVIEW and has_failed_too_often(operation, self._policy):
                raise PoisonError
            return None
        add_to_log(tenant=operation.tenant)
        try:
            return self._continue(flow, operation, deadline)
        except UnavailableError:
            raise
        except Exception as error:
            self._store(operation, self._decide(operation, Broken(type(error).__name__)))
            raise

    def _continue[C: BaseModel, V: Vendor, R: BaseModel](
        self, flow: Flow[C, V, R], operation: Operation, deadline: Deadline
    ) -> Outcome:
        """Send an operation that was claimed again, or look it up first."""
        is_over = is_used_up(operation, self._policy)
        command = None if is_over else flow.command.model_validate_json(operation.payload or "")
        is_repeatable = command is not None and flow.repeatable(command)
        decision = self._decide(operation, Claimed(is_repeatable))
        if command is None:
            return self._store(operation, decision)
        if decision.next is Next.SEND:
            return self._send(flow, command, decision.operation, deadline)
        return self._look(flow, command, decision.operation, deadline)

    def _queued(self, claimed: Operation, there: Operation, now: int) -> Claim:
        """Accept it in the place of an operation that has ended, and that another change holds."""
        claim = self._operations.queue(queued(claimed, there, now, self._policy), there)
        if claim.won or claim.operation.state not in REPLACEABLE | {State.SUCCEEDED}:
            return claim
        raise RunningError(  # the change that held it has just ended
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
            if flow.repeatable(command) and is_elsewhere(operation, vendor):
                raise CannotLookError("it is about an account that the tenant no longer names", vendor=flow.name)
            operation = task.operation = operation.model_copy(update={"sent_to": vendor.destination})
            if isinstance(vendor, Tasked):
                vendor.task = task
            try:
                return flow.send(command, vendor)
            finally:
                operation = task.operation
                add_to_log(operation_id=operation.operation_id)  # the flow may have run another operation meanwhile

        try:
            sent = self._credentials.signed_in(flow, operation.tenant, deadline, send)
        except VendorError as error:
            is_down = self._transport.is_down(error.vendor, operation.tenant)
            failed = SendFailed(error, is_down=is_down, repeatable=flow.repeatable(command))
            return self._store(operation, self._decide(operation, failed), task)
        if isinstance(sent, Hit):
            return self._succeed(flow, command, operation, Event.FOUND, sent.result, task)
        return self._succeed(flow, command, operation, Event.DONE, sent, task)

    def _look[C: BaseModel, V: Vendor, R: BaseModel](
        self, flow: Flow[C, V, R], command: C, operation: Operation, deadline: Deadline
    ) -> Outcome:
        """Ask the vendor what it has of this command, then link a record, wait, send once more, or ask a person."""
        task = Task(operation)

        def find(vendor: V) -> tuple[Sequence[Hit[R]], int, NotShownError | None]:
            if isinstance(vendor, Tasked):
                vendor.task = task
            if is_elsewhere(operation, vendor):
                raise CannotLookError("it was sent to an account that the tenant no longer names", vendor=flow.name)
            found: list[Hit[R]] = []
            try:
                for one in flow.find(command, vendor):
                    found.append(one)  # noqa: PERF402 - the records before an error count too
            except NotShownError as error:
                return found, vendor.search_lag, error
            return found, vendor.search_lag, None

        try:
            found, search_lag, not_shown = self._credentials.signed_in(flow, operation.tenant, deadline, find)
            matches = possible_matches(operation, found, self._policy)
            links = [flow.links(command, match.result) for match in matches[: self._policy.most_compared]]
            taken = self._links.taken(operation.tenant, links, operation.operation_id)
        except VendorError as error:
            is_down = self._transport.is_down(error.vendor, operation.tenant)
            decision = self._decide(operation, LookFailed(error, is_down=is_down))
        except UnavailableError:
            decision = self._decide(operation, LookFailed())
        else:
            decision = self._decide(operation, Looked(matches, taken, search_lag, not_shown))
            if decision.match is not None:
                return self._succeed(flow, command, operation, Event.FOUND, matches[decision.match].result, task)
        if decision.next is Next.SEND:
            return self._send(flow, command, decision.operation, deadline)
        return self._store(operation, decision)

    def _succeed[C: BaseModel, V: Vendor, R: BaseModel](
        self, flow: Flow[C, V, R], command: C, operation: Operation, event: Event, result: R, task: Task
    ) -> Outcome:
        links = tuple(flow.links(command, result))
        decision = self._decide(operation, Succeeded(event, stored_result(result), links))
        try:
            saved = self._settling.settle(operation, decision, task.ending)
        except (OvertakenError, LinkTakenError) as error:
            failed = NotSettled(event, links, is_taken=isinstance(error, LinkTakenError))
            return self._store(operation, self._decide(operation, failed), task)
        is_ours = saved.result == decision.operation.result  # else a later holder of the lease has settled it
        return Outcome(saved, carried=True, result=plain_json(result.model_dump_json()) if is_ours else None)

    def _store(self, operation: Operation, decision: Decision, task: Task | None = None) -> Outcome:
        ending = task.ending if task and decision.with_ending else None
        return Outcome(self._settling.settle(operation, decision, ending), carried=True, error=decision.error)

    def _decide(self, operation: Operation, happened: Happened) -> Decision:
        return decide(operation, happened, self._now(), self._policy, self._jitter())

    def _lease_end(self, now: int, deadline: Deadline) -> int:
        return math.ceil(now + deadline.remaining() + AFTER_DEADLINE)

    def _now(self) -> int:
        return int(self._clock())


def _is_held(operation: Operation) -> bool:
    return bool(operation.held) and operation.state in REPLACEABLE | {State.SUCCEEDED}

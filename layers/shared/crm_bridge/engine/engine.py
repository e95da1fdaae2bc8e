"""Claims an operation, sends it, looks it up at the vendor, and does what `decide` says.

A flow says how to name an event, how to send it, how to find out whether the vendor has it, and what to link; see
`crm_bridge.flow`.
"""

import math
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel

from crm_bridge.engine.context import Context
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
from crm_bridge.engine.policy import DAY, POLICY, Policy
from crm_bridge.engine.record import is_elsewhere, stored_result
from crm_bridge.engine.review import Review
from crm_bridge.engine.settling import DueTimes, Ending, Settling, Unsettled
from crm_bridge.engine.states import DUE, REPLACEABLE, TRANSITIONS
from crm_bridge.errors import (
    CannotLookError,
    ErasedError,
    Event,
    IncompleteSearchError,
    LinkTakenError,
    OvertakenError,
    PoisonError,
    RunningError,
    UnavailableError,
    VendorError,
)
from crm_bridge.fields import compared
from crm_bridge.flow import Create, Flow, Match
from crm_bridge.outbound.queues import Queues
from crm_bridge.outbound.transport import AFTER_DEADLINE, Deadline, Transport
from crm_bridge.outbound.vendor import Vendor
from crm_bridge.services import Services
from crm_bridge.storage.operation import Operation, State, fingerprint
from crm_bridge.storage.operations import Claim
from crm_bridge.telemetry import add_to_log
from crm_bridge.tenants import Tenants
from crm_bridge.words import plain_json


@dataclass(frozen=True)
class Outcome:
    """What a request or a retry came to. `ran` is true if this very call did the work.

    `result` is the whole result as JSON, if this call received it from the vendor; the operation keeps only the ids.
    `changed` is true if the same event was accepted before with another payload. Then this one was not sent, unless it
    is `applied`: then `operation` is that of the change. `not_applied` says why it is not, in place of the flow.
    `unsettled` is what is still to be written, if the caller settles it together with an event of its own.
    """

    operation: Operation
    ran: bool
    error: VendorError | None = None
    result: str | None = field(default=None, repr=False)
    changed: bool = False
    applied: bool = False
    not_applied: str = ""
    unsettled: Unsettled | None = field(default=None, repr=False)


class Engine:
    """Runs operations. One instance per execution environment; threads may share it.

    `link_existing`, `request_retry`, `make_due`, `discard`, `unlink`, `record`, `withdraw` and `erase` are the methods
    of `Review`.
    """

    def __init__(
        self,
        services: Services,
        tenants: Tenants,
        transport: Transport,
        *,
        queues: Queues | None = None,
        jitter: Callable[[], float] = random.random,
        policy: Policy = POLICY,
    ) -> None:
        """Without `queues` the dispatcher finds what is due."""
        self._services = services
        self._operations = services.operations
        self._links = services.links
        self.tenants = tenants
        self._transport = transport
        self._clock = services.clock
        self._jitter = jitter
        self._policy = policy
        self._credentials = Credentials(transport, services)
        self._settling = Settling(services.operations, services.links, queues, services.clock)
        review = Review(self, services, self._settling, self._credentials, policy)
        self.hand_over = self._settling.hand_over
        self.link_existing, self.request_retry, self.discard, self.unlink = (
            review.link_existing,
            review.request_retry,
            review.discard,
            review.unlink,
        )
        self.make_due, self.record, self.withdraw, self.erase = (
            review.make_due,
            review.record,
            review.withdraw,
            review.erase,
        )

    def bind[F: Flow[Any, Any, Any]](self, flow: type[F], tenant: str, deadline: Deadline) -> F:
        """Return the flow for one run."""
        return flow(Context(self, flow, tenant, deadline, self._services))

    def ask[C: BaseModel, V: Vendor[Any], R: BaseModel, T](self, flow: Flow[C, V, R], question: Callable[[V], T]) -> T:
        """Return what `question` returns of the vendor of a flow that is bound. Raises VendorError."""
        return self._credentials.signed_in(flow, question)

    def run[C: BaseModel, V: Vendor[Any], R: BaseModel](
        self,
        flow: type[Flow[C, V, R]],
        command: C,
        *,
        tenant: str,
        deadline: Deadline,
        later: bool = False,
        mapping: str | None = None,
        over_undone: bool = False,
        settles: bool = True,
        notes_changed: bool = True,
    ) -> Outcome:
        """Send a command that a caller sent, or return what became of the same event before.

        With `later` it is only accepted, and is sent from its queue. `mapping` names what made the command.
        With `over_undone` it replaces an operation that waits and was surely never done. If it is not to `settle`, the
        caller does so as soon as it was done (`Outcome.unsettled`). With `notes_changed` the operation keeps that this
        payload differs from the one that was sent.

        Raises RunningError while another call sends it, and UnavailableError if it could not be accepted; then nothing
        was sent.
        """
        run = self.bind(flow, tenant, deadline)
        key = run.key(command)
        new_id = flow.operation_id(tenant, key)
        add_to_log(operation_id=new_id)
        try:
            vendor = self._credentials.client(run)
        except UnavailableError:
            # What could not be sent is not accepted. What became of the event before is returned all the same.
            known = self._operations.get(new_id)
            if known is None or known.state in REPLACEABLE:
                raise
            return self._known(flow, known, fingerprint(compared(command)), notes=notes_changed)
        new = self._accepted(run, new_id, key, command, mapping=mapping, notifies=run.context.settings.has_webhook)
        new = new.model_copy(update={"sent_to": run.account(vendor)})
        if not later:
            new = self._claimed(new, deadline)
        claim = run.claim(command, new, later=later)
        if claim is None:
            claim = self._operations.create(new, over=REPLACEABLE, over_undone=over_undone)
        if not claim.won and _is_held(claim.operation):
            claim = self._queued(new, claim.operation)
            later = claim.won
        if not claim.won:
            return self._known(flow, claim.operation, new.fingerprint, notes=notes_changed)
        if later:
            self._settling.hand_over(claim.operation)
            return Outcome(claim.operation, ran=False)
        return self._send(run, command, claim.operation, vendor, settles=settles)

    def accept[C: BaseModel, V: Vendor[Any], R: BaseModel](
        self,
        flow: type[Flow[C, V, R]],
        command: C,
        *,
        tenant: str,
        deadline: Deadline,
        notifies: bool,
        mapping: str | None = None,
    ) -> Claim:
        """Store a command of which nobody waits for the result: one round trip, and no setting of the vendor is read.

        If it was stored before, the claim is not won, whatever became of it; if that was with another payload, the
        operation keeps that this one differs. The caller passes the operation of a claim that is won to `hand_over`.
        The vendor's account is stored when the operation is sent first. The flow has no
        `claim` of its own. Raises RunningError, StorageError; then nothing was stored.
        """
        run = self.bind(flow, tenant, deadline)
        key = run.key(command)
        new_id = flow.operation_id(tenant, key)
        new = self._accepted(run, new_id, key, command, mapping=mapping, notifies=notifies)
        claim = self._operations.create(new, over=REPLACEABLE)
        if not claim.won and _is_held(claim.operation):
            return self._queued(new, claim.operation)
        if not claim.won:
            self._is_changed(flow, claim.operation, new.fingerprint)
        return claim

    def _accepted[C: BaseModel, V: Vendor[Any], R: BaseModel](
        self, run: Flow[C, V, R], new_id: str, key: str, command: C, *, mapping: str | None, notifies: bool
    ) -> Operation:
        now = self._now()
        return Operation(
            operation_id=new_id,
            tenant=run.context.tenant,
            flow=run.name,
            function=run.function,
            event_key=key,
            state=TRANSITIONS[None, Event.ACCEPTED],
            fingerprint=fingerprint(compared(command)),
            payload=command.model_dump_json(),
            lease=uuid.uuid4().hex,
            **self._settling.at_once(now),
            created_at=now,
            updated_at=now,
            mapping=mapping,
            notifies=notifies,
        )

    def _claimed(self, new: Operation, deadline: Deadline) -> Operation:
        due = DueTimes(due_at=self._lease_end(new.created_at, deadline), lent_until=None)
        state = TRANSITIONS[None, Event.CLAIMED]
        return new.model_copy(update={**due, "state": state, "tries": 1, "first_sent_at": new.created_at})

    def retry(
        self,
        flows: Mapping[str, type[Flow[Any, Any, Any]]],
        operation_id: str,
        *,
        tenant: str,
        deadline: Deadline,
        lent_until: int | None = None,
    ) -> Outcome | None:
        """Continue a tenant's operation that is due, or lent to the caller until `lent_until`; None if it is neither.

        `flows` are those that the caller runs, by their names. Raises StorageError; then it stays due, at the latest
        when its lease is over. Raises the error with which the bridge itself fails, and PoisonError once the operation
        needed review for that.
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
        add_to_log(tenant=operation.tenant, flow=operation.flow)
        run: Flow[Any, Any, Any] | None = None
        try:
            run = self.bind(flows[operation.flow], tenant, deadline)
            return self._continue(run, operation)
        except UnavailableError:
            raise
        except Exception as error:
            self._store(run, operation, self._decide(operation, Broken(type(error).__name__)))
            raise

    def _continue[C: BaseModel, V: Vendor[Any], R: BaseModel](
        self, flow: Flow[C, V, R], operation: Operation
    ) -> Outcome:
        """Send an operation that was claimed again, or look it up first."""
        decision = self._decide(operation, Claimed(flow.is_repeatable))
        if is_used_up(operation, self._policy):
            return self._store(flow, operation, decision)
        command = flow.command.model_validate_json(operation.payload or "")
        if isinstance(flow, Create) and decision.next is Next.LOOK:
            return self._look(flow, command, decision.operation)
        return self._send(flow, command, decision.operation)

    def _queued(self, claimed: Operation, there: Operation) -> Claim:
        """Accept it in the place of an operation that has ended, and that another change holds."""
        claim = self._operations.queue(queued(claimed, there, claimed.created_at, self._policy), there)
        if claim.won or claim.operation.state not in REPLACEABLE | {State.SUCCEEDED}:
            return claim
        raise RunningError(  # the change that held it has just ended
            "The same event is being changed right now. Send it again after the time in Retry-After.",
            headers={"Retry-After": "1"},
            operation_id=claimed.operation_id,
        )

    def _known(
        self, flow: type[Flow[Any, Any, Any]], operation: Operation, fingerprint: str, *, notes: bool
    ) -> Outcome:
        if operation.is_erased:
            raise ErasedError(
                "This event was processed, and its data were erased since. It was not sent.",
                operation_id=operation.operation_id,
            )
        if operation.state is State.SENDING:
            raise RunningError(
                "The same event is being processed right now. Send it again after the time in Retry-After.",
                headers={"Retry-After": str(max(1, min(2, (operation.due_at or 0) - self._now())))},
                operation_id=operation.operation_id,
            )
        return Outcome(operation, ran=False, changed=self._is_changed(flow, operation, fingerprint, notes=notes))

    def _is_changed(
        self, flow: type[Flow[Any, Any, Any]], operation: Operation, fingerprint: str, *, notes: bool = True
    ) -> bool:
        """Return whether an event comes with another payload than before, and keep that. Raises StorageError."""
        if flow.key_says_all or operation.is_erased or operation.fingerprint == fingerprint:
            return False
        if notes and operation.changed_fingerprint != fingerprint:
            now = self._now()
            self._operations.note_changed(operation, fingerprint, now, listed_until=now + self._policy.keep)
        return True

    def _send[C: BaseModel, V: Vendor[Any], R: BaseModel](
        self, flow: Flow[C, V, R], command: C, operation: Operation, vendor: V | None = None, *, settles: bool = True
    ) -> Outcome:
        context = flow.context

        def send(vendor: V) -> R | Match[R]:
            account, sending = flow.account(vendor), context.operation
            assert sending
            if flow.is_repeatable and is_elsewhere(sending, account):
                raise CannotLookError("it is about an account that the tenant no longer names", vendor=vendor.name)
            if sending.sent_to is None:
                # If the function dies while it sends, this is where to look for what it made.
                self._operations.note_account(operation, account)
            context.operation = sending.model_copy(update={"sent_to": account})
            try:
                return flow.send(command, vendor)
            finally:
                add_to_log(operation_id=operation.operation_id)  # the flow may have run another operation meanwhile

        context.operation = operation
        try:
            sent = self._credentials.signed_in(flow, send, vendor)
        except VendorError as error:
            is_down = self._transport.is_down(error.vendor, operation.tenant)
            failed = SendFailed(error, is_down=is_down, repeatable=flow.is_repeatable)
            operation = context.operation
            return self._store(flow, operation, self._decide(operation, failed), context.ending)
        operation = context.operation
        if isinstance(sent, Match):
            return self._succeed(flow, command, operation, Event.FOUND, sent.result)
        return self._succeed(flow, command, operation, Event.DONE, sent, settles=settles)

    def _look[C: BaseModel, V: Vendor[Any], R: BaseModel](
        self, flow: Create[C, V, R], command: C, operation: Operation
    ) -> Outcome:
        """Ask the vendor what it has of this command, then link a record, wait, send once more, or ask a person."""
        flow.context.operation = operation

        def find(vendor: V) -> tuple[Sequence[Match[R]], int, IncompleteSearchError | None]:
            if is_elsewhere(operation, flow.account(vendor)):
                raise CannotLookError("it was sent to an account that the tenant no longer names", vendor=vendor.name)
            found: list[Match[R]] = []
            try:
                for one in flow.find(command, vendor):
                    found.append(one)  # noqa: PERF402 - the records before an error count too
            except IncompleteSearchError as error:
                return found, vendor.search_lag, error
            return found, vendor.search_lag, None

        try:
            found, search_lag, not_shown = self._credentials.signed_in(flow, find)
            matches = possible_matches(operation, found, self._policy)
            # The write that links a record fails if another event has linked it. So if one record alone is possible,
            # nothing is asked before that write.
            is_one = len(matches) == 1 and matches[0].certain
            links = [flow.links(command, match.result) for match in matches[: self._policy.most_compared]]
            taken = [False] if is_one else self._links.taken(operation.tenant, links, operation.operation_id)
        except VendorError as error:
            is_down = self._transport.is_down(error.vendor, operation.tenant)
            decision = self._decide(operation, LookFailed(error, is_down=is_down))
        except UnavailableError:
            decision = self._decide(operation, LookFailed())
        else:
            decision = self._decide(operation, Looked(matches, taken, search_lag, not_shown))
            if decision.match is not None:
                found_result = matches[decision.match].result
                try:
                    return self._succeed(flow, command, operation, Event.FOUND, found_result, may_be_taken=is_one)
                except LinkTakenError:
                    decision = self._decide(operation, Looked(matches, [True], search_lag, not_shown))
        flow.context.ending = None
        if decision.next is Next.SEND:
            return self._send(flow, command, decision.operation)
        return self._store(flow, operation, decision)

    def _succeed[C: BaseModel, V: Vendor[Any], R: BaseModel](
        self,
        flow: Flow[C, V, R],
        command: C,
        operation: Operation,
        event: Event,
        result: R,
        *,
        may_be_taken: bool = False,
        settles: bool = True,
    ) -> Outcome:
        """Raises LinkTakenError if another event has linked the record and the caller says that this `may_be`."""
        links, ending = tuple(flow.links(command, result)), flow.context.ending
        decision = self._decide(operation, Succeeded(event, stored_result(result), links))
        decision = self._with_calls(flow, decision)
        shown = plain_json(result.model_dump_json())

        def settle() -> Outcome:
            try:
                saved = self._settling.settle(operation, decision, ending)
            except (OvertakenError, LinkTakenError) as error:
                is_taken = isinstance(error, LinkTakenError)
                if is_taken and may_be_taken:
                    raise
                failed = NotSettled(event, links, is_taken=is_taken)
                return self._store(flow, operation, self._decide(operation, failed), ending)
            is_ours = saved.result == decision.operation.result  # else a later holder of the lease has settled it
            return Outcome(saved, ran=True, result=shown if is_ours else None)

        if settles or ending or decision.notify:
            return settle()
        unsettled = Unsettled(self._settling, operation, decision, settle)
        return Outcome(decision.operation, ran=True, result=shown, unsettled=unsettled)

    def _store(
        self, flow: Flow[Any, Any, Any] | None, operation: Operation, decision: Decision, ending: Ending | None = None
    ) -> Outcome:
        decision = self._with_calls(flow, decision) if flow else decision
        stored = self._settling.settle(operation, decision, ending if decision.with_ending else None)
        return Outcome(stored, ran=True, error=decision.error)

    def _with_calls(self, flow: Flow[Any, Any, Any], decision: Decision) -> Decision:
        """Return the decision with the calls of this attempt, if they are to be stored."""
        settled, context = decision.operation, flow.context
        has_failed = settled.state is not State.SUCCEEDED
        if not has_failed and not context.settings.keep_exchanges_days:
            return decision
        assert decision.event
        exchange = context.calls.exchange(settled.updated_at, decision.event, bodies=has_failed)
        if exchange is None:
            return decision
        kept = max(context.settings.keep_exchanges_days * DAY, self._policy.keep_failed if has_failed else 0)
        counted = settled.model_copy(update={"exchanges": (settled.exchanges or 0) + 1})
        return replace(decision, operation=counted, exchange=exchange, exchange_until=settled.updated_at + kept)

    def _decide(self, operation: Operation, happened: Happened) -> Decision:
        return decide(operation, happened, self._now(), self._policy, self._jitter())

    def _lease_end(self, now: int, deadline: Deadline) -> int:
        return math.ceil(now + deadline.remaining() + AFTER_DEADLINE)

    def _now(self) -> int:
        return int(self._clock())


def _is_held(operation: Operation) -> bool:
    return bool(operation.held) and operation.state in REPLACEABLE | {State.SUCCEEDED}

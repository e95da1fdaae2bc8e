"""The decisions of a person about an operation, and what is recorded, taken back or erased by hand."""

import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from crm_bridge.engine.credentials import Credentials
from crm_bridge.engine.policy import Policy
from crm_bridge.engine.record import is_elsewhere, stored_links, stored_result, with_attempt
from crm_bridge.engine.settling import Ending, Settling
from crm_bridge.engine.states import REPLACEABLE, TRANSITIONS, UNLINKABLE
from crm_bridge.errors import (
    CannotLookError,
    ConflictError,
    ContractBrokenError,
    Event,
    FieldError,
    InvalidError,
    LinkTakenError,
    NoSuchRecordError,
    OvertakenError,
    RefusedError,
    UnconfirmedError,
    VendorError,
)
from crm_bridge.flow import Create, Flow
from crm_bridge.outbound.transport import Deadline
from crm_bridge.outbound.vendor import Vendor
from crm_bridge.services import Services
from crm_bridge.storage.links import Link
from crm_bridge.storage.operation import ERASED, Operation, State, fingerprint
from crm_bridge.telemetry import count, logger

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

    from crm_bridge.engine.engine import Engine


class Review:
    """What `Engine` offers to a person. Threads may share it."""

    def __init__(
        self, engine: "Engine", services: Services, settling: Settling, credentials: Credentials, policy: Policy
    ) -> None:
        self._engine = engine
        self._operations = services.operations
        self._links = services.links
        self._settling = settling
        self._credentials = credentials
        self._clock = services.clock
        self._policy = policy

    def link_existing(
        self,
        flow: type[Flow[Any, Any, Any]],
        in_review: Operation,
        vendor_id: str,
        *,
        by: str,
        deadline: Deadline,
        confirmed: bool = False,
    ) -> Operation:
        """Link the record with this id, which a person found at the vendor, and return the operation.

        The vendor is asked whether it is the right record, where it can be asked. Raises UnconfirmedError if that could
        not be verified, unless the person has `confirmed` it; InvalidError, ConflictError; VendorError if the vendor
        did not respond; StorageError. Then nothing was changed.
        """
        if in_review.state is not State.NEEDS_REVIEW:
            raise _not_in_review(in_review)
        run = self._engine.bind(flow, in_review.tenant, deadline)
        if not isinstance(run, Create):
            raise ConflictError("This event makes no record that could be linked. Retry or discard it.")
        command = run.command.model_validate_json(_payload(in_review))
        result = run.existing(command, vendor_id)
        links = run.links(command, result)
        doubt = self._doubt(run, command, result, in_review)
        if doubt and not confirmed:
            raise UnconfirmedError(
                f"{doubt}. Look at the record at the vendor once more, then confirm its id.",
                fields=[FieldError("confirmed", "must be true, because the id could not be verified")],
            )
        changes = {"result": stored_result(result), "payload": None, "links": stored_links(links)}
        return self._resolved(in_review, Event.LINKED, by, changes, links)

    def _doubt[C: BaseModel, V: Vendor[Any], R: BaseModel](
        self, flow: Create[C, V, R], command: C, result: R, in_review: Operation
    ) -> str | None:
        """Return why it is not certain that `result` is the right record; None if it is certain.

        Raises InvalidError if it is the wrong record, VendorError if the vendor did not respond.
        """

        def verify(vendor: V) -> str | None:
            if is_elsewhere(in_review, flow.account(vendor)):
                raise CannotLookError("it was sent to an account that the tenant no longer names", vendor=vendor.name)
            return flow.verify(command, result, vendor)

        try:
            return self._credentials.signed_in(flow, verify)
        except NoSuchRecordError as error:
            raise InvalidError(error.message, fields=[FieldError("id", "is not the id of a record")]) from None
        except (CannotLookError, RefusedError, ContractBrokenError) as error:
            return f"Cannot verify the id at the vendor: {error.message}"
        except VendorError as error:
            error.retry_after = max(error.retry_after or 0, self._policy.shortest_hold)
            raise

    def unlink(self, linked: Operation, *, by: str) -> Operation:
        """Delete a wrong link, and return the operation, which needs a decision again.

        Only for a record that a person or a look-up linked. The vendor's record stays, and so does what used the link,
        such as a job that was made at the site meanwhile. Raises ConflictError, StorageError.
        """
        last = linked.attempts[-1].event if linked.attempts else None
        if linked.state is not State.SUCCEEDED or last not in UNLINKABLE:
            raise ConflictError("Only a record that a person or a look-up linked can be unlinked.")
        was = ", ".join(f"{right.system} {right.entity} {right.id}" for _, right in linked.links)
        changes = {
            "result": None,
            "payload": self._operations.kept_payload(linked),
            "links": (),
            "expires_at": None,
            "lease": uuid.uuid4().hex,  # so that the next decision is a new webhook to its receiver
        }
        writes = [
            *self._links.releases(linked.tenant, linked.links, linked.operation_id),
            self._operations.drop_payload(linked),
        ]
        return self._resolved(linked, Event.UNLINKED, f"{by}; it was {was}" if was else by, changes, writes=writes)

    def erase(self, ended: Operation, *, by: str) -> None:
        """Erase the data and the links of an operation that has ended.

        If it has succeeded, its id and state stay for `Policy.keep`, so that a late repetition of the event is not sent
        again. Raises ConflictError if it has not ended, or is being changed; StorageError.
        """
        if ended.state not in REPLACEABLE | {State.SUCCEEDED} or ended.held or ended.holds or ended.reserved:
            raise ConflictError(f"Only an operation that has ended can be erased; its state is {ended.state}.")
        if ended.state in REPLACEABLE:
            try:
                self._operations.erase(ended)
            except OvertakenError:
                raise ConflictError("The operation was changed meanwhile. Look at it again.") from None
            return
        changes = {
            "event_key": ERASED,
            "fingerprint": "",
            "payload": None,
            "result": None,
            "sent_to": None,
            "mapping": None,
            "exchanges": None,
            "links": (),
            "expires_at": self._now() + self._policy.keep,
            "lease": uuid.uuid4().hex,
            **dict.fromkeys(("changed_at", "changed_times", "changed_fingerprint")),
        }
        writes = [
            *self._links.releases(ended.tenant, ended.links, ended.operation_id),
            self._operations.drop_payload(ended),
            self._operations.drop_changed(ended),
            *self._operations.exchanges.drops(ended),
        ]
        without_history = ended.model_copy(update={"attempts": ()})
        self._resolved(without_history, Event.ERASED, by, changes, writes=writes)

    def request_retry(
        self, in_review: Operation, *, by: str, due_at: int | None = None, anew: bool = True
    ) -> Operation:
        """Let the operation begin anew, now or at `due_at`, because a person found that the vendor has not done it.

        If it is not `anew`, nobody looked at the vendor, so the bridge looks first if it would have looked before.
        Raises ConflictError, StorageError.
        """
        if in_review.state is State.NEEDS_REVIEW:
            _payload(in_review)
        changes: dict[str, object] = {"due_at": due_at} if due_at else {**self._settling.at_once(self._now())}
        changes["tries"] = 0
        if anew:
            changes |= dict.fromkeys(("first_sent_at", "unconfirmed_since", "deferred_at", "sent_to"))
        return self._resolved(in_review, Event.RETRY_REQUESTED, by, changes)

    def make_due(self, waiting: Operation, *, by: str, due_at: int | None = None) -> Operation:
        """Let an operation that waits be sent at once instead of at its time, and return it.

        What may be done already is looked for first, as always, and the breaker decides whether the vendor is called.
        It is put on its queue; with `due_at` (epoch seconds) the dispatcher does so then, in the fair share of its
        tenant. One that is on a queue is returned as it is.

        Raises ConflictError if it is being sent or has ended, waits for a change that came first, or was changed
        meanwhile; StorageError.
        """
        state = TRANSITIONS.get((waiting.state, Event.MADE_DUE))
        if state is None:
            raise ConflictError(f"Only an operation that waits can be sent at once; its state is {waiting.state}.")
        if waiting.held:
            raise ConflictError("This event waits for a change of the same key link, and is sent right after that.")
        if waiting.lent_until is not None:
            return waiting
        now = self._now()
        times: dict[str, object] = {"due_at": due_at} if due_at else {**self._settling.at_once(now)}
        # The last attempt still says why it waits, and `updated_at` when that was.
        kept = {"last_attempt": waiting.last_attempt, **times}
        due = with_attempt(waiting, Event.MADE_DUE, now, f"by {by}").model_copy(update=kept)
        if not self._operations.hasten(waiting, due):
            raise ConflictError("The operation was changed meanwhile. Look at it again.")
        self._settling.hand_over(due)
        logger().info("resolved", extra={"event": Event.MADE_DUE, "state": state})
        return due

    def discard(
        self, flow: type[Flow[Any, Any, Any]], in_review: Operation, *, by: str, deadline: Deadline
    ) -> Operation:
        """Reject the operation: a person decided that it shall not be done. Raises ConflictError, StorageError."""
        if in_review.state is not State.NEEDS_REVIEW:
            raise _not_in_review(in_review)
        changes = {"payload": None, "exchanges": None, "expires_at": self._now() + self._policy.keep}
        ending = self._engine.bind(flow, in_review.tenant, deadline).discarded(in_review)
        writes = self._operations.exchanges.drops(in_review)
        return self._resolved(in_review, Event.DISCARDED, by, changes, writes=writes, ending=ending)

    def record[R: BaseModel](
        self, flow: type[Flow[Any, Any, R]], event_key: str, result: R, links: Sequence[Link], *, tenant: str, by: str
    ) -> tuple[Operation, bool]:
        """Store a record that was made before there was a bridge, so that its event is not sent.

        Return the operation, and whether it is new: one that exists already is not changed.
        Raises ConflictError if an id is linked to something else; StorageError.
        """
        now = self._now()
        ids = stored_result(result)
        operation = Operation(
            operation_id=flow.operation_id(tenant, event_key),
            tenant=tenant,
            flow=flow.name,
            function=flow.function,
            event_key=event_key,
            state=TRANSITIONS[None, Event.LINKED],
            fingerprint=fingerprint(ids),
            result=ids,
            links=stored_links(links),
            lease=uuid.uuid4().hex,
            created_at=now,
            updated_at=now,
        )
        operation = with_attempt(operation, Event.LINKED, now, f"by {by}")
        try:
            stored = self._operations.save(
                operation, [*self._links.puts(tenant, links, operation.operation_id, now)], over=None
            )
        except LinkTakenError:
            raise ConflictError("That id is linked to something else already.") from None
        return stored, stored.lease == operation.lease

    def withdraw(self, done: Operation, *, by: str) -> None:
        """Reject an operation whose record was removed, so that its event may be sent again. Raises StorageError."""
        changes = {"result": None, "links": (), "expires_at": self._now() + self._policy.keep}
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
            raise _not_in_review(operation)
        now = self._now()
        resolved = with_attempt(operation, event, now, f"by {by}").model_copy(
            update={**changes, "state": state, "updated_at": now, "candidates": None}
        )
        writes = [*writes, *self._links.puts(operation.tenant, links, operation.operation_id, now)]
        if event is Event.LINKED:
            writes.append(self._operations.keep_payload(operation, now + self._policy.keep))
        is_news = resolved.notifies and event in (Event.LINKED, Event.DISCARDED, Event.UNLINKED)
        news = self._settling.news(resolved) if is_news else None
        if news:
            writes.append(self._operations.put(news))
        try:
            stored = self._settling.write(resolved, event, writes, ending, over=operation.state, lease=operation.lease)
        except LinkTakenError:
            if event in (Event.UNLINKED, Event.ERASED):
                raise ConflictError("The link was changed meanwhile. Look at the operation again.") from None
            raise ConflictError("That id is linked to something else already.") from None
        except OvertakenError:
            raise ConflictError("The operation was changed meanwhile. Look at it again.") from None
        if stored != resolved.with_notes_of(stored):
            raise ConflictError(f"Somebody else was quicker: its state is {stored.state} now.")
        self._settling.hand_over(news)
        self._settling.hand_over(stored)
        self._settling.wake_waiters(stored)
        logger().info("resolved", extra={"event": event, "state": stored.state})
        count("Operations", flow=stored.flow, state=stored.state)
        return stored

    def _now(self) -> int:
        return int(self._clock())


def _payload(in_review: Operation) -> str:
    """Return the payload. Raises ConflictError if it is no longer stored."""
    if in_review.payload is None:
        raise ConflictError(
            "The payload is no longer kept, so this can neither be sent nor linked. Discard it, then let the CRM "
            "send the event again."
        )
    return in_review.payload


def _not_in_review(operation: Operation) -> ConflictError:
    return ConflictError(f"Only an operation that needs review can be resolved; its state is {operation.state}.")

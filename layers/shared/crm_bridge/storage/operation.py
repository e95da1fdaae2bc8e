"""The record of one event on its way to a vendor. What a state means and which one follows is the engine's business."""

import hashlib
import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, overload

from pydantic import BaseModel, ConfigDict

from crm_bridge.errors import Event
from crm_bridge.ids import canonical_key
from crm_bridge.storage.links import Identity

if TYPE_CHECKING:
    from crm_bridge import responses

SHARDS = "01234567"
"""Partitions of the due index. A new event writes two entries, and a partition takes 1,000 writes in a second."""
LISTING_SHARDS = "0123"
"""Partitions of the listing index for each tenant. A new event writes one entry."""
ERASED = "(erased)"
"""Shown in lists in place of the event key of an operation whose data were erased."""


class State(StrEnum):
    SENDING = "sending"
    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    WAITING = "waiting"
    UNCONFIRMED = "unconfirmed"
    NEEDS_REVIEW = "needs_review"


LISTED = frozenset({State.SUCCEEDED, State.REJECTED, State.NEEDS_REVIEW})
"""States that the listing index holds. It is written when an operation settles; the others are in the due index."""


class Attempt(BaseModel):
    """One thing that was tried for an operation, for the person who asks why."""

    model_config = ConfigDict(frozen=True)

    at: int
    """Epoch seconds at which it was over."""
    event: Event
    reason: str = ""
    status: int | None = None
    """The vendor's HTTP status, if it gave one."""

    def to_response(self) -> "responses.Attempt":
        return {"at": as_time(self.at), "event": self.event, "reason": self.reason, "vendor_status": self.status}


class Candidate(BaseModel):
    """A record at the vendor that may be what an operation made, for the person who decides."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    """As the vendor shows it, cut. It may be a customer's, so it is protected as the payload is."""
    created_at: str | None = None
    """As the vendor shows it, in ISO 8601; without a zone if the vendor gives none."""

    def to_response(self, *, name: bool) -> "responses.Candidate":
        shown: responses.Candidate = {"id": self.id, "created_at": self.created_at}
        return {**shown, "name": self.name} if name else shown


class OperationSummary(BaseModel):
    """An operation as a list shows it. All times are epoch seconds. The listing index projects exactly this."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    operation_id: str
    flow: str
    event_key: str
    state: State
    last_attempt: Attempt | None = None
    due_at: int | None = None
    created_at: int
    updated_at: int

    @property
    def place(self) -> tuple[str, int]:
        """Return the place at which a list goes on behind it, see `Operations.listed`."""
        return self.operation_id, self.updated_at if self.state in LISTED else self.due_at or 0

    def to_response(self) -> "responses.OperationSummary":
        """Return it as an element of a list."""
        return {
            "operation_id": self.operation_id,
            "flow": self.flow,
            "event_key": self.event_key,
            "state": self.state,
            "last_attempt": self.last_attempt.to_response() if self.last_attempt else None,
            "due_at": as_time(self.due_at),
            "created_at": as_time(self.created_at),
            "updated_at": as_time(self.updated_at),
        }


class Operation(OperationSummary):
    """One command on its way.

    `lease` is the token of whoever claimed it last. `due_at` is when the bridge must look at the operation again; while
    it is being sent, that is when its lease expires. `lent_until` is set while it belongs to a message on a queue, and
    only the message that names the same time may take it up before it is due.
    `was` is the state out of which it was claimed. `first_sent_at` bounds what a look-up may link; `unconfirmed_since`,
    once set, says that a sending may have been done, and bounds how long the vendor's search may lag behind.
    `deferred_at` is when the vendor last asked to send it later, if no look-up since has found that nothing was done.
    `candidates` are the records at the vendor from which a person chooses. `sent_to` is where it went, so that it is
    not looked for elsewhere. `mapping` names what made the payload out of what the CRM sent; `links` are those that it
    holds. `notifies` says that its tenant is told when it settles; see `webhooks`. `waiters` are the operations that
    wait for its end. `held` are the operations that this one waits for whatever its state is, and `holds` those that
    wait for it; `reserved` is for what it was made or is kept.
    `changed_at` is when the event last came again with a different payload that was not applied, `changed_times` how
    often one came that differed from the one before, and `changed_fingerprint` is the last one's.
    """

    tenant: str
    function: str
    """The Lambda function that sends it, which knows its flow."""
    fingerprint: str
    payload: str | None = None
    result: str | None = None
    attempts: tuple[Attempt, ...] = ()
    tries: int = 0
    lease: str | None = None
    was: State | None = None
    lent_until: int | None = None
    first_sent_at: int | None = None
    unconfirmed_since: int | None = None
    deferred_at: int | None = None
    candidates: tuple[Candidate, ...] | None = None
    sent_to: str | None = None
    mapping: str | None = None
    links: tuple[tuple[Identity, Identity], ...] = ()
    held: frozenset[str] = frozenset()
    holds: tuple[str, ...] = ()
    reserved: str | None = None
    expires_at: int | None = None
    notifies: bool = False
    waiters: frozenset[str] = frozenset()
    changed_at: int | None = None
    changed_times: int | None = None
    changed_fingerprint: str | None = None
    exchanges: int | None = None
    """How many were stored of its attempts, in items of their own; see `storage.exchanges`."""

    @property
    def shard(self) -> str:
        """Return the partition of the due index in which it is while it is unfinished."""
        return shard_of(self.operation_id, SHARDS)

    @property
    def summary(self) -> OperationSummary:
        return OperationSummary.model_construct(**{name: getattr(self, name) for name in OperationSummary.model_fields})

    @property
    def is_erased(self) -> bool:
        """Return whether only the id and the state are left of it, see `Engine.erase`."""
        # An event may have any key, but then it has a fingerprint; the event of a reserved pair has none, but its key.
        return self.event_key == ERASED and not self.fingerprint

    @property
    def is_undone(self) -> bool:
        """Return whether it waits and was surely never done."""
        return self.state is State.WAITING and self.unconfirmed_since is None and self.deferred_at is None

    def with_notes_of(self, there: "Operation") -> "Operation":
        """Return it with what others add to an operation while somebody else has its lease: `there` is newer."""
        noted = ["waiters"] if self.is_erased else ["waiters", "changed_at", "changed_times", "changed_fingerprint"]
        return self.model_copy(update={name: getattr(there, name) for name in noted})

    def changed_response(self) -> "responses.Changed | None":
        """Return what is known of later payloads; None if none differed."""
        return {"at": as_time(self.changed_at), "times": self.changed_times or 1} if self.changed_at else None

    def summary_response(self) -> "responses.OperationSummary":
        """Return it as an element of a list, with what is known of later payloads."""
        changed, shown = self.changed_response(), self.summary.to_response()
        return {**shown, "changed": changed} if changed else shown

    def candidates_response(self, *, names: bool) -> "list[responses.Candidate]":
        return [candidate.to_response(name=names) for candidate in self.candidates or ()]

    def to_response(self) -> "responses.Operation":
        """Return it without its payload, which not everybody may see."""
        shown: responses.Operation = {
            **super().to_response(),
            "attempts": [attempt.to_response() for attempt in self.attempts],
            "mapping": self.mapping,
            "result": json.loads(self.result) if self.result else None,
            "links": [[end.to_response() for end in link] for link in self.links],
        }
        if changed := self.changed_response():
            shown["changed"] = changed
        return shown


def operation_id(tenant: str, flow: str, event_key: str) -> str:
    """Return the id under which an event is known: the same event gives the same id, in whichever function it arrives.

    The same is what has the same ids, in whatever form.
    """
    digest = hashlib.sha256(f"{tenant}\0{flow}\0{canonical_key(event_key)}".encode()).hexdigest()
    return f"op_{digest[:32]}"


@overload
def as_time(seconds: int) -> str: ...


@overload
def as_time(seconds: None) -> None: ...


@overload
def as_time(seconds: int | None) -> str | None: ...


def as_time(seconds: int | None) -> str | None:
    """Return epoch seconds as the API shows them: ISO 8601 in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


def fingerprint(payload: str) -> str:
    return hashlib.sha256(payload.encode()).hexdigest()


def shard_of(operation_id: str, shards: str) -> str:
    return shards[int(operation_id[-1], 16) % len(shards)]

"""A change or a deletion of a key link: what it holds meanwhile, and what becomes of that when it ends.

A change *holds* the events that have the key link, and *reserves* the event of the new pair: a request for the same
waits until the change has ended. All of it is marked in the transaction that claims or accepts the change, together
with a note in the key link's row, and ended in the one that settles it. `tests/models/held.py` is a model of this.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crm_bridge.engine import KEEP, KEEP_ATTEMPTS, MOST_ENDINGS, REPLACEABLE, TRANSITIONS, Context
from crm_bridge.errors import Event, NeedlessError, NotDoneError, OvertakenError, StorageError
from crm_bridge.sequence import Turn, Turns
from crm_bridge.storage.links import Identity, Link, Ties
from crm_bridge.storage.locks import Lock, Note, read_lock
from crm_bridge.storage.operation import Attempt, Operation, State
from crm_bridge.storage.operation_reader import as_operation, timed
from crm_bridge.storage.operations import Claim
from crm_bridge.vendors.revio import VENDOR
from crm_bridge.webhooks import webhook
from key_link.models import StoredKeyLink

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

WHAT = "change"
"""The name, in the key link's row, of all that is applied to it."""
OPEN = frozenset({State.SENDING, State.WAITING, State.UNCONFIRMED})
CLOCK_SKEW = 10_000
"""Milliseconds by which the clocks of two functions may differ."""


@dataclass(frozen=True)
class Target:
    """The pair that a key link is changed to: the event of that pair, and its links."""

    operation_id: str
    event_key: str
    flow: str
    """The name of the flow of that event."""
    links: Callable[[StoredKeyLink], Sequence[Link]]


@dataclass
class Change:
    """One change while it runs; it is the ending of its operation (see `engine.Ending`).

    `seen` is what it knows of events that were not as expected: what the table had when a condition failed.
    """

    context: Context
    key_link_id: int
    asked_at: int
    target: Target | None
    ties: "Mapping[str, Ties]" = field(default_factory=dict)
    holds: tuple[str, ...] = ()
    seen: dict[str, Operation | None] = field(default_factory=dict)
    turn: Turn | None = None
    row: Lock | None = None
    """The key link's row, if it was not as expected."""
    finders: frozenset[str] = frozenset()
    """Events that the row says have found the key link, and that its links do not name any more."""
    result: StoredKeyLink | None = None
    untied: set[str] = field(default_factory=set)
    """Rows of links that another event has tied since."""
    stale: Ties | None = None
    """Of the new pair's event, if it was answered with another key link, which no longer says so."""
    gone: set[str] = field(default_factory=set)
    """Events that there are no more."""
    along: "list[tuple[str, TransactWriteItemTypeDef]]" = field(default_factory=list)
    """The last writes: of the row, of events (by their ids), and of links."""

    # ------------------------------------------------------------------ the begin

    def claim(self, operation: Operation, *, later: bool) -> Claim:
        """Claim or accept the change, and mark all that it holds. Raises StorageError."""
        for _ in range(MOST_ENDINGS):
            self._read_current_ties()
            with_turn = not later and self._may_begin() and not self.obstacle()
            along = self._marks(operation, with_turn=with_turn, accepts=not with_turn)
            claimed = operation.model_copy(update={"holds": self.holds})
            try:
                claim = self.context.operations.create(claimed, over=REPLACEABLE, along=[write for _, write in along])
            except OvertakenError as overtaken:
                self._note_overtaken(along, overtaken)
                continue
            self.context.operation = claim.operation
            self._is_marked(along)
            if claim.won and with_turn:
                self._has_begun(Lock(operation.lease or "", (operation.due_at or 0) * 1000))
            return claim
        raise StorageError("Too many changes of this key link at once. Send the same request again.")

    def begin(self) -> None:
        """Take the turn, and hold what is to be held. Raises NotDoneError, NeedlessError, StorageError."""
        if self.turn and not self.turn.is_over:
            return
        assert self.context.operation
        self.holds = self.context.operation.holds
        self.seen = {}
        self.turn = self.turns.begin({WHAT: self.asked_at})
        self.turn.keeps_notes = True
        self.context.ending = self
        if not self.turn.fresh:
            raise NeedlessError("the key link was changed or deleted by a later request", vendor=VENDOR)
        self.turn.wait_for_newer()
        self.mark()

    def mark(self) -> None:
        """Hold what has the key link now, and reserve what it shall be. Raises NotDoneError, StorageError."""
        assert self.context.operation
        assert self.turn
        self.ties, self.finders = {}, frozenset()
        for _ in range(MOST_ENDINGS):
            self._read_current_ties()
            if obstacle := self.obstacle():
                raise NotDoneError(obstacle, vendor=VENDOR)
            along = self._marks(self.context.operation, with_turn=False, accepts=False)
            operation = self.context.operation.model_copy(update={"holds": self.holds})
            try:
                stored = self.context.operations.save(operation, along=[write for _, write in along])
            except OvertakenError as overtaken:
                self._note_overtaken(along, overtaken)
                continue
            if stored != operation:
                raise NotDoneError("another function runs it by now", vendor=VENDOR)
            self.context.operation = operation
            self._is_marked(along)
            return
        raise NotDoneError("too many changes of this key link at once", vendor=VENDOR)

    @property
    def is_holder_certain(self) -> bool:
        """Return whether an event of ours is sure to have the key link, and none that could have it is on its way."""
        sources = [self.seen.get(event) for event in self.ties]
        return bool(sources) and all(one is None or self._has_key_link(one) for one in sources)

    def obstacle(self) -> str | None:
        """Return why the event of the new pair cannot be reserved."""
        there = self.seen.get(self.target.operation_id) if self.target else None
        if there is None:
            return None
        if there.reserved and not there.reserved.startswith(self._reserved_for("")):
            return "another key link is being changed to the same"
        if there.state in OPEN | {State.NEEDS_REVIEW} and not there.held:
            return "an event that says the same is on its way, and comes first"
        return None

    def _read_current_ties(self) -> None:
        if not self.ties or self.finders:
            self.ties = self._read_ties(self.key_link_id)

    def _marks(
        self, operation: Operation, *, with_turn: bool, accepts: bool
    ) -> "list[tuple[str, TransactWriteItemTypeDef]]":
        """Return the writes, each with the id of its event; that of the row has none."""
        locks, note = self.context.services.locks, self._note(operation)
        finders = frozenset(self.ties) | self.finders
        if with_turn:
            others = self.row.notes - {note} if self.row else frozenset()
            row = locks.beginning(
                self.context.tenant,
                self.name,
                note,
                finders,
                holder=operation.lease or "",
                now=int(self.context.clock() * 1000),
                until=(operation.due_at or 0) * 1000,
                others=others,
            )
        else:
            holder = self.turn.lock.holder if self.turn else None
            row = locks.noting(self.context.tenant, self.name, note, finders, holder=holder)
        writes: list[tuple[str, TransactWriteItemTypeDef]] = [("", {"Update": row})]
        held = set(operation.holds)
        for event in sorted(self.ties.keys() | ({self.target.operation_id} if self.target else set())):
            write = self._mark(event, operation, accepts=accepts)
            if write:
                writes.append((event, write))
                held.add(event)
        self.holds = tuple(sorted(held))
        return writes

    def _mark(self, event: str, operation: Operation, *, accepts: bool) -> "TransactWriteItemTypeDef | None":
        """Hold an event, and reserve it if it is that of the new pair; None if that is neither needed nor possible."""
        there, target = self.seen.get(event), self.target
        if event in self.gone:
            return None
        is_target = target is not None and event == target.operation_id
        values: dict[str, object] = {":held": {operation.operation_id}}
        conditions, changes = [], []
        if there and there.state is State.WAITING and there.held:
            conditions.append("#state = :there AND attribute_exists(held)")
            values[":there"] = State.WAITING.value
        elif event in self.ties and (there is None or self._has_key_link(there)):
            conditions.append("#state = :there AND begins_with(#result, :result)")
            values |= {":there": State.SUCCEEDED.value, ":result": self._result}
        elif not is_target or (accepts and self.obstacle()):
            return None
        elif there is None or there.state is State.REJECTED:
            # If it was seen and is gone by now, the write must fail: a part of an event would be stored otherwise.
            conditions.append("#state = :there" if there else "(attribute_not_exists(operation_id) OR #state = :there)")
            values[":there"] = State.REJECTED.value
        else:
            conditions.append("#state = :there AND #result = :result")
            values |= {":there": there.state.value, ":result": there.result}
        if is_target:
            assert target
            conditions.append("(attribute_not_exists(reserved) OR begins_with(reserved, :ours))")
            changes = ["reserved = :reserved"]
            values |= {":ours": self._reserved_for(""), ":reserved": self._reserved_for(operation.operation_id)}
            if there is None and event not in self.ties:
                made = self._placeholder(operation).model_dump(mode="json", exclude_none=True)
                placeholder = {one: made[one] for one in made if one not in ("operation_id", "held", "reserved")}
                names = {name: f"#{name}" if name in ("state", "function") else name for name in placeholder}
                changes += [f"{names[name]} = if_not_exists({names[name]}, :{name})" for name in placeholder]
                values |= {f":{name}": value for name, value in placeholder.items()}
        setting = f"SET {', '.join(changes)} " if changes else ""
        return self.context.operations.update(event, f"{setting}ADD held :held", " AND ".join(conditions), values)

    def _note_overtaken(self, along: "Sequence[tuple[str, TransactWriteItemTypeDef]]", error: OvertakenError) -> None:
        for (event, _), item in zip(along, error.there, strict=True):
            if item is None:
                continue
            if event and item:
                self.seen[event] = as_operation(item)
            elif self.target and event == self.target.operation_id and event not in self.ties:
                self.seen.pop(event, None)  # the next write creates it
            elif event:
                self.gone.add(event)
            elif item:
                self.row = read_lock(item)
                if self.row.found_by:
                    self.finders |= {self.row.found_by}

    def _is_marked(self, along: "Sequence[tuple[str, TransactWriteItemTypeDef]]") -> None:
        """Record that this change holds what it has seen. The new pair's event is about to lose an older key link."""
        operation = self.context.operation
        assert operation
        for event, _ in along:
            there = self.seen.get(event)
            if there:
                is_target = self.target is not None and event == self.target.operation_id
                changes: dict[str, object] = {"held": there.held | {operation.operation_id}}
                if is_target:
                    changes["reserved"] = self._reserved_for(operation.operation_id)
                self.seen[event] = there.model_copy(update=changes)
                if is_target and there.result and not self._has_key_link(there):
                    self.stale = self._read_ties(key_link_id(there.result)).get(event)

    def _may_begin(self) -> bool:
        """Return whether the turn may be free, and no newer change is noted or was made."""
        row = self.row
        return row is None or (
            row.busy_until <= self.context.clock() * 1000
            and row.applied.get(WHAT, 0) <= self.asked_at
            and all(note.at <= self.asked_at for note in row.notes)
        )

    def _has_begun(self, lock: Lock) -> None:
        operation = self.context.operation
        assert operation
        notes = frozenset({self._note(operation)})
        self.turn = Turn(self.turns, lock, notes, {WHAT: self.asked_at}, keeps_notes=True)
        self.context.ending = self

    # ------------------------------------------------------------------ the end

    def writes(self, settled: Operation, event: Event) -> "Sequence[TransactWriteItemTypeDef]":  # noqa: ARG002
        is_done = settled.state is State.SUCCEEDED
        is_over = is_done or settled.state is State.REJECTED
        self.along = [("", write) for write in self._row(settled, is_over=is_over)]
        if is_over:
            for one in sorted({*settled.holds, *self.holds} - self.gone):
                self.along += [(one, write) for write in self._release(one, settled, is_done=is_done)]
        if is_done:
            self.along += [("links", write) for write in self._links(settled)]
        return [write for _, write in self.along]

    def adapts(self, event: Event, there: Sequence[Mapping[str, Any] | None]) -> bool:
        for number, ((what, write), item) in enumerate(zip(self.along, there, strict=True)):
            if item is None:
                continue
            if what == "links":
                self.untied.add(_place(write))  # by another event, since they were read
            elif what and item:
                self.seen[what] = as_operation(item)
            elif what:
                self.gone.add(what)
            elif number == 0:  # the turn was over
                if self.turn:
                    self.turn.is_over = True
                if event is Event.DONE:
                    return False
        return True

    def _row(self, settled: Operation, *, is_over: bool) -> "Sequence[TransactWriteItemTypeDef]":
        if self.turn:
            self.turn.keeps_notes = not is_over
            return self.turn.ends(settled, is_done=settled.state is State.SUCCEEDED)
        if is_over:
            return [
                {"Update": self.context.services.locks.forgetting(self.context.tenant, self.name, self._note(settled))}
            ]
        return ()

    def _release(self, event: str, settled: Operation, *, is_done: bool) -> "Sequence[TransactWriteItemTypeDef]":
        """Return the writes that release a held event when the change is done or refused."""
        there, operations, mine = self.seen.get(event), self.context.operations, settled.operation_id
        if there is None:  # it is as it was when it was held
            return [self._release_unchanged(event, settled, is_done=is_done)]
        if mine not in there.held:
            return ()
        if not is_done and _is_placeholder(there):
            return [operations.delete(there)]
        after = self._after(there, settled, is_done=is_done)
        writes = [operations.replaced(there, after)]
        if after.state is State.SUCCEEDED and there.state is State.WAITING and after.notifies:
            writes.append(operations.put(webhook(after)))
        return writes

    def _release_unchanged(self, event: str, settled: Operation, *, is_done: bool) -> "TransactWriteItemTypeDef":
        operations, now = self.context.operations, settled.updated_at
        is_target = self.target is not None and event == self.target.operation_id
        values: dict[str, object] = {":held": {settled.operation_id} | self._overtaken(), ":mine": settled.operation_id}
        if is_target and event not in self.ties:
            made = self._placeholder(settled)
            if not is_done:
                return operations.delete(made)
            return operations.replaced(made, self._after(made, settled, is_done=True))
        if is_done and event in self.ties and not is_target:
            attempt = Attempt(at=now, event=Event.WITHDRAWN, reason=self._reason(settled)).model_dump(
                mode="json", exclude_none=True
            )
            state = TRANSITIONS[State.SUCCEEDED, Event.WITHDRAWN]
            values |= {
                ":there": State.SUCCEEDED.value,
                ":result": self._result,
                ":state": state.value,
                ":standing": timed(state, now),
                ":now": now,
                ":until": now + KEEP,
                ":attempt": attempt,
                ":attempts": [attempt],
                ":links": [],
            }
            return operations.update(
                event,
                "SET #state = :state, standing = :standing, updated_at = :now, expires_at = :until, "
                "last_attempt = :attempt, attempts = list_append(attempts, :attempts), links = :links "
                "REMOVE #result DELETE held :held",
                "contains(held, :mine) AND #state = :there AND begins_with(#result, :result)",
                values,
            )
        values |= {":waiting": State.WAITING.value, ":held": {settled.operation_id}}
        free = "REMOVE reserved " if is_target else ""
        condition = "contains(held, :mine) AND #state <> :waiting"
        return operations.update(event, f"{free}DELETE held :held", condition, values)

    def _after(self, there: Operation, settled: Operation, *, is_done: bool) -> Operation:
        now, mine = settled.updated_at, settled.operation_id
        is_reserved = there.reserved == self._reserved_for(mine)
        changes: dict[str, object] = {"held": there.held - {mine} - (self._overtaken() if is_done else frozenset())}
        if is_reserved:
            changes["reserved"] = None
        event: Event | None = None
        if is_done and is_reserved and self.target and self.result:
            event = Event.FOUND
            changes |= {
                "result": self.result.model_dump_json(),
                "links": tuple((link.left, link.right) for link in self.target.links(self.result)),
                "payload": None,
                "due_at": None,
                "lent_until": None,
                "expires_at": None,
            }
        elif is_done and self._has_key_link(there):
            event = Event.WITHDRAWN
            changes |= {"result": None, "links": (), "expires_at": now + KEEP}
        elif there.state is State.WAITING:
            changes |= {"due_at": now, "lent_until": None}
        if event:
            changes |= {"state": TRANSITIONS[there.state, event], "updated_at": now}
            attempt = Attempt(at=now, event=event, reason=self._reason(settled))
            changes |= {"attempts": (*there.attempts[1 - KEEP_ATTEMPTS :], attempt), "last_attempt": attempt}
        return there.model_copy(update=changes)

    def _links(self, settled: Operation) -> "Sequence[TransactWriteItemTypeDef]":
        """Return the writes that tie the new pair's event to the key link, and delete all else that is tied to it."""
        puts = []
        untied = {
            event: ties for event, ties in self.ties.items() if not self.target or event != self.target.operation_id
        }
        if self.target and self.result:
            links = self.target.links(self.result)
            puts = [*self.context.links.puts(self.context.tenant, links, self.target.operation_id, settled.updated_at)]
        places = {_place(write) for write in puts}
        deletes = [*self.stale.own, *self.stale.others] if self.stale else []
        for event, ties in untied.items():
            there = self.seen.get(event)
            has_another = there is not None and there.state is State.SUCCEEDED and not self._has_key_link(there)
            deletes += [*ties.own, *([] if has_another else ties.others)]
        once = {_place(write): write for write in deletes if _place(write) not in places | self.untied}
        return [*puts, *once.values()]

    # ------------------------------------------------------------------ names, notes and reads

    @property
    def name(self) -> str:
        return row_name(self.key_link_id)

    @property
    def turns(self) -> Turns:
        return Turns(self.context, self.name, VENDOR)

    def _read_ties(self, key_link_id: int) -> "Mapping[str, Ties]":
        return self.context.links.ties(self.context.tenant, identity(key_link_id))

    def _overtaken(self) -> frozenset[str]:
        """Return earlier changes of the key link that wait: once this is done, they hold nothing any more."""
        rows = [row for row in (self.row, self.turn.lock if self.turn else None) if row]
        return frozenset(note.operation_id for row in rows for note in row.notes if note.at < self.asked_at)

    @property
    def _result(self) -> str:
        """Return how a result begins that has this key link."""
        return f'{{"id":{self.key_link_id},'

    def _has_key_link(self, event: Operation) -> bool:
        return event.state is State.SUCCEEDED and (event.result or "").startswith(self._result)

    def _note(self, operation: Operation) -> Note:
        return Note(operation.operation_id, self.asked_at, WHAT)

    def _reserved_for(self, operation: str) -> str:
        """Return the value of a reservation. Changes of one key link take it over from one another, in turn."""
        return f"{self.key_link_id}#{operation}"

    def _reason(self, settled: Operation) -> str:
        return f"by a {'change' if self.target else 'deletion'} of key link {self.key_link_id}, {settled.operation_id}"

    def _placeholder(self, operation: Operation) -> Operation:
        """Return the new pair's event as this change has stored it, if there was none."""
        assert self.target
        return Operation(
            operation_id=self.target.operation_id,
            tenant=self.context.tenant,
            flow=self.target.flow,
            function=operation.function,
            event_key=self.target.event_key,
            state=TRANSITIONS[None, Event.RESERVED],
            fingerprint="",
            created_at=operation.created_at,
            updated_at=operation.created_at,
            expires_at=operation.created_at + KEEP,
            held=frozenset({operation.operation_id}),
            reserved=self._reserved_for(operation.operation_id),
        )


def key_link_id(result: str) -> int:
    """Return the key link's id in an event's result."""
    return StoredKeyLink.model_validate_json(result).id


def identity(key_link_id: int) -> Identity:
    return Identity("revio", "key_link", str(key_link_id))


def row_name(key_link_id: int) -> str:
    return f"revio key_link {key_link_id}"


def _is_placeholder(event: Operation) -> bool:
    return event.state is State.REJECTED and event.last_attempt is None and len(event.held) == 1


def _place(write: "TransactWriteItemTypeDef") -> str:
    """Return the row of the links that it writes."""
    if "Put" in write:
        item = write["Put"]["Item"]
        return str((item["identity"], item["partner"]))
    key = write["Delete"]["Key"]
    return str((key["identity"], key["partner"]))

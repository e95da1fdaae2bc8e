"""key_link: an account in another system becomes a key link at Rev.io, which can be changed and deleted."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crm_bridge import Cardinality, Context, Create, FromSource, Identity, Import, Kind, Link, Match, Update
from crm_bridge import Change as Changes
from crm_bridge.engine import DUE, Ending
from crm_bridge.errors import CannotLookError, Event, NoSuchRecordError, OpposedError
from crm_bridge.fields import numeric_id
from crm_bridge.storage.links import joined
from crm_bridge.storage.locks import Note, read_lock
from crm_bridge.storage.operation import Operation, State
from crm_bridge.storage.operations import Claim
from crm_bridge.vendors.revio import VENDOR, Revio, RevioKeyLink, key_link_of
from key_link.change import CLOCK_SKEW, Change, Target, identity, key_link_id, row_name
from key_link.key_links import Criteria, KeyLinks
from key_link.models import DeletedKeyLink, KeyLink, KeyLinkChange, KeyLinkDeletion, NewKeyLink, StoredKeyLink

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

MOST_COMPARED = 100
"""Of so many key links of one record it is found out whether they are linked."""


class CreateKeyLink(Create[NewKeyLink, Revio, StoredKeyLink], name="create_key_link", function="key_link"):
    """The key link that says this already is linked; else one is made."""

    event_route, event_model = "POST /key-links", KeyLink
    update = Update("yes", "Another pair of ids is another event. PUT /key-links/{id} changes a key link.")
    key_says_all = True
    key_parts = ("system", "entity_type", "internal_id", "external_id")
    kinds = (Kind("revio", "key_link"), Kind("revio", "customer"))
    imports = Import(
        "key-links",
        "Accounts that become key links at Rev.io: system, entity_type, internal_id, external_id.",
        "id",
        row=KeyLink,
        to_command=lambda link: NewKeyLink(link=link),
        calls=3,  # it is looked for before it is made, in both forms of a Salesforce id
    )
    from_source = FromSource(KeyLink, lambda link, now: NewKeyLink(link=link, asked_at=int(now * 1_000_000)))

    def key(self, command: NewKeyLink) -> str:
        return pair(command.link)

    def send(self, command: NewKeyLink, vendor: Revio) -> StoredKeyLink | Match[StoredKeyLink]:
        stored = self._found(command, KeyLinks(self.context, vendor))
        if stored:
            return Match(stored)
        criteria = KeyLinks(self.context, vendor).criteria(command.link)
        return criteria.stored(vendor.create_key_link(criteria.exact))

    def find(self, command: NewKeyLink, vendor: Revio) -> Iterator[Match[StoredKeyLink]]:
        """The key link that says this; or else those that may be what Rev.io made of it, and are linked to no event.

        Rev.io's own ids are not altered, so a key link is recognised by them. Raises CannotLookError.
        """
        key_links, compared, since = KeyLinks(self.context, vendor), 0, self._now()
        criteria = key_links.criteria(command.link)
        try:
            for found in vendor.key_links_of(command.link.internal_id, criteria.search):
                if criteria.fit(found):
                    if exact := key_links.reread(found.id, criteria):
                        self._ends_as_found(command, since)
                        yield Match(key_links.to_stored(exact), exact.created_at)
                        return
                elif criteria.may_fit(found):
                    compared += 1
                    if compared > MOST_COMPARED or not key_links.is_linked(found.id):
                        altered = key_links.to_stored(found)
                        yield Match(altered, found.created_at, False, str(found.id), found.external_id)
        except CannotLookError:
            stored = self._found(command, key_links)
            if stored is None:
                raise
            yield Match(stored)

    def existing(self, command: NewKeyLink, record_id: str) -> StoredKeyLink:
        ids = {"id": numeric_id(record_id, "the key link's id")}
        return StoredKeyLink.model_validate({**command.link.model_dump(), **ids})

    def verify(self, command: NewKeyLink, result: StoredKeyLink, vendor: Revio) -> str | None:
        return KeyLinks(self.context, vendor).differs(command.link, result.id)

    def links(self, command: NewKeyLink, result: StoredKeyLink) -> Sequence[Link]:
        entity_type = command.link.entity_type.casefold()
        key_link = identity(result.id)
        external = Identity(command.link.system.casefold(), entity_type, command.link.external_id)
        internal = Identity("revio", entity_type, str(command.link.internal_id))
        return [
            Link(left, right, Cardinality.MANY_TO_MANY)
            for left, right in ((external, internal), (external, key_link), (internal, key_link))
        ]

    def discarded(self, operation: Operation) -> Ending:  # noqa: ARG002
        return FoundEnding(self.context, 0, 0)

    def _found(self, command: NewKeyLink, key_links: KeyLinks) -> StoredKeyLink | None:
        """Return the key link that says this already.

        It is settled only if no change of that key link is on its way, or has ended since this began to look.
        """
        since = self._now()
        stored = key_links.stored(command.link)
        if stored:
            self._ends_as_found(command, since)
        return stored

    def _ends_as_found(self, command: NewKeyLink, since: int) -> None:
        self.context.ending = FoundEnding(self.context, command.asked_at, since)

    def _now(self) -> int:
        """Return the time in epoch milliseconds."""
        return int(self.context.clock() * 1000)


class _OneAtATime[C: KeyLinkDeletion, R: StoredKeyLink | DeletedKeyLink](Changes[C, Revio, R]):
    """One change of a key link at a time, and the last one that was asked for counts."""

    update = Update("yes", "Each request is an event of its own. The last one that arrived counts.")
    key_parts = ("id", "asked_at")

    def key(self, command: C) -> str:
        return joined(str(command.id), str(command.asked_at))

    def claim(self, command: C, operation: Operation, *, later: bool) -> Claim:
        return self._change(command).claim(operation, later=later)

    def discarded(self, operation: Operation) -> Ending:
        """Release what the change holds."""
        self.context.operation = operation
        return self._change(self.command.model_validate_json(operation.payload or ""))

    def _change(self, command: C) -> Change:
        target, link = None, command.link if isinstance(command, KeyLinkChange) else None
        if link:
            made, flow = NewKeyLink(link=link), CreateKeyLink()
            event_key = flow.key(made)
            event = CreateKeyLink.operation_id(self.context.tenant, event_key)
            target = Target(event, event_key, CreateKeyLink.name, lambda result: flow.links(made, result))
        return Change(self.context, command.id, command.asked_at, target)

    @contextmanager
    def _exclusive(self, command: C) -> Iterator[Change]:
        change = self.context.ending
        if not isinstance(change, Change):
            change = self._change(command)
        change.begin()
        assert change.turn
        with change.turn.during():
            yield change

    def _wait_for_others(self, change: Change, before: RevioKeyLink, key_links: KeyLinks) -> None:
        """Raises NotYetError while an earlier event that says what there is now may still find it, or has made it."""
        current = key_links.to_stored(before)
        event = CreateKeyLink.operation_id(self.context.tenant, pair(current))
        if event in change.holds:
            return
        there = self.context.operations.get(event)
        if there is None:
            return
        if there.state is State.SUCCEEDED and there.result and key_link_id(there.result) == current.id:
            change.mark()  # it has it by now
        elif there.state in (State.SENDING, State.UNCONFIRMED) or (
            there.state in DUE and there.unconfirmed_since is not None
        ):
            asked_at = NewKeyLink.model_validate_json(there.payload or "").asked_at if there.payload else 0
            if asked_at < change.asked_at:
                self.context.wait_for(there, "an event that says the same is on its way, and comes first")


class ChangeKeyLink(
    _OneAtATime[KeyLinkChange, StoredKeyLink],
    Changes[KeyLinkChange, Revio, StoredKeyLink],
    name="change_key_link",
    function="key_link",
):
    event_route, event_model = "PUT /key-links/{id}", KeyLink

    def send(self, command: KeyLinkChange, vendor: Revio) -> StoredKeyLink:
        """Raises NoSuchRecordError, OpposedError, NeedlessError."""
        key_links = KeyLinks(self.context, vendor)
        with self._exclusive(command) as change:
            criteria, record = key_links.criteria(command.link), vendor.record(command.id)
            before = key_link_of(record)
            is_same = criteria.fit(before) and before.external_id == command.link.external_id
            if not is_same:  # else it was changed before, and only the rest is left to do
                self._wait_for_others(change, before, key_links)
                others = [_key_link_of_target(change, criteria, key_links), key_links.stored(command.link)]
                other = next((one.id for one in others if one and one.id != command.id), None)
                if other is not None:
                    raise OpposedError(f"Rev.io's key link {other} has these values already", vendor=VENDOR)
                vendor.change_key_link(command.id, record, criteria.exact)
            change.result = criteria.stored(command.id)
            return change.result


class DeleteKeyLink(
    _OneAtATime[KeyLinkDeletion, DeletedKeyLink],
    Changes[KeyLinkDeletion, Revio, DeletedKeyLink],
    name="delete_key_link",
    function="key_link",
):
    success = 204

    def send(self, command: KeyLinkDeletion, vendor: Revio) -> DeletedKeyLink:
        """Delete it; one that is gone already is deleted, so that repeating it is safe."""
        with self._exclusive(command) as change, suppress(NoSuchRecordError):
            if not change.is_holder_certain:
                self._wait_for_others(change, vendor.key_link(command.id), KeyLinks(self.context, vendor))
            vendor.delete_key_link(command.id)
        return DeletedKeyLink(id=command.id)


def _key_link_of_target(change: Change, criteria: Criteria, key_links: KeyLinks) -> StoredKeyLink | None:
    """Return the key link that the new pair's event has, if it still says so: a search may be behind."""
    event = change.seen.get(change.target.operation_id) if change.target else None
    if event and event.result and key_link_id(event.result) != change.key_link_id:
        record = key_links.reread(key_link_id(event.result), criteria)
        return key_links.to_stored(record) if record else None
    return None


@dataclass
class FoundEnding:
    """The end of an operation that found its key link at Rev.io instead of making one (see `engine.Ending`)."""

    context: Context
    asked_at: int
    since: int
    """When it began to look (epoch milliseconds)."""
    notes: frozenset[Note] = frozenset()

    def writes(self, settled: Operation, event: Event) -> "Sequence[TransactWriteItemTypeDef]":
        if event is not Event.FOUND or settled.result is None:
            return ()
        row = self.context.services.locks.finding(
            self.context.tenant,
            row_name(key_link_id(settled.result)),
            settled.operation_id,
            since=self.since - CLOCK_SKEW,
            now=int(self.context.clock() * 1000),
            notes=self.notes,
        )
        return [{"Update": row}]

    def adapts(self, event: Event, there: Sequence[Mapping[str, Any] | None]) -> bool:  # noqa: ARG002
        """If all changes that are noted were asked for later, and none has begun: they wait for this one."""
        (item,) = there
        row = read_lock(item) if item else None
        if row is None or row.notes == self.notes or row.ended >= self.since - CLOCK_SKEW:
            return False
        self.notes = row.notes
        return all(note.at > self.asked_at for note in row.notes) and row.busy_until <= self.context.clock() * 1000


def pair(link: KeyLink | StoredKeyLink) -> str:
    """Return the event key of the event that says this."""
    system, entity_type = (link.system or "").casefold(), (link.entity_type or "").casefold()
    return joined(system, entity_type, str(link.internal_id), link.external_id)

"""Locks: one turn at a time, what was applied last, and that a refused password is not tried again."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError

from crm_bridge import aws
from crm_bridge.engine import Context
from crm_bridge.errors import Event, MaybeDoneError, NotYetError, OvertakenError, StorageError
from crm_bridge.outbound.transport import Deadline
from crm_bridge.sequence import Turns
from crm_bridge.storage.dynamodb import read_at_once, reasons_of
from crm_bridge.storage.locks import Lock, Locks, Note
from crm_bridge.storage.operation import Operation, State
from crm_bridge.storage.operations import Operations
from status_update.flow import UpdateStatus

NOW = 1_795_000_000_000
TURN = 30_000
"""Milliseconds that a turn lasts here."""


@dataclass(frozen=True)
class Desk:
    """Those who want to call a tenant's vendor."""

    locks: Locks

    def take(
        self,
        holder: str,
        *,
        now: int = NOW,
        sign_in: str = "one",
        of: tuple[str, str] = ("acme", "izzitup"),
        notes: Set[Note] = frozenset(),
    ) -> Lock:
        tenant, vendor = of
        return self.locks.take_turn(
            tenant, vendor, holder=holder, now=now, until=now + TURN, sign_in=sign_in, notes=frozenset(notes)
        )

    def end(
        self,
        holder: str,
        *,
        free_at: int = NOW + 1000,
        applied: Mapping[str, int] | None = None,
        refused: str | None = None,
        notes: Set[Note] = frozenset(),
    ) -> bool:
        return self.locks.end_turn("acme", "izzitup", holder, free_at, applied or {}, frozenset(notes), refused=refused)


@pytest.fixture
def desk(stores: Mapping[str, str]) -> Desk:
    return Desk(Locks(aws.client("dynamodb"), stores["Locks"]))


# ---------------------------------------------------------------- whose turn it is


def test_the_turn_is_given_when_nobody_had_one(desk: Desk) -> None:
    assert desk.take("ann") == Lock("ann", NOW + TURN, refused=frozenset(), applied={})


@pytest.mark.parametrize(
    ("later", "holder", "busy_until"),
    [
        (0, "ann", NOW + TURN),
        (TURN - 1, "ann", NOW + TURN),
        (TURN, "bob", NOW + 2 * TURN),
        (TURN + 1, "bob", NOW + 2 * TURN + 1),
    ],
)
def test_a_turn_is_anothers_only_once_it_is_over(desk: Desk, later: int, holder: str, busy_until: int) -> None:
    desk.take("ann")
    assert desk.take("bob", now=NOW + later) == Lock(holder, busy_until)


def test_a_turn_that_was_not_given_changes_nothing(desk: Desk) -> None:
    desk.take("ann")
    desk.take("bob", now=NOW + 1)
    assert desk.end("bob", free_at=NOW) is False
    assert desk.take("eve", now=NOW + 2) == Lock("ann", NOW + TURN)


def test_a_holder_who_asks_again_still_has_the_turn(desk: Desk) -> None:
    """As the AWS client does when the first answer got lost."""
    desk.take("ann")
    assert desk.take("ann", now=NOW + 1) == Lock("ann", NOW + TURN)


@pytest.mark.parametrize(("later", "holder"), [(999, "ann"), (1000, "bob")])
def test_a_turn_that_ended_early_is_free_from_then_on(desk: Desk, later: int, holder: str) -> None:
    desk.take("ann")
    assert desk.end("ann", free_at=NOW + 1000)
    assert desk.take("bob", now=NOW + later).holder == holder


def test_a_turn_may_be_ended_twice_by_its_holder(desk: Desk) -> None:
    desk.take("ann")
    assert desk.end("ann", applied={"1": 5})
    assert desk.end("ann", applied={"1": 5})


def test_a_turn_cannot_be_ended_when_another_has_taken_it(desk: Desk) -> None:
    desk.take("ann")
    desk.take("bob", now=NOW + TURN)
    assert desk.end("ann", free_at=NOW, applied={"1": 5}, refused="one") is False
    assert desk.take("eve", now=NOW + TURN) == Lock("bob", NOW + 2 * TURN, refused=frozenset(), applied={})


def test_a_turn_cannot_be_ended_when_nobody_had_one(desk: Desk) -> None:
    assert desk.end("ann") is False
    assert desk.take("bob").holder == "bob"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("acme", "izzitup"), ("acme", "revio")),
        (("acme", "izzitup"), ("umbrella", "izzitup")),
        (("acme#izzitup", "x"), ("acme", "izzitup#x")),
        (("acme%23izzitup", "x"), ("acme#izzitup", "x")),
    ],
)
def test_every_account_has_turns_of_its_own(desk: Desk, one: tuple[str, str], other: tuple[str, str]) -> None:
    desk.take("ann", of=one)
    assert desk.take("bob", of=other).holder == "bob"
    assert desk.take("bob", of=one).holder == "ann"


# ---------------------------------------------------------------- what was applied


def test_what_was_applied_is_kept_for_each_over_all_turns(desk: Desk) -> None:
    done = [("web", 1_795_000_000_000_001), ("mail", 7), ("web", 1_795_000_000_000_002), (None, None), ("api", 0)]
    for number, (to, at) in enumerate(done):
        now = NOW + number * TURN
        desk.take(str(number), now=now)
        assert desk.end(str(number), free_at=now, applied={to: at} if to and at is not None else None)
    known = desk.take("last", now=NOW + 9 * TURN)
    assert known.applied == {"web": 1_795_000_000_000_002, "mail": 7, "api": 0}


def test_what_was_applied_is_reported_to_those_who_must_wait_too(desk: Desk) -> None:
    desk.take("ann")
    desk.end("ann", free_at=NOW, applied={"web": 5})
    desk.take("bob")
    assert desk.take("eve") == Lock("bob", NOW + TURN, applied={"web": 5})


def test_anything_may_be_what_it_was_applied_to(desk: Desk) -> None:
    odd = ["1", "a.b", "a", "a b", "#a", ":at", "ä€😀", "a[0]", "holder", "applied"]
    for at, to in enumerate(odd):
        desk.take(to)
        assert desk.end(to, free_at=NOW, applied={to: at})
    assert desk.take("bob").applied == {to: at for at, to in enumerate(odd)}


# ---------------------------------------------------------------- what was refused


def test_a_refused_sign_in_gets_no_turn_and_another_does(desk: Desk) -> None:
    desk.take("ann", sign_in="one")
    assert desk.end("ann", free_at=NOW, refused="one")
    for later in (0, TURN, 1000 * TURN):
        account = desk.take("bob", now=NOW + later, sign_in="one")
        assert (account.holder, account.refused) == ("ann", frozenset({"one"}))
    for other in ("two", "on", "one more", "One"):
        assert desk.take(other, sign_in=other).holder == other
        assert desk.end(other, free_at=NOW)


def test_every_sign_in_that_was_ever_refused_stays_so(desk: Desk) -> None:
    for number in ("one", "two", "three", "two"):
        if desk.take(number, sign_in=number).holder == number:
            assert desk.end(number, free_at=NOW, refused=number)
    for number in ("one", "two", "three"):
        account = desk.take("bob", sign_in=number)
        assert (account.holder, account.refused) == ("three", frozenset({"one", "two", "three"}))
    assert desk.take("bob", sign_in="four").holder == "bob"


def test_a_refused_sign_in_stays_refused_when_another_was_good(desk: Desk) -> None:
    """A function that has not read the new secret yet must not lock the account with the old one."""
    desk.take("ann", sign_in="one")
    desk.end("ann", free_at=NOW, refused="one")
    desk.take("bob", sign_in="two")
    assert desk.end("bob", free_at=NOW, applied={"web": 5})
    assert desk.take("eve", sign_in="one").holder == "bob"
    assert desk.take("eve", sign_in="two") == Lock("eve", NOW + TURN, refused=frozenset({"one"}), applied={"web": 5})


def test_a_sign_in_is_not_refused_when_its_turn_was_over(desk: Desk) -> None:
    desk.take("ann", sign_in="one")
    desk.take("bob", now=NOW + TURN, sign_in="one")
    assert desk.end("ann", refused="one") is False
    assert desk.take("eve", now=NOW + 2 * TURN, sign_in="one").holder == "eve"


# ---------------------------------------------------------------- notes


OLD, NEW = Note("op_1", 5, "web"), Note("op_2", 7, "web")


def test_a_note_stays_when_its_function_was_killed_and_goes_with_the_end_of_its_turn(desk: Desk) -> None:
    assert desk.take("ann", notes={NEW}).notes == {NEW}
    assert desk.take("bob", now=NOW + TURN, notes={OLD}).notes == {OLD, NEW}
    assert desk.end("bob", free_at=NOW + TURN, notes={OLD})
    assert desk.take("ann", now=NOW + TURN, notes={NEW}).notes == {NEW}
    assert desk.end("ann", free_at=NOW, notes={NEW})
    assert desk.take("eve").notes == frozenset()


def test_no_note_is_left_by_somebody_who_does_not_get_the_turn(desk: Desk) -> None:
    desk.take("ann", notes={NEW})
    assert desk.take("bob", now=NOW + 1, notes={OLD}).notes == {NEW}


def test_a_note_is_read_as_it_was_written_whatever_it_is_about(desk: Desk) -> None:
    notes = {Note("op_1", at, what) for at, what in enumerate(["a#b", "%23", "a%b", "#", "", "ä€😀", "1"])}
    assert desk.take("ann", notes=notes).notes == notes


@dataclass
class Work:
    """Someone whose turns end with an operation."""

    desk: Desk
    operations: Operations
    operation: Operation

    def __post_init__(self) -> None:
        self._run = SimpleNamespace(locks=self.desk.locks, operations=self.operations, clock=lambda: 0.0)
        self.context = Context(cast("Any", None), UpdateStatus, "acme", Deadline(1), cast("Any", self._run))
        self.context.operation = self.operation

    def turns(self, now: int) -> Turns:
        self._run.clock = lambda: now / 1000
        return Turns(self.context, "izzitup", "IzzitUp")

    def apply(self, at: int, what: str = "web", *, now: int = NOW) -> str | None:
        return self.turns(now).apply(what, at, lambda: f"{what} is done")

    def settle(self, state: State, event: Event, **changes: object) -> Operation:
        assert self.context.ending
        settled = self.operation.model_copy(update={"state": state, **changes})
        return self.operations.save(settled, along=self.context.ending.writes(settled, event))


@pytest.fixture
def working(desk: Desk, stores: Mapping[str, str]) -> Callable[[str], Work]:
    operations = Operations(desk.locks._client, stores["Operations"])

    def work(name: str) -> Work:
        operation = Operation(
            operation_id=name,
            tenant="acme",
            flow="status_update",
            function="status_update",
            event_key=name,
            state=State.SENDING,
            fingerprint="f",
            lease=name,
            due_at=NOW // 1000 + 20,
            created_at=1,
            updated_at=1,
        )
        operations.create(operation, over=(State.REJECTED,))
        return Work(desk, operations, operation)

    return work


def test_the_turn_ends_with_the_operation_and_not_before(desk: Desk, working: Callable[[str], Work]) -> None:
    work = working("op_2")
    assert work.apply(7) == "web is done"
    assert desk.take("bob").notes == {NEW}  # and it is not bob's
    assert desk.take("bob").holder != "bob"
    assert work.settle(State.SUCCEEDED, Event.DONE).state is State.SUCCEEDED
    assert desk.take("bob") == Lock("bob", NOW + TURN, applied={"web": 7})


def test_an_older_one_waits_while_the_note_of_a_newer_one_is_there(working: Callable[[str], Work]) -> None:
    working("op_2").apply(7)  # and is killed
    older, later = working("op_1"), NOW + 60_000
    with pytest.raises(NotYetError, match="a newer one is on its way") as error:
        older.apply(5, now=later)
    assert error.value.waits_for == "op_2"
    older.settle(State.WAITING, Event.NOT_DONE)
    assert working("op_3").apply(5, "mail", now=later + 1) == "mail is done"


@pytest.mark.parametrize(("state", "waits"), [(State.NEEDS_REVIEW, True), (State.REJECTED, False), (None, False)])
def test_a_note_counts_until_its_operation_is_finished(
    desk: Desk, working: Callable[[str], Work], *, state: State | None, waits: bool
) -> None:
    newer = working("op_2")
    newer.apply(7)
    if state:
        newer.operations.save(newer.operation.model_copy(update={"state": state}))
    else:
        client = desk.locks._client
        client.delete_item(TableName=newer.operations._table, Key={"operation_id": {"S": "op_2"}})
    older, later = working("op_1"), NOW + 60_000
    if waits:
        with pytest.raises(NotYetError):
            older.apply(5, now=later)
        return
    assert older.apply(5, now=later) == "web is done"
    older.settle(State.SUCCEEDED, Event.DONE)
    assert desk.take("eve", now=later).notes == frozenset()  # what counts no more was taken away


@pytest.mark.parametrize(
    ("state", "event", "changes", "applied"),
    [
        (State.WAITING, Event.NOT_DONE, {}, {}),
        (State.WAITING, Event.NOT_DONE, {"unconfirmed_since": 1}, {"web": 7}),
        (State.UNCONFIRMED, Event.MAYBE_DONE, {"unconfirmed_since": 1}, {"web": 7}),
        (State.REJECTED, Event.REFUSED, {}, {}),
        (State.NEEDS_REVIEW, Event.IN_DOUBT, {"unconfirmed_since": 1}, {"web": 7}),
    ],
)
def test_what_may_have_been_done_counts_as_applied(
    desk: Desk,
    working: Callable[[str], Work],
    state: State,
    event: Event,
    changes: Mapping[str, object],
    applied: Mapping[str, int],
) -> None:
    work = working("op_2")
    work.apply(7)
    work.settle(state, event, **changes)
    assert desk.take("bob") == Lock("bob", NOW + TURN, applied=applied)


def test_what_may_be_on_its_way_keeps_the_turn(desk: Desk, working: Callable[[str], Work]) -> None:
    work = working("op_2")

    def lost() -> None:
        raise MaybeDoneError("no answer", vendor="IzzitUp")

    with pytest.raises(MaybeDoneError) as error:
        work.turns(NOW).apply(
            "web",
            7,
            lost,
        )
    assert error.value.message == "no answer; it is sent again, which does no harm"
    work.settle(State.UNCONFIRMED, Event.MAYBE_DONE, unconfirmed_since=1)
    assert desk.take("bob").holder != "bob"
    assert desk.take("bob", now=NOW + 60_000).applied == {"web": 7}


def test_nothing_is_settled_when_the_turn_was_over(desk: Desk, working: Callable[[str], Work]) -> None:
    work = working("op_2")
    work.apply(7)
    desk.take("bob", now=NOW + 60_000)
    assert work.context.ending
    with pytest.raises(OvertakenError) as overtaken:
        work.settle(State.SUCCEEDED, Event.DONE)
    assert work.operations.get("op_2") == work.operation
    assert not work.context.ending.adapts(Event.DONE, overtaken.value.there)
    assert work.context.ending.adapts(Event.MAYBE_DONE, overtaken.value.there)
    work.settle(State.UNCONFIRMED, Event.MAYBE_DONE, unconfirmed_since=1)
    assert desk.take("eve", now=NOW + 60_001) == Lock("bob", NOW + 60_000 + TURN, notes=frozenset({NEW}))


# ---------------------------------------------------------------- failures


def test_is_a_storage_error_when_the_table_does_not_answer(desk: Desk) -> None:
    gone = Desk(Locks(desk.locks._client, "gone"))
    with pytest.raises(StorageError):
        gone.take("ann")
    with pytest.raises(StorageError):
        gone.end("ann")


# ---------------------------------------------------------------- a turn that is taken by the write that claims


def claim(desk: Desk, read: Lock, holder: str = "me", now: int = NOW) -> bool:
    """Take the turn if the row is as it was read."""
    write = desk.locks.taking("acme", "izzitup", frozenset({NEW}), read, holder=holder, until=now + TURN)
    try:
        desk.locks._client.transact_write_items(TransactItems=[{"Update": write}])
    except ClientError as error:
        return not reasons_of(error)  # which raises it if no condition has failed
    return True


def read_row(desk: Desk) -> Lock:
    reading = desk.locks.reading("acme", "izzitup")
    read_at_once(desk.locks._client, [reading])
    return reading.value


def test_the_turn_is_taken_when_the_row_is_as_it_was_read(desk: Desk) -> None:
    assert read_row(desk) == Lock("", 0)
    assert claim(desk, read_row(desk), "one")
    desk.end("one", applied={"web": 7}, notes={NEW})
    assert claim(desk, read_row(desk), "other")
    assert read_row(desk) == Lock("other", NOW + TURN, applied={"web": 7}, notes=frozenset({NEW}))


def test_the_turn_is_not_taken_when_another_has_had_it_since(desk: Desk) -> None:
    for read in (read_row(desk), Lock("", 0)):
        desk.take("one", notes={NEW})
        assert not claim(desk, read)
        desk.end("one", notes={NEW})
        assert not claim(desk, read)


def test_the_turn_is_not_taken_when_it_has_ended_since(desk: Desk) -> None:
    desk.take("one", notes={NEW})
    read = read_row(desk)
    desk.end("one", applied={"web": 7}, notes={NEW})
    assert not claim(desk, read)

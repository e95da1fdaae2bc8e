"""The operation table: what is due, what is lent to a queue, and who waits for what."""

from collections import Counter
from itertools import count
from typing import Any

import pytest

from crm_bridge.errors import LinkTakenError, StorageError
from crm_bridge.storage import operation_reader
from crm_bridge.storage.operation import SHARDS, Operation, State, operation_id
from crm_bridge.storage.operation_reader import Due
from crm_bridge.storage.operations import MOST_NOTED, MOST_WAITERS, Claim
from tests.unit.conftest import Tables
from tests.unit.operations.conftest import LATER, NOW, SENT_BY, Call, claim, due, intercept, operation, store, there


def of_one_shard(number: int) -> list[str]:
    """Natural keys whose operations share a shard with `operation()`."""
    keys = (str(key) for key in range(1, 10_000))
    return [key for key in keys if operation(key).shard == operation().shard][:number]


def test_what_is_due_is_found_in_its_shard_and_in_no_other(tables: Tables) -> None:
    stored = store(tables, operation())
    assert list(tables.operations.due(stored.shard, NOW)) == [[Due(stored.operation_id, "acme", "create_site", NOW)]]
    shards = set(SHARDS)
    assert stored.shard in shards
    for other in shards - {stored.shard}:
        assert due(tables, shard=other) == [[]]


def test_what_is_due_later_or_never_is_not_found(tables: Tables) -> None:
    at = dict(zip(of_one_shard(4), [NOW - 1, NOW, NOW + 1, None], strict=True))
    for key, due_at in at.items():
        store(tables, operation(key, due_at=due_at))
    assert due(tables) == [[NOW - 1, NOW]]


def test_the_oldest_comes_first_over_all_pages(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operation_reader, "DUE_PAGE", 2)
    for ago, key in zip((3, 1, 5, 2, 4), of_one_shard(5), strict=True):
        store(tables, operation(key, due_at=NOW - ago))
    pages = due(tables)
    assert [at for page in pages for at in page] == [NOW - 5, NOW - 4, NOW - 3, NOW - 2, NOW - 1]
    assert [len(page) for page in pages] == [2, 2, 1]


@pytest.mark.parametrize("page_size", [1, 2, 3, 250])
def test_each_tenants_oldest_are_found_however_many_another_has(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, page_size: int
) -> None:
    """Neither what is due nor what waits for a later time is read to its end."""
    monkeypatch.setattr(operation_reader, "DUE_PAGE", page_size)
    monkeypatch.setattr(operation_reader, "MOST_DUE", 4)
    keys = of_one_shard(26)
    for number, key in enumerate(keys[:20]):
        tenant, at = ("acme", NOW - 1) if number < 10 else ("busy", NOW + 500)
        store(tables, operation(key, tenant=tenant, due_at=at))
    for key, tenant in zip(keys[20:], ("acme-2", "acme0", "busy", "c", "c", "z"), strict=True):
        store(tables, operation(key, tenant=tenant, due_at=NOW - 7))
    read = 0

    def around(real: Call, name: str, arguments: dict[str, object]) -> object:
        nonlocal read
        answer: Any = real(name, arguments)
        read += len(answer["Items"])
        return answer

    intercept(tables.operations, around)
    found = [one for some in tables.operations.due(operation().shard, NOW) for one in some]
    counts = Counter(one.tenant for one in found)
    assert 4 <= counts.pop("acme") <= max(4 + page_size - 1, 10 * (page_size == 250))
    assert counts == {"acme-2": 1, "acme0": 1, "busy": 1, "c": 2, "z": 1}
    if page_size < 4:
        assert read < 16


def test_what_is_due_at_the_same_time_is_found_over_all_pages(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operation_reader, "DUE_PAGE", 2)
    for key in of_one_shard(5):
        store(tables, operation(key))
    found = [one.operation_id for some in tables.operations.due(operation().shard, NOW) for one in some]
    assert len(set(found)) == len(found) == 5


def test_nothing_is_claimed_or_woken_when_the_message_names_another_tenant(tables: Tables) -> None:
    one = store(tables, operation(due_at=NOW))
    taken = tables.operations.claim(
        one.operation_id, lease="a2", now=NOW, until=LATER, states=[State.WAITING], tenant="umbrella"
    )
    assert taken == Claim(False, one)
    assert tables.operations.wake(one.operation_id, "umbrella", NOW - 1, due_at=NOW, lent_until=None) is None
    assert there(tables) == one


def dues(tables: Tables, now: int) -> list[Due]:
    """Return what the dispatcher finds, tenant by tenant."""
    return [one for page in tables.operations.due(operation().shard, now) for one in page]


def lend(tables: Tables) -> Due:
    store(tables, operation())
    ((one,),) = tables.operations.due(operation().shard, NOW)
    assert tables.operations.lend(one, LATER, SENT_BY)
    return one


def test_what_is_lent_is_due_again_soon_when_nobody_says_that_it_was_sent(tables: Tables) -> None:
    lend(tables)
    assert there(tables) == operation(due_at=SENT_BY, lent_until=LATER)
    assert (due(tables, SENT_BY - 1), due(tables, SENT_BY)) == ([[]], [[SENT_BY]])


def test_what_is_lent_is_due_again_when_its_message_has_expired(tables: Tables) -> None:
    assert tables.operations.extend(lend(tables), LATER, SENT_BY)
    assert there(tables) == operation(due_at=LATER, lent_until=LATER)
    assert (due(tables, LATER - 1), due(tables, LATER)) == ([[]], [[LATER]])


def test_is_lent_once(tables: Tables) -> None:
    one = lend(tables)
    assert not tables.operations.lend(one, LATER + 1, SENT_BY + 1)
    assert there(tables).due_at == SENT_BY
    assert dues(tables, SENT_BY) == [Due(one.operation_id, "acme", "create_site", SENT_BY)]


def test_is_not_extended_when_it_was_taken_up_or_lent_again(tables: Tables) -> None:
    one = lend(tables)
    assert not tables.operations.extend(one, LATER + 1, SENT_BY)
    assert not tables.operations.extend(one, LATER, SENT_BY + 1)
    again = one._replace(due_at=SENT_BY)
    assert tables.operations.lend(again, LATER + 1, SENT_BY + 60)
    assert not tables.operations.extend(one, LATER, SENT_BY)
    claimed = claim(tables, lent_until=LATER + 1)
    assert claimed
    assert claimed.won
    assert not tables.operations.extend(again, LATER + 1, SENT_BY + 60)
    assert there(tables) == claimed.operation


def test_is_as_before_when_it_is_taken_back(tables: Tables) -> None:
    one = lend(tables)
    assert not tables.operations.take_back(one, LATER + 1, SENT_BY)
    assert not tables.operations.take_back(one, LATER, SENT_BY + 1)
    assert tables.operations.take_back(one, LATER, SENT_BY)
    assert there(tables) == operation()
    assert dues(tables, NOW) == [one]


def test_nothing_is_lent_when_it_is_gone(tables: Tables) -> None:
    assert not tables.operations.lend(Due("op_1", "acme", "create_site", NOW), LATER, SENT_BY)


# ---------------------------------------------------------------- who waits for what

WAITER = operation_id("acme", "create_job", "T-1")


def note(tables: Tables, waiter: str = WAITER) -> None:
    """Leave a note at the operation of `operation()`. Raises LinkTakenError."""
    other = store(tables, operation(waiter, flow="create_job", state=State.SENDING))
    write = tables.operations.note_waiter(operation().operation_id, waiter)
    tables.operations.save(other.model_copy(update={"state": State.WAITING}), [write])


@pytest.mark.parametrize("state", [State.SENDING, State.WAITING, State.UNCONFIRMED, State.NEEDS_REVIEW])
def test_notes_who_waits_for_what_is_on_its_way(tables: Tables, state: State) -> None:
    one = store(tables, operation(state=state))
    for _ in range(2):
        tables.operations._client.transact_write_items(
            TransactItems=[tables.operations.note_waiter(one.operation_id, WAITER)]
        )
    assert there(tables) == one.model_copy(update={"waiters": {WAITER}})


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.REJECTED])
def test_nobody_waits_for_what_has_ended(tables: Tables, state: State) -> None:
    one = store(tables, operation(state=state))
    with pytest.raises(LinkTakenError):
        note(tables)
    assert there(tables) == one


def test_only_so_many_are_noted(tables: Tables) -> None:
    store(tables, operation(state=State.SENDING))
    for number in range(MOST_WAITERS):
        note(tables, f"T-{number}")
    with pytest.raises(LinkTakenError):
        note(tables, "one more")
    assert there(tables).waiters == {f"T-{number}" for number in range(MOST_WAITERS)}


@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_note_that_is_left_while_it_is_being_sent_is_kept(tables: Tables, before: int) -> None:
    store(tables, operation(state=State.SENDING))
    for number in range(before):
        note(tables, f"before {number}")
    held = there(tables)
    for number in range(2):
        note(tables, f"meanwhile {number}")
    done = held.model_copy(update={"state": State.SUCCEEDED, "due_at": None})
    saved = tables.operations.save(done)
    assert saved == there(tables)
    assert (saved.state, len(saved.waiters)) == (State.SUCCEEDED, before + 2)


def test_a_note_does_not_make_up_for_a_lost_lease(tables: Tables) -> None:
    held = store(tables, operation(state=State.SENDING))
    note(tables)
    other = store(tables, there(tables).model_copy(update={"lease": "another"}))
    assert tables.operations.save(held.model_copy(update={"state": State.SUCCEEDED})) == other
    assert there(tables) == other


def test_what_waits_is_woken(tables: Tables) -> None:
    one = store(tables, operation(state=State.WAITING, due_at=LATER))
    woken = tables.operations.wake(one.operation_id, "acme", NOW, due_at=NOW, lent_until=None)
    assert woken == there(tables) == one.model_copy(update={"due_at": NOW})
    assert dues(tables, NOW) == [Due(one.operation_id, "acme", "create_site", NOW)]


def test_what_waits_is_woken_for_a_message(tables: Tables) -> None:
    one = store(tables, operation(state=State.WAITING, due_at=LATER))
    woken = tables.operations.wake(one.operation_id, "acme", NOW, due_at=SENT_BY, lent_until=SENT_BY)
    assert woken == there(tables) == one.model_copy(update={"due_at": SENT_BY, "lent_until": SENT_BY})
    assert (due(tables, SENT_BY - 1), due(tables, SENT_BY)) == ([[]], [[SENT_BY]])


@pytest.mark.parametrize(
    "one",
    [
        operation(state=State.WAITING, due_at=NOW),
        operation(state=State.WAITING, due_at=LATER, lent_until=LATER),
        operation(state=State.SENDING, due_at=LATER),
        operation(state=State.UNCONFIRMED, due_at=LATER),
        operation(state=State.SUCCEEDED, due_at=None),
    ],
    ids=lambda one: f"{one.state} {one.due_at}",
)
def test_nothing_else_is_woken(tables: Tables, one: Operation) -> None:
    store(tables, one)
    for named in (one, operation("gone")):
        assert tables.operations.wake(named.operation_id, "acme", NOW, due_at=NOW, lent_until=None) is None
    assert there(tables) == one
    assert tables.operations.get(operation("gone").operation_id) is None


def test_the_storage_failed_when_notes_never_end(tables: Tables) -> None:
    store(tables, operation(state=State.SENDING))
    times = count(1)

    def noted(real: Call, name: str, arguments: dict[str, object]) -> object:
        if name == "PutItem":
            update = tables.operations.update(
                operation().operation_id,
                "SET changed_times = :times",
                "attribute_exists(lease)",
                {":times": next(times)},
            )
            real("UpdateItem", dict(update["Update"]))
        return real(name, arguments)

    done = there(tables).model_copy(update={"state": State.SUCCEEDED, "due_at": None})
    intercept(tables.operations, noted)
    with pytest.raises(StorageError, match="changes again and again"):
        tables.operations.save(done)
    assert next(times) == MOST_NOTED + 1
    assert there(tables).state is State.SENDING


def test_what_is_no_longer_there_is_not_saved(tables: Tables) -> None:
    done = operation(state=State.SUCCEEDED, due_at=None)
    for along in ((), [tables.operations.drop_payload(done)]):
        with pytest.raises(StorageError, match="no longer stored"):
            tables.operations.save(done, along=along)
    assert tables.operations.get(done.operation_id) is None

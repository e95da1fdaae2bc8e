"""The operation table: who wins an operation, what settles it, what is due and what is listed."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from crm_bridge import operations as operations_module
from crm_bridge.errors import Event, LinkTakenError, StorageError
from crm_bridge.links import Identity, Link
from crm_bridge.operations import (
    MOST_WAITERS,
    Attempt,
    Claim,
    Due,
    Operation,
    Operations,
    OperationSummary,
    State,
    as_time,
    fingerprint,
    operation_id,
)
from tests.unit.conftest import Tables

NOW = 1_795_000_000
LATER = NOW + 900
SENT_BY = NOW + 60
CUSTOMER, SITE = Identity("crm", "customer", "1"), Identity("illu", "site", "4711")


@pytest.fixture(params=["memory", "moto"])
def emulator(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def operation(key: str = "1", state: State = State.WAITING, **changes: object) -> Operation:
    return Operation(
        operation_id=operation_id("acme", "create_site", key),
        tenant="acme",
        flow="create_site",
        event_key=key,
        state=state,
        fingerprint=fingerprint("{}"),
        payload="{}",
        lease="a1",
        due_at=NOW,
        created_at=NOW - 100,
        updated_at=NOW - 50,
    ).model_copy(update=changes)


def store(tables: Tables, stored: Operation) -> Operation:
    assert tables.operations.create(stored, over=State).won
    return stored


def there(tables: Tables, key: str = "1") -> Operation:
    found = tables.operations.get(operation_id("acme", "create_site", key))
    assert found is not None
    return found


def test_many_are_read_at_once_and_those_that_are_not_there_are_left_out(tables: Tables) -> None:
    stored = [store(tables, operation(str(number), links=((CUSTOMER, SITE),))) for number in range(120)]
    ids = [one.operation_id for one in stored]
    unknown = operation_id("acme", "create_site", "unknown")
    assert tables.operations.many([*ids, unknown, ids[0]]) == {one.operation_id: one for one in stored}
    assert tables.operations.many([]) == {}


@pytest.mark.parametrize("emulator", ["memory"], indirect=True)
def test_what_was_left_out_of_many_is_asked_for_again_as_long_as_some_come(tables: Tables) -> None:
    stored = {one.operation_id: one for one in (store(tables, operation(str(number))) for number in range(5))}
    asked: list[int] = []

    def two_at_a_time(real: Call, name: str, arguments: Any) -> object:
        ((table, request),) = arguments["RequestItems"].items()
        assert request["ConsistentRead"]
        asked.append(len(request["Keys"]))
        some = {**request, "Keys": request["Keys"][:2]}
        answer: Any = real(name, {"RequestItems": {table: some}})
        left = request["Keys"][2:]
        return {**answer, "UnprocessedKeys": {table: {"Keys": left}} if left else {}}

    intercept(tables.operations, two_at_a_time)
    assert tables.operations.many([*stored]) == stored
    assert asked == [5, 3, 1]


@pytest.mark.parametrize("emulator", ["memory"], indirect=True)
def test_unavailable_when_none_of_many_comes(tables: Tables) -> None:
    def none(real: Call, name: str, arguments: Any) -> object:  # noqa: ARG001
        return {"Responses": {}, "UnprocessedKeys": arguments["RequestItems"]}

    intercept(tables.operations, none)
    with pytest.raises(StorageError, match="throttled"):
        tables.operations.many([operation_id("acme", "create_site", "1")])


@pytest.mark.parametrize("state", [State.WAITING, State.UNCONFIRMED])
def test_what_waits_is_hastened(tables: Tables, state: State) -> None:
    one = store(tables, operation(state=state))
    assert tables.operations.hasten(one, NOW - 7)
    assert there(tables) == one.model_copy(update={"due_at": NOW - 7})


def test_what_has_changed_or_is_on_a_queue_is_not_hastened(tables: Tables) -> None:
    one = store(tables, operation())
    assert not tables.operations.hasten(one.model_copy(update={"due_at": NOW + 1}), NOW - 7)
    assert not tables.operations.hasten(one.model_copy(update={"state": State.UNCONFIRMED}), NOW - 7)
    assert not tables.operations.hasten(one.model_copy(update={"due_at": None}), NOW - 7)
    assert not tables.operations.hasten(operation("2"), NOW - 7)
    assert tables.operations.lend(Due(one.operation_id, "acme", "create_site", NOW), LATER, SENT_BY)
    assert not tables.operations.hasten(there(tables), NOW - 7)
    assert there(tables).due_at == SENT_BY


def test_is_saved_only_if_there_is_none_when_that_is_asked_for(tables: Tables) -> None:
    done = operation(state=State.SUCCEEDED, due_at=None)
    writes = [*tables.links.puts("acme", [Link(CUSTOMER, SITE)], done.operation_id, NOW)]
    assert tables.operations.save(done, writes, over=None) == done
    assert [partner.identity for partner in tables.links.of("acme", CUSTOMER)] == [SITE]
    other = done.model_copy(update={"lease": "b2", "result": "{}"})
    assert tables.operations.save(other, over=None) == done
    assert there(tables) == done


type Call = Callable[[str, dict[str, object]], object]


def intercept(operations: Operations, around: Callable[[Call, str, dict[str, object]], object]) -> None:
    """Every call to the table goes through `around`, which gets the real call, the name and the arguments."""
    client = operations._client
    real: Call = client._make_api_call  # type: ignore[attr-defined]
    client._make_api_call = lambda name, arguments: around(real, name, arguments)  # type: ignore[attr-defined]


def lose_the_first_answer(operations: Operations) -> None:
    """The first call reaches the table, and the AWS client repeats it, because it got no answer."""
    lost: list[str] = []

    def around(real: Call, name: str, arguments: dict[str, object]) -> object:
        if not lost:
            lost.append(name)
            real(name, arguments)
        return real(name, arguments)

    intercept(operations, around)


def cancel(operations: Operations, *reasons: str) -> None:
    """Every transaction is cancelled for these reasons, one for each of its writes."""

    def around(_real: Call, name: str, _arguments: dict[str, object]) -> object:
        details = {
            "Error": {"Code": "TransactionCanceledException"},
            "CancellationReasons": [{"Code": reason} for reason in reasons],
        }
        raise operations._client.exceptions.TransactionCanceledException(details, name)  # type: ignore[arg-type]

    intercept(operations, around)


def fail(operations: Operations, error: Exception) -> None:
    def around(_real: Call, _name: str, _arguments: dict[str, object]) -> object:
        raise error

    intercept(operations, around)


# ---------------------------------------------------------------- the record


def test_an_operation_is_read_as_it_was_written(tables: Tables) -> None:
    full = operation(
        result='{"site_id": 4711}',
        attempts=(Attempt(at=NOW, event=Event.NOT_DONE, reason="busy", status=503),),
        last_attempt=Attempt(at=NOW, event=Event.NOT_DONE, reason="busy", status=503),
        tries=3,
        was=State.UNCONFIRMED,
        lent_until=LATER,
        first_sent_at=NOW - 90,
        unconfirmed_since=NOW - 80,
        sent_to="https://illu.example/88",
        mapping="upya v1",
        links=((CUSTOMER, SITE),),
        expires_at=LATER,
        notifies=True,
    )
    store(tables, full)
    assert there(tables) == full
    assert tables.operations.get(operation_id("acme", "create_site", "another")) is None


def test_what_decides_is_never_read_from_a_copy_that_may_be_stale(tables: Tables) -> None:
    reads: list[tuple[str, object]] = []

    def around(real: Call, name: str, arguments: dict[str, object]) -> object:
        reads.append((name, arguments.get("ConsistentRead")))
        return real(name, arguments)

    intercept(tables.operations, around)
    tables.operations.get("op_1")
    assert reads == [("GetItem", True)]


def test_an_event_has_the_id_under_which_it_was_stored_years_ago() -> None:
    assert operation_id("acme", "create_site", "C-1") == "op_a43422effa4f89a95e0ac68fe5d0e214"


def test_ids_differ_when_anything_differs() -> None:
    events = [("a", "b", "c"), ("a", "bc", ""), ("ab", "c", ""), ("", "ab", "c"), ("a", "b", "C")]
    assert len({operation_id(*event) for event in events}) == len(events)


def test_a_fingerprint_is_the_same_for_the_same_payload_only() -> None:
    assert fingerprint('{"name": "Büro"}') == hashlib.sha256('{"name": "Büro"}'.encode()).hexdigest()
    assert fingerprint("{}") != fingerprint("[]")


def test_times_are_shown_in_utc() -> None:
    assert as_time(NOW) == "2026-11-18T11:06:40+00:00"
    assert as_time(0) == "1970-01-01T00:00:00+00:00"
    assert as_time(None) is None


ATTEMPT = Attempt(at=NOW, event=Event.NOT_DONE, reason="busy", status=503)
ATTEMPT_SHOWN = {"at": "2026-11-18T11:06:40+00:00", "event": "not done", "reason": "busy", "vendor_status": 503}
SUMMARY_SHOWN = {
    "operation_id": operation_id("acme", "create_site", "1"),
    "flow": "create_site",
    "event_key": "1",
    "state": "waiting",
    "last_attempt": ATTEMPT_SHOWN,
    "due_at": "2026-11-18T11:06:40+00:00",
    "created_at": "2026-11-18T11:05:00+00:00",
    "updated_at": "2026-11-18T11:05:50+00:00",
}


def test_is_shown_without_its_payload_and_its_lease() -> None:
    shown = operation(
        attempts=(ATTEMPT,),
        last_attempt=ATTEMPT,
        result='{"site_id": 4711}',
        mapping="upya v1",
        links=((CUSTOMER, SITE),),
    ).shown()
    assert shown == {
        **SUMMARY_SHOWN,
        "attempts": [ATTEMPT_SHOWN],
        "mapping": "upya v1",
        "result": {"site_id": 4711},
        "links": [
            [{"system": "crm", "entity": "customer", "id": "1"}, {"system": "illu", "entity": "site", "id": "4711"}]
        ],
    }


def test_is_shown_with_nothing_when_nothing_happened_yet() -> None:
    assert operation(due_at=None).shown() == {
        **SUMMARY_SHOWN,
        "due_at": None,
        "last_attempt": None,
        "attempts": [],
        "mapping": None,
        "result": None,
        "links": [],
    }


# ---------------------------------------------------------------- who stores it


def test_is_stored_when_there_is_none(tables: Tables) -> None:
    new = operation()
    assert tables.operations.create(new, over=[State.REJECTED]) == Claim(True, new)
    assert there(tables) == new


@pytest.mark.parametrize("state", State)
def test_is_stored_over_another_only_in_the_states_that_are_named(tables: Tables, state: State) -> None:
    old = store(tables, operation(state=state, attempts=(ATTEMPT,)))
    claim = tables.operations.create(operation(lease="a2"), over=[State.REJECTED, State.NEEDS_REVIEW])
    if state in (State.REJECTED, State.NEEDS_REVIEW):
        assert claim == Claim(True, operation(lease="a2", attempts=(ATTEMPT,)))  # what was tried is not forgotten
        assert there(tables) == operation(lease="a2")
    else:
        assert claim == Claim(False, old)
        assert there(tables) == old


@pytest.mark.parametrize(
    ("old", "won"),
    [
        (operation(), True),
        (operation(unconfirmed_since=NOW), False),
        (operation(state=State.SENDING), False),
        (operation(state=State.UNCONFIRMED), False),
        (operation(state=State.SUCCEEDED), False),
        (operation(state=State.REJECTED), True),
    ],
)
def test_is_stored_over_one_that_waits_only_if_that_was_never_in_doubt(
    tables: Tables, old: Operation, won: bool
) -> None:
    store(tables, old)
    new = operation(lease="a2")
    claim = tables.operations.create(new, over=[State.REJECTED], over_undone=True)
    assert claim == (Claim(True, new) if won else Claim(False, old))


def test_is_not_stored_over_one_that_waits_unless_it_is_told_to(tables: Tables) -> None:
    store(tables, operation())
    assert not tables.operations.create(operation(lease="a2"), over=[State.REJECTED]).won


def test_has_won_when_only_the_answer_to_its_own_write_was_lost(tables: Tables) -> None:
    lose_the_first_answer(tables.operations)
    assert tables.operations.create(operation(), over=[State.REJECTED]) == Claim(True, operation())


# ---------------------------------------------------------------- who takes it up


def claim(
    tables: Tables,
    *,
    key: str = "1",
    now: int = NOW,
    lease: str = "a2",
    states: Iterable[State] = (State.WAITING, State.UNCONFIRMED),
    lent_until: int | None = None,
) -> Claim | None:
    return tables.operations.claim(
        operation_id("acme", "create_site", key),
        lease=lease,
        now=now,
        until=now + 39,
        states=states,
        tenant="acme",
        lent_until=lent_until,
    )


@pytest.mark.parametrize("state", [State.WAITING, State.UNCONFIRMED])
def test_whoever_takes_it_up_holds_it_and_knows_what_it_was(tables: Tables, state: State) -> None:
    old = store(tables, operation(state=state, tries=2, lent_until=LATER, unconfirmed_since=NOW - 20))
    expected = old.model_copy(
        update={
            "state": State.SENDING,
            "was": state,
            "lease": "a2",
            "due_at": NOW + 39,
            "tries": 3,
            "updated_at": NOW,
            "first_sent_at": NOW,
            "lent_until": None,
        }
    )
    assert claim(tables) == Claim(True, expected)
    assert there(tables) == expected


def test_the_first_sending_is_not_forgotten_at_the_second(tables: Tables) -> None:
    store(tables, operation(first_sent_at=NOW - 90))
    taken = claim(tables)
    assert taken is not None
    assert taken.operation.first_sent_at == NOW - 90


@pytest.mark.parametrize(
    "old",
    [operation(due_at=NOW + 1), operation(due_at=None), operation(state=State.NEEDS_REVIEW), operation(lent_until=1)],
)
def test_is_not_taken_up_when_it_is_not_due(tables: Tables, old: Operation) -> None:
    old = store(tables, old.model_copy(update={"due_at": old.due_at and NOW + 1}))
    assert claim(tables) == Claim(False, old)
    assert there(tables) == old


def test_is_not_taken_up_when_its_state_is_none_of_those_named(tables: Tables) -> None:
    store(tables, operation(state=State.SENDING))
    taken = claim(tables)
    assert taken is not None
    assert not taken.won
    assert claim(tables, states=[State.WAITING, State.SENDING]) is not None


def test_is_taken_up_before_its_time_by_whom_it_was_lent_to(tables: Tables) -> None:
    store(tables, operation(due_at=LATER, lent_until=LATER))
    for other in (None, LATER - 1, LATER + 1):
        lost = claim(tables, lent_until=other)
        assert lost is not None
        assert not lost.won
    won = claim(tables, lent_until=LATER)
    assert won is not None
    assert won.won


def test_nothing_is_taken_up_when_there_is_nothing(tables: Tables) -> None:
    assert claim(tables, key="never heard of") is None


def test_holds_it_when_only_the_answer_to_its_own_claim_was_lost(tables: Tables) -> None:
    store(tables, operation(state=State.UNCONFIRMED))
    lose_the_first_answer(tables.operations)
    taken = claim(tables)
    assert taken == Claim(True, there(tables))
    assert (there(tables).was, there(tables).tries) == (State.UNCONFIRMED, 1)


def test_what_is_taken_up_is_listed_as_being_sent(tables: Tables) -> None:
    store(tables, operation())
    claim(tables)
    assert listed(tables, State.WAITING) == []
    assert listed(tables, State.SENDING) == ["1"]


def test_what_is_taken_up_is_listed_by_when_its_lease_ends(tables: Tables) -> None:
    for key, at in (("1", 5), ("2", 20), ("3", 1), ("4", 7)):
        store(tables, operation(key))
        claim(tables, key=key, now=NOW + at)
    assert listed(tables, State.SENDING, limit=1) == ["3", "1", "4", "2"]


# ---------------------------------------------------------------- what settles it


def settled(tables: Tables, changed: Operation, links: Sequence[Link] = (), over: State = State.SENDING) -> Operation:
    writes = list(tables.links.puts("acme", links, changed.operation_id, NOW))
    return tables.operations.save(changed, writes, over=over)


def test_is_settled_together_with_its_links(tables: Tables) -> None:
    store(tables, operation(state=State.SENDING))
    done = operation(state=State.SUCCEEDED, payload=None, due_at=None)
    assert settled(tables, done, [Link(CUSTOMER, SITE)]) == done
    assert there(tables) == done
    assert [partner.identity for partner in tables.links.of("acme", CUSTOMER)] == [SITE]


@pytest.mark.parametrize("now_there", [operation(state=State.SENDING, lease="a2"), operation(state=State.SUCCEEDED)])
def test_nothing_is_written_when_somebody_else_holds_it_or_has_settled_it(tables: Tables, now_there: Operation) -> None:
    store(tables, now_there)
    done = operation(state=State.NEEDS_REVIEW)
    assert settled(tables, done, [Link(CUSTOMER, SITE)]) == now_there
    assert there(tables) == now_there
    assert tables.links.of("acme", CUSTOMER) == []


def test_a_person_settles_what_needs_review_and_nothing_else(tables: Tables) -> None:
    store(tables, operation(state=State.NEEDS_REVIEW))
    assert settled(tables, operation(state=State.REJECTED)).state is State.NEEDS_REVIEW
    assert settled(tables, operation(state=State.REJECTED), over=State.NEEDS_REVIEW).state is State.REJECTED


def test_nothing_is_written_when_a_link_is_taken(tables: Tables) -> None:
    for key in ("1", "2"):
        store(tables, operation(key, state=State.SENDING))
    settled(tables, operation("2", state=State.SUCCEEDED), [Link(Identity("crm", "customer", "2"), SITE)])
    with pytest.raises(LinkTakenError):
        settled(tables, operation(state=State.SUCCEEDED), [Link(CUSTOMER, SITE)])
    assert there(tables) == operation(state=State.SENDING)
    assert tables.links.of("acme", CUSTOMER) == []


@pytest.mark.parametrize("reasons", [("ValidationError", "None"), ("None", "ValidationError")])
def test_no_link_is_said_to_be_taken_when_a_transaction_failed_for_another_reason(
    tables: Tables, reasons: tuple[str, ...]
) -> None:
    store(tables, operation(state=State.SENDING))
    cancel(tables.operations, *reasons)
    with pytest.raises(StorageError):
        settled(tables, operation(state=State.SUCCEEDED), [Link(CUSTOMER, SITE)])


# ---------------------------------------------------------------- what is due


def due(tables: Tables, now: int = NOW, shard: str = "") -> list[list[int]]:
    shard = shard or operation().shard
    return [[one.due_at for one in page] for page in tables.operations.due(shard, now)]


def of_one_shard(number: int) -> list[str]:
    """Natural keys whose operations share a shard with `operation()`."""
    keys = (str(key) for key in range(1, 10_000))
    return [key for key in keys if operation(key).shard == operation().shard][:number]


def test_what_is_due_is_found_in_its_shard_and_in_no_other(tables: Tables) -> None:
    stored = store(tables, operation())
    assert list(tables.operations.due(stored.shard, NOW)) == [[Due(stored.operation_id, "acme", "create_site", NOW)]]
    shards = set(operations_module.SHARDS)
    assert stored.shard in shards
    for other in shards - {stored.shard}:
        assert due(tables, shard=other) == [[]]


def test_what_is_due_later_or_never_is_not_found(tables: Tables) -> None:
    at = dict(zip(of_one_shard(4), [NOW - 1, NOW, NOW + 1, None], strict=True))
    for key, due_at in at.items():
        store(tables, operation(key, due_at=due_at))
    assert due(tables) == [[NOW - 1, NOW]]


def test_the_oldest_comes_first_over_all_pages(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations_module, "DUE_PAGE", 2)
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
    monkeypatch.setattr(operations_module, "DUE_PAGE", page_size)
    monkeypatch.setattr(operations_module, "MOST_DUE", 4)
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
    monkeypatch.setattr(operations_module, "DUE_PAGE", 2)
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


# ---------------------------------------------------------------- a payload that is kept


def test_a_payload_is_kept_beside_its_operation_until_it_is_dropped(tables: Tables) -> None:
    one = operation(state=State.SENDING, payload='{"a": 1}')
    store(tables, one)
    assert tables.operations.kept_payload(one) is None
    done = one.model_copy(update={"state": State.SUCCEEDED, "payload": None})
    tables.operations.save(done, [tables.operations.keep_payload(one, LATER)])
    assert tables.operations.kept_payload(one) == '{"a": 1}'
    assert there(tables).payload is None
    assert tables.operations.kept_payload(operation("2")) is None
    tables.operations.save(
        done.model_copy(update={"state": State.NEEDS_REVIEW}),
        [tables.operations.drop_payload(one)],
        over=State.SUCCEEDED,
    )
    assert tables.operations.kept_payload(one) is None


def test_is_saved_under_a_new_lease(tables: Tables) -> None:
    one = store(tables, operation(state=State.SUCCEEDED, due_at=None))
    in_review = one.model_copy(update={"state": State.NEEDS_REVIEW, "lease": "new"})
    assert tables.operations.save(in_review, over=State.SUCCEEDED) == one
    assert tables.operations.save(in_review, over=State.SUCCEEDED, lease=one.lease) == in_review
    assert there(tables) == in_review


# ---------------------------------------------------------------- what is listed

type After = tuple[str, int] | None
UNFINISHED = (State.SENDING, State.WAITING, State.UNCONFIRMED)
EACH_INDEX = pytest.mark.parametrize("state", [State.SUCCEEDED, State.WAITING])
"""The listing index holds the first, the due index the second."""


def page(
    tables: Tables, state: State = State.WAITING, *, flow: str | None = None, limit: int = 100, after: After = None
) -> tuple[list[OperationSummary], After]:
    return tables.operations.listed("acme", state, flow=flow, limit=limit, after=after)


def pages(tables: Tables, state: State, *, flow: str | None = None, limit: int = 100) -> list[list[str]]:
    """The event keys on all pages."""
    found, after = page(tables, state, flow=flow, limit=limit)
    keys = [[one.event_key for one in found]]
    while after:
        found, after = page(tables, state, flow=flow, limit=limit, after=after)
        assert len(found) <= limit
        keys.append([one.event_key for one in found])
    return keys


def listed(tables: Tables, state: State, *, flow: str | None = None, limit: int = 100) -> list[str]:
    return [key for keys in pages(tables, state, flow=flow, limit=limit) for key in keys]


@pytest.fixture
def ten(tables: Tables, state: State) -> list[str]:
    """Ten in this state, in the order in which they are listed; every other one is a job."""
    for number in range(10):
        flow = ("create_site", "create_job")[number % 2]
        at = {"updated_at": NOW + number} if state is State.SUCCEEDED else {"due_at": NOW + 9 - number}
        store(tables, operation(str(number), state=state, flow=flow, **at))
    return [str(number) for number in range(9, -1, -1)]


@pytest.mark.parametrize("state", list(State))
def test_only_what_is_in_this_state_and_of_this_tenant_is_listed(tables: Tables, state: State) -> None:
    other = State.NEEDS_REVIEW if state is State.WAITING else State.WAITING
    store(tables, operation("1", state=state))
    store(tables, operation("2", state=other))
    for number, tenant in enumerate(("umbrella", "acme-2", "acm", "acme0")):
        store(tables, operation(f"3{number}", state=state, tenant=tenant))
    assert {one: listed(tables, one) for one in State} == {**{one: [] for one in State}, state: ["1"], other: ["2"]}


@EACH_INDEX
def test_a_list_shows_a_summary(tables: Tables, state: State) -> None:
    store(tables, operation(state=state, last_attempt=ATTEMPT))
    ((one,), after) = page(tables, state)
    assert (type(one), one.shown(), after) == (OperationSummary, {**SUMMARY_SHOWN, "state": state}, None)


@EACH_INDEX
@pytest.mark.parametrize("limit", [1, 3, 9, 10, 11])
def test_the_latest_changed_or_the_first_due_comes_first_over_all_pages(
    tables: Tables, state: State, ten: list[str], limit: int
) -> None:
    found = pages(tables, state, limit=limit)
    assert [key for keys in found for key in keys] == ten
    assert all(len(keys) == limit for keys in found[:-1])


@EACH_INDEX
@pytest.mark.parametrize("emulator", ["memory"], indirect=True)
@pytest.mark.parametrize("flow", [None, "create_site"])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 40])
def test_each_is_listed_once_when_all_have_the_same_time(
    tables: Tables, state: State, flow: str | None, limit: int
) -> None:
    for number in range(40):
        store(tables, operation(str(number), state=state, updated_at=NOW))
    found = listed(tables, state, limit=limit, flow=flow)
    assert sorted(found, key=int) == [str(number) for number in range(40)]


@EACH_INDEX
@pytest.mark.parametrize("emulator", ["memory"], indirect=True)
@pytest.mark.parametrize("limit", [1, 2, 4, 5, 6])
@pytest.mark.parametrize("batch", [1, 3, 1000])
@pytest.mark.parametrize("queries", [0, 1, 2, 10])
def test_those_of_one_flow_are_listed_however_they_lie_among_the_others(
    tables: Tables, state: State, ten: list[str], monkeypatch: pytest.MonkeyPatch, limit: int, batch: int, queries: int
) -> None:
    monkeypatch.setattr(operations_module, "LISTING_BATCH", batch)
    monkeypatch.setattr(operations_module, "MOST_QUERIES", queries)
    assert listed(tables, state, flow="create_job", limit=limit) == ten[::2]
    assert listed(tables, state, flow="create_site", limit=limit) == ten[1::2]


@EACH_INDEX
def test_no_next_page_is_named_when_this_one_is_the_last(tables: Tables, state: State, ten: list[str]) -> None:
    found, after = page(tables, state, limit=len(ten) + 1)
    assert ([one.event_key for one in found], after) == (ten, None)


@EACH_INDEX
def test_the_next_page_begins_after_the_last_of_this_one(tables: Tables, state: State, ten: list[str]) -> None:
    found, after = page(tables, state, limit=4)
    assert [one.event_key for one in found] == ten[:4]
    assert after == (found[-1].operation_id, NOW + 6 if state is State.SUCCEEDED else NOW + 3)


@EACH_INDEX
@pytest.mark.parametrize("at", [0, operations_module.LATEST])
def test_a_place_at_the_end_of_all_times_is_as_good_as_any(
    tables: Tables, state: State, ten: list[str], at: int
) -> None:
    found = [page(tables, state, after=(f"op_{last}", at)) for last in "0123456789abcdef"]
    is_before_all = (at == 0) is (state is State.WAITING)
    assert [[one.event_key for one in some] for some, _ in found] == [ten if is_before_all else []] * 16
    assert {after for _, after in found} == {None}


class Asked:
    """What the table is asked: how often, and for how many entries in all."""

    def __init__(self, tables: Tables, most: int | None = None) -> None:
        self.limits: list[int] = []
        self.read = 0
        self._most = most
        intercept(tables.operations, self._around)

    def _around(self, real: Call, name: str, arguments: Any) -> object:
        if name != "Query":
            return real(name, arguments)
        self.limits.append(arguments["Limit"])
        if self._most:  # as when the items are so large that no more go into a response
            arguments = {**arguments, "Limit": self._most}
        unfiltered = {one: value for one, value in arguments.items() if one != "FilterExpression"}
        names = unfiltered.pop("ExpressionAttributeNames", {})
        values = {
            one: value for one, value in arguments["ExpressionAttributeValues"].items() if one[1:] not in SEARCHED
        }
        answer: Any = real(name, {**unfiltered, "ExpressionAttributeValues": values})
        assert not names.keys() - {f"#{one}" for one in SEARCHED}
        self.read += len(answer["Items"])
        return real(name, arguments)


SEARCHED = ("flow", "state")


@EACH_INDEX
@pytest.mark.parametrize("emulator", ["memory"], indirect=True)
def test_a_page_reads_as_much_of_a_large_tenant_as_of_a_small_one(tables: Tables, state: State) -> None:
    """Also the last pages, and those of a tenant whose operations all have the same time."""
    partitions = 4 if state is State.SUCCEEDED else 8
    for number in range(400):
        at = NOW + number // 150
        store(tables, operation(str(number), state=state, updated_at=at, due_at=at))
    asked = Asked(tables)
    after: After = None
    for _ in range(400 // 20):
        asked.limits, asked.read = [], 0
        found, after = page(tables, state, limit=20, after=after)
        assert (len(found), asked.limits) == (20, [20] * partitions)
        assert asked.read <= 20 * partitions
    assert after is None or page(tables, state, limit=20, after=after) == ([], None)


@EACH_INDEX
def test_only_so_much_is_read_for_one_page(
    tables: Tables, state: State, ten: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations_module, "LISTING_BATCH", 1)
    monkeypatch.setattr(operations_module, "MOST_QUERIES", 3)
    asked = Asked(tables)
    found, after = page(tables, state, flow="no such flow", limit=1)
    partitions = 4 if state is State.SUCCEEDED else 8
    assert found == []
    assert len(asked.limits) == min(partitions + 3, len(asked.limits))
    assert len(asked.limits) >= partitions
    assert len(ten) == 10
    while after:
        found, after = page(tables, state, flow="no such flow", limit=1, after=after)
        assert found == []


@EACH_INDEX
def test_a_page_is_full_when_a_response_has_fewer_entries_than_were_asked_for(
    tables: Tables, state: State, ten: list[str]
) -> None:
    Asked(tables, most=1)
    found, after = page(tables, state, limit=3)
    keys = [one.event_key for one in found]
    while after:
        found, after = page(tables, state, limit=3, after=after)
        keys += [one.event_key for one in found]
    assert keys == ten


def test_what_has_changed_since_the_index_was_read_is_not_listed(tables: Tables) -> None:
    one, other = store(tables, operation("1")), store(tables, operation("2", due_at=NOW + 1))

    def late(real: Call, name: str, arguments: Any) -> object:
        answer = real(name, arguments)
        if name == "Query" and arguments["ExpressionAttributeValues"][":key"]["S"] == one.shard:
            claim(tables, now=NOW)
        return answer

    intercept(tables.operations, late)
    found, _ = page(tables)
    assert [summary.event_key for summary in found] == [other.event_key]


@pytest.mark.parametrize("state", list(State))
def test_is_in_one_index_and_written_there_once(tables: Tables, state: State) -> None:
    """The listing index when it is settled, else the due index. What needs a person is in both."""
    is_unfinished = state in UNFINISHED
    is_due = is_unfinished or state is State.NEEDS_REVIEW
    store(tables, operation(state=state, due_at=NOW if is_unfinished else None))
    item = tables.operations._client.get_item(
        TableName=tables.operations._table, Key={"operation_id": {"S": operation().operation_id}}
    )["Item"]
    assert ({"due", "due_shard"} <= item.keys(), {"listed", "standing"} <= item.keys()) == (
        is_due,
        not is_unfinished,
    )
    assert len({"due", "due_shard", "listed", "standing"} & item.keys()) == (4 if state is State.NEEDS_REVIEW else 2)


def test_tells_since_when_the_oldest_needs_a_person_whatever_else_is_due(tables: Tables) -> None:
    in_review = [operation(f"{number}", state=State.NEEDS_REVIEW, updated_at=NOW - number) for number in range(40)]
    for one in (*in_review, operation("due", due_at=NOW - 100)):
        store(tables, one)
    for shard in operations_module.SHARDS:
        of_shard = [one.updated_at for one in in_review if one.shard == shard]
        assert tables.operations.oldest_in_review(shard) == min(of_shard)
        dues = [one for page in tables.operations.due(shard, NOW) for one in page]
        assert [one.tenant for one in dues] == ["acme"] * (operation("due").shard == shard)
    tables.operations.save(in_review[-1].model_copy(update={"state": State.SUCCEEDED}), over=State.NEEDS_REVIEW)
    assert tables.operations.oldest_in_review(in_review[-1].shard) != NOW - 39


# ---------------------------------------------------------------- the table fails


@pytest.mark.parametrize(
    "error",
    [
        ReadTimeoutError(endpoint_url="https://dynamodb.example"),
        ClientError({"Error": {"Code": "ProvisionedThroughputExceededException"}}, "any"),
        ClientError({"Error": {"Code": "ResourceNotFoundException"}}, "any"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_says_that_the_storage_did_not_answer_whatever_it_was_asked(tables: Tables, error: Exception) -> None:
    fail(tables.operations, error)
    one = Due("op_1", "acme", "create_site", NOW)
    asked: list[Callable[[], object]] = [
        lambda: tables.operations.get("op_1"),
        lambda: tables.operations.create(operation(), over=State),
        lambda: claim(tables),
        lambda: tables.operations.save(operation()),
        lambda: page(tables),
        lambda: due(tables),
        lambda: tables.operations.lend(one, LATER, SENT_BY),
        lambda: tables.operations.extend(one, LATER, SENT_BY),
        lambda: tables.operations.take_back(one, LATER, SENT_BY),
        lambda: tables.operations.wake("op_1", "acme", NOW, due_at=NOW, lent_until=None),
        lambda: tables.operations.kept_payload(operation()),
        lambda: tables.operations.hasten(operation(), LATER),
        lambda: tables.operations.many([one.operation_id]),
    ]
    for ask in asked:
        with pytest.raises(StorageError):
            ask()

"""The operation table: who stores an operation, who takes it up, and what settles it."""

import hashlib
from collections.abc import Sequence
from typing import Any

import pytest

from crm_bridge.errors import Event, LinkTakenError, StorageError
from crm_bridge.storage.dynamodb import deserialize
from crm_bridge.storage.links import Identity, Link
from crm_bridge.storage.operation import Attempt, Operation, State, as_time, fingerprint, operation_id
from crm_bridge.storage.operation_reader import Due
from crm_bridge.storage.operations import Claim
from tests.unit.conftest import Tables
from tests.unit.operations.conftest import (
    ATTEMPT,
    ATTEMPT_SHOWN,
    CUSTOMER,
    LATER,
    NOW,
    SENT_BY,
    SITE,
    SUMMARY_SHOWN,
    Call,
    cancel,
    claim,
    intercept,
    listed,
    lose_the_first_answer,
    operation,
    store,
    there,
)


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


def hastened(one: Operation, due_at: int = NOW - 7, lent_until: int | None = None) -> Operation:
    attempt = Attempt(at=NOW - 7, event=Event.MADE_DUE, reason="by ops")
    changes = {"due_at": due_at, "lent_until": lent_until, "attempts": (*one.attempts, attempt)}
    return one.model_copy(update=changes)


@pytest.mark.parametrize("state", [State.WAITING, State.UNCONFIRMED])
@pytest.mark.parametrize("lent_until", [None, LATER])
def test_what_waits_is_hastened(tables: Tables, state: State, lent_until: int | None) -> None:
    one = store(tables, operation(state=state))
    after = hastened(one, lent_until=lent_until)
    assert tables.operations.hasten(one, after)
    assert there(tables) == after
    assert tables.operations.hasten(one, after)  # as the AWS client repeats it if the response was lost
    assert there(tables) == after
    assert list(tables.operations.due(one.shard, NOW)) == [[Due(one.operation_id, "acme", "create_site", NOW - 7)]]


def test_what_has_changed_or_is_on_a_queue_is_not_hastened(tables: Tables) -> None:
    one = store(tables, operation())
    for changes in ({"due_at": NOW + 1}, {"state": State.UNCONFIRMED}, {"due_at": None}, {"lease": "b2"}):
        changed = one.model_copy(update=changes)
        assert not tables.operations.hasten(changed, hastened(one))
    assert not tables.operations.hasten(operation("2"), hastened(one))
    held = store(tables, operation("3", held=frozenset({"op_2"})))
    assert not tables.operations.hasten(held.model_copy(update={"held": frozenset()}), hastened(held))
    assert tables.operations.lend(Due(one.operation_id, "acme", "create_site", NOW), LATER, SENT_BY)
    assert not tables.operations.hasten(there(tables), hastened(one))
    assert there(tables).due_at == SENT_BY
    assert there(tables).attempts == one.attempts


def test_is_saved_only_if_there_is_none_when_that_is_asked_for(tables: Tables) -> None:
    done = operation(state=State.SUCCEEDED, due_at=None)
    writes = [*tables.links.puts("acme", [Link(CUSTOMER, SITE)], done.operation_id, NOW)]
    assert tables.operations.save(done, writes, over=None) == done
    assert [partner.identity for partner in tables.links.of("acme", CUSTOMER)] == [SITE]
    other = done.model_copy(update={"lease": "b2", "result": "{}"})
    assert tables.operations.save(other, over=None) == done
    assert there(tables) == done


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
    tables.operations.kept_payload(operation())
    assert reads == [("GetItem", True)] * 2


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


def test_is_shown_without_its_payload_and_its_lease() -> None:
    shown = operation(
        attempts=(ATTEMPT,),
        last_attempt=ATTEMPT,
        result='{"site_id": 4711}',
        mapping="upya v1",
        links=((CUSTOMER, SITE),),
    ).to_response()
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
    shown: object = operation(due_at=None).to_response()
    assert shown == {
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


# ---------------------------------------------------------------- a payload that is kept


def test_a_payload_is_kept_beside_its_operation_until_it_is_dropped(tables: Tables) -> None:
    one = operation(state=State.SENDING, payload='{"a": 1}')
    store(tables, one)
    assert tables.operations.kept_payload(one) is None
    done = one.model_copy(update={"state": State.SUCCEEDED, "payload": None})
    keep = tables.operations.keep_payload(one, LATER)
    item: Any = keep["Put"]["Item"]
    kept = deserialize(item)
    assert (kept["tenant"], kept["expires_at"]) == (one.tenant, LATER)  # what `forget` and DynamoDB delete it by
    tables.operations.save(done, [keep])
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

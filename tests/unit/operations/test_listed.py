"""The operation table: what is listed, page by page; and a table that does not answer."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from crm_bridge.errors import StorageError
from crm_bridge.storage import operation_reader
from crm_bridge.storage.operation import SHARDS, OperationSummary, State
from crm_bridge.storage.operation_reader import LATEST, Due
from tests.unit.conftest import Tables
from tests.unit.operations.conftest import (
    ATTEMPT,
    LATER,
    NOW,
    SENT_BY,
    SUMMARY_SHOWN,
    After,
    Call,
    claim,
    due,
    fail,
    intercept,
    listed,
    operation,
    page,
    pages,
    store,
)

UNFINISHED = (State.SENDING, State.WAITING, State.UNCONFIRMED)
EACH_INDEX = pytest.mark.parametrize("state", [State.SUCCEEDED, State.WAITING])
"""The listing index holds the first, the due index the second."""


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
    assert (type(one), one.to_response(), after) == (OperationSummary, {**SUMMARY_SHOWN, "state": state}, None)


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
    monkeypatch.setattr(operation_reader, "LISTING_BATCH", batch)
    monkeypatch.setattr(operation_reader, "MOST_QUERIES", queries)
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
@pytest.mark.parametrize("at", [0, LATEST])
def test_a_place_at_the_end_of_all_times_is_as_good_as_any(
    tables: Tables, state: State, ten: list[str], at: int
) -> None:
    found = [page(tables, state, after=(f"op_{last}", at)) for last in "0123456789abcdef"]
    is_before_all = (at == 0) is (state is State.WAITING)
    assert [[one.event_key for one in some] for some, _ in found] == [ten if is_before_all else []] * 16
    assert {after for _, after in found} == {None}


@pytest.mark.parametrize("emulator", ["memory"], indirect=True)  # which refuses a place out of bounds, as AWS does
@pytest.mark.parametrize("ahead", [0, 1, 100])
def test_the_list_goes_on_when_its_first_time_is_later_than_on_the_page_before(tables: Tables, ahead: int) -> None:
    for number in range(10):
        store(tables, operation(str(number), state=State.SUCCEEDED, updated_at=NOW + number))
    _, after = page(tables, State.SUCCEEDED, limit=4)
    assert after
    since = after[1] + ahead
    assert tables.operations.listed("acme", State.SUCCEEDED, flow=None, limit=9, after=after, since=since) == ([], None)


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
    for number in range(200):
        at = NOW + number // 75
        store(tables, operation(str(number), state=state, updated_at=at, due_at=at))
    asked = Asked(tables)
    after: After = None
    for _ in range(200 // 20):
        asked.limits, asked.read = [], 0
        found, after = page(tables, state, limit=20, after=after)
        assert (len(found), asked.limits) == (20, [20] * partitions)
        assert asked.read <= 20 * partitions
    assert after is None or page(tables, state, limit=20, after=after) == ([], None)


@EACH_INDEX
def test_only_so_much_is_read_for_one_page(
    tables: Tables, state: State, ten: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operation_reader, "LISTING_BATCH", 1)
    monkeypatch.setattr(operation_reader, "MOST_QUERIES", 3)
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
    for shard in SHARDS:
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
        lambda: tables.operations.hasten(operation(), operation()),
        lambda: tables.operations.many([one.operation_id]),
    ]
    for ask in asked:
        with pytest.raises(StorageError):
            ask()

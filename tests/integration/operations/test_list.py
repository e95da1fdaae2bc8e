"""The list of operations, and its index."""

import itertools
import json
from collections.abc import Iterable
from io import StringIO
from urllib.parse import quote

import pytest

from crm_bridge.runtime import runtime
from crm_bridge.storage import operation_reader
from crm_bridge.storage.operation import OperationSummary, State, operation_id
from tests.integration.conftest import SITE, Crm
from tests.integration.operations.conftest import (
    FIRST,
    FLOWS,
    ORDER,
    chosen,
    ids,
    listed,
    pages,
    resolve,
    store,
)

# ---------------------------------------------------------------- the list


def test_there_is_nothing_to_list_when_nothing_happened(crm: Crm) -> None:
    answer = listed(crm)
    assert (answer.status_code, answer.json()) == (200, {"operations": [], "next": None})


def test_lists_by_need_of_a_person_and_the_latest_changed_or_the_first_due_first(crm: Crm, many: list[str]) -> None:
    assert len(many) == 25
    answer = listed(crm)
    assert ids(answer) == many
    states = [operation["state"] for operation in answer.json()["operations"]]
    assert [state for state, _ in itertools.groupby(states)] == ORDER
    assert answer.json()["next"] is None


def test_lists_of_one_state_or_one_flow_or_one_flow_in_one_state(crm: Crm, many: list[str]) -> None:
    queries = [{"state": state} for state in ORDER] + [{"flow": flow} for flow in FLOWS]
    for query in [*queries, {"state": "succeeded", "flow": "create_key_link"}]:
        assert ids(listed(crm, **query)) == chosen(many, **query) != [], query


def test_the_pages_give_every_operation_once_and_in_order(crm: Crm, many: list[str]) -> None:
    queries: list[dict[str, str]] = [
        {},
        {"flow": "create_job"},
        {"state": "sending"},
        {"state": "needs_review", "flow": "create_site"},
    ]
    for query in queries:
        wanted = chosen(many, **query)
        assert wanted
        for limit in (1, 3, 10, 25, 100):
            found = pages(crm, limit=limit, **query)
            assert list(itertools.chain(*found)) == wanted, (limit, query)
            assert all(len(page) == limit for page in found[:-1])
            assert len(found[-1]) <= limit


def test_the_pages_give_every_operation_once_when_all_were_changed_in_one_second(crm: Crm) -> None:
    made = [store(str(number), State.WAITING, FLOWS[number % 2], due_at=FIRST) for number in range(12)]
    for limit in (1, 2, 5):
        assert sorted(itertools.chain(*pages(crm, limit=limit))) == sorted(made)
        assert sorted(itertools.chain(*pages(crm, limit=limit, flow="create_site"))) == sorted(made[::2])


def test_a_page_is_50_by_default(crm: Crm) -> None:
    for number in range(51):
        store(str(number), at=FIRST + number)
    assert [len(page) for page in pages(crm)] == [50, 1]
    assert [len(page) for page in pages(crm, limit=100)] == [51]


def test_a_page_goes_on_where_it_was_when_operations_move_meanwhile(crm: Crm) -> None:
    made = [store(str(number), at=FIRST + number) for number in range(6)][::-1]
    first = listed(crm, limit=2)
    crm.post(f"/operations/{made[1]}/resolve", {"action": "discard"})  # the very one at which it stopped
    store("newer", at=FIRST + 100)
    rest = pages(crm, after=first.json()["next"], state="needs_review")
    assert ids(first) == made[:2]
    assert list(itertools.chain(*rest)) == made[2:]


def test_goes_on_with_another_filter_as_far_as_that_makes_sense(crm: Crm, many: list[str]) -> None:
    first = listed(crm, limit=3)
    here, after = many[3:], first.json()["next"]
    found = pages(crm, after=after, flow="create_key_link")
    assert list(itertools.chain(*found)) == chosen(here, flow="create_key_link")
    state = after.split(".")[0]
    other = "succeeded" if state != "succeeded" else "needs_review"
    assert listed(crm, after=after, state=other).json() == {"operations": [], "next": None}


def test_lists_what_changed_last_at_a_time_or_later(crm: Crm, many: list[str]) -> None:
    changed = {one["operation_id"]: one["updated_at"] for one in listed(crm).json()["operations"]}
    for since in sorted(set(changed.values())):
        wanted = [one for one in many if changed[one] >= since]
        zoned = since.replace("+00:00", "Z")
        for limit in (1, 3, 100):
            found = pages(crm, limit=limit, since=zoned)
            assert list(itertools.chain(*found)) == wanted, (since, limit)
    newest = max(changed.values()).replace("+00:00", "Z")
    assert ids(listed(crm, since=newest, state="succeeded")) == [
        one for one in chosen(many, state="succeeded") if changed[one] >= max(changed.values())
    ]
    assert ids(listed(crm, since="2999-01-01T00:00:00+03:00")) == []


def test_a_search_leaves_out_what_changed_last_before_a_time(crm: Crm) -> None:
    site = crm.create_site().json()["operation_id"]
    assert ids(listed(crm, id="C-1001", since="2020-01-01T00:00:00Z")) == [site]
    assert ids(listed(crm, id="C-1001", since="2999-01-01T00:00:00Z")) == []


BAD_PARAMETERS = [
    ("limit=0", "limit"),
    ("limit=-1", "limit"),
    ("limit=101", "limit"),
    ("limit=abc", "limit"),
    ("limit=1.5", "limit"),
    ("limit=", "limit"),
    ("limit=1&limit=2", "limit"),
    ("state=x", "state"),
    ("state=", "state"),
    ("state=NEEDS_REVIEW", "state"),
    ("state=needs_review&state=unconfirmed", "state"),
    ("flow=x", "flow"),
    ("flow=operations", "flow"),
    ("flow=", "flow"),
    ("after=garbage", "after"),
    ("after=", "after"),
    (f"after=gone.{FIRST}.op_{'0' * 32}", "after"),
    (f"after=needs_review.-1.op_{'0' * 32}", "after"),
    (f"after=needs_review.{'9' * 11}.op_{'0' * 32}", "after"),
    (f"after=needs_review.{FIRST}.op_{'g' * 32}", "after"),
    (f"after=needs_review.{FIRST}.op_{'0' * 31}", "after"),
    (f"after=needs_review.{FIRST}.op_{'0' * 32}%0A", "after"),
    (f"after=needs_review.{FIRST}", "after"),
    (f"after=needs_review.{quote('١٢٣')}.op_{'0' * 32}", "after"),
    ("since=", "since"),
    ("since=1764547200", "since"),
    ("since=2026-11-30", "since"),
    ("since=2026-11-30T08:00:00", "since"),
    ("since=2026-13-30T08:00:00Z", "since"),
    ("since=garbage", "since"),
    ("order=newest", "order"),
    ("tenant=umbrella", "tenant"),
]


def test_bad_parameters_are_422_and_name_the_parameter(crm: Crm) -> None:
    answers = {query: crm.get(f"/operations?{query}") for query, _ in BAD_PARAMETERS}
    assert {query: answer.status_code for query, answer in answers.items()} == dict.fromkeys(answers, 422)
    named = [(query, error["field"]) for query, answer in answers.items() for error in answer.json()["errors"]]
    assert named == BAD_PARAMETERS
    assert not [query for query, answer in answers.items() if "garbage" in answer.text]


def test_a_place_that_no_operation_has_is_as_good_as_any(crm: Crm, many: list[str]) -> None:
    newest = f"needs_review.9999999999.op_{'0' * 32}"
    assert list(itertools.chain(*pages(crm, after=newest))) == many
    oldest = f"succeeded.0.op_{'0' * 32}"
    assert listed(crm, after=oldest).json() == {"operations": [], "next": None}


def test_a_tenant_lists_its_own_operations_only(crm: Crm, umbrella: Crm, many: list[str]) -> None:
    theirs = [store(str(number), at=FIRST + number, tenant="umbrella") for number in range(3)][::-1]
    # Names that begin alike are not one.
    store("1", tenant="umbrella-2")
    store("1", tenant="demo#needs_review")
    assert ids(listed(umbrella)) == theirs
    assert list(itertools.chain(*pages(crm, limit=10))) == many
    for page in (listed(crm, limit=1), listed(crm, limit=10), listed(crm, limit=24)):
        for query in ({}, {"limit": 1}, {"flow": "create_site"}):
            answer = listed(umbrella, after=page.json()["next"], **query)
            assert set(ids(answer)) <= set(theirs)


def test_lists_what_is_being_sent_and_what_was_taken_up_again(crm: Crm) -> None:
    now = int(runtime().clock())
    new = store("new", State.SENDING, at=now - 5, due_at=now + 60)
    again = store("again", State.WAITING, at=now - 3600, due_at=now - 1)
    assert ids(listed(crm, state="sending")) == [new]
    claim = runtime().operations.claim(
        again, lease="other", now=now, until=now + 50, states=[State.WAITING], tenant="demo"
    )
    assert claim
    assert claim.won
    assert ids(listed(crm, state="sending")) == [again, new]
    assert ids(listed(crm, state="waiting")) == []
    (first, _) = listed(crm).json()["operations"]
    assert (first["operation_id"], first["state"]) == (again, "sending")


def test_tells_what_happened_last_and_when(crm: Crm) -> None:
    store("C-1", State.WAITING, due_at=FIRST + 60)
    (shown,) = listed(crm).json()["operations"]
    assert shown == {
        "operation_id": operation_id("demo", "create_site", "C-1"),
        "flow": "create_site",
        "event_key": "C-1",
        "state": "waiting",
        "last_attempt": {
            "at": "2026-11-18T11:06:40+00:00",
            "event": "in doubt",
            "reason": "who knows",
            "vendor_status": None,
        },
        "due_at": "2026-11-18T11:07:40+00:00",
        "created_at": "2026-11-18T11:06:30+00:00",
        "updated_at": "2026-11-18T11:06:40+00:00",
    }


def test_there_is_no_last_attempt_before_the_first(crm: Crm) -> None:
    crm.post("/sites", SITE, headers={"Prefer": "respond-async"})
    (shown,) = listed(crm).json()["operations"]
    assert (shown["state"], shown["last_attempt"]) == ("waiting", None)


def test_the_list_shows_neither_a_payload_nor_an_answer(crm: Crm) -> None:
    store("C-1", payload=SITE)
    crm.create_site(customer_id="C-2")
    key = crm.with_key("operations:read", "operations:resolve", "operations:payload")
    answer = listed(key)
    assert len(ids(answer)) == 2
    assert "Moi Ave" not in answer.text
    assert "4711" not in answer.text


READS = (
    *("/operations", "/operations?id=C-1", "/operations/summary", "/operations/{id}"),
    *("/links?system=crm&entity=customer&id=C-2", "/links/crm/customer/C-2"),
)


@pytest.mark.parametrize(
    ("scopes", "reads", "resolves"),
    [
        (["operations:read"], True, False),
        (["operations:resolve"], False, True),
        (["operations:payload"], False, False),
        (["operations"], False, False),  # what one scope for all of it was called
        (["create_site", "create_job", "key_link", "status_update", "connector_receiver"], False, False),
        (["create_site", "operations:read", "operations:resolve"], True, True),
        (["operations:payload", "operations:resolve"], False, True),
    ],
    ids=str,
)
def test_each_scope_allows_what_it_says_and_nothing_else(
    crm: Crm, scopes: list[str], reads: bool, resolves: bool
) -> None:
    operation = store("C-1", payload=SITE)
    crm.create_site(customer_id="C-2")
    caller = crm.with_key(*scopes)
    for path in READS:
        answer = caller.get(path.format(id=operation))
        assert answer.status_code == (200 if reads else 403), path
        assert reads or "operations:read" in answer.json()["detail"]
    answer = resolve(caller, operation, action="retry")
    assert answer.status_code == (200 if resolves else 403)
    assert resolves or "operations:resolve" in answer.json()["detail"]
    assert crm.get(f"/operations/{operation}").json()["state"] == ("waiting" if resolves else "needs_review")
    if not reads:
        assert "Moi Ave" not in answer.text


def payloads_read(log: StringIO) -> list[tuple[str, str, str]]:
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    return [
        (line["level"], line["operation_id"], line["api_key"])
        for line in lines
        if line.get("message") == "payload read"
    ]


def test_who_reads_a_payload_is_logged_and_nothing_of_it(crm: Crm, log: StringIO) -> None:
    """The fixture `log` checks in every test that no payload is in the log."""
    operation, empty = store("C-1", payload=SITE), store("C-2")
    crm.get(f"/operations/{operation}")
    assert payloads_read(log) == []
    reader = crm.with_key("operations:read", "operations:payload")
    listed(reader)
    reader.get(f"/operations/{empty}")  # of which nothing is kept
    assert payloads_read(log) == []
    assert reader.get(f"/operations/{operation}").json()["payload"] == SITE
    assert payloads_read(log) == [("INFO", operation, "Ann")]


# ---------------------------------------------------------------- the index


def summaries(
    limit: int, *, flow: str | None, after: tuple[str, int] | None = None
) -> tuple[list[OperationSummary], tuple[str, int] | None]:
    return runtime().operations.listed("demo", State.NEEDS_REVIEW, flow=flow, limit=limit, after=after)


def everything(limit: int, *, flow: str | None) -> Iterable[list[str]]:
    after = None
    for _ in range(100):
        found, after = summaries(limit, flow=flow, after=after)
        yield [one.event_key for one in found]
        if after is None:
            return
    raise AssertionError("it has no end")


@pytest.fixture
def crowd(crm: Crm) -> list[str]:
    """Six operations of create_job, each after six of create_site; event keys, as they must be listed."""
    assert crm.stack.aws
    for number in range(42):
        store(f"{number:02}", flow="create_job" if number % 7 == 0 else "create_site", at=FIRST + number)
    return [f"{number:02}" for number in range(42) if number % 7 == 0][::-1]


def test_finds_the_few_of_a_flow_behind_the_many_of_others(crowd: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for batch, limit in ((1, 2), (3, 1), (5, 3), (7, 1), (7, 2), (8, 6), (100, 1), (100, 5), (100, 6), (100, 7)):
        monkeypatch.setattr(operation_reader, "LISTING_BATCH", batch)
        found = list(everything(limit, flow="create_job"))
        assert list(itertools.chain(*found)) == crowd, (batch, limit)
        assert all(len(page) <= limit for page in found)


def test_reads_only_so_much_for_one_page_and_goes_on_there(crowd: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operation_reader, "LISTING_BATCH", 1)
    monkeypatch.setattr(operation_reader, "MOST_QUERIES", 3)
    found, after = summaries(1, flow="create_job")
    assert found == []
    assert after
    assert FIRST + 35 < after[1] < FIRST + 42
    assert list(itertools.chain(*everything(1, flow="create_job"))) == crowd


def test_a_short_page_says_that_there_is_more(crm: Crm, crowd: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operation_reader, "LISTING_BATCH", 1)
    monkeypatch.setattr(operation_reader, "MOST_QUERIES", 3)
    found = pages(crm, flow="create_job", limit=2)
    assert [] in found
    wanted = [operation_id("demo", "create_job", key) for key in crowd]
    assert list(itertools.chain(*found)) == wanted

"""Looking at operations: the list and its pages, one by itself, who may see what, and what a person may decide."""

import hashlib
import itertools
import json
from collections.abc import Iterable
from io import StringIO
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import requests

from crm_bridge.errors import Event
from crm_bridge.runtime import runtime
from crm_bridge.storage import operation_reader
from crm_bridge.storage.operation import Attempt, Operation, OperationSummary, State, operation_id
from local.vendors.simulator import Kind
from operations.flows import flows
from tests.integration.conftest import SITE, Crm

FIRST = 1_795_000_000
ORDER = ["needs_review", "unconfirmed", "waiting", "sending", "rejected", "succeeded"]
FLOWS = ("create_site", "create_job", "create_key_link", "status_update")
JOB: dict[str, Any] = {"ticket_id": "T-501", "site_id": 4711, "name": "Meter does not count"}
KEY_LINK: dict[str, Any] = {
    "system": "Salesforce",
    "entity_type": "Customer",
    "internal_id": 1015,
    "external_id": "001XX0000ABCDEF",
}
STATUS: dict[str, Any] = {"service": "MAIL", "status": "outage", "occurred_at": "2024-05-05T12:00:00Z"}
COMMANDS: dict[str, dict[str, Any]] = {
    "create_site": SITE,
    "create_job": JOB,
    "create_key_link": {"link": KEY_LINK},
    "status_update": {**STATUS, "arrived_at": STATUS["occurred_at"]},
}


def store(
    key: str,
    state: State = State.NEEDS_REVIEW,
    flow: str = "create_site",
    *,
    at: int = FIRST,
    tenant: str = "demo",
    payload: dict[str, Any] | None = None,
    due_at: int | None = None,
) -> str:
    """An operation as if it had come to this state at this time. Gives its id."""
    text = json.dumps(payload) if payload else None
    last = Attempt(at=at, event=Event.IN_DOUBT, reason="who knows")
    operation = Operation(
        operation_id=operation_id(tenant, flow, key),
        tenant=tenant,
        flow=flow,
        function=flows()[flow].function,
        event_key=key,
        state=state,
        attempts=(Attempt(at=at - 5, event=Event.NOT_DONE, reason="busy", status=503), last),
        last_attempt=last,
        fingerprint=hashlib.sha256((text or "").encode()).hexdigest(),
        payload=text,
        lease="a lease",
        due_at=due_at,
        created_at=at - 10,
        updated_at=at,
    )
    assert runtime().operations.create(operation, over=[State.REJECTED]).won
    return operation.operation_id


def listed(crm: Crm, **query: object) -> requests.Response:
    return crm.get(f"/operations?{urlencode(query)}" if query else "/operations")


def ids(answer: requests.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [operation["operation_id"] for operation in answer.json()["operations"]]


def pages(crm: Crm, **query: object) -> list[list[str]]:
    """All pages, following `next` until there is none."""
    found, after = [], None
    for _ in range(200):
        answer = listed(crm, **query, **({"after": after} if after else {}))
        found.append(ids(answer))
        after = answer.json()["next"]
        if after is None:
            return found
    raise AssertionError("the pages have no end")


def with_scopes(crm: Crm, tenant: str, *scopes: str) -> Crm:
    """The same bridge, called with a key of its own."""
    other = Crm(crm.stack)
    other.session.close()
    other.session = crm.session
    other.headers = {"Authorization": f"Bearer {crm.stack.add_key(tenant, frozenset(scopes), 'Ann')}"}
    return other


@pytest.fixture
def umbrella(crm: Crm) -> Crm:
    """Another tenant."""
    crm.stack.put_secret("umbrella", crm.stack.demo_tenant())
    return with_scopes(crm, "umbrella", "create_site", "operations:read", "operations:resolve")


@pytest.fixture
def many(crm: Crm) -> list[str]:
    """25 operations in all states and of all flows; their ids in the order in which they must be listed."""
    made = []
    for number, (state, flow) in enumerate(itertools.islice(itertools.cycle(itertools.product(State, FLOWS)), 25)):
        at = FIRST + 7 * number % 25  # so that what was stored last is not what was changed last
        due_at = at + 60 if state in (State.SENDING, State.WAITING, State.UNCONFIRMED) else None
        order = -at if due_at is None else due_at
        made.append((ORDER.index(state), order, store(str(number), state, flow, at=at, due_at=due_at)))
    assert crm.stack.aws
    return [operation for _, _, operation in sorted(made)]


def chosen(many: list[str], **members: str) -> list[str]:
    """Those of which the records say this."""
    records = [runtime().operations.get(one) for one in many]
    return [one.operation_id for one in records if one and members.items() <= one.model_dump(mode="json").items()]


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


def test_a_page_is_50_unless_it_is_told(crm: Crm) -> None:
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
    key = with_scopes(crm, "demo", "operations:read", "operations:resolve", "operations:payload")
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
    caller = with_scopes(crm, "demo", *scopes)
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
    """That no payload is in the log is held for every test."""
    operation, empty = store("C-1", payload=SITE), store("C-2")
    crm.get(f"/operations/{operation}")
    assert payloads_read(log) == []
    reader = with_scopes(crm, "demo", "operations:read", "operations:payload")
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


# ---------------------------------------------------------------- one operation


def test_shows_both_ends_of_every_link_once_it_succeeded(crm: Crm) -> None:
    site = crm.create_site().json()["operation_id"]
    job = crm.post("/jobs", JOB).json()["operation_id"]
    customer, at_illu = {"system": "crm", "entity": "customer", "id": "C-1001"}, {"system": "illu", "entity": "site"}
    assert crm.get(f"/operations/{site}").json()["links"] == [[customer, {**at_illu, "id": "4711"}]]
    made = {"system": "illu", "entity": "job", "id": "801"}
    ticket = {"system": "crm", "entity": "ticket", "id": "T-501"}
    assert crm.get(f"/operations/{job}").json()["links"] == [[ticket, made], [made, {**at_illu, "id": "4711"}]]


def test_shows_no_link_when_it_failed(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crm.stack.illu, "longest_name", 5)
    refused = crm.create_site()
    assert refused.status_code == 422
    shown = crm.get(f"/operations/{refused.json()['operation_id']}").json()
    assert (shown["state"], shown["links"], shown["result"]) == ("rejected", [], None)


def test_shows_no_link_when_what_was_made_is_linked_to_something_else(crm: Crm) -> None:
    crm.create_site()
    crm.stack.illu.next_id = 4711  # illu gives one id twice
    accepted = crm.create_site(customer_id="C-1002")
    shown = crm.get(f"/operations/{accepted.json()['operation_id']}").json()
    assert (shown["state"], shown["links"]) == ("needs_review", [])
    assert shown["last_attempt"]["event"] == "link taken"


def test_shows_no_link_while_it_is_on_its_way(crm: Crm) -> None:
    crm.stack.illu.fail(Kind.CLOSE_AFTER)
    accepted = crm.create_site()
    assert crm.get(accepted.headers["Location"]).json()["links"] == []
    assert len(crm.settle(accepted)["links"]) == 1


def test_shows_the_payload_only_to_a_key_with_the_scope_and_none_after_success(crm: Crm) -> None:
    reader = with_scopes(crm, "demo", "operations:read", "operations:resolve", "operations:payload")
    crm.stack.illu.fail(Kind.UNAVAILABLE)
    accepted = crm.create_site()
    location = accepted.headers["Location"]
    assert reader.get(location).json()["payload"] == SITE
    without = crm.get(location)
    assert "payload" not in without.json()
    assert "Moi Ave" not in without.text
    crm.settle(accepted)
    after = reader.get(location).json()
    assert (after["state"], after["payload"]) == ("succeeded", None)


ODD_IDS = [
    *("op_", "x", "op_" + "0" * 31, "op_" + "0" * 33, "OP_" + "0" * 32, "op_" + "A" * 32, "op_" + "g" * 32),
    *("op_%00", "%23", "a b", "...", "%F0%9F%8E%AB", "op_" + "0" * 32, "op_" + "0" * 32 + "%0A", "x" * 5000),
]


def test_is_404_when_there_is_no_such_operation(crm: Crm) -> None:
    for odd in ODD_IDS:
        for answer in (crm.get(f"/operations/{odd}"), crm.post(f"/operations/{odd}/resolve", {"action": "discard"})):
            assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json"), odd
            assert answer.json()["detail"] == "There is no operation with this id."


def test_anothers_operation_is_404_and_cannot_be_resolved(crm: Crm, umbrella: Crm) -> None:
    mine = store("C-1", payload=SITE)
    assert crm.get(f"/operations/{mine}").status_code == 200
    assert umbrella.get(f"/operations/{mine}").status_code == 404
    for decision in ({"action": "discard"}, {"action": "retry"}, {"action": "link", "id": "1"}):
        assert umbrella.post(f"/operations/{mine}/resolve", decision).status_code == 404
    assert crm.get(f"/operations/{mine}").json()["state"] == "needs_review"


# ---------------------------------------------------------------- links


def test_a_links_system_and_entity_may_be_in_any_case_and_its_id_may_not(crm: Crm) -> None:
    crm.create_site(customer_id="c-Äb")
    assert crm.post("/key-links", KEY_LINK).status_code == 201
    for system, entity in (("crm", "customer"), ("CRM", "Customer"), ("cRm", "CUSTOMER")):
        (link,) = crm.get(f"/links/{system}/{entity}/{quote('c-Äb')}").json()["links"]
        assert (link["system"], link["entity"], link["id"]) == ("illu", "site", "4711")
    for system, entity in (("salesforce", "customer"), ("Salesforce", "Customer"), ("SALESFORCE", "CUSTOMER")):
        assert len(crm.get(f"/links/{system}/{entity}/001XX0000ABCDEF").json()["links"]) == 2
    for path in (quote("crm/customer/c-äb"), quote("crm/customer/C-ÄB"), "salesforce/customer/001xx0000abcdef"):
        assert crm.get(f"/links/{path}").status_code == 404


# ---------------------------------------------------------------- what a person decides


def resolve(crm: Crm, operation: str, **decision: object) -> requests.Response:
    return crm.post(f"/operations/{operation}/resolve", decision)


def in_review(flow: str) -> str:
    """An operation of this flow with its real command, which would be sent again."""
    return store(f"the {flow}", flow=flow, payload=COMMANDS[flow], at=int(runtime().clock()))


def links_of(crm: Crm, path: str) -> set[tuple[str, str, str]]:
    links = crm.get(f"/links/{path}").json().get("links", [])
    return {(link["system"], link["entity"], link["id"]) for link in links}


ADOPTED: dict[str, tuple[dict[str, Any], dict[str, set[tuple[str, str, str]]]]] = {
    "create_site": (
        {"site_id": 4712, "customer_id": "C-1001"},
        {"crm/customer/C-1001": {("illu", "site", "4712")}, "illu/site/4712": {("crm", "customer", "C-1001")}},
    ),
    "create_job": (
        {"job_id": "4712", "ticket_id": "T-501", "site_id": 4711},
        {"crm/ticket/T-501": {("illu", "job", "4712")}, "illu/site/4711": {("illu", "job", "4712")}},
    ),
    "create_key_link": (
        {**KEY_LINK, "id": 4712},
        {
            "salesforce/customer/001XX0000ABCDEF": {("revio", "customer", "1015"), ("revio", "key_link", "4712")},
            "revio/customer/1015": {("salesforce", "customer", "001XX0000ABCDEF"), ("revio", "key_link", "4712")},
            "revio/key_link/4712": {("salesforce", "customer", "001XX0000ABCDEF"), ("revio", "customer", "1015")},
        },
    ),
}


def made_by_hand(crm: Crm, flow: str, number: int = 4712) -> dict[str, Any]:
    """The vendor's record of this flow's command, with this id, as somebody made it there."""
    illu, revio = crm.stack.illu, crm.stack.revio.account
    illu.next_id = illu.next_job_id = revio.next_id = number
    match flow:
        case "create_site":
            return illu.add_site(**{name: SITE[name] for name in ("name", "latitude", "longitude", "address")})
        case "create_job":
            job = {**JOB, "job_id": number, "notes": "Bring a ladder [CRM ticket T-501]", "created_at": illu._now()}
            illu.jobs.append(job)
            return job
    return revio.add_key_link(4, 2, 1015, "001XX0000ABCDEF")


@pytest.mark.parametrize("flow", list(ADOPTED))
def test_what_a_person_links_succeeds_and_is_linked(crm: Crm, flow: str) -> None:
    operation, (answer, links) = in_review(flow), ADOPTED[flow]
    made_by_hand(crm, flow)
    resolved = resolve(crm, operation, action="link", id="4712")
    assert resolved.status_code == 200
    shown = resolved.json()
    assert (shown["state"], shown["result"], shown["due_at"]) == ("succeeded", answer, None)
    assert (shown["last_attempt"]["event"], shown["last_attempt"]["reason"]) == ("linked", "by demo")
    for path, partners in links.items():
        assert links_of(crm, path) == partners
        system, entity, identity = path.split("/")
        end = {"system": system, "entity": entity, "id": identity}
        assert sum(end in link for link in shown["links"]) == len(partners)
    assert crm.get(f"/operations/{operation}").json() == shown | {"candidates": []}
    assert {call.method for call in (*crm.stack.illu.seen, *crm.stack.revio.seen)} == {"GET"}


def test_what_cannot_be_linked_stays_in_review(crm: Crm) -> None:
    wrong: dict[str, tuple[int, list[object]]] = {
        "create_site": (422, [None, "site 1", "0", "-1", "9" * 19, "٤", 0, "1" * 201]),
        "create_job": (422, [None, " ", "1" * 201, "not-a-job"]),
        "create_key_link": (422, [None, "abc", "007", "1.0", "999999"]),
        "status_update": (409, ["2"]),
    }
    for flow, (status, ids_sent) in wrong.items():
        operation = in_review(flow)
        for sent in ids_sent:
            decision = {} if sent is None else {"id": sent, "confirmed": True}
            assert resolve(crm, operation, action="link", **decision).status_code == status, (flow, sent)
        shown = crm.get(f"/operations/{operation}").json()
        assert (shown["state"], shown["links"], len(shown["attempts"])) == ("needs_review", [], 2)


def test_a_job_of_a_customer_without_a_site_cannot_be_linked(crm: Crm) -> None:
    job = {"ticket_id": "T-501", "customer_id": "C-1001", "name": JOB["name"]}
    operation = store("T-501", flow="create_job", payload=job)
    assert resolve(crm, operation, action="link", id="801").status_code == 409
    crm.create_site()
    made_by_hand(crm, "create_job", 801)
    assert resolve(crm, operation, action="link", id="801").json()["result"]["site_id"] == 4711


def test_an_id_that_is_linked_already_cannot_be_linked(crm: Crm) -> None:
    crm.create_site(customer_id="C-1")
    operation = in_review("create_site")
    assert resolve(crm, operation, action="link", id="4711").status_code == 409
    assert crm.get(f"/operations/{operation}").json()["state"] == "needs_review"
    assert links_of(crm, "crm/customer/C-1001") == set()


def effects(crm: Crm) -> dict[str, int]:
    """What there is at the vendors, by flow."""
    stack = crm.stack
    return {
        "create_site": len(stack.illu.sites),
        "create_job": len(stack.illu.jobs),
        "create_key_link": len(stack.revio.account.key_links),
        "status_update": int(stack.izzitup.status_of("2") == "7"),
    }


@pytest.mark.parametrize("flow", FLOWS)
def test_what_a_person_sends_again_is_sent_once(crm: Crm, flow: str) -> None:
    if flow == "create_job":
        crm.create_site(customer_id="of the job")
    operation, before = in_review(flow), effects(crm)
    resolved = resolve(crm, operation, action="retry").json()
    assert (resolved["state"], resolved["last_attempt"]["event"]) == ("waiting", "retry requested")
    assert effects(crm) == before
    crm.stack.deliver_due()
    assert crm.get(f"/operations/{operation}").json()["state"] == "succeeded"
    assert effects(crm) == {**before, flow: before[flow] + 1}
    for decision in ({"action": "retry"}, {"action": "discard"}, {"action": "link", "id": "1"}):
        assert resolve(crm, operation, **decision).status_code == 409
    crm.stack.deliver_due()
    assert effects(crm) == {**before, flow: before[flow] + 1}


def test_what_a_person_discards_is_not_done_any_more(crm: Crm) -> None:
    reader = with_scopes(crm, "demo", "operations:read", "operations:resolve", "operations:payload")
    before, discarded = effects(crm), set()
    for flow in FLOWS:
        operation = in_review(flow)
        assert reader.get(f"/operations/{operation}").json()["payload"] == COMMANDS[flow]
        resolved = resolve(reader, operation, action="discard").json()
        assert (resolved["state"], resolved["links"], resolved["due_at"]) == ("rejected", [], None)
        assert (resolved["last_attempt"]["event"], resolved["last_attempt"]["reason"]) == ("discarded", "by Ann")
        assert reader.get(f"/operations/{operation}").json()["payload"] is None
        discarded.add(operation)
    crm.stack.move_clock(3600)
    crm.stack.deliver_due()
    assert effects(crm) == before
    assert set(ids(listed(crm, state="rejected"))) == discarded


def test_only_what_needs_review_can_be_resolved(crm: Crm) -> None:
    decisions = ({"action": "link", "id": "1"}, {"action": "retry"}, {"action": "discard"})
    for state in (state for state in State if state is not State.NEEDS_REVIEW):
        operation = store(state, state, payload=SITE)
        for decision in decisions:
            answer = resolve(crm, operation, **decision)
            assert answer.status_code == 409
            assert f"its state is {state}" in answer.json()["detail"]
        shown = crm.get(f"/operations/{operation}").json()
        assert (shown["state"], len(shown["attempts"])) == (state, 2)


# ---------------------------------------------------------------- search


def found(crm: Crm, record: str) -> list[str]:
    answer = crm.get(f"/operations?{urlencode({'id': record})}")
    assert answer.status_code == 200
    assert answer.json()["next"] is None
    return [one["event_key"] for one in answer.json()["operations"]]


def test_an_operation_is_found_by_every_id_that_somebody_knows_it_by(crm: Crm) -> None:
    site = crm.create_site().json()
    job = crm.post("/jobs", {"ticket_id": "T-501", "name": "Meter", "customer_id": SITE["customer_id"]}).json()
    key_link = crm.post("/key-links", KEY_LINK).json()
    crm.create_site(customer_id="C-other")
    assert found(crm, site["operation_id"]) == found(crm, str(SITE["customer_id"])) == [SITE["customer_id"]]
    assert sorted(found(crm, str(site["site_id"]))) == [SITE["customer_id"], "T-501"]
    assert found(crm, str(job["job_id"])) == found(crm, "T-501") == ["T-501"]
    pair = found(crm, str(key_link["id"]))
    assert len(pair) == 1
    assert found(crm, "1015") == found(crm, "SalesForce/Customer/001XX0000ABCDEF") == pair
    for nobody in ("001XX0000ABCDEF", "op_none", "a/b/c/d", "//", "€" * 1000):
        assert found(crm, nobody) == []


def test_what_is_another_tenants_is_not_found(crm: Crm, umbrella: Crm) -> None:
    site = crm.create_site().json()
    for record in (site["operation_id"], str(SITE["customer_id"]), str(site["site_id"])):
        assert found(umbrella, record) == []


def test_a_search_can_be_narrowed(crm: Crm) -> None:
    crm.create_site()
    crm.post("/jobs", {"ticket_id": "T-501", "name": "Meter", "customer_id": SITE["customer_id"]})
    for narrowed, count in (("", 2), ("&flow=create_job", 1), ("&state=needs_review", 0), ("&limit=1", 1)):
        assert len(crm.get(f"/operations?id=4711{narrowed}").json()["operations"]) == count


@pytest.mark.parametrize("query", ["id=", f"id={'x' * 1001}"])
def test_what_is_no_id_is_not_searched_for(crm: Crm, query: str) -> None:
    assert crm.get(f"/operations?{query}").status_code == 422


# ---------------------------------------------------------------- how everything stands


def summarized(crm: Crm) -> dict[str, Any]:
    answer = crm.get("/operations/summary")
    assert answer.status_code == 200
    summary: dict[str, Any] = answer.json()
    return summary


def vendors(crm: Crm) -> dict[str, tuple[str, int]]:
    return {one["vendor"]: (one["state"], one["unsettled"]) for one in summarized(crm)["vendors"]}


def test_nothing_is_known_before_the_first_event(crm: Crm) -> None:
    summary = summarized(crm)
    assert {state: one["count"] for state, one in summary["states"].items()} == dict.fromkeys(ORDER, 0)
    assert len(summary["hours"]) == 24
    assert {one["state"] for one in summary["vendors"]} == {"nothing known"}


def test_counts_by_state_and_flow_and_by_the_hour(crm: Crm) -> None:
    crm.stack.move_clock(-2 * 3600)
    crm.create_site(customer_id="C-1")
    crm.stack.move_clock(2 * 3600)
    crm.create_site(customer_id="C-2")
    crm.post("/key-links", KEY_LINK)
    crm.stack.illu.fail(Kind.TOO_MANY)
    crm.create_site(customer_id="C-3")
    store("old", State.NEEDS_REVIEW, at=int(runtime().clock()) - 30 * 3600)
    store("theirs", State.NEEDS_REVIEW, tenant="demo-upya", at=int(runtime().clock()))
    summary = summarized(crm)
    assert summary["states"]["succeeded"] == {
        "count": 3,
        "more": False,
        "flows": {"create_key_link": 1, "create_site": 2},
    }
    assert summary["states"]["waiting"]["count"] == summary["states"]["needs_review"]["count"] == 1
    assert [hour["states"] for hour in summary["hours"][-3:]] == [
        {"succeeded": 1},
        {},
        {"waiting": 1, "succeeded": 2},
    ]
    assert summary["hours"][-1]["hour"] <= summary["at"] < summary["hours"][-1]["hour"].replace(":00:00", ":59:60")


def test_says_that_there_are_more_than_it_has_looked_at(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operations.handler.READ", 2)
    for number in range(3):
        store(str(number), State.NEEDS_REVIEW, at=FIRST + number)
    assert summarized(crm)["states"]["needs_review"] == {"count": 2, "more": True, "flows": {"create_site": 2}}


def test_a_vendor_fails_from_the_first_event_that_is_not_settled_until_one_succeeds(crm: Crm) -> None:
    crm.create_site(customer_id="C-1")
    assert vendors(crm)["illu"] == ("responding", 0)
    crm.stack.move_clock(10)
    crm.stack.illu.fail(Kind.TOO_MANY, times=2)
    crm.create_site(customer_id="C-2")
    assert vendors(crm)["illu"] == ("failing", 1)
    (illu,) = [one for one in summarized(crm)["vendors"] if one["vendor"] == "illu"]
    assert illu["reason"].startswith("illu answered 429")
    assert illu["last_success"] < illu["last_failure"]
    crm.stack.move_clock(10)
    crm.create_site(customer_id="C-3")
    assert vendors(crm)["illu"] == ("failing", 2)
    crm.stack.move_clock(10)
    crm.create_site(customer_id="C-4")
    assert vendors(crm)["illu"] == ("responding", 2)
    assert vendors(crm)["Rev.io"] == ("nothing known", 0)


def test_the_summary_says_what_the_key_may_do(crm: Crm) -> None:
    caller = with_scopes(crm, "demo", "operations:read", "create_site")
    assert summarized(caller)["scopes"] == ["create_site", "operations:read"]

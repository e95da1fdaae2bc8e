"""The events of a source are accepted, once each."""

import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from crm_bridge import Flow
from crm_bridge.engine import HANDED_OVER
from crm_bridge.engine.settling import Settling
from crm_bridge.errors import QueueError, StorageError
from crm_bridge.outbound.queues import Queues
from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import operation_id
from crm_bridge.storage.operations import Operations
from crm_bridge.tenants import MAPPING_MAX_AGE, Tenants
from local.vendors.simulator import Kind
from operations.flows import flows
from tests.integration.conftest import SITE, age, failing, rows
from tests.integration.sources.conftest import EXPRESSION, SOURCE, Sender, body_of, company, counts

# ---------------------------------------------------------------------- events


def test_three_events_become_three_sites(sender: Sender) -> None:
    assert counts(sender.send(*map(company, (1, 2, 3)))) == (3, 0, 0, 0)
    sender.crm.stack.deliver()
    assert sorted(site["name"] for site in sender.sites) == ["Shop 1", "Shop 2", "Shop 3"]
    operation = sender.crm.get(f"/operations/{operation_id('demo', 'create_site', 'C-1')}").json()
    assert (operation["state"], operation["mapping"]) == ("succeeded", "crm 1")


def test_an_event_is_one_when_it_comes_twice_or_by_the_flow_s_own_route(sender: Sender) -> None:
    assert counts(sender.send(company(1), company(1))) == (1, 1, 0, 0)
    assert counts(sender.send(company(1))) == (0, 1, 0, 0)
    sender.crm.stack.deliver()
    assert counts(sender.send(company(1))) == (0, 1, 0, 0)
    assert sender.crm.create_site(customer_id="C-1").status_code == 200
    assert sender.crm.create_site(customer_id="C-2").status_code == 201
    assert counts(sender.send(company(2))) == (0, 1, 0, 0)
    sender.crm.stack.deliver()
    assert len(sender.sites) == 2


def test_an_event_that_no_entry_fits_is_ignored(sender: Sender) -> None:
    assert counts(sender.send({"kind": "ticket", "id": 5}, company(1))) == (1, 0, 0, 1)
    assert sender.quarantined() == []


def test_nothing_is_asked_for_when_a_list_is_empty(sender: Sender) -> None:
    assert counts(sender.send()) == (0, 0, 0, 0)


def test_who_sends_cannot_find_out_what_there_is(sender: Sender) -> None:
    wrong = [
        sender.send(company(1), secret="another-secret-of-that-length"),
        sender.send(company(1), path="/in/demo/unknown"),
        sender.send(company(1), path="/in/nobody/crm"),
        sender.send(company(1), path="/in/DEMO/crm"),
        sender.send(company(1), path="/in/demo-upya/crm"),
    ]
    assert [answer.status_code for answer in wrong] == [401] * 5
    assert [body_of(answer) for answer in wrong] == [body_of(wrong[0])] * 5
    assert len({json.dumps(sorted(set(answer.headers) - {"Date"})) for answer in wrong}) == 1
    assert rows("REQUESTS_TABLE") == rows("OPERATIONS_TABLE") == []


def test_unknown_names_are_looked_up_once_when_a_flood_of_them_comes(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Counter[str]()
    real = Tenants.get

    def get(tenants: Tenants, name: str, function: str, **how: bool) -> Any:
        asked[name] += 1
        return real(tenants, name, function, **how)

    monkeypatch.setattr(Tenants, "get", get)
    for _ in range(5):
        assert sender.send(company(1), path="/in/nobody/crm").status_code == 401
    assert asked["nobody"] == 1


# ---------------------------------------------------------------------- what it costs


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, sender: Sender) -> list[str]:  # noqa: ARG001 - its settings are read
    """The calls to AWS."""
    made: list[str] = []
    clients: list[Any] = [runtime().dynamodb, runtime().queues.client, runtime().tenants._secrets.client]
    for client in clients:
        real = client._make_api_call

        def call(name: str, arguments: object, real: Callable[..., Any] = real) -> Any:
            made.append(name)
            return real(name, arguments)

        monkeypatch.setattr(client, "_make_api_call", call)
    return made


def test_a_new_version_of_a_source_makes_the_next_event_when_the_one_before_is_ten_seconds_old(sender: Sender) -> None:
    document = json.loads(sender.crm.stack.demo_tenant())
    entry = {**SOURCE["events"][0], "version": "2", "expression": EXPRESSION.replace("name: name", "name: 'after'")}
    sender.send(company(1))
    sender.crm.stack.put_secret("demo", json.dumps({**document, "sources": {"crm": {**SOURCE, "events": [entry]}}}))
    age(MAPPING_MAX_AGE - 5)
    sender.send(company(2))
    age(6)
    sender.send(company(3))
    listed = sender.crm.get("/operations").json()["operations"]
    shown = [sender.crm.get(f"/operations/{one['operation_id']}").json() for one in listed]
    assert sorted((one["event_key"], one["mapping"]) for one in shown) == [
        ("C-1", "crm 1"),
        ("C-2", "crm 1"),
        ("C-3", "crm 2"),
    ]


def test_an_accepted_event_takes_two_calls_one_after_the_other(sender: Sender, calls: list[str]) -> None:
    sender.send(company(1))
    assert calls == ["PutItem", "SendMessageBatch"]
    calls.clear()
    sender.send(company(1))
    assert calls == ["PutItem"]


def test_many_events_take_a_write_each_and_a_message_call_for_ten(sender: Sender, calls: list[str]) -> None:
    assert counts(sender.send(*map(company, range(25)))) == (25, 0, 0, 0)
    assert Counter(calls) == {"PutItem": 25, "SendMessageBatch": 3}
    sender.crm.stack.deliver()
    assert len(sender.sites) == 25


def test_the_first_of_several_payloads_of_an_event_counts(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each had come by itself, whichever thread is quicker."""
    real = Operations.create

    def create(operations: Operations, operation: Any, **how: Any) -> Any:
        if "first" in operation.payload:
            time.sleep(0.2)
        return real(operations, operation, **how)

    monkeypatch.setattr(Operations, "create", create)
    events = (company(2), company(1, name="first"), company(3), company(1, name="second"))
    assert counts(sender.send(*events)) == (3, 1, 0, 0)
    sender.crm.stack.deliver()
    assert {site["name"] for site in sender.sites} == {"Shop 2", "first", "Shop 3"}


# ---------------------------------------------------------------------- failures


def test_what_was_stored_is_stored_when_another_event_could_not_be(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Operations.create

    def create(operations: Operations, operation: Any, **how: Any) -> Any:
        if operation.event_key == "C-2":
            raise StorageError("no")
        return real(operations, operation, **how)

    monkeypatch.setattr(Operations, "create", create)
    answer = sender.send(*map(company, (1, 2, 3)))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
    monkeypatch.undo()
    assert counts(sender.send(*map(company, (1, 2, 3)))) == (1, 2, 0, 0)
    sender.crm.stack.deliver()
    assert len(sender.sites) == 3


def test_the_dispatcher_finds_an_event_when_its_message_could_not_be_sent(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(*_: object) -> None:
        raise QueueError("no")

    monkeypatch.setattr(Queues, "send", send)
    assert counts(sender.send(company(1))) == (1, 0, 0, 0)
    monkeypatch.undo()
    sender.crm.stack.deliver()
    assert sender.sites == []
    sender.crm.stack.deliver_due(after=HANDED_OVER + 1)
    assert len(sender.sites) == 1


def test_a_request_is_to_come_again_when_its_source_sends_too_many(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def take(key: str) -> float:
        taken.append(key)
        return 1.0

    monkeypatch.setattr(runtime().source_buckets, "take", take)
    assert sender.send(company(1)).status_code == 503
    assert taken == ["demo#crm"]
    assert sender.send(company(1), secret="another-secret-of-that-length").status_code == 401
    assert taken == ["demo#crm"], "who is not known uses up nobody's share"
    assert rows("OPERATIONS_TABLE") == []


# ---------------------------------------------------------------------- the vendor's account


class KilledError(BaseException):
    """The function dies here: no handler of the bridge sees it."""


def test_an_event_is_looked_for_where_it_was_sent_when_the_account_changes_meanwhile(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function dies during the first sending, so nothing was settled; then the tenant names another account."""
    sender.send(company(1))
    (stored,) = rows("OPERATIONS_TABLE")
    assert "sent_to" not in stored

    def die(*_: object, **__: object) -> None:
        raise KilledError

    monkeypatch.setattr(Settling, "settle", die)
    with pytest.raises(KilledError):
        sender.crm.stack.deliver()
    monkeypatch.undo()
    assert len(sender.sites) == 1
    demo = json.loads(sender.crm.stack.demo_tenant())
    sender.use(illu={**demo["illu"], "org_id": 999})
    runtime().tenants.get("demo", "create_site", fresh=True)
    for _ in range(3):
        sender.crm.stack.deliver_due(after=60)
    (operation,) = rows("OPERATIONS_TABLE")
    assert operation["state"] == "needs_review"
    assert len(sender.sites) == 1


@pytest.mark.parametrize("action", ["retry", "discard"])
def test_a_person_decides_about_an_event_of_a_source_as_about_any_other(sender: Sender, action: str) -> None:
    sender.send(company(1))
    with failing(sender.crm.stack.illu, Kind.CLOSE_AFTER):
        sender.crm.stack.deliver()
    (site,) = sender.sites
    sender.sites.append({**site, "site_id": 4712})  # two are alike, so a person decides
    for _ in range(5):
        sender.crm.stack.deliver_due(after=60)
    operation = operation_id("demo", "create_site", "C-1")
    assert sender.crm.get(f"/operations/{operation}").json()["state"] == "needs_review"
    answer = sender.crm.post(f"/operations/{operation}/resolve", {"action": action})
    assert answer.status_code == 200
    sender.crm.stack.deliver()
    state = sender.crm.get(f"/operations/{operation}").json()["state"]
    assert state == ("succeeded" if action == "retry" else "rejected")


# ---------------------------------------------------------------------- every flow that a source may reach


def test_no_flow_with_a_claim_of_its_own_is_reached_by_a_source() -> None:
    reached = {name for name, flow in flows().items() if flow.from_source}
    assert reached == {"create_site", "create_job", "status_update", "create_key_link"}
    assert not [name for name in reached if flows()[name].claim is not Flow.claim]


FLOWS: dict[str, tuple[str, dict[str, object]]] = {
    "create_job": (
        "{ticket_id: id, customer_id: customer, name: name, site: site}",
        {
            "id": "T-1",
            "customer": "C-1",
            "name": "Meter",
            "site": {k: v for k, v in SITE.items() if k != "customer_id"},
        },
    ),
    "status_update": (
        "{service: id, status: to, occurred_at: at}",
        {"id": "1", "to": "outage", "at": "2026-11-30T08:00:00Z"},
    ),
    "create_key_link": (
        "{system: system, entity_type: type, internal_id: internal, external_id: id}",
        {"system": "SALESFORCE", "type": "CUSTOMER", "id": "SF-9", "internal": 1001},
    ),
}


@pytest.mark.parametrize("flow", FLOWS)
def test_each_flow_is_reached(sender: Sender, flow: str, quick_spacing: None) -> None:  # noqa: ARG001
    expression, event = FLOWS[flow]
    sender.use({**SOURCE, "events": [{"flow": flow, "version": "1", "expression": expression}]})
    assert counts(sender.send(event)) == (1, 0, 0, 0)
    assert counts(sender.send(event)) == (0, 1, 0, 0)
    sender.crm.stack.deliver()
    (operation,) = [row for row in rows("OPERATIONS_TABLE") if row["flow"] == flow]
    assert operation["state"] == "succeeded", operation["attempts"]


def test_a_status_without_its_time_is_not_valid(sender: Sender) -> None:
    """A sender that repeats it would set an old status again."""
    sender.use(
        {**SOURCE, "events": [{"flow": "status_update", "version": "1", "expression": "{service: id, status: to}"}]}
    )
    assert counts(sender.send({"id": "1", "to": "outage"})) == (0, 0, 1, 0)


@pytest.mark.parametrize("flow", ["save_person", "change_key_link", "no_such_flow"])
def test_an_event_for_a_flow_that_no_source_reaches_is_in_quarantine(sender: Sender, flow: str) -> None:
    sender.use({**SOURCE, "events": [{"flow": flow, "version": "1", "expression": "@"}]})
    assert counts(sender.send({"id": "1"})) == (0, 0, 1, 0)

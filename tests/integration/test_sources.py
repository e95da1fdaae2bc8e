"""Requests of senders that cannot shape them: in, split, mapped, stored, and each event has one effect."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import requests

from crm_bridge import Flow
from crm_bridge.engine import HANDED_OVER
from crm_bridge.engine.settling import Settling
from crm_bridge.errors import QueueError, StorageError
from crm_bridge.outbound.queues import Queues
from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import operation_id
from crm_bridge.storage.operations import Operations
from crm_bridge.storage.requests import Requests
from crm_bridge.tenants import Tenants
from local.vendors.simulator import Kind
from operations.flows import flows
from tests.integration.conftest import SITE, Crm, failing, rows

SECRET = "a-secret-of-the-senders-own"
EXPRESSION = "{customer_id: id, name: name, latitude: lat, longitude: lon, address: address}"
SOURCE: dict[str, Any] = {
    "preset": "in-house",
    "secrets": [SECRET],
    "key": ["kind", "id"],
    "events": [{"when": "kind == 'company'", "flow": "create_site", "version": "1", "expression": EXPRESSION}],
}


def company(number: int, **changes: object) -> dict[str, object]:
    place = {"lat": 1 + number / 100, "lon": 35.0, "address": "Moi Ave 12"}
    return {"kind": "company", "id": f"C-{number}", "name": f"Shop {number}", **place, **changes}


class Sender:
    """A source of the demo tenant."""

    def __init__(self, crm: Crm) -> None:
        self.crm = crm
        self.use()

    def use(self, source: dict[str, Any] = SOURCE, tenant: str = "demo", **document: object) -> None:
        """From now on the tenant has this source."""
        demo = json.loads(self.crm.stack.demo_tenant())
        self.crm.stack.put_secret(tenant, json.dumps({**demo, "sources": {"crm": source}, **document}))
        runtime().tenants.get(tenant, "sources", fresh=True)

    def send(self, *events: object, secret: str = SECRET, path: str = "/in/demo/crm") -> requests.Response:
        return self.crm.session.post(
            self.crm.stack.url + path, json=list(events), headers={"x-api-key": secret}, timeout=60
        )

    def quarantined(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.crm.get("/requests?state=quarantined").json()["requests"]
        return found

    @property
    def sites(self) -> list[Any]:
        return self.crm.stack.illu.sites


@pytest.fixture
def sender(crm: Crm) -> Sender:
    return Sender(crm)


def body_of(response: requests.Response) -> dict[str, object]:
    """Return a problem without the id of its request."""
    return {name: value for name, value in response.json().items() if name != "request_id"}


def counts(response: requests.Response) -> tuple[int, ...]:
    assert response.status_code == 200, response.text
    told = response.json()
    return tuple(told[name] for name in ("stored", "repeated", "quarantined", "ignored"))


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
    """What is asked of AWS."""
    made: list[str] = []
    clients: list[Any] = [runtime().dynamodb, runtime().queues.client, runtime().tenants._secrets.client]
    for client in clients:
        real = client._make_api_call

        def call(name: str, arguments: object, real: Callable[..., Any] = real) -> Any:
            made.append(name)
            return real(name, arguments)

        monkeypatch.setattr(client, "_make_api_call", call)
    return made


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
    sender.crm.stack.move_clock(HANDED_OVER + 1)
    sender.crm.stack.deliver_due()
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
        sender.crm.stack.move_clock(60)
        sender.crm.stack.deliver_due()
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
        sender.crm.stack.move_clock(60)
        sender.crm.stack.deliver_due()
    operation = operation_id("demo", "create_site", "C-1")
    assert sender.crm.get(f"/operations/{operation}").json()["state"] == "needs_review"
    answer = sender.crm.post(f"/operations/{operation}/resolve", {"action": action})
    assert answer.status_code == 200
    sender.crm.stack.deliver()
    state = sender.crm.get(f"/operations/{operation}").json()["state"]
    assert state == ("succeeded" if action == "retry" else "rejected")


# ---------------------------------------------------------------------- quarantine


def test_a_bad_event_is_in_quarantine_once_and_its_neighbours_are_sent(sender: Sender) -> None:
    bad = company(2, lat="north")
    assert counts(sender.send(company(1), bad, company(3))) == (2, 0, 1, 0)
    assert counts(sender.send(company(1), bad, company(3))) == (0, 3, 0, 0)
    sender.crm.stack.deliver()
    assert len(sender.sites) == 2
    (found,) = sender.quarantined()
    assert (found["sender"], found["status"], found["problem"], found["ids"]) == ("crm", 422, "invalid", ["C-2"])
    assert [error["field"] for error in found["errors"]] == ["latitude"]
    assert sender.crm.get("/requests?id=C-2").json()["requests"] == [found]


def test_a_mended_mapping_lets_an_event_out_of_quarantine(sender: Sender) -> None:
    sender.send({**company(2), "lat": None, "position": {"lat": 1.02}})
    (found,) = sender.quarantined()
    path = f"/requests/{found['id']}/resend"
    still = sender.crm.post(path)
    assert still.status_code == 422
    mended = {**SOURCE["events"][0], "expression": EXPRESSION.replace("lat,", "lat || position.lat,"), "version": "2"}
    sender.use({**SOURCE, "events": [mended]})
    sent = sender.crm.post(path)
    assert (sent.status_code, sent.json()["state"]) == (200, "sent"), sent.text
    sender.crm.stack.deliver()
    assert [site["latitude"] for site in sender.sites] == [1.02]
    operation = sender.crm.get(f"/operations/{sent.json()['operation_id']}").json()
    assert (operation["state"], operation["mapping"]) == ("succeeded", "crm 2")
    assert sender.crm.post(path).status_code == 409
    assert "payload" not in json.dumps(rows("REQUESTS_TABLE"), default=str)
    assert counts(sender.send({**company(2), "lat": None, "position": {"lat": 1.02}})) == (0, 1, 0, 0)
    sender.crm.stack.deliver()
    assert len(sender.sites) == 1


def test_a_discarded_event_does_not_come_back(sender: Sender) -> None:
    bad = company(2, lat="north")
    sender.send(bad)
    (found,) = sender.quarantined()
    assert sender.crm.post(f"/requests/{found['id']}/discard").json()["state"] == "discarded"
    assert counts(sender.send(bad)) == (0, 1, 0, 0)
    assert sender.quarantined() == []
    assert sender.crm.post(f"/requests/{found['id']}/resend").status_code == 409


def test_the_payload_is_shown_to_those_who_may_see_it(sender: Sender) -> None:
    sender.send(company(2, lat="north"))
    (found,) = sender.quarantined()
    path = f"/requests/{found['id']}"
    shown = sender.crm.get(path).json()
    assert "payload" not in shown
    assert shown["shape"]["lat"] == "text"
    assert "north" not in json.dumps(shown)
    scopes = frozenset({"operations:read", "operations:payload"})
    sender.crm.headers = {"Authorization": f"Bearer {sender.crm.stack.add_key('demo', scopes, 'Ada')}"}
    assert sender.crm.get(path).json()["payload"] == company(2, lat="north")
    assert sender.crm.post(f"{path}/discard").status_code == 403


@pytest.mark.parametrize("how", [{"invalid": "refuse"}, {}])
def test_a_bad_event_is_refused_when_it_may_not_be_kept(sender: Sender, how: dict[str, str]) -> None:
    """Also with keep_requests_days 0: what may not be kept must not be answered as if it were accepted."""
    sender.use({**SOURCE, **how}, keep_requests_days=30 if how else 0)
    answer = sender.send(company(1), company(2, lat="north"))
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "latitude")
    sender.crm.stack.deliver()
    assert len(sender.sites) == 1
    kept = sender.crm.get("/requests").json()["requests"]
    assert [one["state"] for one in kept] == (["refused"] if how else [])


def test_a_quarantine_that_cannot_be_stored_lets_the_sender_repeat(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quarantine(*_: object) -> None:
        raise StorageError("no")

    monkeypatch.setattr(Requests, "quarantine", quarantine)
    assert sender.send(company(1), company(2, lat="north")).status_code == 503
    monkeypatch.undo()
    assert counts(sender.send(company(1), company(2, lat="north"))) == (0, 1, 1, 0)


def test_another_tenant_s_requests_are_not_there(sender: Sender) -> None:
    sender.send(company(2, lat="north"))
    (found,) = sender.quarantined()
    scopes = frozenset({"operations:read", "operations:resolve", "operations:payload"})
    sender.crm.headers = {"Authorization": f"Bearer {sender.crm.stack.add_key('demo-upya', scopes, 'other')}"}
    assert sender.quarantined() == []
    assert sender.crm.get("/requests?id=C-2").json()["requests"] == []
    for method, path in (("GET", ""), ("POST", "/resend"), ("POST", "/discard")):
        url = f"{sender.crm.stack.url}/requests/{found['id']}{path}"
        answer = sender.crm.session.request(method, url, headers=sender.crm.headers, timeout=60)
        assert answer.status_code == 404


# ---------------------------------------------------------------------- what was refused


def test_a_refused_request_is_found_by_the_id_that_it_carried(sender: Sender) -> None:
    answer = sender.crm.post("/jobs", {"ticket_id": "T-9", "customer_id": "C-404", "name": "Meter", "due_date": "soon"})
    assert answer.status_code == 422
    (found,) = sender.crm.get("/requests?id=T-9").json()["requests"]
    assert (found["route"], found["status"], found["state"]) == ("POST /jobs", 422, "refused")
    assert [error["field"] for error in found["errors"]] == ["due_date"]
    assert set(found["ids"]) == {"T-9", "C-404"}
    shown = sender.crm.get(f"/requests/{found['id']}").json()
    assert shown["shape"] == {"ticket_id": "text", "customer_id": "text", "name": "text", "due_date": "text"}
    assert "soon" not in json.dumps(rows("REQUESTS_TABLE"), default=str)


def test_requests_are_filtered_and_paged(sender: Sender) -> None:
    for number in range(3):
        sender.crm.post("/sites", {"customer_id": f"C-{number}"})
    sender.crm.get("/operations/op_0")
    page = sender.crm.get("/requests?route=POST%20/sites&limit=2").json()
    assert [one["ids"] for one in page["requests"]] == [["C-2"], ["C-1"]]
    rest = sender.crm.get(f"/requests?route=POST%20/sites&limit=2&after={page['next']}").json()
    assert ([one["ids"] for one in rest["requests"]], rest["next"]) == ([["C-0"]], None)
    assert [one["route"] for one in sender.crm.get("/requests?status=404").json()["requests"]] == [
        "GET /operations/{id}"
    ]
    assert sender.crm.get("/requests?to=2020-01-01T00:00:00Z").json()["requests"] == []
    assert len(sender.crm.get("/requests?from=2020-01-01T00:00:00Z&limit=9").json()["requests"]) == 4


def test_an_accepted_event_takes_no_write_of_requests(sender: Sender) -> None:
    sender.send(company(1))
    sender.crm.create_site(customer_id="C-8")
    assert rows("REQUESTS_TABLE") == []


def test_a_caller_notices_nothing_when_its_refusal_cannot_be_kept(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sender.crm.post("/sites", {"customer_id": "C-1"})

    def keep(*_: object) -> None:
        raise StorageError("no")

    monkeypatch.setattr(Requests, "keep", keep)
    answer = sender.crm.post("/sites", {"customer_id": "C-1"})
    assert (answer.status_code, body_of(answer)) == (expected.status_code, body_of(expected))


def test_who_is_throttled_or_unknown_leaves_nothing(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime().keys._buckets, "take", lambda _: 1.0)
    assert sender.crm.post("/sites", {}).status_code == 429
    sender.crm.headers = {"Authorization": "Bearer crmb_nobody"}
    assert sender.crm.post("/sites", {}).status_code == 401
    assert rows("REQUESTS_TABLE") == []


def test_requests_expire_when_the_tenant_says(sender: Sender) -> None:
    demo = json.loads(sender.crm.stack.demo_tenant())
    for days in (90, 1):
        sender.crm.stack.put_secret("demo", json.dumps({**demo, "keep_requests_days": days}))
        runtime().tenants.get("demo", "create_site", fresh=True)
        sender.crm.post("/sites", {})
        (one,) = [row for row in rows("REQUESTS_TABLE") if row["expires_at"] - row["received_at"] == days * 86400]
        assert one["state"] == "refused"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b'[{"kind": "company", "name": "\xff"}]'),
        ("application/json", b"{not json"),
        ("application/xml", b"<a/>"),
        ("text/plain", b"\x00\x01"),
    ],
)
def test_a_body_that_cannot_be_read_is_in_quarantine_once(sender: Sender, kind: str, body: bytes) -> None:
    """Its sender has proved itself, and may drop what is refused, or close the webhook for it."""

    def send() -> requests.Response:
        headers = {"x-api-key": SECRET, "Content-Type": kind}
        return sender.crm.session.post(f"{sender.crm.stack.url}/in/demo/crm", data=body, headers=headers, timeout=60)

    assert [counts(send()), counts(send())] == [(0, 0, 1, 0), (0, 1, 0, 0)]
    (kept,) = sender.quarantined()
    assert kept["status"] in (400, 415, 422)
    again = sender.crm.post(f"/requests/{kept['id']}/resend", {})
    assert again.status_code == 422, again.text
    assert sender.crm.post(f"/requests/{kept['id']}/discard", {}).status_code == 200
    assert sender.sites == []
    sender.use({**SOURCE, "invalid": "refuse"})
    assert send().status_code == kept["status"]


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

"""Webhooks end to end: who is told of what, once, also when the receiver is down, gone or not on the Internet."""

import ipaddress
import json
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
import requests
from botocore.exceptions import ReadTimeoutError
from cryptography import x509

from crm_bridge.errors import NotDoneError
from crm_bridge.outbound import public_addresses as public
from crm_bridge.outbound.response import VendorResponse
from crm_bridge.outbound.transport import Deadline, Transport
from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import operation_id
from crm_bridge.vendors.webhook import Webhook, WebhookSettings
from local.server import HOST
from local.stack import LOCAL_HOSTS, WEBHOOK_KEY, WEBHOOK_TENANT
from local.template import TEMPLATE
from local.vendors.simulator import Kind
from local.vendors.webhook import ReceiverSimulator
from tests.integration.conftest import SITE, Crm
from tests.integration.sockets import Vendor, answers, self_signed, trust
from tests.stack import Stack

LATER = {"Prefer": "respond-async"}
HOUR = 3600


@pytest.fixture
def receiver(stack: Stack) -> ReceiverSimulator:
    return stack.receiver


@pytest.fixture
def told(crm: Crm) -> Crm:
    """A CRM whose tenant is told."""
    crm.headers = {"Authorization": f"Bearer {WEBHOOK_KEY}"}
    return crm


def set_webhook(crm: Crm, **settings: object) -> None:
    """The tenant's secret has these settings from now on, and every function knows; without any, no webhook."""
    document = json.loads(crm.stack.webhook_tenant())
    document["webhook"] |= settings
    if not settings:
        del document["webhook"]
    crm.stack.put_secret(WEBHOOK_TENANT, json.dumps(document))
    cold(crm)


def cold(crm: Crm) -> None:
    """What comes next runs in a new execution environment."""
    runtime.cache_clear()
    crm.stack.move_clock(0)


def accepted(crm: Crm, customer_id: str = "C-1001") -> requests.Response:
    answer = crm.post("/sites", {**SITE, "customer_id": customer_id}, headers=LATER)
    assert answer.status_code == 202
    return answer


def work(crm: Crm, *, seconds: float = 60, times: int = 3) -> None:
    for _ in range(times):
        crm.stack.move_clock(seconds)
        crm.stack.deliver_due()


def events(receiver: ReceiverSimulator) -> list[tuple[str, str]]:
    return [(told["type"], told["data"]["event_key"]) for told in receiver.received.values()]


def webhooks(crm: Crm) -> list[dict[str, Any]]:
    """The operations that tell of others."""
    found: list[dict[str, Any]] = crm.get("/operations?flow=webhook").json()["operations"]
    return found


# ---------------------------------------------------------------- what is told


def test_is_told_what_the_api_shows_when_what_was_accepted_succeeded(told: Crm, receiver: ReceiverSimulator) -> None:
    location = accepted(told).headers["Location"]
    assert receiver.received == {}
    work(told)
    shown = told.get(location).json()
    assert shown.pop("candidates") == []  # are for the person who decides, who asks for them
    ((webhook_id, event),) = receiver.received.items()
    assert event == {"type": "operation.succeeded", "timestamp": shown["updated_at"], "data": shown}
    assert shown["result"]["site_id"] == 4711
    assert receiver.attempts == [webhook_id]
    (operation,) = webhooks(told)
    assert (operation["state"], operation["event_key"]) == ("succeeded", webhook_id)
    assert told.get(f"/operations/{operation['operation_id']}").json()["result"] == {"status": 204}


def test_is_told_when_what_was_accepted_is_refused(
    told: Crm, receiver: ReceiverSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(told.stack.illu, "longest_name", 5)
    accepted(told)
    work(told)
    ((event,),) = ([*receiver.received.values()],)
    assert (event["type"], event["data"]["state"], event["data"]["result"]) == ("operation.rejected", "rejected", None)
    assert event["data"]["last_attempt"]["event"] == "refused"


def test_is_told_when_an_answer_was_lost_and_what_it_did_is_found(told: Crm, receiver: ReceiverSimulator) -> None:
    told.stack.illu.fail(Kind.CLOSE_AFTER)
    assert told.create_site().status_code == 202
    work(told)
    assert events(receiver) == [("operation.succeeded", "C-1001")]
    assert [event["data"]["last_attempt"]["event"] for event in receiver.received.values()] == ["found"]


def in_review(crm: Crm) -> str:
    """The id of an operation that needs review at once: illu gives an id that is linked to another customer."""
    assert crm.create_site(customer_id="C-1").status_code == 201
    crm.stack.illu.next_id = 4711
    answer = crm.create_site(customer_id="C-2")
    assert (answer.status_code, answer.json()["state"]) == (202, "needs_review")
    for crm.stack.illu.next_id in range(4991, 5000):
        crm.stack.illu.add_site(**{name: SITE[name] for name in ("name", "latitude", "longitude", "address")})
    operation: str = answer.json()["operation_id"]
    return operation


@pytest.mark.parametrize(
    ("decision", "event"),
    [({"action": "link", "id": "4999"}, "operation.succeeded"), ({"action": "discard"}, "operation.rejected")],
)
def test_is_told_that_a_person_is_asked_and_what_the_person_decided(
    told: Crm, receiver: ReceiverSimulator, decision: dict[str, str], event: str
) -> None:
    operation = in_review(told)
    work(told)
    assert events(receiver) == [("operation.needs_review", "C-2")]
    assert told.post(f"/operations/{operation}/resolve", decision).status_code == 200
    work(told)
    assert events(receiver) == [("operation.needs_review", "C-2"), (event, "C-2")]


def test_is_told_what_came_of_it_when_a_person_let_it_be_sent_again(told: Crm, receiver: ReceiverSimulator) -> None:
    operation = in_review(told)
    told.stack.illu.next_id = 4800
    assert told.post(f"/operations/{operation}/resolve", {"action": "retry"}).status_code == 200
    work(told)
    assert sorted(events(receiver)) == [("operation.needs_review", "C-2"), ("operation.succeeded", "C-2")]


def test_is_told_each_time_when_an_event_settles_twice(
    told: Crm, receiver: ReceiverSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(told.stack.illu, "longest_name", 5)
        for _ in range(2):  # what was rejected may be sent again
            accepted(told)
            work(told)
    accepted(told)
    work(told)
    assert [event for event, _ in events(receiver)] == ["operation.rejected"] * 2 + ["operation.succeeded"]


def test_is_told_of_every_flow(told: Crm, receiver: ReceiverSimulator) -> None:
    accepted(told)
    work(told, times=1)
    link = {"system": "salesforce", "entity_type": "customer", "internal_id": 1015, "external_id": "001XX0000ABCDEF"}
    told.post("/jobs", {"ticket_id": "T-1", "customer_id": "C-1001", "name": "Meter"}, headers=LATER)
    told.post("/key-links", link, headers=LATER)
    status = told.stack.url + "/services/MAIL/status"
    told.session.put(status, json={"status": "outage"}, headers={**told.headers, **LATER}, timeout=60)
    work(told)
    flows = [(event["data"]["flow"], event["data"]["state"]) for event in receiver.received.values()]
    assert sorted(flows) == [
        (flow, "succeeded") for flow in ("create_job", "create_key_link", "create_site", "status_update")
    ]


# ---------------------------------------------------------------- what is not told


def test_is_not_told_what_the_caller_was_key_link_id(
    told: Crm, receiver: ReceiverSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told.create_site().status_code == 201
    assert told.create_site().status_code == 200
    monkeypatch.setattr(told.stack.illu, "longest_name", 5)
    assert told.create_site(customer_id="C-2").status_code == 422
    work(told)
    assert (receiver.seen, webhooks(told)) == ([], [])


def test_is_not_told_that_a_key_link_was_taken_back(told: Crm, receiver: ReceiverSimulator) -> None:
    link = {"system": "salesforce", "entity_type": "customer", "internal_id": 1015, "external_id": "001XX0000ABCDEF"}
    told.post("/key-links", link, headers=LATER)
    work(told)
    told.session.delete(f"{told.stack.url}/key-links/77", headers=told.headers, timeout=60).raise_for_status()
    work(told)
    assert [event["type"] for event in receiver.received.values()] == ["operation.succeeded"]


def test_nobody_is_told_when_the_tenant_names_no_address(crm: Crm, receiver: ReceiverSimulator) -> None:
    accepted(crm)
    work(crm)
    assert crm.stack.illu.sites
    assert (receiver.seen, webhooks(crm)) == ([], [])


def test_nobody_is_told_of_what_was_accepted_before_the_tenant_named_an_address(
    told: Crm, receiver: ReceiverSimulator
) -> None:
    set_webhook(told)
    accepted(told, "before")
    set_webhook(told, url=receiver.webhook_url)
    accepted(told, "after")
    work(told)
    assert events(receiver) == [("operation.succeeded", "after")]


def test_nobody_is_told_any_more_when_the_tenant_has_removed_its_address(
    told: Crm, receiver: ReceiverSimulator
) -> None:
    accepted(told)
    set_webhook(told)
    work(told)
    assert receiver.seen == []
    (operation,) = webhooks(told)
    assert operation["state"] == "rejected"
    assert "names no webhook address" in operation["last_attempt"]["reason"]


def test_another_tenant_does_not_see_what_was_told(told: Crm) -> None:
    accepted(told)
    work(told)
    (operation,) = webhooks(told)
    told.headers = {"Authorization": f"Bearer {told.stack.api_key}"}
    assert told.get(f"/operations/{operation['operation_id']}").status_code == 404


# ---------------------------------------------------------------- a receiver that fails


FAILURES: dict[str, Callable[[ReceiverSimulator], None]] = {
    **{
        kind.value: lambda receiver, kind=kind: receiver.fail(kind, times=100)  # type: ignore[misc]
        for kind in (Kind.UNAVAILABLE, Kind.TOO_MANY, Kind.ERROR_BEFORE, Kind.CLOSE_BEFORE, Kind.HTML)
    },
    **{
        str(status): lambda receiver, status=status: setattr(receiver, "refuses_with", status)  # type: ignore[misc]
        for status in (301, 302, 307, 308, 400, 401, 403, 404, 405, 422, 451, 501)
    },
}


OF_EACH_KIND = (Kind.UNAVAILABLE, Kind.TOO_MANY, Kind.CLOSE_BEFORE, Kind.HTML, "307", "401", "404")


@pytest.mark.parametrize("failure", FAILURES if os.environ.get("LONG") else OF_EACH_KIND)
def test_is_told_once_when_the_receiver_failed_for_hours(told: Crm, receiver: ReceiverSimulator, failure: str) -> None:
    FAILURES[failure](receiver)
    accepted(told)
    work(told)
    (operation,) = webhooks(told)
    assert operation["state"] == "waiting"
    work(told, seconds=HOUR / 2, times=6)
    assert len(receiver.seen) > 2
    assert {seen.path for seen in receiver.seen} == {"/webhooks"}  # no redirect was followed
    assert receiver.received == {}
    receiver.heal()
    receiver.refuses_with = None
    work(told, seconds=HOUR, times=6)
    assert events(receiver) == [("operation.succeeded", "C-1001")]
    assert receiver.attempts == [operation["event_key"]]
    assert told.get(f"/operations/{operation['operation_id']}").json()["state"] == "succeeded"


@pytest.mark.parametrize("kind", [Kind.CLOSE_AFTER, Kind.ERROR_AFTER])
def test_is_told_again_under_the_same_id_when_its_answer_was_lost(
    told: Crm, receiver: ReceiverSimulator, kind: Kind
) -> None:
    receiver.fail(kind, times=2)
    accepted(told)
    work(told, seconds=HOUR / 4, times=4)
    assert len(receiver.attempts) == 3
    assert len(set(receiver.attempts)) == len(receiver.received) == 1
    assert [operation["state"] for operation in webhooks(told)] == ["succeeded"]


def test_is_told_when_nothing_listened(told: Crm, receiver: ReceiverSimulator) -> None:
    receiver.stop()
    accepted(told)
    work(told)
    receiver.start()
    work(told, seconds=HOUR)
    assert events(receiver) == [("operation.succeeded", "C-1001")]


def test_waits_as_long_as_the_receiver_asks_for(told: Crm, receiver: ReceiverSimulator) -> None:
    receiver.fail(Kind.TOO_MANY, seconds=HOUR)
    accepted(told)
    work(told, seconds=HOUR / 4, times=4)  # the first of them is when it is told for the first time
    assert len(receiver.seen) == 1
    work(told, seconds=HOUR / 4, times=6)
    assert events(receiver) == [("operation.succeeded", "C-1001")]


def test_what_the_receiver_says_is_neither_read_nor_kept(told: Crm) -> None:
    with closing(Vendor(answers(200, b"x" * 10_000_000))) as chatty:
        set_webhook(told, url=f"http://{HOST}:{chatty.port}/webhooks")
        accepted(told)
        work(told)
        assert len(chatty.requests) == 1
    assert [operation["state"] for operation in webhooks(told)] == ["succeeded"]


def test_a_person_is_asked_when_all_tries_failed_and_can_let_it_be_told_again(
    told: Crm, receiver: ReceiverSimulator
) -> None:
    receiver.refuses_with = 500
    accepted(told)
    work(told, seconds=25 * HOUR, times=16)
    (operation,) = webhooks(told)
    assert (operation["state"], operation["last_attempt"]["event"]) == ("needs_review", "out of attempts")
    receiver.refuses_with = None
    linked = told.post(f"/operations/{operation['operation_id']}/resolve", {"action": "link", "id": "1"})
    assert linked.status_code == 409
    told.post(f"/operations/{operation['operation_id']}/resolve", {"action": "retry"}).raise_for_status()
    work(told)
    assert receiver.attempts == [operation["event_key"]]


# ---------------------------------------------------------------- a receiver that is gone


def test_nothing_more_is_sent_to_a_receiver_that_is_gone(
    told: Crm, receiver: ReceiverSimulator, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.refuses_with = 410
    for customer in ("C-1", "C-2"):
        accepted(told, customer)
    work(told)
    cold(told)
    accepted(told, "C-3")
    work(told, seconds=HOUR)
    assert len(receiver.seen) == 1
    assert [operation["state"] for operation in webhooks(told)] == ["rejected"] * 3
    assert capsys.readouterr().out.count("WebhookStopped") == 2  # the metric's name is twice in its line


def test_is_told_again_when_the_settings_of_a_receiver_that_was_gone_change(
    told: Crm, receiver: ReceiverSimulator
) -> None:
    receiver.refuses_with = 410
    accepted(told, "C-1")
    work(told)
    receiver.refuses_with = None
    set_webhook(told, url=f"{receiver.webhook_url}?again")
    accepted(told, "C-2")
    work(told)
    assert events(receiver) == [("operation.succeeded", "C-2")]


def test_another_tenants_receiver_is_not_gone(told: Crm, receiver: ReceiverSimulator) -> None:
    receiver.refuses_with = 410
    accepted(told)
    work(told)
    receiver.refuses_with = None
    told.stack.put_secret("umbrella", told.stack.webhook_tenant())
    key = told.stack.add_key("umbrella", frozenset({"create_site"}), "umbrella")
    told.headers = {"Authorization": f"Bearer {key}"}
    accepted(told, "theirs")
    work(told)
    assert events(receiver) == [("operation.succeeded", "theirs")]


# ---------------------------------------------------------------- neither lost nor made twice


class KilledError(BaseException):
    """Ends a function like a kill: nothing of ours catches it."""


def settling(monkeypatch: pytest.MonkeyPatch, *, written: bool) -> list[str]:
    """The next transaction's answer is lost, and so are those of its repetitions; it was `written` or not."""
    lost: list[str] = []
    client = runtime().operations._client
    real = client._make_api_call  # type: ignore[attr-defined]

    def call(name: str, arguments: dict[str, Any]) -> Any:
        if name != "TransactWriteItems" or lost:
            return real(name, arguments)
        lost.append(name)
        if written:
            real(name, arguments)
        raise ReadTimeoutError(endpoint_url="https://dynamodb.example")

    monkeypatch.setattr(client, "_make_api_call", call)
    return lost


@pytest.mark.parametrize("written", [True, False])
def test_is_told_once_when_nobody_knows_whether_it_was_settled(
    told: Crm, receiver: ReceiverSimulator, monkeypatch: pytest.MonkeyPatch, *, written: bool
) -> None:
    accepted(told)
    lost = settling(monkeypatch, written=written)
    work(told, times=6)
    assert lost
    assert len(told.stack.illu.sites) == 1
    assert events(receiver) == [("operation.succeeded", "C-1001")]
    assert len(receiver.attempts) == 1


@pytest.mark.parametrize("written", [True, False])
def test_is_not_answered_202_when_nobody_knows_whether_there_is_something_to_tell(
    told: Crm, receiver: ReceiverSimulator, monkeypatch: pytest.MonkeyPatch, *, written: bool
) -> None:
    settling(monkeypatch, written=written)
    answer = told.create_site()
    assert (answer.status_code, answer.headers["Retry-After"]) == (409, "2")
    work(told)
    assert told.create_site().status_code == 200
    assert events(receiver) == ([] if written else [("operation.succeeded", "C-1001")])
    assert len(told.stack.illu.sites) == 1


@pytest.mark.parametrize("heard", [True, False])
def test_is_told_under_the_same_id_when_whoever_told_it_was_killed(
    told: Crm, receiver: ReceiverSimulator, monkeypatch: pytest.MonkeyPatch, *, heard: bool
) -> None:
    real = Webhook.notify

    def notify(client: Webhook, webhook_id: str, body: bytes) -> VendorResponse:
        if heard:
            real(client, webhook_id, body)
        raise KilledError

    accepted(told)
    with monkeypatch.context() as patched:
        patched.setattr(Webhook, "notify", notify)
        with pytest.raises(KilledError):
            told.stack.deliver_due()
    assert len(receiver.attempts) == int(heard)
    work(told)
    assert events(receiver) == [("operation.succeeded", "C-1001")]
    assert (len(receiver.attempts), len(set(receiver.attempts))) == (1 + heard, 1)


def test_is_told_of_the_one_decision_when_two_people_decide_at_once(
    told: Crm,
    receiver: ReceiverSimulator,
    eager_switches: None,  # noqa: ARG001 - it works by being there
) -> None:
    operation = in_review(told)
    work(told)

    def decide(number: int) -> int:
        decision = {"action": "link", "id": str(4990 + number)} if number else {"action": "discard"}
        return told.post(f"/operations/{operation}/resolve", decision).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(decide, range(8)))
    assert statuses == [200] + [409] * 7
    work(told)
    decided = told.get(f"/operations/{operation}").json()["state"]
    assert [event for event, _ in events(receiver)] == ["operation.needs_review", f"operation.{decided}"]


def test_each_of_many_is_told_once_when_the_queue_brings_everything_twice(
    told: Crm, receiver: ReceiverSimulator
) -> None:
    for number in range(12):
        accepted(told, f"C-{number}")
    for _ in range(6):
        told.stack.move_clock(60)
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(told.stack.deliver_due) for _ in range(2)]:
                done.result()
    assert sorted(events(receiver)) == sorted(("operation.succeeded", f"C-{number}") for number in range(12))
    assert len(receiver.attempts) == 12


def test_what_is_told_is_written_with_what_it_tells_of_and_with_nothing_else(told: Crm) -> None:
    accepted(told)
    aws = told.stack.aws
    assert aws
    before = aws.calls.copy()
    (queue,) = (queue for queue in told.stack._queues if queue.function.package == "create_site")
    assert queue.deliver(wait=0)
    made = aws.calls - before
    assert made["DynamoDB_20120810.TransactWriteItems"] == 1
    assert made["DynamoDB_20120810.PutItem"] == 0
    assert [operation["state"] for operation in webhooks(told)] == ["waiting"]


# ---------------------------------------------------------------- who believes it


def test_only_what_is_signed_now_with_its_secret_is_believed(told: Crm, receiver: ReceiverSimulator) -> None:
    """The receiver that the other tests rest on: one wrong thing at a time."""
    (key,) = receiver.secrets
    settings = WebhookSettings.model_validate({"url": receiver.webhook_url, "secret": key}, context=LOCAL_HOSTS)
    signed: dict[str, str] = {}

    class Recorded(Transport):
        def call(self, *_: Any, headers: dict[str, str], **__: Any) -> VendorResponse:  # type: ignore[override]
            signed.update(headers)
            return VendorResponse("", 204, {}, b"", ())

    body = b'{"type": "operation.succeeded", "data": {"event_key": "C-1"}}'
    Webhook(settings, Recorded(), Deadline(20), runtime().clock).notify("op_1", body)

    def send(body: bytes = body, **changes: str) -> int:
        headers = {**signed, **{name.replace("_", "-"): value for name, value in changes.items()}}
        return requests.post(receiver.webhook_url, data=body, headers=headers, timeout=30).status_code

    before = str(int(signed["webhook-timestamp"]) - 1)
    for answered in (
        send(body + b" "),
        send(webhook_id="op_2"),
        send(webhook_timestamp=before),
        send(webhook_timestamp=""),
        send(webhook_signature="v1,"),
        send(webhook_signature=signed["webhook-signature"].replace("v1,", "v2,")),
    ):
        assert answered == 401
    assert send() == 204
    told.stack.move_clock(301)
    assert send() == 401


@pytest.mark.parametrize("believed", [0, 1])
def test_both_secrets_sign_while_the_receiver_goes_from_one_to_the_other(
    told: Crm, receiver: ReceiverSimulator, believed: int
) -> None:
    secrets = [receiver.secrets[0], "whsec_" + "YW5vdGhlci1zZWNyZXQtaHVzaC1odXNo"]
    set_webhook(told, secret=secrets[1], previous_secret=secrets[0])
    receiver.secrets = [secrets[believed]]
    accepted(told)
    work(told)
    assert len(receiver.received) == 1


def test_is_told_when_a_wrong_secret_was_corrected(told: Crm, receiver: ReceiverSimulator) -> None:
    set_webhook(told, secret="whsec_" + "YW5vdGhlci1zZWNyZXQtaHVzaC1odXNo")
    accepted(told)
    work(told)
    assert (receiver.received, [seen.status for seen in receiver.seen]) == ({}, [401, 401])
    set_webhook(told, secret=receiver.secrets[0])
    work(told, seconds=HOUR)
    assert events(receiver) == [("operation.succeeded", "C-1001")]


# ---------------------------------------------------------------- never to a private address


@pytest.mark.parametrize(
    "address",
    [
        *("https://127.0.0.1:{port}/", "https://localhost:{port}/", "https://2130706433:{port}/"),
        *("https://[::1]:{port}/", "https://[::ffff:127.0.0.1]:{port}/"),
        *("http://127.0.0.1:{port}/", "http://localhost:{port}/"),
    ],
)
def test_nothing_connects_to_this_machine_but_to_what_is_listed(
    told: Crm, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told.stack.open_hosts = frozenset({urlsplit(told.stack.illu.url).netloc})
    # The settings take it, as if the address had been found by a look-up.
    monkeypatch.setenv("LOCAL_HOSTS", ",".join([*LOCAL_HOSTS, "2130706433", "::1", "::ffff:127.0.0.1"]))
    with closing(Vendor(answers(204))) as private:
        set_webhook(told, url=address.format(port=private.port))
        accepted(told)
        work(told)
        assert private.connections == 0
    (operation,) = webhooks(told)
    assert operation["state"] == "waiting"
    assert "could not be reached" in operation["last_attempt"]["reason"]


def test_the_receiver_is_open_to_the_local_stack_only(told: Crm, receiver: ReceiverSimulator) -> None:
    assert Transport().on_this_machine == frozenset()
    told.stack.open_hosts = frozenset({urlsplit(told.stack.illu.url).netloc})
    accepted(told)
    work(told)
    assert receiver.seen == []


# ---------------------------------------------------------------- TLS, although the address is chosen before


class Internet:
    """`vendor.example` is a server on loopback, and loopback is public."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certified: str = "vendor.example") -> None:
        tls, trusted = self_signed(tmp_path, x509.DNSName(certified))
        self.vendor = Vendor(answers(204), tls=tls)
        self.asked: list[str] = []
        real = socket.getaddrinfo

        def look_up(host: str, *arguments: Any, **options: Any) -> Any:
            self.asked.append(host)
            return real(HOST if host == "vendor.example" else host, *arguments, **options)

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        monkeypatch.setattr(public, "is_public", lambda address: ipaddress.ip_address(address).is_loopback)
        self.transport = Transport()
        trust(self.transport._public, trusted, monkeypatch)

    def call(self) -> VendorResponse:
        return self.transport.call(
            "acme",
            "POST",
            f"https://vendor.example:{self.vendor.port}/told",
            deadline=Deadline(20),
            headers={"webhook-id": "1"},
            body=b"{}",
            max_response=None,
        )


@pytest.fixture
def internet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Internet]:
    internet = Internet(tmp_path, monkeypatch)
    yield internet
    internet.vendor.close()


def test_the_certificate_is_checked_against_the_name_and_the_name_is_looked_up_once(internet: Internet) -> None:
    assert internet.call().status == 204
    assert internet.asked == ["vendor.example", HOST]  # then the address itself, which asks nobody
    assert internet.vendor.headers()["host"] == f"vendor.example:{internet.vendor.port}"


def test_nothing_is_sent_when_the_certificate_is_for_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    internet = Internet(tmp_path, monkeypatch, certified="another.example")
    with pytest.raises(NotDoneError, match="SSLError"):
        internet.call()
    internet.vendor.close()
    assert internet.vendor.requests == []


# ---------------------------------------------------------------- what is kept, and the docs


def test_what_told_keeps_no_payload_and_expires(told: Crm) -> None:
    accepted(told)
    work(told)
    table = boto3.resource("dynamodb").Table(os.environ["OPERATIONS_TABLE"])
    (row,) = (row for row in table.scan()["Items"] if row["flow"] == "webhook")
    assert "payload" not in row
    assert "expires_at" in row


def test_the_example_in_the_docs_is_what_is_told(told: Crm, receiver: ReceiverSimulator) -> None:
    section = (TEMPLATE.parent / "docs/api.md").read_text().partition("\n## Webhooks")[2].partition("\n## ")[0]
    example = json.loads(section.partition("```json\n")[2].partition("\n```")[0])
    told.stack.illu.fail(Kind.UNAVAILABLE)
    assert told.create_site().status_code == 202
    work(told)
    (event,) = receiver.received.values()
    assert set(event) == set(example)
    assert set(event["data"]) == set(example["data"])
    assert event["type"] == example["type"]
    assert event["data"]["operation_id"] == operation_id(WEBHOOK_TENANT, "create_site", "C-1001")
    for name in ("flow", "event_key", "state", "result", "links"):
        assert event["data"][name] == example["data"][name]

"""Nothing that tenants share is used up, poisoned or slowed by one of them."""

import json
import os
import sys
import time
from collections.abc import Callable

import pytest

from crm_bridge.outbound.breaker import FAILURES
from crm_bridge.runtime import runtime
from crm_bridge.vendors import PART_OF
from local.stack import SCOPES, WEBHOOK_KEY
from local.vendors.simulator import Kind
from local.vendors.webhook import ReceiverSimulator
from tests.cases import CASES
from tests.integration.conftest import SITE, Crm, change_settings, cold
from tests.integration.test_events import invoke
from tests.memory_aws import quick_stack
from tests.stack import Stack

OTHER = "other"


@pytest.fixture
def other(crm: Crm) -> Crm:
    """A second tenant with the same accounts at the vendors."""
    crm.stack.put_secret(OTHER, crm.stack.demo_tenant())
    return crm.with_key(*SCOPES, tenant=OTHER)


# ---------------------------------------------------------------------- the breaker


def test_a_tenant_whose_organisation_fails_holds_nobody_else_back(crm: Crm, other: Crm) -> None:
    crm.stack.illu.fail(Kind.ERROR_BEFORE, times=FAILURES)
    for number in range(FAILURES):
        assert crm.create_site(customer_id=f"C-{number}", name=f"Shop {number}").status_code == 202
    held_back = crm.create_site(customer_id="C-8", name="Shop 8")
    assert (held_back.status_code, held_back.json()["reason"]) == (202, "illu is down, so it was not tried")
    assert other.create_site(customer_id="C-9", name="Shop 9").status_code == 201


# ---------------------------------------------------------------------- the limit of a key


@pytest.fixture
def limited(crm: Crm) -> None:
    """A key may send three requests at once, and then one in 1000 seconds."""
    os.environ |= {"KEY_RATE": "0.001", "KEY_BURST": "3"}  # until the stack ends
    cold(crm.stack)


@pytest.mark.usefixtures("limited")
def test_a_loop_of_one_key_is_slowed_and_no_other_key(crm: Crm, other: Crm) -> None:
    statuses = [crm.create_site(customer_id=f"C-{number}").status_code for number in range(6)]
    assert statuses == [201, 201, 201, 429, 429, 429]
    assert len(crm.stack.illu.sites) == 3  # nothing of what is refused is kept or sent
    assert other.create_site(customer_id="C-9").status_code == 201
    assert len(crm.with_key("operations:read").get("/operations").json()["operations"]) == 3
    refused = crm.create_site(customer_id="C-5")
    assert refused.json()["retryable"] is True
    crm.stack.move_clock(int(refused.headers["Retry-After"]))
    assert crm.create_site(customer_id="C-5").status_code == 201


@pytest.mark.usefixtures("limited")
def test_the_connector_is_asked_in_its_language_to_send_again(crm: Crm) -> None:
    for _ in range(3):
        crm.get("/connector/clubs/k-3/staff")
    answer = crm.post("/connector/clubs/k-3/prospects", headers={"Accept": "application/xml"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (429, "application/problem+xml; charset=utf-8")
    assert "Send the same request again" in answer.text


# ---------------------------------------------------------------------- caches


def test_names_at_revio_are_neither_read_nor_set_by_another_tenant_of_the_same_client_code(
    crm: Crm, other: Crm
) -> None:
    link = {"system": "SALESFORCE", "entity_type": "CUSTOMER", "internal_id": 1015, "external_id": "001-A"}
    assert crm.post("/key-links", link).status_code == 201
    change_settings(other.stack, OTHER, revio={"password": "not-the-password"})
    answer = other.get("/key-links/systems")
    assert answer.status_code == 503, answer.text
    assert "SALESFORCE" not in answer.text
    change_settings(
        other.stack, OTHER, revio={"base_url": f"{crm.stack.illu.url}/v1"}
    )  # an address of its own, with its own answers
    cold(crm.stack)
    assert other.get("/key-links/systems").status_code >= 500
    assert "SALESFORCE" in crm.get("/key-links/systems").text


def test_whatever_a_function_remembers_is_of_one_tenant_and_one_version_of_its_secret(stack: Stack, other: Crm) -> None:
    """Everything that the functions keep in memory between two events, after all events that there are."""
    for event, _, _ in CASES:
        invoke(stack, event)
    assert other.create_site().status_code == 201
    assert other.get("/key-links/systems").status_code == 200
    stack.illu.fail(Kind.ERROR_BEFORE)
    assert other.create_site(customer_id="C-2").status_code == 202
    made = runtime()
    names, get = ("demo", OTHER), made.engine.tenants.get
    versions = {(name, get(name, flow).version) for name in names for flow in PART_OF}

    remembered = list(made.cache._known)
    assert {scope.tenant for scope, _ in remembered} == {*names}
    assert {(scope.tenant, scope.version) for scope, _ in remembered} <= versions
    paces = list(made.transport._begun)
    assert {tenant for tenant, _ in paces} == {*names}
    failing = [tenant for by_tenant in made.transport._breaker._failing.values() for tenant in by_tenant]
    assert failing == [OTHER]
    tokens = list(made.tokens._remembered)
    assert tokens
    assert all(
        any(key.startswith(f"{name}#") and key.endswith(version) for name, version in versions) for key in tokens
    )


# ---------------------------------------------------------------------- a slow receiver


WEBHOOKS, TAKES = 60, 3.0


def test_a_webhook_does_not_wait_for_those_to_anothers_slow_receiver() -> None:
    """With all workers and queues in the background, and in real time. What is counted: how many of the other tenant's
    are notified while it waits; as many may be on their way as there are workers but one.
    """
    with quick_stack(background=True) as stack:
        quick = ReceiverSimulator()
        quick.start()
        try:
            slow_tenant, tenant = Crm(stack), Crm(stack)
            slow_tenant.headers = {"Authorization": f"Bearer {WEBHOOK_KEY}"}
            document = json.loads(stack.webhook_tenant())
            document["webhook"]["url"] = quick.webhook_url
            stack.put_secret(OTHER, json.dumps(document))
            tenant.headers = {"Authorization": f"Bearer {stack.add_key(OTHER, SCOPES, 'other')}"}
            alone = seconds_until_notified(tenant, quick, "C-ALONE")
            stack.receiver.fail(Kind.DELAY, times=WEBHOOKS, seconds=TAKES)
            for number in range(WEBHOOKS):
                accept(slow_tenant, f"C-{number}")
            until(lambda: len(stack.illu.sites) > WEBHOOKS)  # what is left are webhooks
            before = len(stack.receiver.seen)
            beside = seconds_until_notified(tenant, quick, "C-BESIDE")
            meanwhile = len(stack.receiver.seen) - before
            sys.stderr.write(f"{alone:.2f} s alone, {beside:.2f} s beside {WEBHOOKS}, {meanwhile} of which were sent\n")
            assert len(stack.receiver.seen) < WEBHOOKS
            assert meanwhile <= runtime().queues.workers["webhook"] - 1
        finally:
            quick.stop()


def accept(crm: Crm, customer: str) -> None:
    site = {**SITE, "customer_id": customer, "name": customer}
    assert crm.post("/sites", site, headers={"Prefer": "respond-async"}).status_code == 202


def seconds_until_notified(crm: Crm, receiver: ReceiverSimulator, customer: str) -> float:
    """Return the seconds from its acceptance until the receiver is notified."""
    begun = time.monotonic()
    accept(crm, customer)
    until(lambda: any(one["data"]["event_key"] == customer for one in receiver.received.values()))
    return time.monotonic() - begun


def until(is_so: Callable[[], bool]) -> None:
    for _ in range(12_000):
        if is_so():
            return
        time.sleep(0.01)
    raise AssertionError("not within two minutes")

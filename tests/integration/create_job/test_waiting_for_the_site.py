"""A job waits for its site."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from create_site.flow import CreateSite
from crm_bridge.outbound.transport import Deadline
from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import operation_id
from local.vendors.simulator import Kind
from tests.integration.conftest import ROUNDS, Crm, without_site_list
from tests.integration.create_job.conftest import DETAILS, create_job

# ---------------------------------------------------------------- a job that waits for its site


def minutes_until_done(crm: Crm, accepted: requests.Response) -> int:
    """Simulated minutes, with the dispatcher in each, until a job is made."""
    for minute in range(60):
        if crm.get(accepted.headers["Location"]).json()["state"] == "succeeded":
            return minute
        crm.stack.deliver_due(after=60)
    raise AssertionError("it waits for more than an hour")


def late_site(crm: Crm, *, attempts: int) -> requests.Response:
    """A site that is not there yet, and several attempts of illu's away."""
    crm.stack.illu.fail(Kind.TOO_MANY, times=attempts, seconds=0)
    return crm.create_site()


@pytest.mark.parametrize("attempts", [2, 3])
def test_a_job_is_made_in_the_minute_after_its_site(crm: Crm, attempts: int) -> None:
    site = late_site(crm, attempts=attempts)
    crm.stack.move_clock(25)
    job = create_job(crm)
    assert job.json()["state"] == "waiting"
    assert crm.settle(site)["state"] == "succeeded"
    assert crm.get(job.headers["Location"]).json()["state"] in ("waiting", "succeeded")
    assert minutes_until_done(crm, job) <= 1
    assert len(crm.stack.illu.jobs) == 1


def test_a_job_that_brought_its_site_along_is_made_in_the_minute_after_it(crm: Crm) -> None:
    crm.stack.illu.fail(Kind.TOO_MANY, times=3, seconds=0)
    job = create_job(crm, site=DETAILS)
    site = crm.get(f"/operations/{operation_id('demo', 'create_site', 'C-1001')}")
    while crm.get(f"/operations/{site.json()['operation_id']}").json()["state"] != "succeeded":
        crm.stack.deliver_due(after=60)
    assert minutes_until_done(crm, job) <= 1
    assert (len(crm.stack.illu.sites), len(crm.stack.illu.jobs)) == (1, 1)


@pytest.mark.parametrize("decision", [{"action": "link", "id": "4711", "confirmed": True}, {"action": "retry"}])
def test_a_job_is_made_in_the_minute_after_a_person_decided_about_its_site(
    crm: Crm, decision: dict[str, object]
) -> None:
    without_site_list(crm.stack)
    crm.stack.illu.fail(Kind.CLOSE_AFTER)
    site = crm.create_site()
    job = create_job(crm)
    assert crm.settle(site)["state"] == "needs_review"
    for _ in range(30):
        crm.stack.deliver_due(after=60)
    crm.post(f"{site.headers['Location']}/resolve", decision)
    crm.stack.deliver_due()
    assert minutes_until_done(crm, job) <= 1
    assert len(crm.stack.illu.jobs) == 1


def test_each_of_several_jobs_is_made_in_the_minute_after_their_site(crm: Crm) -> None:
    site = late_site(crm, attempts=3)
    jobs = [create_job(crm, ticket_id=f"T-{number}") for number in range(5)]
    assert crm.settle(site)["state"] == "succeeded"
    assert max(minutes_until_done(crm, job) for job in jobs) <= 1
    assert len(crm.stack.illu.jobs) == 5


def test_another_customers_job_goes_on_as_it_would_have(crm: Crm) -> None:
    crm.create_site(customer_id="C-other")
    crm.stack.illu.fail(Kind.MOVED, times=2)  # surely not done, so nothing is looked for
    other = create_job(crm, ticket_id="T-other", customer_id="C-other")
    site = crm.create_site()
    due_at = crm.get(other.headers["Location"]).json()["due_at"]
    job = create_job(crm)
    crm.stack.illu.heal()
    engine = runtime().engine
    operation = site.json()["operation_id"]
    stored = runtime().operations.get(operation)
    assert stored
    engine.make_due(stored, by="a test", due_at=int(runtime().clock()))
    engine.retry({CreateSite.name: CreateSite}, operation, tenant="demo", deadline=Deadline(20))
    assert crm.get(f"/operations/{operation}").json()["state"] == "succeeded"
    assert crm.get(other.headers["Location"]).json()["due_at"] == due_at
    crm.stack.deliver()  # without the dispatcher
    assert crm.get(job.headers["Location"]).json()["state"] == "succeeded"
    assert crm.get(other.headers["Location"]).json()["due_at"] == due_at


def test_nothing_is_lost_when_a_job_and_its_site_settle_at_once(
    crm: Crm,
    eager_switches: None,  # noqa: ARG001 - it works by being there
) -> None:
    for number in range(ROUNDS):
        customer, crm.stack.illu.search_lag = f"C-{number}", 0

        def both(send: bool, customer: str = customer, number: int = number) -> requests.Response:
            site = crm.create_site(customer_id=customer, name=customer) if send else None
            return site or create_job(crm, ticket_id=f"T-{number}", customer_id=customer, site=None)

        with ThreadPoolExecutor(2) as pool:
            _, job = pool.map(both, (True, False))
        if job.status_code == 202:
            assert minutes_until_done(crm, job) <= 1
    assert len(crm.stack.illu.sites) == ROUNDS

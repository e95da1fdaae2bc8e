"""The work of a support person at night: see what was sent and what came back, and retry what waits."""

import time

from selenium.webdriver import Chrome

from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import State
from local.vendors.simulator import Kind
from tests.browser.conftest import Console, Tenant
from tests.browser.test_tasks import READER, SUPPORT, refreshed, shown
from tests.integration.operations.conftest import store
from tests.stack import Stack


def test_a_waiting_event_is_retried_at_once(console: Console, stack: Stack, tenant: Tenant) -> None:
    stack.illu.fail(Kind.BAD_KEY)
    operation = tenant.create_site().json()["operation_id"]
    console.sign_in(stack.add_key(tenant.name, SUPPORT, "Ada, support"), show=operation)
    assert [button.text for button in console.all("[id^=decide-]")] == ["Retry now …"]
    console("#decide-retry").click()
    assert "within about a minute instead of at the time above" in console("#confirm-what").text
    console("#confirm-no").click()
    assert [one.event for one in runtime().operations.get(operation).attempts] == ["not done"]  # type: ignore[union-attr]
    console("#decide-retry").click()
    console("#confirm-yes").click()
    console.says("The bridge takes it up within about a minute.")
    assert console("#decided").text.startswith("Made due by Ada, support, ")
    stack.deliver()
    refreshed(console)
    console.until(lambda: console("#state").text == "Succeeded")
    assert len(stack.illu.sites) == 1


def test_the_page_says_that_the_bridge_looks_first_when_the_event_may_be_done(console: Console, tenant: Tenant) -> None:
    tenant.stack.illu.fail(Kind.CLOSE_AFTER)
    operation = tenant.create_site().json()["operation_id"]
    console.sign_in(tenant.key, show=operation)
    console("#decide-retry").click()
    assert "sends only what is not there" in console("#confirm-what").text
    console("#confirm-no").click()


def test_an_outage_is_seen_and_when_it_has_ended_all_that_waits_is_retried(console: Console, tenant: Tenant) -> None:
    stack = tenant.stack
    stack.illu.fail(Kind.UNAVAILABLE, times=3, seconds=3000)
    waiting = {tenant.create_site(customer_id=f"C-{number}").json()["operation_id"] for number in range(3)}
    console.sign_in(tenant.key)
    assert "illu is failing" in console("#attention").text
    console("#only-waiting").click()
    console.finds(3)
    console.open_retry_all()
    assert {row.get_attribute("data-retry") for row in console.all("#bulk-list li")} == waiting
    assert console("#bulk-title").text == "Retry 3 operations"
    assert not console("#bulk-ask").is_displayed()  # it harms nobody, so nothing has to be typed
    console("#bulk-no").click()
    stack.deliver_due()
    assert stack.illu.sites == []
    console.open_retry_all()
    console("#bulk-yes").click()
    console.until(lambda: "3 operations are due now." in console("#bulk-said").text)
    assert {row.text for row in console.all("#bulk-list li div")} == {"Due now."}
    console("#bulk-no").click()
    for _ in range(
        3
    ):  # illu may have done them although it said no, so they are looked for, until the search lag is over
        stack.deliver_due()
        stack.move_clock(120)
    refreshed(console)
    console.until(lambda: console("#count").text == "0 found")
    console.until(lambda: "illu is failing" not in console("#attention").text)
    assert len(stack.illu.sites) == 3


def test_only_those_that_match_the_filters_are_retried_also_more_than_a_page(console: Console, tenant: Tenant) -> None:
    now = int(time.time())
    made = [store(f"A-{n}", State.WAITING, at=now, due_at=now + 9000 + n) for n in range(103)]
    other = store("B-1", State.WAITING, at=now, due_at=now + 9000)
    console.sign_in(tenant.key)
    console.go("state=waiting&text=a-")
    console.until(lambda: len(shown(console)) > 0)
    console.open_retry_all()
    assert console("#bulk-title").text == "Retry all that match"
    console("#bulk-yes").click()
    console.until(lambda: "103 operations are due now." in console("#bulk-said").text)
    console("#bulk-no").click()
    stored = runtime().operations.many([*made, other])
    assert {one for one in stored if (stored[one].due_at or 0) < now + 9000} == set(made)


def test_nothing_to_retry_is_said(console: Console, tenant: Tenant) -> None:
    now = int(time.time())
    store("C-1", State.WAITING, at=now - 600, due_at=now - 60)
    console.sign_in(tenant.key)
    console.go("state=waiting")
    console.finds(1)
    console("#retry-all").click()
    console.says("Nothing that matches waits for a later time.")


def test_a_key_that_may_only_look_has_no_button_to_retry(console: Console, stack: Stack, tenant: Tenant) -> None:
    stack.illu.fail(Kind.UNAVAILABLE, seconds=600)
    operation = tenant.create_site().json()["operation_id"]
    console.sign_in(stack.add_key(tenant.name, READER, "another"))
    console.go("state=waiting")
    console.finds(1)
    assert not console("#retry-all").is_displayed()
    console.show(operation)
    assert console.all("[id^=decide-]") == []
    assert "needs the scope operations:resolve" in console("#may-not-decide").text


def test_each_attempt_shows_its_calls_request_and_response(
    console: Console, stack: Stack, tenant: Tenant, browser: Chrome
) -> None:
    stack.illu.fail(Kind.ERROR_BEFORE)
    operation = tenant.create_site().json()["operation_id"]
    stack.illu.fail(Kind.ERROR_BEFORE, method="GET")
    stack.deliver_due(after=600)
    console.sign_in(stack.add_key(tenant.name, SUPPORT, "Ada, support"), show=operation)
    summaries = [one.text for one in console.all(".attempt summary")]
    assert ["Look failed" in summaries[0], "Maybe done" in summaries[1]] == [True, True]  # the latest first
    assert "POST /orgs/88/sites: 500, " in summaries[1]
    console("[data-attempt='1'] summary").click()
    console.until(lambda: console("[data-attempt='1'] [data-body=request]").is_displayed())
    assert '"address": "Moi Ave 12"' in console("[data-attempt='1'] [data-body=request]").text
    assert console("[data-attempt='1'] [data-body=response]").text
    stack.deliver_due(after=3600)
    refreshed(console)
    console.until(lambda: console("#state").text == "Succeeded")
    assert console("[data-attempt='1'] [data-body=request]").is_displayed()  # what was opened stays so
    console("#sign-out").click()
    assert "Moi Ave 12" not in browser.page_source


def test_bodies_are_hidden_from_a_key_without_the_scope(console: Console, stack: Stack, tenant: Tenant) -> None:
    stack.illu.fail(Kind.ERROR_BEFORE)
    operation = tenant.create_site().json()["operation_id"]
    console.sign_in(stack.add_key(tenant.name, READER, "another"), show=operation)
    console(".attempt summary").click()
    console.until(lambda: "only a key with the scope operations:payload" in console(".attempt").text)
    assert console.all("[data-body]") == []
    assert "Moi Ave" not in console.browser.page_source


def test_the_requests_with_the_same_id_are_on_the_same_page(console: Console, tenant: Tenant) -> None:
    assert tenant.create_site(latitude="north").status_code == 422
    operation = tenant.create_site().json()["operation_id"]
    console.sign_in(tenant.key, show=operation)
    console.until(lambda: console.all("#origins li"))
    row = console("#origins li")
    assert ["422 invalid" in row.text, "latitude" in row.text, "It carried the same id." in row.text] == [True] * 3
    request = row.get_attribute("data-request")
    console("#origins a").click()
    console.until(lambda: console.all(f"#refused [data-request={request}]"))

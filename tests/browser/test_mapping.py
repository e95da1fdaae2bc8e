"""The console's view of mappings: what one makes of a payload, before anything is stored or sent."""

import json
from urllib.parse import urlsplit

import pytest
import requests
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.support.ui import Select

from crm_bridge.runtime import runtime
from tests.browser.chromium import complaints
from tests.browser.conftest import Console, Tenant
from tests.stack import Stack

COMPANY = {
    "type": "company",
    "hs_object_id": "4243",
    "name": "Shop 43",
    "address": "Moi Ave",
    "latitude": "1.5",
    "lon": "35.5",
}
"""As the demo tenant's source hubspot takes it, but for the name of the longitude."""
STORED_AT = "2026-11-30T08:00:00+00:00"
READER = frozenset({"operations:read"})


@pytest.fixture
def expression(stack: Stack) -> str:
    """The expression of the demo tenant's source, of which is known since when it is active."""
    document = json.loads(stack.demo_tenant())
    (entry,) = document["sources"]["hubspot"]["events"]
    entry["stored_at"] = STORED_AT
    stack.put_secret(stack.tenant_name, json.dumps(document))
    runtime.cache_clear()
    stack.move_clock(0)
    found: str = entry["expression"]
    return found


def quarantine(stack: Stack) -> str:
    """Return the id of an event in quarantine."""
    headers = {"x-api-key": "hubspot-demo-secret-for-this-machine-only"}
    sent = requests.post(f"{stack.url}/in/demo/hubspot", json=COMPANY, headers=headers, timeout=60)
    assert sent.json()["quarantined"] == 1
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    found: str = requests.get(f"{stack.url}/requests", headers=headers, timeout=60).json()["requests"][0]["id"]
    return found


def sign_in(console: Console, stack: Stack, *scopes: str) -> None:
    console.sign_in(stack.add_key(stack.tenant_name, READER | set(scopes), "somebody"))


def test_an_event_in_quarantine_is_tried_until_the_expression_is_right(
    console: Console, stack: Stack, expression: str
) -> None:
    request = quarantine(stack)
    sign_in(console, stack, "operations:payload")
    console("#wanted").send_keys("4243", Keys.ENTER)
    console.finds(1)
    console("#refused a").send_keys(Keys.ENTER)
    console.until(lambda: console("#try-payload").get_attribute("value"))
    assert json.loads(console("#try-payload").get_attribute("value") or "") == COMPANY
    assert request in console("#try-from").text
    assert console("#try-expression").get_attribute("value") == expression
    console.try_out(json.dumps(COMPANY))
    assert console("#try-title").text == "Not a valid command"
    assert [one.text for one in console.all("#try-errors li")] == ["longitude is required"]
    console.try_out(json.dumps(COMPANY), expression.replace("longitude)", "lon)"))
    assert console("#try-title").text == "A valid command for create site"
    assert json.loads(console("#try-command").text)["longitude"] == 35.5
    assert [cell.text for cell in console.all("#try-differences td")] == ["longitude", "nothing", "35.5"]
    assert console("#try-not-read").text == "Not read: type"
    assert console("#try-command-line").text == (
        f"crm-bridge mapping set demo hubspot/0 expression.jmes --local --port {urlsplit(console.address).port}"
    )
    assert console("#try-resend").text.startswith(f"crm-bridge requests demo {request} resend --local")
    assert "Nothing was stored" in console("#try-store").text
    assert stack.illu.sites == []


def test_the_failing_function_and_its_place_are_named(console: Console, stack: Stack, expression: str) -> None:  # noqa: ARG001
    sign_in(console, stack)
    console.go("mapping")
    console.until(lambda: console("#try-active").text)
    console.try_out(json.dumps(COMPANY), "{name: join(' ', [missing])}")
    assert console("#try-title").text == "No command"
    assert [one.text for one in console.all("#try-errors li")] == [
        "the expression join() takes list of texts, and got null",
        "line 1, column 8 join(' ', [missing])}",
    ]
    console.try_out(json.dumps(COMPANY), "{name: name, adress: address}")
    assert 'adress Unknown field "adress". Did you mean "address"?' in console("#try-errors").text
    console.try_out("{no json")
    assert "The payload is not JSON" in console("#try-result").text
    assert not console.all("#try-command-line")


def test_it_says_since_when_a_version_is_active_and_what_cannot_be_read(
    console: Console, stack: Stack, expression: str
) -> None:
    sign_in(console, stack)
    console("#mappings").click()
    console.until(lambda: "Version 1 is active since" in console("#try-active").text)
    assert "2026" in console("#try-active").text
    assert expression == console("#try-expression").get_attribute("value")
    Select(console("#try-mapping")).select_by_value("create_site")
    console.until(lambda: "There is no mapping yet" in console("#try-active").text)
    assert console("#try-expression").get_attribute("value") == ""
    Select(console("#try-mapping")).select_by_value("status_update")
    console.until(lambda: "crm-bridge mapping show demo status_update" in console("#try-active").text)


def test_a_key_without_the_scope_for_payloads_gets_kinds_in_place_of_values(
    console: Console,
    stack: Stack,
    expression: str,  # noqa: ARG001
) -> None:
    request = quarantine(stack)
    sign_in(console, stack)
    console.go(f"mapping/{request}")
    console.until(lambda: console("#try-payload").get_attribute("value"))
    assert json.loads(console("#try-payload").get_attribute("value") or "") == dict.fromkeys(COMPANY, "text")
    assert "operations:payload" in console("#try-from").text


def test_a_long_number_arrives_as_it_was_typed(console: Console, stack: Stack, tenant: Tenant) -> None:  # noqa: ARG001
    sign_in(console, stack)
    console.go("mapping")
    console.until(lambda: console("#try-active").text)
    Select(console("#try-mapping")).select_by_value("create_site")
    console.try_out('{"id": 12345678901234567890}', "{customer_id: to_string(id)}")
    assert '"customer_id": "12345678901234567890"' in console("#try-command").text


def test_what_was_typed_stays_through_a_refresh_and_is_gone_after_signing_out(
    console: Console,
    stack: Stack,
    expression: str,  # noqa: ARG001
) -> None:
    sign_in(console, stack, "operations:payload")
    console.go("mapping")
    console.until(lambda: console("#try-active").text)
    console.try_out('{"name": "Wanjiru"}', "{name: name}")
    console("#refresh").click()
    console.says("Up to date.")
    assert console("#try-payload").get_attribute("value") == '{"name": "Wanjiru"}'
    assert console("#try-expression").get_attribute("value") == "{name: name}"
    console("#try-payload").send_keys(Keys.ESCAPE)
    assert console("#mapping").is_displayed()
    console("#sign-out").click()
    assert not console("#mapping").is_displayed()
    assert "Wanjiru" not in console.browser.page_source
    assert console("#try-payload").get_attribute("value") == ""


def test_what_is_made_is_shown_as_text_and_never_as_markup(
    console: Console,
    stack: Stack,
    browser: Chrome,
    expression: str,  # noqa: ARG001
) -> None:
    sign_in(console, stack)
    console.go("mapping")
    console.until(lambda: console("#try-active").text)
    markup = "<img src=x onerror=alert(1)>"
    console.try_out(json.dumps({"name": markup, markup: 1}), "{name: name}")
    assert markup in console("#try-command").text
    assert markup in console("#try-not-read").text
    assert console.all("#mapping img") == []
    assert complaints(browser) == []


def test_events_in_quarantine_are_found_by_their_time(console: Console, tenant: Tenant) -> None:
    request = quarantine(tenant.stack)
    console.sign_in(tenant.key)
    console.browser.execute_script("location.hash = 'state=quarantined&since=24h'")
    console.finds(1)
    assert [row.get_attribute("data-request") for row in console.all("#refused li")] == [request]

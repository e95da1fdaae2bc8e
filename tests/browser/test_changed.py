"""The console shows events whose later payload was not applied."""

from selenium.webdriver.support.ui import Select

from tests.browser.conftest import Console, Tenant


def test_events_whose_later_payload_was_not_applied_are_found_by_a_filter_with_an_address(
    console: Console, tenant: Tenant
) -> None:
    operations = [tenant.create_site(customer_id=one).json()["operation_id"] for one in ("C-1", "C-2")]
    tenant.create_site(customer_id="C-1", address="Moi Ave 13")
    console.sign_in(tenant.key)
    Select(console("#changed")).select_by_visible_text("Not applied")
    console.finds(1)
    assert console.browser.current_url.endswith("#changed=true")
    assert "Different payload not applied" in console(f"[data-operation={operations[0]}]").text
    console.show(operations[0])
    shown = console("#not-applied").text
    assert "came 1 time" in shown
    assert "Change the site at illu." in shown
    console.go("changed=true&flow=create_job")
    console.until(lambda: "a different payload that was not applied" in console("#none").text)
    console.go("changed=maybe")
    console.until(lambda: "There is no such page" in console("#detail").text)


def test_an_event_that_did_not_differ_says_nothing_of_later_payloads(console: Console, tenant: Tenant) -> None:
    operation = tenant.create_site().json()["operation_id"]
    console.sign_in(tenant.key, show=operation)
    assert console.all("#not-applied") == []

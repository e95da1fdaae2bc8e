"""The tasks of the people who look after the bridge, done with the console in a real browser."""

import csv
import json
import re
import time
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.support.ui import Select

from cli.cells import escaped, unescaped
from crm_bridge.storage.operation import State
from local.vendors.alterations import ALTERATIONS
from local.vendors.simulator import Kind
from tests.browser.chromium import complaints
from tests.browser.conftest import Console, Tenant
from tests.browser.test_mapping import quarantine
from tests.integration.operations.conftest import store
from tests.stack import Stack

READER = frozenset({"operations:read"})
SUPPORT = frozenset({"operations:read", "operations:resolve", "operations:payload"})


def shown(console: Console) -> list[str | None]:
    return [row.get_attribute("data-operation") for row in console.all("#list a")]


def refreshed(console: Console) -> None:
    """Refresh by a click of nobody's, which leaves the focus where it is."""
    console.browser.execute_script("document.querySelector('#message').textContent = ''")
    console.browser.execute_script("document.querySelector('#refresh').click()")
    console.says("Up to date.")


# ---------------------------------------------------------------- look


def test_a_waiting_event_says_what_happens_next_and_when(console: Console, tenant: Tenant) -> None:
    tenant.stack.illu.fail(Kind.UNAVAILABLE, seconds=600)
    operation = tenant.create_site().json()["operation_id"]
    console.sign_in(tenant.key)
    assert re.search(r"next in (9|10) min\b", console(f"[data-operation={operation}] .why").text)
    console.show(operation)
    following = console("#next").text
    assert re.match(r"Not done yet. The bridge sends it to illu again by itself in (9|10) min\b", following)
    assert "Nothing has to be done by hand." in following
    assert [one.get_attribute("id") for one in console.all("[id^=decide-]")] == ["decide-retry"]


def test_times_are_read_at_a_glance_and_exact_with_their_zone_for_those_who_look_or_listen(
    console: Console, tenant: Tenant
) -> None:
    tenant.stack.move_clock(-3 * 3600)
    tenant.create_site()
    tenant.stack.move_clock(3 * 3600)
    console.sign_in(tenant.key)
    moment = console("#list time")
    assert moment.text.startswith("3 hr. ago")
    exact = moment.get_attribute("title") or ""
    assert re.search(r"20\d\d, \d+:\d\d:\d\d.[AP]M \S+$", exact)
    assert console("#list time .sr").get_attribute("textContent") == exact
    assert console("#list time [aria-hidden]").text == "3 hr. ago"


def test_an_outage_is_seen_at_once(console: Console, tenant: Tenant) -> None:
    tenant.create_site(customer_id="C-1")
    console.sign_in(tenant.key)
    assert console("#attention").text == "Nothing needs a person."
    tenant.stack.illu.fail(Kind.UNAVAILABLE, times=2)
    tenant.create_site(customer_id="C-2")
    tenant.create_site(customer_id="C-3")
    console("#refresh").click()
    console.says("Up to date.")
    assert "illu is failing: 2 events are not settled" in console("#attention").text
    (vendor,) = console.all("#vendors li")
    assert "illu Failing" in vendor.text
    assert "last success" in vendor.text
    assert [entry.text for entry in console.all("#legend li")] == ["Waiting 2", "Succeeded 1"]


def test_a_vendor_that_responds_again_says_what_still_waits_and_until_when(console: Console, tenant: Tenant) -> None:
    tenant.stack.illu.fail(Kind.UNAVAILABLE, seconds=600)
    tenant.create_site(customer_id="C-1")
    tenant.stack.move_clock(60)
    tenant.stack.illu.heal()
    assert tenant.create_site(customer_id="C-2").status_code == 201
    console.sign_in(tenant.key)
    (vendor,) = console.all("#vendors li")
    assert "illu Responding" in vendor.text
    assert "1 event waits after a failure, next attempt in" in vendor.text


def test_events_in_quarantine_are_counted_and_one_click_away(console: Console, tenant: Tenant) -> None:
    tenant.create_site(customer_id="C-1")
    request = quarantine(tenant.stack)
    console.sign_in(tenant.key)
    assert console("#attention").text == "1 event is in quarantine: correct the mapping, then send it again."
    console("#attention a").click()
    console.finds(1)
    assert console.all("#list li") == []
    assert [row.get_attribute("data-request") for row in console.all("#refused li")] == [request]
    assert "From hubspot" in console("#refused li").text
    assert console("#only-quarantined").get_attribute("aria-pressed") == "true"
    console("#only-all").click()
    console.until(lambda: len(console.all("#list li")) == 1 and not console.all("#refused li"))


def test_the_header_says_of_which_tenant_and_deployment_it_is(console: Console, tenant: Tenant) -> None:
    console.sign_in(tenant.key)
    assert console("#where").text == "demo · dev · eu-west-1"
    console("#sign-out").click()
    assert console("#where").get_attribute("textContent") == ""


def test_what_needs_a_person_is_one_click_away(console: Console, tenant: Tenant) -> None:
    tenant.create_site(customer_id="C-1")
    operation = tenant.in_review(customer_id="C-2")
    console.sign_in(tenant.key)
    console("#attention a").click()
    console.finds(1)
    assert shown(console) == [operation]
    assert console("#only-needs_review").get_attribute("aria-pressed") == "true"


def test_an_event_key_of_several_parts_is_shown_by_its_parts(console: Console, tenant: Tenant) -> None:
    key = "mail#outage#2026-11-30T05:44:43+00:00"
    operation = store(key, State.NEEDS_REVIEW, "status_update", at=int(time.time()))
    plain = store("A#1", State.NEEDS_REVIEW, at=int(time.time()))
    console.sign_in(tenant.key)
    assert console(f"[data-operation={operation}] strong").text.startswith("mail · outage · Nov 30, 2026, 5:44:43")
    assert console(f"[data-operation={plain}] strong").text == "A#1"
    console.show(operation)
    facts = console("#detail dl").text.splitlines()
    assert facts[facts.index("Service") + 1] == "mail"
    assert facts[facts.index("Event key") + 1] == key
    assert [button.text for button in console.all("[id^=decide-]")] == ["Retry …", "Discard …"]


# ---------------------------------------------------------------- find


def test_a_list_is_filtered_and_its_address_leads_back_to_it(
    console: Console, stack: Stack, tenant: Tenant, browser: Chrome
) -> None:
    old = store("C-old", State.REJECTED, at=int(time.time()) - 3 * 3600)
    new = store("C-new", State.REJECTED, at=int(time.time()) - 60)
    job = store("T-1", State.NEEDS_REVIEW, "create_job", at=int(time.time()) - 60)
    console.sign_in(tenant.key)
    Select(console("#since")).select_by_visible_text("In the last hour")
    console.until(lambda: shown(console) == [job, new])
    Select(console("#flow")).select_by_visible_text("Create site")
    console.until(lambda: shown(console) == [new])
    assert console("#count").text == "1 found"
    address = browser.current_url
    assert address.endswith("#flow=create_site&since=1h")
    console.show(new)
    browser.back()
    console.until(lambda: shown(console) == [new])
    console.until(lambda: browser.switch_to.active_element.get_attribute("data-operation") == new)
    console("#clear").click()
    console.until(lambda: shown(console) == [job, new, old])
    assert console("#count").text == ""
    console("#text").send_keys("c-OLD", Keys.ENTER)
    console.until(lambda: shown(console) == [old])
    # Somebody else opens the shared address.
    browser.get("about:blank")
    browser.get(address)
    console("#key").send_keys(stack.add_key(tenant.name, READER, "another"), Keys.ENTER)
    console.until(lambda: shown(console) == [new])
    assert Select(console("#flow")).first_selected_option.text == "Create site"


def test_a_shared_address_is_opened_with_another_key_and_survives_a_mistyped_one(
    console: Console, stack: Stack, tenant: Tenant, browser: Chrome
) -> None:
    operation = tenant.in_review(customer_id="C-4")
    browser.get("about:blank")
    browser.get(f"{console.address}#{operation}")
    console("#key").send_keys("crmb_mistyped", Keys.ENTER)
    console.says("The API key is unknown, disabled or expired")
    assert browser.current_url.endswith(f"#{operation}")
    console("#key").send_keys(stack.add_key(tenant.name, READER, "another"), Keys.ENTER)
    console.until(lambda: console.all("#state"))
    assert "C-4" in console("#detail h2").text
    assert not console("#overview").is_displayed()
    console("#back").click()
    console.until(lambda: shown(console) == [operation])
    console("#sign-out").click()
    assert "op_" not in browser.current_url
    assert [note for note in complaints(browser) if "status of 401" not in note] == []


@pytest.mark.parametrize(
    "address", ["op_1", "state=gone", "flow=toString", "since=1y", "flow=create_site&colour=red", "wherever"]
)
def test_an_unknown_address_says_so_and_offers_a_way_back(console: Console, tenant: Tenant, address: str) -> None:
    operation = tenant.create_site().json()["operation_id"]
    console.sign_in(tenant.key)
    console.go(address)
    console.until(lambda: "There is no such page" in console("#detail").text)
    assert not console("#overview").is_displayed()
    console("#back").click()
    console.until(lambda: console("#overview").is_displayed() and shown(console) == [operation])


def test_nothing_of_a_search_stays_after_leaving_it(console: Console, tenant: Tenant) -> None:
    tenant.create_site(customer_id="C-1")
    tenant.create_site(customer_id="C-2")
    console.sign_in(tenant.key)
    console("#wanted").send_keys("C-1", Keys.ENTER)
    console.finds(1)
    console("#clear").click()
    console.until(lambda: len(shown(console)) == 2)
    assert "found" not in console("body").text
    assert console("#wanted").get_attribute("value") == ""


def test_no_row_of_another_list_stands_under_an_error(console: Console, tenant: Tenant, browser: Chrome) -> None:
    tenant.create_site(customer_id="C-1")
    console.sign_in(tenant.key)
    browser.execute_script(
        "const real = fetch;"
        "window.fetch = (path, ...more) =>"
        "  /operations[?].*id=/.test(path) ? Promise.reject(new TypeError()) : real(path, ...more);"
    )
    console("#wanted").send_keys("C-2", Keys.ENTER)
    console.until(lambda: console("#list-error").is_displayed())
    assert "The bridge did not respond." in console("#list-error").text
    assert shown(console) == []
    console("#clear").click()
    console.until(lambda: len(shown(console)) == 1)
    assert not console("#list-error").is_displayed()


def test_rows_of_the_same_list_stay_and_are_called_older_when_a_refresh_fails(
    console: Console, tenant: Tenant, browser: Chrome
) -> None:
    tenant.create_site(customer_id="C-1")
    console.sign_in(tenant.key)
    browser.execute_script("window.real = fetch; window.fetch = () => Promise.reject(new TypeError());")
    console("#refresh").click()
    console.says("Could not refresh")
    console.until(lambda: "The rows below are older." in console("#list-error").text)
    assert len(shown(console)) == 1
    browser.execute_script("window.fetch = window.real")
    console("#refresh").click()
    console.says("Up to date.")
    assert not console("#list-error").is_displayed()


def test_twenty_refreshes_lose_neither_place_nor_focus_nor_shift_anything(
    console: Console, tenant: Tenant, browser: Chrome
) -> None:
    made = [store(f"C-{number:03}", State.SUCCEEDED, at=int(time.time()) - 1000 + number) for number in range(120)][
        ::-1
    ]
    console.sign_in(tenant.key)
    console.until(lambda: len(shown(console)) == 50)
    console("#more").click()
    console.until(lambda: len(shown(console)) == 100)
    row = console(f"[data-operation={made[80]}]")
    browser.execute_script("arguments[0].focus(); arguments[0].scrollIntoView({block: 'center'})", row)
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    where = row.rect["y"] - browser.execute_script("return scrollY")
    browser.execute_script(
        "window.shifts = 0; new PerformanceObserver((list) => {"
        "  for (const one of list.getEntries()) window.shifts += one.value;"
        "}).observe({type: 'layout-shift'})"
    )
    for number in range(20):
        if number == 10:
            tenant.create_site(customer_id="C-new")
        refreshed(console)
    assert browser.switch_to.active_element.get_attribute("data-operation") == made[80]
    assert shown(console)[1:100] == made[:99]
    assert row.rect["y"] - browser.execute_script("return scrollY") == pytest.approx(where, abs=2)
    assert browser.execute_script("return window.shifts") == 0


def test_a_refresh_keeps_the_focus_in_an_operation_also_when_it_changes(
    console: Console, tenant: Tenant, browser: Chrome
) -> None:
    tenant.stack.illu.fail(Kind.UNAVAILABLE)
    operation = tenant.create_site().json()["operation_id"]
    console.sign_in(tenant.key, show=operation)
    before = console("#state")
    refreshed(console)
    assert console("#state") == before  # nothing was drawn again
    tenant.stack.deliver_due(after=60)
    refreshed(console)
    assert console("#state").text == "Succeeded"
    assert browser.switch_to.active_element.get_attribute("id") == "back"


def test_an_id_is_found_in_whichever_state_it_is(console: Console, tenant: Tenant) -> None:
    tenant.create_site(customer_id="C-1")
    console.sign_in(tenant.key)
    console.go("state=waiting")
    console.finds(0)
    console("#wanted").send_keys("C-1", Keys.ENTER)
    console.finds(1)


# ---------------------------------------------------------------- do


def test_a_doubtful_site_is_linked_from_its_candidates_and_unlinked_again(
    console: Console, stack: Stack, tenant: Tenant, browser: Chrome
) -> None:
    stack.illu.alterations = (ALTERATIONS["cut at an emoji"],)
    stack.illu.fail(Kind.CLOSE_AFTER)
    operation = tenant.create_site(customer_id="C-7", name="Duka \U0001f3ea Kitale").json()["operation_id"]
    stack.illu.add_site("Made by hand", 1.0157, 35.0062, "Moi Ave 12")
    for _ in range(3):
        stack.deliver_due(after=90)
    console.sign_in(stack.add_key(tenant.name, SUPPORT, "Ada, support"), show=operation)
    cards = [card.text for card in console.all("#candidates li")]
    assert len(cards) == 3
    assert "Duka \U0001f3ea Kitale" in cards[0]
    assert ["Duka" in cards[1], "Made by hand" in cards[2]] == [True, True]
    site_id = str(stack.illu.sites[0]["site_id"])
    assert console("#link-candidate-0").text == f"Link {site_id} …"
    console("#link-candidate-0").click()
    console("#vendor-id").send_keys("1", Keys.ENTER)
    console.says("The two ids are not the same. Nothing was changed.")
    console("#link-candidate-0").click()
    assert console("#vendor-id-label").text == f"Type {site_id} to confirm"
    console("#vendor-id").send_keys(site_id, Keys.ENTER)
    console.until(lambda: console("#vendor-id-again").is_displayed())
    assert "another name" in console("#confirm-what").text
    console("#vendor-id-again").send_keys(site_id, Keys.ENTER)
    console.says("its state is succeeded now")
    assert console("#decided").text.startswith("Linked by Ada, support, ")
    console("#decide-unlink").click()
    console("#confirm-yes").click()
    console.says("its state is needs review now")
    assert console("#decided").text.startswith("Unlinked by Ada, support; it was illu site")
    assert [note for note in complaints(browser) if "status of 422" not in note] == []


def test_the_safe_button_is_the_prominent_one_in_every_decision(console: Console, tenant: Tenant) -> None:
    console.sign_in(tenant.key)
    operation = tenant.in_review(customer_id="C-9")
    console.go(operation)
    console.until(lambda: console.all("#decide-retry"))
    assert [one.get_attribute("id") for one in console.all("#detail button.primary")] == ["decide-link"]
    for risky in ("retry", "discard"):
        console(f"#decide-{risky}").click()
        assert [one.text for one in console.all("#confirm button.primary")] == ["Cancel"]
        console("#confirm-no").click()


def test_all_that_match_are_retried_after_they_were_listed_and_their_number_typed(
    console: Console, tenant: Tenant
) -> None:
    kept = store("C-kept", at=int(time.time()), payload={"customer_id": "C-kept"})
    some = [store(f"T-{number}", flow="create_job", at=int(time.time()), payload={"a": 1}) for number in range(3)]
    gone = store("T-9", flow="create_job", at=int(time.time()))  # what the CRM sent is no longer there
    console.sign_in(tenant.key)
    assert not console("#retry-all").is_displayed()
    console.go("state=needs_review&flow=create_job")
    console.finds(4)
    console.open_retry_all()
    listed = {row.get_attribute("data-retry") for row in console.all("#bulk-list li")}
    assert listed == {*some, gone}
    assert "4 of them create a record" in console("#bulk-what").text
    assert [one.text for one in console.all("#bulk button.primary")] == ["Cancel"]
    console("#bulk-typed").send_keys("3", Keys.ENTER)
    console.until(lambda: "Nothing was changed" in console("#bulk-said").text)
    console("#bulk-typed").clear()
    console("#bulk-typed").send_keys("4", Keys.ENTER)
    console.until(lambda: console("#bulk-said").text == "3 of 4 retried, 1 not.")
    assert "no longer kept" in console(f"[data-retry={gone}]").text
    console("#bulk-no").click()
    console.go("state=waiting")
    console.finds(3)
    console.go("state=needs_review")
    console.finds(2)
    assert set(shown(console)) == {kept, gone}
    complaints(console.browser)  # the browser notes the 409


def test_what_is_listed_is_exported_and_no_spreadsheet_runs_it(
    console: Console, tenant: Tenant, browser: Chrome, tmp_path: Path
) -> None:
    formulas = ['=HYPERLINK("http://x";"y");-1', "+1", "-1", "@x", "'=1", "a;=b", "a\t+1", "\uff1d1", "C-2", '"a", b']
    now = int(time.time())
    for number, key in enumerate(formulas):
        store(key, at=now - number)
    store("C-3", State.REJECTED, at=int(time.time()))
    behavior = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behavior)
    console.sign_in(tenant.key)
    console.go("state=needs_review")
    console.finds(len(formulas))
    console("#export-csv").click()
    console.until(lambda: (tmp_path / "operations.csv").exists())
    console.says(f"{len(formulas)} operations exported.")
    with (tmp_path / "operations.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["event_key"].startswith("'=")
    assert [row["event_key"] for row in rows] == [escaped(key) for key in formulas]  # by the command line's own rule
    assert [unescaped(row["event_key"]) for row in rows] == formulas
    assert rows[1]["reason"] == "who knows"
    console("#export-json").click()
    console.until(lambda: (tmp_path / "operations.json").exists())
    exported = json.loads((tmp_path / "operations.json").read_text(encoding="utf-8"))
    assert [one["event_key"] for one in exported] == formulas

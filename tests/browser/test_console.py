"""The console in a real browser."""

import re
from urllib.parse import urlsplit

import pytest
import requests
from selenium.webdriver import ActionChains, Chrome, Keys

from crm_bridge.storage.operation import State
from local.vendors.simulator import Kind
from tests.browser.chromium import complaints, look
from tests.browser.conftest import Console, Tenant
from tests.stack import Stack

READABLE = 4.5
"""Contrast that text must have at least. Source: https://www.w3.org/TR/WCAG22/#contrast-minimum"""


def test_somebody_signs_in_and_sees_the_vendors_and_what_came(console: Console, tenant: Tenant) -> None:
    tenant.create_site(customer_id="C-1")
    tenant.stack.illu.fail(Kind.UNAVAILABLE)
    tenant.create_site(customer_id="C-2")
    console.sign_in(tenant.key)
    assert not console("#sign-in").is_displayed()
    rows = [row.text for row in console.all("#list a")]
    assert len(rows) == 2
    assert rows[0].startswith("Waiting")
    assert "illu answered 503" in rows[0]
    assert "C-1" in rows[1]
    (vendor,) = console.all("#vendors li")
    assert "illu Failing" in vendor.text
    assert "1 event waits after a failure, next attempt in" in vendor.text
    assert console("#plot svg").get_attribute("aria-label") == "At most 2 in an hour, 2 in all"
    assert [chip.text for chip in console.all("#states button")][:4] == [
        "All 2",
        "Needs review 0",
        "Unconfirmed 0",
        "Waiting 1",
    ]


def test_each_states_name_fits_into_its_column(console: Console, tenant: Tenant) -> None:
    tenant.create_site(customer_id="C-1")
    console.sign_in(tenant.key)
    cell = """const cell = document.querySelector("#list .badge");
        cell.textContent = arguments[0].replace("_", " ");
        return cell.offsetWidth > 8.5 * 15;"""
    assert [state for state in State if console.browser.execute_script(cell, state)] == []


def test_a_wrong_key_is_refused_and_shows_nothing(console: Console, tenant: Tenant, browser: Chrome) -> None:
    tenant.create_site()
    console("#key").send_keys("crmb_wrong", Keys.ENTER)
    console.says("The API key is unknown, disabled or expired")
    assert console("#sign-in").is_displayed()
    assert not console("#overview").is_displayed()
    assert console.all("#list a") == []
    # The browser itself notes that an answer was 401, whatever a page does about it; nothing else may stand there.
    noted = complaints(browser)
    assert noted
    assert [note for note in noted if "status of 401" not in note] == []


def test_a_key_without_the_scope_is_refused(console: Console, stack: Stack, tenant: Tenant, browser: Chrome) -> None:
    console("#key").send_keys(stack.add_key(tenant.name, frozenset({"create_site"}), "another"), Keys.ENTER)
    console.says("lacks the scope operations:read")
    assert console("#sign-in").is_displayed()
    assert [note for note in complaints(browser) if "status of 403" not in note] == []


@pytest.mark.parametrize("wanted", ["C-2", "customer's site", "operation", "crm/customer/C-2"])
def test_any_id_finds_the_operation(console: Console, tenant: Tenant, wanted: str) -> None:
    tenant.create_site(customer_id="C-1")
    made = tenant.create_site(customer_id="C-2").json()
    names = {"customer's site": str(made["site_id"]), "operation": made["operation_id"]}
    console.sign_in(tenant.key)
    console("#wanted").send_keys(names.get(wanted, wanted), Keys.ENTER)
    console.finds(1)
    assert [row.get_attribute("data-operation") for row in console.all("#list a")] == [made["operation_id"]]


def test_an_id_finds_a_request_that_was_refused(console: Console, tenant: Tenant) -> None:
    assert tenant.create_site(customer_id="C-7", latitude=91).status_code == 422
    console.sign_in(tenant.key)
    console("#wanted").send_keys("C-7", Keys.ENTER)
    console.finds(1)
    assert console.all("#list li") == []
    (row,) = console.all("#refused li")
    assert row.text.startswith("Refused\nPOST /sites C-7\n")
    assert "\n422 invalid; latitude" in row.text


def test_an_id_that_nothing_is_known_by_finds_nothing(console: Console, tenant: Tenant) -> None:
    tenant.create_site()
    console.sign_in(tenant.key)
    console("#wanted").send_keys("C-none", Keys.ENTER)
    console.finds(0)
    assert console("#none strong").text == "No operation found with the id C-none."
    console("#clear").click()
    console.until(lambda: len(console.all("#list a")) == 1)


def test_an_operation_shows_its_time_line_answer_and_links(console: Console, tenant: Tenant) -> None:
    tenant.stack.illu.fail(Kind.UNAVAILABLE)
    operation = tenant.create_site().json()["operation_id"]
    tenant.stack.deliver_due(after=60)
    console.sign_in(tenant.key, show=operation)
    assert console("#state").text == "Succeeded"
    line = [entry.text for entry in console.all("ol.line li")]
    assert len(line) == 3
    assert "illu answered 503" in line[1]
    assert line[2].startswith("Done")
    assert '"customer_id": "C-1001"' in console("#detail").text
    label = console("#detail svg").get_attribute("aria-label")
    assert re.fullmatch(r"crm customer C-1001 is illu site \d+", label or "")
    assert console.all("#decide-unlink") == []  # the bridge made it itself


def test_what_the_crm_sent_is_shown_only_to_a_key_that_may_see_it(
    console: Console, stack: Stack, tenant: Tenant
) -> None:
    tenant.stack.illu.fail(Kind.UNAVAILABLE)
    operation = tenant.create_site().json()["operation_id"]
    console.sign_in(tenant.key, show=operation)
    assert "operations:payload" in console("#detail").text
    assert console.all("#payload") == []
    console("#sign-out").click()
    scopes = frozenset({"operations:read", "operations:payload"})
    console.sign_in(stack.add_key(tenant.name, scopes, "support"), show=operation)
    assert "Moi Ave 12" in console("#payload").text


def test_a_key_that_may_only_look_sees_which_scope_decides_and_gets_no_buttons(
    console: Console, stack: Stack, tenant: Tenant, browser: Chrome
) -> None:
    in_review, done = tenant.in_review(customer_id="C-6"), tenant.create_site(customer_id="C-5").json()["operation_id"]
    console.sign_in(stack.add_key(tenant.name, frozenset({"operations:read"}), "support"), show=in_review)
    assert "operations:resolve" in console("#may-not-decide").text
    assert console.all("[id^=decide-]") == []
    browser.execute_script("location.hash = arguments[0]", done)
    console.until(lambda: console("#state").text == "Succeeded")
    assert console.all("#may-not-decide, [id^=decide-]") == []
    console("#sign-out").click()
    console.sign_in(tenant.key, show=in_review)
    assert len(console.all("[id^=decide-]")) == 3


def test_an_operation_in_doubt_is_linked_and_the_vendor_holds_one(
    console: Console, tenant: Tenant, browser: Chrome
) -> None:
    operation = tenant.in_review(customer_id="C-7")
    before = list(tenant.stack.illu.sites)
    site_id = str(before[-1]["site_id"])
    console.sign_in(tenant.key, show=operation)
    assert console("#state").text == "Needs review"
    console("#decide-link").click()
    assert "Nothing is made at illu." in console("#confirm-what").text
    assert not console("#vendor-id-again").is_displayed()
    console("#vendor-id").send_keys(site_id, Keys.ENTER)
    console.until(lambda: console("#vendor-id-again").is_displayed())
    assert "Cannot verify the id at the vendor" in console("#confirm-what").text
    assert not console("#vendor-id").is_displayed()
    console("#vendor-id-again").send_keys(f"{site_id}0", Keys.ENTER)
    console.says("The two ids are not the same. Nothing was changed.")
    console("#decide-link").click()
    console("#vendor-id").send_keys(site_id, Keys.ENTER)
    console.until(lambda: console("#vendor-id-again").is_displayed())
    console("#vendor-id-again").send_keys(site_id, Keys.ENTER)
    console.says("its state is succeeded now")
    assert console("#state").text == "Succeeded"
    assert console("#detail svg").get_attribute("aria-label") == f"crm customer C-7 is illu site {site_id}"
    assert tenant.stack.illu.sites == before
    assert [note for note in complaints(browser) if "status of 422" not in note] == []
    again = tenant.create_site(customer_id="C-7")
    assert (again.status_code, str(again.json()["site_id"])) == (200, site_id)


def test_a_wrong_link_is_undone_and_another_one_made(console: Console, tenant: Tenant) -> None:
    operation = tenant.in_review(customer_id="C-12")
    tenant.resolve(operation, action="link", id="123456", confirmed=True)
    console.sign_in(tenant.key, show=operation)
    console("#decide-unlink").click()
    assert "so does what used the link" in console("#confirm-what").text
    assert "primary" in (console("#confirm-no").get_attribute("class") or "")
    assert "danger" in (console("#confirm-yes").get_attribute("class") or "")
    console("#confirm-no").click()
    assert console("#state").text == "Succeeded"
    console("#decide-unlink").click()
    console("#confirm-yes").click()
    console.says("its state is needs review now")
    assert "it was illu site 123456" in console("#detail").text
    assert console.all("#decide-unlink") == []
    assert console.all("#decide-link") != []


def test_an_operation_is_sent_again_only_after_the_warning(console: Console, tenant: Tenant) -> None:
    operation = tenant.in_review(customer_id="C-8")
    sites = len(tenant.stack.illu.sites)
    console.sign_in(tenant.key, show=operation)
    console("#decide-retry").click()
    assert "it will be there twice" in console("#confirm-what").text
    console("#confirm-no").click()
    assert console("#state").text == "Needs review"
    console("#decide-retry").click()
    console("#confirm-yes").click()
    console.says("its state is waiting now")
    tenant.stack.deliver_due()
    console("#refresh").click()
    console.until(lambda: console("#state").text == "Succeeded")
    assert len(tenant.stack.illu.sites) == sites + 1


def test_an_operation_is_discarded(console: Console, tenant: Tenant) -> None:
    operation = tenant.in_review(customer_id="C-9")
    sites = len(tenant.stack.illu.sites)
    console.sign_in(tenant.key, show=operation)
    console("#decide-discard").click()
    console("#confirm-yes").click()
    console.says("its state is rejected now")
    assert console.all("#decide-retry") == []
    assert len(tenant.stack.illu.sites) == sites


def test_a_refused_decision_is_shown_in_the_apis_words(console: Console, tenant: Tenant, browser: Chrome) -> None:
    operation = tenant.in_review(customer_id="C-10")
    console.sign_in(tenant.key, show=operation)
    console("#decide-link").click()
    console("#vendor-id").send_keys("north", Keys.ENTER)
    console.says("Give illu's site_id, which is a number.")
    assert console("#state").text == "Needs review"
    assert [note for note in complaints(browser) if "status of 422" not in note] == []


def test_a_tenant_sees_nothing_of_another(console: Console, stack: Stack, tenant: Tenant, browser: Chrome) -> None:
    made = tenant.create_site(customer_id="C-secret").json()
    stack.put_secret("other", stack.demo_tenant())
    key = stack.add_key("other", frozenset({"operations:read"}), "another tenant's")
    console.sign_in(key)
    assert console.all("#list a") == []
    for wanted in ("C-secret", str(made["site_id"]), made["operation_id"]):
        console("#wanted").clear()
        console("#wanted").send_keys(wanted, Keys.ENTER)
        console.until(lambda wanted=wanted: wanted in console("#none").text)  # type: ignore[misc]
        console.finds(0)
    browser.execute_script("location.hash = arguments[0]", made["operation_id"])
    console.until(lambda: "There is no operation with this id." in console("#detail").text)
    assert "C-secret" not in console("#detail").text
    assert [note for note in complaints(browser) if "status of 404" not in note] == []


def test_what_a_customer_is_called_is_text_whatever_it_looks_like(console: Console, tenant: Tenant) -> None:
    hostile = "<img src=x onerror=document.title='taken'><script>document.title='taken'</script>"
    operation = tenant.create_site(customer_id=hostile).json()["operation_id"]
    console.sign_in(tenant.key)
    assert hostile in console("#list").text
    console.show(operation)
    assert hostile in console("#detail h2").text
    assert console.browser.title == "CRM Bridge"
    assert console.all("main img, main script") == []


def test_everything_can_be_done_with_the_keyboard(console: Console, tenant: Tenant, browser: Chrome) -> None:
    operation = tenant.in_review(customer_id="C-11")
    site_id = str(tenant.stack.illu.sites[-1]["site_id"])

    def press(*keys: str) -> None:
        ActionChains(browser).send_keys(*keys).perform()

    press(tenant.key, Keys.ENTER)  # the field for the key has the focus
    console.until(lambda: console("#overview").is_displayed())
    press("/")
    press("C-11", Keys.ENTER)
    console.finds(1)
    press(Keys.ENTER)  # the first that was found has the focus
    console.until(lambda: console.all("#state"))
    press(Keys.ESCAPE)
    console.until(lambda: console("#overview").is_displayed())
    press("j", Keys.ENTER)
    console.until(lambda: console("#detail").is_displayed() and console.all("#decide-link"))
    press(Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("id") == "decide-link"
    press(Keys.ENTER)
    press(site_id, Keys.ENTER)
    console.until(lambda: console("#vendor-id-again").is_displayed())
    press(site_id, Keys.ENTER)
    console.says("its state is succeeded now")
    assert operation in browser.current_url
    assert [note for note in complaints(browser) if "status of 422" not in note] == []


def test_the_key_is_kept_in_memory_only(console: Console, tenant: Tenant, browser: Chrome) -> None:
    console.sign_in(tenant.key)
    kept = browser.execute_script(
        """
        return JSON.stringify([document.documentElement.outerHTML, location.href, document.cookie, {...localStorage},
          {...sessionStorage}, [...document.querySelectorAll('input')].map((field) => field.value)])
        """
    )
    assert tenant.key not in kept
    assert browser.get_cookies() == []
    console.open()
    assert console("#sign-in").is_displayed()


def test_signing_out_forgets_all(console: Console, tenant: Tenant) -> None:
    tenant.create_site(customer_id="C-12")
    console.sign_in(tenant.key)
    console("#sign-out").click()
    assert is_signed_out(console)
    assert "C-12" not in console("body").text
    assert "C-12" not in (console("body").get_attribute("innerHTML") or "")


@pytest.mark.parametrize("part", ["overview", "detail"])
def test_a_phone_shows_it_without_scrolling_sideways(
    console: Console, tenant: Tenant, browser: Chrome, part: str
) -> None:
    look(browser, width=360, height=740)
    operation = tenant.in_review(customer_id="C-" + "1234567890" * 15)
    console.sign_in(tenant.key)
    if part == "detail":
        console.show(operation)
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_written_can_be_read(console: Console, tenant: Tenant, browser: Chrome, scheme: str) -> None:
    look(browser, scheme=scheme)  # type: ignore[arg-type]
    tenant.create_site(customer_id="C-1")
    operation = tenant.in_review(customer_id="C-13")
    console.sign_in(tenant.key)
    overview = contrasts(browser)
    console.show(operation)
    found = {**overview, **contrasts(browser)}
    assert len(found) > 15
    assert {text: ratio for text, ratio in found.items() if ratio < READABLE} == {}
    dark = luminance(browser.execute_script("return getComputedStyle(document.documentElement).backgroundColor")) < 0.2
    assert dark is (scheme == "dark")


def contrasts(browser: Chrome) -> dict[str, float]:
    """Of every text that is shown, its contrast with what lies behind it."""
    found = browser.execute_script(
        """
        const behind = (element) => {
          for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if (!colour.endsWith(', 0)')) return colour;
          }
        };
        return [...document.querySelectorAll('body *')]
          .filter((one) => one.checkVisibility() && !one.closest('svg') && !one.disabled
            && [...one.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim()))
          .map((one) => [one.textContent.trim().slice(0, 40), getComputedStyle(one).color, behind(one)]);
        """
    )
    return {text: contrast(colour, behind) for text, colour, behind in found}


def contrast(one: str, other: str) -> float:
    """Source: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_page_may_load_and_run_nothing_but_itself(console: Console, stack: Stack, browser: Chrome) -> None:
    policy = requests.get(f"{stack.url}/console", timeout=60).headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    host = urlsplit(console.address).netloc
    browser.execute_script(
        f"const s = document.createElement('script'); s.textContent = 'document.title = 1'; document.head.append(s);"
        f"const i = document.createElement('img'); i.src = 'http://{host}/x.png'; document.body.append(i);"
    )
    assert browser.title == "CRM Bridge"
    refused = complaints(browser)
    assert len(refused) == 2
    assert all("Content Security Policy" in one for one in refused)


def test_nothing_of_the_page_is_kept_by_the_browser(stack: Stack) -> None:
    headers = requests.get(f"{stack.url}/console", timeout=60).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Strict-Transport-Security"] == "max-age=63072000"


def is_signed_out(console: Console) -> bool:
    return (
        console("#sign-in").is_displayed()
        and not any(console(part).is_displayed() for part in ("#overview", "#detail", "#sign-out", "#confirm"))
        and console.all("#list li, #vendors li, #detail *, #plot *, #states *") == []
        and "C-1001" not in console.browser.page_source
    )


def test_a_page_that_is_left_is_signed_out_when_somebody_goes_back(
    console: Console, tenant: Tenant, browser: Chrome
) -> None:
    operation = tenant.create_site().json()["operation_id"]
    console.sign_in(tenant.key)
    browser.get("about:blank")
    browser.back()
    console.until(lambda: is_signed_out(console))
    # As a browser does that keeps the page in memory, whatever its headers say; here with a decision half made.
    console.sign_in(tenant.key, show=operation)
    browser.execute_script("document.querySelector('#confirm').showModal()")
    browser.execute_script("document.querySelector('#key').value = 'crmb_half-typed'")
    browser.execute_script("dispatchEvent(new PageTransitionEvent('pagehide', {persisted: true}))")
    assert is_signed_out(console)
    assert console("#key").get_attribute("value") == ""
    browser.execute_script("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
    browser.execute_script("location.hash = arguments[0]", operation)
    assert is_signed_out(console)


def let_pass(browser: Chrome, minutes: int) -> None:
    """The page's clock goes on, as while the machine sleeps: no timer runs meanwhile."""
    browser.execute_script("const now = Date.now.bind(Date); Date.now = () => now() + arguments[0] * 60_000;", minutes)


IDLE = {
    "a timer": "",
    "somebody looks at it again": "document.dispatchEvent(new Event('visibilitychange'))",
    "somebody presses a key": "dispatchEvent(new KeyboardEvent('keydown', {key: 'j'}))",
    "somebody moves the mouse": "dispatchEvent(new PointerEvent('pointermove'))",
    "the clock was set back": "Date.now = () => 0; dispatchEvent(new KeyboardEvent('keydown', {key: 'j'}))",
}


@pytest.mark.parametrize("wakes", IDLE.values(), ids=IDLE.keys())
def test_somebody_who_was_idle_for_a_quarter_of_an_hour_is_signed_out(
    console: Console, tenant: Tenant, browser: Chrome, wakes: str
) -> None:
    tenant.create_site()
    browser.execute_script("const real = setInterval; window.setInterval = (work, ms) => real(work, ms / 100);")
    console.sign_in(tenant.key)
    let_pass(browser, 14)
    browser.execute_script(wakes if "now" not in wakes else "")
    assert not is_signed_out(console)
    let_pass(browser, 16)
    browser.execute_script(wakes)
    console.until(lambda: is_signed_out(console))
    assert console.message == "You are signed out, because nothing was pressed or moved for 15 minutes."


@pytest.mark.parametrize("kind", ["keydown", "pointerdown", "pointermove", "wheel"])
def test_somebody_who_does_something_stays_signed_in(
    console: Console, tenant: Tenant, browser: Chrome, kind: str
) -> None:
    console.sign_in(tenant.key)
    for _ in range(3):
        let_pass(browser, 10)
        browser.execute_script("dispatchEvent(new Event(arguments[0]))", kind)
    assert console("#sign-out").is_displayed()


def test_a_response_that_comes_after_signing_out_is_not_shown(
    console: Console, tenant: Tenant, browser: Chrome
) -> None:
    tenant.create_site()
    console.sign_in(tenant.key)
    browser.execute_script(
        "const real = fetch; window.go = [];"
        "window.fetch = async (...of) => {"
        "  const answer = await real(...of), body = await answer.text();"
        "  await new Promise((go) => window.go.push(go)); return new Response(body, answer);"
        "};"
    )
    console("#refresh").click()
    console.until(lambda: browser.execute_script("return window.go.length") == 3)
    console("#sign-out").click()
    browser.execute_script("window.go.forEach((go) => go())")
    browser.execute_async_script("setTimeout(arguments[0], 100)")
    assert is_signed_out(console)
    assert console.message == ""

"""axe-core, a checker that others made, looks at every view of the console in light, in dark and on a phone.

Source: https://www.deque.com/axe/core-documentation/api-documentation/
"""

from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from local.template import TEMPLATE
from local.vendors.simulator import Kind
from tests.browser.chromium import look
from tests.browser.conftest import Console, Tenant

AXE = TEMPLATE.parent / ".axe/axe.min.js"
CHECK = """
    const done = arguments[0];
    axe.run(document, {resultTypes: ['violations']}).then(({violations}) =>
      done(violations.map((one) => [one.id, ...one.nodes.map((node) => node.html.slice(0, 120))])));
"""


@pytest.fixture(scope="module")
def axe() -> str:
    if not AXE.exists():
        pytest.fail(f"This test needs axe-core, which npm gets: make {AXE.relative_to(Path(TEMPLATE).parent)}")
    return f"{AXE.read_text(encoding='utf-8')}; window.axe = axe;"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 1100), ("light", 390), ("dark", 390)])
def test_axe_finds_no_violation(
    console: Console, tenant: Tenant, browser: Chrome, axe: str, scheme: str, width: int
) -> None:
    look(browser, scheme=scheme, width=width)  # type: ignore[arg-type]
    tenant.create_site(customer_id="C-1")
    in_review = tenant.in_review(customer_id="C-2")
    tenant.stack.illu.fail(Kind.UNAVAILABLE)
    waiting = tenant.create_site(customer_id="C-3").json()["operation_id"]
    browser.execute_script(axe)
    found = {"sign in": browser.execute_async_script(CHECK)}
    console.sign_in(tenant.key)
    for address, ready in {
        "": "#list a",
        "text=nothing": "#none strong",
        waiting: "#state",
        in_review: "#decide-retry",
        "nowhere": "#detail #back",
    }.items():
        console.go(address)
        console.until(lambda ready=ready: any(one.is_displayed() for one in console.all(ready)))  # type: ignore[misc]
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        found[address] = browser.execute_async_script(CHECK)
    console.go(in_review)
    console.until(lambda: console.all("#decide-retry"))
    console("#decide-retry").click()
    found["decision"] = browser.execute_async_script(CHECK)
    console("#confirm-no").click()
    console.go("state=needs_review")
    console.until(lambda: console("#retry-all").is_displayed())
    console("#retry-all").click()
    console.until(lambda: console("#bulk").is_displayed())
    found["retry all"] = browser.execute_async_script(CHECK)
    assert {view: violations for view, violations in found.items() if violations} == {}

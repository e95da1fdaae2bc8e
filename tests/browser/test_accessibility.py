"""axe-core, a checker that others made, looks at every view of the console in light, in dark and on a phone.

Source: https://www.deque.com/axe/core-documentation/api-documentation/
"""

from pathlib import Path

import pytest
from selenium.webdriver import Chrome, Keys

from crm_bridge.storage.operation import State
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


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1600), ("light", 1100), ("dark", 1100), ("light", 390), ("dark", 390)]
)
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
        "mapping": "#try-active",
    }.items():
        console.go(address)
        console.until(lambda ready=ready: any(one.is_displayed() for one in console.all(ready)))  # type: ignore[misc]
        for attempt in console.all(".attempt summary"):
            attempt.click()
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        found[address] = browser.execute_async_script(CHECK)
    for expression in ("{name: type, adress: type}", "{name: join(type, type)}"):
        console.try_out('{"type": "company"}', expression)
        found[expression] = browser.execute_async_script(CHECK)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    console.go(in_review)
    console.until(lambda: console.all("#decide-retry"))
    console("#decide-retry").click()
    found["decision"] = browser.execute_async_script(CHECK)
    console("#confirm-no").click()
    console.go("state=needs_review")
    console.until(lambda: console("#retry-all").is_displayed())
    console.open_retry_all()
    found["retry all"] = browser.execute_async_script(CHECK)
    console("#bulk-no").click()
    console.go("state=waiting")
    console.finds(1)
    console.open_retry_all()
    found["retry all that waits"] = browser.execute_async_script(CHECK)
    assert {view: violations for view, violations in found.items() if violations} == {}


@pytest.mark.usefixtures("console")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_state_has_a_colour_of_its_own(browser: Chrome, scheme: str) -> None:
    look(browser, scheme=scheme)  # type: ignore[arg-type]
    colours = browser.execute_script(
        """
        return arguments[0].map((state) => {
          const badge = document.createElement('span');
          badge.className = `badge ${state}`;
          document.body.append(badge);
          return [getComputedStyle(badge).color, getComputedStyle(badge).backgroundColor];
        });
        """,
        list(State),
    )
    assert len({text for text, _ in colours}) == len({behind for _, behind in colours}) == len(State)


@pytest.mark.parametrize(("width", "height"), [(1100, 700), (390, 740)])
def test_the_first_row_that_was_found_is_in_sight(
    console: Console, tenant: Tenant, browser: Chrome, width: int, height: int
) -> None:
    look(browser, width=width, height=height)
    tenant.create_site(customer_id="C-1")
    console.sign_in(tenant.key)
    console("#wanted").send_keys("C-1", Keys.ENTER)
    console.finds(1)
    found = console("#list a").rect
    assert browser.execute_script("return scrollY") == 0
    assert found["y"] + found["height"] <= height
    console.until(lambda: browser.switch_to.active_element.get_attribute("data-operation"))


def test_the_ring_around_the_field_for_the_key_covers_no_text(console: Console) -> None:
    field, hint = console("#key").rect, console("#sign-in p").rect
    assert field["y"] + field["height"] + 5 <= hint["y"]

"""The API reference that the local stack serves, in a real browser."""

import pytest
import requests

from tests.browser.chromium import complaints
from tests.browser.conftest import Console

ASKED = 'return performance.getEntriesByType("resource").some((one) => one.name.endsWith("/docs"))'


def test_the_reference_is_linked_and_loads_nothing_when_the_local_stack_has_it(console: Console) -> None:
    console.until(lambda: console("#docs").is_displayed())
    console("#docs").click()
    console.until(lambda: console("h1").text == "CRM Bridge: API reference")
    assert console("#createSite").text == "POST /sites"
    console.browser.find_element("link text", "openapi.json").click()
    console.until(lambda: console.browser.current_url.endswith("/openapi.json"))


def test_the_reference_is_not_linked_when_there_is_none(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.gateway.PAGES", {})
    console.open()
    console.until(lambda: console.browser.execute_script(ASKED))
    assert requests.get(console.address.replace("console", "docs"), timeout=10).status_code == 404
    assert not console("#docs").is_displayed()
    complaints(console.browser)  # the browser notes the 404

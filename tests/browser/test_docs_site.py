"""The documentation as a site: its own search finds the right page, and it loads nothing from another host."""

import subprocess
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from local.template import TEMPLATE
from tests.browser.chromium import look, requested

ROOT = TEMPLATE.parent
MKDOCS = ROOT / ".venv-docs/bin/mkdocs"
SEARCHED = {
    "retry": "troubleshooting.html",
    "duplicate": "troubleshooting.html",
    "hubspot": "connect/hubspot-app.html",
    "stuck": "troubleshooting.html",
    "webhook": "vendors/webhook.html",
    "rollback": "upgrade.html",
    "restore": "restore.html",
    "lost response": "vendors/illu.html",
    "search_lag": "settings.html",
    "operations resolve": "command-reference.html",
    "needs_review": "runbook/needs-review.html",
    "expired key": "rotate-keys.html",
}
"""By what somebody types: the page that has to be among the first results."""
FIRST = 5
"""So many pages are seen before somebody scrolls."""
PAGES = (
    "index.html",
    "quickstart.html",
    "concepts.html",
    "connect/index.html",
    "vendors/egito.html",
    "settings.html",
    "command-reference.html",
    "configuration.html",
    "decisions/index.html",
    "runbook/needs-review.html",
)
"""One of each kind: with pictures, long tables, long code."""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class calls it
        """Print nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("site")
    if not MKDOCS.exists():
        pytest.fail("the documentation cannot be built here: run `make docs` first")
    subprocess.run([MKDOCS, "build", "--quiet", "--strict", "--site-dir", folder], cwd=ROOT, check=True, timeout=120)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("page", ["troubleshooting.html", "settings.html", "connect/hubspot-workflow.html"])
def test_no_table_and_no_document_of_a_page_must_be_moved_on_a_phone(browser: Chrome, site: str, page: str) -> None:
    look(browser, width=390)
    browser.get(f"{site}/{page}")
    boxes = ".md-typeset__scrollwrap, .language-json pre, .language-json code"
    widths = "return [...document.querySelectorAll(arguments[0])].map((one) => one.scrollWidth - one.clientWidth)"
    found = browser.execute_script(widths, boxes)
    assert found
    assert max(found) <= 0


TYPE = """
    const field = document.querySelector('[data-md-component=search-query]')
    field.value = arguments[0]
    field.dispatchEvent(new KeyboardEvent('keyup'))
"""
"""Type all of a query at once: what is shown for a part of it is of no interest."""


@pytest.fixture(scope="module")
def searching(browser: Chrome, site: str) -> Chrome:
    """The first page with its search open."""
    look(browser, width=1280)
    browser.get(f"{site}/index.html")
    browser.find_element(By.CSS_SELECTOR, "[data-md-component=search-query]").click()
    return browser


def results(searching: Chrome, query: str) -> list[str]:
    """Return the pages that the search of the site shows for a query, best first, each once."""
    wait = WebDriverWait(searching, 20, poll_frequency=0.05)
    searching.execute_script(TYPE, "")
    wait.until(lambda _: not _shown(searching))
    searching.execute_script(TYPE, query)
    wait.until(lambda _: _shown(searching))
    return list(dict.fromkeys(_shown(searching)))


def _shown(searching: Chrome) -> list[str]:
    """Return the paths of the results that are shown."""
    links = searching.execute_script(
        "return [...document.querySelectorAll('.md-search-result__link')].map(link => link.pathname)"
    )
    return [str(link).removeprefix("/") for link in links]


@pytest.mark.parametrize("query", SEARCHED)
def test_the_right_page_is_among_the_first_results(searching: Chrome, query: str) -> None:
    assert SEARCHED[query] in results(searching, query)[:FIRST]


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_of_the_navigation_is_wider_than_the_screen_or_loads_from_elsewhere(
    browser: Chrome, site: str, width: int
) -> None:
    look(browser, width=width)
    requested(browser)
    wide = []
    for page in PAGES:
        browser.get(f"{site}/{page}")
        if browser.execute_script("return document.documentElement.scrollWidth > window.innerWidth"):
            wide.append(page)
    assert wide == []
    assert requested(browser) == {site.removeprefix("http://")}

"""One browser for all tests; each begins signed out, on a stack of its own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from local.stack import SCOPES
from local.vendors.simulator import Kind
from tests.browser.chromium import MissingError, chromium, complaints, look, requested
from tests.integration.conftest import SITE, change_settings
from tests.memory_aws import quick_stack
from tests.stack import Stack


@pytest.fixture
def stack() -> Iterator[Stack]:
    with quick_stack() as stack:
        yield stack


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    try:
        with chromium(tmp_path_factory.mktemp("profile")) as chrome:
            yield chrome
    except MissingError as error:
        pytest.fail(str(error))


@dataclass
class Tenant:
    """A tenant and what its CRM sends."""

    stack: Stack
    name: str
    key: str

    def post(self, path: str, body: object) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.key}"}
        return requests.post(self.stack.url + path, json=body, headers=headers, timeout=60)

    def create_site(self, **changes: object) -> requests.Response:
        return self.post("/sites", {**SITE, **changes})

    def resolve(self, operation: str, **decision: object) -> None:
        self.post(f"/operations/{operation}/resolve", decision).raise_for_status()

    def in_review(self, **changes: object) -> str:
        """An operation that is in doubt, because illu cannot be asked."""
        change_settings(self.stack, self.name, illu={"site_list_path": None}, at_once=True)
        self.stack.illu.fail(Kind.CLOSE_AFTER)
        operation: str = self.create_site(**changes).json()["operation_id"]
        self.stack.deliver_due(after=90)
        return operation


@pytest.fixture
def tenant(stack: Stack) -> Tenant:
    return Tenant(stack, stack.tenant_name, stack.add_key(stack.tenant_name, SCOPES, "the tests"))


class Console:
    """The page, as somebody uses it."""

    def __init__(self, browser: Chrome, stack: Stack) -> None:
        self.browser = browser
        self.address = f"{stack.url}/console"

    def open(self) -> None:
        self.browser.get("about:blank")
        self.browser.get(self.address)

    def __call__(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def until(self, condition: Callable[[], Any]) -> None:
        redrawn = [StaleElementReferenceException]
        WebDriverWait(self.browser, 20, poll_frequency=0.05, ignored_exceptions=redrawn).until(lambda _: condition())

    def sign_in(self, key: str, *, show: str | None = None) -> None:
        """Sign in with this key, and `show` this operation."""
        self("#key").send_keys(key, Keys.ENTER)
        self.until(lambda: self("#overview").is_displayed() and not self("#list").get_attribute("aria-busy"))
        if show:
            self.show(show)

    def open_retry_all(self) -> None:
        self("#retry-all").click()
        self.until(lambda: self("#bulk").is_displayed())

    def finds(self, number: int) -> None:
        self.until(lambda: self("#count").text == f"{number} found")

    def go(self, address: str) -> None:
        """Open an address of the page, as by a link."""
        self.browser.execute_script("location.hash = arguments[0]", address)

    def show(self, operation: str) -> None:
        self.until(lambda: self.all(f"[data-operation={operation}]"))
        self(f"[data-operation={operation}]").click()
        self.until(lambda: self("#detail").is_displayed() and self.all("#state"))

    def try_out(self, payload: str, expression: str | None = None) -> None:
        """Try a payload in the view of mappings, by the keyboard."""
        for field, text in (("#try-payload", payload), ("#try-expression", expression)):
            if text is not None:
                self(field).send_keys(Keys.CONTROL, "a")
                self(field).send_keys(text or Keys.DELETE)
        self.browser.execute_script("document.querySelector('#try-result').replaceChildren()")
        self("#try-expression").send_keys(Keys.CONTROL, Keys.ENTER)
        self.until(lambda: self.all("#try-result h3"))

    @property
    def message(self) -> str:
        return self("#message").text

    def says(self, text: str) -> None:
        self.until(lambda: text in self.message)


@pytest.fixture
def console(browser: Chrome, stack: Stack) -> Iterator[Console]:
    """Whatever a test does: nobody but the bridge is asked, and nothing stands in the browser's console."""
    look(browser)
    requested(browser)
    complaints(browser)
    console = Console(browser, stack)
    console.open()
    yield console
    assert requested(browser) == {stack.url.removeprefix("http://")}
    assert complaints(browser) == []

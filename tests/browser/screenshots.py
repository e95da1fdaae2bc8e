"""`make screenshots`: the console as docs/console.md shows it, of what the simulated vendors were sent."""

import base64
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import requests
from selenium.webdriver import Chrome

from local.stack import SCOPES
from local.template import TEMPLATE
from local.vendors.alterations import ALTERATIONS
from local.vendors.simulator import Kind
from tests.browser.chromium import chromium, look
from tests.browser.conftest import Console, Tenant
from tests.browser.test_mapping import quarantine
from tests.integration.conftest import SITE
from tests.stack import Stack

IMAGES = TEMPLATE.parent / "docs/images"
PEOPLE = ("Shop 12, Kitale", "Clinic, Eldoret", "School, Kapsabet", "Mill, Bungoma", "Bakery, Webuye", "Farm, Lodwar")


def fill(tenant: Tenant) -> str:
    """A day with an outage, and something for a person to decide; the id of an operation with candidates."""
    stack = tenant.stack
    headers = {"Authorization": f"Bearer {tenant.key}"}
    stack.move_clock(-9 * 3600)
    for hour in range(9):
        for number in range((hour * 5) % 7 + 1):
            name = PEOPLE[(hour + number) % len(PEOPLE)]
            tenant.create_site(customer_id=f"C-{1000 + 10 * hour + number}", name=f"{name} {hour}{number}")
        stack.move_clock(3600)
    link = {"system": "SALESFORCE", "entity_type": "CUSTOMER", "internal_id": 1015, "external_id": "001XX0000ABCDEF"}
    requests.post(f"{stack.url}/key-links", json=link, headers=headers, timeout=60)
    ticket = {"ticket_id": "T-501", "name": "The meter shows nothing", "customer_id": "C-1000"}
    requests.post(f"{stack.url}/jobs", json=ticket, headers=headers, timeout=60)
    stack.illu.alterations = (ALTERATIONS["cut at 20 bytes"],)
    stack.illu.fail(Kind.CLOSE_AFTER)
    site = {"customer_id": "C-2000", "name": "Dispensary, Lodwar, beside the market", "latitude": 3.1191}
    in_review: str = tenant.create_site(**site).json()["operation_id"]
    stack.illu.add_site("Lodwar clinic", 3.1191, SITE["longitude"], "A104")
    for _ in range(3):
        stack.deliver_due(after=90)
    stack.illu.alterations = ()
    tenant.in_review(customer_id="C-2001", name="Pump station, Turkana")
    requests.put(f"{stack.url}/services/MAIL/status", json={"status": "outage"}, headers=headers, timeout=60)
    stack.illu.fail(Kind.UNAVAILABLE, times=3, seconds=600)
    for number in range(3):
        tenant.create_site(customer_id=f"C-{3000 + number}", name=f"Kiosk {number}, Kisumu")
    return in_review


def take(chrome: Chrome, name: str, height: int) -> None:
    clip = {"x": 0, "y": 0, "scale": 1, "height": height}
    clip["width"] = chrome.execute_script("return innerWidth")
    shot = chrome.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    (IMAGES / f"console-{name}.png").write_bytes(base64.b64decode(shot["data"]))
    sys.stderr.write(f"console-{name}.png: {(IMAGES / f'console-{name}.png').stat().st_size:,} bytes\n")


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with (
        redirect_stdout(StringIO()),
        TemporaryDirectory() as profile,
        Stack(background=False, aws_over_http=False) as stack,
        chromium(Path(profile)) as chrome,
    ):
        tenant = Tenant(stack, stack.tenant_name, stack.add_key(stack.tenant_name, SCOPES, "support"))
        in_review = fill(tenant)
        console = Console(chrome, stack)
        console.open()
        console.sign_in(
            stack.add_key(
                stack.tenant_name, frozenset({"operations:read", "operations:resolve", "operations:payload"}), "support"
            )
        )
        console.until(lambda: console.all("#list a"))
        take(chrome, "overview", 900)
        look(chrome, scheme="dark")
        console.show(in_review)
        take(chrome, "operation", 900)
        look(chrome, width=390, height=800)
        console.go("")
        console.until(lambda: console.all("#list a") and not console.all("#detail *"))
        take(chrome, "phone", 800)
        look(chrome)
        console.go(in_review)
        console.until(lambda: console.all("#link-candidate-0"))
        console("#link-candidate-0").click()
        take(chrome, "decision", 900)
        console("#confirm-no").click()
        quarantined = quarantine(stack)
        console.go(f"mapping/{quarantined}")
        console.until(lambda: console("#try-payload").get_attribute("value"))
        expression = console("#try-expression").get_attribute("value") or ""
        console.try_out(
            console("#try-payload").get_attribute("value") or "",
            expression.replace("to_number(longitude)", "to_number(longitude || lon)"),
        )
        take(chrome, "mapping", 900)
        console.go("state=waiting")
        console.finds(3)
        console("#retry-all").click()
        console.until(lambda: console("#bulk").is_displayed())
        take(chrome, "retry-all", 900)
        console("#bulk-no").click()
        console("#list a").click()
        console.until(lambda: console.all(".attempt"))
        console(".attempt summary").click()
        take(chrome, "attempts", 900)


if __name__ == "__main__":
    main()

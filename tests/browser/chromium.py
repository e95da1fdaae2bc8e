"""A real browser: Debian's chromium, driven through its own chromedriver. Nothing is downloaded or sent."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

PROGRAMS = ("chromium", "chromedriver")
MISSING = "These tests need chromium and chromedriver: apt-get install chromium chromium-driver (or `make browser`)."
SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class MissingError(Exception):
    pass


@contextmanager
def chromium(profile: Path, *, scheme: Literal["light", "dark"] = "light", width: int = 1100) -> Iterator[Chrome]:
    """Raises MissingError, which says what to install."""
    found = [shutil.which(program) for program in PROGRAMS]
    if None in found:
        raise MissingError(MISSING)
    browser, driver = found
    options = ChromeOptions()
    options.binary_location = str(browser)
    for switch in (*SWITCHES, f"--user-data-dir={profile}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    chrome = Chrome(options, ChromeService(executable_path=str(driver)))
    try:
        look(chrome, scheme=scheme, width=width)
        yield chrome
    finally:
        chrome.quit()


def look(chrome: Chrome, *, scheme: Literal["light", "dark"] = "light", width: int = 1100, height: int = 900) -> None:
    """As somebody with these preferences sees it, on a screen of this many pixels."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def requested(chrome: Chrome) -> set[str]:
    """Host and port of all that was asked for since the last time, but what the browser itself has within."""
    hosts = set()
    for entry in _log(chrome, "performance"):
        message: dict[str, Any] = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = urlsplit(message["params"]["request"]["url"])
            if url.scheme not in ("data", "blob", "chrome", "about"):
                hosts.add(url.netloc)
    return hosts


def complaints(chrome: Chrome) -> list[str]:
    """Return the entries of the console since the last time."""
    return [f"{entry['source']}: {entry['message']}" for entry in _log(chrome, "browser")]


def _log(chrome: Chrome, kind: str) -> list[dict[str, str]]:
    entries: list[dict[str, str]] = chrome.get_log(kind)  # type: ignore[no-untyped-call]
    return entries

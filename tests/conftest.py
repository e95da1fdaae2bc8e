"""Fixtures of every test: an environment without the developer's settings, and a log in which no secret may be."""

import gc
import os
from collections.abc import Iterator
from io import StringIO
from logging import StreamHandler

import pytest

from crm_bridge.runtime import runtime
from crm_bridge.telemetry import logger

NEVER_LOGGED = (
    *("crmb_", "whsec_", "good-key", "illu-key", "illu-demo-key", "a-secret", "hush-hush", "Moi Ave", "Bearer "),
    *("/webhooks", "b2Ytbm8t", "hubspot-demo-secret"),
)
"""The keys, secrets and addresses that tests use."""


def pytest_collection_finish() -> None:
    """All that is imported stays. To look through it for garbage again and again takes a sixth of a test run."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def forget_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """For fixtures that live longer than a test."""
    for name in os.environ:
        if name.startswith(("AWS_", "LOG_LEVEL", "POWERTOOLS_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    forget_settings(monkeypatch)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "CrmBridge/test")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    yield
    runtime.cache_clear()


@pytest.fixture(autouse=True)
def log() -> Iterator[StringIO]:
    """The log of the functions during a test."""
    stream = StringIO()
    handler = logger().handlers[0]
    assert isinstance(handler, StreamHandler)
    before, handler.stream = handler.stream, stream
    yield stream
    handler.stream = before
    found = [secret for secret in NEVER_LOGGED if secret in stream.getvalue()]
    assert not found, f"logged: {found}"

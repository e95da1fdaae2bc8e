"""A caller of vendors that are bare sockets: see `tests/integration/sockets.py`."""

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from crm_bridge.errors import VendorError
from crm_bridge.outbound.response import VendorResponse, expect
from crm_bridge.outbound.transport import MAX_RESPONSE, Deadline, Transport
from local.server import HOST
from tests.integration.sockets import Vendor, Vendors

SOON = 1.25
"""Seconds of a deadline that a test waits for. Half of them are for connecting, and half for the answer."""
NO_HANG = 3.0
"""Seconds after which a call with that deadline surely hangs."""
KEY = 's3cret"key\\1'
HEADERS = {"Authorization": f"Bearer {KEY}"}
BODY = {"address": "Moi-Avenue-12"}
SECRETS = ("Wanjiru", "s3cret", "Bearer", "Moi-Avenue")


@pytest.fixture
def vendors() -> Iterator[Vendors]:
    with Vendors() as stack:
        yield stack


class Bridge:
    """The caller: every call is one that creates something, and counts as done with 201 only."""

    def __init__(self) -> None:
        self.transport = Transport(on_this_machine=frozenset({HOST}))

    def fresh(self) -> None:
        """Nothing is down any more, and no connection is open."""
        self.transport._adapter.close()
        self.transport = Transport(on_this_machine=frozenset({HOST}))

    def call(
        self, url: str, *, seconds: float = 20, method: str = "POST", max_response: int = MAX_RESPONSE
    ) -> VendorResponse:
        answer = self.transport.call(
            "acme",
            method,
            url,
            deadline=Deadline(seconds),
            headers=HEADERS,
            body=BODY if method == "POST" else None,
            secrets=(KEY,),
            max_response=max_response,
        )
        expect(answer, 201)
        return answer

    def fails(self, error: type[VendorError], vendor: Vendor, *, seconds: float = 20, case: object = "") -> VendorError:
        """The error of a call that fails with just this kind after one request, and shows nothing of that."""
        before = len(vendor.requests)
        self.fresh()
        with pytest.raises(VendorError) as caught:
            self.call(vendor.url, seconds=seconds)
        assert type(caught.value) is error, case
        assert len(vendor.requests) == before + 1, case
        shown = "".join([repr(caught.value), caught.value.message, *traceback.format_exception(caught.value)])
        assert not [secret for secret in SECRETS if secret in shown], case
        return caught.value


@pytest.fixture
def bridge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bridge]:
    monkeypatch.setattr("crm_bridge.outbound.transport.SHORTEST_CALL", 0.5)  # so that tests need not wait for long
    bridge = Bridge()
    yield bridge
    bridge.transport._adapter.close()


@contextmanager
def no_hang() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < NO_HANG

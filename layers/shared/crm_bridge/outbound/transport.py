"""HTTP to a vendor: within the deadline, without redirects, and sure of what may have happened when it fails.

This is the one place that decides whether a call that brought no result surely did nothing, may have done something, or
was refused. A client may sharpen it where its vendor says more, such as a failure with status 200.
"""

import io
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from http import HTTPStatus
from queue import SimpleQueue
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import requests
import urllib3
from requests.adapters import BaseAdapter

from crm_bridge.errors import (
    ContractBrokenError,
    MaybeDoneError,
    NotDoneError,
    TryLaterError,
)
from crm_bridge.outbound.breaker import Breaker
from crm_bridge.outbound.calls import Calls
from crm_bridge.outbound.connections import CuttableAdapter, Exchange
from crm_bridge.outbound.public_addresses import PublicAdapter
from crm_bridge.outbound.response import VendorResponse
from crm_bridge.telemetry import measure

CONNECT_TIMEOUT = 3.05
READ_TIMEOUT = 20.0
SHORTEST_CALL = 5.0
"""A call is not begun with less time than this: its response might be lost for no other reason."""
MAX_RESPONSE = 64 * 1024
"""Bytes; so much fits into an operation's record. What lists records takes more."""
MAX_IDLE = 4.0
"""Seconds of the wall clock. A pooled connection that was idle for longer may be dead without a sign.

The monotonic clock may stand still while Lambda freezes the execution environment, so it cannot measure this.
"""
USER_AGENT = "crm-bridge"
RESERVE = 8.0
"""Seconds of a function's time that no vendor call may use, so that it can always settle its operation itself."""
AFTER_DEADLINE = RESERVE + 10
"""Seconds that a lease outlasts its holder's deadline: until the function ends, and as much as clocks may differ."""


class Deadline:
    """When the work of one invocation must be over, in seconds of a steady clock."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def remaining(self) -> float:
        return self._end - self._clock()


class _Body(io.BytesIO):
    """A request body that knows whether it has begun to leave, and can be held back.

    It is read only after the connection stands and the headers were written. As long as that has not happened, no
    vendor can have acted on the request.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._lock = threading.Lock()
        self._left = False
        self._held_back = False

    def read(self, size: int | None = -1) -> bytes:
        with self._lock:
            if self._held_back:
                raise TimeoutError("the deadline is over")
            self._left = True
        return super().read(size)

    def hold_back(self) -> bool:
        """From here on it does not begin to leave; False if it had begun before."""
        with self._lock:
            self._held_back = True
            return not self._left


class Scope(NamedTuple):
    """Whose credentials are used, and which version of them: what one scope remembers or uses up is no other's."""

    tenant: str = ""
    version: str = ""


@dataclass(frozen=True)
class Pace:
    """At most `calls` in `seconds` to one account at a vendor, as far as this execution environment calls it."""

    account: str
    calls: int
    seconds: float


class Transport:
    """A pool of connections for one execution environment; threads may share it.

    `clock` and `sleep` are those of the pace; how long a vendor takes is told by the same clock.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        breaker: Breaker | None = None,
        on_this_machine: frozenset[str] = frozenset(),
    ) -> None:
        """`on_this_machine`: the hosts that may be called although they are not public (`public.local_hosts`)."""
        self.on_this_machine = on_this_machine
        self._breaker = breaker or Breaker(clock)
        self._clock = clock
        self._sleep = sleep
        self.scope = Scope()
        self._calls: Calls | None = None
        self._begun: dict[tuple[str, Pace], deque[float]] = {}
        self._pacing = threading.Lock()
        # Requests are handed to requests' adapters without a session, which would follow redirects, keep cookies of one
        # tenant for another, and heed proxies and .netrc of the machine.
        self._adapter: BaseAdapter = CuttableAdapter()
        self._public: BaseAdapter = PublicAdapter()
        # It warns of odd responses with the whole URL, and a URL may hold a customer's name.
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)
        self._used_at: dict[str, float] = {}

    def of(self, scope: Scope, calls: Calls | None = None) -> "Transport":
        """Return the same, for the calls of one scope, which are noted in `calls`.

        Connections are shared, failures and paces are not.
        """
        bound = copy(self)
        bound.scope = scope
        bound._calls = calls  # noqa: SLF001 - a copy of itself
        return bound

    def call(
        self,
        vendor: str,
        method: str,
        url: str,
        *,
        deadline: Deadline,
        headers: Mapping[str, str],
        body: object = None,
        form: Mapping[str, str] | None = None,
        secrets: tuple[str, ...] = (),
        max_response: int | None = MAX_RESPONSE,
        pace: Pace | None = None,
        path: str = "",
        shows_bodies: bool = False,
    ) -> VendorResponse:
        """One request, never repeated; `body` is sent as JSON, or else `form` as an HTML form's fields.

        Bytes are JSON already. With a `pace` it may wait for its turn first. Without `max_response` the body is
        not read. Nothing is called but public addresses, with TLS, and what is `on_this_machine`. It is noted with
        this `path`; its bodies only if it `shows_bodies`.

        Raises NotDoneError where a body cannot have reached the vendor, be it because the vendor is down and this is
        not the call that finds out; else MaybeDoneError where no whole response came back. A response of any status is
        returned: see `expect`.
        """
        if pace:
            self._wait_for(pace, vendor, deadline)
        remaining = deadline.remaining()
        if remaining < SHORTEST_CALL:
            raise NotDoneError(f"no time was left to call {vendor}", vendor=vendor)
        parts = urlsplit(url)
        host = parts.netloc
        tenant = self.scope.tenant
        self._breaker.admit(vendor, host, tenant)
        self._drop_idle_connections(host)
        data, kind = _encoded(body, form)
        sent = {**headers, "Accept": "application/json", "User-Agent": USER_AGENT, "Accept-Encoding": "gzip", **kind}
        request = requests.Request(method, url, headers=sent, data=data)
        adapter = self._adapter if {host, parts.hostname} & self.on_this_machine else self._public

        exchange = Exchange()

        def receive() -> VendorResponse:
            timeouts = (CONNECT_TIMEOUT, READ_TIMEOUT)
            with exchange.running(), adapter.send(request.prepare(), stream=True, timeout=timeouts) as raw:
                content = b"" if max_response is None else _read(raw, max_response)
                return VendorResponse(vendor, raw.status_code, raw.headers, content, secrets)

        begun = self._clock()
        response: VendorResponse | None = None
        failure = "Error"
        try:
            response = _within(remaining, receive)
        except (requests.RequestException, urllib3.exceptions.HTTPError, TimeoutError) as error:
            self._breaker.failed(vendor, host, tenant)
            # The text of these errors shows the URL, so only their kind is told.
            failure = name = type(error).__name__
            is_held_back = data is not None and data.hold_back()
            exchange.cut()  # its thread would go on for as long as the vendor likes
            if is_held_back:
                raise NotDoneError(f"{vendor} could not be reached ({name})", vendor=vendor) from None
            raise MaybeDoneError(f"the response of {vendor} was lost ({name})", vendor=vendor) from None
        finally:
            took = 1000 * (self._clock() - begun)
            measure("VendorLatency", round(took, 1), "Milliseconds", vendor=vendor)
            if self._calls is not None:
                outcome = failure if response is None else response.status
                left = data.getvalue() if data is not None and shows_bodies else None
                # What a look-up finds may be other people's: it does not belong to this event.
                is_found = method == "GET" and response is not None and response.status < HTTPStatus.BAD_REQUEST
                shown = response if shows_bodies and not is_found else None
                self._calls.add(method, path, outcome, round(took), secrets=secrets, request=left, response=shown)
        if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._breaker.failed(vendor, host, tenant)
        else:
            self._breaker.worked(host, tenant)
        return response

    def is_down(self, vendor: str, tenant: str) -> bool:
        return self._breaker.is_down(vendor, tenant)

    def retry_at(self, vendor: str, tenant: str) -> float:
        return self._breaker.retry_at(vendor, tenant)

    def _wait_for(self, pace: Pace, vendor: str, deadline: Deadline) -> None:
        """Raises NotDoneError if its turn comes too late for this deadline."""
        with self._pacing:
            begun = self._begun.setdefault((self.scope.tenant, pace), deque(maxlen=pace.calls))
            now = self._clock()
            turn = max(now, begun[0] + pace.seconds) if len(begun) == begun.maxlen else now
            if turn - now > deadline.remaining() - SHORTEST_CALL:
                raise NotDoneError(
                    f"{vendor} takes no more calls of this account within the deadline",
                    vendor=vendor,
                    retry_after=turn - now,
                )
            begun.append(turn)
        if turn > now:
            self._sleep(turn - now)

    def _drop_idle_connections(self, host: str) -> None:
        now = time.time()
        idle = now - self._used_at.get(host, now)
        if not 0 <= idle <= MAX_IDLE:  # below 0, the clock was set back, and the time is unknown
            self._adapter.close()
            self._public.close()
            self._used_at.clear()
        self._used_at[host] = now


def _encoded(body: object, form: Mapping[str, str] | None) -> tuple[_Body | None, Mapping[str, str]]:
    """Return the body and its `Content-Type`; a form without a field is sent without a body."""
    if body is not None:
        content = body if isinstance(body, bytes) else json.dumps(body, allow_nan=False).encode()
        return _Body(content), {"Content-Type": "application/json"}
    if form is not None:
        return _Body(urlencode(form).encode()) if form else None, {"Content-Type": "application/x-www-form-urlencoded"}
    return None, {}


@contextmanager
def changing_nothing() -> Iterator[None]:
    """Around a call that may be repeated: if its response is lost, it counts as not done, and never as in doubt."""
    try:
        yield
    except ContractBrokenError:
        raise
    except (MaybeDoneError, TryLaterError) as error:
        raise NotDoneError(
            error.message, vendor=error.vendor, status=error.status, retry_after=error.retry_after
        ) from None


def _read(response: requests.Response, limit: int) -> bytes:
    """The body, unless it is too large."""
    body = bytearray()
    for piece in response.iter_content(64 * 1024):
        body += piece
        if len(body) > limit:
            raise urllib3.exceptions.HTTPError("the response is too large")
    return bytes(body)


type _Inbox = SimpleQueue[tuple[Callable[[], Any], Future[Any]]]
_idle: deque[_Inbox] = deque()
"""The inboxes of threads that have nothing to do, the last to become so last."""


def _within[T](seconds: float, work: Callable[[], T]) -> T:
    """The result of `work`, or TimeoutError when `seconds` are over.

    A socket's timeout begins anew with every byte, and looking up a name has none at all. So the work is done in a
    thread of its own, and the caller cuts the connection when it takes too long (see `connections`). A thread that is
    through does the next work: to start one would take as much time as all that the bridge itself does for an event.
    """
    done: Future[T] = Future()
    try:
        inbox = _idle.pop()
    except IndexError:
        inbox = SimpleQueue()
        threading.Thread(target=_work, args=(inbox,), name="vendor call", daemon=True).start()
    inbox.put((work, done))
    return done.result(timeout=seconds)


def _work(inbox: _Inbox) -> None:
    while True:
        _do(inbox, *inbox.get())


def _do(inbox: _Inbox, work: Callable[[], Any], done: Future[Any]) -> None:
    """In a function of its own, so that nothing of a call outlives it in a thread that waits for the next."""
    try:
        result = work()
    except Exception as error:  # noqa: BLE001 - handed to whoever waits
        _idle.append(inbox)
        done.set_exception(error)
    else:
        _idle.append(inbox)
        done.set_result(result)

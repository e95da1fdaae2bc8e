"""HTTP to a vendor: within the deadline, without redirects, and sure of what may have happened when it fails.

This is the one place that decides whether a call that brought no result surely did nothing, may have done something, or
was refused. A client may sharpen it where its vendor says more (`IzzitUp` reports failures with status 200).
"""

import base64
import io
import json
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cache, cached_property, lru_cache
from html.entities import html5
from http import HTTPStatus
from queue import SimpleQueue
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import pydantic_core
import requests
import urllib3
from requests.adapters import BaseAdapter

from crm_bridge.breaker import Breaker
from crm_bridge.connections import CuttableAdapter, Exchange
from crm_bridge.errors import (
    AddressMovedError,
    ContractBrokenError,
    MaybeDoneError,
    NotDoneError,
    RefusedError,
    SignInRefusedError,
    TryLaterError,
    VendorError,
)
from crm_bridge.media import CharsetError, charset, text_of
from crm_bridge.public import PublicAdapter
from crm_bridge.telemetry import measure
from crm_bridge.words import plain

RESERVE = 8.0
"""Seconds of a function's time that no vendor call may use, so that it can always settle its operation itself."""
AFTER_DEADLINE = RESERVE + 10
"""Seconds that a lease outlasts its holder's deadline: until the function ends, and as much as clocks may differ."""
CONNECT_TIMEOUT = 3.05
READ_TIMEOUT = 20.0
SHORTEST_CALL = 5.0
"""A call is not begun with less time than this: its answer might be lost for no other reason."""
MAX_ANSWER = 64 * 1024
"""Bytes; so much fits into an operation's record. What lists records takes more."""
MOST_CONTAINERS, MOST_ELEMENTS = 300_000, 2_000_000
"""Arrays and objects, and commas, of a JSON body. A list of 20 MB may have many more if they are empty, and each takes
ten times its size or more in memory, of which a function has 512 MB."""
MAX_IDLE = 4.0
"""Seconds of the wall clock. A pooled connection that was idle for longer may be dead without a sign.

The monotonic clock may stand still while Lambda freezes the execution environment, so it cannot measure this.
"""
USER_AGENT = "crm-bridge"
MAX_WORDS = 1000
"""So much of a vendor's error text is kept, in characters."""
SHORTEST_SECRET, SHORTEST_IN_WORDS = 8, 4
"""Characters of the shortest secret that is masked in a result, and in an error's text. A shorter one would be found in
ids and in the middle of other words, and a mask there would show what the secret is."""
MASK = "***"
DEEPEST = 200
"""Levels of a result; what lies deeper is masked. JSON of more levels is not read at all (pydantic_core)."""


class Deadline:
    """When the work of one invocation must be over, in seconds of a steady clock."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def remaining(self) -> float:
        return self._end - self._clock()


@dataclass(frozen=True)
class Answer:
    """What a vendor answered, whatever its status. Its repr shows no customer data and no secret."""

    vendor: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    """What must not be shown if the vendor repeats it."""

    @property
    def retry_after(self) -> float | None:
        """Seconds that the vendor asked us to wait, if it did."""
        return _retry_after(self.headers)

    def json(self, *, masks: bool = True) -> Any:
        """The parsed body, in which secrets that the vendor repeats are masked (see `masked`).

        Without `masks` it may hold secrets: for a token, and for a record that is written back as a whole.
        Raises ContractBrokenError if it is not JSON, or has too many elements for a function.
        """
        parsed, is_clean = self._parsed
        return parsed if is_clean or not masks else self.masked(parsed)

    @cached_property
    def _parsed(self) -> tuple[Any, bool]:
        """The parsed body, and whether it has nothing to mask: a list may have millions of elements."""
        if self.body.count(b"[") + self.body.count(b"{") > MOST_CONTAINERS or self.body.count(b",") > MOST_ELEMENTS:
            message = f"{self.vendor} answered with a list of too many elements"
            raise ContractBrokenError(message, vendor=self.vendor, status=self.status)
        try:
            # There and back again: half a surrogate pair, endless nesting or NaN ends here, not in what we store.
            text = json.dumps(json.loads(self.text()), ensure_ascii=False)
            parsed = pydantic_core.from_json(text.encode(errors="replace"), allow_inf_nan=False)
        except (ValueError, RecursionError):
            raise ContractBrokenError(
                f"{self.vendor} answered {self.status} with a body that is not JSON",
                vendor=self.vendor,
                status=self.status,
            ) from None
        return parsed, _secrets(self.secrets, SHORTEST_SECRET).masked(text) == text

    def masked(self, parsed: Any) -> Any:
        """Return a part of this answer as it may be stored and returned: without the secrets that it was asked with, in
        whatever way they are written (see `_as_written`), also in members' names. Numbers are left as they are.
        """
        return _masked(parsed, _secrets(self.secrets, SHORTEST_SECRET).masked)

    def text(self) -> str:
        """The body in the charset that its Content-Type names, else in UTF-8. Raises CharsetError."""
        return text_of(self.body, charset(self.headers.get("Content-Type", "")))

    def text_to_show(self) -> str:
        """The same, with what cannot be read replaced."""
        try:
            return self.text()
        except CharsetError:
            return self.body.decode(errors="replace")

    def words(self) -> str:
        """The vendor's own words in an error: the usual members of a JSON object, or plain text; never markup, and
        never a whole object, which could be what we sent.
        """
        text = self.text_to_show()
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError):
            words = text.strip()
        else:
            words = _said(parsed)
        return self.shown(words)

    def shown(self, words: str) -> str:
        """Return words out of this response as they may be stored: `plain`, without markup or a secret, and cut."""
        if "<" in words:
            return ""
        mask = _secrets(self.secrets, SHORTEST_IN_WORDS).masked
        # Twice: an invisible character within a secret would keep it from being found, and is dropped afterwards.
        return mask(plain(mask(words), len(words)))[:MAX_WORDS]


def basic(user: str, password: str) -> str:
    """Return the credentials of HTTP Basic (RFC 7617). They are a secret too."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()


class _Secrets:
    """Those of `secrets` that have `shortest` characters. Each is masked from its first letter or digit on, if the rest
    is as long: a search for what stands before would take many times as long. Base64 may come without its padding.
    """

    def __init__(self, secrets: tuple[str, ...], shortest: int) -> None:
        long = {secret for secret in secrets if len(secret) >= shortest}
        begun = {secret: re.sub(r"^\W+|=+$", "", secret) for secret in long}
        masked = {rest if len(rest) >= shortest else secret for secret, rest in begun.items()}
        found = sorted(masked, key=len, reverse=True)
        # These are never escaped, hence a text without the longest row of them has no such secret.
        self._rows = [max(re.findall("[A-Za-z0-9]*", secret), key=len) for secret in found]
        parts = (re.findall(r"\\+|.", secret, re.DOTALL) for secret in found)
        self._pattern = re.compile("|".join("".join(map(_as_written, secret)) for secret in parts) or "(?!)")

    def masked(self, text: str) -> str:
        return self._pattern.sub(MASK, text) if any(row in text for row in self._rows) else text


_secrets = lru_cache(maxsize=256)(_Secrets)


@cache
def _as_written(part: str) -> str:
    """Return a pattern of a character, or of several backslashes, as it stands and as it is escaped in JSON, in an
    address or a form, and in HTML, up to three times over. The longest way comes first.

    Whatever a text holds, an attempt to match takes a bounded number of steps, so that a search is linear.
    """
    one, times = part[0], len(part)
    if one.isascii() and one.isalnum():
        return one  # what escapes these means to hide them
    backslashes = r"\\\\{0,14}"
    units, octets = one.encode("utf-16-be", "surrogatepass"), one.encode(errors="surrogatepass")
    named = {re.escape(name.rstrip(";")) for name, meant in html5.items() if meant == one}
    entities = [f"#0{{0,6}}{ord(one)}", f"#[xX]0{{0,6}}{_any_case(f'{ord(one):x}')}", *sorted(named, key=len)[::-1]]
    ways = [
        "".join(f"{backslashes}u{_any_case(units[at : at + 2].hex())}" for at in range(0, len(units), 2)),
        "".join(f"%(?:25){{0,2}}{_any_case(f'{octet:02x}')}" for octet in octets),
        f"&(?:amp;){{0,2}}(?:{'|'.join(entities)});?",
        *(["[+]"] if one == " " else []),
    ]
    if one == "\\":
        return f"(?:(?:{'|'.join(ways)}){{{times}}}|{re.escape(part)}{re.escape(one)}{{0,{15 * times}}})"
    short = json.dumps(one)[-2] if one.isascii() else one  # a line break is \n
    return f"(?:{'|'.join([*ways, backslashes + re.escape(short), re.escape(one)])})"


def _any_case(digits: str) -> str:
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in digits)


def _masked(value: Any, mask: Callable[[str], str], depth: int = 0) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict | list) and depth == DEEPEST:
        return MASK
    if isinstance(value, dict):
        return {mask(name): _masked(member, mask, depth + 1) for name, member in value.items()}
    if isinstance(value, list):
        return [_masked(member, mask, depth + 1) for member in value]
    return value


def _said(value: object, depth: int = 0) -> str:
    if depth > 4:
        return ""
    if isinstance(value, dict):
        members = (value.get(name) for name in ("message", "error", "error_message", "detail", "errors"))
        return next(filter(None, (_said(member, depth + 1) for member in members)), "")
    if isinstance(value, list):
        return "; ".join(filter(None, (_said(member, depth + 1) for member in value)))
    return value if isinstance(value, str) else ""


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
        self._begun: dict[tuple[str, Pace], deque[float]] = {}
        self._pacing = threading.Lock()
        # Requests are handed to requests' adapters without a session, which would follow redirects, keep cookies of one
        # tenant for another, and heed proxies and .netrc of the machine.
        self._adapter: BaseAdapter = CuttableAdapter()
        self._public: BaseAdapter = PublicAdapter()
        # It warns of odd answers with the whole URL, and a URL may hold a customer's name.
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)
        self._used_at: dict[str, float] = {}

    def of(self, scope: Scope) -> "Transport":
        """Return the same, for the calls of one scope: connections are shared, failures and paces are not."""
        bound = copy(self)
        bound.scope = scope
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
        max_answer: int | None = MAX_ANSWER,
        pace: Pace | None = None,
    ) -> Answer:
        """One request, never repeated; `body` is sent as JSON, or else `form` as an HTML form's fields.

        Bytes are JSON already. With a `pace` it may wait for its turn first. Without `max_answer` the answer's body is
        not read. Nothing is called but public addresses, with TLS, and what is `on_this_machine`.

        Raises NotDoneError where a body cannot have reached the vendor, be it because the vendor is down and this is
        not the call that finds out; else MaybeDoneError where no whole answer came back. An answer of any status is
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

        def answered() -> Answer:
            timeouts = (CONNECT_TIMEOUT, READ_TIMEOUT)
            with exchange.running(), adapter.send(request.prepare(), stream=True, timeout=timeouts) as response:
                received = b"" if max_answer is None else _read(response, max_answer)
                return Answer(vendor, response.status_code, response.headers, received, secrets)

        begun = self._clock()
        try:
            answer = _within(remaining, answered)
        except (requests.RequestException, urllib3.exceptions.HTTPError, TimeoutError) as error:
            self._breaker.failed(vendor, host, tenant)
            # The text of these errors shows the URL, so only their kind is told.
            name = type(error).__name__
            is_held_back = data is not None and data.hold_back()
            exchange.cut()  # its thread would go on for as long as the vendor likes
            if is_held_back:
                raise NotDoneError(f"{vendor} could not be reached ({name})", vendor=vendor) from None
            raise MaybeDoneError(f"the answer of {vendor} was lost ({name})", vendor=vendor) from None
        finally:
            measure("VendorLatency", round(1000 * (self._clock() - begun), 1), "Milliseconds", vendor=vendor)
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._breaker.failed(vendor, host, tenant)
        else:
            self._breaker.worked(host, tenant)
        return answer

    def is_down(self, vendor: str, tenant: str) -> bool:
        return self._breaker.is_down(vendor, tenant)

    def held_until(self, vendor: str, tenant: str) -> float:
        return self._breaker.held_until(vendor, tenant)

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
    """What is sent, and the header that says as what; a form without a field is sent as nothing at all."""
    if body is not None:
        content = body if isinstance(body, bytes) else json.dumps(body, allow_nan=False).encode()
        return _Body(content), {"Content-Type": "application/json"}
    if form is not None:
        return _Body(urlencode(form).encode()) if form else None, {"Content-Type": "application/x-www-form-urlencoded"}
    return None, {}


@contextmanager
def changing_nothing() -> Iterator[None]:
    """Around a call that only asks, or may be repeated: if its answer was lost, it is not done, and never in doubt."""
    try:
        yield
    except ContractBrokenError:
        raise
    except (MaybeDoneError, TryLaterError) as error:
        raise NotDoneError(
            error.message, vendor=error.vendor, status=error.status, retry_after=error.retry_after
        ) from None


def expect(answer: Answer, *statuses: int) -> None:
    """Returns if the status is one of `statuses`; else raises the VendorError that says what may have happened."""
    if answer.status in statuses:
        return
    raise _error(answer)


def _error(answer: Answer) -> VendorError:
    words = answer.words() if answer.status >= 400 else _moved_to(answer)
    message = f"{answer.vendor} answered {answer.status}" + (f": {words}" if words else "")
    kind: type[VendorError]
    match answer.status:
        case 301 | 307 | 308 if words:  # the request was not handled, and is to be sent to another address
            kind = AddressMovedError
        case 401 | 403:  # never the event's fault: a key was changed, or a right is missing
            kind = SignInRefusedError
        case 429:
            kind = TryLaterError
        case 503 if answer.retry_after is not None:
            kind = TryLaterError
        case 408:  # the vendor gave up waiting for the request; how much of it arrived is not said
            kind = MaybeDoneError
        case status if 400 <= status < 500:
            kind = RefusedError
        case status if status >= 500:  # 503 too: a proxy may say so after what is behind it has worked
            kind = MaybeDoneError
        case _:
            kind = ContractBrokenError
    return kind(message, vendor=answer.vendor, status=answer.status, retry_after=answer.retry_after)


def _moved_to(answer: Answer) -> str:
    """Return where a 301, 307 or 308 redirects to, for the operator: the host only, because path and query may carry
    secrets. Empty if the response is no such redirect, or names no address.

    Source: https://www.rfc-editor.org/rfc/rfc9110#section-15.4
    """
    if answer.status not in (301, 307, 308):
        return ""
    location = answer.headers.get("Location", "").strip()
    try:
        to = urlsplit(location)
        host, port = to.hostname or "", to.port
    except ValueError:
        return ""
    if not location or to.scheme not in ("", "http", "https") or not re.fullmatch(r"[a-z0-9.:-]{0,253}", host):
        return ""
    place = f"to {host}" + (f":{port}" if port else "") if host else "to another path on the same host"
    return answer.shown(f"the address has moved {place}. Correct its base_url")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds; from either form of RFC 9110. What is neither counts as not given."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _read(response: requests.Response, limit: int) -> bytes:
    """The body, unless it is too large."""
    body = bytearray()
    for piece in response.iter_content(64 * 1024):
        body += piece
        if len(body) > limit:
            raise urllib3.exceptions.HTTPError("the answer is too large")
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

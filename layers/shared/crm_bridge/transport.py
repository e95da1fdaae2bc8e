"""HTTP to a vendor: within the deadline, without redirects, and sure of what may have happened when it fails.

This is the one place that decides whether a call that brought no result surely did nothing, may have done something, or
was refused. A client may sharpen it where its vendor says more (`IzzitUp` reports failures with status 200).
"""

import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3

from crm_bridge.errors import (
    ContractBrokenError,
    MaybeDoneError,
    NotDoneError,
    RefusedError,
    SignInRefusedError,
    VendorError,
)

RESERVE = 8.0
"""Seconds of a function's time that no vendor call may use, so that it can always settle its operation itself."""
CONNECT_TIMEOUT = 3.05
READ_TIMEOUT = 20.0
SHORTEST_CALL = 1.0
"""A call is not begun with less time than this: its answer would be lost."""
MAX_ANSWER = 64 * 1024
"""Bytes; so much fits into an operation's record. What lists records takes more."""
MAX_IDLE = 15.0
"""A pooled connection that rested for longer may be dead without a sign, as after a frozen function wakes up."""
MAX_WORDS = 1000
"""So much of a vendor's error text is kept, in characters."""


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

    def json(self) -> Any:
        """The parsed body. Raises ContractBrokenError if it is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise ContractBrokenError(
                f"{self.vendor} answered {self.status} with a body that is not JSON",
                vendor=self.vendor,
                status=self.status,
            ) from None

    def words(self) -> str:
        """The vendor's own words in an error: the usual JSON members if there are, else plain text, never markup."""
        try:
            parsed = json.loads(self.body)
        except (ValueError, RecursionError):
            text = self.body.decode(errors="replace").strip()
            words = "" if "<" in text else text
        else:
            members = [parsed.get(name) for name in ("message", "error", "detail")] if isinstance(parsed, dict) else []
            said = [member for member in members if isinstance(member, str) and member]
            words = said[0] if said else json.dumps(parsed, ensure_ascii=False) if parsed else ""
        for secret in self.secrets:
            words = words.replace(secret, "***").replace(json.dumps(secret, ensure_ascii=False)[1:-1], "***")
        return words[:MAX_WORDS]


class _Body(io.BytesIO):
    """A request body that knows whether it has begun to leave.

    It is read only after the connection stands and the headers were written. As long as that has not happened, no
    vendor can have acted on the request.
    """

    left = False

    def read(self, size: int | None = -1) -> bytes:
        self.left = True
        return super().read(size)


class Transport:
    """A pool of connections for one execution environment; threads may share it."""

    def __init__(self) -> None:
        self._session = requests.Session()
        # The machine's proxy settings and .netrc must not redirect or re-authenticate a call, and one tenant's
        # cookie must not travel with another's.
        self._session.trust_env = False
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._used_at = time.monotonic()

    def call(
        self,
        vendor: str,
        method: str,
        url: str,
        *,
        deadline: Deadline,
        headers: Mapping[str, str],
        body: object = None,
        secrets: tuple[str, ...] = (),
        max_answer: int = MAX_ANSWER,
    ) -> Answer:
        """One request, never repeated; `body` is sent as JSON.

        Raises NotDoneError where the request cannot have reached the vendor, else MaybeDoneError where no whole answer
        came back. An answer of any status is returned: see `expect`.
        """
        remaining = deadline.remaining()
        if remaining < SHORTEST_CALL:
            raise NotDoneError(f"no time was left to call {vendor}", vendor=vendor)
        self._drop_idle_connections()
        data = _Body(json.dumps(body, allow_nan=False).encode()) if body is not None else None
        sent = {**headers, "Accept": "application/json"} | ({"Content-Type": "application/json"} if data else {})
        connect = min(CONNECT_TIMEOUT, remaining / 2)
        try:
            with self._session.request(
                method,
                url,
                data=data,
                headers=sent,
                timeout=(connect, min(READ_TIMEOUT, remaining - connect)),
                allow_redirects=False,
                stream=True,
            ) as response:
                content = _read(response, deadline, max_answer)
                return Answer(vendor, response.status_code, response.headers, content, secrets)
        except (requests.RequestException, urllib3.exceptions.HTTPError, TimeoutError) as error:
            # The text of these errors shows the URL, so only their kind is told.
            kind = type(error).__name__
            if data is not None and not data.left:
                raise NotDoneError(f"{vendor} could not be reached ({kind})", vendor=vendor) from error
            raise MaybeDoneError(f"the answer of {vendor} was lost ({kind})", vendor=vendor) from error

    def _drop_idle_connections(self) -> None:
        now = time.monotonic()
        if now - self._used_at > MAX_IDLE:
            self._session.close()
        self._used_at = now


def expect(answer: Answer, *statuses: int) -> None:
    """Returns if the status is one of `statuses`; else raises the VendorError that says what may have happened."""
    if answer.status in statuses:
        return
    raise _error(answer)


def _error(answer: Answer) -> VendorError:
    words = answer.words()
    message = f"{answer.vendor} answered {answer.status}" + (f": {words}" if words else "")
    kind: type[VendorError]
    match answer.status:
        case 401:
            kind = SignInRefusedError
        case 429 | 503:
            kind = NotDoneError
        case 408:  # the vendor gave up waiting for the request; how much of it arrived is not said
            kind = MaybeDoneError
        case status if 400 <= status < 500:
            kind = RefusedError
        case status if status >= 500:
            kind = MaybeDoneError
        case _:
            kind = ContractBrokenError
    return kind(message, vendor=answer.vendor, status=answer.status, retry_after=_retry_after(answer.headers))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds; from either form of RFC 9110. What is neither counts as not given."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _read(response: requests.Response, deadline: Deadline, limit: int) -> bytes:
    """The body, in pieces, so that neither a slow nor an endless answer can hold the function."""
    body = bytearray()
    for piece in response.iter_content(64 * 1024):
        body += piece
        if len(body) > limit:
            raise urllib3.exceptions.HTTPError("the answer is too large")
        if deadline.remaining() <= 0:
            raise TimeoutError("the answer is too slow")
    return bytes(body)

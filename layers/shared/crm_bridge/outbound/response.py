"""A vendor's response: reading it, showing it without secrets, and the error that it means."""

import base64
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cache, cached_property, lru_cache
from html.entities import html5
from typing import Any
from urllib.parse import urlsplit

import pydantic_core

from crm_bridge.errors import (
    AddressMovedError,
    ContractBrokenError,
    MaybeDoneError,
    RefusedError,
    SignInRefusedError,
    TryLaterError,
    VendorError,
)
from crm_bridge.media import CharsetError, charset, text_of
from crm_bridge.words import plain, plain_lines

MOST_CONTAINERS, MOST_ELEMENTS = 300_000, 2_000_000
"""Arrays and objects, and commas, of a JSON body. A list of 20 MB may have many more if they are empty, and each takes
ten times its size or more in memory, of which a function has 512 MB."""
MAX_WORDS = 1000
"""So much of a vendor's error text is kept, in characters."""
SHORTEST_SECRET, SHORTEST_IN_WORDS = 8, 4
"""Characters of the shortest secret that is masked in a result, and in an error's text. A shorter one would be found in
ids and in the middle of other words, and a mask there would show what the secret is."""
MASK = "***"
LARGEST_BODY, MASKED_BODY = 2048, 64 * 1024
"""Characters of a body that are stored for a person, and from which a longer one is cut before it is masked."""
LONGEST_WAY = 48
"""Characters that one of a secret's may take where it is escaped (see `_as_written`)."""
DEEPEST = 200
"""Levels of a result; what lies deeper is masked. JSON of more levels is not read at all (pydantic_core)."""


@dataclass(frozen=True)
class VendorResponse:
    """A vendor's response of any status. Its repr shows no customer data and no secret."""

    vendor: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    """What must not be shown if the vendor repeats it."""

    @property
    def retry_after(self) -> float | None:
        """Return the seconds that the vendor asked us to wait, if it did."""
        return _retry_after(self.headers)

    def json(self, *, masks: bool = True) -> Any:
        """Return the parsed body, in which secrets that the vendor repeats are masked (see `masked`).

        Without `masks` it may hold secrets: for a token, and for a record that is written back as a whole.
        Raises ContractBrokenError if it is not JSON, or has too many elements for a function.
        """
        parsed, is_clean = self._parsed
        return parsed if is_clean or not masks else self.masked(parsed)

    @cached_property
    def _parsed(self) -> tuple[Any, bool]:
        """Return the parsed body, and whether it has nothing to mask: a list may have millions of elements."""
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
        """Return a part of this response as it may be stored and returned: without the secrets of the request, in any
        form (see `_as_written`), also in members' names. Numbers are left as they are.
        """
        return _masked(parsed, _secrets(self.secrets, SHORTEST_SECRET).masked)

    def text(self) -> str:
        """Return the body in the charset that its Content-Type names, else in UTF-8. Raises CharsetError."""
        return text_of(self.body, charset(self.headers.get("Content-Type", "")))

    def readable_text(self) -> str:
        """Return the same, with what cannot be read replaced."""
        try:
            return self.text()
        except CharsetError:
            return self.body.decode(errors="replace")

    def words(self) -> str:
        """Return the vendor's own words in an error: the usual members of a JSON object, or plain text.

        Never markup, and never a whole object, which could be what we sent.
        """
        text = self.readable_text()
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


def shown_body(text: str, secrets: tuple[str, ...]) -> str:
    """Return the beginning of a body as a person may see it: without a secret in any form, and cut."""
    part = text[:MASKED_BODY]
    mask = _secrets(secrets, SHORTEST_IN_WORDS).masked
    shown = mask(plain_lines(mask(part)))  # twice, as in `VendorResponse.shown`
    if len(part) < len(text):  # a secret may have been cut in two at the end
        shown = shown[: max(0, len(shown) - LONGEST_WAY * max(map(len, secrets), default=0))]
    return shown[:LARGEST_BODY]


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


def expect(response: VendorResponse, *statuses: int) -> None:
    """Raise the VendorError that says what may have happened, unless the status is one of `statuses`."""
    if response.status in statuses:
        return
    raise _error(response)


def _error(response: VendorResponse) -> VendorError:
    words = response.words() if response.status >= 400 else _moved_to(response)
    message = f"{response.vendor} answered {response.status}" + (f": {words}" if words else "")
    kind: type[VendorError]
    match response.status:
        case 301 | 307 | 308 if words:  # the request was not handled, and is to be sent to another address
            kind = AddressMovedError
        case 401 | 403:  # never the event's fault: a key was changed, or a right is missing
            kind = SignInRefusedError
        case 429:
            kind = TryLaterError
        case 503 if response.retry_after is not None:
            kind = TryLaterError
        case 408:  # the vendor gave up waiting for the request; how much of it arrived is not said
            kind = MaybeDoneError
        case status if 400 <= status < 500:
            kind = RefusedError
        case status if status >= 500:  # 503 too: a proxy may say so after what is behind it has worked
            kind = MaybeDoneError
        case _:
            kind = ContractBrokenError
    return kind(message, vendor=response.vendor, status=response.status, retry_after=response.retry_after)


def _moved_to(response: VendorResponse) -> str:
    """Return where a 301, 307 or 308 redirects to, for the operator: the host only, because path and query may carry
    secrets. Empty if the response is no such redirect, or names no address.

    Source: https://www.rfc-editor.org/rfc/rfc9110#section-15.4
    """
    if response.status not in (301, 307, 308):
        return ""
    location = response.headers.get("Location", "").strip()
    try:
        to = urlsplit(location)
        host, port = to.hostname or "", to.port
    except ValueError:
        return ""
    if not location or to.scheme not in ("", "http", "https") or not re.fullmatch(r"[a-z0-9.:-]{0,253}", host):
        return ""
    place = f"to {host}" + (f":{port}" if port else "") if host else "to another path on the same host"
    return response.shown(f"the address has moved {place}. Correct its base_url")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds, from either form of RFC 9110; None for any other value."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None

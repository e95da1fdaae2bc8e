"""Proof by a signature over parts of a request, in any of the schemes that senders use.

A signature is computed and compared as text, so its base64 has one form only; hexadecimal digits may be of either case.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from crm_bridge.fields import ON_LAMBDA
from crm_bridge.sources.incoming import Incoming
from crm_bridge.sources.proof import HeaderName, Proof, Read, is_one_of, secrets_of

if TYPE_CHECKING:
    from crm_bridge.sources.settings import SourceSettings

MOST_SIGNATURES = 10
"""Signatures in one header that are looked at. A sender signs with two secrets while one is replaced."""
_NUMBER = re.compile("[0-9]{1,16}", re.ASCII)
type Part = Annotated[str, Field(pattern="^(secret|method|url|timestamp|body|header:[a-z0-9-]{1,100})$")]


@dataclass(frozen=True)
class Signature(Proof):
    """A signature in a header. Parts that a sender does not use keep their defaults."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", defer_build=True, use_attribute_docstrings=not ON_LAMBDA)

    header: HeaderName
    """The header that has the signature, in lower case. `header` of the source can name another one."""
    digest: Literal["hmac-sha256", "hmac-sha512", "sha256"] = "hmac-sha256"
    """`sha256` is the plain hash of a text; then `secret` must be one of the `parts`."""
    encoding: Literal["hex", "base64"] = "hex"
    """How the signature is written."""
    parts: Annotated[tuple[Part, ...], Field(min_length=1, max_length=10)] = ("body",)
    """The signed parts, in their order: `secret`, `method`, `url`, `timestamp`, `body`, and `header:NAME`."""
    separator: Annotated[str, Field(max_length=5)] = ""
    """The text between the parts."""
    prefix: Annotated[str, Field(max_length=20)] = ""
    """The text before a signature, such as `sha256=`."""
    several: Literal["", " ", ","] = ""
    """The separator of several signatures in the header: a space or a comma; empty if there is only one."""
    timestamp: Annotated[str, Field(pattern="^[a-z0-9-]{1,100}$|^[a-z]{1,10}=$")] | None = None
    """The header that has the time; or, if it ends with `=`, the item of the signature's header, such as `t=`."""
    unit: Literal["s", "ms", "iso"] = "s"
    """How the time is written: seconds or milliseconds since 1970, or ISO 8601 with an offset."""
    key: Literal["text", "base64", "hex"] = "text"
    """Whether the key is the text of the secret, or the bytes that it encodes in `base64` or `hex`."""
    key_prefix: Annotated[str, Field(max_length=20)] = ""
    """The text before the encoded key in the secret, such as `whsec_`. It is not part of the key."""

    def __post_init__(self) -> None:
        if "body" not in self.parts:
            raise ValueError("parts must contain body: what is not signed can be forged")
        if (self.digest == "sha256") is not ("secret" in self.parts):
            raise ValueError("secret is a part with the digest sha256, and only then")
        if not self.separator and any(part.startswith("header:") for part in self.parts):
            raise ValueError("give a separator with a header: its end could be taken for the start of what follows")
        if (self.timestamp is not None) is not ("timestamp" in self.parts):
            raise ValueError("give timestamp if it is a part, and only then")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"url"} & {*self.parts})

    @property
    def takes(self) -> frozenset[str]:
        return frozenset({"header"})

    def check(self, secret: str) -> None:
        self._key(secret)

    def holds(self, settings: "SourceSettings", incoming: Incoming, now: float, read: Read) -> bool:  # noqa: ARG002
        header = incoming.headers.get(settings.header or self.header, "")
        items = [item.strip() for item in header.split(self.several)] if self.several else [header]
        stamp = self._timestamp(incoming, items)
        if stamp is None or not self._is_in_time(stamp, now, settings.tolerance):
            return False
        given = [item.removeprefix(self.prefix) for item in items if item.startswith(self.prefix)]
        if not given or len(given) > MOST_SIGNATURES:
            return False
        expected = []
        for secret in secrets_of(settings):
            signed = self.signed(secret, settings.url or "", incoming, stamp)
            if signed is None:
                return False
            expected.append(self.sign(secret, signed))
        hits = [is_one_of(one.lower() if self.encoding == "hex" else one, expected) for one in given]
        return any(hits)

    def signed(self, secret: str, url: str, incoming: Incoming, stamp: str) -> bytes | None:
        """Return what is signed; None if a part is missing, or has the separator in it and so could be two."""
        found: list[bytes] = []
        for part in self.parts:
            if part == "body":
                found.append(incoming.body)
                continue
            if part.startswith("header:"):
                text = incoming.headers.get(part.removeprefix("header:"), "")
            else:
                values = {"secret": secret, "method": incoming.method, "url": url, "timestamp": stamp}
                text = values[part]
            if not text or (self.separator and self.separator in text and part not in ("secret", "url")):
                return None
            found.append(text.encode(errors="replace"))
        return self.separator.encode().join(found)

    def sign(self, secret: str, signed: bytes) -> str:
        """Return the signature of a text."""
        if self.digest == "sha256":
            digest = hashlib.sha256(signed).digest()
        else:
            digest = hmac.digest(self._key(secret), signed, self.digest.removeprefix("hmac-"))
        return digest.hex() if self.encoding == "hex" else base64.b64encode(digest).decode()

    def _key(self, secret: str) -> bytes:
        if self.key == "text":
            return secret.encode()
        text = secret.removeprefix(self.key_prefix)
        try:
            key = base64.b64decode(text, validate=True) if self.key == "base64" else bytes.fromhex(text)
        except ValueError:
            raise ValueError(f"must be {self.key_prefix or 'text'} in {self.key}") from None
        if len(key) < 16:
            raise ValueError("must have a key of at least 16 bytes")
        return key

    def _timestamp(self, incoming: Incoming, items: list[str]) -> str | None:
        """Return the signed time as it was written, empty if none is signed; None if it is missing or ambiguous."""
        if self.timestamp is None:
            return ""
        if not self.timestamp.endswith("="):
            return incoming.headers.get(self.timestamp)
        stamps = [item.removeprefix(self.timestamp) for item in items if item.startswith(self.timestamp)]
        return stamps[0] if len(stamps) == 1 else None

    def _is_in_time(self, stamp: str, now: float, tolerance: int) -> bool:
        if self.timestamp is None:
            return True
        if self.unit == "iso":
            try:
                then = datetime.fromisoformat(stamp)
                seconds = then.timestamp() if then.tzinfo else None
            except (ValueError, OverflowError):
                seconds = None
        else:
            seconds = int(stamp) / (1000 if self.unit == "ms" else 1) if _NUMBER.fullmatch(stamp) else None
        return seconds is not None and abs(now - seconds) <= tolerance

"""How a sender proves who it is: a signature, a login, or a secret in a header, in the query or in the body.

Every proof accepts any of a source's secrets, so that a secret can be changed without a gap. All comparisons take the
same time wherever two texts differ, and all secrets are compared.
"""

import hmac
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol

from pydantic import Field, JsonValue

from crm_bridge.sources.incoming import Incoming

if TYPE_CHECKING:
    from crm_bridge.sources.settings import SourceSettings

MOST_SIGNATURES = 10
"""Signatures in one header that are looked at. A sender signs with two secrets while one is replaced."""
_NUMBER = re.compile("[0-9]{1,16}", re.ASCII)
type HeaderName = Annotated[str, Field(pattern="^[a-z0-9-]{1,100}$")]
"""In lower case."""
type Part = Annotated[str, Field(pattern="^(secret|method|url|timestamp|body|header:[a-z0-9-]{1,100})$")]
type Read = Callable[[], JsonValue]
"""Returns the parsed body. Raises ProblemError."""


class Proof(Protocol):
    """One way to prove who sent a request."""

    @property
    def needs(self) -> frozenset[str]:
        """The settings that it cannot do without."""

    @property
    def takes(self) -> frozenset[str]:
        """The settings that it uses if they are there."""

    def holds(self, settings: "SourceSettings", incoming: Incoming, now: float, read: Read) -> bool:
        """Return whether the request proves that it is from the source. Does not raise."""

    def without(self, body: JsonValue) -> JsonValue:
        """Return the parsed body without the proof, which must not be stored."""


class _NotInBody:
    """The base of the proofs that leave no trace in the body."""

    needs: ClassVar[frozenset[str]] = frozenset({"secrets"})
    takes: ClassVar[frozenset[str]] = frozenset()

    def without(self, body: JsonValue) -> JsonValue:
        return body


def _secrets(settings: "SourceSettings") -> list[str]:
    return [secret.get_secret_value() for secret in settings.secrets]


def _is_one_of(given: str, expected: Iterable[str]) -> bool:
    sent = given.encode(errors="replace")
    return any([hmac.compare_digest(sent, one.encode()) for one in expected])  # noqa: C419 - all are compared


@dataclass(frozen=True)
class Header(_NotInBody):
    """A secret in a header."""

    name: str
    prefix: str = ""
    """Stands before the secret, such as `Bearer `."""

    takes = frozenset({"header"})

    def holds(self, settings: "SourceSettings", incoming: Incoming, now: float, read: Read) -> bool:  # noqa: ARG002
        given = incoming.headers.get(settings.header or self.name, "")
        return _is_one_of(given, (self.prefix + secret for secret in _secrets(settings)))

"""Checks that a sender is who it claims to be: by a signature, a login, or a secret in a header, the query or the body.

Every proof accepts any of a source's secrets, so that a secret can be replaced without a gap. A comparison takes the
same time wherever two texts differ, and all secrets are compared.
"""

import base64
import hmac
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, JsonValue

from crm_bridge.errors import ProblemError
from crm_bridge.ids import canonical
from crm_bridge.sources.incoming import Incoming

if TYPE_CHECKING:
    from crm_bridge.sources.settings import SourceSettings

type HeaderName = Annotated[str, Field(pattern="^[a-z0-9-]{1,100}$")]
"""In lower case."""
type Read = Callable[[], JsonValue]
"""Returns the parsed body. Raises ProblemError."""


class Proof(ABC):
    """One way to prove who sent a request."""

    is_in_body: ClassVar[bool] = False
    """Whether the body has a secret in it, so that a body that was not split into events must not be stored."""

    @property
    def needs(self) -> frozenset[str]:
        """Return the settings that it cannot do without, besides `secrets`."""
        return frozenset()

    @property
    def takes(self) -> frozenset[str]:
        """Return the settings that it uses if they are there."""
        return frozenset()

    @abstractmethod
    def holds(self, settings: "SourceSettings", incoming: Incoming, now: float, read: Read) -> bool:
        """Return whether the request proves that it is from the source. Does not raise."""

    def check(self, secret: str) -> None:  # noqa: B027 - most take any
        """Raise ValueError if a secret has not the form that the proof needs."""

    def without(self, body: JsonValue, settings: "SourceSettings") -> JsonValue:  # noqa: ARG002 - one needs it
        """Return the parsed body without the proof, which must not be stored."""
        return body


def secrets_of(settings: "SourceSettings") -> list[str]:
    return [secret.get_secret_value() for secret in settings.secrets]


def is_one_of(given: str | bytes, expected: Iterable[str]) -> bool:
    """Return whether `given` is one of these texts; all are compared."""
    sent = given.encode(errors="replace") if isinstance(given, str) else given
    return any([hmac.compare_digest(sent, one.encode()) for one in expected])  # noqa: C419 - all are compared


@dataclass(frozen=True)
class Header(Proof):
    """A secret in a header; `header` of the settings may give it another name."""

    name: str
    prefix: str = ""
    """Stands before the secret, such as `Bearer `."""
    takes = frozenset({"header"})

    def holds(self, settings: "SourceSettings", incoming: Incoming, now: float, read: Read) -> bool:  # noqa: ARG002
        given = incoming.headers.get(settings.header or self.name, "")
        return is_one_of(given, (self.prefix + secret for secret in secrets_of(settings)))


@dataclass(frozen=True)
class Basic(Proof):
    """A login by HTTP Basic: `user` and a secret as the password.

    Source: https://www.rfc-editor.org/rfc/rfc7617
    """

    needs = frozenset({"user"})

    def holds(self, settings: "SourceSettings", incoming: Incoming, now: float, read: Read) -> bool:  # noqa: ARG002
        scheme, _, encoded = incoming.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            login = base64.b64decode(encoded, validate=True)
        except ValueError:
            return False
        return is_one_of(login, (f"{settings.user}:{secret}" for secret in secrets_of(settings)))


@dataclass(frozen=True)
class Query(Proof):
    """A secret in the query, for senders that can do nothing else: addresses are written into logs on their way.

    `parameter` of the settings may give it another name.
    """

    name: str
    takes = frozenset({"parameter"})

    def holds(self, settings: "SourceSettings", incoming: Incoming, now: float, read: Read) -> bool:  # noqa: ARG002
        return is_one_of(incoming.query.get(settings.parameter or self.name, ""), secrets_of(settings))


@dataclass(frozen=True)
class BodyToken(Proof):
    """A secret in a member of the body, which is read for it: a body that cannot be read proves nothing.

    `parameter` of the settings may give the member another name.
    """

    name: str
    takes = frozenset({"parameter"})
    is_in_body = True

    def holds(self, settings: "SourceSettings", incoming: Incoming, now: float, read: Read) -> bool:  # noqa: ARG002
        try:
            body = read()
        except ProblemError:
            return False
        given = body.get(settings.parameter or self.name) if isinstance(body, dict) else None
        return isinstance(given, str) and is_one_of(given, secrets_of(settings))

    def without(self, body: JsonValue, settings: "SourceSettings") -> JsonValue:
        name = settings.parameter or self.name
        return {key: value for key, value in body.items() if key != name} if isinstance(body, dict) else body


@dataclass(frozen=True)
class Organization(Proof):
    """A secret in the query, and then the id of the sender's organization in a member of the body."""

    query: Query
    member: str
    needs = frozenset({"organization_id"})
    takes = frozenset({"parameter"})
    is_in_body = True  # an outbound message may have the id of a session

    def holds(self, settings: "SourceSettings", incoming: Incoming, now: float, read: Read) -> bool:
        if not self.query.holds(settings, incoming, now, read):
            return False
        try:
            body = read()
        except ProblemError:
            return False
        given = body.get(self.member) if isinstance(body, Mapping) else None
        return isinstance(given, str) and is_one_of(canonical(given), [canonical(settings.organization_id or "")])

"""A request of a sender, and the events in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from crm_bridge.errors import UnauthenticatedError

MAX_BODY = 1024 * 1024
"""Bytes of a request. The largest that is documented: Dataverse sends up to 256 KB, Salesforce up to 100 records."""
MOST_EVENTS = 500
"""Events in a request. The most that is documented is 100 (HubSpot, Salesforce)."""
LARGEST_EVENTS = 4 * MAX_BODY
"""Characters, as JSON, of all events of a request: what they share is in each of them."""


@dataclass(frozen=True)
class Incoming:
    """One HTTP request of a sender, as raw bytes. Its repr shows neither headers, nor query, nor body."""

    method: str
    headers: Mapping[str, str] = field(repr=False)
    """Names in lower case."""
    query: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    certificate: str = ""
    """The SHA-256 fingerprint of the client's TLS certificate, in lower-case hex; empty if there was none."""


@dataclass(frozen=True)
class SourceEvent:
    """One event of a request. Its repr does not show the payload."""

    key: str
    """What makes it unique at the sender; a hash of its canonical JSON where the sender gives nothing."""
    payload: JsonValue = field(repr=False)


def unauthenticated() -> UnauthenticatedError:
    """Return the error for an unknown tenant, an unknown source and a wrong proof alike."""
    detail = "Unknown source, or the request does not prove who sent it."
    return UnauthenticatedError(detail, headers={"WWW-Authenticate": "Bearer"})

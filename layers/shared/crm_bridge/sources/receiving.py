"""Receives a request of a sender: proves it, splits it into events and names them; and answers it."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache

import jmespath
from pydantic import JsonValue

from crm_bridge.errors import TooLargeError, UnavailableError
from crm_bridge.inbound.api import Response, to_problem
from crm_bridge.mapping import FAILURES
from crm_bridge.sources.incoming import LARGEST_EVENTS, MOST_EVENTS, Incoming, SourceEvent, unauthenticated
from crm_bridge.sources.proof import is_one_of
from crm_bridge.sources.settings import SourceSettings

LONGEST_KEY = 500
"""Characters; a longer key is hashed, and so is one that cannot be displayed."""
TRY_AGAIN_AFTER = 30
"""Seconds. Zendesk repeats only what names less than 60."""


def receive(settings: SourceSettings, incoming: Incoming, now: float) -> list[SourceEvent]:
    """Return the events in a request. `now` is in epoch seconds.

    Raises UnauthenticatedError (no proof, a wrong one, an old one, another certificate: always with the same text),
    TooLargeError, UnsupportedMediaTypeError, NotJsonError, NotXmlError, InvalidError.
    """
    preset, proof = settings.preset_class(), settings.proof_used()
    read = cache(lambda: preset.read(incoming))
    has_certificate = not settings.certificates or is_one_of(incoming.certificate, settings.certificates)
    if not (proof.holds(settings, incoming, now, read) and has_certificate):
        raise unauthenticated()
    events: list[SourceEvent] = []
    size = 0
    for payload in preset.split(proof.without(read(), settings), incoming):
        size += len(json.dumps(payload, ensure_ascii=False))
        if len(events) == MOST_EVENTS or size > LARGEST_EVENTS:
            raise TooLargeError(f"Send at most {MOST_EVENTS} events at once, with {LARGEST_EVENTS} characters in all.")
        events.append(SourceEvent(event_key(settings, incoming, payload), payload))
    return events


def event_key(settings: SourceSettings, incoming: Incoming, payload: JsonValue) -> str:
    """Return what makes an event unique at its sender; a hash of the event if one part of that is missing."""
    preset = settings.preset_class()
    parts = [_part(path, incoming, payload) for path in settings.key or preset.key]
    found = [part for part in parts if part is not None]
    if not found or len(found) < len(parts):
        return content_hash(settings, payload)
    key = "|".join(part.replace("%", "%25").replace("|", "%7C") for part in found)
    return key if len(key) <= LONGEST_KEY and key.isprintable() else _hash(key)


def content_hash(settings: SourceSettings, payload: JsonValue) -> str:
    """Return a hash of what an event says. It is the same when its sender repeats it."""
    return _hash(_without(payload, settings.preset_class().volatile))


def _part(path: str, incoming: Incoming, payload: JsonValue) -> str | None:
    if path.startswith("header:"):
        return incoming.headers.get(path.removeprefix("header:"))
    try:
        found = jmespath.search(path, payload)
    except FAILURES:
        return None
    return found if found is None or isinstance(found, str) else _canonical(found)


def _canonical(value: JsonValue) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _hash(value: JsonValue) -> str:
    return hashlib.sha256(_canonical(value).encode()).hexdigest()


def _without(payload: JsonValue, paths: tuple[str, ...]) -> JsonValue:
    """Return the payload without some of its members."""
    for path in paths:
        name, _, rest = path.partition(".")
        if isinstance(payload, dict) and name in payload:
            kept: dict[str, JsonValue] = {other: value for other, value in payload.items() if other != name}
            payload = {**kept, name: _without(payload[name], (rest,))} if rest else kept
    return payload


_ACK = (
    '<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/">'
    '<soapenv:Body><notificationsResponse xmlns="http://soap.sforce.com/2005/09/outbound"><Ack>{}</Ack>'
    "</notificationsResponse></soapenv:Body></soapenv:Envelope>"
)


def _ack(is_stored: bool) -> Response:
    text = _ACK.format("true" if is_stored else "false")
    return Response(200, text, {"Content-Type": "text/xml; charset=utf-8"})


def answer(settings: SourceSettings, counts: Mapping[str, int]) -> Response:
    """Return the response to a request whose events are all stored, in quarantine or ignored: how many are which."""
    kind = settings.answer_used()
    if kind == "soap ack":
        return _ack(is_stored=True)
    return Response(202 if kind == "async 202" else 200, counts)


def try_again(settings: SourceSettings) -> Response:
    """Return the response to a request whose events could not all be stored. A sender that repeats, repeats it."""
    if settings.answer_used() == "soap ack":
        return _ack(is_stored=False)
    detail = "Not all events could be stored. Send the same request again."
    return to_problem(UnavailableError(detail, headers={"Retry-After": str(TRY_AGAIN_AFTER)}))

"""CloudEvents over HTTP: structured, binary and batched."""

import base64
from urllib.parse import unquote_to_bytes

from pydantic import JsonValue

from crm_bridge.errors import InvalidError, UnsupportedMediaTypeError
from crm_bridge.inbound.api import JSON
from crm_bridge.media import CharsetError, charset, media_type, text_of
from crm_bridge.sources import bodies
from crm_bridge.sources.incoming import Incoming
from crm_bridge.sources.preset import Preset
from crm_bridge.sources.proof import Header, Query

REQUIRED = ("id", "source", "specversion", "type")


class CloudEvents(Preset):
    """Events in the JSON format, whichever way they came.

    Source: https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/http-protocol-binding.md
    """

    name, title = "cloudevents", "CloudEvents"
    source_page = "https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/http-protocol-binding.md"
    proofs = {
        "bearer": Header("authorization", "Bearer "),
        "header": Header("x-api-key"),
        "query": Query("access_token"),
    }
    key = ("source", "id")
    answers = ("async 202", "async 200")
    sample_headers = {"content-type": "application/cloudevents+json; charset=UTF-8"}
    sample = (
        b'{"specversion": "1.0", "id": "e-1", "source": "/crm/demo", "type": "customer.created",'
        b' "time": "2026-03-01T10:00:00Z", "data": {"id": "55", "name": "Ola Testowa", "status": "new"}}'
    )

    @classmethod
    def parse(cls, incoming: Incoming) -> JsonValue:
        header = incoming.headers.get("content-type", "")
        kind = media_type(header).lower()
        if not kind.startswith("application/cloudevents"):
            return _binary(incoming, kind, header)
        if kind not in ("application/cloudevents+json", "application/cloudevents-batch+json"):
            raise UnsupportedMediaTypeError("Send CloudEvents in the JSON format.")
        body = bodies.read_json(incoming.body, header)
        if isinstance(body, list) is not kind.startswith("application/cloudevents-batch"):
            raise InvalidError("Send a list as application/cloudevents-batch+json, and only a list.")
        return body


def _binary(incoming: Incoming, kind: str, header: str) -> JsonValue:
    event: dict[str, JsonValue] = {
        name.removeprefix("ce-"): _attribute(value)
        for name, value in incoming.headers.items()
        if name.startswith("ce-") and name not in ("ce-data", "ce-data_base64", "ce-datacontenttype")
    }
    if not all(event.get(name) for name in REQUIRED):
        raise UnsupportedMediaTypeError("Send CloudEvents: as application/cloudevents+json, or with ce- headers.")
    if kind:
        event["datacontenttype"] = header
    if not incoming.body:
        return event
    if not kind or kind == JSON or kind.endswith("+json"):
        return {**event, "data": bodies.read_json(incoming.body, header)}
    if kind.startswith("text/"):
        try:
            return {**event, "data": text_of(incoming.body, charset(header))}
        except CharsetError as error:
            raise InvalidError(f"The data cannot be read as text: {error}.") from None
    return {**event, "data_base64": base64.b64encode(incoming.body).decode()}


def _attribute(value: str) -> str:
    """Return the value of an attribute: quotes are undone first, then percent-encoding. Raises InvalidError.

    Source: the same page, section 3.1.3.2
    """
    text = value.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeError:
        raise InvalidError("Send the values of ce- headers percent-encoded, in UTF-8.") from None

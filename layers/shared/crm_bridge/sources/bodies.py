"""Reads bodies: JSON, forms, multipart and XML become JSON values. The work is linear in the body."""

from typing import Literal

from pydantic import JsonValue

from crm_bridge.errors import NotJsonError, UnsupportedMediaTypeError
from crm_bridge.inbound.api import JSON, json_value
from crm_bridge.media import CharsetError, charset, media_type, text_of
from crm_bridge.sources.incoming import Incoming

type Format = Literal["json", "form", "multipart", "xml"]


def read(incoming: Incoming, formats: tuple[Format, ...], *, is_any_text_json: bool = False) -> JsonValue:
    """Return the parsed body. Raises UnsupportedMediaTypeError, NotJsonError, InvalidError."""
    header = incoming.headers.get("content-type", "")
    kind = media_type(header) or JSON
    if "json" in formats and (kind == JSON or kind.endswith("+json") or (is_any_text_json and kind == "text/plain")):
        return _json(incoming.body, charset(header))
    raise UnsupportedMediaTypeError("Unsupported content type.")


def _json(body: bytes, outer: str | None) -> JsonValue:
    if not body.strip():
        raise NotJsonError("The body is empty. Send JSON.")
    try:
        return json_value(text_of(body, outer))
    except CharsetError as error:
        raise NotJsonError(f"The body cannot be read as JSON: {error}.") from None

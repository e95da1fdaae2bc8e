"""Reads bodies: JSON, forms, multipart and XML become JSON values. The work is linear in the body."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from typing import Literal
from urllib.parse import parse_qsl

from pydantic import JsonValue

from crm_bridge.errors import FieldError, InvalidError, NotJsonError, UnsupportedMediaTypeError
from crm_bridge.inbound.api import JSON, json_value, once
from crm_bridge.media import CharsetError, charset, media_type, text_of
from crm_bridge.sources.incoming import Incoming
from crm_bridge.xml import XML, is_nil, xml_root

type Format = Literal["json", "form", "multipart", "xml"]

FORM, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
MOST_FIELDS = 500
"""Fields of a form."""
LONGEST_PART_HEADER = 1000
"""Bytes of the header of one part of a multipart body."""
MOST_LEVELS = 50
"""Levels of XML; JSON has a limit of its own, which is 200."""
XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
_BOUNDARY = re.compile(r"""boundary=(?:"([^"]{1,70})"|([^\s";,]{1,70}))""", re.IGNORECASE)
"""Source: https://www.rfc-editor.org/rfc/rfc2046#section-5.1.1"""
_PART_NAME = re.compile(rb';\s?name="([^"\r\n]{0,200})"', re.IGNORECASE)
_FILE_NAME = re.compile(rb";\s?filename\*?=", re.IGNORECASE)


def read(incoming: Incoming, formats: tuple[Format, ...], *, is_any_text_json: bool = False) -> JsonValue:
    """Return the parsed body.

    A body without a Content-Type is of the first of `formats`. `is_any_text_json`: whether text/plain is read as JSON.
    Raises UnsupportedMediaTypeError, NotJsonError, NotXmlError, InvalidError.
    """
    header = incoming.headers.get("content-type", "")
    kind = media_type(header)
    found = _format(kind) if kind else formats[0]
    if found is None and kind == "text/plain" and is_any_text_json:
        found = "json"
    if found not in formats:
        raise UnsupportedMediaTypeError(f"Send the body as {' or '.join(formats)}, and say so in Content-Type.")
    return _READERS[found](incoming.body, header)


def _format(kind: str) -> Format | None:
    if kind == JSON or kind.endswith("+json"):
        return "json"
    if kind in XML or kind.endswith("+xml"):
        return "xml"
    if kind == FORM:
        return "form"
    return "multipart" if kind == MULTIPART else None


def read_json(body: bytes, header: str) -> JsonValue:
    """Return the JSON in a body with this Content-Type. Raises NotJsonError, and InvalidError for duplicate members."""
    if not body.strip():
        raise NotJsonError("The body is empty. Send JSON.")
    try:
        text = text_of(body, charset(header))
    except CharsetError as error:
        raise NotJsonError(f"The body cannot be read as JSON: {error}.") from None
    return json_value(text)


def _form(body: bytes, header: str) -> JsonValue:  # noqa: ARG001 - a form is UTF-8, whatever its header says
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError:
        raise InvalidError(f"Send a form with at most {MOST_FIELDS} fields, all in UTF-8.") from None
    return _members(fields)


def _multipart(body: bytes, header: str) -> JsonValue:
    """Source: https://www.rfc-editor.org/rfc/rfc7578"""
    boundary = _BOUNDARY.search(header)
    if boundary is None:
        raise InvalidError("Name the boundary of the parts in Content-Type.")
    delimiter = b"\r\n--" + (boundary[1] or boundary[2]).encode(errors="replace")
    parts = (b"\r\n" + body).split(delimiter, MOST_FIELDS + 2)
    if len(parts) < 3 or len(parts) > MOST_FIELDS + 2 or not parts[-1].startswith(b"--"):
        raise InvalidError(f"Send a multipart body with at most {MOST_FIELDS} fields, and with its end.")
    fields: list[tuple[str, str]] = []
    for part in parts[1:-1]:
        head, blank, content = part.partition(b"\r\n\r\n")
        name = _PART_NAME.search(head) if blank and len(head) <= LONGEST_PART_HEADER else None
        if name is None or _FILE_NAME.search(head):
            raise InvalidError("Send only named fields in a multipart body, and no files.")
        try:
            fields.append((name[1].decode(), content.decode()))
        except UnicodeDecodeError:
            raise InvalidError("Send the fields of a multipart body in UTF-8.") from None
    return _members(fields)


def _members(fields: list[tuple[str, str]]) -> JsonValue:
    members: dict[str, JsonValue] = {}
    for name, value in once(fields).items():
        members[name] = str(value)
    return members


def _xml(body: bytes, header: str) -> JsonValue:
    return xml_value(xml_root(body, charset(header)))


def xml_value(element: ET.Element, level: int = 0) -> JsonValue:
    """Return an element as JSON: its text, null, or its children by their names without namespace.

    Children of the same name are a list. `@type` is the `xsi:type` without its prefix. Raises InvalidError.
    """
    name = element.tag.rpartition("}")[2]
    if is_nil(element, name):
        return None
    if not len(element):
        return element.text or ""
    if level == MOST_LEVELS:
        raise InvalidError(
            f"Send XML of at most {MOST_LEVELS} levels.", fields=[FieldError(name[:100], "is nested too deeply")]
        )
    members: dict[str, list[JsonValue]] = {}
    for child in element:
        members.setdefault(child.tag.rpartition("}")[2], []).append(xml_value(child, level + 1))
    found: dict[str, JsonValue] = {}
    for child_name, values in members.items():
        found[child_name] = values[0] if len(values) == 1 else values
    kind = element.attrib.get(XSI_TYPE)
    return found if kind is None else {"@type": kind.rpartition(":")[2], **found}


_READERS: Mapping[Format, Callable[[bytes, str], JsonValue]] = {
    "json": read_json,
    "form": _form,
    "multipart": _multipart,
    "xml": _xml,
}

"""Reads and writes the Connector's bodies: JSON, or XML with its tag names; and a sentence for its log."""

import re
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import replace

from pydantic import BaseModel

from crm_bridge.errors import (
    FieldError,
    InvalidError,
    RefusedByVendorError,
    TooLargeError,
    UnsupportedMediaTypeError,
)
from crm_bridge.inbound.api import JSON, MAX_BODY, PROBLEM_TYPE, Request, Response, validated
from crm_bridge.inbound.unknown_fields import UNKNOWN_FIELD
from crm_bridge.media import charset, media_type
from crm_bridge.xml import XML, is_nil, xml_root

WRAPPERS = frozenset({"providerInfo", "userInfo", "leadInfo", "extraProviderIDs"})
"""Elements that only hold others. Source: InTouch's "Connector API Guide", saving a user and a lead source."""
IGNORED = frozenset({"inTouchID"})
"""InTouch's id besides the Connector's, which it may send along."""
_ITEMS = {"leadSources": "leadSource", "errors": "error", "clubs": "club"}
"""The names of a list's elements, where they differ from the list's own name."""
LONGEST_MESSAGE = 300
_NOT_IN_XML = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
"""Source: https://www.w3.org/TR/xml/#charsets"""


def read[M: BaseModel](request: Request, model: type[M]) -> M:
    """Return the body as `model`, from JSON or XML. Raises ProblemError."""
    kind = request.headers.get("content-type", "")
    if _is_xml(kind):
        if len(request.body) > MAX_BODY:
            raise TooLargeError(f"Send at most {MAX_BODY} bytes.")
        return validated(model, _members(request.body, charset(kind)))
    try:
        request.json()
    except UnsupportedMediaTypeError:
        raise UnsupportedMediaTypeError(f"Send the body as {JSON} or {XML[0]}, and say so in Content-Type.") from None
    return request.parse(model)


def translated(headers: Mapping[str, str], response: Response) -> Response:
    """Return the response in the caller's language. A problem has a result and a sentence, as the others have."""
    body = response.body
    if response.status >= 400 and isinstance(body, Mapping):
        if body["type"] == PROBLEM_TYPE + RefusedByVendorError.kind:  # its errors name Egito's fields, not the caller's
            body = {name: value for name, value in body.items() if name != "errors"}
        body = {"result": "ERROR", "message": _sentence(body), **body}
    if not _wants_xml(headers):
        return replace(response, body=body)
    root = ET.Element("problem" if response.status >= 400 else "response")
    _fill(root, body)
    kind = "application/problem+xml" if response.status >= 400 else "application/xml"
    text = ET.tostring(root, encoding="unicode")
    return replace(response, body=text, headers={**response.headers, "Content-Type": f"{kind}; charset=utf-8"})


def _wants_xml(headers: Mapping[str, str]) -> bool:
    """Return whether Accept names XML before JSON; if it names neither, whether the body is XML."""
    for kind in headers.get("accept", "").split(","):
        if _is_xml(kind):
            return True
        if kind.split(";")[0].strip().lower() == JSON:
            return False
    return _is_xml(headers.get("content-type", ""))


def _is_xml(header: str) -> bool:
    kind = media_type(header)
    return kind in XML or (kind.startswith("application/") and kind.endswith("+xml"))


def _members(body: bytes, outer: str | None) -> dict[str, str | None]:
    """Return the text of each element, None for one that is null. `outer` is the charset that the header names."""
    root = xml_root(body, outer)
    members: dict[str, str | None] = {}
    for name, text in _leaves(root):
        if name in members:
            raise InvalidError.of(FieldError(name, "appears more than once"))
        members[name] = text
    return members


def _leaves(root: ET.Element) -> Iterator[tuple[str, str | None]]:
    for element in root.iter():
        name = element.tag.rpartition("}")[2]
        if element is root or name in WRAPPERS or name in IGNORED:
            continue
        if len(element):
            raise InvalidError.of(FieldError(name, "must be text"))
        yield name, None if is_nil(element, name) else element.text or ""


def _sentence(problem: Mapping[str, object]) -> str:
    """Return what is wrong, in a line for people who do not run this."""
    wrong = problem.get("errors")
    if not isinstance(wrong, list) or not wrong:
        return _line(f"Not saved. {problem['detail']}")
    told = [_fault(error["field"], error["message"]) for error in wrong]
    for most in range(len(told), 0, -1):
        more = f"; and {len(told) - most} more" if most < len(told) else ""
        sentence = f"Not saved: {'; '.join(told[:most])}{more}."
        if len(sentence) <= LONGEST_MESSAGE:
            break
    return _line(sentence)


def _fault(field: str, message: str) -> str:
    """Return what is wrong with a field. Of a name that the caller made up, only what looks like a name is repeated."""
    is_name = re.fullmatch(r"[\w.]{0,50}", field, re.ASCII)
    if message.startswith(UNKNOWN_FIELD):
        return f"{UNKNOWN_FIELD} {field}" if is_name else UNKNOWN_FIELD
    return f"{field if is_name else 'a field'} {message.partition(';')[0]}".strip()


def _line(text: str) -> str:
    shown = "".join(character for character in " ".join(text.split()) if unicodedata.category(character) != "Cc")
    if len(shown) <= LONGEST_MESSAGE:
        return shown
    return shown[: LONGEST_MESSAGE - 2].rpartition(" ")[0] + " …"


def _fill(parent: ET.Element, value: object) -> None:
    if isinstance(value, Mapping):
        for name, member in value.items():
            if isinstance(member, list | tuple):
                for item in member:
                    _fill(ET.SubElement(parent, _ITEMS.get(str(name), str(name))), item)
            else:
                _fill(ET.SubElement(parent, str(name)), member)
    elif isinstance(value, bool):
        parent.text = str(value).lower()
    elif value is not None:
        parent.text = _NOT_IN_XML.sub("", str(value))

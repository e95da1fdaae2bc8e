"""How the Connector and the bridge talk: JSON, or XML with the Connector's tag names; and a sentence for its log.

XML is read by a parser that takes no document type, hence no entities and no external references.
"""

import re
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import replace

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from pydantic import BaseModel

from crm_bridge.errors import (
    FieldError,
    InvalidError,
    NotXmlError,
    RefusedByVendorError,
    TooLargeError,
    UnsupportedMediaTypeError,
)
from crm_bridge.inbound.api import JSON, MAX_BODY, PROBLEM_TYPE, Request, Response, validated
from crm_bridge.media import CharsetError, charset, media_type, text_of

XML = ("application/xml", "text/xml")
WRAPPERS = frozenset({"providerInfo", "userInfo", "leadInfo", "extraProviderIDs"})
"""Elements that only hold others. Source: InTouch's "Connector API Guide", saving a user and a lead source."""
IGNORED = frozenset({"inTouchID"})
"""InTouch's id besides the Connector's, which it may send along."""
_ITEMS = {"leadSources": "leadSource", "errors": "error", "clubs": "club"}
"""What an element of a list is called, where that is not the list's own name."""
_DECLARATION = re.compile(rb"""<\?xml\s[^>]*?\sencoding\s*=\s*["']([^"'<>]*)""")
_NIL = ("{http://www.w3.org/2001/XMLSchema-instance}nil", "nil")
"""Where it is true, the element is null. Ruby on Rails writes it without the namespace.

Sources: https://www.w3.org/TR/xmlschema-1/#xsi_nil, https://api.rubyonrails.org/classes/Hash.html#method-i-to_xml
"""
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
"""Source: https://www.w3.org/TR/xmlschema-2/#boolean"""
LONGEST_MESSAGE = 300
_NOT_IN_XML = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
"""Source: https://www.w3.org/TR/xml/#charsets"""


def read[M: BaseModel](request: Request, model: type[M]) -> M:
    """The body as `model`, from JSON or XML. Raises ProblemError."""
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


def told(headers: Mapping[str, str], response: Response) -> Response:
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
    """The first of the two that is named in Accept; if neither is, the language of the body."""
    for kind in headers.get("accept", "").split(","):
        if _is_xml(kind):
            return True
        if kind.split(";")[0].strip().lower() == JSON:
            return False
    return _is_xml(headers.get("content-type", ""))


def _is_xml(header: str) -> bool:
    kind = media_type(header)
    return kind in XML or (kind.startswith("application/") and kind.endswith("+xml"))


def _invalid(*fields: FieldError) -> InvalidError:
    return InvalidError("Correct the fields named in errors.", fields=fields)


def _members(body: bytes, outer: str | None) -> dict[str, str | None]:
    """Return the text of each element, None for one that is null. `outer` is the charset that the header names."""
    declared = _DECLARATION.match(body)
    inner = declared[1].decode("ascii", "replace") if declared else "utf-8"
    try:
        root = fromstring(text_of(body, outer, inner), forbid_dtd=True)
    except CharsetError as error:
        raise NotXmlError(f"The body cannot be read as XML: {error}.") from None
    except DefusedXmlException:
        raise NotXmlError("Send XML without a document type: no DTD, no entities, no external references.") from None
    except (ET.ParseError, ValueError) as error:
        # Its text can repeat what was sent.
        place = f" at line {error.position[0]}, column {error.position[1]}" if isinstance(error, ET.ParseError) else ""
        raise NotXmlError(f"The body cannot be read as XML{place}.") from None
    members: dict[str, str | None] = {}
    for name, text in _leaves(root):
        if name in members:
            raise _invalid(FieldError(name, "appears more than once"))
        members[name] = text
    return members


def _leaves(root: ET.Element) -> Iterator[tuple[str, str | None]]:
    for element in root.iter():
        name = element.tag.rpartition("}")[2]
        if element is root or name in WRAPPERS or name in IGNORED:
            continue
        if len(element):
            raise _invalid(FieldError(name, "must be text"))
        yield name, None if _is_nil(element, name) else element.text or ""


def _is_nil(element: ET.Element, name: str) -> bool:
    """Return whether an element is null. Raises InvalidError if it has text as well, or if `nil` is no boolean."""
    said = next((element.attrib[nil] for nil in _NIL if nil in element.attrib), "false")
    is_nil = _BOOLEANS.get(said.strip())
    if is_nil is None:
        raise _invalid(FieldError(name, "must have true or false as its nil attribute"))
    if is_nil and (element.text or "").strip():
        raise _invalid(FieldError(name, "must be empty, because its nil attribute is true"))
    return is_nil


def _sentence(problem: Mapping[str, object]) -> str:
    """What is wrong, in a line for people who do not run this."""
    wrong = problem.get("errors")
    if not isinstance(wrong, list) or not wrong:
        return _line(f"Not saved. {problem['detail']}")
    told = [f"{_name(error['field'])} {error['message'].partition(';')[0]}".strip() for error in wrong]
    for most in range(len(told), 0, -1):
        more = f"; and {len(told) - most} more" if most < len(told) else ""
        sentence = f"Not saved: {'; '.join(told[:most])}{more}."
        if len(sentence) <= LONGEST_MESSAGE:
            break
    return _line(sentence)


def _name(field: str) -> str:
    """Of a field that the caller made up, nothing is repeated that could be more than a name."""
    return field if re.fullmatch(r"[\w.]{0,50}", field, re.ASCII) else "a field"


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

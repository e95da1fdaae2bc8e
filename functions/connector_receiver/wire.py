"""How the Connector and the bridge talk: JSON, or XML with the Connector's tag names; and a sentence for its log.

XML is read by a parser that takes no document type, hence no entities and no external references.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import replace

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from pydantic import BaseModel

from crm_bridge.api import MAX_BODY, Request, Response, validated
from crm_bridge.errors import FieldError, InvalidError, NotXmlError, TooLargeError

XML = ("application/xml", "text/xml")
WRAPPERS = frozenset({"providerInfo", "userInfo", "leadInfo", "extraProviderIDs"})
"""Elements that only hold others. Source: InTouch's "Connector API Guide", saving a user and a lead source."""
IGNORED = frozenset({"inTouchID"})
"""InTouch's id besides the Connector's, which it may send along."""
_ITEMS = {"leadSources": "leadSource", "errors": "error", "clubs": "club"}
"""What an element of a list is called, where that is not the list's own name."""
LONGEST_MESSAGE = 300


def read[M: BaseModel](request: Request, model: type[M]) -> M:
    """The body as `model`, from JSON or XML. Raises ProblemError."""
    if not _is_xml(request.headers.get("content-type", "")):
        return request.parse(model)
    if len(request.body) > MAX_BODY:
        raise TooLargeError(f"Send at most {MAX_BODY} bytes.")
    return validated(model, _members(request.body))


def told(headers: Mapping[str, str], response: Response) -> Response:
    """The answer in the caller's language. A problem gets a result and a sentence, as every answer to a save has."""
    body = response.body
    if response.status >= 400 and isinstance(body, Mapping):
        body = {"result": "ERROR", "message": _sentence(body), **body}
    wanted = headers.get("accept", "")
    if not _is_xml(wanted) and not (wanted in ("", "*/*") and _is_xml(headers.get("content-type", ""))):
        return replace(response, body=body)
    root = ET.Element("problem" if response.status >= 400 else "response")
    _fill(root, body)
    kind = "application/problem+xml" if response.status >= 400 else "application/xml"
    text = ET.tostring(root, encoding="unicode")
    return replace(response, body=text, headers={**response.headers, "Content-Type": f"{kind}; charset=utf-8"})


def _is_xml(header: str) -> bool:
    kind = header.split(",")[0].split(";")[0].strip().lower()
    return kind in XML or kind.endswith("+xml")


def _members(body: bytes) -> dict[str, str]:
    try:
        root = fromstring(body, forbid_dtd=True)
    except DefusedXmlException:
        raise NotXmlError("Send XML without a document type: no DTD, no entities, no external references.") from None
    except (ET.ParseError, ValueError, LookupError) as error:  # LookupError: an encoding that there is not
        # Its text can repeat what was sent.
        place = f" at line {error.position[0]}, column {error.position[1]}" if isinstance(error, ET.ParseError) else ""
        raise NotXmlError(f"The body cannot be read as XML{place}.") from None
    members: dict[str, str] = {}
    for name, text in _leaves(root):
        if name in members:
            raise InvalidError("Correct the fields named in errors.", fields=[FieldError(name, "is there twice")])
        members[name] = text
    return members


def _leaves(root: ET.Element) -> Iterator[tuple[str, str]]:
    for element in root.iter():
        name = element.tag.rpartition("}")[2]
        if element is root or name in WRAPPERS or name in IGNORED:
            continue
        if len(element):
            raise InvalidError("Correct the fields named in errors.", fields=[FieldError(name, "must be text")])
        yield name, element.text or ""


def _sentence(problem: Mapping[str, object]) -> str:
    """What is wrong, in a sentence for people who do not run this."""
    wrong = problem.get("errors")
    if isinstance(wrong, list) and wrong:
        told = "; ".join(f"{error['field']} {error['message']}".strip() for error in wrong[:3])
        return f"Not saved: {told}."[:LONGEST_MESSAGE]
    return f"Not saved. {problem['detail']}"[:LONGEST_MESSAGE]


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
        parent.text = "".join(character for character in str(value) if character.isprintable() or character in "\t\n")

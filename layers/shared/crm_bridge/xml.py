"""Reads XML that somebody else wrote: by a parser that takes no document type, hence no entities and no external
references. What the elements mean is decided elsewhere.
"""

import re
import xml.etree.ElementTree as ET

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from crm_bridge.errors import FieldError, InvalidError, NotXmlError
from crm_bridge.media import CharsetError, text_of

XML = ("application/xml", "text/xml")
_DECLARATION = re.compile(rb"""<\?xml\s[^>]*?\sencoding\s*=\s*["']([^"'<>]*)""")
_NIL = ("{http://www.w3.org/2001/XMLSchema-instance}nil", "nil")
"""Where it is true, the element is null. Ruby on Rails writes it without the namespace.

Sources: https://www.w3.org/TR/xmlschema-1/#xsi_nil, https://api.rubyonrails.org/classes/Hash.html#method-i-to_xml
"""
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
"""Source: https://www.w3.org/TR/xmlschema-2/#boolean"""


def xml_root(body: bytes, outer: str | None) -> ET.Element:
    """Return the root element. `outer` is the charset that the header names. Raises NotXmlError."""
    declared = _DECLARATION.match(body)
    inner = declared[1].decode("ascii", "replace") if declared else "utf-8"
    try:
        root: ET.Element = fromstring(text_of(body, outer, inner), forbid_dtd=True)
    except CharsetError as error:
        raise NotXmlError(f"The body cannot be read as XML: {error}.") from None
    except DefusedXmlException:
        raise NotXmlError("Send XML without a document type: no DTD, no entities, no external references.") from None
    except (ET.ParseError, ValueError) as error:
        # Its text can repeat what was sent.
        place = f" at line {error.position[0]}, column {error.position[1]}" if isinstance(error, ET.ParseError) else ""
        raise NotXmlError(f"The body cannot be read as XML{place}.") from None
    return root


def is_nil(element: ET.Element, name: str) -> bool:
    """Return whether an element is null. Raises InvalidError if it has text as well, or if `nil` is no boolean."""
    said = next((element.attrib[nil] for nil in _NIL if nil in element.attrib), "false")
    found = _BOOLEANS.get(said.strip())
    if found is None:
        raise InvalidError.of(FieldError(name, "must have true or false as its nil attribute"))
    if found and (element.text or "").strip():
        raise InvalidError.of(FieldError(name, "must be empty, because its nil attribute is true"))
    return found

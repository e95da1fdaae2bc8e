"""Media types, charsets and the text of bodies: requests and vendors' responses are read by the same rules.

The text itself, JSON or XML, is parsed elsewhere.
"""

import encodings
import json
import re
from encodings.aliases import aliases

_QUOTED = re.compile('"[^"]*"')
_CHARSET = re.compile(r""";\s*charset\s*=\s*["']?([^\s"',;]+)""", re.IGNORECASE)
_UTF_8 = "utf_8"
_ONE_BYTE = re.compile("ascii|latin_1|iso8859_(?:[2-9]|1[013-6])|cp125[0-8]|cp85[02]|koi8_[rtu]|mac_latin2")
"""Python's names of the charsets that are read besides Unicode: one byte a character, and all contain ASCII."""
_CAPITALS = re.compile(rb"[A-Z][\xca\xd3][\x8c\x8f\xa1\xa3\xa5\xa6\xac\xaf]")
"""`PÓŁ` or `MĘŻ` in windows-1250 or ISO-8859-2. In UTF-8 this is a capital before a letter of Tajik or of phonetics."""
_MIXED = re.compile(rb"[A-Za-z][\xc6-\xdf][\x80-\xbf]|[\xc6-\xdf][\x80-\xbf][A-Za-z]")
"""An ASCII letter beside one of U+0180 to U+07FF: valid UTF-8, but rather `NESTLÉ®` in ISO-8859-1."""


class CharsetError(ValueError):
    """The bytes are not text in any charset that they are said to be in. Its text repeats none of them."""


def media_type(header: str) -> str:
    """Return a Content-Type without its parameters, in lower case; `header` itself if it names several types.

    API Gateway joins repeated headers with a comma, so `application/json,application/json` is one type.
    """
    types = {value.partition(";")[0].strip().lower() for value in _QUOTED.sub("", header).split(",")} - {""}
    return types.pop() if len(types) == 1 else header.strip()


def charset(header: str) -> str | None:
    """Return the charset that a Content-Type names; None if it names none, or several different ones."""
    names = {name.lower() for name in _CHARSET.findall(header)}
    return names.pop() if len(names) == 1 else None


def text_of(body: bytes, outer: str | None, inner: str = "utf-8") -> str:
    """Return the text of `body`, without a byte order mark. Raise CharsetError if no charset fits.

    `outer` is the charset that the header names, `inner` the one that the document itself names. Linear in the body.
    """
    for codec in _candidates(body, outer, inner):
        try:
            return body.decode(codec).lstrip("\ufeff")
        except UnicodeDecodeError:
            continue
    raise CharsetError("the bytes are not valid in the charset that is named, or in UTF-8 if none is")


def _candidates(body: bytes, outer: str | None, inner: str) -> list[str]:
    """Return the charsets to try, in order.

    A byte order mark decides, or the NULs of UTF-16 and UTF-32. Otherwise the header counts before the document
    (RFC 7303, section 3). UTF-8 still comes first: a one-byte charset fits any bytes, UTF-8 hardly any but its own.
    """
    wide = json.detect_encoding(body)
    if wide != "utf-8":
        return [wide]
    named = [codec for label in (outer, inner) if label and (codec := _codec(label))]
    if not named:
        raise CharsetError("the charset that is named is not supported; send UTF-8")
    one_byte = [codec for codec in named if codec != _UTF_8]
    is_chance = (_CAPITALS if _UTF_8 in named else _MIXED).search(body)
    return one_byte if is_chance else [_UTF_8, *one_byte]


def _codec(label: str) -> str | None:
    """Return Python's name of a charset; None if it is not supported. No codec is looked up by a foreign name.

    What is called UTF-16 and has no NULs is UTF-8: .NET's StringWriter always declares UTF-16.
    """
    plain = encodings.normalize_encoding(label.lower()[:40]).replace(".", "_")
    codec = aliases.get(plain, plain)
    if codec.startswith(("utf_16", "utf_32")):
        return _UTF_8
    return codec if codec == _UTF_8 or _ONE_BYTE.fullmatch(codec) else None

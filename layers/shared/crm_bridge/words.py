"""Words of vendors, as they may be stored and shown: nothing in them steers a terminal or hides from a reader.

Source: https://www.unicode.org/reports/tr36/
"""

import json
import re

from pydantic import JsonValue

from crm_bridge.ids import UNSEEN

LONGEST = 1200
"""Characters of a message."""
_GAPS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNSEEN = re.compile(rf"(?![\t\n\r\ufffd])[{UNSEEN}\ue000-\uf8ff\U000f0000-\U0010ffff]")


def plain(text: str, longest: int = LONGEST) -> str:
    """Return one line of at most `longest` characters.

    A run of blanks, line breaks and control characters becomes one space. Format characters (bidirectional controls,
    zero width) and private use are dropped, half a surrogate pair becomes a question mark.
    """
    return " ".join(_shown(_GAPS.sub(" ", text)).split())[:longest]


def plain_lines(text: str) -> str:
    """Return the same text without control and format characters other than tabs and line breaks."""
    return _CONTROLS.sub("", _shown(text))


def plain_json(document: str) -> str:
    """Return a JSON document without these characters in its texts; tabs and line breaks stay."""
    if document.isascii() and "\\u" not in document and "\x7f" not in document:
        return document
    return json.dumps(_plain_texts(json.loads(document)), ensure_ascii=False, separators=(",", ":"))


def _plain_texts(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return _shown(value)
    if isinstance(value, list):
        return [_plain_texts(one) for one in value]
    if isinstance(value, dict):
        return {_shown(name): _plain_texts(one) for name, one in value.items()}
    return value


def _shown(text: str) -> str:
    return _UNSEEN.sub("", text).encode(errors="replace").decode()

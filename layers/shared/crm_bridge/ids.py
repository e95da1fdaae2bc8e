"""Ids of other systems: which texts are the same id, and which texts cannot be an id.

An id is kept, sent and displayed as it came, so that it can be found where it came from. It is compared in its
canonical form: in the keys of operations and links, and with what a vendor returns.
"""

import re

UNSEEN = (
    r"\x00-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    r"\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffd"
    r"\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""A class of a regular expression: categories Cc, Cf, Zl and Zp, what else has no picture of its own, and U+FFFD, which
stands for what could not be decoded. Source: https://www.unicode.org/Public/UCD/latest/ucd/DerivedCoreProperties.txt
(Default_Ignorable_Code_Point)."""

PLACEHOLDERS = frozenset(
    (
        *("undefined", "null", "nil", "none", "nan", "nat", "n/a", "true", "false", "infinity", "-infinity"),
        *("(null)", "(none)", "(undefined)", "#n/a", "#n/d", "#nv"),
        *("00000000-0000-0000-0000-000000000000", "000000000000000"),  # .NET's Guid.Empty, Salesforce's empty id
    )
)
"""In small letters, and in canonical form."""
TEMPLATES = (
    r".*(\{\{.*\}\}|[$#]\{.*\}|\{!.*\}|\{%.*%\}|<%.*%>|\[\[.*\]\]|\*\|.*\|\*).*"
    r"|\{[A-Za-z_][A-Za-z_.]*\}|\{[0-9]?\}|<[A-Za-z_ ]+>|\[[A-Za-z_ ]+\]|%[A-Za-z_]+%|\$[A-Za-z_][A-Za-z_.]*"
    r"|#[^\s0-9!?]+[0-9]?[!?]|[Ee]rr:[0-9]{3}"  # errors of Excel in any language, and of LibreOffice
    r"|[0-9]([.,][0-9]+)?[Ee]\+[0-9]+"  # a long number in a spreadsheet, which has lost its end
)
"""A regular expression for the whole text."""
SHORTEST_FORM = 18
"""Characters of the shortest id that has another form, a Salesforce id with its suffix."""
_IN_TEMPLATES = frozenset("{[<%$#*+:")
"""One of these is in whatever fits TEMPLATES, so that few ids have to be compared with it."""


def trimmed(text: str) -> str:
    """`text` without blanks and unseen characters at its ends. Raises ValueError if there are others within."""
    if text.isascii() and text.isprintable():
        return text.strip()
    first, last = re.search(rf"[^\s{UNSEEN}]", text), re.search(rf"[^\s{UNSEEN}]", text[::-1])
    if first is None or last is None:
        return ""
    start, end = first.start(), len(text) - last.start()
    if unseen := re.search(f"[{UNSEEN}]", text[start:end]):
        place = start + unseen.start() + 1
        raise ValueError(f"must not contain the character U+{ord(unseen[0]):04X} (position {place})")
    return text[start:end]


def has_unseen(text: str) -> bool:
    return re.search(f"[{UNSEEN}]", text) is not None


def filled_in(text: str) -> str:
    """`text`, unless it is what is left of a template, or of a number in a spreadsheet. Raises ValueError."""
    is_template = not _IN_TEMPLATES.isdisjoint(text) and not _guid(text) and re.fullmatch(TEMPLATES, text)
    if is_template or canonical(text).lower() in PLACEHOLDERS:
        raise ValueError(
            "must be an id, not a placeholder such as undefined or {{id}}, nor a rounded number as 1.2E+15"
        )
    return text


# ---------------------------------------------------------------------- one form

_HEX = "[0-9a-f]{8}(-?)[0-9a-f]{4}(?:\\1[0-9a-f]{4}){2}\\1[0-9a-f]{12}"
_BRACKETS = {"{": "}", "(": ")"}
_SUFFIX = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


def canonical(text: str) -> str:
    """Return the form in which this id is compared: of a GUID its small letters with dashes, of a Salesforce id its 15.

    18 characters are a Salesforce id if their suffix says so. 15 need not be one, so nothing is added to them.
    """
    if len(text) < SHORTEST_FORM:
        return text
    return _guid(text) or _salesforce(text) or text


def canonical_key(key: str) -> str:
    """Return a key whose parts were `joined`, each in its canonical form."""
    return "#".join(map(canonical, key.split("#")))


def forms(text: str) -> list[str]:
    """`text`, and the other forms in which the same id is usual."""
    if guid := _guid(text):
        return list(dict.fromkeys((text, guid, guid.upper())))
    record = text if len(text) == 15 and text.isascii() and text.isalnum() else _salesforce(text)
    if record:
        return list(dict.fromkeys((text, record, record + _suffix(record))))
    return [text]


def _guid(text: str) -> str | None:
    """Source: https://www.rfc-editor.org/rfc/rfc9562#section-4, and .NET's formats N, D, B and P."""
    if not 32 <= len(text) <= 47:
        return None
    digits = text.lower().removeprefix("urn:uuid:")
    if digits[:1] in _BRACKETS and digits[-1] == _BRACKETS[digits[0]]:
        digits = digits[1:-1]
    if not re.fullmatch(_HEX, digits):
        return None
    digits = digits.replace("-", "")
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _salesforce(text: str) -> str | None:
    """Return the 15 characters of 18 whose last three fit; these also restore the case of a text in one case."""
    if not (len(text) == 18 and text.isascii() and text.isalnum()):
        return None
    record, suffix = text[:15], text[15:].upper()
    if _suffix(record) == suffix:
        return record
    if text not in (text.upper(), text.lower()) or not set(suffix) <= set(_SUFFIX):
        return None
    upper = [_SUFFIX.index(part) >> place & 1 for part in suffix for place in range(5)]
    restored = "".join(
        letter.upper() if is_upper else letter.lower() for letter, is_upper in zip(record, upper, strict=True)
    )
    return restored if _suffix(restored) == suffix else None


def _suffix(record: str) -> str:
    """Return Salesforce's three characters after 15: one for five, each of whose bits says that a letter is a capital.

    Source: https://help.salesforce.com/s/articleView?id=000385066&type=1
    """
    capitals = [character.isupper() for character in record]
    return "".join(
        _SUFFIX[sum(is_upper << place for place, is_upper in enumerate(capitals[at : at + 5]))] for at in (0, 5, 10)
    )

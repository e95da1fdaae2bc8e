"""Types of the fields that several commands have."""

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

LONGEST_ID = 200
"""Characters; a limit of ours, which keeps every key of our tables within DynamoDB's."""


def text_of_whole_number(value: object) -> object:
    # 1001 and "1001" are one customer to a CRM; 1001.0 may be another number that was rounded on its way.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def composed(value: object) -> object:
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


def printable(value: str) -> str:
    if any(unicodedata.category(character) == "Cc" and character not in "\t\r\n" for character in value):
        raise ValueError("must not contain control characters")
    return value


def is_same_text(stored: object, sent: str) -> bool:
    """Whether they are the same but for how accents are composed, and for spaces around."""
    return isinstance(stored, str) and composed(stored.strip()) == composed(sent.strip())


def may_have_become(sent: str, stored: str) -> bool:
    """Whether `stored` may be what a vendor made of `sent`.

    A vendor may cut a text, change its case, strip markup, and drop, replace or escape characters. Punctuation and
    spaces do not count; what is not ASCII may have become anything that is not longer than its bytes in hexadecimal.
    """
    left = iter(
        [
            letter
            for one in sent.casefold()
            for letter in (one if one.isascii() else ["any"] * 2 * len(one.encode(errors="replace")))
        ]
    )
    kept = re.sub(r"&#?[0-9a-z]{1,31};?", "", stored.casefold())
    return all(any(letter in (one, "any") for letter in left) for one in kept if one.isascii() and one.isalnum())


def _not_a_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


type Text = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=1000),
    BeforeValidator(composed),
    AfterValidator(printable),
]
type Id = Annotated[Text, BeforeValidator(text_of_whole_number), Field(max_length=LONGEST_ID)]
"""An id of another system, as text."""
type Number = Annotated[int, BeforeValidator(_not_a_boolean), Field(gt=0, lt=2**63)]
"""An id that a vendor gives as a number."""
type Latitude = Annotated[float, BeforeValidator(_not_a_boolean), Field(ge=-90, le=90)]
type Longitude = Annotated[float, BeforeValidator(_not_a_boolean), Field(ge=-180, le=180)]
"""Degrees, WGS 84."""

"""Types of the fields that several commands have."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

LONGEST_ID = 200
"""Characters; a limit of ours, which keeps every key of our tables within DynamoDB's."""


LONGEST_COMPARED = 2000
"""Characters of a vendor's text that are looked at."""
ANYTHING = ("", True)
"""In the place of what is not ASCII: any letters, or none."""
_MARKUP = re.compile(r"<[^<>]*>|&#?\w{1,31};")


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

    A vendor may cut a text at its end, change its case, strip or escape markup, and drop or replace what is not a
    letter or a digit of ASCII. Those stay in their order, except in what may be markup.
    """
    in_markup = {place for found in _MARKUP.finditer(sent) for place in range(*found.span())}
    wanted: list[tuple[str, bool]] = []
    for place, one in enumerate(sent):
        if one.isascii() and one.isalnum():
            wanted.append((one.lower(), place in in_markup))
        elif not one.isascii() and wanted[-1:] != [ANYTHING]:
            wanted.append(ANYTHING)
    places = {0}
    for one in re.sub(r"&#?\w{0,31}$", "", _MARKUP.sub("", stored[:LONGEST_COMPARED])).lower():
        if one.isascii() and one.isalnum():
            places = set(_after(wanted, places, one))
    return bool(places)


def _after(wanted: Sequence[tuple[str, bool]], places: set[int], letter: str) -> Iterator[int]:
    """Where in `wanted` one may be after `letter`."""
    for start in places:
        for place in range(start, len(wanted)):
            if wanted[place] == ANYTHING:
                yield place
            elif wanted[place][0] == letter:
                yield place + 1
            if not wanted[place][1]:
                break


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

"""Types of the fields that several commands have."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializationInfo,
    StringConstraints,
    ValidationInfo,
)

from crm_bridge.ids import canonical, filled_in, trimmed

IN_CSV = "in CSV"
"""The validation context of a cell, where a number cannot be told from text."""
COMPARED = "compared"
"""The serialization context in which ids are in their canonical form."""
LARGEST_EXACT = 2**53
"""Above it a number with a decimal point may be another one that was rounded."""
FIRST_YEAR = 2000
"""No event and no appointment is older. Systems write 0001-01-01, 1900-01-01 or 1970-01-01 where they know no date."""
LONGEST_ID = 200
"""Characters; a limit of ours, which keeps every key of our tables within DynamoDB's."""


LONGEST_COMPARED = 2000
"""Characters of a vendor's text that are looked at."""
ANYTHING = ("", True)
"""In the place of what is not ASCII: any letters, or none."""
_MARKUP = re.compile(r"<[^<>]*>|&#?\w{1,31};")


def text_of_whole_number(value: object) -> object:
    # 1001, 1001.0 and "1001" are one customer to a CRM.
    if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST_EXACT:
        return str(int(value))
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def without_zeros(value: object, info: ValidationInfo) -> object:
    # A spreadsheet or pandas writes 1001.0 for 1001, where another row of the column has no number.
    whole = re.fullmatch("\\s*(-?[0-9]+)[.,]00?\\s*", value) if isinstance(value, str) else None
    return whole[1] if whole and info.context == IN_CSV else value


def without_unseen(value: object) -> object:
    return trimmed(value) if isinstance(value, str) else value


def _serialized(value: str, info: SerializationInfo) -> str:
    return canonical(value) if info.context == COMPARED else value


def compared(command: BaseModel) -> str:
    """What `command` says, as JSON, the same in whatever form its ids are."""
    return command.model_dump_json(context=COMPARED)


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
type AnyId = Annotated[
    Text,
    AfterValidator(filled_in),
    BeforeValidator(without_unseen),
    BeforeValidator(without_zeros),
    BeforeValidator(text_of_whole_number),
    PlainSerializer(_serialized, return_type=str),
]
"""An id of another system, as text; see `ids` for what cannot be one."""
type Id = Annotated[AnyId, Field(max_length=LONGEST_ID)]
"""An id of a record that a caller names."""
type Number = Annotated[int, BeforeValidator(_not_a_boolean), Field(gt=0, lt=2**63)]
"""An id that a vendor gives as a number."""
type Latitude = Annotated[float, BeforeValidator(_not_a_boolean), Field(ge=-90, le=90)]
type Longitude = Annotated[float, BeforeValidator(_not_a_boolean), Field(ge=-180, le=180)]
"""Degrees, WGS 84."""

"""Types of the fields that several commands have."""

import re
import unicodedata
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

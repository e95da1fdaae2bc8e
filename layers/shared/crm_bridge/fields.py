"""Base classes of input models, types of fields, and how a validator brings its JSON Schema along."""

import os
import re
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    SerializationInfo,
    StringConstraints,
    ValidationInfo,
)

from crm_bridge.errors import FieldError, InvalidError
from crm_bridge.ids import PLACEHOLDERS, TEMPLATES, UNSEEN, canonical, filled_in, trimmed

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

ON_LAMBDA = "AWS_LAMBDA_FUNCTION_NAME" in os.environ
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


MOST_MARKS = 30
"""Combining marks on one letter, such as accents."""
LONGEST_COMPARED = 2000
"""Characters of a text that are compared with another one."""
ANYTHING = ("", True)
"""In the place of what is not ASCII: any letters, or none."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Unicode's category Cc, without tab and the ends of lines."""
_MARKUP = re.compile(r"<[^<>]*>|&#?\w{1,31};")


class Input(BaseModel):
    """Input from outside: unknown fields are refused, and errors repeat no values."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class DocumentPart(Input):
    """A part of a tenant's document."""

    # Descriptions are for the JSON Schema. To read them from the source takes twice as long as all else of a module.
    # A tenant is built once, with all that is in it; each of its parts by itself only slows a cold start down.
    model_config = ConfigDict(defer_build=True, use_attribute_docstrings=not ON_LAMBDA)


type JsonSchema = dict[str, Any]


class Schema:
    """JSON Schema of what the validator before it in an `Annotated` takes. pydantic can't know what a function demands.

    `change` makes it of the schema of what the validator is around; `members` are added to that. With neither the
    validator demands nothing besides. openapi/schemas.py refuses a validator without one.
    """

    def __init__(self, change: Callable[[JsonSchema], JsonSchema] = dict, /, **members: object) -> None:
        self._change = change
        self._members = members

    def __get_pydantic_json_schema__(self, schema: "CoreSchema", handler: GetJsonSchemaHandler) -> JsonSchema:
        inner = handler(schema)
        return {**self._change(inner), **self._members} if handler.mode == "validation" else inner


def or_schema(*others: JsonSchema) -> Callable[[JsonSchema], JsonSchema]:
    """Return the `change` of a Schema that takes one of these as well."""
    return lambda schema: {"anyOf": [schema, *others]}


_CONTROL = r"\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f"


def printable_schema(schema: JsonSchema) -> JsonSchema:
    """Text that must not be empty is trimmed first, so it must not be blank either."""
    pattern = rf"^[^{_CONTROL}]*[^\s{_CONTROL}][^{_CONTROL}]*$" if schema.get("minLength") else rf"^[^{_CONTROL}]*$"
    return {**schema, "pattern": pattern}


def without_unseen_schema(schema: JsonSchema) -> JsonSchema:
    """At its ends they are taken off. ECMA-262 has other escapes than Python."""
    unseen = re.sub(r"\\U([0-9a-f]{8})", lambda escaped: chr(int(escaped[1], 16)), UNSEEN.replace(r"\x", r"\u00"))
    return {**schema, "pattern": f"^[^{unseen}]*$"}


def _filled_in_schema(schema: JsonSchema) -> JsonSchema:
    words = [re.sub("[a-z]", lambda letter: f"[{letter[0]}{letter[0].upper()}]", word) for word in sorted(PLACEHOLDERS)]
    words = [word.replace("(", r"\(").replace(")", r"\)") for word in words]
    empty = [r"([Uu][Rr][Nn]:[Uu]{2}[Ii][Dd]:)?[{(]?0{8}-?(0{4}-?){3}0{12}[)}]?", "0{15}[Aa]{3}"]
    return {**schema, "not": {"pattern": rf"^\s*({'|'.join([*words, *empty, TEMPLATES])})\s*$"}}


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
    """Return what `command` says, as JSON, the same in whatever form its ids are."""
    return command.model_dump_json(context=COMPARED)


def normalized(text: str, form: Literal["NFC", "NFKC"] = "NFC") -> str:
    """Return a text in a normal form of Unicode; as it is if more than MOST_MARKS follow each other in it.

    To put these in order takes quadratic time, and no language has so many.
    Source: https://www.unicode.org/reports/tr15/#Stream_Safe_Text_Format
    """
    marks = 0
    for one in "" if text.isascii() else text:
        # Some stand for marks, and are none themselves: U+0F73, U+FF9E.
        is_mark = not one.isascii() and unicodedata.combining(unicodedata.normalize("NFKD", one)[0])
        marks = marks + 1 if is_mark else 0
        if marks > MOST_MARKS:
            return text
    return unicodedata.normalize(form, text)


def composed(value: object) -> object:
    return normalized(value) if isinstance(value, str) and not value.isascii() else value


def printable(value: str) -> str:
    if _CONTROLS.search(value):
        raise ValueError("must not contain control characters")
    return value


def is_same_text(stored: object, sent: str) -> bool:
    """Return whether they are the same but for how accents are composed, and for spaces around."""
    return isinstance(stored, str) and composed(stored.strip()) == composed(sent.strip())


def may_have_become(sent: str, stored: str) -> bool:
    """Return whether `stored` may be what a vendor made of `sent`.

    A vendor may cut a text at its end, change its case, strip or escape markup, and drop or replace what is not a
    letter or a digit of ASCII. Those stay in their order, except in what may be markup. A text of more than
    LONGEST_COMPARED characters may have become anything.
    """
    if len(sent) > LONGEST_COMPARED:
        return True
    in_markup = {place for found in _MARKUP.finditer(sent) for place in range(*found.span())}
    wanted: list[tuple[str, bool]] = []
    for place, one in enumerate(sent):
        if one.isascii() and one.isalnum():
            wanted.append((one.lower(), place in in_markup))
        elif not one.isascii() and wanted[-1:] != [ANYTHING]:
            wanted.append(ANYTHING)
    # Sets of places in `wanted`, each as a number whose bits are the places: so a letter takes a few steps, however
    # many places it may have.
    places_of: dict[str, int] = {}
    for place, (letter, _) in enumerate(wanted):
        places_of[letter] = places_of.get(letter, 0) | 1 << place
    skipped = sum(1 << place for place, (_, may_be_left_out) in enumerate(wanted) if may_be_left_out)
    anything = places_of.get(ANYTHING[0], 0)
    places = 1
    for one in re.sub(r"&#?\w{0,31}$", "", _MARKUP.sub("", stored[:LONGEST_COMPARED])).lower():
        if one.isascii() and one.isalnum():
            # The sum carries from each place over all that may be left out behind it.
            places |= ((places & skipped) + skipped) ^ skipped
            places = (places & places_of.get(one, 0)) << 1 | (places & anything)
    return bool(places)


def numeric_id(value: str, what: str) -> int:
    """Return the id of a vendor's record that a person gave. Raises InvalidError, which names it as `what`."""
    if not re.fullmatch("[1-9][0-9]{0,17}", value):
        raise InvalidError(f"Give {what}, which is a number.", fields=[FieldError("id", "must be a number")])
    return int(value)


def _or_text(pattern: str) -> Callable[[JsonSchema], JsonSchema]:
    """Return the `change` for numbers that CRMs write as text; the pattern repeats the limits."""
    return or_schema({"type": "string", "pattern": pattern})


def _not_a_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


type Text = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=1000),
    BeforeValidator(composed),
    Schema(),
    AfterValidator(printable),
    Schema(printable_schema),
]
type AnyId = Annotated[
    Text,
    AfterValidator(filled_in),
    Schema(_filled_in_schema),
    BeforeValidator(without_unseen),
    Schema(without_unseen_schema),
    BeforeValidator(without_zeros),
    Schema(),
    BeforeValidator(text_of_whole_number),
    Schema(or_schema({"type": "integer"})),
    PlainSerializer(_serialized, return_type=str),
]
"""An id of another system, as text; see `ids` for what cannot be one."""
type Id = Annotated[AnyId, Field(max_length=LONGEST_ID)]
"""An id of a record that a caller names."""
type Number = Annotated[
    int, Field(gt=0, lt=2**63), BeforeValidator(_not_a_boolean), Schema(_or_text("^[1-9][0-9]{0,17}$"))
]
"""An id that a vendor gives as a number."""
type Latitude = Annotated[
    float,
    Field(ge=-90, le=90),
    BeforeValidator(_not_a_boolean),
    Schema(_or_text(r"^-?(90(\.0+)?|[0-8]?[0-9](\.[0-9]+)?)$")),
]
type Longitude = Annotated[
    float,
    Field(ge=-180, le=180),
    BeforeValidator(_not_a_boolean),
    Schema(_or_text(r"^-?(180(\.0+)?|(1[0-7][0-9]|[0-9]{1,2})(\.[0-9]+)?)$")),
]
"""Degrees, WGS 84."""

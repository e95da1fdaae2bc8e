"""Alterations of a text by a vendor before it stores it: each was reported of some system, none of a vendor here.

A simulator's `alterations` are applied one after the other to every free text that it stores.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

type Alteration = Callable[[str], str]

_FOUR_BYTES = re.compile("[\U00010000-\U0010ffff]")


def cut(characters: int) -> Alteration:
    """As a column of that length does."""
    return lambda text: text[:characters]


def cut_bytes(size: int) -> Alteration:
    """The same in UTF-8, without half a character."""
    return lambda text: text.encode()[:size].decode(errors="ignore")


ALTERATIONS: Mapping[str, Alteration] = {
    "cut at 20 bytes": cut_bytes(20),
    "cut at 50": cut(50),
    "cut at an emoji": lambda text: _FOUR_BYTES.split(text)[0],
    "emoji to ????": lambda text: _FOUR_BYTES.sub("????", text),
    "only latin-1": lambda text: text.encode("latin-1", "replace").decode("latin-1"),
    "read as latin-1": lambda text: text.encode().decode("latin-1"),
    "invisible dropped": lambda text: "".join(one for one in text if unicodedata.category(one) != "Cf"),
    "quotes straightened": lambda text: text.translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'}),
    "tags stripped": lambda text: re.sub("<[^>]*>", "", text),
    "markup escaped": html.escape,
    "upper case": str.upper,
    "lower case": str.lower,
    "spaces collapsed": lambda text: " ".join(text.split()),
    "stripped": str.strip,
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
    "emptied": lambda _: "",
}


class Stored(str):
    """A text as a vendor stored it, which knows how it was sent."""

    sent: str
    __slots__ = ("sent",)


def stored(text: str, alterations: Sequence[Alteration]) -> Stored:
    altered = text
    for alter in alterations:
        altered = alter(altered)
    kept = Stored(altered)
    kept.sent = text
    return kept


def as_sent(value: object) -> object:
    """Return the member of a stored record as it was before any alteration."""
    return value.sent if isinstance(value, Stored) else value

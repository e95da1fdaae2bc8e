"""Messages about fields that a model does not have: they name the nearest known field, and never a value."""

from collections.abc import Iterator, Sequence
from typing import TypeAliasType, get_args

from pydantic import BaseModel

UNKNOWN_FIELD = "Unknown field"
"""The start of every such message."""
LEAST_ALIKE = 0.7
"""The least similarity of two names, from 0 to 1. `entity` and `entity_type` are; `number` and `name` are not."""
MOST_KNOWN = 100
"""Known names that an unknown one is compared with."""


def unknown_field(name: str, known: Sequence[str]) -> str:
    """Return `Unknown field "adress". Did you mean "address"?`; without the question if no known name is near."""
    from difflib import get_close_matches  # it takes 2 ms, which no cold start has to spend

    spelled = {one.lower(): one for one in known[:MOST_KNOWN]}
    nearest = get_close_matches(name.lower(), spelled, n=1, cutoff=LEAST_ALIKE)
    return f'{UNKNOWN_FIELD} "{name}"' + (f'. Did you mean "{spelled[nearest[0]]}"?' if nearest else "")


def known_fields(model: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """Return the names of the fields at a place within a model, as a caller writes them; none if it is no object."""
    for part in place:
        if isinstance(part, int):  # an element of a list
            continue
        field = next((field for name, field in model.model_fields.items() if part in (name, field.alias)), None)
        inner = next(_models(field.annotation), None) if field else None
        if inner is None:
            return []
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, TypeAliasType):
        annotation = annotation.__value__
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)

"""An object as the fields of an HTML form, for a vendor that does not take JSON."""

import json
from collections.abc import Iterator, Mapping

from crm_bridge.errors import RefusedError

LARGEST_FORM = 1_000_000
"""Characters. The name of a value has the names of all that it is in, so a record of many values in one of a long name
would become very much larger than its JSON."""


def form_of(fields: Mapping[str, object], vendor: str) -> dict[str, str]:
    """Return the fields: `owner.id`, `phones[0]`. Raises RefusedError if they are larger than LARGEST_FORM."""
    form: dict[str, str] = {}
    size = 0
    for name, value in _named(fields):
        size += len(name) + len(value or "")
        if size > LARGEST_FORM:
            raise RefusedError("the record is too large to be sent as a form: use shorter names", vendor=vendor)
        if value is not None:
            form[name] = value
    return form


def _named(value: object, name: str = "") -> Iterator[tuple[str, str | None]]:
    """Yield the name and the text of each value; of an object or a list None, because its name also takes time."""
    if isinstance(value, Mapping | list):
        yield name, None
    if isinstance(value, Mapping):
        for member, inner in value.items():
            yield from _named(inner, f"{name}.{member}" if name else str(member))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _named(inner, f"{name}[{number}]")
    elif isinstance(value, bool):
        yield name, json.dumps(value)
    else:
        yield name, "" if value is None else str(value)

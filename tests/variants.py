"""How many of a test's variants are run: about four of them, or all of them with LONG=1."""

import os
from collections.abc import Iterable

IS_LONG = bool(os.environ.get("LONG"))
MOST = 4


def some[T](variants: Iterable[T], most: int = MOST) -> list[T]:
    """Return at most `most` of them, evenly spread from the first to the last."""
    every = list(variants)
    if IS_LONG or len(every) <= most:
        return every
    return [every[round(number * (len(every) - 1) / (most - 1))] for number in range(most)]

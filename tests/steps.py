"""How much work Python code does, without a clock."""

import sys
from collections.abc import Callable


def steps(action: Callable[[], object]) -> int:
    """Return the number of lines of Python that an action runs."""
    count = 0

    def trace(frame: object, event: str, argument: object) -> object:  # noqa: ARG001 - what `settrace` gives
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        action()
    finally:
        sys.settrace(before)
    return count

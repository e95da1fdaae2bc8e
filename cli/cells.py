"""Cells of CSV files which a spreadsheet must not run, and which import as they were.

A spreadsheet takes what begins with `=`, `+`, `-`, `@`, a tab or a line break for a formula. An apostrophe before it
makes it text. Source: https://owasp.org/www-community/attacks/CSV_Injection
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from cli.command import WrongInputError

# A spreadsheet that expects another delimiter begins a cell after a semicolon or a tab, too.
_BEGINS = r"(?:^|(?<=[;\t]))"
_RUNS = "(?='*[=+@\\-\\t\\r\\n\0\uff1d\uff0b\uff0d\uff20])"


def refuse_special(file: Path) -> None:
    """Raise WrongInputError if there is something else than a file at this path, such as a folder or a pipe."""
    if file.exists() and not file.is_file():
        raise WrongInputError(f"{file} is not a regular file. Name another one.")


@contextmanager
def opened(file: Path) -> Iterator[TextIO]:
    """Write a CSV file, whole or not at all, that only its owner may read: it holds customers' data.

    It takes the place of what has its name, so that neither the permissions of an earlier file nor a link count.
    Raises WrongInputError if that is no file.
    """
    refuse_special(file)
    beside = file.with_name(f"{file.name}.part")
    beside.unlink(missing_ok=True)
    with open(
        beside, "x", newline="", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)
    ) as target:
        yield target
    beside.replace(file)


def escaped(cell: object) -> str:
    return re.sub(f"{_BEGINS}{_RUNS}", "'", str(cell))


def unescaped(cell: str) -> str:
    """Return the text before it was escaped; and that of `="001"`, which a spreadsheet does not take for a number."""
    if text := re.fullmatch('="(.*)"', cell, re.DOTALL):
        return text[1].replace('""', '"')
    return re.sub(f"{_BEGINS}'{_RUNS}", "", cell)

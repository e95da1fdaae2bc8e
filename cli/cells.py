"""Cells of CSV files which a spreadsheet must not run, and which import as they were.

A spreadsheet takes what begins with `=`, `+`, `-`, `@`, a tab or a line break for a formula. An apostrophe before it
makes it text. Source: https://owasp.org/www-community/attacks/CSV_Injection
"""

import os
import re
from pathlib import Path
from typing import TextIO

# A spreadsheet that expects another delimiter begins a cell after a semicolon or a tab, too.
_BEGINS = r"(?:^|(?<=[;\t]))"
_RUNS = "(?='*[=+@\\-\\t\\r\\n\0\uff1d\uff0b\uff0d\uff20])"


def opened(file: Path) -> TextIO:
    """Open a CSV file to be written, which only its owner may read if it is new: it holds customers' data."""
    return open(file, "w", newline="", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600))


def escaped(cell: object) -> str:
    return re.sub(f"{_BEGINS}{_RUNS}", "'", str(cell))


def unescaped(cell: str) -> str:
    """What was escaped, as it was; and the text in `="001"`, which keeps a spreadsheet from taking it for a number."""
    if text := re.fullmatch('="(.*)"', cell, re.DOTALL):
        return text[1].replace('""', '"')
    return re.sub(f"{_BEGINS}'{_RUNS}", "", cell)

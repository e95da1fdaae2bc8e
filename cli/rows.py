"""The rows of a file, each checked like the request that it stands for. Nothing is sent from here."""

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel

from cli.cells import unescaped
from cli.command import WrongInputError
from crm_bridge.errors import FieldError, InvalidError
from crm_bridge.fields import IN_CSV
from crm_bridge.inbound.api import once, validated

DELIMITERS = ",;\t"
MOST_LINES = 100
"""Physical lines that one row may have, so that a file of open quotes is read in linear time."""
LINE_BREAKS_IN = frozenset({"address", "notes"})
"""Fields whose cells may have line breaks."""

type Members = Mapping[str, Any] | FieldError | None
"""The fields of a row, or its error; None if it is empty."""


@dataclass(frozen=True)
class Row[M: BaseModel]:
    """`line` is where it begins in the file, `lines` how many it has there. It has a value, or errors, or is empty."""

    line: int
    value: M | None
    errors: tuple[FieldError, ...] = ()
    lines: int = 1

    @property
    def problem(self) -> str:
        return "; ".join(f"{one.field}: {one.message}" if one.field else one.message for one in self.errors)


def rows[M: BaseModel](file: Path, model: type[M], as_json: Sequence[str] = ()) -> Iterator[Row[M]]:
    """Return the rows of a `.jsonl` file, one object in each line, or else of a CSV file whose header names the fields.

    `-` is standard input, which is JSON if it begins with a brace.
    Each line of the file but the header is in one of them. In CSV a dot stands before a field within a field, an empty
    cell is null, and the cells of columns in `as_json` are JSON. Raises WrongInputError if the file cannot be read, or
    its header names an unknown column, or one twice.
    """
    try:
        with _opened(file) as lines:
            is_csv = lines.read(1) != "{" if str(file) == "-" else file.suffix != ".jsonl"
            lines.seek(0)
            for line, members, size in _csv(lines, model, as_json) if is_csv else _jsonl(lines):
                yield _checked(line, members, size, model, IN_CSV if is_csv else None)
    except (OSError, UnicodeDecodeError) as error:
        raise WrongInputError(f"Cannot read {file} as UTF-8 ({type(error).__name__}).") from None


def _opened(file: Path) -> IO[str]:
    if str(file) != "-":
        return file.open(encoding="utf-8-sig", newline="")
    return io.StringIO(sys.stdin.buffer.read().decode("utf-8-sig"), newline="")


def _checked[M: BaseModel](line: int, members: Members, size: int, model: type[M], context: str | None) -> Row[M]:
    if members is None or isinstance(members, FieldError):
        return Row(line, None, (members,) if members else (), size)
    try:
        return Row(line, validated(model, members, context), lines=size)
    except InvalidError as error:
        return Row(line, None, error.fields, size)


def _jsonl(lines: IO[str]) -> Iterator[tuple[int, Members, int]]:
    for number, line in enumerate(lines, 1):
        yield number, _object(line) if line.strip() else None, 1


def _object(text: str) -> Members:
    try:
        members = json.loads(text, object_pairs_hook=once)
    except InvalidError as error:
        return error.fields[0]
    except (ValueError, RecursionError):
        members = None
    return members if isinstance(members, dict) else FieldError("the line", "is not a JSON object")


def _csv(lines: IO[str], model: type[BaseModel], as_json: Sequence[str]) -> Iterator[tuple[int, Members, int]]:
    header = lines.readline()
    delimiter = max(DELIMITERS, key=header.count)
    try:
        columns = [column.strip() for column in next(csv.reader([header], delimiter=delimiter), [])]
    except csv.Error as error:
        raise WrongInputError(f"The first line cannot be read as CSV ({error}).") from None
    unknown = sorted({column.partition(".")[0] for column in columns} - model.model_fields.keys())
    if unknown or not columns:
        raise WrongInputError(
            f"{f'Unknown column {", ".join(unknown)}' if unknown else 'No columns'} in the first line. "
            f"The columns are {', '.join(model.model_fields)}."
        )
    whole = {column.partition(".")[0] for column in columns if "." in column} & set(columns)
    if twice := sorted({column for column, times in Counter(columns).items() if times > 1} | whole):
        raise WrongInputError(f"The first line names {', '.join(twice)} more than once. Name each column once.")
    rest = list(lines)
    closed: dict[int, int] = {}
    at = 0
    while at < len(rest):
        line, size = at + 2, 1
        members: Members
        if line in closed:
            members = FieldError("the line", f"closes the quote that line {closed[line]} opens")
        else:
            cells, size = _cells(rest[at : at + MOST_LINES], columns, delimiter, as_json)
            if isinstance(cells, FieldError):
                closed[line + size - 1] = line
                members, size = cells, 1
            elif any(cell.strip() for cell in cells):
                members = _members(columns, cells, as_json)
            else:
                members = None
        yield line, members, size
        at += size


def _cells(
    lines: Sequence[str], columns: Sequence[str], delimiter: str, as_json: Sequence[str]
) -> tuple[list[str] | FieldError, int]:
    """Return the cells of the first row in `lines`, and its number of lines.

    A quote that is not closed in its line is an error, unless all that it spans must be one cell.
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        cells = next(reader)
    except csv.Error as error:
        return FieldError("the line", f"cannot be read as CSV ({error})"), 1
    if (size := reader.line_num) > 1:
        for column, cell in zip(columns, cells, strict=False):
            may_break = column in as_json or column.rpartition(".")[2] in LINE_BREAKS_IN
            if not may_break and ("\n" in cell or "\r" in cell):
                return FieldError(column, "must not contain line breaks"), size
        least = min(lines[0].count(delimiter), lines[size - 1].count(delimiter))
        if len(cells) > len(columns) or least + 1 >= len(columns):  # each looks as if it were a row of its own
            return FieldError("the line", "has a quote that is not closed"), size
    return [unescaped(cell) for cell in cells], size


def _members(columns: Sequence[str], cells: Sequence[str], as_json: Sequence[str]) -> Mapping[str, Any] | FieldError:
    if len(cells) > len(columns):
        return FieldError("the line", f"has {len(cells)} cells, and the first line names {len(columns)}")
    members: dict[str, Any] = {}
    for column, cell in zip(columns, cells, strict=False):
        if not cell.strip():
            continue
        outer, _, inner = column.partition(".")
        value: Any = cell
        if column in as_json:
            try:
                value = json.loads(cell, object_pairs_hook=once)
            except InvalidError as error:
                return error.fields[0]
            except (ValueError, RecursionError):
                return FieldError(column, "must be JSON, as [1, 2]")
        if inner:
            members.setdefault(outer, {})[inner] = value
        else:
            members[outer] = value
    return members

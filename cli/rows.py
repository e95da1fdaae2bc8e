"""Rows of a file, each checked as the request would be that it stands for. Nothing is sent from here."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel

from cli.command import WrongInputError
from crm_bridge.api import validated
from crm_bridge.errors import FieldError, InvalidError

DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Row[M: BaseModel]:
    """`line` is where it begins in the file. Either there is what it says, or what is wrong with it."""

    line: int
    said: M | None
    errors: tuple[FieldError, ...] = ()


def rows[M: BaseModel](file: Path, model: type[M], as_json: Sequence[str] = ()) -> Iterator[Row[M]]:
    """The rows of a `.jsonl` file, one object in each line, or else of a CSV file whose header names the fields.

    In CSV a dot stands before a field within a field, an empty cell says nothing, and the cells of columns in `as_json`
    are JSON. Raises WrongInputError if the file cannot be read at all, or its header names what is not known.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            read = _jsonl(lines) if file.suffix == ".jsonl" else _csv(lines, model, as_json)
            for line, members in read:
                yield _checked(line, members, model)
    except (OSError, UnicodeDecodeError) as error:
        raise WrongInputError(f"{file} cannot be read as UTF-8 ({type(error).__name__}).") from None


def _checked[M: BaseModel](line: int, members: Mapping[str, Any] | FieldError, model: type[M]) -> Row[M]:
    if isinstance(members, FieldError):
        return Row(line, None, (members,))
    try:
        return Row(line, validated(model, members))
    except InvalidError as error:
        return Row(line, None, error.fields)


def _jsonl(lines: IO[str]) -> Iterator[tuple[int, Mapping[str, Any] | FieldError]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            members = json.loads(line)
        except ValueError:
            members = None
        yield number, members if isinstance(members, dict) else FieldError("the line", "is no JSON object")


def _csv(
    lines: IO[str], model: type[BaseModel], as_json: Sequence[str]
) -> Iterator[tuple[int, Mapping[str, Any] | FieldError]]:
    header = lines.readline()
    delimiter = max(DELIMITERS, key=header.count)
    columns = [column.strip() for column in next(csv.reader([header], delimiter=delimiter), [])]
    unknown = sorted({column.partition(".")[0] for column in columns} - model.model_fields.keys())
    if unknown or not columns:
        raise WrongInputError(
            f"The first line must name the columns; {', '.join(unknown) or 'nothing'} is not known. "
            f"Known are {', '.join(model.model_fields)}."
        )
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    begins = 2
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield begins, FieldError("the line", f"cannot be read as CSV ({error})")
            begins = reader.line_num + 2
            continue
        if any(cell.strip() for cell in cells):
            yield begins, _members(columns, cells, as_json)
        begins = reader.line_num + 2


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
                value = json.loads(cell)
            except ValueError:
                return FieldError(column, "must be JSON, as [1, 2]")
        if inner:
            members.setdefault(outer, {})[inner] = value
        else:
            members[outer] = value
    return members

"""No cell that is written is run by a spreadsheet, and each is read as it was."""

import csv
import stat
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cli.cells import escaped, opened, unescaped

STARTS = "=+-@\t\r\n\0\uff1d\uff0b\uff0d\uff20"
texts = st.text(st.sampled_from(f"{STARTS}';, \"ab1") | st.characters(codec="utf-8"))


@given(texts)
@example("'")
@example("''=1")
@example('="1"')
@example(";'\t=")
def test_a_cell_is_what_it_was_when_it_is_written_and_read(text: str) -> None:
    assert unescaped(escaped(text)) == text


@given(st.lists(texts, min_size=1))
def test_no_cell_begins_as_a_formula_when_a_spreadsheet_splits_at_any_delimiter(cells: list[str]) -> None:
    written = StringIO()
    csv.writer(written).writerow(map(escaped, cells))
    for cell in next(csv.reader(StringIO(written.getvalue(), newline=""))):
        assert not any(part.startswith(tuple(STARTS)) for part in cell.replace("\t", ";").split(";") if part), cell


@pytest.mark.parametrize("text", ["", "C-1001", "O'Brien", "'quoted'", "a=b", "Shop 12; Kitale", "4711", "'", "a'=b"])
def test_a_cell_is_left_as_it_is_when_nothing_in_it_would_be_run(text: str) -> None:
    assert escaped(text) == unescaped(text) == text


@pytest.mark.parametrize(
    ("cell", "text"), [('="00123"', "00123"), ('="a""b"', 'a"b'), ("'-1.5", "-1.5"), ("-1.5", "-1.5")]
)
def test_what_spreadsheets_users_write_is_read_as_they_meant_it(cell: str, text: str) -> None:
    assert unescaped(cell) == text


def test_a_new_file_is_its_owners_only(tmp_path: Path) -> None:
    with opened(tmp_path / "result.csv") as file:
        file.write("a\n")
    assert stat.S_IMODE((tmp_path / "result.csv").stat().st_mode) == 0o600

"""No cell that is written is run by a spreadsheet, and each is read as it was."""

import csv
import os
import stat
from contextlib import suppress
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cli.cells import escaped, opened, unescaped
from cli.command import WrongInputError

STARTS = "=+-@\t\r\n\0\uff1d\uff0b\uff0d\uff20"
texts = st.text(st.sampled_from(f"{STARTS}';, \"ab1") | st.characters(codec="utf-8"))


@settings(deadline=None)  # a busy machine is no failure
@given(texts)
@example("'")
@example("''=1")
@example('="1"')
@example(";'\t=")
def test_a_cell_is_what_it_was_when_it_is_written_and_read(text: str) -> None:
    assert unescaped(escaped(text)) == text


@settings(deadline=None)  # a busy machine is no failure
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


def test_a_file_is_its_owners_only_whatever_was_there_before(tmp_path: Path) -> None:
    file, others = tmp_path / "result.csv", tmp_path / "others.csv"

    def written() -> tuple[str, int]:
        with opened(file) as target:
            target.write("new")
        assert sorted(tmp_path.iterdir()) == sorted({file, *([others] if others.exists() else [])})
        return file.read_text(), stat.S_IMODE(file.lstat().st_mode)

    assert written() == ("new", 0o600)
    file.write_text("old")
    file.chmod(0o644)
    assert written() == ("new", 0o600)
    others.write_text("not ours")
    file.unlink()
    file.symlink_to(others)
    beside = tmp_path / "result.csv.part"
    beside.symlink_to(others)
    assert written() == ("new", 0o600)
    assert others.read_text() == "not ours"
    file.unlink()
    file.hardlink_to(others)
    assert written() == ("new", 0o600)
    assert others.read_text() == "not ours"


def test_what_is_there_stays_when_writing_fails(tmp_path: Path) -> None:
    file = tmp_path / "result.csv"
    file.write_text("old")
    with suppress(RuntimeError), opened(file) as target:
        target.write("half")
        raise RuntimeError
    assert file.read_text() == "old"


def test_a_pipe_or_a_folder_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder", "/dev/null"):
        with pytest.raises(WrongInputError, match="is not a regular file"), opened(tmp_path / name):
            pass
    assert Path("/dev/null").is_char_device()

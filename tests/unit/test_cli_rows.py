"""Rows of a file are what the requests would be that they stand for, and each mistake has its line."""

import csv
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cli.command import WrongInputError
from cli.rows import rows
from create_job.models import NewJob
from create_site.models import NewSite

HEADER = "customer_id,name,latitude,longitude,address\n"
ROW = 'C-1,"Shop 12, Kitale",1.0157,35.0062,Moi Ave 12\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows.csv"


def test_a_row_is_read_as_the_request_would_be(file: Path) -> None:
    file.write_text(HEADER + ROW)
    (row,) = rows(file, NewSite)
    assert row.line == 2
    assert row.value == NewSite(
        customer_id="C-1", name="Shop 12, Kitale", latitude=1.0157, longitude=35.0062, address="Moi Ave 12"
    )


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_spreadsheets_write_other_delimiters_and_a_mark_before_the_first_line(file: Path, delimiter: str) -> None:
    text = (HEADER + 'C-1,"Shop 12",1.5,35,"Moi Ave"\n').replace(",", delimiter)
    file.write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    (row,) = rows(file, NewSite)
    assert row.value
    assert (row.value.customer_id, row.value.latitude) == ("C-1", 1.5)


def test_lines_are_counted_through_cells_of_several_lines_and_empty_lines(file: Path) -> None:
    file.write_text(HEADER + 'C-1,Shop,1,2,"here\n12"\n\n,,,,\n' + ROW + "C-3,Shop,north,2,here\n")
    found = list(rows(file, NewSite))
    assert [(row.line, row.lines, row.value is None, bool(row.errors)) for row in found] == [
        *((2, 2, False, False), (4, 1, True, False), (5, 1, True, False), (6, 1, False, False), (7, 1, True, True))
    ]
    assert [error.field for error in found[-1].errors] == ["latitude"]


def test_every_mistake_of_a_row_is_reported(file: Path) -> None:
    file.write_text(HEADER + ",,91,x,\n")
    (row,) = rows(file, NewSite)
    assert row.value is None
    assert {error.field for error in row.errors} == {"customer_id", "name", "latitude", "longitude", "address"}


@pytest.mark.parametrize("line", ["C-1,Shop,1,2,here,too much\n", 'C-1,"Shop" x,1,2,here\n'])
def test_what_is_no_row_is_reported_and_the_next_one_is_read(file: Path, line: str) -> None:
    file.write_text(HEADER + line + ROW)
    bad, good = rows(file, NewSite)
    assert (bad.line, bad.value, bad.errors[0].field) == (2, None, "the line")
    assert (good.line, good.errors) == (3, ())


def test_fields_within_fields_and_lists_can_stand_in_csv(file: Path) -> None:
    file.write_text(
        "ticket_id;name;customer_id;site.name;site.latitude;site.longitude;site.address;tag_ids\n"
        "T-1;Meter;C-1;Shop;1;2;here;[1, 2]\nT-2;Meter;C-1;;;;;\nT-3;Meter;C-1;;;;;1 and 2\n"
    )
    whole, bare, wrong = rows(file, NewJob, ("tag_ids",))
    assert whole.value
    assert whole.value.site
    assert (whole.value.site.latitude, whole.value.tag_ids) == (1, [1, 2])
    assert bare.value
    assert (bare.value.site, bare.value.tag_ids) == (None, None)
    assert [error.field for error in wrong.errors] == ["tag_ids"]


@pytest.mark.parametrize("empty", ["", '""', " ", '"  "', "\t"])
def test_an_empty_cell_is_null_however_it_is_written(file: Path, empty: str) -> None:
    columns = ("due_date", "assigned_user_id", "notes", "tag_ids", "customer_id", "site.name", "site.latitude")
    file.write_text(f"ticket_id,name,site_id,{','.join(columns)}\nT-1,Leak,4711{(',' + empty) * len(columns)}\n")
    (row,) = rows(file, NewJob, ("tag_ids",))
    assert row.value == NewJob(ticket_id="T-1", name="Leak", site_id=4711)
    file.write_text(f"ticket_id,name,site_id\nT-1,{empty},4711\n")
    (row,) = rows(file, NewJob)
    assert [(error.field, error.message) for error in row.errors] == [("name", "is required")]


def test_null_is_the_same_as_left_out_in_json(tmp_path: Path) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_text(
        '{"ticket_id": "T-1", "name": "Leak", "site_id": 4711, "notes": null, "site": null}\n{"name": null}\n'
    )
    first, second = rows(file, NewJob)
    assert first.value == NewJob(ticket_id="T-1", name="Leak", site_id=4711)
    assert ("name", "is required") in [(error.field, error.message) for error in second.errors]


def test_a_jsonl_file_has_one_object_in_each_line(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    good = '{"customer_id": 7, "name": "Shop", "latitude": 1, "longitude": 2, "address": "here"}'
    file.write_text(f"{good}\n\n[1]\n{{\n")
    first, empty, second, third = rows(file, NewSite)
    assert first.value
    assert first.value.customer_id == "7"
    assert (empty.line, empty.value, empty.errors) == (2, None, ())
    assert [(row.line, row.errors[0].field) for row in (second, third)] == [(3, "the line"), (4, "the line")]


@pytest.mark.parametrize("text", ["customer_id,nmae\n", "", "a;b\n"])
def test_a_header_that_names_something_else_is_refused(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(WrongInputError, match="The columns are name, latitude"):
        list(rows(file, NewSite))


def test_what_is_not_utf8_is_refused(file: Path) -> None:
    file.write_bytes(HEADER.encode() + b"C-1,Caf\xe9,1,2,here\n")
    with pytest.raises(WrongInputError, match="UTF-8"):
        list(rows(file, NewSite))


@pytest.mark.parametrize(
    ("header", "twice"),
    [
        ("customer_id,name,latitude,longitude,address,name", "name"),
        ("name,customer_id, name ,address,address", "address, name"),
        ("customer_id;name;latitude;longitude;address;Name", None),
    ],
)
def test_a_header_is_refused_when_it_names_a_column_twice(file: Path, header: str, twice: str | None) -> None:
    file.write_text(f"{header}\n{ROW}")
    with pytest.raises(WrongInputError, match=f"{twice} more than once" if twice else "Unknown column Name"):
        list(rows(file, NewSite))


def test_a_header_is_refused_when_it_names_a_field_and_one_within_it(file: Path) -> None:
    file.write_text("ticket_id,name,customer_id,site,site.name\nT-1,Meter,C-1,a,b\n")
    with pytest.raises(WrongInputError, match="names site more than once"):
        list(rows(file, NewJob))


def test_notes_may_have_several_lines_whatever_they_contain(file: Path) -> None:
    notes = 'first, with a comma\n\n"quoted", and more\r\nlast'
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([("ticket_id", "name", "site_id", "notes"), ("T-1", "Meter", "1", notes)])
    (row,) = rows(file, NewJob)
    assert row.value
    assert (row.value.notes, row.lines) == (notes, 4)


def test_a_file_is_refused_when_its_first_line_has_a_cell_that_is_too_long(file: Path) -> None:
    file.write_text(f"customer_id,{'x' * 200_000}\n{ROW}")
    with pytest.raises(WrongInputError, match="first line cannot be read as CSV"):
        next(rows(file, NewSite))


def test_a_cell_of_json_is_refused_when_it_has_a_member_twice(file: Path) -> None:
    file.write_text('ticket_id;name;site_id;workflow_instances\nT-1;Meter;1;"[{""a"": 1, ""a"": 2}]"\n')
    (row,) = rows(file, NewJob, ("workflow_instances",))
    assert [(error.field, error.message) for error in row.errors] == [("a", "appears more than once")]


def physical_lines(text: str) -> int:
    return len(re.findall("[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+$", text))


@settings(deadline=None)  # a busy machine is no failure
@given(st.text('",;\n\rab1 ', max_size=200))
@example('"\n' * 60)
@example('a,"b\n"c",d\n')
def test_every_physical_line_is_in_exactly_one_row(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.mktemp("rows") / "rows.csv"
    file.write_bytes((HEADER + text).encode())
    found = list(rows(file, NewSite))
    assert [row.line for row in found] == [2 + sum(row.lines for row in found[:at]) for at in range(len(found))]
    assert sum(row.lines for row in found) == physical_lines(text)

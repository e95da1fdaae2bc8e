"""The output in a terminal: nothing in it that the terminal would act on, or hide."""

import ast
import io
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from cli import links, prompts
from cli.__main__ import app, main
from cli.operations import COLUMNS, _row
from cli.output import Output, print_traceback, visible
from cli.progress import Progress, progress_of
from cli.prompts import confirm
from crm_bridge import __version__
from crm_bridge.errors import Event
from crm_bridge.storage.links import Identity
from crm_bridge.storage.operation import Attempt, OperationSummary, State

HOSTILE = "Shop\x1b]52;c;cGF5bG9hZA==\x07\x9b31m \u202egnp.exe\u200b\u2028\u2029\x7f\r\t\x00\udcff"
SHOWN = r"Shop\x1b]52;c;cGF5bG9hZA==\x07\x9b31m \u202egnp.exe\u200b\u2028\u2029\x7f\r\t\x00\udcff"
NOT_SHOWN = set(HOSTILE) - set(SHOWN)
SUMMARY = OperationSummary(
    operation_id="op_1",
    flow="create_site",
    event_key=HOSTILE,
    state=State.NEEDS_REVIEW,
    last_attempt=Attempt(at=0, event=Event.IN_DOUBT, reason=HOSTILE),
    created_at=0,
    updated_at=0,
)


def is_visible(shown: str, times: int = 1) -> bool:
    shown_text = "".join(shown.split())
    return shown_text.count("".join(SHOWN.split())) == times and not NOT_SHOWN & set(shown)


@pytest.mark.parametrize("text", ["Shop 12, Kitale", "Zażółć gęślą jaźń", "日本 🏪", "two\nlines", "\u00a0"])
def test_ordinary_text_is_shown_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_what_steers_a_terminal_or_hides_is_written_out() -> None:
    assert visible(HOSTILE) == SHOWN


def test_whatever_is_shown_is_visible(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=False)
    output.line(HOSTILE)
    output.pairs({"name": HOSTILE})
    output.table(("name",), [(HOSTILE,)])
    output.notice(HOSTILE)
    shown = capsys.readouterr()
    assert is_visible(shown.out + shown.err, 4)


def test_one_value_is_one_line_of_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).table(("name", "state"), [("Shop\nanother", "needs_review")])
    assert r"Shop\nanother" in capsys.readouterr().out


def test_json_is_ascii_and_reads_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).document({"name": f"{HOSTILE} Zażółć"})
    shown = capsys.readouterr().out
    assert json.loads(shown) == {"name": f"{HOSTILE} Zażółć"}
    assert not [one for one in shown if not one.isprintable() and one != "\n"]
    assert shown.isascii()


def test_a_bar_shows_what_is_said_as_it_is() -> None:
    output = Output(as_json=False)
    output.notices = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=400)
    assert isinstance(output.notices.file, io.StringIO)
    with progress_of(output, HOSTILE, 2) as progress:
        progress.say(f"[bold]{HOSTILE}")
        progress.advance(HOSTILE)
        progress.bar.refresh()
    shown = output.notices.file.getvalue()
    assert f"[bold]{SHOWN}" in shown
    assert not (NOT_SHOWN - {"\x1b", "\r"}) & set(shown)
    assert "\x1b]" not in shown


@pytest.mark.parametrize("width", [60, 80, 120])
def test_progress_takes_two_lines_when_the_terminal_is_narrow(width: int) -> None:
    output = Output(as_json=False)
    output.notices = Console(file=io.StringIO(), force_terminal=True, width=width)
    progress = Progress(output, "sites", 10_000)
    progress.advance("succeeded", 4_120)
    progress.advance("needs_review", 3)
    progress.say("illu is down or asks for time, trying again in 240 s")
    screen = Console(file=io.StringIO(), width=width)
    screen.print(progress.bar.get_renderable())
    assert isinstance(screen.file, io.StringIO)
    bar, below = screen.file.getvalue().splitlines()
    assert "4,123 of 10,000" in bar
    assert below.strip() == "illu is down or asks for time, trying again in 240 s"


def test_no_progress_is_shown_when_json_is_wanted_in_a_terminal() -> None:
    output = Output(as_json=True)
    output.notices = Console(file=io.StringIO(), force_terminal=True)
    with progress_of(output, "sites", 1) as progress:
        progress.advance("succeeded")
    assert isinstance(output.notices.file, io.StringIO)
    assert output.notices.file.getvalue() == ""


@pytest.mark.parametrize(("as_json", "lines"), [(False, ["Paused.", "sites: 3 of 3 (1 done, 2 failed)"]), (True, [])])
def test_progress_is_plain_lines_when_there_is_no_terminal_and_nothing_with_json(
    capsys: pytest.CaptureFixture[str], as_json: bool, lines: list[str]
) -> None:
    with progress_of(Output(as_json=as_json), "sites", 2) as progress:
        progress.say("Paused.")
        progress.say("")
        progress.advance("done")
        progress._next_line = 0.0
        progress.advance("failed", 2)  # the total was an estimate
    shown = capsys.readouterr()
    assert (shown.out, shown.err.splitlines()) == ("", lines)


def test_a_question_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(prompts.sys.stdin, "isatty", lambda: True)  # type: ignore[attr-defined]

    def answer(question: str, **_: object) -> bool:
        asked.append(question)
        return True

    monkeypatch.setattr(typer, "confirm", answer)
    confirm(f"Store {HOSTILE}?")
    assert asked == [f"Store {SHOWN}?"]


def test_a_listed_operation_is_visible(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=False)
    output.screen = Console(width=400)
    output.table(COLUMNS, [_row(SUMMARY)])
    assert is_visible(capsys.readouterr().out, 2)


WAITING = (
    "waiting",
    "create_site",
    "C-1",
    "not done: illu answered 503: " + "busy " * 9,
    "",
    "2026-11-30 08:00:00 UTC",
    "op_1",
)


def lines(capsys: pytest.CaptureFixture[str], width: int, *rows: Sequence[object]) -> list[str]:
    output = Output(as_json=False)
    output.screen = Console(width=width)
    output.table(COLUMNS, rows, head=3)
    found = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, found)) <= width
    return [line for line in found if line]


@pytest.mark.parametrize("width", [80, 100])
def test_rows_are_printed_one_below_the_other_when_they_are_too_wide(
    capsys: pytest.CaptureFixture[str], width: int
) -> None:
    done = ("succeeded", "create_site", "C-1002", "done", "", "2026-11-30 08:00:00 UTC", "op_2")
    first, *_, second, _attempt, _changed, last = lines(capsys, width, WAITING, done)
    assert first == " waiting     create_site   C-1"
    assert second == " succeeded   create_site   C-1002"
    assert last.split() == ["operation", "op_2"]


def test_nothing_is_cut_off_when_the_first_cells_are_too_long_for_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    key = "salesforce#customer#" + "001XX0000ABCDEF" * 4
    found = lines(capsys, 80, ("waiting", "create_key_link", key, *WAITING[3:]))
    assert found[0] == " waiting   create_key_link"
    assert key in "".join(line.strip() for line in found).replace("event key  ", "")


def test_a_row_is_one_line_without_its_empty_column_when_the_width_suffices(capsys: pytest.CaptureFixture[str]) -> None:
    head, _, row = lines(capsys, 200, WAITING)
    assert "due" not in head.split()
    assert row.split() == " ".join(map(str, WAITING)).split()


def test_only_the_widest_column_is_folded_when_that_suffices(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, first, *more = lines(capsys, 120, WAITING)
    assert first.split()[-1] == "op_1"
    assert "busy" in more[0]


def test_links_are_visible_in_a_terminal_and_as_they_are_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = "Shop\x1b]52;c;aaaa\x07 \u202egnp"
    link = links.StoredLink(Identity("crm", "customer", record), Identity("illu", "site", "1"), "op_1", 0)
    monkeypatch.setattr(links, "stored", lambda *_: [link])
    bridge: Any = type("Bridge", (), {"output": Output(as_json=False)})
    links.export(bridge, "acme")
    assert f"crm,customer,{record},illu,site,1,op_1,0\n" in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    links.export(bridge, "acme")
    assert f"crm,customer,{visible(record)},illu,site,1,op_1,0\n" in capsys.readouterr().out


def test_the_text_of_an_unexpected_error_is_visible(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        try:
            raise ValueError(HOSTILE)
        except ValueError as error:
            error.add_note(HOSTILE)
            raise RuntimeError(HOSTILE) from error
    except RuntimeError as error:
        print_traceback(RuntimeError, error, error.__traceback__)
    assert is_visible(capsys.readouterr().err, 3)


@pytest.mark.parametrize("argument", ["\x1b]52;c;cGF5bG9hZA==\x07", "--\x9b31m", "a\x7f", "a\rb"])
def test_an_argument_with_a_control_character_is_refused_before_it_is_repeated(
    argument: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["crm-bridge", "operations", "show", "acme", argument, "one", "too", "many"])
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    with pytest.raises(SystemExit, match="2"):
        main()
    assert tuple(capsys.readouterr()) == ("", "An argument contains a control character. Remove it.\n")
    assert sys.excepthook is print_traceback


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["tail", "acme", "--none"], "No such option: --none"),
        (["tail", "acme", "--flow", "none"], "Choose one of"),
        (["show"], "ID"),
        (["import", "sites", "acme", "none.csv"], "There is no file none.csv."),
    ],
)
def test_an_error_is_a_document_when_the_command_is_wrong_and_json_is_wanted(
    arguments: list[str], error: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["crm-bridge", *arguments, "--json"])
    with pytest.raises(SystemExit, match="2"):
        main()
    shown = capsys.readouterr()
    assert (shown.out, error in json.loads(shown.err)["error"]) == ("", True), shown.err


@pytest.mark.parametrize("option", ["--version", "-h"])
def test_the_version_and_the_help_are_printed_without_a_bridge(option: str) -> None:
    printed = CliRunner().invoke(app, [option])
    assert printed.exit_code == 0
    assert (f"crm-bridge {__version__}" if option == "--version" else "operations") in printed.output


def test_every_command_that_is_suggested_names_the_bridge() -> None:
    """`Output.command` adds the options that were typed."""
    nodes = [(file, node) for file in Path("cli").glob("*.py") for node in ast.walk(ast.parse(file.read_text()))]
    texts = [(file, ast.unparse(node)) for file, node in nodes if isinstance(node, ast.JoinedStr)]
    assert len(texts) > 100
    assert [(file, text) for file, text in texts if re.search(r"crm-bridge [a-z]", text)] == []

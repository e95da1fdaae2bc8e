"""What a terminal is shown: nothing in it that the terminal would act on, or hide."""

import pytest

from cli.output import Output, visible

HOSTILE = "Shop\x1b]52;c;cGF5bG9hZA==\x07\x9b31m \u202egnp.exe\u200b\r\t\x00"
SHOWN = r"Shop\x1b]52;c;cGF5bG9hZA==\x07\x9b31m \u202egnp.exe\u200b\r\t\x00"


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
    told = (shown.out + shown.err).replace("\n", "").replace(" ", "")
    assert told.count(SHOWN.replace(" ", "")) == 4
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\u200b", "\r", "\t", "\x00"} & {*told}

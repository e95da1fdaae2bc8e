"""The output of a command: for people or as one JSON document on standard output; notices on standard error."""

import json
import sys
import traceback
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

STYLES = {
    "ok": "green",
    "succeeded": "green",
    "failed": "bold red",
    "needs_review": "bold red",
    "rejected": "red",
    "unconfirmed": "yellow",
    "waiting": "yellow",
    "warning": "yellow",
}
"""A word that is a cell of its own is coloured; it says the same without."""


NARROWEST, GAP = 28, 3
"""Columns to which the widest one may be folded, and between two."""
_NOT_VISIBLE = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")
"""Categories: control, format, private use, surrogate, and Unicode's own line and paragraph separators."""


def visible(text: str) -> str:
    """Write out what a terminal would act on or hide: control characters but line breaks, and format characters.

    They may come from a vendor or a CRM. Source: https://www.unicode.org/reports/tr36/
    """
    return "".join(
        ascii(one)[1:-1] if one != "\n" and unicodedata.category(one) in _NOT_VISIBLE else one for one in text
    )


class Output:
    """Whatever is shown goes through `Text` and `visible`: nothing that a customer is called is taken for markup, and
    nothing steers the terminal.
    """

    def __init__(self, *, as_json: bool, options: str = "") -> None:
        """`options` name the bridge, and belong to every command that is suggested."""
        self.as_json = as_json
        self._options = options
        self.screen = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        self.notices = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())

    def document(self, document: object) -> None:
        """The result for machines; nothing if the command speaks to a person."""
        if self.as_json:
            sys.stdout.write(json.dumps(document, indent=2) + "\n")  # ASCII: all else is escaped

    def line(self, text: str = "", style: str = "") -> None:
        if not self.as_json:
            self.screen.print(Text(visible(text), style=style))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, head: int = 2) -> None:
        """Print rows side by side, in which at most the widest column of texts is folded; or one below the other, if
        that is too wide: a row's first `head` cells in a line, and below it what else the row has.

        A column without a value is left out. Print nothing if there are no rows.
        """
        cells = [[_cell(value) for value in row] for row in rows]
        widths = [max((row[number].cell_len for row in cells), default=0) for number in range(len(columns))]
        if not cells or self.as_json:
            return
        shown = [number for number, width in enumerate(widths) if width]
        needed = [max(widths[number], cell_len(columns[number])) for number in shown]
        # An id is of no use if it is folded: it cannot be selected, or found, as a whole.
        foldable = max(
            (widths[number] for number in shown if any(" " in row[number].plain for row in cells)), default=0
        )
        if sum(needed) - foldable + min(foldable, NARROWEST) + GAP * len(needed) <= self.screen.width:
            table = Table(box=SIMPLE_HEAD, pad_edge=False)
            for number in shown:
                table.add_column(columns[number], overflow="fold", no_wrap=widths[number] != foldable)
            for row in cells:
                table.add_row(*(row[number] for number in shown))
            self.screen.print(table)
            return
        while head > 1 and sum(widths[:head]) + GAP * head > self.screen.width:
            head -= 1
        for row in cells:
            for cell, width in zip(row[: head - 1], widths, strict=False):
                cell.pad_right(width - cell.cell_len + GAP)
            self.screen.print(" ", *row[:head], sep="", overflow="fold")
            rest = _names_and_values()
            for number in shown:
                if number >= head and row[number]:
                    rest.add_row(Text(f"   {columns[number]}", style="dim"), row[number])
            if rest.rows:
                self.screen.print(rest)

    def pairs(self, pairs: Mapping[str, object]) -> None:
        """Names and values, one below the other; what has none is left out."""
        grid = _names_and_values()
        for name, value in pairs.items():
            if value:
                grid.add_row(Text(name, style="dim"), _cell(value))
        if not self.as_json:
            self.screen.print(grid)

    def command(self, arguments: str) -> str:
        """Return a command that works on the same bridge when it is copied."""
        return f"crm-bridge {arguments}{self._options}"

    def notice(self, text: str, style: str = "") -> None:
        """Print what is not the result: progress, questions, errors."""
        self.notices.print(Text(visible(text), style=style))


def _names_and_values() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(overflow="fold")  # an id must not be cut
    return grid


def moment(seconds: int | None) -> str:
    """Epoch seconds as a person reads them."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def print_traceback(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
    """Show an error that nobody expected, as `sys.excepthook`: its text may be anybody's, too."""
    Output(as_json=False).notice("".join(traceback.format_exception(error)).rstrip())


def _cell(value: object) -> Text:
    text = "" if value is None else visible(str(value)).replace("\n", r"\n")  # else it could look like another row
    return Text(text, style=STYLES.get(text, ""))

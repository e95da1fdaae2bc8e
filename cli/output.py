"""What a command says: laid out for people on standard output, or as one JSON document; notices on standard error."""

import json
import sys
import traceback
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType

from rich.box import SIMPLE_HEAD
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

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.screen = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        self.notices = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())

    def document(self, document: object) -> None:
        """The result for machines; nothing if the command speaks to a person."""
        if self.as_json:
            sys.stdout.write(json.dumps(document, indent=2) + "\n")  # ASCII: all else is escaped

    def line(self, text: str = "", style: str = "") -> None:
        if not self.as_json:
            self.screen.print(Text(visible(text), style=style))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Nothing if there are no rows."""
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(_cell(value) for value in row))
        if table.rows and not self.as_json:
            self.screen.print(table)

    def pairs(self, pairs: Mapping[str, object]) -> None:
        """Names and values, one below the other; what has none is left out."""
        grid = Table.grid(padding=(0, 2))
        for name, value in pairs.items():
            if value:
                grid.add_row(Text(name, style="dim"), _cell(value))
        if not self.as_json:
            self.screen.print(grid)

    def notice(self, text: str, style: str = "") -> None:
        """What is not the result: progress, questions, errors."""
        self.notices.print(Text(visible(text), style=style))


def moment(seconds: int | None) -> str:
    """Epoch seconds as a person reads them."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def print_traceback(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
    """Show an error that nobody expected, as `sys.excepthook`: its text may be anybody's, too."""
    Output(as_json=False).notice("".join(traceback.format_exception(error)).rstrip())


def _cell(value: object) -> Text:
    text = "" if value is None else visible(str(value)).replace("\n", r"\n")  # else it could look like another row
    return Text(text, style=STYLES.get(text, ""))

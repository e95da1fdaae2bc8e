"""The progress of long work: a bar in a terminal, a line now and then elsewhere, nothing with --json."""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import RenderableType
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from cli.output import Output, visible

INTERVAL = 10.0
"""Seconds between two lines."""


class _Bar(Bar):
    """A bar, and below it a line of its own, so that both fit into 80 columns."""

    below = Text()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield self.below


class Progress:
    """Threads may share it."""

    def __init__(self, output: Output, what: str, total: int) -> None:
        """`total` may be an estimate, such as the number of items in a table."""
        self._output = output
        self._what = what
        self._total = total
        self._states: Counter[str] = Counter()
        self._next_line = time.monotonic() + INTERVAL
        self._message = ""
        self._lock = threading.Lock()
        self.bar = _Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(20),
            TextColumn("{task.completed:,} of {task.total:,}"),
            TimeRemainingColumn(),
            console=output.notices,
            transient=True,  # the result says what was done
            disable=output.as_json or not output.notices.is_terminal,
        )
        self._task = self.bar.add_task(visible(what), total=total)

    def advance(self, state: str, count: int = 1) -> None:
        """Count one more as done, or several, in this state."""
        with self._lock:
            self._states[state] += count
            done = self._states.total()
            self._total = max(self._total, done)
            self.bar.update(self._task, completed=done, total=self._total)
            self._show()
            if time.monotonic() >= self._next_line:
                self._next_line = time.monotonic() + INTERVAL
                self._line(f"{self._what}: {done:,} of {self._total:,} ({self._summary()})")

    def say(self, text: str) -> None:
        """Show why it does not go on, until there is no `text`."""
        with self._lock:
            if text and not self._message:
                self._line(text)
            self._message = text
            self._show()

    def _summary(self) -> str:
        return ", ".join(f"{number:,} {state}" for state, number in self._states.items())

    def _show(self) -> None:
        style = "yellow" if self._message else "dim"
        self.bar.below = Text(visible(self._message or self._summary()), style, no_wrap=True, overflow="ellipsis")

    def _line(self, text: str) -> None:
        if self.bar.disable and not self._output.as_json:
            self._output.notice(text)


@contextmanager
def progress_of(output: Output, what: str, total: int) -> Iterator[Progress]:
    progress = Progress(output, what, total)
    with progress.bar:
        yield progress

"""How far long work is: a bar where there is a terminal, a line now and then where there is none."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from cli.output import Output, visible

SAY_AGAIN = 10.0
"""Seconds between two lines."""


class Progress:
    """Threads may share it."""

    def __init__(self, output: Output, what: str, total: int) -> None:
        self._output = output
        self._what = what
        self._total = total
        self._states: Counter[str] = Counter()
        self._said_at = time.monotonic()
        self._said = ""
        self._lock = threading.Lock()
        self.bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[states]}", markup=False),
            TimeRemainingColumn(),
            TextColumn("{task.fields[said]}", style="yellow", markup=False),
            console=output.notices,
            disable=not output.notices.is_terminal,
        )
        self._task = self.bar.add_task(visible(what), total=total, states="", said="")

    def advance(self, state: str) -> None:
        with self._lock:
            self._states[state] += 1
            states = ", ".join(f"{number:,} {state}" for state, number in self._states.items())
            self.bar.update(self._task, advance=1, states=visible(states))
            self._line(states)

    def say(self, text: str) -> None:
        with self._lock:
            self.bar.update(self._task, said=visible(text))
            if text and not self._said and not self._output.notices.is_terminal:
                self._output.notice(text)
            self._said = text

    def _line(self, states: str) -> None:
        done = self._states.total()
        if self._output.notices.is_terminal or time.monotonic() < self._said_at + SAY_AGAIN:
            return
        self._said_at = time.monotonic()
        self._output.notice(f"{self._what}: {done:,} of {self._total:,} ({states})")


@contextmanager
def progress_of(output: Output, what: str, total: int) -> Iterator[Progress]:
    progress = Progress(output, what, total)
    with progress.bar:
        yield progress

"""The progress of long work: a bar in a terminal, a line now and then elsewhere."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from cli.output import Output, visible

INTERVAL = 10.0
"""Seconds between two lines."""


class Progress:
    """Threads may share it."""

    def __init__(self, output: Output, what: str, total: int) -> None:
        self._output = output
        self._what = what
        self._total = total
        self._states: Counter[str] = Counter()
        self._next_line = time.monotonic() + INTERVAL
        self._message = ""
        self._lock = threading.Lock()
        self.bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[states]}", markup=False),
            TimeRemainingColumn(),
            TextColumn("{task.fields[message]}", style="yellow", markup=False),
            console=output.notices,
            disable=not output.notices.is_terminal,
        )
        self._task = self.bar.add_task(visible(what), total=total, states="", message="")

    def advance(self, state: str) -> None:
        """Count one more as done, in this state."""
        with self._lock:
            self._states[state] += 1
            states = ", ".join(f"{number:,} {state}" for state, number in self._states.items())
            self.bar.update(self._task, advance=1, states=visible(states))
            if self.bar.disable and time.monotonic() >= self._next_line:
                self._next_line = time.monotonic() + INTERVAL
                self._output.notice(f"{self._what}: {self._states.total():,} of {self._total:,} ({states})")

    def say(self, text: str) -> None:
        with self._lock:
            self.bar.update(self._task, message=visible(text))
            if text and not self._message and self.bar.disable:
                self._output.notice(text)
            self._message = text


@contextmanager
def progress_of(output: Output, what: str, total: int) -> Iterator[Progress]:
    progress = Progress(output, what, total)
    with progress.bar:
        yield progress

"""Measures the bridge beside what people would use instead, and writes docs/performance.md: `make bench`.

All of it takes a quarter of an hour. With --only, --size or --against nothing is written. A missed target is no error.
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import cold, process
from bench.report import tables, written
from bench.subjects import COMPARED, FLOOR, OURS, PLAIN, Subject, ours_in
from local.artifacts import artifacts
from local.sam import BUNDLE
from local.template import bundle_template

DISPATCHER = Subject("dispatcher", "DispatcherFunction", BUNDLE, "dispatcher.handler.lambda_handler")
AWS_TAKES, VENDOR_TAKES = 0.005, 0.05
"""Seconds that a call lasts where several events are on their way at once."""
THREADS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Run:
    """`size` is a factor for the number of runs and events. `against` are builds that are measured beside ours."""

    size: float
    against: Sequence[Subject]
    say: Callable[[str], None]


def measure_cold(run: Run) -> object:
    found = cold.measure(max(2, round(20 * run.size)), run.against, run.say)
    return [
        {"name": name, "by_default": by_default, "milliseconds": milliseconds}
        for (name, by_default), milliseconds in found.items()
    ]


def measure_warm(run: Run) -> object:
    rounds = max(2, round(10 * run.size))
    subjects = (*COMPARED, *run.against)
    found: dict[str, list[Any]] = {subject.name: [] for subject in subjects}
    for number in range(rounds):
        for subject in random.sample(subjects, len(subjects)):
            found[subject.name].append(process.run(subject, "warm", events=300, unmeasured=100))
        run.say(f"warm: round {number + 1} of {rounds}")
    return found


def measure_size(run: Run) -> object:
    run.say("size")
    return [asdict(one) for one in artifacts(BUNDLE)]


def measure_memory(run: Run) -> object:
    found = {}
    for subject in COMPARED:
        repeated = round(100_000 * run.size) if subject == OURS else 0
        run.say(f"memory: {subject.name}")
        found[subject.name] = process.run(subject, "memory", events=1000, repeated=repeated) | {"repeated": repeated}
    return found


def measure_scale(run: Run) -> object:
    together: dict[str, dict[int, Any]] = {OURS.name: {}, PLAIN.name: {}}
    for threads in THREADS:
        for subject in (OURS, PLAIN):
            run.say(f"scale: {threads} at once")
            together[subject.name][threads] = process.run(
                subject,
                "together",
                threads=threads,
                events=round(64 * threads**0.75),
                aws_takes=AWS_TAKES,
                vendor_takes=VENDOR_TAKES,
            )
    dispatched = [_dispatched(due, run) for due in (100, 10_000, round(100_000 * run.size))]
    return {"together": together, "dispatched": dispatched}


def _dispatched(due: int, run: Run) -> object:
    run.say(f"scale: {due:,} due")
    timeout = bundle_template().functions[DISPATCHER.function].timeout
    return process.run(DISPATCHER, "dispatch", due=due, seconds=timeout, aws_takes=AWS_TAKES) | {"due": due}


MEASURES: dict[str, Callable[[Run], object]] = {
    "cold": measure_cold,
    "warm": measure_warm,
    "size": measure_size,
    "memory": measure_memory,
    "scale": measure_scale,
}


def main() -> None:
    options = parse(sys.argv[1:])
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what those functions log
    found = _measured(options)
    with os.fdopen(out, "w") as stdout:
        if options.json:
            json.dump(found, stdout)
            return
        console = Console(file=stdout, width=130, highlight=False)
        for table in tables(found):
            console.print(table.rich(), end="\n\n")
        if not options.only and not options.against and options.size == 1:
            Path("docs/performance.md").write_text(written(found))
            console.print("docs/performance.md was written.")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options. Raise SystemExit if they are invalid."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=MEASURES, nargs="+", help="these measures")
    parser.add_argument("--size", type=float, default=1, help="a part of the runs and events, for a look (default 1)")
    parser.add_argument("--json", action="store_true", help="what was measured, for machines")
    parser.add_argument(
        "--against",
        type=_build,
        action="append",
        default=[],
        metavar="BUILD",
        help="also measure another build of this project, cold and warm: a folder that `sam build` made (repeatable)",
    )
    options = parser.parse_args(arguments)
    names = [subject.name for subject in (FLOOR, *COMPARED, *options.against)]
    for name in names:
        if names.count(name) > 1:
            parser.error(f"argument --against: the name {name} is used twice; give another path to that folder")
    return options


def _build(folder: str) -> Subject:
    subject = ours_in(Path(folder))
    if not (subject.build / subject.function).is_dir():
        message = f"{folder} has no folder {subject.function}. Give one that `sam build` made, such as .aws-sam/bundle."
        raise argparse.ArgumentTypeError(message)
    return subject


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    begun = time.monotonic()
    console = Console(stderr=True)
    with console.status("") as status:

        def say(text: str) -> None:
            status.update(f"{time.monotonic() - begun:4.0f} s  {text}")
            if not console.is_terminal:
                sys.stderr.write(f"{time.monotonic() - begun:4.0f} s  {text}\n")

        run = Run(options.size, options.against, say)
        # As others read it: with texts for keys.
        return {name: json.loads(json.dumps(MEASURES[name](run))) for name in options.only or MEASURES}


if __name__ == "__main__":
    main()

"""A tenant is turned up from an empty stack, as its engineer would do it, the commands in processes of their own.

`make onboarding` does it with ten thousand customers; the tests do with fewer.
"""

import argparse
import csv
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from local.stack import LOCAL_STACK
from local.vendors.simulator import Kind
from tests.stack import Stack

TENANT = "acme"
BAD = ("north", "91.5", "")
"""The latitude of a bad row."""
OUTAGE = 45.0
"""Seconds; long enough for the import to find that illu is down, and to wait."""


@dataclass
class Onboarded:
    """The results."""

    sites: int
    different: int
    """Of these, by their names."""
    results: list[dict[str, str]]
    """The last result file's lines."""
    stopped: int
    """The first run's exit code."""
    had: int
    """Sites that there were when it had stopped."""
    ended: int
    """The last run's exit code."""
    first: str
    """The output of the first run."""
    requests: int
    """That created something, as illu counts them, answered or not."""


def customers(file: Path, rows: int, bad: int, seed: int = 1) -> list[int]:
    """Write a file of made-up customers; the lines of those that are bad."""
    chance = random.Random(seed)
    wrong = sorted(chance.sample(range(rows), bad))
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(("customer_id", "name", "latitude", "longitude", "address"))
        for number in range(rows):
            latitude = chance.choice(BAD) if number in wrong else f"{chance.uniform(-89, 89):.4f}"
            longitude = f"{chance.uniform(-179, 179):.4f}"
            writer.writerow((f"C-{number}", f"Shop {number}, Kitale", latitude, longitude, f"Moi Ave {number}"))
    return [number + 2 for number in wrong]


def onboard(folder: Path, rows: int, bad: int, *, live: bool, say: Callable[[str], None] = lambda _: None) -> Onboarded:
    """From an empty stack to a tenant with all its customers, through an outage and a stop.

    `live` lets the bridge heal in its own time, with a second outage that is waited out; else time is moved on.
    """
    file = folder / "customers.csv"
    customers(file, rows, bad)
    with Stack(background=live) as stack:
        lists = {"site_list_path": "/orgs/{org_id}/sites", "search_lag": 30}
        illu = {"base_url": stack.illu.url, "org_id": stack.illu.org_id, "api_key": stack.illu.api_key}
        (folder / "acme.json").write_text(json.dumps({"illu": {**illu, **lists}}))

        say("$ crm-bridge tenant add acme --file acme.json")
        say(_run(folder, "tenant", "add", TENANT, "--file", "acme.json"))
        say("$ crm-bridge doctor acme")
        say(_run(folder, "doctor", TENANT))
        say("$ crm-bridge import sites acme customers.csv --dry-run")
        say(_run(folder, "import", "sites", TENANT, file.name, "--dry-run", code=1))

        say("$ crm-bridge import sites acme customers.csv --yes    (an outage comes, then Ctrl-C)")
        with _importing(folder, file) as running:
            _until(running, lambda: len(stack.illu.sites) >= rows // 4)
            stack.illu.fail(Kind.CLOSE_AFTER, times=2)
            _until(running, lambda: sum(seen.fault is Kind.CLOSE_AFTER for seen in stack.illu.seen) == 2)
            stack.illu.fail(Kind.REFUSE, seconds=OUTAGE if live else 6)
            time.sleep(3)  # it finds out, and waits
            running.send_signal(signal.SIGINT)
            shown, notices = running.communicate(timeout=60)
        first = notices + shown
        say(first)
        had = len(stack.illu.sites)
        while stack.illu.is_refusing:
            time.sleep(0.2)
        if not live:
            for _ in range(4):
                stack.deliver_due(after=600)

        say("$ crm-bridge import sites acme customers.csv --yes    (once more, with another outage)")
        with _importing(folder, file) as again:
            if live:
                _until(again, lambda: len(stack.illu.sites) >= rows * 3 // 4)
                stack.illu.fail(Kind.REFUSE, seconds=OUTAGE)
            imported, notices = again.communicate(timeout=7200)
        say(notices + imported)
        with (folder / "customers.csv.result.csv").open(newline="") as opened:
            results = list(csv.DictReader(opened))
        names = Counter(site["name"] for site in stack.illu.sites)
        created = sum(seen.method == "POST" for seen in stack.illu.seen)
        return Onboarded(
            sites=len(stack.illu.sites),
            different=len(names),
            results=results,
            stopped=running.returncode,
            had=had,
            ended=again.returncode,
            first=first,
            requests=created,
        )


AS_IN_A_TERMINAL = """
import signal
from cli.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
"""Whatever runs in the background of a shell, and all that it starts, ignores Ctrl-C; a terminal's processes do not."""


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", AS_IN_A_TERMINAL, *arguments, "--stack", LOCAL_STACK]


def _run(folder: Path, *arguments: str, code: int = 0) -> str:
    finished = subprocess.run(
        _command(*arguments), cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    if finished.returncode != code:
        raise AssertionError(f"{arguments} ended with {finished.returncode}:\n{finished.stdout}{finished.stderr}")
    return finished.stdout


@contextmanager
def _importing(folder: Path, file: Path) -> Iterator[subprocess.Popen[str]]:
    command = _command("import", "sites", TENANT, file.name, "--yes", "--rate", "100000")
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            if running.poll() is None:
                running.kill()


def _until(running: "subprocess.Popen[str]", condition: Callable[[], bool]) -> None:
    while not condition():
        if running.poll() is not None:
            shown, notices = running.communicate()
            raise AssertionError(f"the import ended too early, with {running.returncode}:\n{notices}{shown}")
        time.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.onboarding", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--bad", type=int, default=25)
    options = parser.parse_args()
    begun = time.monotonic()
    screen = Console(file=sys.stdout, highlight=False, soft_wrap=True, markup=False)
    log = Path(".local/onboarding.log")
    log.parent.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder, log.open("w") as opened, redirect_stdout(opened):
        came = onboard(Path(folder), options.rows, options.bad, live=True, say=screen.print)
    wanted = options.rows - options.bad
    states = Counter(line["state"] for line in came.results)
    ids = len({line["id"] for line in came.results if line["id"]})
    screen.print(
        f"{came.sites:,} sites at illu, {came.different:,} different ones; {wanted:,} were to be.\n"
        f"The result file has {len(came.results):,} lines ({dict(states)}) and {ids:,} ids.\n"
        f"The first run was stopped at {came.had:,}. {time.monotonic() - begun:.0f} s in all; functions' log: {log}."
    )
    return 0 if came.sites == came.different == ids == wanted else 1


if __name__ == "__main__":
    sys.exit(main())

"""`make demo`: starts the bundle, plays every flow, prints what happened, and fails if anything is not as it should."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from local.play import Play, Step
from local.stack import Stack

LOG = Path(".local/demo.log")
WIDTH = 156


def main() -> int:
    console = Console(file=sys.stdout, width=WIDTH, highlight=False)  # standard output as it is before the redirection
    LOG.parent.mkdir(exist_ok=True)
    steps: list[Step] = []
    with LOG.open("w") as log, redirect_stdout(log), Stack(background=False, aws_over_http=False) as stack:
        console.print("\n[bold]CRM Bridge[/bold] is running on this machine, beside it simulated vendors.")
        for chapter in Play(stack).chapters():
            played = list(chapter.steps())
            _print(console, chapter.title, played)
            steps += [step for step in played if step]
        _print_records(console, stack)
    wrong = [step.what for step in steps if not step.right]
    if wrong:
        console.print(f"\n[bold red]{len(wrong)} of {len(steps)} steps went wrong:[/bold red] {'; '.join(wrong)}.")
    else:
        console.print(f"\n[bold green]All {len(steps)} steps went right.[/bold green]", end=" ")
    console.print(f"The functions' log is in {LOG}.")
    return 1 if wrong else 0


def _print(console: Console, title: str, steps: Sequence[Step | None]) -> None:
    table = Table(box=SIMPLE_HEAD)
    for name, width in (("", 1), ("What happens", 41), ("Request", 30), ("Status", 6), ("Answer", 36)):
        table.add_column(name, min_width=width, max_width=width, overflow="fold")
    table.add_column("The vendor holds")
    for step in steps:
        if step is None:
            table.add_section()
            continue
        mark = Text("✓", "green") if step.right else Text("✗", "bold red")
        table.add_row(mark, step.what, step.sent, str(step.status), step.answer, step.held)
    console.print(f"\n[bold]{title}[/bold]", table)


def _print_records(console: Console, stack: Stack) -> None:
    for title, names, records in (
        ("The sites that illu holds in the end", ("site_id", "name", "latitude", "longitude"), stack.illu.sites),
        ("The jobs", ("job_id", "site_id", "name", "notes"), stack.illu.jobs),
        (
            "The key links that Rev.io holds",
            ("integration_key_link_id", "integration_system_id", "internal_id", "external_id"),
            stack.revio.key_links,
        ),
        (
            "The people that Egito holds",
            (
                "id",
                "firstName",
                "lastName",
                "type",
                "status",
                "email",
                "mobile",
                "trialStart",
                "ownerId",
                "source",
                "club",
            ),
            stack.egito.records["Contact"],
        ),
    ):
        table = Table(*names, box=SIMPLE_HEAD)
        for record in records:
            table.add_row(*(" ".join(str(record.get(name, "")).split()) for name in names))
        console.print(f"\n{title}:", table)


if __name__ == "__main__":
    sys.exit(main())

"""The measurements, as tables: for a terminal, and as docs/performance.md."""

import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from rich import box
from rich.table import Table as RichTable

from bench.subjects import COMPARED, FASTAPI, FLOOR, OURS, PLAIN, POWERTOOLS
from docs import costs

LARGEST_ZIP = 7_900_000
"""Bytes. It was 7.2 MB before phonenumbers, whose metadata takes 0.84 MB."""
PROCESSOR_MB = 1769
"""Memory at which Lambda gives one whole processor.
Source: https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html"""
KINDS = ("new", "repeated")
PAGE = Path(__file__).parent / "performance.md"

type Found = Mapping[str, Any]
"""The results of each measure, by its name, as in JSON."""


@dataclass(frozen=True)
class Table:
    name: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def rich(self) -> RichTable:
        table = RichTable(title=self.name, title_justify="left", box=box.SIMPLE_HEAD)
        for number, name in enumerate(self.head):
            table.add_column(name, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        lines = [self.head, ["---", *["--:"] * (len(self.head) - 1)], *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tables(found: Found) -> list[Table]:
    made: dict[str, Sequence[Table]] = {name: TABLES[name](of) for name, of in found.items() if name in TABLES}
    if "warm" in found:
        made["cost"] = [_cost(found["warm"])]
    whole = [_targets(found)] if found.keys() >= TABLES.keys() else []
    return [*whole, *(table for name in (*TABLES, "cost") for table in made.get(name, ()))]


# ---------------------------------------------------------------------- each measure


def _cold(found: Any) -> list[Table]:
    by = {(one["name"], one["by_default"]): one["milliseconds"] for one in found}
    floor = median(by[FLOOR.name, False])

    def cells(of: Sequence[float] | None) -> Sequence[str]:
        if of is None:  # another build is measured as it is
            return ["", "", ""]
        return [f"{median(of):.0f}", f"{min(of):.0f} to {max(of):.0f}", f"{median(of) / floor:.2f}"]

    return [
        Table(
            "Cold start, ms",
            (
                "",
                "with bytecode",
                "min to max",
                "of the floor's",
                "as `sam build` does",
                "min to max",
                "of the floor's",
            ),
            [
                [
                    name,
                    *(cell for by_default in (False, True) for cell in cells(by.get((name, by_default)))),
                ]
                for name, is_default in by
                if not is_default
            ],
        )
    ]


def _medians(rounds: Sequence[Any], kind: str, which: int) -> list[float]:
    """Of each round."""
    return [median(one[which] for one in each[kind]["milliseconds"]) for each in rounds]


def _all(rounds: Sequence[Any], kind: str, which: int) -> list[float]:
    return [one[which] for each in rounds for one in each[kind]["milliseconds"]]


def _warm(found: Any) -> list[Table]:
    def cells(name: str, kind: str) -> list[str]:
        processor = _all(found[name], kind, 0)
        of_rounds = _medians(found[name], kind, 0)
        return [
            f"{median(processor):.2f}",
            f"{min(of_rounds):.2f} to {max(of_rounds):.2f}",
            f"{quantiles(processor, n=100)[98]:.2f}",
            f"{median(_all(found[name], kind, 1)):.2f}",
            f"{median(processor) / median(_all(found[PLAIN.name], kind, 0)):.2f}",
        ]

    head = ("", "processor, p50", "in the rounds", "p99", "clock, p50", "of the plain handler's")
    return [
        Table(
            f"Warm, {kind} events, ms in the function's own code", head, [[name, *cells(name, kind)] for name in found]
        )
        for kind in KINDS
    ] + [
        Table(
            "Round trips of each event",
            ("", *KINDS),
            [[name, *(f"{rounds[0][kind]['calls']:g}" for kind in KINDS)] for name, rounds in found.items()],
        )
    ]


def _size(found: Any) -> list[Table]:
    rows = [
        [one["name"], f"{one['zip_size'] / 1e6:.2f}", f"{one['unzipped_size'] / 1e6:.2f}"]
        for one in found
        if one["name"] in ("SharedLayer", OURS.function)
    ]
    return [Table("Size, MB (all functions are the same size)", ("", "zip", "unzipped"), rows)]


def _memory(found: Any) -> list[Table]:
    rows = [
        [
            name,
            f"{one['peak']:.0f}",
            f"{one['repeated']:,}" if one["repeated"] else "",
            f"{one['after'] - one['before']:+.2f}" if one["repeated"] else "",
        ]
        for name, one in found.items()
    ]
    return [Table("Memory, MB", ("", "peak after 1,000 new events", "repeated events", "growth meanwhile"), rows)]


def _scale(found: Any) -> list[Table]:
    together = found["together"]
    head = ("at once", *(f"{name}: {what}" for name in together for what in ("events/s", "ms of processor")))
    rows = [
        [
            threads,
            *(
                cell
                for of in together.values()
                for cell in (f"{of[threads]['per_second']:.0f}", f"{of[threads]['processor_ms']:.2f}")
            ),
        ]
        for threads in together[OURS.name]
    ]
    dispatched = [
        [f"{one['due']:,}", f"{one['sent']:,}", f"{one['seconds']:.1f}", f"{one['calls']:,}"]
        for one in found["dispatched"]
    ]
    return [
        Table("Several events at once, in one process", head, rows),
        Table("One run of the dispatcher", ("due", "put on the queue", "s", "calls"), dispatched),
    ]


def _cost(found: Any) -> Table:
    """By docs/costs.toml: what it has for our events, and for the others what was counted and measured."""
    rows = []
    for name, rounds in found.items():
        cells = [name]
        for kind, event_of_ours in zip(KINDS, ("new site", "repeated event"), strict=True):
            of = rounds[0][kind]
            own = median(_all(rounds, kind, 0)) * PROCESSOR_MB / (1024 * costs.GIGABYTES)
            event = {"round_trips": of["calls"], "own_ms": own}
            ours = costs.FACTS["event"][event_of_ours]
            by_service = costs.of_events(ours if name == OURS.name else {**of, **event})
            cells += [f"{sum(by_service.values()):.2f}", f"{by_service['Lambda']:.2f}", f"{by_service['DynamoDB']:.2f}"]
        rows.append(cells)
    head = ["", *(f"{kind}{of}" for kind in KINDS for of in (", all", ": Lambda", ": DynamoDB"))]
    return Table("US$ for a million events", head, rows)


TABLES = {
    "cold": _cold,
    "warm": _warm,
    "size": _size,
    "memory": _memory,
    "scale": _scale,
}


# ---------------------------------------------------------------------- what was to be reached


def _targets(found: Found) -> Table:
    cold = {(one["name"], one["by_default"]): median(one["milliseconds"]) for one in found["cold"]}
    ours = cold[OURS.name, False]
    warm = {kind: {name: median(_all(rounds, kind, 0)) for name, rounds in found["warm"].items()} for kind in KINDS}
    others = {kind: min(warm[kind][peer.name] for peer in (POWERTOOLS, FASTAPI)) for kind in KINDS}
    calls = [found["warm"][OURS.name][0][kind]["calls"] for kind in KINDS]
    fewest = [min(found["warm"][one.name][0][kind]["calls"] for one in COMPARED) for kind in KINDS]
    layer = next(one["zip_size"] for one in found["size"] if one["name"] == "SharedLayer")
    memory = found["memory"][OURS.name]
    growth = memory["after"] - memory["before"]
    checks: list[tuple[str, str, str, bool]] = [
        _at_most("cold start ÷ the floor's", ours / cold[FLOOR.name, False], 1.2),
        _at_most("cold start ÷ that of FastAPI + Mangum by default", ours / cold[FASTAPI.name, True], 0.35),
        *(
            _at_most(
                f"processor time, {kind} event ÷ the plain handler's",
                warm[kind][OURS.name] / warm[kind][PLAIN.name],
                most,
            )
            for kind, most in zip(KINDS, (1.35, 1.45), strict=True)
        ),
        *(
            _at_most(
                f"processor time, {kind} event ÷ the better of both other peers'",
                warm[kind][OURS.name] / others[kind],
                most,
            )
            for kind, most in zip(KINDS, (0.9, 1), strict=True)
        ),
        (
            "round trips, new and repeated site; no peer with fewer",
            "3 and 1",
            f"{calls[0]:g} and {calls[1]:g}; {fewest[0]:g} and {fewest[1]:g}",
            calls == [3, 1] and fewest[0] >= 3 and fewest[1] >= 1,
        ),
        ("the layer's zip", f"at most {LARGEST_ZIP / 1e6:g} MB", f"{layer / 1e6:.2f} MB", layer <= LARGEST_ZIP),
        (
            f"growth over {memory['repeated']:,} repeated events",
            "at most +0.00 MB",
            f"{growth:+.2f} MB",
            round(growth, 2) <= 0,
        ),
    ]
    rows = [[name, target, value, "yes" if met else "**no**"] for name, target, value, met in checks]
    return Table("Targets", ("", "target", "found", "reached"), rows)


def _at_most(name: str, value: float, most: float) -> tuple[str, str, str, bool]:
    return name, f"at most {most:g}", f"{value:.2f}", value <= most


# ---------------------------------------------------------------------- the page


def written(found: Found) -> str:
    """The page: bench/performance.md with the tables in the places that name how they begin."""
    made = tables(found)
    machine = f"{os.cpu_count()} processors, {platform.machine()}, Python {platform.python_version()}"
    facts = {"date": f"{datetime.now(UTC):%d %B %Y}".lstrip("0"), "machine": machine}

    def filled(place: re.Match[str]) -> str:
        name = place[1]
        shown = [f"**{table.name}**\n\n{table.markdown()}" for table in made if table.name.startswith(name)]
        return facts.get(name) or "\n\n".join(shown)

    return re.sub(r"\{\{(.+?)\}\}", filled, PAGE.read_text())

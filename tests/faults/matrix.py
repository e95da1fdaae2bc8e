"""The fault matrix: every kind of event, every network call that it makes, every fault that can happen to that call.

    make faults
    .venv/bin/python -m tests.faults --flow create_site --fault killed

The calls are not listed anywhere: each kind of event is sent once in peace, and what arrives at AWS and at the vendors
is what will fail, one call and one fault at a time, with a tenant of its own.
"""

import argparse
import atexit
import json
import os
import sys
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from crm_bridge.storage.operation import State
from local.vendors.alterations import ALTERATIONS
from tests.faults import durable, peer
from tests.faults.checks import broken_rules, is_finished, say
from tests.faults.events import KINDS, Event
from tests.faults.faults import FAULTS, TAKEN_AT_ITS_WORD, Act, Call, Fault
from tests.faults.harness import World
from tests.stack import Stack

PEERS: dict[str, type[World]] = {
    peer.create_site(1).kind: peer.PeerWorld,
    **{make(1).kind: durable.DurableWorld for make in durable.KINDS},
}
"""Each kind of event that has another construction in the place of the bridge, and the world for it."""
BY_KIND: dict[str, Callable[[int], Event]] = {make(1).kind: make for make in (*KINDS, peer.create_site, *durable.KINDS)}
BY_FAULT = {fault.name: fault for fault in FAULTS}
MARKERS = "<!-- fault matrix -->", "<!-- end of the fault matrix -->"
WRONG = "WRONG"
NOT_MADE = ("the call was not made",)
MOST_TRIES = 50
DISPATCHER = "DispatcherFunction"
CELLS_IN_A_WORLD = 40
"""Then a new one is begun: tables that grow make it slow."""

# ---------------------------------------------------------------------- tenants and vendors of other kinds


def _as_usual(stack: Stack, document: dict[str, Any], lag: int = 30) -> None:
    for simulator in (stack.illu, stack.revio, stack.egito):
        simulator.alterations = ()
    for vendor in ("illu", "revio", "egito"):
        getattr(stack, vendor).search_lag = document[vendor]["search_lag"] = lag


def _lagging(stack: Stack, document: dict[str, Any]) -> None:
    """A new record is not found for longer than the bridge waits before it looks."""
    _as_usual(stack, document, 300)


def _mute(stack: Stack, document: dict[str, Any]) -> None:
    """The vendor cannot be asked what it has. (Rev.io always can, and of a status nobody needs to ask.)"""
    _as_usual(stack, document)
    for kind in ("site", "job"):
        del document["illu"][f"{kind}_list_path"]
    egito = document["egito"]
    egito["lists_everything"] = False
    for people in ("prospects", "members"):
        egito[people] = {name: value for name, value in egito[people].items() if name != "reference"}
    for entity, its_map in egito["records"].items():
        egito["records"][entity] = {name: value for name, value in its_map.items() if name != "reference"}


type Settings = Callable[[Stack, dict[str, Any]], None]


def altering(name: str, settings: Settings = _as_usual) -> Settings:
    """The same settings, with vendors that alter what they store."""

    def changed(stack: Stack, document: dict[str, Any]) -> None:
        settings(stack, document)
        for simulator in (stack.illu, stack.revio, stack.egito):
            simulator.alterations = (ALTERATIONS[name],)

    return changed


USUAL: dict[str, Settings] = {"": _as_usual, "search lags": _lagging, "cannot be asked": _mute}
ALTERED: dict[str, Settings] = {f"stored {name}": altering(name) for name in ALTERATIONS}
SETTINGS = USUAL | ALTERED
"""In all but the first, only the call that writes is made to fail."""
_EGITO = "egito POST /services/restapi/json/"
_CREATES = ("illu", "revio POST", f"{_EGITO}Lead/create", f"{_EGITO}Contact/create", f"{_EGITO}SelectDictionary/create")
MATTERS_TO = {"": ("",), "search lags": ("illu", "revio POST", "egito"), "cannot be asked": ("illu", "egito")}
MATTERS_TO |= dict.fromkeys(ALTERED, _CREATES)
"""How the name of a call that writes begins where these settings make a difference."""
IF_ALTERED = ("closed, not done", "closed, done", "503, done", "killed after")


def may_come(fault: Fault, settings: str) -> bool:
    """Whether the promise holds for this fault with these settings, and whether it is tried."""
    if settings in ALTERED:
        return fault.name in IF_ALTERED
    return settings != "cannot be asked" or fault.name not in TAKEN_AT_ITS_WORD


# ---------------------------------------------------------------------- when the fault comes

FIRST = ""
LOST = "after a lost answer"
UNSENT = "after a lost request"
STAGES = {LOST: BY_FAULT["closed, done"], UNSENT: BY_FAULT["closed, not done"]}
"""In the retry, after this has happened to the call that writes."""


@dataclass(frozen=True)
class Cell:
    """One fault at the `nth` call of this name. `stage` says in which invocation."""

    kind: str
    settings: str
    stage: str
    call: str
    nth: int
    fault: str


@dataclass(frozen=True)
class Result:
    """The outcome of a cell. `minutes`: of simulated time until all was done. `wrong` is empty if all is right."""

    cell: Cell
    effects: int
    state: str
    tries: int
    minutes: int
    operators: int
    wrong: tuple[str, ...]

    @property
    def verdict(self) -> str:
        if self.wrong == NOT_MADE:
            return WRONG  # whatever it is about, it was not tried
        if self.cell.kind in PEERS:
            return "once" if not self.wrong else "DUPLICATE" if self.effects > 1 else "LOST"
        if self.wrong:
            return WRONG
        return "a person decided" if self.operators else "once"


def _ready(world: World, kind: str, settings: str, stage: str) -> Event:
    """The event, and all done up to where the fault is to come."""
    world.begin()
    event = BY_KIND[kind](world.take_in(SETTINGS[settings]))
    world.prepare(event)
    world.start_cold()
    if stage:
        world.inject(STAGES[stage], event.writes)
        world.send(event)
        world.heal()
        world.start_cold()
    return event


def calls(world: World, kind: str, settings: str, stage: str) -> list[tuple[str, int]]:
    """The name of every call that the event makes at this stage, in their order, with its number among its like.

    The dispatcher does the same for every kind of event, and asks the same of eight shards: so once is enough.
    """
    event = _ready(world, kind, settings, stage)
    before = len(world.seen)
    if not stage:
        world.send(event)
    world.settle()
    seen = world.seen[before:]
    assert not broken_rules(world), (kind, settings, stage, broken_rules(world))
    found: list[tuple[str, int]] = []
    counted: Counter[str] = Counter()
    for function, call in seen:
        counted[call.name] += 1
        if function != DISPATCHER or (counted[call.name] == 1 and kind == next(iter(BY_KIND)) and stage == LOST):
            found.append((call.name, counted[call.name]))
    return found


def cells(kind: str) -> Iterator[Cell]:
    writes = BY_KIND[kind](1).writes
    with _world_of(kind)(always_cold=True) as world:
        for settings in SETTINGS:
            if not writes.startswith(MATTERS_TO[settings]) or (settings and kind in PEERS):
                continue
            for stage in (FIRST, *STAGES) if not settings and kind not in PEERS else (FIRST,):
                for name, nth in calls(world, kind, settings, stage):
                    if settings and name != writes:
                        continue
                    service, _, what = name.partition(" ")
                    for fault in FAULTS:
                        fits = fault.fits(Call(service, what, "")) and may_come(fault, settings)
                        if fits and (stage or fault.act is not Act.ASK):
                            yield Cell(kind, settings, stage, name, nth, fault.name)


def _world_of(kind: str) -> type[World]:
    return PEERS.get(kind, World)


class Worlds:
    """Gives worlds in which many cells can happen one after the other; one in which something went wrong is left."""

    def __init__(self, **options: Any) -> None:
        """`options` are the worlds'."""
        self._options = options
        self._exits = ExitStack()
        self._world: World | None = None
        self._left = 0

    def world(self, of: type[World]) -> World:
        if not self._left or self._world is None or type(self._world) is not of:
            self.leave()
            self._world, self._left = self._exits.enter_context(of(**self._options)), CELLS_IN_A_WORLD
        self._left -= 1
        return self._world

    def leave(self) -> None:
        self._exits.close()
        self._left = 0


_worlds = Worlds(always_cold=True)
"""Of this process."""


def run(cell: Cell, worlds: Worlds = _worlds) -> Result:
    """One cell, with a tenant of its own. What breaks the world itself is a result too."""
    try:
        # Which of two operations that are due at once comes first hangs on ids that are random, and so do some calls.
        for _ in range(MOST_TRIES):
            result = _run(cell, worlds.world(_world_of(cell.kind)))
            if result.wrong != NOT_MADE:
                break
    except Exception as error:  # noqa: BLE001 - one cell must not end the others
        *_, place = traceback.extract_tb(error.__traceback__)
        result = Result(cell, 0, "?", 0, 0, 0, (f"{type(error).__name__} {error} in {place.name}",))
    if result.wrong:
        worlds.leave()
    return result


def _run(cell: Cell, world: World) -> Result:
    event = _ready(world, cell.kind, cell.settings, cell.stage)
    plan = world.inject(BY_FAULT[cell.fault], cell.call, cell.nth)
    before = world.moved
    if not cell.stage:
        world.send(event)
    world.settle()
    wrong = broken_rules(world)
    if plan.hit is None:
        wrong += NOT_MADE
    may_be_needed = cell.settings == "cannot be asked" or cell.settings in ALTERED
    if world.operators and (BY_FAULT[cell.fault].sure or not may_be_needed):
        wrong.append("a person was needed")
    operations = world.operations()
    states = sorted({one.state for one in operations if not is_finished(one)}) or [State.SUCCEEDED]
    return Result(
        cell,
        len(event.held(world.stack)),
        "/".join(states) if operations else "",
        max((one.tries for one in operations), default=len(world.sent[0].statuses)),
        round((world.moved - before) / 60),
        world.operators,
        tuple(wrong),
    )


# ---------------------------------------------------------------------- telling it


def table(results: Sequence[Result]) -> str:
    """A block for each kind of event and stage; in it a line for each call and fault."""
    lines = []
    blocks: dict[tuple[str, str, str], list[Result]] = defaultdict(list)
    for result in results:
        blocks[result.cell.kind, result.cell.stage, result.cell.settings].append(result)
    for title, block in blocks.items():
        lines += ["", ", ".join(filter(None, title))]
        call = ""
        for result in block:
            cell = result.cell
            name = f"{cell.call}" + (f" (no. {cell.nth})" if cell.nth > 1 else "")
            lines += [f"  {name}"] if name != call else []
            call = name
            lines.append(
                f"    {cell.fault:<22} effects {result.effects}  {result.state:<10} tries {result.tries:>2}"
                f"  {result.minutes:>4} min  {result.verdict}" + "".join(f"\n      {one}" for one in result.wrong)
            )
    return "\n".join(lines)


def summary(results: Sequence[Result]) -> str:
    verdicts = Counter(result.verdict for result in results)
    return f"{len(results)} cells: " + ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())


def markdown(results: Sequence[Result]) -> str:
    """A table by fault, with a column for the bridge and one for each peer; a table by kind of event; the sums."""
    of_kinds = {kind: [result for result in results if result.cell.kind == kind] for kind in BY_KIND}
    columns = {"CRM Bridge": [result for result in results if result.cell.kind not in PEERS]}
    columns |= {kind.removeprefix("peer: "): of_kinds[kind] for kind in PEERS}
    lines = [_row("fault", *columns), "|---" * (1 + len(columns)) + "|"]
    for fault in FAULTS:
        of_fault = ([one for one in some if one.cell.fault == fault.name] for some in columns.values())
        lines.append(_row(fault.name, *map(_summed_up, of_fault)))
    lines += ["", _row("event", "different calls", "with all faults"), "|---|---|---|"]
    for kind, of_kind in of_kinds.items():
        if of_kind and kind not in PEERS:
            calls = {(result.cell.stage, result.cell.call, result.cell.nth) for result in of_kind}
            lines.append(_row(kind, str(len(calls)), _summed_up(of_kind)))
    sums = [f"{name}: {summary(some)}." for name, some in columns.items()]
    return "\n".join([*lines, "", *sums])


def _row(*fields: str) -> str:
    return f"| {' | '.join(fields)} |"


def _summed_up(results: Sequence[Result]) -> str:
    """How many went as promised out of how many, what became of the others, and the longest that one took."""
    if not results:
        return ""
    verdicts = Counter(result.verdict for result in results)
    right = sum(not result.wrong for result in results)
    others = [f"{count} {name}" for name, count in verdicts.items() if name != "once"]
    return ", ".join([f"{right} of {len(results)}", *others, f"{max(result.minutes for result in results)} min"])


def _write_between_markers(path: Path, text: str) -> None:
    begin, end = MARKERS
    before, found, rest = path.read_text().partition(begin)
    _, also_found, after = rest.partition(end)
    if not found or not also_found:
        raise SystemExit(f"{path} lacks the lines {begin} and {end}")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}")


# ---------------------------------------------------------------------- all of it


def _quiet() -> None:
    """Of a worker: what the functions log is of no use here, and its last world ends with it."""
    atexit.register(_worlds.leave)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def all_results(kinds: Iterable[str], faults: Sequence[str], every: int, jobs: int) -> list[Result]:
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_quiet) as pool:
        found = [cell for some in pool.map(_listed, kinds) for cell in some]
        wanted = [cell for cell in found if not faults or any(part in cell.fault for part in faults)][::every]
        results: dict[Cell, Result] = {}
        try:
            for done in as_completed([pool.submit(run, cell) for cell in wanted]):
                result = done.result()
                results[result.cell] = result
                if result.verdict == WRONG:
                    say(f"WRONG {result.cell}: {'; '.join(result.wrong)}\n")
                if len(results) % 50 == 0:
                    say(f"{len(results)} of {len(wanted)}\n")
        finally:  # whoever interrupts this does not want to wait for the rest
            pool.shutdown(cancel_futures=True)
    return [results[cell] for cell in wanted]


def _listed(kind: str) -> list[Cell]:
    return list(cells(kind))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--flow", action="append", default=[], help="only kinds of event whose name has this in it")
    parser.add_argument("--fault", action="append", default=[], help="only faults whose name has this in it")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th of all these cells")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many worlds at a time")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print every cell as JSON")
    shape.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables between the markers in FILE")
    options = parser.parse_args(arguments)
    kinds = [kind for kind in BY_KIND if not options.flow or any(part in kind for part in options.flow)]
    results = all_results(kinds, options.fault, options.every, options.jobs)
    if options.json:
        sys.stdout.write(json.dumps([asdict(result) | {"verdict": result.verdict} for result in results], indent=1))
    elif options.markdown:
        _write_between_markers(options.markdown, markdown(results))
    else:
        sys.stdout.write(table(results) + "\n")
    say(summary(results) + "\n")
    return int(not results or any(result.verdict == WRONG for result in results))

"""Breaks the engine in each small way that mutmut knows, one at a time, and tells which breaks no test notices:
`make mutants`, or with options:

    .venv/bin/python -m tests.mutants --again      tries only those again that survived, and what was changed since
    .venv/bin/python -m tests.mutants --report     only reports on the last run
    .venv/bin/python -m tests.mutants --write      also renews docs/mutants.md

What is broken and which tests judge it is in pyproject.toml under `tool.mutmut`. A mutant is killed if a test fails, or
runs for many times as long as it takes otherwise. Ends with 1 if fewer than 97 in 100 are killed, or if
docs/mutants.md does not give a reason for each survivor.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mutmut.stats import status_by_exit_code
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
TREE = ROOT / ".mutants"
PAGE = ROOT / "docs" / "mutants.md"
LAID_OUT = ("layers/shared/crm_bridge", "local", "tests", "template.yaml", "pyproject.toml")
"""The folder in which mutmut works, with packages side by side, because it takes a module's name from its path."""
FEW_PLUGINS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_timeout,_hypothesis_pytestplugin"}
"""The others take longer to begin than most of these tests take in all, and each mutant begins again."""
ENOUGH = 0.97
KILLED = ("killed", "timeout")
COLUMNS = ("file", "mutants", "killed", "timeout", "survived", "no tests", "other", "share")
FIGURES = re.compile(r"(?<=<!-- figures -->\n).*(?=<!-- end of the figures -->)", re.DOTALL)
SURVIVORS = "## The survivors\n"
NO_REASON = "Not explained yet"


@dataclass(frozen=True)
class Mutant:
    name: str
    """In mutmut's form: `crm_bridge.engine.engine.xǁEngineǁ_look__mutmut_3`."""
    status: str

    @property
    def file(self) -> str:
        """The path below `crm_bridge`: `engine/engine.py`."""
        return "/".join(self.name.split(".")[1:-1]) + ".py"

    @property
    def function(self) -> str:
        """`Engine._look`."""
        mangled = self.name.split(".")[-1].rpartition("__mutmut_")[0]
        return re.sub(r"^x[_ǁ]", "", mangled).replace("ǁ", ".")

    @property
    def outcome(self) -> str:
        return self.status if self.status in COLUMNS else "other"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description="Tell which broken rules no test notices.")
    parser.add_argument(
        "--again", action="store_true", help="try only those again that survived, and what was changed since"
    )
    parser.add_argument("--report", action="store_true", help="only report on the last run")
    parser.add_argument("--write", action="store_true", help="renew docs/mutants.md")
    options = parser.parse_args()
    if not options.report:
        if options.again:
            _forget_survivors()
        else:
            shutil.rmtree(TREE, ignore_errors=True)
        _lay_out()
        if subprocess.run([_mutmut(), "run"], cwd=TREE, env={**os.environ, **FEW_PLUGINS}).returncode:
            return 1
    mutants = list(_results())
    console = Console(soft_wrap=True, highlight=False)
    table = Table(*COLUMNS, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for row in _figures(mutants):
        table.add_row(*row)
    console.print(table)
    survivors = [_described(mutant) for mutant in mutants if mutant.outcome not in KILLED]
    if options.write:
        PAGE.write_text(_renewed(PAGE.read_text(), mutants, survivors))
    reasons = {survivor: reason for reason, of_reason in _listed(PAGE.read_text()) for survivor in of_reason}
    unexplained = [one for one in survivors if reasons.get(one, NO_REASON) == NO_REASON]
    for one in unexplained:
        console.print(f"survived without a reason in {PAGE.relative_to(ROOT)}: {one}", markup=False)
    return int(_share(mutants) < ENOUGH or bool(unexplained))


def _mutmut() -> str:
    return str(Path(sys.executable).with_name("mutmut"))


def _forget_survivors() -> None:
    """mutmut tries those again that it knows no outcome of."""
    for path in TREE.glob("mutants/crm_bridge/**/*.meta"):
        meta = json.loads(path.read_text())
        codes = meta["exit_code_by_key"]
        codes.update({name: None for name, code in codes.items() if status_by_exit_code[code] not in KILLED})
        path.write_text(json.dumps(meta))


def _lay_out() -> None:
    TREE.mkdir(exist_ok=True)
    for name in LAID_OUT:
        source, target = ROOT / name, TREE / Path(name).name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)


def _results() -> Iterator[Mutant]:
    ran = subprocess.run([_mutmut(), "results", "--all", "true"], cwd=TREE, check=True, capture_output=True, text=True)
    for line in ran.stdout.splitlines():
        name, _, status = line.strip().partition(": ")
        yield Mutant(name, status)


def _share(mutants: list[Mutant]) -> float:
    return sum(mutant.outcome in KILLED for mutant in mutants) / len(mutants)


def _figures(mutants: list[Mutant]) -> Iterator[tuple[str, ...]]:
    """A row for each file, and one for all."""
    files = sorted({mutant.file for mutant in mutants})
    parts = [(file, [mutant for mutant in mutants if mutant.file == file]) for file in files]
    for name, part in [*parts, ("all", mutants)]:
        counts = Counter(mutant.outcome for mutant in part)
        yield name, str(len(part)), *(str(counts[column]) for column in COLUMNS[2:-1]), f"{_share(part):.1%}"


def _described(mutant: Mutant) -> str:
    """Where it is and what it changes, on one line."""
    os.chdir(TREE)  # mutmut reads its configuration, and what it made, from where it is
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    changed = get_diff_for_mutant(mutant.name, path=Path("crm_bridge") / mutant.file).splitlines()[2:]
    before, after = (
        " ".join(line[1:].strip() for line in changed if line.startswith(sign)).replace("``", "` `") for sign in "-+"
    )
    outcome = "" if mutant.outcome == "survived" else f" ({mutant.outcome})"
    return f"`{mutant.file}` `{mutant.function}`{outcome}: `{before}` → `{after}`"


def _listed(page: str) -> Iterator[tuple[str, list[str]]]:
    """The reasons on the page, a heading and what is said below it, each with its survivors."""
    for part in page.partition(SURVIVORS)[2].split("\n### ")[1:]:
        reason, *survivors = part.rstrip().split("\n* ")
        yield reason.strip(), survivors


def _renewed(page: str, mutants: list[Mutant], survivors: list[str]) -> str:
    """The page with these figures, and each survivor below the reason that was given for it before."""
    figures = [COLUMNS, ["---"] * len(COLUMNS), *_figures(mutants)]
    page = FIGURES.sub("".join(f"| {' | '.join(row)} |\n" for row in figures), page)
    listed = list(_listed(page))
    explained = {one for _, of_reason in listed for one in of_reason}
    unexplained = (NO_REASON, [one for one in survivors if one not in explained])
    parts = [
        f"\n### {reason}\n\n" + "".join(f"* {one}\n" for one in survivors if one in of_reason)
        for reason, of_reason in [*listed, unexplained]
        if not set(survivors).isdisjoint(of_reason)
    ]
    return page.partition(SURVIVORS)[0] + SURVIVORS + "".join(parts)


if __name__ == "__main__":
    sys.exit(main())

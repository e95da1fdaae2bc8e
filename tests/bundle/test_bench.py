"""`make bench`, as far as it can be wrong: what it counts, and that its page says what was found."""

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench import cold, process
from bench.__main__ import Run, main, measure_warm, parse
from bench.report import PAGE, tables, written
from bench.subjects import COMPARED, FASTAPI, FLOOR, OURS, PLAIN, Subject, by_default, surroundings
from docs import costs
from local.sam import BUNDLE, ROOT


def test_an_event_takes_the_calls_and_units_that_the_costs_are_reckoned_with() -> None:
    found = process.run(OURS, "warm", events=3, unmeasured=1)
    for kind in ("new", "repeated"):
        assumed = costs.FACTS["event"][f"{'new site' if kind == 'new' else 'repeated event'}"]
        counted = {name: found[kind][name] for name in ("vendor_calls", "reads", "writes")}
        assert counted == {name: assumed[name] for name in counted}
        assert found[kind]["calls"] == assumed["round_trips"]
        assert 0.9 < found[kind]["log_bytes"] / assumed["log_bytes"] < 1.1
        assert all(processor > 0 < clock for processor, clock in found[kind]["milliseconds"])


def test_both_pages_show_the_same_costs_of_our_events() -> None:
    (table,) = [table for table in tables({"warm": _found()["warm"]}) if table.name.startswith("US$")]
    (row,) = [row for row in table.rows if row[0] == OURS.name]
    by_event = [costs.of_events(costs.FACTS["event"][name]) for name in ("new site", "repeated event")]
    both = [f"{sum(of.values()):.2f}" for of in by_event]
    assert [row[1], row[4]] == both
    assert f"| **together** | {' | '.join(both)} |" in (ROOT / "docs/costs.md").read_text()
    assert f"| {' | '.join(row)} |" in (ROOT / "docs/performance.md").read_text()


def test_no_subject_gets_variables_of_powertools_when_the_shell_has_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "of the shell")  # it would be one more dimension of each metric
    with surroundings() as (_, environment):
        given = {name for name in (*process.ENVIRONMENT, *environment) if name.startswith("POWERTOOLS_")}
    assert given == {"POWERTOOLS_METRICS_NAMESPACE"}


def test_several_at_once_are_all_sent_and_what_is_due_is_put_on_the_queue() -> None:
    assert process.run(OURS, "together", events=20, threads=4, aws_takes=0, vendor_takes=0)["per_second"] > 0
    dispatcher = process.run(
        Subject("", "DispatcherFunction", BUNDLE, "dispatcher.handler.lambda_handler"),
        "dispatch",
        due=4321,
        seconds=60,
    )
    assert dispatcher["sent"] == 32 * (250 * 2 // 32)  # the shares of 32 tenants


def test_a_subject_that_fails_is_reported_with_its_output() -> None:
    with pytest.raises(AssertionError, match="No module named 'nobody'"):
        process.run(Subject("a stranger", OURS.function, BUNDLE, "nobody.handler"), "warm")


def _found() -> dict[str, Any]:
    """As if: ours takes 2, the others 1."""
    milliseconds = [[2.0, 2.0]] * 3, [[1.0, 1.0]] * 3
    kinds = [
        {"milliseconds": of, "calls": 3, "vendor_calls": 1, "reads": 0, "writes": 2, "log_bytes": 1}
        for of in milliseconds
    ]
    ours, theirs = ({"new": of, "repeated": {**of, "calls": 1}} for of in kinds)
    return {
        "cold": [
            {"name": one.name, "by_default": default, "milliseconds": [200.0 if one == OURS else 100.0] * 2}
            for one in (FLOOR, *COMPARED)
            for default in (False, True)
        ],
        "warm": {one.name: [ours if one == OURS else theirs] * 2 for one in COMPARED},
        "size": [{"name": "SharedLayer", "zip_size": 8_000_001, "unzipped_size": 1}],
        "memory": {one.name: {"peak": 1, "before": 1, "after": 1.2, "repeated": 1000} for one in COMPARED},
        "scale": {
            "together": {OURS.name: {"1": {"per_second": 1, "processor_ms": 1}}},
            "dispatched": [{"due": 1, "sent": 1, "seconds": 1, "calls": 1}],
        },
    }


def test_a_missed_budget_is_reported() -> None:
    targets, *_ = tables(_found())
    missed = [row[0] for row in targets.rows if row[-1] != "yes"]
    assert missed == [row[0] for row in targets.rows if not row[0].startswith("round trips")]
    assert "at most 0.35 | 2.00 | **no** |" in targets.markdown()
    assert [target for _, target, *_ in targets.rows] == [
        *("at most 1.2", "at most 0.35", "at most 1.35", "at most 1.45", "at most 0.9", "at most 1"),
        *("3 and 1", "at most 7.9 MB", "at most +0.00 MB"),
    ]


@pytest.mark.parametrize(("after", "reached"), [(1.004, "yes"), (0.5, "yes"), (1.006, "**no**")])
def test_memory_has_grown_when_it_shows_in_the_table(after: float, reached: str) -> None:
    found = _found()
    found["memory"][OURS.name]["after"] = after
    targets, *_ = tables(found)
    assert [row[-1] for row in targets.rows if row[0] == "growth over 1,000 repeated events"] == [reached]


def test_the_page_has_every_table_in_its_place() -> None:
    page = written(_found())
    for table in tables(_found()):
        assert page.count(f"**{table.name}**\n\n{table.markdown()}") == 1
    assert "{{" not in page
    headings = re.findall("^#.*", PAGE.read_text(), re.MULTILINE)
    assert headings == re.findall("^#.*", (ROOT / "docs/performance.md").read_text(), re.MULTILINE)
    assert FASTAPI.name in page


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A copy that looks like another build of this project."""
    folder = tmp_path / "before"
    (folder / OURS.function).mkdir(parents=True)
    return folder


def test_other_builds_are_subjects_named_by_their_folders_when_they_are_given(before: Path) -> None:
    assert parse(["--against", str(before), "--against", str(BUNDLE)]).against == [
        Subject(str(before), OURS.function, before, OURS.handler),
        Subject(str(BUNDLE), OURS.function, BUNDLE, OURS.handler),
    ]
    assert parse([]).against == []


def test_a_build_is_found_from_any_folder_when_its_path_is_relative(
    before: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(before.parent)
    [subject] = parse(["--against", "before"]).against
    assert (subject.name, subject.build) == ("before", before)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{0}/nowhere"], "{0}/nowhere has no folder CreateSiteFunction. Give one that `sam build` made"),
        (["{0}/before", "{0}/before"], "the name {0}/before is used twice"),
        (["floor"], "the name floor is used twice"),
    ],
)
def test_is_refused_when_a_build_is_missing_or_its_name_is_taken(
    before: Path,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(before.parent)
    (before.parent / "floor" / OURS.function).mkdir(parents=True)
    against = [f"--against={one.format(before.parent)}" for one in arguments]
    with pytest.raises(SystemExit, match="2"):
        parse(against)
    assert said.format(before.parent) in capsys.readouterr().err


def test_every_round_has_every_subject_once_when_other_builds_are_given(
    before: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Subject] = []

    def run(subject: Subject, *_: object, **__: object) -> float:
        seen.append(subject)
        return 1.0

    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr(cold, "_start", run)
    against = parse(["--against", str(before)]).against
    ours = [*COMPARED, *against]

    found = measure_warm(Run(0.1, against, lambda _: None))
    assert isinstance(found, dict)
    assert [Counter(seen[at : at + len(ours)]) for at in (0, len(ours))] == [Counter(ours)] * 2
    assert list(found) == [subject.name for subject in ours]

    seen.clear()
    both = [FLOOR, *ours, *(by_default(one) for one in (FLOOR, *COMPARED))]
    took = cold.measure(1, against, lambda _: None)
    assert [Counter(seen[at : at + len(both)]) for at in (0, len(both))] == [Counter(both)] * 2
    assert took[str(before), False] == [1.0]
    assert (str(before), True) not in took


def test_tables_show_its_ratios_and_no_target_changes_when_another_build_is_measured() -> None:
    found = _found()
    targets, *_ = tables(found)
    found["cold"].append({"name": "before", "by_default": False, "milliseconds": [150.0] * 2})
    found["warm"]["before"] = [
        {
            kind: {**found["warm"][PLAIN.name][0][kind], "milliseconds": [[0.5, 0.5]] * 3, "calls": 0}
            for kind in ("new", "repeated")
        }
    ] * 2
    same_targets, *others = tables(found)
    assert same_targets == targets
    rows = [[row[0], row[3], row[-1]] for table in others[:3] for row in table.rows]
    assert ["before", "1.50", ""] in rows
    assert [row[-1] for row in rows if row[0] == "before"] == ["", "0.50", "0.50"]


@pytest.mark.parametrize("before_is_given", [True, False])
def test_the_page_is_written_unless_other_builds_are_measured(
    before: Path, before_is_given: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.__main__._measured", lambda _: _found())
    monkeypatch.setattr("os.dup2", lambda *_: None)  # this process's output stays where it is
    monkeypatch.setattr(sys, "argv", ["bench", *(["--against", str(before)] if before_is_given else [])])
    main()
    assert (tmp_path / "docs/performance.md").exists() != before_is_given

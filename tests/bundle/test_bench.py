"""`make bench`, as far as it can be wrong: what it counts, and that its page says what was found."""

import re
from typing import Any

import pytest

from bench import drain, process
from bench.report import LINES_OF_AWS, PAGE, tables, written
from bench.subjects import COMPARED, FASTAPI, FLOOR, OURS, POWERTOOLS, Subject
from docs import costs
from tests.bundle.emulator import BUNDLE, ROOT


def test_an_event_takes_the_calls_and_units_that_the_costs_are_reckoned_with() -> None:
    found = process.run(OURS, "warm", events=3, unmeasured=1)
    for kind in ("new", "repeated"):
        assumed = costs.FACTS["event"][f"{'new site' if kind == 'new' else 'repeated event'}"]
        counted = {name: found[kind][name] for name in ("vendor_calls", "reads", "writes")}
        assert counted == {name: assumed[name] for name in counted}
        assert found[kind]["calls"] == assumed["round_trips"]
        assert found[kind]["log_bytes"] + LINES_OF_AWS < assumed["log_bytes"] * 1.1
        assert all(processor > 0 < clock for processor, clock in found[kind]["milliseconds"])


def test_several_at_once_are_all_carried_and_what_is_due_is_put_on_the_queue() -> None:
    assert process.run(OURS, "together", events=20, threads=4, aws_takes=0, vendor_takes=0)["per_second"] > 0
    dispatcher = process.run(
        Subject("", "DispatcherFunction", BUNDLE, "dispatcher.handler.lambda_handler"),
        "dispatch",
        due=4321,
        seconds=60,
    )
    assert dispatcher["sent"] == 4321


def test_a_subject_that_fails_is_told_with_what_it_said() -> None:
    with pytest.raises(AssertionError, match="No module named 'nobody'"):
        process.run(Subject("a stranger", OURS.function, BUNDLE, "nobody.handler"), "warm")


def test_a_backlog_drains_at_the_vendors_limit() -> None:
    drained = drain.drain(600, lambda _: None)
    assert (drained.arrived, drained.too_many) == (600, 0)
    assert 0.95 < drained.share < 1.2  # the first minute begins with a tenth of it at once


def _found() -> dict[str, Any]:
    """As if: ours takes 2, the others 1."""
    milliseconds = [[2.0, 2.0]] * 3, [[1.0, 1.0]] * 3
    kinds = [
        {"milliseconds": of, "calls": 3, "vendor_calls": 1, "reads": 0, "writes": 2, "log_bytes": 1}
        for of in milliseconds
    ]
    ours, theirs = ({"new": of, "repeated": of} for of in kinds)
    return {
        "cold": [
            {"name": one.name, "by_default": default, "milliseconds": [200.0 if one == OURS else 100.0] * 2}
            for one in (FLOOR, *COMPARED)
            for default in (False, True)
        ],
        "warm": {one.name: [ours if one == OURS else theirs] * 2 for one in COMPARED},
        "trips": [{"kind": "create_site", "new": 3, "repeated": 1, "redelivered": 4}],
        "size": [{"name": "SharedLayer", "zip_size": 8_000_001, "unzipped_size": 1}],
        "memory": {one.name: {"peak": 1, "before": 1, "after": 1.2, "repeated": 1000} for one in COMPARED},
        "scale": {
            "together": {OURS.name: {"1": {"per_second": 1, "processor_ms": 1}}},
            "dispatched": [{"due": 1, "sent": 1, "seconds": 1, "calls": 1}],
        },
        "drain": {"events": 1, "arrived": 1, "minutes": 1, "share": 0.949, "too_many": 1},
        "profile": {
            "without": {"": [ours], "the log": [theirs]},
            "imports": {OURS.name: {"botocore": 1}, FLOOR.name: {}},
            "event": {OURS.name: {"botocore": 1}, POWERTOOLS.name: {}},
        },
    }


def test_what_is_missed_is_told() -> None:
    targets, *_ = tables(_found())
    missed = [row[0] for row in targets.rows if row[-1] != "yes"]
    assert missed == [row[0] for row in targets.rows if not row[0].startswith("round trips")]
    assert "at most 0.3 | 2.00 | **no** |" in targets.markdown()


def test_the_page_has_every_table_in_its_place() -> None:
    page = written(_found())
    for table in tables(_found()):
        assert page.count(f"**{table.name}**\n\n{table.markdown()}") == 1
    assert "{{" not in page
    headings = re.findall("^#.*", PAGE.read_text(), re.MULTILINE)
    assert headings == re.findall("^#.*", (ROOT / "docs/performance.md").read_text(), re.MULTILINE)
    assert FASTAPI.name in page

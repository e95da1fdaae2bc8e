"""A small day of `make outage`, and that what goes wrong in it is noticed."""

import pytest

from crm_bridge import engine
from tests.faults.outage import outage

pytestmark = pytest.mark.usefixtures("capfd")


def test_all_that_came_while_a_vendor_was_down_arrives_once_and_soon() -> None:
    figures = outage(events=40, hours=6)
    assert figures.are_right, figures
    assert figures.last_arrived_after <= 1.3 * engine.LONGEST_HOLD
    assert figures.calls_while_down < 100


def test_the_figures_are_wrong_when_there_is_no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PATIENCE", 3600)
    figures = outage(events=10, hours=4)
    assert not figures.are_right
    assert figures.lost

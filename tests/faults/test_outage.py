"""A small day of `make outage`, and that what goes wrong in it is noticed."""

from dataclasses import replace

import pytest

from crm_bridge.engine import POLICY
from tests.faults.outage import outage

pytestmark = pytest.mark.usefixtures("capfd")


def test_all_that_came_while_a_vendor_was_down_arrives_once_and_soon() -> None:
    figures = outage(events=40, hours=6)
    assert figures.are_right, figures
    assert figures.last_arrived_after <= 1.3 * POLICY.longest_hold
    assert figures.calls_while_down < 100


def test_the_figures_are_wrong_when_there_is_no_patience() -> None:
    figures = outage(events=10, hours=4, policy=replace(POLICY, patience=3600))
    assert not figures.are_right
    assert figures.lost

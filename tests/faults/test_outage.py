"""A small day of `make outage` and a small backlog, and that what goes wrong in them is noticed."""

from dataclasses import replace

import pytest

from crm_bridge.engine import POLICY
from tests.faults import drain
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


def test_a_backlog_drains_at_the_vendors_limit() -> None:
    drained = drain.drain(600, lambda _: None)
    assert (drained.arrived, drained.too_many) == (600, 0)
    assert 0.95 < drained.share < 1.2  # the first minute begins with a tenth of it at once


def test_a_drain_fails_when_nothing_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "LOCAL_HOSTS", frozenset[str]())  # so that the simulator may not be called
    with pytest.raises(AssertionError, match=r"Nothing arrived for 11 minutes\. Reasons of the attempts: .*InvalidURL"):
        drain.drain(2, lambda _: None)

"""An operation gets from the queue to the vendor once in every interleaving; without any of the rules it does not."""

import os

import pytest

from tests.models.lending import RULES, lending

IS_LONG = bool(os.environ.get("LONG"))
"""`make long`: the larger instances."""

SMALL = [(1, 1)]
LARGE = [(2, 1), (2, 2), (3, 2)]
"""How many functions are killed, and how many messages are not taken."""


@pytest.mark.parametrize(("kills", "losses"), SMALL + (LARGE if IS_LONG else []))
def test_it_is_sent_once_and_not_before_it_is_due(kills: int, losses: int) -> None:
    found = lending(kills=kills, losses=losses)
    assert found.wrong is None, str(found)
    assert found.states > 1000  # else it has searched next to nothing


@pytest.mark.parametrize("rule", sorted(RULES))
def test_something_is_wrong_when_a_rule_is_left_out(rule: str) -> None:
    found = lending(kills=1, losses=1, without=frozenset({rule}))
    assert found.wrong, f"nobody notices that this is left out: {RULES[rule]}"
    assert found.way

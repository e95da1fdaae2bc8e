"""The protocol of turns keeps the order in every interleaving; and without any of its rules it does not."""

import os
from collections.abc import Mapping

import pytest

from tests.models.turns import RULES, turns

IS_LONG = bool(os.environ.get("LONG"))
"""`make long`: the larger instances."""

type Instance = tuple[Mapping[int, int], int, int]
"""How often each event is sent, how many functions are killed, and how many answers are lost."""

SMALL: list[Instance] = [({1: 1, 2: 1}, 1, 1)]
LARGE: list[Instance] = [({1: 1, 2: 2}, 1, 1), ({1: 1, 2: 1}, 2, 2), ({1: 1, 2: 1, 3: 1}, 1, 1)]


@pytest.mark.parametrize(("callers", "kills", "losses"), SMALL + (LARGE if IS_LONG else []))
def test_no_older_one_lands_after_a_newer_one_when_all_rules_are_kept(
    callers: Mapping[int, int], kills: int, losses: int
) -> None:
    found = turns(callers, kills=kills, losses=losses)
    assert found.wrong is None, str(found)
    assert found.states > 5000  # else it has searched next to nothing


@pytest.mark.parametrize("rule", sorted(RULES))
def test_something_is_wrong_when_a_rule_is_left_out(rule: str) -> None:
    found = turns({1: 1, 2: 1}, kills=1, losses=1, without=frozenset({rule}))
    assert found.wrong, f"nobody notices that this is left out: {RULES[rule]}"
    assert found.way

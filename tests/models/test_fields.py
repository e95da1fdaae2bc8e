"""Changes of fields of a record that is saved whole lose nothing, in every interleaving; without any rule they do."""

import os

import pytest

from tests.models.fields import RULES, fields

IS_LONG = bool(os.environ.get("LONG"))
"""`make long`: the larger instances."""
NAME, PHONE = 0, 1
BOTH = frozenset({NAME, PHONE})
BOTH_THEN_PHONE = (BOTH, frozenset({PHONE}))

type Instance = tuple[tuple[frozenset[int], ...], int, int]
"""The fields of each event, how many functions are killed, and how many answers are lost."""

SMALL: list[Instance] = [(BOTH_THEN_PHONE, 1, 1), ((frozenset({NAME}), frozenset({PHONE})), 1, 1)]
LARGE: list[Instance] = [(BOTH_THEN_PHONE, 2, 2), ((frozenset({NAME}), frozenset({PHONE}), BOTH), 1, 1)]


@pytest.mark.parametrize(("events", "kills", "losses"), SMALL + (LARGE if IS_LONG else []))
def test_each_field_has_its_newest_value_in_the_end_when_all_rules_are_kept(
    events: tuple[frozenset[int], ...], kills: int, losses: int
) -> None:
    found = fields(events, kills=kills, losses=losses)
    assert found.wrong is None, str(found)
    assert found.states > 100  # else it has searched next to nothing


@pytest.mark.parametrize("rule", sorted(RULES))
def test_something_is_wrong_when_a_rule_is_left_out(rule: str) -> None:
    found = [fields(events, kills=1, losses=1, without=frozenset({rule})) for events, *_ in SMALL]
    assert any(one.wrong for one in found), f"nobody notices that this is left out: {RULES[rule]}"

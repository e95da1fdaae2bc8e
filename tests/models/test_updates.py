"""The record has the last payload of the CRM in the end, in every order; without any rule it may have another."""

import os

import pytest

from tests.models.updates import RULES, updates

IS_LONG = bool(os.environ.get("LONG"))
"""`make long`: the larger instances."""

type Instance = tuple[str, tuple[int, ...], int]
"""The values of the CRM's payloads, which of them arrive, and by which an event of another key has made the record."""

SMALL: list[Instance] = [
    ("AB", (1, 2, 1), 0),
    ("ABA", (1, 2, 3, 2), 0),
    ("ABC", (1, 2, 3), 0),
    ("AB", (2, 2), 1),
    ("ABA", (1, 3, 1), 2),
    ("ABCD", (1, 2, 3), 4),
]
LARGE: list[Instance] = [("ABAB", (1, 2, 3, 4, 1), 0), ("ABCA", (1, 2, 3, 4, 2, 3), 0), ("ABCA", (1, 2, 4, 2, 4), 3)]


@pytest.mark.parametrize(("values", "deliveries", "other"), SMALL + (LARGE if IS_LONG else []))
def test_the_record_has_the_last_payload_in_the_end_when_all_rules_are_kept(
    values: str, deliveries: tuple[int, ...], other: int
) -> None:
    found = updates(values, deliveries, other=other, refusals=1, losses=2, kills=1)
    assert found.wrong is None, str(found)
    assert found.states > 20  # else it has searched next to nothing


@pytest.mark.parametrize("rule", sorted(RULES))
def test_something_is_wrong_when_a_rule_is_left_out(rule: str) -> None:
    found = [
        updates(values, deliveries, other=other, refusals=1, losses=2, kills=1, without=frozenset({rule}))
        for values, deliveries, other in SMALL
    ]
    assert any(one.wrong for one in found), f"nobody notices that this is left out: {RULES[rule]}"

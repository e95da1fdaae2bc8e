"""A person has one id and one record of each kind in every interleaving; and without any of the rules not always."""

import os
from typing import Any

import pytest

from tests.models.people import RULES, people

IS_LONG = bool(os.environ.get("LONG"))
"""`make long`: the larger instances."""

SMALL: dict[str, dict[str, Any]] = {
    "a conversion, with a kill": {"saves": "PM", "kills": 1},
    "a conversion, with a lost response": {"saves": "PM", "losses": 1},
    "a conversion that comes late, with a kill": {"saves": "MP", "kills": 1},
    "somebody new, sent twice": {"saves": "P", "callers": 2, "kills": 1, "losses": 1},
}
LARGE: dict[str, dict[str, Any]] = {
    "two saves, with a kill and a lost response": {"saves": "PP", "kills": 1, "losses": 1},
    "a conversion that comes late, with a lost response": {"saves": "MP", "losses": 1},
    "a conversion between two saves": {"saves": "PMP"},
}
LOST, LATE = "a conversion, with a lost response", "a conversion that comes late, with a kill"
NOTICED_BY = {"prospect since ever": LATE, "wait for the member": LATE, "take over": LATE, "ask for the member": LOST}


@pytest.mark.parametrize("case", [*SMALL, *(LARGE if IS_LONG else {})])
def test_a_person_has_one_record_when_all_rules_are_kept(case: str) -> None:
    found = people(**(SMALL | LARGE)[case])
    assert found.wrong is None, str(found)
    assert found.states > 2000  # else it has searched next to nothing


@pytest.mark.parametrize("rule", sorted(RULES))
def test_something_is_wrong_when_a_rule_is_left_out(rule: str) -> None:
    found = people(**SMALL[NOTICED_BY.get(rule, "a conversion, with a kill")], without=frozenset({rule}))
    assert found.wrong, f"nobody notices that this is left out: {RULES[rule]}"
    assert found.way

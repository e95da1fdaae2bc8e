"""The protocol of key links makes one of each pair in every interleaving; and without any of its rules it does not."""

import os
from typing import Any

import pytest

from tests.models.held import RULES, held

IS_LONG = bool(os.environ.get("LONG"))
"""`make long`: the larger instances."""
DELETED, CHANGED = [(1, "")], [(1, "B")]
ACCEPTED = {"later": True, "ordered": True}
"""The request comes when the change has been accepted, so it must count."""

CASES: dict[str, dict[str, Any]] = {
    "deleted later, then sent again": {"changes": DELETED, "posts": "A", **ACCEPTED},
    "changed later, then sent again": {"changes": CHANGED, "posts": "A", **ACCEPTED},
    "theirs deleted later, then sent": {"changes": DELETED, "posts": "A", "ours": "", "theirs": "A", **ACCEPTED},
    "theirs changed later, then sent": {"changes": CHANGED, "posts": "A", "ours": "", "theirs": "A", **ACCEPTED},
    "deleted while it is sent": {"changes": DELETED, "posts": "A"},
    "theirs deleted while it is sent": {"changes": DELETED, "posts": "A", "ours": "", "theirs": "A"},
    "theirs changed while it is sent": {"changes": CHANGED, "posts": "A", "ours": "", "theirs": "A"},
    "the new pair is sent while it is changed": {"changes": CHANGED, "posts": "B"},
    "deleted before its request has ended": {"changes": DELETED, "posts": "A", "ours": ""},
    "changed before its request has ended": {"changes": CHANGED, "posts": "A", "ours": ""},
}
"""Each with one kill, and with one lost answer."""
WITHOUT_FAULTS: dict[str, dict[str, Any]] = {
    "both pairs are sent while it is changed": {"changes": CHANGED, "posts": "AB"},
    "two become the same": {"changes": [(1, "C"), (2, "C")], "posts": "C", "ours": "AB"},
    "one becomes two": {"changes": [(1, "B"), (1, "C")], "posts": "A"},
    "changed and deleted": {"changes": [(1, "B"), (1, "")], "posts": "A"},
    "theirs changed and deleted": {"changes": [(1, "B"), (1, "")], "posts": "A", "ours": "", "theirs": "A"},
}
LARGE: dict[str, dict[str, Any]] = {
    **WITHOUT_FAULTS,
    "there and back": {"changes": [(1, "B"), (1, "A")], "posts": "B"},
    "both pairs are sent twice": {"changes": CHANGED, "posts": "AAB", **ACCEPTED},
}
"""Each with one kill, and with one lost answer, in `make long`; there those above come with both."""
NOTICED_BY = {
    "hold": "deleted later, then sent again",
    "hold while it waits": "the new pair is sent while it is changed",
    "reserve": "the new pair is sent while it is changed",
    "reserve for one": "two become the same",
    "note": "theirs deleted later, then sent",
    "found: no note": "theirs deleted later, then sent",
    "found: no end since": "theirs deleted later, then sent",
    "found: say so": "theirs deleted while it is sent",
    "earlier ones first": "deleted before its request has ended",
    "release": "the new pair is sent while it is changed",
}


INSTANCES = [
    *((case, kills, losses) for case in CASES for kills, losses in ((1, 0), (0, 1))),
    *((case, 0, 0) for case in WITHOUT_FAULTS if case != "theirs changed and deleted"),
]
LONG_INSTANCES = [
    ("theirs changed and deleted", 0, 0),
    *((case, 1, 1) for case in CASES),
    *((case, kills, losses) for case in LARGE for kills, losses in ((1, 0), (0, 1))),
]


@pytest.mark.parametrize(("case", "kills", "losses"), INSTANCES + (LONG_INSTANCES if IS_LONG else []))
def test_there_is_one_key_link_of_each_pair_when_all_rules_are_kept(case: str, kills: int, losses: int) -> None:
    found = held(**(CASES | LARGE)[case], kills=kills, losses=losses)
    assert found.wrong is None, str(found)
    assert found.states > 100  # else it has searched next to nothing


@pytest.mark.parametrize("rule", sorted(RULES))
def test_something_is_wrong_when_a_rule_is_left_out(rule: str) -> None:
    found = held(**(CASES | LARGE)[NOTICED_BY[rule]], kills=1, without=frozenset({rule}))
    assert found.wrong, f"nobody notices that this is left out: {RULES[rule]}"
    assert found.way

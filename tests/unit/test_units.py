"""How DynamoDB's units are counted, compared with figures that others measured against DynamoDB itself."""

import json
from typing import Any

import pytest

from tests.units import Index, Item, index_written, size, written

INCLUDE = Index("gsi", ["gsiPk"], frozenset({"pk", "sk", "gsiPk", "proj"}))
KEYS_ONLY = Index("keys", ["gsiPk"], frozenset({"pk", "sk", "gsiPk"}))
ALL = Index("all", ["gsiPk"], None)
ITEM: dict[str, dict[str, Any]] = {"pk": {"S": "a"}, "sk": {"S": "b"}, "gsiPk": {"S": "g"}, "proj": {"S": "p"}}
WITHOUT = {name: value for name, value in ITEM.items() if name != "gsiPk"}


@pytest.mark.parametrize(
    ("before", "after", "units"),
    [
        (None, ITEM, 1),
        (None, WITHOUT, 0),
        (ITEM, ITEM, 0),
        (ITEM, {**ITEM, "other": {"S": "x"}}, 0),
        (ITEM, {**ITEM, "proj": {"S": "q"}}, 1),
        (ITEM, {**ITEM, "gsiPk": {"S": "h"}}, 2),
        (ITEM, WITHOUT, 1),
        (WITHOUT, ITEM, 1),
        (WITHOUT, None, 0),
        (ITEM, None, 1),
    ],
    ids=[
        *("new", "new, not in the index", "the same again", "outside of the projection", "projected attribute"),
        *("key moved", "key removed", "key added", "deleted, was not in the index", "deleted"),
    ],
)
def test_an_index_is_charged_for_the_change_of_what_it_stores(
    before: Item | None, after: Item | None, units: int
) -> None:
    """Measured in eu-west-2 on 12 August 2026: https://github.com/nubo-db/dynoxide/issues/176"""
    assert index_written(INCLUDE, before, after) == units


def test_an_index_of_keys_is_not_charged_when_only_another_attribute_changes() -> None:
    changed = {**ITEM, "proj": {"S": "q"}}
    assert [index_written(index, ITEM, changed) for index in (KEYS_ONLY, ALL)] == [0, 1]


def large(kilobytes: float) -> Item:
    empty = {"pk": {"S": "a"}, "blob": {"S": ""}}
    return {"pk": {"S": "a"}, "blob": {"S": "x" * (round(kilobytes * 1024) - size(empty))}}


@pytest.mark.parametrize(
    ("before", "after", "in_transaction", "units"),
    [
        (None, large(0.5), False, 1),
        (None, large(1), False, 1),
        (None, large(1.001), False, 2),
        (large(3), None, False, 3),
        (large(3), None, True, 6),
        (large(3), large(3), True, 6),
        (large(0.5), large(2.5), False, 3),
        (large(2.5), large(0.5), False, 3),
        (None, None, False, 1),
        (None, None, True, 2),
    ],
)
def test_a_table_is_charged_for_the_larger_item_and_twice_in_a_transaction(
    before: Item | None, after: Item | None, in_transaction: bool, units: int
) -> None:
    """As https://github.com/nubo-db/dynoxide/pull/188 found it, for a deletion and a mere check as well."""
    assert written(before, after, in_transaction=in_transaction) == units


def test_a_transaction_of_three_puts_is_charged_as_a_user_of_rusoto_saw_it() -> None:
    """https://github.com/rusoto/rusoto/issues/1919: the table 6, its index 2, together 8."""
    puts: list[Item] = [ITEM, {**ITEM, "sk": {"S": "c"}}, {**WITHOUT, "sk": {"S": "d"}}]
    assert sum(written(None, one, in_transaction=True) for one in puts) == 6
    assert sum(index_written(INCLUDE, None, one) for one in puts) == 2


def test_an_items_size_is_that_of_names_and_values() -> None:
    values: dict[str, Any] = json.loads(
        '{"é": {"S": "Büro"}, "n": {"N": "-1234567890"}, "b": {"BOOL": true}, "s": {"SS": ["ab", "c"]},'
        ' "l": {"L": [{"S": "ab"}]}, "m": {"M": {"k": {"N": "7"}}}}'
    )
    assert size(values) == (2 + 5) + (1 + 6) + (1 + 1) + (1 + 3) + (1 + 3 + 1 + 2) + (1 + 3 + 1 + 1 + 2)

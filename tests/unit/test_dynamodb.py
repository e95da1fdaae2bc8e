"""Values in and out of tables, beside what boto3 makes of them."""

import traceback
from typing import Any

import pytest
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from hypothesis import given
from hypothesis import strategies as st

from crm_bridge.errors import StorageError
from crm_bridge.storage.dynamodb import MOST_READ, deserialize, read_many, serialize

TEXTS = st.text(max_size=5)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
)
SETS = st.frozensets(TEXTS, min_size=1, max_size=3)


@given(st.dictionaries(TEXTS, VALUES | SETS, max_size=4))
def test_a_value_goes_in_as_boto3_puts_it_and_comes_out_as_it_was(item: dict[str, Any]) -> None:
    stored = {name: value for name, value in item.items() if value is not None}
    typed = serialize(item)
    whole = TypeSerializer()
    assert _sorted(typed) == _sorted({name: whole.serialize(value) for name, value in stored.items()})
    assert deserialize(typed) == stored
    assert {name: TypeDeserializer().deserialize(value) for name, value in typed.items()} == stored


def _sorted(typed: Any) -> Any:
    """A set has no order."""
    if isinstance(typed, dict):
        return {name: sorted(of) if name == "SS" else _sorted(of) for name, of in typed.items()}
    return [_sorted(part) for part in typed] if isinstance(typed, list) else typed


def test_a_tuple_is_a_list() -> None:
    assert serialize({"a": ("b", 1)}) == {"a": {"L": [{"S": "b"}, {"N": "1"}]}}


@pytest.mark.parametrize("value", [1.5, b"bytes", bytearray(b"b"), {1, 2}, {b"b"}, set(), object()])
def test_what_no_table_holds_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match=rf"no table holds a \({type(value).__name__}\)"):
        serialize({"a": value})


def test_a_refusal_does_not_repeat_the_value() -> None:
    class Customer:
        def __repr__(self) -> str:
            return "Wanjiku"

    with pytest.raises(TypeError) as raised:
        serialize({"a": {"b": Customer()}})
    assert "Wanjiku" not in "".join(traceback.format_exception(raised.value))


def test_a_number_comes_out_as_an_integer_also_when_it_was_put_in_by_hand() -> None:
    plain = deserialize(
        {
            "a": {"L": [{"M": {"b": {"N": "12"}}}]},
            "c": {"NS": ["1"]},
            "expires_at": {"N": "1795000000.75"},
            "big": {"N": "1E+20"},
        }
    )
    assert plain == {"a": [{"b": 12}], "c": {1}, "expires_at": 1_795_000_000, "big": 10**20}
    assert type(plain["a"][0]["b"]) is int  # type: ignore[index]


class Batches:
    """A client that returns at most `most` items of a call, and counts the calls."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.calls: list[dict[str, Any]] = []

    def batch_get_item(self, *, RequestItems: dict[str, Any]) -> dict[str, Any]:  # noqa: N803 - boto3's name
        [(table, asked)] = RequestItems.items()
        self.calls.append(asked)
        assert len(asked["Keys"]) <= MOST_READ
        found, left = asked["Keys"][: self.most], asked["Keys"][self.most :]
        return {"Responses": {table: found}, "UnprocessedKeys": {table: {"Keys": left}} if left else {}}


KEYS: list[Any] = [{"id": {"N": str(number)}} for number in range(MOST_READ + 20)]


def test_all_items_are_read_when_they_are_more_than_one_call_gives() -> None:
    for most, calls in ((MOST_READ, 2), (60, 3)):
        client: Any = Batches(most)
        assert list(read_many(client, "things", KEYS)) == KEYS
        assert [asked["ConsistentRead"] for asked in client.calls] == [True] * calls


def test_an_item_is_read_without_consistency_when_that_is_enough() -> None:
    client: Any = Batches(MOST_READ)
    assert list(read_many(client, "things", iter(KEYS[:1]), consistent=False)) == KEYS[:1]
    assert [asked["ConsistentRead"] for asked in client.calls] == [False]


def test_reading_many_fails_when_the_table_is_throttled() -> None:
    client: Any = Batches(0)
    with pytest.raises(StorageError, match="throttled"):
        list(read_many(client, "things", KEYS[:3]))
    assert len(client.calls) == 1

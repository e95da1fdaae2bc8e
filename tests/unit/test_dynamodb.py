"""Values in and out of tables, beside what boto3 makes of them."""

from typing import Any

import pytest
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from hypothesis import given
from hypothesis import strategies as st

from crm_bridge.dynamodb import deserialize, serialize

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


@pytest.mark.parametrize("value", [1.5, b"bytes", object()])
def test_what_no_table_holds_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match=f"no table holds a {type(value).__name__}"):
        serialize({"a": [value]})


def test_a_number_that_was_put_in_by_hand_loses_its_fraction() -> None:
    assert deserialize({"expires_at": {"N": "1795000000.75"}, "big": {"N": "1E+20"}}) == {
        "expires_at": 1_795_000_000,
        "big": 10**20,
    }


def test_what_the_bridge_never_stored_is_refused() -> None:
    with pytest.raises(TypeError, match="stores no B"):
        deserialize({"a": {"B": b"bytes"}})

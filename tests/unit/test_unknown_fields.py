"""Which known field is named with an unknown one."""

import pytest
from pydantic import BaseModel, Field

from crm_bridge.errors import InvalidError
from crm_bridge.inbound.api import validated
from crm_bridge.inbound.unknown_fields import known_fields, unknown_field


class Street(BaseModel, extra="forbid"):
    name: str = ""
    zip_code: str = Field(default="", alias="zipCode")


type Streets = list[Street] | None


class House(BaseModel, extra="forbid"):
    address: str = ""
    street: Street | None = None
    others: Streets = None
    site_id: str = ""


def message(members: dict[str, object]) -> str:
    with pytest.raises(InvalidError) as raised:
        validated(House, members)
    (field,) = raised.value.fields
    return field.message


@pytest.mark.parametrize(
    ("wrong", "right"), [("adress", "address"), ("siteId", "site_id"), ("ADDRES", "address"), ("other", "others")]
)
def test_the_nearest_is_named_when_a_name_is_spelled_wrong(wrong: str, right: str) -> None:
    assert message({wrong: "a secret"}) == f'Unknown field "{wrong}". Did you mean "{right}"?'


def test_none_is_named_when_the_nearest_is_another_word() -> None:
    assert unknown_field("number", ["name"]) == 'Unknown field "number"'


def test_all_are_named_when_none_is_near() -> None:
    assert message({"x": 1}) == 'Unknown field "x"; known are address, street, others, site_id'


@pytest.mark.parametrize("place", [{"street": {"zipcod": 1}}, {"others": [{}, {"zipcod": 1}]}])
def test_the_nearest_field_of_the_same_object_is_named_when_it_is_within_another(place: dict[str, object]) -> None:
    assert message(place) == 'Unknown field "zipcod". Did you mean "zipCode"?'


def test_none_is_known_where_the_place_is_no_object() -> None:
    assert known_fields(House, ("address",)) == []
    assert known_fields(House, ("nowhere", "x")) == []
    assert unknown_field("x", []) == 'Unknown field "x"'

"""The problem of a body that is invalid in many ways, and the types of all problems."""

import pytest
from pydantic import BaseModel, ConfigDict

from crm_bridge import errors
from crm_bridge.errors import LONGEST_FIELD, MOST_ERRORS, InvalidError, ProblemError
from crm_bridge.inbound.api import validated


def test_every_problem_has_its_own_type_and_a_status() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ProblemError)]
    with_status = [kind for kind in kinds if "status" in vars(kind)]
    assert len(with_status) >= 12
    assert len({kind.kind for kind in with_status}) == len(with_status)
    assert all(400 <= kind.status < 600 for kind in with_status)


class Parcel(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: int
    weight: int | None = None


def test_names_at_most_twenty_wrong_fields_cuts_their_names_and_tells_once_what_is_known() -> None:
    unknown = {f"{number}-{'x' * 5000}": number for number in range(3000)}
    with pytest.raises(InvalidError) as raised:
        validated(Parcel, {**unknown, "number": "none"})
    error = raised.value
    assert len(error.fields) == MOST_ERRORS
    assert max(len(field.field) for field in error.fields) == LONGEST_FIELD
    assert sum("known are number, weight" in field.message for field in error.fields) == 1
    assert error.detail == f"Correct the fields named in errors. {3001 - MOST_ERRORS} more are wrong."
    assert len(str([(field.field, field.message) for field in error.fields])) < 5000

    with pytest.raises(InvalidError) as raised:
        validated(Parcel, {"number": 1, "a": 1, "b": 2})  # all of which are named
    assert raised.value.detail == "Correct the fields named in errors."
    assert [field.field for field in raised.value.fields] == ["a", "b"]

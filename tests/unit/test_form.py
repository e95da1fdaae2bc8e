"""An object as the fields of a form."""

import pytest

from crm_bridge.errors import RefusedError
from crm_bridge.outbound.form import LARGEST_FORM, form_of


def test_each_value_has_the_names_of_all_that_it_is_in() -> None:
    record = {"owner": {"id": 7}, "phones": ["1", None], "vip": True, "empty": {}, "none": []}
    assert form_of(record, "Egito") == {"owner.id": "7", "phones[0]": "1", "phones[1]": "", "vip": "true"}


@pytest.mark.parametrize("empty", [{}, [], [[]], "", None])
def test_is_refused_when_its_names_are_too_large_also_without_values(empty: object) -> None:
    record = {"a": {"n" * (LARGEST_FORM // 10): [empty] * 11}}
    with pytest.raises(RefusedError, match="too large"):
        form_of(record, "Egito")

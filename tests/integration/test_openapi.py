"""All routes and errors are in docs/openapi.json, and nothing else is there."""

import json
from typing import Literal

import pytest

from local.vendors.simulator import Kind
from openapi.document import DOCUMENT
from tests.cases import CASES
from tests.integration.conftest import Crm
from tests.integration.test_events import invoke
from tests.stack import Stack

CALLS: tuple[Literal["GET", "POST", "PUT", "DELETE"], ...] = ("GET", "POST", "PUT", "DELETE")
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


def test_a_method_that_no_route_has_is_404_as_on_aws(crm: Crm) -> None:
    paths = json.loads(DOCUMENT.read_text())["paths"]
    for path, operations in paths.items():
        found_by_id = paths["/key-links/{id}"].keys() if path.startswith("/key-links/") else set()
        if path == "/operations/retry":
            found_by_id = paths["/operations/{id}"].keys()
        for method in METHODS - operations.keys() - found_by_id:
            answer = crm.session.request(method, crm.stack.url + path, headers=crm.headers, timeout=30)
            assert answer.status_code == 404, (method, path)
            assert method == "head" or answer.json() == {"message": "Not Found"}


FAULTS = sorted(set(Kind) - {Kind.REFUSE, Kind.DELAY, Kind.ERROR_BEFORE, Kind.CLOSE_BEFORE})
"""Not those that take time, nor those that look like another one from here."""


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_its_vendor_does_an_event_is_answered_as_documented(
    stack: Stack,
    fault: Kind,
    waiting_moves_the_clock: None,  # noqa: ARG001
) -> None:
    """`every_answer_is_documented` checks what the document allows."""
    answered = set()
    for event, _, _ in CASES:
        for vendor in stack.vendors:
            for method in CALLS:
                vendor.fail(fault, method=method, times=9)
        answered.add(invoke(stack, event)["statusCode"])
        for vendor in stack.vendors:
            vendor.heal()
        stack.move_clock(1000)
    assert 202 in answered
    assert 500 not in answered

"""create_job from the CRM's call to illu and back, over real HTTP."""

from typing import Any

import pytest
import requests

from tests.integration.conftest import SITE, Crm

JOB: dict[str, Any] = {"ticket_id": "T-501", "customer_id": "C-1001", "name": "Meter does not count"}


DETAILS = {name: SITE[name] for name in ("name", "latitude", "longitude", "address")}


def create_job(crm: Crm, **changes: object) -> requests.Response:
    return crm.post("/jobs", {name: value for name, value in {**JOB, **changes}.items() if value is not None})


@pytest.fixture
def at_home(crm: Crm) -> Crm:
    """A CRM whose customer has a site."""
    assert crm.create_site().status_code == 201
    return crm


def linked(crm: Crm, path: str) -> set[tuple[str, str]]:
    return {(link["entity"], link["id"]) for link in crm.get(f"/links/{path}").json().get("links", [])}

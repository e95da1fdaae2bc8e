"""Saves of a person through the bridge to Egito, and its tenant's secret. No tests."""

import requests

from local.vendors.egito import CLUB
from tests.integration.conftest import Crm, change_settings
from tests.stack import Stack


def save(crm: Crm, number: int = 1, **changes: object) -> requests.Response:
    person = {"firstname": "Ola", "lastname": f"Lis {number}", "userStatus": "ACTIVE", "userType": "PROSPECT"}
    return crm.post(f"/connector/clubs/{CLUB}/prospects", {**person, "email": f"lis{number}@a.example", **changes})


def put_egito(stack: Stack, **changes: object) -> None:
    """The demo tenant's secret with other members in its egito block."""
    change_settings(stack, egito=changes)


def saved_names(stack: Stack) -> list[str]:
    return sorted(str(record["lastName"]) for record in stack.egito.records["Contact"])


def expect_waiting(answer: requests.Response, reason: str) -> None:
    body = answer.json()
    assert (answer.status_code, body["result"], body["state"]) == (202, "WARNING", "waiting"), body
    assert reason in body["reason"]

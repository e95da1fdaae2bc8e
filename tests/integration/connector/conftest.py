"""connector_receiver from the Connector's call to Egito and back, over real HTTP."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import boto3
import pytest
import requests

from crm_bridge.vendors.egito_settings import PERSON_FIELDS
from local.vendors.egito import CLIENT, CLUB, CONNECTOR_CLUB, EgitoSimulator, Record
from local.vendors.simulator import Kind
from tests.connector import Connector, Language
from tests.integration.conftest import Crm, change_settings
from tests.stack import Stack

LEFT_OUT = object()
"""Stands for a field that is not sent at all; None is sent as null."""


ADA: dict[str, Any] = {
    "firstname": "Ada",
    "lastname": "Nowak",
    "userType": "PROSPECT",
    "userStatus": "ACTIVE",
    "email": "ada@mail.example",
    "mobile": "+48 601 234 567",
}


EVERYTHING: dict[str, Any] = {
    **ADA,
    "birthdate": "1990-12-31",
    "gender": "F",
    "address1": "ul. Długa 7",
    "address2": "m. 12",
    "city": "Kraków",
    "zipcode": "30-001",
    "state": "Małopolskie",
    "country": "PL",
    "homePhone": "12 345 67 89",
    "workPhone": "12 987 65 43",
    "company": "Acme & Sons <Ltd>",
    "trialStartDate": "2024-05-01",
    "trialEndDate": "2024-05-31",
    "leadOwner": "8",
    "leadSource": "2",
}


EVERYTHING_ELSE: dict[str, Any] = {
    "firstname": "Adela",
    "lastname": "Nowakowska",
    "userType": "MEMBER",
    "userStatus": "INACTIVE",
    "email": "adela@post.example",
    "mobile": "+48 602 000 111",
    "birthdate": "1991-01-30",
    "gender": "M",
    "address1": "ul. Krótka 8",
    "address2": "m. 13",
    "city": "Gdańsk",
    "zipcode": "80-001",
    "state": "Pomorskie",
    "country": "DE",
    "homePhone": "58 111 22 33",
    "workPhone": "58 444 55 66",
    "company": "Bravo",
    "trialStartDate": "2024-06-01",
    "trialEndDate": "2024-06-30",
    "leadOwner": "9",
    "leadSource": "1",
}


OTHER_CLUB = "k-4"


CLUBS: dict[str, Any] = {
    CLUB: {"connector_id": CONNECTOR_CLUB, "fields": {"club": "Centre"}},
    OTHER_CLUB: {"connector_id": "2c8f3a", "fields": {"club": "Harbour"}},
}


WITHOUT_REFERENCE: dict[str, Any] = {"prospects": {"entity": "Contact"}, "members": {"entity": "Contact"}}


LEAD_AND_CONTACT: dict[str, Any] = {
    "prospects": {"entity": "Lead", "reference": "externalId", "on_conversion": {"notes": "won"}},
    "members": {"entity": "Contact", "reference": "externalId"},
}


STATES = ("sending", "succeeded", "rejected", "waiting", "unconfirmed", "needs_review")


KINDS = [kind for kind in Kind if kind is not Kind.REFUSE]


@pytest.fixture
def egito(stack: Stack) -> EgitoSimulator:
    return stack.egito


def change_tenant(stack: Stack, *, clubs: dict[str, Any] | None = None, **egito: object) -> None:
    """Members of the tenant's egito block, and its clubs; the function knows them at once."""
    change_settings(stack, egito=egito, connector={"clubs": clubs} if clubs else {}, at_once=True)


def tenant(stack: Stack, *, clubs: dict[str, Any] | None = None, **egito: object) -> str:
    document = json.loads(stack.demo_tenant())
    document["egito"] |= egito
    document["connector"] |= {"clubs": clubs} if clubs else {}
    return json.dumps(document)


def call(
    crm: Crm,
    method: Literal["GET", "POST", "PUT"],
    path: str,
    body: object = None,
    *,
    club: str = CLUB,
    key: str | None = None,
) -> requests.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else crm.headers
    url = f"{crm.stack.url}/connector/clubs/{club}{path}"
    return crm.session.request(method, url, json=body, headers=headers, timeout=60)


def save(
    crm: Crm, at: str | None = None, *, club: str = CLUB, key: str | None = None, **changes: object
) -> requests.Response:
    """Ada with changes, sent as a new record, or to the one with the id `at`."""
    body = {name: value for name, value in {**ADA, **changes}.items() if value is not LEFT_OUT}
    path = "/prospects" if body["userType"] == "PROSPECT" else "/members"
    return call(crm, *(("PUT", f"{path}/{at}") if at else ("POST", path)), body, club=club, key=key)


def saved(crm: Crm, at: str | None = None, *, club: str = CLUB, key: str | None = None, **changes: object) -> str:
    """The recordID that such a save gives."""
    answer = save(crm, at, club=club, key=key, **changes)
    assert answer.status_code in (200, 201), answer.text
    record_id: str = answer.json()["recordID"]
    return record_id


def outcome(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["result"]


def the_record(egito: EgitoSimulator, entity: str = "Contact") -> Record:
    """The only one that there is."""
    (record,) = egito.records[entity]
    return record


def calls(egito: EgitoSimulator, method: str) -> int:
    """How often it was called at any entity."""
    return sum(seen.path.endswith(f"/{method}") for seen in egito.seen)


def states(crm: Crm) -> Counter[str]:
    """How many operations are in each state."""
    return Counter({state: len(found) for state in STATES if (found := operations(crm, state))})


def operations(crm: Crm, state: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = crm.get(f"/operations?state={state}&limit=100").json()["operations"]
    return found


def in_the_end(crm: Crm, answer: requests.Response) -> dict[str, Any]:
    """The operation behind any answer, settled."""
    answer.headers.setdefault("Location", f"/operations/{answer.json()['operation_id']}")
    return crm.settle(answer)


def in_review(crm: Crm) -> str:
    """The id of the operation that, some time later, a person has to decide about."""
    for _ in range(10):
        if found := operations(crm, "needs_review"):
            (operation,) = found
            return str(operation["operation_id"])
        crm.stack.deliver_due(after=60)
    raise AssertionError(f"nothing needs review: {states(crm)}")


def resolve(crm: Crm, operation_id: str, action: str, vendor_id: object = None) -> requests.Response:
    named = {"id": vendor_id, "confirmed": True} if vendor_id else {}
    return crm.post(f"/operations/{operation_id}/resolve", {"action": action, **named})


def rows(table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = boto3.resource("dynamodb").Table(os.environ[table]).scan()["Items"]
    return found


def lead_sources(crm: Crm) -> list[tuple[str, str, bool]]:
    answer = call(crm, "GET", "/lead-sources")
    assert answer.status_code == 200, answer.text
    return [(one["id"], one["name"], one["active"]) for one in answer.json()["leadSources"]]


def add_lead_source(crm: Crm, name: str) -> requests.Response:
    return call(crm, "POST", "/lead-sources", {"name": name})


def change_lead_source(crm: Crm, lead_source_id: str, name: str, **more: object) -> requests.Response:
    return call(crm, "PUT", f"/lead-sources/{lead_source_id}", {"name": name, **more})


def connector(stack: Stack, language: Language = "json", *, club: str = CONNECTOR_CLUB) -> Connector:
    return Connector(stack.url, club, user=CLIENT, password=stack.api_key, language=language)


def at_once[T](works: Sequence[Callable[[], T]]) -> list[T]:
    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result() for future in [pool.submit(work) for work in works]]


def all_saved(crm: Crm, answers: Iterable[requests.Response]) -> bool:
    """Whether all of them are, at once or after a while."""
    answers = list(answers)
    later = [crm.settle(answer)["state"] for answer in answers if answer.status_code == 202]
    return {answer.status_code for answer in answers} <= {200, 201, 202} and set(later) <= {"succeeded"}


def fields_of(record: Record, names: Iterable[str]) -> dict[str, Any]:
    return {name: record[PERSON_FIELDS[name]] for name in names}

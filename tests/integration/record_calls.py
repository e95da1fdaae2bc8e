"""Requests for Egito's records, and its tenant's settings. No tests."""

from typing import Any, Literal
from urllib.parse import quote, urlsplit

import requests

from tests.integration.conftest import Crm, change_settings
from tests.stack import Stack

JAN: dict[str, Any] = {"firstName": "Jan", "lastName": "Lis", "phone": "+48 12 600 10 01", "city": "Kraków"}
ASYNC = {"Prefer": "respond-async"}


def call(
    crm: Crm, method: Literal["GET", "POST", "PUT", "DELETE"], path: str, body: object = None, **headers: str
) -> requests.Response:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return crm.send(method, path, body, headers=given)


def create(
    crm: Crm,
    fields: dict[str, Any] = JAN,
    entity: str = "Contact",
    *,
    external_id: str | None = "A-1",
    key: str | None = None,
    **headers: str,
) -> requests.Response:
    body = {"fields": fields, **({"external_id": external_id} if external_id else {})}
    return call(crm, "POST", f"/records/{entity}", body, **headers, **({"Idempotency_Key": key} if key else {}))


def created(crm: Crm, fields: dict[str, Any] = JAN, entity: str = "Contact", **options: Any) -> str:
    answer = create(crm, fields, entity, **options)
    assert answer.status_code == 201, answer.text
    record_id: str = answer.json()["id"]
    return record_id


def change(
    crm: Crm, record_id: str, fields: dict[str, Any], entity: str = "Contact", **headers: str
) -> requests.Response:
    return call(crm, "PUT", f"/records/{entity}/{record_id}", {"fields": fields}, **headers)


def delete(crm: Crm, record_id: str, entity: str = "Contact", **headers: str) -> requests.Response:
    return call(crm, "DELETE", f"/records/{entity}/{record_id}", **headers)


def resolve(crm: Crm, operation: str, **decision: object) -> requests.Response:
    return crm.post(f"/operations/{operation}/resolve", decision)


def records(stack: Stack, entity: str = "Contact") -> list[dict[str, Any]]:
    return stack.egito.records[entity]


def the_record(stack: Stack, entity: str = "Contact") -> dict[str, Any]:
    (record,) = records(stack, entity)
    return record


def system(stack: Stack) -> str:
    return urlsplit(stack.egito.url).netloc


def linked(crm: Crm, system: str, entity: str, record_id: str) -> list[str]:
    """Return what a record is linked to, as `crm/contact/A-1`."""
    answer = crm.get(f"/links/{quote(system)}/{entity}/{quote(record_id)}")
    assert answer.status_code in (200, 404)
    return sorted(f"{one['system']}/{one['entity']}/{one['id']}" for one in answer.json().get("links", ()))


def change_tenant(stack: Stack, tenant: str = "demo", **egito: object) -> None:
    """Members of a tenant's egito block; the function knows them at once."""
    change_settings(stack, tenant, egito=egito, at_once=True)


def without_reference(stack: Stack) -> None:
    change_tenant(stack, records={"Contact": {}})

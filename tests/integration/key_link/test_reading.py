"""Key links are read and searched; credentials that Rev.io refuses."""

import base64
import json
import os
from typing import Literal
from urllib.parse import quote

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from werkzeug.wrappers import Request, Response

from crm_bridge.runtime import runtime
from local.vendors.simulator import Kind
from tests.integration.conftest import Crm
from tests.integration.key_link.conftest import (
    ENTITY_TYPES,
    EXTERNAL,
    KEY_LINK,
    OTHER,
    assert_tied,
    change_tenant,
    delete,
    found,
    link_up,
    put,
    states,
    wrong_fields,
)

# ---------------------------------------------------------------- reading


@pytest.fixture
def five(crm: Crm) -> Crm:
    """A CRM whose account at Rev.io has five key links."""
    for system_id, entity_type_id, internal_id, external_id in (
        (4, 2, 1015, "A"),
        (4, 2, 1015, "B"),
        (7, 2, 1015, "A"),
        (4, 4, 1015, "A"),
        (4, 2, 2044, "A"),
    ):
        crm.stack.revio.account.add_key_link(system_id, entity_type_id, internal_id, external_id)
    return crm


@pytest.mark.parametrize("refuses_unknown_search", [False, True])
def test_key_links_are_found_by_each_filter(five: Crm, refuses_unknown_search: bool) -> None:
    five.stack.revio.refuses_unknown_search = refuses_unknown_search
    for query, ids in (
        ("", [77, 78, 79, 80, 81]),
        ("external_id=A", [77, 79, 80, 81]),
        ("external_id=a", []),
        ("internal_id=1015", [77, 78, 79, 80]),
        ("system=quickbooks", [79]),
        ("entity_type=Contact", [80]),
        ("external_id=A&internal_id=1015", [77, 79, 80]),
        ("external_id=A&system=SALESFORCE", [77, 80, 81]),
        ("system=SALESFORCE&entity_type=CUSTOMER", [77, 78, 81]),
        ("system=SALESFORCE&entity_type=CUSTOMER&internal_id=1015&external_id=A", [77]),
        ("system=HUBSPOT", []),
    ):
        assert found(five, query) == ids, query


def test_a_key_link_is_shown_with_its_names_and_all_that_revio_says(five: Crm) -> None:
    (record,) = [one for one in five.stack.revio.key_links if one["integration_key_link_id"] == 79]
    shown = {"system": "QUICKBOOKS", "entity_type": "CUSTOMER", "id": 79, **record}
    answer = five.get("/key-links/79")
    assert (answer.status_code, answer.json()) == (200, shown)
    assert five.get("/key-links?system=QUICKBOOKS").json() == {
        "key_links": [shown],
        "page": 1,
        "page_size": 100,
        "has_more": False,
    }


def test_a_key_link_whose_names_are_gone_is_shown_without_them(five: Crm) -> None:
    five.stack.revio.account.systems = {4: "SALESFORCE"}
    answer = five.get("/key-links/79")
    assert (answer.status_code, answer.json()["system"], answer.json()["entity_type"]) == (200, None, "CUSTOMER")


@pytest.mark.parametrize("has_more", ["more", "several_pages"])
def test_pages_show_every_key_link_once(five: Crm, has_more: Literal["more", "several_pages"]) -> None:
    five.stack.revio.has_more = has_more
    for page_size, largest_page in ((1, 500), (2, 500), (5, 500), (500, 500), (100, 2)):
        five.stack.revio.largest_page = largest_page
        ids, page, more = [], 0, True
        while more:
            page += 1
            assert page < 10
            answer = five.get(f"/key-links?page={page}&page_size={page_size}").json()
            assert (answer["page"], answer["page_size"]) == (page, page_size)
            ids += [one["id"] for one in answer["key_links"]]
            more = answer["has_more"]
        assert ids == [77, 78, 79, 80, 81], (page_size, largest_page)


def test_a_bad_parameter_is_422_and_named(crm: Crm) -> None:
    for query, field in (
        ("page=0", "page"),
        ("page=-1", "page"),
        ("page=x", "page"),
        ("page=1000001", "page"),
        ("page_size=0", "page_size"),
        ("page_size=501", "page_size"),
        ("colour=red", "colour"),
        ("search.external_id=A", "search.external_id"),
        ("internal_id=abc", "internal_id"),
        ("internal_id=0", "internal_id"),
        ("internal_id=1.5", "internal_id"),
        ("external_id=", "external_id"),
        (f"external_id={'x' * 201}", "external_id"),
        (f"system={'x' * 101}", "system"),
        (f"entity_type={quote('é' * 51)}", "entity_type"),
    ):
        answer = crm.get(f"/key-links?{query}")
        assert answer.status_code == 422, query
        assert set(wrong_fields(answer)) == {field}
    assert crm.stack.revio.seen == []


def test_is_404_when_there_is_no_such_key_link(linked_up: Crm) -> None:
    for key_link_id in ("78", str(10**17), "0", "-1", "077", "abc", "1.5", "\uff17\uff17", "9" * 40):
        for answer in (linked_up.get(f"/key-links/{key_link_id}"), put(linked_up, key_link_id)):
            assert (answer.status_code, answer.json()["retryable"]) == (404, False), key_link_id
        if key_link_id not in ("78", str(10**17)):
            assert delete(linked_up, key_link_id).status_code == 404, key_link_id
    assert [record["external_id"] for record in linked_up.stack.revio.key_links] == [EXTERNAL]
    assert link_up(linked_up).json()["id"] == 77
    assert_tied(linked_up, 77)
    assert states(linked_up) == {"succeeded": 1, "rejected": 2}  # those two ids could have been there


def test_shows_the_names_that_revio_has(crm: Crm) -> None:
    crm.stack.revio.largest_page = 5
    systems = crm.get("/key-links/systems")
    assert (systems.status_code, systems.json()) == (
        200,
        {
            "systems": [
                {"id": 4, "name": "SALESFORCE"},
                {"id": 7, "name": "QUICKBOOKS"},
                {"id": 9, "name": "HUBSPOT"},
            ]
        },
    )
    entity_types = crm.get("/key-links/entity-types").json()["entity_types"]
    assert {"id": 2, "name": "CUSTOMER"} in entity_types
    assert sorted(one["name"] for one in entity_types) == sorted(name.upper() for name in ENTITY_TYPES)


def test_another_tenants_key_links_are_not_shown(linked_up: Crm, other_tenant: Crm) -> None:
    assert link_up(other_tenant).json()["id"] == 500
    assert (found(linked_up, ""), found(other_tenant, "")) == ([77], [500])
    assert linked_up.get("/key-links/500").status_code == 404
    assert_tied(linked_up, 77)
    assert_tied(other_tenant, 500)


# ---------------------------------------------------------------- credentials


def test_waits_and_succeeds_with_the_right_secret_when_revio_refuses_the_login(crm: Crm) -> None:
    crm.stack.revio.account.password = "changed"
    accepted = link_up(crm)
    assert (accepted.status_code, accepted.json()["state"]) == (202, "waiting")
    assert crm.get("/key-links/77").status_code == 503
    crm.stack.put_secret("demo", crm.stack.demo_tenant())
    assert crm.settle(accepted)["state"] == "succeeded"
    assert_tied(crm, 77)


def test_uses_a_new_secret_at_once_when_revio_refuses_the_old_one(linked_up: Crm) -> None:
    linked_up.stack.revio.account.password = "changed"
    linked_up.stack.put_secret("demo", linked_up.stack.demo_tenant())
    assert link_up(linked_up, **OTHER).status_code == 201


def test_waits_when_revio_refuses_the_login_once(crm: Crm) -> None:
    crm.stack.revio.fail(Kind.BAD_KEY)
    accepted = link_up(crm)
    assert (accepted.status_code, accepted.json()["state"]) == (202, "waiting")
    assert crm.settle(accepted)["state"] == "succeeded"


def test_is_503_when_the_tenant_has_no_account_at_revio(linked_up: Crm) -> None:
    sent = len(linked_up.stack.revio.seen)
    linked_up.stack.put_secret("demo", "{}")
    runtime().engine.tenants.get("demo", "key_link", fresh=True)
    paths = ("/key-links", "/key-links/77", "/key-links/systems", "/key-links/entity-types")
    answers = [link_up(linked_up, **OTHER), *map(linked_up.get, paths)]
    assert link_up(linked_up).status_code == 200  # what is known is returned all the same
    answers += [put(linked_up, 77), delete(linked_up, 77)]
    assert [answer.status_code for answer in answers] == [503] * 7
    assert all("revio block" in answer.json()["detail"] and answer.json()["retryable"] for answer in answers)
    assert len(linked_up.stack.revio.seen) == sent
    change_tenant(linked_up.stack)
    assert link_up(linked_up).json()["id"] == 77
    assert_tied(linked_up, 77)


@pytest.mark.parametrize("how", ["not JSON", "deleted", "no answer"])
def test_is_503_even_for_what_is_known_when_the_tenants_secret_cannot_be_read(linked_up: Crm, how: str) -> None:
    failing = pytest.MonkeyPatch()
    sent, tenants = len(linked_up.stack.revio.seen), runtime().engine.tenants
    if how == "not JSON":
        linked_up.stack.put_secret("demo", "{")
    elif how == "deleted":
        boto3.client("secretsmanager").delete_secret(
            SecretId=os.environ["SECRET_PREFIX"] + "revio/demo", ForceDeleteWithoutRecovery=True
        )
    else:

        def fail(*_: object, **__: object) -> None:
            raise EndpointConnectionError(endpoint_url="https://secretsmanager")

        failing.setattr(tenants._secrets.client, "get_secret_value", fail)
    tenants._secrets.store.clear()
    for answer in (
        link_up(linked_up),
        link_up(linked_up, **OTHER),
        put(linked_up, 77),
        delete(linked_up, 77),
        linked_up.get("/key-links/77"),
    ):
        assert (answer.status_code, answer.json()["retryable"]) == (503, True)
    failing.undo()
    linked_up.stack.put_secret("demo", linked_up.stack.demo_tenant())
    tenants._secrets.store.clear()
    assert len(linked_up.stack.revio.seen) == sent
    assert states(linked_up) == {"succeeded": 1}
    assert link_up(linked_up).json()["id"] == 77
    assert_tied(linked_up, 77)


def _stored() -> str:
    client = boto3.client("dynamodb")
    return json.dumps([client.scan(TableName=table) for table in client.list_tables()["TableNames"]], default=str)


@pytest.mark.usefixtures("turns_by_the_stack")
@pytest.mark.parametrize(
    ("status", "shape"),
    [
        *((status, "message") for status in (200, 400, 401, 403, 404, 409, 429, 500, 503)),
        *((status, shape) for status in (200, 400, 401, 500) for shape in ("errors", "text")),
        (400, "error"),
    ],
)
def test_secrets_are_never_shown_or_stored_when_revio_repeats_them(
    crm: Crm, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], status: int, shape: str
) -> None:
    account = crm.stack.revio.account
    account.password, account.subscription_key = 'pass"wörd/1', "subscription-1"
    change_tenant(crm.stack, subscription_key=account.subscription_key)
    assert link_up(crm).status_code == 201
    login = base64.b64encode(f"bridge@acme:{account.password}".encode()).decode()
    secrets = (account.password, login, account.subscription_key)

    def repeat(request: Request) -> Response:
        key = request.headers["Ocp-Apim-Subscription-Key"]
        text = f"no: {request.headers['Authorization']} is bridge@acme:{account.password} with {key}"
        body = text if shape == "text" else json.dumps({"ok": False, shape: [text] if shape == "errors" else text})
        return Response(body, status, mimetype="text/plain" if shape == "text" else "application/json")

    monkeypatch.setattr(crm.stack.revio, "respond", repeat)
    answers = [
        link_up(crm, **OTHER),
        put(crm, 77, {**KEY_LINK, "internal_id": 3000}),
        delete(crm, 77),
        crm.get("/key-links/77"),
        crm.get("/key-links?internal_id=1015"),
    ]
    crm.stack.deliver_due(after=90)
    answers += [crm.get("/operations"), crm.get("/key-links/systems")]
    answers += [crm.get(f"/operations/{one['operation_id']}") for one in answers[-2].json()["operations"]]
    shown = "".join(answer.text + str(answer.headers) for answer in answers) + _stored() + "".join(capfd.readouterr())
    assert len(answers) > 8
    for secret in secrets:
        assert secret not in shown
        assert json.dumps(secret)[1:-1] not in shown
        assert json.dumps(secret, ensure_ascii=False)[1:-1] not in shown

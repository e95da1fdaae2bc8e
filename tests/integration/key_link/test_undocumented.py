"""Behaviour that Rev.io does not document, and that settings describe."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.wrappers import Request, Response

from tests.integration.conftest import Crm
from tests.integration.key_link.conftest import (
    EXTERNAL,
    KEY_LINK,
    NO_RECORD,
    OTHER,
    assert_tied,
    assert_untied,
    change_tenant,
    delete,
    external,
    forget_names,
    found,
    internal,
    link_up,
    put,
    states,
)

# ---------------------------------------------------------------- what is not documented


SWITCHES: list[dict[str, Any]] = [
    {"match": "contains"},
    {"key_field": "key_link_id"},
    {"key_field": "id"},
    {"key_field": None},
    {"key_field": None, "empty_answers": True, "numbers_as_text": True},
    {"has_more": "several_pages", "largest_page": 1},
    {"numbers_as_text": True},
    *({"error_shape": shape} for shape in ("message", "error", "errors", "error_message", "text", "empty")),
    *({"error_shape": shape, "errors_with_200": True} for shape in ("message", "errors", "text", "empty")),
    {"no_such_record": 404},
    {"no_such_record": 404, "error_shape": "empty"},
    {"refuses_duplicates": True},
    {"empty_answers": True},
    {"refuses_unknown_search": True},
    {"refuses_unknown_search": True, "errors_with_200": True, "error_shape": "empty"},
]


def assert_whole_life(crm: Crm) -> None:
    """Made, found, changed and deleted; and what is left of it too."""
    account = crm.stack.revio.account
    first = account.next_id
    made = link_up(crm)
    assert (made.status_code, made.json()["id"]) == (201, first)
    assert link_up(crm).status_code == 200
    account.add_key_link(4, 2, 3000, "somebody else's")
    assert found(crm, f"external_id={EXTERNAL}") == [first]
    assert found(crm, "internal_id=1015") == [first]
    assert found(crm, f"internal_id=1015&external_id={EXTERNAL}&system=SALESFORCE") == [first]
    assert crm.get(f"/key-links/{first}").json().items() >= {**KEY_LINK, "id": first}.items()
    changed = put(crm, first)
    assert (changed.status_code, changed.json()["id"]) == (200, first)
    assert crm.get(f"/key-links/{first}").json().items() >= {**OTHER, "id": first}.items()
    assert_tied(crm, first, OTHER)
    assert delete(crm, first).status_code == 204
    assert [record["external_id"] for record in crm.stack.revio.key_links] == ["somebody else's"]
    assert crm.get(f"/key-links/{first}").status_code == 404
    assert link_up(crm).json()["id"] == first + 2
    assert delete(crm, first + 2).status_code == 204
    account.key_links.clear()


def switched(crm: Crm) -> Iterator[dict[str, Any]]:
    """Rev.io after each of the switches, with names that are to be read again."""
    revio = crm.stack.revio
    for switches in SWITCHES:
        before = {switch: getattr(revio, switch) for switch in switches}
        for switch, value in switches.items():
            setattr(revio, switch, value)
        forget_names()
        crm.stack.move_clock(61)  # Rev.io counts calls by the minute, and so do we
        yield switches
        for switch, value in before.items():
            setattr(revio, switch, value)


@pytest.mark.usefixtures("paced_by_the_stack")
def test_works_however_revio_reads_its_own_pages(crm: Crm) -> None:
    for switches in switched(crm):
        try:
            assert_whole_life(crm)
        except AssertionError:
            print(switches)  # noqa: T201 - which of them it was
            raise


@pytest.mark.usefixtures("paced_by_the_stack")
@pytest.mark.parametrize("call", ["POST", "PUT"])
def test_is_refused_in_revios_words_when_the_internal_record_does_not_exist(linked_up: Crm, call: str) -> None:
    key_links = linked_up.stack.revio.key_links
    for number, switches in enumerate(switched(linked_up)):
        before = [dict(record) for record in key_links]
        body = {**OTHER, "internal_id": 5, "external_id": f"001-{number}"}
        answer = link_up(linked_up, **body) if call == "POST" else put(linked_up, 77, body)
        assert answer.status_code == 422, switches
        shape = switches.get("error_shape")
        silent = shape == "empty" or (shape == "text" and "errors_with_200" in switches)
        assert (NO_RECORD in answer.json()["detail"]) is not silent, switches
        assert "Rev.io answered" in answer.json()["detail"]
        assert answer.json()["retryable"] is False
        assert key_links == before
        corrected = {**body, "internal_id": 2044}
        assert (link_up(linked_up, **corrected) if call == "POST" else put(linked_up, 77, corrected)).ok, switches
    assert states(linked_up)["rejected"] >= len(SWITCHES)


def test_ok_false_is_a_refusal_whatever_the_status_is(linked_up: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    revio = linked_up.stack.revio
    done = revio.respond
    for status in (200, 201):

        def refuse(request: Request, status: int = status) -> Response:
            if request.method == "GET":
                return done(request)
            return Response(json.dumps({"ok": False, "message": "Not today"}), status, mimetype="application/json")

        monkeypatch.setattr(revio, "respond", refuse)
        for answer in (link_up(linked_up, **OTHER), put(linked_up, 77), delete(linked_up, 77)):
            assert (answer.status_code, answer.json()["retryable"]) == (422, False)
            assert f"Rev.io answered {status}, ok: false: Not today" in answer.json()["detail"]
            assert linked_up.get(f"/operations/{answer.json()['operation_id']}").json()["state"] == "rejected"
        assert_tied(linked_up, 77)
        assert link_up(linked_up).json()["id"] == 77
    monkeypatch.setattr(revio, "respond", done)
    assert link_up(linked_up, **OTHER).status_code == 201


def test_asks_for_the_plural_when_the_tenant_says_so(crm: Crm) -> None:
    change_tenant(crm.stack, plural_paths=True)
    assert_whole_life(crm)
    assert {seen.path.split("/")[2] for seen in crm.stack.revio.seen} == {
        "IntegrationSystems",
        "IntegrationEntityTypes",
        "IntegrationKeyLinks",
    }


@pytest.mark.parametrize("wrong", ["base_url", "plural_paths"])
def test_is_not_believed_to_be_gone_when_only_the_address_is_wrong(
    linked_up: Crm, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    revio = linked_up.stack.revio
    if wrong == "base_url":
        change_tenant(linked_up.stack, base_url=f"{revio.url}/v2")
    else:
        done = revio.respond

        def singular(request: Request) -> Response:
            return Response("{}", 404) if "IntegrationKeyLinks" in request.path else done(request)

        monkeypatch.setattr(revio, "respond", singular)
        change_tenant(linked_up.stack, plural_paths=True)
    shown = linked_up.get("/key-links/77")
    assert (shown.status_code, shown.json()["retryable"]) == (503, True)
    assert "plural_paths" in shown.json()["detail"]
    assert linked_up.get("/key-links").status_code == 503
    deleted, changed, made = delete(linked_up, 77), put(linked_up, 77), link_up(linked_up, **OTHER)
    for answer in (deleted, changed, made):
        assert (answer.status_code, answer.json()["state"]) == (202, "waiting")
        reason = "it waits for a change" if answer is made else "base_url"
        assert reason in answer.json()["reason"]
    assert_tied(linked_up, 77)
    linked_up.stack.deliver_due(after=60)
    assert_tied(linked_up, 77)
    change_tenant(linked_up.stack)
    settled = [linked_up.settle(answer)["state"] for answer in (deleted, changed, made)]
    assert settled[2] == "succeeded"
    assert sorted(settled[:2]) == ["rejected", "succeeded"]  # whichever was sent first
    assert [record["external_id"] for record in revio.key_links] == [OTHER["external_id"]]
    returned = link_up(linked_up, **OTHER).json()["id"]
    assert returned == revio.key_links[0]["integration_key_link_id"]
    assert_tied(linked_up, returned, OTHER)
    assert_untied(linked_up, external(), internal())


def test_sends_the_subscription_key_when_the_tenant_has_one(crm: Crm) -> None:
    crm.stack.revio.account.subscription_key = "subscription-1"
    refused = link_up(crm)
    assert refused.status_code == 202
    change_tenant(crm.stack, subscription_key="subscription-1")
    assert crm.settle(refused)["state"] == "succeeded"
    assert delete(crm, 77).status_code == 204

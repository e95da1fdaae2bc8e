"""Changes of one thing that meet: a newer one whose function was killed, a new request for what is being changed.

Nothing here waits or hopes for an order: what comes in between is sent from within the call of the other.
"""

from collections.abc import Callable
from typing import Any

import pytest
import requests

from crm_bridge.outbound.queues import Message
from crm_bridge.runtime import runtime
from crm_bridge.vendors.egito import Egito
from crm_bridge.vendors.izzitup import IzzitUp
from crm_bridge.vendors.revio import Revio
from local.vendors.simulator import Kind
from tests.integration import izzitup_calls as statuses
from tests.integration.conftest import Crm
from tests.integration.connector import conftest as people
from tests.integration.key_link import conftest as key_links
from tests.integration.key_link.conftest import KEY_LINK, OTHER, delete, link_up, put

ASYNC = {"Prefer": "respond-async"}
LATER: dict[str, Any] = {**KEY_LINK, "internal_id": 3055, "external_id": "001-later"}
CHANGES: list[Callable[..., requests.Response]] = [
    lambda crm, **headers: put(crm, 77, OTHER, **headers),
    lambda crm, **headers: delete(crm, 77, **headers),
]
BY_KIND = pytest.mark.parametrize("change", CHANGES, ids=["changed", "deleted"])


class Killed(BaseException):
    """Ends a function where it stands."""


@pytest.fixture
def linked_up(crm: Crm) -> Crm:
    """A CRM whose customer has the key link 77."""
    assert link_up(crm).json()["id"] == 77
    return crm


def carry(crm: Crm, function: str, accepted: requests.Response) -> None:
    """Let one operation be sent now, and no other."""
    operation = runtime().operations.get(accepted.json()["operation_id"])
    assert operation
    message = Message(operation.operation_id, "demo", operation.lent_until or 0)
    crm.stack.invoke(f"{function}Function", {"Records": [{"messageId": "m-1", "body": message.body()}]})


def kill(
    crm: Crm, monkeypatch: pytest.MonkeyPatch, client: type, method: str, function: str, accepted: requests.Response
) -> None:
    """Let the function that carries this be killed right after the vendor has done it."""
    really_do = getattr(client, method)

    def killed(*arguments: object, **options: object) -> None:
        really_do(*arguments, **options)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(client, method, killed)
        with pytest.raises(Killed):
            carry(crm, function, accepted)
    crm.stack.move_clock(60)  # until its lease and its turn are over


def the_external_id(crm: Crm) -> object:
    (record,) = crm.stack.revio.key_links
    return record["external_id"]


def external_ids(crm: Crm) -> list[str]:
    return sorted(str(record["external_id"]) for record in crm.stack.revio.key_links)


def assert_key_link_id_what_is_there(crm: Crm, body: dict[str, Any]) -> None:
    answer = link_up(crm, **body)
    assert answer.status_code in (200, 201)
    ids = [one["integration_key_link_id"] for one in crm.stack.revio.key_links]
    assert answer.json()["id"] in ids
    key_links.assert_tied(crm, answer.json()["id"], body)


# ---------------------------------------------------------------- a key link that is about to go


@BY_KIND
def test_a_new_request_waits_when_its_key_link_is_to_be_changed(linked_up: Crm, change: Any) -> None:
    accepted = change(linked_up, **ASYNC)
    assert accepted.status_code == 202
    again = link_up(linked_up)
    assert (again.status_code, again.json()["state"]) == (202, "waiting")
    assert linked_up.settle(accepted)["state"] == "succeeded"
    made = linked_up.settle(again)
    assert (made["state"], made["result"]["id"]) == ("succeeded", 78)
    key_links.assert_tied(linked_up, 78)
    assert len(linked_up.stack.revio.key_links) == (2 if change is CHANGES[0] else 1)


@BY_KIND
def test_a_new_request_waits_when_the_answer_to_the_change_was_lost(linked_up: Crm, change: Any) -> None:
    linked_up.stack.revio.fail(Kind.CLOSE_AFTER, method="PUT" if change is CHANGES[0] else "DELETE")
    accepted = change(linked_up)
    assert accepted.status_code == 202
    again = link_up(linked_up)
    assert again.status_code == 202
    assert linked_up.settle(accepted)["state"] == "succeeded"
    assert linked_up.settle(again)["result"]["id"] == 78
    key_links.assert_tied(linked_up, 78)


@BY_KIND
def test_a_new_request_waits_when_what_it_finds_is_to_be_changed(crm: Crm, change: Any) -> None:
    """Somebody else made the key link at Rev.io, so no event of ours has it."""
    crm.stack.revio.account.add_key_link(4, 2, 1015, key_links.EXTERNAL)
    accepted = change(crm, **ASYNC)
    again = link_up(crm)
    assert (again.status_code, again.json()["state"]) == (202, "waiting")
    assert crm.settle(accepted)["state"] == "succeeded"
    assert crm.settle(again)["result"]["id"] == 78
    key_links.assert_tied(crm, 78)


def test_there_is_one_key_link_when_the_new_pair_is_sent_while_another_becomes_it(
    linked_up: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_change = Revio.change_key_link
    meanwhile: list[requests.Response] = []

    def overtaken(client: Revio, *arguments: Any) -> None:
        meanwhile.append(link_up(linked_up, **OTHER))
        really_change(client, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Revio, "change_key_link", overtaken)
        changed = put(linked_up, 77)
    assert changed.status_code == 200
    assert meanwhile[0].status_code in (202, 409)
    assert external_ids(linked_up) == [OTHER["external_id"]]
    assert link_up(linked_up, **OTHER).json()["id"] == 77
    key_links.assert_tied(linked_up, 77, OTHER)


# ---------------------------------------------------------------- an older one after a newer one


@pytest.mark.parametrize("newer", ["change", "deletion"])
def test_an_older_change_does_not_land_when_the_newers_function_was_killed(
    linked_up: Crm, monkeypatch: pytest.MonkeyPatch, newer: str
) -> None:
    earlier = put(linked_up, 77, OTHER, **ASYNC)
    if newer == "change":
        later = put(linked_up, 77, LATER, **ASYNC)
        kill(linked_up, monkeypatch, Revio, "change_key_link", "KeyLink", later)
        assert the_external_id(linked_up) == LATER["external_id"]
    else:
        later = delete(linked_up, 77, **ASYNC)
        kill(linked_up, monkeypatch, Revio, "delete_key_link", "KeyLink", later)
        assert external_ids(linked_up) == []
    carry(linked_up, "KeyLink", earlier)
    if newer == "change":
        assert the_external_id(linked_up) == LATER["external_id"]
    assert linked_up.get(earlier.headers["Location"]).json()["state"] in ("waiting", "unconfirmed")
    assert linked_up.settle(later)["state"] == "succeeded"
    settled = linked_up.settle(earlier)
    assert settled["state"] == "rejected"
    assert "by a later request" in settled["attempts"][-1]["reason"]
    assert external_ids(linked_up) == ([LATER["external_id"]] if newer == "change" else [])
    for body in (KEY_LINK, OTHER, LATER):
        assert_key_link_id_what_is_there(linked_up, body)


def test_an_older_status_does_not_land_when_the_newers_function_was_killed(
    crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = statuses.set_status(crm, status="impaired", minute=2, **ASYNC)
    kill(crm, monkeypatch, IzzitUp, "set_status", "StatusUpdate", newer)
    older = statuses.set_status(crm, minute=1)
    assert crm.stack.izzitup.status_of("2") == "6"
    assert (older.status_code, older.json()["state"]) == (202, "waiting")
    assert crm.settle(newer)["state"] == "succeeded"
    assert crm.settle(older)["result"]["ignored"] == "older"
    assert crm.stack.izzitup.status_of("2") == "6"


def test_another_services_status_lands_when_the_function_of_the_newer_was_killed(
    crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = statuses.set_status(crm, status="impaired", minute=2, **ASYNC)
    kill(crm, monkeypatch, IzzitUp, "set_status", "StatusUpdate", newer)
    assert statuses.set_status(crm, "WEB", minute=1).status_code == 200
    assert statuses.set_status(crm, status="operational", minute=3).status_code == 200  # what is newer need not wait
    assert crm.settle(newer)["result"]["ignored"] == "older"
    assert [crm.stack.izzitup.status_of(number) for number in "12"] == ["7", "5"]


def test_an_older_save_does_not_land_when_the_newers_function_was_killed(
    crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    egito = crm.stack.egito
    record_id = people.saved(crm)
    egito.fail(Kind.UNAVAILABLE, method="GET")
    older = people.save(crm, record_id, city="Kraków", company="Acme")
    egito.fail(Kind.UNAVAILABLE, method="GET")
    newer = people.save(crm, record_id, city="Gdańsk")
    assert (older.status_code, newer.status_code) == (202, 202)
    crm.stack.move_clock(60)
    kill(crm, monkeypatch, Egito, "update", "ConnectorReceiver", newer)
    assert people.the_record(egito)["city"] == "Gdańsk"
    carry(crm, "ConnectorReceiver", older)
    assert people.the_record(egito)["city"] == "Gdańsk"
    assert [crm.settle(answer)["state"] for answer in (newer, older)] == ["succeeded"] * 2
    assert (people.the_record(egito)["city"], people.the_record(egito)["company"]) == ("Gdańsk", "Acme")


def test_an_older_name_of_a_lead_source_does_not_land_when_the_newers_function_was_killed(
    crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    egito = crm.stack.egito
    answers = []
    for name in ("Older", "Newer"):
        egito.fail(Kind.UNAVAILABLE, method="POST")
        answers.append(people.change_lead_source(crm, "1", name))
    older, newer = answers
    assert (older.status_code, newer.status_code) == (202, 202)
    crm.stack.move_clock(60)
    kill(crm, monkeypatch, Egito, "update_entry", "ConnectorReceiver", newer)
    carry(crm, "ConnectorReceiver", older)
    assert [entry["name"] for entry in egito.dictionaries["leadSource"] if str(entry["id"]) == "1"] == ["Newer"]
    assert [crm.settle(answer)["state"] for answer in (newer, older)] == ["succeeded"] * 2
    assert [entry["name"] for entry in egito.dictionaries["leadSource"] if str(entry["id"]) == "1"] == ["Newer"]


# ---------------------------------------------------------------- refused after a doubt


def test_a_person_is_asked_when_a_status_is_refused_after_its_answer_was_lost(crm: Crm) -> None:
    page = crm.stack.izzitup
    crm.get("/services")
    page.fail(Kind.CLOSE_AFTER)
    newer = statuses.set_status(crm, status="impaired", minute=2)
    assert newer.status_code == 202
    crm.stack.move_clock(60)
    older = statuses.set_status(crm, minute=1)
    assert older.json()["ignored"] == "older"  # so what became of the newer one must not be dropped without a word
    page.services.clear()
    settled = crm.settle(newer)
    assert (settled["state"], settled["attempts"][-1]["event"]) == ("needs_review", "in doubt")


def test_a_person_is_asked_when_a_change_is_refused_after_its_answer_was_lost(linked_up: Crm) -> None:
    linked_up.stack.revio.fail(Kind.CLOSE_BEFORE, method="PUT")
    accepted = put(linked_up, 77)
    before = linked_up.stack.revio.key_links.pop()
    settled = linked_up.settle(accepted)
    assert (settled["state"], settled["attempts"][-1]["vendor_status"]) == ("needs_review", 404)
    linked_up.stack.revio.key_links.append(before)


def test_a_person_is_asked_when_a_save_is_refused_after_its_answer_was_lost(crm: Crm) -> None:
    egito = crm.stack.egito
    record_id = people.saved(crm)
    egito.fail(Kind.CLOSE_AFTER)
    accepted = people.save(crm, record_id, city="Gdańsk")
    assert accepted.status_code == 202
    egito.records["Contact"].clear()
    assert crm.settle(accepted)["state"] == "needs_review"


def test_a_person_is_asked_when_a_lead_sources_name_is_refused_after_its_answer_was_lost(crm: Crm) -> None:
    egito = crm.stack.egito
    egito.fail(Kind.CLOSE_AFTER)
    accepted = people.change_lead_source(crm, "1", "Newer")
    assert accepted.status_code == 202
    egito.dictionaries["leadSource"].clear()
    assert crm.settle(accepted)["state"] == "needs_review"


def test_a_refusal_is_final_when_nothing_was_in_doubt(crm: Crm) -> None:
    page = crm.stack.izzitup
    crm.get("/services")
    page.fail(Kind.TOO_MANY, seconds=1)
    accepted = statuses.set_status(crm)
    page.services.clear()
    assert crm.settle(accepted)["state"] == "rejected"

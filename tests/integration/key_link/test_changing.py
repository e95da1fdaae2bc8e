"""Key links are changed, by the bridge or at Rev.io directly, and the links follow."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Event
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import requests

from crm_bridge.vendors.revio import Revio, RevioKeyLink
from local.vendors.simulator import Kind
from tests.integration.conftest import Crm
from tests.integration.key_link.conftest import (
    EXTERNAL,
    KEY_LINK,
    KINDS,
    LOST,
    NO_RECORD,
    OTHER,
    assert_tied,
    assert_untied,
    change_tenant,
    delete,
    external,
    internal,
    key_link,
    link_up,
    linked,
    put,
    states,
)

# ---------------------------------------------------------------- changed


def test_is_changed_at_revio_and_keeps_what_is_not_ours(linked_up: Crm) -> None:
    before = dict(linked_up.stack.revio.key_links[0])
    answer = put(linked_up, 77)
    assert answer.status_code == 200
    assert answer.json().items() >= {**OTHER, "id": 77}.items()
    (after,) = linked_up.stack.revio.key_links
    assert after == {**before, "internal_id": 2044, "external_id": OTHER["external_id"]}
    assert {after["created_by"], after["created_date"]} == {"bridge", before["created_date"]}


def test_links_follow_a_change(crm: Crm) -> None:
    changed: list[dict[str, object]] = [
        {},
        {"external_id": "001-new"},
        {"internal_id": 2044},
        {"system": "HUBSPOT"},
        {"entity_type": "AGENT"},
        OTHER,
        {"system": "hubspot", "entity_type": "agent", "internal_id": 2044, "external_id": "001-new"},
    ]
    for number, changes in enumerate(changed):
        key_link_id, body = 77 + number, {**KEY_LINK, **changes}
        assert link_up(crm).json()["id"] == key_link_id
        assert put(crm, key_link_id, body).status_code == 200
        assert_tied(crm, key_link_id, body)
        assert_untied(crm, *({external(), internal()} - {external(body), internal(body)}))
        assert crm.get(f"/key-links/{key_link_id}").json()["external_id"] == body["external_id"]
        assert link_up(crm, **body).json()["id"] == key_link_id
        assert len(crm.stack.revio.key_links) == 1
        assert delete(crm, key_link_id).status_code == 204
        assert_untied(crm, external(body), internal(body), key_link(key_link_id))


def test_both_pairs_are_known_after_a_change(linked_up: Crm) -> None:
    put(linked_up, 77)
    new = link_up(linked_up, **OTHER)
    assert (new.status_code, new.json()["id"], new.json().get("warnings")) == (200, 77, None)
    old = link_up(linked_up)
    assert (old.status_code, old.json()["id"]) == (201, 78)
    assert_tied(linked_up, 77, OTHER)
    assert_tied(linked_up, 78)


def test_changing_it_twice_is_changing_it_once(linked_up: Crm) -> None:
    first, again = put(linked_up, 77), put(linked_up, 77)
    assert (first.status_code, again.status_code) == (200, 200)
    bodies = [first.json(), again.json()]
    ids = {body.pop("operation_id") for body in bodies}
    assert len(ids) == 2  # each is a change of its own
    assert bodies[0] == bodies[1]
    assert_tied(linked_up, 77, OTHER)
    assert_untied(linked_up, external(), internal())


def test_may_be_changed_there_and_back(linked_up: Crm) -> None:
    for body in (OTHER, KEY_LINK, OTHER, KEY_LINK):
        assert put(linked_up, 77, body).status_code == 200
        assert_tied(linked_up, 77, body)
    assert_untied(linked_up, external(OTHER), internal(OTHER))
    assert len(linked_up.stack.revio.key_links) == 1


def test_may_be_changed_when_it_was_made_at_revio(crm: Crm) -> None:
    crm.stack.revio.account.add_key_link(4, 2, 1015, EXTERNAL)
    assert put(crm, 77).status_code == 200
    assert_tied(crm, 77, OTHER)


@pytest.mark.parametrize("made", ["by us", "at Rev.io"])
def test_is_409_when_another_key_link_says_this_already(linked_up: Crm, made: str) -> None:
    if made == "by us":
        assert link_up(linked_up, **OTHER).json()["id"] == 78
    else:
        linked_up.stack.revio.account.add_key_link(4, 2, OTHER["internal_id"], OTHER["external_id"])
    answer = put(linked_up, 77)
    assert answer.status_code == 409
    assert [record["external_id"] for record in linked_up.stack.revio.key_links] == [EXTERNAL, OTHER["external_id"]]
    assert (link_up(linked_up).json()["id"], link_up(linked_up, **OTHER).json()["id"]) == (77, 78)
    assert_tied(linked_up, 77)
    assert_tied(linked_up, 78, OTHER)
    assert delete(linked_up, 78).status_code == 204
    assert put(linked_up, 77).status_code == 200
    assert_tied(linked_up, 77, OTHER)


def test_is_409_when_another_key_link_that_revio_does_not_show_yet_says_this(linked_up: Crm) -> None:
    linked_up.stack.revio.search_lag = 20
    assert link_up(linked_up, **OTHER).json()["id"] == 78
    answer = put(linked_up, 77)
    assert [record["external_id"] for record in linked_up.stack.revio.key_links] == [EXTERNAL, OTHER["external_id"]]
    assert answer.status_code == 409
    assert_tied(linked_up, 77)
    assert_tied(linked_up, 78, OTHER)


@pytest.mark.parametrize("call", ["PUT", "DELETE"])
def test_one_that_is_changed_or_deleted_while_a_new_request_finds_it_is_not_its_answer_for_good(
    crm: Crm, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    crm.stack.revio.account.add_key_link(4, 2, 1015, EXTERNAL)
    read = Revio.key_link
    meanwhile: list[requests.Response] = []
    begun: list[int] = []

    def slow(client: Revio, key_link_id: int) -> RevioKeyLink:
        record = read(client, key_link_id)
        begun.append(key_link_id)
        if len(begun) == 1:
            meanwhile.append(put(crm, 77) if call == "PUT" else delete(crm, 77))
        return record

    monkeypatch.setattr(Revio, "key_link", slow)
    assert link_up(crm).json()["id"] == 77
    if meanwhile[0].status_code == 202:
        crm.settle(meanwhile[0])
    answer = link_up(crm)
    assert (answer.status_code, answer.json()["id"]) == (201, 78)
    assert_tied(crm, 78)
    assert linked(crm, key_link(77)) == ({external(OTHER), internal(OTHER)} if call == "PUT" else set())


@pytest.mark.parametrize("call", [put, delete])
def test_one_that_a_new_request_finds_in_the_moment_before_it_is_changed_is_not_its_answer(
    crm: Crm, monkeypatch: pytest.MonkeyPatch, call: Callable[[Crm, object], requests.Response]
) -> None:
    crm.stack.revio.account.add_key_link(4, 2, 1015, EXTERNAL)
    name = "change_key_link" if call is put else "delete_key_link"
    read, really_do = Revio.key_link, getattr(Revio, name)
    asked, found, may_go_on = Event(), Event(), Event()
    with ThreadPoolExecutor(1) as pool:

        def slow(client: Revio, key_link_id: int) -> RevioKeyLink:
            record = read(client, key_link_id)
            if asked.is_set():  # it is the new request that asks
                found.set()
                assert may_go_on.wait(10)
            return record

        def overtaken(client: Revio, *arguments: Any) -> None:
            asked.set()
            making.append(pool.submit(link_up, crm))
            assert found.wait(10)
            really_do(client, *arguments)

        making: list[Future[requests.Response]] = []
        with monkeypatch.context() as patch:
            patch.setattr(Revio, "key_link", slow)
            patch.setattr(Revio, name, overtaken)
            changed = call(crm, 77)
            may_go_on.set()
            made = making[0].result()
    assert changed.status_code == (200 if call is put else 204)
    assert (made.status_code, made.json()["state"]) == (202, "waiting")
    assert crm.settle(made)["result"]["id"] == 78
    answer = link_up(crm)
    assert (answer.status_code, answer.json()["id"]) == (200, 78)
    assert_tied(crm, 78)


def test_the_store_has_no_stale_answer_for_a_pair_that_another_key_link_got(linked_up: Crm) -> None:
    assert link_up(linked_up, **OTHER).json()["id"] == 78
    linked_up.stack.revio.key_links[1]["external_id"] = "changed at Rev.io"
    assert put(linked_up, 77).status_code == 200  # Rev.io has no other of this pair
    assert_tied(linked_up, 77, OTHER)
    assert_untied(linked_up, key_link(78), external(), internal())
    assert link_up(linked_up, **OTHER).json()["id"] == 77
    assert link_up(linked_up).json()["id"] == 79


@pytest.mark.parametrize("kind", [Kind.UNAVAILABLE, Kind.CLOSE_BEFORE, Kind.CLOSE_AFTER])
def test_a_new_key_link_that_is_on_its_way_comes_before_a_change_to_the_same_pair(linked_up: Crm, kind: Kind) -> None:
    linked_up.stack.revio.fail(kind, seconds=90)
    accepted = link_up(linked_up, **OTHER)
    assert accepted.status_code == 202
    changed = put(linked_up, 77)
    assert (changed.status_code, changed.json()["state"]) == (202, "waiting")
    made = linked_up.settle(accepted)
    assert (made["state"], made["result"]["id"]) == ("succeeded", 78)
    assert linked_up.settle(changed)["state"] == "rejected"
    assert len(linked_up.stack.revio.key_links) == 2
    assert_tied(linked_up, 77)
    assert_tied(linked_up, 78, OTHER)
    assert link_up(linked_up, **OTHER).json()["id"] == 78
    assert link_up(linked_up).json()["id"] == 77


@pytest.mark.parametrize("change", [put, delete])
def test_a_change_of_a_key_link_whose_event_is_in_doubt_waits_for_it(crm: Crm, change: Any) -> None:
    crm.stack.revio.fail(Kind.CLOSE_AFTER)
    accepted = link_up(crm)
    changed = change(crm, 77)
    assert (changed.status_code, changed.json()["state"]) == (202, "waiting")
    assert "found" in [attempt["event"] for attempt in crm.settle(accepted)["attempts"]]
    assert crm.settle(changed)["state"] == "succeeded"
    assert len(crm.stack.revio.key_links) == (1 if change is put else 0)


def test_a_waiting_change_is_not_sent_to_another_account(linked_up: Crm, other_tenant: Crm) -> None:
    link_up(other_tenant)
    linked_up.stack.revio.fail(Kind.UNAVAILABLE, method="DELETE")
    accepted = delete(linked_up, 77)
    assert accepted.status_code == 202
    change_tenant(linked_up.stack, client_code="other", password="other-password")
    assert linked_up.settle(accepted)["state"] == "needs_review"
    assert len(linked_up.stack.revio.accounts[1].key_links) == 1


def test_only_one_of_two_key_links_is_changed_to_a_pair_when_both_are_at_once(linked_up: Crm) -> None:
    assert link_up(linked_up, external_id="E-2").json()["id"] == 78
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda key_link_id: put(linked_up, key_link_id), (77, 78)))
    first, second = sorted(answers, key=lambda answer: answer.status_code)
    assert first.status_code == 200
    assert second.status_code in (202, 409)  # it waits, if it came while the other one was being changed
    if second.status_code == 202:
        assert linked_up.settle(second)["state"] == "rejected"
    same = [record for record in linked_up.stack.revio.key_links if record["external_id"] == OTHER["external_id"]]
    assert len(same) == 1


@pytest.mark.parametrize("kind", [Kind.UNAVAILABLE, Kind.CLOSE_BEFORE, Kind.CLOSE_AFTER])
def test_a_change_that_is_on_its_way_and_a_new_key_link_of_the_same_pair_end_in_one_each(
    linked_up: Crm, kind: Kind
) -> None:
    linked_up.stack.revio.fail(kind, seconds=90, method="PUT")
    accepted = put(linked_up, 77)
    assert accepted.status_code == 202
    made = link_up(linked_up, **OTHER)
    assert (made.status_code, made.json()["state"]) == (202, "waiting")
    assert linked_up.settle(accepted)["state"] == "succeeded"
    settled = linked_up.settle(made)
    assert (settled["state"], settled["result"]["id"], settled["attempts"][-1]["event"]) == ("succeeded", 77, "found")
    assert_tied(linked_up, 77, OTHER)
    assert link_up(linked_up, **OTHER).json()["id"] == 77
    assert link_up(linked_up).json()["id"] == 78
    assert_tied(linked_up, 78)
    assert len(linked_up.stack.revio.key_links) == 2


def test_a_change_that_meets_its_pair_being_made_right_now_waits(
    linked_up: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new key link is sent in the very moment between the change's search and its end."""
    monkeypatch.setattr("crm_bridge.outbound.transport.READ_TIMEOUT", 5)
    revio = linked_up.stack.revio
    revio.fail(Kind.DELAY, seconds=0.6)
    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(partial(link_up, linked_up, **OTHER))
        time.sleep(0.2)
        changed = put(linked_up, 77)
        made = making.result()
    assert (made.status_code, made.json()["id"]) == (201, 78)
    assert changed.status_code in (202, 409)  # if its turn comes late enough, it finds the new one
    if changed.status_code == 202:
        assert linked_up.settle(changed)["state"] == "rejected"
    same = [record for record in revio.key_links if record["external_id"] == OTHER["external_id"]]
    assert [record["integration_key_link_id"] for record in same] == [78]
    assert_tied(linked_up, 78, OTHER)


def test_another_tenants_key_link_cannot_be_changed_or_deleted(linked_up: Crm, other_tenant: Crm) -> None:
    assert link_up(other_tenant).json()["id"] == 500
    theirs = linked_up.stack.revio.accounts[1].key_links
    before = [dict(record) for record in theirs]
    assert put(linked_up, 500).status_code == 404
    assert delete(linked_up, 500).status_code == 204  # it is not there for this tenant
    assert theirs == before
    assert_tied(other_tenant, 500)
    assert link_up(other_tenant).json()["id"] == 500
    assert_tied(linked_up, 77)


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_is_changed_in_the_end_whatever_revio_does(crm: Crm, method: Literal["PUT", "GET"]) -> None:
    for number, kind in enumerate(KINDS):
        before = {**KEY_LINK, "internal_id": 1100 + number, "external_id": f"001-before-{number}"}
        after = {**KEY_LINK, "internal_id": 1200 + number, "external_id": f"001-after-{number}"}
        key_link_id = link_up(crm, **before).json()["id"]
        crm.stack.revio.fail(kind, seconds=90, method=method)
        answer = put(crm, key_link_id, after)
        if kind is Kind.WRONG_STATUS:  # 200 is right here
            assert answer.status_code == 200
        else:
            assert answer.status_code == 202, kind
            assert_tied(crm, key_link_id, before)  # nothing is withdrawn before Rev.io surely did it
            settled = crm.settle(answer)
            assert (settled["state"], settled["result"]["id"]) == ("succeeded", key_link_id), kind
        (record,) = [one for one in crm.stack.revio.key_links if one["integration_key_link_id"] == key_link_id]
        assert (record["internal_id"], record["external_id"]) == (after["internal_id"], after["external_id"])
        assert_tied(crm, key_link_id, after)
        assert_untied(crm, external(before), internal(before))
        assert link_up(crm, **after).json()["id"] == key_link_id
        again = link_up(crm, **before)
        assert again.status_code == 201, kind
        assert_tied(crm, again.json()["id"], before)
    assert states(crm).keys() <= {"succeeded", "rejected"}


def test_may_be_changed_later_when_the_caller_prefers_that(linked_up: Crm) -> None:
    accepted = put(linked_up, 77, OTHER, Prefer="respond-async")
    assert accepted.status_code == 202
    assert_tied(linked_up, 77)  # it still says so
    assert linked_up.settle(accepted)["state"] == "succeeded"
    assert_tied(linked_up, 77, OTHER)
    assert_untied(linked_up, external(), internal())
    assert link_up(linked_up).json()["id"] == 78


def test_nothing_changes_when_revio_refuses_the_change(linked_up: Crm) -> None:
    answer = put(linked_up, 77, {**KEY_LINK, "internal_id": 5})
    assert answer.status_code == 422
    assert NO_RECORD in answer.json()["detail"]
    assert_tied(linked_up, 77)
    assert_untied(linked_up, ("revio", "customer", "5"))
    again = link_up(linked_up)
    assert (again.status_code, again.json()["id"]) == (200, 77)
    assert_tied(linked_up, 77)
    assert len(linked_up.stack.revio.key_links) == 1
    operation = linked_up.get(f"/operations/{answer.json()['operation_id']}").json()
    assert (operation["state"], operation["flow"]) == ("rejected", "change_key_link")
    assert states(linked_up) == {"succeeded": 1, "rejected": 1}


@pytest.mark.usefixtures("turns_by_the_stack")
@pytest.mark.parametrize("kind", LOST)
def test_a_later_change_is_not_undone_by_an_earlier_one_that_settles_after_it(linked_up: Crm, kind: Kind) -> None:
    linked_up.stack.revio.fail(kind, seconds=90, method="PUT")
    earlier = put(linked_up, 77)
    assert earlier.status_code == 202
    latest = {**KEY_LINK, "external_id": "001-latest"}
    assert put(linked_up, 77, latest).status_code == 200
    settled = linked_up.settle(earlier)
    assert linked_up.stack.revio.key_links[0]["external_id"] == "001-latest"
    assert_tied(linked_up, 77, latest)
    assert_untied(linked_up, external(), external(OTHER), internal(OTHER))
    assert link_up(linked_up, **latest).json()["id"] == 77
    assert [link_up(linked_up).json()["id"], link_up(linked_up, **OTHER).json()["id"]] == [78, 79]
    assert "later request" in settled["attempts"][-1]["reason"]
    assert settled["state"] == "rejected"


@pytest.mark.usefixtures("turns_by_the_stack")
@pytest.mark.parametrize("kind", LOST)
def test_a_deleted_key_link_does_not_come_back_when_a_change_of_it_settles_later(linked_up: Crm, kind: Kind) -> None:
    linked_up.stack.revio.fail(kind, seconds=90, method="PUT")
    earlier = put(linked_up, 77)
    assert earlier.status_code == 202
    assert delete(linked_up, 77).status_code == 204
    settled = linked_up.settle(earlier)
    assert linked_up.stack.revio.key_links == []
    assert_untied(linked_up, external(), internal(), external(OTHER), internal(OTHER), key_link(77))
    assert [link_up(linked_up).json()["id"], link_up(linked_up, **OTHER).json()["id"]] == [78, 79]
    assert settled["state"] == "rejected"


def test_a_later_change_waits_for_its_turn_when_an_earlier_one_may_still_be_on_its_way(
    linked_up: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crm_bridge.sequence.time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setattr("crm_bridge.sequence.SHORTEST_CALL", 60)  # no time to wait at all
    linked_up.stack.revio.fail(Kind.CLOSE_BEFORE, method="PUT")
    earlier = put(linked_up, 77)
    latest = {**KEY_LINK, "external_id": "001-latest"}
    waiting = put(linked_up, 77, latest)
    assert (waiting.status_code, waiting.json()["state"]) == (202, "waiting")
    assert "other changes come first" in waiting.json()["reason"]
    linked_up.settle(earlier)
    assert linked_up.settle(waiting)["state"] == "succeeded"
    assert_tied(linked_up, 77, latest)
    assert linked_up.stack.revio.key_links[0]["external_id"] == "001-latest"


def test_a_change_that_is_refused_when_it_is_sent_again_is_rejected(linked_up: Crm) -> None:
    linked_up.stack.revio.fail(Kind.UNAVAILABLE, seconds=90, method="PUT")
    accepted = put(linked_up, 77)
    before = linked_up.stack.revio.key_links.pop()
    settled = linked_up.settle(accepted)
    assert_tied(linked_up, 77)
    linked_up.stack.revio.key_links.append(before)
    assert link_up(linked_up).json()["id"] == 77
    assert settled["attempts"][-1]["vendor_status"] == 404
    assert settled["state"] == "rejected"


def test_changes_that_were_only_accepted_count_in_their_order(linked_up: Crm) -> None:
    bodies = [{**KEY_LINK, "external_id": f"001-{number}"} for number in range(3)]
    accepted = [put(linked_up, 77, body, Prefer="respond-async") for body in bodies]
    assert [answer.status_code for answer in accepted] == [202, 202, 202]
    assert len({answer.json()["operation_id"] for answer in accepted}) == 3
    settled = [linked_up.settle(answer)["state"] for answer in accepted]
    assert settled[-1] == "succeeded"
    assert set(settled) <= {"succeeded", "rejected"}
    assert linked_up.stack.revio.key_links[0]["external_id"] == "001-2"
    assert_tied(linked_up, 77, bodies[2])
    assert_untied(linked_up, external(), *map(external, bodies[:2]))


def test_a_change_that_was_accepted_before_a_newer_one_was_done_is_rejected(linked_up: Crm) -> None:
    accepted = put(linked_up, 77, OTHER, Prefer="respond-async")
    latest = {**KEY_LINK, "external_id": "001-latest"}
    assert put(linked_up, 77, latest).status_code == 200
    settled = linked_up.settle(accepted)
    assert (settled["state"], settled["attempts"][-1]["event"]) == ("rejected", "refused")
    assert "changed or deleted by a later request" in settled["attempts"][-1]["reason"]
    assert_tied(linked_up, 77, latest)


def test_a_new_key_link_of_the_old_pair_is_made_when_the_lost_change_has_settled(linked_up: Crm) -> None:
    linked_up.stack.revio.fail(Kind.CLOSE_AFTER, method="PUT")
    accepted = put(linked_up, 77)
    again = link_up(linked_up)
    assert (again.status_code, len(linked_up.stack.revio.key_links)) == (202, 1)
    assert linked_up.settle(accepted)["state"] == "succeeded"
    assert_tied(linked_up, 77, OTHER)
    assert linked_up.settle(again)["state"] == "succeeded"
    assert (link_up(linked_up).status_code, len(linked_up.stack.revio.key_links)) == (200, 2)
    assert_tied(linked_up, 77, OTHER)
    assert_tied(linked_up, 78)


# ---------------------------------------------------------------- changed at Rev.io directly


@pytest.mark.parametrize("happened", ["changed", "deleted"])
def test_is_made_again_when_it_was_lost_at_revio_and_is_deleted_here(linked_up: Crm, happened: str) -> None:
    if happened == "changed":
        linked_up.stack.revio.key_links[0]["external_id"] = "changed at Rev.io"
    else:
        linked_up.stack.revio.key_links.clear()
    assert delete(linked_up, 77).status_code == 204
    answer = link_up(linked_up)
    assert (answer.status_code, answer.json()["id"]) == (201, 78)
    assert [record["external_id"] for record in linked_up.stack.revio.key_links] == [EXTERNAL]
    assert_tied(linked_up, 78)


def test_is_404_when_it_was_deleted_at_revio_and_is_changed_here(linked_up: Crm) -> None:
    linked_up.stack.revio.key_links.clear()
    answer = put(linked_up, 77)
    assert (answer.status_code, answer.json()["retryable"]) == (404, False)
    assert linked_up.get(f"/operations/{answer.json()['operation_id']}").json()["state"] == "rejected"
    assert_tied(linked_up, 77)  # a change that is refused leaves everything as it is
    assert link_up(linked_up).json()["id"] == 77
    assert delete(linked_up, 77).status_code == 204
    assert link_up(linked_up).json()["id"] == 78
    assert_tied(linked_up, 78)


def test_a_change_at_revio_is_undone_by_the_same_change_as_before(linked_up: Crm) -> None:
    put(linked_up, 77)
    linked_up.stack.revio.key_links[0]["external_id"] = "changed at Rev.io"
    assert put(linked_up, 77).status_code == 200
    assert linked_up.stack.revio.key_links[0]["external_id"] == OTHER["external_id"]

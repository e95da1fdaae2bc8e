"""Key links are deleted, and the links are gone."""

import pytest

from local.vendors.simulator import Kind
from tests.integration.conftest import Crm
from tests.integration.key_link.conftest import (
    EXTERNAL,
    KEY_LINK,
    KINDS,
    LOST,
    OTHER,
    assert_tied,
    assert_untied,
    delete,
    external,
    internal,
    key_link,
    link_up,
    linked,
    put,
    states,
)

# ---------------------------------------------------------------- deleted


def test_is_gone_at_revio_and_with_us_when_it_is_deleted(linked_up: Crm) -> None:
    link_up(linked_up, **OTHER)
    for _ in range(2):
        answer = delete(linked_up, 77)
        assert (answer.status_code, answer.content) == (204, b"")
    assert [record["integration_key_link_id"] for record in linked_up.stack.revio.key_links] == [78]
    assert_untied(linked_up, external(), internal(), key_link(77))
    assert_tied(linked_up, 78, OTHER)
    again = link_up(linked_up)
    assert (again.status_code, again.json()["id"]) == (201, 79)
    assert_tied(linked_up, 79)


def test_is_204_when_there_never_was_such_a_key_link(crm: Crm) -> None:
    answer = delete(crm, 4711)
    assert (answer.status_code, answer.content) == (204, b"")


def test_links_that_another_key_link_has_too_outlive_it(linked_up: Crm) -> None:
    link_up(linked_up, external_id="001-second")
    link_up(linked_up, internal_id=2044)
    delete(linked_up, 77)
    assert linked(linked_up, internal()) == {("salesforce", "customer", "001-second"), key_link(78)}
    assert linked(linked_up, external()) == {("revio", "customer", "2044"), key_link(79)}


def test_is_deleted_after_a_change_too(linked_up: Crm) -> None:
    put(linked_up, 77)
    assert delete(linked_up, 77).status_code == 204
    assert linked_up.stack.revio.key_links == []
    assert_untied(linked_up, external(), internal(), external(OTHER), internal(OTHER), key_link(77))
    assert [link_up(linked_up).status_code, link_up(linked_up, **OTHER).status_code] == [201, 201]


def test_is_deleted_in_the_end_whatever_revio_does(crm: Crm) -> None:
    for number, kind in enumerate(KINDS):
        body = {**KEY_LINK, "internal_id": 1100 + number, "external_id": f"001-{number}"}
        key_link_id = link_up(crm, **body).json()["id"]
        crm.stack.revio.fail(kind, seconds=90, method="DELETE")
        answer = delete(crm, key_link_id)
        if kind is Kind.WRONG_STATUS:  # 200 is right here
            assert (answer.status_code, answer.content) == (204, b"")
        else:
            assert answer.status_code == 202, kind
            assert_tied(crm, key_link_id, body)  # nothing is withdrawn before Rev.io surely did it
            settled = crm.settle(answer)
            assert (settled["state"], settled["result"]) == ("succeeded", {"id": key_link_id, "deleted": True}), kind
        assert [one for one in crm.stack.revio.key_links if one["integration_key_link_id"] == key_link_id] == []
        assert_untied(crm, external(body), internal(body), key_link(key_link_id))
        assert link_up(crm, **body).status_code == 201
    assert states(crm).keys() <= {"succeeded", "rejected"}


def test_nothing_is_lost_when_revio_is_down(linked_up: Crm) -> None:
    link_up(linked_up, **OTHER)
    linked_up.stack.revio.stop()
    deleted, changed = delete(linked_up, 77), put(linked_up, 78, {**OTHER, "internal_id": 3000})
    assert [answer.status_code for answer in (deleted, changed)] == [202, 202]
    assert deleted.json()["state"] in ("waiting", "unconfirmed")  # as the connection may have been open
    assert changed.json()["state"] == "waiting"
    linked_up.stack.revio.start()
    assert_tied(linked_up, 77)
    assert_tied(linked_up, 78, OTHER)
    assert [linked_up.settle(answer)["state"] for answer in (deleted, changed)] == ["succeeded"] * 2
    assert_untied(linked_up, external(), internal(), key_link(77))
    assert_tied(linked_up, 78, {**OTHER, "internal_id": 3000})
    assert link_up(linked_up).json()["id"] == 79


def test_may_be_deleted_later_when_the_caller_prefers_that(linked_up: Crm) -> None:
    accepted = delete(linked_up, 77, Prefer="respond-async")
    assert (accepted.status_code, accepted.json()["state"]) == (202, "waiting")
    assert_tied(linked_up, 77)
    assert linked_up.settle(accepted)["state"] == "succeeded"
    assert linked_up.stack.revio.key_links == []
    assert_untied(linked_up, external(), internal(), key_link(77))
    assert link_up(linked_up).json()["id"] == 78


def test_a_deletion_that_was_accepted_before_a_newer_change_was_done_is_rejected(linked_up: Crm) -> None:
    accepted = delete(linked_up, 77, Prefer="respond-async")
    assert put(linked_up, 77).status_code == 200
    assert linked_up.settle(accepted)["state"] == "rejected"
    assert_tied(linked_up, 77, OTHER)
    assert len(linked_up.stack.revio.key_links) == 1


@pytest.mark.usefixtures("turns_by_the_stack")
@pytest.mark.parametrize("kind", LOST)
def test_a_new_key_link_keeps_its_links_when_the_deletion_of_the_one_before_settles_later(
    linked_up: Crm, kind: Kind
) -> None:
    linked_up.stack.revio.fail(kind, seconds=90, method="DELETE")
    accepted = delete(linked_up, 77)
    assert accepted.status_code == 202
    assert delete(linked_up, 77).status_code == 204
    assert (link_up(linked_up).json()["id"], len(linked_up.stack.revio.key_links)) == (78, 1)
    settled = linked_up.settle(accepted)
    assert delete(linked_up, 77).status_code == 204
    assert_tied(linked_up, 78)
    again = link_up(linked_up)
    assert (again.status_code, again.json()["id"]) == (200, 78)
    assert len(linked_up.stack.revio.key_links) == 1
    assert settled["state"] == "rejected"


def test_a_new_key_link_keeps_its_links_when_a_lost_deletion_at_revio_settles(linked_up: Crm) -> None:
    """The pair's operation has the successor already, and the links of both are there."""
    linked_up.stack.revio.key_links.clear()
    linked_up.stack.revio.account.add_key_link(4, 2, 1015, EXTERNAL)
    assert put(linked_up, 78, KEY_LINK).status_code == 200
    assert_tied(linked_up, 78)
    assert_untied(linked_up, key_link(77))
    assert delete(linked_up, 77).status_code == 204
    assert_tied(linked_up, 78)
    assert link_up(linked_up).json()["id"] == 78

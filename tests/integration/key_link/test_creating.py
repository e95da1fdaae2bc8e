"""A key link is created once: by names, with bad input, and when Rev.io has it already."""

from typing import Any, Literal
from urllib.parse import quote

import pytest
from werkzeug.wrappers import Request, Response

from local.vendors.revio import RevioAccount
from local.vendors.simulator import Kind
from tests.integration.conftest import Crm, change_settings
from tests.integration.key_link.conftest import (
    ENTITY_TYPES,
    EXTERNAL,
    KEY_LINK,
    MEMBERS,
    OTHER,
    assert_tied,
    assert_untied,
    delete,
    external,
    found,
    internal,
    key_link,
    link_up,
    linked,
    names_requested,
    put,
    stale,
    states,
    wrong_fields,
)

# ---------------------------------------------------------------- done


def test_becomes_a_key_link_at_revio_when_it_is_new(crm: Crm) -> None:
    answer = link_up(crm)
    assert answer.status_code == 201
    body = answer.json()
    assert body.pop("operation_id").startswith("op_")
    assert body == {**KEY_LINK, **MEMBERS, "id": 77}
    (stored,) = crm.stack.revio.key_links
    assert stored.items() >= MEMBERS.items()


def test_names_may_have_any_case(crm: Crm) -> None:
    for number, (system, entity_type) in enumerate((("salesforce", "customer"), ("SalesForce", "cusTomer"))):
        body = {**KEY_LINK, "internal_id": 1015 + number, "external_id": f"001-{number}"}
        answer = link_up(crm, **{**body, "system": system, "entity_type": entity_type})
        assert answer.status_code == 201
        assert answer.json().items() >= body.items()  # as Rev.io writes them
        assert_tied(crm, 77 + number, body)


def test_is_answered_from_the_store_when_it_is_repeated(linked_up: Crm) -> None:
    first, sent = link_up(linked_up).json(), len(linked_up.stack.revio.seen)
    for changes in ({}, {"system": "salesforce"}, {"entity_type": "Customer"}):
        again = link_up(linked_up, **changes)
        assert (again.status_code, again.json()) == (200, first)
        assert "warnings" not in again.json()
    assert (len(linked_up.stack.revio.key_links), len(linked_up.stack.revio.seen)) == (1, sent)


def test_is_the_one_that_somebody_else_made_at_revio_when_there_is_one(crm: Crm) -> None:
    crm.stack.revio.account.add_key_link(4, 2, 1015, EXTERNAL)
    answer = link_up(crm)
    assert (answer.status_code, answer.json()["id"]) == (200, 77)
    assert answer.json().items() >= KEY_LINK.items()
    assert len(crm.stack.revio.key_links) == 1
    assert_tied(crm, 77)


def test_links_all_three_ids_in_all_directions(linked_up: Crm) -> None:
    assert_tied(linked_up, 77)
    assert linked(linked_up, ("SALESFORCE", "CUSTOMER", EXTERNAL)) == {("revio", "customer", "1015"), key_link(77)}


def test_one_record_may_have_several_external_ids_and_the_other_way_round(linked_up: Crm) -> None:
    second = link_up(linked_up, external_id="001-second")
    third = link_up(linked_up, internal_id=2044)
    fourth = link_up(linked_up, system="HUBSPOT")
    assert [answer.status_code for answer in (second, third, fourth)] == [201, 201, 201]
    assert linked(linked_up, internal()) >= {external(), ("salesforce", "customer", "001-second"), key_link(78)}
    assert linked(linked_up, external()) == {internal(), ("revio", "customer", "2044"), key_link(77), key_link(79)}
    assert linked(linked_up, ("hubspot", "customer", EXTERNAL)) == {internal(), key_link(80)}


def test_every_entity_type_can_be_linked(crm: Crm) -> None:
    for number, entity_type in enumerate(ENTITY_TYPES):
        assert link_up(crm, entity_type=entity_type).status_code == 201
        entity_type_id = crm.stack.revio.key_links[-1]["integration_entity_type_id"]
        assert isinstance(entity_type_id, int)
        assert crm.stack.revio.account.entity_types[entity_type_id] == entity_type.upper()
        assert_tied(crm, 77 + number, {**KEY_LINK, "entity_type": entity_type})
    assert len(crm.stack.revio.key_links) == 12


def test_asks_nothing_more_of_revio_once_it_was_made(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    revio = crm.stack.revio
    create = revio._create

    def created(request: Request, account: RevioAccount) -> Response:
        answer = create(request, account)
        crm.stack.move_clock(4000)  # the names are old by now, and what is asked from here on fails
        account.systems, account.entity_types = {}, {}
        return answer

    monkeypatch.setattr(revio, "_create", created)
    answer = link_up(crm)
    assert (answer.status_code, answer.json()["id"]) == (201, 77)
    assert answer.json().items() >= KEY_LINK.items()
    assert (revio.seen[-1].method, len(revio.key_links)) == ("POST", 1)
    assert_tied(crm, 77)


def test_the_tenants_mapping_makes_what_is_posted_and_what_is_put(crm: Crm) -> None:
    expression = "{system: sys, entity_type: 'CUSTOMER', internal_id: to_number(no), external_id: ref}"
    mappings = {"key_link": {"version": "kl-1", "expression": expression}}
    change_settings(crm.stack, mappings=mappings, at_once=True)
    made = crm.post("/key-links", {"sys": "SALESFORCE", "no": "1015", "ref": EXTERNAL})
    assert (made.status_code, made.json()["id"]) == (201, 77)
    changed = put(crm, 77, {"sys": "SALESFORCE", "no": "2044", "ref": OTHER["external_id"]})
    assert changed.status_code == 200
    assert_tied(crm, 77, OTHER)
    assert crm.get(f"/operations/{changed.json()['operation_id']}").json()["mapping"] == "kl-1"
    assert put(crm, 77, OTHER).status_code == 200  # the flow's own payload, beside the mapping
    wrong = put(crm, 77, {**OTHER, "sys": "SALESFORCE"})
    assert wrong.status_code == 422
    assert "kl-1" in wrong.json()["detail"]
    assert delete(crm, 77).status_code == 204
    assert_untied(crm, external(OTHER), internal(OTHER), key_link(77))


def test_is_accepted_at_once_when_the_caller_prefers_that(crm: Crm) -> None:
    accepted = crm.post("/key-links", KEY_LINK, headers={"Prefer": "respond-async"})
    assert (accepted.status_code, crm.stack.revio.seen) == (202, [])
    assert crm.settle(accepted)["state"] == "succeeded"
    assert_tied(crm, 77)
    assert link_up(crm).status_code == 200


# ---------------------------------------------------------------- names


def test_ids_of_names_are_the_tenants_own(crm: Crm) -> None:
    crm.stack.revio.account.systems = {4: "QUICKBOOKS", 31: "SALESFORCE"}
    crm.stack.revio.account.entity_types = {2: "AGENT", 9: "CUSTOMER"}
    assert link_up(crm).status_code == 201
    (stored,) = crm.stack.revio.key_links
    assert (stored["integration_system_id"], stored["integration_entity_type_id"]) == (31, 9)


@pytest.mark.parametrize(
    ("field", "there_are"), [("system", "SALESFORCE, QUICKBOOKS, HUBSPOT"), ("entity_type", "AGENT, CUSTOMER, BILL")]
)
def test_is_422_and_lists_the_names_when_revio_has_none_of_this_name(
    linked_up: Crm, field: str, there_are: str
) -> None:
    wrong = {**OTHER, field: "NETSUITE"}
    for answer in (
        link_up(linked_up, **wrong),
        put(linked_up, 77, wrong),
        linked_up.get(f"/key-links?{field}=NETSUITE"),
    ):
        assert answer.status_code == 422
        assert set(wrong_fields(answer)) == {field}
        assert there_are in wrong_fields(answer)[field]
    assert [record["external_id"] for record in linked_up.stack.revio.key_links] == [EXTERNAL]
    assert_tied(linked_up, 77)


@pytest.mark.parametrize("field", ["system", "entity_type"])
def test_is_422_when_revio_has_two_of_this_name(crm: Crm, field: str) -> None:
    account = crm.stack.revio.account
    (account.systems if field == "system" else account.entity_types)[40] = str(KEY_LINK[field]).title()
    answer = link_up(crm)
    assert answer.status_code == 422
    assert "several" in wrong_fields(answer)[field]
    assert crm.stack.revio.key_links == []


def test_a_system_that_revio_gets_later_is_found_without_a_restart(linked_up: Crm) -> None:
    assert link_up(linked_up, system="NETSUITE").status_code == 422
    linked_up.stack.revio.account.systems[12] = "NETSUITE"
    linked_up.stack.move_clock(11)
    assert link_up(linked_up, system="NETSUITE").status_code == 201
    assert linked_up.stack.revio.key_links[-1]["integration_system_id"] == 12


def test_names_are_read_once_and_not_again_for_each_request(linked_up: Crm) -> None:
    assert sorted(names_requested(linked_up.stack)) == ["/v1/IntegrationEntityType", "/v1/IntegrationSystem"]
    linked_up.stack.move_clock(3000)
    for number in range(3):
        assert link_up(linked_up, external_id=f"001-{number}").status_code == 201
    linked_up.get("/key-links/77")
    linked_up.get("/key-links/systems")
    assert len(names_requested(linked_up.stack)) == 2


def test_a_name_that_does_not_exist_does_not_make_us_ask_each_time(linked_up: Crm) -> None:
    for number in range(5):
        assert link_up(linked_up, system="NETSUITE", external_id=f"001-{number}").status_code == 422
    assert names_requested(linked_up.stack).count("/v1/IntegrationSystem") <= 2


# ---------------------------------------------------------------- exactly the same


def test_a_longer_id_or_one_in_other_case_is_not_taken_for_ours(crm: Crm) -> None:
    crm.stack.revio.match = "contains"
    account = crm.stack.revio.account
    for similar in (f"{EXTERNAL}1", f"x{EXTERNAL}", EXTERNAL.lower()):
        account.add_key_link(4, 2, 1015, similar)
    account.add_key_link(4, 2, 10_150, EXTERNAL)
    account.add_key_link(7, 2, 1015, EXTERNAL)
    account.add_key_link(4, 3, 1015, EXTERNAL)
    answer = link_up(crm)
    assert (answer.status_code, answer.json()["id"]) == (201, 83)
    assert found(crm, f"external_id={EXTERNAL}&system=salesforce&entity_type=customer&internal_id=1015") == [83]


def test_names_that_contain_one_another_are_distinguished(crm: Crm) -> None:
    crm.stack.revio.match = "contains"
    account = crm.stack.revio.account
    account.systems = {3: "SALESFORCE SANDBOX", 4: "SALESFORCE"}
    account.add_key_link(3, 2, 1015, EXTERNAL)
    account.add_key_link(4, 11, 1015, EXTERNAL)
    assert link_up(crm, entity_type="SERVICE").json()["integration_entity_type_id"] == 8  # not SERVICE_PRODUCT
    assert link_up(crm).json()["integration_system_id"] == 4


@pytest.mark.parametrize("has_more", ["more", "several_pages"])
@pytest.mark.parametrize(("largest_page", "others"), [(1, 3), (2, 3), (2, 4)])
def test_is_found_on_the_last_page(
    crm: Crm, has_more: Literal["more", "several_pages"], largest_page: int, others: int
) -> None:
    revio = crm.stack.revio
    revio.match, revio.has_more, revio.largest_page = "contains", has_more, largest_page
    for number in range(others):
        revio.account.add_key_link(4, 2, 1015, f"{EXTERNAL}-{number}")
    there = revio.account.add_key_link(4, 2, 1015, EXTERNAL)
    answer = link_up(crm)
    assert (answer.status_code, answer.json()["id"]) == (200, there["integration_key_link_id"])
    assert len(revio.key_links) == others + 1
    assert link_up(crm, internal_id=2044).status_code == 201  # and that all were read without a hit ends too


def test_ids_that_differ_only_in_case_get_a_key_link_each(crm: Crm) -> None:
    crm.stack.revio.fail(Kind.CLOSE_AFTER, times=2)
    accepted = [link_up(crm, external_id=one) for one in ("001a", "001A")]
    assert [crm.settle(answer)["result"]["id"] for answer in accepted] == [77, 78]
    assert [record["external_id"] for record in crm.stack.revio.key_links] == ["001a", "001A"]


@pytest.mark.parametrize("became", ["changed", "deleted"])
def test_what_a_search_still_shows_is_not_taken_for_what_is_there(
    crm: Crm, monkeypatch: pytest.MonkeyPatch, became: str
) -> None:
    account = crm.stack.revio.account
    account.add_key_link(4, 2, 1015, EXTERNAL)
    account.add_key_link(4, 2, 2044, "another")
    stale(monkeypatch, crm.stack)
    if became == "deleted":
        del account.key_links[0]
    else:
        account.key_links[0] = {**account.key_links[0], "external_id": "changed at Rev.io"}
    assert put(crm, 78, KEY_LINK).status_code == 200  # what only seems to be there does not oppose it
    assert_tied(crm, 78)
    assert delete(crm, 78).status_code == 204
    answer = link_up(crm)
    assert (answer.status_code, answer.json()["id"]) == (201, 79)
    assert_tied(crm, 79)


def test_what_a_search_still_shows_is_not_linked_after_a_lost_answer(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    account = crm.stack.revio.account
    account.add_key_link(4, 2, 1015, EXTERNAL)
    stale(monkeypatch, crm.stack)
    account.key_links.clear()
    crm.stack.revio.fail(Kind.CLOSE_BEFORE)
    operation = crm.settle(link_up(crm))
    assert (operation["state"], operation["attempts"][-1]["event"]) == ("succeeded", "done")
    assert operation["result"]["id"] == 78
    assert_tied(crm, 78)


# ---------------------------------------------------------------- bad input


WRONG: list[object] = [None, "", " \t", True, {}, ["x"], 1.5]
"""For every field; None is a field that is missing."""


BAD: list[tuple[dict[str, Any], str]] = [
    *(({name: value}, name) for name in KEY_LINK for value in WRONG),
    *(({name: value}, name) for name in ("system", "entity_type") for value in ("x" * 101, "é" * 51, 4)),
    *(({"internal_id": value}, "internal_id") for value in (0, -1, 10**30, 2**63, "abc", "1 015")),
    ({"external_id": "x" * 201}, "external_id"),
    ({"external_id": "x" * 1000}, "external_id"),
    ({"external_id": "a\u0000b"}, "external_id"),
    ({"colour": "red"}, "colour"),
    ({"id": 77}, "id"),
    ({"asked_at": 1}, "asked_at"),
]


def test_bad_input_is_422_and_names_the_field(crm: Crm) -> None:
    for changes, field in BAD:
        body = {name: value for name, value in {**KEY_LINK, **changes}.items() if value is not None}
        for answer in (crm.post("/key-links", body), put(crm, 77, body)):
            assert answer.status_code == 422, changes
            assert field in wrong_fields(answer), changes
    for wrong in ([KEY_LINK], [], "x", 1):
        assert (crm.post("/key-links", wrong).status_code, put(crm, 77, wrong).status_code) == (422, 422)
    assert crm.stack.revio.seen == []
    assert crm.get("/operations").json()["operations"] == []
    assert states(crm) == {}


def test_the_longest_names_and_ids_are_taken(crm: Crm) -> None:
    account = crm.stack.revio.account
    account.systems[31], account.entity_types[31] = "é" * 50, "票" * 33 + "x"
    body = {"system": "é" * 50, "entity_type": "票" * 33 + "x", "internal_id": 9_999_999, "external_id": "🎫" * 200}
    assert link_up(crm, **body).json()["id"] == 77
    assert_tied(crm, 77, body)
    assert put(crm, 77, OTHER).status_code == 200
    assert put(crm, 77, body).status_code == 200
    assert_tied(crm, 77, body)
    assert delete(crm, 77).status_code == 204
    assert_untied(crm, external(body), internal(body), key_link(77))


def test_any_external_id_makes_one_key_link_and_is_found_again(crm: Crm) -> None:
    texts = ("A B", "A/B", "A#1", "100%", "A%2FB", "a&b=c", "a+b", "?x", "=", "Büro-7", "票", "🎫" * 200, "'\"\\", 1001)
    for key_link_id, external_id in enumerate(texts, 77):
        crm.stack.revio.fail(Kind.CLOSE_AFTER)
        operation = crm.settle(link_up(crm, external_id=external_id))
        assert (operation["state"], operation["attempts"][-1]["event"]) == ("succeeded", "found"), external_id
        assert link_up(crm, external_id=external_id).json()["external_id"] == str(external_id)
        assert [record["external_id"] for record in crm.stack.revio.key_links] == [str(external_id)]
        assert found(crm, f"external_id={quote(str(external_id), safe='')}") == [key_link_id]
        if "/" not in str(external_id):  # the local gateway takes no encoded slash in a path
            assert_tied(crm, key_link_id, {**KEY_LINK, "external_id": external_id})
        assert delete(crm, key_link_id).status_code == 204
        assert_untied(crm, internal(), key_link(key_link_id))

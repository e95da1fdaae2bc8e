"""A save fails between two of its steps, and heals."""

import pytest
from werkzeug.wrappers import Request, Response

from local.vendors.alterations import ALTERATIONS
from local.vendors.egito import EgitoSimulator
from local.vendors.simulator import Kind
from tests.integration.conftest import Crm
from tests.integration.connector.conftest import (
    CLUBS,
    LEAD_AND_CONTACT,
    OTHER_CLUB,
    add_lead_source,
    all_saved,
    call,
    change_lead_source,
    change_tenant,
    in_the_end,
    lead_sources,
    outcome,
    save,
    saved,
    states,
    the_record,
)

# ---------------------------------------------------------------------- what went wrong in between


def test_a_person_is_saved_again_when_a_wrong_password_was_corrected(crm: Crm, egito: EgitoSimulator) -> None:
    saved(crm)
    egito.users["bridge@demo"] = "another"
    egito.revoke(refresh_too=True)
    assert save(crm, city="Kraków").status_code == 202
    crm.stack.put_secret("demo", crm.stack.demo_tenant())
    crm.stack.move_clock(301)
    assert outcome(save(crm, city="Kraków", company="Acme")) == (200, "INFO")
    crm.stack.deliver_due()
    assert (the_record(egito)["city"], the_record(egito)["company"]) == ("Kraków", "Acme")
    assert states(crm).keys() == {"succeeded"}


def test_a_stranger_is_not_overwritten_when_the_tenant_moves_to_another_egito(crm: Crm, egito: EgitoSimulator) -> None:
    record_id = saved(crm)
    other = EgitoSimulator(clock=crm.stack._clock)
    other.start()
    try:
        other.add("Contact", firstName="Stranger", lastName="X")
        assert other.records["Contact"][0]["id"] == the_record(egito)["id"]
        change_tenant(crm.stack, base_url=other.url)
        assert saved(crm, city="Kraków") == record_id
        assert [record["firstName"] for record in other.records["Contact"]] == ["Stranger", "Ada"]
    finally:
        other.stop()


def test_the_turn_ends_when_something_unexpected_happens(
    crm: Crm, egito: EgitoSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(crm)

    def broken(*_: object) -> None:
        raise LookupError

    with monkeypatch.context() as patched:
        patched.setattr("crm_bridge.vendors.egito.Egito.update", broken)
        assert save(crm, city="Kraków").status_code == 500
    assert outcome(save(crm, city="Gdańsk")) == (200, "INFO")
    assert the_record(egito)["city"] == "Gdańsk"


@pytest.mark.parametrize("staff", [{"id": None}, {"id": ""}, {"id": "x" * 201}, {"email": 5, "id": True}])
def test_staff_without_an_id_is_no_staff(crm: Crm, egito: EgitoSimulator, staff: dict[str, object]) -> None:
    egito.records["User"].append({"name": "Nobody", "email": "nobody@club.example", **staff})
    assert [one["id"] for one in call(crm, "GET", "/staff").json()["staff"]] == ["7", "8", "9"]
    assert outcome(save(crm, leadOwner="nobody@club.example")) == (201, "WARNING")


def test_an_entry_without_an_id_is_no_lead_source(crm: Crm, egito: EgitoSimulator) -> None:
    egito.dictionaries["leadSource"].insert(0, {"id": None, "name": "-- choose --"})
    assert lead_sources(crm) == [("1", "Website", True), ("2", "Walk-in", True)]
    assert outcome(save(crm, leadSource="Walk-in")) == (201, "INFO")


def test_a_late_save_of_another_club_does_not_bring_the_person_back(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, clubs=CLUBS)
    record_id = saved(crm, uuid="u-1")
    egito.fail(Kind.UNAVAILABLE, method="GET")
    late = save(crm, record_id, uuid="u-1")
    assert late.status_code == 202
    saved(crm, record_id, club=OTHER_CLUB, uuid="u-1")
    assert in_the_end(crm, late)["state"] == "succeeded"
    assert the_record(egito)["club"] == "Harbour"


def test_a_prospects_deleted_record_does_not_hold_up_the_member(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    record_id = saved(crm)
    egito.records["Lead"].clear()
    assert saved(crm, record_id, userType="MEMBER") == record_id
    assert outcome(save(crm, record_id, userType="MEMBER", city="Kraków")) == (200, "INFO")
    assert the_record(egito)["city"] == "Kraków"


def test_what_comes_after_half_a_conversion_reaches_the_member(
    crm: Crm, egito: EgitoSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    record_id = saved(crm)

    answer = egito.respond

    def down_at_the_lead(request: Request) -> Response:
        down = request.path.endswith("/Lead/update")
        return Response("", 503, {"Retry-After": "1"}) if down else answer(request)

    monkeypatch.setattr(egito, "respond", down_at_the_lead)
    late = save(crm, record_id, userType="MEMBER", city="B")
    assert late.status_code == 202
    monkeypatch.setattr(egito, "respond", answer)
    assert save(crm, record_id, city="C").status_code == 200
    assert the_record(egito)["type"] == "MEMBER"
    assert in_the_end(crm, late)["state"] == "succeeded"
    assert the_record(egito)["city"] == "C"
    assert the_record(egito)["type"] == "MEMBER"
    assert the_record(egito, "Lead")["notes"] == "won"


def test_a_new_save_does_not_wait_for_an_old_one_after_an_outage(crm: Crm, egito: EgitoSimulator) -> None:
    egito.fail(Kind.MOVED)  # surely not done
    first = save(crm, uuid="u-1", city="Old")
    assert first.status_code == 202
    assert outcome(save(crm, uuid="u-1", city="New")) == (201, "INFO")
    assert in_the_end(crm, first)["state"] == "succeeded"
    assert the_record(egito)["city"] == "New"


def test_the_list_is_given_its_time_before_a_person_is_asked(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, lists_everything=False, search_lag=300)
    egito.search_lag = 200
    egito.fail(Kind.CLOSE_AFTER)
    answer = save(crm)
    assert in_the_end(crm, answer)["state"] == "succeeded"
    assert len(egito.records["Contact"]) == 1


def test_the_same_save_without_an_id_makes_one_person_though_two_others_fit(crm: Crm, egito: EgitoSimulator) -> None:
    first, second = saved(crm, email="a@mail.example"), saved(crm, email="b@mail.example", mobile="1")
    saved(crm, second, email="a@mail.example", mobile="+48 601 234 567")
    third = saved(crm, email="a@mail.example")
    assert third not in (first, second)
    assert saved(crm, email="a@mail.example") == third
    assert len(egito.records["Contact"]) == 3


def test_entries_are_not_doubled_when_the_list_may_not_be_whole(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, lists_everything=False)
    egito.list_limit = 2
    ids = set()
    for _ in range(3):
        ids.add(add_lead_source(crm, "Facebook").json()["id"])
        crm.stack.move_clock(200)
    assert len(ids) == 1
    assert len(egito.dictionaries["leadSource"]) == 3


@pytest.mark.parametrize("alteration", sorted(set(ALTERATIONS) - {"emptied"}))
def test_a_lead_source_is_made_once_whatever_egito_makes_of_its_name(
    crm: Crm, egito: EgitoSimulator, alteration: str
) -> None:
    egito.alterations = (ALTERATIONS[alteration],)
    name = "A\u00e9 1  b\u2019s & <i>c \U0001f3ea " + 40 * "x"
    before = len(egito.dictionaries["leadSource"])
    first = add_lead_source(crm, name)
    again = add_lead_source(crm, name)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["id"] == first.json()["id"]
    assert len(egito.dictionaries["leadSource"]) == before + 1


def test_a_name_is_free_again_when_its_lead_source_was_renamed(crm: Crm, egito: EgitoSimulator) -> None:
    first = add_lead_source(crm, "Summer").json()["id"]
    change_lead_source(crm, first, "Spring")
    second = add_lead_source(crm, "Summer").json()
    assert (second["name"], second["id"] != first) == ("Summer", True)
    assert [entry["name"] for entry in egito.dictionaries["leadSource"]][2:] == ["Spring", "Summer"]


def test_a_lead_source_of_before_the_dictionary_is_made_in_it(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, lead_sources={})
    ours = add_lead_source(crm, "Fair").json()["id"]
    change_tenant(crm.stack)
    made = add_lead_source(crm, "Fair").json()["id"]
    assert made != ours
    assert outcome(save(crm, leadSource=ours)) == (201, "INFO")
    assert the_record(egito)["source"] == made


def test_a_lead_source_may_come_out_of_use(crm: Crm) -> None:
    made = call(crm, "POST", "/lead-sources", {"name": "Fair", "active": False}).json()
    assert made["active"] is False
    assert change_lead_source(crm, made["id"], "Trade fair").json()["active"] is False
    assert call(crm, "POST", "/lead-sources", {"name": "Trade fair", "active": True}).json()["active"] is True
    assert (made["id"], "Trade fair", True) in lead_sources(crm)


def test_a_lead_whose_answer_was_lost_is_converted_though_the_member_came_first(
    crm: Crm, egito: EgitoSimulator
) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    egito.search_lag = 25
    egito.fail(Kind.CLOSE_AFTER)
    lead = save(crm, uuid="u-1")
    member = save(crm, uuid="u-1", userType="MEMBER")
    assert all_saved(crm, [lead, member])
    assert the_record(egito, "Lead")["notes"] == "won"
    assert the_record(egito)["type"] == "MEMBER"


def test_what_a_prospect_says_reaches_the_member_whose_record_is_on_its_way(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    record_id = saved(crm)
    egito.fail(Kind.CLOSE_BEFORE)
    member = save(crm, record_id, userType="MEMBER", city="B")
    later = save(crm, record_id, city="C")
    assert all_saved(crm, [member, later])
    assert (the_record(egito)["city"], the_record(egito)["type"]) == ("C", "MEMBER")


@pytest.mark.parametrize("theirs", ["Fair", "Rad"])  # the second may be what a vendor makes of ours
def test_lead_sources_are_made_again_when_the_tenant_moves_to_another_egito(crm: Crm, theirs: str) -> None:
    change_tenant(crm.stack, lists_everything=False)
    first = add_lead_source(crm, "Radio").json()["id"]
    change_lead_source(crm, first, "Radio", active=False)
    other = EgitoSimulator(clock=crm.stack._clock)
    other.start()
    try:
        other.dictionaries["leadSource"].append({"id": int(first), "name": theirs})
        other.next_id = int(first) + 1
        change_tenant(crm.stack, base_url=other.url)
        assert add_lead_source(crm, "Radio").status_code == 201
        assert (first, theirs, True) in lead_sources(crm)
        assert [entry["name"] for entry in other.dictionaries["leadSource"]][2:] == [theirs, "Radio"]
    finally:
        other.stop()


def test_a_name_follows_egito_when_only_its_use_was_changed(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, lead_sources={"dictionary": "leadSource", "writable": False})
    change_lead_source(crm, "1", "Website", active=False)
    egito.dictionaries["leadSource"][0]["name"] = "Our site"
    assert ("1", "Our site", False) in lead_sources(crm)

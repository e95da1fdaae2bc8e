"""Saves in any order, and a person who is a record of two entities."""

from typing import Any

import pytest

from crm_bridge.vendors.egito_settings import PERSON_FIELDS
from local.vendors.egito import CLUB, EgitoSimulator
from local.vendors.simulator import Kind
from tests.integration.conftest import Crm
from tests.integration.connector.conftest import (
    ADA,
    CLUBS,
    EVERYTHING,
    LEAD_AND_CONTACT,
    OTHER_CLUB,
    all_saved,
    calls,
    change_tenant,
    fields_of,
    outcome,
    save,
    saved,
    the_record,
)

# ---------------------------------------------------------------- in which order


def test_is_made_when_an_update_comes_before_the_create(crm: Crm, egito: EgitoSimulator) -> None:
    updated = save(crm, "u-1", city="Kraków")
    assert outcome(updated) == (201, "INFO")
    created = save(crm, uuid="u-1", company="Acme")
    assert (outcome(created), created.json()["recordID"]) == ((200, "INFO"), updated.json()["recordID"])
    assert (the_record(egito)["city"], the_record(egito)["company"]) == ("Kraków", "Acme")


@pytest.mark.parametrize("settings", [{}, LEAD_AND_CONTACT], ids=["one entity", "Lead and Contact"])
@pytest.mark.parametrize("kind", ["MEMBER", "EX-MEMBER"])
def test_stays_a_member_when_the_prospect_comes_after_it(
    crm: Crm, egito: EgitoSimulator, kind: str, settings: dict[str, Any]
) -> None:
    change_tenant(crm.stack, **settings)
    record_id = saved(crm, uuid="u-1", userType=kind)
    late = save(crm, uuid="u-1", city="Kraków")
    assert (outcome(late), late.json()["recordID"]) == ((200, "WARNING"), record_id)
    assert "member" in late.json()["message"]
    assert (the_record(egito)["type"], the_record(egito)["city"]) == (kind, "Kraków")
    assert egito.records["Lead"] == []


def test_keeps_id_and_record_when_a_prospect_becomes_a_member_and_leaves(crm: Crm, egito: EgitoSimulator) -> None:
    record_id = saved(crm, city="Kraków")
    for kind in ("MEMBER", "EX-MEMBER", "MEMBER"):
        answer = save(crm, record_id, userType=kind)
        assert (outcome(answer), answer.json()["recordID"]) == ((200, "INFO"), record_id)
        assert (the_record(egito)["type"], the_record(egito)["city"]) == (kind, "Kraków")


@pytest.mark.parametrize("written", ["EX-MEMBER", "ex-member", "EX_MEMBER", "ExMember", "Ex Member"])
def test_an_ex_member_is_one_however_it_is_written(crm: Crm, egito: EgitoSimulator, written: str) -> None:
    assert outcome(save(crm, userType=written)) == (201, "INFO")
    assert the_record(egito)["type"] == "EX-MEMBER"


def test_adds_only_what_a_later_save_did_not_have_when_it_waited(crm: Crm, egito: EgitoSimulator) -> None:
    record_id = saved(crm)
    egito.fail(Kind.UNAVAILABLE, method="GET")
    waiting = save(crm, record_id, city="Kraków", company="Acme")
    assert outcome(waiting) == (202, "WARNING")
    assert outcome(save(crm, record_id, city="Gdańsk", zipcode="80-001")) == (200, "INFO")
    assert crm.settle(waiting)["state"] == "succeeded"
    record = the_record(egito)
    assert (record["city"], record["zipCode"], record["company"]) == ("Gdańsk", "80-001", "Acme")


def test_is_not_needed_when_a_later_save_had_all_of_it(crm: Crm, egito: EgitoSimulator) -> None:
    record_id = saved(crm, userType="MEMBER")
    egito.fail(Kind.UNAVAILABLE, method="GET")
    waiting = save(crm, record_id, userType="MEMBER", city="Kraków")
    saved(crm, record_id, userType="MEMBER", city="Gdańsk")
    operation = crm.settle(waiting)
    assert (operation["state"], operation["result"]["recordID"]) == ("succeeded", record_id)
    assert "later save" in operation["result"]["message"]
    assert the_record(egito)["city"] == "Gdańsk"


@pytest.mark.parametrize("kind", [Kind.CLOSE_AFTER, Kind.ERROR_AFTER, Kind.CLOSE_BEFORE])
def test_the_later_save_counts_when_the_answer_of_the_earlier_was_lost(
    crm: Crm, egito: EgitoSimulator, kind: Kind
) -> None:
    record_id = saved(crm)
    egito.fail(kind)
    earlier = save(crm, record_id, city="Kraków", company="Acme")
    assert outcome(earlier) == (202, "WARNING")
    crm.stack.move_clock(60)  # until what was sent is surely over
    saved(crm, record_id, city="Gdańsk")
    assert crm.settle(earlier)["state"] == "succeeded"
    assert (the_record(egito)["city"], the_record(egito)["company"]) == ("Gdańsk", "Acme")


def test_the_last_save_counts_when_the_first_waits_for_its_record(crm: Crm, egito: EgitoSimulator) -> None:
    egito.fail(Kind.UNAVAILABLE)
    waiting = [save(crm, uuid="u-1", city=city) for city in ("Kraków", "Gdańsk", "Gdynia")]
    waiting.append(save(crm, uuid="u-1", company="Acme"))
    assert outcome(waiting[0]) == (202, "WARNING")
    assert len({answer.json()["recordID"] for answer in waiting}) == 1
    assert all_saved(crm, waiting)
    assert (the_record(egito)["city"], the_record(egito)["company"]) == ("Gdynia", "Acme")


def test_stays_a_member_when_the_prospects_save_waited(crm: Crm, egito: EgitoSimulator) -> None:
    record_id = saved(crm)
    egito.fail(Kind.UNAVAILABLE, method="GET")
    waiting = save(crm, record_id, city="Kraków")
    saved(crm, record_id, userType="MEMBER")
    assert crm.settle(waiting)["state"] == "succeeded"
    assert (the_record(egito)["type"], the_record(egito)["city"]) == ("MEMBER", "Kraków")


def test_a_save_that_waited_does_not_move_its_person_back_to_the_earlier_club(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, clubs=CLUBS)
    record_id = saved(crm)
    egito.fail(Kind.UNAVAILABLE, method="GET")
    waiting = save(crm, record_id, company="Acme")
    saved(crm, record_id, club=OTHER_CLUB)
    assert crm.settle(waiting)["state"] == "succeeded"
    assert (the_record(egito)["company"], the_record(egito)["club"]) == ("Acme", "Harbour")


# ---------------------------------------------------------------- two entities


def test_a_member_takes_over_what_the_lead_had_when_it_is_converted(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    record_id = saved(crm, **EVERYTHING)
    assert egito.records["Contact"] == []
    lead = dict(the_record(egito, "Lead"))
    assert fields_of(lead, PERSON_FIELDS) == EVERYTHING
    sent = {"userType": "MEMBER", "city": "Gdańsk", "company": ""}
    answer = save(crm, record_id, **sent)
    assert answer.status_code == 201  # a record that was not there before
    assert (answer.json()["result"], answer.json()["recordID"]) == ("INFO", record_id)
    contact = the_record(egito)
    assert fields_of(contact, PERSON_FIELDS) == {**EVERYTHING, **sent}
    assert (contact["club"], contact["externalId"], contact["notes"]) == ("Centre", record_id, "")
    assert the_record(egito, "Lead") == {**lead, "notes": "won"}


def test_a_member_is_converted_once(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    record_id = saved(crm)
    assert {saved(crm, record_id, userType="MEMBER", city=city) for city in ("Kraków", "Gdańsk")} == {record_id}
    assert saved(crm, record_id, userType="EX-MEMBER") == record_id
    assert (len(egito.records["Lead"]), len(egito.records["Contact"])) == (1, 1)
    assert (the_record(egito)["city"], the_record(egito)["type"]) == ("Gdańsk", "EX-MEMBER")
    # Three times something changed at the Contact or the Lead: the conversion, the other city, the other type.
    assert (calls(egito, "create"), calls(egito, "update")) == (2, 3)


def test_defaults_do_not_hide_what_the_lead_had(crm: Crm, egito: EgitoSimulator) -> None:
    members = {
        "entity": "Contact",
        "reference": "externalId",
        "defaults": {"city": "Warszawa", "region": "Mazowieckie"},
    }
    change_tenant(crm.stack, **{**LEAD_AND_CONTACT, "members": members})
    record_id = saved(crm, city="Kraków")
    saved(crm, record_id, userType="MEMBER")
    assert (the_record(egito)["city"], the_record(egito)["region"]) == ("Kraków", "Mazowieckie")


@pytest.mark.parametrize("kind", [Kind.UNAVAILABLE, Kind.CLOSE_AFTER, Kind.ERROR_BEFORE])
def test_a_conversion_is_completed_when_it_failed_half_way(crm: Crm, egito: EgitoSimulator, kind: Kind) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    record_id = saved(crm, city="Kraków")
    egito.fail(kind)
    converted = save(crm, record_id, userType="MEMBER")
    assert (outcome(converted), converted.json()["recordID"]) == ((202, "WARNING"), record_id)
    assert crm.settle(converted)["state"] == "succeeded"
    assert (the_record(egito)["city"], the_record(egito)["type"]) == ("Kraków", "MEMBER")
    assert the_record(egito, "Lead")["notes"] == "won"


def test_a_lead_is_converted_when_it_was_made_after_the_member(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    egito.fail(Kind.UNAVAILABLE)
    prospect = save(crm, uuid="u-1", city="Kraków")
    member = save(crm, uuid="u-1", userType="MEMBER", city="Gdańsk")
    assert (prospect.status_code, member.status_code) == (202, 201)
    assert crm.settle(prospect)["state"] == "succeeded"
    crm.stack.deliver_due(after=3600)
    assert the_record(egito)["city"] == "Gdańsk"
    assert [lead["notes"] for lead in egito.records["Lead"]] in ([], ["won"])


def test_a_late_conversion_takes_over_what_a_later_save_said(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT, clubs=CLUBS)
    late = {"uuid": "u-1", "userType": "MEMBER", "city": "Kraków", "company": "Acme", "zipcode": "30-001"}
    accepted = crm.post(f"/connector/clubs/{CLUB}/members", {**ADA, **late}, headers={"Prefer": "respond-async"})
    saved(crm, club=OTHER_CLUB, uuid="u-1", city="Gdańsk", company="")
    assert crm.settle(accepted)["state"] == "succeeded"
    contact = the_record(egito)
    assert (contact["city"], contact["company"], contact["club"]) == ("Gdańsk", "", "Harbour")
    assert (contact["zipCode"], contact["type"]) == ("30-001", "MEMBER")
    assert the_record(egito, "Lead")["notes"] == "won"


def test_a_member_is_saved_when_the_converted_lead_was_deleted_by_hand(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    record_id = saved(crm)
    saved(crm, record_id, userType="MEMBER")
    egito.records["Lead"].clear()
    answer = save(crm, record_id, userType="MEMBER", city="Kraków")
    assert (the_record(egito)["city"], answer.status_code) == ("Kraków", 200)


def test_a_member_is_made_when_the_lead_was_deleted_by_hand(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    record_id = saved(crm)
    egito.records["Lead"].clear()
    answer = save(crm, record_id, userType="MEMBER")
    assert (answer.status_code, answer.json()["recordID"]) == (201, record_id)
    assert the_record(egito)["lastName"] == "Nowak"

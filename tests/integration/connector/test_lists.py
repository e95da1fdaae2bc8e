"""Staff and lead sources."""

import unicodedata
from functools import partial
from typing import Any

import pytest

from local.vendors.egito import EgitoSimulator
from local.vendors.simulator import Kind
from tests.integration.conftest import Crm
from tests.integration.connector.conftest import (
    add_lead_source,
    at_once,
    call,
    change_lead_source,
    change_tenant,
    lead_sources,
    outcome,
    save,
    saved,
    the_record,
)

# ---------------------------------------------------------------- staff


def test_lists_the_staff_with_ids_and_addresses(crm: Crm) -> None:
    answer = call(crm, "GET", "/staff")
    assert answer.status_code == 200
    assert answer.json() == {
        "staff": [
            {"id": "7", "email": "maja@club.example", "name": "Maja Nowak"},
            {"id": "8", "email": "piotr@club.example", "name": "Piotr Zieliński"},
            {"id": "9", "email": "ola@club.example", "name": "Ola Wrona"},
        ]
    }


@pytest.mark.parametrize("owner", ["9", 9, "ola@club.example", "OLA@Club.Example", " ola@club.example "])
def test_an_owner_is_set_by_id_or_address(crm: Crm, egito: EgitoSimulator, owner: object) -> None:
    assert outcome(save(crm, leadOwner=owner)) == (201, "INFO")
    assert the_record(egito)["ownerId"] == "9"


def test_is_saved_with_a_warning_and_keeps_its_owner_when_the_owner_is_unknown(crm: Crm, egito: EgitoSimulator) -> None:
    new = save(crm, leadOwner="nobody@club.example")
    assert outcome(new) == (201, "WARNING")
    assert "owner" in new.json()["message"]
    assert the_record(egito)["ownerId"] == ""
    record_id = new.json()["recordID"]
    saved(crm, record_id, leadOwner="9")
    again = save(crm, record_id, leadOwner="nobody@club.example", city="Kraków")
    assert outcome(again) == (200, "WARNING")
    assert (the_record(egito)["ownerId"], the_record(egito)["city"]) == ("9", "Kraków")


@pytest.mark.parametrize("status", [200, 400, 403, 422])
def test_is_saved_with_a_warning_when_egito_shows_no_staff(crm: Crm, egito: EgitoSimulator, status: int) -> None:
    egito.forbidden, egito.error_status = {("User", "list")}, status
    answer = save(crm, leadOwner="9", city="Kraków")
    assert outcome(answer) == (201, "WARNING")
    assert (the_record(egito)["ownerId"], the_record(egito)["city"]) == ("", "Kraków")


def test_an_owner_is_known_ten_seconds_after_it_was_hired(crm: Crm, egito: EgitoSimulator) -> None:
    assert outcome(save(crm, leadOwner="eva@club.example")) == (201, "WARNING")
    egito.add("User", name="Eva Lis", email="eva@club.example")
    crm.stack.move_clock(11)
    assert outcome(save(crm, leadOwner="eva@club.example")) == (200, "INFO")
    assert the_record(egito)["ownerId"] == "5002"


def test_the_staff_is_the_tenants_own_when_its_settings_list_it(crm: Crm, egito: EgitoSimulator) -> None:
    egito.forbidden = {("User", "list")}
    person = {"id": "70", "email": "Eva@club.example", "name": "Eva Lis"}
    change_tenant(crm.stack, staff={"people": [person]})
    assert call(crm, "GET", "/staff").json() == {"staff": [person]}
    assert outcome(save(crm, leadOwner="eva@CLUB.example")) == (201, "INFO")
    assert the_record(egito)["ownerId"] == "70"
    assert outcome(save(crm, leadOwner="9")) == (200, "WARNING")
    assert the_record(egito)["ownerId"] == "70"


# ---------------------------------------------------------------- lead sources


@pytest.mark.parametrize("given", ["2", "Walk-in", "walk-IN", " Walk-in "])
def test_a_lead_source_is_set_by_id_or_name(crm: Crm, egito: EgitoSimulator, given: str) -> None:
    assert outcome(save(crm, leadSource=given)) == (201, "INFO")
    assert the_record(egito)["source"] == "2"


def test_is_saved_with_a_warning_and_keeps_its_lead_source_when_that_is_unknown(
    crm: Crm, egito: EgitoSimulator
) -> None:
    new = save(crm, leadSource="Rumour", leadOwner="nobody@club.example")
    assert outcome(new) == (201, "WARNING")
    assert "lead source" in new.json()["message"]
    assert "owner" in new.json()["message"]
    record_id = new.json()["recordID"]
    saved(crm, record_id, leadSource="2")
    assert outcome(save(crm, record_id, leadSource="Rumour", city="Kraków")) == (200, "WARNING")
    assert (the_record(egito)["source"], the_record(egito)["city"]) == ("2", "Kraków")


@pytest.mark.parametrize("status", [200, 400, 403, 422])
def test_is_saved_with_a_warning_when_egito_shows_no_dictionary(crm: Crm, egito: EgitoSimulator, status: int) -> None:
    egito.forbidden, egito.error_status = {("SelectDictionary", "list")}, status
    assert outcome(save(crm, leadSource="2", city="Kraków")) == (201, "WARNING")
    assert (the_record(egito)["source"], the_record(egito)["city"]) == ("", "Kraków")


def test_lists_what_the_dictionary_has(crm: Crm) -> None:
    assert lead_sources(crm) == [("1", "Website", True), ("2", "Walk-in", True)]


LEAD_SOURCES: dict[str, dict[str, Any]] = {
    "writable": {"dictionary": "leadSource", "writable": True},
    "not writable": {"dictionary": "leadSource"},
    "no dictionary": {},
}


@pytest.fixture(params=LEAD_SOURCES)
def where(request: pytest.FixtureRequest, crm: Crm, egito: EgitoSimulator) -> dict[str, Any]:
    """The tenant's setting of where its lead sources are kept."""
    setting: dict[str, Any] = LEAD_SOURCES[request.param]
    egito.dictionary_writable = "writable" in setting
    change_tenant(crm.stack, lead_sources=setting)
    return setting


def test_a_lead_source_is_made_once_however_its_name_is_written(
    crm: Crm, egito: EgitoSimulator, where: dict[str, Any]
) -> None:
    before = lead_sources(crm)
    new = add_lead_source(crm, "Facebook")
    assert outcome(new) == (201, "INFO")
    lead_source_id = new.json()["id"]
    assert lead_sources(crm) == [*before, (lead_source_id, "Facebook", True)]
    for name in ("Facebook", "FACEBOOK", " facebook "):
        again = add_lead_source(crm, name)
        assert (outcome(again), again.json()["id"]) == ((200, "INFO"), lead_source_id)
    assert lead_sources(crm) == [*before, (lead_source_id, "Facebook", True)]
    entries = [entry["name"] for entry in egito.dictionaries["leadSource"]]
    assert entries == ["Website", "Walk-in", *(["Facebook"] if "writable" in where else [])]


@pytest.mark.usefixtures("where")
def test_a_lead_source_is_renamed_and_put_out_of_use(crm: Crm) -> None:
    lead_source_id = add_lead_source(crm, "Facebok").json()["id"]
    others = [one for one in lead_sources(crm) if one[0] != lead_source_id]
    for name, active in (("Facebook", True), ("facebook", False), ("Facebook", True)):
        answer = change_lead_source(crm, lead_source_id, name, active=active)
        assert outcome(answer) == (200, "INFO")
        assert (answer.json()["id"], answer.json()["name"], answer.json()["active"]) == (lead_source_id, name, active)
        assert lead_sources(crm) == [*others, (lead_source_id, name, active)]


@pytest.mark.parametrize("kept", ["writable", "not writable"])
def test_an_entry_of_the_dictionary_is_renamed_where_it_can_be(crm: Crm, egito: EgitoSimulator, kept: str) -> None:
    egito.dictionary_writable = kept == "writable"
    change_tenant(crm.stack, lead_sources=LEAD_SOURCES[kept])
    assert outcome(change_lead_source(crm, "1", "Web", active=False)) == (200, "INFO")
    assert lead_sources(crm) == [("1", "Web", False), ("2", "Walk-in", True)]
    assert egito.dictionaries["leadSource"][0]["name"] == ("Web" if kept == "writable" else "Website")
    assert outcome(save(crm, leadSource="web")) == (201, "INFO")
    assert the_record(egito)["source"] == "1"


def test_a_lead_source_may_have_the_name_that_another_had(crm: Crm) -> None:
    first = add_lead_source(crm, "Facebook").json()["id"]
    assert outcome(change_lead_source(crm, first, "Social media")) == (200, "INFO")
    crm.stack.move_clock(60)
    second = add_lead_source(crm, "Facebook")
    assert outcome(second) == (201, "INFO")
    assert lead_sources(crm)[2:] == [(first, "Social media", True), (second.json()["id"], "Facebook", True)]


def test_a_lead_source_is_known_whose_name_egito_writes_with_a_combining_accent(
    crm: Crm, egito: EgitoSimulator
) -> None:
    egito.dictionaries["leadSource"].append({"id": 30, "name": unicodedata.normalize("NFD", "Znajomość")})
    there = add_lead_source(crm, "Znajomość")
    assert (outcome(there), there.json()["id"]) == ((200, "INFO"), "30")
    assert outcome(save(crm, leadSource="znajomość")) == (201, "INFO")
    assert the_record(egito)["source"] == "30"


@pytest.mark.usefixtures("where")
def test_a_lead_source_is_not_renamed_when_the_name_is_taken(crm: Crm) -> None:
    ids = [add_lead_source(crm, name).json()["id"] for name in ("Facebook", "Poster")]
    before = lead_sources(crm)
    answer = change_lead_source(crm, ids[1], "FACEBOOK")
    assert outcome(answer) == (422, "ERROR")
    assert [error["field"] for error in answer.json()["errors"]] == ["name"]
    unknown = change_lead_source(crm, "999", "Radio")
    assert outcome(unknown) == (404, "ERROR")
    assert lead_sources(crm) == before


@pytest.mark.usefixtures("eager_switches", "where")
def test_one_lead_source_is_made_when_twenty_ask_for_it_at_once(crm: Crm) -> None:
    before = lead_sources(crm)
    answers = at_once([partial(add_lead_source, crm, "Facebook")] * 20)
    # Whoever asks while another is making it is to ask again.
    assert {answer.status_code for answer in answers} <= {200, 201, 409}
    (made,) = {answer.json()["id"] for answer in answers if answer.status_code != 409}
    assert [answer.status_code for answer in answers].count(201) == 1
    assert lead_sources(crm) == [*before, (made, "Facebook", True)]
    assert add_lead_source(crm, "Facebook").json()["id"] == made


def test_a_lead_source_is_not_made_twice_when_egitos_list_lags(crm: Crm, egito: EgitoSimulator) -> None:
    egito.search_lag = 20
    ids = [add_lead_source(crm, name).json()["id"] for name in ("Facebook", "facebook")]
    assert ids[0] == ids[1]
    assert len(egito.dictionaries["leadSource"]) == 3


def test_a_lead_source_is_made_again_when_somebody_has_deleted_it(crm: Crm, egito: EgitoSimulator) -> None:
    first = add_lead_source(crm, "Facebook").json()["id"]
    egito.dictionaries["leadSource"].pop()
    crm.stack.move_clock(60)
    second = add_lead_source(crm, "Facebook")
    assert outcome(second) == (201, "INFO")
    assert second.json()["id"] != first
    assert lead_sources(crm)[2:] == [(second.json()["id"], "Facebook", True)]


@pytest.mark.parametrize("kind", [Kind.CLOSE_AFTER, Kind.ERROR_BEFORE, Kind.UNAVAILABLE, Kind.HTML])
def test_a_lead_source_is_made_once_when_its_answer_was_lost(crm: Crm, egito: EgitoSimulator, kind: Kind) -> None:
    egito.fail(kind)
    accepted = add_lead_source(crm, "Facebook")
    assert outcome(accepted) == (202, "WARNING")
    assert crm.settle(accepted)["result"]["name"] == "Facebook"
    assert [entry["name"] for entry in egito.dictionaries["leadSource"]] == ["Website", "Walk-in", "Facebook"]


def test_a_lead_source_is_accepted_while_egito_is_down_and_made_once_it_is_back(
    crm: Crm, egito: EgitoSimulator
) -> None:
    egito.fail(Kind.UNAVAILABLE, method="GET", times=2)
    accepted = add_lead_source(crm, "Facebook")
    assert outcome(accepted) == (202, "WARNING")
    assert len(egito.dictionaries["leadSource"]) == 2
    assert crm.settle(accepted)["state"] == "succeeded"
    assert outcome(add_lead_source(crm, "facebook")) == (200, "INFO")
    assert [entry["name"] for entry in egito.dictionaries["leadSource"]] == ["Website", "Walk-in", "Facebook"]


def test_a_lead_source_that_was_made_before_is_not_returned_while_its_name_is_unknown(
    crm: Crm, egito: EgitoSimulator
) -> None:
    add_lead_source(crm, "Facebook")
    egito.fail(Kind.UNAVAILABLE, method="GET")
    assert add_lead_source(crm, "Facebook").status_code == 503


def test_a_lead_source_that_egito_does_not_have_is_not_sent_to_it(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, lead_sources=LEAD_SOURCES["not writable"])
    kept = add_lead_source(crm, "Facebook").json()["id"]
    assert outcome(save(crm, leadSource=kept)) == (201, "WARNING")
    assert the_record(egito)["source"] == ""


def test_the_name_is_sent_when_the_bridge_itself_keeps_the_lead_sources(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, lead_sources={})
    kept = add_lead_source(crm, "Facebook").json()["id"]
    assert outcome(save(crm, leadSource=kept)) == (201, "INFO")
    assert the_record(egito)["source"] == "Facebook"
    assert outcome(save(crm, leadSource="FACEBOOK")) == (200, "INFO")
    assert the_record(egito)["source"] == "Facebook"


def test_a_lead_source_can_be_used_as_soon_as_it_was_made(crm: Crm, egito: EgitoSimulator) -> None:
    made = add_lead_source(crm, "Facebook").json()["id"]
    assert outcome(save(crm, leadSource=made)) == (201, "INFO")
    assert the_record(egito)["source"] == made


def test_a_lead_sources_new_name_can_be_used_as_soon_as_it_was_given(crm: Crm, egito: EgitoSimulator) -> None:
    change_lead_source(crm, "2", "Passer-by")
    assert outcome(save(crm, leadSource="Passer-by")) == (201, "INFO")
    assert the_record(egito)["source"] == "2"

"""Saves of a person that come between the reading of another and its claim: one person, one record, the last counts."""

from collections.abc import Callable
from typing import Any

import pytest

from connector_receiver.people import People, Recognised, identity
from crm_bridge.errors import StorageError
from crm_bridge.runtime import runtime
from crm_bridge.storage.operations import Operations
from crm_bridge.vendors.egito import Egito
from local.vendors.egito import EgitoSimulator
from local.vendors.simulator import Kind
from tests.integration.conftest import Crm
from tests.integration.connector.conftest import LEAD_AND_CONTACT, change_tenant, outcome, save, saved, the_record
from tests.stack import Stack


@pytest.fixture
def egito(stack: Stack) -> EgitoSimulator:
    return stack.egito


def between(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """Do `work` after the next person was read, and before the save is claimed."""
    real = People.look

    def look(self: People, *arguments: Any, **options: Any) -> Recognised | None:
        found = real(self, *arguments, **options)
        if People.look is not real:
            monkeypatch.undo()
            work()
        return found

    monkeypatch.setattr(People, "look", look)


@pytest.mark.parametrize("uuid", [{"uuid": "u-1"}, {}])
def test_somebody_new_is_one_person_when_two_saves_meet(
    crm: Crm, egito: EgitoSimulator, monkeypatch: pytest.MonkeyPatch, uuid: dict[str, str]
) -> None:
    other: list[str] = []
    between(monkeypatch, lambda: other.append(saved(crm, **uuid, city="Gdańsk")))
    assert saved(crm, **uuid, city="Kraków", zipcode="30-001") in other
    record = the_record(egito)
    assert (record["city"], record["externalId"]) == ("Gdańsk", other[0])


def test_the_later_save_counts_when_it_had_the_turn_since_the_other_was_read(
    crm: Crm, egito: EgitoSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = saved(crm, uuid="u-1")
    between(monkeypatch, lambda: saved(crm, uuid="u-1", city="Gdańsk"))
    assert saved(crm, person, city="Kraków", company="Acme") == person
    record = the_record(egito)
    assert (record["city"], record["company"]) == ("Gdańsk", "Acme")


def test_a_lead_is_converted_when_it_was_made_after_the_member_was_read(
    crm: Crm, egito: EgitoSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    between(monkeypatch, lambda: saved(crm, uuid="u-1"))
    saved(crm, uuid="u-1", userType="MEMBER")
    assert the_record(egito, "Lead")["notes"] == "won"
    assert the_record(egito)["type"] == "MEMBER"


def test_no_lead_is_made_when_the_person_became_a_member_since_it_was_read(
    crm: Crm, egito: EgitoSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    between(monkeypatch, lambda: saved(crm, uuid="u-1", userType="MEMBER"))
    saved(crm, uuid="u-1", company="Acme")
    assert egito.records["Lead"] == []
    assert (the_record(egito)["type"], the_record(egito)["company"]) == ("MEMBER", "Acme")


def test_a_record_id_is_only_returned_when_it_is_stored(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    person = saved(crm, uuid="u-1")

    def fail(*_: object, **__: object) -> None:
        raise StorageError("The bridge's storage did not respond.")

    monkeypatch.setattr(Operations, "create", fail)
    known, new = save(crm, person), save(crm, uuid="u-2", lastname="Other")
    assert (outcome(known), outcome(new)) == ((503, "ERROR"), (503, "ERROR"))
    assert known.json()["recordID"] == person
    assert "recordID" not in new.json()


def test_a_lead_is_converted_when_it_was_made_by_a_save_that_had_the_turn_since_the_member_was_read(
    crm: Crm, egito: EgitoSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    assert save(crm, uuid="u-1", company="x" * 256).status_code == 422  # known by now, and without a record
    between(monkeypatch, lambda: saved(crm, uuid="u-1"))
    saved(crm, uuid="u-1", userType="MEMBER")
    assert the_record(egito, "Lead")["notes"] == "won"


def test_the_members_record_is_linked_before_the_leads_is_closed(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    person = saved(crm, uuid="u-1")
    linked: list[int] = []
    real = Egito.update

    def update(self: Egito, *arguments: Any) -> None:
        linked.append(len(runtime().links.of("demo", identity(person))))
        real(self, *arguments)

    monkeypatch.setattr(Egito, "update", update)
    saved(crm, person, userType="MEMBER")
    assert linked == [3]  # to the Connector's id, and to both records


def test_a_leads_record_that_waits_is_not_made_when_there_is_a_members(crm: Crm, egito: EgitoSimulator) -> None:
    change_tenant(crm.stack, **LEAD_AND_CONTACT)
    egito.fail(Kind.UNAVAILABLE)
    prospect = save(crm, uuid="u-1", city="Kraków")
    assert (prospect.status_code, saved(crm, uuid="u-1", userType="MEMBER")) == (202, prospect.json()["recordID"])
    crm.stack.deliver_due(after=3600)
    assert crm.settle(prospect)["state"] == "succeeded"
    assert egito.records["Lead"] == []
    assert the_record(egito)["city"] == "Kraków"

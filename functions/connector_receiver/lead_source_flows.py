"""create_lead_source, change_lead_source: entries of Egito's dictionary of lead sources."""

from collections.abc import Iterator

from connector_receiver.lead_sources import plain
from connector_receiver.models import LeadSource, LeadSourceName, NewLeadSource
from connector_receiver.person_records import NOT_WHOLE
from connector_receiver.receiver import Receiver
from connector_receiver.saves import AFTER_THE_RECORD
from crm_bridge import Change, Create, Match, Update
from crm_bridge.errors import IncompleteSearchError, NoSuchRecordError
from crm_bridge.fields import may_have_become
from crm_bridge.sequence import Turns
from crm_bridge.storage.links import joined
from crm_bridge.vendors.egito import VENDOR, Egito


class CreateLeadSource(
    Create[NewLeadSource, Egito, LeadSource], name="create_lead_source", function="connector_receiver"
):
    update = Update(
        "no", "A lead source has only its name. PUT /connector/clubs/{club_id}/lead-sources/{id} changes it."
    )
    key_parts = ("dictionary", "name")

    def key(self, command: NewLeadSource) -> str:
        return joined(command.dictionary, plain(command.name))

    def send(self, command: NewLeadSource, vendor: Egito) -> LeadSource | Match[LeadSource]:
        if there := Receiver(self.context, vendor).lead_sources.in_dictionary(command.name):
            return Match(there)
        return LeadSource(id=vendor.create_entry(command.dictionary, command.name), name=command.name)

    def find(self, command: NewLeadSource, vendor: Egito) -> Iterator[Match[LeadSource]]:
        lead_sources = Receiver(self.context, vendor).lead_sources
        there = lead_sources.in_dictionary(command.name)
        if there:
            yield Match(there)
        for entry in lead_sources.entries(AFTER_THE_RECORD) if not there else ():
            if may_have_become(command.name, entry.name):
                yield Match(LeadSource(id=entry.id, name=entry.name), None, False, entry.id, entry.name)
        if not vendor.settings.lists_everything:
            raise IncompleteSearchError(NOT_WHOLE, vendor=VENDOR)

    def existing(self, command: NewLeadSource, record_id: str) -> LeadSource:
        return LeadSource(id=record_id, name=command.name)

    def verify(self, command: NewLeadSource, result: LeadSource, vendor: Egito) -> str | None:
        entries = Receiver(self.context, vendor).lead_sources.entries()
        there = next((one for one in entries if one.id == result.id), None)
        if there is not None:
            return None if plain(there.name) == plain(command.name) else "Egito's entry has another name"
        if not vendor.settings.lists_everything:
            return NOT_WHOLE
        raise NoSuchRecordError("Egito's dictionary has no entry with this id.", vendor=VENDOR)


class ChangeLeadSource(
    Change[LeadSourceName, Egito, LeadSource], name="change_lead_source", function="connector_receiver"
):
    """One change at a time, and the last one that was asked for counts."""

    update = Update("yes", "Each request is an event of its own. The last one that arrived counts.")
    key_parts = ("id", "asked_at")

    def key(self, command: LeadSourceName) -> str:
        return joined(command.id, str(command.asked_at))

    def send(self, command: LeadSourceName, vendor: Egito) -> LeadSource:
        lead_sources = Receiver(self.context, vendor).lead_sources

        def work() -> LeadSource:
            entry = next((one for one in lead_sources.entries() if one.id == command.id), None)
            if entry is None:
                raise NoSuchRecordError("Egito no longer has this lead source", vendor=VENDOR)
            if entry.name != command.name:
                vendor.update_entry(command.dictionary, entry, command.name)
            return LeadSource(id=command.id, name=command.name)

        turns = Turns(self.context, joined("lead source", vendor.destination, command.id), VENDOR)
        return turns.apply("name", command.asked_at, work) or LeadSource(id=command.id, name=command.name)

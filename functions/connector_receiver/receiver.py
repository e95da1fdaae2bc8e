"""Egito for one tenant within one run, as its settings describe it."""

from dataclasses import dataclass

from connector_receiver.lead_sources import LeadSources
from crm_bridge import Context
from crm_bridge.vendors.connector_settings import ConnectorSettings
from crm_bridge.vendors.egito import Egito
from crm_bridge.vendors.egito_settings import EgitoSettings, StaffMember


@dataclass(frozen=True)
class Receiver:
    """The settings, the staff and the lead sources, for all flows of the Connector."""

    context: Context
    egito: Egito

    @property
    def settings(self) -> EgitoSettings:
        return self.egito.settings

    @property
    def connector(self) -> ConnectorSettings:
        return self.context.settings.require(ConnectorSettings)

    @property
    def lead_sources(self) -> LeadSources:
        services = self.context.services
        kind = self.settings.lead_sources.dictionary
        return LeadSources(self.egito, kind, services.people, services.cache, self.context.scope)

    def staff(self, max_age: float = 0) -> list[StaffMember]:
        """Return the staff, from the cache if it was read at most `max_age` seconds ago."""
        where = self.settings.staff
        if where.people is not None:
            return list(where.people)
        key = (self.egito.destination, "staff", where)
        return self.context.services.cache.get_or_load(self.context.scope, key, self.egito.staff, max_age=max_age)

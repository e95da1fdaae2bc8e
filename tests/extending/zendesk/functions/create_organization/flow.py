"""create_organization: a company in HubSpot becomes an organization in Zendesk.

The organization has the company's id as its external id, by which it is recognised.
"""

from collections.abc import Iterator, Sequence

from crm_bridge import Command, Create, Identity, Import, Kind, Link, Match
from crm_bridge.errors import FieldError, InvalidError
from crm_bridge.fields import Id, Text, numeric_id
from crm_bridge.vendors.zendesk import Organization, Zendesk


class Company(Command):
    """A company that is to become an organization."""

    company_id: Id
    name: Text
    domains: tuple[Text, ...] = ()


class CreateOrganization(
    Create[Company, Zendesk, Organization], name="create_organization", route="POST /organizations"
):
    """A new company.

    The company becomes an organization at Zendesk. `company_id` is what makes the event unique.
    """

    about = Kind("hubspot", "company")
    kinds = (about, Kind("zendesk", "organization"))
    imports = Import("organizations", "Companies that are to become organizations: company_id, name, domains.", "id")

    def key(self, command: Company) -> str:
        return command.company_id

    def send(self, command: Company, vendor: Zendesk) -> Organization:
        return vendor.create_organization(
            external_id=command.company_id, name=command.name, domain_names=command.domains
        )

    def find(self, command: Company, vendor: Zendesk) -> Iterator[Match[Organization]]:
        for found in vendor.organizations(external_id=command.company_id):
            certain = found.external_id == command.company_id
            yield Match(found, found.created_at, certain, str(found.id), found.name)

    def links(self, command: Company, result: Organization) -> Sequence[Link]:
        return [Link(Identity(*self.kinds[0], command.company_id), Identity(*self.kinds[1], str(result.id)))]

    def existing(self, command: Company, record_id: str) -> Organization:
        return Organization(id=numeric_id(record_id, "Zendesk's id"), name=command.name, external_id=command.company_id)

    def verify(self, command: Company, result: Organization, vendor: Zendesk) -> str | None:
        found = vendor.organization(result.id)
        if found.external_id is None:
            return "Zendesk's organization with this id has no external id"
        if found.external_id.casefold() != command.company_id.casefold():
            raise InvalidError(
                "Zendesk's organization with this id belongs to another company.",
                fields=[FieldError("id", "is the id of another company's organization")],
            )
        return None

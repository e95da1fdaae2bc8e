"""Zendesk (help desk): https://developer.zendesk.com/api-reference/ticketing/organizations/organizations/

An organization has an `external_id`, by which it is found again. Zendesk keeps it unique, and ignores its case.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated
from urllib.parse import quote

from pydantic import ConfigDict, Field

from crm_bridge.errors import CannotLookError, NoSuchRecordError
from crm_bridge.flow import Result
from crm_bridge.outbound.findings import Finding
from crm_bridge.outbound.response import basic
from crm_bridge.outbound.vendor import Vendor
from crm_bridge.settings import LoginSecret, Prompt, Settings, VendorUrl

NOBODY = "crm-bridge doctor"
"""An external id that no organization has, which `check` looks for."""


class ZendeskSettings(Settings):
    """How to reach a tenant's Zendesk. Source: https://developer.zendesk.com/api-reference/introduction/security-and-auth/"""

    model_config = ConfigDict(title="Zendesk (organizations)")
    block = "zendesk"

    base_url: Annotated[VendorUrl, Prompt("Address, as https://acme.zendesk.com")]
    email: Annotated[str, Prompt("E-mail address of the user"), Field(pattern=r"^[^@:\s]+@[^@:\s]+$")]
    """Of an admin, or of an agent whose role may add and change organizations."""
    api_token: Annotated[LoginSecret, Prompt("API token, from the Admin Center")]
    search_lag: int = Field(default=60, ge=30, le=86_400)
    """Seconds after which a new organization is sure to be found. Zendesk documents no delay."""


class Organization(Result):
    """An organization as Zendesk returns it."""

    id: int
    name: str
    external_id: str | None = None
    created_at: datetime | None = None


class _Found(Result):
    organizations: list[Organization]
    next_page: str | None = None


class Zendesk(Vendor[ZendeskSettings]):
    """The organizations of one Zendesk account."""

    name = "Zendesk"

    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Basic {self._login()}"}

    def secrets(self) -> tuple[str, ...]:
        return (*super().secrets(), self._login())

    def create_organization(self, *, external_id: str, name: str, domain_names: Sequence[str]) -> Organization:
        """`POST /api/v2/organizations`. The name must be unique.

        Source: https://developer.zendesk.com/api-reference/ticketing/organizations/organizations/#create-organization
        """
        organization = {"external_id": external_id, "name": name, "domain_names": domain_names}
        return self.read(
            self.post("/api/v2/organizations", {"organization": organization}, 201), Organization, "organization"
        )

    def organizations(self, *, external_id: str) -> list[Organization]:
        """`GET /api/v2/organizations/search`. Return those with this external id, in whatever case.

        Raises CannotLookError if there are more pages: an incomplete list cannot show that there is none.
        Source: https://developer.zendesk.com/api-reference/ticketing/organizations/organizations/#search-organizations
        """
        answer = self.get(f"/api/v2/organizations/search?external_id={quote(external_id, safe='')}", 200)
        found = self.read(answer, _Found)
        if found.next_page:
            raise CannotLookError("Zendesk returned only a part of the organizations", vendor=self.name)
        return found.organizations

    def organization(self, organization_id: int) -> Organization:
        """`GET /api/v2/organizations/{id}`. Raises NoSuchRecordError.

        Source: https://developer.zendesk.com/api-reference/ticketing/organizations/organizations/#show-organization
        """
        answer = self.get(f"/api/v2/organizations/{organization_id}", 200, 404)
        if answer.status == 404:
            raise NoSuchRecordError("Zendesk has no organization with this id.", vendor=self.name)
        return self.read(answer, Organization, "organization")

    def check(self) -> Iterator[Finding]:
        yield self.asked(
            "search for organizations", lambda zendesk: zendesk.organizations(external_id=NOBODY), lambda _: "signed in"
        )

    def _login(self) -> str:
        return basic(f"{self.settings.email}/token", self.settings.api_token.get_secret_value())

"""The decisions of create_site: which event it is, how it is sent, how it is recognised, what it links."""

import re
import unicodedata
from collections.abc import Sequence
from math import isclose
from typing import Protocol

from create_site.models import CreatedSite, CreateSite
from crm_bridge.clients.illu import IlluSite, ListedIlluSite, illu_client
from crm_bridge.engine import Hit
from crm_bridge.errors import FieldError, InvalidError
from crm_bridge.links import Identity, Link
from crm_bridge.settings import Tenant
from crm_bridge.transport import Deadline, Transport

SAME_PLACE = 5e-4
"""Degrees within which two positions are one, about 55 m: a vendor may round to three places what it stores."""


class Sites(Protocol):
    """What this flow needs of illu."""

    @property
    def destination(self) -> str: ...

    @property
    def search_lag(self) -> int: ...

    def create_site(self, *, name: str, latitude: float, longitude: float, address: str) -> IlluSite: ...

    def list_sites(self, *, name: str) -> list[ListedIlluSite]: ...

    def site(self, site_id: int, *, name: str) -> ListedIlluSite | None: ...


class CreateSiteFlow:
    name = "create_site"
    command = CreateSite

    def vendor(self, tenant: str, settings: Tenant, transport: Transport, deadline: Deadline) -> Sites:  # noqa: ARG002
        return illu_client(settings, transport, deadline)

    def key(self, command: CreateSite) -> str:
        return command.customer_id

    def repeatable(self, command: CreateSite) -> bool:  # noqa: ARG002
        return False

    def send(self, command: CreateSite, vendor: Sites) -> CreatedSite:
        site = vendor.create_site(
            name=command.name, latitude=command.latitude, longitude=command.longitude, address=command.address
        )
        return _created(command, site)

    def find(self, command: CreateSite, vendor: Sites) -> Sequence[Hit[CreatedSite]]:
        """illu stores no id of ours, so a site is recognised by its name and position."""
        return [
            Hit(_created(command, site), site.created_at)
            for site in vendor.list_sites(name=command.name)
            if _is_the_one(command, site)
        ]

    def adopt(self, tenant: str, command: CreateSite, vendor_id: str) -> CreatedSite:  # noqa: ARG002
        if not re.fullmatch("[1-9][0-9]{0,17}", vendor_id):
            raise InvalidError("Give illu's site_id, which is a number.", fields=[FieldError("id", "must be a number")])
        return CreatedSite(site_id=int(vendor_id), customer_id=command.customer_id)

    def verify(self, command: CreateSite, result: CreatedSite, vendor: Sites) -> str | None:
        site = vendor.site(result.site_id, name=command.name)
        if site is None:
            raise InvalidError(
                f"illu's list has no site with this id. A new site may be missing from it for {vendor.search_lag} s.",
                fields=[FieldError("id", "is not the id of a site")],
            )
        if not _is_there(command, site):
            raise InvalidError(
                "illu's site with this id is at another position than the customer. Choose another one, or correct its "
                "position at illu first.",
                fields=[FieldError("id", "is the id of a site at another position")],
            )
        return None if plain(site.name) == plain(command.name) else "illu's site with this id has another name"

    def links(self, command: CreateSite, result: CreatedSite) -> Sequence[Link]:
        return [Link(Identity("crm", "customer", command.customer_id), Identity("illu", "site", str(result.site_id)))]


def _created(command: CreateSite, site: IlluSite) -> CreatedSite:
    members = site.model_dump(mode="json", exclude_unset=True)
    return CreatedSite.model_validate({**members, "customer_id": command.customer_id})


def _is_the_one(command: CreateSite, site: ListedIlluSite) -> bool:
    return plain(site.name) == plain(command.name) and _is_there(command, site)


def _is_there(command: CreateSite, site: ListedIlluSite) -> bool:
    return isclose(site.latitude, command.latitude, rel_tol=0, abs_tol=SAME_PLACE) and isclose(
        site.longitude, command.longitude, rel_tol=0, abs_tol=SAME_PLACE
    )


def plain(name: str) -> list[str]:
    """The words of a text, without what a vendor may change as it stores it: spaces, case, composition, escapes."""
    import html  # only a look-up needs it, and a cold start need not wait for its table of names

    return unicodedata.normalize("NFKC", html.unescape(name)).casefold().split()

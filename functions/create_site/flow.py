"""The decisions of create_site: which event it is, how it is sent, how it is recognised, what it links."""

import re
from collections.abc import Iterator, Sequence
from math import isclose
from typing import Protocol

from create_site.models import CreatedSite, CreateSite
from crm_bridge.engine import Hit
from crm_bridge.errors import FieldError, InvalidError, NotShownError
from crm_bridge.fields import is_same_text
from crm_bridge.links import Identity, Link
from crm_bridge.settings import Tenant
from crm_bridge.transport import Deadline, Transport
from crm_bridge.vendors.illu import VENDOR, Illu, IlluSettings, IlluSite, ListedIlluSite

SAME_PLACE = 5e-4
"""Degrees within which two positions may be one, about 55 m: a vendor may round to three places what it stores."""
VERY_PLACE = 1e-6
"""Degrees within which they are one, about 10 cm."""
NOT_SHOWN = "illu was asked by the name, and may have stored it altered: name a list of all without {{name}} ({})"


class Sites(Protocol):
    """What this flow needs of illu."""

    @property
    def destination(self) -> str: ...

    @property
    def search_lag(self) -> int: ...

    def create_site(self, *, name: str, latitude: float, longitude: float, address: str) -> IlluSite: ...

    @property
    def lists_all_sites(self) -> bool: ...

    def list_sites(self, *, name: str) -> list[ListedIlluSite]: ...

    def site(self, site_id: int, *, name: str) -> ListedIlluSite | None: ...


class CreateSiteFlow:
    name = "create_site"
    command = CreateSite

    def vendor(self, tenant: str, settings: Tenant, transport: Transport, deadline: Deadline) -> Sites:  # noqa: ARG002
        return Illu(settings.require(IlluSettings), transport, deadline)

    def key(self, command: CreateSite) -> str:
        return command.customer_id

    def repeatable(self, command: CreateSite) -> bool:  # noqa: ARG002
        return False

    def send(self, command: CreateSite, vendor: Sites) -> CreatedSite:
        site = vendor.create_site(
            name=command.name, latitude=command.latitude, longitude=command.longitude, address=command.address
        )
        return _created(command, site)

    def find(self, command: CreateSite, vendor: Sites) -> Iterator[Hit[CreatedSite]]:
        """illu stores no id of ours, so a site is recognised by its position, whatever became of its texts."""
        for site in vendor.list_sites(name=command.name):
            if _is_at(command, site, SAME_PLACE):
                certain = (
                    _is_at(command, site, VERY_PLACE)
                    and is_same_text(site.name, command.name)
                    and is_same_text(site.address, command.address)
                )
                yield Hit(_created(command, site), site.created_at, certain, str(site.site_id), site.name)
        if not vendor.lists_all_sites:
            raise NotShownError(NOT_SHOWN.format("site_list_path"), vendor=VENDOR)

    def link_existing(self, tenant: str, command: CreateSite, vendor_id: str) -> CreatedSite:  # noqa: ARG002
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
        if not _is_at(command, site, SAME_PLACE):
            raise InvalidError(
                "illu's site with this id is at another position than the customer. Choose another one, or correct its "
                "position at illu first.",
                fields=[FieldError("id", "is the id of a site at another position")],
            )
        return None if is_same_text(site.name, command.name) else "illu's site with this id has another name"

    def links(self, command: CreateSite, result: CreatedSite) -> Sequence[Link]:
        return [Link(Identity("crm", "customer", command.customer_id), Identity("illu", "site", str(result.site_id)))]


def _created(command: CreateSite, site: IlluSite) -> CreatedSite:
    members = site.model_dump(mode="json", exclude_unset=True)
    return CreatedSite.model_validate({**members, "customer_id": command.customer_id})


def _is_at(command: CreateSite, site: ListedIlluSite, tolerance: float) -> bool:
    return isclose(site.latitude, command.latitude, rel_tol=0, abs_tol=tolerance) and isclose(
        site.longitude, command.longitude, rel_tol=0, abs_tol=tolerance
    )

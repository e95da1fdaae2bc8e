"""create_site: a new customer in a CRM becomes a site at illu.

illu stores no id of ours, so a site is recognised by its position, whatever became of its texts.
"""

from collections.abc import Iterator, Sequence
from math import isclose

from create_site.models import NewSite, SiteCreated
from crm_bridge import Create, FromSource, Identity, Import, Kind, Link, Match, Update
from crm_bridge.errors import FieldError, InvalidError
from crm_bridge.fields import is_same_text, numeric_id
from crm_bridge.vendors.illu import Illu, IlluSite, ListedIlluSite

SAME_PLACE = 5e-4
"""Degrees within which two positions may be one, about 55 m: a vendor may round to three places what it stores."""
VERY_PLACE = 1e-6
"""Degrees within which they are one, about 10 cm."""


class CreateSite(Create[NewSite, Illu, SiteCreated], name="create_site", route="POST /sites"):
    """A new customer.

    The customer becomes a site at illu. `customer_id` is what makes the event unique.
    """

    about = Kind("crm", "customer")
    kinds = (about, Kind("illu", "site"))
    imports = Import(
        "sites", "Customers that become sites at illu: customer_id, name, latitude, longitude, address.", "site_id"
    )
    update = Update("no", "illu documents no call that changes a site. Change the site at illu.")
    from_source = FromSource()

    def key(self, command: NewSite) -> str:
        return command.customer_id

    def send(self, command: NewSite, vendor: Illu) -> SiteCreated:
        return _result(command, vendor.create_site(**command.model_dump(exclude={"customer_id"})))

    def find(self, command: NewSite, vendor: Illu) -> Iterator[Match[SiteCreated]]:
        for site in vendor.list_sites(name=command.name):
            if _is_at(command, site, SAME_PLACE):
                is_same = is_same_text(site.name, command.name) and is_same_text(site.address, command.address)
                certain = is_same and _is_at(command, site, VERY_PLACE)
                yield Match(_result(command, site), site.created_at, certain, str(site.site_id), site.name)
        vendor.expect_all_sites()

    def existing(self, command: NewSite, record_id: str) -> SiteCreated:
        return SiteCreated(site_id=numeric_id(record_id, "illu's site_id"), customer_id=command.customer_id)

    def verify(self, command: NewSite, result: SiteCreated, vendor: Illu) -> str | None:
        site = vendor.site(result.site_id, name=command.name)
        if not _is_at(command, site, SAME_PLACE):
            why = "This site is not where the customer is. Choose another one, or correct its position at illu first."
            raise InvalidError(why, fields=[FieldError("id", "is the id of a site at another position")])
        return None if is_same_text(site.name, command.name) else "illu's site with this id has another name"

    def links(self, command: NewSite, result: SiteCreated) -> Sequence[Link]:
        return [Link(Identity("crm", "customer", command.customer_id), Identity("illu", "site", str(result.site_id)))]


def _result(command: NewSite, site: IlluSite) -> SiteCreated:
    return SiteCreated.model_validate({**site.members(), "customer_id": command.customer_id})


def _is_at(command: NewSite, site: ListedIlluSite, tolerance: float) -> bool:
    pairs = ((site.latitude, command.latitude), (site.longitude, command.longitude))
    return all(isclose(theirs, ours, rel_tol=0, abs_tol=tolerance) for theirs, ours in pairs)

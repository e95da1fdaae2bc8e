"""The command and the result of create_site."""

from typing import Annotated

from pydantic import Field

from crm_bridge import Command, Result
from crm_bridge.fields import Id, Latitude, Longitude, Text


class SiteDetails(Command):
    """What illu wants to know of a site. The limits on length are ours: illu documents none."""

    name: Annotated[Text, Field(max_length=500)]
    latitude: Latitude
    longitude: Longitude
    address: Text


class NewSite(SiteDetails):
    """A customer who is to become a site."""

    customer_id: Id


class SiteCreated(Result):
    """illu's own members as they came, and whose site it is."""

    site_id: int
    customer_id: str

"""What create_site takes and gives."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from crm_bridge.fields import Id, Latitude, Longitude, Text


class SiteDetails(BaseModel):
    """What illu wants to know of a site. The limits on length are ours: illu documents none."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[Text, Field(max_length=500)]
    latitude: Latitude
    longitude: Longitude
    address: Text


class CreateSite(SiteDetails):
    """A customer who is to become a site."""

    customer_id: Id


class CreatedSite(BaseModel):
    """illu's own members as they came, and whose site it is."""

    model_config = ConfigDict(frozen=True, extra="allow")

    site_id: int
    customer_id: str

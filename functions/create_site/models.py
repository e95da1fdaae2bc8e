"""What create_site takes and gives."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

# The limits on length are ours: illu documents none. Those on degrees are the earth's.
type Id = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
type Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
type Address = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]


class CreateSite(BaseModel):
    """A customer who is to become a site. Degrees are WGS 84."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, hide_input_in_errors=True)

    customer_id: Id
    name: Name
    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)
    address: Address


class CreatedSite(BaseModel):
    """illu's own members as they came, and whose site it is."""

    model_config = ConfigDict(frozen=True, extra="allow")

    site_id: int
    customer_id: str

"""What operations takes."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from crm_bridge.fields import AnyId, Id, Text, composed, without_unseen
from crm_bridge.links import Identity
from crm_bridge.operations import State


class Resolution(BaseModel):
    """What a person decided about an operation."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    action: Literal["link", "retry", "discard", "unlink"]
    id: Id | None = None
    """The vendor's id of the record that is to be linked."""
    confirmed: bool = False
    """With link: a person has compared the id a second time, because the vendor cannot verify it."""

    @model_validator(mode="after")
    def _names_what_is_linked(self) -> Self:
        if (self.action == "link") is (self.id is None):
            raise ValueError("give the vendor's id with link, and with nothing else")
        if self.confirmed and self.action != "link":
            raise ValueError("give confirmed with link, and with nothing else")
        return self


def _place(value: str) -> str:
    if not re.fullmatch(rf"({'|'.join(State)})\.[0-9]{{1,10}}\.op_[0-9a-f]{{32}}", value):
        raise ValueError("give what stood under next in the answer before")
    return value


class Listing(BaseModel):
    """What `GET /operations` may ask for."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    id: (
        Annotated[str, Field(min_length=1, max_length=1000), BeforeValidator(composed), BeforeValidator(without_unseen)]
        | None
    ) = None
    """Of the operation, of what it is about, or of what it is linked to."""
    state: State | None = None
    flow: Literal["create_site", "create_job", "key_link", "status_update", "connector_receiver", "webhook"] | None = (
        None
    )
    limit: Annotated[int, Field(ge=1, le=100)] = 50
    after: Annotated[str, AfterValidator(_place)] | None = None


class LinkSearch(BaseModel):
    """The record whose links are asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    system: Text
    """In whatever case: `crm`, `illu`."""
    entity: Text
    """In whatever case: `customer`, `site`."""
    id: AnyId

    @property
    def identity(self) -> Identity:
        return Identity(self.system.casefold(), self.entity.casefold(), self.id)

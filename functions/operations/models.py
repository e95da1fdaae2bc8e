"""What operations takes."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from crm_bridge.fields import Id


class Resolution(BaseModel):
    """What a person decided about a parked operation."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    action: Literal["adopt", "resend", "abandon"]
    id: Id | None = None
    """The vendor's id of the record that is to be adopted."""

    @model_validator(mode="after")
    def _names_what_is_adopted(self) -> Self:
        if (self.action == "adopt") is (self.id is None):
            raise ValueError("give the vendor's id with adopt, and with nothing else")
        return self

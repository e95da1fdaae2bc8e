"""The result of webhook. Its command is made where operations settle: `crm_bridge.webhooks`."""

from pydantic import BaseModel, ConfigDict


class Notified(BaseModel):
    """The receiver has taken the webhook."""

    model_config = ConfigDict(frozen=True)

    status: int
    """The receiver's HTTP status."""

"""The decisions of webhook: to whom it goes, what counts as told, and when nobody is to be told any more."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from crm_bridge.accounts import Accounts
from crm_bridge.engine import Hit
from crm_bridge.errors import ConflictError, NeedlessError, NotDoneError
from crm_bridge.links import Link
from crm_bridge.settings import Tenant
from crm_bridge.telemetry import count, logger
from crm_bridge.transport import Answer, Deadline, Transport, changing_nothing
from crm_bridge.vendors.webhook import VENDOR, Webhook, WebhookSettings
from crm_bridge.webhooks import FLOW, WebhookEvent
from webhook.models import Told

GONE = 410


class Notified(Protocol):
    """The part of a webhook that this flow calls."""

    def notify(self, webhook_id: str, body: bytes) -> Answer: ...


@dataclass(frozen=True)
class Address:
    """The webhook of a tenant; `webhook` is None if the tenant names none."""

    webhook: Notified | None
    accounts: Accounts
    tenant: str
    version: str
    """Tells one version of the tenant's secret from another."""
    search_lag: int = 0

    @property
    def destination(self) -> str:
        """A webhook is for the tenant, also when its address has changed."""
        return "the tenant's webhook address"

    def is_gone(self) -> bool:
        return self.accounts.has_refused(self.tenant, FLOW, self.version)

    def note_gone(self) -> None:
        self.accounts.refuse(self.tenant, FLOW, self.version)
        logger().warning("webhook address gone")
        count("WebhookStopped", flow=FLOW)


@dataclass(frozen=True)
class WebhookFlow:
    accounts: Accounts
    clock: Callable[[], float]
    name: ClassVar[str] = FLOW
    command: ClassVar[type[WebhookEvent]] = WebhookEvent

    def vendor(self, tenant: str, settings: Tenant, transport: Transport, deadline: Deadline) -> Address:
        named = settings.of(WebhookSettings)
        webhook = Webhook(named, transport, deadline, self.clock) if named else None
        return Address(webhook, self.accounts, tenant, settings.version)

    def key(self, command: WebhookEvent) -> str:
        return command.id

    def repeatable(self, command: WebhookEvent) -> bool:  # noqa: ARG002
        """The receiver knows a repeated one by its id."""
        return True

    def send(self, command: WebhookEvent, vendor: Address) -> Told:
        if vendor.webhook is None:
            raise NeedlessError("the tenant names no webhook address any more", vendor=VENDOR)
        if vendor.is_gone():
            raise NeedlessError(
                f"{VENDOR} has answered {GONE}. Nothing is sent to it until the tenant's secret changes", vendor=VENDOR
            )
        with changing_nothing():
            answer = vendor.webhook.notify(command.id, command.model_dump_json(exclude={"id"}).encode())
        if 200 <= answer.status < 300:
            return Told(status=answer.status)
        message = f"{VENDOR} answered {answer.status}"
        if answer.status == GONE:
            vendor.note_gone()
            raise NeedlessError(message, vendor=VENDOR, status=answer.status)
        # A receiver may be set up wrongly for a while, so its refusals are no better than an outage.
        raise NotDoneError(message, vendor=VENDOR, status=answer.status, retry_after=answer.retry_after)

    def find(self, command: WebhookEvent, vendor: Address) -> Sequence[Hit[Told]]:  # noqa: ARG002
        return ()

    def link_existing(self, tenant: str, command: WebhookEvent, vendor_id: str) -> Told:  # noqa: ARG002
        raise ConflictError("A webhook is no record that could be linked. Send it again, or discard it.")

    def verify(self, command: WebhookEvent, result: Told, vendor: Address) -> str | None:  # noqa: ARG002
        return None  # `link` takes none

    def links(self, command: WebhookEvent, result: Told) -> Sequence[Link]:  # noqa: ARG002
        return ()

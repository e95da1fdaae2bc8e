"""webhook: the outcome of an operation is sent to the tenant's own system, until that takes it."""

from crm_bridge import Change, Update
from crm_bridge.errors import NeedlessError, NotDoneError
from crm_bridge.outbound.transport import changing_nothing
from crm_bridge.telemetry import count, logger
from crm_bridge.vendors.webhook import VENDOR, Webhook
from crm_bridge.webhooks import FLOW, WebhookEvent
from webhook.models import Notified

GONE = 410


class SendWebhook(Change[WebhookEvent, Webhook, Notified], name=FLOW):
    """The receiver knows a repeated webhook by its id."""

    update = Update("yes", "Each webhook is an event of its own.")

    def key(self, command: WebhookEvent) -> str:
        return command.id

    def account(self, vendor: Webhook) -> str:  # noqa: ARG002
        """A webhook is for the tenant, also when its address has changed."""
        return "the tenant's webhook address"

    def send(self, command: WebhookEvent, vendor: Webhook) -> Notified:
        locks, tenant, version = self.context.services.locks, self.context.tenant, self.context.settings.version
        if locks.has_refused(tenant, FLOW, version):
            raise NeedlessError(
                f"The webhook's address has returned {GONE}. Nothing is sent to it until the tenant's secret changes",
                vendor=VENDOR,
            )
        with changing_nothing():
            response = vendor.notify(command.id, command.model_dump_json(exclude={"id"}).encode())
        if 200 <= response.status < 300:
            return Notified(status=response.status)
        message = f"The webhook's address returned {response.status}"
        if response.status == GONE:
            locks.refuse(tenant, FLOW, version)
            logger().warning("webhook address gone")
            count("WebhookStopped", flow=FLOW)
            raise NeedlessError(message, vendor=VENDOR, status=GONE)
        # A receiver may be set up wrongly for a while, so its refusals are no better than an outage.
        raise NotDoneError(message, vendor=VENDOR, status=response.status, retry_after=response.retry_after)

"""A tenant's own webhook, which is notified according to Standard Webhooks 1.0.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hmac
import re
import socket
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, ValidationInfo

from crm_bridge.errors import NeedlessError
from crm_bridge.mapping import MASK
from crm_bridge.outbound.findings import Finding, Result
from crm_bridge.outbound.public_addresses import is_public
from crm_bridge.outbound.response import VendorResponse
from crm_bridge.outbound.transport import Deadline, Transport
from crm_bridge.outbound.vendor import Vendor
from crm_bridge.services import Services
from crm_bridge.settings import Generated, Prompt, Settings, Tenant, checked_address

VENDOR = "webhook"


def _webhook_url(value: str, info: ValidationInfo) -> str:
    return checked_address(value, info, form="scheme, host, path and query", never="#")


def _signing_secret(value: SecretStr) -> SecretStr:
    prefix, _, encoded = value.get_secret_value().partition("_")
    try:
        size = len(base64.b64decode(encoded, validate=True)) if prefix == "whsec" else 0
    except ValueError:
        size = 0
    if not 24 <= size <= 64:
        raise ValueError("must be whsec_ and 24 to 64 random bytes in base64")
    return value


type WebhookUrl = Annotated[str, AfterValidator(_webhook_url)]
type SigningSecret = Annotated[SecretStr, AfterValidator(_signing_secret)]


class WebhookSettings(Settings):
    """Where the tenant is notified of the outcome of events that were accepted with 202.

    Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """

    model_config = ConfigDict(title="webhooks (the outcomes of accepted events are sent to the tenant's own system)")
    block = "webhook"

    url: Annotated[WebhookUrl, Prompt("Address of the tenant's own system")] = Field(
        repr=False, json_schema_extra={"writeOnly": True}
    )
    """Of the tenant's own system. It may contain a token, so only its host is shown. It must be public, without user
    and password."""
    secret: Annotated[SigningSecret, Generated(32, "whsec_")]
    """Signs the notifications: `whsec_` and 24 to 64 random bytes in base64."""
    previous_secret: SigningSecret | None = None
    """Signs as well, so that the tenant's system can change from one secret to the next without a gap."""

    def shown(self) -> dict[str, Any]:
        host = re.match("[a-z]+://[^/]*", self.url)
        return {**super().shown(), "url": f"{host[0] if host else ''}/{MASK}"}


class Webhook(Vendor[WebhookSettings]):
    """The webhook of one tenant."""

    name = VENDOR

    def __init__(
        self, settings: WebhookSettings, transport: Transport, deadline: Deadline, clock: Callable[[], float]
    ) -> None:
        """`clock` gives epoch seconds."""
        super().__init__(settings, transport, deadline)
        self._clock = clock

    @classmethod
    def for_tenant(cls, tenant: Tenant, transport: Transport, deadline: Deadline, services: Services) -> Self:
        """Raises NeedlessError if the tenant has removed its address: what still waits for it has to end."""
        settings = tenant.of(WebhookSettings)
        if settings is None:
            raise NeedlessError("the tenant names no webhook address any more", vendor=VENDOR)
        return cls(settings, transport, deadline, services.clock)

    @property
    def address(self) -> str:
        return self.settings.url

    def notify(self, webhook_id: str, body: bytes) -> VendorResponse:
        """Return the response to a signed POST, of which only the status is read.

        Each attempt is signed anew, because an old signature is refused. Raises NotDoneError, MaybeDoneError.
        """
        timestamp = int(self._clock())
        secrets = filter(None, (self.settings.secret, self.settings.previous_secret))
        signatures = (signature(secret.get_secret_value(), webhook_id, timestamp, body) for secret in secrets)
        headers = {
            "webhook-id": webhook_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(signatures),
        }
        return self.call("POST", "", body, headers=headers, max_response=None)

    def check(self) -> Iterator[Finding]:
        """Look the address up. Nothing is sent to it."""
        about, check = self.settings.block, "address"
        parts = urlsplit(self.address)
        host = parts.hostname or ""
        if {host, parts.netloc} & self._transport.on_this_machine:
            yield Finding(about, check, Result.NOT_CHECKED, "it is on this machine")
            return
        try:
            addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)}
        except OSError:
            detail, what_to_do = "its name cannot be looked up", f"Correct {about}.url."
            yield Finding(about, check, Result.FAILED, detail, what_to_do)
            return
        if all(is_public(address) for address in addresses):
            yield Finding(about, check, Result.OK, "it is public; nothing was sent to it")
        else:
            what_to_do = "Nothing is sent to an address that is not public."
            yield Finding(about, check, Result.FAILED, "it is not public", what_to_do)


def signature(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of `webhook-signature` for one secret."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(key, signed, 'sha256')).decode()}"

"""A tenant's own receiver of callbacks, which speaks Standard Webhooks 1.0.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field

from crm_bridge.settings import CallbackSettings
from crm_bridge.transport import Answer, Deadline, Transport

VENDOR = "the callback address"


@dataclass(frozen=True)
class ReceiverClient:
    """`clock` gives epoch seconds."""

    settings: CallbackSettings
    transport: Transport = field(repr=False)
    deadline: Deadline
    clock: Callable[[], float] = field(repr=False)

    def tell(self, webhook_id: str, body: bytes) -> Answer:
        """Signed anew at each try, since a receiver takes no old signature. Its answer is only a status.

        Raises NotDoneError, MaybeDoneError.
        """
        timestamp = int(self.clock())
        secrets = filter(None, (self.settings.secret, self.settings.previous_secret))
        signatures = (signature(secret.get_secret_value(), webhook_id, timestamp, body) for secret in secrets)
        return self.transport.call(
            VENDOR,
            "POST",
            self.settings.url,
            deadline=self.deadline,
            headers={
                "webhook-id": webhook_id,
                "webhook-timestamp": str(timestamp),
                "webhook-signature": " ".join(signatures),
            },
            body=body,
            max_answer=None,
        )


def signature(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(key, signed, 'sha256')).decode()}"

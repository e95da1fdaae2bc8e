"""A tenant's own system that receives webhooks: Standard Webhooks 1.0, the receiver's side of it.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

It accepts only requests that were signed just now with one of its secrets. Repeated webhooks have the same id.
"""

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from typing import Any

from werkzeug.wrappers import Request, Response

from local.vendors.simulator import Simulator

TOLERANCE = 300
"""Seconds by which the timestamp of a request may differ from the receiver's clock."""


@dataclass
class ReceiverSimulator(Simulator):
    """It accepts what is signed with one of `secrets`. `refuses_with` is the status of every response, if it is set."""

    name: str = "receiver"
    secrets: list[str] = field(default_factory=lambda: ["whsec_b2Ytbm8tdXNlLWJ1dC1vbi10aGlzLW1hY2hpbmU="])
    received: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The body of every accepted webhook by its id, in the order of arrival."""
    attempts: list[str] = field(default_factory=list)
    """The id of every accepted request."""
    refuses_with: int | None = None

    def respond(self, request: Request) -> Response:
        if request.path != "/webhooks" or request.method != "POST":
            return Response(status=404)
        if self.refuses_with:
            return Response(status=self.refuses_with, headers={"Location": f"{self.url}/elsewhere"})
        if not self._is_signed(request):
            return Response(status=401)
        self.attempts.append(request.headers["webhook-id"])
        self.received.setdefault(self.attempts[-1], json.loads(request.get_data()))
        return Response(status=204)

    def held(self) -> dict[str, object]:
        return {"received": self.received}

    def blocks(self) -> dict[str, dict[str, object]]:
        return {"webhook": {"url": self.webhook_url, "secret": self.secrets[0]}}

    @property
    def webhook_url(self) -> str:
        return f"{self.url}/webhooks"

    def _is_signed(self, request: Request) -> bool:
        sent_at = request.headers.get("webhook-timestamp", "")
        if not sent_at.isascii() or not sent_at.isdigit() or abs(self.clock() - int(sent_at)) > TOLERANCE:
            return False
        content = b".".join((request.headers.get("webhook-id", "").encode(), sent_at.encode(), request.get_data()))
        wanted = {self._signed(secret, content) for secret in self.secrets}
        given = request.headers.get("webhook-signature", "").split(" ")
        return any(hmac.compare_digest(one, another) for one in given for another in wanted)

    @staticmethod
    def _signed(secret: str, content: bytes) -> str:
        key = base64.b64decode(secret.split("_", 1)[1])
        return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()

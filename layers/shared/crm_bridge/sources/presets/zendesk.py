"""Zendesk: webhooks that are subscribed to events, or fired by a trigger or an automation."""

from crm_bridge.sources.preset import Preset
from crm_bridge.sources.proof import Basic, Header
from crm_bridge.sources.signature import Signature


class Zendesk(Preset):
    """One event for each request. What a trigger sends is its author's own, so its key is a hash."""

    name, title = "zendesk", "Zendesk"
    source_page = "https://developer.zendesk.com/documentation/webhooks/verifying/"
    proofs = {
        "signature": Signature(
            "x-zendesk-webhook-signature",
            encoding="base64",
            parts=("timestamp", "body"),
            timestamp="x-zendesk-webhook-signature-timestamp",
            unit="iso",
        ),
        "header": Header("x-api-key"),
        "bearer": Header("authorization", "Bearer "),
        "basic": Basic(),
    }
    formats = ("json", "form", "xml")
    key = ("account_id", "type", "id")
    sample_headers = {"content-type": "application/json", "x-zendesk-webhook-id": "01WEBHOOK"}
    sample = (
        b'{"type": "zen:event-type:ticket.status_changed", "id": "aaaa1111-0000-4000-8000-000000000000",'
        b' "account_id": 77, "subject": "zen:ticket:5158", "time": "2026-03-01T10:00:00.000Z",'
        b' "zendesk_event_version": "2022-11-06", "detail": {"id": "5158", "subject": "No power", "status": "SOLVED",'
        b' "requester_id": "8800", "organization_id": "66", "updated_at": "2026-03-01T10:00:00Z"},'
        b' "event": {"current": "SOLVED", "previous": "OPEN"}}'
    )

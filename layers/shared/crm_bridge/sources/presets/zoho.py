"""Zoho CRM: webhooks of workflow rules, and channels of the Notification API."""

from collections.abc import Iterable

from pydantic import JsonValue

from crm_bridge.sources.incoming import Incoming
from crm_bridge.sources.preset import Preset
from crm_bridge.sources.proof import BodyToken, Header


class ZohoWorkflow(Preset):
    """A workflow rule's webhook: parameters with names that an admin typed. No signature is documented."""

    name, title = "zoho-workflow", "Zoho workflow"
    source_page = "https://www.zoho.com/crm/help/automation/webhooks.html"
    proofs = {"body": BodyToken("token"), "header": Header("x-api-key")}
    formats = ("form", "json", "multipart")
    is_any_text_json = True
    sample_headers = {"content-type": "application/x-www-form-urlencoded"}
    sample = b"event=contact.new&id=900001&modified=2026-03-01T10%3A00%3A00%2B01%3A00&first=Ola&last=Testowa"


class ZohoNotification(Preset):
    """The Notification API: ids and changed values of several records, one event for each."""

    name, title = "zoho-notification", "Zoho notification"
    source_page = "https://www.zoho.com/crm/developer/docs/api/v8/notifications/overview.html"
    proofs = {"body": BodyToken("token")}
    is_any_text_json = True
    key = ("channel_id", "server_time", "module", "operation", "id")
    sample = (
        b'{"server_time": 1790000000000, "module": "Contacts", "operation": "update", "ids": ["900001", "900002"],'
        b' "affected_values": [{"record_id": "900001", "values": {"Phone": "000"}}], "channel_id": "1001"}'
    )

    @classmethod
    def split(cls, body: JsonValue, incoming: Incoming) -> Iterable[JsonValue]:
        """Return an event for each id: its `values` are those that changed, if Zoho sent them."""
        ids = body.get("ids") if isinstance(body, dict) else None
        if not isinstance(body, dict) or not isinstance(ids, list):
            return super().split(body, incoming)
        changed = body.get("affected_values")
        values = {
            str(one.get("record_id")): one.get("values")
            for one in (changed if isinstance(changed, list) else [])
            if isinstance(one, dict)
        }
        shared = {name: value for name, value in body.items() if name not in ("ids", "affected_values")}
        return ({**shared, "id": one, "values": values.get(str(one))} for one in ids)

"""Freshdesk: the action "Trigger webhook" of an automation rule."""

from crm_bridge.sources.preset import Preset
from crm_bridge.sources.proof import Basic, Header


class Freshdesk(Preset):
    """One ticket for each request, as `freshdesk_webhook` or as free text. It has no id of the event."""

    name, title = "freshdesk", "Freshdesk"
    source_page = "https://support.freshdesk.com/support/solutions/articles/132589-using-webhooks-in-automation-rules"
    proofs = {"header": Header("x-api-key"), "basic": Basic()}
    is_any_text_json = True
    sample = (
        b'{"freshdesk_webhook": {"ticket_id": 40021, "ticket_subject": "No power", "ticket_status": "Open",'
        b' "ticket_priority": "High", "ticket_requester_email": "a@example.invalid",'
        b' "triggered_event": "{ticket_action:created}"}}'
    )

"""GitHub, and whatever signs its bodies as GitHub does."""

from crm_bridge.sources.preset import Preset
from crm_bridge.sources.signature import Signature


class GitHub(Preset):
    """One event for each request. Its name is in a header, which is not signed, as is the id of the delivery.

    So an event is `{"headers": …, "body": …}`, and its key is a hash of that, without the id.
    """

    name, title = "github", "GitHub"
    source_page = "https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries"
    proofs = {"signature": Signature("x-hub-signature-256", prefix="sha256=")}
    headers = ("x-github-event",)
    sample_headers = {
        "content-type": "application/json",
        "x-github-event": "issues",
        "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
    }
    sample = b'{"action": "opened", "issue": {"id": 55, "title": "No power", "updated_at": "2026-03-01T10:00:00Z"}}'

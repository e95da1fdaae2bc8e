"""Shopify, and whatever signs its bodies as Shopify does."""

from crm_bridge.sources.preset import Preset
from crm_bridge.sources.signature import Signature


class Shopify(Preset):
    """One record for each request. Its topic is in a header, which is not signed, as is the id of the request.

    So an event is `{"headers": …, "body": …}`, and its key is a hash of that, without the id.
    """

    name, title = "shopify", "Shopify"
    source_page = "https://shopify.dev/docs/apps/build/webhooks/subscribe/https"
    proofs = {"signature": Signature("x-shopify-hmac-sha256", encoding="base64")}
    headers = ("x-shopify-topic", "x-shopify-shop-domain")
    sample_headers = {
        "content-type": "application/json",
        "x-shopify-topic": "customers/create",
        "x-shopify-shop-domain": "demo.example",
        "x-shopify-webhook-id": "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
    }
    sample = b'{"id": 55, "first_name": "Ola", "last_name": "Testowa", "updated_at": "2026-03-01T10:00:00Z"}'

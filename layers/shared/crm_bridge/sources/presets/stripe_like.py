"""Senders that sign as Stripe does: `t=…,v1=…` in one header, whose name differs."""

from crm_bridge.sources.preset import Preset
from crm_bridge.sources.signature import Signature


class StripeLike(Preset):
    """One event for each request. The key is the whole text of the secret, also where it starts with `whsec_`."""

    name, title = "stripe-like", "Stripe and alike"
    source_page = "https://docs.stripe.com/webhooks/signature"
    proofs = {
        "signature": Signature(
            "stripe-signature",
            parts=("timestamp", "body"),
            separator=".",
            prefix="v1=",
            several=",",
            timestamp="t=",
        )
    }
    key = ("account || ''", "type", "id")
    volatile = ("pending_webhooks",)
    sample = b'{"id": "evt_55", "type": "customer.created", "data": {"object": {"id": "cus_7", "name": "Ola Testowa"}}}'

"""Senders that follow Standard Webhooks, and Svix, which does the same with headers of its own names."""

from crm_bridge.sources.preset import Preset
from crm_bridge.sources.signature import Signature


def _signature(family: str) -> Signature:
    return Signature(
        f"{family}-signature",
        encoding="base64",
        parts=(f"header:{family}-id", "timestamp", "body"),
        separator=".",
        prefix="v1,",
        several=" ",
        timestamp=f"{family}-timestamp",
        key="base64",
        key_prefix="whsec_",
    )


class StandardWebhooks(Preset):
    """One event for each request, with a signed id. Signatures with public keys (`v1a`) are not checked."""

    name, title = "standard-webhooks", "Standard Webhooks"
    source_page = "https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md"
    proofs = {"signature": _signature("webhook")}
    key = ("header:webhook-id",)
    answers = ("async 202", "async 200")
    sample_headers = {"content-type": "application/json", "webhook-id": "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"}
    sample = b'{"type": "customer.created", "timestamp": "2026-03-01T10:00:00Z", "data": {"id": "55", "name": "Ola"}}'


class Svix(StandardWebhooks):
    """Standard Webhooks with the headers `svix-…`."""

    name, title = "svix", "Svix"
    source_page = "https://docs.svix.com/receiving/verifying-payloads/how-manual"
    proofs = {"signature": _signature("svix")}
    key = ("header:svix-id",)
    sample_headers = {"content-type": "application/json", "svix-id": "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"}

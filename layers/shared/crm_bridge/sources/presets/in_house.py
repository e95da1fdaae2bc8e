"""A system of the tenant's own, which can shape its requests, but not to the bridge's own routes."""

from crm_bridge.sources.preset import Preset
from crm_bridge.sources.proof import Header


class InHouse(Preset):
    """A system of the tenant's own, with a secret in a header."""

    name, title = "in-house", "Own system"
    source_page = ""
    proofs = {"header": Header("x-api-key")}
    sample_headers = {"content-type": "application/json"}
    sample = b'{"type": "customer.created", "id": "55", "name": "Ola Testowa", "changed_at": "2026-03-01T10:00:00Z"}'

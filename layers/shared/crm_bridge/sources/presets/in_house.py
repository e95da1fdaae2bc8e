"""A system of the tenant's own, whose requests are JSON, but not of the bridge's own routes."""

from crm_bridge.sources.preset import Preset
from crm_bridge.sources.proof import Basic, Header


class InHouse(Preset):
    """A system of the tenant's own. It may also sign, by a scheme that its settings describe."""

    name, title = "in-house", "Own system"
    source_page = ""
    proofs = {"header": Header("x-api-key"), "bearer": Header("authorization", "Bearer "), "basic": Basic()}
    may_sign = True
    formats = ("json", "form", "multipart", "xml")
    sample = b'{"type": "customer.created", "id": "55", "name": "Ola Testowa", "changed_at": "2026-03-01T10:00:00Z"}'

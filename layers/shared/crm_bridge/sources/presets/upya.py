"""Upya. Its webhooks exist, but how they look is not known: see docs/connect/upya.md."""

from collections.abc import Iterable

from pydantic import JsonValue

from crm_bridge.sources.incoming import Incoming
from crm_bridge.sources.preset import Preset
from crm_bridge.sources.proof import Basic, Header, Query


class Upya(Preset):
    """Records as Upya's API returns them: one, a list, or a list under `data`."""

    name, title = "upya", "Upya"
    source_page = "https://developer.upya.io/api/collections/9200381/VUr1HCpY"
    proofs = {"header": Header("api-key"), "basic": Basic(), "query": Query("key")}
    is_any_text_json = True
    key = (
        "ticketId || ''",
        "taskId || ''",
        "contractNumber || ''",
        "clientNumber || ''",
        "status || ''",
        "updatedAt",
    )
    sample = (
        b'{"ticketId": "T-0001", "ticketNumber": 1207, "status": "Open", "title": "Lamp off", "clientNumber": "C-88",'
        b' "contractNumber": "K-19", "updatedAt": "2026-03-01T10:00:00.000Z"}'
    )

    @classmethod
    def split(cls, body: JsonValue, incoming: Incoming) -> Iterable[JsonValue]:
        records = body.get("data") if isinstance(body, dict) else None
        return records if isinstance(records, list) else super().split(body, incoming)

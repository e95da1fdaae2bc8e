"""Pipedrive: webhooks of version 2 and of version 1."""

from crm_bridge.sources.preset import Preset
from crm_bridge.sources.proof import Basic


class PipedriveV2(Preset):
    """One event for each request. A wrong status ten times in a row closes the webhook for half an hour."""

    name, title = "pipedrive-v2", "Pipedrive, webhooks v2"
    source_page = "https://pipedrive.readme.io/docs/guide-for-webhooks-v2"
    proofs = {"basic": Basic()}
    key = ("meta.company_id", "meta.webhook_id", "meta.id")
    volatile = ("meta.attempt",)
    sample = (
        b'{"meta": {"action": "change", "entity": "deal", "entity_id": "746", "company_id": "9", "webhook_id": "3",'
        b' "id": "11111111-2222-3333-4444-555555555555", "change_source": "app", "attempt": 1, "version": "2.0",'
        b' "timestamp": "2026-03-01T10:00:00.000Z"}, "data": {"id": 746, "title": "Shop 12", "status": "won",'
        b' "person_id": 55, "org_id": 7}, "previous": {"status": "open"}}'
    )


class PipedriveV1(Preset):
    """The older form, with the record before and after."""

    name, title = "pipedrive-v1", "Pipedrive, webhooks v1"
    source_page = "https://pipedrive.readme.io/docs/guide-for-webhooks"
    proofs = {"basic": Basic()}
    key = ("meta.company_id", "meta.webhook_id", "event", "meta.id", "meta.timestamp_micro")
    volatile = ("retry",)
    sample = (
        b'{"v": 1, "event": "added.person", "retry": 0, "current": {"id": 55, "name": "Ola Testowa", "org_id": 7},'
        b' "previous": null, "meta": {"action": "added", "object": "person", "id": 55, "company_id": 9, "user_id": 1,'
        b' "host": "demo.example", "timestamp": 1790000000, "timestamp_micro": 1790000000000000, "webhook_id": "3",'
        b' "change_source": "app"}}'
    )

"""A change of a key link reserves a whole event, also if what it had seen there has gone."""

import pytest

from crm_bridge.storage.operation import State
from key_link.change import Change
from tests.integration.conftest import Crm, rows

LINK = {"system": "SALESFORCE", "entity_type": "CUSTOMER", "internal_id": 1015, "external_id": "001"}
OTHER = LINK | {"external_id": "002"}


def test_a_rejected_event_that_has_gone_since_it_was_seen_is_made_as_a_whole(
    crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another change of the same key link takes back the event that it had reserved, or the event expires."""
    key_link_id = crm.post("/key-links", LINK).json()["id"]
    see = Change._read_current_ties
    shown: list[str] = []

    def with_what_has_gone(change: Change) -> None:
        see(change)
        if change.target and not shown:
            (has_it,) = change.ties
            known = change.context.operations.get(has_it)
            assert known
            shown.append(change.target.operation_id)
            changes = {"operation_id": shown[0], "state": State.REJECTED, "result": None}
            change.seen[shown[0]] = known.model_copy(update=changes)

    monkeypatch.setattr(Change, "_read_current_ties", with_what_has_gone)
    changed = crm.put(f"/key-links/{key_link_id}", OTHER)
    assert (changed.status_code, changed.json()["external_id"]) == (200, "002")
    assert shown
    assert all("flow" in row for row in rows("OPERATIONS_TABLE"))
    again = crm.post("/key-links", OTHER)
    assert (again.status_code, again.json()["id"]) == (200, key_link_id)

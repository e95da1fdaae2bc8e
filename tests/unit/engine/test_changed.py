"""What is kept of an event that comes again with a different payload."""

from typing import Any

import pytest

from crm_bridge.engine import KEEP
from crm_bridge.errors import MaybeDoneError, NotDoneError, RefusedError, RunningError, StorageError
from crm_bridge.outbound.transport import Deadline
from crm_bridge.storage.operation import Operation, State
from tests.unit.engine.conftest import Bench, Order, failing, raising, recorded, waits

type Noted = tuple[int | None, int | None]


def noted(bench: Bench, number: str = "1") -> Noted:
    """Return how often a later payload differed, and how many seconds ago it last did."""
    stored = bench.stored(number)
    return stored.changed_times, int(bench.clock.now) - stored.changed_at if stored.changed_at else None


def listed(bench: Bench, **more: Any) -> list[str]:
    operations = bench.tables.operations
    found, _ = operations.listed_changed("acme", **{"flow": None, "limit": 10, "after": None, **more})
    return [one.event_key for one in found]


def test_a_payload_that_differs_is_noted_and_sends_nothing(bench: Bench) -> None:
    bench.run()
    before = bench.stored()
    bench.clock.move(60)
    assert bench.run(note="changed").changed
    stored = bench.stored()
    assert (noted(bench), len(bench.shop.sent)) == ((1, 0), 1)
    changes = ("changed_at", "changed_times", "changed_fingerprint")
    assert stored.model_copy(update=dict.fromkeys(changes)) == before
    assert listed(bench) == ["1"]
    assert stored.to_response()["changed"]["times"] == 1


def test_nothing_is_noted_when_the_payload_is_the_same(bench: Bench) -> None:
    bench.run()
    assert not bench.run().changed
    assert (noted(bench), listed(bench)) == ((None, None), [])
    assert "changed" not in bench.stored().to_response()


def test_the_same_difference_is_noted_once(bench: Bench) -> None:
    bench.run()
    bench.run(note="changed")
    bench.clock.move(60)
    assert bench.run(note="changed").changed
    assert noted(bench) == (1, 60)


def test_the_same_difference_is_known_without_a_call(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run()
    bench.run(note="changed")
    monkeypatch.setattr(bench.tables.operations, "note_changed", raising(AssertionError()))
    assert bench.run(note="changed").changed


def test_each_payload_that_differs_from_the_one_before_is_counted(bench: Bench) -> None:
    bench.run()
    for note in ("b", "c", "c", "b"):
        bench.run(note=note)
    assert noted(bench) == (3, 0)


def test_two_who_see_the_same_difference_at_once_note_it_once(bench: Bench) -> None:
    bench.run()
    seen = bench.stored()
    for _ in range(2):
        bench.tables.operations.note_changed(seen, "f" * 64, int(bench.clock.now), listed_until=2**40)
    assert noted(bench) == (1, 0)


def test_it_is_not_noted_when_the_operation_is_another_by_now(bench: Bench) -> None:
    bench.shop.answers = [failing(RefusedError)]
    bench.run(note="a")
    refused = bench.stored()
    bench.run(note="b")
    bench.tables.operations.note_changed(refused, "f" * 64, int(bench.clock.now), listed_until=2**40)
    assert (noted(bench), listed(bench)) == ((None, None), [])


def test_what_was_noted_stays_when_it_is_sent_meanwhile(bench: Bench) -> None:
    def note() -> None:
        seen = bench.stored()
        assert seen.state is State.SENDING
        bench.tables.operations.note_changed(seen, "f" * 64, int(bench.clock.now), listed_until=2**40)

    bench.shop.during = note
    assert bench.run().operation.state is State.SUCCEEDED
    assert (bench.stored().state, noted(bench), bench.linked()) == (State.SUCCEEDED, (1, 0), ["101"])


def test_what_was_noted_stays_beside_waiters(bench: Bench) -> None:
    bench.shop.answers = [failing(NotDoneError)]
    bench.run()
    waits(bench)
    bench.run(note="changed")
    bench.wait_until_due()
    bench.retry()
    stored = bench.stored()
    assert (stored.state, stored.changed_times, len(stored.waiters)) == (State.SUCCEEDED, 1, 1)


def test_what_was_noted_stays_when_a_person_decides_meanwhile(in_review: Bench) -> None:
    seen = in_review.stored()
    in_review.run(note="changed")
    resolved = in_review.discard(seen)
    assert (resolved.state, noted(in_review)) == (State.REJECTED, (1, 0))


@pytest.mark.parametrize("error", [NotDoneError, MaybeDoneError])
def test_it_is_noted_while_the_first_is_not_settled(bench: Bench, error: type[Any]) -> None:
    bench.shop.answers = [failing(error)]
    bench.run()
    assert bench.run(note="changed").changed
    assert (noted(bench), listed(bench)) == ((1, 0), ["1"])


def test_nothing_is_noted_while_it_is_being_sent_and_the_caller_asks_again(bench: Bench) -> None:
    def repeat() -> None:
        with pytest.raises(RunningError):
            bench.run(note="changed")

    bench.shop.during = repeat
    bench.run()
    assert noted(bench) == (None, None)
    bench.run(note="changed")
    assert noted(bench) == (1, 0)


@pytest.mark.parametrize("is_sending", [False, True])
def test_it_is_noted_of_an_event_whose_caller_does_not_wait(bench: Bench, is_sending: bool) -> None:
    def accept() -> None:
        order = Order(number="1", note="changed")
        claim = bench.engine.accept(bench.flow, order, tenant="acme", deadline=Deadline(21), notifies=False)
        assert not claim.won

    if is_sending:
        bench.shop.during = accept
    bench.run()
    if not is_sending:
        accept()
    assert (noted(bench), listed(bench)) == ((1, 0), ["1"])


def test_nothing_is_noted_when_the_key_says_all(bench: Bench) -> None:
    bench.flow = type("Whole", (bench.flow,), {"key_says_all": True})
    bench.run()
    assert not bench.run(note="changed").changed
    assert noted(bench) == (None, None)


def test_nothing_is_noted_when_the_caller_applies_it(bench: Bench) -> None:
    bench.run()
    assert bench.run(note="changed", notes_changed=False).changed
    assert noted(bench) == (None, None)


def test_the_first_event_of_a_recorded_one_is_noted_since_nobody_knows_what_it_said(bench: Bench) -> None:
    recorded(bench)
    assert bench.run().changed
    assert noted(bench) == (1, 0)


def test_nothing_is_noted_when_it_is_sent_anew(bench: Bench) -> None:
    bench.shop.answers = [failing(RefusedError)]
    bench.run(note="a")
    assert not bench.run(note="b").changed
    assert noted(bench) == (None, None)


def test_the_caller_is_told_to_send_it_again_when_it_cannot_be_noted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run()
    monkeypatch.setattr(bench.tables.operations, "note_changed", raising(StorageError("down")))
    with pytest.raises(StorageError):
        bench.run(note="changed")


def test_nothing_of_it_stays_when_the_event_is_erased(bench: Bench) -> None:
    bench.run()
    bench.run(note="changed")
    bench.engine.erase(bench.stored(), by="ops")
    stored: Operation = bench.stored()
    assert (stored.changed_at, stored.changed_times, stored.changed_fingerprint) == (None, None, None)
    client, table = bench.tables.operations._client, bench.tables.operations._table
    item = client.get_item(TableName=table, Key={"operation_id": {"S": f"changed#{stored.operation_id}"}})
    assert "Item" not in item


def test_the_list_has_the_latest_first_and_goes_on_behind_each_page(bench: Bench) -> None:
    for number in map(str, range(7)):
        bench.run(number)
        bench.clock.move(10)
        bench.run(number, note="changed")
    found, after = [], None
    while True:
        page, after = bench.tables.operations.listed_changed("acme", flow=None, limit=2, after=after)
        found += [one.event_key for one in page]
        if after is None:
            break
    assert found == ["6", "5", "4", "3", "2", "1", "0"]


def test_the_list_leaves_out_other_flows_tenants_and_what_is_older(bench: Bench) -> None:
    bench.run("1")
    bench.run("1", note="changed")
    bench.clock.move(60)
    bench.run("2")
    bench.run("2", note="changed")
    assert listed(bench, flow="orders") == ["2", "1"]
    assert listed(bench, flow="others") == []
    assert listed(bench, since=int(bench.clock.now)) == ["2"]
    assert bench.tables.operations.listed_changed("other", flow=None, limit=10, after=None) == ([], None)


def test_the_list_shows_how_the_operation_stands_now(bench: Bench) -> None:
    bench.shop.answers = [failing(NotDoneError)]
    bench.run()
    bench.run(note="changed")
    bench.wait_until_due()
    bench.retry()
    found, _ = bench.tables.operations.listed_changed("acme", flow=None, limit=10, after=None)
    assert [one.state for one in found] == [State.SUCCEEDED]


def test_the_list_forgets_it_after_its_time(bench: Bench) -> None:
    bench.run()
    bench.run(note="changed")
    client, table = bench.tables.operations._client, bench.tables.operations._table
    key = {"operation_id": {"S": f"changed#{bench.stored().operation_id}"}}
    item = client.get_item(TableName=table, Key=key)["Item"]
    assert int(item["expires_at"]["N"]) == int(bench.clock.now) + KEEP
    assert set(item) == {"operation_id", "tenant", "flow", "listed", "standing", "expires_at"}


@pytest.mark.parametrize("notes", [True, False])
def test_a_difference_is_noted_also_while_the_tenant_is_not_configured(bench: Bench, *, notes: bool) -> None:
    bench.run()
    bench.tables.put_secret("acme", "{}")
    assert bench.run(note="changed", notes_changed=notes).changed
    assert noted(bench) == ((1, 0) if notes else (None, None))

"""An event that is settled in one transaction with another that it required."""

from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest

from crm_bridge.errors import Event, StorageError
from crm_bridge.storage.links import Identity, Link
from crm_bridge.storage.operation import Operation, State, operation_id
from tests.unit.engine.conftest import Bench, Marks, end_with, raising
from tests.unit.engine.test_log import lines
from tests.unit.engine.test_require import SHIP, ship

SHIPPED = operation_id("acme", SHIP, "1")


def writes_of(bench: Bench, call: Callable[[], object], *, lost: str = "") -> list[str]:
    """The writes that a call makes; the response to the first of the kind `lost` gets lost, so it is repeated."""
    client: Any = bench.tables.operations._client
    real, made = client._make_api_call, []

    def counted(name: str, arguments: dict[str, object]) -> object:
        if name in ("PutItem", "UpdateItem", "TransactWriteItems"):
            if name == lost and name not in made:
                real(name, arguments)
            made.append(name)
        return real(name, arguments)

    client._make_api_call = counted
    call()
    client._make_api_call = real
    return made


def of_shipping(bench: Bench, monkeypatch: pytest.MonkeyPatch, save: Callable[[Operation], Operation | None]) -> None:
    """Let `save` do what happens instead when the event that required the other is settled."""
    real = bench.tables.operations.save

    def saved(operation: Operation, *arguments: Any, **options: Any) -> Operation | None:
        return save(operation) if operation.flow == SHIP else real(operation, *arguments, **options)

    monkeypatch.setattr(bench.tables.operations, "save", saved)


def shipped(bench: Bench) -> Operation:
    operation = bench.tables.operations.get(SHIPPED)
    assert operation
    return operation


@pytest.mark.parametrize("lost", ["", "TransactWriteItems"])
def test_both_are_settled_in_one_transaction_when_nothing_follows(bench: Bench, lost: str) -> None:
    made = writes_of(bench, lambda: ship(bench, is_last=True), lost=lost)
    assert made == ["PutItem", "PutItem", "TransactWriteItems"]
    assert (shipped(bench).state, shipped(bench).result) == (State.SUCCEEDED, '{"receipt":1101}')
    assert (bench.stored().state, bench.stored().attempts[-1].event) == (State.SUCCEEDED, Event.DONE)
    assert bench.linked() == ["101"]


def test_the_other_is_settled_by_itself_when_its_part_cannot_be_written(bench: Bench) -> None:
    def is_waited_for() -> None:
        note = bench.tables.operations.note_waiter(bench.stored().operation_id, "op_waiter")
        bench.tables.operations._client.transact_write_items(TransactItems=[note])

    bench.shop.during = is_waited_for
    ship(bench, is_last=True)
    assert (bench.stored().state, bench.linked()) == (State.SUCCEEDED, ["101"])
    assert (shipped(bench).state, shipped(bench).attempts[-1].event) == (State.UNCONFIRMED, Event.MAYBE_DONE)


def test_the_other_needs_review_when_its_record_is_anothers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run("other")
    links = [Link(Identity("crm", "order", "1"), Identity("shop", "receipt", "101"))]
    monkeypatch.setattr(bench.flow, "links", lambda *_: links)
    bench.shop.sent.clear()  # so that the shop gives the same number again
    ship(bench, is_last=True)
    assert (bench.stored().state, bench.stored().attempts[-1].event) == (State.NEEDS_REVIEW, Event.LINK_TAKEN)
    assert shipped(bench).state is State.UNCONFIRMED


def test_the_other_is_settled_when_the_first_cannot_be_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    of_shipping(bench, monkeypatch, raising(StorageError("down")))
    ship(bench, is_last=True)
    assert (bench.stored().state, bench.linked()) == (State.SUCCEEDED, ["101"])
    assert shipped(bench).state is State.SENDING


def test_the_other_is_settled_when_the_first_was_taken_over(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    of_shipping(bench, monkeypatch, lambda operation: operation.model_copy(update={"lease": "another"}))
    ship(bench, is_last=True)
    assert (bench.stored().state, bench.linked()) == (State.SUCCEEDED, ["101"])


def test_the_log_names_each_of_the_two(bench: Bench, log: StringIO) -> None:
    ship(bench, is_last=True)
    assert {line["operation_id"] for line in lines(log, "operation")} == {SHIPPED, bench.stored().operation_id}


def test_the_other_is_settled_at_once_when_it_ends_something_itself(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_with(bench, monkeypatch, Marks())
    outcome = bench.run(settles=False)
    assert (outcome.unsettled, bench.stored().state) == (None, State.SUCCEEDED)


def test_the_result_is_known_before_it_is_settled(bench: Bench) -> None:
    outcome = bench.run(settles=False)
    assert outcome.unsettled
    assert (outcome.result, bench.stored().state) == ('{"receipt":101}', State.SENDING)

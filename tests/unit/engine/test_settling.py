"""Writes that fail, are lost or are overtaken when an operation is settled."""

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from crm_bridge.errors import Event, NotDoneError, StorageError
from crm_bridge.storage.links import Identity, Link
from crm_bridge.storage.operation import State
from tests.unit.engine.conftest import Bench, failing, hit, raising


def test_says_all_that_was_made_when_a_part_of_it_is_linked_already(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run("other")
    ends = (Identity("shop", "bill", "7"), Identity("shop", "receipt", "101"))
    links = [Link(Identity("crm", "order", "1"), end) for end in ends]
    monkeypatch.setattr(bench.flow, "links", lambda *_: links)
    bench.run()
    assert bench.stored().state is State.NEEDS_REVIEW
    assert bench.stored().attempts[-1].reason.startswith("shop bill 7, shop receipt 101 cannot be linked")


def test_is_unknown_to_the_caller_and_heals_when_it_cannot_be_settled(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(bench.tables.operations, "save", raising(StorageError("down")))
        outcome = bench.run()
    assert outcome.operation.state is State.SENDING
    bench.shop.hits = [hit(101, bench.clock)]
    bench.wait_until_due()
    bench.retry()
    assert bench.linked() == ["101"]
    assert len(bench.shop.sent) == 1


@pytest.mark.parametrize("write", ["PutItem", "TransactWriteItems"])
def test_succeeds_once_when_a_write_went_through_but_its_answer_was_lost(bench: Bench, write: str) -> None:
    lost = _lose_answers(bench, {write})
    outcome = bench.run()
    assert lost == [write]
    assert outcome.ran
    assert outcome.operation.state is State.SUCCEEDED
    assert len(bench.shop.sent) == 1
    assert bench.linked() == ["101"]


def test_still_waits_for_the_right_reason_when_the_answer_to_its_claim_was_lost(bench: Bench) -> None:
    bench.shop.answers = [failing(NotDoneError)]
    bench.run()
    bench.wait_until_due()
    lost = _lose_answers(bench, {"UpdateItem"})
    bench.retry()
    assert lost == ["UpdateItem"]
    assert bench.shop.looks == 0  # it was waiting, and that is not forgotten
    assert bench.stored().state is State.SUCCEEDED


def _lose_answers(bench: Bench, writes: set[str]) -> list[str]:
    """Each of these writes reaches the table once; its answer is lost, and the AWS client repeats it by itself."""
    lost: list[str] = []

    client = bench.tables.operations._client
    real = client._make_api_call  # type: ignore[attr-defined]

    def call(operation_name: str, arguments: dict[str, object]) -> object:
        if operation_name in writes and operation_name not in lost:
            real(operation_name, arguments)
            lost.append(operation_name)
        return real(operation_name, arguments)

    client._make_api_call = call  # type: ignore[attr-defined]
    return lost


def test_sends_nothing_when_the_claim_cannot_be_written(bench: Bench) -> None:
    client = bench.tables.operations._client
    client._make_api_call = raising(ReadTimeoutError(endpoint_url="x"))  # type: ignore[attr-defined]
    with pytest.raises(StorageError):
        bench.run()
    assert bench.shop.sent == []


def test_loses_to_whoever_took_over_when_its_lease_ran_out(bench: Bench) -> None:
    """It was stopped for longer than its lease, and another worker linked what it had made."""

    def take_over() -> None:
        bench.shop.during = lambda: None
        bench.wait_until_due()
        bench.shop.hits = [hit(101, bench.clock)]
        bench.retry()

    bench.shop.during = take_over
    outcome = bench.run()
    assert outcome.operation.state is State.SUCCEEDED
    assert outcome.operation.result == '{"receipt":101}'
    assert bench.linked() == ["101"]


def test_needs_review_when_the_vendor_answers_an_id_that_is_linked_to_another_event(bench: Bench) -> None:
    bench.run("other")
    bench.shop.sent.clear()  # so that the shop gives the same number again
    bench.run("1")
    stored = bench.stored("1")
    assert stored.state is State.NEEDS_REVIEW
    assert stored.attempts[-1].event is Event.LINK_TAKEN
    assert "shop receipt 101" in stored.attempts[-1].reason
    assert bench.linked("other") == ["101"]
    assert bench.linked("1") == []


@pytest.mark.parametrize("reason", ["TransactionConflict", "ThrottlingError"])
def test_repeats_the_write_when_it_meets_another_transaction_or_a_throttle(bench: Bench, reason: str) -> None:
    client = bench.tables.operations._client
    real = client._make_api_call  # type: ignore[attr-defined]
    conflicts = ["PutItem", "TransactWriteItems"]

    def call(operation_name: str, arguments: dict[str, object]) -> object:
        if operation_name in conflicts:
            conflicts.remove(operation_name)
            if operation_name == "PutItem":
                raise ClientError({"Error": {"Code": "TransactionConflictException"}}, operation_name)
            raise client.exceptions.TransactionCanceledException(
                {
                    "Error": {"Code": "TransactionCanceledException"},
                    "CancellationReasons": [{"Code": reason}, {"Code": "None"}, {"Code": "None"}],
                },
                operation_name,
            )
        return real(operation_name, arguments)

    client._make_api_call = call  # type: ignore[attr-defined]
    assert bench.run().operation.state is State.SUCCEEDED
    assert conflicts == []

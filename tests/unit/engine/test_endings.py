"""What a flow writes in the transaction that settles its operation, and with the end of an event that it required."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from crm_bridge.engine.settling import Together, Unsettled
from crm_bridge.errors import Event, OvertakenError
from crm_bridge.storage.operation import Operation, State
from tests.unit.engine.conftest import Bench, Marks, Receipt, end_with, waits

SETTLED = cast("Operation", SimpleNamespace(name="settled"))
OWN: Any = [{"Put": "own 1"}, {"Put": "own 2"}]
OTHERS: Any = [{"Put": "other 1"}, {"Put": "other 2"}]
ITEM: dict[str, Any] = {"id": {"S": "1"}}


class Other:
    """The end of the event that was required, which notes how it is written."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    def writes(self) -> Any:
        return OTHERS

    def alone(self) -> None:
        self.ended.append("alone")

    def is_written(self) -> None:
        self.ended.append("together")


class Own:
    """A flow's own writes, which note what they are asked."""

    def __init__(self, *, has_others: bool = True) -> None:
        self.has_others = has_others
        self.asked: list[object] = []

    def writes(self, settled: Operation, event: Event) -> Any:
        self.asked.append((settled, event))
        return OWN

    def adapts(self, event: Event, there: Sequence[Any]) -> bool:
        self.asked.append((event, there))
        return self.has_others


def together(own: Own | None = None) -> tuple[Together, Other]:
    other = Other()
    return Together(cast("Unsettled", other), own), other


def test_both_are_written_the_flows_own_first() -> None:
    own = Own()
    both, _ = together(own)
    assert both.writes(SETTLED, Event.DONE) == [*OWN, *OTHERS]
    assert own.asked == [(SETTLED, Event.DONE)]
    assert together()[0].writes(SETTLED, Event.DONE) == OTHERS


@pytest.mark.parametrize("has_others", [True, False])
def test_the_flow_is_asked_when_its_own_writes_failed(*, has_others: bool) -> None:
    own = Own(has_others=has_others)
    both, other = together(own)
    both.writes(SETTLED, Event.DONE)
    assert both.adapts(Event.DONE, [None, ITEM, None, None]) is has_others
    assert own.asked[1:] == [(Event.DONE, [None, ITEM])]
    assert other.ended == []


@pytest.mark.parametrize(("event", "has_others"), [(Event.DONE, False), (Event.NOT_DONE, True)])
def test_the_other_is_settled_by_itself_when_its_writes_failed(event: Event, *, has_others: bool) -> None:
    own = Own()
    both, other = together(own)
    both.writes(SETTLED, event)
    assert both.adapts(event, [None, None, None, ITEM]) is has_others
    assert other.ended == ["alone"]
    assert len(own.asked) == 1
    assert both.writes(SETTLED, event) == OWN  # the other's part is over


def test_both_are_told_when_both_failed() -> None:
    own = Own()
    both, other = together(own)
    both.writes(SETTLED, Event.DONE)
    assert both.adapts(Event.DONE, [ITEM, None, ITEM, None])
    assert (own.asked[1:], other.ended) == ([(Event.DONE, [ITEM, None])], ["alone"])


@pytest.mark.parametrize(("is_written", "how"), [(True, "together"), (False, "alone")])
def test_the_other_ends_once(*, is_written: bool, how: str) -> None:
    both, other = together()
    for _ in range(2):
        both.end(is_written=is_written)
    assert other.ended == [how]
    both.end(is_written=not is_written)
    assert other.ended == [how]


def test_a_waiter_is_settled_with_what_its_flow_writes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run()
    first = bench.stored().model_copy(update={"state": State.SENDING})
    bench.tables.operations.save(first, over=State.SUCCEEDED)
    marks = Marks()
    end_with(bench, monkeypatch, marks)
    waiting = waits(bench)
    assert marks.events == [Event.NOT_DONE]
    assert bench.stored().waiters == {waiting.operation_id}


def test_it_ends_also_when_what_it_has_done_could_not_be_settled(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    save, marks = bench.tables.operations.save, Marks()

    def send(flow: Any, *_: object) -> Receipt:
        flow.context.ending = marks
        flow.context.calls.add("POST", "/orders", 201, 9, secrets=(), request=None, response=None)
        return Receipt(receipt=101)

    def overtaken(operation: Operation, *arguments: Any, **options: Any) -> Operation | None:
        if operation.state is State.SUCCEEDED:
            raise OvertakenError([None])
        return save(operation, *arguments, **options)

    monkeypatch.setattr(bench.flow, "send", send)
    monkeypatch.setattr(bench.tables.operations, "save", overtaken)
    stored = bench.run().operation
    assert (stored.state, marks.events) == (State.UNCONFIRMED, [Event.DONE, Event.MAYBE_DONE])
    (exchange,) = bench.tables.operations.exchanges.of(stored, int(bench.clock.now))
    assert exchange.event is Event.MAYBE_DONE


def test_nothing_ends_with_an_event_whose_record_is_anothers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run("other")
    bench.shop.sent.clear()  # so that the shop gives the same number again
    marks = Marks()
    end_with(bench, monkeypatch, marks)
    assert bench.run().operation.state is State.NEEDS_REVIEW
    assert marks.events == [Event.DONE]

"""An event that needs another one, which is sent first if it was not sent before."""

from collections.abc import Iterator
from typing import Any, cast

import pytest

from crm_bridge import Create, Match, Need
from crm_bridge.engine import Outcome
from crm_bridge.engine.context import AFTER_THE_OTHER
from crm_bridge.engine.settling import Ending, Together
from crm_bridge.errors import (
    MaybeDoneError,
    MissingError,
    NeedlessError,
    NotDoneError,
    NotYetError,
    RefusedError,
    VendorError,
)
from crm_bridge.outbound.transport import SHORTEST_CALL, Deadline
from crm_bridge.storage.operation import Operation, State, operation_id
from tests.unit.engine.conftest import (
    Bench,
    ChangeOrder,
    Order,
    PlaceOrder,
    Receipt,
    Shop,
    failing,
    hit,
    of_world,
    park,
    raising,
)
from tests.unit.engine.test_queues import with_queues

SHIP = "ship_orders"


def shipping(bench: Bench, *, is_last: bool = False, **options: Any) -> Any:
    """Return a flow that ships an order once it is placed. `options` are those of the need."""

    class Ship(Create[Order, Shop, Receipt], name=SHIP, function="orders"):
        def key(self, command: Order) -> str:
            return command.number

        def send(self, command: Order, vendor: Shop) -> Receipt:  # noqa: ARG002
            need = {"key": command.number, "what": "the order", "command": command, **options}
            placed = self.context.require(Need(bench.flow, **need), is_last=is_last)
            return Receipt(receipt=placed.result.receipt + (1000 if placed.is_new else 2000))

        def find(self, command: Order, vendor: Shop) -> Iterator[Match[Receipt]]:  # noqa: ARG002
            yield from ()

    return type("Ship", (Ship,), {"vendor": vars(bench.flow)["vendor"]})


def ship(
    bench: Bench, number: str = "1", *, seconds: float = 21, **options: Any
) -> tuple[Operation, VendorError | None]:
    outcome = bench.engine.run(
        shipping(bench, **options), Order(number=number), tenant="acme", deadline=Deadline(seconds, bench.clock)
    )
    return outcome.operation, outcome.error


def test_what_is_needed_is_sent_first_and_only_once(bench: Bench) -> None:
    shipped, _ = ship(bench)
    assert (shipped.state, shipped.result) == (State.SUCCEEDED, '{"receipt":1101}')
    assert bench.stored().state is State.SUCCEEDED
    again, _ = ship(bench, "2", command=Order(number="1"))
    assert again.result == '{"receipt":2101}'
    assert len(bench.shop.sent) == 1


def test_it_waits_for_what_is_not_done_and_is_due_right_after_it(bench: Bench) -> None:
    bench.shop.answers = [failing(NotDoneError)]
    shipped, error = ship(bench)
    assert (shipped.state, bench.stored().state) == (State.WAITING, State.WAITING)
    assert isinstance(error, NotYetError)
    assert (error.waits_for, error.vendor) == (bench.stored().operation_id, "shop")
    bench.wait_until_due()
    bench.retry()
    woken = bench.tables.operations.get(shipped.operation_id)
    assert woken
    assert woken.due_at == bench.clock.now


@pytest.mark.parametrize(("due_in", "after"), [(100, 100), (0, 0), (-50, 0), (None, 0)])
def test_it_is_told_to_wait_until_after_the_other_is_due(bench: Bench, due_in: int | None, after: int) -> None:
    now = int(bench.clock.now)
    bench.run()
    other = bench.stored().model_copy(update={"due_at": None if due_in is None else now + due_in})
    with pytest.raises(NotYetError) as raised:
        bench.engine.bind(bench.flow, "acme", Deadline(21, bench.clock)).context.wait_for(other, "first that one")
    assert raised.value.retry_after == after + AFTER_THE_OTHER
    assert (raised.value.vendor, raised.value.waits_for) == ("shop", other.operation_id)
    assert not raised.value.is_in_doubt


def test_the_error_names_the_vendor_of_what_it_waits_for(bench: Bench) -> None:
    flow = shipping(bench)
    flow.vendor = type("Carrier", (flow.vendor,), {"name": "carrier"})
    bench.shop.answers = [failing(NotDoneError)]
    outcome = bench.engine.run(flow, Order(number="1"), tenant="acme", deadline=Deadline(21, bench.clock))
    assert outcome.error
    assert (outcome.error.vendor, outcome.error.message) == ("shop", "the order is not there yet (waiting): because")
    without = shipping(bench, command=None, key="1")
    without.vendor = flow.vendor
    outcome = bench.engine.run(without, Order(number="2"), tenant="acme", deadline=Deadline(21, bench.clock))
    assert outcome.error
    assert (outcome.error.vendor, outcome.error.message) == ("shop", "the order is not there yet (waiting)")


def test_it_is_told_if_what_it_has_sent_may_be_done(bench: Bench) -> None:
    bench.shop.answers = [failing(MaybeDoneError)]
    _, error = ship(bench)
    assert isinstance(error, NotYetError)
    assert error.is_in_doubt
    _, error = ship(bench, "2", command=Order(number="1"))  # which has not sent it
    assert isinstance(error, NotYetError)
    assert not error.is_in_doubt


def test_what_is_due_is_continued_at_once(unconfirmed: Bench) -> None:
    unconfirmed.shop.hits = [hit(101, unconfirmed.clock)]
    shipped, _ = ship(unconfirmed)
    assert unconfirmed.shop.looks == 1
    assert (shipped.state, unconfirmed.stored().state) == (State.SUCCEEDED, State.SUCCEEDED)


@pytest.mark.parametrize(
    ("answer", "message"),
    [(failing(RefusedError, status=422), "the order: because"), (failing(MissingError), "the order: because")],
)
def test_it_is_refused_when_what_it_needs_is_refused(bench: Bench, answer: VendorError, message: str) -> None:
    bench.shop.answers = [answer]
    shipped, error = ship(bench)
    assert shipped.state is State.REJECTED
    assert error
    assert (error.message, error.status, error.vendor) == (message, answer.status, "shop")


@pytest.mark.parametrize(("since", "is_sent"), [(None, False), (-1, False), (0, False), (1, True)])
def test_what_a_person_discarded_is_sent_again_only_for_a_later_event(
    unconfirmed: Bench, since: int | None, is_sent: bool
) -> None:
    unconfirmed.discard(park(unconfirmed))
    unconfirmed.shop.hits = []
    at = None if since is None else int((unconfirmed.clock.now + since) * 1_000_000)
    shipped, error = ship(unconfirmed, since=at)
    if is_sent:
        assert shipped.state is State.SUCCEEDED
    else:
        assert (shipped.state, len(unconfirmed.shop.sent)) == (State.REJECTED, 1)
        assert error
        assert (error.message, error.vendor) == ("a person discarded the order; send its event again", "shop")


def test_what_the_vendor_refused_is_sent_again(bench: Bench) -> None:
    bench.shop.answers = [failing(RefusedError)]
    bench.run()
    assert ship(bench)[0].state is State.SUCCEEDED
    assert len(bench.shop.sent) == 2


def test_what_waits_is_replaced_only_if_the_need_says_so(bench: Bench) -> None:
    bench.shop.answers = [failing(NotDoneError)]
    bench.run(note="the first")
    ship(bench)
    assert [one.note for one in bench.shop.sent] == ["the first"]
    ship(bench, "2", command=Order(number="1", note="the second"), replaces=True)
    assert [one.note for one in bench.shop.sent] == ["the first", "the second"]
    assert bench.stored().state is State.SUCCEEDED


@pytest.mark.parametrize("state", [State.WAITING, State.UNCONFIRMED, State.NEEDS_REVIEW])
def test_without_a_command_it_waits_for_an_event_that_is_on_its_way(bench: Bench, state: State) -> None:
    bench.shop.answers = [failing(NotDoneError if state is State.WAITING else MaybeDoneError)]
    bench.run()
    if state is State.NEEDS_REVIEW:
        bench.wait_until_due()
        park(bench)
    assert bench.stored().state is state
    shipped, error = ship(bench, "1", command=None)
    assert (shipped.state, len(bench.shop.sent)) == (State.WAITING, 1)
    assert isinstance(error, NotYetError)
    assert (error.message, error.vendor) == (f"the order is not there yet ({state})", "shop")


def test_without_a_command_the_caller_is_told_what_is_missing(bench: Bench) -> None:
    shipped, error = ship(bench, command=None, if_missing="Place the order first.")
    assert (shipped.state, bench.shop.sent) == (State.REJECTED, [])
    assert isinstance(error, MissingError)
    assert (error.message, error.vendor) == ("Place the order first.", "shop")


def test_nothing_is_begun_when_no_time_is_left(bench: Bench) -> None:
    shipped, error = ship(bench, seconds=1.5)
    assert (shipped.state, bench.shop.sent) == (State.WAITING, [])
    assert error
    assert (error.message, error.vendor) == ("no time was left to make the order first", "shop")


def test_an_event_cannot_need_itself(bench: Bench) -> None:
    flow: Any = shipping(bench)
    need = Need(flow, "the shipment", Order(number="1"))

    class Circle(flow):  # type: ignore[misc]
        def send(self, command: Order, vendor: Shop) -> Receipt:  # noqa: ARG002
            placed: Receipt = self.context.require(need).result
            return placed

    outcome = bench.engine.run(Circle, Order(number="1"), tenant="acme", deadline=Deadline(21, bench.clock))
    assert outcome.operation.operation_id == operation_id("acme", SHIP, "1")
    assert outcome.operation.state is State.REJECTED
    assert outcome.error
    assert (outcome.error.message, outcome.error.vendor) == ("the shipment needs itself", "shop")


def test_it_waits_while_another_function_sends_what_it_needs(bench: Bench) -> None:
    bench.run(later=True)
    claimed = bench.tables.operations.claim(
        bench.stored().operation_id,
        lease="another",
        now=int(bench.clock.now),
        until=2**33,
        states=[State.WAITING],
        tenant="acme",
    )
    assert claimed
    assert claimed.won
    shipped, error = ship(bench)
    assert (shipped.state, bench.stored().state) == (State.WAITING, State.SENDING)
    assert isinstance(error, NotYetError)
    assert (error.message, error.vendor) == ("the order is being made", "shop")
    assert error.waits_for == bench.stored().operation_id
    assert bench.stored().waiters == {shipped.operation_id}


def test_it_is_refused_when_the_data_of_what_it_needs_were_erased(bench: Bench) -> None:
    bench.run()
    bench.engine.erase(bench.stored(), by="ops")
    shipped, error = ship(bench)
    assert shipped.state is State.REJECTED
    assert error
    assert (error.message, error.vendor) == ("the data of the order were erased", "shop")


@pytest.mark.parametrize(("seconds", "is_sent"), [(2 * SHORTEST_CALL - 0.01, False), (2 * SHORTEST_CALL, True)])
def test_begun_only_if_there_is_time_for_two_calls(bench: Bench, seconds: float, *, is_sent: bool) -> None:
    ship(bench, seconds=seconds)
    assert bool(bench.shop.sent) is is_sent


def test_what_this_run_has_read_is_not_read_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.shop.answers = [failing(NotDoneError)]
    bench.run()
    there = bench.stored()
    monkeypatch.setattr(bench.tables.operations, "get", raising(AssertionError("was read")))
    context = bench.engine.bind(bench.flow, "acme", Deadline(21, bench.clock)).context
    with pytest.raises(NotYetError):
        context.require(Need(bench.flow, "the order", key="1"), read={there.operation_id: there})


def test_a_change_is_needless_when_a_person_discarded_what_it_needs(unconfirmed: Bench) -> None:
    unconfirmed.discard(park(unconfirmed))
    need = Need(unconfirmed.flow, "the order", Order(number="1"))
    for flow, kind in ((ChangeOrder, NeedlessError), (PlaceOrder, RefusedError)):
        bound = of_world(flow, unconfirmed.shop)
        context = unconfirmed.engine.bind(bound, "acme", Deadline(21, unconfirmed.clock)).context
        with pytest.raises(kind) as raised:
            context.require(need)
        assert type(raised.value) is kind


def test_what_is_lent_to_a_message_is_continued_at_once(bench: Bench) -> None:
    with_queues(bench, "orders")
    bench.shop.answers = [failing(MaybeDoneError)]
    bench.run()
    lent = bench.stored().model_copy(update={"due_at": 2**33, "lent_until": 2**33})
    bench.tables.operations.save(lent, over=State.UNCONFIRMED)
    bench.shop.hits = [hit(101, bench.clock)]
    shipped, _ = ship(bench)
    assert (shipped.state, bench.shop.looks) == (State.SUCCEEDED, 1)


def test_both_ends_are_written_with_what_the_flow_adds(bench: Bench) -> None:
    first = cast("Ending", object())
    context = bench.engine.bind(bench.flow, "acme", Deadline(21, bench.clock)).context
    context.ending = first
    context.require(Need(bench.flow, "the order", Order(number="1")), is_last=True)
    assert isinstance(context.ending, Together)
    assert context.ending.ending is first


def test_what_is_needed_is_settled_by_itself_unless_it_is_the_last_call(bench: Bench) -> None:
    context = bench.engine.bind(bench.flow, "acme", Deadline(21, bench.clock)).context
    context.require(Need(bench.flow, "the order", Order(number="1")))
    assert context.ending is None
    assert bench.stored().state is State.SUCCEEDED


def test_what_is_needed_keeps_no_note_of_another_payload(bench: Bench) -> None:
    bench.run(note="the first")
    ship(bench, command=Order(number="1", note="the second"))
    assert bench.stored().changed_at is None


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"state": State.REJECTED}, RefusedError, "the order: it was refused"),
        ({"state": State.WAITING, "result": '{"receipt":1}'}, NotYetError, "the order is not there yet (waiting)"),
        ({"state": State.SUCCEEDED, "result": None}, NotYetError, "the order is not there yet (succeeded)"),
    ],
)
def test_what_another_function_has_just_made_of_it_decides(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], kind: type[VendorError], message: str
) -> None:
    bench.run()
    there = bench.stored().model_copy(update=changes)
    monkeypatch.setattr(bench.engine, "run", lambda *_, **__: Outcome(there, ran=False))
    context = bench.engine.bind(bench.flow, "acme", Deadline(21, bench.clock)).context
    with pytest.raises(kind) as raised:
        context.require(Need(bench.flow, "the order", Order(number="1")))
    assert (raised.value.message, raised.value.status) == (message, None)

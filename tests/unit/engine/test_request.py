"""A request: what it is answered, and that the same event is sent once."""

from typing import Any

import pytest

from crm_bridge.engine import Outcome
from crm_bridge.engine.states import REPLACEABLE
from crm_bridge.errors import (
    ContractBrokenError,
    MaybeDoneError,
    NotConfiguredError,
    NotDoneError,
    RunningError,
    VendorError,
)
from crm_bridge.outbound.transport import Deadline
from crm_bridge.storage.links import Identity
from crm_bridge.storage.operation import SHARDS, Operation, State, operation_id
from crm_bridge.storage.operations import Claim
from tests.unit.engine.conftest import LEASE, Bench, Order, Receipt, failing


def test_succeeds_with_links_both_ways_when_the_vendor_does_it(bench: Bench) -> None:
    outcome = bench.run()
    assert outcome.ran
    assert outcome.operation.state is State.SUCCEEDED
    assert outcome.operation.result == '{"receipt":101}'
    assert bench.linked() == ["101"]
    back = bench.tables.links.of("acme", Identity("shop", "receipt", "101"))
    assert [partner.identity for partner in back] == [Identity("crm", "order", "1")]
    assert back[0].operation_id == outcome.operation.operation_id


def test_keeps_no_payload_and_is_not_due_when_it_succeeded(bench: Bench) -> None:
    bench.run()
    stored = bench.stored()
    assert stored.payload is None
    assert stored.due_at is None
    assert stored.expires_at is None  # what created something is kept for ever


def test_is_stored_with_payload_and_lease_before_it_is_sent(bench: Bench) -> None:
    seen: list[Operation] = []
    bench.shop.during = lambda: seen.append(bench.stored())
    bench.run()
    assert seen[0].state is State.SENDING
    assert seen[0].payload == '{"number":"1","note":"as ordered"}'
    assert seen[0].due_at is not None
    assert seen[0].due_at >= bench.clock.now + 29  # the lease outlasts the function, whatever it does


def test_only_the_ids_of_a_result_are_stored(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class VendorsReceipt(Receipt, extra="allow"):
        pass

    monkeypatch.setattr(bench.shop, "order", lambda _: VendorsReceipt.model_validate({"receipt": 7, "to": "Ada Nowak"}))
    outcome = bench.run()
    assert outcome.result == '{"receipt":7,"to":"Ada Nowak"}'
    assert bench.stored().result == '{"receipt":7}'
    assert bench.run().result is None


def test_answers_the_stored_result_when_the_event_is_repeated(bench: Bench) -> None:
    first = bench.run()
    again = bench.run()
    assert not again.ran
    assert again.operation == first.operation
    assert not again.changed
    assert len(bench.shop.sent) == 1


def test_says_changed_and_sends_nothing_when_the_event_is_repeated_with_another_payload(bench: Bench) -> None:
    bench.run()
    again = bench.run(note="changed")
    assert not again.ran
    assert again.changed
    assert len(bench.shop.sent) == 1


def test_says_running_when_the_same_event_arrives_while_it_is_sent(bench: Bench) -> None:
    def repeat() -> None:
        with pytest.raises(RunningError) as raised:
            bench.run()
        assert raised.value.headers["Retry-After"] in ("1", "2")
        assert raised.value.operation_id == operation_id("acme", "orders", "1")

    bench.shop.during = repeat
    assert bench.run().operation.state is State.SUCCEEDED
    assert len(bench.shop.sent) == 1


@pytest.mark.parametrize(
    ("error", "state"),
    [(NotDoneError, State.WAITING), (MaybeDoneError, State.UNCONFIRMED), (ContractBrokenError, State.UNCONFIRMED)],
)
def test_sends_nothing_when_the_event_is_repeated_before_it_is_settled(
    bench: Bench, error: type[VendorError], state: State
) -> None:
    bench.shop.answers = [failing(error)]
    assert bench.run().operation.state is state
    again = bench.run()
    assert not again.ran
    assert again.operation.state is state
    assert len(bench.shop.sent) == 1


def test_two_tenants_and_two_flows_do_not_share_an_operation() -> None:
    ids = {operation_id(tenant, flow, "1") for tenant in ("a", "b") for flow in ("x", "y")}
    assert len(ids) == 4
    assert operation_id("a", "x", "1") in ids


def test_is_accepted_for_later_when_the_caller_asks(bench: Bench) -> None:
    outcome = bench.run(later=True)
    assert outcome.operation.state is State.WAITING
    assert bench.shop.sent == []
    retried = bench.retry()
    assert retried is not None
    assert retried.operation.state is State.SUCCEEDED
    assert len(bench.shop.sent) == 1


def test_accepts_nothing_when_the_tenant_is_not_configured(bench: Bench) -> None:
    bench.tables.put_secret("acme", "{}")
    with pytest.raises(NotConfiguredError):
        bench.run()
    assert not any(page for shard in SHARDS for page in bench.tables.operations.due(shard, 2**40))
    assert bench.shop.sent == []


def test_a_repetition_gets_what_there_is(bench: Bench) -> None:
    bench.run()
    assert bench.run() == Outcome(bench.stored(), ran=False)
    there = bench.stored()
    assert bench.run(note="changed") == Outcome(there, ran=False, changed=True)


@pytest.mark.parametrize(("left", "retry_after"), [(LEASE, "2"), (3, "2"), (2, "2"), (1, "1"), (0, "1"), (-60, "1")])
def test_says_when_to_ask_again_while_it_is_sent(bench: Bench, left: int, retry_after: str) -> None:
    def repeat() -> None:
        bench.clock.move(LEASE - left)
        with pytest.raises(RunningError, match="processed right now") as raised:
            bench.run()
        assert raised.value.headers == {"Retry-After": retry_after}

    bench.shop.during = repeat
    bench.run()


def test_takes_the_place_of_one_that_waits_only_if_it_is_told_to(bench: Bench) -> None:
    bench.shop.answers = [failing(NotDoneError)]
    bench.run(note="first")
    assert not bench.run(note="second").ran
    assert bench.run(note="third", over_undone=True).operation.state is State.SUCCEEDED
    assert [order.note for order in bench.shop.sent] == ["first", "third"]


def test_a_question_is_asked_of_the_flows_own_vendor(bench: Bench) -> None:
    flow = bench.engine.bind(bench.flow, "acme", Deadline(21, bench.clock))
    asked: list[object] = []

    def question(shop: Any) -> str:
        asked.append((type(shop), shop.world))
        return "the answer"

    assert bench.engine.ask(flow, question) == "the answer"
    assert asked == [(bench.flow.vendor, bench.shop)]


def test_one_client_is_made_for_one_event(bench: Bench) -> None:
    bench.run()
    assert [one[0] for one in bench.shop.asked] == ["vendor"]


def test_what_the_flow_claims_itself_is_sent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def claim(flow: Any, command: Order, operation: Operation, *, later: bool) -> Claim:
        asked.append((flow.name, command.number, operation.event_key, later))
        return bench.tables.operations.create(operation.model_copy(update={"mapping": "its own"}), over=REPLACEABLE)

    monkeypatch.setattr(bench.flow, "claim", claim)
    bench.run()
    bench.run("2", later=True)
    assert asked == [("orders", "1", "1", False), ("orders", "2", "2", True)]
    assert (bench.stored().mapping, bench.stored("2").mapping) == ("its own", "its own")
    assert len(bench.shop.sent) == 1


def test_a_client_gets_what_the_run_has(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[object, ...]] = []
    made = bench.flow.vendor.for_tenant

    def for_tenant(tenant: Any, transport: Any, deadline: Any, services: Any) -> Any:
        given.append((transport.scope.tenant, transport._calls, deadline, services))
        return made(tenant, transport, deadline, services)

    monkeypatch.setattr(bench.flow.vendor, "for_tenant", for_tenant)
    flow = bench.engine.bind(bench.flow, "acme", Deadline(21, bench.clock))
    bench.engine.ask(flow, lambda shop: shop)
    assert given == [("acme", flow.context.calls, flow.context.deadline, bench.services)]

"""Records that exist before anything is sent, and records that were removed."""

from crm_bridge.engine import KEEP
from crm_bridge.errors import Event
from crm_bridge.storage.links import Identity
from crm_bridge.storage.operation import State
from tests.unit.engine.conftest import Bench, hit


def test_is_found_and_linked_when_the_vendor_has_it_before_anything_is_sent(bench: Bench) -> None:
    bench.shop.there = hit(55, bench.clock, ago=10_000_000)
    outcome = bench.run()
    assert outcome.operation.state is State.SUCCEEDED
    assert [attempt.event for attempt in outcome.operation.attempts] == [Event.FOUND]
    assert bench.linked() == ["55"]
    assert bench.shop.sent == []


def test_keeps_the_links_that_it_holds(bench: Bench) -> None:
    bench.run()
    assert bench.stored().links == ((Identity("crm", "order", "1"), Identity("shop", "receipt", "101")),)


def test_expires_when_it_succeeded_and_linked_nothing(bench: Bench) -> None:
    bench.shop.linking = False
    bench.run()
    assert bench.stored().expires_at == bench.clock.now + KEEP


def test_may_be_sent_again_when_what_it_made_was_taken_back(bench: Bench) -> None:
    bench.engine.withdraw(bench.run().operation, by="a test")
    stored = bench.stored()
    assert (stored.state, stored.result, stored.links) == (State.REJECTED, None, ())
    assert stored.attempts[-1].event is Event.WITHDRAWN
    assert stored.expires_at == bench.clock.now + KEEP
    assert bench.run().operation.state is State.SUCCEEDED
    assert len(bench.shop.sent) == 2
    assert bench.stored().expires_at is None


def test_is_taken_back_once_when_two_do_it(bench: Bench) -> None:
    done = bench.run().operation
    bench.engine.withdraw(done, by="one")
    bench.run()
    bench.engine.withdraw(done, by="another, with what it read before")
    assert bench.stored().state is State.SUCCEEDED

"""The whole record of an operation after each step, compared by equality."""

import pytest

from crm_bridge.engine import KEEP, POLICY, Outcome
from crm_bridge.errors import Event, MaybeDoneError, NotDoneError, RefusedError, VendorError
from crm_bridge.storage.links import Identity
from crm_bridge.storage.operation import Attempt, Operation, State, fingerprint, operation_id
from tests.unit.engine.conftest import LEASE, PAYLOAD, Bench, Order, Receipt, failing, hit

ENDS = ((Identity("crm", "order", "1"), Identity("shop", "receipt", "101")),)


def accepted(bench: Bench, **changes: object) -> Operation:
    """The whole record of an order that was accepted just now and not sent yet. Its lease is any."""
    now = int(bench.clock.now)
    return Operation(
        operation_id=operation_id("acme", "orders", "1"),
        tenant="acme",
        flow="orders",
        function="orders",
        event_key="1",
        state=State.WAITING,
        fingerprint=fingerprint(PAYLOAD),
        payload=PAYLOAD,
        lease=bench.stored().lease,
        due_at=now,
        created_at=now,
        updated_at=now,
        sent_to="https://shop.example/1",
    ).model_copy(update=changes)


def sending(bench: Bench, **changes: object) -> Operation:
    now = int(bench.clock.now)
    return accepted(bench, state=State.SENDING, tries=1, due_at=now + LEASE, first_sent_at=now).model_copy(
        update=changes
    )


def tried(bench: Bench, event: Event, reason: str = "", status: int | None = None) -> dict[str, object]:
    """What one more attempt, and the first, changes of a record."""
    attempt = Attempt(at=int(bench.clock.now), event=event, reason=reason, status=status)
    return {"attempts": (attempt,), "last_attempt": attempt}


def test_the_record_says_all_that_is_needed_to_send_it_again(bench: Bench) -> None:
    seen: list[Operation] = []
    bench.shop.during = lambda: seen.append(bench.stored())
    bench.run(mapping="upya v1")
    assert seen == [sending(bench, lease=seen[0].lease, mapping="upya v1")]
    assert len(seen[0].lease or "") == 32
    assert bench.shop.asked[0] == ("vendor", "acme", bench.deadline)


def test_the_record_says_the_same_when_it_was_only_accepted(bench: Bench) -> None:
    outcome = bench.run(later=True, mapping="upya v1")
    assert bench.stored() == accepted(bench, mapping="upya v1")
    assert outcome == Outcome(bench.stored(), ran=False)
    assert len(bench.stored().lease or "") == 32


def test_the_record_says_what_was_made_when_it_succeeded(bench: Bench) -> None:
    outcome = bench.run()
    done = {"state": State.SUCCEEDED, "result": '{"receipt":101}', "payload": None, "due_at": None, "links": ENDS}
    assert bench.stored() == sending(bench, **done, **tried(bench, Event.DONE))
    assert outcome == Outcome(bench.stored(), ran=True, result='{"receipt":101}')


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (NotDoneError, {"state": State.WAITING}),
        (MaybeDoneError, {"state": State.UNCONFIRMED}),
        (RefusedError, {"state": State.REJECTED, "payload": None, "due_at": None}),
    ],
)
def test_the_record_says_what_failed(bench: Bench, kind: type[VendorError], changes: dict[str, object]) -> None:
    error = failing(kind, status=418)
    bench.shop.answers = [error]
    outcome = bench.run()
    now = int(bench.clock.now)
    expected = sending(bench, due_at=now + POLICY.retry_delays[0], **tried(bench, kind.event, "because", 418))
    in_doubt = {"unconfirmed_since": now} if kind is MaybeDoneError else {}
    kept = {"expires_at": now + KEEP} if kind is RefusedError else {}
    assert bench.stored() == expected.model_copy(update={**changes, **in_doubt, **kept})
    assert outcome == Outcome(bench.stored(), ran=True, error=error)


@pytest.mark.parametrize("answer", [None, failing(NotDoneError), failing(RefusedError)])
def test_the_record_says_when_it_was_settled(bench: Bench, answer: VendorError | None) -> None:
    accepted_at = int(bench.clock.now)
    bench.shop.answers, bench.shop.during = [answer], lambda: bench.clock.move(7)
    bench.run()
    stored = bench.stored()
    assert (stored.created_at, stored.first_sent_at) == (accepted_at, accepted_at)
    assert (stored.updated_at, stored.attempts[-1].at) == (accepted_at + 7, accepted_at + 7)


def test_the_record_says_what_failed_at_a_retry(bench: Bench) -> None:
    bench.run(later=True)
    before = bench.stored()
    bench.clock.move(10)
    now = int(bench.clock.now)
    bench.shop.answers = [failing(MaybeDoneError, status=500)]
    outcome = bench.retry()
    attempt = Attempt(at=now, event=Event.MAYBE_DONE, reason="because", status=500)
    assert outcome is not None
    assert outcome.operation == bench.stored()
    assert outcome.ran
    assert bench.stored() == before.model_copy(
        update={
            "state": State.UNCONFIRMED,
            "was": State.WAITING,
            "lease": bench.stored().lease,
            "tries": 1,
            "due_at": now + POLICY.retry_delays[0],
            "first_sent_at": now,
            "unconfirmed_since": now,
            "updated_at": now,
            "attempts": (attempt,),
            "last_attempt": attempt,
        }
    )
    assert (len(bench.stored().lease or ""), bench.stored().lease != before.lease) == (32, True)
    assert bench.shop.asked[-1] == ("vendor", "acme", bench.deadline)


def test_the_record_says_what_was_found(unconfirmed: Bench) -> None:
    before = unconfirmed.stored()
    unconfirmed.shop.hits = [hit(101, unconfirmed.clock)]
    unconfirmed.retry()
    now = int(unconfirmed.clock.now)
    found = Attempt(at=now, event=Event.FOUND)
    assert unconfirmed.stored() == before.model_copy(
        update={
            "state": State.SUCCEEDED,
            "was": State.UNCONFIRMED,
            "lease": unconfirmed.stored().lease,
            "tries": 2,
            "result": '{"receipt":101}',
            "payload": None,
            "due_at": None,
            "updated_at": now,
            "attempts": (*before.attempts, found),
            "last_attempt": found,
            "links": ENDS,
        }
    )
    assert (len(unconfirmed.stored().lease or ""), unconfirmed.stored().lease != before.lease) == (32, True)


def test_the_record_says_why_nothing_could_be_found(unconfirmed: Bench) -> None:
    unconfirmed.shop.hits = failing(NotDoneError, status=503)
    outcome = unconfirmed.retry()
    attempt = unconfirmed.stored().attempts[-1]
    assert (attempt.event, attempt.reason, attempt.status) == (Event.LOOK_FAILED, "because", 503)
    assert outcome == Outcome(unconfirmed.stored(), ran=True, error=unconfirmed.shop.hits)


def test_the_record_says_what_a_person_linked(in_review: Bench) -> None:
    before = in_review.stored()
    in_review.clock.move(60)
    resolved = in_review.link_existing(before, "101", by="ops")
    attempt = Attempt(at=int(in_review.clock.now), event=Event.LINKED, reason="by ops")
    assert resolved == in_review.stored()
    assert resolved == before.model_copy(
        update={
            "state": State.SUCCEEDED,
            "result": '{"receipt":101}',
            "payload": None,
            "links": ENDS,
            "updated_at": int(in_review.clock.now),
            "attempts": (*before.attempts, attempt),
            "last_attempt": attempt,
        }
    )
    assert ("link", "acme", Order(number="1"), "101") in in_review.shop.asked
    assert in_review.shop.asked[-1] == ("verify", Order(number="1"), Receipt(receipt=101), in_review.shop.destination)
    back = in_review.tables.links.of("acme", Identity("shop", "receipt", "101"))
    assert (back[0].operation_id, back[0].linked_at.timestamp()) == (resolved.operation_id, in_review.clock.now)


def test_the_record_says_that_a_person_lets_it_begin_anew(in_review: Bench) -> None:
    before = in_review.stored()
    resolved = in_review.engine.request_retry(before, by="ops")
    now = int(in_review.clock.now)
    attempt = Attempt(at=now, event=Event.RETRY_REQUESTED, reason="by ops")
    assert resolved == in_review.stored()
    assert resolved == before.model_copy(
        update={
            "state": State.WAITING,
            "due_at": now,
            "tries": 0,
            "first_sent_at": None,
            "unconfirmed_since": None,
            "sent_to": None,
            "updated_at": now,
            "attempts": (*before.attempts, attempt),
            "last_attempt": attempt,
        }
    )


def test_the_record_says_that_a_person_discarded_it(in_review: Bench) -> None:
    before = in_review.stored()
    resolved = in_review.discard(before, by="ops")
    now = int(in_review.clock.now)
    attempt = Attempt(at=now, event=Event.DISCARDED, reason="by ops")
    assert resolved == in_review.stored()
    assert resolved == before.model_copy(
        update={
            "state": State.REJECTED,
            "payload": None,
            "expires_at": now + KEEP,
            "updated_at": now,
            "attempts": (*before.attempts, attempt),
            "last_attempt": attempt,
        }
    )


def test_the_record_says_who_took_it_back(bench: Bench) -> None:
    before = bench.run().operation
    bench.clock.move(60)
    bench.engine.withdraw(before, by="a test")
    now = int(bench.clock.now)
    attempt = Attempt(at=now, event=Event.WITHDRAWN, reason="by a test")
    assert bench.stored() == before.model_copy(
        update={
            "state": State.REJECTED,
            "result": None,
            "links": (),
            "expires_at": now + KEEP,
            "updated_at": now,
            "attempts": (*before.attempts, attempt),
            "last_attempt": attempt,
        }
    )

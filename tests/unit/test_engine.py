"""The engine's rules, one by one: moto's tables, a vendor that does what a test tells it, a clock that stands still."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from pydantic import BaseModel, ValidationError

from crm_bridge import engine as engine_module
from crm_bridge.breaker import FAILURES, Breaker
from crm_bridge.engine import (
    CLOCK_SKEW,
    DUE,
    HANDED_OVER,
    KEEP,
    KEEP_ATTEMPTS,
    LAST_TRY,
    LONGEST_HOLD,
    LONGEST_NAME,
    MOST_CANDIDATES,
    MOST_COMPARED,
    MOST_DEFECTS,
    PATIENCE,
    REDELIVERY,
    REPLACEABLE,
    TRANSITIONS,
    Engine,
    Hit,
    Outcome,
)
from crm_bridge.errors import (
    CannotLookError,
    ConflictError,
    ContractBrokenError,
    ErasedError,
    Event,
    FieldError,
    HalfDoneError,
    InvalidError,
    MaybeDoneError,
    MissingError,
    NeedlessError,
    NotConfiguredError,
    NotDoneError,
    NotShownError,
    NotYetError,
    PoisonError,
    RefusedError,
    RunningError,
    SignInRefusedError,
    StorageError,
    TryLaterError,
    UnconfirmedError,
    VendorError,
)
from crm_bridge.links import Identity, Link
from crm_bridge.operations import SHARDS, Attempt, Candidate, Claim, Operation, State, fingerprint, operation_id
from crm_bridge.queues import Queues
from crm_bridge.settings import Tenant
from crm_bridge.telemetry import add_to_log, bind_log, logger
from crm_bridge.transport import AFTER_DEADLINE, Deadline, Transport
from tests.unit.conftest import Clock, Tables


class Order(BaseModel):
    number: str
    note: str = "as ordered"


class Receipt(BaseModel):
    receipt: int


@dataclass
class Shop:
    """A vendor. `answers` are what its next calls come to: an error to raise, or None to do it."""

    answers: list[VendorError | None] = field(default_factory=list)
    hits: list[Hit[Receipt]] | VendorError = field(default_factory=list)
    sent: list[Order] = field(default_factory=list)
    there: Hit[Receipt] | None = None
    """What the vendor is found to have before anything is sent."""
    not_shown: NotShownError | None = None
    """What a look ends in after its hits."""
    looks: int = 0
    search_lag: int = 120
    destination: str = "https://shop.example/1"
    keys_seen: list[str] = field(default_factory=list)
    during: Callable[[], None] = lambda: None
    """Happens while an order is being sent."""

    def order(self, order: Order) -> Receipt:
        self.sent.append(order)
        self.during()
        answer = self.answers.pop(0) if self.answers else None
        if answer:
            raise answer
        return Receipt(receipt=100 + len(self.sent))


@dataclass
class OrderFlow:
    shop: Shop
    name: str = "orders"
    command: type[Order] = Order
    linking: bool = True
    repeating: bool = False
    waits_for: str | None = None
    """The operation that each order has to wait for."""
    verified: str | VendorError | None = None
    """What the vendor says of a record that a person named."""
    asked: list[tuple[object, ...]] = field(default_factory=list)
    """What the engine gave along when it asked for a client, for a record that a person found, or for links."""

    def vendor(self, tenant: str, settings: Tenant, transport: Transport, deadline: Deadline) -> Shop:
        self.asked.append(("vendor", tenant, transport.scope.tenant, deadline))
        if settings.illu is None:
            raise NotConfiguredError("no block")
        self.shop.keys_seen.append(settings.illu.api_key.get_secret_value())
        return self.shop

    def key(self, command: Order) -> str:
        return command.number

    def repeatable(self, command: Order) -> bool:
        return self.repeating and bool(command.number)

    def send(self, command: Order, vendor: Shop) -> Receipt | Hit[Receipt]:
        if self.waits_for:
            raise NotYetError("first another one", vendor="shop", waits_for=self.waits_for)
        return vendor.there or vendor.order(command)

    def find(self, command: Order, vendor: Shop) -> Iterator[Hit[Receipt]]:
        self.asked.append(("find", command))
        vendor.looks += 1
        if isinstance(vendor.hits, VendorError):
            raise vendor.hits
        yield from vendor.hits
        if vendor.not_shown:
            raise vendor.not_shown

    def adopt(self, tenant: str, command: Order, vendor_id: str) -> Receipt:
        self.asked.append(("adopt", tenant, command, vendor_id))
        return Receipt(receipt=int(vendor_id))

    def verify(self, command: Order, result: Receipt, vendor: Shop) -> str | None:
        self.asked.append(("verify", command, result, vendor))
        if isinstance(self.verified, VendorError):
            raise self.verified
        return self.verified

    def links(self, command: Order, result: Receipt) -> Sequence[Link]:
        if not self.linking:
            return []
        return [Link(Identity("crm", "order", command.number), Identity("shop", "receipt", str(result.receipt)))]


class Bench:
    """An engine, its tables, one flow, and what a test does with them."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self.tables = tables
        self.clock = clock
        self.shop = Shop()
        self.flow = OrderFlow(self.shop)
        self.breaker = Breaker(clock)
        self.transport = Transport(breaker=self.breaker)
        self.engine = Engine(
            tables.operations, tables.links, tables.tenants, self.transport, clock=clock, jitter=lambda: 0.5
        )

    def run(self, number: str = "1", *, note: str = "as ordered", **options: Any) -> Outcome:
        order = Order(number=number, note=note)
        self.deadline = Deadline(21, self.clock)
        return self.engine.run(self.flow, order, tenant="acme", deadline=self.deadline, **options)

    def redeliver(self, number: str = "1", *, lent_until: int | None = None) -> Outcome | None:
        named = operation_id("acme", "orders", number)
        self.deadline = Deadline(21, self.clock)
        return self.engine.redeliver(self.flow, named, tenant="acme", deadline=self.deadline, lent_until=lent_until)

    def adopt(self, parked: Operation, vendor_id: str, *, by: str, confirmed: bool = False) -> Operation:
        deadline = Deadline(21, self.clock)
        return self.engine.adopt(self.flow, parked, vendor_id, by=by, deadline=deadline, confirmed=confirmed)

    def look_twice(self, number: str = "1") -> None:
        """An uncertain record is put before a person if the next look shows one as well."""
        self.redeliver(number)
        if self.stored(number).due_at is not None:
            self.wait_until_due(number)
            self.redeliver(number)

    def stored(self, number: str = "1") -> Operation:
        operation = self.tables.operations.get(operation_id("acme", "orders", number))
        assert operation is not None
        return operation

    def wait_until_due(self, number: str = "1") -> None:
        due_at = self.stored(number).due_at
        assert due_at is not None
        self.clock.now = due_at

    def linked(self, number: str = "1") -> list[str]:
        return [p.identity.id for p in self.tables.links.of("acme", Identity("crm", "order", number))]


@pytest.fixture
def bench(tables: Tables, clock: Clock) -> Bench:
    return Bench(tables, clock)


def failing(kind: type[VendorError], **details: float) -> VendorError:
    return kind("because", vendor="shop", **details)  # type: ignore[arg-type]


def hit(receipt: int, clock: Clock, *, ago: float = 0) -> Hit[Receipt]:
    return Hit(Receipt(receipt=receipt), datetime.fromtimestamp(clock.now - ago, UTC))


# ---------------------------------------------------------------- a request


def test_succeeds_with_links_both_ways_when_the_vendor_does_it(bench: Bench) -> None:
    outcome = bench.run()
    assert outcome.carried
    assert outcome.operation.state is State.SUCCEEDED
    assert outcome.operation.answer == '{"receipt":101}'
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
    assert bench.stored().answer == '{"receipt":7}'
    assert bench.run().result is None


def test_answers_the_stored_result_when_the_event_is_repeated(bench: Bench) -> None:
    first = bench.run()
    again = bench.run()
    assert not again.carried
    assert again.operation == first.operation
    assert not again.changed
    assert len(bench.shop.sent) == 1


def test_says_changed_and_sends_nothing_when_the_event_is_repeated_with_another_payload(bench: Bench) -> None:
    bench.run()
    again = bench.run(note="changed")
    assert not again.carried
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
    [(NotDoneError, State.WAITING), (MaybeDoneError, State.UNKNOWN), (ContractBrokenError, State.UNKNOWN)],
)
def test_sends_nothing_when_the_event_is_repeated_before_it_is_settled(
    bench: Bench, error: type[VendorError], state: State
) -> None:
    bench.shop.answers = [failing(error)]
    assert bench.run().operation.state is state
    again = bench.run()
    assert not again.carried
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
    redelivered = bench.redeliver()
    assert redelivered is not None
    assert redelivered.operation.state is State.SUCCEEDED
    assert len(bench.shop.sent) == 1


def test_accepts_nothing_when_the_tenant_is_not_configured(bench: Bench) -> None:
    bench.tables.put_secret("acme", "{}")
    with pytest.raises(NotConfiguredError):
        bench.run()
    assert not any(page for shard in SHARDS for page in bench.tables.operations.due(shard, 2**40))
    assert bench.shop.sent == []


LEASE = 21 + math.ceil(AFTER_DEADLINE)
"""Seconds for which an operation is held by whoever sends it."""
PAYLOAD = '{"number":"1","note":"as ordered"}'
ENDS = ((Identity("crm", "order", "1"), Identity("shop", "receipt", "101")),)


def accepted(bench: Bench, **changes: object) -> Operation:
    """The whole record of an order that was accepted just now and not sent yet. Its lease is any."""
    now = int(bench.clock.now)
    return Operation(
        operation_id=operation_id("acme", "orders", "1"),
        tenant="acme",
        flow="orders",
        natural_key="1",
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
    assert bench.flow.asked[0] == ("vendor", "acme", "acme", bench.deadline)


def test_the_record_says_the_same_when_it_was_only_accepted(bench: Bench) -> None:
    outcome = bench.run(later=True, mapping="upya v1")
    assert bench.stored() == accepted(bench, mapping="upya v1")
    assert outcome == Outcome(bench.stored(), carried=False)
    assert len(bench.stored().lease or "") == 32


def test_the_record_says_what_was_made_when_it_succeeded(bench: Bench) -> None:
    outcome = bench.run()
    done = {"state": State.SUCCEEDED, "answer": '{"receipt":101}', "payload": None, "due_at": None, "links": ENDS}
    assert bench.stored() == sending(bench, **done, **tried(bench, Event.DONE))
    assert outcome == Outcome(bench.stored(), carried=True, result='{"receipt":101}')


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (NotDoneError, {"state": State.WAITING}),
        (MaybeDoneError, {"state": State.UNKNOWN}),
        (RefusedError, {"state": State.REJECTED, "payload": None, "due_at": None}),
    ],
)
def test_the_record_says_what_failed(bench: Bench, kind: type[VendorError], changes: dict[str, object]) -> None:
    error = failing(kind, status=418)
    bench.shop.answers = [error]
    outcome = bench.run()
    now = int(bench.clock.now)
    expected = sending(bench, due_at=now + REDELIVERY[0], **tried(bench, kind.event, "because", 418))
    in_doubt = {"unknown_since": now} if kind is MaybeDoneError else {}
    kept = {"expires_at": now + KEEP} if kind is RefusedError else {}
    assert bench.stored() == expected.model_copy(update={**changes, **in_doubt, **kept})
    assert outcome == Outcome(bench.stored(), carried=True, error=error)


@pytest.mark.parametrize("answer", [None, failing(NotDoneError), failing(RefusedError)])
def test_the_record_says_when_it_was_settled(bench: Bench, answer: VendorError | None) -> None:
    accepted_at = int(bench.clock.now)
    bench.shop.answers, bench.shop.during = [answer], lambda: bench.clock.move(7)
    bench.run()
    stored = bench.stored()
    assert (stored.created_at, stored.first_sent_at) == (accepted_at, accepted_at)
    assert (stored.updated_at, stored.attempts[-1].at) == (accepted_at + 7, accepted_at + 7)


def test_says_all_that_was_made_when_a_part_of_it_is_linked_already(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run("other")
    ends = (Identity("shop", "bill", "7"), Identity("shop", "receipt", "101"))
    links = [Link(Identity("crm", "order", "1"), end) for end in ends]
    monkeypatch.setattr(bench.flow, "links", lambda *_: links)
    bench.run()
    assert bench.stored().state is State.PARKED
    assert bench.stored().attempts[-1].reason.startswith("shop bill 7, shop receipt 101 cannot be linked")


def test_a_repetition_is_answered_with_what_there_is(bench: Bench) -> None:
    bench.run()
    assert bench.run() == Outcome(bench.stored(), carried=False)
    changed = bench.run(note="changed")
    assert changed == Outcome(bench.stored(), carried=False, changed=True)


@pytest.mark.parametrize(("left", "retry_after"), [(LEASE, "2"), (3, "2"), (2, "2"), (1, "1"), (0, "1"), (-60, "1")])
def test_says_when_to_ask_again_while_it_is_sent(bench: Bench, left: int, retry_after: str) -> None:
    def repeat() -> None:
        bench.clock.move(LEASE - left)
        with pytest.raises(RunningError, match="carried right now") as raised:
            bench.run()
        assert raised.value.headers == {"Retry-After": retry_after}

    bench.shop.during = repeat
    bench.run()


def test_takes_the_place_of_one_that_waits_only_if_it_is_told_to(bench: Bench) -> None:
    bench.shop.answers = [failing(NotDoneError)]
    bench.run(note="first")
    assert not bench.run(note="second").carried
    assert bench.run(note="third", over_undone=True).operation.state is State.SUCCEEDED
    assert [order.note for order in bench.shop.sent] == ["first", "third"]


# ---------------------------------------------------------------- what is told of it


def lines(log: StringIO, message: str) -> list[dict[str, Any]]:
    """The log's lines with this message."""
    written = [json.loads(line) for line in log.getvalue().splitlines()]
    return [line for line in written if line["message"] == message]


def metrics(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """Each metric that was counted, with its dimensions."""
    written = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [{name: value for name, value in line.items() if name != "_aws"} for line in written]


def test_logs_and_counts_what_became_of_it(bench: Bench, log: StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    bench.shop.answers = [failing(NotDoneError, status=429)]
    bench.run()
    (line,) = lines(log, "operation")
    told = {name: line[name] for name in ("operation_id", "event", "state", "try", "vendor_status")}
    named = operation_id("acme", "orders", "1")
    assert told == {"operation_id": named, "event": "not done", "state": "waiting", "try": 1, "vendor_status": 429}
    assert metrics(capsys) == [{"Operations": [1.0], "flow": "orders", "state": "waiting"}]


def test_logs_whose_operation_it_redelivers(bench: Bench, log: StringIO) -> None:
    bench.run(later=True)
    bind_log()
    bench.redeliver()
    (line,) = lines(log, "operation")
    assert (line["tenant"], line["operation_id"]) == ("acme", operation_id("acme", "orders", "1"))


def test_whatever_is_logged_after_it_was_accepted_names_it(bench: Bench, log: StringIO) -> None:
    bind_log()
    bench.run(later=True)
    logger().info("answered")
    assert lines(log, "answered")[0]["operation_id"] == operation_id("acme", "orders", "1")


def test_logs_its_own_id_after_another_was_carried_in_between(bench: Bench, log: StringIO) -> None:
    bench.shop.during = lambda: add_to_log(operation_id="another")
    bench.run()
    assert lines(log, "operation")[0]["operation_id"] == operation_id("acme", "orders", "1")


def test_counts_a_refusal_that_nobody_waits_for(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.run(later=True)
    bench.shop.answers = [failing(RefusedError)]
    bench.redeliver()
    assert {"RefusedLater": [1.0], "flow": "orders"} in metrics(capsys)


def test_counts_a_refused_sign_in(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.shop.answers = [failing(SignInRefusedError)]
    bench.run()
    assert {"SignInRefused": [1.0], "vendor": "shop"} in metrics(capsys)


def test_tells_the_ids_that_would_be_lost_when_it_cannot_be_settled(
    bench: Bench, log: StringIO, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.tables.operations, "save", _raise(StorageError("down")))
    bench.run()
    (line,) = lines(log, "not settled")
    told = (line["level"], line["event"], line["state"], line["made"])
    assert told == ("ERROR", "done", "succeeded", ["shop receipt 101"])
    assert metrics(capsys) == [{"NotSettled": [1.0], "flow": "orders"}]
    assert lines(log, "operation") == []


def test_tells_the_ids_that_would_be_lost_when_somebody_else_settled_it(bench: Bench, log: StringIO) -> None:
    def take_over() -> None:
        bench.shop.during = lambda: None
        bench.wait_until_due()
        bench.shop.hits = failing(CannotLookError)
        bench.redeliver()

    bench.shop.during = take_over
    outcome = bench.run()
    assert outcome.operation == bench.stored()
    assert bench.stored().state is State.PARKED
    assert lines(log, "not settled")[0]["made"] == ["shop receipt 101"]


def test_logs_and_counts_what_a_person_decided(
    parked: Bench, log: StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    parked.engine.abandon(parked.stored(), by="ops")
    (line,) = lines(log, "resolved")
    assert (line["event"], line["state"]) == ("abandoned", "rejected")
    assert metrics(capsys) == [{"Operations": [1.0], "flow": "orders", "state": "rejected"}]


# ---------------------------------------------------------------- a tenant that wants to be told

TOLD = '{"illu": {"org_id": 88, "api_key": "illu-key-1"}, "callback": {"url": "https://acme.example/", "secret": "%s"}}'


@pytest.fixture
def told(bench: Bench) -> Bench:
    bench.tables.put_secret("acme", TOLD % ("whsec_" + "b2s0" * 8))
    return bench


def callbacks(bench: Bench) -> list[str]:
    """The states that are on their way to the tenant."""
    shards = [bench.tables.operations.due(shard, 2**40) for shard in SHARDS]
    due = [one for pages in shards for page in pages for one in page if one.function == "callback"]
    made = [bench.tables.operations.get(one.operation_id) for one in due]
    return sorted(json.loads(one.payload or "")["type"] for one in made if one)


def test_a_tenant_is_not_told_what_the_caller_was_answered(told: Bench) -> None:
    told.run()
    told.shop.answers = [failing(RefusedError)]
    told.run("2")
    assert callbacks(told) == []


@pytest.mark.parametrize(
    ("answers", "type_"), [([], "operation.succeeded"), ([failing(RefusedError)], "operation.rejected")]
)
def test_a_tenant_is_told_when_it_settles_later(told: Bench, answers: list[VendorError | None], type_: str) -> None:
    assert told.run(later=True).operation.is_told
    told.shop.answers = [failing(NotDoneError), *answers]
    told.redeliver()
    assert callbacks(told) == []
    told.wait_until_due()
    told.redeliver()
    assert callbacks(told) == [type_]


def test_a_tenant_is_told_what_was_parked_at_once_and_what_a_person_made_of_it(told: Bench) -> None:
    told.run("other")
    told.shop.sent.clear()
    told.run()
    assert callbacks(told) == ["operation.parked"]
    told.engine.resend(told.stored(), by="ops")
    assert callbacks(told) == ["operation.parked"]
    told.redeliver()
    assert callbacks(told) == ["operation.parked", "operation.succeeded"]
    told.engine.withdraw(told.stored(), by="ops")
    assert callbacks(told) == ["operation.parked", "operation.succeeded"]


@pytest.mark.parametrize(("decide", "type_"), [("adopt", "operation.succeeded"), ("abandon", "operation.rejected")])
def test_a_tenant_is_told_what_a_person_decided(told: Bench, decide: str, type_: str) -> None:
    told.run(later=True)
    told.tables.operations.save(told.stored().model_copy(update={"state": State.PARKED}), over=State.WAITING)
    if decide == "adopt":
        told.adopt(told.stored(), "7", by="ops")
    else:
        told.engine.abandon(told.stored(), by="ops")
    assert callbacks(told) == [type_]


def test_a_tenant_that_names_no_address_is_not_told(bench: Bench) -> None:
    assert not bench.run(later=True).operation.is_told
    bench.redeliver()
    assert callbacks(bench) == []


# ---------------------------------------------------------------- what a failure leaves


def test_waits_when_surely_not_done(bench: Bench) -> None:
    bench.shop.answers = [failing(NotDoneError, status=503)]
    outcome = bench.run()
    assert outcome.operation.state is State.WAITING
    assert outcome.operation.due_at == bench.clock.now + REDELIVERY[0]
    assert outcome.operation.payload is not None
    attempt = outcome.operation.attempts[-1]
    assert (attempt.event, attempt.reason, attempt.status) == (Event.NOT_DONE, "because", 503)


def test_honours_retry_after_when_it_is_longer_than_the_plan(bench: Bench) -> None:
    bench.shop.answers = [failing(NotDoneError, retry_after=600.5)]
    assert bench.run().operation.due_at == bench.clock.now + 601


def test_waits_a_day_at_most_when_retry_after_is_absurd(bench: Bench) -> None:
    bench.shop.answers = [failing(NotDoneError, retry_after=1e9)]
    assert bench.run().operation.due_at == bench.clock.now + 86_400


@pytest.mark.parametrize(("jitter", "wait"), [(0.0, 24), (0.5, 30), (1.0, 36)])
def test_spreads_the_wait_by_a_fifth(bench: Bench, jitter: float, wait: int) -> None:
    bench.engine = Engine(
        bench.tables.operations,
        bench.tables.links,
        bench.tables.tenants,
        Transport(),
        clock=bench.clock,
        jitter=lambda: jitter,
    )
    bench.shop.answers = [failing(NotDoneError)]
    assert bench.run().operation.due_at == bench.clock.now + wait


def test_is_rejected_when_the_vendor_refuses(bench: Bench) -> None:
    bench.shop.answers = [failing(RefusedError, status=422)]
    outcome = bench.run()
    stored = bench.stored()
    assert outcome.operation == stored
    assert stored.state is State.REJECTED
    assert stored.payload is None
    assert stored.due_at is None
    assert stored.expires_at == bench.clock.now + 90 * 86_400
    assert bench.linked() == []


def test_may_be_sent_again_when_it_was_rejected(bench: Bench) -> None:
    bench.shop.answers = [failing(RefusedError)]
    bench.run(note="wrong")
    outcome = bench.run(note="corrected")
    assert outcome.carried
    assert outcome.operation.state is State.SUCCEEDED
    assert [order.note for order in bench.shop.sent] == ["wrong", "corrected"]
    assert [attempt.event for attempt in bench.stored().attempts] == [Event.REFUSED, Event.DONE]
    assert bench.stored().expires_at is None


def test_reads_the_secret_again_and_repeats_when_sign_in_is_refused_after_a_rotation(bench: Bench) -> None:
    bench.run("before")  # the old secret is cached from here on
    bench.tables.put_secret("acme", '{"illu": {"org_id": 88, "api_key": "illu-key-2"}}')
    bench.shop.answers = [failing(SignInRefusedError)]
    outcome = bench.run("1")
    assert outcome.operation.state is State.SUCCEEDED
    assert bench.shop.keys_seen[-1] == "illu-key-2"
    assert outcome.operation.tries == 1


def test_waits_when_sign_in_is_refused_with_the_newest_secret(bench: Bench) -> None:
    bench.shop.answers = [failing(SignInRefusedError, status=401)]
    assert bench.run().operation.state is State.WAITING
    assert len(bench.shop.sent) == 1


def test_tells_what_is_known_when_the_settings_are_broken_meanwhile(bench: Bench) -> None:
    bench.run()
    bench.shop.answers = [failing(RefusedError)]
    bench.run("refused")
    bench.tables.put_secret("acme", "{}")
    bench.tables.tenants.get("acme", "orders", fresh=True)
    assert bench.run() == Outcome(bench.stored(), carried=False)
    assert bench.run(note="changed").changed
    for number in ("new", "refused"):
        with pytest.raises(NotConfiguredError):
            bench.run(number)


def test_keeps_the_newest_attempts_when_a_refused_event_is_sent_over_and_over(bench: Bench) -> None:
    for _ in range(KEEP_ATTEMPTS + 3):
        bench.shop.answers = [failing(RefusedError)]
        bench.run()
    bench.run()
    attempts = bench.stored().attempts
    assert len(attempts) == KEEP_ATTEMPTS
    assert attempts[-1].event is Event.DONE


# ---------------------------------------------------------------- redelivery


def test_is_rejected_and_keeps_its_payload_when_it_is_refused_after_the_caller_was_told_202(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.run(later=True)
    bench.shop.answers = [failing(RefusedError)]
    bench.redeliver()
    stored = bench.stored()
    assert stored.state is State.REJECTED
    assert stored.payload is not None
    assert "RefusedLater" in capsys.readouterr().out


def test_is_sent_again_without_a_look_when_it_was_waiting(bench: Bench) -> None:
    bench.shop.answers = [failing(NotDoneError)]
    bench.run()
    bench.wait_until_due()
    outcome = bench.redeliver()
    assert outcome is not None
    assert outcome.operation.state is State.SUCCEEDED
    assert bench.shop.looks == 0
    assert bench.linked() == ["102"]


def test_does_nothing_when_it_is_not_due_yet(bench: Bench) -> None:
    bench.shop.answers = [failing(NotDoneError)]
    bench.run()
    bench.wait_until_due()
    bench.clock.move(-1)
    assert bench.redeliver() is None
    assert len(bench.shop.sent) == 1


def test_does_nothing_when_it_is_finished_or_gone(bench: Bench) -> None:
    bench.run()
    bench.clock.move(10**6)
    assert bench.redeliver() is None
    assert bench.redeliver("never heard of") is None
    assert len(bench.shop.sent) == 1


def test_is_carried_once_when_two_workers_take_the_same_operation(bench: Bench) -> None:
    bench.shop.answers = [failing(NotDoneError)]
    bench.run()
    bench.wait_until_due()
    bench.shop.during = lambda: second.append(bench.redeliver())
    second: list[Outcome | None] = []
    first = bench.redeliver()
    assert first is not None
    assert second == [None]
    assert len(bench.shop.sent) == 2  # the one that was not done, and this one


def test_is_parked_when_all_attempts_failed_and_each_waited_longer(bench: Bench) -> None:
    bench.shop.answers = [failing(NotDoneError) for _ in range(LAST_TRY + 5)]
    bench.run()
    waits = []
    while bench.stored().state is State.WAITING:
        began = bench.clock.now
        bench.wait_until_due()
        waits.append(int(bench.clock.now - began))
        bench.redeliver()
    assert waits == list(REDELIVERY)
    stored = bench.stored()
    assert stored.state is State.PARKED
    assert stored.due_at is None
    assert stored.payload is not None  # whoever decides may want to send it again
    assert [a.event for a in stored.attempts] == [Event.NOT_DONE] * LAST_TRY + [Event.OUT_OF_ATTEMPTS]


def test_waits_without_doubt_when_the_secret_cannot_be_read_at_redelivery(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.shop.answers = [failing(NotDoneError)]
    bench.run()
    bench.wait_until_due()
    with monkeypatch.context() as patch:
        patch.setattr(bench.tables.tenants, "get", _raise(StorageError("Secrets Manager is down")))
        outcome = bench.redeliver()
    assert outcome is not None
    assert outcome.operation.state is State.WAITING  # nothing was sent, so nothing is in doubt
    bench.wait_until_due()
    bench.redeliver()
    assert bench.stored().state is State.SUCCEEDED


def test_waits_when_what_it_refers_to_is_missing_and_the_caller_is_gone(bench: Bench) -> None:
    bench.shop.answers = [failing(MissingError), failing(MissingError)]
    assert bench.run("told").operation.state is State.REJECTED
    bench.run("gone", later=True)
    outcome = bench.redeliver("gone")
    assert outcome is not None
    assert isinstance(outcome.error, MissingError)
    assert (bench.stored("gone").state, bench.stored("gone").attempts[-1].reason) == (State.WAITING, "because")
    assert bench.stored("gone").payload is not None


def test_is_carried_before_its_time_by_whom_it_was_lent_to_and_by_nobody_else(bench: Bench) -> None:
    bench.run(later=True)
    ((due,),) = bench.tables.operations.due(bench.stored().shard, int(bench.clock.now))
    lent_until = due.due_at + 900
    assert bench.tables.operations.lend(due, lent_until, due.due_at + 60)
    assert not bench.tables.operations.lend(due, lent_until, due.due_at + 60)
    for other in (None, due.due_at, lent_until - 1, lent_until + 1):
        assert bench.redeliver(lent_until=other) is None
    assert bench.redeliver(lent_until=lent_until) is not None
    assert len(bench.shop.sent) == 1


def test_a_message_that_comes_twice_takes_nothing_from_whom_it_was_claimed_by(bench: Bench) -> None:
    bench.run(later=True)
    ((due,),) = bench.tables.operations.due(bench.stored().shard, int(bench.clock.now))
    lease_end = math.ceil(bench.clock.now + 21 + AFTER_DEADLINE)  # the same second
    bench.tables.operations.lend(due, lease_end, lease_end)
    again: list[Outcome | None] = []
    bench.shop.during = lambda: again.append(bench.redeliver(lent_until=lease_end))
    bench.redeliver(lent_until=lease_end)
    assert (again, len(bench.shop.sent)) == ([None], 1)


def test_the_record_says_what_failed_at_a_redelivery(bench: Bench) -> None:
    bench.run(later=True)
    before = bench.stored()
    bench.clock.move(10)
    now = int(bench.clock.now)
    bench.shop.answers = [failing(MaybeDoneError, status=500)]
    outcome = bench.redeliver()
    attempt = Attempt(at=now, event=Event.MAYBE_DONE, reason="because", status=500)
    assert outcome is not None
    assert outcome.operation == bench.stored()
    assert outcome.carried
    assert bench.stored() == before.model_copy(
        update={
            "state": State.UNKNOWN,
            "was": State.WAITING,
            "lease": bench.stored().lease,
            "tries": 1,
            "due_at": now + REDELIVERY[0],
            "first_sent_at": now,
            "unknown_since": now,
            "updated_at": now,
            "attempts": (attempt,),
            "last_attempt": attempt,
        }
    )
    assert (len(bench.stored().lease or ""), bench.stored().lease != before.lease) == (32, True)
    assert bench.flow.asked[-1] == ("vendor", "acme", "acme", bench.deadline)


def test_is_held_for_as_long_as_a_request_is_when_it_is_redelivered(bench: Bench) -> None:
    bench.run(later=True)
    seen: list[int | None] = []
    bench.shop.during = lambda: seen.append(bench.stored().due_at)
    bench.redeliver()
    assert seen == [bench.clock.now + LEASE]


def test_is_parked_by_its_last_try_and_not_before(bench: Bench) -> None:
    bench.run(later=True)
    bench.shop.answers = [failing(NotDoneError), failing(NotDoneError)]
    for tries, state in ((LAST_TRY - 2, State.WAITING), (LAST_TRY - 1, State.PARKED)):
        stored = bench.stored().model_copy(update={"tries": tries, "due_at": int(bench.clock.now)})
        bench.tables.operations.save(stored, over=State.WAITING)
        bench.redeliver()
        assert bench.stored().state is state
    assert bench.stored().due_at is None


def test_is_sent_by_its_last_try_and_not_after_it(bench: Bench) -> None:
    for number, tries in (("1", LAST_TRY - 1), ("2", LAST_TRY)):
        bench.run(number, later=True)
        stored = bench.stored(number).model_copy(update={"tries": tries})
        bench.tables.operations.save(stored, over=State.WAITING)
        bench.redeliver(number)
    assert (bench.stored("1").state, bench.stored("2").state) == (State.SUCCEEDED, State.PARKED)
    assert bench.stored("2").attempts == (Attempt(at=int(bench.clock.now), event=Event.OUT_OF_ATTEMPTS),)
    assert [order.number for order in bench.shop.sent] == ["1"]


def test_is_left_to_its_lease_when_the_storage_fails_while_it_is_carried(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run(later=True)
    monkeypatch.setattr(bench.flow, "links", _raise(StorageError("down")))
    with pytest.raises(StorageError):
        bench.redeliver()
    assert (bench.stored().state, bench.stored().attempts) == (State.SENDING, ())


def test_is_not_done_when_the_secret_cannot_be_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run(later=True)
    monkeypatch.setattr(bench.tables.tenants, "get", _raise(StorageError("Secrets Manager is down")))
    outcome = bench.redeliver()
    assert outcome is not None
    assert outcome.error is not None
    assert (outcome.error.vendor, outcome.error.message) == ("orders", "Secrets Manager is down")


def test_uses_the_client_of_the_new_secret_when_sign_in_is_refused_twice(bench: Bench) -> None:
    bench.run("before")
    bench.tables.put_secret("acme", '{"illu": {"org_id": 88, "api_key": "illu-key-2"}}')
    bench.shop.answers = [failing(SignInRefusedError), failing(SignInRefusedError)]
    assert bench.run().operation.state is State.WAITING
    assert bench.shop.keys_seen[-2:] == ["illu-key-1", "illu-key-2"]
    assert bench.flow.asked[-1] == ("vendor", "acme", "acme", bench.deadline)


# ---------------------------------------------------------------- while the vendor is down


def down(retry_after: float = 10) -> VendorError:
    return failing(NotDoneError, retry_after=retry_after)


@pytest.fixture
def outage(bench: Bench) -> None:
    for _ in range(FAILURES):
        bench.breaker.failed("shop", "shop.example", "acme")


@pytest.mark.parametrize(
    ("age", "wait"), [(0, 30), (59, 30), (100, 50), (1000, 500), (7200, 3600), (PATIENCE, 3600)], ids=str
)
@pytest.mark.usefixtures("outage")
def test_is_held_back_for_half_of_its_age(bench: Bench, age: int, wait: int) -> None:
    bench.shop.answers = [down(retry_after=age), down()]
    bench.run()
    bench.clock.now = max(bench.clock.now + age, bench.stored().due_at or 0)
    assert bench.redeliver() is not None
    stored = bench.stored()
    assert (stored.state, stored.due_at) == (State.WAITING, bench.clock.now + wait)


@pytest.mark.usefixtures("outage")
def test_waits_until_the_next_call_is_let_through_if_that_is_later(bench: Bench) -> None:
    bench.shop.answers = [down(retry_after=299.5)]
    bench.run()
    assert bench.stored().due_at == bench.clock.now + 300


@pytest.mark.usefixtures("outage")
def test_to_be_held_back_is_not_a_try_and_is_told_once(bench: Bench) -> None:
    bench.shop.answers = [down() for _ in range(3 * LAST_TRY)]
    bench.run()
    for _ in range(3 * LAST_TRY - 1):
        bench.wait_until_due()
        bench.redeliver()
    stored = bench.stored()
    assert (stored.state, stored.tries) == (State.WAITING, 0)
    assert [attempt.event for attempt in stored.attempts] == [Event.NOT_DONE]
    bench.wait_until_due()
    bench.redeliver()
    assert bench.stored().state is State.SUCCEEDED


def test_a_try_before_the_outage_counts_and_is_told(bench: Bench, request: pytest.FixtureRequest) -> None:
    bench.shop.answers = [NotDoneError("429", vendor="shop"), down(), down()]
    bench.run()
    request.getfixturevalue("outage")
    for _ in range(2):
        bench.wait_until_due()
        bench.redeliver()
    assert [attempt.event for attempt in bench.stored().attempts] == [Event.NOT_DONE] * 2
    assert bench.stored().tries == 1


@pytest.mark.usefixtures("outage")
def test_is_not_held_back_for_ever(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    patience = 6 * 3600
    monkeypatch.setattr(engine_module, "PATIENCE", patience)
    bench.shop.answers = [down() for _ in range(1000)]
    began = bench.clock.now
    bench.run()
    while bench.stored().state is State.WAITING:
        bench.wait_until_due()
        bench.redeliver()
    stored = bench.stored()
    assert stored.state is State.PARKED
    assert [attempt.event for attempt in stored.attempts] == [Event.NOT_DONE, Event.OUT_OF_ATTEMPTS]
    assert patience < bench.clock.now - began <= patience + 2 * LONGEST_HOLD
    bench.engine.resend(stored, by="support")
    bench.redeliver()
    assert bench.stored().state is State.WAITING  # and all begins anew


@pytest.mark.usefixtures("outage")
def test_stays_in_doubt_while_it_is_held_back(bench: Bench) -> None:
    bench.shop.answers = [failing(MaybeDoneError)]
    bench.shop.hits = down()
    bench.run()
    bench.wait_until_due()
    bench.redeliver()
    stored = bench.stored()
    assert (stored.state, stored.tries, len(bench.shop.sent)) == (State.UNKNOWN, 0, 1)
    bench.shop.hits = [hit(7, bench.clock)]
    bench.wait_until_due()
    bench.redeliver()
    assert (bench.stored().state, len(bench.shop.sent)) == (State.SUCCEEDED, 1)


# ---------------------------------------------------------------- when the bridge itself fails


def test_is_looked_for_and_sent_again_when_the_bridge_failed_once(bench: Bench) -> None:
    bench.run(later=True)
    bench.shop.during = _raise(ZeroDivisionError("a defect"))
    with pytest.raises(ZeroDivisionError):
        bench.redeliver()
    stored = bench.stored()
    assert (stored.state, stored.due_at) == (State.UNKNOWN, bench.clock.now + REDELIVERY[0])
    assert stored.last_attempt is not None
    assert (stored.last_attempt.event, stored.last_attempt.reason) == (
        Event.DEFECT,
        "the bridge failed (ZeroDivisionError)",
    )
    bench.shop.during = lambda: None
    bench.clock.move(bench.shop.search_lag)
    bench.redeliver()
    assert (bench.stored().state, bench.shop.looks, len(bench.shop.sent)) == (State.SUCCEEDED, 1, 2)


def test_is_parked_and_its_messages_go_on_failing_when_the_bridge_failed_three_times(bench: Bench) -> None:
    bench.run(later=True)
    broken = bench.stored().model_copy(update={"payload": '{"of": "an older version"}'})
    bench.tables.operations.save(broken, over=State.WAITING)
    for _ in range(MOST_DEFECTS):
        assert bench.stored().state is not State.PARKED
        bench.wait_until_due()
        with pytest.raises(ValidationError):
            bench.redeliver()
    stored = bench.stored()
    assert stored.state is State.PARKED
    assert [a.event for a in stored.attempts[-4:]] == [Event.DEFECT] * MOST_DEFECTS + [Event.OUT_OF_ATTEMPTS]
    with pytest.raises(PoisonError):
        bench.redeliver()
    bench.engine.resend(stored, by="support")
    with pytest.raises(ValidationError):
        bench.redeliver()
    assert bench.stored().state is State.UNKNOWN  # a person gave it three more
    parked = bench.stored().model_copy(update={"state": State.PARKED})
    bench.tables.operations.save(parked, over=State.UNKNOWN)
    assert bench.redeliver() is None


def test_is_parked_again_when_it_failed_as_often_after_a_person_let_it_begin_anew(bench: Bench) -> None:
    bench.run(later=True)
    bench.flow.command = Receipt  # type: ignore[assignment]  # which its payload is none of
    for _ in range(2):
        for failures in range(MOST_DEFECTS):
            assert bench.stored().state is (State.UNKNOWN if failures else State.WAITING)
            bench.wait_until_due()
            with pytest.raises(ValidationError):
                bench.redeliver()
        assert bench.stored().state is State.PARKED
        with pytest.raises(PoisonError):
            bench.redeliver()
        bench.engine.resend(bench.stored(), by="support")


# ---------------------------------------------------------------- from unknown


@pytest.fixture
def unknown(bench: Bench) -> Bench:
    """An operation whose answer was lost, and that is due."""
    bench.shop.answers = [failing(MaybeDoneError)]
    bench.run()
    assert bench.stored().state is State.UNKNOWN
    bench.wait_until_due()
    return bench


def test_adopts_the_record_when_exactly_one_fits(unknown: Bench) -> None:
    unknown.shop.hits = [hit(101, unknown.clock)]
    outcome = unknown.redeliver()
    assert outcome is not None
    assert outcome.operation.state is State.SUCCEEDED
    assert outcome.operation.answer == '{"receipt":101}'
    assert unknown.linked() == ["101"]
    assert len(unknown.shop.sent) == 1


def test_adopts_the_record_when_the_vendor_does_not_say_how_old_it_is(unknown: Bench) -> None:
    unknown.shop.hits = [Hit(Receipt(receipt=101))]
    unknown.redeliver()
    assert unknown.linked() == ["101"]


def test_is_parked_when_several_records_fit(unknown: Bench) -> None:
    unknown.shop.hits = [hit(101, unknown.clock), hit(102, unknown.clock)]
    unknown.redeliver()
    assert unknown.stored().state is State.PARKED
    assert unknown.linked() == []
    assert len(unknown.shop.sent) == 1


def test_adopts_the_certain_record_when_others_only_may_be_the_one(unknown: Bench) -> None:
    unknown.shop.hits = [hit(101, unknown.clock), Hit(Receipt(receipt=7), certain=False)]
    unknown.redeliver()
    assert unknown.linked() == ["101"]


def test_is_parked_when_a_record_only_may_be_the_one_in_two_looks(unknown: Bench) -> None:
    unknown.shop.hits = [Hit(Receipt(receipt=7), certain=False)]
    unknown.clock.move(unknown.shop.search_lag)
    unknown.redeliver()
    waiting = unknown.stored()
    assert (waiting.state, waiting.due_at) == (State.UNKNOWN, unknown.clock.now + unknown.shop.search_lag)
    unknown.wait_until_due()
    unknown.redeliver()
    assert unknown.stored().state is State.PARKED
    assert len(unknown.shop.sent) == 1


def test_is_sent_again_when_the_record_that_may_be_the_one_is_linked_to_another_meanwhile(unknown: Bench) -> None:
    unknown.shop.hits = [Hit(Receipt(receipt=102), certain=False)]
    unknown.clock.move(unknown.shop.search_lag)
    unknown.redeliver()
    assert unknown.run("other").operation.answer == '{"receipt":102}'
    unknown.wait_until_due()
    unknown.redeliver()
    assert (unknown.linked(), unknown.stored().candidates) == (["103"], None)


def test_waits_out_the_search_lag_when_a_record_only_may_be_the_one(unknown: Bench) -> None:
    """Its own may not be shown yet, and the other may be linked by then."""
    unknown.shop.hits = [Hit(Receipt(receipt=7), certain=False)]
    unknown.redeliver()
    waiting = unknown.stored()
    assert (waiting.state, waiting.attempts[-1].event) == (State.UNKNOWN, Event.NOT_FOUND_YET)
    assert waiting.due_at == (waiting.unknown_since or 0) + unknown.shop.search_lag
    unknown.shop.hits.append(hit(101, unknown.clock))
    unknown.wait_until_due()
    unknown.redeliver()
    assert (unknown.linked(), len(unknown.shop.sent)) == (["101"], 1)


def test_what_was_found_counts_when_the_vendor_may_not_show_everything(unknown: Bench) -> None:
    unknown.shop.not_shown = failing(NotShownError)  # type: ignore[assignment]
    unknown.shop.hits = [hit(101, unknown.clock)]
    unknown.redeliver()
    assert (unknown.linked(), len(unknown.shop.sent)) == (["101"], 1)


def test_is_parked_when_all_that_is_shown_is_anothers_and_there_may_be_more(unknown: Bench) -> None:
    unknown.run("other")
    unknown.shop.not_shown = failing(NotShownError)  # type: ignore[assignment]
    unknown.shop.hits = [hit(102, unknown.clock)]
    unknown.clock.move(unknown.shop.search_lag)
    unknown.redeliver()
    assert (unknown.stored().state, unknown.stored().attempts[-1].reason) == (State.PARKED, "because")
    assert len(unknown.shop.sent) == 2


@pytest.mark.parametrize(("younger_by", "parked"), [(0, True), (-1, False)])
def test_a_time_without_a_zone_is_taken_for_the_latest_that_it_may_mean(
    unknown: Bench, younger_by: int, parked: bool
) -> None:
    latest = (unknown.stored().first_sent_at or 0) - CLOCK_SKEW + younger_by
    told = datetime.fromtimestamp(latest - 36 * 3600, UTC).replace(tzinfo=None)
    unknown.shop.hits = [Hit(Receipt(receipt=7), told, certain=False)]
    unknown.clock.move(unknown.shop.search_lag)
    unknown.look_twice()
    assert unknown.stored().state is (State.PARKED if parked else State.SUCCEEDED)


def test_keeps_the_records_for_the_person_who_decides_the_likeliest_first(unknown: Bench) -> None:
    made_at = datetime.fromtimestamp(unknown.clock.now, UTC)
    unknown.shop.hits = [
        Hit(Receipt(receipt=1), certain=False, id="1", name="A"),
        Hit(Receipt(receipt=2), made_at, False, "2", "B" * 900),
        Hit(Receipt(receipt=3), certain=True, id="3", name="C"),
        Hit(Receipt(receipt=4), certain=True, id="4", name="D"),
        *(Hit(Receipt(receipt=5 + more), certain=False, id=str(5 + more)) for more in range(20)),
    ]
    unknown.clock.move(unknown.shop.search_lag)
    unknown.look_twice()
    stored = unknown.stored()
    assert stored.attempts[-1].reason == "24 records at the vendor may be this event's"
    assert stored.candidates is not None
    assert len(stored.candidates) == MOST_CANDIDATES
    assert stored.candidates[:3] == (
        Candidate(id="3", name="C"),
        Candidate(id="4", name="D"),
        Candidate(id="2", name="B" * LONGEST_NAME, created_at=made_at.isoformat()),
    )
    assert stored.shown_candidates(names=False)[0] == {"id": "3", "created_at": None}
    assert stored.shown_candidates(names=True)[0] == {"id": "3", "created_at": None, "name": "C"}
    assert "candidates" not in stored.shown()


@pytest.mark.parametrize("decide", ["adopt", "resend", "abandon"])
def test_keeps_the_records_no_longer_than_until_a_person_decided(unknown: Bench, decide: str) -> None:
    unknown.shop.hits = [Hit(Receipt(receipt=7), certain=False, id="7", name="A")]
    unknown.clock.move(unknown.shop.search_lag)
    unknown.look_twice()
    parked = unknown.stored()
    assert parked.candidates
    if decide == "adopt":
        unknown.engine.adopt(unknown.flow, parked, "7", by="ops", deadline=unknown.deadline)
    else:
        getattr(unknown.engine, decide)(parked, by="ops")
    assert unknown.stored().candidates is None


def test_of_more_records_than_are_compared_the_rest_is_left_to_a_person(unknown: Bench) -> None:
    unknown.run("other")
    unknown.shop.hits = [Hit(Receipt(receipt=102), certain=False)] * (MOST_COMPARED + 1)
    unknown.clock.move(unknown.shop.search_lag)
    unknown.look_twice()
    assert unknown.stored().attempts[-1].reason == "1 record at the vendor may be this event's"


# ---------------------------------------------------------------- asked to send it later


@pytest.fixture
def deferred(bench: Bench) -> Bench:
    """An operation whose vendor said 429, or 503 with Retry-After, and that is due."""
    bench.shop.answers = [failing(TryLaterError, status=503, retry_after=40)]
    bench.run()
    assert (bench.stored().state, bench.stored().due_at) == (State.WAITING, bench.clock.now + 40)
    bench.wait_until_due()
    return bench


def test_adopts_what_the_vendor_did_although_it_asked_to_send_it_later(deferred: Bench) -> None:
    deferred.shop.hits = [hit(101, deferred.clock)]
    deferred.redeliver()
    assert (deferred.linked(), len(deferred.shop.sent)) == (["101"], 1)


def test_is_sent_again_once_a_look_after_the_search_lag_found_nothing(deferred: Bench) -> None:
    """Before, its record may be there and not be shown, and a second sending would make another."""
    asked_at = deferred.stored().deferred_at or 0
    deferred.redeliver()
    waiting = deferred.stored()
    assert (waiting.state, waiting.due_at) == (State.WAITING, asked_at + deferred.shop.search_lag)
    assert waiting.attempts[-1].event is Event.NOT_DONE
    assert len(deferred.shop.sent) == 1
    deferred.wait_until_due()
    deferred.redeliver()
    assert (deferred.linked(), len(deferred.shop.sent), deferred.shop.looks) == (["102"], 2, 2)
    assert deferred.stored().deferred_at is None


@pytest.mark.parametrize("error", [CannotLookError, NotShownError])
def test_is_sent_again_when_the_vendor_cannot_be_asked_but_only_asked_for_time(
    deferred: Bench, error: type[VendorError]
) -> None:
    deferred.shop.hits = failing(error)
    deferred.clock.move(deferred.shop.search_lag)
    deferred.redeliver()
    assert (deferred.linked(), len(deferred.shop.sent)) == (["102"], 2)


@pytest.mark.parametrize(
    "error", [NotDoneError, MaybeDoneError, RefusedError, ContractBrokenError, SignInRefusedError, TryLaterError]
)
def test_waits_as_before_when_the_look_fails(deferred: Bench, error: type[VendorError]) -> None:
    asked_at = deferred.stored().deferred_at
    deferred.shop.hits = failing(error)
    deferred.redeliver()
    stored = deferred.stored()
    assert (stored.state, stored.unknown_since, stored.deferred_at) == (State.WAITING, None, asked_at)
    assert stored.due_at == deferred.clock.now + REDELIVERY[1]
    assert len(deferred.shop.sent) == 1


def test_is_parked_when_a_record_may_be_what_the_vendor_did_although_it_asked_for_time(deferred: Bench) -> None:
    deferred.shop.hits = [Hit(Receipt(receipt=7), certain=False, id="7")]
    deferred.redeliver()
    assert deferred.stored().state is State.WAITING
    deferred.wait_until_due()
    deferred.redeliver()
    assert (deferred.stored().state, len(deferred.shop.sent)) == (State.PARKED, 1)


def test_is_looked_for_until_a_look_succeeds_whatever_fails_in_between(deferred: Bench) -> None:
    deferred.shop.hits = failing(NotDoneError)
    deferred.redeliver()
    deferred.wait_until_due()
    deferred.redeliver()
    deferred.shop.hits = [hit(101, deferred.clock)]
    deferred.wait_until_due()
    deferred.redeliver()
    assert (deferred.linked(), len(deferred.shop.sent)) == (["101"], 1)


def test_is_rejected_when_it_is_refused_after_a_look_found_nothing(deferred: Bench) -> None:
    deferred.clock.move(deferred.shop.search_lag)
    deferred.shop.answers = [failing(RefusedError, status=400)]
    deferred.redeliver()
    assert deferred.stored().state is State.REJECTED


def test_does_not_give_way_to_another_when_the_vendor_asked_for_time(deferred: Bench) -> None:
    """What takes its place would be sent without a look."""
    outcome = deferred.run(note="newer", over_undone=True)
    assert (outcome.carried, len(deferred.shop.sent)) == (False, 1)


def test_is_not_looked_for_when_the_vendor_asked_for_time_and_it_may_be_repeated(bench: Bench) -> None:
    bench.flow.repeating = True
    bench.shop.answers = [failing(TryLaterError)]
    bench.run()
    assert bench.stored().deferred_at is None
    bench.wait_until_due()
    bench.redeliver()
    assert (len(bench.shop.sent), bench.shop.looks) == (2, 0)


@pytest.mark.parametrize(("anew", "linked", "sent"), [(False, ["101"], LAST_TRY), (True, ["112"], LAST_TRY + 1)])
def test_is_looked_for_when_it_is_taken_up_again_without_a_persons_look(
    bench: Bench, anew: bool, linked: list[str], sent: int
) -> None:
    bench.shop.search_lag = 0
    bench.shop.answers = [failing(TryLaterError) for _ in range(LAST_TRY)]
    bench.run()
    while bench.stored().state is not State.PARKED:
        bench.wait_until_due()
        bench.redeliver()
    bench.engine.resend(bench.stored(), by="ops", anew=anew)
    bench.shop.hits = [hit(101, bench.clock)]
    bench.redeliver()
    assert (bench.linked(), len(bench.shop.sent)) == (linked, sent)


def test_is_parked_when_the_vendor_cannot_be_asked(unknown: Bench) -> None:
    unknown.shop.hits = failing(CannotLookError)
    unknown.redeliver()
    stored = unknown.stored()
    assert stored.state is State.PARKED
    assert stored.attempts[-1].event is Event.IN_DOUBT
    assert len(unknown.shop.sent) == 1


@pytest.mark.parametrize("error", [NotDoneError, MaybeDoneError, RefusedError, ContractBrokenError, SignInRefusedError])
def test_stays_unknown_when_the_look_fails(unknown: Bench, error: type[VendorError]) -> None:
    unknown.shop.hits = failing(error)
    unknown.redeliver()
    stored = unknown.stored()
    assert stored.state is State.UNKNOWN
    assert stored.attempts[-1].event is Event.LOOK_FAILED
    assert stored.due_at == unknown.clock.now + REDELIVERY[1]
    assert len(unknown.shop.sent) == 1


def test_stays_unknown_when_the_links_cannot_be_read(unknown: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown.shop.hits = [hit(101, unknown.clock)]
    monkeypatch.setattr(unknown.tables.links, "taken", _raise(StorageError("down")))
    unknown.redeliver()
    assert unknown.stored().state is State.UNKNOWN
    assert len(unknown.shop.sent) == 1


def test_looks_again_after_the_search_lag_and_then_sends_once_more(unknown: Bench) -> None:
    lost_at = unknown.stored().unknown_since
    assert lost_at is not None
    unknown.redeliver()
    waiting = unknown.stored()
    assert waiting.state is State.UNKNOWN
    assert waiting.due_at == lost_at + unknown.shop.search_lag
    assert len(unknown.shop.sent) == 1
    unknown.wait_until_due()
    unknown.redeliver()
    assert unknown.shop.looks == 2
    assert len(unknown.shop.sent) == 2
    assert unknown.stored().state is State.SUCCEEDED


def test_adopts_the_record_when_it_shows_up_within_the_search_lag(unknown: Bench) -> None:
    unknown.redeliver()
    unknown.shop.hits = [hit(101, unknown.clock)]
    unknown.wait_until_due()
    unknown.redeliver()
    assert unknown.linked() == ["101"]
    assert len(unknown.shop.sent) == 1


def test_looks_again_when_the_second_sending_is_lost_too(unknown: Bench) -> None:
    unknown.redeliver()
    unknown.wait_until_due()
    unknown.shop.answers = [failing(MaybeDoneError)]
    unknown.redeliver()
    stored = unknown.stored()
    assert stored.state is State.UNKNOWN
    assert stored.unknown_since == unknown.clock.now  # the lag counts from the last sending
    unknown.shop.hits = [hit(102, unknown.clock)]
    unknown.wait_until_due()
    unknown.redeliver()
    assert unknown.linked() == ["102"]
    assert len(unknown.shop.sent) == 2


def test_does_not_adopt_a_record_that_is_older_than_the_first_attempt(unknown: Bench) -> None:
    unknown.shop.hits = [hit(99, unknown.clock, ago=unknown.clock.now - unknown.stored().created_at + CLOCK_SKEW + 1)]
    unknown.clock.move(unknown.shop.search_lag)
    unknown.redeliver()
    assert unknown.linked() == ["102"]  # sent once more, since none of what it found could be ours
    assert len(unknown.shop.sent) == 2


def test_adopts_a_record_when_the_vendors_clock_is_a_little_behind(unknown: Bench) -> None:
    unknown.shop.hits = [hit(101, unknown.clock, ago=unknown.clock.now - unknown.stored().created_at + CLOCK_SKEW - 1)]
    unknown.redeliver()
    assert unknown.linked() == ["101"]


def test_does_not_adopt_the_record_of_a_namesake(unknown: Bench) -> None:
    other = unknown.run("other")
    assert other.operation.answer == '{"receipt":102}'
    unknown.shop.hits = [hit(102, unknown.clock)]
    unknown.clock.move(unknown.shop.search_lag)
    unknown.redeliver()
    assert unknown.linked("other") == ["102"]
    assert unknown.linked() == ["103"]


def test_looks_again_when_another_operation_adopts_the_record_first(
    unknown: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown.run("other")
    unknown.shop.hits = [hit(102, unknown.clock)]
    monkeypatch.setattr(
        unknown.tables.links, "taken", lambda _, groups, __: [False] * len(groups)
    )  # as if it was free a moment ago
    unknown.redeliver()
    assert unknown.stored().state is State.UNKNOWN
    assert unknown.linked("other") == ["102"]
    assert unknown.linked() == []


def test_looks_before_it_sends_when_a_sending_after_a_doubt_was_surely_not_done(unknown: Bench) -> None:
    """The first sending may still be done late, and the wait for the second is long enough for that."""
    unknown.clock.move(unknown.shop.search_lag)
    unknown.shop.answers = [failing(NotDoneError)]
    unknown.redeliver()
    assert unknown.stored().state is State.WAITING
    unknown.shop.hits = [hit(101, unknown.clock)]
    unknown.wait_until_due()
    unknown.redeliver()
    assert unknown.linked() == ["101"]
    assert len(unknown.shop.sent) == 2


@pytest.mark.parametrize(
    ("lose", "reason"),
    [
        (lambda shop: setattr(shop, "hits", failing(CannotLookError)), "in doubt"),
        (lambda shop: setattr(shop, "answers", [failing(NotDoneError) for _ in range(LAST_TRY)]), "out of attempts"),
    ],
)
def test_what_it_is_parked_for_is_counted_once(
    bench: Bench, capsys: pytest.CaptureFixture[str], lose: Callable[[Shop], None], reason: str
) -> None:
    bench.shop.answers = [failing(MaybeDoneError if reason == "in doubt" else NotDoneError)]
    bench.run()
    lose(bench.shop)
    while bench.stored().state is not State.PARKED:
        bench.wait_until_due()
        bench.redeliver()
    out = capsys.readouterr().out
    assert out.count('"Parked":[1.0]}') == out.count(f'"reason":"{reason}"') == 1


def test_is_parked_when_it_is_refused_after_a_doubt(unknown: Bench) -> None:
    """The refusal may be about what the first sending made."""
    unknown.clock.move(unknown.shop.search_lag)
    unknown.shop.answers = [failing(RefusedError, status=409)]
    unknown.redeliver()
    stored = unknown.stored()
    assert stored.state is State.PARKED
    assert stored.attempts[-1].event is Event.IN_DOUBT
    assert stored.payload is not None


def test_is_parked_when_it_was_sent_to_an_account_that_the_tenant_no_longer_names(unknown: Bench) -> None:
    unknown.shop.destination = "https://shop.example/2"
    unknown.clock.move(unknown.shop.search_lag)
    unknown.redeliver()
    assert unknown.stored().state is State.PARKED
    assert unknown.shop.looks == 0
    assert len(unknown.shop.sent) == 1


def test_looks_where_it_was_sent_last_when_the_account_was_corrected_before(bench: Bench) -> None:
    bench.shop.answers = [failing(SignInRefusedError), failing(MaybeDoneError)]
    bench.run()
    bench.shop.destination = "https://shop.example/2"
    bench.wait_until_due()
    bench.redeliver()
    assert bench.stored().state is State.UNKNOWN
    bench.shop.hits = [hit(102, bench.clock)]
    bench.wait_until_due()
    bench.redeliver()
    assert bench.linked() == ["102"]


@pytest.mark.parametrize(("found", "told"), [(2, "2 records"), (3, "3 records")])
def test_says_how_many_records_fit_when_a_person_has_to_decide(unknown: Bench, found: int, told: str) -> None:
    unknown.shop.hits = [hit(100 + number, unknown.clock) for number in range(found)]
    outcome = unknown.redeliver()
    assert outcome is not None
    assert outcome.error is not None
    assert (outcome.error.vendor, outcome.error.message[:9]) == ("orders", told)
    assert unknown.stored().attempts[-1].event is Event.IN_DOUBT


def test_is_parked_after_the_search_lag_when_the_vendor_shows_nothing_that_would_prove_it(unknown: Bench) -> None:
    unknown.shop.hits = failing(NotShownError)
    unknown.redeliver()
    waiting = unknown.stored()
    assert (waiting.state, waiting.attempts[-1].event) == (State.UNKNOWN, Event.NOT_FOUND_YET)
    assert waiting.due_at == (waiting.unknown_since or 0) + unknown.shop.search_lag
    unknown.wait_until_due()
    unknown.redeliver()
    stored = unknown.stored()
    assert (stored.state, stored.attempts[-1].reason) == (State.PARKED, "because")
    assert len(unknown.shop.sent) == 1


def test_an_operation_in_doubt_that_was_sent_to_an_account_no_longer_named_says_so(unknown: Bench) -> None:
    unknown.shop.destination = "https://shop.example/2"
    outcome = unknown.redeliver()
    assert outcome is not None
    assert outcome.error is not None
    assert (outcome.error.vendor, outcome.error.message) == (
        "orders",
        "it was sent to an account that the tenant no longer names",
    )


def test_the_search_lag_counts_from_the_moment_of_the_doubt(unknown: Bench) -> None:
    lost_at = unknown.stored().unknown_since or 0
    unknown.clock.now = lost_at + unknown.shop.search_lag - 1
    unknown.redeliver()
    assert unknown.stored().state is State.UNKNOWN
    assert len(unknown.shop.sent) == 1
    unknown.wait_until_due()
    unknown.redeliver()
    assert len(unknown.shop.sent) == 2
    assert unknown.clock.now == lost_at + unknown.shop.search_lag
    assert unknown.flow.asked[-1] == ("vendor", "acme", "acme", unknown.deadline)


@pytest.mark.parametrize(("older_by", "adopted"), [(CLOCK_SKEW, True), (CLOCK_SKEW + 1, False)])
def test_a_record_is_its_own_if_it_is_not_older_than_clocks_may_differ(
    unknown: Bench, older_by: int, adopted: bool
) -> None:
    first = unknown.stored().first_sent_at or 0
    unknown.shop.hits = [Hit(Receipt(receipt=101), datetime.fromtimestamp(first - older_by, UTC))]
    unknown.redeliver()
    assert unknown.linked() == (["101"] if adopted else [])


def test_a_record_is_adopted_that_this_very_event_has_linked_already(unknown: Bench) -> None:
    """As when a saving was thought to be lost."""
    unknown.shop.hits = [hit(101, unknown.clock)]
    link = Link(Identity("crm", "order", "1"), Identity("shop", "receipt", "101"))
    writes = [*unknown.tables.links.puts("acme", [link], unknown.stored().operation_id, unknown.clock.now)]
    unknown.tables.links.write(writes)
    unknown.redeliver()
    assert unknown.stored().state is State.SUCCEEDED


def test_is_asked_about_with_its_own_command(unknown: Bench) -> None:
    unknown.redeliver()
    assert ("find", Order(number="1")) in unknown.flow.asked
    assert unknown.flow.asked[-2] == ("vendor", "acme", "acme", unknown.deadline)


def test_the_record_says_what_was_found(unknown: Bench) -> None:
    before = unknown.stored()
    unknown.shop.hits = [hit(101, unknown.clock)]
    unknown.redeliver()
    now = int(unknown.clock.now)
    found = Attempt(at=now, event=Event.FOUND)
    assert unknown.stored() == before.model_copy(
        update={
            "state": State.SUCCEEDED,
            "was": State.UNKNOWN,
            "lease": unknown.stored().lease,
            "tries": 2,
            "answer": '{"receipt":101}',
            "payload": None,
            "due_at": None,
            "updated_at": now,
            "attempts": (*before.attempts, found),
            "last_attempt": found,
            "links": ENDS,
        }
    )
    assert (len(unknown.stored().lease or ""), unknown.stored().lease != before.lease) == (32, True)


def test_the_record_says_why_nothing_could_be_found(unknown: Bench) -> None:
    unknown.shop.hits = failing(NotDoneError, status=503)
    outcome = unknown.redeliver()
    attempt = unknown.stored().attempts[-1]
    assert (attempt.event, attempt.reason, attempt.status) == (Event.LOOK_FAILED, "because", 503)
    assert outcome == Outcome(unknown.stored(), carried=True, error=unknown.shop.hits)


def test_says_that_another_event_was_quicker_to_adopt_the_record(
    unknown: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown.run("other")
    unknown.shop.hits = [hit(102, unknown.clock)]
    monkeypatch.setattr(unknown.tables.links, "taken", lambda _, groups, __: [False] * len(groups))
    unknown.redeliver()
    attempt = unknown.stored().attempts[-1]
    assert (attempt.event, attempt.reason) == (Event.LOOK_FAILED, "the record was adopted by another event")
    assert unknown.stored().due_at == unknown.clock.now + REDELIVERY[1]


# ---------------------------------------------------------------- crashes


class Killed(BaseException):
    """The function ends here, as if its process was killed."""


def _kill() -> None:
    raise Killed


def test_looks_before_it_sends_when_the_function_was_killed_while_sending(bench: Bench) -> None:
    bench.shop.during = _kill
    with pytest.raises(Killed):
        bench.run()
    assert bench.stored().state is State.SENDING
    bench.shop.during = lambda: None
    bench.shop.hits = [hit(101, bench.clock)]
    assert bench.redeliver() is None  # its lease holds
    bench.wait_until_due()
    bench.redeliver()
    assert bench.linked() == ["101"]
    assert len(bench.shop.sent) == 1
    died, found = bench.stored().attempts
    assert (died.event, died.reason) == (Event.LEASE_EXPIRED, "whoever was sending it has died")
    assert (found.event, found.reason) == (Event.FOUND, "")


def test_waits_out_the_search_lag_from_the_end_of_the_lease_when_the_function_was_killed(bench: Bench) -> None:
    bench.shop.during = _kill
    with pytest.raises(Killed):
        bench.run()
    bench.shop.during = lambda: None
    bench.wait_until_due()
    bench.redeliver()
    assert bench.stored().due_at == bench.clock.now + bench.shop.search_lag
    assert len(bench.shop.sent) == 1
    bench.wait_until_due()
    bench.redeliver()
    assert (bench.stored().state, len(bench.shop.sent)) == (State.SUCCEEDED, 2)


def test_knows_its_own_record_when_a_worker_was_killed_at_the_first_sending(bench: Bench) -> None:
    """Accepted for later, first sent by a worker: the record is younger than that sending, not than the next look."""
    bench.run(later=True)
    bench.clock.move(1000)
    bench.shop.during = _kill
    with pytest.raises(Killed):
        bench.redeliver()
    made = hit(101, bench.clock)
    bench.shop.during = lambda: None
    bench.shop.hits = [made]
    bench.wait_until_due()
    bench.clock.move(5000)
    bench.redeliver()
    assert bench.linked() == ["101"]
    assert len(bench.shop.sent) == 1


def test_does_not_adopt_a_record_from_between_its_acceptance_and_its_first_sending(bench: Bench) -> None:
    bench.run(later=True)
    made_by_somebody_else = hit(7, bench.clock)
    bench.clock.move(CLOCK_SKEW + 1000)
    bench.shop.during = _kill
    with pytest.raises(Killed):
        bench.redeliver()
    bench.shop.during = lambda: None
    bench.shop.hits = [made_by_somebody_else]
    bench.wait_until_due()
    bench.redeliver()
    assert bench.stored().state is State.UNKNOWN
    assert bench.linked() == []


def test_is_parked_when_every_try_ends_in_a_crash(bench: Bench) -> None:
    bench.shop.search_lag = 0
    bench.shop.during = _kill
    with pytest.raises(Killed):
        bench.run()
    for _ in range(LAST_TRY - 1):
        bench.wait_until_due()
        with pytest.raises(Killed):
            bench.redeliver()
    bench.wait_until_due()
    bench.redeliver()
    assert bench.stored().state is State.PARKED


# ---------------------------------------------------------------- a person decides


@pytest.fixture
def parked(unknown: Bench) -> Bench:
    """An operation in doubt, whose vendor cannot be asked."""
    unknown.shop.hits = failing(CannotLookError)
    unknown.redeliver()
    assert unknown.stored().state is State.PARKED
    return unknown


def test_succeeds_with_links_when_a_person_adopts_the_record(parked: Bench) -> None:
    parked.adopt(parked.stored(), "101", by="ops")
    stored = parked.stored()
    assert stored.state is State.SUCCEEDED
    assert stored.payload is None
    assert parked.linked() == ["101"]
    assert (stored.attempts[-1].event, stored.attempts[-1].reason) == (Event.ADOPTED, "by ops")
    assert parked.run().operation.answer == '{"receipt":101}'
    assert len(parked.shop.sent) == 1


def test_is_sent_anew_when_a_person_says_so(parked: Bench) -> None:
    parked.engine.resend(parked.stored(), by="ops")
    parked.redeliver()
    assert parked.stored().state is State.SUCCEEDED
    assert parked.stored().tries == 1
    assert parked.linked() == ["102"]


def test_is_looked_for_again_when_what_a_person_resent_is_lost_too(parked: Bench) -> None:
    parked.engine.resend(parked.stored(), by="ops")
    parked.shop.answers = [failing(MaybeDoneError)]
    parked.redeliver()
    parked.shop.hits = [hit(102, parked.clock)]
    parked.wait_until_due()
    parked.redeliver()
    assert parked.linked() == ["102"]
    assert len(parked.shop.sent) == 2


def test_is_rejected_and_may_be_sent_again_when_a_person_abandons_it(parked: Bench) -> None:
    parked.engine.abandon(parked.stored(), by="ops")
    stored = parked.stored()
    assert (stored.state, stored.payload) == (State.REJECTED, None)
    assert stored.expires_at is not None
    assert parked.run().operation.state is State.SUCCEEDED


def test_is_not_adopted_when_the_record_belongs_to_another_event(parked: Bench) -> None:
    parked.run("other")
    with pytest.raises(ConflictError):
        parked.adopt(parked.stored(), "102", by="ops")
    assert parked.stored().state is State.PARKED
    assert parked.linked("other") == ["102"]


def test_only_the_first_decision_counts_when_two_persons_decide(parked: Bench) -> None:
    seen_by_both = parked.stored()
    parked.adopt(seen_by_both, "101", by="one")
    with pytest.raises(ConflictError):
        parked.adopt(seen_by_both, "999", by="two")
    with pytest.raises(ConflictError):
        parked.engine.abandon(seen_by_both, by="two")
    assert parked.linked() == ["101"]


def test_cannot_be_decided_when_it_is_not_parked(unknown: Bench) -> None:
    with pytest.raises(ConflictError):
        unknown.engine.resend(unknown.stored(), by="ops")
    done = unknown.run("other").operation
    with pytest.raises(ConflictError):
        unknown.adopt(done, "1", by="ops")
    assert unknown.stored().state is State.UNKNOWN


def test_the_record_says_what_a_person_adopted(parked: Bench) -> None:
    before = parked.stored()
    parked.clock.move(60)
    resolved = parked.adopt(before, "101", by="ops")
    attempt = Attempt(at=int(parked.clock.now), event=Event.ADOPTED, reason="by ops")
    assert resolved == parked.stored()
    assert resolved == before.model_copy(
        update={
            "state": State.SUCCEEDED,
            "answer": '{"receipt":101}',
            "payload": None,
            "links": ENDS,
            "updated_at": int(parked.clock.now),
            "attempts": (*before.attempts, attempt),
            "last_attempt": attempt,
        }
    )
    assert ("adopt", "acme", Order(number="1"), "101") in parked.flow.asked
    assert parked.flow.asked[-1] == ("verify", Order(number="1"), Receipt(receipt=101), parked.shop)
    back = parked.tables.links.of("acme", Identity("shop", "receipt", "101"))
    assert (back[0].operation_id, back[0].linked_at.timestamp()) == (resolved.operation_id, parked.clock.now)


def test_the_record_says_that_a_person_lets_it_begin_anew(parked: Bench) -> None:
    before = parked.stored()
    resolved = parked.engine.resend(before, by="ops")
    now = int(parked.clock.now)
    attempt = Attempt(at=now, event=Event.RESENT, reason="by ops")
    assert resolved == parked.stored()
    assert resolved == before.model_copy(
        update={
            "state": State.WAITING,
            "due_at": now,
            "tries": 0,
            "first_sent_at": None,
            "unknown_since": None,
            "sent_to": None,
            "updated_at": now,
            "attempts": (*before.attempts, attempt),
            "last_attempt": attempt,
        }
    )


def test_the_record_says_that_a_person_abandoned_it(parked: Bench) -> None:
    before = parked.stored()
    resolved = parked.engine.abandon(before, by="ops")
    now = int(parked.clock.now)
    attempt = Attempt(at=now, event=Event.ABANDONED, reason="by ops")
    assert resolved == parked.stored()
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


def test_says_why_a_decision_does_not_count(parked: Bench) -> None:
    seen = parked.stored()
    parked.run("other")
    with pytest.raises(ConflictError, match="linked to something else"):
        parked.adopt(seen, "102", by="ops")
    parked.engine.abandon(seen, by="one")
    with pytest.raises(ConflictError, match="Somebody else was quicker: it is rejected now"):
        parked.engine.resend(seen, by="two")
    for decide in (parked.engine.resend, parked.engine.abandon):
        with pytest.raises(ConflictError, match="this one is rejected"):
            decide(parked.stored(), by="two")
    with pytest.raises(ConflictError, match="this one is rejected"):
        parked.adopt(parked.stored(), "101", by="two")
    assert not [asked for asked in parked.flow.asked if "101" in asked]


def test_is_parked_again_when_the_bridge_fails_on_what_a_person_let_begin_anew(parked: Bench) -> None:
    parked.engine.resend(parked.stored(), by="ops")
    parked.flow.command = Receipt  # type: ignore[assignment]  # which its payload is none of
    for _ in range(MOST_DEFECTS):
        assert parked.stored().state is not State.PARKED
        parked.wait_until_due()
        with pytest.raises(ValidationError):
            parked.redeliver()
    assert parked.stored().state is State.PARKED


# ---------------------------------------------------------------- what a person links, and unlinks


@pytest.mark.parametrize(
    "doubt",
    [
        "it has another name",
        failing(CannotLookError),
        failing(NotShownError),
        failing(RefusedError),
        failing(ContractBrokenError),
    ],
    ids=lambda doubt: doubt if isinstance(doubt, str) else type(doubt).__name__,
)
def test_is_adopted_only_after_a_confirmation_when_the_vendor_cannot_verify_it(
    parked: Bench, doubt: str | VendorError
) -> None:
    parked.flow.verified, before = doubt, parked.stored()
    with pytest.raises(UnconfirmedError) as unconfirmed:
        parked.adopt(before, "101", by="ops")
    assert unconfirmed.value.fields[0].field == "confirmed"
    assert (doubt if isinstance(doubt, str) else "because") in unconfirmed.value.detail
    assert (parked.stored(), parked.linked()) == (before, [])
    assert parked.adopt(before, "101", by="ops", confirmed=True).state is State.SUCCEEDED
    assert parked.linked() == ["101"]


def test_is_adopted_only_after_a_confirmation_when_it_was_sent_to_another_account(parked: Bench) -> None:
    parked.shop.destination = "https://shop.example/2"
    with pytest.raises(UnconfirmedError, match="an account that the tenant no longer names"):
        parked.adopt(parked.stored(), "101", by="ops")
    assert not [asked for asked in parked.flow.asked if asked[0] == "verify"]
    assert parked.adopt(parked.stored(), "101", by="ops", confirmed=True).state is State.SUCCEEDED


@pytest.mark.parametrize("confirmed", [False, True])
@pytest.mark.parametrize(("wanted", "waits"), [(None, 30), (5, 30), (90, 90)])
def test_nothing_is_adopted_while_the_vendor_does_not_answer(
    parked: Bench, confirmed: bool, wanted: float | None, waits: float
) -> None:
    before = parked.stored()
    for kind in (NotDoneError, MaybeDoneError, SignInRefusedError):
        parked.flow.verified = failing(kind, **({"retry_after": wanted} if wanted else {}))
        with pytest.raises(kind) as raised:
            parked.adopt(before, "101", by="ops", confirmed=confirmed)
        assert raised.value.retry_after == waits
    assert (parked.stored(), parked.linked()) == (before, [])


def test_a_record_that_is_the_wrong_one_is_not_adopted_even_if_it_is_confirmed(parked: Bench) -> None:
    def wrong(*_: object) -> str:
        raise InvalidError("another one's", fields=[FieldError("id", "is another one's")])

    parked.flow.verify = wrong  # type: ignore[method-assign, assignment]
    before = parked.stored()
    with pytest.raises(InvalidError, match="another one's"):
        parked.adopt(before, "101", by="ops", confirmed=True)
    assert parked.stored() == before


@pytest.fixture(params=["adopted", "found later", "found at once"])
def linked(request: pytest.FixtureRequest, unknown: Bench) -> Bench:
    """An order that has a record which it did not make itself, in each of the ways in which that comes about."""
    if request.param == "found at once":
        unknown.shop.there = Hit(Receipt(receipt=101))
        unknown.engine.abandon(_parked(unknown), by="ops")
        unknown.run()
        unknown.shop.there = None
    elif request.param == "adopted":
        unknown.adopt(_parked(unknown), "101", by="ops")
    else:
        unknown.shop.hits = [hit(101, unknown.clock)]
        unknown.redeliver()
    assert (unknown.stored().state, unknown.linked(), unknown.stored().payload) == (State.SUCCEEDED, ["101"], None)
    return unknown


def _parked(unknown: Bench) -> Operation:
    unknown.shop.hits = failing(CannotLookError)
    unknown.redeliver()
    return unknown.stored()


def test_a_wrong_link_is_undone_and_a_person_decides_again(linked: Bench) -> None:
    before = linked.stored()
    linked.clock.move(60)
    parked = linked.engine.unlink(before, by="Ada")
    now = int(linked.clock.now)
    attempt = Attempt(at=now, event=Event.UNLINKED, reason="by Ada; it was shop receipt 101")
    assert parked == linked.stored()
    assert parked == before.model_copy(
        update={
            "state": State.PARKED,
            "answer": None,
            "payload": PAYLOAD,
            "links": (),
            "lease": parked.lease,
            "updated_at": now,
            "expires_at": None,
            "attempts": (*before.attempts, attempt),
            "last_attempt": attempt,
        }
    )
    assert parked.lease != before.lease
    assert linked.linked() == []
    assert linked.tables.links.of("acme", Identity("shop", "receipt", "101")) == []
    assert linked.tables.operations.kept_payload(parked) is None


def test_another_record_is_linked_after_an_unlink(linked: Bench) -> None:
    linked.engine.unlink(linked.stored(), by="ops")
    linked.adopt(linked.stored(), "102", by="ops")
    assert (linked.stored().state, linked.linked()) == (State.SUCCEEDED, ["102"])
    linked.engine.unlink(linked.stored(), by="ops")
    linked.adopt(linked.stored(), "101", by="ops")
    assert linked.linked() == ["101"]


def test_is_sent_again_after_an_unlink(linked: Bench) -> None:
    sent = len(linked.shop.sent)
    linked.engine.unlink(linked.stored(), by="ops")
    linked.engine.resend(linked.stored(), by="ops")
    linked.redeliver()
    assert (linked.stored().state, len(linked.shop.sent)) == (State.SUCCEEDED, sent + 1)


def test_is_given_up_after_an_unlink(linked: Bench) -> None:
    linked.engine.unlink(linked.stored(), by="ops")
    linked.engine.abandon(linked.stored(), by="ops")
    assert (linked.stored().state, linked.stored().payload, linked.linked()) == (State.REJECTED, None, [])


def test_the_record_of_an_unlinked_event_may_be_anothers(linked: Bench) -> None:
    linked.engine.unlink(linked.stored(), by="ops")
    linked.run("other", later=True)
    other = linked.stored("other").model_copy(update={"state": State.PARKED})
    linked.tables.operations.save(other, over=State.WAITING)
    linked.adopt(other, "101", by="ops")
    assert linked.linked("other") == ["101"]


def test_is_unlinked_once_when_two_persons_decide(linked: Bench) -> None:
    seen = linked.stored()
    linked.engine.unlink(seen, by="one")
    unlinked = linked.stored()
    with pytest.raises(ConflictError, match="Somebody else was quicker: it is parked now"):
        linked.engine.unlink(seen, by="two")
    assert linked.stored() == unlinked


def test_what_the_bridge_made_itself_is_not_unlinked(bench: Bench) -> None:
    bench.run()
    with pytest.raises(ConflictError, match="that a person or a look-up linked"):
        bench.engine.unlink(bench.stored(), by="ops")
    assert bench.linked() == ["101"]


def test_only_what_has_succeeded_is_unlinked(parked: Bench) -> None:
    with pytest.raises(ConflictError):
        parked.engine.unlink(parked.stored(), by="ops")
    parked.adopt(parked.stored(), "101", by="ops")
    parked.engine.unlink(parked.stored(), by="ops")
    with pytest.raises(ConflictError):
        parked.engine.unlink(parked.stored(), by="ops")


def test_a_link_that_another_event_has_taken_over_is_left_alone(linked: Bench) -> None:
    """As a key link's, which may have several."""
    order, receipt = Identity("crm", "order", "1"), Identity("shop", "receipt", "101")
    linked.tables.links.write(
        [*linked.tables.links.puts("acme", [Link(order, receipt)], linked.stored().operation_id, 1)]
    )
    theirs = [*linked.tables.links.puts("acme", [Link(Identity("crm", "order", "2"), receipt)], "op_other", 1)][1]
    del theirs["Put"]["ConditionExpression"]
    for member in ("ExpressionAttributeNames", "ExpressionAttributeValues"):
        theirs["Put"].pop(member, None)  # type: ignore[misc]
    linked.tables.links.write([theirs])
    linked.engine.unlink(linked.stored(), by="ops")
    assert linked.linked() == []
    (kept,) = linked.tables.links.of("acme", receipt)
    assert (kept.identity.id, kept.operation_id) == ("2", "op_other")


def test_can_only_be_given_up_when_what_was_sent_is_no_longer_kept(linked: Bench) -> None:
    one = linked.stored()
    linked.tables.links.write([linked.tables.operations.drop_payload(one)])
    linked.engine.unlink(one, by="ops")
    assert (linked.stored().state, linked.stored().payload) == (State.PARKED, None)
    with pytest.raises(ConflictError, match="Abandon it, then let the CRM send the event again"):
        linked.adopt(linked.stored(), "102", by="ops", confirmed=True)
    with pytest.raises(ConflictError, match="Abandon it, then let the CRM send the event again"):
        linked.engine.resend(linked.stored(), by="ops")
    assert linked.stored().state is State.PARKED
    linked.engine.abandon(linked.stored(), by="ops")
    assert linked.run().operation.state is State.SUCCEEDED


def test_what_was_recorded_by_hand_can_be_unlinked(bench: Bench) -> None:
    recorded(bench)
    bench.engine.unlink(bench.stored(), by="ops")
    assert (bench.stored().state, bench.linked()) == (State.PARKED, [])


def test_each_decision_is_another_news_for_whoever_is_told(told: Bench) -> None:
    told.shop.answers = [failing(CannotLookError)]
    told.run(later=True)
    told.redeliver()
    told.adopt(told.stored(), "7", by="ops")
    told.engine.unlink(told.stored(), by="ops")
    told.adopt(told.stored(), "7", by="ops")
    assert callbacks(told) == ["operation.parked", "operation.parked", "operation.succeeded", "operation.succeeded"]


# ---------------------------------------------------------------- what waits for another operation


def waits(bench: Bench, number: str = "later") -> Operation:
    """An order that waits for the first one, which is on its way."""
    bench.flow.waits_for = operation_id("acme", "orders", "1")
    bench.run(number)
    bench.flow.waits_for = None
    return bench.stored(number)


@pytest.mark.parametrize("end", ["done", "found", "refused", "adopted", "abandoned"])
def test_what_waits_is_due_as_soon_as_the_other_one_has_ended(unknown: Bench, end: str) -> None:
    waiting = waits(unknown)
    assert (waiting.state, waiting.due_at) == (State.WAITING, int(unknown.clock.now) + REDELIVERY[0])
    assert unknown.stored().waiters == {waiting.operation_id}
    unknown.clock.move(5)
    match end:
        case "done":
            unknown.clock.move(unknown.shop.search_lag)
            waiting = waits(unknown, "much later")
            unknown.redeliver()
        case "found":
            unknown.shop.hits = [hit(101, unknown.clock)]
            unknown.redeliver()
        case "refused":
            unknown.engine.resend(_parked(unknown), by="ops")
            unknown.shop.answers = [failing(RefusedError)]
            unknown.redeliver()
        case "adopted":
            unknown.adopt(_parked(unknown), "101", by="ops")
        case "abandoned":
            unknown.engine.abandon(_parked(unknown), by="ops")
    assert unknown.stored().state in (State.SUCCEEDED, State.REJECTED)
    assert unknown.stored(waiting.natural_key) == waiting.model_copy(update={"due_at": int(unknown.clock.now)})


def test_what_waits_is_woken_when_its_note_was_left_while_the_other_one_was_being_sent(bench: Bench) -> None:
    def wait() -> None:
        bench.shop.during = lambda: None
        waits(bench)

    bench.shop.during = wait
    bench.run()
    assert bench.stored("later").due_at == int(bench.clock.now)
    assert bench.linked() == ["101"]


def test_is_due_at_once_when_the_other_one_ended_before_the_note_was_left(bench: Bench) -> None:
    bench.run()
    assert (waits(bench).state, waits(bench).due_at) == (State.WAITING, int(bench.clock.now))
    assert bench.stored().waiters == frozenset()


@pytest.mark.parametrize("missing", ["rejected", "gone"])
def test_waits_for_its_own_next_try_when_nobody_will_wake_it(bench: Bench, missing: str) -> None:
    if missing == "rejected":
        bench.shop.answers = [failing(RefusedError)]
        bench.run()
    assert waits(bench).due_at == int(bench.clock.now) + REDELIVERY[0]


def test_more_than_enough_wait_for_their_own_next_try(unknown: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crm_bridge.operations.MOST_WAITERS", 2)
    for number in ("a", "b", "c"):
        waits(unknown, number)
    unknown.clock.move(5)
    unknown.adopt(_parked(unknown), "101", by="ops")
    ahead = [(unknown.stored(number).due_at or 0) - int(unknown.clock.now) for number in ("a", "b", "c")]
    assert ahead == [0, 0, REDELIVERY[0] - 5]


def test_the_end_of_the_other_one_stands_when_nobody_can_be_woken(
    unknown: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = waits(unknown)
    monkeypatch.setattr(unknown.tables.operations, "wake", _raise(StorageError("throttled")))
    unknown.adopt(_parked(unknown), "101", by="ops")
    assert unknown.stored().state is State.SUCCEEDED
    assert unknown.stored("later") == waiting


def test_what_waits_twice_is_noted_once(unknown: Bench) -> None:
    waits(unknown)
    unknown.wait_until_due("later")
    unknown.flow.waits_for = operation_id("acme", "orders", "1")
    unknown.redeliver("later")
    unknown.flow.waits_for = None
    assert unknown.stored().waiters == {unknown.stored("later").operation_id}
    assert unknown.stored("later").tries == 2


def test_nobody_is_woken_while_the_other_one_goes_on(unknown: Bench) -> None:
    waiting = waits(unknown)
    unknown.shop.hits = failing(NotDoneError)
    unknown.wait_until_due()
    unknown.redeliver()
    assert unknown.stored().state is State.UNKNOWN
    _parked(unknown)
    assert unknown.stored("later").due_at == waiting.due_at
    assert unknown.stored().waiters == {waiting.operation_id}


# ---------------------------------------------------------------- DynamoDB fails


def _raise(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_is_unknown_to_the_caller_and_heals_when_it_cannot_be_settled(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(bench.tables.operations, "save", _raise(StorageError("down")))
        outcome = bench.run()
    assert outcome.operation.state is State.SENDING
    bench.shop.hits = [hit(101, bench.clock)]
    bench.wait_until_due()
    bench.redeliver()
    assert bench.linked() == ["101"]
    assert len(bench.shop.sent) == 1


@pytest.mark.parametrize("write", ["PutItem", "TransactWriteItems"])
def test_succeeds_once_when_a_write_went_through_but_its_answer_was_lost(bench: Bench, write: str) -> None:
    lost = _lose_answers(bench, {write})
    outcome = bench.run()
    assert lost == [write]
    assert outcome.carried
    assert outcome.operation.state is State.SUCCEEDED
    assert len(bench.shop.sent) == 1
    assert bench.linked() == ["101"]


def test_still_waits_for_the_right_reason_when_the_answer_to_its_claim_was_lost(bench: Bench) -> None:
    bench.shop.answers = [failing(NotDoneError)]
    bench.run()
    bench.wait_until_due()
    lost = _lose_answers(bench, {"UpdateItem"})
    bench.redeliver()
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
    client._make_api_call = _raise(ReadTimeoutError(endpoint_url="x"))  # type: ignore[attr-defined]
    with pytest.raises(StorageError):
        bench.run()
    assert bench.shop.sent == []


def test_loses_to_whoever_took_over_when_its_lease_ran_out(bench: Bench) -> None:
    """It was stopped for longer than its lease, and another worker adopted what it had made."""

    def take_over() -> None:
        bench.shop.during = lambda: None
        bench.wait_until_due()
        bench.shop.hits = [hit(101, bench.clock)]
        bench.redeliver()

    bench.shop.during = take_over
    outcome = bench.run()
    assert outcome.operation.state is State.SUCCEEDED
    assert outcome.operation.answer == '{"receipt":101}'
    assert bench.linked() == ["101"]


def test_is_parked_when_the_vendor_answers_an_id_that_is_linked_to_another_event(bench: Bench) -> None:
    bench.run("other")
    bench.shop.sent.clear()  # so that the shop gives the same number again
    bench.run("1")
    stored = bench.stored("1")
    assert stored.state is State.PARKED
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


# ---------------------------------------------------------------- what is there already, and what is taken back


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
    bench.flow.linking = False
    bench.run()
    assert bench.stored().expires_at == bench.clock.now + KEEP


def test_may_be_sent_again_when_what_it_made_was_taken_back(bench: Bench) -> None:
    bench.engine.withdraw(bench.run().operation, by="a test")
    stored = bench.stored()
    assert (stored.state, stored.answer, stored.links) == (State.REJECTED, None, ())
    assert stored.attempts[-1].event is Event.WITHDRAWN
    assert stored.expires_at == bench.clock.now + KEEP
    assert bench.run().operation.state is State.SUCCEEDED
    assert len(bench.shop.sent) == 2
    assert bench.stored().expires_at is None


def test_the_record_says_who_took_it_back(bench: Bench) -> None:
    before = bench.run().operation
    bench.clock.move(60)
    bench.engine.withdraw(before, by="a test")
    now = int(bench.clock.now)
    attempt = Attempt(at=now, event=Event.WITHDRAWN, reason="by a test")
    assert bench.stored() == before.model_copy(
        update={
            "state": State.REJECTED,
            "answer": None,
            "links": (),
            "expires_at": now + KEEP,
            "updated_at": now,
            "attempts": (*before.attempts, attempt),
            "last_attempt": attempt,
        }
    )


def test_is_taken_back_once_when_two_do_it(bench: Bench) -> None:
    done = bench.run().operation
    bench.engine.withdraw(done, by="one")
    bench.run()
    bench.engine.withdraw(done, by="another, with what it read before")
    assert bench.stored().state is State.SUCCEEDED


# ---------------------------------------------------------------- what may be repeated


@pytest.mark.parametrize("answer", [NotDoneError, MaybeDoneError, ContractBrokenError])
def test_is_sent_again_without_a_look_when_it_may_be_repeated(bench: Bench, answer: type[VendorError]) -> None:
    bench.flow.repeating = True
    bench.shop.answers = [failing(answer)]
    bench.run()
    bench.wait_until_due()
    bench.redeliver()
    assert bench.stored().state is State.SUCCEEDED
    assert (len(bench.shop.sent), bench.shop.looks) == (2, 0)
    assert bench.flow.asked[-1] == ("vendor", "acme", "acme", bench.deadline)


@pytest.mark.parametrize(
    ("first", "then", "state"),
    [
        (NotDoneError, RefusedError, State.REJECTED),
        (MaybeDoneError, RefusedError, State.PARKED),
        (MaybeDoneError, NeedlessError, State.REJECTED),
        (HalfDoneError, RefusedError, State.PARKED),
    ],
)
def test_is_parked_when_what_may_be_repeated_is_refused_after_a_doubt(
    bench: Bench, first: type[VendorError], then: type[VendorError], state: State
) -> None:
    bench.flow.repeating = True
    bench.shop.answers = [failing(first), failing(then)]
    bench.run()
    bench.wait_until_due()
    bench.redeliver()
    assert bench.stored().state is state


def test_is_parked_when_what_may_be_repeated_is_refused_after_its_sender_has_died(bench: Bench) -> None:
    bench.flow.repeating = True
    bench.shop.during = _kill
    with pytest.raises(Killed):
        bench.run()
    bench.shop.during = lambda: None
    bench.wait_until_due()
    bench.shop.answers = [failing(RefusedError)]
    bench.redeliver()
    assert bench.stored().state is State.PARKED


def test_stays_in_doubt_when_what_may_be_repeated_is_surely_not_done_later(bench: Bench) -> None:
    bench.flow.repeating = True
    bench.shop.answers = [failing(MaybeDoneError), failing(NotDoneError), failing(RefusedError)]
    bench.run()
    for _ in range(2):
        bench.wait_until_due()
        bench.redeliver()
    assert bench.stored().state is State.PARKED


def test_is_not_carried_to_another_account_when_it_is_about_what_is_there(bench: Bench) -> None:
    bench.flow.repeating = True
    bench.shop.answers = [failing(NotDoneError)]
    bench.run()
    bench.shop.destination = "https://shop.example/2"
    bench.wait_until_due()
    bench.redeliver()
    assert bench.stored().state is State.PARKED
    assert len(bench.shop.sent) == 1


def test_goes_to_the_account_that_there_is_when_a_person_lets_it_begin_anew(bench: Bench) -> None:
    bench.flow.repeating = True
    bench.shop.answers = [failing(NotDoneError)]
    bench.run()
    bench.shop.destination = "https://shop.example/2"
    bench.wait_until_due()
    bench.redeliver()
    bench.engine.resend(bench.stored(), by="a test")
    bench.redeliver()
    assert bench.stored().state is State.SUCCEEDED


def test_is_looked_for_when_its_function_was_killed_after_a_person_let_it_begin_anew(bench: Bench) -> None:
    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    bench.shop.answers = [failing(MaybeDoneError)]
    bench.shop.hits = failing(CannotLookError)
    bench.run()
    bench.wait_until_due()
    bench.redeliver()
    bench.engine.resend(bench.stored(), by="a test")
    bench.shop.during, bench.shop.hits = kill, [hit(102, bench.clock)]
    with pytest.raises(Killed):
        bench.redeliver()
    bench.wait_until_due()
    bench.redeliver()
    assert bench.stored().attempts[-1].event is Event.FOUND


def test_says_that_it_is_about_an_account_that_is_no_longer_named(bench: Bench) -> None:
    bench.flow.repeating = True
    bench.run(later=True)
    bench.shop.destination = "https://shop.example/2"
    outcome = bench.redeliver()
    assert outcome is not None
    assert outcome.error is not None
    assert (outcome.error.vendor, outcome.error.message) == (
        "orders",
        "it is about an account that the tenant no longer names",
    )


def test_is_carried_to_another_account_when_it_makes_something_and_was_surely_not_done(bench: Bench) -> None:
    bench.run(later=True)
    bench.shop.destination = "https://shop.example/2"
    bench.redeliver()
    assert (bench.stored().state, bench.stored().sent_to) == (State.SUCCEEDED, "https://shop.example/2")


# ---------------------------------------------------------------- held by another


def held(bench: Bench, state: State, **changes: object) -> Operation:
    """What another operation holds, as it stands in the table."""
    bench.run()
    there = bench.stored().model_copy(update={"state": state, "held": frozenset({"op_change"}), **changes})
    return bench.tables.operations.save(there, over=bench.stored().state)


@pytest.mark.parametrize("later", [True, False])
def test_waits_when_what_was_done_before_is_held(bench: Bench, *, later: bool) -> None:
    there = held(bench, State.SUCCEEDED, reserved="77#op_change")
    outcome = bench.run(later=later)
    assert (outcome.operation.state, outcome.carried) == (State.WAITING, False)
    stored = bench.stored()
    assert (stored.held, stored.reserved, stored.tries) == (there.held, there.reserved, 0)
    assert (stored.payload, stored.answer, stored.first_sent_at) == (PAYLOAD, None, None)
    assert [attempt.event for attempt in stored.attempts] == [Event.DONE, Event.ACCEPTED]
    assert len(bench.shop.sent) == 1
    assert bench.run().operation == stored


def test_waits_when_what_was_refused_before_is_held(bench: Bench) -> None:
    bench.shop.answers = [failing(RefusedError)]
    held(bench, State.REJECTED)
    assert bench.run().operation.state is State.WAITING
    assert len(bench.shop.sent) == 1


def test_is_not_redelivered_while_it_is_held(bench: Bench) -> None:
    held(bench, State.SUCCEEDED)
    bench.run()
    bench.clock.move(100_000)
    assert bench.redeliver() is None
    free = bench.stored().model_copy(update={"held": frozenset()})
    bench.tables.operations.save(free, over=State.WAITING)
    bench.redeliver()
    assert (bench.stored().state, len(bench.shop.sent)) == (State.SUCCEEDED, 2)


def test_is_to_be_asked_for_again_when_it_is_let_go_in_the_very_moment(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = held(bench, State.SUCCEEDED)
    queue = bench.tables.operations.queue

    def overtaken(operation: Operation, behind: Operation) -> Claim:
        free = there.model_copy(update={"state": State.REJECTED, "held": frozenset()})
        bench.tables.operations.save(free, over=State.SUCCEEDED)
        return queue(operation, behind)

    monkeypatch.setattr(bench.tables.operations, "queue", overtaken)
    with pytest.raises(RunningError):
        bench.run()
    assert bench.run().operation.state is State.SUCCEEDED


# ---------------------------------------------------------------- what is kept of an event is erased


def test_of_an_erased_event_only_its_id_and_its_state_stay(bench: Bench) -> None:
    bench.run()
    bench.engine.erase(bench.stored(), by="ops")
    stored = bench.stored()
    blank = Operation(
        operation_id=stored.operation_id,
        tenant="acme",
        flow="orders",
        natural_key="(erased)",
        state=State.SUCCEEDED,
        fingerprint="",
        tries=1,
        lease=stored.lease,
        created_at=stored.created_at,
        updated_at=stored.updated_at,
        first_sent_at=stored.first_sent_at,
        expires_at=int(bench.clock.now) + KEEP,
        attempts=stored.attempts,
        last_attempt=stored.last_attempt,
    )
    assert stored == blank
    assert [(one.event, one.reason) for one in stored.attempts] == [(Event.ERASED, "by ops")]
    assert bench.linked() == []


def test_an_erased_event_is_not_sent_again(bench: Bench) -> None:
    bench.run()
    bench.engine.erase(bench.stored(), by="ops")
    for note in ("as ordered", "changed"):
        with pytest.raises(ErasedError):
            bench.run(note=note)
    assert len(bench.shop.sent) == 1


def test_a_refused_event_is_erased_whole_and_may_come_again(bench: Bench) -> None:
    bench.shop.answers = [failing(RefusedError)]
    bench.run()
    bench.engine.erase(bench.stored(), by="ops")
    assert bench.tables.operations.get(operation_id("acme", "orders", "1")) is None
    assert bench.run().operation.state is State.SUCCEEDED


def test_the_kept_payload_of_a_linked_record_is_erased(linked: Bench) -> None:
    before = linked.stored()
    assert linked.tables.operations.kept_payload(before)
    linked.engine.erase(before, by="ops")
    assert linked.tables.operations.kept_payload(before) is None


@pytest.mark.parametrize("error", [NotDoneError, MaybeDoneError])
def test_an_event_that_has_not_ended_is_not_erased(bench: Bench, error: type[VendorError]) -> None:
    bench.shop.answers = [failing(error)]
    bench.run()
    before = bench.stored()
    with pytest.raises(ConflictError, match="has ended"):
        bench.engine.erase(before, by="ops")
    assert bench.stored() == before


def test_what_a_person_has_to_decide_is_not_erased(parked: Bench) -> None:
    with pytest.raises(ConflictError, match="this one is parked"):
        parked.engine.erase(parked.stored(), by="ops")


@pytest.mark.parametrize("change", [{"held": frozenset({"op_2"})}, {"holds": ("op_2",)}, {"reserved": "77#op_2"}])
def test_what_is_being_changed_is_not_erased(bench: Bench, change: dict[str, object]) -> None:
    bench.run()
    with pytest.raises(ConflictError):
        bench.engine.erase(bench.stored().model_copy(update=change), by="ops")


def test_what_was_sent_again_meanwhile_is_not_erased(bench: Bench) -> None:
    bench.shop.answers = [failing(RefusedError)]
    bench.run()
    seen = bench.stored()
    bench.run()
    with pytest.raises(ConflictError):
        bench.engine.erase(seen, by="ops")
    assert bench.linked() == ["102"]


# ---------------------------------------------------------------- the table of transitions


def test_the_table_allows_what_the_rules_say() -> None:
    assert {State.REJECTED} == REPLACEABLE
    assert {State.SENDING, State.WAITING, State.UNKNOWN} == DUE
    of_succeeded = [event for state, event in TRANSITIONS if state is State.SUCCEEDED]
    assert of_succeeded == [Event.ACCEPTED, Event.FOUND, Event.WITHDRAWN, Event.UNLINKED, Event.ERASED]
    assert set(TRANSITIONS.values()) == set(State)


def test_every_vendor_error_leads_to_a_state() -> None:
    def all_kinds(kind: type[VendorError]) -> list[type[VendorError]]:
        return [kind, *(deeper for sub in kind.__subclasses__() for deeper in all_kinds(sub))]

    for kind in all_kinds(VendorError)[1:]:
        assert (State.SENDING, kind.event) in TRANSITIONS
    assert max(REDELIVERY) <= engine_module.LONGEST_WAIT


# ---------------------------------------------------------------- what was made before


def recorded(bench: Bench, receipt: int = 7, number: str = "1") -> tuple[Operation, bool]:
    result = Receipt(receipt=receipt)
    links = bench.flow.links(Order(number=number), result)
    return bench.engine.record("orders", number, result, links, tenant="acme", by="ops")


def test_what_was_made_before_is_recorded_as_done_and_linked_and_never_sent(bench: Bench) -> None:
    operation, is_new = recorded(bench)
    assert is_new
    assert bench.linked() == ["7"]
    now = int(bench.clock())
    assert (
        bench.stored()
        == operation
        == Operation(
            operation_id=operation_id("acme", "orders", "1"),
            tenant="acme",
            flow="orders",
            natural_key="1",
            state=State.SUCCEEDED,
            fingerprint=fingerprint('{"receipt":7}'),
            answer='{"receipt":7}',
            links=((Identity("crm", "order", "1"), Identity("shop", "receipt", "7")),),
            lease=operation.lease,
            created_at=now,
            updated_at=now,
            attempts=(Attempt(at=now, event=Event.ADOPTED, reason="by ops"),),
            last_attempt=Attempt(at=now, event=Event.ADOPTED, reason="by ops"),
        )
    )
    assert operation.lease
    outcome = bench.run()
    assert (outcome.operation, outcome.carried, bench.shop.sent) == (operation, False, [])


def test_what_is_known_already_is_told_and_not_recorded_over(bench: Bench) -> None:
    bench.run()
    before = bench.stored()
    assert recorded(bench) == (before, False)
    assert bench.stored() == before
    assert bench.linked() == ["101"]


def test_what_is_linked_to_something_else_is_not_recorded(bench: Bench) -> None:
    recorded(bench)
    with pytest.raises(ConflictError, match="linked to something else already") as refused:
        recorded(bench, number="2")
    assert refused.value.__cause__ is None
    assert bench.tables.operations.get(operation_id("acme", "orders", "2")) is None


def test_what_is_sent_again_can_be_due_later(bench: Bench) -> None:
    bench.shop.answers = [failing(CannotLookError)]
    bench.run()
    later = int(bench.clock()) + 500
    assert bench.engine.resend(bench.stored(), by="ops", due_at=later).due_at == later
    assert bench.stored().due_at == later


# ---------------------------------------------------------------- what is due at once


class Sqs:
    """Takes what it is sent, and remembers it."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.takes = True

    def send_message_batch(self, *, QueueUrl: str, Entries: Sequence[dict[str, Any]]) -> object:  # noqa: N803
        if not self.takes:
            return {"Failed": [{"Id": entry["Id"], "Code": "InternalError"} for entry in Entries]}
        self.sent += [{"queue": QueueUrl, **entry} for entry in Entries]
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}


def with_queues(bench: Bench, flow: str) -> Sqs:
    sqs: Any = Sqs()
    queues = Queues(lambda: sqs, {f"{flow.upper()}_QUEUE_URL": "there", f"{flow.upper()}_WORKERS": "3"})
    tables = bench.tables
    bench.engine = Engine(
        tables.operations, tables.links, tables.tenants, bench.transport, queues=queues, clock=bench.clock
    )
    handed_over: Sqs = sqs
    return handed_over


def test_what_is_accepted_is_lent_to_the_message_that_is_sent(bench: Bench) -> None:
    sqs = with_queues(bench, "orders")
    outcome = bench.run(later=True)
    until = int(bench.clock.now) + HANDED_OVER
    assert (outcome.operation.state, outcome.operation.due_at) == (State.WAITING, until)
    (message,) = sqs.sent
    named = operation_id("acme", "orders", "1")
    body = {"operation_id": named, "tenant": "acme", "lent_until": until}
    assert json.loads(message["MessageBody"]) == body
    assert message["MessageDeduplicationId"] == f"{named}#{until}"
    assert message["MessageGroupId"] in ("acme#0", "acme#1")
    assert bench.redeliver(lent_until=until)
    assert bench.stored().state is State.SUCCEEDED


def test_what_its_queue_does_not_take_is_due_after_a_minute_and_the_log_says_so(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    sqs = with_queues(bench, "orders")
    sqs.takes = False
    assert bench.run(later=True).operation.state is State.WAITING
    assert "not handed over" in caplog.messages
    bench.clock.move(HANDED_OVER)
    assert bench.redeliver()
    assert bench.stored().state is State.SUCCEEDED


def test_what_has_no_queue_waits_for_the_dispatcher(bench: Bench) -> None:
    sqs = with_queues(bench, "parcels")
    assert bench.run(later=True).operation.state is State.WAITING
    assert sqs.sent == []
    bench.clock.move(HANDED_OVER)
    assert bench.redeliver()
    assert bench.stored().state is State.SUCCEEDED

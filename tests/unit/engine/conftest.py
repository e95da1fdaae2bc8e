"""An engine on tables in memory, with a vendor that does what a test tells it and a clock that stands still."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from crm_bridge.breaker import Breaker
from crm_bridge.engine import Engine, Hit, Outcome
from crm_bridge.errors import (
    CannotLookError,
    MaybeDoneError,
    NotConfiguredError,
    NotShownError,
    NotYetError,
    VendorError,
)
from crm_bridge.links import Identity, Link
from crm_bridge.operations import SHARDS, Operation, State, operation_id
from crm_bridge.settings import Tenant
from crm_bridge.transport import AFTER_DEADLINE, Deadline, Transport
from crm_bridge.vendors.illu import IlluSettings
from tests.unit.conftest import Clock, Tables

PAYLOAD = '{"number":"1","note":"as ordered"}'
LEASE = 21 + math.ceil(AFTER_DEADLINE)
"""Seconds after which an operation is continued if its sender was killed."""
TOLD = '{"illu": {"org_id": 88, "api_key": "illu-key-1"}, "webhook": {"url": "https://acme.example/", "secret": "%s"}}'


class Order(BaseModel):
    number: str
    note: str = "as ordered"


class Receipt(BaseModel):
    receipt: int


@dataclass
class Shop:
    """A vendor. `answers` are the results of its next calls: an error to raise, or None for a success."""

    answers: list[VendorError | None] = field(default_factory=list)
    hits: list[Hit[Receipt]] | VendorError = field(default_factory=list)
    sent: list[Order] = field(default_factory=list)
    there: Hit[Receipt] | None = None
    """A record that the vendor has before anything is sent."""
    not_shown: NotShownError | None = None
    """The error in which a look-up ends after its hits."""
    looks: int = 0
    search_lag: int = 120
    destination: str = "https://shop.example/1"
    keys_seen: list[str] = field(default_factory=list)
    during: Callable[[], None] = lambda: None
    """Called while an order is being sent."""

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
    """The id of the operation that each order has to wait for."""
    verified: str | VendorError | None = None
    """The vendor's verdict on a record that a person named."""
    asked: list[tuple[object, ...]] = field(default_factory=list)
    """The arguments of the engine's calls for a client, for a look-up, and for a record that a person found."""

    def vendor(self, tenant: str, settings: Tenant, transport: Transport, deadline: Deadline) -> Shop:
        self.asked.append(("vendor", tenant, transport.scope.tenant, deadline))
        illu = settings.of(IlluSettings)
        if illu is None:
            raise NotConfiguredError("no block")
        self.shop.keys_seen.append(illu.api_key.get_secret_value())
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

    def link_existing(self, tenant: str, command: Order, vendor_id: str) -> Receipt:
        self.asked.append(("link", tenant, command, vendor_id))
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
    """An engine, its tables and one flow, with the steps of the tests."""

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

    def retry(self, number: str = "1", *, lent_until: int | None = None) -> Outcome | None:
        named = operation_id("acme", "orders", number)
        self.deadline = Deadline(21, self.clock)
        return self.engine.retry(self.flow, named, tenant="acme", deadline=self.deadline, lent_until=lent_until)

    def link_existing(self, in_review: Operation, vendor_id: str, *, by: str, confirmed: bool = False) -> Operation:
        deadline = Deadline(21, self.clock)
        return self.engine.link_existing(self.flow, in_review, vendor_id, by=by, deadline=deadline, confirmed=confirmed)

    def look_twice(self, number: str = "1") -> None:
        """Look up a second time if needed: only the second look-up puts an uncertain record before a person."""
        self.retry(number)
        if self.stored(number).due_at is not None:
            self.wait_until_due(number)
            self.retry(number)

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


@pytest.fixture
def told(bench: Bench) -> Bench:
    bench.tables.put_secret("acme", TOLD % ("whsec_" + "b2s0" * 8))
    return bench


def webhooks(bench: Bench) -> list[str]:
    """Return the types of the webhooks that are to be sent to the tenant."""
    shards = [bench.tables.operations.due(shard, 2**40) for shard in SHARDS]
    due = [one for pages in shards for page in pages for one in page if one.function == "webhook"]
    made = [bench.tables.operations.get(one.operation_id) for one in due]
    return sorted(json.loads(one.payload or "")["type"] for one in made if one)


@pytest.fixture
def unconfirmed(bench: Bench) -> Bench:
    """An operation whose response was lost, and that is due."""
    bench.shop.answers = [failing(MaybeDoneError)]
    bench.run()
    assert bench.stored().state is State.UNCONFIRMED
    bench.wait_until_due()
    return bench


class Killed(BaseException):
    """The function ends here, as if its process was killed."""


def kill() -> None:
    raise Killed


def park(unconfirmed: Bench) -> Operation:
    """Let the look-up fail for good, so that a person has to decide."""
    unconfirmed.shop.hits = failing(CannotLookError)
    unconfirmed.retry()
    return unconfirmed.stored()


@pytest.fixture
def in_review(unconfirmed: Bench) -> Bench:
    """An operation in doubt, whose vendor cannot be asked."""
    assert park(unconfirmed).state is State.NEEDS_REVIEW
    return unconfirmed


@pytest.fixture(params=["linked", "found later", "found at once"])
def linked(request: pytest.FixtureRequest, unconfirmed: Bench) -> Bench:
    """An order whose record it did not make itself, in each of the ways in which that happens."""
    if request.param == "found at once":
        unconfirmed.shop.there = Hit(Receipt(receipt=101))
        unconfirmed.engine.discard(park(unconfirmed), by="ops")
        unconfirmed.run()
        unconfirmed.shop.there = None
    elif request.param == "linked":
        unconfirmed.link_existing(park(unconfirmed), "101", by="ops")
    else:
        unconfirmed.shop.hits = [hit(101, unconfirmed.clock)]
        unconfirmed.retry()
    assert (unconfirmed.stored().state, unconfirmed.linked(), unconfirmed.stored().payload) == (
        State.SUCCEEDED,
        ["101"],
        None,
    )
    return unconfirmed


def waits(bench: Bench, number: str = "later") -> Operation:
    """Return an order that waits for the first one, which has not ended."""
    bench.flow.waits_for = operation_id("acme", "orders", "1")
    bench.run(number)
    bench.flow.waits_for = None
    return bench.stored(number)


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def recorded(bench: Bench, receipt: int = 7, number: str = "1") -> tuple[Operation, bool]:
    result = Receipt(receipt=receipt)
    links = bench.flow.links(Order(number=number), result)
    return bench.engine.record("orders", number, result, links, tenant="acme", by="ops")

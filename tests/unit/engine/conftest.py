"""An engine on tables in memory, with a vendor that does what a test tells it and a clock that stands still."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, ClassVar, Self, cast

import pytest
from pydantic import BaseModel

from crm_bridge import Change, Create, Identity, Link, Match, Vendor
from crm_bridge.engine import Engine, Outcome
from crm_bridge.errors import (
    CannotLookError,
    Event,
    IncompleteSearchError,
    MaybeDoneError,
    NotYetError,
    VendorError,
)
from crm_bridge.outbound.breaker import Breaker
from crm_bridge.outbound.transport import AFTER_DEADLINE, Deadline, Transport
from crm_bridge.services import Services
from crm_bridge.settings import Tenant
from crm_bridge.storage.exchanges import Call, Exchange
from crm_bridge.storage.operation import SHARDS, Operation, State, operation_id
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
class World:
    """What the vendor of one test does, and what was asked of it."""

    answers: list[VendorError | None] = field(default_factory=list)
    """The results of its next calls: an error to raise, or None for a success."""
    hits: list[Match[Receipt]] | VendorError = field(default_factory=list)
    sent: list[Order] = field(default_factory=list)
    there: Match[Receipt] | None = None
    """A record that the vendor has before anything is sent."""
    not_shown: IncompleteSearchError | None = None
    """The error in which a look-up ends after its matches."""
    looks: int = 0
    search_lag: int = 120
    destination: str = "https://shop.example/1"
    keys_seen: list[str] = field(default_factory=list)
    during: Callable[[], None] = lambda: None
    """Called while an order is being sent."""
    linking: bool = True
    waits_for: str | None = None
    """The id of the operation that each order has to wait for."""
    verified: str | VendorError | None = None
    """The vendor's verdict on a record that a person named."""
    asked: list[tuple[object, ...]] = field(default_factory=list)
    """The arguments of the engine's calls for a client, for a look-up, and for a record that a person found."""

    def order(self, order: Order) -> Receipt:
        self.sent.append(order)
        self.during()
        answer = self.answers.pop(0) if self.answers else None
        if answer:
            raise answer
        return Receipt(receipt=100 + len(self.sent))


class Shop(Vendor[IlluSettings]):
    """The vendor of a test, whose class has a world."""

    name = "shop"
    world: ClassVar[World]

    @classmethod
    def for_tenant(cls, tenant: Tenant, transport: Transport, deadline: Deadline, services: Services) -> Self:
        cls.world.asked.append(("vendor", transport.scope.tenant, deadline))
        shop = super().for_tenant(tenant, transport, deadline, services)
        cls.world.keys_seen.append(shop.settings.api_key.get_secret_value())
        return shop

    @property
    def destination(self) -> str:
        return self.world.destination

    @property
    def search_lag(self) -> int:
        return self.world.search_lag


def _key(order: Order) -> str:
    return order.number


def _send(order: Order, world: World) -> Receipt | Match[Receipt]:
    if world.waits_for:
        raise NotYetError("first another one", vendor="shop", waits_for=world.waits_for)
    return world.there or world.order(order)


def _links(order: Order, result: Receipt) -> Sequence[Link]:
    return [Link(Identity("crm", "order", order.number), Identity("shop", "receipt", str(result.receipt)))]


class PlaceOrder(Create[Order, Shop, Receipt], name="orders"):
    def key(self, command: Order) -> str:
        return _key(command)

    def send(self, command: Order, vendor: Shop) -> Receipt | Match[Receipt]:
        return _send(command, vendor.world)

    def find(self, command: Order, vendor: Shop) -> Iterator[Match[Receipt]]:
        world = vendor.world
        world.asked.append(("find", command))
        world.looks += 1
        if isinstance(world.hits, VendorError):
            raise world.hits
        yield from world.hits
        if world.not_shown:
            raise world.not_shown

    def existing(self, command: Order, record_id: str) -> Receipt:
        self.vendor.world.asked.append(("link", self.context.tenant, command, record_id))
        return Receipt(receipt=int(record_id))

    def verify(self, command: Order, result: Receipt, vendor: Shop) -> str | None:
        vendor.world.asked.append(("verify", command, result, vendor.destination))
        if isinstance(vendor.world.verified, VendorError):
            raise vendor.world.verified
        return vendor.world.verified

    def links(self, command: Order, result: Receipt) -> Sequence[Link]:
        return _links(command, result) if self.vendor.world.linking else []


class ChangeOrder(Change[Order, Shop, Receipt], name="orders"):
    """The same, if sending an order twice is harmless."""

    def key(self, command: Order) -> str:
        return _key(command)

    def send(self, command: Order, vendor: Shop) -> Receipt | Match[Receipt]:
        return _send(command, vendor.world)

    def links(self, command: Order, result: Receipt) -> Sequence[Link]:
        return _links(command, result)


type OrderFlow = type[PlaceOrder] | type[ChangeOrder]


def of_world(flow: OrderFlow, world: World) -> OrderFlow:
    """Return the flow to the shop of this world."""
    shop = type("Shop", (Shop,), {"world": world, "settings_model": IlluSettings})
    return type(flow.__name__, (flow,), {"vendor": shop})


class Bench:
    """An engine, its tables and one flow, with the steps of the tests."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self.tables = tables
        self.clock = clock
        self.shop = World()
        self.flow = of_world(PlaceOrder, self.shop)
        self.breaker = Breaker(clock)
        self.transport = Transport(breaker=self.breaker)
        self.services = cast("Services", SimpleNamespace(operations=tables.operations, links=tables.links, clock=clock))
        self.engine = self.new_engine()

    def new_engine(self, **options: Any) -> Engine:
        options = {"jitter": lambda: 0.5, **options}
        return Engine(self.services, self.tables.tenants, self.transport, **options)

    def let_repeat(self) -> None:
        """From now on an order may be sent twice without harm."""
        self.flow = of_world(ChangeOrder, self.shop)

    def run(self, number: str = "1", *, note: str = "as ordered", **options: Any) -> Outcome:
        order = Order(number=number, note=note)
        self.deadline = Deadline(21, self.clock)
        return self.engine.run(self.flow, order, tenant="acme", deadline=self.deadline, **options)

    def retry(self, number: str = "1", *, lent_until: int | None = None) -> Outcome | None:
        named = operation_id("acme", "orders", number)
        self.deadline = Deadline(21, self.clock)
        return self.engine.retry(
            {"orders": self.flow}, named, tenant="acme", deadline=self.deadline, lent_until=lent_until
        )

    def link_existing(self, in_review: Operation, vendor_id: str, *, by: str, confirmed: bool = False) -> Operation:
        deadline = Deadline(21, self.clock)
        return self.engine.link_existing(self.flow, in_review, vendor_id, by=by, deadline=deadline, confirmed=confirmed)

    def discard(self, in_review: Operation, *, by: str = "ops") -> Operation:
        return self.engine.discard(self.flow, in_review, by=by, deadline=Deadline(21, self.clock))

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


def hit(receipt: int, clock: Clock, *, ago: float = 0) -> Match[Receipt]:
    return Match(Receipt(receipt=receipt), datetime.fromtimestamp(clock.now - ago, UTC))


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
        unconfirmed.shop.there = Match(Receipt(receipt=101))
        unconfirmed.discard(park(unconfirmed))
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
    bench.shop.waits_for = operation_id("acme", "orders", "1")
    bench.run(number)
    bench.shop.waits_for = None
    return bench.stored(number)


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def recorded(bench: Bench, receipt: int = 7, number: str = "1") -> tuple[Operation, bool]:
    result = Receipt(receipt=receipt)
    links = bench.flow().links(Order(number=number), result)
    return bench.engine.record(bench.flow, number, result, links, tenant="acme", by="ops")


def with_exchange(bench: Bench) -> Operation:
    """Let the calls of an attempt be stored of the first order, and return it."""
    operation = bench.stored().model_copy(update={"exchanges": 1})
    call = Call(at=1, method="POST", path="/orders", status=503, error=None, milliseconds=9)
    exchange = Exchange(at=1, event=Event.NOT_DONE, calls=(call,))
    put = bench.tables.operations.exchanges.put(operation, exchange, int(bench.clock.now) + 1000)
    bench.tables.operations.save(operation, [put], over=operation.state)
    assert bench.tables.operations.exchanges.of(bench.stored(), int(bench.clock.now)) == [exchange]
    return bench.stored()


class Marks:
    """What a flow writes at the end of its operation: nothing, but it notes the events at which it was asked."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def writes(self, settled: Operation, event: Event) -> Sequence[Any]:  # noqa: ARG002
        self.events.append(event)
        return ()

    def adapts(self, event: Event, there: Sequence[Any]) -> bool:  # noqa: ARG002
        return False


def end_with(bench: Bench, monkeypatch: pytest.MonkeyPatch, ending: Any) -> None:
    """Let this ending be written with the operation of each order that is sent."""
    real = bench.flow.send

    def send(flow: Any, *arguments: Any) -> Any:
        flow.context.ending = ending
        return real(flow, *arguments)

    monkeypatch.setattr(bench.flow, "send", send)


def kept_until(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the times until which payloads are kept from now on."""
    keep, until = bench.tables.operations.keep_payload, list[int]()

    def kept(operation: Operation, expires_at: int) -> Any:
        until.append(expires_at)
        return keep(operation, expires_at)

    monkeypatch.setattr(bench.tables.operations, "keep_payload", kept)
    return until

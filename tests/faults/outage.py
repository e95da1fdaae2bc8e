"""A vendor is down for a day, and thousands of events come meanwhile: `make outage`, or with options:

    .venv/bin/python -m tests.faults.outage --events 10000 --hours 24

The engine, the flow, the client, the transport and the breaker are the real ones, and so is HTTP to the simulator of
Rev.io, which counts the calls. The tables are in this process's memory, because no emulator of DynamoDB is fast enough
for a day of this size; the time is simulated. One worker takes what the dispatcher finds once a minute.
"""

import argparse
import json
import os
import random
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from crm_bridge.cache import Cache
from crm_bridge.engine import POLICY, Engine, Policy
from crm_bridge.outbound.breaker import Breaker
from crm_bridge.outbound.transport import Deadline, Transport
from crm_bridge.services import Services
from crm_bridge.settings import Tenant, parse_tenant
from crm_bridge.storage.links import Link, Links, Partner
from crm_bridge.storage.operation import SHARDS, Operation, State
from crm_bridge.storage.operation_reader import Due
from crm_bridge.storage.operations import Claim, Operations
from crm_bridge.tenants import Tenants
from dispatcher.handler import LENT, LONGEST_RUN
from key_link.flow import CreateKeyLink
from key_link.models import KeyLink, NewKeyLink
from local.stack import LOCAL_HOSTS
from local.vendors.revio import RevioSimulator
from tests.clock import Clock
from tests.faults.checks import say

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

TENANT = "acme"
MINUTE, HOUR = 60, 3600
DEADLINE = 21
"""Seconds that an invocation has for its calls."""
SETTLED = (State.SUCCEEDED, State.REJECTED, State.NEEDS_REVIEW)


class MemoryOperations(Operations):
    """The operation table in memory, for one thread. It keeps the conditions of the real one."""

    def __init__(self) -> None:
        self.items: dict[str, Operation] = {}
        self.exchanges = cast("Any", SimpleNamespace(put=lambda *_: {}))  # the calls of attempts are not kept here

    def get(self, operation_id: str) -> Operation | None:
        return self.items.get(operation_id)

    def create(
        self,
        operation: Operation,
        *,
        over: Iterable[State],
        over_undone: bool = False,
        along: "Sequence[TransactWriteItemTypeDef]" = (),
    ) -> Claim:
        assert not over_undone
        assert not along
        there = self.items.get(operation.operation_id)
        if there and there.state not in over:
            return Claim(False, there)
        self.items[operation.operation_id] = operation
        return Claim(True, operation)

    def claim(
        self,
        operation_id: str,
        *,
        lease: str,
        now: int,
        until: int,
        states: Iterable[State],
        tenant: str,
        lent_until: int | None = None,
    ) -> Claim | None:
        there = self.items[operation_id]
        if (
            there.state not in states
            or there.tenant != tenant
            or there.due_at is None
            or not (there.due_at <= now or there.lent_until == (lent_until or 0))
        ):
            return Claim(False, there)
        changes = {"was": there.state, "state": State.SENDING, "lease": lease, "due_at": until, "lent_until": None}
        changes |= {"updated_at": now, "tries": there.tries + 1, "first_sent_at": there.first_sent_at or now}
        self.items[operation_id] = there.model_copy(update=changes)
        return Claim(True, self.items[operation_id])

    def save(
        self,
        operation: Operation,
        writes: "Sequence[TransactWriteItemTypeDef]" = (),
        *,
        over: State | None = State.SENDING,
        lease: str | None = None,
        along: "Sequence[TransactWriteItemTypeDef]" = (),
    ) -> Operation:
        there = self.items[operation.operation_id]
        if (there.lease, there.state) != (lease or operation.lease, over):
            return there
        assert not any(writes)
        assert not along
        self.items[operation.operation_id] = operation
        return operation

    def due(self, shard: str, now: int) -> Iterator[Sequence[Due]]:
        due = [
            Due(one.operation_id, one.tenant, one.function, one.due_at)
            for one in self.items.values()
            if one.due_at is not None and one.due_at <= now and one.shard == shard
        ]
        yield sorted(due, key=lambda one: (one.tenant, one.due_at))

    def keep_payload(self, *_: object) -> "TransactWriteItemTypeDef":
        raise AssertionError("no key link is there before it was sent")

    def oldest_in_review(self, shard: str) -> int | None:
        there = [one for one in self.items.values() if one.state is State.NEEDS_REVIEW and one.shard == shard]
        return min((one.updated_at for one in there), default=None)

    def lent(self, shard: str, tenant: str, now: int, until: int) -> Counter[str]:
        return Counter(
            one.function
            for one in self.items.values()
            if one.lent_until and one.tenant == tenant and now < (one.due_at or 0) <= until and one.shard == shard
        )

    def lend(self, due: Due, until: int, sent_by: int) -> bool:
        return self._moved(due, due.due_at, {"due_at": sent_by, "lent_until": until})

    def extend(self, due: Due, until: int, sent_by: int) -> bool:
        return self._moved(due, sent_by, {"due_at": until})

    def _moved(self, due: Due, due_at: int, changes: Mapping[str, object]) -> bool:
        there = self.items[due.operation_id]
        if there.due_at != due_at:
            return False
        self.items[due.operation_id] = there.model_copy(update=changes)
        return True


class MemoryLinks(Links):
    """Key links are of many to many, so none of their rows is ever taken."""

    def __init__(self) -> None:
        pass

    def taken(self, tenant: str, groups: Sequence[Sequence[Link]], operation_id: str) -> list[bool]:  # noqa: ARG002
        return [False] * len(groups)

    def of(self, *_: object) -> list[Partner]:
        return []

    def puts(self, *_: object) -> "Iterator[TransactWriteItemTypeDef]":
        return iter(())


class OneTenant(Tenants):
    """A tenant of the simulator's first account."""

    def __init__(self, rev: RevioSimulator) -> None:
        account = rev.account
        settings = {
            "base_url": f"{rev.url}/v1",
            "username": account.username,
            "client_code": account.client_code,
            "password": account.password,
        }
        self._settings = parse_tenant(json.dumps({"revio": settings}), LOCAL_HOSTS)

    def get(self, name: str, function: str, *, fresh: bool = False, max_age: int = 300) -> Tenant:  # noqa: ARG002
        return self._settings


class CountingBreaker(Breaker):
    failures = 0

    def failed(self, vendor: str, host: str, tenant: str) -> None:
        self.failures += 1
        super().failed(vendor, host, tenant)


@dataclass(frozen=True)
class Figures:
    """Times are in simulated seconds."""

    seed: int
    events: int
    hours_down: float
    arrived_once: int
    arrived_twice: int
    lost: int
    states: dict[str, int]
    calls_while_down: int
    retries_of_one_at_most: int
    last_arrived_after: float
    calls_a_minute_at_most: int
    calls_a_minute_allowed: int

    @property
    def are_right(self) -> bool:
        return (
            (self.arrived_once, self.arrived_twice, self.lost) == (self.events, 0, 0)
            and self.states == {State.SUCCEEDED: self.events}
            and self.calls_a_minute_at_most <= self.calls_a_minute_allowed
        )


def outage(events: int, hours: float, seed: int = 1, policy: Policy = POLICY) -> Figures:
    """That many new key links come at random times while Rev.io is down, and are followed until nothing is due."""
    clock = Clock()
    rev = RevioSimulator(clock=clock)
    rev.start()
    try:
        return _outage(rev, clock, events, hours, seed, policy)
    finally:
        rev.stop()


def _outage(rev: RevioSimulator, clock: Clock, events: int, hours: float, seed: int, policy: Policy) -> Figures:
    chance = random.Random(seed)
    account = rev.account
    operations, links = MemoryOperations(), MemoryLinks()
    breaker = CountingBreaker(clock)
    transport = Transport(clock, clock.move, breaker, LOCAL_HOSTS)
    services = SimpleNamespace(operations=operations, links=links, clock=clock, cache=Cache(clock))
    engine = Engine(cast("Services", services), OneTenant(rev), transport, jitter=chance.random, policy=policy)

    began = clock.now
    back_at = began + hours * HOUR
    arrivals = deque(sorted(began + chance.random() * hours * HOUR for _ in range(events)))
    queue: deque[Due] = deque()
    retried: Counter[str] = Counter()
    rev.stop()
    tick, number, is_down, told_at = began, 0, True, 0.0
    while arrivals or queue or any(one.state not in SETTLED for one in operations.items.values()):
        tick += MINUTE
        if is_down and clock.now >= back_at:
            rev.start()
            is_down = False
        while arrivals and arrivals[0] <= clock.now:
            arrivals.popleft()
            link = KeyLink(system="SALESFORCE", entity_type="CUSTOMER", internal_id=1015, external_id=f"001-{number}")
            number += 1
            engine.run(CreateKeyLink, NewKeyLink(link=link), tenant=TENANT, deadline=Deadline(DEADLINE))
        for shard in SHARDS:
            for page in operations.due(shard, int(clock.now)):
                until, sent_by = int(clock.now) + LENT, int(clock.now) + LONGEST_RUN
                lent = [due for due in page if operations.lend(due, until, sent_by)]
                queue += [due._replace(due_at=until) for due in lent if operations.extend(due, until, sent_by)]
        while queue and clock.now < tick:
            message = queue.popleft()
            retried[message.operation_id] += 1
            engine.retry(
                {CreateKeyLink.name: CreateKeyLink},
                message.operation_id,
                tenant=message.tenant,
                deadline=Deadline(DEADLINE),
                lent_until=message.due_at,
            )
        clock.now = max(clock.now, tick)
        if clock.now - told_at >= HOUR:
            told_at = clock.now
            say(f"\r{(clock.now - began) / HOUR:3.0f} h: {number} came, {len(rev.key_links)} arrived ")
    say("\n")
    made = Counter(str(record["external_id"]) for record in rev.key_links)
    return Figures(
        seed=seed,
        events=events,
        hours_down=hours,
        arrived_once=sum(times == 1 for times in made.values()),
        arrived_twice=sum(times > 1 for times in made.values()),
        lost=events - len(made),
        states=dict(Counter(one.state for one in operations.items.values())),
        calls_while_down=breaker.failures,
        retries_of_one_at_most=max(retried.values(), default=0),
        last_arrived_after=max(account.made_at.values()) - back_at,
        calls_a_minute_at_most=_busiest(account.calls),
        calls_a_minute_allowed=rev.calls_per_minute,
    )


def _busiest(calls: Sequence[float]) -> int:
    """The most calls in any minute."""
    most, first = 0, 0
    for last, at in enumerate(calls):
        while calls[first] <= at - MINUTE:
            first += 1
        most = max(most, last - first + 1)
    return most


def shown(figures: Figures) -> str:
    rows = {
        f"events while Rev.io was down ({figures.hours_down:g} h)": figures.events,
        "arrived, one key link each": figures.arrived_once,
        "arrived twice": figures.arrived_twice,
        "lost": figures.lost,
        "states in the end": ", ".join(f"{number} {state}" for state, number in figures.states.items()),
        "calls while it was down": figures.calls_while_down,
        "retries of one event, at most": figures.retries_of_one_at_most,
        "the last one arrived after it was back": f"{figures.last_arrived_after / MINUTE:.0f} min",
        "calls in any minute, at most": f"{figures.calls_a_minute_at_most} of {figures.calls_a_minute_allowed} allowed",
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def main() -> int:
    parser = argparse.ArgumentParser(description="A vendor is down for a day.")
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    stdout = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the functions log is of no use here
    figures = outage(options.events, options.hours, options.seed)
    os.write(stdout, f"{json.dumps(asdict(figures)) if options.json else shown(figures)}\n".encode())
    return int(not figures.are_right)


if __name__ == "__main__":
    sys.exit(main())

"""The dispatcher with a backlog that no single run can work through, with the operation table in memory."""

import heapq
import json
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import batched, count
from types import SimpleNamespace
from typing import Any

import pytest

from crm_bridge.engine import DUE
from crm_bridge.errors import StorageError
from crm_bridge.outbound.queues import Queues
from crm_bridge.storage.operation import SHARDS, Operation, State, operation_id
from crm_bridge.storage.operation_reader import DUE_PAGE, Due
from dispatcher.handler import LENT, PER_WORKER, RESERVE, SMALLEST_SHARE, lambda_handler
from tests.clock import Clock
from tests.faults.outage import MINUTE, MemoryOperations

WORKERS = 3
SHARE = PER_WORKER * WORKERS
TIMEOUT = 60.0
"""Seconds that a run has (template.yaml)."""
LENDING = 0.006
"""Seconds that it takes to lend one and to say that it was sent, with eight of them at once."""


class Table(MemoryOperations):
    """Operations of several tenants, whose lending takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = count()
        self.asked_for = 0
        self.unread: set[str] = set()
        self.of_shard: dict[str, list[str]] = {shard: [] for shard in SHARDS}

    def add(self, tenant: str, number: int, due_at: int, flow: str = "create_site") -> None:
        for one in range(number):
            new = Operation(
                operation_id=operation_id(tenant, flow, str(one)),
                tenant=tenant,
                flow=flow,
                function=flow,
                event_key=str(one),
                state=State.WAITING,
                fingerprint="",
                due_at=due_at,
                created_at=due_at,
                updated_at=due_at,
            )
            self.items[new.operation_id] = new
            self.of_shard[new.shard].append(new.operation_id)

    def due(self, shard: str, now: int) -> Iterator[Sequence[Due]]:
        there = [self.items[one] for one in self.of_shard[shard]]
        due = sorted(
            (one.tenant, one.due_at, one.operation_id, one.flow)
            for one in there
            if one.due_at is not None and one.due_at <= now
        )
        found = [Due(named, tenant, flow, due_at) for tenant, due_at, named, flow in due]
        yield from batched(found, DUE_PAGE, strict=False)

    def lent(self, shard: str, tenant: str, now: int, until: int) -> Counter[str]:
        if shard in self.unread:
            raise StorageError("throttled")
        there = (self.items[one] for one in self.of_shard[shard])
        return Counter(
            one.flow for one in there if one.lent_until and one.tenant == tenant and now < (one.due_at or 0) <= until
        )

    def lend(self, due: Due, until: int, sent_by: int) -> bool:
        self.asked_for = next(self.asked) + 1
        return super().lend(due, until, sent_by)


class Queue:
    """Messages in the order in which they were sent, and how many there were for each operation.

    It gives out one message of each lane at a time, as a FIFO queue of SQS does with its message groups.
    """

    def __init__(self) -> None:
        self.waiting: deque[Mapping[str, Any]] = deque()
        self.messages: Counter[str] = Counter()
        self.lanes: dict[str, str] = {}
        self.busy: set[str] = set()

    def send_message_batch(self, *, QueueUrl: str, Entries: Sequence[Mapping[str, str]]) -> Mapping[str, Any]:  # noqa: ARG002, N803
        bodies = [json.loads(entry["MessageBody"]) for entry in Entries]
        self.waiting += bodies
        for body, entry in zip(bodies, Entries, strict=True):
            self.lanes[body["operation_id"]] = entry["MessageGroupId"]
        self.messages.update(body["operation_id"] for body in bodies)
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}

    def take(self) -> Mapping[str, Any] | None:
        for body in self.waiting:
            lane = self.lanes[str(body["operation_id"])]
            if lane not in self.busy:
                self.waiting.remove(body)
                self.busy.add(lane)
                return body
        return None

    def over(self, operation: str) -> None:
        self.busy.discard(self.lanes[operation])

    def tenants(self) -> list[str]:
        return [str(body["tenant"]) for body in self.waiting]


class Run:
    """One invocation: what it lends takes its time."""

    aws_request_id = "r-1"

    def __init__(self, operations: Table) -> None:
        self._operations = operations
        self._before = operations.asked_for

    def get_remaining_time_in_millis(self) -> int:
        return round(1000 * (TIMEOUT - LENDING * (self._operations.asked_for - self._before)))


class World:
    """The dispatcher, a table, one queue, and what takes from it."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.table, self.queue = clock, Table(), Queue()
        client: Any = self.queue
        queues = Queues(lambda: client, os.environ)
        self.workers = queues.workers["create_site"]
        self.runtime = SimpleNamespace(clock=clock, operations=self.table, queues=queues)
        self.ran: list[tuple[float, str]] = []
        """When each operation was sent, and whose it was."""
        self._busy: list[tuple[float, int, str]] = []
        self._number = count()

    def dispatch(self) -> Run:
        run = Run(self.table)
        lambda_handler({}, run)
        return run

    def work(self, seconds: float, takes: Mapping[str, float]) -> None:
        """Let workers take messages for so long; an operation `takes` as many seconds as its tenant's vendor."""
        end = self.clock.now + seconds
        while True:
            while len(self._busy) < self.workers and (body := self.queue.take()):
                if body["lent_until"] <= self.clock.now:  # the queue keeps it no longer
                    self.queue.over(str(body["operation_id"]))
                    continue
                named, now, tenant = str(body["operation_id"]), int(self.clock.now), str(body["tenant"])
                claim = self.table.claim(
                    named,
                    lease="x",
                    now=now,
                    until=now + 100,
                    states=DUE,
                    tenant=tenant,
                    lent_until=body["lent_until"],
                )
                if claim and claim.won:
                    heapq.heappush(self._busy, (self.clock.now + takes[tenant], next(self._number), named))
                else:
                    self.queue.over(named)
            if not self._busy or self._busy[0][0] > end:
                self.clock.now = end
                return
            self.clock.now, _, named = heapq.heappop(self._busy)
            self.queue.over(named)
            there = self.table.items[named]
            self.ran.append((self.clock.now, there.tenant))
            self.table.items[named] = there.model_copy(update={"state": State.SUCCEEDED, "due_at": None})


@pytest.fixture
def workers() -> int:
    return WORKERS


@pytest.fixture
def world(clock: Clock, monkeypatch: pytest.MonkeyPatch, workers: int) -> World:
    for flow in ("CREATE_SITE", "KEY_LINK"):
        monkeypatch.setenv(f"{flow}_QUEUE_URL", flow)
        monkeypatch.setenv(f"{flow}_WORKERS", str(workers))
    world = World(clock)
    monkeypatch.setattr("dispatcher.handler.runtime", lambda: world.runtime)
    return world


def test_a_large_backlog_is_put_on_its_queue_once_each_by_runs_that_end_in_time(world: World) -> None:
    now, tenants, each = int(world.clock.now), 60, 40
    for tenant in range(tenants):
        world.table.add(f"t-{tenant}", each, now - tenant)
    runs = 0
    while len(world.queue.messages) < tenants * each:
        before = len(world.queue.messages)
        run = world.dispatch()
        runs += 1
        assert len(world.queue.messages) > before
        assert run.get_remaining_time_in_millis() > 0
        for body in world.queue.waiting:  # all of it is done within the minute
            named = str(body["operation_id"])
            done = {"state": State.SUCCEEDED, "due_at": None, "lent_until": None}
            world.table.items[named] = world.table.items[named].model_copy(update=done)
        world.queue.waiting.clear()
        world.clock.now += MINUTE
    assert runs == each // SMALLEST_SHARE
    assert set(world.queue.messages.values()) == {1}
    assert RESERVE > 0


@pytest.mark.parametrize("workers", [2, WORKERS])
def test_ten_of_one_tenant_are_sent_in_two_minutes_when_anothers_10_000_hang(world: World, workers: int) -> None:
    """Without a breaker: each of the other's takes a function's whole time."""
    now = int(world.clock.now)
    world.table.add("large", 10_000, now - 600)
    world.table.add("small", 10, now - 1)
    world.dispatch()
    sent = world.queue.tenants()
    assert sent[:20] == ["large", "small"] * 10
    assert Counter(sent) == {"large": PER_WORKER * workers // 2, "small": 10}
    world.work(2 * MINUTE, {"large": 21, "small": 1})
    assert sum(tenant == "small" for _, tenant in world.ran) == 10


def test_a_tenant_that_comes_later_is_sent_at_once_however_much_another_has(world: World) -> None:
    world.table.add("large", 2000, int(world.clock.now) - 600)
    world.dispatch()
    assert Counter(world.queue.tenants()) == {"large": SHARE}
    world.clock.now += MINUTE
    world.table.add("small", 30, int(world.clock.now) - 1)
    world.dispatch()
    assert Counter(world.queue.tenants()) == {"large": SHARE, "small": 30}


def test_what_is_lent_counts_until_it_is_taken_up(world: World) -> None:
    world.table.add("large", 2000, int(world.clock.now) - 600)
    for _ in range(LENT // MINUTE - 1):
        world.dispatch()
        assert len(world.queue.waiting) == SHARE
        world.clock.now += MINUTE
    world.work(10, {"large": 1})
    world.dispatch()
    assert len(world.queue.messages) == SHARE + 2 * 10 + 2  # two are being sent, one in each of its lanes


def test_shares_of_one_function_are_not_used_up_by_another(world: World) -> None:
    now = int(world.clock.now)
    world.table.add("acme", 3000, now - 600)
    world.table.add("acme", 5, now - 1, flow="key_link")
    world.dispatch()
    assert len(world.queue.waiting) == SHARE + 5


def test_each_of_many_tenants_has_the_smallest_share(world: World) -> None:
    now = int(world.clock.now)
    for tenant in range(100):
        world.table.add(f"t-{tenant}", 25, now - tenant)
    world.dispatch()
    assert set(Counter(world.queue.tenants()).values()) == {SMALLEST_SHARE}
    assert len(set(world.queue.tenants()[:100])) == 100


def test_is_dispatched_all_the_same_when_nobody_knows_what_is_lent(world: World) -> None:
    world.table.add("acme", 7, int(world.clock.now) - 1)
    world.table.unread = set(SHARDS)
    world.dispatch()
    assert len(world.queue.waiting) == 7


def test_a_backlog_of_one_tenant_drains_as_fast_as_its_workers_can(world: World) -> None:
    """At the pace of Rev.io: each function makes 250 calls a minute, two for each key link, and a tenant has two."""
    world.table.add("acme", 2500, int(world.clock.now) - 600)
    begun, pace = world.clock.now, {"acme": MINUTE / 125}
    while len(world.ran) < 2500:
        world.dispatch()
        world.work(MINUTE, pace)
        assert world.clock.now - begun < 2 * 3600
    took = world.ran[-1][0] - begun
    assert 2500 / (took / MINUTE) >= 0.95 * 2 * 125


def test_a_tenant_whose_vendor_hangs_leaves_a_worker_to_the_others(world: World) -> None:
    now = int(world.clock.now)
    world.table.add("large", 500, now - 600)
    world.dispatch()
    world.work(30, {"large": 21})
    world.table.add("small", 10, int(world.clock.now) - 1)
    world.dispatch()
    begun = world.clock.now
    world.work(30, {"large": 21, "small": 1})
    assert max(at for at, tenant in world.ran if tenant == "small") - begun == 10  # as long as without the other

"""A backlog of key links against Rev.io's limit of 500 calls a minute, in simulated time:

    .venv/bin/python -m tests.faults.drain 10000

The engine, the flow, the client and its pace are the real ones, and so is HTTP to the simulator, which counts the calls
and answers 429 to one too many. Two functions take what the dispatcher found, as many as RevioConcurrency lets run, and
each keeps its pace by itself (`revio.calls_per_minute`), which is half of the limit.
"""

import heapq
import json
import os
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import patch

from crm_bridge.cache import Cache
from crm_bridge.engine import Engine
from crm_bridge.outbound.breaker import Breaker
from crm_bridge.outbound.queues import Queues
from crm_bridge.outbound.transport import Deadline, Transport
from dispatcher.handler import lambda_handler
from key_link.flow import CreateKeyLink
from key_link.models import KeyLink, NewKeyLink
from local.stack import LOCAL_HOSTS
from local.vendors.revio import RevioSimulator
from tests.faults.outage import DEADLINE, MINUTE, TENANT, MemoryLinks, MemoryOperations, OneTenant

if TYPE_CHECKING:
    from crm_bridge.services import Services

FUNCTIONS = 2
MOST_IDLE = 10
"""Simulated minutes without an arrival, after which the run fails."""
TAKES = 0.15
"""Simulated seconds of each retry, besides what it waits for its turn."""


class Time:
    """Simulated epoch seconds. It passes when all of so many threads sleep, up to when the first wakes."""

    def __init__(self, threads: int) -> None:
        self.now = 1_795_000_000.0
        self._awake = threads
        self._until: list[float] = []
        self._passed = threading.Condition()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        with self._passed:
            until = self.now + seconds
            heapq.heappush(self._until, until)
            self.leave()
            while self.now < until:
                self._passed.wait()

    def leave(self) -> None:
        """This thread is not waited for any more, for now or for good."""
        with self._passed:
            self._awake -= 1
            if self._awake == 0 and self._until:
                self.now = self._until[0]
                while self._until and self._until[0] <= self.now:
                    heapq.heappop(self._until)
                    self._awake += 1
                self._passed.notify_all()


@dataclass(frozen=True)
class Drained:
    """`share` is of what the vendor's limit allows in the same time."""

    events: int
    arrived: int
    minutes: float
    share: float
    too_many: int
    """Answers 429."""


class _Context:
    """Of the dispatcher, in whose simulated time a run takes none."""

    aws_request_id = "drain"

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


class _Queue:
    """SQS, as far as it is used here: one message of a group is given out at a time."""

    def __init__(self) -> None:
        self._groups: dict[str, deque[Mapping[str, Any]]] = {}
        self._free: deque[str] = deque()
        self._lock = threading.Lock()

    def send_message_batch(self, *, QueueUrl: str, Entries: Sequence[Mapping[str, str]]) -> object:  # noqa: ARG002, N803
        with self._lock:
            for entry in Entries:
                group = entry["MessageGroupId"]
                if group not in self._groups:
                    self._groups[group] = deque()
                    self._free.append(group)
                self._groups[group].append(json.loads(entry["MessageBody"]))
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}

    @contextmanager
    def taken(self) -> Iterator[Mapping[str, Any] | None]:
        """Hold a message's group for as long as it is sent; None if no group has one."""
        with self._lock:
            group = next((group for group in self._free if self._groups[group]), None)
            if group:
                self._free.remove(group)
        yield self._groups[group].popleft() if group else None
        if group:
            with self._lock:
                self._free.append(group)


def drain(events: int, say: Callable[[str], None]) -> Drained:
    time = Time(1 + FUNCTIONS)
    rev = RevioSimulator(clock=time)
    rev.start()
    try:
        return _drain(rev, time, events, say)
    finally:
        rev.stop()


def _drain(rev: RevioSimulator, time: Time, events: int, say: Callable[[str], None]) -> Drained:
    tenants, operations, links = OneTenant(rev), MemoryOperations(), MemoryLinks()

    def made() -> Engine:
        """Return what one running function has of its own, its pace above all."""
        services = SimpleNamespace(operations=operations, links=links, clock=time, cache=Cache(time))
        transport = Transport(time, time.sleep, Breaker(time), LOCAL_HOSTS)
        return Engine(cast("Services", services), tenants, transport)

    engine = made()
    for number in range(events):
        link = KeyLink(system="SALESFORCE", entity_type="CUSTOMER", internal_id=1015, external_id=f"001-{number}")
        engine.run(CreateKeyLink, NewKeyLink(link=link), tenant=TENANT, deadline=Deadline(DEADLINE), later=True)
    queue: Any = _Queue()
    failures: list[BaseException] = []

    def is_through() -> bool:
        return bool(failures) or len(rev.key_links) >= events

    def dispatcher() -> None:
        idle, arrived = 0, 0
        while not is_through():
            lambda_handler({}, _Context())
            idle, arrived = (0 if len(rev.key_links) > arrived else idle + 1), len(rev.key_links)
            if idle > MOST_IDLE:
                found = Counter(attempt.reason for one in operations.items.values() for attempt in one.attempts)
                raise AssertionError(f"Nothing arrived for {idle} minutes. Reasons of the attempts: {dict(found)}")
            say(f"backlog: {len(rev.key_links):,} of {events:,} arrived")
            time.sleep(MINUTE)

    def function() -> None:
        engine = made()
        while not is_through():
            with queue.taken() as message:
                if message is None:
                    time.sleep(1)
                elif message["lent_until"] > time.now:  # a queue drops what nobody took for so long
                    time.sleep(TAKES)
                    engine.retry(
                        {CreateKeyLink.name: CreateKeyLink},
                        message["operation_id"],
                        tenant=message["tenant"],
                        deadline=Deadline(DEADLINE),
                        lent_until=message["lent_until"],
                    )

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised below, where somebody waits for it
            failures.append(error)
        finally:
            time.leave()

    threads = [threading.Thread(target=run, args=(work,)) for work in (dispatcher, *[function] * FUNCTIONS)]
    queues = Queues(lambda: queue, {"KEY_LINK_QUEUE_URL": "key links", "KEY_LINK_WORKERS": str(FUNCTIONS)})
    of_dispatcher = SimpleNamespace(clock=time, operations=operations, queues=queues)
    with patch("dispatcher.handler.runtime", lambda: of_dispatcher):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
    calls = sorted(rev.account.calls)
    minutes = (calls[-1] - calls[0]) / MINUTE
    refused = sum(attempt.status == 429 for one in operations.items.values() for attempt in one.attempts)
    arrived = len({record["external_id"] for record in rev.key_links})
    return Drained(events, arrived, minutes, len(calls) / (minutes * rev.calls_per_minute), refused)


def main() -> None:
    stdout = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the functions log
    found = drain(int(sys.argv[1]), lambda _: None)
    os.write(stdout, f"{json.dumps(asdict(found))}\n".encode())


if __name__ == "__main__":
    main()

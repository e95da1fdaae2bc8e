"""Random schedules: several tenants, events of every kind, callers at once, and faults wherever they come.

    .venv/bin/python -m tests.faults.schedules --schedules 10000 --jobs 2 --seed 7

A schedule is a few events and what happens while they are on their way. After each step, and once all has settled, the
vendors' own records and the operation table are looked at. Hypothesis makes the schedules, and the shortest out of one
that breaks the promise; the same seed makes the same ones.
"""

import argparse
import atexit
import json
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import ClassVar

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, HypothesisProvider
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from crm_bridge.outbound.transport import AFTER_DEADLINE
from crm_bridge.storage.operation import State
from local.vendors.alterations import ALTERATIONS
from operations.retrying import RETRIED
from tests.faults.checks import broken_rules, say, too_many, unaccepted
from tests.faults.events import KINDS, Event
from tests.faults.faults import FAULTS, Fault, Plan
from tests.faults.harness import FUNCTION_TIMEOUT, World
from tests.faults.matrix import USUAL, Worlds, altering, may_come

STEPS = 3
BATCH = 100
"""Schedules, at least, that one process plays with one seed before it tells how it went."""
MOST_NTH = 8
"""A fault comes at most at the so many-th call that it fits."""
LONGEST_LEASE = FUNCTION_TIMEOUT + AFTER_DEADLINE + 1
"""Seconds."""
DRAWN_AFRESH = "drawn afresh"
"""By default Hypothesis makes most schedules out of parts of others, and breaks off more than half of those unplayed.
Source: https://hypothesis.readthedocs.io/en/latest/extras.html (alternative backends)"""
AVAILABLE_PROVIDERS[DRAWN_AFRESH] = HypothesisProvider
CALLERS = st.sampled_from((1, 1, 1, 2, 3))
LATER = st.sampled_from((False, False, True))
"""Whether they ask with respond-async to be answered first."""
FAULTS_TO_COME = st.lists(st.tuples(st.sampled_from(FAULTS), st.integers(1, MOST_NTH)), max_size=2)


@st.composite
def played_kinds(draw: st.DrawFn) -> Callable[[int], Event]:
    return draw(st.sampled_from(Schedule.kinds))


class Schedule(RuleBasedStateMachine):
    """Played in the world of `worlds`, with events of `kinds`; `played` counts what happened in all of them."""

    kinds: ClassVar[Sequence[Callable[[int], Event]]] = KINDS
    worlds: ClassVar[Worlds] = Worlds(aws_without_http=True)
    played: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.world: World = self.worlds.world(World)
        self.world.begin()
        self.events: list[tuple[str, Event]] = []
        self.plans: list[Plan] = []

    @initialize(
        named=st.sampled_from(sorted(USUAL)),
        altered=st.sampled_from((None, *ALTERATIONS)),
        comers=st.lists(st.tuples(st.integers(1, 2), played_kinds()), min_size=1, max_size=2),
        callers=CALLERS,
        later=LATER,
        faults=FAULTS_TO_COME,
    )
    def begin(
        self,
        named: str,
        altered: str | None,
        comers: Sequence[tuple[int, Callable[[int], Event]]],
        callers: int,
        later: bool,
        faults: Sequence[tuple[Fault, int]],
    ) -> None:
        """Create what the events need, each with the tenant of that number, and the first one comes.

        A vendor is as slow for one tenant as for another, and alters what it stores as much.
        """
        self.settings = named
        self.played["with texts altered"] += altered is not None
        for number in sorted({number for number, _ in comers}):
            self.world.take_in(altering(altered, USUAL[named]) if altered else USUAL[named])
            for make in [make for its, make in comers if its == number]:
                event = make(self.world.next_number())
                self.world.prepare(event)
                self.events.append((self.world.tenant, event))
        self.send(0, callers, later, faults)

    @rule(which=st.integers(0, 1), callers=CALLERS, later=LATER, faults=FAULTS_TO_COME)
    def send(self, which: int, callers: int, later: bool, faults: Sequence[tuple[Fault, int]]) -> None:
        """New, or again; by so many callers at once, who may ask to be answered before it is sent."""
        tenant, event = self.events[which % len(self.events)]
        self._inject(faults)
        self.world.send(event, tenant, callers, later=later)
        self.played["requests"] += callers
        self.played["requests with respond-async"] += callers * later

    @rule(seconds=st.sampled_from((60, 600, 3600)), faults=FAULTS_TO_COME)
    def wait(self, seconds: int, faults: Sequence[tuple[Fault, int]]) -> None:
        """The dispatcher and the workers do what is due by then."""
        self._inject(faults)
        self.world.pass_time(seconds)

    @rule()
    def two_workers(self) -> None:
        self.world.pass_time(60, deliver=False)
        self.played["messages to two workers"] += self.world.deliver_to_both()

    @rule(which=st.none() | st.integers(0, 3), faults=FAULTS_TO_COME)
    def do_not_wait(self, which: int | None, faults: Sequence[tuple[Fault, int]]) -> None:
        """A person retries one event that waits, or decides about it, or retries all."""
        unsettled = [one for one in self.world.operations() if one.state in RETRIED]
        chosen = unsettled if which is None else unsettled[which : which + 1]
        self.played["taken care of by a person meanwhile"] += len(chosen)
        self._inject(faults)
        if which is None:
            for tenant in self.world.tenants:
                self.world.answer(tenant, "POST", "/operations/retry", {})
        else:
            for one in chosen:
                self.world.resolve(one)
            self.world.stack.deliver()

    def _inject(self, faults: Sequence[tuple[Fault, int]]) -> None:
        for fault, nth in [(fault, nth) for fault, nth in faults if may_come(fault, self.settings)]:
            self.plans.append(self.world.inject(fault, nth=nth))

    @invariant()
    def nothing_is_wrong_yet(self) -> None:
        assert too_many(self.world) == []
        for sending in [one for one in self.world.operations() if one.state is State.SENDING]:
            lease = (sending.due_at or 0) - sending.updated_at
            assert lease <= LONGEST_LEASE or sending.lent_until is not None

    def teardown(self) -> None:
        self.world.heal()
        self.world.start_cold()
        for sent in unaccepted(self.world):
            self.world.send(sent.event, sent.tenant)
        self.world.settle()
        wrong = broken_rules(self.world)
        self.played["schedules"] += 1
        self.played["events"] += len(self.world.operations())
        self.played["decided by a person"] += self.world.operators
        self.played.update(f"fault: {plan.fault.name}" for plan in self.plans if plan.hit)
        if wrong:
            self.worlds.leave()
            raise AssertionError("; ".join(wrong))


def play(seed_: int, schedules: int, *, flow: str = "", shrink: bool = True) -> Counter[str]:
    """That many schedules in this process, with the kinds of event whose name has `flow` in it.

    Raises AssertionError with the shortest that breaks the promise.
    """
    Schedule.played = Counter()
    Schedule.kinds = [make for make in KINDS if flow in make(1).kind]
    run_state_machine_as_test(
        seed(seed_)(Schedule),
        settings=settings(
            backend=DRAWN_AFRESH,
            max_examples=schedules,
            stateful_step_count=STEPS,
            phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
            deadline=None,
            database=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return Schedule.played


def _quiet() -> None:
    """Of a worker: what the functions log is of no use here, and its last world ends with it."""
    atexit.register(Schedule.worlds.leave)
    # Each function that is to be killed has a process of its own, which would import this module again.
    main = sys.modules["__main__"]
    main.__spec__ = main.__file__ = None
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def shown(played: Counter[str], seeds: Sequence[int], broken: int) -> str:
    promise = f"{broken} OF THE SEEDS BROKE THE PROMISE" if broken else "none broke the promise"
    width = max(map(len, played), default=0)
    rows = [f"  {name:<{width}}  {number:>7,}" for name, number in played.most_common()]
    return "\n".join([f"Seeds {seeds[0]} to {seeds[-1]}: {promise}", *rows])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.schedules", description=(__doc__ or "").split(":")[0] + "."
    )
    parser.add_argument("--schedules", type=int, default=10_000, help="how many at least")
    parser.add_argument("--seed", type=int, default=1, help="of the first batch; each has its own, one after the other")
    worlds = 3 * (os.cpu_count() or 1)  # most of the time they wait, for a turn or a timeout
    parser.add_argument("--jobs", type=int, default=worlds, help="how many worlds at a time (default %(default)s here)")
    parser.add_argument("--flow", default="", help="only kinds of event whose name has this in it")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    played: Counter[str] = Counter()
    broken = 0
    seeds = range(options.seed, options.seed + -(-options.schedules // BATCH))
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn"), initializer=_quiet) as pool:
        some = min(BATCH, options.schedules)
        batches = {pool.submit(play, one, some, flow=options.flow): one for one in seeds}
        for done in as_completed(batches):
            if done.cancelled():
                continue
            error = done.exception()
            if error:
                broken += 1
                say(f"seed {batches[done]}: BROKEN\n{''.join(traceback.format_exception(error))}\n")
                continue
            played += done.result()
            minutes = (time.monotonic() - began) / 60
            say(f"seed {batches[done]}: all right; {played['schedules']:,} schedules in {minutes:.0f} min\n")
            if played["schedules"] >= options.schedules:  # Hypothesis plays more than it is asked for
                pool.shutdown(wait=False, cancel_futures=True)
    played_seeds = sorted(one for batch, one in batches.items() if not batch.cancelled())
    sys.stdout.write((json.dumps(played) if options.json else shown(played, played_seeds, broken)) + "\n")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())

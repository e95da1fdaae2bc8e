"""Cold start: from nothing to the first response, under AWS's runtime interface emulator."""

import random
import subprocess
import time
from collections.abc import Callable, Sequence

from bench.subjects import COMPARED, FLOOR, Subject, by_default, new_event, surroundings
from local.emulator import Emulator

type Key = tuple[str, bool]
"""A subject's name, and whether it is packaged by default."""


def measure(runs: int, against: Sequence[Subject], say: Callable[[str], None]) -> dict[Key, list[float]]:
    """Return the milliseconds of `runs` cold starts of each subject. Every round has its own order.

    Our function and its peers are packaged both ways, the builds in `against` as they are.
    A cold start is a fresh runtime's first response: the emulator starts the runtime when the first event comes.
    """
    subjects: list[tuple[Key, Subject]] = []
    for subject in (FLOOR, *COMPARED):
        subjects += [((subject.name, False), subject), ((subject.name, True), by_default(subject))]
    subjects += [((subject.name, False), subject) for subject in against]
    found: dict[Key, list[float]] = {key: [] for key, _ in subjects}
    with surroundings() as (_, environment):
        for number in range(runs + 1):
            for key, subject in random.sample(subjects, len(subjects)):
                took = _start(subject, environment)
                if number:  # the first round fills the system's file cache, and is not counted
                    found[key].append(took)
            say(f"cold start: round {number} of {runs}")
    return found


def _start(subject: Subject, environment: dict[str, str]) -> float:
    event = new_event()
    with Emulator(
        subject.function, subject.handler, 29, environment, subprocess.DEVNULL, build=subject.build
    ) as emulator:
        begun = time.perf_counter()
        response = emulator.invoke(event)
        took = time.perf_counter() - begun
    if response["statusCode"] not in (200, 201):
        raise AssertionError(f"{subject.name} answered {response['statusCode']}")
    return took * 1000

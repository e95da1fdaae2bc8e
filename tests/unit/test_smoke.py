"""The smoke run: a step that fails ends it, is printed, and what was made is deleted all the same."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.smoke import CannotError, FailedError, Smoke
from tests.stack import Stack


@pytest.fixture
def smoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Smoke:
    monkeypatch.setattr(Smoke, "delete", lambda _: "all")
    return Smoke("scratch", "http://127.0.0.1:1", None, Stack(), tmp_path, lambda _: None)


def raising(error: Exception) -> Callable[[], str]:
    def work() -> str:
        raise error

    return work


def run(smoke: Smoke, *works: Callable[[], str], keep: bool = False) -> tuple[bool, list[str]]:
    steps = [(f"step {number}", work) for number, work in enumerate(works)]
    smoke.steps = lambda: steps  # type: ignore[method-assign]
    passed = smoke.run(keep=keep)
    return passed, [f"{result.step}: {result.result}, {result.what}" for result in smoke.results]


def test_all_steps_are_run_and_reported_also_those_that_the_emulator_cannot_do(smoke: Smoke) -> None:
    passed, printed = run(smoke, lambda: "done", raising(CannotError("no CodeDeploy")), lambda: "done as well")
    assert passed
    assert printed == [
        "step 0: ok, done",
        "step 1: left out, no CodeDeploy",
        "step 2: ok, done as well",
        "delete all: ok, all",
    ]


@pytest.mark.parametrize("error", [FailedError("2 records"), KeyError("body"), OSError("refused")])
def test_nothing_comes_after_a_step_that_failed_but_the_deletion(smoke: Smoke, error: Exception) -> None:
    passed, printed = run(smoke, raising(error), lambda: "never")
    assert not passed
    assert printed == [f"step 0: failed, {type(error).__name__}: {error}", "delete all: ok, all"]


def test_it_has_failed_if_not_all_could_be_deleted(smoke: Smoke) -> None:
    smoke.delete = raising(FailedError("left: 2 tables"))  # type: ignore[method-assign]
    passed, printed = run(smoke, lambda: "done")
    assert not passed
    assert printed[-1] == "delete all: failed, FailedError: left: 2 tables"


def test_nothing_is_deleted_when_it_is_to_be_kept(smoke: Smoke) -> None:
    assert run(smoke, lambda: "done", keep=True) == (True, ["step 0: ok, done"])


@pytest.mark.parametrize(("stack", "stage"), [("crm-bridge-smoke", "smoke-crm-bridge-smo"), ("S1", "smoke-s1")])
def test_its_stage_is_its_own_and_one_that_the_template_takes(smoke: Smoke, stack: str, stage: str) -> None:
    smoke.stack = stack
    assert smoke.stage == stage

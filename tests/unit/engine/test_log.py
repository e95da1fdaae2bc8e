"""The log lines and the metrics of the engine."""

import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest

from crm_bridge.engine import POLICY
from crm_bridge.errors import (
    CannotLookError,
    MaybeDoneError,
    NotDoneError,
    RefusedError,
    SignInRefusedError,
    StorageError,
)
from crm_bridge.storage.operation import State, operation_id
from crm_bridge.telemetry import add_to_log, bind_log, logger
from tests.unit.engine.conftest import Bench, World, failing, raising


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


def test_logs_whose_operation_it_retries(bench: Bench, log: StringIO) -> None:
    bench.run(later=True)
    bind_log()
    bench.retry()
    (line,) = lines(log, "operation")
    told = (line["tenant"], line["flow"], line["operation_id"])
    assert told == ("acme", "orders", operation_id("acme", "orders", "1"))


def test_whatever_is_logged_after_it_was_accepted_names_it(bench: Bench, log: StringIO) -> None:
    bind_log()
    bench.run(later=True)
    logger().info("answered")
    assert lines(log, "answered")[0]["operation_id"] == operation_id("acme", "orders", "1")


def test_logs_its_own_id_after_another_was_sent_in_between(bench: Bench, log: StringIO) -> None:
    bench.shop.during = lambda: add_to_log(operation_id="another")
    bench.run()
    assert lines(log, "operation")[0]["operation_id"] == operation_id("acme", "orders", "1")


def test_counts_a_refusal_that_nobody_waits_for(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.run(later=True)
    bench.shop.answers = [failing(RefusedError)]
    bench.retry()
    assert {"RefusedLater": [1.0], "flow": "orders"} in metrics(capsys)


def test_counts_no_refusal_when_it_is_done_later_or_somebody_waits(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.run(later=True)
    bench.retry()
    bench.shop.answers = [failing(RefusedError)]
    bench.run("2")
    assert not [one for one in metrics(capsys) if "RefusedLater" in one]


def test_counts_a_refused_sign_in(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.shop.answers = [failing(SignInRefusedError)]
    bench.run()
    assert {"SignInRefused": [1.0], "vendor": "shop"} in metrics(capsys)


def test_tells_the_ids_that_would_be_lost_when_it_cannot_be_settled(
    bench: Bench, log: StringIO, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.tables.operations, "save", raising(StorageError("down")))
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
        bench.retry()

    bench.shop.during = take_over
    outcome = bench.run()
    assert outcome.operation == bench.stored()
    assert (bench.stored().state, outcome.result) == (State.NEEDS_REVIEW, None)
    assert lines(log, "not settled")[0]["made"] == ["shop receipt 101"]


def test_logs_and_counts_what_a_person_decided(
    in_review: Bench, log: StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    in_review.discard(in_review.stored(), by="ops")
    (line,) = lines(log, "resolved")
    assert (line["event"], line["state"]) == ("discarded", "rejected")
    assert metrics(capsys) == [{"Operations": [1.0], "flow": "orders", "state": "rejected"}]


@pytest.mark.parametrize(
    ("lose", "reason"),
    [
        (lambda shop: setattr(shop, "hits", failing(CannotLookError)), "in doubt"),
        (
            lambda shop: setattr(shop, "answers", [failing(NotDoneError) for _ in range(POLICY.last_try)]),
            "out of attempts",
        ),
    ],
)
def test_what_it_needs_review_for_is_counted_once(
    bench: Bench, capsys: pytest.CaptureFixture[str], lose: Callable[[World], None], reason: str
) -> None:
    bench.shop.answers = [failing(MaybeDoneError if reason == "in doubt" else NotDoneError)]
    bench.run()
    lose(bench.shop)
    while bench.stored().state is not State.NEEDS_REVIEW:
        bench.wait_until_due()
        bench.retry()
    out = capsys.readouterr().out
    assert out.count('"NeedsReview":[1.0]}') == out.count(f'"reason":"{reason}"') == 1

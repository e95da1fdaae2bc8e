"""The queue entry: which messages come again, and what is not mixed or repeated on the way."""

import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from threading import Barrier
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aws_lambda_powertools.utilities.batch import BatchProcessor

from crm_bridge.errors import StorageError
from crm_bridge.inbound import worker
from crm_bridge.inbound.worker import consume

CONTEXT: Any = SimpleNamespace(aws_request_id="r-1", get_remaining_time_in_millis=lambda: 29_000)
FLOW: Any = SimpleNamespace(name="create_site")


class Engine:
    """Fails on the operations of `failing`. `together` lets several threads be in the middle of their batch at once."""

    def __init__(self, failing: Sequence[str] = (), error: Exception | None = None, parties: int = 1) -> None:
        self.failing = failing
        self.error = error or ValueError("of customer Wanjiku")
        self.together = Barrier(parties)
        self.seen: list[tuple[str, int | None]] = []

    def retry(self, _: object, operation_id: str, *, tenant: str, deadline: object, lent_until: int | None) -> object:
        assert deadline
        assert tenant == "acme"
        self.together.wait()
        self.seen.append((operation_id, lent_until))
        if operation_id in self.failing:
            raise self.error
        return object()


def batch(*operations: str) -> dict[str, Any]:
    bodies = [(one, json.dumps({"operation_id": one, "tenant": "acme"})) for one in operations]
    return {"Records": [{"messageId": f"m-{one}", "body": body} for one, body in bodies]}


def failed(event: dict[str, Any], engine: Engine) -> list[str]:
    response = cast("Any", consume(event, CONTEXT, cast("Any", engine), "orders", {}))
    assert set(response) == {"batchItemFailures"}
    return [one["itemIdentifier"] for one in response["batchItemFailures"]]


def test_only_the_message_that_failed_comes_again() -> None:
    engine = Engine(failing=["b"])
    assert failed(batch("a", "b", "c"), engine) == ["m-b"]
    assert [seen for seen, _ in engine.seen] == ["a", "b", "c"]
    assert failed(batch("a"), Engine()) == []


def test_the_invocation_does_not_fail_when_the_whole_batch_does() -> None:
    assert failed(batch("a", "b"), Engine(failing=["a", "b"])) == ["m-a", "m-b"]


@pytest.mark.parametrize("body", ["", "{", "[]", "null", "{}", '"op"', "\ud800", '{"operation_id": "a"}'])
def test_a_message_that_cannot_be_read_comes_again_and_the_others_do_not(body: str) -> None:
    event = batch("a", "b")
    event["Records"][0]["body"] = body
    engine = Engine()
    assert failed(event, engine) == ["m-a"]
    assert [seen for seen, _ in engine.seen] == ["b"]


def test_a_message_says_until_when_its_operation_is_lent() -> None:
    engine = Engine()
    body = '{"operation_id": "a", "tenant": "acme", "lent_until": 17}'
    event = {"Records": [{"messageId": "m-1", "body": body}]}
    failed(event, engine)
    assert engine.seen == [("a", 17)]


def test_nothing_of_one_batch_is_in_the_response_to_the_next() -> None:
    assert failed(batch("a"), Engine(failing=["a"])) == ["m-a"]
    assert failed(batch("b"), Engine()) == []
    assert failed(batch("c"), Engine(failing=["c"])) == ["m-c"]


def test_two_threads_do_not_mix_their_batches() -> None:
    engine = Engine(failing=["x-0", "x-1"], parties=2)
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda n: failed(batch(f"a-{n}", f"x-{n}", f"b-{n}"), engine), range(2))
        assert list(found) == [["m-x-0"], ["m-x-1"]]


@pytest.mark.parametrize("error", [ValueError("of customer Wanjiku"), StorageError("of customer Wanjiku")])
def test_no_text_of_an_error_is_in_what_the_processor_collects(
    error: Exception, log: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where POWERTOOLS_DEBUG lets Powertools log what it does."""
    made: list[BatchProcessor] = []

    def processor(*arguments: Any, **options: Any) -> BatchProcessor:
        made.append(BatchProcessor(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(worker, "BatchProcessor", processor)
    debug = StringIO()
    powertools = logging.getLogger("aws_lambda_powertools")
    monkeypatch.setattr(powertools, "handlers", [logging.StreamHandler(debug)])
    monkeypatch.setattr(powertools, "level", logging.DEBUG)
    powertools.manager._clear_cache()  # type: ignore[attr-defined]
    assert failed(batch("a"), Engine(failing=["a"], error=error)) == ["m-a"]
    ((_, collected, _),) = made[0].exceptions
    assert "Wanjiku" not in f"{collected!r}{collected}{log.getvalue()}{debug.getvalue()}"
    assert "Record processing exception" in debug.getvalue()

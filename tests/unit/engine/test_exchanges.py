"""The calls of an attempt are stored with it, for as long as the tenant wants."""

import json
from contextlib import suppress
from typing import Any

import pytest

from crm_bridge.engine import POLICY
from crm_bridge.errors import Event, MaybeDoneError, NotDoneError, RefusedError
from crm_bridge.storage.exchanges import Exchange
from tests.unit.engine.conftest import Bench, Receipt, failing

DAY = 86_400
ERRORS: dict[str, Exception] = {
    "refused": failing(RefusedError),
    "not done": failing(NotDoneError),
    "defect": ZeroDivisionError("a defect"),
}


def called(flow: Any, *_: object) -> Receipt:
    """Stands in the place of what a flow does: calls the vendor once, and fails in the way that the event names."""
    key = flow.context.operation.event_key
    status = 503 if key in ERRORS else 201
    flow.context.calls.add("POST", "/orders", status, 9, secrets=(), request=b"{}", response=None)
    if key in ERRORS:
        raise ERRORS[key]
    return Receipt(receipt=101)


def let_keep(bench: Bench, days: int) -> None:
    settings = {"illu": {"org_id": 88, "api_key": "illu-key-1"}, "keep_exchanges_days": days}
    bench.tables.put_secret("acme", json.dumps(settings))


def exchanges(bench: Bench, number: str, *, after: int = 0) -> list[Exchange]:
    """Return what is left of them so many seconds after they were stored."""
    stored = bench.stored(number)
    return bench.tables.operations.exchanges.of(stored, stored.updated_at + after)


@pytest.mark.parametrize("kind", list(ERRORS))
@pytest.mark.parametrize("what", ["send", "find"])
def test_those_of_an_attempt_that_failed_are_stored(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str, what: str
) -> None:
    if what == "find":
        bench.shop.answers = [failing(MaybeDoneError)]
    bench.run(kind, later=what == "send")
    bench.wait_until_due(kind)
    monkeypatch.setattr(bench.flow, what, called)
    with suppress(ZeroDivisionError):
        bench.retry(kind)
    (exchange,) = exchanges(bench, kind)
    assert [(one.method, one.path) for one in exchange.calls] == [("POST", "/orders")]
    stored = bench.stored(kind)
    assert (exchange.at, exchange.event, exchange.request) == (stored.updated_at, stored.attempts[-1].event, "{}")


def test_each_attempt_has_its_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.flow, "send", called)
    bench.run("not done")
    for number in (2, 3):
        bench.wait_until_due("not done")
        bench.retry("not done")
        assert bench.stored("not done").exchanges == number
    assert len(exchanges(bench, "not done")) == 3


@pytest.mark.parametrize("days", [0, 3, 90])
def test_those_that_failed_are_kept_for_thirty_days_or_longer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    let_keep(bench, days)
    monkeypatch.setattr(bench.flow, "send", called)
    bench.run("not done")
    kept = max(days * DAY, POLICY.keep_failed)
    assert len(exchanges(bench, "not done", after=kept - 1)) == 1
    assert exchanges(bench, "not done", after=kept) == []


@pytest.mark.parametrize("days", [1, 3])
def test_those_that_succeeded_are_kept_without_bodies_if_the_tenant_wants_that(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    let_keep(bench, days)
    monkeypatch.setattr(bench.flow, "send", called)
    bench.run("done")
    (exchange,) = exchanges(bench, "done", after=days * DAY - 1)
    assert (exchange.event, exchange.calls[0].status, exchange.request) == (Event.DONE, 201, None)
    assert exchanges(bench, "done", after=days * DAY) == []


def test_nothing_is_kept_of_an_attempt_that_succeeded_otherwise(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.flow, "send", called)
    bench.run("done")
    assert (bench.stored("done").exchanges, exchanges(bench, "done")) == (None, [])


def test_nothing_is_kept_when_nobody_was_called(bench: Bench) -> None:
    bench.shop.answers = [failing(NotDoneError)]
    bench.run()
    assert bench.stored().exchanges is None

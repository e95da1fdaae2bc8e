"""The webhooks that a tenant is sent, and when."""

import pytest

from crm_bridge.errors import NotDoneError, RefusedError, VendorError
from crm_bridge.storage.operation import State
from tests.unit.engine.conftest import Bench, failing, webhooks


def test_a_tenant_is_not_told_what_the_caller_was_answered(told: Bench) -> None:
    told.run()
    told.shop.answers = [failing(RefusedError)]
    told.run("2")
    assert webhooks(told) == []


@pytest.mark.parametrize(
    ("answers", "type_"), [([], "operation.succeeded"), ([failing(RefusedError)], "operation.rejected")]
)
def test_a_tenant_is_told_when_it_settles_later(told: Bench, answers: list[VendorError | None], type_: str) -> None:
    assert told.run(later=True).operation.notifies
    told.shop.answers = [failing(NotDoneError), *answers]
    told.retry()
    assert webhooks(told) == []
    told.wait_until_due()
    told.retry()
    assert webhooks(told) == [type_]


def test_a_tenant_is_told_what_needed_review_at_once_and_what_a_person_made_of_it(told: Bench) -> None:
    told.run("other")
    told.shop.sent.clear()
    told.run()
    assert webhooks(told) == ["operation.needs_review"]
    told.engine.request_retry(told.stored(), by="ops")
    assert webhooks(told) == ["operation.needs_review"]
    told.retry()
    assert webhooks(told) == ["operation.needs_review", "operation.succeeded"]
    told.engine.withdraw(told.stored(), by="ops")
    assert webhooks(told) == ["operation.needs_review", "operation.succeeded"]


@pytest.mark.parametrize(("decide", "type_"), [("link", "operation.succeeded"), ("discard", "operation.rejected")])
def test_a_tenant_is_told_what_a_person_decided(told: Bench, decide: str, type_: str) -> None:
    told.run(later=True)
    told.tables.operations.save(told.stored().model_copy(update={"state": State.NEEDS_REVIEW}), over=State.WAITING)
    if decide == "link":
        told.link_existing(told.stored(), "7", by="ops")
    else:
        told.discard(told.stored(), by="ops")
    assert webhooks(told) == [type_]


def test_a_tenant_that_names_no_address_is_not_told(bench: Bench) -> None:
    assert not bench.run(later=True).operation.notifies
    bench.retry()
    assert webhooks(bench) == []

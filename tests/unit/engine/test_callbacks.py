"""The callbacks that a tenant is sent, and when."""

import pytest

from crm_bridge.errors import NotDoneError, RefusedError, VendorError
from crm_bridge.operations import State
from tests.unit.engine.conftest import Bench, callbacks, failing


def test_a_tenant_is_not_told_what_the_caller_was_answered(told: Bench) -> None:
    told.run()
    told.shop.answers = [failing(RefusedError)]
    told.run("2")
    assert callbacks(told) == []


@pytest.mark.parametrize(
    ("answers", "type_"), [([], "operation.succeeded"), ([failing(RefusedError)], "operation.rejected")]
)
def test_a_tenant_is_told_when_it_settles_later(told: Bench, answers: list[VendorError | None], type_: str) -> None:
    assert told.run(later=True).operation.is_told
    told.shop.answers = [failing(NotDoneError), *answers]
    told.redeliver()
    assert callbacks(told) == []
    told.wait_until_due()
    told.redeliver()
    assert callbacks(told) == [type_]


def test_a_tenant_is_told_what_was_parked_at_once_and_what_a_person_made_of_it(told: Bench) -> None:
    told.run("other")
    told.shop.sent.clear()
    told.run()
    assert callbacks(told) == ["operation.parked"]
    told.engine.resend(told.stored(), by="ops")
    assert callbacks(told) == ["operation.parked"]
    told.redeliver()
    assert callbacks(told) == ["operation.parked", "operation.succeeded"]
    told.engine.withdraw(told.stored(), by="ops")
    assert callbacks(told) == ["operation.parked", "operation.succeeded"]


@pytest.mark.parametrize(("decide", "type_"), [("adopt", "operation.succeeded"), ("abandon", "operation.rejected")])
def test_a_tenant_is_told_what_a_person_decided(told: Bench, decide: str, type_: str) -> None:
    told.run(later=True)
    told.tables.operations.save(told.stored().model_copy(update={"state": State.PARKED}), over=State.WAITING)
    if decide == "adopt":
        told.adopt(told.stored(), "7", by="ops")
    else:
        told.engine.abandon(told.stored(), by="ops")
    assert callbacks(told) == [type_]


def test_a_tenant_that_names_no_address_is_not_told(bench: Bench) -> None:
    assert not bench.run(later=True).operation.is_told
    bench.redeliver()
    assert callbacks(bench) == []

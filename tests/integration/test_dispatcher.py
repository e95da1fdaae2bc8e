"""The dispatcher: what is due gets onto its flow's queue, whatever else is wrong."""

import pytest

from crm_bridge.errors import StorageError
from crm_bridge.operations import Operation, Operations, State, operation_id
from crm_bridge.runtime import runtime
from local.vendors.simulator import Kind
from tests.integration.conftest import Crm


def _due(crm: Crm, customers: int) -> None:
    """Operations of so many customers, waiting and due."""
    crm.stack.illu.fail(Kind.UNAVAILABLE, times=customers)
    for number in range(customers):
        assert crm.create_site(customer_id=f"C-{number}", name=f"Shop {number}").status_code == 202
    crm.stack.move_clock(60)


def test_dispatches_all_that_is_due_and_nothing_else(crm: Crm) -> None:
    _due(crm, 25)
    crm.stack.illu.fail(Kind.TOO_MANY, seconds=3600)
    assert crm.create_site(customer_id="later").status_code == 202
    assert crm.stack.invoke("DispatcherFunction", {}) == {"create_site": 25}
    crm.stack.deliver_due()
    assert len(crm.stack.illu.sites) == 25
    assert crm.stack.invoke("DispatcherFunction", {}) == {}


def test_carries_an_operation_once_when_it_is_on_the_queue_twice(crm: Crm) -> None:
    _due(crm, 1)
    for _ in range(3):
        crm.stack.invoke("DispatcherFunction", {})
    crm.stack.deliver_due()
    assert len(crm.stack.illu.sites) == 1
    assert len(crm.stack.illu.seen) == 2


def test_dispatches_the_others_when_one_belongs_to_a_flow_without_a_queue(
    crm: Crm, capsys: pytest.CaptureFixture[str]
) -> None:
    _due(crm, 3)
    now = int(runtime().clock()) - 1
    orphan = Operation(
        operation_id=operation_id("demo", "gone", "1"),
        tenant="demo",
        flow="gone",
        natural_key="1",
        state=State.WAITING,
        fingerprint="",
        due_at=now,
        created_at=now,
        updated_at=now,
    )
    runtime().operations.create(orphan, over=[State.REJECTED])
    assert crm.stack.invoke("DispatcherFunction", {}) == {"create_site": 3, "gone": 0}
    assert '"NotDispatched":[1.0]' in capsys.readouterr().out


def test_dispatches_the_others_when_a_shard_cannot_be_read(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    _due(crm, 20)
    real = Operations.due
    unread = operation_id("demo", "create_site", "C-0")[-1]
    hidden = sum(operation_id("demo", "create_site", f"C-{number}")[-1] == unread for number in range(20))

    def due(self: Operations, shard: str, now: int, limit: int) -> list[tuple[str, str]]:
        if shard == unread:
            raise StorageError("throttled")
        return real(self, shard, now, limit)

    with monkeypatch.context() as patch:
        patch.setattr(Operations, "due", due)
        assert crm.stack.invoke("DispatcherFunction", {}) == {"create_site": 20 - hidden}
    assert hidden >= 1

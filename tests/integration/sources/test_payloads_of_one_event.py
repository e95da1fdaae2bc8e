"""A request of many payloads of one event ends in its time."""

from typing import Any

import pytest

from crm_bridge.engine import Engine
from crm_bridge.errors import StorageError
from crm_bridge.outbound.transport import Deadline
from tests.integration.sources.conftest import Sender, company


def test_payloads_of_one_event_are_not_stored_after_the_deadline(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted: list[object] = []
    accept = Engine.accept
    monkeypatch.setattr(Deadline, "remaining", lambda _: 0.0 if len(accepted) >= 3 else 10.0)

    def counted(self: Engine, *arguments: Any, **more: Any) -> Any:
        accepted.append(arguments)
        return accept(self, *arguments, **more)

    monkeypatch.setattr(Engine, "accept", counted)
    response = sender.send(*[company(1, name=f"Shop {number}") for number in range(20)])
    assert response.status_code == 503
    assert len(accepted) == 3


def test_the_first_is_handed_over_if_a_later_payload_cannot_be_noted(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, calls = Engine.accept, []

    def once(self: Engine, *arguments: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise StorageError("down")
        return accept(self, *arguments, **more)

    monkeypatch.setattr(Engine, "accept", once)
    assert sender.send(company(1), company(1, name="Other")).status_code == 503
    monkeypatch.undo()
    sender.crm.stack.deliver()  # without the dispatcher
    assert len(sender.sites) == 1

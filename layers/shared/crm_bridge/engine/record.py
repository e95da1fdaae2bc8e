"""What the engine writes into an operation's record."""

from collections.abc import Sequence

from pydantic import BaseModel

from crm_bridge.engine.policy import KEEP_ATTEMPTS
from crm_bridge.errors import Event
from crm_bridge.storage.links import Identity, Link
from crm_bridge.storage.operation import Attempt, Operation
from crm_bridge.words import plain_json


def with_attempt(
    operation: Operation, event: Event, now: int, reason: str = "", status: int | None = None
) -> Operation:
    """Return the operation with one attempt more; of KEEP_ATTEMPTS the oldest is dropped."""
    attempt = Attempt(at=now, event=event, reason=reason, status=status)
    attempts = (*operation.attempts[1 - KEEP_ATTEMPTS :], attempt)
    return operation.model_copy(update={"attempts": attempts, "last_attempt": attempt})


def stored_result(result: BaseModel) -> str:
    """Return what is stored of a result, as JSON: the fields that its flow declares.

    Those that the vendor added may be a customer's name or address, which the bridge does not store.
    """
    return plain_json(result.model_dump_json(exclude=set(result.model_extra or ())))


def stored_links(links: Sequence[Link]) -> tuple[tuple[Identity, Identity], ...]:
    return tuple([(link.left, link.right) for link in links])


def is_elsewhere(operation: Operation, account: str) -> bool:
    """Return whether it was sent, or was to be sent, to another account than the tenant's settings name now.

    An operation that a person lets begin anew has no account, so it goes to the present one.
    """
    return operation.sent_to not in (None, account)

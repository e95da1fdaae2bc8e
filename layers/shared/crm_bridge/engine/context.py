"""What a flow may use during one run besides its vendor: settings, our own tables, and other events."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from pydantic import BaseModel

from crm_bridge.engine.settling import Ending, Together
from crm_bridge.engine.states import DUE
from crm_bridge.errors import (
    ErasedError,
    Event,
    MissingError,
    NeedlessError,
    NotDoneError,
    NotYetError,
    RefusedError,
    RunningError,
    UnavailableError,
)
from crm_bridge.flow import Flow, Need
from crm_bridge.outbound.calls import Calls
from crm_bridge.outbound.transport import SHORTEST_CALL, Deadline, Scope
from crm_bridge.services import Services
from crm_bridge.settings import Tenant
from crm_bridge.storage.links import Links
from crm_bridge.storage.operation import Operation, State
from crm_bridge.storage.operations import Operations

if TYPE_CHECKING:
    from crm_bridge.engine.engine import Engine


AFTER_THE_OTHER = 5
"""Seconds after which an event follows the one that it waits for, if that one does not wake it."""


class Required[ResultT](NamedTuple):
    """The result of another event, and whether this very run has made it."""

    result: ResultT
    is_new: bool


class Context:
    """One run of a flow for a tenant: an event that is sent or looked for, or a question to the vendor.

    `operation` is the operation of the event, if there is one. `ending` is what the flow writes when it is settled.
    `calls` are those of the vendor in this run.
    """

    def __init__(
        self, engine: "Engine", flow: type[Flow[Any, Any, Any]], tenant: str, deadline: Deadline, services: Services
    ) -> None:
        self._engine = engine
        self._flow = flow
        self._settings: Tenant | None = None
        self.tenant = tenant
        self.deadline = deadline
        self.services = services
        self.operation: Operation | None = None
        self.ending: Ending | None = None
        self.calls = Calls(services.clock)

    @property
    def settings(self) -> Tenant:
        """The part of the tenant's settings that the flow needs, read when it is first asked for.

        Raises NotConfiguredError, StorageError.
        """
        if self._settings is None:
            self._settings = self._engine.tenants.get(self.tenant, self._flow.function)
        return self._settings

    def read_settings_again(self) -> bool:
        """Read the settings past the cache; return whether they have changed."""
        before = self.settings
        self._settings = self._engine.tenants.get(self.tenant, self._flow.function, fresh=True)
        return self._settings != before

    @property
    def scope(self) -> Scope:
        """Return the key of all that is cached of the vendor: the tenant, and this version of its settings."""
        return Scope(self.tenant, self.settings.version)

    @property
    def operations(self) -> Operations:
        return self.services.operations

    @property
    def links(self) -> Links:
        return self.services.links

    @property
    def clock(self) -> Callable[[], float]:
        """Epoch seconds."""
        return self.services.clock

    def require[C: BaseModel, R: BaseModel](
        self, need: Need[C, R], *, read: Mapping[str, Operation | None] = MappingProxyType({}), is_last: bool = False
    ) -> Required[R]:
        """Return the result of another event, which is sent now if it was not sent before.

        `read` are operations that this run has read just now, by their ids: that one is not read again if it is there.
        `is_last`: this event calls no vendor after that one, so both are settled in one transaction.

        Raises NotYetError if it is not done yet: then this event waits, and is sent right after it. Raises MissingError
        if nobody has sent it; RefusedError or NeedlessError if it will not be done; NotDoneError; StorageError.
        """
        vendor, operation_id = need.flow.vendor.name, need.operation_id(self.tenant)
        if self.operation and self.operation.operation_id == operation_id:
            raise RefusedError(f"{need.what} needs itself", vendor=vendor)
        if need.command is not None and self.deadline.remaining() < 2 * SHORTEST_CALL:
            raise NotDoneError(f"no time was left to make {need.what} first", vendor=vendor)
        there = read[operation_id] if operation_id in read else self.operations.get(operation_id)
        if need.command is None:
            if there and there.state in DUE | {State.NEEDS_REVIEW}:
                self.wait_for(there, _not_there(need, there), vendor=vendor)
            raise MissingError(need.if_missing, vendor=vendor)
        if there and _was_discarded(there, need.since):
            kind = NeedlessError if self._flow.is_repeatable else RefusedError
            raise kind(f"a person discarded {need.what}; send its event again", vendor=vendor)
        if there and there.state in DUE and not there.is_undone:  # this event would wait for it
            self._engine.retry(
                {need.flow.name: need.flow},
                operation_id,
                tenant=self.tenant,
                deadline=self.deadline,
                lent_until=there.lent_until,
            )
        try:
            outcome = self._engine.run(
                need.flow,
                need.command,
                tenant=self.tenant,
                deadline=self.deadline,
                over_undone=need.replaces,
                settles=not is_last,
                notes_changed=False,
            )
        except (RunningError, UnavailableError):
            raise NotYetError(f"{need.what} is being made", vendor=vendor, waits_for=operation_id) from None
        except ErasedError:
            raise RefusedError(f"the data of {need.what} were erased", vendor=vendor) from None
        operation, error = outcome.operation, outcome.error
        if operation.state is State.REJECTED:
            why = error.message if error else "it was refused"
            status = error.status if error else None
            raise RefusedError(f"{need.what}: {why}", vendor=vendor, status=status) from error
        if operation.state is not State.SUCCEEDED or operation.result is None:
            why = _not_there(need, operation) + (f": {error.message}" if error else "")
            is_in_doubt = outcome.ran and operation.state is State.UNCONFIRMED
            self.wait_for(operation, why, vendor=vendor, is_in_doubt=is_in_doubt)
        if outcome.unsettled:
            self.ending = Together(outcome.unsettled, self.ending)
        return Required(need.flow.result.model_validate_json(operation.result), outcome.ran)

    def wait_for(self, other: Operation, why: str, *, vendor: str | None = None, is_in_doubt: bool = False) -> NoReturn:
        """Raise NotYetError: `other` comes first. This event is sent right after it.

        `vendor` is the other's, if that is not this flow's: as long as it is down, waiting for it uses up no attempt.
        """
        raise NotYetError(
            why,
            vendor=vendor or self._flow.vendor.name,
            waits_for=other.operation_id,
            retry_after=max(0, (other.due_at or 0) - int(self.clock())) + AFTER_THE_OTHER,
            is_in_doubt=is_in_doubt,
        )


def _was_discarded(there: Operation, since: int | None) -> bool:
    """Return whether a person discarded it, and did not do so before `since` (epoch microseconds)."""
    last = there.attempts[-1].event if there.attempts else None
    if there.state is not State.REJECTED or last is not Event.DISCARDED:
        return False
    return since is None or (there.updated_at + 1) * 1_000_000 > since


def _not_there(need: Need[Any, Any], there: Operation) -> str:
    return f"{need.what} is not there yet ({there.state})"

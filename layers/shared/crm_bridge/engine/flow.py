"""What the engine needs of a flow and of a vendor's client, and what it returns to a caller."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import BaseModel

from crm_bridge.errors import Event, VendorError
from crm_bridge.links import Link
from crm_bridge.operations import Claim, Operation
from crm_bridge.settings import Tenant
from crm_bridge.transport import Deadline, Transport

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef


@dataclass(frozen=True)
class Hit[ResultT]:
    """A record at the vendor that a command may have made. `created_at` is None where the vendor does not give it.

    A record is `certain` if it has exactly the values of the command: then it is linked; if another event with the same
    values made it, this event sends again. Any other record may be ours in an altered form: it is never linked by the
    bridge, but the command is not sent again while it is there. `id` and `name` let a person find it at the vendor.
    """

    result: ResultT
    created_at: datetime | None = None
    certain: bool = True
    id: str = ""
    name: str = ""


class Vendor(Protocol):
    """What the engine needs of any vendor's client."""

    @property
    def destination(self) -> str:
        """The account at the vendor that is written to, without a secret."""

    @property
    def search_lag(self) -> int:
        """Seconds after which a look-up is sure to find a new record."""


class Ending(Protocol):
    """What a flow writes in the transaction that settles its operation."""

    def writes(self, settled: Operation, event: Event) -> "Sequence[TransactWriteItemTypeDef]": ...

    def adapts(self, event: Event, there: Sequence[Mapping[str, Any] | None]) -> bool:
        """Return whether it has other writes for the items that the tables have instead (see OvertakenError)."""


@dataclass
class Task:
    """The operation that a flow works on, and what the flow writes when it settles."""

    operation: Operation | None = None
    ending: Ending | None = None


@runtime_checkable
class Tasked(Protocol):
    """A vendor's client of a flow that needs to know its task."""

    task: Task


@runtime_checkable
class Claiming(Tasked, Protocol):
    """A vendor's client whose flow writes something together with the claim or the acceptance of an operation."""

    def claim(self, command: Any, operation: Operation, *, later: bool) -> Claim:
        """Do what `Operations.create` does over the states REPLACEABLE. Raises StorageError."""


@runtime_checkable
class Discarding(Protocol):
    """A flow that has something to end when a person decides that an operation shall not be done."""

    def discarded(self, operation: Operation) -> Ending: ...


class Flow[CommandT: BaseModel, VendorT: Vendor, ResultT: BaseModel](Protocol):
    """One kind of event. It decides nothing about states, repeats or storage."""

    @property
    def name(self) -> str: ...

    @property
    def command(self) -> type[CommandT]: ...

    def vendor(self, tenant: str, settings: Tenant, transport: Transport, deadline: Deadline) -> VendorT:
        """Return the client of this tenant's vendor. Raises NotConfiguredError."""

    def key(self, command: CommandT) -> str:
        """Return the event key: what makes the event itself unique within tenant and flow."""

    def repeatable(self, command: CommandT) -> bool:
        """Return whether the command changes something that exists, so that to send it twice is harmless.

        Then it is never looked for, only sent again; and it is not sent to another account, where the same id is
        something else.
        """

    def send(self, command: CommandT, vendor: VendorT) -> ResultT | Hit[ResultT]:
        """Make one creating call, without a retry. Return its result, or the record that makes the call needless.

        Raises VendorError.
        """

    def find(self, command: CommandT, vendor: VendorT) -> Iterable[Hit[ResultT]]:
        """Return all records at the vendor that this command could have made, also if the vendor altered the texts.

        Raises VendorError, CannotLookError; NotShownError after the last record, if there may be others.
        """

    def link_existing(self, tenant: str, command: CommandT, vendor_id: str) -> ResultT:
        """Return the result of the command if it made the vendor's record with this id.

        Raises InvalidError, ConflictError.
        """

    def verify(self, command: CommandT, result: ResultT, vendor: VendorT) -> str | None:
        """Ask the vendor whether the record that a person named is the one in `result`.

        Return None if it is. If it differs in what a vendor may alter when it stores a record, return the difference:
        then only a person can decide. Raises InvalidError if there is no such record, or if it is another site's,
        pair's or person's; CannotLookError if the vendor cannot be asked; another VendorError if it did not respond.
        """

    def links(self, command: CommandT, result: ResultT) -> Sequence[Link]:
        """Return the links that exist once `result` is there."""


@dataclass(frozen=True)
class Outcome:
    """What a request or a retry came to. `carried` is true if this very call did the work.

    `result` is the whole result as JSON, if this call received it from the vendor; the operation keeps only the ids.
    `changed` is true if the same event was accepted before with another payload, so that this one was not sent.
    """

    operation: Operation
    carried: bool
    error: VendorError | None = None
    result: str | None = field(default=None, repr=False)
    changed: bool = False

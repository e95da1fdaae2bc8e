"""The base classes of flows. A flow is one kind of event of a CRM, and how it gets to a vendor.

A flow is one class, which names its command, its vendor and its result: `class CreateSite(Create[NewSite, Illu,
SiteCreated], name="create_site", route="POST /sites")`. Routes, queues, scopes and everything else that lists flows are
derived from these declarations. A flow decides nothing about states, repeats or storage; see `crm_bridge.engine`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import get_original_bases
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict

from crm_bridge.errors import ConflictError
from crm_bridge.fields import Input
from crm_bridge.outbound.vendor import Vendor
from crm_bridge.storage.links import Link
from crm_bridge.storage.operation import Operation, operation_id
from crm_bridge.storage.operations import Claim

if TYPE_CHECKING:
    from crm_bridge.engine.context import Context
    from crm_bridge.engine.settling import Ending


class Command(Input):
    """The input of a flow, as a caller gives it."""


class Result(BaseModel):
    """The base of what a flow stores and returns: the vendor's own members are kept as they came."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Kind(NamedTuple):
    """A kind of record: `Kind("crm", "customer")`."""

    system: str
    entity: str


@dataclass(frozen=True)
class Import:
    """A file of past events that `crm-bridge import NAME` sends by a flow, a row for each event."""

    name: str
    help: str
    id: str
    """The member of a result that is the new record's id."""
    row: type[BaseModel] | None = None
    """What a row is read as; None: the flow's command."""
    to_command: Callable[[Any], BaseModel] | None = None
    """Makes the command of a row, if that is something else."""
    as_json: tuple[str, ...] = ()
    """The columns of a CSV file that hold JSON."""
    calls: int = 1
    """Calls that a row takes at most. If the vendor limits calls, this decides how many rows are sent in a minute."""


@dataclass(frozen=True)
class FromSource:
    """How an event of a source (see `crm_bridge.sources`) becomes a command of a flow."""

    sent: type[BaseModel] | None = None
    """What a source's expression yields; None: the flow's command."""
    to_command: Callable[[Any, float], BaseModel] | None = None
    """Makes the command of that and of the time (epoch seconds), if it is something else. Raises InvalidError."""


class Update(NamedTuple):
    """Says whether an event that comes again with a different payload is applied."""

    applied: Literal["no", "if set", "yes"]
    """`if set`: only if the tenant's settings say so."""
    text: str
    """For people: why it is not applied, and what to do; or how it is applied. One or two sentences."""


@dataclass(frozen=True)
class Match[ResultT]:
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


class Flow[CommandT: BaseModel, VendorT: Vendor[Any], ResultT: BaseModel](ABC):
    """The base of `Create` and `Change`. One instance is one run; `key` and `links` work without a context too."""

    name: ClassVar[str]
    """Final: it is in the id of every operation of this flow."""
    function: ClassVar[str]
    """The Lambda function that runs it. Queue, scope, mapping and secret belong to the function."""
    route: ClassVar[str]
    """How a caller sends its event, as in `POST /sites`; empty if the function has a route of its own for that."""
    event_route: ClassVar[str]
    """`route`, or the route of its function's own that takes its event as a body; empty if there is none."""
    event_model: ClassVar[type[BaseModel]]
    """What a caller sends, or a mapping makes: the command, unless the function adds to it."""
    is_repeatable: ClassVar[bool]
    """Whether sending the same twice is harmless."""
    key_parts: ClassVar[tuple[str, ...]] = ()
    """What the parts of an event key are that is `joined`, for the people who read it; empty if it is one id."""
    key_says_all: ClassVar[bool] = False
    """Whether the event key holds all that the event says, so that the same event never says something else."""
    update: ClassVar[Update] = Update("no", "A later payload of the same event is not applied.")
    """What becomes of a later payload of the same event. Every flow that callers or sources reach says so itself."""
    success: ClassVar[int]
    """The HTTP status for a caller whose request did it."""
    about: ClassVar[Kind | None] = None
    """The kind of record that an event is about, if the event key is that record's id."""
    kinds: ClassVar[tuple[Kind, ...]] = ()
    """The kinds of records that lead to this flow's events when only an id is given."""
    imports: ClassVar[Import | None] = None
    """How past events are imported from a file."""
    from_source: ClassVar[FromSource | None] = None
    """How a source's events become commands; None: no source reaches this flow. A flow with a `claim` of its own cannot
    be reached by one."""
    command: type[CommandT]
    vendor: type[VendorT]
    result: type[ResultT]

    def __init_subclass__(cls, *, name: str = "", function: str = "", route: str = "") -> None:
        """`function` is the flow's name, if it is not given. A class without a `name` is only a base of flows."""
        super().__init_subclass__()
        if name:
            declared = next(args for base in get_original_bases(cls) if len(args := get_args(base)) == 3)
            cls.name, cls.function, cls.route = name, function or name, route
            cls.command, cls.vendor, cls.result = declared
            cls.event_route = vars(cls).get("event_route", route)
            cls.event_model = vars(cls).get("event_model", cls.command)

    def __init__(self, context: "Context | None" = None) -> None:
        self._context = context

    @property
    def context(self) -> "Context":
        """Return what this run may use besides the vendor."""
        assert self._context, "this flow was made without a context"
        return self._context

    @classmethod
    def operation_id(cls, tenant: str, key: str) -> str:
        """Return the id of the operation of the event with this key."""
        return operation_id(tenant, cls.name, key)

    @abstractmethod
    def key(self, command: CommandT) -> str:
        """Return the event key: what makes the event itself unique within tenant and flow."""

    @abstractmethod
    def send(self, command: CommandT, vendor: VendorT) -> ResultT | Match[ResultT]:
        """Make one changing call, without a retry. Return its result, or the record that makes the call needless.

        Raises VendorError.
        """

    def account(self, vendor: VendorT) -> str:
        """Return what must be the same when an event is looked for, or a change is repeated: at another account the
        same id is something else."""
        return vendor.destination

    def links(self, command: CommandT, result: ResultT) -> Sequence[Link]:  # noqa: ARG002 - for those who link nothing
        """Return the links that exist once `result` is there."""
        return ()

    def claim(self, command: CommandT, operation: Operation, *, later: bool) -> Claim | None:  # noqa: ARG002
        """Store a new operation together with something else; None: there is nothing else to store.

        Does what `Operations.create` does over the states REPLACEABLE. Raises StorageError.
        """
        return None

    def discarded(self, operation: Operation) -> "Ending | None":  # noqa: ARG002
        """Return what is written when a person decides that the operation shall not be done."""
        return None


class Create[CommandT: BaseModel, VendorT: Vendor[Any], ResultT: BaseModel](Flow[CommandT, VendorT, ResultT]):
    """A flow that makes a record at the vendor. It is never sent again without a look-up."""

    is_repeatable = False
    success = 201

    @abstractmethod
    def find(self, command: CommandT, vendor: VendorT) -> Iterable[Match[ResultT]]:
        """Return all records at the vendor that this command could have made, also if the vendor altered the texts.

        Raises VendorError, CannotLookError; IncompleteSearchError after the last record, if there may be others.
        """

    def existing(self, command: CommandT, record_id: str) -> ResultT:  # noqa: ARG002 - for those who have none
        """Return the result of the command if it made the vendor's record with this id, which a person found.

        Raises InvalidError, ConflictError.
        """
        raise ConflictError("The record of this event cannot be linked by hand. Retry or discard it.")

    def verify(self, command: CommandT, result: ResultT, vendor: VendorT) -> str | None:  # noqa: ARG002 - for the same
        """Ask the vendor whether the record that a person named is the one in `result`.

        Return None if it is. If it differs in what a vendor may alter when it stores a record, return the difference:
        then only a person can decide. Raises InvalidError or NoSuchRecordError if it is surely the wrong one;
        CannotLookError if the vendor cannot be asked; another VendorError if it did not respond.
        """
        return f"Cannot check this id at {vendor.name}"


class Change[CommandT: BaseModel, VendorT: Vendor[Any], ResultT: BaseModel](Flow[CommandT, VendorT, ResultT]):
    """A flow that changes what exists: a status, an update, a deletion. It is never looked for, only sent again."""

    is_repeatable = True
    success = 200


@dataclass(frozen=True)
class Need[CommandT: BaseModel, ResultT: BaseModel]:
    """Another event that must have been done first, see `Context.require`."""

    flow: type[Flow[CommandT, Any, ResultT]]
    what: str
    """In messages: "the customer's site"."""
    command: CommandT | None = None
    """What is sent if the event has not arrived. None: it must arrive by itself."""
    key: str = ""
    """The event key, if there is no command."""
    if_missing: str = ""
    """The message for a caller if nobody has sent it."""
    since: int | None = None
    """When this event arrived (epoch microseconds): if a person discarded the other one before, it is sent again."""
    replaces: bool = False
    """Whether this command takes the place of one that waits and was surely never done."""

    def operation_id(self, tenant: str) -> str:
        """Return the id of the operation of that event."""
        key = self.key if self.command is None else self.flow().key(self.command)
        return self.flow.operation_id(tenant, key)

"""The decisions of status_update: which event it is, which service it means, whose turn it is, and what is too old."""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from crm_bridge.accounts import Accounts, Turns
from crm_bridge.engine import Hit, Task
from crm_bridge.errors import ConflictError, NoSuchRecordError, WrongFieldError
from crm_bridge.links import Link, joined
from crm_bridge.memory import Memory
from crm_bridge.operations import Operations
from crm_bridge.settings import Tenant
from crm_bridge.transport import Deadline, Scope, Transport
from crm_bridge.vendors.izzitup import VENDOR, IzzitUp, IzzitUpService, IzzitUpSettings, ServiceStatus
from status_update.models import UpdatedStatus, UpdateStatus

SERVICES_MAX_AGE = 60.0
SERVICES_MIN_AGE = 10.0
"""Seconds for which the services that are remembered are believed, and for which one is believed not to be there."""
SPACING = 1.0
"""Seconds from one call to the next: IzzitUp documents no limit, so it is treated gently."""


class StatusPage(Protocol):
    """What this flow needs of IzzitUp."""

    @property
    def address(self) -> str: ...

    def services(self) -> list[IzzitUpService]: ...

    def set_status(self, service_id: str, status: ServiceStatus) -> IzzitUpService | None: ...


@dataclass
class Statuses:
    """IzzitUp for one tenant within one deadline: one change at a time, in whichever function it is made."""

    page: StatusPage
    memory: Memory
    accounts: Accounts
    operations: Operations
    clock: Callable[[], float]
    tenant: str
    sign_in: str
    """Tells one version of the tenant's secret from another."""
    deadline: Deadline
    search_lag: int = 0
    task: Task = field(default_factory=Task)

    @property
    def destination(self) -> str:
        """A tenant has one status page, and a status is for it also when it has moved."""
        return "the tenant's status page"

    def services(self, max_age: float = SERVICES_MAX_AGE) -> list[IzzitUpService]:
        scope = Scope(self.tenant, self.sign_in)
        return self.memory.recall(scope, self.page.address, self.page.services, max_age=max_age)

    def service(self, wanted: str, *, fresh: bool = False) -> IzzitUpService:
        """By its key, else its name; a number is an id. Raises NoSuchRecordError, WrongFieldError."""
        if not fresh and wanted.isascii() and wanted.isdecimal():
            return IzzitUpService(id=str(int(wanted)), status="")
        for max_age in (0,) if fresh else (SERVICES_MAX_AGE, SERVICES_MIN_AGE):  # there may be a new one
            services = self.services(max_age)
            for member in ("key", "name"):
                hits = [one for one in services if _plain(getattr(one, member)) == _plain(wanted)]
                if len(hits) > 1:
                    message = f"several services have this {member}; name one by its id"
                    raise WrongFieldError(message, vendor=VENDOR, field="service")
                if hits:
                    return hits[0]
        keys = ", ".join(one.key or one.id for one in services if one.hidden != "1") or "none at all"
        raise NoSuchRecordError(f"IzzitUp: Service not found; there are {keys}", vendor=VENDOR)

    def set(self, service: IzzitUpService, status: ServiceStatus, order: int) -> IzzitUpService | None:
        """The service as it is then; None if something of a higher `order` was applied.

        Raises VendorError, StorageError.
        """
        changed = service.model_copy(update={"status": str(int(status))})
        return Turns(self.accounts, self.operations, self.clock, self.tenant, VENDOR, VENDOR, SPACING).apply(
            service.id,
            order,
            lambda: self.page.set_status(service.id, status) or changed,
            task=self.task,
            deadline=self.deadline,
            sign_in=self.sign_in,
        )


@dataclass(frozen=True)
class StatusUpdateFlow:
    memory: Memory
    accounts: Accounts
    operations: Operations
    clock: Callable[[], float]
    name: ClassVar[str] = "status_update"
    command: ClassVar[type[UpdateStatus]] = UpdateStatus

    def vendor(self, tenant: str, settings: Tenant, transport: Transport, deadline: Deadline) -> Statuses:
        page = IzzitUp(settings.require(IzzitUpSettings), transport, deadline)
        return Statuses(
            page, self.memory, self.accounts, self.operations, self.clock, tenant, settings.version, deadline
        )

    def key(self, command: UpdateStatus) -> str:
        return joined(command.service.casefold(), command.status.name.lower(), command.occurred_at.isoformat())

    def repeatable(self, command: UpdateStatus) -> bool:  # noqa: ARG002
        return True

    def send(self, command: UpdateStatus, vendor: Statuses) -> UpdatedStatus:
        service = vendor.service(command.service)
        try:
            updated = vendor.set(service, command.status, command.order)
        except NoSuchRecordError:  # it may have been made anew, or be meant by a key that is a number
            remembered, service = service, vendor.service(command.service, fresh=True)
            if service.id == remembered.id:
                raise
            updated = vendor.set(service, command.status, command.order)
        if updated:
            told = {**updated.model_dump(exclude_none=True), "status_name": command.status.name.lower()}
        else:
            told = {"id": service.id, "ignored": "older"}
        return UpdatedStatus.model_validate({**told, "occurred_at": command.occurred_at})

    def find(self, command: UpdateStatus, vendor: Statuses) -> Sequence[Hit[UpdatedStatus]]:  # noqa: ARG002
        return ()

    def link_existing(self, tenant: str, command: UpdateStatus, vendor_id: str) -> UpdatedStatus:  # noqa: ARG002
        raise ConflictError("A status is no record that could be linked. Send it again, or discard it.")

    def verify(self, command: UpdateStatus, result: UpdatedStatus, vendor: Statuses) -> str | None:  # noqa: ARG002
        return None  # `link` takes none

    def links(self, command: UpdateStatus, result: UpdatedStatus) -> Sequence[Link]:  # noqa: ARG002
        return ()


def _plain(text: str | None) -> str:
    return unicodedata.normalize("NFC", text or "").casefold()

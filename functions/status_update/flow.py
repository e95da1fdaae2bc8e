"""The decisions of status_update: which event it is, which service it means, whose turn it is, and what is too old."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Literal, Protocol

from crm_bridge.accounts import Account, Accounts
from crm_bridge.clients.izzitup import VENDOR, IzzitUpService, ServiceStatus, SignInFailedError, izzitup_client
from crm_bridge.engine import LEASE_MARGIN, Hit
from crm_bridge.errors import (
    ConflictError,
    ContractBrokenError,
    MaybeDoneError,
    NoSuchRecordError,
    NotDoneError,
    VendorError,
    WrongFieldError,
)
from crm_bridge.links import Link, joined
from crm_bridge.memory import Memory
from crm_bridge.tenants import Tenant
from crm_bridge.transport import SHORTEST_CALL, Deadline, Transport
from status_update.models import UpdatedStatus, UpdateStatus

SERVICES_MAX_AGE = 600.0
SERVICES_MIN_AGE = 10.0
"""Seconds for which the services that are remembered are believed, and for which one is believed not to be there."""
SPACING = 1.0
"""Seconds from one call to the next: IzzitUp documents no limit, so it is treated gently."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class StatusPage(Protocol):
    """What this flow needs of IzzitUp."""

    @property
    def destination(self) -> str: ...

    def services(self) -> list[IzzitUpService]: ...

    def set_status(self, service_id: str, status: ServiceStatus) -> IzzitUpService | None: ...


@dataclass(frozen=True)
class Statuses:
    """IzzitUp for one tenant within one deadline: one call at a time, in whichever function it is made."""

    page: StatusPage
    memory: Memory
    accounts: Accounts
    clock: Callable[[], float]
    tenant: str
    sign_in: str
    """Tells one version of the tenant's secret from another."""
    deadline: Deadline
    search_lag: int = 0

    @property
    def destination(self) -> str:
        return self.page.destination

    def services(self, max_age: float = SERVICES_MAX_AGE) -> list[IzzitUpService]:
        return self.memory.recall(self.destination, self.page.services, max_age=max_age)

    def service(self, wanted: str) -> IzzitUpService:
        """By its id, else its key, else its name. Raises NoSuchRecordError, WrongFieldError."""
        for max_age in (SERVICES_MAX_AGE, SERVICES_MIN_AGE):  # there may be a new one
            services = self.services(max_age)
            for member in ("id", "key", "name"):
                hits = [one for one in services if getattr(one, member).casefold() == wanted.casefold()]
                if len(hits) > 1:
                    message = f"several services have this {member}; name one by its id"
                    raise WrongFieldError(message, vendor=VENDOR, field="service")
                if hits:
                    return hits[0]
        if wanted.isdecimal():  # one that is hidden may be missing in the list, and can be set all the same
            return IzzitUpService(id=wanted, name="", status="")
        keys = ", ".join(one.key or one.id for one in services if one.hidden != "1") or "none at all"
        raise NoSuchRecordError(f"IzzitUp has no service of this id, key or name; there are {keys}", vendor=VENDOR)

    def set(
        self, service: IzzitUpService, status: ServiceStatus, occurred_at: int
    ) -> IzzitUpService | Literal["older"] | None:
        """Set a status when its turn has come, unless something newer was applied. `occurred_at`: epoch microseconds.

        Gives the service as IzzitUp tells it, if it does. Raises VendorError, StorageError.
        """
        holder = uuid.uuid4().hex
        if self._take_turn(holder).applied.get(service.id, 0) > occurred_at:
            self._end_turn(holder)
            return "older"
        try:
            updated = self.page.set_status(service.id, status)
        except VendorError as error:
            lost = isinstance(error, MaybeDoneError) and not isinstance(error, ContractBrokenError)
            if not lost:  # else the turn lasts until what was sent is surely over
                self._end_turn(holder, refused=self.sign_in if isinstance(error, SignInFailedError) else None)
            raise
        if not self._end_turn(holder, applied=(service.id, occurred_at)):
            raise MaybeDoneError("its turn was over before it was done", vendor=VENDOR)
        return updated

    def _take_turn(self, holder: str) -> Account:
        while True:
            now = self.clock()
            until = now + self.deadline.remaining() + LEASE_MARGIN
            account = self.accounts.take_turn(
                self.tenant,
                VENDOR,
                holder=holder,
                now=int(now * 1000),
                until=int(until * 1000),
                sign_in=self.sign_in,
            )
            if account.holder == holder:
                return account
            if account.refused == self.sign_in:
                raise SignInFailedError(
                    "IzzitUp refused this login. Status updates are paused until the tenant's secret changes",
                    vendor=VENDOR,
                )
            wait = max(0.05, account.busy_until / 1000 - now)
            if self.deadline.remaining() - wait < 2 * SHORTEST_CALL:
                raise NotDoneError("another status update is under way", vendor=VENDOR)
            time.sleep(min(wait, SPACING))

    def _end_turn(self, holder: str, *, applied: tuple[str, int] | None = None, refused: str | None = None) -> bool:
        free_at = int((self.clock() + SPACING) * 1000)
        return self.accounts.end_turn(
            self.tenant, VENDOR, holder=holder, free_at=free_at, applied=applied, refused=refused
        )


@dataclass(frozen=True)
class StatusUpdateFlow:
    memory: Memory
    accounts: Accounts
    clock: Callable[[], float]
    name: ClassVar[str] = "status_update"
    command: ClassVar[type[UpdateStatus]] = UpdateStatus

    def vendor(self, tenant: str, settings: Tenant, transport: Transport, deadline: Deadline) -> Statuses:
        page = izzitup_client(settings, transport, deadline)
        return Statuses(page, self.memory, self.accounts, self.clock, tenant, settings.version, deadline)

    def key(self, command: UpdateStatus) -> str:
        occurred_at = command.occurred_at.astimezone(UTC).isoformat()
        return joined(command.service.casefold(), command.status.name.lower(), occurred_at)

    def send(self, command: UpdateStatus, vendor: Statuses) -> UpdatedStatus:
        service = vendor.service(command.service)
        occurred_at = (command.occurred_at - EPOCH) // timedelta(microseconds=1)
        updated = vendor.set(service, command.status, occurred_at)
        told: dict[str, object] = {"id": service.id, "name": service.name, "key": service.key}
        if updated == "older":
            told["ignored"] = "older"
        else:
            told |= updated.model_dump(exclude_none=True) if updated else {"status": str(int(command.status))}
        return UpdatedStatus.model_validate(
            {**told, "status_name": command.status.name.lower(), "occurred_at": command.occurred_at}
        )

    def find(self, command: UpdateStatus, vendor: Statuses) -> Sequence[Hit[UpdatedStatus]]:  # noqa: ARG002
        """Nothing to look for: to set a status twice is to set it once."""
        return ()

    def adopt(self, tenant: str, command: UpdateStatus, vendor_id: str) -> UpdatedStatus:  # noqa: ARG002
        raise ConflictError("A status is no record that could be adopted. Send it again, or abandon it.")

    def links(self, command: UpdateStatus, result: UpdatedStatus) -> Sequence[Link]:  # noqa: ARG002
        return ()

"""status_update: a service that is impaired, down or back is shown so on IzzitUp's status page."""

from datetime import UTC, datetime

from crm_bridge import Change, FromSource, Update
from crm_bridge.errors import NoSuchRecordError, WrongFieldError
from crm_bridge.fields import normalized
from crm_bridge.sequence import Turns
from crm_bridge.storage.links import joined
from crm_bridge.times import expect_past
from crm_bridge.vendors.izzitup import VENDOR, IzzitUp, IzzitUpService
from status_update.models import NewStatus, ServiceStatusSent, StatusChange, StatusUpdated

SERVICES_MAX_AGE = 60.0
SERVICES_MIN_AGE = 10.0
"""Seconds for which the services that are remembered are believed, and for which one is believed not to be there."""
SPACING = 1.0
"""Seconds from one call to the next: IzzitUp documents no limit, so it is treated gently."""


def change_of(sent: ServiceStatusSent, now: datetime) -> StatusChange:
    """Return the change that was sent. Raises InvalidError if it is in the future."""
    expect_past("occurred_at", sent.occurred_at, now)
    return StatusChange.model_construct(**dict(sent), arrived_at=now)


class UpdateStatus(Change[StatusChange, IzzitUp, StatusUpdated], name="status_update"):
    """One change at a time, in whichever function it is made; of those that come late, only what is newer counts."""

    event_route, event_model = "PUT /services/{service}/status", NewStatus
    key_says_all = True
    update = Update("yes", "Each status is an event of its own. The one with the latest occurred_at counts.")
    from_source = FromSource(ServiceStatusSent, lambda sent, now: change_of(sent, datetime.fromtimestamp(now, UTC)))
    key_parts = ("service", "status", "occurred_at")

    def key(self, command: StatusChange) -> str:
        return joined(command.service.casefold(), command.status.name.lower(), command.occurred_at.isoformat())

    def account(self, vendor: IzzitUp) -> str:  # noqa: ARG002
        """A tenant has one status page, and a status is for it also when it has moved."""
        return "the tenant's status page"

    def send(self, command: StatusChange, vendor: IzzitUp) -> StatusUpdated:
        service = self._service(command.service, vendor)
        try:
            updated = self._set(service, command, vendor)
        except NoSuchRecordError:  # it may have been made anew, or be meant by a key that is a number
            remembered, service = service, self._service(command.service, vendor, fresh=True)
            if service.id == remembered.id:
                raise
            updated = self._set(service, command, vendor)
        if updated:
            members = {**updated.model_dump(exclude_none=True), "status_name": command.status.name.lower()}
        else:
            members = {"id": service.id, "ignored": "older"}
        return StatusUpdated.model_validate({**members, "occurred_at": command.occurred_at})

    def services(self, vendor: IzzitUp, max_age: float = 0) -> list[IzzitUpService]:
        """Return the services, from the cache if they were read at most `max_age` seconds ago."""
        cache, scope = self.context.services.cache, self.context.scope
        return cache.get_or_load(scope, vendor.address, vendor.services, max_age=max_age)

    def _service(self, wanted: str, vendor: IzzitUp, *, fresh: bool = False) -> IzzitUpService:
        """Return the service with this key, else with this name; a number is an id.

        Raises NoSuchRecordError, WrongFieldError.
        """
        if not fresh and wanted.isascii() and wanted.isdecimal():
            return IzzitUpService(id=str(int(wanted)), status="")
        for max_age in (0,) if fresh else (SERVICES_MAX_AGE, SERVICES_MIN_AGE):  # there may be a new one
            services = self.services(vendor, max_age)
            for member in ("key", "name"):
                matches = [one for one in services if _plain(getattr(one, member)) == _plain(wanted)]
                if len(matches) > 1:
                    message = f"several services have this {member}; name one by its id"
                    raise WrongFieldError(message, vendor=VENDOR, field="service")
                if matches:
                    return matches[0]
        keys = ", ".join(one.key or one.id for one in services if one.hidden != "1") or "none at all"
        raise NoSuchRecordError(f"IzzitUp: Service not found; there are {keys}", vendor=VENDOR)

    def _set(self, service: IzzitUpService, command: StatusChange, vendor: IzzitUp) -> IzzitUpService | None:
        """Return the service as it is then; None if something newer was applied. Raises VendorError, StorageError."""
        status = command.status
        changed = service.model_copy(update={"status": str(int(status))})
        return Turns(self.context, VENDOR, VENDOR, SPACING).apply(
            service.id,
            command.order,
            lambda: vendor.set_status(service.id, status) or changed,
            sign_in=self.context.settings.version,
        )


def _plain(text: str | None) -> str:
    return normalized(text or "").casefold()

"""The decisions of create_job: which event it is, at which site, how it is sent and recognised, what it links."""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from create_job.models import CreatedJob, CreateJob
from create_site.flow import NOT_SHOWN, CreateSiteFlow
from create_site.models import CreateSite, SiteDetails
from crm_bridge.engine import DUE, Engine, Hit
from crm_bridge.errors import (
    CannotLookError,
    ConflictError,
    ErasedError,
    Event,
    FieldError,
    InvalidError,
    MissingError,
    NotDoneError,
    NotShownError,
    NotYetError,
    RefusedError,
    RunningError,
    UnavailableError,
    VendorError,
)
from crm_bridge.fields import is_same_text, may_have_become
from crm_bridge.links import Cardinality, Identity, Link, Links
from crm_bridge.operations import Operations, State, operation_id
from crm_bridge.settings import Tenant
from crm_bridge.transport import SHORTEST_CALL, Deadline, Transport
from crm_bridge.vendors.illu import Illu, IlluJob, IlluSettings, ListedIlluJob

VENDOR = "illu"
MOST_COMPARED = 1000
"""Pairs of tickets in notes."""


class Jobs(Protocol):
    """What this flow needs of illu."""

    @property
    def destination(self) -> str: ...

    @property
    def search_lag(self) -> int: ...

    @property
    def job_reference(self) -> bool: ...

    @property
    def lists_all_jobs(self) -> bool: ...

    def create_job(self, job: Mapping[str, object]) -> IlluJob: ...

    def list_jobs(self, *, name: str) -> list[ListedIlluJob]: ...

    def job(self, job_id: str, *, name: str) -> ListedIlluJob | None: ...


@dataclass(frozen=True)
class CustomerSites:
    """Which site a customer has, and how it gets one."""

    links: Links
    operations: Operations
    engine: Engine

    def linked(self, tenant: str, customer_id: str) -> int | None:
        """Raises StorageError."""
        site = self.links.one(tenant, Identity("crm", "customer", customer_id), "illu", "site")
        return int(site.id) if site else None

    def site_of(self, tenant: str, customer_id: str, details: SiteDetails | None, deadline: Deadline) -> int:
        """Raises NotDoneError while the site is on its way, MissingError if nobody is making one, RefusedError."""
        linked = self.linked(tenant, customer_id)
        if linked is not None:
            return linked
        if details:
            return self._made(tenant, customer_id, details, deadline)
        known = self.operations.get(operation_id(tenant, CreateSiteFlow.name, customer_id))
        if known and known.state in DUE | {State.NEEDS_REVIEW}:
            raise _not_yet(known.operation_id, f" ({known.state})")
        raise MissingError(
            "The customer has no site. Send the customer first (POST /sites), or give the site's details under 'site'.",
            vendor=VENDOR,
        )

    def _made(self, tenant: str, customer_id: str, details: SiteDetails, deadline: Deadline) -> int:
        if deadline.remaining() < 2 * SHORTEST_CALL:
            raise NotDoneError("no time was left to make the customer's site first", vendor=VENDOR)
        known = self.operations.get(operation_id(tenant, CreateSiteFlow.name, customer_id))
        if known and known.state is State.REJECTED and known.attempts[-1].event is Event.DISCARDED:
            raise RefusedError("the customer's site was discarded by a person; send the customer again", vendor=VENDOR)
        command = CreateSite(customer_id=customer_id, **details.model_dump())
        try:
            outcome = self.engine.run(CreateSiteFlow(), command, tenant=tenant, deadline=deadline)
        except (RunningError, UnavailableError):
            raise _not_yet(operation_id(tenant, CreateSiteFlow.name, customer_id)) from None
        except ErasedError:
            raise RefusedError("the data of this customer were erased", vendor=VENDOR) from None
        site = outcome.operation
        if site.state is State.SUCCEEDED and site.result:
            return int(json.loads(site.result)["site_id"])
        if site.state is State.REJECTED and outcome.error:
            raise RefusedError(
                f"the customer's site: {outcome.error.message}", vendor=VENDOR, status=outcome.error.status
            )
        raise _not_yet(site.operation_id, f" ({site.state})")


def _not_yet(site: str, state: str = "") -> NotYetError:
    return NotYetError(f"the customer's site is not there yet{state}", vendor=VENDOR, waits_for=site)


@dataclass(frozen=True)
class JobSender:
    """illu for one tenant within one deadline, and the way to its customers' sites."""

    illu: Jobs
    sites: CustomerSites
    tenant: str
    deadline: Deadline

    @property
    def destination(self) -> str:
        """With the way in which a job was marked: what was sent without a mark is not to be looked for by it."""
        return f"{self.illu.destination} {'with' if self.illu.job_reference else 'without'} reference"

    @property
    def search_lag(self) -> int:
        return self.illu.search_lag

    def site_of(self, command: CreateJob) -> int:
        if command.site_id is not None:
            return command.site_id
        return self.sites.site_of(self.tenant, command.customer_id or "", command.site, self.deadline)

    def known_site(self, command: CreateJob) -> int | None:
        """The same, if it is there. Raises StorageError."""
        return command.site_id or self.sites.linked(self.tenant, command.customer_id or "")


@dataclass(frozen=True)
class CreateJobFlow:
    sites: CustomerSites
    name: str = "create_job"
    command: type[CreateJob] = CreateJob

    def vendor(self, tenant: str, settings: Tenant, transport: Transport, deadline: Deadline) -> JobSender:
        illu = Illu(settings.require(IlluSettings), transport, deadline)
        return JobSender(illu, self.sites, tenant, deadline)

    def key(self, command: CreateJob) -> str:
        return command.ticket_id

    def repeatable(self, command: CreateJob) -> bool:  # noqa: ARG002
        return False

    def send(self, command: CreateJob, vendor: JobSender) -> CreatedJob:
        site_id = vendor.site_of(command)
        job = command.model_dump(exclude_none=True, exclude={"ticket_id", "customer_id", "site"}) | {"site_id": site_id}
        if vendor.illu.job_reference:
            job["notes"] = _notes(command)
        return _created(command, vendor.illu.create_job(job), site_id)

    def find(self, command: CreateJob, vendor: JobSender) -> Iterator[Hit[CreatedJob]]:
        """illu stores no id of ours, so a job is recognised by its site, and by the ticket at the end of its notes."""
        if not vendor.illu.job_reference:
            raise CannotLookError("the tenant keeps the ticket out of a job's notes (job_reference)", vendor=VENDOR)
        site_id = vendor.known_site(command)
        for job in vendor.illu.list_jobs(name=command.name):
            is_there = job.site_id == site_id
            # The customer may have got another site since: then its ticket is all that tells.
            if not _is_anothers(command, job) if is_there else _reference(command) in (job.notes or ""):
                certain = is_there and _says_the_same(command, job)
                yield Hit(_created(command, job, job.site_id), job.created_at, certain, id=job.job_id, name=job.name)
        if not vendor.illu.lists_all_jobs:
            raise NotShownError(NOT_SHOWN.format("job_list_path"), vendor=VENDOR)

    def link_existing(self, tenant: str, command: CreateJob, vendor_id: str) -> CreatedJob:
        site_id = command.site_id
        if command.customer_id is not None:
            site_id = self.sites.linked(tenant, command.customer_id)
        if site_id is None:
            raise ConflictError("The customer has no site, so the job cannot be at it. See to the site first.")
        return CreatedJob(job_id=vendor_id, ticket_id=command.ticket_id, site_id=site_id)

    def verify(self, command: CreateJob, result: CreatedJob, vendor: JobSender) -> str | None:
        """Every id that illu documents is a number; that of a job is not described, so its list may have other ones."""
        try:
            job = vendor.illu.job(result.job_id, name=command.name)
        except VendorError:
            if not re.fullmatch("[1-9][0-9]{0,17}", result.job_id):
                raise InvalidError(
                    "Give illu's job_id, which is a number.", fields=[FieldError("id", "must be a number")]
                ) from None
            raise
        if job is None:
            raise InvalidError(
                f"illu's list has no job with this id. A new job may be missing from it for {vendor.search_lag} s.",
                fields=[FieldError("id", "is not the id of a job")],
            )
        if job.site_id != result.site_id:
            raise InvalidError(
                "illu's job with this id is at another site than the ticket's customer.",
                fields=[FieldError("id", "is the id of a job at another site")],
            )
        if _reference(command) in (job.notes or ""):
            return None
        return "the notes of illu's job with this id do not name the ticket"

    def links(self, command: CreateJob, result: CreatedJob) -> Sequence[Link]:
        job = Identity("illu", "job", result.job_id)
        site = Identity("illu", "site", str(result.site_id))
        return [Link(Identity("crm", "ticket", command.ticket_id), job), Link(job, site, Cardinality.MANY_TO_ONE)]


def _reference(command: CreateJob) -> str:
    return f"[CRM ticket {command.ticket_id}]"


def _notes(command: CreateJob) -> str:
    """With the reference."""
    return "\n\n".join(filter(None, (command.notes, _reference(command))))


def _says_the_same(command: CreateJob, job: ListedIlluJob) -> bool:
    """Up to the spaces of the notes: but for its ticket a job that does is as good as ours."""
    notes, wanted = (unicodedata.normalize("NFC", text).strip() for text in (job.notes or "", _notes(command)))
    is_named = notes.endswith(_reference(command))
    return is_named and notes.split() == wanted.split() and is_same_text(job.name, command.name)


def _tickets(notes: str) -> set[str]:
    """Those that notes name in the bridge's way."""
    return set(re.findall(r"\[CRM ticket ([^][]*)\]", notes, re.IGNORECASE))


def _is_anothers(command: CreateJob, job: ListedIlluJob) -> bool:
    """Whether its notes name a ticket, but none that illu may have made of one in ours. Too many are not compared."""
    ours, named = _tickets(_notes(command)), _tickets(job.notes or "")
    if not named or len(ours) * len(named) > MOST_COMPARED:
        return False
    return not any(may_have_become(one, other) for one in ours for other in named)


def _created(command: CreateJob, job: IlluJob, site_id: int) -> CreatedJob:
    members = job.model_dump(mode="json", exclude_unset=True)
    return CreatedJob.model_validate({**members, "ticket_id": command.ticket_id, "site_id": site_id})

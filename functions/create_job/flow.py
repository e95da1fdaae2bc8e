"""The decisions of create_job: which event it is, at which site, how it is sent and recognised, what it links."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from create_job.models import CreatedJob, CreateJob
from create_site.flow import CreateSiteFlow, plain
from create_site.models import CreateSite, SiteDetails
from crm_bridge.clients.illu import IlluJob, ListedIlluJob, illu_client
from crm_bridge.engine import DUE, Engine, Hit
from crm_bridge.errors import (
    CannotLookError,
    ConflictError,
    MissingError,
    NotDoneError,
    RefusedError,
    RunningError,
    UnavailableError,
)
from crm_bridge.links import Cardinality, Identity, Link, Links
from crm_bridge.operations import Operations, State, operation_id
from crm_bridge.tenants import Tenant
from crm_bridge.transport import Deadline, Transport

VENDOR = "illu"


class Jobs(Protocol):
    """What this flow needs of illu."""

    @property
    def destination(self) -> str: ...

    @property
    def search_lag(self) -> int: ...

    @property
    def job_reference(self) -> bool: ...

    def create_job(self, job: Mapping[str, object]) -> IlluJob: ...

    def list_jobs(self, *, name: str) -> list[ListedIlluJob]: ...


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
        if known and known.state in DUE | {State.PARKED}:
            raise NotDoneError(f"the customer's site is not there yet ({known.state})", vendor=VENDOR)
        raise MissingError(
            "The customer has no site. Send the customer first (POST /sites), or give the site's details under 'site'.",
            vendor=VENDOR,
        )

    def _made(self, tenant: str, customer_id: str, details: SiteDetails, deadline: Deadline) -> int:
        command = CreateSite(customer_id=customer_id, **details.model_dump())
        try:
            outcome = self.engine.run(CreateSiteFlow(), command, tenant=tenant, deadline=deadline)
        except (RunningError, UnavailableError):
            raise NotDoneError("the customer's site is not there yet", vendor=VENDOR) from None
        site = outcome.operation
        if site.state is State.SUCCEEDED and site.answer:
            return int(json.loads(site.answer)["site_id"])
        if site.state is State.REJECTED and outcome.error:
            raise RefusedError(
                f"the customer's site: {outcome.error.message}", vendor=VENDOR, status=outcome.error.status
            )
        raise NotDoneError(f"the customer's site is not there yet ({site.state})", vendor=VENDOR)


@dataclass(frozen=True)
class JobSender:
    """illu for one tenant within one deadline, and the way to its customers' sites."""

    illu: Jobs
    sites: CustomerSites
    tenant: str
    deadline: Deadline

    @property
    def destination(self) -> str:
        return self.illu.destination

    @property
    def search_lag(self) -> int:
        return self.illu.search_lag

    def site_of(self, command: CreateJob) -> int:
        if command.site_id is not None:
            return command.site_id
        return self.sites.site_of(self.tenant, command.customer_id or "", command.site, self.deadline)


@dataclass(frozen=True)
class CreateJobFlow:
    sites: CustomerSites
    name: str = "create_job"
    command: type[CreateJob] = CreateJob

    def vendor(self, tenant: str, settings: Tenant, transport: Transport, deadline: Deadline) -> JobSender:
        return JobSender(illu_client(settings, transport, deadline), self.sites, tenant, deadline)

    def key(self, command: CreateJob) -> str:
        return command.ticket_id

    def send(self, command: CreateJob, vendor: JobSender) -> CreatedJob:
        site_id = vendor.site_of(command)
        job = command.model_dump(exclude_none=True, exclude={"ticket_id", "customer_id", "site"}) | {"site_id": site_id}
        if vendor.illu.job_reference:
            job["notes"] = "\n\n".join(filter(None, (command.notes, _reference(command))))
        return _created(command, vendor.illu.create_job(job), site_id)

    def find(self, command: CreateJob, vendor: JobSender) -> Sequence[Hit[CreatedJob]]:
        """illu stores no id of ours, so a job is recognised by the ticket at the end of its notes."""
        if not vendor.illu.job_reference:
            raise CannotLookError("the tenant keeps the ticket out of a job's notes (job_reference)", vendor=VENDOR)
        reference = plain(_reference(command))
        return [
            Hit(_created(command, job, job.site_id), job.created_at)
            for job in vendor.illu.list_jobs(name=command.name)
            if plain(job.notes or "")[-len(reference) :] == reference
        ]

    def adopt(self, tenant: str, command: CreateJob, vendor_id: str) -> CreatedJob:
        site_id = command.site_id
        if command.customer_id is not None:
            site_id = self.sites.linked(tenant, command.customer_id)
        if site_id is None:
            raise ConflictError("The customer has no site, so the job cannot be at it. See to the site first.")
        return CreatedJob(job_id=vendor_id, ticket_id=command.ticket_id, site_id=site_id)

    def links(self, command: CreateJob, result: CreatedJob) -> Sequence[Link]:
        job = Identity("illu", "job", result.job_id)
        site = Identity("illu", "site", str(result.site_id))
        return [Link(Identity("crm", "ticket", command.ticket_id), job), Link(job, site, Cardinality.MANY_TO_ONE)]


def _reference(command: CreateJob) -> str:
    return f"[CRM ticket {command.ticket_id}]"


def _created(command: CreateJob, job: IlluJob, site_id: int) -> CreatedJob:
    members = job.model_dump(mode="json", exclude_unset=True)
    return CreatedJob.model_validate({**members, "ticket_id": command.ticket_id, "site_id": site_id})

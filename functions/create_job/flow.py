"""create_job: a new request or ticket in a CRM becomes a job at illu, at its customer's site.

illu stores no id of ours, so a job is recognised by its site, and by the ticket that is named at the end of its notes.
"""

from collections.abc import Iterator, Sequence

from create_job.models import JobCreated, NewJob
from create_job.notes import is_anothers, reference, says_the_same, with_reference
from create_site.flow import CreateSite
from create_site.models import NewSite
from crm_bridge import Cardinality, Create, FromSource, Identity, Import, Kind, Link, Match, Need, Update
from crm_bridge.errors import CannotLookError, ConflictError, FieldError, InvalidError, VendorError
from crm_bridge.fields import numeric_id
from crm_bridge.vendors.illu import Illu, IlluJob

NO_SITE = "The customer has no site. Send the customer first (POST /sites), or give the site's details under 'site'."


class CreateJob(Create[NewJob, Illu, JobCreated], name="create_job", route="POST /jobs"):
    """A new request or ticket.

    The ticket becomes a job at its customer's site. `ticket_id` is what makes the event unique. A customer without a
    site, and without `site` in the request, gets 409.
    """

    about = Kind("crm", "ticket")
    kinds = (about, Kind("illu", "job"))
    imports = Import(
        "jobs",
        "Tickets that become jobs at illu: ticket_id, name, customer_id or site_id, and what else a job has.",
        "job_id",
        as_json=("tag_ids", "workflow_instances"),
    )
    update = Update("no", "illu documents no call that changes a job. Change the job at illu.")
    from_source = FromSource()

    def account(self, vendor: Illu) -> str:
        """With the way in which jobs are marked: a job that was sent without a mark cannot be found by one."""
        return f"{vendor.destination} {'with' if vendor.job_reference else 'without'} reference"

    def key(self, command: NewJob) -> str:
        return command.ticket_id

    def send(self, command: NewJob, vendor: Illu) -> JobCreated:
        site_id = self._linked_site(command) or self._new_site(command)
        job = command.model_dump(exclude_none=True, exclude={"ticket_id", "customer_id", "site"}) | {"site_id": site_id}
        if vendor.job_reference:
            job["notes"] = with_reference(command)
        return _result(command, vendor.create_job(job), site_id)

    def find(self, command: NewJob, vendor: Illu) -> Iterator[Match[JobCreated]]:
        if not vendor.job_reference:
            raise CannotLookError(
                "the tenant keeps the ticket out of a job's notes (job_reference)", vendor=vendor.name
            )
        site_id = self._linked_site(command)
        for job in vendor.list_jobs(name=command.name):
            is_there = job.site_id == site_id
            # The customer may have got another site since: then its ticket is all that tells.
            if not is_anothers(command, job) if is_there else reference(command) in (job.notes or ""):
                certain = is_there and says_the_same(command, job)
                yield Match(_result(command, job, job.site_id), job.created_at, certain, id=job.job_id, name=job.name)
        vendor.expect_all_jobs()

    def existing(self, command: NewJob, record_id: str) -> JobCreated:
        site_id = self._linked_site(command)
        if site_id is None:
            raise ConflictError("The customer has no site, so the job cannot be sent. Send the customer first.")
        return JobCreated(job_id=record_id, ticket_id=command.ticket_id, site_id=site_id)

    def verify(self, command: NewJob, result: JobCreated, vendor: Illu) -> str | None:
        """Every id that illu documents is a number; that of a job is not described, so its list may have other ones."""
        try:
            job = vendor.job(result.job_id, name=command.name)
        except VendorError:
            numeric_id(result.job_id, "illu's job_id")
            raise
        if job.site_id != result.site_id:
            raise InvalidError(
                "illu's job with this id is at another site than the ticket's customer.",
                fields=[FieldError("id", "is the id of a job at another site")],
            )
        is_named = reference(command) in (job.notes or "")
        return None if is_named else "the notes of illu's job with this id do not name the ticket"

    def links(self, command: NewJob, result: JobCreated) -> Sequence[Link]:
        job, site = Identity("illu", "job", result.job_id), Identity("illu", "site", str(result.site_id))
        return [Link(Identity("crm", "ticket", command.ticket_id), job), Link(job, site, Cardinality.MANY_TO_ONE)]

    def _linked_site(self, command: NewJob) -> int | None:
        """Return the id of the site if it is known. Raises StorageError."""
        if command.customer_id is None:
            return command.site_id
        site = self.context.links.one(
            self.context.tenant, Identity("crm", "customer", command.customer_id), "illu", "site"
        )
        return int(site.id) if site else None

    def _new_site(self, command: NewJob) -> int:
        key = command.customer_id or ""
        site = NewSite(customer_id=key, **command.site.model_dump()) if command.site else None
        need = Need(CreateSite, "the customer's site", site, key, if_missing=NO_SITE)
        return self.context.require(need).result.site_id


def _result(command: NewJob, job: IlluJob, site_id: int) -> JobCreated:
    return JobCreated.model_validate({**job.members(), "ticket_id": command.ticket_id, "site_id": site_id})

"""illu (field service): https://illu.notion.site/illu-Integration-Kudura-c588df8d9f4e41fcb3d639bdf9a9ec3d

Documented are CREATE SITE and CREATE JOB. No call that lists anything is: a tenant who knows one may name its address.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from crm_bridge.errors import CannotLookError, ContractBrokenError, NotConfiguredError
from crm_bridge.fields import LONGEST_ID
from crm_bridge.ids import has_unseen
from crm_bridge.settings import IlluSettings, Tenant
from crm_bridge.transport import MAX_ANSWER, Answer, Deadline, Transport, expect

VENDOR = "illu"
MAX_LIST = 20 * 1024 * 1024
_LIST_MEMBERS = frozenset({"sites", "jobs", "items", "data", "results"})
_TOTAL_MEMBERS = frozenset({"total", "total_count", "count"})
_MORE_MEMBERS = frozenset({"next", "next_page", "next_cursor", "has_more"})


def _as_text(value: object) -> object:
    """A job's id may be a number or text; we only pass it on."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _visible(value: str) -> str:
    if has_unseen(value):
        raise ValueError("is not an id")
    return value


def _usable_id(value: object) -> object:
    if isinstance(value, bool) or (isinstance(value, str) and not value.isdecimal()):
        raise ValueError("is not an id")
    return value


class IlluSite(BaseModel):
    """A site as illu answers it. Only the id is relied upon; the other members are kept as they come."""

    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)

    site_id: Annotated[int, BeforeValidator(_usable_id), Field(gt=0)]


class ListedIlluSite(IlluSite):
    """A site in the list that a tenant names, with what it takes to recognise it."""

    name: str
    latitude: float
    longitude: float
    address: object = None
    """Where the list does not have it, two customers of one name at one place are not told apart."""
    created_at: datetime | None = None
    """Where the list has it, a record from before our first attempt is not taken for ours."""


class IlluJob(BaseModel):
    """A job as illu answers it. Of its members only `job_id` is documented; the others are kept as they come."""

    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)

    job_id: Annotated[
        str, BeforeValidator(_as_text), Field(min_length=1, max_length=LONGEST_ID), AfterValidator(_visible)
    ]


class ListedIlluJob(IlluJob):
    """A job in the list that a tenant names, with what it takes to recognise it."""

    site_id: Annotated[int, BeforeValidator(_usable_id), Field(gt=0)]
    name: str
    notes: str | None
    """May be empty, but a list that leaves it out cannot be searched."""
    created_at: datetime | None = None


_SITES = TypeAdapter(list[ListedIlluSite])
_JOBS = TypeAdapter(list[ListedIlluJob])


class IlluClient:
    """Calls of one tenant within one deadline. Raises VendorError."""

    def __init__(self, settings: IlluSettings, transport: Transport, deadline: Deadline) -> None:
        self._settings = settings
        self._transport = transport
        self._deadline = deadline

    @property
    def destination(self) -> str:
        return f"{self._settings.base_url}/orgs/{self._settings.org_id}"

    @property
    def search_lag(self) -> int:
        return self._settings.search_lag

    @property
    def job_reference(self) -> bool:
        return self._settings.job_reference

    @property
    def lists_all_sites(self) -> bool:
        """Whether what the list does not show is not there, whatever illu made of the name."""
        return "{name}" not in (self._settings.site_list_path or "")

    @property
    def lists_all_jobs(self) -> bool:
        return "{name}" not in (self._settings.job_list_path or "")

    def create_site(self, *, name: str, latitude: float, longitude: float, address: str) -> IlluSite:
        """`POST /orgs/{org_id}/sites`. Degrees (WGS 84). Only 201 with a `site_id` counts.

        Source: the integration page, "CREATE SITE"
        """
        body = {"name": name, "latitude": latitude, "longitude": longitude, "address": address}
        return self._create("sites", body, IlluSite, "site_id")

    def create_job(self, job: Mapping[str, object]) -> IlluJob:
        """`POST /orgs/{org_id}/jobs`. Only 201 with a `job_id` counts.

        `job` has `name` and `site_id`, and may have `due_date`, `assigned_user_id`, `notes`, `tag_ids` and
        `workflow_instances`. Without `assigned_user_id` illu takes the admin whose key it is.

        Source: the integration page, "CREATE JOB"
        """
        return self._create("jobs", job, IlluJob, "job_id")

    def list_sites(self, *, name: str) -> list[ListedIlluSite]:
        """All sites at the address that the tenant names.

        Raises CannotLookError if it names none, or if a site could be missing in what it answers: out of half a list
        nobody can tell that a site is not there.
        """
        return self._list("site_list_path", self._settings.site_list_path, name, _SITES)

    def list_jobs(self, *, name: str) -> list[ListedIlluJob]:
        """The same for jobs."""
        return self._list("job_list_path", self._settings.job_list_path, name, _JOBS)

    def site(self, site_id: int, *, name: str) -> ListedIlluSite | None:
        """Return the site with this id, out of the list; None if the list does not have it.

        Raises CannotLookError as `list_sites` does, and if the list is asked by name: illu may have altered that.
        """
        found = next((one for one in self.list_sites(name=name) if one.site_id == site_id), None)
        return found or self._absent(self._settings.site_list_path)

    def job(self, job_id: str, *, name: str) -> ListedIlluJob | None:
        """The same for a job."""
        found = next((one for one in self.list_jobs(name=name) if one.job_id == job_id), None)
        return found or self._absent(self._settings.job_list_path)

    @staticmethod
    def _absent(path: str | None) -> None:
        if path and "{name}" in path:
            raise CannotLookError("the list is asked by name, and has no such id under this name", vendor=VENDOR)

    def _create[M: BaseModel](self, collection: str, body: object, model: type[M], wanted: str) -> M:
        answer = self._call("POST", f"/orgs/{self._settings.org_id}/{collection}", body)
        expect(answer, 201)
        try:
            return model.model_validate(answer.json())
        except ValidationError:
            raise ContractBrokenError(
                f"illu answered 201 without a usable {wanted}", vendor=VENDOR, status=201
            ) from None

    def _list[T](self, setting: str, path: str | None, name: str, adapter: TypeAdapter[list[T]]) -> list[T]:
        if path is None:
            raise CannotLookError(
                f"illu documents no way to ask for it, and the tenant names none ({setting})", vendor=VENDOR
            )
        fills = {"{org_id}": str(self._settings.org_id), "{name}": quote(name, safe="")}
        filled = re.sub(r"\{(?:org_id|name)\}", lambda place: fills[place[0]], path)
        answer = self._call("GET", filled, max_answer=MAX_LIST)
        expect(answer, 200)
        try:
            return adapter.validate_python(_whole_list(answer))
        except ValidationError:
            raise CannotLookError("illu's list lacks what it takes to recognise a record", vendor=VENDOR) from None

    def _call(self, method: str, path: str, body: object = None, *, max_answer: int = MAX_ANSWER) -> Answer:
        key = self._settings.api_key.get_secret_value()
        return self._transport.call(
            VENDOR,
            method,
            self._settings.base_url + path,
            deadline=self._deadline,
            headers={"Authorization": f"Bearer {key}"},
            body=body,
            secrets=(key,),
            max_answer=max_answer,
        )


def illu_client(settings: Tenant, transport: Transport, deadline: Deadline) -> IlluClient:
    """Raises NotConfiguredError."""
    if settings.illu is None:
        raise NotConfiguredError("The tenant's secret has no illu block. Add it, then send again.")
    return IlluClient(settings.illu, transport, deadline)


def _whole_list(answer: Answer) -> list[object]:
    """The list, if nothing in the answer hints at there being more of it. What we don't know may be such a hint."""
    parsed = answer.json()
    if "next" not in answer.headers.get("Link", "").lower():
        if isinstance(parsed, list):
            return parsed
        if isinstance(parsed, Mapping):
            lists = {n: v for n, v in parsed.items() if n in _LIST_MEMBERS and isinstance(v, list)}
            others = {n: v for n, v in parsed.items() if n not in lists}
            if len(lists) == 1:
                (found,) = lists.values()
                if all(_says_no_more(n, v, len(found)) for n, v in others.items()):
                    return found
    raise CannotLookError("illu's list is not a list, or may not be the whole of it", vendor=VENDOR)


def _says_no_more(name: str, value: object, length: int) -> bool:
    return (name in _TOTAL_MEMBERS and value == length) or (name in _MORE_MEMBERS and not value)

"""illu (field service): https://illu.notion.site/illu-Integration-Kudura-c588df8d9f4e41fcb3d639bdf9a9ec3d

CREATE SITE and CREATE JOB are documented, and no call that lists anything. A tenant who knows one may name its address.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, NoReturn
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from crm_bridge.errors import CannotLookError, IncompleteSearchError, NoSuchRecordError
from crm_bridge.fields import LONGEST_ID
from crm_bridge.ids import has_unseen
from crm_bridge.outbound.findings import Finding
from crm_bridge.outbound.response import VendorResponse
from crm_bridge.outbound.vendor import Vendor
from crm_bridge.settings import HeaderSecret, Prompt, Settings, VendorUrl

VENDOR = "illu"
NOBODY = "crm-bridge doctor"
"""A name that no site or job has, which `check` looks for."""
CHECKED = "signed in, and the list is complete"
NAME = "{name}"
"""In the address of a list: stands for the name of what is looked for."""
MAX_LIST = 20 * 1024 * 1024
_LIST_MEMBERS = frozenset({"sites", "jobs", "items", "data", "results"})
_TOTAL_MEMBERS = frozenset({"total", "total_count", "count"})
_MORE_MEMBERS = frozenset({"next", "next_page", "next_cursor", "has_more"})


def _as_text(value: object) -> object:
    """Return a number as text: a job's id may be either."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _visible(value: str) -> str:
    if has_unseen(value):
        raise ValueError("is not an id")
    return value


def _usable_id(value: object) -> object:
    if isinstance(value, bool) or (isinstance(value, str) and not value.isdecimal()):
        raise ValueError("is not an id")
    return value


def _list_path(value: str) -> str:
    if not value.startswith("/") or set(re.findall(r"\{(.*?)\}", value)) - {"org_id", "name"}:
        raise ValueError("must begin with / and have no placeholders but {org_id} and {name}")
    return value


type ListPath = Annotated[str, AfterValidator(_list_path)]


class IlluSettings(Settings):
    """How to reach a tenant's illu organisation. Source: illu integration page, see docs/vendors/illu.md."""

    model_config = ConfigDict(title="illu (sites and jobs)")
    block = "illu"

    base_url: VendorUrl = "https://api.illu.works"
    """The address of illu's API."""
    org_id: Annotated[int, Prompt("Organization ID, in illu's Admin Console")] = Field(gt=0)
    """The numeric Organization ID of illu's Admin Console."""
    api_key: Annotated[HeaderSecret, Prompt("API key, shown there too")]
    """Shown in illu's Admin Console. It becomes invalid when the admin that it belongs to changes the password."""
    site_list_path: ListPath | None = None
    """Address that lists all sites, below base_url; `{org_id}` is filled in. illu documents none, so the bridge asks
    for no list unless one is named here; without it, a person decides about a site whose response was lost. `{name}`
    is filled in as well, but such a list cannot show a site whose name illu altered: then a person decides, too."""
    job_list_path: ListPath | None = None
    """The same for jobs. Without it, or without `job_reference`, a person decides about a job whose response was
    lost."""
    job_reference: bool = True
    """Whether the ticket is named at the end of a job's notes. The bridge recognises its own jobs by it, so without it
    no job can be found."""
    search_lag: int = Field(default=120, ge=30, le=86_400)
    """Seconds after which a new record is sure to be in that list, also if illu was slow to make it."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)

    def members(self) -> dict[str, object]:
        """Return what illu said of it."""
        return self.model_dump(mode="json", exclude_unset=True)


class IlluSite(_Record):
    """A site as illu returns it. Only the id is used; the other members are kept unchanged."""

    site_id: Annotated[int, BeforeValidator(_usable_id), Field(gt=0)]


class ListedIlluSite(IlluSite):
    """A site in the list that a tenant names, with the members by which it is recognised."""

    name: str
    latitude: float
    longitude: float
    address: object = None
    """Without it, two customers of one name at one place cannot be told apart."""
    created_at: datetime | None = None
    """With it, a record from before our first attempt is not taken for ours."""


class IlluJob(_Record):
    """A job as illu returns it. Only `job_id` is documented; the other members are kept unchanged."""

    job_id: Annotated[
        str, BeforeValidator(_as_text), Field(min_length=1, max_length=LONGEST_ID), AfterValidator(_visible)
    ]


class ListedIlluJob(IlluJob):
    """A job in the list that a tenant names, with the members by which it is recognised."""

    site_id: Annotated[int, BeforeValidator(_usable_id), Field(gt=0)]
    name: str
    notes: str | None
    """May be null, but a list without this member cannot be searched."""
    created_at: datetime | None = None


_SITES = TypeAdapter(list[ListedIlluSite])
_JOBS = TypeAdapter(list[ListedIlluJob])


class Illu(Vendor[IlluSettings]):
    """The sites and jobs of one illu organisation."""

    name = VENDOR

    @property
    def destination(self) -> str:
        return f"{self.address}{self._path}"

    @property
    def job_reference(self) -> bool:
        return self.settings.job_reference

    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.settings.api_key.get_secret_value()}"}

    def create_site(self, *, name: str, latitude: float, longitude: float, address: str) -> IlluSite:
        """`POST /orgs/{org_id}/sites`. Degrees (WGS 84). Only 201 with a `site_id` counts.

        Source: the integration page, "CREATE SITE"
        """
        site = {"name": name, "latitude": latitude, "longitude": longitude, "address": address}
        return self.read(self.post(f"{self._path}/sites", site, 201), IlluSite)

    def create_job(self, job: Mapping[str, object]) -> IlluJob:
        """`POST /orgs/{org_id}/jobs`. Only 201 with a `job_id` counts.

        `job` has `name` and `site_id`, and may have `due_date`, `assigned_user_id`, `notes`, `tag_ids` and
        `workflow_instances`. Without `assigned_user_id` illu takes the admin whose key it is.

        Source: the integration page, "CREATE JOB"
        """
        return self.read(self.post(f"{self._path}/jobs", job, 201), IlluJob)

    def list_sites(self, *, name: str) -> list[ListedIlluSite]:
        """Return all sites, from the address that the tenant names.

        Raises CannotLookError if it names none, or if a site may be missing in the response: an incomplete list cannot
        show that a site does not exist.
        """
        return self._list("site_list_path", self.settings.site_list_path, name, _SITES)

    def list_jobs(self, *, name: str) -> list[ListedIlluJob]:
        """Return all jobs. See `list_sites`."""
        return self._list("job_list_path", self.settings.job_list_path, name, _JOBS)

    def site(self, site_id: int, *, name: str) -> ListedIlluSite:
        """Return the site with this id from the list.

        Raises NoSuchRecordError, and CannotLookError as `list_sites` does; also if the list is asked by name, since
        illu may have altered that.
        """
        found = next((one for one in self.list_sites(name=name) if one.site_id == site_id), None)
        return found or self._missing("site", self.settings.site_list_path)

    def job(self, job_id: str, *, name: str) -> ListedIlluJob:
        """Return the job with this id from the list. See `site`."""
        found = next((one for one in self.list_jobs(name=name) if one.job_id == job_id), None)
        return found or self._missing("job", self.settings.job_list_path)

    def expect_all_sites(self) -> None:
        """Raise IncompleteSearchError if `list_sites` may not return a site because illu altered its name."""
        self._expect_all("site_list_path", self.settings.site_list_path)

    def expect_all_jobs(self) -> None:
        """Raise IncompleteSearchError if a job may exist that `list_jobs` does not return."""
        self._expect_all("job_list_path", self.settings.job_list_path)

    def check(self) -> Iterator[Finding]:
        """Ask for the lists that the tenant names: illu documents no call that changes nothing."""
        yield self.asked("list of sites", lambda illu: illu.list_sites(name=NOBODY), lambda _: CHECKED)
        yield self.asked("list of jobs", lambda illu: illu.list_jobs(name=NOBODY), lambda _: CHECKED)

    def _missing(self, entity: str, path: str | None) -> NoReturn:
        if path and NAME in path:
            raise CannotLookError("the list is asked by name, and has no such id under this name", vendor=VENDOR)
        message = f"illu's list has no {entity} with this id. A new one may be missing from it for {self.search_lag} s."
        raise NoSuchRecordError(message, vendor=VENDOR)

    def _expect_all(self, setting: str, path: str | None) -> None:
        if path and NAME in path:
            message = f"illu was asked by the name, and may have stored it altered: remove {NAME} from `{setting}`"
            raise IncompleteSearchError(message, vendor=VENDOR)

    def _list[T](self, setting: str, path: str | None, name: str, adapter: TypeAdapter[list[T]]) -> list[T]:
        if path is None:
            raise CannotLookError(f"Cannot check in illu: set `{setting}` to enable the look-up", vendor=VENDOR)
        fills = {"{org_id}": str(self.settings.org_id), NAME: quote(name, safe="")}
        filled = re.sub(r"\{(?:org_id|name)\}", lambda place: fills[place[0]], path)
        response = self.get(filled, 200, max_response=MAX_LIST, noted=path)
        try:
            return adapter.validate_python(_whole_list(response))
        except ValidationError:
            raise CannotLookError("illu's list lacks what it takes to recognise a record", vendor=VENDOR) from None

    @property
    def _path(self) -> str:
        return f"/orgs/{self.settings.org_id}"


def _whole_list(response: VendorResponse) -> list[object]:
    """Return the list. Raises CannotLookError if any other member of the response may mean that there is more of it."""
    parsed = response.json()
    if "next" not in response.headers.get("Link", "").lower():
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

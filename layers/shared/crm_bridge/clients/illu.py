"""illu (field service): https://illu.notion.site/illu-Integration-Kudura-c588df8d9f4e41fcb3d639bdf9a9ec3d

Documented are CREATE SITE and CREATE JOB. No call that lists anything is: a tenant who knows one may name its address.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from crm_bridge.errors import CannotLookError, ContractBrokenError
from crm_bridge.tenants import IlluSettings
from crm_bridge.transport import MAX_ANSWER, Answer, Deadline, Transport, expect

VENDOR = "illu"
MAX_LIST = 20 * 1024 * 1024
_LIST_MEMBERS = ("sites", "items", "data", "results")
_MORE_MEMBERS = ("next", "next_page", "next_cursor", "has_more")
_TOTAL_MEMBERS = ("total", "total_count")


def _in_utc(value: datetime | None) -> datetime | None:
    return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


def _usable_id(value: object) -> object:
    if isinstance(value, bool) or (isinstance(value, str) and not value.isdecimal()):
        raise ValueError("is not an id")
    return value


class IlluSite(BaseModel):
    """A site as illu answers it. Only the id is relied upon; the other members are kept as they come."""

    model_config = ConfigDict(extra="allow", frozen=True)

    site_id: Annotated[int, BeforeValidator(_usable_id), Field(gt=0)]


class ListedIlluSite(IlluSite):
    """A site in the list that a tenant names, with what it takes to recognise it."""

    name: str
    latitude: float
    longitude: float
    created_at: Annotated[datetime | None, AfterValidator(_in_utc)] = None
    """Where the list has it, a record from before our first attempt is not taken for ours."""


_SITES = TypeAdapter(list[ListedIlluSite])


class IlluClient:
    """Calls of one tenant within one deadline. Raises VendorError."""

    def __init__(self, settings: IlluSettings, transport: Transport, deadline: Deadline) -> None:
        self._settings = settings
        self._transport = transport
        self._deadline = deadline

    @property
    def search_lag(self) -> int:
        return self._settings.search_lag

    def create_site(self, *, name: str, latitude: float, longitude: float, address: str) -> IlluSite:
        """`POST /orgs/{org_id}/sites`. Degrees (WGS 84). Only 201 with a `site_id` counts.

        Source: the integration page, "CREATE SITE"
        """
        body = {"name": name, "latitude": latitude, "longitude": longitude, "address": address}
        answer = self._call("POST", f"/orgs/{self._settings.org_id}/sites", body)
        expect(answer, 201)
        try:
            return IlluSite.model_validate(answer.json())
        except ValidationError:
            raise ContractBrokenError("illu answered 201 without a usable site_id", vendor=VENDOR, status=201) from None

    def list_sites(self, *, name: str) -> list[ListedIlluSite]:
        """All sites at the address that the tenant names.

        Raises CannotLookError if it names none, or if a site could be missing in what it answers: out of half a list
        nobody can tell that a site is not there.
        """
        if self._settings.site_list_path is None:
            raise CannotLookError(
                "illu documents no way to ask for a site, and the tenant names none (site_list_path)", vendor=VENDOR
            )
        path = self._settings.site_list_path.replace("{org_id}", str(self._settings.org_id))
        answer = self._call("GET", path.replace("{name}", quote(name, safe="")), max_answer=MAX_LIST)
        expect(answer, 200)
        try:
            return _SITES.validate_python(_whole_list(answer))
        except ValidationError:
            raise CannotLookError("illu's site list lacks ids, names or positions", vendor=VENDOR) from None

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


def _whole_list(answer: Answer) -> list[object]:
    parsed = answer.json()
    if isinstance(parsed, list) and 'rel="next"' not in answer.headers.get("Link", ""):
        return parsed
    if isinstance(parsed, Mapping):
        items = next((parsed[name] for name in _LIST_MEMBERS if isinstance(parsed.get(name), list)), None)
        more = any(parsed.get(name) for name in _MORE_MEMBERS)
        if (
            items is not None
            and not more
            and all(parsed.get(name, len(items)) == len(items) for name in _TOTAL_MEMBERS)
        ):
            return list(items)
    raise CannotLookError("illu's site list is not a list, or not the whole of it", vendor=VENDOR)

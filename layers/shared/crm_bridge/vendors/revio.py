"""Rev.io (billing), integration linking: https://developers.rev.io/docs/integration-linking-solution

The reference pages of its three resources are not public, so parts of a record are inferred: docs/vendors/revio.md
lists them. Where several forms are possible, all are accepted.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from crm_bridge.errors import (
    CannotLookError,
    ContractBrokenError,
    NoSuchRecordError,
    NotDoneError,
    RefusedError,
)
from crm_bridge.fields import Number
from crm_bridge.outbound.findings import Finding
from crm_bridge.outbound.response import VendorResponse, basic
from crm_bridge.outbound.transport import Pace
from crm_bridge.outbound.vendor import Vendor
from crm_bridge.settings import HeaderSecret, LoginPart, LoginSecret, Prompt, Settings, VendorUrl

VENDOR = "Rev.io"
LARGEST_PAGE = 500
MOST_PAGES = 20
MAX_LIST = 5 * 1024 * 1024
MINUTE = 60.0
PARTS = 10
"""The calls of a minute are spread over so many parts of it, so that the last one waits for seconds only."""
_KEYS = ("integration_key_link_id", "key_link_id", "id")
_ENVELOPE = frozenset({"ok", "links"})

type Resource = Literal["IntegrationSystem", "IntegrationEntityType", "IntegrationKeyLink"]
type NameKind = Literal["system", "entity_type"]
_NAMES: dict[NameKind, tuple[Resource, str, str]] = {
    "system": ("IntegrationSystem", "integration_system_id", "system_name"),
    "entity_type": ("IntegrationEntityType", "integration_entity_type_id", "entity_type_name"),
}


class RevioSettings(Settings):
    """How to reach a tenant's Rev.io account. Source: https://developers.rev.io/docs/basic-authentication"""

    model_config = ConfigDict(title="Rev.io (key links)")
    block = "revio"

    base_url: VendorUrl = "https://restapi.rev.io/v1"
    """The address of Rev.io's API. Rev.io has announced another host."""
    username: Annotated[LoginPart, Prompt("User name")]
    """Of a user whose role may call the API. It is not an e-mail address."""
    client_code: Annotated[LoginPart, Prompt("Client code, the sub-domain of the Rev.io site")]
    """The sub-domain of the tenant's Rev.io site. It decides whose data are read and written: those of production or
    of a sandbox."""
    password: Annotated[LoginSecret, Prompt("Password")]
    """Of the same user."""
    subscription_key: HeaderSecret | None = None
    """Of Rev.io's API management, if the account has one. It is sent in addition to the login."""
    plural_paths: bool = False
    """Whether the resources are called `/IntegrationKeyLinks` and so on; Rev.io's pages use both forms."""
    calls_per_minute: int = Field(default=250, ge=10, le=500)
    """The most calls of one running function, a tenth of it in six seconds. Rev.io allows an account 500, and two
    functions send what is due (`RevioConcurrency`). Lower it if Rev.io responds with 429."""
    search_lag: int = Field(default=120, ge=30, le=86_400)
    """Seconds after which a new key link is sure to be found by a search."""


class RevioKeyLink(BaseModel):
    """A key link: the id of a Rev.io record in another system."""

    model_config = ConfigDict(extra="allow", frozen=True)

    id: Number
    integration_system_id: Number
    integration_entity_type_id: Number
    internal_id: Number
    """Rev.io's own id of the record."""
    external_id: str

    @property
    def created_at(self) -> datetime | None:
        """By `created_date`, which has no zone. Source: https://developers.rev.io/docs/response-body"""
        try:
            return datetime.fromisoformat(str((self.model_extra or {}).get("created_date")))
        except ValueError:
            return None

    @model_validator(mode="before")
    @classmethod
    def _unwrapped(cls, members: Any) -> Any:
        if not isinstance(members, dict):
            return members
        bare = {name: value for name, value in members.items() if name not in _ENVELOPE}
        external = bare.get("external_id")
        if isinstance(external, int) and not isinstance(external, bool):
            bare["external_id"] = str(external)
        return {**bare, "id": _id_of(members)}


@dataclass(frozen=True)
class RevioNamed:
    """A system or an entity type."""

    id: int
    name: str


_RECORDS = TypeAdapter(list[RevioKeyLink])


class Revio(Vendor[RevioSettings]):
    """The key links of one Rev.io account, which the client code names."""

    name = VENDOR

    @property
    def destination(self) -> str:
        """Return the client code, which alone decides whose data are written, whichever host is asked."""
        return f"client code {self.settings.client_code}"

    def headers(self) -> Mapping[str, str]:
        """Source: https://developers.rev.io/docs/basic-authentication, https://developers.rev.io/docs/api-management"""
        key = self.settings.subscription_key
        also = {"Ocp-Apim-Subscription-Key": key.get_secret_value()} if key else {}
        return {"Authorization": f"Basic {self._login}", **also}

    def secrets(self) -> tuple[str, ...]:
        return (*super().secrets(), self._login)

    @property
    def _login(self) -> str:
        settings = self.settings
        return basic(f"{settings.username}@{settings.client_code}", settings.password.get_secret_value())

    def pace(self) -> Pace:
        return Pace(self.destination, self.settings.calls_per_minute // PARTS, MINUTE / PARTS)

    def expect(self, response: VendorResponse, *statuses: int) -> None:
        """Rev.io may also refuse with `ok: false` in the body, whatever its status."""
        if 200 <= response.status < 300 and _members(response).get("ok") is False:
            words = response.words() or "it gave no reason"
            message = f"{VENDOR} answered {response.status}, ok: false: {words}"
            raise RefusedError(message, vendor=VENDOR, status=response.status)
        try:
            super().expect(response, *statuses)
        except NotDoneError as error:
            if error.status == 429 and error.retry_after is None:
                error.retry_after = MINUTE  # the limit is one of calls in a minute
            raise

    def system_status(self) -> None:
        """`GET /SystemStatus`: whether the login is accepted. Seen in public code, not documented; only 200 counts.

        Source: docs/vendors/revio.md
        """
        self.get("/SystemStatus", 200)

    def names(self, kind: NameKind) -> list[RevioNamed]:
        """`GET /IntegrationSystem` or `GET /IntegrationEntityType`, all pages.

        Source: https://developers.rev.io/docs/integration-linking-solution
        """
        resource, id_member, name_member = _NAMES[kind]
        try:
            return [
                RevioNamed(int(record[id_member]), str(record[name_member]))
                for records in self._pages(resource, {})
                for record in records
            ]
        except (KeyError, TypeError, ValueError):
            raise ContractBrokenError(
                f"Rev.io's list of names lacks {id_member} or {name_member}", vendor=VENDOR
            ) from None

    def key_links(self, search: Mapping[str, str]) -> Iterator[RevioKeyLink]:
        """`GET /IntegrationKeyLink?search.…`, all pages. Whether Rev.io compares exactly is not documented.

        Source: https://developers.rev.io/docs/integration-linking-solution, https://developers.rev.io/docs/paging
        """
        for records in self._pages("IntegrationKeyLink", search):
            yield from _key_links(records)

    def key_links_of(self, internal_id: int, search: Mapping[str, str]) -> Iterator[RevioKeyLink]:
        """Yield the key links of one Rev.io record, whatever their external ids. Raises CannotLookError if too many.

        Only the names and the external id are documented as searchable; if the number is not, others are included.
        """
        names = {name: value for name, value in search.items() if name != "external_id"}
        try:
            yield from self._first_key_links({**names, "internal_id": str(internal_id)})
        except RefusedError:
            yield from self._first_key_links(names)

    def _first_key_links(self, search: Mapping[str, str]) -> Iterator[RevioKeyLink]:
        for number, records in enumerate(self._pages("IntegrationKeyLink", search), 1):
            yield from _key_links(records)
            if number == MOST_PAGES:
                raise CannotLookError("Rev.io has too many key links to look through", vendor=VENDOR)

    def page_of_key_links(self, search: Mapping[str, str], page: int, size: int) -> tuple[list[RevioKeyLink], bool]:
        """Return one page of key links, the first is 1, and whether there may be more."""
        records, has_more = self._page("IntegrationKeyLink", search, page, size)
        return _key_links(records), has_more and bool(records)

    def key_link(self, key_link_id: int) -> RevioKeyLink:
        """`GET /IntegrationKeyLink/{id}`. Raises NoSuchRecordError.

        Source: https://developers.rev.io/docs/integration-linking-solution
        """
        return key_link_of(_members(self._record(key_link_id)))

    def record(self, key_link_id: int) -> Mapping[str, Any]:
        """Return the same key link with all members that Rev.io has, to write it back. Raises NoSuchRecordError.

        Nothing of it may be stored as it is: Rev.io may repeat a secret in it.
        """
        return _members(self._record(key_link_id), masks=False)

    def _record(self, key_link_id: int) -> VendorResponse:
        return self._existing(self.get(self._path("IntegrationKeyLink", key_link_id), 200, 404))

    def create_key_link(self, members: Mapping[str, object]) -> int:
        """`POST /IntegrationKeyLink`: the new key link's id. Only 201 with an id counts.

        Source: https://developers.rev.io/docs/integration-linking-solution, https://developers.rev.io/docs/status-codes
        """
        response = self.post(self._path("IntegrationKeyLink"), members, 201)
        made = _id_of(_members(response), response.headers.get("Location", ""))
        if made is None:
            raise ContractBrokenError("Rev.io answered 201 without an id", vendor=VENDOR, status=201)
        return made

    def change_key_link(self, key_link_id: int, record: Mapping[str, Any], changes: Mapping[str, object]) -> None:
        """`PUT /IntegrationKeyLink/{id}` with the whole record, read just before: what it lacks would be lost.

        Source: https://developers.rev.io/docs/put
        """
        bare = {name: value for name, value in record.items() if name not in _ENVELOPE}
        key = {} if any(name in bare for name in _KEYS) else {_KEYS[0]: key_link_id}
        self.put(self._path("IntegrationKeyLink", key_link_id), {**key, **bare, **changes}, 200, 204)

    def delete_key_link(self, key_link_id: int) -> None:
        """`DELETE /IntegrationKeyLink/{id}`. Raises NoSuchRecordError.

        Source: https://developers.rev.io/docs/integration-linking-solution
        """
        self._existing(self.delete(self._path("IntegrationKeyLink", key_link_id), 200, 204, 404))

    def check(self) -> Iterator[Finding]:
        yield self.asked("SystemStatus", lambda revio: revio.system_status(), lambda _: "signed in")
        yield self.asked(
            "systems",
            lambda revio: revio.names("system"),
            lambda named: ", ".join(system.name for system in named) or "there are none",
        )

    def _existing(self, response: VendorResponse) -> VendorResponse:
        """Return the response to a request for one record. Raises NoSuchRecordError if that record does not exist."""
        if response.status == 404:
            self._page("IntegrationKeyLink", {}, 1, 1)  # and not the address
            raise NoSuchRecordError("Rev.io has no key link with this id", vendor=VENDOR, status=404)
        return response

    def _pages(self, resource: Resource, search: Mapping[str, str]) -> Iterator[list[Any]]:
        """Yield pages until there is no more. A short page may not be the last: Rev.io may return fewer than asked."""
        before, number, has_more = None, 1, True
        while has_more:
            records, has_more = self._page(resource, search, number, LARGEST_PAGE)
            if records and records == before:
                raise CannotLookError("Rev.io returns the same page repeatedly", vendor=VENDOR)
            if not records:
                return
            yield records
            before, number = records, number + 1

    def _page(self, resource: Resource, search: Mapping[str, str], page: int, size: int) -> tuple[list[Any], bool]:
        query = {**search, "page": str(page), "page_size": str(size)}
        encoded = urlencode({f"search.{name}": value for name, value in query.items()})
        response = self.get(f"{self._path(resource)}?{encoded}", 200, 404, max_response=MAX_LIST)
        if response.status == 404:
            raise NotDoneError(
                "Rev.io does not know this address: check base_url and plural_paths", vendor=VENDOR, status=404
            )
        members = _members(response)
        records = members.get("records")
        if not isinstance(records, list):
            raise ContractBrokenError("Rev.io answered without records", vendor=VENDOR, status=200)
        return records, members.get("has_more") is not False

    def _path(self, resource: Resource, key: int | None = None) -> str:
        plural = "s" if self.settings.plural_paths else ""
        return f"/{resource}{plural}" + ("" if key is None else f"/{key}")


def _members(response: VendorResponse, *, masks: bool = True) -> Mapping[str, Any]:
    """Return the members of a response, which may be empty. Raises ContractBrokenError if it is no object."""
    parsed = response.json(masks=masks) if response.body.strip() else {}
    if not isinstance(parsed, dict):
        raise ContractBrokenError(
            f"{VENDOR} answered something else than an object", vendor=VENDOR, status=response.status
        )
    return parsed


def key_link_of(record: Mapping[str, Any]) -> RevioKeyLink:
    return _key_links([record])[0]


def _key_links(records: list[Any]) -> list[RevioKeyLink]:
    try:
        return _RECORDS.validate_python(records)
    except ValidationError:
        raise ContractBrokenError("Rev.io's key links lack an id or a value", vendor=VENDOR) from None


def _id_of(members: Mapping[str, Any], location: str = "") -> int | None:
    """Return the id of a record, from whichever member or link of a response has it."""
    links = members.get("links")
    selves = [link for link in links if isinstance(link, dict) and link.get("rel") == "self"] if links else []
    hrefs = [link.get("href") for link in selves]
    for value in (*(members.get(name) for name in _KEYS), *hrefs, location):
        found = re.search(r"(?:^|/)([1-9][0-9]{0,17})/?$", str(value))
        if found:
            return int(found[1])
    return None

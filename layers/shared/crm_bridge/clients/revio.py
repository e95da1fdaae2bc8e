"""Rev.io (billing), integration linking: https://developers.rev.io/docs/integration-linking-solution

The reference pages of its three resources are not public, so what a record looks like is partly read between the lines;
docs/vendors.md says what. Where several readings are possible, all are understood.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from crm_bridge.errors import (
    CannotLookError,
    ContractBrokenError,
    NoSuchRecordError,
    NotConfiguredError,
    NotDoneError,
    RefusedError,
)
from crm_bridge.fields import Number
from crm_bridge.settings import RevioSettings, Tenant
from crm_bridge.transport import MAX_ANSWER, Answer, Deadline, Pace, Transport, basic, changing_nothing, expect

VENDOR = "Rev.io"
LARGEST_PAGE = 500
MOST_PAGES = 20
MAX_LIST = 5 * 1024 * 1024
MINUTE = 60.0
PARTS = 10
"""What is allowed in a minute is spread over so many parts of it, so that whoever comes last waits for seconds only."""
_KEYS = ("integration_key_link_id", "key_link_id", "id")
_ENVELOPE = frozenset({"ok", "links"})

type Resource = Literal["IntegrationSystem", "IntegrationEntityType", "IntegrationKeyLink"]
type NameKind = Literal["system", "entity_type"]
_NAMES: dict[NameKind, tuple[Resource, str, str]] = {
    "system": ("IntegrationSystem", "integration_system_id", "system_name"),
    "entity_type": ("IntegrationEntityType", "integration_entity_type_id", "entity_type_name"),
}


class RevioKeyLink(BaseModel):
    """A key link: that a record of Rev.io is known in another system under another id."""

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


@dataclass(frozen=True)
class RevioPage:
    key_links: list[RevioKeyLink]
    has_more: bool


_RECORDS = TypeAdapter(list[RevioKeyLink])


class RevioClient:
    """Calls of one tenant within one deadline. Raises VendorError.

    A call that changes nothing and brings no answer is surely not done, so it never leaves an operation in doubt.
    """

    def __init__(self, settings: RevioSettings, transport: Transport, deadline: Deadline) -> None:
        self._settings = settings
        self._transport = transport
        self._deadline = deadline

    @property
    def destination(self) -> str:
        """The client code alone decides whose data are written, whichever host is asked."""
        return f"client code {self._settings.client_code}"

    @property
    def search_lag(self) -> int:
        return self._settings.search_lag

    def system_status(self) -> None:
        """`GET /SystemStatus`: whether the login is taken. Seen in public code, not documented; only 200 counts.

        Source: docs/vendors.md
        """
        with changing_nothing():
            expect(self._call("GET", "/SystemStatus"), 200)

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
        """The same, of one record of Rev.io, whatever its other ids are. Raises CannotLookError if they are too many.

        Only the names and the external id are documented as searchable; where the number is not, others come along.
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

    def page_of_key_links(self, search: Mapping[str, str], page: int, size: int) -> RevioPage:
        """The same, one page; they are counted from 1."""
        records, has_more = self._page("IntegrationKeyLink", search, page, size)
        return RevioPage(_key_links(records), has_more and bool(records))

    def key_link(self, key_link_id: int) -> RevioKeyLink:
        """`GET /IntegrationKeyLink/{id}`. Raises NoSuchRecordError.

        Source: https://developers.rev.io/docs/integration-linking-solution
        """
        with changing_nothing():
            answer = self._there(self._call("GET", self._path("IntegrationKeyLink", key_link_id)))
            return key_link_of(_accepted(answer, 200))

    def record(self, key_link_id: int) -> Mapping[str, Any]:
        """The same as Rev.io writes it, with what is not ours, to write it back. Nothing of it may be stored as it is:
        Rev.io may repeat a secret in it. Raises NoSuchRecordError.
        """
        with changing_nothing():
            answer = self._there(self._call("GET", self._path("IntegrationKeyLink", key_link_id)))
            return _accepted(answer, 200, masks=False)

    def create_key_link(self, members: Mapping[str, object]) -> int:
        """`POST /IntegrationKeyLink`: the new key link's id. Only 201 with an id counts.

        Source: https://developers.rev.io/docs/integration-linking-solution, https://developers.rev.io/docs/status-codes
        """
        answer = self._call("POST", self._path("IntegrationKeyLink"), members)
        made = _id_of(_accepted(answer, 201), answer.headers.get("Location", ""))
        if made is None:
            raise ContractBrokenError("Rev.io answered 201 without an id", vendor=VENDOR, status=201)
        return made

    def change_key_link(self, key_link_id: int, record: Mapping[str, Any], changes: Mapping[str, object]) -> None:
        """`PUT /IntegrationKeyLink/{id}` with the whole record, read just before: what it lacks would be lost.

        Raises NoSuchRecordError. Source: https://developers.rev.io/docs/put
        """
        bare = {name: value for name, value in record.items() if name not in _ENVELOPE}
        key = {} if any(name in bare for name in _KEYS) else {_KEYS[0]: key_link_id}
        body = {**key, **bare, **changes}
        _accepted(self._call("PUT", self._path("IntegrationKeyLink", key_link_id), body), 200, 204)

    def delete_key_link(self, key_link_id: int) -> None:
        """`DELETE /IntegrationKeyLink/{id}`. Raises NoSuchRecordError.

        Source: https://developers.rev.io/docs/integration-linking-solution
        """
        _accepted(self._there(self._call("DELETE", self._path("IntegrationKeyLink", key_link_id))), 200, 204)

    def _there(self, answer: Answer) -> Answer:
        """The answer to a request that named one record. Raises NoSuchRecordError if it was that which is missing."""
        if answer.status == 404:
            self._page("IntegrationKeyLink", {}, 1, 1)  # and not the address
            raise NoSuchRecordError("Rev.io has no key link with this id", vendor=VENDOR, status=404)
        return answer

    def _pages(self, resource: Resource, search: Mapping[str, str]) -> Iterator[list[Any]]:
        """Until there is no more. That a page is short says nothing: Rev.io may give less than was asked for."""
        before, number, has_more = None, 1, True
        while has_more:
            records, has_more = self._page(resource, search, number, LARGEST_PAGE)
            if records and records == before:
                raise CannotLookError("Rev.io gives the same page again and again", vendor=VENDOR)
            if not records:
                return
            yield records
            before, number = records, number + 1

    def _page(self, resource: Resource, search: Mapping[str, str], page: int, size: int) -> tuple[list[Any], bool]:
        query = {**search, "page": str(page), "page_size": str(size)}
        encoded = urlencode({f"search.{name}": value for name, value in query.items()})
        with changing_nothing():
            answer = self._call("GET", f"{self._path(resource)}?{encoded}", max_answer=MAX_LIST)
            if answer.status == 404:
                raise NotDoneError(
                    "Rev.io does not know this address: check base_url and plural_paths", vendor=VENDOR, status=404
                )
            members = _accepted(answer, 200)
        records = members.get("records")
        if not isinstance(records, list):
            raise ContractBrokenError("Rev.io answered without records", vendor=VENDOR, status=200)
        return records, members.get("has_more") is not False

    def _path(self, resource: Resource, key: int | None = None) -> str:
        plural = "s" if self._settings.plural_paths else ""
        return f"/{resource}{plural}" + ("" if key is None else f"/{key}")

    def _call(self, method: str, path: str, body: object = None, *, max_answer: int = MAX_ANSWER) -> Answer:
        """Source: https://developers.rev.io/docs/basic-authentication, https://developers.rev.io/docs/api-management"""
        settings = self._settings
        password = settings.password.get_secret_value()
        login = basic(f"{settings.username}@{settings.client_code}", password)
        headers = {"Authorization": f"Basic {login}"}
        secrets: tuple[str, ...] = (password, login)
        if settings.subscription_key:
            key = settings.subscription_key.get_secret_value()
            headers["Ocp-Apim-Subscription-Key"] = key
            secrets += (key,)
        return self._transport.call(
            VENDOR,
            method,
            settings.base_url + path,
            deadline=self._deadline,
            headers=headers,
            body=body,
            secrets=secrets,
            max_answer=max_answer,
            pace=Pace(self.destination, settings.calls_per_minute // PARTS, MINUTE / PARTS),
        )


def revio_client(settings: Tenant, transport: Transport, deadline: Deadline) -> RevioClient:
    """Raises NotConfiguredError."""
    if settings.revio is None:
        raise NotConfiguredError("The tenant's secret has no revio block. Add it, then send again.")
    return RevioClient(settings.revio, transport, deadline)


def _accepted(answer: Answer, *statuses: int, masks: bool = True) -> Mapping[str, Any]:
    """The members of an answer with one of `statuses` that does not say `ok: false`. Raises VendorError."""
    members = _object(answer, masks=masks) if 200 <= answer.status < 300 else {}
    if members.get("ok") is False:  # whatever the status is
        words = answer.words() or "it gave no reason"
        raise RefusedError(
            f"{VENDOR} answered {answer.status}, ok: false: {words}", vendor=VENDOR, status=answer.status
        )
    try:
        expect(answer, *statuses)
    except NotDoneError as error:
        if error.status == 429 and error.retry_after is None:
            error.retry_after = MINUTE  # the limit is one of calls in a minute
        raise
    return members


def _object(answer: Answer, *, masks: bool) -> Mapping[str, Any]:
    parsed = answer.json(masks=masks) if answer.body.strip() else {}
    if not isinstance(parsed, dict):
        raise ContractBrokenError(
            f"{VENDOR} answered something else than an object", vendor=VENDOR, status=answer.status
        )
    return parsed


def key_link_of(record: Mapping[str, Any]) -> RevioKeyLink:
    return _key_links([record])[0]


def _key_links(records: list[Any]) -> list[RevioKeyLink]:
    try:
        return _RECORDS.validate_python(records)
    except ValidationError:
        raise ContractBrokenError("Rev.io's key links lack what tells one from another", vendor=VENDOR) from None


def _id_of(members: Mapping[str, Any], location: str = "") -> int | None:
    """The id of a record, wherever an answer has it."""
    links = members.get("links")
    selves = [link for link in links if isinstance(link, dict) and link.get("rel") == "self"] if links else []
    hrefs = [link.get("href") for link in selves]
    for value in (*(members.get(name) for name in _KEYS), *hrefs, location):
        found = re.search(r"(?:^|/)([1-9][0-9]{0,17})/?$", str(value))
        if found:
            return int(found[1])
    return None

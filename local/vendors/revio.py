"""Rev.io's integration linking: two lists of names, and the key links which pair its keys with another system's.

Documented (developers.rev.io/docs): integration-linking-solution (the resources, what a create takes, what can be
searched), basic-authentication, collections, paging, status-codes, put, and the limits that its changelog announces.

Ours: every switch of `RevioSimulator` stands for something which isn't documented or can't be relied on. So are the
error texts, 405 for PATCH, a day of calls which begins at midnight UTC, which internal records exist, and that a create
ignores members which it doesn't know while PUT refuses them.
"""

import re
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from werkzeug.wrappers import Request, Response

from local.vendors.simulator import Example, Simulator, json_response

type Record = dict[str, object]

_BASE = "http://restapi.rev.io/v1"
_KEYS = ("integration_key_link_id", "key_link_id", "id")
_TEXTS = ("system_name", "entity_type_name", "external_id")
_NUMBERS = ("internal_id", "integration_system_id", "integration_entity_type_id")
_INTERNAL_IDS = range(1000, 10_000_000)
_ENTITY_TYPES = (
    "AGENT CUSTOMER BILL CONTACT SERVICE_PRODUCT CREDIT CHARGE SERVICE PAYMENT PRODUCT ADDRESS INVENTORY_ITEM"
)
_RESOURCES = {
    name.lower(): name for name in ("SystemStatus", "IntegrationSystem", "IntegrationEntityType", "IntegrationKeyLink")
}
_PATH = re.compile(rf"/v1/({'|'.join(_RESOURCES)})s?(?:/([0-9]{{1,18}}))?/?")


class _Created(BaseModel):
    """The required members of a create."""

    integration_system_id: int
    integration_entity_type_id: int
    internal_id: int
    external_id: str = Field(min_length=1)


class _Replaced(_Created):
    """The whole model, which PUT takes: with its id, by whichever name, and without `ok` and `links`."""

    model_config = ConfigDict(extra="forbid")

    integration_key_link_id: int | None = None
    key_link_id: int | None = None
    id: int | None = None
    created_date: str | None = None
    created_by: str | None = None


class _RefusedError(Exception):
    def __init__(self, status: int, text: str, retry_after: int | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}


@dataclass
class RevioAccount:
    """A customer of Rev.io. The client code in the login decides whose data a call reads and writes."""

    client_code: str
    username: str = "bridge"
    password: str = "revio-demo-password"  # noqa: S105 (of nothing but this simulator)
    subscription_key: str | None = None
    """API Management's key, which is asked for besides the login if it is set."""
    systems: dict[int, str] = field(default_factory=lambda: {4: "SALESFORCE", 7: "QUICKBOOKS", 9: "HUBSPOT"})
    entity_types: dict[int, str] = field(default_factory=lambda: dict(enumerate(_ENTITY_TYPES.split(), 1)))
    """The names and CUSTOMER's 2 are documented, the other ids are ours."""
    key_links: list[Record] = field(default_factory=list)
    next_id: int = 77
    clock: Callable[[], float] = time.time
    """Replaced by the simulator's."""
    made_at: dict[object, float] = field(default_factory=dict)
    """When a key link was stored, whatever its `created_date` says."""
    calls: list[float] = field(default_factory=list)
    """When it was let in."""

    def add_key_link(self, system_id: int, entity_type_id: int, internal_id: int, external_id: str) -> Record:
        """A key link as it is after Rev.io stored it, whoever asked for it."""
        now = self.clock()
        link: Record = {
            "integration_key_link_id": self.next_id,
            "integration_system_id": system_id,
            "integration_entity_type_id": entity_type_id,
            "internal_id": internal_id,
            "external_id": external_id,
            "created_date": datetime.fromtimestamp(now, UTC).replace(tzinfo=None).isoformat(timespec="milliseconds"),
            "created_by": self.username,
        }
        self.made_at[self.next_id] = now
        self.next_id += 1
        self.key_links.append(link)
        return link

    def records(self, resource: str) -> dict[object, Record]:
        """By key, each with the members it is stored with."""
        match resource:
            case "IntegrationSystem":
                return {n: {"integration_system_id": n, "system_name": name} for n, name in self.systems.items()}
            case "IntegrationEntityType":
                types = self.entity_types.items()
                return {n: {"integration_entity_type_id": n, "entity_type_name": name} for n, name in types}
            case "IntegrationKeyLink":
                return {link["integration_key_link_id"]: link for link in self.key_links}
        return {}


@dataclass
class RevioSimulator(Simulator):
    """`search_lag` holds key links back from the collection, not from GET by id."""

    name: str = "revio"
    accounts: list[RevioAccount] = field(default_factory=lambda: [RevioAccount("acme")])
    match: Literal["exact", "contains"] = "exact"
    """How texts are searched; neither looks at case."""
    key_field: Literal["integration_key_link_id", "key_link_id", "id"] | None = "integration_key_link_id"
    """The name of a key link's key. None: only the link to itself has it."""
    has_more: Literal["more", "several_pages"] = "more"
    """True if more follow, or on every page (the last, and empty ones beyond it) if there are several."""
    largest_page: int = 500
    """A larger page_size is silently cut to this."""
    numbers_as_text: bool = False
    """Ids are answered as texts, and taken as such too."""
    error_shape: Literal["message", "error", "errors", "error_message", "text", "empty"] = "message"
    errors_with_200: bool = False
    """All other errors than 401, 403, 404, 405 and 429 are 200 with `ok` false."""
    no_such_record: Literal[400, 404] = 400
    """When a key link names an internal record which doesn't exist."""
    refuses_duplicates: bool = False
    empty_answers: bool = False
    """PUT and DELETE answer 204."""
    refuses_unknown_search: bool = False
    """Only what is documented as searchable is. Otherwise the numbers are too, and anything else is ignored."""
    calls_per_minute: int = 500
    says_when: bool = True
    """Whether 429 carries Retry-After."""
    calls_per_day: int = 150_000
    """403 beyond them, as is API Management's habit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for account in self.accounts:
            account.clock = self._now

    def blocks(self) -> dict[str, dict[str, object]]:
        login = {name: getattr(self.account, name) for name in ("username", "client_code", "password")}
        return {"revio": {"base_url": f"{self.url}/v1", **login, "search_lag": 30}}

    def examples(self) -> Sequence[Example]:
        link = {
            "system": "salesforce",
            "entity_type": "customer",
            "internal_id": 1015,
            "external_id": "001XX0000ABCDEF",
        }
        return (Example("An account in Salesforce is customer 1015 at Rev.io.", "POST", "/key-links", link),)

    @property
    def account(self) -> RevioAccount:
        return self.accounts[0]

    @property
    def key_links(self) -> list[Record]:
        return self.account.key_links

    def held(self) -> dict[str, object]:
        return {"key_links": self.key_links}

    def respond(self, request: Request) -> Response:
        try:
            account = self._logged_in(request)
            self._let_in(account)
            return self._done(request, account)
        except _RefusedError as refused:
            return self._refusal(refused)

    def _logged_in(self, request: Request) -> RevioAccount:
        login = request.authorization
        for account in self.accounts:
            name = f"{account.username}@{account.client_code}"
            if login and (login.username, login.password) == (name, account.password) and name.count("@") == 1:
                key = account.subscription_key
                if key is not None and request.headers.get("Ocp-Apim-Subscription-Key") != key:
                    raise _RefusedError(401, "Missing or invalid subscription key")
                account.clock = self._now
                return account
        raise _RefusedError(401, "Invalid login")

    def _let_in(self, account: RevioAccount) -> None:
        now = self.clock()
        if len(account.calls) - bisect_left(account.calls, now - now % 86400) >= self.calls_per_day:
            raise _RefusedError(403, "Out of call volume quota")
        recent = account.calls[bisect_right(account.calls, now - 60) :]
        if len(recent) >= self.calls_per_minute:
            wait = ceil(min(recent[-self.calls_per_minute :], default=now) + 60 - now)
            raise _RefusedError(429, "Rate limit is exceeded", wait if self.says_when else None)
        account.calls.append(now)

    def _done(self, request: Request, account: RevioAccount) -> Response:
        path = _PATH.fullmatch(request.path.lower())
        if not path:
            raise _RefusedError(404, "No such resource")
        resource = _RESOURCES[path[1]]
        key = int(path[2]) if path[2] else None
        match request.method, resource, key:
            case "GET", "SystemStatus", None:
                return json_response({"ok": True})
            case "GET", _, None:
                return self._list(request, account, resource)
            case "POST", "IntegrationKeyLink", None:
                return self._create(request, account)
            case "GET" | "PUT" | "DELETE" as method, _, int() if method == "GET" or resource == "IntegrationKeyLink":
                record = account.records(resource).get(key)
                if record is None:
                    raise _RefusedError(404, f"No such {resource}")
                if method == "GET":
                    return json_response({"ok": True, **self._shown(resource, key, record)})
                at = account.key_links.index(record)
                account.key_links[at : at + 1] = [self._replaced(request, account, key)] if method == "PUT" else []
                return Response(status=204) if self.empty_answers else json_response({"ok": True})
        raise _RefusedError(405, "Method not allowed")

    def _list(self, request: Request, account: RevioAccount, resource: str) -> Response:
        asked = {name.removeprefix("search.") for name in request.args if name.startswith("search.")}
        unknown = asked - {*_TEXTS, "page", "page_size", "sort"}
        if unknown and self.refuses_unknown_search:
            raise _RefusedError(400, f"Can't search by {', '.join(sorted(unknown))}")
        size = min(self._counted(request, "page_size", 10), self.largest_page)
        first = (self._counted(request, "page", 1) - 1) * size
        newest = self.clock() - self.search_lag
        found = [
            (key, record, named)
            for key, record in account.records(resource).items()
            if resource != "IntegrationKeyLink" or account.made_at.get(key, 0) <= newest
            if self._fits(request, named := self._named(account, record))
        ]
        sort = request.args.get("search.sort", request.args.get("sort", ""))
        found.sort(key=lambda row: _order(row[2].get(sort.removeprefix("-"))), reverse=sort.startswith("-"))
        records = [self._shown(resource, key, record) for key, record, _ in found[first : first + size]]
        more = len(found) > size if self.has_more == "several_pages" else len(found) > first + size
        return json_response({"ok": True, "has_more": more, "record_count": len(records), "records": records})

    def _create(self, request: Request, account: RevioAccount) -> Response:
        sent = self._sent(request, account, _Created)
        if self.refuses_duplicates and any(sent.model_dump().items() <= link.items() for link in account.key_links):
            raise _RefusedError(400, "This key link exists already")
        key = account.next_id
        account.add_key_link(
            sent.integration_system_id,
            sent.integration_entity_type_id,
            sent.internal_id,
            self.altered(sent.external_id),
        )
        response = json_response({"ok": True, "id": self._told(key)}, 201)
        response.headers["Location"] = f"{_BASE}/IntegrationKeyLink/{key}"
        return response

    def _replaced(self, request: Request, account: RevioAccount, key: int) -> Record:
        sent = self._sent(request, account, _Replaced).model_dump(exclude_unset=True)
        if {sent.pop(name) for name in _KEYS if name in sent} != {key}:
            raise _RefusedError(400, "The key in the body isn't the one in the path")
        return {"integration_key_link_id": key, **sent, "external_id": self.altered(sent["external_id"])}

    def _sent[Sent: _Created](self, request: Request, account: RevioAccount, model: type[Sent]) -> Sent:
        try:
            sent = model.model_validate_json(request.get_data(), strict=not self.numbers_as_text)
        except ValidationError as error:
            wrong = {".".join(map(str, mistake["loc"])) or "the body" for mistake in error.errors()}
            raise _RefusedError(400, f"Missing or invalid: {', '.join(sorted(wrong))}") from error
        if sent.integration_system_id not in account.systems:
            raise _RefusedError(400, "No such integration system")
        if sent.integration_entity_type_id not in account.entity_types:
            raise _RefusedError(400, "No such integration entity type")
        if sent.internal_id not in _INTERNAL_IDS:
            raise _RefusedError(self.no_such_record, "No record has this internal_id")
        return sent

    def _fits(self, request: Request, named: Record) -> bool:
        for name in named.keys() & {*_TEXTS, *_NUMBERS}:
            value = str(named[name]).casefold()
            asked = [text.casefold() for text in request.args.getlist(f"search.{name}")]
            partly = self.match == "contains" and name in _TEXTS and any(text in value for text in asked)
            if asked and value not in asked and not partly:
                return False
        return True

    @staticmethod
    def _named(account: RevioAccount, record: Record) -> Record:
        """With the names of its system and entity type, by which a key link can be searched too."""
        system = account.records("IntegrationSystem").get(record.get("integration_system_id"), {})
        entity_type = account.records("IntegrationEntityType").get(record.get("integration_entity_type_id"), {})
        return {**system, **entity_type, **record}

    @staticmethod
    def _counted(request: Request, name: str, default: int) -> int:
        text = request.args.get(f"search.{name}", request.args.get(name, str(default)))
        if not re.fullmatch("[1-9][0-9]{0,8}", text):
            raise _RefusedError(400, f"Invalid {name}")
        return int(text)

    def _shown(self, resource: str, key: object, record: Record) -> Record:
        shown = {name: self._told(value) for name, value in record.items() if name != "integration_key_link_id"}
        if resource == "IntegrationKeyLink" and self.key_field:
            shown = {self.key_field: self._told(key), **shown}
        return {**shown, "links": [{"rel": "self", "href": f"{_BASE}/{resource}/{key}"}]}

    def _told(self, value: object) -> object:
        return str(value) if self.numbers_as_text and isinstance(value, int) else value

    def _refusal(self, refused: _RefusedError) -> Response:
        quiet = self.errors_with_200 and refused.status not in (401, 403, 404, 405, 429)
        status = 200 if quiet else refused.status
        if self.error_shape in ("text", "empty") and not quiet:
            return Response(refused.text if self.error_shape == "text" else "", status, refused.headers)
        body: Record = {"ok": False}
        if self.error_shape not in ("text", "empty"):
            body[self.error_shape] = [refused.text] if self.error_shape == "errors" else refused.text
        response = json_response(body, status)
        response.headers.update(refused.headers)
        return response

    def _now(self) -> float:
        return self.clock()


def _order(value: object) -> tuple[int, str]:
    """Numbers by value, texts by theirs, and what is lost first."""
    return (value if isinstance(value, int) else 0, "" if value is None else str(value))

"""Egito, a CRM: an OAuth2 password grant with its parameters in the query, and one path for each entity and method.

https://egito.pl/api/ and https://egito.pl/pomoc/api/

Documented: the token call with its header and the members of its reply, user names like `login@firma`, the pattern
`/services/restapi/json/{Entity}/{method}`, Account, Contact, Opportunity and SelectDictionary with create, get, update
and list, dictionaries by type, JSON or the parameters of the browser's form, `id` after a write and a list `errors`
after a failure, and that calls have the rights of their user.

Inferred: that the token endpoint is Spring Security OAuth2's, with its refresh grant, its errors and its one token for
each user and client; the entity Lead, the method delete, and that an update saves the whole form.

Ours, because nothing is documented: the names of all fields, the entities User and Order, a method's verbs, every text
and code in `errors`, the pages of 404, 405 and 415, and everything that is a switch of the simulator.
"""

import re
import threading
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from uuid import uuid4

from werkzeug.wrappers import Request, Response

from local.vendors.egito_requests import (
    RequestRefusedError,
    oauth_error,
    page_of,
    parameters,
    positive,
    token_parameters,
)
from local.vendors.simulator import Fault, Kind, Simulator, json_response

type Record = dict[str, object]

TOKEN_PATH = "/oauth/token"  # noqa: S105
DICTIONARY = "SelectDictionary"

CLUB = "k-3"
"""The demo tenant's club, by our id; the Connector calls it CONNECTOR_CLUB."""
CONNECTOR_CLUB = "1b7e2f"
CLIENT = "c-7"
"""Our id of the demo tenant in the Connector's settings."""

_PERSON = (
    "firstName lastName type status birthDate gender street street2 city zipCode region country mobile email phone "
    "workPhone company trialStart trialEnd ownerId source club externalId notes"
)
_BUSINESS = ("name", "notes", "externalId", "status")
FIELDS: dict[str, tuple[str, ...]] = {
    "Account": _BUSINESS,
    "Contact": tuple(_PERSON.split()),
    "Opportunity": _BUSINESS,
    "Lead": tuple(_PERSON.split()),
    "Order": _BUSINESS,
    "User": ("name", "email", "active"),
    DICTIONARY: ("name",),
}
"""The fields of each entity's form. The type of a dictionary's entry is no field: it says where the entry is."""

_FREE_TEXTS = {"name", "firstName", "lastName", "street", "street2", "city", "company", "externalId", "notes"}
"""The types of fields that a user types, which may be altered."""

_FORM = "application/x-www-form-urlencoded"
_PATH = re.compile(r"/services/restapi/json/([A-Za-z]+)/([A-Za-z]+)")
_VERBS = {
    "create": ("POST",),
    "get": ("GET", "POST"),
    "update": ("POST",),
    "list": ("GET", "POST"),
    "delete": ("POST",),
}
_GRANTS = {"password": ("username", "password"), "refresh_token": ("refresh_token",)}
"""The parameters that each grant needs besides the client's."""


class _Mistake(NamedTuple):
    field: str | None
    """None: it is about the record or the call as a whole."""
    message: str
    code: str


_DENIED = _Mistake(None, "Access denied", "AccessDenied")
_NOT_FOUND = _Mistake(None, "Object not found", "NotFound")


@dataclass
class EgitoGrant:
    """The tokens of one user through one client. Its access token is dead from `expires_at` on, in epoch seconds."""

    refresh_token: str = field(default_factory=lambda: str(uuid4()))
    access_token: str = ""
    expires_at: float = 0


def _demo_records() -> dict[str, list[Record]]:
    staff: list[Record] = [
        {"id": 7, "name": "Maja Nowak", "email": "maja@club.example", "active": True},
        {"id": 8, "name": "Piotr Zieliński", "email": "piotr@club.example", "active": True},
        {"id": 9, "name": "Ola Wrona", "email": "ola@club.example", "active": True},
    ]
    offer: Record = {"id": 21, "name": "Yearly pass for 12", "notes": "", "externalId": "O-21", "status": "OPEN"}
    return {"User": staff, "Opportunity": [offer], "Order": [{**offer, "id": 31, "name": "Towels", "status": "NEW"}]}


def _demo_dictionaries() -> dict[str, list[Record]]:
    return {
        "leadSource": [{"id": 1, "name": "Website"}, {"id": 2, "name": "Walk-in"}],
        "industry": [{"id": 3, "name": "Sports"}, {"id": 4, "name": "Education"}],
        "relationshipType": [{"id": 5, "name": "Customer"}, {"id": 6, "name": "Partner"}],
    }


def _demo_required() -> dict[str, tuple[str, ...]]:
    person, business = ("lastName",), ("name",)
    return {
        "Contact": person,
        "Lead": person,
        "User": ("email",),
        "Account": business,
        "Opportunity": business,
        "Order": business,
        DICTIONARY: ("name",),
    }


@dataclass
class EgitoSimulator(Simulator):
    """`search_lag` holds new records back from `list`, not from `get`."""

    name: str = "egito"
    api_id: str = "egito-demo-id"
    api_secret: str = "egito-demo-secret"  # noqa: S105 (of nothing but this simulator)
    users: dict[str, str] = field(default_factory=lambda: {"bridge@demo": "egito-demo-password"})
    """Passwords by user. `/_state` shows neither them nor tokens."""
    grants: dict[tuple[str, str], EgitoGrant] = field(default_factory=dict)
    """By user and client, with the tokens that they have now."""
    token_requests: list[str] = field(default_factory=list)
    """The grant type of every request to the token endpoint, also of those that failed; "" if it had none."""
    records: dict[str, list[Record]] = field(default_factory=_demo_records)
    """By entity, in the order in which they were made. Entities that are left out are empty."""
    dictionaries: dict[str, list[Record]] = field(default_factory=_demo_dictionaries)
    """Entries by type."""
    next_id: int = 5001
    """For all entities and dictionaries together."""
    fields: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict(FIELDS))
    """Anything else that is sent is silently ignored. An entity that is missing here doesn't exist."""

    token_seconds: int = 3600
    refresh_tokens: bool = True
    """Without, a token's reply has no refresh token, and none is taken."""
    token_in: Literal["both", "header", "query"] = "both"  # noqa: S105
    """Where a call's access token is looked for; one that is elsewhere doesn't count."""
    required: dict[str, tuple[str, ...]] = field(default_factory=_demo_required)
    """By entity: fields that can't be saved blank."""
    max_length: int | None = 255
    """Of any text, in characters."""
    ids: Literal["number", "text"] = "number"
    answers_only_id: bool = False
    """Otherwise create and update answer all fields."""
    blanks_missing: bool = True
    """An update empties the fields that it doesn't send."""
    missing_record: Literal["errors", "404", "null", "empty"] = "errors"
    """The response of `get` if there is none: `errors`, the page of 404, or 200 with JSON's null or without a body."""
    record_shape: Literal["plain", "data", "entity", "rows", "result", "array", "nested"] = "plain"
    """Of what get, create and update answer: the record itself, or what holds it."""
    list_shape: Literal["array", "list", "items", "data", "rows"] = "list"
    """A bare array, or an object that holds it under this name."""
    list_limit: int | None = None
    """No answer lists more, whatever is asked; the rest is silently left out."""
    page_parameters: tuple[str, str] | None = None
    """The names for a page's number, from 1, and its size. If set, a list always comes in pages, of 20 by default."""
    dictionary_writable: bool = True
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    """Pairs of entity and method for which the user has no right."""
    error_shape: Literal["strings", "objects", "default_messages"] = "objects"
    """Of the elements of `errors`: texts, or objects that hold the text as `message` or as `defaultMessage`."""
    error_status: int = 200
    """HTTP status of a response with `errors`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for entity in FIELDS:
            if entity != DICTIONARY:
                self.records.setdefault(entity, [])
        self._made_at: dict[tuple[str, object], float] = {}
        self._token_faults: list[Fault] = []
        self._arrived = threading.local()

    def blocks(self) -> dict[str, dict[str, object]]:
        (user, password), *_ = self.users.items()
        people = {"entity": "Contact", "reference": "externalId"}
        egito: dict[str, object] = {
            "base_url": self.url,
            "api_id": self.api_id,
            "api_secret": self.api_secret,
            "username": user,
            "password": password,
            "lists_everything": True,
            "search_lag": 30,
            "prospects": people,
            "members": people,
            "lead_sources": {"dictionary": "leadSource", "writable": True},
            "records": {entity: {"reference": "externalId"} for entity in sorted(FIELDS.keys() - {"User", DICTIONARY})},
        }
        connector: dict[str, object] = {
            "client_id": CLIENT,
            "clubs": {CLUB: {"connector_id": CONNECTOR_CLUB, "fields": {"club": "Centre"}}},
            "match_key": "of-no-use-but-on-this-machine-0001",
            "phone_country": "PL",
        }
        return {"egito": egito, "connector": connector}

    @property
    def access_tokens(self) -> list[str]:
        """Those with which a call is let in now."""
        now = self.clock()
        return [grant.access_token for grant in self.grants.values() if now < grant.expires_at]

    def revoke(self, *, refresh_too: bool = False) -> None:
        """All access tokens die at once; the next password grant makes a new one."""
        with self.lock:
            if refresh_too:
                self.grants.clear()
            for grant in self.grants.values():
                grant.access_token, grant.expires_at = "", 0

    def fail_token(self, kind: Kind, *, times: int = 1, seconds: float = 0) -> None:
        """Let the next `times` requests for a token fail; what `fail` orders spares them, except REFUSE.

        Raises ValueError for REFUSE: the vendor has one port for everything.
        """
        if kind is Kind.REFUSE:
            raise ValueError("connections can't be refused to one path alone")
        fault = Fault(kind=kind, times=times, seconds=seconds)
        with self.lock:
            self._token_faults += [fault] * times

    def heal(self) -> None:
        super().heal()
        with self.lock:
            self._token_faults.clear()

    def held(self) -> dict[str, object]:
        return {
            "records": self.records,
            "dictionaries": self.dictionaries,
            "token_requests": len(self.token_requests),
        }

    def add(self, entity: str, **values: object) -> Record:
        """A record as it is after Egito made it, whoever asked for it: with all fields, empty if they aren't given.

        Raises KeyError for a dictionary's entry: those are in `dictionaries`.
        """
        return self._store(entity, self.records[entity], self._filled_in(entity, values))

    def respond(self, request: Request) -> Response:
        if request.path == TOKEN_PATH:
            return self._answer_token(request)
        token = self._sent_token(request)
        if token is None:
            text = "Full authentication is required to access this resource"
            return oauth_error(401, "unauthorized", text, 'Bearer realm="egito"')
        if token not in self.access_tokens:
            challenge = 'Bearer realm="egito", error="invalid_token"'
            return oauth_error(401, "invalid_token", f"Invalid access token: {token}", challenge)
        try:
            return self._called(request)
        except RequestRefusedError as refused:
            return refused.response

    def _faulty(self, request: Request) -> Response:
        self._arrived.for_token = request.path == TOKEN_PATH  # for _next_fault, which gets the verb only
        if self._arrived.for_token:
            with self.lock:
                self.token_requests.append(token_parameters(request).get("grant_type", ""))
        return super()._faulty(request)

    def _next_fault(self, method: str) -> Fault | None:
        if not self._arrived.for_token:
            return super()._next_fault(method)
        with self.lock:
            return self._token_faults.pop(0) if self._token_faults else None

    def _answer_token(self, request: Request) -> Response:
        if request.method != "POST":
            text = f"Request method '{request.method}' not supported"
            response = oauth_error(405, "method_not_allowed", text)
            response.headers["Allow"] = "POST"
            return response
        if request.mimetype != _FORM:
            return page_of(415)
        sent = token_parameters(request)
        grant_type = sent.get("grant_type", "")
        for name in ("client_id", "client_secret", "grant_type", *_GRANTS.get(grant_type, ())):
            if not sent.get(name):
                return oauth_error(400, "invalid_request", f"Missing {name}")
        if (sent["client_id"], sent["client_secret"]) != (self.api_id, self.api_secret):
            challenge = 'Form realm="oauth2/client", error="invalid_client"'
            return oauth_error(401, "invalid_client", "Bad client credentials", challenge)
        match grant_type:
            case "password":
                return self._grant_to_user(sent["username"], sent["password"])
            case "refresh_token":
                return self._grant_anew(sent["refresh_token"])
        return oauth_error(400, "unsupported_grant_type", f"Unsupported grant type: {grant_type}")

    def _grant_to_user(self, username: str, password: str) -> Response:
        if self.users.get(username) != password:
            return oauth_error(400, "invalid_grant", "Bad credentials")
        grant = self.grants.setdefault((username, self.api_id), EgitoGrant())
        if self.clock() >= grant.expires_at:
            self._renew(grant)
        return self._told(grant)

    def _grant_anew(self, refresh_token: str) -> Response:
        for (_, client), grant in self.grants.items():
            if self.refresh_tokens and (client, grant.refresh_token) == (self.api_id, refresh_token):
                self._renew(grant)
                return self._told(grant)
        return oauth_error(400, "invalid_grant", f"Invalid refresh token: {refresh_token}")

    def _renew(self, grant: EgitoGrant) -> None:
        grant.access_token = str(uuid4())
        grant.expires_at = self.clock() + self.token_seconds

    def _told(self, grant: EgitoGrant) -> Response:
        response = json_response(
            {
                "access_token": grant.access_token,
                "token_type": "bearer",
                **({"refresh_token": grant.refresh_token} if self.refresh_tokens else {}),
                "expires_in": int(grant.expires_at - self.clock()),
                "scope": "write read",
            }
        )
        response.headers["Cache-Control"] = "no-store"
        return response

    def _sent_token(self, request: Request) -> str | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if self.token_in in ("both", "header") and scheme.lower() == "bearer":
            return token.strip()
        return request.args.get("access_token") if self.token_in in ("both", "query") else None

    def _called(self, request: Request) -> Response:
        path = _PATH.fullmatch(request.path)
        entity, method = path.groups() if path else ("", "")
        if entity not in self.fields or method not in _VERBS:
            return page_of(404)
        if request.method not in _VERBS[method]:
            response = page_of(405)
            response.headers["Allow"] = ", ".join(_VERBS[method])
            return response
        writes = method not in ("get", "list")
        if (entity, method) in self.forbidden or (entity == DICTIONARY and writes and not self.dictionary_writable):
            return self._errors(_DENIED)
        sent = parameters(request)
        match method:
            case "create":
                return self._create(entity, sent)
            case "get":
                return self._get(entity, sent)
            case "update":
                return self._update(entity, sent)
            case "list":
                return self._list(entity, sent)
        return self._delete(entity, sent)

    def _create(self, entity: str, sent: Record) -> Response:
        values = self._filled_in(entity, sent)
        wrong = self._mistakes(entity, values)
        if entity == DICTIONARY and not sent.get("type"):
            wrong.insert(0, _blank("type"))
        if wrong:
            return self._errors(*wrong)
        if entity == DICTIONARY:
            self.dictionaries.setdefault(str(sent["type"]), [])
        return self._saved(entity, self._store(entity, self._rows(entity, sent), self._altered(entity, values)))

    def _get(self, entity: str, sent: Record) -> Response:
        rows = self._rows(entity, sent)
        at = self._place(rows, sent)
        if at is not None:
            return self._shown(entity, rows[at])
        match self.missing_record:
            case "errors":
                return self._errors(_NOT_FOUND)
            case "404":
                return page_of(404)
            case "null":
                return self._shown(entity, None)
        return Response(mimetype="application/json")

    def _update(self, entity: str, sent: Record) -> Response:
        rows = self._rows(entity, sent)
        at = self._place(rows, sent)
        if at is None:
            return self._errors(_NOT_FOUND)
        before = rows[at]
        values = self._filled_in(entity, sent if self.blanks_missing else {**before, **sent})
        wrong = self._mistakes(entity, values)
        if wrong:
            return self._errors(*wrong)
        kept = {name: before[name] for name, value in values.items() if before.get(name) == value}
        rows[at] = {**before, **self._altered(entity, values), **kept}
        return self._saved(entity, rows[at])

    def _list(self, entity: str, sent: Record) -> Response:
        newest = self.clock() - self.search_lag
        rows = self._rows(entity, sent)
        listed = [record for record in rows if self._made_at.get((entity, record["id"]), 0) <= newest]
        if self.page_parameters:
            number_name, size_name = self.page_parameters
            size = positive(sent.get(size_name), 20)
            first = (positive(sent.get(number_name), 1) - 1) * size
            listed = listed[first : first + size]
        listed = listed[: self.list_limit]
        return json_response(listed if self.list_shape == "array" else {self.list_shape: listed})

    def _altered(self, entity: str, values: Record) -> Record:
        """Return the altered record, in which nothing has become blank that must not be."""
        texts = {n: self.altered(v) for n, v in values.items() if n in _FREE_TEXTS and isinstance(v, str)}
        return {**values, **{n: text for n, text in texts.items() if text or n not in self.required.get(entity, ())}}

    def _delete(self, entity: str, sent: Record) -> Response:
        rows = self._rows(entity, sent)
        at = self._place(rows, sent)
        if at is None:
            return self._errors(_NOT_FOUND)
        return json_response({"id": rows.pop(at)["id"]})

    def _rows(self, entity: str, sent: Record) -> list[Record]:
        """The entity's records, or the entries of the dictionary that `type` names."""
        if entity == DICTIONARY:
            return self.dictionaries.get(str(sent.get("type")), [])
        return self.records.setdefault(entity, [])

    def _place(self, rows: list[Record], sent: Record) -> int | None:
        """Where the record with the `id` that was sent is. Numbers may be sent as texts: those of a form always are."""
        wanted = sent.get("id")
        if wanted in (None, ""):
            raise RequestRefusedError(self._errors(_blank("id")))
        return next((at for at, record in enumerate(rows) if str(record["id"]) == str(wanted)), None)

    def _filled_in(self, entity: str, given: Record) -> Record:
        """The entity's whole form."""
        return {name: "" if given.get(name) is None else given[name] for name in self.fields[entity]}

    def _store(self, entity: str, rows: list[Record], values: Record) -> Record:
        record: Record = {"id": self.next_id if self.ids == "number" else str(uuid4()), **values}
        self.next_id += 1
        self._made_at[entity, record["id"]] = self.clock()
        rows.append(record)
        return record

    def _saved(self, entity: str, record: Record) -> Response:
        return self._shown(entity, {"id": record["id"]} if self.answers_only_id else record)

    def _shown(self, entity: str, record: Record | None) -> Response:
        several = [] if record is None else [record]
        shapes: dict[str, object] = {
            "plain": record,
            "data": {"data": record},
            "entity": {entity: record},
            "rows": {"rows": several, "total": len(several)},
            "result": {"result": record},
            "array": several,
            "nested": {"result": {"data": {entity: record}}},
        }
        return json_response(shapes[self.record_shape])

    def _mistakes(self, entity: str, values: Record) -> list[_Mistake]:
        blank = [name for name in self.required.get(entity, ()) if not str(values.get(name, "")).strip()]
        limit = self.max_length
        long = [
            name
            for name, value in values.items()
            if limit is not None and isinstance(value, str) and len(value) > limit
        ]
        size = f"size must be between 0 and {limit}"
        return [_blank(name) for name in blank] + [_Mistake(name, size, "Size") for name in long]

    def _errors(self, *mistakes: _Mistake) -> Response:
        return json_response({"errors": [self._error(mistake) for mistake in mistakes]}, self.error_status)

    def _error(self, mistake: _Mistake) -> str | dict[str, str]:
        if self.error_shape == "strings":
            return f"{mistake.field}: {mistake.message}" if mistake.field else mistake.message
        about = {"field": mistake.field} if mistake.field else {}
        if self.error_shape == "objects":
            return {**about, "message": mistake.message, "code": mistake.code}
        return {**about, "code": mistake.code, "defaultMessage": mistake.message}


def _blank(name: str) -> _Mistake:
    return _Mistake(name, "may not be empty", "NotBlank")

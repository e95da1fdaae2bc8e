"""Egito (CRM): https://egito.pl/pomoc/api and https://egito.pl/api/

Its pages show a pattern for addresses, a few entities and how to get a token, but neither field names nor the form of a
list or an error. docs/vendors/egito.md says which parts are documented and which the bridge assumes.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode

from crm_bridge.errors import (
    LONGEST_FIELD,
    MOST_ERRORS,
    ContractBrokenError,
    FieldError,
    MaybeDoneError,
    NoSuchRecordError,
    NotDoneError,
    RefusedError,
    SignInPausedError,
    VendorError,
)
from crm_bridge.fields import LONGEST_ID
from crm_bridge.ids import has_unseen
from crm_bridge.outbound.findings import Finding, Result
from crm_bridge.outbound.form import form_of
from crm_bridge.outbound.oauth import Grant, Login, Tokens
from crm_bridge.outbound.response import VendorResponse, basic, expect
from crm_bridge.outbound.transport import Deadline, Transport, changing_nothing
from crm_bridge.outbound.vendor import PATIENCE, Vendor
from crm_bridge.services import Services
from crm_bridge.settings import Settings, Tenant
from crm_bridge.storage.links import joined
from crm_bridge.vendors.connector_settings import ConnectorSettings
from crm_bridge.vendors.egito_settings import EgitoSettings, PeopleMap, StaffMember
from crm_bridge.words import plain

VENDOR = "Egito"
MAX_RESPONSE = 16 * 1024 * 1024
"""Bytes: a list may hold all the people of a club."""
MAX_PAGES = 100
LONGEST_LIFE = 24 * 3600
SHORT_LIFE = 120
"""Seconds for which a token is used if the response does not say how long it is valid."""
DICTIONARY = "SelectDictionary"
LISTS = ("list", "items", "data", "rows")
"""The members under which a list is looked for, besides a bare array."""
WRAPPERS = (*LISTS, "result", "record", "item")
"""The members under which a record or a list may be, besides one with the entity's name, in any case."""
DEEPEST = 4
"""Levels at which a record is looked for: the response itself, and what it holds."""
_NAMES = ("name", "value", "label")
_NOT_TOLD = ("rejectedValue", "value", "arguments")
"""Members of an error that repeat what was sent."""
_OAUTH_ERRORS = {
    "access_denied",
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "unauthorized",
    "unauthorized_client",
    "unsupported_grant_type",
}
"""Refusals of a login that are named to the operator. Any other text could repeat what was sent.

Source: https://www.rfc-editor.org/rfc/rfc6749#section-5.2; `access_denied` and `unauthorized` are not in it.
"""
_PASSING_ERRORS = re.compile("temporarily_unavailable|server_error|slow_down|429|5[0-9][0-9]")
"""Errors of a token request that say nothing about the login, and numbers that stand for a status.

Source: https://www.rfc-editor.org/rfc/rfc6749#section-4.1.2.1, https://www.rfc-editor.org/rfc/rfc8628#section-3.5
"""
UNCLEAR_PAUSE = 300
"""Seconds until the credentials are sent again after a response that neither accepts nor refuses them."""

type Record = dict[str, Any]


@dataclass(frozen=True)
class EgitoEntry:
    """An entry of a dictionary; `record` has all members that Egito returns."""

    id: str
    name: str
    record: Record


class Egito(Vendor[EgitoSettings]):
    """The records of one Egito, of any entity: `Account`, `Contact`, `Opportunity`, `Lead`, ...

    Raises RefusedError with Egito's own words where it responds with `errors`, whatever the status.
    """

    name = VENDOR

    def __init__(
        self,
        settings: EgitoSettings,
        transport: Transport,
        deadline: Deadline,
        tokens: Tokens,
        login: str,
        connector: ConnectorSettings | None = None,
    ) -> None:
        """`login` names this version of the tenant's credentials; `connector` is for `check` only."""
        super().__init__(settings, transport, deadline)
        self._connector = connector
        self._tokens = tokens
        self._login = Login(login, VENDOR, self._grant)

    @classmethod
    def blocks(cls) -> tuple[type[Settings], ...]:
        return EgitoSettings, ConnectorSettings

    @classmethod
    def for_tenant(cls, tenant: Tenant, transport: Transport, deadline: Deadline, services: Services) -> Self:
        login = joined(transport.scope.tenant, VENDOR, tenant.version)
        settings, connector = cls._settings_of(tenant), tenant.of(ConnectorSettings)
        return cls(settings, transport, deadline, services.tokens, login, connector)

    def secrets(self) -> tuple[str, ...]:
        secret, password = self.settings.api_secret.get_secret_value(), self.settings.password.get_secret_value()
        return secret, password, basic(self.settings.api_id, secret), basic(self.settings.username, password)

    def sign_in(self) -> None:
        """Get a token, unless there is a valid one. Whether Egito accepts it shows in the next call."""
        self._tokens.get(self._login, self._deadline)

    def create(self, entity: str, fields: Mapping[str, object]) -> str:
        """`POST …/{Entity}/create`: the new record's id. Source: https://egito.pl/api/"""
        return _saved_id(self._save(entity, "create", fields), entity)

    def record(self, entity: str, record_id: str) -> Record:
        """`GET …/{Entity}/get?id=`. Raises NoSuchRecordError.

        Raises ContractBrokenError if the response has another record: then it is not proven that this one is gone.
        Source: https://egito.pl/api/; the parameter and the shape are assumed.
        """
        return self._record(entity, record_id, masks=True)

    def _record(self, entity: str, record_id: str, *, masks: bool) -> Record:
        try:
            parsed = self._ask(entity, "get", {"id": record_id}, masks=masks)
        except RefusedError as error:
            raise NoSuchRecordError(
                f"{error.message} ({entity} {record_id})", vendor=VENDOR, status=error.status
            ) from None
        held = parsed
        for held in _levels(parsed, entity):
            for record in held if isinstance(held, list) else [held]:
                if isinstance(record, dict) and usable_id(record) == record_id:
                    return record
        if held:
            raise ContractBrokenError(
                f"Egito's response is not {entity} {record_id}, or has an unknown form",
                vendor=VENDOR,
            )
        raise NoSuchRecordError(f"Egito shows no {entity} {record_id}", vendor=VENDOR)

    def records(self, entity: str, parameters: Mapping[str, str] | None = None) -> list[Record]:
        """`GET …/{Entity}/list`. Source: https://egito.pl/api/; parameters, pages and the list's shape are assumed."""
        paging, parameters = self.settings.paging, dict(parameters or {})
        if paging is None:
            return _listed(self._ask(entity, "list", parameters), entity)
        found: dict[str, Record] = {}
        for page in range(paging.first, paging.first + MAX_PAGES):
            place = {paging.page: str(page), paging.size: str(paging.page_size)}
            listed = _listed(self._ask(entity, "list", parameters | place), entity)
            records = {str(record.get("id")): record for record in listed}
            if records.keys() <= found.keys():  # nothing new: it was the last one, or pages are not what they seem
                return list(found.values())
            found |= records
        raise ContractBrokenError(f"Egito's list of {entity} does not end", vendor=VENDOR)

    def page(self, entity: str, number: int, size: int) -> tuple[list[Record], bool]:
        """Return a part of the list, the first is number 1, and whether there may be more.

        Egito is asked for this page if the tenant's settings say how, else for the whole list. Source: see `records`.
        """
        paging, begin = self.settings.paging, (number - 1) * size
        if paging is None:
            records = _listed(self._ask(entity, "list", {}), entity)
            return records[begin : begin + size], len(records) > begin + size
        place = {paging.page: str(paging.first + number - 1), paging.size: str(size)}
        records = _listed(self._ask(entity, "list", place), entity)
        return records, len(records) >= size

    def update(self, entity: str, record_id: str, changes: Mapping[str, object]) -> bool:
        """`POST …/{Entity}/update` of the whole record with `changes` in it: a save may blank what it is not sent.

        False if there was nothing to change. Raises NoSuchRecordError. Source: https://egito.pl/api/
        """
        try:
            record = self._record(entity, record_id, masks=False)  # a mask must not be written back
        except ContractBrokenError as error:  # nothing was to be done so far
            raise NotDoneError(error.message, vendor=VENDOR, status=error.status) from None
        if all(name in record and record[name] == value for name, value in changes.items()):
            return False
        _saved_id(self._save(entity, "update", {**record, **changes}), entity)
        return True

    def delete_record(self, entity: str, record_id: str) -> None:
        """`POST …/{Entity}/delete`. Source: https://egito.pl/api/ describes deleting; its address is assumed."""
        _saved(self._save(entity, "delete", {"id": record_id}))

    def dictionary(self, kind: str) -> list[EgitoEntry]:
        """`GET …/SelectDictionary/list?type=`. Source: https://egito.pl/api/; what an entry has is assumed."""
        return [
            EgitoEntry(record_id, name, record)
            for record in self.records(DICTIONARY, {"type": kind})
            if (record_id := usable_id(record))
            and (name := next((str(record[member]) for member in _NAMES if record.get(member)), None))
        ]

    def staff(self) -> list[StaffMember]:
        """Return the records of the entity that is the staff, or the list in the settings."""
        where = self.settings.staff
        if where.people is not None:
            return list(where.people)
        return [
            StaffMember(
                id=record_id,
                email=str(record.get(where.email) or "") or None,
                name=" ".join(str(record[part]) for part in where.name if record.get(part)) or None,
            )
            for record in self.records(where.entity)
            if (record_id := usable_id(record))
        ]

    def check(self) -> Iterator[Finding]:
        """Also compare the field maps with a real record. Names of fields only are shown: the values are people's."""
        yield self.asked("token", lambda egito: egito.sign_in(), lambda _: "signed in")
        if self._connector is None:
            entities = ", ".join(sorted(self.settings.records))
            result = Result.NOT_CHECKED if entities else Result.FAILED
            yield Finding(VENDOR, "connector", result, f"not set up; /records takes {entities or 'no entity'}")
            return
        clubs = ", ".join(f"{ours} is {club.connector_id}" for ours, club in self._connector.clubs.items())
        yield Finding(VENDOR, "clubs", Result.OK, clubs)
        if kind := self.settings.lead_sources.dictionary:
            yield self.asked(
                f"dictionary {kind}",
                lambda egito: egito.dictionary(kind),
                lambda entries: f"{len(entries)} lead sources",
            )
        yield self.asked("staff", lambda egito: egito.staff(), lambda staff: f"{len(staff)} people")
        for people, its_map in (("prospects", self.settings.prospects), ("members", self.settings.members)):
            yield self._compared(people, its_map, self._connector.club_fields())

    def _compared(self, people: str, its_map: PeopleMap, others: set[str]) -> Finding:
        check = f"field map of {people}"
        try:
            records = self.within(Deadline(PATIENCE)).records(its_map.entity)
        except VendorError as error:
            return Finding(VENDOR, check, Result.FAILED, error.message)
        if not records:
            return Finding(VENDOR, check, Result.NOT_CHECKED, f"there is no {its_map.entity} to compare with")
        missing, _ = its_map.compared(records[0], *others)
        if missing:
            what_to_do = f"Correct egito.{people}, or ask Egito what the fields are called."
            return Finding(VENDOR, check, Result.WARNING, f"a {its_map.entity} lacks {', '.join(missing)}", what_to_do)
        return Finding(VENDOR, check, Result.OK, f"a {its_map.entity} has all of its fields")

    def create_entry(self, kind: str, name: str) -> str:
        """Return a new entry's id. This is not documented: the same call as for any entity is assumed."""
        return self.create(DICTIONARY, {"type": kind, "name": name})

    def update_entry(self, kind: str, entry: EgitoEntry, name: str) -> None:
        """Rename an entry. This is not documented either."""
        member = next((member for member in _NAMES if entry.record.get(member)), "name")
        _saved(self._save(DICTIONARY, "update", {**entry.record, "type": kind, member: name}))

    def _ask(self, entity: str, method: str, parameters: Mapping[str, str], *, masks: bool = True) -> Any:
        with changing_nothing():
            return _parsed(self._signed_in("GET", entity, method, parameters), masks=masks)

    def _save(self, entity: str, method: str, fields: Mapping[str, object]) -> VendorResponse:
        return self._signed_in("POST", entity, method, {}, fields)

    def _signed_in(
        self,
        verb: str,
        entity: str,
        method: str,
        parameters: Mapping[str, str],
        fields: Mapping[str, object] | None = None,
    ) -> VendorResponse:
        token = self._tokens.get(self._login, self._deadline)
        response = self._with_token(verb, f"{entity}/{method}", parameters, fields, token)
        if response.status == 401:  # it has expired or was revoked; a request that is not let in is not done
            token = self._tokens.get(self._login, self._deadline, rejected=token)
            response = self._with_token(verb, f"{entity}/{method}", parameters, fields, token)
        return response

    def _with_token(
        self, verb: str, path: str, parameters: Mapping[str, str], fields: Mapping[str, object] | None, token: str
    ) -> VendorResponse:
        settings = self.settings
        headers = {"Authorization": f"Bearer {token}"} if settings.token_in == "header" else {}  # noqa: S105
        query = {**parameters, **({} if headers else {"access_token": token})}
        as_form = settings.body_format == "form"
        return self.call(
            verb,
            f"/services/restapi/json/{path}" + (f"?{urlencode(query)}" if query else ""),
            None if as_form else fields,
            form=form_of(fields, VENDOR) if as_form and fields is not None else None,
            headers=headers,
            secrets=(token,),
            max_response=MAX_RESPONSE,
        )

    def _grant(self, refresh_token: str | None, deadline: Deadline) -> Grant:
        """Return a token: by the refresh token if there is one; if that is refused, by the password."""
        settings = self.settings
        client = {"client_id": settings.api_id, "client_secret": settings.api_secret.get_secret_value()}
        if refresh_token:
            with suppress(SignInPausedError):
                refresh = {"grant_type": "refresh_token", "refresh_token": refresh_token}
                return self._token({**refresh, **client}, deadline, refresh_token)
        password = {"username": settings.username, "password": settings.password.get_secret_value()}
        return self._token({"grant_type": "password", **client, **password}, deadline)

    def _token(self, parameters: Mapping[str, str], deadline: Deadline, *secrets: str) -> Grant:
        """`POST /oauth/token`. Source: https://egito.pl/pomoc/api; the form of a refusal is assumed (RFC 6749).

        The address contains the password: it must not be in a message or a log.
        """
        in_query = self.settings.token_parameters == "query"  # noqa: S105
        with changing_nothing():
            response = self.within(deadline).call(
                "POST",
                "/oauth/token" + (f"?{urlencode(parameters)}" if in_query else ""),
                form={} if in_query else parameters,
                secrets=secrets,
                is_login=True,
            )
        members, status = _token_members(response), response.status
        errors = _token_errors(members)
        is_passing = status in (408, 429) or status >= 500 or any(map(_PASSING_ERRORS.fullmatch, errors))
        if not is_passing and _is_refusal(status, errors):
            named = next((error for error in errors if error in _OAUTH_ERRORS), status)
            raise SignInPausedError(f"Egito refused the login ({named})", vendor=VENDOR, status=status)
        try:
            expect(replace(response, body=b""), 200)  # its words may be the address, in whatever spelling
            return _granted(members)
        except (RefusedError, MaybeDoneError) as failed:  # it is not about the login, and a token harms nobody
            failure: NotDoneError = NotDoneError(failed.message, vendor=VENDOR, status=failed.status)
        except NotDoneError as failed:
            failure = failed
        if not is_passing:
            failure.retry_after = failure.retry_after or UNCLEAR_PAUSE
        raise failure


def _token_members(response: VendorResponse) -> Mapping[str, object]:
    """Return the members of a token response: those of a JSON object, or the fields of a form (as GitHub sends)."""
    parsed = _json(response, masks=False)
    if isinstance(parsed, dict):
        return parsed
    text = response.body.decode("ascii", errors="replace").strip()
    return dict(parse_qsl(text)) if re.fullmatch("[A-Za-z0-9%+&=._~*-]+", text) else {}


def _token_errors(members: Mapping[str, object]) -> list[str]:
    """Return the codes in `error`, which is a text, or an object with a code under one of several names."""
    error = members.get("error")
    codes = [error.get(name) for name in ("code", "status", "type", "error")] if isinstance(error, dict) else [error]
    return [str(code).strip().casefold() for code in codes if code]


def _is_refusal(status: int, errors: list[str]) -> bool:
    """Return whether a token response refuses the login: any 401, and an error with 200, 400 or 403."""
    if status == HTTPStatus.UNAUTHORIZED:
        return True
    # A web server that fails by itself writes the status's own phrase there: {"error": "Bad Request"}.
    return status in (200, 400, 403) and bool(errors) and HTTPStatus(status).phrase.casefold() not in errors


def _granted(parsed: Mapping[str, object]) -> Grant:
    token = parsed.get("access_token")
    if not isinstance(token, str) or not re.fullmatch("[!-~]+", token):
        raise NotDoneError("Egito answered with no token", vendor=VENDOR, status=200)
    life, refresh = parsed.get("expires_in"), parsed.get("refresh_token")
    seconds = life if isinstance(life, int) and not isinstance(life, bool) else None
    return Grant(
        access_token=token,
        expires_in=SHORT_LIFE if seconds is None else min(max(seconds, 0), LONGEST_LIFE),
        refresh_token=refresh if isinstance(refresh, str) and refresh else None,
    )


def _parsed(response: VendorResponse, *, masks: bool = True) -> Any:
    """Return the parsed response, if it is no failure. Raises VendorError.

    A failure is an object with a list of `errors`, and comes with status 200 as well.
    """
    parsed = _json(response, masks=masks)
    errors = parsed.get("errors") if isinstance(parsed, dict) else None
    if errors and (response.status < 300 or response.status in (400, 404, 409, 422)):
        reason = response.shown(_flat(errors)) or "it did not say why"
        refused = RefusedError(f"Egito: {reason}", vendor=VENDOR, status=response.status)
        refused.fields = [FieldError(name, plain(response.shown(text))) for name, text in _by_field(errors)]
        raise refused
    expect(response, *range(200, 300))
    if parsed is None and response.body.strip() not in (b"", b"null"):
        raise ContractBrokenError("Egito's response is not JSON", vendor=VENDOR, status=response.status)
    return parsed


def _json(response: VendorResponse, *, masks: bool) -> Any:
    """Return the parsed response; None if it is not JSON."""
    try:
        return response.json(masks=masks)
    except ContractBrokenError:
        return None


def _saved(response: VendorResponse) -> Record:
    parsed = _parsed(response)
    if not isinstance(parsed, dict):
        raise ContractBrokenError("Egito's response says neither that it saved nor why it did not", vendor=VENDOR)
    return parsed


def usable_id(record: Record) -> str | None:
    """Return the id of a record as text; None if it has none, or one with invisible characters."""
    value = record.get("id")
    usable = isinstance(value, str | int) and not isinstance(value, bool) and 0 < len(str(value)) <= LONGEST_ID
    return str(value) if usable and not has_unseen(str(value)) else None


def _saved_id(response: VendorResponse, entity: str) -> str:
    """Return the id of the record that was saved. Raises VendorError."""
    for held in _levels(_parsed(response), entity):
        if isinstance(held, dict) and (record_id := usable_id(held)):
            return record_id
    raise ContractBrokenError("Egito answered with a record that has no id", vendor=VENDOR)


def _listed(parsed: Any, entity: str) -> list[Record]:
    found = next((held for held in _levels(parsed, entity) if isinstance(held, list)), None)
    if found is None or not all(isinstance(record, dict) for record in found):
        raise ContractBrokenError("Egito returned no list", vendor=VENDOR)
    return found


def _levels(parsed: Any, entity: str) -> Iterator[Any]:
    """Yield a response, then what it holds under a known name or as its only element, and so on to the record."""
    for _ in range(DEEPEST):
        yield parsed
        if isinstance(parsed, list) and len(parsed) == 1:
            parsed = parsed[0]
        elif isinstance(parsed, dict) and usable_id(parsed) is None:
            members = {name.casefold(): value for name, value in parsed.items()}
            held = [members[name] for name in (*WRAPPERS, entity.casefold()) if name in members]
            filled = [value for value in held if isinstance(value, dict | list)]
            if not filled and not (held == [None] and len(members) == 1):
                return
            parsed = filled[0] if filled else None
        else:
            return


def _flat(errors: object) -> str:
    """Return `errors` as one line: they may be texts, objects with a field and a message, or an object by field."""
    if isinstance(errors, list | tuple):
        return "; ".join(filter(None, map(_flat, errors)))
    if isinstance(errors, dict):
        message = next((errors[name] for name in ("message", "defaultMessage", "code") if errors.get(name)), None)
        if message is not None:
            return ": ".join(filter(None, (_flat(errors.get("field")), _flat(message))))
        told = {name: value for name, value in errors.items() if value and name not in _NOT_TOLD}
        return "; ".join(f"{name}: {_flat(value)}" for name, value in told.items())
    return "" if errors is None else str(errors)


def _by_field(errors: object) -> Iterator[tuple[str, str]]:
    """Yield the field and the text of those of the first MOST_ERRORS `errors` that name a field."""
    for error in errors[:MOST_ERRORS] if isinstance(errors, list) else []:
        if isinstance(error, dict) and isinstance(error.get("field"), str) and error["field"]:
            yield error["field"][:LONGEST_FIELD], _flat({**error, "field": None})

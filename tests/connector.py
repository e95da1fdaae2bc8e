"""The InTouch Connector as the caller that it is: it saves prospects and members of one club at our API.

https://intouch.atlassian.net/wiki/spaces/INTKB/pages/5537827/2.+Partner+Integration+Guide

Documented: the Connector keeps the id that a save returns and uses it for later updates; it knows a person by a UUID
of its own; the tags of a person and the formats of their values; it never creates staff, but fetches the whole list and
looks for the same email, and a lead whose owner isn't found arrives without one; lead sources are matched as well, and
the missing ones are created; it logs every transfer as INFO, WARNING or ERROR.

Ours, because the guide leaves the technology to the partner or is silent: the paths, Basic authentication, JSON, the
XML around the tags, the literal EX-MEMBER and that ex-members are saved as members, when a request is sent again and
how often, that case and outer blanks don't matter in a match, that the lists are fetched at their first use, and that a
person isn't sent while a list can't be had or a lead source can't be created.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote
from xml.etree import ElementTree as ET

import requests
from defusedxml.ElementTree import fromstring

type Language = Literal["json", "xml"]
type Result = Literal["INFO", "WARNING", "ERROR"]

NO_ANSWER = 0
"""Stands where the HTTP status would be when the connection failed, broke or timed out."""

_TIMEOUT = 30
_LOST = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
_RESULTS: dict[str, Result] = {"INFO": "INFO", "WARNING": "WARNING", "ERROR": "ERROR"}
_MEMBER_TYPES = ("MEMBER", "EX-MEMBER")


@dataclass
class Person:
    """The Connector's record of one person.

    A tag that `fields` doesn't have is left as it is at our side, one with an empty text is emptied there. The same
    holds for the owner and the lead source, which win over the tags leadOwner and leadSource in `fields`.
    """

    uuid: str
    """The Connector's own id; an empty one isn't sent."""
    fields: dict[str, str]
    """Texts by tag name, such as firstname or userType; nothing is checked before it is sent."""
    record_id: str | None = None
    """Our id, once a response had it."""
    owner_email: str | None = None
    lead_source_name: str | None = None


@dataclass(frozen=True)
class StaffMember:
    id: str
    email: str
    name: str


@dataclass(frozen=True)
class LeadSource:
    id: str
    name: str
    active: bool


@dataclass(frozen=True)
class LogLine:
    """The entry about one save in the Connector's log, which club staff can read."""

    result: Result
    who: str
    """The person's UUID."""
    text: str
    status: int


@dataclass(frozen=True)
class ConnectorResponse:
    """`body` is empty if there was no answer, or one in another language. In XML all values are texts."""

    status: int
    result: Result
    message: str
    record_id: str | None = None
    body: dict[str, object] = field(default_factory=dict)

    @property
    def unsettled(self) -> bool:
        """The same request may fare better later."""
        return self.status in (NO_ANSWER, 409, 429) or self.status >= 500


class CallFailedError(Exception):
    """A list can't be had, or a lead source can't be saved; `answer` is the last one that came."""

    def __init__(self, answer: ConnectorResponse) -> None:
        super().__init__(answer.message)
        self.answer = answer


class Connector:
    """The Connector's side of one club, with its log."""

    def __init__(
        self,
        url: str,
        club_id: str,
        *,
        user: str,
        password: str,
        language: Language = "json",
        attempts: int = 3,
        pause: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
        session: requests.Session | None = None,
        sends_unknown_owner: bool = False,
    ) -> None:
        """`user` is the client id, `password` the API key. There are `pause` seconds between the attempts.

        With `sends_unknown_owner` the email of an owner who isn't in the staff list is sent in place of the id.
        """
        self.log: list[LogLine] = []
        self._url = f"{url.rstrip('/')}/connector/clubs/{quote(club_id, safe='')}"
        self._provider = {"clientID": user, "clubID": club_id}
        self._auth = user, password
        self._language: Language = language
        self._attempts = attempts
        self._pause = pause
        self._sleep = sleep
        self._session = session or requests.Session()
        self._sends_unknown_owner = sends_unknown_owner
        self._staff: list[StaffMember] | None = None
        self._lead_sources: list[LeadSource] | None = None

    def fetch_staff(self) -> list[StaffMember]:
        """Later saves look for their owner in this list. Raises CallFailedError."""
        listed = _rows(self._ask("GET", "/staff").body, "staff")
        self._staff = [StaffMember(_text(row, "id"), _text(row, "email"), _text(row, "name")) for row in listed]
        return list(self._staff)

    def fetch_lead_sources(self) -> list[LeadSource]:
        """Later saves look for their lead source in this list. Raises CallFailedError."""
        body = self._ask("GET", "/lead-sources").body
        self._lead_sources = [_lead_source(row) for row in _rows(body, "leadSources", "leadSource")]
        return list(self._lead_sources)

    def lead_source(self, name: str) -> str:
        """The id of the lead source with this name, which is created if the list hasn't got it.

        Raises CallFailedError.
        """
        known = self.fetch_lead_sources() if self._lead_sources is None else self._lead_sources
        found = next((source for source in known if _same(source.name, name)), None)
        return (found or self._save_lead_source("POST", "/lead-sources", {"name": name})).id

    def update_lead_source(self, lead_source_id: str, *, name: str, active: bool = True) -> LeadSource:
        """Raises CallFailedError."""
        path = f"/lead-sources/{quote(lead_source_id, safe='')}"
        return self._save_lead_source("PUT", path, {"name": name, "active": active})

    def save(self, person: Person, *, by_id: bool = True) -> ConnectorResponse:
        """The last answer to it, which is in the log too. Our id is learned from every answer that has one.

        Without `by_id` it is sent as if no response had ever had our id: the UUID alone says who it is.
        """
        try:
            fields = self._fields(person)
        except CallFailedError as error:
            answer = error.answer
        else:
            record_id = person.record_id if by_id else None
            method, path = _target(fields, record_id)
            for answer in self._answers(method, path, self._user(person.uuid, record_id, fields)):
                person.record_id = answer.record_id or person.record_id
        self.log.append(LogLine(answer.result, person.uuid, answer.message, answer.status))
        return answer

    def _fields(self, person: Person) -> dict[str, str]:
        fields = dict(person.fields)
        if person.owner_email is not None:
            owner = self._owner(person.owner_email)
            if owner is None:
                fields.pop("leadOwner", None)
            else:
                fields["leadOwner"] = owner
        if person.lead_source_name is not None:
            fields["leadSource"] = self.lead_source(person.lead_source_name) if person.lead_source_name else ""
        return fields

    def _owner(self, email: str) -> str | None:
        if not email:
            return ""
        staff = self.fetch_staff() if self._staff is None else self._staff
        found = next((member.id for member in staff if _same(member.email, email)), None)
        return found or (email if self._sends_unknown_owner else None)

    def _save_lead_source(self, method: str, path: str, lead_source: Mapping[str, str | bool]) -> LeadSource:
        if self._language == "json":
            document = _json_document(lead_source)
        else:
            root = ET.Element("leadSource")
            _add_texts(root, lead_source)
            document = _xml_document(root)
        answer = self._ask(method, path, document)
        saved = _lead_source(next(iter(_rows(answer.body, "leadSource")), answer.body))
        if not saved.id:
            raise CallFailedError(answer)
        if self._lead_sources is not None:
            self._lead_sources = [known for known in self._lead_sources if known.id != saved.id] + [saved]
        return saved

    def _user(self, uuid: str, record_id: str | None, fields: dict[str, str]) -> bytes:
        ids = {name: value for name, value in (("recordID", record_id), ("uuid", uuid)) if value}
        if self._language == "json":
            return _json_document({**ids, **fields})
        root = ET.Element("user")
        _add_texts(ET.SubElement(root, "providerInfo"), {**self._provider, **ids})
        _add_texts(ET.SubElement(root, "userInfo"), fields)
        return _xml_document(root)

    def _ask(self, method: str, path: str, document: bytes | None = None) -> ConnectorResponse:
        *_, answer = self._answers(method, path, document)
        if answer.result == "ERROR":
            raise CallFailedError(answer)
        return answer

    def _answers(self, method: str, path: str, document: bytes | None) -> Iterator[ConnectorResponse]:
        """One for each attempt; the request stays the same, whatever the answers tell."""
        for attempt in range(self._attempts):
            if attempt:
                self._sleep(self._pause)
            answer = self._send(method, path, document)
            yield answer
            if not answer.unsettled:
                break

    def _send(self, method: str, path: str, document: bytes | None) -> ConnectorResponse:
        mimetype = f"application/{self._language}"
        headers = {"Accept": mimetype} | ({} if document is None else {"Content-Type": mimetype})
        try:
            response = self._session.request(
                method,
                self._url + path,
                data=document,
                headers=headers,
                auth=self._auth,
                timeout=_TIMEOUT,
                allow_redirects=False,  # a redirected POST would become a GET
            )
        except _LOST:
            return ConnectorResponse(NO_ANSWER, "ERROR", "The partner system did not answer.")
        return _answer(response, self._language)


def _target(fields: Mapping[str, str], record_id: str | None) -> tuple[str, str]:
    kind = "members" if fields.get("userType") in _MEMBER_TYPES else "prospects"
    return ("PUT", f"/{kind}/{quote(record_id, safe='')}") if record_id else ("POST", f"/{kind}")


def _same(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()


def _json_document(members: Mapping[str, object]) -> bytes:
    return json.dumps(members, ensure_ascii=False).encode()


def _xml_document(root: ET.Element) -> bytes:
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def _add_texts(parent: ET.Element, values: Mapping[str, str | bool]) -> None:
    for name, value in values.items():
        ET.SubElement(parent, name).text = value if isinstance(value, str) else str(value).lower()


def _answer(response: requests.Response, language: Language) -> ConnectorResponse:
    status = response.status_code
    body = _read(response, language)
    if body is None:
        return ConnectorResponse(
            status, "ERROR", f"The partner system answered {status} without readable {language.upper()}."
        )
    outcome = _RESULTS.get(_text(body, "result"), "INFO" if status // 100 == 2 else "ERROR")
    message = _text(body, "message") or f"The partner system answered {status}."
    return ConnectorResponse(status, outcome, message, _text(body, "recordID") or None, body)


def _read(response: requests.Response, language: Language) -> dict[str, object] | None:
    """None if the answer isn't an object in this language, or only says that it is."""
    mimetype = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if not mimetype.endswith(language):
        return None
    try:
        body: object = response.json() if language == "json" else _members(fromstring(response.content))
    except (ValueError, ET.ParseError):  # the JSON decoder's and defusedxml's errors are ValueErrors
        return None
    return body if isinstance(body, dict) else None


def _members(element: ET.Element) -> dict[str, object]:
    """A child with children of its own becomes an object in a list, so that one and many look the same."""
    members: dict[str, object] = {}
    for child in element:
        name = child.tag.rpartition("}")[2]
        if len(child):
            earlier = members.get(name)
            members[name] = [*(earlier if isinstance(earlier, list) else []), _members(child)]
        else:
            members[name] = child.text or ""
    return members


def _rows(body: Mapping[str, object], *names: str) -> list[dict[str, object]]:
    listed = next((body[name] for name in names if name in body), None)
    rows = listed if isinstance(listed, list) else [listed]
    return [row for row in rows if isinstance(row, dict)]


def _lead_source(row: Mapping[str, object]) -> LeadSource:
    return LeadSource(_text(row, "id"), _text(row, "name"), _text(row, "active").lower() != "false")


def _text(row: Mapping[str, object], name: str) -> str:
    value = row.get(name)
    return "" if value is None else str(value)

"""Requests to connector_receiver in JSON and in XML, and what its responses say in either. No tests."""

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4
from xml.sax.saxutils import escape

import requests
from defusedxml.ElementTree import fromstring

from local.vendors.egito import CLIENT, CLUB
from tests.connector import Connector, Language, Person
from tests.integration.conftest import Crm, rows
from tests.stack import Stack

JSON, XML = "application/json", "application/xml"
LANGUAGES: tuple[Language, ...] = ("json", "xml")
MANDATORY = {"firstname": "Ada", "lastname": "Nowak", "userStatus": "ACTIVE", "userType": "PROSPECT"}
IDS = ("recordID", "uuid", "clientID", "clubID")
"""The elements of `providerInfo`; all others of a person are in `userInfo`."""

type Body = str | Mapping[str, object]
type Document = str | bytes


def tags(fields: Mapping[str, object]) -> str:
    return "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in fields.items())


def with_more(more: str, provider: str = "", before: str = "") -> str:
    """A person in XML who has these elements as well."""
    provider = f"<providerInfo>{provider}</providerInfo>" if provider else ""
    return f"{before}<user>{provider}<userInfo>{tags(MANDATORY)}{more}</userInfo></user>"


def with_name(name: str, before: str = "") -> str:
    """A person in XML with this, unescaped, as the last name."""
    return with_more("", before=before).replace("Nowak", name)


PERSON = with_more("")


def body(language: Language, **changes: object) -> Body:
    """A person with the mandatory fields and these, as either language writes it."""
    fields = {**MANDATORY, **changes}
    if language == "json":
        return fields
    provider = tags({name: value for name, value in fields.items() if name in IDS})
    provider = f"<providerInfo>{provider}</providerInfo>" if provider else ""
    others = tags({name: value for name, value in fields.items() if name not in IDS})
    return f"<user>{provider}<userInfo>{others}</userInfo></user>"


def send(
    crm: Crm,
    content: Body | bytes | None = None,
    kind: str | None = None,
    *,
    method: str = "POST",
    path: str = "/prospects",
    club: str = CLUB,
    **headers: str | None,
) -> requests.Response:
    """A mapping goes as JSON, a text as XML, unless `kind` says otherwise. A header of None is not sent."""
    is_json = isinstance(content, Mapping)
    data = json.dumps(content).encode() if is_json else content.encode() if isinstance(content, str) else content
    given = {"Content-Type": None if content is None else kind or (JSON if is_json else XML)}
    url = f"{crm.stack.url}/connector/clubs/{club}{path}"
    return crm.session.request(method, url, data=data, headers={**crm.headers, **given, **headers}, timeout=60)


def read(crm: Crm, path: str, accept: str | None, **options: Any) -> requests.Response:
    return send(crm, method="GET", path=path, Accept=accept, **options)


@dataclass(frozen=True)
class Summary:
    """Return what a response says to the Connector, in whichever language."""

    language: str
    message: str
    fields: list[str] = field(default_factory=list)
    """Those that are named in `errors`."""
    record_id: str | None = None


def summary(response: requests.Response, result: str) -> Summary:
    """Read a response to a save, which must have this result."""
    failed = response.status_code >= 400
    kind, _, charset = response.headers["Content-Type"].partition("; charset=")
    language = kind.removeprefix("application/problem+" if failed else "application/")
    names = ("result", "message", "recordID")
    if language == "xml":
        assert charset == "utf-8"
        root = fromstring(response.content)
        assert root.tag == ("problem" if failed else "response")
        said, message, record_id = (root.findtext(name) for name in names)
        fields = [error.findtext("field") or "" for error in root.iter("error")]
    else:
        assert language == "json"
        said, message, record_id = (response.json().get(name) for name in names)
        fields = [error["field"] for error in response.json().get("errors", ())]
    assert said == result, response.text
    expect_sentence(message or "")
    return Summary(language, message or "", fields, record_id)


def refused(response: requests.Response, status: int, language: str | None = None, case: object = "") -> Summary:
    assert response.status_code == status, (case, response.text[:500])
    said = summary(response, "ERROR")
    assert language in (None, said.language), case
    return said


def expect_sentence(message: str) -> None:
    assert message
    assert message == message.strip()
    assert len(message.splitlines()) == 1, repr(message)
    assert len(message) <= 300
    assert not {"<", ">"} & set(message), message
    for trace in ("Traceback", "Error(", "Exception", ".py", "line 1, in"):
        assert trace not in message


def contacts(stack: Stack) -> list[dict[str, Any]]:
    return stack.egito.records["Contact"]


def expect_untouched(stack: Stack, case: str = "") -> None:
    """Egito was not called, nobody else either, and the bridge keeps nothing."""
    assert [vendor.seen for vendor in stack.vendors] == [[]] * len(stack.vendors), case
    assert [rows(table) for table in ("OPERATIONS_TABLE", "LINKS_TABLE", "PEOPLE_TABLE")] == [[], [], []], case


def settle(crm: Crm) -> None:
    """Let time pass until all that was accepted is over."""
    for _ in range(40):
        states = {row["state"] for row in rows("OPERATIONS_TABLE") if "state" in row}
        if states <= {"succeeded", "rejected", "needs_review"}:
            return
        crm.stack.deliver_due(after=60)
    raise AssertionError(f"not settled: {rows('OPERATIONS_TABLE')}")


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def connector(stack: Stack, session: requests.Session, language: Language, **options: Any) -> Connector:
    return Connector(
        stack.url, CLUB, user=CLIENT, password=stack.api_key, language=language, session=session, **options
    )


def ada(**changes: str) -> Person:
    return Person(str(uuid4()), {**MANDATORY, **changes})

"""No password, key or token of Egito is shown by an error, a log, a record, a response or a metric."""

import html
import json
import traceback
from collections.abc import Callable
from io import StringIO
from urllib.parse import quote, quote_plus, unquote_plus

import pytest
from werkzeug.urls import uri_to_iri
from werkzeug.wrappers import Request, Response

from crm_bridge.errors import NotDoneError, VendorError
from crm_bridge.outbound import oauth
from crm_bridge.outbound.transport import Deadline
from crm_bridge.vendors.egito import UNCLEAR_PAUSE
from local.vendors.egito import CLUB, EgitoSimulator
from local.vendors.simulator import Kind
from tests.integration.conftest import Crm, cold, rows
from tests.integration.egito.calls import put_egito, save
from tests.integration.egito.conftest import (
    API_SECRET,
    LIFE,
    PASSWORD,
    USER,
    WRONA,
    Connect,
    Wire,
    answer,
    settings_of,
)


def spellings(secret: str) -> set[str]:
    """The ways in which a secret may be written."""
    quoted = {quote(secret, safe) for safe in ("", "/", "/:?=&@")} | {quote_plus(secret)}
    seen = {uri_to_iri(f"?{spelling}").removeprefix("?") for spelling in quoted}
    return {secret, *quoted, *seen, *map(str.lower, quoted), json.dumps(secret)[1:-1], html.escape(secret)}


ECHOES: dict[str, Callable[[str], Response]] = {
    "500, text": lambda url: answer(500, url.encode(), "text/plain"),
    "500, decoded": lambda url: answer(500, unquote_plus(url).encode(), "text/plain"),
    "500, JSON": lambda url: answer(500, {"message": f"failed: POST {url}"}),
    "500, JSON decoded": lambda url: answer(500, {"message": f"failed: POST {unquote_plus(url)}"}),
    "500, page": lambda url: answer(500, f"<html><p>{html.escape(url)}</p></html>".encode(), "text/html"),
    "400, error": lambda url: answer(400, {"error": url, "error_description": unquote_plus(url)}),
    "401": lambda url: answer(401, {"error": url, "message": unquote_plus(url)}),
    "429": lambda url: answer(429, {"message": url}),
    "404": lambda url: answer(404, {"errors": [{"message": unquote_plus(url)}]}),
    "200, no JSON": lambda url: answer(200, f"{{{url} {unquote_plus(url)}".encode()),
    "200, no token": lambda url: answer(200, {"message": url, "access_token": unquote_plus(url) + "\n"}),
    "redirect": lambda url: Response("", 302, {"Location": url}),
}
ODD_ECHOES: dict[str, Callable[[str], Response]] = {
    "lower case": lambda url: answer(500, url.lower().encode(), "text/plain"),
    "partly quoted": lambda url: answer(500, quote(unquote_plus(url), "/:?=&@").encode(), "text/plain"),
    "as shown by a browser": lambda url: answer(500, {"message": uri_to_iri(url)}),
    "escaped": lambda url: answer(500, {"message": html.escape(unquote_plus(url))}),
    "as in JSON": lambda url: answer(500, json.dumps(unquote_plus(url))[1:-1].encode(), "text/plain"),
}


def shown(error: BaseException) -> str:
    words = [str(error), repr(error), *traceback.format_exception(error)]
    return "".join([*words, error.message if isinstance(error, VendorError) else ""])


def expect_secret(texts: str, *secrets: str) -> None:
    found = [spelling for secret in secrets for spelling in spellings(secret) if spelling in texts]
    assert found == []


def failing_echo(wire: Wire, echo: Callable[[str], Response]) -> None:
    """Tokens are refused in a way that repeats the address, exactly as it was asked for."""
    wire.on_token = lambda request: echo(request.environ["REQUEST_URI"])


def refresh_token(egito: EgitoSimulator, connect: Connect) -> str:
    """One that is known to the client, and is used with the next call."""
    egito.token_seconds = 0
    connect().sign_in()
    *_, grant = egito.grants.values()
    return grant.refresh_token


def fails_to_create(connect: Connect, where: str = "header") -> str:
    """All that is shown of the error of a create."""
    with pytest.raises(VendorError) as caught:
        connect(token_in=where).create("Contact", WRONA)
    return shown(caught.value)


def test_no_secret_is_shown_when_a_token_call_fails(wire: Wire, connect: Connect) -> None:
    for is_refreshing in (False, True):
        for echo in (*ECHOES.values(), *ODD_ECHOES.values()):
            connect.forget()
            wire.on_token = None
            held = refresh_token(wire.egito, connect) if is_refreshing else "none"
            failing_echo(wire, echo)
            expect_secret(fails_to_create(connect), PASSWORD, API_SECRET, held)


@pytest.mark.parametrize("kind", [Kind.REFUSE, Kind.CLOSE_BEFORE, Kind.CLOSE_AFTER])
def test_no_secret_is_shown_when_the_connection_fails(egito: EgitoSimulator, connect: Connect, kind: Kind) -> None:
    held = refresh_token(egito, connect)
    if kind is Kind.REFUSE:
        egito.stop()
    else:
        egito.fail_token(kind, times=2)
    with pytest.raises(NotDoneError) as caught:
        connect().create("Contact", WRONA)
    expect_secret(shown(caught.value), PASSWORD, API_SECRET, held)


def test_no_secret_is_shown_when_egito_repeats_the_token_of_a_call(wire: Wire, connect: Connect) -> None:
    for status in (200, 400, 401, 500):

        def echo(request: Request, status: int = status) -> Response:
            text = f"{request.url} {request.headers.get('Authorization')} {PASSWORD} {quote_plus(API_SECRET)}"
            return answer(status, {"errors": [{"field": "x", "message": text}], "message": text})

        wire.on_call = echo
        for where in ("header", "query"):
            text = fails_to_create(connect, where)
            *_, grant = wire.egito.grants.values()
            expect_secret(text, PASSWORD, API_SECRET, grant.access_token, grant.refresh_token)


def test_no_secret_is_in_a_repr(egito: EgitoSimulator, connect: Connect) -> None:
    client = connect()
    client.records("User")
    granted = client._grant(None, Deadline(20))
    [document] = [connect.tokens._documents.get(client._login.name)]
    kept = oauth._Kept.model_validate(document.content)
    assert kept.access_token == granted.access_token == egito.access_tokens[0]
    things = (client, client.settings, client._login, client._tokens, granted, kept, document, client._transport)
    secrets = (PASSWORD, API_SECRET, egito.access_tokens[0], str(granted.refresh_token))
    expect_secret("".join(f"{thing!r} {thing}" for thing in things), *secrets)
    assert client.settings.model_dump_json().count("**********") == 2


def test_no_secret_is_shown_when_settings_are_wrong(egito: EgitoSimulator) -> None:
    with pytest.raises(ValueError, match="username") as caught:
        settings_of(egito, username=f"{PASSWORD} without", password={"is": PASSWORD}, api_secret=[API_SECRET])
    expect_secret(shown(caught.value), PASSWORD, API_SECRET)


def test_secrets_are_in_no_answer_no_log_no_record_and_no_metric(
    crm: Crm, log: StringIO, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, egito = crm.stack, crm.stack.egito
    egito.users[USER], egito.api_secret = PASSWORD, API_SECRET
    put_egito(stack)
    cold(stack)
    wire = Wire(egito, monkeypatch)
    secrets = {PASSWORD, API_SECRET}
    answers = [save(crm)]
    assert answers[0].status_code == 201  # so these are the secrets that are signed in with
    refusals = "401", "400, error"
    for number, echo in enumerate(echo for name, echo in ECHOES.items() if name not in refusals):
        secrets |= {part for grant in egito.grants.values() for part in (grant.access_token, grant.refresh_token)}
        stack.move_clock(LIFE + 31)
        failing_echo(wire, echo)
        answers.append(save(crm, 100 + number))
        assert answers[-1].status_code == 202
        answers.append(crm.get(f"/connector/clubs/{CLUB}/staff"))
        wire.on_token = None
        stack.move_clock(UNCLEAR_PAUSE + 1)
        answers.append(save(crm, 500 + number))  # with a new token
        assert answers[-1].status_code == 201
    for kind in (Kind.CLOSE_BEFORE, Kind.CLOSE_AFTER):
        stack.move_clock(LIFE + 31)
        egito.fail_token(kind)
        answers.append(save(crm, 200 + len(answers)))
    stack.move_clock(LIFE + 31)
    egito.stop()
    answers.append(save(crm, 300))
    egito.start()
    for number, name in enumerate(refusals):
        stack.move_clock(LIFE + 31)
        put_egito(stack, search_lag=200 + number)  # another version of the secret, whose login was not refused
        failing_echo(wire, ECHOES[name])
        answers += [save(crm, 400 + number), crm.get(f"/connector/clubs/{CLUB}/check")]
        assert "refused the login" in answers[-1].text
    answers += [
        crm.get(f"/operations/{response.json()['operation_id']}")
        for response in answers
        if "operation_id" in response.json()
    ]
    answers += [crm.get(f"/operations?state={state}") for state in ("waiting", "succeeded", "needs_review", "rejected")]
    assert len(rows("OPERATIONS_TABLE")) > 20
    out, err = capsys.readouterr()
    assert '"SignInRefused"' in out
    assert '"message":"operation"' in log.getvalue()
    tables = ("OPERATIONS_TABLE", "LOCKS_TABLE", "LINKS_TABLE", "PEOPLE_TABLE")
    texts = [*(f"{response.headers} {response.text}" for response in answers), *(repr(rows(table)) for table in tables)]
    secrets -= {""}  # the access token of a grant that was revoked
    assert len(secrets) > 10
    expect_secret("".join([*texts, log.getvalue(), out, err]), *secrets)

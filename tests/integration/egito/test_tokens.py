"""How a token of Egito is asked for, for how long it is used, and what comes of it when none is given."""

from collections.abc import Mapping

import pytest
from werkzeug.wrappers import Response

from crm_bridge.errors import (
    AddressMovedError,
    NotDoneError,
    SignInPausedError,
    SignInRefusedError,
    VendorError,
)
from crm_bridge.outbound import oauth
from crm_bridge.outbound.oauth import Grant, Login, Tokens
from crm_bridge.outbound.transport import Deadline, Transport
from crm_bridge.vendors.egito import UNCLEAR_PAUSE, VENDOR, Egito
from local.stack import LOCAL_HOSTS
from local.vendors.egito import TOKEN_PATH, EgitoSimulator
from tests.clock import Clock
from tests.integration.egito.conftest import (
    API_SECRET,
    LIFE,
    PASSWORD,
    REST,
    USER,
    WRONA,
    Connect,
    Notebook,
    Wire,
    answer,
    settings_of,
)

FORM = "application/x-www-form-urlencoded"


# ---------------------------------------------------------------- how it is asked for and used


def test_token_is_asked_for_as_documented(egito: EgitoSimulator, wire: Wire, connect: Connect) -> None:
    grant = {
        "grant_type": "password",
        "client_id": egito.api_id,
        "client_secret": API_SECRET,
        "username": USER,
        "password": PASSWORD,
    }
    for _ in range(3):
        connect().records("User")  # one token serves many calls
    [asked] = wire.at(TOKEN_PATH)
    assert (asked.method, asked.kind, asked.body, asked.authorization) == ("POST", FORM, b"", None)
    assert sorted(asked.query) == sorted(grant.items())
    connect(token_parameters="body").records("User")
    asked = wire.at(TOKEN_PATH)[1]
    assert (asked.method, asked.query, asked.kind) == ("POST", [], FORM)
    assert sorted(asked.form) == sorted(grant.items())


@pytest.mark.parametrize("where", ["query", "body"])
def test_refresh_token_is_used_without_the_password_when_there_is_one(
    egito: EgitoSimulator, wire: Wire, connect: Connect, where: str
) -> None:
    egito.token_seconds = 0
    connect(token_parameters=where).sign_in()
    [grant] = egito.grants.values()
    egito.token_seconds = LIFE
    connect(token_parameters=where).records("User")
    _, asked = wire.at(TOKEN_PATH)
    client = {"client_id": egito.api_id, "client_secret": API_SECRET}
    sent = {"grant_type": "refresh_token", "refresh_token": grant.refresh_token, **client}
    assert sorted(asked.query or asked.form) == sorted(sent.items())
    assert bool(asked.query) == (where == "query")


def test_token_travels_in_the_header_or_in_the_query_when_settings_say_so(
    egito: EgitoSimulator, wire: Wire, connect: Connect
) -> None:
    for where in ("header", "query"):
        wire.asked.clear()
        egito.token_in = where
        client = connect(token_in=where)
        client.records("User", {"a": "b"})
        client.create("Contact", WRONA)
        bearer, in_query = f"Bearer {egito.access_tokens[-1]}", [("access_token", egito.access_tokens[-1])]
        for path, more in ((f"{REST}/User/list", [("a", "b")]), (f"{REST}/Contact/create", [])):
            [asked] = wire.at(path)
            assert asked.authorization == (bearer if where == "header" else None)
            assert asked.query == more + (in_query if where == "query" else [])


@pytest.mark.parametrize(
    ("life", "good_for"),
    [(LIFE, LIFE - 60), (119, 59.5), (60, 30), (2, 1), ("3600", 60), (None, 60), (True, 60), (10**9, 24 * LIFE - 60)],
    ids=str,
)
def test_token_is_renewed_early(wire: Wire, life: object, good_for: float) -> None:
    now = 1_795_000_000.0
    wire.on_token = lambda request: answer(200, {"access_token": request.args["grant_type"], "expires_in": life})
    transport = Transport(on_this_machine=LOCAL_HOSTS)
    client = Egito(settings_of(wire.egito), transport, Deadline(20), Tokens(Notebook(), lambda: now), "login")
    for after, asked in ((0, 1), (good_for - 0.001, 1), (0.002, 2)):
        now += after
        client.sign_in()
        assert len(wire.asked) == asked
    transport._adapter.close()


def test_a_token_is_used_when_it_could_not_be_kept(egito: EgitoSimulator, connect: Connect) -> None:
    client = connect()
    notebook = connect.tokens._documents
    assert isinstance(notebook, Notebook)
    grant = client._login.ask

    def ask(refresh_token: str | None, deadline: Deadline) -> Grant:
        notebook.failing = True
        return grant(refresh_token, deadline)

    token = connect.tokens.get(Login(client._login.name, VENDOR, ask), Deadline(20))
    assert egito.access_tokens == [token]
    assert client.records("User")
    assert egito.token_requests == ["password"]


# ---------------------------------------------------------------- when none comes

NO_TOKENS = (
    *(b"", b"null", b"[]", b"{}", b"<html>", b'{"access_token": 7}', b'{"access_token": null}'),
    *(
        b'{"access_token": "a\\nb"}',
        b'{"access_token": "\xc3\xa4"}',
        b'{"access_token": ""}',
        b'{"access_token": "a b"}',
    ),
)


def test_not_done_when_the_answer_holds_no_token(wire: Wire, connect: Connect) -> None:
    for body in NO_TOKENS:
        wire.tokens_answer(200, body)
        connect.forget()
        with pytest.raises(NotDoneError, match="Egito answered with no token"):
            connect().records("User")
    assert len(wire.asked) == len(NO_TOKENS)  # so none was used


REFUSALS: tuple[tuple[int, object, str], ...] = (
    (400, {"error": "invalid_grant"}, "invalid_grant"),
    (401, {"error": "invalid_client"}, "invalid_client"),
    (400, {"error": "unauthorized_client"}, "unauthorized_client"),
    (401, {"error": "unauthorized"}, "unauthorized"),
    (401, {"error": "access_denied", "error_description": "User is locked"}, "access_denied"),
    (401, b"", "401"),
    (401, b"<html>Sign in</html>", "401"),
    (200, {"error": "invalid_grant"}, "invalid_grant"),
    (200, {"error": "incorrect_client_credentials", "error_uri": "https://docs.example"}, "200"),
    (200, {"ok": False, "error": "invalid_client_id"}, "200"),
    (200, b"error=invalid_grant&error_description=Bad+credentials", "invalid_grant"),
    (400, b"error=access_denied", "access_denied"),
    (200, {"error": {"code": "invalid_grant", "message": "Bad credentials"}}, "invalid_grant"),
    (200, {"error": {"code": 401, "status": "UNAUTHENTICATED", "message": "Bad credentials"}}, "200"),
    (400, {"error": {"type": "OAuthException", "code": 190, "message": "Bad credentials"}}, "400"),
    (403, {"error": "access_denied"}, "access_denied"),
    (400, {"error": "Invalid_Grant "}, "invalid_grant"),
    (400, {"error": "Bad credentials"}, "400"),
)


def test_sign_in_is_paused_when_egito_refuses_the_login(wire: Wire, connect: Connect) -> None:
    for status, body, how in REFUSALS:
        wire.asked.clear()
        wire.tokens_answer(status, body)
        connect.forget()
        message = f"Egito refused the login ({how}). It is not used again until the tenant's secret changes"
        for _ in range(3):
            with pytest.raises(SignInPausedError) as caught:
                connect().records("User")
            assert caught.value.message == message, (status, body)
        assert len(wire.asked) == 1


PASSING: tuple[tuple[int, object], ...] = (
    (400, {"error": "temporarily_unavailable"}),
    (200, {"error": "temporarily_unavailable"}),
    (403, {"error": "slow_down"}),
    (401, {"error": "server_error"}),
    (200, {"error": {"code": 503, "status": "UNAVAILABLE"}}),
    (408, b""),
    (429, {"message": "Too many requests"}),
    (429, {"error": "access_denied"}),
    (500, {"error": "invalid_grant"}),
    (503, b"Service Unavailable"),
)
UNCLEAR: tuple[tuple[int, object], ...] = (
    (200, b"<html><form action='/login?a=1&error=invalid_grant'>Sign in</form></html>"),
    (200, b"<html>"),
    (200, {"errors": [{"message": "Try later"}]}),
    (200, {"error": None}),
    (403, b"<html></html>"),
    (403, {"status": 403, "error": "Forbidden", "path": "/oauth/token"}),
    (400, {"status": 400, "error": "Bad Request", "path": "/oauth/token"}),
    (400, b""),
    (404, b"<html></html>"),
    (405, {"error": "method_not_allowed"}),
    (415, b"<html></html>"),
    (201, {"access_token": "t", "expires_in": LIFE}),
    (204, b""),
    (302, b""),
    (307, b""),
)


def expect_another_try(wire: Wire, connect: Connect, alone: Clock, responses: object, pause: float) -> None:
    """The create is never in doubt: it was not sent. The next request for a token comes after the pause."""
    assert isinstance(responses, tuple)
    for status, body in responses:
        wire.egito.records["Contact"].clear()
        wire.asked.clear()
        wire.tokens_answer(status, body)
        connect.forget()
        with pytest.raises(VendorError) as caught:
            connect().create("Contact", WRONA)
        assert isinstance(caught.value, NotDoneError), (status, body)
        assert not isinstance(caught.value, SignInPausedError), (status, body)
        wire.on_token = None
        for passed in (0, pause - 0.1):
            alone.move(passed)
            with pytest.raises(NotDoneError, match="Egito gave no token a moment ago"):
                connect().create("Contact", WRONA)
        assert len(wire.asked) == 1
        alone.move(0.2)
        connect().create("Contact", WRONA)
        assert len(wire.egito.records["Contact"]) == 1


def test_a_token_is_asked_for_again_when_the_failure_is_passing(wire: Wire, connect: Connect, alone: Clock) -> None:
    expect_another_try(wire, connect, alone, PASSING, oauth.SOON / 1000)


def test_a_token_is_asked_for_after_a_pause_when_the_answer_was_not_about_the_login(
    wire: Wire, connect: Connect, alone: Clock
) -> None:
    """A form to sign in is such a response. Whether the credentials were tried is not known, so they rest."""
    expect_another_try(wire, connect, alone, UNCLEAR, UNCLEAR_PAUSE)


def test_the_new_host_is_named_when_a_token_request_is_redirected(wire: Wire, connect: Connect) -> None:
    wire.on_token = lambda request: Response("", 308, {"Location": f"https://new.example{request.full_path}"})
    with pytest.raises(AddressMovedError) as caught:
        connect().create("Contact", WRONA)
    assert caught.value.message == "Egito answered 308: the address has moved to new.example. Correct its base_url"


# ---------------------------------------------------------------- when a call is not let in


def test_sign_in_is_refused_after_one_renewal_when_every_call_is(
    egito: EgitoSimulator, wire: Wire, connect: Connect
) -> None:
    wire.calls_answer(401, {"error": "invalid_token", "error_description": "Token was not recognised"})
    with pytest.raises(SignInRefusedError) as caught:
        connect().create("Contact", WRONA)
    assert (caught.value.status, caught.value.message) == (401, "Egito answered 401: invalid_token")
    assert [asked.path for asked in wire.asked] == [TOKEN_PATH, f"{REST}/Contact/create"] * 2
    assert egito.token_requests == ["password", "refresh_token"]


def test_a_create_is_done_once_when_its_token_had_died(egito: EgitoSimulator, connect: Connect) -> None:
    connect().records("User")
    egito.revoke()
    assert connect().create("Contact", WRONA) == "5001"
    assert [record["lastName"] for record in egito.records["Contact"]] == ["Wrona"]


@pytest.mark.parametrize("fields", [{}, None], ids=["create", "list"])
def test_sign_in_refused_when_egito_answers_403(
    wire: Wire, connect: Connect, fields: Mapping[str, object] | None
) -> None:
    wire.calls_answer(403, {"error": "access_denied"})
    client = connect()
    with pytest.raises(SignInRefusedError) as caught:
        client.records("Contact") if fields is None else client.create("Contact", fields)
    assert caught.value.message == "Egito answered 403: access_denied"
    assert not isinstance(caught.value, SignInPausedError)
    assert len(wire.asked) == 2  # no token is renewed for it

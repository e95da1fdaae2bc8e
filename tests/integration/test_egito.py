"""The client of Egito and its tokens, against its simulator and against what no simulator says, over real HTTP."""

import html
import json
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import StringIO
from threading import Barrier, Lock
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl, quote, quote_plus, unquote_plus

import boto3
import pytest
import requests
from werkzeug.urls import uri_to_iri
from werkzeug.wrappers import Request, Response

from crm_bridge import aws, oauth
from crm_bridge.documents import Change, Document, Documents
from crm_bridge.errors import (
    AddressMovedError,
    ContractBrokenError,
    MaybeDoneError,
    NoSuchRecordError,
    NotDoneError,
    RefusedError,
    SignInPausedError,
    SignInRefusedError,
    StorageError,
    TryLaterError,
    VendorError,
)
from crm_bridge.oauth import Grant, Login, Tokens
from crm_bridge.runtime import runtime
from crm_bridge.transport import Deadline, Transport
from crm_bridge.vendors.egito import MAX_PAGES, UNCLEAR_PAUSE, VENDOR, Egito, EgitoEntry, usable_id
from crm_bridge.vendors.egito_settings import EgitoSettings
from local.stack import CLUB, DEMO_TENANT, LOCAL_HOSTS, Stack
from local.vendors.egito import TOKEN_PATH, EgitoSimulator
from local.vendors.simulator import Kind
from tests.integration.conftest import Crm

USER = "bridge@demo"
PASSWORD = 'p@ss wörd/+%&"'
API_SECRET = 'k/ey +%&"ü=?'
MANY = 20
"""Functions that run at the same time."""
LIFE = 3600
"""Seconds that a token of the simulator lives."""
REST = "/services/restapi/json"
FORM = "application/x-www-form-urlencoded"

type Respond = Callable[[Request], Response]


# ---------------------------------------------------------------- what the tests share


@dataclass(frozen=True)
class Asked:
    """One request, as it was on the wire."""

    method: str
    path: str
    query: list[tuple[str, str]]
    kind: str | None
    authorization: str | None
    body: bytes

    @property
    def form(self) -> list[tuple[str, str]]:
        return parse_qsl(self.body.decode(), keep_blank_values=True, strict_parsing=True)


@dataclass
class Wire:
    """What arrives at a simulator; and answers that it would not give, for tokens or for calls."""

    egito: EgitoSimulator
    monkeypatch: pytest.MonkeyPatch
    asked: list[Asked] = field(default_factory=list)
    on_token: Respond | None = None
    on_call: Respond | None = None

    def __post_init__(self) -> None:
        really_respond = self.egito.respond

        def respond(request: Request) -> Response:
            self.asked.append(
                Asked(
                    request.method,
                    request.path,
                    parse_qsl(request.query_string.decode(), keep_blank_values=True),
                    request.headers.get("Content-Type"),
                    request.headers.get("Authorization"),
                    request.get_data(),
                )
            )
            scripted = self.on_token if request.path == TOKEN_PATH else self.on_call
            return scripted(request) if scripted else really_respond(request)

        self.monkeypatch.setattr(self.egito, "respond", respond)

    def calls_answer(self, status: int, body: object, kind: str = "application/json") -> None:
        self.on_call = lambda _request: answer(status, body, kind)

    def tokens_answer(self, status: int, body: object, kind: str = "application/json") -> None:
        self.on_token = lambda _request: answer(status, body, kind)

    def at(self, path: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == path]


def answer(status: int, body: object, kind: str = "application/json") -> Response:
    return Response(body if isinstance(body, bytes) else json.dumps(body), status, mimetype=kind)


class Notebook(Documents):
    """Documents of one function alone."""

    def __init__(self) -> None:
        self.held: dict[str, Document] = {}
        self.failing = False
        self._lock = Lock()

    def get(self, key: str) -> Document:
        return self.held.get(key, Document())

    def write(self, changes: Mapping[str, Change], others: Sequence[Any] = ()) -> bool:
        assert not others
        with self._lock:
            if self.failing:
                raise StorageError("The bridge's storage did not answer.")
            if any(self.get(key).version != change.read.version for key, change in changes.items()):
                return False
            self.held |= {
                key: Document(change.read.version + 1, change.content or {}) for key, change in changes.items()
            }
        return True


@pytest.fixture
def egito() -> Iterator[EgitoSimulator]:
    simulator = EgitoSimulator(api_secret=API_SECRET, users={USER: PASSWORD})
    simulator.start()
    yield simulator
    simulator.stop()


@pytest.fixture
def wire(egito: EgitoSimulator, monkeypatch: pytest.MonkeyPatch) -> Wire:
    return Wire(egito, monkeypatch)


class Clock:
    """Epoch seconds that stand still until a test moves them on."""

    def __init__(self) -> None:
        self.now = 1_795_000_000.0

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


type Connect = Callable[..., Egito]


@pytest.fixture
def alone(egito: EgitoSimulator) -> Clock:
    """That of Egito and of the function of `connect`."""
    egito.clock = Clock()
    return egito.clock


def settings_of(egito: EgitoSimulator, **changes: object) -> EgitoSettings:
    return EgitoSettings.model_validate(
        {
            "base_url": egito.url,
            "api_id": egito.api_id,
            "api_secret": egito.api_secret,
            "username": USER,
            "password": egito.users[USER],
            **changes,
        },
        context=LOCAL_HOSTS,
    )


@pytest.fixture
def connect(egito: EgitoSimulator, alone: Clock) -> Iterator[Connect]:
    """A client of Egito in a function that runs alone."""
    transport, notebook = Transport(on_this_machine=LOCAL_HOSTS), Notebook()
    tokens = Tokens(notebook, alone)

    def client(seconds: float = 20, **changes: object) -> Egito:
        login = f"login {sorted(changes.items())}"
        return Egito(settings_of(egito, **changes), transport, Deadline(seconds), tokens, login)

    yield client
    transport._adapter.close()


@pytest.fixture
def clock(stack: Stack) -> Clock:
    """That of Egito and of the functions that `start` begins."""
    clock = Clock()
    stack.egito.clock = clock
    return clock


@dataclass
class Function:
    """An execution environment: its own memory, its own connections, the same tables as all others."""

    stack: Stack
    documents: Documents
    tokens: Tokens
    transport: Transport

    def client(self, login: str = "login", seconds: float = 20, **changes: object) -> Egito:
        settings = EgitoSettings.model_validate({**self.stack.egito_settings(), **changes}, context=LOCAL_HOSTS)
        return Egito(settings, self.transport, Deadline(seconds), self.tokens, login)

    def staff(self, login: str = "login", **changes: object) -> int:
        return len(self.client(login, 20, **changes).records("User"))


type Start = Callable[[], Function]


@pytest.fixture
def start(stack: Stack, clock: Clock) -> Iterator[Start]:
    """Begins another execution environment."""
    started: list[Function] = []

    def one() -> Function:
        documents = Documents(aws.client("dynamodb"), os.environ["TOKENS_TABLE"])
        made = Function(stack, documents, Tokens(documents, clock), Transport(on_this_machine=LOCAL_HOSTS))
        started.append(made)
        return made

    yield one
    for function in started:
        function.transport._adapter.close()


@pytest.fixture
def functions(start: Start) -> list[Function]:
    return [start() for _ in range(MANY)]


def at_once[T](functions: Sequence[Function], work: Callable[[Function], T]) -> list[T]:
    """What `work` gives in each of them, begun at the same moment."""
    barrier = Barrier(len(functions))

    def run(function: Function) -> T:
        barrier.wait()
        return work(function)

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(run, functions))


def all_let_in(functions: Sequence[Function], login: str = "login", **changes: object) -> bool:
    return at_once(functions, lambda function: function.staff(login, **changes)) == [3] * len(functions)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short deadlines, so that tests need not wait for long."""
    monkeypatch.setattr("crm_bridge.transport.SHORTEST_CALL", 0.3)
    monkeypatch.setattr(oauth, "SHORTEST_CALL", 0.3)
    monkeypatch.setattr(oauth, "LONGEST_ASKING", 1.0)


# ---------------------------------------------------------------- how a token is asked for


def password_grant(egito: EgitoSimulator) -> dict[str, str]:
    return {
        "grant_type": "password",
        "client_id": egito.api_id,
        "client_secret": API_SECRET,
        "username": USER,
        "password": PASSWORD,
    }


def test_token_is_asked_for_as_documented(egito: EgitoSimulator, wire: Wire, connect: Connect) -> None:
    connect().records("User")

    [asked] = wire.at(TOKEN_PATH)
    assert asked.method == "POST"
    assert sorted(asked.query) == sorted(password_grant(egito).items())
    assert (asked.kind, asked.body, asked.authorization) == (FORM, b"", None)


def test_token_is_asked_for_in_the_body_when_settings_say_so(
    egito: EgitoSimulator, wire: Wire, connect: Connect
) -> None:
    connect(token_parameters="body").records("User")

    [asked] = wire.at(TOKEN_PATH)
    assert (asked.method, asked.query, asked.kind) == ("POST", [], FORM)
    assert sorted(asked.form) == sorted(password_grant(egito).items())


@pytest.mark.parametrize("where", ["query", "body"])
def test_refresh_token_is_used_without_the_password_when_there_is_one(
    egito: EgitoSimulator, wire: Wire, connect: Connect, where: str
) -> None:
    egito.token_seconds = 0
    connect(token_parameters=where)._tokens.get(connect(token_parameters=where)._login, Deadline(20))
    [grant] = egito.grants.values()
    egito.token_seconds = LIFE

    connect(token_parameters=where).records("User")

    _, asked = wire.at(TOKEN_PATH)
    assert sorted(asked.query or asked.form) == sorted(
        {
            "grant_type": "refresh_token",
            "refresh_token": grant.refresh_token,
            "client_id": egito.api_id,
            "client_secret": API_SECRET,
        }.items()
    )
    assert bool(asked.query) == (where == "query")


def test_token_travels_in_the_header(egito: EgitoSimulator, wire: Wire, connect: Connect) -> None:
    egito.token_in = "header"
    connect().records("User", {"a": "b"})

    [asked] = wire.at(f"{REST}/User/list")
    assert asked.authorization == f"Bearer {egito.access_tokens[0]}"
    assert asked.query == [("a", "b")]


def test_token_travels_in_the_query_when_settings_say_so(egito: EgitoSimulator, wire: Wire, connect: Connect) -> None:
    egito.token_in = "query"
    client = connect(token_in="query")
    client.records("User", {"a": "b"})
    client.create("Contact", {"lastName": "Wrona"})

    for path, more in ((f"{REST}/User/list", [("a", "b")]), (f"{REST}/Contact/create", [])):
        [asked] = wire.at(path)
        assert asked.authorization is None
        assert asked.query == [*more, ("access_token", egito.access_tokens[0])]


def test_one_token_serves_many_calls(egito: EgitoSimulator, connect: Connect) -> None:
    for _ in range(3):
        connect().records("User")
    assert egito.token_requests == ["password"]


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
    tokens, login = client._tokens, client._login

    tokens.get(login, Deadline(20))
    now += good_for - 0.001
    tokens.get(login, Deadline(20))
    assert len(wire.asked) == 1
    now += 0.002
    tokens.get(login, Deadline(20))
    assert len(wire.asked) == 2
    transport._adapter.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"<html>",
        b'{"access_token": 7}',
        b'{"access_token": null}',
        b'{"access_token": "a\\nb"}',
        b'{"access_token": "\xc3\xa4"}',
        b'{"access_token": ""}',
        b'{"access_token": "a b"}',
    ],
)
def test_not_done_when_the_answer_holds_no_token(wire: Wire, connect: Connect, body: bytes) -> None:
    wire.tokens_answer(200, body)
    with pytest.raises(NotDoneError, match="Egito answered with no token"):
        connect().records("User")
    assert wire.at(f"{REST}/User/list") == []


@pytest.mark.parametrize(
    ("status", "body", "how"),
    [
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
    ],
)
def test_sign_in_is_paused_when_egito_refuses_the_login(
    wire: Wire, connect: Connect, status: int, body: object, how: str
) -> None:
    wire.tokens_answer(status, body)
    message = f"Egito refused the login ({how}). It is not used again until the tenant's secret changes"
    for _ in range(5):
        with pytest.raises(SignInPausedError) as caught:
            connect().records("User")
        assert caught.value.message == message
    assert len(wire.asked) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
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
    ],
)
def test_a_token_is_asked_for_again_when_the_failure_is_passing(
    egito: EgitoSimulator, wire: Wire, connect: Connect, alone: Clock, status: int, body: object
) -> None:
    wire.tokens_answer(status, body)
    expect_another_try(egito, wire, connect, alone, oauth.SOON / 1000)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html><form action='/login?a=1&error=invalid_grant'>Sign in</form></html>"),
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
    ],
)
def test_a_token_is_asked_for_after_a_pause_when_the_answer_was_not_about_the_login(
    egito: EgitoSimulator, wire: Wire, connect: Connect, alone: Clock, status: int, body: object
) -> None:
    """A form to sign in is such a response. Whether the credentials were tried is not known, so they rest."""
    wire.tokens_answer(status, body)
    expect_another_try(egito, wire, connect, alone, UNCLEAR_PAUSE)


def test_the_new_host_is_named_when_a_token_request_is_redirected(wire: Wire, connect: Connect) -> None:
    wire.on_token = lambda request: Response("", 308, {"Location": f"https://new.example{request.full_path}"})
    with pytest.raises(AddressMovedError) as caught:
        connect().create("Contact", {"lastName": "Wrona"})
    assert caught.value.message == "Egito answered 308: the address has moved to new.example. Correct its base_url"


def expect_another_try(egito: EgitoSimulator, wire: Wire, connect: Connect, alone: Clock, pause: float) -> None:
    with pytest.raises(VendorError) as caught:
        connect().create("Contact", {"lastName": "Wrona"})
    assert isinstance(caught.value, NotDoneError)
    assert not isinstance(caught.value, SignInPausedError)

    wire.on_token = None
    with pytest.raises(NotDoneError, match="Egito gave no token a moment ago"):
        connect().create("Contact", {"lastName": "Wrona"})
    alone.move(pause - 0.1)
    with pytest.raises(NotDoneError, match="Egito gave no token a moment ago"):
        connect().create("Contact", {"lastName": "Wrona"})
    assert len(wire.asked) == 1
    alone.move(0.2)
    connect().create("Contact", {"lastName": "Wrona"})
    assert len(egito.records["Contact"]) == 1


@pytest.mark.parametrize(
    ("status", "body"), [(204, b""), (201, {"access_token": "t"}), (302, b""), (500, b""), (200, b"<html>")], ids=str
)
def test_a_create_is_simply_not_done_when_no_token_came(
    wire: Wire, connect: Connect, status: int, body: object
) -> None:
    """Never in doubt: the create itself was not sent."""
    wire.tokens_answer(status, body)
    with pytest.raises(NotDoneError):
        connect().create("Contact", {"lastName": "Wrona"})


# ---------------------------------------------------------------- one token for all functions


@pytest.mark.usefixtures("eager_switches")
def test_one_token_is_asked_for_when_many_functions_begin_at_once(stack: Stack, functions: list[Function]) -> None:
    for number in range(1, 5):
        assert all_let_in(functions, f"login {number}")
        assert len(stack.egito.token_requests) == number


@pytest.mark.usefixtures("eager_switches")
def test_one_token_is_asked_for_when_it_is_about_to_end(stack: Stack, clock: Clock, functions: list[Function]) -> None:
    assert all_let_in(functions)
    for number in range(1, 5):
        clock.move(LIFE - 60.001)
        assert all_let_in(functions)
        assert len(stack.egito.token_requests) == number
        clock.move(0.001)
        assert all_let_in(functions)
        assert stack.egito.token_requests == ["password", *["refresh_token"] * number]


@pytest.mark.usefixtures("eager_switches")
def test_no_storm_of_token_requests_when_the_same_token_comes_until_it_ends(
    stack: Stack, clock: Clock, functions: list[Function]
) -> None:
    stack.egito.refresh_tokens = False
    assert all_let_in(functions)
    ends_at = clock() + LIFE
    for before_its_end in (60, 30, 1, 0.5, 0.001):
        clock.now = ends_at - before_its_end
        assert all_let_in(functions)
        assert stack.egito.token_requests == ["password"] * 2
    assert 401 not in [seen.status for seen in stack.egito.seen]
    clock.now = ends_at
    assert all_let_in(functions)
    assert stack.egito.token_requests == ["password"] * 3


@pytest.mark.usefixtures("eager_switches")
@pytest.mark.parametrize("refresh_tokens", [True, False])
def test_one_token_is_asked_for_when_it_was_revoked(
    stack: Stack, clock: Clock, functions: list[Function], refresh_tokens: bool
) -> None:
    stack.egito.refresh_tokens = refresh_tokens
    assert all_let_in(functions)
    for number in range(1, 4):
        clock.move(31)
        stack.egito.revoke()
        assert all_let_in(functions)
        assert stack.egito.token_requests == ["password", *["refresh_token" if refresh_tokens else "password"] * number]


@pytest.mark.usefixtures("eager_switches")
@pytest.mark.parametrize("refresh_tokens", [True, False])
def test_one_token_is_asked_for_when_it_has_ended(
    stack: Stack, clock: Clock, functions: list[Function], refresh_tokens: bool
) -> None:
    stack.egito.refresh_tokens = refresh_tokens
    for number in range(3):
        assert all_let_in(functions)
        assert stack.egito.token_requests == ["password", *["refresh_token" if refresh_tokens else "password"] * number]
        clock.move(LIFE + 1)


@pytest.mark.usefixtures("eager_switches")
def test_every_call_is_done_when_time_passes_meanwhile(stack: Stack, clock: Clock, functions: list[Function]) -> None:
    def work(function: Function) -> list[int]:
        found = []
        for number in range(4):
            if function is functions[0] and number == 2:
                clock.move(LIFE + 1)
            found.append(function.staff())
        return found

    for number in range(1, 4):
        assert at_once(functions, work) == [[3] * 4] * MANY
        assert stack.egito.token_requests == ["password", *["refresh_token"] * number]


def test_password_is_used_when_the_refresh_token_was_forgotten(stack: Stack, clock: Clock, start: Start) -> None:
    function = start()
    function.staff()
    stack.egito.revoke(refresh_too=True)
    assert function.staff() == 3
    assert stack.egito.token_requests == ["password", "refresh_token", "password"]
    clock.move(LIFE)
    assert function.staff() == 3
    assert stack.egito.token_requests[3:] == ["refresh_token"]


def test_every_login_has_tokens_of_its_own(stack: Stack, start: Start) -> None:
    function = start()
    stack.egito.users["other@demo"] = "another"
    assert function.staff("one") == function.staff("two", username="other@demo", password="another") == 3
    assert len(set(stack.egito.access_tokens)) == 2
    stack.egito.grants.pop(("other@demo", stack.egito.api_id))
    stack.egito.users.pop("other@demo")
    with pytest.raises(SignInPausedError):
        function.staff("two", username="other@demo", password="another")
    assert function.staff("one") == 3


# ---------------------------------------------------------------- when none comes


@pytest.mark.parametrize(
    "kind", [Kind.ERROR_BEFORE, Kind.ERROR_AFTER, Kind.CLOSE_BEFORE, Kind.CLOSE_AFTER, Kind.HTML, Kind.TOO_MANY]
)
def test_the_old_token_is_used_when_it_cannot_be_renewed_early(
    stack: Stack, clock: Clock, start: Start, kind: Kind
) -> None:
    stack.egito.refresh_tokens = False
    first, second = start(), start()
    first.staff()
    clock.move(LIFE - 40)
    stack.egito.fail_token(kind, times=2)

    assert [first.staff(), second.staff(), first.staff()] == [3, 3, 3]
    assert len(stack.egito.token_requests) == 2  # not with every call
    clock.move(11)
    assert [second.staff(), first.staff()] == [3, 3]
    assert len(stack.egito.token_requests) == 3
    clock.move(30)
    assert [first.staff(), second.staff()] == [3, 3]
    assert len(stack.egito.token_requests) == 4


def test_another_asks_when_whoever_was_asking_has_died(stack: Stack, clock: Clock, start: Start) -> None:
    class KilledError(BaseException):
        pass

    def die(_refresh_token: str | None, _deadline: Deadline) -> Grant:
        raise KilledError

    first, second = start(), start()
    with pytest.raises(KilledError):
        first.tokens.get(Login("login", VENDOR, die), Deadline(20))

    clock.move(oauth.TURN / 1000 - 0.001)
    with pytest.raises(NotDoneError, match="another function is signing in to Egito"):
        second.client(seconds=10).records("User")
    assert stack.egito.token_requests == []
    clock.move(0.001)
    assert second.staff() == 3
    assert stack.egito.token_requests == ["password"]


def test_the_old_token_is_used_when_whoever_was_renewing_it_has_died(stack: Stack, clock: Clock, start: Start) -> None:
    first, second = start(), start()
    first.staff()
    clock.move(LIFE - 50)
    kept = first.documents.get("login")
    asking = {**kept.content, "asking_until": int(clock() * 1000) + oauth.TURN}
    assert first.documents.write({"login": Change(kept, asking)})

    assert [second.staff(), first.staff()] == [3, 3]
    assert stack.egito.token_requests == ["password"]
    clock.move(oauth.TURN / 1000)
    assert [second.staff(), first.staff()] == [3, 3]
    assert stack.egito.token_requests == ["password", "refresh_token"]


def test_a_token_is_used_when_it_could_not_be_kept(egito: EgitoSimulator, connect: Connect) -> None:
    client = connect()
    notebook = client._tokens._documents
    assert isinstance(notebook, Notebook)
    grant = client._login.ask

    def ask(refresh_token: str | None, deadline: Deadline) -> Grant:
        notebook.failing = True
        return grant(refresh_token, deadline)

    token = client._tokens.get(Login(client._login.name, VENDOR, ask), Deadline(20))
    assert egito.access_tokens == [token]
    assert client.records("User")
    assert egito.token_requests == ["password"]


@pytest.mark.parametrize("refresh_tokens", [True, False])
def test_few_tokens_are_asked_for_when_none_is_ever_accepted(
    stack: Stack, clock: Clock, start: Start, refresh_tokens: bool
) -> None:
    stack.egito.token_in, stack.egito.refresh_tokens = "query", refresh_tokens  # the settings say header
    first, second = start(), start()
    for number in range(10):
        with pytest.raises(SignInRefusedError) as caught:
            (first, second)[number % 2].staff()
        assert not isinstance(caught.value, SignInPausedError)
    assert len(stack.egito.token_requests) == 2
    clock.move(31)
    for function in (first, second):
        with pytest.raises(SignInRefusedError):
            function.staff()
    assert len(stack.egito.token_requests) == 3
    stack.egito.token_in = "header"
    assert [first.staff(), second.staff()] == [3, 3]


def test_a_call_waits_when_the_token_was_revoked_twice_in_a_row(stack: Stack, clock: Clock, start: Start) -> None:
    function = start()
    function.staff()
    stack.egito.revoke()
    function.staff()
    stack.egito.revoke()
    with pytest.raises(SignInRefusedError) as caught:
        function.staff()
    assert isinstance(caught.value, NotDoneError)
    assert len(stack.egito.token_requests) == 2
    clock.move(31)
    assert function.staff() == 3


def test_sign_in_is_refused_after_one_renewal_when_every_call_is(
    egito: EgitoSimulator, wire: Wire, connect: Connect
) -> None:
    wire.calls_answer(401, {"error": "invalid_token", "error_description": "Token was not recognised"})
    with pytest.raises(SignInRefusedError) as caught:
        connect().create("Contact", {"lastName": "Wrona"})
    assert (caught.value.status, caught.value.message) == (401, "Egito answered 401: invalid_token")
    assert [asked.path for asked in wire.asked] == [TOKEN_PATH, f"{REST}/Contact/create"] * 2
    assert egito.token_requests == ["password", "refresh_token"]


def test_a_create_is_done_once_when_its_token_had_died(egito: EgitoSimulator, connect: Connect) -> None:
    connect().records("User")
    egito.revoke()
    assert connect().create("Contact", {"lastName": "Wrona"}) == "5001"
    assert [record["lastName"] for record in egito.records["Contact"]] == ["Wrona"]


# ---------------------------------------------------------------- through the bridge


def save(crm: Crm, number: int = 1, **changes: object) -> requests.Response:
    person = {"firstname": "Ola", "lastname": f"Lis {number}", "userStatus": "ACTIVE", "userType": "PROSPECT"}
    return crm.post(f"/connector/clubs/{CLUB}/prospects", {**person, "email": f"lis{number}@a.example", **changes})


def put_egito(stack: Stack, **changes: object) -> None:
    """The demo tenant's secret with other members in its egito block."""
    document = json.loads(stack.demo_tenant())
    document["egito"] |= changes
    stack.put_secret(DEMO_TENANT, json.dumps(document))


def forget_all(stack: Stack) -> None:
    """What comes next runs in a new execution environment."""
    runtime.cache_clear()
    stack.move_clock(0)


def saved_names(stack: Stack) -> list[str]:
    return sorted(str(record["lastName"]) for record in stack.egito.records["Contact"])


def expect_waiting(answer: requests.Response, reason: str) -> None:
    body = answer.json()
    assert (answer.status_code, body["result"], body["state"]) == (202, "WARNING", "waiting"), body
    assert reason in body["reason"]


@pytest.mark.parametrize(
    ("wrong", "how"), [({"password": "of yesterday"}, "invalid_grant"), ({"api_secret": "wrong"}, "invalid_client")]
)
def test_nothing_is_lost_when_the_login_is_wrong(
    crm: Crm, wrong: dict[str, str], how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put_egito(crm.stack, **wrong)
    forget_all(crm.stack)
    reason = f"Egito refused the login ({how}). It is not used again until the tenant's secret changes"

    answers = [save(crm, number) for number in range(5)]

    for accepted in answers:
        expect_waiting(accepted, reason)
        told = crm.get(accepted.headers["Location"]).json()
        assert (told["state"], told["last_attempt"]["event"]) == ("waiting", "not done")
        assert reason in told["last_attempt"]["reason"]
    for _ in range(3):  # however often it is tried again
        crm.stack.move_clock(600)
        crm.stack.deliver_due()
    assert crm.stack.egito.token_requests == ["password"]
    assert '"vendor":"Egito","SignInRefused":[1.0]' in capsys.readouterr().out
    assert saved_names(crm.stack) == []

    put_egito(crm.stack)
    assert [crm.settle(accepted)["state"] for accepted in answers] == ["succeeded"] * 5
    assert saved_names(crm.stack) == [f"Lis {number}" for number in range(5)]
    assert crm.stack.egito.token_requests == ["password"] * 2


def test_a_change_is_not_lost_when_the_login_was_wrong(crm: Crm) -> None:
    first = save(crm)
    assert first.status_code == 201
    put_egito(crm.stack, password="of yesterday")
    forget_all(crm.stack)
    changed = save(crm, recordID=first.json()["recordID"], mobile="600 100 200")
    expect_waiting(changed, "Egito refused the login (invalid_grant)")

    put_egito(crm.stack)

    assert crm.settle(changed)["state"] == "succeeded"
    assert [record["mobile"] for record in crm.stack.egito.records["Contact"]] == ["600 100 200"]


def test_a_change_is_not_lost_when_egito_shows_a_page_of_maintenance(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(crm.stack.egito, monkeypatch)
    first = save(crm)
    wire.calls_answer(200, b"<html>Down for maintenance</html>", "text/html")
    changed = save(crm, recordID=first.json()["recordID"], mobile="600 100 200")
    wire.on_call = None

    assert changed.status_code == 202
    assert crm.settle(changed)["state"] == "succeeded"
    assert [record["mobile"] for record in crm.stack.egito.records["Contact"]] == ["600 100 200"]


FAILING = [kind for kind in Kind if kind not in (Kind.REFUSE, Kind.DELAY, Kind.WRONG_STATUS, Kind.BAD_KEY)]


@pytest.mark.parametrize("kind", FAILING)
def test_nothing_is_lost_when_no_token_comes(crm: Crm, kind: Kind) -> None:
    crm.stack.egito.fail_token(kind, times=3, seconds=1)
    answers = [save(crm, number) for number in range(3)]
    for accepted in answers:
        expect_waiting(accepted, "Egito")
    assert saved_names(crm.stack) == []
    assert [crm.settle(accepted)["state"] for accepted in answers] == ["succeeded"] * 3
    assert saved_names(crm.stack) == ["Lis 0", "Lis 1", "Lis 2"]


@pytest.mark.usefixtures("quick")
def test_nothing_is_lost_when_the_token_comes_too_late(crm: Crm) -> None:
    crm.stack.egito.fail_token(Kind.DELAY, seconds=2)
    accepted = save(crm)
    expect_waiting(accepted, "the answer of Egito was lost (TimeoutError)")
    assert crm.settle(accepted)["state"] == "succeeded"
    assert saved_names(crm.stack) == ["Lis 1"]


def test_nothing_is_lost_when_egito_takes_no_connection(crm: Crm) -> None:
    crm.stack.egito.stop()
    accepted = save(crm)
    expect_waiting(accepted, "Egito")
    crm.stack.egito.start()
    assert crm.settle(accepted)["state"] == "succeeded"
    assert saved_names(crm.stack) == ["Lis 1"]


def test_nothing_is_lost_when_the_token_is_never_accepted(crm: Crm) -> None:
    crm.stack.egito.token_in = "query"
    answers = [save(crm, number) for number in range(10)]
    for accepted in answers:
        assert (accepted.status_code, accepted.json()["result"]) == (202, "WARNING")
        assert accepted.json()["reason"].startswith(
            ("Egito answered 401: invalid_token", "Egito answered 401: unauthorized", "Egito does not accept the token")
        ), accepted.json()
    assert len(crm.stack.egito.token_requests) == 2

    put_egito(crm.stack, token_in="query")
    assert [crm.settle(accepted)["state"] for accepted in answers] == ["succeeded"] * 10
    assert len(saved_names(crm.stack)) == 10


def test_nothing_is_lost_when_the_token_was_revoked_twice_in_a_row(crm: Crm) -> None:
    save(crm, 1)
    crm.stack.egito.revoke()
    assert save(crm, 2).status_code == 201
    crm.stack.egito.revoke()
    accepted = save(crm, 3)
    expect_waiting(accepted, "Egito does not accept the token that it has just given")
    assert crm.settle(accepted)["state"] == "succeeded"
    assert saved_names(crm.stack) == ["Lis 1", "Lis 2", "Lis 3"]


# ---------------------------------------------------------------- secrecy


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


@pytest.mark.parametrize("name", ECHOES)
@pytest.mark.parametrize("refreshing", [False, True], ids=["password", "refresh"])
def test_no_secret_is_told_when_a_token_call_fails(wire: Wire, connect: Connect, name: str, refreshing: bool) -> None:
    held = refresh_token(wire.egito, connect) if refreshing else "none"
    failing_echo(wire, ECHOES[name])
    with pytest.raises(VendorError) as caught:
        connect().create("Contact", {"lastName": "Wrona"})
    expect_secret(shown(caught.value), PASSWORD, API_SECRET, held)


@pytest.mark.parametrize("name", ODD_ECHOES)
def test_no_secret_is_told_when_egito_spells_it_in_its_own_way(wire: Wire, connect: Connect, name: str) -> None:
    failing_echo(wire, ODD_ECHOES[name])
    with pytest.raises(VendorError) as caught:
        connect().create("Contact", {"lastName": "Wrona"})
    expect_secret(shown(caught.value), PASSWORD, API_SECRET)


def refresh_token(egito: EgitoSimulator, connect: Connect) -> str:
    """One that is known to the client, and is used with the next call."""
    egito.token_seconds = 0
    connect()._tokens.get(connect()._login, Deadline(20))
    [grant] = egito.grants.values()
    return grant.refresh_token


@pytest.mark.parametrize("kind", [Kind.REFUSE, Kind.CLOSE_BEFORE, Kind.CLOSE_AFTER])
def test_no_secret_is_told_when_the_connection_fails(egito: EgitoSimulator, connect: Connect, kind: Kind) -> None:
    held = refresh_token(egito, connect)
    if kind is Kind.REFUSE:
        egito.stop()
    else:
        egito.fail_token(kind, times=2)
    with pytest.raises(NotDoneError) as caught:
        connect().create("Contact", {"lastName": "Wrona"})
    expect_secret(shown(caught.value), PASSWORD, API_SECRET, held)


@pytest.mark.parametrize("where", ["header", "query"])
@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_no_secret_is_told_when_egito_repeats_the_token_of_a_call(
    wire: Wire, connect: Connect, where: str, status: int
) -> None:
    def echo(request: Request) -> Response:
        text = f"{request.url} {request.headers.get('Authorization')} {PASSWORD} {quote_plus(API_SECRET)}"
        return answer(status, {"errors": [{"field": "x", "message": text}], "message": text})

    wire.on_call = echo
    with pytest.raises(VendorError) as caught:
        connect(token_in=where).create("Contact", {"lastName": "Wrona"})
    [grant] = wire.egito.grants.values()
    expect_secret(shown(caught.value), PASSWORD, API_SECRET, grant.access_token, grant.refresh_token)


def test_no_secret_is_in_a_repr(egito: EgitoSimulator, connect: Connect) -> None:
    client = connect()
    client.records("User")
    granted = client._grant(None, Deadline(20))
    [document] = [client._tokens._documents.get(client._login.name)]
    kept = oauth._Kept.model_validate(document.content)
    assert kept.access_token == granted.access_token == egito.access_tokens[0]
    things = (client, client.settings, client._login, client._tokens, granted, kept, document, client._transport)
    secrets = (PASSWORD, API_SECRET, egito.access_tokens[0], str(granted.refresh_token))
    expect_secret("".join(f"{thing!r} {thing}" for thing in things), *secrets)
    assert client.settings.model_dump_json().count("**********") == 2


def test_no_secret_is_told_when_settings_are_wrong(egito: EgitoSimulator) -> None:
    with pytest.raises(ValueError, match="username") as caught:
        settings_of(egito, username=f"{PASSWORD} without", password={"is": PASSWORD}, api_secret=[API_SECRET])
    expect_secret(shown(caught.value), PASSWORD, API_SECRET)


def rows(table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = boto3.resource("dynamodb").Table(os.environ[table]).scan()["Items"]
    return found


def test_secrets_are_in_no_answer_no_log_no_record_and_no_metric(
    crm: Crm, log: StringIO, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, egito = crm.stack, crm.stack.egito
    egito.users[USER], egito.api_secret = PASSWORD, API_SECRET
    put_egito(stack)
    forget_all(stack)
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
        crm.get(f"/operations/{told.json()['operation_id']}") for told in answers if "operation_id" in told.json()
    ]
    answers += [crm.get(f"/operations?state={state}") for state in ("waiting", "succeeded", "needs_review", "rejected")]
    assert len(rows("OPERATIONS_TABLE")) > 20
    out, err = capsys.readouterr()
    assert '"SignInRefused"' in out
    assert '"message":"operation"' in log.getvalue()
    tables = ("OPERATIONS_TABLE", "ACCOUNTS_TABLE", "LINKS_TABLE", "PEOPLE_TABLE")
    texts = [*(f"{told.headers} {told.text}" for told in answers), *(repr(rows(table)) for table in tables)]
    secrets -= {""}  # the access token of a grant that was revoked
    assert len(secrets) > 10
    expect_secret("".join([*texts, log.getvalue(), out, err]), *secrets)


# ---------------------------------------------------------------- calls


LONG = {"firstName": "x" * 300, "lastName": " "}
MISTAKES = "Egito: lastName: may not be empty; firstName: size must be between 0 and 255"
SHAPES = pytest.mark.parametrize("shape", ["strings", "objects", "default_messages"])
STATUSES = pytest.mark.parametrize("status", [200, 400])
FORMATS = pytest.mark.parametrize("body_format", ["json", "form"])

type ErrorShape = Literal["strings", "objects", "default_messages"]
type ListShape = Literal["array", "list", "items", "data", "rows"]
type Shape = Literal["plain", "data", "entity", "rows", "result", "array", "nested"]
type Missing = Literal["errors", "404", "null", "empty"]


@pytest.mark.parametrize("answers_only_id", [True, False])
@FORMATS
def test_record_is_made_and_read(
    egito: EgitoSimulator, connect: Connect, answers_only_id: bool, body_format: str
) -> None:
    egito.answers_only_id = answers_only_id
    client = connect(body_format=body_format)

    made = client.create("Contact", {"firstName": "Zoë & Co", "lastName": 'Wrona "/+%&ß', "email": ""})

    assert made == "5001"
    record = client.record("Contact", made)
    assert (record["id"], record["firstName"], record["lastName"]) == (5001, "Zoë & Co", 'Wrona "/+%&ß')
    assert len(egito.records["Contact"]) == 1


@pytest.mark.parametrize("ids", ["number", "text"])
def test_ids_are_texts_whatever_they_are_at_egito(
    egito: EgitoSimulator, connect: Connect, ids: Literal["number", "text"]
) -> None:
    egito.ids = ids
    client = connect()
    made = client.create("Lead", {"lastName": "Wrona"})
    assert made == str(egito.records["Lead"][0]["id"])
    assert client.record("Lead", made)["lastName"] == "Wrona"
    assert client.update("Lead", made, {"city": "Kraków"})
    client.delete_record("Lead", made)
    assert egito.records["Lead"] == []


def test_a_call_is_json_unless_settings_say_otherwise(wire: Wire, connect: Connect) -> None:
    fields = {"lastName": "Wrona", "owner": {"id": 7, "team": {"name": "A&B"}}, "active": True, "phones": ["1", "2"]}
    wire.calls_answer(200, {"id": 5})
    connect().create("Contact", fields)
    connect(body_format="form").create("Contact", {**fields, "none": None})

    as_json, as_form = wire.at(f"{REST}/Contact/create")
    assert (as_json.method, as_json.kind, json.loads(as_json.body)) == ("POST", "application/json", fields)
    assert (as_form.method, as_form.kind) == ("POST", FORM)
    assert as_form.form == [
        ("lastName", "Wrona"),
        ("owner.id", "7"),
        ("owner.team.name", "A&B"),
        ("active", "true"),
        ("phones[0]", "1"),
        ("phones[1]", "2"),
        ("none", ""),
    ]


def test_questions_are_asked_with_get(wire: Wire, connect: Connect) -> None:
    client = connect()
    client.record("User", "7")
    client.records("User")
    client.dictionary("leadSource")

    asked = [(asked.method, asked.path, asked.query, asked.body) for asked in wire.asked[1:]]
    assert asked == [
        ("GET", f"{REST}/User/get", [("id", "7")], b""),
        ("GET", f"{REST}/User/list", [], b""),
        ("GET", f"{REST}/SelectDictionary/list", [("type", "leadSource")], b""),
    ]


@SHAPES
@STATUSES
@FORMATS
def test_refused_in_readable_words_when_a_save_fails(
    egito: EgitoSimulator, connect: Connect, shape: ErrorShape, status: int, body_format: str
) -> None:
    egito.error_shape, egito.error_status = shape, status
    egito.add("Contact", lastName="Wrona")
    client = connect(body_format=body_format)

    for save_it in (
        lambda: client.create("Contact", LONG),
        lambda: client.update("Contact", "5001", LONG),
        lambda: client.create_entry("leadSource", ""),
    ):
        with pytest.raises(RefusedError) as caught:
            save_it()
        told = MISTAKES if save_it.__code__.co_names[-1] != "create_entry" else "Egito: name: may not be empty"
        assert (caught.value.message, caught.value.status) == (told, status)
    assert [record["lastName"] for record in egito.records["Contact"]] == ["Wrona"]


@SHAPES
@STATUSES
def test_refused_in_readable_words_when_a_right_is_missing(
    egito: EgitoSimulator, connect: Connect, shape: ErrorShape, status: int
) -> None:
    egito.error_shape, egito.error_status = shape, status
    methods = ("create", "get", "list", "update", "delete")
    egito.add("Contact", lastName="Wrona")
    client = connect()
    for method in methods:
        egito.forbidden = {("Contact", method), ("SelectDictionary", method)}
        calls: dict[str, Callable[[], object]] = {
            "create": lambda: client.create("Contact", {"lastName": "Lis"}),
            "get": lambda: client.record("Contact", "5001"),
            "list": lambda: client.dictionary("leadSource"),
            "update": lambda: client.update("Contact", "5001", {"city": "Kraków"}),
            "delete": lambda: client.delete_record("Contact", "5001"),
        }
        with pytest.raises(RefusedError) as caught:
            calls[method]()
        assert caught.value.message.startswith("Egito: Access denied"), method
        assert caught.value.status == status


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        (["a", "b"], "a; b"),
        ([{"field": "x", "code": "NotBlank"}], "x: NotBlank"),
        ([{"field": "x", "message": "m", "code": "c"}, "b"], "x: m; b"),
        ([{"defaultMessage": "m"}], "m"),
        ({"lastName": ["may not be empty", "is odd"]}, "lastName: may not be empty; is odd"),
        ({"message": "m"}, "m"),
        ("just text", "just text"),
        ([{"field": "x"}], "field: x"),
        ([None], "it did not say why"),
        ([""], "it did not say why"),
        ([["a"], ["b"]], "a; b"),
        ([7], "7"),
        (["<b>bold</b>"], "it did not say why"),
    ],
    ids=str,
)
@pytest.mark.parametrize("status", [200, 201, 400, 404, 409, 422])
def test_refused_in_egitos_words_however_it_tells_them(
    wire: Wire, connect: Connect, errors: object, words: str, status: int
) -> None:
    wire.calls_answer(status, {"errors": errors})
    with pytest.raises(RefusedError) as caught:
        connect().create("Contact", {})
    assert (caught.value.message, caught.value.status) == (f"Egito: {words}", status)


@pytest.mark.parametrize("errors", [[], None, {}, "", False])
def test_saved_when_the_list_of_errors_is_empty(wire: Wire, connect: Connect, errors: object) -> None:
    wire.calls_answer(200, {"id": "5", "errors": errors})
    assert connect().create("Contact", {}) == "5"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (403, SignInRefusedError),
        (429, NotDoneError),
        (500, MaybeDoneError),
        (502, MaybeDoneError),
    ],
)
def test_a_status_counts_more_than_errors(wire: Wire, connect: Connect, status: int, error: type[VendorError]) -> None:
    wire.calls_answer(status, {"errors": ["x"], "id": 5})
    with pytest.raises(error) as caught:
        connect().create("Contact", {})
    assert caught.value.status == status


@SHAPES
@STATUSES
@pytest.mark.parametrize("missing", ["errors", "404", "null", "empty"])
def test_refused_when_there_is_no_such_record(
    egito: EgitoSimulator, connect: Connect, missing: Missing, shape: ErrorShape, status: int
) -> None:
    egito.missing_record, egito.error_shape, egito.error_status = missing, shape, status
    client = connect()
    with pytest.raises(NoSuchRecordError):
        client.record("Contact", "1")
    with pytest.raises(NoSuchRecordError):
        client.update("Contact", "1", {"lastName": "Wrona"})
    with pytest.raises(RefusedError) as caught:
        client.delete_record("Contact", "1")
    assert caught.value.message == "Egito: Object not found"
    assert [seen for seen in egito.seen if seen.path.endswith("/update")] == []


WRAPPED = pytest.mark.parametrize("shape", get_args(Shape.__value__))


@WRAPPED
def test_record_is_read_and_saved_whatever_holds_it(egito: EgitoSimulator, connect: Connect, shape: Shape) -> None:
    egito.record_shape = shape
    client = connect()
    record_id = client.create("Contact", {"lastName": "Wrona", "city": "Kraków"})
    assert client.record("Contact", record_id)["lastName"] == "Wrona"
    assert client.update("Contact", record_id, {"city": "Gdynia"}) is True
    [record] = egito.records["Contact"]
    assert (record["id"], record["lastName"], record["city"]) == (int(record_id), "Wrona", "Gdynia")
    egito.missing_record = "null"
    with pytest.raises(NoSuchRecordError):
        client.update("Contact", "1", {"city": "Gdynia"})


@pytest.mark.parametrize(
    "body",
    [
        {"CONTACT": {"id": 5}},
        {"success": True, "data": {"id": 5}},
        {"item": {"id": "5"}},
        {"data": [{"id": 4}, {"id": 5}, {"id": 6}]},
        [{"id": 4}, {"id": 5}],
        [{"data": {"id": 5}}],
        {"data": {"rows": [{"id": 5}]}},
        {"id": 5, "data": {"id": 6}},
    ],
    ids=str,
)
def test_record_is_found_in_other_wrappers(wire: Wire, connect: Connect, body: object) -> None:
    wire.calls_answer(200, body)
    assert usable_id(connect().record("Contact", "5")) == "5"


@pytest.mark.parametrize(
    "body", [{}, [], {"data": None}, {"data": {}}, {"rows": [], "total": 0}, {"result": {"data": []}}]
)
def test_no_such_record_when_egito_shows_nothing(wire: Wire, connect: Connect, body: object) -> None:
    wire.calls_answer(200, body)
    with pytest.raises(NoSuchRecordError):
        connect().record("Contact", "5")


@pytest.mark.parametrize(
    "body",
    [
        {"id": 6},
        {"lastName": "Wrona"},
        {"id": None},
        {"data": {"lastName": "Wrona"}},
        {"payload": {"id": 5}},
        {"data": None, "message": "No connection to the database"},
        [{"id": 4}, {"id": 6}],
        {"id": 6, "item": {"id": 5}},
        {"data": {"data": {"data": {"data": {"id": 5}}}}},
        {"data": "5"},
        ["5"],
        "5",
        5,
    ],
    ids=str,
)
def test_contract_broken_when_egito_shows_something_else(wire: Wire, connect: Connect, body: object) -> None:
    """It does not prove that the record is gone, so an update waits instead of being refused."""
    wire.calls_answer(200, body)
    with pytest.raises(ContractBrokenError, match="shape that is not understood"):
        connect().record("Contact", "5")
    with pytest.raises(NotDoneError, match="shape that is not understood"):
        connect().update("Contact", "5", {"city": "Kraków"})


@pytest.mark.parametrize("body", [b"<html>Down for maintenance</html>", b"OK", b'{"id": 5'])
def test_a_record_is_not_missing_when_the_answer_is_no_json(wire: Wire, connect: Connect, body: bytes) -> None:
    wire.calls_answer(200, body, "text/html")
    with pytest.raises(ContractBrokenError):
        connect().record("Contact", "5")
    with pytest.raises(NotDoneError):
        connect().update("Contact", "5", {"city": "Kraków"})


@pytest.mark.parametrize("shape", ["array", "list", "items", "data", "rows"])
def test_records_are_listed_in_any_shape(egito: EgitoSimulator, connect: Connect, shape: ListShape) -> None:
    egito.list_shape = shape
    client = connect()
    assert [record["id"] for record in client.records("User")] == [7, 8, 9]
    assert client.records("Contact") == []
    assert [(entry.id, entry.name) for entry in client.dictionary("leadSource")] == [("1", "Website"), ("2", "Walk-in")]
    assert client.dictionary("unknown") == []


@pytest.mark.parametrize(
    "body",
    [None, 7, "text", {}, {"list": None}, {"list": {"1": {}}}, ["text"], [[1]], {"records": []}, b"", b"<html>", b"[{"],
    ids=str,
)
def test_contract_broken_when_a_list_is_none(wire: Wire, connect: Connect, body: object) -> None:
    wire.calls_answer(200, body)
    with pytest.raises(ContractBrokenError):
        connect().records("User")


@pytest.mark.parametrize(
    "body", [{"User": [{"id": 7}]}, {"result": [{"id": 7}]}, {"data": {"rows": [{"id": 7}]}, "total": 1}], ids=str
)
def test_records_are_listed_in_other_wrappers(wire: Wire, connect: Connect, body: object) -> None:
    wire.calls_answer(200, body)
    assert connect().records("User") == [{"id": 7}]


PAGING = {"page": "page", "size": "size", "page_size": 3}


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 6, 7])
@pytest.mark.parametrize("shape", ["array", "list"])
def test_all_pages_are_read(egito: EgitoSimulator, connect: Connect, count: int, shape: ListShape) -> None:
    egito.page_parameters, egito.list_shape = ("page", "size"), shape
    made = [egito.add("Contact", lastName=f"Lis {number}") for number in range(count)]
    assert connect(paging=PAGING).records("Contact") == made


def test_pages_are_asked_for_as_settings_say(egito: EgitoSimulator, wire: Wire, connect: Connect) -> None:
    egito.page_parameters = ("nr", "rows")
    for number in range(3):
        egito.add("Contact", lastName=f"Lis {number}")
    connect(paging={"page": "nr", "size": "rows", "page_size": 2}).records("Contact", {"club": "A"})
    asked = [dict(asked.query) for asked in wire.at(f"{REST}/Contact/list")]
    assert asked == [{"club": "A", "nr": str(number), "rows": "2"} for number in (1, 2, 3)]


def test_the_first_page_may_be_zero(wire: Wire, connect: Connect) -> None:
    pages = {"0": [{"id": 1}], "1": [{"id": 2}]}
    wire.on_call = lambda request: answer(200, pages.get(request.args["page"], []))
    assert connect(paging={**PAGING, "first": 0}).records("Contact") == [{"id": 1}, {"id": 2}]


def test_every_record_is_listed_once_when_pages_are_ignored_or_overlap(wire: Wire, connect: Connect) -> None:
    wire.calls_answer(200, [{"id": 1}, {"id": 2}])
    client = connect(paging=PAGING)
    assert client.records("Contact") == [{"id": 1}, {"id": 2}]
    assert len(wire.at(f"{REST}/Contact/list")) == 2
    wire.on_call = lambda request: answer(
        200, [{"id": number} for number in range(int(request.args["page"]), 5) if number < 5]
    )
    assert [record["id"] for record in client.records("Contact")] == [1, 2, 3, 4]


def test_contract_broken_when_a_list_does_not_end(wire: Wire, connect: Connect) -> None:
    wire.on_call = lambda request: answer(200, [{"id": request.args["page"]}])
    with pytest.raises(ContractBrokenError, match="Egito's list of Contact does not end"):
        connect(paging=PAGING).records("Contact")
    assert len(wire.at(f"{REST}/Contact/list")) == MAX_PAGES


@pytest.mark.parametrize("blanks_missing", [True, False])
@pytest.mark.parametrize("answers_only_id", [True, False])
@FORMATS
def test_update_keeps_what_it_does_not_change(
    egito: EgitoSimulator, connect: Connect, blanks_missing: bool, answers_only_id: bool, body_format: str
) -> None:
    egito.blanks_missing, egito.answers_only_id = blanks_missing, answers_only_id
    before = egito.add("Contact", firstName="Ola", lastName="Wrona", email="ola@a.example", notes="Staff wrote this")
    assert connect(body_format=body_format).update("Contact", "5001", {"city": "Kraków", "email": ""}) is True
    assert egito.records["Contact"] == [{**before, "city": "Kraków", "email": ""}]


def test_update_makes_no_call_when_nothing_changes(egito: EgitoSimulator, connect: Connect) -> None:
    egito.add("Contact", firstName="Ola", lastName="Wrona")
    assert connect().update("Contact", "5001", {"lastName": "Wrona", "city": ""}) is False
    assert connect().update("Contact", "5001", {}) is False
    assert [seen.path for seen in egito.seen if seen.path != TOKEN_PATH] == [f"{REST}/Contact/get"] * 2


def test_update_sends_a_field_that_the_record_does_not_show(
    egito: EgitoSimulator, wire: Wire, connect: Connect
) -> None:
    egito.add("Contact", lastName="Wrona")
    assert connect().update("Contact", "5001", {"nickname": None}) is True
    [asked] = wire.at(f"{REST}/Contact/update")
    assert json.loads(asked.body)["nickname"] is None


def test_update_is_not_done_when_the_record_could_not_be_read(wire: Wire, connect: Connect) -> None:
    for status in (302, 500, 503):
        wire.calls_answer(status, b"")
        with pytest.raises(NotDoneError):
            connect().update("Contact", "5", {"city": "Kraków"})
    assert wire.at(f"{REST}/Contact/update") == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"id": None},
        {"id": ""},
        {"id": True},
        {"id": 1.5},
        {"id": {"id": 5}},
        {"id": "x" * 201},
        {"payload": {"id": 5}},
        [{"id": 5}, {"id": 6}],
        5,
        None,
        b"",
        b"<html></html>",
        b'{"id": 5',
    ],
    ids=str,
)
def test_contract_broken_when_a_create_answers_no_id(wire: Wire, connect: Connect, body: object) -> None:
    wire.calls_answer(200, body)
    with pytest.raises(ContractBrokenError):
        connect().create("Contact", {"lastName": "Wrona"})
    assert len(wire.at(f"{REST}/Contact/create")) == 1


@pytest.mark.parametrize("method", ["create", "update", "delete"])
def test_contract_broken_when_a_save_is_key_link_id_204(wire: Wire, connect: Connect, method: str) -> None:
    def respond(request: Request) -> Response:
        return answer(200, {"id": 5}) if request.path.endswith("/get") else Response(status=204)

    wire.on_call = respond
    client = connect()
    calls: dict[str, Callable[[], object]] = {
        "create": lambda: client.create("Contact", {"lastName": "Wrona"}),
        "update": lambda: client.update("Contact", "5", {"lastName": "Wrona"}),
        "delete": lambda: client.delete_record("Contact", "5"),
    }
    with pytest.raises(ContractBrokenError):
        calls[method]()


def test_no_such_record_when_a_question_is_key_link_id_204(wire: Wire, connect: Connect) -> None:
    wire.on_call = lambda _request: Response(status=204)
    with pytest.raises(NoSuchRecordError):
        connect().record("Contact", "5")


@pytest.mark.parametrize("writing", [True, False])
def test_sign_in_refused_when_egito_answers_403(wire: Wire, connect: Connect, writing: bool) -> None:
    wire.calls_answer(403, {"error": "access_denied"})
    client = connect()
    with pytest.raises(SignInRefusedError) as caught:
        client.create("Contact", {}) if writing else client.records("Contact")
    assert caught.value.message == "Egito answered 403: access_denied"
    assert not isinstance(caught.value, SignInPausedError)
    assert len(wire.asked) == 2  # no token is renewed for it


@pytest.mark.parametrize(
    ("kind", "error", "made"),
    [
        (Kind.CLOSE_BEFORE, MaybeDoneError, 0),
        (Kind.CLOSE_AFTER, MaybeDoneError, 1),
        (Kind.ERROR_BEFORE, MaybeDoneError, 0),
        (Kind.ERROR_AFTER, MaybeDoneError, 1),
        (Kind.HTML, MaybeDoneError, 0),
        (Kind.TOO_MANY, TryLaterError, 0),
        (Kind.UNAVAILABLE, TryLaterError, 0),
        (Kind.UNAVAILABLE_AFTER, TryLaterError, 1),
        (Kind.REFUSE, NotDoneError, 0),
    ],
)
@FORMATS
def test_error_says_what_may_have_happened_when_a_create_fails(
    egito: EgitoSimulator, connect: Connect, kind: Kind, error: type[VendorError], made: int, body_format: str
) -> None:
    client = connect(body_format=body_format)
    client.records("User")
    if kind is Kind.REFUSE:
        egito.stop()
    else:
        egito.fail(kind, seconds=1)
    with pytest.raises(VendorError) as caught:
        client.create("Contact", {"lastName": "Wrona"})
    assert type(caught.value) is error
    assert len(egito.records["Contact"]) == made
    assert egito.token_requests == ["password"]


@pytest.mark.usefixtures("quick")
def test_maybe_done_when_the_answer_to_a_create_comes_too_late(egito: EgitoSimulator, connect: Connect) -> None:
    connect().records("User")
    egito.fail(Kind.DELAY, seconds=2)
    with pytest.raises(MaybeDoneError):
        connect(seconds=1).create("Contact", {"lastName": "Wrona"})


@pytest.mark.parametrize(
    "kind",
    [Kind.CLOSE_BEFORE, Kind.CLOSE_AFTER, Kind.ERROR_BEFORE, Kind.ERROR_AFTER, Kind.HTML, Kind.TOO_MANY, Kind.REFUSE],
)
@pytest.mark.parametrize("question", ["get", "list", "dictionary"])
def test_not_done_when_the_answer_to_a_question_is_lost(
    egito: EgitoSimulator, connect: Connect, kind: Kind, question: str
) -> None:
    client = connect()
    client.records("User")
    if kind is Kind.REFUSE:
        egito.stop()
    else:
        egito.fail(kind, method="GET")
    ask: dict[str, Callable[[], object]] = {
        "get": lambda: client.record("User", "7"),
        "list": lambda: client.records("User"),
        "dictionary": lambda: client.dictionary("leadSource"),
    }
    with pytest.raises(NotDoneError):
        ask[question]()


def test_a_record_is_deleted(egito: EgitoSimulator, connect: Connect) -> None:
    egito.add("Contact", lastName="Wrona")
    egito.add("Contact", lastName="Lis")
    connect().delete_record("Contact", "5001")
    assert [record["lastName"] for record in egito.records["Contact"]] == ["Lis"]


@FORMATS
def test_entries_of_a_dictionary_are_made_and_changed(
    egito: EgitoSimulator, connect: Connect, body_format: str
) -> None:
    client = connect(body_format=body_format)
    made = client.create_entry("leadSource", "Flyer & Co")
    *_, entry = client.dictionary("leadSource")
    assert (entry.id, entry.name) == (made, "Flyer & Co") == ("5001", "Flyer & Co")
    client.update_entry("leadSource", entry, "Poster")
    assert egito.dictionaries["leadSource"][-1] == {"id": 5001, "name": "Poster"}
    assert [entry["name"] for entry in egito.dictionaries["industry"]] == ["Sports", "Education"]


def test_entries_are_understood_whatever_their_name_is_called(wire: Wire, connect: Connect) -> None:
    entries: list[dict[str, Any]] = [
        {"id": 1, "name": "A"},
        {"id": "2", "value": "B"},
        {"id": 3, "name": "", "label": "C"},
        {"id": 4},
    ]
    wire.calls_answer(200, entries)
    client = connect()
    found = client.dictionary("leadSource")
    assert found == [EgitoEntry(str(n), name, entries[n - 1]) for n, name in ((1, "A"), (2, "B"), (3, "C"))]

    wire.calls_answer(200, {})
    client.update_entry("leadSource", found[1], "B2")
    [asked] = wire.at(f"{REST}/SelectDictionary/update")
    assert json.loads(asked.body) == {"id": "2", "value": "B2", "type": "leadSource"}


def test_entry_is_left_out_when_it_has_no_id(wire: Wire, connect: Connect) -> None:
    wire.calls_answer(200, [{"name": "A"}, {"id": 2, "name": "B"}])
    assert [entry.name for entry in connect().dictionary("leadSource")] == ["B"]

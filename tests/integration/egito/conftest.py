"""A client of Egito against its simulator over real HTTP, and responses that no simulator gives."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from urllib.parse import parse_qsl

import pytest
from werkzeug.wrappers import Request, Response

from crm_bridge import aws
from crm_bridge.errors import StorageError
from crm_bridge.outbound.oauth import Tokens
from crm_bridge.outbound.transport import Deadline, Transport
from crm_bridge.storage.documents import Change, Document, Documents
from crm_bridge.vendors.egito import Egito
from crm_bridge.vendors.egito_settings import EgitoSettings
from local.stack import LOCAL_HOSTS
from local.vendors.egito import TOKEN_PATH, EgitoSimulator
from tests.clock import Clock
from tests.stack import Stack

USER = "bridge@demo"
PASSWORD = 'p@ss wörd/+%&"'
API_SECRET = 'k/ey +%&"ü=?'
LIFE = 3600
"""Seconds that a token of the simulator lives."""
REST = "/services/restapi/json"
WRONA = {"lastName": "Wrona"}

type Respond = Callable[[Request], Response]


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
    """The requests that arrive at a simulator; and responses that it would not give, for tokens or for calls."""

    egito: EgitoSimulator
    monkeypatch: pytest.MonkeyPatch
    asked: list[Asked] = field(default_factory=list)
    on_token: Respond | None = None
    on_call: Respond | None = None

    def __post_init__(self) -> None:
        really_respond = self.egito.respond

        def respond(request: Request) -> Response:
            query = parse_qsl(request.query_string.decode(), keep_blank_values=True)
            kind, authorization = (request.headers.get(name) for name in ("Content-Type", "Authorization"))
            self.asked.append(Asked(request.method, request.path, query, kind, authorization, request.get_data()))
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
                raise StorageError("The bridge's storage did not respond.")
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


@pytest.fixture
def alone(egito: EgitoSimulator) -> Clock:
    """That of Egito and of the function of `connect`."""
    egito.clock = Clock()
    return egito.clock


def settings_of(egito: EgitoSimulator, **changes: object) -> EgitoSettings:
    document = {
        "base_url": egito.url,
        "api_id": egito.api_id,
        "api_secret": egito.api_secret,
        "username": USER,
        "password": egito.users[USER],
        **changes,
    }
    return EgitoSettings.model_validate(document, context=LOCAL_HOSTS)


class Connect:
    """Gives clients of Egito in a function that runs alone."""

    def __init__(self, egito: EgitoSimulator, clock: Callable[[], float]) -> None:
        self.transports: list[Transport] = []
        self._egito, self._clock = egito, clock
        self.forget()

    def forget(self) -> None:
        """Let what follows be another function, which has no token, and for which nothing is down."""
        self.transports.append(Transport(on_this_machine=LOCAL_HOSTS))
        self.tokens = Tokens(Notebook(), self._clock)

    def __call__(self, seconds: float = 120, **changes: object) -> Egito:
        login = f"login {sorted(changes.items())}"
        settings = settings_of(self._egito, **changes)
        return Egito(settings, self.transports[-1], Deadline(seconds), self.tokens, login)


@pytest.fixture
def connect(egito: EgitoSimulator, alone: Clock) -> Iterator[Connect]:
    connect = Connect(egito, alone)
    yield connect
    for transport in connect.transports:
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
        settings = EgitoSettings.model_validate({**self.stack.egito.blocks()["egito"], **changes}, context=LOCAL_HOSTS)
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
        started.append(Function(stack, documents, Tokens(documents, clock), Transport(on_this_machine=LOCAL_HOSTS)))
        return started[-1]

    yield one
    for function in started:
        function.transport._adapter.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short deadlines, so that tests need not wait for long."""
    monkeypatch.setattr("crm_bridge.outbound.transport.SHORTEST_CALL", 0.3)
    monkeypatch.setattr("crm_bridge.outbound.oauth.SHORTEST_CALL", 0.3)
    monkeypatch.setattr("crm_bridge.outbound.oauth.LONGEST_ASKING", 1.0)

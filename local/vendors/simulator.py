"""The base of all simulators: a server, a record of what arrived, and faults on demand.

Faults can be ordered in Python (`simulator.fail`) or over HTTP: `POST /_faults {"kind": "close_after", "times": 1}`.
`GET /_state` returns the vendor's records and the requests that it got.
"""

import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from werkzeug.wrappers import Request, Response

from local.server import HOST, Server, cut
from local.vendors.alterations import Alteration, Stored, stored

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Kind(StrEnum):
    """Ways in which a call can fail. `before` and `after` mean the vendor's doing what it was asked."""

    REFUSE = "refuse"
    """No connection is accepted for `seconds`."""
    DELAY = "delay"
    """The response comes `seconds` late."""
    TOO_MANY = "too_many"
    """429 with `Retry-After: seconds`."""
    UNAVAILABLE = "unavailable"
    """503 with `Retry-After: seconds`."""
    TOO_MANY_AFTER = "too_many_after"
    UNAVAILABLE_AFTER = "unavailable_after"
    """The same although the vendor has done it, as a proxy may respond."""
    ERROR_BEFORE = "error_before"
    ERROR_AFTER = "error_after"
    """500."""
    CLOSE_BEFORE = "close_before"
    CLOSE_AFTER = "close_after"
    """The connection ends without a response."""
    WRONG_STATUS = "wrong_status"
    """It does it, and answers 200 whatever the documentation says."""
    HTML = "html"
    """502 with a proxy's HTML page; nothing was done."""
    BAD_KEY = "bad_key"
    """401, as after a password change."""
    MOVED = "moved"
    """308 to another host, as from a proxy; nothing was done."""


class Fault(BaseModel):
    """An order to fail. Only requests with `method` do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    times: int = Field(default=1, ge=1)
    seconds: float = Field(default=0, ge=0, le=3600)
    method: Literal["GET", "POST", "PUT", "DELETE"] = "POST"

    @model_validator(mode="after")
    def _takes_time(self) -> "Fault":
        if self.kind in (Kind.REFUSE, Kind.DELAY) and not self.seconds:
            raise ValueError(f"{self.kind} needs seconds")
        return self


@dataclass(frozen=True)
class Seen:
    """One request that arrived, and what the vendor answered."""

    method: str
    path: str
    status: int
    fault: Kind | None


class Example(NamedTuple):
    """A request that a developer may try, shown when the local stack starts."""

    text: str
    method: str
    path: str
    body: object = None
    fault: Kind | None = None
    """The faults to play first."""


@dataclass
class Simulator(ABC):
    """A vendor on this machine. `clock` gives epoch seconds, and can be moved by a test."""

    name: str
    port: int = 0
    clock: Callable[[], float] = time.time
    search_lag: float = 0
    """Seconds for which a new record is missing in what the vendor lists."""
    seen: list[Seen] = field(default_factory=list)
    listen: str = HOST
    alterations: Sequence[Alteration] = ()
    """Alters every free text before it is stored."""
    repeats_requests: bool = False
    """Whether an object with which it responds also has the headers and the body of the request, as they came and
    escaped for an address, as a service in debug mode may do."""

    def __post_init__(self) -> None:
        self._faults: list[Fault] = []
        self.is_refusing = False
        self.lock = threading.Lock()
        self._server = Server(f"the {self.name} simulator", self._answer, self.port, listen=self.listen)

    @abstractmethod
    def respond(self, request: Request) -> Response:
        """Do what the vendor does. Called under `lock`."""

    @abstractmethod
    def held(self) -> dict[str, object]:
        """Return the vendor's records, by kind."""

    def examples(self) -> Sequence[Example]:
        """Return requests whose effect can be seen here."""
        return ()

    @abstractmethod
    def blocks(self) -> dict[str, dict[str, object]]:
        """Return the blocks of a tenant's document that lead here."""

    def altered(self, text: str) -> Stored:
        return stored(text, self.alterations)

    @property
    def url(self) -> str:
        return self._server.url

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def fail(
        self,
        kind: Kind,
        *,
        times: int = 1,
        seconds: float = 0,
        method: Literal["GET", "POST", "PUT", "DELETE"] = "POST",
    ) -> None:
        """Let the next `times` requests with `method` fail; REFUSE begins at once and ends after `seconds`."""
        self._order(Fault(kind=kind, times=times, seconds=seconds, method=method))

    def _order(self, fault: Fault) -> None:
        if fault.kind is Kind.REFUSE:
            self.is_refusing = True
            self.stop()
            timer = threading.Timer(fault.seconds, self._accept_again)
            timer.daemon = True
            timer.start()
            return
        with self.lock:
            self._faults.append(fault)

    def _accept_again(self) -> None:
        self.start()
        self.is_refusing = False

    def heal(self) -> None:
        """Forget the faults that were ordered."""
        with self.lock:
            self._faults.clear()

    def _answer(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        request = Request(environ)
        request.get_data()  # all of it, before anything is answered: the connection may be used again
        response = self._steered(request) if request.path.startswith("/_") else self._faulty(request)
        return response(environ, start_response)

    def _faulty(self, request: Request) -> Response:
        fault = self._next_fault(request.method)
        kind = fault.kind if fault else None
        if kind is Kind.DELAY and fault:
            time.sleep(fault.seconds)
        response = self._spared(fault) if fault else None
        if response is None and kind is not Kind.CLOSE_BEFORE:
            with self.lock:
                response = self.respond(request)
            if self.repeats_requests:
                _repeat(request, response)
        match kind:
            case Kind.ERROR_AFTER:
                response = Response("Internal Server Error", 500)
            case Kind.TOO_MANY_AFTER | Kind.UNAVAILABLE_AFTER if fault:
                response = self._try_later(fault)
            case Kind.WRONG_STATUS if response and response.status_code < 300:
                response.status_code = 200
            case Kind.CLOSE_BEFORE | Kind.CLOSE_AFTER:
                cut(request.environ["werkzeug.socket"])
        response = response or Response()
        self.seen.append(Seen(request.method, request.path, response.status_code, kind))
        return response

    @staticmethod
    def _spared(fault: Fault) -> Response | None:
        """The response of a vendor that did nothing, or None if this fault lets it work."""
        match fault.kind:
            case Kind.TOO_MANY | Kind.UNAVAILABLE:
                return Simulator._try_later(fault)
            case Kind.ERROR_BEFORE:
                return Response("Internal Server Error", 500)
            case Kind.HTML:
                return Response("<html><h1>502 Bad Gateway</h1></html>", 502, mimetype="text/html")
            case Kind.BAD_KEY:
                return Response('{"message": "Unauthorized"}', 401, mimetype="application/json")
            case Kind.MOVED:
                return Response("Permanent Redirect", 308, {"Location": "https://moved.example/v1?key=s3cret"})
        return None

    @staticmethod
    def _try_later(fault: Fault) -> Response:
        later = {"Retry-After": f"{fault.seconds:.0f}"}
        if fault.kind in (Kind.TOO_MANY, Kind.TOO_MANY_AFTER):
            return Response('{"message": "Too many requests"}', 429, later, mimetype="application/json")
        return Response("Service Unavailable", 503, later)

    def _next_fault(self, method: str) -> Fault | None:
        with self.lock:
            for number, fault in enumerate(self._faults):
                if fault.method == method:
                    if fault.times > 1:
                        self._faults[number] = fault.model_copy(update={"times": fault.times - 1})
                    else:
                        del self._faults[number]
                    return fault
        return None

    def _steered(self, request: Request) -> Response:
        match request.method, request.path:
            case "POST", "/_faults":
                try:
                    fault = Fault.model_validate_json(request.get_data())
                except ValidationError as error:
                    mistakes = [f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors()]
                    return json_response({"message": "; ".join(mistakes)}, 400)
                if fault.kind is Kind.REFUSE:  # a little later, so that whoever orders it is still answered
                    threading.Timer(0.1, self._order, [fault]).start()
                else:
                    self._order(fault)
                return Response(status=204)
            case "DELETE", "/_faults":
                self.heal()
                return Response(status=204)
            case "GET", "/_state":
                with self.lock:
                    return json_response({**self.held(), "requests": [asdict(seen) for seen in self.seen]})
        return Response(status=404)


def _repeat(request: Request, response: Response) -> None:
    body = response.get_json(silent=True)
    if isinstance(body, dict):
        came = [*request.headers.values(), request.full_path, request.get_data(as_text=True)]
        body["debug"] = {"came": came, "escaped": [quote(text, "").lower() for text in came]}
        response.set_data(json.dumps(body))


def json_response(body: object, status: int = 200) -> Response:
    return Response(json.dumps(body), status, mimetype="application/json")

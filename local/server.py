"""A WSGI server that runs in the background, on loopback, for the gateway, the embedded AWS and the simulators."""

import json
import re
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HOST = "127.0.0.1"
ALL_ADDRESSES = "0.0.0.0"  # noqa: S104 - only for whoever asks for it
HOST_OF_CONTAINERS = "host.docker.internal"
"""The name of this machine in a container."""
THIS_MACHINE = frozenset({HOST, "localhost", "[::1]", HOST_OF_CONTAINERS})


class PortInUseError(Exception):
    def __init__(self, name: str, port: int, reason: str) -> None:
        super().__init__(f"port {port} cannot be used by {name} ({reason}); choose others with --port N")


class QuickHandler(WSGIRequestHandler):
    """Writes a response in one piece: in two, each would wait 40 ms for an acknowledgement."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's name
        """No access log: paths can hold customers' ids, and headers keys."""


def refusal(environ: "WSGIEnvironment", names: frozenset[str], *, has_pages: bool) -> str | None:
    """Return why a request is refused that a web page may have sent; None if it is not.

    Any page that is open in a browser on this machine can send requests here. A browser says so in Origin and
    Sec-Fetch-Site; and in Host, if the page's own name now leads here (DNS rebinding). Only a server that `has_pages`
    accepts requests of pages, and only of its own. A visit (a link, an address that was typed) is no such request: it
    changes nothing, and the page that has the link cannot read the response.

    Sources: https://fetch.spec.whatwg.org/#origin-header, https://www.w3.org/TR/fetch-metadata/
    """
    host = environ.get("HTTP_HOST", "")
    if re.sub(":[0-9]{1,5}$", "", host).lower() not in names:
        return f"The header Host must name this machine: {', '.join(sorted(names))}."
    origin = environ.get("HTTP_ORIGIN")
    is_own = has_pages and origin == f"http://{host}"
    is_visit = environ["REQUEST_METHOD"] == "GET" and environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
    is_foreign = environ.get("HTTP_SEC_FETCH_SITE", "none") not in ("none", "same-origin") and not is_visit
    if is_foreign or not (origin is None or is_own):
        return "Requests of web pages of another origin are refused. Send it without the header Origin."
    return None


class Server:
    """`app` at `url` from `start` to `stop`. After `stop`, connections are refused and the open ones are cut."""

    def __init__(
        self,
        name: str,
        app: "WSGIApplication",
        port: int = 0,
        handler: type[WSGIRequestHandler] = QuickHandler,
        listen: str = HOST,
        *,
        has_pages: bool = False,
        names: frozenset[str] = THIS_MACHINE,
    ) -> None:
        """`listen` is HOST or ALL_ADDRESSES; `url` is the same for both. Of `has_pages` and `names` see `refusal`."""
        self.name = name
        self._app = app
        self._has_pages = has_pages
        self._names = names
        self._handler = handler
        self.port = port
        self._listen = listen
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None
        self._connections: set[socket.socket] = set()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Listens on the same port after a stop. Raises PortInUseError."""
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((self._listen, self.port))
            except OSError as error:
                raise PortInUseError(self.name, self.port, error.strerror or "") from error
            listener.listen(128)
            self.port = listener.getsockname()[1]
            # werkzeug ends the process if it cannot bind a port itself; it takes a copy of this socket instead.
            self._server = make_server(
                HOST, self.port, self._answer, threaded=True, request_handler=self._tracking(), fd=listener.fileno()
            )
        self._thread = threading.Thread(target=self._serve, args=(self._server,), name=self.name, daemon=True)
        self._thread.start()

    def _answer(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if reason := refusal(environ, self._names, has_pages=self._has_pages):
            refused = Response(json.dumps({"message": reason}), 403, mimetype="application/json")
            return refused(environ, start_response)
        return self._app(environ, start_response)

    def _serve(self, server: BaseWSGIServer) -> None:
        """Its own `serve_forever` would wake up all the time to see whether it shall stop."""
        while self._server is server:
            server.handle_request()
        server.server_close()

    def stop(self) -> None:
        if self._server is None:
            return
        self._server = None
        with suppress(OSError), socket.create_connection((HOST, self.port), timeout=1):  # so that it looks
            pass
        if self._thread:
            self._thread.join()  # until then connections are still accepted
        for connection in list(self._connections):
            cut(connection)

    def _tracking(self) -> type[WSGIRequestHandler]:
        connections = self._connections

        class Handler(self._handler):  # type: ignore[name-defined,misc]
            def setup(self) -> None:
                connections.add(self.request)
                super().setup()

            def finish(self) -> None:
                connections.discard(self.request)
                with suppress(OSError):  # there may be nobody left to write to
                    super().finish()
                self.rfile.close()

        return Handler


def cut(connection: socket.socket) -> None:
    """End a connection without a response."""
    with suppress(OSError):  # the other side may have been quicker
        connection.shutdown(socket.SHUT_RDWR)


def in_background(name: str, work: Callable[[threading.Event], None]) -> Callable[[], None]:
    """Run `work` in a thread until the returned function is called; `work` watches the event that it is given."""
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,), name=name, daemon=True)
    thread.start()

    def end() -> None:
        stop.set()
        thread.join()

    return end

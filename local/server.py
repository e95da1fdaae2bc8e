"""A WSGI server that runs in the background, on loopback, for the gateway, the embedded AWS and the simulators."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

HOST = "127.0.0.1"
ALL_ADDRESSES = "0.0.0.0"  # noqa: S104 - only for whoever asks for it


class PortInUseError(Exception):
    def __init__(self, name: str, port: int, reason: str) -> None:
        super().__init__(f"port {port} cannot be used by {name} ({reason}); choose others with --port N")


class QuickHandler(WSGIRequestHandler):
    """Writes an answer in one piece: in two, each would wait 40 ms for an acknowledgement."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's name
        """No access log: paths can hold customers' ids, and headers keys."""


class Server:
    """`app` at `url` from `start` to `stop`. After `stop`, connections are refused and the open ones are cut."""

    def __init__(
        self,
        name: str,
        app: "WSGIApplication",
        port: int = 0,
        handler: type[WSGIRequestHandler] = QuickHandler,
        listen: str = HOST,
    ) -> None:
        """`listen` is HOST or ALL_ADDRESSES; `url` is the same for both."""
        self.name = name
        self._app = app
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
                HOST, self.port, self._app, threaded=True, request_handler=self._tracking(), fd=listener.fileno()
            )
        self._thread = threading.Thread(target=self._serve, args=(self._server,), name=self.name, daemon=True)
        self._thread.start()

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
    """End a connection without an answer."""
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

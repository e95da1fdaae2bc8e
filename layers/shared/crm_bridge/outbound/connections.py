"""Connections that another thread can end.

A socket's timeout restarts with every byte, so it does not bound a response. When the deadline of a call is over, the
waiting thread shuts the connection down (`Exchange.cut`), and the thread that reads from it ends as if the vendor had
left.
"""

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, ClassVar, override

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection


class Exchange:
    """One request and its response, in the thread that is within `running`; any other may `cut` it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_cut = False

    @contextmanager
    def running(self) -> Iterator[None]:
        token = _running.set(self)
        try:
            yield
        finally:
            _running.reset(token)
            with self._lock:
                self._let_go()

    def check(self) -> None:
        """Raise TimeoutError if it was cut."""
        if self._is_cut:
            raise TimeoutError("the deadline is over")

    def use(self, sock: socket.socket) -> None:
        """Let `cut` shut this connection down. Raises TimeoutError if it was cut before."""
        with self._lock:
            self.check()
            if self._socket is None:
                # A duplicate, because a TLS handshake takes the descriptor away from the socket that was connected.
                self._socket = socket.socket(fileno=os.dup(sock.fileno()))

    def cut(self) -> None:
        """End it at once; without effect when it is over."""
        with self._lock:
            self._is_cut = True
            if self._socket:
                with suppress(OSError):  # the other side was quicker
                    self._socket.shutdown(socket.SHUT_RDWR)
            self._let_go()

    def _let_go(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None


_running: ContextVar[Exchange | None] = ContextVar("running", default=None)


def check() -> None:
    """Raise TimeoutError if this thread's exchange was cut."""
    if exchange := _running.get():
        exchange.check()


def used(sock: socket.socket) -> socket.socket:
    """Return a connected socket, which can be cut from now on. Raises TimeoutError."""
    if exchange := _running.get():
        try:
            exchange.use(sock)
        except TimeoutError:
            sock.close()
            raise
    return sock


class Cuttable(HTTPConnection):
    @override
    def _new_conn(self) -> socket.socket:
        return used(super()._new_conn())

    @override
    def request(self, *arguments: Any, **options: Any) -> None:
        if self.sock is not None:  # from the pool, or after a TLS handshake
            used(self.sock)
        super().request(*arguments, **options)


class _HttpsConnection(Cuttable, HTTPSConnection):
    pass


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = Cuttable


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


class CuttableAdapter(HTTPAdapter):
    """Sends requests to addresses of the schemes in `pools`; others end in InvalidURL."""

    pools: ClassVar[Mapping[str, type[urllib3.HTTPConnectionPool]]] = {"http": _HttpPool, "https": _HttpsPool}

    @override
    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {**self.pools}
        keys = self.poolmanager.key_fn_by_scheme
        self.poolmanager.key_fn_by_scheme = {scheme: keys[scheme] for scheme in self.pools}

"""Embedded AWS: DynamoDB, Secrets Manager, SQS and CloudFormation by moto, over real HTTP on loopback."""

import threading
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

import requests
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app

from local.server import QuickHandler, Server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

DYNAMODB = "DynamoDB_20120810."


class _Handler(QuickHandler, MotoRequestHandler):
    """moto's view of a request, with our way of answering."""


class _Moto(DomainDispatcherApplication):
    """Remembers which host is which service; moto itself reads its folder anew for every request."""

    def __init__(self) -> None:
        super().__init__(create_backend_app)
        self._services: dict[str | None, Any] = {}

    def get_backend_for_host(self, host: str | None) -> Any:
        if host not in self._services:
            self._services[host] = super().get_backend_for_host(host)
        return self._services[host]


_moto = cache(_Moto)
"""One for the process, as is all that moto holds."""


class EmbeddedAws:
    """`calls` counts what arrived, by action, as it was on the wire."""

    def __init__(self, port: int = 0) -> None:
        self.calls: Counter[str] = Counter()
        self._counting = threading.Lock()
        # moto's conditional writes and transactions are not atomic between threads, so they are answered one at a time.
        self._dynamodb = threading.Lock()
        self._moto: WSGIApplication = _moto()
        self._server = Server("the embedded AWS", self._answer, port, _Handler)

    @property
    def url(self) -> str:
        return self._server.url

    def start(self) -> None:
        """Empty, whatever ran in this process before. Source: https://docs.getmoto.org/en/latest/docs/server_mode.html"""
        self._server.start()
        requests.post(f"{self.url}/moto-api/reset", timeout=10).raise_for_status()

    def stop(self) -> None:
        self._server.stop()

    def _answer(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        with self._counting:
            self.calls[target] += 1
        if not target.startswith(DYNAMODB):
            return self._moto(environ, start_response)
        with self._dynamodb:
            return list(self._moto(environ, start_response))

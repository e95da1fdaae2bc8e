"""Requests to the gateway without a connection, in a third of the time: the same events, and the same responses.

With LONG=1 they are sent over HTTP. test_gateway, test_local, tests/faults and tests/browser always do that.
"""

import os
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter
from requests.exceptions import ConnectionError as NoConnectionError
from urllib3 import HTTPHeaderDict, HTTPResponse
from werkzeug.test import run_wsgi_app

from local.gateway import Gateway

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


def session(gateway: Gateway) -> Session:
    """Return a session that reads neither proxies nor .netrc; what it sends to `gateway` needs no connection."""
    made = Session()
    made.trust_env = False
    made.mount("http://", HTTPAdapter(pool_maxsize=32))
    if not os.environ.get("LONG"):
        made.mount(gateway.url, _Adapter(gateway))
    return made


class _Adapter(HTTPAdapter):
    def __init__(self, gateway: Gateway) -> None:
        super().__init__()
        self._gateway = gateway

    def send(self, request: PreparedRequest, *arguments: Any, **options: Any) -> Response:
        if not isinstance(request.body, str | bytes | None):
            return super().send(request, *arguments, **options)  # in chunks
        if self._gateway._server._server is None:
            raise NoConnectionError("the gateway has stopped", request=request)
        content, status, headers = run_wsgi_app(self._gateway._server._answer, _environ(request), buffered=True)
        code, _, reason = status.partition(" ")
        response = HTTPResponse(
            BytesIO(b"".join(content)),
            HTTPHeaderDict([*headers]),
            int(code),
            reason=reason,
            preload_content=False,
            request_method=request.method,
        )
        return self.build_response(request, response)


def _environ(request: PreparedRequest) -> "WSGIEnvironment":
    """As werkzeug's server makes it."""
    assert request.url
    assert request.method
    url = urlsplit(request.url)
    body = request.body or b""
    return {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": url.scheme,
        "wsgi.input": BytesIO(body.encode() if isinstance(body, str) else body),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(url.path).encode().decode("latin-1"),
        "QUERY_STRING": url.query,
        "REQUEST_URI": request.path_url,
        "RAW_URI": request.path_url,
        "REMOTE_ADDR": url.hostname,
        "SERVER_NAME": url.hostname,
        "SERVER_PORT": str(url.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": url.netloc,
        **dict(_headers(request)),
    }


def _headers(request: PreparedRequest) -> Iterator[tuple[str, str]]:
    for name, value in request.headers.items():
        variable = name.upper().replace("-", "_")
        prefix = "" if variable in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_"
        text: str | bytes = value
        if "_" not in name:
            yield f"{prefix}{variable}", (text if isinstance(text, bytes) else text.encode("latin-1")).decode("latin-1")

"""The local gateway over real sockets: what it makes of requests is what API Gateway makes of them."""

import base64
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from crm_bridge.telemetry import logger
from local.gateway import LARGEST_BODY, Gateway
from local.template import ApiRoute, Function

type Send = Callable[[bytes], tuple[int, str, bytes]]

JSON = b"Content-Type: application/json\r\n"


@pytest.fixture(autouse=True)
def every_answer_is_documented() -> None:
    """Not here: the function is none of the bundle's."""


def echo(event: Mapping[str, Any], context: object) -> Mapping[str, object]:  # noqa: ARG001 - as Lambda calls it
    return {"statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": json.dumps(event)}


@pytest.fixture
def send() -> Iterator[Send]:
    function = Function("Echo", f"{__name__}.echo", 30, {})
    gateway = Gateway([ApiRoute("POST", "/sites", "Echo")], {"Echo": function})
    gateway.start()
    gateway.open()

    def sent(request: bytes) -> tuple[int, str, bytes]:
        """Status, Content-Type and body of the response to bytes after which the client sends no more."""
        with socket.create_connection(("127.0.0.1", gateway._server.port), timeout=10) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            response = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, body = response.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:])
        assert headers["Connection"] == "close"
        return int(lines[0].split()[1]), headers["Content-Type"], body

    yield sent
    gateway.stop()


def post(headers: bytes, body: bytes = b"{}", query: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST /sites" + query + b" HTTP/1.1\r\nHost: localhost\r\n" + length + headers + b"\r\n" + body


def event(send: Send, headers: bytes, body: bytes = b"{}", query: bytes = b"") -> dict[str, Any]:
    status, _, answer = send(post(headers, body, query))
    assert status == 200
    seen: dict[str, Any] = json.loads(answer)
    return seen


def test_repeated_headers_are_joined_by_commas(send: Send) -> None:
    """Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html"""
    lines = b"Content-Type: application/json\r\nX-Api-Key: \r\nX-API-KEY: k\r\naccept: a\r\nAccept: b, c\r\n"
    headers = event(send, lines + b"content-type: application/json; charset=utf-8\r\n")["headers"]
    assert headers["content-type"] == "application/json,application/json; charset=utf-8"
    assert headers["x-api-key"] == ",k"
    assert headers["accept"] == "a,b, c"


def test_cookies_are_a_list_of_their_own_and_no_header(send: Send) -> None:
    """As in https://github.com/Kludex/mangum/pull/153"""
    seen = event(send, JSON + b"Cookie: cookie1; cookie2\r\nCookie: a=b, c\r\n")
    assert seen["cookies"] == ["cookie1", "cookie2", "a=b, c"]
    assert "cookie" not in seen["headers"]
    assert "cookies" not in event(send, JSON)


def test_repeated_parameters_are_joined_by_commas(send: Send) -> None:
    seen = event(send, JSON, query=b"?parameter1=value1&parameter1=value2&parameter2=va%2Clue&empty=")
    assert seen["queryStringParameters"] == {"parameter1": "value1,value2", "parameter2": "va,lue", "empty": ""}
    assert seen["rawQueryString"] == "parameter1=value1&parameter1=value2&parameter2=va%2Clue&empty="
    assert "queryStringParameters" not in event(send, JSON)


@pytest.mark.parametrize(
    ("kind", "is_text"),
    [
        (b"application/json", True),
        (b"application/json; charset=utf-8", True),
        (b"text/xml", True),
        (b"application/xml", True),
        (b"application/javascript", True),
        (b"text/plain; charset=iso-8859-1", False),
        (b"application/vnd.crm+json", False),
        (b"application/octet-stream", False),
        (b"application/x-www-form-urlencoded", False),
        (b"", False),
    ],
)
def test_a_body_is_text_or_base64_by_its_content_type(send: Send, kind: bytes, is_text: bool) -> None:
    """As others measured it on AWS: https://github.com/ministackorg/ministack/pull/766"""
    seen = event(send, b"Content-Type: " + kind + b"\r\n" if kind else b"", "ó".encode())
    assert (seen["isBase64Encoded"], seen["body"]) == (
        (False, "ó") if is_text else (True, base64.b64encode("ó".encode()).decode())
    )


CHUNKED = b"POST /sites HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n" + JSON + b"\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        post(JSON, b'{"name": "Rex"}')[:-3],
        b"POST /sites HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n" + JSON + b"\r\n",
        CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
        CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n",
        CHUNKED + b"2\r\n{}xx\r\n0\r\n\r\n",
        CHUNKED + b"5\r\n{}",
        CHUNKED + b"fffff\r\n{}",
        CHUNKED + b"2\r\n{}\r\n",
        CHUNKED + b"2\r\n{}\r\n0\r\n",
        CHUNKED + b"\r\n",
        CHUNKED + b"f" * 200,
        CHUNKED,
    ],
    ids=repr,
)
def test_is_400_without_a_traceback_when_the_body_is_cut_or_a_chunk_is_bad(
    send: Send, request_: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[str] = []
    monkeypatch.setattr("werkzeug.serving.BaseWSGIServer.log", lambda _, __, message, *args: logged.append(message))  # noqa: ARG005
    monkeypatch.setattr(logger(), "error", lambda message, **_: logged.append(message))
    status, kind, body = send(request_)
    assert (status, kind, json.loads(body), logged) == (400, "application/json", {"message": "Bad Request"}, [])


def test_is_413_when_the_body_is_larger_than_api_gateway_takes(send: Send) -> None:
    head = b"POST /sites HTTP/1.1\r\nHost: localhost\r\n" + JSON
    for request in (
        head + b"Content-Length: %d\r\n\r\n{}" % (2 * LARGEST_BODY),
        head
        + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % (LARGEST_BODY + 1)
        + b" " * (LARGEST_BODY + 1)
        + b"\r\n0\r\n\r\n",
    ):
        status, kind, body = send(request)
        assert (status, kind, json.loads(body)["message"]) == (413, "application/json", "Request Entity Too Large")


def test_a_whole_body_in_chunks_is_taken(send: Send) -> None:
    status, _, body = send(CHUNKED + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n")
    assert (status, json.loads(body)["body"]) == (200, "{}")


@pytest.mark.parametrize(
    ("path", "kind", "text"),
    [
        (b"/openapi.json", "application/json", b'"openapi": "3.1.1"'),
        (b"/docs", "text/html", b"<title>CRM Bridge: API reference</title>"),
        (b"/docs/problems.md", "text/markdown", b"## `invalid`"),
    ],
)
def test_the_documentation_of_the_api_is_served_here(send: Send, path: bytes, kind: str, text: bytes) -> None:
    status, media_type, body = send(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (status, media_type) == (200, f"{kind}; charset=utf-8")
    assert text in body
    assert send(b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")[0] == 404

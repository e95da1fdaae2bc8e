"""API Gateway, the queue pollers and the scheduler, as on AWS, around the real handlers.

Source of the event's shape: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

import base64
import io
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any, cast

from werkzeug.exceptions import ClientDisconnected, HTTPException, RequestEntityTooLarge
from werkzeug.routing import Map, Rule
from werkzeug.serving import DechunkedInput
from werkzeug.wrappers import Request, Response

from crm_bridge.media import charset, media_type
from crm_bridge.telemetry import log_defect
from local.server import QuickHandler, Server, in_background
from local.template import TEMPLATE, ApiRoute, Function

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

DOCS = TEMPLATE.parent / "docs"
PAGES: Mapping[str, tuple[str, str]] = {
    "/docs": ("reference.html", "text/html"),
    "/docs/problems.md": ("problems.md", "text/markdown"),
    "/openapi.json": ("openapi.json", "application/json"),
}
"""The routes that only this gateway has: the file in docs/, and its media type."""
LARGEST_BODY = 10 * 1024 * 1024
_TEXT = ("application/json", "application/xml", "application/javascript")
"""Besides `text/*`, what comes as text; all else comes in base64. AWS documents no list: this is what others measured.

Sources: https://github.com/ministackorg/ministack/pull/766, https://github.com/floci-io/floci/issues/2172
"""


class InvocationContext:
    """Lambda's context object, as far as handlers use it."""

    def __init__(self, function: Function) -> None:
        self.aws_request_id = str(uuid.uuid4())
        self._end = time.monotonic() + function.timeout

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._end - time.monotonic()) * 1000))


class FunctionFailedError(Exception):
    """A handler raised. On AWS that would be in the function's log; here it was logged the same way."""


def invoke(function: Function, event: Mapping[str, Any]) -> Any:
    """Run a function's real handler in this process. Raises FunctionFailedError."""
    module, _, name = function.handler.rpartition(".")
    handler: Callable[[Mapping[str, Any], InvocationContext], Any] = getattr(import_module(module), name)
    try:
        return handler(event, InvocationContext(function))
    except Exception as error:
        log_defect(error)
        raise FunctionFailedError(function.name) from error


class _Handler(QuickHandler):
    def make_environ(self) -> "WSGIEnvironment":
        """All values of repeated headers; werkzeug drops some of them, or joins cookies with a comma."""
        environ = super().make_environ()
        for variable, name, separator in (("CONTENT_TYPE", "Content-Type", ","), ("HTTP_COOKIE", "Cookie", "; ")):
            if values := self.headers.get_all(name):
                environ[variable] = separator.join(values)
        if isinstance(environ["wsgi.input"], DechunkedInput):
            environ["wsgi.input"] = DechunkedInput(cast("IO[bytes]", _WholeReads(self.rfile)))
        return environ


class _WholeReads(io.RawIOBase):
    """Raises OSError where less comes than a chunk should have; werkzeug takes that for the end of the body."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise OSError("the body ended early")
        return data

    def readline(self, size: int | None = -1) -> bytes:
        return self._stream.readline(-1 if size is None else size)


class Gateway:
    """The HTTP API: finds the route, makes its event, answers with what the function returns.

    Its port is taken by `start`. Until `open`, and after `close`, requests get 503.
    """

    def __init__(self, routes: Iterable[ApiRoute], functions: Mapping[str, Function], port: int = 0) -> None:
        self._functions = functions
        self._routes = _map(tuple(routes))
        self._server = Server("the gateway", self._answer, port, _Handler, has_pages=True)
        self._is_open = False

    @property
    def url(self) -> str:
        return self._server.url

    def start(self) -> None:
        self._server.start()

    def open(self) -> None:
        """The functions are ready."""
        self._is_open = True

    def close(self) -> None:
        self._is_open = False

    def stop(self) -> None:
        self._server.stop()

    def _answer(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        request = Request(environ)
        return self._response(request)(environ, start_response)

    def _response(self, request: Request) -> Response:
        request.max_content_length = LARGEST_BODY + 1  # werkzeug cuts a body in chunks that is larger
        try:
            body = request.get_data()
        except RequestEntityTooLarge:
            return _message(413, "Request Entity Too Large")
        except ClientDisconnected:  # the body ended early, or a chunk is invalid
            return _message(400, "Bad Request")
        if len(body) > LARGEST_BODY:
            return _message(413, "Request Entity Too Large")
        if request.method == "GET" and request.path in PAGES:
            return _page(*PAGES[request.path])
        try:
            route, path_parameters = self._routes.bind_to_environ(request.environ).match()
        except HTTPException:  # API Gateway tells nothing apart
            return _message(404, "Not Found")
        if request.method != route.method:  # werkzeug takes HEAD for GET
            return _message(404, "Not Found")
        if not self._is_open:
            return _message(503, "Service Unavailable", {"Retry-After": "1"})
        event = http_event(request, route, path_parameters, body)
        try:
            response = invoke(self._functions[route.function], event)
        except FunctionFailedError:
            return _message(500, "Internal Server Error")
        content = response.get("body") or ""
        data = base64.b64decode(content) if response.get("isBase64Encoded") else content.encode()
        return Response(data, status=response["statusCode"], headers=response.get("headers"))


def _page(file: str, media_type: str) -> Response:
    """Nothing runs in the page or is loaded by it. Source: https://www.w3.org/TR/CSP3/"""
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response((DOCS / file).read_bytes(), headers=headers, content_type=f"{media_type}; charset=utf-8")


@cache
def _map(routes: tuple[ApiRoute, ...]) -> Map:
    """Made once for all gateways of a process: it is compiled, which takes its time."""
    rules = [
        Rule(route.path.replace("{", "<").replace("}", ">"), methods=[route.method], endpoint=route) for route in routes
    ]
    return Map(rules, strict_slashes=True, merge_slashes=False)


def http_event(
    request: Request, route: ApiRoute, path_parameters: Mapping[str, object], body: bytes
) -> dict[str, object]:
    """An event in API Gateway's payload format 2.0: repeated headers and parameters are joined by commas."""
    now = datetime.now(UTC)
    text, encoded = _body(body, request.headers.get("Content-Type", ""))
    event: dict[str, object] = {
        "version": "2.0",
        "routeKey": f"{route.method} {route.path}",
        "rawPath": request.path,
        "rawQueryString": request.query_string.decode(),
        "headers": {name.lower(): value for name, value in request.headers.items() if name != "Cookie"},
        "requestContext": {
            "http": {"method": request.method, "path": request.path, "protocol": "HTTP/1.1"},
            "requestId": str(uuid.uuid4()),
            "routeKey": f"{route.method} {route.path}",
            "stage": "$default",
            "time": now.strftime("%d/%b/%Y:%H:%M:%S %z"),
            "timeEpoch": int(now.timestamp() * 1000),
        },
        "isBase64Encoded": encoded,
    }
    if "Cookie" in request.headers:
        event["cookies"] = [cookie.strip() for cookie in request.headers["Cookie"].split(";")]
    if path_parameters:
        event["pathParameters"] = {name: str(value) for name, value in path_parameters.items()}
    if request.args:
        event["queryStringParameters"] = {name: ",".join(request.args.getlist(name)) for name in request.args}
    if body:
        event["body"] = text
    return event


def _body(body: bytes, content_type: str) -> tuple[str, bool]:
    kind = media_type(content_type)
    if (kind.startswith("text/") or kind in _TEXT) and charset(content_type) in (None, "utf-8"):
        try:
            return body.decode(), False
        except UnicodeDecodeError:
            pass
    return base64.b64encode(body).decode(), True


def _message(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps({"message": message}), status=status, headers=headers, mimetype="application/json")


@dataclass(frozen=True)
class QueueDelivery:
    """A queue's messages on their way to its function, as an event source mapping with partial batch responses does.

    It takes up to `workers` batches at once in the background, as the mapping's MaximumConcurrency says.
    """

    sqs: "SQSClient"
    queue_arn: str
    batch_size: int
    function: Function
    workers: int

    @cached_property
    def _url(self) -> str:
        return self.sqs.get_queue_url(QueueName=self.queue_arn.rpartition(":")[2])["QueueUrl"]

    def deliver(self, *, wait: int) -> bool:
        """One batch, waiting up to `wait` seconds for it; False if there was none."""
        messages = self._received(wait)
        if messages:
            self._process(messages)
        return bool(messages)

    def _received(self, wait: int) -> "Sequence[MessageTypeDef]":
        return self.sqs.receive_message(
            QueueUrl=self._url, MaxNumberOfMessages=self.batch_size, WaitTimeSeconds=wait, AttributeNames=["All"]
        ).get("Messages", [])

    def _process(self, messages: "Sequence[MessageTypeDef]") -> None:
        try:
            response = invoke(self.function, {"Records": [_record(message, self.queue_arn) for message in messages]})
        except FunctionFailedError:
            return  # the batch stays on the queue
        failed = {failure["itemIdentifier"] for failure in response["batchItemFailures"]}
        for message in messages:
            if message["MessageId"] not in failed:
                self.sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])

    def keep_delivering(self) -> Callable[[], None]:
        """Deliver in the background. Returns what ends it."""

        def work(stop: threading.Event) -> None:
            free = threading.Semaphore(self.workers)

            def process(messages: "Sequence[MessageTypeDef]") -> None:
                try:
                    self._process(messages)
                except Exception as error:  # noqa: BLE001 - the messages stay on the queue, and the others go on
                    log_defect(error)
                finally:
                    free.release()

            with ThreadPoolExecutor(self.workers) as workers:
                while not stop.is_set():
                    if not free.acquire(timeout=0.2):
                        continue
                    if messages := self._received(wait=1):
                        workers.submit(process, messages)
                    else:
                        free.release()
                        stop.wait(0.2)  # an endpoint that does not wait would be asked without a pause

        return in_background(f"queue of {self.function.name}", work)


def _record(message: "MessageTypeDef", queue_arn: str) -> dict[str, object]:
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message.get("Attributes", {}),
        "messageAttributes": {},
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": queue_arn.split(":")[3],
    }


def run_on_schedule(seconds: float, function: Function) -> Callable[[], None]:
    """Invoke a function at a fixed rate. Returns what ends it."""

    def work(stop: threading.Event) -> None:
        while not stop.wait(seconds):
            with suppress(FunctionFailedError):  # the next run comes
                invoke(function, {"source": "aws.events", "detail-type": "Scheduled Event"})

    return in_background(f"schedule of {function.name}", work)

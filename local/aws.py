"""Embedded AWS: DynamoDB, Secrets Manager, SQS and CloudFormation by moto, over HTTP or without it."""

import hmac
import json
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import boto3
import moto.sqs.models
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.session import Session
from moto.backends import get_backend
from moto.core.botocore_stubber import MockRawResponse
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.core.utils import camelcase_to_underscores
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.dynamodb.models.table import Table
from moto.moto_server import werkzeug_app
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.http import http_date
from werkzeug.test import create_environ, run_wsgi_app
from werkzeug.wrappers import Response

from local.server import HOST, QuickHandler, Server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

DYNAMODB = "DynamoDB_20120810."


class _Handler(QuickHandler, MotoRequestHandler):
    """moto's view of a request, with our way of responding."""


class _Moto(DomainDispatcherApplication):
    """Remembers which host is which service; moto itself reads its folder again for every request."""

    def __init__(self) -> None:
        super().__init__(create_backend_app)
        self._services: dict[str | None, Any] = {}

    def get_backend_for_host(self, host: str | None) -> Any:
        if host not in self._services:
            self._services[host] = super().get_backend_for_host(host)
        return self._services[host]


# moto keeps a copy of a whole table for the case that a transaction fails, so that each took the longer, the more the
# table held. What may have to be put back is only what the transaction names.
_transact = DynamoDBBackend.transact_write_items


def _transact_write_items(backend: DynamoDBBackend, transact_items: list[dict[str, Any]]) -> None:
    before = []
    for item in transact_items:
        for write in item.values():
            table, key = backend.get_table(write["TableName"]), write.get("Key") or write["Item"]
            first = DynamoType(key[table.hash_key_attr])
            second = DynamoType(key[table.range_key_attr]) if table.range_key_attr else None
            before.append((table, first, second, deepcopy(table.get_item(first, second))))
    try:
        _transact(backend, transact_items)
    except Exception:
        for table, first, second, was in before:
            table.delete_item(first, second)
            if was and second:
                table.items[first][second] = was
            elif was:
                table.items[first] = was  # type: ignore[assignment]
        raise


# moto spells the names of a queue's attributes again whenever it looks at one of them.
moto.sqs.models.camelcase_to_underscores = cache(camelcase_to_underscores)  # type: ignore[attr-defined]
# Else every response allows the pages of all websites to read it.
werkzeug_app.DISABLE_GLOBAL_CORS = True  # type: ignore[attr-defined]
Table.__deepcopy__ = lambda table, _: table  # type: ignore[attr-defined]
DynamoDBBackend.transact_write_items = _transact_write_items  # type: ignore[assignment,method-assign]

_moto = cache(_Moto)
"""One for the process, as is all that moto holds."""


@cache
def _session() -> Session:
    """One for all stacks of this process: it keeps AWS's descriptions of its services, which take longest to read."""
    return Session()


@cache
def access_key() -> str:
    """Return the id of the only access key that is accepted. It is random, and a secret: no signature is verified."""
    return f"LOCAL{secrets.token_hex(16)}"


class EmbeddedAws:
    """`calls` counts what arrived, by action, as it was on the wire. `answers` is the application that responds.

    Requests must be signed with `access_key`: everything else on this machine can send requests as well.
    """

    def __init__(self, port: int = 0, listen: str = HOST) -> None:
        self.calls: Counter[str] = Counter()
        self._counting = threading.Lock()
        # moto's conditional writes and transactions are not atomic between threads, so they are answered one at a time.
        self._dynamodb = threading.Lock()
        self.answers: WSGIApplication = _moto()
        self._server = Server("the embedded AWS", self._answer, port, _Handler, listen)

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def credentials(self) -> dict[str, str]:
        """The environment variables with which AWS's clients sign."""
        return {"AWS_ACCESS_KEY_ID": access_key(), "AWS_SECRET_ACCESS_KEY": "local", "AWS_SESSION_TOKEN": "local"}

    def start(self) -> None:
        """Empty, whatever ran in this process before. Source: https://docs.getmoto.org/en/latest/docs/server_mode.html"""
        self._server.start()
        _, status, _ = run_wsgi_app(self.answers, create_environ("/moto-api/reset", method="POST"), buffered=True)
        assert status.startswith("200"), status

    def stop(self) -> None:
        self._server.stop()

    @staticmethod
    def show_messages_again() -> None:
        """End the visibility timeout of all messages that are on their way: time was moved on by more than that."""
        for queues in get_backend("sqs")[DEFAULT_ACCOUNT_ID].values():
            for queue in [*queues.queues.values()]:
                for message in [*queue._messages]:  # noqa: SLF001 - `messages` are those that are not on their way
                    message.visible_at = 0

    @contextmanager
    def without_connections(self) -> Iterator[None]:
        """Answer the calls through boto3's default session in this process, in half of the time."""
        boto3.setup_default_session(botocore_session=_session())
        assert boto3.DEFAULT_SESSION
        events: Any = boto3.DEFAULT_SESSION.events
        events.register("before-send", self._answer_here)
        try:
            yield
        finally:
            events.unregister("before-send", self._answer_here)

    def _answer_here(self, request: AWSPreparedRequest, **_: object) -> AWSResponse | None:
        """In the place of the client's sending; None lets it send."""
        if not request.url.startswith(f"{self.url}/"):
            return None
        time.sleep(1e-6)  # other threads go on meanwhile, as they would while it was on its way
        sent: list[tuple[str, Any]] = list(request.headers.items())
        sent = [(name, value.decode() if isinstance(value, bytes) else value) for name, value in sent]
        environ = create_environ(base_url=request.url, method=request.method, headers=sent, data=request.body)
        content, status, received = run_wsgi_app(self._answer, environ, buffered=True)
        headers = HTTPHeaders()
        for name, value in [("Date", http_date()), *received]:
            headers[name] = value
        return AWSResponse(request.url, int(status.partition(" ")[0]), headers, MockRawResponse(b"".join(content)))

    def _answer(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if not _is_signed(environ):
            return _refused(target)(environ, start_response)
        with self._counting:
            self.calls[target] += 1
        if not target.startswith(DYNAMODB):
            return self.answers(environ, start_response)
        with self._dynamodb:
            return list(self.answers(environ, start_response))


def _is_signed(environ: "WSGIEnvironment") -> bool:
    """Whether the header Authorization, or a presigned address, names our access key.

    Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-signing-elements.html
    """
    in_header = re.match(r"AWS4-HMAC-SHA256\s+Credential=([^/,\s]+)/", environ.get("HTTP_AUTHORIZATION", ""))
    in_query = parse_qs(environ.get("QUERY_STRING", "")).get("X-Amz-Credential", [""])[0].partition("/")[0]
    named = in_header[1] if in_header else in_query
    return hmac.compare_digest(named.encode(errors="replace"), access_key().encode())


def _refused(target: str) -> Response:
    """In the protocol of the service: JSON where the action is a header, XML where it is a parameter."""
    code, message = "InvalidClientTokenId", "Sign with the access key that this start of the local stack has printed."
    if target:
        return Response(json.dumps({"__type": code, "message": message}), 403, mimetype="application/x-amz-json-1.0")
    error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
    return Response(f"<ErrorResponse>{error}</ErrorResponse>", 403, mimetype="text/xml")

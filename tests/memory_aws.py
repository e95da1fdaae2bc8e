"""Embedded AWS whose DynamoDB is in memory, since most of what moto does for a test is DynamoDB's; moto plays the rest.

With LONG=1 moto is asked each time as well, and a test fails where it responds otherwise.
"""

import importlib.metadata
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from io import BytesIO
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import boto3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.client import BaseClient
from botocore.compat import HTTPHeaders
from botocore.exceptions import ClientError
from botocore.signers import RequestSigner
from moto.backends import get_backend
from moto.core.botocore_stubber import MockRawResponse
from moto.core.exceptions import JsonRESTError, ServiceException
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.dynamodb.models.table import Table
from moto.secretsmanager.exceptions import ResourceExistsException
from werkzeug.wrappers import Request, Response

import local.stack
from crm_bridge.storage.operation import SHARDS
from dispatcher import handler as dispatcher
from local.aws import DYNAMODB, EmbeddedAws, _is_signed, access_key
from local.gateway import QueueDelivery
from local.stack import REGION, deploy_stores, put_parts
from tests.memory import MemoryDynamoDb
from tests.stack import Stack
from tests.versions import quick_versions

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

ERROR = "com.amazonaws.dynamodb.v20120810#"
CONTENT = "application/x-amz-json-1.0"
LAST = "LastEvaluatedKey"
PLAIN = "_is_plain_dynamodb"


class MemoryAws(EmbeddedAws):
    """`differences` are requests that moto responded to otherwise, if it `is_compared`."""

    def __init__(self, *, is_compared: bool = False) -> None:
        super().__init__()
        self.is_compared = is_compared
        self.differences: list[str] = []
        self._memory: MemoryDynamoDb | None = None

    @property
    def memory(self) -> MemoryDynamoDb:
        """Its tables are those that moto has when they are asked for first."""
        if self._memory is None:
            self._memory = MemoryDynamoDb({name: _resource(table) for name, table in _tables().items()})
        return self._memory

    @contextmanager
    def shortcuts(self) -> Iterator[None]:
        """Nothing is asked of a queue that has no message, no signature is made, secrets are stored at once, and
        versions are quick.
        """
        received = QueueDelivery._received

        def _received(delivery: QueueDelivery, wait: int) -> Any:
            queues = get_backend("sqs")[DEFAULT_ACCOUNT_ID][REGION].queues
            return received(delivery, wait) if queues[delivery.queue_arn.rpartition(":")[2]]._messages else []

        def sign(signer: Any, _: object, request: Any, *__: object, **___: object) -> None:
            scope = f"{access_key()}/20200101/{signer.region_name}/{signer.signing_name}/aws4_request"
            request.headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"

        with (
            quick_versions(),
            patch.object(QueueDelivery, "_received", _received),
            patch.object(RequestSigner, "sign", sign),
            patch.object(local.stack, "put_parts", lambda _, *names: put_parts(_Secrets(), *names)),  # type: ignore[arg-type]
        ):
            yield

    def _answer_here(self, request: AWSPreparedRequest, **options: object) -> AWSResponse | None:
        target: str | bytes = request.headers.get("X-Amz-Target", "")
        target = target.decode() if isinstance(target, bytes) else target
        action = target.removeprefix(DYNAMODB)
        if self.is_compared or action == target or action not in self.memory.actions:
            return super()._answer_here(request, **options)
        time.sleep(1e-6)  # as it does
        with self._dynamodb:
            status, content = self._act(action, request.body)
        headers = HTTPHeaders()
        headers["Content-Type"] = CONTENT
        return AWSResponse(request.url, status, headers, MockRawResponse(content))

    def _answer(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        action = target.removeprefix(DYNAMODB)
        if action == target or action not in self.memory.actions or not _is_signed(environ):
            return super()._answer(environ, start_response)
        body = Request(environ).get_data()
        with self._dynamodb:
            status, content = self._act(action, body)
            if self.is_compared:
                self._compare(action, body, environ, (status, json.loads(content)))
        return Response(content, status, mimetype=CONTENT)(environ, start_response)

    def _act(self, action: str, body: Any) -> tuple[int, bytes]:
        with self._counting:
            self.calls[DYNAMODB + action] += 1
        try:
            status, answer = 200, self.memory.act(action, json.loads(body))
        except ClientError as error:
            about: Any = error.response
            status, answer = 400, {name: about[name] for name in ("Item", "CancellationReasons") if name in about}
            answer |= {"__type": ERROR + about["Error"]["Code"], "message": about["Error"].get("Message", "")}
        return status, json.dumps(answer).encode()

    def _compare(self, action: str, body: bytes, environ: "WSGIEnvironment", ours: tuple[int, Any]) -> None:
        environ["wsgi.input"] = BytesIO(body)
        response = Response.from_app(self.answers, environ, buffered=True)
        status, theirs = response.status_code, response.get_json(force=True)
        if action == "Query" and LAST not in theirs:
            # A page that ends at `Limit` says so also when nothing follows, which moto doesn't:
            # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Query.Pagination.html
            ours = ours[0], {name: value for name, value in ours[1].items() if name != LAST}
        mine, moto = _comparable(*ours), _comparable(status, theirs)
        if mine != moto:
            self.differences.append(f"{action} {body.decode()}: {mine}, and by moto {moto}")


def _comparable(status: int, answer: Mapping[str, Any]) -> object:
    """Without the words of errors, what each counts, and the order of sets, and of a scan."""
    ignored = {
        "message",
        "Message",
        "ConsumedCapacity",
        "UnprocessedKeys",
        "UnprocessedItems",
        "ItemCollectionMetrics",
        "Count",
        "ScannedCount",
    }
    kept = {name: value for name, value in answer.items() if name not in ignored}
    if "__type" in kept:
        kept["__type"] = kept["__type"].rpartition("#")[2]
    if "CancellationReasons" in kept:
        kept["CancellationReasons"] = [(one["Code"], one.get("Item")) for one in kept["CancellationReasons"]]
    return status, json.loads(json.dumps(kept, sort_keys=True), object_hook=_sorted_set)


def _sorted_set(value: dict[str, Any]) -> dict[str, Any]:
    return {"SS": sorted(value["SS"])} if value.keys() == {"SS"} else value


def _tables() -> dict[str, Table]:
    return get_backend("dynamodb")[DEFAULT_ACCOUNT_ID][REGION].tables


def _resource(table: Table) -> dict[str, Any]:
    """As CloudFormation has it."""
    indexes = [
        {"IndexName": index.name, "KeySchema": index.schema, "Projection": index.projection}
        for index in table.global_indexes
    ]
    return {"KeySchema": table.schema, "GlobalSecondaryIndexes": indexes}


def _plain_client(make: Callable[..., Any]) -> Callable[[str], Any]:
    """A client of DynamoDB says that it is not a boto3 resource's, which changes its arguments and responses."""

    def made(service: str) -> Any:
        client = make(service)
        client.__dict__[PLAIN] = service == "dynamodb"
        return client

    return made


class KeptAws(MemoryAws):
    """From its first start to the end of the process. A later start leaves its tables and queues, and empties them:
    to make them takes longer than most tests.
    """

    def __init__(self) -> None:
        super().__init__(is_compared=bool(os.environ.get("LONG")))
        self._outputs: dict[str, str] = {}
        self._is_up = False
        self._others = threading.Lock()
        self._client = cache(_plain_client(boto3.client))

    def start(self) -> None:
        if not self._is_up:
            super().start()
        self._is_up = True
        self.calls.clear()

    def stop(self) -> None:
        pass

    def deploy(self, template: Mapping[str, Any]) -> dict[str, str]:
        """In the place of `deploy_stores`."""
        made = {value for output, value in self._outputs.items() if output.endswith("Table")}
        if not made or not made <= _tables().keys():  # at first, and after another stack has begun again
            # A stack may be left whose tables are not.
            get_backend("cloudformation")[DEFAULT_ACCOUNT_ID][REGION].stacks.clear()
            self._outputs = deploy_stores(template)
        if not self.memory.has(_tables()):
            self._memory = None
        self.memory.empty()
        for table in _tables().values():
            table.items.clear()
        get_backend("secretsmanager")[DEFAULT_ACCOUNT_ID][REGION].secrets.clear()
        for queue in get_backend("sqs")[DEFAULT_ACCOUNT_ID][REGION].queues.values():
            for messages in (queue._messages, queue._pending_messages, queue.deleted_messages):
                messages.clear()
        return dict(self._outputs)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Clients are made once as well: the address stays."""
        made = BaseClient._make_api_call  # type: ignore[attr-defined]

        def _make_api_call(client: Any, name: str, arguments: dict[str, Any]) -> Any:
            """Without the wire, unless it is compared."""
            if not self.is_compared and name in QUICK and "VersionStage" not in arguments:
                time.sleep(1e-6)  # other threads go on meanwhile
                with suppress(KeyError, ServiceException, JsonRESTError):
                    with self._others:
                        quick = QUICK[name](**arguments)
                    with self._counting:
                        self.calls[f"{client.meta.service_model.metadata['targetPrefix']}.{name}"] += 1
                    return quick
            if self.is_compared or not client.__dict__.get(PLAIN) or name not in self.memory.actions:
                return made(client, name, arguments)
            time.sleep(1e-6)
            with self._counting:
                self.calls[DYNAMODB + name] += 1
            try:
                with self._dynamodb:
                    return _copied(self.memory._make_api_call(name, _copied(arguments)))
            except ClientError as error:
                response: Any = error.response
                raise client.exceptions.from_code(response["Error"]["Code"])(response, name) from None

        with (
            self.shortcuts(),
            patch.object(BaseClient, "_make_api_call", _make_api_call),
            patch.object(local.stack, "deploy_stores", self.deploy),
            patch.object(boto3, "client", lambda service, **_: self._client(service)),
            patch.object(importlib.metadata, "version", _version),  # werkzeug reads its own for each server
            patch.object(dispatcher, "SHARDS", SHARDS if self.is_compared else _UsedShards(self)),
        ):
            yield
        differences, self.differences = self.differences, []
        assert not differences, differences


def _copied(value: Any) -> Any:
    """As `deepcopy` does it, for what requests and responses consist of."""
    if isinstance(value, dict):
        return {name: _copied(inner) for name, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


class _UsedShards:
    """Those in which something is due at some time: to read the others takes most of a dispatcher's run."""

    def __init__(self, aws: MemoryAws) -> None:
        self._aws = aws

    def __iter__(self) -> Iterator[str]:
        operations = self._aws.memory.items(os.environ["OPERATIONS_TABLE"])
        return iter(sorted({item["due_shard"]["S"] for item in operations if "due_shard" in item}))


class _Secrets:
    """Secrets Manager's client, as far as `put_parts` needs it, without a request for each of many secrets."""

    exceptions = SimpleNamespace(ResourceExistsException=ResourceExistsException)

    def __init__(self) -> None:
        self._backend = get_backend("secretsmanager")[DEFAULT_ACCOUNT_ID][REGION]

    def create_secret(self, *, Name: str, SecretString: str) -> None:  # noqa: N803
        self._backend.create_secret(Name, SecretString, None, None, None, None, None, [], force_overwrite=False)

    def put_secret_value(self, *, SecretId: str, SecretString: str) -> None:  # noqa: N803
        self._backend.put_secret_value(SecretId, SecretString, "", "", ["AWSCURRENT"])


def _read_secret(*, SecretId: str) -> dict[str, Any]:  # noqa: N803
    secrets = get_backend("secretsmanager")[DEFAULT_ACCOUNT_ID][REGION]
    secret: Any = secrets.secrets[SecretId]
    found: dict[str, Any] = secrets.get_secret_value(SecretId, secret.default_version_id, "")
    return found


def _queue(url: str) -> tuple[Any, Any]:
    sqs = get_backend("sqs")[DEFAULT_ACCOUNT_ID][REGION]
    return sqs, sqs.queues[url.rpartition("/")[2]]


def _send(*, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
    sqs, queue = _queue(QueueUrl)
    entries = {
        str(number): {"MessageAttributes": {}, "DelaySeconds": None, **one} for number, one in enumerate(Entries)
    }
    sent, failed = sqs.send_message_batch(queue.name, entries)
    return {"Successful": [{"Id": message.user_id, "MessageId": message.id} for message in sent], "Failed": failed}


def _receive(*, QueueUrl: str, MaxNumberOfMessages: int, **_: object) -> dict[str, Any]:  # noqa: N803
    sqs, queue = _queue(QueueUrl)
    found = sqs.receive_message(queue.name, MaxNumberOfMessages, 0, queue.visibility_timeout)
    messages = [
        {
            "MessageId": message.id,
            "ReceiptHandle": message.receipt_handle,
            "MD5OfBody": message.body_md5,
            "Body": message.body,
            "Attributes": {
                "ApproximateReceiveCount": str(message.approximate_receive_count),
                "MessageDeduplicationId": message.deduplication_id,
                "MessageGroupId": message.group_id,
                "SentTimestamp": str(message.sent_timestamp),
            },
        }
        for message in found
    ]
    return {"Messages": messages} if messages else {}


def _delete(*, QueueUrl: str, ReceiptHandle: str) -> dict[str, Any]:  # noqa: N803
    _queue(QueueUrl)[1].delete_message(ReceiptHandle)
    return {}


QUICK: dict[str, Callable[..., dict[str, Any]]] = {
    "GetSecretValue": _read_secret,
    "SendMessageBatch": _send,
    "ReceiveMessage": _receive,
    "DeleteMessage": _delete,
}
"""The most frequent calls to other services, answered by moto's models without the wire.
A KeyError or an error of moto's lets it go over the wire, for the error as boto3 raises it."""

_version = cache(importlib.metadata.version)
_kept = cache(KeptAws)


@contextmanager
def quick_stack(*, background: bool = False) -> Iterator[Stack]:
    """A stack that does nothing by itself, or in the `background`. Vendors, gateway and what its functions remember
    are its own.
    """
    stack = Stack(background=background, aws_over_http=False)
    stack.aws = _kept()
    with _kept().in_use(), stack:
        yield stack

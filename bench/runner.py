"""One function in a process of its own, with AWS and the vendor answered in this process's memory.

It runs with the subject's packages and nothing else: `python runner.py`, with an order as JSON on standard input; what
was measured comes as JSON on standard output. What the answers themselves take is measured and left out.
"""

import gc
import importlib
import io
import json
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import botocore.awsrequest
import botocore.httpsession
import requests.adapters
import urllib3

DUE_TENANTS = 32
"""Whose operations are due in a run of the dispatcher."""
KEYS = ("operation_id", "id", "key_hash", "identity", "lock", "document")


type Order = dict[str, Any]
type Handler = Callable[[Mapping[str, Any], Context], Any]
type Asked = Mapping[str, Any]
type AwsResponse = tuple[int, Mapping[str, Any]]
"""A status, and what is answered with it."""


class Context:
    """Lambda's context object, as far as the subjects use it."""

    aws_request_id = "bench"
    function_name = "bench"
    function_version = "1"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:bench"

    def __init__(self, seconds: float = 29.0) -> None:
        self._end = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int(1000 * (self._end - time.monotonic())))


class Counted(io.RawIOBase):
    """Where a function's log goes: nowhere, but for its number of bytes."""

    written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.written += len(data)
        return len(data)


LOG = Counted()


class Surroundings:
    """AWS's tables, secret and queues and a vendor that gives each record a new id.

    `writes` are DynamoDB's units, with those of the two indexes. `spent` is what the responses took, in seconds of the
    processor and of the clock. `aws_takes` and `vendor_takes` let a call last so many seconds. Conditions are kept as
    far as the subjects rely on them: what must be new is.
    """

    def __init__(self, order: Order) -> None:
        self.calls: Counter[str] = Counter()
        self.writes = 0
        self.spent = [0.0, 0.0]
        self.aws_takes = order.get("aws_takes", 0)
        self.vendor_takes = order.get("vendor_takes", 0)
        self._secret = order.get("secret")
        self._due = order.get("due", 0)
        self._tables: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._records = 0
        for table, item in order.get("items", []):
            self._put(table, item)
        aws: Any = botocore.httpsession.URLLib3Session
        vendor: Any = requests.adapters.HTTPAdapter
        aws.send = lambda _, request: self._timed(self._aws, request)
        vendor.send = lambda adapter, request, **_: self._timed(self._vendor, adapter, request)

    def _timed(self, response: Callable[..., Any], *asked: Any) -> Any:
        processor, clock = time.thread_time(), time.perf_counter()
        try:
            return response(*asked)
        finally:
            with self._lock:
                self.spent[0] += time.thread_time() - processor
                self.spent[1] += time.perf_counter() - clock

    def _vendor(self, adapter: Any, request: Any) -> Any:
        time.sleep(self.vendor_takes) if self.vendor_takes else None
        with self._lock:
            self.calls["vendor"] += 1
            self._records += 1
            body = json.dumps({"site_id": self._records}).encode()
        response = urllib3.HTTPResponse(
            io.BytesIO(body), {"Content-Type": "application/json"}, status=201, preload_content=False
        )
        return adapter.build_response(request, response)

    def _aws(self, request: Any) -> Any:
        time.sleep(self.aws_takes) if self.aws_takes else None
        action = _text(request.headers["X-Amz-Target"]).partition(".")[2]
        with self._lock:
            self.calls[action] += 1
            status, document = getattr(self, f"_{action}")(json.loads(request.body))
        body = json.dumps(document).encode()
        headers = {"content-type": _text(request.headers["Content-Type"]), "content-length": str(len(body))}
        raw: Any = urllib3.HTTPResponse(io.BytesIO(body), headers, status=status, preload_content=False)
        return botocore.awsrequest.AWSResponse(request.url, status, raw.headers, raw)

    # ------------------------------------------------------------------ DynamoDB

    def _place(self, table: str, key: Asked) -> tuple[dict[str, Any], str]:
        name = next(name for name in KEYS if name in key)
        return self._tables.setdefault(table, {}), json.dumps([key[name], key.get("partner")])

    def _put(self, table: str, item: Asked) -> None:
        items, key = self._place(table, item)
        self.writes += 1 + sum(
            (index in items.get(key, {})) + (index in item)
            for index, sort in (("due_shard", "due"), ("listed", "standing"))
            if items.get(key, {}).get(sort) != item.get(sort)
        )
        items[key] = item

    def _GetItem(self, asked: Asked) -> AwsResponse:
        items, key = self._place(asked["TableName"], asked["Key"])
        return 200, {"Item": items[key]} if key in items else {}

    def _PutItem(self, asked: Asked) -> AwsResponse:
        items, key = self._place(asked["TableName"], asked["Item"])
        if "ConditionExpression" in asked and key in items:
            self.writes += 1  # DynamoDB charges for one that fails as well
            kind = "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"
            return 400, {"__type": kind, "message": "The conditional request failed", "Item": items[key]}
        self._put(asked["TableName"], asked["Item"])
        return 200, {}

    def _UpdateItem(self, asked: Asked) -> AwsResponse:
        items, key = self._place(asked["TableName"], asked["Key"])
        self.writes += 1
        if self._due:
            return 200, {}
        item = items.setdefault(key, dict(asked["Key"]))
        names, values = asked.get("ExpressionAttributeNames", {}), asked["ExpressionAttributeValues"]
        for part in asked["UpdateExpression"].removeprefix("SET ").split(", "):
            name, value = part.split(" = ")
            item[names.get(name, name)] = values[value]
        return 200, {}

    def _TransactWriteItems(self, asked: Asked) -> AwsResponse:
        for write in asked["TransactItems"]:
            self._put(write["Put"]["TableName"], write["Put"]["Item"])
            self.writes += 1  # each counts twice
        return 200, {}

    def _Query(self, asked: Asked) -> AwsResponse:
        """Of the due index: as many as were ordered, of all tenants, spread over all shards. None of them is lent, or
        needs a person.
        """
        values, start = asked["ExpressionAttributeValues"], asked.get("ExclusiveStartKey")
        if ":first" in values or ":person" in values:
            return 200, {"Items": [], "Count": 0}
        shard = values[":shard"]["S"]
        entries = [
            (f"t{number % DUE_TENANTS:02}#0000000001", f"op_{number:x}{shard}")
            for number in range(self._due // 8 + (int(shard) < self._due % 8))
        ]
        after = (start["due"]["S"], start["operation_id"]["S"]) if start else (values[":after"]["S"], "~")
        left = sorted(entry for entry in entries if entry > after)
        found = [
            {
                "operation_id": {"S": operation_id},
                "due_shard": {"S": shard},
                "due": {"S": due},
                "function": {"S": "create_site"},
            }
            for due, operation_id in left[: asked["Limit"]]
        ]
        more = {"LastEvaluatedKey": found[-1]} if len(left) > len(found) else {}
        return 200, {"Items": found, "Count": len(found), **more}

    # ------------------------------------------------------------------ the others

    def _GetSecretValue(self, asked: Asked) -> AwsResponse:
        return 200, {"Name": asked["SecretId"], "SecretString": self._secret}

    def _SendMessageBatch(self, asked: Asked) -> AwsResponse:
        taken = [{"Id": entry["Id"], "MessageId": entry["Id"], "MD5OfMessageBody": ""} for entry in asked["Entries"]]
        return 200, {"Successful": taken, "Failed": []}


def measured(handler: Handler, events: Iterable[Asked], around: Surroundings) -> list[list[float]]:
    """Milliseconds of the processor and of the clock for each event, without the time of its simulated calls."""
    found = []
    for event in events:
        around.spent = [0.0, 0.0]
        processor, clock = time.process_time(), time.perf_counter()
        response = handler(event, Context())
        took = (time.process_time() - processor, time.perf_counter() - clock)
        if response["statusCode"] not in (200, 201):
            raise AssertionError(f"answered {response['statusCode']}: {response['body']}")
        found.append([1000 * (all_of_it - left_out) for all_of_it, left_out in zip(took, around.spent, strict=True)])
    return found


def warm(handler: Handler, around: Surroundings, order: Order) -> object:
    """New events and then the same once more, after some that are not counted."""
    first, last = order["unmeasured"], order["unmeasured"] + order["events"]
    measured(handler, (event(order, n) for n in range(first)), around)
    found = {}
    for kind in ("new", "repeated"):
        around.calls.clear()
        around.writes = 0
        LOG.written = 0
        took = measured(handler, (event(order, n) for n in range(first, last)), around)
        found[kind] = {
            "milliseconds": took,
            "calls": sum(around.calls.values()) / len(took),
            "vendor_calls": around.calls["vendor"] / len(took),
            "reads": around.calls["GetItem"] / len(took),
            "writes": around.writes / len(took),
            "log_bytes": LOG.written / len(took),
        }
    return found


def memory(handler: Handler, around: Surroundings, order: Order) -> object:
    """Megabytes: the peak after so many new events, and how much there is after many repeated ones more than before."""
    for n in range(order["events"]):
        handler(event(order, n), Context())
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1000  # of what getrusage says, the parent's is a part
    for n in range(order["events"]):
        handler(event(order, 0), Context())
    gc.collect()
    before = _resident()
    for n in range(order["repeated"]):
        handler(event(order, 0), Context())
    gc.collect()
    return {"peak": peak, "before": before, "after": _resident()}


def together(handler: Handler, around: Surroundings, order: Order) -> object:
    """So many threads in this process, each with one event after the other: events in a second, and what each took."""
    threads, number = order["threads"], order["events"]
    takes, around.aws_takes, around.vendor_takes = (around.aws_takes, around.vendor_takes), 0, 0
    measured(handler, (event(order, f"first-{n}") for n in range(100)), around)
    around.aws_takes, around.vendor_takes = takes
    failures = []

    def work(mine: int) -> None:
        for n in range(number // threads):
            if handler(event(order, f"{mine}-{n}"), Context())["statusCode"] != 201:
                failures.append(n)

    workers = [threading.Thread(target=work, args=(mine,)) for mine in range(threads)]
    around.spent = [0.0, 0.0]
    processor, clock = time.process_time(), time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    done = number // threads * threads
    took = time.perf_counter() - clock
    if failures:
        raise AssertionError(f"{len(failures)} events failed")
    milliseconds = 1000 * (time.process_time() - processor - around.spent[0]) / done
    return {"per_second": done / took, "processor_ms": milliseconds}


def dispatch(handler: Handler, around: Surroundings, order: Order) -> object:
    """One run of the dispatcher."""
    clock = time.perf_counter()
    sent = handler({}, Context(order["seconds"]))
    return {"seconds": time.perf_counter() - clock, "sent": sum(sent.values()), "calls": sum(around.calls.values())}


def event(order: Order, number: object) -> Asked:
    event = dict(order["event"])
    event["body"] = order["body"].replace("NUMBER", str(number))
    return event


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> None:
    order = json.load(sys.stdin)
    out, sys.stdout = sys.stdout, io.TextIOWrapper(io.BufferedWriter(LOG))
    around = Surroundings(order)
    module, _, name = order["handler"].rpartition(".")
    handler = getattr(importlib.import_module(module), name)
    measures = {"warm": warm, "memory": memory, "together": together, "dispatch": dispatch}
    json.dump(measures[order["what"]](handler, around, order), out)


main()

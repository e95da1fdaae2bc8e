"""AWS Lambda durable functions as a peer: one step sends the POST to the same illu, for the same caller.

The functions are written as AWS documents them: `durable_execution`, `@durable_step`, an error raised for whatever is
no success. There are three, one for each way to configure the step:

* at least once per retry, with the default retry strategy: the SDK's defaults;
* at most once per retry, with the default retry strategy;
* at most once per retry, without retries: AWS recommends it for a POST to an API that is not idempotent.

The SDK is AWS's own. So is the service's side, from the SDK's testing package: its runner (`Executor`) checks and
stores each checkpoint, starts the function again when a step's retry is due, and starts a function that was killed, or
that could not store a checkpoint, again from its checkpoints after 5 s. This world replaces three parts of that runner:

* The clock and the scheduler, because the world's time is moved and does not pass by itself.
* The invoker. The package's own calls the function in the runner's process; here a function can be killed. So it also
  stores its checkpoints over HTTP, by the boto3 client that the SDK uses on AWS, and these calls can fail too.
* De-duplication by execution name, which the runner lacks: `DurableWorld` supplies it by the table that AWS documents.
  The same name with the same payload attaches to a running execution, and gets the result of a closed one, also of one
  that failed. The same name with another payload is refused. AWS forgets a closed execution after its retention, which
  is 14 days by default; this world forgets none.

`DurableWorld` also stands for the API and the proxy function in front of it. The execution name is a hash of the
customer's id, as a name has at most 64 letters, digits, `-` and `_`. The payload is the body alone: the API's own event
has a new request id each time, and would be refused. The caller waits for the result for at most 29 s, then the API
returns 503 while the execution goes on. A failed execution is a 500.

Where the runner differs from AWS's documentation: it gives up after 5 failed invocations in a row, AWS at the execution
timeout. No fault here lasts for so many.

Sources: https://docs.aws.amazon.com/durable-execution/patterns/best-practices/idempotency/
https://docs.aws.amazon.com/lambda/latest/dg/durable-execution-idempotency.html
https://docs.aws.amazon.com/lambda/latest/dg/durable-execution-sdk-retries.html
https://docs.aws.amazon.com/lambda/latest/dg/durable-invoking.html
"""

import hashlib
import json
import logging
import math
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Self

import boto3
from aws_durable_execution_sdk_python import DurableContext, StepContext, durable_execution, durable_step
from aws_durable_execution_sdk_python.config import JitterStrategy, StepConfig, StepSemantics
from aws_durable_execution_sdk_python.execution import DurableExecutionInvocationInput
from aws_durable_execution_sdk_python.retries import RetryPresets
from aws_durable_execution_sdk_python_testing.checkpoint.processor import CheckpointProcessor
from aws_durable_execution_sdk_python_testing.exceptions import AwsApiException
from aws_durable_execution_sdk_python_testing.execution import ExecutionStatus
from aws_durable_execution_sdk_python_testing.executor import Executor
from aws_durable_execution_sdk_python_testing.invoker import InvokeResponse, LambdaInvoker
from aws_durable_execution_sdk_python_testing.model import CheckpointDurableExecutionRequest, StartDurableExecutionInput
from aws_durable_execution_sdk_python_testing.scheduler import Event as CompletionEvent
from aws_durable_execution_sdk_python_testing.scheduler import Scheduler
from aws_durable_execution_sdk_python_testing.stores.memory import InMemoryExecutionStore
from aws_durable_execution_sdk_python_testing.web.serialization import JSONSerializer
from moto.core.models import DEFAULT_ACCOUNT_ID as ACCOUNT
from werkzeug.wrappers import Request, Response

from crm_bridge import aws
from crm_bridge.storage.operation import Operation
from local.gateway import FunctionFailedError, Gateway
from local.server import Server
from local.template import ApiRoute, Function
from tests.faults import events
from tests.faults.harness import World
from tests.faults.peer import illu_settings, post_site
from tests.stack import Stack

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

AT_MOST_ONCE = StepSemantics.AT_MOST_ONCE_PER_RETRY
STEPS = {
    "at least once": StepConfig(),
    "at most once": StepConfig(step_semantics=AT_MOST_ONCE),
    "at most once, no retries": StepConfig(step_semantics=AT_MOST_ONCE, retry_strategy=RetryPresets.none()),
}
FUNCTIONS = {
    function.name: function
    for function in (
        Function("AtLeastOnce", f"{__name__}.at_least_once", 29, {}),
        Function("AtMostOnce", f"{__name__}.at_most_once", 29, {}),
        Function("AtMostOnceNoRetries", f"{__name__}.at_most_once_no_retries", 29, {}),
    )
}
GATEWAY_TIMEOUT = 29
EXECUTION_TIMEOUT = 15 * 60
"""Seconds; the longest that a synchronous invocation may have."""
RETENTION = 14
"""Days."""

# ---------------------------------------------------------------------- the functions


def at_least_once(event: Any, context: Any) -> Any:
    return _handler("at least once")(event, context)


def at_most_once(event: Any, context: Any) -> Any:
    return _handler("at most once")(event, context)


def at_most_once_no_retries(event: Any, context: Any) -> Any:
    return _handler("at most once, no retries")(event, context)


@cache
def _handler(step: str) -> Callable[[Any, Any], Any]:
    _be_quiet()
    # Each retry comes in the middle of its range.
    JitterStrategy.apply_jitter = lambda _, delay: delay / 2  # type: ignore[assignment,method-assign]

    @durable_step
    def create_site(_: StepContext, customer: Mapping[str, object]) -> Any:
        return post_site(customer).json()

    def handler(event: Mapping[str, object], context: DurableContext) -> Any:
        return context.step(create_site(event), config=STEPS[step])

    return durable_execution(handler, boto3_client=boto3.client("lambda", config=aws.CONFIG))


def _be_quiet() -> None:
    """Keep the SDK's and the runner's logs of errors, which are part of the plan here, from stderr."""
    for name in ("aws_durable_execution_sdk_python", "aws_durable_execution_sdk_python_testing"):
        log = logging.getLogger(name)
        log.propagate = False
        log.handlers = [logging.NullHandler()]


def create_site(function: str, step: str, number: int) -> events.Event:
    """The same event, for a peer, which keeps no links."""
    ours = events.create_site(number)
    kind = f"peer: durable functions, {step}"
    return replace(ours, kind=kind, path=lambda _: f"/{function}", ties=lambda _: ())


KINDS: list[Callable[[int], events.Event]] = [
    partial(create_site, function, step) for function, step in zip(FUNCTIONS, STEPS, strict=True)
]

# ---------------------------------------------------------------------- the service


class _WorldClock:
    """The runner's clock: the time of the world."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def seconds(self) -> float:
        return time.time() + self._stack._ahead

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds(), UTC)

    def arm(self, wake: datetime) -> float:
        return max(0.0, (wake - self.now()) / timedelta(seconds=1))


class _WorldScheduler(Scheduler):
    """The runner's scheduler, which does what is due only when the world calls `run_next`."""

    def __init__(self, clock: _WorldClock) -> None:
        super().__init__()
        self._clock = clock
        self._planned: list[tuple[float, Future[Any], Callable[[], Any]]] = []

    def call_later(
        self,
        func: Callable[[], Any],
        delay: float = 0,
        count: int | None = 1,
        completion_event: CompletionEvent | None = None,
    ) -> Future[Any]:
        planned: Future[Any] = Future()
        work = partial(super().call_later, func, 0, count, completion_event)
        self._planned.append((self._clock.seconds() + delay, planned, work))
        return planned

    def next_at(self) -> float:
        """Return when the next work is due, in seconds of the world's time; infinity if there is none."""
        self._planned = [planned for planned in self._planned if not planned[1].cancelled()]
        return min((at for at, *_ in self._planned), default=math.inf)

    def run_next(self) -> None:
        """Do the work that is due next, and wait for its end."""
        first = min(self._planned, key=lambda planned: planned[0])
        self._planned.remove(first)
        _, planned, work = first
        planned.set_result(None)
        work().result()

    def forget(self) -> None:
        self._planned = []

    def stop(self) -> None:
        super().stop()  # type: ignore[no-untyped-call]
        self._loop.close()  # the package leaves it open


class _WorldInvoker(LambdaInvoker):
    """Runs a function as the world runs each function, so that it can be killed."""

    def __init__(self, run: Callable[[Function, Mapping[str, Any]], Any]) -> None:
        super().__init__(None)
        self._run = run

    def invoke(
        self,
        function_name: str,
        input: DurableExecutionInvocationInput,  # noqa: A002 - the package's name
        *_: object,
        **__: object,  # the endpoint, tenant, account and region
    ) -> InvokeResponse:
        """Raise FunctionFailedError if the function raises or dies; the runner then starts it again."""
        function = FUNCTIONS[function_name.partition(":")[0]]
        return InvokeResponse.from_output(self._run(function, input.to_json_dict()), str(uuid.uuid4()))


class DurableWorld(World):
    """The durable functions in the place of the bridge."""

    def made(self, aws_endpoint: str | None) -> Stack:
        stack = super().made(aws_endpoint)
        stack.gateway = Gateway([ApiRoute("POST", f"/{name}", name) for name in FUNCTIONS], FUNCTIONS)
        return stack

    def __enter__(self) -> Self:
        super().__enter__()
        _be_quiet()
        os.environ["PEER_ILLU"] = illu_settings(self.stack)
        self._clock = _WorldClock(self.stack)
        self._scheduler = _WorldScheduler(self._clock)
        store = InMemoryExecutionStore()
        self._executor = Executor(
            store,
            self._scheduler,
            _WorldInvoker(super()._invoke),
            CheckpointProcessor(store, self._scheduler, self._clock),
            clock=self._clock,
            region=os.environ["AWS_DEFAULT_REGION"],
        )
        self._executions: dict[str, str] = {}
        """The ARN of each execution, by its name."""
        self._arrived: tuple[Function, Mapping[str, Any]] | None = None
        self._exits.enter_context(self._scheduler)
        self._exits.callback(self._executor.shutdown)
        service = Server("Lambda", self._answer_checkpoint)
        self._tap(service.name, service)
        service.start()
        self._exits.callback(service.stop)
        os.environ["AWS_ENDPOINT_URL_LAMBDA"] = service.url
        self.start_cold()  # a handler of an earlier world would call that world's service
        return self

    def begin(self) -> None:
        super().begin()
        self._executions.clear()
        self._scheduler.forget()

    def start_cold(self) -> None:
        _handler.cache_clear()
        super().start_cold()

    def operations(self) -> list[Operation]:
        """None: what is not done when its caller gives up is lost."""
        return []

    def pass_time(self, seconds: float, *, deliver: bool = True) -> None:
        end = self._clock.seconds() + seconds
        self._work_until(end)
        super().pass_time(max(0.0, end - self._clock.seconds()), deliver=deliver)

    def _invoke(self, function: Function, event: Mapping[str, Any]) -> Any:
        if function.name not in FUNCTIONS:
            return super()._invoke(function, event)
        self._arrived = function, event
        return self._response(function, event["body"])

    def _handle_again(self) -> None:
        """Let the caller's request come twice, as the runner has one invocation of an execution at a time."""
        if self._arrived:
            with suppress(FunctionFailedError):
                self._invoke(*self._arrived)

    def _response(self, function: Function, payload: str) -> dict[str, object]:
        """Start an execution or find the one of this name, and wait for its result. Raise FunctionFailedError."""
        name = hashlib.sha256(json.loads(payload)["customer_id"].encode()).hexdigest()
        if name not in self._executions:
            start = StartDurableExecutionInput(
                ACCOUNT, function.name, "1", name, EXECUTION_TIMEOUT, RETENTION, input=payload
            )
            self._executions[name] = str(self._executor.start_execution(start).execution_arn)
        arn = self._executions[name]
        if self._executor.get_execution(arn).start_input.input != payload:
            return {"statusCode": 409, "body": "DurableExecutionAlreadyStartedException"}
        self._work_until(self._clock.seconds() + GATEWAY_TIMEOUT, arn)
        execution = self._executor.get_execution(arn)
        match execution.current_status():
            case ExecutionStatus.RUNNING:
                return {"statusCode": 503, "body": "Service Unavailable"}
            case ExecutionStatus.SUCCEEDED if execution.result:
                return {"statusCode": 201, "body": execution.result.result}
            case _:
                raise FunctionFailedError(function.name)

    def _work_until(self, end: float, arn: str | None = None) -> None:
        """Do the service's work up to that time, each piece when it is due. Stop when the execution `arn` is closed."""
        while (at := self._scheduler.next_at()) <= end:
            if arn and self._executor.get_execution(arn).is_complete:
                return
            ahead = at - self._clock.seconds()
            if ahead > 0:
                super().pass_time(ahead, deliver=False)
            self._scheduler.run_next()

    def _answer_checkpoint(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Lambda's API, as much of it as a durable function with few checkpoints asks for.

        Source: https://docs.aws.amazon.com/lambda/latest/api/API_CheckpointDurableExecution.html
        """
        request = Request(environ)
        arn = request.path.removeprefix("/2025-12-01/durable-executions/").removesuffix("/checkpoint")
        asked = CheckpointDurableExecutionRequest.from_dict(request.get_json(), arn)
        try:
            answer = self._executor.checkpoint_execution(arn, asked.checkpoint_token, asked.updates, asked.client_token)
        except AwsApiException as error:
            kind = {"x-amzn-errortype": type(error).__name__}
            response = Response(json.dumps(error.to_dict()), error.http_status_code, kind)
        else:
            response = Response(JSONSerializer().to_bytes(answer.to_dict()), mimetype="application/json")
        return response(environ, start_response)

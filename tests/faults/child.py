"""A function in a process of its own, so that it can be killed at any moment.

The processes are forked by Python's fork server, which has imported everything before, so that they are quick.
"""

import os
import sys
from collections.abc import Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

import boto3
from botocore.config import Config
from botocore.loaders import Loader
from botocore.session import Session

from crm_bridge import aws
from crm_bridge.outbound import transport
from crm_bridge.runtime import runtime
from crm_bridge.vendors import called_functions
from local.gateway import FunctionFailedError, invoke
from local.template import Function
from tests.versions import quick_versions

PRELOADED = [f"{function}.handler" for function in sorted(called_functions() | {"dispatcher", "operations"})]
NAME = "fault-child"
"""With the process id behind it, it is in the user agent of every call."""


def _session(loader: Loader) -> Session:
    """A new one for each process, because it remembers what its calls say of where they come from."""
    session = Session()
    session.register_component("data_loader", loader)
    return session


def _loader() -> Loader:
    """AWS's descriptions of its services, which take longest to read: once, for all that is forked."""
    loader = Loader()
    for service in ("dynamodb", "secretsmanager", "sqs"):
        _session(loader).create_client(
            service, region_name="eu-west-1", aws_access_key_id="none", aws_secret_access_key="none"
        )
    return loader


_LOADER = _loader()


def begin_at(ahead: float) -> None:
    """A function's own state, with the time moved on, and with retries right in the middle of their range."""
    runtime().clock.ahead = ahead
    runtime().engine._jitter = lambda: 0.5


def begin() -> tuple[ForkServerProcess, Connection]:
    """A process that waits for its order."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, *PRELOADED])
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def handled(
    process: ForkServerProcess, pipe: Connection, function: Function, event: Mapping[str, Any], ahead: float
) -> Any:
    """Return the function's response. Raises FunctionFailedError, also if the process dies."""
    try:
        pipe.send((function, event, dict(os.environ), ahead))
        answered, answer = pipe.recv()
    except (EOFError, ConnectionError):
        raise FunctionFailedError(function.name) from None
    finally:
        process.join()
    if not answered:
        raise FunctionFailedError(function.name)
    return answer


def _run(pipe: Connection) -> None:
    function, event, environment, ahead = pipe.recv()
    os.environ.clear()
    os.environ |= environment
    name = f"{NAME}-{os.getpid()}"
    transport.USER_AGENT = name
    boto3.setup_default_session(botocore_session=_session(_LOADER))
    aws.CONFIG = aws.CONFIG.merge(Config(user_agent=name))
    with open(os.devnull, "w") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), sys.stdout.fileno())
    begin_at(ahead)
    quick_versions().start()  # as in the process that has begun this one, so that versions are the same
    try:
        pipe.send((True, invoke(function, event)))
    except FunctionFailedError:
        pipe.send((False, None))

"""A built function under AWS's own runtime: the emulator out of SAM CLI's wheel, and awslambdaric.

Source: https://github.com/aws/aws-lambda-runtime-interface-emulator
"""

import os
import platform
import random
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import requests

from local.sam import BUNDLE, ROOT

LAYER_PATH = Path("SharedLayer", "python")
LAYER = BUNDLE / LAYER_PATH
RUNTIME = ROOT / ".venv-runtime" / "bin" / "python"
"""AWS's runtime, and nothing else, is installed there."""
SAM = ROOT / ".venv-sam"
PROGRAM = {("Linux", "x86_64"): "aws-lambda-rie-x86_64", ("Linux", "aarch64"): "aws-lambda-rie-arm64"}.get(
    (platform.system(), platform.machine())
)
"""None where AWS's emulator does not run."""
SECONDS_TO_START = 30


class FunctionCrashedError(Exception):
    """The function raised, or its runtime ended."""


class Emulator:
    """One execution environment of a function, from `with` to its end. The first `invoke` is a cold start.

    It finds what is in its folder, in the layer and in Python itself, and in its environment only what is given.
    """

    def __init__(
        self,
        function: str,
        handler: str,
        timeout: int,
        environment: Mapping[str, str],
        log: IO[bytes] | int,
        build: Path = BUNDLE,
    ) -> None:
        """`timeout` is in seconds; `build` is what `sam build` made, with a layer or without."""
        self._build = build
        self._function = function
        self._handler = handler
        self._timeout = timeout
        self._environment = environment
        self._log = log
        self._port, self._runtime_port = _free_ports()

    def __enter__(self) -> Self:
        folder = self._build / self._function
        assert PROGRAM
        [program] = SAM.glob(f"lib/python*/site-packages/samcli/local/rapid/{PROGRAM}")
        self._process = subprocess.Popen(
            [
                *(program, "--log-level", "info"),
                *("--runtime-interface-emulator-address", f"127.0.0.1:{self._port}"),
                *("--runtime-api-address", f"127.0.0.1:{self._runtime_port}"),
                *(RUNTIME, "-m", "awslambdaric", self._handler),
            ],
            cwd=folder,
            env={
                **self._environment,
                "PATH": os.defpath,
                "PYTHONPATH": f"{folder}:{self._build / LAYER_PATH}",
                "PYTHONDONTWRITEBYTECODE": "1",  # on AWS the folders are read-only
                "LAMBDA_TASK_ROOT": str(folder),
                "AWS_LAMBDA_FUNCTION_NAME": self._function,
                "AWS_LAMBDA_FUNCTION_TIMEOUT": str(self._timeout),
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
            },
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(10)

    def invoke(self, event: Mapping[str, Any]) -> Any:
        """Raises FunctionCrashedError, which says what the runtime says."""
        url = f"http://127.0.0.1:{self._port}/2015-03-31/functions/function/invocations"
        response = requests.post(url, json=event, timeout=self._timeout + SECONDS_TO_START)
        response.raise_for_status()
        answer = response.json()
        if isinstance(answer, dict) and "errorMessage" in answer:  # the emulator answers 200 then as well
            raise FunctionCrashedError(f"{self._function}: {answer}")
        return answer

    def _wait(self) -> None:
        end = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < end and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.02)
        self._process.kill()
        raise FunctionCrashedError(f"{self._function}: the emulator did not start")


def _free_ports() -> tuple[int, int]:
    """Below those that a system gives out by itself, so that nobody gets them before the emulator does."""
    for port in random.sample(range(20_000, 30_000, 2), 100):
        with suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 1))
            return port, port + 1
    raise RuntimeError("no port is free")

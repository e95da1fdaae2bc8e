"""ministack (PyPI, MIT): the second opinion on what the embedded AWS does. It shares no code with it."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from local.server import HOST

STORES = ("cloudformation", "dynamodb", "secretsmanager", "sqs")


@contextmanager
def ministack(directory: Path, services: Iterable[str] = STORES) -> Iterator[str]:
    """Its address; what it writes goes to `directory`."""
    with socket.socket() as chosen:
        chosen.bind((HOST, 0))
        port = chosen.getsockname()[1]
    environment = {
        "BIND_HOST": HOST,
        "GATEWAY_PORT": str(port),
        "SERVICES": ",".join(services),
        "LOG_LEVEL": "WARNING",
        "LOCAL_HOSTS": HOST,  # its functions inherit it, and vendors are on this machine
        "HOME": str(directory),
        "TMPDIR": str(directory),
        "STATE_DIR": str(directory),
        "S3_DATA_DIR": str(directory),
        "SFTP_ENABLED": "0",  # these two would listen on every interface
        "IOT_MTLS_ENABLED": "0",
        "DOCKER_HOST": f"unix://{directory}/none",  # it removes the containers of any other ministack as it starts
    }
    log = directory / "ministack.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", "ministack"],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            _wait_until_it_listens(process, port, log)
            yield f"http://{HOST}:{port}"
        finally:
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_it_listens(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    give_up_at = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < give_up_at:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"ministack does not listen on port {port}:\n{log.read_text()}")

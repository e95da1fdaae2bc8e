"""SnapStart: the execution environments that are copied from one snapshot share neither chances nor clients."""

import os
import subprocess
import sys

import pytest

VARIABLES = {
    **{f"{name}_TABLE": "a-table" for name in ("OPERATIONS", "LINKS", "API_KEYS", "LOCKS", "PEOPLE", "TOKENS")},
    "SECRET_PREFIX": "crm-bridge/test/",
    "API_KEY_HEADERS": "x-api-key",
    "KEY_RATE": "10",
    "KEY_BURST": "100",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
}

COPIES = """
import os, random, socket, sys
import create_site.handler
from crm_bridge.runtime import runtime
from snapshot_restore_py import get_after_restore, get_before_snapshot

def connect(*_):
    raise AssertionError("a snapshot would hold a connection")
socket.socket.connect = connect

for hook, arguments, options in get_before_snapshot():
    hook(*arguments, **options)
assert runtime.cache_info().currsize == 1
snapshot, chances = runtime(), random.getstate()
for _ in range(2):
    sys.stdout.flush()
    if os.fork() == 0:
        random.setstate(chances)  # a fork changes it, a snapshot does not
        if sys.argv[1] == "restored":
            for hook, arguments, options in get_after_restore():
                hook(*arguments, **options)
        print(random.random(), runtime() is snapshot)
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""


def python(script: str, *arguments: str, initialization: str) -> list[str]:
    environment = {**os.environ, **VARIABLES, "AWS_LAMBDA_INITIALIZATION_TYPE": initialization}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize(("done", "differ"), [("copied", False), ("restored", True)])
def test_copies_of_a_snapshot_differ_when_they_are_restored_and_only_then(done: str, differ: bool) -> None:
    one, other = (line.split() for line in python(COPIES, done, initialization="snap-start"))
    assert (one[0] != other[0]) is differ
    assert {one[1], other[1]} == {str(not differ)}


def test_nothing_is_imported_or_made_when_no_snapshot_is_taken() -> None:
    script = (
        "import sys, create_site.handler\n"
        "from crm_bridge.runtime import runtime\n"
        "print('snapshot_restore_py' in sys.modules, runtime.cache_info().currsize)"
    )
    assert python(script, initialization="on-demand") == ["False 0"]

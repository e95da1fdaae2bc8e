"""Tests of what `sam build` made, for this machine: `make bundle` builds it first."""

import os

import pytest

from local.emulator import PROGRAM
from local.sam import BUNDLE
from tests.variants import IS_LONG

collect_ignore = [] if IS_LONG else ["test_smoke.py"]
"""`make smoke-emulator` plays it too."""


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    if not BUNDLE.exists():
        pytest.fail("nothing was built yet: run `make bundle`")


def need_emulator() -> None:
    if PROGRAM is None:
        reason = "AWS's runtime interface emulator is a program for Linux on x86-64 and arm64"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)

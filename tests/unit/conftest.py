"""Unit tests have no network at all."""

import pytest
from pytest_socket import disable_socket, enable_socket


@pytest.fixture(autouse=True)
def no_sockets() -> "pytest.Generator[None]":
    disable_socket()
    yield
    enable_socket()

"""Whose credentials the command line uses."""

from pathlib import Path
from typing import Any, cast

import boto3
import pytest

from cli.bridge import Bridge, access_key_file
from crm_bridge.errors import UnavailableError


@pytest.fixture(autouse=True)
def two_accounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One in the environment, and one that is called `work`."""
    file = tmp_path / "credentials"
    file.write_text("[work]\naws_access_key_id = of-work\naws_secret_access_key = hush-hush\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


def used(**options: Any) -> tuple[str, str, str]:
    """The access key, the region and the address of a client."""
    defaults = {"profile": None, "region": None, "local_port": None, "output": cast("Any", None)}
    client: Any = Bridge("a-stack", **{**defaults, **options}).dynamodb
    return client._request_signer._credentials.access_key, client.meta.region_name, client.meta.endpoint_url


def test_takes_what_the_environment_says_unless_an_option_says_otherwise() -> None:
    assert used()[:2] == ("testing", "eu-west-1")
    assert used(profile="work", region="us-east-1")[:2] == ("of-work", "us-east-1")


def test_never_takes_an_account_to_the_local_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    access_key_file(3000).parent.mkdir(parents=True)
    access_key_file(3000).write_text("of-the-local-stack")
    monkeypatch.setenv("AWS_PROFILE", "work")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of-the-environment")
    local = used(profile="work", region="us-east-1", local_port=3000)
    assert local == ("of-the-local-stack", "eu-west-1", "http://127.0.0.1:3001")


def test_says_what_to_start_when_no_local_stack_has_left_its_access_key() -> None:
    with pytest.raises(UnavailableError, match=r"on port 3000.*`make run`"):
        used(local_port=3000)

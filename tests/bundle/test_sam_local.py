"""`sam local`, as far as it goes without Docker: the stack that containers may call, and SAM CLI's command line."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import yaml

from crm_bridge.settings import parse_tenant
from crm_bridge.tenant_parts import split
from local import sam
from local.stack import DEMO_TENANT, LOCAL_HOSTS
from tests.stack import Stack

NO_DOCKER = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}


@pytest.fixture
def stack() -> Iterator[Stack]:
    with Stack(background=False, containers=True) as stack:
        yield stack


@pytest.fixture
def sams_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the environment for SAM CLI, as if a stack were running."""
    path = tmp_path / "env.json"
    account = {"AWS_DEFAULT_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
    path.write_text(json.dumps({"Parameters": {**account, "AWS_ENDPOINT_URL": "http://host.docker.internal:3001"}}))
    monkeypatch.setattr(sam, "ENVIRONMENT", path)
    return path


def test_a_container_gets_what_it_needs_to_reach_this_machine(stack: Stack, sams_environment: Path) -> None:
    with sam.environment_file(stack):
        environment = json.loads(sams_environment.read_text())["Parameters"]
    assert not sams_environment.exists()
    declared = {name for function in stack.template.functions.values() for name in function.environment}
    assert declared < environment.keys()
    assert environment["AWS_ENDPOINT_URL"] == stack.aws_url.replace("127.0.0.1", "host.docker.internal")
    assert environment["LOCAL_HOSTS"] == "host.docker.internal"
    assert "127.0.0.1" not in json.dumps(environment)
    secrets = boto3.client("secretsmanager")
    name = f"{environment['SECRET_PREFIX']}illu/{DEMO_TENANT}"
    secret = secrets.get_secret_value(SecretId=name)["SecretString"]
    there, here = parse_tenant(secret, LOCAL_HOSTS), parse_tenant(stack.demo_tenant(), LOCAL_HOSTS)
    assert there != here
    assert secret == split(stack.demo_tenant().replace("127.0.0.1", "host.docker.internal"))["illu"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's list of sockets")
def test_what_containers_call_listens_everywhere_and_nothing_else_does(stack: Stack) -> None:
    assert stack.aws
    for url in (stack.aws.url, *(vendor.url for vendor in stack.vendors)):
        assert _listens("00000000", url)
    assert _listens("0100007F", stack.url)


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's list of sockets")
def test_nothing_listens_but_on_this_machine_when_no_container_is_to_call() -> None:
    with Stack(background=False) as stack:
        assert stack.aws
        for url in (stack.url, stack.aws.url, *(vendor.url for vendor in stack.vendors)):
            assert _listens("0100007F", url)


def _listens(address: str, url: str) -> bool:
    """Addresses and ports are in hexadecimal there; 0A is LISTEN."""
    port = int(url.rpartition(":")[2])
    return f"{address}:{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text()


@pytest.mark.parametrize(
    "arguments", [["invoke", "connector_receiver", "member_xml"], ["start-api"]], ids=["invoke", "start-api"]
)
@pytest.mark.usefixtures("sams_environment")
def test_sam_understands_its_command_line_and_misses_docker_alone(arguments: list[str]) -> None:
    line = sam.command([*arguments, "--skip-pull-image"], "x86_64")
    environment = sam.account({"HOME": os.environ["HOME"], "PATH": os.environ["PATH"]}) | NO_DOCKER
    finished = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 1
    assert re.search(r"Error: .*(Docker|container runtime)", finished.stderr), finished.stderr
    variables = yaml.safe_load(sam.BUNDLE.joinpath("local.yaml").read_text())["Globals"]["Function"]["Environment"]
    assert "AWS_ENDPOINT_URL" in variables["Variables"]


@pytest.mark.usefixtures("sams_environment")
def test_sam_gets_no_credentials_of_a_real_account() -> None:
    real = {"AWS_ACCESS_KEY_ID": "real", "AWS_PROFILE": "prod", "AWS_SESSION_TOKEN": "real", "PATH": "/bin"}
    assert sam.account(real) == {
        "PATH": "/bin",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "SAM_CLI_TELEMETRY": "0",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["invoke", "create_site", "nothing"], "there is no event create_site/nothing"),
        (["invoke", "create_site"], "usage:"),
        ([], "usage:"),
    ],
)
@pytest.mark.usefixtures("sams_environment")
def test_it_says_what_is_wrong_when_asked_for_what_there_is_not(arguments: list[str], said: str) -> None:
    with pytest.raises(sam.NotReadyError, match=said):
        sam.command(arguments, "x86_64")


def test_it_says_what_to_start_when_no_stack_is_running(sams_environment: Path) -> None:
    sams_environment.unlink()
    with pytest.raises(sam.NotReadyError, match="make run OPTIONS=--containers"):
        sam.command(["invoke", "create_site", "new"], "x86_64")

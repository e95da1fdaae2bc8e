"""A real `sam deploy` of what was built, to ministack; then an update; and every function, through Lambda's API.

ministack takes the template as it is, but for alarms of several metrics and gradual deployments (CodeDeploy). So
`Alarms` is off here, and the other is off by default. It makes no snapshots, does not serve the API's routes, and makes
a changed function again, without its alias; so the update is one of something else.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config

from crm_bridge.storage.api_keys import hash_api_key
from local.emulator import SAM
from local.events import load_event
from local.sam import BUNDLE
from local.server import HOST
from local.stack import DEMO_KEY, SCOPES
from local.vendors.illu import IlluSimulator
from tests.integration.ministack import STORES, ministack

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient

STACK, REGION, STAGE, TENANT = "crm-bridge-test", "eu-west-1", "test", "demo"
SERVICES = (*STORES, "lambda", "s3", "iam", "sts", "logs", "apigateway", "events", "sns", "monitoring", "kms")
ACCOUNT = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": REGION}
ARCHITECTURE = "x86_64" if platform.machine() == "x86_64" else "arm64"


@dataclass(frozen=True)
class Deployed:
    """The stack in ministack. `sam deploy` brings it there, or on."""

    endpoint: str
    directory: Path

    def deploy(self, **parameters: str) -> None:
        chosen = {"Stage": STAGE, "Architecture": ARCHITECTURE, "Alarms": "false", **parameters}
        command: list[str | Path] = [
            *(SAM / "bin/sam", "deploy", "--template-file", BUNDLE / "template.yaml", "--stack-name", STACK),
            *("--resolve-s3", "--capabilities", "CAPABILITY_IAM", "--no-confirm-changeset", "--no-progressbar"),
            *("--parameter-overrides", *(f"{name}={value}" for name, value in chosen.items())),
        ]
        environment = {
            **ACCOUNT,
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "AWS_ENDPOINT_URL": self.endpoint,
            "SAM_CLI_TELEMETRY": "0",
        }
        done = subprocess.run(command, cwd=self.directory, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def client(self, service: str) -> Any:
        return boto3.client(service, endpoint_url=self.endpoint, config=Config(read_timeout=120))  # type: ignore[call-overload]

    @cached_property
    def cloudformation(self) -> "CloudFormationClient":
        client: CloudFormationClient = self.client("cloudformation")
        return client

    @property
    def status(self) -> str:
        return self.cloudformation.describe_stacks(StackName=STACK)["Stacks"][0]["StackStatus"]

    def physical(self, logical: str) -> str:
        found = self.cloudformation.describe_stack_resources(StackName=STACK, LogicalResourceId=logical)
        return found["StackResources"][0]["PhysicalResourceId"]

    def invoke(self, function: str, event: Mapping[str, Any]) -> Any:
        """Return the response of the version that everything calls."""
        answer = self.client("lambda").invoke(
            FunctionName=self.physical(function), Qualifier="live", Payload=json.dumps(event)
        )
        result = json.loads(answer["Payload"].read())
        assert "FunctionError" not in answer, result
        return result

    @property
    def concurrency(self) -> set[int]:
        """With how many executions at once the flows' queues may be worked off."""
        sources = self.client("lambda").list_event_source_mappings()["EventSourceMappings"]
        return {source["ScalingConfig"]["MaximumConcurrency"] for source in sources}

    @property
    def retention(self) -> set[int]:
        """Days for which the logs are kept."""
        return {group["retentionInDays"] for group in self.client("logs").describe_log_groups()["logGroups"]}


@pytest.fixture(scope="module")
def illu() -> Iterator[IlluSimulator]:
    simulator = IlluSimulator()
    simulator.start()
    yield simulator
    simulator.stop()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, illu: IlluSimulator) -> Iterator[Deployed]:
    """Deployed, with a tenant and a key; only CloudFormation says what is deployed."""
    directory = tmp_path_factory.mktemp("ministack")
    with pytest.MonkeyPatch.context() as patch, ministack(directory, SERVICES) as endpoint:
        for name, value in ACCOUNT.items():
            patch.setenv(name, value)
        stack = Deployed(endpoint, directory)
        stack.deploy()
        key = {
            "key_hash": {"S": hash_api_key(DEMO_KEY)},
            "tenant": {"S": TENANT},
            "scopes": {"SS": sorted(SCOPES)},
            "label": {"S": "demo"},
        }
        stack.client("dynamodb").put_item(TableName=stack.physical("ApiKeysTable"), Item=key)
        settings = {"illu": {"base_url": illu.url, "org_id": illu.org_id, "api_key": illu.api_key}}
        stack.client("secretsmanager").create_secret(
            Name=f"crm-bridge/{STAGE}/illu/{TENANT}", SecretString=json.dumps(settings)
        )
        yield stack


def test_the_stack_comes_up_carries_an_event_and_keeps_it_through_an_update(
    stack: Deployed, illu: IlluSimulator
) -> None:
    assert stack.status == "CREATE_COMPLETE"
    created = stack.invoke("CreateSiteFunction", load_event("create_site", "new"))
    assert created["statusCode"] == 201, created
    assert len(illu.sites) == 1
    tables = [stack.physical(name) for name in ("OperationsTable", "LinksTable", "ApiKeysTable")]
    before = [stack.client("dynamodb").scan(TableName=table)["Items"] for table in tables]
    assert [len(items) for items in before] == [1, 2, 1]
    assert stack.concurrency == {2, 3, 10}

    assert stack.retention == {30}

    # If a function's properties change, ministack makes it again and loses its versions. AWS changes it in place.
    stack.deploy(LogRetentionDays="7")

    assert stack.status == "UPDATE_COMPLETE"
    assert [stack.client("dynamodb").scan(TableName=table)["Items"] for table in tables] == before
    assert stack.retention == {7}
    repeated = stack.invoke("CreateSiteFunction", load_event("create_site", "repeated"))
    first, again = json.loads(created["body"]), json.loads(repeated["body"])
    assert repeated["statusCode"] == 200
    assert again == {name: first[name] for name in ("site_id", "customer_id", "operation_id")}
    assert len(illu.sites) == 1


@pytest.mark.parametrize(
    ("function", "case", "status"),
    [
        ("CreateSiteFunction", "create_site/invalid", 422),
        ("CreateJobFunction", "create_job/no_site", 409),
        ("KeyLinkFunction", "key_link/invalid", 503),  # the tenant has no secret of Rev.io
        ("StatusUpdateFunction", "status_update/invalid", 503),  # nor of IzzitUp
        ("ConnectorReceiverFunction", "connector_receiver/check", 503),  # the tenant has no connector block
        ("OperationsFunction", "operations/list", 200),
    ],
)
def test_a_function_that_answers_requests_does(stack: Deployed, function: str, case: str, status: int) -> None:
    answer = stack.invoke(function, load_event(*case.split("/")))
    assert answer["statusCode"] == status, answer


def test_what_is_accepted_for_later_is_dispatched_and_sent_from_the_queue(stack: Deployed, illu: IlluSimulator) -> None:
    event = load_event("create_site", "new")
    event["headers"]["prefer"] = "respond-async"
    event["body"] = json.dumps({**json.loads(event["body"]), "customer_id": "C-2002", "name": "Shop 13, Kitale"})
    accepted = stack.invoke("CreateSiteFunction", event)
    assert accepted["statusCode"] == 202, accepted

    stack.invoke("DispatcherFunction", {})

    for _ in range(240):
        if any(site["name"] == "Shop 13, Kitale" for site in illu.sites):
            return
        time.sleep(0.25)
    pytest.fail("it was not sent")


def test_the_command_line_turns_a_tenant_up_and_its_functions_know_it(
    stack: Deployed, illu: IlluSimulator, tmp_path: Path
) -> None:
    def run(*arguments: str, stdin: str = "") -> Any:
        command = [sys.executable, "-m", "cli", *arguments, "--stack", STACK, "--region", REGION, "--json"]
        environment = {**os.environ, **ACCOUNT, "AWS_ENDPOINT_URL": stack.endpoint, "LOCAL_HOSTS": HOST}
        done = subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    settings = {"illu": {"base_url": illu.url, "org_id": illu.org_id, "api_key": illu.api_key}}
    key = run("tenant", "add", "acme", "--file", "-", stdin=json.dumps(settings))["key"]
    assert "failed" not in {finding["result"] for finding in run("doctor", "acme")}
    event = load_event("create_site", "new")
    file = tmp_path / "customers.jsonl"
    file.write_text(json.dumps(json.loads(event["body"])) + "\n")
    before = len(illu.sites)
    assert run("import", "sites", "acme", str(file), "--yes")["states"] == {"succeeded": 1}
    event["headers"]["authorization"] = f"Bearer {key}"
    assert stack.invoke("CreateSiteFunction", event)["statusCode"] == 200
    assert len(illu.sites) == before + 1


def test_a_webhook_that_there_is_not_is_left_out(stack: Deployed) -> None:
    record = {"messageId": "m-1", "body": json.dumps({"operation_id": "op_" + 32 * "0", "tenant": "acme"})}
    assert stack.invoke("WebhookFunction", {"Records": [record]}) == {"batchItemFailures": []}

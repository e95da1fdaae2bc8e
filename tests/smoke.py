"""A stack of its own from nothing to nothing: deploy, check, use, change, go back, delete. `make smoke STACK=…`, or:

    .venv/bin/python -m tests.smoke --stack crm-bridge-smoke --vendors https://smoke.example

Vendors are the simulators, in this process, one below the other on one port. `--vendors` is the public address under
which a tunnel of yours reaches that port, for AWS calls them from outside. With `--emulator` all goes to ministack on
this machine, which needs neither an account nor a tunnel; what it cannot do is left out, and said.

Tenant, secrets, tables and stack are deleted at the end, also if a step fails; `--keep` leaves them for a look.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import requests
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.wrappers import Response

from cli.output import Output
from local.events import function_of, load_event
from local.server import HOST, THIS_MACHINE, Server
from local.template import TEMPLATE
from local.vendors.simulator import Simulator
from tests.integration.ministack import STORES, ministack
from tests.stack import Stack

ROOT = TEMPLATE.parent
TENANT = "smoke"
SERVICES = (*STORES, "lambda", "s3", "iam", "sts", "logs", "apigateway", "events", "sns", "monitoring", "kms")
EMULATED = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "eu-west-1"}
PATIENCE = 180
"""Seconds in which what was accepted must have been sent: its queue at once, or the dispatcher after a minute."""
WORKS = "5"
"""The status of a service at IzzitUp of which nothing is wrong."""
LONGEST = 1800
"""Seconds for one command; a gradual deployment takes its minutes."""


class FailedError(Exception):
    """A step did not show what it must."""


class CannotError(Exception):
    """The emulator cannot do this."""


@dataclass(frozen=True)
class Result:
    step: str
    result: str
    """`ok`, `failed` or `left out`."""
    seconds: float
    what: str


@dataclass
class Smoke:
    """`endpoint` is the emulator's, None for AWS. `public` is where the simulators are reached."""

    stack: str
    endpoint: str | None
    public: str | None
    vendors: Stack
    directory: Path
    say: Callable[[str], None]
    results: list[Result] = field(default_factory=list)
    key: str = ""

    def steps(self) -> list[tuple[str, Callable[[], str]]]:
        return [
            ("deploy", self.deploy),
            ("add a tenant and a key", self.add_tenant),
            ("doctor", self.doctor),
            *((f"{flow}, and the same event again", self._carries(flow, case)) for flow, case in EVENTS.items()),
            ("accept for later, carry from the queue", self.carry_later),
            ("a gradual deployment while events come", self.deploy_gradually),
            ("go back to the version before", self.go_back),
        ]

    def run(self, *, keep: bool) -> bool:
        try:
            for step, work in self.steps():
                if not self._do(step, work):
                    break
        finally:
            if not keep:
                self._do("delete all", self.delete)
        return all(result.result != "failed" for result in self.results)

    def _do(self, step: str, work: Callable[[], str]) -> bool:
        self.say(step)
        begun = time.monotonic()
        try:
            result, what = "ok", work()
        except CannotError as reason:
            result, what = "left out", str(reason)
        except Exception as error:  # noqa: BLE001 - it is reported, and what was made is deleted all the same
            result, what = "failed", f"{type(error).__name__}: {error}"
        self.results.append(Result(step, result, round(time.monotonic() - begun, 1), what))
        return result != "failed"

    # ------------------------------------------------------------------ deploying

    def deploy(self, **parameters: str) -> str:
        chosen = {"Stage": self.stage, "LogRetentionDays": "1", **parameters}
        build = ROOT / ".aws-sam/build"
        if self.endpoint:
            build = ROOT / ".aws-sam/bundle"
            chosen |= {"Alarms": "false", "Architecture": "x86_64" if platform.machine() == "x86_64" else "arm64"}
        sam: list[str | Path] = [ROOT / ".venv-sam/bin/sam", "deploy", "--template-file", build / "template.yaml"]
        more = (
            "--stack-name",
            self.stack,
            "--resolve-s3",
            "--capabilities",
            "CAPABILITY_IAM",
            "--no-confirm-changeset",
        )
        overrides = (f"{name}={value}" for name, value in chosen.items())
        self._command(*sam, *more, "--no-progressbar", "--parameter-overrides", *overrides)
        status: str = self.client("cloudformation").describe_stacks(StackName=self.stack)["Stacks"][0]["StackStatus"]
        if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            raise FailedError(f"the stack is {status}")
        return status

    def deploy_gradually(self) -> str:
        """Until CodeDeploy has moved all calls to the new version; events that come meanwhile are sent."""
        if self.endpoint:
            raise CannotError("ministack has no CodeDeploy, and makes a changed function again, without its versions")
        before = self._live()
        self.deploy(Deployment="Canary10Percent5Minutes", LogLevel="DEBUG")
        if self._live() == before:
            raise FailedError("the alias still points at the version before")
        return f"version {before} to {self._live()}; " + self._carries("create_site", "repeated")()

    def go_back(self) -> str:
        """As docs/upgrade.md says: what was deployed before is deployed once more."""
        if self.endpoint:
            raise CannotError("see the step before")
        self.deploy(LogLevel="INFO")
        return f"version {self._live()}; " + self._carries("create_site", "repeated")()

    def _live(self) -> str:
        name = self._physical("CreateSiteFunction")
        return str(self.client("lambda").get_alias(FunctionName=name, Name="live")["FunctionVersion"])

    # ------------------------------------------------------------------ using it

    def add_tenant(self) -> str:
        document = self.vendors.demo_tenant()
        if self.public:
            for vendor in self.vendors.vendors:
                document = document.replace(vendor.url, f"{self.public}{_path(vendor)}")
        self.key = json.loads(self._cli("tenant", "add", TENANT, "--file", "-", stdin=document))["key"]
        return "its key is used from here on"

    def doctor(self) -> str:
        findings = json.loads(self._cli("doctor", TENANT))
        if failed := [finding for finding in findings if finding["result"] == "failed"]:
            raise FailedError(json.dumps(failed))
        return f"{len(findings)} findings, none failed"

    def _carries(self, flow: str, case: str) -> Callable[[], str]:
        def work() -> str:
            event = load_event(flow, case)
            first, again = self._call(flow, event), self._call(flow, event)
            if not (200 <= first[0] < 300 and 200 <= again[0] < 300):
                raise FailedError(f"answered {first[0]} and {again[0]}: {first[1]} {again[1]}")
            if (made := self._records(flow)) != 1:
                raise FailedError(f"the vendor has {made} records")
            return f"{first[0]}, then {again[0]}; one record at the vendor"

        return work

    def carry_later(self) -> str:
        event = load_event("create_site", "new")
        event["headers"]["prefer"] = "respond-async"
        event["body"] = json.dumps({**json.loads(event["body"]), "customer_id": "C-LATER", "name": "Later"})
        begun = time.monotonic()
        status, answer = self._call("create_site", event)
        if status != 202:
            raise FailedError(f"answered {status}: {answer}")
        while time.monotonic() - begun < PATIENCE:
            if any(site["name"] == "Later" for site in self.vendors.illu.sites):
                return f"sent after {time.monotonic() - begun:.1f} s"
            time.sleep(0.2)
        raise FailedError(f"not sent within {PATIENCE} s")

    def _records(self, flow: str) -> int:
        """How many records the event's flow has made; or how many services IzzitUp no longer shows as working."""
        vendors = self.vendors
        match flow:
            case "create_site":
                return sum(site["name"] != "Later" for site in vendors.illu.sites)
            case "create_job":
                return len(vendors.illu.jobs)
            case "key_link":
                return len(vendors.revio.key_links)
            case "status_update":
                return sum(service["status"] != WORKS for service in vendors.izzitup.services)
        return len(vendors.egito.records["Contact"])

    def _call(self, flow: str, event: Mapping[str, Any]) -> tuple[int, str]:
        """Over HTTP; ministack serves no routes of an HTTP API, so there the function gets the event from Lambda."""
        headers = {**event["headers"], "authorization": f"Bearer {self.key}"}
        if not self.endpoint:
            headers.pop("host", None)
            url, method = self._output("ApiUrl") + event["rawPath"], event["requestContext"]["http"]["method"]
            answer = requests.request(method, url, headers=headers, data=event["body"].encode(), timeout=35)
            return answer.status_code, answer.text
        invoked = self.client("lambda").invoke(
            FunctionName=self._physical(function_of(flow)),
            Qualifier="live",
            Payload=json.dumps({**event, "headers": headers}),
        )
        answered = json.loads(invoked["Payload"].read())
        return answered["statusCode"], answered["body"]

    # ------------------------------------------------------------------ back to nothing

    def delete(self) -> str:
        """As docs/deploy.md says, and then nothing may be left."""
        cloudformation, dynamodb = self.client("cloudformation"), self.client("dynamodb")
        resources = cloudformation.describe_stack_resources(StackName=self.stack)["StackResources"]
        tables = [one["PhysicalResourceId"] for one in resources if one["ResourceType"] == "AWS::DynamoDB::Table"]
        if self.endpoint:  # it does not tell what `sam delete` asks for
            cloudformation.delete_stack(StackName=self.stack)
            cloudformation.get_waiter("stack_delete_complete").wait(StackName=self.stack, WaiterConfig={"Delay": 1})
        else:
            self._command(ROOT / ".venv-sam/bin/sam", "delete", "--stack-name", self.stack, "--no-prompts")
        there = set(dynamodb.list_tables()["TableNames"])
        for table in there & set(tables):
            dynamodb.delete_table(TableName=table)
        secrets = self.client("secretsmanager")
        for name in self._secrets():
            secrets.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
        left = set(dynamodb.list_tables()["TableNames"]) & set(tables)
        for _ in range(60):
            if not left:
                break
            time.sleep(2)
            left = set(dynamodb.list_tables()["TableNames"]) & set(tables)
        if left or self._secrets():
            raise FailedError(f"left: {sorted(left | self._secrets())}")
        return f"the stack, {len(there & set(tables))} tables that it had kept, and the secrets"

    # ------------------------------------------------------------------ tools

    def _secrets(self) -> set[str]:
        prefix = f"crm-bridge/{self.stage}/"
        pages = self.client("secretsmanager").get_paginator("list_secrets").paginate()
        names = {secret["Name"] for page in pages for secret in page["SecretList"]}
        return {name for name in names if name.startswith(prefix)}

    @property
    def stage(self) -> str:
        """Of its own, so that no secret of another stage is read."""
        return f"smoke-{self.stack.lower()}"[:20].rstrip("-")

    def client(self, service: str) -> Any:
        return boto3.client(service, endpoint_url=self.endpoint)  # type: ignore[call-overload]

    def _output(self, name: str) -> str:
        stack = self.client("cloudformation").describe_stacks(StackName=self.stack)["Stacks"][0]
        return next(str(output["OutputValue"]) for output in stack["Outputs"] if output["OutputKey"] == name)

    def _physical(self, logical: str) -> str:
        found = self.client("cloudformation").describe_stack_resources(StackName=self.stack, LogicalResourceId=logical)
        return str(found["StackResources"][0]["PhysicalResourceId"])

    def _cli(self, *arguments: str, stdin: str | None = None) -> str:
        return self._command(sys.executable, "-m", "cli", *arguments, "--stack", self.stack, "--json", stdin=stdin)

    def _command(self, *command: str | Path, stdin: str | None = None) -> str:
        environment = {**os.environ, "SAM_CLI_TELEMETRY": "0", "PYTHONPATH": os.pathsep.join(map(str, PATHS))}
        if self.endpoint:
            environment |= {"AWS_ENDPOINT_URL": self.endpoint, "HOME": str(self.directory), "LOCAL_HOSTS": HOST}
        done = subprocess.run(
            command,
            env=environment,
            cwd=ROOT,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
        if done.returncode:
            lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            raise FailedError(" / ".join(lines[-5:]))
        return done.stdout


PATHS = (ROOT, ROOT / "functions", ROOT / "layers/shared")
EVENTS = {
    "create_site": "new",
    "create_job": "new",
    "key_link": "new",
    "status_update": "by_key",
    "connector_receiver": "prospect",
}


def _path(vendor: Simulator) -> str:
    return "/" + type(vendor).__module__.rpartition(".")[2]


@contextmanager
def simulators(port: int, public: str) -> Iterator[Stack]:
    """The vendors of a local stack that is never started, and all of them on one port besides, also for a tunnel."""
    stack = Stack()
    with ExitStack() as exits:
        for vendor in stack.vendors:
            vendor.start()
            exits.callback(vendor.stop)
        apps: dict[str, Any] = {_path(vendor): vendor._answer for vendor in stack.vendors}
        names = THIS_MACHINE | {urlsplit(public).hostname or HOST}
        one = Server("the simulators", DispatcherMiddleware(Response(status=404), apps), port, names=names)
        one.start()
        exits.callback(one.stop)
        yield stack


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.smoke", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stack", required=True, help="the name of a stack that there is not yet")
    parser.add_argument("--vendors", metavar="URL", help="where a tunnel reaches the simulators' port from outside")
    parser.add_argument("--port", type=int, default=3900, help="the simulators' port on this machine (3900)")
    parser.add_argument("--emulator", action="store_true", help="ministack on this machine in place of AWS")
    parser.add_argument("--keep", action="store_true", help="leave all that was made, for a look")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    if bool(options.vendors) == options.emulator:
        parser.error("name --vendors, the public address of the simulators, or --emulator")
    output = Output(as_json=options.json)
    with ExitStack() as exits:
        directory = Path(exits.enter_context(tempfile.TemporaryDirectory()))
        endpoint = None
        if options.emulator:
            os.environ.update(EMULATED)
            endpoint = exits.enter_context(ministack(directory, SERVICES))
        vendors = exits.enter_context(simulators(options.port, options.vendors or ""))
        if options.vendors:
            output.notice(f"The simulators listen on {HOST}:{options.port}.")
        public = options.vendors and options.vendors.rstrip("/")
        smoke = Smoke(options.stack, endpoint, public, vendors, directory, output.notice)
        passed = smoke.run(keep=options.keep)
    output.document([asdict(result) for result in smoke.results])
    rows = [(result.step, result.result, f"{result.seconds:.1f} s", result.what) for result in smoke.results]
    output.table(("step", "result", "took", "what"), rows)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

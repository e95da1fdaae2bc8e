"""A deployed bridge, as the commands use it: the stack's outputs name its resources, and its own code does the work."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import boto3
from botocore.exceptions import ClientError
from pydantic import ValidationError

from cli.output import Output
from crm_bridge import aws
from crm_bridge.errors import NotConfiguredError, NotFoundError, UnavailableError
from crm_bridge.outbound.public_addresses import local_hosts
from crm_bridge.runtime import Runtime, runtime
from crm_bridge.settings import Tenant, parse_tenant
from crm_bridge.storage.operation import Operation, OperationSummary, State
from crm_bridge.tenant_parts import PARTS, joined
from crm_bridge.vendors import PART_OF

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import OutputTypeDef
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sqs import SQSClient

LOCAL_STACK = "crm-bridge-local"
LOCAL_REGION = "eu-west-1"
LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "host.docker.internal"})
PAGE = 100
"""Operations that are read at once."""
TABLES = [f"{name}_TABLE" for name in ("OPERATIONS", "LINKS", "API_KEYS", "LOCKS", "PEOPLE", "TOKENS", "REQUESTS")]
QUEUES = {function: f"{function.upper()}_QUEUE_URL" for function in PART_OF}
OUTPUTS = {name: name.title().replace("_", "") for name in (*TABLES, "SECRET_PREFIX", *QUEUES.values())}
"""The functions' variables, and the stack's outputs that hold them."""
NO_TELEMETRY = {
    "API_KEY_HEADERS": "",
    "KEY_RATE": "1000000",
    "KEY_BURST": "1000000",
    "LOG_LEVEL": "CRITICAL",
    "POWERTOOLS_METRICS_NAMESPACE": "",
}
"""The other variables: no request arrives here, and logs and metrics for CloudWatch are not for a terminal."""


def access_key_file(port: int) -> Path:
    """Return where `make run` keeps the access key of its AWS while it runs, by the gateway's port."""
    return Path.home() / ".cache" / "crm-bridge" / f"local-{port}.key"


REFUSED = ("AccessDeniedException", "AccessDenied")
"""Codes of AWS for what the caller may not do."""


class Bridge:
    """Opened at first use: AWS is not called by a command whose input is wrong.

    Every member may raise ClientError, BotoCoreError or StorageError; NotFoundError if there is no such stack.
    """

    def __init__(
        self, stack: str, *, profile: str | None, region: str | None, local_port: int | None, output: Output
    ) -> None:
        """`local_port` is the gateway's port of a running `python -m local`, which is used instead of AWS."""
        self.stack = stack if local_port is None else LOCAL_STACK
        self.output = output
        self._profile = profile
        self._region = region
        self._local_port = local_port

    @property
    def local_hosts(self) -> frozenset[str]:
        """The hosts that this stack's functions may call although they are not public: none on AWS."""
        return local_hosts() if self._local_port is None else LOCAL_HOSTS

    @cached_property
    def runtime(self) -> Runtime:
        """The objects that the functions are made of, on this stack's tables."""
        os.environ |= {**{name: self._outputs[output] for name, output in OUTPUTS.items()}, **NO_TELEMETRY}
        os.environ["LOCAL_HOSTS"] = ",".join(sorted(self.local_hosts))
        runtime.cache_clear()
        return runtime()

    @cached_property
    def secrets(self) -> "SecretsManagerClient":
        return cast("SecretsManagerClient", self._client("secretsmanager"))

    @cached_property
    def sqs(self) -> "SQSClient":
        return cast("SQSClient", self._client("sqs"))

    @cached_property
    def dynamodb(self) -> "DynamoDBClient":
        return cast("DynamoDBClient", self._client("dynamodb"))

    def tenants(self) -> list[str]:
        """Return the names of all tenants, which are in the names of their secrets."""
        prefixes = tuple(self.secret_name(part, "") for part in PARTS)
        pages = self.secrets.get_paginator("list_secrets").paginate(Filters=[{"Key": "name", "Values": prefixes}])
        secrets = [secret["Name"] for page in pages for secret in page["SecretList"]]
        return sorted({secret.rpartition("/")[2] for secret in secrets if secret.startswith(prefixes)})

    def expect_tenant(self, tenant: str) -> None:
        """Raise NotConfiguredError if there is no such tenant, as far as AWS lets the caller know."""
        try:
            known = self.tenants()
        except ClientError as error:
            if error.response["Error"]["Code"] not in REFUSED:
                raise
            return
        if tenant not in known:
            raise self._no_tenant(tenant)

    def _no_tenant(self, tenant: str) -> NotConfiguredError:
        listing = self.output.command("tenant list")
        return NotConfiguredError(f"There is no tenant {tenant}. `{listing}` lists the tenants.")

    def parts(self, tenant: str) -> dict[str, str]:
        """Return the texts of a tenant's secrets by part (see `crm_bridge.tenant_parts.split`)."""
        secrets = self.secrets
        found = {}
        for part in PARTS:
            with suppress(secrets.exceptions.ResourceNotFoundException, secrets.exceptions.InvalidRequestException):
                found[part] = secrets.get_secret_value(SecretId=self.secret_name(part, tenant))["SecretString"]
        return found

    def existing_parts(self, tenant: str) -> dict[str, str]:
        """Return the same. Raises NotConfiguredError if there is no secret."""
        if parts := self.parts(tenant):
            return parts
        raise self._no_tenant(tenant)

    def secret_name(self, part: str, tenant: str) -> str:
        return f"{self._outputs['SecretPrefix']}{part}/{tenant}"

    @property
    def api_url(self) -> str:
        """The address of the HTTP API."""
        if self._local_port is not None:
            return f"http://127.0.0.1:{self._local_port}"
        return self._outputs["ApiUrl"]

    @property
    def links_table(self) -> str:
        return self._outputs["LinksTable"]

    def tables(self) -> list[str]:
        return [self._outputs[OUTPUTS[name]] for name in TABLES]

    def queue_urls(self) -> dict[str, str]:
        """Return the addresses of the queues by function."""
        return {function: self._outputs[OUTPUTS[name]] for function, name in QUEUES.items()}

    def tenant(self, name: str) -> Tenant:
        """Return the current settings of a tenant. Raises NotConfiguredError."""
        parts = self.existing_parts(name)
        _ = self.runtime  # flows are made of it, and a command makes them once it has the settings
        try:
            return parse_tenant(joined(parts.values()), self.local_hosts)
        except ValidationError as error:
            wrong = ", ".join(".".join(map(str, one["loc"])) for one in error.errors())
        except ValueError:
            wrong = "that its secrets are JSON"
        raise NotConfiguredError(f"The settings of {name} are not valid: check {wrong}.")

    def operation(self, operation_id: str) -> Operation:
        """Return an operation. Raises NotFoundError."""
        if found := self.runtime.operations.get(operation_id):
            return found
        raise NotFoundError(f"There is no operation {operation_id} in the stack {self.stack}.")

    def listed(self, tenant: str, states: Iterable[State], flow: str | None = None) -> Iterator[OperationSummary]:
        """Return a tenant's operations in these states, newest first in each."""
        for state in states:
            after = None
            while True:
                page, after = self.runtime.operations.listed(tenant, state, flow=flow, limit=PAGE, after=after)
                yield from page
                if after is None:
                    break

    def listed_changed(self, tenant: str, states: Collection[State], flow: str | None = None) -> Iterator[Operation]:
        """Return a tenant's operations in these states of which a later payload was not applied, the latest first."""
        after = None
        while True:
            page, after = self.runtime.operations.listed_changed(tenant, flow=flow, limit=PAGE, after=after)
            yield from (one for one in page if one.state in states)
            if after is None:
                break

    @cached_property
    def user(self) -> str:
        """Who runs this command, for the history of an operation: the last part of the name in AWS."""
        return "crm-bridge" if self._local_port is not None else f"{self.arn.rpartition('/')[2]} (crm-bridge)"

    @cached_property
    def arn(self) -> str:
        """Who runs this command, as AWS identifies them; `local` with the bridge on this machine.

        It needs no permission: https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
        """
        return "local" if self._local_port is not None else str(self._client("sts").get_caller_identity()["Arn"])

    @cached_property
    def _client(self) -> Callable[[str], Any]:
        """Makes clients in boto3's default session, which is prepared first; the bridge's own code uses it as well."""
        profile, region = self._profile, self._region
        if self._local_port is not None:
            file = access_key_file(self._local_port)
            try:
                access_key = file.read_text()
            except OSError:
                raise UnavailableError(
                    f"No local stack is running on port {self._local_port}: cannot read {file}, where `make run` keeps "
                    "its access key. Start it as the same user, or name its port with --port."
                ) from None
            os.environ |= {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._local_port + 1}",
                "AWS_ACCESS_KEY_ID": access_key,
                "AWS_SECRET_ACCESS_KEY": "local",
                "AWS_SESSION_TOKEN": "local",
            }
            profile, region = None, LOCAL_REGION  # with a profile, its credentials would count
        if profile or region:  # a new session, since the one that there is may have found credentials already
            boto3.setup_default_session(profile_name=profile, region_name=region)
        return aws.client

    @cached_property
    def _outputs(self) -> Mapping[str, str]:
        client: CloudFormationClient = self._client("cloudformation")
        outputs: list[OutputTypeDef] = client.describe_stacks(StackName=self.stack)["Stacks"][0].get("Outputs", [])
        found = {output["OutputKey"]: output["OutputValue"] for output in outputs}
        if missing := sorted(set(OUTPUTS.values()) - found.keys()):
            raise NotFoundError(
                f"The stack {self.stack} has no output {', '.join(missing)}: it is not a CRM Bridge, or of "
                "another version. The stack and the command line must be of the same version."
            )
        return found

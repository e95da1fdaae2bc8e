"""A deployed bridge, as the commands use it: its stack says where everything is, and its own code does the work."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from pydantic import ValidationError

from cli.output import Output
from crm_bridge import aws
from crm_bridge.errors import NotConfiguredError, NotFoundError, UnavailableError
from crm_bridge.operations import Operation
from crm_bridge.public import local_hosts
from crm_bridge.runtime import Runtime, runtime
from crm_bridge.settings import Tenant, parse_tenant
from crm_bridge.tenant_parts import PARTS, joined

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import OutputTypeDef
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sqs import SQSClient

LOCAL_STACK = "crm-bridge-local"
LOCAL_REGION = "eu-west-1"
LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "host.docker.internal"})
OUTPUTS = {
    "OPERATIONS_TABLE": "OperationsTable",
    "LINKS_TABLE": "LinksTable",
    "API_KEYS_TABLE": "ApiKeysTable",
    "ACCOUNTS_TABLE": "AccountsTable",
    "PEOPLE_TABLE": "PeopleTable",
    "TOKENS_TABLE": "TokensTable",
    "SECRET_PREFIX": "SecretPrefix",
    "CREATE_SITE_QUEUE_URL": "CreateSiteQueueUrl",
    "CREATE_JOB_QUEUE_URL": "CreateJobQueueUrl",
    "KEY_LINK_QUEUE_URL": "KeyLinkQueueUrl",
    "STATUS_UPDATE_QUEUE_URL": "StatusUpdateQueueUrl",
    "CONNECTOR_RECEIVER_QUEUE_URL": "ConnectorReceiverQueueUrl",
    "WEBHOOK_QUEUE_URL": "WebhookQueueUrl",
}
"""The functions' variables, and the stack's outputs that hold them."""
QUIET = {
    "API_KEY_HEADERS": "",
    "KEY_RATE": "1000000",
    "KEY_BURST": "1000000",
    "LOG_LEVEL": "CRITICAL",
    "POWERTOOLS_METRICS_NAMESPACE": "",
}
"""No request comes here, and what a function would tell CloudWatch is not for a person's terminal."""


def access_key_file(port: int) -> Path:
    """Return where `make run` keeps the access key of its AWS while it runs, by the gateway's port."""
    return Path.home() / ".cache" / "crm-bridge" / f"local-{port}.key"


def _access_key(port: int) -> str:
    file = access_key_file(port)
    try:
        return file.read_text()
    except OSError:
        raise UnavailableError(
            f"No local stack is running on port {port}: {file} cannot be read, where `make run` keeps its access key. "
            "Start it as the same user, or give its --port."
        ) from None


class Bridge:
    """Opened at first use, so that a command whose input is wrong says so without asking AWS anything.

    Whatever it is asked for raises ClientError, BotoCoreError or StorageError if AWS does not give it, NotFoundError if
    there is no such stack.
    """

    def __init__(
        self, stack: str, *, profile: str | None, region: str | None, local_port: int | None, output: Output
    ) -> None:
        """`local_port` is the gateway's of a `python -m local` that is running; then no cloud is asked."""
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
        """What the functions are made of, on this stack's tables."""
        os.environ |= {**{name: self._outputs[output] for name, output in OUTPUTS.items()}, **QUIET}
        os.environ["LOCAL_HOSTS"] = ",".join(sorted(self.local_hosts))
        runtime.cache_clear()
        return runtime()

    @cached_property
    def secrets(self) -> "SecretsManagerClient":
        client: SecretsManagerClient = self._client("secretsmanager")
        return client

    @cached_property
    def sqs(self) -> "SQSClient":
        client: SQSClient = self._client("sqs")
        return client

    def parts(self, tenant: str) -> dict[str, str]:
        """The texts of those of a tenant's secrets that there are, by part (see `crm_bridge.tenant_parts.split`)."""
        secrets = self.secrets
        found = {}
        for part in PARTS:
            with suppress(secrets.exceptions.ResourceNotFoundException, secrets.exceptions.InvalidRequestException):
                found[part] = secrets.get_secret_value(SecretId=self.secret_name(part, tenant))["SecretString"]
        return found

    def secret_name(self, part: str, tenant: str) -> str:
        return f"{self._outputs['SecretPrefix']}{part}/{tenant}"

    @property
    def links_table(self) -> str:
        return self._outputs[OUTPUTS["LINKS_TABLE"]]

    def tables(self) -> list[str]:
        return [self._outputs[output] for name, output in OUTPUTS.items() if name.endswith("_TABLE")]

    @cached_property
    def dynamodb(self) -> "DynamoDBClient":
        client: DynamoDBClient = self._client("dynamodb")
        return client

    def queue_urls(self) -> dict[str, str]:
        """By flow."""
        suffix = "_QUEUE_URL"
        return {
            name.removesuffix(suffix).lower(): self._outputs[output]
            for name, output in OUTPUTS.items()
            if name.endswith(suffix)
        }

    def tenant(self, name: str) -> Tenant:
        """All of its settings as they are now. Raises NotConfiguredError."""
        parts = self.parts(name)
        if not parts:
            raise NotConfiguredError(f"There is no tenant {name}. `crm-bridge tenant list` shows those that there are.")
        _ = self.runtime  # flows are made of it, and a command makes them once it has the settings
        try:
            return parse_tenant(joined(parts.values()), self.local_hosts)
        except ValueError as error:
            wrong = (
                [".".join(map(str, one["loc"])) for one in error.errors()] if isinstance(error, ValidationError) else []
            )
            raise NotConfiguredError(
                f"The settings of {name} are not valid: check {', '.join(wrong) or 'that its secrets are JSON'}."
            ) from None

    def operation(self, operation_id: str) -> Operation:
        """Raises NotFoundError."""
        found = self.runtime.operations.get(operation_id)
        if found is None:
            raise NotFoundError(f"There is no operation {operation_id} in the stack {self.stack}.")
        return found

    @cached_property
    def user(self) -> str:
        """Who is doing this, for the history of what is done: the last part of the name that AWS knows."""
        return "crm-bridge" if self._local_port is not None else f"{self.arn.rpartition('/')[2]} (crm-bridge)"

    @cached_property
    def arn(self) -> str:
        """Who is doing this, as AWS knows them; `local` with the bridge on this machine.

        It needs no permission: https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
        """
        return "local" if self._local_port is not None else str(self._client("sts").get_caller_identity()["Arn"])

    @cached_property
    def _client(self) -> Callable[[str], Any]:
        """Makes clients in boto3's default session, which is prepared first; the bridge's own code uses it as well."""
        profile, region = self._profile, self._region
        if self._local_port is not None:
            os.environ |= {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._local_port + 1}",
                "AWS_ACCESS_KEY_ID": _access_key(self._local_port),
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
                f"The stack {self.stack} has no output {', '.join(missing)}: it is no bridge, or of another version. "
                "Deploy the version that this command line is of."
            )
        return found

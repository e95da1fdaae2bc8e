"""The bundle on one machine, as one thing that starts and stops: see `Stack`."""

import json
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

import boto3

from crm_bridge.runtime import runtime
from crm_bridge.storage.api_keys import new_api_key
from crm_bridge.tenant_parts import PARTS, split
from crm_bridge.vendors import REGISTRY, scopes
from local.aws import EmbeddedAws
from local.gateway import Gateway, QueueDelivery, invoke, run_on_schedule
from local.server import ALL_ADDRESSES, HOST, HOST_OF_CONTAINERS
from local.template import bundle_template
from local.vendors import simulator_of
from local.vendors.simulator import Simulator

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

REGION = "eu-west-1"
VISIBILITY = 60
"""Seconds after which a queue gives a message out again that was not deleted (template.yaml)."""
LOCAL_STACK = "crm-bridge-local"
"""The name under which tables and queues are deployed here."""
ONLY_HERE = (
    "LOCAL_HOSTS",
    *("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
)
LOCAL_HOSTS = frozenset({HOST, "localhost", HOST_OF_CONTAINERS})
"""Where simulated vendors, or one's own, may be called although they are not public, and without TLS."""
CONTAINERS = "containers/"
"""Behind the prefix in the names of the secrets for functions in containers, where this machine has another name."""
DEMO_TENANT = "demo"
DEMO_KEY = "crmb_demo-key-for-this-machine-only-and-no-other"
"""The events in `events/` carry it, so it is the same on every machine, and valid on none but this."""
UPYA_TENANT = "demo-upya"
UPYA_KEY = "crmb_demo-upya-key-for-this-machine-and-no-other"
"""The API key of a second tenant, whose CRM is an Upya that sends its records as they are."""
WEBHOOK_TENANT = "demo-webhook"
WEBHOOK_KEY = "crmb_demo-webhooks-key-for-this-machine-no-other"
"""The API key of a third tenant, which receives webhooks."""
SOURCE_SECRET = "hubspot-demo-secret-for-this-machine-only"  # noqa: S105
SOURCES: dict[str, object] = {
    "hubspot": {
        "preset": "hubspot-workflow",
        "proof": "header",
        "secrets": [SOURCE_SECRET],
        "events": [
            {
                "when": "type == 'company'",
                "flow": "create_site",
                "version": "1",
                "expression": "{customer_id: hs_object_id, name: name, address: address, "
                "latitude: to_number(latitude), longitude: to_number(longitude)}",
            }
        ],
    }
}
"""The demo tenant's, which the events in `events/sources/` are sent to."""
SCOPES = scopes() | {"operations:read", "operations:resolve"}
PORTS = 2 + len(REGISTRY)
"""Of a stack, from `port` on: the gateway, the embedded AWS, and a simulator for each vendor."""
UNLIMITED = {"KEY_RATE": "1000000", "KEY_BURST": "1000000"}
"""All functions share one process here, and so one bucket for each key, and tests send thousands of requests."""


class Stack:
    """Embedded AWS, simulated vendors, a tenant, and the gateway, from `with` to its end.

    `port` 0 takes free ports; else the gateway gets `port`, the embedded AWS the next, and the simulators those after.
    `tenant` is a name and its secret's document instead of the demo tenant. `aws_endpoint` is used instead of the
    embedded AWS; it must speak CloudFormation, DynamoDB, SQS and Secrets Manager. Handlers run in this process with
    the environment of template.yaml, so there is one stack in a process at a time. With `containers`, functions in
    containers reach AWS and the vendors too, and so does everybody in this network. Raises PortInUseError.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        tenant: tuple[str, str] | None = None,
        vendors: bool = True,
        aws_endpoint: str | None = None,
        background: bool = True,
        aws_over_http: bool = True,
        containers: bool = False,
    ) -> None:
        """Without `background`, queues and schedules do nothing until `deliver_due` is called.

        Without `aws_over_http`, what this process asks of the embedded AWS needs no connection; what others ask does.
        """
        self.template = bundle_template()
        listen = ALL_ADDRESSES if containers else HOST
        self.aws = None if aws_endpoint else EmbeddedAws(port and port + 1, listen)
        self._aws_endpoint = aws_endpoint
        self._ahead = 0.0
        self._simulators = {
            entry: simulator_of(entry)(entry.module, port=port and port + number, clock=self._clock, listen=listen)
            for number, entry in enumerate(REGISTRY, start=2)
        }
        self.vendors: tuple[Simulator, ...] = tuple(self._simulators.values()) if vendors else ()
        self._tenant = tenant
        self._background = background
        self._aws_over_http = aws_over_http
        self._containers = containers
        self.gateway = Gateway(self.template.routes, self.template.functions, port)
        self.tenant_name = tenant[0] if tenant else DEMO_TENANT
        self.api_key = DEMO_KEY
        self.open_hosts = LOCAL_HOSTS
        self._queues: list[QueueDelivery] = []
        self._exits = ExitStack()

    def simulator[SimulatorT: Simulator](self, kind: type[SimulatorT]) -> SimulatorT:
        """Return the simulator of one vendor, such as `stack.simulator(SomeSimulator)`."""
        return next(one for one in self._simulators.values() if isinstance(one, kind))

    @property
    def url(self) -> str:
        return self.gateway.url

    @property
    def aws_url(self) -> str:
        return self._aws_endpoint or (self.aws.url if self.aws else "")

    def __enter__(self) -> Self:
        with ExitStack() as exits:
            # Everything that listens first, so that a port in use is an error at once.
            self.gateway.start()
            exits.callback(self.gateway.stop)
            if self.aws:
                self.aws.start()
                exits.callback(self.aws.stop)
                if self._aws_over_http:
                    boto3.setup_default_session()  # the one that there is may have other credentials
                else:
                    exits.enter_context(self.aws.without_connections())
            for vendor in self.vendors:
                vendor.start()
                exits.callback(vendor.stop)
            self._deploy(exits)
            self._add_tenant()
            self.gateway.open()
            exits.callback(self.gateway.close)
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.close()

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of a function, wherever it runs."""
        names = {name for function in self.template.functions.values() for name in function.environment}
        return {name: value for name, value in os.environ.items() if name in names or name in ONLY_HERE}

    @property
    def container_environment(self) -> dict[str, str]:
        """The same for a function in a container, which has secrets of its own (`containers`)."""
        there = {name: _in_container(value) for name, value in self.environment.items()}
        return {
            **there,
            "SECRET_PREFIX": there["SECRET_PREFIX"] + CONTAINERS,
            "LOCAL_HOSTS": HOST_OF_CONTAINERS,
        }

    def invoke(self, function: str, event: Mapping[str, object]) -> object:
        """Run a function of the template by its name there."""
        return invoke(self.template.functions[function], event)

    def deliver_due(self, *, after: float = 0) -> None:
        """Run the dispatcher and let the queues' functions take what it found, now instead of in the background.

        `after` are seconds that pass before.
        """
        if after:
            self.move_clock(after)
        self.invoke("DispatcherFunction", {})
        self.deliver()

    def deliver(self) -> None:
        """Let the queues' functions take what is on their queues."""
        for queue in self._queues:
            while queue.deliver(wait=0):
                pass

    def move_clock(self, seconds: float) -> None:
        """Let time pass for the bridge and the vendors, all at once."""
        self._ahead += seconds
        self._open_runtime()
        if self.aws and seconds >= VISIBILITY:
            self.aws.show_messages_again()

    def add_key(self, tenant: str, scopes: frozenset[str], label: str, *, expires_at: int | None = None) -> str:
        key = new_api_key()
        runtime().keys.add(key, tenant, scopes, label, expires_at=expires_at)
        return key

    def put_secret(self, tenant: str, document: str) -> None:
        """All of its parts, also those without settings; what is no JSON becomes each of them."""
        prefix = os.environ["SECRET_PREFIX"]
        put_parts(self._secrets, prefix, tenant, document)
        if self._containers:
            put_parts(self._secrets, prefix + CONTAINERS, tenant, _in_container(document))

    def demo_tenant(self) -> str:
        """Return the document of a tenant whose vendors are the simulators."""
        return json.dumps({**self._blocks(is_for_callers=True), "sources": SOURCES})

    def _blocks(self, *, is_for_callers: bool) -> dict[str, object]:
        of = (one for entry, one in self._simulators.items() if entry.is_for_callers is is_for_callers)
        return {block: settings for simulator in of for block, settings in simulator.blocks().items()}

    def upya_tenant(self) -> str:
        """The same with mappings for Upya's records. Its client records here have a position, in members of ours."""
        position = {"version": "1", "expression": "{latitude: gps.latitude, longitude: gps.longitude}"}
        mappings = {"create_site": {"built_in": "upya", **position}, "create_job": {"built_in": "upya"}}
        return json.dumps({**self._blocks(is_for_callers=True), "mappings": mappings})

    def webhook_tenant(self) -> str:
        """The demo tenant's with an address for webhooks, the simulated receiver's."""
        return json.dumps(self._blocks(is_for_callers=True) | self._blocks(is_for_callers=False))

    def _clock(self) -> float:
        return time.time() + self._ahead

    def _deploy(self, exits: ExitStack) -> None:
        """Create tables and queues as template.yaml says, and give this process the functions' environment."""
        exits.callback(_restore, dict(os.environ))
        os.environ["AWS_ENDPOINT_URL"] = self.aws_url
        os.environ.setdefault("AWS_DEFAULT_REGION", REGION)
        if self.aws:  # never the credentials of a real account
            os.environ |= self.aws.credentials
        variables: dict[str, object] = {}
        for function in self.template.functions.values():
            for name, value in function.environment.items():
                if variables.setdefault(name, value) != value:
                    raise ValueError(f"functions disagree on the environment variable {name}")
        sources = {f"queue{number}": source.queue_arn for number, source in enumerate(self.template.queue_sources)}
        names = {
            name.title().replace("_", ""): name for name in variables
        }  # as the outputs of template.yaml are called
        outputs = deploy_stores(
            self.template.stores({**sources, **{output: variables[name] for output, name in names.items()}})
        )
        os.environ |= {name: outputs[output] for output, name in names.items()} | UNLIMITED
        os.environ["LOCAL_HOSTS"] = ",".join(sorted(self.open_hosts))
        runtime.cache_clear()
        exits.callback(runtime.cache_clear)
        self._open_runtime()
        functions = self.template.functions
        self._secrets = boto3.client("secretsmanager")
        sqs = boto3.client("sqs")
        self._queues = []
        for output, source in zip(sources, self.template.queue_sources, strict=True):
            function = functions[source.function]
            workers = runtime().queues.workers[function.package]
            self._queues.append(QueueDelivery(sqs, outputs[output], source.batch_size, function, workers))
        if self._background:
            for queue in self._queues:
                exits.callback(queue.keep_delivering())
            for schedule in self.template.schedules:
                exits.callback(run_on_schedule(schedule.seconds, functions[schedule.function]))

    def _open_runtime(self) -> None:
        """Give the functions the time as it is here, and let them call this machine, as LOCAL_HOSTS does elsewhere."""
        runtime().clock.ahead = self._ahead
        runtime().transport.on_this_machine = self.open_hosts

    @property
    def tenant_document(self) -> str:
        return self._tenant[1] if self._tenant else self.demo_tenant()

    def _add_tenant(self) -> None:
        self.put_secret(self.tenant_name, self.tenant_document)
        if self._tenant or self._aws_endpoint:
            self.api_key = self.add_key(self.tenant_name, SCOPES, "made by the local stack")
        else:
            runtime().keys.add(DEMO_KEY, DEMO_TENANT, SCOPES, "demo")
            self.put_secret(UPYA_TENANT, self.upya_tenant())
            runtime().keys.add(UPYA_KEY, UPYA_TENANT, SCOPES, "demo, Upya")
            self.put_secret(WEBHOOK_TENANT, self.webhook_tenant())
            runtime().keys.add(WEBHOOK_KEY, WEBHOOK_TENANT, SCOPES, "demo, webhook")


def put_parts(secrets: "SecretsManagerClient", prefix: str, tenant: str, document: str) -> None:
    try:
        parts = split(document)
    except ValueError:
        parts = dict.fromkeys(PARTS, document)
    for part, text in parts.items():
        name = f"{prefix}{part}/{tenant}"
        try:
            secrets.create_secret(Name=name, SecretString=text)
        except secrets.exceptions.ResourceExistsException:
            secrets.put_secret_value(SecretId=name, SecretString=text)


def deploy_stores(template: Mapping[str, object]) -> dict[str, str]:
    """Create the tables and queues of `Template.stores`; gives its outputs."""
    cloudformation = boto3.client("cloudformation")
    name = LOCAL_STACK
    with suppress(cloudformation.exceptions.AlreadyExistsException):  # an endpoint of the user's, used before
        # By a tab moto sees at once that it is no YAML; else it reads it as such, which takes as long as all the rest.
        cloudformation.create_stack(StackName=name, TemplateBody=json.dumps(template, indent="\t"))
    (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    if stack["StackStatus"] != "CREATE_COMPLETE":
        cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
        (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def _in_container(text: str) -> str:
    return text.replace(f"http://{HOST}:", f"http://{HOST_OF_CONTAINERS}:")


def _restore(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ |= environment

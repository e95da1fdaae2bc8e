"""Unit tests have no network at all: AWS is moto inside the process, and a vendor is an object."""

from collections.abc import Iterator
from dataclasses import dataclass

import boto3
import pytest
from moto import mock_aws
from pytest_socket import disable_socket, enable_socket

from crm_bridge import dynamodb
from crm_bridge.links import Links
from crm_bridge.operations import Operations
from crm_bridge.tenants import ApiKeys, Tenants
from local.stack import deploy_stores
from local.template import Template, bundle_template


@pytest.fixture(autouse=True)
def no_sockets() -> Iterator[None]:
    disable_socket()
    yield
    enable_socket()


class Clock:
    """Epoch seconds that stand still until a test moves them on."""

    def __init__(self) -> None:
        self.now = 1_795_000_000.0

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@dataclass(frozen=True)
class Tables:
    operations: Operations
    links: Links
    keys: ApiKeys
    tenants: Tenants

    def put_secret(self, name: str, document: str) -> None:
        secrets = boto3.client("secretsmanager")
        try:
            secrets.create_secret(Name=f"crm-bridge/dev/{name}", SecretString=document)
        except secrets.exceptions.ResourceExistsException:
            secrets.put_secret_value(SecretId=f"crm-bridge/dev/{name}", SecretString=document)


@pytest.fixture(scope="session")
def template() -> Template:
    return bundle_template()


@pytest.fixture
def tables(clock: Clock, template: Template) -> Iterator[Tables]:
    """The tables of template.yaml, empty, and a tenant `acme`."""
    with mock_aws():
        outputs = deploy_stores(
            template.stores({name: {"Ref": f"{name}Table"} for name in ("Operations", "Links", "ApiKeys")})
        )
        client = dynamodb.client()
        tables = Tables(
            Operations(client, outputs["Operations"]),
            Links(client, outputs["Links"]),
            ApiKeys(client, outputs["ApiKeys"], ("x-api-key", "api-key"), clock),
            Tenants(boto3.client("secretsmanager"), "crm-bridge/dev/"),
        )
        tables.put_secret("acme", '{"illu": {"org_id": 88, "api_key": "illu-key-1"}}')
        yield tables

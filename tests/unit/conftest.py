"""Unit tests have no network at all: AWS is moto inside the process, and a vendor is an object."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto import mock_aws
from moto.backends import get_backend
from moto.core.config import DefaultConfig
from moto.core.models import DEFAULT_ACCOUNT_ID
from pytest_socket import disable_socket, enable_socket

from crm_bridge import aws
from crm_bridge.storage.api_keys import ApiKeys
from crm_bridge.storage.links import Links
from crm_bridge.storage.operations import Operations
from crm_bridge.tenants import Tenants
from crm_bridge.token_buckets import TokenBuckets
from crm_bridge.vendors import PART_OF
from local.stack import REGION, deploy_stores, put_parts
from local.template import Template, bundle_template
from tests.clock import Clock as Clock  # for the tests of this folder
from tests.memory import MemoryDynamoDb, MemorySecrets

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

TABLES = ("Operations", "Links", "ApiKeys", "Locks", "People", "Requests")
BURST = 20
"""Requests that one API key may send at once."""
KEPT: DefaultConfig = {"core": {"reset_boto3_session": False}}
"""boto3's descriptions of AWS's services, whose reading takes it longer than a test."""


@pytest.fixture(autouse=True)
def no_sockets() -> Iterator[None]:
    disable_socket()
    yield
    enable_socket()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@dataclass(frozen=True)
class Tables:
    operations: Operations
    links: Links
    keys: ApiKeys
    tenants: Tenants
    secrets: "SecretsManagerClient"

    def put_secret(self, name: str, document: str) -> None:
        put_parts(self.secrets, "crm-bridge/dev/", name, document)


@pytest.fixture(scope="session")
def template() -> Template:
    return bundle_template()


@pytest.fixture(scope="session")
def deployed(template: Template) -> Mapping[str, str]:
    """The names of template.yaml's tables. They are made once, because that takes longer than most tests do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        aws = mock_aws(config=KEPT)
        aws.start(reset=False)
        names = deploy_stores(template.stores({name: {"Ref": f"{name}Table"} for name in TABLES}))
        aws.stop(remove_data=False)
        return names


@pytest.fixture
def stores(deployed: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """The same, all empty, in an account with no secrets."""
    aws = mock_aws(config=KEPT)
    aws.start(reset=False)
    yield deployed
    for table in get_backend("dynamodb")[DEFAULT_ACCOUNT_ID][REGION].tables.values():
        table.items.clear()
    get_backend("secretsmanager")[DEFAULT_ACCOUNT_ID][REGION].secrets.clear()
    aws.stop(remove_data=False)


@pytest.fixture
def emulator() -> str:
    """The emulator of AWS: `memory`, or `moto`, which knows all of it and takes its time."""
    return "memory"


@pytest.fixture
def tables(
    request: pytest.FixtureRequest, emulator: str, clock: Clock, template: Template, monkeypatch: pytest.MonkeyPatch
) -> Tables:
    """Empty tables, and a tenant `acme`; the flow `orders` of tests needs its part `illu`."""
    monkeypatch.setitem(PART_OF, "orders", "illu")
    client: Any
    secrets: Any
    if emulator == "memory":
        names = {name: name for name in TABLES}
        resources: Any = template.stores({})["Resources"]
        client, secrets = (
            MemoryDynamoDb({name: resources[f"{name}Table"]["Properties"] for name in TABLES}),
            MemorySecrets(),
        )
    else:
        names = request.getfixturevalue("stores")
        client, secrets = aws.client("dynamodb"), boto3.client("secretsmanager")
    tables = Tables(
        Operations(client, names["Operations"]),
        Links(client, names["Links"]),
        ApiKeys(client, names["ApiKeys"], ("x-api-key", "api-key"), TokenBuckets(10, BURST, clock), clock),
        Tenants(secrets, "crm-bridge/dev/"),
        secrets,
    )
    tables.put_secret("acme", '{"illu": {"org_id": 88, "api_key": "illu-key-1"}}')
    return tables

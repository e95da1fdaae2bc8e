"""The construction of Powertools' documentation: its resolver with validation, its idempotency utility, its parameters.

Sources: https://docs.aws.amazon.com/powertools/python/latest/core/event_handler/api_gateway/#data-validation and
https://docs.aws.amazon.com/powertools/python/latest/utilities/idempotency/
"""

import hashlib
import os

import boto3
import requests
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.exceptions import UnauthorizedError
from aws_lambda_powertools.utilities import parameters
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)
from aws_lambda_powertools.utilities.idempotency.serialization.pydantic import PydanticSerializer
from pydantic import BaseModel, Field

app = APIGatewayHttpResolver(enable_validation=True)
logger = Logger(service="peer")
metrics = Metrics(namespace="Peer", service="peer")
dynamodb = boto3.client("dynamodb")
session = requests.Session()
store = DynamoDBPersistenceLayer(table_name=os.environ["PEER_TABLE"])
config = IdempotencyConfig(event_key_jmespath="customer_id")
known_keys = {}


class Customer(BaseModel):
    customer_id: str
    name: str
    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)
    address: str


class Site(BaseModel):
    site_id: int


def authenticate(app, next_middleware):
    key = app.current_event.headers.get("authorization", "").removeprefix("Bearer ")
    if key not in known_keys:
        hashed = hashlib.sha256(key.encode()).hexdigest()
        known_keys[key] = "Item" in dynamodb.get_item(
            TableName=os.environ["API_KEYS_TABLE"], Key={"key_hash": {"S": hashed}}
        )
    if not known_keys[key]:
        raise UnauthorizedError("unknown key")
    return next_middleware(app)


@idempotent_function(
    data_keyword_argument="customer",
    config=config,
    persistence_store=store,
    output_serializer=PydanticSerializer(model=Site),
)
def carry(customer: Customer) -> Site:
    illu = parameters.get_secret(os.environ["PEER_SECRET"], transform="json", max_age=300)["illu"]
    response = session.post(
        f"{illu['base_url']}/orgs/{illu['org_id']}/sites",
        json=customer.model_dump(exclude={"customer_id"}),
        headers={"Authorization": f"Bearer {illu['api_key']}"},
        timeout=10,
    )
    response.raise_for_status()
    site = Site.model_validate(response.json())
    dynamodb.put_item(
        TableName=os.environ["PEER_MAPPINGS"],
        Item={"id": {"S": customer.customer_id}, "site_id": {"N": str(site.site_id)}},
    )
    metrics.add_metric(name="SitesCreated", unit="Count", value=1)
    return site


@app.post("/sites", middlewares=[authenticate])
def create_site(customer: Customer) -> Response[Site]:
    site = carry(customer=customer)
    logger.info("answered")
    return Response(status_code=201, content_type="application/json", body=site)


@logger.inject_lambda_context
@metrics.log_metrics
def lambda_handler(event, context):
    config.register_lambda_context(context)
    return app.resolve(event, context)

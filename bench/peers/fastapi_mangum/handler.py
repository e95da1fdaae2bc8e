"""A FastAPI application through Mangum, as both document it.

Sources: https://fastapi.tiangolo.com/tutorial/ and https://mangum.fastapiexpert.com/
"""

import hashlib
import json
import os
from functools import cache
from typing import Annotated

import boto3
import requests
from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from mangum import Mangum
from pydantic import BaseModel, Field

app = FastAPI()
dynamodb = boto3.client("dynamodb")
secrets = boto3.client("secretsmanager")
session = requests.Session()


class Customer(BaseModel):
    customer_id: str
    name: str
    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)
    address: str


class Site(BaseModel):
    site_id: int | None


@cache
def illu():
    return json.loads(secrets.get_secret_value(SecretId=os.environ["PEER_SECRET"])["SecretString"])["illu"]


@cache
def is_known(key):
    hashed = hashlib.sha256(key.encode()).hexdigest()
    return "Item" in dynamodb.get_item(TableName=os.environ["API_KEYS_TABLE"], Key={"key_hash": {"S": hashed}})


def authenticate(credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> None:
    if not is_known(credentials.credentials):
        raise HTTPException(401, "unknown key")


@app.post("/sites", status_code=201, dependencies=[Depends(authenticate)])
def create_site(customer: Customer, response: Response) -> Site:
    key = {"id": {"S": customer.customer_id}}
    try:
        dynamodb.put_item(
            TableName=os.environ["PEER_TABLE"],
            Item=key,
            ConditionExpression="attribute_not_exists(id)",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    except dynamodb.exceptions.ConditionalCheckFailedException as error:
        response.status_code = 200
        return Site(site_id=error.response["Item"].get("site_id", {}).get("S"))
    answer = session.post(
        f"{illu()['base_url']}/orgs/{illu()['org_id']}/sites",
        json=customer.model_dump(exclude={"customer_id"}),
        headers={"Authorization": f"Bearer {illu()['api_key']}"},
        timeout=10,
    )
    answer.raise_for_status()
    site = Site(site_id=answer.json()["site_id"])
    dynamodb.update_item(
        TableName=os.environ["PEER_TABLE"],
        Key=key,
        UpdateExpression="SET site_id = :site_id",
        ExpressionAttributeValues={":site_id": {"S": str(site.site_id)}},
    )
    return site


lambda_handler = Mangum(app, lifespan="off")

"""The plain construction: boto3, requests, a conditional write before the vendor's call; the response is stored.

Logs and metrics are Powertools'. Sources:
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.ConditionExpressions.html
https://docs.aws.amazon.com/powertools/python/latest/core/logger/
https://docs.aws.amazon.com/powertools/python/latest/core/metrics/
"""

import hashlib
import json
import os

import boto3
import requests
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

logger = Logger(service="peer")
metrics = Metrics(namespace="Peer", service="peer")
dynamodb = boto3.client("dynamodb")
secrets = boto3.client("secretsmanager")
session = requests.Session()
illu = None
known_keys = {}


def is_known(key):
    if key not in known_keys:
        hashed = hashlib.sha256(key.encode()).hexdigest()
        known_keys[key] = "Item" in dynamodb.get_item(
            TableName=os.environ["API_KEYS_TABLE"], Key={"key_hash": {"S": hashed}}
        )
    return known_keys[key]


def answer(status, body):
    logger.info("returned", extra={"status": status})
    metrics.add_metric(name=f"Returned{status}", unit=MetricUnit.Count, value=1)
    return {"statusCode": status, "headers": {"Content-Type": "application/json"}, "body": json.dumps(body)}


@logger.inject_lambda_context
@metrics.log_metrics
def lambda_handler(event, context):
    global illu
    if not is_known(event["headers"].get("authorization", "").removeprefix("Bearer ")):
        return answer(401, {"message": "unknown key"})
    if illu is None:
        secret = secrets.get_secret_value(SecretId=os.environ["PEER_SECRET"])
        illu = json.loads(secret["SecretString"])["illu"]
    customer = json.loads(event["body"])
    key = {"id": {"S": customer.pop("customer_id")}}
    try:
        dynamodb.put_item(
            TableName=os.environ["PEER_TABLE"],
            Item=key,
            ConditionExpression="attribute_not_exists(id)",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    except dynamodb.exceptions.ConditionalCheckFailedException as error:
        return answer(200, {"site_id": error.response["Item"].get("site_id", {}).get("S")})
    response = session.post(
        f"{illu['base_url']}/orgs/{illu['org_id']}/sites",
        json=customer,
        headers={"Authorization": f"Bearer {illu['api_key']}"},
        timeout=10,
    )
    response.raise_for_status()
    site_id = response.json()["site_id"]
    dynamodb.update_item(
        TableName=os.environ["PEER_TABLE"],
        Key=key,
        UpdateExpression="SET site_id = :site_id",
        ExpressionAttributeValues={":site_id": {"S": str(site_id)}},
    )
    return answer(201, {"site_id": site_id})

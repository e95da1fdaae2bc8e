"""The floor: what any function costs that uses DynamoDB, HTTP and models. It does nothing."""

import boto3
import pydantic  # noqa: F401
import requests  # noqa: F401

dynamodb = boto3.client("dynamodb")


def lambda_handler(event, context):
    return {"statusCode": 200, "body": ""}

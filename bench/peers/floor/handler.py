"""The floor: the imports and the client that every function of the bridge needs. It does nothing with them."""

# isort: off
# Powertools before pydantic: its batch utility imports models for pydantic as soon as pydantic itself is imported.
from aws_lambda_powertools import Logger  # noqa: F401
from aws_lambda_powertools.metrics import MetricUnit, single_metric  # noqa: F401
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response  # noqa: F401
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2  # noqa: F401
from aws_lambda_powertools.utilities.parameters import SecretsProvider  # noqa: F401
import boto3
import pydantic  # noqa: F401
import requests  # noqa: F401

dynamodb = boto3.client("dynamodb")


def lambda_handler(event, context):
    return {"statusCode": 200, "body": ""}

"""The figures of an event in docs/costs.toml, counted where that is possible."""

import os

import boto3

from docs import costs
from tests.integration.conftest import Crm

OVERHEAD = 100
"""Bytes of each item that DynamoDB bills besides names and values.

Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
"""


def test_the_links_of_a_site_take_the_bytes_that_the_costs_are_reckoned_with(crm: Crm) -> None:
    assert crm.create_site().status_code == 201
    items = boto3.client("dynamodb").scan(TableName=os.environ["LINKS_TABLE"])["Items"]
    assert len(items) == 2
    taken = sum(
        OVERHEAD + sum(len(name) + len(str(next(iter(value.values())))) for name, value in item.items())
        for item in items
    )
    assert 0.8 * taken < costs.FACTS["event"]["new site"]["link_bytes"] < 1.2 * taken, taken

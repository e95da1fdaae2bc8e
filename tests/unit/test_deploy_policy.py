"""docs/deploy-policy.yaml: whoever deploys may do what CloudFormation needs for every resource, and little else.

CloudFormation publishes the permissions that it needs for each type of resource; cfn-lint carries them along.
"""

import json
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import cfnlint.api
import pytest
from cfnlint.data.schemas import resources as schemas
from samtranslator.yaml_helper import yaml_parse

from local.template import TEMPLATE, Template
from tests.sam_template import EXAMPLES, of_samconfig

DOCUMENT = TEMPLATE.parent / "docs/deploy-policy.yaml"
POLICIES: dict[str, Any] = {
    name: resource["Properties"]["PolicyDocument"]
    for name, resource in yaml_parse(DOCUMENT.read_text())["Resources"].items()
}
STATEMENTS: list[dict[str, Any]] = [one for policy in POLICIES.values() for one in policy["Statement"]]
ALLOWED = {
    action
    for statement in STATEMENTS
    for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
}
NOT_USED = {
    "apigateway": "TagResource UntagResource",  # IAM does not know them; they are PUT and DELETE on /tags
    "cloudwatch": "ListDashboards PutMetricData",
    "codedeploy": "List* *OnPremises*",
    "dynamodb": "*Replica *Item *KinesisStreaming* *Import* Query Scan *ResourcePolicy *Insights ListTables",
    "ec2": "*",
    "elasticfilesystem": "*",
    "events": "ListRules",
    "firehose": "*",
    "iam": "*ServiceLinkedRole *GroupPolicy *UserPolicy *PermissionsBoundary",
    "kinesis": "*",
    "kms": "*",  # only with KmsKeyArn, whose own policy must allow it
    "lambda": "*CodeSigning* *Provisioned* Put*Config *ScalingConfig *Recursion* *RuntimeManagement* Associate* Pass*",
    "logs": "*DataProtection* *IndexPolic* *BearerToken* *Protection Delete*Policy *LogStream* PutLogEvents",
    "route53": "ListHostedZones",
    "s3": "*",  # SAM's bucket has a statement of its own
    "s3files": "*",
    "sns": "*DataProtection* ListTopics ListSubscriptions",
    "sqs": "ListQueues",
}
"""Actions by service that CloudFormation asks for where a template uses what ours does not, or lists all resources."""


@cache
def needed() -> dict[str, set[str]]:
    """Return what CloudFormation needs to make, change and delete each type of resource that the template can make."""
    types = {
        resource["Type"]
        for parameters in ({}, EXAMPLES, of_samconfig("prod"))
        for resource in Template(parameters=parameters).translated["Resources"].values()
    }
    found: dict[str, set[str]] = {}
    for path in Path(str(schemas.__path__[0])).glob("*.json"):
        schema: Mapping[str, Any] = json.loads(path.read_text())
        if schema.get("typeName") in types:
            handlers = schema.get("handlers", {}).items()
            found.setdefault(schema["typeName"], set()).update(
                permission for name, handler in handlers if name != "list" for permission in handler["permissions"]
            )
    assert set(found) == types
    return found


def is_used(permission: str) -> bool:
    service, _, action = permission.partition(":")
    return not any(fnmatchcase(action, pattern) for pattern in NOT_USED.get(service, "").split())


def test_every_resource_of_the_template_can_be_made_changed_and_deleted() -> None:
    missing = {kind: {one for one in of if is_used(one)} - ALLOWED for kind, of in needed().items()}
    assert not {kind: of for kind, of in missing.items() if of}


BY_SAM = ("cloudformation:*", "s3:*", "logs:*LogDelivery", "logs:ListLogDeliveries", "lambda:List*")
"""Actions for the SAM CLI itself, API Gateway for its access log, and Lambda's lists."""


def test_every_action_is_one_that_cloudformation_or_sam_asks_for() -> None:
    unused = ALLOWED - set().union(*needed().values())
    assert not {action for action in unused if not any(fnmatchcase(action, one) for one in BY_SAM)}


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_not_longer_than_aws_takes(name: str) -> None:
    """Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-entity-length"""
    longest = {"Partition": "aws-us-gov", "Region": "ap-southeast-7", "AccountId": 12 * "0", "StackName": 32 * "s"}
    text = re.sub(r'\{"Fn::Sub": "([^"]*)"\}', r'"\1"', json.dumps(POLICIES[name]))
    for pseudo, value in longest.items():
        text = text.replace(f"${{AWS::{pseudo}}}", value).replace(f"${{{pseudo}}}", value)
    assert len(re.sub(r"\s", "", text)) <= 6144


def test_data_of_tables_queues_secrets_and_logs_cannot_be_read() -> None:
    reading = ("dynamodb:GetItem", "dynamodb:Query", "dynamodb:Scan", "sqs:ReceiveMessage", "logs:GetLogEvents")
    assert not ALLOWED & {*reading, "logs:FilterLogEvents", "logs:StartQuery", "lambda:InvokeFunction"}
    assert not [action for action in ALLOWED if action.startswith("secretsmanager:") or "*" in action]


def test_only_the_stack_s_own_names_are_reached_where_a_resource_has_one() -> None:
    for statement in STATEMENTS:
        resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        for resource in resources:
            arn = resource["Fn::Sub"] if isinstance(resource, dict) else resource
            own = "${StackName}" in arn or "aws-sam-cli-managed-default" in arn or ":aws:transform/" in arn
            assert own or statement["Sid"] in ("Api", "WithoutResource", "Record") or "CodeDeployDefault." in arn, arn


def test_the_policy_is_valid_cloudformation() -> None:
    assert cfnlint.api.lint(DOCUMENT.read_text(), regions=["eu-west-1"]) == []

"""The permissions of each function's role: the policies in the translated template and AWS's, less what is denied."""

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from local.template import bundle_template

SECRETS = "the tenants' secrets for {}"
EVERYTHING = "*"
OF_AWS = {
    "AWSLambdaBasicExecutionRole": ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"),
    "AWSLambdaSQSQueueExecutionRole": (
        *("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"),
        *("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"),
    ),
}
"""The actions of the policies that SAM adds to its roles, each on every resource.

Source: https://docs.aws.amazon.com/aws-managed-policy/latest/reference/AWSLambdaSQSQueueExecutionRole.html
"""

type Permission = tuple[str, str]
"""An action, and what it is on: a logical id, an index of one, the tenants' secrets or `*`."""


def role_of(function: str) -> Mapping[str, Any]:
    role: Mapping[str, Any] = bundle_template().translated["Resources"][f"{function}Role"]["Properties"]
    return role


def own_statements(function: str) -> Iterator[Mapping[str, Any]]:
    """Yield the statements of a function's `Policies`."""
    for policy in role_of(function)["Policies"]:
        yield from policy["PolicyDocument"]["Statement"]


def shared_statements(function: str) -> Iterator[Mapping[str, Any]]:
    """Yield the statements that a function's role shares with others and that do not depend on a parameter."""
    for resource in bundle_template().translated["Resources"].values():
        properties = resource["Properties"]
        if (
            resource["Type"] == "AWS::IAM::Policy"
            and "Condition" not in resource
            and {"Ref": f"{function}Role"} in properties["Roles"]
        ):
            yield from (one for one in properties["PolicyDocument"]["Statement"] if "Fn::If" not in one)


def permissions(function: str) -> set[Permission]:
    """Return what a function may do in the end."""
    statements = [*own_statements(function), *shared_statements(function)]
    allowed = {
        (action, name(resource))
        for statement in statements
        if statement["Effect"] == "Allow"
        for action in listed(statement["Action"])
        for resource in listed(statement["Resource"])
    }
    for arn in role_of(function)["ManagedPolicyArns"]:
        allowed |= {(action, EVERYTHING) for action in OF_AWS[arn.rpartition("/")[2]]}
    for statement in statements:
        if statement["Effect"] == "Deny":
            kept = {name(resource) for resource in listed(statement["NotResource"])}
            denied = {one for one in allowed if any(fnmatchcase(one[0], what) for what in listed(statement["Action"]))}
            allowed -= denied
            allowed |= {(action, on) for action, on in denied if on in kept}
            allowed |= {(action, on) for action, was in denied if was == EVERYTHING for on in kept}
    return allowed


def may(function: str, action: str) -> list[str]:
    """Return the resources on which a function may do this, sorted."""
    return sorted(on for done, on in permissions(function) if done == action)


def listed(one_or_several: Any) -> list[Any]:
    return one_or_several if isinstance(one_or_several, list) else [one_or_several]


def name(resource: Any) -> str:
    """Return what a policy's resource is called in the template; of secrets, whose they are."""
    if resource == EVERYTHING:
        return EVERYTHING
    if "Fn::GetAtt" in resource:
        logical, attribute = resource["Fn::GetAtt"]
        assert attribute == "Arn"
        return str(logical)
    if isinstance(resource["Fn::Sub"], list):  # as SAM writes its policy templates
        ((_, value),) = resource["Fn::Sub"][1].items()
        return name(value)
    text = resource["Fn::Sub"]
    if part := re.search(r":secret:crm-bridge/\$\{Stage\}/([a-z]+)/\*$", text):
        return SECRETS.format(part[1])
    table = re.fullmatch(r"\$\{(\w+)\.Arn\}\$\{TableSuffix\}(/index/\w+)?", text)
    assert table, text
    return f"{table[1]}{table[2] or ''}"

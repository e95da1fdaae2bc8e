"""template.yaml: what each function may do, and with which key the data at rest is encrypted."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from crm_bridge.tenant_parts import PARTS
from crm_bridge.vendors import PART_OF, SOURCES
from local.template import Template, bundle_template
from operations.flows import flows
from tests import granted
from tests.granted import EVERYTHING, OF_AWS, SECRETS, may, own_statements, permissions, role_of
from tests.sam_template import FUNCTIONS, RESOURCES, of_type

ROLES = {f"{function}Role" for function in FUNCTIONS}
"""SAM makes one for each function, with its `Policies`."""


def test_every_function_has_a_role_of_its_own() -> None:
    translated = bundle_template().translated["Resources"]
    made = {
        function: translated[function]["Properties"]["Role"]["Fn::GetAtt"][0]
        for function, resource in translated.items()
        if resource["Type"] == "AWS::Lambda::Function"
    }
    assert made == {function: f"{function}Role" for function in FUNCTIONS}
    roles = {name for name, resource in translated.items() if resource["Type"] == "AWS::IAM::Role"}
    assert roles == ROLES
    assert not of_type("AWS::IAM::Role")


def test_the_dispatcher_may_fill_every_queue_and_only_its_flow_may_empty_it(template: Template) -> None:
    queues = {source.function: source.queue_arn["Fn::GetAtt"][0] for source in template.queue_sources}  # type: ignore[index]
    assert may("DispatcherFunction", "sqs:SendMessage") == sorted(queues.values())
    for function in FUNCTIONS:
        for action in ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"):
            assert may(function, action) == ([queues[function]] if function in queues else []), function


def test_a_webhook_is_asked_for_by_nobody_and_reads_neither_keys_nor_links(template: Template) -> None:
    assert "WebhookFunction" not in {route.function for route in template.routes}
    assert may("WebhookFunction", "dynamodb:GetItem") == ["LocksTable"]


def parts_read_by(function: str) -> set[str]:
    """Return the parts of tenants' documents, each a secret, that a function's role may read."""
    found = may(function, "secretsmanager:GetSecretValue")
    before, after = SECRETS.split("{}")
    assert all(secrets.startswith(before) for secrets in found)
    return {secrets.removeprefix(before).removesuffix(after) for secrets in found}


def test_each_function_reads_its_own_part_of_a_tenant_and_only_webhook_reads_that_of_webhooks() -> None:
    for flow, part in PART_OF.items():
        assert parts_read_by(flow.title().replace("_", "") + "Function") == {part}
    # To verify the id of a record that a person links; a change makes none.
    makes = {PART_OF[flow.function] for flow in flows().values() if not flow.is_repeatable}
    assert parts_read_by("OperationsFunction") == makes < set(PARTS) - {"webhook"}
    assert parts_read_by("DispatcherFunction") == set()
    assert parts_read_by("SourcesFunction") == {SOURCES}
    assert not [function for function in FUNCTIONS if SOURCES in parts_read_by(function) and "Sources" not in function]


def test_no_policy_reaches_further_than_it_must() -> None:
    for function in FUNCTIONS:
        assert {arn.rpartition("/")[2] for arn in role_of(function)["ManagedPolicyArns"]} <= set(OF_AWS)
        for statement in own_statements(function):
            if statement["Effect"] == "Allow":
                actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
                assert not [action for action in actions if "*" in action]
                assert statement["Resource"] != EVERYTHING
        reached = permissions(function)  # with what is denied: the policies of AWS are on every resource
        assert not [action for action, on in reached if "*" in action or on == EVERYTHING]


@pytest.mark.parametrize("taken_away", ["the function's own", "the one for all functions"])
def test_without_a_deny_a_role_would_reach_everything(taken_away: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = "own_statements" if taken_away == "the function's own" else "shared_statements"
    real = getattr(granted, taken)

    def without_deny(function: str) -> list[Mapping[str, Any]]:
        return [statement for statement in real(function) if statement["Effect"] != "Deny"]

    monkeypatch.setattr(granted, taken, without_deny)
    reached = {action for action, on in permissions("CreateSiteFunction") if on == EVERYTHING}
    assert {action.partition(":")[0] for action in reached} == {"sqs" if taken == "own_statements" else "logs"}


def test_everything_at_rest_is_encrypted_with_the_key_if_there_is_one() -> None:
    tables = [table["SSESpecification"] for table in of_type("AWS::DynamoDB::Table").values()]
    # Without: the key that AWS owns. Enabled without a key would be the AWS managed one, billed for each request.
    # Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/encryption.tutorial.html
    assert {json.dumps(table["SSEEnabled"]) for table in tables} == {json.dumps({"Fn::If": ["HasKmsKey", True, False]})}
    keys = [table["KMSMasterKeyId"] for table in tables]
    kinds = {
        "AWS::SQS::Queue": "KmsMasterKeyId",
        "AWS::SNS::Topic": "KmsMasterKeyId",
        "AWS::Logs::LogGroup": "KmsKeyId",
    }
    for kind, member in kinds.items():
        keys += [resource[member] for resource in of_type(kind).values()]
    for key in keys:
        assert key == {"Fn::If": ["HasKmsKey", {"Ref": "KmsKeyArn"}, {"Ref": "AWS::NoValue"}]}
    # Logs are written by Lambda, and CloudWatch publishes alarms, so the roles need the key for neither.
    assert services_of("kms:Decrypt") == {"dynamodb", "sqs", "secretsmanager"}


def statements_about_the_key() -> Iterator[tuple[dict[str, Any], set[str]]]:
    """Yield the statements that depend on there being a key, each with the roles that have it."""
    for name, policy in of_type("AWS::IAM::Policy").items():
        roles = {role["Ref"] for role in policy["Roles"]}
        for statement in policy["PolicyDocument"]["Statement"]:
            if "Fn::If" in statement:
                condition, there, otherwise = statement["Fn::If"]
                assert (condition, otherwise) == ("HasKmsKey", {"Ref": "AWS::NoValue"})
                yield there, roles
            elif RESOURCES[name].get("Condition") == "HasKmsKey":
                yield statement, roles


def services_of(action: str) -> set[str]:
    """Return the services through which the key may be used for an action."""
    (through,) = (
        statement["Condition"]["StringEquals"]["kms:ViaService"]
        for statement, _ in statements_about_the_key()
        if action in statement["Action"]
    )
    return {service["Fn::Sub"].partition(".")[0] for service in (through if isinstance(through, list) else [through])}


def test_the_key_is_used_through_services_only_by_every_role() -> None:
    used: dict[str, set[str]] = {}
    for statement, roles in statements_about_the_key():
        assert statement["Effect"] == "Allow"
        assert statement["Resource"] == {"Ref": "KmsKeyArn"}
        assert list(statement["Condition"]["StringEquals"]) == ["kms:ViaService"]
        used |= dict.fromkeys(statement["Action"], roles)
    assert used == {"kms:Decrypt": ROLES, "kms:GenerateDataKey": ROLES}
    # A data key alone is of no use to a function that may send nothing.
    assert may("WebhookFunction", "sqs:SendMessage") == []

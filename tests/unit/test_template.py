"""template.yaml: what the code needs of it, and what must not get lost in it."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse

from dispatcher.handler import LENT
from local.template import TEMPLATE, Template

ROOT = TEMPLATE.parent
SOURCE: dict[str, Any] = yaml_parse(TEMPLATE.read_text())
RESOURCES: dict[str, Any] = SOURCE["Resources"]


def of_type(kind: str) -> dict[str, Any]:
    return {name: r.get("Properties", {}) for name, r in RESOURCES.items() if r["Type"] == kind}


def test_every_handler_is_there_and_answers_every_route_of_the_template(template: Template) -> None:
    for name, function in template.functions.items():
        module, _, handler = function.handler.rpartition(".")
        entry = import_module(module)
        assert callable(getattr(entry, handler))
        routes = {f"{route.method} {route.path}" for route in template.routes if route.function == name}
        assert routes == set(getattr(entry, "ROUTES", {}))


def test_the_functions_get_exactly_the_variables_that_the_code_reads() -> None:
    given = set(SOURCE["Globals"]["Function"]["Environment"]["Variables"])
    read = {
        name
        for root in ("functions", "layers/shared/crm_bridge")
        for path in (ROOT / root).rglob("*.py")
        for name in re.findall(r"os\.environ\[\"(\w+)\"\]", path.read_text())
    }
    flows = ("CREATE_SITE", "CREATE_JOB", "KEY_LINK", "STATUS_UPDATE", "CONNECTOR_RECEIVER", "CALLBACK")
    queues = {f"{name}_QUEUE_URL" for name in flows}
    assert given == read | queues | {"POWERTOOLS_LOG_LEVEL"}


def test_a_function_ends_before_the_api_gives_up_and_its_queue_waits_six_times_as_long(template: Template) -> None:
    answering = {route.function for route in template.routes} | {source.function for source in template.queue_sources}
    for name in answering:
        assert template.functions[name].timeout <= 29
    for source in template.queue_sources:
        assert isinstance(source.queue_arn, dict)
        queue = RESOURCES[source.queue_arn["Fn::GetAtt"][0]]["Properties"]
        assert queue["VisibilityTimeout"] >= 6 * template.functions[source.function].timeout
        receives = queue["RedrivePolicy"]["maxReceiveCount"]
        assert receives >= 3
        # A message lives as long as its operation is lent to it, and long enough to get to the dead letters.
        assert queue["VisibilityTimeout"] * receives < queue["MessageRetentionPeriod"] == LENT


def test_every_function_has_a_role_of_its_own() -> None:
    roles = [function["Role"]["Fn::GetAtt"][0] for function in of_type("AWS::Serverless::Function").values()]
    assert len(set(roles)) == len(roles)
    assert set(roles) == set(of_type("AWS::IAM::Role"))


def allowed(role: str, action: str) -> list[str]:
    """The resources on which a role may do this."""
    found: list[str] = []
    for policy in RESOURCES[role]["Properties"]["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            actions, resources = (
                value if isinstance(value, list) else [value] for value in (statement["Action"], statement["Resource"])
            )
            if action in actions:
                found += [resource["Fn::GetAtt"][0] for resource in resources]
    return found


def test_the_dispatcher_may_fill_every_queue_and_only_its_flow_may_empty_it(template: Template) -> None:
    queues = {source.function: source.queue_arn["Fn::GetAtt"][0] for source in template.queue_sources}  # type: ignore[index]
    assert sorted(allowed("DispatcherRole", "sqs:SendMessage")) == sorted(queues.values())
    for function, queue in queues.items():
        assert allowed(function.replace("Function", "Role"), "sqs:ReceiveMessage") == [queue]


def test_a_callback_is_asked_for_by_nobody_and_reads_neither_keys_nor_links(template: Template) -> None:
    assert "CallbackFunction" not in {route.function for route in template.routes}
    assert set(allowed("CallbackRole", "dynamodb:GetItem")) == {"OperationsTable", "AccountsTable"}


def test_no_policy_reaches_further_than_it_must() -> None:
    for role in of_type("AWS::IAM::Role").values():
        assert "ManagedPolicyArns" not in role
        for policy in role["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
                assert not [action for action in actions if "*" in action]
                if statement["Resource"] == "*":
                    assert actions == ["xray:PutTraceSegments", "xray:PutTelemetryRecords"]


def test_what_is_stored_survives_the_stack_and_tokens_do_not() -> None:
    tables = of_type("AWS::DynamoDB::Table")
    assert RESOURCES["TokensTable"]["DeletionPolicy"] == "Delete"
    assert "PointInTimeRecoverySpecification" not in tables.pop("TokensTable")
    for name, table in tables.items():
        assert RESOURCES[name]["DeletionPolicy"] == "Retain"
        assert RESOURCES[name]["UpdateReplacePolicy"] == "Retain"
        assert table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]
        assert table["SSESpecification"]["SSEEnabled"]
        assert table["BillingMode"] == "PAY_PER_REQUEST"
        assert table["DeletionProtectionEnabled"]["Fn::If"] == ["IsProd", True, False]


def test_the_access_log_shows_neither_keys_nor_paths() -> None:
    (api,) = of_type("AWS::Serverless::HttpApi").values()
    logged = set(re.findall(r"\$context\.(\w+)", api["AccessLogSettings"]["Format"]))
    assert logged == {
        "requestTime",
        "requestId",
        "routeKey",
        "status",
        "responseLatency",
        "integrationErrorMessage",
    }
    assert api["DefaultRouteSettings"]["ThrottlingRateLimit"] == {"Ref": "ThrottleRate"}


def test_every_event_in_the_folder_belongs_to_a_function(template: Template) -> None:
    handlers = {function.handler.partition(".")[0] for function in template.functions.values()}
    folders = {path.name for path in (ROOT / "events").iterdir() if path.is_dir()}
    assert folders <= handlers
    assert Path(ROOT / "events/create_site/new.json").exists()

"""template.yaml: what the code needs of it, what AWS takes, and what must not get lost in it."""

import json
import re
import tomllib
from importlib import import_module
from pathlib import Path

import cfnlint.api
import pytest
from samtranslator.yaml_helper import yaml_parse

from crm_bridge.outbound.queues import LEAST_LANES
from crm_bridge.storage.operation import OperationSummary
from crm_bridge.vendors import PART_OF
from dispatcher.handler import LENT, LONGEST_RUN
from local.stack import VISIBILITY
from local.template import TEMPLATE, Template, bundle_template
from openapi.routes import PAGES
from sources.intake import ROUTE as INTAKE
from tests.sam_template import (
    EXAMPLES,
    FUNCTIONS,
    HANDLERS,
    LINTED,
    RESOURCES,
    ROOT,
    SETS,
    SOURCE,
    VARIABLES,
    of_samconfig,
    of_type,
)

LONGEST_STACK_NAME = 43
"""As docs/deploy.md says."""


# ---------------------------------------------------------------------- AWS's translator takes it


@pytest.mark.parametrize("parameters", SETS, ids=lambda parameters: parameters.get("Deployment", "samconfig"))
def test_awss_translator_takes_the_template_with_every_value_of_every_parameter(parameters: dict[str, str]) -> None:
    translated = Template(parameters=parameters).translated["Resources"]
    groups = [name for name, resource in translated.items() if resource["Type"] == "AWS::CodeDeploy::DeploymentGroup"]
    assert len(groups) == (len(HANDLERS) if parameters.get("Deployment", "AllAtOnce") != "AllAtOnce" else 0)


@pytest.mark.parametrize("parameters", LINTED.values(), ids=LINTED.keys())
def test_the_translated_template_is_valid_cloudformation_when_deployed_with(parameters: dict[str, str]) -> None:
    found = cfnlint.api.lint(json.dumps(Template(parameters=parameters).translated), regions=["eu-west-1"])
    decided = {"W2001 Parameter Deployment not used.", "W7001 Mapping 'Deployments' is defined but not used"}  # by SAM
    assert {f"{one.rule.id} {one.message}" for one in found} <= decided


def test_every_handler_is_there_and_answers_every_route_of_the_template(template: Template) -> None:
    for name, function in template.functions.items():
        module, _, handler = function.handler.rpartition(".")
        entry = import_module(module)
        called = getattr(entry, handler)
        assert callable(called)
        routes = {f"{route.method} {route.path}" for route in template.routes if route.function == name}
        assert routes - {*PAGES, INTAKE} == set(getattr(called, "routes", None) or getattr(entry, "ROUTES", {}))


def test_the_functions_get_exactly_the_variables_that_the_code_reads() -> None:
    assert not any("Environment" in function for function in FUNCTIONS.values())
    given = set(VARIABLES)
    read = {
        name
        for root in ("functions", "layers/shared/crm_bridge")
        for path in (ROOT / root).rglob("*.py")
        for name in re.findall(r"os\.environ\[\"(\w+)\"\]", path.read_text())
    }
    queues = {f"{function.upper()}_{what}" for function in PART_OF for what in ("QUEUE_URL", "WORKERS")}
    assert given == read | queues | {"LOG_LEVEL", "POWERTOOLS_METRICS_NAMESPACE"}


def test_no_function_on_aws_may_call_a_private_address() -> None:
    assert "LOCAL_HOSTS" not in TEMPLATE.read_text()


def test_no_function_gets_a_service_name_which_would_be_one_more_dimension_of_each_metric() -> None:
    assert "POWERTOOLS_SERVICE_NAME" not in TEMPLATE.read_text()


def test_a_function_ends_before_the_api_gives_up_and_its_queue_waits_twice_as_long(template: Template) -> None:
    responding = {route.function for route in template.routes} | {source.function for source in template.queue_sources}
    for name in responding:
        assert template.functions[name].timeout <= 29
    for source in template.queue_sources:
        assert isinstance(source.queue_arn, dict)
        queue = RESOURCES[source.queue_arn["Fn::GetAtt"][0]]["Properties"]
        assert queue["VisibilityTimeout"] >= 2 * template.functions[source.function].timeout
        assert queue["VisibilityTimeout"] == VISIBILITY
        receives = queue["RedrivePolicy"]["maxReceiveCount"]
        # Source: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
        assert receives >= 5
        # A message lives as long as its operation is lent to it, and long enough to get to the dead letters.
        assert queue["VisibilityTimeout"] * receives < queue["MessageRetentionPeriod"] == LENT
    assert template.functions["DispatcherFunction"].timeout == LONGEST_RUN  # what it lent and did not send is due again


def test_the_dispatcher_runs_by_itself_and_no_run_is_repeated() -> None:
    dispatcher = FUNCTIONS["DispatcherFunction"]
    assert dispatcher["ReservedConcurrentExecutions"] == 1
    assert dispatcher["EventInvokeConfig"] == {"MaximumEventAgeInSeconds": 60, "MaximumRetryAttempts": 0}


def test_the_functions_know_how_many_workers_each_queue_has() -> None:
    for function in FUNCTIONS.values():
        if due := function["Events"].get("Due"):
            name = function["Handler"].partition(".")[0].upper()
            workers = due["Properties"]["ScalingConfig"]["MaximumConcurrency"]
            assert VARIABLES[f"{name}_WORKERS"] == workers
            assert SOURCE["Parameters"][workers["Ref"]]["Default"] >= LEAST_LANES


def test_queues_are_first_in_first_out_and_a_tenant_can_use_up_no_throughput_but_its_own() -> None:
    """A name is given, because one that CloudFormation makes up may have more than the 80 characters that SQS takes.

    Source: https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/280
    """
    for name, queue in of_type("AWS::SQS::Queue").items():
        assert queue["FifoQueue"] is True
        named = queue["QueueName"]["Fn::Sub"]
        assert named.startswith("${AWS::StackName}-")
        assert named.endswith(".fifo")
        assert len(named.removeprefix("${AWS::StackName}")) <= 80 - LONGEST_STACK_NAME
        if "DeadLetter" not in name:
            assert queue["DeduplicationScope"] == "messageGroup"
            assert queue["FifoThroughputLimit"] == "perMessageGroupId"


def test_the_due_index_projects_what_changes_only_with_its_key_and_the_listing_what_a_list_shows() -> None:
    indexes = {one["IndexName"]: one for one in RESOURCES["OperationsTable"]["Properties"]["GlobalSecondaryIndexes"]}
    projected = {name: set(one["Projection"]["NonKeyAttributes"]) for name, one in indexes.items()}
    assert projected["due"] == {"flow", "function", "state", "lent_until"}
    assert projected["listing"] == set(OperationSummary.model_fields) - {"operation_id"}


def test_what_is_stored_survives_the_stack_and_tokens_do_not() -> None:
    tables = of_type("AWS::DynamoDB::Table")
    assert RESOURCES["TokensTable"]["DeletionPolicy"] == "Delete"
    assert "PointInTimeRecoverySpecification" not in tables.pop("TokensTable")
    for name, table in tables.items():
        assert RESOURCES[name]["DeletionPolicy"] == "Retain"
        assert RESOURCES[name]["UpdateReplacePolicy"] == "Retain"
        assert table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]
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


def test_cloudfront_and_its_firewall_are_valid_and_no_address_can_use_up_what_the_api_takes() -> None:
    text = (ROOT / "docs/cloudfront.yaml").read_text()
    assert cfnlint.api.lint(text, regions=["us-east-1"]) == []
    window = re.search(r"EvaluationWindowSec: (\d+)", text)
    assert window
    most = yaml_parse(text)["Parameters"]["RequestsPerAddress"]["Default"]
    assert most < int(window[1]) * SOURCE["Parameters"]["ThrottleRate"]["Default"]


def test_what_one_key_may_send_is_less_than_what_the_api_takes() -> None:
    assert SOURCE["Parameters"]["KeyRate"]["Default"] < SOURCE["Parameters"]["ThrottleRate"]["Default"]
    assert VARIABLES["KEY_RATE"] == {"Ref": "KeyRate"}
    assert VARIABLES["KEY_BURST"] == {"Ref": "KeyBurst"}


def test_every_event_in_the_folder_belongs_to_a_function(template: Template) -> None:
    handlers = {function.handler.partition(".")[0] for function in template.functions.values()}
    folders = {path.name for path in (ROOT / "events").iterdir() if path.is_dir()}
    assert folders <= handlers
    assert Path(ROOT / "events/create_site/new.json").exists()


def test_a_new_version_is_published_for_a_changed_layer_and_every_parameter_that_functions_are_made_with() -> None:
    """SAM names a version by what is written in the template, so the value of a parameter would change nothing."""
    assert RESOURCES["SharedLayer"]["Properties"]["PublishLambdaVersion"] is True
    made_with = set(re.findall(r"'Ref': '(\w+)'|\$\{(\w+)\}", str(SOURCE["Globals"]["Function"])))
    parameters = {name for pair in made_with for name in pair} & set(SOURCE["Parameters"])
    parameters -= {"Deployment", "ReservedConcurrency"}  # are not part of a version
    shared = SOURCE["Globals"]["Function"]
    assert shared["AutoPublishAliasAllProperties"] is True
    assert shared["VersionDeletionPolicy"] == "Delete"  # one that is kept would be billed on, with a snapshot
    versions = [r for r in bundle_template().translated["Resources"].values() if r["Type"] == "AWS::Lambda::Version"]
    assert [version["DeletionPolicy"] for version in versions] == ["Delete"] * len(FUNCTIONS)
    for function in FUNCTIONS.values():
        assert "AutoPublishAliasAllProperties" not in function
        assert set(re.findall(r"\$\{(\w+)\}", function["VersionDescription"]["Fn::Sub"])) == parameters


# ---------------------------------------------------------------------- a stable address, other tables, names


def test_the_api_has_the_domains_address_only_when_there_is_a_domain() -> None:
    (api,) = of_type("AWS::Serverless::HttpApi").values()
    assert api["DisableExecuteApiEndpoint"] == {"Fn::If": ["HasDomain", True, False]}
    translated = Template(parameters=EXAMPLES).translated["Resources"]
    (body,) = (r["Properties"]["Body"] for r in translated.values() if r["Type"] == "AWS::ApiGatewayV2::Api")
    (server,) = body["servers"]
    assert server["x-amazon-apigateway-endpoint-configuration"] == {
        "disableExecuteApiEndpoint": {"Fn::If": ["HasDomain", True, False]}
    }
    (stage,) = (name for name, r in translated.items() if r["Type"] == "AWS::ApiGatewayV2::Stage")
    assert translated["DomainMapping"]["Properties"]["Stage"] == {"Ref": stage}
    for name, condition in {
        "Domain": "HasDomain",
        "DomainMapping": "HasDomain",
        "DomainRecord": "HasHostedZone",
    }.items():
        assert RESOURCES[name]["Condition"] == condition
    address = SOURCE["Outputs"]["ApiUrl"]["Value"]["Fn::If"]
    assert address == ["HasDomain", {"Fn::Sub": "https://${DomainName}"}, {"Fn::GetAtt": ["Api", "ApiEndpoint"]}]


def test_functions_roles_and_outputs_name_the_same_restored_tables() -> None:
    kept = {name for name in of_type("AWS::DynamoDB::Table") if RESOURCES[name]["DeletionPolicy"] == "Retain"}
    variables = SOURCE["Globals"]["Function"]["Environment"]["Variables"]
    for name in kept:
        restored = {"Fn::Sub": f"${{{name}}}${{TableSuffix}}"}
        assert restored in variables.values()
        assert SOURCE["Outputs"][name]["Value"] == restored
    arns = re.findall(r"\$\{(\w+Table)\.Arn\}(\$\{TableSuffix\})?", TEMPLATE.read_text())
    assert {name for name, suffix in arns if suffix} == kept
    assert not [name for name, suffix in arns if not suffix]
    assert not re.findall(r"!GetAtt (?!Tokens)\w+Table\.Arn", TEMPLATE.read_text())


def test_names_differ_between_two_stacks_of_an_account_and_between_regions() -> None:
    (layer,) = of_type("AWS::Serverless::LayerVersion").values()
    (dashboard,) = of_type("AWS::CloudWatch::Dashboard").values()
    assert "${AWS::StackName}" in layer["LayerName"]["Fn::Sub"]
    assert {"AWS::StackName", "AWS::Region"} <= set(
        re.findall(r"\$\{([\w:]+)\}", dashboard["DashboardName"]["Fn::Sub"])
    )
    names = ("TableName", "QueueName", "TopicName", "RoleName", "FunctionName", "LogGroupName", "BucketName")
    named = [r["Properties"][name] for r in RESOURCES.values() for name in names if name in r.get("Properties", {})]
    assert len({name["Fn::Sub"] for name in named}) == len(named) == len(of_type("AWS::SQS::Queue"))
    assert all("${AWS::StackName}" in name["Fn::Sub"] for name in named)


def test_every_environment_of_samconfig_tags_what_it_deploys_with_its_stage() -> None:
    config = tomllib.loads((ROOT / "samconfig.toml").read_text())
    for name in ("default", "dev", "prod"):
        tags = dict(pair.split("=") for pair in config[name]["deploy"]["parameters"]["tags"].split())
        assert tags == {"application": "crm-bridge", "stage": of_samconfig(name)["Stage"]}

"""template.yaml: what the code needs of it, what AWS takes, and what must not get lost in it."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import cfnlint.api
import pytest
from samtranslator.yaml_helper import yaml_parse

from crm_bridge.clients import egito, illu, izzitup, revio
from crm_bridge.engine import TRANSITIONS
from crm_bridge.errors import Event
from crm_bridge.operations import OperationSummary, State
from crm_bridge.queues import LEAST_LANES
from crm_bridge.settings import BLOCKS, PART_OF
from dispatcher.handler import LENT, LONGEST_RUN
from local.stack import VISIBILITY
from local.template import TEMPLATE, Template, bundle_template
from openapi.routes import PAGES

ROOT = TEMPLATE.parent
SOURCE: dict[str, Any] = yaml_parse(TEMPLATE.read_text())
RESOURCES: dict[str, Any] = SOURCE["Resources"]
LONGEST_STACK_NAME = 43
"""As docs/deploy.md says."""


# ---------------------------------------------------------------------- AWS's translator takes it


def of_samconfig(environment: str) -> dict[str, str]:
    """Return the parameters that an environment of samconfig.toml deploys with."""
    config = tomllib.loads((ROOT / "samconfig.toml").read_text())
    overrides: str = config[environment]["deploy"]["parameters"]["parameter_overrides"]
    return dict(pair.split("=", 1) for pair in overrides.split())


EXAMPLES = {
    "DomainName": "bridge.acme.example",
    "CertificateArn": "arn:aws:acm:eu-west-1:111122223333:certificate/00000000-0000-0000-0000-000000000000",
    "HostedZoneId": "Z0000000000000000000",
    "TableSuffix": "-20261129",
    "Stage": "prod",
    "ApiKeyHeaders": "x-key",
    "KeyRate": "3",
    "KeyBurst": "9",
    "TruststoreUri": "s3://acme-truststore/cloudfront.pem",
    "ThrottleRate": "5",
    "ThrottleBurst": "7",
    "AlarmEmail": "ops@acme.example",
    "KmsKeyArn": "arn:aws:kms:eu-west-1:111122223333:key/00000000-0000-0000-0000-000000000000",
    "ReservedConcurrency": "20",
}
"""Values that are not the defaults."""
ALLOWED = {name: [*map(str, p["AllowedValues"])] for name, p in SOURCE["Parameters"].items() if "AllowedValues" in p}
EVERY_VALUE = [
    {**EXAMPLES, **{name: values[number % len(values)] for name, values in ALLOWED.items()}}
    for number in range(max(map(len, ALLOWED.values())))
]
"""Sets of parameters that together have every value of each."""
LINTED = {
    "prod": of_samconfig("prod"),
    "all that there is": {**EXAMPLES, "Deployment": "Linear10PercentEvery1Minute", "SnapStart": "PublishedVersions"},
}
"""Besides, `make check` looks at the template with its defaults."""


SETS = [*EVERY_VALUE, *map(of_samconfig, ("default", "dev", "prod")), {**of_samconfig("prod"), "Alarms": "false"}]


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


def of_type(kind: str) -> dict[str, Any]:
    return {name: r.get("Properties", {}) for name, r in RESOURCES.items() if r["Type"] == kind}


HANDLERS = {name: function["Handler"] for name, function in of_type("AWS::Serverless::Function").items()}


def test_every_handler_is_there_and_answers_every_route_of_the_template(template: Template) -> None:
    for name, function in template.functions.items():
        module, _, handler = function.handler.rpartition(".")
        entry = import_module(module)
        assert callable(getattr(entry, handler))
        routes = {f"{route.method} {route.path}" for route in template.routes if route.function == name}
        assert routes - {*PAGES} == set(getattr(entry, "ROUTES", {}))


VARIABLES: dict[str, object] = SOURCE["Globals"]["Function"]["Environment"]["Variables"]
"""The environment of every function."""


def test_the_functions_get_exactly_the_variables_that_the_code_reads() -> None:
    assert not any("Environment" in function for function in of_type("AWS::Serverless::Function").values())
    given = set(VARIABLES)
    read = {
        name
        for root in ("functions", "layers/shared/crm_bridge")
        for path in (ROOT / root).rglob("*.py")
        for name in re.findall(r"os\.environ\[\"(\w+)\"\]", path.read_text())
    }
    flows = ("CREATE_SITE", "CREATE_JOB", "KEY_LINK", "STATUS_UPDATE", "CONNECTOR_RECEIVER", "CALLBACK")
    queues = {f"{name}_{what}" for name in flows for what in ("QUEUE_URL", "WORKERS")}
    assert given == read | queues | {"LOG_LEVEL", "POWERTOOLS_METRICS_NAMESPACE"}


def test_no_function_on_aws_may_call_a_private_address() -> None:
    assert "LOCAL_HOSTS" not in TEMPLATE.read_text()


def test_no_function_gets_a_service_name_which_would_be_one_more_dimension_of_each_metric() -> None:
    assert "POWERTOOLS_SERVICE_NAME" not in TEMPLATE.read_text()


def test_a_function_ends_before_the_api_gives_up_and_its_queue_waits_twice_as_long(template: Template) -> None:
    answering = {route.function for route in template.routes} | {source.function for source in template.queue_sources}
    for name in answering:
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
    dispatcher = of_type("AWS::Serverless::Function")["DispatcherFunction"]
    assert dispatcher["ReservedConcurrentExecutions"] == 1
    assert dispatcher["EventInvokeConfig"] == {"MaximumEventAgeInSeconds": 60, "MaximumRetryAttempts": 0}


def test_the_functions_know_how_many_workers_each_queue_has() -> None:
    for function in of_type("AWS::Serverless::Function").values():
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


def test_every_function_has_a_role_of_its_own() -> None:
    roles = [function["Role"]["Fn::GetAtt"][0] for function in of_type("AWS::Serverless::Function").values()]
    assert len(set(roles)) == len(roles)
    assert set(roles) == set(of_type("AWS::IAM::Role"))


def resource_name(arn: Mapping[str, Any]) -> str:
    """Return the logical id of the table or queue whose ARN this is."""
    if "Fn::GetAtt" in arn:
        return str(arn["Fn::GetAtt"][0])
    name, attribute, rest = re.split(r"(\.Arn)\}", arn["Fn::Sub"].removeprefix("${"))
    assert (attribute, rest) == (".Arn", "${TableSuffix}")
    return name


def allowed(role: str, action: str) -> list[str]:
    """The resources on which a role may do this."""
    found: list[str] = []
    for policy in RESOURCES[role]["Properties"]["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            actions, resources = (
                value if isinstance(value, list) else [value] for value in (statement["Action"], statement["Resource"])
            )
            if action in actions:
                found += [resource_name(resource) for resource in resources]
    return found


def test_the_dispatcher_may_fill_every_queue_and_only_its_flow_may_empty_it(template: Template) -> None:
    queues = {source.function: source.queue_arn["Fn::GetAtt"][0] for source in template.queue_sources}  # type: ignore[index]
    assert sorted(allowed("DispatcherRole", "sqs:SendMessage")) == sorted(queues.values())
    for function, queue in queues.items():
        assert allowed(function.replace("Function", "Role"), "sqs:ReceiveMessage") == [queue]


def test_a_callback_is_asked_for_by_nobody_and_reads_neither_keys_nor_links(template: Template) -> None:
    assert "CallbackFunction" not in {route.function for route in template.routes}
    assert allowed("CallbackRole", "dynamodb:GetItem") == ["AccountsTable"]


def parts_read_by(function: str) -> set[str]:
    """The parts of tenants' documents, each a secret, that a function's role may read."""
    role = RESOURCES[function.replace("Function", "Role")]["Properties"]
    text = json.dumps(role["Policies"])
    found = re.findall(r":secret:crm-bridge/\$\{Stage\}/([a-z]+)/\*\"", text)
    assert len(found) == text.count(":secret:")
    return set(found)


def test_each_function_reads_its_own_part_of_a_tenant_and_only_callback_reads_that_of_webhooks() -> None:
    vendors = set(BLOCKS) - {"callback"}
    for flow, part in PART_OF.items():
        assert parts_read_by(flow.title().replace("_", "") + "Function") == {part}
    # To verify the id of a record that a person links; a status makes none.
    assert parts_read_by("OperationsFunction") == vendors - {"izzitup"}
    assert parts_read_by("DispatcherFunction") == set()


def test_no_policy_reaches_further_than_it_must() -> None:
    for role in of_type("AWS::IAM::Role").values():
        assert "ManagedPolicyArns" not in role
        for policy in role["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
                assert not [action for action in actions if "*" in action]
                assert statement["Resource"] != "*"


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


# ---------------------------------------------------------------------- who watches it

ALARMS = of_type("AWS::CloudWatch::Alarm")
VENDORS = {illu.VENDOR, revio.VENDOR, izzitup.VENDOR, egito.VENDOR}


def own_metrics(alarm: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """The bridge's own metrics behind an alarm, with their dimensions."""
    for one in [alarm] + [query["MetricStat"]["Metric"] for query in alarm.get("Metrics", []) if "MetricStat" in query]:
        if one.get("Namespace") == {"Fn::Sub": "CrmBridge/${Stage}"}:
            yield one["MetricName"], {dimension["Name"]: dimension["Value"] for dimension in one.get("Dimensions", [])}


def test_every_alarm_is_told_at_the_one_topic_when_it_begins_and_when_it_is_over() -> None:
    assert list(of_type("AWS::SNS::Topic")) == ["AlarmTopic"]
    for alarm in ALARMS.values():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": "AlarmTopic"}]
        assert alarm["AlarmDescription"]


def test_every_own_metric_of_an_alarm_is_one_that_the_code_tells_with_these_dimensions() -> None:
    code = "".join(path.read_text() for root in ("functions", "layers") for path in (ROOT / root).rglob("*.py"))
    told = {
        (metric, frozenset(re.findall(r"\b(\w+)=", arguments)))
        for metric, arguments in re.findall(r"\b(?:count|measure)\(\s*\"(\w+)\"([^\n]*)", code)
    }
    watched = [own for alarm in ALARMS.values() for own in own_metrics(alarm)]
    assert {(metric, frozenset(dimensions)) for metric, dimensions in watched} <= told
    assert {name for name, _ in watched} == {"Parked", "OldestParkedAge", "OldestDueAge", "SignInRefused", "Defects"}


def of_aws(alarm: str) -> dict[str, list[dict[str, Any]]]:
    """Return the metrics that a metric math alarm looks at, each with its dimensions, by the metric's id."""
    return {
        query["Id"]: query["MetricStat"]["Metric"]["Dimensions"]
        for query in ALARMS[alarm]["Metrics"]
        if "MetricStat" in query
    }


def test_an_operation_raises_one_alarm_whatever_it_is_parked_for() -> None:
    watched = [
        dimensions["reason"] for alarm in ALARMS.values() for name, dimensions in own_metrics(alarm) if name == "Parked"
    ]
    parking = [event for (_, event), state in TRANSITIONS.items() if state is State.PARKED]
    assert sorted(watched) == sorted(set(parking) - {Event.UNLINKED})  # that is a person's own decision


def test_every_vendor_and_every_queue_has_its_alarm() -> None:
    refused = [
        dims["vendor"] for alarm in ALARMS.values() for name, dims in own_metrics(alarm) if name == "SignInRefused"
    ]
    assert sorted(refused) == sorted(VENDORS)
    dead = {
        queue["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0]
        for queue in of_type("AWS::SQS::Queue").values()
        if "RedrivePolicy" in queue
    }
    watched = [dimension["Value"]["Fn::GetAtt"][0] for (dimension,) in of_aws("DeadLettersAlarm").values()]
    assert sorted(watched) == sorted(dead)


def added(counts: Sequence[Sequence[float | None]]) -> list[float]:
    """Return what MAX(DIFF(FILL(METRICS(), 0))) makes of several queues, minute by minute.

    Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
    """
    filled = [[count or 0 for count in queue] for queue in counts]
    return [max(after - before for before, after in pairs) for pairs in zip(*map(pairwise, filled), strict=True)]


@pytest.mark.parametrize(
    ("queues", "alarms"),
    [
        ([[None, None, None, None], [None, None, None, None]], 0),  # queues without use tell nothing
        ([[None, None, 1, 1], [None, None, None, None]], 1),
        ([[1, 1, 1, 1], [None, None, None, None]], 0),  # it was seen and left there
        ([[1, 1, 2, 2], [None, None, None, None]], 1),
        ([[1, 1, 1, 1], [None, None, 1, 1]], 1),  # of another flow
        ([[2, 2, 1, 1], [0, 0, 1, 1]], 1),  # while another was taken away
        ([[3, 3, 0, None], [None, None, None, None]], 0),  # the queue was emptied
    ],
)
def test_a_dead_letter_raises_the_alarm_once_when_it_comes(queues: list[list[float | None]], alarms: int) -> None:
    alarm = ALARMS["DeadLettersAlarm"]
    (math,) = (query["Expression"] for query in alarm["Metrics"] if "Expression" in query)
    assert math == "MAX(DIFF(FILL(METRICS(), 0)))"
    assert (alarm["ComparisonOperator"], alarm["DatapointsToAlarm"]) == ("GreaterThanOrEqualToThreshold", 1)
    assert sum(value >= alarm["Threshold"] for value in added(queues)) == alarms


def test_no_alarm_looks_at_more_metrics_than_aws_takes_or_needs_more_periods_than_it_looks_at() -> None:
    for alarm in ALARMS.values():
        assert sum("MetricStat" in query for query in alarm.get("Metrics", [])) <= 10
        assert alarm.get("DatapointsToAlarm", alarm["EvaluationPeriods"]) <= alarm["EvaluationPeriods"]


def test_a_level_must_be_high_for_several_minutes_before_it_raises_an_alarm() -> None:
    for name in ("OldestDueAlarm", "OldestMessageAlarm", "DurationAlarm", "ServerErrorsAlarm", "TableThrottlesAlarm"):
        assert 1 < ALARMS[name]["DatapointsToAlarm"] < ALARMS[name]["EvaluationPeriods"]


def test_what_is_looked_at_of_all_functions_leaves_none_out() -> None:
    for name, but in {"ErrorsAlarm": set(), "ThrottlesAlarm": set(), "DurationAlarm": {"DispatcherFunction"}}.items():
        looked_at = {
            query["MetricStat"]["Metric"]["Dimensions"][0]["Value"]["Ref"]
            for query in ALARMS[name]["Metrics"]
            if "MetricStat" in query
        }
        assert looked_at == set(of_type("AWS::Serverless::Function")) - but


def test_the_dashboard_is_json_shows_every_alarm_and_names_only_what_there_is() -> None:
    body = RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    widgets = json.loads(body)["widgets"]
    shown = {arn[2:-5] for arn in widgets[0]["properties"]["alarms"]}
    assert shown == {name for name in ALARMS if RESOURCES[name]["Condition"] == "HasAlarms"}
    for name in re.findall(r"\$\{(\w+)[.}]", body):
        assert name in RESOURCES or name in SOURCE["Parameters"], name
    metrics = set(re.findall(r"MetricName=\\\"(\w+)\\\"", body)) | {"OldestDueAge", "OldestParkedAge", "Defects"}
    configuration = (ROOT / "docs/configuration.md").read_text()
    assert "VendorLatency" in metrics
    assert not [name for name in metrics if f"\n| `{name}` |" not in configuration]


NEW_VERSION = ("NewVersionErrorsAlarm", "NewVersionDefectsAlarm")


def test_a_gradual_deployment_goes_back_on_errors_and_defects_and_dev_has_none() -> None:
    preference = SOURCE["Globals"]["Function"]["DeploymentPreference"]
    assert preference["Alarms"]["Fn::If"][:2] == ["IsWatchedDeployment", [{"Ref": name} for name in NEW_VERSION]]
    assert {name for name in ALARMS if RESOURCES[name]["Condition"] == "IsWatchedDeployment"} == set(NEW_VERSION)
    gradual = {name for name, kind in SOURCE["Mappings"]["Deployments"].items() if kind["IsGradual"]}
    parameter = SOURCE["Parameters"]["Deployment"]
    assert gradual == set(parameter["AllowedValues"]) - {"AllAtOnce"}
    assert parameter["Default"] == "AllAtOnce"
    assert not [name for name in bundle_template().translated["Resources"] if "CodeDeploy" in name]


def test_a_gradual_deployment_looks_at_nothing_but_the_new_version_of_each_function() -> None:
    translated = Template(parameters=of_samconfig("prod")).translated["Resources"]
    versions = {
        resource["Properties"]["FunctionName"]["Ref"]: name
        for name, resource in translated.items()
        if resource["Type"] == "AWS::Lambda::Version"
    }
    assert set(versions) == set(of_type("AWS::Serverless::Function"))
    errors, defects = (translated[name]["Properties"] for name in NEW_VERSION)
    looked_at = [query["MetricStat"]["Metric"] for query in errors["Metrics"] if "MetricStat" in query]
    assert [metric["Dimensions"] for metric in looked_at] == [
        [
            {"Name": "FunctionName", "Value": {"Ref": function}},
            {"Name": "Resource", "Value": {"Fn::Sub": f"${{{function}}}:live"}},
            {"Name": "ExecutedVersion", "Value": {"Fn::GetAtt": [version, "Version"]}},
        ]
        for function, version in sorted(versions.items(), key=lambda of: [*HANDLERS].index(of[0]))
    ]
    looked_at = [query["MetricStat"]["Metric"] for query in defects["Metrics"] if "MetricStat" in query]
    assert [metric["Dimensions"] for metric in looked_at] == [
        [{"Name": "version", "Value": {"Fn::Sub": f"${{{function}}}:${{{versions[function]}.Version}}"}}]
        for function in HANDLERS
    ]
    # An alarm that is updated keeps its state; one of another name is made anew, with none.
    # Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
    for alarm in (errors, defects):
        assert set(re.findall(r"\$\{(\w+)\.Version\}", alarm["AlarmName"]["Fn::Sub"])) == set(versions.values())


def test_a_new_version_is_published_for_a_changed_layer_and_every_parameter_that_functions_are_made_with() -> None:
    """SAM names a version by what is written in the template, so the value of a parameter would change nothing."""
    assert RESOURCES["SharedLayer"]["Properties"]["PublishLambdaVersion"] is True
    made_with = set(re.findall(r"'Ref': '(\w+)'|\$\{(\w+)\}", str(SOURCE["Globals"]["Function"])))
    parameters = {name for pair in made_with for name in pair} & set(SOURCE["Parameters"])
    parameters -= {"Deployment", "ReservedConcurrency"}  # are not part of a version
    for name, function in of_type("AWS::Serverless::Function").items():
        assert function["AutoPublishAliasAllProperties"] is True, name
        assert set(re.findall(r"\$\{(\w+)\}", function["VersionDescription"]["Fn::Sub"])) == parameters


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
    policy = RESOURCES["KmsKeyPolicy"]["Properties"]
    assert {role["Ref"] for role in policy["Roles"]} == set(of_type("AWS::IAM::Role"))


def test_the_key_is_used_through_services_only_and_data_keys_are_made_by_those_that_send() -> None:
    used = {}
    for policy in of_type("AWS::IAM::Policy").values():
        (statement,) = policy["PolicyDocument"]["Statement"]
        assert statement["Resource"] == {"Ref": "KmsKeyArn"}
        assert list(statement["Condition"]["StringEquals"]) == ["kms:ViaService"]
        used[statement["Action"]] = {role["Ref"] for role in policy["Roles"]}
    roles = of_type("AWS::IAM::Role")
    senders = {name for name, role in roles.items() if "sqs:SendMessage" in str(role)}
    assert used == {"kms:Decrypt": set(roles), "kms:GenerateDataKey": senders}
    assert "CallbackRole" not in senders


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

"""template.yaml: alarms, the dashboard, and the alarms that a gradual deployment looks at."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest

from crm_bridge.engine import TRANSITIONS
from crm_bridge.errors import Event
from crm_bridge.storage.operation import State
from crm_bridge.vendors import REGISTRY
from local.template import Template, bundle_template
from tests.sam_template import FUNCTIONS, RESOURCES, ROOT, SOURCE, of_samconfig, of_type

ALARMS = of_type("AWS::CloudWatch::Alarm")
VENDORS = {entry.vendor().name for entry in REGISTRY if entry.is_for_callers}


def own_metrics(alarm: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """The bridge's own metrics behind an alarm, with their dimensions."""
    for one in [alarm] + [query["MetricStat"]["Metric"] for query in alarm.get("Metrics", []) if "MetricStat" in query]:
        if one.get("Namespace") == {"Fn::Sub": "CrmBridge/${Stage}"}:
            yield one["MetricName"], {dimension["Name"]: dimension["Value"] for dimension in one.get("Dimensions", [])}


def test_every_alarm_is_published_to_the_one_topic_when_it_begins_and_when_it_is_over() -> None:
    assert list(of_type("AWS::SNS::Topic")) == ["AlarmTopic"]
    for alarm in ALARMS.values():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": "AlarmTopic"}]
        assert alarm["AlarmDescription"]


def test_every_own_metric_of_an_alarm_is_one_that_the_code_tells_with_these_dimensions() -> None:
    code = "".join(path.read_text() for root in ("functions", "layers") for path in (ROOT / root).rglob("*.py"))
    emitted = {
        (metric, frozenset(re.findall(r"\b(\w+)=", arguments)))
        for metric, arguments in re.findall(r"\b(?:count|measure)\(\s*\"(\w+)\"([^\n]*)", code)
    }
    watched = [own for alarm in ALARMS.values() for own in own_metrics(alarm)]
    assert {(metric, frozenset(dimensions)) for metric, dimensions in watched} <= emitted
    assert {name for name, _ in watched} == {
        "NeedsReview",
        "OldestReviewAge",
        "OldestDueAge",
        "SignInRefused",
        "Defects",
    }


def of_aws(alarm: str) -> dict[str, list[dict[str, Any]]]:
    """Return the metrics that a metric math alarm looks at, each with its dimensions, by the metric's id."""
    return {
        query["Id"]: query["MetricStat"]["Metric"]["Dimensions"]
        for query in ALARMS[alarm]["Metrics"]
        if "MetricStat" in query
    }


def test_an_operation_raises_one_alarm_whatever_it_needs_review_for() -> None:
    watched = [
        dimensions["reason"]
        for alarm in ALARMS.values()
        for name, dimensions in own_metrics(alarm)
        if name == "NeedsReview"
    ]
    parking = [event for (_, event), state in TRANSITIONS.items() if state is State.NEEDS_REVIEW]
    assert sorted(watched) == sorted({*parking, "quarantined"} - {Event.UNLINKED})  # that is a person's own decision


def test_no_alarm_watches_more_metrics_than_cloudwatch_takes() -> None:
    """A hard limit. Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-limits.html"""
    for alarm in ALARMS.values():
        assert sum("MetricStat" in query for query in alarm.get("Metrics", ())) <= 10


def test_every_vendor_and_every_queue_has_its_alarm() -> None:
    refused = [
        dims["vendor"] for alarm in ALARMS.values() for name, dims in own_metrics(alarm) if name == "SignInRefused"
    ]
    assert sorted(refused) == sorted(VENDORS)
    dead = [
        queue["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0]
        for queue in of_type("AWS::SQS::Queue").values()
        if "RedrivePolicy" in queue
    ]
    ((dimension,),) = of_aws("DeadLettersAlarm").values()
    assert dead == [dimension["Value"]["Fn::GetAtt"][0]] * len(dead)
    flows = {source.queue_arn["Fn::GetAtt"][0] for source in bundle_template().queue_sources}  # type: ignore[index]
    assert {one["Value"]["Fn::GetAtt"][0] for (one,) in of_aws("OldestMessageAlarm").values()} == flows
    assert len(dead) == len(flows)


def added(counts: Sequence[float | None]) -> list[float]:
    """Return the result of DIFF(FILL(letters, 0)), minute by minute.

    Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
    """
    return [after - before for before, after in pairwise(count or 0 for count in counts)]


@pytest.mark.parametrize(
    ("letters", "alarms"),
    [
        ([None, None, None, None], 0),  # a queue without use has no data
        ([None, None, 1, 1], 1),
        ([1, 1, 1, 1], 0),  # it was seen and left there
        ([1, 1, 2, 2], 1),  # another one, of the same flow or of another
        ([1, 2, 1, 2], 2),  # while others are removed
        ([3, 3, 0, None], 0),  # the queue was emptied
    ],
)
def test_a_dead_letter_raises_the_alarm_once_when_it_comes(letters: list[float | None], alarms: int) -> None:
    alarm = ALARMS["DeadLettersAlarm"]
    (math,) = (query["Expression"] for query in alarm["Metrics"] if "Expression" in query)
    assert math == "DIFF(FILL(letters, 0))"
    assert list(of_aws("DeadLettersAlarm")) == ["letters"]
    assert (alarm["ComparisonOperator"], alarm["DatapointsToAlarm"]) == ("GreaterThanOrEqualToThreshold", 1)
    assert sum(value >= alarm["Threshold"] for value in added(letters)) == alarms


def test_no_alarm_looks_at_more_metrics_than_aws_takes_or_needs_more_periods_than_it_looks_at() -> None:
    for alarm in ALARMS.values():
        assert sum("MetricStat" in query for query in alarm.get("Metrics", [])) <= 10
        assert alarm.get("DatapointsToAlarm", alarm["EvaluationPeriods"]) <= alarm["EvaluationPeriods"]


def test_a_level_must_be_high_for_several_minutes_before_it_raises_an_alarm() -> None:
    for name in ("OldestDueAlarm", "OldestMessageAlarm", "LatencyAlarm", "ServerErrorsAlarm", "TableThrottlesAlarm"):
        assert 1 < ALARMS[name]["DatapointsToAlarm"] < ALARMS[name]["EvaluationPeriods"]


def test_what_is_looked_at_of_all_functions_leaves_none_out() -> None:
    for name in ("ErrorsAlarm", "ThrottlesAlarm"):
        looked_at = {
            query["MetricStat"]["Metric"]["Dimensions"][0]["Value"]["Ref"]
            for query in ALARMS[name]["Metrics"]
            if "MetricStat" in query
        }
        assert looked_at == set(FUNCTIONS)


def test_the_dashboard_is_json_shows_every_alarm_and_names_only_what_there_is() -> None:
    body = RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    widgets = json.loads(body)["widgets"]
    shown = {arn[2:-5] for arn in widgets[0]["properties"]["alarms"]}
    assert shown == set(ALARMS)
    assert {RESOURCES[name]["Condition"] for name in ALARMS} == {"HasAlarms"}
    for name in re.findall(r"\$\{(\w+)[.}]", body):
        assert name in RESOURCES or name in SOURCE["Parameters"], name
    metrics = set(re.findall(r"MetricName=\\\"(\w+)\\\"", body)) | {"OldestDueAge", "OldestReviewAge", "Defects"}
    explained = (ROOT / "docs/logs-and-metrics.md").read_text()
    assert "VendorLatency" in metrics
    assert not [name for name in metrics if f"\n| `{name}` |" not in explained]


def test_a_gradual_deployment_goes_back_on_errors_and_defects_and_dev_has_none() -> None:
    preference = SOURCE["Globals"]["Function"]["DeploymentPreference"]
    watched = [{"Ref": "ErrorsAlarm"}, {"Ref": "DefectsAlarm"}]
    assert preference["Alarms"]["Fn::If"] == ["HasAlarms", watched, [{"Ref": "AWS::NoValue"}]]
    gradual = {name for name, kind in SOURCE["Mappings"]["Deployments"].items() if kind["IsGradual"]}
    parameter = SOURCE["Parameters"]["Deployment"]
    assert gradual == set(parameter["AllowedValues"]) - {"AllAtOnce"}
    assert parameter["Default"] == "AllAtOnce"
    assert not [name for name in bundle_template().translated["Resources"] if "CodeDeploy" in name]


def test_codedeploy_watches_both_alarms_for_every_function_when_a_deployment_is_gradual() -> None:
    translated = Template(parameters=of_samconfig("prod")).translated["Resources"]
    groups = [resource for resource in translated.values() if resource["Type"] == "AWS::CodeDeploy::DeploymentGroup"]
    assert len(groups) == len(FUNCTIONS)
    for group in groups:
        assert "DEPLOYMENT_STOP_ON_ALARM" in group["Properties"]["AutoRollbackConfiguration"]["Events"]
        condition, watched, _ = group["Properties"]["AlarmConfiguration"]["Fn::If"]
        names = [alarm["Name"] for alarm in watched["Alarms"]]
        assert (condition, watched["Enabled"], names) == (
            "HasAlarms",
            True,
            [{"Ref": "ErrorsAlarm"}, {"Ref": "DefectsAlarm"}],
        )
    # A short time in which nothing may fail: one minute with one error is enough.
    for name in ("ErrorsAlarm", "DefectsAlarm"):
        assert (ALARMS[name]["EvaluationPeriods"], ALARMS[name]["Threshold"]) == (1, 1)


def test_the_latency_alarm_comes_before_api_gateway_gives_up() -> None:
    """API Gateway waits for 30 s. Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html"""
    alarm = ALARMS["LatencyAlarm"]
    assert (alarm["Namespace"], alarm["MetricName"], alarm["ExtendedStatistic"]) == (
        "AWS/ApiGateway",
        "Latency",
        "p99",
    )
    assert alarm["Dimensions"] == [{"Name": "ApiId", "Value": {"Ref": "Api"}}]
    assert alarm["Threshold"] < 1000 * SOURCE["Globals"]["Function"]["Timeout"]

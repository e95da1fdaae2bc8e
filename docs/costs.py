"""Prints the tables of costs.md out of costs.toml and template.yaml; a test compares them."""

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse

from crm_bridge.storage.operation import SHARDS
from crm_bridge.tenants import SECRET_MAX_AGE

ROOT = Path(__file__).parent.parent
FACTS = tomllib.loads((ROOT / "docs/costs.toml").read_text())
TEMPLATE: dict[str, Any] = yaml_parse((ROOT / "template.yaml").read_text())
RESOURCES: list[tuple[str, dict[str, Any]]] = [
    (resource["Type"], resource.get("Properties", {})) for resource in TEMPLATE["Resources"].values()
]
KINDS = Counter(kind for kind, _ in RESOURCES)
GIGABYTES = TEMPLATE["Globals"]["Function"]["MemorySize"] / 1024
OF_DISPATCHER = TEMPLATE["Resources"]["DispatcherFunction"]["Properties"]["MemorySize"] / 1024
BYTES_OF_AWS = sum(len(line) + 1 for line in FACTS["log"]["lines_of_aws"])
"""The bytes that Lambda and the API log for each request by themselves."""
EVENTS = 1_000_000
MINUTES = 730 * 60
"""Of a month, as AWS reckons."""
KEY_MINUTES = 5
"""For so long DynamoDB, for each connection, and SQS remember a key of KMS.

Source: https://chrisdunne.com/post/how-aws-managed-services-cache-kms-keys
"""


def usd(price: str, amount: float) -> float:
    return float(FACTS["prices"][price]["usd"] / FACTS["prices"][price]["per"] * amount)


def of_events(event: Mapping[str, float]) -> dict[str, float]:
    """The costs of a million events of a kind in a month, by service."""
    assumed = FACTS["assumed"]
    in_dynamodb = event["round_trips"] - event["vendor_calls"]
    milliseconds = event["own_ms"] + in_dynamodb * assumed["dynamodb_ms"] + event["vendor_calls"] * assumed["vendor_ms"]
    return {
        "HTTP API": usd("http_api_request", EVENTS),
        "Lambda": usd("lambda_request", EVENTS) + usd("lambda_gb_second", EVENTS * milliseconds / 1000 * GIGABYTES),
        "DynamoDB": usd("dynamodb_write", EVENTS * event["writes"]) + usd("dynamodb_read", EVENTS * event["reads"]),
        "logs": usd("log_gb", EVENTS * (event["log_bytes"] + BYTES_OF_AWS) / 1e9),
        "Secrets Manager": usd("secret_call", assumed["environments"] * MINUTES * 60 / SECRET_MAX_AGE),
    }


def alarms() -> list[dict[str, Any]]:
    """Return the template's alarms."""
    found = TEMPLATE["Resources"].values()
    return [resource["Properties"] for resource in found if resource["Type"] == "AWS::CloudWatch::Alarm"]


def metrics_of(watching: Sequence[Mapping[str, Any]]) -> int:
    """Return how many metrics alarms look at, which is what they are billed for."""
    return sum(sum("MetricStat" in metric for metric in a.get("Metrics", [{"MetricStat": a}])) for a in watching)


def besides() -> dict[str, float]:
    """The costs of a month on top with a parameter, or for what is kept."""
    assumed, site = FACTS["assumed"], FACTS["event"]["new site"]
    functions, tables, queues = (
        KINDS[f"AWS::{kind}"] for kind in ("Serverless::Function", "DynamoDB::Table", "SQS::Queue")
    )
    keys_read = (assumed["environments"] * tables + 2 * queues) * MINUTES / KEY_MINUTES
    gigabytes = EVENTS * site["link_bytes"] / 1e9
    return {
        f"`KmsKeyArn`: a key, and at most {keys_read:,.0f} requests to KMS": usd("key_month", 1)
        + usd("key_request", keys_read),
        # The dispatcher has none.
        f"`SnapStart`: {functions - 1} snapshots": usd(
            "snapshot_gb_second", (functions - 1) * GIGABYTES * MINUTES * 60
        ),
        "`SnapStart`: a thousand starts of a function": usd("snapshot_gb_restored", 1000 * GIGABYTES),
        "the links of a million sites, stored": usd("stored_gb_month", gigabytes),
        "their backup": usd("backup_gb_month", gigabytes),
    }


def idle() -> dict[str, float]:
    """The costs of a stack with one tenant in a month in which nothing happens."""
    assumed = FACTS["assumed"]
    watched = metrics_of(alarms())
    queues = sum(
        event["Type"] == "SQS" for _, properties in RESOURCES for event in properties.get("Events", {}).values()
    )
    return {
        f"{len(alarms())} alarms on {watched} metrics": usd("alarm_metric_month", watched),
        "the dashboard": usd("dashboard_month", 1),
        "the metrics `OldestDueAge` and `OldestReviewAge`": usd("metric_month", 2),
        "one tenant's secret, for one vendor or its webhook": usd("secret_month", 1),
        f"Lambda asking {queues} queues": usd("sqs_request", queues * assumed["pollers"] * 3 * MINUTES),
        "the dispatcher, every minute": usd("lambda_request", MINUTES)
        + usd("lambda_gb_second", MINUTES * assumed["dispatcher_ms"] / 1000 * OF_DISPATCHER)
        + usd("dynamodb_read", MINUTES * len(SHARDS)),
        "its logs": usd("log_gb", MINUTES * (FACTS["event"]["repeated event"]["log_bytes"] + BYTES_OF_AWS) / 1e9),
    }


def tables() -> list[str]:
    costs = {name: of_events(event) for name, event in FACTS["event"].items()}
    return [
        "\n".join(
            [
                f"| US$ for a million | {' | '.join(costs)} |",
                "|---" * (len(costs) + 1) + "|",
                *(_row(of, *(cost[of] for cost in costs.values())) for of in costs["new site"]),
                _row("**together**", *(sum(cost.values()) for cost in costs.values())),
            ]
        ),
        "\n".join(
            [
                "| what | US$ in a month |",
                "|---|---|",
                *(_row(what, cost) for what, cost in idle().items()),
                _row("**together**", sum(idle().values())),
            ]
        ),
        "\n".join(
            [
                "| besides | US$ in a month |",
                "|---|---|",
                *(_row(what, cost) for what, cost in besides().items()),
            ]
        ),
        "\n".join(
            [
                "| what | US$ | for | says |",
                "|---|---|---|---|",
                *(
                    f"| {price['what']} | {_plain(price['usd'])} | {price['per']:,} "
                    f"| [{price['by']}]({price['source']}) |"
                    for price in FACTS["prices"].values()
                ),
            ]
        ),
    ]


def _row(head: str, *amounts: float) -> str:
    return " | ".join([f"| {head}", *(f"{amount:.2f}" for amount in amounts)]) + " |"


def _plain(amount: float) -> str:
    return f"{amount:.10f}".rstrip("0").rstrip(".")


if __name__ == "__main__":
    print("\n\n".join(tables()))  # noqa: T201

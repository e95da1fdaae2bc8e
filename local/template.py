"""The contents of template.yaml, read through AWS's own SAM translator: functions, routes, queues, schedules."""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

TEMPLATE = Path(__file__).parent.parent / "template.yaml"
STORES = ("AWS::DynamoDB::Table", "AWS::SQS::Queue")
_SECONDS = {"minute": 60, "hour": 3600, "day": 86_400}


@dataclass(frozen=True)
class Function:
    name: str
    handler: str
    timeout: int
    """Seconds."""
    environment: Mapping[str, object]
    """Values may be CloudFormation expressions."""

    @property
    def package(self) -> str:
        return self.handler.partition(".")[0]


@dataclass(frozen=True)
class ApiRoute:
    method: str
    path: str
    function: str


@dataclass(frozen=True)
class QueueSource:
    queue_arn: object
    """A CloudFormation expression."""
    batch_size: int
    function: str


@dataclass(frozen=True)
class Schedule:
    seconds: int
    function: str


class _NoManagedPolicies:
    """The translator asks AWS for these; the template names none."""

    def load(self) -> dict[str, str]:
        return {}


class Template:
    """template.yaml after translation. `stores` is the part of it that a machine without Lambda can deploy.

    `parameters` take the place of defaults. Raises InvalidDocumentException if AWS's translator refuses the template.
    """

    def __init__(self, path: Path = TEMPLATE, parameters: Mapping[str, str] = {}) -> None:
        source = yaml_parse(path.read_text())
        # The translator warns of usage metrics that it did not send, which it shall not.
        logging.getLogger("samtranslator").setLevel(logging.ERROR)
        # It insists that the code was uploaded; here it is run from where it lies.
        source["Globals"]["Function"]["CodeUri"] = "s3://not/uploaded"
        for resource in source["Resources"].values():
            if resource["Type"] == "AWS::Serverless::LayerVersion":
                resource["Properties"]["ContentUri"] = "s3://not/uploaded"
        os.environ.setdefault("AWS_DEFAULT_REGION", "eu-west-1")  # the translator reads it, whichever it is
        self.translated: dict[str, Any] = transform(source, {**parameters}, _NoManagedPolicies())

    @cached_property
    def parameters(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.translated["Parameters"]
        return found

    @cached_property
    def functions(self) -> dict[str, Function]:
        return {
            name: Function(name, p["Handler"], p["Timeout"], p.get("Environment", {}).get("Variables", {}))
            for name, p in self._of_type("AWS::Lambda::Function")
        }

    @cached_property
    def routes(self) -> list[ApiRoute]:
        found = []
        for _, api in self._of_type("AWS::ApiGatewayV2::Api"):
            for path, methods in api["Body"]["paths"].items():
                for method, operation in methods.items():
                    uri = operation["x-amazon-apigateway-integration"]["uri"]["Fn::Sub"]
                    function = re.search(r"functions/\$\{(\w+)\}", uri)
                    assert function, uri
                    found.append(ApiRoute(method.upper(), path, self._behind(function[1])))
        return found

    @cached_property
    def queue_sources(self) -> list[QueueSource]:
        return [
            QueueSource(p["EventSourceArn"], p["BatchSize"], self._behind(p["FunctionName"]["Ref"]))
            for _, p in self._of_type("AWS::Lambda::EventSourceMapping")
        ]

    @cached_property
    def schedules(self) -> list[Schedule]:
        return [
            Schedule(_seconds(p["ScheduleExpression"]), self._behind(target["Arn"]["Ref"]))
            for _, p in self._of_type("AWS::Events::Rule")
            for target in p["Targets"]
        ]

    def stores(self, outputs: Mapping[str, object]) -> dict[str, object]:
        """The tables and queues as a template of their own, which answers the expressions in `outputs`."""
        kept = {
            # Whoever embeds AWS would make an RSA key for each start, to encrypt what never leaves its memory.
            name: {
                "Type": resource["Type"],
                "Properties": {
                    key: value for key, value in resource["Properties"].items() if key != "SSESpecification"
                },
            }
            for name, resource in self.translated["Resources"].items()
            if resource["Type"] in STORES
        }
        return {
            "Parameters": self.translated["Parameters"],
            "Conditions": self.translated["Conditions"],
            "Resources": kept,
            "Outputs": {name: {"Value": value} for name, value in outputs.items()},
        }

    def _behind(self, alias: str) -> str:
        function: str = self.translated["Resources"][alias]["Properties"]["FunctionName"]["Ref"]
        return function

    def _of_type(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, resource in self.translated["Resources"].items():
            if resource["Type"] == kind:
                yield name, resource["Properties"]


@cache
def bundle_template() -> Template:
    """The bundle's own, read once: the translation takes its time."""
    return Template()


def _seconds(expression: str) -> int:
    rate = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", expression)
    if rate is None:
        raise ValueError(f"only rate(...) schedules can be run here, not {expression}")
    return int(rate[1]) * _SECONDS[rate[2]]

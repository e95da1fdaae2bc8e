"""template.yaml as the tests read it: its text, its resources by type, and sets of parameters to deploy it with."""

import tomllib
from typing import Any

from samtranslator.yaml_helper import yaml_parse

from local.template import TEMPLATE

ROOT = TEMPLATE.parent
SOURCE: dict[str, Any] = yaml_parse(TEMPLATE.read_text())
RESOURCES: dict[str, Any] = SOURCE["Resources"]


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


def of_type(kind: str) -> dict[str, Any]:
    """Return the properties of the resources of a type, by their logical ids."""
    return {name: r.get("Properties", {}) for name, r in RESOURCES.items() if r["Type"] == kind}


FUNCTIONS: dict[str, Any] = of_type("AWS::Serverless::Function")
HANDLERS: dict[str, str] = {name: function["Handler"] for name, function in FUNCTIONS.items()}
VARIABLES: dict[str, object] = SOURCE["Globals"]["Function"]["Environment"]["Variables"]
"""The environment of every function."""

"""Takes out of the built layer what no function can reach: `python trim.py FOLDER`. The Makefile beside it calls it.

tests/bundle/test_layer.py checks that nothing that is left imports what was taken out.
"""

import gzip
import json
import shutil
import sys
from pathlib import Path
from typing import Any

SERVICES = frozenset({"dynamodb", "secretsmanager", "sqs"})
"""The services that botocore can be asked for. Of botocore's data the rest goes; what is not about a service stays."""

UNUSED = (
    "bin",  # scripts for a shell
    "*.dist-info/*",  # but for METADATA, from which Amazon Inspector knows what is installed
    "**/*.pyi",
    "aws_lambda_powertools/event_handler",  # half of Powertools; API Gateway has matched the route already
    "aws_lambda_powertools/utilities/parser",  # models of all event sources; see crm_bridge/__init__.py
    # Utilities that stand alone and that the bridge does not use; `make build` fails when one is gone or renamed.
    "aws_lambda_powertools/utilities/auth_alpha",
    "aws_lambda_powertools/utilities/circuit_breaker",
    "aws_lambda_powertools/utilities/data_masking",
    "aws_lambda_powertools/utilities/feature_flags",
    "aws_lambda_powertools/utilities/idempotency",
    "aws_lambda_powertools/utilities/kafka",
    "aws_lambda_powertools/utilities/streaming",
    "aws_lambda_powertools/utilities/validation",
    "boto3/data",  # of resources; the bridge uses clients
    "boto3/examples",
    "botocore/data/*/*/examples-1.json",
    "certifi/tests",
    "charset_normalizer",  # guesses what text an answer is in; the bridge reads bytes
    "charset_normalizer-*.dist-info",
    "dateutil/zoneinfo",  # for names of time zones, which no AWS answer has
    "phonenumbers/carrier.py",  # who a number belongs to and where that is: 21 MB that the bridge does not ask for
    "phonenumbers/carrierdata",
    "phonenumbers/geocoder.py",
    "phonenumbers/geodata",
    "phonenumbers/prefix.py",
    "phonenumbers/shortdata/region_*.py",  # emergency numbers and the like
    "phonenumbers/timezone.py",
    "phonenumbers/tzdata",
    "pydantic/mypy.py",
    "pydantic/v1",
)


def trim(folder: Path) -> None:
    """Raises FileNotFoundError if an entry of UNUSED fits nothing: the list is not to outlive what it is about."""
    for pattern in UNUSED:
        found = [path for path in folder.glob(pattern) if path.name != "METADATA"]
        if not found:
            raise FileNotFoundError(f"there is no {pattern} in {folder}; take it out of the list")
        for path in found:
            _remove(path)
    data = folder / "botocore" / "data"
    for service in data.iterdir():
        if service.is_dir() and service.name not in SERVICES:
            _remove(service)
    for packed in data.glob("*/*/service-2.json.gz"):
        model = json.loads(gzip.decompress(packed.read_bytes()))
        packed.with_suffix("").write_text(json.dumps(_slim(model), separators=(",", ":")))
        packed.unlink()
    endpoints = data / "endpoints.json"
    document = json.loads(endpoints.read_text())
    for partition in document["partitions"]:
        partition["services"] = {name: of for name, of in partition["services"].items() if name in SERVICES}
    endpoints.write_text(json.dumps(document, separators=(",", ":")))


def _slim(model: Any) -> Any:
    """Return a service's description without its documentation, most of it, which every cold start would read.

    And without what looks through a whole transaction for ARNs, which name their account's endpoint: the bridge names
    its tables.
    """
    if isinstance(model, list):
        return [_slim(part) for part in model]
    if isinstance(model, dict):
        return {
            name: _slim(part)
            for name, part in model.items()
            if name != "operationContextParams" and (name != "documentation" or not isinstance(part, str))
        }
    return model


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


if __name__ == "__main__":
    trim(Path(sys.argv[1]))

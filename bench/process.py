"""Runs bench/runner.py for a subject: a function as built, in a process of its own, with its surroundings in memory."""

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from bench.subjects import Subject
from local.emulator import LAYER_PATH, RUNTIME
from local.events import load_event
from local.stack import DEMO_KEY, DEMO_TENANT

PATIENCE = 600
"""Seconds for one process; the longest, with 100,000 events, takes a tenth of it."""
RUNNER = Path(__file__).parent / "runner.py"
NAMES = (
    "OPERATIONS_TABLE",
    "LINKS_TABLE",
    "API_KEYS_TABLE",
    "LOCKS_TABLE",
    "PEOPLE_TABLE",
    "TOKENS_TABLE",
    "REQUESTS_TABLE",
)
ENVIRONMENT = {
    **{name: name.removesuffix("_TABLE").lower() for name in NAMES},
    "CREATE_SITE_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/create-site",
    "CREATE_SITE_WORKERS": "2",
    "SECRET_PREFIX": "crm-bridge/bench/",
    "API_KEY_HEADERS": "x-api-key",
    "KEY_RATE": "1000000",
    "KEY_BURST": "1000000",
    # The namespace of the bridge's metrics; earlier builds read the first name. The peers name their service and
    # namespace in their code: the bridge must get no other variable of Powertools.
    "METRICS_NAMESPACE": "CrmBridge/bench",
    "POWERTOOLS_METRICS_NAMESPACE": "CrmBridge/bench",
    "PEER_TABLE": "peer",
    "PEER_MAPPINGS": "peer-mappings",
    "PEER_SECRET": f"crm-bridge/bench/illu/{DEMO_TENANT}",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_LAMBDA_FUNCTION_NAME": "bench",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PATH": os.defpath,
}


def run(subject: Subject, what: str, **order: object) -> Any:
    """Return what the runner measured. Raises AssertionError with the process's output if it failed; TimeoutExpired."""
    event = load_event("create_site", "new")
    body = json.loads(event["body"]) | {"customer_id": "C-NUMBER", "name": "Shop NUMBER"}
    illu = {"base_url": "https://illu.example", "org_id": 88, "api_key": "of-no-use"}
    key = {
        "key_hash": {"S": hashlib.sha256(DEMO_KEY.encode()).hexdigest()},
        "tenant": {"S": DEMO_TENANT},
        "scopes": {"SS": ["create_site"]},
        "label": {"S": "bench"},
    }
    order |= {
        "what": what,
        "handler": subject.handler,
        "event": event,
        "body": json.dumps(body),
        "secret": json.dumps({"illu": illu}),
        "items": [[ENVIRONMENT["API_KEYS_TABLE"], key]],
    }
    function = subject.build / subject.function
    done = subprocess.run(
        [RUNTIME, RUNNER],
        input=json.dumps(order),
        env={**ENVIRONMENT, "PYTHONPATH": f"{function}:{subject.build / LAYER_PATH}"},
        cwd=function,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(f"{subject.name} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout)

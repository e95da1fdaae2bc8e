"""The subjects of the measures: our function and its peers, each as built."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import boto3

from local.events import load_event
from local.sam import BUNDLE, ROOT
from local.stack import DEMO_TENANT, Stack

BY_DEFAULT = ROOT / ".aws-sam" / "by-default"
PEERS = ROOT / ".aws-sam" / "peers"
COMPILED = ROOT / ".aws-sam" / "peers-compiled"

_numbers = count(1)


@dataclass(frozen=True)
class Subject:
    """`build` is a folder that `sam build` made, in which `function` is one; `name` is what it is called in results."""

    name: str
    function: str
    build: Path
    handler: str = "handler.lambda_handler"


OURS = Subject("CRM Bridge", "CreateSiteFunction", BUNDLE, "create_site.handler.lambda_handler")
FLOOR = Subject("floor", "Floor", COMPILED)
PLAIN = Subject("plain handler", "Plain", COMPILED)
POWERTOOLS = Subject("Powertools", "Powertools", COMPILED)
FASTAPI = Subject("FastAPI + Mangum", "FastApiMangum", COMPILED)
COMPARED = (OURS, PLAIN, POWERTOOLS, FASTAPI)


def ours_in(build: Path) -> Subject:
    """Our function in another build of this project, named by the build's folder."""
    return Subject(str(build), OURS.function, build.resolve(), OURS.handler)


def by_default(subject: Subject) -> Subject:
    """The same as `sam build` packages it by default: without bytecode, and with all that came along."""
    return Subject(subject.name, subject.function, BY_DEFAULT if subject == OURS else PEERS, subject.handler)


@contextmanager
def surroundings() -> Iterator[tuple[Stack, dict[str, str]]]:
    """The local stack and the peers' tables, and the environment in which all subjects find them."""
    with Stack(background=False) as stack:
        for table in ("peer", "peer-mappings"):
            boto3.client("dynamodb").create_table(
                TableName=table,
                KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
        secret = f"{stack.environment['SECRET_PREFIX']}illu/{DEMO_TENANT}"
        yield (
            stack,
            {**stack.environment, "PEER_TABLE": "peer", "PEER_MAPPINGS": "peer-mappings", "PEER_SECRET": secret},
        )


def new_event(number: int | None = None) -> dict[str, Any]:
    """The event of a customer that nobody has heard of; with a `number`, of that one."""
    event = load_event("create_site", "new")
    number = next(_numbers) if number is None else number
    event["body"] = json.dumps({**json.loads(event["body"]), "customer_id": f"C-{number}", "name": f"Shop {number}"})
    return event

"""The events in events/: each does what its name says."""

import json
import os
import re
from dataclasses import asdict
from typing import Any

import pytest

from crm_bridge.runtime import runtime
from crm_bridge.storage.links import parted
from crm_bridge.vendors import called_functions
from local.events import EVENTS, function_of, load_event
from local.vendors.simulator import Kind
from openapi.recorded import Recorded, as_recorded, recorded
from operations.flows import flows
from tests.cases import CASES, QUEUED
from tests.stack import Stack


def invoke(stack: Stack, event: str) -> Any:
    flow, case = event.split("/")
    return stack.invoke(function_of(flow), load_event(flow, case))


def steady(answer: Recorded) -> str:
    """Without times and ids, which are others every time."""
    return re.sub(
        r"\d{4}-\d\d-\d\d[T ][\d:.]+(\+00:00|Z)?|\.\d{10}\.|\b(op|p|req)_[0-9a-f]{32}"
        r"|\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b",
        "…",
        json.dumps(asdict(answer)),
    )


RECORDED = [steady(one) for one in recorded()]
"""The examples in docs/openapi.json. `python -m tests.record_responses` writes them again."""


@pytest.mark.parametrize(("event", "before", "status"), CASES, ids=[case[0] for case in CASES])
def test_an_event_does_what_its_name_says(stack: Stack, event: str, before: list[str], status: int) -> None:
    for earlier in before:
        invoke(stack, earlier)
    answer = invoke(stack, event)
    assert answer["statusCode"] == status, answer["body"]
    assert steady(as_recorded(event, answer)) in RECORDED
    assert_parts_of_keys_have_names()


def assert_parts_of_keys_have_names() -> None:
    """The console shows the parts of an event key by the names that its flow gives them."""
    for item in runtime().dynamodb.scan(TableName=os.environ["OPERATIONS_TABLE"])["Items"]:
        if "event_key" in item:  # an item of an operation's later payload has none
            flow, key = item["flow"]["S"], item["event_key"]["S"]
            names = flows()[flow].key_parts or (flow,)
            needed = len([name for name in names if name != "fingerprint"])  # where a time alone may not be unique
            assert needed <= len(parted(key)) <= len(names), (flow, key)


def test_the_late_event_is_ignored(stack: Stack) -> None:
    invoke(stack, "status_update/by_key")
    assert json.loads(invoke(stack, "status_update/older")["body"])["ignored"] == "older"
    assert stack.izzitup.status_of("2") == "7"


@pytest.mark.parametrize(("flow", "case", "vendor", "before"), QUEUED)
def test_the_queue_event_retries_the_operation_of_another_event(
    stack: Stack, flow: str, case: str, vendor: str, before: list[str]
) -> None:
    for earlier in before:
        invoke(stack, earlier)
    simulator = getattr(stack, vendor)
    simulator.fail(Kind.UNAVAILABLE)
    accepted = invoke(stack, f"{flow}/{case}")
    assert accepted["statusCode"] == 202
    assert steady(as_recorded(f"{flow}/{case}", accepted)) in RECORDED
    stack.move_clock(60)
    assert invoke(stack, f"{flow}/from_queue") == {"batchItemFailures": []}
    assert invoke(stack, f"{flow}/{case}")["statusCode"] == 200


def test_every_event_is_tried_here() -> None:
    tried = {event for event, _, _ in CASES}
    there = {f"{path.parent.name}/{path.stem}" for path in EVENTS.rglob("*.json")}
    assert there == tried | {f"{function}/from_queue" for function in called_functions()}
    assert {flow for flow, *_ in QUEUED} == called_functions()

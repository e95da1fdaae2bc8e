"""The events in events/: each does what its name says."""

import json
from typing import Any

import pytest

from local.events import EVENTS, load_event
from local.stack import Stack
from local.vendors.simulator import Kind

FUNCTIONS = {
    "create_site": "CreateSiteFunction",
    "create_job": "CreateJobFunction",
    "key_link": "KeyLinkFunction",
    "status_update": "StatusUpdateFunction",
    "connector_receiver": "ConnectorReceiverFunction",
    "operations": "OperationsFunction",
}
CASES: list[tuple[str, list[str], int]] = [
    ("create_site/new", [], 201),
    ("create_site/repeated", ["create_site/new"], 200),
    ("create_site/invalid", [], 422),
    ("create_site/upya", [], 201),
    ("create_job/new", ["create_site/new"], 201),
    ("create_job/repeated", ["create_site/new", "create_job/new"], 200),
    ("create_job/invalid", [], 422),
    ("create_job/no_site", [], 409),
    ("create_job/with_site", [], 201),
    ("create_job/upya", ["create_site/upya"], 201),
    ("key_link/new", [], 201),
    ("key_link/repeated", ["key_link/new"], 200),
    ("key_link/unknown_name", [], 422),
    ("key_link/unknown_record", [], 422),
    ("key_link/invalid", [], 422),
    ("key_link/search", ["key_link/new"], 200),
    ("key_link/get", ["key_link/new"], 200),
    ("key_link/change", ["key_link/new"], 200),
    ("key_link/not_there", [], 404),
    ("key_link/delete", ["key_link/new"], 204),
    ("key_link/systems", [], 200),
    ("key_link/entity_types", [], 200),
    ("status_update/list", [], 200),
    ("status_update/by_key", [], 200),
    ("status_update/repeated", ["status_update/by_key"], 200),
    ("status_update/by_id", [], 200),
    ("status_update/by_name", [], 200),
    ("status_update/older", ["status_update/by_key"], 200),
    ("status_update/unknown_service", [], 404),
    ("status_update/invalid", [], 422),
    ("connector_receiver/staff", [], 200),
    ("connector_receiver/lead_sources", [], 200),
    ("connector_receiver/lead_source_new", [], 201),
    ("connector_receiver/lead_source_repeated", ["connector_receiver/lead_source_new"], 200),
    ("connector_receiver/lead_source_change", [], 200),
    ("connector_receiver/prospect", [], 201),
    ("connector_receiver/prospect_repeated", ["connector_receiver/prospect"], 200),
    ("connector_receiver/prospect_unknown_owner", [], 201),
    ("connector_receiver/prospect_change", ["connector_receiver/prospect"], 200),
    ("connector_receiver/member", ["connector_receiver/prospect"], 200),
    ("connector_receiver/ex_member", ["connector_receiver/prospect", "connector_receiver/member"], 200),
    ("connector_receiver/member_xml", [], 201),
    ("connector_receiver/invalid", [], 422),
    ("connector_receiver/entities", [], 400),
    ("connector_receiver/unknown_club", [], 404),
    ("connector_receiver/unknown_person", [], 404),
    ("connector_receiver/check", [], 200),
    ("operations/list", ["create_site/new"], 200),
    ("operations/show", ["create_site/new"], 200),
    ("operations/links", ["create_site/new"], 200),
    ("operations/resolve", ["create_site/new"], 409),
]


def invoke(stack: Stack, event: str) -> Any:
    flow, case = event.split("/")
    return stack.invoke(FUNCTIONS[flow], load_event(flow, case))


@pytest.mark.parametrize(("event", "before", "status"), CASES, ids=[case[0] for case in CASES])
def test_an_event_does_what_its_name_says(stack: Stack, event: str, before: list[str], status: int) -> None:
    for earlier in before:
        invoke(stack, earlier)
    answer = invoke(stack, event)
    assert answer["statusCode"] == status, answer["body"]


def test_the_late_event_is_ignored(stack: Stack) -> None:
    invoke(stack, "status_update/by_key")
    assert json.loads(invoke(stack, "status_update/older")["body"])["ignored"] == "older"
    assert stack.izzitup.status_of("2") == "7"


@pytest.mark.parametrize(
    ("flow", "case", "vendor", "before"),
    [
        ("create_site", "new", "illu", []),
        ("create_job", "new", "illu", ["create_site/new"]),
        ("key_link", "new", "revio", []),
        ("status_update", "by_key", "izzitup", []),
        ("connector_receiver", "lead_source_new", "egito", []),
    ],
)
def test_the_queue_event_redelivers_the_operation_of_another_event(
    stack: Stack, flow: str, case: str, vendor: str, before: list[str]
) -> None:
    for earlier in before:
        invoke(stack, earlier)
    simulator = getattr(stack, vendor)
    simulator.fail(Kind.UNAVAILABLE)
    assert invoke(stack, f"{flow}/{case}")["statusCode"] == 202
    stack.move_clock(60)
    assert invoke(stack, f"{flow}/from_queue") == {"batchItemFailures": []}
    assert invoke(stack, f"{flow}/{case}")["statusCode"] == 200


def test_every_event_is_tried_here() -> None:
    tried = {event for event, _, _ in CASES}
    there = {f"{path.parent.name}/{path.stem}" for path in EVENTS.rglob("*.json")}
    assert there == tried | {
        f"{flow}/from_queue"
        for flow in ("create_site", "create_job", "key_link", "status_update", "connector_receiver")
    }

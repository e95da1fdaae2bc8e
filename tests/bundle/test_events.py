"""Every function, as built, under AWS's own runtime answers every event as it does in the local stack."""

import json
import re
from collections.abc import Callable, Mapping, Set
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from local.emulator import Emulator
from local.events import EVENTS, function_of, load_event
from local.stack import WEBHOOK_KEY
from local.vendors.simulator import Kind
from openapi.recorded import EGITO, SIMULATOR
from tests.bundle.conftest import need_emulator
from tests.cases import CASES
from tests.conftest import NEVER_LOGGED, forget_settings
from tests.stack import Stack

type Invoke = Callable[[str, Mapping[str, Any]], Any]
"""A function of the template by its name, and the event that it gets."""

RETRIED = [
    ("create_site", "new", "illu"),
    ("create_job", "new", "illu"),
    ("key_link", "new", "revio"),
    ("status_update", "by_key", "izzitup"),
    ("connector_receiver", "lead_source_new", "egito"),
]
"""The events whose operation the queue event of their flow names, and the vendor that is down at first."""
HOUR = 3600


def play(stack: Stack, invoke: Invoke) -> dict[str, Any]:
    """All events, one after the other, so that each finds what those before it did."""
    answers = {}
    for event, _, _ in CASES:
        flow, case = event.split("/")
        answers[event] = invoke(function_of(flow), load_event(flow, case))
    _forget_operations()
    for flow, case, vendor in RETRIED:
        _accept_an_hour_ago(stack, vendor, function_of(flow), load_event(flow, case))
        answers[f"{flow}/from_queue"] = invoke(function_of(flow), load_event(flow, "from_queue"))
        answers[f"{flow}/{case} once more"] = invoke(function_of(flow), load_event(flow, case))
    return answers


def _accept_an_hour_ago(stack: Stack, vendor: str, function: str, event: Mapping[str, Any]) -> None:
    """An operation that is due, although the functions under the emulator have a clock that cannot be moved."""
    getattr(stack, vendor).fail(Kind.UNAVAILABLE)
    stack.move_clock(-HOUR)
    answer: Any = stack.invoke(function, event)
    stack.move_clock(HOUR)
    assert answer["statusCode"] == 202, answer


def play_queues(stack: Stack, invoke: Invoke) -> dict[str, Any]:
    """Events that are due go from the dispatcher over the queues, at last to the tenant that has a webhook."""
    event = load_event("create_site", "new")
    event["headers"]["authorization"] = f"Bearer {WEBHOOK_KEY}"
    _accept_an_hour_ago(stack, "illu", "CreateSiteFunction", event)
    answers = {}
    for function, queue in (("CreateSiteFunction", "CREATE_SITE"), ("WebhookFunction", "WEBHOOK")):
        answers[f"dispatched to {function}"] = invoke("DispatcherFunction", {})
        answers[f"taken by {function}"] = invoke(function, _message(stack, f"{queue}_QUEUE_URL"))
    for state in ("succeeded", "waiting", "rejected"):
        listing = load_event("operations", "list") | {"queryStringParameters": {"state": state}}
        listing["headers"]["authorization"] = f"Bearer {WEBHOOK_KEY}"
        answers[f"{state} in the end"] = _in_order(invoke("OperationsFunction", listing))
    return answers


def _in_order(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer with its operations by flow: those of the same second are listed in any order."""
    body = json.loads(answer["body"])
    body["operations"].sort(key=lambda operation: (operation["flow"], operation["event_key"]))
    return answer | {"body": json.dumps(body)}


def _message(stack: Stack, queue: str) -> dict[str, Any]:
    """Return the event that an event source mapping makes of the one message in a queue."""
    sqs = boto3.client("sqs")
    [message] = sqs.receive_message(QueueUrl=stack.environment[queue])["Messages"]
    event = load_event("create_site", "from_queue")
    event["Records"][0] |= {"body": message["Body"], "messageId": message["MessageId"]}
    return event


def _forget_operations() -> None:
    """Empty tables and queues, so that the events are new again: those of a source were put on a queue at once."""
    sqs = boto3.client("sqs")
    for queue in sqs.list_queues()["QueueUrls"]:
        sqs.purge_queue(QueueUrl=queue)
    dynamodb = boto3.client("dynamodb")
    for table in dynamodb.list_tables()["TableNames"]:
        keys = [key["AttributeName"] for key in dynamodb.describe_table(TableName=table)["Table"]["KeySchema"]]
        if keys == ["key_hash"]:
            continue
        for item in dynamodb.scan(TableName=table)["Items"]:
            dynamodb.delete_item(TableName=table, Key={key: item[key] for key in keys})


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """By event or step: the answer in the local stack's process, and that of what was built."""
    need_emulator()
    log = tmp_path_factory.mktemp("emulator") / "log"
    begin = datetime.now(UTC)
    with pytest.MonkeyPatch.context() as monkeypatch:
        forget_settings(monkeypatch)
        with Stack(background=False) as stack:
            here = play(stack, stack.invoke) | play_queues(stack, stack.invoke)
        with Stack(background=False) as stack, log.open("wb") as stream, ExitStack() as exits:
            running: dict[str, Emulator] = {}

            def invoke(name: str, event: Mapping[str, Any]) -> Any:
                if name not in running:
                    function = stack.template.functions[name]
                    emulator = Emulator(name, function.handler, function.timeout, stack.environment, stream)
                    running[name] = exits.enter_context(emulator)
                return running[name].invoke(event)

            built = play(stack, invoke) | play_queues(stack, invoke)
            assert running.keys() == stack.template.functions.keys()
    written = log.read_text()
    assert "INIT REPORT" in written  # it is the emulator's
    assert not [secret for secret in NEVER_LOGGED if secret in written]
    in_both = set(_ID.findall(json.dumps(here))) & set(_ID.findall(json.dumps(built)))
    both = [comparable(answers, in_both, begin) for answers in (here, built)]
    return {step: (both[0][step], both[1][step]) for step in here}


_ID = re.compile("[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def comparable(answers: Mapping[str, Any], kept: Set[str], begin: datetime) -> dict[str, str]:
    """Answers without the times of this run, and with the ids that are random numbered as they appear."""
    days = "|".join((begin + timedelta(days)).strftime("%Y-%m-%d") for days in (-1, 0, 1))
    time = re.compile(rf"({days})[T ]\d\d:\d\d:\d\d(\.\d+)?")
    numbers: dict[str, str] = {}

    def numbered(found: re.Match[str]) -> str:
        return found[0] if found[0] in kept else numbers.setdefault(found[0], f"#{len(numbers)}")

    return {
        step: _ID.sub(numbered, re.sub(SIMULATOR, EGITO, time.sub("(now)", json.dumps(answer))))
        for step, answer in answers.items()
    }


STEPS = [
    *(event for event, _, _ in CASES),
    *(step for flow, case, _ in RETRIED for step in (f"{flow}/from_queue", f"{flow}/{case} once more")),
    *(
        step
        for name in ("CreateSiteFunction", "WebhookFunction")
        for step in (f"dispatched to {name}", f"taken by {name}")
    ),
    *(f"{state} in the end" for state in ("succeeded", "waiting", "rejected")),
]


@pytest.mark.parametrize("step", STEPS)
def test_the_built_function_answers_as_the_local_stack_does(played: dict[str, tuple[str, str]], step: str) -> None:
    here, built = played[step]
    assert built == here


@pytest.mark.parametrize(("event", "status"), [(event, status) for event, _, status in CASES])
def test_the_built_function_answers_with_the_status_of_the_case(
    played: dict[str, tuple[str, str]], event: str, status: int
) -> None:
    assert json.loads(played[event][1])["statusCode"] == status


@pytest.mark.parametrize("flow", [flow for flow, _, _ in RETRIED])
def test_the_built_function_retries(played: dict[str, tuple[str, str]], flow: str) -> None:
    assert json.loads(played[f"{flow}/from_queue"][1]) == {"batchItemFailures": []}
    [again] = [step for step in played if step.startswith(f"{flow}/") and step.endswith(" once more")]
    assert json.loads(played[again][1])["statusCode"] == 200


def test_what_the_dispatcher_lends_is_sent_and_reported(played: dict[str, tuple[str, str]]) -> None:
    assert json.loads(played["dispatched to CreateSiteFunction"][1]) == {"create_site": 1}
    assert json.loads(played["dispatched to WebhookFunction"][1]) == {}  # create_site has put it on its queue
    assert '\\"flow\\": \\"create_site\\"' in played["succeeded in the end"][1]
    assert '\\"flow\\": \\"webhook\\"' in played["succeeded in the end"][1]


def test_every_event_and_every_step_is_compared(played: dict[str, tuple[str, str]]) -> None:
    events = {f"{path.parent.name}/{path.stem}" for path in EVENTS.rglob("*.json")}
    assert events <= set(STEPS)
    assert set(STEPS) == played.keys()

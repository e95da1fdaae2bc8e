"""The HTTP entry: who may call, what may be sent, and what every answer looks like."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from crm_bridge import errors
from crm_bridge.api import MAX_BODY, Request, Response, respond
from crm_bridge.errors import FieldError, InvalidError, ProblemError, RunningError, StorageError
from crm_bridge.tenants import Caller
from tests.unit.conftest import Tables


@pytest.fixture
def emulator() -> str:
    return "moto"


class Pet(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=5)
    legs: float = 4


@dataclass
class Context:
    aws_request_id: str = "request-1"

    def get_remaining_time_in_millis(self) -> int:
        return 29_000


class Door:
    """The API with one route, `POST /pets`, and whatever a test lets that do."""

    def __init__(self, tables: Tables) -> None:
        self.keys = tables.keys
        self.seen: list[Request] = []
        self.raises: Exception | None = None
        tables.keys.add("good-key", "acme", frozenset({"pets"}), "test")
        tables.keys.add("other-key", "acme", frozenset({"cats"}), "test")

    def ask(self, body: str | bytes = '{"name": "Rex"}', **headers: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        sent = {"authorization": "Bearer good-key", "content-type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        event: dict[str, Any] = {"routeKey": "POST /pets", "headers": {k: v for k, v in sent.items() if v}}
        if isinstance(body, bytes):
            event |= {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
        else:
            event |= {"body": body, "isBase64Encoded": False}
        return self.answer(event)

    def answer(self, event: Mapping[str, Any]) -> tuple[int, dict[str, Any], dict[str, str]]:
        answer = respond(event, Context(), {"POST /pets": self._pets}, scope="pets", keys=self.keys)
        status, body, headers = answer["statusCode"], answer["body"], answer["headers"]
        assert isinstance(status, int)
        assert isinstance(body, str)
        assert isinstance(headers, dict)
        return status, json.loads(body), headers

    def _pets(self, request: Request) -> Response:
        self.seen.append(request)
        if self.raises:
            raise self.raises
        return Response(201, request.parse(Pet).model_dump())


@pytest.fixture
def door(tables: Tables) -> Door:
    return Door(tables)


def test_answers_what_the_route_says(door: Door) -> None:
    status, body, headers = door.ask()
    assert (status, body) == (201, {"name": "Rex", "legs": 4.0})
    assert headers["Content-Type"] == "application/json"
    assert headers["Cache-Control"] == "no-store"
    assert door.seen[0].caller == Caller("acme", frozenset({"pets"}), "test")
    assert 20 < door.seen[0].deadline.remaining() <= 21  # what is left after the reserve for settling


def test_the_event_is_not_logged_when_powertools_is_told_to(
    door: Door, log: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("POWERTOOLS_LOGGER_LOG_EVENT", "POWERTOOLS_DEBUG", "POWERTOOLS_DEV"):
        monkeypatch.setenv(variable, "true")
    assert door.ask()[0] == 201
    assert "answered" in log.getvalue()
    assert "Rex" not in log.getvalue()  # that no API key is logged is held for every test


@pytest.mark.parametrize("left_out", ["null", "not there"])
@pytest.mark.parametrize("name", ["headers", "pathParameters", "queryStringParameters", "body", "isBase64Encoded"])
def test_never_raises_when_api_gateway_leaves_something_out(door: Door, name: str, left_out: str) -> None:
    event = {"routeKey": "POST /pets", "headers": {"authorization": "Bearer good-key"}, "body": '{"name": "Rex"}'}
    event[name] = None
    if left_out == "not there":
        del event[name]
    assert door.answer(event)[0] == {"headers": 401, "body": 400}.get(name, 201)


# ---------------------------------------------------------------- who may call


def _basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer good-key"},
        {"authorization": "bearer  good-key "},
        {"authorization": _basic("any-user:good-key")},
        {"authorization": _basic(":good-key")},
        {"authorization": "", "x_api_key": "good-key"},
        {"authorization": "", "api_key": "good-key"},
        {"authorization": "", "Api_Key": " good-key"},
        {"authorization": "Digest something", "api_key": "good-key"},
    ],
)
def test_lets_in_when_the_key_comes_in_any_of_the_ways(door: Door, headers: dict[str, str]) -> None:
    assert door.ask(**headers)[0] == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wrong-key"},
        {"authorization": "Bearer GOOD-KEY"},
        {"authorization": "good-key"},
        {"authorization": "Basic good-key"},
        {"authorization": "Basic !!!"},
        {"authorization": "Basic /w=="},
        {"authorization": _basic("good-key")},
        {"authorization": _basic("good-key:")},
        {"authorization": "", "x_other": "good-key"},
        {"authorization": "", "cookie": "x-api-key=good-key"},
        {"authorization": "Bearer wrong-key", "x_api_key": "good-key"},  # what is stated first counts
    ],
)
def test_is_401_when_there_is_no_valid_key(door: Door, headers: dict[str, str]) -> None:
    status, body, _ = door.ask(**headers)
    assert status == 401
    assert body["type"] == "urn:crm-bridge:problem:unauthenticated"
    assert door.seen == []


def test_is_401_for_wrong_json_too_when_there_is_no_key(door: Door) -> None:
    assert door.ask("{", authorization="")[0] == 401


def test_is_403_when_the_key_lacks_the_scope(door: Door) -> None:
    status, body, _ = door.ask(authorization="Bearer other-key")
    assert status == 403
    assert "pets" in body["detail"]
    assert door.seen == []


def test_is_404_when_the_function_has_no_such_route(door: Door) -> None:
    event = {"routeKey": "DELETE /pets", "headers": {"authorization": "Bearer good-key"}}
    assert door.answer(event)[0] == 404


# ---------------------------------------------------------------- what may be sent


@pytest.mark.parametrize(
    "body",
    [
        "",
        " \n",
        "\x00",
        "{",
        "nope",
        "{'name': 'Rex'}",
        '{"name": "Rex"}x',
        '{"name": "Rex", "legs": NaN}',
        '{"name": "Rex", "legs": -Infinity}',
        '{"name": "\\ud800"}',
        "[" * 100_000,
        b"\xff\xfe",
        b'{"name": "\xe9"}',
    ],
    ids=lambda body: repr(body[:24]),
)
def test_is_400_when_the_body_is_not_json(door: Door, body: str | bytes) -> None:
    status, problem, _ = door.ask(body)
    assert status == 400
    assert problem["type"] == "urn:crm-bridge:problem:not-json"


@pytest.mark.parametrize("body", ["[]", '[{"name": "Rex"}]', '"Rex"', "1", "null", "true"])
def test_is_422_when_the_body_is_not_an_object(door: Door, body: str) -> None:
    status, problem, _ = door.ask(body)
    assert status == 422
    assert problem["errors"] == [{"field": "", "message": "must be an object"}]


def test_is_422_and_names_every_field_when_several_are_wrong(door: Door) -> None:
    status, problem, _ = door.ask('{"name": "Methuselah", "legs": "many", "tail": 1}')
    assert status == 422
    assert [error["field"] for error in problem["errors"]] == ["name", "legs", "tail"]
    assert problem["errors"][2]["message"] == "is not known here; known are name, legs"
    assert "Methuselah" not in json.dumps(problem)  # a problem never repeats the input
    assert door.ask("{}")[1]["errors"] == [{"field": "name", "message": "is required"}]


def test_is_413_when_the_body_is_too_large(door: Door) -> None:
    filler = '{"name": "Rex"}'
    assert door.ask(filler + " " * (MAX_BODY - len(filler)))[0] == 201
    status, problem, _ = door.ask(filler + " " * (MAX_BODY - len(filler) + 1))
    assert status == 413
    assert str(MAX_BODY) in problem["detail"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "text/json", "json", "*/*"])
def test_is_415_when_the_body_says_to_be_something_else(door: Door, kind: str) -> None:
    status, problem, _ = door.ask(content_type=kind)
    assert status == 415
    assert "application/json" in problem["detail"]


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.crm+json", ""]
)
def test_takes_json_under_its_other_names(door: Door, kind: str) -> None:
    assert door.ask(content_type=kind)[0] == 201


def test_reads_a_body_that_the_gateway_encoded(door: Door) -> None:
    assert door.ask('{"name": "Réx"}'.encode())[1]["name"] == "Réx"


@pytest.mark.parametrize(
    ("prefer", "later"),
    [
        ("respond-async", True),
        ("Respond-Async, wait=10", True),
        ("wait=5,respond-async;x=1", True),
        ("", False),
        ("respond-asynchronously", False),
        ("return=minimal", False),
    ],
)
def test_knows_when_the_caller_prefers_not_to_wait(door: Door, prefer: str, later: bool) -> None:
    door.ask(prefer=prefer)
    assert door.seen[0].wants_later is later


# ---------------------------------------------------------------- problems


def test_is_a_problem_document_when_a_route_fails(door: Door) -> None:
    door.raises = RunningError("Ask again.", headers={"Retry-After": "2"}, operation_id="op_1")
    status, body, headers = door.ask()
    assert status == 409
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["Retry-After"] == "2"
    assert body == {
        "type": "urn:crm-bridge:problem:running",
        "title": "The same event is being carried right now",
        "status": 409,
        "detail": "Ask again.",
        "retryable": True,
        "operation_id": "op_1",
    }


def test_names_the_fields_in_a_problem(door: Door) -> None:
    door.raises = InvalidError("No.", fields=[FieldError("site.latitude", "is too far north")])
    assert door.ask()[1]["errors"] == [{"field": "site.latitude", "message": "is too far north"}]


def test_is_503_and_retryable_when_the_storage_fails(door: Door) -> None:
    door.raises = StorageError("Send it again.")
    status, body, _ = door.ask()
    assert (status, body["retryable"]) == (503, True)


def test_is_500_without_a_word_of_the_error_when_something_unexpected_fails(door: Door, log: StringIO) -> None:
    door.raises = ValueError("Moi Ave 12 belongs to a customer")
    status, body, _ = door.ask()
    assert status == 500
    assert body["type"] == "urn:crm-bridge:problem:internal"
    told = json.dumps(body) + log.getvalue()
    assert "Moi Ave" not in told
    assert "ValueError" in told
    assert "test_api.py" in told  # where it happened


def test_every_problem_has_its_own_type_and_a_status() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ProblemError)]
    with_status = [kind for kind in kinds if "status" in vars(kind)]
    assert len(with_status) >= 12
    assert len({kind.kind for kind in with_status}) == len(with_status)
    assert all(400 <= kind.status < 600 for kind in with_status)

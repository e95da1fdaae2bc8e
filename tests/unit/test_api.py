"""The HTTP entry: who may call, what may be sent, and what every answer looks like."""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import StringIO
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from crm_bridge import errors
from crm_bridge.errors import (
    ContractBrokenError,
    FieldError,
    InvalidError,
    MissingError,
    NotDoneError,
    ProblemError,
    RunningError,
    StorageError,
)
from crm_bridge.inbound.api import MAX_BODY, Request, Response, respond
from crm_bridge.storage.api_keys import Caller
from crm_bridge.telemetry import log_result
from tests.clock import Clock
from tests.unit.conftest import BURST, Tables

GOOD, OTHER, READS, WRONG = (f"crmb_{name:0<43}" for name in ("good-key", "other-key", "reads", "wrong-key"))


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
        self.kept: list[dict[str, Any]] = []
        self.raises: Exception | None = None
        self.during: Callable[[], None] = lambda: None
        tables.keys.add(GOOD, "acme", frozenset({"pets"}), "test")
        tables.keys.add(OTHER, "acme", frozenset({"cats"}), "test")
        tables.keys.add(READS, "acme", frozenset({"pets:read"}), "test")

    def ask(self, body: str | bytes = '{"name": "Rex"}', **headers: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        sent = {"authorization": f"Bearer {GOOD}", "content-type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        event: dict[str, Any] = {"routeKey": "POST /pets", "headers": {k: v for k, v in sent.items() if v}}
        if isinstance(body, bytes):
            event |= {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
        else:
            event |= {"body": body, "isBase64Encoded": False}
        return self.answer(event)

    def answer(self, event: Mapping[str, Any]) -> tuple[int, dict[str, Any], dict[str, str]]:
        answer = respond(
            event,
            Context(),
            {"POST /pets": self._pets, "GET /pets": self._pets},
            function="pets",
            keys=self.keys,
            scopes={"GET /pets": "pets:read"},
        )
        status, body, headers = answer["statusCode"], answer["body"], answer["headers"]
        assert isinstance(status, int)
        assert isinstance(body, str)
        assert isinstance(headers, dict)
        return status, json.loads(body), headers

    def _pets(self, request: Request) -> Response:
        self.seen.append(request)
        self.during()
        if self.raises:
            raise self.raises
        return Response(201, request.parse(Pet).model_dump())


@pytest.fixture
def door(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> Door:
    door = Door(tables)
    monkeypatch.setattr("crm_bridge.inbound.refusals.keep_refused", lambda *_, **what: door.kept.append(what))
    return door


def test_what_is_refused_is_kept_when_its_caller_is_known(door: Door) -> None:
    door.ask()
    door.ask(authorization=f"Bearer {WRONG}")
    assert door.kept == []
    door.ask('{"name": "too long"}')
    door.ask(authorization=f"Bearer {OTHER}")
    door.ask("{")
    assert [(one["tenant"], one["route"], one["sender"], one["body"]) for one in door.kept] == [
        ("acme", "POST /pets", "test", {"name": "too long"}),
        ("acme", "POST /pets", "test", None),
        ("acme", "POST /pets", "test", None),
    ]
    door.raises = StorageError("later")
    door.ask()
    assert len(door.kept) == 3


def test_answers_what_the_route_says(door: Door) -> None:
    status, body, headers = door.ask()
    assert (status, body) == (201, {"name": "Rex", "legs": 4.0})
    assert headers["Content-Type"] == "application/json"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert door.seen[0].caller == Caller("acme", frozenset({"pets"}), "test")
    assert 20 < door.seen[0].deadline.remaining() <= 21  # what is left after the reserve for settling


def test_the_event_is_not_logged_when_powertools_is_set_to(
    door: Door, log: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("POWERTOOLS_LOGGER_LOG_EVENT", "POWERTOOLS_DEBUG", "POWERTOOLS_DEV"):
        monkeypatch.setenv(variable, "true")
    assert door.ask()[0] == 201
    assert "answered" in log.getvalue()
    assert "Rex" not in log.getvalue()  # the fixture `log` checks in every test that no API key is logged


def test_a_request_has_one_line_with_its_route(door: Door, log: StringIO) -> None:
    """That of its operation if that says that it went well, and else its own."""
    door.ask()
    door.during = lambda: log_result("done", "succeeded", 1, 201)
    door.ask()
    door.ask()
    door.raises = InvalidError("not now")
    door.ask()
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    seen = [(line["message"], line.get("status"), line.get("state")) for line in lines]
    went_well = ("operation", None, "succeeded")
    assert seen == [("answered", 201, None), went_well, went_well, went_well, ("answered", 422, None)]
    assert {line["route"] for line in lines} == {"POST /pets"}


@pytest.mark.parametrize("left_out", ["null", "not there"])
@pytest.mark.parametrize("name", ["headers", "pathParameters", "queryStringParameters", "body", "isBase64Encoded"])
def test_never_raises_when_api_gateway_leaves_something_out(door: Door, name: str, left_out: str) -> None:
    event: dict[str, Any] = {"routeKey": "POST /pets", "body": '{"name": "Rex"}'}
    event["headers"] = {"authorization": f"Bearer {GOOD}"}
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
        {"authorization": f"Bearer {GOOD}"},
        {"authorization": f"bearer  {GOOD} "},
        {"authorization": _basic(f"any-user:{GOOD}")},
        {"authorization": _basic(f":{GOOD}")},
        {"x-api-key": GOOD},
        {"api-key": GOOD},
        {"Api-Key": f" {GOOD}"},
        {"authorization": "Digest something", "api-key": GOOD},
        # Another credential is empty.
        {"authorization": "", "x-api-key": GOOD},
        {"authorization": "Bearer ", "x-api-key": GOOD},
        {"authorization": "Bearer", "api-key": GOOD},
        {"authorization": _basic("any-user:"), "x-api-key": GOOD},
        {"authorization": "Basic ", "x-api-key": GOOD},
        {"x-api-key": "", "api-key": GOOD},
        {"x-api-key": " ", "api-key": GOOD},
        # The key is repeated.
        {"x-api-key": f",{GOOD}"},
        {"x-api-key": f"{GOOD}, {GOOD}"},
        {"authorization": f"Bearer {GOOD},Bearer {GOOD}"},
        {"authorization": f"Bearer ,Bearer {GOOD}"},
        {"authorization": f"Bearer {GOOD},{_basic(f'any-user:{GOOD}')}"},
    ],
    ids=str,
)
def test_lets_in_when_the_key_comes_in_any_of_the_ways(door: Door, headers: dict[str, str]) -> None:
    """Repeated headers arrive joined by a comma:
    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
    """
    assert door.answer({"routeKey": "POST /pets", "headers": headers, "body": '{"name": "Rex"}'})[0] == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": f"Bearer {WRONG}"},
        {"authorization": f"Bearer {GOOD.upper()}"},
        {"authorization": GOOD},
        {"authorization": f"Basic {GOOD}"},
        {"authorization": "Basic !!!"},
        {"authorization": "Basic /w=="},
        {"authorization": _basic(GOOD)},
        {"authorization": _basic(f"{GOOD}:")},
        {"authorization": "", "x_other": GOOD},
        {"authorization": "", "cookie": f"x-api-key={GOOD}"},
        {"authorization": f"Bearer {WRONG}", "x_api_key": GOOD},  # what is stated first counts
    ],
)
def test_is_401_when_there_is_no_valid_key(door: Door, headers: dict[str, str]) -> None:
    status, body, _ = door.ask(**headers)
    assert status == 401
    assert body["type"] == "urn:crm-bridge:problem:unauthenticated"
    assert door.seen == []


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {GOOD},Bearer {OTHER}"},
        {"x-api-key": f"{GOOD},{WRONG}"},
        {"authorization": ",", "x-api-key": ","},
        {"authorization": f"Bearer {WRONG},", "x-api-key": GOOD},
    ],
    ids=str,
)
def test_is_401_when_several_keys_differ_or_all_are_empty(door: Door, headers: dict[str, str]) -> None:
    assert door.answer({"routeKey": "POST /pets", "headers": headers, "body": '{"name": "Rex"}'})[0] == 401


def test_lets_in_when_the_basic_user_is_in_any_charset(door: Door) -> None:
    """Source: https://www.rfc-editor.org/rfc/rfc7617#section-2"""
    for user in ("Müller", "José", "Ñandú", "ÿ", "Zażółć".encode("iso-8859-2").decode("latin-1")):
        for charset in ("latin-1", "utf-8"):
            encoded = base64.b64encode(f"{user}:{GOOD}".encode(charset)).decode()
            assert door.ask(authorization=f"Basic {encoded}")[0] == 201, (user, charset)


def test_reads_an_event_when_what_it_lacks_is_null_or_left_out(door: Door) -> None:
    """Null is what AWS sent in https://github.com/floci-io/floci/issues/2172"""
    event = {"routeKey": "POST /pets", "headers": {"authorization": f"Bearer {GOOD}"}, "body": '{"name": "Rex"}'}
    for nothing in ({}, dict.fromkeys(("pathParameters", "queryStringParameters", "cookies"))):
        assert door.answer({**event, **nothing})[0] == 201
        assert (door.seen[-1].path, door.seen[-1].query) == ({}, {})
        assert door.answer({**event, **nothing, "body": None})[0] == 400
    for headers in ({}, {"headers": None}):
        assert door.answer({"routeKey": "POST /pets", **headers})[0] == 401
    assert door.ask("{", authorization="")[0] == 401  # wrong JSON is not read without a key


def test_is_403_when_the_key_lacks_the_scope(door: Door) -> None:
    status, body, _ = door.ask(authorization=f"Bearer {OTHER}")
    assert status == 403
    assert "pets" in body["detail"]
    assert door.seen == []


@pytest.mark.parametrize(("key", "status"), [(GOOD, 403), (OTHER, 403), (READS, 201)])
def test_a_route_with_a_scope_of_its_own_needs_that_one_and_no_other(door: Door, key: str, status: int) -> None:
    event = {"routeKey": "GET /pets", "headers": {"authorization": f"Bearer {key}"}, "body": '{"name": "Rex"}'}
    found, body, _ = door.answer(event)
    assert found == status
    assert status == 201 or "pets:read" in body["detail"]


def test_is_404_when_the_function_has_no_such_route(door: Door) -> None:
    event = {"routeKey": "DELETE /pets", "headers": {"authorization": f"Bearer {GOOD}"}}
    assert door.answer(event)[0] == 404


# ---------------------------------------------------------------- how much one key may send


def test_is_429_with_a_time_to_retry_when_a_key_sends_too_much_and_another_key_is_not(
    door: Door, clock: Clock, log: StringIO
) -> None:
    statuses = [door.ask()[0] for _ in range(BURST + 5)]
    assert statuses == [201] * BURST + [429] * 5
    status, body, headers = door.ask()
    assert body["type"] == "urn:crm-bridge:problem:too-many-requests"
    assert (status, body["retryable"], headers["Retry-After"]) == (429, True, "1")
    assert len(door.seen) == BURST  # nothing of what is refused reaches a route
    refused = [json.loads(line) for line in log.getvalue().splitlines() if '"status":429' in line]
    assert {(line["tenant"], line["api_key"]) for line in refused} == {("acme", "test")}
    assert door.answer({"routeKey": "GET /pets", "headers": {"authorization": f"Bearer {READS}"}})[0] != 429
    clock.move(int(headers["Retry-After"]))
    assert door.ask()[0] == 201


def test_a_key_without_the_scope_has_a_bucket_as_well(door: Door) -> None:
    statuses = {door.ask(authorization=f"Bearer {OTHER}")[0] for _ in range(BURST)}
    assert statuses == {403}
    assert door.ask(authorization=f"Bearer {OTHER}")[0] == 429


# ---------------------------------------------------------------- what may be sent


@pytest.mark.parametrize(
    "body",
    [
        *("", " \n", "\x00", "{", "nope", "{'name': 'Rex'}", '{"name": "Rex"}x', '{"name": "\\ud800"}', "[" * 100_000),
        *('{"name": "Rex", "legs": NaN}', '{"name": "Rex", "legs": -Infinity}', b"\xff\xfe", b'{"name": "\xe9"}'),
    ],
    ids=lambda body: repr(body[:24]),
)
def test_is_400_when_the_body_is_not_json(door: Door, body: str | bytes) -> None:
    status, problem, _ = door.ask(body)
    assert status == 400
    assert problem["type"] == "urn:crm-bridge:problem:not-json"


@pytest.mark.parametrize(
    "encoding",
    ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "iso-8859-2", "windows-1250"],
)
def test_reads_json_with_a_mark_or_in_the_charset_that_the_header_names(door: Door, encoding: str) -> None:
    named = "" if encoding.startswith("utf") else f"; charset={encoding}"
    status, body, _ = door.ask('{"name": "Żółw"}'.encode(encoding), content_type=f"application/json{named}")
    assert (status, body["name"]) == (201, "Żółw")


@pytest.mark.parametrize("named", ["utf-8", "x-nothing", "utf-16", "us-ascii", "punycode", "unicode_escape"])
def test_is_400_when_json_is_not_in_the_charset_that_the_header_names(door: Door, named: str) -> None:
    kind = f"application/json; charset={named}"
    status, problem, _ = door.ask('{"name": "Żółw"}'.encode("windows-1250"), content_type=kind)
    assert (status, problem["type"]) == (400, "urn:crm-bridge:problem:not-json")
    assert "charset" in problem["detail"]
    assert door.ask('{"name": "Żółw"}'.encode(), content_type=kind)[1]["name"] == "Żółw"  # JSON is UTF-8 (RFC 8259)


@pytest.mark.parametrize("number", ["1e999", "-1E+400", f"1{'0' * 400}.5"])
def test_is_422_when_a_number_is_too_large(door: Door, number: str) -> None:
    status, problem, _ = door.ask(f'{{"name": "Rex", "tags": [{number}]}}')
    assert (status, problem["detail"]) == (422, "A number in the body is too large. Send numbers of at most 1.7e308.")


def test_is_422_when_the_body_is_not_an_object(door: Door) -> None:
    for body in ("[]", '[{"name": "Rex"}]', '"Rex"', "1", "null", "true"):
        status, problem, _ = door.ask(body)
        assert (status, problem["errors"]) == (422, [{"field": "", "message": "must be an object"}]), body


def test_is_422_and_names_every_field_when_several_are_wrong(door: Door) -> None:
    status, problem, _ = door.ask('{"name": "Methuselah", "legs": "many", "tail": 1}')
    assert status == 422
    assert [error["field"] for error in problem["errors"]] == ["name", "legs", "tail"]
    assert problem["errors"][2]["message"] == 'Unknown field "tail"; known are name, legs'
    assert "Methuselah" not in json.dumps(problem)  # a problem never repeats the input
    for nothing in ("{}", '{"name": null}'):
        assert door.ask(nothing)[1]["errors"] == [{"field": "name", "message": "is required"}]


def test_is_413_when_the_body_is_too_large(door: Door) -> None:
    filler = '{"name": "Rex"}'
    assert door.ask(filler + " " * (MAX_BODY - len(filler)))[0] == 201
    status, problem, _ = door.ask(filler + " " * (MAX_BODY - len(filler) + 1))
    assert status == 413
    assert str(MAX_BODY) in problem["detail"]


OTHERS = ("text/plain", "application/x-www-form-urlencoded", "text/json", "json", "*/*", "application/json,text/xml")
NAMES_OF_JSON = (
    *("application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.crm+json", "", " ", "application/json,"),
    *("application/json,application/json", "application/json;charset=UTF-8, application/json"),
    'application/json; profile="a,b"',
)


def test_takes_json_under_its_other_names_and_is_415_for_all_else(door: Door) -> None:
    for kind in OTHERS:
        status, problem, _ = door.ask(content_type=kind)
        assert status == 415, kind
        assert "application/json" in problem["detail"]
    for kind in NAMES_OF_JSON:
        assert door.ask(content_type=kind)[0] == 201, kind
    assert door.ask('{"name": "Réx"}'.encode())[1]["name"] == "Réx"  # which the gateway encoded


def test_knows_when_the_caller_prefers_not_to_wait(door: Door) -> None:
    later, now = ("respond-async", "Respond-Async, wait=10", "wait=5,respond-async;x=1"), ("", "respond-asynchronously")
    for prefer in (*later, *now, "return=minimal"):
        door.ask(prefer=prefer)
        assert door.seen[-1].wants_later is (prefer in later), prefer


# ---------------------------------------------------------------- problems


def test_is_a_problem_document_when_a_route_fails(door: Door) -> None:
    door.raises = RunningError("Ask again.", headers={"Retry-After": "2"}, operation_id="op_1")
    status, body, headers = door.ask()
    assert status == 409
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["Retry-After"] == "2"
    assert body == {
        "type": "urn:crm-bridge:problem:running",
        "title": "The same event is being processed right now",
        "status": 409,
        "detail": "Ask again.",
        "retryable": True,
        "request_id": "request-1",
        "doc_url": "docs/problems.md#running",
        "operation_id": "op_1",
    }
    assert headers["X-Request-Id"] == "request-1"
    door.raises = InvalidError("No.", fields=[FieldError("site.latitude", "is too far north")])
    assert door.ask()[1]["errors"] == [{"field": "site.latitude", "message": "is too far north"}]
    door.raises = StorageError("Send it again.")
    status, body, _ = door.ask()
    assert (status, body["retryable"]) == (503, True)


def test_has_the_request_id_in_a_header_when_all_went_well(door: Door) -> None:
    status, _, headers = door.ask()
    assert (status, headers["X-Request-Id"]) == (201, "request-1")


RETRYABLE = [kind for kind in vars(errors).values() if isinstance(kind, type) and getattr(kind, "retryable", False)]


@pytest.mark.parametrize("kind", RETRYABLE)
def test_says_when_to_retry_only_when_a_problem_is_retryable(door: Door, kind: type[ProblemError]) -> None:
    door.raises = kind("Send it again.")
    status, body, headers = door.ask()
    assert (status, body["retryable"], headers["Retry-After"]) == (kind.status, True, str(kind.retry_after))
    assert 1 <= kind.retry_after <= 300
    door.raises = kind("Send it again.", headers={"Retry-After": "7"})
    assert door.ask()[2]["Retry-After"] == "7"
    for useless in (InvalidError, errors.NotFoundError, errors.TooLargeError):
        door.raises = useless("Correct it.")
        assert "Retry-After" not in door.ask()[2]


@pytest.mark.parametrize(
    "error",
    [
        NotDoneError("illu could not be reached", vendor="illu"),
        NotDoneError("illu answered 503", vendor="illu", retry_after=0.0),
        ContractBrokenError("illu answered nonsense", vendor="illu"),
        MissingError("the customer has no site", vendor="illu"),
        ValueError("a defect"),
    ],
    ids=str,
)
def test_says_when_to_retry_when_a_vendor_or_the_bridge_failed(door: Door, error: Exception) -> None:
    door.raises = error
    status, body, headers = door.ask()
    assert (status in (409, 500, 502, 503), body["retryable"], int(headers["Retry-After"])) == (True, True, 30)


def test_is_500_without_a_word_of_the_error_when_something_unexpected_fails(door: Door, log: StringIO) -> None:
    door.raises = ValueError("Moi Ave 12 belongs to a customer")
    status, body, _ = door.ask()
    assert status == 500
    assert body["type"] == "urn:crm-bridge:problem:internal"
    shown = json.dumps(body) + log.getvalue()
    assert "Moi Ave" not in shown
    assert "ValueError" in shown
    assert "test_api.py" in shown  # where it happened

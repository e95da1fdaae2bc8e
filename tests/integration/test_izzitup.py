"""IzzitUp's words and shapes, its failures, and what status_update refuses before it is called."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Literal

import pytest
from werkzeug.wrappers import Response

from crm_bridge.errors import (
    ContractBrokenError,
    NoSuchRecordError,
    RefusedError,
    SignInPausedError,
    SignInRefusedError,
    VendorError,
)
from crm_bridge.outbound.transport import Deadline, Transport
from crm_bridge.vendors.izzitup import (
    FAILURES,
    IzzitUp,
    IzzitUpSettings,
    ServiceStatus,
)
from local.stack import LOCAL_HOSTS
from local.vendors import izzitup
from local.vendors.izzitup import IzzitUpSimulator, service
from local.vendors.simulator import Kind
from tests.integration.conftest import Crm, change_settings, cold, failing
from tests.integration.izzitup_calls import USER, at, in_the_end, posts, put, set_status
from tests.stack import Stack
from tests.variants import some

pytestmark = pytest.mark.usefixtures("quick_spacing")


@pytest.fixture
def page(stack: Stack) -> IzzitUpSimulator:
    return stack.izzitup


# ---------------------------------------------------------------- the seven failures

ERRORS: dict[str, tuple[type[VendorError], int, str]] = {
    "Service not found": (NoSuchRecordError, 404, "rejected"),
    "Status not found": (RefusedError, 422, "rejected"),
    "Status not allowed": (RefusedError, 422, "rejected"),
    "Incomplete request": (ContractBrokenError, 502, "unconfirmed"),
    "Unknown action": (ContractBrokenError, 502, "unconfirmed"),
    "Not allowed": (SignInRefusedError, 202, "waiting"),
    "Sign in failed": (SignInPausedError, 202, "waiting"),
}
"""For each fault the client's error, the CRM's response, and the state in which the operation is left.

The login comes last: once it was refused, IzzitUp is not called."""


def provoke(page: IzzitUpSimulator, words: str) -> str:
    """Let the next call fail with these words, really if that is possible. Gives the service to name in it."""
    match words:
        case "Service not found":
            return "99"
        case "Sign in failed":
            page.users[USER] = "changed since"
        case "Not allowed":
            page.allowed.clear()
        case _:
            page.failures.append(next(message for message in izzitup.FAILURES if message.startswith(words)))
    return "2"


def client_of(page: IzzitUpSimulator) -> IzzitUp:
    (user, password), *_ = page.users.items()
    document = {"base_url": page.base_url, "user": user, "password": password}
    settings = IzzitUpSettings.model_validate(document, context=LOCAL_HOSTS)
    return IzzitUp(settings, Transport(on_this_machine=LOCAL_HOSTS), Deadline(21))


def test_the_simulator_and_the_client_know_the_same_failures() -> None:
    documented = {(result, message.partition(".")[0]) for message, result in izzitup.FAILURES.items()}
    assert documented == set(FAILURES)
    assert {words for _, words in FAILURES} == set(ERRORS)


def test_each_failure_is_told_apart_whatever_its_status() -> None:
    alone = IzzitUpSimulator()  # without the bridge
    alone.start()
    client = client_of(alone)
    for words, (error, *_) in ERRORS.items():
        (user, password), *_ = alone.users.items()
        for status in (200, 400, 401, 403, 429, 500, 503):
            alone.failure_status = status
            with pytest.raises(error) as caught:
                client.set_status(provoke(alone, words), ServiceStatus.OUTAGE)
            assert type(caught.value) is error
            assert (caught.value.message, caught.value.status) == (f"IzzitUp: {words}", status)
        alone.users[user], alone.allowed = password, {user}
    assert alone.status_of("2") == "5"
    alone.stop()


@pytest.mark.parametrize("status", [200, 403])
def test_each_failure_is_answered_in_its_own_way(crm: Crm, page: IzzitUpSimulator, status: int) -> None:
    page.failure_status = status
    for number, (words, (_, expected, state)) in enumerate(ERRORS.items()):
        response = set_status(crm, provoke(page, words), minute=number)
        body = response.json()
        assert response.status_code == expected, words
        assert body["reason" if expected == 202 else "detail"].startswith(f"IzzitUp: {words}")
        if expected != 202:
            assert response.headers["Content-Type"] == "application/problem+json"
            assert body["retryable"] is (expected == 502)
        assert crm.get(f"/operations/{body['operation_id']}").json()["state"] == state, words
        assert (posts(page), page.status_of("2")) == (number + 1, "5"), words
        page.allowed.add(USER)
        crm.stack.move_clock(60)  # the turn of what may be done is over


def test_is_done_in_the_end_when_the_failure_is_over(crm: Crm, page: IzzitUpSimulator) -> None:
    for minute, words in enumerate(("Incomplete request", "Unknown action", "Not allowed")):
        page.services[1]["status"] = "5"
        response = set_status(crm, provoke(page, words), minute=minute)
        page.allowed.add(USER)
        assert in_the_end(crm, response)["state"] == "succeeded", words
        assert page.status_of("2") == "7", words
    assert set_status(crm, "99").status_code == 404
    page.services.append(service("99", "New", "NEW"))
    assert set_status(crm, "99").status_code == 200  # it was refused, so it may be sent again


# ---------------------------------------------------------------- what IzzitUp may be like


def test_any_list_of_services_is_understood(crm: Crm, page: IzzitUpSimulator) -> None:
    shapes: tuple[Literal["array", "object", "bare"], ...] = ("array", "object", "bare")
    for minute, page.list_shape in enumerate(shapes):
        cold(crm.stack)
        assert [found["key"] for found in crm.get("/services").json()["services"]] == ["WEB", "MAIL", "BILLING"]
        assert set_status(crm, "billing", minute=minute).json()["id"] == "3"


def test_izzitup_is_understood_in_the_charset_that_it_names(
    crm: Crm, page: IzzitUpSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {
        "utf-8-sig": "application/json",
        "utf-16": "application/json",
        "windows-1250": "application/json; charset=windows-1250",
        "iso-8859-2": "text/html; charset=ISO-8859-2",
    }
    page.services[1]["name"] = "Łódź poczta"
    minute = 0
    for encoding, kind in kinds.items():

        def php_response(body: object, status: int = 200, encoding: str = encoding, kind: str = kind) -> Response:
            return Response(json.dumps(body, ensure_ascii=False).encode(encoding), status, content_type=kind)

        monkeypatch.setattr("local.vendors.izzitup._php_response", php_response)
        shapes: tuple[Literal["array", "bare"], ...] = ("array", "bare")
        for page.list_shape in shapes:
            cold(crm.stack)
            assert "Łódź poczta" in [found["name"] for found in crm.get("/services").json()["services"]], encoding
            minute += 1
            assert set_status(crm, "łódź poczta", minute=minute).json()["id"] == "2", encoding


@pytest.mark.parametrize("listed", [True, False])
def test_a_hidden_service_is_not_shown_but_can_be_set(crm: Crm, page: IzzitUpSimulator, *, listed: bool) -> None:
    page.lists_hidden = listed
    assert "BACKUP" not in crm.get("/services").text
    assert (set_status(crm, "4").status_code, page.status_of("4")) == (200, "7")
    assert set_status(crm, "BACKUP", "impaired", minute=1).status_code == (200 if listed else 404)
    assert "BACKUP" not in set_status(crm, "no such").json()["detail"]


def test_is_done_when_izzitup_does_not_tell_the_service(crm: Crm, page: IzzitUpSimulator) -> None:
    page.answers_without_data, page.lists_hidden = True, False
    for name, known in (("mail", ("2", "Mail", "MAIL")), ("4", ("4", None, None))):
        response = set_status(crm, name)
        assert response.status_code == 200
        assert tuple(response.json().get(member) for member in ("id", "name", "key")) == known
        shown = response.json()["status"], response.json()["status_name"], page.status_of(str(known[0]))
        assert shown == ("7", "outage", "7")


def test_is_not_lost_when_a_php_notice_comes_before_the_answer(crm: Crm, page: IzzitUpSimulator) -> None:
    page.notice_first = True
    response = set_status(crm)
    assert response.status_code in (200, 502)
    assert page.status_of("2") == "7"
    page.notice_first = False
    assert in_the_end(crm, response)["state"] == "succeeded"


METHODS: tuple[Literal["GET", "POST"], ...] = ("GET", "POST")
WAYS = [(kind, method) for method in METHODS for kind in Kind if kind is not Kind.BAD_KEY]


@pytest.mark.parametrize(("kind", "method"), some(WAYS, 12))
def test_the_status_is_set_in_the_end_whatever_izzitup_does(
    crm: Crm, page: IzzitUpSimulator, kind: Kind, method: Literal["GET", "POST"]
) -> None:
    if method == "POST":
        crm.get("/services")  # remembered, so that the next call is the POST
    with failing(page, kind, method=method):
        response = set_status(crm)
    assert response.status_code == (200 if kind in (Kind.DELAY, Kind.WRONG_STATUS) else 202)
    assert in_the_end(crm, response)["state"] == "succeeded"
    assert page.status_of("2") == "7"


@pytest.mark.parametrize("method", METHODS)
def test_is_not_refused_for_good_when_izzitup_is_not_where_it_was(
    crm: Crm, page: IzzitUpSimulator, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As during an upgrade of it, or of the web server before it: none of the seven failures, so no refusal."""
    if method == "POST":
        crm.get("/services")
    with monkeypatch.context() as patch:
        patch.setattr(page, "path", "/elsewhere")
        response = set_status(crm)
    assert response.status_code in (202, 502)
    assert in_the_end(crm, response)["state"] == "succeeded"
    assert page.status_of("2") == "7"


def test_is_502_and_done_in_the_end_when_izzitup_says_neither_success_nor_a_failure(
    crm: Crm, page: IzzitUpSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    crm.get("/services")
    replies: list[object] = [
        {"result": "Error", "message": "Database gone away", "data": ""},
        {"result": "Warning", "message": "", "data": ""},
        {"message": "Status of Service Mail was set to Outage"},
        *(["Success"], "Success", None, {"result": "success"}),
    ]
    answers = []
    for minute, reply in enumerate(replies):
        with monkeypatch.context() as patch:
            text = json.dumps(reply)
            patch.setattr(page, "respond", lambda _, text=text: Response(text, mimetype="application/json"))
            answers.append(set_status(crm, minute=minute))
    assert [(answer.status_code, answer.json()["retryable"]) for answer in answers] == [(502, True)] * len(replies)
    assert page.status_of("2") == "5"
    assert {in_the_end(crm, answer)["state"] for answer in answers} == {"succeeded"}
    assert page.status_of("2") == "7"


# ---------------------------------------------------------------- GET /services


def test_lists_the_services_that_are_not_hidden(crm: Crm, page: IzzitUpSimulator) -> None:
    page.services += [service("5", "Old", "OLD", status="8")]
    set_status(crm, "MAIL", "impaired")
    answer = crm.get("/services")
    assert answer.status_code == 200
    names = {"1": "operational", "2": "impaired", "3": "operational", "5": None}
    shown = [{**found, "status_name": names[found["id"]]} for found in page.services if found["hidden"] == "0"]
    assert answer.json() == {"services": shown}


def test_lists_what_is_there_now(crm: Crm, page: IzzitUpSimulator) -> None:
    crm.get("/services")
    page.services[0]["status"] = "7"
    assert crm.get("/services").json()["services"][0]["status_name"] == "outage"
    page.services.clear()
    assert crm.get("/services").json() == {"services": []}


def test_the_list_is_503_and_retryable_when_izzitup_is_down(crm: Crm, page: IzzitUpSimulator) -> None:
    for kind in Kind:
        if kind in (Kind.DELAY, Kind.WRONG_STATUS):
            continue
        with failing(page, kind, seconds=7, method="GET"):
            response = crm.get("/services")
        assert (response.status_code, response.json()["retryable"]) == (503, True), kind
        if kind in (Kind.TOO_MANY, Kind.UNAVAILABLE):
            assert response.headers["Retry-After"] == "7"
        assert crm.get("/services").status_code == 200, kind


def test_the_list_is_502_when_izzitup_answers_nonsense(
    crm: Crm, page: IzzitUpSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = [
        *("", "<h1>Welcome</h1>", "null", "5", '"text"', "[5]", '["MAIL"]', '[{"id": "1"}]', '{"data": ""}'),
        *('{"data": null}', '{"data": {"a": 1}}', '{"result": "Error", "message": "Database gone", "data": ""}'),
        *("[" * 100_000, '[{"id":"1","name":"\\ud800","status":"5"}'),
    ]
    answers = []
    for minute, body in enumerate(bodies):
        with monkeypatch.context() as patch:
            patch.setattr(page, "respond", lambda _, body=body: Response(body, mimetype="application/json"))
            listed = crm.get("/services")
            answers.append(set_status(crm, minute=minute))
        assert (listed.status_code, listed.json()["retryable"], answers[-1].status_code) == (502, True, 502), body[:20]
    assert {in_the_end(crm, answer)["state"] for answer in answers} == {"succeeded"}
    assert page.status_of("2") == "7"


# ---------------------------------------------------------------- bad input


def test_bad_input_is_422_and_names_the_field(crm: Crm, page: IzzitUpSimulator) -> None:
    statuses: tuple[object, ...] = ("down", "", "closed", "4", 4, 8, 0, -5, 5.0, 75, True, None, [], ["outage"], {})
    statuses += ({"a": 5}, "x" * 10_000)
    times: tuple[object, ...] = ("2024-05-05T12:00:00", "yesterday", "", True, [], "2024-02-30T00:00:00Z", 10**30)
    times += ("0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00")  # no time in UTC
    times += (0, 1_714_910_400, 1_714_910_400_000, "1714910400", "-1")  # a number says nothing of its unit
    bodies: list[tuple[object, str]] = [
        *(({"status": status}, "status") for status in statuses),
        *(({"status": 5, "occurred_at": when}, "occurred_at") for when in times),
        *(({}, "status"), ({"occurred_at": at(0)}, "status")),
        *(({"status": 5, "service": "MAIL"}, "service"), ({"status": 5, "reason": "flood"}, "reason")),
        *(([], ""), ([{"status": 5}], ""), ("outage", "")),
    ]
    for body, field in bodies:
        answer = put(crm, "MAIL", body)
        assert answer.status_code == 422, body
        assert [error["field"] for error in answer.json()["errors"]] == [field], body
    assert page.seen == []


def test_is_422_when_it_happens_more_than_five_minutes_from_now(crm: Crm, page: IzzitUpSimulator) -> None:
    for ahead, status in ((310, 422), (290, 200)):
        for zone in (UTC, timezone(timedelta(hours=-7))):
            occurred_at = (datetime.now(UTC) + timedelta(seconds=ahead)).astimezone(zone).isoformat()
            answer = put(crm, "MAIL", {"status": "outage", "occurred_at": occurred_at})
            assert answer.status_code == status
            assert page.status_of("2") == ("7" if status == 200 else "5")


def test_a_body_that_is_not_json_is_refused(crm: Crm, page: IzzitUpSimulator) -> None:
    bodies = [
        *(
            (content, "application/json", 400)
            for content in (b"{status: 5}", b"", b'{"status": NaN}', b'{"s": "\xff"}')
        ),
        (b"status=5", "application/x-www-form-urlencoded", 415),
        (b'{"status": "' + b"x" * 200_000 + b'"}', "application/json", 413),
    ]
    for content, kind, status in bodies:
        answer = crm.put("/services/MAIL/status", None, data=content, headers={"Content-Type": kind})
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert page.seen == []


def test_what_can_be_no_service_is_422(crm: Crm, page: IzzitUpSimulator) -> None:
    for name in ("x" * 1000, "x" * 201, " ", "a\0b", "a\x1bb"):
        answer = set_status(crm, name)
        assert (answer.status_code, [error["field"] for error in answer.json()["errors"]]) == (422, ["service"])
    assert page.seen == []


def test_an_unknown_service_is_404_and_the_answer_names_the_keys(crm: Crm, page: IzzitUpSimulator) -> None:
    for name in ("Fax", "-2", "2.0", "mail ' OR 1=1", "²", "MAILS", "x" * 200):
        answer = set_status(crm, name)
        assert (answer.status_code, answer.json()["retryable"]) == (404, False)
        assert answer.json()["detail"].endswith("there are WEB, MAIL, BILLING")
    assert posts(page) == 0


def test_a_name_that_several_services_have_is_422(crm: Crm, page: IzzitUpSimulator) -> None:
    page.services += [service("8", "Web Store", "SHOP1"), service("9", "web store", "SHOP2")]
    answer = set_status(crm, "WEB STORE")
    assert (answer.status_code, [error["field"] for error in answer.json()["errors"]]) == (422, ["service"])
    assert posts(page) == 0
    assert set_status(crm, "shop2").json()["id"] == "9"


def test_a_slash_is_404_because_no_route_takes_it(crm: Crm, page: IzzitUpSimulator) -> None:
    assert set_status(crm, "MAIL/2").status_code == 404
    assert page.seen == []


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_callers_without_a_key_or_without_the_scope_are_refused(crm: Crm, page: IzzitUpSimulator, method: str) -> None:
    path = "/services" if method == "GET" else "/services/MAIL/status"
    others = crm.stack.add_key("demo", frozenset({"create_site", "operations:read"}), "others")
    statuses = [
        crm.session.request(method, crm.stack.url + path, json={"status": 7}, headers=headers, timeout=60).status_code
        for headers in ({}, {"Authorization": "Bearer nobody's"}, {"Authorization": f"Bearer {others}"})
    ]
    assert statuses == [401, 401, 403]
    assert page.seen == []


def test_is_503_when_the_tenant_has_no_izzitup(crm: Crm) -> None:
    change_settings(crm.stack, izzitup=None)
    for answer in (set_status(crm), crm.get("/services")):
        assert (answer.status_code, answer.json()["retryable"]) == (503, True)
        assert "izzitup block" in answer.json()["detail"]
        assert ".." not in answer.json()["detail"]
    crm.stack.put_secret("demo", crm.stack.demo_tenant())
    cold(crm.stack)
    assert set_status(crm).status_code == 200

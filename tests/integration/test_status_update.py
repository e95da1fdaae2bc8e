"""status_update from the CRM's call to IzzitUp and back, over real HTTP."""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from io import StringIO
from itertools import pairwise
from typing import Any, Literal
from urllib.parse import quote

import boto3
import pytest
import requests
from werkzeug.wrappers import Request, Response

from crm_bridge.accounts import Accounts
from crm_bridge.errors import StorageError, VendorError
from crm_bridge.runtime import Runtime, runtime
from crm_bridge.transport import Deadline, Transport
from crm_bridge.vendors.izzitup import (
    FAILURES,
    VENDOR,
    IncompleteRequestError,
    IzzitUp,
    IzzitUpSettings,
    NotAllowedError,
    ServiceNotFoundError,
    ServiceStatus,
    SignInFailedError,
    StatusNotAllowedError,
    StatusNotFoundError,
    UnknownActionError,
)
from local.stack import LOCAL_HOSTS, Stack
from local.vendors import izzitup
from local.vendors.izzitup import IzzitUpSimulator, service
from local.vendors.simulator import Kind
from status_update import flow, handler
from tests.integration.conftest import Crm

SPACING = flow.SPACING
SECRET = "hush-hush"
"""In every password here; the log of every test is searched for it."""
USER = "ops-bot"
ROWS = pytest.mark.parametrize("row", FAILURES, ids=" ".join)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardly a pause between two calls, where a test is about something else."""
    monkeypatch.setattr(flow, "SPACING", 0.01)


@pytest.fixture
def real_spacing(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - to be undone
    monkeypatch.setattr(flow, "SPACING", SPACING)


@pytest.fixture
def page(stack: Stack) -> IzzitUpSimulator:
    return stack.izzitup


@pytest.fixture
def in_flight(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """From when to when each POST was at IzzitUp, by the clock that tests move."""
    spans: list[tuple[float, float]] = []
    answer = stack.izzitup._faulty

    def recorded(request: Request) -> Response:
        begin = stack._clock()
        if request.method == "POST":
            time.sleep(0.05)
        response = answer(request)
        if request.method == "POST":
            spans.append((begin, stack._clock()))
        return response

    monkeypatch.setattr(stack.izzitup, "_faulty", recorded)
    return spans


def at(minute: int) -> str:
    return f"2024-05-05T12:{minute:02}:00Z"


def put(crm: Crm, service: str, body: object, **headers: str) -> requests.Response:
    return crm.session.put(
        f"{crm.stack.url}/services/{quote(service, safe='')}/status",
        json=body,
        headers={**crm.headers, **headers},
        timeout=60,
    )


def set_status(
    crm: Crm, service: str = "MAIL", status: object = "outage", *, minute: int = 0, **headers: str
) -> requests.Response:
    return put(crm, service, {"status": status, "occurred_at": at(minute)}, **headers)


def in_the_end(crm: Crm, answer: requests.Response) -> dict[str, Any]:
    """The operation behind any answer, settled."""
    answer.headers.setdefault("Location", f"/operations/{answer.json()['operation_id']}")
    return crm.settle(answer)


def posts(page: IzzitUpSimulator) -> int:
    return sum(seen.method == "POST" for seen in page.seen)


def tenant(stack: Stack, **izzitup: str) -> str:
    """The demo tenant's secret with other members in its izzitup block."""
    document = json.loads(stack.demo_tenant())
    document["izzitup"] |= izzitup
    return json.dumps(document)


def cold(stack: Stack) -> Runtime:
    """What comes next runs in a new execution environment."""
    runtime.cache_clear()
    stack.move_clock(0)
    return runtime()


def use_password(stack: Stack, password: str) -> None:
    """The tenant's secret has this password from now on, and no function remembers another one."""
    stack.put_secret("demo", tenant(stack, password=password))
    cold(stack)


def rows(table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = boto3.resource("dynamodb").Table(os.environ[table]).scan()["Items"]
    return found


# ---------------------------------------------------------------- done


def test_sets_the_status_and_tells_what_izzitup_told(crm: Crm, page: IzzitUpSimulator) -> None:
    answer = set_status(crm, minute=5)
    assert answer.status_code == 200
    body = answer.json()
    assert body.pop("operation_id").startswith("op_")
    (mail,) = (found for found in page.services if found["id"] == "2")
    assert body == {**mail, "status": "7", "status_name": "outage", "occurred_at": at(5)}


def test_sets_a_service_by_its_id_its_key_or_its_name(crm: Crm, page: IzzitUpSimulator) -> None:
    page.services.append(service("5", "Web Store", "SHOP"))
    for minute, name in enumerate(("5", "SHOP", "shop", "sHoP", "Web Store", "web store", "WEB STORE", " shop ")):
        status = "impaired" if minute % 2 else "outage"
        answer = set_status(crm, name, status, minute=minute)
        assert (answer.status_code, answer.json()["id"]) == (200, "5"), name
        assert [page.status_of(number) for number in "12345"] == [*"5555", "6" if minute % 2 else "7"], name


def test_an_id_goes_before_a_key_and_a_key_before_a_name(crm: Crm, page: IzzitUpSimulator) -> None:
    page.services += [service("5", "6", "7"), service("6", "One", "FIRST"), service("7", "FIRST", "SECOND")]
    assert [set_status(crm, name).json()["id"] for name in ("6", "7", "FIRST", "SECOND")] == ["6", "7", "6", "7"]


def test_sets_each_status_by_its_name_or_its_number(crm: Crm, page: IzzitUpSimulator) -> None:
    wanted: dict[str, tuple[object, ...]] = {
        "5": ("operational", "Operational", "OPERATIONAL", 5, "5"),
        "6": ("impaired", "imPAIred", 6, "6"),
        "7": ("outage", "OUTAGE", 7, " 7 "),
    }
    events = [(number, status) for number, ways in wanted.items() for status in ways]
    for minute, (number, status) in enumerate(events):
        page.services[1]["status"] = "8"
        answer = set_status(crm, status=status, minute=minute)
        assert (answer.status_code, answer.json()["status"], page.status_of("2")) == (200, number, number), status
        assert answer.json()["status_name"] == ServiceStatus(int(number)).name.lower()


def test_any_name_finds_its_service(crm: Crm, page: IzzitUpSimulator) -> None:
    names = ["Büro & Co", "100% up", "a#b", "a b+c", "why?", "票", "🎫" * 50, "%2F", "a;b", '"quoted"', "back\\slash"]
    page.services += [service(str(number), name, f"KEY{number}") for number, name in enumerate(names, start=10)]
    for number, name in enumerate(names, start=10):
        answer = set_status(crm, name)
        assert (answer.status_code, answer.json()["name"], page.status_of(str(number))) == (200, name, "7")


def test_finds_a_service_whose_name_izzitup_writes_with_a_combining_accent(crm: Crm, page: IzzitUpSimulator) -> None:
    page.services.append(service("5", "Bu\u0308ro", "OFFICE"))
    assert set_status(crm, "B\u00fcro").status_code == 200


def test_sets_again_what_is_set_already_when_it_is_another_event(crm: Crm, page: IzzitUpSimulator) -> None:
    assert [set_status(crm, minute=minute).status_code for minute in (1, 2)] == [200, 200]
    assert (posts(page), page.status_of("2")) == (2, "7")


def test_is_answered_from_the_store_when_it_is_the_same_event(crm: Crm, page: IzzitUpSimulator) -> None:
    first = set_status(crm)
    before = len(page.seen)
    again = set_status(crm)
    kept = ("id", "occurred_at", "status_name", "operation_id")
    assert (again.status_code, again.json()) == (200, {name: first.json()[name] for name in kept})
    other_words = put(crm, "mail", {"status": 7, "occurred_at": "2024-05-05T14:00:00.000+02:00"})
    assert (other_words.status_code, other_words.json()["operation_id"]) == (200, first.json()["operation_id"])
    assert len(page.seen) == before


def test_happened_now_when_it_does_not_say_when(crm: Crm) -> None:
    before = datetime.now(UTC)
    answers = [put(crm, "MAIL", {"status": "outage"}) for _ in range(2)]
    first, second = (datetime.fromisoformat(answer.json()["occurred_at"]) for answer in answers)
    assert before <= first < second <= datetime.now(UTC)
    assert set_status(crm).json()["ignored"] == "older"


def test_a_new_service_is_known_ten_seconds_later(crm: Crm, page: IzzitUpSimulator) -> None:
    assert set_status(crm, "SHOP").status_code == 404
    page.services.append(service("5", "Web Store", "SHOP"))
    crm.stack.move_clock(flow.SERVICES_MIN_AGE + 1)
    assert set_status(crm, "SHOP").status_code == 200


def test_finds_a_service_that_was_made_anew_under_another_id(crm: Crm, page: IzzitUpSimulator) -> None:
    assert set_status(crm, minute=1).status_code == 200
    page.services[1] = service("9", "Mail", "MAIL")
    crm.stack.move_clock(60)
    assert set_status(crm, minute=2).status_code == 200
    assert page.status_of("9") == "7"


def test_is_accepted_at_once_when_the_caller_prefers_that(crm: Crm, page: IzzitUpSimulator) -> None:
    accepted = set_status(crm, Prefer="respond-async")
    assert (accepted.status_code, accepted.json()["state"], page.seen) == (202, "waiting", [])
    assert crm.settle(accepted)["result"]["status_name"] == "outage"
    assert page.status_of("2") == "7"


def test_what_is_over_expires_after_ninety_days(crm: Crm) -> None:
    assert [set_status(crm, name).status_code for name in ("MAIL", "99")] == [200, 404]
    expected = time.time() + timedelta(days=90).total_seconds()
    assert [float(row["expires_at"]) for row in rows("OPERATIONS_TABLE")] == [pytest.approx(expected, abs=30)] * 2
    assert rows("LINKS_TABLE") == []


def test_what_is_not_over_does_not_expire(crm: Crm, page: IzzitUpSimulator) -> None:
    page.fail(Kind.UNAVAILABLE)
    assert set_status(crm).status_code == 202
    assert ["expires_at" in row for row in rows("OPERATIONS_TABLE")] == [False]


# ---------------------------------------------------------------- what is too old


def test_is_ignored_when_something_newer_was_applied(crm: Crm, page: IzzitUpSimulator) -> None:
    page.services[1]["name"] = "Electronic mail"
    assert set_status(crm, minute=10).status_code == 200
    for name in ("2", "MAIL", "mail", "Electronic mail"):
        answer = set_status(crm, name, "operational", minute=9)
        assert answer.status_code == 200
        assert (answer.json()["id"], answer.json()["ignored"]) == ("2", "older")
        assert (page.status_of("2"), posts(page)) == ("7", 1)
        assert in_the_end(crm, answer)["state"] == "succeeded"


@pytest.mark.parametrize("name", ["02", "٢"])
def test_another_way_to_write_its_id_does_not_let_an_older_event_pass(
    crm: Crm, page: IzzitUpSimulator, name: str
) -> None:
    assert set_status(crm, "2", minute=10).status_code == 200
    set_status(crm, name, "operational", minute=9)
    assert page.status_of("2") == "7"


def test_is_ignored_when_the_newer_one_came_through_a_retry(crm: Crm, page: IzzitUpSimulator) -> None:
    page.fail(Kind.UNAVAILABLE)
    assert crm.settle(set_status(crm, minute=10))["state"] == "succeeded"
    assert set_status(crm, "2", "operational", minute=9).json()["ignored"] == "older"
    assert page.status_of("2") == "7"


@pytest.mark.parametrize("kind", [Kind.UNAVAILABLE, Kind.CLOSE_BEFORE, Kind.CLOSE_AFTER, Kind.ERROR_AFTER])
def test_is_ignored_when_it_waited_while_something_newer_was_applied(
    crm: Crm, page: IzzitUpSimulator, kind: Kind
) -> None:
    page.fail(kind, seconds=300)
    older = set_status(crm, minute=9)
    assert older.status_code == 202
    crm.stack.move_clock(60)  # so that the turn of a lost answer is over
    assert set_status(crm, "2", "impaired", minute=10).status_code == 200
    operation = crm.settle(older)
    assert (operation["state"], operation["result"]["ignored"]) == ("succeeded", "older")
    assert page.status_of("2") == "6"


def test_the_newer_one_counts_in_the_end_when_its_answer_was_lost(crm: Crm, page: IzzitUpSimulator) -> None:
    page.fail(Kind.CLOSE_AFTER)
    newer, older = set_status(crm, minute=10), set_status(crm, "2", "operational", minute=9)
    assert [newer.json()["state"], older.json()["state"]] == ["unconfirmed", "waiting"]
    assert [crm.settle(answer)["state"] for answer in (newer, older)] == ["succeeded"] * 2
    assert page.status_of("2") == "7"


def test_an_older_one_does_not_come_back_when_the_answers_of_both_were_lost(crm: Crm, page: IzzitUpSimulator) -> None:
    page.fail(Kind.ERROR_AFTER, times=2)
    older = set_status(crm)
    crm.stack.move_clock(60)  # until what was sent is surely over
    newer = set_status(crm, status="operational", minute=1)
    assert (older.json()["state"], newer.json()["state"]) == ("unconfirmed", "unconfirmed")
    assert in_the_end(crm, older)["result"]["ignored"] == "older"
    assert in_the_end(crm, newer)["state"] == "succeeded"
    assert page.status_of("2") == "5"


def test_a_clock_that_is_ahead_does_not_hold_back_what_follows(crm: Crm, page: IzzitUpSimulator) -> None:
    ahead = datetime.fromtimestamp(runtime().clock() + 240, UTC).isoformat()
    assert put(crm, "MAIL", {"status": "outage", "occurred_at": ahead}).status_code == 200
    crm.stack.move_clock(60)
    assert "ignored" not in put(crm, "MAIL", {"status": "operational"}).json()
    assert page.status_of("2") == "5"


def test_a_repeated_event_of_a_clock_that_is_ahead_changes_nothing(crm: Crm, page: IzzitUpSimulator) -> None:
    first, second = (datetime.fromtimestamp(runtime().clock() + ahead, UTC).isoformat() for ahead in (120, 130))
    outage = {"status": "outage", "occurred_at": first}
    assert put(crm, "MAIL", outage).status_code == 200
    crm.stack.move_clock(5)
    assert put(crm, "MAIL", {"status": "operational", "occurred_at": second}).status_code == 200
    crm.stack.move_clock(5)
    assert put(crm, "MAIL", outage).status_code == 200
    assert page.status_of("2") == "5"


def test_is_applied_when_it_is_of_the_same_time(crm: Crm, page: IzzitUpSimulator) -> None:
    set_status(crm, minute=10)
    answer = set_status(crm, "2", "impaired", minute=10)
    assert (answer.json()["status_name"], "ignored" in answer.json(), page.status_of("2")) == ("impaired", False, "6")


def test_the_one_that_arrived_later_counts_when_two_are_of_the_same_time(crm: Crm, page: IzzitUpSimulator) -> None:
    page.failures += ["Not allowed"]
    first = set_status(crm, minute=10)
    assert first.status_code == 202
    assert set_status(crm, status="operational", minute=10).status_code == 200
    assert in_the_end(crm, first)["result"]["ignored"] == "older"
    assert page.status_of("2") == "5"
    assert set_status(crm, status="impaired", minute=10).json()["status_name"] == "impaired"


def test_is_applied_when_the_newer_one_was_of_another_service_or_another_tenant(
    crm: Crm, page: IzzitUpSimulator
) -> None:
    set_status(crm, "MAIL", minute=10)
    assert "ignored" not in set_status(crm, "WEB", minute=9).json()
    assert "ignored" not in set_status(other_tenant(crm), "MAIL", "impaired", minute=9).json()
    assert (page.status_of("1"), page.status_of("2")) == ("7", "6")


def test_is_applied_when_the_newer_one_was_refused_or_waits(crm: Crm, page: IzzitUpSimulator) -> None:
    page.failures += ["Status not found", "Not allowed"]
    assert [set_status(crm, minute=minute).status_code for minute in (10, 11)] == [422, 202]
    assert "ignored" not in set_status(crm, status="impaired", minute=9).json()
    assert page.status_of("2") == "6"


# ---------------------------------------------------------------- the seven failures

ERRORS: dict[str, tuple[type[VendorError], int, str]] = {
    "Service not found": (ServiceNotFoundError, 404, "rejected"),
    "Status not found": (StatusNotFoundError, 422, "rejected"),
    "Status not allowed": (StatusNotAllowedError, 422, "rejected"),
    "Incomplete request": (IncompleteRequestError, 502, "unconfirmed"),
    "Unknown action": (UnknownActionError, 502, "unconfirmed"),
    "Sign in failed": (SignInFailedError, 202, "waiting"),
    "Not allowed": (NotAllowedError, 202, "waiting"),
}
"""What each becomes in the client, what the CRM is answered, and in which state the operation is left."""


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


@pytest.fixture
def alone() -> Iterator[IzzitUpSimulator]:
    """IzzitUp without the bridge."""
    simulator = IzzitUpSimulator()
    simulator.start()
    yield simulator
    simulator.stop()


def client_of(page: IzzitUpSimulator) -> IzzitUp:
    (user, password), *_ = page.users.items()
    document = {"base_url": page.base_url, "user": user, "password": password}
    settings = IzzitUpSettings.model_validate(document, context=LOCAL_HOSTS)
    return IzzitUp(settings, Transport(on_this_machine=LOCAL_HOSTS), Deadline(21))


def test_the_simulator_and_the_client_know_the_same_failures() -> None:
    documented = {(result, message.partition(".")[0]) for message, result in izzitup.FAILURES.items()}
    assert documented == set(FAILURES)
    assert {words for _, words in FAILURES} == set(ERRORS)


@ROWS
def test_each_failure_is_an_error_of_its_own_whatever_its_status(alone: IzzitUpSimulator, row: tuple[str, str]) -> None:
    words = row[1]
    error = ERRORS[words][0]
    client = client_of(alone)
    for status in (200, 400, 401, 403, 429, 500, 503):
        alone.failure_status = status
        with pytest.raises(error) as caught:
            client.set_status(provoke(alone, words), ServiceStatus.OUTAGE)
        assert type(caught.value) is error
        assert (caught.value.message, caught.value.status) == (f"IzzitUp: {words}", status)
    assert alone.status_of("2") == "5"


@pytest.mark.parametrize("status", [200, 403])
@ROWS
def test_each_failure_is_answered_in_its_own_way(
    crm: Crm, page: IzzitUpSimulator, row: tuple[str, str], status: int
) -> None:
    words = row[1]
    _, expected, state = ERRORS[words]
    page.failure_status = status
    answer = set_status(crm, provoke(page, words))
    body = answer.json()
    assert answer.status_code == expected
    assert body["reason" if expected == 202 else "detail"].startswith(f"IzzitUp: {words}")
    if expected != 202:
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert body["retryable"] is (expected == 502)
    assert crm.get(f"/operations/{body['operation_id']}").json()["state"] == state
    assert (posts(page), page.status_of("2")) == (1, "5")


@pytest.mark.parametrize("words", ["Incomplete request", "Unknown action", "Not allowed"])
def test_is_done_in_the_end_when_the_failure_is_over(crm: Crm, page: IzzitUpSimulator, words: str) -> None:
    answer = set_status(crm, provoke(page, words))
    page.allowed.add(USER)
    assert in_the_end(crm, answer)["state"] == "succeeded"
    assert page.status_of("2") == "7"


def test_may_be_sent_again_when_it_was_refused(crm: Crm, page: IzzitUpSimulator) -> None:
    assert set_status(crm, "99").status_code == 404
    page.services.append(service("99", "New", "NEW"))
    assert set_status(crm, "99").status_code == 200


# ---------------------------------------------------------------- sign-ins


def other_tenant(crm: Crm) -> Crm:
    """The CRM of another tenant, whose login at the same IzzitUp is its own."""
    crm.stack.izzitup.users["other-bot"] = "another password"
    crm.stack.izzitup.allowed.add("other-bot")
    crm.stack.put_secret("other", tenant(crm.stack, user="other-bot", password="another password"))
    other = Crm(crm.stack)
    other.session.close()
    other.session = crm.session
    other.headers = {"Authorization": f"Bearer {crm.stack.add_key('other', frozenset({'status_update'}), 'other')}"}
    return other


def pass_days(stack: Stack, *, days: int = 8) -> None:
    """After eight days all retries are through."""
    for _ in range(days * 2):
        stack.move_clock(12 * 3600)
        stack.deliver_due()


def test_a_failed_sign_in_is_not_repeated_by_further_events(crm: Crm, page: IzzitUpSimulator) -> None:
    use_password(crm.stack, f"{SECRET}-wrong")
    for minute in range(10):
        answer = set_status(crm, "WEB" if minute % 2 else "MAIL", minute=minute)
        assert (answer.status_code, answer.json()["state"]) == (202, "waiting")
        cold(crm.stack)
    assert (page.failed_sign_ins, posts(page)) == (1, 1)


@pytest.mark.usefixtures("waiting_moves_the_clock")
def test_a_failed_sign_in_is_not_repeated_by_retries(crm: Crm, page: IzzitUpSimulator) -> None:
    use_password(crm.stack, f"{SECRET}-wrong")
    accepted = [set_status(crm, minute=minute) for minute in range(3)]
    for _ in range(8):
        pass_days(crm.stack, days=1)
        cold(crm.stack)
    assert page.failed_sign_ins == 1
    assert {crm.settle(answer)["state"] for answer in accepted} == {"needs_review"}  # nothing is lost


@pytest.mark.usefixtures("waiting_moves_the_clock")
def test_a_failed_sign_in_is_not_repeated_by_a_person(crm: Crm, page: IzzitUpSimulator) -> None:
    use_password(crm.stack, f"{SECRET}-wrong")
    accepted = set_status(crm)
    pass_days(crm.stack)
    assert crm.post(f"{accepted.headers['Location']}/resolve", {"action": "retry"}).status_code == 200
    pass_days(crm.stack, days=1)
    assert page.failed_sign_ins == 1


@pytest.mark.usefixtures("eager_switches")
def test_a_failed_sign_in_is_not_repeated_by_twenty_requests_at_once(crm: Crm, page: IzzitUpSimulator) -> None:
    use_password(crm.stack, f"{SECRET}-wrong")
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda minute: set_status(crm, minute=minute), range(20)))
    assert [answer.status_code for answer in answers] == [202] * 20
    crm.stack.move_clock(60)
    crm.stack.deliver_due()
    assert page.failed_sign_ins == 1


def test_a_failed_sign_in_is_not_repeated_when_a_php_notice_comes_before_the_answer(
    crm: Crm, page: IzzitUpSimulator
) -> None:
    page.notice_first = True
    use_password(crm.stack, f"{SECRET}-wrong")
    for minute in range(3):
        assert set_status(crm, minute=minute).status_code in (202, 502)
    for _ in range(3):
        crm.stack.move_clock(600)
        crm.stack.deliver_due()
    assert page.failed_sign_ins == 1


def test_a_failed_sign_in_is_not_repeated_by_environments_that_remember_an_older_secret(
    crm: Crm, page: IzzitUpSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_password(crm.stack, f"{SECRET}-wrong")
    first = runtime()
    assert set_status(crm, minute=1).status_code == 202
    others = [cold(crm.stack) for _ in range(3)]
    for minute, environment in enumerate(others, start=2):
        monkeypatch.setattr(handler, "runtime", lambda environment=environment: environment)
        assert set_status(crm, minute=minute).status_code == 202
    crm.stack.put_secret("demo", tenant(crm.stack, password=f"{SECRET}-wrong-again"))
    for minute, environment in enumerate([first, *others, first], start=10):
        monkeypatch.setattr(handler, "runtime", lambda environment=environment: environment)
        assert set_status(crm, minute=minute).status_code == 202
    assert page.failed_sign_ins == 2


def test_the_account_is_not_locked_when_the_password_was_wrong_for_a_while(crm: Crm, page: IzzitUpSimulator) -> None:
    page.locks_after = 2
    use_password(crm.stack, f"{SECRET}-wrong")
    accepted = [set_status(crm, minute=minute) for minute in range(5)]
    pass_days(crm.stack, days=1)
    crm.stack.put_secret("demo", crm.stack.demo_tenant())
    pass_days(crm.stack, days=1)
    assert {crm.settle(answer)["state"] for answer in accepted} == {"succeeded"}
    assert (page.failed_sign_ins, page.status_of("2")) == (1, "7")


def test_is_applied_after_the_secret_was_touched_when_the_account_was_locked(crm: Crm, page: IzzitUpSimulator) -> None:
    page.locks_after = 0
    accepted = set_status(crm)
    assert (accepted.status_code, page.failed_sign_ins) == (202, 1)
    page.locks_after = None
    pass_days(crm.stack, days=1)
    assert (posts(page), page.status_of("2")) == (1, "5")  # unlocked it is, but nobody has told the bridge
    crm.stack.put_secret("demo", crm.stack.demo_tenant() + "\n")
    pass_days(crm.stack, days=1)
    assert crm.settle(accepted)["state"] == "succeeded"
    assert page.status_of("2") == "7"


@pytest.mark.parametrize("remembered", [True, False], ids=["a warm function", "a cold function"])
def test_waiting_events_are_applied_when_the_secret_has_the_right_password(
    crm: Crm, page: IzzitUpSimulator, *, remembered: bool
) -> None:
    use_password(crm.stack, f"{SECRET}-wrong")
    accepted = [set_status(crm, name, minute=5) for name in ("WEB", "MAIL", "BILLING")]
    crm.stack.put_secret("demo", crm.stack.demo_tenant())
    if not remembered:
        cold(crm.stack)
    assert [crm.settle(answer)["state"] for answer in accepted] == ["succeeded"] * 3
    assert [page.status_of(number) for number in "123"] == ["7"] * 3
    assert page.failed_sign_ins == 1
    assert set_status(crm, "WEB", "operational", minute=6).status_code == 200


@pytest.mark.parametrize("remembered", [True, False], ids=["a warm function", "a cold function"])
def test_signs_in_once_more_when_the_secret_changed_and_is_wrong_again(
    crm: Crm, page: IzzitUpSimulator, *, remembered: bool
) -> None:
    use_password(crm.stack, f"{SECRET}-wrong")
    accepted = set_status(crm, minute=1)
    crm.stack.put_secret("demo", tenant(crm.stack, password=f"{SECRET}-wrong-again"))
    if not remembered:
        cold(crm.stack)
    for minute in range(2, 6):
        assert set_status(crm, minute=minute).status_code == 202
        crm.stack.move_clock(3600)
        crm.stack.deliver_due()
    assert page.failed_sign_ins == 2
    crm.stack.put_secret("demo", crm.stack.demo_tenant())
    crm.stack.move_clock(6 * 3600)
    crm.stack.deliver_due()
    assert crm.settle(accepted)["state"] == "succeeded"
    assert page.failed_sign_ins == 2


def test_is_applied_at_once_when_the_password_was_changed_on_both_sides(crm: Crm, page: IzzitUpSimulator) -> None:
    assert set_status(crm, minute=1).status_code == 200
    page.users[USER] = f"{SECRET}-new"
    crm.stack.put_secret("demo", crm.stack.demo_tenant())
    assert [set_status(crm, minute=minute).status_code for minute in (2, 3)] == [200, 200]
    assert page.failed_sign_ins == 1  # the one with what was remembered


def test_other_tenants_are_not_paused(crm: Crm, page: IzzitUpSimulator) -> None:
    use_password(crm.stack, f"{SECRET}-wrong")
    assert set_status(crm, minute=1).status_code == 202
    other = other_tenant(crm)
    assert [set_status(other, minute=minute).status_code for minute in (1, 2)] == [200, 200]
    assert set_status(crm, minute=2).status_code == 202
    assert page.failed_sign_ins == 1


def test_services_are_listed_while_updates_are_paused(crm: Crm) -> None:
    use_password(crm.stack, f"{SECRET}-wrong")
    assert set_status(crm).status_code == 202
    assert crm.get("/services").status_code == 200


# ---------------------------------------------------------------- the password is told to nobody


@pytest.mark.usefixtures("waiting_moves_the_clock")
@pytest.mark.parametrize(
    "password",
    [
        f"\"{SECRET}\" & 'so on'",
        f"/{SECRET}\\/\\\\",
        f"ü✓{SECRET}🔑票<b>",
        f'{SECRET}","result":"Success","message":"Not allowed',
    ],
)
def test_the_password_is_in_no_answer_no_log_no_table_and_no_metric(
    crm: Crm,
    page: IzzitUpSimulator,
    password: str,
    log: StringIO,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page.users[USER] = password
    use_password(crm.stack, password)
    answers = [set_status(crm, minute=0)]
    assert answers[0].status_code == 200  # so it is the password that is signed in with
    minutes = iter(range(1, 60))
    really_respond = page.respond
    for status in (200, 500):
        page.failure_status = status
        for message in izzitup.FAILURES:
            if message != "Sign in failed":
                page.failures.append(message)
                answers.append(set_status(crm, minute=next(minutes)))
        for echo in (
            lambda request, status=status: Response(request.get_data() or b"[]", status, mimetype="text/plain"),
            lambda request, status=status: Response(
                json.dumps({"message": request.get_data(as_text=True)}), status, mimetype="application/json"
            ),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(page, "respond", lambda request, echo=echo: echo(request))
                answers.append(set_status(crm, minute=next(minutes)))
    page.notice_first = True
    answers.append(set_status(crm, minute=next(minutes)))
    page.failures.append("Status not found")
    answers.append(set_status(crm, minute=next(minutes)))
    page.notice_first = False
    assert page.respond == really_respond
    page.fail(Kind.CLOSE_AFTER)
    answers.append(set_status(crm, minute=next(minutes)))
    crm.stack.move_clock(60)
    crm.stack.deliver_due()
    page.failures.append("Sign in failed")
    answers.append(set_status(crm, minute=next(minutes)))
    answers.append(set_status(crm, minute=next(minutes)))
    assert answers[-1].json()["state"] == "waiting"
    crm.stack.move_clock(600)
    crm.stack.deliver_due()
    answers += [crm.get("/services"), crm.get("/operations?state=succeeded"), crm.get("/operations?state=waiting")]
    answers += [
        crm.get(f"/operations/{answer.json()['operation_id']}") for answer in answers if "operation_id" in answer.json()
    ]
    tables = [rows(table) for table in ("OPERATIONS_TABLE", "ACCOUNTS_TABLE", "LINKS_TABLE")]
    assert [len(tables[0]) > 15, len(tables[1])] == [True, 1]
    out, err = capsys.readouterr()
    assert '"vendor":"IzzitUp","SignInRefused":[1.0]' in out
    assert '"message":"operation"' in log.getvalue()
    told = [*(f"{answer.headers} {answer.text}" for answer in answers), repr(tables), log.getvalue(), out, err]
    assert [text for text in told if SECRET in text] == []


# ---------------------------------------------------------------- what IzzitUp may be like


def test_any_list_of_services_is_understood(crm: Crm, page: IzzitUpSimulator) -> None:
    shapes: tuple[Literal["array", "object", "bare"], ...] = ("array", "object", "bare")
    for minute, page.list_shape in enumerate(shapes):
        cold(crm.stack)
        assert [found["key"] for found in crm.get("/services").json()["services"]] == ["WEB", "MAIL", "BILLING"]
        assert set_status(crm, "billing", minute=minute).json()["id"] == "3"


@pytest.mark.parametrize("shape", ["array", "bare"])
@pytest.mark.parametrize(
    ("encoding", "kind"),
    [
        ("utf-8-sig", "application/json"),
        ("utf-16", "application/json"),
        ("windows-1250", "application/json; charset=windows-1250"),
        ("iso-8859-2", "text/html; charset=ISO-8859-2"),
    ],
)
def test_izzitup_is_understood_in_the_charset_that_it_names(
    crm: Crm,
    page: IzzitUpSimulator,
    monkeypatch: pytest.MonkeyPatch,
    shape: Literal["array", "bare"],
    encoding: str,
    kind: str,
) -> None:
    def php_response(body: object, status: int = 200) -> Response:
        return Response(json.dumps(body, ensure_ascii=False).encode(encoding), status, content_type=kind)

    monkeypatch.setattr("local.vendors.izzitup._php_response", php_response)
    page.services[1]["name"], page.list_shape = "Łódź poczta", shape
    assert "Łódź poczta" in [found["name"] for found in crm.get("/services").json()["services"]]
    assert set_status(crm, "łódź poczta").json()["id"] == "2"


@pytest.mark.parametrize("listed", [True, False])
def test_a_hidden_service_is_not_shown_but_can_be_set(crm: Crm, page: IzzitUpSimulator, *, listed: bool) -> None:
    page.lists_hidden = listed
    assert "BACKUP" not in crm.get("/services").text
    assert (set_status(crm, "4").status_code, page.status_of("4")) == (200, "7")
    assert set_status(crm, "BACKUP", "impaired", minute=1).status_code == (200 if listed else 404)
    assert "BACKUP" not in set_status(crm, "no such").json()["detail"]


@pytest.mark.parametrize(("name", "told"), [("mail", ("2", "Mail", "MAIL")), ("4", ("4", None, None))])
def test_is_done_when_izzitup_does_not_tell_the_service(
    crm: Crm, page: IzzitUpSimulator, name: str, told: tuple[str, str | None, str | None]
) -> None:
    page.answers_without_data, page.lists_hidden = True, False
    answer = set_status(crm, name)
    assert answer.status_code == 200
    assert tuple(answer.json().get(member) for member in ("id", "name", "key")) == told
    assert (answer.json()["status"], answer.json()["status_name"], page.status_of(told[0])) == ("7", "outage", "7")


def test_is_not_lost_when_a_php_notice_comes_before_the_answer(crm: Crm, page: IzzitUpSimulator) -> None:
    page.notice_first = True
    answer = set_status(crm)
    assert answer.status_code in (200, 502)
    assert page.status_of("2") == "7"
    page.notice_first = False
    assert in_the_end(crm, answer)["state"] == "succeeded"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.BAD_KEY])
def test_the_status_is_set_in_the_end_whatever_izzitup_does(
    crm: Crm, page: IzzitUpSimulator, kind: Kind, method: Literal["GET", "POST"]
) -> None:
    if method == "POST":
        crm.get("/services")  # remembered, so that the next call is the POST
    page.fail(kind, seconds={Kind.REFUSE: 0.3, Kind.DELAY: 0.3}.get(kind, 90), method=method)
    answer = set_status(crm)
    assert answer.status_code == (200 if kind in (Kind.DELAY, Kind.WRONG_STATUS) else 202)
    if kind is Kind.REFUSE:
        time.sleep(0.4)
    assert in_the_end(crm, answer)["state"] == "succeeded"
    assert page.status_of("2") == "7"


def test_a_401_is_a_refused_login_too_and_not_repeated(crm: Crm, page: IzzitUpSimulator) -> None:
    page.fail(Kind.BAD_KEY)
    answers = [set_status(crm, minute=minute) for minute in (0, 1)]
    assert [answer.status_code for answer in answers] == [202, 202]
    crm.stack.move_clock(3600)
    crm.stack.deliver_due()
    assert posts(page) == 1
    crm.stack.put_secret("demo", crm.stack.demo_tenant() + " ")
    assert [in_the_end(crm, answer)["state"] for answer in answers] == ["succeeded"] * 2


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_is_not_refused_for_good_when_izzitup_is_not_where_it_was(
    crm: Crm, page: IzzitUpSimulator, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As during an upgrade of it, or of the web server before it: none of the seven failures, so no refusal."""
    if method == "POST":
        crm.get("/services")
    with monkeypatch.context() as patch:
        patch.setattr(page, "path", "/elsewhere")
        answer = set_status(crm)
        assert answer.status_code in (202, 502)
    assert in_the_end(crm, answer)["state"] == "succeeded"
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


# ---------------------------------------------------------------- one at a time


@pytest.mark.usefixtures("real_spacing")
def test_calls_are_made_one_at_a_time_and_a_second_apart(
    crm: Crm, page: IzzitUpSimulator, in_flight: list[tuple[float, float]]
) -> None:
    events = [
        (name, status, minute)
        for minute, status in enumerate(("outage", "impaired", "operational", "impaired"))
        for name in ("WEB", "MAIL", "BILLING")
    ][:10]
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda event: set_status(crm, event[0], event[1], minute=event[2]), events))
    assert {answer.status_code for answer in answers} <= {200, 202}
    assert [in_the_end(crm, answer)["state"] for answer in answers] == ["succeeded"] * 10
    assert [page.status_of(number) for number in "123"] == ["6", "5", "5"]  # those that happened last
    assert len(in_flight) >= 3
    gaps = [later[0] - earlier[1] for earlier, later in pairwise(sorted(in_flight))]
    assert min(gaps) >= 0.99


@pytest.mark.usefixtures("real_spacing")
def test_waits_for_its_turn_when_another_is_being_carried(crm: Crm, page: IzzitUpSimulator) -> None:
    crm.get("/services")
    page.fail(Kind.DELAY, seconds=0.5)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda name: set_status(crm, name), ("WEB", "MAIL")))
    assert [answer.status_code for answer in answers] == [200, 200]


@pytest.mark.usefixtures("real_spacing")
def test_different_tenants_do_not_wait_for_each_other(crm: Crm) -> None:
    crm.get("/services")
    other = other_tenant(crm)
    now = int(runtime().clock() * 1000)
    runtime().accounts.take_turn("demo", VENDOR, holder="dead", now=now, until=now + 39_000, sign_in="")
    assert set_status(other).status_code == 200


def test_waits_until_the_turn_of_a_killed_function_is_over(crm: Crm, page: IzzitUpSimulator) -> None:
    now = int(runtime().clock() * 1000)
    runtime().accounts.take_turn("demo", VENDOR, holder="dead", now=now, until=now + 39_000, sign_in="")
    accepted = [set_status(crm, name) for name in ("WEB", "MAIL")]
    assert {(answer.status_code, answer.json()["state"]) for answer in accepted} == {(202, "waiting")}
    assert "first" in accepted[0].json()["reason"]
    assert posts(page) == 0
    assert [crm.settle(answer)["state"] for answer in accepted] == ["succeeded"] * 2
    assert [page.status_of(number) for number in "12"] == ["7", "7"]


class Killed(BaseException):
    """Ends a function where it stands."""


@pytest.mark.parametrize("done", [True, False])
def test_is_carried_by_another_function_when_its_own_was_killed(
    crm: Crm, page: IzzitUpSimulator, monkeypatch: pytest.MonkeyPatch, *, done: bool
) -> None:
    really_set = IzzitUp.set_status

    def killed(self: IzzitUp, service_id: str, status: ServiceStatus) -> None:
        if done:
            really_set(self, service_id, status)
        raise Killed

    accepted = set_status(crm, minute=1, Prefer="respond-async")
    with monkeypatch.context() as patch:
        patch.setattr(IzzitUp, "set_status", killed)
        with pytest.raises(Killed):
            crm.stack.deliver_due()
    other = set_status(crm, "2", "impaired", minute=2)
    assert (other.status_code, other.json()["state"]) == (202, "waiting")
    assert [crm.settle(answer)["state"] for answer in (accepted, other)] == ["succeeded"] * 2
    assert page.status_of("2") == "6"


def test_is_set_again_when_its_turn_was_over_before_it_was_done(
    crm: Crm, page: IzzitUpSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_set = IzzitUp.set_status

    def too_late(self: IzzitUp, service_id: str, status: ServiceStatus) -> object:
        now = int(runtime().clock() * 1000) + 60_000
        runtime().accounts.take_turn("demo", VENDOR, holder="next", now=now, until=now, sign_in="")
        return really_set(self, service_id, status)

    with monkeypatch.context() as patch:
        patch.setattr(IzzitUp, "set_status", too_late)
        answer = set_status(crm)
    assert (answer.status_code, answer.json()["state"]) == (202, "unconfirmed")
    crm.stack.move_clock(60)
    assert crm.settle(answer)["state"] == "succeeded"
    assert (posts(page), page.status_of("2")) == (2, "7")


@pytest.mark.parametrize("method", ["take_turn", "ending"])
def test_is_done_in_the_end_when_the_account_table_did_not_answer(
    crm: Crm, page: IzzitUpSimulator, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object, **__: object) -> None:
        raise StorageError("throttled")

    with monkeypatch.context() as patch:
        patch.setattr(Accounts, method, unavailable)
        answer = set_status(crm)
        assert answer.status_code == 202
    assert crm.settle(answer)["state"] == "succeeded"
    assert page.status_of("2") == "7"


def test_takes_four_round_trips_when_new_and_one_when_repeated(crm: Crm, page: IzzitUpSimulator) -> None:
    def round_trips() -> Counter[str]:
        assert crm.stack.aws
        return Counter(crm.stack.aws.calls) + Counter(izzitup=len(page.seen))

    set_status(crm, "WEB")
    before = round_trips()
    assert set_status(crm).status_code == 200
    new = round_trips()
    names = {name.rpartition(".")[2]: count for name, count in (new - before).items()}
    assert names == {"PutItem": 1, "UpdateItem": 1, "TransactWriteItems": 1, "izzitup": 1}
    assert set_status(crm).status_code == 200
    assert sum((round_trips() - new).values()) == 1


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
        page.fail(kind, seconds=0.3 if kind is Kind.REFUSE else 7, method="GET")
        answer = crm.get("/services")
        assert (answer.status_code, answer.json()["retryable"]) == (503, True), kind
        if kind in (Kind.TOO_MANY, Kind.UNAVAILABLE):
            assert answer.headers["Retry-After"] == "7"
        if kind is Kind.REFUSE:
            time.sleep(0.5)
        assert crm.get("/services").status_code == 200


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
    statuses: tuple[object, ...] = (
        "down",
        "",
        "closed",
        "4",
        4,
        8,
        0,
        -5,
        5.0,
        75,
        True,
        None,
        [],
        ["outage"],
        {},
        {"a": 5},
        "x" * 10_000,
    )
    times: tuple[object, ...] = ("2024-05-05T12:00:00", "yesterday", "", True, [], "2024-02-30T00:00:00Z", 10**30)
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


@pytest.mark.parametrize("when", ["0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00"])
def test_a_time_that_is_no_time_in_utc_is_422(crm: Crm, when: str) -> None:
    answer = put(crm, "MAIL", {"status": 5, "occurred_at": when})
    assert (answer.status_code, [error["field"] for error in answer.json()["errors"]]) == (422, ["occurred_at"])


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
    url = f"{crm.stack.url}/services/MAIL/status"
    for content, kind, status in bodies:
        answer = crm.session.put(url, data=content, headers={**crm.headers, "Content-Type": kind}, timeout=60)
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
    document = json.loads(crm.stack.demo_tenant())
    del document["izzitup"]
    crm.stack.put_secret("demo", json.dumps(document))
    for answer in (set_status(crm), crm.get("/services")):
        assert (answer.status_code, answer.json()["retryable"]) == (503, True)
        assert "izzitup block" in answer.json()["detail"]
        assert ".." not in answer.json()["detail"]
    crm.stack.put_secret("demo", crm.stack.demo_tenant())
    cold(crm.stack)
    assert set_status(crm).status_code == 200

"""status_update from the CRM's call to IzzitUp and back: what is set, what is too old, and whose turn it is."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from werkzeug.wrappers import Request, Response

from crm_bridge.errors import StorageError
from crm_bridge.outbound.transport import RESERVE, SHORTEST_CALL
from crm_bridge.runtime import runtime
from crm_bridge.storage.locks import Locks
from crm_bridge.vendors.izzitup import VENDOR, IzzitUp, ServiceStatus
from local.gateway import InvocationContext
from local.vendors.izzitup import IzzitUpSimulator, service
from local.vendors.simulator import Kind
from status_update import flow
from tests.integration.conftest import Crm, rows
from tests.integration.izzitup_calls import at, in_the_end, other_tenant, posts, put, set_status
from tests.stack import Stack

SPACING = flow.SPACING
pytestmark = pytest.mark.usefixtures("quick_spacing")


@pytest.fixture
def real_spacing(quick_spacing: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - to be undone
    monkeypatch.setattr(flow, "SPACING", SPACING)


@pytest.fixture
def little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function has a second to wait for a turn that does not come: it begins no call without SHORTEST_CALL left."""
    monkeypatch.setattr(
        InvocationContext, "get_remaining_time_in_millis", lambda _: int(1000 * (RESERVE + 2 * SHORTEST_CALL + 1))
    )


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


# ---------------------------------------------------------------- done


def test_sets_the_status_and_returns_what_izzitup_returned(crm: Crm, page: IzzitUpSimulator) -> None:
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
    page.services.append(service("5", "Bu\u0308ro", "OFFICE"))  # a combining accent
    crm.stack.move_clock(flow.SERVICES_MIN_AGE + 1)
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


def test_finds_a_service_that_was_made_again_under_another_id(crm: Crm, page: IzzitUpSimulator) -> None:
    assert set_status(crm, minute=1).status_code == 200
    page.services[1] = service("9", "Mail", "MAIL")
    crm.stack.move_clock(60)
    assert set_status(crm, minute=2).status_code == 200
    assert page.status_of("9") == "7"


def test_only_what_is_over_expires_after_ninety_days(crm: Crm, page: IzzitUpSimulator) -> None:
    assert [set_status(crm, name).status_code for name in ("MAIL", "99")] == [200, 404]
    expected = time.time() + timedelta(days=90).total_seconds()
    operations = [row for row in rows("OPERATIONS_TABLE") if "state" in row]
    assert [float(row["expires_at"]) for row in operations] == [pytest.approx(expected, abs=30)] * 2
    assert rows("LINKS_TABLE") == []
    page.fail(Kind.UNAVAILABLE)
    assert set_status(crm, "WEB").status_code == 202
    operations = [row for row in rows("OPERATIONS_TABLE") if "state" in row]
    assert sorted("expires_at" in row for row in operations) == [False, True, True]


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


@pytest.mark.usefixtures("little_time")
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
    runtime().locks.take_turn("demo", VENDOR, holder="dead", now=now, until=now + 39_000, sign_in="")
    assert set_status(other).status_code == 200


@pytest.mark.usefixtures("little_time")
def test_waits_until_the_turn_of_a_killed_function_is_over(crm: Crm, page: IzzitUpSimulator) -> None:
    now = int(runtime().clock() * 1000)
    runtime().locks.take_turn("demo", VENDOR, holder="dead", now=now, until=now + 39_000, sign_in="")
    accepted = [set_status(crm, name) for name in ("WEB", "MAIL")]
    assert {(answer.status_code, answer.json()["state"]) for answer in accepted} == {(202, "waiting")}
    assert "first" in accepted[0].json()["reason"]
    assert posts(page) == 0
    assert [crm.settle(answer)["state"] for answer in accepted] == ["succeeded"] * 2
    assert [page.status_of(number) for number in "12"] == ["7", "7"]


class Killed(BaseException):
    """Ends a function where it stands."""


@pytest.mark.usefixtures("little_time")
@pytest.mark.parametrize("done", [True, False])
def test_is_sent_by_another_function_when_its_own_was_killed(
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
        runtime().locks.take_turn("demo", VENDOR, holder="next", now=now, until=now, sign_in="")
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
        patch.setattr(Locks, method, unavailable)
        answer = set_status(crm)
        assert answer.status_code == 202
    assert crm.settle(answer)["state"] == "succeeded"
    assert page.status_of("2") == "7"


def test_takes_four_round_trips_when_new_and_one_when_repeated(crm: Crm, page: IzzitUpSimulator) -> None:
    def round_trips() -> Counter[str]:
        assert crm.stack.aws
        return Counter(crm.stack.aws.calls) + Counter(izzitup=len(page.seen))

    set_status(crm, "WEB")
    crm.stack.move_clock(1)  # so that the turn is free
    before = round_trips()
    assert set_status(crm).status_code == 200
    new = round_trips()
    names = {name.rpartition(".")[2]: count for name, count in (new - before).items()}
    assert names == {"PutItem": 1, "UpdateItem": 1, "TransactWriteItems": 1, "izzitup": 1}
    assert set_status(crm).status_code == 200
    assert sum((round_trips() - new).values()) == 1

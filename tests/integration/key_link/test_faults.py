"""Faults of Rev.io, and what it may do to texts that it stores."""

import time
from typing import Literal

import pytest

from local.vendors.alterations import ALTERATIONS
from local.vendors.simulator import Kind
from tests.integration.conftest import Crm
from tests.integration.key_link.conftest import (
    KEY_LINK,
    KINDS,
    OTHER,
    assert_tied,
    assert_untied,
    change_tenant,
    delete,
    external,
    forget_names,
    internal,
    key_link,
    link_up,
    put,
    seconds_until,
)

# ---------------------------------------------------------------- what Rev.io may do


@pytest.mark.parametrize("failing", ["POST", "GET", "GET of names"])
def test_there_is_one_key_link_in_the_end_whatever_revio_does(crm: Crm, failing: str) -> None:
    for number, kind in enumerate(KINDS):
        body = {**KEY_LINK, "internal_id": 1015 + number, "external_id": f"001-{number}"}
        forget_names()
        if failing != "GET of names":
            crm.get("/key-links/systems")
            crm.get("/key-links/entity-types")
        crm.stack.revio.fail(kind, seconds=90, method="POST" if failing == "POST" else "GET")
        answer = link_up(crm, **body)
        if kind is Kind.WRONG_STATUS:
            assert answer.status_code == (502 if failing == "POST" else 201)  # 200 is what a GET shall answer
        else:
            assert answer.status_code == 202, kind
            # What was only asked left nothing in doubt.
            assert failing == "POST" or answer.json()["state"] == "waiting", kind
        repeated = link_up(crm, **body)
        assert repeated.status_code == (200 if answer.status_code == 201 else 202), kind
        if repeated.status_code == 202:
            assert crm.settle(repeated)["state"] == "succeeded", kind
        assert link_up(crm, **body).json()["id"] == 77 + number
        assert len(crm.stack.revio.key_links) == number + 1
        assert_tied(crm, 77 + number, body)


def test_there_is_one_key_link_when_the_look_up_fails_as_well(crm: Crm) -> None:
    for number, kind in enumerate(KINDS):
        body = {**KEY_LINK, "internal_id": 1015 + number, "external_id": f"001-{number}"}
        forget_names()
        crm.get("/key-links/systems")
        crm.get("/key-links/entity-types")
        crm.stack.revio.fail(Kind.CLOSE_AFTER)
        accepted = link_up(crm, **body)
        crm.stack.revio.fail(kind, times=2, seconds=90, method="GET")
        assert crm.settle(accepted)["state"] == "succeeded", kind
        crm.stack.revio.heal()
        assert len(crm.stack.revio.key_links) == number + 1
        assert_tied(crm, 77 + number, body)


def test_waits_and_succeeds_when_revio_cannot_be_reached(crm: Crm) -> None:
    crm.stack.revio.fail(Kind.REFUSE, seconds=1)
    accepted = link_up(crm)
    assert (accepted.status_code, accepted.json()["state"]) == (202, "waiting")
    time.sleep(1.5)
    assert crm.settle(accepted)["state"] == "succeeded"
    assert_tied(crm, 77)


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_there_is_one_key_link_when_the_answer_comes_too_late(
    crm: Crm, monkeypatch: pytest.MonkeyPatch, method: Literal["POST", "GET"]
) -> None:
    monkeypatch.setattr("crm_bridge.outbound.transport.READ_TIMEOUT", 0.4)
    crm.stack.revio.fail(Kind.DELAY, seconds=1, method=method)
    accepted = link_up(crm)
    assert (accepted.status_code, accepted.json()["state"]) == (202, "unconfirmed" if method == "POST" else "waiting")
    time.sleep(1)
    assert crm.settle(accepted)["state"] == "succeeded"
    assert len(crm.stack.revio.key_links) == 1
    assert_tied(crm, 77)


@pytest.mark.parametrize(("lag", "believed"), [(20, 30), (100, 120), (500, 600)])
def test_there_is_one_key_link_when_revio_shows_it_later_than_it_made_it(crm: Crm, lag: int, believed: int) -> None:
    change_tenant(crm.stack, search_lag=believed)
    crm.stack.revio.search_lag = lag
    crm.stack.revio.fail(Kind.CLOSE_AFTER)
    accepted = link_up(crm)
    assert (accepted.status_code, accepted.json()["state"]) == (202, "unconfirmed")
    for _ in range(100):
        crm.stack.deliver_due(after=10)
        operation = crm.get(accepted.headers["Location"]).json()
        if operation["state"] != "unconfirmed":
            break
    assert operation["state"] == "succeeded"
    assert operation["attempts"][-1]["event"] == "found"
    assert len(crm.stack.revio.key_links) == 1


def test_is_found_at_the_first_look_when_revio_shows_it(crm: Crm) -> None:
    change_tenant(crm.stack, search_lag=600)
    crm.stack.revio.fail(Kind.CLOSE_AFTER)
    accepted = link_up(crm)
    crm.stack.deliver_due(after=40)
    assert crm.get(accepted.headers["Location"]).json()["state"] == "succeeded"


def test_is_sent_again_when_a_lost_request_was_surely_not_done(crm: Crm) -> None:
    crm.stack.revio.fail(Kind.CLOSE_BEFORE)
    operation = crm.settle(link_up(crm))
    assert [attempt["event"] for attempt in operation["attempts"]][-1] == "done"
    assert len(crm.stack.revio.key_links) == 1


@pytest.mark.parametrize("refused", ["POST", "GET"])
@pytest.mark.parametrize("says_when", [True, False])
def test_waits_for_a_minute_when_revio_has_had_enough_calls(crm: Crm, refused: str, says_when: bool) -> None:
    crm.stack.revio.says_when = says_when
    crm.stack.revio.calls_per_minute = 4 if refused == "POST" else 3  # the names take two, the searches two
    accepted = link_up(crm)
    assert (accepted.status_code, accepted.json()["state"]) == (202, "waiting")
    assert "429" in accepted.json()["reason"]
    assert 55 < seconds_until(accepted.json()["due_at"]) < 120
    assert crm.settle(accepted)["state"] == "succeeded"
    assert len(crm.stack.revio.key_links) == 1


@pytest.mark.parametrize("says_when", [True, False])
def test_a_reader_reads_when_to_ask_again_when_revio_has_had_enough_calls(linked_up: Crm, says_when: bool) -> None:
    linked_up.stack.revio.says_when = says_when
    linked_up.stack.revio.calls_per_minute = 1
    for answer in (linked_up.get("/key-links"), linked_up.get("/key-links/77")):
        assert (answer.status_code, answer.json()["retryable"]) == (503, True)
        assert 55 <= int(answer.headers["Retry-After"]) <= 60
    for accepted in (put(linked_up, 77), delete(linked_up, 77)):
        assert (accepted.status_code, accepted.json()["state"]) == (202, "waiting")
        assert "429" in accepted.json()["reason"]
        assert 55 < seconds_until(accepted.json()["due_at"]) < 120
    assert_tied(linked_up, 77)


@pytest.mark.usefixtures("paced_by_the_stack")
@pytest.mark.parametrize("calls_per_minute", [10, 13])
def test_never_calls_more_often_than_the_tenant_allows(
    crm: Crm, calls_per_minute: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crm_bridge.vendors.revio.PARTS", 10)  # as it is
    change_tenant(crm.stack, calls_per_minute=calls_per_minute)
    answers = [link_up(crm, external_id=f"001-{number}") for number in range(8)]
    answers += [put(crm, 77, OTHER), delete(crm, 78)]
    assert [answer.status_code for answer in answers] == [201] * 8 + [200, 204]
    expected = [OTHER["external_id"], *(f"001-{number}" for number in range(2, 8))]
    assert sorted(str(record["external_id"]) for record in crm.stack.revio.key_links) == sorted(expected)
    assert_tied(crm, 77, OTHER)
    calls = crm.stack.revio.account.calls
    # They are begun a minute apart; on their way each takes its few milliseconds.
    assert all(later - call > 59 for call, later in zip(calls, calls[calls_per_minute:], strict=False))


def test_a_pace_below_ten_calls_a_minute_is_no_valid_secret(linked_up: Crm) -> None:
    change_tenant(linked_up.stack, calls_per_minute=9)
    for answer in (link_up(linked_up), put(linked_up, 77), delete(linked_up, 77), linked_up.get("/key-links/77")):
        assert (answer.status_code, answer.json()["retryable"]) == (503, True)
        assert "revio.calls_per_minute" in answer.json()["detail"]
    change_tenant(linked_up.stack, calls_per_minute=10)
    assert link_up(linked_up).json()["id"] == 77


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_waits_when_the_days_calls_are_used_up(linked_up: Crm, method: str) -> None:
    linked_up.stack.revio.calls_per_day = len(linked_up.stack.revio.account.calls)
    shown = linked_up.get("/key-links/77")
    assert (shown.status_code, shown.json()["retryable"]) == (503, True)
    accepted = {
        "POST": lambda: link_up(linked_up, **OTHER),
        "PUT": lambda: put(linked_up, 77),
        "DELETE": lambda: delete(linked_up, 77),
    }[method]()
    assert (accepted.status_code, accepted.json()["state"]) == (202, "waiting")
    assert "quota" in accepted.json()["reason"]
    linked_up.stack.deliver_due(after=60)
    assert linked_up.get(accepted.headers["Location"]).json()["state"] == "waiting"
    assert_tied(linked_up, 77)
    linked_up.stack.revio.calls_per_day = 150_000
    assert linked_up.settle(accepted)["state"] == "succeeded"
    if method == "DELETE":
        assert linked_up.stack.revio.key_links == []
        assert_untied(linked_up, external(), internal(), key_link(77))
    else:
        assert_tied(linked_up, 78 if method == "POST" else 77, OTHER)


# ---------------------------------------------------------------- what Rev.io may store


LONG = "A\u00e9 1  b\u2019s & <i>c \U0001f3ea " + 40 * "x"


@pytest.mark.parametrize("match", ["exact", "contains"])
@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_there_is_one_key_link_whatever_revio_makes_of_the_id(
    crm: Crm, alteration: str, match: Literal["exact", "contains"]
) -> None:
    crm.stack.revio.match, crm.stack.revio.alterations = match, (ALTERATIONS[alteration],)
    crm.stack.revio.fail(Kind.CLOSE_AFTER)
    accepted = link_up(crm, external_id=LONG)
    as_it_was = alteration in ("stripped", "invisible dropped")
    operation = crm.settle(accepted)
    assert operation["state"] == ("succeeded" if as_it_was else "needs_review")
    assert len(crm.stack.revio.key_links) == 1
    if not as_it_was:
        decision = {"action": "link", "id": "77", "confirmed": True}
        assert crm.post(f"{accepted.headers['Location']}/resolve", decision).json()["state"] == "succeeded"


@pytest.mark.parametrize("refused", [False, True])
def test_a_key_link_of_another_event_or_record_is_no_candidate(crm: Crm, refused: bool) -> None:
    crm.stack.revio.refuses_unknown_search = refused
    assert link_up(crm, external_id="A").status_code == 201
    for members in ((7, 2, 1015), (4, 1, 1015), (4, 2, 1016)):
        crm.stack.revio.account.add_key_link(*members, "B")
    crm.stack.revio.fail(Kind.CLOSE_BEFORE)
    assert crm.settle(link_up(crm, external_id="C"))["state"] == "succeeded"
    assert [record["external_id"] for record in crm.stack.revio.key_links] == ["A", "B", "B", "B", "C"]


def test_a_key_link_that_was_there_the_day_before_is_no_candidate(crm: Crm) -> None:
    crm.stack.revio.account.add_key_link(4, 2, 1015, "made by hand")
    crm.stack.move_clock(37 * 3600)  # its time has no zone
    crm.stack.revio.fail(Kind.CLOSE_BEFORE)
    assert crm.settle(link_up(crm))["state"] == "succeeded"
    assert len(crm.stack.revio.key_links) == 2


def test_a_person_sees_which_key_links_may_be_the_one(crm: Crm) -> None:
    crm.stack.revio.account.add_key_link(4, 2, 1015, "made by hand")
    crm.stack.revio.fail(Kind.CLOSE_BEFORE)
    accepted = link_up(crm)
    assert crm.settle(accepted)["state"] == "needs_review"
    assert [one["id"] for one in crm.get(accepted.headers["Location"]).json()["candidates"]] == ["77"]


@pytest.mark.parametrize("kind", [Kind.TOO_MANY_AFTER, Kind.UNAVAILABLE_AFTER])
def test_there_is_one_key_link_when_a_proxy_asks_to_send_later_what_revio_has_done_and_altered(
    crm: Crm, kind: Kind
) -> None:
    crm.stack.revio.alterations = (ALTERATIONS["upper case"],)
    crm.stack.revio.search_lag = 29
    crm.stack.revio.fail(kind, seconds=1)
    assert crm.settle(link_up(crm, external_id="abc"))["state"] == "needs_review"
    assert len(crm.stack.revio.key_links) == 1


def test_does_not_look_through_more_key_links_than_it_has_time_for(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crm_bridge.vendors.revio.MOST_PAGES", 2)
    monkeypatch.setattr(crm.stack.revio, "largest_page", 1)
    crm.stack.revio.refuses_unknown_search = True
    for number in range(3):
        crm.stack.revio.account.add_key_link(4, 2, 2000 + number, "B")
    crm.stack.revio.fail(Kind.CLOSE_BEFORE)
    operation = crm.settle(link_up(crm))
    assert (operation["state"], "too many key links" in operation["attempts"][-1]["reason"]) == ("needs_review", True)
    crm.stack.revio.fail(Kind.CLOSE_AFTER)
    assert crm.settle(link_up(crm, external_id="D"))["state"] == "succeeded"  # the search by its own id shows it

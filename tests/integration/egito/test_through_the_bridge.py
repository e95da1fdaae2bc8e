"""No event is lost when the bridge gets no token of Egito, or one that is not accepted."""

import re

import pytest

from local.vendors.simulator import Kind
from tests.integration.conftest import Crm, cold
from tests.integration.egito.calls import expect_waiting, put_egito, save, saved_names
from tests.integration.egito.conftest import Wire
from tests.variants import some


@pytest.mark.parametrize(
    ("wrong", "how"), [({"password": "of yesterday"}, "invalid_grant"), ({"api_secret": "wrong"}, "invalid_client")]
)
def test_nothing_is_lost_when_the_login_is_wrong(
    crm: Crm, wrong: dict[str, str], how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put_egito(crm.stack, **wrong)
    cold(crm.stack)
    reason = f"Egito refused the login ({how}). It is not used again until the tenant's secret changes"

    answers = [save(crm, number) for number in range(3)]

    for accepted in answers:
        expect_waiting(accepted, reason)
        operation = crm.get(accepted.headers["Location"]).json()
        assert (operation["state"], operation["last_attempt"]["event"]) == ("waiting", "not done")
        assert reason in operation["last_attempt"]["reason"]
    for _ in range(3):  # however often it is tried again
        crm.stack.deliver_due(after=600)
    assert crm.stack.egito.token_requests == ["password"]
    assert '"vendor":"Egito","SignInRefused":[1.0]' in capsys.readouterr().out
    assert saved_names(crm.stack) == []

    put_egito(crm.stack)
    assert [crm.settle(accepted)["state"] for accepted in answers] == ["succeeded"] * 3
    assert saved_names(crm.stack) == [f"Lis {number}" for number in range(3)]
    assert crm.stack.egito.token_requests == ["password"] * 2


def test_a_change_is_not_lost_when_the_login_was_wrong(crm: Crm) -> None:
    first = save(crm)
    assert first.status_code == 201
    put_egito(crm.stack, password="of yesterday")
    cold(crm.stack)
    changed = save(crm, recordID=first.json()["recordID"], mobile="600 100 200")
    expect_waiting(changed, "Egito refused the login (invalid_grant)")

    put_egito(crm.stack)

    assert crm.settle(changed)["state"] == "succeeded"
    assert [record["mobile"] for record in crm.stack.egito.records["Contact"]] == ["600 100 200"]


def test_a_change_is_not_lost_when_egito_shows_a_page_of_maintenance(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(crm.stack.egito, monkeypatch)
    first = save(crm)
    wire.calls_answer(200, b"<html>Down for maintenance</html>", "text/html")
    changed = save(crm, recordID=first.json()["recordID"], mobile="600 100 200")
    wire.on_call = None

    assert changed.status_code == 202
    assert crm.settle(changed)["state"] == "succeeded"
    assert [record["mobile"] for record in crm.stack.egito.records["Contact"]] == ["600 100 200"]


SUPPORT = ("operations:read", "operations:payload")
FAILING = [kind for kind in Kind if kind not in (Kind.REFUSE, Kind.DELAY, Kind.WRONG_STATUS, Kind.BAD_KEY)]


@pytest.mark.parametrize("kind", some(FAILING))
def test_nothing_is_lost_when_no_token_comes(crm: Crm, kind: Kind) -> None:
    crm.stack.egito.fail_token(kind, times=2, seconds=1)
    answers = [save(crm, number) for number in range(2)]
    for accepted in answers:
        expect_waiting(accepted, "Egito")
    assert saved_names(crm.stack) == []
    assert [crm.settle(accepted)["state"] for accepted in answers] == ["succeeded"] * 2
    assert saved_names(crm.stack) == ["Lis 0", "Lis 1"]


@pytest.mark.usefixtures("quick")
def test_nothing_is_lost_when_the_token_comes_too_late(crm: Crm) -> None:
    crm.stack.egito.fail_token(Kind.DELAY, seconds=2)
    accepted = save(crm)
    expect_waiting(accepted, "the response of Egito was lost (TimeoutError)")
    assert crm.settle(accepted)["state"] == "succeeded"
    assert saved_names(crm.stack) == ["Lis 1"]


def test_nothing_is_lost_when_egito_takes_no_connection(crm: Crm) -> None:
    crm.stack.egito.stop()
    accepted = save(crm)
    expect_waiting(accepted, "Egito")
    crm.stack.egito.start()
    assert crm.settle(accepted)["state"] == "succeeded"
    assert saved_names(crm.stack) == ["Lis 1"]


def test_nothing_is_lost_when_the_token_is_never_accepted(crm: Crm) -> None:
    crm.stack.egito.token_in = "query"
    answers = [save(crm, number) for number in range(4)]
    for accepted in answers:
        assert (accepted.status_code, accepted.json()["result"]) == (202, "WARNING")
        reason = accepted.json()["reason"]
        assert re.search("answered 401: (invalid_token|unauthorized)|does not accept the token", reason), reason
    assert len(crm.stack.egito.token_requests) == 2

    put_egito(crm.stack, token_in="query")
    assert [crm.settle(accepted)["state"] for accepted in answers] == ["succeeded"] * 4
    assert len(saved_names(crm.stack)) == 4


def test_nothing_is_lost_when_the_token_was_revoked_twice_in_a_row(crm: Crm) -> None:
    save(crm, 1)
    crm.stack.egito.revoke()
    assert save(crm, 2).status_code == 201
    crm.stack.egito.revoke()
    accepted = save(crm, 3)
    expect_waiting(accepted, "Egito does not accept the token that it has just given")
    assert crm.settle(accepted)["state"] == "succeeded"
    assert saved_names(crm.stack) == ["Lis 1", "Lis 2", "Lis 3"]


def test_nothing_of_a_login_is_shown_among_the_calls(crm: Crm) -> None:
    crm.stack.egito.fail_token(Kind.ERROR_BEFORE)
    save(crm)
    crm = crm.with_key(*SUPPORT)
    found = [one["operation_id"] for one in crm.get("/operations").json()["operations"]]
    (exchange,) = [one for each in found for one in crm.get(f"/operations/{each}").json()["exchanges"]]
    assert [(call["path"], call["status"]) for call in exchange["calls"]] == [("/oauth/token", 500)]
    assert (exchange["request"], exchange["response"]) == (None, None)

"""A login that IzzitUp refused is not tried again until the tenant's secret changes; its password is never shown."""

import json
from concurrent.futures import ThreadPoolExecutor
from io import StringIO

import pytest
from werkzeug.wrappers import Response

from crm_bridge.runtime import runtime
from local.vendors import izzitup
from local.vendors.izzitup import IzzitUpSimulator
from local.vendors.simulator import Kind
from status_update import handler
from tests.integration.conftest import Crm, cold, rows
from tests.integration.izzitup_calls import (
    SECRET,
    USER,
    WRONG,
    in_the_end,
    other_tenant,
    pass_days,
    posts,
    set_status,
    tenant,
    use_password,
)
from tests.variants import some

pytestmark = pytest.mark.usefixtures("quick_spacing")
REMEMBERED = pytest.mark.parametrize("remembered", [True, False], ids=["a warm function", "a cold function"])


@pytest.fixture
def page(crm: Crm) -> IzzitUpSimulator:
    return crm.stack.izzitup


def use(crm: Crm, secret: str, *, days: float = 0) -> None:
    """Give the demo tenant this secret, and let time pass."""
    crm.stack.put_secret("demo", secret)
    if days:
        pass_days(crm.stack, days=1)


# ---------------------------------------------------------------- one refused login


@pytest.mark.parametrize("notice_first", [False, True], ids=["", "after a PHP notice"])
def test_a_failed_sign_in_is_not_repeated_by_further_events(
    crm: Crm, page: IzzitUpSimulator, notice_first: bool
) -> None:
    page.notice_first = notice_first
    use_password(crm.stack, WRONG)
    for minute in range(6):
        response = set_status(crm, "WEB" if minute % 2 else "MAIL", minute=minute)
        assert response.status_code == 202 or notice_first
        assert notice_first or response.json()["state"] == "waiting"
        cold(crm.stack)
    for _ in range(3):
        crm.stack.deliver_due(after=600)
    assert (page.failed_sign_ins, posts(page)) == (1, 1)


@pytest.mark.usefixtures("waiting_moves_the_clock")
def test_a_failed_sign_in_is_not_repeated_by_retries_or_by_a_person(crm: Crm, page: IzzitUpSimulator) -> None:
    use_password(crm.stack, WRONG)
    accepted = [set_status(crm, minute=minute) for minute in range(2)]
    for _ in range(8):
        pass_days(crm.stack, days=1)
        cold(crm.stack)
    assert page.failed_sign_ins == 1
    assert {crm.settle(one)["state"] for one in accepted} == {"needs_review"}  # nothing is lost
    assert crm.post(f"{accepted[0].headers['Location']}/resolve", {"action": "retry"}).status_code == 200
    pass_days(crm.stack, days=1)
    assert page.failed_sign_ins == 1


@pytest.mark.usefixtures("eager_switches")
def test_a_failed_sign_in_is_not_repeated_by_twenty_requests_at_once(crm: Crm, page: IzzitUpSimulator) -> None:
    use_password(crm.stack, WRONG)
    with ThreadPoolExecutor(20) as pool:
        responses = list(pool.map(lambda minute: set_status(crm, minute=minute), range(20)))
    assert [response.status_code for response in responses] == [202] * 20
    crm.stack.deliver_due(after=60)
    assert page.failed_sign_ins == 1


def test_a_failed_sign_in_is_not_repeated_by_environments_that_remember_an_older_secret(
    crm: Crm, page: IzzitUpSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_password(crm.stack, WRONG)
    first = runtime()
    assert set_status(crm, minute=1).status_code == 202
    others = [cold(crm.stack) for _ in range(3)]
    for minute, environment in enumerate(others, start=2):
        monkeypatch.setattr(handler, "runtime", lambda environment=environment: environment)
        assert set_status(crm, minute=minute).status_code == 202
    use(crm, tenant(crm.stack, password=f"{WRONG}-again"))
    for minute, environment in enumerate([first, *others, first], start=10):
        monkeypatch.setattr(handler, "runtime", lambda environment=environment: environment)
        assert set_status(crm, minute=minute).status_code == 202
    assert page.failed_sign_ins == 2


def test_a_401_is_a_refused_login_too_and_not_repeated(crm: Crm, page: IzzitUpSimulator) -> None:
    page.fail(Kind.BAD_KEY)
    responses = [set_status(crm, minute=minute) for minute in (0, 1)]
    assert [response.status_code for response in responses] == [202, 202]
    crm.stack.deliver_due(after=3600)
    assert posts(page) == 1
    use(crm, crm.stack.demo_tenant() + " ")
    assert [in_the_end(crm, response)["state"] for response in responses] == ["succeeded"] * 2


def test_others_go_on_while_a_tenants_updates_are_paused(crm: Crm, page: IzzitUpSimulator) -> None:
    use_password(crm.stack, WRONG)
    assert set_status(crm, minute=1).status_code == 202
    assert crm.get("/services").status_code == 200
    other = other_tenant(crm)
    assert [set_status(other, minute=minute).status_code for minute in (1, 2)] == [200, 200]
    assert set_status(crm, minute=2).status_code == 202
    assert page.failed_sign_ins == 1


# ---------------------------------------------------------------- the secret changes


def test_the_account_is_not_locked_when_the_password_was_wrong_for_a_while(crm: Crm, page: IzzitUpSimulator) -> None:
    page.locks_after = 2
    use_password(crm.stack, WRONG)
    accepted = [set_status(crm, minute=minute) for minute in range(5)]
    pass_days(crm.stack, days=1)
    use(crm, crm.stack.demo_tenant(), days=1)
    assert {crm.settle(one)["state"] for one in accepted} == {"succeeded"}
    assert (page.failed_sign_ins, page.status_of("2")) == (1, "7")


def test_is_applied_after_the_secret_was_touched_when_the_account_was_locked(crm: Crm, page: IzzitUpSimulator) -> None:
    page.locks_after = 0
    accepted = set_status(crm)
    assert (accepted.status_code, page.failed_sign_ins) == (202, 1)
    page.locks_after = None
    pass_days(crm.stack, days=1)
    assert (posts(page), page.status_of("2")) == (1, "5")  # unlocked it is, but the bridge does not know it
    use(crm, crm.stack.demo_tenant() + "\n", days=1)
    assert crm.settle(accepted)["state"] == "succeeded"
    assert page.status_of("2") == "7"


@REMEMBERED
def test_waiting_events_are_applied_when_the_secret_has_the_right_password(
    crm: Crm, page: IzzitUpSimulator, *, remembered: bool
) -> None:
    use_password(crm.stack, WRONG)
    accepted = [set_status(crm, name, minute=5) for name in ("WEB", "MAIL", "BILLING")]
    use(crm, crm.stack.demo_tenant())
    if not remembered:
        cold(crm.stack)
    assert [crm.settle(one)["state"] for one in accepted] == ["succeeded"] * 3
    assert [page.status_of(number) for number in "123"] == ["7"] * 3
    assert page.failed_sign_ins == 1
    assert set_status(crm, "WEB", "operational", minute=6).status_code == 200


@REMEMBERED
def test_signs_in_once_more_when_the_secret_changed_and_is_wrong_again(
    crm: Crm, page: IzzitUpSimulator, *, remembered: bool
) -> None:
    use_password(crm.stack, WRONG)
    accepted = set_status(crm, minute=1)
    use(crm, tenant(crm.stack, password=f"{WRONG}-again"))
    if not remembered:
        cold(crm.stack)
    for minute in range(2, 5):
        assert set_status(crm, minute=minute).status_code == 202
        crm.stack.deliver_due(after=3600)
    assert page.failed_sign_ins == 2
    use(crm, crm.stack.demo_tenant())
    crm.stack.deliver_due(after=6 * 3600)
    assert crm.settle(accepted)["state"] == "succeeded"
    assert page.failed_sign_ins == 2


def test_is_applied_at_once_when_the_password_was_changed_on_both_sides(crm: Crm, page: IzzitUpSimulator) -> None:
    assert set_status(crm, minute=1).status_code == 200
    page.users[USER] = f"{SECRET}-new"
    use(crm, crm.stack.demo_tenant())
    assert [set_status(crm, minute=minute).status_code for minute in (2, 3)] == [200, 200]
    assert page.failed_sign_ins == 1  # the one with what was remembered


# ---------------------------------------------------------------- the password is not shown

PASSWORDS = (
    f"\"{SECRET}\" & 'so on'",
    f"/{SECRET}\\/\\\\",
    f"ü✓{SECRET}🔑票<b>",
    f'{SECRET}","result":"Success","message":"Not allowed',
)


@pytest.mark.usefixtures("waiting_moves_the_clock")
@pytest.mark.parametrize("password", some(PASSWORDS, 2))
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
    responses = [set_status(crm)]
    assert responses[0].status_code == 200  # so it is the password that is signed in with

    def go_on() -> None:
        responses.append(set_status(crm, minute=len(responses)))

    for status in (200, 500):
        page.failure_status = status
        for message in izzitup.FAILURES:
            if message != "Sign in failed":
                page.failures.append(message)
                go_on()
        for echo in (
            lambda request, status=status: Response(request.get_data() or b"[]", status, mimetype="text/plain"),
            lambda request, status=status: Response(
                json.dumps({"message": request.get_data(as_text=True)}), status, mimetype="application/json"
            ),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(page, "respond", lambda request, echo=echo: echo(request))
                go_on()
    page.notice_first = True
    go_on()
    page.failures.append("Status not found")
    go_on()
    page.notice_first = False
    page.fail(Kind.CLOSE_AFTER)
    go_on()
    crm.stack.deliver_due(after=60)
    page.failures.append("Sign in failed")
    go_on()
    go_on()
    assert responses[-1].json()["state"] == "waiting"
    crm.stack.deliver_due(after=600)
    ids = [response.json()["operation_id"] for response in responses if "operation_id" in response.json()]
    lists = ("/services", "/operations?state=succeeded", "/operations?state=waiting")
    responses += [crm.get(path) for path in (*lists, *(f"/operations/{one}" for one in ids))]
    tables = [rows(table) for table in ("OPERATIONS_TABLE", "LOCKS_TABLE", "LINKS_TABLE")]
    assert [len(tables[0]) > 15, len(tables[1])] == [True, 1]
    out, err = capsys.readouterr()
    assert '"vendor":"IzzitUp","SignInRefused":[1.0]' in out
    assert '"message":"operation"' in log.getvalue()
    shown = [*(f"{one.headers} {one.text}" for one in responses), repr(tables), log.getvalue(), out, err]
    assert [text for text in shown if SECRET in text] == []

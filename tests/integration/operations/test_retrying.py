"""Waiting operations are retried before their time: one event, or all that match."""

import pytest

from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import State
from local.vendors.simulator import Kind
from operations.retrying import MOST_RETRIED
from tests.integration.conftest import CommandLine, Crm
from tests.integration.operations.conftest import read, resolve, store, waiting


def retry_all(crm: Crm, **wanted: object) -> dict[str, object]:
    answer = crm.post("/operations/retry", wanted)
    assert answer.status_code == 200, answer.text
    page: dict[str, object] = answer.json()
    return page


def ids(page: dict[str, object]) -> set[str]:
    operations = page["operations"]
    assert isinstance(operations, list)
    return {one["operation_id"] for one in operations}


def test_one_that_waits_is_sent_at_once_and_the_history_says_who(crm: Crm) -> None:
    (operation,) = waiting(crm, "C-1")
    before = read(operation)
    answer = resolve(crm, operation, action="retry")
    assert (answer.status_code, answer.json()["state"]) == (200, "waiting")
    last = answer.json()["attempts"][-1]
    assert (last["event"], last["reason"].startswith("by ")) == ("made due", True)
    assert answer.json()["last_attempt"]["event"] == "not done"  # which still says why it waits
    assert read(operation).updated_at == before.updated_at
    crm.stack.deliver()  # nothing but the queue
    assert read(operation).state is State.SUCCEEDED
    assert len(crm.stack.illu.sites) == 1


def test_what_may_be_done_is_looked_for_first_also_before_its_time(crm: Crm) -> None:
    crm.stack.illu.fail(Kind.CLOSE_AFTER)
    operation = str(crm.create_site().json()["operation_id"])
    assert resolve(crm, operation, action="retry").json()["state"] == "unconfirmed"
    crm.stack.deliver()
    assert (read(operation).state, len(crm.stack.illu.sites)) == (State.SUCCEEDED, 1)
    assert [one.event for one in read(operation).attempts] == ["maybe done", "made due", "found"]


def test_what_is_not_found_before_the_search_lag_is_over_is_not_sent(crm: Crm) -> None:
    crm.stack.illu.fail(Kind.CLOSE_BEFORE)
    operation = str(crm.create_site().json()["operation_id"])
    resolve(crm, operation, action="retry")
    crm.stack.deliver()
    assert (read(operation).state, len(crm.stack.illu.sites)) == (State.UNCONFIRMED, 0)
    assert read(operation).attempts[-1].event == "not found yet"


def test_one_that_is_on_its_queue_stays_as_it_is(crm: Crm) -> None:
    (operation,) = waiting(crm, "C-1")
    resolve(crm, operation, action="retry")
    before = read(operation)
    assert resolve(crm, operation, action="retry").status_code == 200
    assert read(operation) == before


@pytest.mark.parametrize("state", [State.SENDING, State.SUCCEEDED, State.REJECTED])
def test_nothing_else_can_be_sent_at_once(crm: Crm, state: State) -> None:
    due_at = int(runtime().clock()) + 60 if state is State.SENDING else None
    operation = store("C-1", state, due_at=due_at)
    before = read(operation)
    answer = resolve(crm, operation, action="retry")
    assert (answer.status_code, f"its state is {state}" in answer.json()["detail"]) == (409, True)
    assert read(operation) == before


def test_one_that_was_taken_up_since_it_was_read_is_left_alone(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    (operation,) = waiting(crm, "C-1")
    before = read(operation)
    crm.stack.deliver_due(after=600)
    done = read(operation)
    monkeypatch.setattr(runtime().operations, "get", lambda _: before)
    answer = resolve(crm, operation, action="retry")
    assert (answer.status_code, "changed meanwhile" in answer.json()["detail"]) == (409, True)
    monkeypatch.undo()
    assert read(operation) == done


def test_all_that_match_are_due_after_an_outage_and_a_dry_run_changes_nothing(crm: Crm) -> None:
    one, two = waiting(crm, "C-1", "C-2")
    before = read(one)
    result = retry_all(crm, dry_run=True)
    assert (ids(result), result["dry_run"], result["next"]) == ({one, two}, True, None)
    assert read(one) == before
    assert ids(retry_all(crm, text="c-2")) == {two}
    assert read(one) == before
    assert ids(retry_all(crm, state="unconfirmed")) == set()
    assert ids(retry_all(crm, flow="create_job")) == set()
    assert ids(retry_all(crm, since="2099-01-01T00:00:00Z")) == set()
    assert ids(retry_all(crm, text="308")) == {one}  # the reason; two is due already
    assert [read(each).lent_until for each in (one, two)] == [None, None]  # the dispatcher's fair shares count
    crm.stack.deliver_due()
    assert [read(each).state for each in (one, two)] == [State.SUCCEEDED] * 2
    assert len(crm.stack.illu.sites) == 2


def test_of_what_needs_review_only_what_was_surely_not_done_is_retried(crm: Crm) -> None:
    doubtful = store("C-1", payload={"a": 1})
    result = retry_all(crm, state="needs_review")
    assert (ids(result), result["left_to_a_person"]) == (set(), 1)
    assert read(doubtful).state is State.NEEDS_REVIEW


def test_many_are_retried_a_page_at_a_time(crm: Crm) -> None:
    now = int(runtime().clock())
    made = {store(str(number), State.WAITING, due_at=now + 1000 + number, at=now) for number in range(MOST_RETRIED + 5)}
    first = retry_all(crm)
    assert len(ids(first)) == MOST_RETRIED
    second = retry_all(crm, after=first["next"])
    assert (len(ids(second)), second["next"]) == (5, None)
    assert ids(first) | ids(second) == made
    assert all((read(one).due_at or 0) <= runtime().clock() for one in made)


def test_another_tenants_events_and_a_key_that_may_only_look_are_left_out(crm: Crm, umbrella: Crm) -> None:
    (operation,) = waiting(crm, "C-1")
    before = read(operation)
    assert ids(retry_all(umbrella)) == set()
    reader = crm.with_key("operations:read")
    assert reader.post("/operations/retry", {}).status_code == 403
    assert read(operation) == before


@pytest.mark.parametrize("wanted", [{"state": "sending"}, {"flow": "none"}, {"after": "x"}, {"colour": "red"}])
def test_a_filter_that_is_not_known_retries_nothing(crm: Crm, wanted: dict[str, object]) -> None:
    assert crm.post("/operations/retry", wanted).status_code == 422


def test_the_command_line_retries_one_that_waits(crm: Crm, cli: CommandLine) -> None:
    (operation,) = waiting(crm, "C-1")
    assert "resolve" in cli("operations", "show", "demo", "C-1").out
    result = cli("operations", "resolve", operation, "retry", "--dry-run")
    assert "is sent at once instead of at its time" in result.out
    assert cli("operations", "resolve", operation, "retry", "--yes").code == 0
    assert read(operation).attempts[-1].event == "made due"
    assert cli("operations", "resolve", operation, "discard", "--yes").code == 2


def test_a_place_in_another_list_is_refused(crm: Crm) -> None:
    answer = crm.post("/operations/retry", {"after": f"changed.1.op_{'0' * 32}"})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"field": "after", "message": "belongs to a list with changed"}]

"""The command line shows what became of an event, and lets a person decide."""

import pytest

from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import SHARDS, State, operation_id
from local.vendors.alterations import ALTERATIONS
from local.vendors.simulator import Kind
from tests.integration.conftest import SITE, CommandLine, Crm, without_site_list
from tests.integration.operations.conftest import read, waiting
from tests.stack import Stack

SITE_ID = operation_id("demo", "create_site", str(SITE["customer_id"]))


@pytest.fixture
def plain(stack: Stack) -> None:
    """illu cannot be asked, so that a lost answer is put before a person."""
    without_site_list(stack)


def in_review(crm: Crm, **changes: object) -> str:
    """An operation that is in doubt."""
    crm.stack.illu.fail(Kind.CLOSE_AFTER)
    answer = crm.create_site(**changes)
    assert answer.status_code == 202
    assert crm.settle(answer)["state"] == "needs_review"
    return str(answer.json()["operation_id"])


@pytest.mark.usefixtures("plain")
def test_what_needs_a_person_is_listed_first_and_filters_narrow_it(crm: Crm, cli: CommandLine) -> None:
    crm.create_site(customer_id="C-1")
    waiting(crm, "C-2")
    in_review(crm, customer_id="C-3")
    states = [one["state"] for one in cli("operations", "list", "demo", "--json").json]
    assert states == ["needs_review", "succeeded", "succeeded"]  # what waited has gone on meanwhile
    waiting(crm, "C-4")
    everything = cli("operations", "list", "demo", "--json").json
    assert [one["state"] for one in everything] == ["needs_review", "waiting", "succeeded", "succeeded"]
    assert [
        one["event_key"] for one in cli("operations", "list", "demo", "--state", "needs_review", "--json").json
    ] == ["C-3"]
    assert [one["event_key"] for one in cli("operations", "list", "demo", "--reason", "308", "--json").json] == ["C-4"]
    assert cli("operations", "list", "demo", "--flow", "create_key_link", "--json").json == []
    assert len(cli("operations", "list", "demo", "--limit", "2", "--json").json) == 2
    result = cli("operations", "list", "demo")
    assert "C-3" in result.out
    assert "in doubt" in result.out


def test_an_operation_is_shown_by_its_own_id_and_by_the_crms_with_its_time_line(crm: Crm, cli: CommandLine) -> None:
    crm.stack.illu.fail(Kind.UNAVAILABLE)
    crm.settle(crm.create_site())
    for wanted in (SITE_ID, str(SITE["customer_id"])):
        (shown,) = cli("operations", "show", "demo", wanted, "--json").json
        assert shown["operation_id"] == SITE_ID
        assert [attempt["event"] for attempt in shown["attempts"]] == ["not done", "done"]
        assert "payload" not in shown
    result = cli("operations", "show", "demo", SITE_ID).out
    for said in ("accepted", "not done", "illu answered 503", "503", "done", "crm customer C-1001  =  illu site 4711"):
        assert said in result
    assert SITE["address"] not in result.partition("result")[0]


def test_the_payload_is_shown_only_to_whoever_asks_for_it(crm: Crm, cli: CommandLine) -> None:
    waiting(crm, "C-1")
    assert "Moi Ave" not in cli("operations", "show", "demo", "C-1").out
    assert "Moi Ave" in cli("operations", "show", "demo", "C-1", "--payload").out
    assert (
        cli("operations", "show", "demo", "C-1", "--payload", "--json").json[0]["payload"]["address"] == SITE["address"]
    )


def test_another_tenants_operation_is_not_there(crm: Crm, cli: CommandLine) -> None:
    crm.create_site()
    assert cli("operations", "show", "demo-upya", SITE_ID).code == 2
    assert cli("operations", "show", "demo", "C-none").code == 2


def test_what_a_customer_is_called_is_never_taken_for_markup(crm: Crm, cli: CommandLine) -> None:
    crm.create_site(customer_id="[bold]C-1[/bold]")
    assert "[bold]C-1[/bold]" in cli("operations", "list", "demo").out
    assert "[bold]C-1[/bold]" in cli("operations", "show", "demo", "[bold]C-1[/bold]").out


@pytest.mark.usefixtures("plain")
def test_linking_links_the_vendors_record_and_sends_nothing(crm: Crm, cli: CommandLine) -> None:
    operation = in_review(crm)
    seen = len(crm.stack.illu.seen)
    link = ("operations", "resolve", operation, "link", "--id", "4711", "--yes")
    assert cli(*link, "--confirmed", "--json").json["state"] == "succeeded"
    assert len(crm.stack.illu.seen) == seen
    assert crm.get("/links/illu/site/4711").json()["links"][0]["id"] == SITE["customer_id"]
    assert "by crm-bridge" in read(operation).attempts[-1].reason or read(operation).attempts[-1].reason.startswith(
        "by "
    )


@pytest.mark.usefixtures("plain")
def test_sending_again_sends_once(crm: Crm, cli: CommandLine) -> None:
    operation = in_review(crm)
    assert cli("operations", "resolve", operation, "retry", "--yes").code == 0
    crm.stack.deliver_due()
    assert read(operation).state == "succeeded"
    assert len(crm.stack.illu.sites) == 2  # the first one was done, which only this person could have known


@pytest.mark.usefixtures("plain")
def test_giving_up_sends_nothing_and_forgets_what_was_sent(crm: Crm, cli: CommandLine) -> None:
    operation = in_review(crm)
    result = cli("operations", "resolve", operation, "discard", "--yes")
    assert result.code == 0
    assert (read(operation).state, read(operation).payload) == ("rejected", None)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(
    "arguments",
    [["link"], ["retry", "--id", "1"], ["link", "--id", "x", "--yes"], ["retry"], ["retry", "--dry-run"]],
)
def test_nothing_is_decided_when_the_decision_is_not_whole(crm: Crm, cli: CommandLine, arguments: list[str]) -> None:
    operation = in_review(crm)
    result = cli("operations", "resolve", operation, *arguments, input="")
    assert result.code == (0 if "--dry-run" in arguments else 2)
    assert read(operation).state == "needs_review"


def test_only_what_needs_review_can_be_resolved(crm: Crm, cli: CommandLine) -> None:
    crm.create_site()
    result = cli("operations", "resolve", SITE_ID, "discard", "--yes")
    assert result.code == 2
    assert "succeeded" in result.err
    assert cli("operations", "resolve", "op_" + "0" * 32, "discard", "--yes").code == 2


@pytest.mark.usefixtures("plain")
def test_what_waits_is_taken_up_at_the_rate_that_is_asked_for(crm: Crm, cli: CommandLine) -> None:
    ids = waiting(crm, "C-1", "C-2", "C-3")
    crm.stack.move_clock(0)
    assert min(read(one).due_at or 0 for one in ids) > runtime().clock() + 10
    result = cli("operations", "retry", "demo", "--rate", "2", "--yes", "--json").json
    assert result["retried"] == 3
    now = int(runtime().clock())
    assert sorted(round(((read(one).due_at or 0) - now) / 30) for one in ids) == [0, 1, 2]
    crm.stack.deliver_due()
    assert [read(one).state for one in ids].count(State.SUCCEEDED) == 1
    crm.stack.deliver_due(after=70)
    assert {read(one).state for one in ids} == {"succeeded"}
    assert len(crm.stack.illu.sites) == 3


def test_a_dry_run_takes_nothing_up(crm: Crm, cli: CommandLine) -> None:
    (waits,) = waiting(crm, "C-1")
    before = read(waits)
    assert cli("operations", "retry", "demo", "--dry-run", "--json").json["operations"] == 1
    assert "C-1" in cli("operations", "retry", "demo", "--dry-run").out
    assert cli("operations", "retry", "demo", input="").code == 2
    assert read(waits) == before


def test_filters_choose_what_is_taken_up(crm: Crm, cli: CommandLine) -> None:
    (waits,) = waiting(crm, "C-1")
    before = read(waits)
    for filters in (["--state", "unconfirmed"], ["--flow", "create_job"], ["--reason", "no such reason"]):
        assert cli("operations", "retry", "demo", *filters, "--yes", "--json").json["retried"] == 0
    assert read(waits) == before
    assert cli("operations", "retry", "demo", "--state", "succeeded", "--yes").code == 2


def test_what_is_on_a_queue_or_being_sent_is_not_disturbed(crm: Crm, cli: CommandLine) -> None:
    lent, sending = waiting(crm, "C-1", "C-2")
    operations = runtime().operations
    now = int(runtime().clock())
    (due,) = [
        one for shard in SHARDS for page in operations.due(shard, now + 999) for one in page if one.operation_id == lent
    ]
    assert operations.lend(due, now + 900, now + 60)
    crm.stack.move_clock(60)
    assert operations.claim(sending, lease="x", now=now + 60, until=now + 90, states=[State.WAITING], tenant="demo")
    before = read(lent), read(sending)
    assert cli("operations", "retry", "demo", "--yes", "--json").json["retried"] == 0
    assert (read(lent), read(sending)) == before


@pytest.mark.usefixtures("plain")
def test_what_may_have_been_done_is_left_to_a_person(crm: Crm, cli: CommandLine) -> None:
    operation = in_review(crm)
    result = cli("operations", "retry", "demo", "--yes", "--json").json
    assert (result["retried"], result["left_to_a_person"]) == (0, 1)
    assert read(operation).state == "needs_review"


def test_what_ran_out_of_attempts_and_was_surely_not_done_is_sent_again(crm: Crm, cli: CommandLine) -> None:
    crm.stack.illu.fail(Kind.TOO_MANY, times=99)
    accepted = crm.create_site()
    for _ in range(12):
        crm.stack.deliver_due(after=2 * 24 * 3600)
    operation = str(accepted.json()["operation_id"])
    assert (read(operation).state, read(operation).attempts[-1].event) == ("needs_review", "out of attempts")
    crm.stack.illu.heal()
    assert cli("operations", "retry", "demo", "--yes", "--json").json["retried"] == 1
    crm.stack.deliver_due()
    assert read(operation).state == "succeeded"
    assert len(crm.stack.illu.sites) == 1


def test_candidates_are_shown_and_their_names_only_with_the_payload(crm: Crm, cli: CommandLine) -> None:
    crm.stack.illu.alterations = (ALTERATIONS["cut at an emoji"],)
    in_review(crm, name="Duka \U0001f3ea Kitale")
    assert [set(one) for one in cli("operations", "show", "demo", "C-1001", "--json").json[0]["candidates"]] == [
        {"id", "created_at"}
    ]
    result = cli("operations", "show", "demo", "C-1001").out
    assert ("4711" in result, "Duka" in result, "--payload shows their names" in result) == (True, False, True)
    assert "Duka" in cli("operations", "show", "demo", "C-1001", "--payload").out

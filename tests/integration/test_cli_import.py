"""Imports: every row once, whatever comes in between."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli.importing import Run
from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import Operation
from crm_bridge.storage.operations import Operations
from local.vendors.simulator import Kind
from tests.integration.conftest import SITE, CommandLine, Crm, without_site_list
from tests.integration.operations.conftest import store
from tests.integration.record_calls import resolve
from tests.onboarding import customers, onboard
from tests.stack import Stack
from tests.variants import IS_LONG

QUICK = ("--yes", "--rate", "100000", "--wait", "0")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "customers.csv"


def result_rows(file: Path) -> list[dict[str, str]]:
    with file.with_name(f"{file.name}.result.csv").open(newline="") as opened:
        return list(csv.DictReader(opened))


def write(file: Path, *rows: dict[str, Any]) -> None:
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, SITE.keys())
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.skipif(not IS_LONG, reason="a part of `make long`; `make onboarding` does it with ten thousand customers")
def test_a_tenant_is_turned_up_with_all_its_customers_through_an_outage_and_a_stop(tmp_path: Path) -> None:
    came = onboard(tmp_path, rows=90, bad=5, live=False)
    assert (came.sites, came.different) == (85, 85)
    assert 18 <= came.had < 85
    assert (came.stopped, came.ended) == (130, 1)
    assert Counter(line["state"] for line in came.results) == {"succeeded": 85, "invalid": 5}
    assert len({line["id"] for line in came.results if line["id"]}) == 85
    assert "illu is down" in came.first
    assert came.requests == 85 == came.sites


def test_every_bad_row_is_reported_with_its_line_and_the_others_are_sent(
    stack: Stack, cli: CommandLine, file: Path
) -> None:
    wrong = customers(file, rows=12, bad=3)
    result = cli("import", "sites", "demo", str(file), *QUICK, "--json")
    assert result.code == 1
    assert [row["line"] for row in result.json["invalid"]] == wrong
    assert all("latitude" in row["detail"] for row in result.json["invalid"])
    assert result.json["states"] == {"succeeded": 9, "invalid": 3}
    assert result.json["peak_memory_mb"] > 10
    assert len(stack.illu.sites) == 9
    by_id = {str(site["site_id"]): site["name"] for site in stack.illu.sites}
    for line in result_rows(file):
        if line["state"] == "succeeded":
            assert by_id[line["id"]] == f"Shop {line['event_key'].removeprefix('C-')}, Kitale"


def test_rows_of_standard_input_are_sent_when_the_file_is_a_dash(
    stack: Stack, cli: CommandLine, file: Path, tmp_path: Path
) -> None:
    write(file, SITE, {**SITE, "customer_id": "C-2", "name": "Zoë"})
    arguments = ("import", "sites", "demo", "-", *QUICK)
    refused = cli(*arguments, input=file.read_text())
    assert (refused.code, "--result" in refused.err, stack.illu.seen) == (2, True, [])
    result = cli(*arguments, "--result", str(tmp_path / "done.csv"), "--json", input=f"\ufeff{file.read_text()}")
    assert result.json["states"] == {"succeeded": 2}, result
    again = cli(*arguments, "--result", str(tmp_path / "again.csv"), "--json", input=json.dumps(SITE))  # JSON lines
    assert (again.code, again.json["states"], again.json["sent"]) == (0, {"succeeded": 1}, 0)
    assert {site["name"] for site in stack.illu.sites} == {SITE["name"], "Zoë"}
    assert len((tmp_path / "done.csv").read_text().splitlines()) == 3


def test_a_dry_run_sends_nothing(stack: Stack, cli: CommandLine, file: Path) -> None:
    customers(file, rows=4, bad=0)
    result = cli("import", "sites", "demo", str(file), "--dry-run", "--json")
    assert result.code == 0
    assert result.json["states"] == {"not sent": 4}
    assert stack.illu.seen == []
    assert not file.with_name("customers.csv.result.csv").exists()


def test_nothing_is_sent_when_nobody_says_yes(stack: Stack, cli: CommandLine, file: Path) -> None:
    customers(file, rows=4, bad=0)
    assert cli("import", "sites", "demo", str(file), input="").code == 2
    assert stack.illu.seen == []


def test_it_is_the_same_event_as_the_crms(crm: Crm, cli: CommandLine, file: Path) -> None:
    known = crm.create_site(customer_id="C-1").json()["site_id"]
    write(file, {**SITE, "customer_id": "C-1", "name": "Another"}, {**SITE, "customer_id": "C-2"})
    result = cli("import", "sites", "demo", str(file), *QUICK, "--json")
    assert result.code == 0
    assert result.json["sent"] == 1
    first, second = result_rows(file)
    assert first["id"] == str(known)
    assert "different payload" in first["detail"]
    assert crm.create_site(customer_id="C-2").status_code == 200
    assert len(crm.stack.illu.sites) == 2
    assert second["operation_id"] == crm.create_site(customer_id="C-2").json()["operation_id"]


def test_a_file_that_says_an_event_twice_says_it_once_or_is_wrong(stack: Stack, cli: CommandLine, file: Path) -> None:
    write(file, SITE, SITE, {**SITE, "name": "Another"})
    result = cli("import", "sites", "demo", str(file), *QUICK, "--json")
    assert result.code == 1
    assert [line["state"] for line in result_rows(file)] == ["succeeded", "repeated", "invalid"]
    assert "line 2" in result_rows(file)[2]["detail"]
    assert len(stack.illu.sites) == 1


def test_a_second_run_sends_nothing(stack: Stack, cli: CommandLine, file: Path) -> None:
    customers(file, rows=5, bad=0)
    cli("import", "sites", "demo", str(file), *QUICK)
    seen, first = len(stack.illu.seen), [line["id"] for line in result_rows(file)]
    result = cli("import", "sites", "demo", str(file), *QUICK, "--json")
    assert (result.code, result.json["sent"]) == (0, 0)
    assert len(stack.illu.seen) == seen
    assert [line["id"] for line in result_rows(file)] == first
    assert "nothing to send" in cli("import", "sites", "demo", str(file), *QUICK).out


def test_what_is_not_settled_is_the_bridges_and_is_there_the_next_time(crm: Crm, cli: CommandLine, file: Path) -> None:
    customers(file, rows=3, bad=0)
    crm.stack.illu.fail(Kind.CLOSE_AFTER)
    result = cli("import", "sites", "demo", str(file), *QUICK, "--json")
    assert result.code == 1
    assert result.json["states"] == {"succeeded": 2, "unconfirmed": 1}
    crm.stack.deliver_due(after=60)
    assert cli("import", "sites", "demo", str(file), *QUICK, "--json").json["states"] == {"succeeded": 3}
    assert len(crm.stack.illu.sites) == 3


def test_what_a_person_has_given_up_is_not_sent_by_the_same_file(crm: Crm, cli: CommandLine, file: Path) -> None:
    without_site_list(crm.stack)
    write(file, SITE)
    crm.stack.illu.fail(Kind.CLOSE_AFTER)
    cli("import", "sites", "demo", str(file), *QUICK)
    crm.stack.deliver_due(after=60)
    (in_review,) = result_rows(file)
    assert cli("operations", "resolve", in_review["operation_id"], "discard", "--yes").code == 0
    result = cli("import", "sites", "demo", str(file), *QUICK, "--json")
    assert (result.code, result.json["sent"], result.json["states"]) == (1, 0, {"rejected": 1})
    assert len(crm.stack.illu.sites) == 1
    assert result_rows(file)[0]["detail"].startswith("by ")


@pytest.mark.parametrize("decision", ["discard", "erase"])
def test_what_a_person_decides_while_a_file_is_sent_counts(
    crm: Crm, cli: CommandLine, file: Path, monkeypatch: pytest.MonkeyPatch, decision: str
) -> None:
    """A file of ten thousand rows takes more than an hour, and events come meanwhile."""
    write(file, SITE, {**SITE, "customer_id": "C-2"})
    send = Run._send

    def meanwhile(run: Run, *arguments: Any) -> None:
        if decision == "discard":
            assert resolve(crm, store(SITE["customer_id"], payload=SITE), action="discard").status_code == 200
        else:
            assert crm.create_site().status_code == 201
            assert cli("forget", "demo", SITE["customer_id"], "--yes").code == 0
        send(run, *arguments)

    monkeypatch.setattr(Run, "_send", meanwhile)
    cli("import", "sites", "demo", str(file), *QUICK)
    first, second = result_rows(file)
    assert first["state"] == ("rejected" if decision == "discard" else "succeeded")
    assert second["state"] == "succeeded"
    assert len(crm.stack.illu.sites) == (1 if decision == "discard" else 2)


def test_it_stops_at_once_when_the_vendor_refuses_the_credentials(stack: Stack, cli: CommandLine, file: Path) -> None:
    customers(file, rows=40, bad=0)
    stack.illu.api_key = "another"
    result = cli("import", "sites", "demo", str(file), *QUICK)
    assert result.code == 3
    assert "illu answered 401" in result.err
    states = Counter(line["state"] for line in result_rows(file))
    assert states["waiting"] <= 8
    assert states["waiting"] + states["not sent"] == 40


def test_what_the_vendor_refuses_is_reported_in_its_words(stack: Stack, cli: CommandLine, file: Path) -> None:
    stack.illu.longest_name = 8
    write(file, {**SITE, "name": "Short"}, {**SITE, "customer_id": "C-2", "name": "Much too long"})
    assert cli("import", "sites", "demo", str(file), *QUICK).code == 1
    fine, refused = result_rows(file)
    assert (fine["state"], refused["state"]) == ("succeeded", "rejected")
    assert "illu answered 4" in refused["detail"]


def test_the_vendors_request_for_time_is_honoured(stack: Stack, cli: CommandLine, file: Path) -> None:
    customers(file, rows=12, bad=0)
    stack.illu.fail(Kind.TOO_MANY, seconds=1)
    result = cli("import", "sites", "demo", str(file), *QUICK)
    assert Counter(line["state"] for line in result_rows(file)) == {"succeeded": 11, "waiting": 1}
    assert "asks for a pause" in result.err


@pytest.fixture
def waiting_passes_the_time(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait moves the clock on, and the bridge does what is due meanwhile."""

    passed = 0.0

    def sleep(seconds: float) -> None:
        nonlocal passed
        if seconds >= 1:  # else it is the pace
            stack.move_clock(seconds)
            passed += seconds
        if passed >= 60:
            passed = 0
            stack.deliver_due()

    monkeypatch.setattr("cli.importing.time", SimpleNamespace(monotonic=lambda: runtime().clock(), sleep=sleep))
    monkeypatch.setattr("cli.importing.AT_ONCE", 1)


@pytest.mark.usefixtures("waiting_passes_the_time")
def test_it_waits_out_an_outage_with_a_row_now_and_then(stack: Stack, cli: CommandLine, file: Path) -> None:
    customers(file, rows=30, bad=0)
    stack.illu.fail(Kind.ERROR_BEFORE, times=7)
    result = cli("import", "sites", "demo", str(file), "--yes", "--rate", "100000", "--wait", "60")
    assert "illu is down" in result.err
    assert (result.code, Counter(line["state"] for line in result_rows(file))) == (0, {"succeeded": 30})
    assert len({site["name"] for site in stack.illu.sites}) == len(stack.illu.sites) == 30
    assert len(stack.illu.seen) < 30 + 7 + 30  # what it takes, and a look for each that was in doubt


def test_it_does_not_wait_for_what_is_erased_meanwhile(
    stack: Stack, cli: CommandLine, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    customers(file, rows=2, bad=0)
    stack.illu.fail(Kind.UNAVAILABLE, times=2)
    many = Operations.many
    reads: list[int] = []

    def forgetful(operations: Operations, ids: Sequence[str]) -> dict[str, Operation]:
        reads.append(len(ids))
        return many(operations, ids) if len(reads) == 1 else {}

    monkeypatch.setattr(Operations, "many", forgetful)
    monkeypatch.setattr("cli.importing.LOOK_AGAIN", 0)
    result = cli("import", "sites", "demo", str(file), "--yes", "--rate", "100000", "--wait", "1")
    assert (result.code, Counter(line["state"] for line in result_rows(file))) == (1, {"erased": 2})
    assert reads == [2, 2]


@pytest.mark.usefixtures("waiting_passes_the_time")
def test_it_waits_in_the_end_for_what_the_bridge_goes_on_with_but_not_for_ever(
    stack: Stack, cli: CommandLine, file: Path
) -> None:
    customers(file, rows=4, bad=0)
    stack.illu.fail(Kind.CLOSE_AFTER)
    result = cli("import", "sites", "demo", str(file), "--yes", "--rate", "100000", "--wait", "30", "--json")
    assert (result.code, result.json["states"]) == (0, {"succeeded": 4})
    assert len(stack.illu.sites) == 4
    write(file, {**SITE, "customer_id": "C-late"})
    stack.illu.fail(Kind.TOO_MANY, times=99)
    result = cli("import", "sites", "demo", str(file), "--yes", "--rate", "100000", "--wait", "30", "--json")
    assert (result.code, result.json["states"]) == (1, {"waiting": 1})


def test_jobs_are_imported_to_their_customers_sites(crm: Crm, cli: CommandLine, tmp_path: Path) -> None:
    site = crm.create_site().json()["site_id"]
    file = tmp_path / "tickets.jsonl"
    jobs = [
        {"ticket_id": "T-1", "name": "Meter", "customer_id": SITE["customer_id"], "tag_ids": [1]},
        {"ticket_id": "T-2", "name": "Meter", "customer_id": "C-unknown"},
    ]
    file.write_text("\n".join(json.dumps(job) for job in jobs))
    result = cli("import", "jobs", "demo", str(file), *QUICK)
    assert result.code == 1
    done, refused = result_rows(file)
    assert (done["state"], refused["state"]) == ("succeeded", "rejected")
    assert "no site" in refused["detail"]
    (job,) = crm.stack.illu.jobs
    assert (str(job["job_id"]), job["site_id"]) == (done["id"], site)


def test_key_links_are_imported_and_those_that_are_there_are_found(
    stack: Stack, cli: CommandLine, tmp_path: Path
) -> None:
    there = stack.revio.account.add_key_link(4, 2, 1015, "001XX0000ABCDEF")
    file = tmp_path / "accounts.csv"
    file.write_text(
        "system,entity_type,internal_id,external_id\n"
        "salesforce,customer,1015,001XX0000ABCDEF\nSALESFORCE,CUSTOMER,1016,001XX0000ABCDEG\nsap,customer,1,2\n"
    )
    result = cli("import", "key-links", "demo", str(file), *QUICK)
    assert result.code == 1
    found, made, wrong = result_rows(file)
    assert found["id"] == str(there["integration_key_link_id"])
    assert made["state"] == "succeeded"
    assert "none of this name" in wrong["detail"]
    assert len(stack.revio.account.key_links) == 2


@pytest.mark.parametrize("text", ["customer_id,nmae\n", "customer_id,name,latitude,longitude,address\n"])
def test_a_file_that_holds_no_rows_is_refused(stack: Stack, cli: CommandLine, file: Path, text: str) -> None:
    file.write_text(text)
    assert cli("import", "sites", "demo", str(file), *QUICK).code == 2
    assert stack.illu.seen == []


def test_a_tenant_without_the_vendor_is_refused(stack: Stack, cli: CommandLine, tmp_path: Path) -> None:
    stack.put_secret("bare", json.dumps({"revio": json.loads(stack.demo_tenant())["revio"]}))
    file = tmp_path / "customers.csv"
    customers(file, rows=2, bad=0)
    result = cli("import", "sites", "bare", str(file), *QUICK)
    assert result.code == 2
    assert "illu block" in result.err

"""A ticket becomes a job at its customer's site, once."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from local.vendors.alterations import ALTERATIONS
from local.vendors.simulator import Kind
from tests.integration.conftest import ROUNDS, Crm, change_settings, without_site_list
from tests.integration.create_job.conftest import DETAILS, JOB, create_job, linked

# ---------------------------------------------------------------- done


def test_becomes_a_job_at_the_customers_site_when_a_ticket_is_new(at_home: Crm) -> None:
    answer = create_job(at_home, notes="After 14:00.", due_date="2026-11-30", tag_ids=[3], assigned_user_id=7)
    assert answer.status_code == 201
    body = answer.json()
    assert body.pop("operation_id").startswith("op_")
    notes = "After 14:00.\n\n[CRM ticket T-501]"
    sent = {"name": JOB["name"], "site_id": 4711, "due_date": "2026-11-30", "tag_ids": [3], "assigned_user_id": 7}
    assert body == {**sent, "job_id": "801", "org_id": 88, "notes": notes, "ticket_id": "T-501"}
    assert len(at_home.stack.illu.jobs) == 1


def test_sends_only_what_the_ticket_has(at_home: Crm) -> None:
    create_job(at_home)
    (job,) = at_home.stack.illu.jobs
    assert set(job) == {"job_id", "org_id", "created_at", "name", "site_id", "notes"}


def test_passes_workflow_instances_on_as_they_are(at_home: Crm) -> None:
    instances = [{"workflow_id": 5, "steps": [{"done": False}]}]
    assert create_job(at_home, workflow_instances=instances).status_code == 201
    assert at_home.stack.illu.jobs[0]["workflow_instances"] == instances


def test_links_the_ticket_to_the_job_and_the_job_to_its_site(at_home: Crm) -> None:
    create_job(at_home)
    create_job(at_home, ticket_id="T-502")
    assert linked(at_home, "crm/ticket/T-501") == {("job", "801")}
    assert linked(at_home, "illu/job/801") == {("ticket", "T-501"), ("site", "4711")}
    assert linked(at_home, "illu/site/4711") == {("customer", "C-1001"), ("job", "801"), ("job", "802")}


def test_is_answered_from_the_store_when_it_is_repeated(at_home: Crm) -> None:
    first, again = create_job(at_home), create_job(at_home)
    kept = ("job_id", "ticket_id", "site_id", "operation_id")
    assert (again.status_code, again.json()) == (200, {name: first.json()[name] for name in kept})
    assert len(at_home.stack.illu.jobs) == 1


def test_goes_to_a_site_by_its_id_when_the_ticket_names_it(at_home: Crm) -> None:
    assert create_job(at_home, customer_id=None, site_id=4711).json()["site_id"] == 4711


# ---------------------------------------------------------------- the site


def test_is_409_and_may_be_sent_again_when_the_customer_has_no_site(crm: Crm) -> None:
    answer = create_job(crm)
    assert answer.status_code == 409
    assert "POST /sites" in answer.json()["detail"]
    assert crm.stack.illu.seen == []
    crm.create_site()
    assert create_job(crm).status_code == 201


def test_makes_the_site_first_when_its_details_come_along(crm: Crm) -> None:
    answer = create_job(crm, site=DETAILS)
    assert (answer.status_code, answer.json()["site_id"]) == (201, 4711)
    assert crm.create_site().status_code == 200  # it is the very operation of POST /sites
    assert create_job(crm, ticket_id="T-502", site=DETAILS).status_code == 201
    assert (len(crm.stack.illu.sites), len(crm.stack.illu.jobs)) == (1, 2)


@pytest.mark.parametrize("kind", [Kind.CLOSE_AFTER, Kind.UNAVAILABLE, Kind.ERROR_BEFORE])
@pytest.mark.parametrize("details", [None, DETAILS], ids=["a site on its way", "details"])
def test_follows_its_site_when_that_is_still_on_its_way(crm: Crm, kind: Kind, details: object) -> None:
    crm.stack.illu.fail(kind)
    if details is None:
        assert crm.create_site().status_code == 202
    accepted = create_job(crm, site=details)
    assert (accepted.status_code, accepted.json()["state"]) == (202, "waiting")
    assert "site" in accepted.json()["reason"]
    assert crm.settle(accepted)["state"] == "succeeded"
    assert (len(crm.stack.illu.sites), len(crm.stack.illu.jobs)) == (1, 1)
    assert ("site", "4711") in linked(crm, "illu/job/801")


def test_is_refused_in_illus_words_when_the_site_is(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crm.stack.illu, "longest_name", 5)
    answer = create_job(crm, site=DETAILS)
    assert answer.status_code == 422
    assert answer.json()["detail"] == "the customer's site: illu answered 422: Invalid fields: name"
    assert create_job(crm, site={**DETAILS, "name": "Shop"}).status_code == 201


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"ticket_id": " "}, "ticket_id"),
        ({"ticket_id": "T" * 1000}, "ticket_id"),
        ({"name": ""}, "name"),
        ({"name": "x" * 10_000}, "name"),
        ({"customer_id": None}, ""),
        ({"site_id": 4711}, ""),
        ({"customer_id": None, "site_id": 4711, "site": DETAILS}, ""),
        ({"customer_id": None, "site_id": 0}, "site_id"),
        ({"customer_id": None, "site_id": True}, "site_id"),
        ({"site": {**DETAILS, "latitude": 91}}, "site.latitude"),
        ({"site": {"name": "Shop"}}, "site.latitude"),
        ({"due_date": "next week"}, "due_date"),
        ({"due_date": "2026-02-30"}, "due_date"),
        ({"due_date": 20261130}, "due_date"),
        ({"assigned_user_id": -1}, "assigned_user_id"),
        ({"tag_ids": ["urgent"]}, "tag_ids.0"),
        ({"tag_ids": 3}, "tag_ids"),
        ({"workflow_instances": ["x"]}, "workflow_instances.0"),
        ({"notes": "x" * 10_001}, "notes"),
        ({"ticket_id": "9 [CRM ticket 1"}, "ticket_id"),
        ({"workflow_instances": [{"n": ["x" * 30_000, "x" * 30_000]}]}, "workflow_instances"),
        ({"customer_id": None, "site_id": 10**30}, "site_id"),
        ({"priority": "high"}, "priority"),
    ],
    ids=str,
)
def test_bad_input_is_422_and_names_the_field(at_home: Crm, changes: dict[str, object], field: str) -> None:
    answer = create_job(at_home, **changes)
    assert answer.status_code == 422
    assert field in [error["field"] for error in answer.json()["errors"]]
    assert at_home.stack.illu.jobs == []


@pytest.mark.parametrize("ticket", ["T 1", "T/1", "T#1", "Büro-7", "票", "🎫" * 200])
def test_any_id_makes_one_job_and_is_found_again(at_home: Crm, ticket: str) -> None:
    at_home.stack.illu.fail(Kind.CLOSE_AFTER)
    operation = at_home.settle(create_job(at_home, ticket_id=ticket))
    assert (operation["state"], operation["event_key"]) == ("succeeded", ticket)
    assert len(at_home.stack.illu.jobs) == 1


# ---------------------------------------------------------------- what illu may do


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (Kind.DELAY, Kind.REFUSE)])
def test_there_is_one_job_in_the_end_whatever_illu_does(at_home: Crm, kind: Kind) -> None:
    at_home.stack.illu.fail(kind, seconds=90)
    answer = create_job(at_home)
    assert answer.status_code == (502 if kind is Kind.WRONG_STATUS else 202)
    assert at_home.settle(create_job(at_home))["state"] == "succeeded"
    assert len(at_home.stack.illu.jobs) == 1
    assert linked(at_home, "crm/ticket/T-501") == {("job", "801")}


def test_the_job_of_another_ticket_with_the_same_name_is_not_linked(at_home: Crm) -> None:
    create_job(at_home, ticket_id="T-50")
    at_home.stack.illu.fail(Kind.CLOSE_BEFORE)
    assert at_home.settle(create_job(at_home, ticket_id="T-501"))["result"]["job_id"] == "802"
    at_home.stack.illu.fail(Kind.CLOSE_BEFORE)
    assert at_home.settle(create_job(at_home, ticket_id="501"))["result"]["job_id"] == "803"


@pytest.mark.parametrize("missing", ["job_reference", "job_list_path"])
def test_needs_review_and_resolved_by_a_person_when_a_job_cannot_be_looked_for(at_home: Crm, missing: str) -> None:
    illu: dict[str, object] = {"job_reference": False} if missing == "job_reference" else {"job_list_path": None}
    change_settings(at_home.stack, illu=illu, at_once=True)
    assert create_job(at_home, ticket_id="warm-up").status_code == 201
    at_home.stack.illu.fail(Kind.CLOSE_AFTER)
    accepted = create_job(at_home)
    operation = at_home.settle(accepted)
    assert operation["state"] == "needs_review"
    assert missing in operation["attempts"][-1]["reason"]
    decision = {"action": "link", "id": "802", "confirmed": True}
    resolved = at_home.post(f"{accepted.headers['Location']}/resolve", decision)
    assert resolved.json()["state"] == "succeeded"
    assert linked(at_home, "illu/job/802") == {("ticket", "T-501"), ("site", "4711")}


def test_says_nothing_of_the_ticket_in_the_notes_when_the_tenant_does_not_want_it(crm: Crm) -> None:
    change_settings(crm.stack, illu={"job_reference": False})
    crm.create_site()
    create_job(crm, notes="After 14:00.")
    create_job(crm, ticket_id="T-502")
    assert [job.get("notes") for job in crm.stack.illu.jobs] == ["After 14:00.", None]


@pytest.mark.parametrize(
    "stored",
    [
        {"notes": "[CRM ticket T-501] and the dog bites."},
        {"notes": "<p>[CRM ticket T-501]</p>"},
        {"notes": "cut off in the mid"},
        {"notes": None},
    ],
    ids=str,
)
def test_needs_review_when_a_job_may_be_the_one_but_is_not_surely(at_home: Crm, stored: dict[str, object]) -> None:
    at_home.stack.illu.fail(Kind.CLOSE_AFTER)
    accepted = create_job(at_home)
    at_home.stack.illu.jobs[0] |= stored
    assert at_home.settle(accepted)["state"] == "needs_review"
    assert len(at_home.stack.illu.jobs) == 1


def test_needs_review_when_the_list_leaves_the_notes_out(at_home: Crm) -> None:
    at_home.stack.illu.fail(Kind.CLOSE_AFTER)
    accepted = create_job(at_home)
    del at_home.stack.illu.jobs[0]["notes"]
    assert at_home.settle(accepted)["state"] == "needs_review"


def test_tickets_that_differ_only_in_case_get_a_job_each(at_home: Crm) -> None:
    at_home.stack.illu.fail(Kind.CLOSE_AFTER, times=2)
    accepted = [create_job(at_home, ticket_id=ticket) for ticket in ("T-a", "T-A")]
    assert [at_home.settle(answer)["result"]["job_id"] for answer in accepted] == ["801", "802"]
    assert len(at_home.stack.illu.jobs) == 2


def test_a_number_that_is_not_finite_is_422(at_home: Crm) -> None:
    body = json.dumps({**JOB, "workflow_instances": [{"n": 0}]}).replace('"n": 0', '"n": 1e999')
    assert at_home.post("/jobs", data=body, headers={"Content-Type": "application/json"}).status_code == 422


def test_a_ticket_that_came_before_its_customer_waits_when_the_caller_is_gone(crm: Crm) -> None:
    accepted = crm.post("/jobs", JOB, headers={"Prefer": "respond-async"})
    crm.stack.deliver_due()
    assert crm.get(accepted.headers["Location"]).json()["state"] == "waiting"
    crm.create_site()
    assert crm.settle(accepted)["state"] == "succeeded"


def test_a_site_that_a_person_discarded_is_not_made_by_a_waiting_job(crm: Crm) -> None:
    without_site_list(crm.stack)
    crm.stack.illu.fail(Kind.CLOSE_AFTER)
    job = create_job(crm, site=DETAILS)
    site = crm.settle(crm.create_site())
    assert site["state"] == "needs_review"
    crm.post(f"/operations/{site['operation_id']}/resolve", {"action": "discard"})
    assert crm.settle(job)["state"] == "rejected"
    assert len(crm.stack.illu.sites) == 1


def test_needs_review_when_the_reference_was_switched_on_after_it_was_sent(crm: Crm) -> None:
    change_settings(crm.stack, illu={"job_reference": False})
    crm.create_site()
    crm.stack.illu.fail(Kind.CLOSE_AFTER)
    accepted = create_job(crm)
    change_settings(crm.stack, at_once=True)
    assert crm.settle(accepted)["state"] == "needs_review"
    assert len(crm.stack.illu.jobs) == 1


ALIKE = [
    ("X  1", "X 1"),
    ("X\u00a01", "X 1"),
    ("x1", "X1"),
    ("X & 1", "X &amp; 1"),
    ("\uff211", "A1"),
    ("O\u20191", "O'1"),
    ("\ufb01n", "fin"),
]
"""Tickets that are two to the CRM and may look the same to a vendor."""


@pytest.mark.parametrize(("one", "other"), [*ALIKE, *((other, one) for one, other in ALIKE)], ids=str)
def test_tickets_that_are_alike_get_a_job_each_when_one_was_done_and_one_was_not(
    at_home: Crm, one: str, other: str
) -> None:
    at_home.stack.illu.fail(Kind.CLOSE_BEFORE)
    undone = create_job(at_home, ticket_id=one, name="Ring the bell")
    at_home.stack.illu.fail(Kind.CLOSE_AFTER)
    done = create_job(at_home, ticket_id=other, name="Fix the meter")
    settled = [at_home.settle(answer) for answer in (undone, done)]
    assert [operation["state"] for operation in settled] == ["succeeded"] * 2
    assert [job["name"] for job in at_home.stack.illu.jobs] == ["Fix the meter", "Ring the bell"]
    names = {str(job["job_id"]): job["name"] for job in at_home.stack.illu.jobs}
    assert [names[operation["result"]["job_id"]] for operation in settled] == ["Ring the bell", "Fix the meter"]


@pytest.mark.parametrize(
    ("alteration", "done", "undone"),
    [
        ("spaces collapsed", "X  1", "X 1"),
        ("quotes straightened", "O\u20191", "O'1"),
        ("tags stripped", "X<b>1", "X1"),
        ("markup escaped", "X & 1", "X &amp; 1"),
        ("lower case", "T-A", "t-a"),
    ],
)
def test_a_job_that_illu_altered_into_another_tickets_is_linked_by_a_person_only(
    at_home: Crm, alteration: str, done: str, undone: str
) -> None:
    at_home.stack.illu.alterations = (ALTERATIONS[alteration],)
    at_home.stack.illu.fail(Kind.CLOSE_BEFORE)
    first = create_job(at_home, ticket_id=undone, name="ring the bell")
    at_home.stack.illu.fail(Kind.CLOSE_AFTER)
    second = create_job(at_home, ticket_id=done, name="fix the meter")
    assert [at_home.settle(answer)["state"] for answer in (first, second)] == ["needs_review"] * 2
    assert [job["name"] for job in at_home.stack.illu.jobs] == ["fix the meter"]


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_there_is_one_job_whatever_illu_makes_of_its_texts(at_home: Crm, alteration: str) -> None:
    at_home.stack.illu.alterations = (ALTERATIONS[alteration],)
    at_home.stack.illu.fail(Kind.CLOSE_AFTER)
    notes = "After two <b>o\u2019clock</b>  &  not before. \U0001f3ea\u200b"
    accepted = create_job(at_home, ticket_id="T-1 \U0001f3ea", name="Meter \U0001f3ea does not count", notes=notes)
    assert at_home.settle(accepted)["state"] in ("succeeded", "needs_review")
    assert len(at_home.stack.illu.jobs) == 1


def test_the_job_of_another_ticket_at_the_same_site_is_no_candidate(at_home: Crm) -> None:
    at_home.stack.illu.fail(Kind.CLOSE_AFTER, times=2)
    accepted = [create_job(at_home, ticket_id=ticket, notes="See [CRM ticket T-9].") for ticket in ("T-7", "T-8")]
    at_home.stack.illu.jobs[0]["notes"] = "See [CRM ticket T-9]. [CRM ticket T-7"  # cut
    assert [at_home.settle(answer)["state"] for answer in accepted] == ["needs_review", "succeeded"]
    assert len(at_home.stack.illu.jobs) == 2


def test_needs_review_when_jobs_are_asked_for_by_a_name_that_illu_altered(at_home: Crm) -> None:
    change_settings(at_home.stack, illu={"job_list_path": "/orgs/{org_id}/jobs?name={name}"}, at_once=True)
    at_home.stack.illu.alterations = (ALTERATIONS["upper case"],)
    at_home.stack.illu.fail(Kind.CLOSE_AFTER)
    operation = at_home.settle(create_job(at_home))
    assert (operation["state"], len(at_home.stack.illu.jobs)) == ("needs_review", 1)
    assert "job_list_path" in operation["attempts"][-1]["reason"]


# ---------------------------------------------------------------- the wire, and races


def test_takes_four_round_trips_when_new_and_one_when_repeated(at_home: Crm) -> None:
    create_job(at_home, ticket_id="warm-up")
    before = at_home.round_trips()
    create_job(at_home)
    new = at_home.round_trips()
    assert new - before == Counter({"PutItem": 1, "GetItem": 1, "illu": 1, "TransactWriteItems": 1})
    create_job(at_home)
    assert at_home.round_trips() - new == Counter({"PutItem": 1})


@pytest.mark.usefixtures("eager_switches")
def test_twenty_identical_requests_at_once_make_one_job_round_after_round(at_home: Crm) -> None:
    with ThreadPoolExecutor(20) as pool:
        for number in range(ROUNDS):
            ticket = f"T-{number}"
            answers = list(pool.map(lambda _, t=ticket: create_job(at_home, ticket_id=t), range(20)))
            statuses = Counter(answer.status_code for answer in answers)
            assert statuses[201] == 1, statuses
            assert statuses[200] + statuses[409] == 19, statuses
            assert len(at_home.stack.illu.jobs) == number + 1

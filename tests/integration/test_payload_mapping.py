"""A CRM that cannot shape its payload: its own JSON in, the flow's command made of it by the tenant's mapping."""

import json
from collections.abc import Callable
from typing import Any

import boto3
import pytest
import requests

from crm_bridge.mapping import BUILT_IN_VERSION
from crm_bridge.tenants import MAPPING_MAX_AGE
from local.vendors.simulator import Kind
from tests.integration.conftest import SITE, Crm, age, change_settings, cold
from tests.upya import CLIENT, TICKET

KEPT = ("job_id", "ticket_id", "site_id", "operation_id")
"""The status of the response to a repetition."""
POSITION = {"version": "gps-1", "expression": "{latitude: gps.lat, longitude: to_number(gps.lon)}"}
UPYA_LABEL = f"upya {BUILT_IN_VERSION}"
JOB = {"ticket_id": "64f0c0ffee", "customer_id": "C-1001", "name": "Meter does not count"}


def use_mappings(crm: Crm, **mappings: object) -> None:
    """From now on the demo tenant has these."""
    change_settings(crm.stack, mappings=mappings, at_once=True)


def own(expression: str, version: str = "3") -> dict[str, str]:
    return {"expression": expression, "version": version}


def set_status(crm: Crm, service: str, body: object) -> requests.Response:
    return crm.put(f"/services/{service}/status", body)


def post_json(crm: Crm, sent: object) -> requests.Response:
    """Also what is empty, of which requests would send nothing at all."""
    return crm.post("/jobs", data=json.dumps(sent), headers={"Content-Type": "application/json"})


def operation_of(crm: Crm, answer: requests.Response) -> dict[str, Any]:
    shown: dict[str, Any] = crm.get(f"/operations/{answer.json()['operation_id']}").json()
    return shown


@pytest.fixture
def upya(crm: Crm) -> Crm:
    """Upya, with one client at a site."""
    assert crm.create_site().status_code == 201
    use_mappings(crm, create_job={"built_in": "upya"}, create_site={"built_in": "upya"})
    return crm


# ---------------------------------------------------------------- Upya


def test_an_upya_ticket_as_it_comes_becomes_a_job_at_the_site_of_its_client(upya: Crm) -> None:
    answer = upya.post("/jobs", TICKET)
    assert answer.status_code == 201
    (job,) = upya.stack.illu.jobs
    assert job["site_id"] == 4711
    assert job["name"] == "Meter does not count"
    assert job["notes"] == "Upya ticket TCK-501, contract K-77\n\n[CRM ticket 64f0c0ffee]"
    again = upya.post("/jobs", TICKET)
    assert (again.status_code, again.json()) == (200, {name: answer.json()[name] for name in KEPT})
    assert len(upya.stack.illu.jobs) == 1
    (link,) = upya.get("/links/crm/ticket/64f0c0ffee").json()["links"]
    assert (link["entity"], link["id"]) == ("job", answer.json()["job_id"])


def test_a_ticket_in_a_list_of_one_is_the_same_event(upya: Crm) -> None:
    first = upya.post("/jobs", [TICKET])
    assert first.status_code == 201
    changed = {**TICKET, "status": "assigned", "progress": "half", "updatedAt": "2026-11-21T07:05:00.000Z"}
    again = upya.post("/jobs", changed)
    assert "changed" not in again.json()  # what a job is made of did not change
    assert (again.status_code, again.json()) == (200, {name: first.json()[name] for name in KEPT})
    assert len(upya.stack.illu.jobs) == 1


def test_a_ticket_with_another_title_is_answered_from_the_store_with_a_warning(upya: Crm) -> None:
    upya.post("/jobs", TICKET)
    again = upya.post("/jobs", {**TICKET, "title": "Meter counts twice"})
    assert again.status_code == 200
    assert len(again.json()["warnings"]) == 1
    assert len(upya.stack.illu.jobs) == 1


def test_an_upya_client_without_a_position_is_422_and_becomes_a_site_once_the_mapping_gives_one(crm: Crm) -> None:
    use_mappings(crm, create_site={"built_in": "upya"})
    refused = crm.post("/sites", CLIENT)
    assert refused.status_code == 422
    assert {(error["field"], error["message"]) for error in refused.json()["errors"]} == {
        ("latitude", "is required"),
        ("longitude", "is required"),
    }
    use_mappings(crm, create_site={"built_in": "upya", **POSITION})
    answer = crm.post("/sites", {**CLIENT, "gps": {"lat": 1.0157, "lon": "35.0062"}})
    assert answer.status_code == 201
    (site,) = crm.stack.illu.sites
    assert {name: site[name] for name in ("name", "address", "latitude", "longitude")} == {
        "name": "Achieng Odhiambo",
        "address": "Kibomet, Kitale, Trans Nzoia, Kenya",
        "latitude": 1.0157,
        "longitude": 35.0062,
    }
    assert operation_of(crm, answer)["mapping"] == f"{UPYA_LABEL} + gps-1"


def test_says_to_send_one_record_when_it_is_none_or_several(upya: Crm) -> None:
    for sent in ([], [TICKET, {**TICKET, "ticketId": "2"}], "TCK-501", 501, None):
        answer = post_json(upya, sent)
        assert answer.status_code == 422
        assert "one record" in answer.json()["detail"]
        assert answer.json()["mapping"]["label"] == UPYA_LABEL
    assert upya.stack.illu.jobs == []


# ---------------------------------------------------------------- a tenant's own


def test_an_own_expression_makes_the_site(crm: Crm) -> None:
    expression = (
        "{customer_id: kunde.nummer, name: join(' ', [kunde.vorname, kunde.name]), latitude: ort.position[0], "
        "longitude: ort.position[1], address: join(', ', [ort.strasse, ort.stadt][?@])}"
    )
    use_mappings(crm, create_site=own(expression))
    customer = {"nummer": 1001, "vorname": "Achieng", "name": "Odhiambo", "notiz": "x" * 2000}
    place = {"position": [1.0157, 35.0062], "strasse": "Moi Ave 12", "stadt": None}
    answer = crm.post("/sites", {"kunde": customer, "ort": place})
    assert answer.status_code == 201
    assert answer.json()["customer_id"] == "1001"
    assert crm.stack.illu.sites[0]["name"] == "Achieng Odhiambo"
    assert crm.stack.illu.sites[0]["address"] == "Moi Ave 12"
    assert operation_of(crm, answer)["mapping"] == "3"


def test_an_own_expression_makes_the_key_link(crm: Crm) -> None:
    expression = "{system: 'SALESFORCE', entity_type: Type, internal_id: to_number(Rev_Id__c), external_id: Id}"
    use_mappings(crm, key_link=own(expression, "sf-2"))
    record = {"Id": "001XX0000ABCDEF", "Type": "customer", "Rev_Id__c": "1015", "attributes": {"url": "/x"}}
    answer = crm.post("/key-links", record)
    assert answer.status_code == 201
    assert crm.stack.revio.account.key_links[0]["internal_id"] == 1015
    assert operation_of(crm, answer)["mapping"] == "sf-2"
    assert crm.post("/key-links", record).status_code == 200
    assert len(crm.stack.revio.account.key_links) == 1


def test_an_own_expression_makes_the_status_of_the_service_in_the_path(crm: Crm) -> None:
    expression = "{status: state == 'DOWN' && 'outage' || 'operational', occurred_at: since}"
    use_mappings(crm, status_update=own(expression))
    answer = set_status(crm, "MAIL", {"state": "DOWN", "since": "2024-05-05T12:00:00Z", "check": "smtp"})
    assert answer.status_code == 200
    assert answer.json()["status_name"] == "outage"
    assert crm.stack.izzitup.status_of("2") == "7"
    operation = operation_of(crm, answer)
    assert operation["mapping"] == "3"
    assert operation["event_key"].startswith("mail#outage#2024-05-05T12:00:00")


def test_a_mapping_cannot_change_the_service_that_the_path_names(crm: Crm) -> None:
    use_mappings(crm, status_update=own("{status: state, service: name}"))
    answer = set_status(crm, "MAIL", {"state": "outage", "name": "WEB"})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["service"]


def test_a_flow_without_a_mapping_takes_commands_as_they_are(crm: Crm) -> None:
    use_mappings(crm, create_job={"built_in": "upya"})
    answer = crm.create_site()
    assert answer.status_code == 201
    assert operation_of(crm, answer)["mapping"] is None


def test_a_command_is_taken_as_it_is_beside_a_mapping(upya: Crm) -> None:
    answer = upya.post("/jobs", JOB)
    assert answer.status_code == 201
    assert operation_of(upya, answer)["mapping"] is None
    again = upya.post("/jobs", TICKET)  # the same ticket, as Upya sends it
    assert (again.status_code, again.json()["job_id"]) == (200, answer.json()["job_id"])
    assert len(upya.stack.illu.jobs) == 1


@pytest.mark.parametrize("key", ["join('-', ['UK', customer_id])", "join('-', ['UK', to_string(customer_id)])"])
def test_a_payload_is_not_taken_as_it_is_when_the_mapping_fails_or_gives_it_another_key(crm: Crm, key: str) -> None:
    """Else one event would have two keys, and be sent twice."""
    others = "latitude: latitude, longitude: longitude, address: address"
    use_mappings(crm, create_site=own(f"{{customer_id: {key}, name: title, {others}}}"))
    assert crm.create_site(customer_id="17", title="Shop").status_code == 201
    assert crm.create_site(customer_id=17).status_code == 422
    assert len(crm.stack.illu.sites) == 1


def test_the_mapping_counts_when_a_payload_is_valid_with_it_and_without(crm: Crm) -> None:
    use_mappings(crm, create_site=own("merge(@, {customer_id: join('-', ['eu', customer_id])})"))
    answer = crm.create_site()
    assert answer.json()["customer_id"] == "eu-C-1001"
    assert operation_of(crm, answer)["mapping"] == "3"


# ---------------------------------------------------------------- a new version


def store_mappings(crm: Crm, **mappings: object) -> None:
    """Store them without a word to the functions that run."""
    change_settings(crm.stack, mappings=mappings)


def test_a_new_version_makes_the_next_event_when_the_one_before_is_ten_seconds_old(crm: Crm) -> None:
    use_mappings(crm, create_site=own("merge(@, {name: 'before'})", "1"))
    store_mappings(crm, create_site=own("merge(@, {name: 'after'})", "2"))
    assert crm.create_site(customer_id="C-1").status_code == 201
    age(MAPPING_MAX_AGE + 1)
    assert crm.create_site(customer_id="C-2").status_code == 201
    assert [site["name"] for site in crm.stack.illu.sites] == ["before", "after"]


def test_the_first_mapping_makes_an_event_that_is_not_valid_without_it(crm: Crm) -> None:
    use_mappings(crm)
    sent = {"nr": "C-1", "latitude": 1, "longitude": 2, "address": "Moi Ave"}
    assert crm.post("/sites", sent).status_code == 422
    store_mappings(
        crm, create_site=own("{customer_id: nr, name: nr, latitude: latitude, longitude: longitude, address: address}")
    )
    age(MAPPING_MAX_AGE + 1)
    assert crm.post("/sites", sent).status_code == 201


def test_a_mapping_takes_no_more_calls_to_aws_than_none(crm: Crm) -> None:
    assert crm.stack.aws
    taken = []
    for mappings in ({}, {"create_site": own("@")}):
        use_mappings(crm, **mappings)
        crm.create_site(customer_id=f"C-{len(mappings)}")  # what a function remembers
        before = crm.stack.aws.calls.copy()
        assert crm.create_site(customer_id=f"D-{len(mappings)}").status_code == 201
        taken.append(crm.stack.aws.calls - before)
    assert taken[0] == taken[1]
    assert sum(taken[0].values()) == 2


# ---------------------------------------------------------------- what does not fit


def test_says_what_went_in_and_out_in_kinds_when_the_command_is_not_valid(upya: Crm) -> None:
    mapping = {"built_in": "upya", **own("{name: contact.person, tag_ids: tags, due_date: when}", "7")}
    use_mappings(upya, create_job=mapping)
    secrets = ("Wanjiru", "4242", "next week", "TCK-501", "K-77", "C-1001", "call centre", "64f0c0ffee", "urgent")
    sent = {
        **TICKET,
        "contact": {"person": "Wanjiru" * 100},
        "tags": ["urgent", 4242, None, True],
        "when": "next week",
    }
    answer = upya.post("/jobs", sent)
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert {error["field"] for error in problem["errors"]} >= {"name", "tag_ids.0", "due_date"}
    assert problem["mapping"] == {
        "label": f"{UPYA_LABEL} + 7",
        "expression": "{name: contact.person, tag_ids: tags, due_date: when}",
        "received": {
            **dict.fromkeys(TICKET, "text"),
            "contact": {"person": "text"},
            "tags": ["text", "number", "null"],
            "when": "text",
        },
        "yielded": {
            **dict.fromkeys(("ticket_id", "customer_id", "name", "notes", "due_date"), "text"),
            "tag_ids": ["text", "number", "null"],
        },
    }
    assert not [secret for secret in secrets if secret in answer.text]
    assert upya.stack.illu.jobs == []
    assert upya.get("/operations?flow=create_job").json()["operations"] == []


@pytest.mark.parametrize(
    ("expression", "sent"),
    [
        ("{ticket_id: join('-', ids)}", {"ids": [4711, "Wanjiru"]}),
        ("{ticket_id: id, name: contains(title, kind) && title}", {"id": "1", "title": "Wanjiru", "kind": 4711}),
    ],
)
def test_is_422_without_a_value_when_the_expression_fails(crm: Crm, expression: str, sent: object) -> None:
    use_mappings(crm, create_job=own(expression))
    answer = crm.post("/jobs", sent)
    assert answer.status_code == 422
    assert "mapping 3" in answer.json()["detail"]
    assert answer.json()["mapping"]["expression"] == expression
    assert "Wanjiru" not in answer.text
    assert "4711" not in answer.text


def test_an_expression_with_a_part_of_a_list_does_not_stop_the_tenant(crm: Crm) -> None:
    use_mappings(crm, create_site=own("{customer_id: id, name: join(' ', names[:2])}"))
    answer = crm.post("/sites", {"id": "1", "names": ["Achieng", "Odhiambo", "Wanjiru"]})
    assert answer.status_code == 422
    assert answer.json()["mapping"]["yielded"] == {"customer_id": "text", "name": "text"}


@pytest.mark.parametrize("readable", [True, False], ids=["mapped", "tenant not readable"])
def test_a_body_that_is_not_json_is_refused_as_without_a_mapping(upya: Crm, readable: bool) -> None:
    if not readable:
        lose_secret(upya)
    for body, status in ((b"{", 400), (b"", 400), (b'{"ticketId": "\xff"}', 400), (b"x" * 200_000, 413)):
        answer = upya.post("/jobs", data=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, body[:20]
    assert upya.post("/jobs", data=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415


# ---------------------------------------------------------------- later


@pytest.mark.parametrize("kind", [Kind.UNAVAILABLE, Kind.CLOSE_AFTER, Kind.CLOSE_BEFORE])
def test_a_mapped_event_is_sent_again_as_it_was_mapped_first(upya: Crm, kind: Kind) -> None:
    upya.stack.illu.fail(kind)
    accepted = upya.post("/jobs", TICKET)
    assert accepted.status_code == 202
    use_mappings(upya, create_job=own("{ticket_id: 'x', site_id: `4711`, name: 'x'}", "by mistake"))
    settled = upya.settle(accepted)
    assert (settled["state"], settled["mapping"], settled["event_key"]) == ("succeeded", UPYA_LABEL, "64f0c0ffee")
    (job,) = upya.stack.illu.jobs
    assert job["name"] == "Meter does not count"


def test_a_mapped_event_that_is_only_accepted_is_sent_later(upya: Crm) -> None:
    accepted = upya.post("/jobs", TICKET, headers={"Prefer": "respond-async"})
    assert (accepted.status_code, upya.stack.illu.jobs) == (202, [])
    assert operation_of(upya, accepted)["mapping"] == UPYA_LABEL
    assert upya.settle(accepted)["state"] == "succeeded"
    assert len(upya.stack.illu.jobs) == 1


def test_says_which_mapping_made_an_event_when_it_is_sent_again_after_a_refusal(
    crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crm.stack.illu, "longest_name", 5)
    use_mappings(crm, create_site=own("@", "long"))
    refused = crm.create_site()
    assert refused.status_code == 422
    assert "mapping" not in refused.json()  # illu refused it, not the mapping
    assert operation_of(crm, refused)["mapping"] == "long"
    use_mappings(crm, create_site=own("merge(@, {name: 'Shop'})", "short"))
    answer = crm.create_site()
    assert answer.status_code == 201
    assert operation_of(crm, answer)["mapping"] == "short"


# ---------------------------------------------------------------- when the tenant cannot be read


def lose_secret(crm: Crm) -> None:
    """Delete the tenant's secret, before a new execution environment."""
    boto3.client("secretsmanager").delete_secret(SecretId="crm-bridge/dev/illu/demo", ForceDeleteWithoutRecovery=True)
    cold(crm.stack)


def break_secret(crm: Crm) -> None:
    crm.stack.put_secret("demo", '{"mappings": {"create_job": {"built_in": "hush-hush"}}}')
    cold(crm.stack)


unreadable = pytest.mark.parametrize("lose", [lose_secret, break_secret])


@unreadable
def test_is_503_and_sends_nothing_when_the_tenants_mapping_cannot_be_read(
    upya: Crm, lose: Callable[[Crm], None]
) -> None:
    lose(upya)
    for sent in (TICKET, [TICKET], JOB, {}, "x", None):
        answer = post_json(upya, sent)
        assert (answer.status_code, answer.json()["retryable"]) == (503, True)
        assert "crm-bridge/dev/illu/demo" in answer.json()["detail"]
        assert "hush-hush" not in answer.text
    assert upya.stack.illu.jobs == []
    assert upya.get("/operations?flow=create_job").json()["operations"] == []


@unreadable
def test_nothing_is_reported_or_sent_when_nobody_can_know_whether_there_is_a_mapping(
    upya: Crm, lose: Callable[[Crm], None]
) -> None:
    lose(upya)
    assert upya.create_site().status_code == 503
    assert upya.create_site(customer_id="C-1002").status_code == 503
    assert len(upya.stack.illu.sites) == 1


def test_goes_on_when_the_secret_is_back(upya: Crm) -> None:
    lose_secret(upya)
    assert upya.post("/jobs", TICKET).status_code == 503
    use_mappings(upya, create_job={"built_in": "upya"})
    assert upya.post("/jobs", TICKET).status_code == 201
    assert upya.create_site(**{**SITE, "customer_id": "C-1002", "name": "Shop 13"}).status_code == 201

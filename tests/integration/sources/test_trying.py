"""`POST /mappings/try` and `POST /sources/try`: what a mapping would make. Nothing is stored or sent."""

import json
from typing import Any

import pytest
import requests

from crm_bridge.errors import StorageError
from crm_bridge.runtime import runtime
from crm_bridge.tenants import MAPPING_MAX_AGE
from tests.integration.conftest import Crm, rows
from tests.integration.sources.conftest import EXPRESSION, SOURCE, Sender, company

MAPPED = "{customer_id: id, name: name, latitude: lat, longitude: lon, address: address}"
STORED_AT = "2026-11-30T16:00:00+00:00"


def trial(answer: requests.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["trial"]


@pytest.fixture
def mapped(sender: Sender) -> Crm:
    """A CRM whose tenant has a mapping with a sample, and a source."""
    sample = {"payload": company(1), "command": {"customer_id": "C-1", "name": "Shop 1"}}
    mapping = {"version": "7", "expression": MAPPED, "stored_at": STORED_AT, "samples": {"shop": sample}}
    sender.use(mappings={"create_site": mapping})
    runtime().tenants.get("demo", "create_site", fresh=True)
    return sender.crm


def as_reader(crm: Crm, *scopes: str) -> None:
    """From now on the caller's key may only read."""
    key = crm.stack.add_key("demo", frozenset({"operations:read", *scopes}), "somebody")
    crm.headers["Authorization"] = f"Bearer {key}"


def test_a_trial_says_what_is_made_and_stores_and_sends_nothing(mapped: Crm) -> None:
    as_reader(mapped)
    payload = {**company(2), "phone": "+254700000001"}
    before = mapped.stored()
    found = trial(mapped.post("/mappings/try", {"flow": "create_site", "payload": payload}))
    assert found["command"] == {
        "customer_id": "C-2",
        "name": "Shop 2",
        "latitude": 1.02,
        "longitude": 35.0,
        "address": "Moi Ave 12",
    }
    assert (found["is_valid"], found["version"], found["errors"]) == (True, "7", [])
    assert found["not_read"] == ["kind", "phone"]
    assert mapped.stored() == before
    assert mapped.stack.illu.sites == []


def test_an_expression_is_compared_with_the_stored_one_and_run_on_the_samples(mapped: Crm) -> None:
    as_reader(mapped, "operations:payload")
    tried = MAPPED.replace("address: address", "adress: address")
    found = trial(mapped.post("/mappings/try", {"flow": "create_site", "payload": company(2), "expression": tried}))
    assert {one["field"]: one["message"] for one in found["errors"]} == {
        "address": "is required",
        "adress": 'Unknown field "adress". Did you mean "address"?',
    }
    assert found["differences"] == [
        {"field": "address", "active": "Moi Ave 12", "tried": None},
        {"field": "adress", "active": None, "tried": "Moi Ave 12"},
    ]
    (sample,) = found["samples"]
    assert (sample["name"], sample["is_as_expected"]) == ("shop", False)
    assert "latitude" in [one["field"] for one in sample["differences"]]


def test_the_function_that_fails_is_named_with_its_place(mapped: Crm) -> None:
    found = trial(
        mapped.post(
            "/mappings/try", {"flow": "create_site", "payload": {"a": 1}, "expression": "{\n  name: join(' ', [a])\n}"}
        )
    )
    assert found["command"] is None
    assert found["errors"] == [
        {"field": "the expression", "message": "join() takes list of texts, and got number"},
        {"field": "line 2, column 9", "message": "join(' ', [a])"},
    ]
    found = trial(mapped.post("/mappings/try", {"flow": "create_site", "payload": {}, "expression": "{a: "}))
    assert found["errors"][0]["field"].startswith("line 1")
    found = trial(mapped.post("/mappings/try", {"flow": "create_site", "payload": {}, "expression": "{a: foo(b)}"}))
    assert "foo(), which JMESPath does not have" in found["errors"][0]["message"]


@pytest.mark.parametrize("scopes", [(), ("operations:payload",)])
def test_the_values_of_samples_need_the_scope_for_payloads(mapped: Crm, scopes: tuple[str, ...]) -> None:
    as_reader(mapped, *scopes)
    question = {"flow": "create_site", "payload": company(2), "expression": "{name: id}"}
    shown = mapped.post("/mappings/try", question)
    (stored,) = [one for one in shown.json()["mappings"] if one["version"]]
    assert (stored["name"], stored["expression"], stored["stored_at"]) == ("create_site", MAPPED, STORED_AT)
    assert ("payload" in stored["samples"][0]) is bool(scopes)
    assert ("Shop 1" in shown.text) is bool(scopes)
    assert shown.json()["used_after"] == MAPPING_MAX_AGE


def test_of_settings_that_may_not_be_read_only_what_is_given_is_known(mapped: Crm) -> None:
    shown = mapped.post(
        "/mappings/try", {"flow": "status_update", "payload": {"s": "outage"}, "expression": "{status: s}"}
    )
    assert [one["name"] for one in shown.json()["mappings"] if not one["is_readable"]] == ["status_update"]
    assert trial(shown)["is_valid"]
    found = trial(mapped.post("/mappings/try", {"flow": "create_job", "payload": {}}))
    assert found["errors"] == [{"field": "the expression", "message": "is missing: there is no mapping yet"}]


@pytest.mark.parametrize("path", ["/mappings/try", "/sources/try"])
def test_without_a_payload_the_mappings_are_listed(mapped: Crm, path: str) -> None:
    answer = mapped.post(path, {})
    assert trial(answer) is None
    names = [one["name"] for one in answer.json()["mappings"]]
    assert names == (
        ["crm/0"] if "sources" in path else ["create_site", "create_job", "create_key_link", "status_update"]
    )


@pytest.mark.parametrize("path", ["/mappings/try", "/sources/try"])
def test_a_key_needs_the_scope_to_read(mapped: Crm, path: str) -> None:
    key = mapped.stack.add_key("demo", frozenset({"create_site"}), "the CRM")
    mapped.headers["Authorization"] = f"Bearer {key}"
    assert mapped.post(path, {}).status_code == 403


def test_what_is_not_there_is_named(mapped: Crm) -> None:
    assert "must be one of create_site" in mapped.post("/mappings/try", {"flow": "nothing"}).text
    for question in ({"source": "other", "payload": {}}, {"source": "crm", "entry": 7, "payload": {}}):
        assert mapped.post("/sources/try", question).status_code == 404


def test_a_trial_of_a_source_takes_the_entry_that_fits(sender: Sender) -> None:
    crm = sender.crm
    found = trial(crm.post("/sources/try", {"source": "crm", "payload": company(3)}))
    assert (found["name"], found["flow"], found["is_valid"]) == ("crm/0", "create_site", True)
    ignored = trial(crm.post("/sources/try", {"source": "crm", "payload": {"kind": "ticket"}}))
    assert (ignored["name"], ignored["command"], ignored["errors"]) == (None, None, [])
    named = trial(crm.post("/sources/try", {"source": "crm", "entry": 0, "payload": company(3, kind="x")}))
    assert named["errors"] == [{"field": "when", "message": "this event goes to no entry, so it is ignored"}]
    assert sender.sites == []
    assert rows("OPERATIONS_TABLE") == rows("REQUESTS_TABLE") == []


def test_a_trial_of_a_source_says_what_makes_the_flows_own_command_invalid(sender: Sender) -> None:
    entry = {"flow": "status_update", "version": "1", "expression": "{service: s, status: t, occurred_at: at}"}
    sender.use({**SOURCE, "events": [entry]})
    question = {"source": "crm", "payload": {"s": "MAIL", "t": "outage", "at": "2999-01-01T00:00:00Z"}}
    found = trial(sender.crm.post("/sources/try", question))
    assert [one["field"] for one in found["errors"]] == ["occurred_at"]


def test_an_event_in_quarantine_is_tried_before_it_is_sent_again(sender: Sender) -> None:
    sender.send(company(1, lat=None, site_lat=1.5))
    (quarantined,) = sender.quarantined()
    as_reader(sender.crm, "operations:payload")
    payload = sender.crm.get(f"/requests/{quarantined['id']}").json()["payload"]
    question = {"source": quarantined["sender"], "payload": payload}
    assert [one["field"] for one in trial(sender.crm.post("/sources/try", question))["errors"]] == ["latitude"]
    question["expression"] = EXPRESSION.replace("lat,", "lat || site_lat,")
    found = trial(sender.crm.post("/sources/try", question))
    assert (found["is_valid"], found["differences"]) == (True, [{"field": "latitude", "active": None, "tried": 1.5}])


def test_an_expression_that_takes_too_much_is_stopped(mapped: Crm) -> None:
    question = {
        "flow": "create_site",
        "payload": {"a": ["x"]},
        "expression": "{name: " + "|".join(["[@, @]"] * 60) + "}",
    }
    found = trial(mapped.post("/mappings/try", question))
    assert found["errors"] == [{"field": "the expression", "message": "takes too many steps"}]


def test_is_503_when_the_settings_cannot_be_read(mapped: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StorageError("Secrets Manager did not respond. Send the same request again.")

    monkeypatch.setattr(type(runtime().tenants), "get", fail)
    assert mapped.post("/mappings/try", {}).status_code == 503
    assert "did not respond" in json.loads(mapped.post("/sources/try", {}).text)["detail"]


@pytest.mark.parametrize(("scopes", "shown"), [((), []), (("operations:payload",), ["shop"])])
def test_an_expression_is_run_on_samples_only_for_who_may_see_them(
    mapped: Crm, scopes: tuple[str, ...], shown: list[str]
) -> None:
    """How it comes out tells their values."""
    as_reader(mapped, *scopes)
    asked = {"flow": "create_site", "payload": {}, "expression": "{name: starts_with(name, 'S') && name}"}
    found = trial(mapped.post("/mappings/try", asked))
    assert [sample["name"] for sample in found["samples"]] == shown

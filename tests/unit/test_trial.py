"""Trials of mappings on payloads in the form that public integration guides show."""

from typing import Any
from unittest.mock import Mock

import pytest

from crm_bridge.mapping import PayloadMapping, Sample
from crm_bridge.tenants import MAPPING_MAX_AGE
from crm_bridge.trial import Trial, check_samples, mappings_response, shown_mapping
from operations.mappings import targets

SALESFORCE: dict[str, Any] = {
    "schema": "abc",
    "payload": {
        "ChangeEventHeader": {
            "entityName": "Account",
            "recordIds": ["001XX0000ABCDEF"],
            "changeType": "CREATE",
            "commitTimestamp": 1_700_000_000_000,
            "changedFields": [],
        },
        "Name": "Mill",
        "BillingAddress": {"Street": "1 Market St", "City": "Nakuru", "Latitude": None, "Longitude": None},
        "Industry": None,
    },
    "event": {"replayId": 7},
}
"""Source: https://developer.salesforce.com/docs/atlas.en-us.change_data_capture.meta/change_data_capture/cdc_subscribe_compound_fields.htm"""
ZENDESK: dict[str, Any] = {
    "type": "zen:event-type:ticket.status_changed",
    "id": "e-1",
    "account_id": 77,
    "subject": "zen:ticket:5158",
    "time": "2026-03-01T10:00:00.000Z",
    "zendesk_event_version": "2022-11-06",
    "detail": {"id": "5158", "subject": "No power", "status": "SOLVED", "organization_id": "66", "priority": None},
    "event": {"current": "SOLVED", "previous": "OPEN"},
}
"""Source: https://developer.zendesk.com/api-reference/webhooks/event-types/ticket-events/"""
HUBSPOT: dict[str, Any] = {
    "objectId": 4242,
    "properties": {
        "name": {"value": "Mill", "timestamp": 1, "source": "CRM_UI"},
        "lat": {"value": "-0.3"},
        "lon": {"value": "36.08"},
        "address": {"value": "1 Market St"},
    },
    "portalId": 5,
}
"""A made-up workflow that sends each property as an object with its value."""
SALESFORCE_SITE = """payload.{
    customer_id: ChangeEventHeader.recordIds[0], name: Name,
    address: join(', ', [BillingAddress.Street, BillingAddress.City][?@]),
    latitude: BillingAddress.Latitude, longitude: BillingAddress.Longitude
}"""
ZENDESK_JOB = """{ticket_id: detail.id, customer_id: detail.organization_id, name: detail.subject}"""
HUBSPOT_SITE = """{
    customer_id: to_string(objectId), name: properties.name.value, address: properties.address.value,
    latitude: to_number(properties.lat.value), longitude: to_number(properties.lon.value)
}"""


def trial(flow: str, expression: str, payload: Any) -> Trial:
    return Trial(targets()[flow], PayloadMapping(version="1", expression=expression), payload)


def test_a_change_event_of_salesforce_without_a_position_says_what_is_missing() -> None:
    found = trial("create_site", SALESFORCE_SITE, SALESFORCE)
    assert found.made == {"customer_id": "001XX0000ABCDEF", "name": "Mill", "address": "1 Market St, Nakuru"}
    assert [one.field for one in found.errors] == ["latitude", "longitude"]
    assert {"schema", "payload.Industry", "payload.ChangeEventHeader.changeType", "event"} <= set(found.unread)


def test_a_ticket_of_zendesk_becomes_a_job() -> None:
    found = trial("create_job", ZENDESK_JOB, ZENDESK)
    assert (found.made, found.errors) == ({"ticket_id": "5158", "customer_id": "66", "name": "No power"}, ())
    assert {"event", "detail.status", "account_id"} <= set(found.unread)


def test_a_company_of_a_hubspot_workflow_becomes_a_site() -> None:
    found = trial("create_site", HUBSPOT_SITE, HUBSPOT)
    assert found.errors == ()
    assert found.made
    assert (found.made["customer_id"], found.made["latitude"]) == ("4242", -0.3)
    assert found.unread == ["properties.name.timestamp", "properties.name.source", "portalId"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"objectId": None}, "customer_id"),
        ({"properties": {**HUBSPOT["properties"], "lat": {"value": "north"}}}, "latitude"),
        ({"properties": None}, "name"),
    ],
)
def test_what_a_sender_leaves_out_is_named(changes: dict[str, Any], reason: str) -> None:
    found = trial("create_site", HUBSPOT_SITE, {**HUBSPOT, **changes})
    assert reason in [one.field for one in found.errors]


def test_a_number_that_becomes_a_text_or_a_truth_value_is_a_difference() -> None:
    sample = Sample(payload={"a": 1}, command={"ticket_id": 1})
    mapping = PayloadMapping(version="1", expression="{ticket_id: a}", samples={"x": sample})
    (checked,) = check_samples(targets()["create_job"], mapping)
    assert checked.differences == []
    for expression in ("{ticket_id: to_string(a)}", "{ticket_id: a == `1`}", "{ticket_id: a, name: 'x'}"):
        other = PayloadMapping(version="2", expression=expression, samples={"x": sample})
        (checked,) = check_samples(targets()["create_job"], other)
        assert len(checked.differences) == 1


def test_an_expression_that_yields_no_object_or_too_much_is_named() -> None:
    assert trial("create_job", "[detail]", ZENDESK).errors[0].message == "yields no object"
    for letters in ("x" * 260_000, "é" * 45_000, "😀" * 22_000):  # these have one, six and twelve bytes in a response
        large = trial("create_job", "{a: b, c: b}", {"b": letters})
        assert large.errors[0].message == "yields too much"
        assert trial("create_job", "{a: b}", {"b": letters}).made


def test_whose_samples_were_read_is_logged_when_they_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Sample(payload={"a": 1}, command={"ticket_id": 1})
    with_sample = PayloadMapping(version="1", expression="{ticket_id: a}", samples={"one": sample})
    for shows, logged in ((False, []), (True, ["jobs"])):
        log = Mock()
        monkeypatch.setattr("crm_bridge.trial.logger", lambda log=log: log)
        shown = [
            shown_mapping(name, "create_job", mapping, shows=shows)
            for name, mapping in (("jobs", with_sample), ("others", None))
        ]
        response = mappings_response(shown, None)
        assert response == {"mappings": shown, "used_after": MAPPING_MAX_AGE, "trial": None}
        assert [call.kwargs["extra"]["samples"] for call in log.info.call_args_list] == ([logged] if logged else [])
